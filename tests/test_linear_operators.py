"""Sums, multiples and products of kernel matrices and the identity."""

# ruff: noqa: N803, N806  matrices are called K and A

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator as scipy_operator
from scipy.sparse.linalg import cg, eigsh

from pylazy import (
    DtypeError,
    LazyTensor,
    LinearOperator,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
    Vi,
    Vj,
    aslinearoperator,
    identity,
)

torch = pytest.importorskip("torch")

N, D, E = 7, 3, 2
RNG = np.random.default_rng(0)
X, Y, B = RNG.random((N, D)), RNG.random((5, D)), RNG.standard_normal((N, E))
I7 = np.eye(N)


def gaussian(x, y):
    return (-Vi(x).sqdist(Vj(y))).exp()


def dense_gaussian(x, y):
    return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1))


K, L = gaussian(X, X), gaussian(X, Y)
DENSE_K, DENSE_L = dense_gaussian(X, X), dense_gaussian(X, Y)

OPERATORS = {
    "matrix": (lambda: aslinearoperator(L), DENSE_L),
    "shift": (lambda: K + 0.5 * identity(), DENSE_K + 0.5 * I7),
    "shift first": (lambda: identity() / 2 + K, DENSE_K + 0.5 * I7),
    "shift of a size": (lambda: K - identity(N) * np.float32(0.5), DENSE_K - 0.5 * I7),
    "difference": (lambda: identity() - K, I7 - DENSE_K),
    "sum": (lambda: aslinearoperator(K) + 2 * aslinearoperator(K.T) - K, 2 * DENSE_K),
    "negative": (lambda: -(K + identity()), -(DENSE_K + I7)),
    "product": (lambda: L @ L.T, DENSE_L @ DENSE_L.T),
    "product of three": (lambda: K @ L @ L.T, DENSE_K @ DENSE_L @ DENSE_L.T),
    "product with an operator": (lambda: K @ (K + identity()), DENSE_K @ (DENSE_K + I7)),
    "operator with a product": (lambda: (K + identity()) @ L, (DENSE_K + I7) @ DENSE_L),
    "nested": (
        lambda: 0.1 * identity() + 3 * (L @ L.T) - +(K @ K) / 4,
        0.1 * I7 + 3 * DENSE_L @ DENSE_L.T - DENSE_K @ DENSE_K / 4,
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_products_match_dense_matrices(name):
    make, expected = OPERATORS[name]
    A = make()
    assert isinstance(A, LinearOperator)
    assert A.shape == expected.shape
    assert A.dtype == "float64"
    v, w = RNG.random((expected.shape[1], E)), RNG.random((expected.shape[0], E))
    for found, reference in (
        (A @ v, expected @ v),
        (A @ v[:, 0], expected @ v[:, 0]),
        (A.matvec(v[:, 0]), expected @ v[:, 0]),
        (A.matmat(v), expected @ v),
        (A.rmatvec(w[:, 0]), expected.T @ w[:, 0]),
        (A.rmatmat(w), expected.T @ w),
        (A.t() @ w, expected.T @ w),
        (A @ v.tolist(), expected @ v),
        (A.dense(), expected),
    ):
        assert found.shape == reference.shape
        np.testing.assert_allclose(found, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["matrix", "shift", "difference", "sum", "negative"])
def test_diagonal_matches_dense_matrices(name):
    make, expected = OPERATORS[name]
    np.testing.assert_allclose(make().diagonal(), np.diagonal(expected), rtol=1e-12)


def test_diagonal_has_the_dtype_of_its_operator():
    x = RNG.random((N, 3)).astype(np.float32)
    K = (-Vi(x).sqdist(Vj(x))).exp()
    assert (K + 2 * identity()).diagonal().dtype == np.float32
    assert identity(3).diagonal().dtype == np.float64


@pytest.mark.parametrize("factor", [1, 1j])
def test_an_array_gives_an_array_where_the_matrix_holds_tensors(factor):
    x = RNG.random((N, 3))
    K = factor * (-Vi(x).sqdist(Vj(x))).exp()
    of_tensors = factor * (-Vi(torch.from_numpy(x)).sqdist(Vj(torch.from_numpy(x)))).exp()
    v = RNG.random(N)
    for name in ("matvec", "rmatvec"):
        found = getattr(of_tensors, name)(v)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, getattr(K, name)(v), rtol=1e-12)


def test_product_of_three_is_a_product_from_the_right():
    v = RNG.random(N)
    np.testing.assert_array_equal((K @ L @ L.T) @ v, K @ (L @ (L.T @ v)))


def test_lazy_vector_is_multiplied_and_summed_as_before():
    np.testing.assert_allclose(K @ Vj(B), DENSE_K @ B)
    np.testing.assert_allclose(K @ Vi(B), DENSE_K.sum(1)[:, None] * B)


def test_batches_broadcast():
    x = RNG.random((2, 1, N, 1, D))
    K2 = (-LazyTensor(x).sqdist(LazyTensor(x.swapaxes(-3, -2)))).exp()
    A = K2 @ K2 + 0.5 * identity()
    dense = K2.dense()
    expected = dense @ dense + 0.5 * I7
    assert A.shape == (2, 1, N, N)
    b = RNG.random((3, N, E))
    np.testing.assert_allclose(A @ b, expected @ b)
    np.testing.assert_allclose(A.solve(b, eps=1e-10), np.linalg.solve(expected, np.broadcast_to(b, (2, 3, N, E))))


SYSTEMS = {
    "shift": lambda K, a: K + a * identity(),
    "sum": lambda K, a: aslinearoperator(K) + a * aslinearoperator(K) + 0.5 * identity(),
    "product": lambda K, a: K @ K + a * identity(),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("method", ["cg", "minres"])
def test_solution_matches_dense_solver(name, method):
    A = SYSTEMS[name](K, 0.5)
    expected = np.linalg.solve(A.dense(), B)
    np.testing.assert_allclose(A.solve(B, eps=1e-10, method=method), expected, atol=1e-8)
    np.testing.assert_allclose(A.solve(B[:, 0], eps=1e-10, method=method), expected[:, 0], atol=1e-8)
    shifted = np.linalg.solve(A.dense() + 0.25 * I7, B)
    np.testing.assert_allclose(A.solve(Vi(B), eps=1e-10, alpha=0.25, method=method), shifted, atol=1e-8)


def test_preconditioners_of_operators():
    A = SYSTEMS["sum"](K, 0.5)
    expected = np.linalg.solve(A.dense(), B)
    np.testing.assert_allclose(A.solve(B, eps=1e-10, preconditioner="jacobi"), expected, atol=1e-8)
    np.testing.assert_allclose(A.solve(B, eps=1e-10, preconditioner=lambda r: 2 * r), expected, atol=1e-8)
    shifted = K + 0.5 * identity()
    expected = np.linalg.solve(shifted.dense(), B)
    np.testing.assert_allclose(shifted.solve(B, eps=1e-10, preconditioner="nystrom"), expected, atol=1e-8)


@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_of_solutions_match_finite_differences(name):
    x, b, a = (torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (X, B, 0.5))
    assert torch.autograd.gradcheck(
        lambda x, b, a: SYSTEMS[name](gaussian(x, x), a).solve(b, eps=1e-13), (x, b, a), atol=1e-5
    )


def test_products_of_tensors_are_differentiable():
    x, v, a = (torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in (X, B, 0.5))
    assert torch.autograd.gradcheck(lambda x, v, a: (gaussian(x, x) @ gaussian(x, x) + a * identity()) @ v, (x, v, a))


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, lambda x: torch.tensor(x, requires_grad=True)])
def test_scipy_takes_kernel_matrices_and_operators(make):
    x = make(X)
    for matrix, expected in (
        (gaussian(x, x), DENSE_K),
        (gaussian(x, x) + 0.5 * identity(), DENSE_K + 0.5 * I7),
    ):
        A = scipy_operator(matrix)
        np.testing.assert_allclose(A @ B, expected @ B)
        np.testing.assert_allclose(A.rmatvec(B[:, 0]), expected.T @ B[:, 0])
        np.testing.assert_allclose(A.rmatmat(B), expected.T @ B)
        np.testing.assert_allclose(eigsh(A, k=2)[0], np.linalg.eigvalsh(expected)[-2:])
    solution, failed = cg(A, B[:, 0], rtol=1e-12)
    assert not failed
    np.testing.assert_allclose(solution, np.linalg.solve(expected, B[:, 0]), rtol=1e-8)


