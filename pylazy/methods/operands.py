"""What may stand in a formula: LazyTensors, arrays, numbers, and variables whose data comes later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from pylazy.arrays.array_libraries import is_tensor, is_traced
from pylazy.arrays.imported_arrays import Imported, is_array, readable
from pylazy.arrays.sources import Symbol, array_source, number_source
from pylazy.expression import argument, constant, variable
from pylazy.lazy_formula import LazyFormula, apply_complex, apply_to, new, read_index, refuse_unbound
from pylazy.runtime.errors import AxisError, DtypeError, ShapeError
from pylazy.user_positions import at_user_line, user_position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.expression import Attributes

_AXIS_NAMES = ("i", "j", "")
_T = TypeVar("_T", bound=LazyFormula)


def combine(op: str, x: _T, *others: Any, attributes: Attributes = ()) -> _T:
    """Apply an operation to a LazyTensor and other operands, which are read as `operand` does."""
    cls = x.__class__
    if not issubclass(cls, LazyFormula):
        refuse_unbound(op, x)
    operands = [x]
    is_complex = cls.is_complex
    for other in others:
        if other.__class__ is not cls:
            other = operand(cls, other)  # noqa: PLW2901
            is_complex = is_complex or other.is_complex
        operands.append(other)
    if is_complex:
        return apply_complex(op, tuple(operands), attributes)
    return apply_to(op, operands, attributes)


def operand(cls: type[_T], value: Any) -> _T:
    """Read an operand: a LazyTensor as it is, an array by its shape, a number or a list of numbers as a parameter."""
    return value if isinstance(value, LazyFormula) else from_data(cls._real_class(), value, None)  # type: ignore[return-value]


def static_number(cls: type[_T], value: float) -> _T:
    """Make a number that is part of the formula, with a kernel of its own."""
    return new(cls, constant(value), (), None, None, None)


def is_symbol(x: Any) -> bool:
    """Whether this is a triple of integers, (index, dim, category), which names a symbolic variable."""
    return isinstance(x, tuple) and len(x) == 3 and all(isinstance(part, int) for part in x)


def is_complex(x: Any) -> bool:
    """Whether this is a complex array, tensor or number, or a list with one."""
    if isinstance(x, (np.ndarray, np.generic)):  # torch.compile reads no union of these
        return x.dtype.kind == "c"
    if x.__class__ is Imported:
        return False  # complex arrays of other libraries are refused by their dtype
    if isinstance(x, list | tuple):
        return any(is_complex(part) for part in x)
    if isinstance(x, int | float):  # also a size that torch.compile keeps symbolic, which has no attributes
        return False
    return isinstance(x, complex) or (is_tensor(x) and x.is_complex()) or (is_traced(x) and x.dtype.kind == "c")


def symbolic(cls: type[_T], index: Any, dim: Any, category: Any) -> _T:
    """A variable whose data is an argument of the reduction.

    Args:
        cls: the class to make.
        index: its place in the order of the arguments.
        dim: its inner dimension.
        category: 0 for rows, 1 for columns, 2 for parameters.

    Raises:
        ShapeError: the index is negative, or there is no component.
        AxisError: there is no such category.
    """
    index = read_index(index, "the position of a symbolic variable")
    dim = read_index(dim, "the inner dimension of a symbolic variable")
    category = read_index(category, "the category of a symbolic variable")
    if index < 0:
        raise ShapeError(at_user_line(f"the position of a symbolic variable is {index}, expected 0 or more"))
    if dim < 1:
        raise ShapeError(at_user_line(f"the inner dimension of a symbolic variable is {dim}, expected at least 1"))
    if category not in (0, 1, 2):
        raise AxisError(
            at_user_line(f"the category of a symbolic variable is {category}, expected 0 (rows), 1 (columns) or 2")
        )
    leaf = argument(Symbol(index), axis=_AXIS_NAMES[category], dim=dim)
    return new(cls, leaf, (), None, None, None)


def from_data(cls: type[_T], x: Any, axis: int | None) -> _T:
    """Make a LazyTensor from an array, a number or a list of numbers; see the class.

    Raises:
        AxisError: the shape does not say which axes the array has, or contradicts `axis`.
        DtypeError: this is no array, or of a dtype that no formula reads.
    """
    if (x.__class__ is np.ndarray and x.dtype.kind != "c") or (is_tensor(x) and not x.is_complex()):
        return _from_array(cls, x, axis)  # most often, so first
    if is_complex(x):
        from pylazy.complex_numbers import complex_lazy_tensor

        return complex_lazy_tensor.from_complex_data(x, axis)  # type: ignore[return-value]
    if isinstance(x, np.ndarray) or x.__class__ is Imported:
        return _from_array(cls, x, axis)
    if isinstance(x, list | tuple) and axis in (None, 0, 1, 2):
        return _from_array(cls, _from_list(x), axis, weak=True)
    if axis not in (None, 2) and not is_array(x):
        raise AxisError(
            at_user_line(f"axis is {axis} for {type(x).__name__} {x!r}, expected an array of shape (rows, D)")
        )
    if isinstance(x, int | np.integer | np.bool_):
        value = int(x)
        if value.bit_length() > 1023:
            raise DtypeError(
                at_user_line(f"an integer of {value.bit_length()} bits is beyond float64, expected at most 1023")
            )
        return static_number(cls, value)
    if isinstance(x, float | np.floating):
        return new(cls, variable(number_source(float(x)), axis="", dim=1, dtype=None), (), None, None, None)
    if isinstance(x, cls):
        return x
    if is_array(x):
        return from_data(cls, readable(x), axis)
    raise DtypeError(
        at_user_line(
            f"{type(x).__name__} in a formula, expected a LazyTensor, a NumPy array, a torch tensor, an array with "
            "__dlpack__ or a number"
        )
    )


def _from_list(x: Sequence[Any]) -> Any:
    try:
        return np.array(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise DtypeError(
            at_user_line(f"the list {x!r} in a formula, expected numbers, in rows of one length")
        ) from None


def _from_array(cls: type[_T], x: Any, axis: int | None, *, weak: bool = False) -> _T:
    shape = tuple(x.shape)
    rank = len(shape)
    batch: tuple[int, ...] = ()
    rows = columns = None
    if rank >= 3:
        if axis is not None:
            _refuse_axis(axis, shape)
        m, n = shape[-3], shape[-2]
        batch = shape[:-3]
        if m == 1:
            axis = 2 if n == 1 else 1
        elif n == 1:
            axis = 0
        else:
            _refuse_pairs(shape)
        if axis == 0:
            rows = m
        elif axis == 1:
            columns = n
    elif rank == 2:
        if axis == 0:
            rows = shape[0]
        elif axis == 1:
            columns = shape[0]
        elif axis == 2:
            batch = shape[:1] if shape[0] != 1 else ()
        else:
            _refuse_axis(axis, shape)
    elif axis in (None, 2):
        axis = 2
        weak = weak or not rank
    else:
        _refuse_axis(axis, shape)
    source = array_source(x, what=None, batch=len(batch), view=str(len(batch)) if batch else "0", weak=weak)
    dim = checked_dim(shape[-1] if shape else 1)
    dtype = None if weak else source.dtype
    leaf = variable(source, axis=_AXIS_NAMES[axis], dim=dim, dtype=dtype, position=user_position(3))
    return new(cls, leaf, batch, rows, columns, None)


def _refuse_pairs(shape: tuple[int, ...]) -> NoReturn:
    raise AxisError(
        at_user_line(
            f"an array of shape {shape} varies with i and j at once, expected (*batch, M, 1, D), (*batch, 1, N, D) or "
            "(*batch, 1, 1, D); for one value a pair, stored as it is, use Vij(x)"
        )
    )


def _refuse_axis(axis: Any, shape: tuple[int, ...]) -> NoReturn:
    if axis not in (None, 0, 1, 2):
        message = f"axis is {axis!r}, expected 0 (rows), 1 (columns), 2 (parameters) or None"
    elif axis is None:
        message = (
            f"axis is not given for a 2-D array of shape {shape}, expected axis=0 or Vi(x) for rows, "
            "axis=1 or Vj(x) for columns, or a third dimension, as by x[:, None, :]"
        )
    elif len(shape) < 3:
        message = (
            f"axis is {axis} for an array of shape {shape}, expected a 2-D array of shape (rows, D): "
            "reshape it, as by x.reshape(-1, 1)"
        )
    else:
        message = (
            f"axis is {axis} for an array of shape {shape}, expected a 2-D array: with three or more dimensions the "
            "shape says it all, (*batch, M, 1, D), (*batch, 1, N, D) or (*batch, 1, 1, D)"
        )
    raise AxisError(at_user_line(message))


def checked_dim(dim: int) -> int:
    """Refuse an array without components."""
    if dim < 1:
        raise ShapeError(at_user_line(f"an array of inner dimension {dim}, expected at least 1 component"))
    return dim
