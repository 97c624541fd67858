"""The dtypes of arrays: which a formula may read, how they promote, and what is computed in."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS: Mapping[str, str] = MappingProxyType(
    {
        "bool": "int8", "int8": "int8", "uint8": "int8",
        "int16": "int16", "uint16": "int16",
        "int32": "float64", "uint32": "float64", "int64": "float64", "uint64": "float64",
    }
)  # fmt: skip
"""What an integer dtype counts as beside others: float64 for those that no narrower float holds, as in NumPy."""

READABLE = frozenset((*_FLOATS, *_INTEGERS))
"""The dtypes that an array of a formula may have, as NumPy writes them."""

_WIDER: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "int8": frozenset(("int16", *_FLOATS)),
        "int16": frozenset(("float32", "float64")),
        "float16": frozenset(("float32", "float64")),
        "bfloat16": frozenset(("float32", "float64")),
        "float32": frozenset(("float64",)),
        "float64": frozenset(),
    }
)
"""For each dtype those that hold all its values; two of which neither holds the other meet in float32."""


def promote(first: str | None, second: str | None) -> str | None:
    """The dtype of two arrays together, in any order and grouping; None, a number, adapts to the other.

    As `numpy.result_type`, but that integers alone stay integers here, whose formula is one of float64.
    """
    if first is None or first == second:
        return second
    if second is None:
        return first
    a, b = _INTEGERS.get(first, first), _INTEGERS.get(second, second)
    if a == b or b in _WIDER[a]:
        return b
    return a if a in _WIDER[b] else "float32"


def result_dtype(dtype: str | None) -> str:
    """The dtype of values of a formula, for what its arrays promote to: float64 where they are integers or numbers."""
    return dtype if dtype in _FLOATS else "float64"


def arithmetic_dtype(dtype: str | None) -> str:
    """The dtype that a formula is computed in: float32 for 16-bit floats, which are read and written only."""
    return "float64" if result_dtype(dtype) == "float64" else "float32"
