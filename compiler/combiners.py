"""Table: accumulation kind -> neutral state, how a block of columns enters it, how two states merge, how it ends.

States are tuples of lane values, one tuple for each component of the result. Three families: componentwise (sum, prod,
min, max), exponential (logsumexp, softmax: a shared running maximum), and selection (the k smallest, kept sorted in
memory; see `Selection`). Special values follow NumPy: NaN propagates through min and max and its first index wins,
-inf everywhere gives a logsumexp of -inf, and ties go to the lowest index.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir, scf

State = tuple[ir.Value, ...]
_INFINITY = float("inf")


@dataclass(frozen=True)
class ComponentCombiner:
    """A reduction in which every component of the formula goes its own way.

    `accumulate(state, values, columns)` takes one value for each column of a block, in order. A state is (value,);
    where indices are wanted, (value, index); of a compensated sum, (value, correction).
    """

    neutral: float
    accumulate: Callable[[State, Sequence[ir.Value], Sequence[ir.Value]], State]
    merge: Callable[[State, State], State]
    finish: Callable[[ir.Value, ir.Value], ir.Value]
    is_compensated: bool = False


def any_lane(condition: ir.Value) -> ir.Value:
    """Tell, as one bit, whether a comparison holds in any lane."""
    if not isinstance(condition.type, ir.VectorType):
        return condition
    kind = ir.Attribute.parse("#vector.kind<or>")
    return kb.emit("vector.reduction", (condition,), ir.IntegerType.get_signless(1), kind=kind)


def both(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build the conjunction of two comparisons."""
    return kb.emit("arith.andi", (first, second))


