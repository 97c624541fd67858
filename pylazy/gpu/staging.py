"""Reductions of host arrays on a GPU: copied there in blocks that fit, the results copied back."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.arrays.memory_layout import numpy_address
from pylazy.arrays.results import empty_result, result_address
from pylazy.arrays.sources import Located
from pylazy.gpu.launches import Target, argument_strides, launch_on, sizes_of
from pylazy.runtime.errors import DeviceError
from pylazy.runtime.gpu_devices import DeviceMemory, free_memory, synchronize
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Source
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.programs import Executable, Extents
    from pylazy.runtime.gpu_launch import GpuProgram, GpuSizes
    from pylazy.runtime.kernel import Buffer

_STREAM = 0  # the default stream: all copies and launches of this module are in its order
_ALIGNMENT = 256
#: Of the free memory of a device, what one reduction takes at most.
_SHARE = 0.8


class HostArrays:
    """A place for reductions: the arrays lie on the host, the work is done on a GPU."""

    def __init__(self, kind: str, device: int) -> None:
        """Choose a device for arrays of the kind "numpy", "torch" or "dlpack"."""
        self._kind = kind
        self._device = device

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate a result on the host."""
        return empty_result(self._kind, shape, dtype)

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Any:
        """Make a result of equal elements."""
        result = self.empty(shape, dtype)
        result[...] = value
        return result

    def delivered(self, result: Any) -> Any:
        """Give a result that was launched to the user."""
        return result

    def locate(self, source: Source, dtype: str, tensor: Any = None) -> Located:
        """Find the data of an input on the host; `tensor` takes its place where it is given."""
        return source.locate(dtype) if tensor is None else source.locate_tensor(tensor, dtype)

    def load(self, executable: Executable) -> GpuProgram:
        """Find the program for the GPU."""
        return executable.load_gpu(self._device)

    def launch(
        self,
        program: GpuProgram,
        inputs: Sequence[Located],
        results: Sequence[Any],
        extents: Extents,
        ranges: Ranges | None = None,
        *,
        indices: str = "",
    ) -> None:
        """Run a program and wait for its results.

        Raises:
            DeviceError: there is no such GPU, it has not enough memory, or its driver fails.
        """
        buffers = program.image.arguments
        tables = []
        if ranges is not None:
            axes = [buffer.axis for buffer in buffers if buffer.role == "table"]
            sizes_of_table = (extents.rows or 1, extents.columns or 1)
            tables = [ranges.gpu_table(axis, *sizes_of_table).words for axis in axes]
        strides = argument_strides(
            inputs, [(tuple(result.shape), _item_bytes(result)) for result in results], len(tables), extents.batch
        )
        addresses = [
            *(located.pointer for located in inputs),
            *(result_address(result) for result in results),
            *(numpy_address(table) for table in tables),
        ]
        lengths = [None] * (len(inputs) + len(results)) + [table.nbytes for table in tables]
        tiles = [0] * (len(inputs) + len(results)) + [int(table[0]) for table in tables] if tables else []
        copies = [_Argument(*row) for row in zip(buffers, addresses, strides, lengths, strict=True)]
        _Staged(self._device, program, copies, tiles, frozenset(indices)).run(extents)


