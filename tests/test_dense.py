"""Entries of a formula as arrays: all, the diagonal, and those of some rows and columns."""

# ruff: noqa: N803, N806  a kernel matrix is called K

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from pylazy import AxisError, DtypeError, LazyTensor, Pm, ShapeError, UnsupportedError, Vi, Vj
from reference import assert_close, evaluate_dense

D, E = 3, 2


def points(m, n, dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.random((m, D)).astype(dtype), rng.random((n, D)).astype(dtype)


def gaussian(x, y):
    return (-Vi(x).sqdist(Vj(y)) * 1.5).exp()


def differences(x, y):
    return (Vi(x) - Vj(y)) * [1.0, 2.0, 3.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 7), (1, 1), (300, 3), (3, 300), (0, 5), (5, 0), (0, 0)])
def test_dense_matches_the_oracle(m, n, dtype):
    x, y = points(m, n, dtype)
    K = gaussian(x, y)
    found = K.dense()
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    assert_close(found, evaluate_dense(K)[..., 0], dtype=dtype)
    vectors = differences(x, y)
    assert_close(vectors.dense(), evaluate_dense(vectors), dtype=dtype)


def test_dense_of_batches_broadcasts():
    rng = np.random.default_rng(1)
    x, y = LazyTensor(rng.random((2, 1, 5, 1, D))), LazyTensor(rng.random((4, 1, 7, D)))
    p = LazyTensor(rng.random((2, 1, 1, 1, 1)))
    f = ((x - y) * p).sin()
    expected = np.broadcast_to(evaluate_dense(f), (2, 4, 5, 7, D))
    assert_close(f.dense(), expected, dtype="float64")
    assert_close(f.T.dense(), expected.swapaxes(-3, -2), dtype="float64")
    assert_close(f.diagonal(), np.einsum("...iid->...id", expected[..., :5, :5, :]), dtype="float64")


def test_axis_that_a_formula_does_not_vary_with_has_size_1():
    x, _ = points(7, 5)
    np.testing.assert_array_equal(Vi(x).dense(), x[:, None])
    np.testing.assert_array_equal(Vj(x).dense(), x[None])
    np.testing.assert_array_equal(Pm([1.0, 2.0]).dense(), [[[1.0, 2.0]]])
    np.testing.assert_array_equal((LazyTensor(2) * 3.0).dense(), [[6.0]])
    np.testing.assert_array_equal(Vi(x).diagonal(), x[:1])


def test_special_values_are_kept():
    x = np.array([[np.nan], [np.inf], [-np.inf], [0.0]])
    np.testing.assert_array_equal((Vi(x) * Vj(np.ones((2, 1)))).dense(), x * np.ones(2))


@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 7), (300, 300)])
def test_diagonal_matches_the_oracle(m, n):
    x, y = points(m, n)
    for f in (gaussian(x, y), differences(x, y)):
        dense = np.broadcast_to(evaluate_dense(f), (m, n, f.ndim))
        assert_close(f.diagonal(), np.einsum("iid->id", dense[: min(m, n), : min(m, n)]), dtype="float64")


def test_diagonal_touches_no_other_entries():
    x = np.ones((10**6, 1), dtype=np.float32)  # a million million entries
    np.testing.assert_array_equal((Vi(x) + 2 * Vj(x)).diagonal(), 3 * x)


def test_data_is_read_when_entries_are_asked_for():
    x, y = points(7, 5)
    K = gaussian(x, y)
    x += 1
    assert_close(K.dense(), evaluate_dense(K)[..., 0], dtype="float64")


def test_dense_is_no_slower_than_array_code():
    x, y = points(2000, 2000, "float32")
    K = gaussian(x, y)
    K.dense()
    begun = time.perf_counter()
    K.dense()
    lazily = time.perf_counter() - begun
    begun = time.perf_counter()
    np.exp(-1.5 * ((x[:, None] - y[None]) ** 2).sum(-1))
    assert lazily < time.perf_counter() - begun


KEYS = {
    "slices": (slice(1, 4), slice(None, None, 2)),
    "a step back": (slice(None, None, -1), slice(4, 1, -2)),
    "integers": (2, -1),
    "NumPy integers": (np.int64(2), np.int32(-1)),
    "positions": (np.array([3, 3, -7]), [0, 1]),
    "bools": (np.arange(7) % 2 == 0, slice(None)),
    "nothing": (slice(0, 0), []),
    "everything": (slice(None), slice(None)),
    "ranges": (range(2, 6), range(0)),
}


def taken(dense, rows, columns):
    """Index rows, then columns; an integer keeps its axis."""
    rows, columns = (
        key if isinstance(key, slice) else np.array(np.ravel(key), dtype=None if np.size(key) else int)
        for key in (rows, columns)
    )
    return dense[rows][:, columns]


@pytest.mark.parametrize("name", KEYS)
def test_rows_and_columns_are_taken_as_numpy_does(name):
    rows, columns = KEYS[name]
    x, y = points(7, 5)
    for f in (gaussian(x, y), differences(x, y)):
        expected = taken(np.broadcast_to(evaluate_dense(f), (7, 5, f.ndim)), rows, columns)
        found = f[rows, columns]
        assert isinstance(found, LazyTensor)
        assert found._shape == expected.shape
        dense = found.dense()
        assert_close(dense if f.ndim > 1 else dense[..., None], expected, dtype="float64")
    assert f[rows, columns, 1]._shape == (*expected.shape[:2], 1)
    assert f[..., rows, columns, 0:2]._shape == (*expected.shape[:2], 2)


