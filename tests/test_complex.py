"""Complex LazyTensors: every operation against dense NumPy arrays of complex128."""

# ruff: noqa: N806  a kernel matrix is called K

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

from pylazy import (
    ComplexLazyTensor,
    DtypeError,
    Genred,
    LazyTensor,
    Pm,
    Reduction,
    ShapeError,
    UnsupportedError,
    Vi,
    Vj,
)

torch = pytest.importorskip("torch")

M, N, D = 7, 5, 3
WIDER_THAN_A_TILE = 300
PRECISIONS = ["complex64", "complex128"]


def rounding(dtype):
    return np.finfo(dtype).eps


def assert_close(found, expected, *, dtype, scale):
    """Compare up to rounding, relative to `scale`."""
    assert found.dtype == dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=32 * rounding(dtype) * scale)


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(11)


def numbers(rng, *shape, dtype="complex128"):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


@pytest.fixture(name="x")
def make_x(rng):
    return numbers(rng, M, D)


@pytest.fixture(name="y")
def make_y(rng):
    return numbers(rng, N, D)


def evaluate(formulas):
    """Compute several formulas in rows alone, in one kernel, and take the results apart."""
    joined = LazyTensor.cat(formulas)
    result = joined.sum(axis=1)
    ends = np.cumsum([formula.ndim for formula in formulas])[:-1]
    return np.split(result, ends, axis=-1)


# Functions ------------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "neg": (operator.neg, operator.neg),
    "conj": (lambda z: z.conj(), np.conj),
    "exp": (lambda z: z.exp(), np.exp),
    "exp2": (lambda z: z.exp2(), np.exp2),
    "expm1": (lambda z: z.expm1(), np.expm1),
    "log": (lambda z: z.log(), np.log),
    "log2": (lambda z: z.log2(), np.log2),
    "log1p": (lambda z: z.log1p(), np.log1p),
    "sqrt": (lambda z: z.sqrt(), np.sqrt),
    "power 0.5": (lambda z: z**0.5, np.sqrt),
    "rsqrt": (lambda z: z.rsqrt(), lambda z: 1 / np.sqrt(z)),
    "square": (lambda z: z.square(), np.square),
    "reciprocal": (lambda z: z.reciprocal(), np.reciprocal),
    "power 0": (lambda z: z**0, lambda z: z**0),
    "power 2": (lambda z: z**2, lambda z: z**2),
    "power 7": (lambda z: z**7.0, lambda z: z**7),
    "power -3": (lambda z: z**-3, lambda z: z**-3),
    "power 2.5": (lambda z: z**2.5, lambda z: z**2.5),
    "power complex": (lambda z: z ** (1 - 2j), lambda z: z ** (1 - 2j)),
    "power of 2": (lambda z: 2**z, lambda z: 2**z),
    "power of itself": (lambda z: z**z, lambda z: z**z),
    "sin": (lambda z: z.sin(), np.sin),
    "cos": (lambda z: z.cos(), np.cos),
    "tan": (lambda z: z.tan(), np.tan),
    "asin": (lambda z: z.asin(), np.arcsin),
    "acos": (lambda z: z.acos(), np.arccos),
    "atan": (lambda z: z.atan(), np.arctan),
    "sinh": (lambda z: z.sinh(), np.sinh),
    "cosh": (lambda z: z.cosh(), np.cosh),
    "tanh": (lambda z: z.tanh(), np.tanh),
    "sinc": (lambda z: z.sinc(), np.sinc),
    "sign": (lambda z: z.sign(), lambda z: z / np.abs(z)),
}


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_functions_are_those_of_numpy(rng, dtype):
    z = numbers(rng, WIDER_THAN_A_TILE, 2, dtype=dtype)
    rows = Vi(z)
    found = evaluate([ours(rows) for ours, _ in FUNCTIONS.values()])
    exact = z.astype("complex128")
    for (name, (_, theirs)), result in zip(FUNCTIONS.items(), found, strict=True):
        assert result.dtype == dtype
        expected = theirs(exact)
        # Relative to each number: what is ill-conditioned has few digits to lose at points of size 1.
        error = np.abs(result - expected) / np.maximum(np.abs(expected), 0.1)
        assert error.max() < 300 * rounding(dtype), (name, error.max(), z.ravel()[error.argmax()])


