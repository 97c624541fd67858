"""Derivatives of functions of NumPy arrays: the same as finite differences of their dense forms."""

import numpy as np
import pytest

import pylazy
import reference
from pylazy import DtypeError, Genred, LazyTensor, Pm, ShapeError, UnsupportedError, Vi, Vij, Vj
from pylazy.compiler.compile import stages_as_text
from pylazy.pytorch.request_reader import read_request
from pylazy.reductions import DerivedRequest, Order
from pylazy.trace import trace

SIZES = (7, 5)
LARGE = (300, 270)


def arguments(rows, columns, *, seed=0, dtype=np.float64, batch=((), ())):
    """Make x, y, b and p."""
    random = np.random.default_rng(seed)
    shapes = [(*batch[0], rows, 3), (*batch[1], columns, 3), (*batch[1], columns, 2), (3,)]
    return [(0.5 + random.random(shape)).astype(dtype) for shape in shapes]


def scores(x, y, p):
    return -(((x - y) * p).square()).sum(-1)


def lazy_variables(x, y, b):
    return LazyTensor(x[..., :, None, :]), LazyTensor(y[..., None, :, :]), LazyTensor(b[..., None, :, :])


def lazily(reduce):
    def f(x, y, b, p):
        x_i, y_j, b_j = lazy_variables(x, y, b)
        return reduce(scores(x_i, y_j, Pm(p)), b_j)

    return f


def densely(kind, make):
    def f(x, y, b, p):
        x, y, b = x[..., :, None, :], y[..., None, :, :], b[..., None, :, :]
        formula = -(((x - y) * p) ** 2).sum(-1, keepdims=True)
        return reference.reduce_dense(kind, make(formula, b), axis="j")

    return f


CASES = {
    "sum": (lambda s, b: (s.exp() * b).sum(axis=s.dim() - 2), ("sum", lambda s, b: (np.exp(s) * b,))),
    "mean": (lambda s, b: (s.exp() * b).mean(axis=s.dim() - 2), ("mean", lambda s, b: (np.exp(s) * b,))),
    "prod": (lambda s, b: (s.exp() + b).prod(axis=s.dim() - 2), ("prod", lambda s, b: (np.exp(s) + b,))),
    "logsumexp": (lambda s, b: s.logsumexp(axis=s.dim() - 2, weight=b), ("logsumexp", lambda s, b: (s, b))),
    "softmax": (lambda s, b: s.sumsoftmaxweight(b, axis=s.dim() - 2), ("softmax", lambda s, b: (s, b))),
}


def case(name):
    lazy, (kind, make) = CASES[name]
    return lazily(lazy), densely(kind, make)


def directional(f, primals, tangents, step=1e-6):
    """Give the derivative of f along the tangents by central differences."""
    plus, minus = (
        f(*(primal + sign * step * tangent for primal, tangent in zip(primals, tangents, strict=True)))
        for sign in (1, -1)
    )
    return (plus - minus) / (2 * step)


def along(number, inputs):
    """Give tangents that are zero but for one argument."""
    random = np.random.default_rng(9)
    return [random.random(x.shape) if k == number else np.zeros(x.shape) for k, x in enumerate(inputs)]


