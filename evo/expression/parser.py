"""The grammar, by recursive descent.

choice  := either ["if" either "else" choice]           either := both ("or" both)*
both    := negated ("and" negated)*                     negated := "not" negated | compared
compared:= sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum | ["not"] "in" "(" choice, ... ")")*
sum     := term (("+" | "-") term)*                     term := signed (("*" | "/" | "//" | "%") signed)*
signed  := ("-" | "+") signed | atom ["**" signed]
atom    := number | true | false | "text" | name | name "(" choice, ... ")" | "(" choice ")"
"""

from __future__ import annotations

import re
from collections.abc import Callable

from evo.expression.node import ExpressionError, Node

MAX_TOKENS = 400
MAX_DEPTH = 60  # of nested brackets and operators; nobody writes more, and Python's own stack is finite
FUNCTIONS = {"min": (2, None), "max": (2, None), "abs": (1, 1), "ceil_div": (2, 2)}  # name -> fewest, most arguments
KEYWORDS = {"and", "or", "not", "in", "if", "else"}
TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')"
    r"|(?P<symbol>\*\*|//|<=|>=|==|!=|[-+*/%<>(),\[\]]))"
)


class Parser:
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
            if whole and int(word[:20]) >= 2**63:
                raise ExpressionError(f"{self.text[:40]!r}: {word[:20]}: expected numbers of at most 64 bits")
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
