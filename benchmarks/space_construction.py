"""Measures how long a search space takes to list: about 1.2 million and 30 million combinations, time and memory.

python -m benchmarks.space_construction
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from evo.space import Knob, SearchSpace

POWERS = (16, 32, 48, 64, 96, 128, 192, 256)
TARGETS = {"million": {"seconds": 0.5}, "thirty_million": {"seconds": 5.0, "peak_mib": 1024.0}}


def attention_space(size: str) -> SearchSpace:
    """A warp-specialised attention kernel's knobs under the rules such a kernel has; `all` rules admit everything."""
    knobs = [
        Knob("tile_q", POWERS),
        Knob("tile_k", POWERS),
        Knob("stages", (1, 2, 3, 4, 5)),
        Knob("swizzle", ("none", "pad", "xor")),
        Knob("producers", (1, 2, 4, 8)),
        Knob("consumers", (1, 2, 3, 4, 6, 8, 12, 16)),
        Knob("splits", (1, 2, 4, 8)),
        Knob("fast_exp", (False, True)),
        Knob("unroll", (1, 2, 4, 8, 16)),
    ]
    rules = {
        "whole_tiles": "tile_q % (16 * consumers) == 0",
        "fits_threads": "32 * (producers + consumers) <= device.max_threads_per_block",
        "fits_shared": "shared_bytes <= device.shared_bytes_per_block",
        "splits_divide": "consumers % splits == 0",
        "unroll_divides": "tile_k % unroll == 0",
    }
    derived = {"shared_bytes": "2 * head_dim * (tile_q + 2 * stages * tile_k) + (16 * tile_k if swizzle == pad else 0)"}
    facts = {"head_dim": 64, "device.max_threads_per_block": 1024, "device.shared_bytes_per_block": 101376}
    if size == "million":
        return SearchSpace(knobs, rules, derived, facts)
    more = [Knob("vector", (2, 4, 8, 16)), Knob("launch_bounds", (1, 2, 3, 4, 5, 6))]
    if size == "thirty_million":
        return SearchSpace([*knobs, *more], rules, derived, facts)
    loose = {"loose": "tile_q * tile_k * stages * producers * consumers > 0", "pair": "unroll + vector < 99"}
    return SearchSpace([*knobs, *more], loose)


def measure(size: str) -> dict[str, float | int | str]:
    """One listing in this process: combinations, admissible, seconds and peak memory of the process."""
    space = attention_space(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    rows = space.rows
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "space": size,
        "combinations": space.combinations,
        "admissible": len(rows),
        "seconds": round(seconds, 4),
        "peak_mib": round(peak, 1),
        "before_mib": round(before, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/space_construction.json"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", choices=["million", "thirty_million", "thirty_million_all"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    results = []
    for size in ("million", "thirty_million", "thirty_million_all"):
        command = [sys.executable, "-m", "benchmarks.space_construction", "--one", size]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(arguments.repeats)]
        result = {**runs[0], "seconds": statistics.median(r["seconds"] for r in runs), "repeats": len(runs)}
        result["peak_mib"] = max(r["peak_mib"] for r in runs)
        results.append(result)
        print(result)
    from benchmarks.report import this_machine, write_report  # only now: a child's peak begins at its parent's

    report = {
        "format": "evo_space_construction",
        **this_machine(),
        "targets": TARGETS,
        "results": results,
    }
    write_report(arguments.output, report)


if __name__ == "__main__":
    main()
