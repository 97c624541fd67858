"""What sweeps and merges of a GPU share: accumulators, results, and the states that splits leave unfinished."""

from collections.abc import Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import COMPONENT_COMBINERS
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.dialects.reduction.summation import has_direct_sums
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import accumulations_of, attribute_segments, destinations
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import GpuAccumulator, Result, Saved, index_type
from pylazy.compiler.nests.gpu_components import Components
from pylazy.compiler.nests.gpu_exponentials import Exponentials
from pylazy.compiler.nests.gpu_long_selection import ListedSelection, is_long_selection
from pylazy.compiler.nests.gpu_memory import element_address, row_address, store_output
from pylazy.compiler.nests.gpu_nests import Kernel, Nest
from pylazy.compiler.nests.gpu_selection import Selection
from pylazy.compiler.nests.integers import iadd, imul, number


def is_splittable(operation: Any) -> bool:
    """Tell whether the columns of a `map_reduce` may be cut into splits."""
    if has_direct_sums(operation.regions[0].blocks[0]):
        return False
    # The kernel that merges the splits of a mean over ranges would not know how many columns a row has.
    counts = any(attribute(accumulation, "kind") == "mean" for accumulation in accumulations_of(operation))
    if is_ranged(operation) and counts:
        return False
    return not any(is_long_selection(accumulation) for accumulation in accumulations_of(operation))


def is_ranged(operation: Any) -> bool:
    """Tell whether a `map_reduce` goes over the pairs of a table."""
    return len(operation.operands) > 0


def result_width(operation: Any) -> int:
    """Give the number of elements that a row's state keeps apart."""
    weighted = attribute_segments(operation)[1] == 1
    if weighted or attribute(operation, "kind") in COMPONENT_COMBINERS:
        return inner_dim(operation.operands[int(weighted)])
    return 1


class StateNest(Nest):
    """The accumulations of a kernel op: their states in registers, in results, and in scratch."""

    #: What emits the elements of the body.
    body: BodyElements
    #: The split that this block works on, and the first of its columns.
    split: ir.Value
    first_of_split: ir.Value

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.accumulations = accumulations_of(kernel.operation)
        self.splittable = is_splittable(kernel.operation)

    def make_accumulator(self, operation: Any, places: Sequence[Position]) -> GpuAccumulator:
        """Choose what accumulates some elements of a result that is no list."""
        segments = attribute_segments(operation)
        if attribute(operation, "kind") in COMPONENT_COMBINERS:
            index = self.index_type() if segments[3] else None
            body = None if self.merges else self.body
            return Components(operation, self.rows_per_thread, places, index=index, body=body)
        return Exponentials(operation, self.rows_per_thread, places, weighted=segments[1] == 1)

    def make_selection(self, operation: Any, component: Position) -> GpuAccumulator:
        """Choose what keeps the lists of one component: short ones are in registers."""
        if is_long_selection(operation):
            scratch = self.partials.get(operation, {}).get("values")
            return ListedSelection(operation, self, component.offset, scratch=scratch)
        return Selection(operation, self.rows_per_thread, component, index=self.index_type())

    def index_type(self) -> ir.Type:
        """Give the type of column numbers in registers, counted from the first of the split."""
        return ir.IntegerType.get_signless(32) if self.splittable else index_type()

    def whole_index(self, relative: ir.Value) -> ir.Value:
        """Turn a column number of a split into one of the whole axis; an empty entry stays below zero."""
        if not self.splittable:
            return relative
        wide = kb.emit("arith.extsi", (relative,), ir.IntegerType.get_signless(64))
        empty = kb.icompare("slt", wide, number(0))
        return kb.select(empty, wide, iadd(wide, self.first_of_split))

    def store_results(self, operation: Any, results: Sequence[Result]) -> None:
        """Build the stores of finished elements, for the rows that exist."""
        if not results:
            return
        values, indices = destinations(operation)
        for row in range(self.rows_per_thread):
            mine = [result for result in results if result.row == row]

            def store_all(row: int = row, mine: Sequence[Result] = mine) -> None:
                for result in mine:
                    if values is not None and result.value is not None:
                        self.store_row(values, row, result.at, result.value)
                    if indices is not None and result.position is not None:
                        self.store_row(indices, row, result.at, self.whole_index(result.position))

            self.guarded(row, store_all)

    def save_states(self, operation: Any, saved: Sequence[Saved]) -> None:
        """Build the stores of unfinished states to scratch, for the rows that exist."""
        if not saved:
            return
        for row in range(self.rows_per_thread):
            mine = [entry for entry in saved if entry.row == row]

            def save_all(row: int = row, mine: Sequence[Saved] = mine) -> None:
                for entry in mine:
                    buffer = self.partials[operation][entry.part]
                    place = self.place_of_state(buffer, self.split, self.thread_rows[row])
                    value = self.whole_index(entry.value) if entry.part == "indices" else entry.value
                    store_output(value, element_address(place, entry.at, value.type))

            self.guarded(row, save_all)

    def place_of_state(self, buffer: ir.Value, split: ir.Value, row: ir.Value) -> ir.Value:
        """Build the address of the saved state of a row, which each split has of its own."""
        kind = ir.MemRefType(buffer.type)
        return row_address(self.pointers[buffer], iadd(imul(split, self.rows), row), kind.shape[1], kind.element_type)
