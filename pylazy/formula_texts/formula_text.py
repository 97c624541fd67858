"""Formulas as mathematics, for people: on one line of text, in LaTeX, or as a table in HTML."""

from __future__ import annotations

import html
import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.arrays.sources import NUMBER
from pylazy.runtime.kernel import DTYPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.execution.wanted_results import Wanted
    from pylazy.expression import Expression

_MAX_SHOWN = 30
"""How many operations are written; what is further from the root becomes dots."""

_ITEM_BYTES = {**DTYPE_BYTES, "complex64": 8, "complex128": 16}
_LETTERS = {"i": "x", "j": "y", "": "p", "ij": "z"}
_MAX_DIGITS = 12


class _Tree(NamedTuple):
    """What is shown of a formula.

    Attributes:
        node: an operation or a leaf.
        parts: those of its operands, None where dots stand for the node.
    """

    node: Expression
    parts: tuple[_Tree, ...] | None


class Infix(NamedTuple):
    """An operator between two operands.

    Attributes:
        sign: how it is written.
        binding: how strongly it binds; operands that bind less stand in brackets.
    """

    sign: str
    binding: int


_COMPARE, _ADD, _MULTIPLY, _NEGATE, _POWER, _ATOM = range(1, 7)
_TEXT_INFIX: Mapping[str, Infix] = {
    "eq": Infix(" == ", _COMPARE),
    "ne": Infix(" != ", _COMPARE),
    "lt": Infix(" < ", _COMPARE),
    "le": Infix(" <= ", _COMPARE),
    "gt": Infix(" > ", _COMPARE),
    "ge": Infix(" >= ", _COMPARE),
    "add": Infix(" + ", _ADD),
    "sub": Infix(" - ", _ADD),
    "mul": Infix(" * ", _MULTIPLY),
    "div": Infix(" / ", _MULTIPLY),
    "mod0": Infix(" % ", _MULTIPLY),
    "pow": Infix("**", _POWER),
}
_LATEX_INFIX: Mapping[str, Infix] = {
    "eq": Infix(" = ", _COMPARE),
    "ne": Infix(r" \neq ", _COMPARE),
    "lt": Infix(" < ", _COMPARE),
    "le": Infix(r" \leq ", _COMPARE),
    "gt": Infix(" > ", _COMPARE),
    "ge": Infix(r" \geq ", _COMPARE),
    "add": Infix(" + ", _ADD),
    "sub": Infix(" - ", _ADD),
    "mul": Infix(r" \, ", _MULTIPLY),
    "mod0": Infix(r" \bmod ", _MULTIPLY),
}
_LATEX_FORMS: Mapping[str, str] = {
    "abs": r"\left\lvert {0} \right\rvert",
    "ceil": r"\left\lceil {0} \right\rceil",
    "cos": r"\cos\left({0}\right)",
    "div": r"\frac{{{0}}}{{{1}}}",
    "dot": r"\left\langle {0}, {1} \right\rangle",
    "exp": r"\exp\left({0}\right)",
    "exp2": r"2^{{{0}}}",
    "floor": r"\left\lfloor {0} \right\rfloor",
    "inner_max": r"\max_k \left({0}\right)_k",
    "inner_min": r"\min_k \left({0}\right)_k",
    "inner_prod": r"\prod_k \left({0}\right)_k",
    "inner_sum": r"\sum_k \left({0}\right)_k",
    "log": r"\log\left({0}\right)",
    "norm2": r"\left\lVert {0} \right\rVert",
    "reciprocal": r"\frac{{1}}{{{0}}}",
    "rsqrt": r"\frac{{1}}{{\sqrt{{{0}}}}}",
    "sin": r"\sin\left({0}\right)",
    "sqdist": r"\left\lVert {0} - {1} \right\rVert^2",
    "sqnorm2": r"\left\lVert {0} \right\rVert^2",
    "sqrt": r"\sqrt{{{0}}}",
    "tanh": r"\tanh\left({0}\right)",
}
_LATEX_REDUCTIONS: Mapping[str, str] = {
    "sum": r"\sum_{axis} {f}",
    "mean": r"\frac{{1}}{{{size}}} \sum_{axis} {f}",
    "prod": r"\prod_{axis} {f}",
    "min": r"\min_{axis} {f}",
    "max": r"\max_{axis} {f}",
    "argmin": r"\operatorname*{{arg\,min}}_{axis} {f}",
    "argmax": r"\operatorname*{{arg\,max}}_{axis} {f}",
    "logsumexp": r"\log \sum_{axis} \exp\left({f}\right) {g}",
    "softmax": r"\frac{{\sum_{axis} \exp\left({f}\right) {g}}}{{\sum_{axis} \exp\left({f}\right)}}",
}


