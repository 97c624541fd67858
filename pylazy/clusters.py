"""Sort points into clusters, and say where each begins and ends.

Arrays in, arrays out; tensors in, tensors out, on the same device.
"""

# ruff: noqa: N803  these names are pykeops' own, and programs use them

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.array_libraries import is_tensor
from pylazy.arrays.host_arrays import like, to_array, to_host, to_matrix
from pylazy.block_sparse.cluster_pairs import from_matrix, from_pairs, pairs_closer_than, swap_axes
from pylazy.runtime.errors import DtypeError, ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "cluster_centroids",
    "cluster_ranges",
    "cluster_ranges_centroids",
    "from_matrix",
    "from_pairs",
    "grid_cluster",
    "pairs_closer_than",
    "sort_clusters",
    "swap_axes",
]


_PEERS_MIN_WEIGHT = 1e-9  # of tensors in pykeops


def grid_cluster(x: Any, size: Any) -> Any:
    """Label points by the cells of a regular grid.

    Args:
        x: points, (M, D), of any D.
        size: edge of the cells, a number or one for each component.

    Returns:
        Labels (M,) from 0 on without a gap, in the lexicographic order of the cells: int64 for arrays, with cells that
        begin at 0; int32 for tensors, with cells that begin at the smallest coordinates. Both as in pykeops.

    Raises:
        ShapeError: x is no matrix, a coordinate is not finite, or a size is not positive.
    """
    points = to_matrix(x, "x", "(M, D)")
    edges = to_host(size, "size")
    if edges.shape not in ((), (1,), points.shape[1:]):
        raise ShapeError(
            at_user_line(f"size has shape {edges.shape}, expected a number or {points.shape[1]} of them, as x has")
        )
    if not (np.isfinite(edges).all() and (edges > 0).all()):
        raise ShapeError(at_user_line(f"size is {edges}, expected positive numbers"))
    if not np.isfinite(points).all():
        row = int(np.argwhere(~np.isfinite(points))[0, 0])
        raise ShapeError(at_user_line(f"x holds NaN or infinity in row {row}, expected finite coordinates"))
    if is_tensor(x) and len(points):
        points = points - points.min(axis=0)
    labels = _number_rows(np.floor(points / edges))
    return like(x, labels.astype(np.int32) if is_tensor(x) else labels)


def sort_clusters(x: Any, lab: Any) -> tuple[Any, Any]:
    """Sort points by their labels, so that each cluster is contiguous; points of a cluster keep their order.

    Args:
        x: an array of shape (M, ...), or a list or tuple of them.
        lab: labels, (M,).

    Returns:
        What x is, sorted, and the sorted labels (M,).

    Raises:
        ShapeError: an array has another number of rows than labels.
    """
    lab = to_array(lab, "lab")
    order = np.argsort(_labels(lab), kind="stable")

    def sort(array: Any) -> Any:
        if not (isinstance(array, np.ndarray) or is_tensor(array)):
            raise DtypeError(at_user_line(f"x holds {type(array).__name__}, expected arrays"))
        if array.ndim == 0 or array.shape[0] != len(order):
            raise ShapeError(
                at_user_line(f"x has shape {tuple(array.shape)}, expected ({len(order)}, ...), as lab has")
            )
        return array[like(array, order)]

    ordered = type(x)(sort(array) for array in x) if isinstance(x, list | tuple) else sort(x)
    return ordered, lab.reshape(-1)[like(lab, order)]


def cluster_ranges(lab: Any, Nlab: Any = None) -> Any:
    """Where each cluster begins and ends in the sorted points.

    Args:
        lab: labels, (M,), sorted or not.
        Nlab: the number of points of each cluster, (C,), if it is known.

    Returns:
        (C, 2), int64: the first point of each cluster and the one after the last.
    """
    ends = np.cumsum(_counts(lab, Nlab))
    return like(lab, np.stack((np.concatenate(([0], ends))[:-1], ends), axis=1))


def cluster_centroids(
    x: Any,
    lab: Any,
    Nlab: Any = None,
    weights: Any = None,
    weights_c: Any = None,
) -> Any:
    """The weighted mean of the points of each cluster, summed in float64; NaN for a cluster without points.

    Args:
        x: points, (M, D); tensors may be differentiated.
        lab: labels, (M,).
        Nlab: the number of points of each cluster, (C,), if it is known.
        weights: of the points, (M,) or (M, 1); 1 by default.
        weights_c: the sum of the weights of each cluster, (C,) or (C, 1), if it is known.

    Returns:
        (C, D), of the dtype of x.

    Raises:
        ShapeError: the numbers of points differ.
    """
    x = to_array(x, "x")
    if x.ndim != 2:
        raise ShapeError(at_user_line(f"x has shape {tuple(x.shape)}, expected (M, D)"))
    counts = _counts(lab, Nlab)
    labels = _labels(lab)
    _check_rows("x", x.shape[0], labels)
    wide = _wide(x)
    if weights is None:
        totals = like(x, counts.astype(np.float64))
    else:
        column = _wide(_weight_column(weights, x, labels))
        wide = wide * column
        totals = (
            _sum_by_label(column, labels, len(counts))[:, 0]
            if weights_c is None
            else _wide(to_array(weights_c, "weights_c")).reshape(-1)
        )
    sums = _sum_by_label(wide, labels, len(counts))
    with np.errstate(divide="ignore", invalid="ignore"):
        centroids = sums / totals[:, None]
    return centroids.to(x.dtype) if is_tensor(x) else centroids.astype(x.dtype)


