"""The physics of a launch: no right kernel runs faster than this. What does is quarantined, not crowned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evo.space import Value
from evo.targets import DeviceFacts

# Dense fp16 multiply-adds per clock and multiprocessor, counted as two operations each.
# Source: NVIDIA's architecture white papers (A100, Ada, Hopper, Blackwell); an unknown part gets the highest.
_TENSOR_FLOPS_PER_CLOCK = {80: 2048, 86: 1024, 87: 2048, 89: 1024, 90: 4096, 100: 8192, 120: 1024}
_CPU_FLOPS_PER_CLOCK = 128  # two 512-bit multiply-adds in fp32 twice over: above any core of today
_CPU_HZ = 6e9
_SLACK = 0.9  # clocks boost above their nominal maximum and timers round: stay on the safe side


@dataclass(frozen=True, slots=True)
class Floor:
    """Microseconds below which a time cannot be true, and what sets the bound."""

    time_us: float
    because: str


def floor(facts: DeviceFacts, *, flops: float, bytes_moved: float, empty_us: float, bytes_per_s: float) -> Floor:
    """The largest of three bounds.

    empty_us: measured time of an empty kernel; bytes_per_s: measured copy rate of device memory (0: unknown).
    Data that fits the L2 cache need not come from memory again, so it sets no bound on a warm launch.
    """
    bounds = {"an empty kernel": empty_us, "arithmetic at peak": 1e6 * flops / _peak_flops(facts)}
    if bytes_per_s and bytes_moved > facts.l2_bytes:
        bounds["bytes at memory bandwidth"] = 1e6 * bytes_moved / bytes_per_s
    because = max(bounds, key=lambda name: bounds[name])
    return Floor(_SLACK * bounds[because], because)


def _peak_flops(facts: DeviceFacts) -> float:
    limits: Mapping[str, Value] = facts.limits
    if "device.multiprocessors" not in limits:
        return float(limits.get("device.cores", 1024)) * _CPU_FLOPS_PER_CLOCK * _CPU_HZ
    arch = int(limits.get("device.arch", 0))
    per_clock = _TENSOR_FLOPS_PER_CLOCK.get(arch, max(_TENSOR_FLOPS_PER_CLOCK.values()))
    hertz = 1e6 * float(facts.clocks.get("max_sm_mhz", 3000) or 3000)
    return float(limits["device.multiprocessors"]) * per_clock * hertz
