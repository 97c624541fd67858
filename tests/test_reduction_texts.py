"""Reductions inside texts: what they compute, and their derivatives, as pykeops' autograd writes them."""

import numpy as np
import pytest
import torch

from pylazy import AxisError, DtypeError, FormulaError, Genred, ShapeError, UnsupportedError
from pylazy.formula_texts.reduction_texts import REDUCTION_OPS

M, N = 7, 5
ALIASES = ["x = Vi(0, 3)", "y = Vj(1, 3)", "b = Vj(2, 2)", "p = Pm(3, 1)"]
F = "(Exp(-SqDist(x, y) * p) * b)"
SCORE = "(-SqDist(x, y) * p)"


def arrays():
    random = np.random.default_rng(0)
    return [0.3 + random.random(shape) for shape in ((M, 3), (N, 3), (N, 2), (1,))]


def tensors():
    return [torch.tensor(array, requires_grad=True) for array in arrays()]


def kernel(x, y, b, p):
    return torch.exp(-((x[:, None] - y[None]) ** 2).sum(-1, keepdim=True) * p) * b


@pytest.mark.parametrize("category", [0, 1])
@pytest.mark.parametrize("name", REDUCTION_OPS)
def test_a_text_that_is_a_reduction_says_all_that_genred_is_told_else(name, category):
    formula, formula2, k = "x - y", None, None
    arguments = []
    if "KM" in name:
        k, arguments = 3, ["3"]
    arguments.append(str(category))
    if name in {"LogSumExp", "LogSumExpWeight", "SumSoftMaxWeight", "SoftMax"}:
        formula = SCORE
        if name != "LogSumExp":
            formula2 = "b"
            arguments.append("b")
    found = Genred(f"{name}_Reduction({formula}, {', '.join(arguments)})", ALIASES)(*arrays())
    expected = Genred(formula, ALIASES, name, 1 - category, opt_arg=k, formula2=formula2)(*arrays())
    for one, other in zip(np.atleast_2d(found), np.atleast_2d(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("variable", "number"), [("x", 0), ("y", 1), ("b", 2)])
@pytest.mark.parametrize("category", [0, 1])
def test_gradient_of_a_sum_is_a_sum_with_the_rows_of_the_variable(category, variable, number):
    given = tensors()
    result = kernel(*given).sum(1 - category)
    cotangent = torch.rand_like(result)
    (expected,) = torch.autograd.grad(result, given[number], cotangent)
    numbers = (*arrays(), cotangent.numpy(), result.detach().numpy())
    saved = Genred(
        f"Grad_WithSavedForward(Sum_Reduction({F}, {category}), {variable}, Var(4, 2, {category}), "
        f"Var(5, 2, {category}))",
        ALIASES,
    )
    plain = Genred(f"Grad(Sum_Reduction({F}, {category}), {variable}, Var(4, 2, {category}))", ALIASES)
    np.testing.assert_allclose(saved(*numbers), expected, rtol=1e-10)
    np.testing.assert_array_equal(saved(*numbers), plain(*numbers[:5]))
    assert saved.axis == (1 if variable == "x" else 0)


def test_gradient_of_a_parameter_has_a_row_for_each_i():
    given = tensors()
    result = kernel(*given).sum(1)
    cotangent = torch.rand_like(result)
    (expected,) = torch.autograd.grad(result, given[3], cotangent)
    found = Genred(f"Grad(Sum_Reduction({F}, 0), p, Var(4, 2, 0))", ALIASES)(*arrays(), cotangent.numpy())
    assert found.shape == (M, 1)
    np.testing.assert_allclose(found.sum(0), expected, rtol=1e-10)


def test_gradient_of_a_gradient_and_differential_of_a_gradient():
    x, y, b, p = tensors()
    e, u = torch.rand(M, 2, dtype=x.dtype, requires_grad=True), torch.rand(N, 3, dtype=x.dtype)
    (of_x,) = torch.autograd.grad(kernel(x, y, b, p).sum(1), x, e, create_graph=True)
    direction = torch.rand(M, 3, dtype=x.dtype)
    (again,) = torch.autograd.grad(of_x, y, direction, retain_graph=True)
    inner = f"Grad_WithSavedForward(Sum_Reduction({F}, 0), x, Var(4, 2, 0), Var(5, 2, 0))"
    given = (*arrays(), e.detach().numpy(), np.zeros((M, 2)))
    found = Genred(f"Grad_WithSavedForward({inner}, y, Var(6, 3, 0), Var(7, 3, 0))", ALIASES)
    np.testing.assert_allclose(found(*given, direction.numpy(), of_x.detach().numpy()), again, rtol=1e-9)
    # The transpose: along y the differential of the gradient, seen from the direction, is the same number.
    moved = Genred(f"Diff_WithSavedForward({inner}, y, Var(6, 3, 1), Var(7, 3, 0))", ALIASES)
    tangent = moved(*given, u.numpy(), of_x.detach().numpy())
    np.testing.assert_allclose((tangent * direction.numpy()).sum(), (again * u).sum(), rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_derivatives_of_logsumexp_read_the_saved_result(weighted):
    x, y, b, p = tensors()
    scores = -((x[:, None] - y[None]) ** 2).sum(-1, keepdim=True) * p
    result = torch.log((torch.exp(scores) * (b if weighted else 1)).sum(1))
    e = torch.rand_like(result)
    (expected,) = torch.autograd.grad(result, y, e, retain_graph=True)
    dim = 2 if weighted else 1
    inner = f"LogSumExpWeight_Reduction({SCORE}, 0, b)" if weighted else f"LogSumExp_Reduction({SCORE}, 0)"
    found = Genred(f"Grad_WithSavedForward({inner}, y, Var(4, {dim}, 0), Var(5, {dim}, 0))", ALIASES)
    numbers = (*arrays(), e.numpy(), result.detach().numpy())
    np.testing.assert_allclose(found(*numbers), expected, rtol=1e-9)
    u = np.random.default_rng(1).random((N, 3))
    moved = Genred(f"Diff_WithSavedForward({inner}, y, Var(4, 3, 1), Var(5, {dim}, 0))", ALIASES)
    tangent = moved(*arrays(), u, result.detach().numpy())
    np.testing.assert_allclose((tangent * e.numpy()).sum(), (expected.numpy() * u).sum(), rtol=1e-9)
    with pytest.raises(UnsupportedError, match="reads its result: use Grad_WithSavedForward"):
        Genred(f"Grad({inner}, y, Var(4, {dim}, 0))", ALIASES)


def test_derivatives_of_maxima_with_shifted_sums_are_those_of_pykeops():
    x, y, b, p = tensors()
    scores = -((x[:, None] - y[None]) ** 2).sum(-1, keepdim=True) * p
    sums = (torch.exp(scores - scores.max(1, keepdim=True).values.detach()) * b).sum(1)
    maxima = scores.max(1).values.detach()
    e = torch.rand_like(sums)
    (expected,) = torch.autograd.grad(torch.log(sums), x, e, retain_graph=True)
    saved = torch.cat([maxima, sums], 1).detach().numpy()
    cotangent = torch.cat([e[:, :1], e / sums], 1).detach().numpy()
    inner = f"Max_SumShiftExpWeight_Reduction({SCORE}, 0, b)"
    found = Genred(f"Grad_WithSavedForward({inner}, x, Var(4, 3, 0), Var(5, 3, 0))", ALIASES)
    np.testing.assert_allclose(found(*arrays(), cotangent, saved), expected, rtol=1e-9)
    moved = Genred(f"Diff_WithSavedForward({inner}, x, Var(4, 3, 0), Var(5, 3, 0))", ALIASES)
    u = np.random.default_rng(1).random((M, 3))
    tangent = moved(*arrays(), u, saved)
    np.testing.assert_array_equal(tangent[:, 0], 0.0)
    slope = (tangent[:, 1:] / sums.detach().numpy() * e.numpy()).sum()
    np.testing.assert_allclose(slope, (expected.numpy() * u).sum(), rtol=1e-9)


def test_positions_and_zeros_have_the_derivative_zero():
    given = (*arrays(), np.ones((M, 3)))
    for text, shape in (
        ("Grad(ArgMin_Reduction(x - y, 0), y, Var(4, 3, 0))", (N, 3)),
        ("Diff(ArgKMax_Reduction(x - y, 2, 0), x, Var(4, 3, 0))", (M, 6)),
        ("Grad(Zero_Reduction(3, 0), x, Var(4, 3, 0))", (M, 3)),
        ("Zero_Reduction(2, 1)", (N, 2)),
    ):
        aliases = [*ALIASES, "e = Vi(4, 3)"]
        np.testing.assert_array_equal(Genred(text, aliases)(*given), np.zeros(shape))


ERRORS = {
    "a reduction in a sum": (
        "x + Sum_Reduction(y, 0)",
        FormulaError,
        "found the reduction Sum_Reduction, expected a f",
    ),
    "a negated reduction": ("-Sum_Reduction(y, 0)", FormulaError, "found the reduction Sum_Reduction"),
    "a reduction of one": ("Sum_Reduction(Sum_Reduction(x, 0), 0)", FormulaError, "found the reduction"),
    "a formula in its place": ("Grad_WithSavedForward(x, x, x, x)", FormulaError, "found a formula for r of Grad_With"),
    "a category": ("Sum_Reduction(x, 2)", AxisError, "has category 2, expected 0"),
    "a formula for a category": ("Sum_Reduction(x, y)", FormulaError, "found a formula for category"),
    "no cotangent": ("Grad(Sum_Reduction(x, 0), x)", ShapeError, "Grad of a reduction has no e"),
    "a wrong cotangent": ("Grad(Sum_Reduction(x, 0), x, b)", ShapeError, "e of grad has inner dimension 2"),
    "no variable": ("Grad(Sum_Reduction(x, 0), x + 1, x)", DtypeError, "v of grad is the formula add"),
    "no variable of a position": ("Grad(ArgMin_Reduction(x, 0), x + 1, x)", DtypeError, "v of grad is the formula add"),
    "a selection": ("Grad(Min_Reduction(x, 0), x, x)", UnsupportedError, "Min_Reduction has no derivative in a text"),
    "a helper": ("Max_SumShiftExp_Reduction(p, 0)", UnsupportedError, "reduction_op is 'Max_SumShiftExp'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_show_the_place_in_the_text(name):
    text, error, message = ERRORS[name]
    with pytest.raises(error, match=message) as raised:
        Genred(text, ALIASES)
    assert "test_reduction_texts.py" in str(raised.value)
    assert "^" in str(raised.value) or name == "a helper"


def test_arguments_may_not_contradict_the_text():
    with pytest.raises(UnsupportedError, match="axis is 1, and the formula is a reduction that says 0"):
        Genred("Sum_Reduction(x, 1)", ALIASES, axis=1)
    with pytest.raises(UnsupportedError, match="reduction_op is 'Min', and the formula is a reduction that says 'Sum'"):
        Genred("Sum_Reduction(x, 1)", ALIASES, "Min")
    with pytest.raises(UnsupportedError, match="formula2 is 'b'"):
        Genred("LogSumExp_Reduction(p, 1)", ALIASES, formula2="b")
    assert Genred("Sum_Reduction(x * y, 0)", ALIASES, "Sum", 1).axis == 1
