"""The steady-state loop: proposer <-> fleet <-> record. No generations, no barrier: a free place is filled at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from evo.base import Base
from evo.errors import InputError
from evo.outcome import Built, Done, Measured, Outcome, Rejected, Stage
from evo.patience import Patience
from evo.record import Event, Interval, Origin, Record, Trial, VariantRecord
from evo.search import Descent, Proposer
from evo.space import Configuration, SearchSpace, Value
from evo.variant import Variant, make_variant

_BATCH = 16  # proposals asked for at once at the most
_HEARTBEAT_S = 5.0
_AHEAD = 2  # built variants kept waiting per seat: enough that a seat never waits, few enough to stay informed


class FleetLike(Protocol):
    """What the loop needs of a fleet; a recording plays the same part."""

    builders: int

    @property
    def seats(self) -> int: ...
    def building(self) -> int: ...
    def running(self) -> int: ...
    def submit_build(self, number: int, variant: Variant) -> None: ...
    def submit_run(self, number: int, variant: Variant, built: Built, best_us: float | None) -> None: ...
    def wait(self, timeout_s: float) -> list[Done]: ...


@dataclass(frozen=True, slots=True)
class Binding:
    """What turns a configuration into a variant: the case's constants, the device's facts, the toolchain."""

    base: Base
    space: SearchSpace  # what is searched
    rules_space: SearchSpace  # where derived values come from: the same, or the base's own when a recording is played
    constants: Mapping[str, Value]
    facts: Mapping[str, Value]
    arch: str
    toolchain: str

    def variant(self, configuration: Configuration) -> Variant:
        return make_variant(
            self.base,
            self.rules_space,
            configuration,
            constants=self.constants,
            facts=self.facts,
            arch=self.arch,
            toolchain=self.toolchain,
        )


@dataclass(slots=True)
class Progress:
    """What a watcher of a running search is shown."""

    budget: int | None
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None  # of the search; what comes after it is not counted into variants per second
    evaluated: int = 0
    valid: int = 0
    best_us: float | None = None
    best_ratio: float | None = None
    anchor: str = ""
    rejected: Counter[str] = field(default_factory=Counter)
    curve: list[tuple[int, float]] = field(default_factory=list)  # (evaluated, best so far in us) at each improvement
    building: int = 0
    running: int = 0
    time_limit_s: float | None = None
    resumed: int = 0  # of those evaluated, by earlier runs of this campaign

    @property
    def elapsed_s(self) -> float:
        return (self.ended_at or time.time()) - self.started_at

    @property
    def per_s(self) -> float:
        """Variants per second from proposal to recorded row."""
        return (self.evaluated - self.resumed) / self.elapsed_s if self.evaluated > self.resumed else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the budget or the time limit is spent, whichever is nearer; None while unknown."""
        ends = []
        if self.budget is not None and self.evaluated > self.resumed:
            ends.append((self.budget - self.evaluated) / max(self.per_s, 1e-9))
        if self.time_limit_s is not None:
            ends.append(self.time_limit_s - self.elapsed_s)
        return max(0.0, min(ends)) if ends else None


@dataclass(slots=True)
class _Pending:
    """A proposal on its way."""

    number: int
    configuration: Configuration
    variant: Variant
    origin: Origin
    asked_at: float
    built: Built | None = None


