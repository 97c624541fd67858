"""Numbers of rows and columns as values of a formula, and the masks that are made of them."""

# ruff: noqa: N806  K is the name of a kernel matrix

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pylazy
from pylazy import (
    LazyTensor,
    ShapeError,
    Vi,
    Vj,
    band,
    band_ranges,
    causal,
    causal_ranges,
    diagonal,
    diagonal_ranges,
)
from reference import assert_close, evaluate_dense, reduce_dense

Array = Any  # an ndarray

SHAPES = [(7, 5), (300, 411), (3, 1000), (1000, 3), (1, 1)]
DTYPES = ["float32", "float64"]

MASKS: dict[str, tuple[Callable[[], LazyTensor], Callable[[Array, Array], Array]]] = {
    "causal": (pylazy.causal, lambda i, j: j <= i),
    "band": (lambda: pylazy.band(4), lambda i, j: abs(i - j) <= 4),
    "wide_band": (lambda: pylazy.band(math.inf), lambda i, j: i == i + 0 * j),
    "diagonal": (pylazy.diagonal, lambda i, j: i == j),
}


def kernel(rows: int, columns: int, dtype: str = "float64", batch: tuple[int, ...] = ()) -> LazyTensor:
    random = np.random.default_rng(rows + columns)
    x = random.standard_normal((*batch, rows, 1, 2)).astype(dtype)
    y = random.standard_normal((*batch, 1, columns, 2)).astype(dtype)
    return (-Vi(x[:, 0]).sqdist(Vj(y[0]))).exp() if not batch else (-LazyTensor(x).sqdist(LazyTensor(y))).exp()


