"""One launch of a GPU program: its sizes, its scratch memory, its tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.runtime.gpu_devices import properties
from pylazy.runtime.gpu_launch import GpuSizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylazy.arrays.sources import Located
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.programs import Extents
    from pylazy.runtime.gpu_launch import GpuProgram

#: Numbers of a list that are written to a device by launches of their own; longer lists are copied there.
MOST_FILLS = 16


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


class Written(NamedTuple):
    """An argument that a library allocated, which has every batch dimension and contiguous elements.

    Attributes:
        pointer: address of the first element.
        shape: of the array.
        item_bytes: bytes of an element.
    """

    pointer: int
    shape: tuple[int, ...]
    item_bytes: int


class Table(NamedTuple):
    """A table of ranges on a device.

    Attributes:
        pointer: address of the first word.
        tiles: how many it lists.
        keep: the object that owns the memory.
    """

    pointer: int
    tiles: int
    keep: Any


_read_by_graphs: dict[int, Any] = {}


def keep_for_graphs(table: Table) -> None:
    """Keep a table as long as the process lives: the user has the other arrays of a captured launch, but not this."""
    _read_by_graphs[table.pointer] = table.keep


def launch_arrays(
    target: Target,
    program: GpuProgram,
    inputs: Sequence[Located],
    results: Sequence[Written],
    tables: Sequence[Table],
    extents: Extents,
) -> None:
    """Launch a program on arrays of a library.

    Args:
        target: where.
        program: what.
        inputs: as they are located.
        results: its other arguments but the tables.
        tables: of a ranged program, in order.
        extents: sizes.
    """
    shapes = [(result.shape, result.item_bytes) for result in results]
    strides = argument_strides(inputs, shapes, len(tables), extents.batch)
    others = [0] * (len(inputs) + len(results))
    tiles = [*others, *(table.tiles for table in tables)] if tables else ()
    pointers = [
        *(located.pointer for located in inputs),
        *(result.pointer for result in results),
        *(table.pointer for table in tables),
    ]
    launch_on(target, program, pointers, sizes_of(target.device, extents, strides, tiles))


def tables_of(
    program: GpuProgram, ranges: Ranges | None, extents: Extents, *, device: str, place: Callable[[Any], Located]
) -> list[Table]:
    """Bring the tables that a program reads to a device: copied there by the first launch.

    Args:
        program: has the axes of its tables.
        ranges: the pairs to reduce, None for all.
        extents: sizes.
        device: its name, and that of the library that has its memory.
        place: copies words to the device.
    """
    if ranges is None:
        return []
    sizes = (extents.rows or 1, extents.columns or 1)
    axes = [buffer.axis for buffer in program.image.arguments if buffer.role == "table"]
    placed = [ranges.placed(axis, *sizes, device=device, place=place) for axis in axes]
    return [Table(located.pointer, tiles, located.keep) for located, tiles in placed]
