"""Sums, products and extrema of each component, on a GPU."""

from collections.abc import Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import COMPENSATED_COMBINERS, COMPONENT_COMBINERS, any_of, compensated_total, rarely
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import accumulator_type, is_blocked, is_compensated
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import ReadSaved, Result, Saved, State, fold, widened
from pylazy.compiler.nests.gpu_factors import factor_product, product

#: Kinds that a factor may leave.
_LINEAR_KINDS = frozenset({"sum", "mean"})
#: The operation of an extremum, which lets NaN through.
_EXTREMA = {"min": "arith.minimumf", "max": "arith.maximumf"}


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
        bests = [fold(_EXTREMA[self.kind], values) for values in blocks]
        states = self._states(state)
        if self.index is None:
            return [fold(_EXTREMA[self.kind], (old[0], best)) for old, best in zip(states, bests, strict=True)]
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
