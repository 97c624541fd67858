"""NumPy's reductions of traced arrays: sums, what is made of them, and values that are selected."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.differentiation.numpy_arguments import axes_of, axis_of, is_complex, refuse, refuse_complex
from pylazy.differentiation.numpy_operations import cumulative_sum, permute, reshape, sum_over
from pylazy.differentiation.numpy_shapes import take_along_axis
from pylazy.differentiation.traces import untraced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _sum(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    axes = axes_of(axis, a.ndim)
    total = sum_over(a, axes)
    return reshape(total, _kept(a.shape, axes)) if keepdims else total


def _kept(shape: Sequence[int], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def _mean(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    count = math.prod(a.shape[number] for number in axes_of(axis, a.ndim))
    return _sum(a, axis, keepdims=keepdims) / count


def _var(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    count = math.prod(a.shape[number] for number in axes_of(axis, a.ndim))
    centred = a - _mean(a, axis, keepdims=True)
    return _sum(_squared_size(centred), axis, keepdims=keepdims) / (count - ddof)


def _squared_size(x: Any) -> Any:
    return np.square(np.real(x)) + np.square(np.imag(x)) if is_complex(x) else np.square(x)


def _std(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    return np.sqrt(_var(a, axis, ddof=ddof, keepdims=keepdims))


def _selection(find: Callable[..., Any]) -> Callable[..., Any]:
    def select(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        refuse_complex(f"numpy.{find.__name__.removeprefix('arg')}", a)
        axes = axes_of(axis, a.ndim)
        others = tuple(number for number in range(a.ndim) if number not in axes)
        rows = reshape(
            permute(a, (*others, *axes)),
            (
                *(a.shape[number] for number in others),
                -1 if not axes else math.prod(a.shape[number] for number in axes),
            ),
        )
        chosen = take_along_axis(rows, find(untraced(rows), axis=-1)[..., None], -1)
        shape = _kept(a.shape, axes) if keepdims else tuple(a.shape[number] for number in others)
        return reshape(chosen, shape)

    return select


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002  NumPy's name
    if ord not in (None, 2) or (ord == 2 and axis is None and x.ndim > 1):
        refuse(f"numpy.linalg.norm with ord={ord!r}")
    return np.sqrt(_sum(_squared_size(x), axis, keepdims=keepdims))


def _cumsum(a: Any, axis: Any = None) -> Any:
    return cumulative_sum(np.ravel(a), 0) if axis is None else cumulative_sum(a, axis_of(axis, a.ndim))


def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return _sum(np.diagonal(a, offset, axis1, axis2), -1)


REDUCING_FUNCTIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        np.sum: _sum,
        np.mean: _mean,
        np.var: _var,
        np.std: _std,
        np.min: _selection(np.argmin),
        np.max: _selection(np.argmax),
        np.linalg.norm: _norm,
        np.cumsum: _cumsum,
        np.trace: _trace,
    }
)
"""By the function of NumPy."""
