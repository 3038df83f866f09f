"""An unfinished campaign is offered, and a search that goes on with it keeps its proposer, seed and budget."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from evo import cli, resume, sanitize, tune
from evo.errors import InputError
from evo.outcome import Measured, Rejected
from evo.record import CampaignSpec, Environment, open_record
from evo.search import make_proposer
from evo.seat import Ready
from evo.setting import SearchRequest, resolve
from evo.space import Configuration, Knob, SearchSpace
from evo.targets.host import HostTarget
from tests.records import make_trial

REQUEST = SearchRequest(base="cpu_attention", case="tiny", proposer="evo", seed=0, budget=200)


def _interrupted(db: Path, request: SearchRequest) -> None:
    """A campaign that stopped after it had begun, as by Ctrl-C, without a fleet."""
    with open_record(db) as record:
        spec = CampaignSpec(
            base=request.base,
            workload="attention",
            case_name=request.case,
            dtype="float32",
            arch="x86-64",
            target="host",
            proposer="random",
            seed=11,
            environment=Environment("a processor"),
            budget=40,
            options={"time_limit_s": 90.0},
        )
        record.finish_campaign(record.start_campaign(spec), "interrupted", "Ctrl-C")


def test_no_unfinished_campaign_is_no_offer(tmp_path: Path) -> None:
    request = replace(REQUEST, db=str(tmp_path / "results.db"))
    assert resume.find_unfinished(request) is None
    assert not (tmp_path / "results.db").exists(), "looking makes no file"
    open_record(request.db).close()
    assert resume.find_unfinished(request) is None


def test_the_offer_is_for_the_same_base_and_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "results.db"
    _interrupted(db, REQUEST)
    request = replace(REQUEST, db=str(db))
    assert resume.find_unfinished(replace(request, case="small")) is None
    assert not cli._offer_resume(request, ask=False).resume, "without a terminal nobody is asked"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evo: campaign 1 of cpu_attention, case tiny, is unfinished (0 of 40 evaluated)")
    assert "--resume" in line
    asked: list[tuple[str, bool]] = []

    def confirm(text: str, default: bool) -> bool:
        asked.append((text, default))
        return default

    monkeypatch.setattr("typer.confirm", confirm)
    assert cli._offer_resume(request, ask=True).resume, "the answer offered is yes"
    assert asked[0][0].startswith("Campaign 1")
    assert asked[0][1] is True


def test_a_resumed_search_is_the_one_of_before(tmp_path: Path) -> None:
    db = tmp_path / "results.db"
    _interrupted(db, REQUEST)
    request = replace(REQUEST, db=str(db), resume=True, own_budget=True)
    found = resume.find_unfinished(request)
    assert found is not None
    again = resume.as_before(request, found, 0.0)
    assert (again.proposer, again.seed, again.budget, again.time_limit_s) == ("random", 11, 40, 90.0)
    assert resume.as_before(replace(request, budget=60, own_budget=False), found, 0.0).budget == 60


def test_of_a_time_limit_is_left_what_was_not_searched(tmp_path: Path) -> None:
    """A trial of 30 s, one of 20 s that overlaps it by 10 s, and an hour later one of 5 s: 45 s of 90."""
    db = tmp_path / "results.db"
    _interrupted(db, REQUEST)
    with open_record(db) as record:
        for number, (started, ended) in enumerate([(1000.0, 1030.0), (1020.0, 1040.0), (4600.0, 4605.0)]):
            record.record_trial(1, replace(make_trial(number), started_at=started, recorded_at=ended))
        (found,), searched_s = record.unfinished_campaigns(), record.searched_s(1)
    assert searched_s == pytest.approx(45.0)
    assert resume.as_before(REQUEST, found, searched_s).time_limit_s == pytest.approx(45.0)
    assert resume.as_before(REQUEST, found, 100.0).time_limit_s == 0.0
    assert resume.as_before(replace(REQUEST, time_limit_s=60.0), found, searched_s).time_limit_s == 60.0, "from now on"


def test_a_campaign_that_failed_is_offered_too_and_one_that_is_done_is_not(tmp_path: Path) -> None:
    db = tmp_path / "results.db"
    _interrupted(db, REQUEST)
    for state, offered in (("failed", True), ("done", False)):
        with open_record(db) as record:
            record.finish_campaign(1, state, "OSError: no space left on device")
        assert (resume.find_unfinished(replace(REQUEST, db=str(db))) is not None) == offered


def test_a_resumed_search_proves_itself_as_the_first_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of before may have been stopped before its proof was done."""
    db = tmp_path / "results.db"
    _interrupted(db, REQUEST)
    request = replace(REQUEST, db=str(db), resume=True)
    target = HostTarget()
    ready = Ready(target.facts(), {}, "", target.toolchain(), "")
    fleet = SimpleNamespace(ready=ready, builders=1, seats=1)
    asked: list[str] = []
    monkeypatch.setattr(tune, "check_knobs", lambda *_, **__: asked.append("knobs"))

    def prove(*_: object) -> None:
        raise InputError("the harness does not hold")

    monkeypatch.setattr(tune, "prove_harness", prove)
    with open_record(db) as record, pytest.raises(InputError, match="the harness does not hold"):
        tune.search_with(fleet, request, resolve(request), record)
    assert asked == ["knobs"]


