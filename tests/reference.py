"""The dense float64 oracle of every operation and every reduction.

Values are arrays of shape (*batch, M, N, D); an axis that a value does not vary with has size 1, as in broadcasting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Array = Any  # an ndarray; NumPy's own types say no more here
Dense = Callable[..., Array]

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _flag(condition: Array) -> Array:
    return np.asarray(condition).astype(np.float64)


def _round_half_away(x: Array) -> Array:
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def _rsqrt(x: Array) -> Array:
    return np.where(x == 0, 0.0, 1 / np.sqrt(np.where(x == 0, 1.0, x)))


def _sum(x: Array) -> Array:
    return x.sum(-1, keepdims=True)


def _position(x: Array, *, of_largest: bool, axis: int) -> Array:
    # NumPy's own rule is the one wanted: the first NaN, else the first best.
    return (np.argmax if of_largest else np.argmin)(x, axis=axis)


def _normalize(x: Array) -> Array:
    return x * _rsqrt(_sum(x * x))


def _dot(x: Array, y: Array) -> Array:
    return _sum(x * y)


def _concat(x: Array, y: Array) -> Array:
    outer = np.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return np.concatenate([np.broadcast_to(v, (*outer, v.shape[-1])) for v in (x, y)], axis=-1)


def _contract(
    x: Array, y: Array, sizes: Sequence[int], left: Sequence[int], right: Sequence[int], kept: Sequence[int]
) -> Array:
    outer = np.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    operands = []
    for value, labels in ((x, left), (y, right)):
        tensor = value.reshape(*value.shape[:-1], *(sizes[label] for label in labels))
        operands += [tensor, [..., *labels]]
    result = np.einsum(*operands, [..., *kept])
    return result.reshape(*outer, -1)


def soft_dtw_by_torch(x: Any, y: Any, gamma: Any) -> Any:
    """Fill the table of Cuturi and Blondel cell by cell, with an ordinary logsumexp."""
    costs: dict[tuple[int, int], Any] = {}
    for i in range(x.shape[-1]):
        for j in range(y.shape[-1]):
            before = [costs[cell] for cell in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if cell in costs]
            distance = (x[..., i] - y[..., j]) ** 2
            if before:
                before = torch.broadcast_tensors(*[-cost / gamma[..., 0] for cost in before])
                distance = distance - gamma[..., 0] * torch.stack(before).logsumexp(0)
            costs[i, j] = distance + 0 * gamma[..., 0]
    return costs[x.shape[-1] - 1, y.shape[-1] - 1][..., None]


def soft_dtw_gradient(x: Array, y: Array, gamma: Array, along: Array | None = None) -> Array:
    """Differentiate soft-DTW by x, y and gamma, joined to one vector; once more along a vector, if there is one."""
    outer = np.broadcast_shapes(*(value.shape[:-1] for value in (x, y, gamma, *(() if along is None else (along,)))))
    parts = [torch.tensor(np.broadcast_to(value, (*outer, value.shape[-1]))) for value in (x, y, gamma)]
    joined = torch.cat(parts, -1).requires_grad_()
    value = soft_dtw_by_torch(*joined.split([part.shape[-1] for part in parts], -1))
    (gradient,) = torch.autograd.grad(value.sum(), joined, create_graph=along is not None)
    if along is not None:
        (gradient,) = torch.autograd.grad((gradient * torch.tensor(np.broadcast_to(along, joined.shape))).sum(), joined)
    return gradient.numpy()


OPERATIONS: Mapping[str, Dense] = {
    "soft_dtw_gradient": soft_dtw_gradient,
    "soft_dtw_hessian": soft_dtw_gradient,
    "soft_dtw": lambda *operands: soft_dtw_by_torch(*map(torch.as_tensor, operands)).numpy(),
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": _rsqrt,
    "square": np.square,
    "reciprocal": lambda x: 1 / x,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "exp2": np.exp2,
    "log2": np.log2,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "cbrt": np.cbrt,
    "erf": _erf,
    "erfc": _erfc,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0.0, x),
    "relu": lambda x: np.where(x < 0, 0.0, x),
    "step": lambda x: np.where(x < 0, 0.0, 1.0),
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": _round_half_away,
    "xlogx": lambda x: np.where(x == 0, 0.0, x * np.log(np.where(x == 0, 1.0, x))),
    "sinxdivx": lambda x: np.where(x == 0, 1.0, np.sin(x) / np.where(x == 0, 1.0, x)),
    "isnan": lambda x: _flag(np.isnan(x)),
    "logical_not": lambda x: _flag(x == 0),
    "powi": lambda x, exponent: np.power(x, float(exponent)),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "atan2": np.arctan2,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "hypot": np.hypot,
    "eq": lambda x, y: _flag(x == y),
    "ne": lambda x, y: _flag(x != y),
    "lt": lambda x, y: _flag(x < y),
    "le": lambda x, y: _flag(x <= y),
    "gt": lambda x, y: _flag(x > y),
    "ge": lambda x, y: _flag(x >= y),
    "logical_and": lambda x, y: _flag((x != 0) & (y != 0)),
    "logical_or": lambda x, y: _flag((x != 0) | (y != 0)),
    "mod0": lambda x, m: x - m * np.floor(x / m),
    "where": lambda c, a, b: np.where(c != 0, a, b),
    "ifelse": lambda x, a, b: np.where(x >= 0, a, b),
    "clamp": lambda x, low, high: np.where(x < low, low, np.where(x > high, high, x)),
    "inner_sum": _sum,
    "inner_prod": lambda x: x.prod(-1, keepdims=True),
    "inner_min": lambda x: x.min(-1, keepdims=True),
    "inner_max": lambda x: x.max(-1, keepdims=True),
    "inner_argmin": lambda x: _position(x, of_largest=False, axis=-1)[..., None].astype(np.float64),
    "inner_argmax": lambda x: _position(x, of_largest=True, axis=-1)[..., None].astype(np.float64),
    "sqnorm2": lambda x: _sum(x * x),
    "norm2": lambda x: np.sqrt(_sum(x * x)),
    "normalize": _normalize,
    "dot": _dot,
    "sqdist": lambda x, y: _sum((x - y) ** 2),
    "concat": _concat,
    "extract": lambda x, start, size: x[..., start : start + size],
    "broadcast": lambda x, size: np.broadcast_to(x, (*x.shape[:-1], size)),
    "one_hot": lambda x, size: _flag(_round_half_away(x) == np.arange(size)),
    "contract": _contract,
}
"""From the name of an operation to what it computes."""


def _logsumexp(f: Array, g: Array | None, axis: int) -> Array:
    if f.shape[axis] == 0:
        shape = list(np.broadcast_shapes(f.shape, (1,) if g is None else g.shape))
        del shape[axis]
        return np.full(shape, -np.inf)
    largest = f.max(axis, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    terms = np.exp(f - shift) * (1.0 if g is None else g)
    return np.log(terms.sum(axis)) + shift.squeeze(axis)


def _softmax(f: Array, g: Array, axis: int) -> Array:
    largest = f.max(axis, keepdims=True)
    weight = np.exp(f - largest)
    return (weight * g).sum(axis) / weight.sum(axis)


def _best(f: Array, axis: int, k: int, *, largest: bool) -> Array:
    # A stable sort of f or -f puts NaN last and keeps the lowest index first on ties.
    order = np.argsort(-f if largest else f, axis=axis, kind="stable")
    return np.take(order, range(k), axis=axis)


def _k_best(f: Array, axis: int, k: int, *, largest: bool) -> Array:
    return np.take_along_axis(f, _best(f, axis, k, largest=largest), axis)


def _extreme(f: Array, axis: int, *, largest: bool) -> Array:
    if f.shape[axis] == 0:
        shape = list(f.shape)
        del shape[axis]
        return np.full(shape, -np.inf if largest else np.inf)
    return f.max(axis) if largest else f.min(axis)


def reduce_dense(kind: str, operands: Sequence[Array], *, axis: str, k: int = 0) -> Array:
    """Reduce dense values over an axis.

    Args:
        kind: a row of `pylazy.reductions.REDUCTIONS`, "var" or "std".
        operands: the formula, and the weight where there is one; shapes (*batch, M, N, D).
        axis: "i" or "j".
        k: how many are kept, for the kinds that take it.

    Returns:
        (*batch, rows, D), or (*batch, rows, k, D) for the kinds with k, where rows are those of the other axis.
    """
    outer = np.broadcast_shapes(*(operand.shape[:-1] for operand in operands))
    values = [np.broadcast_to(operand, (*outer, operand.shape[-1])) for operand in operands]
    f, g = values[0], values[1] if len(values) > 1 else None
    position = f.ndim - (2 if axis == "j" else 3)
    with np.errstate(all="ignore"):
        if k:
            take = _best if kind.startswith("arg") else _k_best
            kept = take(f, position, k, largest=kind.endswith("max"))
            return kept if axis == "j" else np.moveaxis(kept, -3, -2)
        if kind == "logsumexp":
            return _logsumexp(f, g, position)
        if kind == "softmax":
            return _softmax(f, g, position)
        return _PLAIN[kind](f, position)


_PLAIN: Mapping[str, Callable[[Array, int], Array]] = {
    "sum": lambda f, axis: f.sum(axis),
    "mean": lambda f, axis: f.mean(axis),
    "var": lambda f, axis: f.var(axis),
    "std": lambda f, axis: f.std(axis),
    "any": lambda f, axis: f.any(axis),
    "all": lambda f, axis: f.all(axis),
    "count": np.count_nonzero,
    "prod": lambda f, axis: f.prod(axis),
    "min": lambda f, axis: _extreme(f, axis, largest=False),
    "max": lambda f, axis: _extreme(f, axis, largest=True),
    "argmin": lambda f, axis: _position(f, of_largest=False, axis=axis),
    "argmax": lambda f, axis: _position(f, of_largest=True, axis=axis),
}


def dense_variable(array: Array, *, axis: str, batch: int) -> Array:
    """View the rows of an array as a dense value: (*batch, rows, D) becomes (*batch, rows, 1, D) for axis i."""
    dense = np.asarray(array, dtype=np.float64)
    lead = dense.shape[:batch]
    if axis == "ij":
        return dense.reshape(*dense.shape, 1) if dense.ndim == batch + 2 else dense
    dim = dense.shape[-1] if dense.ndim > batch else 1
    rows = {"i": (-1, 1), "j": (1, -1), "": (1, 1)}[axis] if dense.size else _empty_rows(dense, axis)
    return dense.reshape(*lead, *rows, dim)


def _empty_rows(dense: Array, axis: str) -> tuple[int, int]:
    return {"i": (0, 1), "j": (1, 0), "": (1, 1)}[axis]


def evaluate_dense(
    expression: Any, arguments: Sequence[Array] = (), *, rows: int | None = None, columns: int | None = None
) -> Array:
    """Evaluate a `LazyTensor` or an `Expression` densely and in float64, on its own data and, if symbolic, on these.

    `rows` and `columns` are the sizes that indices count, where the LazyTensor has no data that says so.
    """
    root = getattr(expression, "_expression", expression)
    extents = {
        "i": getattr(expression, "_rows", rows) or rows or 1,
        "j": getattr(expression, "_columns", columns) or columns or 1,
    }
    values: dict[int, Array] = {}
    stack = [root]
    with np.errstate(all="ignore"):
        while stack:
            node = stack[-1]
            pending = [operand for operand in node.operands if id(operand) not in values]
            if pending:
                stack += pending
                continue
            stack.pop()
            if node.op == "constant":
                value = np.full((1, 1, 1), float(node.source))
            elif node.op == "index":
                count = extents[node.axes]
                value = dense_variable(np.arange(count)[:, None], axis=node.axes, batch=0)
            elif node.op == "var":
                source = node.source
                if source.kind == "symbol":
                    array = np.asarray(arguments[source.position])
                    batch = array.ndim - (2 if node.axes else 1)
                else:
                    array = source.array.detach().double().numpy() if hasattr(source.array, "detach") else source.array
                    batch = source.batch
                value = dense_variable(array, axis=node.axes, batch=batch)
                if node.attributes:
                    value = np.swapaxes(value, -3, -2)
            else:
                operands = [values[id(operand)] for operand in node.operands]
                value = OPERATIONS[node.op](*operands, **dict(node.attributes))
            values[id(node)] = value
    return values[id(root)]


def tolerance(dtype: Any, columns: int = 1, *, operations: int = 10) -> float:
    """Relative tolerance of a result, measured against the sum of the absolute values of its terms.

    Every operation may round, and sums are blocked, so that their error grows with the square root of the number of
    terms at most (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
    """
    return float(np.finfo(dtype).eps) * operations * (2 + math.sqrt(max(columns, 1)))


def assert_close(
    found: Any, expected: Array, *, dtype: Any, columns: int = 1, scale: Array | float | None = None
) -> None:
    """Check a result against the oracle; infinities and NaN must be at the same places.

    Args:
        found: array or tensor.
        expected: of the same shape.
        dtype: of the computation.
        columns: number of terms of each result.
        scale: size of the terms that were added, where the result itself may cancel; by default that of the result.
    """
    result = found.detach().double().numpy() if hasattr(found, "detach") else np.asarray(found)
    assert result.shape == expected.shape, f"shape {result.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(finite, 0.0, result), np.where(finite, 0.0, expected))
    size = np.maximum(np.abs(expected), np.abs(expected).max(initial=0, where=finite) if scale is None else scale)
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(result - expected), 0.0)
        allowed = tolerance(dtype, columns) * np.maximum(np.where(finite, size, 0.0), 1e-30)
    worst = np.max(error - allowed, initial=0.0)
    assert worst <= 0, f"error {error.max():.3g} is above the tolerance by {worst:.3g}"
