"""Linear systems: conjugate gradients and minres, preconditioners, gradients, and what is refused."""

# ruff: noqa: N803, N806  a kernel matrix is called K

from __future__ import annotations

import copy
import pickle
import re
import warnings

import numpy as np
import pytest

from pylazy import (
    AxisError,
    ConvergenceWarning,
    DtypeError,
    FormulaError,
    KernelSolve,
    LazyTensor,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
    Vi,
    Vj,
    identity,
)

N, D, E = 7, 3, 2
ALPHA = 0.1
TOLERANCES = {"float64": 1e-6, "float32": 5e-3}  # condition numbers are up to 3,000, solutions up to 15


def gaussian(x, y=None):
    return (-Vi(x).sqdist(Vj(x if y is None else y))).exp()


def dense_gaussian(x):
    x = np.asarray(x, dtype=np.float64)
    return np.exp(-((x[..., :, None, :] - x[..., None, :, :]) ** 2).sum(-1))


def dense_solution(x, b, alpha=ALPHA):
    return np.linalg.solve(dense_gaussian(x) + alpha * np.eye(x.shape[-2]), np.asarray(b, dtype=np.float64))


def points(n=N, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, D)).astype(dtype), rng.standard_normal((n, E)).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("n", [1, N, 300])
@pytest.mark.parametrize("method", ["cg", "minres"])
def test_solution_matches_dense_solver(method, n, dtype):
    x, b = points(n, dtype)
    found = gaussian(x).solve(b, alpha=ALPHA, eps=1e-8, method=method)
    assert found.dtype == b.dtype
    np.testing.assert_allclose(found, dense_solution(x, b), atol=TOLERANCES[dtype], rtol=0)


def test_solution_of_a_vector_is_a_vector():
    x, b = points()
    found = gaussian(x).solve(b[:, 0], alpha=ALPHA)
    assert found.shape == (N,)
    np.testing.assert_allclose(found, dense_solution(x, b)[:, 0], atol=1e-5)


def test_right_hand_side_may_be_lazy_a_list_or_on_the_other_axis():
    x, b = points()
    expected = gaussian(x).solve(b, alpha=ALPHA)
    for right in (Vi(b), Vj(b), Vi(b) * 1, b.tolist(), LazyTensor(b[:, None, :])):
        np.testing.assert_allclose(gaussian(x).solve(right, alpha=ALPHA), expected, atol=1e-9)


def test_unbound_call_is_the_method():
    x, b = points()
    found = LazyTensor.solve(gaussian(x), Vi(b), alpha=ALPHA)
    np.testing.assert_array_equal(found, gaussian(x).solve(b, alpha=ALPHA))


def test_batch_dimensions_broadcast():
    rng = np.random.default_rng(1)
    x, b = rng.random((2, 1, N, D)), rng.random((3, N, E))
    K = (-LazyTensor(x[..., :, None, :]).sqdist(LazyTensor(x[..., None, :, :]))).exp()
    found = K.solve(b, alpha=ALPHA, eps=1e-10)
    expected = np.linalg.solve(dense_gaussian(x) + ALPHA * np.eye(N), np.broadcast_to(b, (2, 3, N, E)))
    assert found.shape == (2, 3, N, E)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_kernel_of_several_components_is_a_system_for_each():
    x, b = points()
    scales = np.array([1.0, 2.0])
    K = (-Vi(x).sqdist(Vj(x)) * scales).exp()
    found = K.solve(b, alpha=ALPHA, eps=1e-10, preconditioner="jacobi")
    for k, scale in enumerate(scales):
        matrix = dense_gaussian(x) ** scale + ALPHA * np.eye(N)
        np.testing.assert_allclose(found[:, k], np.linalg.solve(matrix, b[:, k]), atol=1e-8)


