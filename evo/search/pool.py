"""Candidates for the models to rank: everything in a small space, children, neighbours and strangers in a large one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evo.search.history import History, Indices
from evo.search.operators import Steps, breed_rows
from evo.space import SearchSpace

Array = npt.NDArray[Any]

WHOLE_MOST = 3000  # rows; a smaller space is its own pool
STRANGERS = 1200  # drawn at random
CHILDREN = 1200  # bred from the elites, before what is inadmissible or known falls out
PARENTS = 12
CENTRES = 5  # elites whose every neighbour is a candidate


class Pool:
    """Rows of value indices under consideration, and the operator each came from."""

    def __init__(self, space: SearchSpace, steps: Steps) -> None:
        self.space = space
        self.steps = steps
        self.rows: Array = np.zeros((0, len(space.knobs)), np.int64)
        self.operators: list[str] = []
        self._members: set[Indices] = set()

    def refill(self, rng: np.random.Generator, history: History, bred: bool = True) -> None:
        """Gather anew what is worth ranking; with `bred` False only strangers are."""
        self.rows, self.operators, self._members = self.rows[:0], [], set()
        if bred:
            for trial in history.best(CENTRES):
                self.add(history, self.space.neighbour_rows(trial.indices, "any"), "neighbour")
            parents = [t.indices for t in history.best(PARENTS)]
            if parents and not self._whole:
                children = breed_rows(rng, self.steps, np.array(parents), CHILDREN)
                self.add(history, children[self.space.admissible(children)], "child")
        strangers = self.space.rows if self._whole else self.space.sample_rows(rng, STRANGERS if bred else WHOLE_MOST)
        self.add(history, strangers, "stranger")

    def add_neighbours(self, history: History, indices: Indices) -> Array:
        """Admit the untried neighbours of a new elite; returns the rows that are new."""
        return self.add(history, self.space.neighbour_rows(indices, "any"), "neighbour")

    def add(self, history: History, rows: Array, operator: str) -> Array:
        """Admit those of these admissible rows that are neither known here nor taken; returns them."""
        if not len(rows):
            return rows
        free = rows[history.untaken(rows)]
        new = []
        for number, row in enumerate(free.tolist()):
            indices = tuple(row)
            if indices not in self._members:
                self._members.add(indices)
                new.append(number)
        added = free[new].astype(np.int64)
        self.rows = np.concatenate([self.rows, added])
        self.operators += [operator] * len(added)
        return added

    @property
    def _whole(self) -> bool:
        return self.space.enumerated and self.space.size <= WHOLE_MOST
