"""Attention called from Python, one call after the other: what a user of `evo.ops.attention` pays beside PyTorch.

    python -m benchmarks.eager --db r.db -o benchmarks/results/eager_h200.json

Two protocols beside the graph replays of `benchmarks/kernels.py`, because a call from Python costs more than its
kernel. `stream`: calls follow each other without waiting, wall time per call, which is the host's or the device's,
whichever is slower. `event`: CUDA events around a single call on an idle stream, launch overhead included (the plan's
protocol on the L4). Contenders are interleaved in shuffled rounds. The champions of all phases on the mission case are
timed by `event` as well. Needs a GPU and a database with elites.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import evo.ops
from benchmarks.report import CASES, PHASES, opening, write_report
from evo.measure import gain_interval, median_interval
from evo.record import open_record
from evo.targets import make_target
from evo.workloads import find_workload

CALLS = 200  # in one sample of `stream`

Call = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", default="results.db")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", "-o", type=Path, required=True)
    options = parser.parse_args()
    evo.ops.use(options.db)
    report = opening("eager", make_target("cuda")) | {
        "rounds": options.rounds,
        "cases": {name: _case(name, options.rounds) for name in options.cases},
        "phases": _phases(options.db, options.rounds),
    }
    write_report(options.out, report)
    for name, found in report["cases"].items():
        for row in found:
            print(f"{name:15} {row['protocol']:7} {row['contender']:10} {row['p50_us']:8.2f} us  {row['ratio']:.2f}")
    for row in report["phases"]:
        print(f"mission         event   {row['contender']:10} {row['p50_us']:8.2f} us  {row['ratio']:.2f}")


def _case(name: str, rounds: int) -> list[dict[str, Any]]:
    """Both protocols on one case: the op, and PyTorch with the backend that it chooses by itself."""
    workload = find_workload("attention")
    case = workload.case(name.removesuffix("-causal"), dtype="float16", causal=name.endswith("-causal"))
    inputs = workload.inputs(case, 3, "cuda")
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    calls: dict[str, Call] = {
        "evo": lambda: evo.ops.attention(q, k, v, case.causal),
        "torch": lambda: scaled_dot_product_attention(q, k, v, is_causal=case.causal),
    }
    oracle = workload.oracle(case, inputs)["out"]
    error = float((calls["evo"]().double() - oracle).abs().max())
    rows = _rows("stream", _samples(calls, rounds, _stream_us), error)
    return rows + _rows("event", _samples(calls, 5 * rounds, _event_us), error)


def _phases(db: str, rounds: int) -> list[dict[str, Any]]:
    """Champions of every phase on the mission case, event-timed, beside PyTorch as it chooses by itself."""
    workload = find_workload("attention")
    case = workload.case("mission", dtype="float16")
    inputs = workload.inputs(case, 3, "cuda")
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    calls: dict[str, Call] = {"torch": lambda: scaled_dot_product_attention(q, k, v)}
    with open_record(db, create=False) as record:
        for elite in record.elites():
            if elite.place.base in PHASES and elite.place.case_name == "mission" and elite.rank == 1:
                variant = record.variant(elite.variant_key).variant()
                plan = evo.ops.plan_for(variant, case.dimensions(), case.scale, q.device)
                if plan is not None:
                    calls[elite.place.base] = lambda plan=plan: plan(q, k, v)
    return _rows("event", _samples(calls, 5 * rounds, _event_us), None)


def _samples(calls: dict[str, Call], rounds: int, take: Callable[[Call], float]) -> dict[str, list[float]]:
    for call in calls.values():
        for _ in range(20):
            call()
    torch.cuda.synchronize()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order, rng = list(calls), random.Random(0)
    for _ in range(rounds):
        rng.shuffle(order)
        for name in order:
            samples[name].append(take(calls[name]))
    return samples


def _stream_us(call: Call) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / CALLS * 1e6


def _event_us(call: Call) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3


def _rows(protocol: str, samples: dict[str, list[float]], error: float | None) -> list[dict[str, Any]]:
    """p50 with its interval and how many times as fast as PyTorch's own choice."""
    rows = []
    for name, times in samples.items():
        found, ratio = median_interval(times), gain_interval(times, samples["torch"])
        row = {"protocol": protocol, "contender": name, "p50_us": found.median, "low_us": found.low}
        row |= {"high_us": found.high, "ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
        rows.append(row | ({"max_error": error} if name == "evo" else {}))
    return rows


if __name__ == "__main__":
    main()
