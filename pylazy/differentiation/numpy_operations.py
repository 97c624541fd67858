"""Table: operation on arrays -> its derivatives, as calls of the same operations."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.differentiation.array_spaces import library_beside
from pylazy.differentiation.traces import Call, Operation, Spec, apply, elementwise, fit, in_dtype, linear, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _row(ufunc: np.ufunc, *partials: Any, can_wait: bool = False) -> tuple[np.ufunc, Operation]:
    return ufunc, elementwise(ufunc.__name__, ufunc, *partials, can_wait=can_wait)


def _power_in_x(call: Call, t: Any) -> Any:
    # x ** 0 is 1 for all x, hence flat at 0 although 0 * 0 ** -1 is NaN.
    exponent = np.where(np.equal(call.y, 0), 1, call.y)
    return t * np.where(np.equal(call.y, 0), 0, call.y * np.power(call.x, exponent - 1))


def _power_in_y(call: Call, t: Any) -> Any:
    # x ** y is 0 for all y > 0 where x is 0, hence flat in y although log(0) is infinite.
    is_flat = np.equal(call.x, 0) & np.greater_equal(call.y, 0)
    return t * call.result * np.log(np.where(is_flat, 1, call.x))


def _share(mask: Any, t: Any) -> Any:
    return np.where(mask, t, 0)


_LOG_2, _LOG_10 = math.log(2.0), math.log(10.0)

UFUNCS: Mapping[np.ufunc, Operation] = MappingProxyType(
    dict(
        (
            _row(np.add, lambda _, t: t, lambda _, t: t, can_wait=True),
            _row(np.subtract, lambda _, t: t, lambda _, t: -t, can_wait=True),
            _row(np.multiply, lambda call, t: t * call.y, lambda call, t: t * call.x, can_wait=True),
            _row(
                np.true_divide, lambda call, t: t / call.y, lambda call, t: -(t * call.result / call.y), can_wait=True
            ),
            _row(np.negative, lambda _, t: -t, can_wait=True),
            _row(np.positive, lambda _, t: t, can_wait=True),
            _row(np.power, _power_in_x, _power_in_y),
            _row(np.float_power, _power_in_x, _power_in_y),
            _row(np.square, lambda call, t: t * (2 * call.x)),
            _row(np.sqrt, lambda call, t: t * (0.5 / call.result)),
            _row(np.cbrt, lambda call, t: t / (3 * np.square(call.result))),
            _row(np.reciprocal, lambda call, t: -(t * np.square(call.result))),
            _row(np.absolute, lambda call, t: t * np.sign(call.x)),
            _row(np.fabs, lambda call, t: t * np.sign(call.x)),
            _row(np.exp, lambda call, t: t * call.result),
            _row(np.exp2, lambda call, t: t * (call.result * _LOG_2)),
            _row(np.expm1, lambda call, t: t * np.exp(call.x)),
            _row(np.log, lambda call, t: t / call.x),
            _row(np.log2, lambda call, t: t / (call.x * _LOG_2)),
            _row(np.log10, lambda call, t: t / (call.x * _LOG_10)),
            _row(np.log1p, lambda call, t: t / (1 + call.x)),
            _row(np.sin, lambda call, t: t * np.cos(call.x)),
            _row(np.cos, lambda call, t: -(t * np.sin(call.x))),
            _row(np.tan, lambda call, t: t * (1 + np.square(call.result))),
            _row(np.arcsin, lambda call, t: t / np.sqrt(1 - np.square(call.x))),
            _row(np.arccos, lambda call, t: -(t / np.sqrt(1 - np.square(call.x)))),
            _row(np.arctan, lambda call, t: t / (1 + np.square(call.x))),
            _row(np.sinh, lambda call, t: t * np.cosh(call.x)),
            _row(np.cosh, lambda call, t: t * np.sinh(call.x)),
            _row(np.tanh, lambda call, t: t * (1 - np.square(call.result))),
            _row(np.arcsinh, lambda call, t: t / np.sqrt(1 + np.square(call.x))),
            _row(np.arccosh, lambda call, t: t / np.sqrt(np.square(call.x) - 1)),
            _row(np.arctanh, lambda call, t: t / (1 - np.square(call.x))),
            _row(
                np.arctan2,
                lambda call, t: t * call.y / (np.square(call.x) + np.square(call.y)),
                lambda call, t: -(t * call.x / (np.square(call.x) + np.square(call.y))),
            ),
            _row(np.hypot, lambda call, t: t * call.x / call.result, lambda call, t: t * call.y / call.result),
            _row(
                np.logaddexp,
                lambda call, t: t * np.exp(call.x - call.result),
                lambda call, t: t * np.exp(call.y - call.result),
            ),
            _row(np.remainder, lambda _, t: t, lambda call, t: -(t * np.floor_divide(call.x, call.y))),
            _row(
                np.minimum,
                lambda call, t: _share(np.less_equal(call.x, call.y), t),
                lambda call, t: _share(np.logical_not(np.less_equal(call.x, call.y)), t),
            ),
            _row(
                np.maximum,
                lambda call, t: _share(np.greater_equal(call.x, call.y), t),
                lambda call, t: _share(np.logical_not(np.greater_equal(call.x, call.y)), t),
            ),
        )
    )
)
"""NumPy's functions of each element that have a derivative."""

