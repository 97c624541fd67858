"""Numbers with a tangent, as IR: what is written for numbers gives derivatives when it is run on these.

A number is a value, or a `Dual` of two numbers; a value among duals is a constant, whose tangent is 0. Duals of duals
give second derivatives, and so on (Griewank and Walther, Evaluating Derivatives, chapter 3).
"""

from dataclasses import dataclass
from typing import Any, Union

from pylazy.compiler import kernel_builder as kb

Number = Union[Any, "Dual"]  # an ir.Value, or a dual


@dataclass(frozen=True)
class Dual:
    """A number and its tangent."""

    value: Number
    tangent: Number


def primal(x: Number) -> Any:
    """Give the value under all tangents."""
    while isinstance(x, Dual):
        x = x.value
    return x


def leaves(x: Number, depth: int) -> list[Any]:
    """Give the values of a number of duals in duals, constants written out; the last is the tangent of tangents."""
    if depth == 0:
        return [x]
    if isinstance(x, Dual):
        return leaves(x.value, depth - 1) + leaves(x.tangent, depth - 1)
    zero = kb.constant(0.0, primal(x).type)
    return leaves(x, depth - 1) + leaves(zero, depth - 1)


def from_leaves(values: list[Any]) -> Number:
    """Build the number that has these leaves."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return Dual(from_leaves(values[:half]), from_leaves(values[half:]))


def add(x: Number, y: Number) -> Number:
    """Build a sum."""
    if isinstance(x, Dual) and isinstance(y, Dual):
        return Dual(add(x.value, y.value), add(x.tangent, y.tangent))
    if isinstance(y, Dual):
        x, y = y, x
    return Dual(add(x.value, y), x.tangent) if isinstance(x, Dual) else kb.add(x, y)


def neg(x: Number) -> Number:
    """Build a negation."""
    return Dual(neg(x.value), neg(x.tangent)) if isinstance(x, Dual) else kb.neg(x)


def sub(x: Number, y: Number) -> Number:
    """Build a difference."""
    return add(x, neg(y)) if isinstance(x, Dual) or isinstance(y, Dual) else kb.sub(x, y)


def mul(x: Number, y: Number) -> Number:
    """Build a product."""
    if isinstance(x, Dual) and isinstance(y, Dual):
        return Dual(mul(x.value, y.value), add(mul(x.value, y.tangent), mul(x.tangent, y.value)))
    if isinstance(y, Dual):
        x, y = y, x
    return Dual(mul(x.value, y), mul(x.tangent, y)) if isinstance(x, Dual) else kb.mul(x, y)


def reciprocal(x: Number) -> Number:
    """Build 1 / x."""
    if not isinstance(x, Dual):
        return kb.div(kb.constant(1.0, x.type), x)
    inverse = reciprocal(x.value)
    return Dual(inverse, neg(mul(mul(inverse, inverse), x.tangent)))


def exp(x: Number) -> Number:
    """Build an exponential."""
    if not isinstance(x, Dual):
        return kb.math_op("exp", x)
    power = exp(x.value)
    return Dual(power, mul(power, x.tangent))


def log(x: Number) -> Number:
    """Build a natural logarithm."""
    if not isinstance(x, Dual):
        return kb.math_op("log", x)
    return Dual(log(x.value), mul(x.tangent, reciprocal(x.value)))


def select(condition: Any, x: Number, otherwise: float) -> Number:
    """Build `condition ? x : otherwise`, a constant."""
    if isinstance(x, Dual):
        return Dual(select(condition, x.value, otherwise), select(condition, x.tangent, 0.0))
    return kb.select(condition, x, kb.constant(otherwise, x.type))
