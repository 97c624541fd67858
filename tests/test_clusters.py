"""Clusters and the ranges made of them, against loops over points and pairs."""

import numpy as np
import pytest

from pylazy import Vi, Vj
from pylazy.clusters import (
    cluster_centroids,
    cluster_ranges,
    cluster_ranges_centroids,
    from_matrix,
    from_pairs,
    grid_cluster,
    pairs_closer_than,
    sort_clusters,
    swap_axes,
)
from pylazy.runtime.errors import DtypeError, PylazyError, ShapeError

torch = pytest.importorskip("torch")

KINDS = {"array": np.asarray, "tensor": torch.as_tensor}
POINTS = np.array([[0.0], [5.0], [0.4], [0.3], [2.0]])
LABELS = np.array([0, 2, 0, 0, 1])


def numbers(x):
    return np.asarray(x)


def is_of_kind(kind, *results):
    return all(isinstance(result, np.ndarray if kind == "array" else torch.Tensor) for result in results)


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return request.param


@pytest.fixture
def make(kind):
    return KINDS[kind]


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8])
def test_points_of_one_cell_have_one_label_in_lexicographic_order(kind, make, dim):
    x = np.random.default_rng(0).uniform(-1, 1, (300, dim))
    labels = grid_cluster(make(x), 0.7)
    assert is_of_kind(kind, labels)
    assert str(labels.dtype).endswith("int64" if kind == "array" else "int32")
    origin = 0 if kind == "array" else x.min(axis=0)
    cells = [tuple(cell) for cell in np.floor((x - origin) / 0.7)]
    numbering = {cell: number for number, cell in enumerate(sorted(set(cells)))}
    np.testing.assert_array_equal(numbers(labels), [numbering[cell] for cell in cells])


def test_cells_may_be_more_than_1024_along_an_axis(make):
    x = np.array([[0.5, 5000.5], [1.5, 0.5], [0.5, 0.5], [1.5, 0.25], [1e15, -1e15]])
    np.testing.assert_array_equal(numbers(grid_cluster(make(x), 1.0)), [1, 2, 0, 2, 3])


def test_cells_may_have_another_edge_along_each_axis(make):
    x = np.array([[0.0, 0.0], [0.9, 0.0], [0.0, 0.9]])
    assert len(set(numbers(grid_cluster(make(x), make(np.array([1.0, 0.5])))).tolist())) == 2
    assert len(set(numbers(grid_cluster(make(x), [0.5, 1.0])).tolist())) == 2


def test_no_points_have_no_labels(make):
    assert grid_cluster(make(np.zeros((0, 3))), 1.0).shape == (0,)
    assert cluster_ranges(make(np.zeros(0, dtype=np.int64))).shape == (0, 2)


def test_sorting_keeps_the_order_within_a_cluster(kind, make):
    (x, tags), labels = sort_clusters((make(POINTS), make(np.arange(5))), make(LABELS))
    assert is_of_kind(kind, x, tags, labels)
    np.testing.assert_array_equal(numbers(tags), [0, 2, 3, 4, 1])
    np.testing.assert_array_equal(numbers(x), POINTS[[0, 2, 3, 4, 1]])
    np.testing.assert_array_equal(numbers(labels), [0, 0, 0, 1, 2])
    assert isinstance(sort_clusters([make(POINTS)], make(LABELS))[0], list)


def test_ranges_of_clusters_are_those_of_the_sorted_labels(kind, make):
    labels = np.random.default_rng(0).integers(0, 9, 300)
    ranges = cluster_ranges(make(labels))
    assert is_of_kind(kind, ranges)
    ordered = np.sort(labels)
    for label, (start, end) in enumerate(numbers(ranges)):
        assert (ordered[start:end] == label).all()
        assert end - start == (labels == label).sum()
    np.testing.assert_array_equal(numbers(cluster_ranges(make(labels), make(np.bincount(labels)))), numbers(ranges))