def test_residual_of_every_column_meets_eps():
    x, b = points(300)
    b[:, 0] *= 1e-9  # converged from the start, and left alone
    for method in ("cg", "minres"):
        a = gaussian(x).solve(b, alpha=ALPHA, eps=1e-7, method=method)
        rest = dense_gaussian(x) @ a + ALPHA * a - b
        assert np.all(np.sqrt((rest**2).mean(0)) <= 1.01e-7)
        assert not a[:, 0].any()


def test_minres_solves_an_indefinite_system():
    x, b = points(40)
    found = gaussian(x).solve(b, alpha=-0.5, method="minres", eps=1e-10)
    np.testing.assert_allclose(found, dense_solution(x, b, -0.5), atol=1e-7)


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize(
    "preconditioner", ["jacobi", "nystrom", lambda r: r * np.linspace(0.5, 1, r.shape[-2])[:, None]]
)
def test_preconditioned_solution_is_the_same(preconditioner, method):
    x, b = points(60)
    found = gaussian(x).solve(b, alpha=ALPHA, eps=1e-10, preconditioner=preconditioner, method=method, rank=20)
    np.testing.assert_allclose(found, dense_solution(x, b), atol=1e-8)


def iterations_needed(K, b, **options):
    for most in (2, 4, 8, 16, 32, 64, 128, 256):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                K.solve(b, max_iterations=most, **options)
            except ConvergenceWarning:
                continue
            return most
    raise AssertionError("no convergence")


def test_nystrom_spares_iterations():
    x, b = points(300)
    K = gaussian(x)
    plain = iterations_needed(K, b, alpha=1e-3)
    assert iterations_needed(K, b, alpha=1e-3, preconditioner="nystrom") * 4 <= plain


def test_jacobi_spares_iterations_where_the_diagonal_varies():
    x, b = points(60)
    weights = np.linspace(0.1, 10.0, 60)[:, None]
    K = gaussian(30 * x) * Vi(weights) * Vj(weights)
    options = {"alpha": 0.0, "eps": 1e-8}
    assert iterations_needed(K, b, preconditioner="jacobi", **options) < iterations_needed(K, b, **options)


