"""Operations that see components as matrices and tensors, against the oracle and against NumPy."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pylazy import DtypeError, LazyTensor, Pm, ShapeError, Vi, Vj
from reference import assert_close, evaluate_dense, reduce_dense

M, N = 7, 5
DTYPES = (np.float32, np.float64)


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(3)


def rows(rng, dim, dtype=np.float64, count=M):
    return Vi(rng.standard_normal((count, dim)).astype(dtype))


def columns(rng, dim, dtype=np.float64, count=N):
    return Vj(rng.standard_normal((count, dim)).astype(dtype))


def check_sums(formula, dtype=np.float64):
    """Compare sums over both axes with the oracle, for the shape that the formula has."""
    dense = np.broadcast_to(evaluate_dense(formula), formula._shape)
    for axis, number in (("j", formula.nbatchdims + 1), ("i", formula.nbatchdims)):
        expected = reduce_dense("sum", [dense], axis=axis)
        scale = np.abs(dense).sum(number) + formula.ndim
        assert_close(formula.sum(axis=number), expected, dtype=dtype, columns=dense.shape[number], scale=scale)


# Each is written on a first and a second operand of these inner dimensions.
PRODUCTS = {
    "matvecmult": (6, 3, lambda x, y: x.matvecmult(y)),
    "vecmatmult": (2, 6, lambda x, y: x.vecmatmult(y)),
    "tensorprod": (4, 3, lambda x, y: x.tensorprod(y)),
    "dot as tensordot": (3, 3, lambda x, y: x.keops_tensordot(y, 3, 3, (0,), (0,))),
    "tensordot": (24, 24, lambda x, y: x.keops_tensordot(y, (2, 3, 4), (4, 3, 2), (1, 2), (1, 0))),
    "tensordot without sum": (4, 6, lambda x, y: x.keops_tensordot(y, (2, 2), (2, 3), (), (), (2, 0, 3, 1))),
    "tensordot permuted": (24, 24, lambda x, y: x.keops_tensordot(y, (2, 3, 4), (4, 3, 2), (1,), (1,), (3, 0, 2, 1))),
    "kron": (6, 4, lambda x, y: x.keops_kron(y, (2, 3), (4, 1))),
    "difference_matrix": (3, 4, lambda x, y: x.difference_matrix(y)),
    "weightedsqdist": (3, 3, lambda x, y: x.weightedsqdist(y, np.arange(9.0) - 3)),
    "weightedsqnorm by scalar": (3, 1, lambda x, y: x.weightedsqnorm(y)),
    "weightedsqnorm by diagonal": (3, 3, lambda x, y: x.weightedsqnorm(y)),
    "weightedsqnorm by matrix": (3, 9, lambda x, y: x.weightedsqnorm(y)),
    "seams inside": (2, 3, lambda x, y: x.concat(y).concat(x * y[0]).keops_kron(y.concat(x), (7, 1), (1, 5))),
    "scalar beside a vector": (5, 5, lambda x, y: x.sqdist(y).concat(x).tensorprod(y)),
    "chain": (3, 4, lambda x, y: x.tensorprod((y - x[0]).exp()).matvecmult(y) - x),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_product_matches_oracle(name, dtype, rng):
    first, second, make = PRODUCTS[name]
    check_sums(make(rows(rng, first, dtype), columns(rng, second, dtype)), dtype)
    check_sums(make(columns(rng, first, dtype), rows(rng, second, dtype)), dtype)
    parameter = Pm(rng.standard_normal(second).astype(dtype))
    check_sums(make(rows(rng, first, dtype), parameter), dtype)


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_on_few_rows_matches_oracle(name, rng):
    first, second, make = PRODUCTS[name]
    check_sums(make(rows(rng, first, count=2), columns(rng, second, count=700)))


@pytest.mark.parametrize("name", ["matvecmult", "tensordot permuted", "kron"])
def test_product_in_a_batch_matches_oracle(name, rng):
    first, second, make = PRODUCTS[name]
    x, y = rng.standard_normal((2, 1, M, 1, first)), rng.standard_normal((3, 1, N, second))
    check_sums(make(LazyTensor(x), LazyTensor(y)))


def test_products_follow_numpy(rng):
    x, y = rng.standard_normal((M, 24)), rng.standard_normal((N, 24))
    tensors = [(a.reshape(2, 3, 4), b.reshape(4, 3, 2)) for a in x for b in y]
    lazy = Vi(x).keops_tensordot(Vj(y), (2, 3, 4), (4, 3, 2), (0, 2), (2, 0))
    dense = np.array([np.tensordot(a, b, ((0, 2), (2, 0))).ravel() for a, b in tensors])
    np.testing.assert_allclose(lazy.sum(axis=1), dense.reshape(M, N, -1).sum(1), atol=1e-12)
    lazy = Vi(x).keops_kron(Vj(y), (2, 3, 4), (4, 3, 2))
    dense = np.array([np.kron(a, b).ravel() for a, b in tensors])
    np.testing.assert_allclose(lazy.sum(axis=1), dense.reshape(M, N, -1).sum(1), atol=1e-12)
    # perm says where each axis goes, as pykeops has it; numpy.transpose says where each comes from.
    lazy = Vi(x).keops_tensordot(Vj(y), (2, 3, 4), (4, 3, 2), (1,), (1,), (3, 0, 2, 1))
    dense = np.array([np.tensordot(a, b, (1, 1)).transpose(np.argsort((3, 0, 2, 1))).ravel() for a, b in tensors])
    np.testing.assert_allclose(lazy.sum(axis=1), dense.reshape(M, N, -1).sum(1), atol=1e-12)


def test_matrix_products_follow_numpy(rng):
    a, b, c = rng.standard_normal((M, 6)), rng.standard_normal((N, 3)), rng.standard_normal((N, 2))
    matrices = a.reshape(M, 2, 3)
    np.testing.assert_allclose(Vi(a).matvecmult(Vj(b)).sum(axis=1), (matrices @ b.T).sum(2), atol=1e-12)
    np.testing.assert_allclose(Vj(c).vecmatmult(Vi(a)).sum(axis=1), (c @ matrices).sum(1), atol=1e-12)


@pytest.mark.parametrize(("n", "p"), [(16, 16), (20, 3), (3, 40), (64, 64)])
def test_large_products_are_loops(n, p, rng):
    """Code does not grow with the sizes; the bar is that of the compile time of any formula."""
    matrix, vector = rows(rng, n * p), columns(rng, p)
    formulas = [matrix.matvecmult(vector), vector.vecmatmult(matrix[: p * p] if n >= p else matrix[:p])]
    formulas += [rows(rng, n).tensorprod(vector)]
    for formula in formulas:
        text = formula.sum(axis=1, call=False)
        start = time.perf_counter()
        lines = text.as_text("llvm").count("\n")
        assert time.perf_counter() - start < 6.0, "ten times the bar: this machine may be busy"
        assert lines < 20_000
        check_sums(formula)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 4, 40])
def test_one_hot_matches_oracle(size, dtype, rng):
    check_sums((rows(rng, 1, dtype) * (size / 2) + columns(rng, 1, dtype)).one_hot(size), dtype)


def test_one_hot_out_of_range_is_the_zero_vector():
    found = Vi(np.array([[-1.0], [-0.4], [1.6], [2.4], [3.0], [np.nan], [1e30]])).one_hot(3).sum(axis=1)
    rest = [[0, 0, 0]] * 3
    np.testing.assert_array_equal(found, [[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], *rest])


def test_sum_of_components_and_its_transpose(rng):
    x = rng.standard_normal((M, 1))
    np.testing.assert_array_equal(Vi(x).sumT(4).sum(axis=1), np.repeat(x, 4, axis=1))
    assert Vi(x).sumT(4).sum(-1).shape == (M, 1)


def de_boor(knots, x, degree):
    """B-splines by their definition, one at a time."""

    def spline(k, p):
        if p == 0:
            return float(knots[k] <= x < knots[k + 1])
        total = 0.0
        if knots[k + p] > knots[k]:
            total += (x - knots[k]) / (knots[k + p] - knots[k]) * spline(k, p - 1)
        if knots[k + p + 1] > knots[k + 1]:
            total += (knots[k + p + 1] - x) / (knots[k + p + 1] - knots[k + 1]) * spline(k + 1, p - 1)
        return total

    return [spline(k, degree) for k in range(len(knots) - degree - 1)]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("knots", [[0.0, 0.2, 0.5, 0.6, 0.9, 1.0], [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0]])
def test_splines_are_exact_in_float64(knots, degree, rng):
    x = np.concatenate([rng.uniform(-0.2, 1.2, 20), knots])
    found = Pm(knots).bspline(Vi(x[:, None]), degree).sum(axis=1)
    np.testing.assert_allclose(found, [de_boor(knots, value, degree) for value in x], rtol=1e-13, atol=1e-15)


def test_splines_have_gradients(rng):
    torch = pytest.importorskip("torch")
    knots = torch.tensor([0.0, 0.0, 0.0, 0.4, 0.7, 1.0, 1.0, 1.0], dtype=torch.float64)
    x = torch.tensor(rng.uniform(0.05, 0.95, (6, 1)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Pm(knots).bspline(Vi(x), 2).sum(axis=1), x)


@pytest.mark.parametrize("name", ["matvecmult", "tensordot permuted", "kron", "weightedsqnorm by matrix", "chain"])
def test_products_have_gradients(name, rng):
    torch = pytest.importorskip("torch")
    first, second, make = PRODUCTS[name]
    x = torch.tensor(rng.uniform(0.1, 1, (3, first)), requires_grad=True)
    y = torch.tensor(rng.uniform(0.1, 1, (2, second)), requires_grad=True)
    for axis in (0, 1):
        assert torch.autograd.gradcheck(lambda x, y, axis=axis: make(Vi(x), Vj(y)).sum(axis=axis), (x, y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x.matvecmult([1.0] * 4), "a matrix of 6 components and a vector of 4, expected a multiple of 4"),
        (lambda x: x.keops_tensordot(x, (2, 2), (2, 3), (), ()), r"6 as a tensor of shape \(2, 2\)"),
        (lambda x: x.keops_tensordot(x, (2, 3), (2, 3), (0,), (1,)), r"axes of sizes \(2,\) and \(3,\)"),
        (lambda x: x.keops_tensordot(x, (2, 3), (2, 3), (2,), (1,)), r"sums over the axes \(2,\)"),
        (lambda x: x.keops_tensordot(x, (2, 3), (2, 3), (0,), (0,), (0, 0)), r"perm is \(0, 0\)"),
        (lambda x: x.keops_tensordot(x, (0, 6), (2, 3), (0,), (0,)), "sizes of at least 1"),
        (lambda x: x.keops_kron(x, (2, 3), (6,)), "expected two of one length"),
        (lambda x: x.one_hot(3), "one_hot makes 3 components of 6"),
        (lambda x: x[0].one_hot(0), "one_hot makes 0 components of 1"),
        (lambda x: x.bspline(1.0, 5), "bspline of degree 5 was given 6 knots"),
        (lambda x: x.bspline([1.0, 2.0]), "x of inner dimension 2"),
        (lambda x: x.weightedsqnorm([1.0, 2.0]), "expected 1, 6 or 36"),
    ],
)
def test_what_does_not_fit_is_refused(make, message, rng):
    with pytest.raises(ShapeError, match=message):
        make(rows(rng, 6))


def test_sizes_are_integers(rng):
    with pytest.raises(DtypeError, match=r"expected an integer"):
        rows(rng, 1).one_hot(2.5)
