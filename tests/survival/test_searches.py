"""Whole searches on the host target, with variants that do their worst and drivers that are killed."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from evo.recheck import replay_trial, verify_elites
from tests.command_line import evo
from tests.hostile.searches import Ground, ground
from tests.hostile.variants import write_base

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.timeout(1200),  # of a busy machine; minutes are not needed
]
BUILD_S, RUN_S = "5", "5"
QUICK = ("--case", "tiny", "--proposer", "random", "--no-proof", "--rounds", "30", "--db", "results.db")
LIMITS = ("--build-timeout", BUILD_S, "--run-timeout", RUN_S)

REIGNING = """SELECT rank, variant_key FROM elites JOIN promotions ON promotions.id = promotion_id
              WHERE until IS NULL ORDER BY rank"""


@pytest.fixture
def place() -> Iterator[Ground]:
    with ground() as made:
        yield made


@pytest.mark.timeout(500)
def test_a_driver_killed_twenty_times_loses_nothing_and_resume_goes_on(place: Ground) -> None:
    base = write_base(place.folder, honest=120, each=1)
    rng = random.Random(5)
    arguments = ("--base", str(base), *QUICK, *LIMITS)
    driver = place.start(*arguments, "--budget", "100", "--seed", "7")
    _wait_for_a_trial(place)
    recorded: list[tuple[str, object]] = []
    for kill in range(20):
        time.sleep(rng.uniform(0, 6))  # while it starts, builds, measures or records
        assert driver.poll() is None, f"it ended before it was killed:\n{place.log}"
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        took_s, left = place.settle()
        assert not left, f"orphans {took_s:.0f} s after the driver was killed, time {kill + 1}"
        assert place.litter() == []
        assert place.rows("PRAGMA integrity_check") == [("ok",)]
        now = [(trial["configuration"], trial["time_us"]) for trial in place.trials()]
        assert now[: len(recorded)] == recorded, "an outcome was lost"
        recorded = now
        driver = place.start(*arguments, "--resume")
    assert driver.wait() == 0, place.log
    trials = place.trials()
    assert {trial["campaign_id"] for trial in trials} == {1}
    assert len(trials) == 100, "the budget goes on where it stopped"
    assert max(Counter(trial["configuration"] for trial in trials).values()) == 1, "none is evaluated twice"
    (campaign,) = place.rows("SELECT state, seed, budget, proposer FROM campaigns")
    assert campaign == ("done", 7, 100, "random")
    assert place.rows("SELECT count(*) FROM elites WHERE until IS NULL") == [(3,)]


def test_two_searches_into_one_database_both_complete(place: Ground) -> None:
    base = write_base(place.folder, honest=30, each=1)
    drivers = [
        place.start("--base", str(base), *QUICK, *LIMITS, "--budget", "8", "--seed", seed) for seed in ("1", "2")
    ]
    assert [driver.wait() for driver in drivers] == [0, 0], place.log
    counts = Counter(trial["campaign_id"] for trial in place.trials())
    assert counts == {1: 8, 2: 8}
    assert place.rows("SELECT DISTINCT state FROM campaigns") == [("done",)]
    assert not list(place.folder.glob("*.spool-*"))
    _replay_and_verify_again(place)
    _promote_without_time(place, base)


def _replay_and_verify_again(place: Ground) -> None:
    """What these searches recorded reproduces; an elite whose program has become wrong is demoted."""
    db = str(place.db)
    ((measured, key),) = place.rows("SELECT id, variant_key FROM trials WHERE time_us IS NOT NULL LIMIT 1")
    again = replay_trial(measured, db=db, within=100.0)  # on busy cores; tests/unit/test_recheck.py judges times
    assert again["checks"] == {"key": True, "binary": True, "outcome": True, "time": True}
    assert again["reproduces"]
    assert again["variant"] == key

    assert {verdict.fate for verdict in verify_elites(db=db)} == {"holds"}
    champion = place.rows(REIGNING)[0][1]
    with contextlib.closing(sqlite3.connect(db)) as connection, connection:
        connection.execute(
            "UPDATE variants SET header = replace(header, 'Hostility::kNone', 'Hostility::kWrong') WHERE key = ?",
            (champion,),
        )
    verdicts = verify_elites(db=db)
    assert [verdict.fate for verdict in verdicts] == ["demoted", "holds", "holds"]
    assert "wrong_output" in verdicts[0].reason
    assert place.rows(REIGNING) == [(1, verdicts[1].variant), (2, verdicts[2].variant)]
    ((reason,),) = place.rows("SELECT reason FROM promotions WHERE accepted = 0 AND variant_key = ?", champion)
    assert reason.startswith("verified again: verify: wrong_output")


def _promote_without_time(place: Ground, base: Path) -> None:
    """A comparison has no longer than its limit: each part of it is stopped, and all stays as it was.

    From a folder in which the base is not found by its name.
    """
    reigning = place.rows(REIGNING)
    promote = ["promote", "2", "--db", str(place.db), "--contest-timeout", "1e-06"]  # shorter than the quickest verdict
    for asked, said in (
        (["--base", "cpu_attention"], "expected hostile, the base of campaign 2"),
        ([], "no such base"),
    ):
        assert said in evo(*promote, *asked, cwd=base.parent, code=2).stderr
    evo(*promote, "--base", str(base), cwd=base.parent, code=1)
    query = "SELECT reason FROM promotions WHERE campaign_id = 2 ORDER BY id DESC LIMIT 3"
    assert {reason for (reason,) in place.rows(query)} == {"timeout: hang: verification: no answer within 1e-06 s"}
    assert place.rows(REIGNING) == reigning


def _wait_for_a_trial(place: Ground) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if place.db.exists():
            tables = place.rows("SELECT name FROM sqlite_master WHERE name = 'trials'")
            if tables and place.trials():
                return
        time.sleep(0.05)
    pytest.fail(f"no trial within four minutes\n{place.log}")