def check(formula: LazyTensor, kind: str, axis: str, **options: Any) -> None:
    batch = len(formula._batch)
    found = getattr(formula, kind)(axis=batch + (axis == "j"), **options)
    expected = reduce_dense(kind, [evaluate_dense(formula)], axis=axis)
    assert_close(found, expected, dtype=formula.dtype or "float64", columns=max(formula._shape[-3:-1]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", ["i", "j"])
def test_indices_count_rows_and_columns_of_every_shape(axis: str, dtype: str) -> None:
    for rows, columns in SHAPES:
        K = kernel(rows, columns, dtype)
        check((K + 0.5) * K.row_index() - K.column_index() * 0.25, "sum", axis)


@pytest.mark.parametrize("axis", ["i", "j"])
def test_indices_count_from_the_first_column_of_all_splits_and_chunks(axis: str) -> None:
    """One row against 20000 columns is cut into splits; chunks of sums have 1024."""
    for rows, columns in ((1, 20000), (20000, 1), (40, 20000)):
        K = kernel(rows, columns)
        position = (K.column_index() if axis == "j" else K.row_index()) * 1.0 + 0 * K
        reduce = 1 if axis == "j" else 0
        extent = columns if axis == "j" else rows
        assert (position.max(axis=reduce) == extent - 1).all()
        assert (position.argmax(axis=reduce) == extent - 1).all()
        assert (position.sum(axis=reduce) == extent * (extent - 1) / 2).all()


def test_what_depends_on_an_index_alone_is_computed_once_a_column() -> None:
    K = kernel(40, 300)
    formula = K * (K.column_index() + 1).log() + (K.row_index() + 1).sqrt()
    for axis in ("i", "j"):
        check(formula, "sum", axis)
    assert '"reduction.map"' in formula.sum(axis=1, call=False).as_text("kernel")


def test_indices_are_the_same_in_every_element_of_a_batch() -> None:
    K = kernel(9, 20, batch=(2, 3))
    for axis in ("i", "j"):
        check(K * K.column_index() + K.row_index(), "sum", axis)
        check(pylazy.causal().where(K, -math.inf), "logsumexp", axis)


def test_transposed_formula_exchanges_indices() -> None:
    K = kernel(7, 5)
    formula = (K * (K.row_index() + 10 * K.column_index())).T
    np.testing.assert_allclose(evaluate_dense(formula)[..., 0].T, evaluate_dense(formula.T)[..., 0])
    check(formula, "sum", "j")
    assert K.row_index().T.shape == (1, 7)


def test_index_of_a_long_vector_stands_in_loops_over_components() -> None:
    random = np.random.default_rng(1)
    x, y = Vi(random.standard_normal((20, 30))), Vj(random.standard_normal((33, 30)))
    check((x - y) * y.column_index() + x.row_index(), "sum", "j")
    check((x * pylazy.row_index()).concat(y * pylazy.column_index()), "sum", "i")


def test_indices_without_arrays_take_float64_and_the_sizes_of_their_formula() -> None:
    K = kernel(4, 6, "float32")
    assert K.row_index().shape == (4, 1)
    assert K.column_index().shape == (1, 6)
    total = K.column_index().sum(axis=1)
    assert total.dtype == np.float64
    assert total.item() == 15
    assert pylazy.row_index().sum(axis=0).item() == 0


def test_sizes_of_indices_in_symbolic_formulas_come_with_the_call() -> None:
    x, y = Vi(0, 2), Vj(1, 2)
    reduction = (pylazy.causal() * x.sqdist(y) + y.column_index()).sum(axis=1)
    for rows, columns in ((5, 7), (3, 300)):
        random = np.random.default_rng(columns)
        data = random.standard_normal((rows, 2)), random.standard_normal((columns, 2))
        K = Vi(data[0]).sqdist(Vj(data[1]))
        expected = evaluate_dense(pylazy.causal() * K + K.column_index()).sum(1)
        assert_close(reduction(*data), expected, dtype="float64", columns=columns)


def test_index_beyond_what_float32_counts_is_refused() -> None:
    ones = np.ones((2**24 + 1, 1), dtype=np.float32)
    with pytest.raises(
        ShapeError, match=r"column_index of 16777217 columns in a formula of float32.*float64"
    ) as raised:
        (Vj(ones) * pylazy.column_index()).sum(axis=1)
    assert "test_axes_as_values.py" in str(raised.value)
    with pytest.raises(ShapeError, match="row_index of 16777217 rows"):
        (Vi(0, 1) * pylazy.row_index()).sum(axis=0)(ones)
    assert (Vj(ones[:-1]) * pylazy.column_index()).max(axis=1).item() == 2**24 - 1


@pytest.mark.parametrize("name", MASKS)
def test_mask_keeps_the_pairs_that_it_says(name: str) -> None:
    make, rule = MASKS[name]
    for rows, columns in SHAPES:
        K = kernel(rows, columns)
        dense = evaluate_dense(K)
        keep = rule(np.arange(rows)[:, None, None], np.arange(columns)[None, :, None])
        for axis, position in (("i", 0), ("j", 1)):
            assert_close((K * make()).sum(axis=position), (dense * keep).sum(position), dtype="float64", columns=rows)
            masked = np.where(keep, dense, -np.inf)
            found = make().where(K, -math.inf).logsumexp(axis=position)
            assert_close(found, reduce_dense("logsumexp", [masked], axis=axis), dtype="float64", columns=columns)


def test_mask_is_a_condition_of_ifelse_too() -> None:
    """`ifelse` takes its first branch where x >= 0, so a mask minus a half."""
    K = kernel(6, 9)
    check((pylazy.causal() - 0.5).ifelse(K, -1.0), "sum", "j")


def test_row_without_any_pair_gives_minus_infinity_and_no_gradient() -> None:
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    mask = pylazy.row_index() <= 2 * pylazy.column_index()  # rows 5 has none
    found = mask.where(-Vi(x).sqdist(Vj(y)), -math.inf).logsumexp(axis=1)
    keep = torch.arange(6)[:, None] <= 2 * torch.arange(3)[None]
    scores = -((x[:, None] - y[None]) ** 2).sum(-1)
    expected = torch.stack([row[some].logsumexp(0) for row, some in zip(scores, keep, strict=True)])
    assert found[5].item() == -math.inf
    weights = torch.randn(6, dtype=torch.float64)
    ours = torch.autograd.grad((found[:, 0] * weights)[:5].sum() + found[5].sum(), (x, y))
    dense = torch.autograd.grad((expected * weights)[:5].sum(), (x, y))
    assert (ours[0][5] == 0).all()
    for one, other in zip(ours, dense, strict=True):
        torch.testing.assert_close(one, other)


def test_attention_with_a_causal_mask_matches_torch() -> None:
    q, k, v = (torch.randn(300, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    scores = pylazy.causal().where((Vi(q) | Vj(k)) / 2, -math.inf)
    found = scores.sumsoftmaxweight(Vj(v), axis=1)
    expected = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), (q, k, v))
    dense = torch.autograd.grad((expected * weights).sum(), (q, k, v))
    for one, other in zip(ours, dense, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("axis", [0, 1])
def test_gradient_of_a_selection_takes_the_indices_of_the_selected_pairs(axis: int) -> None:
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    i, j = torch.arange(7.0, dtype=torch.float64)[:, None], torch.arange(5.0, dtype=torch.float64)
    found = (Vi(x).sqdist(Vj(y)) * (2 + pylazy.row_index() - 3 * pylazy.column_index())).min(axis=axis)
    expected = (((x[:, None] - y) ** 2).sum(-1) * (2 + i - 3 * j)).min(axis).values
    torch.testing.assert_close(found[:, 0], expected)
    ours, dense = (torch.autograd.grad(some.sum(), (x, y)) for some in (found, expected))
    for one, other in zip(ours, dense, strict=True):
        torch.testing.assert_close(one, other)


def test_width_of_a_band_is_read_by_the_kernel() -> None:
    K = kernel(6, 6)
    texts = {(K * pylazy.band(width)).sum(axis=1, call=False).as_text("expression") for width in (1, 2.5)}
    assert len(texts) == 1
    for width in (-1, math.nan):
        with pytest.raises(ShapeError, match="the width of a band is"):
            pylazy.band(width)


def test_pickled_formula_keeps_its_indices() -> None:
    K = kernel(5, 6)
    formula = K * pylazy.causal()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(formula)).sum(axis=1), formula.sum(axis=1))


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = (Vi(q) * Vj(k)).sum(-1) / math.sqrt(q.shape[-1])
    return pylazy.causal().where(scores, -math.inf).sumsoftmaxweight(Vj(v), axis=1)


def dense_attention(q: Any, k: Any, v: Any) -> Any:
    return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


def test_compiled_causal_attention_matches_that_of_torch_in_every_size() -> None:
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    for size in (12, 17, 40):
        inputs = [torch.randn(size, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        found, expected = compiled(*inputs), dense_attention(*inputs)
        torch.testing.assert_close(found, expected)
        weights = torch.randn_like(expected)
        gradients, dense = (torch.autograd.grad((some * weights).sum(), inputs) for some in (found, expected))
        torch.testing.assert_close(gradients, dense)


def test_exported_causal_attention_takes_other_sizes() -> None:
    class Attention(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any) -> Any:
            return attention(q, k, v)

    size = torch.export.Dim("size", min=2, max=2**20)
    program = torch.export.export(
        Attention(), tuple(torch.randn(12, 4) for _ in range(3)), dynamic_shapes=({0: size},) * 3
    )
    given = [torch.randn(21, 4) for _ in range(3)]
    torch.testing.assert_close(program.module()(*given), dense_attention(*given), atol=1e-5, rtol=1e-4)


def test_derivatives_of_causal_attention_match_finite_differences_in_all_modes() -> None:
    inputs = [torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(attention, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(attention, inputs, check_fwd_over_rev=True)


def test_vmap_of_causal_attention_is_that_of_each_element() -> None:
    inputs = [torch.randn(3, 9, 4, dtype=torch.float64) for _ in range(3)]
    expected = torch.stack([dense_attention(*parts) for parts in zip(*inputs, strict=True)])
    torch.testing.assert_close(torch.vmap(attention)(*inputs), expected)


def test_masks_meet_complex_formulas() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((9, 2)) + 1j * random.standard_normal((9, 2)), random.standard_normal((7, 2))
    K = (Vi(x) * Vj(y)).sum(-1).exp()
    dense = np.where(np.arange(7) <= np.arange(9)[:, None], np.exp(x @ y.T), 0)
    np.testing.assert_allclose((K * pylazy.causal()).sum(axis=1)[:, 0], dense.sum(1))
    np.testing.assert_allclose(pylazy.causal().where(K, 0).sum(axis=0)[:, 0], dense.sum(0))


def test_entries_of_indices_keep_the_numbers_of_the_whole_formula() -> None:
    K = kernel(7, 5)
    dense = evaluate_dense(K * pylazy.causal())[..., 0]
    np.testing.assert_allclose((K * pylazy.causal()).dense(), dense)
    np.testing.assert_allclose((K * pylazy.causal())[[5, 1], 1:4].dense(), dense[[5, 1], 1:4])
    np.testing.assert_allclose((K * K.row_index()).diagonal()[:, 0], np.diagonal(evaluate_dense(K)[..., 0]) * range(5))


MASKS_WITH_RANGES = {
    "causal": (causal, lambda m, n, block: causal_ranges(m, n, block=block)),
    "band": (lambda: band(3), lambda m, n, block: band_ranges(3, m, n, block=block)),
    "diagonal": (diagonal, lambda m, n, block: diagonal_ranges(m, n, block=block)),
}


@pytest.mark.parametrize("name", MASKS_WITH_RANGES)
@pytest.mark.parametrize(("m", "n"), [(37, 37), (11, 40), (40, 11), (1, 1)])
@pytest.mark.parametrize("block", [1, 4, 64])
def test_ranges_of_a_mask_leave_out_nothing_that_it_keeps(name, m, n, block):
    mask, ranges_of = MASKS_WITH_RANGES[name]
    ranges_i, slices_i, redranges_j, *_ = ranges = ranges_of(m, n, block)
    dense = (Vi(np.ones((m, 1))) * Vj(np.ones((n, 1))) * mask()).dense()
    covered, tight = np.zeros((m, n), bool), np.zeros((m, n), bool)
    starts = np.concatenate([[0], slices_i])
    for (low, high), first, last in zip(ranges_i, starts, slices_i, strict=False):
        for left, right in redranges_j[first:last]:
            covered[low:high, left:right] = True
            for start in range(left, right, block):
                tight[low:high, start : min(start + block, right)] = dense[low:high, start : start + block].any()
    assert (covered | (dense == 0)).all()
    assert (tight == covered).all()
    v = np.random.default_rng(0).standard_normal((n, 2))
    formula = (Vi(np.ones((m, 1))) * mask()) * Vj(v)
    np.testing.assert_allclose(formula.sum(axis=1, ranges=ranges), dense @ v, atol=1e-12)
    w = np.random.default_rng(1).standard_normal((m, 2))
    transposed = (Vj(np.ones((n, 1))) * mask()) * Vi(w)
    np.testing.assert_allclose(transposed.sum(axis=0, ranges=ranges), dense.T @ w, atol=1e-12)


def test_ranges_of_a_mask_are_empty_where_there_is_nothing():
    assert [len(array) for array in causal_ranges(0, 5)] == [0, 0, 0, 1, 1, 0]
    with pytest.raises(ShapeError, match="block is 0, expected at least 1"):
        causal_ranges(5, 5, block=0)
    with pytest.raises(ShapeError, match="rows is -1"):
        diagonal_ranges(-1, 5)
    with pytest.raises(ShapeError, match="the width of a band is -1"):
        band_ranges(-1, 5, 5)
