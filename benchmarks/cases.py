"""The reductions that are timed: formulas, sizes, and what the processor allows."""

from __future__ import annotations

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
        limit: pairs per core-second, in 1e9, that the ports of a Zen 4 core allow at 3.69 GHz; see `LIMIT_NOTE`.
    """

    name: str
    formula: str
    rows: int
    dim: int
    dtype: str
    limit: float


LIMIT_NOTE = (
    "The limit counts the instructions of the AVX-512 form of each loop against the two floating-point pipes of a "
    "Zen 4 core at 3.69 GHz: one 512-bit multiply-add (or two of 256 bits) and one 512-bit add (or two of 256 bits) a "
    "cycle. AVX2 code needs half the cycles for half the lanes, hence the same limit, wherever AVX2 has the "
    "instruction. It has no scalef, no 32-entry table permutation and no broadcast as operand, and 16 registers "
    "instead of 32: for an AVX2 machine the limit is a bound that cannot be met, not a forecast."
)

CASES = (
    Case("Gaussian D=3 float32", "gaussian", 20_000, 3, "float32", 5.90),
    Case("Gaussian D=3 float64", "gaussian", 20_000, 3, "float64", 2.46),
    Case("Gaussian D=64 float32", "gaussian", 10_000, 64, "float32", 0.83),
    Case("logsumexp D=3 float32", "logsumexp", 20_000, 3, "float32", 6.56),
    Case("10 nearest D=3 float32", "neighbours", 20_000, 3, "float32", 16.6),
    Case("10 nearest D=64 float32", "neighbours", 10_000, 64, "float32", 0.91),
    Case("argmin D=16 float32", "argmin", 20_000, 16, "float32", 3.28),
    Case("Gaussian, gradient in x, D=3 float32", "gradient", 20_000, 3, "float32", 5.37),
    Case("Laplacian D=3 float32", "laplacian", 20_000, 3, "float32", 4.54),
    Case("inverse multiquadric D=3 float32", "multiquadric", 20_000, 3, "float32", 7.38),
)


@dataclass(frozen=True)
class Data:
    """Uniform random rows: x (M, D), y (N, D), b (N, 1), and e (M, 1), which weighs the gradient."""

    x: NDArray[np.floating]
    y: NDArray[np.floating]
    b: NDArray[np.floating]
    e: NDArray[np.floating]


def make_data(rows: int, columns: int, dim: int, dtype: str) -> Data:
    """Make the same data in every process."""
    random = np.random.default_rng(0)
    x, y, b, e = (
        random.random(shape).astype(dtype) for shape in ((rows, dim), (columns, dim), (columns, 1), (rows, 1))
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
