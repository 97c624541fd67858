"""Read a request back from its canonical text, which is how it travels in a graph of torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from pylazy.canonical_form import INPUT_PREFIXES, Entry, Input, Node
from pylazy.expression import join_axes
from pylazy.operations import OPERATIONS
from pylazy.reductions import REDUCTIONS, DerivedRequest, Order, Output, ReductionRequest, Summation
from pylazy.runtime.errors import ShapeError, UnsupportedError
from pylazy.user_positions import Location

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.expression import Attributes, Number
    from pylazy.reductions import Request

_HEADER = re.compile(r"reduction request 1, (float32|float64)")
_VARIABLE = re.compile(r"%\d+ = var (\d+) axis=([ij-]|ij|ji) dim=(\d+)")
_INDEX = re.compile(r"%\d+ = index ([ij])")
_CONSTANT = re.compile(r"%\d+ = constant (\S+)")
_OPERATION = re.compile(r"%\d+ = (\w+)((?: %\d+)+)((?: \w+=(?:-?\d+|\([-\d, ]*\)))*)")
_ATTRIBUTE = re.compile(r" (\w+)=(-?\d+|\([-\d, ]*\))")
_OUTPUT = re.compile(
    r"(\w+) over ([ij])((?: %\d+)+)(?: k=(\d+))? -> (\w+)x(\d+)"
    r"(?: accumulated in (float32|float64))?(?: summed by (direct|kahan))?(?: with (accurate|fast) functions)?"
)
_ORDER = re.compile(r"(results and )?(gradient|tangent) with respect to (\d+(?: \d+)*)")
_MODES = {"gradient": "wrt", "tangent": "tangents"}
_NUMBERS = re.compile(r"-?\d+")
_NOWHERE = Location("<canonical text>", 0, 0, "")


def read_request(text: str) -> Request:
    """Read what `canonical_text` wrote, in this process or another.

    The names of inputs are made anew, and the user's lines are lost: neither is part of the identity of a request.

    Raises:
        UnsupportedError: this is no canonical text, or one of another pylazy.
    """
    lines = text.splitlines()
    header = _HEADER.fullmatch(lines[0]) if lines else None
    if header is None:
        _refuse(text)
    dtype = header[1]
    entries: list[Entry] = []
    nodes: list[Node] = []
    inputs: list[Input] = []
    outputs: list[Output] = []
    orders: list[Order] = []
    ranged = False
    for line in lines[1:]:
        if line == "ranged" and outputs and not orders:
            ranged = True
        elif line.startswith("%"):
            _read_entry(line, entries, nodes, inputs)
        elif found := _ORDER.fullmatch(line):
            orders.append(Order(_MODES[found[2]], _integers(found[3]), bool(found[1])))
        elif (found := _OUTPUT.fullmatch(line)) and found[1] in REDUCTIONS and not orders:
            kind, axis, operands, k, result, dim, accumulator, scheme, mode = found.groups()
            summation = Summation(accumulator or "", scheme or "")
            numbers = _integers(operands)
            outputs.append(Output(kind, axis, numbers, int(k or 0), int(dim), result, summation, mode or ""))
        else:
            _refuse(line)
    _check_operands(outputs, len(nodes), text)
    request: Request = ReductionRequest(dtype, tuple(entries), tuple(inputs), tuple(nodes), tuple(outputs), ranged)
    for order in orders:
        if any(number >= len(request.inputs) for number in order.numbers):
            _refuse(text)
        request = DerivedRequest(request, order)
    return request


def _check_operands(outputs: Sequence[Output], count: int, text: str) -> None:
    """Refuse references to values that are not there."""
    for output in outputs:
        if any(operand >= count for operand in output.operands):
            _refuse(text)


def _read_entry(line: str, entries: list[Entry], nodes: list[Node], inputs: list[Input]) -> None:
    if found := _VARIABLE.fullmatch(line):
        number, axis, dim = int(found[1]), found[2].strip("-"), int(found[3])
        if number != len(inputs) or not dim:
            _refuse(line)
        inputs.append(Input(f"{INPUT_PREFIXES[axis]}{number}", axis, dim))
        entries.append(("var", number, axis, dim))
        nodes.append(Node("var", (), (), "ij" if len(axis) == 2 else axis, dim, number, _NOWHERE))
    elif found := _INDEX.fullmatch(line):
        entries.append(("index", found[1]))
        nodes.append(Node("index", (), (), found[1], 1, None, _NOWHERE))
    elif found := _CONSTANT.fullmatch(line):
        entries.append(("constant", found[1]))
        nodes.append(Node("constant", (), (), "", 1, _number(found[1], line), _NOWHERE))
    elif (found := _OPERATION.fullmatch(line)) and found[1] in OPERATIONS:
        op, operands = found[1], _integers(found[2])
        attributes: Attributes = tuple(
            (name, _integers(value) if value.startswith("(") else int(value))
            for name, value in _ATTRIBUTE.findall(found[3])
        )
        row = OPERATIONS[op]
        if any(number >= len(nodes) for number in operands) or len(operands) != row.arity:
            _refuse(line)
        if tuple(name for name, _ in attributes) != row.attributes:
            _refuse(line)
        axes = ""
        for number in operands:
            axes = join_axes(axes, nodes[number].axes)
        try:
            dim = row.shape(op, tuple(nodes[number].dim for number in operands), dict(attributes))
        except ShapeError:
            _refuse(line)
        entries.append((op, operands, attributes))
        nodes.append(Node(op, operands, attributes, axes, dim, None, _NOWHERE))
    else:
        _refuse(line)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _NUMBERS.findall(text))


def _number(text: str, line: str) -> Number:
    try:
        return int(text) if _NUMBERS.fullmatch(text) else float.fromhex(text)
    except (ValueError, OverflowError):
        _refuse(line)


def _refuse(found: str) -> NoReturn:
    shown = found if len(found) < 100 else f"{found[:100]}..."
    raise UnsupportedError(
        f"the program of a graph has the line {shown!r}, which this pylazy does not read: trace or export it anew"
    )
