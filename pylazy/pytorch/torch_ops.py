"""The op of torch that runs a program, closed under differentiation and vmap: `pylazy::run`.

A graph of torch holds calls of this op and nothing else of pylazy: a gradient is the same op with the text of a derived
program. So autograd to any order, forward mode, torch.func, torch.compile and torch.export are rules for one op:

- CPU and CUDA give results, and what is registered for fake tensors their shapes;
- Autograd wraps the call in a node whose backward and jvp call the op again;
- the functorch key does the same at each level of torch.func, and moves a dimension of vmap to the batch dimensions.

Imported only where torch is loaded already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from pylazy.arrays import source_devices
from pylazy.arrays.source_devices import check_devices
from pylazy.arrays.sources import TORCH, Source
from pylazy.block_sparse.ranges import Ranges
from pylazy.differentiation.program_derivatives import RANGES, pull_back, push_forward
from pylazy.execution.cpu_launch import launch
from pylazy.execution.program_sizes import extents_of, result_over_nothing, result_shapes_of
from pylazy.execution.programs import Extents, few_rows, find_by_text
from pylazy.user_positions import Location

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.reductions import Request, Result
    from pylazy.runtime.gpu_launch import GpuProgram
    from pylazy.runtime.launch import Program

_LIBRARY: Any = torch.library.Library("pylazy", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("run(Tensor[] inputs, str program, int[] batch_ranks) -> Tensor[]")


def run(inputs: Sequence[torch.Tensor], program: str, batch_ranks: Sequence[int]) -> list[torch.Tensor]:
    """Run a program.

    Args:
        inputs: the input buffers, in the dtype of the program. Each has `batch_ranks` dimensions of a batch, which
            broadcast, then (rows, dim), (rows, 1, dim), (1, rows, dim), what has dim elements for axis "", (M, N, dim)
            for axis "ij", (N, M, dim) for axis "ji", or these without dim where it is 1. Where the program is ranged,
            the six arrays of the ranges follow, int64.
        program: its text; see `Executable.text`.
        batch_ranks: for each input the number of its leading batch dimensions; 0 for the arrays of ranges.

    Returns:
        Tensors (*batch, rows, dim), one for each result; one row for axis "", and for pairs as inputs are.
    """
    results: list[torch.Tensor] = torch.ops.pylazy.run.default(inputs, program, batch_ranks)
    return results


# What it computes -----------------------------------------------------------------------------------------------------


def _compute(inputs: list[torch.Tensor], program: str, batch_ranks: list[int]) -> list[torch.Tensor]:
    executable = find_by_text(program)
    request = executable.request
    count = len(inputs) - RANGES * request.ranged
    extents = extents_of(request.inputs, inputs[:count], batch_ranks[:count])
    sources = [
        Source(TORCH, tensor, batch=rank, dtype=request.dtype, weak=tensor.dim() == 0, view="")
        for tensor, rank in zip(inputs[:count], batch_ranks[:count], strict=True)
    ]
    check_devices(sources)
    place = source_devices.place_of(TORCH, sources, None)
    device = next((source.array.device for source in sources if source.array.is_cuda), "cpu")
    results = _empty_results(request, extents, device)
    if not (extents.rows and extents.columns) or 0 in extents.batch:
        for number, result in enumerate(results):
            result.fill_(result_over_nothing(request, number))
        return results
    ranges = Ranges(inputs[count:]) if request.ranged else None
    if place is None:
        few = "" if request.ranged else few_rows(extents, request.dtype)
        loaded = executable.load(few)
        _check_tables(loaded, ranges, extents)
        launch(loaded, [source.locate(request.dtype) for source in sources], results, extents, ranges)
    else:
        on_gpu = place.load(executable)
        _check_tables(on_gpu, ranges, extents)
        located = [place.locate(source, request.dtype) for source in sources]
        place.launch(on_gpu, located, results, extents, ranges)
    return results


def _check_tables(program: Program | GpuProgram, ranges: Ranges | None, extents: Extents) -> None:
    """Check that a program may use both halves of ranges, where it does."""
    if ranges is not None and sum(buffer.role == "table" for buffer in program.image.arguments) > 1:
        position = (None, Location("<a graph of torch>", 0, 0, ""))
        ranges.check_transposes(extents.rows or 0, extents.columns or 0, position)


def _fake(inputs: list[torch.Tensor], program: str, batch_ranks: list[int]) -> list[torch.Tensor]:
    request = find_by_text(program).request
    count = len(inputs) - RANGES * request.ranged
    extents = extents_of(request.inputs, inputs[:count], batch_ranks[:count])
    # Numbers of the host may stand beside tensors of a GPU.
    device = next((tensor.device for tensor in inputs[:count] if tensor.dim()), inputs[0].device)
    return _empty_results(request, extents, device)


def _empty_results(request: Request, extents: Extents, device: Any) -> list[torch.Tensor]:
    found = []
    for result, shape in zip(request.results, result_shapes_of(request, extents), strict=True):
        # A sweep over ranges leaves the other pairs of a table as they are.
        make = torch.zeros if request.ranged and len(result.axis) == 2 else torch.empty
        found.append(make(shape, dtype=getattr(torch, result.dtype), device=device))
    return found


# Its derivatives ------------------------------------------------------------------------------------------------------


class _Run(torch.autograd.Function):
    """A call of the op as a node of the graph of autograd."""

    @staticmethod
    def forward(program: str, batch_ranks: tuple[int, ...], *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(run(inputs, program, batch_ranks))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        program, ctx.batch_ranks, *tensors = inputs
        ctx.executable = find_by_text(program)
        described = ctx.executable.request.results
        ctx.count = len(tensors)
        ctx.mark_non_differentiable(
            *(result for result, own in zip(output, described, strict=True) if not own.differentiable)
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *_saved(output, described))
        ctx.save_for_forward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        count: int = ctx.count
        wrt = tuple(number for number, needs in enumerate(ctx.needs_input_grad[2:]) if needs)
        if all(cotangent is None for cotangent in cotangents):
            return (None,) * (2 + count)
        saved = ctx.saved_tensors
        found = pull_back(run, ctx.executable, saved[:count], ctx.batch_ranks, saved[count:], cotangents, wrt)
        gradients: list[torch.Tensor | None] = [None] * (2 + count)
        for number, gradient in zip(wrt, found, strict=True):
            gradients[2 + number] = gradient
        return tuple(gradients)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        # torch runs this without forward mode, which would lose the tangents of the levels below this one.
        with forward_ad._set_fwd_grad_enabled(True):
            primals = [_primal(tensor) for tensor in saved]
            inputs, results = primals[: ctx.count], primals[ctx.count :]
            return tuple(push_forward(run, ctx.executable, inputs, ctx.batch_ranks, results, tangents))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], program: str, batch_ranks: tuple[int, ...], *inputs: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        del info
        longest = max(batch_ranks)
        moved, ranks = [], []
        for tensor, rank, dim in zip(inputs, batch_ranks, in_dims[2:], strict=True):
            if dim is None:
                moved.append(tensor)
                ranks.append(rank)
            else:
                first_then_padding = (slice(None), *((None,) * (longest - rank)))
                moved.append(tensor.movedim(dim, 0)[first_then_padding])
                ranks.append(longest + 1)
        results = tuple(run(moved, program, ranks))
        return results, (0,) * len(results)


def _primal(tensor: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = forward_ad.unpack_dual(tensor, level=0).primal  # type: ignore[no-untyped-call]
    return found


def _saved(results: Sequence[torch.Tensor], described: Sequence[Result]) -> list[torch.Tensor]:
    return [result for result, own in zip(results, described, strict=True) if own.saved]


def _as_node(inputs: list[torch.Tensor], program: str, batch_ranks: list[int]) -> list[torch.Tensor]:
    return list(_Run.apply(program, tuple(batch_ranks), *inputs))  # type: ignore[no-untyped-call]


for _key, _kernel in {
    "CPU": _compute,
    "CUDA": _compute,
    "Autograd": _as_node,
    "FuncTorchDynamicLayerFrontMode": _as_node,
}.items():
    _LIBRARY.impl("run", _kernel, _key)
# Not as a kernel for meta tensors alone: fake tensors would then have to be on one device, and ranges are on the host.
torch.library.register_fake("pylazy::run", _fake, lib=_LIBRARY)
