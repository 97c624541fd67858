"""How sums are added up: wider accumulators, one running sum, blocks, and compensated sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pylazy import Genred, Pm, Vi, Vj
from pylazy.runtime.errors import DtypeError, UnsupportedError
from reference import assert_close, reduce_dense

DOUBLE = {"dtype_acc": "float64"}
DIRECT = {"sum_scheme": "direct_sum"}
BLOCK = {"sum_scheme": "block_sum"}
KAHAN = {"sum_scheme": "kahan_scheme"}
UNIT = 2.0**-24  # half a unit in the last place of 1, in float32


def mixed_magnitudes(rows, *shape):
    """Terms over twelve orders of magnitude, of both signs."""
    rng = np.random.default_rng(3)
    size = (rows, *shape)
    return (rng.standard_normal(size) * 10.0 ** rng.uniform(-6, 6, size)).astype(np.float32)


def scaled_columns(x, y):
    """A formula whose every term is exact, so that all error is that of its sum."""
    return Vi(x) * Vj(y)


ONES = np.ones((40, 1), np.float32)
MANY = mixed_magnitudes(1_000_000, 1)
EXACT = MANY.astype(np.float64).sum()
TERMS = np.abs(MANY.astype(np.float64)).sum()


def error_of_sum(rows, **options):
    found = scaled_columns(ONES[:rows], MANY).sum(axis=1, **options)
    assert found.dtype == np.float32
    return np.abs(found - EXACT).max()


@pytest.mark.parametrize("rows", [1, 40])
def test_schemes_differ_in_the_error_that_they_are_chosen_for(rows):
    direct, block, kahan, double = (error_of_sum(rows, **some) for some in (DIRECT, BLOCK, KAHAN, DOUBLE))
    rounding = abs(np.float64(np.float32(EXACT)) - EXACT)
    assert direct > 4 * block
    assert block > 4 * kahan
    assert kahan == double == rounding


@pytest.mark.parametrize("rows", [1, 40])
def test_direct_sum_is_the_running_sum_of_float32(rows):
    expected = np.add.accumulate(MANY[:, 0], dtype=np.float32)[-1]
    np.testing.assert_array_equal(scaled_columns(ONES[:rows], MANY).sum(axis=1, **DIRECT), np.full((rows, 1), expected))


def test_auto_is_block_sum_bit_for_bit():
    k = scaled_columns(ONES, MANY)
    np.testing.assert_array_equal(k.sum(axis=1), k.sum(axis=1, **BLOCK))
    assert k.sum(axis=1, call=False, **BLOCK).as_text("expression") == k.sum(axis=1, call=False).as_text("expression")


@pytest.mark.parametrize("options", [DOUBLE, KAHAN, {"use_double_acc": True, **KAHAN}])
@pytest.mark.parametrize(("rows", "columns", "dim"), [(7, 300, 40), (3, 5000, 3), (0, 3, 3), (5, 0, 3), (1, 1, 3)])
def test_wide_and_compensated_sums_are_exact_to_the_last_bit(rows, columns, dim, options):
    x, y = np.ones((rows, dim), np.float32), mixed_magnitudes(columns, dim)
    found = scaled_columns(x, y).sum(axis=1, **options)
    expected = np.broadcast_to(y.astype(np.float64).sum(0).astype(np.float32), (rows, dim))
    np.testing.assert_array_equal(found, expected)


def test_compensated_sums_of_float64_are_more_accurate():
    terms = np.tile(np.array([[1e17], [3.0], [-1e17], [1.0]]), (300, 1))
    x = np.ones((20, 1))
    assert np.abs((Vi(x) * Vj(terms)).sum(axis=1) - 1200.0).max() > 1.0
    np.testing.assert_array_equal((Vi(x) * Vj(terms)).sum(axis=1, **KAHAN), np.full((20, 1), 1200.0))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_compensated_sums_keep_infinities_and_nan(value):
    y = mixed_magnitudes(300, 1)
    y[17] = value
    np.testing.assert_array_equal((Vi(ONES) * Vj(y)).sum(axis=1, **KAHAN), np.full((40, 1), value, np.float32))


def test_sums_over_i_and_products_with_vectors_take_the_options():
    x, y = mixed_magnitudes(3000, 1), np.ones((5, 1), np.float32)
    expected = np.full((5, 1), x.astype(np.float64).sum().astype(np.float32))
    for options in (DOUBLE, KAHAN):
        np.testing.assert_array_equal((Vi(x) * Vj(y)).sum(axis=0, **options), expected)
        np.testing.assert_array_equal((Vi(y) * Vj(x)).__matmul__(np.ones(3000, np.float32), **options), expected[:, 0])


EXPONENTS = np.random.default_rng(5).uniform(-3, 3, (20_000, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(6).uniform(0.5, 2.0, (20_000, 21)).astype(np.float32)


@pytest.mark.parametrize("options", [{}, DIRECT, DOUBLE])
@pytest.mark.parametrize("dim", [1, 21])
@pytest.mark.parametrize("rows", [2, 40])
def test_exponential_sums_follow_the_options(rows, dim, options):
    x = ONES[:rows]
    dense = np.broadcast_to(EXPONENTS.astype(np.float64)[None], (rows, *EXPONENTS.shape))
    weight = np.broadcast_to(WEIGHTS.astype(np.float64)[None, :, :dim], (rows, len(WEIGHTS), dim))
    f, g = Vi(x) * Vj(EXPONENTS), Vj(WEIGHTS[:, :dim])
    # A sum of n positive terms has a relative error of n units at most, of its blocks here; directly, far fewer.
    columns = 1 if options is DOUBLE else 1024
    found = f.logsumexp(axis=1, weight=g, **options)
    assert_close(found, reduce_dense("logsumexp", [dense, weight], axis="j"), dtype=np.float32, columns=columns)
    found = f.sumsoftmaxweight(g, axis=1, **options)
    assert_close(found, reduce_dense("softmax", [dense, weight], axis="j"), dtype=np.float32, columns=columns)
    assert found.dtype == np.float32


def test_schemes_of_exponential_sums_differ_in_their_errors():
    f = Vi(ONES) * Vj(EXPONENTS)
    exact = np.log(np.exp(EXPONENTS.astype(np.float64)).sum())
    direct, block, double = (np.abs(f.logsumexp(axis=1, **some) - exact).max() for some in (DIRECT, {}, DOUBLE))
    assert direct > 2 * block
    assert double <= abs(np.float32(exact) - exact) * (1 + 1e-6)


def test_statistics_take_the_accumulator():
    rng = np.random.default_rng(1)
    y = (rng.standard_normal((50_000, 1)) + 100).astype(np.float32)
    wide = y.astype(np.float64)
    k = Vi(ONES) * Vj(y)
    assert abs(k.mean(axis=1, **DOUBLE)[0, 0] / wide.mean() - 1) < 3 * UNIT
    assert abs(k.var(axis=1, **DOUBLE)[0, 0] / wide.var() - 1) < 8 * UNIT
    factors = (1 + y / 1e7).astype(np.float32)
    exact = np.prod(factors.astype(np.float64))
    product = [(Vi(ONES) * Vj(factors)).prod(axis=1, **some)[0, 0] for some in ({}, DOUBLE)]
    assert abs(product[1] / exact - 1) < 2 * UNIT < abs(product[0] / exact - 1)


def test_reductions_that_add_nothing_accept_the_options():
    k = Vi(ONES) * Vj(MANY[:300])
    options = {**DOUBLE, **KAHAN}
    np.testing.assert_array_equal(k.argmin(axis=1, **options), k.argmin(axis=1))
    np.testing.assert_array_equal(k.Kmin(3, axis=1, **options), k.Kmin(3, axis=1))
    np.testing.assert_array_equal(k.max(axis=1, **options), k.max(axis=1))
    np.testing.assert_array_equal(k.count(axis=1, **options), k.count(axis=1))
    assert k.min(axis=1, call=False, **options).as_text("expression") == k.min(axis=1, call=False).as_text("expression")


def gradients(x, y, p, **options):
    leaves = [leaf.detach().requires_grad_() for leaf in (x, y, p)]
    a, b, c = (Vi(leaves[0]), Vj(leaves[1]), Pm(leaves[2]))
    (a * b * c).sum(axis=1, **options).sum().backward()
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("options", [DOUBLE, KAHAN])
def test_gradients_are_added_up_as_the_results(options):
    x, p = torch.ones(40, 1), torch.ones(1)
    y = torch.from_numpy(MANY[:100_000])
    of_x, of_y, of_p = gradients(x, y, p, **options)
    exact = y.double().sum()
    assert torch.equal(of_x, exact.float().expand(40, 1))
    assert torch.equal(of_y, torch.full_like(y, 40.0))
    assert torch.equal(of_p, (40 * exact.float().double()).float().reshape(1))
    assert not torch.equal(of_x, gradients(x, y, p)[0])


def test_gradients_of_logsumexp_take_the_accumulator():
    x = torch.from_numpy(ONES).requires_grad_()
    y = torch.from_numpy(EXPONENTS)
    (found,) = torch.autograd.grad((Vi(x) * Vj(y)).logsumexp(axis=1, **DOUBLE).sum(), x)
    weights = torch.softmax(y.double(), 0)
    expected = np.full((40, 1), float((weights * y.double()).sum()))
    assert_close(found, expected, dtype=np.float32, columns=4)


def test_genred_takes_the_options():
    columns = MANY[:5000]
    expected = np.full((40, 1), columns.astype(np.float64).sum().astype(np.float32))
    for options in (DOUBLE, KAHAN, {"use_double_acc": True}):
        multiply = Genred("x * y", ["x = Vi(1)", "y = Vj(1)"], "Sum", axis=1, **options)
        np.testing.assert_array_equal(multiply(ONES, columns), expected)
    narrow = Genred("x * y", ["x = Vi(1)", "y = Vj(1)"], "Sum", axis=1, dtype_acc="float32")
    assert narrow(ONES, columns).shape == (40, 1)
    with pytest.raises(DtypeError, match="dtype_acc is 'float32' for a formula of float64"):
        narrow(ONES.astype(np.float64), columns)


REFUSED = {
    "unknown_accumulator": ({"dtype_acc": "float16"}, DtypeError, "dtype_acc is 'float16', expected one of auto, f"),
    "narrow_accumulator": ({"dtype_acc": "float32"}, DtypeError, "dtype_acc is 'float32' for a formula of float64"),
    "two_accumulators": ({"dtype_acc": "float32", "use_double_acc": True}, UnsupportedError, "give one of them"),
    "unknown_scheme": ({"sum_scheme": "pairwise"}, UnsupportedError, "sum_scheme is 'pairwise', expected one of auto"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused_at_the_users_line(name):
    options, error, message = REFUSED[name]
    k = Vi(ONES.astype(np.float64)) * Vj(ONES)
    with pytest.raises(error, match=message) as caught:
        k.sum(axis=1, **options)
    assert __file__ in str(caught.value)
