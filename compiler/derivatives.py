"""Table: formula op, or reduction, -> the cotangents of its operands.

The rows are written on `Term`, a value with operators, and know nothing of IR: whoever uses the table brings a
`Builder` that says what applying an operation means.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pylazy.runtime.errors import UnsupportedError

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


@dataclass(frozen=True)
class Application:
    """An op with its operands and its result; `x`, `y`, `z` are the first three operands."""

    operands: tuple[Term, ...]
    result: Term
    attributes: Mapping[str, Any]

    @property
    def x(self) -> Term:
        """The first operand."""
        return self.operands[0]

    @property
    def y(self) -> Term:
        """The second operand."""
        return self.operands[1]

    @property
    def z(self) -> Term:
        """The third operand."""
        return self.operands[2]


@dataclass(frozen=True)
class ReductionApplication(Application):
    """A reduction of a formula, and perhaps a weight; `reduce` makes another one of the same pairs, seen as a term."""

    reduce: Callable[[str, Term], Term]


Cotangents = tuple[Term | None, ...]
#: From an op and the cotangent of its result to one cotangent for each operand, None for 0.
VjpRule = Callable[[Application, Term], Cotangents]
ReductionVjpRule = Callable[[ReductionApplication, Term], Cotangents]


def cotangents(op_name: str, op: Application, ct: Term) -> Cotangents:
    """Give the cotangents of the operands of a formula op, each with the inner dimension of its operand.

    Args:
        op_name: a row of `VJP`.
        op: the op.
        ct: the cotangent of its result.
    """
    return _fitted(VJP[op_name](op, ct), op.operands)


def reduction_cotangents(kind: str, op: ReductionApplication, ct: Term) -> Cotangents:
    """Give the cotangents of the formula and the weight of a reduction.

    Args:
        kind: a row of `REDUCTION_VJP`.
        op: the reduction.
        ct: the cotangent of its result.
    """
    return _fitted(REDUCTION_VJP[kind](op, ct), op.operands)


def _fitted(found: Cotangents, operands: tuple[Term, ...]) -> Cotangents:
    """Sum over components where one component was broadcast, broadcast where one cotangent stands for all."""
    return tuple(None if ct is None else _fit(ct, operand.dim) for ct, operand in zip(found, operands, strict=True))


def _fit(ct: Term, dim: int) -> Term:
    if ct.dim == dim:
        return ct
    return ct.apply("inner_sum") if dim == 1 else ct.apply("broadcast", size=dim)


# The functions that rows are written with


def _function(name: str) -> Callable[..., Term]:
    return lambda x, *others: x.apply(name, *others)


cos, cosh, exp, log, sin, sinh = map(_function, ("cos", "cosh", "exp", "log", "sin", "sinh"))
floor, rsqrt, sigmoid, sign, square = map(_function, ("floor", "rsqrt", "sigmoid", "sign", "square"))
eq, ge, gt, le, lt, logical_and = map(_function, ("eq", "ge", "gt", "le", "lt", "logical_and"))
dot, power, sqnorm2 = map(_function, ("dot", "pow", "sqnorm2"))
inner_argmax, inner_argmin = map(_function, ("inner_argmax", "inner_argmin"))


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


def unless_zero(x: Term, otherwise: Term) -> Term:
    """0 where `x` is 0, else the other term."""
    return where(eq(x, 0.0), 0.0, otherwise)


def number_like(number: float, x: Term) -> Term:
    """A number as a term."""
    return Term(x.builder.number(number, x.value), x.builder)


def zeros(x: Term, dim: int) -> tuple[Term, ...]:
    """One term of zeros, none if it has no components."""
    return (_fit(number_like(0.0, x), dim),) if dim else ()


def joined(parts: Sequence[Term]) -> Term:
    """Concatenate terms; the tree is balanced, so that its depth is no limit."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return joined(parts[:half]).apply("concat", joined(parts[half:]))


# The rows


