"""Reductions as functions of JAX: under every transformation the same as dense JAX."""

import numpy as np
import pytest

import pylazy
from pylazy import ComplexLazyTensor, Genred, Pm, ShapeError, UnsupportedError, Vi, Vj, jax_function

jax = pytest.importorskip("jax", reason="jax is not installed")
jnp = pytest.importorskip("jax.numpy", reason="jax is not installed")


@pytest.fixture(autouse=True, name="_wide")
def compute_in_float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


X, Y, B, P = (np.random.default_rng(0).random(shape) for shape in ((7, 3), (5, 3), (5, 2), (3,)))
SCORES = -((Vi(0, 3) - Vj(1, 3)) * Pm(3, 3)).sqnorm2()
LAZY = {
    "sum": (SCORES.exp() * Vj(2, 2)).sum(axis=1),
    "mean": (SCORES.exp() * Vj(2, 2)).mean(axis=1),
    "logsumexp": SCORES.logsumexp(axis=1, weight=Vj(2, 2)),
    "softmax": SCORES.sumsoftmaxweight(Vj(2, 2), axis=1),
    "prod": (SCORES.exp() + Vj(2, 2)).prod(axis=1),
    "min": (SCORES * Vj(2, 2)).min(axis=1),
    "max": (SCORES * Vj(2, 2)).max(axis=0),
    "Kmin": (SCORES * Vj(2, 2)).Kmin(3, axis=1),
    "KMax": (SCORES.exp() * Vj(2, 2)).KMax(2, axis=1),
    "var": (SCORES.exp() * Vj(2, 2)).var(axis=1),
    "std": (SCORES.exp() + Vj(2, 2)).std(axis=0, ddof=1),
}


def dense(reduce):
    def f(x, y, b, p):
        scores = -(((x[..., :, None, :] - y[..., None, :, :]) * p[..., None, None, :]) ** 2).sum(-1, keepdims=True)
        return reduce(scores, b[..., None, :, :])

    return f


DENSE = {
    "sum": dense(lambda s, b: (jnp.exp(s) * b).sum(-2)),
    "mean": dense(lambda s, b: (jnp.exp(s) * b).mean(-2)),
    "logsumexp": dense(lambda s, b: jnp.log((jnp.exp(s) * b).sum(-2))),
    "softmax": dense(lambda s, b: (jax.nn.softmax(s, -2) * b).sum(-2)),
    "prod": dense(lambda s, b: (jnp.exp(s) + b).prod(-2)),
    "min": dense(lambda s, b: (s * b).min(-2)),
    "max": dense(lambda s, b: (s * b).max(-3)),
    "Kmin": dense(lambda s, b: jnp.sort(s * b, axis=-2)[..., :3, :]),
    "KMax": dense(lambda s, b: jnp.sort(jnp.exp(s) * b, axis=-2)[..., :-3:-1, :]),
    "var": dense(lambda s, b: (jnp.exp(s) * b).var(-2)),
    "std": dense(lambda s, b: (jnp.exp(s) + b).std(-3, ddof=1)),
}


def arrays(dtype=np.float64):
    return tuple(jnp.asarray(array, dtype) for array in (X, Y, B, P))


def both(name):
    return jax_function(LAZY[name]), DENSE[name]


def assert_trees_close(found, expected, rtol=1e-9):
    leaves, others = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(leaves) == len(others)
    for leaf, other in zip(leaves, others, strict=True):
        assert leaf.shape == other.shape
        assert leaf.dtype == other.dtype
        np.testing.assert_allclose(leaf, other, rtol=rtol, atol=rtol)


def squares(f):
    return lambda *args: (f(*args) ** 2).sum()


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, np.float64) for name in LAZY), ("sum", np.float32), ("logsumexp", np.float32)]
)
def test_values_and_gradients_under_jit_match_dense_jax(name, dtype):
    lazy, reference = both(name)
    found = jax.jit(jax.value_and_grad(squares(lazy), argnums=(0, 1, 2, 3)))(*arrays(dtype))
    expected = jax.value_and_grad(squares(reference), argnums=(0, 1, 2, 3))(*arrays(dtype))
    assert_trees_close(found, expected, rtol=1e-9 if dtype == np.float64 else 1e-4)


