"""Sums of products of tensors: which elements of the operands make one element of the result, and the code for it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_values import Position, element_of, inner_dim

if TYPE_CHECKING:
    from pylazy.compiler.nests.body_elements import BodyElements

#: Products of a block in straight code; more of them become a loop over the summed axes.
_UNROLLED_PRODUCTS = 512
#: Products, of all pairs of a block, in one turn of such a loop.
_TURN_PRODUCTS = 4
#: Elements of a vector that are emitted one after the other at most; see `schedule.UNROLL_LIMIT`.
_STRAIGHT_ELEMENTS = 16


class Axis(NamedTuple):
    """An index of a contraction: its size, and how far apart its neighbours lie in the two operands."""

    size: int
    strides: tuple[int, int]


@dataclass(frozen=True)
class Contraction:
    """The result has one element for each index of the kept axes, the last running fastest, summed over the others."""

    kept: tuple[Axis, ...]
    summed: tuple[Axis, ...]

    @property
    def terms(self) -> int:
        """The number of products in one element."""
        return math.prod(axis.size for axis in self.summed)


def contraction_of(operation: Any) -> Contraction:
    """Read the labels of a `contract_rows` as strides: an operand with labels (a, b) is a matrix by rows."""
    sizes, left, right, kept = (attribute(operation, name) for name in ("sizes", "left", "right", "kept"))
    strides = [_strides(labels, sizes) for labels in (left, right)]

    def axes(labels: Sequence[int]) -> tuple[Axis, ...]:
        return _joined([Axis(sizes[label], (strides[0].get(label, 0), strides[1].get(label, 0))) for label in labels])

    return Contraction(axes(kept), axes([label for label in range(len(sizes)) if label not in kept]))


def all_products(operation: Any) -> int:
    """Count the products of a `contract_rows`."""
    return inner_dim(operation.results[0]) * contraction_of(operation).terms


def unrolled_products(operation: Any) -> int:
    """Count the products in the code of a `contract_rows` for one pair."""
    terms = contraction_of(operation).terms
    elements = min(inner_dim(operation.results[0]), _STRAIGHT_ELEMENTS)
    return elements * (terms if elements * terms <= _UNROLLED_PRODUCTS else _TURN_PRODUCTS)


def _strides(labels: Sequence[int], sizes: Sequence[int]) -> dict[int, int]:
    strides, step = {}, 1
    for label in reversed(labels):
        strides[label] = step
        step *= sizes[label]
    return strides


def _joined(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Make one axis of neighbours that both operands step through as one; an axis of size 1 is none."""
    result: list[Axis] = []
    for axis in axes:
        if axis.size == 1:
            continue
        if result and result[-1].strides == tuple(stride * axis.size for stride in axis.strides):
            result[-1] = Axis(result[-1].size * axis.size, axis.strides)
        else:
            result.append(axis)
    return tuple(result)


def emit_contraction(body: "BodyElements", operation: Any, at: Position, pairs: Sequence[tuple[int, int]]) -> list[Any]:
    """Emit one element of a `contract_rows` for several pairs (row vector, column) of the block."""
    contraction = contraction_of(operation)
    result = element_of(operation.results[0].type)
    places = _operand_places(contraction.kept, at)
    straight = min(inner_dim(operation.results[0]), _STRAIGHT_ELEMENTS)
    elements = straight if at.base is None else 1
    if contraction.terms * elements * len(pairs) <= _UNROLLED_PRODUCTS:
        return _straight(body, operation, contraction.summed, places, pairs)
    if not contraction.summed:
        return _straight(body, operation, (), places, pairs)
    for operand in operation.operands:
        body.prepare(operand)
    zeros = [kb.constant(0.0, result) for _ in pairs]
    return _looped(body, operation, contraction.summed, places, pairs, zeros)


