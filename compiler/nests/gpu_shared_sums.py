"""Sums of a number for each pair times a long vector of its column, whose elements neighbouring lanes share.

A lane computes the numbers of its own row and shuffles them to its neighbours; of each vector it reads a part, which it
multiplies for the rows of all of them. So every number is computed once for all elements of a result, and every
element that is read serves several rows.
"""

from collections.abc import Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.dialects.reduction.summation import summation_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import State
from pylazy.compiler.nests.gpu_factors import Factored, product, split_product
from pylazy.compiler.nests.gpu_memory import VECTOR_BYTES
from pylazy.compiler.nests.integers import element_bytes, iadd, imul, number

#: Neighbouring lanes that share their rows: a power of two.
SHARING_LANES = 4
#: Columns in the first level of a sum: its error grows with this, not with the number of columns.
BLOCK_COLUMNS = 1024
_WORD_BITS = 32
_WHOLE_WARP = -1
_LAST_LANE = 31


def shareable_factors(operation: Any, body: BodyElements) -> "Factored | None":
    """Split a sum into numbers of a pair and vectors of its column; None if it is no such sum."""
    if attribute(operation, "kind") != "sum" or summation_of(operation):
        return None
    factored = split_product(operation.operands[0], body.axes)
    if factored is None:
        return None
    vectors = [factor for factor in factored.inner if inner_dim(factor) > 1]
    numbers = [factor for factor in factored.inner if inner_dim(factor) == 1]
    fits = vectors and numbers and not any("r" in body.axes(factor) for factor in vectors)
    return factored if fits else None


def shared_step(element: ir.Type) -> int:
    """Give the elements of a result of which each sharing lane takes one vector."""
    return SHARING_LANES * VECTOR_BYTES // element_bytes(element)


def shuffled(value: ir.Value, distance: int) -> ir.Value:
    """Build the value of the lane whose number differs by an exclusive or; all lanes of the warp have to come here."""
    narrow = ir.IntegerType.get_signless(_WORD_BITS)
    whole = ir.IntegerType.get_signless(value.type.width)
    bits = kb.emit("arith.bitcast", (value,), whole)
    found = None
    for start in range(0, value.type.width, _WORD_BITS):
        shift = kb.constant(start, whole)
        word = bits if whole == narrow else kb.emit("arith.trunci", (kb.emit("arith.shrui", (bits, shift)),), narrow)
        word = _shuffled_word(word, distance)
        if whole != narrow:
            word = kb.emit("arith.shli", (kb.emit("arith.extui", (word,), whole), shift))
        found = word if found is None else kb.emit("arith.ori", (found, word))
    return kb.emit("arith.bitcast", (found,), value.type)


def _shuffled_word(word: ir.Value, distance: int) -> ir.Value:
    numbers = [kb.constant(entry, word.type) for entry in (_WHOLE_WARP, distance, _LAST_LANE)]
    return ir.Operation.create(
        "llvm.call_intrinsic",
        results=[word.type],
        operands=[numbers[0], word, *numbers[1:]],
        attributes={
            "intrin": ir.StringAttr.get("llvm.nvvm.shfl.sync.bfly.i32"),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([4, 0]),
            "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
        },
    ).results[0]


class SharedSums:
    """Sums of some elements of a result for the rows of all sharing lanes; a state lasts for `BLOCK_COLUMNS` columns.

    Args:
        operation: the accumulation.
        factored: its value, as `shareable_factors` split it.
        first: the first of the elements, a multiple of `shared_step` after a seam.
        count: how many there are, for all lanes together; a multiple of `shared_step`.
        thread: the number of the thread, as i64.
    """

    def __init__(self, operation: Any, factored: Factored, *, first: Position, count: int, thread: ir.Value) -> None:
        self.element = ir.VectorType(operation.operands[0].type).element_type
        self.vectors = [factor for factor in factored.inner if inner_dim(factor) > 1]
        self.numbers = [factor for factor in factored.inner if inner_dim(factor) == 1]
        self.factored = factored
        step = shared_step(self.element)
        vector = step // SHARING_LANES
        lane = kb.emit("arith.andi", (thread, number(SHARING_LANES - 1)))
        base = imul(lane, number(vector))
        if first.base is not None:
            base = iadd(first.base, base)
        #: Elements of this lane, of the shape of the result: neighbouring lanes read neighbouring vectors.
        self.places = [
            Position(first.offset + start + k, base, first.lowest + start + k)
            for start in range(0, count, step)
            for k in range(vector)
        ]

    def start(self) -> State:
        """Build the neutral state: the places of one row, then those of the next."""
        return [kb.constant(0.0, self.element)] * (len(self.places) * SHARING_LANES)

    def open_tile(self, state: State) -> State:
        """Begin a tile of columns."""
        return state

    def close_tile(self, _outer: State, inner: State, /) -> State:
        """End a tile of columns."""
        return inner

    def step(self, state: State, body: BodyElements, columns: Sequence[ir.Value]) -> State:
        """Let a block of columns in."""
        result = list(state)
        own = [
            product([body.element(factor, Position(0), 0, column) for factor in self.numbers])
            for column in range(len(columns))
        ]
        for column, mine in enumerate(own):
            by_row = [mine, *(shuffled(mine, distance) for distance in range(1, SHARING_LANES))]
            for place, at in enumerate(self.places):
                element = product([body.element(factor, at, 0, column) for factor in self.vectors])
                for row, value in enumerate(by_row):
                    slot = row * len(self.places) + place
                    result[slot] = kb.add(result[slot], kb.mul(value, element))
        return result

    def scaled_rows(self, state: State, body: BodyElements) -> list[State]:
        """Build the sums of each row, times the factors that were left out of them."""
        factors = [body.element(factor, Position(0), 0, 0) for factor in self.factored.outer]
        if self.factored.number != 1.0:
            factors.append(kb.constant(self.factored.number, self.element))
        width = len(self.places)
        rows = [state[row * width : (row + 1) * width] for row in range(SHARING_LANES)]
        if not factors:
            return rows
        mine = product(factors)
        by_row = [mine, *(shuffled(mine, distance) for distance in range(1, SHARING_LANES))]
        return [[kb.mul(value, scale) for value in sums] for sums, scale in zip(rows, by_row, strict=True)]
