"""The fleet: builders on CPUs and one exclusive seat per GPU, all under Ray.

The driver hands in builds and runs and takes finished ones, in any order; nothing here waits for a generation. What can
die, dies here without taking the search along: a builder that crashes or never ends, a seat whose node goes away.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import ray.exceptions

from evo.cluster import Cluster, first_line, seats_of
from evo.errors import InputError, WorkersLost
from evo.outcome import Built, Contest, Done, Rejected, Stage
from evo.seat import Ready, Seat, WorkerSpec
from evo.sweeper import FOLDER
from evo.targets import build
from evo.variant import Variant

_DEPTH = 2  # runs queued per seat: one at work, one waiting, so that the device is never idle for the driver's sake
_LOSSES = 2  # workers that one variant may take with it before it is given up
_CONTEST_S = 6 * 3600.0  # longer than any promotion; its parts have limits of their own
_RAISES = 3  # tries to raise a lost seat again
_COMPILER_BYTES = 8 * 2**30  # that one compilation may take
_GRACE_S = 15.0  # beyond a builder's own time limit, for the process to start and to answer


@dataclass(slots=True)
class _Flight:
    """A task under way."""

    number: int
    kind: str
    variant: Variant
    built: Built | None
    best_us: float | None
    submitted_at: float
    seat: _SeatHandle | None = None
    ref: Any = None
    lost: int = 0  # workers lost under it
    lost_at: float = 0.0


@dataclass(slots=True)
class _SeatHandle:
    """A seat's actor as the driver sees it; it works its queue in order."""

    actor: Any
    name: str
    place: str  # by which the next actor finds what this one leaves behind when it is lost
    queue: list[_Flight] = field(default_factory=list)


@dataclass(slots=True)
class _Rising:
    """A seat's actor that has not answered yet."""

    actor: Any
    place: str
    since: float
    tries: int


@dataclass(slots=True)
class _Timed:
    value: Any
    worker: str
    started_at: float
    ended_at: float
    recovery_s: float = 0.0


def _build(variant: Variant, timeout_s: float) -> _Timed:
    started = time.time()
    resource.setrlimit(resource.RLIMIT_DATA, (_COMPILER_BYTES, _COMPILER_BYTES))  # NVRTC compiles in this process
    tempfile.tempdir = os.environ.get(FOLDER) or tempfile.tempdir  # what is left when this process is killed, goes too
    return _Timed(build(variant, timeout_s), f"builder {socket.gethostname()}:{os.getpid()}", started, time.time())


def _warm(target: str) -> None:
    """Start a builder's process and load its compiler while the seats come up."""
    if target == "cuda":
        from evo.targets import nvrtc

        nvrtc.toolchain()
    time.sleep(0.5)  # hold this process, so that the next one warms another


class _SeatActor:
    """The seat on its node; Ray gives it its GPU alone. Until it rises it is a process that waits, no more."""

    _seat: Seat

    def rise(self, spec: WorkerSpec, place: str) -> tuple[Ready, str, int]:
        self._seat = Seat(spec, place=place)
        return self._seat.about()

    def evaluate(self, variant: Variant, built: Built, best_us: float | None) -> _Timed:
        started = time.time()
        outcome = self._seat.evaluate(variant, built, best_us)
        ended = time.time() - self._seat.recovery_s
        return _Timed(outcome, socket.gethostname(), started, ended, self._seat.recovery_s)

    def contest(self, entries: Sequence[tuple[Variant, Built]], rounds: int, sanitized: bool) -> Contest | Rejected:
        return self._seat.contest(entries, rounds, sanitized)

    def turn_to(self, case: Any) -> Ready:
        return self._seat.turn_to(case)

    def close(self) -> None:
        self._seat.close()


