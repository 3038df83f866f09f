"""The search loop, played on recordings: deterministic, each binary measured once, ended by budget, time or Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evo.base import find_base
from evo.campaign import Binding, Campaign
from evo.dashboard import views
from evo.dashboard.report import write_report
from evo.outcome import Built, Done, Measured, Rejected, Resources, Stage
from evo.record import Record, open_record
from evo.search import make_proposer
from evo.setting import SearchRequest
from evo.space import Knob, SearchSpace
from evo.targets.recorded import save_recording
from evo.tune import SearchResult, search
from evo.variant import Variant
from tests.synthetic import make_spec

ROOT = Path(__file__).resolve().parents[2]
KNOBS = [Knob("x", tuple(range(16))), Knob("y", tuple(range(16))), Knob("z", tuple(range(12)))]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3072 configurations of a bowl with one hole in every ten."""
    path = tmp_path_factory.mktemp("recordings") / "bowl.json.gz"
    trials: list[tuple[tuple[int, ...], Any]] = []
    for number, (x, y, z) in enumerate(np.ndindex(16, 16, 12)):
        time_us = 10.0 + (x - 11) ** 2 + (y - 4) ** 2 / 2 + abs(z - 6) / 4
        measured = Measured((time_us, time_us * 1.01, time_us * 0.99), (20.0, 20.2, 19.8))
        trials.append(((x, y, z), Rejected(Stage.BUILD, "compile_error", "words") if number % 10 == 3 else measured))
    save_recording(
        path,
        base="bowl",
        workload="attention",
        case="mission",
        device={"name": "Example GPU", "arch": "sm_00", "anchor": "flash"},
        date="2026-01-02T03:04:05+00:00",
        commit="0123456789",
        knobs=KNOBS,
        trials=trials,
        anchor="flash",
    )
    return path


def played(recording: Path, db: Path, **changes: Any) -> SearchResult:
    request = {"recording": recording, "db": str(db), "budget": 60, "seed": 3, **changes}
    return search(SearchRequest(**request))


def proposals(db: Path, campaign: int = 1) -> list[dict[str, Any]]:
    with open_record(db, create=False) as record:
        return [dict(trial.configuration) for trial in sorted(record.trials(campaign), key=lambda t: t.number)]


@pytest.mark.parametrize("proposer", ["evo", "random"])
def test_the_same_seed_gives_the_same_search_and_another_seed_another(
    recording: Path, tmp_path: Path, proposer: str
) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        played(recording, tmp_path / f"{name}.db", seed=seed, proposer=proposer)
    first, second, third = (proposals(tmp_path / f"{name}.db") for name in "abc")
    assert first == second
    assert first != third
    assert len({tuple(configuration.items()) for configuration in first}) == len(first) == 60


def test_the_budget_is_spent_to_the_last_and_everything_is_recorded(recording: Path, tmp_path: Path) -> None:
    result = played(recording, tmp_path / "r.db", budget=47)
    assert (result.state, result.reason, result.progress.evaluated) == ("done", "budget spent", 47)
    with open_record(tmp_path / "r.db", create=False) as record:
        trials = record.trials(1)
        assert sorted(trial.number for trial in trials) == list(range(47))
        assert sum(trial.stage is None for trial in trials) == result.progress.valid
        assert sum(result.progress.rejected.values()) == 47 - result.progress.valid
        times = [trial.time_us for trial in trials if trial.time_us is not None]
        assert result.progress.best_us == min(times)
        curve = result.progress.curve
        assert [us for _, us in curve] == sorted((us for _, us in curve), reverse=True)
        campaign = record.campaign(1)
        assert campaign.state == "done"
        assert campaign.replay == "recorded times of Example GPU, 2026-01-02"
        assert [elite.rank for elite in record.elites()] == [1, 2, 3]
        assert all(elite.replay for elite in record.elites())


def test_a_search_finds_the_bottom_of_a_bowl_sooner_than_chance(recording: Path, tmp_path: Path) -> None:
    found = played(recording, tmp_path / "evo.db", budget=150).progress.best_us
    assert found is not None
    assert found < 11.5  # 1 % of the space


