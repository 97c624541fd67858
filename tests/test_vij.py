"""Dense arrays with a value for each pair, as variables of a formula."""

# ruff: noqa: N803  K and F are the names of a kernel matrix, lazy and dense

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pylazy import AxisError, DtypeError, LazyTensor, ShapeError, UnsupportedError, Vi, Vij, Vj
from pylazy.bundles import Bundle
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
    "no array": (DtypeError, "Vij was given list, expected a NumPy array", lambda: Vij([[1.0]])),
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


def test_bundle_takes_no_pairs() -> None:
    with pytest.raises(UnsupportedError, match="value for each pair"):
        Bundle().add(Vij(make(3, 4)).sum(axis=1, call=False), name="f")


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
