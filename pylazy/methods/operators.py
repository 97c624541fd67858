"""Operators of LazyTensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pylazy.arrays.imported_arrays import is_array
from pylazy.lazy_formula import LazyFormula, apply_to, unary
from pylazy.methods.operands import combine, operand, static_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

_MAX_STATIC_EXPONENT = 1024
_MAX_STATIC_HALF = 3.5  # powers of integers and a half become products with a root; see the lowering of pow
_INTEGERS = (int, np.integer)

_TORCH_NAMES = {
    "add": "add",
    "sub": "sub subtract",
    "mul": "mul multiply",
    "truediv": "truediv div divide true_divide",
    "mod": "mod remainder",
    "pow": "pow",
    "or": "or bitwise_or",
    "matmul": "matmul",
    "eq": "eq",
    "ne": "ne",
    "lt": "lt",
    "le": "le",
    "gt": "gt",
    "ge": "ge",
}
_TORCH_OPERATORS: Mapping[str, tuple[str, bool]] = {
    spelling: (f"__{op}__", reflected)
    for op, names in _TORCH_NAMES.items()
    for name in names.split()
    for spelling, reflected in (
        (name, False),
        (f"__{name}__", False),
        (f"__i{name}__", False),
        (f"r{name}", True),
        (f"__r{name}__", True),
    )
}
"""What torch calls an operator: the method of the left operand, and whether the operands are exchanged."""


class Operators(LazyFormula):
    """Python's operators, each one node of the formula; comparisons give 0 or 1."""

    __slots__ = ()

    __array_ufunc__ = None  # an array on the left of an operator then leaves the operation to us
    __hash__ = object.__hash__  # by identity, since == makes a formula

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Take over an operator that torch was given, as in `tensor + x`; and in torch.compile, as in `x + tensor`."""
        del types
        name = getattr(func, "__name__", "")
        found = _TORCH_OPERATORS.get(name)
        if found is None or kwargs or len(args) != 2:
            return NotImplemented
        op, reflected = found
        x, y = (args[1], args[0]) if reflected else args
        if op == "__matmul__":
            # Where K is the left operand, torch.compile calls the method of the right one, for want of a reflected one.
            formula: Any
            formula, v = (x, y) if isinstance(x, LazyFormula) else (y, x)
            return formula.__matmul__(v)
        return getattr(operand(cls, x), op)(operand(cls, y))

    def __add__(self, other: Any) -> Self:
        return _operator("add", self, other)

    def __radd__(self, other: Any) -> Self:
        return _reflected("add", self, other)

    def __sub__(self, other: Any) -> Self:
        return _operator("sub", self, other)

    def __rsub__(self, other: Any) -> Self:
        return _reflected("sub", self, other)

    def __mul__(self, other: Any) -> Self:
        return _operator("mul", self, other)

    def __rmul__(self, other: Any) -> Self:
        return _reflected("mul", self, other)

    def __truediv__(self, other: Any) -> Self:
        return _operator("div", self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return _reflected("div", self, other)

    def __mod__(self, other: Any) -> Self:
        return _operator("mod0", self, other)

    def __rmod__(self, other: Any) -> Self:
        return _reflected("mod0", self, other)

    def __or__(self, other: Any) -> Self:
        return _operator("dot", self, other)

    def __ror__(self, other: Any) -> Self:
        return _reflected("dot", self, other)

    def __eq__(self, other: object) -> Self:  # type: ignore[override]
        return _operator("eq", self, other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        return _operator("ne", self, other)

    def __lt__(self, other: Any) -> Self:
        return _operator("lt", self, other)

    def __le__(self, other: Any) -> Self:
        return _operator("le", self, other)

    def __gt__(self, other: Any) -> Self:
        return _operator("gt", self, other)

    def __ge__(self, other: Any) -> Self:
        return _operator("ge", self, other)

    def __neg__(self) -> Self:
        return unary("neg", self)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return unary("abs", self)

    def __pow__(self, exponent: Any) -> Self:
        if isinstance(exponent, float):
            if exponent == 0.5:
                return unary("sqrt", self)
            if exponent == -0.5:
                return unary("rsqrt", self)
            if exponent.is_integer():
                exponent = int(exponent)
            elif abs(exponent) <= _MAX_STATIC_HALF and (2 * exponent).is_integer() and not self.is_complex:
                return _operator("pow", self, static_number(self.__class__, exponent))
        if isinstance(exponent, _INTEGERS) and abs(exponent) <= _MAX_STATIC_EXPONENT:
            if exponent == 2:
                return unary("square", self)
            return unary("powi", self, (("exponent", int(exponent)),))
        return _operator("pow", self, exponent)

    def __rpow__(self, base: Any) -> Self:
        return _reflected("pow", self, base)


_T = TypeVar("_T", bound=LazyFormula)
_OPERANDS = (LazyFormula, int, float, complex, list, tuple, np.ndarray, np.generic)


def _operator(op: str, x: _T, y: Any) -> _T:
    if y.__class__ is x.__class__ and not x.is_complex:
        return apply_to(op, (x, y))
    if not isinstance(y, _OPERANDS) and not is_array(y):
        return NotImplemented  # type: ignore[no-any-return]
    return combine(op, x, y)


def _reflected(op: str, x: _T, y: Any) -> _T:
    if not isinstance(y, _OPERANDS) and not is_array(y):
        return NotImplemented  # type: ignore[no-any-return]
    return combine(op, operand(x.__class__, y), x)
