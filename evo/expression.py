"""Rules, derived values and launch sizes: a small grammar over scalars or numpy columns, never Python's eval.

    choice  := either ["if" either "else" choice]           either := both ("or" both)*
    both    := negated ("and" negated)*                     negated := "not" negated | compared
    compared:= sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum | ["not"] "in" "(" choice, ... ")")*
    sum     := term (("+" | "-") term)*                     term := signed (("*" | "/" | "//" | "%") signed)*
    signed  := ("-" | "+") signed | atom ["**" signed]
    atom    := number | true | false | "text" | name | name "(" choice, ... ")" | "(" choice ")"

A name may be dotted (`device.arch`). A bare word that is no known name is a text beside a text: `swizzle == xor`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evo.errors import InputError

Value = bool | int | float | str

MAX_TOKENS = 400
MAX_DEPTH = 60  # of nested brackets and operators; nobody writes more, and Python's own stack is finite
_SHOWN = 12  # names in a message
FUNCTIONS = {"min": (2, None), "max": (2, None), "abs": (1, 1), "ceil_div": (2, 2)}  # name -> fewest, most arguments
KEYWORDS = {"and", "or", "not", "in", "if", "else"}
TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<symbol>\*\*|//|<=|>=|==|!=|[-+*/%<>(),\[\]]))"
)


class ExpressionError(InputError):
    """An expression that cannot be read or evaluated; the message quotes it and says where."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a parsed expression: `op` over `args`, or a leaf whose `value` is a constant or a name."""

    op: str  # "const", "name", a symbol, "and", "or", "not", "neg", "in", "if", or a function's name
    args: tuple[Node, ...] = ()
    value: Value = 0
    quoted: bool = False


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
            text = str(text).lower() if isinstance(text, bool) else str(text)
        root = _Parser(text).parse()
        return Expression(text, frozenset(str(n.value) for n in _walk(root) if n.op == "name"), root)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value for these names: a scalar, or an array if any name is bound to one (arrays broadcast).

        A division by zero has no value (nan), so a comparison with it is false.
        Raises: ExpressionError for an unknown name or for operands that do not go together.
        """
        with np.errstate(all="ignore"):
            return _evaluate(self.root, values, self)

    def to_cpp(self, names: Mapping[str, str]) -> str:
        """The same expression in C++ integer arithmetic, names replaced by `names`.

        A word compared with a text knob is looked up as "knob.word", then as "word".
        Raises: ExpressionError for a name without a replacement and for / and ** which C++ integers do not have.
        """
        return _cpp(self.root, names, self)

    def bare_words(self, known: Iterable[str]) -> dict[str, set[str]]:
        """Unknown words that stand beside a known name in ==, != or in: word -> the names it is compared with."""
        names, beside = set(known), dict[str, set[str]]()
        for node in _walk(self.root):
            if node.op in ("==", "!=", "in"):
                sides = [str(a.value) for a in node.args if a.op == "name"]
                for word in sides:
                    if word not in names:
                        beside.setdefault(word, set()).update(n for n in sides if n in names)
        return {word: others for word, others in beside.items() if others}

    def __str__(self) -> str:
        return self.text


def nearest_name(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known name, or an empty text."""
    close = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def unknown_name(word: str, known: Iterable[str]) -> str:
    """That a name is unknown, and the nearest known one or what there is to choose from."""
    names = sorted({str(k) for k in known})
    choice = f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
    return f"unknown name {word!r}{nearest_name(word, names) or f'; expected one of {choice}'}"


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(text.rstrip()):
            match = TOKEN.match(text, position)
            if match is None:
                column = position + len(text[position:]) - len(text[position:].lstrip())
                raise ExpressionError(f"{text!r} is no expression: unexpected {text[column]!r} at column {column + 1}")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match.group(kind), match.start(kind)))
            position = match.end()
        if len(self.tokens) > MAX_TOKENS:
            raise ExpressionError(f"{text[:40]!r}... is longer than {MAX_TOKENS} words")
        self.at = 0
        self.depth = 0

    def parse(self) -> Node:
        if not self.tokens:
            raise ExpressionError("expected an expression, got an empty text")
        node = self.choice()
        if self.at < len(self.tokens):
            raise self.unexpected()
        return node

    def unexpected(self, wanted: str = "") -> ExpressionError:
        expected = f", expected {wanted}" if wanted else ""
        if self.at >= len(self.tokens):
            return ExpressionError(f"{self.text!r} is no expression: it ends too early{expected}")
        _, word, column = self.tokens[self.at]
        return ExpressionError(f"{self.text!r} is no expression: unexpected {word!r} at column {column + 1}{expected}")

    def peek(self, *words: str) -> str | None:
        """The next token's word if it is one of these (texts never are)."""
        if self.at < len(self.tokens):
            kind, word, _ = self.tokens[self.at]
            if kind != "text" and word in words:
                return word
        return None

    def take(self, *words: str) -> str | None:
        word = self.peek(*words)
        self.at += word is not None
        return word

    def need(self, word: str) -> None:
        if self.take(word) is None:
            raise self.unexpected(f"{word!r}")

    def choice(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"{self.text[:40]!r}... is nested deeper than {MAX_DEPTH} levels")
        node = self.either()
        if self.take("if"):
            condition = self.either()
            self.need("else")
            node = Node("if", (condition, node, self.choice()))
        self.depth -= 1
        return node

    def either(self) -> Node:
        return self.chain(self.both, "or")

    def both(self) -> Node:
        return self.chain(self.negated, "and")

    def chain(self, part: Callable[[], Node], *symbols: str) -> Node:
        node = part()
        while symbol := self.take(*symbols):
            node = Node(symbol, (node, part()))
        return node

    def negated(self) -> Node:
        return self.nested("not", self.negated) if self.take("not") else self.compared()

    def nested(self, op: str, part: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"{self.text[:40]!r}... is nested deeper than {MAX_DEPTH} levels")
        node = Node(op, (part(),))
        self.depth -= 1
        return node

    def compared(self) -> Node:
        left = self.sum()
        parts: list[Node] = []
        while symbol := self.take("<", "<=", ">", ">=", "==", "!=", "in", "not"):
            if symbol in ("in", "not"):
                if symbol == "not":
                    self.need("in")
                member = Node("in", (left, *self.members()))
                parts.append(Node("not", (member,)) if symbol == "not" else member)
                break
            right = self.sum()
            parts.append(Node(symbol, (left, right)))
            left = right
        if not parts:
            return left
        node = parts[0]
        for part in parts[1:]:
            node = Node("and", (node, part))
        return node

    def members(self) -> list[Node]:
        close = {"(": ")", "[": "]"}.get(self.take("(", "[") or "")
        if close is None:
            raise self.unexpected("a list such as (1, 2)")
        items = [self.choice()]
        while self.take(","):
            if self.peek(close):
                break
            items.append(self.choice())
        self.need(close)
        return items

    def sum(self) -> Node:
        return self.chain(self.term, "+", "-")

    def term(self) -> Node:
        return self.chain(self.signed, "*", "/", "//", "%")

    def signed(self) -> Node:
        if self.take("-"):
            return self.nested("neg", self.signed)
        if self.take("+"):
            return self.signed()
        base = self.atom()
        return Node("**", (base, self.signed())) if self.take("**") else base

    def atom(self) -> Node:
        if self.at >= len(self.tokens):
            raise self.unexpected("a value")
        kind, word, _ = self.tokens[self.at]
        if kind == "symbol" and word == "(":
            self.at += 1
            node = self.choice()
            self.need(")")
            return node
        if kind == "symbol" or word in KEYWORDS:
            raise self.unexpected("a value")
        self.at += 1
        if kind == "number":
            whole = word.isdigit()
            return Node("const", value=int(word) if whole else float(word))
        if kind == "text":
            return Node("const", value=word[1:-1], quoted=True)
        if word in ("true", "True", "false", "False"):
            return Node("const", value=word in ("true", "True"))
        return self.call(word) if self.peek("(") else Node("name", value=word)

    def call(self, word: str) -> Node:
        if word not in FUNCTIONS:
            raise ExpressionError(f"{self.text!r}: unknown function {word!r}, expected one of {', '.join(FUNCTIONS)}")
        arguments = self.members()
        fewest, most = FUNCTIONS[word]
        if len(arguments) < fewest or (most is not None and len(arguments) > most):
            wanted = f"{fewest}" if most == fewest else f"at least {fewest}"
            raise ExpressionError(f"{self.text!r}: {word}() takes {wanted} arguments, got {len(arguments)}")
        return Node(word, tuple(arguments))


