"""The loops of a GPU over columns: tiles that pass through workgroup memory, and blocks of columns in a tile."""

import dataclasses
from collections.abc import Iterator, Sequence

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import gpu, ir, scf
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.gpu_accumulators import ColumnAccumulator, State
from pylazy.compiler.nests.gpu_memory import (
    Source,
    block_index,
    element_address,
    load_input,
    row_address,
    scaled,
    thread_index,
)
from pylazy.compiler.nests.gpu_shared_sums import SharedSums, shuffled
from pylazy.compiler.nests.gpu_states import StateNest
from pylazy.compiler.nests.integers import iadd, imin, imul, isub, rounded_down


class ColumnNest(StateNest):
    """Loops over the columns of a split, in which accumulations of one sweep take part."""

    #: The accumulations of the sweep that is being built, and how many numbers the state of each has.
    parts: Sequence[ColumnAccumulator]
    widths: Sequence[int]

    def place_columns(self) -> None:
        """Build the bounds of the columns of this block."""
        self.split = block_index(gpu.Dimension.y)
        self.first_of_split = imul(self.split, self.columns_per_split)
        self.end_of_split = imin(iadd(self.first_of_split, self.columns_per_split), self.columns)

    def relative_index(self) -> ir.Value:
        """Build the number of the first column of a block, as accumulators keep it."""
        if not self.splittable:
            return self.column
        return kb.emit("arith.trunci", (isub(self.column, self.first_of_split),), self.index_type())

    def over_columns(self, flat: State) -> State:
        """Build the loop over all columns of this block."""
        return self.over_tiles(flat, self.first_of_split, self.end_of_split)

    def over_tiles(self, flat: State, low: ir.Value, high: ir.Value) -> State:
        """Build the loop over the tiles of some columns, numbered in the whole axis or, as i32, in the split."""
        loop = scf.ForOp(low, high, kb.constant(self.tile.columns, low.type), flat)
        with ir.InsertionPoint(loop.body), self.body.scope():
            self.first_column = loop.induction_variable
            count = imin(isub(high, self.first_column), kb.constant(self.tile.columns, low.type))
            wide = ir.IntegerType.get_signless(64)
            if low.type != wide:
                self.first_column, count = (
                    kb.emit("arith.extui", (value,), wide) for value in (self.first_column, count)
                )
                self.first_column = iadd(self.first_of_split, self.first_column)
            if self.tile.bytes:
                gpu.barrier()
                self.tile.fill(
                    self.tile_start,
                    self.pointers,
                    first=self.first_column,
                    count=count,
                    threads=self.threads,
                    thread=self._thread_of_tile(),
                )
                gpu.barrier()
            outer = list(loop.inner_iter_args)
            inner = [slot for part, state in self.split_state(outer) for slot in part.open_tile(state)]
            inner = self._columns(inner, count)
            closed = [
                slot
                for (part, a), (_, b) in zip(self.split_state(outer), self.split_state(inner), strict=True)
                for slot in part.close_tile(a, b)
            ]
            scf.YieldOp(closed)
        return list(loop.results)

    def _thread_of_tile(self) -> ir.Value:
        """Build the number of this thread; a shuffle where registers are short, since LLVM takes none out of a loop."""
        thread = thread_index()
        return shuffled(thread, 0) if isinstance(self.parts[0], SharedSums) else thread

    def _columns(self, state: State, count: ir.Value) -> State:
        """Build the loops over the columns of a tile: blocks of `column_step`, then what remains one by one."""
        step = self.block.columns
        narrow = ir.IntegerType.get_signless(32)
        count, none = kb.emit("arith.trunci", (count,), narrow), kb.constant(0, narrow)
        if step == 1:
            return self._column_loop(state, none, count, 1)
        whole = rounded_down(count, step)
        state = self._column_loop(state, none, whole, step)
        return self._column_loop(state, whole, count, 1)

    def _column_loop(self, state: State, low: ir.Value, high: ir.Value, step: int) -> State:
        """Build a loop over blocks of `step` columns; where there are groups of threads, they take blocks in turn."""
        if self.column_groups > 1:
            group = kb.emit("arith.trunci", (self.group,), low.type)
            low = iadd(low, imul(group, kb.constant(step, low.type)))
        turn = kb.constant(step * self.column_groups, low.type)
        loop = scf.ForOp(low, high, turn, state)
        saved = self.body.block
        self.body.block = dataclasses.replace(saved, row_vectors=self.rows_per_thread, columns=step)
        with ir.InsertionPoint(loop.body), self.body.scope():
            column = kb.emit("arith.extui", (loop.induction_variable,), ir.IntegerType.get_signless(64))
            self.column = iadd(self.first_column, column)
            if self.tile.bytes:
                self.tile_column = row_address(
                    self.tile_start, column, self.tile.stride, ir.IntegerType.get_signless(8)
                )
            relative = self.relative_index()
            columns = [iadd(relative, kb.constant(k, relative.type)) for k in range(step)]
            result: State = []
            for part, old in self.split_state(list(loop.inner_iter_args)):
                result += part.step(old, self.body, columns)
            scf.YieldOp(result)
        self.body.block = saved
        return list(loop.results)

    def split_state(self, flat: State) -> Iterator[tuple[ColumnAccumulator, State]]:
        """Give each accumulation of the sweep with its part of a state."""
        start = 0
        for part, width in zip(self.parts, self.widths, strict=True):
            yield part, flat[start : start + width]
            start += width

    def load_column_element(self, source: Source, at: Position, column: int) -> ir.Value:
        """Emit one element of a column: from the tile, or from global memory if the column is too long for it."""
        if source in self.tile.offsets:
            return self.tile.load(self.tile_column, source, at, columns_after=column)
        dim, element = source.kind.shape[1], source.kind.element_type
        start = row_address(self.pointers[source.buffer], self.column, dim, element)
        return scaled(load_input(element_address(start, at.shifted(column * dim), element), element), source)
