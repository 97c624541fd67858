"""Functions of NumPy on traced arrays, made of the operations that have derivatives."""

from __future__ import annotations

import inspect
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.differentiation.array_spaces import as_array, library_beside
from pylazy.differentiation.numpy_arguments import is_complex, operand, refuse
from pylazy.differentiation.numpy_operations import (
    COMPLEX_UFUNCS,
    FLAT_UFUNCS,
    SELECT,
    UFUNCS,
    cast,
    conjugate,
    get,
    imaginary_part,
    real_part,
)
from pylazy.differentiation.numpy_products import PRODUCT_FUNCTIONS, matmul
from pylazy.differentiation.numpy_reductions import REDUCING_FUNCTIONS
from pylazy.differentiation.numpy_shapes import SHAPE_FUNCTIONS
from pylazy.differentiation.traces import apply, untraced
from pylazy.runtime.errors import DtypeError
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
        refuse(f"{name}.{method}")
    if options.get("out") is not None:
        refuse(f"{name} into an array of its own, as by out= or an operator such as +=,")
    for option in options:
        refuse(f"the argument {option} of {name}")
    if any(map(is_complex, inputs)) and ufunc not in COMPLEX_UFUNCS:
        build = _OF_COMPLEX.get(ufunc)
        return refuse(f"{name} of complex numbers") if build is None else build(*inputs)
    if ufunc is np.conjugate:
        return operand(*inputs)
    if ufunc in FLAT_UFUNCS:
        return ufunc(*map(untraced, inputs))
    if ufunc is np.matmul:
        return matmul(*inputs)
    operation = UFUNCS.get(ufunc)
    if operation is None:
        refuse(name)
    return apply(operation, *map(operand, inputs))[0]


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
        refuse(name)
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
        refuse(f"{name} with these arguments ({error})")


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
    if is_complex(x) and wanted.kind != "c":
        raise DtypeError(
            at_user_line(
                f"complex numbers of a differentiated function are made {wanted}: take z.real, z.imag or abs(z)"
            )
        )
    return cast(x, wanted) if wanted.kind in "fc" else untraced(x).astype(wanted)


def _is_array_like(value: Any) -> bool:
    return isinstance(value, list | np.ndarray) or hasattr(value, "__array_function__")


def _untraced_in(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_untraced_in(part) for part in value)
    return untraced(value)


def _where(condition: Any, x: Any, y: Any, /) -> Any:
    return apply(SELECT, as_array(untraced(condition))[()], operand(x), operand(y))[0]


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002  NumPy's names
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    raised = a if low is None else np.maximum(a, low)
    return raised if high is None else np.minimum(raised, high)


def _real(val: Any) -> Any:
    return real_part(val) if is_complex(val) else val


def _imag(val: Any) -> Any:
    return imaginary_part(val) if is_complex(val) else np.zeros_like(val)


def _angle(z: Any, deg: bool = False) -> Any:  # NumPy's signature
    angle = np.arctan2(_imag(z), _real(z))
    return np.multiply(angle, 180 / math.pi) if deg else angle


_OF_COMPLEX: Mapping[np.ufunc, Callable[..., Any]] = MappingProxyType(
    {
        np.absolute: lambda z: np.hypot(real_part(z), imaginary_part(z)),
        np.conjugate: conjugate,
    }
)
"""Functions of each element that have no complex derivative."""


def _full_like(a: Any, fill_value: Any, dtype: Any = None) -> Any:
    return library_beside(a).full(a.shape, fill_value, a.dtype if dtype is None else dtype)


FUNCTIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        **REDUCING_FUNCTIONS,
        **SHAPE_FUNCTIONS,
        **PRODUCT_FUNCTIONS,
        np.where: _where,
        np.real: _real,
        np.imag: _imag,
        np.angle: _angle,
        np.clip: _clip,
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