@pytest.mark.parametrize("name", LAZY)
def test_forward_mode_matches_dense_jax(name):
    lazy, reference = both(name)
    tangents = tuple(array + 1 for array in arrays())
    assert_trees_close(jax.jvp(lazy, arrays(), tangents), jax.jvp(reference, arrays(), tangents))


@pytest.mark.parametrize("name", ["logsumexp", "min"])
def test_second_derivatives_match_dense_jax_in_every_mode(name):
    lazy, reference = both(name)

    def seconds(f):
        number = squares(f)
        return (
            jax.hessian(number)(*arrays()),
            jax.jit(jax.jacrev(jax.grad(number, argnums=3), argnums=0))(*arrays()),
        )

    assert_trees_close(seconds(lazy), seconds(reference), rtol=1e-8)


def test_third_derivative_matches_dense_jax():
    lazy, reference = both("sum")

    def third(f):
        def of_p(p):
            return squares(f)(*arrays()[:3], p)

        return jax.grad(lambda p: jax.grad(lambda p: jax.grad(of_p)(p).sum())(p).sum())(arrays()[3])

    assert_trees_close(third(lazy), third(reference))


@pytest.mark.parametrize(
    ("name", "in_axes"),
    [*(("logsumexp", axes) for axes in ((0, None, None, None), (None, 1, 2, 0))), ("min", (0, None, 2, None))],
)
def test_vmap_makes_a_batch_dimension(name, in_axes):
    lazy, reference = both(name)
    stacked = tuple(
        array if axis is None else jnp.stack([array, array / 2, array * 2], axis=axis)
        for array, axis in zip(arrays(), in_axes, strict=True)
    )
    for transform in (lambda f: f, jax.jit, lambda f: jax.grad(squares(f), argnums=(0, 2))):
        found = jax.vmap(transform(lazy), in_axes)(*stacked)
        assert_trees_close(found, jax.vmap(transform(reference), in_axes)(*stacked))
    nested = jax.vmap(jax.vmap(lazy, (0, None, None, None)), (None, None, None, 0))
    x, y, b, p = arrays()
    xs, ps = jnp.stack([x, 2 * x]), jnp.stack([p, p / 2, p / 3])
    assert_trees_close(nested(xs, y, b, ps), jnp.stack([jnp.stack([reference(x, y, b, p) for x in xs]) for p in ps]))


def test_batch_dimensions_broadcast_and_gradients_are_summed_over_them():
    lazy, reference = both("sum")
    x, y, b, p = arrays()
    inputs = (jnp.stack([x, 2 * x])[:, None], jnp.stack([y, y + 1, y - 1]), b, p)
    found = jax.value_and_grad(squares(lazy), argnums=(0, 1, 2, 3))(*inputs)
    expected = jax.value_and_grad(squares(reference), argnums=(0, 1, 2, 3))(*inputs)
    assert_trees_close(found, expected)


def test_linear_functions_are_transposed():
    lazy, reference = both("sum")
    x, y, b, p = arrays()
    cotangent = jnp.ones((7, 2))

    def transposed(f):
        linear = jax.linearize(lambda b: f(x, y, b, p), b)[1]
        back = jax.linear_transpose(linear, b)
        return back(cotangent), jax.linear_transpose(lambda c: back(c)[0], cotangent)(b)

    assert_trees_close(transposed(lazy), transposed(reference))


def test_without_64_bits_results_are_of_32():
    jax.config.update("jax_enable_x64", False)
    lazy, reference = both("sum")
    x, y, b, p = arrays(np.float32)
    assert lazy(x, y, b, p).dtype == jnp.float32
    assert_trees_close(lazy(x, y, b.astype(int), p), reference(x, y, b.astype(int), p), rtol=1e-5)
    assert jax.jit(jax_function(SCORES.argmax(axis=1)))(x, y, p).dtype == jnp.int32