def test_a_space_smaller_than_the_budget_is_searched_whole(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    knobs = [Knob("x", (1, 2, 3, 4))]
    trials = [((i,), Measured((float(i + 1),))) for i in range(4)]
    save_recording(
        path,
        base="small",
        workload="",
        case="",
        device={"name": "none"},
        date="",
        commit="",
        knobs=knobs,
        trials=trials,
    )
    result = played(path, tmp_path / "r.db", budget=100)
    assert result.reason == "every admissible configuration tried"
    assert result.progress.evaluated == 4
    assert result.progress.best_us == 1.0


def test_the_time_limit_ends_a_search(recording: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    result = played(recording, tmp_path / "r.db", budget=None, time_limit_s=1.0)
    assert result.reason == "time limit reached"
    assert 0 < result.progress.evaluated < 3072
    assert time.monotonic() - started < 20


def test_a_resumed_search_goes_on_and_repeats_nothing(recording: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    played(recording, db, budget=30)
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE campaigns SET state = 'interrupted', ended_at = NULL")
    result = played(recording, db, budget=70, resume=True)
    assert result.campaign_id == 1
    assert result.progress.evaluated == 70
    every = proposals(db)
    assert len(every) == len({tuple(configuration.items()) for configuration in every}) == 70


def test_patience_ends_a_search_whose_prospects_lie_under_the_noise_and_says_so(
    recording: Path, tmp_path: Path
) -> None:
    for proposer, words in (("evo", "promised"), ("random", "evaluations")):
        db = tmp_path / f"{proposer}.db"
        result = played(recording, db, budget=1500, patience=40, proposer=proposer)
        assert result.progress.evaluated < 1500
        assert result.reason.startswith("patience spent: no improvement above the noise floor of ")
        assert words in result.reason
        with open_record(db, create=False) as record:
            campaign = record.campaign(1)
            assert (campaign.state, campaign.end_reason, campaign.patience) == ("done", result.reason, 40)
    found = played(recording, tmp_path / "again.db", budget=1500, patience=40).progress.best_us
    assert found is not None
    assert found < 10.6  # near the bottom: it did not give up early


def test_a_control_arm_takes_its_share_and_the_report_says_what_evolution_gained(
    recording: Path, tmp_path: Path
) -> None:
    db = tmp_path / "r.db"
    result = played(recording, db, budget=150, control_share=0.2)
    assert result.arms is not None
    assert result.arms.trials == 30
    assert result.arms.verdict == "evolution helped"
    with open_record(db, create=False) as record:
        assert record.campaign(1).control_share == 0.2
        operators = [trial.origin.operator for trial in record.trials(1)]
        assert operators.count("control") == 30
        write_report(record, 1, tmp_path / "r.md")
        write_report(record, 1, tmp_path / "r.html")
    for name in ("r.md", "r.html"):
        text = (tmp_path / name).read_text()
        assert "On this space evolution helped: 30 trials each" in text
        assert "budget spent" in text
    every = proposals(db)
    assert len(every) == len({tuple(configuration.items()) for configuration in every}) == 150


def test_a_resumed_search_keeps_its_control_arm_and_patience(recording: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    played(recording, db, budget=30, control_share=0.5, patience=300)
    with sqlite3.connect(db) as connection:
        connection.execute("UPDATE campaigns SET state = 'interrupted', ended_at = NULL")
    played(recording, db, budget=60, resume=True)
    with open_record(db, create=False) as record:
        campaign = record.campaign(1)
        assert (campaign.control_share, campaign.patience) == (0.5, 300)
        assert sum(trial.origin.operator == "control" for trial in record.trials(1)) == 30


def test_the_ancestors_of_the_best_are_trials_of_the_campaign(recording: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    played(recording, db, budget=120)
    with open_record(db, create=False) as record:
        trials = {trial.number: trial for trial in record.trials(1)}
        for trial in trials.values():
            bred = trial.origin.operator in ("child", "neighbour")
            assert bool(trial.origin.parents) == bred
            assert all(parent in trials and parent != trial.number for parent in trial.origin.parents)
        steps = views.lineage_steps(record, record.campaign(1))
        assert len(steps) > 2
        assert steps[0]["trial"].id == record.campaign(1).best_trial_id
        assert steps[-1]["parents"] == []
        assert all(step["changed"] for step in steps[:-1])


class Workshop:
    """A fleet by hand: knob z does not reach the binary, runs take as long as the test says."""

    builders, seats = 6, 1

    def __init__(self) -> None:
        self.done: list[Done] = []
        self.runs: list[str] = []
        self.hold: list[tuple[int, Variant]] = []
        self.waits = 0

    def building(self) -> int:
        return 0

    def running(self) -> int:
        return len(self.hold)

    def submit_build(self, number: int, variant: Variant) -> None:
        x, y = variant.configuration["x"], variant.configuration["y"]
        binary_hash = f"{x}-{y}"
        outcome: Built | Rejected = Built(variant.key, b"", binary_hash, Resources(registers=32), "", 0.1)
        if x == 7:
            outcome = Rejected(Stage.BUILD, "compile_error", "error: seven")
        self.done.append(Done(number, "build", outcome, "builder", time.time(), time.time()))

    def submit_run(self, number: int, variant: Variant, built: Built, best_us: float | None) -> None:
        self.runs.append(built.binary_hash)
        self.hold.append((number, variant))

    def wait(self, timeout_s: float) -> list[Done]:
        self.waits += 1
        done, self.done = self.done, []
        if self.waits % 3 == 0:  # the last first: outcomes arrive in any order
            for number, variant in reversed(self.hold):
                us = 10.0 + float(variant.configuration["x"]) + float(variant.configuration["y"])
                done.append(Done(number, "run", Measured((us,), (20.0,)), "seat", time.time(), time.time()))
            self.hold = []
        return done


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with open_record(tmp_path / "results.db") as opened:
        yield opened


def by_hand(record: Record, fleet: Workshop, budget: int) -> tuple[Campaign, int]:
    space = SearchSpace(KNOBS)
    base = replace(find_base("cpu_attention"), knobs=tuple(KNOBS))
    binding = Binding(base, space, space, {}, {}, "x86-64", "none")
    campaign_id = record.start_campaign(make_spec())
    proposer = make_proposer("random", space, 1, budget=budget)
    return Campaign(record, campaign_id, binding, proposer, fleet, budget), campaign_id


def test_variants_with_one_binary_are_measured_once_and_share_the_outcome(record: Record) -> None:
    fleet = Workshop()
    campaign, campaign_id = by_hand(record, fleet, 400)
    assert campaign.run() == "budget spent"
    trials = record.trials(campaign_id)
    assert len(trials) == 400
    assert len(fleet.runs) == len(set(fleet.runs)), "no binary ran twice"
    twins = [trial for trial in trials if trial.same_as is not None]
    by_number = {trial.number: trial for trial in trials}
    assert twins
    for twin in twins:
        first = by_number[int(twin.same_as or 0)]
        assert [first.configuration[knob] for knob in "xy"] == [twin.configuration[knob] for knob in "xy"]
        assert twin.time_us == first.time_us
        assert first.same_as is None


def test_failures_are_rows_with_their_stage_and_the_compilers_words(record: Record) -> None:
    campaign, campaign_id = by_hand(record, Workshop(), 300)
    campaign.run()
    failed = [trial for trial in record.trials(campaign_id) if trial.stage is not None]
    assert failed
    assert {(trial.stage, trial.reason, trial.detail) for trial in failed} == {
        (Stage.BUILD, "compile_error", "error: seven")
    }
    assert campaign.progress.rejected == {"build: compile_error": len(failed)}
    assert all(trial.time_us is None for trial in failed)


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM]],
    ids=["once", "twice", "terminate"],
)
def test_ctrl_c_leaves_everything_recorded_and_the_campaign_interrupted(
    recording: Path, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    db = tmp_path / "results.db"
    words = ["search", "--recording", str(recording), "--budget", "3000", "--db", str(db), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "evo.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        wait_for_rows(db, 20, process)
        for kind in signals:
            process.send_signal(kind)
            time.sleep(0.02)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in err
    with open_record(db, create=False) as record:
        campaign = record.campaign(1)
        trials = record.trials(1)
    assert campaign.state == "interrupted"
    assert 20 <= len(trials) < 3000
    document = json.loads(out)
    assert process.returncode == 0
    assert document["state"] == "interrupted"
    assert 0 <= document["evaluated"] - len(trials) <= 16  # at most the batch under way


def wait_for_rows(db: Path, rows: int, process: subprocess.Popen[str], limit_s: float = 120) -> None:
    """Until so many trials are in the database of a running search."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and process.poll() is None:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as c,
        ):
            if c.execute("SELECT count(*) FROM trials").fetchone()[0] >= rows:
                return
        time.sleep(0.05)
    raise AssertionError(f"no {rows} trials after {limit_s} s: {process.communicate()}")
