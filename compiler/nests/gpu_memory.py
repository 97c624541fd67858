"""Memory of a GPU kernel: rows of buffers in global memory, and tiles of columns in workgroup memory."""

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any, NamedTuple

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import gpu, ir, llvm, scf
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.integers import element_bytes, iadd, imin, imul, isub, number

GLOBAL_SPACE = 1
WORKGROUP_SPACE = 3
#: The widest load of one thread; rows of a tile start at multiples of it.
VECTOR_BYTES = 16
#: A staged column has at most this many bytes; what is longer is read from global memory.
STAGED_COLUMN_BYTES = 4096
#: The most workgroup memory of a kernel: what every architecture gives without asking.
WORKGROUP_BYTES = 48 * 1024
#: Rows up to this length are read by straight code, whose loads join across buffers; longer ones start aligned.
_PACKED_BYTES = 64

_DYNAMIC = -(2**31)


class Source(NamedTuple):
    """Rows of a buffer, multiplied by a number on their way to a thread."""

    buffer: ir.Value
    scale: float = 1.0

    @property
    def kind(self) -> Any:
        """The type of the buffer."""
        return ir.MemRefType(self.buffer.type)


def scaled(value: ir.Value, source: Source) -> ir.Value:
    """Build the product of an element with the number of its source, rounded, so that equal elements stay equal."""
    return value if source.scale == 1.0 else kb.emit("arith.mulf", (value, kb.constant(source.scale, value.type)))


def pointer_type(space: int) -> ir.Type:
    """Give the type of pointers into an address space."""
    return ir.Type.parse(f"!llvm.ptr<{space}>")


def byte_address(pointer: ir.Value, *, base: "ir.Value | None" = None, offset: int = 0) -> ir.Value:
    """Build the address `base + offset` bytes after a pointer."""
    byte = ir.IntegerType.get_signless(8)
    if base is not None:
        pointer = llvm.GEPOp(pointer.type, pointer, [base], [_DYNAMIC], byte, 0).result
    if offset:
        pointer = llvm.GEPOp(pointer.type, pointer, [], [offset], byte, 0).result
    return pointer


def row_address(pointer: ir.Value, row: ir.Value, dim: int, element: ir.Type) -> ir.Value:
    """Build the address of a row of a buffer; 64-bit, since rows times their length may pass 2**31."""
    return byte_address(pointer, base=imul(row, number(dim * element_bytes(element))))


def element_address(row: ir.Value, at: Position, element: ir.Type) -> ir.Value:
    """Build the address of one element of a row."""
    size = element_bytes(element)
    base = None if at.base is None else imul(at.base, number(size))
    return byte_address(row, base=base, offset=at.offset * size)


def load_input(pointer: ir.Value, element: ir.Type) -> ir.Value:
    """Build a load from a buffer that the kernel does not write."""
    return llvm.LoadOp(element, pointer, alignment=element_bytes(element), invariant=True).result


def store_output(value: ir.Value, pointer: ir.Value) -> None:
    """Build a store to a buffer."""
    llvm.StoreOp(value, pointer, alignment=element_bytes(value.type))


def thread_index() -> ir.Value:
    """Build the number of the thread in its block, as i64."""
    return _wide(gpu.thread_id(gpu.Dimension.x))


def block_index(dimension: Any = gpu.Dimension.x) -> ir.Value:
    """Build the number of the block in the grid, as i64."""
    return _wide(gpu.block_id(dimension))


def _wide(index: ir.Value) -> ir.Value:
    return kb.emit("arith.index_castui", (index,), ir.IntegerType.get_signless(64))


