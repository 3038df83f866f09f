"""One tunable parameter, and one choice of a value for each of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evo.errors import InputError
from evo.expression import KEYWORDS, Value, nearest_name

NAME = re.compile(r"[A-Za-z_]\w*\Z")
KINDS = ("ordinal", "power_of_two", "categorical")
KnobsLike = Sequence[Any] | Mapping[str, Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Knob:
    """A name and the values it may take; the first is the default and the kind is read off the values unless given."""

    name: str
    values: tuple[Value, ...]
    default: Any = None  # always one of the values once constructed
    kind: str = ""
    doc: str = ""
    default_given: bool = False

    def __post_init__(self) -> None:
        key = f"knobs.{self.name}"
        if not isinstance(self.name, str) or not NAME.match(self.name) or self.name in KEYWORDS | {"true", "false"}:
            words = f"letters, digits and _ that is none of {', '.join(sorted(KEYWORDS))}, true or false"
            raise InputError(f"knobs: expected a name of {words}, got {self.name!r}")
        if isinstance(self.values, (str, bytes)) or not isinstance(self.values, (Sequence, np.ndarray)):
            raise InputError(f"{key}: expected a list of values, got {self.values!r}")
        values = tuple(v.item() if isinstance(v, np.generic) else v for v in self.values)
        if not values:
            raise InputError(f"{key}: expected at least one value, got none")
        for i, value in enumerate(values):
            if not isinstance(value, (bool, int, float, str)):
                raise InputError(f"{key}: expected numbers, words, true or false, got {value!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{key}: expected finite numbers, got {value!r}")
            if value in values[:i]:
                raise InputError(f"{key}: the value {value!r} is given twice")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "default_given", self.default_given or self.default is not None)
        if self.default is None:
            object.__setattr__(self, "default", values[0])
        elif self.default not in values:
            raise InputError(f"{key}.default: expected one of {_listed(values)}, got {self.default!r}")
        if not self.kind:
            object.__setattr__(self, "kind", _kind(values))
        elif self.kind not in KINDS:
            raise InputError(f"{key}.kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        elif self.kind != "categorical" and _kind(values) == "categorical":
            raise InputError(f"{key}.kind: expected categorical for words and truth values, got {self.kind}")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "values": list(self.values),
            "default": self.default,
            "kind": self.kind,
            "doc": self.doc,
        }

    @staticmethod
    def of(document: Mapping[str, Any]) -> Knob:
        """The knob of a document; only name and values must be there."""
        default, kind, doc = document.get("default"), document.get("kind", ""), document.get("doc", "")
        return Knob(document["name"], tuple(document["values"]), default, kind, doc)

    @property
    def ordered(self) -> bool:
        """Whether near values behave alike."""
        return self.kind != "categorical"

    @property
    def column(self) -> npt.NDArray[Any]:
        """The values as an array that expressions compute with. Raises: InputError for words among numbers."""
        if all(isinstance(v, bool) for v in self.values):
            return np.array(self.values, bool)
        if all(isinstance(v, str) for v in self.values):
            return np.array(self.values, str)
        if any(isinstance(v, str) for v in self.values):
            raise InputError(f"knobs.{self.name}: expected only words or only numbers, got both")
        if all(isinstance(v, int) for v in self.values):
            return np.array([int(v) for v in self.values], np.int64)
        return np.array([float(v) for v in self.values])

    @property
    def coordinates(self) -> npt.NDArray[np.float64]:
        """Where each value lies in [0, 1]: by logarithm for powers of two, by rank for other numbers, by place else."""
        if len(self.values) == 1:
            return np.zeros(1)
        if self.kind == "categorical":
            return np.linspace(0.0, 1.0, len(self.values))
        numbers = np.array([float(v) for v in self.values])
        place = np.log2(numbers) if self.kind == "power_of_two" else np.argsort(np.argsort(numbers)).astype(float)
        low, high = place.min(), place.max()
        scaled: npt.NDArray[np.float64] = (place - low) / (high - low)
        return scaled


def as_knobs(knobs: KnobsLike) -> list[Knob]:
    """Knobs from Knobs, a mapping name -> values, pairs (name, values) or mappings with "name" and "values"."""
    items: Sequence[Any] = list(knobs.items()) if isinstance(knobs, Mapping) else list(knobs)
    found = []
    for item in items:
        if isinstance(item, Knob):
            found.append(item)
        elif isinstance(item, Mapping):
            found.append(Knob.of(item))
        else:
            name, values = item
            found.append(Knob(name, tuple(values)))
    return found


def _kind(values: Sequence[Value]) -> str:
    if any(isinstance(v, (bool, str)) for v in values):
        return "categorical"
    numbers = [v for v in values if not isinstance(v, str)]
    if len(numbers) > 1 and all(v >= 1 and v == int(v) and int(v) & (int(v) - 1) == 0 for v in numbers):
        return "power_of_two"
    return "ordinal"


def _listed(values: Sequence[Value], most: int = 12) -> str:
    shown = ", ".join(str(v) for v in values[:most])
    return shown + (", ..." if len(values) > most else "")


class KnobTable:
    """The knobs of one space by place and by name; shared by all its configurations."""

    __slots__ = ("index_of", "knobs", "place")

    def __init__(self, knobs: Sequence[Knob]) -> None:
        self.knobs = tuple(knobs)
        self.place = {k.name: i for i, k in enumerate(self.knobs)}
        self.index_of = [{v: i for i, v in enumerate(k.values)} for k in self.knobs]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KnobTable) and (
            self is other or [(k.name, k.values) for k in self.knobs] == [(k.name, k.values) for k in other.knobs]
        )

    def __hash__(self) -> int:
        return hash(tuple(self.place))

    def indices(self, values: Mapping[str, Value]) -> tuple[int, ...]:
        """The value indices of a mapping name -> value.

        Raises: InputError that names an unknown knob, a missing knob or a value the knob does not have.
        """
        for name in values:
            if name not in self.place:
                raise InputError(f"knobs: unknown knob {name!r}{nearest_name(str(name), self.place)}")
        indices = []
        for knob, index_of in zip(self.knobs, self.index_of, strict=True):
            if knob.name not in values:
                raise InputError(f"knobs.{knob.name}: expected a value, got none")
            value = values[knob.name]
            try:
                indices.append(index_of[value])
            except (KeyError, TypeError):
                raise InputError(f"knobs.{knob.name}: expected one of {_listed(knob.values)}, got {value!r}") from None
        return tuple(indices)


class Configuration(Mapping[str, Value]):
    """One value per knob; reads like a mapping, hashes and compares by its value indices."""

    __slots__ = ("_table", "indices")

    def __init__(self, indices: tuple[int, ...], table: KnobTable) -> None:
        self.indices = indices
        self._table = table

    def __getitem__(self, name: str) -> Value:
        place = self._table.place[name]
        return self._table.knobs[place].values[self.indices[place]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.place)

    def __len__(self) -> int:
        return len(self.indices)

    def __hash__(self) -> int:
        return hash(self.indices)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Configuration):
            return self.indices == other.indices and self._table == other._table
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __repr__(self) -> str:
        return "Configuration(" + ", ".join(f"{name}={value!r}" for name, value in self.items()) + ")"
