"""From the text of MANIFEST.json to its records, every field by the rule that it must keep."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from pylazy.runtime.archive import MAX_ARCHIVE_BYTES, MAX_ENTRIES, refuse, require
from pylazy.runtime.errors import BundleFormatError
from pylazy.runtime.kernel import AXES, BUFFER_AXES, CPU_LEVELS, DTYPE_BYTES, MAX_ROW_BYTES, ROLES, Buffer
from pylazy.runtime.manifest import (
    ARGUMENT_AXES,
    FEATURES,
    FORMAT,
    LAYOUTS,
    MANIFEST,
    PARTS,
    Argument,
    Blob,
    Code,
    Function,
    Kernel,
    Manifest,
    Result,
)
from pylazy.runtime.strict_json import parse_strict

MAX_MANIFEST_BYTES = 16 << 20
MAX_NESTING = 16
MAX_ITEMS = 65_536

_INT64_MAX = (1 << 63) - 1
_TARGET = re.compile("|".join([*map(re.escape, CPU_LEVELS), r"sm_[0-9]{2,3}[a-z]?"]))
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_KERNEL_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
_PTX_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,999}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TEXT = re.compile(r"[^\x00]{0,4096}", re.DOTALL)

_Record = TypeVar("_Record")


class _Fields:
    """One object of the manifest, whose fields are read by the rules that they must keep."""

    def __init__(self, found: object, *, what: str, is_newer: bool) -> None:
        require(type(found) is dict, f"{what} is not an object")
        assert isinstance(found, dict)
        self._found = found
        self.what = what
        self.is_newer = is_newer

    def _take(self, name: str) -> Any:
        if name not in self._found:  # here and below, messages are written where one is needed: this is the way to load
            refuse(f"{self.what} has no {name}")
        return self._found[name]

    def has(self, name: str) -> bool:
        return name in self._found

    def text(
        self, name: str, pattern: "re.Pattern[str]" = _TEXT, *, may_be_empty: bool = False, absent: str | None = None
    ) -> str:
        value = self._take(name) if absent is None else self._found.get(name, absent)
        if type(value) is not str or (pattern.fullmatch(value) is None and not (may_be_empty and value == "")):
            refuse(f"{name} of {self.what} is {str(value)[:100]!r}, expected {pattern.pattern}")
        return str(value)

    def choice(self, name: str, choices: Sequence[str], *, absent: str | None = None) -> str:
        """One of some texts; `absent` where the file is older than the field."""
        value = self._take(name) if absent is None else self._found.get(name, absent)
        if type(value) is not str or value not in choices:
            expected = ", ".join(map(repr, choices))
            refuse(f"{name} of {self.what} is {value!r}, expected {expected}")
        return str(value)

    def integer(self, name: str, least: int, most: int) -> int:
        value = self._take(name)
        _check_integer(value, least, most, what=f"{name} of {self.what}")
        return int(value)

    def boolean(self, name: str, *, absent: bool | None = None) -> bool:
        value = self._take(name) if absent is None else self._found.get(name, absent)
        require(type(value) is bool, f"{name} of {self.what} is not a boolean")
        return bool(value)

    def items(self, name: str, *, most: int = MAX_ITEMS) -> list[Any]:
        value = self._take(name)
        is_right = type(value) is list and len(value) <= most
        require(is_right, f"{name} of {self.what} is not a list of at most {most}")
        return list(value)

    def integers(self, name: str, least: int, most: int) -> tuple[int, ...]:
        found = self.items(name)
        for value in found:
            _check_integer(value, least, most, what=f"an item of {name} of {self.what}")
        return tuple(found)

    def texts(self, name: str, pattern: "re.Pattern[str]" = _TEXT) -> tuple[str, ...]:
        found = self.items(name)
        for value in found:
            is_right = type(value) is str and pattern.fullmatch(value) is not None
            require(is_right, f"an item of {name} of {self.what} is {str(value)[:100]!r}, expected {pattern.pattern}")
        return tuple(found)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._take(name)
        require(type(value) is dict and len(value) <= MAX_ITEMS, f"{name} of {self.what} is not an object")
        return MappingProxyType(dict(value))

    def text_mapping(self, name: str) -> Mapping[str, str]:
        found = self.mapping(name)
        for key, value in found.items():
            require(type(value) is str, f"{key[:100]!r} in {name} of {self.what} is not text")
        return found

    def plain_values(self) -> Mapping[str, Any]:
        """All fields, none of which may be a list or an object."""
        for key, value in self._found.items():
            is_plain = type(value) in (str, bool) or (type(value) is int and abs(value) <= _INT64_MAX)
            require(is_plain, f"{key[:100]!r} of {self.what} is no text, boolean or 64-bit integer")
        self.is_newer = True  # every field has been read
        return MappingProxyType(dict(self._found))

    def records(self, name: str, read: "Callable[[_Fields], _Record]", *, most: int = MAX_ITEMS) -> tuple[_Record, ...]:
        """Records in a list."""
        found = enumerate(self.items(name, most=most))
        return tuple(
            self.record(read, value, what=f"number {index} of {name} of {self.what}") for index, value in found
        )

    def selection(self, name: str) -> tuple[Function, ...]:
        """The functions of a selection, which have none themselves; none where the file is older than the field."""
        return self.records(name, _function_of_selection, most=2) if self.has(name) else ()

    def record(self, read: "Callable[[_Fields], _Record]", value: object, *, what: str) -> _Record:
        inner = _Fields(value, what=what, is_newer=self.is_newer)
        made = read(inner)
        inner.check_unknown(made)
        return made

    def check_unknown(self, made: Any) -> None:
        """Refuse fields of no meaning, but in a file of a higher minor version, which may have more."""
        known = getattr(made, "_fields", None) or made.__dataclass_fields__
        unknown = self._found.keys() - set(known)
        if unknown and not self.is_newer:
            refuse(f"{self.what} has unknown fields {sorted(unknown)[:5]}")


def _check_integer(value: object, least: int, most: int, *, what: str) -> None:
    if type(value) is not int or not least <= value <= most:
        refuse(f"{what} is {str(value)[:100]}, expected an integer from {least} to {most}")


def read_manifest(data: memoryview) -> Manifest:
    """Read the text of a manifest.

    Raises:
        BundleFormatError: a field breaks its rule; the message names both.
    """
    require(len(data) <= MAX_MANIFEST_BYTES, f"{MANIFEST} has {len(data)} bytes, expected at most {MAX_MANIFEST_BYTES}")
    found = _parse_json(bytes(data))
    require(type(found) is dict, f"{MANIFEST} is not an object")
    _check_version(found.get("format"))
    manifest = _Fields(found, what="the manifest", is_newer=tuple(found["format"]) > FORMAT)
    made = _manifest(manifest)
    manifest.check_unknown(made)
    return made


def read_launch(code: Code) -> tuple[tuple[Mapping[str, Any], ...], tuple[Buffer, ...]]:
    """Read how PTX is launched: the fields of its kernels, which `pylazy.runtime.gpu_image` checks, and its buffers.

    Raises:
        BundleFormatError: a field breaks its rule; the message names both.
    """
    launch = _Fields(dict(code.launch), what=f"launch of {code.blob}", is_newer=False)
    phases = launch.records("kernels", _ptx_kernel, most=4096)
    return tuple(phase.values for phase in phases), launch.records("buffers", _buffer, most=256)


def _parse_json(data: bytes) -> Any:
    _check_nesting(data)
    try:
        return parse_strict(data.decode())
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"bundle: {MANIFEST} is not JSON: {error}") from None


def _check_nesting(data: bytes) -> None:
    """Refuse text that is nested deeply, before a parser that recurses sees it; brackets in strings count as well."""
    depth = 0
    for found in data.translate(None, _NO_BRACKETS):
        depth += 1 if found in b"[{" else -1
        if depth > MAX_NESTING:
            refuse(f"{MANIFEST} is nested more than {MAX_NESTING} deep")


def _check_version(found: Any) -> None:
    is_version = type(found) is list and len(found) == 2 and all(type(part) is int and part >= 0 for part in found)
    require(is_version, f"format is {str(found)[:100]}, expected two integers")
    require(
        found[0] == FORMAT[0],
        f"format version is {found[0]}.{found[1]}, this pylazy reads {FORMAT[0]}: another pylazy is needed",
    )


def _manifest(found: _Fields) -> Manifest:
    requires = found.texts("requires")
    unknown = [name for name in requires if name not in FEATURES]
    require(not unknown, f"a reader must know {', '.join(unknown)}, this pylazy does not: a newer one is needed")
    return Manifest(
        format=found.integers("format", 0, 1 << 31),
        requires=requires,
        provenance=found.text_mapping("provenance"),
        targets=found.texts("targets", _TARGET),
        absent=found.text_mapping("absent"),
        functions=found.records("functions", _function),
        kernels=found.records("kernels", _kernel),
        blobs=found.records("blobs", _blob, most=MAX_ENTRIES),
        header=found.text("header", may_be_empty=True, absent=""),
    )


def _function(found: _Fields) -> Function:
    return _any_function(found, _IDENTIFIER, found.selection("selection"))


def _function_of_selection(found: _Fields) -> Function:
    require(not found.has("selection"), f"{found.what} has a selection itself")
    return _any_function(found, _KERNEL_ID, ())


def _any_function(found: _Fields, name: "re.Pattern[str]", selection: tuple[Function, ...]) -> Function:
    return Function(
        name=found.text("name", name),
        meaning=found.text("meaning"),
        dtype=found.choice("dtype", ("float32", "float64")),
        reduced=found.choice("reduced", ("i", "j")),
        keepdim=found.boolean("keepdim"),
        drop_inner=found.boolean("drop_inner"),
        arguments=found.records("arguments", _argument, most=256),
        results=found.records("results", _result, most=256),
        kernel=found.text("kernel", _KERNEL_ID),
        gradients=found.texts("gradients", _KERNEL_ID),
        ranged=found.boolean("ranged", absent=False),
        is_complex=found.boolean("is_complex", absent=False),
        indices=found.choice("indices", ("", "i", "j", "ij"), absent=""),
        selection=selection,
    )


def _argument(found: _Fields) -> Argument:
    argument = Argument(
        name=found.text("name", _IDENTIFIER),
        axis=found.choice("axis", ARGUMENT_AXES),
        dim=found.integer("dim", 1, MAX_ROW_BYTES // 8),
        layout=found.choice("layout", LAYOUTS),
        place=found.integer("place", 0, 255),
        default=found.text("default"),
        part=found.choice("part", PARTS, absent=""),
    )
    if argument.default:
        require(argument.axis == "" and argument.dim == 1, f"{found.what} is no number and has a default")
        require(_is_number(argument.default), f"default of {found.what} is {argument.default[:100]!r}, no number")
    return argument


def _is_number(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return repr(value) == text and not math.isnan(value)


def _result(found: _Fields) -> Result:
    return Result(
        kind=found.text("kind", _IDENTIFIER),
        dim=found.integer("dim", 1, MAX_ROW_BYTES // 8),
        k=found.integer("k", 0, 1 << 31),
        dtype=found.choice("dtype", ("float32", "float64", "int64")),
    )


def _kernel(found: _Fields) -> Kernel:
    return Kernel(
        id=found.text("id", _KERNEL_ID),
        of=found.text("of", _KERNEL_ID, may_be_empty=True),
        wrt=found.integers("wrt", 0, 255),
        digest=found.text("digest", _SHA256),
        formula=found.text("formula"),
        kernel=found.text("kernel"),
        code=found.records("code", _code),
    )


def _code(found: _Fields) -> Code:
    code = Code(
        target=found.text("target", _TARGET),
        few_rows=found.choice("few_rows", AXES),
        blob=found.text("blob"),
        launch=found.mapping("launch"),
        cubin=found.text("cubin", may_be_empty=True, absent=""),
    )
    is_gpu = code.target not in CPU_LEVELS
    require(is_gpu or not code.cubin, f"{found.what} is for {code.target} and has a cubin")
    require(is_gpu == bool(code.launch), f"{found.what} is for {code.target} and has {'no ' * is_gpu}launch")
    return code


class _PtxKernel(NamedTuple):
    """Fields of a kernel of PTX, which its target decides on."""

    values: Mapping[str, Any]


def _ptx_kernel(found: _Fields) -> _PtxKernel:
    found.text("name", _PTX_NAME)
    for axis in ("rows", "columns"):
        found.choice(axis, AXES)
    return _PtxKernel(found.plain_values())


def _buffer(found: _Fields) -> Buffer:
    return Buffer(
        name=found.text("name"),
        role=found.choice("role", ROLES),
        axis=found.choice("axis", BUFFER_AXES),
        dtype=found.choice("dtype", tuple(DTYPE_BYTES)),
        dim=found.integer("dim", 1, MAX_ROW_BYTES // 8),
        per_split=found.boolean("per_split"),
    )


def _blob(found: _Fields) -> Blob:
    return Blob(
        path=found.text("path"),
        bytes=found.integer("bytes", 0, MAX_ARCHIVE_BYTES),
        sha256=found.text("sha256", _SHA256),
    )
