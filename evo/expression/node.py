"""What a parsed expression is made of, and how its names and values are said."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from evo.errors import InputError

Value = bool | int | float | str

_SHOWN = 12  # names in a message


class ExpressionError(InputError):
    """An expression that cannot be read or evaluated; the message quotes it and says where."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a parsed expression: `op` over `args`, or a leaf whose `value` is a constant or a name."""

    op: str  # "const", "name", a symbol, "and", "or", "not", "neg", "in", "if", or a function's name
    args: tuple[Node, ...] = ()
    value: Value = 0
    quoted: bool = False


def walk(node: Node) -> Iterable[Node]:
    """The node and all below it."""
    yield node
    for arg in node.args:
        yield from walk(arg)


def value_text(value: object) -> str:
    """A value as YAML and C++ write it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def nearest_name(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known name, or an empty text."""
    close = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def unknown_name(word: str, known: Iterable[str]) -> str:
    """That a name is unknown, and the nearest known one or what there is to choose from."""
    names = sorted({str(k) for k in known})
    choice = f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
    return f"unknown name {word!r}{nearest_name(word, names) or f'; expected one of {choice}'}"
