"""The language of formula texts: what every word means, how operators bind, what is said about mistakes."""

from __future__ import annotations

import contextlib
import inspect
import re

import numpy as np
import pytest

from pylazy import FormulaError, Genred, PylazyError, ShapeError
from pylazy.execution.templates import Argument
from pylazy.formula_texts.formula_keywords import KEYWORDS
from pylazy.formula_texts.formula_parser import parse_alias, parse_formula
from reference import evaluate_dense

M, N = 4, 3
ALIASES = ["x=Vi(3)", "y=Vj(3)", "p=Pm(1)", "s=Vj(1)", "A=Vi(9)", "t=Vi(1)"]
VARIABLES = {argument.name: argument for argument in (parse_alias(text, k) for k, text in enumerate(ALIASES))}


@pytest.fixture(name="data")
def make_data():
    rng = np.random.default_rng(5)
    shapes = [(M, 3), (N, 3), (1,), (N, 1), (M, 9), (M, 1)]
    return [rng.uniform(-2, 2, shape) for shape in shapes]


def read(text):
    return parse_formula(text, VARIABLES)


def evaluate(text, data):
    return evaluate_dense(read(text), data)


def dense(data):
    rows = ("x", "A", "t")
    named = dict(zip(VARIABLES, data, strict=True))
    return {name: array[:, None] if name in rows else np.atleast_2d(array)[None] for name, array in named.items()}


def vector(*columns):
    outer = np.broadcast_shapes(*(column.shape[:-1] for column in columns))
    return np.concatenate([np.broadcast_to(column, (*outer, column.shape[-1])) for column in columns], axis=-1)


def total(values):
    return values.sum(-1, keepdims=True)


