"""The fleet: builders on CPUs and one exclusive seat per GPU, all under Ray. The only code that imports ray.

The driver hands in builds and runs and takes finished ones, in any order; nothing here waits for a generation. What can
die, dies here without taking the search along: a builder that crashes or never ends, a seat whose node goes away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import ray.exceptions

from evo.errors import InputError
from evo.evaluate import Contest
from evo.outcome import Built, Done, Rejected, Stage
from evo.targets import build
from evo.variant import Variant
from evo.worker import Ready, Seat, WorkerSpec

_DEPTH = 2  # runs queued per seat: one at work, one waiting, so that the device is never idle for the driver's sake


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
    lost: int = 0  # times that its worker was lost under it


@dataclass(slots=True)
class _SeatHandle:
    """A seat's actor as the driver sees it."""

    actor: Any
    name: str
    flying: int = 0


@dataclass(slots=True)
class _Timed:
    value: Any
    worker: str
    started_at: float
    ended_at: float


def _build(variant: Variant) -> _Timed:
    started = time.time()
    return _Timed(build(variant), f"builder {socket.gethostname()}:{os.getpid()}", started, time.time())


def _warm(target: str) -> None:
    """Start a builder's process and load its compiler while the seats come up."""
    if target == "cuda":
        from evo.targets import nvrtc

        nvrtc.toolchain()
    time.sleep(0.5)  # hold this process, so that the next one warms another


