"""NumPy's products of traced arrays: of matrices, of vectors, and by labels of axes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.differentiation.numpy_arguments import axes_of, operand, refuse
from pylazy.differentiation.numpy_operations import contract, matrix_product

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def matmul(x1: Any, x2: Any, /) -> Any:
    """As `numpy.matmul`."""
    x, y = operand(x1), operand(x2)
    if not (x.ndim and y.ndim):
        refuse("numpy.matmul of numbers")
    product = matrix_product(x[None] if x.ndim == 1 else x, y[:, None] if y.ndim == 1 else y)
    if y.ndim == 1:
        product = product[..., 0]
    return product if x.ndim > 1 else product[..., 0, :] if y.ndim > 1 else product[..., 0]


def _dot(a: Any, b: Any) -> Any:
    x, y = operand(a), operand(b)
    if not (np.ndim(x) and np.ndim(y)):
        return np.multiply(x, y)
    if y.ndim > 2:
        refuse(f"numpy.dot with an array of {y.ndim} dimensions")
    return matmul(x, y)


def _inner(a: Any, b: Any, /) -> Any:
    x, y = operand(a), operand(b)
    return _dot(x, y) if y.ndim < 2 else _dot(x, np.swapaxes(y, -1, -2))


def _vdot(a: Any, b: Any, /) -> Any:
    return matmul(np.conjugate(np.ravel(operand(a))), np.ravel(operand(b)))


def _outer(a: Any, b: Any) -> Any:
    return np.ravel(operand(a))[:, None] * np.ravel(operand(b))


def _einsum(subscripts: Any, /, *operands: Any, optimize: Any = False) -> Any:
    del optimize
    written = subscripts.replace(" ", "") if isinstance(subscripts, str) else ""
    if not written or "." in written:
        refuse("numpy.einsum without labels as a text, or with '...',")
    left, arrow, kept = written.partition("->")
    labels = tuple(left.split(","))
    if not arrow:
        kept = "".join(sorted(label for label in set(left) - {","} if left.count(label) == 1))
    if any(len(set(own)) < len(own) for own in labels):
        refuse(f"numpy.einsum({written!r}), where an array has one label twice,")
    return contract(labels, kept, [operand(x) for x in operands])


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    x, y = operand(a), operand(b)
    if isinstance(axes, int | np.integer):
        pairs = [(x.ndim - axes + number, number) for number in range(axes)]
    else:
        pairs = list(zip(*(axes_of(one, z.ndim) for one, z in zip(axes, (x, y), strict=True)), strict=True))
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    of_x = [next(letters) for _ in range(x.ndim)]
    of_y = [next(letters) for _ in range(y.ndim)]
    for in_x, in_y in pairs:
        of_y[in_y] = of_x[in_x]
    kept = [label for label in of_x if label not in of_y] + [label for label in of_y if label not in of_x]
    return contract(("".join(of_x), "".join(of_y)), "".join(kept), [x, y])


PRODUCT_FUNCTIONS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        np.dot: _dot,
        np.inner: _inner,
        np.vdot: _vdot,
        np.outer: _outer,
        np.einsum: _einsum,
        np.tensordot: _tensordot,
    }
)
"""By the function of NumPy."""
