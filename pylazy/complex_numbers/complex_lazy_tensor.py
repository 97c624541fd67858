"""LazyTensors of complex numbers."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from pylazy.arrays.results import in_kind_of
from pylazy.arrays.sources import NUMPY, TORCH, ComplexPart, Source
from pylazy.complex_numbers.complex_arithmetic import Complex, zeros
from pylazy.complex_numbers.complex_arrays import (
    complex_array,
    delivered,
    parts_of,
    polar,
)
from pylazy.complex_numbers.complex_operations import OPERATIONS_ON_COMPLEX
from pylazy.complex_numbers.complex_reductions import ComplexReduction, run_now, without_out
from pylazy.execution.wanted_results import Wanted
from pylazy.expression import apply
from pylazy.formula_texts.formula_text import as_html, bytes_as_text, formula_as_latex, formula_as_text
from pylazy.lazy_formula import LazyFormula, axis_of, unary
from pylazy.lazy_tensor import LazyTensor
from pylazy.methods.operands import combine, from_data, is_symbol, operand, symbolic
from pylazy.options import read_options
from pylazy.runtime.errors import DtypeError, ShapeError, UnsupportedError
from pylazy.stages import Reduction
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from typing_extensions import Self

    from pylazy.expression import Attributes, Expression

_COMPLEX_NAMES = {"float16": "complex32", "float32": "complex64", "float64": "complex128"}
_SPELLINGS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "mod0": "mod"}
_LINEAR_REDUCTIONS = frozenset({"sum", "mean"})
_T = TypeVar("_T", bound=LazyTensor)


class ComplexLazyTensor(LazyTensor):
    """A LazyTensor of complex numbers, with NumPy's meaning for every operation that has one.

    It is a vector of real numbers: D real parts, then D imaginary parts. `OPERATIONS_ON_COMPLEX` composes every
    operation of real ones, so that derivatives, reductions and kernels are those of real formulas.

    Args:
        x: as for `LazyTensor`; numbers may be real or complex, and there is one component for each. A tuple
            (index, dim, category) is a symbolic variable of dim real numbers, real and imaginary parts in turn.
        axis: as for `LazyTensor`.

    Raises:
        AxisError: the shape does not say which axes the array has, or contradicts `axis`.
        DtypeError: this is no array, or not one of complex64, complex128 or a real dtype.
    """

    __slots__ = ("_planar",)

    is_complex = True
    _planar: Expression

    def __new__(cls, x: Any, axis: int | None = None) -> Self:
        """Read real data as complex numbers, too."""
        made: Any
        if axis is None and is_symbol(x):
            made = from_interleaved(symbolic(LazyTensor, *x))
        else:
            made = from_data(LazyTensor, x, axis)
            made = made if made.is_complex else complex_of(made, None)
        found: Self = copy(made) if made is x else made
        return found

    # What has not learnt about complex numbers, and reads the formula as if it were real, is refused.
    @property
    def _expression(self) -> Expression:
        raise UnsupportedError(
            at_user_line("this is not there for complex LazyTensors: apply it to real ones, such as z.real and z.imag")
        )

    @_expression.setter
    def _expression(self, expression: Expression) -> None:
        self._planar = expression

    @classmethod
    def _real_class(cls) -> Any:
        return LazyTensor

    @property
    def _axes(self) -> str:
        return self._planar.axes

    @property
    def ndim(self) -> int:
        """The inner dimension D, in complex numbers."""
        return self._planar.dim // 2

    @property
    def dtype(self) -> str | None:
        """The name "complex64" or "complex128"; None for numbers alone, which take the dtype of what they meet."""
        real = self._planar.dtype
        return None if real is None else _COMPLEX_NAMES.get(real)

    def __repr__(self) -> str:
        parts = f"real={formula_as_text(self.real._expression)}, imag={formula_as_text(self.imag._expression)}"
        return f"{type(self).__name__}({parts}, shape={self.shape}, {self.dtype or 'any complex dtype'})"

    def _repr_latex_(self) -> str:
        """Write the formula in LaTeX, for notebooks."""
        re, im = (formula_as_latex(part._expression) for part in (self.real, self.imag))
        return rf"$\displaystyle {re} + i \left({im}\right)$"

    def _repr_html_(self) -> str:
        """Write the formula and what is known of it as a table, for notebooks."""
        facts = {
            "imaginary part": formula_as_text(self.imag._expression),
            "shape": str(self.shape),
            "dtype": self.dtype or "that of the arrays it meets",
            "as an array": bytes_as_text(self._shape, self.dtype),
        }
        return as_html(type(self).__name__, formula_as_text(self.real._expression), facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.__class__, planar_of(self)), getattr(self, "__dict__", None)

    def _fill(self, formula: Any) -> None:
        for name in _STATE:
            setattr(self, name, getattr(formula, name))
        self._planar = formula._planar

    def t(self) -> ComplexLazyTensor:
        """Exchange the axes i and j, without conjugation."""
        return _from_planar(planar_of(self).t())

    def rmatvec(self, v: Any) -> Any:
        """`K.conj().T @ v`, as scipy.sparse.linalg means it."""
        return in_kind_of(self.conj().T @ self._beside(v), v)

    def _beside(self, v: Any) -> Any:
        return planar_of(self)._beside(v)

    @property
    def real(self) -> LazyTensor:
        """The real part, as a real LazyTensor."""
        return _part(self, 0)

    @property
    def imag(self) -> LazyTensor:
        """The imaginary part, as a real LazyTensor."""
        return _part(self, 1)

    def conj(self) -> ComplexLazyTensor:
        """The complex conjugate."""
        return complex_of(self.real, -self.imag)

    def angle(self) -> LazyTensor:
        """The angle in radians, from -pi to pi, as `numpy.angle`."""
        return self.imag.atan2(self.real)

    def real2complex(self) -> NoReturn:
        """Refuse: these numbers are complex already."""
        _refuse_real_method("real2complex")

    def imag2complex(self) -> NoReturn:
        """Refuse: these numbers are complex already."""
        _refuse_real_method("imag2complex")

    def exp1j(self) -> NoReturn:
        """Refuse, as pykeops does: (1j * z).exp() is the exponential of a complex angle."""
        _refuse_real_method("exp1j")

    def vecdot(self, other: Any) -> Any:
        """Sum of the products of conj(self) and `other`, as `numpy.vecdot`; `dot` and | conjugate nothing."""
        return self.conj().dot(other)

    def weightedsqnorm(self, s: Any) -> Any:
        """Weighted squared norm: w * sum of |z[k]|**2, sum of w[k] |z[k]|**2, or of conj(z[k]) w[k, l] z[l]."""
        weight, dim = operand(LazyTensor, s), self.ndim
        if weight.ndim == dim * dim > 1:
            return self.vecdot(weight.matvecmult(self))
        if weight.ndim not in (1, dim):
            raise ShapeError(
                at_user_line(
                    f"s has inner dimension {weight.ndim}, expected 1, {dim} or {dim * dim} for a vector of "
                    f"dimension {dim}"
                )
            )
        return (weight * (self.real.square() + self.imag.square())).sum(-1)

    # Reductions -------------------------------------------------------------------------------------------------------

    def _reduce_any(
        self, kind: str, axis: int | None, dim: int | None, *, keepdim: bool, options: dict[str, Any]
    ) -> Any:
        where = axis_of(self, axis, dim)
        if where == "inner":
            read_options(options, dtype=self._planar.dtype)
            return unary(f"inner_{kind}", self)
        if kind == "prod":
            return self._multiply_all(where, keepdim=keepdim, options=options)
        return self._reduce(where, (Wanted(kind, (0,)),), options, keepdim=keepdim)

    def _reduce(
        self,
        axis: str,
        wanted: tuple[Wanted, ...],
        options: dict[str, Any],
        *,
        keepdim: bool = False,
        drop_inner: bool = False,
    ) -> Any:
        for target in wanted:
            if target.kind not in _LINEAR_REDUCTIONS:
                _refuse(target.kind)
        rest, out = without_out(options)
        found = planar_of(self)._reduce(axis, wanted, rest, keepdim=keepdim)
        if isinstance(found, Reduction):
            if out is not None and options.get("call", True):
                raise UnsupportedError(
                    at_user_line(
                        "out is given for a formula with symbolic variables: give it when the Reduction is called"
                    )
                )
            return ComplexReduction(found, drop_inner=drop_inner)
        return delivered(complex_array(found, drop_inner=drop_inner), out)

    def _multiply_all(self, where: str, *, keepdim: bool, options: dict[str, Any]) -> Any:
        """Multiply sizes and add angles, as a product of complex numbers is not one of their parts."""
        rest, out = run_now("prod", (self._planar,), options)
        sizes = abs(self)._reduce(where, (Wanted("prod", (0,)),), rest, keepdim=keepdim)
        angles = self.angle()._reduce(where, (Wanted("sum", (0,)),), rest, keepdim=keepdim)
        return delivered(polar(sizes, angles), out)

    def _spread(self, where: str, ddof: int, *, root: bool, keepdim: bool, options: dict[str, Any]) -> Any:
        """Add the variances of both parts, which is the mean of |z - mean|**2."""
        rest, out = run_now("var and std", (self._planar,), options)
        found = planar_of(self)._spread(where, ddof, root=False, keepdim=keepdim, options=rest)
        dim = self.ndim
        result = found[..., :dim] + found[..., dim:]
        return delivered(result**0.5 if root else result, out)


# Between real and complex LazyTensors ---------------------------------------------------------------------------------


def complex_of(re: Any, im: Any) -> ComplexLazyTensor:
    """Join two real LazyTensors; None stands for zeros.

    Raises:
        ShapeError: their sizes do not fit.
    """
    dim = max(part.ndim for part in (re, im) if part is not None)
    parts = [_widened(zeros(1) if part is None else part, dim) for part in (re, im)]
    return _from_planar(combine("concat", *parts))


def from_complex_data(x: Any, axis: int | None) -> ComplexLazyTensor:
    """Make a complex LazyTensor of an array, a number or a list of numbers, as `from_data` makes real ones.

    Raises:
        AxisError: the shape does not say which axes the array has, or contradicts `axis`.
        DtypeError: this is no array of complex64 or complex128.
    """
    if isinstance(x, np.ndarray) and not (x.dtype.isnative and x.dtype.name in _COMPLEX_NAMES.values()):
        raise DtypeError(
            at_user_line(
                f"an array of shape {x.shape} has dtype {x.dtype}, expected complex64 or complex128: convert it, as by "
                "x.astype(numpy.complex64)"
            )
        )
    re, im, conjugated = parts_of(x)
    parts = from_data(LazyTensor, re, axis), from_data(LazyTensor, im, axis)
    remember_parts(x, parts, conjugated=conjugated)
    made = complex_of(*parts)
    return made.conj() if conjugated else made


def remember_parts(x: Any, parts: tuple[LazyTensor, LazyTensor], *, conjugated: bool) -> None:
    """Note which array the parts are of, so that a bundle can ask for it."""
    for part, name in zip(parts, ("real", "imag"), strict=True):
        source = part._expression.source
        if isinstance(source, Source) and source.kind in (NUMPY, TORCH):
            source.part = ComplexPart(x, name, conjugated)


def apply_rule(op: str, operands: tuple[Any, ...], attributes: Attributes) -> Any:
    """Apply an operation to LazyTensors of which at least one is complex; see `apply_complex`."""
    rule = OPERATIONS_ON_COMPLEX.get(op)
    if rule is None:
        _refuse(op)
    result = rule(*map(_pair, operands), **dict(attributes))
    return complex_of(*result) if isinstance(result, Complex) else result


def interleaved(z: ComplexLazyTensor) -> LazyTensor:
    """Write complex numbers as pykeops lays them out: (..., D) gives (..., 2 * D) reals, each real part first."""
    return _transposed(planar_of(z), 2, z.ndim)


def from_interleaved(f: LazyTensor) -> ComplexLazyTensor:
    """Read a vector of real and imaginary parts in turn: (..., 2 * D) gives (..., D).

    Raises:
        ShapeError: the number of components is odd.
    """
    if f.ndim % 2:
        raise ShapeError(
            at_user_line(f"a complex vector has {f.ndim} components, expected an even number: real, imaginary, real...")
        )
    return _from_planar(_transposed(f, f.ndim // 2, 2))


def _transposed(f: LazyTensor, rows: int, columns: int) -> LazyTensor:
    """See the components as a matrix by rows, and transpose it."""
    if 1 in (rows, columns):
        return f
    before = f._expression
    if before.op == "contract" and before.attributes == _transposition(columns, rows):
        return with_expression(f, LazyTensor, before.operands[0])  # back to where it came from
    return combine("contract", f, 1, attributes=_transposition(rows, columns))


def _transposition(rows: int, columns: int) -> Attributes:
    """The attributes of a product with the number 1, whose label-less second operand nothing else makes."""
    return ("sizes", (rows, columns)), ("left", (0, 1)), ("right", ()), ("kept", (1, 0))


def _from_planar(planar: LazyTensor) -> ComplexLazyTensor:
    return with_expression(planar, ComplexLazyTensor, planar._expression)


def _rebuild(cls: type[ComplexLazyTensor], planar: LazyTensor) -> ComplexLazyTensor:
    made = object.__new__(cls)
    made._fill(_from_planar(planar))
    return made


def planar_of(z: ComplexLazyTensor) -> LazyTensor:
    """Read complex numbers as twice as many real ones: real parts, then imaginary parts."""
    return with_expression(z, LazyTensor, z._planar)


def _part(z: ComplexLazyTensor, number: int) -> LazyTensor:
    planar, dim = z._planar, z.ndim
    if planar.op == "concat" and planar.operands[0].dim == dim:
        return with_expression(z, LazyTensor, planar.operands[number])
    attributes: Attributes = (("start", number * dim), ("size", dim))
    return with_expression(z, LazyTensor, apply("extract", (planar,), attributes))


_STATE = tuple(name for name in LazyFormula.__slots__ if name not in ("__weakref__", "_expression"))


def with_expression(x: LazyTensor, cls: type[_T], expression: Expression) -> _T:
    """Give another formula the sizes and settings of a LazyTensor."""
    made = object.__new__(cls)
    for name in _STATE:
        setattr(made, name, getattr(x, name))
    made._expression = expression
    return made


def _pair(x: LazyTensor) -> Complex:
    return Complex(x.real, x.imag) if x.is_complex else Complex(x, None)


def _widened(x: LazyTensor, dim: int) -> LazyTensor:
    return x if x.ndim == dim else x.sumT(dim)


def _refuse(op: str) -> NoReturn:
    name = _SPELLINGS.get(op, op.removeprefix("inner_"))
    raise UnsupportedError(
        at_user_line(
            f"{name} has no meaning for complex numbers, expected real ones: apply it to z.real, z.imag or abs(z)"
        )
    )


def _refuse_real_method(name: str) -> NoReturn:
    raise UnsupportedError(at_user_line(f"{name} is for real numbers, and these are complex already"))
