"""The GPU kernel that merges what the splits of a reduction left unfinished, and writes the results."""

from typing import Any

from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.accumulations import is_selection
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import GpuAccumulator, ReadSaved, State
from pylazy.compiler.nests.gpu_memory import (
    ColumnTile,
    RowPanel,
    element_address,
    load_input,
    split_number,
    thread_index,
)
from pylazy.compiler.nests.gpu_nests import Kernel
from pylazy.compiler.nests.gpu_states import StateNest, result_width
from pylazy.compiler.nests.integers import iadd, imin, imul, isub, number, rounded_down

#: Splits whose states a thread of a merge kernel loads at once.
_MERGED_AT_ONCE = 4


class MergeNest(StateNest):
    """The unfinished states of all splits of a row, merged in order: a thread for each element of a result."""

    merges = True

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.splittable = False
        self.tile = ColumnTile([], columns=1, step=1)
        self.panel = RowPanel([], rows=0, limit=0, step=1)
        self.workgroup_bytes = 0
        self.column_groups = self.rows_per_thread = 1
        self.rows_per_block = max(1, self.threads // max(_units_of_a_row(op) for op in self.accumulations))

    def place_rows(self, first: ir.Value, end: ir.Value) -> None:
        """Keep the bounds: rows are counted, not placed."""
        self.first_row, self.end_of_rows = first, end

    def fill(self) -> None:
        """Build, for each accumulation, a loop over the elements that fall to a thread."""
        count = imin(isub(self.rows, self.first_row), number(self.rows_per_block))
        for operation in self.accumulations:
            with operation.location:
                units = _units_of_a_row(operation)
                loop = scf.ForOp(thread_index(), imul(count, number(units)), number(self.threads), [])
                with ir.InsertionPoint(loop.body):
                    row, unit = split_number(loop.induction_variable, units)
                    self.thread_rows = [iadd(self.first_row, row)]
                    self._merge_and_store(operation, Position(0, unit))
                    scf.YieldOp([])

    def _merge_and_store(self, operation: Any, unit: Position) -> None:
        if is_selection(operation):
            part: GpuAccumulator = self.make_selection(operation, unit)
        else:
            part = self.make_accumulator(operation, [unit])
        state, whole = part.start(), number(0)
        if not is_selection(operation):
            whole = rounded_down(self.splits, _MERGED_AT_ONCE)
            state = self._merge_splits(operation, part, state, number(0), whole, _MERGED_AT_ONCE)
        state = self._merge_splits(operation, part, state, whole, self.splits, 1)
        self.store_results(operation, part.results(state, self.columns))

    def _merge_splits(
        self, operation: Any, part: GpuAccumulator, state: State, low: ir.Value, high: ir.Value, step: int
    ) -> State:
        loop = scf.ForOp(low, high, number(step), state)
        with ir.InsertionPoint(loop.body):

            def reader(after: int) -> ReadSaved:
                def read(name: str, at: Position) -> ir.Value:
                    buffer = self.partials[operation][name]
                    split = iadd(loop.induction_variable, number(after))
                    element = ir.MemRefType(buffer.type).element_type
                    place = self.place_of_state(buffer, split, self.thread_rows[0])
                    return load_input(element_address(place, at, element), element)

                return read

            scf.YieldOp(part.merge(list(loop.inner_iter_args), [reader(k) for k in range(step)]))
        return list(loop.results)


def _units_of_a_row(operation: Any) -> int:
    """Give the elements of a result that are merged apart from each other."""
    return inner_dim(operation.operands[0]) if is_selection(operation) else result_width(operation)
