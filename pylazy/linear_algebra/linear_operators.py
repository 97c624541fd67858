"""Linear operators: sums, multiples and products of kernel matrices and the identity, which are never stored."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.array_libraries import is_tensor, is_traced
from pylazy.arrays.imported_arrays import Imported, is_array, readable
from pylazy.arrays.results import converted, given_back, host_device, in_kind_of, placed_beside
from pylazy.arrays.source_devices import check_devices
from pylazy.arrays.sources import DLPACK, SYMBOL, TORCH, array_source
from pylazy.canonical_form import flatten
from pylazy.differentiation.array_spaces import is_device_array, library_beside
from pylazy.dtypes import promote
from pylazy.lazy_formula import read_index
from pylazy.lazy_tensor import LazyTensor
from pylazy.linear_algebra.operator_nodes import Identity, Kernel, Multiple, Node, Sum, added, composed
from pylazy.linear_algebra.preconditioners import checked, inverse_of_diagonal
from pylazy.linear_algebra.solve import read_right_side, solve
from pylazy.linear_algebra.symmetric_systems import System, check_solvable, solve_system, split_options
from pylazy.runtime.errors import DtypeError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylazy.linear_algebra.symmetric_systems import Settings

_NUMBERS = (int, float, np.integer, np.floating)


def identity(n: int | None = None) -> LinearOperator:
    """The identity, as in `K + 0.1 * pylazy.identity()`.

    Args:
        n: its size; without it, that of what it is added to, multiplied or applied to.
    """
    if n is not None and read_index(n, "n, the size of an identity,") < 0:
        raise ShapeError(at_user_line(f"n is {n}, expected a size of at least 0"))
    return LinearOperator(Identity(n))


def aslinearoperator(matrix: Any) -> LinearOperator:
    """See a LazyTensor of one component as the operator of its matrix; an operator is given back.

    Raises:
        DtypeError: this is neither.
        ShapeError: there are more components.
        UnsupportedError: a variable is symbolic.
    """
    found = _read(matrix)
    if found is None:
        raise DtypeError(at_user_line(f"{type(matrix).__name__} is no linear operator, expected a LazyTensor"))
    return found


class LinearOperator:
    """A linear map of vectors, made of kernel matrices: `K + 0.1 * identity()`, `2 * K1 @ K2.T - K3`.

    Products are lazy: `(K1 @ K2) @ v` is `K1 @ (K2 @ v)`. It has what scipy.sparse.linalg asks of an operator.
    """

    __slots__ = ("_node",)

    __array_ufunc__ = None  # an array on the left of an operator then leaves the operation to us

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, M, N).

        Raises:
            ShapeError: this is an identity without a size.
        """
        size = self._node.size()
        if size.rows is None or size.columns is None:
            raise ShapeError(
                at_user_line("an identity has no size before it meets a matrix: give it, as by identity(5)")
            )
        return (*size.batch, size.rows, size.columns)

    @property
    def dtype(self) -> str | None:
        """The name of the dtype, None for identities alone."""
        return self._node.dtype()

    @property
    def T(self) -> LinearOperator:  # noqa: N802  as arrays name it
        """The transpose."""
        return LinearOperator(self._node.transposed())

    def t(self) -> LinearOperator:
        """The transpose."""
        return self.T

    def __add__(self, other: Any) -> LinearOperator:
        term = _read(other)
        return NotImplemented if term is None else LinearOperator(added(self._node, term._node))

    def __radd__(self, other: Any) -> LinearOperator:
        term = _read(other)
        return NotImplemented if term is None else LinearOperator(added(term._node, self._node))

    def __sub__(self, other: Any) -> LinearOperator:
        term = _read(other)
        return NotImplemented if term is None else LinearOperator(added(self._node, Multiple(-1, term._node)))

    def __rsub__(self, other: Any) -> LinearOperator:
        term = _read(other)
        return NotImplemented if term is None else LinearOperator(added(term._node, Multiple(-1, self._node)))

    def __neg__(self) -> LinearOperator:
        return LinearOperator(Multiple(-1, self._node))

    def __pos__(self) -> LinearOperator:
        return self

    def __mul__(self, factor: Any) -> LinearOperator:
        if not _is_number(factor):
            return NotImplemented
        return LinearOperator(Multiple(factor, self._node))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> LinearOperator:
        if not _is_number(divisor):
            return NotImplemented
        return LinearOperator(Multiple(1 / divisor, self._node))

    def __matmul__(self, v: Any) -> Any:
        """Apply to an array of shape (N,) or (*batch, N, E), or compose with another operator."""
        other = _read(v)
        if other is not None:
            return LinearOperator(composed(self._node, other._node))
        if isinstance(v, list | tuple):
            v = np.asarray(v, dtype=np.float64)
        if not is_array(v) or not getattr(v, "ndim", 0):
            raise ShapeError(
                at_user_line(f"v is {type(v).__name__}, expected an array of shape (N,) or (*batch, N, E) in A @ v")
            )
        columns = self._node.size().columns
        count = v.shape[0 if v.ndim == 1 else -2]
        if columns is not None and count != columns:
            raise ShapeError(
                at_user_line(f"A has {columns} columns, v has {count} rows in its shape {tuple(v.shape)} in A @ v")
            )
        return self._node.apply(v[:, None])[..., 0] if v.ndim == 1 else self._node.apply(v)

    def __rmatmul__(self, other: Any) -> LinearOperator:
        first = _read(other)
        return NotImplemented if first is None else LinearOperator(composed(first._node, self._node))

    def matvec(self, v: Any) -> Any:
        """`A @ v`, as scipy.sparse.linalg names it; an array for an array."""
        return in_kind_of(self @ self._beside(v), v)

    def rmatvec(self, v: Any) -> Any:
        """`A.T @ v`, as scipy.sparse.linalg names it; an array for an array."""
        return in_kind_of(self.T @ self._beside(v), v)

    def _beside(self, v: Any) -> Any:
        expressions = [kernel._expression for kernel in self._node.kernels()]
        return placed_beside(v, flatten(expressions).sources)

    matmat = matvec
    rmatmat = rmatvec

    def dense(self) -> Any:
        """Compute the matrix: (*batch, M, N)."""
        *_, columns = self.shape
        unit = np.eye(columns, dtype=self.dtype or "float64")
        return self._node.apply(self._beside(unit))

    def diagonal(self) -> Any:
        """Compute the diagonal: (*batch, min(M, N)).

        Raises:
            UnsupportedError: a product has no diagonal that can be told from those of its factors.
        """
        found, dtype = self._node.diagonal(min(self.shape[-2:])), self.dtype
        return found if dtype is None or is_traced(found) else converted(found, dtype)  # ones of identities are float64

    def solve(self, b: Any, **options: Any) -> Any:
        """Solve A a = b for a, where A is symmetric; each column of b is a system of its own.

        Args:
            b: right-hand sides, an array of shape (N,) or (*batch, N, E), or a LazyTensor of them, as `Vi(b)`.
            **options: alpha (0 by default), eps, max_iterations, method and preconditioner, as for `LazyTensor.solve`;
                "nystrom" is there for a kernel matrix and multiples of the identity only.

        Returns:
            An array of the shape of b, with all batch dimensions; differentiable as that of `LazyTensor.solve`.

        Warns:
            ConvergenceWarning: a column has not converged; the warning has the residual.

        Raises:
            ShapeError: A is not square, or b does not fit.
            NonFiniteError: b, or what comes up on the way, is not finite.
        """
        settings, rest = split_options({"alpha": 0.0, **options})
        shifted = _as_shifted_kernel(self._node)
        if shifted is not None:
            kernel, shift = shifted
            return solve(kernel, b, None, call=True, options={**options, "alpha": settings.alpha + shift})
        if rest:
            raise TypeError(at_user_line(f"solve takes no argument {min(rest)!r} for an operator of several parts"))
        return _solve(added(self._node, Multiple(settings.alpha, Identity(None))), b, settings)

    def __repr__(self) -> str:
        size = self._node.size()
        shape = tuple(size.batch) + (("n", "n") if size.rows is None else (size.rows, size.columns))
        return f"LinearOperator({self._node.text()}, shape=({', '.join(map(str, shape))}), {self.dtype or 'any dtype'})"


