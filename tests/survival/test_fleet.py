"""The fleet and its seats lose processes; nothing that was handed to them is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from evo.errors import WorkersLost
from evo.fleet import Fleet
from evo.measure import Timing
from evo.outcome import Built, Done, Measured, Rejected, Stage
from evo.seat import Seat, WorkerSpec
from evo.workloads import find_workload
from tests.hostile.endless import cuda_variant, endless
from tests.hostile.kit import CASE, Kit, actor_of, nursery_of, parent_of

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.timeout(1200),  # of a busy machine; minutes are not needed
]
WORKLOAD = find_workload("attention")
QUICK = Timing(launches=1, sample_us=100.0, first_look=2, rounds=2)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("hostile"))


def _spec(**changes: Any) -> WorkerSpec:
    return WorkerSpec("host", "attention", CASE, QUICK, **{"evaluate_s": 20.0, **changes})


@pytest.fixture(scope="module")
def fleet(kit: Kit) -> Iterator[Fleet]:
    with Fleet(_spec(), builders=1, build_s=30.0) as fleet:
        yield fleet


def test_a_seat_replaces_what_kernels_kill_at_once_and_again(kit: Kit) -> None:
    seat = Seat(_spec(evaluate_s=6.0))
    try:
        for hostility, reason in (("crash", "SIGSEGV"), ("crash", "SIGSEGV"), ("stray", "SIGSEGV"), ("hang", "hang")):
            variant = kit.variant(hostility)
            outcome = seat.evaluate(variant, kit.built(variant), None)
            assert isinstance(outcome, Rejected)
            assert outcome.reason == reason
            assert 0 < seat.recovery_s < 10
        honest = kit.variant(serial=1)
        assert isinstance(seat.evaluate(honest, kit.built(honest), None), Measured)
        assert seat.recovery_s == 0
        guilty = kit.variant("killed")
        contest = seat.contest([(honest, kit.built(honest)), (guilty, kit.built(guilty))], 5)
        assert not isinstance(contest, Rejected), f"one finalist's crash does not end the promotion: {contest}"
        assert contest.rejected[guilty.key].reason == "SIGKILL"
        assert honest.key in contest.warm_us, contest.rejected
        alone = seat.contest([(guilty, kit.built(guilty))], 5)
        assert not isinstance(alone, Rejected), "nor does that of all: each has its verdict"
        assert alone.rejected[guilty.key].reason == "SIGKILL"
        assert alone.warm_us == {}
    finally:
        seat.close()


@pytest.mark.parametrize(
    ("rightly", "limits", "words"),
    [
        (0, {"verify_s": 2.0, "measure_s": 600.0}, "verification: no answer within 2 s"),
        (2 * len(WORKLOAD.trial_cases(CASE)), {"verify_s": 600.0, "measure_s": 2.0}, "timing: no answer within 2 s"),
    ],
)
def test_verification_and_timing_have_limits_of_their_own(
    kit: Kit, rightly: int, limits: dict[str, float], words: str
) -> None:
    """A kernel that answers `rightly` often, two seeds of each case being what verification asks, and then no more."""
    variant = kit.variant(serial=1)
    body = variant.sources[""]
    late = f"static int calls;\n  if (++calls > {rightly})\n    for (;;) sink = sink + 1;\n  misbehave<kHostility>();"
    variant = replace(variant, sources={**variant.sources, "": body.replace("misbehave<kHostility>();", late)})
    seat = Seat(_spec(**limits), spare=False)
    try:
        outcome = seat.evaluate(variant, kit.built(variant), None)
        assert isinstance(outcome, Rejected)
        assert (outcome.stage, outcome.reason, outcome.detail) == (Stage.TIMEOUT, "hang", words)
    finally:
        seat.close()


def test_a_seat_whose_nursery_is_killed_has_another(kit: Kit) -> None:
    seat = Seat(_spec())
    try:
        os.kill(seat._nursery.pid, signal.SIGKILL)
        honest = kit.variant(serial=1)
        lost = seat.evaluate(honest, kit.built(honest), None)
        assert isinstance(lost, Rejected)
        assert (lost.stage, lost.reason) == (Stage.CRASH, "worker_lost")
        assert isinstance(seat.evaluate(honest, kit.built(honest), None), Measured)
    finally:
        seat.close()


def test_what_waited_behind_a_killed_seat_is_not_blamed(fleet: Fleet, kit: Kit) -> None:
    fatal, innocent = kit.variant("hang"), kit.variant(serial=2)
    fleet.submit_run(1, fatal, kit.built(fatal), None)
    fleet.submit_run(2, innocent, kit.built(innocent), None)
    done: list[Done] = []
    nurseries = {nursery_of()}
    for _ in range(2):
        time.sleep(1.0)
        os.kill(actor_of(), signal.SIGKILL)
        seat, killed_at = fleet._seats.handles[0], time.monotonic()
        done += _until(fleet, lambda seat=seat: bool(fleet._seats.handles) and fleet._seats.handles[0] is not seat)
        assert time.monotonic() - killed_at < 10
        nurseries.add(nursery_of())
    assert len(nurseries) == 1, "what took seconds to import is used by the next seat"
    done += _until(fleet, lambda: fleet.running() == 0)
    fates = {finished.number: finished.result for finished in done}
    assert isinstance(fates[2], Measured)
    assert isinstance(fates[1], Rejected)
    assert (fates[1].stage, fates[1].reason) == (Stage.CRASH, "worker_lost")
    assert len(done) == 2, "each is one outcome"


def test_a_builder_killed_twice_is_one_rejection(fleet: Fleet, kit: Kit) -> None:
    fleet.submit_build(3, kit.variant("slow_compile"))
    done: list[Done] = []
    killed = 0
    deadline = time.monotonic() + 120
    while not done and time.monotonic() < deadline:
        done += fleet.wait(0.2)
        builder = _builder() if killed < 2 else None
        if builder is not None:
            os.kill(builder, signal.SIGKILL)
            killed += 1
    assert [(finished.number, getattr(finished.result, "reason", "")) for finished in done] == [(3, "worker_lost")]
    fleet.submit_build(4, kit.variant(serial=3))
    assert isinstance(_until(fleet, lambda: fleet.building() == 0)[0].result, Built)


def test_a_cuda_compilation_that_never_ends_is_one_rejection_and_its_builder_is_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVRTC compiles in the builder's own process, which is stopped with it."""
    monkeypatch.setattr(fleet, "build_s", 2.0)
    fleet.submit_build(6, endless())
    stopped = _until(fleet, lambda: fleet.building() == 0)
    assert [getattr(finished.result, "fate", "") for finished in stopped] == ["timeout: build"]
    monkeypatch.undo()
    stopped_at = time.monotonic()
    fleet.submit_build(7, cuda_variant())
    assert isinstance(_until(fleet, lambda: fleet.building() == 0)[0].result, Built)
    assert time.monotonic() - stopped_at < 10


