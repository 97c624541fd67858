"""Every reduction against the oracle: values, ties, NaN, infinities, nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pylazy import AxisError, LazyTensor, Pm, ShapeError, UnsupportedError, Vi, Vj
from pylazy.reductions import REDUCTIONS
from reference import assert_close, evaluate_dense, reduce_dense

M, N, D, E = 7, 5, 3, 2
DTYPES = (np.float32, np.float64)
AXES = {"j": 1, "i": 0}
INF, NAN = np.inf, np.nan


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(1)


def values(rng, dtype, dim=D):
    return Vi(rng.standard_normal((M, dim)).astype(dtype)) * Vj(rng.standard_normal((N, dim)).astype(dtype))


def columns_of(row):
    """A formula whose single row takes these values along j."""
    return Vj(np.asarray(row, dtype=np.float64)[:, None])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", ["sum", "mean", "prod", "var", "std", "min", "max", "argmin", "argmax"])
def test_reduction_by_component_matches_oracle(kind, axis, dtype, rng):
    formula = values(rng, dtype)
    expected = reduce_dense(kind, [evaluate_dense(formula)], axis=axis)
    found = getattr(formula, kind)(axis=AXES[axis])
    assert found.dtype == (np.int64 if kind.startswith("arg") else dtype)
    assert_close(found, expected, dtype=dtype, columns=max(M, N), scale=10.0)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("pair", [("min", "argmin"), ("max", "argmax")])
def test_value_and_position_come_together(pair, axis, rng):
    formula = values(rng, np.float64)
    found = getattr(formula, "_".join(pair))(axis=AXES[axis])
    for kind, result in zip(pair, found, strict=True):
        assert_close(result, reduce_dense(kind, [evaluate_dense(formula)], axis=axis), dtype=np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("weighted", [False, True])
def test_logsumexp_matches_oracle(weighted, axis, dtype, rng):
    formula = 20 * values(rng, dtype).sum(-1)
    weight = Vj(rng.random((N, E)).astype(dtype)) + Vi(rng.random((M, E)).astype(dtype))
    operands = [formula, weight] if weighted else [formula]
    expected = reduce_dense("logsumexp", [evaluate_dense(operand) for operand in operands], axis=axis)
    found = formula.logsumexp(axis=AXES[axis], weight=weight if weighted else None)
    assert_close(found, expected, dtype=dtype, columns=max(M, N), scale=200.0)


def test_logsumexp_takes_its_weight_as_other(rng):
    formula, weight = values(rng, np.float64).sum(-1), Vj(rng.random((N, E)))
    np.testing.assert_array_equal(formula.logsumexp(1, other=weight), formula.logsumexp(1, weight=weight))


@pytest.mark.parametrize("axis", AXES)
def test_softmax_matches_oracle(axis, rng):
    formula, weight = 20 * values(rng, np.float64).sum(-1), Vj(rng.standard_normal((N, E)))
    expected = reduce_dense("softmax", [evaluate_dense(formula), evaluate_dense(weight)], axis=axis)
    found = formula.sumsoftmaxweight(weight, axis=AXES[axis])
    assert_close(found, expected, dtype=np.float64, columns=N, scale=100.0)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dim", [1, D])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_smallest_match_oracle(k, dim, axis, rng):
    formula = values(rng, np.float64, dim)
    dense = evaluate_dense(formula)
    smallest, positions = formula.Kmin_argKmin(k, axis=AXES[axis])
    for kind, result in (("kmin", smallest), ("argkmin", positions)):
        expected = reduce_dense(kind, [dense], axis=axis, k=k)
        expected = expected[..., 0] if dim == 1 else expected
        assert_close(result, expected, dtype=np.float64)
    np.testing.assert_array_equal(formula.Kmin(K=k, axis=AXES[axis]), smallest)
    np.testing.assert_array_equal(formula.argKmin(K=k, dim=AXES[axis]), positions)
    assert positions.dtype == np.int64


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dim", [1, D])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_largest_match_oracle(k, dim, axis, rng):
    formula = values(rng, np.float64, dim)
    dense = evaluate_dense(formula)
    largest, positions = formula.KMax_argKmax(k, axis=AXES[axis])
    for kind, result in (("kmax", largest), ("argkmax", positions)):
        expected = reduce_dense(kind, [dense], axis=axis, k=k)
        expected = expected[..., 0] if dim == 1 else expected
        assert_close(result, expected, dtype=np.float64)
    np.testing.assert_array_equal(formula.KMax(k, axis=AXES[axis]), largest)
    np.testing.assert_array_equal(formula.argKmax(K=k, dim=AXES[axis] - 3), positions)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", ["any", "all", "count"])
def test_truths_match_oracle(kind, axis, dtype, rng):
    formula = (values(rng, dtype) > 0.3) + (values(rng, dtype) > 0.9)
    found = getattr(formula, kind)(axis=AXES[axis])
    assert found.dtype == (np.int64 if kind == "count" else np.bool_)
    np.testing.assert_array_equal(found, reduce_dense(kind, [evaluate_dense(formula)], axis=axis))


def test_nan_is_not_zero():
    formula = columns_of([NAN, NAN])
    assert formula.any(axis=1).all()
    assert formula.all(axis=1).all()
    assert formula.count(axis=1) == 2


def test_counts_beyond_float32_are_exact():
    # One more than float32 counts to; the formula is 1 everywhere.
    ones = np.broadcast_to(np.float32(1), (2**24 + 1, 1))
    assert Vj(ones).count(axis=1) == 2**24 + 1


@pytest.mark.parametrize("method", ["any", "count", "Kmin", "KMax", "sum", "var", "min_argmin"])
@pytest.mark.parametrize("axis", AXES)
def test_reduced_axis_can_be_kept(axis, method, rng):
    formula = values(rng, np.float64)
    arguments = (2,) if method.startswith("K") else ()
    plain = getattr(formula, method)(*arguments, axis=AXES[axis])
    kept = getattr(formula, method)(*arguments, axis=AXES[axis] - 3, keepdim=True)
    results = zip(plain, kept, strict=True) if isinstance(plain, tuple) else [(plain, kept)]
    for without, with_axis in results:
        np.testing.assert_array_equal(with_axis, np.expand_dims(without, AXES[axis]))


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
def test_variance_is_accurate_whatever_the_mean(mean, rng):
    x = (rng.standard_normal((2_000, 1)) + mean).astype(np.float32)
    for ddof in (0, 1):
        expected = x.astype(np.float64).var(ddof=ddof)
        np.testing.assert_allclose(Vj(x).var(axis=1, ddof=ddof), [[expected]], rtol=2e-6)
    np.testing.assert_allclose(Vj(x).std(axis=1), [[x.astype(np.float64).std()]], rtol=2e-6)


def test_variance_writes_into_out(rng):
    formula = values(rng, np.float64)
    out = np.empty((M, D))
    assert formula.var(axis=1, out=out) is out
    np.testing.assert_array_equal(out, formula.var(axis=1))
    with pytest.raises(ShapeError, match="out has shape"):
        formula.var(axis=1, out=np.empty((M, 2 * D)))
    with pytest.raises(UnsupportedError, match="out is given to var or std, which is called later"):
        formula.var(axis=1, call=False, out=out)
    assert np.isnan(formula.var(axis=1, ddof=N)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_spreads_can_be_called_later_and_on_data_that_comes_later(rng, dtype):
    x, y = (rng.random(shape).astype(dtype) for shape in ((M, D), (N, D)))
    symbolic = (Vi(0, D) * Vj(1, D)).std(axis=1, ddof=1, keepdim=True)
    expected = (Vi(x) * Vj(y)).std(axis=1, ddof=1, keepdim=True)
    assert symbolic(x, y).dtype == dtype
    np.testing.assert_array_equal(symbolic(x, y), expected)
    out = np.empty_like(expected)
    assert symbolic(x, y, out=out) is out
    later = (Vi(x) * Vj(y)).std(axis=1, ddof=1, keepdim=True, call=False)
    np.testing.assert_array_equal(later(), expected)
    np.testing.assert_array_equal(out, expected)
    assert "std with ddof=1" in repr(later)
    ranges = ([[0, M]], [1], [[0, 2]], [[0, 2]], [1], [[0, M]])
    partial = symbolic(x, y, ranges=tuple(np.array(part) for part in ranges))
    np.testing.assert_allclose(partial, (Vi(x) * Vj(y[:2])).std(axis=1, ddof=1, keepdim=True), rtol=4e-3)


def test_several_weights_share_a_sweep(rng):
    formula, weights = values(rng, np.float64).sum(-1), [Vj(rng.random((N, E))), Vi(rng.random((M, 1)))]
    found = formula.sumsoftmaxweight(weights, axis=1)
    for result, weight in zip(found, weights, strict=True):
        np.testing.assert_allclose(result, formula.sumsoftmaxweight(weight, axis=1), rtol=1e-14)
    with pytest.raises(UnsupportedError, match="concatenate the weights"):
        formula.sumsoftmaxweight(weights, axis=1, call=False)


def test_sum_takes_a_weight(rng):
    formula, weight = values(rng, np.float64), Vj(rng.random((N, D)))
    np.testing.assert_array_equal(formula.sum(axis=1, weight=weight), (formula * weight).sum(axis=1))


@pytest.mark.parametrize("name", ["prod", "mean", "any", "all", "count", "var", "std"])
def test_reduction_has_its_longer_name(name, rng):
    formula = values(rng, np.float64)
    longer = getattr(formula, f"{name}_reduction")
    np.testing.assert_array_equal(longer(axis=1), getattr(formula, name)(axis=1))
    with pytest.raises(AxisError, match="axis is -1"):
        longer(axis=-1)


def test_ties_go_to_the_lowest_index():
    formula = columns_of([2, 1, 3, 1, 3])
    assert formula.argmin(axis=1)[0, 0] == 1
    assert formula.argmax(axis=1)[0, 0] == 2
    np.testing.assert_array_equal(formula.argKmin(4, axis=1), [[1, 3, 0, 2]])


@pytest.mark.parametrize("row", [[1, NAN, 0, NAN], [NAN, 1, 2], [2, 1, NAN], [NAN], [INF, -INF, NAN], [INF, INF]])
@pytest.mark.parametrize("kind", ["sum", "min", "max", "argmin", "argmax"])
def test_nan_and_infinities_propagate_as_in_numpy(kind, row):
    found = getattr(columns_of(row), kind)(axis=1)
    with np.errstate(invalid="ignore"):
        expected = getattr(np, kind)(np.array(row))
    np.testing.assert_array_equal(found, [[expected]])


def test_k_smallest_puts_nan_last_and_keeps_infinities():
    formula = columns_of([NAN, INF, 0, INF, NAN, -INF])
    smallest, positions = formula.Kmin_argKmin(6, axis=1)
    np.testing.assert_array_equal(positions, [[5, 2, 1, 3, 0, 4]])
    np.testing.assert_array_equal(smallest, [[-INF, 0, INF, INF, NAN, NAN]])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 1, -INF], np.logaddexp(0, 1)),
        ([-INF, 0, 1], np.logaddexp(0, 1)),
        ([-INF, -INF], -INF),
        ([INF, 0], INF),
        ([0, INF], INF),
        ([INF, INF], INF),
        ([INF, -INF], INF),
        ([NAN, 0], NAN),
        ([0, -INF, NAN], NAN),
        ([1000, 1000], 1000 + np.log(2)),
        ([-1000, -1000], -1000 + np.log(2)),
    ],
)
def test_logsumexp_is_right_for_every_order_of_infinities(row, expected):
    np.testing.assert_allclose(columns_of(row).logsumexp(axis=1), [[expected]], rtol=1e-14)


def test_logsumexp_of_a_negative_weighted_sum_is_nan():
    found = columns_of([0.0, 0.0]).logsumexp(axis=1, weight=columns_of([1.0, -2.0]))
    assert np.isnan(found).all()


def empty_columns():
    return Vi(np.ones((M, D))) * Vj(np.ones((0, D)))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("sum", 0.0),
        ("min", INF),
        ("max", -INF),
        ("mean", NAN),
        ("prod", 1.0),
        ("var", NAN),
        ("any", False),
        ("all", True),
        ("count", 0),
    ],
)
def test_reduction_over_nothing_is_neutral(kind, value):
    np.testing.assert_array_equal(getattr(empty_columns(), kind)(axis=1), np.full((M, D), value))


def test_logsumexp_over_nothing_is_minus_infinity():
    np.testing.assert_array_equal(empty_columns().sum(-1).logsumexp(axis=1), np.full((M, 1), -INF))


@pytest.mark.parametrize("kind", ["argmin", "argmax", "min_argmin", "max_argmax"])
def test_position_in_nothing_is_an_error(kind):
    with pytest.raises(ShapeError, match="which is empty"):
        getattr(empty_columns(), kind)(axis=1)


@pytest.mark.parametrize("kind", ["sum", "min", "argmin", "logsumexp"])
def test_no_rows_give_no_rows(kind):
    formula = (Vi(np.ones((0, D))) * Vj(np.ones((N, D)))).sum(-1)
    assert getattr(formula, kind)(axis=1).shape == (0, 1)


def test_empty_batch_gives_an_empty_result():
    formula = LazyTensor(np.ones((0, M, 1, D))) * LazyTensor(np.ones((1, N, D)))
    assert formula.sum(axis=2).shape == (0, M, D)


def test_formula_without_the_reduced_axis_counts_once():
    x = np.arange(M * D, dtype=np.float64).reshape(M, D)
    np.testing.assert_array_equal(Vi(x).sum(axis=1), x)
    np.testing.assert_array_equal(Pm(x[0]).sum(axis=1), x[:1])
    np.testing.assert_array_equal(Vi(x).argmin(axis=1), np.zeros((M, D)))


def test_declared_extent_counts_even_where_the_value_is_constant_along_it():
    x, y = np.arange(M, dtype=np.float64)[:, None], np.ones((N, 1))
    np.testing.assert_array_equal((Vi(x) + 0 * Vj(y)).sum(axis=1), N * x)


def test_extent_of_a_weight_counts():
    formula, weight = Vi(np.zeros((M, 1))), Vj(np.ones((N, E)))
    np.testing.assert_allclose(formula.logsumexp(axis=1, weight=weight), np.full((M, E), np.log(N)), rtol=1e-14)


@pytest.mark.parametrize("shape", [(300, 1001), (1, 5000), (1025, 3)])
@pytest.mark.parametrize("kind", ["sum", "min", "argmin", "logsumexp"])
def test_sizes_beyond_a_tile_match_oracle(kind, shape, rng):
    rows, columns = shape
    formula = -Vi(rng.standard_normal((rows, D))).sqdist(Vj(rng.standard_normal((columns, D))))
    for axis, number in AXES.items():
        expected = reduce_dense(kind, [evaluate_dense(formula)], axis=axis)
        found = getattr(formula, kind)(axis=number)
        assert_close(found, expected, dtype=np.float64, columns=max(shape), scale=100.0)


def test_many_k_and_many_columns_match_oracle(rng):
    x, y = rng.standard_normal((9, D)), rng.standard_normal((700, D))
    formula = Vi(x).sqdist(Vj(y))
    expected = reduce_dense("argkmin", [evaluate_dense(formula)], axis="j", k=300)[..., 0]
    np.testing.assert_array_equal(formula.argKmin(300, axis=1), expected)


def test_every_reduction_of_the_table_has_an_oracle(rng):
    dense = rng.random((M, N, 1))
    for row in REDUCTIONS.values():
        operands = [dense, dense] if row.weight == "required" else [dense]
        assert reduce_dense(row.name, operands, axis="j", k=2 if row.takes_k else 0).shape[0] == M