REAL_FUNCTIONS = {
    "abs": (abs, np.abs),
    "angle": (lambda z: z.angle(), np.angle),
    "real": (lambda z: z.real, np.real),
    "imag": (lambda z: z.imag, np.imag),
    "sqnorm2": (lambda z: z.sqnorm2(), lambda z: (np.abs(z) ** 2).sum(-1, keepdims=True)),
    "norm2": (lambda z: z.norm2(), lambda z: np.linalg.norm(z, axis=-1, keepdims=True)),
    "var": (lambda z: z.var(), lambda z: z.var(-1, keepdims=True)),
    "std": (lambda z: z.std(-1, ddof=1), lambda z: z.std(-1, ddof=1, keepdims=True)),
    "equal": (lambda z: z == z.real, lambda z: z == z.real),
    "not equal": (lambda z: z != z.real, lambda z: z != z.real),
    "isnan": (lambda z: z.isnan(), np.isnan),
    "logical": (lambda z: z.logical_not().logical_or(z - z), lambda z: z == 0),
    "weighted norm": (
        lambda z: z.weightedsqnorm([1.0, 2.0, 3.0]),
        lambda z: (np.abs(z) ** 2 * [1, 2, 3]).sum(-1, keepdims=True),
    ),
}
VECTORS = {
    "sum": (lambda z: z.sum(-1), lambda z: z.sum(-1, keepdims=True)),
    "mean": (lambda z: z.mean(-1), lambda z: z.mean(-1, keepdims=True)),
    "prod": (lambda z: z.prod(-1), lambda z: z.prod(-1, keepdims=True)),
    "normalize": (lambda z: z.normalize(), lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True)),
    "element": (lambda z: z[-1], lambda z: z[:, -1:]),
    "slice": (lambda z: z[1:], lambda z: z[:, 1:]),
    "dot": (lambda z: z | z, lambda z: (z * z).sum(-1, keepdims=True)),
    "vecdot": (lambda z: z.vecdot(1j * z), lambda z: (z.conj() * 1j * z).sum(-1, keepdims=True)),
    "tensorprod": (lambda z: z.tensorprod(z), lambda z: (z[:, :, None] * z[:, None]).reshape(len(z), -1)),
    "matvecmult": (
        lambda z: z.tensorprod(z).matvecmult(z.real),
        lambda z: z * (z * z.real).sum(-1, keepdims=True),
    ),
    "difference matrix": (
        lambda z: z.difference_matrix(z.conj()),
        lambda z: (z[:, :, None] - z.conj()[:, None]).reshape(len(z), -1),
    ),
    "weighted by a matrix": (
        lambda z: z.weightedsqnorm(z.tensorprod(z.conj())),
        lambda z: (np.abs(z) ** 2).sum(-1, keepdims=True) ** 2,
    ),
    "where": (lambda z: (z.real > 0).where(z, 1j), lambda z: np.where(z.real > 0, z, 1j)),
    "ifelse": (lambda z: z.imag.ifelse(0, z), lambda z: np.where(z.imag >= 0, 0, z)),
    "round": (lambda z: z.round(1), lambda z: z.round(1)),
    "polar": (lambda z: abs(z) * z.angle().exp1j(), lambda z: z),
    "cartesian": (lambda z: z.real.real2complex() + z.imag.imag2complex(), lambda z: z),
    "components": (lambda z: sum(z, 0), lambda z: z.sum(-1, keepdims=True)),
}


def test_vectors_and_parts_are_those_of_numpy(x):
    rows = Vi(x)
    found = evaluate([ours(rows) for ours, _ in VECTORS.values()])
    for (name, (_, theirs)), result in zip(VECTORS.items(), found, strict=True):
        np.testing.assert_allclose(result, theirs(x), rtol=1e-13, atol=1e-13, err_msg=name)
    found = evaluate([ours(rows) for ours, _ in REAL_FUNCTIONS.values()])
    for (name, (_, theirs)), result in zip(REAL_FUNCTIONS.items(), found, strict=True):
        np.testing.assert_allclose(result, theirs(x), rtol=1e-13, atol=1e-13, err_msg=name)
        assert result.dtype == "float64"


def test_branch_cuts_have_two_sides_and_numpys_values():
    z = np.array([complex(a, b) for a in (-2.0, -0.0, 0.0, 1.0) for b in (-3.0, -0.0, 0.0, 0.5)])[:, None]
    with np.errstate(all="ignore"):
        exact = {"sqrt": np.sqrt(z), "log": np.log(z), "angle": np.angle(z), "abs": np.abs(z)}
        powers = {"half": np.where(z == 0, 0, np.exp(0.5 * np.log(z))), "zero": z**0}
    rows = Vi(z)
    sqrt, log, half, zero = evaluate([rows.sqrt(), rows.log(), rows ** LazyTensor(0.5), rows**0])
    angle, size = evaluate([rows.angle(), abs(rows)])
    np.testing.assert_allclose(angle, exact["angle"], rtol=1e-15)
    np.testing.assert_array_equal(size, exact["abs"])
    np.testing.assert_allclose(log.imag, exact["log"].imag, rtol=1e-15)
    np.testing.assert_allclose(log.real, exact["log"].real, rtol=1e-15)
    np.testing.assert_allclose(sqrt, exact["sqrt"], rtol=1e-15)
    sign_kept = rows.sqrt().imag.max(axis=1)  # a sum begins with 0, to which -0 adds nothing
    np.testing.assert_array_equal(np.signbit(sign_kept), np.signbit(exact["sqrt"].imag))
    np.testing.assert_allclose(half, powers["half"], rtol=1e-15, atol=1e-15)
    np.testing.assert_array_equal(zero, powers["zero"])


