"""What is refused before Ray starts: a space that is empty on this machine's devices, a GPU that is too old."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evo import tune
from evo.errors import InputError
from evo.setting import SearchRequest, check_space, resolve
from evo.targets import driver, nvrtc

H200 = {"MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448, "MULTIPROCESSOR_COUNT": 132, "MAX_THREADS_PER_BLOCK": 1024}
H200 |= {"MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 233472, "MAX_REGISTERS_PER_MULTIPROCESSOR": 65536}
H200 |= {"MAX_THREADS_PER_MULTIPROCESSOR": 2048, "COMPUTE_CAPABILITY_MAJOR": 9, "COMPUTE_CAPABILITY_MINOR": 0}
L4 = H200 | {"MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 101376, "COMPUTE_CAPABILITY_MAJOR": 8, "COMPUTE_CAPABILITY_MINOR": 9}
T4 = H200 | {"COMPUTE_CAPABILITY_MAJOR": 7, "COMPUTE_CAPABILITY_MINOR": 5}


def _with_gpus(monkeypatch: pytest.MonkeyPatch, *gpus: dict[str, int]) -> None:
    """A CUDA driver that knows these GPUs."""
    kinds = SimpleNamespace(**{f"CU_DEVICE_ATTRIBUTE_{name}": name for name in H200})
    fake = SimpleNamespace(
        CUresult=driver.driver.CUresult,
        CUdevice_attribute=kinds,
        cuInit=lambda _: (driver.driver.CUresult.CUDA_SUCCESS,),
        cuDeviceGetCount=lambda: (driver.driver.CUresult.CUDA_SUCCESS, len(gpus)),
        cuDeviceGet=lambda index: (driver.driver.CUresult.CUDA_SUCCESS, index),
        cuDeviceGetAttribute=lambda name, index: (driver.driver.CUresult.CUDA_SUCCESS, gpus[index][name]),
    )
    monkeypatch.setattr(driver, "driver", fake)
    monkeypatch.setattr("evo.setting.gpu_names", lambda: ["a GPU"] * len(gpus))


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchRequest:
    """A base that needs more shared memory than an L4 has."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "kernels/large.cu").write_text('#include "evo_config.cuh"\n')
    (tmp_path / "search_spaces/large.yaml").write_text(
        "template: large.cu\nworkload: attention\nentry: f\nknobs: {kib: [128, 192]}\n"
        "rules: {fits_shared: kib * 1024 <= device.shared_bytes_per_block}\nlaunch: {grid: [1], block: [32]}\n"
    )
    monkeypatch.chdir(tmp_path)

    def no_fleet(*_: Any) -> None:
        raise AssertionError("Ray was about to start")

    monkeypatch.setattr(tune, "raise_fleet", no_fleet)
    return SearchRequest(base="large")


def test_a_space_that_this_gpu_leaves_empty_is_refused_before_ray_starts(
    large: SearchRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _with_gpus(monkeypatch, L4)
    with pytest.raises(InputError, match=r"large.yaml: rules: no combination of values satisfies all of fits_shared"):
        tune.search(large)
    assert not (tmp_path / "results.db").exists()


def test_one_gpu_that_serves_is_enough(large: SearchRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_gpus(monkeypatch, T4, L4, H200)
    check_space(large, resolve(large))


def test_a_gpu_that_is_too_old_is_refused_before_ray_starts(
    large: SearchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_gpus(monkeypatch, T4)
    with pytest.raises(InputError, match="this GPU is sm_75; expected sm_80 or newer"):
        tune.search(large)


def test_the_driver_gives_rules_every_fact_that_the_table_has(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_gpus(monkeypatch, H200)
    assert driver.gpu_limits() == [nvrtc.arch_limits("sm_90")]


def test_without_a_driver_there_are_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: int) -> None:
        raise RuntimeError("no library")

    monkeypatch.setattr(driver, "driver", SimpleNamespace(cuInit=missing))
    assert driver.gpu_limits() == []
