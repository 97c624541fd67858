"""Whether a reduction makes sense for the sizes of its data: enough terms, and numbers that count them exactly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pylazy.execution.programs import Extents
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.canonical_form import Flattened
    from pylazy.execution.wanted_results import Wanted

_MAX_EXTENT = 2**63 - 1
_MAX_INDICES = {"float32": 2**24}  # beyond it, neighbouring indices are one number


def check_indices(flat: Flattened, dtype: str, extents: Extents) -> None:
    """Check that the indices in a formula are exact.

    Raises:
        ShapeError: they are not.
    """
    for axis in flat.indices:
        check_index(axis, (extents.rows if axis == "i" else extents.columns) or 0, dtype)


def check_index(axis: str, extent: int, dtype: str) -> None:
    """Check that the indices of one axis are exact in a dtype.

    Raises:
        ShapeError: they are not.
    """
    limit = _MAX_INDICES.get(dtype, _MAX_EXTENT)
    if extent > limit:
        what = "row" if axis == "i" else "column"
        raise ShapeError(
            at_user_line(
                f"{what}_index of {extent} {what}s in a formula of {dtype}, which counts exactly up to {limit}: "
                "give arrays of float64, or reduce a part at a time"
            )
        )


def complete_extents(wanted: tuple[Wanted, ...], reduced: str, extents: Extents) -> Extents:
    """Count 1 for an axis that no data has, and check that there is enough to reduce.

    Raises:
        ShapeError: see `prepare`.
    """
    batch, rows, columns = extents
    if rows is None or columns is None:
        rows = 1 if rows is None else rows
        columns = 1 if columns is None else columns
        extents = Extents(batch, rows, columns)
    if rows > 1 and columns > 1 and math.prod(batch) * rows * columns > _MAX_EXTENT:
        raise ShapeError(
            at_user_line(
                f"{rows} rows, {columns} columns and a batch of {math.prod(batch)} make more pairs than 64-bit "
                f"integers count, expected at most {_MAX_EXTENT}: reduce a part at a time"
            )
        )
    axis, extent = ("j", columns) if reduced == "j" else ("i", rows)
    for kind, _, k, *_ in wanted:
        if k > extent:
            raise ShapeError(
                at_user_line(f"K is {k}, and axis {axis} has {extent} elements: {kind} needs a K of at most {extent}")
            )
        if not k and not extent and REDUCTIONS[kind].empty is None:
            raise ShapeError(
                at_user_line(
                    f"{kind} over axis {axis}, which is empty: no position exists, expected at least 1 element"
                )
            )
    return extents


def check_terms(wanted: tuple[Wanted, ...], reduced: str, extents: Extents, ranges: Ranges) -> None:
    """Check that ranges fit the sizes of a formula, and leave each row enough to select from.

    Raises:
        ShapeError: they are out of bounds or overlap, or a row has fewer terms than the k best, or no position.
    """
    table = ranges.kept_table(reduced, extents)
    least = max((some.k or int(REDUCTIONS[some.kind].empty is None) for some in wanted), default=0)
    if not least or not len(table.terms):
        return
    terms, row = table.fewest()
    if terms < least:
        kind = wanted[0].kind
        kept = "i" if reduced == "j" else "j"
        raise ShapeError(
            at_user_line(
                f"ranges leave {terms} elements of axis {reduced} to row {row} of axis {kept}: {kind} needs at least "
                f"{least} for every row"
            )
        )
