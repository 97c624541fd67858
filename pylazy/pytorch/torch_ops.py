"""The op of torch that runs a program, closed under differentiation and vmap: `pylazy::run`.

A graph of torch holds calls of this op and nothing else of pylazy: a gradient is the same op with the text of a derived
program. So autograd to any order, forward mode, torch.func, torch.compile and torch.export are rules for one op:

- CPU and CUDA give results, Meta their shapes;
- Autograd wraps the call in a node whose backward and jvp call the op again;
- the functorch key does the same at each level of torch.func, and moves a dimension of vmap to the batch dimensions.

Imported only where torch is loaded already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from pylazy import arrays
from pylazy.execute import launch
from pylazy.expression import Location, at_user_line
from pylazy.program_sizes import extents_of, rank_of_batch, result_over_nothing, result_shapes_of
from pylazy.programs import Executable, Extents, few_rows, find_by_text
from pylazy.ranges import Ranges
from pylazy.reductions import DerivedRequest, Order, ReductionRequest
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.reductions import Request, Result
    from pylazy.runtime.gpu_launch import GpuProgram
    from pylazy.runtime.launch import Program

_RANGES = 6
"""The number of arrays of block-sparse ranges."""

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
    count = len(inputs) - _RANGES * request.ranged
    extents = extents_of(request.inputs, inputs[:count], batch_ranks[:count])
    sources = [
        arrays.Source(arrays.TORCH, tensor, batch=rank, dtype=request.dtype, weak=tensor.dim() == 0, view="")
        for tensor, rank in zip(inputs[:count], batch_ranks[:count], strict=True)
    ]
    arrays.check_devices(sources)
    place = arrays.place_of(arrays.TORCH, sources, None)
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


def _on_meta(inputs: list[torch.Tensor], program: str, batch_ranks: list[int]) -> list[torch.Tensor]:
    request = find_by_text(program).request
    count = len(inputs) - _RANGES * request.ranged
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


def pull_back(
    executable: Executable,
    inputs: Sequence[torch.Tensor],
    batch_ranks: Sequence[int],
    results: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor | None],
    wrt: tuple[int, ...],
) -> list[torch.Tensor]:
    """Give the gradients of some inputs, in their shapes, as functions of everything that they depend on.

    Args:
        executable: the program.
        inputs: what it was given.
        batch_ranks: of the inputs.
        results: those that the derivative reads, in order: (*batch, rows, dim).
        cotangents: one for each result, (*batch, rows, dim), or None for zero; not all of them None.
        wrt: numbers of inputs, ascending.
    """
    executable, given = _with_results(executable, cotangents, results)
    derived = executable.derive(wrt)
    own, ranges = _without_ranges(executable, inputs)
    described = executable.request.results
    saved = [result for result in described if result.saved]
    ranks = [
        *batch_ranks[: len(own)],
        *map(rank_of_batch, (*results, *given), (*saved, *described)),
        *(0 for _ in ranges),
    ]
    found = run([*own, *results, *given, *ranges], derived.text(), ranks)
    gradients = []
    for number, gradient, spec in zip(wrt, found, derived.request.results, strict=True):
        rows = gradient.flatten(-3, -2) if len(spec.axis) == 2 else gradient
        gradients.append(arrays.sum_to_shape(rows, tuple(inputs[number].shape), batch_ranks[number]))
    return gradients


def push_forward(
    executable: Executable,
    inputs: Sequence[torch.Tensor],
    batch_ranks: Sequence[int],
    results: Sequence[torch.Tensor],
    tangents: Sequence[torch.Tensor | None],
) -> list[torch.Tensor | None]:
    """Give the tangents of the results, as functions of everything that they depend on.

    Args:
        executable: the program.
        inputs: what it was given.
        batch_ranks: of the inputs.
        results: all of them.
        tangents: one for each input, in its shape, or None for zero.
    """
    described = executable.request.results
    own, ranges = _without_ranges(executable, inputs)
    wrt = tuple(number for number, tangent in enumerate(tangents[: len(own)]) if tangent is not None)
    if not wrt or not all(result.differentiable for result in described):
        return [None] * len(described)
    derived = executable.derivative(Order("tangents", wrt))
    saved = [tensor for tensor, result in zip(results, described, strict=True) if result.saved]
    given = [tangent for tangent in tangents[: len(own)] if tangent is not None]
    ranks = [
        *batch_ranks[: len(own)],
        *map(rank_of_batch, saved, (result for result in described if result.saved)),
        *(batch_ranks[number] for number in wrt),
        *(0 for _ in ranges),
    ]
    return list(run([*own, *saved, *given, *ranges], derived.text(), ranks))


def _without_ranges(
    executable: Executable, inputs: Sequence[torch.Tensor]
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """Part the inputs of a program from the arrays of its ranges, which all its derivatives take too."""
    count = len(inputs) - _RANGES * executable.request.ranged
    return inputs[:count], inputs[count:]


def _with_results(
    executable: Executable, cotangents: Sequence[torch.Tensor | None], results: Sequence[torch.Tensor]
) -> tuple[Executable, list[torch.Tensor]]:
    """Leave out the results that have no cotangent."""
    given = [cotangent for cotangent in cotangents if cotangent is not None]
    request = executable.request
    if len(given) == len(cotangents):
        return executable, given
    assert not results
    kept = tuple(number for number, cotangent in enumerate(cotangents) if cotangent is not None)
    return find_by_text(_with_some_results(request, kept).canonical_text()), given


def _with_some_results(request: Request, kept: tuple[int, ...]) -> Request:
    """Ask for the results of these numbers only; the inputs stay what they are."""
    if isinstance(request, ReductionRequest):
        raise UnsupportedError(at_user_line("a program of several reductions has no gradient of one of them alone"))
    order = request.order
    if order.mode == "wrt":
        return DerivedRequest(request.forward, Order("wrt", tuple(order.numbers[number] for number in kept)))
    return DerivedRequest(_with_some_results(request.forward, kept), order)


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
        found = pull_back(ctx.executable, saved[:count], ctx.batch_ranks, saved[count:], cotangents, wrt)
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
            return tuple(push_forward(ctx.executable, inputs, ctx.batch_ranks, results, tangents))

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
    "Meta": _on_meta,
    "Autograd": _as_node,
    "FuncTorchDynamicLayerFrontMode": _as_node,
}.items():
    _LIBRARY.impl("run", _kernel, _key)