@dataclass(slots=True)
class Fleet:
    """Builders and seats for one worker spec. Use as a context manager.

    Raises: InputError when Ray cannot be reached, no such GPU is there, no seat comes up, or the last one is lost and
    none comes back.
    """

    spec: WorkerSpec
    address: str | None = None
    gpu_type: str | None = None
    builders: int = 0  # 0: every CPU that the seats leave
    build_s: float = 60.0  # a compile that takes longer is stopped
    ready: Ready = field(init=False)
    _seats: list[_SeatHandle] = field(init=False, default_factory=list)
    _standby: Any = field(init=False, default=None)  # an actor that will be the next seat, where one can wait for it
    _rising: dict[Any, _Rising] = field(init=False, default_factory=dict)
    _flights: dict[Any, _Flight] = field(init=False, default_factory=dict)
    _building: int = field(init=False, default=0)
    _to_build: deque[_Flight] = field(init=False, default_factory=deque)
    _to_run: deque[_Flight] = field(init=False, default_factory=deque)
    _cluster: Cluster = field(init=False)
    _options: dict[str, Any] = field(init=False, default_factory=dict)

    def __enter__(self) -> Fleet:
        self._cluster = Cluster(self.address)
        try:
            self._cluster.join()
            self._raise_seats()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seats(self) -> int:
        """Seats, those included that are being raised again."""
        return len(self._seats) + len(self._rising)

    def building(self) -> int:
        """Builds under way or waiting for a builder."""
        return self._building + len(self._to_build)

    def running(self) -> int:
        """Runs under way or waiting for a seat."""
        return len(self._flights) - self._building + len(self._to_run)

    def submit_build(self, number: int, variant: Variant) -> None:
        self._to_build.append(_Flight(number, "build", variant, None, None, time.time()))
        self._dispatch()

    def submit_run(self, number: int, variant: Variant, built: Built, best_us: float | None) -> None:
        self._to_run.append(_Flight(number, "run", variant, built, best_us, time.time()))
        self._dispatch()

    def wait(self, timeout_s: float) -> list[Done]:
        """What has finished, waiting up to `timeout_s` for the first. Overdue builds are stopped here.

        Raises: WorkersLost when the last seat is lost and none comes back.
        """
        awaited = [*self._flights, *self._rising]
        if not awaited:
            return []
        ready, _ = ray.wait(awaited, num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0)
        done: list[Done] = []
        for ref in ready:
            if ref in self._rising:
                self._seat_answered(ref)
            elif (finished := self._land(ref)) is not None:
                done.append(finished)
        done += self._stop_overdue()
        self._dispatch()
        return done

    def turn_to(self, case: Any) -> None:
        """Serve another case of the same workload from now on. Raises: InputError when a seat cannot."""
        self.spec = replace(self.spec, case=case)
        try:
            self.ready = ray.get([seat.actor.turn_to.remote(case) for seat in self._seats])[0]
        except ray.exceptions.RayTaskError as error:
            raise InputError(first_line(error)) from None

    def contest(
        self, entries: Sequence[tuple[Variant, Built]], rounds: int, sanitized: bool = False
    ) -> Contest | Rejected:
        """Promotion's timing on the first seat, alone. Raises: WorkersLost when no seat is left."""
        while not self._seats and self._rising:
            self.wait(1.0)
        if not self._seats:
            raise WorkersLost("no worker is left")
        seat = self._seats[0]
        try:
            answer: Contest | Rejected = ray.get(
                seat.actor.contest.remote(list(entries), rounds, sanitized), timeout=_CONTEST_S
            )
        except ray.exceptions.RayError as error:
            self._replace(seat)
            return Rejected(Stage.CRASH, "worker_lost", first_line(error))
        return answer

    def close(self) -> None:
        """End every process of the fleet; a Ray started here goes with its folder."""
        if self._cluster.connected or self._seats:
            for seat in self._seats:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(seat.actor.close.remote(), timeout=10)
            waiting = [rising.actor for rising in self._rising.values()] + [self._standby] * (self._standby is not None)
            for actor in [*(seat.actor for seat in self._seats), *waiting]:
                with contextlib.suppress(ray.exceptions.RayError, ValueError):
                    ray.kill(actor)
            for ref, flight in self._flights.items():
                if flight.kind == "build":
                    with contextlib.suppress(ray.exceptions.RayError):
                        ray.cancel(ref, force=True)
        self._seats, self._rising, self._flights, self._standby = [], {}, {}, None
        self._cluster.leave()

    def _raise_seats(self) -> None:
        count, self._options = seats_of(self.spec.target, self.gpu_type)
        self.builders = self.builders or max(1, int(ray.cluster_resources().get("CPU", 2)) - count)
        warm = [ray.remote(_warm).options(num_cpus=1).remote(self.spec.target) for _ in range(self.builders)]
        places = [secrets.token_hex(8) for _ in range(count)]
        actors = [self._new_actor() for _ in places]
        risen = [actor.rise.remote(self.spec, place) for actor, place in zip(actors, places, strict=True)]
        problems: list[str] = []
        for actor, place, ref in zip(actors, places, risen, strict=True):
            try:
                ready, host, pid = ray.get(ref, timeout=self.spec.start_s + 60)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, InputError) else None
                problems.append(str(cause) if cause else first_line(error))
            except ray.exceptions.RayError as error:
                problems.append(first_line(error))
            else:
                self.ready = ready
                self._seats.append(_SeatHandle(actor, f"{host}:{pid}", place))
        if not self._seats:
            raise InputError(problems[0] if problems else "no worker came up")
        ray.wait(warm, num_returns=len(warm), timeout=60)
        self._keep_standby()

    def _new_actor(self, **changes: Any) -> Any:
        return ray.remote(_SeatActor).options(max_restarts=0, **{**self._options, **changes}).remote()

    def _keep_standby(self) -> None:
        """Have a process wait for the loss of a seat: where cores are few, starting one takes long.

        Not for a GPU: Ray gives a process its GPU when it starts.
        """
        if self._standby is None and "num_gpus" not in self._options:
            self._standby = self._new_actor(num_cpus=0)

    def _dispatch(self) -> None:
        """Give builders and seats what waits, no more than they can hold: a time limit runs from here."""
        while self._to_build and self._building < max(1, self.builders):
            flight = self._to_build.popleft()
            flight.submitted_at = time.time()
            task = ray.remote(_build).options(num_cpus=1, max_retries=0)
            flight.ref = task.remote(flight.variant, self.build_s)
            self._flights[flight.ref] = flight
            self._building += 1
        while self._to_run and self._seats:
            seat = min(self._seats, key=lambda s: len(s.queue))
            if len(seat.queue) >= _DEPTH:
                return
            flight = self._to_run.popleft()
            flight.seat = seat
            flight.ref = seat.actor.evaluate.remote(flight.variant, flight.built, flight.best_us)
            seat.queue.append(flight)
            self._flights[flight.ref] = flight

    def _take_off(self, ref: Any) -> _Flight | None:
        """The flight of this task, no longer under way."""
        flight = self._flights.pop(ref, None)
        if flight is None:
            return None
        if flight.kind == "build":
            self._building -= 1
        elif flight.seat is not None:
            flight.seat.queue.remove(flight)
        return flight

    def _land(self, ref: Any) -> Done | None:
        """The outcome of a finished task; None when its worker was lost and it is tried once more."""
        flight = self._flights.get(ref)
        if flight is None:
            return None
        now = time.time()
        try:
            timed: _Timed = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ray.exceptions.RayError) or flight.kind == "run":
                return self._lost(flight, first_line(error))
            raise  # a bug of ours in the builder
        except ray.exceptions.RayError as error:
            return self._lost(flight, first_line(error))
        self._take_off(ref)
        recovery_s = timed.recovery_s or (timed.started_at - flight.lost_at if flight.lost else 0.0)
        started = timed.started_at or now
        return Done(flight.number, flight.kind, timed.value, timed.worker, started, timed.ended_at, recovery_s)

    def _lost(self, flight: _Flight, words: str) -> Done | None:
        """A worker is gone. What it was at is tried once more; what only waited for it goes back in the queue."""
        if flight.kind == "build":
            self._take_off(flight.ref)
        else:
            assert flight.seat is not None
            queue = list(flight.seat.queue)
            for waiting in queue:
                self._take_off(waiting.ref)
            flight, *innocent = queue
            self._replace(flight.seat)  # type: ignore[arg-type]
            self._to_run.extendleft(reversed(innocent))
        flight.lost += 1
        flight.lost_at = time.time()
        flight.seat = None
        if flight.lost < _LOSSES:
            (self._to_build if flight.kind == "build" else self._to_run).append(flight)
            return None
        rejected = Rejected(Stage.CRASH, "worker_lost", f"{flight.lost} workers were lost with it: {words}")
        return Done(flight.number, flight.kind, rejected, "", flight.submitted_at, time.time())

    def _replace(self, seat: _SeatHandle) -> None:
        """Raise a seat again whose actor is lost; the search goes on meanwhile."""
        if seat in self._seats:
            self._seats.remove(seat)
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(seat.actor)
            self._raise(seat.place, tries=1)

    def _raise(self, place: str, tries: int) -> None:
        actor, self._standby = self._standby or self._new_actor(), None
        self._rising[actor.rise.remote(self.spec, place)] = _Rising(actor, place, time.time(), tries)

    def _seat_answered(self, ref: Any) -> None:
        rising = self._rising.pop(ref)
        try:
            _, host, pid = ray.get(ref)
        except ray.exceptions.RayError as error:
            self._seat_failed(rising, first_line(error))
        else:
            self._seats.append(_SeatHandle(rising.actor, f"{host}:{pid}", rising.place))
            self._keep_standby()

    def _seat_failed(self, rising: _Rising, words: str) -> None:
        """Try again, or do with the seats that are left. Raises: WorkersLost when there is none."""
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.kill(rising.actor)
        if rising.tries < _RAISES:
            self._raise(rising.place, rising.tries + 1)
        elif not self._seats and not self._rising:
            raise WorkersLost(f"the last worker was lost and none came back: {words}")

    def _stop_overdue(self) -> list[Done]:
        now = time.time()
        done = []
        for ref, flight in list(self._flights.items()):
            if flight.kind == "build" and now - flight.submitted_at > self.build_s + _GRACE_S:
                ray.cancel(ref, force=True)
                self._take_off(ref)
                rejected = Rejected(Stage.TIMEOUT, "build", f"the compiler was stopped after {self.build_s:g} s")
                done.append(Done(flight.number, "build", rejected, "", flight.submitted_at, now))
        for ref, rising in list(self._rising.items()):
            if now - rising.since > self.spec.start_s + _GRACE_S:
                del self._rising[ref]
                self._seat_failed(rising, f"no answer within {self.spec.start_s:g} s")
        return done
