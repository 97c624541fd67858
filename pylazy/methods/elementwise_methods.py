"""Methods of LazyTensor that work on each component by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pylazy.lazy_formula import read_index, unary
from pylazy.methods.operands import combine, operand
from pylazy.methods.operators import Operators

if TYPE_CHECKING:
    from typing_extensions import Self


class ElementwiseMethods(Operators):
    """What each method means, at singular points too, is in `OPERATIONS` and in docs/semantics.md."""

    __slots__ = ()

    def abs(self) -> Self:
        """Absolute value."""
        return unary("abs", self)

    def exp(self) -> Self:
        """Exponential."""
        return unary("exp", self)

    def log(self) -> Self:
        """Natural logarithm."""
        return unary("log", self)

    def sqrt(self) -> Self:
        """Square root; its derivative is taken as 0 at 0."""
        return unary("sqrt", self)

    def rsqrt(self) -> Self:
        """1 / sqrt(x), and 0 at 0."""
        return unary("rsqrt", self)

    def square(self) -> Self:
        """Square."""
        return unary("square", self)

    def reciprocal(self) -> Self:
        """1 / x."""
        return unary("reciprocal", self)

    def sin(self) -> Self:
        """Sine of radians."""
        return unary("sin", self)

    def cos(self) -> Self:
        """Cosine of radians."""
        return unary("cos", self)

    def tan(self) -> Self:
        """Tangent of radians."""
        return unary("tan", self)

    def asin(self) -> Self:
        """Arc sine, in radians."""
        return unary("asin", self)

    def acos(self) -> Self:
        """Arc cosine, in radians."""
        return unary("acos", self)

    def atan(self) -> Self:
        """Arc tangent, in radians."""
        return unary("atan", self)

    def sinh(self) -> Self:
        """Hyperbolic sine."""
        return unary("sinh", self)

    def cosh(self) -> Self:
        """Hyperbolic cosine."""
        return unary("cosh", self)

    def tanh(self) -> Self:
        """Hyperbolic tangent."""
        return unary("tanh", self)

    def exp2(self) -> Self:
        """2 ** x."""
        return unary("exp2", self)

    def log2(self) -> Self:
        """Logarithm to base 2."""
        return unary("log2", self)

    def log1p(self) -> Self:
        """The logarithm of 1 + x."""
        return unary("log1p", self)

    def expm1(self) -> Self:
        """The exponential of x, minus 1."""
        return unary("expm1", self)

    def cbrt(self) -> Self:
        """Real cube root."""
        return unary("cbrt", self)

    def erf(self) -> Self:
        """Error function."""
        return unary("erf", self)

    def erfc(self) -> Self:
        """1 - erf(x)."""
        return unary("erfc", self)

    def sigmoid(self) -> Self:
        """1 / (1 + exp(-x))."""
        return unary("sigmoid", self)

    def softplus(self) -> Self:
        """log(1 + exp(x))."""
        return unary("softplus", self)

    def relu(self) -> Self:
        """Itself where x >= 0, else 0; its derivative is taken as 1 at 0."""
        return unary("relu", self)

    def step(self) -> Self:
        """0 where x < 0, else 1."""
        return unary("step", self)

    def sign(self) -> Self:
        """-1, 0 or 1."""
        return unary("sign", self)

    def floor(self) -> Self:
        """Largest integer not above x."""
        return unary("floor", self)

    def ceil(self) -> Self:
        """Smallest integer not below x."""
        return unary("ceil", self)

    def trunc(self) -> Self:
        """Integer part."""
        return unary("trunc", self)

    def round(self, d: int = 0) -> Self:
        """Round to `d` decimals, halves away from zero; a negative `d` rounds to tens, hundreds, and so on."""
        places = read_index(d, "d, the number of decimals,")
        if places == 0:
            return unary("round", self)
        scale = int(10 ** abs(places))
        if places > 0:
            return unary("round", self * scale) / scale
        return unary("round", self / scale) * scale

    def xlogx(self) -> Self:
        """The product x * log(x), and 0 at 0."""
        return unary("xlogx", self)

    def sinxdivx(self) -> Self:
        """Quotient sin(x) / x, and 1 at 0."""
        return unary("sinxdivx", self)

    def sinc(self) -> Self:
        """Normalised sinc, sin(pi x) / (pi x), and 1 at 0."""
        return unary("sinxdivx", math.pi * self)

    def isnan(self) -> Self:
        """1 where x is NaN, else 0."""
        return unary("isnan", self)

    def logical_not(self) -> Self:
        """1 where x == 0, else 0."""
        return unary("logical_not", self)

    def logical_and(self, other: Any) -> Self:
        """1 where both are nonzero, else 0."""
        return combine("logical_and", self, other)

    def logical_or(self, other: Any) -> Self:
        """1 where one of them is nonzero, else 0."""
        return combine("logical_or", self, other)

    def power(self, exponent: Any) -> Self:
        """The power x ** exponent."""
        return self.__pow__(exponent)

    pow = power

    def atan2(self, x: Any) -> Self:
        """Angle of the point (x, self), in radians."""
        return combine("atan2", self, x)

    def hypot(self, other: Any) -> Self:
        """Length sqrt(x * x + y * y), without overflow on the way."""
        return combine("hypot", self, other)

    def minimum(self, other: Any) -> Self:
        """The smaller of two values; NaN if either is NaN."""
        return combine("minimum", self, other)

    def maximum(self, other: Any) -> Self:
        """The larger of two values; NaN if either is NaN."""
        return combine("maximum", self, other)

    def mod(self, modulus: Any, offset: Any = 0) -> Self:
        """The remainder x - m * floor((x - offset) / m): in [offset, offset + m) for a positive m."""
        if isinstance(offset, int | float) and offset == 0:
            return combine("mod0", self, modulus)
        shift = operand(self.__class__, offset)
        return combine("add", combine("mod0", self - shift, modulus), shift)

    def clamp(self, low: Any, high: Any) -> Self:
        """Limit to [low, high]."""
        return combine("clamp", self, low, high)

    clip = clamp

    def where(self, a: Any, b: Any) -> Self:
        """`a` where self is nonzero, else `b`."""
        return combine("where", self, a, b)

    def ifelse(self, a: Any, b: Any) -> Self:
        """`a` where self >= 0, else `b`."""
        return combine("ifelse", self, a, b)
