"""What the CUDA driver says of a GPU."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from typing import Any

from pylazy.runtime.errors import DeviceError

_VARIABLE = "PYLAZY_CUDA_DRIVER"
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute of the driver's interface
_CLOCK_KILOHERTZ, _PROCESSORS, _MAJOR, _MINOR = 13, 16, 75, 76


@dataclass(frozen=True)
class Gpu:
    """One device.

    Attributes:
        name: as the driver gives it.
        processors: multiprocessors.
        capability: major and minor.
        clock_hertz: the highest clock of the processors; 0 where the driver does not say.
        driver: the version of CUDA that the driver has, such as "13.0".
    """

    name: str
    processors: int
    capability: tuple[int, int]
    clock_hertz: float
    driver: str

    @property
    def arch(self) -> str:
        """The architecture, such as "sm_90"."""
        return f"sm_{self.capability[0]}{self.capability[1]}"

    def __str__(self) -> str:
        clock = f"{self.clock_hertz * 1e-9:.2f} GHz" if self.clock_hertz else "clock unknown"
        return f"{self.name}, {self.processors} multiprocessors, {clock}, {self.arch}, driver for CUDA {self.driver}"


def find_gpu(device: int = 0) -> Gpu:
    """Ask the driver for a device.

    Raises:
        DeviceError: there is no driver, or no such device; the message says what was looked for.
    """
    library = os.environ.get(_VARIABLE) or _LIBRARY
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise DeviceError(
            f"no NVIDIA GPU: the CUDA driver {library} cannot be loaded ({error}); install NVIDIA's driver, or name "
            f"its library in {_VARIABLE}"
        ) from None
    _call(driver, "cuInit", 0)
    count, version = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if device >= count.value:
        raise DeviceError(f"no NVIDIA GPU of number {device}: the driver {library} has {count.value}")
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver, "cuDeviceGet", ctypes.byref(handle), device)
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, handle)
    if hasattr(driver, "cuDriverGetVersion"):
        _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    processors, major, minor = (_attribute(driver, handle, number) for number in (_PROCESSORS, _MAJOR, _MINOR))
    return Gpu(
        name.value.decode(errors="replace"),
        processors,
        (major, minor),
        _attribute(driver, handle, _CLOCK_KILOHERTZ) * 1e3,
        f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def _attribute(driver: Any, handle: ctypes.c_int, number: int) -> int:
    """Ask for an attribute; 0 where this driver does not know it."""
    value = ctypes.c_int()
    status = driver.cuDeviceGetAttribute(ctypes.byref(value), number, handle)
    return 0 if status else value.value


def _call(driver: Any, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        raise DeviceError(f"no NVIDIA GPU: {function} of the CUDA driver gives error {status}")