@pytest.mark.parametrize("sizes", [SIZES, LARGE, (3, 400), (400, 3), (1, 5), (7, 1)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_match_finite_differences(name, sizes):
    if name == "prod" and max(sizes) > 100:
        pytest.skip("a product of hundreds of factors leaves no digits for differences")
    lazy, dense = case(name)
    inputs = arguments(*sizes)
    value, gradients = pylazy.value_and_grad(lambda *args: lazy(*args).sum(), argnums=(0, 1, 2, 3))(*inputs)
    expected = dense(*inputs).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for number, gradient in enumerate(gradients):
        tangents = along(number, inputs)
        slope = directional(lambda *args: dense(*args).sum(), inputs, tangents)
        assert gradient.shape == inputs[number].shape
        np.testing.assert_allclose((gradient * tangents[number]).sum(), slope, rtol=1e-6, atol=1e-8 * abs(expected))


@pytest.mark.parametrize("name", CASES)
def test_forward_mode_matches_finite_differences(name):
    lazy, dense = case(name)
    inputs = arguments(*SIZES)
    tangents = arguments(*SIZES, seed=1)
    value, tangent = pylazy.jvp(lazy, inputs, tangents)
    np.testing.assert_allclose(value, dense(*inputs), rtol=1e-12)
    np.testing.assert_allclose(tangent, directional(dense, inputs, tangents), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batch", [((), ()), ((2, 1), (3,))], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_reverse_mode_is_the_transpose_of_forward_mode(name, batch):
    lazy, dense = case(name)
    inputs = arguments(*SIZES, batch=batch)
    tangents = arguments(*SIZES, seed=1, batch=batch)
    value, pull_back = pylazy.vjp(lazy, *inputs)
    same, tangent = pylazy.jvp(lazy, inputs, tangents)
    np.testing.assert_allclose(value, dense(*inputs), rtol=1e-12)
    np.testing.assert_array_equal(value, same)
    cotangent = np.random.default_rng(2).random(value.shape)
    gradients = pull_back(cotangent)
    assert [gradient.shape for gradient in gradients] == [x.shape for x in inputs]
    pulled = sum((gradient * t).sum() for gradient, t in zip(gradients, tangents, strict=True))
    np.testing.assert_allclose((tangent * cotangent).sum(), pulled, rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_gradients_with_the_value_equal_those_without(name):
    lazy, _ = case(name)
    inputs = arguments(*SIZES)
    value, pull_back = pylazy.vjp(lazy, *inputs)
    apart = pull_back(np.ones(value.shape))
    together = pylazy.grad(lambda *args: lazy(*args).sum(), argnums=(0, 1, 2, 3))(*inputs)
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_gradients_have_the_dtypes_of_the_arguments(dtype):
    lazy, _ = case("logsumexp")
    inputs = arguments(*SIZES, dtype=dtype)
    value, gradients = pylazy.value_and_grad(lambda *args: lazy(*args).mean(), argnums=(0, 1, 2, 3))(*inputs)
    wide = pylazy.grad(lambda *args: lazy(*args).mean(), argnums=(0, 1, 2, 3))(*(x.astype(float) for x in inputs))
    assert value.dtype == dtype
    for gradient, expected in zip(gradients, wide, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, expected, atol=4 * np.finfo(dtype).eps * np.abs(expected).max())


def gaussian_product(x, y, b):
    return (-Vi(x).sqdist(Vj(y))).exp() @ b


def test_an_argument_in_two_places_collects_both_gradients():
    x, _, _, _ = arguments(*SIZES)
    b = np.arange(7.0)
    gradient = pylazy.grad(lambda x: gaussian_product(x, x, b).sum())(x)
    of_rows, of_columns = pylazy.grad(lambda x, y: gaussian_product(x, y, b).sum(), argnums=(0, 1))(x, x)
    np.testing.assert_allclose(gradient, of_rows + of_columns, rtol=1e-12)


def test_numbers_and_one_dimensional_vectors_have_gradients():
    x, y, b, _ = arguments(*SIZES)
    v = b[:, 0]

    def energy(scale, v):
        return ((-Vi(x).sqdist(Vj(y))) * Pm(scale)).exp() @ v

    of_scale, of_v = pylazy.grad(lambda *args: energy(*args).sum(), argnums=(0, -1))(0.5, v)
    squares = ((x[:, None] - y[None]) ** 2).sum(-1)
    np.testing.assert_allclose(of_scale, -((squares * np.exp(-0.5 * squares)) @ v).sum(), rtol=1e-12)
    np.testing.assert_allclose(of_v, np.exp(-0.5 * squares).sum(0), rtol=1e-12)
    assert of_scale.shape == ()
    assert of_v.shape == v.shape


@pytest.mark.parametrize("exponent", [1.5, 2.5])
def test_powers_of_an_integer_and_a_half_are_flat_at_zero(exponent):
    x = arguments(*SIZES)[0]
    gradient = pylazy.grad(lambda x: (Vi(x).sqdist(Vj(x)) ** exponent).sum(axis=1).sum())(x)
    differences = x[:, None] - x[None]
    slopes = exponent * (differences**2).sum(-1, keepdims=True) ** (exponent - 1)
    np.testing.assert_allclose(gradient, 4 * (slopes * differences).sum(1), rtol=1e-11)


def test_an_argument_that_the_formula_does_not_have_has_gradient_zero():
    x, y, _, _ = arguments(*SIZES)
    _, gradient = pylazy.grad(lambda x, _: gaussian_product(x, x, np.ones(7)).sum(), argnums=(0, 1))(x, y)
    np.testing.assert_array_equal(gradient, np.zeros_like(y))


def test_dense_arrays_of_pairs_have_gradients():
    x, y, _, _ = arguments(*SIZES)
    cost = np.random.default_rng(4).random(SIZES)

    def energy(x, cost):
        return (Vij(cost) - Vi(x).sqdist(Vj(y))).exp().sum(axis=0)

    expected = np.exp(cost - ((x[:, None] - y[None]) ** 2).sum(-1))
    np.testing.assert_allclose(pylazy.grad(lambda *args: energy(*args).sum(), argnums=1)(x, cost), expected, rtol=1e-12)
    np.testing.assert_allclose(pylazy.jvp(energy, (x, cost), (0 * x, cost))[1][:, 0], (expected * cost).sum(0))
    batch = np.stack([cost, 2 * cost])[..., None]
    gradient = pylazy.grad(lambda cost, y: (Vij(cost) * LazyTensor(y[None, None])).sum(axis=2).sum(), argnums=(0, 1))
    of_cost, of_y = gradient(batch, y)
    np.testing.assert_allclose(of_cost, np.broadcast_to(y.sum(-1)[None, None, :, None], batch.shape))
    np.testing.assert_allclose(of_y, np.broadcast_to(batch.sum((0, 1)), y.shape))


def test_results_may_be_multiplied_with_constants():
    x, y, b, _ = arguments(*SIZES)
    w = np.random.default_rng(3).random(7)
    value, of_b = pylazy.value_and_grad(lambda b: 2.0 * (w * gaussian_product(x, y, b) / 4).sum())(b[:, 0])
    kernel = np.exp(-((x[:, None] - y[None]) ** 2).sum(-1))
    np.testing.assert_allclose(value, 0.5 * w @ kernel @ b[:, 0], rtol=1e-12)
    np.testing.assert_allclose(of_b, 0.5 * w @ kernel, rtol=1e-12)


def test_functions_may_be_genred_or_reductions_that_have_not_run():
    x, y, b, _ = arguments(*SIZES)
    genred = Genred("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], axis=1)
    symbolic = ((-Vi(0, 3).sqdist(Vj(1, 3))).exp() * Vj(2, 2)).sum(axis=1)

    def postponed(x, y, b):
        return ((-Vi(x).sqdist(Vj(y))).exp() * Vj(b)).sum(axis=1, call=False)

    tangents = arguments(*SIZES, seed=1)[:3]
    value, expected = pylazy.jvp(gaussian_product, (x, y, b), tangents)
    for f in (genred, symbolic, postponed):
        found, tangent = pylazy.jvp(f, (x, y, b), tangents)
        np.testing.assert_allclose(found, value)
        np.testing.assert_allclose(tangent, expected)


@pytest.mark.parametrize("sizes", [(0, 5), (7, 0)], ids=str)
def test_gradients_over_nothing_are_zero(sizes):
    lazy, _ = case("sum")
    inputs = arguments(*sizes)
    value, gradients = pylazy.value_and_grad(lambda *args: lazy(*args).sum(), argnums=(0, 1, 2, 3))(*inputs)
    assert value == 0
    for gradient, x in zip(gradients, inputs, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(x))
    assert not pylazy.jvp(lazy, inputs, inputs)[1].any()


def test_gradients_follow_ranges():
    x, y, b, _ = arguments(6, 8)
    blocks = (
        [[0, 2], [2, 6]],
        [1, 2],
        [[0, 3], [3, 8]],
        [[0, 3], [3, 8]],
        [1, 2],
        [[0, 2], [2, 6]],
    )
    ranges = tuple(np.array(part, dtype=np.int32) for part in blocks)
    mask = np.zeros((6, 8))
    mask[:2, :3] = mask[2:, 3:] = 1

    def energy(x, b):
        return ((-Vi(x).sqdist(Vj(y))).exp() * Vj(b)).sum(axis=1, ranges=ranges).sum()

    value, (of_x, of_b) = pylazy.value_and_grad(energy, argnums=(0, 1))(x, b)
    kernel = np.exp(-((x[:, None] - y[None]) ** 2).sum(-1)) * mask
    np.testing.assert_allclose(value, (kernel @ b).sum(), rtol=1e-12)
    np.testing.assert_allclose(of_b, np.broadcast_to(kernel.sum(0)[:, None], b.shape), rtol=1e-12)
    weights = kernel * b.sum(-1)
    np.testing.assert_allclose(of_x, -2 * (x * weights.sum(1)[:, None] - weights @ y), rtol=1e-10, atol=1e-12)


def test_read_only_and_strided_arguments_are_read():
    x, y, b, _ = arguments(*SIZES)
    expected = pylazy.grad(lambda x: gaussian_product(x, y, b).sum())(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (frozen, np.asfortranarray(x), x.astype(">f8")):
        np.testing.assert_array_equal(pylazy.grad(lambda x: gaussian_product(x, y, b).sum())(same), expected)


# Sweeps ---------------------------------------------------------------------------------------------------------------

GAUSSIAN = (-Vi(0, 3).sqdist(Vj(1, 3))).exp() * Vj(2, 2)
REDUCED = {
    "sum": GAUSSIAN.sum(axis=1, call=False),
    "logsumexp": (-Vi(0, 3).sqdist(Vj(1, 3))).logsumexp(axis=1, weight=Vj(2, 2), call=False),
    "softmax": (-Vi(0, 3).sqdist(Vj(1, 3))).sumsoftmaxweight(Vj(2, 2), axis=1, call=False),
}


def sweeps(name, order):
    """Count the passes over all pairs of the program of a derivative."""
    derived = REDUCED[name].executable.derivative(order)
    return stages_as_text(trace(derived.request), "x86-64-v3")["kernel"].count('"reduction.map_reduce"')


@pytest.mark.parametrize(
    ("name", "wrt", "expected"),
    [
        ("sum", (0,), 1),  # the value and d/dx, over j
        ("sum", (1, 2), 2),  # the value over j; d/dy and d/db over i
        ("sum", (0, 1, 2), 2),
        ("logsumexp", (0, 1, 2), 3),  # gradients read the value
        ("softmax", (0, 1, 2), 3),
    ],
)
def test_value_and_gradients_share_sweeps(name, wrt, expected):
    assert sweeps(name, Order("wrt", wrt, with_results=True)) == expected


@pytest.mark.parametrize(("name", "expected"), [("sum", 1), ("logsumexp", 2), ("softmax", 2)])
def test_value_and_tangent_share_a_sweep(name, expected):
    assert sweeps(name, Order("tangents", (0, 1, 2), with_results=True)) == expected


def test_derivatives_of_derivatives_in_any_mode_are_found_again_from_their_text():
    request = REDUCED["logsumexp"].executable.request
    for order in (
        Order("tangents", (0, 2)),
        Order("wrt", (0, 3)),
        Order("wrt", (1,), with_results=True),
        Order("tangents", (0, 1), with_results=True),
    ):
        request = DerivedRequest(request, order)
        assert read_request(request.canonical_text()).canonical_text() == request.canonical_text()
        assert [spec.name[:4] for spec in read_request(request.canonical_text()).inputs] == [
            spec.name[:4] for spec in request.inputs
        ]


@pytest.mark.parametrize("line", ["tangent with respect to 9", "results with respect to 0", "gradient of 0"])
def test_text_of_no_derivative_is_refused(line):
    with pytest.raises(UnsupportedError, match="trace or export it anew"):
        read_request(f"{REDUCED['sum'].executable.request.canonical_text()}{line}\n")


# Refusals -------------------------------------------------------------------------------------------------------------


def add_in_place(x):
    total = np.ones((4, 3))
    total += x
    return total.sum()


def write_element(x):
    total = np.ones((4, 3))
    total[0] = x[0]
    return total.sum()


def write_argument(x):
    x[0] = 0
    return x.sum()


REFUSALS = {
    "several elements": (lambda x: (Vi(x) * 2).sum(axis=1), ShapeError, r"shape \(4, 3\), expected one element"),
    "two results": (lambda x: Vi(x).min_argmin(axis=1), ShapeError, "returned 2 results"),
    "nothing": (lambda x: None, UnsupportedError, "returned NoneType"),
    "a copy": (lambda x: Vi(np.array(x)).sum(axis=1), UnsupportedError, "read as an array"),
    "a number": (lambda x: float(x.sum()), UnsupportedError, "read as a number"),
    "a method": (lambda x: x.byteswap().sum(), UnsupportedError, "asked for byteswap"),
    "a function": (lambda x: np.linalg.inv(x[:3]).sum(), UnsupportedError, "numpy.linalg.inv has no derivative here"),
    "a function of elements": (lambda x: np.spacing(x).sum(), UnsupportedError, "numpy.spacing has no derivative"),
    "an argument": (
        lambda x: np.sum(x, dtype=float),
        UnsupportedError,
        r"numpy.sum with these arguments \(got an unex",
    ),
    "an argument of elements": (lambda x: np.exp(x, where=x > 0).sum(), UnsupportedError, "where of numpy.exp"),
    "a method of a function": (lambda x: np.add.reduce(x).sum(), UnsupportedError, "numpy.add.reduce has no"),
    "einsum with dots": (lambda x: np.einsum("...i->...", x).sum(), UnsupportedError, "or with '...'"),
    "a diagonal by einsum": (lambda x: np.einsum("ii->i", x[:3]).sum(), UnsupportedError, "one label twice"),
    "a norm": (lambda x: np.linalg.norm(x, "nuc"), UnsupportedError, "numpy.linalg.norm with ord='nuc'"),
    "in place": (add_in_place, UnsupportedError, "numpy.add into an array of its own"),
    "an element in place": (write_element, UnsupportedError, "read as an array"),
    "an argument in place": (write_argument, UnsupportedError, "is written to"),
    "out": (lambda x: Vi(x).sum(axis=1, out=np.ones((4, 3))).sum(), UnsupportedError, "out is given in a function"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_would_lose_a_derivative_is_refused_at_the_users_line(name):
    f, error, message = REFUSALS[name]
    with pytest.raises(error, match=message) as raised:
        pylazy.grad(f)(np.ones((4, 3)))
    if issubclass(error, pylazy.PylazyError):
        assert "test_gradients.py" in str(raised.value)


def test_arguments_that_have_no_derivative_are_refused():
    f = pylazy.grad(lambda x: Vi(x).sum(axis=1).sum())
    for x in (np.ones((4, 3), dtype=int), [[1.0]], None, True):
        with pytest.raises(DtypeError, match=r"argument 0 is .*, and a derivative of it is asked for"):
            f(x)


def test_wrong_numbers_of_arguments_and_shapes_are_refused():
    x = np.ones((4, 3))
    with pytest.raises(ShapeError, match="argument 1 of a function that got 1"):
        pylazy.grad(lambda x: Vi(x).sum(axis=1).sum(), argnums=1)(x)
    with pytest.raises(ShapeError, match="each argument once"):
        pylazy.grad(lambda x: Vi(x).sum(axis=1).sum(), argnums=(0, -1))(x)
    with pytest.raises(ShapeError, match=r"tangent 0 has shape \(3,\)"):
        pylazy.jvp(lambda x: Vi(x).sum(axis=1), (x,), (np.ones(3),))
    with pytest.raises(ShapeError, match="1 primals and 0 tangents"):
        pylazy.jvp(lambda x: Vi(x).sum(axis=1), (x,), ())
    _, pull_back = pylazy.vjp(lambda x: Vi(x).sum(axis=1), x)
    with pytest.raises(ShapeError, match=r"cotangent has shape \(\), expected \(4, 3\)"):
        pull_back(1.0)