# From a text to what it means in NumPy, on the dense arrays of the variables.
MEANINGS = {
    "IntCst(3) * x": lambda v: 3 * v["x"],
    "IntCst(-3) * x": lambda v: -3 * v["x"],
    "RatCst(2, 3) * x": lambda v: v["x"] * 2 / 3,
    "IntInv(4) * x": lambda v: v["x"] / 4,
    "Zero(3) + x": lambda v: v["x"],
    "Zero(1) + x": lambda v: v["x"],
    "Var(0, 3, 0) - Var(1, 3, 1)": lambda v: v["x"] - v["y"],
    "Vi(0, 3) - Vj(1, 3) * Pm(2, 1)": lambda v: v["x"] - v["y"] * v["p"],
    "Add(x, y)": lambda v: v["x"] + v["y"],
    "Subtract(x, y)": lambda v: v["x"] - v["y"],
    "Mult(x, y)": lambda v: v["x"] * v["y"],
    "Divide(x, y)": lambda v: v["x"] / v["y"],
    "Minus(x)": lambda v: -v["x"],
    "Inv(x)": lambda v: 1 / v["x"],
    "Square(x)": lambda v: v["x"] ** 2,
    "Pow(x, 3)": lambda v: v["x"] ** 3,
    "Pow(x, -1)": lambda v: 1 / v["x"],
    "Powf(Abs(x), y)": lambda v: np.abs(v["x"]) ** v["y"],
    "Sqrt(Abs(x))": lambda v: np.sqrt(np.abs(v["x"])),
    "Rsqrt(Abs(x))": lambda v: 1 / np.sqrt(np.abs(v["x"])),
    "Sign(x)": lambda v: np.sign(v["x"]),
    "Step(x)": lambda v: v["x"] >= 0,
    "ReLU(x)": lambda v: np.maximum(v["x"], 0),
    "Floor(x)": lambda v: np.floor(v["x"]),
    "Round(x, 1)": lambda v: np.round(v["x"], 1),
    "Exp(x)": lambda v: np.exp(v["x"]),
    "Log(Abs(x))": lambda v: np.log(np.abs(v["x"])),
    "XLogX(Abs(x))": lambda v: np.abs(v["x"]) * np.log(np.abs(v["x"])),
    "Sin(x)": lambda v: np.sin(v["x"]),
    "Cos(x)": lambda v: np.cos(v["x"]),
    "Asin(Sin(x))": lambda v: np.arcsin(np.sin(v["x"])),
    "Acos(Sin(x))": lambda v: np.arccos(np.sin(v["x"])),
    "Atan(x)": lambda v: np.arctan(v["x"]),
    "Atan2(x, y)": lambda v: np.arctan2(v["x"], v["y"]),
    "SinXDivX(x)": lambda v: np.sin(v["x"]) / v["x"],
    "Clamp(x, y, y + 1)": lambda v: np.clip(v["x"], v["y"], v["y"] + 1),
    "ClampInt(x, -1, 1)": lambda v: np.clip(v["x"], -1, 1),
    "DiffClampInt(x, -1, 1)": lambda v: (v["x"] >= -1) & (v["x"] <= 1),
    "IfElse(x, y, 2)": lambda v: np.where(v["x"] >= 0, v["y"], 2),
    "Where(x > 0, y, 2)": lambda v: np.where(v["x"] > 0, v["y"], 2),
    "Mod(x, 2, -1)": lambda v: v["x"] - 2 * np.floor((v["x"] + 1) / 2),
    "Mod(x, 2)": lambda v: np.mod(v["x"], 2),
    "Equal(Sign(x), Sign(y))": lambda v: np.sign(v["x"]) == np.sign(v["y"]),
    "NotEqual(Sign(x), Sign(y))": lambda v: np.sign(v["x"]) != np.sign(v["y"]),
    "LessThan(x, y)": lambda v: v["x"] < v["y"],
    "LessOrEqual(x, y)": lambda v: v["x"] <= v["y"],
    "Sum(x)": lambda v: total(v["x"]),
    "Max(x)": lambda v: v["x"].max(-1, keepdims=True),
    "Min(x)": lambda v: v["x"].min(-1, keepdims=True),
    "ArgMax(x)": lambda v: v["x"].argmax(-1)[..., None],
    "ArgMin(x)": lambda v: v["x"].argmin(-1)[..., None],
    "SumT(s, 4)": lambda v: vector(*[v["s"]] * 4),
    "Elem(x, 1)": lambda v: v["x"][..., 1:2],
    "ElemT(s, 4, 1)": lambda v: vector(0 * v["s"], v["s"], 0 * v["s"], 0 * v["s"]),
    "ElemT(s, 2, 0)": lambda v: vector(v["s"], 0 * v["s"]),
    "Extract(x, 1, 2)": lambda v: v["x"][..., 1:],
    "ExtractT(x, 2, 5)": lambda v: vector(0 * v["x"][..., :2], v["x"]),
    "Concat(x, s)": lambda v: vector(v["x"], v["s"]),
    "OneHot(2 * Step(t), 3)": lambda v: vector(v["t"] < 0, 0 * v["t"], v["t"] >= 0),
    "Scalprod(x, y)": lambda v: total(v["x"] * v["y"]),
    "SqNorm2(x)": lambda v: total(v["x"] ** 2),
    "Norm2(x)": lambda v: np.sqrt(total(v["x"] ** 2)),
    "Normalize(x)": lambda v: v["x"] / np.sqrt(total(v["x"] ** 2)),
    "SqDist(x, y)": lambda v: total((v["x"] - v["y"]) ** 2),
    "WeightedSqNorm(p, x)": lambda v: v["p"] * total(v["x"] ** 2),
    "WeightedSqNorm(y, x)": lambda v: total(v["y"] * v["x"] ** 2),
    "WeightedSqNorm(A, y)": lambda v: quadratic(v["A"], v["y"]),
    "SymSqNorm(A, y)": lambda v: quadratic(v["A"], v["y"]),
    "WeightedSqDist(y, x, 1)": lambda v: total(v["y"] * (v["x"] - 1) ** 2),
    "SqNormIso(p, x)": lambda v: v["p"] * total(v["x"] ** 2),
    "SqNormDiag(y, x)": lambda v: total(v["y"] * v["x"] ** 2),
    "MatVecMult(A, y)": lambda v: (v["A"].reshape(M, 1, 3, 3) @ v["y"][..., None])[..., 0],
    "VecMatMult(y, A)": lambda v: (v["y"][..., None, :] @ v["A"].reshape(M, 1, 3, 3))[..., 0, :],
    "TensorProd(x, y)": lambda v: (v["x"][..., :, None] * v["y"][..., None, :]).reshape(M, N, 9),
    "TensorDot(A, y, [3, 3], [3], [1], [0])": lambda v: (v["A"].reshape(M, 1, 3, 3) @ v["y"][..., None])[..., 0],
    "TensorDot(A, y, Ind(3, 3), Ind(3), Ind(0), 0)": lambda v: (v["y"][..., None, :] @ v["A"].reshape(M, 1, 3, 3))[
        ..., 0, :
    ],
    "Kron(x, y, [3], [3])": lambda v: (v["x"][..., :, None] * v["y"][..., None, :]).reshape(M, N, 9),
    "Factorize(Exp(x) + y, Exp(x))": lambda v: np.exp(v["x"]) + v["y"],
    "AutoFactorize(Exp(x))": lambda v: np.exp(v["x"]),
    # Literals, and how operators bind
    "1.5 * x": lambda v: 1.5 * v["x"],
    ".5 * x + 1e-1 - 2.": lambda v: 0.5 * v["x"] - 1.9,
    "x / 3": lambda v: v["x"] / 3,
    "1 / 3 * x": lambda v: v["x"] / 3,
    "x - y - p": lambda v: v["x"] - v["y"] - v["p"],
    "x / y / p": lambda v: v["x"] / v["y"] / v["p"],
    "x - (y - p)": lambda v: v["x"] - (v["y"] - v["p"]),
    "x + y * p": lambda v: v["x"] + v["y"] * v["p"],
    "-x ** 2": lambda v: -(v["x"] ** 2),
    "(-x) ** 2": lambda v: v["x"] ** 2,
    "x ** -1": lambda v: 1 / v["x"],
    "x ** 2 ** 1": lambda v: v["x"] ** 2,
    "Abs(x) ** 0.5": lambda v: np.sqrt(np.abs(v["x"])),
    "Abs(x) ** y": lambda v: np.abs(v["x"]) ** v["y"],
    "2 ** x": lambda v: 2 ** v["x"],
    "--x": lambda v: v["x"],
    "+-x * -y": lambda v: v["x"] * v["y"],
    "x | y": lambda v: total(v["x"] * v["y"]),
    "x + 1 | y * 2": lambda v: total((v["x"] + 1) * (v["y"] * 2)),
    "(x | y) + p": lambda v: total(v["x"] * v["y"]) + v["p"],
    "x < y": lambda v: v["x"] < v["y"],
    "x > y": lambda v: v["x"] > v["y"],
    "x <= y": lambda v: v["x"] <= v["y"],
    "x >= y": lambda v: v["x"] >= v["y"],
    "Sign(x) == Sign(y)": lambda v: np.sign(v["x"]) == np.sign(v["y"]),
    "Sign(x) != Sign(y)": lambda v: np.sign(v["x"]) != np.sign(v["y"]),
    "(x < y) + 1 > 1": lambda v: v["x"] < v["y"],
    "(x | y) < 1": lambda v: total(v["x"] * v["y"]) < 1,
    " \n\tExp ( - ( x - y ) ** 2 )\n": lambda v: np.exp(-((v["x"] - v["y"]) ** 2)),
    "7": lambda v: np.full((1, 1, 1), 7.0),
    "2 * 3 - 1": lambda v: np.full((1, 1, 1), 5.0),
}


