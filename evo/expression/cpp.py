"""A parsed expression in C++ integer arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

from evo.expression.node import ExpressionError, Node, nearest_name


def to_cpp(node: Node, names: Mapping[str, str], text: str) -> str:
    """The node in C++, names replaced by `names`.

    text: the whole expression, for messages.
    Raises: ExpressionError for a name without a replacement and for what C++ integers do not have.
    """
    op = node.op
    if op == "const":
        return _cpp_constant(node, names, text)
    if op == "name":
        if node.value not in names:
            raise ExpressionError(f"{text!r}: no C++ name for {node.value!r}{nearest_name(str(node.value), names)}")
        return names[str(node.value)]
    if op in ("/", "**"):
        raise ExpressionError(f"{text!r}: {op} has no meaning among C++ integers; write // or a product")
    if op in ("==", "!=", "in"):
        left, others = node.args[0], node.args[1:]
        symbol = "!=" if op == "!=" else "=="
        tests = [f"{_beside(left, r, names, text)} {symbol} {_beside(r, left, names, text)}" for r in others]
        return f"({tests[0]})" if len(tests) == 1 else "(" + " || ".join(f"({t})" for t in tests) + ")"
    args = [to_cpp(a, names, text) for a in node.args]
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


def _cpp_constant(node: Node, names: Mapping[str, str], text: str) -> str:
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    if isinstance(node.value, str):
        if node.value in names:
            return names[node.value]
        raise ExpressionError(f"{text!r}: no C++ name for the text {node.value!r}")
    return str(node.value)


def _beside(node: Node, other: Node, names: Mapping[str, str], text: str) -> str:
    """An operand of a comparison, where a word may be a value of the knob on the other side."""
    word_like = node.op == "name" or (node.op == "const" and node.quoted)
    if word_like and other.op == "name" and f"{other.value}.{node.value}" in names:
        return names[f"{other.value}.{node.value}"]
    return to_cpp(node, names, text)


def _cpp_extreme(symbol: str, args: list[str]) -> str:
    result = args[0]
    for arg in args[1:]:
        result = f"(({result}) {symbol} ({arg}) ? ({result}) : ({arg}))"
    return result
