"""Rules, derived values and launch sizes: a small grammar over scalars or numpy columns, never Python's eval.

A name may be dotted (`device.arch`). A bare word that is no known name is a text beside a text: `swizzle == xor`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evo.expression import cpp, evaluation
from evo.expression.node import ExpressionError, Node, Value, nearest_name, unknown_name, value_text, walk
from evo.expression.parser import KEYWORDS, Parser

__all__ = ["KEYWORDS", "Expression", "ExpressionError", "Value", "nearest_name", "unknown_name", "value_text"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; `names` are all words it mentions, dotted ones included."""

    text: str
    names: frozenset[str]
    root: Node = field(repr=False)

    @staticmethod
    def parse(text: str | Value) -> Expression:
        """Read an expression.

        Raises: ExpressionError that quotes the text and names the offending word and its column.
        """
        if not isinstance(text, str):
            if not isinstance(text, (bool, int, float)):
                raise ExpressionError(f"expected an expression, got {text!r}")
            text = value_text(text)
        root = Parser(text).parse()
        return Expression(text, frozenset(str(n.value) for n in walk(root) if n.op == "name"), root)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value for these names: a scalar, or an array if any name is bound to one (arrays broadcast).

        A division by zero has no value (nan), so a comparison with it is false.
        Raises: ExpressionError for an unknown name or for operands that do not go together.
        """
        with np.errstate(all="ignore"):
            return evaluation.evaluate(self.root, values, self.text)

    def to_cpp(self, names: Mapping[str, str]) -> str:
        """The same expression in C++ integer arithmetic, names replaced by `names`.

        A word compared with a text knob is looked up as "knob.word", then as "word".
        Raises: ExpressionError for a name without a replacement and for / and ** which C++ integers do not have.
        """
        return cpp.to_cpp(self.root, names, self.text)

    def bare_words(self, known: Iterable[str]) -> dict[str, set[str]]:
        """Unknown words that stand beside a known name in ==, != or in: word -> the names it is compared with."""
        names, beside = set(known), dict[str, set[str]]()
        for node in walk(self.root):
            if node.op in ("==", "!=", "in"):
                sides = [str(a.value) for a in node.args if a.op == "name"]
                for word in sides:
                    if word not in names:
                        beside.setdefault(word, set()).update(n for n in sides if n in names)
        return {word: others for word, others in beside.items() if others}

    def __str__(self) -> str:
        return self.text
