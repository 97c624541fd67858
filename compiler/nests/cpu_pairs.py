"""Values that a CPU kernel has for each pair: numbers of rows and columns in lanes, and rows of dense arrays."""

from typing import Any, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, element_of, inner_dim
from pylazy.compiler.nests.cpu_memory import Panel, address, broadcast, in_all_lanes, load, store
from pylazy.compiler.nests.cpu_transposition import WIDE_DIM, take_component
from pylazy.compiler.nests.integers import for_range, iadd, imin, imul, isub, number


class PairNest(Protocol):
    """What loads of pairs ask of a nest."""

    body_block: Any
    extents: "tuple[Any, Any]"
    lane_argument: Any
    column_block: Any
    pair_vectors: "dict[Any, ir.Value]"
    pair_starts: "dict[Any, list[ir.Value]]"

    def first_number(self, argument: ir.Value, row: int, column: int) -> ir.Value:
        """Give the number that an index has in the first lane."""

    def all_lanes_exist(self) -> "ir.Value | bool":
        """Tell whether every lane stands for an index of its axis: known now, or by the running kernel."""

    def last_lane_number(self) -> ir.Value:
        """Give the number behind the last one that a lane may stand for."""

    def buffer_of(self, argument: ir.Value) -> ir.Value:
        """Give the pointer of a buffer."""


def index_element(nest: PairNest, operation: Any, row: int, column: int) -> ir.Value:
    """Emit an index as a float, of all lanes if it runs along them.

    The number of the first lane and the distance of each lane are exact, so their sum is rounded once.
    """
    argument, result = operation.operands[0], element_of(operation.results[0].type)
    first = kb.emit("arith.sitofp", (nest.first_number(argument, row, column),), kb.element_type(result))
    if not isinstance(result, ir.VectorType):
        return first
    distances = [ir.FloatAttr.get(result.element_type, float(lane)) for lane in range(result.shape[0])]
    steps = kb.emit("arith.constant", (), result, value=ir.DenseElementsAttr.get(distances, result))
    return kb.emit("arith.addf", (broadcast(first, result), steps))


def pair_element(nest: PairNest, operation: Any, at: Position, row: int, column: int) -> ir.Value:
    """Emit one element of a `load_pair` in all lanes.

    Lanes along the fast index are consecutive in memory and loaded as one vector, if all of them exist. Otherwise, and
    along the slow index, lane after lane is loaded, those beyond the last index as the last.
    """
    source, _, fast = operation.operands
    dim = ir.MemRefType(source.type).shape[1]
    if not isinstance(element_of(operation.results[0].type), ir.VectorType):
        return _one(nest, operation, at, row, column)
    if nest.lane_argument != fast or at.base is not None or dim > WIDE_DIM:
        return _lane_by_lane(operation, at, _shared_starts(nest, operation, row, column))
    exist = nest.all_lanes_exist()
    if exist is True:
        return _from_vector(nest, operation, at, row, column)
    if exist is False:
        return _lane_by_lane(operation, at, _shared_starts(nest, operation, row, column))
    assert isinstance(exist, ir.Value)
    branch = scf.IfOp(exist, [element_of(operation.results[0].type)], has_else=True)
    with ir.InsertionPoint(branch.then_block):
        scf.YieldOp([take_component(_wide(nest, operation, row, column), dim, at.offset)])
    with ir.InsertionPoint(branch.else_block):
        scf.YieldOp([_lane_by_lane(operation, at, _starts(nest, operation, row, column))])
    return branch.results[0]


def _extent(nest: PairNest, argument: ir.Value) -> ir.Value:
    return nest.extents[0 if argument == nest.body_block.arguments[0] else 1]


def _first_pair(nest: PairNest, operation: Any, row: int, column: int) -> ir.Value:
    """Give the number of the pair of the first lane."""
    _, slow, fast = operation.operands
    first_slow, first_fast = (nest.first_number(argument, row, column) for argument in (slow, fast))
    return iadd(imul(first_slow, _extent(nest, fast)), first_fast)


def _one(nest: PairNest, operation: Any, at: Position, row: int, column: int) -> ir.Value:
    source = operation.operands[0]
    buffer = ir.MemRefType(source.type)
    start = imul(_first_pair(nest, operation, row, column), number(buffer.shape[1]))
    pointer = address(nest.buffer_of(source), buffer.element_type, base=start)
    return load(address(pointer, buffer.element_type, base=at.base, offset=at.offset), buffer.element_type)


