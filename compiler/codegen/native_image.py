"""ELF object -> flat image: code and constants as one block of bytes that runs on any page where it is put.

Kernels call nothing, so the only relocations are from code to constants of the same object, relative to the program
counter; resolving them here leaves nothing to link on the user's machine. An image has to begin at a multiple of
4 KiB, as all memory that is mapped does: constants are aligned, and ADRP of AArch64 counts in such pages. Source of
the formats: System V ABI (gABI, AMD64 psABI) and ELF for the Arm 64-bit Architecture.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pylazy.runtime.errors import CompileError, InternalError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_ALLOCATED, _NO_BITS, _SYMBOLS, _RELA = 2, 8, 2, 4
_WRITABLE = 1
_PAGE_BYTES = 4096
_MACHINES = {62: "x86-64", 183: "aarch64"}


@dataclass(frozen=True)
class FlatImage:
    """Position-independent bytes and the offsets of the functions in them."""

    code: bytes
    entries: Mapping[str, int]


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


def flatten(elf: bytes) -> FlatImage:
    """Lay out an object's code and constants one after another and resolve the references between them.

    Raises:
        CompileError: the object calls a function that it does not define (a libm call, say).
        InternalError: the object needs a relocation that a flat image cannot have.
    """
    machine, sections = _read_sections(elf)
    placed, size = _place(sections)
    code = bytearray(size)
    for number, start in placed.items():
        section = sections[number]
        if section.kind != _NO_BITS:
            code[start : start + section.size] = elf[section.offset : section.offset + section.size]
    table = next(section for section in sections if section.kind == _SYMBOLS)
    symbols = _read_symbols(elf, table, sections)
    for section in sections:
        if section.kind == _RELA and section.info in placed:
            _relocate(elf, section, code, placed, symbols, _RELOCATORS[machine])
    entries = {
        name: placed[owner] + value for name, kind, owner, value in symbols if kind == 2 and owner in placed and name
    }
    return FlatImage(bytes(code), entries)


def _read_sections(elf: bytes) -> tuple[str, list[_Section]]:
    fields = _HEADER.unpack_from(elf)
    ident, machine, table_offset, count, names = fields[0], fields[2], fields[6], fields[12], fields[13]
    if ident[:6] != b"\x7fELF\x02\x01" or machine not in _MACHINES:
        raise InternalError(f"the code generator gave no 64-bit little-endian ELF object for machine {machine}")
    rows = [_SECTION.unpack_from(elf, table_offset + k * _SECTION.size) for k in range(count)]
    text = rows[names][4]
    return _MACHINES[machine], [
        _Section(_text(elf, text + row[0]), row[1], row[2], row[4], row[5], row[6], row[7], row[8]) for row in rows
    ]


def _text(elf: bytes, start: int) -> str:
    return elf[start : elf.index(b"\0", start)].decode()


def _place(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """Give every section with code or constants its place; code first."""
    placed: dict[int, int] = {}
    end = 0
    wanted = [
        number
        for number, section in enumerate(sections)
        if section.flags & _ALLOCATED and section.size and not section.name.startswith((".eh_frame", ".note"))
    ]
    for number in sorted(wanted, key=lambda number: not sections[number].name.startswith(".text")):
        section = sections[number]
        if section.flags & _WRITABLE and not section.name.startswith(".data.rel.ro"):
            raise InternalError(f"generated code has writable data in {section.name}")
        alignment = max(1, section.alignment)
        end = (end + alignment - 1) // alignment * alignment
        placed[number] = end
        end += section.size
    return placed, end


def _read_symbols(elf: bytes, table: _Section, sections: list[_Section]) -> list[tuple[str, int, int, int]]:
    """Give (name, kind, section, value) of each symbol; kind 2 is a function."""
    strings = sections[table.link].offset
    symbols = []
    for offset in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name, info, _, owner, value, _ = _SYMBOL.unpack_from(elf, offset)
        symbols.append((_text(elf, strings + name), info & 15, owner, value))
    return symbols


def _relocate(
    elf: bytes,
    section: _Section,
    code: bytearray,
    placed: Mapping[int, int],
    symbols: list[tuple[str, int, int, int]],
    relocators: "Mapping[int, Callable[[bytearray, int, int], None]]",
) -> None:
    for offset in range(section.offset, section.offset + section.size, _RELOCATION.size):
        place, info, addend = _RELOCATION.unpack_from(elf, offset)
        name, _, owner, value = symbols[info >> 32]
        if owner not in placed:
            raise CompileError(f"generated code calls `{name}`, which a kernel cannot: lower-math should replace it")
        relocate = relocators.get(info & 0xFFFFFFFF)
        if relocate is None:
            raise InternalError(f"generated code needs relocation {info & 0xFFFFFFFF} to `{name}`")
        relocate(code, placed[section.info] + place, placed[owner] + value + addend)


def _relative_32(code: bytearray, place: int, target: int) -> None:
    struct.pack_into("<i", code, place, target - place)


def _arm_page(code: bytearray, place: int, target: int) -> None:
    """ADRP: the distance between the pages of the instruction and of the target; an image begins with a page."""
    distance = target // _PAGE_BYTES - place // _PAGE_BYTES
    word = struct.unpack_from("<I", code, place)[0] & 0x9F00001F
    struct.pack_into("<I", code, place, word | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5)


def _arm_page_offset(bytes_accessed: int) -> "Callable[[bytearray, int, int], None]":
    """ADD, or a load of so many bytes: the place within the page, counted in loads."""

    def relocate(code: bytearray, place: int, target: int) -> None:
        if target % bytes_accessed:
            raise InternalError(f"generated code loads {bytes_accessed} bytes from an address that is not aligned")
        word = struct.unpack_from("<I", code, place)[0] & ~(0xFFF << 10)
        struct.pack_into("<I", code, place, word | target % _PAGE_BYTES // bytes_accessed << 10)

    return relocate


def _arm_branch(code: bytearray, place: int, target: int) -> None:
    word = struct.unpack_from("<I", code, place)[0]
    struct.pack_into("<I", code, place, (word & 0xFC000000) | ((target - place) >> 2 & 0x3FFFFFF))


_RELOCATORS: "Mapping[str, Mapping[int, Callable[[bytearray, int, int], None]]]" = {
    "x86-64": {2: _relative_32, 4: _relative_32},  # R_X86_64_PC32, R_X86_64_PLT32
    "aarch64": {
        261: _relative_32,  # R_AARCH64_PREL32
        275: _arm_page,  # R_AARCH64_ADR_PREL_PG_HI21
        277: _arm_page_offset(1),  # R_AARCH64_ADD_ABS_LO12_NC
        278: _arm_page_offset(1),  # R_AARCH64_LDST8_ABS_LO12_NC, then LDST16, 32, 64 and 128
        284: _arm_page_offset(2),
        285: _arm_page_offset(4),
        286: _arm_page_offset(8),
        299: _arm_page_offset(16),
        282: _arm_branch,  # R_AARCH64_JUMP26
        283: _arm_branch,  # R_AARCH64_CALL26
    },
}