def cluster_ranges_centroids(
    x: Any, lab: Any, weights: Any = None, min_weight: float | None = None
) -> tuple[Any, Any, Any]:
    """The ranges, centroids and weights of clusters.

    Args:
        x: points, (M, D).
        lab: labels, (M,).
        weights: of the points, (M,) or (M, 1); 1 by default.
        min_weight: weights below this count as much as it; by default 1e-9 for tensors and none for arrays, as in
            pykeops.

    Returns:
        (C, 2), see `cluster_ranges`; (C, D), see `cluster_centroids`; (C,), the sum of the weights of each cluster.
    """
    x = to_array(x, "x")
    labels = _labels(lab)
    counts = _counts(labels, None)
    ranges = like(x, cluster_ranges(labels, counts))
    if weights is None:
        totals = like(x, counts.astype(np.float32 if is_tensor(x) else np.float64))
        return ranges, cluster_centroids(x, labels, counts), totals
    column = _weight_column(weights, x, labels)
    if min_weight is None and is_tensor(x):
        min_weight = _PEERS_MIN_WEIGHT
    if min_weight is not None:
        column = column.clip(min_weight)
    totals = _sum_by_label(_wide(column), labels, len(counts))[:, 0]
    centroids = cluster_centroids(x, labels, counts, weights=column, weights_c=totals)
    return ranges, centroids, totals.to(column.dtype) if is_tensor(x) else totals


def _number_rows(cells: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number the different rows of a matrix in lexicographic order.

    Column after column, what was found so far and the next column are numbered together: numbers stay below M, so that
    no product overflows, however many cells there are along an axis.
    """
    labels = np.zeros(len(cells), dtype=np.int64)
    for column in cells.T:
        values, places = np.unique(column, return_inverse=True)
        _, labels = np.unique(labels * max(len(values), 1) + places, return_inverse=True)
    return np.asarray(labels, dtype=np.int64)


def _counts(lab: Any, given: Any) -> NDArray[np.int64]:
    labels = _labels(lab)
    if given is None:
        return np.bincount(labels).astype(np.int64, copy=False)
    counts = to_host(given, "Nlab").reshape(-1).astype(np.int64)
    if len(labels) and labels.max() >= len(counts):
        raise ShapeError(at_user_line(f"lab holds {labels.max()}, and Nlab {len(counts)} clusters"))
    return counts


def _labels(lab: Any) -> NDArray[Any]:
    labels = to_host(lab, "lab").reshape(-1)
    if labels.dtype.kind not in "iu":
        raise DtypeError(at_user_line(f"lab has dtype {labels.dtype}, expected integers"))
    if len(labels) and labels.min() < 0:
        raise ShapeError(at_user_line(f"lab holds {labels.min()}, expected labels from 0 on"))
    return labels


def _check_rows(what: str, count: int, labels: NDArray[Any]) -> None:
    if count != len(labels):
        raise ShapeError(at_user_line(f"{what} has {count} rows, and lab {len(labels)}: expected equal numbers"))


def _weight_column(weights: Any, x: Any, labels: NDArray[Any]) -> Any:
    """Read weights as a column, (M, 1)."""
    found = to_array(weights, "weights")
    if is_tensor(found) != is_tensor(x):
        raise DtypeError(
            at_user_line(
                f"weights is {type(found).__name__} and x {type(x).__name__}, expected two arrays or two tensors"
            )
        )
    column = found.reshape(-1, 1)
    _check_rows("weights", column.shape[0], labels)
    return column


def _wide(x: Any) -> Any:
    return x.double() if is_tensor(x) else x.astype(np.float64)


def _sum_by_label(x: Any, labels: NDArray[Any], count: int) -> Any:
    """Sum the rows of a matrix, (M, D), that have one label, (count, D); differentiable for tensors."""
    if is_tensor(x):
        return x.new_zeros((count, x.shape[1])).index_add(0, like(x, labels).long(), x)
    columns = [np.bincount(labels, weights=column, minlength=count) for column in x.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))
