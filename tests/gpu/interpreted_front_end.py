"""The front end on the PTX interpreter: within `on_interpreter`, every program runs as PTX in place of CPU code."""

import ctypes
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from gpu_program import GpuProgram

from pylazy.execution.programs import Executable
from pylazy.trace import trace

Array = Any  # an ndarray


class InterpretedProgram:
    """What `Program` of the runtime is, of PTX: it takes addresses, and writes the results there."""

    def __init__(self, request: Any, *, processors: int) -> None:
        self.program = GpuProgram(trace(request), processors=processors)
        buffers = self.program.module.buffers
        self.arguments = tuple(buffer for buffer in buffers if buffer.role != "scratch")
        self.image = SimpleNamespace(arguments=self.arguments)

    def run(
        self, pointers: Sequence[int], rows: int, columns: int, batch: Sequence[int] = (), strides: Any = ()
    ) -> None:
        """Run one element of a batch after the other."""
        extents = {"i": rows, "j": columns, "": 1, "ij": rows * columns}
        for place in itertools.product(*map(range, batch)):
            arrays = []
            for number, (pointer, buffer) in enumerate(zip(pointers, self.arguments, strict=True)):
                start = pointer + (sum(a * b for a, b in zip(place, strides[number], strict=True)) if batch else 0)
                if buffer.role == "table":
                    arrays.append(_table_at(start))
                else:
                    arrays.append(_array_at(start, (extents[buffer.axis], buffer.dim), buffer.dtype))
            given = [array for array, buffer in zip(arrays, self.arguments, strict=True) if buffer.role == "input"]
            tables = [array for array, buffer in zip(arrays, self.arguments, strict=True) if buffer.role == "table"]
            outputs = [array for array, buffer in zip(arrays, self.arguments, strict=True) if buffer.role == "output"]
            found = self.program.run(given, rows=rows, columns=columns, tables=tables, outputs=outputs)
            for array, result in zip(outputs, found, strict=True):
                array[...] = result


def _array_at(pointer: int, shape: tuple[int, int], dtype: str) -> Array:
    count = shape[0] * shape[1] * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(pointer), dtype).reshape(shape)


def _table_at(pointer: int) -> Array:
    """View a table: it ends where the last of its tiles does."""
    tiles = int(_array_at(pointer, (1, 1), "int64")[0, 0])
    ends = _array_at(pointer, (2 + 4 * tiles, 1), "int64")[5::4, 0]
    return _array_at(pointer, (max(2 + 4 * tiles, int(ends.max(initial=0))), 1), "int64")


@contextmanager
def on_interpreter(*, processors: int = 0) -> Iterator[list[InterpretedProgram]]:
    """Compile and run every program for a GPU, and give them as they are made.

    Args:
        processors: multiprocessors of the device: with many, columns are split, with none they are not.
    """
    programs: dict[Any, InterpretedProgram] = {}
    made: list[InterpretedProgram] = []

    def load(executable: Executable, _few: str = "") -> InterpretedProgram:
        if executable not in programs:
            programs[executable] = InterpretedProgram(executable.request, processors=processors)
            made.append(programs[executable])
        return programs[executable]

    with mock.patch.object(Executable, "load", load):
        yield made
