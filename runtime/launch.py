"""Kernel images loaded into this process, ready to run on the CPU."""

import ctypes
import struct
import sys
import weakref
from collections.abc import Sequence
from typing import NamedTuple

from pylazy.runtime.errors import DeviceError, InternalError
from pylazy.runtime.kernel import CPU_LEVELS, Buffer, KernelImage, Phase
from pylazy.runtime.native_library import CBuffer, CGeometry, CPhase, check, native_library
from pylazy.runtime.threads import configure_threads

_ROLE_CODES = {"input": 0, "output": 1, "scratch": 2, "table": 3}
AXIS_CODES = {"": 0, "i": 1, "j": 2, "ij": 3}
_X86_LEVELS = CPU_LEVELS[:3]


class Geometry(NamedTuple):
    """How a launch cuts one phase: a function of extents and batch count only, never of the number of threads."""

    rows: int
    columns: int
    columns_per_split: int
    splits: int
    tiles: int


class Program:
    """A kernel image in executable memory. Any number of threads may run one program at once.

    The memory is freed with the object.
    """

    def __init__(self, image: KernelImage) -> None:
        """Copy the code of `image` to executable memory.

        Raises:
            DeviceError: the image is for another processor.
            MemoryError: no memory for the code.
        """
        if not is_runnable(image.target):
            raise DeviceError(
                f"kernel image is for {image.target}, this processor is {host_target()}: compile it for this target"
            )
        configure_threads()
        library = native_library()
        handle = ctypes.c_void_p()
        buffers = c_buffers(image.buffers)
        phases = _c_phases(image.phases)
        check(
            library.plz_program_create(
                image.code, len(image.code), buffers, len(buffers), phases, len(phases), ctypes.byref(handle)
            )
        )
        self.image = image
        self._handle = handle.value
        self._plz_run = library.plz_run
        self._plz_run_one = library.plz_run_one
        self._pack_pointers = struct.Struct(f"{len(image.arguments)}P").pack
        self._pack_launch = struct.Struct(f"P2q{len(image.arguments)}P").pack
        finalizer = weakref.finalize(self, library.plz_program_destroy, handle.value)
        finalizer.atexit = False  # a daemon thread may still run it while the process ends

    @classmethod
    def load(cls, image: KernelImage) -> "Program":
        """Load an image for this processor.

        Raises:
            DeviceError: the image is for another processor.
        """
        return cls(image)

    def run(
        self,
        pointers: Sequence[int],
        m: int,
        n: int,
        batch_sizes: Sequence[int] = (),
        batch_strides: Sequence[Sequence[int]] = (),
    ) -> None:
        """Run all phases, for every batch element; return when the outputs are written.

        Args:
            pointers: address of each of `image.arguments` (inputs, outputs and tables in order); 0 if it has no
                element. A table is read as it is: nothing checks that its tiles lie within the extents.
            m: rows of the buffers of axis "i".
            n: rows of the buffers of axis "j"; those of axis "ij" have m * n.
            batch_sizes: the batch dimensions, outermost first.
            batch_strides: for each of `image.arguments` the bytes from one batch element to the next, one number for
                each batch dimension; 0 where the buffer is shared. Rows of one batch element are always contiguous.

        Raises:
            MemoryError: no memory for scratch arrays.
            UnsupportedError: more columns than this kernel takes.
            InternalError: the arguments do not fit the image.
        """
        try:
            if not batch_sizes:
                status = self._plz_run_one(self._pack_launch(self._handle, m, n, *pointers))
            else:
                rank = len(batch_sizes)
                strides = [stride for of_buffer in batch_strides for stride in of_buffer]
                status = self._plz_run(
                    self._handle,
                    self._pack_pointers(*pointers),
                    m,
                    n,
                    rank,
                    struct.pack(f"{rank}q", *batch_sizes),
                    struct.pack(f"{rank * len(pointers)}q", *strides),
                )
        except (struct.error, ctypes.ArgumentError) as error:
            raise InternalError(f"launch does not fit its kernel image: {error}") from error
        if status:
            check(status)

    def geometry(self, phase: int, m: int, n: int, batch_count: int = 1) -> Geometry:
        """How a launch with these extents cuts phase number `phase`; 0 tiles where a table says it.

        Raises:
            UnsupportedError: more columns than this kernel takes.
        """
        found = CGeometry()
        check(native_library().plz_phase_geometry(self._handle, phase, m, n, batch_count, ctypes.byref(found)))
        return Geometry(found.rows, found.columns, found.columns_per_split, found.splits, found.tiles)


def host_target() -> str:
    """The best of `CPU_LEVELS` that processor and system support, or "unknown"."""
    return str(native_library().plz_host_cpu_level().decode())


def is_runnable(target: str) -> bool:
    """Whether this processor runs code for `target`."""
    host = host_target()
    if host in _X86_LEVELS and target in _X86_LEVELS:
        return _X86_LEVELS.index(target) <= _X86_LEVELS.index(host)
    return target == host


def c_buffers(buffers: tuple[Buffer, ...]) -> "ctypes.Array[CBuffer]":
    """Describe buffers as the library reads them."""
    found = (CBuffer * len(buffers))()
    for target, source in zip(found, buffers, strict=True):
        target.role = _ROLE_CODES[source.role]
        target.axis = AXIS_CODES[source.axis]
        target.row_bytes = source.row_bytes
        target.per_split = source.per_split
    return found


def _c_phases(phases: tuple[Phase, ...]) -> "ctypes.Array[CPhase]":
    found = (CPhase * len(phases))()
    for target, source in zip(found, phases, strict=True):
        is_foreign = sys.platform == "win32" and source.windows_entry >= 0
        target.entry = source.windows_entry if is_foreign else source.entry
        target.rows_per_tile = source.rows_per_tile
        target.max_columns_per_split = source.max_columns_per_split
        target.cost = source.cost
        target.rows_axis = AXIS_CODES[source.rows]
        target.columns_axis = AXIS_CODES[source.columns]
        target.splittable = source.splittable
        target.merges = source.merges
        target.tile_table = source.tile_table
    return found
