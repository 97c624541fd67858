"""Reductions of traced arrays: calls of a program, whose derivatives are calls of derived programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.imported_arrays import readable
from pylazy.arrays.results import quotient
from pylazy.arrays.source_devices import check_devices, recorder_of
from pylazy.arrays.sources import array_source
from pylazy.differentiation.array_spaces import library_beside
from pylazy.differentiation.numpy_functions import convert
from pylazy.differentiation.program_derivatives import (
    evaluate_and_pull_back,
    evaluate_and_push_forward,
    pull_back,
    push_forward,
    without_ranges,
)
from pylazy.differentiation.selections import select
from pylazy.differentiation.traces import Call, Operation, Spec, apply, untraced
from pylazy.execution.program_runs import run_on_arrays
from pylazy.execution.program_sizes import extents_of, result_shapes_of
from pylazy.execution.programs import find_by_text
from pylazy.reductions import REDUCTIONS, SELECTIONS, DerivedRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Source
    from pylazy.execution.job import Job
    from pylazy.execution.programs import Executable
    from pylazy.execution.wanted_results import Wanted


def record(job: Job) -> tuple[Any, ...]:
    """Give the results of a reduction of traced arrays, in the dtypes that users see."""
    if not any(_has_derivative(wanted) for wanted in job.wanted):
        return job.rounded(job.compute(check_devices(job.sources)))
    return tuple(
        convert(result, REDUCTIONS[wanted.kind].result_dtype(job.storage))
        for result, wanted in zip(record_unrounded(job), job.wanted, strict=True)
    )


def record_unrounded(job: Job) -> tuple[Any, ...]:
    """As `record`, for results that vary with their data, in the dtype of the arithmetic."""
    if any(wanted.kind.removeprefix("arg") in SELECTIONS for wanted in job.wanted) and job.reduced_extent:
        return select(job, _TracedArrays())
    results = _run(_inputs(job), job.executable.text(), _batch_ranks(job))
    return tuple(
        _finished(result.reshape(shape), wanted, job)
        for result, wanted, shape in zip(results, job.wanted, job.shapes, strict=True)
    )


def _has_derivative(wanted: Wanted) -> bool:
    return REDUCTIONS[wanted.kind].differentiable or wanted.kind == "mean" or wanted.kind in SELECTIONS


def _finished(result: Any, wanted: Wanted, job: Job) -> Any:
    """Make the result from that of another kind; see `ReductionKind.program`."""
    return quotient(result, job.terms(result)) if wanted.kind == "mean" else result


def _inputs(job: Job) -> list[Any]:
    """Give the inputs of a job: traced arrays in its dtype, and others as they are, then the arrays of its ranges."""
    found = []
    for source, spec in zip(job.sources, job.executable.request.inputs, strict=True):
        array = _array_of(source, job.dtype)
        if len(spec.axis) == 1 and array.shape[-1:] != (spec.dim,):  # a vector, as v of K @ v
            array = array.reshape((*array.shape, spec.dim))
        found.append(array)
    return [*found, *(() if job.ranges is None else job.ranges.arrays)]


def _array_of(source: Source, dtype: str) -> Any:
    if source.imported is None:
        return np.asarray(source.array, dtype=dtype)
    array = convert(source.imported.owner, dtype)
    return array if array.shape == source.shape else array.reshape(source.shape)


def _batch_ranks(job: Job) -> list[int]:
    return [*(source.batch for source in job.sources), *(() if job.ranges is None else (0,) * len(job.ranges.arrays))]


# The operation --------------------------------------------------------------------------------------------------------


def _run(inputs: Sequence[Any], program: str, batch_ranks: Sequence[int]) -> tuple[Any, ...]:
    return apply(_RUN, *inputs, executable=find_by_text(program), batch_ranks=tuple(batch_ranks))


def _compute(*inputs: Any, executable: Executable, batch_ranks: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(run_on_arrays(executable, inputs, batch_ranks))


def _specs(*inputs: Spec, executable: Executable, batch_ranks: tuple[int, ...]) -> tuple[Spec, ...]:
    request = executable.request
    own, _ = without_ranges(executable, inputs)
    shapes = result_shapes_of(request, extents_of(request.inputs, own, batch_ranks[: len(own)]))
    return tuple(
        Spec(tuple(shape), np.dtype(result.dtype)) for shape, result in zip(shapes, request.results, strict=True)
    )


def _vjp(call: Call, cotangents: Sequence[Any]) -> list[Any]:
    executable: Executable = call.attributes["executable"]
    ranks = call.attributes["batch_ranks"]
    inputs = call.values
    described = executable.request.results
    wrt = tuple(number for number in range(len(inputs)) if call.varies(number))
    given: list[Any] = list(cotangents)
    if _keeps_all_results(executable):
        given = [
            library_beside(inputs[wrt[0]]).zeros(spec.shape, spec.dtype) if ct is None else ct
            for ct, spec in zip(given, call.specs(), strict=True)
        ]
    reads_results = any(result.saved for result in described)
    is_complete = all(ct is not None for ct in given)
    if call.is_pending and is_complete and (reads_results or call.trace.with_values):
        results, gradients = evaluate_and_pull_back(_run, executable, inputs, ranks, given, wrt)
        call.give_results(results)
    else:
        saved = (
            [own for own, result in zip(call.results, described, strict=True) if result.saved] if reads_results else []
        )
        gradients = pull_back(_run, executable, inputs, ranks, saved, given, wrt)
    found: list[Any] = [None] * len(inputs)
    for number, gradient in zip(wrt, gradients, strict=True):
        found[number] = gradient
    return found


def _keeps_all_results(executable: Executable) -> bool:
    """Whether no result can be left out: a derivative of reductions with their results has them all."""
    request = executable.request
    while isinstance(request, DerivedRequest):
        if request.order.with_results:
            return True
        request = request.forward
    return len(request.results) > 1


def _jvp(call: Call, tangents: Sequence[Any]) -> list[Any]:
    executable: Executable = call.attributes["executable"]
    ranks = call.attributes["batch_ranks"]
    if call.is_pending:
        results, found = evaluate_and_push_forward(_run, executable, call.values, ranks, tangents)
        call.give_results(results)
        return found
    return push_forward(_run, executable, call.values, ranks, call.results, tangents)


_RUN = Operation("a reduction", _compute, _vjp, _jvp, specs=_specs, waits=True)


# Selections -----------------------------------------------------------------------------------------------------------


class _TracedArrays:
    """Traced arrays, and NumPy's; see `pylazy.differentiation.selections.Library`."""

    def arange(self, count: int, like: Any) -> Any:
        return library_beside(like).arange(count)

    def broadcast(self, array: Any, shape: tuple[int, ...]) -> Any:
        return np.broadcast_to(array, shape)

    def take(self, array: Any, positions: Any, axis: int) -> Any:
        return np.take_along_axis(array, positions, axis)

    def where_finite(self, values: Any, then: Any, otherwise: Any) -> Any:
        return np.where(np.isfinite(values), then, otherwise)

    def where_zero(self, counts: Any, then: Any, otherwise: Any) -> Any:
        return np.where(np.equal(counts, 0), then, otherwise)

    def detached(self, array: Any) -> Any:
        return untraced(array)

    def as_dtype(self, array: Any, dtype: str) -> Any:
        return array.astype(dtype)

    def inputs(self, job: Job) -> list[Any]:
        return [_array_of(source, job.dtype) for source in job.sources]

    def source(self, array: Any, *, batch: int, weak: bool) -> Source:
        found = readable(array)
        return array_source(found, what="a gathered input", batch=batch, view="pairs", weak=weak)

    def run_as_constant(self, job: Job) -> tuple[Any, ...]:
        return job.compute(check_devices(job.sources))

    def run(self, job: Job) -> Any:
        kind = check_devices(job.sources)
        if recorder_of(kind, job.sources) is None:  # what varies is not among the selected pairs
            return job.compute(kind)[0]
        return record_unrounded(job)[0]
