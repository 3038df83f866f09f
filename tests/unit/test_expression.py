"""The grammar of rules: what it computes, what it becomes in C++, and what it says of mistakes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evo.expression import Expression, ExpressionError


def value(text: str, **names: object) -> object:
    return Expression.parse(text).evaluate(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("7 // 2 + 7 % 2", 4),
        ("-7 // 2", -4),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        ("not 1 == 2 and 3 >= 3", True),
        ("false or true", True),
        ("min(4, 2, 3) + max(1, 5) + abs(-6)", 13),
        ("ceil_div(65, 64)", 2),
        ("10 if 1 > 2 else 20", 20),
        ("3 in (1, 2, 3)", True),
        ("3 not in [1, 2]", True),
        ("'pad' == 'pad'", True),
        ("1.5e2 / 3", 50.0),
    ],
)
def test_values(text: str, expected: object) -> None:
    assert value(text) == expected


def test_columns_and_scalars_agree_on_every_operator() -> None:
    text = "(a % b == 0 or a // b > 2) and not (a in (3, 5)) and max(a, b) - min(a, b) <= 6 and ceil_div(a, b) != 4"
    expression = Expression.parse(text)
    a, b = (g.ravel() for g in np.meshgrid(np.arange(12), np.arange(5)))
    columns = expression.evaluate({"a": a, "b": b})
    assert columns.tolist() == [
        bool(expression.evaluate({"a": int(x), "b": int(y)})) for x, y in zip(a, b, strict=True)
    ]


def test_division_by_zero_has_no_value_and_admits_nothing() -> None:
    assert value("8 % zero == 0", zero=0) is False
    assert value("a % b == 0", a=np.array([8, 8]), b=np.array([0, 4])).tolist() == [False, True]  # type: ignore[attr-defined]
    assert value("b != 0 and a % b == 0", a=8, b=0) is False


def test_small_integer_columns_do_not_wrap() -> None:
    assert value("a * a", a=np.array([200], np.uint8)).tolist() == [40000]  # type: ignore[attr-defined]


def test_bare_words_stand_for_texts() -> None:
    assert value("swizzle == xor", swizzle="xor") is True
    assert value("swizzle in (pad, none)", swizzle="xor") is False
    assert value("swizzle != xor", swizzle=np.array(["xor", "pad"])).tolist() == [False, True]  # type: ignore[attr-defined]


def test_dotted_names() -> None:
    expression = Expression.parse("shared <= device.shared_bytes")
    assert expression.names == {"shared", "device.shared_bytes"}
    assert expression.evaluate({"shared": 4, "device.shared_bytes": 5}) is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a // b", "(A / B)"),
        ("ceil_div(a, b)", "(((A) + (B) - 1) / (B))"),
        ("a % 16 == 0 and not b > 2", "(((A % 16) == 0) && (!(B > 2)))"),
        ("swizzle == xor", "(S == Swizzle::kXor)"),
        ("a in (1, 2)", "((A == 1) || (A == 2))"),
        ("min(a, b)", "((A) < (B) ? (A) : (B))"),
        ("1 if fast else 2", "(F ? 1 : 2)"),
    ],
)
def test_cpp(text: str, expected: str) -> None:
    names = {"a": "A", "b": "B", "swizzle": "S", "swizzle.xor": "Swizzle::kXor", "fast": "F"}
    assert Expression.parse(text).to_cpp(names) == expected


@pytest.mark.parametrize("text", ["a / b", "a ** 2", "c + 1", "a == 'word'"])
def test_no_cpp(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression.parse(text).to_cpp({"a": "A", "b": "B"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty text"),
        ("a +", "ends too early"),
        ("a $ 2", "'$' at column 3"),
        ("a b", "'b' at column 3"),
        ("(a", "expected ')'"),
        ("sqrt(a)", "unknown function 'sqrt'"),
        ("min(a)", "at least 2 arguments"),
        ("a in 3", "expected a list"),
        ("__import__('os')", "unknown function"),
        ("a.b.", "unexpected '.'"),
        ("(" * 300, "nested deeper"),
        ("1" + "+1" * 1000, "longer than"),
        ("- " * 300 + "1", "nested deeper"),
    ],
)
def test_what_is_no_expression_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=r"^[^\n]*$") as caught:
        Expression.parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tile_r + 1", "did you mean tile_q"),
        ("swizzle + 1", "text"),
        ("swizzle == 1", "text"),
        ("swizzle < 'b'", "text"),
    ],
)
def test_operands_that_do_not_go_together(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=said):
        value(text, tile_q=1, swizzle="xor")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab1 +-*/%()<>=!,'.andornotif", max_size=30))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        Expression.parse(text).evaluate({"a": 1, "b": 2})


def test_a_product_beyond_64_bits_is_refused_and_does_not_wrap() -> None:
    product = Expression.parse("x * 99999999999 * (99999999999 * 99999999999) > 1")
    with pytest.raises(ExpressionError, match="expected numbers of at most 64 bits"):
        product.evaluate({"x": np.array([1, 2])})


def test_a_power_too_large_for_an_integer_is_no_number_and_does_not_wrap() -> None:
    lanes = np.array([1, 2, 8])
    assert np.asarray(value("lanes ** 100000 > 0", lanes=lanes)).tolist() == [True, False, False]
    assert np.asarray(value("lanes ** 3", lanes=lanes)).tolist() == [1, 8, 512]
    assert np.asarray(value("lanes ** 3", lanes=lanes)).dtype.kind == "i"
    assert np.asarray(value("2 ** -lanes", lanes=lanes)).tolist() == [0.5, 0.25, 2.0**-8]