def test_powers_of_zero_are_those_of_numpy():
    exponents = np.array([[0, 1, 2.5, -1, 1j, 1 + 1j]])
    with np.errstate(all="ignore"):
        expected = np.zeros((1, 1), complex) ** exponents
    found = (Vi(np.zeros((1, 1), complex)) ** Pm(exponents[0])).sum(axis=1)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(found[~np.isnan(found)], expected[~np.isnan(found)])


def test_sizes_and_quotients_do_not_overflow_on_the_way():
    z = np.array([[1e300 + 1e300j, 1e-200 - 3e-200j, 3e307 - 1e10j, 0 + 1e-300j]]).T
    size, quotient, inverse, root = (
        formula.sum(axis=1) for formula in (abs(Vi(z)), Vi(z) / Vi(2 * z), 1 / Vi(z), Vi(z).sqrt())
    )
    np.testing.assert_allclose(size, np.abs(z), rtol=1e-15)
    np.testing.assert_allclose(quotient, np.full_like(z, 0.5), rtol=1e-15)
    np.testing.assert_allclose(inverse, 1 / z, rtol=1e-15)
    np.testing.assert_allclose(root, np.sqrt(z), rtol=1e-15)
    with np.errstate(all="ignore"):
        by_zero = np.array([[1 - 2j, 0j]]).T / np.array([[0j]])
    found = (Vi(np.array([[1 - 2j, 0j]]).T) / Pm(0j)).sum(axis=1)
    np.testing.assert_array_equal(found, by_zero)


def test_functions_that_overflow_stay_on_the_axes():
    z = np.array([[1e5 + 0j, 0 + 1e5j, -1e5 + 0j, 1e200 + 0j]]).T
    names = ("exp", "sin", "cos", "sinh", "cosh", "tan", "tanh")
    with np.errstate(over="ignore"):
        expected = [getattr(np, name)(z) for name in names]
    for name, found, dense in zip(names, evaluate([getattr(Vi(z), name)() for name in names]), expected, strict=True):
        np.testing.assert_allclose(found, dense, rtol=1e-14, err_msg=name)


def test_logarithms_near_the_unit_circle_keep_their_digits():
    z = np.array([[1 + 1e-9j, 1e-8 + 1j, (1 + 1e-10) * np.exp(2j), 1 - 1e-12]]).T
    found = Vi(z).log().sum(axis=1)
    np.testing.assert_allclose(found.real, np.log(z).real, rtol=1e-6, atol=1e-25)
    small = np.array([[1e-20 + 1e-10j, 1e-18 - 1e-30j]]).T
    expected = [[1.5e-20 + 1e-10j], [1e-18 - 1e-30j]]  # by its series; NumPy has 0 for both real parts
    np.testing.assert_allclose(Vi(small).log1p().sum(axis=1), expected, rtol=1e-14)


# Operators ------------------------------------------------------------------------------------------------------------

OPERANDS = {
    "rows": (lambda x, y: Vi(x), lambda x, y: x[:, None]),
    "columns": (lambda x, y: Vj(y), lambda x, y: y[None]),
    "one component": (lambda x, y: Vj(y[:, :1]), lambda x, y: y[None, :, :1]),
    "real rows": (lambda x, y: Vi(x.real), lambda x, y: x[:, None].real),
    "real number": (lambda x, y: 2.5, lambda x, y: 2.5),
    "integer": (lambda x, y: 3, lambda x, y: 3),
    "complex number": (lambda x, y: 1 - 2j, lambda x, y: 1 - 2j),
    "NumPy number": (lambda x, y: np.complex64(2j), lambda x, y: 2j),
    "list": (lambda x, y: [1j, 2, 3.5], lambda x, y: np.array([1j, 2, 3.5])),
    "array": (lambda x, y: y[None], lambda x, y: y[None]),
}
OPERATORS = (operator.add, operator.sub, operator.mul, operator.truediv)


