"""The user's line that built a node, for messages and for the IR."""

from __future__ import annotations

import linecache
import sys
from os.path import dirname, join
from types import CodeType
from typing import NamedTuple

Position = tuple[CodeType, int] | tuple[None, "Location"]
"""Where a node was built: a code object and an offset in it, resolved to a `Location` only when somebody asks."""

_PACKAGE_FOLDER = dirname(__file__)
_DYNAMO = join("torch", "_dynamo")


class Location(NamedTuple):
    """A place in the user's source; line and column count from 1 and 0, a column of 0 may mean unknown."""

    filename: str
    line: int
    column: int
    function: str

    def __str__(self) -> str:
        source = linecache.getline(self.filename, self.line).strip()
        place = f"{self.filename}:{self.line}"
        return f"{place}: {source}" if source else place


def user_position(inner: int = 2) -> Position:
    """Find the innermost frame that does not belong to this package; cheap, as it runs for each node.

    Args:
        inner: the number of innermost frames, that of this function included, that are known to belong to it.
    """
    frame = sys._getframe(inner)
    while True:
        code = frame.f_code
        owner = _FILE_OWNERS.get(code.co_filename) or _file_owner(code.co_filename)
        outer = frame.f_back if owner == "pylazy" else None
        if outer is None:
            return (None, _line_being_traced()) if owner == "dynamo" else (code, frame.f_lasti)
        frame = outer


_FILE_OWNERS: dict[str, str] = {}
"""Whose code the files are that frames were found in: "pylazy", "dynamo" or "user"."""


def _file_owner(name: str) -> str:
    is_ours = name.startswith(_PACKAGE_FOLDER)
    owner = _FILE_OWNERS[name] = "pylazy" if is_ours else "dynamo" if _DYNAMO in name else "user"
    return owner


# While torch.compile traces a function, this one is called, not traced: a frame is nothing that it can put in a graph.
user_position._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _line_being_traced() -> Location:
    """Give the user's line that torch.compile is reading."""
    guards = sys.modules["torch._guards"]
    for frame in reversed(guards.TracingContext.extract_stack()):
        if not frame.filename.startswith(_PACKAGE_FOLDER):
            return Location(frame.filename, frame.lineno, 0, frame.name)
    return Location("<torch.compile>", 0, 0, "")


def resolve(position: Position) -> Location:
    """Turn a position into file, line, column and function."""
    code, offset = position
    if code is None:
        assert isinstance(offset, Location)
        return offset
    assert isinstance(offset, int)
    line, column = code.co_firstlineno, 0
    if sys.version_info >= (3, 11):
        for index, (first, _, start, _) in enumerate(code.co_positions()):
            if index * 2 > offset:
                break
            if first is not None:
                line, column = first, start or 0
    else:
        for begin, end, first in code.co_lines():
            if begin <= offset < end and first is not None:
                line = first
    return Location(code.co_filename, line, column, code.co_name)


def at_user_line(message: str, position: Position | None = None) -> str:
    """Append the user's line to a message, by default the line that is running now."""
    return f"{message}\n  at {resolve(position or user_position())}"
