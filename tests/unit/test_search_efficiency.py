"""The judge of searches: its scale, its expectation of random search, and that it can be stopped and taken up."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kernel_tuner_peers, search_tables
from benchmarks import search_efficiency as judge
from benchmarks.search_spaces import judged_space
from evo.space import Knob, SearchSpace

SPACE = "made-up cliffs"


def test_the_expectation_of_random_search_is_what_random_search_does() -> None:
    expected, _ = judge.random_expectation(SPACE, 100)
    times = judged_space(SPACE).times_us
    worst = np.nanmax(times)
    rng = np.random.default_rng(0)
    drawn = np.where(np.isnan(times), worst, times)[rng.integers(0, len(times), (4000, 50))]
    assert drawn.min(axis=1).mean() == pytest.approx(expected[49], rel=0.03)
    assert (np.diff(expected) <= 0).all()


def test_the_scale_runs_from_random_to_the_optimum_at_once() -> None:
    expected, _ = judge.random_expectation(SPACE, 3000)
    assert judge.score(SPACE, np.full(200, np.nanmin(judged_space(SPACE).times_us))) == pytest.approx(1)
    assert judge.score(SPACE, expected[:200]) == pytest.approx(0, abs=1e-9)


def test_noise_is_told_and_the_finalists_are_timed_again() -> None:
    true = np.array([10.0, np.nan, 9.0, 9.5])
    told = np.array([8.0, np.nan, 12.0, 9.0])
    curve = judge.promoted(true, told, 0.03, np.random.default_rng(0))
    assert curve.tolist() == [10.0, 10.0, 9.0, 9.0]


def test_a_benchmark_stopped_is_taken_up_and_reported(tmp_path: Path) -> None:
    runs = tmp_path / "runs.jsonl"
    arguments = argparse.Namespace(
        runs=runs,
        seeds="0:2",
        noise=[0.0],
        proposers=["random", "genetic"],
        parts=["main"],
        spaces=[SPACE],
        budget=25,
        jobs=1,
        time_limit=None,
    )
    judge.run(arguments)
    first = runs.read_text()
    runs.write_text(first + '{"cut')
    judge.run(arguments)
    assert runs.read_text() == first + '{"cut\n'
    judge.report(argparse.Namespace(runs=[runs], output=tmp_path / "out" / "efficiency.json", keep=None))
    summary = json.loads((tmp_path / "out" / "efficiency.json").read_text())
    assert {r["proposer"] for r in summary["rows"]} == {"random", "genetic"}
    assert search_tables.peers(summary).count("\n| ") == 3
    assert SPACE in search_tables.spaces(summary)


def test_rows_of_an_earlier_report_stand_where_there_are_fewer_searches_now() -> None:
    def row(proposer: str, runs: int, score: float, *reached: str) -> dict[str, object]:
        fraction = dict.fromkeys(reached or ("50", "100"), 0.9)
        return {"noise": 0.0, "proposer": proposer, "space": SPACE, "runs": runs, "score": score, "fraction": fraction}

    known = [row("evo", 25, 0.1), row("tpe", 25, 0.2), row("random", 25, 0.3), row("cmaes", 100, 0.6, "50")]
    found = [row("evo", 25, 0.4), row("tpe", 5, 0.5), row("cmaes", 25, 0.7)]
    rows = judge.with_kept(found, {"commit": "old", "rows": known})
    assert [(r["proposer"], r["score"], r.get("commit")) for r in rows] == [
        ("cmaes", 0.7, None),  # of longer searches
        ("evo", 0.4, None),
        ("random", 0.3, "old"),
        ("tpe", 0.2, "old"),
    ]


def test_searches_of_different_budgets_are_pairs(tmp_path: Path) -> None:
    runs, output = tmp_path / "runs.jsonl", tmp_path / "pairs.json"
    common = {"space": SPACE, "noise": 0.0, "within_5": 90}
    evo = {**common, "proposer": "evo", "budget": 400, "within_1": 300}
    other = {**common, "proposer": "evo-free", "budget": 200, "within_1": 150}
    played = [
        {**one, "seed": seed, "score": seed + gain} for one, gain in ((evo, 0), (other, 0.25)) for seed in range(3)
    ]
    runs.write_text("".join(json.dumps(one) + "\n" for one in played))
    judge.compare(argparse.Namespace(runs=[runs], output=output))
    (row,) = json.loads(output.read_text())["rows"]
    assert (row["pairs"], row["gain"], row["error"]) == (3, 0.25, 0.0)
    assert (row["within_1_evo"], row["within_1_other"]) == (0.0, 1.0)  # of the first 200 evaluations


@pytest.mark.parametrize("strategy", kernel_tuner_peers.STRATEGIES)
def test_kernel_tuners_strategies_see_every_configuration_once_and_keep_to_the_budget(strategy: str) -> None:
    pytest.importorskip("kernel_tuner", reason="Kernel Tuner is not installed: pip install -e '.[peers]'")
    values = tuple(range(1, 9))
    space = SearchSpace([Knob("x", values), Knob("y", values), Knob("z", values)], {"rule": "x * y <= 40"})
    looked: list[tuple[int, ...]] = []

    def look(indices: tuple[int, ...]) -> float:
        looked.append(indices)
        return float("nan") if indices[0] == 7 else 10.0 + indices[0] + indices[1]

    kernel_tuner_peers.search(strategy, space, 0, 90, look)
    assert 15 < len(looked) == len(set(looked)) <= 90
    assert all(space.at(indices) in space for indices in looked)
