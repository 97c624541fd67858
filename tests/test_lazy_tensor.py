"""LazyTensor: what goes in, what shapes come out, what it shares with arrays."""

# ruff: noqa: N803, N806  a kernel matrix is called K

from __future__ import annotations

import copy
import operator
import pickle
import threading

import numpy as np
import pytest

import pylazy
from pylazy import ComplexLazyTensor, LazyTensor, Pm, Reduction, UnsupportedError, Var, Vi, Vj
from pylazy.compat.keops.front_end import find_name
from reference import assert_close, evaluate_dense, reduce_dense

M, N, D, E = 7, 5, 3, 2


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(2)


@pytest.fixture(name="x")
def make_x(rng):
    return rng.standard_normal((M, D))


@pytest.fixture(name="y")
def make_y(rng):
    return rng.standard_normal((N, D))


@pytest.fixture(name="K")
def make_kernel(x, y):
    return (-((Vi(x) - Vj(y)) ** 2).sum(-1) / 2).exp()


def dense_kernel(x, y):
    return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / 2)


# Making one -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda x: LazyTensor(x[:, None, :]), (M, 1, D)),
        (lambda x: LazyTensor(x[None, :, :]), (1, M, D)),
        (lambda x: LazyTensor(x[None, :1, :]), (1, 1, D)),
        (lambda x: LazyTensor(x, axis=0), (M, 1, D)),
        (lambda x: LazyTensor(x, axis=1), (1, M, D)),
        (Vi, (M, 1, D)),
        (Vj, (1, M, D)),
        (lambda x: Pm(x[0]), (1, 1, D)),
        (lambda x: Pm(x[:1]), (1, 1, D)),
        (Pm, (M, 1, 1, D)),
        (lambda x: LazyTensor(x[0]), (1, 1, D)),
        (lambda x: LazyTensor(x[0, 0]), (1, 1, 1)),
        (lambda x: LazyTensor(np.array(2.0)), (1, 1, 1)),
        (lambda x: LazyTensor(2), (1, 1, 1)),
        (lambda x: LazyTensor(2.5), (1, 1, 1)),
        (lambda x: LazyTensor([1, 2.5, 3]), (1, 1, 3)),
        (lambda x: Vi(x.tolist()), (M, 1, D)),
        (lambda x: LazyTensor(np.broadcast_to(x[:, None, :], (4, 2, M, 1, D))), (4, 2, M, 1, D)),
        (lambda x: Var(x, cat=1), (1, M, D)),
    ],
)
def test_full_shape_says_which_axes_the_data_has(make, shape, x):
    assert make(x)._shape == shape


def test_shape_drops_an_inner_dimension_of_one(x, y):
    difference = Vi(x) - Vj(y)
    assert (difference.shape, difference._shape, difference.ndim) == ((M, N, D), (M, N, D), D)
    norm = difference.sqnorm2()
    assert (norm.shape, norm._shape, norm.ndim) == ((M, N), (M, N, 1), 1)
    assert (norm.dim(), norm.nbatchdims) == (3, 0)


def test_dtype_is_that_of_the_arrays_and_numbers_have_none(x):
    assert Vi(x).dtype == "float64"
    assert Vi(x.astype(np.float32)).dtype == "float32"
    assert LazyTensor(2.0).dtype is None
    assert LazyTensor([1.0, 2.0]).dtype is None
    assert (Vi(x.astype(np.float32)) * 2.0 + [1.0, 2.0, 3.0]).dtype == "float32"


@pytest.mark.parametrize(
    "number", [2, 2.0, True, np.float32(2), np.float64(2), np.int64(2), np.array(2.0), [2.0], (2.0,)]
)
@pytest.mark.parametrize("reflected", [False, True])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow", "mod", "lt", "ge", "eq", "ne"])
def test_numbers_of_every_kind_adapt_on_either_side(name, reflected, number, x):
    operate = getattr(operator, name)
    lazy, dense = Vi(np.abs(x.astype(np.float32))), np.abs(x)
    other = float(np.asarray(number).reshape(()).item()) if not isinstance(number, list | tuple) else number[0]
    formula = operate(number, lazy) if reflected else operate(lazy, number)
    expected = operate(other, dense) if reflected else operate(dense, other)
    result = formula.sum(axis=1)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6)


