"""Bundles: bytes, seconds to build, milliseconds to load and to a first result in a new process.

Times in new processes are with bytecode, as installed packages have it, and are given twice: as the system runs them,
and with one thread for all packages, as OpenBLAS starts its threads when NumPy is imported.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import read_arguments, run_snippet, save, threads

import pylazy
from pylazy import Pm, Vi, Vj
from pylazy.bundling.bundle_compiler import DEFAULT_TARGETS
from pylazy.execution.programs import host_target

ALL_TARGETS = (*DEFAULT_TARGETS, "sm_75", "sm_80", "sm_90", "sm_100")

FIRST_RESULT = """
import json, sys, time

def now():
    return time.perf_counter(), time.process_time()

start = now()
import numpy as np
numpy = now()
import pylazy
pylazy.load_bundle
imported = now()
function = pylazy.load_bundle(sys.argv[1]).gaussian
loaded = now()
x = np.ones((1000, 3), np.float32)
function(x, x, x[:, :1], 0.5)
done = now()
marks = {"numpy": (start, numpy), "import": (numpy, imported), "load": (imported, loaded), "first": (loaded, done)}
marks["all"] = (start, done)
times = {name: end[0] - begin[0] for name, (begin, end) in marks.items()}
times |= {f"{name}_cpu": end[1] - begin[1] for name, (begin, end) in marks.items()}
print(json.dumps(times))
"""


def gaussian(*, gradients: bool) -> pylazy.Bundle:
    """A Gaussian product in 3 dimensions, float32."""
    x, y, b, width = Vi(0, 3), Vj(1, 3), Vj(2, 1), Pm(3, 1)
    bundle = pylazy.Bundle()
    reduction = ((-x.sqdist(y) / width).exp() * b).sum(axis=1)
    bundle.add(reduction, name="gaussian", dtype="float32", arguments=("x", "y", "b", "width"), gradients=gradients)
    return bundle


def measure_build() -> list[dict[str, Any]]:
    """Build bundles of one formula."""
    gaussian(gradients=False).compile(["x86-64"])  # loads the compiler
    rows = []
    for gradients in (False, True):
        for what, targets in (("host level", [host_target()]), ("all targets", ALL_TARGETS)):
            bundle = gaussian(gradients=gradients)
            start = time.process_time()
            bundle.compile(targets)
            seconds = time.process_time() - start
            size = len(bundle.to_bytes())
            rows.append({"what": what, "gradients": gradients, "cpu_seconds": round(seconds, 2), "bytes": size})
    return rows


def measure_load(repeats: int) -> list[dict[str, Any]]:
    """Load a bundle with all targets and gradients in new processes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "k.plzb")
        gaussian(gradients=True).compile(ALL_TARGETS).save(path)
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(folder) / "bytecode")}
        for what, environment in (("first result", bytecode), ("first result, one thread", {**bytecode, **threads(1)})):
            run_snippet(FIRST_RESULT, path, environment=environment)
            found = [run_snippet(FIRST_RESULT, path, environment=environment) for _ in range(repeats)]
            medians = {name: round(1e3 * statistics.median(row[name] for row in found), 1) for name in found[0]}
            rows.append({"what": what, **{f"{name}_ms": value for name, value in medians.items()}})
    return rows


def measure_call(repeats: int) -> dict[str, Any]:
    """Call a bundled function and the live reduction on 10 rows and 10 columns."""
    x = np.ones((10, 3), np.float32)
    arguments = (x, x, x[:, :1].copy(), np.array([0.5], np.float32))
    live = ((-Vi(0, 3).sqdist(Vj(1, 3)) / Pm(3, 1)).exp() * Vj(2, 1)).sum(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "k.plzb"
        gaussian(gradients=False).compile([host_target()]).save(path)
        function = pylazy.load_bundle(path).gaussian
        found = {}
        for name, call in (("bundle", function), ("live", live)):
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                for _ in range(1000):
                    call(*arguments)
                seconds.append(time.perf_counter() - start)
            found[f"{name}_call_us"] = round(1e3 * statistics.median(seconds), 1)
    return found


if __name__ == "__main__":
    options = read_arguments(__doc__)
    repeats = options.repeats or (2 if options.quick else 9)
    table = [*measure_build(), *measure_load(repeats), measure_call(repeats)]
    for row in table:
        print(row)
    save("bundles", table, options)
