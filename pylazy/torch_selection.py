"""Gradients of the smallest and largest values: those of the formula at the pairs that were selected.

In the backward pass the rows of both axes are gathered at the selected pairs, and the gradient program of the formula
runs on one pair a row, so the cost is that of the selected pairs alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from pylazy import arrays
from pylazy.execute import Job, Wanted, find_executable, flatten, prepare, result_shapes
from pylazy.expression import Expression, at_user_line, rebuilt
from pylazy.programs import Extents
from pylazy.runtime.errors import UnsupportedError
from pylazy.torch_ops import FirstGradient, sum_to_shape


def select(job: Job, numbers: tuple[int, ...], tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Run a selection; values remember how they were made, positions have no gradient.

    Args:
        job: of the kinds min, max, kmin or kmax, or their positions, or both.
        numbers: of the inputs that are tensors.
        tensors: these, in the dtype of the formula.
    """
    kind, operands, k = job.wanted[0]
    value = kind.removeprefix("arg")
    formula = job.expressions[0]
    if formula.op == "var" and formula.source is None:  # the formula of a bundle is known to its program only
        raise UnsupportedError(at_user_line(f"the gradient of {value} needs the formula, which is not here"))
    wanted = (Wanted(value, operands, k), Wanted(f"arg{value}", operands, k))
    flat = flatten(job.expressions)
    both = Job(
        find_executable(flat, job.expressions, wanted, job.reduced, job.dtype),
        job.sources,
        job.expressions,
        dtype=job.dtype,
        extents=job.extents,
        reduced=job.reduced,
        wanted=wanted,
        shapes=result_shapes(job.expressions, wanted, job.reduced, job.extents, keepdim=False, drop_inner=False),
    )
    values, positions = _Selection.apply(both, numbers, *tensors)  # type: ignore[no-untyped-call]
    return tuple(
        (positions if wanted.kind.startswith("arg") else values).reshape(shape)
        for wanted, shape in zip(job.wanted, job.shapes, strict=True)
    )


class _Selection(torch.autograd.Function):
    """Values and positions, as a function of the tensors of a job."""

    @staticmethod
    def forward(ctx: Any, job: Job, numbers: tuple[int, ...], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, positions = job.compute(arrays.TORCH, dict(zip(numbers, tensors, strict=True)))
        ctx.job = job
        ctx.numbers = numbers
        ctx.save_for_backward(*tensors, positions)
        ctx.mark_non_differentiable(positions)
        ctx.set_materialize_grads(False)
        return values, positions

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor | None, _: Any) -> tuple[torch.Tensor | None, ...]:
        if cotangent is None:
            return (None, None, *(None for _ in ctx.numbers))
        *tensors, positions = ctx.saved_tensors
        pairs = _Pairs.of(ctx.job, positions)
        needed = tuple(number for number, needs in zip(ctx.numbers, ctx.needs_input_grad[2:], strict=True) if needs)
        gradients = _pull_back(pairs, dict(zip(ctx.numbers, tensors, strict=True)), needed, cotangent)
        return (None, None, *(gradients.get(number) for number in ctx.numbers))


