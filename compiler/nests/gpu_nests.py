"""GPU kernels as loop nests: the rows of a thread, tiles of columns, sweeps over them."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import gcd
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import COMPONENT_COMBINERS, both, negation, rarely
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.dialects.reduction.summation import has_direct_sums
from pylazy.compiler.mlir import gpu, ir, llvm, scf
from pylazy.compiler.nests.body_elements import Block, BodyElements, Position, element_of, inner_dim
from pylazy.compiler.nests.gpu_accumulators import (
    ColumnAccumulator,
    Components,
    Exponentials,
    Factored,
    GpuAccumulator,
    ReadSaved,
    Result,
    Saved,
    Selection,
    State,
    index_type,
)
from pylazy.compiler.nests.gpu_memory import (
    GLOBAL_SPACE,
    WORKGROUP_BYTES,
    ColumnTile,
    RowPanel,
    Source,
    block_index,
    byte_address,
    declare_workgroup,
    element_address,
    load_input,
    pointer_type,
    row_address,
    scaled,
    split_number,
    store_output,
    thread_index,
    workgroup_address,
)
from pylazy.compiler.nests.gpu_pairs import PairStores
from pylazy.compiler.nests.gpu_selection import ListedSelection, is_long_selection
from pylazy.compiler.nests.gpu_shared_sums import BLOCK_COLUMNS, SharedSums, shareable_factors, shared_step, shuffled
from pylazy.compiler.nests.gpu_soft_dtw import ThreadTables
from pylazy.compiler.nests.integers import element_bytes, iadd, imin, imul, isub, number
from pylazy.compiler.target import Target
from pylazy.runtime.errors import InternalError

#: Rows, columns, columns of a split, splits: what every kernel takes after the pointers and their batch strides.
_EXTENTS = 4
#: Splits whose states a thread of a merge kernel loads at once.
_MERGED_AT_ONCE = 4
#: For each accumulation: "values" and "indices" -> the scratch for its unfinished states.
Partials = Mapping[Any, Mapping[str, ir.Value]]
#: Bytes of a slot of a state in workgroup memory, and the most slots of a row where groups of threads share rows.
_SLOT_BYTES = 8
_SLOTS_OF_A_GROUP = 3
#: State slots of accumulations that share one sweep over the columns.
_SLOTS_OF_A_SWEEP = 24


def integer_attribute(value: int) -> ir.Attribute:
    """Build a 64-bit integer attribute."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


def _source(load: Any) -> Source:
    return Source(load.operands[0], attribute(load, "reduction.scale", 1.0))


