"""Immutable nodes of a formula."""

from __future__ import annotations

import linecache
import sys
from os.path import dirname, join
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.dtypes import promote
from pylazy.forms import FORMS, Form, join_inputs, remember
from pylazy.operations import OPERATIONS, elementwise_dim
from pylazy.runtime.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pylazy.forms import Inputs

Attributes = tuple[tuple[str, int | tuple[int, ...]], ...]
Number = int | float
Position = tuple[CodeType, int] | tuple[None, "Location"]
"""Where a node was built: a code object and an offset in it, resolved to a `Location` only when somebody asks."""

_PACKAGE_FOLDER = dirname(__file__)
_DYNAMO = join("torch", "_dynamo")
_AXES = ("", "i", "j", "ij")
_AXES_UNION = {(a, b): "".join(axis for axis in "ij" if axis in a + b) for a in _AXES for b in _AXES}


def is_compiling() -> bool:
    """Whether torch.compile or torch.export reads this very code, to put what it does in a graph."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_dynamo_compiling()


class Location(NamedTuple):
    """A place in the user's source; line and column count from 1 and 0, a column of 0 may mean unknown."""

    filename: str
    line: int
    column: int
    function: str

    def __str__(self) -> str:
        source = linecache.getline(self.filename, self.line).strip()
        place = f"{self.filename}:{self.line}"
        return f"{place}: {source}" if source else place


TRANSPOSED: Attributes = (("transposed", 1),)
"""The attribute of a variable of axes "ij" whose array is (*batch, N, M, D)."""


def user_position(inner: int = 2) -> Position:
    """Find the innermost frame that does not belong to this package; cheap, as it runs for each node.

    Args:
        inner: the number of innermost frames, that of this function included, that are known to belong to it.
    """
    frame = sys._getframe(inner)
    while True:
        code = frame.f_code
        owner = _FILE_OWNERS.get(code.co_filename) or _file_owner(code.co_filename)
        outer = frame.f_back if owner == "pylazy" else None
        if outer is None:
            return (None, _line_being_traced()) if owner == "dynamo" else (code, frame.f_lasti)
        frame = outer


_FILE_OWNERS: dict[str, str] = {}
"""Whose code the files are that frames were found in: "pylazy", "dynamo" or "user"."""


def _file_owner(name: str) -> str:
    is_ours = name.startswith(_PACKAGE_FOLDER)
    owner = _FILE_OWNERS[name] = "pylazy" if is_ours else "dynamo" if _DYNAMO in name else "user"
    return owner


# While torch.compile traces a function, this one is called, not traced: a frame is nothing that it can put in a graph.
user_position._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _line_being_traced() -> Location:
    """Give the user's line that torch.compile is reading."""
    guards = sys.modules["torch._guards"]
    for frame in reversed(guards.TracingContext.extract_stack()):
        if not frame.filename.startswith(_PACKAGE_FOLDER):
            return Location(frame.filename, frame.lineno, 0, frame.name)
    return Location("<torch.compile>", 0, 0, "")


def resolve(position: Position) -> Location:
    """Turn a position into file, line, column and function."""
    code, offset = position
    if code is None:
        assert isinstance(offset, Location)
        return offset
    assert isinstance(offset, int)
    line, column = code.co_firstlineno, 0
    if sys.version_info >= (3, 11):
        for index, (first, _, start, _) in enumerate(code.co_positions()):
            if index * 2 > offset:
                break
            if first is not None:
                line, column = first, start or 0
    else:
        for begin, end, first in code.co_lines():
            if begin <= offset < end and first is not None:
                line = first
    return Location(code.co_filename, line, column, code.co_name)


def at_user_line(message: str, position: Position | None = None) -> str:
    """Append the user's line to a message, by default the line that is running now."""
    return f"{message}\n  at {resolve(position or user_position())}"


