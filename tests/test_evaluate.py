"""Several reductions over the same pairs in one program."""

# ruff: noqa: N806  a kernel matrix is called K

from __future__ import annotations

import re

import numpy as np
import pytest

import pylazy
from pylazy import DtypeError, LazyTensor, ShapeError, UnsupportedError, Vi, Vj, evaluate

M, N, D = 7, 5, 3


def points(m=M, n=N, dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.random((m, D)).astype(dtype), rng.random((n, D)).astype(dtype)


def gaussian(x, y):
    return (-Vi(x).sqdist(Vj(y))).exp()


def prepared(x, y):
    """Reductions of every kind of result, over j."""
    K = gaussian(x, y)
    return [
        K.sum(axis=1, call=False),
        (K * Vj(y)).sum(axis=1, call=False),
        K.min_argmin(axis=1, call=False),
        (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1, call=False),
        K.Kmin_argKmin(2, axis=1, call=False),
        K.mean(axis=1, call=False),
        (K > 0.5).any(axis=1, call=False),
        K.__matmul__(np.ones(len(y), dtype=y.dtype), call=False),
    ]


def phases(made):
    return [phase.name for phase in made.executable.load(made.few).image.phases]


def assert_equal(found, expected):
    assert type(found) is type(expected)
    if not isinstance(found, tuple):
        found, expected = (found,), (expected,)
    for result, reference in zip(found, expected, strict=True):
        assert result.dtype == reference.dtype
        assert result.shape == reference.shape
        np.testing.assert_allclose(result, reference, rtol=1e-5 if reference.dtype == "float32" else 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "n"), [(M, N), (300, 300), (3, 700)])
def test_results_are_those_of_each_reduction(m, n, dtype):
    parts = prepared(*points(m, n, dtype))
    found = evaluate(*parts)
    assert isinstance(found, tuple)
    for result, part in zip(found, parts, strict=True):
        assert_equal(result, part())


def test_reductions_over_one_axis_make_one_sweep():
    parts = prepared(*points())
    assert phases(evaluate(*parts, call=False)) == phases(parts[0])


def test_reductions_over_both_axes_make_two_sweeps_of_one_launch():
    K = gaussian(*points())
    parts = [K.sum(axis=0, call=False), K.sum(axis=1, call=False), K.max(axis=0, call=False)]
    fused = evaluate(*parts, call=False)
    assert len(phases(fused)) == 2 * len(phases(parts[0]))
    for result, part in zip(fused(), parts, strict=True):
        assert_equal(result, part())


def test_what_reductions_have_in_common_is_computed_once():
    x, y = points()
    fused = evaluate(gaussian(x, y).sum(axis=1, call=False), (gaussian(x, y) * 2).max(axis=1, call=False), call=False)
    assert fused.as_text("formula").count("reduction.exp") == 1
    assert fused.as_text("formula").count('"reduction.reduce"') == 2
    assert fused.as_text("kernel").count("math.exp") == 1
    assert fused.as_text("expression").count(" over j ") == 2
    assert ".entry" in fused.as_text("ptx")


def test_shapes_and_repr_tell_of_each():
    fused = evaluate(*prepared(*points())[:3], call=False)
    assert fused.shape == ((M, 1), (M, D), ((M, 1), (M, 1)))
    assert "min" in repr(fused)


def test_data_is_read_at_the_call():
    x, y = points()
    parts = prepared(x, y)
    fused = evaluate(*parts, call=False)
    x += 1
    for result, part in zip(fused(), parts, strict=True):
        assert_equal(result, part())


def test_batches_are_fused():
    rng = np.random.default_rng(1)
    x, y = LazyTensor(rng.random((2, M, 1, D))), LazyTensor(rng.random((1, N, D)))
    parts = [(x - y).sum(axis=2, call=False), (x * y).max(axis=2, call=False)]
    for result, part in zip(evaluate(*parts), parts, strict=True):
        assert_equal(result, part())


@pytest.mark.parametrize(("m", "n"), [(0, N), (M, 0)])
def test_empty_axes_give_what_each_reduction_gives(m, n):
    K = gaussian(*points(m, n))
    parts = [K.sum(axis=1, call=False), K.min(axis=1, call=False), K.sum(axis=0, call=False)]
    for result, part in zip(evaluate(*parts), parts, strict=True):
        assert_equal(result, part())


def test_one_reduction_gives_a_tuple_of_one():
    part = gaussian(*points()).sum(axis=1, call=False)
    (found,) = evaluate(part)
    assert_equal(found, part())


X, Y = points()
K0 = gaussian(X, Y)
SUM = {"axis": 1, "call": False}
REFUSALS = {
    "nothing": (evaluate, ShapeError, "no reductions to evaluate, expected at least one"),
    "an array": (
        lambda: evaluate(K0.sum(**SUM), K0.sum(axis=1)),
        DtypeError,
        "argument 1 is ndarray, expected a Reduction",
    ),
    "symbolic variables": (
        lambda: evaluate(K0.sum(**SUM), (K0 * Vi(0, 1)).sum(axis=1)),
        UnsupportedError,
        "argument 1 has symbolic variables, expected data",
    ),
    "other rows": (
        lambda: evaluate(K0.sum(**SUM), gaussian(X[:5], Y).sum(**SUM)),
        ShapeError,
        "argument 1 is over batch (), M = 5, N = 5, and argument 0 over batch (), M = 7, N = 5",
    ),
    "no columns": (lambda: evaluate(K0.sum(**SUM), Vi(X).sum(**SUM)), ShapeError, "M = 7, N = 1, and argument 0"),
    "another dtype": (
        lambda: evaluate(K0.sum(**SUM), gaussian(X.astype("f"), Y.astype("f")).sum(**SUM)),
        DtypeError,
        "argument 1 has dtype float32, and argument 0 float64",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_argument_and_ends_at_the_users_line(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error, match=re.escape(message)) as caught:
        call()
    assert str(caught.value).splitlines()[-1].startswith(f"  at {__file__}")


def test_it_is_a_name_of_the_package():
    assert pylazy.evaluate is evaluate
    assert "evaluate" in dir(pylazy)


torch = pytest.importorskip("torch")


def test_tensors_are_differentiable():
    x, y = (torch.tensor(array, requires_grad=True) for array in points())
    K = gaussian(x, y)
    parts = [K.sum(axis=1, call=False), (-Vi(x).sqdist(Vj(y))).logsumexp(axis=0, call=False)]
    first, second = evaluate(*parts)
    found = torch.autograd.grad(first.square().sum() + second.sum(), (x, y))
    expected = torch.autograd.grad(parts[0]().square().sum() + parts[1]().sum(), (x, y))
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference)
    with torch.no_grad():
        fused = evaluate(*parts)
    torch.testing.assert_close(fused, (first.detach(), second.detach()))
