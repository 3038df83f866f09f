"""One device's place in the fleet: a worker in use, a warm spare, and the nursery that they come from.

A kernel can crash, hang or poison the CUDA context; only its process can then be trusted to end. So the device is used
in a child process (`evo.worker`), forked by the nursery. The seat (one per GPU, or one for the host) speaks to it over
a socket pair, gives every call a time limit, turns a dead or silent child into a `Rejected`, and puts the warm spare in
its place. It imports nothing heavy itself, so that a lost seat is soon replaced.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from evo.errors import InputError
from evo.measure import Timing
from evo.nursery import Nursery, NurseryLost, tail
from evo.outcome import Built, Contest, Measured, Rejected, Stage, Verified
from evo.sanitize import sanitize_all
from evo.targets import DeviceFacts
from evo.variant import Variant

_OUT_OF_MEMORY = ("bad_alloc", "MemoryError", "can't allocate memory", "Cannot allocate memory", "out of memory")
_STRAY_WRITES = ("out_of_bounds_write", "mutated_input")


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is to be ready for."""

    target: str
    workload: str
    case: Any
    timing: Timing = field(default_factory=Timing)
    arch: str | None = None
    start_s: float = 180.0  # torch, a CUDA context and the baselines' first run
    evaluate_s: float = 30.0  # one variant's verification, then as much for its timing; or each its own:
    verify_s: float | None = None
    measure_s: float | None = None
    contest_s: float = 600.0
    memory_bytes: int = 0  # that a worker of the host target may take; 0: half of the machine's


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker's first word: the device, and the baselines' times on this case."""

    facts: DeviceFacts
    baselines_us: dict[str, float]
    anchor: str
    toolchain: str
    torch: str


@dataclass(frozen=True, slots=True)
class Fatal:
    """The outcome of a call after which the child ends."""

    outcome: Rejected


@dataclass(frozen=True, slots=True)
class Right:
    """A worker's word on the way: the kernel is right, its timing begins."""


class WorkerLost(Exception):
    """The child ended or fell silent; `outcome` says how."""

    def __init__(self, outcome: Rejected) -> None:
        super().__init__(f"{outcome.reason}: {outcome.detail}")
        self.outcome = outcome


