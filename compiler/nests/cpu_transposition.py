"""Rows between memory, where the elements of a row are neighbours, and panels, where the rows are: by shuffles."""

from collections.abc import Callable, Sequence

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.cpu_memory import (
    CACHE_LINE_BYTES,
    Panel,
    address,
    load,
    load_upwards,
    prefetch,
    shuffle,
    store,
)
from pylazy.compiler.nests.integers import element_bytes, for_range, iadd, imin, imul, number

#: Rows up to this long are loaded as one long vector and taken apart; longer ones are transposed square by square.
WIDE_DIM = 8
#: Shuffles work within groups of 16 bytes, or exchange such groups, in one instruction.
_GROUP_BYTES = 16
#: Rows and slots of one square fill vectors of this size, which every level has or splits into two.
_SQUARE_BYTES = 32
_MAX_SQUARE = 8


def pack_rows(panel: Panel, source: ir.Value, first_row: ir.Value, last_row: ir.Value) -> None:
    """Fill a panel from rows of a buffer: many at once where all of them exist, else by `Panel.pack`."""
    if panel.lanes == 1 or panel.slots == 0:
        panel.pack(source, first_row, last_row)
        return
    _if_rows_exist(
        panel,
        first_row,
        iadd(last_row, number(1)),
        lambda: _pack_whole(panel, source, first_row),
        lambda: panel.pack(source, first_row, last_row),
    )


