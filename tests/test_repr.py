"""Formulas and reductions as people read them."""

from __future__ import annotations

import subprocess
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from pylazy import LazyTensor, Pm, Vi, Vj

X, Y = np.ones((7, 3), dtype=np.float32), np.ones((5, 3), dtype=np.float32)
x, y, p = Vi(X), Vj(Y), Pm(np.ones(1, dtype=np.float32))
K = (-x.sqdist(y)).exp()

FORMULAS = {
    "exp(-sqdist(x_i, y_j))": (K, r"\exp\left(-\left\lVert x_{i} - y_{j} \right\rVert^2\right)"),
    "sum((x_i - y_j)**2)": (((x - y) ** 2).sum(-1), r"\sum_k \left(\left(x_{i} - y_{j}\right)^{2}\right)_k"),
    "x_i - y_j - 1": (x - y - 1, "x_{i} - y_{j} - 1"),
    "x_i - (y_j - 1)": (x - (y - 1), r"x_{i} - \left(y_{j} - 1\right)"),
    "(x_i + y_j) * p": ((x + y) * p, r"\left(x_{i} + y_{j}\right) \, p"),
    "x_i / (y_j * 2)": (x / (y * 2), r"\frac{x_{i}}{y_{j} \, 2}"),
    "x_i / y_j * 2": (x / y * 2, r"\frac{x_{i}}{y_{j}} \, 2"),
    "-(x_i + 1)": (-(x + 1), r"-\left(x_{i} + 1\right)"),
    "-x_i * y_j": (-x * y, r"\left(-x_{i}\right) \, y_{j}"),
    "(-x_i)**2": ((-x) ** 2, r"\left(-x_{i}\right)^{2}"),
    "(x_i**y_j)**2": ((x**y) ** 2, r"\left(x_{i}^{y_{j}}\right)^{2}"),
    "x_i**y_j**p": (x ** (y**p), r"x_{i}^{y_{j}^{p}}"),
    "x_i**-3": (x**-3, "x_{i}^{-3}"),
    "x_i < y_j": (x < y, "x_{i} < y_{j}"),
    "where(x_i >= 0, y_j, 0.5)": ((x >= 0).where(y, 0.5), r"\operatorname{where}\left(x_{i} \geq 0, y_{j}, 0.5\right)"),
    "x_i[0] * y_j[1:3]": (x[0] * y[1:3], r"\left(x_{i}\right)_{0} \, \left(y_{j}\right)_{1 \dots 2}"),
    "[x_i, y_j]": (x.concat(y), r"\left[x_{i}, y_{j}\right]"),
    "one_hot(p, 4)": (p.one_hot(4), r"\operatorname{one\_hot}\left(p, 4\right)"),
    "1 / x_i": (x.reciprocal(), r"\frac{1}{x_{i}}"),
    "dot(x_i, x_j)": (Vi(X) | Vj(X), r"\left\langle x_{i}, x_{j} \right\rangle"),
    "x0_i + x1_i": (x + Vi(X.copy()), "x^{(0)}_{i} + x^{(1)}_{i}"),
    "1.5e-07 * x_i": (1.5e-7 * x, r"1.5 \cdot 10^{-7} \, x_{i}"),
    "1e+30 + x_i": (10**30 + x, r"1 \cdot 10^{30} + x_{i}"),
    "x_i * -2": (x * -2, r"x_{i} \, \left(-2\right)"),
}


@pytest.mark.parametrize("text", FORMULAS)
def test_formula_is_written_as_mathematics(text):
    formula, latex = FORMULAS[text]
    assert repr(formula) == f"LazyTensor({text}, shape={formula.shape}, float32)"
    assert formula._repr_latex_() == rf"$\displaystyle {latex}$"


def test_numbers_alone_have_no_dtype():
    assert repr(LazyTensor(2) + LazyTensor(0.5)) == "LazyTensor(2 + 0.5, shape=(1, 1), any dtype)"
    assert repr(LazyTensor(float("inf"))) == "LazyTensor(inf, shape=(1, 1), any dtype)"
    assert LazyTensor(float("nan"))._repr_latex_() == r"$\displaystyle \mathrm{NaN}$"


