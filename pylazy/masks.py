"""Masks of pairs: formulas that are 1 on the pairs to keep and 0 elsewhere, all of them bands along the diagonal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pylazy.expression import at_user_line
from pylazy.pair_variables import column_index, row_index
from pylazy.runtime.errors import ShapeError

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


def _band(lowest: float | None, highest: float) -> LazyTensor:
    """1 where lowest <= j - i <= highest, else 0; no lowest is no bound."""
    offset = column_index() - row_index()
    if lowest is None:
        return offset <= int(highest)
    if lowest == -highest and math.isfinite(highest):
        return abs(offset) <= highest
    return (offset >= lowest).logical_and(offset <= highest)
