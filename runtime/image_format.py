"""The file format of kernel images, and the checks of what they hold.

Layout, little endian: magic, format version (u32), bytes of the header (u64), bytes of the code (u64), the header
(JSON, UTF-8), the code, SHA-256 of everything before it.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pylazy.runtime.errors import KernelFormatError
from pylazy.runtime.strict_json import parse_strict

_PREFIX = struct.Struct("<4sIQQ")
_HASH_BYTES = hashlib.sha256().digest_size
# Absent from images made before they were.
_LATER_FIELDS: Mapping[str, object] = MappingProxyType({"tile_table": -1, "windows_entry": -1})


def write_image(magic: bytes, version: int, header: Mapping[str, object], code: bytes) -> bytes:
    """Write a file: equal contents give equal bytes."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    body = _PREFIX.pack(magic, version, len(text), len(code)) + text + code
    return body + hashlib.sha256(body).digest()


def read_image(data: bytes, magic: bytes, version: int, keys: tuple[str, ...]) -> tuple[dict[str, Any], bytes]:
    """Read what `write_image` wrote: the header, which has these keys, and the code.

    Raises:
        KernelFormatError: the bytes are no such file; the message names the rule that they break.
    """
    header, code = _split_sections(data, magic, version)
    _require_keys(header, keys, what="header")
    return header, code


def fields_of(record: Any) -> dict[str, object]:
    """Give the fields of a record, as JSON writes them."""
    written: dict[str, object] = record._asdict()
    for name, default in _LATER_FIELDS.items():
        if written.get(name) == default:
            del written[name]  # so that who knows no such field reads all images that do not need it
    return written


def require(condition: bool, rule: str) -> None:
    """Refuse an image that breaks a rule.

    Raises:
        KernelFormatError: the condition does not hold.
    """
    if not condition:
        raise KernelFormatError(f"kernel image: {rule}")


def _split_sections(data: bytes, expected_magic: bytes, expected_version: int) -> tuple[dict[str, Any], bytes]:
    least = _PREFIX.size + _HASH_BYTES
    require(len(data) >= least, f"{len(data)} bytes, expected at least {least}")
    magic, version, header_bytes, code_bytes = _PREFIX.unpack_from(data)
    require(magic == expected_magic, f"magic is {magic!r}, expected {expected_magic!r}")
    require(version == expected_version, f"format version is {version}, this pylazy reads {expected_version}")
    expected = least + header_bytes + code_bytes
    require(len(data) == expected, f"{len(data)} bytes, its sections need {expected}")
    digest = hashlib.sha256(memoryview(data)[:-_HASH_BYTES]).digest()
    require(data[-_HASH_BYTES:] == digest, "SHA-256 does not match the content")
    code_begin = _PREFIX.size + header_bytes
    header = _parse_json(data[_PREFIX.size : code_begin])
    return header, bytes(data[code_begin : code_begin + code_bytes])


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        header = parse_strict(text.decode())
    except (ValueError, RecursionError) as error:
        raise KernelFormatError(f"kernel image: header is not JSON: {error}") from error
    require(type(header) is dict, "header is not an object")
    return dict(header)


def _require_keys(record: object, expected: tuple[str, ...], *, what: str) -> None:
    require(isinstance(record, dict), f"{what} is not an object")
    assert isinstance(record, dict)
    require(set(record) == set(expected), f"{what} has keys {sorted(record)}, expected {sorted(expected)}")


def read_records(records: object, kind: type[Any], *, what: str) -> tuple[Any, ...]:
    """Make records of one kind from a list of objects."""
    require(isinstance(records, list), f"{what}s are not a list")
    assert isinstance(records, list)
    for index, record in enumerate(records):
        absent = [name for name in _LATER_FIELDS if isinstance(record, dict) and name not in record]
        _require_keys(record, tuple(name for name in kind._fields if name not in absent), what=f"{what} {index}")
    return tuple(kind(**record) for record in records)


def require_text(value: object, *, what: str) -> None:
    """Refuse what is not text."""
    require(type(value) is str, f"{what} is not text")


def require_choice(value: object, choices: tuple[str, ...], *, what: str) -> None:
    """Refuse what is not one of some texts."""
    expected = ", ".join(map(repr, choices))
    require(type(value) is str and value in choices, f"{what} is {value!r}, expected one of {expected}")


def require_int(value: object, least: int, most: int, *, what: str) -> None:
    """Refuse what is not an integer between two others."""
    is_in_range = type(value) is int and least <= value <= most
    require(is_in_range, f"{what} is {value!r}, expected an integer from {least} to {most}")