def test_arrays_of_three_dimensions_are_operands_on_either_side(x, y):
    for formula in (Vi(x) - y[None, :, :], -(y[None, :, :] - Vi(x))):
        assert_close(formula.sum(axis=1), (x[:, None] - y[None]).sum(1), dtype=np.float64, columns=N, scale=10.0)


def test_unbound_calls_and_augmented_assignment_work(x, y):
    K = 0
    K += LazyTensor.exp(-LazyTensor.sqdist(LazyTensor(x[:, None, :]), y[None, :, :]))
    expected = np.exp(-((x[:, None] - y[None]) ** 2).sum(-1)).sum(1, keepdims=True)
    assert_close(LazyTensor.sum(K, dim=1), expected, dtype=np.float64, columns=N)


def test_components_can_be_indexed_sliced_and_iterated(x):
    v = Vi(x)
    for part, expected in [
        (v[0], x[:, :1]),
        (v[-1], x[:, 2:]),
        (v[1:], x[:, 1:]),
        (v[:-1], x[:, :-1]),
        (v[:, :, 1], x[:, 1:2]),
        (v[..., :2], x[:, :2]),
        (LazyTensor.cat(tuple(v), dim=-1), x),
        (LazyTensor.concatenate([v, v]), np.concatenate([x, x], 1)),
    ]:
        np.testing.assert_array_equal(part.sum(axis=1), expected)


# Layouts --------------------------------------------------------------------------------------------------------------


LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "reversed components": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "every other": lambda a: np.repeat(a, 2, axis=0)[::2],
    "columns of a wider array": lambda a: np.concatenate([a, a], axis=1)[:, :D],
    "misaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), dtype=np.uint8)[1:].view(a.dtype).reshape(a.shape),
    "read-only": lambda a: np.frombuffer(a.tobytes(), dtype=a.dtype).reshape(a.shape),
    "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
    "zero stride": lambda a: np.broadcast_to(a[:1], a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layout_gives_the_same_result(layout, dtype, x, y):
    laid_out = LAYOUTS[layout](x.astype(dtype))
    plain = np.array(laid_out, order="C", subok=False)
    found = Vi(laid_out).sqdist(Vj(y.astype(dtype))).sum(axis=1)
    np.testing.assert_array_equal(found, Vi(plain).sqdist(Vj(y.astype(dtype))).sum(axis=1))


def test_narrower_arrays_are_widened(x, y):
    found = Vi(x.astype(np.float32)).sqdist(Vj(y)).sum(axis=1)
    assert found.dtype == np.float64
    wide = x.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(found, Vi(wide).sqdist(Vj(y)).sum(axis=1))


BATCHES = [((2,), (2,)), ((2,), (1,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (4,)), ((2,), ())]


@pytest.mark.parametrize(("left", "right"), BATCHES)
@pytest.mark.parametrize("axis", [0, 1])
def test_batch_dimensions_broadcast(left, right, axis, rng):
    x, y = rng.standard_normal((*left, M, 1, D)), rng.standard_normal((*right, 1, N, D))
    formula = LazyTensor(x).sqdist(LazyTensor(y)) * Pm(0.5)
    expected = reduce_dense("sum", [evaluate_dense(formula)], axis="ij"[axis])
    rank = formula.nbatchdims
    assert rank == max(len(left), len(right))
    assert_close(formula.sum(axis=rank + axis), expected, dtype=np.float64, columns=M, scale=100.0)
    smallest = reduce_dense("argkmin", [evaluate_dense(formula)], axis="ij"[axis], k=2)[..., 0]
    np.testing.assert_array_equal(formula.argKmin(2, axis=rank + axis), smallest)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a[::-1],
        lambda a: np.swapaxes(np.ascontiguousarray(np.swapaxes(a, 0, 1)), 0, 1),
        np.asfortranarray,
        lambda a: np.broadcast_to(np.asfortranarray(a[:, :1]), a.shape),
        lambda a: a.astype(np.float32),
    ],
)
def test_batch_dimensions_may_have_any_stride(view, rng):
    x, y = view(rng.standard_normal((2, 3, M, 1, D))), rng.standard_normal((3, 1, N, D))
    formula = LazyTensor(x).sqdist(LazyTensor(y))
    expected = reduce_dense("sum", [evaluate_dense(formula)], axis="j")
    assert_close(formula.sum(axis=3), expected, dtype=np.float64, columns=N, scale=100.0)


