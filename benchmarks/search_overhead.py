"""What a proposer costs: CPU time of ask and tell together, per trial, in a search that has been told 2,000 trials.

python -m benchmarks.search_overhead
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.report import this_machine, write_report
from benchmarks.search_peers import peer
from benchmarks.search_spaces import judged_space
from evo.outcome import Measured, Outcome, Rejected, Stage
from evo.space import Configuration

RESULT = Path("benchmarks/results/search_overhead.json")
SPACE = "made-up stencil"
FLYING = 16  # configurations that are asked for and not told yet, as with eight GPUs


def measure(name: str, told: int, trials: int, batch: int) -> dict[str, float | int | str]:
    """CPU milliseconds per trial, and the longest single ask with its tells."""
    judged = judged_space(SPACE)

    def outcome(configuration: Configuration) -> Outcome:
        row = int(judged.space.row_numbers(np.array([configuration.indices]))[0])
        time_us = float(judged.times_us[row])
        return Measured((time_us,)) if np.isfinite(time_us) else Rejected(Stage.BUILD, "fails")

    proposer = peer(name, judged.space, 0, told + trials)
    for configuration in judged.space.sample(np.random.default_rng(0), told):
        proposer.tell(configuration, outcome(configuration))
    flying: list[Configuration] = []
    spent = longest = 0.0
    done = 0
    while done < trials:
        keep = FLYING if batch > 1 else 0
        began = time.process_time()
        flying += proposer.ask(batch)
        spent += (asked := time.process_time() - began)
        while len(flying) > keep:
            configuration = flying.pop(0)
            found = outcome(configuration)
            began = time.process_time()
            proposer.tell(configuration, found)
            spent += time.process_time() - began
            done += 1
        longest = max(longest, asked)
    return {
        "proposer": name,
        "told": told,
        "batch": batch,
        "ms_per_trial": round(1000 * spent / done, 3),
        "longest_ask_ms": round(1000 * longest, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--proposers", nargs="+", default=["evo", "evo-free", "random"])
    arguments = parser.parse_args()
    results = []
    for name in arguments.proposers:
        for told in (200, 2000):
            for batch in (1, 8):
                results.append(measure(name, told, arguments.trials, batch))
                print(results[-1], flush=True)
    report = {
        "format": "evo_search_overhead",
        "space": SPACE,
        **this_machine(),
        "target_ms": 5,
        "results": results,
    }
    write_report(arguments.output, report)


if __name__ == "__main__":
    main()
