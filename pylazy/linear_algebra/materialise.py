"""Entries of a formula as numbers: all of them, its diagonal, or those of some rows and columns."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pylazy.arrays.array_libraries import is_tensor, is_traced
from pylazy.arrays.imported_arrays import Imported, is_array, readable
from pylazy.arrays.sources import NUMBER, SYMBOL, array_source
from pylazy.dtypes import arithmetic_dtype, result_dtype
from pylazy.execution.extent_checks import check_index
from pylazy.execution.programs import Extents
from pylazy.execution.wanted_results import Wanted
from pylazy.expression import Expression, replace_leaves
from pylazy.lazy_formula import LazyFormula, new, read_index
from pylazy.runtime.errors import DtypeError, ShapeError, UnsupportedError
from pylazy.stages import reduce_or_postpone
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T", bound=LazyFormula)
_ONE_TERM = (Wanted("sum", (0,)),)
_OTHER_AXIS = {"i": "j", "j": "i"}


def dense(x: LazyFormula) -> Any:
    """Compute all entries: (*batch, M, N), or (*batch, M, N, D) for D > 1; see `LazyTensor.dense`."""
    _, rows, columns = sizes = _sizes(x)
    # Each row of the result is a batch element with one row for each column; better few long ones than many short.
    swap = rows > columns
    result = _dense_by(x, "j" if swap else "i", sizes)
    if swap:
        result = result.swapaxes(-3, -2)
        if isinstance(result, np.ndarray):
            result = np.ascontiguousarray(result)
        elif is_tensor(result):
            result = result.contiguous()
    return result[..., 0] if x._expression.dim == 1 else result


def _dense_by(x: LazyFormula, outer: str, sizes: tuple[tuple[int, ...], int, int]) -> Any:
    batch, rows, columns = sizes
    outer_size, inner_size = (rows, columns) if outer == "i" else (columns, rows)
    inner = _OTHER_AXIS[outer]

    def moved(leaf: Expression, data: Any, own_batch: int) -> Expression:
        if leaf.axes == outer:
            return _variable(leaf, data, axis="", batch=own_batch + 1)
        if leaf.axes == inner:
            return _variable(leaf, data[..., None, :, :], axis="i", batch=own_batch + 1)
        if leaf.axes:
            pairs = data if outer == "i" else data.swapaxes(-3, -2)
            return _variable(leaf, pairs, axis="i", batch=own_batch + 1)
        return _variable(leaf, data[..., None, :], axis="", batch=own_batch + 1) if own_batch else leaf

    expression = replace_leaves(x._expression, _on_data(x, moved, "dense()"))
    return _entries(expression, (*batch, outer_size), inner_size, x._backend)


def diagonal(x: LazyFormula) -> Any:
    """Compute the entries with i = j: (*batch, min(M, N), D); see `LazyTensor.diagonal`."""
    batch, rows, columns = _sizes(x)
    count = min(rows, columns)

    def moved(leaf: Expression, data: Any, own_batch: int) -> Expression:
        if not leaf.axes:
            return leaf
        along = np.arange(count)
        kept = data[..., along, along, :] if leaf.axes == "ij" else data[..., :count, :]
        return _variable(leaf, kept, axis="i", batch=own_batch)

    expression = replace_leaves(x._expression, _on_data(x, moved, "diagonal()"))
    return _entries(expression, batch, count, x._backend)


def _entries(expression: Expression, batch: tuple[int, ...], rows: int, backend: str | None) -> Any:
    """Compute a formula that does not vary with j, by sums of one term."""
    if "j" in expression.axes:
        raise AssertionError("a formula still varies with j")
    return reduce_or_postpone(
        (expression,), _ONE_TERM, reduced="j", extents=Extents(batch, rows, None), backend=backend, options={}
    )


def restrict(x: _T, rows: Any, columns: Any) -> _T:
    """Keep some rows and columns; see `LazyTensor.__getitem__`."""
    _, row_count, column_count = _sizes(x)
    keys = {"i": _Key(rows, row_count, "row", "M"), "j": _Key(columns, column_count, "column", "N")}
    if keys["i"].is_whole and keys["j"].is_whole:
        return x

    def taken(leaf: Expression, data: Any, own_batch: int) -> Expression:
        if all(keys[axis].is_whole for axis in leaf.axes):
            return leaf
        if leaf.axes == "ij":
            data = keys["i"].take(data.swapaxes(-3, -2)).swapaxes(-3, -2)
            return _variable(leaf, keys["j"].take(data), axis="ij", batch=own_batch)
        return _variable(leaf, keys[leaf.axes].take(data), axis=leaf.axes, batch=own_batch)

    expression = replace_leaves(x._expression, _on_data(x, taken, "K[rows, columns]"))
    counts = []
    for axis, count in (("i", x._rows), ("j", x._columns)):
        kept = keys[axis].count
        if count is None and kept != 1:
            raise ShapeError(
                at_user_line(f"{kept} elements of axis {axis} were asked for, and the formula does not vary with it")
            )
        counts.append(None if count is None else kept)
    return new(x._formula_class, expression, x._batch, counts[0], counts[1], x._backend)


class _Key:
    """Which elements of an axis to keep: a slice, an integer, or an array of positions or of bools."""

    def __init__(self, key: Any, size: int, element: str, letter: str) -> None:
        self.is_whole = False
        self._slice: slice | None = None
        self._positions: Any = None
        if isinstance(key, slice):
            span = range(*key.indices(size))
            self.count = len(span)
            self.is_whole = span == range(size)
            if span.step > 0:
                self._slice = key
            else:  # torch has no slices that go backwards
                self._positions = np.array(span, dtype=np.int64)
            return
        positions = _positions(key, size, element, letter)
        self.count = len(positions)
        self._positions = positions

    def take(self, data: Any) -> Any:
        """Take these elements of an array of shape (*batch, size, D)."""
        if self.is_whole:
            return data
        if self._slice is not None:
            return data[..., self._slice, :]
        if not is_tensor(data):
            return data[..., self._positions, :]
        return data[..., sys.modules["torch"].as_tensor(self._positions, device=data.device), :]


def _positions(key: Any, size: int, element: str, letter: str) -> Any:
    if isinstance(key, list | tuple | range):
        key = np.array(key, dtype=np.int64 if len(key) == 0 else None)
    if is_tensor(key):
        key = key.detach().cpu().numpy()
    elif is_array(key) and not is_traced(key):
        key = np.asarray(key)
    if not isinstance(key, np.ndarray) or key.ndim == 0:
        key = np.array([read_index(key, f"the index of a {element}")])
    if key.ndim != 1 or key.dtype.kind not in "iub":
        raise DtypeError(
            at_user_line(
                f"a {element} index is an array of shape {key.shape} and dtype {key.dtype}, expected positions or "
                "bools in one dimension, a slice or an integer"
            )
        )
    if key.dtype.kind == "b":
        if len(key) != size:
            raise ShapeError(
                at_user_line(f"a mask of {len(key)} {element}s for {letter} = {size}, expected one bool for each")
            )
        return np.flatnonzero(key)
    outside = (key < -size) | (key >= size)
    if outside.any():
        raise ShapeError(
            at_user_line(
                f"{element} {key[outside][0]} of a formula with {letter} = {size}, expected -{letter} to {letter} - 1"
            )
        )
    return np.where(key < 0, key + size, key).astype(np.int64)


def _sizes(x: LazyFormula) -> tuple[tuple[int, ...], int, int]:
    """The batch, the rows and the columns of a formula; 1 for an axis that it does not have."""
    return x._batch, 1 if x._rows is None else x._rows, 1 if x._columns is None else x._columns


def _on_data(
    x: LazyFormula, moved: Callable[[Expression, Any, int], Expression], what: str
) -> Callable[[Expression], Expression]:
    """From what to do with the data of a leaf of a formula to a map of leaves.

    Data are (*batch, count, D), (*batch, D) without axes, (*batch, M, N, D) for pairs. Indices are an array of theirs.
    """
    made: dict[Any, Expression] = {}
    _, rows, columns = _sizes(x)

    def count(leaf: Expression) -> Expression:
        key = ("index", leaf.axes)
        if key not in made:
            size = rows if leaf.axes == "i" else columns
            check_index(leaf.axes, size, arithmetic_dtype(result_dtype(x._expression.dtype)))
            numbers = np.arange(size, dtype=np.float64)[:, None]
            source = array_source(numbers, what="indices", batch=0, view=leaf.axes, weak=True)
            stored = Expression("var", (), (), leaf.axes, 1, None, source, leaf.position)
            found = moved(stored, numbers, 0)
            made[key] = leaf if found is stored else found
        return made[key]

    def replace(leaf: Expression) -> Expression:
        if leaf.op == "constant":
            return leaf
        if leaf.op == "index":
            return count(leaf)
        assert leaf.op == "var"
        source = leaf.source
        if source.kind == NUMBER:
            return leaf
        if source.kind == SYMBOL:
            raise UnsupportedError(
                at_user_line(f"{what} of a formula with symbolic variables is not implemented: give it arrays")
            )
        # One array that is read twice stays one input of the kernel.
        key = (source.identity, leaf.axes, leaf.attributes, leaf.dim)
        if key not in made:
            if tuple(source.array.shape) != source.shape:
                source.refuse_new_shape()
            made[key] = moved(leaf, _with_axes(leaf), source.batch)
        return made[key]

    return replace


def _with_axes(leaf: Expression) -> Any:
    """Give the array of a variable the shape that `_on_data` says."""
    source = leaf.source
    has_trace = source.imported is not None and is_traced(source.imported.owner)
    array = source.imported.owner if has_trace else source.array
    batch, own = source.shape[: source.batch], source.shape[source.batch :]
    if leaf.axes == "ij":
        data = array.reshape((*batch, *own[:2], leaf.dim))
        return data.swapaxes(-3, -2) if leaf.attributes else data
    rows = (math.prod(own) // leaf.dim,) if leaf.axes else ()
    return array.reshape((*batch, *rows, leaf.dim))


def _variable(leaf: Expression, data: Any, *, axis: str, batch: int) -> Expression:
    imported = leaf.source.imported
    is_view = imported is not None and isinstance(data, np.ndarray)
    read = Imported(data, data, imported.namespace) if is_view else readable(data)
    source = array_source(read, what="an array", batch=batch, view=f"{axis}{batch}", weak=leaf.source.weak)
    return Expression("var", (), (), axis, leaf.dim, leaf.dtype, source, leaf.position)