def column_layout(rows: Sequence[tuple[Any, int, int]]) -> tuple[Mapping[Any, int], int]:
    """Place rows of several buffers one after the other in a tile.

    Args:
        rows: (buffer, elements of a row, bytes of an element).

    Returns:
        The byte offsets of the buffers that are staged (narrow ones first claim the space, wide ones lie first, where
        they are aligned), and the bytes of a whole column.
    """
    staged, total = [], 0
    for row in sorted(rows, key=lambda row: row[1] * row[2]):
        total += -(-row[1] * row[2] // VECTOR_BYTES) * VECTOR_BYTES
        if total <= STAGED_COLUMN_BYTES:
            staged.append(row)
    offsets: dict[Any, int] = {}
    end = 0
    for buffer, dim, size in reversed(staged):
        alignment = VECTOR_BYTES if dim * size > _PACKED_BYTES else size
        start = -(-end // alignment) * alignment
        offsets[buffer] = start
        end = start + dim * size
    return offsets, -(-end // VECTOR_BYTES) * VECTOR_BYTES


def declare_workgroup(name: str, size: int) -> None:
    """Build a variable in workgroup memory, at module level."""
    ir.Operation.create(
        "llvm.mlir.global",
        regions=1,
        attributes={
            "sym_name": ir.StringAttr.get(name),
            "global_type": ir.TypeAttr.get(ir.Type.parse(f"!llvm.array<{size} x i8>")),
            "linkage": ir.Attribute.parse("#llvm.linkage<internal>"),
            "addr_space": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), WORKGROUP_SPACE),
            "alignment": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), VECTOR_BYTES),
            "dso_local": ir.UnitAttr.get(),
        },
    )


def workgroup_address(name: str) -> ir.Value:
    """Build the address of a variable in workgroup memory."""
    return ir.Operation.create(
        "llvm.mlir.addressof",
        results=[pointer_type(WORKGROUP_SPACE)],
        attributes={"global_name": ir.FlatSymbolRefAttr.get(name)},
    ).results[0]


def split_number(place: ir.Value, dim: int) -> tuple[ir.Value, ir.Value]:
    """Divide the number of an element by the length of a row; 32 bits suffice inside a tile, and divide faster."""
    wide, narrow = ir.IntegerType.get_signless(64), ir.IntegerType.get_signless(32)
    place = kb.emit("arith.trunci", (place,), narrow)
    divisor = kb.constant(dim, narrow)
    parts = [kb.emit(name, (place, divisor)) for name in ("arith.divui", "arith.remui")]
    row, inside = (kb.emit("arith.extui", (part,), wide) for part in parts)
    return row, inside


class ColumnTile:
    """Rows of the column buffers in workgroup memory: those of one column side by side, columns one after the other."""

    def __init__(self, sources: Sequence[Source], *, columns: int, step: int) -> None:
        rows = [(source, source.kind.shape[1], element_bytes(source.kind.element_type)) for source in sources]
        self.offsets, self.stride = column_layout(rows)
        self.columns = columns
        self.step = step  # what loops over inner dimensions advance by is a multiple of it
        self.bytes = columns * self.stride

    def fill(
        self,
        tile: ir.Value,
        pointers: Mapping[ir.Value, ir.Value],
        *,
        first: ir.Value,
        count: ir.Value,
        threads: int,
        thread: ir.Value,
    ) -> None:
        """Build the copy of `count` columns from global memory by all threads of a block, neighbours side by side."""
        for source, offset in self.offsets.items():
            dim, element = source.kind.shape[1], source.kind.element_type
            size = element_bytes(element)
            start = row_address(pointers[source.buffer], first, dim, element)
            loop = scf.ForOp(thread, imul(count, number(dim)), number(threads), [])
            with ir.InsertionPoint(loop.body):
                place = loop.induction_variable
                value = load_input(byte_address(start, base=imul(place, number(size))), element)
                target = byte_address(tile, base=self._place_in_tile(place, dim, size), offset=offset)
                store_output(scaled(value, source), target)
                scf.YieldOp([])

    def _place_in_tile(self, place: ir.Value, dim: int, size: int) -> ir.Value:
        """Turn the number of an element into its byte offset."""
        column, inside = split_number(place, dim)
        return iadd(imul(column, number(self.stride)), imul(inside, number(size)))

    def load(self, column: ir.Value, source: Source, at: Position, *, columns_after: int) -> ir.Value:
        """Build the load of an element from the column `columns_after` columns after an address.

        The alignment that we can promise lets LLVM join neighbouring loads to one of 16 bytes.
        """
        element = source.kind.element_type
        size = element_bytes(element)
        base = None if at.base is None else imul(at.base, number(size))
        pointer = byte_address(
            column, base=base, offset=columns_after * self.stride + self.offsets[source] + at.offset * size
        )
        lowest = at.offset if at.base is None else at.lowest
        alignment = gcd(self.offsets[source] + lowest * size, VECTOR_BYTES, self.step * size)
        if at.highest is not None:
            alignment = size
        return llvm.LoadOp(element, pointer, alignment=alignment).result


