"""Derivatives of formulas in their variables: against differences, closed forms and torch."""

from __future__ import annotations

import itertools
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from pylazy import DtypeError, Genred, LazyTensor, Pm, ShapeError, UnsupportedError, Vi, Vj
from pylazy.canonical_form import Flattened
from reference import assert_close, evaluate_dense, reduce_dense

M, N = 4, 3
#: Error of a central difference with this step in float64: step**2 from the series, 1e-16 / step from rounding.
STEP = 1e-5
TOLERANCE = 1e-7

# On vectors x and y of 3 components and a parameter p of 1; values are between 0.2 and 0.9.
FORMULAS = {
    "gaussian": lambda x, y, p: (-((x - y) ** 2).sum(-1) / p).exp(),
    "vector": lambda x, y, p: (-x.sqdist(y)).exp() * (x - y) * p,
    "scalar parts": lambda x, y, p: x * (x | y) + p.sin() * y.sum(-1),
    "powers": lambda x, y, p: x**3 + y**-2 + x**y + x**p,
    "roots": lambda x, y, p: x.sqrt() * y.rsqrt() + (x * p).norm2(),
    "normalized": lambda x, y, p: x.normalize() * y + p,
    "selections": lambda x, y, p: (x - y).ifelse(x * p, y**2).maximum(0.3).clamp(0.1, 0.8 * p + y),
    "extremes": lambda x, y, p: x.max(-1) * y + y.min(-1) * x * p,
    "pieces": lambda x, y, p: LazyTensor.cat((x[:2] * y[1:], (x[0] * p).exp())),
    "matrices": lambda x, y, p: x.tensorprod(y).matvecmult(x * p),
    "splines": lambda x, y, p: LazyTensor([0.0, 0.1, 0.1, 0.5, 0.7, 1.0, 1.0]).bspline(x[1] * p, 3) * y,
    "knots": lambda x, y, p: LazyTensor.cat((x[0] - 2, x[0] * p - 1, y[0] * 0.1, y[0] + 1, x[1] + 2)).bspline(x[2], 2),
    "logistic": lambda x, y, p: (x | y).sigmoid() * x.tanh() + (p * y).softplus(),
    "constant": lambda x, y, p: x.step() + y.round() + (p > 0),
    "variable": lambda x, y, p: x,
}


def data(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(0.2, 0.9, size) for size in ((M, 3), (N, 3), (1,))]


def variables(arrays):
    x, y, p = arrays
    return [Vi(x), Vj(y), Pm(p)]


def dense_of(formula, arrays):
    return np.broadcast_to(evaluate_dense(formula(*variables(arrays))), (M, N, formula(*variables(arrays)).ndim))


def jacobian(formula, arrays, number):
    """Central differences of each pair's value in each component of one variable: (M, N, E, D)."""
    columns = []
    for component in range(arrays[number].shape[-1]):
        ends = []
        for step in (STEP, -STEP):
            changed = [array.copy() for array in arrays]
            changed[number][..., component] += step
            ends.append(dense_of(formula, changed))
        columns.append((ends[0] - ends[1]) / (2 * STEP))
    return np.stack(columns, axis=-1)


def check(found, expected):
    assert found.ndim == expected.shape[-1]
    scale = max(1.0, np.abs(expected).max())
    dense = np.broadcast_to(evaluate_dense(found), expected.shape)
    np.testing.assert_allclose(dense, expected, rtol=0, atol=TOLERANCE * scale)


# Against differences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMULAS)
def test_first_derivatives_match_finite_differences(name):
    arrays, formula = data(), FORMULAS[name]
    given = variables(arrays)
    f = formula(*given)
    rng = np.random.default_rng(1)
    for number, v in enumerate(given):
        expected = jacobian(formula, arrays, number)
        e, u = rng.standard_normal((M, f.ndim)), rng.standard_normal((N, v.ndim))
        check(f.grad(v, Vi(e)), np.einsum("ie,ijed->ijd", e, expected))
        check(f.diff(v, Vj(u)), np.einsum("jd,ijed->ije", u, expected))
        check(f.grad_matrix(v), expected.reshape(M, N, -1))
        if v.ndim == f.ndim:
            check(f.divergence(v), np.einsum("ijdd->ij", expected)[..., None])


