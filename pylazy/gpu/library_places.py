"""Reductions of arrays of other libraries that lie on a GPU.

A library that tells its current stream and allocates arrays to be written into, as CuPy does, works as torch does: in
the order of that stream, with its own memory. Of others, as JAX, arrays are exchanged through DLPack; as their memory
may be used again once they let go of it, the launch is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.memory_layout import (
    batch_strides,
    contiguous_strides,
    numpy_address,
    rows_are_contiguous,
    without_repeats,
)
from pylazy.arrays.sources import DEVICE, Located
from pylazy.gpu.dlpack import DLPACK_LEGACY_STREAM, DeviceBuffer, imported_span
from pylazy.gpu.launches import MOST_FILLS, Target, Written, keep_for_graphs, launch_arrays, tables_of
from pylazy.runtime.errors import DeviceError, DtypeError
from pylazy.runtime.gpu_devices import DeviceMemory, let_wait, synchronize
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pylazy.arrays.sources import Source
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.programs import Executable, Extents
    from pylazy.gpu.places import Place
    from pylazy.options import Backend
    from pylazy.runtime.gpu_launch import GpuProgram

_LEGACY_STREAM = 0


def place_of_library(sources: Sequence[Source], backend: Backend | None) -> Place:
    """Choose the device of the arrays, where the user asks for nothing else.

    Raises:
        DeviceError: the user asks for the CPU, or for another GPU.
    """
    imported = next(source.imported for source in sources if source.kind == DEVICE)
    assert imported is not None
    device = imported.device
    assert device is not None
    if backend is not None and (backend.name == "CPU" or backend.device_id not in {-1, device}):
        asked = "the CPU" if backend.name == "CPU" else f"GPU {backend.device_id}"
        raise DeviceError(
            at_user_line(f"the arrays lie on cuda:{device}, and the reduction is to run on {asked}: move them")
        )
    # A namespace that records a function for its derivative names the library whose arrays these are.
    namespace = getattr(imported.namespace, "library", imported.namespace)
    if hasattr(namespace, "cuda") and hasattr(namespace.cuda, "get_current_stream"):
        return StreamPlace(namespace, device)
    return ExchangePlace(namespace, device)


class StreamPlace:
    """A GPU of a library that has current streams: CuPy, or what has the same functions."""

    def __init__(self, namespace: Any, device: int) -> None:
        """Choose a device of a library."""
        self._namespace = namespace
        self._device = device

    def _current(self) -> AbstractContextManager[Any]:
        """Make the device the current one of the library, which allocates there."""
        found: AbstractContextManager[Any] = self._namespace.cuda.Device(self._device)
        return found

    def _stream(self) -> int:
        return int(self._namespace.cuda.get_current_stream().ptr)

    def _is_capturing(self) -> bool:
        stream = self._namespace.cuda.get_current_stream()
        return hasattr(stream, "is_capturing") and bool(stream.is_capturing())

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate a result."""
        with self._current():
            return self._namespace.empty(shape, dtype=np.dtype(dtype))

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Any:
        """Make a result of equal elements."""
        with self._current():
            return self._namespace.full(shape, value, dtype=np.dtype(dtype))

    def delivered(self, result: Any) -> Any:
        """Give a result that was launched to the user."""
        return result

    def locate(self, source: Source, dtype: str, tensor: Any = None) -> Located:
        """Find the data of an input; numbers and lists are written to the device."""
        del tensor
        if source.kind != DEVICE:
            return self._locate_constant(np.asarray(source.array, dtype).reshape(-1))
        if tuple(source.array.shape) != source.shape:
            source.refuse_new_shape()
        with self._current():
            return self._locate_array(source, dtype)

    def _locate_constant(self, values: Any) -> Located:
        with self._current():
            if len(values) > MOST_FILLS:
                moved = self._namespace.asarray(values)
            else:
                moved = self.empty(values.shape, values.dtype.name)
                for place, value in enumerate(values.tolist()):  # can be captured in a graph, where a copy cannot
                    moved[place : place + 1].fill(value)
            return Located(self._pointer(moved), (), (), moved)

    def _locate_array(self, source: Source, dtype: str) -> Located:
        array, batch = source.array, source.batch
        strides = _strides_of(array)
        if source.dtype != dtype or not rows_are_contiguous(source.shape, strides, batch, array.dtype.itemsize):
            array = array[without_repeats(source.shape, strides, batch)]
            array = self._namespace.ascontiguousarray(array.astype(np.dtype(dtype)))
            strides = _strides_of(array)
        return Located(self._pointer(array), source.shape[:batch], batch_strides(array.shape, strides, batch), array)

    def _pointer(self, array: Any) -> int:
        """Give the address of an array, after its own stream, where it names one, has come to this point."""
        described = array.__cuda_array_interface__
        produced = described.get("stream")
        if produced is not None:
            own = self._stream()
            let_wait(own, _driver_stream(produced), device=self._device)
        return int(described["data"][0])

    def load(self, executable: Executable) -> GpuProgram:
        """Find the program for the GPU."""
        return executable.load_gpu(self._device)

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
        """Launch a program on the library's current stream; nothing is waited for."""
        del indices
        with self._current():

            def upload(words: Any) -> Located:
                table = self._namespace.asarray(words)
                return Located(self._pointer(table), (), (), table)

            def allocate(size: int) -> Located:
                memory = self._namespace.empty((size,), dtype=np.dtype(np.uint8))
                return Located(int(memory.__cuda_array_interface__["data"][0]), (), (), memory)

            # A library gives memory back to the stream that it was taken on, so that each stream has its own tables.
            name = f"{self._namespace.__name__} {self._device} on {self._stream()}"
            tables = tables_of(program, ranges, extents, device=name, place=upload)
            if tables and self._is_capturing():
                for table in tables:
                    keep_for_graphs(table)
            written = [Written(self._pointer(result), tuple(result.shape), result.dtype.itemsize) for result in results]
            target = Target(self._device, self._stream(), allocate)
            launch_arrays(target, program, inputs, written, tables, extents)


