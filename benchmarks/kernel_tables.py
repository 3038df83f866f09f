"""Tables about the attention kernels: phases, cases, eager calls, correctness, and what holds each phase back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from benchmarks.markdown import Rows, markdown, origin, ratio_cell, read, time_cell

PLAN = {  # what the plan hoped that each phase would gain over the one before: words, least
    "phase0": ("-", 0.0),
    "phase1": ("1.3 to 1.5", 1.3),
    "phase2": ("1.7 to 2.2", 1.7),
    "phase3": ("1.4 to 2.0", 1.4),
    "phase4": ("1.3 to 2.0", 1.3),
    "phase5": ("beats PyTorch", 0.0),
}
ASKED = {  # PyTorch's best backend over ours: at least, aim
    "mission": ("1.9", "2.3"),
    "mission-causal": ("1.9", "2.5"),
    "multi_batch": ("1.5", "1.9"),
    "tiny": ("1.9", "2.4"),
    "small": ("1.9", "2.4"),
    "medium": ("1.9", "2.4"),
    "large": ("1.2", "1.6"),
    "long": ("0.55", "0.65"),
}
STALLS = {  # our counters of warps that wait for each instruction issued
    "memory_stall_per_issue": "for global memory",
    "shared_stall_per_issue": "for shared memory or exponentials",
    "barrier_stall_per_issue": "at barriers",
    "wait_stall_per_issue": "for the instruction before",
    "math_stall_per_issue": "for the tensor pipe",
}


def phases(report: dict[str, Any]) -> str:
    """The phases on the mission case by both protocols, the step from phase to phase, the plan's hope beside it."""
    times = _warm(report["cases"]["mission"])
    eager = {row["contender"]: row for row in read("eager_h200.json").get("phases", [])}
    names = [name for name in PLAN if f"{name} champion" in times]
    heading = ["phase", "default", "champion", "over the phase before", "the plan's hope", "times as fast as PyTorch"]
    heading += ["grade", "champion, event-timed"]
    rows: Rows = []
    for before, name in zip([None, *names], names, strict=False):
        default, best = times.get(f"{name} default"), times[f"{name} champion"]
        step = f"{times[f'{before} champion']['p50_us'] / best['p50_us']:.2f}" if before else "-"
        row = [name, time_cell(default) if default else "-", time_cell(best), step, PLAN[name][0], ratio_cell(best)]
        rows.append([*row, _grade(best["ratio"]), f"{eager[name]['p50_us']:.1f} us" if name in eager else "-"])
    against = next(row["against"] for row in times.values())
    beside = ", ".join(f"{row['contender']} {row['p50_us']:.2f} us" for name, row in times.items() if " " not in name)
    searches = report["cases"]["mission"]["searches"]
    searched = ", ".join(f"{name} {found['evaluated']:,}" for name, found in searches.items())
    words = f"Variants evaluated: {searched}. p50 with 95 % interval, graph replay, warm L2, all in one run. "
    words += f"PyTorch's best there is {against}: {beside}. "
    if "torch" in eager:
        words += (
            "Event-timed: CUDA events around one call from Python on an idle stream, launch overhead included; "
            f"PyTorch {eager['torch']['p50_us']:.1f} us so. "
        )
    return markdown(heading, rows) + "\n" + words + origin(report)


def reasons(report: dict[str, Any]) -> str:
    """One sentence of the profiler for each phase that gains less than the plan hoped."""
    times = _warm(read("kernels_h200.json")["cases"]["mission"])
    names = [name for name in PLAN if f"{name} champion" in times]
    lines = []
    for before, name in pairwise(names):
        step = times[f"{before} champion"]["p50_us"] / times[f"{name} champion"]["p50_us"]
        if step < PLAN[name][1] and name in report["phases"]:
            lines.append(
                f"- {name} gains {step:.2f} of {PLAN[name][0]}: {_reason(report['phases'][name]['counters'])}."
            )
    lines = lines or ["- Every phase gains what the plan hoped, or more."]
    return "\n".join(lines) + f"\n\nNsight Compute on the champions, case {report['case']}. " + origin(report)