@pytest.mark.parametrize("first", ["rows", "real rows"])
@pytest.mark.parametrize("second", OPERANDS)
def test_operators_mix_real_and_complex_as_numpy(x, y, first, second):
    (a, exact_a), (b, exact_b) = ((make(x, y) for make in OPERANDS[name]) for name in (first, second))
    formulas = [apply(a, b) for apply in OPERATORS] + [apply(b, a) for apply in OPERATORS]
    expected = [apply(exact_a, exact_b) for apply in OPERATORS] + [apply(exact_b, exact_a) for apply in OPERATORS]
    found = LazyTensor.cat(formulas).sum(axis=1)
    dense = np.concatenate(
        [
            np.broadcast_to(part, np.broadcast_shapes(part.shape, (M, 1, D))).sum(1)
            if part.shape[1] > 1
            else np.broadcast_to(part, (M, 1, D))[:, 0]
            for part in expected
        ],
        -1,
    )
    assert np.iscomplexobj(found) == np.iscomplexobj(dense)
    np.testing.assert_allclose(found, dense, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("complex64", "complex64", "complex64"),
        ("complex64", "float32", "complex64"),
        ("complex64", "float64", "complex128"),
        ("float32", "complex128", "complex128"),
        ("complex64", "complex128", "complex128"),
    ],
)
def test_dtypes_promote_as_those_of_numpy(x, y, first, second, result):
    a, b = (array if dtype.startswith("c") else array.real for array, dtype in ((x, first), (y, second)))
    product = Vi(a.astype(first)) * Vj(b.astype(second))
    assert product.dtype == result
    assert product.sum(axis=1).dtype == result
    assert np.result_type(first, second) == result


def test_imaginary_numbers_turn_real_ones_and_nothing_else():
    infinite = np.array([[np.inf, -np.inf, 2.0]])
    found = (1j * Vi(infinite)).sum(axis=1)
    np.testing.assert_array_equal(found.imag, infinite)
    np.testing.assert_array_equal(found.real, [[0, 0, 0]])


def test_numbers_and_scalars_take_the_dtype_of_arrays(x):
    rows = Vi(x.astype("complex64"))
    for number in (2j, 1.5, np.array(2j), np.complex128(1j), [1j, 2j, 3]):
        assert (rows * number).dtype == "complex64"
    assert (Vi(x.real.astype("float32")) * 1j).dtype == "complex64"
    assert LazyTensor(1j).dtype is None


# Shapes, classes, copies ----------------------------------------------------------------------------------------------


def test_shapes_count_complex_components(x, y):
    z = Vi(x) * Vj(y)
    assert (z.shape, z._shape, z.ndim, z.dim()) == ((M, N, D), (M, N, D), D, 3)
    assert (z.sum(-1).shape, z.sum(-1)._shape) == ((M, N), (M, N, 1))
    assert z.T.shape == (N, M, D)
    assert repr(z).startswith("ComplexLazyTensor(real=")
    assert repr(z).endswith("shape=(7, 5, 3), complex128)")


def test_complex_data_makes_complex_lazy_tensors(x):
    made = (LazyTensor(x[:, None]), LazyTensor(x, axis=1), Vi(x), Pm(1 + 2j), LazyTensor([1, 2j]), Vi(x.tolist()),
            LazyTensor(torch.tensor(x[:, None])), ComplexLazyTensor(x.real, 0), ComplexLazyTensor(3), Pm(np.array(1j)),
            Vi(x.real).real2complex(), Vi(x.real).exp1j())  # fmt: skip
    for z in made:
        assert isinstance(z, ComplexLazyTensor)
        assert isinstance(z, LazyTensor)
        assert z.is_complex
    assert not Vi(x).real.is_complex
    np.testing.assert_array_equal(LazyTensor([1, 2j]).sum(axis=1), [[1, 2j]])


def test_copies_and_pickles_keep_the_numbers(x, y):
    z = (Vi(x) * Vj(y)).exp()
    expected = z.sum(axis=1)
    for other in (copy.copy(z), copy.deepcopy(z), pickle.loads(pickle.dumps(z)), z.T.T):
        assert isinstance(other, ComplexLazyTensor)
        np.testing.assert_array_equal(other.sum(axis=1), expected)


def test_data_is_read_when_the_reduction_runs(x, y):
    z = Vi(x) * Vj(y)
    x *= 2j
    np.testing.assert_allclose(z.sum(axis=1), (x[:, None] * y).sum(1), rtol=1e-13)


def test_real_formulas_have_parts_as_arrays_have(x):
    rows = Vi(x.real)
    real, imag, conj, angle = evaluate([rows.real, rows.imag, rows.conj(), rows.angle()])
    np.testing.assert_array_equal(real, x.real)
    np.testing.assert_array_equal(conj, x.real)
    np.testing.assert_array_equal(imag, 0 * x.real)
    np.testing.assert_array_equal(angle, np.angle(x.real))


