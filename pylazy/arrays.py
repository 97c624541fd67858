"""Arrays as variables of a formula: what they are, where they lie, and how to make one like them."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from pylazy.dtypes import READABLE
from pylazy.expression import at_user_line, is_compiling
from pylazy.runtime.errors import DeviceError, DtypeError, ShapeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.gpu.places import Place
    from pylazy.options import Backend

NUMPY, TORCH, DLPACK, NUMBER, SYMBOL = "numpy", "torch", "dlpack", "number", "symbol"

_NUMPY_DTYPES = {name: np.dtype(name) for name in READABLE if name != "bfloat16"}
_NUMPY_NAMES = {dtype: name for name, dtype in _NUMPY_DTYPES.items()}
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


class Imported(NamedTuple):
    """An array of a library that is neither NumPy nor torch, as NumPy sees it.

    Attributes:
        array: the same data, copied only where its library gives no other way.
        owner: the user's own array.
        namespace: the module that makes arrays of its library, or None where nobody says which; see `readable`.
    """

    array: Any
    owner: Any
    namespace: Any

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
        kind: "numpy", "torch", "dlpack" or "number".
        array: the user's own array, that of an `Imported`, or a float.
        imported: the array of another library, for the kind "dlpack", else None.
        identity: equal for two sources that are the same data seen the same way.
        number: the float of a number, None for an array.
        shape: of the array when the variable was made; it may not change.
        batch: number of leading batch dimensions of the array.
        dtype: one of `READABLE`; of a number, what it is where nothing else decides.
        weak: whether the dtype gives way to that of the other variables, as a Python number's does.
    """

    __slots__ = ("_box", "array", "batch", "dtype", "identity", "imported", "kind", "number", "shape", "weak")

    def __init__(self, kind: str, array: Any, *, batch: int, dtype: str, weak: bool, view: str) -> None:
        self.kind = kind
        self.imported: Imported | None = None
        owner = array
        if kind == DLPACK:
            self.imported = array
            owner, array = array.owner, array.array
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
            self.identity = (id(self if kind == TORCH and is_compiling() else owner), view)

    def __reduce__(self) -> tuple[Any, ...]:
        view = "" if self.kind == NUMBER else self.identity[1]
        array = self.array if self.imported is None else self.imported.owner
        return _rebuild_source, (self.kind, array, self.batch, self.dtype, self.weak, view)

    def locate(self, dtype: str) -> Located:
        """Find the data, in this dtype and with contiguous rows; copied only where it must be.

        Raises:
            ShapeError: the array has changed its shape since the variable was made.
        """
        array = self.array
        if self.kind == NUMPY or self.kind == DLPACK:  # noqa: PLR1714  a tuple takes longer, and this is the call path
            if array.shape != self.shape:
                self.refuse_new_shape()
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
            self.refuse_new_shape()
        if tensor.is_neg():  # as z.conj().imag is: memory holds the negated numbers
            tensor = tensor.resolve_neg()
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

    def refuse_new_shape(self) -> NoReturn:
        """Refuse an array whose shape has changed since the variable was made."""
        raise ShapeError(
            at_user_line(
                f"the array of shape {self.shape} in this formula now has shape {tuple(self.array.shape)}: its data "
                "may change before the reduction runs, its shape may not; build the LazyTensor again"
            )
        )


def _rebuild_source(kind: str, array: Any, batch: int, dtype: str, weak: bool, view: str) -> Source:
    if kind == DLPACK:
        array = readable(array)
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
    """Wrap a NumPy array, a torch tensor or an array of another library.

    Args:
        value: the array, as `readable` gives it.
        what: how to call it in a message.
        batch: number of its leading batch dimensions.
        view: the axis it is seen along; a part of its identity.
        weak: whether its dtype gives way to that of others.

    Raises:
        DtypeError: its elements are not of a dtype in `READABLE`.
    """
    if value.__class__ is Imported:
        name = _numpy_dtype_name(value.dtype)
        if name is None:
            _refuse_dtype(what, value.dtype, "x.astype('float32')")
        if value.namespace is None:  # nobody says what to make results of: they are NumPy's
            return Source(NUMPY, value.array, batch=batch, dtype=name, weak=weak, view=view)
        return Source(DLPACK, value, batch=batch, dtype=name, weak=weak, view=view)
    if isinstance(value, np.ndarray):
        name = _numpy_dtype_name(value.dtype)
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
    if name not in READABLE:
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
        at_user_line(
            f"{what} has dtype {found}, expected float32 or float64, a 16-bit float, integers or bool: convert it, as "
            f"by {conversion}"
        )
    )


