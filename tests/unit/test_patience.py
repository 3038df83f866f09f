"""Patience: when a search ends because nothing that is still to be expected stands out of the noise."""

from __future__ import annotations

import random

import pytest

from evo.outcome import Measured, Rejected, Stage
from evo.patience import LEAST_FLOOR, Patience


def measured(time_us: float, noise: float = 0.0, seed: int = 0) -> Measured:
    rng = random.Random(seed)
    samples = tuple(time_us * (1 + noise * rng.gauss(0, 1)) for _ in range(25))
    return Measured(samples, tuple(100 * (1 + noise * rng.gauss(0, 1)) for _ in range(25)))


def test_a_proposer_without_a_model_is_stopped_by_evaluations_without_improvement() -> None:
    patience = Patience(10)
    for step in range(30):
        patience.note(measured(100.0 - step))
    assert patience.reason == ""
    for _ in range(9):
        patience.note(measured(95.0))
    assert patience.reason == ""
    patience.note(Rejected(Stage.BUILD, "spills"))
    assert patience.reason == "patience spent: no improvement above the noise floor of 0.1 % in 10 evaluations"


def test_improvements_below_the_floor_do_not_count_until_they_add_up() -> None:
    patience = Patience(20)
    for step in range(12):
        patience.note(measured(100.0 * (1 - 0.0004) ** step))
    assert patience.waited <= 2


def test_what_the_model_expects_keeps_a_search_alive() -> None:
    patience = Patience(5)
    for _ in range(50):
        patience.note(measured(100.0), expected_gain=0.02)
    assert patience.reason == ""
    for _ in range(5):
        patience.note(measured(100.0), expected_gain=0.0004)
    assert patience.reason.endswith("and the best untried candidate promised 0.04 % at the most")


def test_the_floor_is_the_spread_of_what_was_measured() -> None:
    quiet, loud, drifting = Patience(5), Patience(5), Patience(5)
    for seed in range(40):
        quiet.note(measured(50.0, 0.0001, seed))
        loud.note(measured(50.0, 0.05, seed))
        drift = 1 + 0.03 * random.Random(seed).gauss(0, 1)
        drifting.note(Measured((50.0,) * 25, (100.0 * drift,) * 25))
    assert quiet.floor == LEAST_FLOOR
    assert loud.floor == pytest.approx(0.05 * 1.2533 / 5, rel=0.35)
    assert drifting.floor == pytest.approx(0.03, rel=0.4)


def test_a_search_where_nothing_ran_yet_goes_on() -> None:
    patience = Patience(3)
    for _ in range(20):
        patience.note(Rejected(Stage.BUILD, "spills"))
    assert patience.reason == ""
