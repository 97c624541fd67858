"""The reductions that are timed on a GPU, beside pykeops, dense PyTorch and hand-written Triton."""

from __future__ import annotations

import importlib.util
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pylazy.bench.cases import make_data, relative_error, tolerance
from pylazy.gpu_check.bound import pairs_per_second, slots_of
from pylazy.gpu_check.checks import CHECKS
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.bench.cases import Data
    from pylazy.gpu_check.devices import Arrays
    from pylazy.gpu_check.functions import Functions
    from pylazy.runtime.gpu_devices import GpuProperties

OURS = "pylazy"
_DENSE_BLOCK_PAIRS = 1 << 28
_ORACLE_NUMBERS = 20_000_000
_CHECKS = {check.name: check for check in CHECKS}


@dataclass(frozen=True)
class Timed:
    """One reduction over M = N rows.

    Attributes:
        name: for the tables.
        formula: of `pylazy.bench.contenders` and `pylazy.gpu_check.triton_kernels`.
        check: the row of `CHECKS` whose function is ours.
        slots: the row of the counts of instructions.
        dtype: of the data and the arithmetic.
        dim: D.
        weights: E.
    """

    name: str
    formula: str
    check: str
    slots: str
    dtype: str = "float32"
    dim: int = 3
    weights: int = 1


TIMED = (
    Timed("Gaussian D=3", "gaussian", "gaussian_d3_e1", "gaussian_d3_e1"),
    Timed("logsumexp D=3", "logsumexp", "logsumexp", "logsumexp"),
    Timed("Gaussian, gradient in x, D=3", "gradient", "gaussian_d3_e1", "gaussian_d3_e1_gradient_x"),
    Timed("Laplacian D=3", "laplacian", "laplacian", "laplacian"),
    Timed("argmin D=3", "argmin", "argmin", "argmin"),
    Timed("10 nearest D=3", "neighbours", "argkmin_10", "argkmin_10"),
    Timed("Gaussian D=64", "gaussian", "gaussian_d64_e1", "gaussian_d64_e1", dim=64),
    Timed("Gaussian D=3 E=64", "gaussian", "gaussian_d3_e64", "gaussian_d3_e64", weights=64),
    Timed("Gaussian D=3 float64", "gaussian", "gaussian_d3_e1", "gaussian_d3_e1_f64", "float64"),
    Timed("logsumexp D=3 float64", "logsumexp", "logsumexp", "logsumexp_f64", "float64"),
)


def time_reduction(
    timed: Timed, functions: Functions, arrays: Arrays, gpu: GpuProperties, *, points: int, repeats: int
) -> dict[str, Any]:
    """Time one reduction by everybody who can do it.

    Args:
        timed: the reduction.
        functions: ours.
        arrays: where the data is.
        gpu: for the bound.
        points: M = N.
        repeats: runs of each; figures are medians.

    Returns:
        A row for the results: "contenders" with the figures of each, "failures" with messages, and the bound in pairs a
        second, or None where there is no count of instructions or no clock.
    """
    data = make_data(points, points, timed.dim, timed.dtype, weights=timed.weights)
    makers = {OURS: lambda: _make_ours(timed, functions, arrays, data), **_peers(timed, arrays, data)}
    ready: dict[str, Callable[[], Any]] = {}
    errors: dict[str, float] = {}
    failures: dict[str, str] = {}
    rows = max(1, min(50, _ORACLE_NUMBERS // (points * timed.dim)))
    for name, make in makers.items():
        prepared = _prepared(make, arrays, lambda result: relative_error(timed.formula, data, result, rows=rows))
        if isinstance(prepared, str):
            failures[name] = prepared
        elif prepared is not None:
            ready[name], errors[name] = prepared
    samples: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(repeats):  # in turn, so that a disturbance meets all of them
        for name, work in ready.items():
            samples[name].append(arrays.milliseconds(work))
    figures = {
        name: {
            "milliseconds": (milliseconds := statistics.median(found)),
            "pairs_per_second": points**2 / milliseconds * 1e3,
            "relative_error": errors[name],
        }
        for name, found in samples.items()
    }
    slots = slots_of(timed.slots)
    bound = pairs_per_second(slots, gpu) if slots is not None and gpu.clock_hertz else None
    row = {"name": timed.name, "rows": points, "dim": timed.dim, "weights": timed.weights, "dtype": timed.dtype}
    return row | {"bound_pairs_per_second": bound, "contenders": figures, "failures": failures, "repeats": repeats}


def _prepared(
    make: Callable[[], Callable[[], Any] | None], arrays: Arrays, error_of: Callable[[Any], float]
) -> tuple[Callable[[], Any], float] | str | None:
    """Make work and run it twice, so that nothing is left to compile: it and its error, or why it failed, or None."""
    try:
        work = make()
        if work is None:
            return None
        error = error_of(arrays.get(work()))
        arrays.milliseconds(work)
    except Exception as failure:  # noqa: BLE001, whatever a contender raises goes to the reader
        return f"{type(failure).__name__}: {(str(failure).splitlines() or [''])[0]}"
    return work, error


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether our result of a row is there and right."""
    ours = row["contenders"].get(OURS)
    return ours is not None and bool(ours["relative_error"] <= tolerance(row["dtype"], row["rows"]))


def _make_ours(timed: Timed, functions: Functions, arrays: Arrays, data: Data) -> Callable[[], Any] | None:
    check = _CHECKS[timed.check]
    function = functions(check, timed.dtype)
    by_name = {"x": data.x, "y": data.y, "b": data.b}
    placed = [arrays.put(by_name[variable.name], timed.dtype) for variable in check.variables]
    if timed.formula != "gradient":
        return lambda: function(*placed)
    if not arrays.has_gradients:
        return None
    from pylazy.bench.contenders import make_backward_sweep

    x: Any = arrays.put(data.x, timed.dtype)
    x.requires_grad_()
    return make_backward_sweep(function(x, *placed[1:]), x, arrays.put(data.e, timed.dtype))


def _peers(timed: Timed, arrays: Arrays, data: Data) -> dict[str, Callable[[], Callable[[], Any] | None]]:
    """Makers of the work of peers that are installed; all of them compute on tensors of torch."""
    if not arrays.has_gradients or arrays.backend != "auto":  # theirs would run where the tensors are, ours elsewhere
        return {}
    from pylazy.bench import contenders

    def tensors() -> Sequence[Any]:
        return contenders.as_tensors(data, arrays.device)

    def pykeops() -> Callable[[], Any]:
        import pykeops as package
        from pykeops.torch import LazyTensor

        if arrays.device != "cpu" and not package.config.gpu_available:
            raise UnsupportedError("pykeops finds no CUDA libraries: it would read memory of a GPU from the CPU")
        x, y, b, e = tensors()
        if timed.formula == "gradient":
            return contenders.make_symbolic_gradient(LazyTensor, x, y, b, e)
        return contenders.make_symbolic(timed.formula, LazyTensor, x, y, b)

    def dense() -> Callable[[], Any]:
        return contenders.make_torch_blocks(timed.formula, *tensors(), block_pairs=_DENSE_BLOCK_PAIRS)

    def by_triton() -> Callable[[], Any] | None:
        from pylazy.gpu_check import triton_kernels

        return triton_kernels.make_work(timed.formula, *tensors())

    found = {"pykeops": ("pykeops", pykeops), "PyTorch dense": ("torch", dense), "Triton": ("triton", by_triton)}
    return {name: make for name, (package, make) in found.items() if importlib.util.find_spec(package) is not None}
