"""Arrays beside those of a function that is differentiated: made by NumPy, or by the library of arrays on a GPU.

The rules of derivatives call functions of NumPy, which give way to a library whose arrays have `__array_function__` and
`__array_ufunc__` (NEP 13 and 18), as CuPy's. What they make from nothing has to lie where the other arrays lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pylazy.arrays.imported_arrays import GPU_MEMORY, namespace_of
from pylazy.differentiation.traces import untraced


def is_device_array(value: Any) -> bool:
    """Whether this is an array on a GPU, of a library that NumPy's functions give way to."""
    if isinstance(value, np.ndarray | np.generic):
        return False
    kind = type(value)
    gives_way = hasattr(kind, "__array_function__") and hasattr(kind, "__dlpack_device__")
    return gives_way and value.__dlpack_device__()[0] in GPU_MEMORY


def library_beside(value: Any) -> Any:
    """The module that makes arrays where an array lies, which may be traced: NumPy, or the library of a GPU's."""
    found = untraced(value)
    return namespace_of(found) if is_device_array(found) else np


def as_array(value: Any) -> Any:
    """Read what is no traced array: those on a GPU as they are, all else as NumPy's."""
    return value if is_device_array(value) else np.asarray(value)