def unpack_rows(
    panel: Panel,
    target: ir.Value,
    first_row: ir.Value,
    rows: ir.Value,
    *,
    slots: int,
    convert: "Callable[[ir.Value], ir.Value] | None" = None,
) -> None:
    """Write the first `slots` slots to rows of a buffer: single ones as vectors where all rows exist.

    See `Panel.unpack`; `convert` has to take vectors too.
    """
    if slots != 1 or panel.lanes == 1:
        panel.unpack(target, first_row, rows, slots=slots, convert=convert)
        return

    def write_whole() -> None:
        for row in range(panel.width // panel.lanes):
            value = panel.read(Position(0), row)
            value = value if convert is None else convert(value)
            store(value, address(target, kb.element_type(value.type), base=first_row, offset=row * panel.lanes))

    _if_rows_exist(
        panel,
        first_row,
        rows,
        write_whole,
        lambda: panel.unpack(target, first_row, rows, slots=1, convert=convert),
    )


def fill_rows(
    panel: Panel, target: ir.Value, first_row: ir.Value, rows: ir.Value, fill: Callable[[Panel], None]
) -> None:
    """Write single slots to rows of a buffer: `fill` does it at once where all rows exist, else to the panel first."""
    behind = iadd(first_row, number(panel.width))
    start = address(target, panel.element, base=first_row)
    fill(panel.moved_to(kb.select(kb.icompare("sle", behind, rows), start, panel.pointer)))
    branch = scf.IfOp(kb.icompare("slt", rows, behind))
    with ir.InsertionPoint(branch.then_block):
        panel.unpack(target, first_row, rows, slots=1)
        scf.YieldOp([])


def _if_rows_exist(
    panel: Panel, first_row: ir.Value, rows: ir.Value, whole: Callable[[], None], rest: Callable[[], None]
) -> None:
    exist = kb.icompare("sle", iadd(first_row, number(panel.width)), rows)
    branch = scf.IfOp(exist, has_else=True)
    for block, emit in ((branch.then_block, whole), (branch.else_block, rest)):
        with ir.InsertionPoint(block):
            emit()
            scf.YieldOp([])


def _pack_whole(panel: Panel, source: ir.Value, first_row: ir.Value) -> None:
    for row in range(panel.width // panel.lanes):
        first = iadd(first_row, number(row * panel.lanes))
        start = address(source, panel.element, base=imul(first, number(panel.slots)))
        if panel.slots <= WIDE_DIM:
            wide = load_upwards(start, panel.slots * panel.lanes, panel.element)
            for slot in range(panel.slots):
                panel.write(take_component(wide, panel.slots, slot), Position(slot), row)
        else:
            _pack_squares(panel, start, row)


def component_at(wide: ir.Value, dim: int, at: Position) -> ir.Value:
    """Take one component of each row, as `take_component`; where only the running kernel knows which, choose it."""
    if dim == 1 or at.base is None:
        return take_component(wide, dim, at.offset)
    place, chosen = iadd(at.base, number(at.offset)), take_component(wide, dim, 0)
    for component in range(1, dim):
        here = kb.icompare("eq", place, number(component))
        chosen = kb.select(here, take_component(wide, dim, component), chosen)
    return chosen


def take_component(wide: ir.Value, dim: int, component: int) -> ir.Value:
    """Take one component of each row out of many rows of `dim` elements, loaded as they lie in memory."""
    if dim == 1:
        return wide
    lanes = ir.VectorType(wide.type).shape[0] // dim
    return shuffle(wide, wide, [lane * dim + component for lane in range(lanes)])


def _pack_squares(panel: Panel, start: ir.Value, row: int) -> None:
    """Transpose squares of rows and slots; the last overlaps the one before, so that none reads beyond its rows."""
    side = min(panel.lanes, _MAX_SQUARE, _SQUARE_BYTES // element_bytes(panel.element))
    vector = ir.VectorType.get([side], panel.element)

    def pack(slot: ir.Value, lane: ir.Value) -> None:
        source = address(start, panel.element, base=iadd(imul(lane, number(panel.slots)), slot))
        rows = [load(address(source, panel.element, offset=k * panel.slots), vector) for k in range(side)]
        place = address(panel.pointer, panel.element, base=iadd(imul(slot, number(panel.stride)), lane))
        for k, column in enumerate(transpose(rows)):
            store(column, address(place, panel.element, offset=k * panel.stride + row * panel.lanes))
        fetch(iadd(imul(slot, number(panel.lanes)), imul(lane, number(side))))

    def fetch(first: ir.Value) -> None:
        """Ask for as much of the rows that follow: they lie one after the other, which squares hide from a cache."""
        ahead = address(start, panel.element, base=first, offset=panel.lanes * panel.slots)
        for distance in range(0, side * side * element_bytes(panel.element), CACHE_LINE_BYTES):
            prefetch(ahead, number(distance))

    def pack_strip(first_slot: ir.Value) -> None:
        slot = imin(first_slot, number(panel.slots - side))
        for_range(number(0), number(panel.lanes), side, lambda lane: pack(slot, lane))

    for_range(number(0), number(panel.slots), side, pack_strip)


def transpose(rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Transpose a square of as many vectors as each has elements, a power of two, in two-operand shuffles.

    Squares within groups of 16 bytes first, by interleaving; then the groups change places, as in Eklundh's method.
    """
    side = len(rows)
    group = min(side, _GROUP_BYTES // element_bytes(rows[0].type))
    columns: list[ir.Value] = []
    for first in range(0, side, group):
        columns += _transpose_groups(rows[first : first + group])
    distance = group
    while distance < side:
        columns = _exchange(columns, distance)
        distance *= 2
    return columns


def _transpose_groups(rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Transpose the squares that rows have in each of their groups: each stage interleaves one half with the other."""
    group, half = len(rows), len(rows) // 2
    result = list(rows)
    for _ in range(group.bit_length() - 1):
        result = [_interleave(result[k], result[k + half], group, part) for k in range(half) for part in (0, 1)]
    return result


def _interleave(first: ir.Value, second: ir.Value, group: int, part: int) -> ir.Value:
    """Interleave the lower (part 0) or upper halves (part 1) of the groups of two vectors."""
    size = ir.VectorType(first.type).shape[0]
    starts = [start + part * group // 2 for start in range(0, size, group)]
    return shuffle(
        first, second, [start + k + other for start in starts for k in range(group // 2) for other in (0, size)]
    )


def _exchange(rows: Sequence[ir.Value], distance: int) -> list[ir.Value]:
    side = len(rows)
    result = list(rows)
    for k in range(side):
        if k & distance:
            continue
        a, b = rows[k], rows[k + distance]
        low = [lane if not lane & distance else side + lane - distance for lane in range(side)]
        high = [lane + distance if not lane & distance else side + lane for lane in range(side)]
        result[k], result[k + distance] = shuffle(a, b, low), shuffle(a, b, high)
    return result
