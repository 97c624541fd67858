"""Complex arrays and tensors: their parts, and how to make them of parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from pylazy.arrays.array_libraries import is_tensor, is_traced
from pylazy.arrays.out_arrays import check_out
from pylazy.arrays.sources import NUMPY, TORCH
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line


def parts_of(x: Any) -> tuple[Any, Any, bool]:
    """Give the real and the imaginary part, as views where x is an array, and whether the second is to be negated."""
    if isinstance(x, list | tuple):
        both = np.array(x, dtype=np.complex128)
        return both.real.tolist(), both.imag.tolist(), False
    if isinstance(x, complex | np.complexfloating):
        number = complex(x)
        # A part without a value is a zero of the formula, with which products cost nothing.
        return number.real or 0, number.imag or 0, False
    if is_tensor(x) and x.is_conj():
        # The view behind a conjugated tensor holds the numbers of memory, which kernels read.
        return x.conj().real, x.conj().imag, True
    return x.real, x.imag, False


def complex_array(planar: Any, *, drop_inner: bool = False) -> Any:
    """Make a complex array of one that ends with D real parts and D imaginary parts; a view where D is 1."""
    dim = planar.shape[-1] // 2
    result: Any
    if isinstance(planar, np.ndarray):
        dtype = np.result_type(planar.dtype, np.complex64)
        if dim == 1:
            result = planar.view(dtype)
        else:
            result = np.empty((*planar.shape[:-1], dim), dtype)
            result.real, result.imag = planar[..., :dim], planar[..., dim:]
        return result[..., 0] if drop_inner else result
    if is_traced(planar):
        result = planar[..., :dim] + 1j * planar[..., dim:]
        return result[..., 0] if drop_inner else result
    if not is_tensor(planar):
        raise UnsupportedError(
            at_user_line(
                f"a complex result of arrays of type {type(planar).__name__}, expected those of NumPy or torch"
            )
        )
    import torch

    if dim > 1:
        return torch.complex(planar[..., :dim], planar[..., dim:])
    result = torch.view_as_complex(planar)
    return result if drop_inner else result[..., None]


def with_parts_in_turn(v: Any) -> Any:
    """See complex vectors as twice as many real ones: (N,) as (N, 2), and (..., N, E) as (..., N, 2 * E)."""
    shape = (*v.shape[:-1], 2 * v.shape[-1]) if v.ndim > 1 else (*v.shape, 2)
    if isinstance(v, np.ndarray):
        return v[..., None].view(v.real.dtype).reshape(shape)
    if is_traced(v):
        return np.stack([v.real, v.imag], axis=-1).reshape(shape)
    import torch

    return torch.view_as_real(v.resolve_conj()).reshape(shape)


def from_parts_in_turn(found: Any) -> Any:
    """See twice as many real numbers as complex ones: (..., 2 * E) as (..., E)."""
    if isinstance(found, np.ndarray):
        return found.view(np.result_type(found.dtype, np.complex64))
    if is_traced(found):
        return found[..., ::2] + 1j * found[..., 1::2]
    import torch

    return torch.view_as_complex(found.unflatten(-1, (-1, 2)))


def log_of_scaled(mean: Any, exponent: Any) -> Any:
    """Find log(mean * exp(exponent)); -inf for a sum of nothing, in which the mean is 0 / 0."""
    if not is_tensor(mean):
        nothing = np.equal(exponent, -np.inf)
        with np.errstate(divide="ignore"):
            return np.log(np.where(nothing, 0, mean)) + np.where(nothing, 0, exponent)
    import torch

    nothing = torch.isneginf(exponent)
    return torch.log(torch.where(nothing, 0, mean)) + torch.where(nothing, 0, exponent)


def polar(sizes: Any, angles: Any) -> Any:
    """Make complex numbers of sizes and angles in radians."""
    if isinstance(sizes, np.ndarray):
        result = np.empty(sizes.shape, np.result_type(sizes.dtype, np.complex64))
        result.real, result.imag = sizes * np.cos(angles), sizes * np.sin(angles)
        return result
    if is_traced(sizes):
        return sizes * np.cos(angles) + 1j * (sizes * np.sin(angles))
    import torch

    return torch.polar(sizes, angles)


def delivered(result: Any, out: Any) -> Any:
    """Write a result into the array that the user gave for it, if any."""
    if out is None:
        return result
    kind = NUMPY if isinstance(result, np.ndarray) else TORCH
    dtype = str(result.dtype).removeprefix("torch.")
    check_out(out, kind=kind, shape=tuple(result.shape), dtype=dtype, sources=())
    out[...] = result
    return out
