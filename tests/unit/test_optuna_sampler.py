"""EvoSampler inside Optuna: two lines, any distribution, both directions, failures."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from evo.search import EvoSampler
from evo.search.optuna_sampler import grid

optuna.logging.set_verbosity(optuna.logging.WARNING)


def objective(trial: Any) -> float:
    x = trial.suggest_float("x", -4.0, 4.0)
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    tile = trial.suggest_categorical("tile", [16, 32, 64])
    name = trial.suggest_categorical("name", ["a", "b"])
    n = trial.suggest_int("n", 1, 9, step=2)
    if n == 9:
        raise ValueError("does not build")
    return float((x - 1) ** 2 + abs(lr - 1e-2) * 10 + abs(tile - 32) / 16 + (name == "a") + abs(n - 5))


def best(sampler: Any, direction: str = "minimize", trials: int = 80) -> float:
    study = optuna.create_study(sampler=sampler, direction=direction)
    sign = 1 if direction == "minimize" else -1
    study.optimize(lambda t: sign * objective(t), n_trials=trials, catch=(ValueError,))
    return float(sign * study.best_value)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_beats_random_in_either_direction(direction: str) -> None:
    evo = sorted(best(EvoSampler(seed=s), direction) for s in range(3))[1]
    random = sorted(best(optuna.samplers.RandomSampler(seed=s), direction) for s in range(3))[1]
    assert evo < random


def test_it_is_seeded() -> None:
    assert best(EvoSampler(seed=4), trials=30) == best(EvoSampler(seed=4), trials=30)


def test_what_may_not_be_tried_is_not() -> None:
    study = optuna.create_study(sampler=EvoSampler(seed=0, admissible=lambda p: p["a"] + p["b"] <= 6))
    study.optimize(lambda t: -t.suggest_int("a", 0, 9) - t.suggest_int("b", 0, 9), n_trials=25)
    assert all(t.params["a"] + t.params["b"] <= 6 for t in study.trials[1:])


def test_a_study_may_outlast_its_space() -> None:
    study = optuna.create_study(sampler=EvoSampler(seed=0))
    study.optimize(lambda t: t.suggest_int("a", 0, 3), n_trials=10)
    assert study.best_value == 0


def test_several_objectives_are_refused() -> None:
    study = optuna.create_study(sampler=EvoSampler(seed=0), directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="one objective"):
        study.optimize(lambda t: (t.suggest_int("a", 0, 3), 1), n_trials=3)


def test_grids_stay_inside_their_ranges() -> None:
    kinds = optuna.distributions
    for d in (
        kinds.IntDistribution(1, 1000),
        kinds.IntDistribution(1, 10**6, log=True),
        kinds.IntDistribution(3, 300, step=3),
        kinds.FloatDistribution(0.0, 1.0),
        kinds.FloatDistribution(1e-5, 1.0, log=True),
        kinds.FloatDistribution(0.0, 1.0, step=0.25),
        kinds.FloatDistribution(0.0, 1.0, step=0.001),
    ):
        values = grid(d)
        assert values == sorted(set(values))
        assert len(values) <= 65
        assert all(d._contains(d.to_internal_repr(v)) for v in values)