def test_parameters_may_have_a_batch(rng):
    x, p = rng.standard_normal((2, M, 1, D)), rng.standard_normal((2, D))
    expected = (x * p[:, None, None, :]).sum(2)
    assert_close((LazyTensor(x) * Pm(p)).sum(axis=2), expected, dtype=np.float64)


# Reductions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "same"), [(1, -2), (0, -3), (-1, 2)])
def test_negative_axes_count_from_the_end(axis, same, x, y):
    formula = Vi(x) * Vj(y)
    found, again = formula.sum(axis=axis), formula.sum(dim=same)
    if axis == -1:
        found, again = found.sum(axis=1), again.sum(axis=1)
    np.testing.assert_array_equal(found, again)


def test_default_axis_is_the_inner_one(x, y):
    for name in ("sum", "min", "max", "argmin", "argmax", "mean"):
        assert getattr(Vi(x) * Vj(y), name)().shape == (M, N)


@pytest.mark.parametrize(("axis", "shape"), [(1, (M, 1, D)), (0, (1, N, D))])
def test_keepdim_keeps_the_reduced_axis(axis, shape, x, y):
    formula = Vi(x) * Vj(y)
    kept = formula.sum(axis=axis, keepdim=True)
    assert kept.shape == shape
    np.testing.assert_array_equal(kept.squeeze(axis), formula.sum(axis=axis))


@pytest.mark.parametrize("name", ["sum", "min", "max", "argmin", "argmax", "logsumexp", "min_argmin", "max_argmax"])
def test_reduction_aliases_agree(name, K):
    np.testing.assert_array_equal(getattr(K, f"{name}_reduction")(axis=1), getattr(K, name)(axis=1))


def test_matrix_products_follow_array_conventions(K, x, y, rng):
    dense = dense_kernel(x, y)
    for v in (
        rng.standard_normal(N),
        rng.standard_normal((N, 1)),
        rng.standard_normal((N, E)),
        rng.standard_normal((4, N, E)),
    ):
        found = K @ v
        assert found.shape == (dense @ v).shape
        assert_close(found, dense @ v, dtype=np.float64, columns=N, scale=10.0)
    u = rng.standard_normal(M)
    assert_close(K.T @ u, dense.T @ u, dtype=np.float64, columns=M, scale=10.0)
    np.testing.assert_array_equal(K.rmatvec(u), K.t() @ u)
    np.testing.assert_array_equal(K.matvec(y[:, 0]), K @ y[:, 0])
    assert K.T.shape == (N, M)
    assert K.T.T.shape == K.shape


def test_product_of_a_batch_with_one_vector_has_the_shape_of_numpy(rng):
    x, y, v = rng.standard_normal((4, M, 1, D)), rng.standard_normal((1, N, D)), rng.standard_normal(N)
    K = LazyTensor(x).sqdist(LazyTensor(y))
    dense = evaluate_dense(K)[..., 0]
    assert_close(K @ v, dense @ v, dtype=np.float64, columns=N, scale=100.0)