FLAT_UFUNCS = frozenset(
    {
        np.sign,
        np.floor,
        np.ceil,
        np.trunc,
        np.rint,
        np.floor_divide,
        np.heaviside,
        np.isfinite,
        np.isinf,
        np.isnan,
        np.signbit,
        np.less,
        np.less_equal,
        np.greater,
        np.greater_equal,
        np.equal,
        np.not_equal,
        np.logical_and,
        np.logical_or,
        np.logical_not,
        np.logical_xor,
    }
)
"""Those that are constant between jumps: their results have no derivative."""

COMPLEX_UFUNCS = frozenset(
    {
        np.add, np.subtract, np.multiply, np.true_divide, np.negative, np.positive, np.power, np.float_power, np.square,
        np.sqrt, np.reciprocal, np.exp, np.exp2, np.expm1, np.log, np.log2, np.log10, np.log1p, np.sin, np.cos, np.tan,
        np.arcsin, np.arccos, np.arctan, np.sinh, np.cosh, np.tanh, np.arcsinh, np.arccosh, np.arctanh, np.matmul,
        np.isfinite, np.isinf, np.isnan, np.equal, np.not_equal, np.logical_and, np.logical_or, np.logical_not,
    }
)  # fmt: skip
"""Those of complex numbers: all with a derivative have a complex one, so that their rows serve them as well."""

SELECT = elementwise(
    "where", np.where, None, lambda call, t: np.where(call.x, t, 0), lambda call, t: np.where(call.x, 0, t)
)
"""From a condition that is not traced, and two arrays."""


# Sums and shapes ------------------------------------------------------------------------------------------------------


def sum_over(x: Any, axes: tuple[int, ...]) -> Any:
    """Sum over axes, from 0 on."""
    return apply(_SUM, x, axes=axes)[0]


def reshape(x: Any, shape: tuple[int, ...]) -> Any:
    """Give an array another shape, all of whose sizes are known."""
    return apply(_RESHAPE, x, shape=shape)[0]


def permute(x: Any, axes: tuple[int, ...]) -> Any:
    """Exchange the axes of an array."""
    return apply(_PERMUTE, x, axes=axes)[0]


def broadcast(x: Any, shape: tuple[int, ...]) -> Any:
    """Repeat an array along new axes, and along those of size 1."""
    return apply(_BROADCAST, x, shape=shape)[0]


def cast(x: Any, dtype: Any) -> Any:
    """Convert an array to another dtype of floats or complex numbers."""
    return apply(_CAST, x, dtype=np.dtype(dtype))[0]


