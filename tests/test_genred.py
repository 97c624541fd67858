"""Reductions of formulas written as text: what they compute, what they take, what they refuse."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

from pylazy import (
    AxisError,
    DeviceError,
    DtypeError,
    FormulaError,
    Genred,
    PylazyError,
    ShapeError,
    UnsupportedError,
    Vi,
    Vj,
    generic_argkmin,
    generic_argmin,
    generic_logsumexp,
    generic_sum,
)
from pylazy.formula_texts.reduction_texts import REDUCTION_OPS
from pylazy.reductions import REDUCTIONS
from reference import assert_close, evaluate_dense, reduce_dense

M, N, D, E = 7, 5, 3, 2
FORMULA = "Exp(-p * SqDist(x, y)) * b"
ALIASES = ["p = Pm(1)", "x = Vi(3)", "y = Vj(3)", "b = Vj(2)"]
DTYPES = (np.float32, np.float64)


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(11)


@pytest.fixture(name="data")
def make_data(rng):
    return arrays_of(rng, np.float64)


def arrays_of(rng, dtype):
    return [
        np.array([0.5], dtype),
        rng.standard_normal((M, D)).astype(dtype),
        rng.standard_normal((N, D)).astype(dtype),
        rng.standard_normal((N, E)).astype(dtype),
    ]


def dense_kernel(p, x, y):
    return np.exp(-p[..., None] * ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_sum_matches_numpy(dtype, rng):
    p, x, y, b = arrays_of(rng, dtype)
    found = Genred(FORMULA, ALIASES, axis=1)(p, x, y, b)
    assert found.dtype == dtype
    expected = dense_kernel(*(a.astype(np.float64) for a in (p, x, y))) @ b.astype(np.float64)
    assert_close(found, expected, dtype=dtype, columns=N, scale=5.0)


def test_default_is_a_sum_over_i(data):
    p, x, y, b = data
    expected = (dense_kernel(p, x, y)[..., None] * b[None]).sum(0)
    assert_close(Genred(FORMULA, ALIASES)(*data), expected, dtype=np.float64, columns=M, scale=5.0)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", REDUCTION_OPS)
def test_every_reduction_matches_oracle(name, axis, rng):
    kinds = REDUCTION_OPS[name]
    row = REDUCTIONS[kinds[0]]
    x, y, b = rng.standard_normal((M, D)), rng.standard_normal((N, D)), rng.random((N, E))
    formula = "SqDist(x, y)" if row.scalar else "x - y"
    weighted = row.weight == "required" or name == "LogSumExpWeight"
    options = {"formula2": "b + Elem(x, 0) ** 2"} if weighted else {}
    if row.takes_k:
        options["opt_arg"] = 2
    found = Genred(formula, ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], name, axis=axis, **options)(x, y, b)
    lazy = Vi(x).sqdist(Vj(y)) if row.scalar else Vi(x) - Vj(y)
    operands = [evaluate_dense(lazy)] + ([evaluate_dense(Vj(b) + Vi(x)[0] ** 2)] if weighted else [])
    results = found if len(kinds) > 1 else (found,)
    assert isinstance(results, tuple)
    assert len(results) == len(kinds)
    for kind, result in zip(kinds, results, strict=True):
        expected = reduce_dense(kind, operands, axis="ij"[axis], k=options.get("opt_arg", 0))
        assert result.dtype == (np.int64 if REDUCTIONS[kind].is_position else np.float64)
        assert_close(result, expected, dtype=np.float64, columns=M, scale=50.0)


def test_k_of_a_scalar_formula_has_no_inner_axis(data):
    _, x, y, _ = data
    found = Genred("SqDist(x, y)", ["x = Vi(3)", "y = Vj(3)"], "ArgKMin", axis=1, opt_arg=3)(x, y)
    np.testing.assert_array_equal(found, np.argsort(((x[:, None] - y) ** 2).sum(-1), axis=1, kind="stable")[:, :3])


def test_logsumexp_takes_an_optional_weight(data):
    _, x, y, b = data
    aliases = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"]
    square = ((x[:, None] - y) ** 2).sum(-1)
    plain = Genred("-SqDist(x, y)", aliases, "LogSumExp", axis=1)(x, y, b)
    assert_close(plain, np.log(np.exp(-square).sum(1, keepdims=True)), dtype=np.float64, columns=N, scale=10.0)
    weighted = Genred("-SqDist(x, y)", aliases, "LogSumExp", axis=1, formula2="b * b")(x, y, b)
    assert_close(weighted, np.log(np.exp(-square) @ (b * b)), dtype=np.float64, columns=N, scale=10.0)


# Variables ------------------------------------------------------------------------------------------------------------


def test_aliases_may_come_in_any_order(data):
    _, x, y, _ = data
    made = Genred("Sum(x * Exp(y))", ["y = Vj(1, 3)", "x = Vi(0, 3)"], axis=1)
    assert_close(made(x, y), x @ np.exp(y).sum(0)[:, None], dtype=np.float64, columns=N, scale=100.0)


def test_variables_without_names(data):
    _, x, y, _ = data
    anonymous = Genred("SqDist(Var(0, 3, 0), Var(1, 3, 1))", ["Vi(3)", "Vj(3)"], axis=1)
    none = Genred("SqDist(Var(0, 3, 0), Vj(1, 3))", [], axis=1)
    named = Genred("SqDist(x, y)", ["x = Var(0, 3, 0)", "y = Var(1, 3, 1)"], axis=1)
    for made in (anonymous, none):
        np.testing.assert_array_equal(made(x, y), named(x, y))


def test_formula_may_add_variables_and_leaves_the_list_alone(data):
    p, x, y, b = data
    aliases = ["x = Vi(3)", "y = Vj(3)"]
    made = Genred("Exp(-SqDist(x, y)) * Var(3, 2, 1) + Var(2, 1, 2)", aliases, axis=1)
    assert len(aliases) == 2
    expected = dense_kernel(np.ones(1), x, y) @ b + N * p
    assert_close(made(x, y, p, b), expected, dtype=np.float64, columns=N, scale=10.0)


def test_variable_that_the_formula_does_not_use_still_counts(data):
    p, x, y, b = data
    made = Genred("x", ALIASES, axis=1)
    assert_close(made(p, x, y, b), N * x, dtype=np.float64, columns=N)
    constant = Genred("IntCst(2)", ["x = Vi(3)", "y = Vj(3)"], axis=1)
    np.testing.assert_array_equal(constant(x, y), np.full((M, 1), 2.0 * N))


def test_parameters_may_be_numbers_and_lists(data):
    p, *rest = data
    made = Genred(FORMULA, ALIASES, axis=1)
    expected = made(p, *rest)
    for given in (0.5, [0.5], (0.5,), np.float32(0.5), np.array(0.5)):
        np.testing.assert_array_equal(made(given, *rest), expected)
    single = [array.astype(np.float32) for array in rest]
    assert made(0.5, *single).dtype == np.float32


def test_mixed_dtypes_are_promoted(data):
    p, x, y, b = data
    found = Genred(FORMULA, ALIASES, axis=1)(p, x.astype(np.float32), y, b)
    wide = x.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(found, Genred(FORMULA, ALIASES, axis=1)(p, wide, y, b))


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda a: np.repeat(a, 2, 0)[::2], lambda a: a[::-1].copy()[::-1], np.ndarray.tolist]
)
def test_every_layout_gives_the_same_result(layout, data):
    made = Genred(FORMULA, ALIASES, axis=1)
    np.testing.assert_allclose(made(*(layout(array) for array in data)), made(*data), rtol=1e-12)


BATCHES = [((2,), (2,), (2,)), ((2,), (), (2,)), ((3, 1), (2,), ()), ((), (4, 2), (1, 2)), ((), (), (2,))]


@pytest.mark.parametrize("shapes", BATCHES)
@pytest.mark.parametrize("axis", [0, 1])
def test_batch_dimensions_broadcast(shapes, axis, rng):
    first, second, third = shapes
    p = rng.random((*first, 1))
    x, y = rng.standard_normal((*second, M, D)), rng.standard_normal((*third, N, D))
    found = Genred("Exp(-p * SqDist(x, y)) * x", ALIASES[:3], axis=axis)(p, x, y)
    kernel = dense_kernel(p, x, y)
    expected = (kernel[..., None] * x[..., :, None, :]).sum(-2 if axis else -3)
    assert_close(found, expected, dtype=np.float64, columns=M, scale=10.0)


def test_one_program_serves_every_size(rng):
    made = Genred("Exp(-SqDist(x, y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)
    for rows, columns in [(1, 1), (7, 5), (300, 20), (2, 0), (0, 3)]:
        x, y = rng.standard_normal((rows, D)), rng.standard_normal((columns, D))
        expected = dense_kernel(np.ones(1), x, y).sum(1, keepdims=True)
        assert_close(made(x, y), expected, dtype=np.float64, columns=max(columns, 1), scale=10.0)
    assert len({plan.executable for plan in made._template._plans.values()}) == 1


def test_out_receives_the_result(data):
    made = Genred(FORMULA, ALIASES, axis=1)
    out = np.empty((M, E))
    assert made(*data, out=out) is out
    np.testing.assert_array_equal(out, made(*data))
    both = Genred("SqDist(x, y)", ["x = Vi(3)", "y = Vj(3)"], "Min_ArgMin", axis=1)
    values, positions = np.empty((M, 1)), np.empty((M, 1), np.int64)
    both(*data[1:3], out=(values, positions))
    np.testing.assert_array_equal(positions, both(*data[1:3])[1])


def test_options_that_change_nothing_are_accepted(data):
    made = Genred(
        FORMULA,
        ALIASES,
        reduction_op="Sum",
        axis=1,
        dtype="float64",
        opt_arg=None,
        formula2=None,
        cuda_type="double",
        dtype_acc="auto",
        use_double_acc=True,
        sum_scheme="block_sum",
        enable_chunks=False,
        rec_multVar_highdim=True,
        use_fast_math=False,
    )
    found = made(*data, backend="CPU", device_id=-1, ranges=None, out=None)
    np.testing.assert_array_equal(found, Genred(FORMULA, ALIASES, axis=1)(*data))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_genred_survives_copy_and_pickle(duplicate, data):
    for made in (
        Genred(FORMULA, ALIASES, axis=1),
        Genred("SqDist(x, y)", ["p = Pm(1)", *ALIASES[1:]], "KMin", axis=0, opt_arg=2, sum_scheme="block_sum"),
        Genred("SqDist(x, y)", ALIASES, "LogSumExp", formula2="b"),
    ):
        again = duplicate(made)
        np.testing.assert_array_equal(again(*data), made(*data))
        assert repr(again) == repr(made)


def test_genred_can_be_read(data):
    made = Genred(FORMULA, ALIASES, axis=1)
    assert "sum over j" in made.as_text("expression")
    assert "reduction.reduce" in made.as_text("formula")
    assert repr(made) == f"Genred({FORMULA!r}, {ALIASES!r}, 'Sum', axis=1)"


# torch ----------------------------------------------------------------------------------------------------------------


def test_tensors_in_tensors_out(data):
    torch = pytest.importorskip("torch")
    made = Genred(FORMULA, ALIASES, axis=1)
    found = made(*(torch.tensor(array) for array in data))
    np.testing.assert_array_equal(found.numpy(), made(*data))
    parameter = torch.nn.Parameter(torch.tensor(data[0]))
    assert made(parameter, *(torch.tensor(array) for array in data[1:])).requires_grad


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize(
    ("name", "formula", "formula2"), [("Sum", FORMULA, None), ("LogSumExp", "-p * SqDist(x, y)", "b * b")]
)
def test_gradients_match_those_of_dense_torch(name, formula, formula2, batch, rng):
    torch = pytest.importorskip("torch")
    inputs = [torch.tensor(array, requires_grad=True) for array in arrays_of(rng, np.float64)]
    x = torch.tensor(rng.standard_normal((*batch, M, D)), requires_grad=True)
    inputs[1] = x
    p, _, y, b = inputs
    found = Genred(formula, ALIASES, name, axis=1, formula2=formula2)(*inputs)
    kernel = (-p * ((x[..., :, None, :] - y) ** 2).sum(-1)).exp()
    expected = kernel @ b if name == "Sum" else (kernel @ (b * b)).log()
    cotangent = torch.tensor(rng.standard_normal(expected.shape))
    gradients = torch.autograd.grad(found, inputs, cotangent)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, inputs, cotangent), strict=True):
        assert gradient.shape == wanted.shape
        np.testing.assert_allclose(gradient, wanted, rtol=1e-9, atol=1e-9)


# generic_* ------------------------------------------------------------------------------------------------------------


def test_generic_sum_matches_genred(data):
    over_j = generic_sum(FORMULA, "a = Vi(2)", *ALIASES)
    np.testing.assert_array_equal(over_j(*data), Genred(FORMULA, ALIASES, axis=1)(*data))
    over_i = generic_sum(FORMULA, "a = Vj(2)", *ALIASES)
    np.testing.assert_array_equal(over_i(*data), Genred(FORMULA, ALIASES, axis=0)(*data))


def test_generic_functions_match_numpy(data):
    _, x, y, b = data
    square = ((x[:, None] - y) ** 2).sum(-1)
    aliases = ("x = Vi(3)", "y = Vj(3)")
    found = generic_logsumexp("-SqDist(x, y)", "a = Vi(1)", *aliases)(x, y)
    assert_close(found, np.log(np.exp(-square).sum(1, keepdims=True)), dtype=np.float64, columns=N, scale=10.0)
    weighted = generic_logsumexp("-SqDist(x, y)", "a = Vi(2)", *aliases, "b = Vj(2)", formula2="b * b")(x, y, b)
    assert_close(weighted, np.log(np.exp(-square) @ (b * b)), dtype=np.float64, columns=N, scale=10.0)
    nearest = generic_argmin("SqDist(x, y)", "a = Vi(1)", *aliases)(x, y)
    np.testing.assert_array_equal(nearest[:, 0], square.argmin(1))
    three = generic_argkmin("SqDist(x, y)", "a = Vi(3)", *aliases)(x, y)
    np.testing.assert_array_equal(three, square.argsort(axis=1, kind="stable")[:, :3])


# Mistakes -------------------------------------------------------------------------------------------------------------

X, Y, B, P = np.ones((M, D)), np.ones((N, D)), np.ones((N, E)), np.ones(1)
XY = ["x = Vi(3)", "y = Vj(3)"]


def run(*given, **options):
    return Genred(FORMULA, ALIASES, axis=1)(*given, **options)


CASES = {
    "too few arrays": (lambda: run(P, X, Y), TypeError, r"called with 3 arrays, expected 4, for p = Pm\(0, 1\), x = "),
    "one array": (lambda: run(P), TypeError, "called with 1 array, expected 4"),
    "inner dimension": (
        lambda: run(P, X, X[:, :2], B),
        ShapeError,
        r"argument 2, y = Vj\(2, 3\), has inner dimension 2 in its shape \(7, 2\), expected \(\*batch, N, 3\)",
    ),
    "inner dimension of a parameter": (
        lambda: run(np.ones(2), X, Y, B),
        ShapeError,
        r"argument 0, p = Pm\(0, 1\), has inner dimension 2",
    ),
    "rows": (
        lambda: run(P, X, Y, np.ones((M, E))),
        ShapeError,
        r"argument 3, b = Vj\(3, 2\), has 7 rows in its shape \(7, 2\), and argument 2, y = Vj\(2, 3\) has 5",
    ),
    "batches": (
        lambda: run(P, np.ones((2, M, D)), np.ones((3, N, D)), B),
        ShapeError,
        r"y = Vj\(2, 3\), has batch shape \(3,\) in its shape \(3, 5, 3\), and the data before it has \(2,\)",
    ),
    "one dimension": (lambda: run(P, X[0], Y, B), ShapeError, r"has shape \(3,\), expected \(\*batch, M, 3\): reshape"),
    "number for rows": (lambda: run(P, 1.0, Y, B), ShapeError, r"x = Vi\(1, 3\), has shape \(\)"),
    "objects": (lambda: run(P, X.astype(object), Y, B), DtypeError, r"argument 1, x = Vi\(1, 3\), has dtype object"),
    "text": (lambda: run(P, "x", Y, B), DtypeError, r"argument 1, x = Vi\(1, 3\), is str, expected a NumPy array"),
    "backend": (lambda: run(P, X, Y, B, backend="TPU"), DeviceError, "backend is 'TPU'"),
    "ranges": (lambda: run(P, X, Y, B, ranges=(1,) * 6), DtypeError, "ranges_i of ranges is of type int"),
    "out of another shape": (lambda: run(P, X, Y, B, out=np.ones(M)), ShapeError, r"out has shape \(7,\), expected"),
    "K above N": (
        lambda: Genred("SqDist(x, y)", XY, "KMin", axis=1, opt_arg=6)(X, Y),
        ShapeError,
        "K is 6, and axis j has 5",
    ),
    "unknown reduction": (lambda: Genred("x", XY, "Sums"), UnsupportedError, "reduction_op is 'Sums', expected one of"),
    "axis": (lambda: Genred("x", XY, axis=2), AxisError, "axis is 2, expected 0 to reduce over i"),
    "axis that is none": (lambda: Genred("x", XY, axis=None), AxisError, "axis is None"),
    "no K": (lambda: Genred("x", XY, "KMin"), DtypeError, "number of values that KMin keeps, is None"),
    "K of zero": (lambda: Genred("x", XY, "KMin", opt_arg=0), ShapeError, "opt_arg is 0, expected at least 1"),
    "K for a sum": (lambda: Genred("x", XY, opt_arg=3), UnsupportedError, "opt_arg is 3, and Sum takes none"),
    "weight for a sum": (lambda: Genred("x", XY, formula2="y"), UnsupportedError, "Sum takes no weight"),
    "no weight": (lambda: Genred("Sum(x)", XY, "SumSoftMaxWeight"), UnsupportedError, "needs a weight: give formula2"),
    "vector logits": (lambda: Genred("x", XY, "LogSumExp"), ShapeError, "LogSumExp of a formula of inner dimension 3"),
    "formula that is no text": (lambda: Genred(3, XY), DtypeError, "formula is of type int"),
    "aliases that are a text": (lambda: Genred("x", "x = Vi(3)"), DtypeError, "expected a list of texts"),
    "alias that is no text": (lambda: Genred("x", ["x = Vi(3)", 3]), DtypeError, "alias 1 is 3, expected a text"),
    "positions that clash": (
        lambda: Genred("x", ["x = Vi(1, 3)", "y = Vj(3)"]),
        FormulaError,
        r"x = Vi\(1, 3\) and y = Vj\(1, 3\) have one position",
    ),
    "names that clash": (
        lambda: Genred("x", ["x = Vi(3)", "x = Vj(3)"]),
        FormulaError,
        r"x = Vi\(0, 3\) and x = Vj\(1, 3\) have one name",
    ),
    "gap": (lambda: Genred("x", ["x = Vi(1, 3)"]), FormulaError, r"no variable has position 0, while x = Vi\(1, 3\)"),
    "variable that contradicts": (
        lambda: Genred("x + Var(0, 3, 1)", ["x = Vi(3)"]),
        ShapeError,
        r"variable 0 is Vi\(0, 3\) and Vj\(0, 3\) in the formula, and declared as x = Vi\(0, 3\)",
    ),
    "dimension that contradicts": (
        lambda: Genred("Sum(x) + Sum(Var(0, 2, 0))", ["x = Vi(3)"]),
        ShapeError,
        r"variable 0 is Vi\(0, 3\) and Vi\(0, 2\) in one formula",
    ),
    "output": (lambda: generic_sum("x", "a = Vi(77)", *XY), ShapeError, "inner dimension 3, expected equal ones"),
    "output of a parameter": (lambda: generic_sum("x", "a = Pm(3)", *XY), AxisError, "expected rows or columns"),
    "output of argmin": (lambda: generic_argmin("x", "a = Vi(1)", *XY), ShapeError, "inner dimension 3"),
    "sum scheme": (lambda: Genred("x", XY, sum_scheme="fast"), UnsupportedError, "sum_scheme is 'fast'"),
}


@pytest.mark.parametrize("name", CASES)
def test_error_names_the_argument_and_ends_at_the_line_of_the_user(name):
    act, kind, message = CASES[name]
    with pytest.raises(kind, match=message) as caught:
        act()
    assert isinstance(caught.value, PylazyError | TypeError)
    first = inspect.getsourcelines(act)[1]
    place = str(caught.value).splitlines()[-1]
    assert place.startswith(f"  at {__file__}:")
    line = int(place.split(":")[1])
    assert first <= line <= first + 6 or line == inspect.getsourcelines(run)[1] + 1


def test_mistakes_are_found_again_when_shapes_change(data):
    made = Genred(FORMULA, ALIASES, axis=1)
    made(*data)
    with pytest.raises(ShapeError, match="argument 2"):
        made(data[0], data[1], data[2][:2], data[3])
    made(*data)


def test_sparse_tensor_is_refused_after_a_dense_one():
    torch = pytest.importorskip("torch")
    made = Genred("x - y", XY, axis=1)
    made(torch.ones(M, D), torch.ones(N, D))
    with pytest.raises(DtypeError, match="layout"):
        made(torch.ones(M, D).to_sparse(), torch.ones(N, D))