# Reductions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("rows", "columns"), [(M, N), (1, 3), (3, WIDER_THAN_A_TILE), (WIDER_THAN_A_TILE, 2), (0, N), (M, 0)]
)
def test_reductions_are_those_of_numpy(rng, dtype, rows, columns):
    x, y = numbers(rng, rows, D, dtype=dtype), numbers(rng, columns, D, dtype=dtype)
    z = Vi(x) * Vj(y) + 1j
    dense = (x[:, None] * y[None] + 1j).astype("complex128")
    for axis in (0, 1):
        scale = np.abs(dense).sum(axis).max(initial=1)
        assert_close(z.sum(axis=axis), dense.sum(axis), dtype=dtype, scale=scale)
        if dense.shape[axis]:
            assert_close(z.mean(axis=axis), dense.mean(axis), dtype=dtype, scale=scale / dense.shape[axis])
            found = z.var(axis=axis)
            assert found.dtype == dense.astype(dtype).real.dtype
            np.testing.assert_allclose(found, dense.var(axis), rtol=300 * rounding(dtype), atol=1e-6)
    assert z.sum(axis=1, keepdim=True).shape == (rows, 1, D)


def test_products_are_those_of_numpy(rng):
    y = numbers(rng, 20, D)
    y[3, 1] = 0
    np.testing.assert_allclose((Vj(y) + 0 * Vi(np.ones((2, 1)))).prod(axis=1), [y.prod(0)] * 2, rtol=1e-12)


def test_spreads_and_counts_are_those_of_numpy(x, y):
    x[1] = y[2] = 0
    z, dense = Vi(x) * Vj(y), x[:, None] * y
    np.testing.assert_allclose(z.std(axis=1, ddof=1), dense.std(1, ddof=1), rtol=1e-12)
    np.testing.assert_array_equal(z.any(axis=1), dense.any(1))
    np.testing.assert_array_equal(z.all(axis=0), dense.all(0))
    np.testing.assert_array_equal(z.count(axis=1), np.count_nonzero(dense, axis=1))


def test_logsumexp_and_softmax_have_complex_exponents_and_weights(x, y):
    f, exact = (Vi(x) | Vj(y)) + 800, (x[:, None] * y).sum(-1)
    g = numbers(np.random.default_rng(3), N, 2)
    weights = np.exp(exact)
    found = f.logsumexp(axis=1)
    np.testing.assert_allclose(found.real, 800 + np.log(weights.sum(1, keepdims=True)).real, rtol=1e-14)
    np.testing.assert_allclose(np.exp(1j * found.imag), np.exp(1j * np.angle(weights.sum(1, keepdims=True))))
    found = f.logsumexp(axis=1, weight=Vj(g))
    np.testing.assert_allclose(np.exp(found - 800), weights @ g, rtol=1e-11)
    softmax = f.sumsoftmaxweight(Vj(g), axis=1)
    np.testing.assert_allclose(softmax, weights @ g / weights.sum(1, keepdims=True), rtol=1e-11)
    real = f.real.sumsoftmaxweight(Vj(g), axis=1)
    weights = np.exp(exact.real)
    np.testing.assert_allclose(real, weights @ g / weights.sum(1, keepdims=True), rtol=1e-11)
    nothing = (f.real - 1 / Pm(0.0) + 0j).logsumexp(axis=1)
    np.testing.assert_array_equal(nothing, np.full((M, 1), -np.inf + 0j))


def test_logsumexp_counts_the_terms_of_formula_and_weight(x, y):
    found = Vi(x[:, :1]).logsumexp(axis=1, weight=Vj(y))
    np.testing.assert_allclose(np.exp(found), np.exp(x[:, :1]) * y.sum(0), rtol=1e-12)
    found = Vi(x[:, :1].real).logsumexp(axis=1, weight=Vj(y))
    np.testing.assert_allclose(np.exp(found), np.exp(x[:, :1].real) * y.sum(0), rtol=1e-12)


@pytest.mark.parametrize("kernel", ["real", "complex"])
@pytest.mark.parametrize("vector", ["complex", "real"])
def test_kernel_times_vector_is_that_of_numpy(x, y, kernel, vector, rng):
    K, dense = Vi(x) | Vj(y), (x[:, None] * y).sum(-1)
    if kernel == "real":
        K, dense = K.real, dense.real
    v = numbers(rng, N, 2)
    v = v if vector == "complex" else v.real
    for array in (v, v[:, 0], v[:, :1]):
        found = K @ array
        assert found.dtype == (dense @ array).dtype
        np.testing.assert_allclose(found, dense @ array, rtol=1e-12)
    np.testing.assert_allclose(K @ v[:, 0].tolist(), dense @ v[:, 0], rtol=1e-12)
    np.testing.assert_allclose(K @ Vj(v), dense @ v, rtol=1e-12)
    np.testing.assert_allclose(K.matvec(v), dense @ v, rtol=1e-12)
    w = numbers(rng, M)
    np.testing.assert_allclose(K.rmatvec(w), dense.conj().T @ w, rtol=1e-12)