def formula_as_text(root: Expression) -> str:
    """Write a formula on one line, as exp(-sqdist(x_i, y_j)); far from the root, dots stand for what there is."""
    return _Writer((root,), _TEXT).write(_shown(root))[0]


def formula_as_latex(root: Expression) -> str:
    """Write a formula in LaTeX, without dollars."""
    return _Writer((root,), _LATEX).write(_shown(root))[0]


def reduction_as_text(expressions: Sequence[Expression], wanted: Sequence[Wanted], reduced: str) -> str:
    """Write a reduction on one line, as sum_j exp(-sqdist(x_i, y_j))."""
    writer = _Writer(expressions, _TEXT)
    written = [writer.write(_shown(expression)) for expression in expressions]
    texts = []
    for kind, operands, k, *_ in wanted:
        name = f"{kind}_{reduced}" + (f"[{k}]" if k else "")
        if len(operands) > 1:
            texts.append(f"{name}({', '.join(written[operand][0] for operand in operands)})")
        else:
            texts.append(f"{name} {_bracketed(written[operands[0]], _MULTIPLY)}")
    return ", ".join(texts)


def reduction_as_latex(expressions: Sequence[Expression], wanted: Sequence[Wanted], reduced: str) -> str:
    """Write a reduction in LaTeX, without dollars."""
    writer = _Writer(expressions, _LATEX)
    written = [writer.write(_shown(expression)) for expression in expressions]
    texts = []
    for kind, operands, k, *_ in wanted:
        form = _LATEX_REDUCTIONS.get(kind, rf"\operatorname*{{{{{kind}}}}}" + (f"^{k}" if k else "") + "_{axis} {f}")
        f = written[operands[0]]
        if not form.startswith((r"\log", r"\frac{{\sum")):
            f = (_in_latex(f, _MULTIPLY), _ATOM)
        g = _in_latex(written[operands[1]], _MULTIPLY) if len(operands) > 1 else ""
        texts.append(form.format(axis=reduced, f=f[0], g=g, size="N" if reduced == "j" else "M").rstrip())
    return r",\; ".join(texts)


