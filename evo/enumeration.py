"""All admissible combinations of knob values, found knob by knob: each rule cuts as soon as its last knob is bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK = 1 << 18  # combinations looked at together: columns stay in the cache
TABLE = 1 << 20  # a rule over fewer combinations of its own knobs is tabulated once

Array = npt.NDArray[Any]
Test = Callable[[Mapping[int, Array]], Array]  # knob place -> column of value indices; -> truth, broadcast


@dataclass(frozen=True, slots=True)
class BoundRule:
    """A rule as the places of the knobs it depends on, and a vectorised test of value indices."""

    places: tuple[int, ...]
    test: Test


def index_type(cardinalities: Sequence[int]) -> type[np.unsignedinteger[Any]]:
    """The smallest type that holds every value index."""
    return np.uint8 if max(cardinalities, default=1) <= 256 else np.uint16 if max(cardinalities) <= 65536 else np.uint32


def binding_order(cardinalities: Sequence[int], rules: Sequence[BoundRule]) -> list[int]:
    """Places in an order that completes cheap rules first; knobs under no rule come last."""
    order: list[int] = []
    waiting = [set(r.places) for r in rules if r.places]
    while waiting:
        nearest = min(waiting, key=lambda places: (_product(cardinalities, places - set(order)), min(places)))
        order += sorted(nearest - set(order), key=lambda p: cardinalities[p])
        waiting = [places for places in waiting if not places <= set(order)]
    return order + [p for p in range(len(cardinalities)) if p not in order]


def _product(cardinalities: Sequence[int], places: set[int]) -> int:
    product = 1
    for place in places:
        product *= cardinalities[place]
    return product


class Enumeration:
    """The expansion of one space; rows come out sorted by the knobs taken in `order`."""

    def __init__(self, cardinalities: Sequence[int], rules: Sequence[BoundRule]) -> None:
        self.cardinalities = list(cardinalities)
        self.order = binding_order(cardinalities, rules)
        self.type = index_type(cardinalities)
        self.possible = all(bool(r.test({})) for r in rules if not r.places)
        bound: set[int] = set()
        self.due: list[list[Callable[[list[Array]], Array | None]]] = []
        for level, place in enumerate(self.order):
            before, bound = set(bound), bound | {place}
            due = [r for r in rules if r.places and set(r.places) <= bound and not set(r.places) <= before]
            self.due.append([self._cut(rule, level) for rule in due])

    def rows(self) -> Array:
        """Every admissible row of value indices, shape (size, knobs)."""
        pieces = deque(self._expand(0, [], 1)) if self.possible else deque()
        rows = np.empty((sum(len(p) for p in pieces), len(self.order)), self.type)
        at = 0
        while pieces:  # freed one by one, so that the whole is not held twice to the end
            piece = pieces.popleft()
            rows[at : at + len(piece)] = piece
            at += len(piece)
        return rows

    def thinned_rows(self, rng: np.random.Generator, most: int) -> Array:
        """Some admissible rows, at most `most` kept at random after each knob; for spaces too large to list."""
        columns: list[Array] = []
        count = 1 if self.possible else 0
        for level, place in enumerate(self.order):
            columns = self._grow(level, columns, count, self.cardinalities[place])
            count = len(columns[0])
            if count > most:
                kept = rng.choice(count, most, replace=False)
                columns, count = [c[kept] for c in columns], most
        rows = np.empty((count, len(self.order)), self.type)
        for place, column in zip(self.order, columns, strict=True):
            rows[:, place] = column
        return rows

    def _expand(self, level: int, columns: list[Array], count: int) -> Iterator[Array]:
        if level == len(self.order):
            rows = np.empty((count, len(self.order)), self.type)
            for place, column in zip(self.order, columns, strict=True):
                rows[:, place] = column
            yield rows
            return
        cardinality = self.cardinalities[self.order[level]]
        step = max(1, CHUNK // cardinality)
        for start in range(0, count, step):
            part = [c[start : start + step] for c in columns]
            length = min(step, count - start)
            grown = self._grow(level, part, length, cardinality)
            if len(grown[0]):
                yield from self._expand(level + 1, grown, len(grown[0]))

    def _grow(self, level: int, columns: list[Array], count: int, cardinality: int) -> list[Array]:
        """These rows with every value of the next knob that the rules now complete allow."""
        values = np.arange(cardinality, dtype=self.type)
        mask: Array | None = None
        for cut in self.due[level]:
            truth = cut(columns)
            if truth is not None:
                mask = truth if mask is None else mask & truth
        if mask is None or bool(mask.all()):
            shape = (count, cardinality)
            grown = [np.broadcast_to(c[:, None], shape).reshape(-1) for c in columns]
            return [*grown, np.broadcast_to(values[None, :], shape).reshape(-1)]
        flat = np.flatnonzero(np.broadcast_to(mask, (count, cardinality)))
        parent = flat // cardinality
        return [*(c[parent] for c in columns), (flat - parent * cardinality).astype(self.type)]

    def _cut(self, rule: BoundRule, level: int) -> Callable[[list[Array]], Array | None]:
        """A function of the bound columns: truth over (rows, values of the newest knob), None if all are admitted."""
        newest = self.order[level]
        earlier = [p for p in rule.places if p != newest]
        level_of = {place: i for i, place in enumerate(self.order)}
        sizes = [self.cardinalities[p] for p in earlier]
        cardinality = self.cardinalities[newest]
        if int(np.prod(sizes, dtype=object)) * cardinality > TABLE:
            last = np.arange(cardinality, dtype=self.type)[None, :]
            return lambda columns: np.asarray(
                rule.test({**{p: columns[level_of[p]][:, None] for p in earlier}, newest: last}), bool
            )
        grid = np.meshgrid(*[np.arange(n) for n in (*sizes, cardinality)], indexing="ij", sparse=True)
        truth = np.asarray(rule.test(dict(zip([*earlier, newest], grid, strict=True))), bool)
        table = np.ascontiguousarray(np.broadcast_to(truth, (*sizes, cardinality))).reshape(-1, cardinality)
        if table.all():
            return lambda _: None

        def look_up(columns: list[Array]) -> Array:
            if not earlier:
                return table
            index = columns[level_of[earlier[0]]].astype(np.int32)
            for place, size in zip(earlier[1:], sizes[1:], strict=True):
                index *= size
                index += columns[level_of[place]]
            return table[index]

        return look_up
