"""The fleet's seats: one per GPU or one for the host, those that are raised again, and what stands by for a loss.

A seat is an actor under Ray (`evo.seat` on its node). When one is lost another takes its place: on the same machine it
finds the nursery that the lost one left there; for the loss of a whole machine one on another machine stands by, with a
nursery that has imported everything.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evo.cluster import first_line, seats_of
from evo.errors import InputError, WorkersLost
from evo.nursery import Nursery
from evo.outcome import Built, Contest, Rejected
from evo.seat import Ready, Seat, WorkerSpec
from evo.variant import Variant

RAISES = 4  # tries to raise a lost seat again
_GRACE_S = 15.0  # beyond the time limit of a start, for Ray to start the actor and to answer
_LOOK_S = 10.0  # between looks for a machine that could stand by
_NURSERY_BYTES = 2 * 2**30  # that Ray has on a machine, at least, for a nursery to wait there


@dataclass(slots=True)
class Timed:
    """What a task of the fleet answers: the outcome, who had it and when, seconds since the epoch."""

    value: Any
    worker: str
    started_at: float
    ended_at: float
    recovery_s: float = 0.0


class _Risen(NamedTuple):
    """A seat's first word."""

    ready: Ready
    host: str
    pid: int  # of the worker in use
    node: str  # Ray's id of it


class _SeatActor:
    """The seat on its node; Ray gives it its GPU alone. Until it rises it is a process that waits, no more."""

    _seat: Seat | None = None
    _nursery: Nursery | None = None

    def prepare(self, target: str, place: str) -> None:
        """Have a nursery import all that workers need, for the day on which this one rises."""
        self._nursery = Nursery(target, place)

    def rise(self, spec: WorkerSpec, place: str) -> _Risen:
        self._seat = Seat(spec, place=place, nursery=self._nursery)
        return _Risen(*self._seat.about(), ray.get_runtime_context().get_node_id())

    def evaluate(self, variant: Variant, built: Built, best_us: float | None) -> Timed:
        assert self._seat is not None
        started = time.time()
        outcome = self._seat.evaluate(variant, built, best_us)
        ended = time.time() - self._seat.recovery_s
        return Timed(outcome, socket.gethostname(), started, ended, self._seat.recovery_s)

    def contest(self, entries: Sequence[tuple[Variant, Built]], rounds: int, sanitized: bool) -> Contest | Rejected:
        assert self._seat is not None
        return self._seat.contest(entries, rounds, sanitized)

    def turn_to(self, case: Any) -> Ready:
        assert self._seat is not None
        return self._seat.turn_to(case)

    def close(self) -> None:
        if self._seat is not None:
            self._seat.close()
        elif self._nursery is not None:
            self._nursery.close()


@dataclass(slots=True, eq=False)
class SeatHandle:
    """A seat's actor as the driver sees it; it works its queue in order."""

    actor: Any
    name: str
    place: str  # by which the next actor finds what this one leaves behind when it is lost
    node: str
    queue: list[Any] = field(default_factory=list)  # what the fleet has handed to it


@dataclass(slots=True)
class _Rising:
    """A seat's actor that has not answered yet."""

    actor: Any
    place: str
    since: float
    tries: int


