"""The kernel image: the format that the compiler writes and the runtime loads; see `image_format` for its file."""

import math
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

MAGIC = b"PLZK"
FORMAT_VERSION = 1
CPU_LEVELS = ("x86-64", "x86-64-v3", "x86-64-v4", "aarch64")
DTYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "int32": 4, "int64": 8,
        "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    }
)  # fmt: skip
ROLES = ("input", "output", "scratch", "table")
AXES = ("", "i", "j")
BUFFER_AXES = (*AXES, "ij")
MAX_BUFFERS = 256
MAX_PHASES = 4096
MAX_ROW_BYTES = 1 << 40
MAX_COST = 1e12

_INT64_MAX = (1 << 63) - 1


class Buffer(NamedTuple):
    """One array of a program.

    Attributes:
        name: the name in the formula, for messages.
        role: "input", "output", "scratch" or "table"; the runtime allocates scratch. A table lists the tiles of phases
            over the rows of its axis, in int64 words whose number the caller chooses: the number of tiles; the number
            of pairs in all of them; for each tile its first row, the row after its last, and the words where its
            columns begin and end; then these columns, as intervals of a first column and the one after the last.
        axis: "i" for M rows, "j" for N rows, "" for one row, "ij" for M * N rows, one for each pair, j fastest.
        dtype: a key of `DTYPE_BYTES`.
        dim: elements of a row.
        per_split: scratch only: one such array for every column split, stored only if there are two or more.
    """

    name: str
    role: str
    axis: str
    dtype: str
    dim: int
    per_split: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dim * DTYPE_BYTES[self.dtype]


class Phase(NamedTuple):
    """One parallel loop of a program.

    Attributes:
        entry: byte offset of the function in the code.
        name: for messages and profiles.
        rows: "i", "j" or "": the extent that is cut into tiles, which run in parallel.
        columns: "i", "j" or "": the extent that is reduced; "" for a map (extent 1).
        rows_per_tile: rows of one tile.
        splittable: whether the columns may be cut into splits; then a later phase merges them.
        merges: whether this phase merges the splits of the last splittable one; skipped when there is one split.
        cost: estimated cycles for one (row, column) pair on one core.
        max_columns_per_split: the most columns that one call takes; 0 for no limit.
        tile_table: number of the buffer that lists the tiles; -1 if they are cut from the extents.
        windows_entry: byte offset of the function for callers on Windows; -1 if `entry` serves them too.
    """

    entry: int
    name: str
    rows: str
    columns: str
    rows_per_tile: int
    splittable: bool
    merges: bool
    cost: float
    max_columns_per_split: int
    tile_table: int = -1
    windows_entry: int = -1


@dataclass(frozen=True)
class KernelImage:
    """A compiled formula: code, the buffers that it reads and writes, the phases that run it.

    Attributes:
        target: one of `CPU_LEVELS`.
        code: flat, position independent and self-contained.
        buffers: in the order of the pointers that every phase receives.
        phases: in the order in which they run.
        provenance: versions and flags of what made it.

    Raises:
        KernelFormatError: a field breaks a rule of the format; the message names the rule.
    """

    target: str
    code: bytes = field(repr=False)
    buffers: tuple[Buffer, ...]
    phases: tuple[Phase, ...]
    provenance: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        """Freeze the provenance; check every rule, so that no malformed image exists."""
        _check_image(self)
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __reduce__(self) -> tuple[Callable[[bytes], "KernelImage"], tuple[bytes]]:
        """Copy and pickle through the checked format."""
        return KernelImage.from_bytes, (self.to_bytes(),)

    @property
    def arguments(self) -> tuple[Buffer, ...]:
        """The buffers that the caller brings: inputs, outputs and tables, in order."""
        return tuple(buffer for buffer in self.buffers if buffer.role != "scratch")

    def to_bytes(self) -> bytes:
        """The image as bytes; equal images give equal bytes."""
        header = {
            "target": self.target,
            "buffers": [fields_of(buffer) for buffer in self.buffers],
            "phases": [fields_of(phase) for phase in self.phases],
            "provenance": dict(sorted(self.provenance.items())),
        }
        return write_image(MAGIC, FORMAT_VERSION, header, self.code)

    @staticmethod
    def from_bytes(data: bytes) -> "KernelImage":
        """Read what `to_bytes` wrote.

        Raises:
            KernelFormatError: the bytes are not an image of this version; the message names the rule that they break.
        """
        header, code = read_image(data, MAGIC, FORMAT_VERSION, ("target", "buffers", "phases", "provenance"))
        return KernelImage(
            target=header["target"],
            code=code,
            buffers=read_records(header["buffers"], Buffer, what="buffer"),
            phases=read_records(header["phases"], Phase, what="phase"),
            provenance=header["provenance"],
        )


