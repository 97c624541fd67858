"""What is known of a number from the operations that make it: an interval that holds it, if it is not NaN.

A distance is not negative and a kernel of it has no large exponential: functions need no code for what cannot come.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from pylazy.compiler.mlir import ir

__all__ = ["Bounds", "bounds_of", "without_sign"]


class Bounds(NamedTuple):
    """An interval, ends included."""

    low: float
    high: float


_ANY = Bounds(-math.inf, math.inf)
_NOT_NEGATIVE = Bounds(0.0, math.inf)


def bounds_of(value: ir.Value) -> Bounds:
    """Return bounds of each element of a value, in the middle of a loop as elsewhere.

    Roundings do not leave the bounds: they are monotone, and a bound is a float of the type, or is not near one that
    matters.
    """
    return _bounds(value, {})


def without_sign(x: ir.Value) -> tuple[ir.Value, float]:
    """Return y and a sign with x = sign * y: factors that are constants take a sign for nothing."""
    owner = x.owner
    is_negation = not isinstance(owner, ir.Block) and owner.operation.name == "arith.negf"
    return (owner.operands[0], -1.0) if is_negation else (x, 1.0)


def _bounds(value: ir.Value, known: dict[ir.Value, Bounds]) -> Bounds:
    if value not in known:
        owner = value.owner
        known[value] = _ANY if isinstance(owner, ir.Block) else _bounds_of_result(owner.operation, known)
    return known[value]


def _bounds_of_result(op: ir.Operation, known: dict[ir.Value, Bounds]) -> Bounds:
    if op.name == "arith.constant":
        return _constant(op.attributes["value"])
    rule = _RULES.get(op.name)
    if rule is None and op.name != "arith.select":
        return _ANY
    operands = list(op.operands)
    bounds = [_bounds(operand, known) for operand in operands]
    if op.name in _PRODUCTS and operands[0] == operands[1]:
        bounds[:2] = [_magnitude(bounds[0])] * 2
    return rule(*bounds) if rule is not None else _choice(op, *bounds[1:])


def _constant(value: ir.Attribute) -> Bounds:
    if isinstance(value, ir.DenseElementsAttr) and value.is_splat:
        value = value.get_splat_value()
    if not isinstance(value, ir.FloatAttr) or math.isnan(value.value):
        return _ANY
    return Bounds(value.value, value.value)


def _sum(a: Bounds, b: Bounds) -> Bounds:
    low, high = a.low + b.low, a.high + b.high
    return _ANY if math.isnan(low) or math.isnan(high) else Bounds(low, high)


def _product(a: Bounds, b: Bounds) -> Bounds:
    # 0 times an end that is infinite: the factors are numbers, as large as they may be.
    ends = [0.0 if math.isnan(x * y) else x * y for x in a for y in b]
    return Bounds(min(ends), max(ends))


def _quotient(a: Bounds, divisor: Bounds) -> Bounds:
    """Follow the signs only."""
    if divisor.low >= 0:
        return _product(a, _NOT_NEGATIVE)
    return _product(a, _negative(_NOT_NEGATIVE)) if divisor.high <= 0 else _ANY


def _negative(a: Bounds) -> Bounds:
    return Bounds(-a.high, -a.low)


def _magnitude(a: Bounds) -> Bounds:
    return Bounds(max(0.0, a.low, -a.high), max(abs(a.low), abs(a.high)))


def _choice(op: ir.Operation, a: Bounds, b: Bounds) -> Bounds:
    """Follow `x > a ? a : x` and `x < a ? a : x` for a constant a, which leave NaN alone, or take both for possible."""
    condition, first, second = op.operands
    if not isinstance(condition.owner, ir.Block) and condition.owner.operation.name == "arith.cmpf" and a.low == a.high:
        x, limit = condition.owner.operands
        predicate = condition.owner.operation.attributes["predicate"].value
        if (x, limit) == (second, first) and predicate in _GREATER:
            return Bounds(min(a.low, b.low), min(a.high, b.high))
        if (x, limit) == (second, first) and predicate in _LESS:
            return Bounds(max(a.low, b.low), max(a.high, b.high))
    return Bounds(min(a.low, b.low), max(a.high, b.high))


#: Predicates of `arith.cmpf` that do not hold for NaN: ogt and oge, olt and ole.
_GREATER, _LESS = frozenset({2, 3}), frozenset({4, 5})
_PRODUCTS = frozenset({"arith.mulf", "math.fma"})
_RULES: dict[str, Callable[..., Bounds]] = {
    "arith.addf": _sum,
    "arith.mulf": _product,
    "arith.divf": _quotient,
    "arith.negf": _negative,
    "math.absf": _magnitude,
    "math.fma": lambda a, b, c: _sum(_product(a, b), c),
    "vector.broadcast": lambda a: a,
    **dict.fromkeys(("math.sqrt", "math.exp", "math.exp2"), lambda _: _NOT_NEGATIVE),
}
