"""Reductions of CUDA tensors: memory and the stream are torch's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pylazy.arrays.sources import NUMBER, TORCH, Located
from pylazy.gpu.launches import MOST_FILLS, Target, Written, keep_for_graphs, launch_arrays, tables_of
from pylazy.runtime.errors import DeviceError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Source
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.programs import Executable, Extents
    from pylazy.gpu.launches import Table
    from pylazy.options import Backend
    from pylazy.runtime.gpu_launch import GpuProgram


class TorchPlace:
    """A GPU of torch: its current stream, its allocator.

    Everything is launched on the current stream of the tensors' device, in its order; nothing waits, and nothing is
    copied from the host but the tables of ranges, once for each `Ranges`.
    """

    def __init__(self, device: Any) -> None:
        """Choose a `torch.device`."""
        self._torch = sys.modules["torch"]
        self._device = device

    @staticmethod
    def of(device: Any, backend: Backend | None) -> TorchPlace:
        """Choose the device of the tensors, where the user asks for nothing else.

        Raises:
            DeviceError: the user asks for the CPU, or for another GPU.
        """
        if backend is not None and (backend.name == "CPU" or backend.device_id not in {-1, device.index}):
            asked = "the CPU" if backend.name == "CPU" else f"GPU {backend.device_id}"
            raise DeviceError(
                at_user_line(
                    f"the tensors lie on {device}, and the reduction is to run on {asked}: move them, as by x.to()"
                )
            )
        return TorchPlace(device)

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Any:
        """Make a result of equal elements."""
        return self.empty(shape, dtype).fill_(value)

    def delivered(self, result: Any) -> Any:
        """Give a result that was launched to the user."""
        return result

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate a result."""
        return self._torch.empty(shape, dtype=getattr(self._torch, dtype), device=self._device)

    def locate(self, source: Source, dtype: str, tensor: Any = None) -> Located:
        """Find the data of an input; numbers and lists are written to the device by a kernel of their own."""
        if source.kind == NUMBER:
            number = self.empty((1,), dtype).fill_(source.array)
            return Located(number.data_ptr(), (), (), number)
        given = source.array if tensor is None else tensor
        if source.kind != TORCH or (given.is_cpu and given.ndim == 0):
            return source.locate_tensor(self._constant(source, given, dtype), dtype)
        return source.locate(dtype) if tensor is None else source.locate_tensor(tensor, dtype)

    def _constant(self, source: Source, given: Any, dtype: str) -> Any:
        """Copy a list or a number of the host."""
        values = given.reshape(-1).tolist()
        if len(values) > MOST_FILLS:
            return self._torch.as_tensor(given, dtype=getattr(self._torch, dtype), device=self._device)
        moved = self.empty((len(values),), dtype)
        for place, value in enumerate(values):  # fills can be captured in a graph, where a copy cannot
            moved[place].fill_(value)
        return moved.reshape(source.shape)

    def load(self, executable: Executable) -> GpuProgram:
        """Find the program for the GPU."""
        return executable.load_gpu(self._device.index)

    def launch(
        self,
        program: GpuProgram,
        inputs: Sequence[Located],
        results: Sequence[Any],
        extents: Extents,
        ranges: Ranges | None = None,
        *,
        indices: str = "",
    ) -> None:
        """Launch a program; nothing is waited for."""
        del indices
        tables = tables_of(program, ranges, extents, device=f"torch {self._device}", place=self._copied)
        if tables:
            self._let_stream_use(tables)
        written = [Written(result.data_ptr(), tuple(result.shape), result.element_size()) for result in results]
        launch_arrays(self._target(), program, inputs, written, tables, extents)

    def _let_stream_use(self, tables: Sequence[Table]) -> None:
        """Keep tables until the current stream is done with them, which may not be the one they were copied on."""
        cuda = self._torch.cuda
        with cuda.device(self._device):
            is_capturing = cuda.is_current_stream_capturing()
        for table in tables:
            table.keep.record_stream(cuda.current_stream(self._device))
            if is_capturing:
                keep_for_graphs(table)

    def _copied(self, words: Any) -> Located:
        table = self._torch.from_numpy(words).to(self._device)
        return Located(table.data_ptr(), (), (), table)

    def _target(self) -> Target:
        torch = self._torch

        def allocate(size: int) -> Located:
            memory = torch.empty(size, dtype=torch.uint8, device=self._device)
            return Located(memory.data_ptr(), (), (), memory)

        return Target(self._device.index, torch.cuda.current_stream(self._device).cuda_stream, allocate)
