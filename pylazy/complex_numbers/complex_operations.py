"""The table of operations on complex formulas, each composed of real ones."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.expression import constant
from pylazy.lazy_formula import new
from pylazy.lazy_tensor import LazyTensor
from pylazy.methods.operands import combine
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    ComplexRule = Callable[..., "Complex"]
    Rule = Callable[..., "Complex | LazyTensor"]

_MAX_PRODUCT_EXPONENT = 100
"""Beyond it, powers are exponentials of logarithms; NumPy's own bound, in npy_cpow."""


class Complex(NamedTuple):
    """A complex value, as real formulas.

    Attributes:
        re: the real part.
        im: the imaginary part; None for a real operand, which spares the work on zeros.
    """

    re: LazyTensor
    im: LazyTensor | None


Full = tuple[LazyTensor, LazyTensor]


def zeros(dim: int) -> LazyTensor:
    """A vector of zeros."""
    zero = LazyTensor(0)
    return zero if dim == 1 else zero.sumT(dim)


def _full(z: Complex) -> Full:
    return z.re, zeros(z.re.ndim) if z.im is None else z.im


def _number(value: float) -> LazyTensor:
    """A number that is part of the formula."""
    return new(LazyTensor, constant(value), (), None, None, None)


def _truth(z: Complex) -> LazyTensor:
    return z.re != 0 if z.im is None else (z.re != 0).logical_or(z.im != 0)


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


# Arithmetic -----------------------------------------------------------------------------------------------------------


def _partwise(op: str) -> ComplexRule:
    """A linear operation: on each part by itself."""

    def rule(z: Complex, **attributes: Any) -> Complex:
        re, im = (combine(op, part, attributes=tuple(attributes.items())) for part in _full(z))
        return Complex(re, im)

    return rule


def _bilinear(op: str) -> ComplexRule:
    """An operation that is linear in each of two operands.

    Parts that are 0 by construction, as those of 1j and of real operands, cost nothing: a product of a real and an
    imaginary number is imaginary, so that exp(1j * x) takes no real exponential, and infinities keep their direction.
    """

    def rule(x: Complex, y: Complex, **attributes: Any) -> Complex:
        def product(a: LazyTensor, b: LazyTensor) -> LazyTensor:
            return combine(op, a, b, attributes=tuple(attributes.items()))

        def times(a: LazyTensor | None, b: LazyTensor | None) -> LazyTensor | None:
            return None if a is None or b is None or _is_nothing(a) or _is_nothing(b) else product(a, b)

        first, second = times(x.re, y.re), times(x.im, y.im)
        re = first if second is None else -second if first is None else first - second
        first, second = times(x.re, y.im), times(x.im, y.re)
        im = first if second is None else second if first is None else first + second
        if re is None:
            return Complex(product(x.re, y.re) if im is None else zeros(im.ndim), im)
        return Complex(re, im)

    return rule


def _is_nothing(x: LazyTensor) -> bool:
    """Whether these are zeros by construction."""
    node = x._expression
    while node.op == "broadcast":
        node = node.operands[0]
    return node.op == "constant" and node.source == 0


_multiply = _bilinear("mul")


def _add(x: Complex, y: Complex) -> Complex:
    if x.im is None or y.im is None:
        return Complex(x.re + y.re, y.im if x.im is None else x.im)
    return Complex(x.re + y.re, x.im + y.im)


def _negative(z: Complex) -> Complex:
    return Complex(-z.re, None if z.im is None else -z.im)


def _subtract(x: Complex, y: Complex) -> Complex:
    return _add(x, _negative(y)) if x.im is None or y.im is None else Complex(x.re - y.re, x.im - y.im)


def _divide(x: Complex, y: Complex) -> Complex:
    """Divide without overflow on the way: Smith, Algorithm 116: Complex division, CACM 1962, as NumPy does."""
    if y.im is None:
        return Complex(x.re / y.re, None if x.im is None else x.im / y.re)
    c, d = y.re, y.im
    first = c.abs() >= d.abs()
    large, small = first.where(c, d), first.where(d, c)
    nothing = large == 0  # a quotient by 0 is that of each part
    ratio = small / nothing.where(1, large)
    divisor = nothing.where(0, large + small * ratio)
    a, b = x.re, x.im
    if b is None:
        return Complex(first.where(a, a * ratio) / divisor, first.where(-(a * ratio), -a) / divisor)
    re = first.where(a + b * ratio, a * ratio + b)
    im = first.where(b - a * ratio, b * ratio - a)
    return Complex(re / divisor, im / divisor)


def _reciprocal(z: Complex) -> Complex:
    return _divide(Complex(LazyTensor(1), None), z)


def _square(z: Complex) -> Complex:
    a, b = _full(z)
    return Complex((a - b) * (a + b), 2 * (a * b))


def _power_of_integer(z: Complex, exponent: int) -> Complex:
    if exponent == 0:
        return Complex(z.re**0, None)
    if abs(exponent) > _MAX_PRODUCT_EXPONENT:
        return _power(z, Complex(LazyTensor(exponent), None))
    result: Complex | None = None
    square, rest = z, abs(exponent)
    while True:
        if rest & 1:
            result = square if result is None else _multiply(result, square)
        rest >>= 1
        if not rest:
            break
        square = _square(square)
    assert result is not None
    return result if exponent > 0 else _reciprocal(result)


