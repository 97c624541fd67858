"""The Gaussian product away from the square: few rows, short columns, two threads, a million by a million."""

from __future__ import annotations

import os
from typing import Any

from harness import read_arguments, save

from pylazy.bench.workers import Sample, Worker, interleave, median_cpu, median_wall, threads

DIM, DTYPE = 3, "float32"
SQUARE = (20_000, 20_000)
OBLONG = (
    ("one row", 1, 10_000_000),
    ("10 rows", 10, 10_000_000),
    ("100 rows", 100, 10_000_000),
    ("one column", 10_000_000, 1),
    ("10 columns", 10_000_000, 10),
    ("100 columns", 10_000_000, 100),
)


def main() -> None:
    """Measure all shapes."""
    arguments = read_arguments(__doc__)
    quick = arguments.quick
    rows = [*_oblong(quick, arguments.repeats), *_threads(quick, arguments.repeats), _memory(quick)]
    for row in rows:
        print(row)
    save("shapes", rows, arguments)


def _prepare(worker: Worker, rows: int, columns: int) -> Sample:
    return worker.prepare("pylazy.bench.contenders:make_work", "pylazy", "gaussian", rows, columns, DIM, DTYPE)


def _oblong(quick: bool, repeats: int | None) -> list[dict[str, Any]]:
    """Compare the rate of long shapes with that of a square, with all cores."""
    cores = _cores()
    square, oblong = Worker("square", threads(cores)), Worker("oblong", threads(cores))
    _prepare(square, *SQUARE)
    found = []
    for name, *extents in OBLONG:
        rows, columns = (extent // 100 if quick and extent > 100 else extent for extent in extents)
        _prepare(oblong, rows, columns)
        samples = interleave([square, oblong], repeats=repeats or (3 if quick else 7))
        wall = median_wall(samples["oblong"])
        rate = rows * columns / wall
        found.append(
            {
                "name": f"{name}: {rows:,} x {columns:,}",
                "wall_seconds": wall,
                "gpairs_per_second": rate * 1e-9,
                "part_of_square_rate": rate / (SQUARE[0] * SQUARE[1] / median_wall(samples["square"])),
                "cores_used": median_cpu(samples["oblong"]) / wall,
            }
        )
    square.close()
    oblong.close()
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
