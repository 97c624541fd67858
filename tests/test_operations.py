"""Every operation of a formula against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pylazy import LazyTensor, Pm, Vi, Vj
from pylazy.operations import OPERATIONS
from reference import OPERATIONS as ORACLE
from reference import assert_close, evaluate_dense, reduce_dense, tolerance

M, N, D = 7, 5, 3
DTYPES = (np.float32, np.float64)

UNARY = {
    "neg": lambda x: -x,
    "abs": abs,
    "exp": LazyTensor.exp,
    "log": lambda x: x.abs().log(),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: x.abs().rsqrt(),
    "square": LazyTensor.square,
    "reciprocal": LazyTensor.reciprocal,
    "sin": LazyTensor.sin,
    "cos": LazyTensor.cos,
    "tanh": LazyTensor.tanh,
    "relu": LazyTensor.relu,
    "step": LazyTensor.step,
    "sign": LazyTensor.sign,
    "powi": lambda x: x**5,
    "powi_negative": lambda x: x**-3,
    "pow_half": lambda x: x.abs() ** 0.5,
    "pow_minus_half": lambda x: x.abs() ** -0.5,
    "pow_float": lambda x: x.abs() ** 1.5,
    "pow_integral_float": lambda x: x**3.0,
    "rpow": lambda x: 2**x,
    "inner_sum": lambda x: x.sum(-1),
    "inner_min": lambda x: x.min(),
    "inner_max": lambda x: x.max(),
    "sqnorm2": LazyTensor.sqnorm2,
    "norm2": LazyTensor.norm2,
    "norm": lambda x: x.norm(-1),
    "elem": lambda x: x[1],
    "extract": lambda x: x[1:3],
    "whole_slices": lambda x: x[:, :, :2],
    "mean": lambda x: x.mean(-1),
    "weightedsqnorm": lambda x: x.weightedsqnorm([0.5, 1.5, 2.5]),
}

LATER_UNARY = {
    "tan": lambda x: x.sin().tan(),
    "asin": lambda x: x.sin().asin(),
    "acos": lambda x: x.sin().acos(),
    "atan": LazyTensor.atan,
    "sinh": LazyTensor.sinh,
    "cosh": LazyTensor.cosh,
    "exp2": LazyTensor.exp2,
    "log2": lambda x: x.abs().log2(),
    "log1p": lambda x: x.abs().log1p(),
    "expm1": LazyTensor.expm1,
    "cbrt": LazyTensor.cbrt,
    "erf": LazyTensor.erf,
    "erfc": LazyTensor.erfc,
    "sigmoid": LazyTensor.sigmoid,
    "softplus": LazyTensor.softplus,
    "floor": LazyTensor.floor,
    "ceil": LazyTensor.ceil,
    "trunc": LazyTensor.trunc,
    "round": LazyTensor.round,
    "round_places": lambda x: x.round(2),
    "round_tens": lambda x: (x * 100).round(-1),
    "xlogx": lambda x: x.abs().xlogx(),
    "sinxdivx": LazyTensor.sinxdivx,
    "sinc": LazyTensor.sinc,
    "isnan": LazyTensor.isnan,
    "logical_not": LazyTensor.logical_not,
    "log_above_1": lambda x: (x.abs() + 1).log(),
    "power_above_1": lambda x: (x.abs() + 1) ** 0.7,
    "power_of_a_half_more": lambda x: x.abs() ** 1.5,
    "power_of_a_half_less": lambda x: (x.abs() + 0.5) ** -2.5,
    "normalize": LazyTensor.normalize,
    "inner_prod": lambda x: x.prod(),
    "inner_var": lambda x: x.var(),
    "inner_std": lambda x: x.std(-1, ddof=1),
    "inner_any": lambda x: (x > 0.5).any(),
    "inner_all": lambda x: (x > -0.5).all(),
    "inner_count": lambda x: (x > 0).count(),
    "one_hot": lambda x: x[0].one_hot(3),
    "broadcast": lambda x: x[0].sumT(4),
    "inner_argmin": lambda x: x.argmin(),
    "inner_argmax": lambda x: x.argmax(),
}

BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x.abs() ** y,
    "minimum": LazyTensor.minimum,
    "maximum": LazyTensor.maximum,
    "eq": lambda x, y: x.sign() == y.sign(),
    "ne": lambda x, y: x.sign() != y.sign(),
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "where": lambda x, y: (x > y).where(x, y),
    "ifelse": lambda x, y: x.ifelse(y, 2.5),
    "clamp": lambda x, y: x.clamp(y, y + 1.0),
    "clamp_numbers": lambda x, y: (x * y).clamp(-1, 1),
    "dot": lambda x, y: x | y,
    "sqdist": LazyTensor.sqdist,
    "concat": LazyTensor.concat,
    "cat": lambda x, y: LazyTensor.cat((x, y, x), -1),
    "weightedsqdist": lambda x, y: x.weightedsqdist(y, 2.0),
    "distance": lambda x, y: ((x - y) ** 2).sum(-1).sqrt(),
    "times_zero": lambda x, y: (x * y) * 0,
    "parameters": lambda x, y: x * Pm(np.arange(1.0, 4.0)) + y * 0.5,
}

LATER_BINARY = {
    "atan2": LazyTensor.atan2,
    "hypot": LazyTensor.hypot,
    "logical_and": lambda x, y: (x > 0).logical_and(y > 0),
    "logical_or": lambda x, y: (x > 0).logical_or(y > 0),
    "mod": lambda x, y: x.mod(1.5) + y,
    "mod_offset": lambda x, y: x.mod(2, -1) + y,
    "contract": lambda x, y: x.tensorprod(y),
    "softdtw_sqdist": lambda x, y: x.softdtw_sqdist(y, 0.7),
    "weightedsqnorm_matrix": lambda x, y: (x - y).weightedsqnorm(np.arange(1.0, 10.0)),
}


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(0)


def check_sum(formula, dtype):
    dense = np.broadcast_to(evaluate_dense(formula), (M, N, formula.ndim))
    scale = np.abs(dense).sum(1)
    assert_close(formula.sum(axis=1), reduce_dense("sum", [dense], axis="j"), dtype=dtype, columns=N, scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *LATER_UNARY])
def test_unary_operation_matches_oracle(name, dtype, rng):
    x, y = rng.standard_normal((M, D)).astype(dtype), rng.standard_normal((N, D)).astype(dtype)
    check_sum({**UNARY, **LATER_UNARY}[name](Vi(x) * 0.5 + Vj(y)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*BINARY, *LATER_BINARY])
def test_binary_operation_matches_oracle(name, dtype, rng):
    x, y = rng.standard_normal((M, D)).astype(dtype), rng.standard_normal((N, D)).astype(dtype)
    check_sum({**BINARY, **LATER_BINARY}[name](Vi(x), Vj(y)), dtype)


BOUNDED_ARGUMENTS = {
    "log of abs": (lambda x: x.abs().log(), lambda x: np.log(np.abs(x))),
    "log above 1": (lambda x: (x.abs() + 1).log(), lambda x: np.log(np.abs(x) + 1)),
    "power of abs": (lambda x: x.abs() ** 0.75, lambda x: np.abs(x) ** 0.75),
    "falling power of abs": (lambda x: x.abs() ** -0.75, lambda x: np.abs(x) ** -0.75),
    "power above 1": (lambda x: (x.abs() + 1) ** -0.375, lambda x: (np.abs(x) + 1) ** -0.375),
    "power of a half": (lambda x: x.abs() ** -1.5, lambda x: np.abs(x) ** -1.5),
    "exp of clamp": (lambda x: x.clamp(-3, 5).exp(), lambda x: np.exp(np.clip(x, -3, 5))),
    "exp of clamp far below": (lambda x: x.clamp(-1000, 5).exp(), lambda x: np.exp(np.clip(x, -1000, 5))),
    "tanh": (LazyTensor.tanh, np.tanh),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BOUNDED_ARGUMENTS)
def test_what_is_known_of_arguments_leaves_special_values_alone(name, dtype):
    lazy, dense = BOUNDED_ARGUMENTS[name]
    tiny = float(np.finfo(dtype).smallest_subnormal)
    x = np.array([0.0, -0.0, tiny, 3 * tiny, 1.0, -2.0, 90.0, -900.0, np.inf, -np.inf, np.nan], dtype)[:, None]
    with np.errstate(all="ignore"):
        expected = dense(x.astype(np.longdouble)).astype(dtype)
    found = (lazy(Vi(x)) + Vj(np.zeros((1, 1), dtype))).sum(axis=1)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["add", "mul", "maximum", "where", "clamp", "dot", "sqdist"])
def test_inner_dimension_of_one_broadcasts(name, rng):
    x, y = rng.standard_normal((M, D)), rng.standard_normal((N, 1))
    check_sum(BINARY[name](Vi(x), Vj(y)), np.float64)
    if name not in ("where", "clamp"):
        check_sum(BINARY[name](Vj(y), Vi(x)), np.float64)


SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -1.5, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize(
    "name",
    ["neg", "abs", "exp", "sqrt", "rsqrt", "square", "reciprocal", "tanh", "relu", "step", "sign", "log"],
)
def test_special_values_follow_the_semantics_page(name):
    found = getattr(Vi(SPECIAL[:, None]), name)() if name != "neg" else -Vi(SPECIAL[:, None])
    with np.errstate(all="ignore"):
        expected = ORACLE[name](SPECIAL)
    result = found.sum(axis=1)[:, 0]
    np.testing.assert_allclose(result, expected, rtol=1e-14)


PAIRS = {**BINARY, "eq": lambda x, y: x == y, "ne": lambda x, y: x != y}


@pytest.mark.parametrize("name", ["minimum", "maximum", "add", "mul", "lt", "ge", "eq", "ne"])
def test_special_pairs_follow_the_semantics_page(name):
    for value in SPECIAL:
        with np.errstate(all="ignore"):
            expected = ORACLE[name](SPECIAL[:, None], np.array([[value]]))
        found = PAIRS[name](Vi(SPECIAL[:, None]), Vj(np.array([[value]]))).sum(axis=1)
        np.testing.assert_array_equal(found, expected)


def test_float64_constants_are_float64(rng):
    x = rng.standard_normal((M, 1))
    assert_close((Vi(x) / 3).sum(axis=1), x / 3, dtype=np.float64)
    assert_close((Vi(x) + 16777217).sum(axis=1), x + 16777217, dtype=np.float64)
    assert_close((Vi(x).abs() ** 1.5).sum(axis=1), np.abs(x) ** 1.5, dtype=np.float64)
    assert_close((Vi(x) * 0.1).sum(axis=1), x * 0.1, dtype=np.float64)


def test_zero_times_is_still_a_formula_and_keeps_nan():
    x = np.array([[1.0], [np.nan]])
    zero = Vi(x) * 0
    assert isinstance(zero, LazyTensor)
    np.testing.assert_array_equal(zero.sum(axis=1), [[0.0], [np.nan]])


def test_every_operation_has_an_oracle():
    assert set(ORACLE) == set(OPERATIONS)


def test_every_operation_is_reached_by_a_method(rng):
    x, y = Vi(rng.standard_normal((M, D))), Vj(rng.standard_normal((N, D)))
    seen = set()
    formulas = [make(x) for make in {**UNARY, **LATER_UNARY}.values()]
    formulas += [make(x, y) for make in {**BINARY, **LATER_BINARY}.values()]
    gradient = x.softdtw_sqdist(y, 0.7).grad(x, 1)
    formulas += [gradient, gradient.diff(x, x)]
    stack = [formula._expression for formula in formulas]
    while stack:
        node = stack.pop()
        seen.add(node.op)
        stack += node.operands
    assert seen - {"var", "constant"} == set(OPERATIONS)


STORED = {
    "float32": lambda array: array.astype(np.float32),
    "float64": lambda array: array,
    "float16": lambda array: array.astype(np.float16),
    "bfloat16": lambda array: torch.from_numpy(array).to(torch.bfloat16),
}
SPECIAL_CASES = ("whole_slices", "parameters", "weightedsqnorm_matrix")  # of one rank, or with arrays of float64
LAYOUTS = {
    "pairs": ((M, 1), (1, N)),
    "batch": ((2, M, 1), (2, 1, N)),
    "broadcast": ((3, 1, M, 1), (2, 1, N)),
}


def odd_eighths(rng, shape):
    """Numbers that every dtype holds; half of one and another add up to none that is 0 or is rounded."""
    return (2.0 * rng.integers(-12, 12, shape) + 1.0) / 8.0


def all_operations(*, x_of, y_of):
    """One formula with a result of every operation, each of the operands that are given for its number."""
    one = [make for name, make in {**UNARY, **LATER_UNARY}.items() if name not in SPECIAL_CASES]
    two = [make for name, make in {**BINARY, **LATER_BINARY}.items() if name not in SPECIAL_CASES]
    made = [make(x_of(number)) for number, make in enumerate(one)]
    made += [make(x_of(number), y_of(number)) for number, make in enumerate(two)]
    return LazyTensor.cat(tuple(made), -1)


def check_all_operations(formula, dtype):
    dense = evaluate_dense(formula)
    *batch, rows, _, dim = dense.shape
    dense = np.broadcast_to(dense, (*batch, rows, N, dim))
    scale = np.maximum(np.abs(dense).sum(-2), 1.0)
    # numpy has no eps of bfloat16, which keeps 16 bits less than float32
    eps = 2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps)
    found = formula.sum(axis=len(batch) + 1)
    assert str(found.dtype).endswith(dtype)
    found = found.double().numpy() if hasattr(found, "double") else found.astype(np.float64)
    expected = reduce_dense("sum", [dense], axis="j")
    arithmetic = np.float64 if dtype == "float64" else np.float32
    allowed = tolerance(arithmetic, N) * scale + eps * np.abs(expected)
    wrong = np.argwhere(~(np.abs(found - expected) <= allowed))
    assert not len(wrong), [(*place, found[tuple(place)], expected[tuple(place)]) for place in wrong]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", STORED)
def test_all_operations_on_pairs_of_every_dtype(dtype, layout, rng):
    x, y = (STORED[dtype](odd_eighths(rng, (*shape, D))) for shape in LAYOUTS[layout])
    both, y = LazyTensor(x) * 0.5 + LazyTensor(y), LazyTensor(y)
    check_all_operations(all_operations(x_of=lambda _: both, y_of=lambda _: y), dtype)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("turn", range(3))
def test_all_operations_on_rows_columns_and_parameters_of_every_dtype(dtype, turn, rng):
    arrays = [STORED[dtype](odd_eighths(rng, shape)) for shape in ((M, D), (N, D), (D,))]
    places = [Vi(arrays[0]), Vj(arrays[1]), Pm(arrays[2])]
    formula = all_operations(
        x_of=lambda number: places[(number + turn) % 3], y_of=lambda number: places[(number + turn + 1) % 3]
    )
    check_all_operations(formula, dtype)
