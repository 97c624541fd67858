"""Stands in for `pykeops`: version, verbosity, the folder of compiled kernels, and a check of the installation."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pylazy
from pylazy.runtime.kernel_cache import default_cache, default_directory
from pylazy.runtime.launch import host_target
from pylazy.runtime.threads import get_num_threads

__version__ = f"2.3+pylazy{pylazy.__version__}"

default_device_id = 0
numpy_found = find_spec("numpy") is not None
show_cuda_status = False
torch_found = find_spec("torch") is not None
verbose = os.environ.get("PYKEOPS_VERBOSE") != "0"

_MODULES = ("common", "config", "numpy", *(("torch",) if torch_found else ()))
_EXPECTED = [63.0, 90.0]  # sums over i of |x_i - y_j|^2 for the points of the two checks


def __getattr__(name: str) -> Any:
    """Import a module of pykeops when it is first used: `import pykeops` alone gives them all."""
    if name not in _MODULES:
        raise AttributeError(f"module 'pykeops', for which pylazy stands in, has no attribute {name!r}", name=name)
    return import_module(f"pykeops.{name}")


def set_verbose(val: bool) -> None:
    """Say whether the checks of the installation print what they found."""
    global verbose
    verbose = val


def get_build_folder() -> str:
    """Where compiled kernels are kept; empty if the cache is switched off."""
    return default_directory() or ""


def set_build_folder(path: str | os.PathLike[str] | None = None) -> None:
    """Keep compiled kernels in another folder, by default in that of the platform, here and in child processes."""
    if path is None:
        os.environ.pop("PYLAZY_CACHE_DIR", None)
    else:
        os.environ["PYLAZY_CACHE_DIR"] = os.fspath(path)
    cache = default_cache()
    cache.clear_memory()
    cache.directory = default_directory()


def clean_pykeops(recompile_jit_binaries: bool = True) -> None:
    """Remove the compiled kernels; `recompile_jit_binaries` is accepted, there are none."""
    del recompile_jit_binaries
    default_cache().clear()


def check_health() -> None:
    """Print what the programs run on; `pylazy info` says more."""
    print(f"pylazy {pylazy.__version__} under the names of pykeops, Python {platform.python_version()}")
    print(f"processor: {host_target()}, {get_num_threads()} threads")
    print(f"kernels: {get_build_folder() or 'not kept'}")


def test_numpy_bindings() -> None:
    """Reduce a small formula over NumPy arrays, and print whether the result is right."""
    import numpy as np

    x = np.arange(1, 10, dtype=np.float32).reshape(-1, 3)
    y = np.arange(3, 9, dtype=np.float32).reshape(-1, 3)
    _report(_sum_of_distances(x, y), "numpy")


def test_torch_bindings() -> None:
    """Reduce a small formula over torch tensors, and print whether the result is right."""
    import torch

    x = torch.arange(1, 10, dtype=torch.float32).view(-1, 3)
    y = torch.arange(3, 9, dtype=torch.float32).view(-1, 3)
    _report(_sum_of_distances(x, y), "torch")


def _sum_of_distances(x: Any, y: Any) -> list[float]:
    found: list[float] = pylazy.Genred("SqNorm2(x - y)", ["x = Vi(3)", "y = Vj(3)"])(x, y).reshape(-1).tolist()
    return found


def _report(found: list[float], backend: str) -> None:
    if verbose:
        right = f"pyKeOps with {backend} bindings is working!"
        print(right if found == _EXPECTED else f"outputs wrong values: {found}, expected {_EXPECTED}")
