"""Results with a row for each pair: a sweep over the columns that stores them as it goes, and keeps no state."""

from collections.abc import Sequence
from typing import Any, Protocol

from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import State, StoredOnTheWay


class PairNest(Protocol):
    """What stores of pairs ask of a nest."""

    rows_per_thread: int

    def guarded(self, row: int, body: Any) -> None:
        """Build a branch that only rows of the axis take."""

    def store_pair(self, operation: Any, value: ir.Value, at: Position, row: int, column: int) -> None:
        """Build the store of one element for a row of the thread and a column of the block."""


class PairStores(StoredOnTheWay):
    """One `store_pair`, beside accumulations in the same sweep: every pair is in one tile of one split."""

    def __init__(self, operation: Any, nest: PairNest) -> None:
        self.operation = operation
        self.value = operation.operands[0]
        self.dim = inner_dim(self.value)
        self.nest = nest

    def start(self) -> State:
        """There is no state."""
        return []

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Store the values of a block of columns, for the rows that exist."""
        short = self.dim <= body.block.unroll_limit
        for column in range(len(columns)):
            for row in range(self.nest.rows_per_thread):
                if short:  # what is shared with accumulations is computed outside of the branch
                    for component in range(self.dim):
                        body.element(self.value, Position(component), row, column)
                else:
                    body.prepare(self.value)
        for row in range(self.nest.rows_per_thread):
            self.nest.guarded(row, lambda row=row: self._store_row(body, row, len(columns), short=short))
        return state

    def _store_row(self, body: BodyElements, row: int, columns: int, *, short: bool) -> None:
        with body.scope():
            for column in range(columns):

                def write(nothing: State, at: Position, column: int = column) -> State:
                    element = body.element(self.value, at, row, column)
                    self.nest.store_pair(self.operation, element, at, row, column)
                    return nothing

                if short:
                    for component in range(self.dim):
                        write([], Position(component))
                else:
                    body.over_inner(self.value, self.dim, [], write)
