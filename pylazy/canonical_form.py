"""The canonical form of formulas: a list of distinct values, under which kernels are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.expression import Attributes, Expression, Number, number_as_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pylazy.user_positions import Location

_MAX_INPUTS = 200  # a kernel image has at most 256 buffers; beyond this, numbers become part of the formula

INPUT_PREFIXES = {"i": "x", "j": "y", "": "p", "ij": "a", "ji": "a"}
"""How the names of inputs begin, by axis."""


class Input(NamedTuple):
    """One input buffer of a kernel.

    Attributes:
        name: short name for messages and IR: x0, y1, p2, a3 for the axes "i", "j", "", "ij".
        axis: "i", "j", ""; "ij" for a row for each pair, j fastest, "ji" for one with i fastest.
        dim: elements of a row.
    """

    name: str
    axis: str
    dim: int


class Node(NamedTuple):
    """One value of a formula in static single assignment form.

    Attributes:
        op: "var", "constant", "index" or a row of `OPERATIONS`.
        operands: numbers of earlier values.
        attributes: static integers, or tuples of them, as (name, value) pairs.
        axes: "", "i", "j" or "ij".
        dim: inner dimension.
        value: of a constant its number (a float, or an int of any size); of a variable the number of its input.
        location: where the user built it; never part of a key.
    """

    op: str
    operands: tuple[int, ...]
    attributes: Attributes
    axes: str
    dim: int
    value: Number | None
    location: Location


Entry = tuple[Any, ...]
"""One line of a canonical form: ("var", input, axis, dim), ("constant", number as text), ("index", axis),
(op, operands, attributes)."""


class Flattened:
    """The canonical form of some expressions: one entry a distinct value, in order of first appearance.

    Equal sub-expressions share one entry, however often they were built; variables are numbered by first appearance.

    Attributes:
        entries: the canonical form; hashable once made a tuple.
        representatives: for each entry the first node that has this value.
        sources: for each input its data slot, in the order of the inputs.
        indices: the axes whose indices are values of the formula.
        roots: the entries of the expressions that were flattened.
    """

    __slots__ = ("entries", "indices", "representatives", "roots", "sources")

    def __init__(self, expressions: Sequence[Expression], *, inline_numbers: bool = False) -> None:
        """Walk the expressions.

        Args:
            expressions: the roots.
            inline_numbers: make the numbers that kernels would read a part of the formula, as constants.
        """
        table: dict[Entry, int] = {}
        numbers: dict[int, int] = {}
        inputs: dict[Any, int] = {}
        self.representatives: list[Expression] = []
        self.sources: list[Any] = []
        self.indices = ""
        for expression in expressions:
            stack = [expression]
            while stack:
                node = stack[-1]
                entry: Entry
                operands = node.operands
                if len(operands) == 1:  # most nodes, so without the lists of the general case
                    number = numbers.get(id(operands[0]))
                    if number is None:
                        stack.append(operands[0])
                        continue
                    entry = (node.op, (number,), node.attributes)
                elif operands:
                    # An explicit stack: formulas built in a loop are deeper than Python may recurse.
                    pending = [operand for operand in operands if id(operand) not in numbers]
                    if pending:
                        pending.reverse()
                        stack += pending
                        continue
                    entry = (node.op, tuple([numbers[id(operand)] for operand in operands]), node.attributes)
                elif node.op == "var" and not (inline_numbers and node.source.number is not None):
                    axis = "ji" if node.attributes else node.axes
                    identity = (node.source.identity, axis, node.dim)
                    number = inputs.get(identity)
                    if number is None:
                        number = inputs[identity] = len(inputs)
                        self.sources.append(node.source)
                    entry = ("var", number, axis, node.dim)
                elif node.op == "index":
                    self.indices += node.axes if node.axes not in self.indices else ""
                    entry = ("index", node.axes)
                else:
                    value = node.source if node.op == "constant" else node.source.number
                    entry = ("constant", number_as_text(value))
                stack.pop()
                number = table.get(entry)
                if number is None:
                    number = table[entry] = len(table)
                    self.representatives.append(node)
                numbers[id(node)] = number
        self.entries: tuple[Entry, ...] = tuple(table)
        self.roots: tuple[int, ...] = tuple([numbers[id(expression)] for expression in expressions])

    def inputs(self) -> tuple[Input, ...]:
        """The input buffers, in order."""
        variables = [entry for entry in self.entries if entry[0] == "var"]
        return tuple(Input(f"{INPUT_PREFIXES[axis]}{number}", axis, dim) for _, number, axis, dim in variables)

    def nodes(self) -> tuple[Node, ...]:
        """The values, each after its operands."""
        nodes = []
        for entry, node in zip(self.entries, self.representatives, strict=True):
            operands = entry[1] if node.operands else ()
            value = entry[1] if entry[0] == "var" else node.source
            if entry[0] == "constant" and node.op == "var":
                value = node.source.number
            nodes.append(Node(entry[0], operands, node.attributes, node.axes, node.dim, value, node.location))
        return tuple(nodes)


def flatten(expressions: Sequence[Expression]) -> Flattened:
    """Write formulas in canonical form, with no more inputs than a kernel takes where that can be had."""
    flat = Flattened(expressions)
    return Flattened(expressions, inline_numbers=True) if len(flat.sources) > _MAX_INPUTS else flat


def canonical_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """Write a canonical form, one line an entry; the same text in every process."""
    for number, entry in enumerate(entries):
        if entry[0] == "var":
            yield f"%{number} = var {entry[1]} axis={entry[2] or '-'} dim={entry[3]}"
        elif entry[0] == "constant":
            yield f"%{number} = constant {entry[1]}"
        elif entry[0] == "index":
            yield f"%{number} = index {entry[1]}"
        else:
            op, operands, attributes = entry
            words = [f"%{operand}" for operand in operands] + [f"{name}={value}" for name, value in attributes]
            yield " ".join([f"%{number} =", op, *words])
