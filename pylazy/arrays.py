"""Arrays as variables of a formula: what they are, where they lie, and how to make one like them."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from pylazy.expression import at_user_line, is_compiling
from pylazy.runtime.errors import DeviceError, DtypeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMPY, TORCH, NUMBER, SYMBOL = "numpy", "torch", "number", "symbol"

ITEM_BYTES = {"float32": 4, "float64": 8, "int64": 8}
_NUMPY_NAMES = {np.dtype(name): name for name in ("float32", "float64")}
_NUMPY_DTYPES = {name: np.dtype(name) for name in ITEM_BYTES}
_BOXES: dict[str, type[ctypes.c_float | ctypes.c_double]] = {
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}
_LOW_PRECISION = ("float16", "bfloat16")
"""What torch's autocast makes of float32, and is made float32 again here: sums of many terms need it."""
_C_CONTIGUOUS_AND_ALIGNED = 0x0101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED, numpy/ndarraytypes.h


class Located(NamedTuple):
    """Where a kernel finds the data of a variable.

    Attributes:
        pointer: address of the first row of the first batch element.
        batch_shape: batch sizes of the array.
        batch_strides: bytes from one batch element to the next, one for each batch dimension, 0 where broadcast.
        keep: the object that owns the memory; hold it while the kernel runs.
    """

    pointer: int
    batch_shape: tuple[int, ...]
    batch_strides: tuple[int, ...]
    keep: Any


class Symbol(NamedTuple):
    """What stands behind a variable whose data is an argument of the reduction.

    Attributes:
        position: in the order of the arguments.
    """

    position: int

    @property
    def kind(self) -> str:
        """What it is, as the kind of a `Source`."""
        return SYMBOL

    @property
    def identity(self) -> tuple[str, int]:
        """Equal for two symbols that are the same argument."""
        return SYMBOL, self.position

    @property
    def number(self) -> None:
        """No number: a kernel reads the argument."""
        return None


class Source:
    """An array or a number that stands behind a variable; the data is read when a reduction runs.

    Attributes:
        kind: "numpy", "torch" or "number".
        array: the user's own array, or a float.
        identity: equal for two sources that are the same data seen the same way.
        number: the float of a number, None for an array.
        shape: of the array when the variable was made; it may not change.
        batch: number of leading batch dimensions of the array.
        dtype: "float32" or "float64"; of a number, what it is where nothing else decides.
        weak: whether the dtype gives way to that of the other variables, as a Python number's does.
    """

    __slots__ = ("_box", "array", "batch", "dtype", "identity", "kind", "number", "shape", "weak")

    def __init__(self, kind: str, array: Any, *, batch: int, dtype: str, weak: bool, view: str) -> None:
        self.kind = kind
        self.array = array
        self.batch = batch
        self.dtype = dtype
        self.weak = weak
        self._box: dict[str, Located] | None = None
        if kind == NUMBER:
            self.shape: tuple[int, ...] = ()
            self.identity: Any = id(self)
            self.number: float | None = array
        else:
            self.number = None
            self.shape = tuple(array.shape)
            # The id of a tensor in a graph would tie the graph to this tensor, and another one to another graph.
            self.identity = (id(self if kind == TORCH and is_compiling() else array), view)

    def __reduce__(self) -> tuple[Any, ...]:
        view = "" if self.kind == NUMBER else self.identity[1]
        return _rebuild_source, (self.kind, self.array, self.batch, self.dtype, self.weak, view)

    def locate(self, dtype: str) -> Located:
        """Find the data, in this dtype and with contiguous rows; copied only where it must be.

        Raises:
            ShapeError: the array has changed its shape since the variable was made.
        """
        array = self.array
        if self.kind == NUMPY:
            if array.shape != self.shape:
                self._refuse_new_shape()
            if not self.batch and self.dtype == dtype and array.flags.num & 0x0101 == 0x0101:
                return Located(numpy_address(array), (), (), array)
            return self._locate_numpy(dtype)
        if self.kind == NUMBER:
            box = self._box
            if box is None:
                # Threads may race to build it: each stores a complete and equal table.
                made = {name: kind(array) for name, kind in _BOXES.items()}
                self._box = box = {name: Located(ctypes.addressof(made[name]), (), (), made[name]) for name in made}
            return box[dtype]
        return self.locate_tensor(array, dtype)

    def locate_tensor(self, tensor: Any, dtype: str) -> Located:
        """As `locate`, for a tensor that takes the place of this source's own."""
        if tuple(tensor.shape) != self.shape:
            self._refuse_new_shape()
        if torch_dtype_name(tensor) == dtype and not self.batch and tensor.is_contiguous():
            return Located(tensor.data_ptr(), (), (), tensor)
        item = tensor.element_size()
        strides = tuple(stride * item for stride in tensor.stride())
        if torch_dtype_name(tensor) != dtype or not _rows_are_contiguous(self.shape, strides, self.batch, item):
            tensor = tensor.detach()[_without_repeats(self.shape, strides, self.batch)]
            tensor = tensor.to(getattr(sys.modules["torch"], dtype)).contiguous()
            item = tensor.element_size()
            strides = tuple(stride * item for stride in tensor.stride())
        return Located(
            tensor.data_ptr(), self.shape[: self.batch], _batch_strides(tensor.shape, strides, self.batch), tensor
        )

    def _locate_numpy(self, dtype: str) -> Located:
        array = self.array
        aligned = array.flags.aligned
        if (
            self.dtype != dtype
            or not aligned
            or not _rows_are_contiguous(self.shape, array.strides, self.batch, array.itemsize)
        ):
            array = array[_without_repeats(self.shape, array.strides, self.batch)]
            array = np.array(array, dtype=_NUMPY_DTYPES[dtype], order="C", copy=True, subok=False)
        strides = _batch_strides(array.shape, array.strides, self.batch)
        return Located(numpy_address(array), self.shape[: self.batch], strides, array)

    def _refuse_new_shape(self) -> None:
        raise ShapeError(
            at_user_line(
                f"the array of shape {self.shape} in this formula now has shape {tuple(self.array.shape)}: its data "
                "may change before the reduction runs, its shape may not; build the LazyTensor again"
            )
        )


