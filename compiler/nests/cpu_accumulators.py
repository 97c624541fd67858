"""What a CPU kernel asks of the state of one accumulation, and what all accumulators share.

All accumulators have the same verbs, in the order in which a loop nest calls them: `start`, then for each chunk of
columns `open_chunk`, `step` for each block of columns, `close_chunk`; at the end `finish` writes results to panels, or
`save` writes the unfinished state, from which `merge` goes on in another kernel. A state is in registers while it is
small, in stack panels when it is not: see `cpu_accumulator_choice`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.cpu_memory import Panel
from pylazy.compiler.nests.integers import for_range, number

_UNROLLED_ENTRIES = 16
Carried = list[ir.Value]


@dataclass(frozen=True)
class Shape:
    """What all accumulators of a nest share."""

    lanes: int
    row_vectors: int
    register_limit: int
    #: Columns come in chunks, and each chunk has a sum of its own: not where they are few.
    has_chunks: bool = True

    def panel(self, slots: int, element: ir.Type) -> Panel:
        """Allocate a panel over the rows of a tile."""
        return Panel(slots, element=element, lanes=self.lanes, row_vectors=self.row_vectors)

    def vector(self, element: ir.Type) -> ir.Type:
        """Give the type of one number in every lane."""
        return ir.VectorType.get([self.lanes], element) if self.lanes > 1 else element


class Accumulator(Protocol):
    """What a loop nest asks of an accumulation."""

    value_slots: int
    index_slots: int
    results: int

    @property
    def values(self) -> "Panel | None":
        """Where the values of a state, and results, are written."""

    @property
    def indices(self) -> "Panel | None":
        """The same for the indices of a state."""

    def start(self) -> Carried:
        """Build the neutral state."""

    def open_chunk(self, carried: Carried) -> Carried:
        """Begin a chunk of columns."""

    def close_chunk(self, outer: Carried, inner: Carried) -> Carried:
        """End a chunk of columns."""

    def step(self, carried: Carried, body: BodyElements, columns: Sequence[ir.Value]) -> Carried:
        """Let a block of columns in; `columns` are their indices, in every lane."""

    def finish(self, carried: Carried, count: ir.Value, values: "Panel | None") -> None:
        """Write the results: values to a panel, which may be that of the state; indices to the panel `indices`."""

    def save(self, carried: Carried) -> None:
        """Write the unfinished state to the panels `values` and `indices`."""

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        """Merge a saved state into this one."""


class LaneState(Protocol):
    """What lanes of a state have: how many, and of which type."""

    shape: Shape
    element: ir.Type


def lanes_of(
    body: BodyElements, value: ir.Value, at: Position, row: int, column: int, shape: Shape, *, role: str = "formula"
) -> ir.Value:
    """Emit an element, the "formula" or the "weight", as lanes, also where it is the same in all of them."""
    element = body.element(value, at, row, column)
    if shape.lanes > 1 and not isinstance(element.type, ir.VectorType):
        element = kb.emit("vector.broadcast", (element,), shape.vector(element.type))
    return element if body.on_accumulate is None else body.on_accumulate(role, element)


def widened_lanes(
    body: BodyElements,
    value: ir.Value,
    at: Position,
    row: int,
    column: int,
    state: LaneState,
    *,
    role: str = "value",
) -> ir.Value:
    """Emit an element as lanes of the type of a state; for its role see `lanes_of`."""
    lanes = lanes_of(body, value, at, row, column, state.shape, role=role)
    if kb.element_type(lanes.type) == state.element:
        return lanes
    return kb.emit("arith.extf", (lanes,), state.shape.vector(state.element))


def for_positions(slots: int, one: Any) -> None:
    """Visit slots, in a loop if they are many."""
    if slots <= _UNROLLED_ENTRIES:
        for slot in range(slots):
            one(Position(slot))
        return
    for_range(number(0), number(slots), 1, lambda slot: one(Position(0, slot)))


def for_slots(slots: int, shape: Shape, one: Any) -> None:
    """Visit slots of every row vector."""
    for_positions(slots, lambda at: [one(at, row) for row in range(shape.row_vectors)])