def test_a_seat_that_cannot_be_raised_again_ends_the_search_with_one_line(
    fleet: Fleet, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last: it takes the fleet's only seat."""
    monkeypatch.setattr("evo.seats._GRACE_S", 1.0)
    ray.kill(fleet._seats._beside)
    fleet._seats.options = {"num_cpus": 1000}  # no node has so many: as if the only one with a GPU were gone
    fleet._seats.spec = _spec(start_s=0.1)
    variant = kit.variant("hang", serial=1)
    fleet.submit_run(5, variant, kit.built(variant), None)
    time.sleep(0.5)
    os.kill(actor_of(), signal.SIGKILL)
    with pytest.raises(WorkersLost, match="the last worker was lost and none came back"):
        _until(fleet, lambda: False, limit_s=120)


def _until(fleet: Fleet, condition: Any, limit_s: float = 90.0) -> list[Done]:
    done: list[Done] = []
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline:
        done += fleet.wait(0.2)
    return done


def _builder() -> int | None:
    """The process whose compiler is at work: the parent of the shells that guard it."""
    mark = f"EVO_FLEET={os.environ['EVO_FLEET']}".encode()
    guards = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"evo-build" in (path / "cmdline").read_bytes().split(b"\0") and mark in (path / "environ").read_bytes():
                guards.add(int(path.name))
    with contextlib.suppress(OSError):
        parents = {parent_of(guard) for guard in guards} - guards
        return next((pid for pid in parents if b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()), None)
    return None
