"""Many formulas of the language, one to 64 results, every reduction: beside pykeops, PyTorch, NumPy and JAX.

Every formula is one text over the squared distance `s` and the inner product `p`, which each package runs with its own
functions. The dense packages get both from a matrix product, in blocks of about a million pairs; JAX compiles it all.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import read_arguments, save

from pylazy.bench.contenders import BLOCK_PAIRS, CONTENDERS
from pylazy.bench.workers import ContenderError, Worker, interleave, median_cpu, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pylazy.bench.cases import Data

SIZE = 10_000
NEAREST = 5


@dataclass(frozen=True)
class Formula:
    """One reduction over the columns.

    Attributes:
        text: of the formula; functions are those of LazyTensor.
        reduction: over j, by its name in LazyTensor; a sum has weights.
        dim: D.
        weights: E, results of a sum for each row.
        dtype: of the data.
    """

    text: str
    reduction: str = "sum"
    dim: int = 3
    weights: int = 1
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Formula, reduction and sizes."""
        weights = f" E={self.weights}" if self.reduction == "sum" else ""
        return f"{self.reduction} {self.text} D={self.dim}{weights} {self.dtype}"


GAUSSIAN = "exp(-s)"
FUNCTIONS = (
    "s + p",
    "1 / (1 + s)",
    "(1 + s) ** 3",
    "(1 + s) ** 1.5",
    "(1 + s) ** 1.3",
    "abs(p - s)",
    "log(1 + s)",
    "sqrt(s)",
    "rsqrt(1 + s)",
    "sin(s)",
    "cos(s)",
    "tanh(p)",
    "asin(0.25 * p)",
    "acos(0.25 * p)",
    "atan(s)",
    "atan2(p, s)",
    "relu(1 - s)",
    "step(1 - s)",
    "sign(p - s)",
    "clamp(s, 0.2, 0.6)",
    "round(3 * s)",
    "mod(3 * s, 2)",
    "xlogx(s)",
    "sinxdivx(s)",
    "ifelse(1 - s, s, p)",
    "exp(-s) * (1 + sqrt(s))",
    "exp(-s) + exp(-0.5 * s) + exp(-2 * s)",
    "exp(p) * cos(s)",
)
FORMULAS = (
    *(Formula(text) for text in FUNCTIONS),
    *(Formula(GAUSSIAN, weights=weights) for weights in (1, 2, 3, 4, 8, 16, 32, 64)),
    *(Formula(GAUSSIAN, weights=weights, dtype="float64") for weights in (1, 4, 16, 64)),
    *(Formula(GAUSSIAN, dim=dim) for dim in (1, 2, 5, 10, 16, 32, 100)),
    Formula("p", dim=10, weights=10),
    Formula("1 / (1 + s)", dim=10, weights=10),
    *(Formula("-s", reduction) for reduction in ("logsumexp", "min", "max", "argmin", "argmax", "Kmin", "argKmin")),
    Formula("p / (1 + s)", "logsumexp"),
    Formula("p / (1 + s)", "argmax", dim=10),
    Formula("-s", "Kmin", dtype="float64"),
    Formula("-s", "logsumexp", dtype="float64"),
)


def main() -> None:
    """Time every formula."""
    arguments = read_arguments(__doc__)
    size = SIZE // 10 if arguments.quick else SIZE
    repeats = arguments.repeats or (1 if arguments.quick else 3)
    workers = [
        Worker(row.name, {**threads(1), **row.environment})
        for row in CONTENDERS.values()
        if row.usual and row.is_installed
    ]
    rows = []
    for index, formula in enumerate(FORMULAS):
        if arguments.only in formula.name:
            rows.append(_time(formula, index, workers, size, repeats))
            times = {name: f"{seconds * 1e3:.1f}" for name, seconds in rows[-1]["cpu_seconds"].items()}
            print(formula.name, times, rows[-1]["failures"] or "", flush=True)
    for worker in workers:
        worker.close()
    save("formulas", rows, arguments)


def _time(formula: Formula, index: int, workers: list[Worker], size: int, repeats: int) -> dict[str, Any]:
    ready, failures, errors = [], {}, {}
    expected = None
    for worker in workers:
        try:
            worker.prepare("formulas:make_work", worker.name, index, size)
        except ContenderError as error:
            failures[worker.name] = str(error)
            continue
        ready.append(worker)
        found = np.asarray(worker.result(), np.float64)
        expected = found if expected is None else expected
        errors[worker.name] = float(np.abs(found.reshape(expected.shape) - expected).max() / np.abs(expected).max())
    samples = interleave(ready, repeats=repeats)
    return {
        "name": formula.name,
        "rows": size,
        "cpu_seconds": {worker.name: median_cpu(samples[worker.name]) for worker in ready},
        "difference_from_pylazy": errors,
        "failures": failures,
    }


