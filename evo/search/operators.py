"""How children are made of parents: crossover, mutation to a neighbour, repair."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evo.search.history import Indices
from evo.space import Knob, SearchSpace


class Steps:
    """For each knob: which value indices lie one, two, three... steps away, in log space for powers of two."""

    def __init__(self, knobs: tuple[Knob, ...]) -> None:
        self.along = [np.argsort(k.coordinates, kind="stable") for k in knobs]
        self.place = [np.argsort(a, kind="stable") for a in self.along]
        self.ordered = [k.ordered for k in knobs]
        self.varied = np.array([i for i, k in enumerate(knobs) if len(k.values) > 1])

    def move(self, rng: np.random.Generator, knob: int, index: int) -> int:
        """Another value of one knob: near ones likelier where the values are ordered."""
        along = self.along[knob]
        if not self.ordered[knob]:
            other = int(rng.integers(len(along) - 1))
            return other + (other >= index)
        at = int(self.place[knob][index])
        distance = int(rng.geometric(0.6))
        towards = at + (distance if rng.random() < 0.5 else -distance)
        if not 0 <= towards < len(along):
            towards = 2 * at - towards
        towards = min(max(towards, 0), len(along) - 1)
        if towards == at:
            towards = at + (1 if at == 0 else -1)
        return int(along[towards])

    def move_many(
        self, rng: np.random.Generator, knobs: npt.NDArray[Any], indices: npt.NDArray[Any]
    ) -> npt.NDArray[Any]:
        """As `move`, for many (knob, value index) pairs at once."""
        moved = indices.copy()
        for knob in np.unique(knobs):
            here = np.flatnonzero(knobs == knob)
            along, count = self.along[knob], len(self.along[knob])
            if self.ordered[knob]:
                at = self.place[knob][indices[here]]
                away = rng.geometric(0.6, len(here)) * rng.choice([-1, 1], len(here))
                to = np.where((at + away < 0) | (at + away >= count), at - away, at + away).clip(0, count - 1)
                moved[here] = along[np.where(to == at, np.where(at == 0, 1, at - 1), to)]
            else:
                other = rng.integers(0, count - 1, len(here))
                moved[here] = other + (other >= indices[here])
        return moved


def crossover(rng: np.random.Generator, first: Indices, second: Indices) -> npt.NDArray[Any]:
    """Each knob from either parent."""
    return np.where(rng.random(len(first)) < 0.5, first, second)


def mutate(
    rng: np.random.Generator, steps: Steps, row: npt.NDArray[Any], knobs: int = 1, weights: Any = None
) -> npt.NDArray[Any]:
    """The row with this many of its knobs moved; `weights` say which knobs are worth moving."""
    child = row.copy()
    count = min(knobs, len(steps.varied))
    if count:
        p = None if weights is None else weights[steps.varied] / weights[steps.varied].sum()
        for knob in rng.choice(steps.varied, count, replace=False, p=p):
            child[knob] = steps.move(rng, int(knob), int(child[knob]))
    return child


def repair(space: SearchSpace, row: npt.NDArray[Any]) -> Indices:
    """The row itself if admissible, else the nearest admissible configuration."""
    return space.nearest(row).indices


def rank_select(rng: np.random.Generator, count: int) -> int:
    """A place in a list sorted best first: the first is about twice as likely as the middle one."""
    return int(count * (1 - np.sqrt(rng.random())))


def breed_rows(rng: np.random.Generator, steps: Steps, parents: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Many children at once, shape (count, knobs); parents sorted best first. Not all of them are admissible."""
    first, second = (
        parents[(len(parents) * (1 - np.sqrt(rng.random(count)))).astype(int)].astype(np.int64) for _ in range(2)
    )
    crossed = rng.random(count) < 0.5
    take_second = (rng.random(first.shape) < 0.5) & crossed[:, None]
    children: npt.NDArray[Any] = np.where(take_second, second, first)
    moves = np.where(crossed, rng.integers(0, 3, count), rng.integers(1, 4, count))
    for turn in range(3):
        moved = np.flatnonzero(moves > turn)
        if len(moved) and len(steps.varied):
            knobs = rng.choice(steps.varied, len(moved))
            children[moved, knobs] = steps.move_many(rng, knobs, children[moved, knobs])
    return children
