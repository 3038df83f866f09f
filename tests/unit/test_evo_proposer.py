"""The evo proposer: that its parts do what they claim, and that the whole finds fast configurations early."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evo.outcome import Measured, Outcome, Rejected, Stage
from evo.search import make_proposer
from evo.search.coordinates import Coordinates
from evo.search.evolution import PARTS, EvoProposer
from evo.search.gaussian import GaussianModel
from evo.search.history import History
from evo.search.insight import LEAST_GAIN, expected_improvement, targets_of
from evo.search.operators import Steps, breed_rows
from evo.search.pool import Pool
from evo.space import Configuration, Knob, SearchSpace


def space() -> SearchSpace:
    """6,912 combinations, 5,616 of them admissible."""
    return SearchSpace(
        [
            Knob("block_x", (16, 32, 48, 64, 80, 96, 112, 128)),
            Knob("block_y", (1, 2, 4, 8, 16, 32)),
            Knob("tile", (1, 2, 3, 4, 6, 8)),
            Knob("stages", (1, 2, 3, 4)),
            Knob("swizzle", ("none", "pad", "xor")),
            Knob("fast", (False, True)),
        ],
        rules={"threads": "block_x * block_y <= 1024"},
    )


def outcome(c: Configuration) -> Outcome:
    """A cliff of spills, a best block of 96 x 4, and a swizzle that matters."""
    x, y, tile, stages = (int(c[k]) for k in ("block_x", "block_y", "tile", "stages"))
    if tile * stages > 16:
        return Rejected(Stage.BUILD, "spills")
    time_us = 10 + abs(math.log2(x * y / 384)) * 3 + abs(tile - 4) + 2 * abs(stages - 3) + 0.5 * (x % 32 != 0)
    return Measured((time_us + {"none": 4, "pad": 1, "xor": 0}[str(c["swizzle"])] + (not c["fast"]),))


def best_after(name: str, seed: int, trials: int, batch: int = 1, told: object = outcome) -> float:
    proposer = make_proposer(name, space(), seed, budget=trials)
    best = math.inf
    for _ in range(trials // batch):
        for configuration in proposer.ask(batch):
            found = told(configuration)  # type: ignore[operator]
            proposer.tell(configuration, found)
            if isinstance(found, Measured):
                best = min(best, found.time_us)
    return best


@pytest.mark.parametrize("batch", [1, 8])
def test_it_finds_what_random_search_does_not(batch: int) -> None:
    evo = np.median([best_after("evo", seed, 64, batch) for seed in range(3)])
    random = np.median([best_after("random", seed, 64) for seed in range(3)])
    assert evo <= 12.0 < random


def test_breeding_alone_is_better_than_chance() -> None:
    free = np.mean([best_after("evo-free", seed, 80) for seed in range(4)])
    assert free < np.mean([best_after("random", seed, 80) for seed in range(4)])


def test_failures_teach_it_to_stay_away() -> None:
    failed = []
    for without in ((), ("validity",)):
        proposer = EvoProposer(space(), 0, budget=100, without=without)
        for _ in range(100):
            (configuration,) = proposer.ask(1)
            proposer.tell(configuration, outcome(configuration))
        failed.append(sum(trial.failed for trial in proposer.history.trials[50:]))
    assert failed[0] < failed[1] / 2  # what fails is all that is left unknown, and tempting


def test_the_declared_default_and_then_the_seeds_come_first() -> None:
    where = SearchSpace([Knob("a", (1, 2, 4, 8), default=4), Knob("b", (False, True), default=True)])
    seed = where.configuration({"a": 8, "b": False})
    assert [dict(c) for c in make_proposer("evo", where, 0, seeds=[seed]).ask(2)] == [
        {"a": 4, "b": True},
        {"a": 8, "b": False},
    ]


def test_every_proposal_names_its_operator() -> None:
    proposer = make_proposer("evo", space(), 0, budget=40)
    origins: set[str] = set()
    told = set()
    for _ in range(40):
        (configuration,) = proposer.ask(1)
        descent = proposer.origin(configuration)  # type: ignore[attr-defined]
        origins.add(descent.operator)
        assert all(parent in told for parent in descent.parents)
        assert bool(descent.parents) == (descent.operator in ("child", "neighbour"))
        told.add(configuration.indices)
        proposer.tell(configuration, outcome(configuration))
    assert "" not in origins
    assert {"stranger", "neighbour"} <= origins


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_left_out_is_not_at_work(part: str) -> None:
    proposer = EvoProposer(space(), 0, budget=100, without=(part,))
    whole = EvoProposer(space(), 0, budget=100)
    assert whole.insight is not None
    if part == "speed":
        assert proposer.insight is None
        return
    assert proposer.insight is not None
    columns = [len(p.insight.coordinates.groups) for p in (proposer, whole) if p.insight]
    works = {
        "breeding": not proposer.insight.bred,
        "validity": not proposer.insight.validity,
        "doubt": not proposer.insight.doubting,
        "identity": columns[0] < columns[1],
    }
    assert [name for name, left_out in works.items() if left_out] == [part]


def test_a_model_that_expects_nothing_any_more_is_doubted_at_every_other_trial() -> None:
    where = SearchSpace([Knob(f"k{i}", tuple(range(1, 9))) for i in range(4)])

    def pair(without: tuple[str, ...]) -> list[tuple[tuple[int, ...], float]]:
        """Two proposals and how unsure of each the model was, once a summit is found and its surroundings are known."""
        proposer = EvoProposer(where, 3, without=without)
        insight = proposer.insight
        assert insight is not None
        for row in where.rows[::33]:
            proposer.tell(where.at(row), Measured((10 + float(((row - 2) ** 2).sum()),)))
        for row in where.neighbour_rows((2, 2, 2, 2), "any"):
            proposer.tell(where.at(row), Measured((10 + float(((row - 2) ** 2).sum()),)))
        proposer.tell(where.at((2, 2, 2, 2)), Measured((5.0,)))
        if len(proposer.history.trials) % 2:
            proposer.tell(where.at((7, 7, 7, 7)), Measured((110.0,)))
        asked = [c.indices for c in proposer.ask(2)]
        assert insight.gain < LEAST_GAIN
        rows = [tuple(row) for row in insight.pool.rows.tolist()]
        deviation = insight.speed.deviation()
        return [(indices, float(deviation[rows.index(indices)])) for indices in asked]

    doubted, sure = pair(()), pair(("doubt",))
    assert doubted[0] == sure[0]
    assert doubted[1][1] > sure[1][1]


def test_a_batch_is_spread_out() -> None:
    proposer = make_proposer("evo", space(), 0, budget=500)
    for configuration in proposer.ask(40):
        proposer.tell(configuration, outcome(configuration))
    asked = proposer.ask(12)
    rows = np.array([c.indices for c in asked])
    changes = [(rows[i] != rows[j]).sum() for i in range(12) for j in range(i)]
    assert len(set(asked)) == 12
    assert np.mean(changes) > 1.5


def test_thousands_of_trials_do_not_stop_it() -> None:
    where = space()
    proposer = make_proposer("evo", where, 0)
    for row in where.rows[::3]:
        proposer.tell(where.at(row), outcome(where.at(row)))
    asked = [proposer.ask(1)[0] for _ in range(20)]
    assert len(set(asked)) == 20


def test_what_the_model_is_told_keeps_the_order() -> None:
    targets = targets_of(np.array([3.0, 1.0, 1e9, 4.0, 2.0]))
    assert np.argsort(targets).tolist() == [1, 4, 0, 3, 2]
    assert targets.mean() == pytest.approx(0)
    assert targets.std() == pytest.approx(1)
    assert targets_of(np.array([5.0])).tolist() == [0]


def told_of(where: SearchSpace, times_us: dict[tuple[int, ...], float]) -> EvoProposer:
    proposer = EvoProposer(where, 0)
    for indices, time_us in times_us.items():
        found = Measured((time_us,)) if math.isfinite(time_us) else Rejected(Stage.BUILD, "fails")
        proposer.tell(where.at(indices), found)
    return proposer


def test_failures_say_nothing_of_speed_and_all_of_the_chance_to_run() -> None:
    where = SearchSpace([Knob("a", tuple(range(1, 17))), Knob("b", tuple(range(1, 9)))])
    ran = {(a, b): 10.0 + a + b for a in range(0, 12, 2) for b in range(0, 8, 2)}
    failed = {(a, b): math.nan for a in (13, 15) for b in range(8)}
    whole, successes = told_of(where, ran | failed), told_of(where, ran)
    beside, within = (14, 3), (5, 3)
    expected = {}
    for proposer in (whole, successes):
        proposer.ask(1)
        insight = proposer.insight
        assert insight is not None
        rows = [tuple(row) for row in insight.pool.rows.tolist()]
        mean = insight.speed.mean(targets_of(np.array(list(ran.values()))))
        expected[proposer] = [mean[rows.index(row)] for row in (beside, within)]
        if proposer is whole:
            assert insight.chance is not None
            chance = insight.chance.mean(np.array([1.0] * len(ran) + [0.0] * len(failed)))
            assert chance[rows.index(beside)] < 0.2 < 0.8 < chance[rows.index(within)]
        else:
            assert insight.chance is None
    assert expected[whole] == pytest.approx(expected[successes], abs=1e-4)


def test_the_first_failure_is_foreseen_from_then_on_and_a_success_may_be_taken_back() -> None:
    where = SearchSpace([Knob("a", tuple(range(1, 17))), Knob("b", tuple(range(1, 9)))])
    proposer = told_of(where, {(a, b): 10.0 + a + b for a in range(0, 16, 3) for b in range(0, 8, 2)})
    insight = proposer.insight
    assert insight is not None
    (first,) = proposer.ask(1)
    assert insight.chance is None
    proposer.tell(first, Rejected(Stage.BUILD, "fails"))
    proposer.ask(1)
    assert insight.chance is not None
    assert len(insight.chance.points) == len(insight.speed.points) + 1 == len(proposer.history.trials)
    proposer.tell(where.at((0, 0)), Rejected(Stage.VERIFY, "wrong after all"))
    assert proposer.ask(1)
    assert len(insight.speed.points) == len(proposer.history.trials) - 2


def test_the_best_does_not_move_away_from_the_unknown_with_every_slower_trial() -> None:
    few, many = (targets_of(np.arange(1.0, count + 1)) for count in (200, 2000))
    assert many[0] == pytest.approx(few[0], abs=0.05)


def test_expected_improvement_is_never_negative_and_grows_with_doubt() -> None:
    gains = expected_improvement(np.array([0.0, 0.0, 5.0]), np.array([0.2, 1.0, 0.2]), -0.5)
    assert 0 <= gains[2] < gains[0] < gains[1]


def model() -> tuple[GaussianModel, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points = rng.random((40, 3))
    targets = np.sin(4 * points[:, 0]) + points[:, 1]
    return GaussianModel(np.arange(3), np.zeros(3)), points, (targets - targets.mean()) / targets.std()


def test_the_model_learns_which_coordinate_is_dead_and_predicts() -> None:
    process, points, targets = model()
    process.fit(points[:30], targets[:30], points[30:])
    assert process.log_lengths[2] > process.log_lengths[0]
    assert np.corrcoef(process.mean(targets[:30]), targets[30:])[0, 1] > 0.95


def test_adding_points_and_candidates_one_by_one_equals_fitting_them_at_once() -> None:
    grown, points, targets = model()
    whole, _, _ = model()
    grown.fit(points[:20], targets[:20], points[30:35], learn=False)
    for point in points[20:30]:
        grown.add_point(point)
    grown.add_candidates(points[35:])
    whole.fit(points[:30], targets[:30], points[30:], learn=False)
    assert grown.mean(targets[:30]) == pytest.approx(whole.mean(targets[:30]), abs=1e-3)
    assert grown.deviation() == pytest.approx(whole.deviation(), abs=1e-3)


def test_more_points_than_spare_rows_can_be_added() -> None:
    process, points, targets = model()
    process.fit(points[:5], targets[:5], points[30:], learn=False)
    for _ in range(5):
        for point in points[5:30]:
            process.add_point(point)
    assert process.factor.shape == (130, 130)


def test_near_values_are_near_in_coordinates_and_each_is_a_thing_of_its_own() -> None:
    coordinates = Coordinates(SearchSpace([Knob("block", tuple(range(16, 257, 16))), Knob("one", (7,))]))
    place = coordinates.of(np.array([[0, 0], [1, 0], [15, 0]]))[:, 0]
    assert place.tolist() == pytest.approx([0, 0.25, 1])
    assert len(coordinates.log_lengths) == 2  # place and identity; nothing for the knob of one value
    identities = coordinates.of(np.array([[0, 0], [1, 0], [15, 0]]))[:, 1:]
    assert [np.linalg.norm(identities[0] - other) for other in identities[1:]] == pytest.approx([1, 1])


def test_derived_values_are_coordinates_too() -> None:
    knobs = [Knob("a", (1, 2, 4)), Knob("b", (1, 2, 4))]
    plain, derived = SearchSpace(knobs), SearchSpace(knobs, derived={"threads": "32 * a * b", "same": "7"})
    assert Coordinates(derived).of(derived.rows).shape[1] == Coordinates(plain).of(plain.rows).shape[1] + 1


def test_children_differ_little_from_their_parents() -> None:
    where = space()
    parents = where.rows[[10, 4000]]
    children, places = breed_rows(np.random.default_rng(0), Steps(where.knobs), parents, 400)
    assert (children >= 0).all()
    assert (children < np.array(where.cardinalities)).all()
    nearest = np.minimum(*((children != p).sum(axis=1) for p in parents))
    assert np.median(nearest) <= 2
    assert places.shape == (400, 2)
    alone = places[:, 0] == places[:, 1]  # of one parent: one to three knobs moved
    assert ((children != parents[places[:, 0]]).sum(axis=1)[alone] <= 3).all()


def test_the_pool_holds_admissible_untried_candidates_once() -> None:
    where = SearchSpace([Knob(f"k{i}", tuple(range(8))) for i in range(6)], rules={"r": "k0 + k1 <= 9"})
    history = History(where)
    for number, row in enumerate(where.rows[::20000]):
        history.tell(where.at(row).indices, Measured((float(number + 1),)))
    pool = Pool(where, Steps(where.knobs))
    pool.refill(np.random.default_rng(0), history)
    rows = [tuple(r) for r in pool.rows.tolist()]
    assert len(set(rows)) == len(rows) == len(pool.descents) > 800
    assert where.admissible(pool.rows).all()
    assert not any(history.is_taken(r) for r in rows)
    assert {"neighbour", "child", "stranger"} == {d.operator for d in pool.descents}
