"""Arguments of a bundled function: what is given, read as the manifest describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.arrays.array_libraries import is_tensor
from pylazy.arrays.imported_arrays import is_array, readable
from pylazy.arrays.sources import Source, array_source, number_source
from pylazy.dtypes import promote
from pylazy.execution.programs import Extents
from pylazy.runtime.errors import DtypeError, ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.runtime.manifest import Argument, Function

_AXIS_SHAPES = {
    ("i", "lazy"): "(M, {}) or (*batch, M, 1, {})",
    ("j", "lazy"): "(N, {}) or (*batch, 1, N, {})",
    ("i", "rows"): "(M, {}) or (*batch, M, {})",
    ("j", "rows"): "(N, {}) or (*batch, N, {})",
    ("", "lazy"): "({},), (batch, {}) or (*batch, 1, 1, {})",
    ("", "rows"): "({},) or (*batch, {})",
    ("ij", "lazy"): "(M, N, {}) or (*batch, M, N, {})",
    ("ji", "lazy"): "(N, M, {}) or (*batch, N, M, {})",
}
_SCALAR_PAIRS = {"ij": "(M, N) or (*batch, M, N, 1)", "ji": "(N, M) or (*batch, N, M, 1)"}


class _Read(NamedTuple):
    """What one argument turned out to be.

    Attributes:
        source: its data.
        batch: its batch shape.
        sizes: of its axes, in their order.
    """

    source: Source
    batch: tuple[int, ...]
    sizes: tuple[int, ...]


def positional(function: Function) -> list[Argument]:
    """The arguments without a default, in the order of a call; a complex one stands there once."""
    found = {argument.place: argument for argument in reversed(function.arguments) if not argument.default}
    return [found[place] for place in sorted(found)]


def expected_shape(argument: Argument) -> str:
    """Say in words what an argument is."""
    if argument.dim == 1 and argument.axis in _SCALAR_PAIRS:
        shape = _SCALAR_PAIRS[argument.axis]
    else:
        shape = _AXIS_SHAPES[argument.axis, argument.layout].replace("{}", str(argument.dim))
    return f"{'complex ' * bool(argument.part)}array of shape {shape}"


def split_complex(argument: Argument, value: Any) -> Any:
    """Give the part of a complex array that an argument stands for, as a view.

    Raises:
        DtypeError: this is no complex array of NumPy or torch.
    """
    if isinstance(value, complex) and not argument.axis:
        value = np.array(value)
    is_known = isinstance(value, np.ndarray) or is_tensor(value)
    if not is_known or not (value.dtype.kind == "c" if isinstance(value, np.ndarray) else value.is_complex()):
        found = f"dtype {value.dtype}" if is_known else f"type {type(value).__name__}"
        raise DtypeError(
            at_user_line(f"{argument.name} is of {found}, expected a {expected_shape(argument)} of NumPy or torch")
        )
    if is_tensor(value):
        value = value.resolve_conj()
    return value.real if argument.part == "real" else value.imag


def bind(function: Function, values: Sequence[Any]) -> tuple[list[Source], Extents]:
    """Read the values of all arguments, in the order of the program; parts of complex arrays are split already.

    Raises:
        DtypeError: a value is no array, or of a dtype that the function does not read.
        ShapeError: an array has another shape than the function takes, or than others have.
    """
    sources: list[Source] = []
    batch: tuple[int, ...] = ()
    extents: dict[str, tuple[int, str]] = {}
    for argument, value in zip(function.arguments, values, strict=True):
        read = _read(argument, value, function)
        sources.append(read.source)
        if read.batch != batch:
            batch = _joint_batch(argument, batch, read.batch)
        for axis, rows in zip(argument.axis, read.sizes, strict=True):
            other, name = extents.setdefault(axis, (rows, argument.name))
            if other != rows:
                what = "rows" if argument.axis[0] == axis else "columns"
                raise ShapeError(
                    at_user_line(f"{argument.name} has {rows} {what}, {name} has {other}: they need equal numbers")
                )
    rows_i, rows_j = extents.get("i", (None, ""))[0], extents.get("j", (None, ""))[0]
    return sources, Extents(batch, rows_i, rows_j)


def _read(argument: Argument, value: Any, function: Function) -> _Read:
    """Wrap what was given for an argument."""
    if isinstance(value, Source):
        return _Read(value, (), (1,) * len(argument.axis))
    if not argument.axis and isinstance(value, int | float | np.floating | np.integer) and argument.dim == 1:
        return _Read(number_source(float(value)), (), ())
    weak = isinstance(value, list | tuple) and not argument.axis  # its dtype gives way, as in a live formula
    if weak:
        value = np.array(value, dtype=np.float64)
    elif not is_array(value):
        raise DtypeError(
            at_user_line(
                f"{argument.name} is of type {type(value).__name__}, expected a NumPy array, a torch tensor or another "
                f"array with __dlpack__: {expected_shape(argument)}"
            )
        )
    value = readable(value)
    weak = weak or not value.ndim
    batch, sizes = _read_shape(argument, tuple(value.shape))
    source = array_source(value, what=argument.name, batch=len(batch), view="", weak=weak)
    if not weak and promote("float32", source.dtype) == "float64" != function.dtype:
        raise DtypeError(
            at_user_line(
                f"{argument.name} has dtype {source.dtype}, and {function.name} was compiled for float32: convert it, "
                "or add a reduction of float64 arrays to the bundle"
            )
        )
    return _Read(source, batch, sizes)


def _read_shape(argument: Argument, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Say the batch shape and the sizes of the axes of an array, or refuse it."""
    reader = _read_pairs if len(argument.axis) == 2 else _read_rows if argument.axis else _read_parameter
    found = reader(argument, shape)
    if found is None:
        raise ShapeError(at_user_line(f"{argument.name} has shape {shape}, expected {expected_shape(argument)}"))
    return found


_Sizes = tuple[tuple[int, ...], tuple[int, ...]]


def _read_pairs(argument: Argument, shape: tuple[int, ...]) -> _Sizes | None:
    if len(shape) == 2 and argument.dim == 1:
        return (), shape
    if len(shape) >= 3 and shape[-1] == argument.dim:
        return shape[:-3], shape[-3:-1]
    return None


def _read_rows(argument: Argument, shape: tuple[int, ...]) -> _Sizes | None:
    rank, dim = len(shape), argument.dim
    if rank == 1 and dim == 1:
        return (), shape
    if rank < 2 or shape[-1] != dim:
        return None
    if rank == 2:
        return (), shape[:1]
    if argument.layout == "rows":
        return shape[:-2], shape[-2:-1]
    rows, other = (shape[-3], shape[-2]) if argument.axis == "i" else (shape[-2], shape[-3])
    return (shape[:-3], (rows,)) if other == 1 else None


def _read_parameter(argument: Argument, shape: tuple[int, ...]) -> _Sizes | None:
    rank, dim = len(shape), argument.dim
    if rank == 0:
        return ((), ()) if dim == 1 else None
    if shape[-1] != dim:
        return None
    if argument.layout == "rows":
        return shape[:-1], ()
    if rank <= 2:
        return (shape[:-1] if rank == 2 and shape[0] != 1 else ()), ()
    return (shape[:-3], ()) if shape[-2] == shape[-3] == 1 else None


def _joint_batch(argument: Argument, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(first, second)
    except ValueError:
        raise ShapeError(
            at_user_line(
                f"{argument.name} has batch shape {second}, the arrays before it {first}, which do not broadcast: from "
                "the last dimension on, sizes must be equal or 1"
            )
        ) from None
