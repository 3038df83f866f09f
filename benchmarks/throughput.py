"""How many variants per second go from proposal to recorded row, how busy the device is, and what the search found.

Runs one whole search (`evo search`) in this process, prints a summary and writes JSON that `benchmarks.tables` turns
into the README's tables. Nothing is taken from a recording: without a device for the base it stops.

    python -m benchmarks.throughput --base phase4 --budget 300 -o benchmarks/results/phase4_h200.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evo.errors import InputError
from evo.measure import gain_interval, median_interval
from evo.record import Interval, open_record
from evo.setting import SearchRequest
from evo.tune import SearchResult, search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="phase4")
    parser.add_argument("--case", default="", help="default: the workload's own")
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--proposer", default="evo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=100, help="of the final contest")
    parser.add_argument("--no-proof", action="store_true", help="as of evo search")
    parser.add_argument("--db", default="results.db")
    parser.add_argument("--out", "-o", type=Path, help="the JSON to write")
    options = parser.parse_args()
    request = SearchRequest(
        base=options.base,
        case=options.case,
        budget=options.budget,
        proposer=options.proposer,
        seed=options.seed,
        rounds=options.rounds,
        proof=not options.no_proof,
        db=options.db,
    )
    try:
        report = study(request)
    except InputError as error:
        print(f"throughput: {error}", file=sys.stderr)
        sys.exit(2)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    print(text, end="")


def study(request: SearchRequest) -> dict[str, Any]:
    """Run the search and read the report off its record. Raises: InputError, also when times would be replayed."""
    result = search(request, say=lambda line: print(line, file=sys.stderr, flush=True))
    if result.replay:
        raise InputError(f"these are {result.replay}, not measurements; a machine with the device is needed")
    with open_record(request.db, create=False) as record:
        campaign = record.campaign(result.campaign_id)
        trials = record.trials(result.campaign_id, details=False)
        intervals = record.intervals(result.campaign_id)
        configurations = {trial.variant_key: dict(trial.configuration) for trial in trials}
    recorded = sorted(trial.recorded_at for trial in trials)
    environment = campaign.environment
    return {
        "format": "evo_throughput",
        "version": 1,
        "base": campaign.base,
        "case": campaign.case_name,
        "dtype": campaign.dtype,
        "device": environment.device,
        "arch": campaign.arch,
        "driver": environment.driver,
        "toolchain": environment.toolchain,
        "torch": environment.torch,
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.fromtimestamp(campaign.started_at, UTC).date().isoformat(),
        "commit": environment.git_sha,
        "dirty": environment.dirty,
        "search": {
            "proposer": campaign.proposer,
            "seed": campaign.seed,
            "admissible": campaign.space.get("size"),
            "evaluated": result.progress.evaluated,
            "valid": result.progress.valid,
            "rejected": dict(result.progress.rejected),
            "state": result.state,
            "reason": result.reason,
            "kill_rate": campaign.kill_rate or None,
            **rates(result.progress.started_at, recorded),
        },
        "busy": busy_shares(intervals, recorded),
        "contest": contest_rows(result, configurations),
    }


def rates(started_at: float, recorded: Sequence[float]) -> dict[str, float | None]:
    """Variants per second from the first proposal to the last recorded row, and from the first row on."""
    if not recorded:
        return {"elapsed_s": None, "first_row_s": None, "per_s": None, "per_s_after_first": None}
    elapsed, after = recorded[-1] - started_at, recorded[-1] - recorded[0]
    return {
        "elapsed_s": elapsed,
        "first_row_s": recorded[0] - started_at,
        "per_s": len(recorded) / elapsed if elapsed > 0 else None,
        "per_s_after_first": (len(recorded) - 1) / after if after > 0 else None,
    }


def busy_shares(intervals: Iterable[Interval], recorded: Sequence[float]) -> dict[str, Any]:
    """Share of the time from the first run to the last row that each device worker verified or measured."""
    runs = [interval for interval in intervals if interval.kind in ("verify", "measure")]
    builds = [interval for interval in intervals if interval.kind == "build"]
    if not runs or not recorded:
        return {"workers": {}, "share": None, "builders": 0, "builders_share": None}
    begin, end = min(interval.started_at for interval in runs), recorded[-1]
    span = max(end - begin, 1e-9)
    workers = {
        worker: covered([i for i in runs if i.worker == worker], begin, end) / span
        for worker in sorted({interval.worker for interval in runs})
    }
    builders = sorted({interval.worker for interval in builds})
    built = sum(covered([i for i in builds if i.worker == builder], begin, end) for builder in builders)
    return {
        "workers": workers,
        "share": sum(workers.values()) / len(workers),
        "builders": len(builders),
        "builders_share": built / span / len(builders) if builders else None,
    }


def covered(intervals: Sequence[Interval], begin: float, end: float) -> float:
    """Seconds between begin and end that lie in at least one interval."""
    total, reached = 0.0, begin
    for interval in sorted(intervals, key=lambda i: i.started_at):
        start, stop = max(interval.started_at, reached), min(interval.ended_at, end)
        if stop > start:
            total, reached = total + stop - start, stop
    return total


def contest_rows(result: SearchResult, configurations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """p50 and 95 % interval of every contender, warm and cold L2, and each elite's ratio to each backend."""
    crowning, contest = result.crowning, result.contest
    if crowning is None or contest is None:
        return {"rounds": 0, "anchor": "", "warm": [], "cold": []}
    names = {key: f"elite {rank}" for rank, key in enumerate(crowning.reigning, 1)}
    default = ""
    with contextlib.suppress(InputError):
        default = result.binding.variant(result.binding.space.default).key
    tables: dict[str, Any] = {"rounds": max(map(len, contest.warm_us.values()), default=0), "anchor": crowning.anchor}
    for l2, times in (("warm", contest.warm_us), ("cold", contest.cold_us)):
        rows = []
        for key, samples in times.items():
            kind = "baseline" if key.startswith("baseline:") else "elite" if key in names else "finalist"
            name = key.removeprefix("baseline:") if kind == "baseline" else names.get(key, kind)
            if key == default:
                kind, name = ("default", "default") if kind == "finalist" else (kind, f"{name} (the default)")
            time = median_interval(samples)
            row: dict[str, Any] = {"contender": name, "kind": kind, "samples": len(samples)}
            row |= {"p50_us": time.median, "low_us": time.low, "high_us": time.high}
            if kind != "baseline":
                row |= {"variant": key, "configuration": configurations.get(key), "ratios": _ratios(times, key)}
            rows.append(row)
        tables[l2] = sorted(rows, key=lambda row: row["p50_us"])
    return tables


def _ratios(times: dict[str, tuple[float, ...]], key: str) -> dict[str, dict[str, float]]:
    """How many times as fast as each backend, with its interval."""
    found = {}
    for name, samples in times.items():
        if name.startswith("baseline:"):
            gain = gain_interval(times[key], samples)
            found[name.removeprefix("baseline:")] = {"ratio": gain.median, "low": gain.low, "high": gain.high}
    return found


if __name__ == "__main__":
    main()
