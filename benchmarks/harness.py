"""Run contenders in processes of their own, in turn, and keep the figures."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PACKAGES = ("pylazy", "numpy", "llvmlite", "torch-mlir", "torch", "pykeops", "jax", "scipy")


@dataclass(frozen=True)
class Sample:
    """One run.

    Attributes:
        wall_seconds: by the clock.
        cpu_seconds: of all threads of the process.
    """

    wall_seconds: float
    cpu_seconds: float


class ContenderError(Exception):
    """A contender raised; the message is its own."""


class Worker:
    """A process that prepares and runs one piece of work at a time.

    Args:
        name: for the reader.
        environment: variables of the process; a package reads many of them when it is imported.
    """

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def prepare(self, make: str, *arguments: Any) -> Sample:
        """Build the work `module:function(*arguments)` and run it once; what it cost, compilation included.

        Raises:
            ContenderError: it could not be built or run.
        """
        return self._ask("prepare", make, arguments)

    def run(self, count: int = 1) -> Sample:
        """Run the work a number of times; the mean of them."""
        return self._ask("run", count)

    def result(self) -> Any:
        """What the last run returned."""
        return self._ask("result")

    def peak_bytes(self) -> int:
        """The largest resident memory that the process ever had."""
        return self._ask("peak_bytes")

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()

    def _ask(self, *message: Any) -> Any:
        self._connection.send(message)
        try:
            state, answer = self._connection.recv()
        except EOFError:
            raise ContenderError("the process died") from None
        if state == "failed":
            raise ContenderError(answer)
        return answer


def _serve(connection: Any) -> None:
    sys.path.insert(0, str(FOLDER))
    output = os.dup2(2, 1)  # pykeops writes on standard output
    del output
    work: Callable[[], Any] = _nothing
    result: Any = None
    while True:
        try:
            kind, *rest = connection.recv()
        except EOFError:
            return
        try:
            if kind == "prepare":
                work = result = None  # the memory of the work before
                module, function = rest[0].split(":")
                work = getattr(importlib.import_module(module), function)(*rest[1])
            if kind == "result":
                answer = result
            elif kind == "peak_bytes":
                answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            else:
                count = rest[0] if kind == "run" else 1
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(count):
                    result = work()
                answer = Sample((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)
            connection.send(("done", answer))
        except Exception as error:  # noqa: BLE001  whatever a contender raises goes to the reader
            connection.send(("failed", "".join(traceback.format_exception_only(error)).strip()))


def _nothing() -> None:
    return None


def interleave(workers: Sequence[Worker], *, repeats: int, count: int = 1) -> dict[str, list[Sample]]:
    """Run prepared workers in turn, so that a disturbance of the machine meets all of them."""
    samples: dict[str, list[Sample]] = {worker.name: [] for worker in workers}
    for _ in range(repeats):
        for worker in workers:
            samples[worker.name].append(worker.run(count))
    return samples


def time_calls(
    name: str, function: str, packages: Sequence[str], *arguments: Any, repeats: int, count: int
) -> dict[str, Any]:
    """Time small calls on one thread, the packages that are installed in turn, and print a line.

    Args:
        name: of the row.
        function: "module:function" that makes the call, from the name of a package and `arguments`.
        packages: the contenders.
        *arguments: what else the function takes.
        repeats: samples of each.
        count: calls in a sample.

    Returns:
        The row: medians of wall and processor time of one call, in microseconds.
    """
    workers = [Worker(package, threads(1)) for package in packages if importlib.util.find_spec(package)]
    for worker in workers:
        worker.prepare(function, worker.name, *arguments)
        worker.run(count)
    samples = interleave(workers, repeats=repeats, count=count)
    figures = {
        worker.name: {
            "wall_microseconds": median_wall(samples[worker.name]) * 1e6,
            "cpu_microseconds": median_cpu(samples[worker.name]) * 1e6,
        }
        for worker in workers
    }
    for worker in workers:
        worker.close()
    print(name, {package: f"{figure['wall_microseconds']:.1f} us" for package, figure in figures.items()})
    return {"name": name, "contenders": figures, "calls": repeats * count}


def median_wall(samples: Sequence[Sample]) -> float:
    """Median wall seconds."""
    return statistics.median(sample.wall_seconds for sample in samples)


def median_cpu(samples: Sequence[Sample]) -> float:
    """Median processor seconds."""
    return statistics.median(sample.cpu_seconds for sample in samples)


def run_snippet(code: str, *arguments: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run code in a fresh Python; the last line that it prints is JSON, and is returned.

    Raises:
        ContenderError: it ended with an error.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ContenderError(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def threads(count: int) -> dict[str, str]:
    """Environment that gives every package this many threads."""
    names = ("PYLAZY_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(count))


def fresh_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for a cache that nothing is in yet."""
    return tempfile.TemporaryDirectory(prefix="pylazy-benchmark-")


# Machine and results --------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    from pylazy.runtime.launch import host_target

    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "level": host_target(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {package: found for package in PACKAGES if (found := _version(package))},
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown processor"
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.*)$", text, re.MULTILINE))
    return f"{fields.get('model name', 'processor')} family {fields.get('cpu family')} model {fields.get('model')}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        pass
    if package == "pylazy":
        import pylazy

        return pylazy.__version__
    return None


def read_arguments(description: str | None) -> argparse.Namespace:
    """Read the command line that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does everything run?")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the JSON file goes")
    parser.add_argument("--only", metavar="TEXT", default="", help="run the rows whose name contains this text")
    parser.add_argument("--repeats", type=int, metavar="COUNT", help="runs of each contender (default: the script's)")
    return parser.parse_args()


def save(script: str, rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> None:
    """Put the rows of one script into the file of this machine and day, beside those of the others."""
    found = machine()
    slug = re.sub(r"[^a-z0-9]+", "-", f"{found['processor']} {found['cores']} cores {found['level']}".lower()).strip(
        "-"
    )
    date = dt.datetime.now(dt.timezone.utc).date().isoformat()
    quick = "-quick" if arguments.quick else ""
    path = arguments.results / f"{slug}-{date}{quick}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(path.read_text()) if path.exists() else {"scripts": {}}
    content["date"] = date
    content["quick"] = arguments.quick
    content["scripts"][script] = {"machine": found, "rows": list(rows)}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"-> {path}")