def _read(value: Any) -> LinearOperator | None:
    """See a value as an operator, if it is one."""
    if isinstance(value, LinearOperator):
        return value
    if not isinstance(value, LazyTensor):
        return None
    if value._expression.dim != 1:
        raise ShapeError(
            at_user_line(
                f"a matrix needs a formula of inner dimension 1, found {value._expression.dim}: reduce it first, as by "
                "K.sum(-1)"
            )
        )
    if any(source.kind == SYMBOL for source in flatten((value._expression,)).sources):
        raise UnsupportedError(at_user_line("a linear operator of a formula with symbolic variables: give it arrays"))
    return LinearOperator(Kernel(value))


def _is_number(value: Any) -> bool:
    if isinstance(value, _NUMBERS):
        return True
    is_known = isinstance(value, np.ndarray) or is_tensor(value) or is_traced(value)
    return is_known and value.ndim == 0


def _as_shifted_kernel(node: Node) -> tuple[LazyTensor, Any] | None:
    """Read `K + a * I`, in any order and with several multiples of the identity."""
    kernel: LazyTensor | None = None
    shift: Any = 0.0
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, Sum):
            stack += [part.first, part.second]
        elif isinstance(part, Kernel) and kernel is None:
            kernel = part.formula
        elif isinstance(part, Identity):
            shift = shift + 1.0
        elif isinstance(part, Multiple) and isinstance(part.node, Identity):
            shift = shift + part.factor
        else:
            return None
    return None if kernel is None else (kernel, shift)


