"""Reductions of tensors, whatever torch is doing: running, recording, transforming or compiling.

Imported only where torch is loaded already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd import forward_ad

from pylazy.arrays import source_devices
from pylazy.arrays.results import empty_result, quotient, sum_to_shape
from pylazy.arrays.sources import NUMBER, TORCH
from pylazy.differentiation.program_derivatives import pull_back
from pylazy.execution.job import RUN_TENSORS
from pylazy.gpu.torch_place import TorchPlace
from pylazy.pytorch.torch_ops import run
from pylazy.reductions import REDUCTIONS, SELECTIONS
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Source
    from pylazy.execution.job import Job
    from pylazy.execution.wanted_results import Wanted

_PLAIN_CLASSES = (torch.Tensor, torch.nn.Parameter)

_functorch_is_active = torch._C._are_functorch_transforms_active
_count_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state


def run_tensors(job: Job) -> tuple[Any, ...]:
    """Run a reduction whose results remember how they were made."""
    plain = _is_plain(job.sources)
    if plain and not (torch.is_grad_enabled() and _requires_grad(job.sources)):
        return job.compute(TORCH)
    if job.reduced_extent and any(wanted.kind in SELECTIONS for wanted in job.wanted):
        from pylazy.pytorch.torch_selection import select_tensors

        return select_tensors(job)
    return _record(job) if plain else dispatch(job)


RUN_TENSORS.append(run_tensors)


def run_as_constant(job: Job) -> tuple[Any, ...]:
    """Run a reduction whose results have no derivative."""
    return job.compute(TORCH) if _is_plain(job.sources) else dispatch(job)


def _is_plain(sources: Sequence[Source]) -> bool:
    """Whether tensors are just memory: nothing in torch would see more of a call than its autograd."""
    if (
        torch.compiler.is_dynamo_compiling()
        or _functorch_is_active()
        or _count_dispatch_modes()
        or forward_ad._current_level >= 0
        or _tracing_state() is not None
    ):
        return False
    for source in sources:  # noqa: SIM110  a generator costs half a microsecond more
        if source.kind == TORCH and source.array.__class__ not in _PLAIN_CLASSES:
            return False
    return True


def _requires_grad(sources: Sequence[Source]) -> bool:
    for source in sources:  # noqa: SIM110  as above
        if source.kind == TORCH and source.array.requires_grad:
            return True
    return False


# By the op ------------------------------------------------------------------------------------------------------------


def dispatch(job: Job) -> tuple[torch.Tensor, ...]:
    """Run a reduction as a call of `pylazy::run`, which torch sees."""
    own, device = _device_of(job), _device_to_run_on(job)
    ranges = _range_tensors(job)
    ranks = [*(source.batch for source in job.sources), *(0 for _ in ranges)]
    inputs = as_tensors(job)
    if device != own:
        inputs = [tensor.to(device) for tensor in inputs]
    found = run([*inputs, *ranges], job.executable.text(), ranks)
    return tuple(
        _finished(result.to(own), wanted, job).reshape(shape)
        for result, wanted, shape in zip(found, job.wanted, job.shapes, strict=True)
    )


def _device_of(job: Job) -> torch.device:
    """The device of the tensors of a job; lists and numbers of the host may stand beside those of a GPU."""
    devices: list[torch.device] = [source.array.device for source in job.sources if source.kind == TORCH]
    return next((device for device in devices if device.type != "cpu"), devices[0])


def _device_to_run_on(job: Job) -> torch.device:
    """Where the user asks a reduction to run that torch transforms or compiles.

    Raises:
        DeviceError: the tensors lie on another GPU, or are to run on the CPU from a GPU.
        UnsupportedError: torch cannot move tensors to a GPU.
    """
    own = _device_of(job)
    if own.type == "cuda":
        TorchPlace.of(own, job.backend)
    elif job.backend is not None and job.backend.name == "GPU":
        if not torch.cuda.is_available():
            raise UnsupportedError(
                at_user_line(
                    "backend is 'GPU' for tensors of the host in a function that torch transforms or compiles, and "
                    "this torch has no CUDA: use backend='CPU'"
                )
            )
        return torch.device("cuda", max(job.backend.device_id, 0))
    return own


def _range_tensors(job: Job) -> list[torch.Tensor]:
    """The six arrays of the ranges of a job, if it has some."""
    return [] if job.ranges is None else [torch.from_numpy(array) for array in job.ranges.arrays]


def as_tensors(job: Job, tensors: dict[int, torch.Tensor] | None = None) -> list[torch.Tensor]:
    """Give every input of a job as a tensor of the dtype of the formula; some may take the place of its own."""
    dtype = getattr(torch, job.dtype)
    device = _device_of(job)
    found = []
    for number, source in enumerate(job.sources):
        if tensors is not None and number in tensors:
            found.append(tensors[number])
        elif source.kind == TORCH:
            found.append(source.array.to(device=device, dtype=dtype))
        elif source.kind == NUMBER:
            found.append(torch.tensor(source.array, dtype=dtype, device=device))
        else:
            found.append(torch.from_numpy(np.array(source.array)).to(device=device, dtype=dtype))
    return found


def _finished(result: torch.Tensor, wanted: Wanted, job: Job) -> torch.Tensor:
    """Make the result from that of another kind; see `ReductionKind.program`."""
    row = REDUCTIONS[wanted.kind]
    if not row.program:
        return result
    if wanted.kind == "mean":
        mean: torch.Tensor = quotient(result, job.terms(result))
        return mean
    if not job.reduced_extent:
        result = torch.full_like(result, row.empty or 0.0)
    return result.to(getattr(torch, row.dtype))


# As plain nodes of autograd -------------------------------------------------------------------------------------------


def _record(job: Job) -> tuple[torch.Tensor, ...]:
    numbers = [number for number, source in enumerate(job.sources) if source.kind == TORCH]
    dtype = getattr(torch, job.dtype)
    # A conversion here is one more node of the graph, so the gradient comes back in the user's own dtype.
    given = [job.sources[number].array for number in numbers]
    tensors = [tensor if tensor.dtype is dtype else tensor.to(dtype) for tensor in given]
    if job.wanted[0].kind == "mean":
        total = job.asking((job.wanted[0]._replace(kind="sum"),), job.executable, job.shapes)
        results = _Reduction.apply(total, tuple(numbers), *tensors)  # type: ignore[no-untyped-call]
        return (quotient(results[0], job.terms(results[0])),)
    return tuple(_Reduction.apply(job, tuple(numbers), *tensors))  # type: ignore[no-untyped-call]


class _Reduction(torch.autograd.Function):
    """The results of a job, as a function of its tensors; what `pylazy::run` does, at half the cost of a call.

    The inputs are the job, the numbers of the inputs that are tensors, and these tensors in the dtype of the formula.
    """

    @staticmethod
    def forward(ctx: Any, job: Job, numbers: tuple[int, ...], *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pairs = zip(numbers, tensors, strict=True)
        converted = {number: tensor for number, tensor in pairs if tensor is not job.sources[number].array}
        results = job.compute(TORCH, converted or None)
        ctx.job = job
        ctx.numbers = numbers
        described = job.executable.request.results
        saved = [result for result, own in zip(results, described, strict=True) if own.saved]
        ctx.save_for_backward(*tensors, *saved)
        ctx.mark_non_differentiable(*[result for result in results if not result.is_floating_point()])
        ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        job: Job = ctx.job
        cotangent = cotangents[0]
        if cotangent is None:
            return (None,) * (2 + len(ctx.numbers))
        if not job.executable.request.results[0].differentiable and job.reduced_extent:
            message = f"{job.wanted[0].kind} has no gradient"
            raise UnsupportedError(at_user_line(message, job.expressions[0].position))
        saved = ctx.saved_tensors
        tensors = dict(zip(ctx.numbers, saved, strict=False))
        results = saved[len(ctx.numbers) :]
        needed = [number for number, needs in zip(ctx.numbers, ctx.needs_input_grad[2:], strict=True) if needs]
        find = _recorded_gradients if torch.is_grad_enabled() else _gradients
        gradients = iter(find(job, tensors, tuple(needed), cotangent, results))
        return (None, None, *[next(gradients) if number in needed else None for number in ctx.numbers])


def _recorded_gradients(
    job: Job,
    tensors: dict[int, torch.Tensor],
    wrt: tuple[int, ...],
    cotangent: torch.Tensor,
    results: tuple[torch.Tensor, ...],
) -> list[torch.Tensor]:
    """Give gradients that can be differentiated, by calls of the op."""
    batch, rows, columns = job.extents
    spec = job.executable.request.results[0]
    shape = (*batch, {"i": rows, "j": columns}[spec.axis] or 0, spec.dim)
    ranks = [source.batch for source in job.sources]
    given = [result.reshape(shape) for result in results]
    ranges = _range_tensors(job)
    inputs = [*as_tensors(job, tensors), *ranges]
    ranks += [0] * len(ranges)
    return pull_back(run, job.executable, inputs, ranks, given, [cotangent.reshape(shape)], wrt)


def _gradients(
    job: Job,
    tensors: dict[int, torch.Tensor],
    wrt: tuple[int, ...],
    cotangent: torch.Tensor,
    results: tuple[torch.Tensor, ...],
) -> list[torch.Tensor]:
    """Run the gradient program for every batch element, then sum over the batch dimensions that an input lacks."""
    batch, rows, columns = job.extents
    pairs = (rows or 0) * (columns or 0)
    extent = {"i": rows or 0, "j": columns or 0, "": 1, "ij": pairs, "ji": pairs}
    inputs = [job.executable.request.inputs[number] for number in wrt]
    shapes = [
        (*batch, extent[spec.axis], spec.dim) if batch else job.sources[k].shape
        for k, spec in zip(wrt, inputs, strict=True)
    ]
    place = source_devices.place_of(TORCH, job.sources, job.backend)
    full = [
        empty_result(TORCH, shape, job.dtype) if place is None else place.empty(shape, job.dtype) for shape in shapes
    ]
    if rows and columns and 0 not in batch:
        if job.ranges is not None:
            for gradient, spec in zip(full, inputs, strict=True):
                if len(spec.axis) == 2:  # the sweep leaves pairs out of the ranges as they are
                    gradient.zero_()
        # These have every batch dimension as results have, so they are laid out as results are.
        given = [result.detach().contiguous() for result in (*results, cotangent)]
        for executable, places in job.executable.gradient_steps(wrt):
            arguments = [*given, *[full[number] for number in places]]
            if place is not None:
                job.launch_on(place, executable, job.locate_on(place, tensors), arguments)
            else:
                program = executable.load(job.few)
                job.check_tables(program)
                job.launch(program, arguments, tensors)
    else:
        for gradient in full:
            gradient.zero_()
    if not batch:
        return full
    return [
        sum_to_shape(gradient, job.sources[number].shape, job.sources[number].batch)
        for number, gradient in zip(wrt, full, strict=True)
    ]