def _flat(op: Application, ct: Term) -> Cotangents:
    """A function that is constant between its jumps."""
    del ct
    return (None,) * len(op.operands)


def _pow(op: Application, ct: Term) -> Cotangents:
    wrt_x = where(eq(op.y, 0.0), 0.0, ct * op.y * power(op.x, op.y - 1.0))
    # x ** y is 0 for all y > 0 where x is 0, hence flat in y although log(0) is infinite.
    flat = logical_and(eq(op.x, 0.0), ge(op.y, 0.0))
    return wrt_x, where(flat, 0.0, ct * op.result * log(op.x))


def _minimum(op: Application, ct: Term) -> Cotangents:
    first = le(op.x, op.y)
    return where(first, ct, 0.0), where(first, 0.0, ct)


def _maximum(op: Application, ct: Term) -> Cotangents:
    first = ge(op.x, op.y)
    return where(first, ct, 0.0), where(first, 0.0, ct)


def _clamp(op: Application, ct: Term) -> Cotangents:
    x, low, high = op.operands
    inside = logical_and(ge(x, low), le(x, high))
    below = lt(x, low)  # decides first where low > high
    return where(inside, ct, 0.0), where(below, ct, 0.0), where(below, 0.0, where(gt(x, high), ct, 0.0))


def _atan2(op: Application, ct: Term) -> Cotangents:
    scaled = ct / (square(op.x) + square(op.y))
    return scaled * op.y, -(scaled * op.x)


#: Below this, (cos(x) - sin(x) / x) / x loses digits to cancellation, and its power series needs few terms.
_SMALL_ANGLE = 0.5
#: Of x * (c1 + c2 x**2 + c3 x**4...), from term-wise differentiation of sin(x) / x; the next term is below 1e-17.
_SINC_SERIES = tuple((-1) ** n * 2 * n / math.factorial(2 * n + 1) for n in range(1, 9))


def _sinxdivx(op: Application, ct: Term) -> Cotangents:
    x, squared = op.x, square(op.x)
    series: Operand = _SINC_SERIES[-1]
    for coefficient in reversed(_SINC_SERIES[:-1]):
        series = squared * series + coefficient
    small = lt(x.apply("abs"), _SMALL_ANGLE)
    return (ct * where(small, x * series, (cos(x) - op.result) / x),)


def _powi(op: Application, ct: Term) -> Cotangents:
    exponent = op.attributes["exponent"]
    return (None,) if exponent == 0 else (ct * powi(op.x, exponent - 1) * float(exponent),)


def _hypot(op: Application, ct: Term) -> Cotangents:
    scaled = unless_zero(op.result, ct / op.result)
    return scaled * op.x, scaled * op.y


def _normalize(op: Application, ct: Term) -> Cotangents:
    return ((ct - op.result * dot(op.result, ct)) * rsqrt(sqnorm2(op.x)),)


def _sqdist(op: Application, ct: Term) -> Cotangents:
    wrt_x = (op.x - op.y) * (ct * 2.0)
    return wrt_x, -wrt_x


def _contract(op: Application, ct: Term) -> Cotangents:
    """Contract the cotangent with the other operand: the labels of the result and of an operand change places."""
    sizes, left, right, kept = (op.attributes[name] for name in ("sizes", "left", "right", "kept"))
    wrt_x = ct.apply("contract", op.y, sizes=sizes, left=kept, right=right, kept=left)
    wrt_y = ct.apply("contract", op.x, sizes=sizes, left=kept, right=left, kept=right)
    return wrt_x, wrt_y


def _product_without_each(x: Term, product_of_others: Term, zeros_among_all: Term) -> Term:
    """The product of all factors but each one: exact where factors are 0.

    Args:
        x: the factors.
        product_of_others: the product of those that are not 0.
        zeros_among_all: how many are 0.
    """
    none, one = eq(zeros_among_all, 0.0), eq(zeros_among_all, 1.0)
    is_zero = eq(x, 0.0)
    quotient = where(none, product_of_others, 0.0) / where(is_zero, 1.0, x)
    return where(is_zero, where(one, product_of_others, 0.0), quotient)