def test_a_campaign_is_taken_up_by_one_process_only(tmp_path: Path) -> None:
    db = tmp_path / "results.db"
    _interrupted(db, REQUEST)
    take = (
        "import sys, time; from evo.record import open_record; from evo.errors import InputError\n"
        f"record = open_record({str(db)!r})\n"
        "try:\n    record.resume_campaign(1); print('mine'); sys.stdout.flush(); sys.stdin.read()\n"
        "except InputError as error:\n    print(error)\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", take], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    words = [process.stdout.readline() for process in both if process.stdout is not None]
    for process in both:
        process.communicate("")
    assert sorted(word == "mine\n" for word in words) == [False, True], words


def test_a_generator_that_repeats_itself_still_finds_what_is_untried() -> None:
    space = SearchSpace([Knob("x", tuple(range(20))), Knob("y", tuple(range(10)))])
    tried: list[Configuration] = []
    while len(tried) < 200:
        again = make_proposer("random", space, 3, budget=200)  # as after one kill and the next
        for configuration in tried:
            again.tell(configuration, Measured((1.0,)))
        new = [configuration for _ in range(10) for configuration in again.ask(1)]
        assert len(new) == 10
        tried += new
    assert len(set(tried)) == 200


def test_a_resumed_search_draws_from_another_stream_of_its_seed() -> None:
    assert resume.stream_of(7, 0) == 7
    assert len({resume.stream_of(7, told) for told in range(100)}) == 100
    assert resume.stream_of(7, 40) == resume.stream_of(7, 40) < 2**31


FINDING = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 2 bytes
=========     at attention_forward+0x1230
=========     by thread (5,0,0) in block (0,0,0)
=========     Saved host backtrace up to driver entry point at kernel launch time
========= ERROR SUMMARY: 1 error
"""


def test_what_the_sanitizer_finds_is_a_refusal_and_what_it_cannot_do_is_a_note() -> None:
    found = sanitize.judge_run("memcheck", 86, FINDING)
    assert isinstance(found, Rejected)
    assert (found.stage, found.reason) == ("verify", "sanitizer:memcheck")
    assert found.detail.startswith("Invalid __global__ write of size 2 bytes")
    assert "backtrace" not in found.detail
    assert sanitize.judge_run("racecheck", 0, "evo: launched 2\n========= ERROR SUMMARY: 0 errors") == "clean"
    note = sanitize.judge_run("memcheck", 1, "========= Error: Target application terminated")
    assert note == "could not be run (exit code 1: ========= Error: Target application terminated)"
    assert "could not be run" in str(sanitize.judge_run("memcheck", 0, "nothing was launched"))


def test_no_sanitizer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitize, "find_sanitizer", lambda: None)
    assert sanitize.sanitize(None, None, "attention", None) == "not installed"  # type: ignore[arg-type]