def either(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build the disjunction of two comparisons."""
    return kb.emit("arith.ori", (first, second))


def negation(condition: ir.Value) -> ir.Value:
    """Build the opposite of a comparison."""
    return kb.emit("arith.xori", (condition, kb.constant(1, condition.type)))


def any_of(conditions: Sequence[ir.Value]) -> ir.Value:
    """Build the disjunction of several comparisons."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = either(result, condition)
    return result


def _folding(
    combine: Callable[[ir.Value, ir.Value], ir.Value],
) -> Callable[[State, Sequence[ir.Value], Sequence[ir.Value]], State]:
    def accumulate(state: State, values: Sequence[ir.Value], columns: Sequence[ir.Value]) -> State:
        result = state[0]
        for value in values:
            result = combine(result, value)
        return (result,)

    return accumulate


def _keep(value: ir.Value, count: ir.Value) -> ir.Value:
    return value


def _divide_by_count(value: ir.Value, count: ir.Value) -> ir.Value:
    return kb.div(value, count)


def _has_nan(values: Sequence[ir.Value]) -> ir.Value:
    """Compare values in pairs: one comparison finds a NaN in either."""
    pairs = [(values[k], values[min(k + 1, len(values) - 1)]) for k in range(0, len(values), 2)]
    return any_of([kb.compare("uno", *pair) for pair in pairs])


def _extremum(better: str) -> ComponentCombiner:
    """Minimum ("olt") or maximum ("ogt"); the fast path ignores NaN, which is looked for once a block."""

    def take(state: State, value: ir.Value, column: "ir.Value | None", condition: ir.Value) -> State:
        best = (kb.select(condition, value, state[0]),)
        return best if column is None else (*best, kb.select(condition, column, state[1]))

    def accumulate(state: State, values: Sequence[ir.Value], columns: Sequence[ir.Value]) -> State:
        indexed = len(state) == 2
        fast = state
        for value, column in zip(values, columns, strict=True):
            fast = take(fast, value, column if indexed else None, kb.compare(better, value, fast[0]))
        poisoned = both(_has_nan(values), kb.compare("ord", state[0], state[0]))
        if not indexed:
            return (kb.select(poisoned, kb.constant(float("nan"), state[0].type), fast[0]),)

        def slow() -> State:
            exact = state
            for value, column in zip(values, columns, strict=True):
                appears = both(kb.compare("uno", value, value), kb.compare("ord", exact[0], exact[0]))
                exact = take(exact, value, column, either(kb.compare(better, value, exact[0]), appears))
            return exact

        return rarely(any_lane(poisoned), slow, fast)

    def merge(state: State, other: State) -> State:
        """Merge two states whose columns may be interleaved: on a tie the lower index wins."""
        theirs_nan, mine_nan = (kb.compare("uno", part[0], part[0]) for part in (other, state))
        condition = either(kb.compare(better, other[0], state[0]), both(theirs_nan, negation(mine_nan)))
        if len(other) == 1:
            return take(state, other[0], None, condition)
        tie = either(kb.compare("oeq", other[0], state[0]), both(theirs_nan, mine_nan))
        return take(state, other[0], other[1], either(condition, both(tie, kb.icompare("slt", other[1], state[1]))))

    neutral = _INFINITY if better == "olt" else -_INFINITY
    return ComponentCombiner(neutral, accumulate, merge, _keep)


def rarely(condition: ir.Value, slow: Callable[[], State], otherwise: State) -> State:
    """Branch on one bit to a path that is seldom taken."""
    branch = scf.IfOp(condition, [value.type for value in otherwise], has_else=True)
    with ir.InsertionPoint(branch.then_block):
        scf.YieldOp(slow())
    with ir.InsertionPoint(branch.else_block):
        scf.YieldOp(otherwise)
    return tuple(branch.results)


def _sum(finish: Callable[[ir.Value, ir.Value], ir.Value]) -> ComponentCombiner:
    return ComponentCombiner(0.0, _folding(kb.add), lambda a, b: (kb.add(a[0], b[0]),), finish)


def _exact_sum(first: ir.Value, second: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Build a rounded sum and its error, which is a number of the same type, whichever term is larger.

    Source: TwoSum of Knuth, The Art of Computer Programming, volume 2, 4.2.2. Nothing here may be contracted.
    """
    total = kb.emit("arith.addf", (first, second))
    of_second = kb.emit("arith.subf", (total, first))
    of_first = kb.emit("arith.subf", (total, of_second))
    errors = kb.emit("arith.subf", (first, of_first)), kb.emit("arith.subf", (second, of_second))
    return total, kb.emit("arith.addf", errors)


def _accumulate_compensated(state: State, values: Sequence[ir.Value], columns: Sequence[ir.Value]) -> State:
    """Add up the errors of all sums beside the sum: it is then as if found in twice the precision, rounded once.

    Source: Sum2 of Ogita, Rump, Oishi, Accurate Sum and Dot Product, SIAM J. Sci. Comput. 26 (2005); Kahan's sum with
    the improvement of Neumaier, without a branch.
    """
    total, correction = state
    for value in values:
        total, error = _exact_sum(total, value)
        correction = kb.emit("arith.addf", (correction, error))
    return total, correction


def _merge_compensated(state: State, other: State) -> State:
    total, error = _exact_sum(state[0], other[0])
    corrections = kb.emit("arith.addf", (state[1], other[1]))
    return total, kb.emit("arith.addf", (corrections, error))


def compensated_total(state: State) -> ir.Value:
    """Build the value of a compensated sum; infinities and NaN have no error."""
    total, correction = state
    magnitude = kb.math_op("absf", total)
    is_finite = kb.compare("olt", magnitude, kb.constant(_INFINITY, total.type))
    return kb.select(is_finite, kb.emit("arith.addf", (total, correction)), total)


def _compensated(finish: Callable[[ir.Value, ir.Value], ir.Value]) -> ComponentCombiner:
    return ComponentCombiner(0.0, _accumulate_compensated, _merge_compensated, finish, is_compensated=True)


#: Combiners of the scheme "kahan".
COMPENSATED_COMBINERS: Mapping[str, ComponentCombiner] = {
    "sum": _compensated(_keep),
    "mean": _compensated(_divide_by_count),
}

COMPONENT_COMBINERS: Mapping[str, ComponentCombiner] = {
    "sum": _sum(_keep),
    "mean": _sum(_divide_by_count),
    "prod": ComponentCombiner(1.0, _folding(kb.mul), lambda a, b: (kb.mul(a[0], b[0]),), _keep),
    "min": _extremum("olt"),
    "max": _extremum("ogt"),
}

#: Kinds whose long sums are cut in chunks with a second level, so that rounding errors grow with the chunk, not with N.
BLOCKED_KINDS = frozenset({"sum", "mean", "prod", "logsumexp", "softmax"})


# Exponential family. The maximum `top` may be infinite; `shift` is what is subtracted before exponentials are taken:
# `top` where that is finite, else 0, so that neither inf - inf nor -inf - -inf is ever computed.


@dataclass(frozen=True)
class ExponentialState:
    """The running maximum, the shift that follows from it, and the sums of shifted exponentials times weights."""

    top: ir.Value
    shift: ir.Value
    sums: tuple[ir.Value, ...]

    def flat(self) -> State:
        """Give all values in the order that `from_flat` takes."""
        return (self.top, self.shift, *self.sums)

    @staticmethod
    def from_flat(values: Sequence[ir.Value]) -> "ExponentialState":
        """Build a state from its values."""
        return ExponentialState(values[0], values[1], tuple(values[2:]))


def exponential_neutral(element: ir.Type, sums: int) -> ExponentialState:
    """Give the state before the first column."""
    zero = kb.constant(0.0, element)
    return ExponentialState(kb.constant(-_INFINITY, element), zero, (zero,) * sums)


def _shift_of(top: ir.Value) -> ir.Value:
    infinite = kb.compare("oeq", kb.math_op("absf", top), kb.constant(_INFINITY, top.type))
    return kb.select(infinite, kb.constant(0.0, top.type), top)


def _rescaling(old_shift: ir.Value, new_shift: ir.Value) -> ir.Value:
    """Give the factor that carries sums over to a new shift: at most 1, since a sum under a smaller one is empty."""
    difference = kb.sub(old_shift, new_shift)
    zero = kb.constant(0.0, difference.type)
    return kb.math_op("exp", kb.select(kb.compare("ogt", difference, zero), zero, difference))


def exponential_raise(state: ExponentialState, values: Sequence[ir.Value]) -> ExponentialState:
    """Raise the maximum to that of a block of columns, rescaling the sums in the rare case that it grows."""
    highest = values[0]
    for value in values[1:]:
        highest = kb.select(kb.compare("ogt", value, highest), value, highest)
    grows = kb.compare("ogt", highest, state.top)

    def rescale() -> State:
        top = kb.select(grows, highest, state.top)
        shift = _shift_of(top)
        factor = _rescaling(state.shift, shift)
        return (top, shift, *(kb.mul(part, factor) for part in state.sums))

    return ExponentialState.from_flat(rarely(any_lane(grows), rescale, state.flat()))


def exponential_weight(state: ExponentialState, value: ir.Value) -> ir.Value:
    """Give the shifted exponential of one column's value."""
    return kb.math_op("exp", kb.sub(value, state.shift))


def exponential_merge(state: ExponentialState, other: ExponentialState) -> ExponentialState:
    """Merge two states, in either order of their columns."""
    top = kb.select(kb.compare("ogt", other.top, state.top), other.top, state.top)
    shift = _shift_of(top)
    mine, theirs = _rescaling(state.shift, shift), _rescaling(other.shift, shift)
    sums = tuple(kb.add(kb.mul(a, mine), kb.mul(b, theirs)) for a, b in zip(state.sums, other.sums, strict=True))
    return ExponentialState(top, shift, sums)


def logsumexp_finish(state: ExponentialState) -> tuple[ir.Value, ...]:
    """Give the logarithms of the sums."""
    return tuple(kb.add(state.shift, kb.math_op("log", part)) for part in state.sums)


def softmax_finish(state: ExponentialState) -> tuple[ir.Value, ...]:
    """Give the weighted sums over the last one, which has weight 1."""
    return tuple(kb.div(part, state.sums[-1]) for part in state.sums[:-1])


# Selection family. An entry with index -1 is empty; entries are sorted, empty ones last, NaN before them.


#: Decides whether a candidate (value, column) stands before an entry (value, index).
Precedes = Callable[[ir.Value, ir.Value, ir.Value, ir.Value], ir.Value]


def precedes_as_number(value: ir.Value, column: ir.Value, entry: ir.Value, index: ir.Value) -> ir.Value:
    """Compare a candidate that is no NaN and comes after the entry: entries that are NaN or empty give way."""
    return kb.compare("ult", value, entry)


def precedes_in_order(value: ir.Value, column: ir.Value, entry: ir.Value, index: ir.Value) -> ir.Value:
    """Compare any candidate that comes after the entry: on a tie the entry stays, and so do two NaN."""
    empty = kb.icompare("eq", index, kb.constant(-1, index.type))
    number_before_nan = both(kb.compare("uno", entry, entry), kb.compare("ord", value, value))
    return any_of([empty, number_before_nan, kb.compare("olt", value, entry)])


def precedes_by_index(value: ir.Value, column: ir.Value, entry: ir.Value, index: ir.Value) -> ir.Value:
    """Compare a candidate of any column: on a tie the lower index comes first; an empty candidate is never first."""
    nan = both(kb.compare("uno", entry, entry), kb.compare("uno", value, value))
    tie = both(either(kb.compare("oeq", value, entry), nan), kb.icompare("slt", column, index))
    live = kb.icompare("ne", column, kb.constant(-1, column.type))
    return both(live, either(precedes_in_order(value, column, entry, index), tie))


def selection_insert(
    candidate: tuple[ir.Value, ir.Value, ir.Value], entries: Sequence[tuple[ir.Value, ir.Value]], precedes: Precedes
) -> tuple[list[tuple[ir.Value, ir.Value]], tuple[ir.Value, ir.Value, ir.Value]]:
    """Move a candidate through consecutive entries of a sorted list.

    A candidate is its value, its index, and whether it has found its place: from there on everything moves down by one.

    Returns:
        The new entries, and the candidate for the entries after them: what was displaced.
    """
    value, column, inserted = candidate
    changed = []
    for entry_value, entry_index in entries:
        inserted = either(inserted, precedes(value, column, entry_value, entry_index))
        changed.append((kb.select(inserted, value, entry_value), kb.select(inserted, column, entry_index)))
        value, column = kb.select(inserted, entry_value, value), kb.select(inserted, entry_index, column)
    return changed, (value, column, inserted)


def selection_hit(value: ir.Value, threshold: ir.Value, *, ties: bool = False) -> ir.Value:
    """Tell where a value may enter the list: it is below the last entry, or that is NaN or empty (kept as NaN)."""
    return kb.compare("ule" if ties else "ult", value, threshold)
