"""How a CPU kernel holds the state of one accumulation: in registers while it is small, in stack panels when it is not.

All accumulators have the same verbs, in the order in which a loop nest calls them: `start`, then for each chunk of
columns `open_chunk`, `step` for each block of columns, `close_chunk`; at the end `finish` writes results to panels, or
`save` writes the unfinished state, from which `restore` and `merge` go on in another kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import (
    COMPENSATED_COMBINERS,
    COMPONENT_COMBINERS,
    ExponentialState,
    any_lane,
    compensated_total,
    exponential_merge,
    exponential_neutral,
    exponential_raise,
    exponential_weight,
    logsumexp_finish,
    softmax_finish,
)
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.accumulations import (
    accumulator_type,
    attribute_segments,
    is_blocked,
    is_compensated,
    state_registers,
)
from pylazy.compiler.nests.body_elements import BodyElements, Position, inner_dim
from pylazy.compiler.nests.cpu_memory import Panel, for_range, number

Carried = list[ir.Value]


@dataclass(frozen=True)
class Shape:
    """What all accumulators of a nest share."""

    lanes: int
    row_vectors: int
    register_limit: int

    def panel(self, slots: int, element: ir.Type) -> Panel:
        """Allocate a panel over the rows of a tile."""
        return Panel(slots, element=element, lanes=self.lanes, row_vectors=self.row_vectors)

    def vector(self, element: ir.Type) -> ir.Type:
        """Give the type of one number in every lane."""
        return ir.VectorType.get([self.lanes], element) if self.lanes > 1 else element


class Accumulator(Protocol):
    """What a loop nest asks of an accumulation."""

    value_slots: int
    index_slots: int
    results: int
    values: "Panel | None"
    indices: "Panel | None"

    def start(self) -> Carried:
        """Build the neutral state."""

    def open_chunk(self, carried: Carried) -> Carried:
        """Begin a chunk of columns."""

    def close_chunk(self, outer: Carried, inner: Carried) -> Carried:
        """End a chunk of columns."""

    def step(self, carried: Carried, body: BodyElements, columns: Sequence[ir.Value]) -> Carried:
        """Let a block of columns in; `columns` are their indices, in every lane."""

    def finish(self, carried: Carried, count: ir.Value) -> None:
        """Write the results to the panels `values` and `indices`."""

    def save(self, carried: Carried) -> None:
        """Write the unfinished state to the panels `values` and `indices`."""

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        """Merge a saved state into this one."""


def make_accumulator(operation: Any, shape: Shape, index: ir.Type) -> Accumulator:
    """Choose the accumulator of an `accumulate` op; stack panels are allocated at once."""
    kind = attribute(operation, "kind")
    in_registers = state_registers(operation) * shape.row_vectors <= shape.register_limit
    if kind in COMPONENT_COMBINERS:
        chosen = RegisterComponents if in_registers else PanelComponents
        return chosen(operation, shape, index, indexed=attribute_segments(operation)[3] == 1)
    if kind in {"logsumexp", "softmax"}:
        return (RegisterExponentials if in_registers else PanelExponentials)(operation, shape)
    from pylazy.compiler.nests.cpu_selection import Selection

    return Selection(operation, shape, index)


class _Components:
    """What the two componentwise accumulators share."""

    def __init__(self, operation: Any, shape: Shape, index: ir.Type, *, indexed: bool) -> None:
        self.value = operation.operands[0]
        self.kind = attribute(operation, "kind")
        combiners = COMPENSATED_COMBINERS if is_compensated(operation) else COMPONENT_COMBINERS
        self.combiner = combiners[self.kind]
        self.blocked = is_blocked(operation)
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

    def finish(self, carried: Carried, count: ir.Value) -> None:
        for (component, row), state in zip(self._places(), self._states(carried), strict=True):
            self.write((self.total(state, count), *state[1:]), Position(component), row)

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
            _for_slots(self.dim, self.shape, lambda at, row: panel.write(value, at, row))

    def start(self) -> Carried:
        state = self.neutral()
        _for_slots(self.dim, self.shape, lambda at, row: self.write(state, at, row))
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

            _for_slots(self.dim, self.shape, add_up)
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

    def finish(self, carried: Carried, count: ir.Value) -> None:
        values = self.values
        if values is not None:
            _for_slots(
                self.dim,
                self.shape,
                lambda at, row: values.write(self.total(self.read(values, None, at, row), count), at, row),
            )

    def save(self, carried: Carried) -> None:
        """The state is in the panels already."""

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        def one(at: Position, row: int) -> None:
            mine = self.read(self.values, self.indices, at, row)
            self.write(self.combiner.merge(mine, self.read(values, indices, at, row)), at, row)

        _for_slots(self.dim, self.shape, one)
        return carried


class _Exponentials:
    """What the two exponential accumulators share: state slots are top, shift, then the sums."""

    def __init__(self, operation: Any, shape: Shape) -> None:
        self.value = operation.operands[0]
        self.kind = attribute(operation, "kind")
        self.weight = operation.operands[1] if attribute_segments(operation)[1] else None
        self.shape = shape
        self.blocked = is_blocked(operation)
        self.element = accumulator_type(operation)
        self.vector = shape.vector(self.element)
        self.weights = inner_dim(self.weight) if self.weight is not None else 1
        self.sums = self.weights + (1 if self.kind == "softmax" else 0)
        self.value_slots = self.sums + 2
        self.index_slots = 0
        self.results = self.weights
        self.values: Panel | None = shape.panel(self.value_slots, self.element)
        self.indices: Panel | None = None

    def formula(self, body: BodyElements, row: int, count: int) -> list[ir.Value]:
        return [widened_lanes(body, self.value, Position(0), row, column, self) for column in range(count)]


class RegisterExponentials(_Exponentials):
    """Exponential accumulation with all sums in registers."""

    def _states(self, carried: Carried) -> list[ExponentialState]:
        width = self.sums + 2
        return [ExponentialState.from_flat(carried[k : k + width]) for k in range(0, len(carried), width)]

    def start(self) -> Carried:
        neutral = exponential_neutral(self.vector, self.sums).flat()
        return [slot for _ in range(self.shape.row_vectors) for slot in neutral]

    def open_chunk(self, carried: Carried) -> Carried:
        if not self.blocked:
            return carried
        zero = kb.constant(0.0, self.vector)
        states = [ExponentialState(s.top, s.shift, (zero,) * self.sums) for s in self._states(carried)]
        return [slot for state in states for slot in state.flat()]

    def close_chunk(self, outer: Carried, inner: Carried) -> Carried:
        if not self.blocked:
            return inner
        pairs = zip(self._states(outer), self._states(inner), strict=True)
        return [slot for a, b in pairs for slot in exponential_merge(a, b).flat()]

    def step(self, carried: Carried, body: BodyElements, columns: Sequence[ir.Value]) -> Carried:
        result: Carried = []
        for row, state in enumerate(self._states(carried)):
            values = self.formula(body, row, len(columns))
            raised = exponential_raise(state, values)
            sums = list(raised.sums)
            for column, value in enumerate(values):
                exponential = exponential_weight(raised, value)
                sums = self._add(sums, exponential, body, row, column)
            result += ExponentialState(raised.top, raised.shift, tuple(sums)).flat()
        return result

    def _add(
        self, sums: list[ir.Value], exponential: ir.Value, body: BodyElements, row: int, column: int
    ) -> list[ir.Value]:
        added = []
        for position, part in enumerate(sums):
            term = exponential
            if self.weight is not None and position < self.weights:
                factor = widened_lanes(body, self.weight, Position(position), row, column, self, role="weight")
                term = kb.mul(exponential, factor)
            added.append(kb.add(part, term))
        return added

    def finish(self, carried: Carried, count: ir.Value) -> None:
        finish = softmax_finish if self.kind == "softmax" else logsumexp_finish
        for row, state in enumerate(self._states(carried)):
            for slot, value in enumerate(finish(state)):
                self._panel().write(value, Position(slot), row)

    def save(self, carried: Carried) -> None:
        for row, state in enumerate(self._states(carried)):
            for slot, value in enumerate(state.flat()):
                self._panel().write(value, Position(slot), row)

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        result: Carried = []
        for row, state in enumerate(self._states(carried)):
            saved = [values.read(Position(slot), row) for slot in range(self.value_slots)] if values else []
            result += exponential_merge(state, ExponentialState.from_flat(saved)).flat()
        return result

    def _panel(self) -> Panel:
        assert self.values is not None
        return self.values


class PanelExponentials(_Exponentials):
    """Exponential accumulation with the maximum and the shift in registers and many sums in stack memory."""

    def __init__(self, operation: Any, shape: Shape) -> None:
        super().__init__(operation, shape)
        self.outer = shape.panel(self.sums, self.element)
        self.inner = shape.panel(self.sums, self.element) if self.blocked else self.outer

    def _states(self, carried: Carried) -> list[ExponentialState]:
        return [ExponentialState(carried[k], carried[k + 1], ()) for k in range(0, len(carried), 2)]

    def _clear(self, panel: Panel) -> None:
        zero = kb.constant(0.0, self.vector)
        _for_slots(self.sums, self.shape, lambda at, row: panel.write(zero, at, row))

    def start(self) -> Carried:
        self._clear(self.outer)
        neutral = exponential_neutral(self.vector, 0)
        return [slot for _ in range(self.shape.row_vectors) for slot in (neutral.top, neutral.shift)]

    def open_chunk(self, carried: Carried) -> Carried:
        if self.blocked:
            self._clear(self.inner)
        return carried

    def close_chunk(self, outer: Carried, inner: Carried) -> Carried:
        if not self.blocked:
            return inner
        return self._merge_panels(outer, inner, self.outer, self.inner)

    def _merge_panels(self, mine: Carried, theirs: Carried, target: Panel, source: Panel, first: int = 0) -> Carried:
        """Merge sums of two maxima: with a unit sum in each state, the merge of the states gives the two factors."""
        one, zero = kb.constant(1.0, self.vector), kb.constant(0.0, self.vector)
        result: Carried = []
        for row, (a, b) in enumerate(zip(self._states(mine), self._states(theirs), strict=True)):
            merged = exponential_merge(
                ExponentialState(a.top, a.shift, (one, zero)), ExponentialState(b.top, b.shift, (zero, one))
            )
            keep, take = merged.sums

            def add_up(at: Position, keep: ir.Value = keep, take: ir.Value = take, row: int = row) -> None:
                scaled = kb.mul(target.read(at, row), keep)
                target.write(kb.add(scaled, kb.mul(source.read(at.shifted(first), row), take)), at, row)

            for_positions(self.sums, add_up)
            result += [merged.top, merged.shift]
        return result

    def step(self, carried: Carried, body: BodyElements, columns: Sequence[ir.Value]) -> Carried:
        result: Carried = []
        exponentials = []
        for row, state in enumerate(self._states(carried)):
            values = self.formula(body, row, len(columns))
            one = kb.constant(1.0, self.vector)
            raised = exponential_raise(ExponentialState(state.top, state.shift, (one,)), values)
            factor = raised.sums[0]
            self._scale(any_lane(kb.compare("une", factor, one)), factor, row)
            exponentials.append([exponential_weight(raised, value) for value in values])
            result += [raised.top, raised.shift]
        self._add(exponentials, body)
        return result

    def _scale(self, condition: ir.Value, factor: ir.Value, row: int) -> None:
        branch = scf.IfOp(condition)
        with ir.InsertionPoint(branch.then_block):
            for_positions(self.sums, lambda at: self.inner.write(kb.mul(self.inner.read(at, row), factor), at, row))
            scf.YieldOp([])

    def _add(self, exponentials: list[list[ir.Value]], body: BodyElements) -> None:
        if self.weight is not None:
            weight = self.weight
            body.prepare(weight)

            def one(nothing: Carried, at: Position) -> Carried:
                for row, terms in enumerate(exponentials):
                    part = self.inner.read(at, row)
                    for column, term in enumerate(terms):
                        factor = widened_lanes(body, weight, at, row, column, self, role="weight")
                        part = kb.add(part, kb.mul(term, factor))
                    self.inner.write(part, at, row)
                return nothing

            body.over_inner(weight, self.weights, [], one)
        for slot in range(self.weights if self.weight is not None else 0, self.sums):
            for row, terms in enumerate(exponentials):
                part = self.inner.read(Position(slot), row)
                for term in terms:
                    part = kb.add(part, term)
                self.inner.write(part, Position(slot), row)

    def finish(self, carried: Carried, count: ir.Value) -> None:
        for row, state in enumerate(self._states(carried)):
            last = self.outer.read(Position(self.sums - 1), row)

            def one(at: Position, shift: ir.Value = state.shift, row: int = row, last: ir.Value = last) -> None:
                part = self.outer.read(at, row)
                whole = ExponentialState(shift, shift, (part,) if self.kind == "logsumexp" else (part, last))
                finish = softmax_finish if self.kind == "softmax" else logsumexp_finish
                assert self.values is not None
                self.values.write(finish(whole)[0], at, row)

            for_positions(self.results, one)

    def save(self, carried: Carried) -> None:
        assert self.values is not None
        panel = self.values
        for row, state in enumerate(self._states(carried)):
            panel.write(state.top, Position(0), row)
            panel.write(state.shift, Position(1), row)
        _for_slots(self.sums, self.shape, lambda at, row: panel.write(self.outer.read(at, row), at.shifted(2), row))

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        assert values is not None
        saved = [values.read(Position(slot), row) for row in range(self.shape.row_vectors) for slot in (0, 1)]
        return self._merge_panels(carried, saved, self.outer, values, first=2)


_UNROLLED_ENTRIES = 16


def lanes_of(
    body: BodyElements, value: ir.Value, at: Position, row: int, column: int, shape: Shape, *, role: str = "formula"
) -> ir.Value:
    """Emit an element, the "formula" or the "weight", as lanes, also where it is the same in all of them."""
    element = body.element(value, at, row, column)
    if shape.lanes > 1 and not isinstance(element.type, ir.VectorType):
        element = kb.emit("vector.broadcast", (element,), shape.vector(element.type))
    return element if body.on_accumulate is None else body.on_accumulate(role, element)


def widened_lanes(
    body: BodyElements,
    value: ir.Value,
    at: Position,
    row: int,
    column: int,
    state: "_Components | _Exponentials",
    *,
    role: str = "value",
) -> ir.Value:
    """Emit an element as lanes of the type of a state; for its role see `lanes_of`."""
    lanes = lanes_of(body, value, at, row, column, state.shape, role=role)
    if kb.element_type(lanes.type) == state.element:
        return lanes
    return kb.emit("arith.extf", (lanes,), state.shape.vector(state.element))


def for_positions(slots: int, one: Any) -> None:
    """Visit slots, in a loop if they are many."""
    if slots <= _UNROLLED_ENTRIES:
        for slot in range(slots):
            one(Position(slot))
        return
    for_range(number(0), number(slots), 1, lambda slot: one(Position(0, slot)))


def _for_slots(slots: int, shape: Shape, one: Any) -> None:
    """Visit slots of every row vector."""
    for_positions(slots, lambda at: [one(at, row) for row in range(shape.row_vectors)])
