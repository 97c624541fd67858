"""Loop nests of CPU kernels: over tiles, rows and columns, as functions that the runtime calls for a range of tiles."""

from dataclasses import dataclass
from typing import Any, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.diagnostics import at_source_line
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.dialects.reduction.summation import has_direct_sums
from pylazy.compiler.mlir import func, ir, scf
from pylazy.compiler.nests.accumulations import accumulations_in, destinations
from pylazy.compiler.nests.body_elements import Block, BodyElements, Position, element_of, inner_dim
from pylazy.compiler.nests.cpu_accumulators import Accumulator, Shape, make_accumulator
from pylazy.compiler.nests.cpu_memory import (
    Panel,
    address,
    broadcast,
    element_bytes,
    for_range,
    iadd,
    imin,
    imul,
    isub,
    load,
    number,
)
from pylazy.compiler.nests.cpu_pairs import index_element, pair_element, store_pairs
from pylazy.compiler.nests.cpu_transposition import pack_rows, unpack_rows
from pylazy.runtime.errors import UnsupportedError

#: Parameters of up to this many elements are loaded before the loops.
_PARAMETER_LIMIT = 64
#: A thread of the pool has 8 MiB of stack on Linux, and less elsewhere.
_STACK_BYTES = 1 << 20


class Program(Protocol):
    """What a nest asks of the program that it is a phase of."""

    arguments: list[ir.Value]

    def add_partial(self, *, name: str, axis: str, element: ir.Type, dim: int) -> int:
        """Add scratch for unfinished states; give its number among the buffers."""


@dataclass
class Partial:
    """Where the unfinished states of one accumulation are kept: numbers of buffers, or None."""

    values: "int | None"
    indices: "int | None"