def _power(x: Complex, y: Complex) -> Complex:
    """Find x ** y as exp(y log(x)); at 0, where there is no logarithm, as NumPy."""
    a, b = _full(x)
    c, d = _full(y)
    nothing = (a == 0).logical_and(b == 0)
    re, im = _full(_exp(_multiply(_log(Complex(nothing.where(1, a), b)), y)))
    one = (c == 0).logical_and(d == 0)
    at_zero = (c > 0).where(0, one.where(1, _number(math.nan)))
    return Complex(nothing.where(at_zero, re), nothing.where(at_zero - at_zero, im))


def _inner_prod(z: Complex) -> Complex:
    """Multiply the first half of the components with the second until one is left."""
    parts = _full(z)
    while (dim := parts[0].ndim) > 1:
        half = dim // 2
        first, second = (Complex(*(part.extract(start, half) for part in parts)) for start in (0, half))
        product = _full(_multiply(first, second))
        if dim % 2:
            product = (product[0].concat(parts[0].elem(-1)), product[1].concat(parts[1].elem(-1)))
        parts = product
    return Complex(*parts)


# Functions ------------------------------------------------------------------------------------------------------------


def _exp(z: Complex) -> Complex:
    a, b = _full(z)
    if _is_nothing(a):
        return Complex(b.cos(), b.sin())
    scale = a.exp()
    return Complex(scale * b.cos(), _stretched(b.sin(), scale))


def _stretched(x: LazyTensor, scale: LazyTensor) -> LazyTensor:
    """Multiply; 0 stays 0 where the scale overflows, as on the axes. Derivatives are those of the product."""
    axis = (x == 0).logical_and(scale.abs() == _number(math.inf))
    return x * axis.where(1, scale)


def _log_of_size(a: LazyTensor, b: LazyTensor, excess: Callable[[LazyTensor, LazyTensor], LazyTensor]) -> LazyTensor:
    """Find log |z|, near |z| = 1 from |z|**2 - 1, which `excess` finds from the larger part and the other.

    Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CLOG).
    """
    size = a.hypot(b)
    near = (2 * size > 1).logical_and(size < 2)
    return near.where(near.where(excess(a, b), 0).log1p() / 2, size.log())


def _log(z: Complex) -> Complex:
    a, b = _full(z)
    first = a.abs() >= b.abs()

    def excess(a: LazyTensor, b: LazyTensor) -> LazyTensor:
        large, small = first.where(a, b), first.where(b, a)
        return (large - 1) * (large + 1) + small * small

    return Complex(_log_of_size(a, b, excess), b.atan2(a))


def _log1p(z: Complex) -> Complex:
    a, b = _full(z)
    return Complex(_log_of_size(1 + a, b, lambda _, b: a * (a + 2) + b * b), b.atan2(1 + a))


def _expm1(z: Complex) -> Complex:
    a, b = _full(z)
    half = (b / 2).sin()
    return Complex(a.expm1() * b.cos() - 2 * half * half, _stretched(b.sin(), a.exp()))


def _scaled(z: Complex, factor: float) -> Complex:
    return _multiply(z, Complex(_number(factor), None))


def _log2(z: Complex) -> Complex:
    return _divide(_log(z), Complex(_number(math.log(2)), None))


def _sqrt(z: Complex) -> Complex:
    """Find the root with a real part of at least 0; exact on the axes, and on both sides of the branch cut.

    Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CSQRT).
    """
    a, b = _full(z)
    right = a >= 0
    long = (a.hypot(b) / 2 + _magnitude(a) / 2).sqrt()
    short = b / (long == 0).where(1, 2 * long)
    below = _is_negative(b)
    return Complex(right.where(long, below.where(-short, short)), right.where(short, below.where(-long, long)))


def _sin(z: Complex) -> Complex:
    a, b = _full(z)
    return Complex(_stretched(a.sin(), b.cosh()), a.cos() * b.sinh())


def _cos(z: Complex) -> Complex:
    a, b = _full(z)
    return Complex(a.cos() * b.cosh(), -_stretched(a.sin(), b.sinh()))


def _sinh(z: Complex) -> Complex:
    a, b = _full(z)
    return Complex(a.sinh() * b.cos(), _stretched(b.sin(), a.cosh()))


def _cosh(z: Complex) -> Complex:
    a, b = _full(z)
    return Complex(a.cosh() * b.cos(), _stretched(b.sin(), a.sinh()))


def _tanh(z: Complex) -> Complex:
    """Find tanh(a + ib) from tanh(a) and tan(b), with 1 - tanh(a)**2 from an exponential that cannot overflow."""
    a, b = _full(z)
    across, along = a.tanh(), b.tan()
    decay = (-2 * _magnitude(a)).exp()
    slope = 4 * decay / (1 + decay).square()
    divisor = 1 + (across * along).square()
    return Complex(across * (1 + along * along) / divisor, along * slope / divisor)


