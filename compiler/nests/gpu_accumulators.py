"""What a GPU kernel asks of the state of one accumulation, which a thread holds for a few elements of the result."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position

State = list[ir.Value]


class Result(NamedTuple):
    """One element of a row's result: which of the rows of a thread, where in the row, its number, its column."""

    row: int
    at: Position
    value: "ir.Value | None"
    position: "ir.Value | None" = None


class Saved(NamedTuple):
    """One number of an unfinished state: of which row, in "values" or "indices", at which place of the row."""

    row: int
    part: str
    at: Position
    value: ir.Value


#: Emit the load of a number of a saved state: the part, the place.
ReadSaved = Callable[[str, Position], ir.Value]


class ColumnAccumulator(Protocol):
    """What a loop over columns asks of an accumulation."""

    def start(self) -> State:
        """Build the neutral state."""

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""

    def close_tile(self, outer: State, inner: State, /) -> State:
        """End a tile of columns."""

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in; `columns` are their indices."""


class GpuAccumulator(ColumnAccumulator, Protocol):
    """What a loop nest asks of an accumulation whose state lasts for all columns."""

    def results(self, state: State, count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""

    def save(self, state: State) -> list[Saved]:
        """Give the numbers of an unfinished state."""

    def merge(self, state: State, saved: Sequence[ReadSaved], /) -> State:
        """Let saved states of one row in, those of later columns after those of earlier ones."""


class StoredOnTheWay:
    """The verbs of an accumulation that stores its results in the sweep, and leaves nothing for the end."""

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""
        return state

    def close_tile(self, _outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        return inner

    def results(self, _state: State, _count: ir.Value, /) -> list[Result]:
        """The results are in their places."""
        return []

    def save(self, _state: State) -> list[Saved]:
        """Nothing is unfinished."""
        return []

    def merge(self, state: State, _saved: Sequence[ReadSaved], /) -> State:
        """Nothing is unfinished."""
        return state


def index_type() -> ir.Type:
    """Give the type of column numbers in results and in saved states."""
    return ir.IntegerType.get_signless(64)


def widened(value: ir.Value, element: ir.Type) -> ir.Value:
    """Build a number in the type of a state, which may be wider than that of the formula."""
    return value if value.type == element else kb.emit("arith.extf", (value,), element)


def fold(name: str, values: Sequence[ir.Value]) -> ir.Value:
    """Build what an op with two operands makes of one or more numbers."""
    return functools.reduce(lambda a, b: kb.emit(name, (a, b)), values)
