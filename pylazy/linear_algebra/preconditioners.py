"""Preconditioners of kernel systems: cheap approximations of the inverse of `alpha * identity + K`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.array_libraries import is_tensor
from pylazy.differentiation.array_spaces import library_beside
from pylazy.lazy_formula import read_index
from pylazy.linear_algebra.materialise import diagonal, restrict
from pylazy.runtime.errors import ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pylazy.lazy_formula import LazyFormula

    Product = Callable[[Any], Any]

_SEED = 0
_DEFAULT_RANK = 100


def jacobi(formula: LazyFormula, *, alpha: float, like: Any, rank: int | None) -> Product:
    """Divide by the absolute values of the diagonal, and by 1 where that is 0.

    Args:
        formula: K, square.
        alpha: what is added to its diagonal.
        like: an array of the kind and dtype of the vectors.
        rank: not used.
    """
    del rank
    return inverse_of_diagonal(diagonal(formula) + alpha, like)


def inverse_of_diagonal(values: Any, like: Any) -> Product:
    """Divide by the absolute values of a diagonal (*batch, N, 1 or E), and by 1 where that is 0."""
    xp, values = _as(values, like)
    scale = abs(values)
    inverse = 1.0 / xp.where(scale > 0, scale, xp.ones_like(scale))
    return lambda r: r * inverse


def nystrom(formula: LazyFormula, *, alpha: float, like: Any, rank: int | None) -> Product:
    """Invert the Nystrom approximation of K from some of its columns.

    The columns are drawn uniformly, with a fixed seed. The inverse is that of Frangella, Tropp and Udell (Randomized
    Nystrom preconditioning, 2023): U diag((l + alpha) / (L + alpha)) U^T on the range of the approximation U diag(L)
    U^T, whose smallest eigenvalue is l, and the identity elsewhere.

    Args:
        formula: K, square and of one component.
        alpha: what is added to its diagonal, at least 0.
        like: an array of the kind and dtype of the vectors.
        rank: how many columns to take, 100 by default; N * rank numbers are kept.

    Raises:
        ShapeError: K has more components, or the rank is less than 1.
    """
    if formula._expression.dim != 1:
        raise ShapeError(
            at_user_line(
                f"the preconditioner 'nystrom' needs a K of one component, found {formula._expression.dim}: "
                "use 'jacobi', or solve for each component"
            )
        )
    size = formula._shape[-2]
    count = min(_DEFAULT_RANK if rank is None else read_index(rank, "rank"), size)
    if count < 1:
        raise ShapeError(at_user_line(f"rank is {rank}, expected at least 1"))
    chosen = np.sort(np.random.default_rng(_SEED).choice(size, count, replace=False))
    # In the dtype of the formula, then in float64: N * rank numbers are few.
    _, narrow = _as(restrict(formula, slice(None), chosen).dense(), like)  # type: ignore[attr-defined]
    xp = sys.modules["torch"] if is_tensor(narrow) else np
    columns = narrow.astype(np.float64) if xp is np else narrow.double()
    values, vectors = xp.linalg.eigh(columns[..., chosen, :])
    floor = float(np.finfo(str(like.dtype).removeprefix("torch.")).eps) * abs(values).max() * count
    root = xp.where(values > floor, 1.0 / xp.sqrt(xp.clip(values, floor, None)), xp.zeros_like(values))
    basis, singular, _ = xp.linalg.svd(columns @ (vectors * root[..., None, :]), full_matrices=False)
    eigenvalues = singular**2
    # What is lost below the floor is no part of the approximation.
    kept = eigenvalues > floor
    smallest = xp.where(kept, eigenvalues, xp.full_like(eigenvalues, float("inf"))).min(-1)
    smallest = smallest if xp is np else smallest.values
    ratio = (smallest[..., None] + alpha) / xp.where(kept, eigenvalues + alpha, xp.ones_like(eigenvalues))
    weights = xp.where(kept, ratio - 1.0, xp.zeros_like(ratio))
    _, basis = _as(basis, like)
    _, weights = _as(weights[..., None], like)
    transposed = basis.swapaxes(-1, -2)
    return lambda r: r + basis @ (weights * (transposed @ r))


NAMED: Mapping[str, Callable[..., Product]] = {"jacobi": jacobi, "nystrom": nystrom}
"""From the name of a preconditioner to what makes it."""


def _as(values: Any, like: Any) -> tuple[Any, Any]:
    """Convert an array to the kind and dtype of another; also give the module of its functions."""
    if not is_tensor(like):  # NumPy's functions give way to CuPy's
        return np, library_beside(like).asarray(values, dtype=like.dtype)
    torch = sys.modules["torch"]
    return torch, torch.as_tensor(values, dtype=like.dtype, device=like.device)


def checked(made: Callable[[Any], Any]) -> Product:
    """Make sure that a preconditioner of the user's gives what the solver can use.

    Raises:
        ShapeError: when it is applied, where the result has another shape.
        UnsupportedError: where it is of another kind or dtype.
    """

    def apply(r: Any) -> Any:
        z = made(r)
        if tuple(getattr(z, "shape", ())) != tuple(r.shape):
            raise ShapeError(
                at_user_line(
                    f"the preconditioner gave shape {tuple(getattr(z, 'shape', ()))} for residuals of shape "
                    f"{tuple(r.shape)}, expected an equal one"
                )
            )
        if z.__class__ is not r.__class__ or z.dtype != r.dtype:
            raise UnsupportedError(
                at_user_line(
                    f"the preconditioner gave {type(z).__name__} of {z.dtype}, expected {type(r).__name__} of {r.dtype}"
                )
            )
        return z

    return apply