def _atanh(z: Complex) -> Complex:
    a, b = _full(z)
    re = _odd(a, lambda m: (4 * m / ((1 - m).square() + b * b)).log1p() / 4)
    return Complex(re, (2 * b).atan2((1 - a) * (1 + a) - b * b) / 2)


def _turned(function: ComplexRule) -> ComplexRule:
    """The function -i f(i z), as tan is of tanh."""

    def rule(z: Complex) -> Complex:
        a, b = _full(z)
        re, im = _full(function(Complex(-b, a)))
        return Complex(im, -re)

    return rule


def _roots_around_one(z: Complex) -> tuple[Full, Full]:
    """Give sqrt(1 - z) and sqrt(1 + z)."""
    a, b = _full(z)
    return _full(_sqrt(Complex(1 - a, -b))), _full(_sqrt(Complex(1 + a, b)))


def _asin(z: Complex) -> Complex:
    """Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CASIN)."""
    (p, q), (r, s) = _roots_around_one(z)
    return Complex(z.re.atan2(p * r - q * s), _asinh(p * s - q * r))


def _acos(z: Complex) -> Complex:
    """Source: Kahan, Branch Cuts for Complex Elementary Functions, 1987 (CACOS)."""
    (p, q), (r, s) = _roots_around_one(z)
    return Complex(2 * p.atan2(r), _asinh(r * q - s * p))


def _sinxdivx(z: Complex) -> Complex:
    a, b = _full(z)
    nothing = (a == 0).logical_and(b == 0)
    re, im = _full(_divide(_sin(z), Complex(nothing.where(1, a), b)))
    return Complex(nothing.where(1, re), nothing.where(0, im))


def _sign(z: Complex) -> Complex:
    a, b = _full(z)
    size = a.hypot(b)
    divisor = (size == 0).where(1, size)
    return Complex(a / divisor, b / divisor)


# Vectors --------------------------------------------------------------------------------------------------------------


def _concat(x: Complex, y: Complex) -> Complex:
    (a, b), (c, d) = _full(x), _full(y)
    return Complex(a.concat(c), b.concat(d))


def _sqnorm2(z: Complex) -> LazyTensor:
    a, b = _full(z)
    return a.sqnorm2() + b.sqnorm2()


def _norm2(z: Complex) -> LazyTensor:
    a, b = _full(z)
    return a.concat(b).norm2()


def _normalize(z: Complex) -> Complex:
    a, b = _full(z)
    scale = _sqnorm2(z).rsqrt()
    return Complex(a * scale, b * scale)


def _sqdist(x: Complex, y: Complex) -> LazyTensor:
    (a, b), (c, d) = _full(x), _full(y)
    return a.sqdist(c) + b.sqdist(d)


# Selection and logic --------------------------------------------------------------------------------------------------


def _where(condition: Complex, x: Complex, y: Complex) -> Complex:
    (a, b), (c, d) = _full(x), _full(y)
    truth = condition.re if condition.im is None else _truth(condition)
    return Complex(truth.where(a, c), truth.where(b, d))


def _ifelse(condition: Complex, x: Complex, y: Complex) -> Complex:
    if condition.im is not None:
        raise UnsupportedError(
            at_user_line("ifelse of a complex condition: complex numbers have no order, expected a real one")
        )
    return _where(Complex(condition.re >= 0, None), x, y)


def _equal(x: Complex, y: Complex) -> LazyTensor:
    (a, b), (c, d) = _full(x), _full(y)
    return (a == c).logical_and(b == d)


OPERATIONS_ON_COMPLEX: Mapping[str, Rule] = MappingProxyType(
    {
        **{op: _partwise(op) for op in ("neg", "extract", "broadcast", "inner_sum", "round")},
        **{op: _bilinear(op) for op in ("mul", "dot", "contract")},
        "add": _add,
        "sub": _subtract,
        "div": _divide,
        "reciprocal": _reciprocal,
        "square": _square,
        "powi": _power_of_integer,
        "pow": _power,
        "inner_prod": _inner_prod,
        "abs": lambda z: z.re.hypot(_full(z)[1]),
        "sign": _sign,
        "exp": _exp,
        "exp2": lambda z: _exp(_scaled(z, math.log(2))),
        "expm1": _expm1,
        "log": _log,
        "log2": _log2,
        "log1p": _log1p,
        "sqrt": _sqrt,
        "rsqrt": lambda z: _reciprocal(_sqrt(z)),
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
        "concat": _concat,
        "sqnorm2": _sqnorm2,
        "norm2": _norm2,
        "normalize": _normalize,
        "sqdist": _sqdist,
        "where": _where,
        "ifelse": _ifelse,
        "eq": _equal,
        "ne": lambda x, y: _equal(x, y).logical_not(),
        "isnan": lambda z: z.re.isnan().logical_or(_full(z)[1].isnan()),
        "logical_not": lambda z: _truth(z).logical_not(),
        "logical_and": lambda x, y: _truth(x).logical_and(_truth(y)),
        "logical_or": lambda x, y: _truth(x).logical_or(_truth(y)),
    }
)
"""For each operation with a meaning for complex numbers, how to compose it; the others are refused."""
