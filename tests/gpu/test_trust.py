"""On a GPU, with `pytest -m gpu`: what is wrong is caught, what crashes is survived, what is equal is not promoted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_trust
from benchmarks.report import opening, write_report
from evo.base import Base, base_paths, load_base
from evo.outcome import Built, Rejected
from evo.prove import CONTROL
from evo.sanitize import find_sanitizer, sanitize, sanitize_all
from evo.seat import Seat, WorkerSpec
from evo.targets import DeviceFacts, build, make_target
from evo.targets.driver import gpu_limits
from evo.variant import Variant, make_variant
from evo.workloads import find_workload

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
CUDA_BASES = [base for base in map(load_base, base_paths().values()) if base.language == "cuda"]
needs_sanitizer = pytest.mark.skipif(find_sanitizer() is None, reason="compute-sanitizer is not installed")


@pytest.fixture(scope="module")
def report() -> Iterator[dict[str, Any]]:
    """What is measured here; written at the end where EVO_GPU_REPORT names a file."""
    figures: dict[str, Any] = opening("gpu_trust", make_target("cuda"))
    yield figures
    if path := os.environ.get("EVO_GPU_REPORT"):
        write_report(Path(path), figures)


def test_every_wrong_kernel_is_caught_on_this_very_gpu(report: dict[str, Any]) -> None:
    report["kill_rate"] = gpu_trust.kill_rate()
    assert {name: found["survived"] for name, found in report["kill_rate"].items()} == {
        "mission": {},
        "mission-causal": {},
    }
    assert all(found["killed"] >= 20 for found in report["kill_rate"].values())


def test_a_crash_or_a_hang_costs_less_than_ten_seconds_and_the_next_variant_is_measured(report: dict[str, Any]) -> None:
    report["recoveries"] = gpu_trust.recoveries()
    for event in report["recoveries"]:
        assert event["outcome"] != "measured", event
        assert event["next_measured"], event
        assert 0 < event["recovery_s"] < gpu_trust.RECOVERY_S, event


def test_a_fleet_gives_every_hostile_kernel_one_rejection_and_measures_the_right_one(report: dict[str, Any]) -> None:
    report["fleet"] = gpu_trust.fleet_outcomes()
    fates = dict(report["fleet"])
    assert fates.pop(CONTROL) == "measured"
    assert set(fates) == set(gpu_trust.HOSTILE)
    assert fates["hang"] == "timeout: hang"
    assert fates["illegal_address"] == "crash: illegal_address"
    assert all(fate.startswith(("crash", "timeout", "launch")) for fate in fates.values()), fates


def test_a_killed_seat_is_back_within_ten_seconds_and_what_waited_is_measured(report: dict[str, Any]) -> None:
    found = report["killed_seat"] = gpu_trust.killed_seat()
    assert 0 < found["back_s"] < gpu_trust.RECOVERY_S
    assert found["fates"] == {"hang": "timeout: hang", CONTROL: "measured"}, "what waited behind it is not blamed"


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


def test_fifty_copies_of_one_program_are_timed_alike_and_none_is_promoted(report: dict[str, Any]) -> None:
    found = report["null_run"] = gpu_trust.null_run()
    for run in found["null_runs"]:
        assert run["warm_spread"] < gpu_trust.WARM_SPREAD, found
        assert run["cold_spread"] < gpu_trust.COLD_SPREAD, found
        assert run["promoted"] == [], found


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
