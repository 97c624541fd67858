"""LazyTensor: array code that builds a formula instead of an array."""

# ruff: noqa: N802  these names are pykeops' own, and programs use them

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.imported_arrays import is_array, readable
from pylazy.arrays.results import in_kind_of, placed_beside
from pylazy.arrays.sources import array_source
from pylazy.canonical_form import flatten
from pylazy.complex_numbers.complex_methods import ComplexMethods
from pylazy.execution.wanted_results import WANTED
from pylazy.expression import TRANSPOSED, Expression, index, replace_leaves, variable
from pylazy.lazy_formula import new
from pylazy.methods.derivative_methods import DerivativeMethods
from pylazy.methods.operands import checked_dim, combine, from_data, is_complex, is_symbol, symbolic
from pylazy.methods.statistic_methods import StatisticMethods
from pylazy.methods.tensor_methods import TensorMethods
from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import at_user_line, user_position

if TYPE_CHECKING:
    from typing_extensions import Self

_SWAPPED_AXES = {"": "", "i": "j", "j": "i", "ij": "ij"}


class LazyTensor(TensorMethods, StatisticMethods, DerivativeMethods, ComplexMethods):
    """A symbolic tensor of shape (*batch, M, N, D) whose entries are computed when a reduction needs them.

    Args:
        x: a NumPy array, a torch tensor, another array with `__dlpack__`, a number, or a list of numbers; complex ones
            make a `ComplexLazyTensor`.
            With three or more dimensions its shape is (*batch, M, 1, D), (*batch, 1, N, D) or (*batch, 1, 1, D).
            With two, `axis` says what it is. With one or none it is a parameter, shared by all pairs.
            A tuple (index, dim, category) of integers is a symbolic variable; see `Var`.
        axis: of a 2-D array: 0 for rows (M, D), 1 for columns (N, D), 2 for parameters (batch, D) or (1, D).

    The data is not copied: it is read when a reduction runs.

    Raises:
        AxisError: the shape does not say which axes the array has, or contradicts `axis`.
        DtypeError: this is no array, or of a dtype that no formula reads; see docs/semantics.md.
    """

    __slots__ = ()

    def __new__(cls, x: Any, axis: int | None = None) -> Self:
        """Choose the class by the data."""
        if axis is None and is_symbol(x):
            return symbolic(cls, *x)
        made = from_data(cls, x, axis)
        return copy(made) if made is x else made

    def __matmul__(self, v: Any, **options: Any) -> Any:
        """Multiply the matrix of a scalar formula with vectors: (*batch, M) for v of shape (N,), else (*batch, M, E).

        Args:
            v: an array of shape (N,) or (*batch, N, E), or a LazyTensor, whose product is then summed over j. A
                LazyTensor that varies with i and j is a matrix too, and gives a `LinearOperator`, the product of both.
            **options: as for `sum`.
        """
        if self.ndim != 1:
            raise ShapeError(
                at_user_line(
                    f"K @ v needs a K of inner dimension 1, found {self.ndim}: reduce it first, as by K.sum(-1)"
                )
            )
        wanted = WANTED["sum"]
        if isinstance(v, LazyTensor):
            if v._axes == "ij":
                from pylazy.linear_algebra.linear_operators import aslinearoperator

                return aslinearoperator(self) @ v
            return combine("mul", self, v)._reduce("j", wanted, options)
        if is_complex(v):
            from pylazy.complex_numbers.complex_sums import matrix_product

            return matrix_product(self, v, options)
        if v.__class__ is not np.ndarray:
            if isinstance(v, list | tuple):
                v = np.asarray(v, dtype=np.float64)
            elif is_array(v):
                v = readable(v)
            elif hasattr(v, "matvec"):
                return NotImplemented  # a linear operator knows how to compose with this matrix
        terms = combine("mul", self, column_of(v, self._columns))
        return terms._reduce("j", wanted, options, drop_inner=v.ndim == 1)

    def solve(self, b: Any, var: LazyTensor | None = None, call: bool = True, **options: Any) -> Any:
        """Solve (alpha * identity + K) a = b for a, where K is symmetric; each column of b is a system of its own.

        Args:
            b: right-hand sides: an array of shape (N,) or (*batch, N, E), or a LazyTensor of them, as `Vi(b)`. With
                `Vj(b)` the system is that of the transpose.
            var: where self is no matrix but a formula linear in a symbolic variable, the sum of which over j is the
                product with it: that variable.
            call: solve now; else, and for symbolic variables, return the `LinearSystem`, to be called.
            **options: those of `sum`, but out, and these:
                alpha (1e-10): a number, or a torch tensor of one, which may require a gradient;
                eps (1e-6): a column has converged when the root mean square of its residual, in the unit of b, is at
                most this;
                max_iterations (None): by default ten times N, at least 100 and at most 10,000;
                method ("cg"): "cg", conjugate gradients, for a positive definite system, or "minres" for others;
                preconditioner (None): "jacobi", "nystrom", or a function that applies an approximation of the inverse,
                symmetric and positive definite, to an array (*batch, N, E);
                rank (100): of "nystrom", which keeps as many columns of K.

        Returns:
            An array of the shape of b, with all batch dimensions. Differentiable with respect to b, alpha and the
            tensors of K, by the implicit function theorem.

        Warns:
            ConvergenceWarning: a column has not converged; the warning has the residual.

        Raises:
            ShapeError: K is not square, or b does not fit.
            NonFiniteError: b, or what comes up on the way, is not finite.
            UnsupportedError: there is no such method or preconditioner.
        """
        from pylazy.linear_algebra.solve import solve

        return solve(self, b, var, call=call, options=options)

    def matvec(self, v: Any) -> Any:
        """`K @ v`, as scipy.sparse.linalg names it; an array for an array, also where K holds tensors."""
        return in_kind_of(self @ self._beside(v), v)

    def rmatvec(self, v: Any) -> Any:
        """`K.T @ v`, as scipy.sparse.linalg names it; as `matvec`."""
        return in_kind_of(self.T @ self._beside(v), v)

    def _beside(self, v: Any) -> Any:
        return placed_beside(v, flatten((self._expression,)).sources)

    matmat = matvec
    rmatmat = rmatvec

    def dense(self) -> Any:
        """Compute all entries as an array of the kind of the inputs; differentiable as reductions are.

        Returns:
            (*batch, M, N), or (*batch, M, N, D) for D > 1.

        Raises:
            UnsupportedError: a variable is symbolic.
        """
        from pylazy.linear_algebra.materialise import dense

        return dense(self)

    def diagonal(self) -> Any:
        """Compute the entries with i = j, and no others: an array (*batch, min(M, N), D).

        Raises:
            UnsupportedError: a variable is symbolic.
        """
        from pylazy.linear_algebra.materialise import diagonal

        return diagonal(self)

    def row_index(self) -> Self:
        """The number of the row i of each pair, counted from 0, as a LazyTensor with the rows of this one.

        It has the dtype of what it meets, and no derivative. Reductions in float32 take up to 2**24 rows.
        """
        return new(self._formula_class, index("i"), (), self._rows, None, self._backend)

    def column_index(self) -> Self:
        """The number of the column j of each pair, counted from 0; as `row_index`."""
        return new(self._formula_class, index("j"), (), None, self._columns, self._backend)

    def t(self) -> Self:
        """Exchange the axes i and j, and the halves of ranges."""
        swapped = _swap_axes(self._expression)
        ranges = None if self._ranges is None else (*self._ranges[3:], *self._ranges[:3])
        return new(self._formula_class, swapped, self._batch, self._columns, self._rows, self._backend, ranges)

    @property
    def T(self) -> Self:
        """Exchange the axes i and j."""
        return self.t()


