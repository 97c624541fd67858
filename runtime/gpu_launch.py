"""GPU images ready to launch."""

import ctypes
import struct
import weakref
from collections.abc import Sequence
from typing import NamedTuple

from pylazy.runtime.errors import InternalError
from pylazy.runtime.gpu_image import GpuImage, GpuKernel
from pylazy.runtime.launch import AXIS_CODES, c_buffers
from pylazy.runtime.native_library import CGpuGeometry, CGpuKernel, CGpuSizes, check, native_library


class GpuGeometry(NamedTuple):
    """How one kernel is launched.

    Attributes:
        grid: blocks along x and y, rows and splits; one of them is 0 where nothing is to be launched.
        columns_per_split: columns of a split.
        splits: how many.
    """

    grid: tuple[int, int]
    columns_per_split: int
    splits: int


class GpuSizes:
    """The sizes of a launch, as the library reads them; they can serve several launches.

    Args:
        m: rows of the buffers of axis "i".
        n: rows of the buffers of axis "j"; those of axis "ij" have m * n.
        processors: multiprocessors of the device: they decide how the columns are cut.
        batch_sizes: the batch dimensions, outermost first.
        batch_strides: for each of the image's arguments the bytes from one batch element to the next, one number for
            each batch dimension; 0 where the buffer is shared.
        tiles: where there are tables: for each of the image's arguments the tiles that it lists, 0 for the others.
    """

    def __init__(
        self,
        m: int,
        n: int,
        *,
        processors: int,
        batch_sizes: Sequence[int] = (),
        batch_strides: Sequence[Sequence[int]] = (),
        tiles: Sequence[int] = (),
    ) -> None:
        strides = [stride for of_buffer in batch_strides for stride in of_buffer]
        self.pointer = ctypes.byref(
            CGpuSizes(
                m,
                n,
                struct.pack(f"{len(tiles)}q", *tiles) if tiles else None,
                struct.pack(f"{len(batch_sizes)}q", *batch_sizes),
                struct.pack(f"{len(strides)}q", *strides),
                len(batch_sizes),
                processors,
            )
        )


class GpuProgram:
    """A GPU image for any number of devices and threads; a device loads it when it first launches it."""

    def __init__(self, image: GpuImage) -> None:
        """Describe the program to the library; no driver is needed yet."""
        library = native_library()
        buffers = c_buffers(image.buffers)
        kernels = _c_kernels(image.kernels)
        handle = ctypes.c_void_p()
        check(
            library.plz_gpu_program_create(
                image.text.encode(),
                image.cubin or None,
                len(image.cubin),
                buffers,
                len(buffers),
                kernels,
                len(kernels),
                ctypes.byref(handle),
            )
        )
        self.image = image
        self._handle = handle.value
        self._launch = library.plz_gpu_launch
        self._scratch_bytes = library.plz_gpu_scratch_bytes
        self._pack_pointers = struct.Struct(f"{len(image.arguments)}P").pack
        finalizer = weakref.finalize(self, library.plz_gpu_program_destroy, handle.value)
        finalizer.atexit = False  # a daemon thread may still launch it while the process ends

    def load(self, device: int) -> None:
        """Load the program on a device now: before a CUDA graph is captured, for one.

        Raises:
            DeviceError: there is no such GPU, or the driver fails.
            CompileError: the driver cannot load the code; the message has its log.
        """
        check(native_library().plz_gpu_program_load(self._handle, device))

    def geometry(self, kernel: int, sizes: GpuSizes) -> GpuGeometry:
        """How a kernel is launched: a function of sizes alone."""
        found = CGpuGeometry()
        check(native_library().plz_gpu_kernel_geometry(self._handle, kernel, sizes.pointer, ctypes.byref(found)))
        return GpuGeometry((found.row_blocks, found.split_blocks), found.columns_per_split, found.splits)

    def scratch_bytes(self, sizes: GpuSizes) -> int:
        """Bytes of scratch memory that a launch needs: a function of sizes alone.

        Raises:
            UnsupportedError: more blocks than a GPU takes.
        """
        found = ctypes.c_int64()
        status = self._scratch_bytes(self._handle, sizes.pointer, ctypes.byref(found))
        if status:
            check(status)
        return found.value

    def launch(self, device: int, stream: int, pointers: Sequence[int], scratch: int, sizes: GpuSizes) -> None:
        """Launch all kernels, in order, for every element of the batch; return before they have run.

        Args:
            device: number of the GPU.
            stream: a stream of the driver's interface; 0 for the default stream.
            pointers: addresses on the device, one for each of `image.arguments` in order.
            scratch: `scratch_bytes` of memory on the device, aligned to 256 bytes; 0 where it is none.
            sizes: those of `scratch_bytes`.

        Raises:
            UnsupportedError: more blocks than a GPU takes.
            DeviceError: there is no such GPU, or the driver fails.
            CompileError: the driver cannot load the code; the message has its log.
        """
        try:
            packed = self._pack_pointers(*pointers)
        except struct.error as error:
            raise InternalError(f"launch does not fit its GPU image: {error}") from error
        status = self._launch(self._handle, device, stream, packed, scratch, sizes.pointer)
        if status:
            check(status)


def _c_kernels(kernels: tuple[GpuKernel, ...]) -> "ctypes.Array[CGpuKernel]":
    found = (CGpuKernel * len(kernels))()
    for target, source in zip(found, kernels, strict=True):
        target.name = source.name.encode()
        target.rows_per_block = source.rows_per_block
        target.tile_columns = source.tile_columns
        target.rows_axis = AXIS_CODES[source.rows]
        target.columns_axis = AXIS_CODES[source.columns]
        target.block_threads = source.block_threads
        target.blocks_per_processor = source.blocks_per_processor
        target.splittable = source.splittable
        target.merges = source.merges
        target.tile_table = source.tile_table
    return found