class Expression:
    """A node of a formula: an operation on other nodes, or a leaf.

    Nodes are immutable by convention; they are built through `variable`, `constant` and `apply` only.

    Attributes:
        op: "var", "constant", "index", or a row of `OPERATIONS`.
        operands: nodes.
        attributes: static integers of the operation, or tuples of them: (name, value) pairs in the order of the table;
            of a variable `TRANSPOSED` where an array with a row for each pair lies with i fastest.
        axes: the axes the value varies with: "", "i", "j" or "ij".
        dim: inner dimension, at least 1.
        dtype: what the dtypes of the arrays promote to, see `pylazy.dtypes`; None where only numbers are involved,
            which take the dtype of the rest.
        source: what a leaf stands for: the data slot of a variable, the number of a constant; else None.
        position: where the user built the node; see `location`.
        form: what stands for all formulas like this one; None where nobody has looked for it.
        inputs: the data slots of its variables, where it has a form.
    """

    __slots__ = ("attributes", "axes", "dim", "dtype", "form", "inputs", "op", "operands", "position", "source")

    op: str
    operands: tuple[Expression, ...]
    attributes: Attributes
    axes: str
    dim: int
    dtype: str | None
    source: Any
    position: Position
    form: Form | None
    inputs: Inputs | None

    def __init__(
        self,
        op: str,
        operands: tuple[Expression, ...],
        attributes: Attributes,
        axes: str,
        dim: int,
        dtype: str | None,
        source: Any,
        position: Position,
        form: Form | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self.op = op
        self.operands = operands
        self.attributes = attributes
        self.axes = axes
        self.dim = dim
        self.dtype = dtype
        self.source = source
        self.position = position
        self.form = form
        self.inputs = inputs

    @property
    def location(self) -> Location:
        """File, line, column and function where the user built this node."""
        return resolve(self.position)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (tuple(_rows(self)),)

    def __repr__(self) -> str:
        return f"<Expression {self.op} axes={self.axes!r} dim={self.dim} dtype={self.dtype}>"


def _rows(root: Expression) -> Iterator[tuple[Any, ...]]:
    """Write all nodes, each after its operands, which are numbers of rows.

    Formulas built in a loop are deeper than pickle and copy may recurse, so they are given a flat list.
    """
    numbers: dict[int, int] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        pending = [operand for operand in node.operands if id(operand) not in numbers]
        if pending:
            stack += pending
            continue
        stack.pop()
        if id(node) not in numbers:
            numbers[id(node)] = len(numbers)
            operands = tuple([numbers[id(operand)] for operand in node.operands])
            yield node.op, operands, node.attributes, node.axes, node.dim, node.dtype, node.source, tuple(node.location)


def _rebuild(rows: tuple[tuple[Any, ...], ...]) -> Expression:
    nodes: list[Expression] = []
    for op, operands, attributes, axes, dim, dtype, source, location in rows:
        operand_nodes = tuple([nodes[number] for number in operands])
        position = (None, Location(*location))
        nodes.append(Expression(op, operand_nodes, attributes, axes, dim, dtype, source, position))
    return nodes[-1]


def variable(source: Any, *, axis: str, dim: int, dtype: str | None, position: Position | None = None) -> Expression:
    """A leaf that stands for the rows of an array along one axis, or for one row shared by all ("").

    Args:
        source: the data: any object with attributes `identity` (hashable) and `number` (a float, or None for an
            array). Variables of one axis whose identities are equal are one input of the kernel.
        axis: "i", "j" or ""; "ij" for an array with a row for each pair.
        dim: elements of a row.
        dtype: of the array, or None for a number that adapts.
        position: where the user built it, if the caller knows.
    """
    if position is None:
        position = user_position()
    if position[0] is None:
        return Expression("var", (), (), axis, dim, dtype, source, position)
    key = (axis, dim, dtype)
    form = FORMS.get(key)
    if form is None:
        form = remember(key, axis, dim, dtype)
    inputs = {(source.identity, axis, dim): source}
    return Expression("var", (), (), axis, dim, dtype, source, position, form, inputs)


def argument(source: Any, *, axis: str, dim: int) -> Expression:
    """A variable, as `variable`, whose data is an argument of the reduction."""
    return Expression("var", (), (), axis, dim, None, source, user_position())


def constant(value: Number) -> Expression:
    """A number that is part of the formula: each value is a formula of its own, so a kernel of its own."""
    return _leaf_without_data("constant", "", value)


def index(axis: str) -> Expression:
    """The number of the row ("i") or of the column ("j") of a pair, counted from 0."""
    return _leaf_without_data("index", axis, None)


def _leaf_without_data(op: str, axes: str, value: Number | None) -> Expression:
    position = user_position()
    if position[0] is None:
        return Expression(op, (), (), axes, 1, None, value, position)
    key = (op, axes, _number_as_text(value))
    form = FORMS.get(key)
    if form is None:
        form = remember(key, axes, 1, None)
    return Expression(op, (), (), axes, 1, None, value, position, form, {})


def apply(
    op: str, operands: tuple[Expression, ...], attributes: Attributes = (), position: Position | None = None
) -> Expression:
    """Build the node of an operation; `position` is where the user did, if the caller knows.

    Raises:
        ShapeError: the inner dimensions of the operands do not fit the operation.
    """
    if position is None:
        position = user_position()
    key: Any
    if position[0] is None:  # torch.compile: a table of forms is nothing that it can put in a graph
        key = inputs = None
    elif len(operands) == 1:  # most nodes
        operand = operands[0]
        key, inputs = (op, attributes, operand.form), operand.inputs
    else:
        key, inputs = join_inputs(op, attributes, operands)
    if inputs is None:
        axes, dim, dtype = _shape_of(op, operands, attributes)
        return Expression(op, operands, attributes, axes, dim, dtype, None, position)
    form = FORMS.get(key)
    if form is None:
        form = remember(key, *_shape_of(op, operands, attributes))
    return Expression(op, operands, attributes, form.axes, form.dim, form.dtype, None, position, form, inputs)


def _shape_of(op: str, operands: tuple[Expression, ...], attributes: Attributes) -> tuple[str, int, str | None]:
    """Give the axes, the inner dimension and the dtype of an operation."""
    first = operands[0]
    axes, dtype, dim = first.axes, first.dtype, first.dim
    same = True
    for operand in operands:
        if operand.axes != axes:
            axes = _AXES_UNION[axes, operand.axes]
        if operand.dtype != dtype:
            dtype = promote(dtype, operand.dtype)
        if operand.dim != dim:
            same = False
    shape = OPERATIONS[op].shape
    if not same or shape is not elementwise_dim:
        try:
            dim = shape(op, tuple(operand.dim for operand in operands), dict(attributes))
        except ShapeError as error:
            raise ShapeError(at_user_line(str(error))) from None
    return axes, dim, dtype


def joint_form(expressions: Sequence[Expression]) -> tuple[Form | None, Inputs | None]:
    """Give the form of several formulas together, and the data slots of their variables.

    None for both where a formula has none, or where all of it is numbers, whose form does not say in which dtype.
    """
    if len(expressions) == 1:
        form, inputs = expressions[0].form, expressions[0].inputs
    else:
        key, inputs = join_inputs("together", (), expressions)
        if inputs is None:
            return None, None
        form = FORMS.get(key)
        if form is None:
            dtype = None
            for expression in expressions:
                dtype = promote(dtype, expression.dtype)
            form = remember(key, "", 0, dtype)
    return (None, None) if form is None or form.dtype is None else (form, inputs)


def _number_as_text(value: Number | None) -> str:
    return value.hex() if isinstance(value, float) else str(value)


def join_axes(first: str, second: str) -> str:
    """The axes that either of two values varies with."""
    return _AXES_UNION[first, second]


def replace_leaves(root: Expression, replace: Callable[[Expression], Expression]) -> Expression:
    """Build a formula anew on other leaves; what varied with an axis then varies with those of the new leaves.

    Args:
        root: the formula.
        replace: from a leaf to what takes its place, of the same inner dimension.
    """
    built: dict[int, Expression] = {}
    stack = [root]
    while stack:
        node = stack[-1]
        pending = [operand for operand in node.operands if id(operand) not in built]
        if pending:
            stack += pending
            continue
        stack.pop()
        if id(node) in built:
            continue
        if not node.operands:
            built[id(node)] = replace(node)
            continue
        operands = tuple([built[id(operand)] for operand in node.operands])
        axes = ""
        for operand in operands:
            axes = join_axes(axes, operand.axes)
        built[id(node)] = Expression(
            node.op, operands, node.attributes, axes, node.dim, node.dtype, node.source, node.position
        )
    return built[id(root)]


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
                    entry = ("constant", _number_as_text(value))
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
