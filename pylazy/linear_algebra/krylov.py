"""Krylov methods for symmetric linear systems with many right-hand sides, all advanced by one product at a time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.arrays.array_libraries import is_tensor
from pylazy.runtime.errors import NonFiniteError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Product = Callable[[Any], Any]
    Method = Callable[..., "Outcome"]


_ASTRAY = 10.0  # how much larger a residual may be than the recurrence says


class ConvergenceWarning(UserWarning):
    """A solver stopped before every right-hand side met the tolerance.

    Attributes:
        residual: the largest root mean square of the residual of a right-hand side.
        iterations: how many were made.
    """

    def __init__(self, message: str, *, residual: float = float("nan"), iterations: int = 0) -> None:
        super().__init__(message)
        self.residual = residual
        self.iterations = iterations


class Outcome(NamedTuple):
    """What a solver found.

    Attributes:
        solution: of the shape of the right-hand sides.
        iterations: how many were made, each with one product.
        residual: the largest root mean square of the residual of a right-hand side, by the solver's own recurrence.
        converged: whether that meets the tolerance.
        is_indefinite: whether a direction was met along which the operator is not positive.
    """

    solution: Any
    iterations: int
    residual: float
    converged: bool
    is_indefinite: bool = False


def conjugate_gradient(
    product: Product, b: Any, *, eps: float, max_iterations: int, precondition: Product | None
) -> Outcome:
    """Solve A a = b for a symmetric positive definite A (Hestenes and Stiefel, 1952).

    Every column of `b` in every batch element is a system of its own with its own step lengths; one that has converged
    is left as it is.

    Args:
        product: from vectors of the shape of `b` to A times them.
        b: right-hand sides, (*batch, N, E), in float64.
        eps: a column has converged when the root mean square of its residual is at most this.
        max_iterations: stop after as many.
        precondition: an approximation of the inverse of A, symmetric positive definite.

    Raises:
        NonFiniteError: a product is not finite.
    """
    xp = _namespace(b)
    limit = b.shape[-2] * eps**2
    x, r = xp.zeros_like(b), b
    z = p = _preconditioned(precondition, r)
    rz = _inner(r, z)
    _check_finite(rz, z, "the preconditioner", 0)
    square = _inner(r, r)
    active = square > limit
    is_indefinite = False
    iterations = 0
    while iterations < max_iterations and bool(active.any()):
        iterations += 1
        q = product(p)
        curvature = _inner(p, q)
        _check_finite(curvature, q, "the operator", iterations)
        is_indefinite = is_indefinite or bool((active & (curvature <= 0)).any())
        active = active & (curvature != 0) & (rz != 0)
        step = xp.where(active, rz / xp.where(active, curvature, 1.0), 0.0)
        x = x + step * p
        r = r - step * q
        square = _inner(r, r)
        active = active & (square > limit)
        z = _preconditioned(precondition, r)
        previous, rz = rz, _inner(r, z)
        _check_finite(rz, z, "the preconditioner", iterations)
        p = z + xp.where(active, rz / xp.where(active, previous, 1.0), 0.0) * p
    return _outcome(x, square, limit, iterations, is_indefinite=is_indefinite)


def minimal_residual(
    product: Product, b: Any, *, eps: float, max_iterations: int, precondition: Product | None
) -> Outcome:
    """Solve A a = b for a symmetric A, definite or not (Paige and Saunders, 1975).

    The recurrence is that of Elman, Silvester and Wathen, Finite Elements and Fast Iterative Solvers, algorithm 2.4.
    Residuals are carried along, so that the tolerance means the same with a preconditioner. A column is begun anew from
    its residual where rounding has led the recurrence astray, as errors grow with the square of the condition number
    (Sleijpen, van der Vorst and Modersitzki, 2000). Arguments as for `conjugate_gradient`; the preconditioner must be
    positive definite though A is not.

    Raises:
        NonFiniteError: a product is not finite.
    """
    xp = _namespace(b)
    limit = b.shape[-2] * eps**2
    x, r = xp.zeros_like(b), b
    lanczos = _first_lanczos(precondition, r)
    _check_finite(lanczos.gamma, lanczos.z, "the preconditioner", 0)
    givens = _first_givens(lanczos)
    square = _inner(r, r)
    active = (square > limit) & (lanczos.gamma > 0)
    iterations = 0
    while iterations < max_iterations and bool(active.any()):
        iterations += 1
        gamma = xp.where(active, lanczos.gamma, 1.0)
        z = xp.where(active, lanczos.z / gamma, 0.0)
        q = product(z)
        delta = _inner(q, z)
        _check_finite(delta, q, "the operator", iterations)
        v = q - delta / gamma * lanczos.v - gamma / lanczos.gamma_before * lanczos.v_before
        v = xp.where(active, v, 0.0)
        following = _lanczos(precondition, v, lanczos.v, gamma)
        _check_finite(following.gamma, following.z, "the preconditioner", iterations)
        givens, pivot = _rotated(givens, z, q, delta=delta, gamma=gamma, gamma_next=following.gamma, active=active)
        active = active & (pivot > 0)
        step = xp.where(active, givens.step, 0.0)
        x = x + step * givens.w
        r = r - step * givens.image
        square = _inner(r, r)
        lanczos = following
        active = active & (square > limit)
        # The two sizes of the residual are equal but for rounding.
        astray = active & (_inner(_preconditioned(precondition, r), r) > _ASTRAY**2 * givens.eta**2)
        if bool(astray.any()):
            fresh = _first_lanczos(precondition, r)
            lanczos = _Lanczos(*(xp.where(astray, new, old) for new, old in zip(fresh, lanczos, strict=True)))
            first = _first_givens(fresh)
            givens = _Givens(*(xp.where(astray, new, old) for new, old in zip(first, givens, strict=True)))
        active = active & (lanczos.gamma > 0)
    return _outcome(x, square, limit, iterations)


class _Lanczos(NamedTuple):
    """The last vectors of Lanczos' process, which are not normalised."""

    v_before: Any
    v: Any
    z: Any
    gamma_before: Any
    gamma: Any


