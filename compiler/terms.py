"""Values that formulas are written with, as rules do that know nothing of IR or expressions.

Whoever uses such a rule brings a `Builder` that says what applying an operation means.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Number = int | float
#: The value of an attribute: a number, or several.
Static = int | tuple[int, ...]


class Builder(Protocol):
    """What can be done with the values inside of terms."""

    def apply(self, name: str, operands: Sequence[Any], attributes: Mapping[str, Static]) -> Any:
        """Apply a formula op to values."""

    def number(self, number: float, like: Any) -> Any:
        """Make a number with the element type of a value."""

    def dim(self, value: Any) -> int:
        """Give the inner dimension of a value."""


@dataclass(frozen=True, eq=False)
class Term:
    """A value that is written with operators."""

    value: Any
    builder: Builder

    @property
    def dim(self) -> int:
        """The inner dimension."""
        return self.builder.dim(self.value)

    def apply(self, name: str, *others: "Operand", first: "Operand | None" = None, **attributes: Static) -> "Term":
        """Apply a formula op to this term and others; numbers among them take its element type."""
        operands = [self if first is None else first, *others]
        values = [self._value_of(operand) for operand in operands]
        return Term(self.builder.apply(name, values, attributes), self.builder)

    def _value_of(self, operand: "Operand") -> Any:
        return operand.value if isinstance(operand, Term) else self.builder.number(float(operand), self.value)

    def __neg__(self) -> "Term":
        return self.apply("neg")

    def __add__(self, other: "Operand") -> "Term":
        return self.apply("add", other)

    def __radd__(self, other: Number) -> "Term":
        return self.apply("add", self, first=other)

    def __sub__(self, other: "Operand") -> "Term":
        return self.apply("sub", other)

    def __rsub__(self, other: Number) -> "Term":
        return self.apply("sub", self, first=other)

    def __mul__(self, other: "Operand") -> "Term":
        return self.apply("mul", other)

    def __rmul__(self, other: Number) -> "Term":
        return self.apply("mul", self, first=other)

    def __truediv__(self, other: "Operand") -> "Term":
        return self.apply("div", other)

    def __rtruediv__(self, other: Number) -> "Term":
        return self.apply("div", self, first=other)


Operand = Term | int | float


def fit(x: Term, dim: int) -> Term:
    """Give a term an inner dimension: add up its components to get 1, repeat its one component to get more."""
    if x.dim == dim:
        return x
    return x.apply("inner_sum") if dim == 1 else x.apply("broadcast", size=dim)


def _function(name: str) -> Callable[..., Term]:
    return lambda x, *others: x.apply(name, *others)


cos, cosh, exp, log, sin, sinh = map(_function, ("cos", "cosh", "exp", "log", "sin", "sinh"))
floor, isnan, rsqrt, sigmoid, sign, square = map(_function, ("floor", "isnan", "rsqrt", "sigmoid", "sign", "square"))
eq, ge, gt, le, lt = map(_function, ("eq", "ge", "gt", "le", "lt"))
logical_and, logical_not, logical_or = map(_function, ("logical_and", "logical_not", "logical_or"))
dot, power, sqnorm2 = map(_function, ("dot", "pow", "sqnorm2"))
inner_argmax, inner_argmin, inner_max = map(_function, ("inner_argmax", "inner_argmin", "inner_max"))


def powi(x: Term, exponent: int) -> Term:
    """A static integer power."""
    return x.apply("powi", exponent=exponent)


def extract(x: Term, start: int, size: int) -> Term:
    """Some components."""
    return x.apply("extract", start=start, size=size)


def where(condition: Term, x: Operand, y: Operand) -> Term:
    """`x` where the condition is not 0, else `y`."""
    return condition.apply("where", x, y)


def ifelse(condition: Term, x: Operand, y: Operand) -> Term:
    """`x` where the condition is >= 0, else `y`."""
    return condition.apply("ifelse", x, y)


def quotient_or_zero(x: Term, y: Term) -> Term:
    """`x / y`, and 0 with all its derivatives where `y` is 0."""
    is_zero = eq(y, 0.0)
    # Dividing by 1 there keeps infinities out of the derivatives too, where a factor of 0 would make them NaN.
    return where(is_zero, 0.0, x / where(is_zero, 1.0, y))


def filled(number: float, x: Term, dim: int = 1) -> Term:
    """A number in every component; its element type is that of `x`."""
    return fit(Term(x.builder.number(number, x.value), x.builder), dim)


def joined(parts: Sequence[Term]) -> Term:
    """Concatenate terms; the tree is balanced, so that its depth is no limit."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return joined(parts[:half]).apply("concat", joined(parts[half:]))


def padded(x: Term, *, before: int = 0, after: int = 0, number: float = 0.0) -> Term:
    """A number in some components before and after those of `x`."""
    first = [filled(number, x, before)] if before else []
    last = [filled(number, x, after)] if after else []
    return joined([*first, x, *last])