def test_scipy_takes_it_for_a_linear_operator(K, x, y):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    linear = linalg.aslinearoperator(K)
    assert_close(linear @ y, dense_kernel(x, y) @ y, dtype=np.float64, columns=N, scale=10.0)


def test_data_is_read_when_the_reduction_runs(x, y):
    formula = Vi(x).sqdist(Vj(y))
    before = formula.sum(axis=1)
    x *= 2.0
    assert not np.array_equal(before, formula.sum(axis=1))
    assert_close(
        formula.sum(axis=1), ((x[:, None] - y) ** 2).sum(-1).sum(1, keepdims=True), dtype=np.float64, columns=N
    )


def test_prepared_reduction_runs_again_on_new_data(K, x):
    prepared = K.sum(axis=1, call=False)
    assert isinstance(prepared, Reduction)
    assert prepared.shape == (M, 1)
    first = prepared()
    x += 1.0
    second = prepared()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, K.sum(axis=1))
    assert "sum_j" in repr(prepared)


def test_every_stage_can_be_read(K):
    prepared = K.sum(axis=1, call=False)
    assert "sum over j" in prepared.as_text("expression")
    for stage, word in [
        ("formula", "reduction.reduce"),
        ("kernel", "reduction.map_reduce"),
        ("loops", "scf.for"),
        ("llvm", "define"),
        ("asm", "ret"),
    ]:
        assert word in prepared.as_text(stage)
    assert "zmm" in prepared.as_text("asm", target="x86-64-v4")
    assert ".entry" in prepared.as_text("ptx")
    with pytest.raises(UnsupportedError, match="target x86-64 has no stage 'ptx'"):
        prepared.as_text("ptx", target="x86-64")


def test_compiling_ahead_gives_the_same_result(K):
    prepared = K.sum(axis=1, call=False)
    compiled = prepared.lower().compile()
    np.testing.assert_array_equal(compiled(), prepared())
    with pytest.raises(UnsupportedError, match="can only be read as text"):
        prepared.lower("sm_90").compile()


def test_out_receives_the_result(K):
    out = np.full((M, 1), -1.0)
    assert K.sum(axis=1, out=out) is out
    np.testing.assert_array_equal(out, K.sum(axis=1))
    strided = np.zeros((M, 4))[:, 1:2]
    np.testing.assert_array_equal(K.sum(axis=1, out=strided), out)
    values, positions = np.empty((M, 1)), np.empty((M, 1), np.int64)
    K.min_argmin(axis=1, out=(values, positions))
    np.testing.assert_array_equal(positions, K.argmin(axis=1))


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "CPU"},
        {"backend": "auto", "device_id": -1},
        {"dtype_acc": "float64"},
        {"dtype_acc": "auto", "use_double_acc": True},
        {"sum_scheme": "block_sum"},
        {"sum_scheme": "direct_sum"},
        {"enable_chunks": False, "use_fast_math": False},
        {"ranges": None, "call": True},
    ],
)
def test_options_that_change_nothing_are_accepted(options, K):
    np.testing.assert_array_equal(K.sum(axis=1, **options), K.sum(axis=1))


def test_backend_is_an_attribute_that_formulas_inherit(K):
    K.backend = "CPU"
    assert (K * 2).backend == "CPU"
    assert (K * 2).sum(axis=1).shape == (M, 1)


def test_formula_of_numbers_alone_is_float64():
    result = (LazyTensor(2.5) * LazyTensor([1.0, 2.0])).sum(axis=1)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, [[2.5, 5.0]])


