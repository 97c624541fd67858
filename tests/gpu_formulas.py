"""The formulas that the tests of GPU kernels compile, with data to run them on."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pylazy import LazyTensor, Pm, Vi, Vij, Vj
from pylazy.reductions import gradient_request
from pylazy.trace import Traced, trace
from reference import evaluate_dense, reduce_dense

Array = Any  # an ndarray
Formula = Callable[["Variables"], Any]


class Variables:
    """Random variables of one size and dtype, the same at each call."""

    def __init__(self, rows: int, columns: int, dtype: Any) -> None:
        self.rows, self.columns, self.dtype = rows, columns, dtype
        self._random = np.random.default_rng(7)

    def _array(self, rows: int, dim: int) -> Array:
        return (self._random.standard_normal((rows, dim)) / np.sqrt(dim)).astype(self.dtype)

    def x(self, dim: int) -> LazyTensor:
        """Make a variable indexed by i."""
        return Vi(self._array(self.rows, dim))

    def y(self, dim: int) -> LazyTensor:
        """Make a variable indexed by j."""
        return Vj(self._array(self.columns, dim))


def gaussian(dim: int, weights: int) -> Formula:
    """Make the sum over j of exp(-|x - y|^2) b."""
    return lambda v: ((-((v.x(dim) - v.y(dim)) ** 2).sum(-1)).exp() * v.y(weights)).sum(axis=1, call=False)


def laplacian(v: Variables) -> Any:
    """Make the sum over j of exp(-|x - y|) b."""
    return ((-(v.x(3) - v.y(3)).norm2()).exp() * v.y(1)).sum(axis=1, call=False)


def inverse_multiquadric(v: Variables) -> Any:
    """Make the sum over j of b / sqrt(1 + |x - y|^2)."""
    return ((1 + v.x(3).sqdist(v.y(3))).rsqrt() * v.y(1)).sum(axis=1, call=False)


def logsumexp(dim: int, weights: int = 0) -> Formula:
    """Make the logsumexp over j of -|x - y|^2, perhaps weighted by positive numbers."""

    def build(v: Variables) -> Any:
        score = -v.x(dim).sqdist(v.y(dim))
        weight = v.y(weights).abs() + 0.5 if weights else None
        return score.logsumexp(1, weight=weight, call=False) if weights else score.logsumexp(1, call=False)

    return build


def softmax(v: Variables) -> Any:
    """Make the softmax-weighted mean of b."""
    return (v.x(3) | v.y(3)).sumsoftmaxweight(v.y(2), axis=1, call=False)


def _distances(reduce: Callable[[LazyTensor], Any], dim: int = 3) -> Formula:
    return lambda v: reduce(v.x(dim).sqdist(v.y(dim)))


def over_rows(v: Variables) -> Any:
    """Make a sum over i."""
    return ((-v.x(3).sqdist(v.y(3))).exp() * v.x(2)).sum(axis=0, call=False)


def with_parameter(v: Variables) -> Any:
    """Make a formula that no column variable enters but one long one, with a constant vector."""
    scaled = (v.x(5) * [0.5, 1.0, 1.5, 2.0, 2.5]).sum(-1)
    return (scaled * v.y(20)).sum(axis=1, call=False)


def with_number(v: Variables) -> Any:
    """Make a formula with a parameter, whose gradient is a single row."""
    distance = v.x(3).sqdist(v.y(3)) * Pm(np.array([0.7], dtype=v.dtype))
    return ((-distance).exp() * v.y(1)).sum(axis=1, call=False)


def concatenated(v: Variables) -> Any:
    """Make a result whose elements change their kind in the middle of a long inner dimension."""
    return (v.x(3).concat(v.y(40)) * v.y(1)).sum(axis=1, call=False)


def long_products(v: Variables) -> Any:
    """Make a long result with factors of the row, of the pair and of the column, and a seam between its elements."""
    vectors = v.y(36).concat(v.y(64)) * v.y(1)
    return (-2.5 * v.x(1) * (-v.x(3).sqdist(v.y(3))).exp() * vectors).sum(axis=1, call=False)


def dot_of_long(v: Variables) -> Any:
    """Make a formula whose column is too long to be staged."""
    return ((v.x(2000) | v.y(2000)) * v.y(2)).sum(axis=1, call=False)


FORMULAS: Mapping[str, Formula] = {
    **{f"gaussian_d{dim}_e1": gaussian(dim, 1) for dim in (1, 3, 10, 64, 300)},
    **{f"gaussian_d3_e{weights}": gaussian(3, weights) for weights in (3, 64)},
    "gaussian_d64_e64": gaussian(64, 64),
    "laplacian": laplacian,
    "inverse_multiquadric": inverse_multiquadric,
    "logsumexp": logsumexp(3),
    "logsumexp_weighted": logsumexp(3, 2),
    "logsumexp_d64_e20": logsumexp(64, 20),
    "softmax": softmax,
    "min": _distances(lambda d: d.min(axis=1, call=False)),
    "max": _distances(lambda d: d.max(axis=1, call=False)),
    "argmin": _distances(lambda d: d.argmin(axis=1, call=False)),
    "min_argmin": _distances(lambda d: d.min_argmin(axis=1, call=False)),
    "kmin": _distances(lambda d: d.Kmin(5, axis=1, call=False)),
    "argkmin": _distances(lambda d: d.argKmin(5, axis=1, call=False), 20),
    "over_rows": over_rows,
    "kmin_argkmin": _distances(lambda d: d.Kmin_argKmin(4, axis=1, call=False)),
    "with_parameter": with_parameter,
    "with_number": with_number,
    "concatenated": concatenated,
    "long_products": long_products,
    "min_argmin_d20": _distances(lambda d: d.min_argmin(axis=1, call=False), 20),
    "logsumexp_d20": logsumexp(20),
    "dot_of_long": dot_of_long,
}
DIFFERENTIABLE = (
    "gaussian_d3_e1",
    "gaussian_d64_e1",
    "gaussian_d3_e64",
    "laplacian",
    "logsumexp",
    "logsumexp_weighted",
    "with_number",
)


def request_of(reduction: Any) -> Any:
    """Give the request of a reduction that has not run."""
    return reduction._job.executable.request


def traced(reduction: Any) -> Traced:
    """Trace a reduction that has not run."""
    return trace(request_of(reduction))


def traced_gradient(reduction: Any, *, wrt: tuple[int, ...]) -> Traced:
    """Trace the gradient of a reduction with respect to some of its inputs."""
    return trace(gradient_request(request_of(reduction), wrt))


def inputs_of(reduction: Any) -> list[Array]:
    """Give the arrays of the inputs, in the order of the buffers, as rows."""
    job = reduction._job
    dtype = request_of(reduction).dtype
    return [
        np.ascontiguousarray(source.array, dtype=dtype).reshape(-1, entry.dim)
        for source, entry in zip(job.sources, request_of(reduction).inputs, strict=True)
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


def _distance(v: Variables) -> LazyTensor:
    return v.x(3).sqdist(v.y(3))


def _summed(**options: Any) -> Formula:
    return lambda v: _distance(v).sum(axis=1, call=False, **options)


def _ranged(reduce: Callable[..., Any]) -> Formula:
    """Reduce over all pairs, as two intervals of one block."""

    def build(v: Variables) -> Any:
        edges = np.array([[0, 2], [2, v.columns]])
        block, none = (np.array([[0, v.rows]]), np.array([2]), edges), (np.zeros((0, 2), int), np.zeros(0, int))
        return reduce(_distance(v), axis=1, ranges=(*block, *none, np.zeros((0, 2), int)), call=False)

    return build


def _product_of_pairs(v: Variables) -> Any:
    dense = Vij(np.ones((v.rows, v.columns, 3), v.dtype))
    return ((dense * v.y(3)).sum(-1).sin() * v.x(2)).sum(axis=1, call=False)


def _soft_dtw(n: int, m: int) -> Formula:
    return lambda v: v.x(n).softdtw_sqdist(v.y(m), 0.3).sum(axis=1, call=False)


#: What kernels have beyond the formula.
FEATURES: Mapping[str, Formula] = {
    "kahan": _summed(sum_scheme="kahan_scheme"),
    "wide": _summed(dtype_acc="float64"),
    "direct": _summed(sum_scheme="direct_sum"),
    "wide_logsumexp": lambda v: _distance(v).logsumexp(axis=1, call=False, dtype_acc="float64"),
    "long_kahan": lambda v: (v.x(64) * v.y(64)).sum(axis=1, call=False, sum_scheme="kahan_scheme"),
    "long_selection": lambda v: ((v.x(3) - v.y(3)) ** 2).argKmin(20, axis=1, call=False),
    "ranged_gaussian": _ranged(lambda d, **o: (-d).exp().sum(**o)),
    "ranged_argmin": _ranged(lambda d, **o: d.argmin(**o)),
    "ranged_logsumexp": _ranged(lambda d, **o: d.logsumexp(**o)),
    "ranged_selection": _ranged(lambda d, **o: d.Kmin_argKmin(10, **o)),
    "product_of_pairs": _product_of_pairs,
    "soft_dtw": _soft_dtw(20, 17),
    "short_soft_dtw": _soft_dtw(6, 5),
}
#: Those of which the gradient is another kind of kernel.
GRADIENT_FEATURES = ("product_of_pairs", "short_soft_dtw")
