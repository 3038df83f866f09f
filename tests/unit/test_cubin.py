"""The digest follows what runs, not what it was called."""

from __future__ import annotations

import pytest
from cuda.bindings import nvrtc

from evo.targets.cubin import program_digest

SOURCE = """
struct Config { static constexpr int kUsed = 3; static constexpr int kIdle = 5; };
__device__ const int table[4] = {1, 2, 3, 4};
__constant__ float bank[4] = {1, 2, 3, 4};
extern "C" __global__ void f(float* x, int n) {
  __shared__ float scratch[64];
  scratch[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = scratch[63 - threadIdx.x] * Config::kUsed + table[n & 3] + bank[n & 3];
}
"""


def digest(source: str, name: str = "f.cu", arch: str = "sm_89") -> str:
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], [])
    (status,) = nvrtc.nvrtcCompileProgram(program, 2, [f"-arch={arch}".encode(), b"--std=c++20"])
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    cubin = b" " * size
    nvrtc.nvrtcGetCUBIN(program, cubin)
    return program_digest(cubin)


@pytest.mark.parametrize(
    ("old", "new"),
    [("kIdle = 5", "kIdle = 6"), ("kIdle", "kLazy"), ("struct Config", "// a comment\nstruct Config")],
)
def test_what_code_does_not_read_leaves_the_digest(old: str, new: str) -> None:
    assert digest(SOURCE.replace(old, new)) == digest(SOURCE)
    assert digest(SOURCE, name="another_file.cu") == digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kUsed = 3", "kUsed = 4"),
        ("table[4] = {1, 2, 3, 4}", "table[4] = {1, 2, 3, 5}"),
        ("bank[4] = {1, 2, 3, 4}", "bank[4] = {1, 2, 3, 5}"),
        ("scratch[64]", "scratch[128]"),
    ],
)
def test_what_runs_otherwise_changes_the_digest(old: str, new: str) -> None:
    assert digest(SOURCE.replace(old, new)) != digest(SOURCE)


def test_architectures_differ() -> None:
    assert digest(SOURCE, arch="sm_90") != digest(SOURCE)


def test_what_is_no_cubin_is_refused() -> None:
    with pytest.raises(ValueError, match="ELF"):
        program_digest(b"text")
