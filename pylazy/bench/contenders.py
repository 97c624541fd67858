"""The same reductions written for each package; every maker returns the work, which is then timed.

The dense contenders go through the rows in blocks of about a million pairs, which suits them better than one array of
all pairs, and expand the squared distance into a matrix product, which is faster than differences and less exact.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pylazy.bench.cases import NEIGHBOURS, Data, make_data

Work = Callable[[], Any]
BLOCK_PAIRS = 1 << 20
MOST_DENSE_PAIRS = 200_000_000
_PEAK_SIZE = 1024


def make_work(contender: str, formula: str, rows: int, columns: int, dim: int, dtype: str) -> Work:
    """Make the work of one contender: a function without arguments that returns a NumPy array."""
    return CONTENDERS[contender].make(formula, make_data(rows, columns, dim, dtype))


def make_matrix_product(dtype: str) -> Work:
    """Make a product of two square matrices by NumPy's library, which comes near the peak rate of multiply-adds."""
    matrix = np.random.default_rng(0).random((_PEAK_SIZE, _PEAK_SIZE)).astype(dtype)
    return lambda: matrix @ matrix


def matrix_product_rate(seconds: float) -> float:
    """Multiply-adds a second of `make_matrix_product`."""
    return _PEAK_SIZE**3 / seconds


# Symbolic: pylazy and pykeops read the same code ----------------------------------------------------------------------


def _pylazy(formula: str, data: Data) -> Work:
    from pylazy import LazyTensor

    return _on_host(formula, data, LazyTensor, LazyTensor)


def _pykeops(formula: str, data: Data) -> Work:
    from pykeops.numpy import LazyTensor
    from pykeops.torch import LazyTensor as TorchLazyTensor

    return _on_host(formula, data, LazyTensor, TorchLazyTensor)


def _on_host(formula: str, data: Data, lazy: Any, lazy_of_torch: Any) -> Work:
    if formula != "gradient":
        return make_symbolic(formula, lazy, data.x, data.y, data.b)
    work = make_symbolic_gradient(lazy_of_torch, *as_tensors(data, "cpu"))
    return lambda: work().numpy()


def as_tensors(data: Data, device: str) -> tuple[Any, Any, Any, Any]:
    """Put x, y, b and e on a device of torch."""
    import torch

    x, y, b, e = (torch.from_numpy(array).to(device) for array in (data.x, data.y, data.b, data.e))
    return x, y, b, e


def make_symbolic(formula: str, lazy: Any, x_all: Any, y_all: Any, b: Any) -> Work:
    """Make a reduction of LazyTensors, of pylazy or pykeops, on arrays or tensors."""
    x, y = lazy(x_all[:, None, :]), lazy(y_all[None, :, :])
    squared = ((x - y) ** 2).sum(-1)
    if formula == "logsumexp":
        minus = -squared
        return lambda: minus.logsumexp(axis=1)
    if formula == "neighbours":
        return lambda: squared.argKmin(NEIGHBOURS, axis=1)
    if formula == "argmin":
        return lambda: squared.argmin(axis=1)
    kernels = {
        "gaussian": (-squared).exp(),
        "laplacian": (-squared.sqrt()).exp(),
        "multiquadric": (1 + squared).rsqrt(),
    }
    kernel = kernels[formula]
    return lambda: kernel @ b


def make_symbolic_gradient(lazy: Any, x: Any, y: Any, b: Any, e: Any) -> Work:
    """Make the backward sweep of a Gaussian product of LazyTensors of torch, with respect to x."""
    x = x.requires_grad_()
    kernel = (-((lazy(x[:, None, :]) - lazy(y[None, :, :])) ** 2).sum(-1)).exp()
    return make_backward_sweep(kernel @ b, x, e)


def make_backward_sweep(result: Any, x: Any, cotangent: Any) -> Work:
    """Make the gradient of a result with respect to a tensor."""
    import torch

    def backward_sweep() -> Any:
        (gradient,) = torch.autograd.grad(result, x, cotangent, retain_graph=True)
        return gradient

    return backward_sweep


# Dense ----------------------------------------------------------------------------------------------------------------


