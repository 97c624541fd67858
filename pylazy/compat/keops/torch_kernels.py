"""Stands in for `pykeops.torch.utils`: dense kernel matrices in torch, against which programs compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pylazy.compat.keops.kernel_names import kernel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KERNELS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gaussian": lambda q: torch.exp(-q),
    "laplacian": lambda q: torch.exp(-torch.sqrt(q)),
    "cauchy": lambda q: 1 / (1 + q),
    "inverse_multiquadric": lambda q: torch.rsqrt(1 + q),
}
"""Radial kernels as functions of q = |x - y|^2 / s^2."""


def is_on_device(x: torch.Tensor) -> bool:
    """Whether a tensor lies on a GPU."""
    return x.is_cuda


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """|x_i - y_j|^2, (M, N), for points (M, D) and (N, D)."""
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)


def torch_kernel(x: torch.Tensor, y: torch.Tensor, s: Any, kernel: str) -> torch.Tensor:
    """k(x_i, y_j), (M, N), for a name of `KERNELS` and a scale s."""
    found: torch.Tensor = kernel_of(KERNELS, kernel)(squared_distances(x, y) / (s * s))
    return found