def as_html(title: str, formula: str, facts: Mapping[str, str]) -> str:
    """Write a table with a formula and what is known of it."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return (
        f"<div><strong>{html.escape(title)}</strong> <code>{html.escape(formula)}</code>"
        f"<table><tbody>{rows}</tbody></table></div>"
    )


def bytes_as_text(shape: Sequence[int], dtype: str | None) -> str:
    """Say how much memory an array of this shape would take."""
    size = float(math.prod(shape) * _ITEM_BYTES.get(dtype or "float64", 8))
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if size < 1000 or unit == "PB":
            return f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError("the last unit takes every size")


def _shown(root: Expression) -> _Tree:
    """Choose what to show, nearest to the root first: formulas built in a loop have thousands of operations."""
    children: dict[int, list[int]] = {}
    nodes = [root]
    queue = deque([0])
    while queue and len(children) < _MAX_SHOWN:
        number = queue.popleft()
        children[number] = []
        for operand in nodes[number].operands:
            children[number].append(len(nodes))
            if operand.operands:
                queue.append(len(nodes))
            nodes.append(operand)

    def tree(number: int) -> _Tree:  # no deeper than the number of operations that are shown
        node = nodes[number]
        if number in children:
            return _Tree(node, tuple(map(tree, children[number])))
        return _Tree(node, None if node.operands else ())

    return tree(0)


_Written = tuple[str, int]
"""A text, and how strongly what it says binds."""


def _bracketed(written: _Written, binding: int, opening: str = "(", closing: str = ")") -> str:
    text, own = written
    return text if own >= binding else f"{opening}{text}{closing}"


def _in_latex(written: _Written, binding: int) -> str:
    return _bracketed(written, binding, r"\left(", r"\right)")


class _Names:
    """Names of variables: x, y, p for what is first met along i, along j, and along neither; numbered if several."""

    def __init__(self, roots: Sequence[Expression]) -> None:
        self._of: dict[Any, tuple[str, int]] = {}
        counts: dict[str, int] = {}
        seen: set[int] = set()
        stack = list(reversed(roots))
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            stack += reversed(node.operands)
            if node.op == "var" and node.source.kind != NUMBER and node.source.identity not in self._of:
                letter = _LETTERS[node.axes]
                self._of[node.source.identity] = letter, counts.get(letter, 0)
                counts[letter] = counts.get(letter, 0) + 1
        self._counts = counts

    def of(self, leaf: Expression) -> tuple[str, str]:
        """The letter, and the number where there are several of one letter."""
        letter, number = self._of[leaf.source.identity]
        return letter, str(number) if self._counts[letter] > 1 else ""


def _axes(leaf: Expression) -> str:
    """The indices that a variable stands with: z_ji is the transpose of z_ij."""
    return "ji" if leaf.attributes else leaf.axes


def _number(value: float) -> _Written:
    text = str(value) if isinstance(value, int) and abs(value) < 10**_MAX_DIGITS else f"{float(value):.6g}"
    return text, _ATOM if value >= 0 or math.isnan(value) else _NEGATE


class _Notation(NamedTuple):
    """A way to write formulas.

    Attributes:
        dots: what stands for what is not shown.
        number: writes a number.
        variable: writes a variable by its letter, its number where there are several, and its axes.
        infixes: the operators between two operands.
        brackets: around operands of these.
        special: operations that have a form of their own.
        function: writes all others, as functions.
    """

    dots: str
    number: Callable[[float], _Written]
    variable: Callable[[str, str, str], str]
    infixes: Mapping[str, Infix]
    brackets: tuple[str, str]
    special: Mapping[str, Callable[[Expression, Sequence[_Written]], _Written]]
    function: Callable[[Expression, Sequence[_Written]], _Written]


class _Writer:
    """Writes trees."""

    def __init__(self, roots: Sequence[Expression], notation: _Notation) -> None:
        self._names = _Names(roots)
        self._notation = notation

    def write(self, tree: _Tree) -> _Written:
        """Write what is shown of a formula."""
        node, parts = tree
        notation = self._notation
        if parts is None:
            return notation.dots, _ATOM
        if node.op == "constant":
            return notation.number(node.source)
        if node.op == "index":
            return node.axes, _ATOM
        if node.op == "var":
            if node.source.kind == NUMBER:
                return notation.number(node.source.number)
            return notation.variable(*self._names.of(node), _axes(node)), _ATOM
        operands = [self.write(part) for part in parts]
        if node.op in notation.infixes:
            return _between(notation.infixes[node.op], operands, notation)
        special = notation.special.get(node.op, notation.function)
        return special(node, operands)


def _between(infix: Infix, operands: Sequence[_Written], notation: _Notation) -> _Written:
    sign, binding = infix
    first, second = operands
    if first == second and first[0] == notation.dots:
        return first
    # a - b - c is read from the left, a ** b ** c from the right.
    from_right = binding == _POWER
    left = _bracketed(first, binding + from_right, *notation.brackets)
    right = _bracketed(second, binding + (not from_right), *notation.brackets)
    return f"{left}{sign}{right}", binding


def _text_of_components(node: Expression, operands: Sequence[_Written]) -> _Written:
    start, size = (int(value) for _, value in node.attributes if isinstance(value, int))
    chosen = str(start) if size == 1 else f"{start}:{start + size}"
    return f"{_bracketed(operands[0], _ATOM)}[{chosen}]", _ATOM


_TEXT_SPECIAL: Mapping[str, Callable[[Expression, Sequence[_Written]], _Written]] = {
    "neg": lambda _, operands: (f"-{_bracketed(operands[0], _NEGATE)}", _NEGATE),
    "square": lambda _, operands: (f"{_bracketed(operands[0], _ATOM)}**2", _POWER),
    "powi": lambda node, operands: (f"{_bracketed(operands[0], _ATOM)}**{node.attributes[0][1]}", _POWER),
    "reciprocal": lambda _, operands: (f"1 / {_bracketed(operands[0], _NEGATE)}", _MULTIPLY),
    "extract": _text_of_components,
    "concat": lambda _, operands: (f"[{', '.join(text for text, _ in operands)}]", _ATOM),
}


def _text_variable(letter: str, number: str, axes: str) -> str:
    return letter + number + (f"_{axes}" if axes else "")


def _text_function(node: Expression, operands: Sequence[_Written]) -> _Written:
    arguments = [text for text, _ in operands]
    arguments += [str(value) for _, value in node.attributes] if node.op != "contract" else []
    return f"{node.op.removeprefix('inner_')}({', '.join(arguments)})", _ATOM


_TEXT = _Notation("...", _number, _text_variable, _TEXT_INFIX, ("(", ")"), _TEXT_SPECIAL, _text_function)


def _latex_number(value: float) -> _Written:
    text, binding = _number(value)
    if "e" in text:
        digits, exponent = text.split("e")
        return rf"{digits} \cdot 10^{{{int(exponent)}}}", _ADD if binding < _ATOM else _MULTIPLY
    return {"inf": r"\infty", "-inf": r"-\infty", "nan": r"\mathrm{NaN}"}.get(
        text, text
    ), _ADD if binding < _ATOM else binding


def _latex_of_components(node: Expression, operands: Sequence[_Written]) -> _Written:
    text, _ = _text_of_components(node, [("", _ATOM)])
    first, *last = text[1:-1].split(":")
    chosen = rf"{first} \dots {int(last[0]) - 1}" if last else first
    return rf"\left({operands[0][0]}\right)_{{{chosen}}}", _ATOM


def _raised(operand: _Written, exponent: object) -> _Written:
    base = operand[0] if operand[1] >= _ATOM and "^" not in operand[0] else rf"\left({operand[0]}\right)"
    return f"{base}^{{{exponent}}}", _POWER


_LATEX_SPECIAL: Mapping[str, Callable[[Expression, Sequence[_Written]], _Written]] = {
    # There is no sign of multiplication, so that a minus after a factor would subtract.
    "neg": lambda _, operands: (f"-{_in_latex(operands[0], _MULTIPLY)}", _ADD),
    "square": lambda _, operands: _raised(operands[0], 2),
    "powi": lambda node, operands: _raised(operands[0], node.attributes[0][1]),
    "pow": lambda _, operands: _raised(operands[0], operands[1][0]),
    "extract": _latex_of_components,
    "concat": lambda _, operands: (rf"\left[{', '.join(text for text, _ in operands)}\right]", _ATOM),
}


def _latex_variable(letter: str, number: str, axes: str) -> str:
    above = f"^{{({number})}}" if number else ""
    return f"{letter}{above}" + (f"_{{{axes}}}" if axes else "")


def _latex_function(node: Expression, operands: Sequence[_Written]) -> _Written:
    texts = [text for text, _ in operands]
    if node.op not in _LATEX_FORMS and node.op != "contract":
        texts += [str(value) for _, value in node.attributes]
    if node.op == "sqdist":  # its second operand stands after a minus
        texts[1] = _in_latex(operands[1], _MULTIPLY)
    if node.op in _LATEX_FORMS:
        return _LATEX_FORMS[node.op].format(*texts), _ATOM
    name = node.op.removeprefix("inner_").replace("_", r"\_")
    return rf"\operatorname{{{name}}}\left({', '.join(texts)}\right)", _ATOM


_LATEX = _Notation(
    r"\dots", _latex_number, _latex_variable, _LATEX_INFIX, (r"\left(", r"\right)"), _LATEX_SPECIAL, _latex_function
)
