"""How children are made of parents: crossover, and mutation to a neighbouring value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evo.space import Knob


class Steps:
    """For each knob: which value indices lie one, two, three... steps away, in log space for powers of two."""

    def __init__(self, knobs: tuple[Knob, ...]) -> None:
        self.along = [np.argsort(k.coordinates, kind="stable") for k in knobs]
        self.place = [np.argsort(a, kind="stable") for a in self.along]
        self.ordered = [k.ordered for k in knobs]
        self.varied = np.array([i for i, k in enumerate(knobs) if len(k.values) > 1])

    def move(self, rng: np.random.Generator, knobs: npt.NDArray[Any], indices: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Another value for each (knob, value index): near ones likelier where the values are ordered."""
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


def breed_rows(
    rng: np.random.Generator, steps: Steps, parents: npt.NDArray[Any], count: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Children, shape (count, knobs), of parents sorted best first, and the places of each one's two parents.

    Not all of the children are admissible. The best parent is about twice as likely as the middle one. Half of the
    children cross two parents; the others have one, given twice.
    """
    ranks = (len(parents) * (1 - np.sqrt(rng.random((2, count))))).astype(int).clip(0, len(parents) - 1)
    first, second = parents[ranks].astype(np.int64)
    crossed = rng.random(count) < 0.5
    take_second = (rng.random(first.shape) < 0.5) & crossed[:, None]
    children: npt.NDArray[Any] = np.where(take_second, second, first)
    moves = np.where(crossed, rng.integers(0, 3, count), rng.integers(1, 4, count))
    for turn in range(3):  # up to three knobs move; the same one may move twice
        moved = np.flatnonzero(moves > turn)
        if len(moved) and len(steps.varied):
            knobs = rng.choice(steps.varied, len(moved))
            children[moved, knobs] = steps.move(rng, knobs, children[moved, knobs])
    places = np.stack([ranks[0], np.where(crossed, ranks[1], ranks[0])], axis=1)
    return children, places
