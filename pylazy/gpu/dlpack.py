"""Arrays on a GPU in and out through DLPack: the structures of dlpack.h, by ctypes."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.memory_layout import contiguous_strides

if TYPE_CHECKING:
    from pylazy.runtime.gpu_devices import DeviceMemory

#: What `__dlpack__(stream=...)` calls the legacy default stream of CUDA, the null stream of the driver.
DLPACK_LEGACY_STREAM = 1
_CUDA = 2  # kDLCUDA
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}  # kDLInt, kDLUInt, kDLFloat, kDLBool
_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


class Span:
    """Where an array of another library lies.

    Attributes:
        pointer: address of its first element.
        strides: in bytes.
    """

    def __init__(self, capsule: Any, shape: tuple[int, ...]) -> None:
        """Read a capsule, which is kept: the array lives as long as it does."""
        tensor = _Managed.from_address(_pointer_of(capsule, _NAME)).tensor
        item = tensor.bits // 8
        self._capsule = capsule
        self.pointer = (tensor.data or 0) + tensor.byte_offset
        if tensor.strides:
            self.strides = tuple(tensor.strides[k] * item for k in range(len(shape)))
        else:
            self.strides = contiguous_strides(shape, item)


def imported_span(array: Any) -> Span:
    """Read where an array lies, after what its library does to it has come before the legacy default stream."""
    return Span(array.__dlpack__(stream=DLPACK_LEGACY_STREAM), tuple(array.shape))


class DeviceBuffer:
    """Memory of a GPU that a library takes over as an array, through `__dlpack__`.

    Attributes:
        memory: of the elements, contiguous; everything that writes them has run.
        shape: of the array.
    """

    def __init__(self, memory: DeviceMemory, shape: tuple[int, ...], dtype: str) -> None:
        """Describe an array."""
        self.memory = memory
        self.shape = shape
        self._dtype = np.dtype(dtype)

    @property
    def item_bytes(self) -> int:
        """Bytes of an element."""
        return self._dtype.itemsize

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self.memory.device

    def __dlpack__(self, **_: Any) -> Any:
        held = _Held(self.memory, self.shape, self._dtype)
        _HELD[held.address] = held
        return _new_capsule(held.address, _NAME, ctypes.cast(_drop_unused, ctypes.c_void_p))


class _Held:
    """What a capsule points to, until its consumer calls the deleter."""

    def __init__(self, memory: DeviceMemory, shape: tuple[int, ...], dtype: Any) -> None:
        self.memory = memory
        self._shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        tensor = _Tensor(
            memory.address, _CUDA, memory.device, len(shape), _KINDS[dtype.kind], 8 * dtype.itemsize, 1,
            self._shape, None, 0,
        )  # fmt: skip
        self.managed = _Managed(tensor, None, _delete)
        self.address = ctypes.addressof(self.managed)


_HELD: dict[int, _Held] = {}


def _forget(managed: Any) -> None:
    _HELD.pop(ctypes.addressof(managed.contents), None)


def _forget_unused(capsule: Any) -> None:
    """Free what nobody took: a consumer renames the capsule that it takes."""
    address = _raw_pointer(capsule, _NAME) if _is_valid(capsule, _NAME) else None
    if address:
        _HELD.pop(address, None)


_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_delete = _DELETER(_forget)
_drop_unused = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_forget_unused)