def get(x: Any, key: Any) -> Any:
    """Take elements, by a key that NumPy reads."""
    return apply(_GET, x, key=key)[0]


def joined(parts: Sequence[Any], axis: int) -> Any:
    """Join arrays along an axis, from 0 on."""
    return apply(_JOIN, *parts, axis=axis)[0]


def cumulative_sum(x: Any, axis: int) -> Any:
    """Sum up along an axis, from 0 on."""
    return apply(_CUMULATIVE_SUM, x, axis=axis)[0]


def _expanded(call: Call, ct: Any) -> Any:
    shape = spec_of(call.operands[0]).shape
    kept = tuple(1 if axis in call.attributes["axes"] else size for axis, size in enumerate(shape))
    return broadcast(reshape(ct, kept), shape)


def _sum_spec(x: Spec, axes: tuple[int, ...]) -> tuple[Spec, ...]:
    return (Spec(tuple(size for axis, size in enumerate(x.shape) if axis not in axes), x.dtype),)


_SUM = linear("sum", lambda x, axes: np.sum(x, axis=axes), _expanded, _sum_spec)
_RESHAPE = linear(
    "reshape",
    lambda x, shape: x.reshape(shape),  # numpy.reshape and CuPy's have other names for the shape
    lambda call, ct: reshape(ct, spec_of(call.operands[0]).shape),
    lambda x, shape: (Spec(shape, x.dtype),),
)
_CAST = linear(
    "astype",
    lambda x, dtype: x.astype(dtype),
    lambda call, ct: in_dtype(ct, spec_of(call.operands[0]).dtype),
    lambda x, dtype: (Spec(x.shape, dtype),),
)
_PERMUTE = linear(
    "transpose",
    np.transpose,
    lambda call, ct: permute(ct, tuple(int(axis) for axis in np.argsort(call.attributes["axes"]))),
)
_BROADCAST = linear(
    "broadcast_to",
    np.broadcast_to,
    lambda call, ct: fit(ct, spec_of(call.operands[0])),
)


def _scattered(x: Any, key: Any, shape: tuple[int, ...]) -> Any:
    library = library_beside(x)
    made = library.zeros(shape, x.dtype)
    parts = key if isinstance(key, tuple) else (key,)
    if any(hasattr(part, "shape") or isinstance(part, list) for part in parts):
        library.add.at(made, key, x)  # positions may repeat
    else:
        made[key] = x
    return made


def _scatter(call: Call, ct: Any) -> Any:
    return apply(_SCATTER, ct, key=call.attributes["key"], shape=spec_of(call.operands[0]).shape)[0]


_GET = linear("getitem", lambda x, key: x[key], _scatter)
_SCATTER = linear("scatter", _scattered, lambda call, ct: get(ct, call.attributes["key"]))


def _flipped(x: Any, axis: int) -> Any:
    return get(x, (slice(None),) * axis + (slice(None, None, -1),))


_CUMULATIVE_SUM = linear(
    "cumsum",
    lambda x, axis: np.cumsum(x, axis=axis),
    lambda call, ct: _flipped(
        cumulative_sum(_flipped(ct, call.attributes["axis"]), call.attributes["axis"]), call.attributes["axis"]
    ),
)


def _join_vjp(call: Call, cotangents: Sequence[Any]) -> list[Any]:
    (ct,) = cotangents
    axis = call.attributes["axis"]
    found = []
    start = 0
    for number, operand in enumerate(call.operands):
        spec = spec_of(operand)
        size = spec.shape[axis]
        key = (slice(None),) * axis + (slice(start, start + size),)
        found.append(in_dtype(get(ct, key), spec.dtype) if call.varies(number) else None)
        start += size
    return found


def _join_jvp(call: Call, tangents: Sequence[Any]) -> list[Any]:
    parts = [
        library_beside(x).zeros(x.shape, x.dtype) if t is None else t
        for t, x in zip(tangents, call.values, strict=True)
    ]
    return [joined(parts, call.attributes["axis"])]


