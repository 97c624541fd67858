"""Stands in for `pykeops.numpy.utils`: dense kernel matrices in NumPy, against which programs compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.compat.keops.kernel_names import kernel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

KERNELS: Mapping[str, Callable[[Any], Any]] = {
    "gaussian": lambda q: np.exp(-q),
    "laplacian": lambda q: np.exp(-np.sqrt(q)),
    "cauchy": lambda q: 1 / (1 + q),
    "inverse_multiquadric": lambda q: 1 / np.sqrt(1 + q),
}
"""Radial kernels as functions of q = |x - y|^2 / s^2."""

LOG_KERNELS: Mapping[str, Callable[[Any], Any]] = {
    "gaussian": lambda q: -q,
    "laplacian": lambda q: -np.sqrt(q),
    "cauchy": lambda q: -np.log1p(q),
    "inverse_multiquadric": lambda q: -np.log1p(q) / 2,
}
"""Their logarithms."""

KERNEL_DERIVATIVES: Mapping[str, Callable[[Any], Any]] = {
    "gaussian": lambda q: -np.exp(-q),
    "laplacian": lambda q: -np.exp(-np.sqrt(q)) / (2 * np.sqrt(q)),
    "cauchy": lambda q: -1 / (1 + q) ** 2,
    "inverse_multiquadric": lambda q: -0.5 / (1 + q) ** 1.5,
}
"""Their derivatives in q."""

SPHERE_KERNELS: Mapping[str, Callable[[Any, Any], Any]] = {
    "binet": lambda cosine, _: cosine**2,
    "linear": lambda cosine, _: cosine,
    "gaussian_unoriented": lambda cosine, s: np.exp((2 * cosine**2 - 2) / s**2),
    "gaussian_oriented": lambda cosine, s: np.exp((2 * cosine - 2) / s**2),
}
"""Kernels of unit normals, as functions of the cosine between them and a scale s."""


def squared_distances(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """|x_i - y_j|^2, (M, N), for points (M, D) and (N, D)."""
    found: NDArray[Any] = sum((x[:, None, k] - y[None, :, k]) ** 2 for k in range(x.shape[1]))
    return found


def differences(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """x_i - y_j with the components first, (D, M, N), for points (M, D) and (N, D)."""
    found: NDArray[Any] = x.T[:, :, None] - y.T[:, None, :]
    return found


def np_kernel(x: NDArray[Any], y: NDArray[Any], s: Any, kernel: str) -> NDArray[Any]:
    """k(x_i, y_j), (M, N), for a name of `KERNELS` and a scale s."""
    return _evaluate(KERNELS, kernel, x, y, s)


def log_np_kernel(x: NDArray[Any], y: NDArray[Any], s: Any, kernel: str) -> NDArray[Any]:
    """The logarithm of k(x_i, y_j), (M, N)."""
    return _evaluate(LOG_KERNELS, kernel, x, y, s)


def grad_np_kernel(x: NDArray[Any], y: NDArray[Any], s: Any, kernel: str) -> NDArray[Any]:
    """The derivative of k with respect to |x_i - y_j|^2, (M, N)."""
    found: NDArray[Any] = _evaluate(KERNEL_DERIVATIVES, kernel, x, y, s) / (s * s)
    return found


def np_kernel_sphere(nalpha: NDArray[Any], nbeta: NDArray[Any], s: Any, kernel: str) -> NDArray[Any]:
    """A kernel of unit normals (M, D) and (N, D), (M, N), for a name of `SPHERE_KERNELS`."""
    found: NDArray[Any] = kernel_of(SPHERE_KERNELS, kernel)(nalpha @ nbeta.T, s)
    return found


def chain_rules(
    q: NDArray[Any],
    ax: NDArray[Any],
    by: NDArray[Any],
    Aa: NDArray[Any],  # noqa: N803  pykeops' name
    p: NDArray[Any],
) -> NDArray[Any]:
    """Sum over j and e of 2 q_ie (x_i - y_j) A_ij p_je, (M, D): the gradient in x of the sum of q_ie k_ij p_je.

    Args:
        q: (M, E).
        ax: x, (M, D).
        by: y, (N, D).
        Aa: the derivative of k with respect to |x_i - y_j|^2, (M, N); see `grad_np_kernel`.
        p: (N, E).
    """
    found: NDArray[Any] = 2 * np.einsum("ie,dij,ij,je->id", q, differences(ax, by), Aa, p, optimize=True)
    return found.astype(np.float32)


def log_sum_exp(mat: NDArray[Any], axis: int = 0) -> NDArray[Any]:
    """Log of the sum of exponentials along an axis, which is dropped."""
    found: NDArray[Any] = np.logaddexp.reduce(mat, axis=axis)
    return found


def WarmUpGpu() -> None:  # noqa: N802  pykeops' name
    """Do nothing: kernels are compiled and loaded when they are first used."""


def _evaluate(
    table: Mapping[str, Callable[[Any], Any]], kernel: str, x: NDArray[Any], y: NDArray[Any], s: Any
) -> NDArray[Any]:
    found: NDArray[Any] = kernel_of(table, kernel)(squared_distances(x, y) / (s * s))
    return found
