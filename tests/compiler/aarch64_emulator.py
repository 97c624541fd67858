"""Run a kernel image for aarch64 under qemu: a whole Linux program, made of the image, a stub and the data.

There is no cross compiler and no linker: the program is one segment at a fixed address, so that the stub, which LLVM
compiles from the few lines written here, knows the address of everything.
"""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pylazy.compiler.codegen.native_image import flatten
from pylazy.compiler.codegen.native_object import emit_object
from pylazy.compiler.target import CpuTarget
from pylazy.runtime.kernel import Buffer, KernelImage, Phase

Array = Any  # an ndarray

_BASE = 0x400000
_PAGE_BYTES = 4096
_STUB_BYTES = 4 * _PAGE_BYTES
_WRITE, _EXIT = 64, 93  # numbers of Linux system calls on aarch64


def find_emulator() -> "str | None":
    """Give the path of qemu's user mode for aarch64, None where it is not installed."""
    return shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


class _Memory:
    """What follows the stub in the program: bytes, each piece at its alignment."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.content = bytearray()

    def add(self, data: bytes, alignment: int = 64) -> int:
        """Place data; give its address."""
        self.content += bytes(-len(self.content) % alignment)
        address = self.begin + len(self.content)
        self.content += data
        return address


def run(
    image: KernelImage, inputs: Sequence[Array], *, m: int, n: int, columns_per_split: int, emulator: str
) -> list[Array]:
    """Run all phases of an image one after another.

    Returns:
        The outputs, one array of rows each.
    """
    memory = _Memory(_BASE + _STUB_BYTES)
    code = memory.add(image.code, _PAGE_BYTES)
    extents = {"i": m, "j": n, "": 1}
    splits = max([_splits(phase, extents, columns_per_split) for phase in image.phases])
    given, pointers, outputs = list(inputs), [], []
    for buffer in image.buffers:
        if buffer.role == "input":
            data = given.pop(0).tobytes()
            pointers.append(memory.add(data))
        else:
            rows = extents[buffer.axis] * (splits if buffer.per_split else 1)
            pointers.append(memory.add(bytes([0xA5]) * (rows * buffer.row_bytes)))
            if buffer.role == "output":
                outputs.append((buffer, pointers[-1], rows))
    table = memory.add(struct.pack(f"{len(pointers)}q", *pointers))
    lines = []
    for phase in image.phases:
        rows, columns = extents[phase.rows], extents[phase.columns]
        own_splits = splits if phase.merges else _splits(phase, extents, columns_per_split)
        if phase.merges and splits == 1:
            continue
        per_split = columns_per_split if phase.splittable and own_splits > 1 else max(columns, 1)
        sizes = memory.add(struct.pack("4q", rows, columns, per_split, own_splits))
        tiles = -(-rows // phase.rows_per_tile) * (1 if phase.merges else own_splits)
        arguments = f"ptr {_pointer(table)}, ptr {_pointer(sizes)}, i64 0, i64 {tiles}"
        lines.append(f"call void {_pointer(code + phase.entry)}({arguments})")
    write, leave = (memory.add(_system_call(number)) for number in (_WRITE, _EXIT))
    for buffer, address, rows in outputs:
        size = rows * buffer.row_bytes
        lines.append(f"call void {_pointer(write)}(i64 1, ptr {_pointer(address)}, i64 {size})")
    lines.append(f"call void {_pointer(leave)}(i64 0)")
    written = _execute(_program(lines, memory), emulator)
    return _split_outputs(written, outputs)


def _splits(phase: Phase, extents: dict[str, int], columns_per_split: int) -> int:
    return max(-(-extents[phase.columns] // columns_per_split), 1) if phase.splittable else 1


def _pointer(address: int) -> str:
    return f"inttoptr (i64 {address} to ptr)"


def _system_call(number: int) -> bytes:
    """Write a function that passes its arguments to the system: movz x8, number; svc 0; ret."""
    return struct.pack("<3I", 0xD2800008 | number << 5, 0xD4000001, 0xD65F03C0)


def _program(lines: list[str], memory: _Memory) -> bytes:
    """Write an ELF executable with one segment: headers, stub, and all the rest."""
    text = "\n  ".join(["define void @start() {", *lines, "unreachable", "}"])
    stub = flatten(emit_object(text, target=CpuTarget("aarch64")))
    first = _PAGE_BYTES
    size = _STUB_BYTES + len(memory.content)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,
        183,
        1,
        _BASE + first + stub.entries["start"],
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, _PAGE_BYTES)
    program = (header + segment).ljust(first, b"\0") + stub.code
    assert len(program) <= _STUB_BYTES
    return program.ljust(_STUB_BYTES, b"\0") + bytes(memory.content)


def _execute(program: bytes, emulator: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        path.write_bytes(program)
        path.chmod(0o700)
        done = subprocess.run([emulator, str(path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"the program ended with {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def _split_outputs(written: bytes, outputs: "list[tuple[Buffer, int, int]]") -> list[Array]:
    found, begin = [], 0
    for buffer, _, rows in outputs:
        size = rows * buffer.row_bytes
        found.append(np.frombuffer(written[begin : begin + size], buffer.dtype).reshape(rows, buffer.dim))
        begin += size
    assert begin == len(written)
    return found