def test_batches_broadcast(rng):
    x, y = numbers(rng, 2, 1, M, 1, D), numbers(rng, 3, 1, N, D)
    found = (LazyTensor(x) * LazyTensor(y)).exp().sum(axis=3)
    np.testing.assert_allclose(found, np.exp(x * y).sum(-2), rtol=1e-12)
    v = numbers(rng, 3, N, 2)
    K = LazyTensor(x) | LazyTensor(y)
    np.testing.assert_allclose(K @ v, (x * y).sum(-1) @ v, rtol=1e-12)


def test_results_can_be_written_into_an_array(x, y):
    z, expected = Vi(x) * Vj(y), (x[:, None] * y).sum(1)
    out = np.empty((M, D), complex)
    assert z.sum(axis=1, out=out) is out
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    with pytest.raises(DtypeError, match="out has dtype float64, expected complex128"):
        z.sum(axis=1, out=out.real)
    with pytest.raises(ShapeError, match=r"out has shape \(7, 3\), expected \(5, 3\)"):
        z.sum(axis=0, out=out)


def test_reductions_can_run_later_and_on_symbolic_variables(x, y):
    z, dense = Vi(x) * Vj(y), x[:, None] * y
    later = z.sum(axis=1, call=False)
    assert isinstance(later, Reduction)
    assert later.shape == (M, D)
    np.testing.assert_allclose(later(), dense.sum(1), rtol=1e-13)
    np.testing.assert_allclose(later.lower().compile()(), dense.sum(1), rtol=1e-13)
    assert "concat" in later.as_text("expression")
    symbolic = (Vi(0, D) * Vj(1, D)).exp1j().sum(axis=1)
    expected = np.exp(1j * x.real[:, None] * y.real).sum(1)
    np.testing.assert_allclose(symbolic(x.real, y.real), expected, rtol=1e-13)
    assert repr(symbolic).startswith("ComplexReduction(sum_j ")
    out = np.empty((M, D), complex)
    symbolic(x.real, y.real, out=out)
    np.testing.assert_allclose(out, expected, rtol=1e-13)


def test_complex_symbolic_variables_read_parts_in_turn(x, y):
    product = (ComplexLazyTensor((0, 2 * D, 0)) * Vj(y)).sum(axis=1)
    np.testing.assert_allclose(product(interleave(x)), (x[:, None] * y).sum(1), rtol=1e-13)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "misuse",
    [
        lambda z: z < 1j,
        lambda z: z.real >= z,
        lambda z: z % 2,
        lambda z: z.min(-1),
        lambda z: z.argmin(axis=1),
        lambda z: z.max(axis=1),
        lambda z: z.Kmin(2, axis=1),
        lambda z: z.relu(),
        lambda z: z.floor(),
        lambda z: z.erf(),
        lambda z: z.real.atan2(z),
        lambda z: z.clamp(0, 1),
        lambda z: z.maximum(0),
        lambda z: z.ifelse(0, 1),
        lambda z: z.one_hot(3),
        lambda z: z.exp1j(),
        lambda z: z.real2complex(),
        lambda z: z.prod(axis=1, call=False),
        lambda z: z.var(axis=1, call=False),
        lambda z: z[0].logsumexp(axis=1, call=False),
        lambda z: z[0].sumsoftmaxweight(Vj(0, 1), axis=1),
    ],
)
def test_what_has_no_meaning_is_refused_at_the_users_line(x, y, misuse):
    with pytest.raises(UnsupportedError, match="complex") as refusal:
        misuse(Vi(x) + Vj(y))
    assert __file__ in str(refusal.value)


def test_dtypes_and_sizes_are_checked(x):
    for dtype in (np.clongdouble, ">c16"):
        with pytest.raises(DtypeError, match="expected complex64 or complex128"):
            Vi(x.astype(dtype))
    with pytest.raises(ShapeError, match="M = 7 and M = 6"):
        Vi(x) + Vi(x[1:])
    with pytest.raises(ShapeError, match="inner dimension"):
        Vi(x) + Vj(x[:, :2])
    with pytest.raises(ShapeError, match="K has 7 columns, v has 6 rows"):
        (Vj(x) | Vi(x)) @ x[1:]
    with pytest.raises(TypeError, match="truth value"):
        bool(Vi(x) == Vi(x))


# Torch ----------------------------------------------------------------------------------------------------------------


