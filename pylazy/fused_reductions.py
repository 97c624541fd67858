"""Several reductions over the same pairs in one program."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pylazy.arrays import source_devices
from pylazy.arrays.results import empty_result, given_back
from pylazy.arrays.source_devices import check_devices
from pylazy.arrays.sources import DLPACK, TORCH, remembers
from pylazy.canonical_form import flatten
from pylazy.execution.cpu_launch import launch
from pylazy.execution.programs import Executable
from pylazy.execution.wanted_results import request_outputs
from pylazy.reductions import Output, ReductionRequest
from pylazy.runtime.errors import DeviceError, DtypeError, ShapeError, UnsupportedError
from pylazy.stages import Reduction, stage_as_text
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.execution.job import Job
    from pylazy.expression import Expression
    from pylazy.options import Backend

_MAX_EXECUTABLES = 4096
_EXECUTABLES: dict[tuple[Any, ...], Executable] = {}


def evaluate(*reductions: Reduction, call: bool = True) -> Any:
    """Run several reductions over the same pairs in one program, which shares what they have in common.

    Those over one axis make one sweep; those over i and those over j make two, in one launch.

    Args:
        *reductions: made with `call=False`; of one batch shape, one M and one N, and one dtype.
        call: run now; else return the `FusedReductions`, to be called later or read.

    Returns:
        A tuple with the result of each: an array, or a tuple of them where a reduction has several. Where a tensor
        requires a gradient the reductions run one by one, as their gradients do.

    Raises:
        DtypeError: something else than a Reduction was given, or the dtypes differ.
        ShapeError: the reductions are over different pairs.
        DeviceError: they are asked to run in different places.
        UnsupportedError: a reduction has symbolic variables.
    """
    fused = FusedReductions(reductions)
    return fused() if call else fused


class FusedReductions:
    """Several reductions over the same pairs in one program: call it, or read it."""

    __slots__ = ("_executable", "_reductions", "_sources")

    def __init__(self, reductions: Sequence[Reduction]) -> None:
        jobs = [_job_of(reduction, number) for number, reduction in enumerate(reductions)]
        if not jobs:
            raise ShapeError(at_user_line("no reductions to evaluate, expected at least one"))
        for number, job in enumerate(jobs[1:], start=1):
            _check_pair(jobs[0], job, number)
        self._reductions = tuple(reductions)
        expressions: list[Expression] = []
        firsts = []
        for job in jobs:
            firsts.append(len(expressions))
            expressions += job.expressions
        flat = flatten(expressions)
        dtype = jobs[0].dtype
        outputs: list[Output] = []
        for first, job in zip(firsts, jobs, strict=True):
            outputs += request_outputs(flat.roots[first:], job.expressions, job.wanted, job.reduced, dtype)
        ranged = jobs[0].ranges is not None
        key = (flat.entries, tuple(outputs), dtype, ranged)
        executable = _EXECUTABLES.get(key)
        if executable is None:
            request = ReductionRequest(dtype, flat.entries, flat.inputs(), flat.nodes(), tuple(outputs), ranged)
            # Threads may race to make it; setdefault lets one win, and the kernel cache builds each program once.
            executable = _EXECUTABLES.setdefault(key, Executable(request))
            while len(_EXECUTABLES) > _MAX_EXECUTABLES:
                _EXECUTABLES.pop(next(iter(_EXECUTABLES)), None)
        self._executable = executable
        self._sources = flat.sources

    def __call__(self) -> tuple[Any, ...]:
        """Run on the data as it is now; see `evaluate`."""
        kind = check_devices(self._sources)
        if any(source.imported is not None and remembers(source) for source in self._sources):
            return tuple(reduction() for reduction in self._reductions)
        if kind == TORCH and sys.modules["torch"].is_grad_enabled():
            tensors = [source.array for source in self._sources if source.kind == TORCH]
            if any(tensor.requires_grad for tensor in tensors):
                return tuple(reduction() for reduction in self._reductions)
        return self._compute(kind)

    def _compute(self, kind: str) -> tuple[Any, ...]:
        jobs = [_job_of(reduction, number) for number, reduction in enumerate(self._reductions)]
        first = jobs[0]
        shapes = [shape for job in jobs for shape in job.shapes]
        outputs = self._executable.reductions.outputs
        batch, rows, columns = first.extents
        is_empty = not (rows and columns) or 0 in batch
        place = source_devices.place_of(kind, self._sources, first.backend)
        if place is not None and is_empty:
            made = [result for job in jobs for result in job.full_on(place)]
        elif place is not None:
            made = [place.empty(shape, spec.dtype) for shape, spec in zip(shapes, outputs, strict=True)]
            inputs = [place.locate(source, first.dtype) for source in self._sources]
            first.launch_on(place, self._executable, inputs, made)
            made = [place.delivered(result) for result in made]
        else:
            made = [empty_result(kind, shape, spec.dtype) for shape, spec in zip(shapes, outputs, strict=True)]
            if not is_empty:
                located = [source.locate(first.dtype) for source in self._sources]
                launch(self._executable.load(first.few), located, made, first.extents, first.ranges)
        results = []
        for job, reduction in zip(jobs, self._reductions, strict=True):
            own, made = made[: len(job.shapes)], made[len(job.shapes) :]
            if is_empty and place is None:
                job.fill_empty(own)
            finished = tuple(job.finish(result, wanted.kind) for result, wanted in zip(own, job.wanted, strict=True))
            finished = job.rounded(finished)
            if kind == DLPACK:
                finished = tuple(given_back(result, self._sources) for result in finished)
            results.append(finished[0] if reduction.is_single else finished)
        return tuple(results)

    @property
    def shape(self) -> tuple[Any, ...]:
        """The shape of each result, or a tuple of shapes where a reduction has several."""
        return tuple(reduction.shape for reduction in self._reductions)

    @property
    def executable(self) -> Executable:
        """The programs."""
        return self._executable

    @property
    def few(self) -> str:
        """The axis with few rows, if any; see `few_rows`."""
        return self._reductions[0].few

    def as_text(self, stage: str = "formula", *, target: str | None = None) -> str:
        """Write one stage of the road from formulas to machine code; see `Reduction.as_text`."""
        return stage_as_text(self._executable, self.few, stage, target)

    def __repr__(self) -> str:
        return f"<FusedReductions of {', '.join(map(repr, self._reductions))}>"


def _job_of(reduction: Any, number: int) -> Job:
    if not isinstance(reduction, Reduction):
        raise DtypeError(
            at_user_line(
                f"argument {number} is {type(reduction).__name__}, expected a Reduction, as K.sum(axis=1, call=False)"
            )
        )
    job = reduction.job
    if job is None:
        raise UnsupportedError(
            at_user_line(f"argument {number} has symbolic variables, expected data: call each Reduction by itself")
        )
    return job


def _check_pair(first: Job, job: Job, number: int) -> None:
    if job.extents != first.extents:
        sizes = [f"batch {e.batch}, M = {e.rows}, N = {e.columns}" for e in (first.extents, job.extents)]
        raise ShapeError(
            at_user_line(
                f"argument {number} is over {sizes[1]}, and argument 0 over {sizes[0]}: reductions that share a sweep "
                "are over the same pairs"
            )
        )
    if job.ranges is not first.ranges:
        raise ShapeError(
            at_user_line(f"argument {number} has other ranges than argument 0, expected the same: give both one tuple")
        )
    if job.backend != first.backend:
        raise DeviceError(
            at_user_line(
                f"argument {number} has backend {_named(job.backend)}, and argument 0 {_named(first.backend)}: "
                "reductions that share a sweep run in one place"
            )
        )
    if job.dtype != first.dtype:
        raise DtypeError(
            at_user_line(
                f"argument {number} has dtype {job.dtype}, and argument 0 {first.dtype}, expected one dtype: convert "
                "the inputs of one of them"
            )
        )


def _named(backend: Backend | None) -> str:
    return "'auto'" if backend is None else f"{backend.name!r} with device_id {backend.device_id}"