class _SeatActor:
    """The seat on its node; Ray gives it its GPU alone."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._seat = Seat(spec)

    def about(self) -> tuple[Ready, str, int]:
        return self._seat.about()

    def evaluate(self, variant: Variant, built: Built, best_us: float | None) -> _Timed:
        started = time.time()
        outcome = self._seat.evaluate(variant, built, best_us)
        _, host, _ = self._seat.about()
        return _Timed(outcome, host, started, time.time())

    def contest(self, entries: Sequence[tuple[Variant, Built]], rounds: int) -> Contest | Rejected:
        return self._seat.contest(entries, rounds)

    def turn_to(self, case: Any) -> Ready:
        return self._seat.turn_to(case)

    def close(self) -> None:
        self._seat.close()


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
    ready: Ready = field(init=False)
    _seats: list[_SeatHandle] = field(init=False, default_factory=list)
    _flights: dict[Any, _Flight] = field(init=False, default_factory=dict)
    _waiting: deque[_Flight] = field(init=False, default_factory=deque)
    _started_ray: bool = field(init=False, default=False)
    _options: dict[str, Any] = field(init=False, default_factory=dict)

    def __enter__(self) -> Fleet:
        self._join()
        try:
            self._raise_seats()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seats(self) -> int:
        return len(self._seats)

    def building(self) -> int:
        return sum(flight.kind == "build" for flight in self._flights.values())

    def running(self) -> int:
        """Runs under way or waiting for a seat."""
        return len(self._flights) - self.building() + len(self._waiting)

    def submit_build(self, number: int, variant: Variant) -> None:
        self._start(_Flight(number, "build", variant, None, None, time.time()))

    def submit_run(self, number: int, variant: Variant, built: Built, best_us: float | None) -> None:
        self._waiting.append(_Flight(number, "run", variant, built, best_us, time.time()))
        self._dispatch()

    def wait(self, timeout_s: float) -> list[Done]:
        """What has finished, waiting up to `timeout_s` for the first. Overdue builds are stopped here."""
        if not self._flights:
            return []
        ready, _ = ray.wait(list(self._flights), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(list(self._flights), num_returns=len(self._flights), timeout=0)
        done = [finished for ref in ready if (finished := self._land(ref)) is not None]
        done += self._stop_overdue()
        self._dispatch()
        return done

    def turn_to(self, case: Any) -> None:
        """Serve another case of the same workload from now on. Raises: InputError when a seat cannot."""
        self.spec = replace(self.spec, case=case)
        try:
            self.ready = ray.get([seat.actor.turn_to.remote(case) for seat in self._seats])[0]
        except ray.exceptions.RayTaskError as error:
            raise InputError(_first_line(error)) from None

    def contest(self, entries: Sequence[tuple[Variant, Built]], rounds: int) -> Contest | Rejected:
        """Promotion's timing on the first seat, alone. Raises: InputError when no seat answers."""
        if not self._seats:
            raise InputError("no worker is left")
        try:
            answer: Contest | Rejected = ray.get(
                self._seats[0].actor.contest.remote(list(entries), rounds), timeout=self.spec.contest_s + 60
            )
        except ray.exceptions.RayError as error:
            return Rejected(Stage.CRASH, "worker_lost", _first_line(error))
        return answer

    def close(self) -> None:
        for seat in self._seats:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(seat.actor.close.remote(), timeout=10)
            ray.kill(seat.actor)
        self._seats = []
        for ref, flight in self._flights.items():
            if flight.kind == "build":
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.cancel(ref, force=True)
        self._flights.clear()
        if self._started_ray:
            ray.shutdown()

    def _join(self) -> None:
        if ray.is_initialized():
            return
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self.address:
                ray.init(address=self.address, **quiet)
            else:
                ray.init(include_dashboard=False, num_cpus=max(2, os.cpu_count() or 2), **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--ray-address {self.address or 'local'}: Ray does not answer: {_first_line(error)}"
            ) from None
        self._started_ray = True

    def _raise_seats(self) -> None:
        resources = ray.cluster_resources()
        count = 1
        options: dict[str, Any] = {"num_cpus": 1}
        if self.spec.target == "cuda":
            options = {"num_cpus": 1, "num_gpus": 1}
            count = int(resources.get("GPU", 0))
            if self.gpu_type:
                kinds = sorted(name.split(":", 1)[1] for name in resources if name.startswith("accelerator_type:"))
                if self.gpu_type not in kinds:
                    raise InputError(f"--gpu-type {self.gpu_type}: expected one of {', '.join(kinds) or 'none here'}")
                options["accelerator_type"] = self.gpu_type
                count = sum(
                    int(node["Resources"].get("GPU", 0))
                    for node in ray.nodes()
                    if node["Alive"] and f"accelerator_type:{self.gpu_type}" in node["Resources"]
                )
            if count == 0:
                raise InputError("no GPU in this Ray cluster; --target host or replay works without one")
        self._options = options
        self.builders = self.builders or max(1, int(resources.get("CPU", 2)) - count)
        warm = [ray.remote(_warm).options(num_cpus=1).remote(self.spec.target) for _ in range(self.builders)]
        actors = [self._new_actor() for _ in range(count)]
        problems: list[str] = []
        for actor in actors:
            try:
                ready, host, pid = ray.get(actor.about.remote(), timeout=self.spec.start_s + 60)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, InputError) else None
                problems.append(str(cause) if cause else _first_line(error))
            except ray.exceptions.RayError as error:
                problems.append(_first_line(error))
            else:
                self.ready = ready
                self._seats.append(_SeatHandle(actor, f"{host}:{pid}"))
        if not self._seats:
            raise InputError(problems[0] if problems else "no worker came up")
        ray.wait(warm, num_returns=len(warm), timeout=60)

    def _new_actor(self) -> Any:
        return ray.remote(_SeatActor).options(max_restarts=0, **self._options).remote(self.spec)

    def _start(self, flight: _Flight) -> None:
        if flight.kind == "build":
            task = ray.remote(_build).options(num_cpus=1, max_retries=0)
            self._flights[task.remote(flight.variant)] = flight
            return
        seat = flight.seat
        assert seat is not None
        seat.flying += 1
        self._flights[seat.actor.evaluate.remote(flight.variant, flight.built, flight.best_us)] = flight

    def _dispatch(self) -> None:
        while self._waiting and self._seats:
            seat = min(self._seats, key=lambda s: s.flying)
            if seat.flying >= _DEPTH:
                return
            flight = self._waiting.popleft()
            flight.seat = seat
            self._start(flight)

    def _land(self, ref: Any) -> Done | None:
        """The outcome of a finished task; a worker lost under it costs one more try, then becomes the outcome."""
        flight = self._flights.pop(ref, None)
        if flight is None:
            return None
        if flight.seat is not None:
            flight.seat.flying -= 1
        now = time.time()
        try:
            timed: _Timed = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ray.exceptions.RayError) or flight.kind == "run":
                return self._lost(flight, _first_line(error))
            raise  # a bug of ours in the builder
        except ray.exceptions.RayError as error:
            return self._lost(flight, _first_line(error))
        started = timed.started_at or now
        return Done(flight.number, flight.kind, timed.value, timed.worker, started, timed.ended_at)

    def _lost(self, flight: _Flight, words: str) -> Done | None:
        flight.lost += 1
        if flight.seat is not None:
            self._replace(flight.seat)
            flight.seat = None
        if flight.lost < 2:
            if flight.kind == "build":
                self._start(flight)
            else:
                self._waiting.append(flight)
            return None
        rejected = Rejected(Stage.CRASH, "worker_lost", words)
        return Done(flight.number, flight.kind, rejected, "", flight.submitted_at, time.time())

    def _replace(self, seat: _SeatHandle) -> None:
        """A seat whose actor died is raised again, once for all the runs that it had."""
        if seat not in self._seats:
            return
        self._seats.remove(seat)
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.kill(seat.actor)
        actor = self._new_actor()
        try:
            _, host, pid = ray.get(actor.about.remote(), timeout=self.spec.start_s)
        except ray.exceptions.RayError as error:
            if not self._seats:
                raise InputError(f"the last worker was lost and none came back: {_first_line(error)}") from None
            return
        self._seats.append(_SeatHandle(actor, f"{host}:{pid}"))

    def _stop_overdue(self) -> list[Done]:
        now = time.time()
        done = []
        for ref, flight in list(self._flights.items()):
            if flight.kind == "build" and now - flight.submitted_at > self.build_s:
                ray.cancel(ref, force=True)
                del self._flights[ref]
                rejected = Rejected(Stage.TIMEOUT, "build", f"the compiler was stopped after {self.build_s:g} s")
                done.append(Done(flight.number, "build", rejected, "", flight.submitted_at, now))
        return done


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