@dataclass(slots=True)
class Seats:
    """The seats that serve, `handles`, and those on their way, `rising` by the reference that Ray answers under."""

    spec: WorkerSpec
    gpu_type: str | None = None
    ready: Ready = field(init=False)
    handles: list[SeatHandle] = field(init=False, default_factory=list)
    rising: dict[Any, _Rising] = field(init=False, default_factory=dict)
    options: dict[str, Any] = field(init=False, default_factory=dict)  # what each asks of Ray
    _beside: Any = field(init=False, default=None)  # an actor on the seat's own machine that waits for its loss
    _elsewhere: tuple[Any, str] | None = field(init=False, default=None)  # one on another machine, and its place
    _looked_at: float = field(init=False, default=0.0)

    def __len__(self) -> int:
        """Seats, those included that are being raised again."""
        return len(self.handles) + len(self.rising)

    def count(self) -> int:
        """Seats that the cluster has room for. Raises: InputError when it has none."""
        count, self.options = seats_of(self.spec.target, self.gpu_type)
        return count

    def raise_all(self, count: int) -> None:
        """Raises: InputError when none comes up, or when their devices are not of one kind."""
        places = [secrets.token_hex(8) for _ in range(count)]
        actors = [self._new_actor() for _ in places]
        risen = [actor.rise.remote(self.spec, place) for actor, place in zip(actors, places, strict=True)]
        problems: list[str] = []
        kinds: dict[str, Ready] = {}
        for actor, place, ref in zip(actors, places, risen, strict=True):
            try:
                found: _Risen = ray.get(ref, timeout=self.spec.start_s + 60)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, InputError) else None
                problems.append(str(cause) if cause else first_line(error))
            except ray.exceptions.RayError as error:
                problems.append(first_line(error))
            else:
                kinds.setdefault(_kind(found.ready), found.ready)
                self.handles.append(SeatHandle(actor, f"{found.host}:{found.pid}", place, found.node))
        if not self.handles:
            raise InputError(problems[0] if problems else "no worker came up")
        if len(kinds) > 1:
            raise InputError(f"the workers are of {len(kinds)} kinds, {'; '.join(kinds)}: choose one with --gpu-type")
        (self.ready,) = kinds.values()
        self.stand_by()

    def replace(self, handle: SeatHandle) -> None:
        """Raise a seat again whose actor is lost; the search goes on meanwhile."""
        if handle in self.handles:
            self.handles.remove(handle)
            _kill(handle.actor)
            self._raise(handle.place, tries=1)

    def answered(self, ref: Any) -> None:
        """A rising seat has come up or not. Raises: WorkersLost when none is left and none comes back."""
        rising = self.rising.pop(ref)
        try:
            found: _Risen = ray.get(ref)
        except ray.exceptions.RayError as error:
            self._failed(rising, first_line(error))
            return
        if _kind(found.ready) != _kind(self.ready):
            self._failed(rising, f"{found.host} is of another kind: {_kind(found.ready)}")
            return
        self.handles.append(SeatHandle(rising.actor, f"{found.host}:{found.pid}", rising.place, found.node))
        self.stand_by()

    def stop_overdue(self) -> None:
        """Give up those that do not rise in time. Raises: WorkersLost."""
        for ref, rising in list(self.rising.items()):
            if time.time() - rising.since > self.spec.start_s + _GRACE_S:
                del self.rising[ref]
                self._failed(rising, f"no answer within {self.spec.start_s:g} s")

    def turn_to(self, case: Any) -> None:
        """Raises: InputError when a seat cannot."""
        self.spec = replace(self.spec, case=case)
        try:
            self.ready = ray.get([handle.actor.turn_to.remote(case) for handle in self.handles])[0]
        except ray.exceptions.RayTaskError as error:
            raise InputError(first_line(error)) from None

    def stand_by(self) -> None:
        """Have one process wait beside the seat, as starting one takes long where cores are few, and one on another
        machine, with its imports done, if there is one and it has the memory.

        Not for GPUs: Ray gives a process its GPU when it starts, and a machine's GPUs are gone with it.
        """
        if "num_gpus" in self.options or not self.handles:
            return
        node = self.handles[0].node
        if self._beside is None:
            self._beside = self._new_actor(num_cpus=0, **_on(node))
        if self._elsewhere is None and time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            if other := _another_node(node):
                actor, place = self._new_actor(num_cpus=0, **_on(other)), secrets.token_hex(8)
                actor.prepare.remote(self.spec.target, place)
                self._elsewhere = actor, place

    def close(self) -> None:
        """End every process of the seats, and of those to come."""
        standing = [actor for actor in (self._beside, self._elsewhere and self._elsewhere[0]) if actor is not None]
        serving = [handle.actor for handle in self.handles]
        for actor in [*serving, *standing]:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(actor.close.remote(), timeout=10)
        for actor in [*serving, *standing, *(rising.actor for rising in self.rising.values())]:
            _kill(actor)
        self.handles, self.rising, self._beside, self._elsewhere = [], {}, None, None

    def _new_actor(self, **changes: Any) -> Any:
        return ray.remote(_SeatActor).options(max_restarts=0, **{**self.options, **changes}).remote()

    def _raise(self, place: str, tries: int) -> None:
        """First where the lost one was, with what it left there; then on another machine; then wherever Ray will."""
        if tries == 1 and self._beside is not None:
            actor, self._beside = self._beside, None
        elif tries > 1 and self._elsewhere is not None:
            (actor, place), self._elsewhere = self._elsewhere, None
        else:
            actor = self._new_actor()
        self.rising[actor.rise.remote(self.spec, place)] = _Rising(actor, place, time.time(), tries)

    def _failed(self, rising: _Rising, words: str) -> None:
        """Try again, or do with the seats that are left. Raises: WorkersLost when there is none."""
        _kill(rising.actor)
        if rising.tries < RAISES:
            self._raise(rising.place, rising.tries + 1)
        elif not self.handles and not self.rising:
            raise WorkersLost(f"the last worker was lost and none came back: {words}")


def _kind(ready: Ready) -> str:
    """What must not differ among the workers of one search: times are compared, binaries handed on."""
    return f"{ready.facts.name} with {ready.toolchain}"


def _kill(actor: Any) -> None:
    with contextlib.suppress(ray.exceptions.RayError, ValueError):
        ray.kill(actor)


def _on(node: str) -> dict[str, Any]:
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _another_node(node: str) -> str | None:
    """Ray's id of a living machine other than this one that has a CPU and memory for a seat."""
    for other in ray.nodes():
        resources = other["Resources"]
        roomy = resources.get("CPU", 0) >= 1 and resources.get("memory", 0) >= _NURSERY_BYTES
        if other["Alive"] and other["NodeID"] != node and roomy:
            return str(other["NodeID"])
    return None
