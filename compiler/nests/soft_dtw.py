"""Soft dynamic time warping of two series, and its derivatives, as loops over a table of costs in memory.

Cuturi and Blondel, Soft-DTW: a differentiable loss function for time-series, ICML 2017. With d_ij = (x_i - y_j)^2,

    R_ij = d_ij - gamma log(exp(-R_ab / gamma) + ...)   over the predecessors (i-1, j-1), (i-1, j) and (i, j-1),

and the value is R of the two ends. Its derivative goes back over the cells: E_ij, that of the value by R_ij, is the sum
over the successors of their E times the share of (i, j) in their logarithm. Run on dual numbers, the same loops give
the product of the Hessian with a vector. Shares are taken relative to the smallest predecessor, so that nothing
overflows and their sum is 1.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, element_of, inner_dim
from pylazy.compiler.nests.cpu_memory import address, allocate, load, store
from pylazy.compiler.nests.dual_numbers import (
    Dual,
    Number,
    add,
    exp,
    from_leaves,
    leaves,
    log,
    mul,
    primal,
    reciprocal,
    select,
    sub,
)
from pylazy.compiler.nests.integers import for_range, iadd, imul, isub, number

_INFINITY = float("inf")


class Numbers(Protocol):
    """Memory for numbers, each a value of the body's type."""

    def load(self, place: ir.Value, scale: int, offset: int) -> ir.Value:
        """Build the load of the number `place * scale + offset`."""

    def store(self, value: ir.Value, place: ir.Value, scale: int, offset: int) -> None:
        """Build the store of the number `place * scale + offset`."""


#: Make room for some numbers of a type.
Allocate = Callable[[int, ir.Type], Numbers]


class StackNumbers:
    """Numbers of all lanes on the stack of a CPU."""

    def __init__(self, count: int, vector: ir.Type) -> None:
        self._vector = vector
        self._lanes = vector.shape[0] if isinstance(vector, ir.VectorType) else 1
        block = ir.InsertionPoint.current.block
        while name_of(block.owner) != "func.func":
            block = block.owner.operation.block
        with ir.InsertionPoint.at_block_begin(block):
            self._pointer = allocate(count * self._lanes, kb.element_type(vector))

    def _address(self, place: ir.Value, scale: int, offset: int) -> ir.Value:
        base = imul(place, number(scale * self._lanes))
        return address(self._pointer, kb.element_type(self._vector), base=base, offset=offset * self._lanes)

    def load(self, place: ir.Value, scale: int, offset: int) -> ir.Value:
        """Build the load of the number `place * scale + offset`."""
        return load(self._address(place, scale, offset), self._vector)

    def store(self, value: ir.Value, place: ir.Value, scale: int, offset: int) -> None:
        """Build the store of the number `place * scale + offset`."""
        store(value, self._address(place, scale, offset))


class Table:
    """`count` numbers, each of the leaves of duals of some depth."""

    def __init__(self, allocate_numbers: Allocate, count: int, vector: ir.Type, *, depth: int = 0) -> None:
        self.depth = depth
        self.width = 1 << depth
        self.numbers = allocate_numbers(count * self.width, vector)

    def read(self, place: ir.Value) -> Number:
        """Build a load."""
        return from_leaves([self.numbers.load(place, self.width, leaf) for leaf in range(self.width)])

    def write(self, place: ir.Value, value: Number) -> None:
        """Build a store."""
        for leaf, part in enumerate(leaves(value, self.depth)):
            self.numbers.store(part, place, self.width, leaf)

    def read_at(self, at: Position) -> ir.Value:
        """Build a load of one element of a vector."""
        return self.read(_place(at))


def _place(at: Position) -> ir.Value:
    return number(at.offset) if at.base is None else iadd(at.base, number(at.offset))


def table_numbers(operation: Any) -> int:
    """Count the numbers that one pair keeps in memory."""
    x, y, _, *along = operation.operands
    n, m = inner_dim(x), inner_dim(y)
    if attribute(operation, "order") == 0:
        return 3 * n + m + 2
    return ((n + 1) * (m + 2) << len(along)) + 2 * (n + m + 1) * (1 + len(along))