def quadratic(matrix, values):
    return np.einsum("...kl,...k,...l->...", matrix.reshape(M, 1, 3, 3), values, values)[..., None]


@pytest.mark.parametrize("text", MEANINGS)
def test_text_means_what_numpy_computes(text, data):
    expected = np.asarray(MEANINGS[text](dense(data)), dtype=np.float64)
    found = evaluate(text, data)
    assert found.shape[-1] == expected.shape[-1]
    full = (M, N, expected.shape[-1])
    np.testing.assert_allclose(np.broadcast_to(found, full), np.broadcast_to(expected, full), rtol=1e-12, atol=1e-14)


UNARY = {
    "Exp2": np.exp2,
    "Log2": lambda x: np.log2(np.abs(x)),
    "Log1p": lambda x: np.log1p(np.abs(x)),
    "Expm1": np.expm1,
    "Tan": np.tan,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Tanh": np.tanh,
    "Cbrt": np.cbrt,
    "Ceil": np.ceil,
    "Trunc": np.trunc,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "LogicalNot": lambda x: x == 0,
    "IsNan": np.isnan,
    "Erf": None,
    "Erfc": None,
}
BINARY = {
    "Hypot": np.hypot,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
    "GreaterThan": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
}


@pytest.mark.parametrize("name", UNARY)
def test_functions_beyond_those_of_the_peer(name, data):
    text = f"{name}(Abs(x))" if name.startswith("Log") and name != "LogicalNot" else f"{name}(x)"
    found = evaluate(text, data)
    if UNARY[name] is not None:
        np.testing.assert_allclose(found, UNARY[name](data[0][:, None]), rtol=1e-12)
    assert read(text)._expression.op == name.lower().replace("logicalnot", "logical_not")


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_beyond_those_of_the_peer(name, data):
    x, y = data[0][:, None], data[1][None]
    np.testing.assert_allclose(evaluate(f"{name}(x, y)", data), BINARY[name](x, y), rtol=1e-12)


