"""What a search does with its proofs: a dead knob or a mutant that survives ends it, and it says which."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evo.base import find_base
from evo.campaign import Binding
from evo.errors import InputError
from evo.outcome import Built, Done, Measured, Outcome, Rejected, Resources, Stage
from evo.preflight import check_knobs, prove_harness
from evo.prove import CONTROL
from evo.record import Record, open_record
from evo.seat import Ready
from evo.targets.host import HostTarget
from evo.variant import Variant
from evo.workloads import find_workload
from tests.synthetic import make_spec

WRONG = Rejected(Stage.VERIFY, "wrong_output", "case mission")


class Bench:
    """A fleet that builds everything, and whose verification lets the named kernels pass."""

    builders, seats = 2, 1

    def __init__(self, *passes: str, dead_knob: str = "") -> None:
        target = HostTarget()
        self.ready = Ready(target.facts(), {}, "", target.toolchain(), "")
        self.builds = 0
        self._passes, self._dead, self._done = passes, dead_knob, list[Done]()

    def building(self) -> int:
        return 0

    def running(self) -> int:
        return 0

    def submit_build(self, number: int, variant: Variant) -> None:
        self.builds += 1
        reaches = {name: value for name, value in variant.configuration.items() if name != self._dead}
        binary = hashlib.sha256(repr((sorted(variant.sources.items()), sorted(reaches.items()))).encode()).hexdigest()
        self._finish(number, Built(variant.key, binary.encode(), binary[:32], Resources(), "", 0.1))

    def submit_run(self, number: int, variant: Variant, built: Built, best_us: float | None) -> None:
        self._finish(number, Measured((10.0,)) if variant.base.removeprefix("cheat_") in self._passes else WRONG)

    def wait(self, timeout_s: float) -> list[Done]:
        done, self._done = self._done, []
        return done

    def _finish(self, number: int, outcome: Built | Outcome) -> None:
        self._done.append(Done(number, "build", outcome, "here", time.time(), time.time()))


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Record]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with open_record(tmp_path / "results.db") as opened:
        opened.start_campaign(make_spec())
        yield opened


def bound(fleet: Bench) -> Binding:
    base, case = find_base("cpu_attention"), find_workload("attention").case("tiny", dtype="float32")
    facts = fleet.ready.facts
    space = base.space({**facts.limits, **case.constants()})
    return Binding(base, space, space, case.constants(), facts.limits, facts.arch, fleet.ready.toolchain)


def test_the_kill_rate_is_stored_and_the_search_goes_on_when_all_are_killed(record: Record) -> None:
    fleet, said = Bench(CONTROL), list[str]()
    prove_harness(fleet, record, 1, bound(fleet), "host", said.append)
    rate = record.campaign(1).kill_rate
    assert rate is not None
    assert rate["rate"] == 1.0
    assert len(rate["killed"]) > 35
    assert rate["survived"] == {}
    assert said[-1].startswith(f"Verification stopped all {len(rate['killed'])} wrong kernels")
    again = Bench(CONTROL)
    prove_harness(again, record, 1, bound(again), "host", said.append)
    assert fleet.builds > 35
    assert again.builds == 0, "what was built is kept for the next search"


def test_a_mutant_that_survives_ends_the_search_by_name(record: Record) -> None:
    fleet = Bench(CONTROL, "missing_rescale")
    with pytest.raises(InputError, match=r"lets wrong kernels pass: missing_rescale \(passed\)"):
        prove_harness(fleet, record, 1, bound(fleet), "host", lambda _: None)
    rate = record.campaign(1).kill_rate
    assert rate is not None
    assert rate["survived"] == {"missing_rescale": "passed"}
    assert rate["rate"] < 1.0


def test_verification_that_stops_the_right_kernel_ends_the_search(record: Record) -> None:
    fleet = Bench()
    with pytest.raises(InputError, match="verification rejects a right kernel: verify: wrong_output"):
        prove_harness(fleet, record, 1, bound(fleet), "host", lambda _: None)


def test_a_dead_knob_ends_the_search_unless_it_is_allowed(record: Record) -> None:
    fleet = Bench(dead_knob="exp")
    with pytest.raises(InputError, match=r"cpu_attention.yaml: knobs.exp: no value changes the binary"):
        check_knobs(fleet, record, 1, bound(fleet), lambda _: None, allow_dead=False)
    check_knobs(fleet, record, 1, bound(fleet), lambda _: None, allow_dead=True)
    assert [event.text for event in record.events(1, "dead_knobs")] == ["exp", "exp"]


def test_live_knobs_are_looked_at_once(record: Record) -> None:
    first, again = Bench(), Bench()
    check_knobs(first, record, 1, bound(first), lambda _: None, allow_dead=False)
    check_knobs(again, record, 1, bound(again), lambda _: None, allow_dead=False)
    assert first.builds > 0
    assert again.builds == 0, "kept by content"
    assert record.events(1, "dead_knobs") == []
