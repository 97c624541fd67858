"""The CPU kernel that merges what the splits of a reduction left unfinished, and writes the results."""

from typing import Any

from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.accumulations import accumulations_in, destinations
from pylazy.compiler.nests.cpu_accumulator_choice import make_accumulator
from pylazy.compiler.nests.cpu_memory import Panel, address
from pylazy.compiler.nests.cpu_nests import Nest, Program
from pylazy.compiler.nests.cpu_results import Partial, write_results
from pylazy.compiler.nests.integers import imul, isub, number


class MergeNest(Nest):
    """Merge the unfinished states of all splits of a row tile, in order, and write the results."""

    merges = True

    def __init__(self, program: Program, operation: Any, name: str, partials: list[Partial]) -> None:
        super().__init__(program, operation, name)
        self.partials = partials
        self.first_column = None

    def index_type(self) -> ir.Type:
        """Column numbers in saved states are those of the whole axis."""
        return ir.IntegerType.get_signless(64)

    def _load_pointers(self) -> None:
        for operation in self.body_block.operations:
            if name_of(operation) == "reduction.accumulate":
                for buffer in destinations(operation):
                    if buffer is not None:
                        self.buffer_of(buffer)
        for partial in self.partials:
            for number_of_buffer in (partial.values, partial.indices):
                if number_of_buffer is not None:
                    self.buffer(number_of_buffer)

    def allocate(self) -> None:
        """Allocate accumulators and panels for saved states."""
        index = self.index_type()
        self.accumulations = accumulations_in(self.body_block)
        self.accumulators = [make_accumulator(op, self.shape, index) for op in self.accumulations]
        self.saved = [
            (
                None if a.values is None else self.shape.panel(a.value_slots, a.values.element),
                None if a.indices is None else self.shape.panel(a.index_slots, index),
            )
            for a in self.accumulators
        ]

    def tile(self, tile: ir.Value) -> None:
        """Emit the merge of one row tile."""
        first_row = imul(tile, number(self.rows_per_tile))
        parts = [accumulator.start() for accumulator in self.accumulators]
        widths = [len(part) for part in parts]
        loop = scf.ForOp(number(0), self.splits, number(1), [slot for part in parts for slot in part])
        with ir.InsertionPoint(loop.body):
            carried, merged, start = list(loop.inner_iter_args), [], 0
            for accumulator, panels, partial, width in zip(
                self.accumulators, self.saved, self.partials, widths, strict=True
            ):
                self._read(panels, partial, loop.induction_variable, first_row)
                merged += accumulator.merge(carried[start : start + width], *panels)
                start += width
            scf.YieldOp(merged)
        start = 0
        for operation, accumulator, width in zip(self.accumulations, self.accumulators, widths, strict=True):
            write_results(self, operation, accumulator, list(loop.results)[start : start + width], first_row)
            start += width

    def _read(
        self, panels: "tuple[Panel | None, Panel | None]", partial: Partial, split: ir.Value, first_row: ir.Value
    ) -> None:
        last_row = isub(self.rows, number(1))
        for number_of_buffer, panel in zip((partial.values, partial.indices), panels, strict=True):
            if number_of_buffer is not None and panel is not None:
                start = imul(imul(split, self.rows), number(panel.slots))
                panel.pack(address(self.buffer(number_of_buffer), panel.element, base=start), first_row, last_row)

    def whole_index(self, index: ir.Value) -> ir.Value:
        """Column numbers of saved states are those of the whole axis."""
        return index