def _inner_prod(op: Application, ct: Term) -> Cotangents:
    is_zero = eq(op.x, 0.0)
    product = where(is_zero, 1.0, op.x).apply("inner_prod")
    return (ct * _product_without_each(op.x, product, is_zero.apply("inner_sum")),)


def _extract(op: Application, ct: Term) -> Cotangents:
    start, size = op.attributes["start"], op.attributes["size"]
    return (joined([*zeros(ct, start), ct, *zeros(ct, op.x.dim - start - size)]),)


def _at_one(x: Term, position: Term, ct: Term) -> Term:
    """The cotangent at one component of `x`, 0 at the others."""
    return where(position.apply("one_hot", size=x.dim), ct, 0.0)


def _series(op: Application, derivative: Term) -> tuple[Term, ...]:
    """Take a derivative by two series and gamma apart."""
    n, m = op.x.dim, op.y.dim
    return extract(derivative, 0, n), extract(derivative, n, m), extract(derivative, n + m, 1)


def _soft_dtw_hessian(op: Application, ct: Term) -> Cotangents:
    del op, ct
    raise UnsupportedError("the third derivative of reduction.soft_dtw is not implemented, two are")


_FLAT_OPS = (
    "step sign floor ceil trunc round isnan logical_not eq ne lt le gt ge logical_and logical_or "
    "inner_argmin inner_argmax one_hot"
)

