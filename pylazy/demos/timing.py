"""Times of one task, by pylazy and by dense NumPy."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Median wall times of one task.

    Attributes:
        task: what was computed.
        rows: M.
        columns: N.
        dim: inner dimension of the vectors.
        pylazy_seconds: of pylazy, once compiled.
        numpy_seconds: of NumPy on the M-by-N array.
    """

    task: str
    rows: int
    columns: int
    dim: int
    pylazy_seconds: float
    numpy_seconds: float

    @property
    def ratio(self) -> float:
        """How many times faster pylazy is."""
        return self.numpy_seconds / self.pylazy_seconds


def timed(work: Callable[[], T], *, repeats: int) -> tuple[T, float]:
    """Run `work` a number of times; return its last result and the median of its seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def seconds_text(seconds: float) -> str:
    """Write a time with a unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.3g} ms"
