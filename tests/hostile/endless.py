"""A CUDA variant that no compiler finishes: it takes more memory every second, until it is stopped."""

from __future__ import annotations

from dataclasses import replace

from evo.base import find_base
from evo.targets import nvrtc
from evo.variant import Variant, make_variant
from evo.workloads import find_workload

_ENDLESS = """
template <int N, long M> struct Endless {
  static constexpr long value = Endless<N - 1, 2 * M>::value + Endless<N - 1, 2 * M + 1>::value;
};
template <long M> struct Endless<0, M> { static constexpr long value = M; };
extern "C" __global__ void attention_forward(long* out) { *out = Endless<40, 1>::value; }
"""


def cuda_variant() -> Variant:
    """The smallest base's default for an H200."""
    base, case = find_base("phase1"), find_workload("attention").case("mission")
    limits = nvrtc.arch_limits("sm_90")
    space = base.space({**limits, **case.constants()})
    return make_variant(
        base,
        space,
        space.default,
        constants=case.constants(),
        facts=limits,
        arch="sm_90",
        toolchain=nvrtc.toolchain(),
    )


def endless() -> Variant:
    return replace(cuda_variant(), sources={"": _ENDLESS})