class ExchangePlace:
    """A GPU of a library that gives and takes arrays through DLPack alone."""

    def __init__(self, namespace: Any, device: int) -> None:
        """Choose a device of a library."""
        self._namespace = namespace
        self._device = device

    def _allocate(self, size: int) -> DeviceMemory:
        return DeviceMemory(size, device=self._device, stream=_LEGACY_STREAM)

    def _copied(self, values: Any) -> Located:
        memory = self._allocate(values.nbytes)
        memory.fill(numpy_address(values), values.nbytes)
        synchronize(self._device, _LEGACY_STREAM)
        return Located(memory.address, (), (), memory)

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceBuffer:
        """Allocate a result, which `delivered` hands over to the library."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return DeviceBuffer(self._allocate(size), shape, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Any:
        """Make a result of equal elements."""
        return self._namespace.full(shape, value, dtype=dtype)

    def delivered(self, result: DeviceBuffer) -> Any:
        """Give a result that was launched to the library, by its own rules for dtypes."""
        return self._namespace.from_dlpack(result)

    def locate(self, source: Source, dtype: str, tensor: Any = None) -> Located:
        """Find the data of an input; numbers and lists are copied to the device."""
        del tensor
        if source.kind != DEVICE:
            return self._copied(np.ascontiguousarray(source.array, dtype).reshape(-1))
        array = source.array
        if tuple(array.shape) != source.shape:
            source.refuse_new_shape()
        if source.dtype != dtype:
            array = array.astype(dtype)
            if str(array.dtype) != dtype:  # JAX has no 64 bits unless it is told to
                raise DtypeError(
                    at_user_line(
                        f"an array of {source.dtype} becomes {array.dtype} where its library converts it to {dtype}, "
                        "the dtype of the formula: convert it before"
                    )
                )
        span = imported_span(array)
        if not rows_are_contiguous(source.shape, span.strides, source.batch, np.dtype(dtype).itemsize):
            array = self._namespace.asarray(array, copy=True)
            span = imported_span(array)
        strides = batch_strides(source.shape, span.strides, source.batch)
        return Located(span.pointer, source.shape[: source.batch], strides, span)

    def load(self, executable: Executable) -> GpuProgram:
        """Find the program for the GPU."""
        return executable.load_gpu(self._device)

    def launch(
        self,
        program: GpuProgram,
        inputs: Sequence[Located],
        results: Sequence[DeviceBuffer],
        extents: Extents,
        ranges: Ranges | None = None,
        *,
        indices: str = "",
    ) -> None:
        """Launch a program, and wait for it: then inputs may be given back, and results be read on any stream."""
        del indices

        def allocate(size: int) -> Located:
            memory = self._allocate(size)
            return Located(memory.address, (), (), memory)

        tables = tables_of(program, ranges, extents, device=f"driver {self._device}", place=self._copied)
        written = [Written(result.memory.address, result.shape, result.item_bytes) for result in results]
        launch_arrays(Target(self._device, _LEGACY_STREAM, allocate), program, inputs, written, tables, extents)
        synchronize(self._device, _LEGACY_STREAM)


def _strides_of(array: Any) -> tuple[int, ...]:
    """The strides of an array in bytes."""
    strides = array.__cuda_array_interface__.get("strides")
    return contiguous_strides(array.shape, array.dtype.itemsize) if strides is None else tuple(strides)


def _driver_stream(stream: int) -> int:
    """Turn a stream of the array interface into one of the driver: 1 is the legacy default stream of both."""
    return _LEGACY_STREAM if stream == DLPACK_LEGACY_STREAM else stream
