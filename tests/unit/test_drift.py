"""A measurement beside an anchor that is not itself is repeated once, and says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from evo.evaluate import Bench
from evo.floor import Floor
from evo.measure import Timing
from evo.outcome import Built, Measured, Rejected, Resources, Stage, Verified
from evo.targets import DeviceFacts

BUILT = Built("key", b"", "hash", Resources(), "", 0.0)


class Watch:
    """A contender that takes the target's word for its time."""

    def __init__(self, name: str) -> None:
        self.name, self.launches = name, 1


class ClockworkTarget:
    """A device whose speed is scripted: one factor per measurement, which every time in it is multiplied by."""

    name = "host"

    def __init__(self, factors: Sequence[float]) -> None:
        self.factors, self.current = deque(factors), 1.0

    def load(self, built: Built, variant: Any, workload: Any) -> ClockworkTarget:
        return self

    def stopwatch(self, case: Any, inputs: Any, launches: int) -> Watch:
        self.current = self.factors.popleft()  # a new measurement begins
        return Watch("variant")

    def time(self, watches: Sequence[Watch], order: Sequence[int]) -> list[float]:
        return [{"variant": 10.0, "anchor": 20.0}[watches[index].name] * self.current for index in order]

    def environment(self) -> dict[str, Any]:
        return {"sm_mhz": 1980}

    def facts(self) -> DeviceFacts:
        return DeviceFacts("clockwork", "x")


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Outcomes of one evaluation after the other on a device with this script."""
    monkeypatch.setattr("evo.evaluate.verify", lambda *_: Verified(BUILT, ()))

    def run(factors: Sequence[float], count: int, drift: float = 0.10) -> list[Measured | Rejected]:
        bench = object.__new__(Bench)
        target = ClockworkTarget(factors)
        bench.target, bench.timing = target, Timing(launches=1, sample_us=1.0, drift=drift)  # type: ignore[assignment]
        bench.workload, bench.case, bench.inputs, bench.oracle = Cases(), None, {}, None  # type: ignore[assignment]
        bench.anchor_name, bench._anchor = "torch", Watch("anchor")
        bench._seeds, bench._served, bench._floor = [1, 2], 0, Floor(0.0, "nothing")
        bench._anchor_medians = deque(maxlen=101)
        outcomes = [bench.evaluate(None, BUILT) for _ in range(count)]  # type: ignore[arg-type]
        assert not target.factors, "as many measurements as the script foresees"
        return outcomes

    return run


class Cases:
    def trial_cases(self, case: Any) -> list[Any]:
        return []


def _times(outcomes: Sequence[Any]) -> list[float]:
    return [round(outcome.time_us, 3) for outcome in outcomes]


def test_a_steady_device_is_measured_once(evaluated: Any) -> None:
    outcomes = evaluated([1.0, 1.01, 0.99, 1.0, 1.02, 1.05, 0.95], 7)
    assert all("repeated" not in outcome.environment for outcome in outcomes)


def test_a_throttled_measurement_is_repeated_and_noted(evaluated: Any) -> None:
    outcomes = evaluated([1.0] * 5 + [1.3, 1.0] + [1.0], 7)
    assert _times(outcomes) == [10.0] * 7
    assert outcomes[5].environment["repeated"] == "anchor was +30 % off, now +0 %"
    assert outcomes[5].environment["sm_mhz"] == 1980
    assert "repeated" not in outcomes[6].environment


def test_it_is_repeated_once_only_and_what_lasts_becomes_usual(evaluated: Any) -> None:
    outcomes = evaluated([1.0] * 5 + [0.8, 0.8] * 5 + [0.8, 0.8] + [0.8], 12)
    assert _times(outcomes)[5:] == [8.0] * 7
    assert "now -20 %" in outcomes[5].environment["repeated"]
    assert "repeated" not in outcomes[-1].environment


def test_too_few_measurements_say_nothing(evaluated: Any) -> None:
    outcomes = evaluated([1.0, 2.0, 1.0, 2.0, 1.0], 5)
    assert all("repeated" not in outcome.environment for outcome in outcomes)


def test_another_case_has_another_usual_time() -> None:
    bench = object.__new__(Bench)
    bench.case, bench._floor, bench._anchor, bench.anchor_name, bench.device = "one", None, None, "torch", "cpu"
    bench.workload = type("Inputs", (), {"inputs": lambda *_: {}})()  # type: ignore[assignment]
    bench._anchor_medians = deque([20.0] * 9)
    bench.turn_to("two")
    assert not bench._anchor_medians


def test_a_kernel_that_stops_working_once_it_is_timed_earns_no_time(
    evaluated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = deque([Verified(BUILT, ()), Rejected(Stage.VERIFY, "wrong_output", "case tiny")])
    monkeypatch.setattr("evo.evaluate.verify", lambda *_: verdicts.popleft())
    (outcome,) = evaluated([1.0], 1)
    assert outcome == Rejected(Stage.VERIFY, "wrong_output", "after it was timed: case tiny")


def test_a_contest_crowns_neither_what_stops_working_nor_what_is_too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"fast": (0.5, 0.5), "lazy": (5.0, 5.0), "good": (6.0, 6.0), "baseline:torch": (9.0, 9.0)}
    bench = object.__new__(Bench)
    bench.target, bench.device, bench.case, bench.inputs = ClockworkTarget([]), "cpu", None, {}  # type: ignore[assignment]
    bench.workload = type("None", (), {"baselines": lambda *_: {}})()  # type: ignore[assignment]
    bench._floor = Floor(1.0, "arithmetic at peak")
    monkeypatch.setattr(Bench, "verify_fully", lambda *_: Verified(BUILT, ()))
    monkeypatch.setattr(Bench, "_timed", lambda *_: dict(times))
    stopped = Rejected(Stage.VERIFY, "wrong_output")
    wrong = iter([None, stopped, None])
    monkeypatch.setattr(Bench, "_wrong_by_now", lambda *_: next(wrong))
    entries = [(type("V", (), {"key": key})(), BUILT) for key in ("fast", "lazy", "good")]
    contest = bench.contest(entries)  # type: ignore[arg-type]
    assert set(contest.warm_us) == {"good", "baseline:torch"}
    assert contest.rejected["fast"].reason == "below_physical_floor"
    assert contest.rejected["lazy"] is stopped