def test_preconditioners_take_batches():
    x = np.random.default_rng(1).random((2, 40, D))
    b = np.random.default_rng(2).random((2, 40, E))
    K = (-LazyTensor(x[:, :, None]).sqdist(LazyTensor(x[:, None]))).exp()
    expected = np.linalg.solve(dense_gaussian(x) + ALPHA * np.eye(40), b)
    for preconditioner in ("jacobi", "nystrom"):
        found = K.solve(b, alpha=ALPHA, eps=1e-10, preconditioner=preconditioner, rank=10)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_preconditioner_has_a_fixed_seed():
    x, b = points(60)
    first, second = (gaussian(x).solve(b, alpha=ALPHA, preconditioner="nystrom", rank=5) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_zero_right_hand_side_gives_zero(method):
    x, b = points()
    np.testing.assert_array_equal(gaussian(x).solve(0 * b, method=method, eps=0.0), 0 * b)


def test_no_rows_give_no_rows():
    assert gaussian(np.ones((0, D))).solve(np.ones((0, E))).shape == (0, E)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_singular_system_ends_with_a_warning_that_has_the_residual(method):
    _, b = points()
    ones = Vi(np.ones((N, 1))) * Vj(np.ones((N, 1)))
    b[:, 0] = 1.0
    with pytest.warns(ConvergenceWarning, match="stopped after") as caught:
        found = ones.solve(b, alpha=0.0, method=method)
    warning = caught[0].message
    assert warning.residual > 0.1
    assert 0 < warning.iterations <= 100
    assert caught[0].filename == __file__
    np.testing.assert_allclose(found[:, 0], 1 / N)


def test_iterations_are_limited():
    x, b = points(300)
    with pytest.warns(ConvergenceWarning, match="cg stopped after 3 iterations") as caught:
        gaussian(x).solve(b, max_iterations=3)
    assert caught[0].message.iterations == 3


def test_cg_on_an_indefinite_system_that_fails_says_so():
    K = Vi(np.array([[1.0], [0.0]])) * Vj(np.array([[0.0], [1.0]]))
    K = K + K.T
    with pytest.warns(ConvergenceWarning, match="use method='minres'"):
        K.solve(np.array([1.0, 0.0]), alpha=0.0)
    np.testing.assert_allclose(K.solve(np.array([1.0, 0.0]), alpha=0.0, method="minres"), [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_right_hand_side_that_is_not_finite_is_refused(value):
    x, b = points()
    b[3, 1] = value
    with pytest.raises(NonFiniteError, match=rf"b is {value} at index \(3, 1\)"):
        gaussian(x).solve(b)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_kernel_that_is_not_finite_is_refused(method):
    x, b = points()
    x[4, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"operator gives in iteration 1 .* nan at row 0, column 0"):
        gaussian(x).solve(b, method=method)


def test_preconditioner_that_is_not_finite_is_refused():
    x, b = points()
    with pytest.raises(NonFiniteError, match="what the preconditioner gives"):
        gaussian(x).solve(b, preconditioner=lambda r: r * np.nan)


def test_large_and_small_numbers_of_float32_do_not_overflow():
    x, b = points(dtype="float32")
    for scale in (1e25, 1e-25):
        found = gaussian(x).solve(b * np.float32(scale), alpha=ALPHA, eps=1e-6 * scale)
        np.testing.assert_allclose(found / scale, dense_solution(x, b), atol=1e-3)


REFUSALS = {
    "b of another size": (lambda K, b: K.solve(b[:5]), ShapeError, "b has 5 rows in its shape (5, 2), and K has 7"),
    "b of no kind": (lambda K, b: K.solve("b"), DtypeError, "b is str, expected an array"),
    "b of complex numbers": (
        lambda K, b: K.solve(np.ones((N, 1), dtype=np.complex64)),
        DtypeError,
        "b has dtype complex64",
    ),
    "b without an axis": (lambda K, b: K.solve(LazyTensor([1.0])), AxisError, "b varies with the axes"),
    "b that varies with both": (lambda K, b: K.solve(K), AxisError, "b varies with the axes 'ij'"),
    "not square": (lambda K, b: K[:5, :].solve(b), ShapeError, "K has 5 rows and 7"),
    "method": (lambda K, b: K.solve(b, method="lu"), UnsupportedError, "expected one of 'cg', 'minres'"),
    "preconditioner": (lambda K, b: K.solve(b, preconditioner="ilu"), UnsupportedError, "'jacobi', 'nystrom'"),
    "rank": (lambda K, b: K.solve(b, preconditioner="nystrom", rank=0), ShapeError, "rank is 0, expected at least 1"),
    "eps": (lambda K, b: K.solve(b, eps=-1.0), ShapeError, "eps is -1.0, expected a finite number of at least 0"),
    "alpha": (lambda K, b: K.solve(b, alpha=np.inf), ShapeError, "alpha is inf, expected a finite number"),
    "alpha of text": (lambda K, b: K.solve(b, alpha="x"), DtypeError, "alpha is str, expected a number"),
    "max_iterations": (lambda K, b: K.solve(b, max_iterations=-1), ShapeError, "max_iterations is -1"),
    "out": (lambda K, b: K.solve(b, out=b), UnsupportedError, "out is given to solve"),
    "unknown option": (lambda K, b: K.solve(b, tolerance=1), TypeError, "no argument 'tolerance'"),
    "var with data": (lambda K, b: K.solve(b, var=Vj(b)), DtypeError, "var is no symbolic variable"),
    "var of the wrong axis": (
        lambda K, b: (K * Vi(0, E)).solve(b, var=Vi(0, E)),
        AxisError,
        "varies with the axes 'i'",
    ),
    "var of another dim": (lambda K, b: (K * Vj(0, 3)).solve(b, var=Vj(0, 3)), ShapeError, "3 components and b has 2"),
    "var elsewhere": (lambda K, b: K.solve(b, var=Vj(0, E)), ShapeError, "which the formula does not have"),
    "components": (lambda K, b: (K * [1.0, 2.0, 3.0]).solve(b[:, :1]), ShapeError, "vectors of 1 components to 3"),
    "shape of a preconditioner": (
        lambda K, b: K.solve(b, preconditioner=lambda r: r[0]),
        ShapeError,
        "the preconditioner gave shape (2,)",
    ),
    "dtype of a preconditioner": (
        lambda K, b: K.solve(b, preconditioner=lambda r: r.astype(np.float32)),
        UnsupportedError,
        "the preconditioner gave ndarray of float32",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_what_was_found_and_ends_at_the_users_line(name):
    call, error, message = REFUSALS[name]
    x, b = points()
    with pytest.raises(error, match=re.escape(message)) as caught:
        call(gaussian(x), b)
    assert str(caught.value).splitlines()[-1].startswith(f"  at {__file__}")


def test_formula_that_is_linear_in_a_variable_is_solved_for_it():
    x, b = points()
    v = Vj(0, E)
    product = gaussian(x) * v + 0 * Vi(x).sum(-1)
    found = product.solve(b, var=v, alpha=ALPHA, eps=1e-10)
    np.testing.assert_allclose(found, dense_solution(x, b), atol=1e-8)


def test_system_is_solved_when_it_is_called():
    x, b = points()
    system = gaussian(x).solve(Vi(b), call=False, alpha=ALPHA, eps=1e-10)
    b *= 2  # data is read at the call
    np.testing.assert_allclose(system(), dense_solution(x, b), atol=1e-8)
    assert "reduction.exp" in system.as_text("formula")
    assert "cg, alpha=0.1" in repr(system)


def test_symbolic_system_is_called_with_its_data():
    x, b = points()
    K = (-Vi(0, D).sqdist(Vj(1, D))).exp()
    system = K.solve(Vi(2, E), alpha=ALPHA, eps=1e-10)
    np.testing.assert_allclose(system(x, x, b), dense_solution(x, b), atol=1e-8)
    v = Vj(2, E)
    system = (K * v).solve(Vi(2, E), var=v, alpha=ALPHA, eps=1e-10)
    np.testing.assert_allclose(system(x, x, b), dense_solution(x, b), atol=1e-8)
    system = K.solve(b, alpha=ALPHA, eps=1e-10)
    np.testing.assert_allclose(system(x, x), dense_solution(x, b), atol=1e-8)
    with pytest.raises(UnsupportedError, match="needs the entries of a K whose data is stored"):
        K.solve(b, preconditioner="jacobi")(x, x)
    with pytest.raises(ShapeError, match="5 rows and 7 columns, expected a square one"):
        K.solve(Vi(2, E))(x[:5], x, b)
    with pytest.raises(TypeError, match="called with 2 arrays, expected 3"):
        K.solve(Vi(2, E))(x, b)


def test_kernel_solve_sums_over_ranges():
    x, b = points(6)
    solve = KernelSolve("Exp(-SqDist(x, y)) * a", ["x = Vi(3)", "y = Vj(3)", "a = Vj(2)"], "a", axis=1)
    blocks = np.array([[0, 2], [2, 6]])
    found = solve(x, x, b, alpha=ALPHA, ranges=(blocks, np.array([1, 2]), blocks) * 2)
    expected = np.concatenate([dense_solution(x[first:last], b[first:last]) for first, last in blocks])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kernel_solve_matches_dense_solver():
    x, b = points()
    made = KernelSolve("Exp(-SqDist(x, y)) * a", ["x = Vi(3)", "y = Vj(3)", "a = Vj(2)"], "a", axis=1)
    for solver in (made, pickle.loads(pickle.dumps(made)), copy.copy(made)):
        np.testing.assert_allclose(solver(x, x, b, alpha=ALPHA, eps=1e-10), dense_solution(x, b), atol=1e-8)
    np.testing.assert_allclose(made(x, x, b, alpha=ALPHA, method="minres"), dense_solution(x, b), atol=1e-4)
    other = KernelSolve("Exp(-SqDist(x, y)) * Var(2, 2, 0)", ["x = Vi(3)", "y = Vj(3)"], "Var(2, 2, 0)", axis=0)
    np.testing.assert_allclose(other(x, x, b, alpha=ALPHA, eps=1e-10), dense_solution(x, b), atol=1e-8)
    assert repr(made).startswith("KernelSolve('Exp(-SqDist(x, y)) * a'")
    with pytest.raises(FormulaError, match="no variable is called 'c', expected one of x = Vi"):
        KernelSolve("Exp(-SqDist(x, y)) * a", ["x = Vi(3)", "y = Vj(3)", "a = Vj(2)"], "c", axis=1)
    with pytest.raises(AxisError, match="expected a variable of i, which is summed over"):
        KernelSolve("Exp(-SqDist(x, y)) * a", ["x = Vi(3)", "y = Vj(3)", "a = Vj(2)"], "a", axis=0)


torch = pytest.importorskip("torch")


def tensors(n=N):
    x, b = points(n)
    alpha = torch.tensor(ALPHA, dtype=torch.float64)
    return tuple(tensor.requires_grad_() for tensor in (torch.tensor(x), torch.tensor(b), alpha))


@pytest.mark.parametrize(
    "options", [{}, {"method": "minres"}, {"preconditioner": "jacobi"}, {"preconditioner": "nystrom"}]
)
def test_gradients_match_finite_differences(options):
    assert torch.autograd.gradcheck(
        lambda x, b, alpha: gaussian(x).solve(b, alpha=alpha, eps=1e-13, **options), tensors()
    )


def test_gradients_match_dense_torch_where_shapes_broadcast():
    x, b, alpha = tensors()
    b = b.detach()[None].repeat(3, 1, 1).requires_grad_()
    found = gaussian(x).solve(b, alpha=alpha, eps=1e-13)
    matrix = (-((x[:, None] - x[None]) ** 2).sum(-1)).exp() + alpha * torch.eye(N, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, b)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    for gradient, reference in zip(
        torch.autograd.grad(found.square().sum(), (x, b, alpha)),
        torch.autograd.grad(expected.square().sum(), (x, b, alpha)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-6, atol=1e-6)


def test_second_derivatives_in_the_right_hand_side_and_alpha_match_finite_differences():
    x, b, alpha = tensors()
    K = gaussian(x.detach())
    assert torch.autograd.gradgradcheck(lambda b, alpha: K.solve(b, alpha=alpha, eps=1e-13), (b, alpha))


def test_gradients_of_kernel_solve_match_those_of_solve():
    x, b, _ = tensors()
    made = KernelSolve("Exp(-SqDist(x, y)) * a", ["x = Vi(3)", "y = Vj(3)", "a = Vj(2)"], "a", axis=1)
    found = torch.autograd.grad(made(x, x, b, alpha=ALPHA, eps=1e-12).sum(), (x, b))
    expected = torch.autograd.grad(gaussian(x).solve(b, alpha=ALPHA, eps=1e-12).sum(), (x, b))
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-7, atol=1e-7)


def test_alpha_alone_may_require_a_gradient():
    x, b = points()
    alpha = torch.tensor(ALPHA, dtype=torch.float64, requires_grad=True)
    K = gaussian(x)
    for solve in (lambda a: K.solve(b, alpha=a, eps=1e-13), lambda a: (K @ K + a * identity()).solve(b, eps=1e-13)):
        assert torch.autograd.gradcheck(solve, (alpha,), atol=1e-5)


def test_tensors_without_gradients_give_a_tensor():
    x, b = points(dtype="float32")
    found = gaussian(torch.tensor(x)).solve(b, alpha=ALPHA)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    np.testing.assert_allclose(found, dense_solution(x, b), atol=1e-3)
    with torch.no_grad():
        found = gaussian(torch.tensor(x, requires_grad=True)).solve(torch.tensor(b), alpha=ALPHA)
    assert not found.requires_grad


# Transformations of torch.func --------------------------------------------------------------------------------------


def lazy_solutions():
    """Three ways to write the sum of the squared solution of (K(x) + a) z = b."""
    solver = KernelSolve("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], "b", axis=1)

    def kernel(x):
        return (-Vi(x).sqdist(Vj(x))).exp()

    return {
        "solve": lambda x, b, a: (kernel(x).solve(b, alpha=a, eps=1e-13) ** 2).sum(),
        "operator": lambda x, b, a: ((kernel(x) + a * identity() + 0 * kernel(x)).solve(b, eps=1e-13) ** 2).sum(),
        "KernelSolve": lambda x, b, a: (solver(x, x, b, alpha=a, eps=1e-13) ** 2).sum(),
    }


def dense_square(x, b, a):
    matrix = torch.exp(-((x[:, None, :] - x[None]) ** 2).sum(-1)) + a * torch.eye(len(x), dtype=x.dtype)
    return (torch.linalg.solve(matrix, b) ** 2).sum()


def nested_gradient(f):
    return lambda x, b, a: torch.func.grad(lambda x: torch.func.grad(f)(x, b, a).square().sum())(x)


TRANSFORMS = {
    "grad": lambda f: torch.func.grad(f, (0, 1, 2)),
    "grad of grad": nested_gradient,
    "jvp": lambda f: lambda x, b, a: torch.func.jvp(f, (x, b, a), (x, 2 * b, a)),
    "hessian": lambda f: torch.func.hessian(f, (0, 2)),
    "vmap": lambda f: (
        lambda x, b, a: torch.vmap(f, (0, 1, None))(torch.stack([x, 2 * x]), torch.stack([b, 3 * b], 1), a)
    ),
    "vmap of vmap": lambda f: (
        lambda x, b, a: torch.vmap(torch.vmap(f, (0, None, None)), (None, 0, None))(
            torch.stack([x, 2 * x]), torch.stack([b, 3 * b, b]), a
        )
    ),
    "vmap of grad": lambda f: (
        lambda x, b, a: torch.vmap(torch.func.grad(f, (0, 2)), (0, None, None))(torch.stack([x, 2 * x]), b, a)
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", lazy_solutions())
def test_transformations_match_those_of_dense_torch(name, transform):
    random = torch.Generator().manual_seed(0)
    x, b = (torch.rand(shape, generator=random, dtype=torch.float64) for shape in ((6, 3), (6, 2)))
    a = torch.tensor(0.5, dtype=torch.float64)
    found = TRANSFORMS[transform](lazy_solutions()[name])(x, b, a)
    torch.testing.assert_close(found, TRANSFORMS[transform](dense_square)(x, b, a), rtol=1e-6, atol=1e-8)


def test_solutions_pass_gradcheck_in_both_modes():
    x, b = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 2), (4, 1)))

    def f(x, b):
        return (-Vi(x).sqdist(Vj(x))).exp().solve(b, alpha=0.5, eps=1e-13)

    assert torch.autograd.gradcheck(f, (x, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (x, b))


def test_named_preconditioners_are_refused_in_transformations():
    x = torch.rand(4, 2, dtype=torch.float64)
    with pytest.raises(UnsupportedError, match="the preconditioner 'jacobi' is not there in transformations"):
        torch.func.grad(lambda x: (-Vi(x).sqdist(Vj(x))).exp().solve(x, preconditioner="jacobi", alpha=1).sum())(x)
