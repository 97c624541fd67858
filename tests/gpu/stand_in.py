"""A CUDA driver of the host: its kernels run on the PTX interpreter."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ptx_interpreter import launch
from ptx_memory import GlobalMemory
from ptx_text import Kernel, parse_ptx

Array = Any  # an ndarray
SOURCES = tuple(Path(__file__).with_name(name) for name in ("stand_in_driver.c", "stand_in_streams.c"))
VARIABLE = "PYLAZY_CUDA_DRIVER"
_LAUNCH_FAILED = 719
_EXTENTS = 4
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint32),
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_void_p),
)


def build(folder: Path) -> "Path | None":
    """Compile the driver; None where there is no C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "libstand_in_driver.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-pthread", "-o", str(library), *map(str, SOURCES)]
    subprocess.run(command, check=True, capture_output=True)
    return library


class StandInDriver:
    """The driver of a process, which the runtime library loads as that of CUDA.

    Attributes:
        errors: what went wrong in launches; the runtime only hears that one failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors: list[Exception] = []
        self._library = ctypes.CDLL(str(path))
        self._library.stand_in_log.restype = ctypes.c_char_p
        self._library.stand_in_register.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._library.stand_in_set_free_bytes.argtypes = (ctypes.c_size_t,)
        self._library.stand_in_contents.argtypes = (ctypes.c_void_p,)
        self._library.stand_in_contents.restype = ctypes.c_void_p
        self._callback = _CALLBACK(self._launch)
        self._library.stand_in_set_launch(self._callback)
        self._modules: dict[bytes, dict[str, Kernel]] = {}

    def configure(
        self, *, devices: int, processors: int = 4, capability: tuple[int, int] = (9, 0), pools: bool = True
    ) -> None:
        """Say what devices there are."""
        self._library.stand_in_configure(devices, processors, *capability, int(pools))

    def set_free_bytes(self, size: int) -> None:
        """Say how much memory of a device is free."""
        self._library.stand_in_set_free_bytes(size)

    def run_late(self) -> None:
        """Let work run as late as the rules of streams allow, until `run_at_once`."""
        self._library.stand_in_defer(1)

    def run_at_once(self) -> None:
        """Let work run when it is given to a stream."""
        self._library.stand_in_defer(0)

    def hide_memory(self) -> None:
        """End the process where the host touches memory that is allocated on a device from now on."""
        self._library.stand_in_hide_memory(1)

    def contents(self, address: int) -> int:
        """Give the address that the host has for memory of a device."""
        return int(self._library.stand_in_contents(address))

    def fail(self, function: str, result: int, text: str = "") -> None:
        """Let the next call of a function fail."""
        self._library.stand_in_fail(function.encode(), result, text.encode())

    def register(self, array: Array, device: int = 0) -> None:
        """Count the memory of an array as that of a device."""
        if array.nbytes:
            self._library.stand_in_register(array.ctypes.data, array.nbytes, device)

    def calls(self) -> list[str]:
        """Give the calls since the last time that they were asked for."""
        found: list[str] = self._library.stand_in_log().decode().splitlines()
        self._library.stand_in_clear_log()
        return found

    def allocated(self) -> int:
        """Give the number of allocations of the driver that were not freed."""
        return int(self._library.stand_in_allocated())

    def _launch(
        self, text: bytes, name: bytes, grid: Any, threads: int, stream: Any, device: int, parameters: Any
    ) -> int:
        try:
            if text not in self._modules:
                self._modules[text] = parse_ptx(text.decode())
            kernel = self._modules[text][name.decode()]
            self._run(kernel, tuple(grid[:3]), threads, device, parameters)
        except Exception as error:  # noqa: BLE001  it may not pass through C
            self.errors.append(error)
            return _LAUNCH_FAILED
        return 0

    def _run(self, kernel: Kernel, grid: tuple[int, int, int], threads: int, device: int, parameters: Any) -> None:
        count = len(kernel.parameters)
        values = [ctypes.c_int64.from_address(parameters[k]).value for k in range(count)]
        buffers = (count - _EXTENTS) // 2
        spans = {}
        for number, pointer in enumerate(values[:buffers]):
            if pointer:
                start, size = self._find(pointer, device, f"buffer {number} of {kernel.name}")
                spans[start] = size
        hosts = {start: _bytes_at(self.contents(start), size) for start, size in spans.items()}
        words = {f"memory at {start:#x}": _whole_words(host) for start, host in hosts.items()}
        memory = GlobalMemory(words)
        addresses = dict(zip(spans, memory.addresses(), strict=True))

        def translate(pointer: int) -> int:
            start = next((start for start, size in spans.items() if start <= pointer < start + size), None)
            return 0 if start is None else addresses[start] + pointer - start

        arguments = [*map(translate, values[:buffers]), *values[buffers:]]
        launch(kernel, grid=grid, threads=threads, arguments=arguments, memory=memory)
        for host, found in zip(hosts.values(), memory.arrays().values(), strict=True):
            host[:] = found.view(np.uint8)[: len(host)]

    def _find(self, pointer: int, device: int, what: str) -> tuple[int, int]:
        start, size, owner = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int()
        found = self._library.stand_in_find(
            ctypes.c_void_p(pointer), ctypes.byref(start), ctypes.byref(size), ctypes.byref(owner)
        )
        if not found or start.value is None:
            raise AssertionError(f"{what} at {pointer:#x} is not in the memory of a device")
        if owner.value != device:
            raise AssertionError(f"{what} lies on device {owner.value}, the kernel runs on {device}")
        return start.value, size.value


def _bytes_at(start: int, size: int) -> Array:
    return np.frombuffer((ctypes.c_ubyte * size).from_address(start), np.uint8)


def _whole_words(host: Array) -> Array:
    padded = np.zeros(-(-len(host) // 4) * 4, np.uint8)
    padded[: len(host)] = host
    return padded.view(np.uint32)


@contextmanager
def in_use(driver: StandInDriver, devices: int = 2) -> Iterator[StandInDriver]:
    """Let the runtime library find the driver, with some devices; afterwards there are none."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(driver.path)
    driver.configure(devices=devices)
    driver.set_free_bytes(1 << 34)
    driver.calls()
    driver.errors.clear()
    try:
        yield driver
    finally:
        driver.configure(devices=0)
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def launches(calls: Sequence[str]) -> list[str]:
    """Give the launches among calls."""
    return [call for call in calls if call.startswith("cuLaunchKernel")]
