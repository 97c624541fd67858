"""Gradients of the smallest and largest values: those of the formula at the pairs that were selected.

The rows of both axes are gathered at the selected pairs, and the formula runs there, one pair a row, so the cost of a
derivative of any order is that of the selected pairs alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pylazy import arrays
from pylazy.execute import Job, Wanted, find_executable, flatten, prepare, result_shapes
from pylazy.expression import Expression, at_user_line, replace_leaves
from pylazy.programs import Extents
from pylazy.pytorch.torch_reductions import run_as_constant, run_tensors
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from pylazy.arrays import Source


def select(job: Job) -> tuple[torch.Tensor, ...]:
    """Run a selection; values remember how they were made, positions have no gradient.

    Args:
        job: of the kinds min, max, kmin or kmax, or their positions, or both.
    """
    kind, operands, k, _, math_mode = job.wanted[0]
    value = kind.removeprefix("arg")
    formula = job.expressions[0]
    if formula.op == "var" and formula.source is None:  # the formula of a bundle is known to its program only
        raise UnsupportedError(at_user_line(f"the gradient of {value} needs the formula, which is not here"))
    wanted = tuple(Wanted(name, operands, k, math_mode=math_mode) for name in (value, f"arg{value}"))
    shapes = result_shapes(job.expressions, wanted, job.reduced, job.extents, keepdim=False, drop_inner=False)
    flat = flatten(job.expressions)
    ranged = job.ranges is not None
    executable = find_executable(flat, job.expressions, wanted, job.reduced, job.dtype, ranged=ranged)
    values, positions = run_as_constant(job.asking(wanted, executable, shapes))
    pairs = _Pairs.of(job, positions)
    selected = _with_derivative_of(values, pairs.evaluate().reshape(values.shape))
    if ranged and not k:
        # The smallest of nothing is a constant, whatever its position says; the k smallest have k terms.
        selected = torch.where(job.terms(values) == 0, values, selected)
    values = selected
    return tuple(
        (positions if target.kind.startswith("arg") else values).reshape(shape)
        for target, shape in zip(job.wanted, job.shapes, strict=True)
    )


def _with_derivative_of(values: torch.Tensor, equal: torch.Tensor) -> torch.Tensor:
    """Give the values with the derivative of others, that equal them but for rounding."""
    return torch.where(values.isfinite(), values + (equal - equal.detach()), equal)


class _Pairs(NamedTuple):
    """The selected pairs of a job: `repeats` for each row that is kept.

    Attributes:
        job: the selection.
        positions: (*batch, pairs), along the reduced axis.
        repeats: pairs of each kept row: one for each component of each of the k best.
    """

    job: Job
    positions: torch.Tensor
    repeats: int

    @staticmethod
    def of(job: Job, positions: torch.Tensor) -> _Pairs:
        kept = (job.extents.rows if job.reduced == "j" else job.extents.columns) or 0
        repeats = (job.wanted[0].k or 1) * job.expressions[0].dim
        return _Pairs(job, positions.reshape(*job.extents.batch, kept * repeats), repeats)

    def rows_of(self, axis: str) -> torch.Tensor:
        """Give the row that every pair reads of an array of this axis: (*batch, pairs), or without a batch."""
        if axis == self.job.reduced:
            return self.positions
        pairs = self.positions.shape[-1]
        kept = torch.arange(pairs, device=self.positions.device) // max(self.repeats, 1)
        if len(axis) == 1:
            return kept
        i, j = (kept, self.positions) if self.job.reduced == "j" else (self.positions, kept)
        _, rows, columns = self.job.extents
        return i * (columns or 0) + j if axis == "ij" else j * (rows or 0) + i

    def gather(self, rows: torch.Tensor, axis: str) -> torch.Tensor:
        """Take the row of every pair: (*own batch, rows, D) gives (*own batch or batch, pairs, D)."""
        *own, count, dim = rows.shape
        if len(axis) == 1 and axis != self.job.reduced:
            return rows[..., None, :].expand(*own, count, self.repeats, dim).reshape(*own, count * self.repeats, dim)
        index = self.rows_of(axis)[..., None].expand(*self.positions.shape, dim)
        return rows.expand(*self.positions.shape[:-1], count, dim).gather(-2, index)

    def evaluate(self) -> torch.Tensor:
        """Give the selected component of the formula at every pair: (*batch, pairs)."""
        job = self.job
        dtype = getattr(torch, job.dtype)
        leaves: dict[Any, Expression] = {}
        inputs = job.executable.request.inputs
        position = job.expressions[0].position
        # The sources that the formula names may be symbols, in whose place the job has arrays.
        for number, named in enumerate(flatten(job.expressions).sources):
            spec, source = inputs[number], job.sources[number]
            if spec.axis:
                array = source.array if source.kind == arrays.TORCH else torch.from_numpy(np.array(source.array))
                count = math.prod(source.shape[source.batch :]) // spec.dim
                array = array.to(device=self.positions.device, dtype=dtype)
                rows = array.reshape(*source.shape[: source.batch], count, spec.dim)
                source = _as_rows(self.gather(rows, spec.axis))
            axes = "i" if spec.axis else ""
            leaf = Expression("var", (), (), axes, spec.dim, None if source.weak else source.dtype, source, position)
            leaves[named.identity, spec.axis, spec.dim] = leaf

        def on_pairs(leaf: Expression) -> Expression:
            if leaf.op == "index":
                numbers = self.rows_of(leaf.axes)[..., None].to(dtype)
                return Expression("var", (), (), "i", 1, None, _as_rows(numbers, weak=True), position)
            if leaf.op != "var":
                return leaf
            return leaves.get((leaf.source.identity, "ji" if leaf.attributes else leaf.axes, leaf.dim), leaf)

        formula = replace_leaves(job.expressions[0], on_pairs)
        extents = Extents(job.extents.batch, self.positions.shape[-1], 1)
        wanted = (Wanted("sum", (0,), math_mode=job.wanted[0].math_mode),)
        found = run_tensors(prepare((formula,), wanted, reduced="j", extents=extents, backend=job.backend))[0]
        # Each pair was selected for one component, in turn.
        by_component: torch.Tensor = found.reshape(*self.positions.shape[:-1], *self._by_component())
        return by_component.diagonal(dim1=-2, dim2=-1)

    def _by_component(self) -> tuple[int, int, int]:
        dim = self.job.expressions[0].dim
        return self.positions.shape[-1] // dim, dim, dim


def _as_rows(rows: torch.Tensor, *, weak: bool = False) -> Source:
    return arrays.array_source(rows, what="a gathered input", batch=rows.dim() - 2, view="pairs", weak=weak)
