"""A formula compiled to PTX, launched on the interpreter as the runtime launches it on a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ptx_interpreter import launch
from ptx_memory import GlobalMemory
from ptx_text import parse_ptx

from pylazy.block_sparse.ranges import GPU_INTERVAL_COLUMNS, GPU_TILE_ROWS, Ranges
from pylazy.compiler.compile import compile_ptx
from pylazy.runtime.gpu_image import GpuImage
from pylazy.runtime.gpu_launch import GpuGeometry, GpuSizes
from pylazy.runtime.gpu_launch import GpuProgram as RuntimeProgram

Array = Any  # an ndarray


def launch_geometry(
    image: GpuImage, *, rows: int, columns: int, processors: int, batch: int = 1, tiles: Sequence[int] = ()
) -> tuple[GpuGeometry, ...]:
    """Give what the runtime decides for each kernel of a program; `tiles` are those of `GpuSizes`."""
    # Buffers that repeat along the batch, and one that does not: nothing depends on more of them.
    strides = [(int(k == 0),) for k in range(len(image.arguments))]
    sizes = GpuSizes(rows, columns, processors=processors, batch_sizes=(batch,), batch_strides=strides, tiles=tiles)
    program = RuntimeProgram(image)
    return tuple(program.geometry(number, sizes) for number in range(len(image.kernels)))


class GpuProgram:
    """A compiled formula.

    Args:
        traced: the formula.
        edit: changes the PTX text, to plant a fault.
        arch: the architecture.
        processors: multiprocessors of the device: with many, columns are split, with none they are not.
    """

    def __init__(
        self, traced: Any, *, edit: "Callable[[str], str] | None" = None, arch: str = "sm_90", processors: int = 0
    ) -> None:
        self.processors = processors
        self.module = compile_ptx(traced, arch)
        self.kernels = parse_ptx(self.module.text if edit is None else edit(self.module.text))

    @property
    def _reduction(self) -> Any:
        return [kernel for kernel in self.module.kernels if kernel.columns and not kernel.merges][-1]

    @property
    def block_rows(self) -> int:
        """Rows of a block of the last reduction."""
        return self._reduction.rows_per_block

    @property
    def tile_columns(self) -> int:
        """Columns of a tile of the last reduction."""
        return self._reduction.tile_columns

    def run(
        self,
        inputs: Sequence[Array],
        *,
        rows: int,
        columns: int,
        batch: int = 0,
        ranges: "Sequence[Array] | None" = None,
        tile_rows: int = GPU_TILE_ROWS,
        interval_columns: int = GPU_INTERVAL_COLUMNS,
        tables: Sequence[Array] = (),
        outputs: Sequence[Array] = (),
    ) -> list[Array]:
        """Give the outputs; reading what was never written is a fault.

        Args:
            inputs: of two axes, or of three: those of a batch, or of size 1, which repeat along it.
            rows: M.
            columns: N.
            batch: elements of a batch, which the outputs then have as their first axis; 0 for none.
            ranges: the six arrays of a ranged program.
            tile_rows: the most rows of a tile of its tables.
            interval_columns: the most columns of an interval of its tables.
            tables: these tables, in place of `ranges`.
            outputs: what the outputs hold before.
        """
        count = max(batch, 1)
        extents = {"i": rows, "j": columns, "": 1, "ij": rows * columns}
        arrays = dict(zip([buffer.name for buffer in self.module.buffers], inputs, strict=False))
        results = [buffer.name for buffer in self.module.buffers if buffer.role == "output"]
        arrays.update((name, output[None]) for name, output in zip(results, outputs, strict=False))
        places = {buffer.name: number for number, buffer in enumerate(self.module.buffers) if buffer.role == "table"}
        if ranges is not None:
            halves = Ranges(ranges)
            axes = [self.module.buffers[number].axis for number in places.values()]
            cut = {"tile_rows": tile_rows, "interval_columns": interval_columns}
            tables = [halves.table(axis, rows, columns, **cut).words[:, None] for axis in axes]
        arrays.update(zip(places, tables, strict=True))
        arguments = [buffer.name for buffer in self.module.arguments]
        tiles = [int(arrays[name][0, 0]) if name in places else 0 for name in arguments]
        geometries = launch_geometry(
            self.module,
            rows=rows,
            columns=columns,
            processors=self.processors,
            batch=count,
            tiles=tiles if places else (),
        )
        self.splits = max(geometry.splits for geometry in geometries)
        unwritten = [buffer for buffer in self.module.buffers if buffer.name not in arrays]
        for buffer in unwritten:
            copies = self.splits if buffer.per_split else 1
            arrays[buffer.name] = np.zeros((count, copies * extents[buffer.axis], buffer.dim), buffer.dtype)
        arrays = {buffer.name: arrays[buffer.name] for buffer in self.module.buffers}
        memory = GlobalMemory(arrays, unwritten=frozenset(buffer.name for buffer in unwritten))
        strides = [_batch_stride(arrays[buffer.name]) for buffer in self.module.buffers]
        for kernel, geometry in zip(self.module.kernels, geometries, strict=True):
            numbers = [extents[kernel.rows], extents[kernel.columns], geometry.columns_per_split, geometry.splits]
            launch(
                self.kernels[kernel.name],
                grid=(*geometry.grid, count),
                threads=kernel.block_threads,
                arguments=[*memory.addresses(), *strides, *numbers],
                memory=memory,
            )
        found = memory.arrays()
        outputs = [found[buffer.name] for buffer in self.module.buffers if buffer.role == "output"]
        return outputs if batch else [output[0] for output in outputs]


def _batch_stride(array: Array) -> int:
    """Give the bytes from one element of a batch to the next, 0 where there is one."""
    return int(array[0].nbytes) if array.ndim == 3 and len(array) > 1 else 0
