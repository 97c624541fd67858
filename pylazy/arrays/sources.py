"""Arrays and numbers as data of a formula's variables: a `Source` knows where a kernel finds them."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, NamedTuple, NoReturn

import numpy as np

from pylazy.arrays.array_libraries import (
    NUMPY_DTYPES,
    NUMPY_NAMES,
    is_compiling,
    is_seen,
    is_tensor,
    is_traced,
    numpy_dtype_name,
    torch_dtype_name,
)
from pylazy.arrays.imported_arrays import Imported, readable
from pylazy.arrays.memory_layout import (
    batch_strides,
    numpy_address,
    rows_are_contiguous,
    tensor_address,
    without_repeats,
)
from pylazy.dtypes import READABLE
from pylazy.runtime.errors import DtypeError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

NUMPY, TORCH, DLPACK, DEVICE, NUMBER, SYMBOL = "numpy", "torch", "dlpack", "device", "number", "symbol"
OF_OTHER_LIBRARIES = frozenset({DLPACK, DEVICE})
_BOXES: dict[str, type[ctypes.c_float | ctypes.c_double]] = {
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}
_LOW_PRECISION = ("float16", "bfloat16")
"""What torch's autocast makes of float32, and is made float32 again here: sums of many terms need it."""


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


class ComplexPart(NamedTuple):
    """Which part of a complex array a source is.

    Attributes:
        owner: the user's array.
        name: "real" or "imag".
        conjugated: whether the source holds the part of the conjugate.
    """

    owner: Any
    name: str
    conjugated: bool