def _blocks(rows: int, columns: int, pairs: int = BLOCK_PAIRS) -> list[slice]:
    size = max(1, pairs // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _numpy(formula: str, data: Data) -> Work:
    y, b = data.y, data.b
    y_squared = (y**2).sum(axis=1)

    def block(rows: slice) -> Any:
        x = data.x[rows]
        squared = x @ (-2 * y.T)
        squared += (x**2).sum(axis=1)[:, None]
        squared += y_squared
        if formula == "argmin":
            return squared.argmin(axis=1)
        if formula == "neighbours":
            nearest = np.argpartition(squared, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
            order = np.take_along_axis(squared, nearest, axis=1).argsort(axis=1)
            return np.take_along_axis(nearest, order, axis=1)
        if formula == "logsumexp":
            np.negative(squared, out=squared)
            largest = squared.max(axis=1, keepdims=True)
            squared -= largest
            return np.log(np.exp(squared, out=squared).sum(axis=1, keepdims=True)) + largest
        np.maximum(squared, 0, out=squared)
        if formula == "multiquadric":
            squared += 1
            np.sqrt(squared, out=squared)
            return np.reciprocal(squared, out=squared) @ b
        if formula == "laplacian":
            np.sqrt(squared, out=squared)
        np.exp(np.negative(squared, out=squared), out=squared)
        if formula != "gradient":
            return squared @ b
        squared *= b.T
        squared *= data.e[rows]
        return -2 * (x * squared.sum(axis=1, keepdims=True) - squared @ y)

    return lambda: np.concatenate([block(rows) for rows in _blocks(len(data.x), len(data.y))])


def _torch(formula: str, data: Data, *, block_pairs: int = BLOCK_PAIRS) -> Work:
    work = make_torch_blocks(formula, *as_tensors(data, "cpu"), block_pairs=block_pairs)
    return lambda: work().numpy()


def make_torch_blocks(formula: str, x_all: Any, y: Any, b: Any, e: Any, *, block_pairs: int) -> Work:
    """Make a reduction of dense tensors, for as many rows at once as have this many pairs."""
    import torch

    y_squared = y.square().sum(1)

    def block(rows: slice) -> Any:
        x = x_all[rows]
        squared = torch.addmm(y_squared, x, y.T, alpha=-2).add_(x.square().sum(1, keepdim=True))
        if formula == "argmin":
            return squared.argmin(1)
        if formula == "neighbours":
            return squared.topk(NEIGHBOURS, largest=False).indices
        if formula == "logsumexp":
            return squared.neg_().logsumexp(1, keepdim=True)
        squared.clamp_(min=0)
        if formula == "multiquadric":
            return squared.add_(1).rsqrt_() @ b
        if formula == "laplacian":
            squared.sqrt_()
        squared.neg_().exp_()
        if formula != "gradient":
            return squared @ b
        squared.mul_(b.T).mul_(e[rows])
        return -2 * (x * squared.sum(1, keepdim=True) - squared @ y)

    def work() -> Any:
        with torch.no_grad():
            return torch.cat([block(rows) for rows in _blocks(len(x_all), len(y), block_pairs)])

    return work


def _torch_dense(formula: str, data: Data) -> Work:
    pairs = len(data.x) * len(data.y)
    if pairs > MOST_DENSE_PAIRS:
        raise MemoryError(f"{pairs:,} pairs in one array, at most {MOST_DENSE_PAIRS:,} are tried")
    return _torch(formula, data, block_pairs=pairs)


def _jax(formula: str, data: Data) -> Work:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", data.x.dtype == np.float64)
    x_all, y, b, e = (jnp.asarray(array) for array in (data.x, data.y, data.b, data.e))
    dim = data.x.shape[1]

    def row(arguments: Any) -> Any:
        x, weight = arguments
        if dim <= 16:
            squared = sum(jnp.square(x[d] - y[:, d]) for d in range(dim))
        else:
            squared = jnp.maximum(x @ x - 2 * (y @ x) + jnp.square(y).sum(axis=1), 0)
        if formula == "argmin":
            return squared.argmin()
        if formula == "neighbours":
            return jax.lax.top_k(-squared, NEIGHBOURS)[1]
        if formula == "logsumexp":
            return jax.nn.logsumexp(-squared)
        if formula == "multiquadric":
            return jax.lax.rsqrt(1 + squared) @ b
        kernel = jnp.exp(-jnp.sqrt(squared)) if formula == "laplacian" else jnp.exp(-squared)
        if formula != "gradient":
            return kernel @ b
        kernel = kernel * b[:, 0] * weight
        return -2 * (x * kernel.sum() - kernel @ y)

    compiled = jax.jit(lambda x, e: jax.lax.map(row, (x, e), batch_size=max(1, BLOCK_PAIRS // len(data.y))))
    return lambda: np.asarray(compiled(x_all, e))


@dataclass(frozen=True)
class Contender:
    """A way to compute.

    Attributes:
        name: for the tables.
        package: the module that must be installed.
        make: makes the work from the name of the formula and the data.
        environment: variables of its process.
        usual: timed unless others are asked for by name.
    """

    name: str
    package: str
    make: Callable[[str, Data], Work]
    environment: Mapping[str, str] = field(default_factory=dict)
    usual: bool = True

    @property
    def is_installed(self) -> bool:
        """Whether its package can be found."""
        return importlib.util.find_spec(self.package) is not None


_QUIET_KEOPS = {"PYKEOPS_VERBOSE": "0"}
_ONE_JAX_THREAD = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
_TUNED_KEOPS = {**_QUIET_KEOPS, "CXXFLAGS": "-march=native -ffast-math"}

CONTENDERS: Mapping[str, Contender] = {
    row.name: row
    for row in (
        Contender("pylazy", "pylazy", _pylazy),
        Contender("pykeops", "pykeops", _pykeops, _QUIET_KEOPS),
        Contender("pykeops tuned", "pykeops", _pykeops, _TUNED_KEOPS, usual=False),
        Contender("PyTorch", "torch", _torch),
        Contender("PyTorch dense", "torch", _torch_dense, usual=False),
        Contender("NumPy", "numpy", _numpy),
        Contender("JAX", "jax", _jax, _ONE_JAX_THREAD),
    )
}
"""Ways to compute; `pykeops tuned` has other flags of the C++ compiler, `PyTorch dense` one array of all pairs."""
