"""LazyTensor: array code that builds a formula instead of an array."""

# ruff: noqa: N802  these names are pykeops' own, and programs use them

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy import arrays
from pylazy.execute import Wanted
from pylazy.expression import TRANSPOSED, Expression, at_user_line, index, rebuilt, variable
from pylazy.lazy_formula import new
from pylazy.operands import checked_dim, combine, from_data, symbolic
from pylazy.runtime.errors import ShapeError
from pylazy.statistic_methods import StatisticMethods
from pylazy.tensor_methods import TensorMethods

if TYPE_CHECKING:
    from typing_extensions import Self

_SWAPPED_AXES = {"": "", "i": "j", "j": "i", "ij": "ij"}


class LazyTensor(TensorMethods, StatisticMethods):
    """A symbolic tensor of shape (*batch, M, N, D) whose entries are computed when a reduction needs them.

    Args:
        x: a NumPy array, a torch tensor, a number, or a list of numbers.
            With three or more dimensions its shape is (*batch, M, 1, D), (*batch, 1, N, D) or (*batch, 1, 1, D).
            With two, `axis` says what it is. With one or none it is a parameter, shared by all pairs.
            A tuple (index, dim, category) of integers is a symbolic variable; see `Var`.
        axis: of a 2-D array: 0 for rows (M, D), 1 for columns (N, D), 2 for parameters (batch, D) or (1, D).

    The data is not copied: it is read when a reduction runs.

    Raises:
        AxisError: the shape does not say which axes the array has, or contradicts `axis`.
        DtypeError: this is no array, or not one of float32 or float64.
    """

    __slots__ = ()

    def __init__(self, x: Any, axis: int | None = None) -> None:
        if axis is None and isinstance(x, tuple) and len(x) == 3 and all(isinstance(part, int) for part in x):
            made = symbolic(self.__class__, *x)
        else:
            made = from_data(self.__class__, x, axis)
        self._expression = made._expression
        self._batch = made._batch
        self._rows = made._rows
        self._columns = made._columns
        self._backend = made._backend

    def __matmul__(self, v: Any, **options: Any) -> Any:
        """Multiply the matrix of a scalar formula with vectors: (*batch, M) for v of shape (N,), else (*batch, M, E).

        Args:
            v: an array of shape (N,) or (*batch, N, E), or a LazyTensor, whose product is then summed over j.
            **options: as for `sum`.
        """
        if self._expression.dim != 1:
            raise ShapeError(
                at_user_line(
                    f"K @ v needs a K of inner dimension 1, found {self._expression.dim}: "
                    "reduce it first, as by K.sum(-1)"
                )
            )
        wanted = (Wanted("sum", (0,)),)
        if isinstance(v, LazyTensor):
            return combine("mul", self, v)._reduce("j", wanted, options)
        if isinstance(v, list | tuple):
            v = np.asarray(v, dtype=np.float64)
        if not (isinstance(v, np.ndarray) or arrays.is_tensor(v)) or v.ndim == 0:
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
        leaf = variable(source, axis="j", dim=checked_dim(dim), dtype=source.dtype)
        column = new(LazyTensor, leaf, shape[:rank], None, count, None)
        return combine("mul", self, column)._reduce("j", wanted, options, drop_inner=v.ndim == 1)

    def matvec(self, v: Any) -> Any:
        """`K @ v`, as scipy.sparse.linalg names it."""
        return self @ v

    def rmatvec(self, v: Any) -> Any:
        """`K.T @ v`, as scipy.sparse.linalg names it."""
        return self.T @ v

    def row_index(self) -> Self:
        """The number of the row i of each pair, counted from 0, as a LazyTensor with the rows of this one.

        It has the dtype of what it meets, and no derivative. Reductions in float32 take up to 2**24 rows.
        """
        return new(self.__class__, index("i"), (), self._rows, None, self._backend)

    def column_index(self) -> Self:
        """The number of the column j of each pair, counted from 0; as `row_index`."""
        return new(self.__class__, index("j"), (), None, self._columns, self._backend)

    def t(self) -> Self:
        """Exchange the axes i and j."""
        swapped = _swap_axes(self._expression)
        return new(self.__class__, swapped, self._batch, self._columns, self._rows, self._backend)

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


def _swap_axes(root: Expression) -> Expression:
    return rebuilt(root, _with_transposed_data, _SWAPPED_AXES)


def _with_transposed_data(leaf: Expression) -> Expression | None:
    if leaf.op != "var" or leaf.axes != "ij":
        return None
    attributes = () if leaf.attributes else TRANSPOSED
    return Expression("var", (), attributes, "ij", leaf.dim, leaf.dtype, leaf.source, leaf.position)
