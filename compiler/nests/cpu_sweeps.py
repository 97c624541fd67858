"""The CPU kernel of a `map_reduce`: tiles of rows that sweep over the columns."""

import dataclasses
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.dialects.reduction.summation import has_direct_sums
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.accumulations import accumulations_in
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.cpu_accumulator_choice import make_accumulator
from pylazy.compiler.nests.cpu_accumulators import Accumulator
from pylazy.compiler.nests.cpu_memory import address, broadcast
from pylazy.compiler.nests.cpu_nests import Nest, Program
from pylazy.compiler.nests.cpu_pairs import store_pairs
from pylazy.compiler.nests.cpu_results import Partial, of_elements, write_results
from pylazy.compiler.nests.integers import iadd, imin, imul, isub, number, rounded_down

#: Parameters of up to this many elements are loaded before the loops.
_PARAMETER_LIMIT = 64


class ReduceNest(Nest):
    """Rows in lanes; columns in chunks, chunks in blocks of `column_step`, what remains one by one."""

    def __init__(self, program: Program, operation: Any, name: str) -> None:
        super().__init__(program, operation, name)
        self.splittable = bool(attribute(operation, "splittable", True)) and not has_direct_sums(self.body_block)
        self.chunk = attribute(operation, "column_chunk", 1024)
        self.partials: list[Partial] = []
        self.accumulation: Any = None  # the one that is being emitted

    def allocate(self) -> None:
        """Allocate accumulators, and scratch for what a split leaves unfinished."""
        super().allocate()
        self.accumulations = accumulations_in(self.body_block)
        self.accumulators = [make_accumulator(op, self.shape, self.index_type()) for op in self.accumulations]
        self.pair_stores = [op for op in self.body_block.operations if name_of(op) == "reduction.store_pair"]
        self.pair_panels = [
            self.shape.panel(inner_dim(op.operands[0]), ir.VectorType(op.operands[0].type).element_type)
            for op in self.pair_stores
        ]
        if self.splittable:
            for position, accumulator in enumerate(self.accumulators):
                self.partials.append(self._add_partial(position, accumulator))

    def _add_partial(self, position: int, accumulator: Accumulator) -> Partial:
        numbers: dict[str, int | None] = {"values": None, "indices": None}
        for part, panel, slots in (
            ("values", accumulator.values, accumulator.value_slots),
            ("indices", accumulator.indices, accumulator.index_slots),
        ):
            if panel is not None:
                element = panel.element if part == "values" else ir.IntegerType.get_signless(64)
                numbers[part] = self.program.add_partial(
                    name=f"{self.name}_{part}{position}", axis=self.rows_axis, element=element, dim=slots
                )
        partial = Partial(numbers["values"], numbers["indices"])
        for number_of_buffer in (partial.values, partial.indices):
            if number_of_buffer is not None:
                self.buffer(number_of_buffer)
        return partial

    def tile(self, tile: ir.Value) -> None:
        """Emit one row tile, over the columns of one split."""
        row_tile, split = self.tile_position(tile) if self.splittable else (tile, number(0))
        first_row = imul(row_tile, number(self.rows_per_tile))
        self.first_column = imul(split, self.columns_per_split)
        self.sweep(first_row, split)

    def sweep(self, first_row: ir.Value, split: ir.Value) -> None:
        """Emit the rows of a tile over the columns of one split."""
        last_column = imin(iadd(self.first_column, self.columns_per_split), self.columns)
        body, carried = self._begin(first_row)
        carried = self._chunks(body, carried, self.first_column, last_column)
        self._end(carried, first_row, split)

    def tile_position(self, tile: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Give the row tile and the split of a tile: all splits of a row tile follow each other."""
        return kb.emit("arith.divui", (tile, self.splits)), kb.emit("arith.remui", (tile, self.splits))

    def _begin(self, first_row: ir.Value) -> tuple[BodyElements, list[ir.Value]]:
        """Begin rows, and build the neutral states."""
        body = self.begin_row(first_row)
        parts = [accumulator.start() for accumulator in self.accumulators]
        self.widths = [len(part) for part in parts]
        return body, [slot for part in parts for slot in part]

    def begin_row(self, first_row: ir.Value) -> BodyElements:
        """Pack the rows of a tile, and compute what depends on them alone."""
        self.pack(first_row)
        body = BodyElements(self.body_block, self.block, self.load_element)
        self._prepare_rows(body)
        return body

    def _prepare_rows(self, body: BodyElements) -> None:
        """Emit, before the loop over columns, what depends on the row or on nothing, unless it is long."""
        for operation in self.body_block.operations:
            for value in operation.results:
                if not isinstance(value.type, ir.VectorType) or "c" in body.axes(value):
                    continue
                if inner_dim(value) <= self._row_register_dim(operation):
                    self._emit_all(body, value)
        for operation in self.body_block.operations:
            for value in operation.operands:
                if name_of(value.owner) == "arith.constant":
                    self._emit_constant(body, value)

    def _row_register_dim(self, operation: Any) -> int:
        return self.block.unroll_limit if name_of(operation) == "reduction.load" else _PARAMETER_LIMIT

    def _emit_all(self, body: BodyElements, value: ir.Value) -> None:
        for row in range(self.row_vectors if "r" in body.axes(value) else 1):
            for component in range(inner_dim(value)):
                body.element(value, Position(component), row, 0)

    def _emit_constant(self, body: BodyElements, value: ir.Value) -> None:
        if value.owner.attributes["value"].is_splat:
            body.element(value, Position(0), 0, 0)

    def _chunks(
        self, body: BodyElements, carried: list[ir.Value], first_column: ir.Value, last_column: ir.Value
    ) -> list[ir.Value]:
        loop = scf.ForOp(first_column, last_column, number(self.chunk), carried)
        with ir.InsertionPoint(loop.body), body.scope():
            start = loop.induction_variable
            end = imin(iadd(start, number(self.chunk)), last_column)
            outer = list(loop.inner_iter_args)
            inner = self._each(outer, lambda accumulator, part: accumulator.open_chunk(part))
            scf.YieldOp(self.merge_chunk(outer, self._blocks(body, inner, start, end)))
        return list(loop.results)

    def merge_chunk(self, outer: list[ir.Value], inner: list[ir.Value]) -> list[ir.Value]:
        """Add the states of a chunk to those of the row."""
        merged: list[ir.Value] = []
        for accumulator, a, b in zip(self.accumulators, self._parts(outer), self._parts(inner), strict=True):
            merged += accumulator.close_chunk(a, b)
        return merged

    def _parts(self, carried: list[ir.Value]) -> list[list[ir.Value]]:
        parts, start = [], 0
        for width in self.widths:
            parts.append(carried[start : start + width])
            start += width
        return parts

    def _each(self, carried: list[ir.Value], step: Any) -> list[ir.Value]:
        result: list[ir.Value] = []
        for accumulator, part in zip(self.accumulators, self._parts(carried), strict=True):
            result += step(accumulator, part)
        return result

    def _blocks(self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value) -> list[ir.Value]:
        step = self.block.columns
        if step == 1:
            return self._column_loop(body, carried, start, end, 1)
        middle = iadd(start, rounded_down(isub(end, start), step))
        carried = self._column_loop(body, carried, start, middle, step)
        return self._column_loop(body, carried, middle, end, 1)

    def _column_loop(
        self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value, step: int
    ) -> list[ir.Value]:
        loop = scf.ForOp(start, end, number(step), carried)
        with ir.InsertionPoint(loop.body), body.scope():
            self.column, self.column_block = loop.induction_variable, loop.body
            self.column_starts, self.pair_vectors, self.pair_starts = {}, {}, {}
            scf.YieldOp(self._step(body, list(loop.inner_iter_args), step))
        return list(loop.results)

    def _step(self, body: BodyElements, carried: list[ir.Value], step: int) -> list[ir.Value]:
        """Emit one block of columns."""
        saved = body.block
        body.block = dataclasses.replace(saved, row_vectors=self.row_vectors, columns=step)
        columns = self._column_numbers(step)
        result: list[ir.Value] = []
        for operation, accumulator, part in zip(
            self.accumulations, self.accumulators, self._parts(carried), strict=True
        ):
            self.accumulation = operation
            with operation.location:
                result += accumulator.step(part, body, columns)
        for operation, panel in zip(self.pair_stores, self.pair_panels, strict=True):
            with operation.location:
                store_pairs(self, operation, panel, body)
        body.block = saved
        return result

    def _column_numbers(self, step: int) -> list[ir.Value]:
        """Give the numbers of a block's columns in every lane, counted from the first of the split."""
        if not any(accumulator.index_slots for accumulator in self.accumulators):
            return [self.column] * step
        index = self.index_type()
        relative = isub(self.column, self.first_column)
        if index.width < 64:
            relative = kb.emit("arith.trunci", (relative,), index)
        return self.lane_columns(relative, self.shape.vector(index), step)

    def lane_columns(self, first: ir.Value, vector: ir.Type, step: int) -> list[ir.Value]:
        """Give the numbers of `step` columns in every lane."""
        lanes = broadcast(first, vector)
        return [lanes, *(iadd(lanes, kb.constant(k, vector)) for k in range(1, step))]

    def _end(self, carried: list[ir.Value], first_row: ir.Value, split: ir.Value) -> None:
        if not self.splittable:
            self._write_results(carried, first_row)
            return
        whole = kb.icompare("eq", self.splits, number(1))
        branch = scf.IfOp(whole, has_else=True)
        with ir.InsertionPoint(branch.then_block):
            self._write_results(carried, first_row)
            scf.YieldOp([])
        with ir.InsertionPoint(branch.else_block):
            self._write_partials(carried, first_row, split)
            scf.YieldOp([])

    def _write_results(self, carried: list[ir.Value], first_row: ir.Value) -> None:
        for operation, accumulator, part in zip(
            self.accumulations, self.accumulators, self._parts(carried), strict=True
        ):
            write_results(self, operation, accumulator, part, first_row)

    def _write_partials(self, carried: list[ir.Value], first_row: ir.Value, split: ir.Value) -> None:
        for accumulator, part, partial in zip(self.accumulators, self._parts(carried), self.partials, strict=True):
            accumulator.save(part)
            for number_of_buffer, panel, slots in (
                (partial.values, accumulator.values, accumulator.value_slots),
                (partial.indices, accumulator.indices, accumulator.index_slots),
            ):
                if number_of_buffer is not None and panel is not None:
                    element = panel.element if number_of_buffer == partial.values else ir.IntegerType.get_signless(64)
                    start = imul(imul(split, self.rows), number(slots))
                    target = address(self.buffer(number_of_buffer), element, base=start)
                    convert = None if number_of_buffer == partial.values else self.whole_index
                    panel.unpack(target, first_row, self.rows, slots=slots, convert=convert)

    def whole_index(self, relative: ir.Value) -> ir.Value:
        """Turn column numbers of lanes into those of the whole axis; an empty entry stays below zero."""
        wide, whole = relative, of_elements(relative.type, ir.IntegerType.get_signless(64))
        if wide.type != whole:
            wide = kb.emit("arith.extsi", (relative,), whole)
        shifted = iadd(wide, broadcast(self.first_column, whole))
        empty = kb.icompare("slt", wide, kb.constant(0, whole))
        return kb.select(empty, wide, shifted)