def _numpy_dtype_name(dtype: Any) -> str | None:
    name = _NUMPY_NAMES.get(dtype)
    # NumPy has no bfloat16: the one of the package ml_dtypes is known by its name.
    return "bfloat16" if name is None and dtype.name == "bfloat16" else name


def is_array(value: Any) -> bool:
    """Whether this is an array: NumPy's, torch's, or of a library that speaks DLPack."""
    known = isinstance(value, np.ndarray) or is_tensor(value) or value.__class__ is Imported
    return known or hasattr(value, "__dlpack__")


_CPU_MEMORY = frozenset({1, 3, 11})  # kDLCPU, kDLCUDAHost, kDLROCMHost in dlpack.h
_UNREADABLE = (AttributeError, BufferError, RuntimeError, TypeError, ValueError)


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
    kind = type(value).__name__
    try:
        device = int(value.__dlpack_device__()[0])
        if device in _CPU_MEMORY:
            return Imported(_view(value), value, _namespace_of(value))
    except _UNREADABLE as error:
        raise DtypeError(
            at_user_line(f"an array of type {kind} cannot be read through DLPack, {type(error).__name__}: {error}")
        ) from None
    raise DeviceError(
        at_user_line(
            f"an array of type {kind} lies on the DLPack device {device}, expected the CPU, as launch on GPUs is not "
            "there yet: move it"
        )
    )


def _view(value: Any) -> Any:
    try:
        return np.from_dlpack(value)
    except _UNREADABLE:
        if not hasattr(value, "__array__"):
            raise
        return np.asarray(value)  # NumPy's DLPack knows no bfloat16


def _namespace_of(value: Any) -> Any:
    if hasattr(value, "__array_namespace__"):
        return value.__array_namespace__()
    package = sys.modules.get(type(value).__module__.partition(".")[0])
    return package if hasattr(package, "from_dlpack") else None


def check_devices(sources: Sequence[Source]) -> str:
    """Say of which kind the results are, and check that all data lies on one device.

    Raises:
        DeviceError: the arrays lie on different devices, or on one that is neither the CPU nor a GPU of NVIDIA.
        DtypeError: the arrays are of two libraries besides NumPy.
    """
    kind = NUMPY
    for source in sources:
        if source.kind == TORCH:
            if kind == DLPACK:
                _refuse_libraries(sources)
            kind = TORCH
            if not source.array.is_cpu:
                check_one_device(sources)
        elif source.kind == DLPACK:
            if kind == TORCH or (kind == DLPACK and len(_libraries(sources)) > 1):
                _refuse_libraries(sources)
            kind = DLPACK
    return kind


def place_of(kind: str, sources: Sequence[Source], backend: Backend | None) -> Place | None:
    """Choose the GPU that a reduction runs on; None for the CPU.

    Args:
        kind: what `check_devices` says.
        sources: the inputs.
        backend: what the user asks for, if anything.

    Raises:
        DeviceError: the GPU is not there, or the arrays do not lie where the user asks the reduction to run.
    """
    if kind == TORCH:
        for source in sources:
            if source.kind == TORCH:
                if source.array.is_cuda:
                    from pylazy.gpu.torch_place import TorchPlace

                    return TorchPlace.of(source.array.device, backend)
                break
    if backend is not None and backend.name == "GPU":
        from pylazy.gpu.places import place_of_host_arrays

        return place_of_host_arrays(kind, backend)
    return None


def _libraries(sources: Sequence[Source]) -> dict[str, Any]:
    """The namespaces of arrays that are neither NumPy's nor torch's, by name."""
    found = [source.imported.namespace for source in sources if source.imported is not None]
    return {getattr(namespace, "__name__", str(namespace)): namespace for namespace in found}


def _refuse_libraries(sources: Sequence[Source]) -> None:
    names = [*_libraries(sources), *(["torch"] if any(source.kind == TORCH for source in sources) else [])]
    raise DtypeError(
        at_user_line(
            f"the arrays of this formula are of {' and '.join(sorted(names))}, expected one library besides NumPy: "
            "convert them, as by numpy.from_dlpack"
        )
    )


def library_of(sources: Sequence[Source]) -> Any:
    """The namespace of the arrays that are neither NumPy's nor torch's, of which there are some."""
    (namespace,) = _libraries(sources).values()
    return namespace


