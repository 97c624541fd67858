"""The table of operations on complex formulas, each composed of real ones."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from pylazy.complex_numbers.complex_arithmetic import (
    Complex,
    add,
    bilinear,
    divide,
    full,
    multiply,
    partwise,
    reciprocal,
    square,
    subtract,
)
from pylazy.complex_numbers.complex_functions import ELEMENTARY_FUNCTIONS, exp, log, number
from pylazy.lazy_tensor import LazyTensor
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Rule = Callable[..., "Complex | LazyTensor"]

_MAX_PRODUCT_EXPONENT = 100
"""Beyond it, powers are exponentials of logarithms; NumPy's own bound, in npy_cpow."""


def _truth(z: Complex) -> LazyTensor:
    return z.re != 0 if z.im is None else (z.re != 0).logical_or(z.im != 0)


# Arithmetic -----------------------------------------------------------------------------------------------------------


def _power_of_integer(z: Complex, exponent: int) -> Complex:
    if exponent == 0:
        return Complex(z.re**0, None)
    if abs(exponent) > _MAX_PRODUCT_EXPONENT:
        return _power(z, Complex(LazyTensor(exponent), None))
    result: Complex | None = None
    factor, rest = z, abs(exponent)
    while True:
        if rest & 1:
            result = factor if result is None else multiply(result, factor)
        rest >>= 1
        if not rest:
            break
        factor = square(factor)
    assert result is not None
    return result if exponent > 0 else reciprocal(result)


def _power(x: Complex, y: Complex) -> Complex:
    """Find x ** y as exp(y log(x)); at 0, where there is no logarithm, as NumPy."""
    a, b = full(x)
    c, d = full(y)
    nothing = (a == 0).logical_and(b == 0)
    re, im = full(exp(multiply(log(Complex(nothing.where(1, a), b)), y)))
    one = (c == 0).logical_and(d == 0)
    at_zero = (c > 0).where(0, one.where(1, number(math.nan)))
    return Complex(nothing.where(at_zero, re), nothing.where(at_zero - at_zero, im))


def _inner_prod(z: Complex) -> Complex:
    """Multiply the first half of the components with the second until one is left."""
    parts = full(z)
    while (dim := parts[0].ndim) > 1:
        half = dim // 2
        first, second = (Complex(*(part.extract(start, half) for part in parts)) for start in (0, half))
        product = full(multiply(first, second))
        if dim % 2:
            product = (product[0].concat(parts[0].elem(-1)), product[1].concat(parts[1].elem(-1)))
        parts = product
    return Complex(*parts)


# Vectors --------------------------------------------------------------------------------------------------------------


def _concat(x: Complex, y: Complex) -> Complex:
    (a, b), (c, d) = full(x), full(y)
    return Complex(a.concat(c), b.concat(d))


def _sqnorm2(z: Complex) -> LazyTensor:
    a, b = full(z)
    return a.sqnorm2() + b.sqnorm2()


def _norm2(z: Complex) -> LazyTensor:
    a, b = full(z)
    return a.concat(b).norm2()


def _normalize(z: Complex) -> Complex:
    a, b = full(z)
    scale = _sqnorm2(z).rsqrt()
    return Complex(a * scale, b * scale)


def _sqdist(x: Complex, y: Complex) -> LazyTensor:
    (a, b), (c, d) = full(x), full(y)
    return a.sqdist(c) + b.sqdist(d)


# Selection and logic --------------------------------------------------------------------------------------------------


def _where(condition: Complex, x: Complex, y: Complex) -> Complex:
    (a, b), (c, d) = full(x), full(y)
    truth = condition.re if condition.im is None else _truth(condition)
    return Complex(truth.where(a, c), truth.where(b, d))


def _ifelse(condition: Complex, x: Complex, y: Complex) -> Complex:
    if condition.im is not None:
        raise UnsupportedError(
            at_user_line("ifelse of a complex condition: complex numbers have no order, expected a real one")
        )
    return _where(Complex(condition.re >= 0, None), x, y)


def _equal(x: Complex, y: Complex) -> LazyTensor:
    (a, b), (c, d) = full(x), full(y)
    return (a == c).logical_and(b == d)


OPERATIONS_ON_COMPLEX: Mapping[str, Rule] = MappingProxyType(
    {
        **{op: partwise(op) for op in ("neg", "extract", "broadcast", "inner_sum", "round")},
        **{op: bilinear(op) for op in ("mul", "dot", "contract")},
        "add": add,
        "sub": subtract,
        "div": divide,
        "reciprocal": reciprocal,
        "square": square,
        "powi": _power_of_integer,
        "pow": _power,
        "inner_prod": _inner_prod,
        **ELEMENTARY_FUNCTIONS,
        "abs": lambda z: z.re.hypot(full(z)[1]),
        "concat": _concat,
        "sqnorm2": _sqnorm2,
        "norm2": _norm2,
        "normalize": _normalize,
        "sqdist": _sqdist,
        "where": _where,
        "ifelse": _ifelse,
        "eq": _equal,
        "ne": lambda x, y: _equal(x, y).logical_not(),
        "isnan": lambda z: z.re.isnan().logical_or(full(z)[1].isnan()),
        "logical_not": lambda z: _truth(z).logical_not(),
        "logical_and": lambda x, y: _truth(x).logical_and(_truth(y)),
        "logical_or": lambda x, y: _truth(x).logical_or(_truth(y)),
    }
)
"""For each operation with a meaning for complex numbers, how to compose it; the others are refused."""
