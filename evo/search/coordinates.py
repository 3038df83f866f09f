"""Task context: what the models are told of a configuration beyond its values.

Each ordered knob appears by its place (logarithm where positive) and by identity (a kernel often likes just 96, not
what lies near it). Derived values of the base (threads, shared bytes) appear by logarithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evo.space import Knob, SearchSpace

Array = npt.NDArray[Any]

PLACE_LENGTH, IDENTITY_LENGTH, CATEGORY_LENGTH, DERIVED_LENGTH = 0.7, 2.0, 1.0, 2.0
IDENTIFIED_MOST = 64  # values; among more, none is a thing of its own


class Coordinates:
    """Columns for each knob; columns of one group share a length scale, whose prior mean is in `log_lengths`."""

    def __init__(self, space: SearchSpace, *, identity: bool = True) -> None:
        """identity: whether ordered knobs appear by it too."""
        self.space = space
        self.tables: list[tuple[int, Array]] = []  # knob place, table (values, columns)
        self.groups: list[int] = []
        lengths: list[float] = []
        for place, knob in enumerate(space.knobs):
            for table, length in _knob_tables(knob, identity):
                self.tables.append((place, table))
                self.groups += [len(lengths)] * table.shape[1]
                lengths.append(length)
        self.derived = self._derived_scales()
        for _ in self.derived:
            self.groups.append(len(lengths))
            lengths.append(DERIVED_LENGTH)
        self.group_of_column = np.array(self.groups, np.int64)
        self.log_lengths = np.log(np.array(lengths))

    @property
    def constant(self) -> bool:
        """Whether no knob can vary at all."""
        return not self.tables

    def of(self, rows: Array) -> Array:
        """Model coordinates of rows of value indices, shape (n, columns)."""
        columns = [table[rows[:, place]] for place, table in self.tables]
        if self.derived:
            values = self.space.derived_columns(rows)
            columns += [((_logarithm(values[name]) - low) / (high - low))[:, None] for name, low, high in self.derived]
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(rows), 0))

    def _derived_scales(self) -> list[tuple[str, float, float]]:
        if not self.space.derived:
            return []
        rows = self.space.sample_rows(np.random.default_rng(0), 500)
        scales = []
        for name, values in self.space.derived_columns(rows).items():
            if values.dtype.kind in "iuf" and np.all(np.isfinite(values)):
                logs = _logarithm(values)
                if np.ptp(logs) > 0:
                    scales.append((name, float(logs.min()), float(logs.max())))
        return scales


def _knob_tables(knob: Knob, identity: bool) -> list[tuple[Array, float]]:
    count = len(knob.values)
    if count == 1:
        return []
    if not knob.ordered:
        return [(_indicators(count), CATEGORY_LENGTH)]
    numbers = np.array([float(v) for v in knob.values])
    place = np.log2(numbers) if numbers.min() > 0 else knob.coordinates
    found = [(_scaled(place)[:, None], PLACE_LENGTH)]
    if identity and 2 < count <= IDENTIFIED_MOST:
        found.append((_indicators(count), IDENTITY_LENGTH))
    return found


def _indicators(count: int) -> Array:
    """One column per value: any two different values lie at distance one."""
    return np.array([[0.0], [1.0]]) if count == 2 else np.eye(count) * np.sqrt(0.5)


def _scaled(values: Array) -> Array:
    return np.asarray((values - values.min()) / np.ptp(values))


def _logarithm(values: Array) -> Array:
    numbers = values.astype(float)
    return np.asarray(np.sign(numbers) * np.log2(1 + np.abs(numbers)))
