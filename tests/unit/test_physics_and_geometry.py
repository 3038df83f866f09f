"""The physical floor; the launch geometry in C++; the cache of builds; a commit named from outside."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from evo.base import find_base
from evo.build_cache import load_build, save_build, write_whole
from evo.expression import Expression
from evo.floor import floor
from evo.inspect import configured
from evo.launch_text import launch_text
from evo.outcome import Built, Rejected, Resources
from evo.provenance import git_state
from evo.record import VariantRecord
from evo.targets import DeviceFacts, nvrtc
from evo.variant import Variant, make_variant
from evo.workloads import find_workload

H200 = DeviceFacts(
    name="NVIDIA H200",
    arch="sm_90",
    l2_bytes=60 * 2**20,
    limits={"device.arch": 90, "device.multiprocessors": 132},
    clocks={"max_sm_mhz": 1980},
)


def test_an_empty_kernel_bounds_the_smallest_case() -> None:
    bound = floor(H200, flops=1e6, bytes_moved=1e5, empty_us=1.2, bytes_per_s=4e12)
    assert bound.because == "an empty kernel"
    assert bound.time_us == pytest.approx(0.9 * 1.2)


def test_arithmetic_bounds_a_large_one() -> None:
    bound = floor(H200, flops=1e12, bytes_moved=1e5, empty_us=1.2, bytes_per_s=4e12)
    assert bound.because == "arithmetic at peak"
    assert bound.time_us == pytest.approx(0.9 * 1e6 * 1e12 / (132 * 4096 * 1.98e9))


def test_bytes_bound_only_what_the_cache_cannot_hold() -> None:
    def because(moved: float) -> str:
        return floor(H200, flops=1.0, bytes_moved=moved, empty_us=1.2, bytes_per_s=4e12).because

    assert because(50 * 2**20) == "an empty kernel"
    assert because(100 * 2**20) == "bytes at memory bandwidth"


def phase5(**knobs: str) -> Variant:
    base, case = find_base("phase5"), find_workload("attention").case("mission")
    limits = nvrtc.arch_limits("sm_90")
    space = base.space({**limits, **case.constants()})
    return make_variant(
        base,
        space,
        configured(space, [f"{name}={value}" for name, value in knobs.items()]),
        constants=case.constants(),
        facts=limits,
        arch="sm_90",
        toolchain=nvrtc.toolchain(),
    )


@pytest.mark.parametrize("shared", ["1 / 0", "-4", "order"])
def test_a_launch_whose_shared_memory_is_no_number_is_one_rejection(shared: str) -> None:
    variant = phase5()
    assert variant.launch is not None
    odd = replace(variant, launch=replace(variant.launch, shared_bytes=Expression.parse(shared)))
    outcome = nvrtc.build(odd)
    assert isinstance(outcome, Rejected)
    assert outcome.fate == "launch: shared_memory"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ installed")
@pytest.mark.parametrize("order", ["tiles_first", "heads_first"])
def test_the_geometry_in_cpp_is_the_one_that_was_launched(order: str, tmp_path: Path) -> None:
    variant = phase5(order=order)
    record = VariantRecord.of(variant)
    dimensions = {"batch": 3, "heads": 5, "seq_q": 130, "seq_kv": 70}
    assert variant.launch is not None
    values = {**variant.values, **dimensions}
    expected = [int(e.evaluate(values)) for e in variant.launch.grid]
    call = ", ".join(str(extent) for extent in dimensions.values())
    checks = "".join(
        f"static_assert(evo::Launch::grid_{axis}({call}) == {extent});\n"
        for axis, extent in zip("xyz", expected, strict=True)
    )
    program = tmp_path / "geometry.cpp"
    program.write_text(variant.header.replace("#pragma once", "") + launch_text(record, list(dimensions)) + checks)
    done = subprocess.run(
        ["g++", "-std=c++20", "-fsyntax-only", str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_kept_build_is_found_by_its_variant_and_a_damaged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    variant = phase5()
    assert load_build(variant) is None
    built = Built(variant.key, b"binary", "hash", Resources(registers=7), "log", 0.5)
    save_build(built)
    assert load_build(variant) == built
    next((tmp_path / "evo" / "builds").glob("*.bin")).write_bytes(b"other")
    assert load_build(variant) is None


def test_a_kept_file_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_commit_may_be_named_where_the_repository_does_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVO_COMMIT", raising=False)
    assert git_state(tmp_path).sha == ""
    monkeypatch.setenv("EVO_COMMIT", "abc123-dirty")
    state = git_state(tmp_path)
    assert (state.sha, state.dirty) == ("abc123", True)


def test_a_second_build_of_one_text_reports_its_registers_too() -> None:
    """NVRTC answers a repeated build from a cache of its own, without the assembler's report, unless told not to."""
    first, second = nvrtc.build(phase5()), nvrtc.build(phase5())
    assert isinstance(first, Built)
    assert isinstance(second, Built)
    assert first.resources.registers > 0
    assert first.resources == second.resources