class Nest:
    """What all phase functions share: entry, tile loop, and access to buffers."""

    splittable = False
    merges = False

    def __init__(self, program: Program, operation: Any, name: str) -> None:
        self.program = program
        self.operation = operation
        self.name = name
        self.lanes = attribute(operation, "lanes", 1)
        self.row_vectors = attribute(operation, "row_vectors", 1)
        self.rows_per_tile = self.lanes * self.row_vectors
        self.rows_axis = attribute(operation, "rows")
        self.columns_axis = attribute(operation, "columns", "")
        self.shape = Shape(self.lanes, self.row_vectors, attribute(operation, "register_limit", 16))
        self.body_block = operation.regions[0].blocks[0]
        self.block = Block(
            self.row_vectors,
            attribute(operation, "column_step", 1),
            attribute(operation, "unroll_limit", 16),
            attribute(operation, "inner_step", 8),
        )
        self.pointers: dict[int, ir.Value] = {}
        self.panels: dict[ir.Value, Panel] = {}
        self.column: Any = None
        self.column_block: Any = None
        self.column_starts: dict[ir.Value, ir.Value] = {}
        self.first_row: Any = None
        #: The numbers of rows and columns of the buffers; those of a tile may be fewer.
        self.extents: tuple[Any, Any] = (None, None)
        #: The index that runs along the lanes.
        self.lane_argument = self.body_block.arguments[0]
        #: Rows of dense arrays that one block of columns has loaded, or where they begin.
        self.pair_vectors: dict[Any, ir.Value] = {}
        self.pair_starts: dict[Any, list[ir.Value]] = {}

    def build(self) -> None:
        """Emit the function at the current insertion point."""
        pointer = ir.Type.parse("!llvm.ptr")
        integer = ir.IntegerType.get_signless(64)
        function = func.FuncOp(self.name, ([pointer, pointer, integer, integer], []))
        self._describe(function)
        entry = function.add_entry_block()
        self.pointer_table, self.extent_table, first_tile, last_tile = entry.arguments
        with ir.InsertionPoint(entry):
            self.entry = entry
            self.rows, self.columns, self.columns_per_split, self.splits = (
                load(address(self.extent_table, integer, offset=k), integer) for k in range(4)
            )
            self.extents = (self.rows, self.columns)
            self._load_pointers()
            self.allocate()
            for_range(first_tile, last_tile, 1, self.tile)
            func.ReturnOp([])
        self._check_stack(entry)

    def _check_stack(self, entry: Any) -> None:
        """Refuse rows so long that their panels would not fit the stack of a thread."""
        taken = 0
        for operation in entry.operations:
            if name_of(operation) == "llvm.alloca":
                count = operation.operands[0].owner.attributes["value"].value
                taken += count * element_bytes(operation.attributes["elem_type"].value)
        if taken > _STACK_BYTES:
            raise UnsupportedError(
                at_source_line(
                    f"a reduction over rows this long needs {taken} bytes of stack on a CPU, at most {_STACK_BYTES} "
                    "are there: shorten the inner dimension or the K of K-min",
                    self.operation.location,
                )
            )

    def _describe(self, function: Any) -> None:
        text, integer = ir.StringAttr.get, ir.IntegerType.get_signless(64)
        limit = self.most_columns()
        function.attributes["reduction.phase"] = ir.DictAttr.get(
            {
                "rows": text(self.rows_axis),
                "columns": text(self.columns_axis),
                "rows_per_tile": ir.IntegerAttr.get(integer, self.rows_per_tile),
                "splittable": ir.BoolAttr.get(self.splittable),
                "merges": ir.BoolAttr.get(self.merges),
                "cost": ir.FloatAttr.get(ir.F64Type.get(), attribute(self.operation, "cost", 1.0)),
                "max_columns_per_split": ir.IntegerAttr.get(integer, limit if self.splittable else 0),
                **self.launch_attributes(),
            }
        )

    def most_columns(self) -> int:
        """Give the most columns that a split may have, 0 for any number: lanes have to count them."""
        return 2**30 if self.index_type().width < 64 else 0

    def launch_attributes(self) -> dict[str, ir.Attribute]:
        """Give what else the runtime has to know of this phase."""
        return {}

    def index_type(self) -> ir.Type:
        """Give the type of column numbers in lanes: as wide as the values, so that they fill the same registers."""
        return ir.IntegerType.get_signless(self.value_bits())

    def value_bits(self) -> int:
        """Give the width of the values that the body ends in."""
        for operation in self.body_block.operations:
            if name_of(operation) in {"reduction.accumulate", "reduction.store", "reduction.store_pair"}:
                return int(ir.VectorType(operation.operands[0].type).element_type.width)
        return 64

    def _load_pointers(self) -> None:
        """Load the pointers of all buffers that the body uses, and of scratch that `allocate` will ask for."""
        for operation in self.body_block.operations:
            for operand in operation.operands:
                if operand in self.program.arguments:
                    self.buffer(self.program.arguments.index(operand))

    def buffer(self, position: int) -> ir.Value:
        """Give the pointer of a buffer; loaded once, in the entry block."""
        if position not in self.pointers:
            with ir.InsertionPoint.at_block_begin(self.entry):
                pointer = ir.Type.parse("!llvm.ptr")
                self.pointers[position] = load(address(self.pointer_table, pointer, offset=position), pointer)
        return self.pointers[position]

    def buffer_of(self, argument: ir.Value) -> ir.Value:
        """Give the pointer of the buffer that an argument of the program stands for."""
        return self.buffer(self.program.arguments.index(argument))

    def allocate(self) -> None:
        """Allocate panels for all rows that the body loads; load parameters."""
        for operation in self.body_block.operations:
            if name_of(operation) == "reduction.load" and self._is_row_load(operation):
                source = operation.operands[0]
                if source not in self.panels:
                    buffer = ir.MemRefType(source.type)
                    self.panels[source] = self.shape.panel(buffer.shape[1], buffer.element_type)

    def _is_row_load(self, operation: Any) -> bool:
        return len(operation.operands) > 1 and operation.operands[1] == self.body_block.arguments[0]

    def pack(self, first_row: ir.Value) -> None:
        """Transpose the rows of a tile into their panels."""
        self.first_row = first_row
        last_row = isub(self.rows, number(1))
        for source, panel in self.panels.items():
            pack_rows(panel, self.buffer_of(source), first_row, last_row)

    def load_element(self, operation: Any, at: Position, row: int, column: int) -> ir.Value:
        """Emit one element of a `load`: from a panel, from the row of a column, or of a parameter."""
        if name_of(operation) == "reduction.index_value":
            return index_element(self, operation, row, column)
        if name_of(operation) == "reduction.load_pair":
            return pair_element(self, operation, at, row, column)
        source = operation.operands[0]
        if self._is_row_load(operation):
            return self.panels[source].read(at, row)
        buffer = ir.MemRefType(source.type)
        pointer, dim, element = self.buffer_of(source), buffer.shape[1], buffer.element_type
        if len(operation.operands) == 1:
            return load(address(pointer, element, base=at.base, offset=at.offset), element)
        start = self._column_start(source, pointer, dim, element)
        return load(address(start, element, base=at.base, offset=column * dim + at.offset), element)

    def first_number(self, argument: ir.Value, row: int, column: int) -> ir.Value:
        """Give the number that an index of the body has in the first lane."""
        if argument == self.body_block.arguments[0]:
            return iadd(self.first_row, number(row * self.lanes))
        return iadd(self.column, number(column))

    def all_lanes_exist(self) -> "ir.Value | bool":
        """Tell whether every lane stands for a row: not in the last tile."""
        return kb.icompare("sle", iadd(self.first_row, number(self.rows_per_tile)), self.rows)

    def last_lane_number(self) -> ir.Value:
        """Give the number behind the last one that a lane may stand for: the rows."""
        return self.rows

    def _column_start(self, source: ir.Value, pointer: ir.Value, dim: int, element: ir.Type) -> ir.Value:
        if source not in self.column_starts:
            with ir.InsertionPoint.at_block_begin(self.column_block):
                self.column_starts[source] = address(pointer, element, base=imul(self.column, number(dim)))
        return self.column_starts[source]

    def tile(self, tile: ir.Value) -> None:
        """Emit the work of one tile."""
        raise NotImplementedError


