"""The one place that imports MLIR's Python bindings.

The bindings are taken from a package named `mlir` where that is a real build, otherwise from `torch_mlir`
(the packages called `mlir` and `mlir-python-bindings` on PyPI are empty placeholders). `PYLAZY_MLIR_ROOT` names
another root. Dialect modules are imported when first used: `from pylazy.compiler.mlir import arith`.
"""

import functools
import importlib
import importlib.util
import os
import threading
from typing import TYPE_CHECKING, Any

from pylazy.runtime.errors import InternalError

if TYPE_CHECKING:
    from torch_mlir import ir, rewrite
    from torch_mlir.dialects import arith, ext, func, gpu, llvm, math, memref, nvvm, scf, vector
    from torch_mlir.passmanager import PassManager

__all__ = [
    "PassManager",
    "arith",
    "dialect_load_lock",
    "ext",
    "find_dialects_in",
    "func",
    "gpu",
    "ir",
    "llvm",
    "math",
    "memref",
    "mlir_root",
    "new_context",
    "nvvm",
    "rewrite",
    "scf",
    "vector",
]

#: `Dialect.load()` of the bindings keeps its module in a class attribute: two threads in it crash the process.
dialect_load_lock = threading.Lock()

_DIALECTS = frozenset({"arith", "ext", "func", "gpu", "llvm", "math", "memref", "nvvm", "scf", "vector"})


@functools.cache
def mlir_root() -> str:
    """Name the package that carries the bindings.

    Raises:
        InternalError: no package with bindings is installed.
    """
    chosen = os.environ.get("PYLAZY_MLIR_ROOT")
    if chosen:
        return chosen
    for root in ("mlir", "torch_mlir"):
        if _has_bindings(root):
            return root
    raise InternalError(
        "MLIR's Python bindings are not installed: found neither `mlir` nor `torch_mlir`; "
        "install them with `pip install torch-mlir==20261001`"
    )


def _has_bindings(root: str) -> bool:
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        return False
    return any(os.path.isdir(os.path.join(folder, "_mlir_libs")) for folder in spec.submodule_search_locations)


def __getattr__(name: str) -> Any:
    if name == "PassManager":
        value = importlib.import_module(f"{mlir_root()}.passmanager").PassManager
    elif name in {"ir", "rewrite"}:
        value = importlib.import_module(f"{mlir_root()}.{name}")
    elif name in _DIALECTS:
        value = importlib.import_module(f"{mlir_root()}.dialects.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def new_context() -> "ir.Context":
    """Make a context that is safe to use from Python passes (one thread; text of any dialect may be printed)."""
    context = __getattr__("ir").Context()
    context.enable_multithreading(False)
    return context


@functools.cache
def find_dialects_in(package: str) -> None:
    """Let the bindings look for the module of a dialect in this package too.

    They look it up by the dialect's name for every op that they wrap; without this, a dialect that is not part of MLIR
    costs a failing import each time.
    """
    importlib.import_module(f"{mlir_root()}._mlir_libs._mlir").globals.append_dialect_search_prefix(package)
