"""How few trials does each proposer need? Plays every proposer on every space whose times are all known.

    python -m benchmarks.search_efficiency run --seeds 0:25 --runs build/search_runs.jsonl --time-limit 600
    python -m benchmarks.search_efficiency report --runs build/search_runs.jsonl
    python -m benchmarks.search_efficiency compare --runs build/search_runs.jsonl

`run` plays the study of search_plan.py, appends one line per run and skips runs that are there already, so it may be
stopped and taken up. `report` writes benchmarks/results/search_efficiency.json and the plots beside it and prints the
table; with `--keep PREVIOUS.json` the rows of an earlier report stand wherever the runs hold fewer searches, each with
the commit it is of. The plots show the runs alone.

Score of a run: mean over its evaluations of (random's expectation - best so far) / (random's expectation - optimum), up
to the evaluation where random search is expected to have covered 95 % of the way from median to optimum; 0 is random
search, 1 is the optimum at once. With noise, times told to the proposer are disturbed, and the result at n evaluations
is the one of the three best told that wins when each is timed 20 times more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from benchmarks import kernel_tuner_peers
from benchmarks.search_peers import peer
from benchmarks.search_plan import PARTS, Planned, planned
from benchmarks.search_spaces import judged_space
from evo.outcome import Measured, Rejected, Stage

Array = npt.NDArray[Any]
RESULT = Path("benchmarks/results/search_efficiency.json")
RUNS = Path("build/search_runs.jsonl")
CHECKPOINTS = (25, 50, 100, 200, 400)
COVERED = 0.95
SCORED_MOST = 200
FINALISTS, RETIMED = 3, 20


@cache
def random_expectation(name: str, budget: int) -> tuple[Array, int]:
    """Expected best of n draws without replacement for n = 1, 2, ..., and the evaluation that ends the score.

    Ends at `budget`, or once the score has ended and SCORED_MOST is passed.
    """
    times = judged_space(name).times_us
    optimum, median, worst = np.nanmin(times), np.nanmedian(times), np.nanmax(times)
    ascending = np.sort(np.where(np.isnan(times), worst, times))
    count = len(ascending)
    rank = np.arange(count + 1)
    none_better = np.ones(count + 1)  # chance that no draw so far is among the `rank` best
    expected: list[float] = []
    ends = 0
    while len(expected) < min(budget, count) and not (ends and len(expected) >= SCORED_MOST):
        drawn = len(expected)
        none_better = none_better * np.clip((count - rank - drawn) / (count - drawn), 0, None)
        none_better = none_better[: int(np.searchsorted(-none_better, -1e-15)) + 1]  # the rest is as good as zero
        rank = rank[: len(none_better)]
        best_is = -np.diff(np.append(none_better, 0.0))[:count]  # chance that the best draw has each rank
        expected.append(float(ascending[: len(best_is)] @ best_is))
        if not ends and expected[-1] <= median - COVERED * (median - optimum):
            ends = len(expected)
    return np.array(expected), ends or len(expected)


def play(name: str, proposer_name: str, seed: int, budget: int, noise: float) -> dict[str, Any]:
    """One search: the true time after each evaluation of what would be promoted then, and what it cost."""
    judged = judged_space(name)
    rng = np.random.default_rng([seed, 7])
    true: list[float] = []
    told: list[float] = []

    def look(indices: tuple[int, ...]) -> float:
        """Evaluate: the time that is told, nan for a failure."""
        exact = float(judged.times_us[int(judged.space.row_numbers(np.array([indices]))[0])])
        true.append(exact)
        told.append(exact * float(np.exp(noise * rng.standard_normal())) if noise else exact)
        return told[-1]

    began = time.process_time()
    if proposer_name.startswith(kernel_tuner_peers.PREFIX):
        strategy = proposer_name.removeprefix(kernel_tuner_peers.PREFIX)
        kernel_tuner_peers.search(strategy, judged.space, seed, budget, look)
    else:
        proposer = peer(proposer_name, judged.space, seed, budget)
        while len(true) < budget and (asked := proposer.ask(1)):
            time_us = look(asked[0].indices)
            failed = Rejected(Stage.BUILD, "recorded_failure")
            proposer.tell(asked[0], Measured((time_us,)) if np.isfinite(time_us) else failed)
    cpu_s = time.process_time() - began
    curve = promoted(np.array(true), np.array(told), noise, rng)
    rest = min(budget, judged.space.size) - len(curve)  # a strategy that has converged stays with what it has
    curve = np.append(curve, np.full(rest, curve[-1] if len(curve) else np.inf))
    return {
        "space": name,
        "proposer": proposer_name,
        "seed": seed,
        "noise": noise,
        "budget": budget,
        "cpu_s": round(cpu_s, 3),
        "score": round(score(name, curve), 4),
        "within_5": first_within(name, curve, 1.05),
        "within_1": first_within(name, curve, 1.01),
        "curve": [round(float(f), 5) for f in np.nanmin(judged.times_us) / curve],  # fraction of the optimum
    }


def promoted(true: Array, told: Array, noise: float, rng: np.random.Generator) -> Array:
    """True time of what would be promoted after each evaluation; inf before anything ran."""
    if not noise:
        return np.asarray(np.minimum.accumulate(np.where(np.isnan(true), np.inf, true)))
    curve = np.full(len(true), np.inf)
    order: list[int] = []
    retimed = true * np.exp(noise / np.sqrt(RETIMED) * rng.standard_normal(len(true)))
    for place in range(len(true)):
        if np.isfinite(told[place]):
            order = sorted([*order, place], key=lambda p: told[p])[:FINALISTS]
        if order:
            curve[place] = true[min(order, key=lambda p: retimed[p])]
    return curve


def score(name: str, curve: Array) -> float:
    """0 = random search, 1 = the optimum at once; see the module's text."""
    times = judged_space(name).times_us
    expected, last = random_expectation(name, 3000)
    count = min(last, len(curve), SCORED_MOST)
    best = np.where(np.isfinite(curve[:count]), curve[:count], np.nanmedian(times))
    return float(np.mean((expected[:count] - best) / (expected[:count] - np.nanmin(times))))


