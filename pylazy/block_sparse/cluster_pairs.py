"""Say which pairs of clusters a reduction is over.

The `ranges` of a reduction are six integer arrays: the clusters of rows (ranges_i), where the list of each ends
(slices_i) in the clusters of columns that it meets (redranges_j), and the same with rows and columns exchanged.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.arrays.array_libraries import is_tensor
from pylazy.arrays.host_arrays import like, to_host, to_matrix
from pylazy.runtime.errors import DtypeError, ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Ranges = tuple[Any, Any, Any, Any, Any, Any]
"""What a reduction takes as `ranges`."""

_BLOCK_PAIRS = 1 << 20  # candidates whose distances are there at once
_CELL_COMPONENTS = 3  # a point then has 27 neighbouring cells at most
_CELL_STRIDES = np.array([1, 0x9E3779B97F4A7C15 - (1 << 64), 0xC2B2AE3D27D4EB4F - (1 << 64)])  # odd, of many bits
_CELL_MARGIN = 1.01  # of the edge of a cell over the distance, against rounding


def from_matrix(ranges_i: Any, ranges_j: Any, keep: Any) -> Ranges:
    """The ranges of a reduction over the pairs of clusters that a matrix keeps.

    Args:
        ranges_i: clusters of rows, (C, 2); see `cluster_ranges`.
        ranges_j: clusters of columns, (E, 2).
        keep: (C, E), not 0 for the pairs to keep: an array, a tensor, or a sparse matrix of SciPy. For very many
            clusters, `from_pairs` needs no matrix.

    Returns:
        (ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i), int64.

    Raises:
        ShapeError: the matrix has another shape, or a range is not one.
    """
    keep = keep if hasattr(keep, "shape") else to_host(keep, "keep")
    expected = (len(ranges_i), len(ranges_j))
    if tuple(keep.shape) != expected:
        raise ShapeError(
            at_user_line(f"keep has shape {tuple(keep.shape)}, expected {expected}, as ranges_i and ranges_j have rows")
        )
    matrix = to_host(keep, "keep") if is_tensor(keep) else keep
    return from_pairs(ranges_i, ranges_j, *matrix.nonzero())


def from_pairs(ranges_i: Any, ranges_j: Any, rows: Any, columns: Any) -> Ranges:
    """The ranges of a reduction over a list of pairs of clusters, without a matrix.

    Args:
        ranges_i: clusters of rows, (C, 2); see `cluster_ranges`.
        ranges_j: clusters of columns, (E, 2).
        rows: the cluster of rows of each pair, (P,), integers.
        columns: the cluster of columns of each pair, (P,). Pairs may come in any order; repeated ones count once.

    Returns:
        As `from_matrix`.

    Raises:
        ShapeError: a pair names no cluster, or a range is not one.
    """
    clusters_i = _checked_ranges(ranges_i, "ranges_i")
    clusters_j = _checked_ranges(ranges_j, "ranges_j")
    pairs = _checked_pairs(rows, columns, len(clusters_i), len(clusters_j))
    half_i = _half(pairs.rows, pairs.columns, len(clusters_i), clusters_j)
    half_j = _half(pairs.columns, pairs.rows, len(clusters_j), clusters_i)
    found = (clusters_i, *half_i, clusters_j, *half_j)
    return tuple([like(ranges_i, array) for array in found])


def pairs_closer_than(centroids_i: Any, centroids_j: Any, distance: float) -> tuple[Any, Any]:
    """The pairs of clusters whose centroids are less than a distance apart, for `from_pairs`.

    The matrix of distances is never there: only points of neighbouring cells of a grid are compared. A centroid that is
    not finite, as that of a cluster without points, is close to none.

    Args:
        centroids_i: (C, D).
        centroids_j: (E, D).
        distance: positive.

    Returns:
        The row and the column of each pair, (P,), int64, in lexicographic order.

    Raises:
        ShapeError: the centroids have different numbers of components.
    """
    rows = to_matrix(centroids_i, "centroids_i", "(C, D)")
    columns = to_matrix(centroids_j, "centroids_j", "(E, D)")
    if rows.shape[1] != columns.shape[1]:
        raise ShapeError(
            at_user_line(f"centroids_i has {rows.shape[1]} components, centroids_j {columns.shape[1]}: expected equal")
        )
    if not distance > 0:
        raise ShapeError(at_user_line(f"distance is {distance}, expected a positive number"))
    found_rows = np.flatnonzero(np.isfinite(rows).all(axis=1))
    found_columns = np.flatnonzero(np.isfinite(columns).all(axis=1))
    blocks = [np.empty((0, 2), dtype=np.int64)]
    if len(found_rows) and len(found_columns):
        blocks += _close_pairs(rows[found_rows], columns[found_columns], float(distance))
    pairs = np.concatenate(blocks)
    number = np.unique(found_rows[pairs[:, 0]] * len(columns) + found_columns[pairs[:, 1]])
    count = max(len(columns), 1)
    return like(centroids_i, number // count), like(centroids_i, number % count)


def swap_axes(ranges: Ranges | None) -> Ranges | None:
    """The ranges of the transposed formula; None for None.

    Raises:
        ShapeError: there are not six arrays.
    """
    if ranges is None:
        return None
    if len(ranges) != 6:
        raise ShapeError(at_user_line(f"ranges has {len(ranges)} arrays, expected 6, as from_matrix gives"))
    return (*ranges[3:], *ranges[:3])


class _Pairs(NamedTuple):
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def _half(
    own: NDArray[np.int64], others: NDArray[np.int64], count: int, clusters: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the list of each of `count` clusters ends, and the clusters that it meets, in their order."""
    order = np.lexsort((others, own))
    return np.cumsum(np.bincount(own, minlength=count)), clusters[others[order]]


