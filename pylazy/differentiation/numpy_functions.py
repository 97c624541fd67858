"""Functions of NumPy on traced arrays, made of the operations that have derivatives."""

from __future__ import annotations

import inspect
import math
import operator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pylazy.differentiation.array_spaces import as_array, library_beside
from pylazy.differentiation.numpy_operations import (
    FLAT_UFUNCS,
    SELECT,
    UFUNCS,
    broadcast,
    cast,
    contract,
    cumulative_sum,
    get,
    joined,
    matrix_product,
    permute,
    reshape,
    sum_over,
)
from pylazy.differentiation.traces import apply, untraced
from pylazy.runtime.errors import DtypeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def call_ufunc(ufunc: np.ufunc, method: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Call a ufunc on arrays of which some are traced.

    Raises:
        UnsupportedError: it has no derivative here, or is called in another way than on arrays.
    """
    name = f"numpy.{ufunc.__name__}"
    if method != "__call__":
        _refuse(f"{name}.{method}")
    if options.get("out") is not None:
        _refuse(f"{name} into an array of its own, as by out= or an operator such as +=,")
    for option in options:
        _refuse(f"the argument {option} of {name}")
    if ufunc in FLAT_UFUNCS:
        return ufunc(*map(untraced, inputs))
    if ufunc is np.matmul:
        return _matmul(*inputs)
    operation = UFUNCS.get(ufunc)
    if operation is None:
        _refuse(name)
    return apply(operation, *map(_operand, inputs))[0]


def call_function(function: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Call a function of NumPy on arrays of which some are traced.

    Raises:
        UnsupportedError: it is not in the tables, or has no such argument here.
    """
    name = f"{function.__module__}.{function.__name__}"
    if function in FLAT_FUNCTIONS:
        return function(*_untraced_in(args), **{key: _untraced_in(value) for key, value in options.items()})
    build = FUNCTIONS.get(function)
    if build is None:
        _refuse(name)
    given = {key: value for key, value in options.items() if value is not np._NoValue}
    try:
        return build(*args, **given)
    except TypeError:
        _check_arguments(build, name, args, given)  # not before: to read a signature takes as long as a small call
        raise


def _check_arguments(build: Callable[..., Any], name: str, args: Sequence[Any], given: Mapping[str, Any]) -> None:
    try:
        inspect.signature(build).bind(*args, **given)
    except TypeError as error:
        _refuse(f"{name} with these arguments ({error})")


def take_item(x: Any, key: Any) -> Any:
    """Index an array with numbers, slices, None, `...` and arrays of integers or bools."""
    parts = key if isinstance(key, tuple) else (key,)
    read = tuple(as_array(untraced(part)) if _is_array_like(part) else part for part in parts)
    return get(x, read if isinstance(key, tuple) else read[0])


def convert(x: Any, dtype: Any) -> Any:
    """Convert an array to another dtype; one that is no float gives an array without a derivative."""
    wanted = np.dtype(dtype)
    if wanted == x.dtype:
        return x
    if wanted.kind == "c":
        raise DtypeError(at_user_line(f"an array of a differentiated function is made {wanted}, expected real numbers"))
    return cast(x, wanted) if wanted.kind == "f" else untraced(x).astype(wanted)


def _refuse(what: str) -> NoReturn:
    raise UnsupportedError(
        at_user_line(
            f"{what} has no derivative here, in a function that is differentiated: use formulas, or the functions of "
            "NumPy that docs/semantics.md lists"
        )
    )


def _is_array_like(value: Any) -> bool:
    return isinstance(value, list | np.ndarray) or hasattr(value, "__array_function__")


def _operand(value: Any) -> Any:
    """Read an operand: a list as an array; a Python number gives way in dtype, so it stays one."""
    if isinstance(value, int | float):
        return value
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DtypeError(
            at_user_line(
                f"an array of {array.dtype} meets one of a function that is differentiated, expected real numbers"
            )
        )
    return array


def _untraced_in(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_untraced_in(part) for part in value)
    return untraced(value)


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    given = range(ndim) if axis is None else (axis,) if isinstance(axis, int | np.integer) else axis
    return tuple(_axis(one, ndim) for one in given)


def _axis(axis: Any, ndim: int) -> int:
    number = operator.index(axis)
    if not -ndim <= number < ndim:
        raise np.exceptions.AxisError(number, ndim)
    return number % ndim


# Reductions of arrays -------------------------------------------------------------------------------------------------


def _sum(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    axes = _axes(axis, a.ndim)
    total = sum_over(a, axes)
    return reshape(total, _kept(a.shape, axes)) if keepdims else total


def _kept(shape: Sequence[int], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def _mean(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    count = math.prod(a.shape[number] for number in _axes(axis, a.ndim))
    return _sum(a, axis, keepdims=keepdims) / count


def _var(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    count = math.prod(a.shape[number] for number in _axes(axis, a.ndim))
    centred = a - _mean(a, axis, keepdims=True)
    return _sum(np.square(centred), axis, keepdims=keepdims) / (count - ddof)


def _std(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    return np.sqrt(_var(a, axis, ddof=ddof, keepdims=keepdims))


def _selection(find: Callable[..., Any]) -> Callable[..., Any]:
    def select(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        axes = _axes(axis, a.ndim)
        others = tuple(number for number in range(a.ndim) if number not in axes)
        rows = reshape(
            permute(a, (*others, *axes)),
            (
                *(a.shape[number] for number in others),
                -1 if not axes else math.prod(a.shape[number] for number in axes),
            ),
        )
        chosen = _take_along_axis(rows, find(untraced(rows), axis=-1)[..., None], -1)
        shape = _kept(a.shape, axes) if keepdims else tuple(a.shape[number] for number in others)
        return reshape(chosen, shape)

    return select


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002  NumPy's name
    if ord not in (None, 2) or (ord == 2 and axis is None and x.ndim > 1):
        _refuse(f"numpy.linalg.norm with ord={ord!r}")
    return np.sqrt(_sum(np.square(x), axis, keepdims=keepdims))


def _cumsum(a: Any, axis: Any = None) -> Any:
    return cumulative_sum(np.ravel(a), 0) if axis is None else cumulative_sum(a, _axis(axis, a.ndim))


# Shapes ---------------------------------------------------------------------------------------------------------------


def _reshape(a: Any, /, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None) -> Any:
    del copy
    if order != "C":
        _refuse(f"numpy.reshape with order={order!r}")
    wanted = newshape if shape is None else shape
    sizes = (wanted,) if isinstance(wanted, int | np.integer) else tuple(wanted)
    stand = np.broadcast_to(np.zeros(()), a.shape).reshape(sizes) if -1 in sizes else None
    return reshape(a, tuple(map(int, sizes)) if stand is None else stand.shape)


def _transpose(a: Any, axes: Any = None) -> Any:
    return permute(a, tuple(range(a.ndim))[::-1] if axes is None else _axes(axes, a.ndim))


def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    axes = list(range(a.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return permute(a, tuple(axes))


def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    sources, targets = _axes(source, a.ndim), _axes(destination, a.ndim)
    axes = [axis for axis in range(a.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        axes.insert(target, axis)
    return permute(a, tuple(axes))


def _expand_dims(a: Any, axis: Any) -> Any:
    count = 1 if isinstance(axis, int | np.integer) else len(axis)
    new = _axes(axis, a.ndim + count)
    own = iter(a.shape)
    return reshape(a, tuple(1 if number in new else next(own) for number in range(a.ndim + count)))


def _squeeze(a: Any, axis: Any = None) -> Any:
    return reshape(a, np.squeeze(np.broadcast_to(0, a.shape), axis).shape)


def _broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    del subok
    return broadcast(array, (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape))


def _concatenate(arrays: Sequence[Any], /, axis: Any = 0) -> Any:
    parts = [_operand(part) for part in arrays]
    if axis is None:
        return joined([np.ravel(part) for part in parts], 0)
    return joined(parts, _axis(axis, parts[0].ndim))


def _stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    parts = [_operand(part) for part in arrays]
    return joined([np.expand_dims(part, axis) for part in parts], _axis(axis, parts[0].ndim + 1))


def _vstack(tup: Sequence[Any]) -> Any:
    return joined([part[None] if part.ndim == 1 else part for part in map(_operand, tup)], 0)


def _hstack(tup: Sequence[Any]) -> Any:
    parts = [_operand(part) for part in tup]
    return joined(parts, 0 if parts[0].ndim == 1 else 1)


def _column_stack(tup: Sequence[Any]) -> Any:
    return joined([part[:, None] if part.ndim == 1 else part for part in map(_operand, tup)], 1)


def _flip(m: Any, axis: Any = None) -> Any:
    axes = _axes(axis, m.ndim)
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


def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return _sum(_diagonal(a, offset, axis1, axis2), -1)


def _take(a: Any, indices: Any, axis: Any = None) -> Any:
    key = as_array(untraced(indices))
    if axis is None:
        return get(np.ravel(a), (key,))
    return get(a, (slice(None),) * _axis(axis, a.ndim) + (key,))


def _take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    if axis is None:
        arr, axis = np.ravel(arr), 0
    along = _axis(axis, arr.ndim)
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
    return _take_along_axis(a, np.argsort(untraced(a), axis=axis, kind="stable"), axis)


def _diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    lead = (slice(None),) * _axis(axis, a.ndim)
    for _ in range(n):
        a = get(a, (*lead, slice(1, None))) - get(a, (*lead, slice(None, -1)))
    return a


# Selections and products ----------------------------------------------------------------------------------------------


def _where(condition: Any, x: Any, y: Any, /) -> Any:
    return apply(SELECT, as_array(untraced(condition))[()], _operand(x), _operand(y))[0]


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002  NumPy's names
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    raised = a if low is None else np.maximum(a, low)
    return raised if high is None else np.minimum(raised, high)


def _matmul(x1: Any, x2: Any, /) -> Any:
    x, y = _operand(x1), _operand(x2)
    if not (x.ndim and y.ndim):
        _refuse("numpy.matmul of numbers")
    product = matrix_product(x[None] if x.ndim == 1 else x, y[:, None] if y.ndim == 1 else y)
    if y.ndim == 1:
        product = product[..., 0]
    return product if x.ndim > 1 else product[..., 0, :] if y.ndim > 1 else product[..., 0]


def _dot(a: Any, b: Any) -> Any:
    x, y = _operand(a), _operand(b)
    if not (np.ndim(x) and np.ndim(y)):
        return np.multiply(x, y)
    if y.ndim > 2:
        _refuse(f"numpy.dot with an array of {y.ndim} dimensions")
    return _matmul(x, y)


def _inner(a: Any, b: Any, /) -> Any:
    x, y = _operand(a), _operand(b)
    return _dot(x, y) if y.ndim < 2 else _dot(x, np.swapaxes(y, -1, -2))


def _vdot(a: Any, b: Any, /) -> Any:
    return _matmul(np.ravel(_operand(a)), np.ravel(_operand(b)))


def _outer(a: Any, b: Any) -> Any:
    return np.ravel(_operand(a))[:, None] * np.ravel(_operand(b))


def _einsum(subscripts: Any, /, *operands: Any, optimize: Any = False) -> Any:
    del optimize
    written = subscripts.replace(" ", "") if isinstance(subscripts, str) else ""
    if not written or "." in written:
        _refuse("numpy.einsum without labels as a text, or with '...',")
    left, arrow, kept = written.partition("->")
    labels = tuple(left.split(","))
    if not arrow:
        kept = "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
    if any(len(set(own)) < len(own) for own in labels):
        _refuse(f"numpy.einsum({written!r}), where an array has one label twice,")
    return contract(labels, kept, [_operand(x) for x in operands])


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    x, y = _operand(a), _operand(b)
    if isinstance(axes, int | np.integer):
        pairs = [(x.ndim - axes + number, number) for number in range(axes)]
    else:
        pairs = list(zip(*(_axes(one, z.ndim) for one, z in zip(axes, (x, y), strict=True)), strict=True))
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    of_x = [next(letters) for _ in range(x.ndim)]
    of_y = [next(letters) for _ in range(y.ndim)]
    for in_x, in_y in pairs:
        of_y[in_y] = of_x[in_x]
    kept = [label for label in of_x if label not in of_y] + [label for label in of_y if label not in of_x]
    return contract(("".join(of_x), "".join(of_y)), "".join(kept), [x, y])


def _full_like(a: Any, fill_value: Any, dtype: Any = None) -> Any:
    return library_beside(a).full(a.shape, fill_value, a.dtype if dtype is None else dtype)


FUNCTIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        np.sum: _sum,
        np.mean: _mean,
        np.var: _var,
        np.std: _std,
        np.min: _selection(np.argmin),
        np.max: _selection(np.argmax),
        np.linalg.norm: _norm,
        np.cumsum: _cumsum,
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
        np.trace: _trace,
        np.take: _take,
        np.take_along_axis: _take_along_axis,
        np.sort: _sort,
        np.diff: _diff,
        np.where: _where,
        np.clip: _clip,
        np.dot: _dot,
        np.inner: _inner,
        np.vdot: _vdot,
        np.outer: _outer,
        np.einsum: _einsum,
        np.tensordot: _tensordot,
        np.copy: lambda a: a,
        np.zeros_like: lambda a, dtype=None: _full_like(a, 0, dtype),
        np.ones_like: lambda a, dtype=None: _full_like(a, 1, dtype),
        np.full_like: _full_like,
        np.shape: lambda a: a.shape,
        np.ndim: lambda a: a.ndim,
        np.size: lambda a: a.size,
    }
)
"""NumPy's functions that have a derivative, or need none, beside those of each element."""

FLAT_FUNCTIONS = frozenset(
    {
        np.argmin,
        np.argmax,
        np.argsort,
        np.any,
        np.all,
        np.count_nonzero,
        np.nonzero,
        np.flatnonzero,
        np.isclose,
        np.allclose,
        np.array_equal,
        np.searchsorted,
        np.round,
        np.iscomplexobj,
        np.isrealobj,
    }
)
"""Those that are constant between jumps: their results have no derivative."""
