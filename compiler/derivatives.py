"""Table: formula op, or reduction, -> how it maps cotangents back and tangents forward.

The rows are written on terms, whose derivatives are terms again: derivatives of any order, in both modes, are the same
rows applied again. Where a function has no derivative, a row gives the value of `docs/semantics.md`, and keeps infinite
factors out of the terms that are 0 there, so that the next derivative is no NaN.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pylazy.compiler.terms import (
    Operand,
    Term,
    cos,
    cosh,
    dot,
    eq,
    exp,
    extract,
    filled,
    fit,
    floor,
    ge,
    gt,
    ifelse,
    inner_argmax,
    inner_argmin,
    isnan,
    joined,
    le,
    log,
    logical_and,
    logical_or,
    lt,
    padded,
    power,
    powi,
    quotient_or_zero,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqnorm2,
    square,
    where,
)
from pylazy.runtime.errors import UnsupportedError


@dataclass(frozen=True)
class Application:
    """An op with its operands and its result; `x`, `y` are the first two operands.

    Attributes:
        name: a row of `DERIVATIVES`, or of `REDUCTION_DERIVATIVES`.
        operands: the values that it is applied to.
        result: its value.
        attributes: static integers, or tuples of them.
        varies: for each operand whether a derivative in it is asked for; empty where that is not known.
    """

    name: str
    operands: tuple[Term, ...]
    result: Term
    attributes: Mapping[str, Any]
    varies: tuple[bool, ...] = field(default=(), kw_only=True)

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

    def again(self, first: Term, *others: Term) -> Term:
        """Apply the op to other operands."""
        return first.apply(self.name, *others, **self.attributes)


@dataclass(frozen=True)
class ReductionApplication(Application):
    """A reduction of a formula, and perhaps a weight; `reduce` makes another one of the same pairs, seen as a term."""

    reduce: Callable[[str, Term], Term]


Terms = tuple[Term | None, ...]
"""One term for each operand, None for 0."""

Partial = Callable[[Any, Term], Term]
"""From an application and a term to the product of the term with the partial derivative in one operand."""


@dataclass(frozen=True)
class Derivative:
    """One row of a table; inner dimensions are fitted by those who apply it.

    Attributes:
        vjp: from an application and the cotangent of its result to the cotangents of its operands.
        jvp: from an application and the tangents of its operands, one of them at least, to that of its result.
        partials: of an op that works component by component, what both follow from; None for an operand without
            influence. A product with a partial derivative is its own adjoint, so it serves both.
    """

    vjp: Callable[[Any, Term], Terms]
    jvp: Callable[[Any, Terms], Term | None]
    partials: tuple[Partial | None, ...] | None = None


def cotangents(op: Application, ct: Term, counts: Term | None = None) -> Terms:
    """Give the cotangents of the operands of a formula op, each with the inner dimension of its operand.

    Args:
        op: the op.
        ct: the cotangent of its result.
        counts: 0 where that counts as 0, whatever it is, of its components or of one; None where there is no such
            place. The same is then true of what is found, but for components that are added up.
    """
    return _fitted_cotangents(DERIVATIVES[op.name], op, ct, counts)


def tangent(op: Application, tangents: Terms) -> Term | None:
    """Give the tangent of the result of a formula op, with its inner dimension; None for 0.

    Args:
        op: the op.
        tangents: of its operands, with their inner dimensions.
    """
    return _fitted_tangent(DERIVATIVES[op.name], op, tangents)


def reduction_cotangents(op: ReductionApplication, ct: Term) -> Terms:
    """Give the cotangents of the formula and the weight of a reduction.

    Args:
        op: the reduction.
        ct: the cotangent of its result.
    """
    return _fitted_cotangents(REDUCTION_DERIVATIVES[op.name], op, ct)


def reduction_tangent(op: ReductionApplication, tangents: Terms) -> Term | None:
    """Give the formula whose sum is the tangent of the result of a reduction; None for 0.

    Args:
        op: the reduction.
        tangents: of its formula and its weight.
    """
    return _fitted_tangent(REDUCTION_DERIVATIVES[op.name], op, tangents)


def _fitted_cotangents(row: Derivative, op: Application, ct: Term, counts: Term | None = None) -> Terms:
    """Sum over components where one component was broadcast, broadcast where one cotangent stands for all."""
    if counts is not None and counts.dim > 1 and row.partials is None:
        ct, counts = where(counts, ct, 0.0), None  # its components go different ways from here on

    def fitted(found: Term | None, dim: int) -> Term | None:
        if found is None:
            return None
        is_summed = counts is not None and counts.dim > 1 and found.dim > dim
        return fit(where(counts, found, 0.0) if is_summed else found, dim)  # type: ignore[arg-type]

    return tuple(fitted(found, x.dim) for found, x in zip(row.vjp(op, ct), op.operands, strict=True))


def _fitted_tangent(row: Derivative, op: Application, tangents: Terms) -> Term | None:
    if all(t is None for t in tangents):
        return None
    found = row.jvp(op, tangents)
    return None if found is None else fit(found, op.result.dim)


def total(first: Term | None, second: Term | None) -> Term | None:
    """Add two terms of which None is 0."""
    if first is None:
        return second
    return first if second is None else first + second


# Kinds of rows


def elementwise(*partials: Partial | None) -> Derivative:
    """A function of each component: a row of partial derivatives, None where there is no influence."""

    def vjp(op: Application, ct: Term) -> Terms:
        # A reduction may come without the weight that its last partial derivative is for.
        given = partials[: len(op.operands)]
        return tuple(None if partial is None else partial(op, ct) for partial in given)

    def jvp(op: Application, tangents: Terms) -> Term | None:
        found: Term | None = None
        for partial, t in zip(partials, tangents, strict=False):
            if partial is not None and t is not None:
                found = total(found, partial(op, t))
        return found

    return Derivative(vjp, jvp, partials)


def _linear(*vjp: Partial) -> Derivative:
    """A function that is linear in all its operands together, so its own differential."""

    def jvp(op: Application, tangents: Terms) -> Term:
        first, *others = (filled(0.0, x, x.dim) if t is None else t for t, x in zip(tangents, op.operands, strict=True))
        return op.again(first, *others)

    return Derivative(lambda op, ct: tuple(rule(op, ct) for rule in vjp), jvp)


def _bilinear(*vjp: Partial) -> Derivative:
    """A function that is linear in each of its two operands."""

    def jvp(op: Application, tangents: Terms) -> Term | None:
        by_x, by_y = tangents
        first = None if by_x is None else op.again(by_x, op.y)
        return total(first, None if by_y is None else op.again(op.x, by_y))

    return Derivative(lambda op, ct: tuple(rule(op, ct) for rule in vjp), jvp)


def _symmetric(rule: Partial) -> Derivative:
    """A function of a vector whose Jacobian is symmetric."""
    return Derivative(lambda op, ct: (rule(op, ct),), lambda op, tangents: rule(op, _only(tangents)))


def _scalar(*, vjp: Partial, jvp: Partial) -> Derivative:
    """A number made of one vector."""
    return Derivative(lambda op, ct: (vjp(op, ct),), lambda op, tangents: jvp(op, _only(tangents)))


def _only(tangents: Terms) -> Term:
    (found,) = tangents
    assert found is not None
    return found


# Rules that do not fit on one line


def _pow_in_x(op: Application, t: Term) -> Term:
    # x ** 0 is 1 for all x, NaN too, hence flat at 0 although 0 * 0 ** -1 is NaN.
    flat = logical_and(eq(op.y, 0.0), logical_or(eq(op.x, 0.0), isnan(op.x)))
    return t * op.y * power(where(flat, 1.0, op.x), op.y - 1.0)


def _pow_in_y(op: Application, t: Term) -> Term:
    # x ** y is 0 for all y > 0 where x is 0, hence flat in y although log(0) is infinite.
    flat = logical_and(eq(op.x, 0.0), ge(op.y, 0.0))
    return t * op.result * log(where(flat, 1.0, op.x))


def _clamp_in_x(op: Application, t: Term) -> Term:
    x, low, high = op.operands
    return where(logical_and(ge(x, low), le(x, high)), t, 0.0)


def _clamp_in_high(op: Application, t: Term) -> Term:
    x, low, high = op.operands
    return where(lt(x, low), 0.0, where(gt(x, high), t, 0.0))  # low decides first where low > high


def _atan2(op: Application, t: Term) -> Term:
    return quotient_or_zero(t, square(op.x) + square(op.y))


#: Below this, (cos(x) - sin(x) / x) / x loses digits to cancellation, and its power series needs few terms.
_SMALL_ANGLE = 0.5
#: Of x * (c1 + c2 x**2 + c3 x**4...), from term-wise differentiation of sin(x) / x; the next term is below 1e-17.
_SINC_SERIES = tuple((-1) ** n * 2 * n / math.factorial(2 * n + 1) for n in range(1, 9))


def _sinxdivx(op: Application, t: Term) -> Term:
    x, squared = op.x, square(op.x)
    series: Operand = _SINC_SERIES[-1]
    for coefficient in reversed(_SINC_SERIES[:-1]):
        series = squared * series + coefficient
    small = lt(x.apply("abs"), _SMALL_ANGLE)
    return t * where(small, x * series, (cos(x) - op.result) / where(small, 1.0, x))


def _powi(op: Application, t: Term) -> Term:
    exponent = op.attributes["exponent"]
    return filled(0.0, t) if exponent == 0 else t * powi(op.x, exponent - 1) * float(exponent)


def _normalize(op: Application, t: Term) -> Term:
    return (t - op.result * dot(op.result, t)) * rsqrt(sqnorm2(op.x))


def _unit(op: Application, t: Term) -> Term:
    """The length of a vector as a factor: rsqrt(0) = 0 makes all derivatives of the norm 0 at 0."""
    return t * rsqrt(sqnorm2(op.x))


def _sqdist_vjp(op: Application, ct: Term) -> Terms:
    in_x = (op.x - op.y) * (ct * 2.0)
    return in_x, -in_x


def _sqdist_jvp(op: Application, tangents: Terms) -> Term:
    first, second = tangents
    difference = total(first, None if second is None else -second)
    assert difference is not None
    return dot(op.x - op.y, difference) * 2.0


def _contracted(op: Application, t: Term, *, operand: str, other: str, factor: Term) -> Term:
    """Contract a cotangent with the other operand: the labels of the result and of an operand change places."""
    sizes, kept = op.attributes["sizes"], op.attributes["kept"]
    return t.apply("contract", factor, sizes=sizes, left=kept, right=op.attributes[other], kept=op.attributes[operand])


def _products_of_others(op: Application) -> Term:
    """For each component the product of all others, without a division: exact where components are 0.

    The products of all components before each, times those of all after it, both by doubling of strides.
    """
    x, dim = op.x, op.x.dim
    if dim == 1:
        return filled(1.0, x)
    before = padded(extract(x, 0, dim - 1), before=1, number=1.0)
    after = padded(extract(x, 1, dim - 1), after=1, number=1.0)
    stride = 1
    while stride < dim:
        rest = dim - stride
        before = before * padded(extract(before, 0, rest), before=stride, number=1.0)
        after = after * padded(extract(after, stride, rest), after=stride, number=1.0)
        stride *= 2
    return before * after


def _extract(op: Application, ct: Term) -> Term:
    start, size = op.attributes["start"], op.attributes["size"]
    return padded(ct, before=start, after=op.x.dim - start - size)


def _selection(find: Callable[[Term], Term]) -> Derivative:
    """One component, at the position that `find` gives."""

    def at_one(op: Application, t: Term) -> Term:
        return where(find(op.x).apply("one_hot", size=op.x.dim), t, 0.0)

    return _scalar(vjp=at_one, jvp=lambda op, t: at_one(op, t).apply("inner_sum"))


def _series(op: Application, derivative: Term) -> Terms:
    """Take a derivative by two series and gamma apart."""
    n, m = op.x.dim, op.y.dim
    return extract(derivative, 0, n), extract(derivative, n, m), extract(derivative, n + m, 1)


def _along(op: Application, tangents: Terms) -> Term:
    """Join the tangents of two series and gamma."""
    return joined([filled(0.0, x, x.dim) if t is None else t for t, x in zip(tangents, op.operands, strict=True)])


def _soft_dtw_gradient(op: Application) -> Term:
    return op.x.apply("soft_dtw_gradient", op.y, op.z)


def _soft_dtw_hessian(op: Application, t: Term) -> Term:
    """Multiply with the Hessian, which is symmetric."""
    return op.x.apply("soft_dtw_hessian", op.y, op.z, t)


def _soft_dtw_hessian_vjp(op: Application, ct: Term) -> Terms:
    if not op.varies or any(op.varies[:3]):
        raise UnsupportedError(_NO_THIRD_DERIVATIVE)
    return None, None, None, _soft_dtw_hessian(op, ct)


def _soft_dtw_hessian_jvp(op: Application, tangents: Terms) -> Term | None:
    *of_series, of_vector = tangents
    if any(t is not None for t in of_series):
        raise UnsupportedError(_NO_THIRD_DERIVATIVE)
    return None if of_vector is None else _soft_dtw_hessian(op, of_vector)


_NO_THIRD_DERIVATIVE = "the third derivative of reduction.soft_dtw is not implemented, two are"


def _same(_: Application, t: Term) -> Term:
    return t


_FLAT_OPS = (
    "step sign floor ceil trunc round isnan logical_not eq ne lt le gt ge logical_and logical_or "
    "inner_argmin inner_argmax one_hot"
)
FLAT = Derivative(lambda op, _: (None,) * len(op.operands), lambda _op, _tangents: None)

DERIVATIVES: Mapping[str, Derivative] = {
    # Constant between jumps
    **dict.fromkeys(_FLAT_OPS.split(), FLAT),
    # Functions of each component
    "neg": elementwise(lambda _, t: -t),
    "abs": elementwise(lambda op, t: t * sign(op.x)),
    "exp": elementwise(lambda op, t: t * op.result),
    "log": elementwise(lambda op, t: t / op.x),
    # rsqrt(0) = 0 makes the derivatives of sqrt and rsqrt 0 at 0, those of asin and acos 0 at -1 and 1.
    "sqrt": elementwise(lambda op, t: t * rsqrt(op.x) * 0.5),
    "rsqrt": elementwise(lambda op, t: t * powi(op.result, 3) * -0.5),
    "square": elementwise(lambda op, t: t * op.x * 2.0),
    "reciprocal": elementwise(lambda op, t: -(t * square(op.result))),
    "sin": elementwise(lambda op, t: t * cos(op.x)),
    "cos": elementwise(lambda op, t: -(t * sin(op.x))),
    "tan": elementwise(lambda op, t: t * (square(op.result) + 1.0)),
    "asin": elementwise(lambda op, t: t * rsqrt(1.0 - square(op.x))),
    "acos": elementwise(lambda op, t: -(t * rsqrt(1.0 - square(op.x)))),
    "atan": elementwise(lambda op, t: t / (square(op.x) + 1.0)),
    "sinh": elementwise(lambda op, t: t * cosh(op.x)),
    "cosh": elementwise(lambda op, t: t * sinh(op.x)),
    "tanh": elementwise(lambda op, t: t * (1.0 - square(op.result))),
    "exp2": elementwise(lambda op, t: t * op.result * math.log(2.0)),
    "log2": elementwise(lambda op, t: t / op.x * (1.0 / math.log(2.0))),
    "log1p": elementwise(lambda op, t: t / (op.x + 1.0)),
    "expm1": elementwise(lambda op, t: t * exp(op.x)),
    "cbrt": elementwise(lambda op, t: t / (square(op.result) * 3.0)),
    "erf": elementwise(lambda op, t: t * exp(-square(op.x)) * (2.0 / math.sqrt(math.pi))),
    "erfc": elementwise(lambda op, t: t * exp(-square(op.x)) * (-2.0 / math.sqrt(math.pi))),
    "sigmoid": elementwise(lambda op, t: t * op.result * (1.0 - op.result)),
    "softplus": elementwise(lambda op, t: t * sigmoid(op.x)),
    "relu": elementwise(lambda op, t: ifelse(op.x, t, 0.0)),
    "xlogx": elementwise(lambda op, t: t * (log(op.x) + 1.0)),
    "sinxdivx": elementwise(_sinxdivx),
    "powi": elementwise(_powi),
    "add": elementwise(_same, _same),
    "sub": elementwise(_same, lambda _, t: -t),
    "mul": elementwise(lambda op, t: t * op.y, lambda op, t: t * op.x),
    "div": elementwise(lambda op, t: t / op.y, lambda op, t: -(t * op.result / op.y)),
    "pow": elementwise(_pow_in_x, _pow_in_y),
    "atan2": elementwise(lambda op, t: _atan2(op, t) * op.y, lambda op, t: -(_atan2(op, t) * op.x)),
    "minimum": elementwise(lambda op, t: where(le(op.x, op.y), t, 0.0), lambda op, t: where(le(op.x, op.y), 0.0, t)),
    "maximum": elementwise(lambda op, t: where(ge(op.x, op.y), t, 0.0), lambda op, t: where(ge(op.x, op.y), 0.0, t)),
    "hypot": elementwise(
        lambda op, t: quotient_or_zero(t, op.result) * op.x, lambda op, t: quotient_or_zero(t, op.result) * op.y
    ),
    "mod0": elementwise(_same, lambda op, t: -(t * floor(op.x / op.y))),
    "where": elementwise(None, lambda op, t: where(op.x, t, 0.0), lambda op, t: where(op.x, 0.0, t)),
    "ifelse": elementwise(None, lambda op, t: ifelse(op.x, t, 0.0), lambda op, t: ifelse(op.x, 0.0, t)),
    "clamp": elementwise(_clamp_in_x, lambda op, t: where(lt(op.x, op.y), t, 0.0), _clamp_in_high),
    # Functions of vectors
    "inner_sum": _linear(_same),
    "inner_prod": _scalar(
        vjp=lambda op, ct: _products_of_others(op) * ct, jvp=lambda op, t: dot(_products_of_others(op), t)
    ),
    "inner_min": _selection(inner_argmin),
    "inner_max": _selection(inner_argmax),
    "sqnorm2": _scalar(vjp=lambda op, ct: op.x * (ct * 2.0), jvp=lambda op, t: dot(op.x, t) * 2.0),
    "norm2": _scalar(vjp=lambda op, ct: op.x * _unit(op, ct), jvp=lambda op, t: _unit(op, dot(op.x, t))),
    "normalize": _symmetric(_normalize),
    "dot": _bilinear(lambda op, ct: ct * op.y, lambda op, ct: ct * op.x),
    "sqdist": Derivative(_sqdist_vjp, _sqdist_jvp),
    "concat": _linear(lambda op, ct: extract(ct, 0, op.x.dim), lambda op, ct: extract(ct, op.x.dim, op.y.dim)),
    "extract": _linear(_extract),
    "broadcast": _linear(_same),
    "contract": _bilinear(
        lambda op, ct: _contracted(op, ct, operand="left", other="right", factor=op.y),
        lambda op, ct: _contracted(op, ct, operand="right", other="left", factor=op.x),
    ),
    "soft_dtw": Derivative(
        lambda op, ct: _series(op, _soft_dtw_gradient(op) * ct),
        lambda op, tangents: dot(_soft_dtw_gradient(op), _along(op, tangents)),
    ),
    "soft_dtw_gradient": Derivative(
        lambda op, ct: _series(op, _soft_dtw_hessian(op, ct)),
        lambda op, tangents: _soft_dtw_hessian(op, _along(op, tangents)),
    ),
    "soft_dtw_hessian": Derivative(_soft_dtw_hessian_vjp, _soft_dtw_hessian_jvp),
}
"""One row for each formula op."""


# Reductions, as functions of the pairs: their vjp is that of a component, their jvp a sum over the pairs


def _share(x: Term, log_of_sum: Term) -> Term:
    """exp(x) / sum of exp(x): 0 where the sum is 0, even where x is -inf."""
    return exp(x - where(eq(log_of_sum, -math.inf), math.inf, log_of_sum))


def _logsumexp_in_formula(op: ReductionApplication, t: Term) -> Term:
    share = t * _share(op.x, op.result)
    return share if len(op.operands) == 1 else share * op.y


def _softmax_share(op: ReductionApplication) -> Term:
    return _share(op.x, op.reduce("logsumexp", op.x))


def _prod(op: ReductionApplication, t: Term) -> Term:
    """Multiply with the product of all other factors: exact where factors are 0, and so is its first derivative.

    With P the product of the factors that are not 0, the product of all others is P divided by the factor where none is
    0. Where some are 0, it is P times all zeros, or all other zeros: one of them is `zeros` or `zeros - x`, whose value
    is 0, but not its derivative; of two and more the derivative is 0 too.
    """
    is_zero = eq(op.x, 0.0)
    factors = where(is_zero, 1.0, op.x)
    product, count = op.reduce("prod", factors), op.reduce("sum", is_zero)
    zeros = op.reduce("sum", where(is_zero, op.x, 0.0))
    one, two = eq(count, 1.0), eq(count, 2.0)
    of_zero = where(one, product, where(two, product * (zeros - op.x), 0.0))
    of_other = where(eq(count, 0.0), product, where(one, product * zeros, 0.0)) / factors
    return t * where(is_zero, of_zero, of_other)


REDUCTION_DERIVATIVES: Mapping[str, Derivative] = {
    "sum": elementwise(_same),
    "mean": elementwise(lambda op, t: t / op.reduce("sum", filled(1.0, op.x))),
    "prod": elementwise(_prod),
    "logsumexp": elementwise(_logsumexp_in_formula, lambda op, t: t * _share(op.x, op.result)),
    "softmax": elementwise(
        lambda op, t: t * (op.y - op.result) * _softmax_share(op), lambda op, t: t * _softmax_share(op)
    ),
}
"""One row for each reduction that has a derivative; the result of one in `READS_RESULT` is read."""

READS_RESULT = frozenset({"logsumexp", "softmax"})
"""Reductions whose derivative needs their result."""