def _rebuild_source(kind: str, array: Any, batch: int, dtype: str, weak: bool, view: str) -> Source:
    return Source(kind, array, batch=batch, dtype=dtype, weak=weak, view=view)


def numpy_address(array: Any) -> int:
    """The address of the first element; four times faster than `array.ctypes.data` where the array can be written."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError, BufferError):
        # Read-only, empty or strided: the documented road, which takes 1.4 microseconds.
        address: int = array.__array_interface__["data"][0]
        return address


def is_tensor(value: Any) -> bool:
    """Whether this is a torch tensor; torch is not imported, as who has a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def torch_dtype_name(tensor: Any) -> str:
    """The name of a tensor's dtype as NumPy writes it."""
    torch = sys.modules["torch"]
    dtype = tensor.dtype
    if dtype is torch.float32:
        return "float32"
    return "float64" if dtype is torch.float64 else str(dtype).removeprefix("torch.")


def array_source(value: Any, *, what: str, batch: int, view: str, weak: bool = False) -> Source:
    """Wrap a NumPy array or a torch tensor.

    Args:
        value: the array.
        what: how to call it in a message.
        batch: number of its leading batch dimensions.
        view: the axis it is seen along; a part of its identity.
        weak: whether its dtype gives way to that of others.

    Raises:
        DtypeError: its elements are not float32 or float64.
        DeviceError: it holds no elements that the CPU can read.
    """
    if isinstance(value, np.ndarray):
        name = _NUMPY_NAMES.get(value.dtype)
        if name is None:
            _refuse_dtype(what, value.dtype, "x.astype(numpy.float32)")
        masked = sys.modules.get("numpy.ma")  # imported by whoever made a masked array
        if masked is not None and isinstance(value, masked.MaskedArray):
            raise DtypeError(
                at_user_line(f"{what} is a masked array, whose mask a formula would ignore: fill it first")
            )
        return Source(NUMPY, value, batch=batch, dtype=name, weak=weak, view=view)
    name = torch_dtype_name(value)
    if name in _LOW_PRECISION and sys.modules["torch"].is_autocast_enabled(value.device.type):
        value, name = value.float(), "float32"
    if name not in _BOXES:
        _refuse_dtype(what, value.dtype, "x.float()")
    if value.layout is not sys.modules["torch"].strided:
        raise DtypeError(
            at_user_line(f"{what} is a tensor of layout {value.layout}, expected a dense one: use x.to_dense()")
        )
    return Source(TORCH, value, batch=batch, dtype=name, weak=weak, view=view)


