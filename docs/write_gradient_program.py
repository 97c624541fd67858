"""Write `gradient-program.md`: the two levels of IR of a Gaussian product and its gradients, with what they share."""

from __future__ import annotations

import re
from pathlib import Path

from pylazy import Vi, Vj
from pylazy.compiler.compile import stages_as_text
from pylazy.reductions import Order
from pylazy.trace import trace

PAGE = Path(__file__).parent / "gradient-program.md"

_HEAD = """\
# A value and its gradients in one program

Written by `python docs/write_gradient_program.py`; a test keeps it current.

This is the program that `pylazy.value_and_grad` runs for the product of a Gaussian kernel with a vector,

    a = ((-Vi(x).sqdist(Vj(y))).exp() * Vj(b)).sum(axis=1)

and its gradients in x, y and b, where c is the cotangent of a. A comment after an operation names the results that
need it; an operation with several is shared by them.
"""

_LEVEL_1 = """\
## Level 1: the formula

One graph for all four results: `reduction-differentiate` with `{wrt = [0, 1, 2], with_results}` leaves the value beside
its gradients, and `cse` finds what they have in common. The exponential is there once. Types of operands are left out.
"""

_LEVEL_2 = """\
## Level 2: the kernels

`reduction-fuse` gives all that is reduced over j one sweep, and all that is reduced over i another: two sweeps over the
pairs, not four. Each computes the exponential once for its pair. Types and the numbers of the schedule are left out.
"""

_NAMES = {"output0": "a", "output1": "da/dx", "output2": "da/dy", "output3": "da/db", "cotangent0": "c"}
_INPUTS = {"x0": "x", "y1": "y", "y2": "b"}
_VALUE = re.compile(r"%[A-Za-z0-9_]+")


def gradient_page() -> str:
    """Write the page."""
    reduction = ((-Vi(0, 3).sqdist(Vj(1, 3))).exp() * Vj(2, 1)).sum(axis=1)
    request = reduction.executable.derivative(Order("wrt", (0, 1, 2), with_results=True)).request
    texts = stages_as_text(trace(request), "x86-64-v3")
    formula = _block(_annotated_formula(_readable(texts["formula"])))
    kernel = _block(_annotated_kernel(_readable(texts["kernel"])))
    return f"{_HEAD}\n{_LEVEL_1}\n{formula}\n{_LEVEL_2}\n{kernel}"


def _block(lines: list[str]) -> str:
    return "\n".join(("```mlir", *lines, "```", ""))


def _readable(text: str) -> list[str]:
    """Name the arguments as the user does, and leave out types of operands and attributes of the schedule."""
    for name, shown in {**_NAMES, **_INPUTS}.items():
        found = re.search(rf'(%arg\d+): [^{{}}]*{{[^{{}}]*"{name}"', text)
        if found:
            argument = "%" + shown.replace("/", "_")
            text = re.sub(rf"{found[1]}\b", argument, text)
    text = re.sub(r" {reduction\.[^{}]*}", "", text)
    text = re.sub(r" : \(.*\) -> \(\)$", "", text, flags=re.MULTILINE)
    text = re.sub(r" : \(.*\) -> ", " : ", text)
    text = re.sub(r"}\) {.*(columns = \"[ij]\").*(rows = \"[ij]\").*}", r"}) {\1, \2}", text)
    text = re.sub(r", operandSegmentSizes = array<[^<>]*>| fastmath<contract>", "", text)
    return [line.removeprefix("  ") for line in text.strip().splitlines()[1:-1]]


def _annotated_formula(lines: list[str]) -> list[str]:
    """Say behind each value which results need it."""
    returned = next(line for line in lines if line.strip().startswith("return"))
    results = _VALUE.findall(returned.partition(" : ")[0])
    names = ("a", "da/dx", "da/dy", "da/db")
    return _annotated(lines, {result: [name] for result, name in zip(results, names, strict=True)})


def _annotated_kernel(lines: list[str]) -> list[str]:
    """The same for the bodies of sweeps, whose values have names of their own."""
    found: list[str] = []
    body: list[str] = []
    for line in lines:
        body.append(line)
        if "reduction.yield" in line:
            found += _annotated(body, {})
            body = []
    return found + body


def _annotated(lines: list[str], needed: dict[str, list[str]]) -> list[str]:
    order = ["a", "da/dx", "da/dy", "da/db"]
    shown = []
    for line in reversed(lines):
        made, equals, rest = line.partition(" = ")
        values = _VALUE.findall(rest.partition(" : ")[0])
        name = made.strip()
        uses = needed.get(name, []) if equals and name.startswith("%") else []
        if "reduction.accumulate" in line:
            *values, buffer = _VALUE.findall(line.partition(" {")[0])
            uses = [buffer.removeprefix("%").replace("_", "/")]
        for value in values:
            needed[value] = [result for result in order if result in needed.get(value, []) or result in uses]
        is_made = equals and name.startswith("%")
        shown.append(f"{line}  // {', '.join(uses)}" if is_made and uses else line)
    return shown[::-1]


if __name__ == "__main__":
    PAGE.write_text(gradient_page(), encoding="utf-8")