def test_operator_is_written_as_mathematics():
    assert repr(2 * (K + identity()) @ L - L) == "LinearOperator((2 * (K + I)) @ K - K, shape=(7, 5), float64)"
    assert repr(identity()) == "LinearOperator(I, shape=(n, n), any dtype)"


REFUSALS = {
    "sizes of a sum": (lambda: aslinearoperator(L) + K, ShapeError, "operators with 5 and 7 columns are added"),
    "identity on a rectangle": (lambda: L + identity(), ShapeError, "added to 7 rows and 5 columns, expected a square"),
    "sizes of a product": (lambda: L @ K, ShapeError, "of 5 columns is multiplied with one of 7 rows"),
    "size of a vector": (lambda: (K + identity()) @ B[:5], ShapeError, "A has 7 columns, v has 5 rows"),
    "no vector": (lambda: (K + identity()) @ "v", ShapeError, "v is str, expected an array"),
    "components": (lambda: aslinearoperator(Vi(X) - Vj(X)), ShapeError, "inner dimension 1, found 3"),
    "symbolic": (lambda: aslinearoperator(K * Vi(0, 1)), UnsupportedError, "symbolic variables: give it arrays"),
    "no operator": (lambda: aslinearoperator(X), DtypeError, "ndarray is no linear operator"),
    "no size": (lambda: identity().shape, ShapeError, "an identity has no size"),
    "negative size": (lambda: identity(-1), ShapeError, "n is -1, expected a size of at least 0"),
    "diagonal of a product": ((K @ K).diagonal, UnsupportedError, "the 7 diagonal entries of a product"),
    "system of a rectangle": (lambda: aslinearoperator(L).solve(B), ShapeError, "7 rows and 5 columns"),
    "nystrom of a product": (
        lambda: (K @ K).solve(B, preconditioner="nystrom"),
        UnsupportedError,
        "'nystrom' is there for a kernel matrix",
    ),
    "unknown option": (lambda: (K @ K).solve(B, tolerance=1), TypeError, "no argument 'tolerance'"),
    "NaN": (lambda: (K @ K).solve(B * np.nan), NonFiniteError, "b is nan at index (0, 0)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_what_was_found_and_ends_at_the_users_line(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error, match=re.escape(message)) as caught:
        call()
    assert str(caught.value).splitlines()[-1].startswith(f"  at {__file__}")


def test_what_is_no_operator_is_a_type_error():
    for call in (lambda: identity() + 1, lambda: identity() * K, lambda: identity() - B, lambda: [] @ identity()):
        with pytest.raises(TypeError, match=r"unsupported operand|does not support ufuncs"):
            call()
