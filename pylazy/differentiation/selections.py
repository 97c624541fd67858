"""Gradients of the smallest and largest values: those of the formula at the pairs that were selected.

The rows of both axes are gathered at the selected pairs, and the formula runs there, one pair a row, so the cost of a
derivative of any order is that of the selected pairs alone. The rule is the same for every library of arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pylazy.canonical_form import flatten
from pylazy.execution.job import Job
from pylazy.execution.prepare import find_executable, prepare
from pylazy.execution.programs import Extents
from pylazy.execution.wanted_results import Wanted, result_shapes
from pylazy.expression import Expression, replace_leaves
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Source
    from pylazy.execution.programs import Selection


class Library(Protocol):
    """What the rule asks of a library whose arrays remember how they were made."""

    def arange(self, count: int, like: Any) -> Any:
        """The integers from 0 on, where another array lies."""

    def broadcast(self, array: Any, shape: tuple[int, ...]) -> Any:
        """Repeat an array along new axes and those of size 1."""

    def take(self, array: Any, positions: Any, axis: int) -> Any:
        """Take elements along an axis, -1 or -2, as numpy.take_along_axis does; other sizes are equal."""

    def where_finite(self, values: Any, then: Any, otherwise: Any) -> Any:
        """Choose by values."""

    def where_zero(self, counts: Any, then: Any, otherwise: Any) -> Any:
        """Choose by counts, an integer or an array."""

    def detached(self, array: Any) -> Any:
        """The array without its derivative."""

    def as_dtype(self, array: Any, dtype: str) -> Any:
        """Convert an array."""

    def inputs(self, job: Job) -> list[Any]:
        """The arrays behind the inputs of a job, in its dtype and the shapes of its sources."""

    def source(self, array: Any, *, batch: int, weak: bool) -> Source:
        """Put an array behind a variable of another formula."""

    def run_as_constant(self, job: Job) -> tuple[Any, ...]:
        """The results of a job, in its own shapes, without a derivative."""

    def run(self, job: Job) -> Any:
        """The only result of a job over variables that `source` made, with its derivative."""


def select(job: Job, library: Library) -> tuple[Any, ...]:
    """Run a selection; values remember how they were made, positions have no gradient.

    Args:
        job: of the kinds in `SELECTIONS`, or their positions, or both.
        library: of its arrays.
    """
    kind, operands, k, _, math_mode = job.wanted[0]
    value = kind.removeprefix("arg")
    formula = job.expressions[0]
    own = job.executable.selection()
    if own is None and formula.op == "var" and formula.source is None:  # a bundle without it
        raise UnsupportedError(at_user_line(f"the gradient of {value} needs the formula, which is not here"))
    wanted = tuple(Wanted(name, operands, k, math_mode=math_mode) for name in (value, f"arg{value}"))
    shapes = result_shapes(job.expressions, wanted, job.reduced, job.extents, keepdim=False, drop_inner=False)
    ranged = job.ranges is not None
    if own is None:
        flat = flatten(job.expressions)
        executable = find_executable(flat, job.expressions, wanted, job.reduced, job.dtype, ranged=ranged)
    else:
        executable = own.chosen
    values, positions = library.run_as_constant(job.asking(wanted, executable, shapes))
    pairs = _Pairs.of(job, positions, library)
    equal = (pairs.evaluate() if own is None else pairs.evaluate_program(own)).reshape(values.shape)
    # Values with the derivative of others, that equal them but for rounding.
    selected = library.where_finite(values, values + (equal - library.detached(equal)), equal)
    if ranged and not k:
        # The smallest of nothing is a constant, whatever its position says; the k smallest have k terms.
        selected = library.where_zero(job.terms(values), values, selected)
    return tuple(
        (positions if target.kind.startswith("arg") else selected).reshape(shape)
        for target, shape in zip(job.wanted, job.shapes, strict=True)
    )


class _Pairs(NamedTuple):
    """The selected pairs of a job: `repeats` for each row that is kept.

    Attributes:
        job: the selection.
        positions: (*batch, pairs), along the reduced axis.
        repeats: pairs of each kept row: one for each component of each of the k best.
        library: of the arrays.
    """

    job: Job
    positions: Any
    repeats: int
    library: Library

    @staticmethod
    def of(job: Job, positions: Any, library: Library) -> _Pairs:
        kept = (job.extents.rows if job.reduced == "j" else job.extents.columns) or 0
        repeats = (job.wanted[0].k or 1) * job.expressions[0].dim
        return _Pairs(job, positions.reshape((*job.extents.batch, kept * repeats)), repeats, library)

    def rows_of(self, axis: str) -> Any:
        """Give the row that every pair reads of an array of this axis: (*batch, pairs), or without a batch."""
        if axis == self.job.reduced:
            return self.positions
        pairs = self.positions.shape[-1]
        kept = self.library.arange(pairs, self.positions) // max(self.repeats, 1)
        if len(axis) == 1:
            return kept
        i, j = (kept, self.positions) if self.job.reduced == "j" else (self.positions, kept)
        _, rows, columns = self.job.extents
        return i * (columns or 0) + j if axis == "ij" else j * (rows or 0) + i

    def gather(self, rows: Any, axis: str) -> Any:
        """Take the row of every pair: (*own batch, rows, D) gives (*own batch or batch, pairs, D)."""
        *own, count, dim = rows.shape
        if len(axis) == 1 and axis != self.job.reduced:
            repeated = self.library.broadcast(rows[..., None, :], (*own, count, self.repeats, dim))
            return repeated.reshape((*own, count * self.repeats, dim))
        index = self.library.broadcast(self.rows_of(axis)[..., None], (*self.positions.shape, dim))
        whole = self.library.broadcast(rows, (*self.positions.shape[:-1], count, dim))
        return self.library.take(whole, index, -2)

    def evaluate(self) -> Any:
        """Give the selected component of the formula at every pair: (*batch, pairs)."""
        job = self.job
        leaves: dict[Any, Expression] = {}
        given = self.library.inputs(job)
        position = job.expressions[0].position
        # The sources that the formula names may be symbols, in whose place the job has arrays.
        for number, named in enumerate(flatten(job.expressions).sources):
            spec, source = job.executable.request.inputs[number], self.source_of(number, given)
            axes = "i" if spec.axis else ""
            leaf = Expression("var", (), (), axes, spec.dim, None if source.weak else source.dtype, source, position)
            leaves[named.identity, spec.axis, spec.dim] = leaf

        def on_pairs(leaf: Expression) -> Expression:
            if leaf.op == "index":
                return Expression("var", (), (), "i", 1, None, self.index_of(leaf.axes), position)
            if leaf.op != "var":
                return leaf
            return leaves.get((leaf.source.identity, "ji" if leaf.attributes else leaf.axes, leaf.dim), leaf)

        formula = replace_leaves(job.expressions[0], on_pairs)
        extents = Extents(job.extents.batch, self.positions.shape[-1], 1)
        wanted = (Wanted("sum", (0,), math_mode=job.wanted[0].math_mode),)
        return self._chosen(prepare((formula,), wanted, reduced="j", extents=extents, backend=job.backend))

    def evaluate_program(self, selection: Selection) -> Any:
        """As `evaluate`, by a program in place of the formula."""
        job = self.job
        count = len(job.sources)
        given = self.library.inputs(job)
        sources = [
            self.source_of(place, given) if place < count else self.index_of("ij"[place - count])
            for place in selection.places
        ]
        batch, pairs = job.extents.batch, self.positions.shape[-1]
        made = Job(
            selection.pairs,
            sources,
            job.expressions[:1],
            dtype=job.dtype,
            extents=Extents(batch, pairs, 1),
            reduced="j",
            wanted=(Wanted("sum", (0,)),),
            shapes=((*batch, pairs, job.expressions[0].dim),),
            backend=job.backend,
        )
        return self._chosen(made)

    def source_of(self, number: int, given: Sequence[Any]) -> Source:
        """Give an input of the formula for every pair: its rows gathered, or what all pairs share."""
        spec, source = self.job.executable.request.inputs[number], self.job.sources[number]
        if source.number is not None:
            return source
        if not spec.axis:
            shared = given[number].reshape(source.shape)
            return self.library.source(shared, batch=source.batch, weak=source.weak)
        count = math.prod(source.shape[source.batch :]) // spec.dim
        rows = self.gather(given[number].reshape((*source.shape[: source.batch], count, spec.dim)), spec.axis)
        return self.library.source(rows, batch=rows.ndim - 2, weak=source.weak)

    def index_of(self, axis: str) -> Source:
        """Give the number of the row of every pair along an axis."""
        numbers = self.library.as_dtype(self.rows_of(axis)[..., None], self.job.dtype)
        return self.library.source(numbers, batch=numbers.ndim - 2, weak=True)

    def _chosen(self, job: Job) -> Any:
        """Run the formula at every pair, and take the component that the pair was selected for, in turn."""
        dim = self.job.expressions[0].dim
        numbers = self.library.arange(self.positions.shape[-1], self.positions) % dim
        component = self.library.broadcast(numbers[..., None], (*self.positions.shape, 1))
        found = self.library.run(job).reshape((*self.positions.shape, dim))
        return self.library.take(found, component, -1)[..., 0]
