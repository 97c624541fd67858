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
_BoundsOfOperand = Callable[[int], Bounds]  # of an operand by its number


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
    if value in known:
        return known[value]
    owner = value.owner
    if isinstance(owner, ir.Block):
        return _ANY
    rule = _RULES.get(owner.operation.name)
    found = _ANY
    if rule is not None:
        operands = list(owner.operation.operands)
        found = rule(owner.operation, lambda k: _bounds(operands[k], known))
    known[value] = found
    return found


def _constant(op: ir.Operation, of: _BoundsOfOperand) -> Bounds:
    attribute = op.attributes["value"]
    if isinstance(attribute, ir.DenseElementsAttr) and attribute.is_splat:
        attribute = attribute.get_splat_value()
    if not isinstance(attribute, ir.FloatAttr) or math.isnan(attribute.value):
        return _ANY
    return Bounds(attribute.value, attribute.value)


def _sum(a: Bounds, b: Bounds) -> Bounds:
    low, high = a.low + b.low, a.high + b.high
    return _ANY if math.isnan(low) or math.isnan(high) else Bounds(low, high)


def _product(a: Bounds, b: Bounds) -> Bounds:
    # 0 times an end that is infinite: the factors are numbers, as large as they may be.
    ends = [0.0 if math.isnan(x * y) else x * y for x in a for y in b]
    return Bounds(min(ends), max(ends))


def _multiplication(op: ir.Operation, of: _BoundsOfOperand) -> Bounds:
    return _NOT_NEGATIVE if op.operands[0] == op.operands[1] else _product(of(0), of(1))


def _quotient(op: ir.Operation, of: _BoundsOfOperand) -> Bounds:
    """Follow the signs only."""
    divisor = of(1)
    if divisor.low >= 0:
        return _product(of(0), _NOT_NEGATIVE)
    return _product(of(0), _negative(_NOT_NEGATIVE)) if divisor.high <= 0 else _ANY


def _negative(a: Bounds) -> Bounds:
    return Bounds(-a.high, -a.low)


def _either(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(min(a.low, b.low), max(a.high, b.high))


_RULES: dict[str, Callable[[ir.Operation, _BoundsOfOperand], Bounds]] = {
    "arith.constant": _constant,
    "arith.addf": lambda op, of: _sum(of(0), of(1)),
    "arith.mulf": _multiplication,
    "math.fma": lambda op, of: _sum(_multiplication(op, of), of(2)),
    "arith.divf": _quotient,
    "arith.negf": lambda op, of: _negative(of(0)),
    "arith.select": lambda op, of: _either(of(1), of(2)),
    "vector.broadcast": lambda op, of: of(0),
    **dict.fromkeys(("math.absf", "math.sqrt", "math.exp", "math.exp2"), lambda op, of: _NOT_NEGATIVE),
}
