"""The loop nest for few rows that share columns: a chunk of columns is transposed once, then every row goes over it.

The columns of a chunk lie in panels that stay in the first cache, so that rows find them there as vectors, however many
rows there are. Between chunks the state of a row lies on the stack. One or two rows share nothing: short columns are
taken apart in registers then, while the next ones are on their way from memory.
"""

from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.cpu_accumulators import Shape
from pylazy.compiler.nests.cpu_column_lanes import ColumnLaneNest
from pylazy.compiler.nests.cpu_memory import CACHE_LINE_BYTES, Panel, address, allocate, load, prefetch, store
from pylazy.compiler.nests.cpu_nests import Program
from pylazy.compiler.nests.cpu_transposition import WIDE_DIM, pack_rows
from pylazy.compiler.nests.integers import element_bytes, for_range, iadd, imin, imul, isub, number

#: So few rows do not share: the second finds the columns of a split in the second cache.
_ROWS_ALONE = 2


class ColumnPanelNest(ColumnLaneNest):
    """Tiles of `shared_rows` rows; columns in lanes, in chunks of `column_chunk`."""

    def __init__(self, program: Program, operation: Any, name: str) -> None:
        super().__init__(program, operation, name)
        self.rows_per_tile = attribute(operation, "shared_rows")
        self.chunk_start: Any = None
        self.place: Any = None
        self.rows_here: Any = None
        self.are_packed = True
        self.part_panels: dict[ir.Value, Panel] = {}
        #: The lines of a block that each row fetches.
        self.shares: dict[ir.Value, ir.Value] = {}

    def allocate(self) -> None:
        """Allocate what a row keeps between chunks."""
        super().allocate()
        parts = [accumulator.start() for accumulator in self.accumulators]
        self.widths = [len(part) for part in parts]
        self.neutral = [slot for part in parts for slot in part]
        self.kept = [allocate(self.rows_per_tile * self.lanes, kb.element_type(slot.type)) for slot in self.neutral]

    def make_column_panels(self, shape: Shape) -> None:
        """Allocate panels for the columns of a chunk; slots lie one vector further apart, in different cache sets."""
        super().make_column_panels(Shape(self.lanes, self.chunk // self.lanes + 1, shape.register_limit))

    def sweep(self, first_row: ir.Value, split: ir.Value) -> None:
        """Emit the rows of a tile over the columns of one split."""
        self.rows_here = imin(isub(self.rows, first_row), number(self.rows_per_tile))
        if max((panel.slots for panel in self.column_panels.values()), default=0) > WIDE_DIM:
            self._sweep_together(first_row, split)
            return
        branch = scf.IfOp(kb.icompare("sle", self.rows_here, number(_ROWS_ALONE)), has_else=True)
        with ir.InsertionPoint(branch.then_block):
            for_range(number(0), self.rows_here, 1, lambda place: self._sweep_alone(iadd(first_row, place), split))
            scf.YieldOp([])
        with ir.InsertionPoint(branch.else_block):
            self._sweep_together(first_row, split)
            scf.YieldOp([])

    def _sweep_alone(self, row: ir.Value, split: ir.Value) -> None:
        before = self.accumulators, self.widths
        self.are_packed = False
        super().sweep(row, split)
        self.are_packed = True
        self.accumulators, self.widths = before
        self.lanes_are_merged = False

    def _sweep_together(self, first_row: ir.Value, split: ir.Value) -> None:
        self.shares = {
            source: kb.emit("arith.ceildivui", (number(self._block_lines(panel)), self.rows_here))
            for source, panel in self.column_panels.items()
        }
        last_column = imin(iadd(self.first_column, self.columns_per_split), self.columns)
        for_range(number(0), self.rows_here, 1, lambda place: self._keep(place, self.neutral))

        def go_over_chunk(start: ir.Value) -> None:
            end = imin(iadd(start, number(self.chunk)), last_column)
            self._pack_columns(start, end)
            for_range(
                number(0), self.rows_here, 1, lambda place: self._go_on(place, iadd(first_row, place), start, end)
            )

        for_range(self.first_column, last_column, self.chunk, go_over_chunk)
        for_range(
            number(0), self.rows_here, 1, lambda place: self._end(self._kept(place), iadd(first_row, place), split)
        )

    def _pack_columns(self, start: ir.Value, end: ir.Value) -> None:
        self.chunk_start = start
        last = isub(end, number(1))

        def pack_vector(column: ir.Value) -> None:
            for source, panel in self.column_panels.items():
                part = panel.vector_from(isub(column, start))
                pack_rows(part, self.buffer_of(source), column, last)

        for_range(start, end, self.lanes, pack_vector)

    def _go_on(self, place: ir.Value, row: ir.Value, start: ir.Value, end: ir.Value) -> None:
        """Emit one row over the columns of a chunk."""
        self.place = place
        body = self.begin_row(row)
        outer = self._kept(place)
        inner = self._each(outer, lambda accumulator, part: accumulator.open_chunk(part))
        self._keep(place, self.merge_chunk(outer, self._blocks(body, inner, start, end)))

    def _kept(self, place: ir.Value) -> list[ir.Value]:
        return [
            load(self._place_of(pointer, place, slot.type), slot.type)
            for pointer, slot in zip(self.kept, self.neutral, strict=True)
        ]

    def _keep(self, place: ir.Value, carried: list[ir.Value]) -> None:
        for pointer, slot in zip(self.kept, carried, strict=True):
            store(slot, self._place_of(pointer, place, slot.type))

    def _place_of(self, pointer: ir.Value, place: ir.Value, slot: ir.Type) -> ir.Value:
        return address(pointer, kb.element_type(slot), base=imul(place, number(self.lanes)))

    def _blocks(self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value) -> list[ir.Value]:
        """Emit whole blocks, then vectors with a mask: they are the last of a split, and one piece of code does."""
        carried, whole = self.whole_blocks(body, carried, start, end)
        loop = scf.ForOp(whole, end, number(self.lanes), carried)
        with ir.InsertionPoint(loop.body):
            inside = list(loop.inner_iter_args)
            scf.YieldOp(self.masked_block(body, inside, loop.induction_variable, end, loop.body))
        return list(loop.results)

    def enter_block(self, column: ir.Value, block: Any) -> None:
        """Begin a block of columns, and fetch a part of the same block of the next chunk meanwhile."""
        super().enter_block(column, block)
        self.part_panels = {}
        if self.are_packed:
            for source, panel in self.column_panels.items():
                self._fetch(source, panel, iadd(column, number(self.chunk)))

    def _block_lines(self, panel: Panel) -> int:
        return -(-self.block.columns * self.lanes * panel.slots * element_bytes(panel.element) // CACHE_LINE_BYTES)

    def _fetch(self, source: ir.Value, panel: Panel, first: ir.Value) -> None:
        """Ask for the part of a block that falls to this row; columns behind the last do no harm."""
        lines, share = self._block_lines(panel), self.shares[source]
        start = address(self.buffer_of(source), panel.element, base=imul(first, number(panel.slots)))
        low = imul(self.place, share)
        high = imin(iadd(low, share), number(lines))
        for_range(low, high, 1, lambda line: prefetch(start, imul(line, number(CACHE_LINE_BYTES))))

    def pack_last_columns(self, start: ir.Value, end: ir.Value) -> None:
        """Copy columns that do not fill a vector, unless all columns of the chunk are in the panels already."""
        if not self.are_packed:
            for source, panel in self.column_panels.items():
                self.part_panels[source] = panel.vector_from(number(0))
                self.part_panels[source].pack(self.buffer_of(source), start, isub(end, number(1)))

    def column_element(self, source: ir.Value, dim: int, at: Position, column: int) -> ir.Value:
        """Emit one element of a column in every lane."""
        if not self.are_packed and self.valid is None:
            return super().column_element(source, dim, at, column)
        if source not in self.part_panels:
            with ir.InsertionPoint.at_block_begin(self.column_block):  # also for loops over inner dimensions
                first = isub(self.column, self.chunk_start)
                self.part_panels[source] = self.column_panels[source].vector_from(first)
        return self.part_panels[source].read(at, column)