def Vi(x_or_index: Any, dim: int | None = None) -> LazyTensor:
    """A variable with a row for each i.

    Args:
        x_or_index: an array of shape (M, D); or, with `dim`, the place of a symbolic variable, as in `Vi(0, 3)`.
        dim: inner dimension of a symbolic variable, whose data is given when the reduction is called.
    """
    return Var(x_or_index, dim, 0)


def Vj(x_or_index: Any, dim: int | None = None) -> LazyTensor:
    """A variable with a row for each j: an array of shape (N, D), or a symbolic one, as `Vi`."""
    return Var(x_or_index, dim, 1)


def Pm(x_or_index: Any, dim: int | None = None) -> LazyTensor:
    """A parameter, shared by all pairs: a number, an array of shape (D,) or (batch, D), or symbolic, as `Vi`."""
    return Var(x_or_index, dim, 2)


def Var(x_or_index: Any, dim: int | None = None, cat: int | None = None) -> LazyTensor:
    """A variable of category 0 (`Vi`), 1 (`Vj`) or 2 (`Pm`): `Var(x, cat=0)` on data, `Var(0, 3, 0)` without.

    A reduction of a formula with symbolic variables gives a `Reduction`: call it with their arrays, in the order of
    their indices, of shapes (*batch, M, D) for category 0, (*batch, N, D) for 1, (*batch, D) for 2.
    """
    if dim is None:
        return from_data(LazyTensor, x_or_index, cat)
    return symbolic(LazyTensor, x_or_index, dim, cat)


def column_of(v: Any, columns: int | None) -> LazyTensor:
    """Read the v of K @ v, an array of shape (N,) or (*batch, N, E).

    Args:
        v: the array.
        columns: those of K, if it has a number of them.

    Raises:
        ShapeError: this is no array, or it has another number of rows.
    """
    shape = tuple(v.shape) if is_array(v) else ()
    rank = len(shape)
    if not rank:
        raise ShapeError(
            at_user_line(f"v is {type(v).__name__}, expected an array of shape (N,) or (*batch, N, E) in K @ v")
        )
    count, dim = (shape[0], 1) if rank == 1 else shape[-2:]
    if columns is not None and count != columns:
        raise ShapeError(
            at_user_line(f"K has {columns} columns, v has {count} rows in its shape {shape}: K @ v needs equal sizes")
        )
    batch = shape[:-2]
    source = array_source(v, what="v in K @ v", batch=len(batch), view="j")
    leaf = variable(source, axis="j", dim=checked_dim(dim), dtype=source.dtype, position=user_position(3))
    return new(LazyTensor, leaf, batch, None, count, None)


def _swap_axes(root: Expression) -> Expression:
    return replace_leaves(root, _swapped_leaf)


def _swapped_leaf(leaf: Expression) -> Expression:
    attributes = leaf.attributes
    if leaf.op == "var" and leaf.axes == "ij":
        attributes = () if attributes else TRANSPOSED
    axes = _SWAPPED_AXES[leaf.axes]
    return Expression(leaf.op, (), attributes, axes, leaf.dim, leaf.dtype, leaf.source, leaf.position)