def _close_pairs(
    rows: NDArray[np.float64], columns: NDArray[np.float64], distance: float
) -> Iterator[NDArray[np.int64]]:
    """Give the pairs that are less than a distance apart, a block at a time, some of them twice.

    Points are put into cells a little wider than the distance, so that only neighbouring cells hold close points. A
    cell is known by a linear hash of its coordinates: where two cells share one, there are more candidates.
    """
    along = np.argsort(-np.ptp(columns, axis=0))[:_CELL_COMPONENTS]
    origin, edge = columns.min(axis=0)[along], _CELL_MARGIN * distance
    row_cells, column_cells = (_cells(points[:, along] - origin, edge) for points in (rows, columns))
    row_order, column_order = (
        np.argsort(row_cells),
        np.argsort(column_cells),
    )  # sorted keys are found several times faster
    row_cells, column_cells = row_cells[row_order], column_cells[column_order]
    for offset in itertools.product((-1, 0, 1), repeat=len(along)):
        neighbours = row_cells + np.array(offset) @ _CELL_STRIDES[: len(along)]
        begins = np.searchsorted(column_cells, neighbours, side="left")
        ends = np.searchsorted(column_cells, neighbours, side="right")
        for block in _blocks(ends - begins):
            counts = ends[block] - begins[block]
            left = row_order[np.repeat(block, counts)]
            first_pairs = np.cumsum(counts) - counts
            right = column_order[np.arange(len(left)) + np.repeat(begins[block] - first_pairs, counts)]
            is_near = ((rows[left] - columns[right]) ** 2).sum(axis=1) < distance**2
            yield np.stack((left[is_near], right[is_near]), axis=1)


def _cells(points: NDArray[np.float64], edge: float) -> NDArray[np.int64]:
    coordinates = np.clip(np.floor(points / edge), -(2.0**62), 2.0**62).astype(np.int64)
    found: NDArray[np.int64] = (coordinates * _CELL_STRIDES[: points.shape[1]]).sum(axis=1)
    return found


def _blocks(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split the rows that have candidates into blocks with about as many candidates each."""
    occupied = np.flatnonzero(counts)
    numbers = (np.cumsum(counts[occupied]) - 1) // _BLOCK_PAIRS
    return np.split(occupied, np.flatnonzero(np.diff(numbers)) + 1) if len(occupied) else []


def _checked_ranges(ranges: Any, what: str) -> NDArray[np.int64]:
    found = to_host(ranges, what)
    if found.ndim != 2 or found.shape[1] != 2:
        raise ShapeError(at_user_line(f"{what} has shape {found.shape}, expected (clusters, 2)"))
    if found.dtype.kind not in "iu":
        raise DtypeError(at_user_line(f"{what} has dtype {found.dtype}, expected integers"))
    wrong = np.flatnonzero((found[:, 0] < 0) | (found[:, 0] > found[:, 1]))
    if len(wrong):
        place = int(wrong[0])
        raise ShapeError(
            at_user_line(f"{what} holds {found[place].tolist()} in row {place}, expected 0 <= start <= end")
        )
    return found.astype(np.int64, copy=False)


def _checked_pairs(rows: Any, columns: Any, row_count: int, column_count: int) -> _Pairs:
    found = []
    for array, what, count in ((rows, "rows", row_count), (columns, "columns", column_count)):
        indices = to_host(array, what).reshape(-1)
        if indices.dtype.kind not in "iu" and indices.size:
            raise DtypeError(at_user_line(f"{what} has dtype {indices.dtype}, expected integers"))
        if len(indices) and (indices.min() < 0 or indices.max() >= count):
            raise ShapeError(
                at_user_line(f"{what} holds {indices.min()} to {indices.max()}, and there are {count} clusters")
            )
        found.append(indices.astype(np.int64))
    if len(found[0]) != len(found[1]):
        raise ShapeError(at_user_line(f"rows has {len(found[0])} pairs, columns {len(found[1])}: expected equal"))
    number = np.unique(found[0] * max(column_count, 1) + found[1])
    return _Pairs(number // max(column_count, 1), number % max(column_count, 1))
