"""Reductions inside texts, and their derivatives, which are reductions again."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pylazy.lazy_formula import new
from pylazy.lazy_tensor import LazyTensor
from pylazy.runtime.errors import AxisError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REDUCTION_OPS: Mapping[str, tuple[str, ...]] = {
    "Sum": ("sum",),
    "Mean": ("mean",),
    "Prod": ("prod",),
    "LogSumExp": ("logsumexp",),
    "LogSumExpWeight": ("logsumexp",),
    "SumSoftMaxWeight": ("softmax",),
    "SoftMax": ("softmax",),
    "Min": ("min",),
    "Max": ("max",),
    "ArgMin": ("argmin",),
    "ArgMax": ("argmax",),
    "Min_ArgMin": ("min", "argmin"),
    "MinArgMin": ("min", "argmin"),
    "Max_ArgMax": ("max", "argmax"),
    "MaxArgMax": ("max", "argmax"),
    "KMin": ("kmin",),
    "ArgKMin": ("argkmin",),
    "KMin_ArgKMin": ("kmin", "argkmin"),
    "KMinArgKMin": ("kmin", "argkmin"),
    "KMax": ("kmax",),
    "ArgKMax": ("argkmax",),
    "KMax_ArgKMax": ("kmax", "argkmax"),
}
"""From the name of a reduction to what it gives, rows of `REDUCTIONS`."""

_CATEGORY_OF_AXES = {"i": 0, "j": 1, "": 0}
"""Of the rows of a gradient: those of its variable. That of a parameter has a row for each i, which the caller sums."""


@dataclass(frozen=True)
class TextReduction:
    """A reduction that a text names, as `Sum_Reduction(x - y, 0)`.

    Attributes:
        name: a row of `REDUCTION_OPS`, or "Max_SumShiftExp", which is there to be differentiated only.
        formulas: the formula, then the weight where there is one.
        category: of the rows of the result: 0 for a row for each i, by a reduction over j, or 1.
        k: how many are kept, None where the reduction keeps none.
    """

    name: str
    formulas: tuple[LazyTensor, ...]
    category: int
    k: int | None = None

    @property
    def axis(self) -> int:
        """The axis that is reduced, as `Genred` counts: 0 for i, 1 for j."""
        return 1 - self.category


def _read(name: str, formulas: tuple[LazyTensor, ...], category: int, k: int | None = None) -> TextReduction:
    if category not in (0, 1):
        raise AxisError(
            at_user_line(
                f"{name}_Reduction has category {category}, expected 0 for a row for each i, by a reduction over j, or "
                "1 for one for each j"
            )
        )
    return TextReduction(name, formulas, category, k)


def plain(name: str) -> Callable[[LazyTensor, int], TextReduction]:
    """Make the function that reads `Name_Reduction(f, category)`."""
    return lambda f, category: _read(name, (f,), category)


def weighted(name: str) -> Callable[[LazyTensor, int, LazyTensor], TextReduction]:
    """Make the function that reads `Name_Reduction(f, category, g)`."""
    return lambda f, category, g: _read(name, (f, g), category)


def keeping(name: str) -> Callable[[LazyTensor, int, int], TextReduction]:
    """Make the function that reads `Name_Reduction(f, K, category)`."""
    return lambda f, k, category: _read(name, (f,), category, k)


def zero(dim: int, category: int) -> TextReduction:
    """Read `Zero_Reduction(dim, category)`."""
    if dim < 1:
        raise ShapeError(at_user_line(f"Zero_Reduction has {dim} components, expected at least 1"))
    return _read("Sum", (_zeros(dim),), category)


def grad(f: LazyTensor | TextReduction, v: LazyTensor, e: LazyTensor | None = None) -> LazyTensor | TextReduction:
    """Read `Grad(f, v, e)`, of a formula or of a reduction: the vector-Jacobian product with e."""
    if isinstance(f, LazyTensor):
        return f.grad(v, e)
    if e is None:
        raise ShapeError(
            at_user_line("Grad of a reduction has no e, expected one, as Var(3, 1, 0) with the rows of the reduction")
        )
    return _pull_back(f, v, e, None)


def grad_with_saved_forward(f: TextReduction, v: LazyTensor, e: LazyTensor, saved: LazyTensor) -> TextReduction:
    """Read `Grad_WithSavedForward(f, v, e, saved)`: as `Grad` of a reduction whose result is `saved`."""
    return _pull_back(f, v, e, saved)


def diff(f: LazyTensor | TextReduction, v: LazyTensor, u: LazyTensor) -> LazyTensor | TextReduction:
    """Read `Diff(f, v, u)`, of a formula or of a reduction: the derivative in the direction u."""
    return f.diff(v, u) if isinstance(f, LazyTensor) else _push_forward(f, v, u, None)


def diff_with_saved_forward(f: TextReduction, v: LazyTensor, u: LazyTensor, saved: LazyTensor) -> TextReduction:
    """Read `Diff_WithSavedForward(f, v, u, saved)`: as `Diff` of a reduction whose result is `saved`."""
    return _push_forward(f, v, u, saved)


def _pull_back(f: TextReduction, v: LazyTensor, e: LazyTensor, saved: LazyTensor | None) -> TextReduction:
    if f.name in _POSITIONS:
        f.formulas[0].grad(v, 0)  # refuses a v that is no variable
    category = _CATEGORY_OF_AXES.get(v._axes, 0)
    if f.name in _POSITIONS:
        return TextReduction("Sum", (_with_inputs(_zeros(v.ndim), f.formulas[0], v, e, saved),), category)
    if f.name == "Max_SumShiftExp":
        e = e[1:]  # that of the maximum is not read
    gradient = _summed(f, saved).grad(v, e)
    return TextReduction("Sum", (_with_inputs(gradient, saved),), category)


def _push_forward(f: TextReduction, v: LazyTensor, u: LazyTensor, saved: LazyTensor | None) -> TextReduction:
    if f.name in _POSITIONS:
        f.formulas[0].diff(v, u)  # as above
        dim = f.formulas[0].ndim * (f.k or 1)
        return TextReduction("Sum", (_with_inputs(_zeros(dim), f.formulas[0], v, u, saved),), f.category)
    tangent = _summed(f, saved).diff(v, u)
    if f.name == "Max_SumShiftExp":
        tangent = _zeros(1).concat(tangent)
    return TextReduction("Sum", (_with_inputs(tangent, saved),), f.category)


def _summed(f: TextReduction, saved: LazyTensor | None) -> LazyTensor:
    """Give the formula whose sum has the derivative of a reduction, where `saved` is held fixed."""
    rule = _SUMMED.get(f.name)
    if rule is None:
        known = ", ".join(f"{name}_Reduction" for name in (*_SUMMED, *_POSITIONS))
        raise UnsupportedError(
            at_user_line(
                f"{f.name}_Reduction has no derivative in a text, expected one of {known}: use the gradient of its "
                "result, by torch, pylazy.grad or pylazy.jax_function"
            )
        )
    if saved is None and f.name != "Sum":
        raise UnsupportedError(
            at_user_line(
                f"the derivative of {f.name}_Reduction reads its result: use Grad_WithSavedForward or "
                "Diff_WithSavedForward"
            )
        )
    return rule(f, saved)


def _exponentials(f: TextReduction, shift: LazyTensor) -> LazyTensor:
    share = (f.formulas[0] - shift).exp()
    return share if len(f.formulas) == 1 else share * f.formulas[1]


_SUMMED: Mapping[str, Callable[[TextReduction, Any], LazyTensor]] = MappingProxyType(
    {
        "Sum": lambda f, _: f.formulas[0],
        "LogSumExp": _exponentials,
        "LogSumExpWeight": _exponentials,
        # As pykeops writes it: `saved` is the maximum and the sum of the shifted exponentials, and the cotangent of the
        # sum is that of its logarithm, or of the quotient of two such sums, divided by it.
        "Max_SumShiftExp": lambda f, saved: _exponentials(f, saved[:1]),
    }
)
_POSITIONS = ("ArgMin", "ArgMax", "ArgKMin", "ArgKMax")


def _zeros(dim: int) -> LazyTensor:
    return LazyTensor(0) if dim == 1 else LazyTensor(0).sumT(dim)


def _with_inputs(formula: LazyTensor, *others: LazyTensor | None) -> LazyTensor:
    """Keep the variables of other formulas among the arguments, though the value does not depend on them."""
    from pylazy.differentiation.formula_derivatives import arrays_of, with_variables

    leaves = arrays_of([other._expression for other in others if other is not None])
    return new(LazyTensor, with_variables(formula._expression, leaves), (), None, None, None)
