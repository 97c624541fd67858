"""Memory of large results, which is used again when nobody holds it any more.

An allocator maps large arrays anew each time, and the system clears each page when it is first written: for a result of
many rows over a few columns that takes as long as the reduction. Smaller arrays are kept by the allocators themselves.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What glibc's malloc maps anew each time, at the most (mallopt(3), M_MMAP_THRESHOLD).
LEAST_BYTES = 32 << 20
#: The most that is kept for a result to come.
MOST_BYTES = 128 << 20

# One block: a loop that drops each result before or after it has the next one needs no more. Every access is atomic.
_free: deque[NDArray[Any]] = deque(maxlen=1)


def recycled(made: NDArray[Any]) -> NDArray[Any]:
    """Give an array like a new one, whose elements are not set, in the memory of a former result of as many bytes.

    No two arrays ever share it: it is free only when the array and all that refer to its memory (views, memoryviews,
    DLPack capsules, tensors) are gone.
    """
    if not LEAST_BYTES <= made.nbytes <= MOST_BYTES:
        return made
    try:
        block = _free.pop()
    except IndexError:
        block = made
    return np.asarray(_Memory(block if block.nbytes == made.nbytes else made, made))


class _Memory:
    """Memory that an array lies in: its `base`, and thereby alive as long as anything refers to it."""

    __slots__ = ("__array_interface__", "_block")

    def __init__(self, block: NDArray[Any], like: NDArray[Any]) -> None:
        self._block = block
        self.__array_interface__ = {
            "version": 3,
            "data": block.__array_interface__["data"],
            "shape": like.shape,
            "typestr": like.dtype.str,
        }

    def __del__(self, free: deque[NDArray[Any]] = _free) -> None:
        """Leave the memory to a result to come; the default outlives the names of this module."""
        free.append(self._block)
