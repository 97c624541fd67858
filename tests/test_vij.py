"""Dense arrays with a value for each pair, as variables of a formula."""

# ruff: noqa: N803, N806  K and F are the names of a kernel matrix, lazy and dense

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pylazy import AxisError, DtypeError, LazyTensor, ShapeError, Vi, Vij, Vj
from pylazy.clusters import from_matrix
from reference import assert_close, evaluate_dense, reduce_dense

Array = Any  # an ndarray

SHAPES = [(7, 5), (300, 411), (3, 1000), (1000, 3), (1, 1), (33, 17)]
#: Short rows are loaded many at once, long ones one by one; of float64 half as many.
KINDS = [(None, "float32"), (1, "float64"), (3, "float32"), (3, "float64"), (11, "float64"), (20, "float32")]


def make(*shape: int, dtype: str = "float64") -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def distances(rows: int, columns: int, dtype: str = "float64") -> LazyTensor:
    return Vi(make(rows, 2, dtype=dtype)).sqdist(Vj(make(columns, 2, dtype=dtype)))


def check(formula: LazyTensor, kind: str, axis: str) -> None:
    batch = len(formula._batch)
    found = getattr(formula, kind)(axis=batch + (axis == "j"))
    dense = evaluate_dense(formula)
    expected = reduce_dense(kind, [dense], axis=axis)
    scale = np.abs(dense).max(initial=0) * max(dense.shape[-3:-1]) ** 0.5
    assert_close(found, expected, dtype=formula.dtype, columns=max(dense.shape[-3:-1]), scale=scale)


@pytest.mark.parametrize("axis", ["i", "j"])
@pytest.mark.parametrize(("dim", "dtype"), KINDS)
def test_pairs_of_every_shape_are_read_where_they_lie(dim: int | None, axis: str, dtype: str) -> None:
    for rows, columns in SHAPES:
        a = Vij(make(rows, columns, *([] if dim is None else [dim]), dtype=dtype))
        check(a * distances(rows, columns, dtype), "sum", axis)
        check(a.T * distances(columns, rows, dtype), "sum", axis)


@pytest.mark.parametrize("axis", ["i", "j"])
def test_selections_see_the_pairs_and_their_positions(axis: str) -> None:
    for rows, columns in SHAPES[:4]:
        check(Vij(make(rows, columns, dtype="float32")), "argmin", axis)
        check(Vij(make(rows, columns, 3, dtype="float32")).T, "argmax", axis)


def test_pairs_of_every_element_of_a_batch_are_its_own() -> None:
    x = LazyTensor(make(3, 40, 1, 2))
    for axis in ("i", "j"):
        check(Vij(make(2, 3, 40, 50, 1)) * x.norm2() * Vij(make(1, 40, 50, 2)), "sum", axis)
        check((Vij(make(2, 3, 40, 50, 1)) * x.norm2()).T, "sum", axis)


def test_arrays_that_are_not_contiguous_are_read_right() -> None:
    base = make(60, 80, 4)
    views = [base[::2, ::-1], base.transpose(1, 0, 2), base[..., 1:3], np.asfortranarray(base), base[:, :1] + 0 * base]
    views.append(np.broadcast_to(base[0], (60, 80, 4)))
    for view in views:
        check(Vij(view), "sum", "j")
        check(Vij(view).T, "sum", "j")
    check(Vij(make(2, 60, 80, 2)[::-1]), "sum", "i")


def test_product_with_vectors_is_that_of_the_matrix() -> None:
    a, v = make(30, 41), make(41)
    np.testing.assert_allclose(Vij(a) @ v, a @ v)
    np.testing.assert_allclose(Vij(a).T @ v[:30], a.T @ v[:30])
    np.testing.assert_allclose(Vij(a).T.T @ make(41, 3), a @ make(41, 3))


def test_matrix_and_its_transpose_stand_in_one_formula() -> None:
    a = make(40, 40)
    check(Vij(a) - 2 * Vij(a).T, "max", "j")
    check((Vij(a) - 2 * Vij(a).T) * distances(40, 40), "sum", "i")


