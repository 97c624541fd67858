"""The loop nest for few rows: one row a tile, columns in lanes, so that a single row fills the vector unit.

Each lane keeps a state of its own, over every L-th column; at the end of the row the states of all lanes are merged,
in order, as if they were splits. Columns are loaded as they lie in memory, as one long vector, and taken apart by
shuffles; so the schedule chooses this nest for short inner dimensions only.
"""

from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import COMPONENT_COMBINERS
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.cpu_accumulator_choice import make_accumulator
from pylazy.compiler.nests.cpu_accumulators import Shape
from pylazy.compiler.nests.cpu_memory import (
    Panel,
    address,
    broadcast,
    lane_numbers,
    load,
    load_upwards,
    prefetch_stream,
)
from pylazy.compiler.nests.cpu_nests import Program
from pylazy.compiler.nests.cpu_sweeps import ReduceNest
from pylazy.compiler.nests.cpu_transposition import component_at
from pylazy.compiler.nests.integers import element_bytes, iadd, imin, imul, isub, number, rounded_down

#: Columns of a split: they stay in the cache of a core from one row to the next.
_SPLIT_BYTES = 512 * 1024
_LEAST_SPLIT = 4096


class ColumnLaneNest(ReduceNest):
    """Columns in lanes; `column_step` vectors of columns a block, then one by one, the last of them masked."""

    def __init__(self, program: Program, operation: Any, name: str) -> None:
        super().__init__(program, operation, name)
        self.row_vectors = 1
        self.rows_per_tile = 1
        self.shape = Shape(self.lanes, 1, attribute(operation, "register_limit", 16))
        self.lane_argument = self.body_block.arguments[1]
        self.valid: Any = None
        self.row: Any = None
        self.lanes_are_merged = False

    def allocate(self) -> None:
        """Allocate panels for the last columns and for the merged state of the row."""
        super().allocate()
        self.panels.clear()
        self.make_column_panels(self.shape)
        self.merged = [
            make_accumulator(op, Shape(1, 1, self.shape.register_limit), ir.IntegerType.get_signless(64))
            for op in self.accumulations
        ]

    def make_column_panels(self, shape: Shape) -> None:
        """Allocate a panel for each buffer that columns are loaded from."""
        self.column_panels: dict[ir.Value, Panel] = {}
        for operation in self.body_block.operations:
            if name_of(operation) == "reduction.load" and self._is_column_load(operation):
                buffer = ir.MemRefType(operation.operands[0].type)
                self.column_panels[operation.operands[0]] = shape.panel(buffer.shape[1], buffer.element_type)

    def _is_column_load(self, operation: Any) -> bool:
        return len(operation.operands) > 1 and operation.operands[1] == self.body_block.arguments[1]

    def most_columns(self) -> int:
        """Give as many columns as stay in the cache, so that all rows find them there; lists are filled seldom."""
        limit = super().most_columns()
        if any(attribute(op, "kind") in {"kmin", "kmax"} for op in self.body_block.operations):
            return limit
        loads = [op for op in self.body_block.operations if name_of(op) == "reduction.load"]
        buffers = {op.operands[0]: ir.MemRefType(op.operands[0].type) for op in loads if self._is_column_load(op)}
        column_bytes = sum(buffer.shape[1] * element_bytes(buffer.element_type) for buffer in buffers.values())
        return min(limit, max(_LEAST_SPLIT, _SPLIT_BYTES // max(1, column_bytes)))

    def tile_position(self, tile: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Give the row tile and the split of a tile: all rows go over one split, then over the next."""
        row_tiles = kb.emit(
            "arith.divui", (iadd(self.rows, number(self.rows_per_tile - 1)), number(self.rows_per_tile))
        )
        return kb.emit("arith.remui", (tile, row_tiles)), kb.emit("arith.divui", (tile, row_tiles))

    def pack(self, first_row: ir.Value) -> None:
        """Remember the row: its elements are loaded one by one, for all lanes."""
        self.row = first_row

    def load_element(self, operation: Any, at: Position, row: int, column: int) -> ir.Value:
        """Emit one element of a `load`: a number of the row, or a vector with that of many columns."""
        if name_of(operation) != "reduction.load":
            return super().load_element(operation, at, row, column)
        source = operation.operands[0]
        buffer = ir.MemRefType(source.type)
        dim, element = buffer.shape[1], buffer.element_type
        if self._is_column_load(operation):
            return self.column_element(source, dim, at, column)
        pointer = self.buffer_of(source)
        if len(operation.operands) > 1:
            pointer = address(pointer, element, base=imul(self.row, number(dim)))
        return load(address(pointer, element, base=at.base, offset=at.offset), element)

    def first_number(self, argument: ir.Value, row: int, column: int) -> ir.Value:
        """Give the number that an index of the body has in the first lane."""
        if argument == self.lane_argument:
            return iadd(self.column, number(column * self.lanes))
        return self.row

    def all_lanes_exist(self) -> bool:
        """Tell whether every lane stands for a column: not in the last, masked block."""
        return self.valid is None

    def last_lane_number(self) -> ir.Value:
        """Give the number behind the last one that a lane may stand for: the columns of this split."""
        return imin(iadd(self.first_column, self.columns_per_split), self.columns)

    def column_element(self, source: ir.Value, dim: int, at: Position, column: int) -> ir.Value:
        """Emit one element of a column in every lane."""
        if self.valid is not None:
            return self.column_panels[source].read(at, column)
        key = (source, column)
        if key not in self.wide:
            element = ir.MemRefType(source.type).element_type
            with ir.InsertionPoint.at_block_begin(self.column_block):  # also for loops over inner dimensions
                first = iadd(self.column, number(column * self.lanes))
                start = address(self.buffer_of(source), element, base=imul(first, number(dim)))
                if dim > 1:
                    prefetch_stream(start, dim * self.lanes * element_bytes(element))
                self.wide[key] = load_upwards(start, dim * self.lanes, element)
        return component_at(self.wide[key], dim, at)

    def _blocks(self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value) -> list[ir.Value]:
        carried, whole = self.whole_blocks(body, carried, start, end)
        vectors = iadd(start, rounded_down(isub(end, start), self.lanes))
        if self.block.columns > 1:
            carried = self._column_loop(body, carried, whole, vectors, 1)
        return self._last_columns(body, carried, vectors, end)

    def whole_blocks(
        self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value
    ) -> tuple[list[ir.Value], ir.Value]:
        """Emit the columns that fill blocks; give the first after them too."""
        whole = iadd(start, rounded_down(isub(end, start), self.block.columns * self.lanes))
        return self._column_loop(body, carried, start, whole, self.block.columns), whole

    def _column_loop(
        self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value, step: int
    ) -> list[ir.Value]:
        loop = scf.ForOp(start, end, number(step * self.lanes), carried)
        with ir.InsertionPoint(loop.body), body.scope():
            self.enter_block(loop.induction_variable, loop.body)
            scf.YieldOp(self._step(body, list(loop.inner_iter_args), step))
        return list(loop.results)

    def enter_block(self, column: ir.Value, block: Any) -> None:
        """Begin a block of columns, all of them valid, and forget what another has loaded."""
        self.column, self.column_block, self.valid = column, block, None
        self.wide: dict[Any, ir.Value] = {}
        self.pair_vectors, self.pair_starts = {}, {}

    def pack_last_columns(self, start: ir.Value, end: ir.Value) -> None:
        """Copy columns that do not fill a vector to panels, the last of them into all idle lanes."""
        for source, panel in self.column_panels.items():
            panel.pack(self.buffer_of(source), start, isub(end, number(1)))

    def _last_columns(
        self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value
    ) -> list[ir.Value]:
        """Emit the columns that do not fill a vector: idle lanes read the last column again and let nothing in."""
        branch = scf.IfOp(kb.icompare("slt", start, end), [value.type for value in carried], has_else=True)
        with ir.InsertionPoint(branch.then_block):
            scf.YieldOp(self.masked_block(body, carried, start, end, branch.then_block))
        with ir.InsertionPoint(branch.else_block):
            scf.YieldOp(carried)
        return list(branch.results)

    def masked_block(
        self, body: BodyElements, carried: list[ir.Value], start: ir.Value, end: ir.Value, block: Any
    ) -> list[ir.Value]:
        """Emit one vector of columns, of which those from `end` on do not count."""
        with body.scope():
            self.enter_block(start, block)
            integer = ir.IntegerType.get_signless(64)
            lanes = ir.VectorType.get([self.lanes], integer)
            self.valid = kb.icompare("slt", iadd(broadcast(start, lanes), lane_numbers(lanes)), broadcast(end, lanes))
            self.pack_last_columns(start, end)
            body.on_accumulate = self._masked
            result = self._step(body, carried, 1)
            body.on_accumulate = None
        self.valid = None
        return result

    def _masked(self, role: str, element: ir.Value) -> ir.Value:
        """Give idle lanes what changes no result of the accumulation that is being emitted."""
        neutral = 0.0 if role == "weight" else _neutral_value(attribute(self.accumulation, "kind"))
        return kb.select(self.valid, element, kb.constant(neutral, element.type))

    def lane_columns(self, first: ir.Value, vector: ir.Type, step: int) -> list[ir.Value]:
        """Give the numbers of `step` vectors of columns, -1 in idle lanes."""
        lanes = iadd(broadcast(first, vector), lane_numbers(vector))
        numbers = [lanes, *(iadd(lanes, kb.constant(k * self.lanes, vector)) for k in range(1, step))]
        if self.valid is None:
            return numbers
        return [kb.select(self.valid, found, kb.constant(-1, vector)) for found in numbers]

    def whole_index(self, relative: ir.Value) -> ir.Value:
        """Turn a column number of a lane into one of the whole axis; after the merge of the lanes it is one."""
        return relative if self.lanes_are_merged else super().whole_index(relative)

    def _end(self, carried: list[ir.Value], first_row: ir.Value, split: ir.Value) -> None:
        """Merge the lanes, then go on with the one state of the row as any nest does."""
        merged_parts = [accumulator.start() for accumulator in self.merged]
        for accumulator, part in zip(self.accumulators, self._parts(carried), strict=True):
            accumulator.save(part)
        widths = [len(part) for part in merged_parts]
        loop = scf.ForOp(number(0), number(self.lanes), number(1), [slot for part in merged_parts for slot in part])
        with ir.InsertionPoint(loop.body):
            inside, result, start = list(loop.inner_iter_args), [], 0
            for accumulator, merged, width in zip(self.accumulators, self.merged, widths, strict=True):
                values = None if accumulator.values is None else _Lane(accumulator.values, loop.induction_variable)
                indices = None
                if accumulator.indices is not None:
                    indices = _Lane(accumulator.indices, loop.induction_variable, convert=self.whole_index)
                result += merged.merge(inside[start : start + width], values, indices)
                start += width
            scf.YieldOp(result)
        self.accumulators, self.widths = self.merged, widths
        self.lanes_are_merged = True
        super()._end(list(loop.results), first_row, split)


def _neutral_value(kind: str) -> float:
    if kind in COMPONENT_COMBINERS:
        return COMPONENT_COMBINERS[kind].neutral
    return -float("inf") if kind in {"logsumexp", "softmax"} else float("nan")


class _Lane(Panel):
    """One lane of a panel, read as a panel of one row."""

    def __init__(self, panel: Panel, lane: ir.Value, convert: Any = None) -> None:
        self.slots, self.element = panel.slots, panel.element
        self.width, self.stride = panel.width, panel.stride
        self.lanes, self.vector = 1, panel.element
        self.pointer = address(panel.pointer, panel.element, base=lane)
        self._convert = convert

    def read(self, at: Position, row: int) -> ir.Value:
        """Build a load of one slot."""
        found = super().read(at, row)
        return found if self._convert is None else self._convert(found)

    def read_lane(self, at: Position, row: int, lane: ir.Value) -> ir.Value:
        """Build a load of one slot: this is the only lane."""
        return self.read(at, row)