class Nest:
    """What both kinds of kernels share: the function, the rows of a thread, access to buffers.

    Args:
        arguments: the buffers of the program, as the kernel op names them.
        operation: a `map` or `map_reduce`.
        name: of the kernel.
        target: for messages.
        partials: of each accumulation, the scratch for its unfinished states.
    """

    #: Columns may be cut in splits, which leave their states in scratch; a later kernel merges them.
    splittable = False
    merges = False

    def __init__(
        self,
        arguments: Sequence[ir.Value],
        operation: Any,
        name: str,
        target: Target,
        partials: "Partials | None" = None,
    ) -> None:
        self.arguments = arguments
        self.partials = partials or {}
        self.operation = operation
        self.target = target
        self.name = name
        self.threads = attribute(operation, "block_threads", 128)
        self.blocks_per_processor = attribute(operation, "blocks_per_processor", 4)
        self.column_groups = attribute(operation, "column_groups", 1)
        self.row_threads = self.threads // self.column_groups
        self.rows_per_thread = attribute(operation, "rows_per_thread", 1)
        self.rows_per_block = self.row_threads * self.rows_per_thread
        self.body_block = operation.regions[0].blocks[0]
        self.block = Block(
            self.rows_per_thread,
            attribute(operation, "column_step", 1),
            attribute(operation, "unroll_limit", 16),
            attribute(operation, "inner_step", 8),
        )
        self.tile = ColumnTile(
            self._sources("c"),
            columns=attribute(operation, "tile_columns", 128),
            step=gcd(self.block.inner_step, attribute(operation, "result_chunk", 16)),
        )
        long = [source for source in self._sources("r") if source.kind.shape[1] > self.block.unroll_limit]
        self.panel = RowPanel(
            long if name_of(operation) == "reduction.map_reduce" else [],
            rows=self.rows_per_block,
            limit=min(attribute(operation, "row_panel_bytes", 0), WORKGROUP_BYTES - self.tile.bytes),
            step=self.block.inner_step,
        )
        self.tables = ThreadTables(
            self.body_block, threads=self.threads, taken=self.tile.bytes + self.panel.bytes, name=target.name
        )
        self.workgroup_bytes = self.tile.bytes + self.panel.bytes + self.tables.bytes
        if self.column_groups > 1:
            exchanged = _SLOTS_OF_A_GROUP * self.rows_per_thread * self.threads * _SLOT_BYTES
            self.workgroup_bytes = max(self.workgroup_bytes, exchanged)
        self.row_starts: dict[Any, ir.Value] = {}
        self.column: Any = None

    def _loads(self) -> list[Any]:
        return [op for op in self.body_block.operations if name_of(op) == "reduction.load"]

    def _varies_with(self, load: Any) -> str:
        if len(load.operands) == 1:
            return ""
        return "rc"[list(self.body_block.arguments).index(load.operands[1])]

    def _sources(self, axis: str) -> list[Source]:
        """Give what the body loads by row ("r") or by column ("c")."""
        return list(dict.fromkeys(_source(op) for op in self._loads() if self._varies_with(op) == axis))

    def build(self) -> None:
        """Build the kernel at the current insertion point, in a `gpu.module`."""
        if self.workgroup_bytes:
            declare_workgroup(f"{self.name}_workgroup", self.workgroup_bytes)
        function = self._create_function()
        entry = function.regions[0].blocks.append(
            *ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value).inputs
        )
        count = len(self.arguments)
        pointers, strides = entry.arguments[:count], entry.arguments[count : 2 * count]
        self.rows, self.columns, self.columns_per_split, self.splits = entry.arguments[2 * count :]
        with ir.InsertionPoint(entry):
            batch = block_index(gpu.Dimension.z)
            self.pointers = {
                buffer: byte_address(pointer, base=imul(batch, stride))
                for buffer, pointer, stride in zip(self.arguments, pointers, strides, strict=True)
            }
            if self.workgroup_bytes:
                self.tile_start = workgroup_address(f"{self.name}_workgroup")
                self.panel_start = byte_address(self.tile_start, offset=self.tile.bytes)
                self.tables.place(byte_address(self.panel_start, offset=self.panel.bytes), thread_index())
            self.emit_block()
            gpu.ReturnOp([])

    def emit_block(self) -> None:
        """Build what a block of threads does: `rows_per_block` rows, those that its number says."""
        self.place_rows(imul(block_index(), number(self.rows_per_block)), self.rows)
        self.fill()

    def _create_function(self) -> Any:
        wide = ir.IntegerType.get_signless(64)
        buffers = [pointer_type(GLOBAL_SPACE)] * len(self.arguments)
        written = {
            operand
            for op in self.body_block.operations
            if name_of(op) in {"reduction.accumulate", "reduction.store", "reduction.store_pair"}
            for operand in op.operands
        }
        if not self.merges:
            written |= {buffer for partial in self.partials.values() for buffer in partial.values()}
        unit = ir.UnitAttr.get()
        argument_attributes = [
            ir.DictAttr.get(
                {"llvm.noalias": unit} if argument in written else {"llvm.noalias": unit, "llvm.readonly": unit}
            )
            for argument in self.arguments
        ]
        text = ir.StringAttr.get
        numbers = [wide] * (len(buffers) + _EXTENTS)
        launch = {
            "rows": self.operation.attributes["rows"],
            "columns": text(attribute(self.operation, "columns", "")),
            "rows_per_block": integer_attribute(self.rows_per_block),
            "tile_columns": integer_attribute(self.tile.columns),
            "block_threads": integer_attribute(self.threads),
            "blocks_per_processor": integer_attribute(self.blocks_per_processor),
            "splittable": ir.BoolAttr.get(self.splittable),
            "merges": ir.BoolAttr.get(self.merges),
            "workgroup_bytes": integer_attribute(self.workgroup_bytes),
            "tile_table": integer_attribute(self.tile_table()),
        }
        return ir.Operation.create(
            "gpu.func",
            regions=1,
            attributes={
                "sym_name": text(self.name),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get([*buffers, *numbers], [])),
                "gpu.kernel": unit,
                "arg_attrs": ir.ArrayAttr.get([*argument_attributes, *[ir.DictAttr.get({})] * len(numbers)]),
                "nvvm.maxntid": ir.DenseI32ArrayAttr.get([self.threads]),
                # A bound on registers: left to itself, the assembler spills to reach an occupancy that it guesses.
                "nvvm.minctasm": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), self.blocks_per_processor),
                "reduction.launch": ir.DictAttr.get(launch),
            },
        )

    def tile_table(self) -> int:
        """Give the number of the buffer that lists the rows of each block; -1 if they follow from its number."""
        return -1

    def place_rows(self, first: ir.Value, end: ir.Value) -> None:
        """Build the numbers of this thread's rows, and the addresses of those rows where they are read.

        Args:
            first: row of the block.
            end: the row after its last one, if that comes before `rows_per_block` rows.
        """
        thread = thread_index()
        if self.column_groups > 1:
            self.group, thread = split_number(thread, self.row_threads)
        self.end_of_rows = end
        self.thread_rows = [
            iadd(iadd(first, thread), number(k * self.row_threads)) for k in range(self.rows_per_thread)
        ]
        last = isub(end, number(1))
        clamped = self.readable_rows = [imin(row, last) for row in self.thread_rows]
        for source in self._sources("r"):
            kind = source.kind
            if source in self.panel.offsets:
                self.row_starts[source, 0] = self.panel.thread_start(self.panel_start, source, thread)
                continue
            for k, row in enumerate(clamped):
                start = row_address(self.pointers[source.buffer], row, kind.shape[1], kind.element_type)
                self.row_starts[source, k] = start
        if self.panel.bytes:
            self.panel.fill(self.panel_start, self.pointers, first=first, last=last, threads=self.threads)
            gpu.barrier()

    def elements(self) -> BodyElements:
        """Make what emits the elements of the body."""
        body = BodyElements(self.body_block, self.block, self.load_element)
        body.numbers_of = self.tables.numbers_of
        return body

    def load_element(self, operation: Any, at: Position, row: int, column: int) -> ir.Value:
        """Emit one element of a `load`, of a `load_pair`, or an index."""
        if name_of(operation) == "reduction.index_value":
            place = self._index(operation.operands[0], row, column)
            return kb.emit("arith.sitofp", (place,), element_of(operation.results[0].type))
        if name_of(operation) == "reduction.load_pair":
            return self._load_pair(operation, at, row, column)
        source = _source(operation)
        element = source.kind.element_type
        axis = self._varies_with(operation)
        if source in self.panel.offsets:
            return self.panel.load(self.row_starts[source, 0], source, at, rows_after=row * self.row_threads)
        if axis == "r":
            return scaled(load_input(element_address(self.row_starts[source, row], at, element), element), source)
        if axis == "":
            return scaled(load_input(element_address(self.pointers[source.buffer], at, element), element), source)
        return self.load_column_element(source, at, column)

    def _index(self, argument: ir.Value, row: int, column: int) -> ir.Value:
        """Give the number of a row of this thread, the last row in place of those after it, or that of a column."""
        if argument == self.body_block.arguments[0]:
            return self.readable_rows[row]
        return iadd(self.column, number(column))

    def _load_pair(self, operation: Any, at: Position, row: int, column: int) -> ir.Value:
        address = self._pair_address(operation.operands, at, row, column)
        return load_input(address, ir.MemRefType(operation.operands[0].type).element_type)

    def store_pair(self, operation: Any, value: ir.Value, at: Position, row: int, column: int) -> None:
        """Build the store of one element for a row of the thread, which is to exist, and a column of the block."""
        store_output(value, self._pair_address(list(operation.operands)[1:], at, row, column))

    def _pair_address(self, operands: Sequence[ir.Value], at: Position, row: int, column: int) -> ir.Value:
        buffer, slow, fast = operands
        kind = ir.MemRefType(buffer.type)
        extent = self.rows if fast == self.body_block.arguments[0] else self.columns
        pair = iadd(imul(self._index(slow, row, column), extent), self._index(fast, row, column))
        start = row_address(self.pointers[buffer], pair, kind.shape[1], kind.element_type)
        return element_address(start, at, kind.element_type)

    def load_column_element(self, source: Source, at: Position, column: int) -> ir.Value:
        """Emit one element of the row of a column."""
        raise InternalError(f"a map loads element {at.offset} of column {column} of {source.kind}")

    def store_row(self, buffer: ir.Value, row: int, at: Position, value: ir.Value) -> None:
        """Build the store of one element of a result; to be called where the row is known to exist."""
        kind = ir.MemRefType(buffer.type)
        start = self.row_start(buffer, row)
        if value.type != kind.element_type:  # the state was wider
            value = kb.emit("arith.truncf", (value,), kind.element_type)
        store_output(value, element_address(start, at, kind.element_type))

    def row_start(self, buffer: ir.Value, row: int) -> ir.Value:
        """Build the address of a row of the thread in a buffer; to be used where the row is known to exist."""
        kind = ir.MemRefType(buffer.type)
        return row_address(self.pointers[buffer], self.thread_rows[row], kind.shape[1], kind.element_type)

    def row_exists(self, row: int) -> ir.Value:
        """Build what tells, as one bit, whether a row of the thread is one of the axis, and this thread its first."""
        return self._exists(self.thread_rows[row])

    def _exists(self, row: ir.Value) -> ir.Value:
        exists = kb.icompare("slt", row, self.end_of_rows)
        if self.column_groups > 1:
            exists = both(exists, kb.icompare("eq", self.group, number(0)))
        return exists

    def guarded(self, row: int, body: Callable[[], None]) -> None:
        """Build a branch that only rows of the axis take."""
        self.guarded_row(self.thread_rows[row], body)

    def guarded_row(self, row: ir.Value, body: Callable[[], None]) -> None:
        """Build a branch that only a row of the axis takes, in the first of the threads that hold it."""
        branch = scf.IfOp(self._exists(row))
        with ir.InsertionPoint(branch.then_block):
            body()
            scf.YieldOp([])

    def fill(self) -> None:
        """Build what follows once the rows are known."""
        raise NotImplementedError