def test_every_keyword_has_a_meaning_in_a_test():
    texts = " ".join([*MEANINGS, *UNARY, *BINARY])
    tested = {name for name in KEYWORDS if re.search(rf"\b{name}\b", texts)}
    elsewhere = {"BSpline", "SoftDTW_SqDist", "Grad", "Diff", "GradMatrix", "Divergence", "Laplacian"}
    elsewhere |= {"TraceOperator", "AdjointOperator", "SumLinOperator"}
    elsewhere |= {name for name in KEYWORDS if "Complex" in name or name == "Conj"}  # in test_complex.py
    elsewhere |= {name for name in KEYWORDS if "_Reduction" in name or "_WithSaved" in name}  # test_reduction_texts.py
    assert set(KEYWORDS) - tested <= elsewhere


def test_integers_are_exact_and_floats_are_inputs():
    assert read("x + 9007199254740993")._expression.operands[1].source == 2**53 + 1
    assert read("x * 0.1")._expression.operands[1].source.number == 0.1
    assert read("x ** 3")._expression.op == "powi"
    assert read("x ** 2")._expression.op == "square"


def test_variables_may_have_names_of_functions():
    variables = {"Exp": Argument(0, "i", 3, "Exp")}
    assert parse_formula("Exp(Exp)", variables)._expression.op == "exp"


# Mistakes -------------------------------------------------------------------------------------------------------------

MISTAKES = {
    # text: (column of the caret, message)
    "": (0, "found the end, expected a number, a variable or a function"),
    "x +": (3, "found the end, expected a number"),
    "x y": (2, "found 'y', expected an operator or the end"),
    "2x": (1, "found 'x', expected an operator"),
    "x * * y": (4, r"found '\*', expected a number"),
    "Exp(x": (5, r"found the end, expected ','"),
    "Exp(x))": (6, r"found '\)', expected an operator or the end"),
    "(x": (2, r"found the end, expected '\)'"),
    "SqDist(x,,y)": (9, "found ',', expected a number"),
    "SqDist(x y)": (9, "found 'y', expected ','"),
    "SqDist(x)": (0, r"SqDist was given 1 argument, expected SqDist\(f, g\)"),
    "x + SqDist(x, y, p)": (4, "SqDist was given 3 arguments"),
    "Elem(x)": (0, r"Elem was given 1 argument, expected Elem\(f, n: int\)"),
    "Elem(x, 1.5)": (8, "found 1.5 for n of Elem, expected an integer"),
    "Elem(x, y)": (8, "found a formula for n of Elem, expected an integer"),
    "Elem(x, [1])": (8, r"found \(1,\) for n of Elem"),
    "Kron(x, y, 2, x)": (14, "found a formula for dimsg of Kron, expected a list of integers"),
    "Kron(x, y, [2.5], [3])": (12, "found '2.5', expected an integer"),
    "Kron(x, y, [2 3], [3])": (14, "found '3', expected ','"),
    "x + [1, 2]": (4, "found a list, expected a formula"),
    "-[1]": (0, "found a list"),
    "Exp": (3, r"found the end after the function Exp, expected '\('"),
    "x(3)": (1, r"found '\(' after 'x', which is a variable"),
    "Expp(x)": (0, r"no function is called Expp: did you mean Exp\?"),
    "sqdist(x, y)": (0, "no function is called sqdist: did you mean SqDist"),
    "1 + z": (4, "no variable is called z, the aliases declare x, y, p, s, A, t"),
    "x < y < p": (6, "found '<' after a comparison"),
    "x $ y": (2, r"found '\$'"),
    "x\n+ é": (4, "found 'é'"),
    "x.sum()": (1, "found '.'"),
    "__import__('os')": (0, "no function is called __import__"),
    "x = y": (2, "found '=', expected an operator"),
    "x ! y": (2, "found '!'"),
    "Vi(3)": (0, "Vi was given 1 argument"),
    "9" * 400: (0, "400 digits"),
    "x * (" + "9" * 300 + " * " + "9" * 300 + " * 1.5)": (5, "beyond float64"),
    "(" * 500 + "x" + ")" * 500: (167, "nested too deeply"),
    "x " + "+ (x " * 500: (630, "nested too deeply"),
    "Exp(" * 500 + "x" + ")" * 500: (400, "nested too deeply"),
    "-" * 500 + "(" + "-(" * 500 + "x": (751, "nested too deeply"),
    "x" + "**x" * 600: (1500, "nested too deeply"),
}


def caret(message):
    """Give the character under the caret and what stands before it, as the message shows them."""
    *_, text, mark, _ = message.split("\n")
    return text[len(mark) - 1 : len(mark)], text[4 : len(mark) - 1].removeprefix("...")


