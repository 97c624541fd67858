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

Value = ir.Value
State = tuple[Value, ...]
_INFINITY = float("inf")


@dataclass(frozen=True)
class ComponentCombiner:
    """A reduction in which every component of the formula goes its own way.

    `accumulate(state, values, columns)` takes one value for each column of a block, in order. A state is (value,) or,
    where indices are wanted, (value, index).
    """

    neutral: float
    accumulate: Callable[[State, Sequence[Value], Sequence[Value]], State]
    merge: Callable[[State, State], State]
    finish: Callable[[Value, Value], Value]


def any_lane(condition: Value) -> Value:
    """Tell, as one bit, whether a comparison holds in any lane."""
    if not isinstance(condition.type, ir.VectorType):
        return condition
    kind = ir.Attribute.parse("#vector.kind<or>")
    return kb.emit("vector.reduction", (condition,), ir.IntegerType.get_signless(1), kind=kind)


def both(first: Value, second: Value) -> Value:
    """Build the conjunction of two comparisons."""
    return kb.emit("arith.andi", (first, second))


def either(first: Value, second: Value) -> Value:
    """Build the disjunction of two comparisons."""
    return kb.emit("arith.ori", (first, second))


def any_of(conditions: Sequence[Value]) -> Value:
    """Build the disjunction of several comparisons."""
    result = conditions[0]
    for condition in conditions[1:]:
        result = either(result, condition)
    return result


def _folding(combine: Callable[[Value, Value], Value]) -> Callable[[State, Sequence[Value], Sequence[Value]], State]:
    def accumulate(state: State, values: Sequence[Value], columns: Sequence[Value]) -> State:
        result = state[0]
        for value in values:
            result = combine(result, value)
        return (result,)

    return accumulate


def _keep(value: Value, count: Value) -> Value:
    return value


def _divide_by_count(value: Value, count: Value) -> Value:
    return kb.div(value, count)


def _has_nan(values: Sequence[Value]) -> Value:
    """Compare values in pairs: one comparison finds a NaN in either."""
    pairs = [(values[k], values[min(k + 1, len(values) - 1)]) for k in range(0, len(values), 2)]
    return any_of([kb.compare("uno", *pair) for pair in pairs])


def _extremum(better: str) -> ComponentCombiner:
    """Minimum ("olt") or maximum ("ogt"); the fast path ignores NaN, which is looked for once a block."""

    def take(state: State, value: Value, column: "Value | None", condition: Value) -> State:
        best = (kb.select(condition, value, state[0]),)
        return best if column is None else (*best, kb.select(condition, column, state[1]))

    def accumulate(state: State, values: Sequence[Value], columns: Sequence[Value]) -> State:
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
        appears = both(kb.compare("uno", other[0], other[0]), kb.compare("ord", state[0], state[0]))
        condition = either(kb.compare(better, other[0], state[0]), appears)
        return take(state, other[0], other[1] if len(other) == 2 else None, condition)

    neutral = _INFINITY if better == "olt" else -_INFINITY
    return ComponentCombiner(neutral, accumulate, merge, _keep)


def rarely(condition: Value, slow: Callable[[], State], otherwise: State) -> State:
    """Branch on one bit to a path that is seldom taken."""
    branch = scf.IfOp(condition, [value.type for value in otherwise], has_else=True)
    with ir.InsertionPoint(branch.then_block):
        scf.YieldOp(slow())
    with ir.InsertionPoint(branch.else_block):
        scf.YieldOp(otherwise)
    return tuple(branch.results)


def _sum(finish: Callable[[Value, Value], Value]) -> ComponentCombiner:
    return ComponentCombiner(0.0, _folding(kb.add), lambda a, b: (kb.add(a[0], b[0]),), finish)


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

    top: Value
    shift: Value
    sums: tuple[Value, ...]

    def flat(self) -> State:
        """Give all values in the order that `from_flat` takes."""
        return (self.top, self.shift, *self.sums)

    @staticmethod
    def from_flat(values: Sequence[Value]) -> "ExponentialState":
        """Build a state from its values."""
        return ExponentialState(values[0], values[1], tuple(values[2:]))


