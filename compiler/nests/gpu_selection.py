"""The k best for a small k, on a GPU: a sorted list in registers."""

from collections.abc import Callable, Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import any_of, both, either, rarely, selection_hit
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import ReadSaved, Result, Saved, State, fold


class Selection:
    """The k smallest (or, of negated values, largest) of one component: a sorted list in registers."""

    def __init__(self, operation: Any, rows: int, component: Position, *, index: ir.Type) -> None:
        self.value = operation.operands[0]
        self.k = attribute(operation, "k")
        self.negated = attribute(operation, "kind") == "kmax"
        self.element = ir.VectorType(self.value.type).element_type
        self.dim = inner_dim(self.value)
        self.index = index
        self.rows = rows
        self.component = component

    def _lists(self, flat: State) -> list[State]:
        width = 2 * self.k
        return [flat[k : k + width] for k in range(0, len(flat), width)]

    def start(self) -> State:
        """Build the neutral state."""
        empty = [kb.constant(float("nan"), self.element), kb.constant(-1, self.index)]
        return empty * (self.k * self.rows)

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""
        return state

    def close_tile(self, _outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        return inner

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Compare the best of a block with the last entries of the lists; only then look at each column."""
        lists = self._lists(state)
        blocks = [[self._candidate(body, row, column) for column in range(len(columns))] for row in range(len(lists))]
        # The minimum leaves NaN out, which enters only lists that are not full: their last entry is NaN.
        lowest = [fold("arith.minnumf", values) for values in blocks]
        hits = [selection_hit(low, entries[-2]) for low, entries in zip(lowest, lists, strict=True)]

        def look() -> tuple[ir.Value, ...]:
            offers = [self._offer_all(*pair, columns[0]) for pair in zip(blocks, lists, strict=True)]
            return tuple(slot for entries in offers for slot in entries)

        return list(rarely(any_of(hits), look, tuple(state)))

    def _offer_all(self, values: Sequence[ir.Value], entries: State, first: ir.Value) -> State:
        """Build a loop over the columns of a block: in registers, which have no index, the values move up by one."""
        count = len(values)
        if count == 1:
            return self._offer(values[0], lambda: first, entries)
        narrow = first.type
        bounds = [kb.constant(bound, narrow) for bound in (0, count, 1)]
        loop = scf.ForOp(*bounds, [*values, *entries])
        with ir.InsertionPoint(loop.body):
            carried = list(loop.inner_iter_args)
            following = [*carried[1:count], carried[0]]

            def column() -> ir.Value:
                return kb.emit("arith.addi", (first, loop.induction_variable))

            scf.YieldOp([*following, *self._offer(carried[0], column, carried[count:])])
        return list(loop.results)[count:]

    def _candidate(self, body: BodyElements, row: int, column: int) -> ir.Value:
        value = body.element(self.value, self.component, row, column)
        return kb.neg(value) if self.negated else value

    def _offer(self, value: ir.Value, column: Callable[[], ir.Value], entries: State) -> State:
        """Let a value in whose column comes after those of the entries."""
        hit = selection_hit(value, entries[-2])
        return list(rarely(hit, lambda: _inserted(value, column(), entries), tuple(entries)))

    def results(self, state: State, _count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""
        found = []
        for row, entries in enumerate(self._lists(state)):
            for rank, (value, index) in enumerate(zip(entries[0::2], entries[1::2], strict=True)):
                at = self.component.shifted(rank * self.dim)
                found.append(Result(row, at, kb.neg(value) if self.negated else value, index))
        return found

    def save(self, state: State) -> list[Saved]:
        """Give the numbers of an unfinished state."""
        return [
            Saved(row, part, self.component.shifted(rank * self.dim), entries[2 * rank + offset])
            for row, entries in enumerate(self._lists(state))
            for rank in range(self.k)
            for offset, part in enumerate(("values", "indices"))
        ]

    def merge(self, state: State, saved: Sequence[ReadSaved], /) -> State:
        """Let saved lists of one row in: columns are read of the values that enter the list."""
        wide = ir.IntegerType.get_signless(64)
        for read in saved:
            loop = scf.ForOp(*[kb.constant(bound, wide) for bound in (0, self.k * self.dim, self.dim)], state)
            with ir.InsertionPoint(loop.body):
                base = loop.induction_variable
                if self.component.base is not None:
                    base = kb.emit("arith.addi", (base, self.component.base))
                at = Position(self.component.offset, base)

                def column(read: ReadSaved = read, at: Position = at) -> ir.Value:
                    return read("indices", at)

                scf.YieldOp(self._offer(read("values", at), column, list(loop.inner_iter_args)))
            state = list(loop.results)
        return state


def _inserted(value: ir.Value, column: ir.Value, entries: State) -> tuple[ir.Value, ...]:
    """Build a sorted list with a new entry: of two neighbours that it stands before, the first moves to the second.

    On a tie the entry stays. A number stands before NaN and empty entries, NaN before empty ones; that an empty entry
    takes the place of another changes nothing.
    """
    is_number = kb.compare("ord", value, value)
    result: list[ir.Value] = []
    before: tuple[ir.Value, ir.Value, ir.Value] | None = None
    for entry, index in zip(entries[0::2], entries[1::2], strict=True):
        empty = kb.icompare("eq", index, kb.constant(-1, index.type))
        stands = both(kb.compare("ult", value, entry), either(is_number, empty))
        moved = (value, column)
        if before is not None:
            moved = (kb.select(before[0], before[1], value), kb.select(before[0], before[2], column))
        result += [kb.select(stands, moved[0], entry), kb.select(stands, moved[1], index)]
        before = (stands, entry, index)
    return tuple(result)
