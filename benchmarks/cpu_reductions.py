"""Pairs per core-second of the usual reductions, beside pykeops, PyTorch, NumPy and JAX.

Each contender runs in a process of its own, with one thread, and they take turns. The figure is processor time, which
a busy machine disturbs least; wall time is kept beside it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from harness import read_arguments, save

from pylazy.bench.cases import CASES
from pylazy.bench.contenders import CONTENDERS
from pylazy.bench.cpu_reductions import single_threaded, time_case

if TYPE_CHECKING:
    from collections.abc import Mapping


def main() -> None:
    """Time every case."""
    arguments = read_arguments(__doc__)
    repeats = arguments.repeats or (3 if arguments.quick else 7)
    names = [row.name for row in CONTENDERS.values() if row.is_installed and row.name != "PyTorch dense"]
    if arguments.quick and "pykeops tuned" in names:
        names.remove("pykeops tuned")  # ten more runs of the C++ compiler
    rows = []
    with single_threaded(names) as workers:
        for case in CASES:
            if arguments.only in case.name:
                size = case.rows // 10 if arguments.quick else case.rows
                rows.append(time_case(case, workers, size=size, repeats=repeats))
                _print(rows[-1])
    save("cpu_reductions", rows, arguments)


def _print(row: Mapping[str, Any]) -> None:
    for name, failure in row["failures"].items():
        print(f"{row['name']}: {name} failed: {failure}", file=sys.stderr)
    ours = row["contenders"].get("pylazy")
    print(row["name"], f"M=N={row['rows']}", flush=True)
    for name, figure in row["contenders"].items():
        ratio = "" if ours is None else f"{figure['cpu_seconds'] / ours['cpu_seconds']:7.1f}"
        print(
            f"  {name:14} {figure['gpairs_per_core_second']:7.3f} Gpair/s per core"
            f"   wall {figure['wall_seconds']:.4f} s   time / pylazy's {ratio}   error {figure['relative_error']:.1e}"
        )


if __name__ == "__main__":
    main()
