"""Derivatives of functions of NumPy arrays that take derivatives, reduce several times, and compute in between."""

import gc

import numpy as np
import pytest

import pylazy
from pylazy import Genred, KernelSolve, Pm, Vi, Vij, Vj

X, Y, B = (np.random.default_rng(seed).random(shape) for seed, shape in enumerate(((7, 3), (5, 3), (5, 2))))


def gaussian(x, y):
    return (-Vi(x).sqdist(Vj(y))).exp()


def kernel_matrix(x, y):
    return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1))


BLOCKS = tuple(
    np.array(part) for part in ([[0, 2], [2, 7]], [1, 2], [[0, 3], [3, 5]], [[0, 3], [3, 5]], [1, 2], [[0, 2], [2, 7]])
)
FUNCTIONS = {
    "sum": lambda x, y, b: (gaussian(x, y) * Vj(b)).sum(axis=1).sum(),
    "mean": lambda x, y, b: np.sin((gaussian(x, y) * Vj(b)).mean(axis=0)).sum(),
    "prod": lambda x, y, b: np.exp((gaussian(x, y) + Vj(b)).prod(axis=1)).sum(),
    "logsumexp": lambda x, y, b: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1, weight=Vj(b)).mean(),
    "softmax": lambda x, y, b: ((-Vi(x).sqdist(Vj(y))).sumsoftmaxweight(Vj(b), axis=1) ** 2).mean(),
    "min": lambda x, y, b: (Vi(x).sqdist(Vj(y)).min(axis=1) ** 1.5).sum() * b.sum(),
    "max": lambda x, y, b: ((Vi(x) * Vj(y) * Pm(b[0, 0])).max(axis=0, keepdim=True) ** 3).sum(),
    "min_argmin": lambda x, y, b: ((Vi(x) * Vj(y)).min_argmin(axis=1)[0] ** 2).sum() * b.sum(),
    "max_argmax": lambda x, y, b: ((Vi(x) * Vj(y)).max_argmax(axis=0)[0] ** 2).sum() * b.sum(),
    "Kmin": lambda x, y, b: ((Vi(x).sqdist(Vj(y)).Kmin(2, axis=1) + 1) ** 1.5).sum() * b.sum(),
    "KMax": lambda x, y, b: ((Vi(x) - Vj(y)).KMax_argKmax(3, axis=0)[0] ** 3).sum() * b.sum(),
    "var": lambda x, y, b: np.exp((Vi(x).sqdist(Vj(y)) * Vj(b)).var(axis=1)).sum(),
    "std": lambda x, y, b: (Vi(x).sqdist(Vj(y)) * Vj(b)).std(axis=0, ddof=1).sum(),
    "dense": lambda x, y, b: (gaussian(x, y).dense() @ b).sum() + (gaussian(x, y)[[0, 6], 1:] @ b[1:]).sum(),
    "diagonal": lambda x, y, b: np.log(gaussian(x[:5], y).diagonal()).sum() * b.sum(),
    "pairs": lambda x, y, b: ((Vij(x @ y.T) * Vj(b)).exp().sum(axis=1) ** 2).sum(),
    "solve": lambda x, y, b: (gaussian(y, y).solve(b, alpha=0.5 + x.sum(), eps=1e-12) ** 2).sum(),
    "operator": lambda x, y, b: (
        (gaussian(y, y) + b.sum() * pylazy.identity()).solve(b * x.sum(), eps=1e-12) ** 3
    ).sum(),
    "preconditioner": lambda x, y, b: (
        (gaussian(y, y) + 0.5 * pylazy.identity() + gaussian(y + x[0], y + x[0]))
        .solve(b, eps=1e-12, preconditioner="jacobi")
        .sum()
    ),
    "KernelSolve": lambda x, y, b: (SOLVER(y, y, b, alpha=x.mean(), eps=1e-12) ** 2).sum(),
    "genred": lambda x, y, b: np.sqrt(GENRED(x, y, b)).sum(),
    "evaluate": lambda x, y, b: np.multiply(
        *pylazy.evaluate(*((gaussian(x, y) * weight).sum(axis=1, call=False) for weight in (Vj(b), Vj(b.sum(0) - b))))
    ).sum(),
    "two reductions": lambda x, y, b: (
        (gaussian(x, y) @ b) * np.tanh(gaussian(2 * x, y - y.mean(0)) @ b[:, ::-1])
    ).sum(),
    "a result in a formula": lambda x, y, b: (
        gaussian(gaussian(x, y) @ np.concatenate([y, b[:, :1]], 1), np.hstack([y, b[:, :1]])) @ b
    ).sum(),
    "ranges": lambda x, y, b: (
        ((gaussian(x, y) * Vj(b)).sum(axis=1, ranges=BLOCKS) ** 2).sum()
        + (Vi(x).sqdist(Vj(y)).min(axis=1, ranges=BLOCKS) ** 2).sum()
    ),
    "a gradient": lambda x, y, b: (pylazy.grad(lambda x: (gaussian(x, y) @ b).sum())(x) ** 2).sum(),
    "a value and a gradient": lambda x, y, b: sum(
        (part**2).sum()
        for part in pylazy.value_and_grad(lambda y: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1, weight=Vj(b)).sum())(y)
    ),
    "a tangent": lambda x, y, b: (pylazy.jvp(lambda y: gaussian(x, y) @ b, (y,), (y * b.sum(),))[1] ** 2).sum(),
}
NESTED = {"a gradient", "a value and a gradient", "a tangent"}
IN_EVERY_MODE = {"mean", "min", "solve"}
GENRED = Genred("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], axis=1)
SOLVER = KernelSolve("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], "b", axis=1)
ALL = (0, 1, 2)


def inner(first, second):
    return sum((one * other).sum() for one, other in zip(first, second, strict=True))


def moved(step, along):
    return [array + step * tangent for array, tangent in zip((X, Y, B), along, strict=True)]


def slope(f, along, step=1e-5):
    return (f(*moved(step, along)) - f(*moved(-step, along))) / (2 * step)


def directions():
    random = np.random.default_rng(3)
    return [[random.standard_normal(array.shape) for array in (X, Y, B)] for _ in range(2)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_and_second_derivatives_match_finite_differences(name):
    f = FUNCTIONS[name]
    first, second = directions()
    along_first = pylazy.grad(f, ALL)
    expected = slope(f, second)
    np.testing.assert_allclose(inner(along_first(X, Y, B), second), expected, rtol=1e-5, atol=1e-6)
    value, tangent = pylazy.jvp(f, (X, Y, B), second)
    np.testing.assert_allclose((value, tangent), (f(X, Y, B), expected), rtol=1e-5, atol=1e-6)
    if name in NESTED:
        return  # its first derivative is a second one

    def derivative(*args):
        return inner(along_first(*args), first)

    curvature = slope(derivative, second)
    found = [inner(pylazy.grad(derivative, ALL)(X, Y, B), second), pylazy.jvp(derivative, (X, Y, B), second)[1]]
    if name in IN_EVERY_MODE:
        found += [
            inner(pylazy.grad(lambda *args: pylazy.jvp(f, args, first)[1], ALL)(X, Y, B), second),
            pylazy.jvp(lambda *args: pylazy.jvp(f, args, first)[1], (X, Y, B), second)[1],
        ]
    np.testing.assert_allclose(found, [curvature] * len(found), rtol=1e-4, atol=1e-5)


def test_third_derivative_matches_finite_differences():
    f = FUNCTIONS["mean"]
    first, second = directions()

    def derivative(*args):
        return inner(pylazy.grad(f, ALL)(*args), first)

    def curvature(*args):
        return inner(pylazy.grad(derivative, ALL)(*args), second)

    found = inner(pylazy.grad(curvature, ALL)(X, Y, B), first)
    np.testing.assert_allclose(found, slope(curvature, first), rtol=1e-6)


# Functions of NumPy ---------------------------------------------------------------------------------------------------

MATRIX = np.random.default_rng(1).uniform(0.1, 0.9, (3, 4))
OTHER = np.random.default_rng(2).uniform(0.1, 0.9, (4, 3))
NUMPY = {
    "add": lambda x: 2 + x + x[0],
    "subtract": lambda x: 1 - x - x[:, :1],
    "divide": lambda x: x / x[::-1] / 3 + 1 / x,
    "power": lambda x: x**3 + x ** x[0] + 2.0**x + x**0 + np.float_power(x, 1.5),
    "remainder": lambda x: (x * 3) % 1.0 + x % x[:1, ::-1],
    "roots": lambda x: np.sqrt(x) + np.cbrt(x) + np.square(x) + np.reciprocal(x),
    "signs": lambda x: abs(x - 0.5) + np.fabs(0.3 - x) + np.sign(x) * x + (+x) - (-x),
    "exponentials": lambda x: np.exp(x) + np.exp2(x) + np.expm1(x),
    "logarithms": lambda x: np.log(x) + np.log2(x) + np.log10(x) + np.log1p(x),
    "angles": lambda x: np.sin(x) + np.cos(x) + np.tan(x) + np.arcsin(x) + np.arccos(x) + np.arctan(x),
    "hyperbolic": lambda x: np.sinh(x) + np.cosh(x) + np.tanh(x) + np.arcsinh(x) + np.arccosh(x + 2) + np.arctanh(x),
    "two operands": lambda x: np.arctan2(x, x[0]) + np.hypot(x, x[1]) + np.logaddexp(x, x[2]),
    "extrema": lambda x: np.minimum(x, 0.4) + np.maximum(x, x[0]) + np.clip(x, 0.3, 0.6) + np.clip(x, None, x[1]),
    "where": lambda x: np.where(x > 0.5, x**2, x[0]),
    "sums": lambda x: x.sum(0) * x.sum(axis=-1, keepdims=True) + np.sum(x) + np.cumsum(x, 1) + x.cumsum().sum(),
    "means": lambda x: x.mean(0) * np.mean(x) + x.var(0) + x.std(axis=1, ddof=1, keepdims=True) + np.var(x),
    "selections": lambda x: x.max(0) ** 2 + x.min() + np.max(x, axis=(0, 1), keepdims=True) * np.sort(x)[:, ::-1],
    "norms": lambda x: np.linalg.norm(x) + np.linalg.norm(x, axis=0) + np.linalg.norm(x, 2, axis=1, keepdims=True),
    "shapes": lambda x: x.reshape(2, -1).T.ravel()[:, None] * np.expand_dims(x, 2).squeeze().flatten(),
    "axes": lambda x: np.moveaxis(x[None], 0, -1).transpose(1, 2, 0)[:, 0] + x.swapaxes(0, 1) ** 2,
    "repeats": lambda x: np.broadcast_to(x, (2, 3, 4)) * np.tile(x, (2, 1)).reshape(2, 3, 4) + np.repeat(x, 2, 0)[:3],
    "joins": lambda x: np.concatenate([x, np.ones((1, 4)), x**2]) + np.vstack([x, x, x])[:7],
    "stacks": lambda x: (
        np.stack([x, 2 * x], 1)[:, 0] * np.hstack([x[:, :1], x[:, 1:]]) + np.column_stack([x[:, 0]] * 4)
    ),
    "turns": lambda x: np.flip(x) * np.roll(x, 1, axis=1) + np.flip(x, 0)[:, ::2].repeat(2).reshape(3, 4),
    "indices": lambda x: (
        x[[0, 0, 2], 1:] * x[1, 2] + x[x > 0.2].sum() + np.take(x, [1, 1], 1)[..., :1] + x[..., None][:, 1]
    ),
    "along": lambda x: (
        np.take_along_axis(x, np.argsort(x, 1), 1) + x.diagonal().sum() + np.trace(x, 1) + np.diff(x)[:, :1]
    ),
    "matrix products": lambda x: (x @ OTHER) @ x + np.dot(OTHER.T, x[0])[:, None] + x[0] @ x[1] + x @ x[0][:, None],
    "stacks of matrices": lambda x: np.matmul(np.stack([x, x**2]), OTHER) @ x[None, :, :2] + (OTHER @ x).mean(),
    "products": lambda x: (
        np.einsum("ij,jk,kl", x, OTHER, x) * np.einsum("ij->j", x) + np.tensordot(x, x, ([0, 1], [0, 1]))
    ),
    "vectors": lambda x: np.outer(x[0], x[1])[:3] + np.inner(x, x[2])[:, None] + np.vdot(x, OTHER) + np.dot(x, 2.0),
    "constants": lambda x: (
        x * np.zeros_like(x) + np.ones_like(x) * np.full_like(x, 2) * x.size * np.shape(x)[0] + x.astype("i8")
    ),
}


@pytest.mark.parametrize("name", NUMPY)
def test_functions_of_numpy_have_two_derivatives_in_both_modes(name):
    f = NUMPY[name]
    random = np.random.default_rng(5)
    first, second = random.standard_normal((2, *MATRIX.shape))
    weights = random.random(f(MATRIX).shape)

    def total(x):
        return (weights * f(x)).sum()

    def derivative(x):
        return (pylazy.grad(total)(x) * first).sum()

    for g, step, rtol in ((total, 1e-6, 1e-6), (derivative, 1e-6, 1e-5)):
        expected = (g(MATRIX + step * second) - g(MATRIX - step * second)) / (2 * step)
        np.testing.assert_allclose((pylazy.grad(g)(MATRIX) * second).sum(), expected, rtol=rtol, atol=1e-6)
        np.testing.assert_allclose(pylazy.jvp(g, (MATRIX,), (second,))[1], expected, rtol=rtol, atol=1e-6)


def test_functions_of_numpy_that_are_flat_give_plain_arrays():
    def f(x):
        assert x.shape == (3, 4)
        assert isinstance(np.floor(x) + np.argmax(x) + x.argmin() + (x > 0.5) + np.isnan(x), np.ndarray)
        return x.sum() if (x > 0).all() and np.allclose(x, x) and len(x) == 3 and x.sum() > 0 else 2 * x.sum()

    np.testing.assert_array_equal(pylazy.grad(f)(MATRIX), np.ones_like(MATRIX))


# Programs -------------------------------------------------------------------------------------------------------------


def hamiltonian(q, p):
    return 0.5 * (p * ((-Vi(q).sqdist(Vj(q)) / 0.5).exp() @ p)).sum()


def shoot(q, p, steps=5):
    """Move landmarks by Hamilton's equations, in half steps as Ralston's method takes them."""
    for _ in range(steps):
        of_q, of_p = pylazy.grad(hamiltonian, (0, 1))(q, p)
        middle = (q + 2 / 3 / steps * of_p, p - 2 / 3 / steps * of_q)
        again_q, again_p = pylazy.grad(hamiltonian, (0, 1))(*middle)
        q = q + (0.25 * of_p + 0.75 * again_p) / steps
        p = p - (0.25 * of_q + 0.75 * again_q) / steps
    return q, p


def test_landmarks_are_matched_by_shooting_through_a_gradient_of_gradients():
    random = np.random.default_rng(0)
    q0 = random.standard_normal((15, 2))
    target = shoot(q0, 0.3 * random.standard_normal((15, 2)))[0]

    def loss(p0):
        return ((shoot(q0, p0)[0] - target) ** 2).sum() + 1e-4 * hamiltonian(q0, p0)

    p = np.zeros_like(q0)
    direction = random.standard_normal(p.shape)
    of_p = pylazy.grad(loss)(p)
    expected = (loss(1e-5 * direction) - loss(-1e-5 * direction)) / 2e-5
    np.testing.assert_allclose((of_p * direction).sum(), expected, rtol=1e-6)
    start = value = loss(p)
    for _ in range(40):
        value, of_p = pylazy.value_and_grad(loss)(p)
        p = p - 0.05 * of_p
    assert value < 0.2 * start


def test_newton_steps_by_products_with_the_hessian_find_the_minimum():
    target = np.random.default_rng(8).random((5, 3))

    def loss(y):
        return -(-Vi(target).sqdist(Vj(y)) / 0.8).logsumexp(axis=0).sum() + 0.5 * ((y - 0.4) ** 2).sum()

    y = np.full((4, 3), 0.5) + 0.1 * np.arange(12).reshape(4, 3) / 12
    for _ in range(6):
        slopes = pylazy.grad(loss)(y)
        columns = [pylazy.jvp(pylazy.grad(loss), (y,), (unit.reshape(4, 3),))[1].ravel() for unit in np.eye(12)]
        y = y - np.linalg.solve(np.stack(columns), slopes.ravel()).reshape(4, 3)
    assert np.abs(pylazy.grad(loss)(y)).max() < 1e-12


def test_values_of_several_results_and_their_cotangents_are_tuples():
    def f(x, y):
        smallest, positions = Vi(x).sqdist(Vj(y)).min_argmin(axis=1)
        return smallest, 2 * x, positions

    (smallest, twice, positions), pull_back = pylazy.vjp(f, X, Y)
    squares = ((X[:, None] - Y[None]) ** 2).sum(-1)
    np.testing.assert_allclose(smallest[:, 0], squares.min(1))
    np.testing.assert_array_equal(positions[:, 0], squares.argmin(1))
    of_x, of_y = pull_back((np.ones((7, 1)), np.ones((7, 3)), np.zeros((7, 1))))
    difference = 2 * (X - Y[squares.argmin(1)])
    np.testing.assert_allclose(of_x, difference + 2)
    np.testing.assert_allclose(of_y, [-difference[squares.argmin(1) == j].sum(0) for j in range(5)])
    values, tangents = pylazy.jvp(f, (X, Y), (X, Y))
    np.testing.assert_allclose(tangents[0][:, 0], 2 * squares.min(1))
    assert [value.shape for value in values] == [tangent.shape for tangent in tangents]
    np.testing.assert_array_equal(twice, 2 * X)
    with pytest.raises(pylazy.ShapeError, match="1 cotangents were given, expected 3"):
        pull_back((smallest,))


def test_ties_and_infinities_have_the_derivative_of_the_first_of_them():
    y = np.array([[1.0], [1.0], [np.inf]])
    of_x, of_y = pylazy.grad(lambda x, y: (Vi(x) * Vj(y)).min(axis=1).sum(), (0, 1))(np.ones((2, 1)), y)
    np.testing.assert_array_equal(of_x, [[1.0], [1.0]])
    np.testing.assert_array_equal(of_y, [[2.0], [0.0], [0.0]])


@pytest.mark.parametrize("sizes", [(0, 5), (7, 0), (1, 1), (300, 270)], ids=str)
def test_derivatives_of_selections_and_spreads_of_odd_sizes_match_finite_differences(sizes):
    random = np.random.default_rng(6)
    x, y, v = (random.random((count, 3)) for count in (sizes[0], sizes[1], sizes[0]))

    def f(x):
        found = Vi(x).sqdist(Vj(y))
        best = found.min(axis=1).sum() if sizes[1] else 0.0
        return best + (found + 1).std(axis=0).sum() + (found.Kmin(1, axis=0) ** 2).sum() * bool(sizes[0])

    if not sizes[0]:
        assert pylazy.grad(lambda x: (Vi(x) * Vj(y)).max(axis=1).sum())(x).shape == (0, 3)
        return
    expected = (f(x + 1e-6 * v) - f(x - 1e-6 * v)) / 2e-6
    if sizes == (1, 1):  # the deviation of one number is 0, where its root has no derivative
        return
    np.testing.assert_allclose((pylazy.grad(f)(x) * v).sum(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_derivatives_of_chains_have_the_dtypes_of_the_arguments(dtype):
    f = FUNCTIONS["two reductions"]
    narrow = tuple(array.astype(dtype) for array in (X, Y, B))
    value, gradients = pylazy.value_and_grad(f, ALL)(*narrow)
    expected, wide = pylazy.value_and_grad(f, ALL)(*(array.astype(float) for array in narrow))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=30 * np.finfo(dtype).eps)
    for gradient, other in zip(gradients, wide, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, other, atol=60 * np.finfo(dtype).eps * np.abs(other).max())


def test_derivatives_leave_no_reference_cycles():
    f = FUNCTIONS["a value and a gradient"]
    pylazy.value_and_grad(f, ALL)(X, Y, B)
    pylazy.jvp(f, (X, Y, B), (X, Y, B))
    gc.collect()
    gc.disable()
    try:
        pylazy.value_and_grad(f, ALL)(X, Y, B)
        pylazy.jvp(f, (X, Y, B), (X, Y, B))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_arrays_that_are_kept_after_their_function_are_refused():
    kept = []
    pylazy.grad(lambda x: (kept.append(x * 2), x.sum())[1])(X)
    with pytest.raises(pylazy.UnsupportedError, match="is used after that"):
        kept[0] + 1


def test_a_long_chain_of_results_that_wait_does_not_exhaust_the_stack():
    def f(x):
        total = (Vi(x) * Vj(Y)).sum(axis=1)
        for _ in range(3000):
            total = total * 1.0
        return total.sum()

    np.testing.assert_allclose(pylazy.grad(f)(X), np.broadcast_to(Y.sum(0), X.shape))
