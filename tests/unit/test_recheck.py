"""When a re-measured time is the recorded one."""

from __future__ import annotations

from evo.outcome import Measured, Rejected, Stage
from evo.recheck import _same_time

RECORDED = (10.0, 10.1, 9.9, 10.05, 9.95)


def measured(factor: float) -> Measured:
    return Measured(samples_us=tuple(factor * sample for sample in RECORDED))


def test_times_whose_intervals_overlap_are_the_same() -> None:
    assert _same_time(RECORDED, measured(1.004), within=0.0) is True


def test_a_time_further_off_than_allowed_does_not_reproduce() -> None:
    assert _same_time(RECORDED, measured(1.04), within=0.05) is True
    assert _same_time(RECORDED, measured(1.06), within=0.05) is False
    assert _same_time(RECORDED, measured(0.90), within=0.05) is False, "faster is not the same either"


def test_without_two_times_nothing_is_said() -> None:
    assert _same_time(RECORDED, Rejected(Stage.CRASH, "SIGSEGV"), within=0.05) is None
    assert _same_time((), measured(1.0), within=0.05) is None
