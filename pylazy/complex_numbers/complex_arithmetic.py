"""Complex values as pairs of real formulas, and their arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.lazy_tensor import LazyTensor
from pylazy.methods.operands import combine

if TYPE_CHECKING:
    from collections.abc import Callable

    ComplexRule = Callable[..., "Complex"]


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


def full(z: Complex) -> Full:
    """Both parts, zeros for one that is none."""
    return z.re, zeros(z.re.ndim) if z.im is None else z.im


def partwise(op: str) -> ComplexRule:
    """A linear operation: on each part by itself."""

    def rule(z: Complex, **attributes: Any) -> Complex:
        re, im = (combine(op, part, attributes=tuple(attributes.items())) for part in full(z))
        return Complex(re, im)

    return rule


def bilinear(op: str) -> ComplexRule:
    """An operation that is linear in each of two operands.

    Parts that are 0 by construction, as those of 1j and of real operands, cost nothing: a product of a real and an
    imaginary number is imaginary, so that exp(1j * x) takes no real exponential, and infinities keep their direction.
    """

    def rule(x: Complex, y: Complex, **attributes: Any) -> Complex:
        def product(a: LazyTensor, b: LazyTensor) -> LazyTensor:
            return combine(op, a, b, attributes=tuple(attributes.items()))

        def times(a: LazyTensor | None, b: LazyTensor | None) -> LazyTensor | None:
            return None if a is None or b is None or is_nothing(a) or is_nothing(b) else product(a, b)

        first, second = times(x.re, y.re), times(x.im, y.im)
        re = first if second is None else -second if first is None else first - second
        first, second = times(x.re, y.im), times(x.im, y.re)
        im = first if second is None else second if first is None else first + second
        if re is None:
            return Complex(product(x.re, y.re) if im is None else zeros(im.ndim), im)
        return Complex(re, im)

    return rule


def is_nothing(x: LazyTensor) -> bool:
    """Whether these are zeros by construction."""
    node = x._expression
    while node.op == "broadcast":
        node = node.operands[0]
    return node.op == "constant" and node.source == 0


multiply = bilinear("mul")
"""x * y."""


def add(x: Complex, y: Complex) -> Complex:
    """X + y."""
    if x.im is None or y.im is None:
        return Complex(x.re + y.re, y.im if x.im is None else x.im)
    return Complex(x.re + y.re, x.im + y.im)


def negative(z: Complex) -> Complex:
    """-z."""
    return Complex(-z.re, None if z.im is None else -z.im)


def subtract(x: Complex, y: Complex) -> Complex:
    """X - y."""
    return add(x, negative(y)) if x.im is None or y.im is None else Complex(x.re - y.re, x.im - y.im)


def divide(x: Complex, y: Complex) -> Complex:
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


def reciprocal(z: Complex) -> Complex:
    """1 / z."""
    return divide(Complex(LazyTensor(1), None), z)


def square(z: Complex) -> Complex:
    """Z * z."""
    a, b = full(z)
    return Complex((a - b) * (a + b), 2 * (a * b))
