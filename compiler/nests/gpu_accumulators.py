"""How a GPU thread holds the state of one accumulation: in registers, for a few elements of the result at a time."""

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import (
    COMPENSATED_COMBINERS,
    COMPONENT_COMBINERS,
    any_of,
    both,
    compensated_total,
    either,
    rarely,
    selection_hit,
)
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.accumulations import accumulator_type, is_blocked, is_compensated
from pylazy.compiler.nests.body_elements import BodyElements, Position, inner_dim

State = list[ir.Value]


class Result(NamedTuple):
    """One element of a row's result: which of the rows of a thread, where in the row, its number, its column."""

    row: int
    at: Position
    value: "ir.Value | None"
    position: "ir.Value | None" = None


class Saved(NamedTuple):
    """One number of an unfinished state: of which row, in "values" or "indices", at which place of the row."""

    row: int
    part: str
    at: Position
    value: ir.Value


#: Emit the load of a number of a saved state: the part, the place.
ReadSaved = Callable[[str, Position], ir.Value]


class ColumnAccumulator(Protocol):
    """What a loop over columns asks of an accumulation."""

    def start(self) -> State:
        """Build the neutral state."""

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""

    def close_tile(self, outer: State, inner: State, /) -> State:
        """End a tile of columns."""

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in; `columns` are their indices."""


class GpuAccumulator(ColumnAccumulator, Protocol):
    """What a loop nest asks of an accumulation whose state lasts for all columns."""

    def results(self, state: State, count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""

    def save(self, state: State) -> list[Saved]:
        """Give the numbers of an unfinished state."""

    def merge(self, state: State, saved: Sequence[ReadSaved], /) -> State:
        """Let saved states of one row in, those of later columns after those of earlier ones."""


def index_type() -> ir.Type:
    """Give the type of column numbers in results and in saved states."""
    return ir.IntegerType.get_signless(64)


def widened(value: ir.Value, element: ir.Type) -> ir.Value:
    """Build a number in the type of a state, which may be wider than that of the formula."""
    return value if value.type == element else kb.emit("arith.extf", (value,), element)


def _fold(name: str, values: Sequence[ir.Value]) -> ir.Value:
    return functools.reduce(lambda a, b: kb.emit(name, (a, b)), values)


def product(factors: Sequence[ir.Value]) -> ir.Value:
    """Build the product of one or more numbers."""
    return functools.reduce(kb.mul, factors)


#: Kinds that a factor may leave; and the operation of an extremum, which lets NaN through.
_LINEAR_KINDS = frozenset({"sum", "mean"})
_EXTREMA = {"min": "arith.minimumf", "max": "arith.maximumf"}


#: Numbers that leave a sum: with others, the sum might overflow or underflow where its terms did not.
_FACTORS = (2.0**-32, 2.0**32)


class Factored(NamedTuple):
    """A product whose sum over the columns is `outer` times the sum of the product of `inner`."""

    inner: tuple[ir.Value, ...]
    outer: tuple[ir.Value, ...]
    number: float


def split_product(value: ir.Value, axes: Callable[[ir.Value], str]) -> "Factored | None":
    """Take the factors that do not vary with the column out of a product; None if its numbers might overflow."""
    inner, outer, number = [], [], 1.0
    pending = [value]
    while pending:
        factor = pending.pop()
        owner, name = factor.owner, name_of(factor.owner)
        alone = factor is value or len(list(factor.uses)) == 1
        if name == "arith.mulf" and alone:
            pending += list(owner.operands)
        elif name == "arith.negf" and alone:
            number = -number
            pending += list(owner.operands)
        elif name == "vector.broadcast" and alone:
            pending += list(owner.operands)
        elif name == "arith.constant" and owner.attributes["value"].is_splat:
            number *= owner.attributes["value"].get_splat_value().value
        elif "c" not in axes(factor) and inner_dim(factor) == 1:
            outer.append(factor)
        else:
            inner.append(factor)
    if not inner or not _FACTORS[0] <= abs(number) <= _FACTORS[1]:
        return None
    # Numbers first: they are multiplied once for all elements of a vector.
    return Factored(tuple(sorted(inner, key=inner_dim)), tuple(outer), number)


def factor_product(value: ir.Value, axes: Callable[[ir.Value], str]) -> "Factored | None":
    """Split a product as `split_product` does; None where nothing is taken out."""
    found = split_product(value, axes)
    return found if found is not None and (found.outer or found.number != 1.0) else None


class Components:
    """Componentwise accumulation of some elements of the formula; with a body, sums are of the factored formula."""

    def __init__(
        self,
        operation: Any,
        rows: int,
        places: Sequence[Position],
        *,
        index: "ir.Type | None",
        body: "BodyElements | None" = None,
    ) -> None:
        self.value = operation.operands[0]
        self.dim = inner_dim(self.value)
        self.kind = attribute(operation, "kind")
        self.compensated = is_compensated(operation)
        self.combiner = (COMPENSATED_COMBINERS if self.compensated else COMPONENT_COMBINERS)[self.kind]
        self.blocked = is_blocked(operation)
        self.element = accumulator_type(operation)
        self.index = index
        self.body = body
        # A scheme says which terms are added up: whole ones.
        may_factor = body is not None and self.kind in _LINEAR_KINDS and self.blocked
        self.factored = factor_product(self.value, body.axes) if body is not None and may_factor else None
        self.cells = [(at, row) for at in places for row in range(rows)]

    def _parts(self, at: Position) -> list[tuple[str, Position]]:
        """Say where the numbers of the state of an element are saved, in the order of a state."""
        if self.compensated:
            return [("values", at), ("values", at.shifted(self.dim))]
        return [("values", at)] if self.index is None else [("values", at), ("indices", at)]

    def _states(self, flat: State) -> list[tuple[ir.Value, ...]]:
        width = 2 if self.compensated or self.index is not None else 1
        return [tuple(flat[k : k + width]) for k in range(0, len(flat), width)]

    def start(self) -> State:
        """Build the neutral state."""
        neutral = [kb.constant(self.combiner.neutral, self.element)]
        if self.compensated:
            neutral.append(kb.constant(0.0, self.element))
        elif self.index is not None:
            neutral.append(kb.constant(0, self.index))
        return neutral * len(self.cells)

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""
        return self.start() if self.blocked else state

    def close_tile(self, outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        return self.join(outer, inner) if self.blocked else inner

    def join(self, state: State, other: State, /) -> State:
        """Merge the states of two threads, or of a tile and those before it."""
        pairs = zip(self._states(state), self._states(other), strict=True)
        return [slot for a, b in pairs for slot in self.combiner.merge(a, b)]

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in."""
        shared: dict[tuple[int, int], ir.Value] = {}
        blocks = [
            [widened(self._element(body, at, row, column, shared), self.element) for column in range(len(columns))]
            for at, row in self.cells
        ]
        if self.kind in _EXTREMA and len(columns) > 1:
            return self._step_extrema(state, blocks, columns)
        result: State = []
        for values, old in zip(blocks, self._states(state), strict=True):
            result += self.combiner.accumulate(old, values, columns)
        return result

    def _element(
        self, body: BodyElements, at: Position, row: int, column: int, shared: dict[tuple[int, int], ir.Value]
    ) -> ir.Value:
        """Emit one element of the formula, or of what is left of it without its outer factors."""
        if self.factored is None:
            return body.element(self.value, at, row, column)
        factors = [factor for factor in self.factored.inner if inner_dim(factor) > 1]
        numbers = [factor for factor in self.factored.inner if inner_dim(factor) == 1]
        if numbers and (row, column) not in shared:
            shared[row, column] = product([body.element(factor, Position(0), row, column) for factor in numbers])
        first = [shared[row, column]] if numbers else []
        return product([*first, *(body.element(factor, at, row, column) for factor in factors)])

    def _step_extrema(self, state: State, blocks: Sequence[Sequence[ir.Value]], columns: Sequence[ir.Value]) -> State:
        """Compare the best of a block with the state; only where it may be better, look where it stands."""
        bests = [_fold(_EXTREMA[self.kind], values) for values in blocks]
        states = self._states(state)
        if self.index is None:
            return [_fold(_EXTREMA[self.kind], (old[0], best)) for old, best in zip(states, bests, strict=True)]
        better = "ult" if self.kind == "min" else "ugt"
        hits = [kb.compare(better, best, old[0]) for old, best in zip(states, bests, strict=True)]

        def look() -> tuple[ir.Value, ...]:
            found: State = []
            for values, old in zip(blocks, states, strict=True):
                new = old
                for value, column in zip(values, columns, strict=True):
                    new = self.combiner.accumulate(new, [value], [column])
                found += new
            return tuple(found)

        return list(rarely(any_of(hits), look, tuple(state)))

    def _scaled(self, row: int, value: ir.Value) -> ir.Value:
        """Multiply a sum by the factors that were left out."""
        if self.factored is None or self.body is None:
            return value
        factors = [
            widened(self.body.element(factor, Position(0), row, 0), self.element) for factor in self.factored.outer
        ]
        if self.factored.number != 1.0:
            factors.append(kb.constant(self.factored.number, self.element))
        return product([value, *factors])

    def results(self, state: State, count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""
        scalar = kb.emit("arith.uitofp", (count,), self.element)
        found = []
        for (at, row), final in zip(self.cells, self._states(state), strict=True):
            total = compensated_total(final) if self.compensated else self._scaled(row, final[0])
            index = None if self.index is None else final[1]
            found.append(Result(row, at, self.combiner.finish(total, scalar), index))
        return found

    def save(self, state: State) -> list[Saved]:
        """Give the numbers of an unfinished state."""
        return [
            Saved(row, part, place, value)
            for (at, row), cell in zip(self.cells, self._states(state), strict=True)
            for (part, place), value in zip(self._parts(at), (self._scaled(row, cell[0]), *cell[1:]), strict=True)
        ]

    def merge(self, state: State, saved: Sequence[ReadSaved], /) -> State:
        """Let saved states of one row in."""
        others = [[tuple(read(*part) for part in self._parts(at)) for at, _ in self.cells] for read in saved]
        states = self._states(state)
        for other in others:
            states = [self.combiner.merge(a, b) for a, b in zip(states, other, strict=True)]
        return [slot for cell in states for slot in cell]


#: A sum is scaled anew when a term is larger than 2**16: then it stays far from overflow.
_LARGEST_EXPONENT = 16.0
_LOG2_E = 1.4426950408889634
#: Below all logarithms, and above: finite, so that differences with infinities are no NaN.
_EXTREME_SHIFT = {32: 3.0e38, 64: 1.7e308}


class Exponentials:
    """Exponential accumulation of some elements of the weight (of a single 1 where there is no weight).

    A state is a shift and sums of weight * 2^(value * log2(e) - shift). The shift is raised only when a term becomes
    large, so that a pair costs a multiply-add, an exponential and an addition; log2(e) is rounded, and the logarithm of
    the result is divided by the same number, so that the rounding only counts for differences of values.
    """

    def __init__(self, operation: Any, rows: int, places: Sequence[Position], *, weighted: bool) -> None:
        self.value = operation.operands[0]
        self.weight = operation.operands[1] if weighted else None
        self.normalized = attribute(operation, "kind") == "softmax"
        self.blocked = is_blocked(operation)
        self.element = accumulator_type(operation)
        self.rows = rows
        self.places = list(places)
        self.sums = len(self.places) + (1 if self.normalized else 0)
        self.extreme = _EXTREME_SHIFT[self.element.width]

    def _number(self, value: float) -> ir.Value:
        return kb.constant(value, self.element)

    def _states(self, flat: State) -> list[State]:
        width = self.sums + 1
        return [flat[k : k + width] for k in range(0, len(flat), width)]

    def start(self) -> State:
        """Build the neutral state."""
        return [self._number(-self.extreme), *[self._number(0.0)] * self.sums] * self.rows

    def open_tile(self, state: State) -> State:
        """Keep the shift: it is seldom raised in later tiles."""
        if not self.blocked:
            return state
        return [slot for shift, *_ in self._states(state) for slot in (shift, *[self._number(0.0)] * self.sums)]

    def close_tile(self, outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        return self.join(outer, inner) if self.blocked else inner

    def join(self, state: State, other: State, /) -> State:
        """Merge the states of two threads, or of a tile and those before it."""
        pairs = zip(self._states(state), self._states(other), strict=True)
        return [slot for a, b in pairs for slot in self._merge_states(a, b)]

    def _merge_states(self, state: State, other: State) -> State:
        shift = kb.emit("arith.maxnumf", (state[0], other[0]))
        mine, theirs = (kb.math_op("exp2", kb.sub(part[0], shift)) for part in (state, other))
        sums = [kb.add(kb.mul(a, mine), kb.mul(b, theirs)) for a, b in zip(state[1:], other[1:], strict=True)]
        return [shift, *sums]

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in."""
        blocks = [
            [
                widened(body.element(self.value, Position(0), row, column), self.element)
                for column in range(len(columns))
            ]
            for row in range(self.rows)
        ]
        states = self._states(state)
        highest = [
            _fold("arith.maxnumf", self._exponents(old, values)) for old, values in zip(states, blocks, strict=True)
        ]
        large = [kb.compare("ogt", high, self._number(_LARGEST_EXPONENT)) for high in highest]

        def raise_shifts() -> tuple[ir.Value, ...]:
            pairs = zip(states, blocks, strict=True)
            return tuple(slot for old, values in pairs for slot in self._raise(old, values))

        raised = self._states(list(rarely(any_of(large), raise_shifts, tuple(state))))
        result: State = []
        for row, (old, values) in enumerate(zip(raised, blocks, strict=True)):
            sums = old[1:]
            for column, exponent in enumerate(self._exponents(old, values)):
                exponential = kb.math_op("exp2", exponent)
                sums = [
                    kb.add(part, self._term(exponential, position, body, row, column))
                    for position, part in enumerate(sums)
                ]
            result += [old[0], *sums]
        return result

    def _exponents(self, state: State, values: Sequence[ir.Value]) -> list[ir.Value]:
        below = kb.neg(state[0])
        return [kb.math_op("fma", value, self._number(_LOG2_E), below) for value in values]

    def _raise(self, state: State, values: Sequence[ir.Value]) -> State:
        """Build the state with a shift that is at least the largest of some values; it stays finite."""
        logarithm = kb.mul(_fold("arith.maxnumf", values), self._number(_LOG2_E))
        top = kb.emit("arith.minnumf", (logarithm, self._number(self.extreme)))
        shift = kb.emit("arith.maxnumf", (state[0], top))
        factor = kb.math_op("exp2", kb.sub(state[0], shift))
        return [shift, *(kb.mul(part, factor) for part in state[1:])]

    def _term(self, exponential: ir.Value, position: int, body: BodyElements, row: int, column: int) -> ir.Value:
        if self.weight is None or position >= len(self.places):
            return exponential
        weight = body.element(self.weight, self.places[position], row, column)
        return kb.mul(exponential, widened(weight, self.element))

    def results(self, state: State, _count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""
        return [
            Result(row, at, self._finish(final, part))
            for row, final in enumerate(self._states(state))
            for at, part in zip(self.places, final[1:], strict=False)
        ]

    def _finish(self, state: State, part: ir.Value) -> ir.Value:
        if self.normalized:
            return kb.div(part, state[-1])
        return kb.mul(kb.add(state[0], kb.math_op("log2", part)), self._number(1 / self._rounded_log2_e()))

    def _rounded_log2_e(self) -> float:
        if self.element.width == 64:
            return _LOG2_E
        return float(struct.unpack("f", struct.pack("f", _LOG2_E))[0])

    def _slots(self) -> list[Position]:
        """Give the places of the slots of a saved state, in the order of a state."""
        width = 1 if self.weight is None else inner_dim(self.weight)
        rest = [Position(width)] if self.normalized else []
        return [Position(width + 1), *self.places, *rest]

    def save(self, state: State) -> list[Saved]:
        """Give the numbers of an unfinished state."""
        return [
            Saved(row, "values", at, value)
            for row, final in enumerate(self._states(state))
            for at, value in zip(self._slots(), final, strict=True)
        ]

    def merge(self, state: State, saved: Sequence[ReadSaved], /) -> State:
        """Let saved states of one row in."""
        others = [[read("values", at) for at in self._slots()] for read in saved]
        return functools.reduce(self._merge_states, others, state)


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
        lowest = [_fold("arith.minnumf", values) for values in blocks]
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