class _Givens(NamedTuple):
    """The last rotations of the factorisation of the tridiagonal matrix, and the directions w with their products."""

    w_before: Any
    w: Any
    image_before: Any
    image: Any
    cosine_before: Any
    cosine: Any
    sine_before: Any
    sine: Any
    eta: Any
    step: Any


def _first_lanczos(precondition: Product | None, r: Any) -> _Lanczos:
    xp = _namespace(r)
    return _lanczos(precondition, r, xp.zeros_like(r), xp.ones_like(r[..., :1, :]))


def _lanczos(precondition: Product | None, v: Any, v_before: Any, gamma_before: Any) -> _Lanczos:
    xp = _namespace(v)
    z = _preconditioned(precondition, v)
    return _Lanczos(v_before, v, z, gamma_before, xp.sqrt(xp.clip(_inner(z, v), 0.0, None)))


def _first_givens(lanczos: _Lanczos) -> _Givens:
    xp = _namespace(lanczos.v)
    nothing, zero = xp.zeros_like(lanczos.v), xp.zeros_like(lanczos.gamma)
    one = xp.ones_like(zero)
    return _Givens(nothing, nothing, nothing, nothing, one, one, zero, zero, lanczos.gamma, zero)


def _rotated(
    last: _Givens, z: Any, q: Any, *, delta: Any, gamma: Any, gamma_next: Any, active: Any
) -> tuple[_Givens, Any]:
    """Rotate the next column of the tridiagonal matrix; also give its pivot, 0 where the matrix is singular."""
    xp = _namespace(z)
    rotated = last.cosine * delta - last.cosine_before * last.sine * gamma
    pivot = xp.hypot(rotated, gamma_next)
    safe_pivot = xp.where(active & (pivot > 0), pivot, 1.0)
    second = last.sine * delta + last.cosine_before * last.cosine * gamma
    third = last.sine_before * gamma
    w = (z - third * last.w_before - second * last.w) / safe_pivot
    image = (q - third * last.image_before - second * last.image) / safe_pivot
    cosine, sine = rotated / safe_pivot, gamma_next / safe_pivot
    return (
        _Givens(
            last.w, w, last.image, image, last.cosine, cosine, last.sine, sine, -sine * last.eta, cosine * last.eta
        ),
        pivot,
    )


