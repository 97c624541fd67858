"""The reductions that are timed on a CPU: formulas, sizes, and what the processor allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 10


@dataclass(frozen=True)
class Case:
    """One reduction over M = N rows.

    Attributes:
        name: for the tables.
        formula: which computation; each contender has its own way to write it.
        rows: M = N.
        dim: D.
        dtype: of the data and the arithmetic.
        slots: cycles of one vector of pairs in the best AVX-512 loop that is known for a Zen 4 core. That core starts
            one multiply-add of a vector a cycle, so it is also the time of a pair in the unit of one multiply-add.
    """

    name: str
    formula: str
    rows: int
    dim: int
    dtype: str
    slots: float

    @property
    def limit(self) -> float:
        """Pairs per core-second, in 1e9, that the ports of a Zen 4 core allow at 3.69 GHz; see `LIMIT_NOTE`."""
        return round(_ZEN4_GIGAHERTZ * _LANES[self.dtype] / self.slots, 2)


_ZEN4_GIGAHERTZ = 3.69
_LANES = {"float32": 16, "float64": 8}

LIMIT_NOTE = (
    "The limit counts the instructions of the AVX-512 form of each loop against the two floating-point pipes of a "
    "Zen 4 core at 3.69 GHz: one 512-bit multiply-add (or two of 256 bits) and one 512-bit add (or two of 256 bits) a "
    "cycle. AVX2 code needs half the cycles for half the lanes, hence the same limit, wherever AVX2 has the "
    "instruction. It has no scalef, no 32-entry table permutation and no broadcast as operand, and 16 registers "
    "instead of 32: for an AVX2 machine the limit is a bound that cannot be met, not a forecast."
)

CASES = (
    Case("Gaussian D=3 float32", "gaussian", 20_000, 3, "float32", 10.0),
    Case("Gaussian D=3 float64", "gaussian", 20_000, 3, "float64", 12.0),
    Case("Gaussian D=64 float32", "gaussian", 10_000, 64, "float32", 71.0),
    Case("logsumexp D=3 float32", "logsumexp", 20_000, 3, "float32", 9.0),
    Case("10 nearest D=3 float32", "neighbours", 20_000, 3, "float32", 3.6),
    Case("10 nearest D=64 float32", "neighbours", 10_000, 64, "float32", 64.6),
    Case("argmin D=16 float32", "argmin", 20_000, 16, "float32", 18.0),
    Case("Gaussian, gradient in x, D=3 float32", "gradient", 20_000, 3, "float32", 11.0),
    Case("Laplacian D=3 float32", "laplacian", 20_000, 3, "float32", 13.0),
    Case("inverse multiquadric D=3 float32", "multiquadric", 20_000, 3, "float32", 8.0),
)


@dataclass(frozen=True)
class Data:
    """Uniform random rows: x (M, D), y (N, D), b (N, E), and e (M, E), which weighs the gradient."""

    x: NDArray[np.floating]
    y: NDArray[np.floating]
    b: NDArray[np.floating]
    e: NDArray[np.floating]


def make_data(rows: int, columns: int, dim: int, dtype: str, *, weights: int = 1) -> Data:
    """Make the same data in every process."""
    random = np.random.default_rng(0)
    x, y, b, e = (
        random.random(shape).astype(dtype)
        for shape in ((rows, dim), (columns, dim), (columns, weights), (rows, weights))
    )
    return Data(x, y, b, e)


def relative_error(formula: str, data: Data, result: NDArray[np.generic], *, rows: int = 50) -> float:
    """Compare the first rows of a result with dense float64, relative to the largest value.

    Positions are judged by the squared distances that they stand for: those of equal distance may come in any order.
    """
    x, y = data.x[:rows].astype(np.float64), data.y.astype(np.float64)
    b, e = data.b.astype(np.float64), data.e[:rows].astype(np.float64)
    squared = np.square(x[:, None] - y).sum(axis=2)
    found = np.asarray(result)[:rows]
    if formula in ("argmin", "neighbours"):
        count = NEIGHBOURS if formula == "neighbours" else 1
        exact = np.sort(squared, axis=1)[:, :count]
        found = np.take_along_axis(squared, found.reshape(len(x), count).astype(np.int64), axis=1)
    elif formula == "logsumexp":
        exact = np.log(np.exp(-squared).sum(axis=1, keepdims=True))
    elif formula == "gradient":
        weights = np.exp(-squared) * b.T * e
        exact = -2 * (x * weights.sum(axis=1, keepdims=True) - weights @ y)
    else:
        kernel = {
            "gaussian": lambda: np.exp(-squared),
            "laplacian": lambda: np.exp(-np.sqrt(squared)),
            "multiquadric": lambda: 1 / np.sqrt(1 + squared),
        }[formula]()
        exact = kernel @ b
    return float(np.abs(found.reshape(exact.shape) - exact).max() / np.abs(exact).max())


def tolerance(dtype: str, columns: int) -> float:
    """What `relative_error` may be: ten roundings of each term, and blocked sums, whose error grows with sqrt(N).

    Higham, Accuracy and Stability of Numerical Algorithms, 4.2.
    """
    return float(np.finfo(dtype).eps) * 10 * (2 + math.sqrt(columns))
