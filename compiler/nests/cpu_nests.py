"""What the loop nests of all CPU kernels share: a function that the runtime calls for a range of tiles."""

from typing import Any, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.diagnostics import at_source_line
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import func, ir
from pylazy.compiler.nests.body_elements import Block
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.cpu_accumulators import Shape
from pylazy.compiler.nests.cpu_memory import Panel, address, load
from pylazy.compiler.nests.cpu_pairs import index_element, pair_element
from pylazy.compiler.nests.cpu_transposition import pack_rows
from pylazy.compiler.nests.integers import element_bytes, for_range, iadd, imul, isub, number
from pylazy.runtime.errors import UnsupportedError

#: A thread of the pool has 8 MiB of stack on Linux, and less elsewhere.
_STACK_BYTES = 1 << 20


class Program(Protocol):
    """What a nest asks of the program that it is a phase of."""

    arguments: list[ir.Value]

    def add_partial(self, *, name: str, axis: str, element: ir.Type, dim: int) -> int:
        """Add scratch for unfinished states; give its number among the buffers."""


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
        self.block = Block.of(operation, self.row_vectors)
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