def first_within(name: str, curve: Array, factor: float) -> int | None:
    """Evaluations until the result is within this factor of the optimum."""
    found = np.flatnonzero(curve <= factor * np.nanmin(judged_space(name).times_us))
    return int(found[0]) + 1 if len(found) else None


def run(arguments: argparse.Namespace) -> None:
    """Play what is asked for and not there yet, what matters most first; each run is written as it ends."""
    path: Path = arguments.runs
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {Planned(r["space"], r["proposer"], r["seed"], r["noise"], r["budget"]) for r in read_runs(path)}
    wanted = planned(arguments)
    missing = [one for one in wanted if one not in done]
    print(f"{len(missing)} runs of {len(wanted)} to play", flush=True)
    for name in {one.space for one in missing}:
        random_expectation(name, 3000)  # before the pool forks, so that its processes share every space
    with path.open("a") as file:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            file.write("\n")  # an earlier line was cut short
        for number, found in enumerate(_played(missing, arguments.jobs, arguments.time_limit), 1):
            file.write(json.dumps(found, separators=(",", ":")) + "\n")
            file.flush()
            if number % 100 == 0:
                print(f"{number} of {len(missing)}", flush=True)


def _played(missing: list[Planned], jobs: int, time_limit_s: float | None) -> Iterator[dict[str, Any]]:
    """Runs in the order they end; none is begun that may outlast the time limit, judged by the longest so far."""
    began, longest = time.monotonic(), 0.0
    waiting = iter(missing)
    started: dict[Future[dict[str, Any]], float] = {}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        while True:
            late = time_limit_s is not None and time.monotonic() - began + longest > time_limit_s
            while len(started) < jobs and not late and (one := next(waiting, None)) is not None:
                future = pool.submit(play, one.space, one.proposer, one.seed, one.budget, one.noise)
                started[future] = time.monotonic()
            if not started:
                return
            for future in wait(started, return_when=FIRST_COMPLETED).done:
                longest = max(longest, time.monotonic() - started.pop(future))
                if future.exception() is not None:
                    print(f"a run failed: {future.exception()!r}", flush=True)
                    continue
                yield future.result()