_JOIN = Operation("concatenate", lambda *parts, axis: (np.concatenate(parts, axis=axis),), _join_vjp, _join_jvp)


# Parts of complex numbers ---------------------------------------------------------------------------------------------


def real_part(x: Any) -> Any:
    """The real part of an array."""
    return apply(_REAL, x)[0]


def imaginary_part(x: Any) -> Any:
    """The imaginary part of an array."""
    return apply(_IMAG, x)[0]


def conjugate(x: Any) -> Any:
    """The complex conjugate of an array."""
    return apply(_CONJUGATE, x)[0]


_REAL = linear("real", np.real, lambda call, ct: cast(ct, spec_of(call.operands[0]).dtype))
_IMAG = linear("imag", np.imag, lambda call, ct: in_dtype(ct * -1j, spec_of(call.operands[0]).dtype))
_CONJUGATE = linear("conjugate", np.conjugate, lambda _, ct: conjugate(ct))


# Products -------------------------------------------------------------------------------------------------------------


def matrix_product(x: Any, y: Any) -> Any:
    """Multiply stacks of matrices."""
    return apply(_MATMUL, x, y)[0]


def _matmul_vjp(call: Call, cotangents: Sequence[Any]) -> list[Any]:
    (ct,) = cotangents
    of_x = fit(np.matmul(ct, np.swapaxes(call.y, -1, -2)), spec_of(call.operands[0])) if call.varies(0) else None
    of_y = fit(np.matmul(np.swapaxes(call.x, -1, -2), ct), spec_of(call.operands[1])) if call.varies(1) else None
    return [of_x, of_y]


def _matmul_jvp(call: Call, tangents: Sequence[Any]) -> list[Any]:
    by_x, by_y = tangents
    terms = [np.matmul(by_x, call.y)] if by_x is not None else []
    if by_y is not None:
        terms.append(np.matmul(call.x, by_y))
    return [terms[0] + terms[1] if len(terms) == 2 else terms[0] if terms else None]


_MATMUL = Operation("matmul", lambda x, y: (np.matmul(x, y),), _matmul_vjp, _matmul_jvp)


def contract(labels: tuple[str, ...], kept: str, operands: Sequence[Any]) -> Any:
    """Multiply and sum as numpy.einsum does, with a label for each axis, none of them twice in one array."""
    return apply(_EINSUM, *operands, labels=labels, kept=kept)[0]


def _einsum(*operands: Any, labels: tuple[str, ...], kept: str) -> tuple[Any]:
    return (np.einsum(f"{','.join(labels)}->{kept}", *operands, optimize=True),)


def _einsum_vjp(call: Call, cotangents: Sequence[Any]) -> list[Any]:
    (ct,) = cotangents
    labels, kept = call.attributes["labels"], call.attributes["kept"]
    values = call.values
    found: list[Any] = []
    for number, own in enumerate(labels):
        if not call.varies(number):
            found.append(None)
            continue
        others = [place for place in range(len(labels)) if place != number]
        known = set(kept).union(*(labels[place] for place in others))
        here = "".join(label for label in own if label in known)
        part = contract((kept, *(labels[place] for place in others)), here, [ct, *(values[place] for place in others)])
        spec = spec_of(call.operands[number])
        # A label of this array alone is summed over: its cotangent is the same all along.
        shape = tuple(size if label in known else 1 for label, size in zip(own, spec.shape, strict=True))
        found.append(in_dtype(broadcast(reshape(part, shape), spec.shape), spec.dtype))
    return found


def _einsum_jvp(call: Call, tangents: Sequence[Any]) -> list[Any]:
    total: Any = None
    for number, tangent in enumerate(tangents):
        if tangent is not None:
            operands = call.values
            operands[number] = tangent
            term = contract(call.attributes["labels"], call.attributes["kept"], operands)
            total = term if total is None else total + term
    return [total]


_EINSUM = Operation("einsum", _einsum, _einsum_vjp, _einsum_jvp)