def make_work(contender: str, index: int, size: int) -> Callable[[], Any]:
    """Make the work of one contender: a function that returns an array, of (size, E) numbers for a sum."""
    from pylazy.bench.cases import make_data

    formula = FORMULAS[index]
    data = make_data(size, size, formula.dim, formula.dtype, weights=formula.weights)
    return _MAKERS[contender](formula, data)


def _evaluate(formula: Formula, functions: Any, s: Any, p: Any) -> Any:
    scope = {name: getattr(functions, name) for name in _FUNCTION_NAMES}
    return eval(formula.text, {**scope, "s": s, "p": p})


_FUNCTION_NAMES = (
    *("abs", "log", "exp", "sqrt", "rsqrt", "sin", "cos", "tanh", "asin", "acos", "atan", "atan2", "relu", "step"),
    *("sign", "clamp", "ifelse", "round", "mod", "xlogx", "sinxdivx"),
)


class _Methods:
    """Functions that call the method of their name."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda value, *arguments: getattr(value, name)(*arguments)


def _symbolic(formula: Formula, data: Data, lazy: Any) -> Callable[[], Any]:
    x, y = lazy(data.x[:, None, :]), lazy(data.y[None, :, :])
    value = _evaluate(formula, _Methods(), ((x - y) ** 2).sum(-1), (x * y).sum(-1))
    if formula.reduction == "sum":
        return lambda: value @ data.b
    arguments = (NEAREST,) if formula.reduction in ("Kmin", "argKmin") else ()
    return lambda: getattr(value, formula.reduction)(*arguments, axis=1)


def _pylazy(formula: Formula, data: Data) -> Callable[[], Any]:
    from pylazy import LazyTensor

    return _symbolic(formula, data, LazyTensor)


def _pykeops(formula: Formula, data: Data) -> Callable[[], Any]:
    from pykeops.numpy import LazyTensor

    return _symbolic(formula, data, LazyTensor)


def _blocks(data: Data) -> Iterator[slice]:
    size = max(1, BLOCK_PAIRS // len(data.y))
    return (slice(start, start + size) for start in range(0, len(data.x), size))


def _numpy(formula: Formula, data: Data) -> Callable[[], Any]:
    zero, one = np.zeros((), formula.dtype), np.ones((), formula.dtype)
    functions = SimpleNamespace(
        **{name: getattr(np, name) for name in ("abs", "log", "exp", "sqrt", "sin", "cos", "tanh", "sign")},
        asin=np.arcsin,
        acos=np.arccos,
        atan=np.arctan,
        atan2=np.arctan2,
        round=np.round,
        mod=np.mod,
        xlogx=lambda value: value * np.log(np.where(value > 0, value, one)),
        sinxdivx=lambda value: np.sinc(value / np.asarray(np.pi, formula.dtype)),
        rsqrt=lambda value: 1 / np.sqrt(value),
        relu=lambda value: np.maximum(value, 0),
        step=lambda value: np.where(value >= 0, one, zero),
        clamp=np.clip,
        ifelse=lambda condition, a, b: np.where(condition >= 0, a, b),
    )

    def reduce(value: Any) -> Any:
        if formula.reduction == "sum":
            return value @ data.b
        if formula.reduction == "logsumexp":
            largest = value.max(axis=1, keepdims=True)
            return np.log(np.exp(value - largest).sum(axis=1, keepdims=True)) + largest
        if formula.reduction == "Kmin":
            return np.sort(np.partition(value, NEAREST, axis=1)[:, :NEAREST], axis=1)
        if formula.reduction == "argKmin":
            nearest = np.argpartition(value, NEAREST, axis=1)[:, :NEAREST]
            order = np.take_along_axis(value, nearest, axis=1).argsort(axis=1)
            return np.take_along_axis(nearest, order, axis=1)
        return getattr(value, formula.reduction)(axis=1)

    y_squared = np.square(data.y).sum(axis=1)

    def block(rows: slice) -> Any:
        x = data.x[rows]
        p = x @ data.y.T
        s = -2 * p
        s += np.square(x).sum(axis=1)[:, None]
        s += y_squared
        return reduce(_evaluate(formula, functions, np.maximum(s, 0, out=s), p))

    return lambda: np.concatenate([block(rows) for rows in _blocks(data)])


def _torch(formula: Formula, data: Data) -> Callable[[], Any]:
    import torch

    x_all, y, b = (torch.from_numpy(array) for array in (data.x, data.y, data.b))
    zero, one = torch.zeros((), dtype=x_all.dtype), torch.ones((), dtype=x_all.dtype)
    functions = SimpleNamespace(
        **{
            name: getattr(torch, name)
            for name in (
                *("abs", "log", "exp", "sqrt", "rsqrt", "sin", "cos", "tanh", "asin", "acos", "atan", "atan2", "relu"),
                *("sign", "clamp", "round"),
            )
        },
        mod=torch.remainder,
        xlogx=lambda value: torch.xlogy(value, value),
        sinxdivx=lambda value: torch.sinc(value / np.pi),
        step=lambda value: torch.where(value >= 0, one, zero),
        ifelse=lambda condition, a, b: torch.where(condition >= 0, a, b),
    )
    y_squared = y.square().sum(1)

    def reduce(value: Any) -> Any:
        if formula.reduction == "sum":
            return value @ b
        if formula.reduction == "logsumexp":
            return value.logsumexp(1)
        if formula.reduction in ("Kmin", "argKmin"):
            return value.topk(NEAREST, largest=False)[int(formula.reduction == "argKmin")]
        if formula.reduction in ("min", "max"):
            return getattr(value, "a" + formula.reduction)(1)
        return getattr(value, formula.reduction)(1)

    def block(rows: slice) -> Any:
        x = x_all[rows]
        p = x @ y.T
        s = torch.add(y_squared, p, alpha=-2).add_(x.square().sum(1, keepdim=True)).clamp_(min=0)
        return reduce(_evaluate(formula, functions, s, p))

    def work() -> Any:
        with torch.no_grad():
            return torch.cat([block(rows) for rows in _blocks(data)]).numpy()

    return work


def _jax(formula: Formula, data: Data) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", data.x.dtype == np.float64)
    x_all, y, b = (jnp.asarray(array) for array in (data.x, data.y, data.b))
    functions = SimpleNamespace(
        **{name: getattr(jnp, name) for name in ("abs", "log", "exp", "sqrt", "sin", "cos", "tanh", "sign")},
        asin=jnp.arcsin,
        acos=jnp.arccos,
        atan=jnp.arctan,
        atan2=jnp.arctan2,
        round=jnp.round,
        mod=jnp.mod,
        xlogx=lambda value: value * jnp.log(jnp.where(value > 0, value, 1)),
        sinxdivx=lambda value: jnp.sinc(value / jnp.pi),
        rsqrt=jax.lax.rsqrt,
        relu=jax.nn.relu,
        step=lambda value: jnp.where(value >= 0, 1, 0).astype(value.dtype),
        clamp=jnp.clip,
        ifelse=lambda condition, a, b: jnp.where(condition >= 0, a, b),
    )

    def reduce(value: Any) -> Any:
        if formula.reduction == "sum":
            return value @ b
        if formula.reduction == "logsumexp":
            return jax.nn.logsumexp(value)
        if formula.reduction in ("Kmin", "argKmin"):
            found = jax.lax.top_k(-value, NEAREST)
            return found[1] if formula.reduction == "argKmin" else -found[0]
        return getattr(value, formula.reduction)()

    def row(x: Any) -> Any:
        if formula.dim <= 16:
            s = sum(jnp.square(x[d] - y[:, d]) for d in range(formula.dim))
            p = sum(x[d] * y[:, d] for d in range(formula.dim))
        else:
            p = y @ x
            s = jnp.maximum(x @ x - 2 * p + jnp.square(y).sum(axis=1), 0)
        return reduce(_evaluate(formula, functions, s, p))

    compiled = jax.jit(lambda x: jax.lax.map(row, x, batch_size=max(1, BLOCK_PAIRS // len(data.y))))
    return lambda: np.asarray(compiled(x_all))


_MAKERS = {"pylazy": _pylazy, "pykeops": _pykeops, "NumPy": _numpy, "PyTorch": _torch, "JAX": _jax}


if __name__ == "__main__":
    main()
