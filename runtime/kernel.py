"""The kernel image: the format that the compiler writes and the runtime loads.

File layout, little endian: magic, format version (u32), bytes of the header (u64), bytes of the code (u64), the header
(JSON, UTF-8), the code, SHA-256 of everything before it.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from pylazy.runtime.errors import KernelFormatError

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

_PREFIX = struct.Struct("<4sIQQ")
_HASH_BYTES = hashlib.sha256().digest_size
_GPU_TARGET = re.compile(r"sm_[0-9]{2,3}[a-z]?")
_INT64_MAX = (1 << 63) - 1
# Absent from images made before they were.
_LATER_FIELDS: Mapping[str, object] = MappingProxyType({"tile_table": -1, "windows_entry": -1})


@dataclass(frozen=True)
class Buffer:
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


@dataclass(frozen=True)
class Phase:
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
        target: one of `CPU_LEVELS`; or "sm_90" and the like, whose code is PTX text.
        code: for a CPU flat, position independent and self-contained.
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
            "buffers": [_fields_of(buffer) for buffer in self.buffers],
            "phases": [_fields_of(phase) for phase in self.phases],
            "provenance": dict(sorted(self.provenance.items())),
        }
        text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
        body = _PREFIX.pack(MAGIC, FORMAT_VERSION, len(text), len(self.code)) + text + self.code
        return body + hashlib.sha256(body).digest()

    @staticmethod
    def from_bytes(data: bytes) -> "KernelImage":
        """Read what `to_bytes` wrote.

        Raises:
            KernelFormatError: the bytes are not an image of this version; the message names the rule that they break.
        """
        header, code = _split_sections(data)
        _require_keys(header, ("target", "buffers", "phases", "provenance"), what="header")
        return KernelImage(
            target=header["target"],
            code=code,
            buffers=_read_records(header["buffers"], Buffer, what="buffer"),
            phases=_read_records(header["phases"], Phase, what="phase"),
            provenance=header["provenance"],
        )


def _fields_of(record: Buffer | Phase) -> dict[str, object]:
    written = {item.name: getattr(record, item.name) for item in fields(record)}
    for name, default in _LATER_FIELDS.items():
        if written.get(name) == default:
            del written[name]  # so that who knows no such field reads all images that do not need it
    return written


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise KernelFormatError(f"kernel image: {rule}")


def _split_sections(data: bytes) -> tuple[dict[str, Any], bytes]:
    least = _PREFIX.size + _HASH_BYTES
    _require(len(data) >= least, f"{len(data)} bytes, expected at least {least}")
    magic, version, header_bytes, code_bytes = _PREFIX.unpack_from(data)
    _require(magic == MAGIC, f"magic is {magic!r}, expected {MAGIC!r}")
    _require(version == FORMAT_VERSION, f"format version is {version}, this pylazy reads {FORMAT_VERSION}")
    expected = least + header_bytes + code_bytes
    _require(len(data) == expected, f"{len(data)} bytes, its sections need {expected}")
    digest = hashlib.sha256(memoryview(data)[:-_HASH_BYTES]).digest()
    _require(data[-_HASH_BYTES:] == digest, "SHA-256 does not match the content")
    code_begin = _PREFIX.size + header_bytes
    header = _parse_json(data[_PREFIX.size : code_begin])
    return header, bytes(data[code_begin : code_begin + code_bytes])


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise KernelFormatError(f"kernel image: header is not JSON: {error}") from error
    _require(type(header) is dict, "header is not an object")
    return dict(header)


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _require_keys(record: object, expected: tuple[str, ...], *, what: str) -> None:
    _require(isinstance(record, dict), f"{what} is not an object")
    assert isinstance(record, dict)
    _require(set(record) == set(expected), f"{what} has keys {sorted(record)}, expected {sorted(expected)}")


def _read_records(records: object, kind: type[Any], *, what: str) -> tuple[Any, ...]:
    _require(isinstance(records, list), f"{what}s are not a list")
    assert isinstance(records, list)
    names = tuple(item.name for item in fields(kind))
    for index, record in enumerate(records):
        absent = [name for name in _LATER_FIELDS if isinstance(record, dict) and name not in record]
        _require_keys(record, tuple(name for name in names if name not in absent), what=f"{what} {index}")
    return tuple(kind(**record) for record in records)


def _check_image(image: KernelImage) -> None:
    _require_text(image.target, what="target")
    is_cpu = image.target in CPU_LEVELS
    _require(
        is_cpu or _GPU_TARGET.fullmatch(image.target) is not None,
        f"target is {image.target!r}, expected one of {', '.join(CPU_LEVELS)} or sm_<number>",
    )
    _require(type(image.code) is bytes and len(image.code) > 0, "code is not a non-empty bytes object")
    _require(type(image.buffers) is tuple and len(image.buffers) <= MAX_BUFFERS, f"more than {MAX_BUFFERS} buffers")
    _require(
        type(image.phases) is tuple and 1 <= len(image.phases) <= MAX_PHASES,
        f"{len(image.phases)} phases, expected 1 to {MAX_PHASES}",
    )
    for index, buffer in enumerate(image.buffers):
        _check_buffer(buffer, what=f"buffer {index}")
    for index, phase in enumerate(image.phases):
        _check_phase(phase, code_bytes=len(image.code), what=f"phase {index}")
        _check_tile_table(phase, image.buffers, what=f"phase {index}")
    _check_merges(image.phases)
    _require(isinstance(image.provenance, Mapping), "provenance is not a mapping")
    for key, value in image.provenance.items():
        _require_text(key, what="a key of the provenance")
        _require_text(value, what=f"provenance of {key!r}")


def _check_buffer(buffer: Buffer, *, what: str) -> None:
    _require(type(buffer) is Buffer, f"{what} is not a Buffer")
    _require_text(buffer.name, what=f"name of {what}")
    _require_choice(buffer.role, ROLES, what=f"role of {what}")
    _require_choice(buffer.axis, BUFFER_AXES, what=f"axis of {what}")
    _require_choice(buffer.dtype, tuple(DTYPE_BYTES), what=f"dtype of {what}")
    _require_int(buffer.dim, 1, MAX_ROW_BYTES // DTYPE_BYTES[buffer.dtype], what=f"dim of {what}")
    _require(type(buffer.per_split) is bool, f"per_split of {what} is not a boolean")
    _require(buffer.role != "scratch" or buffer.axis != "ij", f"{what} is {buffer.role} and has a row for each pair")
    _require(buffer.role == "scratch" or not buffer.per_split, f"{what} is {buffer.role} and per_split")
    _require(buffer.role != "table" or buffer.dtype == "int64", f"{what} is a table of {buffer.dtype}, expected int64")


def _check_phase(phase: Phase, *, code_bytes: int, what: str) -> None:
    _require(type(phase) is Phase, f"{what} is not a Phase")
    _require_text(phase.name, what=f"name of {what}")
    _require_int(phase.entry, 0, code_bytes - 1, what=f"entry of {what}")
    _require_int(phase.windows_entry, -1, code_bytes - 1, what=f"windows_entry of {what}")
    _require_choice(phase.rows, AXES, what=f"rows of {what}")
    _require_choice(phase.columns, AXES, what=f"columns of {what}")
    _require_int(phase.rows_per_tile, 1, 1 << 31, what=f"rows_per_tile of {what}")
    _require_int(phase.max_columns_per_split, 0, _INT64_MAX, what=f"max_columns_per_split of {what}")
    _require(type(phase.splittable) is bool, f"splittable of {what} is not a boolean")
    _require(type(phase.merges) is bool, f"merges of {what} is not a boolean")
    _require(
        type(phase.cost) in (int, float) and math.isfinite(phase.cost) and 0 <= phase.cost <= MAX_COST,
        f"cost of {what} is {phase.cost!r}, expected a number of cycles from 0 to {MAX_COST:g}",
    )


def _check_tile_table(phase: Phase, buffers: tuple[Buffer, ...], *, what: str) -> None:
    _require_int(phase.tile_table, -1, len(buffers) - 1, what=f"tile_table of {what}")
    if phase.tile_table < 0:
        return
    table = buffers[phase.tile_table]
    _require(
        (table.role, table.axis) == ("table", phase.rows),
        f"tile_table of {what} is a buffer of role {table.role!r} and axis {table.axis!r}, expected a table of axis "
        f"{phase.rows!r}",
    )
    _require(not (phase.splittable or phase.merges), f"{what} has a tile_table, and is splittable or merges")


def _check_merges(phases: tuple[Phase, ...]) -> None:
    split: Phase | None = None
    is_merged = True
    for index, phase in enumerate(phases):
        if phase.merges:
            _require(not phase.splittable, f"phase {index} is splittable and merges")
            _require(split is not None, f"phase {index} merges, but no phase before it is splittable")
            assert split is not None
            _require(phase.rows == split.rows, f"phase {index} merges a phase over other rows")
            is_merged = True
        elif phase.splittable:
            _require(is_merged, f"phase {index} is splittable before the last one was merged")
            split, is_merged = phase, False
    _require(is_merged, "a splittable phase is never merged")


def _require_text(value: object, *, what: str) -> None:
    _require(type(value) is str, f"{what} is not text")


def _require_choice(value: object, choices: tuple[str, ...], *, what: str) -> None:
    expected = ", ".join(map(repr, choices))
    _require(type(value) is str and value in choices, f"{what} is {value!r}, expected one of {expected}")


def _require_int(value: object, least: int, most: int, *, what: str) -> None:
    is_in_range = type(value) is int and least <= value <= most
    _require(is_in_range, f"{what} is {value!r}, expected an integer from {least} to {most}")
