"""The Gaussian product away from the square: few rows, short columns, two threads, a million by a million."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import read_arguments, save

from pylazy.bench.workers import Sample, Worker, interleave, median_cpu, median_wall, threads

if TYPE_CHECKING:
    from collections.abc import Callable

DIM, DTYPE = 3, "float32"
SQUARE = (20_000, 20_000)
LONG = 10_000_000
FEW = (1, 3, 10, 100)
OBLONG = (
    *((f"{few} row{'s' * (few > 1)}", few, LONG) for few in FEW),
    *((f"{few} column{'s' * (few > 1)}", LONG, few) for few in FEW),
)
#: Bytes of the arrays whose reading and writing shows what the memory allows.
STREAMED_BYTES = 160_000_000


def main() -> None:
    """Measure all shapes, or those of one part: oblong, threads, memory."""
    arguments = read_arguments(__doc__)
    quick = arguments.quick
    parts = {
        "oblong": lambda: _oblong(quick, arguments.repeats),
        "threads": lambda: _threads(quick, arguments.repeats),
        "memory": lambda: [_memory(quick)],
    }
    rows = [row for name, part in parts.items() if arguments.only in name for row in part()]
    for row in rows:
        print(row)
    save("shapes", rows, arguments)


def _prepare(worker: Worker, rows: int, columns: int) -> Sample:
    return worker.prepare("pylazy.bench.contenders:make_work", "pylazy", "gaussian", rows, columns, DIM, DTYPE)


def make_reader(count: int) -> Callable[[], Any]:
    """Make the work of reading an array once, by some threads."""
    pool = ThreadPoolExecutor(count)
    parts = np.array_split(np.arange(STREAMED_BYTES // 8, dtype=np.int64), count)
    return lambda: list(pool.map(np.bitwise_or.reduce, parts))


def make_writer(count: int) -> Callable[[], Any]:
    """Make the work of writing an array in memory that has been used before, as a result is, by some threads."""
    pool = ThreadPoolExecutor(count)
    parts = np.array_split(np.zeros(STREAMED_BYTES // 4, np.float32), count)
    return lambda: list(pool.map(lambda part: part.fill(1), parts))


def _streams(count: int) -> list[Worker]:
    workers = [Worker("reader", threads(1)), Worker("writer", threads(1))]
    for worker in workers:
        worker.prepare(f"shapes:make_{worker.name}", count)
    return workers


def _traffic(rows: int, columns: int) -> tuple[int, int]:
    """Count the bytes that have to be read and written, each once: x, y and b; the result."""
    number = np.dtype(DTYPE).itemsize
    return number * (DIM * rows + (DIM + 1) * columns), number * rows


def _oblong(quick: bool, repeats: int | None) -> list[dict[str, Any]]:
    """Compare long shapes with a square, and with the memory, on one core and on all; all by processor time."""
    return [row for count in sorted({1, _cores()}) for row in _oblong_on(count, quick, repeats)]


def _oblong_on(count: int, quick: bool, repeats: int | None) -> list[dict[str, Any]]:
    square, oblong = Worker("square", threads(count)), Worker("oblong", threads(count))
    workers = [square, oblong, *_streams(count)]
    _prepare(square, *SQUARE)
    found = []
    for name, *extents in OBLONG:
        rows, columns = (extent // 100 if quick and extent > 100 else extent for extent in extents)
        _prepare(oblong, rows, columns)
        samples = interleave(workers, repeats=repeats or (3 if quick else 15))
        streamed = {name: median_cpu(samples[name]) for name in ("reader", "writer")}
        square_rate = SQUARE[0] * SQUARE[1] / median_cpu(samples["square"])
        wall, cpu = median_wall(samples["oblong"]), median_cpu(samples["oblong"])
        read, written = _traffic(rows, columns)
        part_of_square_rate = rows * columns / cpu / square_rate
        part_of_memory_rate = (read * streamed["reader"] + written * streamed["writer"]) / STREAMED_BYTES / cpu
        found.append(
            {
                "name": f"{name}: {rows:,} x {columns:,}",
                "threads": count,
                "wall_seconds": wall,
                "cpu_seconds": cpu,
                "gpairs_per_second": rows * columns / wall * 1e-9,
                "gpairs_per_core_second": rows * columns / cpu * 1e-9,
                "part_of_square_rate": part_of_square_rate,
                "part_of_memory_rate": part_of_memory_rate,
                "memory_part_of_square_rate": part_of_square_rate / part_of_memory_rate,
                "bytes_read": read,
                "bytes_written": written,
                "read_gigabytes_per_core_second": STREAMED_BYTES / streamed["reader"] * 1e-9,
                "written_gigabytes_per_core_second": STREAMED_BYTES / streamed["writer"] * 1e-9,
                "cores_used": cpu / wall,
            }
        )
    for worker in workers:
        worker.close()
    return found


def _threads(quick: bool, repeats: int | None) -> list[dict[str, Any]]:
    """Compare one thread with all."""
    cores = _cores()
    workers = [Worker("one", threads(1)), Worker("all", threads(cores))]
    found = []
    for size in (1_000, 5_000) if quick else (100, 500, 1_000, 5_000, 30_000):
        for worker in workers:
            _prepare(worker, size, size)
        count = max(1, 2_000_000 // size**2)
        samples = interleave(workers, repeats=repeats or (5 if quick else 9), count=count)
        one, both = median_wall(samples["one"]), median_wall(samples["all"])
        found.append(
            {
                "name": f"threads: {size:,} x {size:,}",
                "one_thread_seconds": one,
                "all_threads_seconds": both,
                "threads": cores,
                "speedup": one / both,
            }
        )
    for worker in workers:
        worker.close()
    return found


def _memory(quick: bool) -> dict[str, Any]:
    """Find the peak memory of a large problem, beyond that of the same process on a small one."""
    size = 100_000 if quick else 1_000_000
    worker = Worker("memory", threads(_cores()))
    _prepare(worker, 100, 100)
    before = worker.peak_bytes()
    sample = _prepare(worker, size, size)
    after = worker.peak_bytes()
    worker.close()
    return {
        "name": f"memory: {size:,} x {size:,}",
        "wall_seconds": sample.wall_seconds,
        "gpairs_per_second": size**2 / sample.wall_seconds * 1e-9,
        "peak_bytes": after,
        "peak_bytes_beyond_small_problem": after - before,
        "data_bytes": 4 * size * (2 * DIM + 2 + 1),
        "dense_array_bytes": 4 * size**2,
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