class _Pairs(NamedTuple):
    """The selected pairs of a job: `repeats` for each row that is kept.

    Attributes:
        job: the selection.
        positions: (*batch, pairs), along the reduced axis.
        repeats: pairs of each kept row.
    """

    job: Job
    positions: torch.Tensor
    repeats: int

    @staticmethod
    def of(job: Job, positions: torch.Tensor) -> _Pairs:
        batch = job.extents.batch
        kept = (job.extents.rows if job.reduced == "j" else job.extents.columns) or 0
        count = positions.numel() // max(math.prod(batch), 1)
        return _Pairs(job, positions.reshape(*batch, count), count // max(kept, 1))

    def rows_of(self, axis: str) -> torch.Tensor:
        """Give the row that every pair reads of an array of this axis: (*batch, pairs)."""
        if axis == self.job.reduced:
            return self.positions
        pairs = self.positions.shape[-1]
        kept = (torch.arange(pairs) // max(self.repeats, 1)).expand(self.positions.shape)
        if len(axis) == 1:
            return kept
        i, j = (kept, self.positions) if self.job.reduced == "j" else (self.positions, kept)
        _, rows, columns = self.job.extents
        return i * (columns or 0) + j if axis == "ij" else j * (rows or 0) + i

    def gather(self, rows: torch.Tensor, axis: str) -> torch.Tensor:
        """Take the row of every pair: (*own batch, rows, D) gives (*batch, pairs, D)."""
        if axis not in {self.job.reduced, "ij", "ji"}:
            return rows.repeat_interleave(self.repeats, dim=-2)
        dim = rows.shape[-1]
        batch = self.positions.shape[:-1]
        index = self.rows_of(axis)[..., None].expand(*self.positions.shape, dim)
        return rows.expand(*batch, *rows.shape[-2:]).gather(-2, index)

    def scatter(self, gradient: torch.Tensor, axis: str, count: int) -> torch.Tensor:
        """Add up the gradients of the pairs of every row: the transpose of `gather`, with the whole batch."""
        *batch, pairs, dim = gradient.shape
        if axis not in {self.job.reduced, "ij", "ji"}:
            return gradient.reshape(*batch, pairs // max(self.repeats, 1), self.repeats, dim).sum(-2)
        index = self.rows_of(axis)[..., None].expand(*self.positions.shape, dim)
        return gradient.new_zeros(*batch, count, dim).scatter_add(-2, index, gradient)


def _pull_back(
    pairs: _Pairs, tensors: dict[int, torch.Tensor], needed: tuple[int, ...], cotangent: torch.Tensor
) -> dict[int, torch.Tensor]:
    job = pairs.job
    inputs = job.executable.request.inputs
    gathered: dict[int, torch.Tensor] = {}
    for number, spec in enumerate(inputs):
        source = job.sources[number]
        if spec.axis:
            array = tensors[number] if number in tensors else torch.tensor(source.array)
            rows = array.to(getattr(torch, job.dtype)).reshape(*source.shape[: source.batch], -1, spec.dim)
            gathered[number] = pairs.gather(rows, spec.axis)
        elif number in tensors:
            gathered[number] = tensors[number]
    on_pairs, places = _on_pairs(pairs, gathered)
    numbers = tuple(places[number] for number in gathered)
    weights = _at_components(cotangent.reshape(pairs.positions.shape), job.expressions[0].dim)
    needed = tuple(sorted(needed, key=places.__getitem__))  # a gradient program takes its inputs in their order
    wrt = tuple(places[number] for number in needed)
    found = FirstGradient.apply(on_pairs, numbers, wrt, weights, *gathered.values())  # type: ignore[no-untyped-call]
    extent = {"i": job.extents.rows or 0, "j": job.extents.columns or 0}
    extent["ij"] = extent["ji"] = extent["i"] * extent["j"]
    gradients: dict[int, torch.Tensor] = {}
    for number, gradient in zip(needed, found, strict=True):
        source, axis = job.sources[number], inputs[number].axis
        if axis:
            rows = pairs.scatter(gradient, axis, extent[axis])
            gradients[number] = sum_to_shape(rows, source.shape, source.batch, rows.dim() - 2)
        else:
            gradients[number] = gradient.reshape(source.shape)
    return gradients


def _at_components(cotangent: torch.Tensor, dim: int) -> torch.Tensor:
    """Spread (*batch, pairs) to (*batch, pairs, dim): each pair was selected for one component, in turn."""
    component = torch.arange(cotangent.shape[-1]) % dim
    spread = cotangent.new_zeros(*cotangent.shape, dim)
    index = component[:, None].expand(*cotangent.shape, 1)
    return spread.scatter(-1, index, cotangent[..., None])


def _on_pairs(pairs: _Pairs, gathered: dict[int, torch.Tensor]) -> tuple[Job, dict[int, int]]:
    """Prepare the sum of the formula over one column, with a row for each pair; the numbers of inputs may change."""
    job = pairs.job
    leaves: dict[Any, Expression] = {}
    used: dict[int, Any] = {}
    inputs = job.executable.request.inputs
    position = job.expressions[0].position
    # The sources that the formula names may be symbols, in whose place the job has arrays.
    for number, named in enumerate(flatten(job.expressions).sources):
        spec, source = inputs[number], job.sources[number]
        axis = "i" if spec.axis else ""
        if axis:
            rows = gathered[number].detach()
            source = arrays.array_source(rows, what="a gathered input", batch=rows.dim() - 2, view="pairs")
        used[number] = source
        leaf = Expression("var", (), (), axis, spec.dim, None if source.weak else source.dtype, source, position)
        leaves[named.identity, spec.axis, spec.dim] = leaf

    def leaf_on_pairs(leaf: Expression) -> Expression | None:
        if leaf.op == "index":
            numbers = pairs.rows_of(leaf.axes)[..., None].to(getattr(torch, job.dtype))
            source = arrays.array_source(numbers, what="indices", batch=numbers.dim() - 2, view="pairs", weak=True)
            return Expression("var", (), (), "i", 1, None, source, position)
        axis = "ji" if leaf.attributes else leaf.axes
        return leaves.get((leaf.source.identity, axis, leaf.dim)) if leaf.op == "var" else None

    formula = rebuilt(job.expressions[0], leaf_on_pairs, {"": "", "i": "i", "j": "i", "ij": "i"})
    extents = Extents(job.extents.batch, pairs.positions.shape[-1], 1)
    on_pairs = prepare((formula,), (Wanted("sum", (0,)),), reduced="j", extents=extents)
    places = {id(source): number for number, source in enumerate(on_pairs.sources)}
    return on_pairs, {number: places[id(source)] for number, source in used.items()}
