"""The container of a bundle: a strict subset of ZIP, so that any tool can list it and no two tools read it differently.

Entries are stored, in the order of the directory, from the first byte to the directory, with no gap; names are plain
ASCII paths; there are no times, comments, extra fields, flags or disks. What `write_archive` gives is the only file
with these entries in this order: equal entries give equal bytes. Source: APPNOTE.TXT of PKWARE, 6.3.10, 4.3 and 4.4.
"""

import re
import struct
import zlib
from collections.abc import Mapping
from typing import NoReturn

from pylazy.runtime.errors import BundleFormatError

MAX_ARCHIVE_BYTES = 256 << 20
MAX_ENTRIES = 16_384
MAX_NAME_BYTES = 200

_LOCAL = struct.Struct("<4s5H3I2H")
_DIRECTORY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MAGIC, _DIRECTORY_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_MADE_BY = (3 << 8) | 20  # Unix, version 2.0: tools then take the permissions from `_ATTRIBUTES`
_NEEDED = 10
_DATE = 0x0021  # 1 January 1980, where ZIP begins to count
_ATTRIBUTES = 0o100644 << 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")


def write_archive(entries: Mapping[str, bytes]) -> bytes:
    """Write entries in their order.

    Raises:
        BundleFormatError: a name or a size that the format does not have.
    """
    _check_names(list(entries))
    body, directory = bytearray(), bytearray()
    for name, data in entries.items():
        encoded = name.encode()
        shared = (_NEEDED, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(encoded), 0)
        offset = len(body)
        require(offset + len(data) <= MAX_ARCHIVE_BYTES, f"more than {MAX_ARCHIVE_BYTES} bytes")
        body += _LOCAL.pack(_LOCAL_MAGIC, *shared) + encoded + data
        directory += _DIRECTORY.pack(_DIRECTORY_MAGIC, _MADE_BY, *shared, 0, 0, 0, _ATTRIBUTES, offset) + encoded
    end = _END.pack(_END_MAGIC, 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    made = bytes(body + directory + end)
    require(len(made) <= MAX_ARCHIVE_BYTES, f"{len(made)} bytes, expected at most {MAX_ARCHIVE_BYTES}")
    return made


def read_archive(data: bytes) -> dict[str, memoryview]:
    """Check every rule of the container, then give the content of each entry, in order.

    Raises:
        BundleFormatError: a rule is broken; the message says which.
    """
    require(len(data) <= MAX_ARCHIVE_BYTES, f"{len(data)} bytes, expected at most {MAX_ARCHIVE_BYTES}")
    count, directory_begin = _read_end(data)
    names, headers, directory_end = [], [], directory_begin
    for index in range(count):
        name, header, directory_end = _read_directory_entry(data, directory_end, index)
        names.append(name)
        headers.append(header)
    require(directory_end == len(data) - _END.size, f"the directory does not end where its {count} entries do")
    _check_names(names)
    entries, position = {}, 0
    for name, (*shared, offset) in zip(names, headers, strict=True):
        require(offset == position, f"entry {name} begins at byte {offset}, expected {position}: no gap, no overlap")
        content, position = _read_entry(data, name, tuple(shared), position, directory_begin)
        entries[name] = content
    require(position == directory_begin, f"the entries end at byte {position}, the directory begins elsewhere")
    return entries


def require(condition: bool, rule: str) -> None:
    """Refuse a bundle that breaks a rule.

    Raises:
        BundleFormatError: the condition does not hold.
    """
    if not condition:
        refuse(rule)


def refuse(rule: str) -> NoReturn:
    """Refuse a bundle that breaks a rule.

    Raises:
        BundleFormatError: always.
    """
    raise BundleFormatError(f"bundle: {rule}")


def _check_names(names: list[str]) -> None:
    require(len(names) <= MAX_ENTRIES, f"{len(names)} entries, expected at most {MAX_ENTRIES}")
    seen: dict[str, str] = {}
    for name in names:
        require(
            _NAME.fullmatch(name) is not None and len(name) <= MAX_NAME_BYTES,
            f"entry is called {name[: MAX_NAME_BYTES + 1]!r}, expected a relative path of at most {MAX_NAME_BYTES} "
            "letters, digits and _.+-, no part of which begins with a dot",
        )
        folded = name.lower()  # some file systems take A and a for the same file
        require(folded not in seen, f"two entries are called {name}")
        seen[folded] = name
    for folded, name in seen.items():
        parts = folded.split("/")
        for length in range(1, len(parts)):
            require("/".join(parts[:length]) not in seen, f"entry {name} lies inside another entry")


def _read_end(data: bytes) -> tuple[int, int]:
    begin = len(data) - _END.size
    require(begin >= 0 and data[begin : begin + 4] == _END_MAGIC, "it does not end with the end of a ZIP directory")
    _, disk, directory_disk, here, count, directory_bytes, directory_begin, comment = _END.unpack_from(data, begin)
    require(disk == 0 and directory_disk == 0, "it is spread over several disks")
    require(here == count, "the two counts of entries differ")
    require(comment == 0, "it has a comment")
    require(count <= MAX_ENTRIES, f"{count} entries, expected at most {MAX_ENTRIES}")
    require(directory_begin + directory_bytes == begin, "the directory does not reach to its end record")
    return count, directory_begin


def _read_directory_entry(data: bytes, position: int, index: int) -> tuple[str, tuple[int, ...], int]:
    last = len(data) - _END.size
    require(position + _DIRECTORY.size <= last, f"the directory is too short for entry {index}")
    magic, made_by, *shared, comment, disk, internal, external, offset = _DIRECTORY.unpack_from(data, position)
    require(magic == _DIRECTORY_MAGIC, f"entry {index} of the directory has no magic number")
    require(made_by == _MADE_BY and external == _ATTRIBUTES, f"entry {index} is no plain file")
    require(comment == 0 and disk == 0 and internal == 0, f"entry {index} has a comment, a disk or attributes")
    _check_shared(tuple(shared), index)
    begin = position + _DIRECTORY.size
    end = begin + shared[8]
    require(end <= last, f"the directory is too short for the name of entry {index}")
    name = data[begin:end].decode("ascii", errors="replace")
    return name, (*shared, offset), end


def _check_shared(shared: tuple[int, ...], index: int) -> None:
    needed, flags, method, time, date, _, packed, size, _, extra = shared
    require(needed == _NEEDED, f"entry {index} needs version {needed} of ZIP, expected {_NEEDED}")
    require(flags == 0, f"entry {index} has flags {flags:#x}: encrypted, streamed or not ASCII")
    require(method == 0 and packed == size, f"entry {index} is compressed")
    require(time == 0 and date == _DATE, f"entry {index} has a time")
    require(extra == 0, f"entry {index} has an extra field")


def _read_entry(data: bytes, name: str, shared: tuple[int, ...], position: int, limit: int) -> tuple[memoryview, int]:
    require(position + _LOCAL.size <= limit, f"entry {name} lies outside the archive")
    magic, *found = _LOCAL.unpack_from(data, position)
    require(magic == _LOCAL_MAGIC, f"entry {name} has no magic number")
    require(tuple(found) == shared, f"entry {name} is described in two ways, in the directory and before its content")
    name_begin = position + _LOCAL.size
    begin = name_begin + len(name)
    end = begin + shared[7]
    require(end <= limit, f"entry {name} lies outside the archive")
    require(data[name_begin:begin] == name.encode(), f"entry {name} has another name before its content")
    content = memoryview(data)[begin:end]
    require(zlib.crc32(content) == shared[5], f"entry {name} is damaged: its CRC-32 differs")
    return content, end
