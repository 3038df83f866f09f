"""On a GPU, with `pytest -m gpu`: what is wrong is caught, what crashes is survived, what is equal is not promoted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from benchmarks import gpu_trust
from evo.base import Base, base_paths, load_base
from evo.fleet import Fleet
from evo.outcome import Built, Done, Measured, Rejected
from evo.prove import CONTROL
from evo.sanitize import find_sanitizer, sanitize, sanitize_all
from evo.seat import Seat, WorkerSpec
from evo.targets import DeviceFacts, build, make_target
from evo.targets.driver import gpu_limits
from evo.variant import Variant, make_variant
from evo.workloads import find_workload
from tests.hostile.kit import actor_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
CUDA_BASES = [base for base in map(load_base, base_paths().values()) if base.language == "cuda"]
needs_sanitizer = pytest.mark.skipif(find_sanitizer() is None, reason="compute-sanitizer is not installed")


def test_a_crash_or_a_hang_costs_less_than_ten_seconds_and_the_next_variant_is_measured() -> None:
    for event in gpu_trust.recoveries():
        assert event["outcome"] != "measured", event
        assert event["next_measured"], event
        assert 0 < event["recovery_s"] < gpu_trust.RECOVERY_S, event


def test_a_fleet_gives_every_hostile_kernel_one_rejection_and_measures_the_right_one() -> None:
    fates = gpu_trust.fleet_outcomes()
    assert fates.pop(CONTROL) == "measured"
    assert set(fates) == set(gpu_trust.HOSTILE)
    assert fates["hang"] == "timeout: hang"
    assert fates["illegal_address"] == "crash: illegal_address"
    assert all(fate.startswith(("crash", "timeout", "launch")) for fate in fates.values()), fates


def test_a_killed_seat_is_back_within_ten_seconds_and_what_waited_is_measured() -> None:
    case = find_workload("attention").case("tiny", dtype="float16")
    with Fleet(WorkerSpec("cuda", "attention", case, gpu_trust.QUICK, evaluate_s=8.0)) as fleet:
        arch, toolchain = fleet.ready.facts.arch, fleet.ready.toolchain
        hang, right = (gpu_trust.hostile_variant(name, arch, toolchain, case.constants()) for name in ("hang", CONTROL))
        for number, variant in enumerate((hang, right)):
            fleet.submit_run(number, variant, gpu_trust.built(variant), None)
        time.sleep(1.0)
        lost = fleet._seats.handles[0]
        os.kill(actor_of(), signal.SIGKILL)
        killed_at, back_s = time.monotonic(), 0.0
        done: list[Done] = []
        while len(done) < 2 and time.monotonic() - killed_at < 120:
            done += fleet.wait(0.1)
            if not back_s and fleet._seats.handles and fleet._seats.handles[0] is not lost:
                back_s = time.monotonic() - killed_at
        assert 0 < back_s < gpu_trust.RECOVERY_S
    fates = {finished.number: finished.result for finished in done}
    assert isinstance(fates[0], Rejected)
    assert isinstance(fates[1], Measured), "what waited behind it is not blamed"


@pytest.mark.parametrize("name", ["write_behind_the_end", "write_before_the_start"])
def test_writes_outside_of_the_output_are_seen_by_its_fence(name: str) -> None:
    case = find_workload("attention").case("small", dtype="float16")
    seat = Seat(WorkerSpec("cuda", "attention", case, gpu_trust.QUICK), spare=False)
    try:
        ready = seat.ready
        variant = gpu_trust.hostile_variant(name, ready.facts.arch, ready.toolchain, case.constants())
        outcome = seat.evaluate(variant, gpu_trust.built(variant), None)
    finally:
        seat.close()
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "out_of_bounds_write"


@needs_sanitizer
@pytest.mark.parametrize(
    ("name", "tool"), [("write_behind_the_end", "memcheck"), ("missing_barrier", "racecheck"), (CONTROL, "")]
)
def test_the_sanitizer_objects_to_what_is_wrong_and_to_nothing_else(name: str, tool: str) -> None:
    case = find_workload("attention").case("mission", dtype="float16")
    target = make_target("cuda")
    variant = gpu_trust.hostile_variant(name, target.facts().arch, target.toolchain(), case.constants())
    found = sanitize(variant, gpu_trust.built(variant), "attention", case)
    if tool:
        assert isinstance(found, Rejected), found
        assert found.reason == f"sanitizer:{tool}", found
    else:
        assert found == "memcheck: clean, racecheck: clean"


@needs_sanitizer
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_the_sanitizer_passes_every_default(causal: bool) -> None:
    case = find_workload("attention").case("mission", dtype="float16", causal=causal)
    target = make_target("cuda")
    variants = [_default(base, case, target.facts(), target.toolchain()) for base in CUDA_BASES]
    found = sanitize_all([(variant, gpu_trust.built(variant)) for variant in variants], "attention", case)
    words = {variant.base: found[variant.key] for variant in variants}
    assert words == {base.name: "memcheck: clean, racecheck: clean" for base in CUDA_BASES}


def test_fifty_copies_of_one_program_are_timed_alike_and_none_is_promoted() -> None:
    report = gpu_trust.null_run()
    for run in report["null_runs"]:
        assert run["warm_spread"] < gpu_trust.WARM_SPREAD, report
        assert run["cold_spread"] < gpu_trust.COLD_SPREAD, report
        assert run["promoted"] == [], report


def test_the_driver_knows_the_limits_that_the_worker_will_have() -> None:
    assert gpu_limits()[0] == make_target("cuda").facts().limits


@pytest.fixture(scope="module")
def seat() -> Iterator[Seat]:
    case = find_workload("attention").case("small", dtype="float16")
    made = Seat(WorkerSpec("cuda", "attention", case, gpu_trust.QUICK), spare=False)
    yield made
    made.close()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_every_default_verifies(seat: Seat, head_dim: int, causal: bool, dtype: str) -> None:
    bases = [base for base in CUDA_BASES if dtype in base.dtypes]
    case = find_workload("attention").case(f"1x4x300x{head_dim}", dtype=dtype, causal=causal)
    seat.turn_to(case)
    wrong: dict[str, str] = {}
    facts, toolchain = seat.ready.facts, seat.ready.toolchain
    variants = [_default(base, case, facts, toolchain) for base in bases]
    with ThreadPoolExecutor(8) as pool:
        for variant, built in zip(variants, pool.map(build, variants), strict=True):
            outcome: Any = seat.verify(variant, built, 2) if isinstance(built, Built) else built
            if isinstance(outcome, Rejected):
                wrong[variant.base] = f"{outcome.fate}: {outcome.detail[:300]}"
    assert not wrong


def _default(base: Base, case: Any, facts: DeviceFacts, toolchain: str) -> Variant:
    space = base.space({**facts.limits, **case.constants()})
    return make_variant(
        base,
        space,
        space.default,
        constants=case.constants(),
        facts=facts.limits,
        arch=facts.arch,
        toolchain=toolchain,
    )
