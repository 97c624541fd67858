"""Microseconds of a call on 10 rows and 10 columns, where the work is nothing and the road is all."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import read_arguments, save, time_calls

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 10


def _arrays(kind: str) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(0)
    arrays = [random.random((SIZE, dim)).astype(np.float32) for dim in (3, 3, 1)]
    if kind == "torch":
        import torch

        arrays = [torch.from_numpy(array) for array in arrays]
    x, y, b = arrays
    return x, y, b


def _lazy_class(package: str, kind: str) -> Any:
    if package == "pylazy":
        from pylazy import LazyTensor

        return LazyTensor
    return importlib.import_module(f"pykeops.{kind}").LazyTensor


def build_and_reduce(package: str, kind: str) -> Callable[[], Any]:
    """Make both LazyTensors, the formula and its product with b, all anew at each call."""
    lazy, (x, y, b) = _lazy_class(package, kind), _arrays(kind)

    def work() -> Any:
        return (-((lazy(x[:, None, :]) - lazy(y[None, :, :])) ** 2).sum(-1)).exp() @ b

    return work


def product_of_ready_kernel(package: str, kind: str) -> Callable[[], Any]:
    """Multiply a kernel that was built before."""
    lazy, (x, y, b) = _lazy_class(package, kind), _arrays(kind)
    kernel = (-((lazy(x[:, None, :]) - lazy(y[None, :, :])) ** 2).sum(-1)).exp()
    return lambda: kernel @ b


def compiled_reduction(package: str, kind: str) -> Callable[[], Any]:
    """Call a reduction that was compiled before."""
    lazy, (x, y, _) = _lazy_class(package, kind), _arrays(kind)
    return (-((lazy(x[:, None, :]) - lazy(y[None, :, :])) ** 2).sum(-1)).exp().sum(axis=1, call=False).lower().compile()


def dense(package: str, kind: str) -> Callable[[], Any]:
    """Compute the same with arrays of all pairs."""
    del kind
    x, y, b = _arrays(package)
    if package == "torch":
        return lambda: (-((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)).exp() @ b
    return lambda: np.exp(-((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)) @ b


ROWS = (
    ("build a LazyTensor formula and reduce it, NumPy", "build_and_reduce", ("pylazy", "pykeops"), "numpy"),
    ("build a LazyTensor formula and reduce it, PyTorch", "build_and_reduce", ("pylazy", "pykeops"), "torch"),
    ("K @ b with a ready K, NumPy", "product_of_ready_kernel", ("pylazy", "pykeops"), "numpy"),
    ("compiled Reduction, NumPy", "compiled_reduction", ("pylazy",), "numpy"),
    ("compiled Reduction, PyTorch", "compiled_reduction", ("pylazy",), "torch"),
    ("dense arrays", "dense", ("numpy", "torch"), ""),
)


def main() -> None:
    """Time every kind of call."""
    arguments = read_arguments(__doc__)
    repeats, count = (5, 50) if arguments.quick else (25, 400)
    repeats = arguments.repeats or repeats
    rows = [
        time_calls(name, f"call_overhead:{function}", packages, kind, repeats=repeats, count=count)
        for name, function, packages, kind in ROWS
        if arguments.only in name
    ]
    save("call_overhead", rows, arguments)


if __name__ == "__main__":
    main()