def emit_soft_dtw(body: BodyElements, operation: Any, row: int, column: int) -> "ir.Value | Table":
    """Emit a `soft_dtw_rows` for one row vector and one column: its value, or a table of its derivative."""
    return _SoftDtw(body, operation, row, column).emit()


class _SoftDtw:
    """One op for one row vector and one column; `i` and `j` count from 1, so that 0 is before the first cell."""

    def __init__(self, body: BodyElements, operation: Any, row: int, column: int) -> None:
        x, y, gamma, *along = operation.operands
        self.body, self.pair = body, (row, column)
        self.order = attribute(operation, "order")
        self.n, self.m = inner_dim(x), inner_dim(y)
        self.depth = len(along)
        self.vector = element_of(operation.results[0].type)
        self.allocate = StackNumbers if body.numbers_of is None else body.numbers_of(operation)
        self.x, self.y = self._copied(x), self._copied(y)
        self.along = [self._copied(direction) for direction in along]
        self.gamma = self._with_tangents(body.element(gamma, Position(0), row, column), number(self.n + self.m))
        self.inverse = reciprocal(self.gamma)
        columns = 2 if self.order == 0 else self.m + 1
        self.costs = Table(self.allocate, (self.n + 1) * columns, self.vector, depth=self.depth)

    def emit(self) -> "ir.Value | Table":
        self._go_forward()
        if self.order == 0:
            return self.costs.read(self._cell(number(self.n), number(self.m)))
        return self._go_back()

    def _copied(self, value: ir.Value) -> Table:
        dim = inner_dim(value)
        table = Table(self.allocate, dim, self.vector)

        def copy(nothing: list[ir.Value], at: Position) -> list[ir.Value]:
            table.write(_place(at), self.body.element(value, at, *self.pair))
            return nothing

        self.body.prepare(value)
        self.body.over_inner(value, dim, [], copy)
        return table

    def _with_tangents(self, value: ir.Value, place: ir.Value) -> Number:
        result: Number = value
        for direction in self.along:
            result = Dual(result, direction.read(place))
        return result

    def _cell(self, i: ir.Value, j: ir.Value) -> ir.Value:
        """Give the place of a cell; the value alone needs two columns only."""
        if self.order == 0:
            j = kb.emit("arith.andi", (j, number(1)))
        return iadd(imul(j, number(self.n + 1)), i)

    def _difference(self, i: ir.Value, j: ir.Value) -> Number:
        one = number(1)
        i, j = isub(i, one), isub(j, one)
        x = self._with_tangents(self.x.read(i), i)
        y = self._with_tangents(self.y.read(j), iadd(j, number(self.n)))
        return sub(x, y)

    def _exponents(self, i: ir.Value, j: ir.Value) -> tuple[ir.Value, list[Number], list[ir.Value]]:
        """Give the smallest predecessor, (it - R) / gamma of each, and whether each can be reached."""
        before_i, before_j = isub(i, number(1)), isub(j, number(1))
        places = [self._cell(*cell) for cell in ((before_i, before_j), (before_i, j), (i, before_j))]
        predecessors = [self.costs.read(place) for place in places]
        first, second, third = (primal(cost) for cost in predecessors)
        smallest = kb.emit("arith.minimumf", (kb.emit("arith.minimumf", (first, second)), third))
        infinity = kb.constant(_INFINITY, self.vector)
        reached = [kb.compare("une", cost, infinity) for cost in (first, second, third)]
        exponents = [
            select(there, mul(sub(smallest, cost), self.inverse), -_INFINITY)
            for there, cost in zip(reached, predecessors, strict=True)
        ]
        return smallest, exponents, reached

    def _go_forward(self) -> None:
        zero, infinity = (kb.constant(value, self.vector) for value in (0.0, _INFINITY))
        start, one = number(0), number(1)
        for_range(start, number(self.n + 1), 1, lambda i: self.costs.write(self._cell(i, start), infinity))
        self.costs.write(self._cell(start, start), zero)

        def fill_column(j: ir.Value) -> None:
            self.costs.write(self._cell(start, j), infinity)
            for_range(one, number(self.n + 1), 1, lambda i: fill_cell(i, j))

        def fill_cell(i: ir.Value, j: ir.Value) -> None:
            smallest, exponents, _ = self._exponents(i, j)
            total = _sum([exp(exponent) for exponent in exponents])
            difference = self._difference(i, j)
            softened = sub(smallest, mul(self.gamma, log(total)))
            self.costs.write(self._cell(i, j), add(mul(difference, difference), softened))

        for_range(one, number(self.m + 1), 1, fill_column)

    def _go_back(self) -> Table:
        """Build the derivative by x, y and gamma, one after the other."""
        n, m = self.n, self.m
        result = Table(self.allocate, n + m + 1, self.vector)
        #: E of one column: what its cells hand on to the column before.
        handed = Table(self.allocate, n + 1, self.vector, depth=self.depth)
        zero, one = (kb.constant(value, self.vector) for value in (0.0, 1.0))
        for_range(number(0), number(n), 1, lambda i: result.write(i, zero))
        for_range(number(0), number(n), 1, lambda i: handed.write(i, zero))
        handed.write(number(n), one)

        def cell(i: ir.Value, j: ir.Value, state: list[Number]) -> list[Number]:
            above, diagonal, by_y, by_gamma = state
            _, exponents, reached = self._exponents(i, j)
            terms = [exp(exponent) for exponent in exponents]
            total = _sum(terms)
            inverse = reciprocal(total)
            shares = [mul(term, inverse) for term in terms]
            ours = add(handed.read(i), above)
            by_difference = self._last(mul(mul(self._difference(i, j), ours), kb.constant(2.0, self.vector)))
            place = isub(i, number(1))
            result.write(place, kb.add(result.read(place), by_difference))
            finite = [select(there, some, 0.0) for there, some in zip(reached, exponents, strict=True)]
            mean = _sum([mul(share, some) for share, some in zip(shares, finite, strict=True)])
            by_gamma = kb.add(by_gamma, self._last(mul(ours, sub(mean, log(total)))))
            to_diagonal, to_above, to_left = (mul(ours, share) for share in shares)
            handed.write(i, add(to_left, diagonal))
            return [to_above, to_diagonal, kb.sub(by_y, by_difference), by_gamma]

        def column(j: ir.Value, by_gamma: Number) -> Number:
            nothing = from_leaves([zero] * (1 << self.depth))
            depths = (self.depth, self.depth, 0, 0)
            found = _loop_down(n, [nothing, nothing, zero, by_gamma], depths, lambda i, state: cell(i, j, state))
            result.write(iadd(j, number(n - 1)), found[2])
            return found[3]

        (by_gamma,) = _loop_down(m, [zero], (0,), lambda j, state: [column(j, state[0])])
        result.write(number(n + m), by_gamma)
        return result

    def _last(self, value: Number) -> ir.Value:
        """Give the tangent of tangents: the derivative along all directions."""
        return leaves(value, self.depth)[-1]


def _sum(terms: Sequence[Number]) -> Number:
    first, *rest = terms
    for term in rest:
        first = add(first, term)
    return first


def _loop_down(
    count: int,
    carried: list[Number],
    depths: Sequence[int],
    body: Callable[[ir.Value, list[Number]], list[Number]],
) -> list[Number]:
    """Build a loop from `count` down to 1 that carries numbers of these depths."""

    def flat(numbers: list[Number]) -> list[ir.Value]:
        return [leaf for some, depth in zip(numbers, depths, strict=True) for leaf in leaves(some, depth)]

    def grouped(values: Sequence[ir.Value]) -> list[Number]:
        rest = list(values)
        result = []
        for depth in depths:
            result.append(from_leaves(rest[: 1 << depth]))
            rest = rest[1 << depth :]
        return result

    loop = scf.ForOp(number(0), number(count), number(1), flat(carried))
    with ir.InsertionPoint(loop.body):
        place = isub(number(count), loop.induction_variable)
        scf.YieldOp(flat(body(place, grouped(list(loop.inner_iter_args)))))
    return grouped(list(loop.results))
