"""The launch of a program on the CPU: pointers and strides of its inputs, results and tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pylazy.arrays.memory_layout import numpy_address
from pylazy.arrays.results import result_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Located
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.programs import Extents
    from pylazy.runtime.launch import Program


def launch(
    program: Program,
    inputs: Sequence[Located],
    results: Sequence[Any],
    extents: Extents,
    ranges: Ranges | None = None,
) -> None:
    """Run a program on inputs and into results, which have every batch dimension and contiguous elements.

    Args:
        program: what to run.
        inputs: its inputs.
        results: its outputs.
        extents: sizes.
        ranges: what a ranged program takes its tables from.
    """
    batch, rows, columns = extents
    pointers = [located.pointer for located in inputs]
    pointers += [result_address(result) for result in results]
    tables = []  # held while the program runs
    if ranges is not None:
        axes = [buffer.axis for buffer in program.image.arguments if buffer.role == "table"]
        tables = [ranges.table(axis, rows or 1, columns or 1).words for axis in axes]
        pointers += [numpy_address(table) for table in tables]
    if not batch:
        program.run(pointers, rows or 1, columns or 1, (), ())
        return
    strides: list[tuple[int, ...]] = []
    rank = len(batch)
    for located in inputs:
        # A size of 1 repeats along the batch, as does a dimension that the array does not have.
        own = located.batch_strides
        strides.append((0,) * (rank - len(own)) + own)
    for result in results:
        item = result.itemsize if hasattr(result, "itemsize") else result.element_size()
        count = math.prod(result.shape[rank:]) * item
        steps = []
        for size in reversed(batch):
            steps.append(count)
            count *= size
        strides.append(tuple(reversed(steps)))
    strides += [(0,) * rank] * len(tables)
    program.run(pointers, rows or 1, columns or 1, batch, tuple(strides))
