"""The image of a program for an NVIDIA GPU: its code, and how its kernels are launched.

Its file is that of a kernel image, with another magic; the code is PTX, then a cubin where there is one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from pylazy.runtime.image_format import (
    fields_of,
    read_image,
    read_records,
    require,
    require_choice,
    require_int,
    require_text,
    write_image,
)
from pylazy.runtime.kernel import AXES, MAX_PHASES, Buffer, check_buffers, check_provenance

GPU_MAGIC = b"PLZG"
GPU_FORMAT_VERSION = 1
#: The parameters of a kernel fill at most 4096 bytes ("CUDA C++ Programming Guide"): a pointer and a stride for each
#: buffer, and four extents.
MAX_GPU_BUFFERS = (4096 - 32) // 16

_TARGET = re.compile(r"sm_[0-9]{2,3}[a-z]?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_THREADS = 1024


class GpuKernel(NamedTuple):
    """One kernel of a GPU program, and how to launch it.

    Its parameters are the pointers of all buffers of the program; then, as int64, for each buffer the bytes from one
    element of the batch to the next, 0 to repeat it; then, as int64, rows, columns, columns of a split, and splits.
    Blocks along x are rows, along y splits, along z elements of a batch. Blocks have `block_threads` threads along x;
    workgroup memory is static.

    Attributes:
        name: of the entry.
        rows: "i", "j" or "": the extent that is cut into blocks.
        columns: "i", "j" or "": the extent that is reduced; "" for a map.
        rows_per_block: rows of one block.
        tile_columns: columns that pass through workgroup memory at once: splits are multiples of them.
        block_threads: threads of one block.
        blocks_per_processor: blocks that fit on a multiprocessor at once.
        splittable: whether the columns may be cut into splits; the next kernel then merges them, if they leave states
            to merge: a kernel that only stores values of pairs has none.
        merges: whether this kernel merges the splits of the one before; not launched when there is one split.
        workgroup_bytes: static workgroup memory of a block, for information.
        tile_table: number of the buffer that lists the rows of each block; -1 where they are cut from the extent.
    """

    name: str
    rows: str
    columns: str
    rows_per_block: int
    tile_columns: int
    block_threads: int
    blocks_per_processor: int
    splittable: bool
    merges: bool
    workgroup_bytes: int
    tile_table: int = -1


@dataclass(frozen=True)
class GpuImage:
    """A formula compiled for NVIDIA GPUs: kernels in the order in which they have to run, over one list of buffers.

    Attributes:
        target: "sm_90" and the like: the oldest architecture that runs it.
        text: PTX.
        kernels: in their order.
        buffers: in the order of the pointers that every kernel receives.
        cubin: the PTX assembled for the target; empty where there was no assembler.
        provenance: versions and flags of what made it.

    Raises:
        KernelFormatError: a field breaks a rule of the format; the message names the rule.
    """

    target: str
    text: str = field(repr=False)
    kernels: tuple[GpuKernel, ...]
    buffers: tuple[Buffer, ...]
    cubin: bytes = field(default=b"", repr=False)
    provenance: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Freeze the provenance; check every rule, so that no malformed image exists."""
        _check_image(self)
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __reduce__(self) -> tuple[Callable[[bytes], "GpuImage"], tuple[bytes]]:
        """Copy and pickle through the checked format."""
        return GpuImage.from_bytes, (self.to_bytes(),)

    @property
    def arguments(self) -> tuple[Buffer, ...]:
        """The buffers that the caller brings: inputs, outputs and tables, in order."""
        return tuple(buffer for buffer in self.buffers if buffer.role != "scratch")

    def to_bytes(self) -> bytes:
        """The image as bytes; equal images give equal bytes."""
        text = self.text.encode()
        header = {
            "target": self.target,
            "ptx_bytes": len(text),
            "kernels": [fields_of(kernel) for kernel in self.kernels],
            "buffers": [fields_of(buffer) for buffer in self.buffers],
            "provenance": dict(sorted(self.provenance.items())),
        }
        return write_image(GPU_MAGIC, GPU_FORMAT_VERSION, header, text + self.cubin)

    @staticmethod
    def from_bytes(data: bytes) -> "GpuImage":
        """Read what `to_bytes` wrote.

        Raises:
            KernelFormatError: the bytes are not an image of this version; the message names the rule that they break.
        """
        keys = ("target", "ptx_bytes", "kernels", "buffers", "provenance")
        header, code = read_image(data, GPU_MAGIC, GPU_FORMAT_VERSION, keys)
        length = header["ptx_bytes"]
        require_int(length, 1, len(code), what="ptx_bytes")
        require(code[:length].isascii(), "PTX is not ASCII")
        return GpuImage(
            target=header["target"],
            text=code[:length].decode(),
            kernels=read_records(header["kernels"], GpuKernel, what="kernel"),
            buffers=read_records(header["buffers"], Buffer, what="buffer"),
            cubin=code[length:],
            provenance=header["provenance"],
        )


def _check_image(image: GpuImage) -> None:
    require_text(image.target, what="target")
    require(_TARGET.fullmatch(image.target) is not None, f"target is {image.target!r}, expected sm_<number>")
    require_text(image.text, what="PTX")
    require("\0" not in image.text and bool(image.text), "PTX is empty, or has a character 0")
    require(type(image.cubin) is bytes, "cubin is not a bytes object")
    check_buffers(image.buffers)
    require(len(image.buffers) <= MAX_GPU_BUFFERS, f"more than {MAX_GPU_BUFFERS} buffers, on a GPU")
    require(
        type(image.kernels) is tuple and 1 <= len(image.kernels) <= MAX_PHASES,
        f"{len(image.kernels)} kernels, expected 1 to {MAX_PHASES}",
    )
    for index, kernel in enumerate(image.kernels):
        _check_kernel(kernel, image.buffers, what=f"kernel {index}")
        before = image.kernels[index - 1] if index else None
        merged = before is not None and before.splittable and before.rows == kernel.rows
        require(not kernel.merges or merged, f"kernel {index} merges, but the one before it is not splittable")
    check_provenance(image.provenance)


def _check_kernel(kernel: GpuKernel, buffers: tuple[Buffer, ...], *, what: str) -> None:
    require(type(kernel) is GpuKernel, f"{what} is not a GpuKernel")
    require_text(kernel.name, what=f"name of {what}")
    require(_NAME.fullmatch(kernel.name) is not None, f"name of {what} is {kernel.name!r}, no identifier")
    require_choice(kernel.rows, AXES, what=f"rows of {what}")
    require_choice(kernel.columns, AXES, what=f"columns of {what}")
    for name, most in {
        "rows_per_block": 1 << 31,
        "tile_columns": 1 << 31,
        "block_threads": _MAX_THREADS,
        "blocks_per_processor": _MAX_THREADS,
    }.items():
        require_int(getattr(kernel, name), 1, most, what=f"{name} of {what}")
    require_int(kernel.workgroup_bytes, 0, 1 << 31, what=f"workgroup_bytes of {what}")
    for name in ("splittable", "merges"):
        require(type(getattr(kernel, name)) is bool, f"{name} of {what} is not a boolean")
    require(not (kernel.splittable and kernel.merges), f"{what} is splittable and merges")
    require_int(kernel.tile_table, -1, len(buffers) - 1, what=f"tile_table of {what}")
    if kernel.tile_table >= 0:
        table = buffers[kernel.tile_table]
        fits = (table.role, table.axis) == ("table", kernel.rows)
        require(fits, f"tile_table of {what} is no table of axis {kernel.rows!r}")
        require(not kernel.merges, f"{what} has a tile_table, and merges")
