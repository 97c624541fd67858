"""LazyTensor: array code that builds a formula instead of an array."""

# ruff: noqa: N802, N803, N815  these names are pykeops' own, and programs use them

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy import arrays
from pylazy.execute import Extents, Job, Wanted, prepare, read_options
from pylazy.expression import Attributes, Expression, apply, at_user_line, constant, variable
from pylazy.runtime.errors import AxisError, DtypeError, ShapeError, UnsupportedError
from pylazy.stages import Reduction

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_STATIC_EXPONENT = 1024
_AXIS_NAMES = ("i", "j", "")
_SWAPPED_AXES = {"": "", "i": "j", "j": "i", "ij": "ij"}


class LazyTensor:
    """A symbolic tensor of shape (*batch, M, N, D) whose entries are computed when a reduction needs them.

    Args:
        x: a NumPy array, a torch tensor, a number, or a list of numbers.
            With three or more dimensions its shape is (*batch, M, 1, D), (*batch, 1, N, D) or (*batch, 1, 1, D).
            With two, `axis` says what it is. With one or none it is a parameter, shared by all pairs.
        axis: of a 2-D array: 0 for rows (M, D), 1 for columns (N, D), 2 for parameters (batch, D) or (1, D).

    The data is not copied: it is read when a reduction runs.

    Raises:
        AxisError: the shape does not say which axes the array has, or contradicts `axis`.
        DtypeError: this is no array, or not one of float32 or float64.
    """

    __slots__ = ("__weakref__", "_backend", "_batch", "_columns", "_expression", "_rows")

    __array_ufunc__ = None  # an array on the left of an operator then leaves the operation to LazyTensor
    __hash__ = object.__hash__  # by identity, since == makes a formula

    _expression: Expression
    _batch: tuple[int, ...]
    _rows: int | None
    _columns: int | None
    _backend: str | None

    def __init__(self, x: Any, axis: int | None = None) -> None:
        made = _from_data(x, axis)
        self._expression = made._expression
        self._batch = made._batch
        self._rows = made._rows
        self._columns = made._columns
        self._backend = made._backend

    # Shape ------------------------------------------------------------------------------------------------------------

    @property
    def _shape(self) -> tuple[int, ...]:
        rows = 1 if self._rows is None else self._rows
        columns = 1 if self._columns is None else self._columns
        return (*self._batch, rows, columns, self._expression.dim)

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, M, N, D), without D where it is 1; an axis that the formula does not have counts 1."""
        return self._shape if self._expression.dim > 1 else self._shape[:-1]

    @property
    def ndim(self) -> int:
        """The inner dimension D, as in pykeops; the number of axes is `dim()`."""
        return self._expression.dim

    @property
    def nbatchdims(self) -> int:
        """The number of batch dimensions."""
        return len(self._batch)

    @property
    def dtype(self) -> str | None:
        """The name "float32" or "float64"; None for numbers alone, which take the dtype of what they meet."""
        return self._expression.dtype

    def dim(self) -> int:
        """The number of axes of the full shape (*batch, M, N, D)."""
        return len(self._batch) + 3

    @property
    def backend(self) -> str | None:
        """Where reductions of this formula run unless they are told otherwise; None for "auto"."""
        return self._backend

    @backend.setter
    def backend(self, backend: str | None) -> None:
        read_options({}, dtype=None, backend=backend)
        self._backend = backend

    @property
    def ranges(self) -> None:
        """Blocks of pairs to reduce over; not implemented yet, so None."""
        return None

    @ranges.setter
    def ranges(self, ranges: object) -> None:
        read_options({"ranges": ranges}, dtype=None)

    def __repr__(self) -> str:
        return f"<LazyTensor of shape {self.shape}, {self.dtype or 'any dtype'}>"

    def __bool__(self) -> bool:
        raise TypeError(
            at_user_line(
                "a LazyTensor is a formula and has no truth value: reduce it first, "
                "or use a.where(b, c), a.minimum(b), a.logical_and(b)"
            )
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _new, (self._expression, self._batch, self._rows, self._columns, self._backend)

    # Operators --------------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> LazyTensor:
        return _operator("add", self, other)

    def __radd__(self, other: Any) -> LazyTensor:
        return _reflected("add", self, other)

    def __sub__(self, other: Any) -> LazyTensor:
        return _operator("sub", self, other)

    def __rsub__(self, other: Any) -> LazyTensor:
        return _reflected("sub", self, other)

    def __mul__(self, other: Any) -> LazyTensor:
        return _operator("mul", self, other)

    def __rmul__(self, other: Any) -> LazyTensor:
        return _reflected("mul", self, other)

    def __truediv__(self, other: Any) -> LazyTensor:
        return _operator("div", self, other)

    def __rtruediv__(self, other: Any) -> LazyTensor:
        return _reflected("div", self, other)

    def __mod__(self, other: Any) -> LazyTensor:
        return _operator("mod0", self, other)

    def __rmod__(self, other: Any) -> LazyTensor:
        return _reflected("mod0", self, other)

    def __or__(self, other: Any) -> LazyTensor:
        return _operator("dot", self, other)

    def __ror__(self, other: Any) -> LazyTensor:
        return _reflected("dot", self, other)

    def __eq__(self, other: object) -> LazyTensor:  # type: ignore[override]
        return _operator("eq", self, other)

    def __ne__(self, other: object) -> LazyTensor:  # type: ignore[override]
        return _operator("ne", self, other)

    def __lt__(self, other: Any) -> LazyTensor:
        return _operator("lt", self, other)

    def __le__(self, other: Any) -> LazyTensor:
        return _operator("le", self, other)

    def __gt__(self, other: Any) -> LazyTensor:
        return _operator("gt", self, other)

    def __ge__(self, other: Any) -> LazyTensor:
        return _operator("ge", self, other)

    def __neg__(self) -> LazyTensor:
        return _unary("neg", self)

    def __pos__(self) -> LazyTensor:
        return self

    def __abs__(self) -> LazyTensor:
        return _unary("abs", self)

    def __pow__(self, exponent: Any) -> LazyTensor:
        if isinstance(exponent, float):
            if exponent == 0.5:
                return _unary("sqrt", self)
            if exponent == -0.5:
                return _unary("rsqrt", self)
            if exponent.is_integer():
                exponent = int(exponent)
        if isinstance(exponent, int | np.integer) and abs(exponent) <= _MAX_STATIC_EXPONENT:
            if exponent == 2:
                return _unary("square", self)
            return _unary("powi", self, (("exponent", int(exponent)),))
        return _operator("pow", self, exponent)

    def __rpow__(self, base: Any) -> LazyTensor:
        return _reflected("pow", self, base)

    def __getitem__(self, key: Any) -> LazyTensor:
        if isinstance(key, tuple):
            leading = key[:-1]
            complete = len(key) == self.dim() or (Ellipsis in leading and len(leading) <= self.dim())
            if not complete or any(part not in (Ellipsis, slice(None)) for part in leading):
                raise AxisError(
                    at_user_line(
                        f"only the last of the {self.dim()} axes can be indexed, expected x[k], x[a:b] or x[..., k] "
                        f"with whole slices before it, found {key}"
                    )
                )
            key = key[-1]
        if isinstance(key, slice):
            if key.step not in (None, 1):
                raise AxisError(at_user_line(f"a slice of components has step {key.step}, expected 1"))
            start, stop, _ = key.indices(self._expression.dim)
            return self.extract(start, stop - start)
        return self.elem(_index(key, "a component"))

    def __iter__(self) -> Any:
        return (self.elem(k) for k in range(self._expression.dim))

    def __matmul__(self, v: Any, **options: Any) -> Any:
        """Multiply the matrix of a scalar formula with vectors: (*batch, M) for v of shape (N,), else (*batch, M, E).

        Args:
            v: an array of shape (N,) or (*batch, N, E).
            **options: as for `sum`.
        """
        if self._expression.dim != 1:
            raise ShapeError(
                at_user_line(
                    f"K @ v needs a K of inner dimension 1, found {self._expression.dim}: "
                    "reduce it first, as by K.sum(-1)"
                )
            )
        if not _is_array(v):
            v = np.asarray(v, dtype=np.float64) if isinstance(v, list | tuple) else v
        if not _is_array(v) or v.ndim == 0:
            raise ShapeError(
                at_user_line(f"v is {type(v).__name__}, expected an array of shape (N,) or (*batch, N, E) in K @ v")
            )
        rank = max(v.ndim - 2, 0)
        shape = tuple(v.shape)
        count, dim = (shape[0], 1) if v.ndim == 1 else shape[-2:]
        columns = self._columns
        if columns is not None and count != columns:
            raise ShapeError(
                at_user_line(
                    f"K has {columns} columns, v has {count} rows in its shape {shape}: K @ v needs equal sizes"
                )
            )
        source = arrays.array_source(v, what="v in K @ v", batch=rank, view="j")
        column = _new(
            variable(source, axis="j", dim=_checked_dim(dim), dtype=source.dtype), shape[:rank], None, count, None
        )
        product = _apply("mul", (self, column))
        return product._reduce("j", (Wanted("sum", (0,)),), options, drop_inner=v.ndim == 1)

    def matvec(self, v: Any) -> Any:
        """`K @ v`, as scipy.sparse.linalg names it."""
        return self @ v

    def rmatvec(self, v: Any) -> Any:
        """`K.T @ v`, as scipy.sparse.linalg names it."""
        return self.T @ v

    def t(self) -> LazyTensor:
        """Exchange the axes i and j."""
        return _new(_swap_axes(self._expression), self._batch, self._columns, self._rows, self._backend)

    @property
    def T(self) -> LazyTensor:
        """Exchange the axes i and j."""
        return self.t()

    # Operations on each component; what they mean is in OPERATIONS ----------------------------------------------------

    def abs(self) -> LazyTensor:
        """Absolute value."""
        return _unary("abs", self)

    def exp(self) -> LazyTensor:
        """Exponential."""
        return _unary("exp", self)

    def log(self) -> LazyTensor:
        """Natural logarithm."""
        return _unary("log", self)

    def sqrt(self) -> LazyTensor:
        """Square root; its derivative is taken as 0 at 0."""
        return _unary("sqrt", self)

    def rsqrt(self) -> LazyTensor:
        """1 / sqrt(x), and 0 at 0."""
        return _unary("rsqrt", self)

    def square(self) -> LazyTensor:
        """Square."""
        return _unary("square", self)

    def reciprocal(self) -> LazyTensor:
        """1 / x."""
        return _unary("reciprocal", self)

    def sin(self) -> LazyTensor:
        """Sine of radians."""
        return _unary("sin", self)

    def cos(self) -> LazyTensor:
        """Cosine of radians."""
        return _unary("cos", self)

    def tan(self) -> LazyTensor:
        """Tangent of radians."""
        return _unary("tan", self)

    def asin(self) -> LazyTensor:
        """Arc sine, in radians."""
        return _unary("asin", self)

    def acos(self) -> LazyTensor:
        """Arc cosine, in radians."""
        return _unary("acos", self)

    def atan(self) -> LazyTensor:
        """Arc tangent, in radians."""
        return _unary("atan", self)

    def sinh(self) -> LazyTensor:
        """Hyperbolic sine."""
        return _unary("sinh", self)

    def cosh(self) -> LazyTensor:
        """Hyperbolic cosine."""
        return _unary("cosh", self)

    def tanh(self) -> LazyTensor:
        """Hyperbolic tangent."""
        return _unary("tanh", self)

    def exp2(self) -> LazyTensor:
        """2 ** x."""
        return _unary("exp2", self)

    def log2(self) -> LazyTensor:
        """Logarithm to base 2."""
        return _unary("log2", self)

    def log1p(self) -> LazyTensor:
        """The logarithm of 1 + x."""
        return _unary("log1p", self)

    def expm1(self) -> LazyTensor:
        """The exponential of x, minus 1."""
        return _unary("expm1", self)

    def cbrt(self) -> LazyTensor:
        """Real cube root."""
        return _unary("cbrt", self)

    def erf(self) -> LazyTensor:
        """Error function."""
        return _unary("erf", self)

    def erfc(self) -> LazyTensor:
        """1 - erf(x)."""
        return _unary("erfc", self)

    def sigmoid(self) -> LazyTensor:
        """1 / (1 + exp(-x))."""
        return _unary("sigmoid", self)

    def softplus(self) -> LazyTensor:
        """log(1 + exp(x))."""
        return _unary("softplus", self)

    def relu(self) -> LazyTensor:
        """Itself where x >= 0, else 0; its derivative is taken as 1 at 0."""
        return _unary("relu", self)

    def step(self) -> LazyTensor:
        """0 where x < 0, else 1."""
        return _unary("step", self)

    def sign(self) -> LazyTensor:
        """-1, 0 or 1."""
        return _unary("sign", self)

    def floor(self) -> LazyTensor:
        """Largest integer not above x."""
        return _unary("floor", self)

    def ceil(self) -> LazyTensor:
        """Smallest integer not below x."""
        return _unary("ceil", self)

    def trunc(self) -> LazyTensor:
        """Integer part."""
        return _unary("trunc", self)

    def round(self, d: int = 0) -> LazyTensor:
        """Round to `d` decimals, halves away from zero; a negative `d` rounds to tens, hundreds, and so on."""
        places = _index(d, "d, the number of decimals,")
        if places == 0:
            return _unary("round", self)
        scale = int(10 ** abs(places))
        if places > 0:
            return _unary("round", self * scale) / scale
        return _unary("round", self / scale) * scale

    def xlogx(self) -> LazyTensor:
        """The product x * log(x), and 0 at 0."""
        return _unary("xlogx", self)

    def sinxdivx(self) -> LazyTensor:
        """Quotient sin(x) / x, and 1 at 0."""
        return _unary("sinxdivx", self)

    def sinc(self) -> LazyTensor:
        """Normalised sinc, sin(pi x) / (pi x), and 1 at 0."""
        return _unary("sinxdivx", _apply("mul", (_constant(math.pi), self)))

    def isnan(self) -> LazyTensor:
        """1 where x is NaN, else 0."""
        return _unary("isnan", self)

    def logical_not(self) -> LazyTensor:
        """1 where x == 0, else 0."""
        return _unary("logical_not", self)

    def logical_and(self, other: Any) -> LazyTensor:
        """1 where both are nonzero, else 0."""
        return _apply("logical_and", (self, _operand(other)))

    def logical_or(self, other: Any) -> LazyTensor:
        """1 where one of them is nonzero, else 0."""
        return _apply("logical_or", (self, _operand(other)))

    def power(self, exponent: Any) -> LazyTensor:
        """The power x ** exponent."""
        return self.__pow__(exponent)

    pow = power

    def atan2(self, x: Any) -> LazyTensor:
        """Angle of the point (x, self), in radians."""
        return _apply("atan2", (self, _operand(x)))

    def hypot(self, other: Any) -> LazyTensor:
        """Length sqrt(x * x + y * y), without overflow on the way."""
        return _apply("hypot", (self, _operand(other)))

    def minimum(self, other: Any) -> LazyTensor:
        """The smaller of two values; NaN if either is NaN."""
        return _apply("minimum", (self, _operand(other)))

    def maximum(self, other: Any) -> LazyTensor:
        """The larger of two values; NaN if either is NaN."""
        return _apply("maximum", (self, _operand(other)))

    def mod(self, modulus: Any, offset: Any = 0) -> LazyTensor:
        """The remainder x - m * floor((x - offset) / m): in [offset, offset + m) for a positive m."""
        if isinstance(offset, int | float) and offset == 0:
            return _apply("mod0", (self, _operand(modulus)))
        shift = _operand(offset)
        return _apply("add", (_apply("mod0", (self - shift, _operand(modulus))), shift))

    def clamp(self, low: Any, high: Any) -> LazyTensor:
        """Limit to [low, high]."""
        return _apply("clamp", (self, _operand(low), _operand(high)))

    clip = clamp

    def where(self, a: Any, b: Any) -> LazyTensor:
        """`a` where self is nonzero, else `b`."""
        return _apply("where", (self, _operand(a), _operand(b)))

    def ifelse(self, a: Any, b: Any) -> LazyTensor:
        """`a` where self >= 0, else `b`."""
        return _apply("ifelse", (self, _operand(a), _operand(b)))

    # Operations on the vector of components ---------------------------------------------------------------------------

    def dot(self, other: Any) -> LazyTensor:
        """Sum of the products of the components; also written x | y."""
        return _apply("dot", (self, _operand(other)))

    vecdot = dot

    def sqnorm2(self) -> LazyTensor:
        """Sum of the squares of the components."""
        return _unary("sqnorm2", self)

    def norm2(self) -> LazyTensor:
        """Euclidean norm; its derivative is taken as 0 at 0."""
        return _unary("norm2", self)

    def norm(self, dim: int = -1) -> LazyTensor:
        """Euclidean norm over the components; `dim` can only be the last axis."""
        if _axis_of(self, dim) != "inner":
            raise AxisError(at_user_line(f"dim is {dim}, expected -1: a norm is taken over the components"))
        return _unary("norm2", self)

    def normalize(self) -> LazyTensor:
        """The unit vector x / norm2(x); the zero vector stays the zero vector."""
        return _unary("normalize", self)

    def sqdist(self, other: Any) -> LazyTensor:
        """Sum of the squared differences of the components."""
        return _apply("sqdist", (self, _operand(other)))

    def weightedsqnorm(self, s: Any) -> LazyTensor:
        """Weighted squared norm: the weight is a scalar, a vector of D, or a D x D matrix by rows."""
        weight = _operand(s)
        dim, size = self._expression.dim, weight._expression.dim
        if size not in (1, dim, dim * dim):
            raise ShapeError(
                at_user_line(
                    f"s has inner dimension {size}, expected 1, {dim} or {dim * dim} for a vector of dimension {dim}"
                )
            )
        if size == 1:
            return weight * self.sqnorm2()
        if size == dim:
            return weight.dot(self.square())
        terms = [self.elem(k) * weight.extract(k * dim, dim).dot(self) for k in range(dim)]
        return _total(terms)

    def weightedsqdist(self, other: Any, s: Any) -> LazyTensor:
        """`(x - y).weightedsqnorm(s)`."""
        return (self - _operand(other)).weightedsqnorm(s)

    def elem(self, i: int) -> LazyTensor:
        """Component `i`; negative numbers count from the end."""
        index, dim = _index(i, "a component"), self._expression.dim
        if not -dim <= index < dim:
            raise ShapeError(
                at_user_line(f"component {index} of a vector of inner dimension {dim}, expected {-dim} to {dim - 1}")
            )
        return _unary("extract", self, (("start", index % dim), ("size", 1)))

    def extract(self, i: int, d: int) -> LazyTensor:
        """Components `i` to `i + d - 1`."""
        start, size = _index(i, "the first component"), _index(d, "the number of components")
        return _unary("extract", self, (("start", start), ("size", size)))

    def concat(self, other: Any) -> LazyTensor:
        """The components of self, then those of `other`."""
        return _apply("concat", (self, _operand(other)))

    @staticmethod
    def concatenate(tensors: Sequence[Any], axis: int = -1) -> LazyTensor:
        """The components of several LazyTensors, one after the other."""
        operands = [_operand(tensor) for tensor in tensors]
        if not operands:
            raise ShapeError(at_user_line("no tensors to concatenate, expected at least one"))
        for operand in operands:
            if _axis_of(operand, axis) != "inner":
                raise AxisError(at_user_line(f"axis is {axis}, expected -1: only components can be concatenated"))
        result = operands[0]
        for operand in operands[1:]:
            result = _apply("concat", (result, operand))
        return result

    @staticmethod
    def cat(tensors: Sequence[Any], dim: int = -1) -> LazyTensor:
        """`concatenate`, as torch names it."""
        return LazyTensor.concatenate(tensors, axis=dim)

    # Reductions -------------------------------------------------------------------------------------------------------

    def sum(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Sum over an axis.

        Args:
            axis: -1 for the components, which gives a LazyTensor; nbatchdims + 0 (or -3) to sum over i, which gives an
                array of shape (*batch, N, D); nbatchdims + 1 (or -2) to sum over j, which gives one of (*batch, M, D).
            dim: another name for `axis`.
            keepdim: keep the reduced axis i or j in the shape, with size 1.
            **options: call, out, backend, device_id, dtype_acc, use_double_acc, sum_scheme, enable_chunks,
                use_fast_math; see docs/semantics.md.

        Raises:
            AxisError: the LazyTensor has no such axis, or it cannot be reduced.
        """
        return self._reduce_any("sum", axis, dim, keepdim=keepdim, options=options)

    def mean(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Mean over an axis; arguments as for `sum`."""
        if _axis_of(self, axis, dim) == "inner":
            return _unary("inner_sum", self) / self._expression.dim
        return self._reduce_any("mean", axis, dim, keepdim=keepdim, options=options)

    def min(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Smallest value over an axis, NaN if there is one; arguments as for `sum`."""
        return self._reduce_any("min", axis, dim, keepdim=keepdim, options=options)

    def max(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Largest value over an axis, NaN if there is one; arguments as for `sum`."""
        return self._reduce_any("max", axis, dim, keepdim=keepdim, options=options)

    def argmin(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Position of the smallest value over an axis, the lowest on ties, of the first NaN if any; int64.

        Over the components the position is a value of the formula. Arguments as for `sum`.
        """
        return self._reduce_any("argmin", axis, dim, keepdim=keepdim, options=options)

    def argmax(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Position of the largest value; as `argmin`."""
        return self._reduce_any("argmax", axis, dim, keepdim=keepdim, options=options)

    def min_argmin(
        self, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Smallest value over i or j and its position, in one sweep."""
        wanted = (Wanted("min", (0,)), Wanted("argmin", (0,)))
        return self._reduce(_outer_axis(self, axis, dim), wanted, options, keepdim=keepdim)

    def max_argmax(
        self, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Largest value over i or j and its position, in one sweep."""
        wanted = (Wanted("max", (0,)), Wanted("argmax", (0,)))
        return self._reduce(_outer_axis(self, axis, dim), wanted, options, keepdim=keepdim)

    def logsumexp(
        self,
        axis: int | None = None,
        dim: int | None = None,
        weight: Any = None,
        *,
        other: Any = None,
        keepdim: bool = False,
        **options: Any,
    ) -> Any:
        """Log of the sum of exp(f), or of exp(f) g for a weight g, over i or j.

        Args:
            axis: nbatchdims + 0 (or -3) for i, nbatchdims + 1 (or -2) for j.
            dim: another name for `axis`.
            weight: g, of any inner dimension E; the result then has E components.
            other: another name for `weight`.
            keepdim: keep the reduced axis in the shape, with size 1.
            **options: as for `sum`.

        Raises:
            ShapeError: f has more than one component.
        """
        weight = other if weight is None else weight
        operands = (self,) if weight is None else (self, _operand(weight))
        return _reduce_scalar("logsumexp", operands, axis, dim, keepdim=keepdim, options=options)

    def sumsoftmaxweight(
        self, weight: Any, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Sum of exp(f) g over the sum of exp(f), over i or j; arguments as for `logsumexp`."""
        return _reduce_scalar("softmax", (self, _operand(weight)), axis, dim, keepdim=keepdim, options=options)

    def Kmin(self, K: int, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """The K smallest values over i or j, ascending, NaN last.

        Returns:
            (*batch, M, K) for a formula with one component, else (*batch, M, K, D), for a reduction over j.

        Raises:
            ShapeError: there are fewer than K values.
        """
        return self._reduce_k(("kmin",), K, axis, dim, options)

    def argKmin(self, K: int, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """Positions of the K smallest values, the lowest first on ties; int64; else as `Kmin`."""
        return self._reduce_k(("argkmin",), K, axis, dim, options)

    def Kmin_argKmin(self, K: int, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """The K smallest values and their positions, in one sweep; as `Kmin`."""
        return self._reduce_k(("kmin", "argkmin"), K, axis, dim, options)

    def sum_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`sum` over i or j."""
        return self._reduce(_outer_axis(self, axis, dim), (Wanted("sum", (0,)),), options)

    def min_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`min` over i or j."""
        return self._reduce(_outer_axis(self, axis, dim), (Wanted("min", (0,)),), options)

    def max_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`max` over i or j."""
        return self._reduce(_outer_axis(self, axis, dim), (Wanted("max", (0,)),), options)

    def argmin_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`argmin` over i or j."""
        return self._reduce(_outer_axis(self, axis, dim), (Wanted("argmin", (0,)),), options)

    def argmax_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`argmax` over i or j."""
        return self._reduce(_outer_axis(self, axis, dim), (Wanted("argmax", (0,)),), options)

    min_argmin_reduction = min_argmin
    max_argmax_reduction = max_argmax
    logsumexp_reduction = logsumexp
    sumsoftmaxweight_reduction = sumsoftmaxweight
    Kmin_reduction = Kmin
    argKmin_reduction = argKmin
    Kmin_argKmin_reduction = Kmin_argKmin

    def _reduce_any(
        self, kind: str, axis: int | None, dim: int | None, *, keepdim: bool, options: dict[str, Any]
    ) -> Any:
        where = _axis_of(self, axis, dim)
        if where == "inner":
            read_options(options, dtype=self._expression.dtype)
            return _unary(f"inner_{kind}", self)
        return self._reduce(where, (Wanted(kind, (0,)),), options, keepdim=keepdim)

    def _reduce_k(
        self, kinds: tuple[str, ...], count: Any, axis: int | None, dim: int | None, options: dict[str, Any]
    ) -> Any:
        where = _outer_axis(self, axis, dim)
        k = _index(count, "K, the number of values to keep,")
        if k < 1:
            raise ShapeError(at_user_line(f"K is {k}, expected at least 1"))
        return self._reduce(where, tuple(Wanted(kind, (0,), k) for kind in kinds), options)

    def _reduce(
        self,
        axis: str,
        wanted: tuple[Wanted, ...],
        options: dict[str, Any],
        *,
        keepdim: bool = False,
        drop_inner: bool = False,
    ) -> Any:
        expression = self._expression
        job = prepare(
            (expression,),
            wanted,
            reduced=axis,
            extents=Extents(self._batch, self._rows, self._columns),
            keepdim=keepdim,
            drop_inner=drop_inner,
        )
        return _finish(job, self._backend, options)


def Vi(x: Any) -> LazyTensor:
    """A variable with a row for each i: `x` has shape (M, D)."""
    return _from_data(x, 0)


def Vj(x: Any) -> LazyTensor:
    """A variable with a row for each j: `x` has shape (N, D)."""
    return _from_data(x, 1)


def Pm(x: Any) -> LazyTensor:
    """A parameter, shared by all pairs: a number, or an array of shape (D,) or (batch, D)."""
    return _from_data(x, 2)


def Var(x: Any, dim: int | None = None, cat: int | None = None) -> LazyTensor:
    """A variable of category 0 (`Vi`), 1 (`Vj`) or 2 (`Pm`)."""
    if dim is not None:
        raise UnsupportedError(
            at_user_line("symbolic variables, Var(index, dim, cat), are not implemented yet: pass an array")
        )
    return _from_data(x, cat)


# Making LazyTensors ---------------------------------------------------------------------------------------------------


def _new(
    expression: Expression, batch: tuple[int, ...], rows: int | None, columns: int | None, backend: str | None
) -> LazyTensor:
    made = LazyTensor.__new__(LazyTensor)
    made._expression = expression
    made._batch = batch
    made._rows = rows
    made._columns = columns
    made._backend = backend
    return made


def _unary(op: str, x: Any, attributes: Attributes = ()) -> LazyTensor:
    if not isinstance(x, LazyTensor):  # an unbound call, LazyTensor.exp(x)
        x = _operand(x)
    return _new(apply(op, (x._expression,), attributes), x._batch, x._rows, x._columns, x._backend)


def _apply(op: str, operands: tuple[LazyTensor, ...]) -> LazyTensor:
    expression = apply(op, tuple([operand._expression for operand in operands]))
    batch, rows, columns = _joint_extents(op, operands)
    backend = None
    for operand in operands:
        if operand._backend is not None:
            backend = operand._backend
    return _new(expression, batch, rows, columns, backend)


def _joint_extents(op: str, operands: tuple[LazyTensor, ...]) -> Extents:
    first = operands[0]
    batch, rows, columns = first._batch, first._rows, first._columns
    for operand in operands[1:]:
        if operand._rows is not None and operand._rows != rows:
            if rows is not None:
                _refuse_extents(op, "M", "i", rows, operand._rows)
            rows = operand._rows
        if operand._columns is not None and operand._columns != columns:
            if columns is not None:
                _refuse_extents(op, "N", "j", columns, operand._columns)
            columns = operand._columns
        if operand._batch != batch:
            try:
                batch = np.broadcast_shapes(batch, operand._batch)
            except ValueError:
                raise ShapeError(
                    at_user_line(
                        f"{op} was given batch shapes {batch} and {operand._batch}, which do not broadcast: "
                        "from the last dimension on, sizes must be equal or 1"
                    )
                ) from None
    return Extents(batch, rows, columns)


def _refuse_extents(op: str, size: str, axis: str, first: int, second: int) -> None:
    raise ShapeError(
        at_user_line(
            f"{op} was given {size} = {first} and {size} = {second} along axis {axis}: arrays of one axis have one "
            "size; if one of them varies along the other axis, say so by its shape, or by Vi and Vj"
        )
    )


def _operator(op: str, x: LazyTensor, y: Any) -> LazyTensor:
    if y.__class__ is not LazyTensor:
        if not isinstance(y, _OPERANDS) and not arrays.is_tensor(y):
            return NotImplemented  # type: ignore[no-any-return]
        y = _operand(y)
    return _apply(op, (x, y))


def _reflected(op: str, x: LazyTensor, y: Any) -> LazyTensor:
    if not isinstance(y, _OPERANDS) and not arrays.is_tensor(y):
        return NotImplemented  # type: ignore[no-any-return]
    return _apply(op, (_operand(y), x))


def _total(terms: Sequence[LazyTensor]) -> LazyTensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _operand(value: Any) -> LazyTensor:
    return value if isinstance(value, LazyTensor) else _from_data(value, None)


_OPERANDS = (LazyTensor, int, float, complex, list, tuple, np.ndarray, np.generic)


def _constant(value: float) -> LazyTensor:
    return _new(constant(value), (), None, None, None)


def _from_data(x: Any, axis: int | None) -> LazyTensor:
    if isinstance(x, np.ndarray) or arrays.is_tensor(x):
        if axis not in (None, 0, 1, 2):
            _refuse_axis_argument(axis)
        return _from_array(x, axis, weak=x.ndim == 0)
    if isinstance(x, list | tuple) and axis in (None, 0, 1, 2):
        return _from_array(_from_list(x), axis, weak=True)
    if axis not in (None, 2):
        raise AxisError(
            at_user_line(f"axis is {axis} for {type(x).__name__} {x!r}, expected an array of shape (rows, D)")
        )
    if isinstance(x, complex | np.complexfloating):
        raise UnsupportedError(
            at_user_line(f"complex number {x} in a formula: complex formulas are not implemented yet")
        )
    if isinstance(x, int | np.integer | np.bool_):
        value = int(x)
        if value.bit_length() > 1023:
            raise DtypeError(
                at_user_line(f"an integer of {value.bit_length()} bits is beyond float64, expected at most 1023")
            )
        return _constant(value)
    if isinstance(x, float | np.floating):
        return _new(variable(arrays.number_source(float(x)), axis="", dim=1, dtype=None), (), None, None, None)
    if isinstance(x, LazyTensor):
        return x
    raise DtypeError(
        at_user_line(
            f"{type(x).__name__} in a formula, expected a LazyTensor, a NumPy array, a torch tensor or a number"
        )
    )


def _refuse_axis_argument(axis: Any) -> None:
    raise AxisError(at_user_line(f"axis is {axis!r}, expected 0 (rows), 1 (columns), 2 (parameters) or None"))


def _from_list(x: Sequence[Any]) -> Any:
    try:
        return np.array(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise DtypeError(
            at_user_line(f"the list {x!r} in a formula, expected numbers, in rows of one length")
        ) from None


def _from_array(x: Any, axis: int | None, *, weak: bool) -> LazyTensor:
    shape = tuple(x.shape)
    rank = len(shape)
    batch: tuple[int, ...] = ()
    rows = columns = None
    if rank >= 3:
        if axis is not None:
            raise AxisError(
                at_user_line(
                    f"axis is {axis} for an array of shape {shape}, expected a 2-D array: with three or more "
                    "dimensions the shape says it all, (*batch, M, 1, D), (*batch, 1, N, D) or (*batch, 1, 1, D)"
                )
            )
        batch, (m, n, dim) = shape[:-3], shape[-3:]
        if m == 1:
            axis = 2 if n == 1 else 1
        elif n == 1:
            axis = 0
        else:
            raise AxisError(
                at_user_line(
                    f"an array of shape {shape} varies with i and j at once, expected (*batch, M, 1, D), "
                    "(*batch, 1, N, D) or (*batch, 1, 1, D)"
                )
            )
        rows = m if axis == 0 else None
        columns = n if axis == 1 else None
    elif rank == 2:
        if axis is None:
            raise AxisError(
                at_user_line(
                    f"axis is not given for a 2-D array of shape {shape}, expected axis=0 or Vi(x) for rows, "
                    "axis=1 or Vj(x) for columns, or a third dimension, as by x[:, None, :]"
                )
            )
        dim = shape[1]
        if axis == 2:
            batch = shape[:1] if shape[0] != 1 else ()
        rows = shape[0] if axis == 0 else None
        columns = shape[0] if axis == 1 else None
    else:
        if axis not in (None, 2):
            raise AxisError(
                at_user_line(
                    f"axis is {axis} for an array of shape {shape}, expected a 2-D array of shape (rows, D): "
                    "reshape it, as by x.reshape(-1, 1)"
                )
            )
        axis = 2
        dim = shape[0] if shape else 1
    source = arrays.array_source(
        x, what=f"the array of shape {shape}", batch=len(batch), view=str(len(batch)), weak=weak
    )
    leaf = variable(source, axis=_AXIS_NAMES[axis], dim=_checked_dim(dim), dtype=None if weak else source.dtype)
    return _new(leaf, batch, rows, columns, None)


def _checked_dim(dim: int) -> int:
    if dim < 1:
        raise ShapeError(at_user_line(f"an array of inner dimension {dim}, expected at least 1 component"))
    return dim


def _swap_axes(root: Expression) -> Expression:
    swapped: dict[int, Expression] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        pending = [operand for operand in node.operands if id(operand) not in swapped]
        if pending:
            stack += pending
            continue
        stack.pop()
        if id(node) not in swapped:
            swapped[id(node)] = Expression(
                node.op,
                tuple([swapped[id(operand)] for operand in node.operands]),
                node.attributes,
                _SWAPPED_AXES[node.axes],
                node.dim,
                node.dtype,
                node.source,
                node.position,
            )
    return swapped[id(root)]


# Reading arguments ----------------------------------------------------------------------------------------------------


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or arrays.is_tensor(value)


def _index(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise DtypeError(
            at_user_line(f"{what} is {value!r} of type {type(value).__name__}, expected an integer")
        ) from None


def _axis_of(x: LazyTensor, axis: Any, dim: Any = None) -> str:
    """Say which axis a number means: "inner", "i" or "j"."""
    given = axis if dim is None else dim
    if given == -1 and given is not True:
        return "inner"
    rank = len(x._batch)
    expected = f"{rank} (or -3) for i, {rank + 1} (or -2) for j, or -1 for the components"
    try:
        number = operator.index(given)
    except TypeError:
        raise AxisError(at_user_line(f"axis is {given!r}, expected {expected}")) from None
    position = number + rank + 3 if number < 0 else number
    if position == rank + 1:
        return "j"
    if position == rank:
        return "i"
    if position == rank + 2:
        return "inner"
    reason = "a batch dimension, which cannot be reduced" if 0 <= position < rank else "no axis of this LazyTensor"
    raise AxisError(at_user_line(f"axis is {number}, {reason}: its shape is {x._shape}, expected {expected}"))


def _outer_axis(x: LazyTensor, axis: Any, dim: Any) -> str:
    where = _axis_of(x, axis, dim)
    if where == "inner":
        rank = len(x._batch)
        raise AxisError(
            at_user_line(f"axis is -1, the components, expected {rank} (or -3) for i or {rank + 1} (or -2) for j here")
        )
    return where


def _reduce_scalar(
    kind: str, operands: tuple[LazyTensor, ...], axis: Any, dim: Any, *, keepdim: bool, options: dict[str, Any]
) -> Any:
    formula = operands[0]
    where = _outer_axis(formula, axis, dim)
    if formula._expression.dim != 1:
        raise ShapeError(
            at_user_line(
                f"{kind} of a formula of inner dimension {formula._expression.dim}, expected 1: "
                "reduce its components first, as by x.sum(-1)"
            )
        )
    extents = _joint_extents(kind, operands)
    job = prepare(
        tuple(operand._expression for operand in operands),
        (Wanted(kind, tuple(range(len(operands)))),),
        reduced=where,
        extents=extents,
        keepdim=keepdim,
    )
    return _finish(job, formula._backend, options)


def _finish(job: Job, backend: str | None, options: dict[str, Any]) -> Any:
    single = len(job.wanted) == 1
    if not options and backend is None:
        return job.run()[0] if single else job.run()
    read = read_options(options, dtype=job.dtype, backend=backend)
    reduction = Reduction(job, single=single)
    return reduction(out=read.out) if read.call else reduction