def read_runs(path: Path) -> Iterator[dict[str, Any]]:
    """The runs played so far; a line cut short by an interruption is skipped."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one proposer on one space, or over several spaces."""
    curves = [np.array(r["curve"]) for r in runs]
    budget = min(r["budget"] for r in runs)
    reached = {n: [float(c[min(n, len(c)) - 1]) for c in curves] for n in CHECKPOINTS if n <= budget}
    at_200 = {k: float(np.mean([r[k] is not None and r[k] <= 200 for r in runs])) for k in ("within_1", "within_5")}
    scores = np.array([r["score"] for r in runs])
    return {
        "runs": len(runs),
        "score": round(float(scores.mean()), 4),
        "score_error": round(float(scores.std() / max(1, len(scores)) ** 0.5), 4),
        "fraction": {str(n): round(float(np.mean(f)), 4) for n, f in reached.items()},
        "within_1_at_200": round(at_200["within_1"], 3),
        "within_5_at_200": round(at_200["within_5"], 3),
        "median_to_5": _median_or_none([r["within_5"] for r in runs]),
        "median_to_1": _median_or_none([r["within_1"] for r in runs]),
        "cpu_s": round(float(np.mean([r["cpu_s"] for r in runs])), 3),
    }


def _median_or_none(counts: list[int | None]) -> float | None:
    median = float(np.median([np.inf if c is None else c for c in counts]))
    return median if np.isfinite(median) else None


def report(arguments: argparse.Namespace) -> None:
    """Write the summary and the plots from the runs played."""
    runs = [one for path in arguments.runs for one in read_runs(path)]
    cells: dict[tuple[float, str, str], list[dict[str, Any]]] = {}
    for one in runs:
        cells.setdefault((one["noise"], one["proposer"], one["space"]), []).append(one)
    rows = [{"noise": n, "proposer": p, "space": s, **summarise(cells[n, p, s])} for n, p, s in sorted(cells)]
    rows = with_kept(rows, json.loads(arguments.keep.read_text())) if arguments.keep else rows
    summary = {
        "format": "evo_search_efficiency",
        "version": 1,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "budget": max((r["budget"] for r in runs), default=0),
        "covered": COVERED,
        "scored_most": SCORED_MOST,
        "spaces": _describe(sorted({r["space"] for r in rows})),
        "rows": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(summary, indent=1) + "\n")
    from benchmarks.search_plots import draw
    from benchmarks.search_tables import peers

    print(peers(summary))

    draw([r for r in runs if r["noise"] == 0], arguments.output.parent)


