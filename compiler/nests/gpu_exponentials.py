"""Sums of exponentials with a shift, on a GPU."""

import functools
import struct
from collections.abc import Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import any_of, rarely
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import accumulator_type, is_blocked
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import ReadSaved, Result, Saved, State, fold, widened

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
            fold("arith.maxnumf", self._exponents(old, values)) for old, values in zip(states, blocks, strict=True)
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
        logarithm = kb.mul(fold("arith.maxnumf", values), self._number(_LOG2_E))
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
