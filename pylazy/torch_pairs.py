"""Gradients of arrays that have a value for each pair: a value for each pair, found row by row.

The axis i becomes a batch dimension: each of its elements is a formula with the pairs of one row as its rows, and a
single column. So the gradient program that every formula has writes the dense gradient in one launch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from pylazy import arrays
from pylazy.execute import Job, Wanted, flatten, prepare
from pylazy.expression import Expression, apply, at_user_line, rebuilt, variable
from pylazy.programs import Extents
from pylazy.runtime.errors import UnsupportedError
from pylazy.torch_ops import input_gradients


def gradients_with_pairs(
    job: Job,
    tensors: dict[int, torch.Tensor],
    wrt: tuple[int, ...],
    cotangent: torch.Tensor,
    results: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, ...]:
    """Give the gradients of the inputs `wrt`, some of which have a value for each pair.

    Raises:
        UnsupportedError: the reduction is a product.
    """
    inputs = job.executable.request.inputs
    dense = tuple(number for number in wrt if len(inputs[number].axis) == 2)
    others = tuple(number for number in wrt if len(inputs[number].axis) != 2)
    found = dict(zip(dense, _dense_gradients(job, tensors, dense, cotangent, results), strict=True))
    if others:
        found.update(zip(others, input_gradients(job, tensors, others, cotangent, results), strict=True))
    return tuple(found[number] for number in wrt)


def _dense_gradients(
    job: Job,
    tensors: dict[int, torch.Tensor],
    wrt: tuple[int, ...],
    cotangent: torch.Tensor,
    results: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, ...]:
    kind = job.wanted[0].kind
    if kind not in {"sum", "logsumexp"}:
        raise UnsupportedError(
            at_user_line(
                f"the gradient of {kind} with respect to an array of Vij is not implemented, that of sum, mean and "
                "logsumexp is",
                job.expressions[0].position,
            )
        )
    batch, rows, columns = job.extents
    if not (rows and columns) or 0 in batch:
        return tuple(tensors[number].new_zeros(job.sources[number].shape) for number in wrt)
    by_row = _RowByRow(job, tensors)
    terms = by_row.rebuild(job.expressions[0])
    if kind == "logsumexp":
        terms = by_row.share_of(terms, results[0])
        if len(job.expressions) > 1:
            terms = apply("mul", (terms, by_row.rebuild(job.expressions[1])))
    pairs = Extents((*batch, rows), columns, 1)
    per_pair = prepare((terms,), (Wanted("sum", (0,)),), reduced="j", extents=pairs)
    places = {number: _place(per_pair, by_row.sources[number]) for number in wrt}
    spread = by_row.at_pairs(cotangent.reshape(*batch, -1, terms.dim)).expand(*batch, rows, columns, terms.dim)
    ordered = tuple(sorted(places.values()))
    found = dict(zip(ordered, input_gradients(per_pair, {}, ordered, spread, ()), strict=True))
    return tuple(_as_stored(job, number, found[places[number]]) for number in wrt)


def _as_stored(job: Job, number: int, gradient: torch.Tensor) -> torch.Tensor:
    if job.executable.request.inputs[number].axis == "ji":
        gradient = gradient.transpose(-3, -2)
    return gradient.reshape(job.sources[number].shape)


def _place(job: Job, source: Any) -> int:
    return next(number for number, found in enumerate(job.sources) if found is source)


class _RowByRow:
    """A formula whose index i has become the last batch dimension, and whose index j runs over the rows.

    Attributes:
        sources: for numbers of inputs of the job, what stands behind them now.
    """

    def __init__(self, job: Job, tensors: dict[int, torch.Tensor]) -> None:
        self.job = job
        self.sources: dict[int, Any] = {}
        self._leaves: dict[Any, Expression] = {}
        rows, columns = job.extents.rows or 0, job.extents.columns or 0
        views = {"i": (-1, 1), "j": (1, -1), "": (1, 1), "ij": (rows, columns), "ji": (columns, rows)}
        # The sources that the formula names may be symbols, in whose place the job has arrays.
        for number, named in enumerate(flatten(job.expressions).sources):
            spec, source = job.executable.request.inputs[number], job.sources[number]
            if source.kind == arrays.NUMBER:
                continue
            array = tensors[number] if number in tensors else torch.from_numpy(np.array(source.array))
            own = source.shape[: source.batch]
            array = array.detach().to(getattr(torch, job.dtype)).reshape(*own, *views[spec.axis], spec.dim)
            if spec.axis == "ji":
                array = array.transpose(-3, -2)
            leaf = _variable(array, varies_with_j="j" in spec.axis, weak=source.weak)
            self.sources[number] = leaf.source
            self._leaves[named.identity, spec.axis, spec.dim] = leaf

    def rebuild(self, formula: Expression) -> Expression:
        """Build a formula of the job on the new variables."""
        return rebuilt(formula, self._leaf, {"": "", "i": "", "j": "i", "ij": "i"})

    def _leaf(self, leaf: Expression) -> Expression | None:
        if leaf.op == "index" and leaf.axes == "i":
            numbers = torch.arange(self.job.extents.rows or 0, dtype=getattr(torch, self.job.dtype))
            return _variable(numbers[:, None, None], varies_with_j=False, weak=True)
        if leaf.op != "var":
            return None
        return self._leaves.get((leaf.source.identity, "ji" if leaf.attributes else leaf.axes, leaf.dim))

    def at_pairs(self, kept: torch.Tensor) -> torch.Tensor:
        """View a result (*batch, rows, D) as (*batch, M, 1, D) or (*batch, 1, N, D)."""
        return kept.detach().unsqueeze(-2 if self.job.reduced == "j" else -3)

    def share_of(self, formula: Expression, log_of_sum: torch.Tensor) -> Expression:
        """Build exp(f - logsumexp f), 0 where all of a row is -inf."""
        kept = self.at_pairs(log_of_sum.reshape(*self.job.extents.batch, -1, 1))
        total = torch.where(kept == -math.inf, torch.full_like(kept, math.inf), kept)
        leaf = _variable(total, varies_with_j=self.job.reduced == "i", weak=False)
        return apply("exp", (apply("sub", (formula, leaf)),))


def _variable(array: torch.Tensor, *, varies_with_j: bool, weak: bool) -> Expression:
    """Make a variable of an array (*batch, M or 1, N or 1, D), where M belongs to the batch now."""
    batch = array.dim() - 2
    if not varies_with_j:
        array = array.reshape(*array.shape[:-2], array.shape[-1])
    source = arrays.array_source(array, what="an array of a gradient", batch=batch, view="pairs", weak=weak)
    return variable(
        source, axis="i" if varies_with_j else "", dim=array.shape[-1], dtype=None if weak else source.dtype
    )