def _solve(node: Node, b: Any, settings: Settings) -> Any:
    size = node.size()
    right = read_right_side(b)
    if right.read is None:
        raise UnsupportedError(at_user_line("b is a symbolic variable: give an operator's right-hand side as an array"))
    values = right.read()
    if size.rows is not None and (size.rows != size.columns or values.shape[-2] != size.rows):
        raise ShapeError(
            at_user_line(
                f"the operator has {size.rows} rows and {size.columns} columns, and b has shape {tuple(values.shape)}: "
                "expected a square operator and as many rows in b"
            )
        )
    operator = _BoundOperator(node)
    prepared = operator.prepare(values)
    system = System(operator, settings, _preconditioner(node, settings, prepared))
    result = operator.given_back(solve_system(system, prepared), values)
    return result[..., 0] if right.drop_inner else result


class _BoundOperator:
    """An operator as the solver sees it; see `pylazy.linear_algebra.symmetric_systems.Operator`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def parameters(self) -> tuple[Any, ...]:
        return tuple(parameter.array for parameter in self._node.tensors())

    def rank_of(self, number: int) -> int:
        return list(self._node.tensors())[number].rank

    def product(self, v: Any, parameters: Sequence[Any] | None = None) -> Any:
        node = self._node if parameters is None else self._node.on(iter(parameters))
        return node.apply(v)

    def prepare(self, b: Any) -> Any:
        """Give right-hand sides the kind, dtype and batch shape of the products with them."""
        dtype = promote(self._node.dtype(), str(b.dtype).removeprefix("torch.")) or "float64"
        shape = (*np.broadcast_shapes(self._node.size().batch, tuple(b.shape[:-2])), *b.shape[-2:])
        if b.__class__ is Imported:
            b = b.array
        expressions = [kernel._expression for kernel in self._node.kernels()]
        held = {source.kind for source in flatten(expressions).sources}
        if is_traced(b):
            return np.broadcast_to(b.astype(dtype), shape)
        check_solvable(flatten(expressions).sources)
        if is_device_array(b):
            return library_beside(b).ascontiguousarray(np.broadcast_to(b.astype(dtype), shape))
        tensors = (b, *self.parameters())
        if TORCH not in held and not any(map(is_tensor, tensors)):
            return np.array(np.broadcast_to(np.asarray(b), shape), dtype=dtype)
        torch = sys.modules["torch"]
        b = b if is_tensor(b) else torch.as_tensor(b, device=host_device())
        return b.to(getattr(torch, dtype)).expand(shape).contiguous()

    def given_back(self, solution: Any, b: Any) -> Any:
        """Hand a solution over to the library of the data or of b, if that is neither NumPy nor torch."""
        sources = flatten([kernel._expression for kernel in self._node.kernels()]).sources
        read = readable(b)
        sources = [*sources, array_source(read, what="b", batch=max(read.ndim - 2, 0), view="")]
        is_other = check_devices(sources) == DLPACK
        return given_back(solution, sources) if is_other else solution


def _preconditioner(node: Node, settings: Settings, like: Any) -> Callable[[Any], Any] | None:
    wanted = settings.preconditioner
    if wanted is None:
        return None
    if callable(wanted):
        return checked(wanted)
    if wanted != "jacobi":
        raise UnsupportedError(
            at_user_line(
                f"the preconditioner {wanted!r} is there for a kernel matrix and multiples of the identity, found "
                f"{LinearOperator(node)!r}: use 'jacobi' or a function"
            )
        )
    if is_traced(like):
        like = readable(like).array
    if not is_tensor(like):
        diagonal = node.diagonal(like.shape[-2])[..., None]
        return inverse_of_diagonal(readable(diagonal).array if is_traced(diagonal) else diagonal, like)
    with sys.modules["torch"].no_grad():
        return inverse_of_diagonal(node.diagonal(like.shape[-2])[..., None], like)
