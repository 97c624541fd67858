"""Libraries whose arrays count as memory of a GPU: one like CuPy, one that only speaks DLPack, as JAX."""

import ctypes
import inspect
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
        return self._like(np.asarray(self.array[_unwrapped(key)]))

    def reshape(self, *shape: Any) -> "DeviceArray":
        return self._like(self.array.reshape(*shape))

    def astype(self, dtype: Any, *, copy: bool = True) -> "DeviceArray":
        return self._like(self.array.astype(dtype, copy=copy))

    def fill(self, value: float) -> None:
        self.array.fill(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.array[_unwrapped(key)] = _unwrapped(value)

    def __bool__(self) -> bool:
        return bool(self.array)

    def __float__(self) -> float:
        return float(self.array)

    def __int__(self) -> int:
        return int(self.array)

    def __iter__(self) -> Any:
        return map(self._like, map(np.asarray, self.array))

    def __len__(self) -> int:
        return len(self.array)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        known = DeviceArray | np.ndarray | np.generic | bool | int | float
        if method != "__call__" or not all(isinstance(value, known) for value in inputs):
            return NotImplemented
        if any(isinstance(value, np.ndarray) for value in inputs):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")  # as CuPy does, of any shape
        return self._like(np.asarray(ufunc(*map(_unwrapped, inputs), **options)))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if not all(issubclass(kind, DeviceArray | np.ndarray) for kind in types):
            return NotImplemented
        if function in _OTHER_SIGNATURES:
            inspect.signature(_OTHER_SIGNATURES[function]).bind(*args, **options)
        found = function(*_unwrapped(args), **{name: _unwrapped(value) for name, value in options.items()})
        if function in (np.shape, np.ndim, np.size):
            return found
        if any(issubclass(kind, np.ndarray) for kind in types):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return type(found)(*map(self._like, found)) if isinstance(found, tuple) else self._like(np.asarray(found))

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


_OTHER_SIGNATURES = {
    np.reshape: lambda a, newshape, order="C": None,
    np.clip: lambda a, a_min, a_max, out=None: None,
    np.argsort: lambda a, axis=-1, kind=None: None,
}
"""CuPy's signatures, where they are not NumPy's."""

for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
    "and": np.bitwise_and, "or": np.bitwise_or, "matmul": np.matmul, "lt": np.less, "ge": np.greater_equal,
    "ne": np.not_equal, "floordiv": np.floor_divide, "mod": np.remainder, "gt": np.greater, "le": np.less_equal,
}.items():  # fmt: skip
    # As CuPy, they call NumPy's ufunc, where another array has a say.
    setattr(DeviceArray, f"__{_name}__", lambda self, other, ufunc=_ufunc: ufunc(self, other))
    setattr(DeviceArray, f"__r{_name}__", lambda self, other, ufunc=_ufunc: ufunc(other, self))
for _name, _ufunc in {"neg": np.negative, "abs": np.absolute, "invert": np.invert}.items():
    setattr(DeviceArray, f"__{_name}__", lambda self, ufunc=_ufunc: ufunc(self))
for _function in (np.sum, np.max, np.min, np.any, np.all, np.swapaxes, np.argsort):
    setattr(DeviceArray, _function.__name__, lambda self, *args, function=_function: function(self, *args))


class StreamLibrary:
    """What we use of CuPy."""

    __name__ = "stream_library"

    def __init__(self, driver: StandInDriver) -> None:
        self.driver = driver
        self.produced_on: int | None = None
        self.stream = SimpleNamespace(ptr=STREAM, is_capturing=lambda: False)
        self.cuda = SimpleNamespace(get_current_stream=lambda: self.stream, Device=lambda _: nullcontext())
        self.add = SimpleNamespace(at=lambda array, key, x: np.add.at(array.array, _unwrapped(key), x.array))

    def array(self, array: Array, device: int = 0) -> DeviceArray:
        return DeviceArray(np.array(array), self, device)

    def empty(self, shape: Any, dtype: Any) -> DeviceArray:
        return self.full(shape, 77, dtype)

    def full(self, shape: Any, value: float, dtype: Any) -> DeviceArray:
        return self.array(np.full(shape, value, dtype))

    def asarray(self, array: Array, dtype: Any = None) -> DeviceArray:
        return self.array(np.asarray(getattr(array, "array", array), dtype))

    def zeros(self, shape: Any, dtype: Any) -> DeviceArray:
        return self.full(shape, 0, dtype)

    def ones(self, shape: Any, dtype: Any) -> DeviceArray:
        return self.full(shape, 1, dtype)

    def arange(self, count: int) -> DeviceArray:
        return self.array(np.arange(count))

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


def _unwrapped(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_unwrapped, value))
    return value.array if isinstance(value, DeviceArray) else value


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
