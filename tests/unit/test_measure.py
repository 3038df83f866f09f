"""The timing protocol: who is timed how often, and what is read off the samples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from evo.measure import Timing, gain_interval, interleave, measure, median_interval, sized_launches
from evo.outcome import Built, Measured, Rejected, Resources, Stage, Verified
from evo.targets import LaunchError

TIMING = Timing(launches=20, sample_us=100.0, first_look=4, rounds=10, longest_s=2.0)
VERIFIED = Verified(Built("key", b"", "hash", Resources(), "", 0.0), ())


@dataclass
class Watch:
    name: str
    time_us: float
    launches: int = 20


@dataclass
class Clock:
    """A target whose device keeps perfect time, and a diary of who was timed when."""

    diary: list[str] = field(default_factory=list)
    fails: LaunchError | None = None

    def time(self, watches: Sequence[Watch], order: Sequence[int]) -> list[float]:
        if self.fails:
            raise self.fails
        self.diary += [watches[index].name for index in order]
        return [watches[index].time_us for index in order]

    def environment(self) -> dict[str, Any]:
        return {"sm_mhz": 1980}


@dataclass
class Kernel:
    time_us: float
    asked: list[int] = field(default_factory=list)

    def stopwatch(self, case: Any, sets: Any, launches: int) -> Watch:
        self.asked.append(launches)
        return Watch("variant", self.time_us, launches)


def timed(clock: Clock, kernel: Kernel, best_us: float | None, anchor: Watch | None = None) -> Measured | Rejected:
    return measure(clock, kernel, VERIFIED, None, {}, anchor, timing=TIMING, best_us=best_us, anchor_name="flash")  # type: ignore[arg-type]


def test_a_contender_gets_every_round_and_a_slow_variant_only_the_first_look() -> None:
    anchor = Watch("anchor", 10.0)
    near = timed(Clock(), Kernel(5.0), best_us=4.8, anchor=anchor)
    far = timed(Clock(), Kernel(5.0), best_us=4.0, anchor=anchor)
    assert isinstance(near, Measured)
    assert isinstance(far, Measured)
    assert len(near.samples_us) == len(near.anchor_us) == TIMING.rounds
    assert len(far.samples_us) == len(far.anchor_us) == TIMING.first_look
    assert near.ratio == 2.0
    assert near.time_us == 5.0
    assert near.anchor == "flash"
    assert near.environment == {"sm_mhz": 1980}


def test_variant_and_anchor_take_turns_in_going_first() -> None:
    clock = Clock()
    timed(clock, Kernel(5.0), best_us=1.0, anchor=Watch("anchor", 10.0))
    pairs = clock.diary[2:]
    assert pairs == ["variant", "anchor", "anchor", "variant"] * 2


def test_without_anchor_there_is_no_ratio() -> None:
    measured = timed(Clock(), Kernel(5.0), best_us=None)
    assert isinstance(measured, Measured)
    assert measured.ratio is None


def test_a_long_kernel_is_not_timed_longer_than_allowed() -> None:
    measured = timed(Clock(), Kernel(400_000.0), best_us=None)
    assert isinstance(measured, Measured)
    assert len(measured.samples_us) == TIMING.first_look + 2


def test_launches_per_sample_follow_the_length_of_one_launch() -> None:
    assert sized_launches(5.0, 100.0) == 20
    assert sized_launches(1000.0, 100.0) == 1
    assert sized_launches(0.0, 100.0) == 64
    kernel = Kernel(1000.0)
    timed(Clock(), kernel, best_us=None)
    assert kernel.asked == [20, 1]


def test_a_refused_launch_is_an_outcome_and_a_lost_device_is_not() -> None:
    refused = timed(Clock(fails=LaunchError("too_many_threads", "words")), Kernel(5.0), best_us=None)
    assert refused == Rejected(Stage.MEASURE, "too_many_threads", "words")
    with pytest.raises(LaunchError):
        timed(Clock(fails=LaunchError("illegal_address", fatal=True)), Kernel(5.0), best_us=None)


def test_every_round_times_every_contender_once_in_changing_order() -> None:
    clock = Clock()
    watches = [Watch(name, us) for name, us in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    samples = interleave(clock, watches, 20, random.Random(0))  # type: ignore[arg-type]
    assert samples == [[1.0] * 20, [2.0] * 20, [3.0] * 20]
    rounds = [tuple(clock.diary[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3


def test_the_interval_holds_the_median_and_narrows_with_more_samples() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.normal(100, 5, 15), rng.normal(100, 5, 400)
    for samples in (few, many):
        interval = median_interval(samples)
        assert interval.low <= interval.median == np.median(samples) <= interval.high
    assert median_interval(many).high - median_interval(many).low < median_interval(few).high - median_interval(few).low
    assert median_interval([7.0]).low == median_interval([7.0]).high == 7.0


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        interval = median_interval(rng.lognormal(0, 0.1, 40), draws=300)
        hits += interval.low <= 1.0 <= interval.high
    assert hits >= 180


def test_a_drift_common_to_both_cancels_in_the_gain() -> None:
    drift = np.linspace(1.0, 2.0, 60)
    gain = gain_interval(list(5.0 * drift), list(10.0 * drift))
    assert gain.median == pytest.approx(2.0)
    assert 1.5 < gain.low <= 2.0 <= gain.high < 2.7
    apart = gain_interval([5.0] * 60, [10.0] * 60)
    assert (apart.low, apart.high) == (2.0, 2.0)


def test_unpaired_rounds_are_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="paired"):
        gain_interval([1.0, 2.0], [1.0])
