"""Spaces: which configurations they hold, how they are found, and what is said of mistakes."""

from __future__ import annotations

import itertools
import pickle
import time

import numpy as np
import pytest

from evo.errors import InputError
from evo.space import Configuration, Knob, SearchSpace


def attention(**facts: object) -> SearchSpace:
    return SearchSpace(
        [
            Knob("tile_q", (16, 32, 64, 128), default=64),
            Knob("warps", (1, 2, 3, 4)),
            Knob("stages", (1, 2, 3)),
            Knob("swizzle", ("none", "pad", "xor"), default="xor"),
            Knob("fast_exp", (False, True)),
        ],
        rules={
            "whole_tiles": "tile_q % (16 * warps) == 0",
            "fits_shared": "shared_bytes <= device.shared_bytes",
            "pad_needs_stages": "swizzle != pad or stages > 1",
        },
        derived={
            "row_bytes": "2 * head_dim + (16 if swizzle == pad else 0)",
            "shared_bytes": "row_bytes * tile_q * stages",
        },
        facts={"head_dim": 64, "device.shared_bytes": 40000, **facts},  # type: ignore[dict-item]
    )


def test_rows_are_exactly_the_combinations_that_break_no_rule() -> None:
    space = attention()
    every = itertools.product(*(range(c) for c in space.cardinalities))
    expected = {indices for indices in every if not space.violated(space.at(indices))}
    assert {tuple(map(int, row)) for row in space.rows} == expected
    assert space.size == len(expected) == len(space.rows)
    assert 0 < space.size < space.combinations


def test_membership_agrees_with_the_rows() -> None:
    space = attention()
    rng = np.random.default_rng(1)
    rows = np.stack([rng.integers(0, c, 300) for c in space.cardinalities], axis=1)
    listed = {tuple(map(int, row)) for row in space.rows}
    assert [bool(t) for t in space.admissible(rows)] == [tuple(map(int, r)) in listed for r in rows]
    numbers = space.row_numbers(rows)
    for row, number in zip(rows, numbers, strict=True):
        assert (number >= 0) == (tuple(map(int, row)) in listed)
        assert number < 0 or (space.rows[number] == row).all()


def test_configurations_read_like_mappings_and_survive_pickling() -> None:
    space = attention()
    one = space.configuration({"tile_q": 64, "warps": 2, "stages": 2, "swizzle": "xor", "fast_exp": True})
    assert one["tile_q"] == 64
    assert dict(one)["swizzle"] == "xor"
    assert len(one) == 5
    assert one.indices == (2, 1, 1, 2, 1)
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert again in space
    assert one == dict(one)
    assert one != space.at((0, 0, 0, 0, 0))
    assert len({one, again, space.at(one.indices)}) == 1
    assert isinstance(one, Configuration)


def test_violated_rules_and_derived_values_are_named() -> None:
    space = attention()
    bad = space.configuration({"tile_q": 16, "warps": 2, "stages": 1, "swizzle": "pad", "fast_exp": False})
    assert space.violated(bad) == ["whole_tiles", "pad_needs_stages"]
    assert bad not in space
    assert space.derive(bad) == {"row_bytes": 144, "shared_bytes": 2304}


def test_the_default_is_the_declared_one_or_the_nearest_admissible() -> None:
    assert attention().default["tile_q"] == 64
    tight = attention(**{"device.shared_bytes": 5000})
    assert tight.default in tight
    assert tight.default["tile_q"] == 32
    assert tight.default["swizzle"] == "xor"


def test_sampling_is_distinct_admissible_and_seeded() -> None:
    space = attention()
    drawn = space.sample(np.random.default_rng(3), 40)
    assert len(set(drawn)) == 40
    assert all(c in space for c in drawn)
    assert drawn == space.sample(np.random.default_rng(3), 40)
    assert len(space.sample(np.random.default_rng(0), 10**6)) == space.size


def test_neighbours_differ_in_one_knob_by_one_step() -> None:
    space = SearchSpace([Knob("a", (64, 16, 32)), Knob("b", ("x", "y", "z"))])
    found = {(c["a"], c["b"]) for c in space.neighbours(space.configuration({"a": 16, "b": "x"}))}
    assert found == {(32, "x"), (16, "y"), (16, "z")}
    anywhere = space.neighbours(space.configuration({"a": 16, "b": "x"}), reach="any")
    assert {(c["a"], c["b"]) for c in anywhere} == found | {(64, "x")}


def test_nearest_is_the_true_nearest() -> None:
    space = attention()
    wish = (0, 3, 2, 1, 0)
    distances = space.distances(wish, space.rows)
    assert space.distances(wish, np.array([space.nearest(wish).indices]))[0] == distances.min()


def test_kinds_are_read_off_the_values() -> None:
    kinds = [Knob("k", v).kind for v in [(1, 2, 8), (1, 3), (False, True), ("a", "b"), (16,), (0.5, 1.0)]]
    assert kinds == ["power_of_two", "ordinal", "categorical", "categorical", "ordinal", "ordinal"]
    assert Knob("k", (1, 2, 8)).coordinates.tolist() == pytest.approx([0, 1 / 3, 1])


def test_a_table_of_rows_is_a_space() -> None:
    rows = [[1, 0], [0, 1], [2, 1]]
    for knobs in (
        {"a": [1, 2, 4], "b": [0, 1]},
        [("a", [1, 2, 4]), ("b", [0, 1])],
        [Knob("a", (1, 2, 4)), Knob("b", (0, 1))],
    ):
        space = SearchSpace.from_table(knobs, rows)
        assert space.size == 3
        assert space.rows.tolist() == rows
        assert space.at((2, 1)) in space
        assert space.at((2, 0)) not in space
        assert space.row_numbers(np.array([[0, 1], [0, 0]])).tolist() == [1, -1]
        assert space.default in space
        assert len(space.sample(np.random.default_rng(0), 9)) == 3
        assert not space.has_default


