"""Arguments of functions of NumPy on traced arrays: axes, operands, and what is refused."""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import numpy as np

from pylazy.runtime.errors import DtypeError, UnsupportedError
from pylazy.user_positions import at_user_line


def refuse(what: str) -> NoReturn:
    """Refuse what has no derivative.

    Raises:
        UnsupportedError: always.
    """
    raise UnsupportedError(
        at_user_line(
            f"{what} has no derivative here, in a function that is differentiated: use formulas, or the functions of "
            "NumPy that docs/semantics.md lists"
        )
    )


def operand(value: Any) -> Any:
    """Read an operand: a list as an array; a Python number gives way in dtype, so it stays one."""
    if isinstance(value, int | float):
        return value
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DtypeError(
            at_user_line(
                f"an array of {array.dtype} meets one of a function that is differentiated, expected real numbers"
            )
        )
    return array


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Read axes: one, several, or None for all; each from 0 on."""
    given = range(ndim) if axis is None else (axis,) if isinstance(axis, int | np.integer) else axis
    return tuple(axis_of(one, ndim) for one in given)


def axis_of(axis: Any, ndim: int) -> int:
    """Read an axis, from 0 on."""
    number = operator.index(axis)
    if not -ndim <= number < ndim:
        raise np.exceptions.AxisError(number, ndim)
    return number % ndim
