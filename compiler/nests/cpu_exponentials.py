"""Sums of exponentials with a running maximum, on a CPU: the sums in registers, or in stack panels."""

from collections.abc import Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import (
    ExponentialState,
    any_lane,
    exponential_merge,
    exponential_neutral,
    exponential_raise,
    exponential_weight,
    logsumexp_finish,
    softmax_finish,
)
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.accumulations import accumulator_type, attribute_segments, is_blocked
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.cpu_accumulators import Carried, Shape, for_positions, for_slots, widened_lanes
from pylazy.compiler.nests.cpu_memory import Panel


class _Exponentials:
    """What the two exponential accumulators share: state slots are top, shift, then the sums."""

    def __init__(self, operation: Any, shape: Shape) -> None:
        self.value = operation.operands[0]
        self.kind = attribute(operation, "kind")
        self.weight = operation.operands[1] if attribute_segments(operation)[1] else None
        self.shape = shape
        self.blocked = shape.has_chunks and is_blocked(operation)
        self.element = accumulator_type(operation)
        self.vector = shape.vector(self.element)
        self.weights = inner_dim(self.weight) if self.weight is not None else 1
        self.sums = self.weights + (1 if self.kind == "softmax" else 0)
        self.value_slots = self.sums + 2
        self.index_slots = 0
        self.results = self.weights
        self.values = shape.panel(self.value_slots, self.element)
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

    def finish(self, carried: Carried, count: ir.Value, values: "Panel | None") -> None:
        assert values is not None
        finish = softmax_finish if self.kind == "softmax" else logsumexp_finish
        for row, state in enumerate(self._states(carried)):
            for slot, value in enumerate(finish(state)):
                values.write(value, Position(slot), row)

    def save(self, carried: Carried) -> None:
        for row, state in enumerate(self._states(carried)):
            for slot, value in enumerate(state.flat()):
                self.values.write(value, Position(slot), row)

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        result: Carried = []
        for row, state in enumerate(self._states(carried)):
            saved = [values.read(Position(slot), row) for slot in range(self.value_slots)] if values else []
            result += exponential_merge(state, ExponentialState.from_flat(saved)).flat()
        return result


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
        for_slots(self.sums, self.shape, lambda at, row: panel.write(zero, at, row))

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

    def finish(self, carried: Carried, count: ir.Value, values: "Panel | None") -> None:
        assert values is not None
        for row, state in enumerate(self._states(carried)):
            last = self.outer.read(Position(self.sums - 1), row)

            def one(at: Position, shift: ir.Value = state.shift, row: int = row, last: ir.Value = last) -> None:
                part = self.outer.read(at, row)
                whole = ExponentialState(shift, shift, (part,) if self.kind == "logsumexp" else (part, last))
                finish = softmax_finish if self.kind == "softmax" else logsumexp_finish
                values.write(finish(whole)[0], at, row)

            for_positions(self.results, one)

    def save(self, carried: Carried) -> None:
        panel = self.values
        for row, state in enumerate(self._states(carried)):
            panel.write(state.top, Position(0), row)
            panel.write(state.shift, Position(1), row)
        for_slots(self.sums, self.shape, lambda at, row: panel.write(self.outer.read(at, row), at.shifted(2), row))

    def merge(self, carried: Carried, values: "Panel | None", indices: "Panel | None") -> Carried:
        assert values is not None
        saved = [values.read(Position(slot), row) for row in range(self.shape.row_vectors) for slot in (0, 1)]
        return self._merge_panels(carried, saved, self.outer, values, first=2)