class Source:
    """An array or a number that stands behind a variable; the data is read when a reduction runs.

    Attributes:
        kind: "numpy", "torch", "dlpack" (of another library, on the host), "device" (on a GPU) or "number".
        array: the user's own array, that of an `Imported`, or a float.
        imported: the array of another library, for the kinds "dlpack" and "device", else None.
        identity: equal for two sources that are the same data seen the same way.
        number: the float of a number, None for an array.
        shape: of the array when the variable was made; it may not change.
        batch: number of leading batch dimensions of the array.
        dtype: one of `READABLE`; of a number, what it is where nothing else decides.
        weak: whether the dtype gives way to that of the other variables, as a Python number's does.
        part: what of a complex array this is, set where it is one; see `complex_part`.
    """

    __slots__ = ("_boxes", "array", "batch", "dtype", "identity", "imported", "kind", "number", "part", "shape", "weak")
    part: ComplexPart

    def __init__(self, kind: str, array: Any, batch: int, dtype: str, weak: bool, view: str) -> None:
        # The call path gives these by position: a class takes twice as long to call with names.
        self.kind = kind
        self.imported: Imported | None = None
        self.number: float | None = None
        self.batch = batch
        self.dtype = dtype
        self.weak = weak
        owner = array
        if kind == NUMBER:
            self._boxes: dict[str, Located] = {}
            self.array = self.number = array
            self.shape: tuple[int, ...] = ()
            self.identity: Any = id(self)
            return
        if kind in OF_OTHER_LIBRARIES:
            self.imported = array
            owner, array = array.owner, array.array
        self.array = array
        self.shape = array.shape if kind == NUMPY else tuple(array.shape)
        # The id of a tensor in a graph would tie the graph to this tensor, and another one to another graph.
        self.identity = (id(self if kind == TORCH and is_compiling() else owner), view)

    def __reduce__(self) -> tuple[Any, ...]:
        view = "" if self.kind == NUMBER else self.identity[1]
        array = self.array if self.imported is None else self.imported.owner
        return _rebuild_source, (self.kind, array, self.batch, self.dtype, self.weak, view)

    def address(self, dtype: str) -> int:
        """The address of data of which a kernel needs no more: all of a contiguous array of this dtype. Else 0.

        Raises:
            ShapeError: the array has changed its shape since the variable was made.
            UnsupportedError: it lies on a GPU, and is not of torch.
        """
        kind = self.kind
        if kind == NUMBER:
            return self._boxed(dtype).pointer
        array = self.array
        if kind == DEVICE:
            raise UnsupportedError(
                at_user_line(
                    f"an array of type {type(array).__name__} on a GPU is read by a program that runs on the CPU: use "
                    "tensors of torch, or copy it to the host"
                )
            )
        if array.shape != self.shape:
            self.refuse_new_shape()
        if self.batch:
            return 0
        if kind == TORCH:
            return tensor_address(array, dtype)
        # C-contiguous and aligned, as ndarraytypes.h numbers the flags.
        return numpy_address(array) if self.dtype == dtype and array.flags.num & 0x0101 == 0x0101 else 0

    def locate(self, dtype: str) -> Located:
        """Find the data, in this dtype and with contiguous rows; copied only where it must be.

        Raises:
            ShapeError: the array has changed its shape since the variable was made.
            UnsupportedError: it lies on a GPU, and is not of torch.
        """
        if self.kind == NUMBER:
            return self._boxed(dtype)
        address = self.address(dtype)
        if address:
            return Located(address, (), (), self.array)
        return self.locate_tensor(self.array, dtype) if self.kind == TORCH else self._locate_numpy(dtype)

    def _boxed(self, dtype: str) -> Located:
        """A number in memory, at the same place in every run."""
        found = self._boxes.get(dtype)
        if found is None:
            # Threads may race to make it; setdefault lets one win.
            box = _BOXES[dtype](self.array)
            found = self._boxes.setdefault(dtype, Located(ctypes.addressof(box), (), (), box))
        return found

    def locate_tensor(self, tensor: Any, dtype: str) -> Located:
        """As `locate`, for a tensor that takes the place of this source's own."""
        if tuple(tensor.shape) != self.shape:
            self.refuse_new_shape()
        if tensor.is_neg():  # as z.conj().imag is: memory holds the negated numbers
            tensor = tensor.resolve_neg()
        if torch_dtype_name(tensor) == dtype and not self.batch and tensor.is_contiguous():
            return Located(tensor.data_ptr(), (), (), tensor)
        item = tensor.element_size()
        strides = tuple(stride * item for stride in tensor.stride())
        if torch_dtype_name(tensor) != dtype or not rows_are_contiguous(self.shape, strides, self.batch, item):
            tensor = tensor.detach()[without_repeats(self.shape, strides, self.batch)]
            tensor = tensor.to(getattr(sys.modules["torch"], dtype)).contiguous()
            item = tensor.element_size()
            strides = tuple(stride * item for stride in tensor.stride())
        return Located(
            tensor.data_ptr(), self.shape[: self.batch], batch_strides(tensor.shape, strides, self.batch), tensor
        )

    def _locate_numpy(self, dtype: str) -> Located:
        array = self.array
        flags = array.flags
        rows_lie_together = flags.c_contiguous or rows_are_contiguous(
            self.shape, array.strides, self.batch, array.itemsize
        )
        if self.dtype != dtype or not flags.aligned or not rows_lie_together:
            array = array[without_repeats(self.shape, array.strides, self.batch)]
            array = np.array(array, dtype=NUMPY_DTYPES[dtype], order="C", copy=True, subok=False)
        strides = batch_strides(array.shape, array.strides, self.batch)
        return Located(numpy_address(array), self.shape[: self.batch], strides, array)

    def refuse_new_shape(self) -> NoReturn:
        """Refuse an array whose shape has changed since the variable was made."""
        raise ShapeError(
            at_user_line(
                f"the array of shape {self.shape} in this formula now has shape {tuple(self.array.shape)}: its data "
                "may change before the reduction runs, its shape may not; build the LazyTensor again"
            )
        )


def _rebuild_source(kind: str, array: Any, batch: int, dtype: str, weak: bool, view: str) -> Source:
    if kind in OF_OTHER_LIBRARIES:
        array = readable(array)
    return Source(kind, array, batch=batch, dtype=dtype, weak=weak, view=view)