def _check_image(image: KernelImage) -> None:
    require_text(image.target, what="target")
    require(image.target in CPU_LEVELS, f"target is {image.target!r}, expected one of {', '.join(CPU_LEVELS)}")
    require(type(image.code) is bytes and len(image.code) > 0, "code is not a non-empty bytes object")
    check_buffers(image.buffers)
    require(
        type(image.phases) is tuple and 1 <= len(image.phases) <= MAX_PHASES,
        f"{len(image.phases)} phases, expected 1 to {MAX_PHASES}",
    )
    for index, phase in enumerate(image.phases):
        _check_phase(phase, code_bytes=len(image.code), what=f"phase {index}")
        _check_tile_table(phase, image.buffers, what=f"phase {index}")
    _check_merges(image.phases)
    check_provenance(image.provenance)


def check_provenance(provenance: Mapping[str, str]) -> None:
    """Check the provenance of an image.

    Raises:
        KernelFormatError: it is no mapping from texts to texts.
    """
    require(isinstance(provenance, Mapping), "provenance is not a mapping")
    for key, value in provenance.items():
        require_text(key, what="a key of the provenance")
        require_text(value, what=f"provenance of {key!r}")


def check_buffers(buffers: tuple[Buffer, ...]) -> None:
    """Check the buffers of an image.

    Raises:
        KernelFormatError: one breaks a rule of the format.
    """
    require(type(buffers) is tuple and len(buffers) <= MAX_BUFFERS, f"more than {MAX_BUFFERS} buffers")
    for index, buffer in enumerate(buffers):
        _check_buffer(buffer, what=f"buffer {index}")


def _check_buffer(buffer: Buffer, *, what: str) -> None:
    require(type(buffer) is Buffer, f"{what} is not a Buffer")
    require_text(buffer.name, what=f"name of {what}")
    require_choice(buffer.role, ROLES, what=f"role of {what}")
    require_choice(buffer.axis, BUFFER_AXES, what=f"axis of {what}")
    require_choice(buffer.dtype, tuple(DTYPE_BYTES), what=f"dtype of {what}")
    require_int(buffer.dim, 1, MAX_ROW_BYTES // DTYPE_BYTES[buffer.dtype], what=f"dim of {what}")
    require(type(buffer.per_split) is bool, f"per_split of {what} is not a boolean")
    require(buffer.role != "scratch" or buffer.axis != "ij", f"{what} is {buffer.role} and has a row for each pair")
    require(buffer.role == "scratch" or not buffer.per_split, f"{what} is {buffer.role} and per_split")
    require(buffer.role != "table" or buffer.dtype == "int64", f"{what} is a table of {buffer.dtype}, expected int64")


def _check_phase(phase: Phase, *, code_bytes: int, what: str) -> None:
    require(type(phase) is Phase, f"{what} is not a Phase")
    require_text(phase.name, what=f"name of {what}")
    require_int(phase.entry, 0, code_bytes - 1, what=f"entry of {what}")
    require_int(phase.windows_entry, -1, code_bytes - 1, what=f"windows_entry of {what}")
    require_choice(phase.rows, AXES, what=f"rows of {what}")
    require_choice(phase.columns, AXES, what=f"columns of {what}")
    require_int(phase.rows_per_tile, 1, 1 << 31, what=f"rows_per_tile of {what}")
    require_int(phase.max_columns_per_split, 0, _INT64_MAX, what=f"max_columns_per_split of {what}")
    require(type(phase.splittable) is bool, f"splittable of {what} is not a boolean")
    require(type(phase.merges) is bool, f"merges of {what} is not a boolean")
    require(
        type(phase.cost) in (int, float) and math.isfinite(phase.cost) and 0 <= phase.cost <= MAX_COST,
        f"cost of {what} is {phase.cost!r}, expected a number of cycles from 0 to {MAX_COST:g}",
    )


def _check_tile_table(phase: Phase, buffers: tuple[Buffer, ...], *, what: str) -> None:
    require_int(phase.tile_table, -1, len(buffers) - 1, what=f"tile_table of {what}")
    if phase.tile_table < 0:
        return
    table = buffers[phase.tile_table]
    require(
        (table.role, table.axis) == ("table", phase.rows),
        f"tile_table of {what} is a buffer of role {table.role!r} and axis {table.axis!r}, expected a table of axis "
        f"{phase.rows!r}",
    )
    require(not (phase.splittable or phase.merges), f"{what} has a tile_table, and is splittable or merges")


def _check_merges(phases: tuple[Phase, ...]) -> None:
    split: Phase | None = None
    is_merged = True
    for index, phase in enumerate(phases):
        if phase.merges:
            require(not phase.splittable, f"phase {index} is splittable and merges")
            require(split is not None, f"phase {index} merges, but no phase before it is splittable")
            assert split is not None
            require(phase.rows == split.rows, f"phase {index} merges a phase over other rows")
            is_merged = True
        elif phase.splittable:
            require(is_merged, f"phase {index} is splittable before the last one was merged")
            split, is_merged = phase, False
    require(is_merged, "a splittable phase is never merged")
