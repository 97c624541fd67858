"""One launch of a GPU program: its sizes, its scratch memory, its tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pylazy.runtime.gpu_devices import properties
from pylazy.runtime.gpu_launch import GpuSizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylazy.arrays import Located
    from pylazy.programs import Extents
    from pylazy.runtime.gpu_launch import GpuProgram


class Target(NamedTuple):
    """Where a program is launched.

    Attributes:
        device: number of the GPU.
        stream: a stream of the driver's interface.
        allocate: gives memory of a number of bytes, which lives until the stream has come to what follows its end.
    """

    device: int
    stream: int
    allocate: Callable[[int], Located]


def argument_strides(
    inputs: Sequence[Located], results: Sequence[tuple[tuple[int, ...], int]], tables: int, batch: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Give the bytes from one element of a batch to the next: for each argument one number for each dimension.

    Args:
        inputs: as they are located; a dimension that they lack or have with size 1 repeats.
        results: of each its shape, which has every batch dimension, and the bytes of an element; contiguous.
        tables: how many follow; they serve every element.
        batch: the batch dimensions.
    """
    rank = len(batch)
    strides = [(0,) * (rank - len(located.batch_strides)) + located.batch_strides for located in inputs]
    for shape, item in results:
        step = math.prod(shape[rank:]) * item
        steps = []
        for size in reversed(batch):
            steps.append(step)
            step *= size
        strides.append(tuple(reversed(steps)))
    return [*strides, *[(0,) * rank] * tables]


def sizes_of(device: int, extents: Extents, strides: Sequence[tuple[int, ...]], tiles: Sequence[int] = ()) -> GpuSizes:
    """Describe a launch.

    Args:
        device: number of the GPU.
        extents: sizes.
        strides: see `argument_strides`.
        tiles: for each argument the tiles that it lists, where there are tables.
    """
    batch, rows, columns = extents
    processors = properties(device).processors
    return GpuSizes(
        rows or 1, columns or 1, processors=processors, batch_sizes=batch, batch_strides=strides, tiles=tiles
    )


def launch_on(target: Target, program: GpuProgram, pointers: Sequence[int], sizes: GpuSizes) -> None:
    """Launch a program on device memory; nothing is waited for."""
    size = program.scratch_bytes(sizes)
    scratch = target.allocate(size) if size else None
    program.launch(target.device, target.stream, pointers, 0 if scratch is None else scratch.pointer, sizes)