def _starts(nest: PairNest, operation: Any, row: int, column: int) -> list[ir.Value]:
    """Give the address of the row of each lane."""
    source, slow, fast = operation.operands
    buffer = ir.MemRefType(source.type)
    lane_argument, extent = nest.lane_argument, _extent(nest, fast)
    last = isub(_extent(nest, lane_argument), number(1))
    first = nest.first_number(lane_argument, row, column)
    other = nest.first_number(slow if lane_argument == fast else fast, row, column)
    starts = []
    for lane in range(element_of(operation.results[0].type).shape[0]):
        place = imin(iadd(first, number(lane)), last)
        pair = iadd(imul(other, extent), place) if lane_argument == fast else iadd(imul(place, extent), other)
        base = imul(pair, number(buffer.shape[1]))
        starts.append(address(nest.buffer_of(source), buffer.element_type, base=base))
    return starts


def _shared_starts(nest: PairNest, operation: Any, row: int, column: int) -> list[ir.Value]:
    """Give the addresses for all elements of one block of columns."""
    key = (operation.operands[0], row, column)
    if key not in nest.pair_starts:
        with ir.InsertionPoint.at_block_begin(nest.column_block):  # also for loops over inner dimensions
            nest.pair_starts[key] = _starts(nest, operation, row, column)
    return nest.pair_starts[key]


def _lane_by_lane(operation: Any, at: Position, starts: list[ir.Value]) -> ir.Value:
    result = element_of(operation.results[0].type)
    element = result.element_type
    loaded = [load(address(start, element, base=at.base, offset=at.offset), element) for start in starts]
    return kb.emit("vector.from_elements", loaded, result)


def _wide(nest: PairNest, operation: Any, row: int, column: int) -> ir.Value:
    """Load the rows of all lanes as they lie in memory."""
    source = operation.operands[0]
    buffer = ir.MemRefType(source.type)
    dim, lanes = buffer.shape[1], element_of(operation.results[0].type).shape[0]
    start = imul(_first_pair(nest, operation, row, column), number(dim))
    pointer = address(nest.buffer_of(source), buffer.element_type, base=start)
    return load(pointer, ir.VectorType.get([dim * lanes], buffer.element_type))


def _from_vector(nest: PairNest, operation: Any, at: Position, row: int, column: int) -> ir.Value:
    key = (operation.operands[0], row, column)
    if key not in nest.pair_vectors:
        with ir.InsertionPoint.at_block_begin(nest.column_block):  # also for loops over inner dimensions
            nest.pair_vectors[key] = _wide(nest, operation, row, column)
    return take_component(nest.pair_vectors[key], ir.MemRefType(operation.operands[0].type).shape[1], at.offset)


def store_pairs(nest: PairNest, operation: Any, panel: Panel, body: BodyElements) -> None:
    """Emit a `store_pair` for all rows and columns of the block of a body.

    Lanes along the fast index are one store, if all of them exist and rows have one element. Otherwise the vectors go
    to the panel, and from there row by row into the buffer.
    """
    value = operation.operands[0]
    dim = inner_dim(value)
    for column in range(body.block.columns):
        for row in range(body.block.row_vectors):
            pair = (row, column)

            def write(at: Position, pair: tuple[int, int] = pair) -> None:
                panel.write(in_all_lanes(body.element(value, at, *pair), panel.vector), at, pair[0])

            if dim == 1 and operation.operands[3] == nest.lane_argument and nest.all_lanes_exist() is True:
                element = in_all_lanes(body.element(value, Position(0), *pair), panel.vector)
                store(element, _place(nest, operation, number(0), row, column))
                continue
            body.over_elements(value, write)
            _unpack(nest, operation, panel, row, column)


def _place(nest: PairNest, operation: Any, lane: ir.Value, row: int, column: int) -> ir.Value:
    """Give the address of the row of one lane."""
    _, target, slow, fast = operation.operands
    buffer = ir.MemRefType(target.type)
    numbers = [nest.first_number(argument, row, column) for argument in (slow, fast)]
    numbers = [
        iadd(first, lane) if argument == nest.lane_argument else first
        for first, argument in zip(numbers, (slow, fast), strict=True)
    ]
    pair = iadd(imul(numbers[0], _extent(nest, fast)), numbers[1])
    return address(nest.buffer_of(target), buffer.element_type, base=imul(pair, number(buffer.shape[1])))


def _unpack(nest: PairNest, operation: Any, panel: Panel, row: int, column: int) -> None:
    first = nest.first_number(nest.lane_argument, row, column)
    count = imin(isub(nest.last_lane_number(), first), number(panel.lanes))

    def copy_row(lane: ir.Value) -> None:
        target = _place(nest, operation, lane, row, column)

        def copy(slot: ir.Value) -> None:
            source = panel.read_lane(Position(0, slot), row, lane)
            store(source, address(target, panel.element, base=slot))

        for_range(number(0), number(panel.slots), 1, copy)

    for_range(number(0), count, 1, copy_row)
