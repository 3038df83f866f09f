"""One suite for every proposer: what a campaign relies on, whoever proposes."""

from __future__ import annotations

import random

import pytest

from evo.errors import InputError
from evo.outcome import Measured, Outcome, Rejected, Stage
from evo.search import Proposer, make_proposer, proposer_names
from evo.search.control import with_control
from evo.space import Configuration, Knob, SearchSpace

APART = ("gp", "nsgaiii")  # slow, or like another one: tried on a short search below
NAMES = [n for n in proposer_names() if n not in APART] + ["optuna:random", "optuna:bruteforce"]
NAMES += ["evo, controlled", "tpe, controlled"]  # with a random arm that has a third of the proposals


def space() -> SearchSpace:
    """240 combinations, about half of them admissible."""
    return SearchSpace(
        [
            Knob("tile", (16, 32, 64, 128)),
            Knob("warps", (1, 2, 3, 4, 6)),
            Knob("stages", (1, 2, 3)),
            Knob("swizzle", ("none", "xor")),
            Knob("fast", (False, True)),
        ],
        rules={"whole": "tile % warps == 0", "fits": "tile * stages <= 256"},
    )


def outcome(configuration: Configuration) -> Outcome:
    """A smooth time, with a failure where the tile is large and there is one warp."""
    tile, warps, stages = (int(configuration[k]) for k in ("tile", "warps", "stages"))
    if tile == 128 and warps == 1:
        return Rejected(Stage.BUILD, "spills")
    time_us = (
        100 + abs(tile - 64) / 4 + 7 * abs(warps - 4) + 5 * (stages == 1) + 9 * (configuration["swizzle"] == "none")
    )
    return Measured((float(time_us),))


def fail(_: Configuration) -> Outcome:
    return Rejected(Stage.CRASH, "illegal_address")


def play(
    proposer: Proposer, trials: int, batch: int = 4, answer: object = outcome, order: random.Random | None = None
) -> list[Configuration]:
    """Ask and tell until so many trials were asked for or nothing is left; outcomes may arrive out of order."""
    asked: list[Configuration] = []
    flying: list[Configuration] = []
    while len(asked) < trials:
        new = proposer.ask(min(batch, trials - len(asked)))
        if not new and not flying:
            break
        asked += new
        flying += new
        if order:
            order.shuffle(flying)
        arrived, flying = (flying[: len(flying) // 2 + 1], flying[len(flying) // 2 + 1 :]) if order else (flying, [])
        for configuration in arrived:
            proposer.tell(configuration, answer(configuration))  # type: ignore[operator]
    return asked


def make(name: str, on: SearchSpace | None = None, seed: int = 0, **options: object) -> Proposer:
    try:
        proposer = make_proposer(name.split(",")[0], on or space(), seed, **options)  # type: ignore[arg-type]
        return with_control(proposer, 1 / 3, seed) if "," in name else proposer
    except InputError as error:
        if "needs the package" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_proposals_are_distinct_and_admissible(name: str) -> None:
    where = space()
    asked = play(make(name, where), 50)
    assert len(asked) == len(set(asked)) == 50
    assert all(c in where and not where.violated(c) for c in asked)


def test_the_same_seed_and_outcomes_give_the_same_proposals(name: str) -> None:
    assert play(make(name, seed=5), 30) == play(make(name, seed=5), 30)


def test_another_seed_gives_other_proposals(name: str) -> None:
    assert play(make(name, seed=1), 30) != play(make(name, seed=2), 30)


def test_configurations_in_flight_count_as_taken(name: str) -> None:
    proposer = make(name)
    asked = [c for _ in range(10) for c in proposer.ask(3)]
    assert len(set(asked)) == len(asked) == 30


def test_outcomes_may_arrive_in_any_order(name: str) -> None:
    asked = play(make(name), 40, order=random.Random(0))
    assert len(set(asked)) == len(asked) == 40


def test_a_search_where_everything_fails_goes_on(name: str) -> None:
    asked = play(make(name), 40, answer=fail)
    assert len(set(asked)) == 40


def test_a_space_of_one_point(name: str) -> None:
    proposer = make(name, SearchSpace([Knob("a", (8,)), Knob("b", ("x",))]))
    (only,) = proposer.ask(3)
    assert proposer.ask(1) == []
    proposer.tell(only, Measured((1.0,)))
    assert proposer.ask(2) == []


def test_a_space_smaller_than_the_budget_is_covered_and_then_nothing_is_proposed(name: str) -> None:
    small = SearchSpace(
        [Knob("a", (1, 2, 4)), Knob("b", (False, True)), Knob("c", (1, 2, 3))], rules={"r": "a != 4 or b"}
    )
    proposer = make(name, small)
    asked = play(proposer, 60, answer=lambda c: Measured((float(c["a"]) + float(c["c"]),)))
    assert len(asked) == small.size == 15
    assert set(asked) == set(small)
    assert proposer.ask(1) == []


def test_an_outcome_told_twice_counts_once(name: str) -> None:
    proposer = make(name)
    (first,) = proposer.ask(1)
    proposer.tell(first, Measured((5.0,)))
    proposer.tell(first, Measured((6.0,)))
    proposer.tell(first, Rejected(Stage.TIMEOUT, "hang"))
    asked = play(proposer, 30)
    assert first not in asked
    assert len(set(asked)) == 30


def test_a_warm_start_is_taken_and_learned(name: str) -> None:
    where = space()
    proposer = make(name, where)
    known = list(where)[:40]
    for configuration in known:
        proposer.tell(configuration, outcome(configuration))
    asked = play(proposer, 40)
    assert len(asked) == 40
    assert not set(asked) & set(known)


def test_seeds_are_proposed_first(name: str) -> None:
    where = space()
    seeds = [where.at(row) for row in where.rows[[7, 30]]]
    asked = make(name, where, seeds=seeds).ask(6)
    assert set(seeds) <= set(asked)
    assert len(set(asked)) == 6


def test_replaying_the_outcomes_rebuilds_a_search(name: str) -> None:
    first = make(name, seed=3)
    asked = play(first, 25, batch=5)
    again = make(name, seed=3)
    for configuration in asked:
        again.tell(configuration, outcome(configuration))
    resumed = play(again, 20, batch=5)
    assert not set(resumed) & set(asked)
    assert len(resumed) == 20


def test_a_huge_space_is_searched_without_listing(name: str) -> None:
    huge = SearchSpace([Knob(f"k{i}", (1, 2, 4, 8, 16, 32)) for i in range(14)], rules={"r": "k0 * k1 <= 256"})
    asked = play(make(name, huge), 24, answer=lambda c: Measured((sum(float(v) for v in c.values()),)))
    assert len(set(asked)) == 24
    assert all(c in huge for c in asked)


@pytest.mark.parametrize("name_", APART)
def test_samplers_that_are_slow_or_alike_keep_the_promises_too(name_: str) -> None:
    asked = play(make(name_), 14)
    assert len(set(asked)) == 14


@pytest.mark.parametrize(
    ("name_", "said"),
    [
        ("evoo", "did you mean evo?"),
        ("optuna:tpee", "did you mean tpe"),
        ("optuna:grid", "unknown"),
        ("optuna:basega", "unknown"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name_: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_proposer(name_, space(), 0)


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "cmaes" else found(n, *a))
    with pytest.raises(InputError, match="pip install cmaes"):
        make_proposer("cmaes", space(), 0)
