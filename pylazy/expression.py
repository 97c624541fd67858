"""Immutable nodes of a formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.dtypes import promote
from pylazy.forms import FORMS, Form, Inputs, join_inputs, remember
from pylazy.operations import OPERATIONS, elementwise_dim
from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import Location, Position, at_user_line, resolve, user_position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Attributes = tuple[tuple[str, int | tuple[int, ...]], ...]
Number = int | float
_AXES = ("", "i", "j", "ij")
_AXES_UNION = {(a, b): "".join(axis for axis in "ij" if axis in a + b) for a in _AXES for b in _AXES}
TRANSPOSED: Attributes = (("transposed", 1),)
"""The attribute of a variable of axes "ij" whose array is (*batch, N, M, D)."""


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


def operands_first(root: Expression) -> Iterator[Expression]:
    """Give every node of a formula once, each after its operands."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack[-1]
        pending = [operand for operand in node.operands if id(operand) not in seen]
        if pending:
            stack += pending
            continue
        stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node


def _rows(root: Expression) -> Iterator[tuple[Any, ...]]:
    """Write all nodes, each after its operands, which are numbers of rows.

    Formulas built in a loop are deeper than pickle and copy may recurse, so they are given a flat list.
    """
    numbers: dict[int, int] = {}
    for node in operands_first(root):
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
    key = (op, axes, number_as_text(value))
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


def number_as_text(value: Number | None) -> str:
    """Write a number so that different numbers have different texts."""
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
    for node in operands_first(root):
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
