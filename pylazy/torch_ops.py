"""Reductions of tensors as nodes of the graph of torch's autograd.

Imported only where a tensor requires a gradient, so where torch is loaded already.
"""

from __future__ import annotations

from typing import Any

import torch

from pylazy import arrays
from pylazy.execute import Job, Wanted, launch, prepare
from pylazy.expression import apply, at_user_line, variable
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import UnsupportedError

SELECTIONS = frozenset({"min", "max", "kmin", "kmax"})
"""Reductions whose results are values of the formula at some pairs."""


def run_differentiable(job: Job) -> tuple[Any, ...]:
    """Run a reduction whose results remember how they were made.

    Raises:
        UnsupportedError: in the backward pass, where the reduction has no gradient yet.
    """
    if job.wanted[0].kind == "softmax":
        return (_softmax(job),)
    numbers = [number for number, source in enumerate(job.sources) if source.kind == arrays.TORCH]
    kind = job.wanted[0].kind
    dtype = getattr(torch, job.dtype)
    # A conversion here is one more node of the graph, so the gradient comes back in the user's own dtype.
    tensors = [job.sources[number].array.to(dtype) for number in numbers]
    if kind.removeprefix("arg") in SELECTIONS and job.reduced_extent:
        from pylazy.torch_selection import select

        return select(job, tuple(numbers), tensors)
    if kind == "mean":
        total = _derived(job, (Wanted("sum", (0,)),), job.shapes)
        results = _Reduction.apply(total, tuple(numbers), *tensors)  # type: ignore[no-untyped-call]
        return (results[0] / job.reduced_extent,)
    return tuple(_Reduction.apply(job, tuple(numbers), *tensors))  # type: ignore[no-untyped-call]


class _Reduction(torch.autograd.Function):
    """The results of a job, as a function of its tensors.

    The inputs are the job, the numbers of the inputs that are tensors, and these tensors in the dtype of the formula.
    """

    @staticmethod
    def forward(ctx: Any, job: Job, numbers: tuple[int, ...], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = job.compute(arrays.TORCH, dict(zip(numbers, tensors, strict=True)))
        ctx.job = job
        ctx.numbers = numbers
        saved = results if job.wanted[0].kind == "logsumexp" else ()
        ctx.save_for_backward(*tensors, *saved)
        ctx.mark_non_differentiable(*(result for result in results if not result.is_floating_point()))
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        job: Job = ctx.job
        nothing = (None, None, *(None for _ in ctx.numbers))
        kind = job.wanted[0].kind
        cotangent = cotangents[0]
        if cotangent is None:
            return nothing
        if not REDUCTIONS[kind].differentiable and job.reduced_extent:
            message = f"{kind} has no gradient"
            raise UnsupportedError(at_user_line(message, job.expressions[0].position))
        saved = ctx.saved_tensors
        tensors, results = saved[: len(ctx.numbers)], saved[len(ctx.numbers) :]
        needed = [number for number, needs in zip(ctx.numbers, ctx.needs_input_grad[2:], strict=True) if needs]
        gradients = iter(FirstGradient.apply(job, ctx.numbers, tuple(needed), cotangent, *tensors, *results))  # type: ignore[no-untyped-call]
        return (None, None, *(next(gradients) if number in needed else None for number in ctx.numbers))


class FirstGradient(torch.autograd.Function):
    """The gradient of a job; a node of the graph only so that a second derivative is refused in plain words."""

    @staticmethod
    def forward(
        ctx: Any,
        job: Job,
        numbers: tuple[int, ...],
        wrt: tuple[int, ...],
        cotangent: torch.Tensor,
        *tensors_and_results: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Give the gradients of the inputs `wrt`."""
        ctx.job = job
        tensors = dict(zip(numbers, tensors_and_results, strict=False))
        results = tensors_and_results[len(numbers) :]
        return _gradients(job, tensors, wrt, cotangent, results)

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Refuse a second derivative."""
        message = "second derivatives of reductions are not implemented yet: take gradients without create_graph=True"
        raise UnsupportedError(at_user_line(message, ctx.job.expressions[0].position))


def _gradients(
    job: Job,
    tensors: dict[int, torch.Tensor],
    wrt: tuple[int, ...],
    cotangent: torch.Tensor,
    results: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, ...]:
    """Run the gradient program for every batch element, then sum over the batch dimensions that an input lacks."""
    batch, rows, columns = job.extents
    pairs = (rows or 0) * (columns or 0)
    extent = {"i": rows or 0, "j": columns or 0, "": 1, "ij": pairs, "ji": pairs}
    inputs = [job.executable.request.inputs[number] for number in wrt]
    full = [arrays.empty_result(arrays.TORCH, (*batch, extent[spec.axis], spec.dim), job.dtype) for spec in inputs]
    if rows and columns and 0 not in batch:
        # These have every batch dimension as results have, so they are laid out as results are.
        given = [result.detach().contiguous() for result in (*results, cotangent)]
        launch(job.executable.gradient(wrt, job.few), job.locate(tensors), [*given, *full], job.extents)
    else:
        for gradient in full:
            gradient.zero_()
    return tuple(
        sum_to_shape(gradient, job.sources[number].shape, job.sources[number].batch, len(batch))
        for number, gradient in zip(wrt, full, strict=True)
    )


def sum_to_shape(gradient: torch.Tensor, shape: tuple[int, ...], own_batch: int, batch: int) -> torch.Tensor:
    """Sum a gradient over the batch dimensions that an array lacks or repeats along."""
    missing = batch - own_batch
    repeated = [
        axis for axis in range(batch) if axis < missing or (shape[axis - missing] == 1 and gradient.shape[axis] != 1)
    ]
    if repeated:
        gradient = gradient.sum(repeated)
    return gradient.reshape(shape)


def _softmax(job: Job) -> torch.Tensor:
    """Compose the weighted softmax of reductions that have gradients: the sum of exp(f - logsumexp f) g."""
    f, g = job.expressions
    logsumexp = prepare((f,), (Wanted("logsumexp", (0,)),), reduced=job.reduced, extents=job.extents).run()[0]
    source = arrays.array_source(logsumexp, what="logsumexp", batch=len(job.extents.batch), view="softmax")
    kept = variable(source, axis="i" if job.reduced == "j" else "j", dim=1, dtype=job.dtype)
    weight = apply("exp", (apply("sub", (f, kept)),))
    total = prepare((apply("mul", (weight, g)),), (Wanted("sum", (0,)),), reduced=job.reduced, extents=job.extents)
    result: torch.Tensor = total.run()[0].reshape(job.shapes[0])
    return result


def _derived(job: Job, wanted: tuple[Wanted, ...], shapes: tuple[tuple[int, ...], ...]) -> Job:
    return Job(
        job.executable,
        job.sources,
        job.expressions,
        dtype=job.dtype,
        extents=job.extents,
        reduced=job.reduced,
        wanted=wanted,
        shapes=shapes,
    )
