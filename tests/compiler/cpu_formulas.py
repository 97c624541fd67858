"""The formulas that the tests of CPU kernels compile, with data to run them on."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pylazy import LazyTensor, Pm, Vi, Vj
from pylazy.trace import Traced, trace
from reference import evaluate_dense, reduce_dense

Array = Any  # an ndarray
Formula = Callable[["Variables"], Any]


class Variables:
    """Variables of one size and dtype, the same at each call."""

    def __init__(self, rows: int, columns: int, dtype: Any) -> None:
        self.rows, self.columns, self.dtype = rows, columns, dtype
        self._random = np.random.default_rng(11)

    def _normal(self, rows: int, dim: int) -> Array:
        return (self._random.standard_normal((rows, dim)) / np.sqrt(dim)).astype(self.dtype)

    def _integers(self, rows: int, dim: int) -> Array:
        return self._random.integers(-3, 4, (rows, dim)).astype(self.dtype)

    def x(self, dim: int) -> LazyTensor:
        """Make a variable indexed by i."""
        return Vi(self._normal(self.rows, dim))

    def y(self, dim: int) -> LazyTensor:
        """Make a variable indexed by j."""
        return Vj(self._normal(self.columns, dim))

    def weights(self, dim: int) -> LazyTensor:
        """Make positive numbers indexed by j, so that nothing cancels in a sum."""
        return Vj(np.abs(self._normal(self.columns, dim)) + self.dtype(0.5))

    def parameter(self, dim: int) -> LazyTensor:
        """Make one row for all pairs."""
        return Pm(self._normal(1, dim)[0])

    def grid_distances(self, dim: int = 2) -> LazyTensor:
        """Make squared distances of points with small whole numbers: exact in any dtype, with ties at every turn."""
        return Vi(self._integers(self.rows, dim)).sqdist(Vj(self._integers(self.columns, dim)))

    def special(self) -> LazyTensor:
        """Make sums of an x and a y of which some are NaN, infinite, or equal."""
        numbers = np.array([0, 1, -2, 1, np.inf, -np.inf, np.nan, 3], self.dtype)
        x = numbers[np.arange(self.rows) % 8][:, None]
        y = self._random.choice(numbers[[0, 1, 2, 3, 7]], self.columns)
        places = self._random.integers(0, max(self.columns, 1), 3)
        if self.columns:
            y[places[: self.columns]] = numbers[4:7][: self.columns]
        return Vi(x) + Vj(y[:, None])


def gaussian(dim: int, weights: int) -> Formula:
    """Make the sum over j of exp(-|x - y|^2) b."""
    return lambda v: ((-v.x(dim).sqdist(v.y(dim))).exp() * v.weights(weights)).sum(axis=1, call=False)


def _scores(v: Variables, dim: int = 3) -> LazyTensor:
    return -v.x(dim).sqdist(v.y(dim))


SUMS: Mapping[str, Formula] = {
    "gaussian_d1": gaussian(1, 1),
    "gaussian_d3": gaussian(3, 1),
    "gaussian_d64": gaussian(64, 1),
    "gaussian_d1000": gaussian(1000, 1),
    "gaussian_d3_e3": gaussian(3, 3),
    "gaussian_d3_e64": gaussian(3, 64),
    "over_i": lambda v: ((_scores(v)).exp() * (v.x(2) ** 2 + 1)).sum(axis=0, call=False),
    "parameter": lambda v: ((v.x(3) * v.parameter(3) * v.y(3)).exp() * 2.5).sum(axis=1, call=False),
    "large_angles": lambda v: ((v.grid_distances() * 100_000).sin() + 2).sum(axis=1, call=False),
    "long_row": lambda v: (v.x(40).exp() * v.weights(40)).sum(-1).sum(axis=1, call=False),
    "concatenated": lambda v: (v.x(20).exp().concat(v.weights(3)) * v.weights(1)).sum(axis=1, call=False),
}
"""Formulas of which all terms are positive."""

EXPONENTIALS: Mapping[str, Formula] = {
    "logsumexp": lambda v: (20 * _scores(v)).logsumexp(axis=1, call=False),
    "logsumexp_weights": lambda v: _scores(v).logsumexp(axis=1, weight=v.weights(3), call=False),
    "logsumexp_many_weights": lambda v: _scores(v).logsumexp(axis=1, weight=v.weights(40), call=False),
    "softmax": lambda v: _scores(v).sumsoftmaxweight(v.weights(2), axis=1, call=False),
}

SELECTIONS: Mapping[str, Formula] = {
    "min": lambda v: v.grid_distances().min(axis=1, call=False),
    "argmin": lambda v: v.grid_distances().argmin(axis=1, call=False),
    "max_argmax": lambda v: v.grid_distances().max_argmax(axis=1, call=False),
    "argmax_over_i": lambda v: v.grid_distances().argmax(axis=0, call=False),
    "min_of_many": lambda v: (v.grid_distances(1) * Pm(np.arange(1, 41).astype(v.dtype))).min_argmin(
        axis=1, call=False
    ),
    "kmin_1": lambda v: v.grid_distances().Kmin_argKmin(1, axis=1, call=False),
    "kmin_3": lambda v: v.grid_distances().Kmin_argKmin(3, axis=1, call=False),
    "kmin_40": lambda v: v.grid_distances().Kmin_argKmin(40, axis=1, call=False),
    "kmin_of_two": lambda v: (v.grid_distances() * Pm(np.array([1, -1], v.dtype))).argKmin(3, axis=1, call=False),
}
"""Exact in any dtype, and full of ties."""

SPECIAL: Mapping[str, Formula] = {
    "special_sum": lambda v: v.special().sum(axis=1, call=False),
    "special_min_argmin": lambda v: v.special().min_argmin(axis=1, call=False),
    "special_argmax": lambda v: v.special().argmax(axis=1, call=False),
    "special_max": lambda v: v.special().max(axis=1, call=False),
    "special_kmin": lambda v: v.special().Kmin_argKmin(5, axis=1, call=False),
    "special_logsumexp": lambda v: v.special().logsumexp(axis=1, call=False),
}
"""NaN and infinities among the values."""

FORMULAS: Mapping[str, Formula] = {**SUMS, **EXPONENTIALS, **SELECTIONS, **SPECIAL}
EXACT = frozenset(SELECTIONS)
LEAST_COLUMNS: Mapping[str, int] = {
    **dict.fromkeys(SELECTIONS, 1),
    "kmin_3": 3,
    "kmin_of_two": 3,
    "kmin_40": 40,
    "special_kmin": 5,
    "special_min_argmin": 1,
    "special_argmax": 1,
    "softmax": 1,
}
"""Columns without which the front end refuses a reduction, or nothing is defined; others take an empty one."""


def request_of(reduction: Any) -> Any:
    """Give the request of a reduction that has not run."""
    return reduction._job.executable.request


def traced(reduction: Any, *, few_rows: str = "") -> Traced:
    """Trace a reduction that has not run."""
    return trace(request_of(reduction), few_rows=few_rows)


def inputs_of(reduction: Any) -> list[Array]:
    """Give the arrays of the inputs, in the order of the buffers, as rows."""
    request = request_of(reduction)
    return [
        np.ascontiguousarray(source.array, dtype=request.dtype).reshape(-1, entry.dim)
        for source, entry in zip(reduction._job.sources, request.inputs, strict=True)
    ]


def expected(reduction: Any) -> list[Array]:
    """Compute the results densely in float64, one array of rows for each output."""
    job = reduction._job
    values = [evaluate_dense(expression) for expression in job.expressions]
    results = []
    for kind, operands, k, *_ in job.wanted:
        dense = reduce_dense(kind, [values[operand] for operand in operands], axis=job.reduced, k=k)
        results.append(dense.reshape(dense.shape[0], -1))
    return results