def test_threads_share_formulas_safely(rng):
    x, y = rng.standard_normal((M, D)), rng.standard_normal((N, D))
    expected = ((x[:, None] - y) ** 2).sum(-1)
    failures = []

    def work(power):
        for _ in range(50):
            found = (Vi(x).sqdist(Vj(y)) * power).sum(axis=1)
            if not np.allclose(found[:, 0], (expected * power).sum(1), rtol=1e-12):
                failures.append(power)

    threads = [threading.Thread(target=work, args=(power,)) for power in (2, 2, 3, 0.5, 0.5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_public_names_exist():
    for name in pylazy.__all__:
        assert getattr(pylazy, name) is not None
    assert set(pylazy.__all__) <= set(dir(pylazy))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = pylazy.absent


class GaussianKernel(LazyTensor):
    """As a program may write its own kernels: with arguments and attributes of its own."""

    def __init__(self, x, y, *, scale):
        self.scale = scale
        super().__init__((-((Vi(x) - Vj(y)) ** 2).sum(-1) * scale).exp())


class Rows(LazyTensor):
    def __init__(self, x, axis=0):
        super().__init__(x, axis)


class RowsOfNumbers(Rows):
    pass


class ComplexRows(ComplexLazyTensor):
    def __init__(self, x, name):
        super().__init__(x, axis=0)
        self.name = name


def test_subclass_may_have_an_init_with_arguments_of_its_own(x, y, rng):
    b = rng.standard_normal((N, E))
    K = GaussianKernel(x, y, scale=0.5)
    assert K.scale == 0.5
    assert isinstance(K, LazyTensor)
    assert_close(K @ b, dense_kernel(x, y) @ b, dtype=np.float64, columns=N)
    assert_close((2 * K) @ b, 2 * dense_kernel(x, y) @ b, dtype=np.float64, columns=N)
    assert_close(K.T @ b[:1].repeat(M, 0), dense_kernel(x, y).T @ b[:1].repeat(M, 0), dtype=np.float64, columns=M)


@pytest.mark.parametrize("cls", [Rows, RowsOfNumbers])
def test_subclass_reads_data_as_the_class_does(cls, x, y):
    found = ((cls(x) - Vj(y)) ** 2).sum(-1).sum(axis=1)
    assert_close(found, ((x[:, None] - y[None]) ** 2).sum((-1, -2))[:, None], dtype=np.float64, columns=N)
    assert isinstance(cls(x), cls)
    assert cls((0, D, 0), axis=None).shape == Var(0, D, 0).shape


def test_formulas_made_of_those_of_a_subclass_with_an_init_are_plain(x, y):
    K = GaussianKernel(x, y, scale=0.5)
    assert {type(made) for made in (K + 1, 1 - K, K.exp(), K.T, K * K)} == {LazyTensor}
    Plain = type("Plain", (LazyTensor,), {"__slots__": ()})
    assert type(Plain(x, 0) + 1) is Plain


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda K: pickle.loads(pickle.dumps(K))])
def test_copies_of_a_subclass_keep_its_attributes(again, x, y):
    for K in (GaussianKernel(x, y, scale=0.5), ComplexRows(x + 1j, "a")):
        made = again(K)
        assert type(made) is type(K)
        assert vars(made) == vars(K)
        assert made.shape == K.shape


def test_subclass_of_complex_formulas_may_have_an_init(x, y):
    z = ComplexRows(x + 1j, "a")
    assert z.name == "a"
    found = (z * Vj(y)).sum(-1).sum(axis=1)
    assert_close(found.imag, np.full((M, 1), y.sum()), dtype=np.float64, columns=N)


def test_programs_for_pykeops_derive_from_the_same_class():
    assert find_name("LazyTensor", "pykeops.numpy") is find_name("LazyTensor", "pykeops.torch") is LazyTensor


def test_real_subclass_refuses_complex_data(x):
    with pytest.raises(pylazy.DtypeError, match="Rows is given complex data, expected real data") as caught:
        Rows(x + 1j)
    assert "super().__init__(x, axis)" in str(caught.value)


def test_subclass_with_new_and_init_is_made_by_its_new(x):
    class Named(LazyTensor):
        def __new__(cls, x, name):
            return super().__new__(cls, x, 0)

        def __init__(self, x, name):
            super().__init__(x)
            self.name = name

    assert Named(x, "a").name == "a"
    assert Named(x, "a").shape == Vi(x).shape
