"""The k best for k of any size: a sorted list in global memory, whose last entry a thread keeps in a register."""

from collections.abc import Sequence
from typing import Any, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import any_of, both, either, rarely, selection_hit
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, llvm, scf
from pylazy.compiler.nests.accumulations import destinations, is_selection
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import State, StoredOnTheWay
from pylazy.compiler.nests.gpu_memory import element_address, store_output
from pylazy.compiler.nests.integers import element_bytes, iadd, imin, isub, number

#: Longest list of a kmin or kmax that a thread keeps in registers.
REGISTER_LIST = 16


def is_long_selection(operation: Any) -> bool:
    """Tell whether an `accumulate` selects more than a thread keeps in registers."""
    return is_selection(operation) and attribute(operation, "k") > REGISTER_LIST


class ListNest(Protocol):
    """What lists in memory ask of a nest."""

    rows_per_thread: int

    def row_start(self, buffer: ir.Value, row: int) -> ir.Value:
        """Build the address of a row of the thread in a buffer; to be used where the row is known to exist."""

    def row_exists(self, row: int) -> ir.Value:
        """Build what tells, as one bit, whether a row of the thread is one of the axis."""


class ListedSelection(StoredOnTheWay):
    """The k smallest (or, of negated values, largest) of one component, in the rows of its results.

    Values stand where the result has them, or in scratch if only positions are asked for. A state is the value of the
    last entry, NaN until the list is full, and the number of entries, for each row. Columns come in ascending order, so
    that on a tie the entry that is there stays.
    """

    def __init__(self, operation: Any, nest: ListNest, component: int, *, scratch: "ir.Value | None") -> None:
        self.value = operation.operands[0]
        self.dim = inner_dim(self.value)
        self.k = attribute(operation, "k")
        self.negated = attribute(operation, "kind") == "kmax"
        self.element = ir.VectorType(self.value.type).element_type
        self.nest = nest
        self.component = component
        values, self.indices = destinations(operation)
        self.values = scratch if values is None else values

    def start(self) -> State:
        """Build the neutral state."""
        return [kb.constant(float("nan"), self.element), number(0)] * self.nest.rows_per_thread

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Compare the best of a block with the last entries; only then look at each column."""
        rows = range(self.nest.rows_per_thread)
        blocks = [[self._signed(self._element(body, row, column)) for column in range(len(columns))] for row in rows]
        hits = []
        for row, values in enumerate(blocks):
            lowest = values[0]
            for value in values[1:]:  # leaves NaN out, which enters only lists that are not full
                lowest = kb.emit("arith.minnumf", (lowest, value))
            hits.append(selection_hit(lowest, state[2 * row]))

        def look() -> tuple[ir.Value, ...]:
            found: State = []
            for row, values in enumerate(blocks):
                entry = (state[2 * row], state[2 * row + 1])
                for value, column in zip(values, columns, strict=True):
                    entry = self._offer(value, column, row, entry)
                found += entry
            return tuple(found)

        return list(rarely(any_of(hits), look, tuple(state)))

    def _element(self, body: BodyElements, row: int, column: int) -> ir.Value:
        return body.element(self.value, Position(self.component), row, column)

    def _signed(self, value: ir.Value) -> ir.Value:
        return kb.neg(value) if self.negated else value

    def _offer(
        self, value: ir.Value, column: ir.Value, row: int, entry: tuple[ir.Value, ir.Value]
    ) -> tuple[ir.Value, ir.Value]:
        last, count = entry
        not_full = kb.icompare("slt", count, number(self.k))
        enters = either(not_full, _precedes(value, last))

        def insert() -> tuple[ir.Value, ...]:
            place = self._make_room(value, row, imin(count, number(self.k - 1)))
            self._write(row, place, value, column)
            filled = imin(iadd(count, number(1)), number(self.k))
            full = kb.icompare("eq", filled, number(self.k))
            found = rarely(full, lambda: (self._read(row, number(self.k - 1)),), (last,))
            return found[0], filled

        found = rarely(both(self.nest.row_exists(row), enters), insert, entry)
        return found[0], found[1]

    def _make_room(self, value: ir.Value, row: int, end: ir.Value) -> ir.Value:
        """Move the entries that a value precedes down by one, from the last on; give the place that becomes free."""
        wide = ir.IntegerType.get_signless(64)
        loop = scf.WhileOp([wide], [end])
        before, after = loop.before.blocks.append(wide), loop.after.blocks.append(wide)
        with ir.InsertionPoint(before):
            place = before.arguments[0]
            inside = kb.icompare("slt", number(0), place)
            precedes = rarely(
                inside,
                lambda: (_precedes(value, self._read(row, isub(place, number(1)))),),
                (kb.constant(0, ir.IntegerType.get_signless(1)),),
            )
            scf.ConditionOp(precedes[0], [place])
        with ir.InsertionPoint(after):
            place = after.arguments[0]
            above = isub(place, number(1))
            index = None if self.indices is None else self._load(self.indices, row, above)
            self._write(row, place, self._read(row, above), index)
            scf.YieldOp([above])
        return loop.results[0]

    def _write(self, row: int, place: ir.Value, value: ir.Value, index: "ir.Value | None") -> None:
        for buffer, written in ((self.values, self._signed(value)), (self.indices, index)):
            if buffer is not None and written is not None:
                store_output(written, self._address(buffer, row, place))

    def _read(self, row: int, place: ir.Value) -> ir.Value:
        assert self.values is not None
        return self._signed(self._load(self.values, row, place))

    def _load(self, buffer: ir.Value, row: int, place: ir.Value) -> ir.Value:
        element = ir.MemRefType(buffer.type).element_type
        return llvm.LoadOp(element, self._address(buffer, row, place), alignment=element_bytes(element)).result

    def _address(self, buffer: ir.Value, row: int, place: ir.Value) -> ir.Value:
        base = kb.emit("arith.muli", (place, number(self.dim)))
        element = ir.MemRefType(buffer.type).element_type
        return element_address(self.nest.row_start(buffer, row), Position(self.component, base), element)


def _precedes(value: ir.Value, entry: ir.Value) -> ir.Value:
    """Compare a candidate with an entry that came before it: on a tie the entry stays, numbers precede NaN."""
    number_before_nan = both(kb.compare("uno", entry, entry), kb.compare("ord", value, value))
    return either(number_before_nan, kb.compare("olt", value, entry))
