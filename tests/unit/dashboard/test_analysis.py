"""What charts are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from evo.dashboard import analysis, words
from evo.record import Interval, Point


def make_points(times: list[float | None], operator: str = "random", **knobs: list[object]) -> list[Point]:
    return [
        Point(
            position=index + 1,
            id=index + 1,
            number=index,
            at=float(index),
            time_us=time_us,
            ratio=None,
            stage=None if time_us is not None else "build",
            reason="",
            operator=operator,
            configuration={name: values[index] for name, values in knobs.items()},
        )
        for index, time_us in enumerate(times)
    ]


def test_best_so_far_counts_only_improvements() -> None:
    assert analysis.best_so_far(make_points([5.0, None, 6.0, 3.0, 3.0])) == ([1, 4], [5.0, 3.0])
    assert analysis.best_so_far([]) == ([], [])


def test_the_expectation_of_random_search_falls_from_the_mean_and_ends_with_what_was_drawn() -> None:
    times = [float(value) for value in range(1, 21)]
    found = analysis.random_expectation(make_points([*times]), proposer="random", length=5000)
    assert found is not None
    assert found[0][0] == 1
    assert found[1][0] == pytest.approx(10.5)
    assert found[0][-1] == 20, "beyond its own draws nothing is known"
    assert 1.0 < found[1][-1] < 2.0
    assert all(later <= earlier for earlier, later in zip(found[1], found[1][1:], strict=False))
    assert analysis.random_expectation(make_points([*times], operator="mutate"), proposer="evo", length=50) is None


def test_strangers_count_as_random_only_before_the_search_has_learnt() -> None:
    opening = make_points([5.0] * 12, operator="stranger")
    later = make_points([1.0] * 3, operator="mutation") + make_points([0.5] * 3, operator="stranger")
    assert len(analysis.random_trials([*opening, *later], "evo")) == 12


def test_busy_workers_add_up_to_the_time_worked() -> None:
    intervals = [
        Interval("cpu", "build", 0.0, 3.0),
        Interval("gpu", "measure", 1.0, 2.5),
        Interval("gpu", "verify", 3, 4),
    ]
    found = analysis.occupancy(intervals, bins=8)
    assert found is not None
    width = 4.0 / 8
    assert sum(found["kinds"]["build"]) * width == pytest.approx(3.0)
    assert sum(found["kinds"]["measure"]) * width == pytest.approx(1.5)
    assert found["kinds"]["measure"][:3] == [0.0, 0.0, 1.0]
    assert found["workers"] == 2
    assert found["seat_busy_share"] == pytest.approx(2.5 / 4)
    assert analysis.occupancy([]) is None


def test_knobs_of_numbers_and_of_truth_values_do_not_mix() -> None:
    points = make_points([4.0, 2.0, None, 8.0], flag=[True, 1, False, True])
    (effect,) = analysis.knob_effects([{"name": "flag", "values": [True, False]}], points)
    counts = {box["value"]: (box["count"], box["rejected"]) for box in effect["boxes"]}
    assert counts == {"true": (2, 0), "false": (0, 1)}


def test_the_knob_that_decides_is_the_most_important() -> None:
    strong = [index % 2 for index in range(60)]
    weak = [(index // 7) % 3 for index in range(60)]
    times = [100.0 * value + index % 5 for index, value in enumerate(strong)]
    points = make_points([*times], strong=[*strong], weak=[*weak])
    knobs = [{"name": "strong", "values": [0, 1]}, {"name": "weak", "values": [0, 1, 2]}]
    assert analysis.importances(knobs, points)[0][0] == "strong"
    assert analysis.importances(knobs, points[:10]) == []


def test_importances_are_those_of_an_ordinary_study() -> None:
    import optuna

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    times = [float(10 + 5 * a + b + rng.random()) for a, b in zip(x, y, strict=True)]
    points = make_points([*times], x=[int(v) for v in x], y=[int(v) for v in y])
    choices = {"x": (0, 1, 2, 3), "y": (0, 1, 2)}
    ours = analysis.importances([{"name": name, "values": values} for name, values in choices.items()], points)
    study = optuna.create_study()
    distributions = {name: optuna.distributions.CategoricalDistribution(values) for name, values in choices.items()}
    for point in points:
        made = optuna.trial.create_trial(value=point.time_us, params=point.configuration, distributions=distributions)
        study.add_trial(made)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    assert dict(ours) == pytest.approx(optuna.importance.get_param_importances(study, evaluator=evaluator))


def test_a_spread_is_thinned_from_end_to_end() -> None:
    percents, values = analysis.thinned([float(value) for value in range(1000)], most=50)
    assert len(values) == 50
    assert (values[0], values[-1], percents[-1]) == (0.0, 999.0, 100.0)
    assert analysis.thinned([3.0]) == ([100.0], [3.0])
    assert analysis.thinned([]) == ([], [])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.5, "0.5 µs"),
        (12.3456, "12.35 µs"),
        (999.96, "1.000 ms"),
        (70966.25, "70.97 ms"),
        (2.5e6, "2.500 s"),
    ],
)
def test_times_are_shown_with_four_digits(value: float | None, shown: str) -> None:
    assert words.micro(value) == shown
