"""Candidates for the models to rank: everything in a small space, children, neighbours and strangers in a large one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evo.search.history import History, Indices
from evo.search.operators import Steps, breed_rows
from evo.search.proposer import STRANGER, Descent
from evo.space import SearchSpace

Array = npt.NDArray[Any]

WHOLE_MOST = 3000  # rows; a smaller space is its own pool
STRANGERS = 700  # drawn at random
CHILDREN = 700  # bred from the elites, before what is inadmissible or known falls out
PARENTS = 12
CENTRES = 5  # elites whose every neighbour is a candidate


class Pool:
    """Rows of value indices under consideration, and how each was come by."""

    def __init__(self, space: SearchSpace, steps: Steps) -> None:
        self.space = space
        self.steps = steps
        self.rows: Array = np.zeros((0, len(space.knobs)), np.int64)
        self.descents: list[Descent] = []
        self._members: set[Indices] = set()
        self._centres: set[Indices] = set()  # whose neighbours were admitted

    def refill(self, rng: np.random.Generator, history: History, bred: bool = True) -> None:
        """Gather anew what is worth ranking; with `bred` False only strangers are."""
        self.rows, self.descents, self._members, self._centres = self.rows[:0], [], set(), set()
        if bred:
            for trial in history.best(CENTRES):
                self.add_neighbours(history, trial.indices)
            parents = [t.indices for t in history.best(PARENTS)]
            if parents and not self._whole:
                children, places = breed_rows(rng, self.steps, np.array(parents), CHILDREN)
                admissible = self.space.admissible(children)
                descents = descents_of(parents, places[admissible])
                self.add(history, children[admissible], descents)
        strangers = self.space.rows if self._whole else self.space.sample_rows(rng, STRANGERS if bred else WHOLE_MOST)
        self.add(history, strangers, [STRANGER] * len(strangers))

    def add_neighbours(self, history: History, indices: Indices) -> Array:
        """Admit the untried neighbours of a configuration, once; returns the rows that are new."""
        if indices in self._centres:
            return self.rows[:0]
        self._centres.add(indices)
        rows = self.space.neighbour_rows(indices, "any")
        return self.add(history, rows, [Descent("neighbour", (indices,))] * len(rows))

    def add(self, history: History, rows: Array, descents: Sequence[Descent]) -> Array:
        """Admit those of these admissible rows that are neither known here nor taken; returns them."""
        if not len(rows):
            return rows
        new = []
        for number in np.flatnonzero(history.untaken(rows)).tolist():
            indices = tuple(rows[number].tolist())
            if indices not in self._members:
                self._members.add(indices)
                self.descents.append(descents[number])
                new.append(number)
        added = rows[new].astype(np.int64)
        self.rows = np.concatenate([self.rows, added])
        return added

    @property
    def _whole(self) -> bool:
        return self.space.enumerated and self.space.size <= WHOLE_MOST


def descents_of(parents: Sequence[Indices], places: Array) -> list[Descent]:
    """How children were come by whose two parents have these places; a child of one parent has it twice."""
    known: dict[tuple[int, int], Descent] = {}
    found = []
    for first, second in places.tolist():
        if (first, second) not in known:
            pair = (parents[first],) if first == second else (parents[first], parents[second])
            known[first, second] = Descent("child", pair)
        found.append(known[first, second])
    return found
