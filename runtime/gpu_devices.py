"""The NVIDIA GPUs of this machine: how many, what they are, their memory and their streams."""

import ctypes
from dataclasses import dataclass
from functools import cache

from pylazy.runtime.native_library import CGpuProperties, check, native_library


@dataclass(frozen=True)
class GpuProperties:
    """What a GPU is.

    Attributes:
        name: such as "NVIDIA H100".
        processors: multiprocessors.
        capability: major and minor compute capability, (9, 0) of an H100.
        clock_hertz: the highest clock of the multiprocessors; 0 where the driver does not say.
    """

    name: str
    processors: int
    capability: tuple[int, int]
    clock_hertz: float = 0.0


def device_count() -> int:
    """The number of GPUs; 0 where there is no driver, see `reason_for_no_device`.

    Raises:
        DeviceError: the driver fails.
    """
    found = ctypes.c_int32()
    check(native_library().plz_gpu_device_count(ctypes.byref(found)))
    return found.value


def reason_for_no_device() -> str:
    """Say why this machine has no GPU for us; empty where it has one."""
    return "" if device_count() else str(native_library().plz_last_error().decode(errors="replace"))


@cache
def properties(device: int) -> GpuProperties:
    """What a GPU is; asked of the driver once.

    Raises:
        DeviceError: there is no such GPU.
    """
    found = CGpuProperties()
    check(native_library().plz_gpu_device_properties(device, ctypes.byref(found)))
    capability = (found.major, found.minor)
    return GpuProperties(found.name.decode(errors="replace"), found.processors, capability, found.clock_kilohertz * 1e3)


def free_memory(device: int) -> int:
    """Bytes of a GPU's memory that are free.

    Raises:
        DeviceError: there is no such GPU, or the driver fails.
    """
    free, total = ctypes.c_int64(), ctypes.c_int64()
    check(native_library().plz_gpu_memory(device, ctypes.byref(free), ctypes.byref(total)))
    return free.value


class DeviceMemory:
    """Memory of a GPU in the order of a stream: given back when this object is no longer used.

    Attributes:
        device: number of the GPU.
        stream: what is launched on it may use the memory.
        address: of the first byte; aligned to 256 bytes.
        size: in bytes.
    """

    def __init__(self, size: int, *, device: int, stream: int) -> None:
        """Allocate memory; its bytes are not set.

        Raises:
            MemoryError: there is not enough.
            DeviceError: there is no such GPU, or the driver fails.
        """
        self.address = 0
        self.device, self.stream, self.size = device, stream, size
        self._free = native_library().plz_gpu_free  # modules may be gone when the last object is
        found = ctypes.c_void_p()
        check(native_library().plz_gpu_allocate(device, stream, size, ctypes.byref(found)))
        self.address = found.value or 0

    def __del__(self) -> None:
        """Give it back; nothing can be told where this fails, as at the end of the process."""
        if self.address:
            self._free(self.device, self.stream, self.address)
            self.address = 0

    def fill(self, host: int, size: int, *, offset: int = 0) -> None:
        """Copy bytes from an address of the host, which may not change before `synchronize`.

        Raises:
            DeviceError: the driver fails.
        """
        target = self.address + offset
        check(native_library().plz_gpu_copy_to_device(self.device, self.stream, target, host, size))

    def read(self, host: int, size: int, *, offset: int = 0) -> None:
        """Copy bytes to an address of the host, which has them after `synchronize`.

        Raises:
            DeviceError: the driver fails.
        """
        source = self.address + offset
        check(native_library().plz_gpu_copy_to_host(self.device, self.stream, host, source, size))


def synchronize(device: int, stream: int) -> None:
    """Wait for everything that a stream has been given.

    Raises:
        DeviceError: there is no such GPU, or something that ran there failed.
    """
    check(native_library().plz_gpu_synchronize(device, stream))


def let_wait(waiting: int, awaited: int, *, device: int) -> None:
    """Let a stream wait for what another one has been given so far; this thread waits for nothing.

    Raises:
        DeviceError: there is no such GPU, or the driver fails.
    """
    check(native_library().plz_gpu_wait(device, waiting, awaited))
