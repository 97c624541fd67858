"""Memory of a CPU kernel: addresses, loads and stores, and panels: rows transposed, so that vectors go across rows."""

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir, llvm
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.integers import element_bytes, for_range, i64, iadd, imin, imul, isub, number

_DYNAMIC = -(2**31)
CACHE_LINE_BYTES = 64
#: How far ahead a stream is asked for: by then it has come; twice as far, it would be out of the first cache again.
_BYTES_AHEAD = 6 * 1024


def address(pointer: ir.Value, element: ir.Type, *, base: "ir.Value | None" = None, offset: int = 0) -> ir.Value:
    """Build the address of element `base + offset` after a pointer."""
    pointer_type = ir.Type.parse("!llvm.ptr")
    if base is not None:
        pointer = llvm.GEPOp(pointer_type, pointer, [base], [_DYNAMIC], element, 0).result
    if offset:
        pointer = llvm.GEPOp(pointer_type, pointer, [], [offset], element, 0).result
    return pointer


def load(pointer: ir.Value, value_type: ir.Type) -> ir.Value:
    """Build a load of a scalar, or of consecutive scalars as a vector, aligned as a scalar."""
    return llvm.LoadOp(value_type, pointer, alignment=element_bytes(value_type)).result


def load_upwards(pointer: ir.Value, count: int, element: ir.Type) -> ir.Value:
    """Build a load of a long vector, in pieces of a cache line at most.

    LLVM would take one load apart from its end down to its start, which misleads the prefetcher of a processor: one row
    over columns in memory took twice the time on a Zen 4 where arrays began at multiples of 512 bytes.
    """
    line = CACHE_LINE_BYTES // element_bytes(element)
    size = count if count <= line else math.gcd(count, line)
    piece = ir.VectorType.get([size], element)
    parts = [load(address(pointer, element, offset=first), piece) for first in range(0, count, size)]
    while len(parts) > 1:
        parts += parts[-1:] * (len(parts) % 2)
        size *= 2
        parts = [shuffle(a, b, range(size)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0] if size == count else shuffle(parts[0], parts[0], range(count))


def shuffle(first: ir.Value, second: ir.Value, taken: Sequence[int]) -> ir.Value:
    """Build a vector of chosen elements of two vectors."""
    mask = ir.DenseI64ArrayAttr.get(list(taken))
    result = ir.VectorType.get([len(taken)], kb.element_type(first.type))
    return kb.emit("vector.shuffle", (first, second), result, mask=mask)


def store(value: ir.Value, pointer: ir.Value) -> None:
    """Build a store aligned as a scalar."""
    llvm.StoreOp(value, pointer, alignment=element_bytes(value.type))


def prefetch(pointer: ir.Value, distance: ir.Value, *, cache: int = 2) -> None:
    """Build a request for the cache line `distance` bytes after a pointer, into the first or the second cache."""
    line = address(pointer, ir.IntegerType.get_signless(8), base=distance)
    flags = {"rw": 0, "hint": 4 - cache, "cache": 1}
    integer = ir.IntegerType.get_signless(32)
    ir.Operation.create(
        "llvm.intr.prefetch",
        operands=[line],
        attributes={name: ir.IntegerAttr.get(integer, value) for name, value in flags.items()},
    )


def prefetch_stream(start: ir.Value, size: int) -> None:
    """Build requests for what lies some way behind the `size` bytes from `start`, for a loop that goes along them.

    One row or column needs rows of several elements faster than the processor foresees.
    """
    for distance in range(0, size, CACHE_LINE_BYTES):
        prefetch(start, number(_BYTES_AHEAD + distance), cache=1)


def allocate(count: int, element: ir.Type) -> ir.Value:
    """Build a block of stack memory; to be called in the entry block of a function only."""
    size = kb.constant(count, i64())
    return llvm.AllocaOp(ir.Type.parse("!llvm.ptr"), size, element, alignment=CACHE_LINE_BYTES).result


class Panel:
    """Stack memory for `slots` numbers of each row of a tile: one vector load gives one slot of many rows.

    Attributes:
        width: how many rows it holds.
        stride: from one slot of a row to the next.
    """

    def __init__(self, slots: int, *, element: ir.Type, lanes: int, row_vectors: int) -> None:
        self.slots = slots
        self.element = element
        self.width = self.stride = lanes * row_vectors
        self.lanes = lanes
        self.vector = ir.VectorType.get([lanes], element) if lanes > 1 else element
        self.pointer = allocate(max(1, slots) * self.width, element)

    def _address(self, at: Position, row: int) -> ir.Value:
        base = None if at.base is None else imul(at.base, number(self.stride))
        return address(self.pointer, self.element, base=base, offset=at.offset * self.stride + row * self.lanes)

    def moved_to(self, pointer: ir.Value) -> "Panel":
        """Give a panel of the same shape elsewhere in memory."""
        moved = copy(self)
        moved.pointer = pointer
        return moved

    def vector_from(self, first: ir.Value) -> "Panel":
        """Give the part that holds one row vector, that of the rows from `first`."""
        part = copy(self)
        part.width = self.lanes
        part.pointer = address(self.pointer, self.element, base=first)
        return part

    def read(self, at: Position, row: int) -> ir.Value:
        """Build a load of one slot of one row vector."""
        return load(self._address(at, row), self.vector)

    def read_lane(self, at: Position, row: int, lane: ir.Value) -> ir.Value:
        """Build a load of one slot of one row."""
        return load(address(self._address(at, row), self.element, base=lane), self.element)

    def write(self, value: ir.Value, at: Position, row: int) -> None:
        """Build a store to one slot of one row vector."""
        store(value, self._address(at, row))

    def pack(self, source: ir.Value, first_row: ir.Value, last_row: ir.Value) -> None:
        """Fill the panel from rows of a buffer; rows after the last repeat it, so that no lane reads outside."""

        def copy_row(lane: ir.Value) -> None:
            row = imin(iadd(first_row, lane), last_row)
            start = address(source, self.element, base=imul(row, number(self.slots)))
            self._copy(lane, self.slots, lambda slot, place: store(load(address_of(start, slot), self.element), place))

        def address_of(start: ir.Value, slot: "int | ir.Value") -> ir.Value:
            if isinstance(slot, int):
                return address(start, self.element, offset=slot)
            return address(start, self.element, base=slot)

        for_range(number(0), number(self.width), 1, copy_row)

    def unpack(
        self, target: ir.Value, first_row: ir.Value, rows: ir.Value, *, slots: int, convert: "Any" = None
    ) -> None:
        """Write the first `slots` slots to rows of a buffer, leaving out lanes beyond the last row.

        `convert` turns a number of the panel into one of the buffer, where their types differ.
        """
        count = imin(isub(rows, first_row), number(self.width))

        def copy_row(lane: ir.Value) -> None:
            def move(slot: "int | ir.Value", place: ir.Value) -> None:
                value = load(place, self.element)
                if convert is not None:
                    value = convert(value)
                if isinstance(slot, int):
                    store(value, address(target_row(value.type), value.type, offset=slot))
                else:
                    store(value, address(target_row(value.type), value.type, base=slot))

            def target_row(element: ir.Type) -> ir.Value:
                return address(target, element, base=imul(iadd(first_row, lane), number(slots)))

            self._copy(lane, slots, move)

        for_range(number(0), count, 1, copy_row)

    def _copy(self, lane: ir.Value, slots: int, move: Callable[["int | ir.Value", ir.Value], None]) -> None:
        """Visit the slots of one row: straight code for few, a loop for many."""
        place = address(self.pointer, self.element, base=lane)
        if slots <= _UNROLLED_SLOTS:
            for slot in range(slots):
                move(slot, address(place, self.element, offset=slot * self.stride))
            return

        def visit(slot: ir.Value) -> None:
            move(slot, address(place, self.element, base=imul(slot, number(self.stride))))

        for_range(number(0), number(slots), 1, visit)


_UNROLLED_SLOTS = 8


def in_all_lanes(element: ir.Value, vector: ir.Type) -> ir.Value:
    """Repeat a number in every lane, unless it is a vector already."""
    return element if element.type == vector else broadcast(element, vector)


def lane_numbers(vector: ir.Type) -> ir.Value:
    """Build the vector 0, 1, 2, ..."""
    lanes = ir.VectorType(vector)
    numbers = [ir.IntegerAttr.get(lanes.element_type, lane) for lane in range(lanes.shape[0])]
    return kb.emit("arith.constant", (), vector, value=ir.DenseElementsAttr.get(numbers, vector))


def broadcast(value: ir.Value, lanes_type: ir.Type) -> ir.Value:
    """Build a vector with the same scalar in every lane; a scalar type is left as it is."""
    return kb.emit("vector.broadcast", (value,), lanes_type) if isinstance(lanes_type, ir.VectorType) else value