def test_data_is_read_when_the_reduction_runs() -> None:
    a = make(5, 6)
    reduction = Vij(a).sum(axis=1, call=False)
    a[:] = 1
    np.testing.assert_array_equal(reduction(), np.full((5, 1), 6.0))
    assert pickle.loads(pickle.dumps(Vij(a).T)).sum(axis=1).tolist() == [[5.0]] * 6


def test_pairs_are_promoted_and_meet_symbolic_variables() -> None:
    a, x, y = make(6, 9, dtype="float32"), make(6, 2), make(9, 2)
    found = (Vij(a) * Vi(0, 2).sqdist(Vj(1, 2))).sum(axis=1)(x, y)
    assert_close(found, evaluate_dense(Vij(a) * Vi(x).sqdist(Vj(y))).sum(1), dtype="float64", columns=9)


def test_empty_axes_give_the_neutral_element() -> None:
    assert Vij(np.zeros((0, 4))).sum(axis=1).shape == (0, 1)
    np.testing.assert_array_equal(Vij(np.zeros((0, 4))).sum(axis=0), np.zeros((4, 1)))


REFUSALS: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "one dimension": (AxisError, r"Vij was given an array of shape \(3,\), expected \(M, N\)", lambda: Vij(make(3))),
    "no array": (DtypeError, "Vij was given list, expected an array", lambda: Vij([[1.0]])),
    "complex": (DtypeError, r"use Vij\(a.real\) \+ 1j \* Vij\(a.imag\)", lambda: Vij(make(3, 4) * 1j)),
    "plain constructor": (AxisError, r"use Vij\(x\)", lambda: LazyTensor(make(3, 4, 2))),
    "no component": (ShapeError, "inner dimension 0", lambda: Vij(make(3, 4, 0))),
    "other rows": (ShapeError, "M = 3 and M = 4", lambda: Vij(make(3, 4)) + Vi(make(4, 1))),
    "other columns": (ShapeError, "N = 4 and N = 3", lambda: Vij(make(3, 4)) + Vj(make(3, 1))),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_does_not_fit_is_refused_at_the_line_of_the_user(name: str) -> None:
    error, message, run = REFUSALS[name]
    with pytest.raises(error, match=message) as raised:
        run()
    assert "test_vij.py" in str(raised.value)