def given_back(result: Any, sources: Sequence[Source]) -> Any:
    """Hand a NumPy result over to the library whose arrays are among the sources, by its own rules for dtypes."""
    namespace = library_of(sources)
    try:
        return namespace.from_dlpack(result)
    except _UNREADABLE:
        return namespace.asarray(result)


def check_one_device(sources: Sequence[Source]) -> None:
    """Check that the tensors lie on one GPU, and no array beside them on the host, but for single numbers and lists.

    Raises:
        DeviceError: they do not; the message names the devices.
    """
    devices = {str(source.array.device) for source in sources if source.kind == TORCH and not _is_constant(source)}
    if any(source.kind == NUMPY and not _is_constant(source) for source in sources):
        devices.add("cpu")
    names = " and ".join(sorted(devices))
    if len(devices) > 1:
        raise DeviceError(
            at_user_line(
                f"the arrays of this formula lie on the devices {names}, expected one: move them together, as by x.to()"
            )
        )
    if not names.startswith("cuda"):
        raise DeviceError(
            at_user_line(
                f"the arrays of this formula lie on the device {names}, expected cpu or cuda: move them, as by x.cpu()"
            )
        )


def _is_constant(source: Source) -> bool:
    """Whether this is a list or a number of the host, which is copied to the device of the arrays that it meets."""
    return source.weak and (source.kind == NUMPY or (source.array.is_cpu and source.array.ndim == 0))


def empty_result(kind: str, shape: tuple[int, ...], dtype: str) -> Any:
    """Allocate a result, its elements not set."""
    if kind != TORCH:
        return np.empty(shape, _NUMPY_DTYPES[dtype])
    torch = sys.modules["torch"]
    return torch.empty(shape, dtype=getattr(torch, dtype))


def converted(result: Any, dtype: str) -> Any:
    """Give a result in another dtype; values out of its range become infinities."""
    if isinstance(result, np.ndarray):
        # Whoever has an array of bfloat16 has imported the package that it comes from.
        target = sys.modules["ml_dtypes"].bfloat16 if dtype == "bfloat16" else dtype
        with np.errstate(over="ignore"):
            return result.astype(target, copy=False)
    return result.to(getattr(sys.modules["torch"], dtype))


def array_like(result: Any, values: Any) -> Any:
    """Convert a NumPy array to the kind and dtype of a result."""
    if isinstance(result, np.ndarray):
        return values.astype(result.dtype)
    return sys.modules["torch"].from_numpy(values).to(result)


def in_kind_of(result: Any, v: Any) -> Any:
    """Give a tensor as an array where v is one, for callers that know no tensors, as SciPy."""
    if isinstance(v, np.ndarray) and is_tensor(result):
        return result.detach().cpu().numpy()
    return result


def quotient(result: Any, count: Any) -> Any:
    """Divide by a number of terms, or an array of such like the result; there is no quotient by none or less."""
    if isinstance(count, int):
        return result / count if count > 0 else result * float("nan")
    count = count + 0.0
    count[count <= 0] = float("nan")
    return result / count


def sum_to_shape(gradient: Any, shape: tuple[int, ...], own_batch: int) -> Any:
    """Sum a gradient (*batch, rows, dim) over the batch dimensions that an array lacks or repeats along.

    Args:
        gradient: of every batch element; an array of any library. The rows of pairs are one dimension.
        shape: of the array, whose gradient is wanted.
        own_batch: the number of its batch dimensions.
    """
    missing = gradient.ndim - 2 - own_batch
    repeated = tuple(
        axis
        for axis in range(gradient.ndim - 2)
        if axis < missing or (shape[axis - missing] == 1 and gradient.shape[axis] != 1)
    )
    if repeated:
        gradient = gradient.sum(repeated)
    return gradient.reshape(shape)


def result_address(result: Any) -> int:
    """The address of the first element of an array that `empty_result` made."""
    return numpy_address(result) if isinstance(result, np.ndarray) else int(result.data_ptr())


def check_out(out: Any, *, kind: str, shape: tuple[int, ...], dtype: str, sources: Sequence[Source]) -> None:
    """Refuse an `out=` that the result cannot be written into.

    Raises:
        DtypeError: it is no array of the kind and dtype of the result.
        UnsupportedError: the inputs are neither NumPy's nor torch's.
        ShapeError: it has another shape, cannot be written, or shares memory with an input.
        DeviceError: it is not on the device of the inputs.
    """
    if kind == DLPACK:
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
