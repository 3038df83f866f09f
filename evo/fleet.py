"""The fleet: builders on CPUs and one exclusive seat per GPU, all under Ray (`evo.seats`).

The driver hands in builds and runs and takes finished ones, in any order; nothing here waits for a generation. What can
die, dies here without taking the search along: a builder that crashes or never ends, a seat whose node goes away.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from evo.cluster import Cluster, first_line
from evo.errors import WorkersLost
from evo.outcome import Built, Contest, Done, Rejected, Stage
from evo.seat import Ready, WorkerSpec
from evo.seats import SeatHandle, Seats, Timed
from evo.sweeper import FOLDER
from evo.targets import build
from evo.variant import Variant

_DEPTH = 2  # runs queued per seat: one at work, one waiting, so that the device is never idle for the driver's sake
_LOSSES = 2  # workers that one variant may take with it before it is given up
_CONTEST_S = 6 * 3600.0  # longer than any promotion; its parts have limits of their own
_COMPILER_BYTES = 8 * 2**30  # that one compilation may take
_GRACE_S = 5.0  # beyond a builder's time limit, for its process to start and to answer


@dataclass(slots=True)
class _Flight:
    """A task under way."""

    number: int
    kind: str
    variant: Variant
    built: Built | None
    best_us: float | None
    submitted_at: float
    seat: SeatHandle | None = None
    ref: Any = None
    lost: int = 0  # workers lost under it
    lost_at: float = 0.0


def _build(variant: Variant, timeout_s: float) -> Timed:
    started = time.time()
    resource.setrlimit(resource.RLIMIT_DATA, (_COMPILER_BYTES, _COMPILER_BYTES))  # NVRTC compiles in this process
    tempfile.tempdir = os.environ.get(FOLDER) or tempfile.tempdir  # what is left when this process is killed, goes too
    return Timed(build(variant, timeout_s), f"builder {socket.gethostname()}:{os.getpid()}", started, time.time())


def _warm(target: str) -> None:
    """Start a builder's process and load its compiler while the seats come up."""
    if target == "cuda":
        from evo.targets import nvrtc

        nvrtc.toolchain()
    time.sleep(0.5)  # hold this process, so that the next one warms another


@dataclass(slots=True)
class Fleet:
    """Builders and seats for one worker spec. Use as a context manager.

    Raises: InputError when Ray cannot be reached, no such GPU is there, or no seat comes up.
    """

    spec: WorkerSpec
    address: str | None = None
    gpu_type: str | None = None
    builders: int = 0  # 0: every CPU that the seats leave
    build_s: float = 60.0  # a compile that takes longer is stopped
    _seats: Seats = field(init=False)
    _flights: dict[Any, _Flight] = field(init=False, default_factory=dict)
    _building: int = field(init=False, default=0)
    _to_build: deque[_Flight] = field(init=False, default_factory=deque)
    _to_run: deque[_Flight] = field(init=False, default_factory=deque)
    _cluster: Cluster = field(init=False)
    _builder: Any = field(init=False)  # made once: each made anew is another function to Ray, sent to every process

    def __enter__(self) -> Fleet:
        self._cluster, self._seats = Cluster(self.address), Seats(self.spec, self.gpu_type)
        self._builder = ray.remote(_build).options(num_cpus=1, max_retries=0)
        try:
            self._cluster.join()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seats(self) -> int:
        """Seats, those included that are being raised again."""
        return len(self._seats)

    @property
    def ready(self) -> Ready:
        """What a seat is ready for: the device and the baselines' times."""
        return self._seats.ready

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
        awaited = [*self._flights, *self._seats.rising]
        if not awaited:
            return []
        ready, _ = ray.wait(awaited, num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0)
        done: list[Done] = []
        for ref in ready:
            if ref in self._seats.rising:
                self._seats.answered(ref)
            elif (finished := self._land(ref)) is not None:
                done.append(finished)
        done += self._stop_overdue()
        self._seats.stop_overdue()
        self._seats.stand_by()
        self._dispatch()
        return done

    def turn_to(self, case: Any) -> None:
        """Serve another case of the same workload from now on. Raises: InputError when a seat cannot."""
        self._seats.turn_to(case)

    def contest(
        self, entries: Sequence[tuple[Variant, Built]], rounds: int, sanitized: bool = False
    ) -> Contest | Rejected:
        """Promotion's timing on the first seat, alone. Raises: WorkersLost when no seat is left."""
        while not self._seats.handles and self._seats.rising:
            self.wait(1.0)
        if not self._seats.handles:
            raise WorkersLost("no worker is left")
        seat = self._seats.handles[0]
        try:
            answer: Contest | Rejected = ray.get(
                seat.actor.contest.remote(list(entries), rounds, sanitized), timeout=_CONTEST_S
            )
        except ray.exceptions.RayError as error:
            self._seats.replace(seat)
            return Rejected(Stage.CRASH, "worker_lost", first_line(error))
        return answer

    def close(self) -> None:
        """End every process of the fleet; a Ray started here goes with its folder."""
        if self._cluster.connected or self._seats.handles:
            self._seats.close()
            for ref, flight in self._flights.items():
                if flight.kind == "build":
                    with contextlib.suppress(ray.exceptions.RayError):
                        ray.cancel(ref, force=True)
        self._flights = {}
        self._cluster.leave()

    def _start(self) -> None:
        count = self._seats.count()
        self.builders = self.builders or max(1, int(ray.cluster_resources().get("CPU", 2)) - count)
        warm = [ray.remote(_warm).options(num_cpus=1).remote(self.spec.target) for _ in range(self.builders)]
        self._seats.raise_all(count)
        ray.wait(warm, num_returns=len(warm), timeout=60)

    def _dispatch(self) -> None:
        """Give builders and seats what waits, no more than they can hold: a time limit runs from here."""
        while self._to_build and self._building < max(1, self.builders):
            flight = self._to_build.popleft()
            flight.submitted_at = time.time()
            flight.ref = self._builder.remote(flight.variant, self.build_s)
            self._flights[flight.ref] = flight
            self._building += 1
        while self._to_run and self._seats.handles:
            seat = min(self._seats.handles, key=lambda s: len(s.queue))
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
            timed: Timed = ray.get(ref)
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
            self._seats.replace(flight.seat)  # type: ignore[arg-type]
            self._to_run.extendleft(reversed(innocent))
        flight.lost += 1
        flight.lost_at = time.time()
        flight.seat = None
        if flight.lost < _LOSSES:
            (self._to_build if flight.kind == "build" else self._to_run).append(flight)
            return None
        rejected = Rejected(Stage.CRASH, "worker_lost", f"{flight.lost} workers were lost with it: {words}")
        return Done(flight.number, flight.kind, rejected, "", flight.submitted_at, time.time())

    def _stop_overdue(self) -> list[Done]:
        now = time.time()
        done = []
        for ref, flight in list(self._flights.items()):
            if flight.kind == "build" and now - flight.submitted_at > self.build_s + _GRACE_S:
                ray.cancel(ref, force=True)
                self._take_off(ref)
                rejected = Rejected(Stage.TIMEOUT, "build", f"the compiler was stopped after {self.build_s:g} s")
                done.append(Done(flight.number, "build", rejected, "", flight.submitted_at, now))
        return done