def with_kept(rows: list[dict[str, Any]], previous: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows, and those of an earlier report that speak of more searches, not shorter ones; each names its commit."""

    def key(row: dict[str, Any]) -> tuple[float, str, str]:
        return row["noise"], row["proposer"], row["space"]

    found = {key(row): row for row in rows}
    for row in previous["rows"]:
        ours = found.get(key(row), {"runs": 0, "fraction": {}})
        if row["runs"] > ours["runs"] and len(row["fraction"]) >= len(ours["fraction"]):
            found[key(row)] = {"commit": previous["commit"], **row}
    return [found[k] for k in sorted(found)]


def mean_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one proposer over several spaces, every space weighing the same."""

    def mean(pick: Any) -> float:
        return round(float(np.mean([pick(r) for r in rows])), 4)

    error = float(np.sqrt(np.sum([r["score_error"] ** 2 for r in rows])) / len(rows))
    return {
        "spaces": len(rows),
        "runs": int(np.sum([r["runs"] for r in rows])),
        "score": mean(lambda r: r["score"]),
        "score_error": round(error, 4),
        "fraction": {
            str(n): mean(lambda r, n=n: r["fraction"][str(n)])
            for n in CHECKPOINTS
            if all(str(n) in r["fraction"] for r in rows)
        },
        "within_1_at_200": mean(lambda r: r["within_1_at_200"]),
        "within_5_at_200": mean(lambda r: r["within_5_at_200"]),
        "cpu_s": mean(lambda r: r["cpu_s"]),
    }


def compare(arguments: argparse.Namespace) -> None:
    """Write what each other proposer gains over evo on the same spaces and seeds, run by run.

    Score and shares speak of the first SCORED_MOST evaluations, so a longer search may stand beside a shorter one.
    """
    runs = [one for path in arguments.runs for one in read_runs(path) if one["noise"] == 0]
    by_name: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for one in runs:
        by_name.setdefault(one["proposer"], {})[one["space"], one["seed"]] = one
    ours = by_name.pop("evo")
    rows = [_paired(name, ours, theirs) for name, theirs in sorted(by_name.items()) if ours.keys() & theirs.keys()]
    summary = {"format": "evo_search_pairs", "commit": _commit(), "date": time.strftime("%Y-%m-%d"), "rows": rows}
    arguments.output.write_text(json.dumps(summary, indent=1) + "\n")


def _paired(name: str, ours: dict[Any, dict[str, Any]], theirs: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    pairs = sorted(ours.keys() & theirs.keys())
    gains = np.array([theirs[pair]["score"] - ours[pair]["score"] for pair in pairs])
    shares = {
        f"{key}_{who}": round(float(np.mean([of[p][key] is not None and of[p][key] <= 200 for p in pairs])), 3)
        for key in ("within_1", "within_5")
        for who, of in (("evo", ours), ("other", theirs))
    }
    facts = {"proposer": name, "pairs": len(pairs), "spaces": len({pair[0] for pair in pairs})}
    error = float(gains.std() / len(pairs) ** 0.5)
    return {**facts, "gain": round(float(gains.mean()), 4), "error": round(error, 4), **shares}


def _describe(names: list[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        times = judged_space(name).times_us
        found[name] = {
            "configurations": len(times),
            "fail": round(float(np.isnan(times).mean()), 4),
            "optimum_us": round(float(np.nanmin(times)), 3),
            "median_us": round(float(np.nanmedian(times)), 3),
            "scored_to": min(SCORED_MOST, random_expectation(name, 3000)[1]),
        }
    return found


def _commit() -> str:
    if "EVO_COMMIT" in os.environ:
        return os.environ["EVO_COMMIT"]
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    player = commands.add_parser("run", help="play searches")
    player.add_argument("--seeds", default="0:25", help="first:last+1")
    player.add_argument("--budget", type=int, default=400)
    player.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="of the study, in order")
    player.add_argument("--proposers", nargs="+", default=None, help="these instead of the study's parts")
    player.add_argument("--noise", type=float, nargs="+", default=[0.0], help="with --proposers: relative, 0.03 0.06")
    player.add_argument("--spaces", nargs="+", default=None)
    player.add_argument("--jobs", type=int, default=os.cpu_count())
    player.add_argument("--time-limit", type=float, default=None, help="seconds after which nothing is begun")
    reporter = commands.add_parser("report", help="summarise what was played")
    reporter.add_argument("--output", type=Path, default=RESULT)
    reporter.add_argument("--keep", type=Path, default=None, help="earlier report whose other rows stand")
    comparer = commands.add_parser("compare", help="pairs of runs: evo against each other proposer")
    comparer.add_argument("--output", type=Path, default=RESULT.with_name("search_ideas.json"))
    comparer.add_argument("--runs", type=Path, nargs="+", default=[RUNS])
    player.add_argument("--runs", type=Path, default=RUNS)
    reporter.add_argument("--runs", type=Path, nargs="+", default=[RUNS])
    arguments = parser.parse_args()
    {"run": run, "report": report, "compare": compare}[arguments.command](arguments)


if __name__ == "__main__":
    main()