KERNEL = r"\exp\left(-\left\lVert x_{i} - y_{j} \right\rVert^2\right)"
LATER = {"axis": 1, "call": False}
REDUCTIONS = {
    "sum_j exp(-sqdist(x_i, y_j))": (K.sum(**LATER), rf"\sum_j {KERNEL}"),
    "sum_i exp(-sqdist(x_i, y_j))": (K.sum(axis=0, call=False), rf"\sum_i {KERNEL}"),
    "sum_j (x_i + y_j)": ((x + y).sum(**LATER), r"\sum_j \left(x_{i} + y_{j}\right)"),
    "mean_j exp(-sqdist(x_i, y_j))": (K.mean(**LATER), rf"\frac{{1}}{{N}} \sum_j {KERNEL}"),
    "logsumexp_j(p, y_j)": (p.logsumexp(weight=y, **LATER), r"\log \sum_j \exp\left(p\right) y_{j}"),
    "softmax_j(p, y_j)": (
        p.sumsoftmaxweight(y, **LATER),
        r"\frac{\sum_j \exp\left(p\right) y_{j}}{\sum_j \exp\left(p\right)}",
    ),
    "min_j y_j, argmin_j y_j": (y.min_argmin(**LATER), r"\min_j y_{j},\; \operatorname*{arg\,min}_j y_{j}"),
    "kmin_j[2] y_j": (y.Kmin(2, **LATER), r"\operatorname*{kmin}^2_j y_{j}"),
}


@pytest.mark.parametrize("text", REDUCTIONS)
def test_reduction_is_written_as_mathematics(text):
    reduction, latex = REDUCTIONS[text]
    assert repr(reduction) == f"Reduction({text}, shape={reduction.shape}, dtype=float32)"
    assert reduction._repr_latex_() == rf"$\displaystyle {latex}$"


def test_symbolic_reduction_names_its_arguments():
    reduction = (Vi(0, 3) * Vj(1, 3)).sum(axis=1)
    assert repr(reduction) == "Reduction(sum_j x_i * y_j, arguments=(Vi(0, 3), Vj(1, 3)))"


class Balanced(HTMLParser):
    """Checks that every tag is closed, and gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.mark.parametrize("shown", [x < y, K.sum(**LATER), (Vi(0, 3) * Vj(1, 3)).sum(axis=1)])
def test_html_is_escaped_and_balanced(shown):
    parser = Balanced()
    parser.feed(shown._repr_html_())
    parser.close()
    assert not parser.open
    assert repr(shown).split("(", 1)[1].split(", shape")[0].split(", arguments")[0] in parser.text


def test_html_says_what_the_array_would_take():
    big = np.zeros((1_000_000, 1), dtype=np.float32)
    assert "4 TB" in (Vi(big) - Vj(big))._repr_html_()


def test_long_formulas_are_abbreviated():
    total = x
    doubled = x * y
    for k in range(5000):
        total = total + y * k
        doubled = doubled * doubled  # a tree of 2**5000 leaves
    begun = time.perf_counter()
    for formula in (total, doubled):
        assert "..." in repr(formula)
        assert r"\dots" in formula._repr_latex_()
        assert max(map(len, (repr(formula), formula._repr_latex_(), formula._repr_html_()))) < 2000
    assert time.perf_counter() - begun < 1
    assert repr(total).startswith("LazyTensor(... + y_j * 49")
    assert repr(total).endswith("+ y_j * 4999, shape=(7, 5, 3), float32)")
    assert "..." in repr(total.sum(**LATER))


def test_neither_torch_nor_the_compiler_is_needed_to_write_a_formula():
    code = (
        "import sys, numpy, pylazy; x = numpy.ones((3, 2)); "
        "repr((pylazy.Vi(x) * pylazy.Vj(x)).sum(axis=1, call=False));"
        "assert not {'torch', 'torch_mlir', 'llvmlite'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
