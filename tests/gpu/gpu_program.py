"""A formula compiled to PTX, launched on the interpreter as the runtime launches it on a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ptx_interpreter import launch
from ptx_memory import GlobalMemory
from ptx_text import parse_ptx

from pylazy.compiler.codegen.ptx import launch_geometry
from pylazy.compiler.compile import compile_ptx

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

    def run(self, inputs: Sequence[Array], *, rows: int, columns: int) -> list[Array]:
        """Give the outputs; reading what was never written is a fault."""
        extents = {"i": rows, "j": columns, "": 1}
        geometries = launch_geometry(self.module.kernels, extents, processors=self.processors)
        self.splits = max(geometry.splits for geometry in geometries)
        arrays = dict(zip([buffer.name for buffer in self.module.buffers], inputs, strict=False))
        unwritten = [buffer for buffer in self.module.buffers if buffer.name not in arrays]
        for buffer in unwritten:
            copies = self.splits if buffer.per_split else 1
            arrays[buffer.name] = np.zeros((copies * extents[buffer.axis], buffer.dim), buffer.dtype)
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