class WorkerProcess:
    """One child process and the calls to it. Raises: NurseryLost when the nursery bears none."""

    def __init__(self, spec: WorkerSpec, nursery: Nursery) -> None:
        ours, theirs = socket.socketpair()
        self._nursery, self._wire = nursery, Connection(ours.detach())
        self._code: int | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process; the kernel's and the driver's last words
        with theirs:
            self.pid = nursery.fork(theirs.fileno(), self._errors.fileno(), spec.start_s)
        self.send(spec)

    def send(self, request: Any) -> None:
        try:
            self._wire.send_bytes(pickle.dumps(request))
        except OSError:
            raise WorkerLost(self._post_mortem()) from None

    def receive(self, limit_s: float, at: str) -> Any:
        """The child's next word. Raises: WorkerLost when it dies or does not answer within `limit_s`.

        at: what it is at, for the message.
        """
        try:
            self._await_word(limit_s, at)
            return pickle.loads(self._wire.recv_bytes())
        except (EOFError, OSError):
            raise WorkerLost(self._post_mortem()) from None
        except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, ImportError) as error:
            words = f"the worker answered nonsense: {type(error).__name__}: {error}"
            raise WorkerLost(Rejected(Stage.CRASH, "garbled_answer", words)) from None

    def _await_word(self, limit_s: float, at: str) -> None:
        """Return when the wire can be read. A child's end is known from the nursery too: a process that the kernel
        left behind may hold the wire open. Raises: WorkerLost.
        """
        deadline = time.monotonic() + limit_s
        ears: list[Any] = [self._wire, self._nursery]
        while not self._wire.poll(0):
            if self._nursery.has_ended(self.pid):
                raise WorkerLost(self._post_mortem())
            left = deadline - time.monotonic()
            if left <= 0:
                raise WorkerLost(Rejected(Stage.TIMEOUT, "hang", f"{at}: no answer within {limit_s:g} s"))
            heard: list[Any] = wait(ears, left)
            if self._nursery in heard and not self._nursery.listen():
                ears = [self._wire]  # the nursery is gone, and its children are going

    def close(self) -> None:
        """End the child and all that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._end(5.0)
        self._wire.close()
        self._errors.close()

    def _end(self, limit_s: float) -> int | None:
        """Exit code, negative for a signal; None when it has not ended or nobody is left who knows."""
        if self._code is None:
            self._code = self._nursery.exit_code(self.pid, limit_s)
        return self._code

    def _post_mortem(self) -> Rejected:
        code = self._end(5.0)
        words = tail(self._errors.fileno())
        if code is None:
            return Rejected(Stage.CRASH, "worker_lost", words or "it ended together with its parent")
        if any(sign in words for sign in _OUT_OF_MEMORY):
            return Rejected(Stage.CRASH, "out_of_memory", words)
        return Rejected(Stage.CRASH, signal.Signals(-code).name if code < 0 else f"exit_{code}", words)


class Seat:
    """One device's place in the fleet: a worker in use, a warm spare and the nursery that they come from.

    Raises: InputError from the constructor when the device cannot serve at all.
    """

    def __init__(
        self, spec: WorkerSpec, *, spare: bool = True, place: str = "", nursery: Nursery | None = None
    ) -> None:
        """place: a secret name in a fleet, under which the seat finds the nursery that one before it had to leave.

        nursery: one of that place that is this process's own already.
        """
        self.spec, self._keeps_spare = spec, spare
        self.recovery_s = 0.0  # from the last loss of a worker until the next one was ready
        self._anchor = ""
        self._spare: WorkerProcess | None = None
        self._nursery = nursery or Nursery(spec.target, place)
        try:
            self._worker = WorkerProcess(spec, self._nursery)
            self.ready = self._activate(self._worker)
        except (WorkerLost, NurseryLost, InputError) as lost:
            self._nursery.close()
            if isinstance(lost, InputError):
                raise
            last = (str(lost).strip().splitlines() or [""])[-1]
            raise InputError(f"the worker did not start: {last[:600]}") from None
        self._anchor = self.ready.anchor
        self._raise_spare()

    def about(self) -> tuple[Ready, str, int]:
        """(what the device is, this machine's name, pid of the worker in use)"""
        return self.ready, socket.gethostname(), self._worker.pid

    def turn_to(self, case: Any) -> Ready:
        """Serve another case of the same workload from now on. Raises: InputError when the device cannot."""
        self.spec, self._anchor = replace(self.spec, case=case), ""
        try:
            self.ready = self._activate(self._worker)
        except WorkerLost as lost:
            raise InputError(f"the worker did not take case {case.name}: {lost}") from None
        self._anchor = self.ready.anchor
        return self.ready

    def evaluate(self, variant: Variant, built: Built, best_us: float | None) -> Measured | Rejected:
        """Verify and measure one variant; whatever it does to the process becomes a `Rejected`."""
        verify_s, measure_s = self.spec.verify_s or self.spec.evaluate_s, self.spec.measure_s or self.spec.evaluate_s
        outcome = self._call(("evaluate", variant, built, best_us), ("verification", verify_s), ("timing", measure_s))
        if isinstance(outcome, Rejected) and outcome.reason in _STRAY_WRITES and self.spec.target == "host":
            self._replace()  # what else it wrote in that process cannot be known
        return outcome  # type: ignore[no-any-return]

    def contest(
        self, entries: Sequence[tuple[Variant, Built]], rounds: int, sanitized: bool = False
    ) -> Contest | Rejected:
        """Promotion's timing. A finalist that the sanitizer objects to, or that takes the worker down, is left out.

        The contest names those in `rejected`.
        """
        guilty: dict[str, Rejected] = {}
        notes: dict[str, str] = {}
        if sanitized and self.spec.target == "cuda":
            for key, found in sanitize_all(entries, self.spec.workload, self.spec.case).items():
                if isinstance(found, Rejected):
                    guilty[key] = found
                else:
                    notes[key] = found
        rest = [(variant, built) for variant, built in entries if variant.key not in guilty]
        limit = ("comparison", self.spec.contest_s)
        outcome: Contest | Rejected = self._call(("contest", rest, rounds), limit)
        if isinstance(outcome, Rejected):
            found_wrong = {variant.key: self.verify(variant, built, 3) for variant, built in rest}
            fatal = {key: verdict for key, verdict in found_wrong.items() if isinstance(verdict, Rejected)}
            rest = [(variant, built) for variant, built in rest if variant.key not in fatal]
            if not fatal:
                return outcome
            guilty |= fatal
            if not rest:
                return Contest({}, {}, guilty, sanitizer=notes)
            outcome = self._call(("contest", rest, rounds), limit)
        if isinstance(outcome, Rejected):
            return outcome
        return replace(outcome, rejected={**outcome.rejected, **guilty}, sanitizer=notes)

    def verify(self, variant: Variant, built: Built, seeds: int) -> Verified | Rejected:
        """Check one variant on every case of the workload, `seeds` fresh seeds each."""
        limit = ("verification", self.spec.contest_s)
        return self._call(("verify", variant, built, seeds), limit)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._worker.close()
        if self._spare is not None:
            self._spare.close()
        self._nursery.close()

    def _call(self, request: Any, *limits: tuple[str, float]) -> Any:
        """limits: what the worker is at, and seconds for it; its word on the way begins the next."""
        self.recovery_s = 0.0
        try:
            self._worker.send(request)
            for at, limit_s in limits:
                reply = self._worker.receive(limit_s, at)
                if not isinstance(reply, Right):
                    break
        except WorkerLost as lost:
            self._replace()
            return lost.outcome
        if isinstance(reply, Fatal):  # the child ends itself: its CUDA context is not to be used again
            self._replace()
            return reply.outcome
        return reply

    def _replace(self) -> None:
        """Put the spare in the dead worker's place; try afresh a few times if it does not come up.

        Raises: RuntimeError when none comes up.
        """
        started = time.monotonic()
        self._worker.close()
        words = ""
        for attempt in range(3):
            candidate, self._spare = self._spare, None
            try:
                candidate = candidate or self._fresh()
                self._activate(candidate)
            except (WorkerLost, NurseryLost, InputError) as lost:
                words = str(lost)
                if candidate is not None:
                    candidate.close()
                time.sleep(attempt)
                continue
            self._worker = candidate
            self._raise_spare()
            self.recovery_s = time.monotonic() - started
            return
        raise RuntimeError(f"the device's worker could not be started again: {words}")

    def _fresh(self) -> WorkerProcess:
        """A worker from the nursery, or from the next one if that is gone."""
        try:
            return WorkerProcess(self.spec, self._nursery)
        except (NurseryLost, WorkerLost):
            self._nursery.renew()
            return WorkerProcess(self.spec, self._nursery)

    def _activate(self, worker: WorkerProcess) -> Ready:
        worker.send(("activate", self.spec.case, self._anchor))
        reply = worker.receive(self.spec.start_s, "start")
        if isinstance(reply, InputError):
            raise reply
        if isinstance(reply, Fatal):
            raise WorkerLost(reply.outcome)
        assert isinstance(reply, Ready)
        return reply

    def _raise_spare(self) -> None:
        """Keep one ready; without it the next loss takes longer, no more."""
        if self._keeps_spare:
            with contextlib.suppress(NurseryLost, WorkerLost):
                self._spare = WorkerProcess(self.spec, self._nursery)