VJP: Mapping[str, VjpRule] = {
    **dict.fromkeys(_FLAT_OPS.split(), _flat),
    "neg": lambda _, ct: (-ct,),
    "abs": lambda op, ct: (ct * sign(op.x),),
    "exp": lambda op, ct: (ct * op.result,),
    "log": lambda op, ct: (ct / op.x,),
    # rsqrt(0) = 0 makes the derivatives of sqrt and rsqrt 0 at 0, those of asin and acos 0 at -1 and 1.
    "sqrt": lambda op, ct: (ct * rsqrt(op.x) * 0.5,),
    "rsqrt": lambda op, ct: (ct * powi(op.result, 3) * -0.5,),
    "square": lambda op, ct: (ct * op.x * 2.0,),
    "reciprocal": lambda op, ct: (-(ct * square(op.result)),),
    "sin": lambda op, ct: (ct * cos(op.x),),
    "cos": lambda op, ct: (-(ct * sin(op.x)),),
    "tan": lambda op, ct: (ct * (square(op.result) + 1.0),),
    "asin": lambda op, ct: (ct * rsqrt(1.0 - square(op.x)),),
    "acos": lambda op, ct: (-(ct * rsqrt(1.0 - square(op.x))),),
    "atan": lambda op, ct: (ct / (square(op.x) + 1.0),),
    "sinh": lambda op, ct: (ct * cosh(op.x),),
    "cosh": lambda op, ct: (ct * sinh(op.x),),
    "tanh": lambda op, ct: (ct * (1.0 - square(op.result)),),
    "exp2": lambda op, ct: (ct * op.result * math.log(2.0),),
    "log2": lambda op, ct: (ct / op.x * (1.0 / math.log(2.0)),),
    "log1p": lambda op, ct: (ct / (op.x + 1.0),),
    "expm1": lambda op, ct: (ct * exp(op.x),),
    "cbrt": lambda op, ct: (ct / (square(op.result) * 3.0),),
    "erf": lambda op, ct: (ct * exp(-square(op.x)) * (2.0 / math.sqrt(math.pi)),),
    "erfc": lambda op, ct: (ct * exp(-square(op.x)) * (-2.0 / math.sqrt(math.pi)),),
    "sigmoid": lambda op, ct: (ct * op.result * (1.0 - op.result),),
    "softplus": lambda op, ct: (ct * sigmoid(op.x),),
    "relu": lambda op, ct: (ifelse(op.x, ct, 0.0),),
    "xlogx": lambda op, ct: (ct * (log(op.x) + 1.0),),
    "sinxdivx": _sinxdivx,
    "powi": _powi,
    "add": lambda _, ct: (ct, ct),
    "sub": lambda _, ct: (ct, -ct),
    "mul": lambda op, ct: (ct * op.y, ct * op.x),
    "div": lambda op, ct: (ct / op.y, -(ct * op.result / op.y)),
    "pow": _pow,
    "atan2": _atan2,
    "minimum": _minimum,
    "maximum": _maximum,
    "hypot": _hypot,
    "mod0": lambda op, ct: (ct, -(ct * floor(op.x / op.y))),
    "where": lambda op, ct: (None, where(op.x, ct, 0.0), where(op.x, 0.0, ct)),
    "ifelse": lambda op, ct: (None, ifelse(op.x, ct, 0.0), ifelse(op.x, 0.0, ct)),
    "clamp": _clamp,
    "inner_sum": lambda _, ct: (ct,),
    "inner_prod": _inner_prod,
    "inner_min": lambda op, ct: (_at_one(op.x, inner_argmin(op.x), ct),),
    "inner_max": lambda op, ct: (_at_one(op.x, inner_argmax(op.x), ct),),
    "sqnorm2": lambda op, ct: (op.x * (ct * 2.0),),
    "norm2": lambda op, ct: (op.x * unless_zero(op.result, ct / op.result),),
    "normalize": _normalize,
    "dot": lambda op, ct: (ct * op.y, ct * op.x),
    "sqdist": _sqdist,
    "concat": lambda op, ct: (extract(ct, 0, op.x.dim), extract(ct, op.x.dim, op.y.dim)),
    "extract": _extract,
    "broadcast": lambda _, ct: (ct,),
    "contract": _contract,
    "soft_dtw": lambda op, ct: _series(op, op.x.apply("soft_dtw_gradient", op.y, op.z) * ct),
    "soft_dtw_gradient": lambda op, ct: _series(op, op.x.apply("soft_dtw_hessian", op.y, op.z, ct)),
    "soft_dtw_hessian": _soft_dtw_hessian,
}
"""One row for each formula op; the inner dimensions of cotangents are fitted by `cotangents`."""


def _share(x: Term, log_of_sum: Term) -> Term:
    """exp(x) / sum of exp(x): 0 where the sum is 0, even where x is -inf."""
    return exp(x - where(eq(log_of_sum, -math.inf), math.inf, log_of_sum))


def _logsumexp(op: ReductionApplication, ct: Term) -> Cotangents:
    wrt_weight = ct * _share(op.x, op.result)
    return (wrt_weight,) if len(op.operands) == 1 else (dot(wrt_weight, op.y), wrt_weight)


def _softmax(op: ReductionApplication, ct: Term) -> Cotangents:
    share = _share(op.x, op.reduce("logsumexp", op.x))
    return dot(ct, op.y - op.result) * share, ct * share


def _prod(op: ReductionApplication, ct: Term) -> Cotangents:
    is_zero = eq(op.x, 0.0)
    product = op.reduce("prod", where(is_zero, 1.0, op.x))
    return (ct * _product_without_each(op.x, product, op.reduce("sum", is_zero)),)


REDUCTION_VJP: Mapping[str, ReductionVjpRule] = {
    "sum": lambda _, ct: (ct,),
    "mean": lambda op, ct: (ct / op.reduce("sum", number_like(1.0, op.x)),),
    "prod": _prod,
    "logsumexp": _logsumexp,
    "softmax": _softmax,
}
"""One row for each reduction that has a derivative; the result of one in `READS_RESULT` is read."""

READS_RESULT = frozenset({"logsumexp", "softmax"})
"""Reductions whose derivative needs their result."""
