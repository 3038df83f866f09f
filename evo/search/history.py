"""What has been proposed and what came of it: the one memory every proposer shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evo.outcome import Measured, Outcome
from evo.space import SearchSpace

LISTED_MOST = 2_000_000  # rows; below, what is taken is a mask over the rows
Indices = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """One told configuration: its value indices and its median time, nan where it was rejected."""

    indices: Indices
    time_us: float
    outcome: Outcome

    @property
    def failed(self) -> bool:
        return math.isnan(self.time_us)


class History:
    """Told trials in the order first told, and every configuration that is taken: told or in flight."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.trials: list[Trial] = []
        self.place: dict[Indices, int] = {}  # told configuration -> its place in trials
        self.in_flight: set[Indices] = set()
        self._times: list[float] = []
        self._times_array: npt.NDArray[np.float64] | None = None  # made when asked for
        self._listed = space.enumerated and space.size <= LISTED_MOST
        self._taken_rows = np.zeros(space.size if self._listed else 0, bool)
        self._taken = 0

    def take(self, indices: Indices) -> None:
        """Count a configuration as proposed; nobody proposes it again."""
        if not self.is_taken(indices):
            self._mark(indices)
            self.in_flight.add(indices)

    def tell(self, indices: Indices, outcome: Outcome) -> bool:
        """Record an outcome; told again, the later outcome holds. True if it is the configuration's first."""
        time_us = outcome.time_us if isinstance(outcome, Measured) else math.nan
        if not (math.isfinite(time_us) and time_us > 0):
            time_us = math.nan
        if not self.is_taken(indices):
            self._mark(indices)
        self.in_flight.discard(indices)
        trial = Trial(indices, time_us, outcome)
        self._times_array = None
        if indices in self.place:
            self.trials[self.place[indices]] = trial
            self._times[self.place[indices]] = time_us
            return False
        self.place[indices] = len(self.trials)
        self.trials.append(trial)
        self._times.append(time_us)
        return True

    def is_taken(self, indices: Indices) -> bool:
        """Whether a configuration is told or in flight."""
        return indices in self.place or indices in self.in_flight

    def untaken(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which of these admissible rows are neither told nor in flight."""
        if self._listed:
            numbers = self.space.row_numbers(rows)
            return ~self._taken_rows[numbers] & (numbers >= 0)
        return np.array([not self.is_taken(tuple(row)) for row in rows.tolist()], bool)

    @property
    def exhausted(self) -> bool:
        """Whether every admissible configuration is taken."""
        return self._listed and self._taken >= len(self._taken_rows)

    @property
    def times_us(self) -> npt.NDArray[np.float64]:
        """Times of the trials, nan where rejected."""
        if self._times_array is None:
            self._times_array = np.array(self._times)
        return self._times_array

    def best(self, count: int = 1) -> list[Trial]:
        """The fastest trials, best first; fewer if fewer ran."""
        times = self.times_us
        order = np.argsort(times, kind="stable")[: int(np.isfinite(times).sum())]
        return [self.trials[i] for i in order[:count]]

    def random_untaken(self, rng: np.random.Generator, count: int) -> list[Indices]:
        """Up to `count` distinct admissible configurations that are not taken, drawn alike."""
        if self._listed and 2 * self._taken > len(self._taken_rows):
            return self._drawn_from_free(rng, count)
        found: dict[Indices, None] = {}
        for _ in range(40):
            for row in self.space.sample_rows(rng, count - len(found) + 1).tolist():
                if len(found) < count and not self.is_taken(tuple(row)):
                    found.setdefault(tuple(row))
            if len(found) >= count:
                return list(found)
        # a generator that repeats itself, as after a restart with the same seed, draws what is taken again and again
        return self._drawn_from_free(rng, count) if self._listed else list(found)

    def nearest_untaken(self, indices: Sequence[int] | npt.NDArray[Any]) -> Indices | None:
        """The admissible configuration nearest to a wish among those not taken; None if none is found."""
        wish = tuple(int(i) for i in indices)
        if self._listed and len(self._taken_rows) <= 100_000:
            free = np.flatnonzero(~self._taken_rows)
            if not len(free):
                return None
            rows = self.space.rows[free]
            return _tuples(rows[np.argmin(self.space.distances(wish, rows))][None, :])[0]
        centre = self.space.nearest(wish).indices
        seen, ring = {centre}, [centre]
        for _ in range(4):  # rings of neighbours around the nearest admissible one
            free_ring = [i for i in ring if not self.is_taken(i)]
            if free_ring:
                return free_ring[int(np.argmin(self.space.distances(wish, np.array(free_ring))))]
            grown = [n for i in ring[:50] for n in _tuples(self.space.neighbour_rows(i, "any"))]
            ring = [i for i in dict.fromkeys(grown) if i not in seen]
            seen.update(ring)
        return None

    def _drawn_from_free(self, rng: np.random.Generator, count: int) -> list[Indices]:
        free = np.flatnonzero(~self._taken_rows)
        return _tuples(self.space.rows[rng.choice(free, min(count, len(free)), replace=False)])

    def _mark(self, indices: Indices) -> None:
        if self._listed:
            number = int(self.space.row_numbers(np.array([indices]))[0])
            if number < 0:
                return  # told, but not admissible here: remembered, and never proposed anyway
            self._taken_rows[number] = True
        self._taken += 1


def _tuples(rows: Iterable[Any]) -> list[Indices]:
    return [tuple(int(i) for i in row) for row in rows]
