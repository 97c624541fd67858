"""What the loop nests of all GPU kernels share: the function, the rows of a thread, access to buffers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import both
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import gpu, ir, scf
from pylazy.compiler.nests.body_elements import Block, BodyElements
from pylazy.compiler.nests.body_values import Position, element_of
from pylazy.compiler.nests.gpu_function import create_function, integer_attribute
from pylazy.compiler.nests.gpu_memory import (
    WORKGROUP_BYTES,
    ColumnTile,
    RowPanel,
    Source,
    block_index,
    byte_address,
    declare_workgroup,
    element_address,
    load_input,
    row_address,
    scaled,
    split_number,
    store_output,
    thread_index,
    workgroup_address,
)
from pylazy.compiler.nests.gpu_soft_dtw import ThreadTables
from pylazy.compiler.nests.integers import iadd, imin, imul, isub, number
from pylazy.compiler.target import Target
from pylazy.runtime.errors import InternalError

#: For each accumulation: "values" and "indices" -> the scratch for its unfinished states.
Partials = Mapping[Any, Mapping[str, ir.Value]]


@dataclass(frozen=True)
class Kernel:
    """What a kernel is made of.

    Attributes:
        arguments: the buffers of the program, as the kernel op names them.
        operation: a `map` or `map_reduce`.
        name: of the kernel.
        target: for messages.
        partials: of each accumulation, the scratch for its unfinished states.
    """

    arguments: Sequence[ir.Value]
    operation: Any
    name: str
    target: Target
    partials: Partials = field(default_factory=dict)


class Nest:
    """What both kinds of kernels share: the function, the rows of a thread, access to buffers."""

    #: Columns may be cut in splits, which leave their states in scratch; a later kernel merges them.
    splittable = False
    merges = False

    def __init__(self, kernel: Kernel) -> None:
        operation, target, name = kernel.operation, kernel.target, kernel.name
        self.arguments, self.partials = kernel.arguments, kernel.partials
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
        self.block = Block.of(operation, self.rows_per_thread)
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
        written = {
            operand
            for op in self.body_block.operations
            if name_of(op) in {"reduction.accumulate", "reduction.store", "reduction.store_pair"}
            for operand in op.operands
        }
        if not self.merges:
            written |= {buffer for partial in self.partials.values() for buffer in partial.values()}
        text = ir.StringAttr.get
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
        return create_function(
            self.name,
            [argument in written for argument in self.arguments],
            threads=self.threads,
            blocks_per_processor=self.blocks_per_processor,
            launch=launch,
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


def _source(load: Any) -> Source:
    return Source(load.operands[0], attribute(load, "reduction.scale", 1.0))