class MapNest(Nest):
    """One value for each row, written to a buffer."""

    def allocate(self) -> None:
        """Allocate panels for the results too."""
        super().allocate()
        self.stores = [op for op in self.body_block.operations if name_of(op) == "reduction.store"]
        self.results = [
            self.shape.panel(inner_dim(op.operands[0]), ir.VectorType(op.operands[0].type).element_type)
            for op in self.stores
        ]

    def tile(self, tile: ir.Value) -> None:
        """Emit the rows of one tile."""
        first_row = imul(tile, number(self.rows_per_tile))
        self.pack(first_row)
        body = BodyElements(self.body_block, self.block, self.load_element)
        for operation, panel in zip(self.stores, self.results, strict=True):
            with operation.location:
                self._store(operation, panel, body, first_row)

    def _store(self, operation: Any, panel: Panel, body: BodyElements, first_row: ir.Value) -> None:
        value = operation.operands[0]
        dim = inner_dim(value)

        def write(nothing: list[ir.Value], at: Position) -> list[ir.Value]:
            for row in range(self.row_vectors):
                panel.write(broadcast_lanes(body.element(value, at, row, 0), value, self.shape), at, row)
            return nothing

        if dim <= self.block.unroll_limit:
            for component in range(dim):
                write([], Position(component))
        else:
            body.prepare(value)
            body.over_inner(value, dim, [], write)
        unpack_rows(panel, self.buffer_of(operation.operands[1]), first_row, self.rows, slots=dim)


def broadcast_lanes(element: ir.Value, value: ir.Value, shape: Shape) -> ir.Value:
    """Repeat a number in every lane where it does not depend on the row."""
    if isinstance(element.type, ir.VectorType):
        return element
    return broadcast(element, shape.vector(element_of(value.type)))


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
        count = isub(end, start)
        whole = isub(count, kb.emit("arith.remui", (count, number(step))))
        middle = iadd(start, whole)
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
        body.block = Block(self.row_vectors, step, saved.unroll_limit, saved.inner_step)
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
        vector = self.shape.vector(index)
        first = broadcast(relative, vector)
        return [first, *(iadd(first, kb.constant(k, vector)) for k in range(1, step))]

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
        wide, whole = relative, _of_elements(relative.type, ir.IntegerType.get_signless(64))
        if wide.type != whole:
            wide = kb.emit("arith.extsi", (relative,), whole)
        shifted = iadd(wide, broadcast(self.first_column, whole))
        empty = kb.icompare("slt", wide, kb.constant(0, whole))
        return kb.select(empty, wide, shifted)


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


def write_results(
    nest: Any, operation: Any, accumulator: Accumulator, carried: list[ir.Value], first_row: ir.Value
) -> None:
    """Finish an accumulation and write the rows of its results."""
    accumulator.finish(carried, _count(nest, accumulator))
    values, indices = destinations(operation)
    if values is not None and accumulator.values is not None:
        element = ir.MemRefType(values.type).element_type
        unpack_rows(
            accumulator.values,
            nest.buffer_of(values),
            first_row,
            nest.rows,
            slots=accumulator.results,
            convert=None if element == accumulator.values.element else lambda value: _narrowed(value, element),
        )
    if indices is not None and accumulator.indices is not None:
        unpack_rows(
            accumulator.indices,
            nest.buffer_of(indices),
            first_row,
            nest.rows,
            slots=accumulator.results,
            convert=nest.whole_index,
        )


def _narrowed(value: ir.Value, element: ir.Type) -> ir.Value:
    return kb.emit("arith.truncf", (value,), _of_elements(value.type, element))


def _of_elements(lanes: ir.Type, element: ir.Type) -> ir.Type:
    """Give the type of as many lanes, of other elements."""
    return ir.VectorType.get(lanes.shape, element) if isinstance(lanes, ir.VectorType) else element


def _count(nest: Any, accumulator: Accumulator) -> ir.Value:
    assert accumulator.values is not None
    scalar = kb.emit("arith.uitofp", (nest.columns,), accumulator.values.element)
    return broadcast(scalar, nest.shape.vector(accumulator.values.element))
