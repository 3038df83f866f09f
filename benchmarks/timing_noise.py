"""How far apart are 50 copies of one program timed, and does promotion fall for it?

Prints and writes JSON: the spread (largest over smallest median, minus one) of the copies timed one after the other and
in shuffled rounds, warm and cold, and the verdicts of three null runs, in which nothing may be promoted.

    python -m benchmarks.timing_noise --base phase4 --copies 50 --rounds 30 -o benchmarks/results/timing_noise_h200.json
"""

from __future__ import annotations

import argparse
import random
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import environment_of, show_report
from evo.base import find_base
from evo.evaluate import Bench
from evo.inspect import bind_variant, configured
from evo.measure import HOST_TIMING, Timing, interleave, sized_launches
from evo.outcome import Contest, Rejected
from evo.promote import judge
from evo.targets import build, make_target
from evo.workloads import find_workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="phase4")
    parser.add_argument("--case", default="mission")
    parser.add_argument("--knob", "-k", action="append", default=[])
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--null-runs", type=int, default=3)
    parser.add_argument("--out", "-o", type=Path)
    options = parser.parse_args()
    report = study(options.base, options.case, options.knob, options.copies, options.rounds, options.null_runs)
    show_report(report, options.out)


def study(base_name: str, case_name: str, knobs: list[str], copies: int, rounds: int, null_runs: int) -> dict[str, Any]:
    base = find_base(base_name)
    target = make_target(base.language)
    workload = find_workload(base.workload)
    case = workload.case(case_name, dtype=base.dtypes[0])
    timing = HOST_TIMING if base.language == "host" else Timing()
    bench = Bench(target, workload, case, timing)
    facts = bench.facts()
    space = base.space({**facts.limits, **case.constants()})
    variant = bind_variant(base, space, configured(space, knobs), case, facts, target.toolchain())
    built = build(variant)
    if isinstance(built, Rejected):
        raise SystemExit(f"{built.fate}\n{built.detail}")
    programs = [target.load(built, variant, workload) for _ in range(copies)]

    def watches(sets: list[Any]) -> list[Any]:
        probe = programs[0].stopwatch(case, sets[:1], timing.launches)
        launches = sized_launches(min(target.time([probe], [0, 0, 0])), timing.contest_us, 128)
        return [program.stopwatch(case, sets, max(launches, len(sets))) for program in programs]

    warm, cold = watches([bench.inputs]), watches(bench.cold_sets() if base.language == "cuda" else [bench.inputs])
    sequential = [target.time([watch], [0] * rounds) for watch in warm]
    report: dict[str, Any] = {
        "study": "timing_noise",
        "base": base.name,
        "case": case.name,
        "configuration": dict(variant.configuration),
        "copies": copies,
        "rounds": rounds,
        "environment": environment_of(target, base.path.parent),
        "median_us": statistics.median(statistics.median(samples) for samples in sequential),
        "sequential_spread": _spread(sequential),
        "null_runs": [],
    }
    for run in range(null_runs):
        shuffled = interleave(target, warm, rounds, random.Random(run))
        shuffled_cold = interleave(target, cold, rounds, random.Random(run))
        names = [f"copy{i}" for i in range(copies)]
        contest = Contest(dict(zip(names, map(tuple, shuffled), strict=True)), {}, {})
        verdicts = judge(contest, names[3:], names[:3])
        promoted = [v.variant_key for v in verdicts.verdicts if v.accepted and v.variant_key not in names[:3]]
        report["null_runs"].append(
            {
                "warm_spread": _spread(shuffled),
                "cold_spread": _spread(shuffled_cold),
                "promoted": promoted,
                "champion_kept": verdicts.reigning[0] == contest_champion(contest, names[:3]),
            }
        )
    report["at"] = target.environment()
    return report


def contest_champion(contest: Contest, incumbents: list[str]) -> str:
    """The incumbent that leads the contest: with equal programs any of them may."""
    return min(incumbents, key=lambda name: statistics.median(contest.warm_us[name]))


def _spread(samples: list[list[float]]) -> float:
    medians = [statistics.median(times) for times in samples]
    return max(medians) / min(medians) - 1.0


if __name__ == "__main__":
    main()