@dataclass(frozen=True)
class _Place:
    """An element of an operand: `base + offset`, where `base` is at least 0 and at most `span`."""

    offset: int = 0
    base: "ir.Value | None" = None
    span: int = 0

    def after(self, by: int) -> "_Place":
        """Give the place `by` elements further."""
        return _Place(self.offset + by, self.base, self.span)

    def plus(self, index: ir.Value, axis: Axis, operand: int) -> "_Place":
        """Give the place at an index of one more axis."""
        stride = axis.strides[operand]
        if stride == 0:
            return self
        scaled = index if stride == 1 else kb.emit("arith.muli", (index, kb.constant(stride, index.type)))
        base = scaled if self.base is None else kb.emit("arith.addi", (self.base, scaled))
        return _Place(self.offset, base, self.span + stride * (axis.size - 1))

    def position(self) -> Position:
        """Give the place as a position that may lie on either side of a seam."""
        if self.base is None:
            return Position(self.offset)
        return Position(self.offset, self.base, self.offset, self.offset + self.span)


def _operand_places(kept: Sequence[Axis], at: Position) -> tuple[_Place, _Place]:
    """Find the first product of an element of the result."""
    places = (_Place(), _Place())
    if at.base is None:
        rest = at.offset
        for axis in reversed(kept):
            rest, index = divmod(rest, axis.size)
            places = (places[0].after(index * axis.strides[0]), places[1].after(index * axis.strides[1]))
        return places
    rest_value = at.base
    if at.offset:
        rest_value = kb.emit("arith.addi", (at.base, kb.constant(at.offset, at.base.type)))
    for number, axis in enumerate(reversed(kept)):
        index_value = rest_value
        if number < len(kept) - 1:
            size = kb.constant(axis.size, rest_value.type)
            index_value = kb.emit("arith.remui", (rest_value, size))
            rest_value = kb.emit("arith.divui", (rest_value, size))
        places = (places[0].plus(index_value, axis, 0), places[1].plus(index_value, axis, 1))
    return places


def _product(body: "BodyElements", operation: Any, places: tuple[_Place, _Place], pair: tuple[int, int]) -> ir.Value:
    first, second = (
        body.element(operand, place.position() if inner_dim(operand) > 1 else Position(0), *pair)
        for operand, place in zip(operation.operands, places, strict=True)
    )
    return kb.mul(first, second)


def _straight(
    body: "BodyElements",
    operation: Any,
    summed: Sequence[Axis],
    places: tuple[_Place, _Place],
    pairs: Sequence[tuple[int, int]],
) -> list[ir.Value]:
    totals: list[ir.Value] = []
    for indices in itertools.product(*(range(axis.size) for axis in summed)):
        there = places
        for index, axis in zip(indices, summed, strict=True):
            there = (there[0].after(index * axis.strides[0]), there[1].after(index * axis.strides[1]))
        products = [_product(body, operation, there, pair) for pair in pairs]
        totals = [kb.add(a, b) for a, b in zip(totals, products, strict=True)] if totals else products
    return totals


def _looped(
    body: "BodyElements",
    operation: Any,
    summed: Sequence[Axis],
    places: tuple[_Place, _Place],
    pairs: Sequence[tuple[int, int]],
    totals: list[ir.Value],
) -> list[ir.Value]:
    """Emit a loop for each summed axis, the last innermost, with several products a turn."""
    axis, *inner = summed
    most = max(1, _TURN_PRODUCTS // len(pairs))
    step = 1 if inner else max(step for step in (1, 2, 4, 8) if axis.size % step == 0 and step <= most)
    integer = ir.IntegerType.get_signless(64)
    loop = scf.ForOp(*[kb.constant(bound, integer) for bound in (0, axis.size, step)], totals)
    with ir.InsertionPoint(loop.body), body.scope():
        carried = list(loop.inner_iter_args)
        start = (places[0].plus(loop.induction_variable, axis, 0), places[1].plus(loop.induction_variable, axis, 1))
        if inner:
            carried = _looped(body, operation, inner, start, pairs, carried)
        else:
            for turn in range(step):
                there = (start[0].after(turn * axis.strides[0]), start[1].after(turn * axis.strides[1]))
                products = [_product(body, operation, there, pair) for pair in pairs]
                carried = [kb.add(a, b) for a, b in zip(carried, products, strict=True)]
        scf.YieldOp(carried)
    return list(loop.results)