def _walk(node: Node) -> Iterable[Node]:
    yield node
    for arg in node.args:
        yield from _walk(arg)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind in "US")


def _evaluate(node: Node, values: Mapping[str, Any], whole: Expression) -> Any:
    op = node.op
    if op == "const":
        return node.value
    if op == "name":
        if node.value not in values:
            raise ExpressionError(f"{whole.text!r}: unknown name {node.value!r}{nearest_name(str(node.value), values)}")
        return values[str(node.value)]
    if op in ("and", "or", "if"):
        return _evaluate_lazily(node, values, whole)
    if op in ("==", "!=", "in"):
        args = [_member(a, values, whole) for a in node.args]
        return _equal(op, args, whole)
    args = [_evaluate(a, values, whole) for a in node.args]
    for arg in args:
        if _is_text(arg):
            raise ExpressionError(f"{whole.text!r}: {op!r} does not go with a text; texts only compare by == != in")
    return OPERATIONS[op](*args)


def _evaluate_lazily(node: Node, values: Mapping[str, Any], whole: Expression) -> Any:
    first = _evaluate(node.args[0], values, whole)
    if not isinstance(first, np.ndarray):  # as in Python: what is not needed is not evaluated
        if node.op == "if":
            return _evaluate(node.args[1 if first else 2], values, whole)
        if bool(first) == (node.op == "or"):
            return bool(first)
        second = _evaluate(node.args[1], values, whole)
        return second.astype(bool) if isinstance(second, np.ndarray) else bool(second)
    rest = [_evaluate(a, values, whole) for a in node.args[1:]]
    if node.op == "if":
        return np.where(first, rest[0], rest[1])
    return np.logical_and(first, rest[0]) if node.op == "and" else np.logical_or(first, rest[0])