@pytest.mark.parametrize("name", FORMULAS)
def test_second_derivatives_match_finite_differences(name):
    arrays = data()
    given = variables(arrays)
    f = FORMULAS[name](*given).sum(-1)
    for number, v in enumerate(given):

        def gradient(*some, number=number):
            return FORMULAS[name](*some).sum(-1).grad(some[number])

        check(f.laplacian(v), np.einsum("ijdd->ij", jacobian(gradient, arrays, number))[..., None])
        for other, w in enumerate(given):
            expected = jacobian(gradient, arrays, other)
            check(f.grad(v).grad_matrix(w), expected.reshape(M, N, -1))
            check(f.diff(v, 2).diff(w, 1), 2 * expected.sum((-1, -2))[..., None])


# Closed forms, through the kernels ------------------------------------------------------------------------------------


def gaussian(x, y):
    return (-((x - y) ** 2).sum(-1)).exp()


@pytest.mark.parametrize("rows", [0, 1, 7, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_derivatives_of_a_gaussian_have_their_closed_forms(dtype, rows):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((rows, 3)).astype(dtype), rng.standard_normal((5, 3)).astype(dtype)
    vx, vy = Vi(x), Vj(y)
    k = gaussian(vx, vy)
    d = x[:, None].astype(float) - y[None]
    square = (d**2).sum(-1, keepdims=True)
    dense = np.exp(-square)
    for found, terms in (
        (k.grad(vx, 1), -2 * d * dense),
        (k.grad(vy, 3), 6 * d * dense),
        (k.diff(vx, [1, 0, 2]), -2 * (d[..., :1] + 2 * d[..., 2:]) * dense),
        (k.laplacian(vx), (4 * square - 6) * dense),
        ((k * (vx - vy)).divergence(vx), (3 - 2 * square) * dense),
    ):
        for axis, name in ((0, "i"), (1, "j")):
            expected = reduce_dense("sum", [terms], axis=name)
            scale = 10 * np.abs(terms).sum(axis)
            assert_close(found.sum(axis=axis), expected, dtype=dtype, columns=terms.shape[axis], scale=scale)


def test_derivatives_reduce_with_batches_and_other_reductions():
    rng = np.random.default_rng(3)
    x, y = LazyTensor(rng.standard_normal((2, 4, 1, 3))), LazyTensor(rng.standard_normal((2, 1, 5, 3)))
    slopes = gaussian(x, y).grad(x, 1)
    for kind in ("max", "min"):
        found = getattr(slopes, kind)(axis=2)
        np.testing.assert_allclose(found, reduce_dense(kind, [evaluate_dense(slopes)], axis="j"), rtol=1e-12)
    found = gaussian(x, y).laplacian(x).logsumexp(axis=2)
    expected = reduce_dense("logsumexp", [evaluate_dense(gaussian(x, y).laplacian(x))], axis="j")
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_derivatives_at_singular_points_are_finite():
    zero = Vi(np.zeros((2, 3)))
    for f in (zero.norm2(), zero.normalize().sum(-1), (zero | zero).sqrt(), zero.abs().sum(-1)):
        for found in (f.grad(zero, 1), f.laplacian(zero)):
            assert not evaluate_dense(found).any()
    assert evaluate_dense(zero.sinxdivx().sum(-1).laplacian(zero)) == pytest.approx(np.full((2, 1, 1), -1.0))


# What a variable is ---------------------------------------------------------------------------------------------------


def test_variable_is_known_by_its_array():
    x, y, p = data()
    x = x[:N]
    k = gaussian(Vi(x), Vj(y)) * Pm(p)
    expected = evaluate_dense(k.grad(Vi(x), 1))
    assert expected.any()
    np.testing.assert_array_equal(evaluate_dense(k.grad(LazyTensor(x, axis=0), 1)), expected)
    assert not evaluate_dense(k.grad(Vi(x.copy()), 1)).any()
    assert not evaluate_dense(k.grad(Vj(x), 1)).any()


def test_variable_may_stand_for_rows_and_for_columns():
    x, *_ = data()
    k = gaussian(Vi(x), Vj(x))
    np.testing.assert_allclose(evaluate_dense(k.grad(Vi(x), 1)), -evaluate_dense(k.grad(Vj(x), 1)), rtol=1e-14)


def test_number_that_was_wrapped_is_a_variable():
    x, *_ = data()
    scale = Pm(1.5)
    found = (Vi(x) * scale).exp().sum(-1).grad(scale)
    np.testing.assert_allclose(evaluate_dense(found)[:, 0, 0], (x * np.exp(1.5 * x)).sum(-1), rtol=1e-14)


@pytest.mark.parametrize("kind", [np.asarray, torch.asarray], ids=["numpy", "torch"])
def test_absent_variable_gives_zeros_of_its_dimension(kind):
    x, y, _ = (kind(array.astype(np.float32)) for array in data())
    f = Vi(x).sum(-1)
    for found, dim in ((f.grad(Vj(y), 1), 3), (f.diff(Vj(y), 1), 1), (f.laplacian(Vj(y)), 1)):
        result = found.sum(axis=1)
        assert type(result) is type(x)
        assert result.dtype == x.dtype
        assert result.tolist() == [[0.0] * dim] * M


def test_derivative_that_lost_its_variables_keeps_sizes_dtype_and_kind():
    x, y, _ = (torch.asarray(array, dtype=torch.float32) for array in data())
    found = (Vi(x) - Vj(y)).grad(Vi(x), 1).sum(axis=1)
    assert found.dtype == torch.float32
    assert found.tolist() == [[float(N)] * 3] * M


def test_what_was_lost_costs_nothing():
    x, y, _ = data()
    text = (Vi(x) - Vj(y)).grad(Vi(x), 1).sum(axis=1, call=False).as_text("formula")
    assert "reduction.var" not in text
    assert "reduction.where" not in text


def test_formulas_of_second_derivatives_do_not_grow_with_the_dimension():
    def size(dim, derive):
        x, y = Vi(np.zeros((M, dim))), Vj(np.zeros((N, dim)))
        return len(Flattened([derive(x, y)._expression]).entries)

    for derive in (
        lambda x, y: gaussian(x, y).laplacian(x),
        lambda x, y: (gaussian(x, y) * (x - y)).divergence(x),
        lambda x, y: (x | y).sin().laplacian(x),
    ):
        assert size(3, derive) == size(100, derive) < 100


# Linear formulas ------------------------------------------------------------------------------------------------------


def test_operators_of_a_linear_formula_are_those_of_its_matrix():
    rng = np.random.default_rng(4)
    matrix, weights, shift = rng.standard_normal((M, 9)), rng.standard_normal((N, 3)), rng.standard_normal((1, 3))
    a, w, s = Vi(matrix), Vj(weights), Pm(shift[0])
    v, u = Vi(5, 3), Vj(rng.standard_normal((N, 3)))
    one = np.ones((M, N, 3, 1)) * np.eye(3)
    dense = matrix.reshape(M, 1, 3, 3) + np.zeros((M, N, 1, 1))
    diagonal = one * weights[None, :, :, None]
    for f, jacobi in (
        (a.matvecmult(v), dense),
        (w * v, diagonal),
        (-(v / w) + v, one * (1 - 1 / weights[None, :, :, None])),
        (w * (s | v) - 0, diagonal @ np.ones((3, 1)) * shift),
        (LazyTensor.cat((v[1:], LazyTensor(0))), np.roll(one, -1, axis=2) * np.array([1, 1, 0])[:, None]),
        (v.sum(-1), np.ones((M, N, 1, 3))),
    ):
        square = np.broadcast_to(jacobi, (M, N, 3, 3))
        traced = np.einsum("ijdd->ij", square)[..., None]
        np.testing.assert_allclose(evaluate_dense(f.trace_operator(v)) + 0 * traced, traced, atol=1e-14)
        total = jacobi.sum((-1, -2))[..., None]
        np.testing.assert_allclose(evaluate_dense(f.sum_linear_operator(v)) + 0 * total, total, atol=1e-14)
        given = u if f.ndim == 3 else u.elem(0)
        adjoint = np.einsum("ijed,ije->ijd", jacobi, evaluate_dense(given) + np.zeros((M, N, 1)))
        np.testing.assert_allclose(evaluate_dense(f.adjoint_operator(v, given)) + 0 * adjoint, adjoint, atol=1e-14)


def test_variable_of_a_linear_formula_is_no_input_of_its_trace():
    x, y, _ = data()
    trace = (Vi(0, 3) * Vi(x) * Vj(y)).trace_operator(Vi(0, 3))
    result = trace.sum(axis=1)
    np.testing.assert_allclose(result, (x[:, None] * y[None]).sum((1, 2))[:, None], rtol=1e-13)


@pytest.mark.parametrize("name", ["exp", "square", "abs"])
def test_operators_of_a_formula_that_is_not_linear_are_refused(name):
    v = Vi(0, 3)
    f = getattr(v, name)()
    op = f._expression.op
    for build in (lambda: f.trace_operator(v), lambda: f.adjoint_operator(v, f), lambda: f.sum_linear_operator(v)):
        with pytest.raises(UnsupportedError, match=f"not linear in v, as it applies {op}(?s:.*)test_formula_deriv"):
            build()
    for f in (v + 1, v * v, 1 / v, (v > 0).where(v, 0)):
        with pytest.raises(UnsupportedError, match="not linear in v"):
            f.trace_operator(v)


def test_derivatives_are_taken_without_loading_the_bindings_of_mlir():
    program = """
import sys, numpy, pylazy
assert not any(name.startswith("pylazy.compiler") for name in sys.modules)
x = pylazy.Vi(numpy.zeros((2, 3)))
x.sqnorm2().laplacian(x)
assert "pylazy.compiler.mlir" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_factorize_is_the_formula_itself():
    x, y, _ = data()
    k = gaussian(Vi(x), Vj(y))
    assert k.factorize(Vi(x) - Vj(y)) is k
    assert k.auto_factorize() is k


# Formula texts and symbolic variables ---------------------------------------------------------------------------------

ALIASES = ["x = Vi(3)", "y = Vj(3)", "p = Pm(1)", "e = Vj(3)"]
K = "Exp(-p * SqDist(x, y))"
TEXTS = {
    f"Grad({K}, x, p)": lambda k, x, y, p, e: k.grad(x, p),
    f"Grad({K}, x)": lambda k, x, y, p, e: k.grad(x),
    f"Grad({K} * (x - y), y, e)": lambda k, x, y, p, e: (k * (x - y)).grad(y, e),
    f"Grad(Grad({K}, x, p), p, e)": lambda k, x, y, p, e: k.grad(x, p).grad(p, e),
    f"Diff({K}, x, e)": lambda k, x, y, p, e: k.diff(x, e),
    f"GradMatrix({K} * x, y)": lambda k, x, y, p, e: (k * x).grad_matrix(y),
    f"Divergence({K} * (x - y), x)": lambda k, x, y, p, e: (k * (x - y)).divergence(x),
    f"Laplacian({K}, x)": lambda k, x, y, p, e: k.laplacian(x),
    f"TraceOperator({K} * e, e)": lambda k, x, y, p, e: 3 * k,
    f"AdjointOperator({K} * e, e, x)": lambda k, x, y, p, e: k * x,
    f"SumLinOperator({K} * e, e)": lambda k, x, y, p, e: 3 * k,
    f"Factorize({K}, x - y)": lambda k, x, y, p, e: k,
    f"AutoFactorize({K})": lambda k, x, y, p, e: k,
}


def text_data():
    x, y, p = data()
    return [x, y, p, np.random.default_rng(5).standard_normal((N, 3))]


@pytest.mark.parametrize("text", TEXTS)
def test_keyword_means_its_method(text):
    arrays = text_data()
    x, y, p, e = Vi(arrays[0]), Vj(arrays[1]), Pm(arrays[2]), Vj(arrays[3])
    k = (-p * x.sqdist(y)).exp()
    expected = TEXTS[text](k, x, y, p, e).sum(axis=1)
    np.testing.assert_allclose(Genred(text, ALIASES, axis=1)(*arrays), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (f"Grad({K}, x, e)", ShapeError, "e of grad has inner dimension 3, expected 1"),
        (f"TraceOperator({K} * x, x)", UnsupportedError, "not linear in v, as it applies"),
        (f"Grad({K}, x + 0.5, p)", DtypeError, r"v of grad is the formula add\(...\), expected a variable"),
        (f"Diff({K}, 2, p)", DtypeError, "v of diff is the formula constant"),
        ("Grad(x - y, x)", ShapeError, "grad has no e, expected one, as f has inner dimension 3"),
        ("Laplacian(x, y)", ShapeError, "laplacian of a formula of inner dimension 3, expected 1"),
        ("Divergence(x, p)", ShapeError, "divergence of a formula of inner dimension 3 in a v of 1"),
        ("TraceOperator(Concat(x, x), x)", ShapeError, "trace_operator of a formula of inner dimension 6 in a v of 3"),
    ],
)
def test_mistake_shows_its_place(text, error, message):
    with pytest.raises(error, match=rf"{message}(?s:.*)\^(?s:.*)test_formula_derivatives.py"):
        Genred(text, ALIASES, axis=1)


def test_arguments_stay_those_of_the_formula():
    x, y, *_ = data()
    vx, vy = Vi(0, 3), Vj(1, 3)
    found = (vx - vy).grad(vx, Vi(2, 3)).sum(axis=1)
    np.testing.assert_allclose(found(x, y, 2 * x), N * 2 * x)
    again = pickle.loads(pickle.dumps(gaussian(vx, vy).laplacian(vx)))
    expected = evaluate_dense(gaussian(Vi(x), Vj(y)).laplacian(Vi(x))).sum(1)
    np.testing.assert_allclose(again.sum(axis=1)(x, y), expected, rtol=1e-12)


# Autograd -------------------------------------------------------------------------------------------------------------


def test_autograd_of_sums_of_derivatives_matches_dense_torch():
    x, y, p = (torch.tensor(array, requires_grad=True) for array in data())
    e = torch.randn(M, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    inputs = (x, y, p, e)

    def lazy():
        vx, vy = Vi(x), Vj(y)
        k = (-Pm(p) * vx.sqdist(vy)).exp()
        return [k.grad(vx, Vi(e)).sum(axis=1), k.laplacian(vx).sum(axis=1)]

    def dense():
        d = x[:, None] - y[None]
        square = (d**2).sum(-1, keepdim=True)
        k = torch.exp(-p * square)
        return [(-2 * p * d * k * e[:, None]).sum(1), ((4 * p**2 * square - 6 * p) * k).sum(1)]

    generator = torch.Generator().manual_seed(1)
    for found, expected in zip(lazy(), dense(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        weights = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
        ours = torch.autograd.grad((weights * found).sum(), inputs, allow_unused=True)
        theirs = torch.autograd.grad((weights * expected).sum(), inputs, allow_unused=True, retain_graph=True)
        for gradient, other in itertools.zip_longest(ours, theirs):
            if other is not None:
                torch.testing.assert_close(gradient, other, rtol=1e-11, atol=1e-12)


# What is refused ------------------------------------------------------------------------------------------------------


def test_errors_name_the_argument_and_the_line():
    x, y, _ = data()
    vx, vy = Vi(x), Vj(y)
    k = gaussian(vx, vy)
    for build, error, message in (
        (lambda: k.grad(x, 1), DtypeError, "v of grad is ndarray, expected a variable"),
        (lambda: k.grad(vx * 2, 1), DtypeError, r"v of grad is the formula mul\(...\)"),
        (lambda: k.grad(vx, vx), ShapeError, "e of grad has inner dimension 3, expected 1"),
        (lambda: k.diff(vx, [1.0, 2.0]), ShapeError, "u of diff has inner dimension 2, expected 3"),
        (lambda: k.grad(vx, Vi(np.ones((M + 1, 1)))), ShapeError, f"M = {M} and M = {M + 1}"),
        (lambda: LazyTensor.grad(x, vx, 1), DtypeError, "grad was given ndarray, expected a LazyTensor"),
        (lambda: LazyTensor.laplacian(2.0, vx), DtypeError, "laplacian was given float"),
    ):
        with pytest.raises(error, match=f"{message}(?s:.*)") as caught:
            build()
        assert re.search(r"\n  at .*test_formula_derivatives.py:\d+: ", str(caught.value))