def cases(report: dict[str, Any]) -> str:
    """Phase 5's champion on every case, warm and cold, beside PyTorch's best backend and what was asked for."""
    heading = ["case", "PyTorch's best", "phase5", "ratio, warm L2", "ratio, cold L2", "at least", "aim", "trials"]
    rows: Rows = []
    for case, found in report["cases"].items():
        warm = _warm(found)
        cold = {row["contender"]: row for row in found["times"] if row["l2"] == "cold"}
        best = warm["phase5 champion"]
        least, aim = ASKED.get(case, ("-", "-"))
        chilled = f"{cold['phase5 champion']['ratio']:.2f}"
        theirs = f"{best['against']} {time_cell(warm[best['against']])}"
        trials = f"{found['searches']['phase5']['evaluated']:,}"
        rows.append([case, theirs, time_cell(best), ratio_cell(best), chilled, least, aim, trials])
    clean = [case for case, said in report.get("sanitizer", {}).items() if _clean(said.get("phase5", ""))]
    words = (
        f"compute-sanitizer (memcheck and racecheck) is clean on the champions of {', '.join(clean)}. " if clean else ""
    )
    long = _warm(report["cases"]["long"]) if "long" in report["cases"] else {}
    if "flash" in long:
        flash = long["flash"]["p50_us"] / long["phase5 champion"]["p50_us"]
        words += f"On long the ratio to PyTorch's flash backend is {flash:.2f}. "
    return markdown(heading, rows) + "\n" + words + origin(report)


def eager(report: dict[str, Any]) -> str:
    """Calls from Python, one after the other and one at a time, beside PyTorch's."""
    heading = ["case", "evo.ops, stream", "PyTorch, stream", "ratio", "evo.ops, event", "PyTorch, event", "ratio"]
    rows: Rows = []
    for case, found in report["cases"].items():
        row = [case]
        for protocol in ("stream", "event"):
            by = {entry["contender"]: entry for entry in found if entry["protocol"] == protocol}
            row += [f"{by['evo']['p50_us']:.1f} us", f"{by['torch']['p50_us']:.1f} us", ratio_cell(by["evo"])]
        rows.append(row)
    words = "p50. Stream: wall time per call of calls that follow each other; event: CUDA events around one call. "
    return markdown(heading, rows) + "\n" + words + origin(report)


def correctness(report: dict[str, Any]) -> str:
    """What each phase was held against, and how near its error came to what is allowed."""
    heading = [
        "phase",
        "builds: defaults, champions, random",
        "right",
        "wrong",
        "checks",
        "worst error, of what is allowed",
    ]
    rows: Rows = []
    for found in report["phases"]:
        kinds = found["kinds"]
        builds = f"{kinds['default']}, {kinds['champion']}, {kinds['random']}"
        right, wrong = str(found["right"]), str(len(found["wrong"]))
        rows.append([found["phase"], builds, right, wrong, f"{found['checks']:,}", f"{100 * found['worst']:.0f} %"])
    words = f"Against float64, {report['seeds']} fresh seeds of each case; what a gate refused (spills) is not run. "
    return markdown(heading, rows) + "\n" + words + origin(report)


def _warm(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["contender"]: row for row in found["times"] if row["l2"] == "warm"}


def _clean(said: str) -> bool:
    return said == "memcheck: clean, racecheck: clean"


def _reason(counters: dict[str, float]) -> str:
    """Where the cycles of a launch go, in one sentence."""
    waits = sorted(((counters[key], words) for key, words in STALLS.items() if key in counters), reverse=True)[:2]
    stalls = " and ".join(f"{count:.1f} warps wait {words}" for count, words in waits)
    return (
        f"beside each instruction issued, {stalls}; issue slots are busy in {counters['issue_pct']:.0f} % of cycles, "
        f"the tensor pipe in {counters['tensor_pipe_pct']:.0f} %, occupancy is {counters['occupancy_pct']:.0f} %: "
        "latency in a row, not arithmetic or bandwidth, is what is left"
    )


def _grade(ratio: float) -> str:
    """The plan's: A faster than PyTorch, B+ within 35/26 of it, B within 50/26, else C."""
    for grade, least in (("A", 1.0), ("B+", 26 / 35), ("B", 26 / 50)):
        if ratio >= least:
            return grade
    return "C"