@dataclass(slots=True)
class Campaign:
    """One search under way. `run` returns why it ended."""

    record: Record
    campaign_id: int
    binding: Binding
    proposer: Proposer
    fleet: FleetLike
    budget: int | None = None
    time_limit_s: float | None = None
    watch: Callable[[Progress], None] = lambda _: None
    patience: Patience | None = None
    progress: Progress = field(init=False)
    _next: int = field(init=False, default=0)
    _pending: dict[int, _Pending] = field(init=False, default_factory=dict)
    _binaries: dict[str, int] = field(init=False, default_factory=dict)  # binary hash -> first trial with it
    _outcomes: dict[int, Outcome] = field(init=False, default_factory=dict)  # of trials that own a binary
    _twins: dict[int, list[_Pending]] = field(init=False, default_factory=dict)  # waiting for that trial's outcome
    _numbers: dict[tuple[int, ...], int] = field(init=False, default_factory=dict)  # configuration -> its trial
    _exhausted: bool = field(init=False, default=False)
    _beat_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.progress = Progress(self.budget, time_limit_s=self.time_limit_s)

    def resume(self) -> None:
        """Tell the proposer everything that this campaign has recorded, in order; the budget goes on from there.

        Raises: InputError when the base has changed so much since that its configurations are unknown.
        """
        for trial in self.record.trials(self.campaign_id, details=False):
            try:
                configuration = self.binding.space.configuration(trial.configuration)
            except InputError as error:
                words = f"campaign {self.campaign_id} was of another version of {self.binding.base.name}"
                raise InputError(f"--resume: {words}: {error}") from None
            outcome = trial.outcome
            self.proposer.tell(configuration, outcome)
            self._numbers[configuration.indices] = trial.number
            if self.patience is not None:
                self.patience.note(outcome)
            self._count(outcome)
            self._next = max(self._next, trial.number + 1)
            self._outcomes[trial.number] = outcome
        self._binaries = self.record.binaries(self.campaign_id)
        self.progress.resumed = self.progress.evaluated

    def run(self) -> str:
        """Search until budget, time or space is spent; every outcome is recorded as it arrives."""
        self.progress.started_at = time.time()
        while True:
            reason = self._ended()
            if reason and not self._pending:
                self.progress.ended_at = time.time()
                return reason
            if not reason:
                self._propose()
            self._settle(self.fleet.wait(0.2 if self._pending else 0.0))
            self._beat()
            self.watch(self.progress)

    def _ended(self) -> str:
        if self._left() == 0:
            return "budget spent"
        if self.time_limit_s is not None and self.progress.elapsed_s >= self.time_limit_s:
            return "time limit reached"
        if self.patience is not None and self.patience.reason:
            return self.patience.reason
        return "every admissible configuration tried" if self._exhausted else ""

    def _left(self) -> int | None:
        """Proposals that the budget still allows; trials lost in flight by an earlier run are not counted."""
        return None if self.budget is None else max(0, self.budget - self.progress.evaluated - len(self._pending))

    def _propose(self) -> None:
        """Keep every builder busy, but build no further ahead of the seats than they can use.

        One build waits for the first builder that is free, so that none is idle while outcomes are recorded.
        """
        room = self.fleet.builders + 1 - self.fleet.building()
        backlog = self.fleet.running() - _AHEAD * self.fleet.seats
        wanted = min(room, _BATCH, self.fleet.builders - max(0, backlog))
        left = self._left()
        if left is not None:
            wanted = min(wanted, left)
        if wanted <= 0:
            return
        configurations = self.proposer.ask(wanted)
        if not configurations and not self._pending:
            self._exhausted = True
        for configuration in configurations:
            pending = _Pending(
                self._next, configuration, self.binding.variant(configuration), self._origin(configuration), time.time()
            )
            self._numbers[configuration.indices] = self._next
            self._next += 1
            self._pending[pending.number] = pending
            self.fleet.submit_build(pending.number, pending.variant)

    def _origin(self, configuration: Configuration) -> Origin:
        """Operator and parents, these as numbers of trials; a parent known from elsewhere has none."""
        describe = getattr(self.proposer, "origin", None)
        if describe is None:
            return Origin()
        descent: Descent = describe(configuration)
        return Origin(descent.operator, tuple(self._numbers[p] for p in descent.parents if p in self._numbers))

    def _settle(self, finished: list[Done]) -> None:
        trials: list[Trial] = []
        intervals: list[Interval] = []
        for done in finished:
            pending = self._pending.get(done.number)
            if pending is None:
                continue
            if done.kind == "build":
                intervals.append(Interval(done.worker, "build", done.started_at, done.ended_at))
                trials += self._after_build(pending, done)
            else:
                intervals += _run_intervals(done)
                assert not isinstance(done.result, Built)
                self._note_recovery(done)
                trials += self._conclude(pending, done.result, worker=done.worker)
        if trials:
            self.record.record_trials(self.campaign_id, trials)
        if intervals:
            self.record.record_intervals(self.campaign_id, intervals)
        self.progress.building, self.progress.running = self.fleet.building(), self.fleet.running()

    def _after_build(self, pending: _Pending, done: Done) -> list[Trial]:
        """Run what was built, unless its binary is known: two variants with one binary are one program."""
        built = done.result
        if not isinstance(built, Built):
            return self._conclude(pending, built, worker=done.worker)
        pending.built = built
        first = self._binaries.setdefault(built.binary_hash, pending.number)
        if first == pending.number:
            self.fleet.submit_run(pending.number, pending.variant, built, self.progress.best_us)
            return []
        if first in self._outcomes:
            return self._conclude(pending, self._outcomes[first], same_as=first)
        self._twins.setdefault(first, []).append(pending)
        return []

    def _conclude(
        self, pending: _Pending, outcome: Measured | Rejected, *, worker: str = "", same_as: int | None = None
    ) -> list[Trial]:
        """Tell the proposer, count, and make the row; twins of this binary conclude with it."""
        del self._pending[pending.number]
        if isinstance(outcome, Measured):
            outcome = replace(outcome, built=None)  # kept by many; a binary is not
        self.proposer.tell(pending.configuration, outcome)
        if self.patience is not None:
            expected = getattr(self.proposer, "expected_gain", None)
            self.patience.note(outcome, expected() if expected is not None else None)
        self._count(outcome)
        log = outcome.detail if isinstance(outcome, Rejected) and outcome.stage == Stage.BUILD else ""
        trial = Trial(
            number=pending.number,
            variant=VariantRecord.of(pending.variant, pending.built, log=log),
            outcome=outcome,
            origin=pending.origin,
            started_at=pending.asked_at,
            worker=worker,
            build_s=pending.built.build_s if pending.built else None,
            same_as=same_as,
        )
        trials = [trial]
        if same_as is None:
            self._outcomes[pending.number] = outcome
        for twin in self._twins.pop(pending.number, []):
            trials += self._conclude(twin, outcome, same_as=pending.number)
        return trials

    def _count(self, outcome: Outcome) -> None:
        progress = self.progress
        progress.evaluated += 1
        if isinstance(outcome, Rejected):
            progress.rejected[outcome.fate] += 1
            return
        progress.valid += 1
        if progress.best_us is None or outcome.time_us < progress.best_us:
            progress.best_us, progress.best_ratio = outcome.time_us, outcome.ratio
            progress.curve.append((progress.evaluated, outcome.time_us))

    def _note_recovery(self, done: Done) -> None:
        if done.recovery_s > 0:
            fate = done.result.fate if isinstance(done.result, Rejected) else "tried again"
            data = {"number": done.number, "reason": fate, "recovery_s": round(done.recovery_s, 3)}
            words = f"trial {done.number} took its worker down ({fate}); the next was ready in {done.recovery_s:.1f} s"
            self.record.record_event(self.campaign_id, Event("worker_replaced", words, data))

    def _beat(self) -> None:
        if time.monotonic() - self._beat_at > _HEARTBEAT_S:
            self.record.heartbeat(self.campaign_id)
            self._beat_at = time.monotonic()


def build_all(fleet: FleetLike, variants: Sequence[Variant]) -> list[Built | Rejected]:
    """Build these variants on a fleet that does nothing else; outcomes in their order."""
    for number, variant in enumerate(variants):
        fleet.submit_build(number, variant)
    found: dict[int, Built | Rejected] = {}
    waiting = set(range(len(variants)))
    while waiting:
        for done in fleet.wait(1.0):
            waiting.discard(done.number)
            if not isinstance(done.result, Measured):
                found[done.number] = done.result
    return [found[number] for number in range(len(variants))]


def _run_intervals(done: Done) -> list[Interval]:
    """What a seat did for one run: verify, then measure."""
    outcome = done.result
    if not isinstance(outcome, Measured):
        return [Interval(done.worker, "verify", done.started_at, done.ended_at)]
    middle = min(done.ended_at, done.ended_at - outcome.measure_s)
    return [
        Interval(done.worker, "verify", done.started_at, middle),
        Interval(done.worker, "measure", middle, done.ended_at),
    ]