def test_ranges_are_exact_beyond_2_to_the_24(make):
    counts = make(np.array([2**24 + 1, 1]))
    np.testing.assert_array_equal(
        numbers(cluster_ranges(make(np.array([0])), counts)), [[0, 2**24 + 1], [2**24 + 1, 2**24 + 2]]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centroids_are_weighted_means(kind, make, dtype):
    rng = np.random.default_rng(0)
    x, labels, w = rng.random((300, 3)).astype(dtype), rng.integers(0, 7, 300), rng.random(300).astype(dtype)
    ranges, centroids, totals = cluster_ranges_centroids(make(x), make(labels), make(w))
    assert is_of_kind(kind, ranges, centroids, totals)
    assert str(centroids.dtype).endswith(np.dtype(dtype).name)
    expected = np.stack([np.average(x[labels == c].astype(float), axis=0, weights=w[labels == c]) for c in range(7)])
    np.testing.assert_allclose(numbers(centroids), expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(numbers(totals), np.bincount(labels, w), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(
        numbers(cluster_centroids(make(x), make(labels), weights=make(w[:, None]))), numbers(centroids)
    )
    _, means, counts = cluster_ranges_centroids(make(x), make(labels))
    np.testing.assert_array_equal(numbers(counts), np.bincount(labels))
    np.testing.assert_allclose(numbers(means[0]), x[labels == 0].mean(axis=0), rtol=1e-5)


def test_a_cluster_without_points_has_a_centroid_of_nan(make):
    centroids = numbers(cluster_centroids(make(POINTS), make(np.array([0, 2, 0, 0, 2]))))
    np.testing.assert_array_equal(np.isnan(centroids[:, 0]), [False, True, False])


def test_weights_of_tensors_are_at_least_the_smallest_one():
    x, labels, w = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), torch.zeros(2)
    _, centroids, totals = cluster_ranges_centroids(x, labels, w)
    assert centroids.item() == 2.0
    assert totals.item() == pytest.approx(2e-9)
    assert w.sum() == 0, "the weights of the caller are left as they are"


def test_lists_are_arrays():
    ranges, centroids, totals = cluster_ranges_centroids(POINTS.tolist(), LABELS.tolist(), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(ranges, [[0, 3], [3, 4], [4, 5]])
    np.testing.assert_allclose(centroids[:, 0], [2.4 / 8, 2, 5])
    np.testing.assert_array_equal(totals, [8, 5, 2])
    np.testing.assert_array_equal(sort_clusters(POINTS, LABELS.tolist())[1], [0, 0, 0, 1, 2])


def test_centroids_can_be_differentiated():
    x = torch.tensor(POINTS, requires_grad=True)
    cluster_centroids(x, torch.tensor(LABELS)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy()[:, 0], [1 / 3, 1, 1 / 3, 1 / 3, 1])


RANGES_I = np.array([[2, 5], [7, 12]])
RANGES_J = np.array([[1, 4], [4, 9], [20, 30]])
KEEP = np.array([[True, True, False], [False, True, False]])
EXPECTED = (
    RANGES_I,
    [2, 3],
    [[1, 4], [4, 9], [4, 9]],
    RANGES_J,
    [1, 3, 3],
    [[2, 5], [2, 5], [7, 12]],
)


def assert_same_ranges(found, expected):
    assert len(found) == 6
    for one, other in zip(found, expected, strict=True):
        assert str(one.dtype).endswith("int64")
        np.testing.assert_array_equal(numbers(one), numbers(other))


def test_ranges_from_a_matrix_list_the_kept_clusters_of_each(kind, make):
    found = from_matrix(make(RANGES_I), make(RANGES_J), make(KEEP))
    assert is_of_kind(kind, *found)
    assert_same_ranges(found, EXPECTED)


def test_ranges_from_pairs_need_no_order_and_count_a_pair_once(make):
    rows, columns = make(np.array([1, 0, 0, 1])), make(np.array([1, 1, 0, 1]))
    assert_same_ranges(from_pairs(make(RANGES_I), make(RANGES_J), rows, columns), EXPECTED)


def test_ranges_from_lists_are_arrays():
    assert_same_ranges(from_matrix(RANGES_I.tolist(), RANGES_J.tolist(), KEEP.tolist()), EXPECTED)


def test_ranges_from_a_sparse_matrix_of_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    assert_same_ranges(from_matrix(RANGES_I, RANGES_J, sparse.csr_array(KEEP)), EXPECTED)


def test_ranges_from_no_pairs_are_empty(make):
    found = from_matrix(make(RANGES_I), make(RANGES_J), make(np.zeros((2, 3), dtype=bool)))
    assert [tuple(array.shape) for array in found] == [(2, 2), (2,), (0, 2), (3, 2), (3,), (0, 2)]


def test_swapped_ranges_are_those_of_the_transposed_matrix():
    assert_same_ranges(
        swap_axes(from_matrix(RANGES_I, RANGES_J, KEEP)), numbers_of(from_matrix(RANGES_J, RANGES_I, KEEP.T))
    )
    assert swap_axes(None) is None


def numbers_of(ranges):
    return tuple(numbers(array) for array in ranges)


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
@pytest.mark.parametrize("distance", [0.05, 0.4, 30.0])
def test_close_pairs_are_those_of_the_dense_matrix(make, dim, distance):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(71, dim)), rng.normal(size=(300, dim))
    x[3], y[7] = np.nan, np.inf
    rows, columns = pairs_closer_than(make(x), make(y), distance)
    with np.errstate(invalid="ignore"):
        dense = ((x[:, None] - y[None]) ** 2).sum(-1) < distance**2
    np.testing.assert_array_equal(np.stack((numbers(rows), numbers(columns))), np.stack(dense.nonzero()))


def test_many_candidates_are_compared_in_blocks(monkeypatch):
    from pylazy.block_sparse import cluster_pairs

    monkeypatch.setattr(cluster_pairs, "_BLOCK_PAIRS", 7)
    x = np.random.default_rng(0).random((40, 2))
    rows, columns = pairs_closer_than(x, x, 0.3)
    expected = np.stack((((x[:, None] - x[None]) ** 2).sum(-1) < 0.09).nonzero())
    np.testing.assert_array_equal(np.stack((rows, columns)), expected)


def test_no_centroids_are_close_to_none():
    rows, columns = pairs_closer_than(np.zeros((0, 3)), np.zeros((4, 3)), 1.0)
    assert rows.shape == columns.shape == (0,)


@pytest.mark.parametrize("axis", [0, 1])
def test_reduction_over_close_clusters_is_that_of_their_pairs(make, axis):
    rng = np.random.default_rng(0)
    clouds = []
    for count in (300, 71):
        x = make(rng.random((count, 5)))
        labels = grid_cluster(x, 0.6)
        ranges, centroids, _ = cluster_ranges_centroids(x, labels)
        clouds.append((*sort_clusters(x, labels), ranges, centroids))
    (x, lab_x, ranges_x, centroids_x), (y, lab_y, ranges_y, centroids_y) = clouds
    rows, columns = pairs_closer_than(centroids_x, centroids_y, 0.7)
    keep = np.zeros((len(centroids_x), len(centroids_y)), dtype=bool)
    keep[numbers(rows), numbers(columns)] = True
    assert keep.any()
    assert not keep.all()
    pairs = keep[numbers(lab_x)][:, numbers(lab_y)]
    squares = ((numbers(x)[:, None] - numbers(y)[None]) ** 2).sum(-1)
    expected = np.where(pairs, np.exp(-squares), 0).sum(axis)
    found = (-Vi(x).sqdist(Vj(y))).exp().sum(axis=axis, ranges=from_pairs(ranges_x, ranges_y, rows, columns))
    np.testing.assert_allclose(numbers(found)[:, 0], expected, rtol=1e-13)


MISTAKES = {
    "x has shape (5,)": lambda: grid_cluster(np.zeros(5), 1.0),
    "size has shape (3,)": lambda: grid_cluster(np.zeros((5, 2)), np.ones(3)),
    "size is 0.0": lambda: grid_cluster(np.zeros((5, 2)), 0.0),
    "x holds NaN or infinity in row 1": lambda: grid_cluster(np.array([[0.0], [np.nan]]), 1.0),
    "lab has dtype float64": lambda: cluster_ranges(np.zeros(3)),
    "lab holds -1": lambda: cluster_ranges(np.array([0, -1])),
    "lab holds 2, and Nlab 2 clusters": lambda: cluster_ranges(LABELS, np.array([1, 2])),
    "x has shape (3, 1), expected (5, ...)": lambda: sort_clusters(POINTS[:3], LABELS),
    "x holds str": lambda: sort_clusters(["x"], LABELS),
    "x has 3 rows, and lab 5": lambda: cluster_centroids(POINTS[:3], LABELS),
    "weights has 2 rows, and lab 5": lambda: cluster_ranges_centroids(POINTS, LABELS, np.ones(2)),
    "weights is ndarray and x Tensor": lambda: cluster_centroids(torch.tensor(POINTS), LABELS, weights=np.ones(5)),
    "lab is a list": lambda: cluster_ranges([[0], [1, 2]]),
    "x is None": lambda: grid_cluster(None, 1.0),
    "keep has shape (3, 2), expected (2, 3)": lambda: from_matrix(RANGES_I, RANGES_J, KEEP.T),
    "ranges_i has shape (4,)": lambda: from_pairs(RANGES_I.ravel(), RANGES_J, [0], [0]),
    "ranges_i holds [5, 2] in row 0": lambda: from_pairs(RANGES_I[:, ::-1], RANGES_J, [0], [0]),
    "columns holds 0 to 3, and there are 3 clusters": lambda: from_pairs(RANGES_I, RANGES_J, [0, 0], [0, 3]),
    "rows has 2 pairs, columns 1": lambda: from_pairs(RANGES_I, RANGES_J, [0, 0], [0]),
    "rows has dtype float64": lambda: from_pairs(RANGES_I, RANGES_J, [0.0], [0]),
    "centroids_i has 1 components, centroids_j 2": lambda: pairs_closer_than(POINTS, np.zeros((2, 2)), 1.0),
    "distance is -1": lambda: pairs_closer_than(POINTS, POINTS, -1),
    "ranges has 3 arrays": lambda: swap_axes((1, 2, 3)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_named(message):
    with pytest.raises((ShapeError, DtypeError)) as caught:
        MISTAKES[message]()
    assert isinstance(caught.value, PylazyError)
    assert message in str(caught.value)
    assert __file__ in str(caught.value), "the message ends at the user's line"
