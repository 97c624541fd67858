"""Elementary functions of complex values, each composed of real ones."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from pylazy.complex_numbers.complex_arithmetic import Complex, divide, full, is_nothing, multiply, reciprocal
from pylazy.expression import constant
from pylazy.lazy_formula import new
from pylazy.lazy_tensor import LazyTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pylazy.complex_numbers.complex_arithmetic import ComplexRule, Full


def number(value: float) -> LazyTensor:
    """A number that is part of the formula."""
    return new(LazyTensor, constant(value), (), None, None, None)


def _magnitude(x: LazyTensor) -> LazyTensor:
    """|x| with a derivative of 1 at 0, for uses whose other branch mirrors it."""
    return (x >= 0).where(x, -x)


def _odd(x: LazyTensor, function: Callable[[LazyTensor], LazyTensor]) -> LazyTensor:
    """An odd function, of which `function` is right for x >= 0."""
    value = function(_magnitude(x))
    return (x >= 0).where(value, -value)


def _is_negative(x: LazyTensor) -> LazyTensor:
    """The sign bit, so true for -0.0: branch cuts have two sides."""
    return (x == 0).where(1 / x, x) < 0


def _asinh(x: LazyTensor) -> LazyTensor:
    return _odd(x, lambda m: (m + m * (m / (1 + m.hypot(1)))).log1p())


def exp(z: Complex) -> Complex:
    """The exponential of z."""
    a, b = full(z)
    if is_nothing(a):
        return Complex(b.cos(), b.sin())
    scale = a.exp()
    return Complex(scale * b.cos(), _stretched(b.sin(), scale))


def _stretched(x: LazyTensor, scale: LazyTensor) -> LazyTensor:
    """Multiply; 0 stays 0 where the scale overflows, as on the axes. Derivatives are those of the product."""
    axis = (x == 0).logical_and(scale.abs() == number(math.inf))
    return x * axis.where(1, scale)


def _log_of_size(a: LazyTensor, b: LazyTensor, excess: Callable[[LazyTensor, LazyTensor], LazyTensor]) -> LazyTensor:
    """Find log |z|, near |z| = 1 from |z|**2 - 1, which `excess` finds from the larger part and the other.

    Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CLOG).
    """
    size = a.hypot(b)
    near = (2 * size > 1).logical_and(size < 2)
    return near.where(near.where(excess(a, b), 0).log1p() / 2, size.log())


def log(z: Complex) -> Complex:
    """The principal logarithm of z."""
    a, b = full(z)
    first = a.abs() >= b.abs()

    def excess(a: LazyTensor, b: LazyTensor) -> LazyTensor:
        large, small = first.where(a, b), first.where(b, a)
        return (large - 1) * (large + 1) + small * small

    return Complex(_log_of_size(a, b, excess), b.atan2(a))


def _log1p(z: Complex) -> Complex:
    a, b = full(z)
    return Complex(_log_of_size(1 + a, b, lambda _, b: a * (a + 2) + b * b), b.atan2(1 + a))


def _expm1(z: Complex) -> Complex:
    a, b = full(z)
    half = (b / 2).sin()
    return Complex(a.expm1() * b.cos() - 2 * half * half, _stretched(b.sin(), a.exp()))


def _scaled(z: Complex, factor: float) -> Complex:
    return multiply(z, Complex(number(factor), None))


def _log2(z: Complex) -> Complex:
    return divide(log(z), Complex(number(math.log(2)), None))


def _sqrt(z: Complex) -> Complex:
    """Find the root with a real part of at least 0; exact on the axes, and on both sides of the branch cut.

    Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CSQRT).
    """
    a, b = full(z)
    right = a >= 0
    long = (a.hypot(b) / 2 + _magnitude(a) / 2).sqrt()
    short = b / (long == 0).where(1, 2 * long)
    below = _is_negative(b)
    return Complex(right.where(long, below.where(-short, short)), right.where(short, below.where(-long, long)))


def _sin(z: Complex) -> Complex:
    a, b = full(z)
    return Complex(_stretched(a.sin(), b.cosh()), a.cos() * b.sinh())


def _cos(z: Complex) -> Complex:
    a, b = full(z)
    return Complex(a.cos() * b.cosh(), -_stretched(a.sin(), b.sinh()))


def _sinh(z: Complex) -> Complex:
    a, b = full(z)
    return Complex(a.sinh() * b.cos(), _stretched(b.sin(), a.cosh()))


def _cosh(z: Complex) -> Complex:
    a, b = full(z)
    return Complex(a.cosh() * b.cos(), _stretched(b.sin(), a.sinh()))


def _tanh(z: Complex) -> Complex:
    """Find tanh(a + ib) from tanh(a) and tan(b), with 1 - tanh(a)**2 from an exponential that cannot overflow."""
    a, b = full(z)
    across, along = a.tanh(), b.tan()
    decay = (-2 * _magnitude(a)).exp()
    slope = 4 * decay / (1 + decay).square()
    divisor = 1 + (across * along).square()
    return Complex(across * (1 + along * along) / divisor, along * slope / divisor)


def _atanh(z: Complex) -> Complex:
    a, b = full(z)
    re = _odd(a, lambda m: (4 * m / ((1 - m).square() + b * b)).log1p() / 4)
    return Complex(re, (2 * b).atan2((1 - a) * (1 + a) - b * b) / 2)


def _turned(function: ComplexRule) -> ComplexRule:
    """The function -i f(i z), as tan is of tanh."""

    def rule(z: Complex) -> Complex:
        a, b = full(z)
        re, im = full(function(Complex(-b, a)))
        return Complex(im, -re)

    return rule


def _roots_around_one(z: Complex) -> tuple[Full, Full]:
    """Give sqrt(1 - z) and sqrt(1 + z)."""
    a, b = full(z)
    return full(_sqrt(Complex(1 - a, -b))), full(_sqrt(Complex(1 + a, b)))


def _asin(z: Complex) -> Complex:
    """Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CASIN)."""
    (p, q), (r, s) = _roots_around_one(z)
    return Complex(z.re.atan2(p * r - q * s), _asinh(p * s - q * r))


def _acos(z: Complex) -> Complex:
    """Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CACOS)."""
    (p, q), (r, s) = _roots_around_one(z)
    return Complex(2 * p.atan2(r), _asinh(r * q - s * p))


def _sinxdivx(z: Complex) -> Complex:
    a, b = full(z)
    nothing = (a == 0).logical_and(b == 0)
    re, im = full(divide(_sin(z), Complex(nothing.where(1, a), b)))
    return Complex(nothing.where(1, re), nothing.where(0, im))


def _sign(z: Complex) -> Complex:
    a, b = full(z)
    size = a.hypot(b)
    divisor = (size == 0).where(1, size)
    return Complex(a / divisor, b / divisor)


ELEMENTARY_FUNCTIONS: Mapping[str, ComplexRule] = MappingProxyType(
    {
        "sign": _sign,
        "exp": exp,
        "exp2": lambda z: exp(_scaled(z, math.log(2))),
        "expm1": _expm1,
        "log": log,
        "log2": _log2,
        "log1p": _log1p,
        "sqrt": _sqrt,
        "rsqrt": lambda z: reciprocal(_sqrt(z)),
        "sin": _sin,
        "cos": _cos,
        "tan": _turned(_tanh),
        "sinh": _sinh,
        "cosh": _cosh,
        "tanh": _tanh,
        "asin": _asin,
        "acos": _acos,
        "atan": _turned(_atanh),
        "sinxdivx": _sinxdivx,
    }
)
"""By the name of the operation."""