def refined(
    method: Method, product: Product, b: Any, *, eps: float, max_iterations: int, precondition: Product | None
) -> Outcome:
    """Solve, and solve again for what is left while that is above the tolerance and at least halves.

    What is left is computed by a product of its own: rounding may make it larger than the recurrence of a method says,
    and where products are of float32 it may stay above the tolerance. Arguments as for `conjugate_gradient`.
    """
    xp = _namespace(b)
    limit = b.shape[-2] * eps**2
    x, r, square = xp.zeros_like(b), b, _inner(b, b)
    iterations = 0
    while True:
        found = method(product, r, eps=eps, max_iterations=max_iterations - iterations, precondition=precondition)
        iterations += found.iterations
        if not found.iterations or not found.converged:
            return found._replace(solution=x + found.solution, iterations=iterations)
        candidate = x + found.solution
        rest = b - product(candidate)
        size = _inner(rest, rest)
        is_better = size < square
        x, r = xp.where(is_better, candidate, x), xp.where(is_better, rest, r)
        done = (size <= limit) | (size > square / 4)
        square = xp.where(is_better, size, square)
        if bool(done.all()):
            return _outcome(x, square, limit, iterations)._replace(converged=True)


METHODS: Mapping[str, Method] = {"cg": conjugate_gradient, "minres": minimal_residual}
"""From the name of a method to the function."""


def first_not_finite(values: Any) -> tuple[int, ...] | None:
    """The indices of the first NaN or infinity, or None."""
    xp = _namespace(values)
    finite = xp.isfinite(values)
    if bool(finite.all()):
        return None
    found = _namespace(values).argwhere(~finite)
    return tuple(int(index) for index in found[0])


def _namespace(values: Any) -> Any:
    """The module of the functions of an array; NumPy's give way to CuPy's."""
    return sys.modules["torch"] if is_tensor(values) else np


def _inner(x: Any, y: Any) -> Any:
    """Inner products of columns: (*batch, 1, E)."""
    if is_tensor(x):
        return (x * y).sum(-2, keepdim=True)
    return np.einsum("...ne,...ne->...e", x, y)[..., None, :]


def _preconditioned(precondition: Product | None, r: Any) -> Any:
    return r if precondition is None else precondition(r)


def _check_finite(scalars: Any, values: Any, who: str, iterations: int) -> None:
    if bool(_namespace(scalars).isfinite(scalars).all()):
        return
    place = first_not_finite(values)
    found = "overflow" if place is None else f"is {float(values[place])} at {_place(place)}"
    raise NonFiniteError(
        at_user_line(
            f"what {who} gives in iteration {iterations} of the solver {found}, expected finite numbers: "
            "check the data of the formula for NaN and infinities, and its scale"
        )
    )


def _place(indices: tuple[int, ...]) -> str:
    *batch, row, column = indices
    lead = f"batch element {tuple(batch)}, " if batch else ""
    return f"{lead}row {row}, column {column}"


def _outcome(x: Any, square: Any, limit: float, iterations: int, *, is_indefinite: bool = False) -> Outcome:
    if 0 in x.shape:
        return Outcome(x, iterations, 0.0, converged=True)
    worst = float(square.max())
    return Outcome(x, iterations, (worst / x.shape[-2]) ** 0.5, worst <= limit, is_indefinite)