def test_restricted_formula_reduces_over_what_is_left():
    x, y = points(7, 5)
    K = gaussian(x, y)
    dense = evaluate_dense(K)[..., 0]
    assert_close(K[2:, [0, 4]].sum(axis=1)[:, 0], dense[2:][:, [0, 4]].sum(1), dtype="float64")
    v = np.ones(2)
    assert_close(K[2:, [0, 4]] @ v, dense[2:][:, [0, 4]] @ v, dtype="float64")


def test_batch_dimensions_are_taken_whole():
    rng = np.random.default_rng(1)
    f = LazyTensor(rng.random((2, 5, 1, D))) * LazyTensor(rng.random((1, 7, D)))
    expected = evaluate_dense(f)[:, 1:3][:, :, [0, 6]]
    assert_close(f[:, 1:3, [0, 6]].dense(), expected, dtype="float64")
    assert_close(f[..., 1:3, [0, 6], :].dense(), expected, dtype="float64")
    assert_close(f[..., 1].dense(), evaluate_dense(f)[..., 1], dtype="float64")
    assert_close(f[:, :, :, 1].dense(), evaluate_dense(f)[..., 1], dtype="float64")


REFUSALS = {
    "batch": (lambda K, f: f[0, :, :], AxisError, "this LazyTensor of 4 axes was indexed with 0, :, :"),
    "too few": (lambda K, f: f[1, 1], AxisError, "expected x[k], x[a:b] or x[..., k] for components, or :, rows"),
    "too many": (lambda K, f: K[1, 1, 0, 0], AxisError, "indexed with 1, 1, 0, 0"),
    "row out of range": (lambda K, f: K[7, :], ShapeError, "row 7 of a formula with M = 7, expected -M to M - 1"),
    "column out of range": (lambda K, f: K[:, [0, -6]], ShapeError, "column -6 of a formula with N = 5"),
    "mask": (lambda K, f: K[np.ones(5, dtype=bool), :], ShapeError, "a mask of 5 rows for M = 7"),
    "floats": (lambda K, f: K[np.ones(5), :], DtypeError, "shape (5,) and dtype float64, expected positions"),
    "matrix": (lambda K, f: K[:, np.ones((2, 2), dtype=int)], DtypeError, "a column index is an array of shape (2, 2)"),
    "text": (lambda K, f: K["a", :], DtypeError, "the index of a row is 'a' of type str, expected an integer"),
    "no axis": (lambda K, f: Vi(np.ones((3, 1)))[:, [0, 0]], ShapeError, "2 elements of axis j were asked for"),
    "symbolic dense": (lambda K, f: (K * Vi(0, 1)).dense(), UnsupportedError, "dense() of a formula with symbolic"),
    "symbolic diagonal": (lambda K, f: (K * Vi(0, 1)).diagonal(), UnsupportedError, "diagonal() of a formula with"),
    "symbolic index": (lambda K, f: (K * Vi(0, 1))[1, 1], UnsupportedError, "K[rows, columns] of a formula with"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_what_was_found_and_ends_at_the_users_line(name):
    call, error, message = REFUSALS[name]
    x, y = points(7, 5)
    batched = LazyTensor(np.ones((2, 5, 1, D))) * LazyTensor(np.ones((1, 7, D)))
    with pytest.raises(error, match=re.escape(message)) as caught:
        call(gaussian(x, y), batched)
    assert str(caught.value).splitlines()[-1].startswith(f"  at {__file__}")


def test_array_that_changed_its_shape_is_refused():
    x, y = points(6, 5)
    K = gaussian(x, y)
    x.shape = (3, 6)
    for entries in (K.dense, K.diagonal, lambda: K[1, 1]):
        with pytest.raises(ShapeError, match=r"the array of shape \(6, 3\) in this formula now has shape \(3, 6\)"):
            entries()


torch = pytest.importorskip("torch")


def test_entries_of_tensors_are_differentiable():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand((n, D), dtype=torch.float64, generator=generator, requires_grad=True) for n in (6, 4))
    p = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 3, 3])

    def lazily(x, y, p):
        K = (-Vi(x).sqdist(Vj(y)) * p).exp()
        return K.dense(), K.T.dense(), K.diagonal(), K[rows, 1:].dense(), (Vi(x) - Vj(y)).dense()

    def densely(x, y, p):
        difference = x[:, None] - y[None]
        K = (-(difference**2).sum(-1) * p).exp()
        return K, K.T, K.diagonal()[:, None], K[rows, 1:], difference

    for found, expected in zip(lazily(x, y, p), densely(x, y, p), strict=True):
        torch.testing.assert_close(found, expected)
        cotangent = torch.rand(expected.shape, dtype=torch.float64, generator=generator)
        gradients = torch.autograd.grad(found, (x, y, p), cotangent, allow_unused=True, retain_graph=True)
        references = torch.autograd.grad(expected, (x, y, p), cotangent, allow_unused=True, retain_graph=True)
        for gradient, reference in zip(gradients, references, strict=True):
            if reference is not None:
                torch.testing.assert_close(gradient, reference)
