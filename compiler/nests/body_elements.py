"""Element by element emission of a kernel body, for a block of row vectors times columns.

A body computes on vectors whose first dimension is the inner dimension of the formula. Nothing here builds such a
vector: `BodyElements.element` emits the one element that its caller asks for, and through it the elements that it
needs. So a short inner dimension becomes straight-line code, and a long one a loop whose index is part of the position.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_values import LOADS, BodyAxes, Position, element_of, inner_dim
from pylazy.compiler.nests.contraction import contraction_of, emit_contraction
from pylazy.compiler.nests.inner_folds import INNER_FOLDS, Fold, position_number
from pylazy.runtime.errors import InternalError


@dataclass(frozen=True)
class Block:
    """The part of the iteration domain that one body covers: how many row vectors and columns, and how to unroll."""

    row_vectors: int
    columns: int
    unroll_limit: int
    inner_step: int

    @classmethod
    def of(cls, operation: Any, row_vectors: int) -> "Block":
        """Give the block that the schedule chose for a kernel op."""
        return cls(
            row_vectors,
            attribute(operation, "column_step", 1),
            attribute(operation, "unroll_limit", 16),
            attribute(operation, "inner_step", 8),
        )


_LEAVES = LOADS | {"", "reduction.positions", "arith.constant"}
#: Ops whose elements are all of one kind, however their operands were put together.
_SEAMLESS = _LEAVES | {"reduction.contract_rows", "reduction.soft_dtw_rows"}

#: Emit one element of one of `LOADS`: the op, the position, the row vector and the column within the block.
LoadElement = Callable[[Any, Position, int, int], ir.Value]


class BodyElements:
    """Elements of the values of one body, each emitted once in each scope."""

    def __init__(self, body: Any, block: Block, load_element: LoadElement) -> None:
        self.block = block
        self.axes = BodyAxes(body).of
        #: Applied to each element on its way into an accumulator, with its role there, "formula" or "weight".
        self.on_accumulate: Callable[[str, ir.Value], ir.Value] | None = None
        #: For an op with a table, what makes room for it; None where that is the stack.
        self.numbers_of: Callable[[Any], Any] | None = None
        self._body = body
        self._load_element = load_element
        self._seams: dict[ir.Value, set[int]] = {}
        self._scopes: list[dict[Any, Any]] = [{}]

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Forget, at the end, what was emitted inside: a region whose values are not visible after it."""
        self._scopes.append({})
        yield
        self._scopes.pop()

    def element(self, value: ir.Value, at: Position, row: int, column: int) -> ir.Value:
        """Emit one element of a value for one row vector and one column of the block."""
        key = self._key(value, at, row, column)
        for scope in reversed(self._scopes):
            if key in scope:
                return scope[key]
        self._emit_chain(value, at, row, column)
        operation = value.owner
        if isinstance(operation, ir.Block):
            raise InternalError("a body uses an index as a value")
        if name_of(operation) == "reduction.inner_reduce":
            self._reduce_block(operation)
            return self.element(value, at, row, column)
        if name_of(operation) == "reduction.contract_rows":
            self._contract_block(operation, at)
            return self.element(value, at, row, column)
        if name_of(operation) == "reduction.soft_dtw_rows":
            return self._soft_dtw_element(operation, at, row, column)
        emitted = self._emit(operation, value, at, row, column)
        self._scopes[-1][key] = emitted
        return emitted

    def _emit_chain(self, value: ir.Value, at: Position, row: int, column: int) -> None:
        """Emit the elementwise ops below a value, operands first, without recursion: there may be thousands of them."""
        stack = [value]
        while stack and self._is_elementwise(stack[-1]):
            top = stack[-1]
            missing = [
                operand
                for operand in top.owner.operands
                if self._is_elementwise(operand) and not self._is_emitted(self._key(operand, at, row, column))
            ]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            if stack and not self._is_emitted(self._key(top, at, row, column)):
                emitted = self._emit(top.owner, top, at, row, column)
                self._scopes[-1][self._key(top, at, row, column)] = emitted

    def _is_elementwise(self, value: ir.Value) -> bool:
        return name_of(value.owner).startswith(("arith.", "math.")) and name_of(value.owner) != "arith.constant"

    def _is_emitted(self, key: Any) -> bool:
        return any(key in scope for scope in self._scopes)

    def prepare(self, value: ir.Value) -> None:
        """Emit, for the whole block, all parts of a value that do not change along its inner dimension.

        To be called before a loop over that dimension is opened: inside, they would be computed again and again.
        """
        stack, seen = [value], set()
        while stack:
            top = stack.pop()
            name = name_of(top.owner)
            if top in seen or name in _LEAVES:
                continue
            seen.add(top)
            if (inner_dim(top) == 1 and name != "vector.extract_strided_slice") or name == "reduction.soft_dtw_rows":
                self._everywhere(top)
            else:
                stack += reversed(list(top.owner.operands))

    def boundaries(self, value: ir.Value) -> set[int]:
        """Give the positions where the elements of a value change their kind: the seams of concatenations."""
        if not self._seams:
            for operation in self._body.operations:  # operands come before results, so that no question goes deep
                for result in operation.results:
                    if isinstance(result.type, ir.VectorType):
                        self._seams[result] = self._find_boundaries(result)
        return self._seams_of(value)

    def _find_boundaries(self, value: ir.Value) -> set[int]:
        operation = value.owner
        name = name_of(operation)
        if name in _SEAMLESS or inner_dim(value) == 1:
            return set()
        if name == "reduction.concat_rows":
            seam = inner_dim(operation.operands[0])
            second = {seam + inside for inside in self._seams_of(operation.operands[1])}
            return {seam} | self._seams_of(operation.operands[0]) | second
        if name == "vector.extract_strided_slice":
            start, size = attribute(operation, "offsets")[0], inner_dim(value)
            return {seam - start for seam in self._seams_of(operation.operands[0]) if start < seam < start + size}
        seams = [self._seams_of(operand) for operand in operation.operands if inner_dim(operand) > 1]
        return set().union(*seams)

    def _seams_of(self, value: ir.Value) -> set[int]:
        return self._seams.get(value, set())

    def _everywhere(self, value: ir.Value) -> None:
        axes = self.axes(value)
        for column in range(self.block.columns if "c" in axes else 1):
            for row in range(self.block.row_vectors if "r" in axes else 1):
                self.element(value, Position(0), row, column)

    def _key(self, value: ir.Value, at: Position, row: int, column: int) -> Any:
        axes = self.axes(value)
        return (value, at.offset, at.base, row if "r" in axes else -1, column if "c" in axes else -1)

    def _emit(self, operation: Any, value: ir.Value, at: Position, row: int, column: int) -> ir.Value:
        name = name_of(operation)
        operands = list(operation.operands)
        if name in LOADS:
            return self._load_element(operation, at, row, column)
        if name == "arith.constant":
            return _constant_element(operation, value, at)
        if name == "reduction.positions":
            return position_number(at, element_of(value.type))
        if name == "reduction.concat_rows":
            seam = inner_dim(operands[0])
            if at.straddles(seam):
                return self._either_side(operands, seam, at, row, column)
            place = at.offset if at.base is None else at.lowest
            if place < seam:
                return self._part(operands[0], at, row, column)
            return self._part(operands[1], at.shifted(-seam), row, column)
        if name == "vector.extract_strided_slice":
            return self.element(operands[0], at.shifted(attribute(operation, "offsets")[0]), row, column)
        result = element_of(value.type)
        if name == "vector.broadcast":
            source = Position(0) if inner_dim(operands[0]) == 1 else at
            scalar = self.element(operands[0], source, row, column)
            if scalar.type == result:
                return scalar
            return kb.emit("vector.broadcast", (scalar,), result)
        elements = [self.element(operand, at, row, column) for operand in operands]
        attributes = {key: operation.attributes[key] for key in operation.attributes}
        return ir.Operation.create(name, results=[result], operands=elements, attributes=attributes).results[0]

    def _either_side(self, operands: Sequence[ir.Value], seam: int, at: Position, row: int, column: int) -> ir.Value:
        """Emit an element of a concatenation where only the running kernel knows on which side of the seam it lies."""
        assert at.base is not None
        place = kb.emit("arith.addi", (at.base, kb.constant(at.offset, at.base.type)))
        last, zero = (kb.constant(bound, place.type) for bound in (seam - 1, 0))
        beyond = kb.emit("arith.subi", (place, kb.constant(seam, place.type)))
        before, after = kb.emit("arith.minsi", (place, last)), kb.emit("arith.maxsi", (beyond, zero))
        first = self._part(operands[0], Position(0, before, 0, seam - 1), row, column)
        second = self._part(operands[1], Position(0, after, 0, inner_dim(operands[1]) - 1), row, column)
        return kb.select(kb.icompare("sle", place, last), first, second)

    def _part(self, value: ir.Value, at: Position, row: int, column: int) -> ir.Value:
        """Emit an element of an operand of a concatenation; one of a single element has it at a constant place."""
        return self.element(value, at if inner_dim(value) > 1 else Position(0), row, column)

    def _pairs(self, value: ir.Value) -> list[tuple[int, int]]:
        """List the row vectors and columns of the block that a value differs in."""
        axes = self.axes(value)
        return [
            (row, column)
            for column in range(self.block.columns if "c" in axes else 1)
            for row in range(self.block.row_vectors if "r" in axes else 1)
        ]

    def _contract_block(self, operation: Any, at: Position) -> None:
        """Emit one element of a contraction for every row vector and column of the block at once, sharing loops."""
        result = operation.results[0]
        pairs = self._pairs(result)
        elements = emit_contraction(self, operation, at, pairs)
        for (row, column), element in zip(pairs, elements, strict=True):
            self._scopes[-1][self._key(result, at, row, column)] = element

    def _soft_dtw_element(self, operation: Any, at: Position, row: int, column: int) -> ir.Value:
        """Emit one element of a soft-DTW, and all of it where this scope asks for the first one."""
        from pylazy.compiler.nests.soft_dtw import Table, emit_soft_dtw

        key = ("all of it", *self._key(operation.results[0], Position(0), row, column))
        found = next((scope[key] for scope in reversed(self._scopes) if key in scope), None)
        if found is None:
            found = self._scopes[-1][key] = emit_soft_dtw(self, operation, row, column)
        return found.read_at(at) if isinstance(found, Table) else found

    def _reduce_block(self, operation: Any) -> None:
        """Emit an inner reduction for every row vector and column of the block at once, sharing loads."""
        value, result = operation.operands[0], operation.results[0]
        pairs = self._pairs(result)
        fold = INNER_FOLDS[attribute(operation, "kind")]
        dim = inner_dim(value)
        if dim <= self.block.unroll_limit:
            states = [fold.first(self.element(value, Position(0), *pair)) for pair in pairs]
            for offset in range(1, dim):
                at = Position(offset)
                states = [
                    fold.step(state, self.element(value, at, *pair), at)
                    for state, pair in zip(states, pairs, strict=True)
                ]
        else:
            states = self._reduce_in_loops(value, pairs, fold, dim)
        for (row, column), state in zip(pairs, states, strict=True):
            self._scopes[-1][self._key(result, Position(0), row, column)] = fold.finish(state)

    def _reduce_in_loops(self, value: ir.Value, pairs: list[tuple[int, int]], fold: Fold, dim: int) -> list[Any]:
        self.prepare(value)
        states = [fold.neutral(element_of(value.type)) for _ in pairs]
        width = len(states[0])

        def step(flat: list[ir.Value], at: Position) -> list[ir.Value]:
            grouped = [tuple(flat[k : k + width]) for k in range(0, len(flat), width)]
            return [
                slot
                for state, pair in zip(grouped, pairs, strict=True)
                for slot in fold.step(state, self.element(value, at, *pair), at)
            ]

        flat = self.over_inner(value, dim, [slot for state in states for slot in state], step)
        return [tuple(flat[k : k + width]) for k in range(0, len(flat), width)]

    def over_inner(
        self,
        value: ir.Value,
        dim: int,
        carried: list[ir.Value],
        step: Callable[[list[ir.Value], Position], list[ir.Value]],
    ) -> list[ir.Value]:
        """Emit loops over an inner dimension, `inner_step` elements a turn, straight code for what remains.

        Where there would be one turn, there are two of half as many: straight code for a whole dimension shares values
        with other code for it, in more registers than there are.
        """
        seams = sorted({0, dim} | {seam for seam in self.boundaries(value) if 0 < seam < dim})
        widest = 1 if self._sums_products(value) else self.block.inner_step
        for low, high in itertools.pairwise(seams):
            width = widest if high - low >= 2 * widest else max(1, widest // 2)
            turns = (high - low) // width
            looped = low + turns * width
            if turns > 1:
                carried = self._inner_loop((low, looped, width), carried, step)
            else:
                looped = low
            for offset in range(looped, high):
                carried = step(carried, Position(offset))
        return carried

    def over_elements(self, value: ir.Value, visit: Callable[[Position], None]) -> None:
        """Emit what is done with each element of a value: straight code for few, loops for many."""
        dim = inner_dim(value)
        if dim <= self.block.unroll_limit:
            for component in range(dim):
                visit(Position(component))
            return

        def step(nothing: list[ir.Value], at: Position) -> list[ir.Value]:
            visit(at)
            return nothing

        self.prepare(value)
        self.over_inner(value, dim, [], step)

    def _sums_products(self, value: ir.Value) -> bool:
        """Tell whether each element is a loop of its own, of which one a turn is enough."""
        seen, stack = {value}, [value]
        while stack:
            operation = stack.pop().owner
            if name_of(operation) == "reduction.contract_rows" and contraction_of(operation).summed:
                return True
            if name_of(operation) in _SEAMLESS:
                continue
            operands = [operand for operand in operation.operands if inner_dim(operand) > 1 and operand not in seen]
            seen.update(operands)
            stack += operands
        return False

    def _inner_loop(
        self,
        bounds: tuple[int, int, int],
        carried: list[ir.Value],
        step: Callable[[list[ir.Value], Position], list[ir.Value]],
    ) -> list[ir.Value]:
        integer = ir.IntegerType.get_signless(64)
        low, high, width = bounds
        loop = scf.ForOp(*[kb.constant(bound, integer) for bound in bounds], carried)
        # Whoever loads a vector at once relies on turns as wide as a block says.
        highest = None if width == self.block.inner_step else high - 1
        with ir.InsertionPoint(loop.body), self.scope():
            inside = list(loop.inner_iter_args)
            for offset in range(width):
                inside = step(inside, Position(offset, loop.induction_variable, low + offset, highest))
            scf.YieldOp(inside)
        return list(loop.results)


def _constant_element(operation: Any, value: ir.Value, at: Position) -> ir.Value:
    dense = operation.attributes["value"]
    if dense.is_splat:
        return kb.constant(dense.get_splat_value().value, element_of(value.type))
    if at.base is not None:
        raise InternalError("a constant vector of unequal elements stands in a loop over its elements")
    lanes = len(dense) // inner_dim(value)
    return kb.constant(dense[at.offset * lanes], element_of(value.type))