def number_source(value: float) -> Source:
    """Wrap a number that is read by the kernel, so that another value needs no other kernel."""
    return Source(NUMBER, value, batch=0, dtype="float64", weak=True, view="")


def _refuse_dtype(what: str, found: Any, conversion: str) -> NoReturn:
    raise DtypeError(
        at_user_line(f"{what} has dtype {found}, expected float32 or float64: convert it, as by {conversion}")
    )


def check_devices(sources: Sequence[Source]) -> str:
    """Say whether the result is an array or a tensor, and check that all data lies where the CPU can read it.

    Raises:
        DeviceError: the tensors lie on different devices, or on one that is not the CPU.
    """
    kind = NUMPY
    for source in sources:
        if source.kind == TORCH:
            kind = TORCH
            if not source.array.is_cpu:
                _refuse_devices(sources)
    return kind


def _refuse_devices(sources: Sequence[Source]) -> None:
    devices = {str(source.array.device) for source in sources if source.kind == TORCH}
    if any(source.kind == NUMPY for source in sources):
        devices.add("cpu")
    names = " and ".join(sorted(devices))
    if len(devices) > 1:
        message = (
            f"the arrays of this formula lie on the devices {names}, expected one: move them together, as by x.to()"
        )
    else:
        message = f"the arrays of this formula lie on the device {names}, expected cpu: move them, as by x.cpu()"
    raise DeviceError(at_user_line(message))


def empty_result(kind: str, shape: tuple[int, ...], dtype: str) -> Any:
    """Allocate a result, its elements not set."""
    if kind == NUMPY:
        return np.empty(shape, _NUMPY_DTYPES[dtype])
    torch = sys.modules["torch"]
    return torch.empty(shape, dtype=getattr(torch, dtype))


def converted(result: Any, dtype: str) -> Any:
    """Copy a result to the dtype "int64" or "bool"."""
    if isinstance(result, np.ndarray):
        return result.astype(dtype)
    return result.to(getattr(sys.modules["torch"], dtype))


def quotient(result: Any, count: int) -> Any:
    """Divide by a number of terms; there is no quotient by none or less."""
    return result / count if count > 0 else result * float("nan")


def result_address(result: Any) -> int:
    """The address of the first element of an array that `empty_result` made."""
    return numpy_address(result) if isinstance(result, np.ndarray) else int(result.data_ptr())


def check_out(out: Any, *, kind: str, shape: tuple[int, ...], dtype: str, sources: Sequence[Source]) -> None:
    """Refuse an `out=` that the result cannot be written into.

    Raises:
        DtypeError: it is no array of the kind and dtype of the result.
        ShapeError: it has another shape, cannot be written, or shares memory with an input.
        DeviceError: it is not on the CPU.
    """
    expected = "a numpy array" if kind == NUMPY else "a torch tensor"
    if not (isinstance(out, np.ndarray) if kind == NUMPY else is_tensor(out)):
        raise DtypeError(at_user_line(f"out is of type {type(out).__name__}, expected {expected}, as the inputs are"))
    if kind == TORCH and not out.is_cpu:
        raise DeviceError(at_user_line(f"out lies on the device {out.device}, expected cpu, as the inputs do"))
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


def _rows_are_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], batch: int, item_bytes: int) -> bool:
    expected = item_bytes
    for size, stride in zip(reversed(shape[batch:]), reversed(strides[batch:]), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _without_repeats(shape: tuple[int, ...], strides: tuple[int, ...], batch: int) -> tuple[slice, ...]:
    """Index that keeps one element of every batch dimension along which an array only repeats."""
    return tuple(
        slice(0, 1) if size > 1 and stride == 0 else slice(None)
        for size, stride in zip(shape[:batch], strides[:batch], strict=True)
    )


def _batch_strides(shape: Sequence[int], strides: tuple[int, ...], batch: int) -> tuple[int, ...]:
    return tuple(0 if shape[axis] == 1 else strides[axis] for axis in range(batch))