@pytest.mark.parametrize("text", MISTAKES)
def test_mistake_is_shown_at_its_place(text):
    column, message = MISTAKES[text]
    with pytest.raises(FormulaError, match=message) as caught:
        read(text)
    shown = str(caught.value)
    flat = text.replace("\n", " ")
    under, before = caret(shown)
    assert under == flat[column : column + 1]
    assert flat[:column].endswith(before)
    assert "\n  at " in shown
    assert shown.startswith("formula: ")


OPERATIONS = {
    "SqDist(x, s + A)": (0, ShapeError, "sqdist was given inner dimensions 3, 9"),
    "1 + Exp(x * A)": (10, ShapeError, "mul was given inner dimensions 3, 9"),
    "1 + Elem(x, 7)": (4, ShapeError, "component 7 of a vector of inner dimension 3"),
    "Var(0, 3, 5) + x": (0, PylazyError, "category of a symbolic variable is 5"),
    "p + Extract(x, 2, 2)": (4, ShapeError, "components 2 to 3"),
}


@pytest.mark.parametrize("text", OPERATIONS)
def test_operation_that_does_not_fit_is_shown_at_its_place(text):
    column, kind, message = OPERATIONS[text]
    with pytest.raises(kind, match=message) as caught:
        read(text)
    under, before = caret(str(caught.value))
    assert (under, before) == (text[column], text[:column])


def test_message_ends_with_the_line_of_the_user():
    line = inspect.currentframe().f_lineno + 2
    with pytest.raises(FormulaError) as caught:
        Genred("x +", ["x = Vi(3)"])
    assert str(caught.value).split("\n")[-1].startswith(f"  at {__file__}:{line}: ")


def test_long_formula_is_cut_around_the_mistake():
    with pytest.raises(FormulaError) as caught:
        read("x + " * 100 + "$" + " + x" * 100)
    text = str(caught.value).split("\n")[1]
    assert len(text) < 120
    assert text.strip().startswith("...")
    assert text.strip().endswith("...")
    assert caret(str(caught.value))[0] == "$"


def test_long_sums_need_no_depth():
    assert read(" + ".join(["x"] * 5000)).ndim == 3


def test_no_text_crashes_the_parser():
    rng = np.random.default_rng(0)
    words = [*"()[],+-*/|<>=! ", "**", "==", "x", "y", "A", "1", "2.5", "Exp", "SqDist", "Kron", "Elem", "é", "\n", "_"]
    for _ in range(3000):
        text = "".join(rng.choice(words, size=rng.integers(1, 12)))
        with contextlib.suppress(PylazyError):
            read(text)


# Aliases --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=Vi(3)", Argument(7, "i", 3, "x")),
        (" x = Vj ( 1 , 3 ) ", Argument(1, "j", 3, "x")),
        ("Pm(2)", Argument(7, "", 2, "")),
        ("Vi(0,5)", Argument(0, "i", 5, "")),
        ("Var(4,2,1)", Argument(4, "j", 2, "")),
        ("long_name_2 = Var(4,2,2)", Argument(4, "", 2, "long_name_2")),
        ("x = Vx(3)", Argument(7, "i", 3, "x")),
        ("y = Vy(1,3)", Argument(1, "j", 3, "y")),
    ],
)
def test_alias_is_read(text, expected):
    assert parse_alias(text, 7) == expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("x", 1, "alias 7: found 'x', expected one of Vi"),
        ("", 0, "found the end, expected a name"),
        ("x = Vk(3)", 4, "found 'Vk', expected one of Vi, Vj, Pm, Var"),
        ("x = Vi", 6, r"found the end, expected '\('"),
        ("x = Vi()", 7, r"found '\)', expected an integer"),
        ("x = Vi(1.5)", 7, "found '1.5', expected an integer"),
        ("x = Vi(-1)", 7, "found '-', expected an integer"),
        ("x = Vi(0)", 4, "found dimension 0"),
        ("x = Vi(1,2,3)", 10, r"found ',', expected '\)'"),
        ("x = Var(1,2)", 11, r"found '\)', expected ','"),
        ("x = Var(1,2,3)", 4, "category 3"),
        ("x = Vi(3) y", 10, "found 'y', expected nothing more"),
        ("2x = Vi(3)", 0, "found '2', expected a name"),
    ],
)
def test_mistake_in_an_alias_is_shown(text, column, message):
    with pytest.raises(FormulaError, match=message) as caught:
        parse_alias(text, 7)
    if text != "x":
        assert caret(str(caught.value)) == (text[column : column + 1], text[:column])
