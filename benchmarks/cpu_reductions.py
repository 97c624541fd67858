"""Pairs per core-second of the usual reductions, beside pykeops, PyTorch, NumPy and JAX.

Each contender runs in a process of its own, with one thread, and they take turns. The figure is processor time, which
a busy machine disturbs least; wall time is kept beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from cases import CASES, Case, make_data, relative_error
from harness import (
    ContenderError,
    Worker,
    fresh_folder,
    interleave,
    median_cpu,
    median_wall,
    read_arguments,
    save,
    threads,
)

PACKAGES = {"pykeops": "pykeops", "pykeops tuned": "pykeops", "PyTorch": "torch", "NumPy": "numpy", "JAX": "jax"}
TUNED_FLAGS = "-march=native -ffast-math"


def main() -> None:
    """Time every case."""
    arguments = read_arguments(__doc__)
    repeats = arguments.repeats or (3 if arguments.quick else 7)
    names = ["pylazy", *(name for name, package in PACKAGES.items() if importlib.util.find_spec(package))]
    if arguments.quick and "pykeops tuned" in names:
        names.remove("pykeops tuned")  # ten more runs of the C++ compiler
    with fresh_folder() as tuned_cache:
        workers = [Worker(name, _environment(name, tuned_cache)) for name in names]
        rows = [_row(case, workers, arguments.quick, repeats) for case in CASES if arguments.only in case.name]
        for worker in workers:
            worker.close()
    save("cpu_reductions", rows, arguments)


def _environment(name: str, tuned_cache: str) -> dict[str, str]:
    environment = threads(1)
    if name == "pykeops tuned":
        environment |= {"CXXFLAGS": TUNED_FLAGS, "KEOPS_CACHE_FOLDER": tuned_cache}
    if name == "JAX":
        environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    return environment


def _row(case: Case, workers: list[Worker], quick: bool, repeats: int) -> dict[str, Any]:
    size = case.rows // 10 if quick else case.rows
    data = make_data(size, size, case.dim, case.dtype)
    ready, failures = [], {}
    for worker in workers:
        failure = _prepare(worker, case, size)
        if failure is None:
            ready.append(worker)
        else:
            failures[worker.name] = failure
            print(f"{case.name}: {worker.name} failed: {failure}", file=sys.stderr)
    samples = interleave(ready, repeats=repeats)
    figures = {}
    for worker in ready:
        cpu = median_cpu(samples[worker.name])
        figures[worker.name] = {
            "wall_seconds": median_wall(samples[worker.name]),
            "cpu_seconds": cpu,
            "gpairs_per_core_second": size**2 / cpu * 1e-9,
            "relative_error": relative_error(case.formula, data, worker.result()),
        }
    row = {"name": case.name, "rows": size, "dim": case.dim, "dtype": case.dtype, "limit": case.limit}
    row |= {"contenders": figures, "failures": failures, "repeats": repeats}
    ours = figures.get("pylazy")
    print(case.name, f"M=N={size}", flush=True)
    for name, figure in figures.items():
        ratio = "" if ours is None else f"{figure['cpu_seconds'] / ours['cpu_seconds']:7.1f}"
        print(
            f"  {name:14} {figure['gpairs_per_core_second']:7.3f} Gpair/s per core"
            f"   wall {figure['wall_seconds']:.4f} s   time / pylazy's {ratio}   error {figure['relative_error']:.1e}"
        )
    return row


def _prepare(worker: Worker, case: Case, size: int) -> str | None:
    try:
        worker.prepare("contenders:make_work", worker.name, case.formula, size, size, case.dim, case.dtype)
    except ContenderError as failure:
        return str(failure)
    return None


if __name__ == "__main__":
    main()