def array_source(value: Any, *, what: str | None, batch: int, view: str, weak: bool = False) -> Source:
    """Wrap a NumPy array, a torch tensor or an array of another library.

    Args:
        value: the array, as `readable` gives it.
        what: how to call it in a message, None for an array that has nothing but its shape.
        batch: number of its leading batch dimensions.
        view: the axis it is seen along; a part of its identity.
        weak: whether its dtype gives way to that of others.

    Raises:
        DtypeError: its elements are not of a dtype in `READABLE`.
    """
    if value.__class__ is np.ndarray:
        name = NUMPY_NAMES.get(value.dtype)
        if name is not None:
            return Source(NUMPY, value, batch, name, weak, view)
    elif is_tensor(value):
        return _tensor_source(value, what, batch=batch, view=view, weak=weak)
    name = numpy_dtype_name(value.dtype)
    if name is None:
        conversion = "x.astype('float32')" if value.__class__ is Imported else "x.astype(numpy.float32)"
        _refuse_dtype(what or _called(value), value.dtype, conversion)
    if value.__class__ is Imported:
        if value.device is not None:
            return Source(DEVICE, value, batch=batch, dtype=name, weak=weak, view=view)
        if value.namespace is not None:
            return Source(DLPACK, value, batch=batch, dtype=name, weak=weak, view=view)
        value = value.array  # nobody says what to make results of: they are NumPy's
    masked = sys.modules.get("numpy.ma")  # imported by whoever made a masked array
    if masked is not None and isinstance(value, masked.MaskedArray):
        what = what or _called(value)
        raise DtypeError(at_user_line(f"{what} is a masked array, whose mask a formula would ignore: fill it first"))
    return Source(NUMPY, value, batch=batch, dtype=name, weak=weak, view=view)


def _tensor_source(tensor: Any, what: str | None, *, batch: int, view: str, weak: bool) -> Source:
    torch = sys.modules["torch"]
    name = torch_dtype_name(tensor)
    if name in _LOW_PRECISION and torch.is_autocast_enabled(tensor.device.type):
        tensor, name = tensor.float(), "float32"
    if name not in READABLE:
        _refuse_dtype(what or _called(tensor), tensor.dtype, "x.float()")
    if tensor.layout is not torch.strided:
        what = what or _called(tensor)
        raise DtypeError(
            at_user_line(f"{what} is a tensor of layout {tensor.layout}, expected a dense one: use x.to_dense()")
        )
    return Source(TORCH, tensor, batch, name, weak, view)


def _called(value: Any) -> str:
    return f"the array of shape {tuple(value.shape)}"


def own_array(source: Source) -> Any:
    """The user's own array behind a source, in the shape in which it is read."""
    if source.imported is None:
        return source.array
    owner = source.imported.owner
    return owner if tuple(owner.shape) == source.shape else owner.reshape(source.shape)


def source_like(source: Source, value: Any) -> Source:
    """Wrap an array that takes the place of another one; it may have another dtype, and more batch dimensions."""
    batch = source.batch + value.ndim - len(source.shape)
    return array_source(readable(value), what="an array in place of another", batch=batch, view="", weak=source.weak)


def number_source(value: float) -> Source:
    """Wrap a number that is read by the kernel, so that another value needs no other kernel."""
    return Source(NUMBER, value, batch=0, dtype="float64", weak=True, view="")


def complex_part(source: Source) -> ComplexPart | None:
    """What of a complex array a source is; None for a real array and for a number."""
    return getattr(source, "part", None)


def _refuse_dtype(what: str, found: Any, conversion: str) -> NoReturn:
    raise DtypeError(
        at_user_line(
            f"{what} has dtype {found}, expected float32 or float64, a 16-bit float, integers or bool: convert it, as "
            f"by {conversion}"
        )
    )


def remembers(source: Source) -> bool:
    """Whether results are to remember how they were made of this array, as its gradient may be asked for."""
    if source.kind == TORCH:
        return is_seen(source.array)
    return source.imported is not None and is_traced(source.imported.owner)
