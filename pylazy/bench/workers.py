"""Processes that run one contender each, in turn."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import statistics
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


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
        sample: Sample = self._ask("prepare", make, arguments)
        return sample

    def run(self, count: int = 1) -> Sample:
        """Run the work a number of times; the mean of them."""
        sample: Sample = self._ask("run", count)
        return sample

    def result(self) -> Any:
        """What the last run returned."""
        return self._ask("result")

    def peak_bytes(self) -> int:
        """The largest resident memory that the process ever had."""
        return int(self._ask("peak_bytes"))

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
                work, result = _nothing, None  # the memory of the work before
                module, function = rest[0].split(":")
                work = getattr(importlib.import_module(module), function)(*rest[1])
            if kind == "result":
                answer = result
            elif kind == "peak_bytes":
                import resource  # not on Windows

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


def median_wall(samples: Sequence[Sample]) -> float:
    """Median wall seconds."""
    return statistics.median(sample.wall_seconds for sample in samples)


def median_cpu(samples: Sequence[Sample]) -> float:
    """Median processor seconds."""
    return statistics.median(sample.cpu_seconds for sample in samples)


def threads(count: int) -> dict[str, str]:
    """Environment that gives every package this many threads."""
    names = ("PYLAZY_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(count))
