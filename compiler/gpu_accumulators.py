"""How a GPU thread holds the state of one accumulation: in registers, for a few elements of the result at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.body_elements import BodyElements, Position, inner_dim
from pylazy.compiler.combiners import (
    BLOCKED_KINDS,
    COMPONENT_COMBINERS,
    ExponentialState,
    exponential_merge,
    exponential_neutral,
    exponential_raise,
    exponential_weight,
    logsumexp_finish,
    precedes_in_order,
    rarely,
    selection_hit,
    selection_insert,
    softmax_finish,
)
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir

State = list[ir.Value]


class Result(NamedTuple):
    """One element of a row's result: which of the rows of a thread, where in the row, its number, its column."""

    row: int
    at: Position
    value: "ir.Value | None"
    position: "ir.Value | None" = None


class GpuAccumulator(Protocol):
    """What a loop nest asks of an accumulation."""

    def start(self) -> State:
        """Build the neutral state."""

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""

    def close_tile(self, outer: State, inner: State, /) -> State:
        """End a tile of columns."""

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in; `columns` are their indices."""

    def results(self, state: State, count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""


def index_type() -> ir.Type:
    """Give the type of column numbers."""
    return ir.IntegerType.get_signless(64)


class Components:
    """Componentwise accumulation of some elements of the formula."""

    def __init__(self, operation: Any, rows: int, places: Sequence[Position], *, indexed: bool) -> None:
        self.value = operation.operands[0]
        self.kind = attribute(operation, "kind")
        self.combiner = COMPONENT_COMBINERS[self.kind]
        self.element = ir.VectorType(self.value.type).element_type
        self.indexed = indexed
        self.cells = [(at, row) for at in places for row in range(rows)]

    def _states(self, flat: State) -> list[tuple[ir.Value, ...]]:
        width = 2 if self.indexed else 1
        return [tuple(flat[k : k + width]) for k in range(0, len(flat), width)]

    def start(self) -> State:
        """Build the neutral state."""
        best = kb.constant(self.combiner.neutral, self.element)
        neutral = [best, kb.constant(0, index_type())] if self.indexed else [best]
        return neutral * len(self.cells)

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""
        return self.start() if self.kind in BLOCKED_KINDS else state

    def close_tile(self, outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        if self.kind not in BLOCKED_KINDS:
            return inner
        pairs = zip(self._states(outer), self._states(inner), strict=True)
        return [slot for a, b in pairs for slot in self.combiner.merge(a, b)]

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in."""
        result: State = []
        for (at, row), old in zip(self.cells, self._states(state), strict=True):
            values = [body.element(self.value, at, row, column) for column in range(len(columns))]
            result += self.combiner.accumulate(old, values, columns)
        return result

    def results(self, state: State, count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""
        scalar = kb.emit("arith.uitofp", (count,), self.element)
        return [
            Result(row, at, self.combiner.finish(final[0], scalar), final[1] if self.indexed else None)
            for (at, row), final in zip(self.cells, self._states(state), strict=True)
        ]


class Exponentials:
    """Exponential accumulation of some elements of the weight (of a single 1 where there is no weight)."""

    def __init__(self, operation: Any, rows: int, places: Sequence[Position], *, weighted: bool) -> None:
        self.value = operation.operands[0]
        self.weight = operation.operands[1] if weighted else None
        self.normalized = attribute(operation, "kind") == "softmax"
        self.element = ir.VectorType(self.value.type).element_type
        self.rows = rows
        self.places = list(places)
        self.sums = len(self.places) + (1 if self.normalized else 0)

    def _states(self, flat: State) -> list[ExponentialState]:
        width = self.sums + 2
        return [ExponentialState.from_flat(flat[k : k + width]) for k in range(0, len(flat), width)]

    def start(self) -> State:
        """Build the neutral state."""
        return [*exponential_neutral(self.element, self.sums).flat()] * self.rows

    def open_tile(self, state: State) -> State:
        """Keep the maximum: it seldom grows in later tiles, so that nothing has to be scaled again."""
        zeros = (kb.constant(0.0, self.element),) * self.sums
        return [slot for old in self._states(state) for slot in ExponentialState(old.top, old.shift, zeros).flat()]

    def close_tile(self, outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        pairs = zip(self._states(outer), self._states(inner), strict=True)
        return [slot for a, b in pairs for slot in exponential_merge(a, b).flat()]

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in."""
        result: State = []
        for row, old in enumerate(self._states(state)):
            values = [body.element(self.value, Position(0), row, column) for column in range(len(columns))]
            raised = exponential_raise(old, values)
            sums = list(raised.sums)
            for column, value in enumerate(values):
                exponential = exponential_weight(raised, value)
                sums = [
                    kb.add(part, self._term(exponential, position, body, row, column))
                    for position, part in enumerate(sums)
                ]
            result += ExponentialState(raised.top, raised.shift, tuple(sums)).flat()
        return result

    def _term(self, exponential: ir.Value, position: int, body: BodyElements, row: int, column: int) -> ir.Value:
        if self.weight is None or position >= len(self.places):
            return exponential
        return kb.mul(exponential, body.element(self.weight, self.places[position], row, column))

    def results(self, state: State, _count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""
        finish = softmax_finish if self.normalized else logsumexp_finish
        return [
            Result(row, at, value)
            for row, final in enumerate(self._states(state))
            for at, value in zip(self.places, finish(final), strict=True)
        ]


class Selection:
    """The k smallest (or, of negated values, largest) of one component: a sorted list in registers."""

    def __init__(self, operation: Any, rows: int, component: int) -> None:
        self.value = operation.operands[0]
        self.k = attribute(operation, "k")
        self.negated = attribute(operation, "kind") == "kmax"
        self.element = ir.VectorType(self.value.type).element_type
        self.dim = inner_dim(self.value)
        self.rows = rows
        self.component = component

    def _lists(self, flat: State) -> list[State]:
        width = 2 * self.k
        return [flat[k : k + width] for k in range(0, len(flat), width)]

    def start(self) -> State:
        """Build the neutral state."""
        empty = [kb.constant(float("nan"), self.element), kb.constant(-1, index_type())]
        return empty * (self.k * self.rows)

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""
        return state

    def close_tile(self, _outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        return inner

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in."""
        result: State = []
        for row, old in enumerate(self._lists(state)):
            entries = old
            for column, number in enumerate(columns):
                value = body.element(self.value, Position(self.component), row, column)
                entries = self._offer(kb.neg(value) if self.negated else value, number, entries)
            result += entries
        return result

    def _offer(self, value: ir.Value, column: ir.Value, entries: State) -> State:
        def insert() -> tuple[ir.Value, ...]:
            pairs = list(zip(entries[0::2], entries[1::2], strict=True))
            nowhere = kb.constant(0, ir.IntegerType.get_signless(1))
            changed, _ = selection_insert((value, column, nowhere), pairs, precedes_in_order)
            return tuple(slot for pair in changed for slot in pair)

        return list(rarely(selection_hit(value, entries[-2]), insert, tuple(entries)))

    def results(self, state: State, _count: ir.Value, /) -> list[Result]:
        """Build the finished elements."""
        found = []
        for row, entries in enumerate(self._lists(state)):
            for rank, (value, index) in enumerate(zip(entries[0::2], entries[1::2], strict=True)):
                at = Position(rank * self.dim + self.component)
                found.append(Result(row, at, kb.neg(value) if self.negated else value, index))
        return found