def _member(node: Node, values: Mapping[str, Any], whole: Expression) -> Any:
    """An operand of ==, != and in, where an unknown bare word is a text."""
    if node.op == "name" and node.value not in values:
        return _Word(str(node.value))
    return _evaluate(node, values, whole)


class _Word(str):
    """A bare word that no name is bound to: fine beside a text, an error elsewhere."""


def _equal(op: str, args: list[Any], whole: Expression) -> Any:
    left, others = args[0], args[1:]
    result: Any = False
    for right in others:
        if _is_text(left) != _is_text(right) or (isinstance(left, _Word) and isinstance(right, _Word)):
            word = next((a for a in (left, right) if isinstance(a, _Word)), None)
            if word is not None:
                raise ExpressionError(f"{whole.text!r}: unknown name {str(word)!r}")
            raise ExpressionError(f"{whole.text!r}: a text is compared with a number")
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
    return np.power(a, b) if np.all(np.asarray(b) >= 0) else np.power(np.asarray(a, float), b)


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


def _cpp(node: Node, names: Mapping[str, str], whole: Expression) -> str:
    op = node.op
    if op == "const":
        return _cpp_constant(node, names, whole)
    if op == "name":
        if node.value not in names:
            raise ExpressionError(
                f"{whole.text!r}: no C++ name for {node.value!r}{nearest_name(str(node.value), names)}"
            )
        return names[str(node.value)]
    if op in ("/", "**"):
        raise ExpressionError(f"{whole.text!r}: {op} has no meaning among C++ integers; write // or a product")
    if op in ("==", "!=", "in"):
        left, others = node.args[0], node.args[1:]
        symbol = "!=" if op == "!=" else "=="
        tests = [f"{_beside(left, r, names, whole)} {symbol} {_beside(r, left, names, whole)}" for r in others]
        return f"({tests[0]})" if len(tests) == 1 else "(" + " || ".join(f"({t})" for t in tests) + ")"
    args = [_cpp(a, names, whole) for a in node.args]
    if op == "ceil_div":
        return f"((({args[0]}) + ({args[1]}) - 1) / ({args[1]}))"
    if op in ("min", "max"):
        return _cpp_extreme("<" if op == "min" else ">", args)
    if op == "abs":
        return f"(({args[0]}) < 0 ? -({args[0]}) : ({args[0]}))"
    if op == "if":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    if op in ("not", "neg"):
        return f"({'!' if op == 'not' else '-'}{args[0]})"
    return f"({args[0]} {({'and': '&&', 'or': '||', '//': '/'}).get(op, op)} {args[1]})"


def _cpp_constant(node: Node, names: Mapping[str, str], whole: Expression) -> str:
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    if isinstance(node.value, str):
        if node.value in names:
            return names[node.value]
        raise ExpressionError(f"{whole.text!r}: no C++ name for the text {node.value!r}")
    return str(node.value)


def _beside(node: Node, other: Node, names: Mapping[str, str], whole: Expression) -> str:
    """An operand of a comparison, where a word may be a value of the knob on the other side."""
    word_like = node.op == "name" or (node.op == "const" and node.quoted)
    if word_like and other.op == "name" and f"{other.value}.{node.value}" in names:
        return names[f"{other.value}.{node.value}"]
    return _cpp(node, names, whole)


def _cpp_extreme(symbol: str, args: list[str]) -> str:
    result = args[0]
    for arg in args[1:]:
        result = f"(({result}) {symbol} ({arg}) ? ({result}) : ({arg}))"
    return result
