"""Sums, products and extrema of each component, on a CPU: the state in registers, or in stack panels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import COMPENSATED_COMBINERS, COMPONENT_COMBINERS, compensated_total
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import accumulator_type, is_blocked, is_compensated
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.cpu_accumulators import Carried, Shape, for_slots, widened_lanes

if TYPE_CHECKING:
    from pylazy.compiler.nests.cpu_memory import Panel


class _Components:
    """What the two componentwise accumulators share."""

    def __init__(self, operation: Any, shape: Shape, index: ir.Type, *, indexed: bool) -> None:
        self.value = operation.operands[0]
        self.kind = attribute(operation, "kind")
        combiners = COMPENSATED_COMBINERS if is_compensated(operation) else COMPONENT_COMBINERS
        self.combiner = combiners[self.kind]
        self.blocked = shape.has_chunks and is_blocked(operation)
        self.shape = shape
        self.dim = inner_dim(self.value)
        self.element = accumulator_type(operation)
        self.index = index
        self.indexed = indexed
        self.results = self.dim
        #: Corrections of compensated sums follow the sums.
        self.value_slots = self.dim * (2 if self.combiner.is_compensated else 1)
        self.index_slots = self.dim if indexed else 0
        self.values: Panel | None = shape.panel(self.value_slots, self.element)
        self.indices: Panel | None = shape.panel(self.dim, index) if indexed else None

    def neutral(self) -> tuple[ir.Value, ...]:
        best = kb.constant(self.combiner.neutral, self.shape.vector(self.element))
        if self.combiner.is_compensated:
            return best, best
        return (best, kb.constant(0, self.shape.vector(self.index))) if self.indexed else (best,)

    def terms(self, body: BodyElements, at: Position, row: int, columns: int) -> list[ir.Value]:
        """Emit one component of a block of columns, in the type of the state."""
        return [widened_lanes(body, self.value, at, row, column, self) for column in range(columns)]

    def total(self, state: Sequence[ir.Value], count: ir.Value) -> ir.Value:
        value = compensated_total(tuple(state)) if self.combiner.is_compensated else state[0]
        return self.combiner.finish(value, count)

    def read(self, values: "Panel | None", indices: "Panel | None", at: Position, row: int) -> tuple[ir.Value, ...]:
        state = (values.read(at, row),) if values is not None else ()
        if values is not None and self.combiner.is_compensated:
            return (*state, values.read(at.shifted(self.dim), row))
        return (*state, indices.read(at, row)) if indices is not None else state

    def write(self, state: Sequence[ir.Value], at: Position, row: int, values: "Panel | None" = None) -> None:
        """Write a state to the panels, its value to `values` where that is given."""
        values = values or self.values
        if values is not None:
            values.write(state[0], at, row)
        if values is not None and self.combiner.is_compensated:
            values.write(state[1], at.shifted(self.dim), row)
        if self.indices is not None:
            self.indices.write(state[1], at, row)


class RegisterComponents(_Components):
    """Componentwise accumulation with its state in registers."""

    def _states(self, carried: Carried) -> list[tuple[ir.Value, ...]]:
        width = 2 if self.indexed or self.combiner.is_compensated else 1
        return [tuple(carried[k : k + width]) for k in range(0, len(carried), width)]

    def _places(self) -> list[tuple[int, int]]:
        return [(component, row) for component in range(self.dim) for row in range(self.shape.row_vectors)]

    def start(self) -> Carried:
        return [slot for _ in self._places() for slot in self.neutral()]

    def open_chunk(self, carried: Carried) -> Carried:
        return self.start() if self.blocked else carried

    def close_chunk(self, outer: Carried, inner: Carried) -> Carried:
        if not self.blocked:
            return inner
        pairs = zip(self._states(outer), self._states(inner), strict=True)
        return [slot for a, b in pairs for slot in self.combiner.merge(a, b)]

    def step(self, carried: Carried, body: BodyElements, columns: Sequence[ir.Value]) -> Carried:
        result: Carried = []
        for (component, row), state in zip(self._places(), self._states(carried), strict=True):
            values = self.terms(body, Position(component), row, len(columns))
            result += self.combiner.accumulate(state, values, columns)
        return result

    def finish(self, carried: Carried, count: ir.Value, values: "Panel | None") -> None:
        for (component, row), state in zip(self._places(), self._states(carried), strict=True):
            if values is not None:
                values.write(self.total(state, count), Position(component), row)
            if self.indices is not None:
                self.indices.write(state[1], Position(component), row)

    def save(self, carried: Carried) -> None:
        for (component, row), state in zip(self._places(), self._states(carried), strict=True):
            self.write(state, Position(component), row)

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        result: Carried = []
        for (component, row), state in zip(self._places(), self._states(carried), strict=True):
            result += self.combiner.merge(state, self.read(values, indices, Position(component), row))
        return result


class PanelComponents(_Components):
    """Componentwise accumulation with its state in stack memory, for results of many components."""

    def __init__(self, operation: Any, shape: Shape, index: ir.Type, *, indexed: bool) -> None:
        super().__init__(operation, shape, index, indexed=indexed)
        self.inner = shape.panel(self.dim, self.element) if self.blocked else None

    def _fill(self, panel: "Panel | None", value: ir.Value) -> None:
        if panel is not None:
            for_slots(self.dim, self.shape, lambda at, row: panel.write(value, at, row))

    def start(self) -> Carried:
        state = self.neutral()
        for_slots(self.dim, self.shape, lambda at, row: self.write(state, at, row))
        return []

    def open_chunk(self, carried: Carried) -> Carried:
        self._fill(self.inner, self.neutral()[0])
        return carried

    def close_chunk(self, outer: Carried, inner: Carried) -> Carried:
        panel, values = self.inner, self.values
        if panel is not None and values is not None:

            def add_up(at: Position, row: int) -> None:
                merged = self.combiner.merge((values.read(at, row),), (panel.read(at, row),))
                values.write(merged[0], at, row)

            for_slots(self.dim, self.shape, add_up)
        return inner

    def step(self, carried: Carried, body: BodyElements, columns: Sequence[ir.Value]) -> Carried:
        target = self.inner if self.inner is not None else self.values
        body.prepare(self.value)

        def one(nothing: Carried, at: Position) -> Carried:
            for row in range(self.shape.row_vectors):
                values = self.terms(body, at, row, len(columns))
                state = self.combiner.accumulate(self.read(target, self.indices, at, row), values, columns)
                self.write(state, at, row, target)
            return nothing

        body.over_inner(self.value, self.dim, [], one)
        return carried

    def finish(self, carried: Carried, count: ir.Value, values: "Panel | None") -> None:
        if values is not None:
            for_slots(
                self.dim,
                self.shape,
                lambda at, row: values.write(self.total(self.read(self.values, None, at, row), count), at, row),
            )

    def save(self, carried: Carried) -> None:
        """The state is in the panels already."""

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        def one(at: Position, row: int) -> None:
            mine = self.read(self.values, self.indices, at, row)
            self.write(self.combiner.merge(mine, self.read(values, indices, at, row)), at, row)

        for_slots(self.dim, self.shape, one)
        return carried
