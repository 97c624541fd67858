"""Arrays that the user gives for results to be written into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.array_libraries import is_tensor, torch_dtype_name
from pylazy.arrays.sources import NUMBER, NUMPY, OF_OTHER_LIBRARIES, TORCH, Source
from pylazy.runtime.errors import DeviceError, DtypeError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_out(out: Any, *, kind: str, shape: tuple[int, ...], dtype: str, sources: Sequence[Source]) -> None:
    """Refuse an `out=` that the result cannot be written into.

    Raises:
        DtypeError: it is no array of the kind and dtype of the result.
        UnsupportedError: the inputs are neither NumPy's nor torch's.
        ShapeError: it has another shape, cannot be written, or shares memory with an input.
        DeviceError: it is not on the device of the inputs.
    """
    if kind in OF_OTHER_LIBRARIES:
        raise UnsupportedError(
            at_user_line("out is given, and arrays of this library cannot be written in place: use the result")
        )
    expected = "a numpy array" if kind == NUMPY else "a torch tensor"
    if not (isinstance(out, np.ndarray) if kind == NUMPY else is_tensor(out)):
        raise DtypeError(at_user_line(f"out is of type {type(out).__name__}, expected {expected}, as the inputs are"))
    if kind == TORCH:
        expected_device = next(source.array.device for source in sources if source.kind == TORCH)
        if out.device != expected_device:
            raise DeviceError(
                at_user_line(f"out lies on the device {out.device}, expected {expected_device}, as the inputs do")
            )
    found = str(out.dtype) if kind == NUMPY else torch_dtype_name(out)
    if found != dtype or (kind == NUMPY and not out.dtype.isnative):
        raise DtypeError(at_user_line(f"out has dtype {found}, expected {dtype}, the dtype of the result"))
    if tuple(out.shape) != shape:
        raise ShapeError(at_user_line(f"out has shape {tuple(out.shape)}, expected {shape}, the shape of the result"))
    if kind == NUMPY and not out.flags.writeable:
        raise ShapeError(at_user_line("out is read-only, expected an array that can be written: pass a copy"))
    if _repeats_elements(out):
        raise ShapeError(
            at_user_line("out is a broadcast view, several of its elements are one in memory: pass a copy")
        )
    low, high = _memory_bounds(out)
    for source in sources:
        if source.kind == NUMBER:
            continue
        first, last = _memory_bounds(source.array)
        if low < last and first < high:
            raise ShapeError(
                at_user_line(
                    f"out shares memory with an input of shape {source.shape}, which is read while out is written: "
                    "pass an array of its own"
                )
            )


def _strides_in_bytes(array: Any) -> tuple[int, ...]:
    if isinstance(array, np.ndarray):
        return array.strides
    return tuple(stride * array.element_size() for stride in array.stride())


def _repeats_elements(array: Any) -> bool:
    return any(size > 1 and stride == 0 for size, stride in zip(array.shape, _strides_in_bytes(array), strict=True))


def _memory_bounds(array: Any) -> tuple[int, int]:
    """First byte, and the one after the last; equal if the array is empty."""
    shape = tuple(array.shape)
    pointer = array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data_ptr()
    if 0 in shape:
        return pointer, pointer
    spans = [(size - 1) * stride for size, stride in zip(shape, _strides_in_bytes(array), strict=True)]
    item = array.itemsize if isinstance(array, np.ndarray) else array.element_size()
    return pointer + sum(span for span in spans if span < 0), pointer + sum(span for span in spans if span > 0) + item
