"""How a CPU kernel keeps the k smallest (or largest) values of each row.

Every lane has sorted lists in stack memory, with the k entries of a list side by side. A block of columns is compared
with the last entries of the lists at once; the few candidates that may enter are then taken one by one, and a vector of
entries moves down in one step, since the new entry is `candidate before this ? (candidate before the previous one ?
previous : candidate) : this`. The largest are the smallest of the negated values.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import (
    Precedes,
    any_lane,
    precedes_as_number,
    precedes_by_index,
    precedes_in_order,
    selection_hit,
    selection_insert,
)
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.cpu_accumulators import Carried, Shape, for_positions, lanes_of
from pylazy.compiler.nests.cpu_memory import Panel, address, allocate, broadcast, lane_numbers, load, store
from pylazy.compiler.nests.integers import for_range, i64, iadd, imul, number

_UNROLLED_VECTORS = 4


class Selection:
    """The k smallest of each component: an accumulator, see `cpu_accumulators.Accumulator`."""

    def __init__(self, operation: Any, shape: Shape, index: ir.Type) -> None:
        self.value = operation.operands[0]
        self.k = attribute(operation, "k")
        self.negated = attribute(operation, "kind") == "kmax"
        self.shape = shape
        self.dim = inner_dim(self.value)
        self.element = ir.VectorType(self.value.type).element_type
        self.index = index
        self.value_slots = self.index_slots = self.results = self.k * self.dim
        self.values = shape.panel(self.value_slots, self.element)
        self.indices = shape.panel(self.index_slots, index)
        self.width = shape.lanes * shape.row_vectors
        self.vectors = -(-self.k // shape.lanes)
        # Before the first entry of a list stands -inf, which no candidate precedes; after the last, room for a vector.
        self.stride = 1 + self.vectors * shape.lanes
        self.list_values = allocate(self.dim * self.width * self.stride, self.element)
        self.list_indices = allocate(self.dim * self.width * self.stride, index)
        columns = attribute(operation.operation.parent, "column_step", 1)
        block = Shape(shape.lanes, 1, shape.register_limit)
        self.waiting_values = block.panel(columns, self.element)
        self.waiting_columns = block.panel(columns, index)

    def _list_start(self, component: int, row: int, lane: ir.Value) -> ir.Value:
        """Give the place of the first entry of a list."""
        first = component * self.width + row * self.shape.lanes
        return iadd(imul(iadd(lane, number(first)), number(self.stride)), number(1))

    def start(self) -> Carried:
        """Fill the lists with empty entries: NaN, of column -1."""
        nan, none = kb.constant(float("nan"), self.element), kb.constant(-1, self.index)
        low = kb.constant(-float("inf"), self.element)

        def clear_entry(place: ir.Value) -> None:
            store(nan, address(self.list_values, self.element, base=place))
            store(none, address(self.list_indices, self.index, base=place))

        def clear(position: ir.Value) -> None:
            first = imul(position, number(self.stride))
            for_range(first, iadd(first, number(self.stride)), 1, clear_entry)
            store(low, address(self.list_values, self.element, base=first))

        for_range(number(0), number(self.dim * self.width), 1, clear)
        empty = kb.constant(float("nan"), self.shape.vector(self.element))
        return [empty] * (self.dim * self.shape.row_vectors)

    def open_chunk(self, carried: Carried) -> Carried:
        """Go on with the same lists."""
        return carried

    def close_chunk(self, outer: Carried, inner: Carried) -> Carried:
        """Go on with the same lists."""
        return inner

    def step(self, carried: Carried, body: BodyElements, columns: Sequence[ir.Value]) -> Carried:
        """Compare the best of a block with the last entries of the lists; only then look for the candidates."""
        result = []
        for position, threshold in enumerate(carried):
            component, row = divmod(position, self.shape.row_vectors)
            at = Position(component)
            values = [lanes_of(body, self.value, at, row, column, self.shape) for column in range(len(columns))]
            if self.negated:
                values = [kb.neg(value) for value in values]
            lowest = values[0]
            for value in values[1:]:
                lowest = kb.select(kb.compare("olt", value, lowest), value, lowest)
            branch = scf.IfOp(any_lane(selection_hit(lowest, threshold)), [threshold.type], has_else=True)
            with ir.InsertionPoint(branch.then_block):
                scf.YieldOp([self._take_candidates(values, columns, threshold, component, row)])
            with ir.InsertionPoint(branch.else_block):
                scf.YieldOp([threshold])
            result.append(branch.results[0])
        return result

    def _take_candidates(
        self, values: Sequence[ir.Value], columns: Sequence[ir.Value], threshold: ir.Value, component: int, row: int
    ) -> ir.Value:
        """Visit the candidates of a block, one bit of a mask for each, columns in order."""
        lanes = self.shape.lanes
        bits = ir.IntegerType.get_signless(64 if len(values) * lanes <= 64 else 128)
        mask = kb.constant(0, bits)
        for position, (value, column) in enumerate(zip(values, columns, strict=True)):
            self.waiting_values.write(value, Position(position), 0)
            self.waiting_columns.write(column, Position(position), 0)
            hits = kb.emit("arith.extui", (_as_bits(selection_hit(value, threshold)),), bits)
            mask = kb.emit("arith.ori", (mask, kb.emit("arith.shli", (hits, kb.constant(position * lanes, bits)))))

        def visit(mask: ir.Value, threshold: ir.Value) -> tuple[ir.Value, ir.Value]:
            place = kb.emit("llvm.intr.cttz", (mask,), is_zero_poison=ir.BoolAttr.get(True))
            if bits.width != 64:
                place = kb.emit("arith.trunci", (place,), ir.IntegerType.get_signless(64))
            lane = kb.emit("arith.andi", (place, number(lanes - 1)))
            first = self._list_start(component, row, lane)
            value = load(address(self.waiting_values.pointer, self.element, base=place), self.element)
            column = load(address(self.waiting_columns.pointer, self.index, base=place), self.index)
            self._offer(value, column, first)
            last = load(self._entry(self.list_values, self.element, first, self.k - 1), self.element)
            rest = kb.emit("arith.andi", (mask, kb.emit("arith.subi", (mask, kb.constant(1, bits)))))
            if lanes == 1:
                return rest, last
            numbers = ir.VectorType.get([lanes], i64())
            own = kb.icompare("eq", lane_numbers(numbers), broadcast(lane, numbers))
            return rest, kb.select(own, broadcast(last, threshold.type), threshold)

        return _while_bits(mask, threshold, visit)

    def _entry(self, lists: ir.Value, element: ir.Type, first: ir.Value, offset: int) -> ir.Value:
        return address(lists, element, base=first, offset=offset)

    def _offer(self, value: ir.Value, column: ir.Value, first: ir.Value) -> None:
        """Insert a candidate into the list at `first`, if it is one still; a NaN takes the exact way."""
        last = load(self._entry(self.list_values, self.element, first, self.k - 1), self.element)
        branch = scf.IfOp(selection_hit(value, last))
        with ir.InsertionPoint(branch.then_block):
            exact = scf.IfOp(kb.compare("uno", value, value), has_else=True)
            with ir.InsertionPoint(exact.then_block):
                self._insert_one_by_one(value, column, first, precedes_in_order)
                scf.YieldOp([])
            with ir.InsertionPoint(exact.else_block):
                self._insert_number(value, column, first)
                scf.YieldOp([])
            scf.YieldOp([])

    def _insert_number(self, value: ir.Value, column: ir.Value, first: ir.Value) -> None:
        """Move the entries after the candidate down, a vector at a time, the last vector first."""
        lanes = self.shape.lanes
        values, indices = self.shape.vector(self.element), self.shape.vector(self.index)
        wide_value, wide_column = broadcast(value, values), broadcast(column, indices)

        def move(start: ir.Value) -> None:
            places = [self._entry(self.list_values, self.element, start, offset) for offset in (0, -1)]
            index_places = [self._entry(self.list_indices, self.index, start, offset) for offset in (0, -1)]
            here, before = (load(place, values) for place in places)
            index_here, index_before = (load(place, indices) for place in index_places)
            stands_before = precedes_as_number(wide_value, wide_column, here, index_here)
            moves = precedes_as_number(wide_value, wide_column, before, index_before)
            store(kb.select(stands_before, kb.select(moves, before, wide_value), here), places[0])
            moved = kb.select(moves, index_before, wide_column)
            store(kb.select(stands_before, moved, index_here), index_places[0])

        if self.vectors <= _UNROLLED_VECTORS:
            for vector in reversed(range(self.vectors)):
                move(iadd(first, number(vector * lanes)))
        else:
            end = iadd(first, number((self.vectors - 1) * lanes))
            for_range(
                number(0),
                number(self.vectors),
                1,
                lambda turn: move(kb.emit("arith.subi", (end, imul(turn, number(lanes))))),
            )

    def _insert_one_by_one(self, value: ir.Value, column: ir.Value, first: ir.Value, precedes: Precedes) -> None:
        candidate = [value, column, kb.constant(0, ir.IntegerType.get_signless(1))]
        loop = scf.ForOp(first, iadd(first, number(self.k)), number(1), candidate)
        with ir.InsertionPoint(loop.body):
            places = (
                address(self.list_values, self.element, base=loop.induction_variable),
                address(self.list_indices, self.index, base=loop.induction_variable),
            )
            entry = (load(places[0], self.element), load(places[1], self.index))
            carried = tuple(loop.inner_iter_args)
            changed, onward = selection_insert((carried[0], carried[1], carried[2]), [entry], precedes)
            for place, part in zip(places, changed[0], strict=True):
                store(part, place)
            scf.YieldOp(list(onward))

    def finish(self, carried: Carried, count: ir.Value, values: "Panel | None") -> None:
        """Write the lists to the panels, with the signs of the user."""
        assert values is not None
        self._write_panels(values, negated=self.negated)

    def save(self, carried: Carried) -> None:
        """Write the lists to the panels as they are."""
        self._write_panels(self.values, negated=False)

    def _write_panels(self, values: Panel, *, negated: bool) -> None:
        for component in range(self.dim):

            def copy_list(lane: ir.Value, component: int = component) -> None:
                first = self._list_start(component, 0, lane)

                def copy_entry(at: Position) -> None:
                    place = iadd(first, number(at.offset))
                    if at.base is not None:
                        place = iadd(place, at.base)
                    value = load(address(self.list_values, self.element, base=place), self.element)
                    column = load(address(self.list_indices, self.index, base=place), self.index)
                    slot = imul(kb.emit("arith.subi", (place, first)), number(self.dim * self.width))
                    target = iadd(iadd(slot, lane), number(component * self.width))
                    store(kb.neg(value) if negated else value, address(values.pointer, self.element, base=target))
                    store(column, address(self.indices.pointer, self.index, base=target))

                for_positions(self.k, copy_entry)

            for_range(number(0), number(self.width), 1, copy_list)

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        """Offer every entry of the saved lists, whose columns may lie anywhere among those seen so far."""
        assert values is not None
        assert indices is not None
        for component in range(self.dim):
            for row in range(self.shape.row_vectors):

                def offer_list(lane: ir.Value, component: int = component, row: int = row) -> None:
                    first = self._list_start(component, row, lane)

                    def offer_entry(entry: ir.Value) -> None:
                        at = Position(component, imul(entry, number(self.dim)))
                        value, column = values.read_lane(at, row, lane), indices.read_lane(at, row, lane)
                        self._insert_one_by_one(value, column, first, precedes_by_index)

                    for_range(number(0), number(self.k), 1, offer_entry)

                for_range(number(0), number(self.shape.lanes), 1, offer_list)
        return carried


def _as_bits(condition: ir.Value) -> ir.Value:
    """Pack the lanes of a comparison into an integer."""
    if not isinstance(condition.type, ir.VectorType):
        return condition
    packed = ir.IntegerType.get_signless(ir.VectorType(condition.type).shape[0])
    whole = kb.emit("vector.bitcast", (condition,), ir.VectorType.get([1], packed))
    position = ir.DenseI64ArrayAttr.get([0])
    return kb.emit("vector.extract", (whole,), packed, static_position=position)


def _while_bits(
    mask: ir.Value, state: ir.Value, visit: Callable[[ir.Value, ir.Value], tuple[ir.Value, ir.Value]]
) -> ir.Value:
    """Emit a loop that lasts while bits are set; `visit` gives the mask without its lowest bit, and the new state."""
    types = [mask.type, state.type]
    loop = ir.Operation.create("scf.while", results=types, operands=[mask, state], regions=2)
    before = loop.regions[0].blocks.append(*types)
    with ir.InsertionPoint(before):
        bits, carried = before.arguments
        more = kb.icompare("ne", bits, kb.constant(0, bits.type))
        ir.Operation.create("scf.condition", operands=[more, bits, carried])
    after = loop.regions[1].blocks.append(*types)
    with ir.InsertionPoint(after):
        scf.YieldOp(list(visit(*after.arguments)))
    return loop.results[1]
