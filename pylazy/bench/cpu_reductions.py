"""One case on a CPU: every contender in a process of its own with one thread, in turn."""

from __future__ import annotations

from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pylazy.bench.cases import make_data, relative_error
from pylazy.bench.contenders import CONTENDERS, matrix_product_rate
from pylazy.bench.workers import ContenderError, Worker, interleave, median_cpu, median_wall, threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pylazy.bench.cases import Case


@contextmanager
def single_threaded(names: Sequence[str]) -> Iterator[list[Worker]]:
    """Start the processes of contenders, and end them."""
    with TemporaryDirectory(prefix="pylazy-bench-") as folder:
        workers = []
        for name in names:
            environment = {**threads(1), **CONTENDERS[name].environment}
            if "CXXFLAGS" in environment:
                environment["KEOPS_CACHE_FOLDER"] = folder  # its cache does not know the flags
            workers.append(Worker(name, environment))
        try:
            yield workers
        finally:
            for worker in workers:
                worker.close()


def time_case(case: Case, workers: Sequence[Worker], *, size: int, repeats: int) -> dict[str, Any]:
    """Time one case.

    Args:
        case: the reduction.
        workers: the contenders.
        size: M = N.
        repeats: runs of each contender; figures are medians.

    Returns:
        A row for the results: what was computed, "contenders" with the figures of each, "failures" with messages.
    """
    data = make_data(size, size, case.dim, case.dtype)
    ready, failures = [], {}
    for worker in workers:
        arguments = (worker.name, case.formula, size, size, case.dim, case.dtype)
        try:
            worker.prepare("pylazy.bench.contenders:make_work", *arguments)
        except ContenderError as failure:
            failures[worker.name] = str(failure)
        else:
            ready.append(worker)
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
    return row | {"contenders": figures, "failures": failures, "repeats": repeats}


def multiply_adds_per_second(dtype: str, *, repeats: int = 5) -> float:
    """The most multiply-adds a second that one core was seen to do, in a matrix product of NumPy."""
    worker = Worker("peak", threads(1))
    try:
        worker.prepare("pylazy.bench.contenders:make_matrix_product", dtype)
        return matrix_product_rate(min(worker.run().cpu_seconds for _ in range(repeats)))
    finally:
        worker.close()
