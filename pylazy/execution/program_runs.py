"""Runs of a program on arrays of NumPy or of a GPU's library, whose sizes say what the program's extents are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.imported_arrays import readable
from pylazy.arrays.source_devices import check_devices, place_of
from pylazy.arrays.sources import DEVICE, array_source
from pylazy.block_sparse.ranges import Ranges
from pylazy.differentiation.array_spaces import as_array
from pylazy.differentiation.program_derivatives import without_ranges
from pylazy.execution.cpu_launch import launch
from pylazy.execution.program_sizes import extents_of, result_over_nothing, result_shapes_of
from pylazy.execution.programs import few_rows
from pylazy.user_positions import Location

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Source
    from pylazy.execution.programs import Executable, Extents
    from pylazy.gpu.places import Place
    from pylazy.runtime.gpu_launch import GpuProgram
    from pylazy.runtime.launch import Program


def run_on_arrays(executable: Executable, inputs: Sequence[Any], batch_ranks: Sequence[int]) -> list[Any]:
    """Run a program.

    Args:
        executable: the program.
        inputs: arrays as `pylazy.pytorch.torch_ops.run` takes them.
        batch_ranks: for each input the number of its leading batch dimensions; those of arrays of ranges are not read.

    Returns:
        Arrays (*batch, rows, dim), one for each result; one row for axis "", and for pairs as inputs are.
    """
    request = executable.request
    own, ranges = without_ranges(executable, inputs)
    ranks = batch_ranks[: len(own)]
    extents = extents_of(request.inputs, own, ranks)
    sources = [
        array_source(readable(as_array(array)), what="an input of a program", batch=rank, view="", weak=not array.shape)
        for array, rank in zip(own, ranks, strict=True)
    ]
    kind = check_devices(sources)
    if kind == DEVICE:
        place = place_of(kind, sources, None)
        assert place is not None
        return _run_on_gpu(place, executable, sources, extents, ranges)
    shapes = result_shapes_of(request, extents)
    # A sweep over ranges leaves the other pairs of a table as they are.
    results = [
        (np.zeros if ranges and len(spec.axis) == 2 else np.empty)(shape, spec.dtype)
        for spec, shape in zip(request.results, shapes, strict=True)
    ]
    if not (extents.rows and extents.columns) or 0 in extents.batch:
        for number, result in enumerate(results):
            result.fill(result_over_nothing(request, number))
        return results
    dtype = request.dtype
    located = [source.locate(dtype) for source in sources]
    if ranges:
        read = Ranges(ranges)
        program = executable.load()
        _check_tables(program, read, extents)
        launch(program, located, results, extents, read)
    else:
        launch(executable.load(few_rows(extents, dtype)), located, results, extents)
    return results


def _run_on_gpu(
    place: Place, executable: Executable, sources: Sequence[Source], extents: Extents, ranges: Sequence[Any]
) -> list[Any]:
    """As `run_on_arrays`, where the arrays lie on a GPU."""
    request = executable.request
    shapes = result_shapes_of(request, extents)
    if not (extents.rows and extents.columns) or 0 in extents.batch:
        return [
            place.full(shape, result_over_nothing(request, number), spec.dtype)
            for number, (spec, shape) in enumerate(zip(request.results, shapes, strict=True))
        ]
    # A sweep over ranges leaves the other pairs of a table as they are.
    results = [
        place.full(shape, 0.0, spec.dtype) if ranges and len(spec.axis) == 2 else place.empty(shape, spec.dtype)
        for spec, shape in zip(request.results, shapes, strict=True)
    ]
    program = place.load(executable)
    read = Ranges(ranges) if ranges else None
    if read is not None:
        _check_tables(program, read, extents)
    place.launch(program, [place.locate(source, request.dtype) for source in sources], results, extents, read)
    return [place.delivered(result) for result in results]


def _check_tables(program: Program | GpuProgram, ranges: Ranges, extents: Extents) -> None:
    """Check that a program may use both halves of ranges, where it does."""
    if sum(buffer.role == "table" for buffer in program.image.arguments) > 1:
        position = (None, Location("<a derivative>", 0, 0, ""))
        ranges.check_transposes(extents.rows or 0, extents.columns or 0, position)