class RowPanel:
    """Long rows of a block in workgroup memory: 16 bytes of each row in turn, so that neighbours read neighbours.

    Args:
        sources: what is loaded by row.
        rows: of a block.
        limit: the most bytes; what does not fit is left out.
        step: loops over inner dimensions advance by a multiple of it.
    """

    def __init__(self, sources: Sequence[Source], *, rows: int, limit: int, step: int) -> None:
        self.rows = rows
        self.step = step
        self.offsets: dict[Source, int] = {}
        self.bytes = 0
        for source in sorted(sources, key=lambda source: int(source.kind.shape[1])):
            kind = source.kind
            size = panel_bytes(kind.shape[1], rows=rows, element_size=element_bytes(kind.element_type))
            if self.bytes + size <= limit:
                self.offsets[source] = self.bytes
                self.bytes += -(-size // VECTOR_BYTES) * VECTOR_BYTES

    def fill(
        self, panel: ir.Value, pointers: Mapping[ir.Value, ir.Value], *, first: ir.Value, last: ir.Value, threads: int
    ) -> None:
        """Build the copy of rows from global memory by all threads of a block; rows after the last repeat it."""
        for source, offset in self.offsets.items():
            dim, element = source.kind.shape[1], source.kind.element_type
            size = element_bytes(element)
            loop = scf.ForOp(thread_index(), number(dim * self.rows), number(threads), [])
            with ir.InsertionPoint(loop.body):
                row, inside = split_number(loop.induction_variable, dim)
                start = row_address(pointers[source.buffer], imin(iadd(first, row), last), dim, element)
                value = load_input(byte_address(start, base=imul(inside, number(size))), element)
                vector, rest = split_number(inside, self._lanes(source))
                place = iadd(
                    iadd(imul(vector, number(self._stride(source))), imul(row, number(self._bytes(source)))),
                    imul(rest, number(size)),
                )
                store_output(scaled(value, source), byte_address(panel, base=place, offset=offset))
                scf.YieldOp([])

    def _lanes(self, source: Source) -> int:
        """Give the neighbouring elements of a row that lie side by side."""
        return gcd(VECTOR_BYTES // element_bytes(source.kind.element_type), self.step)

    def _bytes(self, source: Source) -> int:
        return self._lanes(source) * element_bytes(source.kind.element_type)

    def _stride(self, source: Source) -> int:
        return (self.rows + 1) * self._bytes(source)

    def thread_start(self, panel: ir.Value, source: Source, thread: ir.Value) -> ir.Value:
        """Build the address from which a thread loads."""
        return byte_address(panel, base=imul(thread, number(self._bytes(source))))

    def load(self, thread_start: ir.Value, source: Source, at: Position, *, rows_after: int) -> ir.Value:
        """Build the load of an element of the row `rows_after` rows after that of a thread's address."""
        element = source.kind.element_type
        size = element_bytes(element)
        # A loop index is a multiple of the lanes after what the lowest position tells.
        behind = 0 if at.base is None else (at.lowest - at.offset) % self._lanes(source)
        vector, lane = divmod(at.offset + behind, self._lanes(source))
        base = None
        if at.base is not None:
            base = imul(isub(at.base, number(behind)), number(self._stride(source) // self._lanes(source)))
        offset = self.offsets[source] + vector * self._stride(source) + rows_after * self._bytes(source) + lane * size
        pointer = byte_address(thread_start, base=base, offset=offset)
        return llvm.LoadOp(element, pointer, alignment=gcd(lane * size, self._bytes(source))).result


def panel_bytes(dim: int, *, rows: int, element_size: int) -> int:
    """Give the most that a panel takes: whole vectors, and one row more, to spread the threads that fill it."""
    lanes = VECTOR_BYTES // element_size
    return -(-dim // lanes) * lanes * (rows + 1) * element_size
