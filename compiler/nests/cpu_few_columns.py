"""The loop nest for few columns: a tile of rows is soon done, so what is done once for each of them has to be little.

Short rows go from memory to registers by shuffles, without a panel between; the rows of a tile that is not full are
copied first, as they lie in memory. All columns are one chunk, and are never split.
"""

import dataclasses
from typing import Any

from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.cpu_memory import Panel, address, load, load_upwards, prefetch_stream, store
from pylazy.compiler.nests.cpu_nests import Program
from pylazy.compiler.nests.cpu_sweeps import ReduceNest
from pylazy.compiler.nests.cpu_transposition import WIDE_DIM, component_at
from pylazy.compiler.nests.integers import element_bytes, for_range, iadd, imin, imul, isub, number


class FewColumnNest(ReduceNest):
    """Rows in lanes; all columns in blocks of `column_step`, what remains one by one."""

    def __init__(self, program: Program, operation: Any, name: str) -> None:
        super().__init__(program, operation, name)
        self.splittable = False
        self.shape = dataclasses.replace(self.shape, has_chunks=False)
        self.short_rows: dict[ir.Value, Panel] = {}
        self.wide: dict[ir.Value, list[ir.Value]] = {}

    def allocate(self) -> None:
        """Keep panels for long rows, and where there is one lane; the memory of the others is for copies of rows."""
        super().allocate()
        if self.lanes > 1:
            self.short_rows = {source: panel for source, panel in self.panels.items() if panel.slots <= WIDE_DIM}
            self.panels = {source: panel for source, panel in self.panels.items() if panel.slots > WIDE_DIM}

    def sweep(self, first_row: ir.Value, split: ir.Value) -> None:
        """Emit the rows of a tile over all columns."""
        body, neutral = self._begin(first_row)
        self._end(self._blocks(body, neutral, number(0), self.columns), first_row, split)

    def pack(self, first_row: ir.Value) -> None:
        """Load short rows as they lie in memory, and transpose long ones into their panels."""
        super().pack(first_row)
        exist = self.all_lanes_exist()
        for source, block in self.short_rows.items():
            start = address(self.buffer_of(source), block.element, base=imul(first_row, number(block.slots)))
            branch = scf.IfOp(exist, [start.type], has_else=True)
            with ir.InsertionPoint(branch.then_block):
                scf.YieldOp([start])
            with ir.InsertionPoint(branch.else_block):
                self._copy_rows(source, block, first_row)
                scf.YieldOp([block.pointer])
            many = block.slots * self.lanes
            if block.slots > 1:
                prefetch_stream(start, many * self.row_vectors * element_bytes(block.element))
            self.wide[source] = [
                load_upwards(address(branch.results[0], block.element, offset=row * many), many, block.element)
                for row in range(self.row_vectors)
            ]

    def _copy_rows(self, source: ir.Value, block: Panel, first_row: ir.Value) -> None:
        """Copy the rows of a tile that is not full; the last of them once more for every lane that has none."""
        last_row, dim, element = isub(self.rows, number(1)), block.slots, block.element

        def copy_row(lane: ir.Value) -> None:
            row = imin(iadd(first_row, lane), last_row)
            start = address(self.buffer_of(source), element, base=imul(row, number(dim)))
            place = address(block.pointer, element, base=imul(lane, number(dim)))
            for slot in range(dim):
                store(load(address(start, element, offset=slot), element), address(place, element, offset=slot))

        for_range(number(0), number(self.rows_per_tile), 1, copy_row)

    def load_element(self, operation: Any, at: Position, row: int, column: int) -> ir.Value:
        """Emit one element of a `load`: of short rows by a shuffle."""
        source = operation.operands[0]
        if source in self.short_rows and self._is_row_load(operation):
            return component_at(self.wide[source][row], self.short_rows[source].slots, at)
        return super().load_element(operation, at, row, column)
