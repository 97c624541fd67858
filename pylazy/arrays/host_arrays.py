"""Read arrays and tensors on the host, and give results of their kind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.array_libraries import is_tensor
from pylazy.runtime.errors import DtypeError, ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_array(x: Any, what: str) -> Any:
    """Read what a message calls `what`: arrays and tensors as they are, lists and numbers as arrays.

    Raises:
        DtypeError: these are no real numbers.
    """
    return x if isinstance(x, np.ndarray) or is_tensor(x) else to_host(x, what)


def to_host(x: Any, what: str) -> NDArray[Any]:
    """Read real numbers, which a message calls `what`: an array, a tensor of any device, a list or a number.

    Floating-point tensors become float64, as NumPy does not have all of their dtypes.

    Raises:
        DtypeError: these are no real numbers.
    """
    if is_tensor(x):
        detached = x.detach().cpu()
        x = (detached.double() if detached.is_floating_point() else detached).numpy()
    try:
        found = np.asarray(x)
    except ValueError:  # rows of different lengths
        raise DtypeError(
            at_user_line(f"{what} is a {type(x).__name__}, expected numbers, in rows of one length")
        ) from None
    if found.dtype.kind not in "biuf":
        raise DtypeError(at_user_line(f"{what} is {type(x).__name__} of dtype {found.dtype}, expected real numbers"))
    return found


def to_matrix(x: Any, what: str, expected: str) -> NDArray[np.float64]:
    """Read a matrix in float64; `expected` names its shape.

    Raises:
        ShapeError: this is no matrix.
    """
    found = to_host(x, what)
    if found.ndim != 2:
        raise ShapeError(at_user_line(f"{what} has shape {found.shape}, expected {expected}"))
    return found.astype(np.float64)


def like(x: Any, found: NDArray[Any]) -> Any:
    """Give a result as what x is: an array, or a tensor on its device."""
    if not is_tensor(x):
        return found
    return sys.modules["torch"].from_numpy(np.ascontiguousarray(found)).to(x.device)
