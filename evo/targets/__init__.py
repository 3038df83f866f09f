"""Where variants are built and run: one protocol for cuda and host; `replay` plays the part of a whole fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from evo.errors import InputError
from evo.outcome import Built, Rejected
from evo.space import Value
from evo.variant import Variant
from evo.workloads import Case, Tensors, Workload


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What is known of the device that runs variants.

    limits: facts by the names that rules use, e.g. {"device.shared_bytes_per_block": 101376}.
    """

    name: str
    arch: str  # "sm_90", "x86-64"
    uuid: str = ""
    driver: str = ""
    memory_bytes: int = 0
    l2_bytes: int = 0
    limits: Mapping[str, Value] = field(default_factory=dict)
    clocks: Mapping[str, Value] = field(default_factory=dict)


class Stopwatch(Protocol):
    """One contender made ready to be timed: `launches` launches per sample."""

    launches: int


class Program(Protocol):
    """A loaded binary."""

    def run(self, case: Case, inputs: Tensors, outputs: Tensors) -> None:
        """Launch once and wait. Raises: LaunchError with the device's own words."""

    def stopwatch(self, case: Case, input_sets: Sequence[Tensors], launches: int) -> Stopwatch: ...


class LaunchError(Exception):
    """The device refused or broke off a launch. `fatal`: the process must not use the device again."""

    def __init__(self, reason: str, detail: str = "", *, fatal: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.fatal = reason, detail, fatal


class Target(Protocol):
    """Builds anywhere, runs where its device is."""

    name: str

    def toolchain(self) -> str:
        """Identity of compiler and flags: a part of every variant's key."""

    def facts(self) -> DeviceFacts: ...

    def build(self, variant: Variant) -> Built | Rejected:
        """Compile; needs no device."""

    def load(self, built: Built, variant: Variant, workload: Workload) -> Program:
        """Raises: LaunchError when the binary does not load."""

    def baseline(self, workload: Workload, backend: str) -> Program:
        """A library's own kernel as a program, so that it is timed as variants are."""

    def time(self, stopwatches: Sequence[Stopwatch], order: Sequence[int]) -> list[float]:
        """Microseconds per launch, one value per entry of `order` (indices into `stopwatches`), in that order."""

    def ceilings(self) -> tuple[float, float]:
        """(microseconds of an empty launch, bytes per second of a large copy; 0 where unknown), measured."""

    def environment(self) -> dict[str, Any]:
        """Clocks, throttle reasons, temperature: what may explain a time."""


def make_target(name: str, *, arch: str | None = None) -> Target:
    """Make a target by name.

    arch: build for this architecture ("sm_89") instead of the device's own.
    Raises: InputError for an unknown name.
    """
    if name == "cuda":
        from evo.targets.cuda import CudaTarget

        return CudaTarget(arch=arch)
    if name == "host":
        from evo.targets.host import HostTarget

        return HostTarget()
    raise InputError(f"--target {name}: expected cuda, host, replay or auto")


def build(variant: Variant, timeout_s: float = 60.0) -> Built | Rejected:
    """Compile a variant by the toolchain of its language. Imports neither torch nor a driver: builders stay light.

    timeout_s: for compilers that run as processes of their own; NVRTC runs in this one, which its owner must stop.
    """
    if variant.language == "cuda":
        from evo.targets import nvrtc

        return nvrtc.build(variant)
    from evo.targets.host import HostTarget

    return HostTarget(build_timeout_s=timeout_s).build(variant)