def torch_formula(
    batch: tuple[int, ...], rows: int, columns: int, dim: int
) -> tuple[list[Any], Callable[[], LazyTensor], Callable[[], Any]]:
    """Give tensors, a formula of them, and what it computes, densely."""
    torch.manual_seed(rows)
    a = torch.randn(*batch, rows, columns, dim, dtype=torch.float64, requires_grad=True)
    x = torch.randn(rows, 1, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(*batch, 1, columns, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(*batch, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    number = torch.arange(rows, dtype=torch.float64)[:, None, None]

    def lazy() -> LazyTensor:
        product = (LazyTensor(x) * LazyTensor(y)).sum(-1)
        return Vij(a) * w * product * (1 + product.row_index()) + Vij(a) * product.column_index()

    def dense() -> Any:
        product = (x * y).sum(-1, keepdim=True)
        columns_of = torch.arange(columns, dtype=torch.float64)[:, None]
        return a * w * product * (1 + number) + a * columns_of

    return [a, x, y, w], lazy, dense


GRADIENTS: dict[str, tuple[Callable[[Any, int], Any], Callable[[Any, int], Any]]] = {
    "sum": (lambda K, axis: K.sum(axis=axis), lambda F, axis: F.sum(axis)),
    "mean": (lambda K, axis: K.mean(axis=axis), lambda F, axis: F.mean(axis)),
    "var": (lambda K, axis: K.var(axis=axis), lambda F, axis: F.var(axis, unbiased=False)),
    "transposed": (lambda K, axis: K.T.sum(axis=-5 - axis), lambda F, axis: F.sum(axis)),
    "min": (lambda K, axis: K.min(axis=axis), lambda F, axis: F.min(axis).values),
    "transposed_max": (lambda K, axis: K.T.max(axis=-5 - axis), lambda F, axis: F.max(axis).values),
    "logsumexp": (lambda K, axis: K.logsumexp(axis=axis), lambda F, axis: F.logsumexp(axis)),
    "weighted": (
        lambda K, axis: K.logsumexp(axis=axis, weight=K * K),
        lambda F, axis: (F.exp() * F * F).sum(axis).log(),
    ),
    "softmax": (
        lambda K, axis: K.sumsoftmaxweight(K * K, axis=axis),
        lambda F, axis: (F.softmax(axis) * F * F).sum(axis),
    ),
}


@pytest.mark.parametrize("axis", [-2, -3])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradient_of_pairs_matches_that_of_torch(kind: str, axis: int) -> None:
    dims = [1] if kind in {"logsumexp", "weighted", "softmax"} else [1, 3]
    for dim in dims:
        for batch, rows, columns in (((), 7, 5), ((2,), 4, 6), ((), 20, 40)):
            tensors, lazy, dense = torch_formula(batch, rows, columns, dim)
            ours, theirs = GRADIENTS[kind]
            found, expected = ours(lazy(), axis), theirs(dense(), axis)
            torch.testing.assert_close(found, expected)
            weights = torch.randn_like(found)
            gradients = torch.autograd.grad((found * weights).sum(), tensors)
            for one, other in zip(gradients, torch.autograd.grad((expected * weights).sum(), tensors), strict=True):
                torch.testing.assert_close(one, other)


def test_gradient_of_a_matrix_is_the_outer_product() -> None:
    a = torch.randn(30, 300, requires_grad=True)
    v = torch.randn(300, requires_grad=True)
    (Vij(a) @ v).sum().backward()
    torch.testing.assert_close(a.grad, v.detach().expand(30, 300))
    torch.testing.assert_close(v.grad, a.detach().sum(0))


def test_gradient_of_a_masked_row_of_pairs_is_zero() -> None:
    a = torch.full((3, 4), -torch.inf, requires_grad=True)
    Vij(a).logsumexp(axis=1).sum().backward()
    assert a.grad is not None
    assert (a.grad == 0).all()


def test_gradient_of_a_product_of_pairs_is_exact_where_factors_are_zero() -> None:
    a = torch.randn(3, 40, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        a[1, 2] = 0
    ours, theirs = (torch.autograd.grad(some.sum(), a)[0] for some in (Vij(a).prod(axis=1), a.prod(1)))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dim", [1, 3, 20])
def test_gradient_of_pairs_of_every_shape_is_written_where_it_belongs(dim: int, axis: int) -> None:
    for rows, columns in SHAPES:
        a = torch.randn(rows, columns, dim, requires_grad=True)
        x = torch.randn(rows, 1, dim)
        for lazy in (Vij(a) * LazyTensor(x) * Vij(a).column_index(), (Vij(a).T * LazyTensor(x).T).T * Vij(a)):
            (found,) = torch.autograd.grad(lazy.sum(axis=axis).sum(), a)
            number = torch.arange(columns)[:, None]
            plain = x * number + 0 * a if lazy._expression.operands[1].op == "index" else 2 * a * x
            torch.testing.assert_close(found, plain.detach())


def test_complex_pairs_are_made_of_two_real_ones() -> None:
    a = make(6, 9) + 1j * make(6, 9)[::-1]
    K = Vij(a.real) + 1j * Vij(a.imag)
    np.testing.assert_allclose(K @ make(9), a @ make(9))


def test_bytes_and_halves_are_read_as_numbers() -> None:
    a = np.array([[True, False], [True, True], [False, False]])
    for dtype in (bool, np.int8, np.float16):
        np.testing.assert_array_equal(Vij(a.astype(dtype)).sum(axis=1)[:, 0], [1, 2, 0])


def pairs_of_all_kinds(rows: int, columns: int, dim: int) -> LazyTensor:
    K = distances(rows, columns)
    a, b = make(rows, columns, dim), make(columns, rows)
    return Vij(a) * K + (K.column_index() - 2 * K.row_index()) * Vij(b).T


@pytest.mark.parametrize(("rows", "columns", "dim"), [(7, 5, 1), (5, 7, 3)])
def test_entries_of_formulas_with_pairs_and_indices_are_materialised(rows: int, columns: int, dim: int) -> None:
    K = pairs_of_all_kinds(rows, columns, dim)
    expected = evaluate_dense(K)
    count = min(rows, columns)
    np.testing.assert_allclose(K.dense().reshape(expected.shape), expected, atol=1e-12)
    np.testing.assert_allclose(K.diagonal(), expected[range(count), range(count)], atol=1e-12)
    for keys in ((slice(1, 4), slice(None)), ([3, 0], slice(None, None, -1)), (slice(None), 2), ([1], [4, 4, 0])):
        i, j = (np.atleast_1d(np.arange(size)[key]) for key, size in zip(keys, (rows, columns), strict=True))
        np.testing.assert_allclose(K[keys].sum(axis=1), expected[np.ix_(i, j)].sum(1), atol=1e-12)
        np.testing.assert_allclose(K.T[keys[::-1]].sum(axis=1), expected[np.ix_(i, j)].sum(0), atol=1e-12)


def test_batch_of_pairs_is_materialised() -> None:
    a = make(2, 4, 6, 1)
    K = Vij(a) * Vij(a).row_index()
    np.testing.assert_allclose(K.dense(), a[..., 0] * np.arange(4)[:, None])
    np.testing.assert_allclose(K[:, 1:, [0, 5]].sum(axis=2), (a * np.arange(4)[:, None, None])[:, 1:, [0, 5]].sum(2))


def masked(K: LazyTensor, mask: Array) -> LazyTensor:
    rows, columns = (np.stack([np.arange(size), np.arange(size) + 1], 1) for size in mask.shape)
    K.ranges = from_matrix(rows, columns, mask)
    return K


def blocks(rows: int, columns: int) -> Array:
    """Pairs in blocks of odd sizes, in which no row and no column is empty."""
    mask = np.zeros((rows, columns), dtype=bool)
    mask[:10, : columns // 3], mask[10:11, 5:9], mask[11:, columns // 3 - 2 :], mask[20:, :3] = True, True, True, True
    return mask


@pytest.mark.parametrize("axis", [0, 1])
def test_pairs_and_indices_are_read_at_the_pairs_of_ranges(axis: int) -> None:
    K, mask = pairs_of_all_kinds(70, 45, 3), blocks(70, 45)
    dense = np.where(mask[..., None], evaluate_dense(K), 0)
    count = mask.sum(axis)[:, None]
    np.testing.assert_allclose(masked(K, mask).sum(axis=axis), dense.sum(axis), atol=1e-9)
    np.testing.assert_allclose(masked(K, mask).mean(axis=axis), dense.sum(axis) / count, atol=1e-9)
    least = np.where(mask[..., None], dense, np.inf)
    np.testing.assert_array_equal(masked(K, mask).argmin(axis=axis), least.argmin(axis))


@pytest.mark.parametrize("transposed", [False, True])
def test_gradient_of_pairs_is_zero_out_of_the_ranges(transposed: bool) -> None:
    mask = blocks(70, 45)
    a, x = (torch.tensor(make(*shape), requires_grad=True) for shape in ((70, 45), (70, 2)))
    y = torch.tensor(make(45, 2))
    kept, number = torch.tensor(mask), torch.arange(70, dtype=torch.float64)[:, None]

    def lazy() -> LazyTensor:
        product = (Vi(x) * Vj(y)).sum(-1).sin()
        K = (product.T * Vij(a).T * Vij(a).T).T if transposed else product * Vij(a) * Vij(a)
        return K * (1 + K.row_index())

    dense = (x @ y.T).sin() * a**2 * (1 + number)
    weights = torch.randn(70, 1, dtype=torch.float64)
    ours = masked(lazy(), mask).sum(axis=1) * weights
    theirs = (dense * kept).sum(1, keepdim=True) * weights
    torch.testing.assert_close(ours, theirs)
    plain = torch.autograd.grad(ours.sum(), [a, x], retain_graph=True)
    found, expected = (torch.autograd.grad(some.sum(), [a, x], create_graph=True) for some in (ours, theirs))
    torch.testing.assert_close(plain, tuple(one.detach() for one in expected))
    again, expected_again = (
        torch.autograd.grad(sum((one / 70).sin().sum() for one in some), [a, x]) for some in (found, expected)
    )
    torch.testing.assert_close(again, expected_again)


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda a, x: ((Vij(a) * Vi(x)).sin() * Vij(a)).sum(axis=0),
    "transposed": lambda a, x: ((Vij(a).T * Vj(x)).sin() * Vij(a).T).sum(axis=1),
    "logsumexp": lambda a, x: (Vij(a[..., 0]) * Vi(x[:, :1])).sin().logsumexp(axis=1),
    "min": lambda a, x: ((Vij(a) * Vi(x)).sin() * (1 + Vij(a).column_index())).min(axis=1),
    "transposed_max": lambda a, x: ((Vij(a).T * Vj(x)).sin() * (1 + Vij(a).T.column_index())).max(axis=1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_pairs_match_finite_differences_in_all_modes(name: str) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4, 2), (3, 2))]
    assert torch.autograd.gradcheck(FUNCTIONS[name], inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(FUNCTIONS[name], inputs, check_fwd_over_rev=True)


def test_vmap_maps_over_pairs_and_over_what_they_meet() -> None:
    a, y = torch.randn(3, 6, 9), torch.randn(3, 9, 2)

    def product(a: Any, y: Any) -> Any:
        return (Vij(a).T * Vi(y)).sum(axis=0)

    torch.testing.assert_close(torch.vmap(product)(a, y), a @ y)
    torch.testing.assert_close(torch.vmap(product, in_dims=(None, 0))(a[0], y), a[0] @ y)
    torch.testing.assert_close(torch.vmap(product, in_dims=(1, None))(a.swapaxes(0, 1), y[0]), a @ y[0])


def test_hessian_by_torch_func_matches_dense_torch() -> None:
    a, y = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    found = torch.func.hessian(lambda a: ((Vij(a) * Vj(y)).sum(axis=1) ** 3).sum())(a)
    torch.testing.assert_close(found, torch.func.hessian(lambda a: ((a @ y) ** 3).sum())(a))


def test_compiled_formulas_of_pairs_take_other_sizes() -> None:
    def product(a: Any, y: Any) -> Any:
        return (Vij(a) * Vj(y)).sum(axis=1)

    compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
    for rows, columns in ((5, 6), (4, 7), (9, 3)):
        a, y = torch.randn(rows, columns, requires_grad=True), torch.randn(columns, 2)
        found = compiled(a, y)
        torch.testing.assert_close(found, a @ y)
        (gradient,) = torch.autograd.grad(found.sum(), a)
        torch.testing.assert_close(gradient, y.sum(1).expand(rows, columns))


def test_program_of_a_graph_refuses_pairs_of_other_sizes() -> None:
    reduction = (Vij(make(3, 4)) * Vi(make(3, 1))).sum(axis=1, call=False)
    text = reduction._job.executable.text()
    for a in (torch.ones(4, 4, dtype=torch.float64), torch.ones(3, dtype=torch.float64)):
        with pytest.raises(ShapeError, match="of a program has shape"):
            torch.ops.pylazy.run([a, torch.ones(3, 1, dtype=torch.float64)], text, [0, 0])


def test_formula_with_pairs_is_written_with_both_indices() -> None:
    K = Vij(make(3, 4))
    assert "z_ij" in repr(K)
    assert "z_ji" in repr(K.T)
    assert "exp(i - j)" in repr(K * (K.row_index() - K.column_index()).exp())