def test_genred_several_results_and_positions():
    x, y, b, _ = arrays()
    gaussian = jax_function(Genred("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], axis=1))
    kernel = jnp.exp(-((x[:, None] - y[None]) ** 2).sum(-1))
    assert_trees_close(jax.jit(gaussian)(x, y, b), kernel @ b)
    smallest, position = jax.jit(jax_function(Vi(0, 3).sqdist(Vj(1, 3)).min_argmin(axis=1)))(x, y)
    squared = ((x[:, None] - y[None]) ** 2).sum(-1, keepdims=True)
    assert_trees_close((smallest, position), (squared.min(1), squared.argmin(1)))
    count = jax_function((Vi(0, 3) > Vj(1, 3)).count(axis=1))
    assert_trees_close(count(x, y), (x[:, None] > y[None]).sum(1))
    assert not jax.grad(lambda x: count(x, y).astype(float).sum())(x).any()


def test_numbers_and_stored_data_are_constants():
    x, y, _, _ = arrays()
    scaled = jax_function((-Vi(0, 3).sqdist(Vj(np.asarray(Y))) * Pm(1, 1) * 0.5).exp().sum(axis=1))

    def reference(x, scale):
        return jnp.exp(-0.5 * scale * ((x[:, None] - y[None]) ** 2).sum(-1)).sum(1, keepdims=True)

    for transform in (lambda f: f, lambda f: jax.grad(lambda *args: f(*args).sum(), argnums=(0, 1))):
        assert_trees_close(transform(scaled)(x, 0.3), transform(reference)(x, 0.3))


@pytest.mark.parametrize("sizes", [(0, 5), (1, 1), (300, 270)], ids=str)
def test_odd_sizes(sizes):
    lazy, reference = both("sum")
    random = np.random.default_rng(1)
    x, y, b = (jnp.asarray(random.random(shape)) for shape in ((sizes[0], 3), (sizes[1], 3), (sizes[1], 2)))
    transform = jax.jit(jax.value_and_grad(lambda *args: lazy(*args).sum(), argnums=(0, 1, 2)))
    expected = jax.value_and_grad(lambda *args: reference(*args).sum(), argnums=(0, 1, 2))(x, y, b, P)
    assert_trees_close(transform(x, y, b, jnp.asarray(P)), expected)


def test_values_with_positions_have_derivatives_and_positions_are_integers():
    x, y, _, _ = arrays()
    both = jax_function(Vi(0, 3).sqdist(Vj(1, 3)).min_argmin(axis=1))
    positions = jax_function(Vi(0, 3).sqdist(Vj(1, 3)).argKmin(2, axis=1))

    def total(x):
        smallest, found = both(x, y)
        return (smallest * (found + 1)).sum() + positions(x, y).sum()

    squared = ((x[:, None] - y[None]) ** 2).sum(-1)
    nearest = squared.argmin(1)
    for transform in (jax.grad(total), jax.jit(jax.grad(total))):
        np.testing.assert_allclose(transform(x), 2 * (x - y[nearest]) * (nearest + 1)[:, None], rtol=1e-12)


def test_selections_and_spreads_over_nothing():
    smallest = jax_function(Vi(0, 3).sqdist(Vj(1, 3)).min(axis=1))
    assert_trees_close(smallest(jnp.ones((2, 3)), jnp.ones((0, 3))), jnp.full((2, 1), jnp.inf))
    assert_trees_close(jax.grad(lambda x: smallest(x, x[:0]).sum())(jnp.ones((2, 3))), jnp.zeros((2, 3)))
    spread = jax_function(Vi(0, 3).sqdist(Vj(1, 3)).var(axis=1))
    assert jnp.isnan(spread(jnp.ones((2, 3)), jnp.ones((0, 3)))).all()


def test_wrong_arguments_are_refused_at_the_users_line():
    x, y, b, p = arrays()
    lazy, _ = both("sum")

    def called(*args):
        return lazy(*args)

    for call, error, message in (
        (lambda: jax.jit(called)(x, y), TypeError, "called with 2 arrays, expected 4"),
        (lambda: lazy(x, y[:, :2], b, p), ShapeError, "inner dimension 2 in its shape"),
        (lambda: jax.jit(called)(x, y, b[1:], p), ShapeError, "arrays of axis j have one size"),
        (lambda: jax_function((Vi(X) * Vj(Y)).sum(axis=1, call=False)), UnsupportedError, "has its data"),
        (lambda: jax_function((Vi(X) * Vj(Y)).var(axis=1, call=False)), UnsupportedError, "has its data"),
    ):
        with pytest.raises(error, match=message) as raised:
            call()
        assert "test_jax.py" in str(raised.value)


Z, W = (np.random.default_rng(seed).random((rows, 6)).view(complex) - 0.3j for seed, rows in ((3, 7), (4, 5)))
VARIABLES = ComplexLazyTensor((0, 6, 0)), ComplexLazyTensor((1, 6, 1))


COMPLEX = {
    "complex result": (
        (VARIABLES[0] * VARIABLES[1].conj()).exp().sum(axis=1),
        lambda z, w: jnp.exp(z[:, None] * w.conj()).sum(1),
    ),
    "mean of one component": (
        (VARIABLES[0] * VARIABLES[1]).sum(-1).mean(axis=0),
        lambda z, w: (z[:, None] * w).sum(-1, keepdims=True).mean(0),
    ),
    "real result": (
        abs(VARIABLES[0] - VARIABLES[1]).sum(axis=1),
        lambda z, w: jnp.abs(z[:, None] - w).sum(1),
    ),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_match_dense_jax(name):
    reduction, dense = COMPLEX[name]
    lazy = jax.jit(jax_function(reduction))
    z, w = jnp.asarray(Z), jnp.asarray(W)
    assert lazy(z, w).dtype == dense(z, w).dtype
    assert_trees_close(lazy(z, w), dense(z, w))
    assert_trees_close(lazy(Z.view(float), W.view(float)), dense(z, w))
    assert_trees_close(jax.jvp(lazy, (z, w), (w[0] * z, z[:5])), jax.jvp(dense, (z, w), (w[0] * z, z[:5])))
    size = lambda f: lambda z, w: (jnp.abs(f(z, w)) ** 2).sum()  # noqa: E731
    assert_trees_close(jax.grad(size(lazy), (0, 1))(z, w), jax.grad(size(dense), (0, 1))(z, w))


def test_complex_numbers_of_single_precision_stay_single():
    lazy = jax_function(COMPLEX["complex result"][0])
    assert lazy(Z.astype(np.complex64), W.astype(np.complex64)).dtype == jnp.complex64


def test_ranges_are_refused():
    ranges = ([[0, 7]], [1], [[0, 5]], [[0, 5]], [1], [[0, 7]])
    reduction = (Vi(0, 3) * Vj(1, 3)).sum(axis=1, ranges=tuple(np.array(part, dtype=np.int32) for part in ranges))
    with pytest.raises(UnsupportedError, match="the reduction has ranges"):
        jax_function(reduction)


def test_import_of_pylazy_does_not_import_jax():
    import subprocess
    import sys

    program = "import sys, pylazy; pylazy.jax_function; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert callable(pylazy.jax_function)


def test_vmap_of_reverse_over_forward_mode_matches_dense_jax():
    x, y, b, p = arrays()
    lazy, reference = both("softmax")
    xs = jnp.stack([x, 2 * x])
    found = jax.vmap(jax.grad(lambda x: jax.jvp(lambda b: lazy(x, y, b, p), (b,), (b,))[1].sum()))(xs)
    expected = jax.vmap(jax.grad(lambda x: jax.jvp(lambda b: reference(x, y, b, p), (b,), (b,))[1].sum()))(xs)
    assert_trees_close(found, expected)