def exponential_neutral(element: ir.Type, sums: int) -> ExponentialState:
    """Give the state before the first column."""
    zero = kb.constant(0.0, element)
    return ExponentialState(kb.constant(-_INFINITY, element), zero, (zero,) * sums)


def _shift_of(top: Value) -> Value:
    infinite = kb.compare("oeq", kb.math_op("absf", top), kb.constant(_INFINITY, top.type))
    return kb.select(infinite, kb.constant(0.0, top.type), top)


def _rescaling(old_shift: Value, new_shift: Value) -> Value:
    """Give the factor that carries sums over to a new shift: at most 1, since a sum under a smaller one is empty."""
    difference = kb.sub(old_shift, new_shift)
    zero = kb.constant(0.0, difference.type)
    return kb.math_op("exp", kb.select(kb.compare("ogt", difference, zero), zero, difference))


def exponential_raise(state: ExponentialState, values: Sequence[Value]) -> ExponentialState:
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


def exponential_weight(state: ExponentialState, value: Value) -> Value:
    """Give the shifted exponential of one column's value."""
    return kb.math_op("exp", kb.sub(value, state.shift))


def exponential_merge(state: ExponentialState, other: ExponentialState) -> ExponentialState:
    """Merge two states, in either order of their columns."""
    top = kb.select(kb.compare("ogt", other.top, state.top), other.top, state.top)
    shift = _shift_of(top)
    mine, theirs = _rescaling(state.shift, shift), _rescaling(other.shift, shift)
    sums = tuple(
        kb.add(kb.mul(a, mine), kb.mul(b, theirs)) for a, b in zip(state.sums, other.sums, strict=True)
    )
    return ExponentialState(top, shift, sums)


def logsumexp_finish(state: ExponentialState) -> tuple[Value, ...]:
    """Give the logarithms of the sums."""
    return tuple(kb.add(state.shift, kb.math_op("log", part)) for part in state.sums)


def softmax_finish(state: ExponentialState) -> tuple[Value, ...]:
    """Give the weighted sums over the last one, which has weight 1."""
    return tuple(kb.div(part, state.sums[-1]) for part in state.sums[:-1])


# Selection family. An entry with index -1 is empty; entries are sorted, empty ones last, NaN before them.


def selection_insert(
    value: Value, column: Value, entries: Sequence[tuple[Value, Value]], inserted: Value
) -> tuple[list[tuple[Value, Value]], tuple[Value, Value, Value]]:
    """Move a candidate through consecutive entries of a sorted list.

    Returns the new entries and what goes on to the entries after them: the displaced value, its index, and whether the
    candidate has found its place (from there on everything moves down by one).
    """
    changed = []
    for entry_value, entry_index in entries:
        empty = kb.emit(
            "arith.cmpi",
            (entry_index, kb.constant(-1, entry_index.type)),
            kb.bool_type(entry_index.type),
            predicate=ir.IntegerAttr.get(ir.IntegerType.get_signless(64), 0),
        )
        beats_nan = both(kb.compare("uno", entry_value, entry_value), kb.compare("ord", value, value))
        inserted = any_of([inserted, empty, beats_nan, kb.compare("olt", value, entry_value)])
        changed.append((kb.select(inserted, value, entry_value), kb.select(inserted, column, entry_index)))
        value, column = kb.select(inserted, entry_value, value), kb.select(inserted, entry_index, column)
    return changed, (value, column, inserted)


def selection_hit(value: Value, threshold: Value) -> Value:
    """Tell where a value may enter the list: it is below the last entry, or that is NaN or empty (kept as NaN)."""
    return kb.compare("ult", value, threshold)
