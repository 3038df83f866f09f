"""Knobs, rules and the admissible configurations; listed in numpy where that fits, else sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evo.enumeration import BoundRule, Enumeration, index_type
from evo.errors import InputError
from evo.expression import Expression, ExpressionError, Value, unknown_name
from evo.knob import Configuration, Knob, KnobsLike, KnobTable, as_knobs

__all__ = ["Configuration", "Knob", "SearchSpace", "Value"]

LISTED_MOST = 50_000_000  # combinations before rules; beyond, configurations are drawn and never listed
Array = npt.NDArray[Any]


class SearchSpace:
    """What may be tried: every combination of knob values that satisfies all rules."""

    def __init__(
        self,
        knobs: Sequence[Knob],
        rules: Mapping[str, Expression | str] | None = None,
        derived: Mapping[str, Expression | str] | None = None,
        facts: Mapping[str, Value] | None = None,
    ) -> None:
        """Check every name and expression now; list the configurations when first needed.

        facts: constants and device facts by name, e.g. {"head_dim": 64, "device.arch": 90}.
        Raises: InputError "key: what was expected" for knobs, rules or derived values that cannot work.
        """
        self.knobs = tuple(knobs)
        if not self.knobs:
            raise InputError("knobs: expected at least one knob, got none")
        self._table = KnobTable(self.knobs)
        if len(self._table.place) < len(self.knobs):
            names = [k.name for k in self.knobs]
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError(f"knobs.{twice}: the name is given twice")
        self.facts = dict(facts or {})
        self.cardinalities = [len(k.values) for k in self.knobs]
        self._columns = [k.column for k in self.knobs]
        self._has_listed_rows = False
        self.has_default = True  # whether the default is somebody's choice and worth a trial
        self.derived: dict[str, Expression] = {}
        self.rules: dict[str, Expression] = {}
        self._places: dict[str, frozenset[int]] = {k.name: frozenset({i}) for i, k in enumerate(self.knobs)}
        self._places.update({name: frozenset() for name in self.facts})
        self._words: set[str] = set()
        for name, text in (derived or {}).items():
            key = f"derived.{name}"
            if name in self._places:
                raise InputError(f"{key}: the name is taken by a knob, a constant or an earlier derived value")
            self.derived[name] = self._read(key, text)
            self._places[name] = self._places_of(self.derived[name])
        for name, text in (rules or {}).items():
            self.rules[name] = self._read(f"rules.{name}", text)
        self._bound = {
            name: BoundRule(tuple(sorted(self._places_of(e))), self._test(e)) for name, e in self.rules.items()
        }
        self._check_rules()
        self._rows: Array | None = None
        self._order = list(range(len(self.knobs)))  # knobs in the order by which rows are sorted
        self._codes: Array | None = None
        self._strides: Array | None = None
        self._code_rows: Array | None = None  # row of each sorted code, None where rows are sorted already
        self._default: Configuration | None = None

    @classmethod
    def from_table(cls, knobs: KnobsLike, rows: Any) -> SearchSpace:
        """A space given by its admissible rows of value indices, shape (size, knobs); no rules needed.

        knobs: Knobs, a mapping name -> values, pairs (name, values) or mappings with "name" and "values".
        Raises: InputError for rows that do not fit the knobs or are given twice.
        """
        known = as_knobs(knobs)
        space = cls(known)
        space.has_default = any(k.default_given for k in known)
        table = np.asarray(rows)
        if table.ndim != 2 or table.shape[1] != len(known) or table.dtype.kind not in "iu":
            raise InputError(
                f"rows: expected whole numbers of shape (n, {len(known)}), got {table.dtype} {table.shape}"
            )
        if len(table) == 0:
            raise InputError("rows: expected at least one admissible row, got none")
        if table.min() < 0 or (table >= np.array(space.cardinalities)).any():
            raise InputError("rows: a value index lies outside its knob's values")
        space._rows = table.astype(index_type(space.cardinalities))
        space._has_listed_rows = True
        space._index_codes()
        assert space._codes is not None
        if (space._codes[1:] == space._codes[:-1]).any():
            raise InputError("rows: a row is given twice")
        return space

    # -- what it holds

    @property
    def combinations(self) -> int:
        """Combinations of values before any rule."""
        return math.prod(self.cardinalities)

    @property
    def enumerated(self) -> bool:
        """Whether the admissible rows are (or can be) listed; False for huge spaces, which are sampled."""
        return self._has_listed_rows or self.combinations <= LISTED_MOST

    @property
    def rows(self) -> Array:
        """Admissible rows of value indices, shape (size, knobs), small unsigned integers.

        Raises: InputError when no combination satisfies the rules; ValueError when the space is too large to list.
        """
        if self._rows is None:
            if not self.enumerated:
                raise ValueError(f"{self.combinations} combinations are sampled, not listed")
            enumeration = Enumeration(self.cardinalities, list(self._bound.values()))
            rows = enumeration.rows()
            if not len(rows):
                raise InputError(f"rules: no combination of values satisfies all of {', '.join(self.rules)}")
            self._order = enumeration.order
            self._rows = rows
        return self._rows

    @property
    def size(self) -> int:
        """Number of admissible configurations; for a huge space estimated from a sample."""
        if self.enumerated:
            return len(self.rows)
        rng = np.random.default_rng(0)
        return max(1, round(float(self.admissible(self._draw(rng, 100_000)).mean()) * self.combinations))

    @property
    def default(self) -> Configuration:
        """The knobs' defaults, or the admissible configuration nearest to them."""
        if self._default is None:
            self._default = self.nearest([k.values.index(k.default) for k in self.knobs])
        return self._default

    def at(self, indices: Sequence[int] | Array) -> Configuration:
        """The configuration with these value indices (admissible or not)."""
        return Configuration(tuple(int(i) for i in indices), self._table)

    def configuration(self, values: Mapping[str, Value]) -> Configuration:
        """The configuration with these values (admissible or not).

        Raises: InputError that names an unknown or missing knob, or a value the knob does not have.
        """
        return Configuration(self._table.indices(values), self._table)

    def __contains__(self, configuration: object) -> bool:
        if not isinstance(configuration, Mapping):
            return False
        try:
            indices = self._table.indices(configuration)
        except InputError:
            return False
        return bool(self.admissible(np.array([indices]))[0])

    def __iter__(self) -> Iterator[Configuration]:
        return (self.at(row) for row in self.rows)

    def violated(self, configuration: Mapping[str, Value]) -> list[str]:
        """Names of the rules that this configuration breaks."""
        bindings = _Bindings(self, dict(configuration))
        return [name for name, rule in self.rules.items() if not bool(rule.evaluate(bindings))]

    def derive(self, configuration: Mapping[str, Value]) -> dict[str, Value]:
        """The derived values of this configuration, in their order."""
        bindings = _Bindings(self, dict(configuration))
        return {name: bindings[name] for name in self.derived}

    def derived_columns(self, rows: Array) -> dict[str, Array]:
        """The derived values of many rows of value indices, one column each."""
        bindings = _Bindings(
            self, {k.name: c[rows[:, i]] for i, (k, c) in enumerate(zip(self.knobs, self._columns, strict=True))}
        )
        with np.errstate(all="ignore"):
            return {name: np.broadcast_to(np.asarray(bindings[name]), len(rows)) for name in self.derived}

    # -- where to go in it

    def admissible(self, rows: Array) -> npt.NDArray[np.bool_]:
        """Which of these rows of value indices satisfy the space, shape (n,)."""
        if self._has_listed_rows:
            return self.row_numbers(rows) >= 0
        truth = np.ones(len(rows), bool)
        for rule in self._bound.values():
            truth &= np.asarray(rule.test({p: rows[:, p] for p in rule.places}), bool)
        return truth

    def row_numbers(self, rows: Array) -> npt.NDArray[np.int64]:
        """Where each of these rows stands in `rows`, -1 where it is not admissible."""
        if self._codes is None:
            self._index_codes()
        assert self._codes is not None
        wanted = self._encode(np.asarray(rows))
        at = np.minimum(np.searchsorted(self._codes, wanted), len(self._codes) - 1)
        found = self._codes[at] == wanted
        numbers = at if self._code_rows is None else self._code_rows[at]
        return np.where(found, numbers, -1).astype(np.int64)

    def sample(self, rng: np.random.Generator, n: int) -> list[Configuration]:
        """Up to n distinct admissible configurations, drawn alike."""
        return [self.at(row) for row in self.sample_rows(rng, n)]

    def sample_rows(self, rng: np.random.Generator, n: int) -> Array:
        """Up to n distinct admissible rows of value indices."""
        if self.enumerated:
            return self.rows[rng.choice(len(self.rows), min(n, len(self.rows)), replace=False)]
        found = np.zeros((0, len(self.knobs)), index_type(self.cardinalities))
        for _ in range(20):
            drawn = self._draw(rng, max(4 * n, 20_000))
            found = _distinct(np.concatenate([found, drawn[self.admissible(drawn)]]))
            if len(found) >= n:
                return found[:n]
        grown = self._grow_sample(rng, n)  # admissible ones are too rare to hit
        found = _distinct(np.concatenate([found, grown]))
        if not len(found):
            raise InputError(f"rules: found no combination of values that satisfies all of {', '.join(self.rules)}")
        return found[:n]

    def neighbours(self, configuration: Configuration, reach: str = "step") -> list[Configuration]:
        """Admissible configurations that differ in one knob: one step for ordered knobs ("step"), any value ("any")."""
        return [self.at(row) for row in self.neighbour_rows(configuration.indices, reach)]

    def neighbour_rows(self, indices: Sequence[int], reach: str = "step") -> Array:
        """As `neighbours`, in rows of value indices."""
        rows = self._around(indices, reach)
        return rows[self.admissible(rows)]

    def nearest(self, indices: Sequence[int] | Array) -> Configuration:
        """The admissible configuration at the least distance: knobs in [0, 1] by coordinate, categories 0 or 1."""
        start = np.asarray(indices).astype(index_type(self.cardinalities))[None, :]
        if self.admissible(start)[0]:
            return self.at(start[0])
        if self.enumerated and len(self.rows) <= 200_000:
            return self.at(self.rows[np.argmin(self.distances(start[0], self.rows))])
        near = self._around(start[0], "any")
        near = np.concatenate([near, *[self._around(row, "any") for row in self._around(start[0], "step")]])
        near = near[self.admissible(near)]
        if not len(near):
            near = self.sample_rows(np.random.default_rng(0), 2000)
        best = near[np.argmin(self.distances(start[0], near))]
        while True:  # walk towards the wish as far as the rules let
            around = np.concatenate([best[None, :], self.neighbour_rows(best, "any")])
            closer = around[np.argmin(self.distances(start[0], around))]
            if (closer == best).all():
                return self.at(best)
            best = closer

    def distances(self, indices: Sequence[int] | Array, rows: Array) -> npt.NDArray[np.float64]:
        """Distance from one row to each of the others, shape (n,)."""
        total = np.zeros(len(rows))
        for place, knob in enumerate(self.knobs):
            index = int(indices[place])
            if knob.ordered:
                total += np.abs(knob.coordinates - knob.coordinates[index])[rows[:, place]]
            else:
                total += rows[:, place] != index
        return total

    # -- inside

    def _around(self, indices: Sequence[int] | Array, reach: str) -> Array:
        centre = np.asarray(indices).astype(index_type(self.cardinalities))
        moves: list[tuple[int, int]] = []
        for place, knob in enumerate(self.knobs):
            others: Any = range(len(knob.values))
            if knob.ordered and reach == "step":
                along = [int(i) for i in np.argsort(knob.coordinates, kind="stable")]
                at = along.index(int(centre[place]))
                others = along[max(0, at - 1) : at + 2]
            moves += [(place, i) for i in others if i != int(centre[place])]
        rows = np.repeat(centre[None, :], len(moves), axis=0)
        for number, (place, index) in enumerate(moves):
            rows[number, place] = index
        return rows

    def _draw(self, rng: np.random.Generator, n: int) -> Array:
        kind = index_type(self.cardinalities)
        return np.stack([rng.integers(0, c, n).astype(kind) for c in self.cardinalities], axis=1)

    def _grow_sample(self, rng: np.random.Generator, n: int) -> Array:
        """Rows grown knob by knob, thinned at random to a few thousand after each knob."""
        enumeration = Enumeration(self.cardinalities, list(self._bound.values()))
        return enumeration.thinned_rows(rng, max(4 * n, 20_000))

    def _encode(self, rows: Array) -> Array:
        if self.combinations < 2**62:
            if self._strides is None:
                self._strides = self._place_values()
            return np.asarray(np.asarray(rows, np.int64) @ self._strides)
        codes = np.zeros(len(rows), object)  # beyond 64 bits Python's own integers
        for place in self._order:
            codes = codes * self.cardinalities[place] + rows[:, place].astype(object)
        return codes

    def _place_values(self) -> Array:
        strides, stride = np.ones(len(self.knobs), np.int64), 1
        for place in reversed(self._order):
            strides[place], stride = stride, stride * self.cardinalities[place]
        return strides

    def _index_codes(self) -> None:
        codes = self._encode(self.rows)
        if self._has_listed_rows:
            self._code_rows = np.argsort(codes, kind="stable")
            codes = codes[self._code_rows]
        self._codes = codes

    def _read(self, key: str, text: Expression | str) -> Expression:
        try:
            expression = text if isinstance(text, Expression) else Expression.parse(text)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
        beside = expression.bare_words(self._places)
        for name in sorted(expression.names - set(self._places)):
            texts = [other for other in beside.get(name, ()) if self._may_be(other, name)]
            if not texts:
                known = [*self._places, *(str(v) for k in self.knobs for v in k.values if isinstance(v, str))]
                raise InputError(f"{key}: {unknown_name(name, known)}")
            self._words.add(name)
        return expression

    def _may_be(self, name: str, word: str) -> bool:
        """Whether a word is a value that this knob or constant can have."""
        if name in self.facts:
            return isinstance(self.facts[name], str)
        place = self._table.place.get(name)
        return place is not None and word in self.knobs[place].values

    def _places_of(self, expression: Expression) -> frozenset[int]:
        return frozenset().union(*(self._places.get(name, frozenset()) for name in expression.names))

    def _test(self, expression: Expression) -> Any:
        def test(columns: Mapping[int, Array]) -> Any:
            named = {self.knobs[p].name: self._columns[p][c] for p, c in columns.items()}
            return expression.evaluate(_Bindings(self, named))

        return test

    def _check_rules(self) -> None:
        """One evaluation of everything, so that a text in a sum is told now and by its key."""
        first = _Bindings(self, {k.name: k.values[0] for k in self.knobs})
        for name in self.derived:
            try:
                first[name]
            except ExpressionError as error:
                raise InputError(f"derived.{name}: {error}") from None
        for name, rule in self.rules.items():
            try:
                truth = rule.evaluate(first)
            except ExpressionError as error:
                raise InputError(f"rules.{name}: {error}") from None
            if not isinstance(truth, (bool, np.bool_)):
                raise InputError(f"rules.{name}: expected a condition, got the number {rule.text!r}")


class _Bindings(Mapping[str, Any]):
    """Names of one space bound to values or columns; derived values are computed when asked for."""

    def __init__(self, space: SearchSpace, knobs: Mapping[str, Any]) -> None:
        self.space = space
        self.known: dict[str, Any] = {**space.facts, **knobs}

    def __getitem__(self, name: str) -> Any:
        if name not in self.known:
            if name not in self.space.derived:
                raise KeyError(name)
            self.known[name] = self.space.derived[name].evaluate(self)
        return self.known[name]

    def __contains__(self, name: object) -> bool:
        return name in self.known or name in self.space.derived

    def __iter__(self) -> Iterator[str]:
        return iter({**self.known, **self.space.derived})

    def __len__(self) -> int:
        return len({**self.known, **self.space.derived})


def _distinct(rows: Array) -> Array:
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]