class _Argument(NamedTuple):
    """An argument of a program on the host.

    Attributes:
        buffer: what the program says of it.
        address: of the first element of the batch.
        strides: bytes to the next element, for each dimension of the batch.
        length: bytes of a table, which no size tells; else None.
    """

    buffer: Buffer
    address: int
    strides: tuple[int, ...]
    length: int | None = None

    def bytes_of_element(self, extents: Extents) -> int:
        """The bytes of one element of the batch."""
        if self.length is not None:
            return self.length
        rows, columns = extents.rows or 1, extents.columns or 1
        return {"": 1, "i": rows, "j": columns, "ij": rows * columns}[self.buffer.axis] * self.buffer.row_bytes

    def shape_of_batch(self, batch: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes of the batch, 1 where the argument repeats."""
        return tuple(size if stride else 1 for size, stride in zip(batch, self.strides, strict=True))


class _Staged:
    """One reduction on its way through a device."""

    def __init__(
        self,
        device: int,
        program: GpuProgram,
        arguments: Sequence[_Argument],
        tiles: Sequence[int],
        indices: frozenset[str],
    ) -> None:
        self._device = device
        self._program = program
        self._arguments = arguments
        self._tiles = tiles
        self._indices = indices
        self._budget = int(_SHARE * free_memory(device))

    def run(self, extents: Extents) -> None:
        """Compute everything at once where it fits; else each element of the batch; else blocks of rows."""
        if self._fits(extents):
            self._compute(extents, self._arguments, {})
            return
        for element in itertools.product(*map(range, extents.batch)):
            arguments = [self._at(argument, element) for argument in self._arguments]
            self._run_element(extents._replace(batch=()), arguments)

    def _at(self, argument: _Argument, element: tuple[int, ...]) -> _Argument:
        offset = sum(index * stride for index, stride in zip(element, argument.strides, strict=True))
        return argument._replace(address=argument.address + offset, strides=())

    def _run_element(self, extents: Extents, arguments: Sequence[_Argument]) -> None:
        if self._fits(extents):
            self._compute(extents, arguments, {})
            return
        axis = self._axis_of_blocks(extents)
        count = (extents.rows if axis == "i" else extents.columns) or 1
        length = count
        while not self._fits(_cut(extents, axis, length)):
            if length == 1:
                self._refuse(extents)
            length = -(-length // 2)
        shared: dict[int, DeviceMemory] = {}
        for first in range(0, count, length):
            block = _cut(extents, axis, min(length, count - first))
            moved = [
                argument._replace(address=argument.address + first * argument.buffer.row_bytes)
                if argument.buffer.axis == axis
                else argument
                for argument in arguments
            ]
            self._compute(block, moved, shared, axis)

    def _axis_of_blocks(self, extents: Extents) -> str:
        """The axis whose rows can be computed some at a time: all results have it, and nothing else counts its rows."""
        axes = {argument.buffer.axis for argument in self._arguments if argument.buffer.role == "output"}
        has_more = any(argument.buffer.axis == "ij" or argument.buffer.role == "table" for argument in self._arguments)
        if len(axes) != 1 or has_more or not axes <= {"i", "j"} or axes & self._indices:
            self._refuse(extents)
        return axes.pop()

    def _refuse(self, extents: Extents) -> None:
        needed = sum(argument.bytes_of_element(extents) for argument in self._arguments)
        raise DeviceError(
            at_user_line(
                f"GPU {self._device} has {self._budget} bytes for a reduction that needs more than {needed} at once, "
                "and cannot be cut further: reduce a part at a time, or with backend='CPU'"
            )
        )

    def _sizes(self, extents: Extents, arguments: Sequence[_Argument]) -> GpuSizes:
        strides = [self._strides_on_device(argument, extents) for argument in arguments]
        return sizes_of(self._device, extents, strides, self._tiles)

    def _strides_on_device(self, argument: _Argument, extents: Extents) -> tuple[int, ...]:
        step = argument.bytes_of_element(extents)
        strides = []
        for size in reversed(argument.shape_of_batch(extents.batch) if argument.strides else ()):
            strides.append(step if size > 1 else 0)
            step *= size
        return tuple(reversed(strides)) or (0,) * len(extents.batch)

    def _bytes(self, argument: _Argument, extents: Extents) -> int:
        shape = argument.shape_of_batch(extents.batch) if argument.strides and extents.batch else ()
        return math.prod(shape) * argument.bytes_of_element(extents)

    def _fits(self, extents: Extents) -> bool:
        arguments = [argument if extents.batch else argument._replace(strides=()) for argument in self._arguments]
        sizes = [-(-self._bytes(argument, extents) // _ALIGNMENT) * _ALIGNMENT for argument in arguments]
        scratch = self._program.scratch_bytes(self._sizes(extents, arguments))
        return sum(sizes) + scratch <= self._budget

    def _allocate(self, size: int) -> DeviceMemory:
        return DeviceMemory(size, device=self._device, stream=_STREAM)

    def _compute(
        self,
        extents: Extents,
        arguments: Sequence[_Argument],
        shared: dict[int, DeviceMemory],
        axis: str | None = None,
    ) -> None:
        """Copy, launch, copy back and wait.

        Args:
            extents: sizes of this part.
            arguments: on the host.
            shared: copies of inputs that parts have in common, by the number of the argument; grows.
            axis: the one that is cut; None where nothing is.
        """
        memory = []
        for number, argument in enumerate(arguments):
            copied = shared.get(number)
            if copied is None:
                copied = self._allocate(self._bytes(argument, extents))
                if argument.buffer.role != "output":
                    self._fill(copied, argument, extents)
                if axis is not None and argument.buffer.axis != axis:
                    shared[number] = copied
            memory.append(copied)
        scratch = []

        def allocate(size: int) -> Located:
            scratch.append(self._allocate(size))
            return Located(scratch[-1].address, (), (), scratch[-1])

        target = Target(self._device, _STREAM, allocate)
        addresses = [copied.address for copied in memory]
        launch_on(target, self._program, addresses, self._sizes(extents, arguments))
        for argument, copied in zip(arguments, memory, strict=True):
            if argument.buffer.role == "output":
                copied.read(argument.address, self._bytes(argument, extents))
        synchronize(self._device, _STREAM)

    def _fill(self, memory: DeviceMemory, argument: _Argument, extents: Extents) -> None:
        """Copy every element of the batch that the argument has, one after the other."""
        size = argument.bytes_of_element(extents)
        shape = argument.shape_of_batch(extents.batch) if argument.strides else ()
        for place, element in enumerate(itertools.product(*map(range, shape))):
            memory.fill(self._at(argument, element).address if shape else argument.address, size, offset=place * size)


def _cut(extents: Extents, axis: str, length: int) -> Extents:
    return extents._replace(rows=length) if axis == "i" else extents._replace(columns=length)


def _item_bytes(result: Any) -> int:
    return int(result.itemsize if hasattr(result, "itemsize") else result.element_size())
