"""NumPy's functions that arrange the elements of traced arrays anew, or take some of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.differentiation.array_spaces import as_array
from pylazy.differentiation.numpy_arguments import axes_of, axis_of, operand, refuse
from pylazy.differentiation.numpy_operations import broadcast, get, joined, permute, reshape
from pylazy.differentiation.traces import untraced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _reshape(a: Any, /, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None) -> Any:
    del copy
    if order != "C":
        refuse(f"numpy.reshape with order={order!r}")
    wanted = newshape if shape is None else shape
    sizes = (wanted,) if isinstance(wanted, int | np.integer) else tuple(wanted)
    stand = np.broadcast_to(np.zeros(()), a.shape).reshape(sizes) if -1 in sizes else None
    return reshape(a, tuple(map(int, sizes)) if stand is None else stand.shape)


def _transpose(a: Any, axes: Any = None) -> Any:
    return permute(a, tuple(range(a.ndim))[::-1] if axes is None else axes_of(axes, a.ndim))


def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(a.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return permute(a, tuple(axes))


def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    sources, targets = axes_of(source, a.ndim), axes_of(destination, a.ndim)
    axes = [axis for axis in range(a.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        axes.insert(target, axis)
    return permute(a, tuple(axes))


def _expand_dims(a: Any, axis: Any) -> Any:
    count = 1 if isinstance(axis, int | np.integer) else len(axis)
    new = axes_of(axis, a.ndim + count)
    own = iter(a.shape)
    return reshape(a, tuple(1 if number in new else next(own) for number in range(a.ndim + count)))


def _squeeze(a: Any, axis: Any = None) -> Any:
    return reshape(a, np.squeeze(np.broadcast_to(0, a.shape), axis).shape)


def _broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    del subok
    return broadcast(array, (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape))


def _concatenate(arrays: Sequence[Any], /, axis: Any = 0) -> Any:
    parts = [operand(part) for part in arrays]
    if axis is None:
        return joined([np.ravel(part) for part in parts], 0)
    return joined(parts, axis_of(axis, parts[0].ndim))


def _stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    parts = [operand(part) for part in arrays]
    return joined([np.expand_dims(part, axis) for part in parts], axis_of(axis, parts[0].ndim + 1))


def _vstack(tup: Sequence[Any]) -> Any:
    return joined([part[None] if part.ndim == 1 else part for part in map(operand, tup)], 0)


def _hstack(tup: Sequence[Any]) -> Any:
    parts = [operand(part) for part in tup]
    return joined(parts, 0 if parts[0].ndim == 1 else 1)


def _column_stack(tup: Sequence[Any]) -> Any:
    return joined([part[:, None] if part.ndim == 1 else part for part in map(operand, tup)], 1)


def _flip(m: Any, axis: Any = None) -> Any:
    axes = axes_of(axis, m.ndim)
    return get(m, tuple(slice(None, None, -1) if number in axes else slice(None) for number in range(m.ndim)))


def _roll(a: Any, shift: Any, axis: Any = None) -> Any:
    positions = np.roll(np.arange(a.size).reshape(a.shape), shift, axis)
    return get(np.ravel(a), (positions,))


def _tile(a: Any, reps: Any) -> Any:
    return get(np.ravel(a), (np.tile(np.arange(a.size).reshape(a.shape), reps),))


def _repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    return get(np.ravel(a), (np.repeat(np.arange(a.size).reshape(a.shape), repeats, axis),))


def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return get(np.ravel(a), (np.diagonal(np.arange(a.size).reshape(a.shape), offset, axis1, axis2),))


def _take(a: Any, indices: Any, axis: Any = None) -> Any:
    key = as_array(untraced(indices))
    if axis is None:
        return get(np.ravel(a), (key,))
    return get(a, (slice(None),) * axis_of(axis, a.ndim) + (key,))


def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    """As `numpy.take_along_axis`."""
    if axis is None:
        arr, axis = np.ravel(arr), 0
    along = axis_of(axis, arr.ndim)
    shape = np.broadcast_shapes(
        tuple(size for number, size in enumerate(arr.shape) if number != along),
        tuple(size for number, size in enumerate(indices.shape) if number != along),
    )
    key = list(np.ix_(*map(np.arange, (*shape[:along], indices.shape[along], *shape[along:]))))
    for number in range(arr.ndim):
        if number != along and arr.shape[number] == 1:
            key[number] = np.zeros((1,) * arr.ndim, np.int64)
    key[along] = as_array(untraced(indices))
    return get(arr, tuple(key))


def _sort(a: Any, axis: int = -1) -> Any:
    return take_along_axis(a, np.argsort(untraced(a), axis=axis, kind="stable"), axis)


def _diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    lead = (slice(None),) * axis_of(axis, a.ndim)
    for _ in range(n):
        a = get(a, (*lead, slice(1, None))) - get(a, (*lead, slice(None, -1)))
    return a


SHAPE_FUNCTIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        np.reshape: _reshape,
        np.ravel: lambda a: reshape(a, (a.size,)),
        np.transpose: _transpose,
        np.swapaxes: _swapaxes,
        np.moveaxis: _moveaxis,
        np.expand_dims: _expand_dims,
        np.squeeze: _squeeze,
        np.broadcast_to: _broadcast_to,
        np.concatenate: _concatenate,
        np.stack: _stack,
        np.vstack: _vstack,
        np.hstack: _hstack,
        np.column_stack: _column_stack,
        np.flip: _flip,
        np.roll: _roll,
        np.tile: _tile,
        np.repeat: _repeat,
        np.diagonal: _diagonal,
        np.take: _take,
        np.take_along_axis: take_along_axis,
        np.sort: _sort,
        np.diff: _diff,
    }
)
"""By the function of NumPy."""
