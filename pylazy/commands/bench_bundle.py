"""`pylazy bench`: how fast the functions of a bundle are here, at every CPU level that this machine has."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.bundling.bundled_functions import load_bundle
from pylazy.bundling.bundled_programs import LEVEL_VARIABLE, chosen_level
from pylazy.commands.console import show_json, show_table, standard_output
from pylazy.commands.run_bundle import choose_function
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.launch import is_runnable
from pylazy.runtime.threads import get_num_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pylazy.bundling.bundled_functions import BundledFunction
    from pylazy.runtime.manifest import Function

_REPEATS = 9


def bench_bundle(
    path: Path, *, name: str, rows: int, columns: int, trust: bool, sha256: str | None, as_json: bool
) -> None:
    """Time functions on random data.

    Args:
        path: the bundle.
        name: of the function; empty for all.
        rows: M.
        columns: N.
        trust: take the file whoever may have written it.
        sha256: the hash that the file must have.
        as_json: report for programs.
    """
    measured = []
    for level in _levels():
        bundle = load_bundle(path, trust=trust, sha256=sha256)
        for function in [choose_function(bundle, name)] if name else list(bundle.values()):
            if any(code.target == level for code in bundle.file.kernels[function.function.kernel].code):
                with _only(level):
                    measured.append(_measure(function, level, rows, columns))
    if as_json:
        show_json({"rows": rows, "columns": columns, "threads": get_num_threads(), "measured": measured})
        return
    console = standard_output()
    title = f"M = {rows:,}, N = {columns:,}, {get_num_threads()} threads, {_REPEATS} runs"
    table = [
        (found["function"], found["level"], found["milliseconds"], found["spread"], found["gigapairs_per_second"])
        for found in measured
    ]
    show_table(console, title, ("function", "level", "median ms", "quartiles apart, ms", "Gpair/s"), table)


def _levels() -> list[str]:
    """The levels that may be used here, the chosen one first."""
    chosen = chosen_level()
    return [chosen, *(level for level in CPU_LEVELS if level != chosen and is_runnable(level))]


@contextmanager
def _only(level: str) -> Iterator[None]:
    """Let functions take the code of this level."""
    before = os.environ.get(LEVEL_VARIABLE)
    os.environ[LEVEL_VARIABLE] = level
    try:
        yield
    finally:
        del os.environ[LEVEL_VARIABLE]
        if before is not None:
            os.environ[LEVEL_VARIABLE] = before


def _random_arguments(function: Function, rows: int, columns: int) -> dict[str, Any]:
    """Make the arguments of a call; where it brings the pairs to reduce, these are all."""
    random = np.random.default_rng(0)
    extents = {"i": (rows,), "j": (columns,), "": (), "ij": (rows, columns), "ji": (columns, rows)}
    made: dict[str, Any] = {}
    for argument in function.arguments:
        if argument.default:
            continue
        values = random.random((*extents[argument.axis], argument.dim)).astype(function.dtype)
        # A complex array is given as two arguments of one name.
        made[argument.name] = made.get(argument.name, 0) + (1j * values if argument.part == "imag" else values)
    if function.ranged:
        one, i, j = np.array([1]), np.array([[0, rows]]), np.array([[0, columns]])
        made["ranges"] = (i, one, j, j, one, i)
    return made


def _measure(function: BundledFunction, level: str, rows: int, columns: int) -> dict[str, Any]:
    arrays = _random_arguments(function.function, rows, columns)
    function(**arrays)
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        function(**arrays)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4)
    return {
        "function": function.function.name,
        "level": level,
        "milliseconds": round(median * 1e3, 3),
        "spread": round((high - low) * 1e3, 3),
        "gigapairs_per_second": round(rows * columns / median / 1e9, 3),
    }
