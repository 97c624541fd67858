"""Libraries whose arrays count as memory of a GPU: one like CuPy, one that only speaks DLPack, as JAX."""

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
from stand_in import StandInDriver

Array = Any  # an ndarray
STREAM = 23


class DeviceArray:
    """An array of the first library, over host memory that the driver knows."""

    def __init__(self, array: Array, library: "StreamLibrary", device: int) -> None:
        self.array = array
        self._library = library
        self._device = device
        library.driver.register(_owner(array), device)

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    dtype = property(lambda self: self.array.dtype)

    def _like(self, array: Array) -> "DeviceArray":
        return DeviceArray(array, self._library, self._device)

    def __getitem__(self, key: Any) -> "DeviceArray":
        return self._like(self.array[key])

    def reshape(self, *shape: Any) -> "DeviceArray":
        return self._like(self.array.reshape(*shape))

    def astype(self, dtype: Any, *, copy: bool = True) -> "DeviceArray":
        return self._like(self.array.astype(dtype, copy=copy))

    def fill(self, value: float) -> None:
        self.array.fill(value)

    def __truediv__(self, other: Any) -> "DeviceArray":
        return self._like(self.array / getattr(other, "array", other))

    def __mul__(self, other: Any) -> "DeviceArray":
        return self._like(self.array * getattr(other, "array", other))

    def __sub__(self, other: Any) -> "DeviceArray":
        return self._like(self.array - getattr(other, "array", other))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        described = self.array.__array_interface__
        return {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": described["data"],
            "strides": described["strides"],
            "version": 3,
            "stream": self._library.produced_on,
        }

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("the array interface tells more")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._device

    def __array_namespace__(self) -> Any:
        return self._library

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("an array of a GPU does not turn into one of the host by itself")


class StreamLibrary:
    """What we use of CuPy."""

    __name__ = "stream_library"

    def __init__(self, driver: StandInDriver) -> None:
        self.driver = driver
        self.produced_on: int | None = None
        self.stream = SimpleNamespace(ptr=STREAM, is_capturing=lambda: False)
        self.cuda = SimpleNamespace(get_current_stream=lambda: self.stream, Device=lambda _: nullcontext())

    def array(self, array: Array, device: int = 0) -> DeviceArray:
        return DeviceArray(np.array(array), self, device)

    def empty(self, shape: Any, dtype: Any) -> DeviceArray:
        return self.full(shape, 77, dtype)

    def full(self, shape: Any, value: float, dtype: Any) -> DeviceArray:
        return self.array(np.full(shape, value, dtype))

    def asarray(self, array: Array) -> DeviceArray:
        return self.array(array)

    def ascontiguousarray(self, array: DeviceArray) -> DeviceArray:
        return self.array(np.ascontiguousarray(array.array))


class ExchangedArray:
    """An array of the second library: read-only, given and taken through capsules."""

    def __init__(self, array: Array, library: "ExchangeLibrary") -> None:
        self.array = array
        self._library = library
        library.driver.register(_owner(array))

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    dtype = property(lambda self: self.array.dtype)

    def astype(self, dtype: Any, *, copy: bool = True) -> "ExchangedArray":
        return ExchangedArray(self.array.astype(dtype, copy=copy), self._library)

    def reshape(self, *shape: Any) -> "ExchangedArray":
        return ExchangedArray(self.array.reshape(*shape), self._library)

    def __truediv__(self, other: Any) -> "ExchangedArray":
        return ExchangedArray(self.array / other, self._library)

    def __dlpack__(self, *, stream: int) -> Any:
        assert stream == 1
        self._library.given += 1
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __array_namespace__(self) -> Any:
        return self._library


class ExchangeLibrary:
    """What we use of JAX."""

    __name__ = "exchange_library"

    def __init__(self, driver: StandInDriver) -> None:
        self.driver = driver
        self.given = 0

    def array(self, array: Array) -> ExchangedArray:
        return ExchangedArray(np.array(array), self)

    def full(self, shape: Any, value: float, dtype: Any) -> ExchangedArray:
        return self.array(np.full(shape, value, dtype))

    def from_dlpack(self, buffer: Any) -> ExchangedArray:
        """Take an array over: its memory is that of the host, whatever it says."""
        assert buffer.__dlpack_device__() == (2, 0)
        capsule = buffer.__dlpack__(stream=1, max_version=(1, 0))
        return self.array(_read(capsule))


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _read(capsule: Any) -> Array:
    """Copy what a capsule holds, as its consumer, and let go of it."""
    from pylazy.gpu import dlpack

    managed = dlpack._Managed.from_address(dlpack._pointer_of(capsule, b"dltensor"))
    ctypes.pythonapi.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)
    ctypes.pythonapi.PyCapsule_SetName(capsule, _USED)
    tensor = managed.tensor
    dtype = np.dtype(f"{ {0: 'i', 1: 'u', 2: 'f', 6: 'b'}[tensor.code] }{tensor.bits // 8}")
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    content = np.frombuffer((ctypes.c_ubyte * size).from_address(tensor.data), dtype).reshape(shape).copy()
    managed.deleter(ctypes.byref(managed))
    return content


_USED = b"used_dltensor"