@pytest.mark.parametrize("rows", [[], [[0, 5]], [[0, 0], [0, 0]], [[0]], [[0.5, 1]], [[-1, 0]]])
def test_rows_that_do_not_fit_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(InputError, match=r"^rows: "):
        SearchSpace.from_table({"a": [1, 2, 4], "b": [0, 1]}, rows)


def huge() -> SearchSpace:
    knobs = [Knob(f"k{i}", tuple(range(10))) for i in range(20)]
    return SearchSpace(knobs, rules={"even": "k0 % 2 == 0", "sum": "k1 + k2 + k3 <= 9"})


def test_a_huge_space_is_sampled_and_never_listed() -> None:
    space = huge()
    assert not space.enumerated
    assert space.combinations == 10**20
    drawn = space.sample(np.random.default_rng(0), 500)
    assert len(set(drawn)) == 500
    assert all(not space.violated(c) for c in drawn)
    assert space.default in space
    assert space.neighbours(drawn[0])
    assert all(c in space for c in space.neighbours(drawn[0]))
    assert space.size == pytest.approx(0.5 * 0.22 * 10**20, rel=0.1)
    far = space.nearest([1, 9, 9, 9] + [0] * 16)
    assert far in space
    with pytest.raises(ValueError, match="not listed"):
        _ = space.rows


def test_rare_configurations_of_a_huge_space_are_found() -> None:
    knobs = [Knob(f"k{i}", tuple(range(10))) for i in range(12)]
    chain = {f"r{i}": f"k{i + 1} == (k{i} + 1) % 10" for i in range(11)}
    space = SearchSpace(knobs, rules=chain)
    drawn = space.sample(np.random.default_rng(0), 50)
    assert len(drawn) == 10
    assert all(c in space for c in drawn)


def test_over_a_million_combinations_are_filtered_fast() -> None:
    knobs = [Knob(f"k{i}", tuple(range(1, 6))) for i in range(6)] + [
        Knob("a", tuple(range(1, 9))),
        Knob("b", tuple(range(1, 11))),
    ]
    space = SearchSpace(knobs, rules={"r": "(k0 * k1) % a == 0", "s": "k2 + k3 + k4 + k5 <= b + 6", "t": "a * b <= 40"})
    began = time.perf_counter()
    assert 0 < space.size < space.combinations == 1_250_000
    assert time.perf_counter() - began < 2.0  # about 0.05 s alone; the benchmark holds the promise of 0.5 s


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Knob("a", ()), "knobs.a: expected at least one value"),
        (lambda: Knob("a", (1, 2, 1)), "knobs.a: the value 1 is given twice"),
        (lambda: Knob("a", (1, 2), default=3), "knobs.a.default: expected one of 1, 2, got 3"),
        (lambda: Knob("a", "xyz"), "knobs.a: expected a list"),  # type: ignore[arg-type]
        (lambda: Knob("a", (None,)), "knobs.a: expected numbers"),  # type: ignore[arg-type]
        (lambda: Knob("a b", (1,)), "knobs: expected a name"),
        (lambda: SearchSpace([]), "knobs: expected at least one knob"),
        (lambda: SearchSpace([Knob("a", (1,)), Knob("a", (2,))]), "knobs.a: the name is given twice"),
        (lambda: SearchSpace([Knob("a", (1, "x"))]), "knobs.a: expected only words or only numbers"),
        (
            lambda: SearchSpace([Knob("tile_q", (1, 2))], rules={"r": "tile_r > 1"}),
            "rules.r: unknown name 'tile_r' (did you mean tile_q?)",
        ),
        (
            lambda: SearchSpace([Knob("s", ("xor", "pad"))], rules={"r": "s == xro"}),
            "rules.r: unknown name 'xro' (did you mean xor?)",
        ),
        (lambda: SearchSpace([Knob("a", (1, 2))], rules={"r": "a >"}), "rules.r: 'a >' is no expression"),
        (lambda: SearchSpace([Knob("a", (1, 2))], rules={"r": "a + 1"}), "rules.r: expected a condition"),
        (lambda: SearchSpace([Knob("s", ("x", "y"))], rules={"r": "s + 1 > 0"}), "rules.r: "),
        (lambda: SearchSpace([Knob("a", (1, 2))], derived={"a": "1"}), "derived.a: the name is taken"),
        (lambda: SearchSpace([Knob("a", (1, 2))], derived={"d": "e", "e": "a"}), "derived.d: unknown name 'e'"),
        (
            lambda: SearchSpace([Knob("a", (1, 2))], rules={"r": "a > 5"}).size,
            "rules: no combination of values satisfies all of r",
        ),
        (lambda: SearchSpace([Knob("a", (1, 2))]).configuration({"b": 1}), "knobs: unknown knob 'b'"),
        (lambda: SearchSpace([Knob("a", (1, 2))]).configuration({"a": 7}), "knobs.a: expected one of 1, 2, got 7"),
        (lambda: SearchSpace([Knob("a", (1, 2))]).configuration({}), "knobs.a: expected a value"),
    ],
)
def test_mistakes_are_told_by_key(make: object, said: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        make()  # type: ignore[operator]
    assert str(caught.value).startswith(said)