def tensors(rng, *shapes, dtype=torch.complex128):
    return [torch.tensor(numbers(rng, *shape)).to(dtype).requires_grad_() for shape in shapes]


GRADIENTS = {
    "product": lambda x, y: (Vi(x) * Vj(y)).sum(axis=1),
    "quotient": lambda x, y: (Vi(x) / (Vj(y) - 3)).sum(axis=0),
    "exponential": lambda x, y: ((Vi(x) | Vj(y)) / 3).exp().sum(axis=1),
    "functions": lambda x, y: (Vi(x).sqrt() * Vj(y).log() + Vi(x).tanh() ** 3).sum(axis=1),
    "powers": lambda x, y: (Vi(x) - Vj(y).log1p() ** (1 + 0.5j)).sum(axis=1),
    "distance": lambda x, y: (-Vi(x).sqdist(Vj(y)) / 2).exp().sum(axis=1),
    "sizes and angles": lambda x, y: (abs(Vi(x) - Vj(y)) * Vi(x).angle().exp1j()).sum(axis=1),
    "kernel": lambda x, y: ((Vi(x) | Vj(y)) / 3).exp() @ (2j * y),
    "mean": lambda x, y: (Vi(x) * Vj(y)).mean(axis=1),
    "variance": lambda x, y: (Vi(x) * Vj(y)).var(axis=1),
    "prod": lambda x, y: (Vi(x) + Vj(y)).prod(axis=1),
    "logsumexp": lambda x, y: (Vi(x) | Vj(y)).logsumexp(axis=1),
    "softmax": lambda x, y: (Vi(x) | Vj(y)).sumsoftmaxweight(Vj(y), axis=1),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_torchs_convention(rng, name):
    x, y = tensors(rng, (M, 2), (N, 2))
    assert torch.autograd.gradcheck(GRADIENTS[name], (x, y))


def test_gradients_agree_with_torchs_own(rng):
    x, y = tensors(rng, (M, D), (N, D), dtype=torch.complex64)

    def loss(z):
        return (z.real.sin() * 2 + z.imag**2).sum()

    ours = torch.autograd.grad(loss((Vi(x) * Vj(y)).exp().sum(axis=1)), [x, y])
    theirs = torch.autograd.grad(loss((x[:, None] * y).exp().sum(1)), [x, y])
    for found, expected in zip(ours, theirs, strict=True):
        assert found.dtype == torch.complex64
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_gradients_at_branch_cuts_and_axes_are_those_of_torch():
    z = torch.tensor([-1 + 0j, -2 + 0j, 1j, -3j, 4 + 0j], dtype=torch.complex128).requires_grad_()
    for name in ("sqrt", "log", "exp", "tanh", "square", "abs", "log1p"):
        points = z if name != "log1p" else z[1:]
        results = getattr(Vi(points[:, None]), name)().sum(axis=1)[:, 0], getattr(torch, name)(points)
        ours, theirs = (torch.autograd.grad((result * (1 + 2j)).real.sum(), z)[0] for result in results)
        torch.testing.assert_close(ours, theirs, msg=name)


def test_some_tensors_may_require_gradients_and_others_not(rng):
    x, y = tensors(rng, (M, D), (N, D))
    frozen = y.detach()
    result = (Vi(x) * Vj(frozen)).sum(axis=1)
    (found,) = torch.autograd.grad(result.abs().sum(), x)
    (expected,) = torch.autograd.grad((x[:, None] * frozen).sum(1).abs().sum(), x)
    torch.testing.assert_close(found, expected)
    assert not (Vi(x.detach()) * Vj(frozen)).sum(axis=1).requires_grad
    real = x.detach().real.clone().requires_grad_()
    (found,) = torch.autograd.grad((Vi(real) * Vj(frozen)).sum(axis=1).abs().sum(), real)
    (expected,) = torch.autograd.grad((real[:, None] * frozen).sum(1).abs().sum(), real)
    torch.testing.assert_close(found, expected)


def test_tensors_may_be_views_conjugated_or_negated(rng):
    x, y = tensors(rng, (D, M), (1, N, 2, D))
    x, y = x.detach(), y.detach()
    for a, b in ((x.T, y[0, :, 1]), (x.T.conj(), y[0, :, 0].conj()), (x.mH, y[0, :, 1])):
        found = (Vi(a) * Vj(b)).sum(axis=1)
        torch.testing.assert_close(found, (a[:, None] * b).sum(1))
    for size in (1, 4):
        negated = x[:1, :size].conj().imag
        assert negated.is_neg()
        torch.testing.assert_close(Vi(negated.T).sum(axis=1), negated.T.clone())
    K = Vi(x.T.real.contiguous()).sqdist(Vj(y[0, :, 0].real.contiguous()))
    v = y[0, :, 1, :2].conj()
    torch.testing.assert_close(K @ v, torch.cdist(x.T.real, y[0, :, 0].real).square().to(v.dtype) @ v)


def test_one_formula_may_be_reduced_and_differentiated_twice(rng):
    x, y = tensors(rng, (M, D), (N, D))
    z = Vi(x) * Vj(y)
    for axis in (0, 1):
        (found,) = torch.autograd.grad(z.sum(axis=axis).abs().sum(), x)
        (expected,) = torch.autograd.grad((x[:, None] * y).sum(axis).abs().sum(), x)
        torch.testing.assert_close(found, expected)


def test_tensors_stand_on_either_side_of_operators(x):
    rows, row = Vi(torch.tensor(x)), torch.tensor(x[:1])[None]
    for apply in OPERATORS:
        for found, expected in (
            (apply(row, rows), apply(x[:1], x)),
            (apply(rows, row), apply(x, x[:1])),
            (apply(torch.tensor(2j), rows), apply(2j, x)),
            (apply(rows.real, torch.tensor(2j)), apply(x.real, 2j)),
        ):
            np.testing.assert_allclose(found.sum(axis=1).numpy(), expected, rtol=1e-13)


def test_torch_and_numpy_mix(x, y):
    found = (Vi(torch.tensor(x)) * Vj(y)).sum(axis=1)
    assert found.dtype == torch.complex128
    np.testing.assert_allclose(found.numpy(), (x[:, None] * y).sum(1), rtol=1e-13)


# Formula strings ------------------------------------------------------------------------------------------------------


def interleave(z):
    return np.ascontiguousarray(z).view(z.real.dtype)


KEYWORDS = {
    "ComplexReal(x)": lambda x, y: x.real,
    "ComplexImag(x)": lambda x, y: x.imag,
    "ComplexAbs(x)": lambda x, y: np.abs(x),
    "ComplexSquareAbs(x)": lambda x, y: np.abs(x) ** 2,
    "ComplexAngle(x)": lambda x, y: np.angle(x),
    "Conj(x)": lambda x, y: x.conj(),
    "ComplexExp(x)": lambda x, y: np.exp(x),
    "ComplexSum(x)": lambda x, y: x.sum(-1, keepdims=True),
    "ComplexSumT(ComplexSum(x), {twice})": lambda x, y: np.repeat(x.sum(-1, keepdims=True), x.shape[-1], -1),
    "Real2Complex(ComplexReal(x))": lambda x, y: x.real + 0j,
    "Imag2Complex(ComplexReal(x))": lambda x, y: 1j * x.real,
    "ComplexExp1j(ComplexReal(x))": lambda x, y: np.exp(1j * x.real),
    "ComplexAdd(x, y)": lambda x, y: x + y,
    "ComplexSubtract(ComplexSum(x), y)": lambda x, y: x.sum(-1, keepdims=True) - y,
    "ComplexMult(x, y)": lambda x, y: x * y,
    "ComplexMult(ComplexSum(x), y)": lambda x, y: x.sum(-1, keepdims=True) * y,
    "ComplexDivide(x, y)": lambda x, y: x / y,
    "ComplexRealScal(Norm2(y), x)": lambda x, y: np.linalg.norm(y, axis=-1, keepdims=True) * x,
    "ComplexRealScal(x, Norm2(y))": lambda x, y: np.linalg.norm(y, axis=-1, keepdims=True) * x,
}


@pytest.mark.parametrize(
    ("dim", "texts"),
    [(1, [*KEYWORDS]), (D, [*KEYWORDS]), (120, ["ComplexReal(x)", "ComplexSum(x)", "ComplexMult(x, y)"])],
)
def test_keywords_read_real_and_imaginary_parts_in_turn(rng, dim, texts):
    x, y = numbers(rng, M, dim), numbers(rng, 1, dim)
    formula = ""
    for text in reversed(texts):
        part = text.format(twice=2 * dim)
        formula = f"Concat({part}, {formula})" if formula else part
    found = Genred(formula, [f"x = Vi({2 * dim})", f"y = Vj({2 * dim})"], "Sum", axis=1)(interleave(x), interleave(y))
    parts = [KEYWORDS[text](x, y) for text in texts]
    expected = np.concatenate([interleave(part) if np.iscomplexobj(part) else part for part in parts], -1)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("formula", ["ComplexReal(x)", "ComplexSumT(x, 6)", "ComplexRealScal(x, x)"])
def test_keywords_refuse_odd_dimensions(formula):
    with pytest.raises(ShapeError, match="even number"):
        Genred(formula, ["x = Vi(3)"], "Sum", axis=1)
