"""Processor seconds until a formula's first result: never seen, and from the disk cache of another process."""

from __future__ import annotations

import importlib.util
import os
import statistics
from typing import TYPE_CHECKING, Any

from harness import fresh_folder, read_arguments, run_snippet, save

from pylazy.bench.workers import ContenderError, threads

if TYPE_CHECKING:
    import argparse

FORMULAS = {
    "Gaussian D=3": ("3", "(-squared).exp().sum(axis=1)"),
    "Gaussian D=16": ("16", "(-squared).exp().sum(axis=1)"),
    "Gaussian D=64": ("64", "(-squared).exp().sum(axis=1)"),
    "Gaussian D=1000": ("1000", "(-squared).exp().sum(axis=1)"),
    "logsumexp D=3": ("3", "(-squared).logsumexp(axis=1)"),
    "10 nearest D=3": ("3", "squared.argKmin(10, axis=1)"),
}

# What the code below prints: processor seconds, the children's included, since pykeops runs a compiler in one.
FIRST_RESULT = """
import json, os, sys, time
def now():
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system
def clock():
    return time.process_time() if package == "pylazy" else now()
package, dim, formula, warm = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "warm"
began = clock()
import numpy as np
after_numpy = clock()
if package == "pylazy":
    from pylazy import LazyTensor
else:
    from pykeops.numpy import LazyTensor
after_import = clock()
x = np.ones((20, dim), np.float32)
y = np.ones((20, dim), np.float32)
def squared_distance():
    return ((LazyTensor(x[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1)
if warm:
    (squared_distance() * 0.5).sum(axis=1)  # another formula first: the compiler is loaded, this one is not known
before = clock()
squared = squared_distance()
eval(formula)
print()
print(json.dumps({
    "numpy": after_numpy - began,
    "package": after_import - after_numpy,
    "first_result": clock() - before,
    "mlir_is_loaded": any(name.split(".")[0] in ("torch_mlir", "mlir", "llvmlite") for name in sys.modules),
}))
"""

IMPORT_PYLAZY = """
import json, sys, time
import numpy
began = time.process_time()
import pylazy
print(json.dumps({"seconds": time.process_time() - began, "modules": sorted(
    {name.split(".")[0] for name in sys.modules} & {"torch", "torch_mlir", "llvmlite", "mlir"})}))
"""


def main() -> None:
    """Measure imports, cold formulas, cached formulas."""
    arguments = read_arguments(__doc__)
    repeats = arguments.repeats or (1 if arguments.quick else 5)
    with fresh_folder() as bytecode:
        # As installed, modules come with their bytecode; a checkout may not have it, or may be told to write none.
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode, **threads(1)}
        _formula("warm-up", *FORMULAS["Gaussian D=3"], 1)
        rows = _rows(arguments, repeats)
    for row in rows:
        print(row)
    save("compile_time", rows, arguments)


def _rows(arguments: argparse.Namespace, repeats: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    imports = [run_snippet(IMPORT_PYLAZY, environment={}) for _ in range(repeats + 2)]
    rows.append(
        {
            "name": "import pylazy, beyond NumPy",
            "cpu_seconds": statistics.median(found["seconds"] for found in imports),
            "also_loaded": imports[0]["modules"],
        }
    )
    for name, (dim, formula) in FORMULAS.items():
        if arguments.only in name:
            rows.append(_formula(name, dim, formula, repeats))
    if not arguments.quick and importlib.util.find_spec("pykeops"):
        rows.append(_pykeops("Gaussian D=3", *FORMULAS["Gaussian D=3"]))
    return rows


def _formula(name: str, dim: str, formula: str, repeats: int) -> dict[str, Any]:
    never_seen, first_of_process, from_disk = [], [], []
    for _ in range(repeats):
        with fresh_folder() as cache:
            environment = {"PYLAZY_CACHE_DIR": cache}
            first_of_process.append(run_snippet(FIRST_RESULT, "pylazy", dim, formula, "", environment=environment))
            from_disk.append(run_snippet(FIRST_RESULT, "pylazy", dim, formula, "", environment=environment))
        with fresh_folder() as cache:
            environment = {"PYLAZY_CACHE_DIR": cache}
            never_seen.append(run_snippet(FIRST_RESULT, "pylazy", dim, formula, "warm", environment=environment))
    return {
        "name": name,
        "never_seen_cpu_seconds": _median(never_seen, "first_result"),
        "never_seen_with_compiler_import_cpu_seconds": _median(first_of_process, "first_result"),
        "from_disk_cpu_seconds": _median(from_disk, "first_result"),
        "from_disk_with_imports_cpu_seconds": _median(from_disk, "package") + _median(from_disk, "first_result"),
        "from_disk_loads_mlir": from_disk[0]["mlir_is_loaded"],
    }


def _pykeops(name: str, dim: str, formula: str) -> dict[str, Any]:
    with fresh_folder() as cache:
        environment = {"KEOPS_CACHE_FOLDER": cache}
        try:
            found = run_snippet(FIRST_RESULT, "pykeops", dim, formula, "warm", environment=environment)
        except ContenderError as failure:
            return {"name": f"pykeops, {name}", "failed": str(failure)}
    return {"name": f"pykeops, {name}", "never_seen_cpu_seconds": found["first_result"]}


def _median(samples: list[dict[str, Any]], key: str) -> float:
    return statistics.median(float(sample[key]) for sample in samples)


if __name__ == "__main__":
    main()
