"""Memory of the PTX interpreter: every access is checked before it happens.

Global memory is a row of allocations between guard gaps; workgroup memory is one piece for each block. Both are kept
in words of four bytes, the smallest that our kernels touch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ptx_text import PtxError, Variable

Array = Any  # an ndarray
WORD = 4
#: Bytes between allocations, where no access is right.
GUARD_BYTES = 4096
#: Where the first allocation lies: far from zero, and beyond 32 bits.
_BASE = 0x7F00_0000_0000
_WORKGROUP_BASE = 1024
_NEVER, _HOST, _SEVERAL = -2, -1, -3


class GlobalMemory:
    """Copies of arrays, as a kernel sees them.

    Args:
        arrays: name -> array, in the order of the addresses.
        unwritten: names of those that hold nothing yet: reading them is a fault.
    """

    def __init__(self, arrays: Mapping[str, Array], *, unwritten: frozenset[str] = frozenset()) -> None:
        self._arrays = dict(arrays)
        starts, end = [], GUARD_BYTES
        for array in self._arrays.values():
            starts.append(end)
            end += -(-array.nbytes // 256) * 256 + GUARD_BYTES
        self.words = np.full(end // WORD, 0xFFFFFFFF, np.uint32)
        self.author = np.full(end // WORD, _NEVER, np.int64)
        self._starts = np.array(starts, np.int64)
        self._ends = self._starts + [array.nbytes for array in self._arrays.values()]
        for (name, array), place in zip(self._arrays.items(), self._places(), strict=True):
            if name not in unwritten:
                self.words[place] = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
                self.author[place] = _HOST

    def _places(self) -> list[slice]:
        return [slice(start // WORD, end // WORD) for start, end in zip(self._starts, self._ends, strict=True)]

    def addresses(self) -> list[int]:
        """Give the address of each array."""
        return [_BASE + int(start) for start in self._starts]

    def arrays(self) -> dict[str, Array]:
        """Give what the memory holds now."""
        return {
            name: self.words[place].view(array.dtype).reshape(array.shape)
            for (name, array), place in zip(self._arrays.items(), self._places(), strict=True)
        }

    def end_launch(self) -> None:
        """Let later launches see what this one wrote."""
        self.author[self.author >= 0] = _HOST

    def locate(self, addresses: Array, size: int) -> Array:
        """Check bounds and alignment of accesses of `size` bytes; give their word numbers."""
        offsets = addresses - _BASE
        if (offsets % size).any():
            raise PtxError(
                f"an access of {size} bytes is not aligned: address {int(addresses[offsets % size != 0][0]):#x}"
            )
        owner = np.searchsorted(self._starts, offsets, side="right") - 1
        wrong = (owner < 0) | (offsets + size > self._ends[owner])
        if wrong.any():
            raise PtxError(self._describe(int(offsets[wrong][0]), int(owner[wrong][0])))
        return offsets // WORD

    def _describe(self, offset: int, owner: int) -> str:
        if owner < 0:
            return f"an access {int(self._starts[0]) - offset} bytes before the first buffer"
        name, beyond = list(self._arrays)[owner], offset - int(self._ends[owner])
        return f"an access {beyond} bytes after the end of {name}"

    def check_read(self, words: Array, threads: Array, *, constant: bool) -> None:
        """Check that words hold something, which no other thread of this launch wrote."""
        author = self.author[words]
        if (author == _NEVER).any():
            raise PtxError("a read of global memory that nothing was written to")
        if (author >= 0).any() and (constant or (author != threads)[author >= 0].any()):
            raise PtxError("a read of global memory that this launch writes: by another thread, or through .nc")

    def check_write(self, words: Array, threads: Array) -> None:
        """Check that no other thread of this launch wrote the words; note who does."""
        author = self.author[words]
        if ((author >= 0) & (author != threads)).any():
            raise PtxError("two threads write the same word of global memory")
        self.author[words] = threads
        if (self.author[words] != threads).any():
            raise PtxError("two threads write the same word of global memory")


class WorkgroupMemory:
    """Workgroup memory of all blocks, with what happened to each word since the last barrier."""

    def __init__(self, variables: Mapping[str, Variable], blocks: int) -> None:
        self.addresses: dict[str, int] = {}
        end = _WORKGROUP_BASE
        spans = []
        for name, variable in variables.items():
            start = -(-end // max(variable.alignment, WORD)) * max(variable.alignment, WORD)
            self.addresses[name] = start
            spans.append((start, start + variable.size))
            end = start + variable.size + GUARD_BYTES
        self._starts = np.array([start for start, _ in spans], np.int64)
        self._ends = np.array([stop for _, stop in spans], np.int64)
        self.stride = -(-end // 16) * 16 // WORD
        self.words = np.zeros(blocks * self.stride, np.uint32)
        self._written = np.zeros(blocks * self.stride, bool)
        # Who wrote and who read a word, and in which epoch: the number of barriers that its block has passed.
        self._writer, self._write_epoch, self._reader, self._read_epoch = (
            np.full(blocks * self.stride, -1, np.int64) for _ in range(4)
        )
        self.epoch = np.zeros(blocks, np.int64)

    def locate(self, addresses: Array, size: int, blocks: Array) -> Array:
        """Check bounds and alignment of accesses of `size` bytes; give their word numbers."""
        if (addresses % size).any():
            raise PtxError(f"an access of {size} bytes to workgroup memory is not aligned")
        owner = np.searchsorted(self._starts, addresses, side="right") - 1
        if not len(self._ends) or (owner < 0).any() or (addresses + size > self._ends[owner]).any():
            raise PtxError("an access outside of workgroup memory")
        return addresses // WORD + blocks * self.stride

    def check_read(self, words: Array, threads: Array, blocks: Array) -> None:
        """Check that words were written, and not by another thread since the last barrier; note who reads."""
        if not self._written[words].all():
            raise PtxError("a read of workgroup memory that nothing was written to")
        epoch = self.epoch[blocks]
        if ((self._write_epoch[words] == epoch) & (self._writer[words] != threads)).any():
            raise PtxError("a race: a read of what another thread wrote after the last barrier")
        earlier = np.where(self._read_epoch[words] == epoch, self._reader[words], threads)
        self._read_epoch[words] = epoch
        self._reader[words] = threads
        shared = (earlier != threads) | (self._reader[words] != threads)
        self._reader[words[shared]] = _SEVERAL

    def check_write(self, words: Array, threads: Array, blocks: Array) -> None:
        """Check that no other thread read or wrote the words since the last barrier; note who writes."""
        epoch = self.epoch[blocks]
        if ((self._write_epoch[words] == epoch) & (self._writer[words] != threads)).any():
            raise PtxError("a race: two threads write the same word of workgroup memory between barriers")
        if ((self._read_epoch[words] == epoch) & (self._reader[words] != threads)).any():
            raise PtxError("a race: a write to what another thread read after the last barrier")
        self._written[words] = True
        self._write_epoch[words] = epoch
        self._writer[words] = threads
        if (self._writer[words] != threads).any():
            raise PtxError("a race: two threads write the same word of workgroup memory between barriers")
