"""What the street hands on: Built, Verified, Measured, or Rejected with the stage where a variant stopped."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """Where on the street a variant stopped."""

    RULES = "rules"
    BUILD = "build"
    GATES = "gates"
    LAUNCH = "launch"
    VERIFY = "verify"
    MEASURE = "measure"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a variant stopped, and where on the street."""

    stage: Stage
    reason: str  # short and countable: "spills", "wrong_output", "illegal_address"
    detail: str = ""  # the compiler's or the device's own words

    @property
    def fate(self) -> str:
        """Stage and reason, as they are counted: "verify: wrong_output"."""
        return f"{self.stage}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Resources:
    """What the assembler says one kernel needs; zeros where a target has no such notion."""

    registers: int = 0
    spill_bytes: int = 0
    static_shared_bytes: int = 0
    shared_bytes: int = 0  # dynamic, asked for at launch
    barriers: int = 0
    stack_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Built:
    """A binary and what the toolchain said of it."""

    key: str  # the variant's key
    binary: bytes
    binary_hash: str  # two variants with one binary are one program
    resources: Resources
    log: str
    build_s: float


@dataclass(frozen=True, slots=True)
class CaseError:
    """Distance of one output from the float64 oracle on one case and seed, beside what was allowed."""

    case: str
    seed: int
    max_error: float
    max_bound: float
    norm_error: float
    norm_bound: float


@dataclass(frozen=True, slots=True)
class Verified:
    """A built variant whose outputs were right on every case tried."""

    built: Built
    errors: tuple[CaseError, ...]
    verify_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A right variant and its raw time samples.

    samples_us: device time of one launch in microseconds, one value per round.
    anchor_us: the anchor's samples of the same rounds, so a ratio is taken pair by pair.
    """

    samples_us: tuple[float, ...]
    anchor_us: tuple[float, ...] = ()
    built: Built | None = None
    errors: tuple[CaseError, ...] = ()
    anchor: str = ""
    verify_s: float = 0.0
    measure_s: float = 0.0
    environment: dict[str, float | int | str] = field(default_factory=dict)  # clocks, throttle reasons, worker

    @property
    def time_us(self) -> float:
        """Median of the samples, in microseconds."""
        return statistics.median(self.samples_us)

    @property
    def ratio(self) -> float | None:
        """Anchor's median over this median: above 1 is faster than the anchor."""
        return statistics.median(self.anchor_us) / self.time_us if self.anchor_us else None


Outcome = Measured | Rejected


@dataclass(frozen=True, slots=True)
class Contest:
    """Raw samples of finalists, the incumbent and every baseline, taken in one run.

    warm_us, cold_us: us per launch, the same rounds for all, by contender: a variant's key or "baseline:NAME".
    """

    warm_us: dict[str, tuple[float, ...]]
    cold_us: dict[str, tuple[float, ...]]
    rejected: dict[str, Rejected] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    sanitizer: dict[str, str] = field(default_factory=dict)  # what compute-sanitizer said, by variant key


@dataclass(frozen=True, slots=True)
class Done:
    """One finished build or run and when it was at work (UTC seconds)."""

    number: int  # as given to submit_build or submit_run
    kind: str  # "build" or "run"
    result: Built | Measured | Rejected
    worker: str
    started_at: float
    ended_at: float
    recovery_s: float = 0.0  # that its worker's place stood empty after it; 0: the worker lived
