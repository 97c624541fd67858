"""Runs of a program on arrays that NumPy sees, whose sizes say what the program's extents are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.sources import NUMPY, Source
from pylazy.block_sparse.ranges import Ranges
from pylazy.differentiation.program_derivatives import without_ranges
from pylazy.execution.cpu_launch import launch
from pylazy.execution.program_sizes import extents_of, result_over_nothing, result_shapes_of
from pylazy.execution.programs import few_rows
from pylazy.user_positions import Location

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.execution.programs import Executable


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
    seen = [np.asarray(array) for array in own]
    located = [
        Source(NUMPY, array, batch=rank, dtype=str(array.dtype), weak=False, view="").locate(dtype)
        for array, rank in zip(seen, ranks, strict=True)
    ]
    if ranges:
        read = Ranges(ranges)
        program = executable.load()
        if sum(buffer.role == "table" for buffer in program.image.arguments) > 1:
            read.check_transposes(extents.rows, extents.columns, (None, Location("<a derivative>", 0, 0, "")))
        launch(program, located, results, extents, read)
    else:
        launch(executable.load(few_rows(extents, dtype)), located, results, extents)
    return results
