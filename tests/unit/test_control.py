"""The random control arm: its share, its trials, and what is said of evolution by them."""

from __future__ import annotations

import math

import pytest

from evo.arms import compare_arms
from evo.outcome import Measured
from evo.search import make_proposer
from evo.search.control import with_control
from evo.space import Knob, SearchSpace


def space() -> SearchSpace:
    return SearchSpace([Knob(f"k{i}", (1, 2, 4, 8, 16)) for i in range(5)])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_control_arm_gets_its_share_evenly_spread(batch: int) -> None:
    proposer = with_control(make_proposer("evo-free", space(), 0), 0.2, 0)
    operators = []
    while len(operators) < 48:
        for configuration in proposer.ask(batch):
            operators.append(proposer.origin(configuration).operator)
            proposer.tell(configuration, Measured((float(sum(configuration.indices)) + 1,)))
    assert [i for i, o in enumerate(operators[:48]) if o == "control"] == list(range(4, 48, 5))


def test_both_arms_learn_what_either_found() -> None:
    proposer = with_control(make_proposer("evo-free", space(), 0), 0.5, 0)
    for configuration in proposer.ask(10):
        proposer.tell(configuration, Measured((1.0,)))
    assert len(proposer.proposer.history.trials) == len(proposer.control.history.trials) == 10
    assert not proposer.proposer.history.in_flight
    assert not proposer.control.history.in_flight


def rows(control: list[float], evolved: list[float]) -> list[tuple[str, float | None]]:
    return [("default", 0.1), *(("control", t) for t in control), *(("child", t) for t in evolved)]


def test_the_arms_are_compared_at_equal_budget() -> None:
    arms = compare_arms(rows([10.0 + i for i in range(10)], [9.0, 8.0, *[7.0] * 8, 1.0]))
    assert arms is not None
    assert (arms.trials, arms.evolved, arms.random_us, arms.first_us, arms.evolved_us) == (10, 11, 10.0, 7.0, 1.0)
    assert arms.verdict == "evolution helped"
    assert "10 trials each, evolution's first found 7 us and the random arm 10 us" in arms.sentence


def test_where_random_search_does_as_well_it_is_said() -> None:
    times = [10.0 + i for i in range(20)]
    alike, worse = compare_arms(rows(times, times)), compare_arms(rows(times, [50.0] * 40))
    assert alike is not None
    assert alike.share_faster == pytest.approx(0.5, abs=0.05)
    assert "cannot be told" in alike.sentence
    assert worse is not None
    assert "evolution did not help" in worse.sentence


def test_failures_are_trials_that_found_nothing_and_few_trials_say_nothing() -> None:
    arms = compare_arms([("control", None)] * 6 + [("child", 5.0)] * 6)
    assert arms is not None
    assert arms.random_us is None
    assert math.isclose(arms.share_faster, 1.0)
    assert "nothing that ran" in arms.sentence
    few = compare_arms([("control", 1.0)] * 3 + [("child", 5.0)] * 12)
    assert few is not None
    assert "cannot be told from 3 random trials" in few.sentence
    assert compare_arms([("child", 5.0)]) is None
