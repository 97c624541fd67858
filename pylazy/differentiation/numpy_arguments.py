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
    if isinstance(value, int | float | complex):
        return value
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if array.dtype.kind not in "fiubc":
        raise DtypeError(
            at_user_line(f"an array of {array.dtype} meets one of a function that is differentiated, expected numbers")
        )
    return array


def is_complex(value: Any) -> bool:
    """Whether this is a complex number or an array of them."""
    return isinstance(value, complex) or getattr(getattr(value, "dtype", None), "kind", "") == "c"


def refuse_complex(name: str, *values: Any) -> None:
    """Refuse complex numbers.

    Raises:
        UnsupportedError: there are some.
    """
    if any(map(is_complex, values)):
        refuse(f"{name} of complex numbers")


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
