"""Masks of pairs: formulas that are 1 on the pairs to keep and 0 elsewhere, all of them bands along the diagonal.

A mask decides pair by pair. Its ranges say of which blocks it keeps anything, so that a reduction leaves out the rest:
`(K * causal()).sum(axis=1, ranges=causal_ranges(M, N))`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.block_sparse.cluster_pairs import from_pairs
from pylazy.lazy_formula import read_index
from pylazy.pair_variables import column_index, row_index
from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from pylazy.lazy_tensor import LazyTensor


def causal() -> LazyTensor:
    """1 where j <= i, else 0: each row sees itself and what is before it.

    Multiply with it, or choose: `causal().where(K, -math.inf).logsumexp(axis=1)`. A row without any pair to keep then
    gives -inf, with a gradient of 0.
    """
    return _band(None, 0)


def band(width: float) -> LazyTensor:
    """1 where |i - j| <= width, else 0.

    Args:
        width: the largest distance from the diagonal; another one compiles nothing.

    Raises:
        ShapeError: the width is negative or NaN.
    """
    width = float(width)
    if not width >= 0:
        raise ShapeError(at_user_line(f"the width of a band is {width}, expected 0 or more"))
    return _band(-width, width)


def diagonal() -> LazyTensor:
    """1 where i == j, else 0."""
    return row_index() == column_index()


def causal_ranges(rows: int, columns: int, *, block: int = 256) -> tuple[Any, ...]:
    """The `ranges` of the blocks that `causal()` keeps pairs of.

    Args:
        rows: M.
        columns: N.
        block: rows and columns of a block; smaller ones leave out more, and cost more each.

    Returns:
        Six int64 arrays, see `pylazy.block_sparse.ranges`. Ranges keep whole blocks: the mask belongs into the formula
        as well.

    Raises:
        ShapeError: a size is negative, or the block is empty.
    """
    return _band_ranges(-math.inf, 0, rows, columns, block)


def band_ranges(width: float, rows: int, columns: int, *, block: int = 256) -> tuple[Any, ...]:
    """The `ranges` of the blocks that `band(width)` keeps pairs of; see `causal_ranges`."""
    width = float(width)
    if not width >= 0:
        raise ShapeError(at_user_line(f"the width of a band is {width}, expected 0 or more"))
    return _band_ranges(-width, width, rows, columns, block)


def diagonal_ranges(rows: int, columns: int, *, block: int = 256) -> tuple[Any, ...]:
    """The `ranges` of the blocks that `diagonal()` keeps pairs of; see `causal_ranges`."""
    return _band_ranges(0, 0, rows, columns, block)


def _band_ranges(lowest: float, highest: float, rows: int, columns: int, block: int) -> tuple[Any, ...]:
    """Keep the pairs of blocks in which some j - i lies between two bounds."""
    for name, size, least in (("rows", rows, 0), ("columns", columns, 0), ("block", block, 1)):
        if read_index(size, name) < least:
            raise ShapeError(at_user_line(f"{name} is {size}, expected at least {least}"))
    ranges_i, ranges_j = (_blocks(count, block) for count in (rows, columns))
    if not len(ranges_i) or not len(ranges_j):
        return from_pairs(ranges_i, ranges_j, np.zeros(0, np.int64), np.zeros(0, np.int64))
    # The columns of a block of rows: from its first row on, up to its last.
    first = np.maximum(ranges_i[:, 0] + lowest, 0) // block
    last = np.clip(np.floor(ranges_i[:, 1] - 1 + highest), -1, columns - 1) // block
    kept = np.maximum(last - first + 1, 0).astype(np.int64)
    row_blocks = np.repeat(np.arange(len(ranges_i)), kept)
    place = np.arange(len(row_blocks)) - np.repeat(np.cumsum(kept) - kept, kept)
    return from_pairs(ranges_i, ranges_j, row_blocks, np.repeat(first.astype(np.int64), kept) + place)


def _blocks(count: int, block: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    first = np.arange(0, count, block, dtype=np.int64)
    return np.stack([first, np.minimum(first + block, count)], axis=1)


def _band(lowest: float | None, highest: float) -> LazyTensor:
    """1 where lowest <= j - i <= highest, else 0; no lowest is no bound."""
    offset = column_index() - row_index()
    if lowest is None:
        return offset <= int(highest)
    if lowest == -highest and math.isfinite(highest):
        return abs(offset) <= highest
    return (offset >= lowest).logical_and(offset <= highest)
