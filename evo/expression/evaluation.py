"""The value of a parsed expression, over scalars or whole numpy columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evo.expression.node import ExpressionError, Node, nearest_name

_LARGEST = 2.0**63  # integers beyond it would wrap


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind in "US")


def evaluate(node: Node, values: Mapping[str, Any], text: str) -> Any:
    """A scalar, or an array if any name below the node is bound to one.

    text: the whole expression, for messages.
    Raises: ExpressionError for an unknown name or for operands that do not go together.
    """
    op = node.op
    if op == "const":
        return node.value
    if op == "name":
        if node.value not in values:
            raise ExpressionError(f"{text!r}: unknown name {node.value!r}{nearest_name(str(node.value), values)}")
        return values[str(node.value)]
    if op in ("and", "or", "if"):
        return _evaluate_lazily(node, values, text)
    if op in ("==", "!=", "in"):
        args = [_member(a, values, text) for a in node.args]
        return _equal(op, args, text)
    args = [evaluate(a, values, text) for a in node.args]
    for arg in args:
        if _is_text(arg):
            raise ExpressionError(f"{text!r}: {op!r} does not go with a text; texts only compare by == != in")
    try:
        return OPERATIONS[op](*args)
    except OverflowError:
        raise ExpressionError(f"{text!r}: expected numbers of at most 64 bits") from None


def _evaluate_lazily(node: Node, values: Mapping[str, Any], text: str) -> Any:
    first = evaluate(node.args[0], values, text)
    if not isinstance(first, np.ndarray):  # as in Python: what is not needed is not evaluated
        if node.op == "if":
            return evaluate(node.args[1 if first else 2], values, text)
        if bool(first) == (node.op == "or"):
            return bool(first)
        second = evaluate(node.args[1], values, text)
        return second.astype(bool) if isinstance(second, np.ndarray) else bool(second)
    rest = [evaluate(a, values, text) for a in node.args[1:]]
    if node.op == "if":
        return np.where(first, rest[0], rest[1])
    return np.logical_and(first, rest[0]) if node.op == "and" else np.logical_or(first, rest[0])


def _member(node: Node, values: Mapping[str, Any], text: str) -> Any:
    """An operand of ==, != and in, where an unknown bare word is a text."""
    if node.op == "name" and node.value not in values:
        return _Word(str(node.value))
    return evaluate(node, values, text)


class _Word(str):
    """A bare word that no name is bound to: fine beside a text, an error elsewhere."""


def _equal(op: str, args: list[Any], text: str) -> Any:
    left, others = args[0], args[1:]
    result: Any = False
    for right in others:
        if _is_text(left) != _is_text(right) or (isinstance(left, _Word) and isinstance(right, _Word)):
            word = next((a for a in (left, right) if isinstance(a, _Word)), None)
            if word is not None:
                raise ExpressionError(f"{text!r}: unknown name {str(word)!r}")
            raise ExpressionError(f"{text!r}: a text is compared with a number")
        result = np.logical_or(result, left == right) if _any_array(result, left, right) else result or left == right
    if op == "!=":
        return np.logical_not(result) if isinstance(result, np.ndarray) else not result
    return result


def _any_array(*values: Any) -> bool:
    return any(isinstance(v, np.ndarray) for v in values)


def _number(value: Any) -> Any:
    """Booleans count as 0 and 1 in arithmetic; small integer columns are widened so that products do not wrap."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biu":
        return value.astype(np.int64, copy=False)
    return int(value) if isinstance(value, (bool, np.bool_)) else value


def _divide(kind: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def divided(a: Any, b: Any) -> Any:
        a, b = _number(a), _number(b)
        if not _any_array(a, b):
            return kind(a, b) if b != 0 else math.nan
        if np.all(b):
            return kind(a, b)
        return np.where(np.equal(b, 0), np.nan, kind(a, np.where(np.equal(b, 0), 1, b)))

    return divided


def _power(a: Any, b: Any) -> Any:
    a, b = _number(a), _number(b)
    if not _any_array(a, b):
        try:
            return a**b if abs(b) < 1024 else math.nan
        except (ZeroDivisionError, OverflowError):
            return math.nan
    with np.errstate(all="ignore"):
        real = np.float_power(a, b)
        whole = np.all(np.asarray(b) >= 0) and np.asarray(a).dtype.kind in "bi" and np.asarray(b).dtype.kind in "bi"
        fits = np.abs(real) < _LARGEST
        if whole and np.all(fits):
            return np.power(a, b)
        return np.where(fits, real, np.nan)  # as a division by zero: not a number, so no comparison holds


def _extreme(arrays: Any, scalars: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(*args: Any) -> Any:
        numbers = [_number(a) for a in args]
        if not _any_array(*numbers):
            return scalars(*numbers)
        result = numbers[0]
        for number in numbers[1:]:
            result = arrays(result, number)
        return result

    return extreme


_floor_divide = _divide(lambda a, b: a // b)

OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: _number(a) + _number(b),
    "-": lambda a, b: _number(a) - _number(b),
    "*": lambda a, b: _number(a) * _number(b),
    "/": _divide(lambda a, b: a / b),
    "//": _floor_divide,
    "%": _divide(lambda a, b: a % b),
    "**": _power,
    "neg": lambda a: -_number(a),
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "not": lambda a: np.logical_not(a) if isinstance(a, np.ndarray) else not a,
    "min": _extreme(np.minimum, min),
    "max": _extreme(np.maximum, max),
    "abs": lambda a: abs(_number(a)),
    "ceil_div": lambda a, b: -_floor_divide(-_number(a), b),
}