class MapNest(Nest):
    """One value for each row, written to a buffer."""

    def fill(self) -> None:
        """Build the values and their stores."""
        body = self.elements()
        for operation in self.body_block.operations:
            if name_of(operation) == "reduction.store":
                for row in range(self.rows_per_thread):
                    with operation.location:
                        self._store(operation, body, row)

    def _store(self, operation: Any, body: BodyElements, row: int) -> None:
        value, buffer = operation.operands[0], operation.operands[1]
        dim = inner_dim(value)

        def write(nothing: State, at: Position) -> State:
            self.store_row(buffer, row, at, body.element(value, at, row, 0))
            return nothing

        def write_all() -> None:
            with body.scope():
                if dim <= self.block.unroll_limit:
                    for component in range(dim):
                        write([], Position(component))
                else:
                    body.prepare(value)
                    body.over_inner(value, dim, [], write)

        self.guarded(row, write_all)


def accumulations_of(operation: Any) -> list[Any]:
    """Give the accumulations of a `map_reduce`; where there are none, it stores values of pairs."""
    return [op for op in operation.regions[0].blocks[0].operations if name_of(op) == "reduction.accumulate"]


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


class ReduceNest(Nest):
    """One or more sweeps over the columns of a split."""

    def __init__(
        self,
        arguments: Sequence[ir.Value],
        operation: Any,
        name: str,
        target: Target,
        partials: "Partials | None" = None,
    ) -> None:
        super().__init__(arguments, operation, name, target, partials)
        self.chunk = attribute(operation, "result_chunk", 16)
        self.shared_chunk = attribute(operation, "shared_chunk", 0)
        self.accumulations = accumulations_of(operation)
        self.pair_stores = [op for op in self.body_block.operations if name_of(op) == "reduction.store_pair"]
        self.splittable = is_splittable(operation)

    def fill(self) -> None:
        """Build the sweeps: accumulations of short results share one, a long result has one for each of its chunks."""
        self.body = self.elements()
        self.place_columns()
        self._prepare_rows()
        shared: list[tuple[Any, GpuAccumulator]] = []
        slots = 0
        for operation in self.accumulations:
            with operation.location:
                dim = _result_width(operation)
                if _is_selection(operation):
                    for component in range(inner_dim(operation.operands[0])):
                        self._sweep([(operation, self._selection(operation, Position(component)))])
                elif dim > self.chunk or (self.shared_chunk and shareable_factors(operation, self.body)):
                    self._sweep_by_chunks(operation, dim)
                else:
                    if shared and slots + dim > _SLOTS_OF_A_SWEEP:
                        self._sweep(shared)
                        shared, slots = [], 0
                    shared.append((operation, self._accumulator(operation, [Position(k) for k in range(dim)])))
                    slots += dim
        shared += [(operation, PairStores(operation, self)) for operation in self.pair_stores]
        if shared:
            self._sweep(shared)

    def place_columns(self) -> None:
        """Build the bounds of the columns of this block."""
        self.split = block_index(gpu.Dimension.y)
        self.first_of_split = imul(self.split, self.columns_per_split)
        self.end_of_split = imin(iadd(self.first_of_split, self.columns_per_split), self.columns)

    def _accumulator(self, operation: Any, places: Sequence[Position]) -> GpuAccumulator:
        segments = list(operation.attributes["operandSegmentSizes"])
        if attribute(operation, "kind") in COMPONENT_COMBINERS:
            index = self.index_type() if segments[3] else None
            body = None if self.merges else self.body
            return Components(operation, self.rows_per_thread, places, index=index, body=body)
        return Exponentials(operation, self.rows_per_thread, places, weighted=segments[1] == 1)

    def _selection(self, operation: Any, component: Position) -> GpuAccumulator:
        if is_long_selection(operation):
            scratch = self.partials.get(operation, {}).get("values")
            return ListedSelection(operation, self, component.offset, scratch=scratch)
        return Selection(operation, self.rows_per_thread, component, index=self.index_type())

    def index_type(self) -> ir.Type:
        """Give the type of column numbers in registers, counted from the first of the split."""
        return ir.IntegerType.get_signless(32) if self.splittable else index_type()

    def relative_index(self) -> ir.Value:
        """Build the number of the first column of a block, as accumulators keep it."""
        if not self.splittable:
            return self.column
        return kb.emit("arith.trunci", (isub(self.column, self.first_of_split),), self.index_type())

    def whole_index(self, relative: ir.Value) -> ir.Value:
        """Turn a column number of a split into one of the whole axis; an empty entry stays below zero."""
        if not self.splittable:
            return relative
        wide = kb.emit("arith.extsi", (relative,), ir.IntegerType.get_signless(64))
        empty = kb.icompare("slt", wide, number(0))
        return kb.select(empty, wide, iadd(wide, self.first_of_split))

    def _prepare_rows(self) -> None:
        """Emit, before all loops, what depends on the row or on nothing, unless it is long."""
        for operation in self.body_block.operations:
            for value in operation.results:
                if not isinstance(value.type, ir.VectorType) or "c" in self.body.axes(value):
                    continue
                if inner_dim(value) <= self.block.unroll_limit and name_of(operation) != "arith.constant":
                    for row in range(self.rows_per_thread if "r" in self.body.axes(value) else 1):
                        for component in range(inner_dim(value)):
                            self.body.element(value, Position(component), row, 0)

    def _sweep_by_chunks(self, operation: Any, dim: int) -> None:
        """Build sweeps for a long result: a loop over whole chunks, straight code for what remains."""
        factored = shareable_factors(operation, self.body) if self.shared_chunk else None
        weighted = list(operation.attributes["operandSegmentSizes"])[1] == 1
        seams = {seam for seam in self.body.boundaries(operation.operands[int(weighted)]) if 0 < seam < dim}
        for low, high in itertools.pairwise([0, *sorted(seams), dim]):
            if factored is not None:
                low = self._sweeps_shared(operation, factored, low, high)  # noqa: PLW2901, what remains
            turns = (high - low) // self.chunk
            looped = low + turns * self.chunk if turns > 1 else low
            if turns > 1:
                loop = scf.ForOp(number(low), number(looped), number(self.chunk), [])
                with ir.InsertionPoint(loop.body), self.body.scope():
                    places = [Position(k, loop.induction_variable, low + k) for k in range(self.chunk)]
                    self._sweep([(operation, self._accumulator(operation, places))])
                    scf.YieldOp([])
            for first in range(looped, high, self.chunk):
                places = [Position(k) for k in range(first, min(first + self.chunk, high))]
                self._sweep([(operation, self._accumulator(operation, places))])

    def _sweeps_shared(self, operation: Any, factored: Factored, low: int, high: int) -> int:
        """Build sweeps for the elements of a long result from one seam to the next that lanes can share.

        Returns:
            The first element that is left.
        """
        element = ir.VectorType(operation.operands[0].type).element_type
        step = shared_step(element)
        while (chunk := min(self.shared_chunk, (high - low) // step * step)) >= 2 * step:
            turns = (high - low) // chunk

            def sweep(first: Position, chunk: int = chunk) -> None:
                part = SharedSums(operation, factored, first=first, count=chunk, thread=thread_index())
                self._sweep_shared(operation, part)

            if turns == 1:
                sweep(Position(low))
            else:
                loop = scf.ForOp(number(low), number(low + turns * chunk), number(chunk), [])
                with ir.InsertionPoint(loop.body), self.body.scope():
                    sweep(Position(0, loop.induction_variable, low))
                    scf.YieldOp([])
            low += turns * chunk
        return low

    def _sweep(self, parts: Sequence[tuple[Any, GpuAccumulator]]) -> None:
        """Build one pass over all columns, tile by tile, and the stores of what it found."""
        self.parts: Sequence[ColumnAccumulator] = [accumulator for _, accumulator in parts]
        states = [accumulator.start() for accumulator in self.parts]
        self.widths = [len(state) for state in states]
        flat = self.over_columns([slot for state in states for slot in state])
        self._end(parts, self._join_groups([part for _, part in parts], flat) if self.column_groups > 1 else flat)

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
            inner = [slot for part, state in self._split(outer) for slot in part.open_tile(state)]
            inner = self._columns(inner, count)
            closed = [
                slot
                for (part, a), (_, b) in zip(self._split(outer), self._split(inner), strict=True)
                for slot in part.close_tile(a, b)
            ]
            scf.YieldOp(closed)
        return list(loop.results)

    def _thread_of_tile(self) -> ir.Value:
        """Build the number of this thread; a shuffle where registers are short, since LLVM takes none out of a loop."""
        thread = thread_index()
        return shuffled(thread, 0) if isinstance(self.parts[0], SharedSums) else thread

    def _join_groups(self, parts: Sequence[GpuAccumulator], flat: State) -> State:
        """Build the states of all columns of a tile from those of the groups of threads, in workgroup memory."""
        gpu.barrier()
        mine = byte_address(self.tile_start, base=imul(thread_index(), number(_SLOT_BYTES)))
        for slot, value in enumerate(flat):
            store_output(value, byte_address(mine, offset=slot * self.threads * _SLOT_BYTES))
        gpu.barrier()
        lane = kb.emit("arith.remui", (thread_index(), number(self.row_threads)))
        first = byte_address(self.tile_start, base=imul(lane, number(_SLOT_BYTES)))
        groups = [
            [
                llvm.LoadOp(
                    value.type, byte_address(first, offset=(slot * self.threads + k * self.row_threads) * _SLOT_BYTES)
                ).result
                for slot, value in enumerate(flat)
            ]
            for k in range(self.column_groups)
        ]
        joining = [part for part in parts if isinstance(part, Components | Exponentials)]
        if len(joining) < len(parts):
            raise InternalError("the schedule gave the rows of a list to several threads")
        joined = groups[0]
        for other in groups[1:]:
            pairs = list(zip(joining, self._split(joined), self._split(other), strict=True))
            joined = [slot for part, (_, a), (_, b) in pairs for slot in part.join(a, b)]
        return joined

    def _sweep_shared(self, operation: Any, part: SharedSums) -> None:
        """Build one pass over all columns for sums that lanes share; each block of columns is added to the result.

        The sums of a block fill the registers, so those of the blocks before it wait in global memory. There is one
        block where there are no columns.
        """
        self.parts = [part]
        narrow = ir.IntegerType.get_signless(32)
        count = kb.emit("arith.trunci", (isub(self.end_of_split, self.first_of_split),), narrow)
        none, block = kb.constant(0, narrow), kb.constant(BLOCK_COLUMNS, narrow)
        loop = scf.ForOp(none, kb.emit("arith.maxsi", (count, kb.constant(1, narrow))), block, [])
        with ir.InsertionPoint(loop.body), self.body.scope():
            first = loop.induction_variable
            neutral = part.start()
            self.widths = [len(neutral)]
            sums = self.over_tiles(neutral, first, imin(iadd(first, block), count))
            later = negation(kb.icompare("eq", first, none))
            for distance, mine in enumerate(part.scaled_rows(sums, self.body)):
                # A shuffle, so that LLVM keeps the addresses of these rows from taking registers in the sweep.
                row = shuffled(self.thread_rows[0], distance)
                self._add_to_row(operation, part, row, mine, later)
            scf.YieldOp([])

    def _add_to_row(self, operation: Any, part: SharedSums, row: ir.Value, sums: State, later: ir.Value) -> None:
        result, partial = operation.operands[1], self.partials.get(operation, {}).get("values")
        kind = ir.MemRefType(result.type)

        def add() -> None:
            # Of whole addresses: LLVM turns a choice of parameters into one of their places in parameter memory.
            place = row_address(self.pointers[result], row, kind.shape[1], kind.element_type)
            if partial is not None:
                unsplit = kb.icompare("eq", self.splits, number(1))
                place = kb.select(unsplit, place, self._place_of_state(partial, self.split, row))
            places = [element_address(place, at, kind.element_type) for at in part.places]

            def load() -> tuple[ir.Value, ...]:
                size = element_bytes(kind.element_type)
                return tuple(llvm.LoadOp(kind.element_type, place, alignment=size).result for place in places)

            before = rarely(later, load, tuple(part.start()[: len(places)]))
            for place, old, new in zip(places, before, sums, strict=True):
                store_output(kb.add(old, new), place)

        self.guarded_row(row, add)

    def _end(self, parts: Sequence[tuple[Any, GpuAccumulator]], flat: State) -> None:
        """Build the stores of the results, or, if there are several splits, of the unfinished states."""
        states = list(zip(parts, self._split(flat), strict=True))
        if not self.splittable:
            for (operation, part), (_, state) in states:
                self._store(operation, part.results(state, self.number_of_columns()))
            return
        branch = scf.IfOp(kb.icompare("eq", self.splits, number(1)), has_else=True)
        with ir.InsertionPoint(branch.then_block):
            for (operation, part), (_, state) in states:
                self._store(operation, part.results(state, self.number_of_columns()))
            scf.YieldOp([])
        with ir.InsertionPoint(branch.else_block):
            for (operation, part), (_, state) in states:
                self._save(operation, part.save(state))
            scf.YieldOp([])

    def number_of_columns(self) -> ir.Value:
        """Build the number of terms of each result."""
        return self.columns

    def _save(self, operation: Any, saved: Sequence[Saved]) -> None:
        if not saved:
            return
        for row in range(self.rows_per_thread):
            mine = [entry for entry in saved if entry.row == row]

            def save_all(row: int = row, mine: Sequence[Saved] = mine) -> None:
                for entry in mine:
                    buffer = self.partials[operation][entry.part]
                    place = self._place_of_state(buffer, self.split, self.thread_rows[row])
                    value = self.whole_index(entry.value) if entry.part == "indices" else entry.value
                    store_output(value, element_address(place, entry.at, value.type))

            self.guarded(row, save_all)

    def _place_of_state(self, buffer: ir.Value, split: ir.Value, row: ir.Value) -> ir.Value:
        kind = ir.MemRefType(buffer.type)
        return row_address(self.pointers[buffer], iadd(imul(split, self.rows), row), kind.shape[1], kind.element_type)

    def _split(self, flat: State) -> Iterator[tuple[ColumnAccumulator, State]]:
        start = 0
        for part, width in zip(self.parts, self.widths, strict=True):
            yield part, flat[start : start + width]
            start += width

    def _columns(self, state: State, count: ir.Value) -> State:
        """Build the loops over the columns of a tile: blocks of `column_step`, then what remains one by one."""
        step = self.block.columns
        narrow = ir.IntegerType.get_signless(32)
        count, none = kb.emit("arith.trunci", (count,), narrow), kb.constant(0, narrow)
        if step == 1:
            return self._column_loop(state, none, count, 1)
        whole = isub(count, kb.emit("arith.remui", (count, kb.constant(step, narrow))))
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
        self.body.block = Block(self.rows_per_thread, step, saved.unroll_limit, saved.inner_step)
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
            for part, old in self._split(list(loop.inner_iter_args)):
                result += part.step(old, self.body, columns)
            scf.YieldOp(result)
        self.body.block = saved
        return list(loop.results)

    def load_column_element(self, source: Source, at: Position, column: int) -> ir.Value:
        """Emit one element of a column: from the tile, or from global memory if the column is too long for it."""
        if source in self.tile.offsets:
            return self.tile.load(self.tile_column, source, at, columns_after=column)
        dim, element = source.kind.shape[1], source.kind.element_type
        start = row_address(self.pointers[source.buffer], self.column, dim, element)
        return scaled(load_input(element_address(start, at.shifted(column * dim), element), element), source)

    def _store(self, operation: Any, results: Sequence[Result]) -> None:
        if not results:
            return
        segments = list(operation.attributes["operandSegmentSizes"])
        rest = list(operation.operands)[segments[0] + segments[1] :]
        values = rest[0] if segments[2] else None
        indices = rest[segments[2]] if segments[3] else None
        for row in range(self.rows_per_thread):
            mine = [result for result in results if result.row == row]

            def store_all(row: int = row, mine: Sequence[Result] = mine) -> None:
                for result in mine:
                    if values is not None and result.value is not None:
                        self.store_row(values, row, result.at, result.value)
                    if indices is not None and result.position is not None:
                        self.store_row(indices, row, result.at, self.whole_index(result.position))

            self.guarded(row, store_all)


class MergeNest(ReduceNest):
    """The unfinished states of all splits of a row, merged in order: a thread for each element of a result."""

    merges = True

    def __init__(
        self, arguments: Sequence[ir.Value], operation: Any, name: str, target: Target, partials: Partials
    ) -> None:
        super().__init__(arguments, operation, name, target, partials)
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
        if _is_selection(operation):
            part: GpuAccumulator = self._selection(operation, unit)
        else:
            part = self._accumulator(operation, [unit])
        state, whole = part.start(), number(0)
        if not _is_selection(operation):
            whole = isub(self.splits, kb.emit("arith.remui", (self.splits, number(_MERGED_AT_ONCE))))
            state = self._merge_splits(operation, part, state, number(0), whole, _MERGED_AT_ONCE)
        state = self._merge_splits(operation, part, state, whole, self.splits, 1)
        self._store(operation, part.results(state, self.columns))

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
                    place = self._place_of_state(buffer, split, self.thread_rows[0])
                    return load_input(element_address(place, at, element), element)

                return read

            scf.YieldOp(part.merge(list(loop.inner_iter_args), [reader(k) for k in range(step)]))
        return list(loop.results)


def _units_of_a_row(operation: Any) -> int:
    """Give the elements of a result that are merged apart from each other."""
    return inner_dim(operation.operands[0]) if _is_selection(operation) else _result_width(operation)


def _is_selection(operation: Any) -> bool:
    return attribute(operation, "kind") in {"kmin", "kmax"}


def _result_width(operation: Any) -> int:
    """Give the number of elements that a row's state keeps apart."""
    weighted = list(operation.attributes["operandSegmentSizes"])[1] == 1
    return inner_dim(operation.operands[int(weighted)]) if weighted or _is_componentwise(operation) else 1


def _is_componentwise(operation: Any) -> bool:
    return attribute(operation, "kind") in COMPONENT_COMBINERS
