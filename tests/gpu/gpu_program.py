"""A formula compiled to PTX, launched on the interpreter as the runtime launches it on a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ptx_interpreter import launch
from ptx_memory import GlobalMemory
from ptx_text import parse_ptx

from pylazy.compiler.codegen.ptx import launch_geometry
from pylazy.compiler.compile import compile_ptx
from pylazy.ranges import GPU_TILE_ROWS, Ranges

Array = Any  # an ndarray


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
        return [kernel for kernel in self.module.kernels if kernel.splittable][-1]

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
        ranges: "Sequence[Array] | None" = None,
        tile_rows: int = GPU_TILE_ROWS,
    ) -> list[Array]:
        """Give the outputs; reading what was never written is a fault."""
        extents = {"i": rows, "j": columns, "": 1}
        arrays = dict(zip([buffer.name for buffer in self.module.buffers], inputs, strict=False))
        tiles = {}
        for number, buffer in enumerate(self.module.buffers):
            if buffer.role == "table":
                words = Ranges(ranges or ()).table(buffer.axis, rows, columns, tile_rows=tile_rows).words
                arrays[buffer.name], tiles[number] = words, int(words[0])
        geometries = launch_geometry(self.module.kernels, extents, processors=self.processors, tiles=tiles)
        self.splits = max(geometry.splits for geometry in geometries)
        unwritten = [buffer for buffer in self.module.buffers if buffer.name not in arrays]
        for buffer in unwritten:
            copies = self.splits if buffer.per_split else 1
            arrays[buffer.name] = np.zeros((copies * extents[buffer.axis], buffer.dim), buffer.dtype)
        arrays = {buffer.name: arrays[buffer.name] for buffer in self.module.buffers}
        memory = GlobalMemory(arrays, unwritten=frozenset(buffer.name for buffer in unwritten))
        for kernel, geometry in zip(self.module.kernels, geometries, strict=True):
            numbers = [extents[kernel.rows], extents[kernel.columns], geometry.columns_per_split, geometry.splits]
            launch(
                self.kernels[kernel.name],
                grid=geometry.grid,
                threads=kernel.block_threads,
                arguments=[*memory.addresses(), *numbers],
                memory=memory,
            )
        found = memory.arrays()
        return [found[buffer.name] for buffer in self.module.buffers if buffer.role == "output"]
