"""Can a search on this GPU be believed, and does it survive? Kill rate, recovery times and null runs.

`pytest -m gpu` plays these, holds each against its limit and, where EVO_GPU_REPORT names a file, writes the figures:

    EVO_GPU_REPORT=benchmarks/results/gpu_trust_h200.json pytest -m gpu
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from benchmarks.timing_noise import study
from evo.fleet import Fleet
from evo.measure import Timing
from evo.outcome import Built, Measured, Rejected
from evo.prove import CONTROL, Mutant, mutant_variant, mutants, prove
from evo.seat import Seat, WorkerSpec
from evo.targets import build, make_target
from evo.variant import Variant
from evo.workloads import find_workload
from tests.hostile.kit import actor_of

WARM_SPREAD, COLD_SPREAD = 0.010, 0.015
RECOVERY_S = 10.0
QUICK = Timing(launches=5, first_look=3, rounds=5)
_SIGNATURE = (
    'extern "C" __global__ void attention_forward(const void*, const void* k, const void*, void* out, int, int, int, '
    "int, float)"
)
HOSTILE = {
    "illegal_address": "*(volatile int*)8 = 1;",
    "hang": "for (volatile int x = 0;;) x = x + 1;",
    "trap": "__trap();",
    "misaligned": "*(volatile int*)((char*)out + 1) = 1;",
    "assert_loop_then_crash": "for (volatile int x = 0; x < 1000; x = x + 1) {} *(volatile int*)8 = 1;",
}


def hostile_variant(name: str, arch: str, toolchain: str, constants: dict[str, Any]) -> Variant:
    """A kernel that takes its process down, or `control`, which is right."""
    known = {mutant.name: mutant for mutant in mutants("cuda", "attention", constants)}
    source = f"// Trick: {name}\n{_SIGNATURE} {{ {HOSTILE[name]} }}\n" if name in HOSTILE else known[name].source
    mutant = Mutant(name, name, source)
    return mutant_variant(mutant, "cuda", "attention", constants=constants, arch=arch, toolchain=toolchain)


def built(variant: Variant) -> Built:
    found = build(variant)
    if isinstance(found, Rejected):
        raise SystemExit(f"{variant.base}: {found.reason}\n{found.detail}")
    return found


def kill_rate() -> dict[str, Any]:
    """Share of the mutants that verification rejects on this very GPU, causal and not."""
    workload, report = find_workload("attention"), {}
    for causal in (False, True):
        case = workload.case("mission", dtype="float16", causal=causal)
        proof = prove(make_target("cuda"), workload, case, builders=8)
        report[case.name] = {"rate": proof.kill_rate, "killed": len(proof.killed), "survived": dict(proof.survived)}
    return report


def recoveries(limit_s: float = 8.0) -> list[dict[str, Any]]:
    """Hostile kernels one after the other on one seat, each followed by a right one that must be measured."""
    case = find_workload("attention").case("tiny", dtype="float16")
    seat = Seat(WorkerSpec("cuda", "attention", case, QUICK, evaluate_s=limit_s))
    report = []
    try:
        arch, toolchain = seat.ready.facts.arch, seat.ready.toolchain

        def evaluate(name: str) -> tuple[Any, float]:
            variant = hostile_variant(name, arch, toolchain, case.constants())
            started = time.perf_counter()
            return seat.evaluate(variant, built(variant), None), time.perf_counter() - started

        for name in [*HOSTILE, "illegal_address", "illegal_address"]:  # twice running: no spare has had time
            outcome, took_s = evaluate(name)
            recovery_s = seat.recovery_s
            after, _ = evaluate(CONTROL)
            report.append(
                {
                    "kernel": name,
                    "outcome": outcome.fate if isinstance(outcome, Rejected) else "measured",
                    "took_s": round(took_s, 2),
                    "recovery_s": round(recovery_s, 2),
                    "next_measured": isinstance(after, Measured),
                }
            )
    finally:
        seat.close()
    return report


def fleet_outcomes() -> dict[str, str]:
    """Hostile and right kernels through a whole fleet: what becomes of each."""
    case = find_workload("attention").case("tiny", dtype="float16")
    names = [*HOSTILE, CONTROL]
    fates: dict[str, str] = {}
    with Fleet(WorkerSpec("cuda", "attention", case, QUICK, evaluate_s=8.0)) as fleet:
        arch, toolchain = fleet.ready.facts.arch, fleet.ready.toolchain
        variants = [hostile_variant(name, arch, toolchain, case.constants()) for name in names]
        for number, variant in enumerate(variants):
            fleet.submit_build(number, variant)
        deadline = time.monotonic() + 300
        while len(fates) < len(names) and time.monotonic() < deadline:
            for done in fleet.wait(1.0):
                if isinstance(done.result, Built):
                    fleet.submit_run(done.number, variants[done.number], done.result, None)
                elif isinstance(done.result, Rejected):
                    fates[names[done.number]] = done.result.fate
                else:
                    fates[names[done.number]] = "measured"
    return fates


def killed_seat() -> dict[str, Any]:
    """The seat's own process is killed while a kernel hangs: seconds until another serves, and the fate of both runs.

    `hang` was at work and is tried again, `control` waited behind it.
    """
    case = find_workload("attention").case("tiny", dtype="float16")
    names, fates = ("hang", CONTROL), {}
    with Fleet(WorkerSpec("cuda", "attention", case, QUICK, evaluate_s=8.0)) as fleet:
        arch, toolchain = fleet.ready.facts.arch, fleet.ready.toolchain
        for number, name in enumerate(names):
            variant = hostile_variant(name, arch, toolchain, case.constants())
            fleet.submit_run(number, variant, built(variant), None)
        time.sleep(1.0)
        lost = fleet._seats.handles[0]
        os.kill(actor_of(), signal.SIGKILL)
        killed_at, back_s = time.monotonic(), 0.0
        while len(fates) < len(names) and time.monotonic() - killed_at < 120:
            for done in fleet.wait(0.1):
                result = done.result
                fates[names[done.number]] = result.fate if isinstance(result, Rejected) else "measured"
            if not back_s and fleet._seats.handles and fleet._seats.handles[0] is not lost:
                back_s = time.monotonic() - killed_at
    return {"back_s": round(back_s, 2), "fates": fates}


def null_run() -> dict[str, Any]:
    """Fifty copies of one variant, three times: how far apart are they timed, and is one promoted?"""
    return study("phase4", "mission", [], copies=50, rounds=30, null_runs=3)
