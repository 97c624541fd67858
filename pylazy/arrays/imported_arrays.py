"""Arrays of libraries that are neither NumPy nor torch, read through DLPack."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from pylazy.arrays.array_libraries import is_tensor, is_traced
from pylazy.runtime.errors import DeviceError, DtypeError
from pylazy.user_positions import at_user_line


class Imported(NamedTuple):
    """An array of a library that is neither NumPy nor torch.

    Attributes:
        array: on the host the same data as NumPy sees it, copied only where its library gives no other way; on a GPU
            an array of the library.
        owner: the user's own array.
        namespace: the module that makes arrays of its library, or None where nobody says which; see `readable`.
        device: number of the GPU that it lies on; None on the host.
    """

    array: Any
    owner: Any
    namespace: Any
    device: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.array.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions of the array."""
        return len(self.array.shape)

    @property
    def dtype(self) -> Any:
        """Of the array, as NumPy's."""
        return self.array.dtype

    def reshape(self, *shape: int) -> Imported:
        """The array in another shape."""
        return self._replace(array=self.array.reshape(*shape))


def is_array(value: Any) -> bool:
    """Whether this is an array: NumPy's, torch's, or of a library that speaks DLPack."""
    known = isinstance(value, np.ndarray) or is_tensor(value) or value.__class__ is Imported
    return known or hasattr(value, "__dlpack__") or is_traced(value)


_CPU_MEMORY = frozenset({1, 3, 11})  # kDLCPU, kDLCUDAHost, kDLROCMHost in dlpack.h
GPU_MEMORY = frozenset({2, 13})  # kDLCUDA, kDLCUDAManaged
UNREADABLE = (AttributeError, BufferError, RuntimeError, TypeError, ValueError)


def readable(value: Any) -> Any:
    """Give an array as this package reads it: those of NumPy and torch as they are, others as an `Imported`.

    Results are made by the namespace of the array, `__array_namespace__` of the array API standard, or by the package
    of its class where that has a function `from_dlpack`.

    Raises:
        DeviceError: it lies where the CPU cannot read it.
        DtypeError: NumPy cannot read it.
    """
    if isinstance(value, np.ndarray) or is_tensor(value) or value.__class__ is Imported:
        return value
    if is_traced(value):
        imported: Imported = value.__pylazy_imported__()
        return imported
    kind = type(value).__name__
    try:
        device, number = map(int, value.__dlpack_device__())
        if device in _CPU_MEMORY:
            return Imported(_view(value), value, namespace_of(value))
    except UNREADABLE as error:
        raise DtypeError(
            at_user_line(f"an array of type {kind} cannot be read through DLPack, {type(error).__name__}: {error}")
        ) from None
    if device in GPU_MEMORY:
        namespace = namespace_of(value)
        if namespace is None:
            raise DtypeError(
                at_user_line(
                    f"an array of type {kind} lies on GPU {number} and names no library that makes arrays: expected "
                    "__array_namespace__, or a package with from_dlpack"
                )
            )
        return Imported(value, value, namespace, number)
    raise DeviceError(
        at_user_line(
            f"an array of type {kind} lies on the DLPack device {device}, expected the CPU (1) or CUDA (2): move it"
        )
    )


def _view(value: Any) -> Any:
    try:
        return np.from_dlpack(value)
    except UNREADABLE:
        if not hasattr(value, "__array__"):
            raise
        return np.asarray(value)  # NumPy's DLPack knows no bfloat16


def namespace_of(value: Any) -> Any:
    """The module that makes arrays of the library of this one; None where nobody says which."""
    if hasattr(value, "__array_namespace__"):
        return value.__array_namespace__()
    package = sys.modules.get(type(value).__module__.partition(".")[0])
    return package if hasattr(package, "from_dlpack") else None
