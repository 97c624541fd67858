"""Measure the error and the speed of the compiled elementary functions.

    python benchmarks/math_accuracy.py exp                 all 2^32 inputs of f32, on the best level of this machine
    python benchmarks/math_accuracy.py log --level x86-64 --chunks 16
    python benchmarks/math_accuracy.py exp --cycles        nanoseconds and cycles for one vector register

The reference is NumPy in float64 (for f32 inputs), whose error is below 1e-8 ulp of float32.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "compiler")]

import math_harness as harness  # noqa: E402  (the path comes first)

from pylazy.compiler.target import CpuTarget  # noqa: E402

CHUNKS = 256
NUMPY_NAME: Mapping[str, Callable[..., npt.NDArray[Any]]] = {
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "roundeven": np.rint,
    "round": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


def error_in_ulp(result: npt.NDArray[Any], exact: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the error of f32 results in units of the last place; inf where special values differ."""
    rounded = exact.astype(np.float32)
    ulp = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, np.float32(1))))
    error = np.abs(result.astype(np.float64) - exact) / ulp
    same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    return np.where(np.isfinite(error), error, np.where(same, 0.0, np.inf))


def measure_error(name: str, *, level: str, chunks: int) -> None:
    """Print the largest error over `chunks` of the 256 chunks of all bit patterns."""
    function = harness.compile_function(name, dtype="float32", level=level, lanes=CpuTarget(level).lanes(32))
    reference = NUMPY_NAME.get(name, getattr(np, name, None))
    if reference is None:
        raise SystemExit(f"{name} has no reference in NumPy")
    size = 2**32 // CHUNKS
    worst, worst_at, total, count = 0.0, 0.0, 0.0, 0
    for chunk in np.linspace(0, CHUNKS - 1, chunks).astype(np.int64):
        x = np.arange(chunk * size, (chunk + 1) * size, dtype=np.uint32).view(np.float32)
        with np.errstate(all="ignore"):
            error = error_in_ulp(function(x), reference(x.astype(np.float64)))
        total, count = total + float(error[np.isfinite(error)].sum()), count + size
        at = int(np.argmax(error))
        if error[at] > worst:
            worst, worst_at = float(error[at]), float(x[at])
    print(f"{name} f32 {level}: max {worst:.3f} ulp at {worst_at!r}, mean {total / count:.3f}, {count} inputs")


def measure_cycles(name: str, *, level: str, dtype: str, gigahertz: float) -> None:
    """Print the time of one vector register, from 4096 numbers that stay in the cache."""
    bits = 32 if dtype == "float32" else 64
    lanes = CpuTarget(level).lanes(bits)
    function = harness.compile_function(name, dtype=dtype, level=level, lanes=lanes)
    x = np.linspace(0.1, 10, 4096).astype(dtype)
    out = np.empty_like(x)
    source, destination = x.ctypes.data, out.ctypes.data
    best = float("inf")
    for _ in range(20):
        start = time.thread_time_ns()
        for _ in range(50):
            function.kernel(source, source, destination, x.size // lanes)  # type: ignore[attr-defined]
        best = min(best, (time.thread_time_ns() - start) / 50)
    nanoseconds = best * lanes / x.size
    print(f"{name} {dtype} {level}: {nanoseconds:.2f} ns, {nanoseconds * gigahertz:.1f} cycles for {lanes} numbers")


def main() -> None:
    """Read the command line."""
    levels = harness.levels_of_this_machine()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=harness.UNARY)
    parser.add_argument("--level", choices=levels, default=levels[-1])
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="of 256; evenly spread")
    parser.add_argument("--cycles", action="store_true")
    parser.add_argument("--gigahertz", type=float, default=3.69, help="the clock, to turn time into cycles")
    arguments = parser.parse_args()
    if arguments.cycles:
        for dtype in ("float32", "float64"):
            measure_cycles(arguments.name, level=arguments.level, dtype=dtype, gigahertz=arguments.gigahertz)
    else:
        measure_error(arguments.name, level=arguments.level, chunks=arguments.chunks)


if __name__ == "__main__":
    main()
