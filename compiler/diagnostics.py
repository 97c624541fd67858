"""From the location of an op to the user's line, and to errors that end there."""

import linecache
from collections.abc import Iterator
from typing import NamedTuple

from pylazy.compiler.mlir import ir


class SourceLine(NamedTuple):
    """A line of a file; lines count from 1."""

    filename: str
    line: int

    def __str__(self) -> str:
        source = linecache.getline(self.filename, self.line).strip()
        place = f"{self.filename}:{self.line}"
        return f"{place}: {source}" if source else place


def source_line(location: ir.Location) -> "SourceLine | None":
    """Find the innermost place in a file that a location names, None where it names none.

    Names are looked through; of a call site the callee is the inner one; of fused locations the first that has a place.
    """
    return next(_source_lines(location), None)


def _source_lines(location: ir.Location) -> Iterator[SourceLine]:
    location = ir.Location.from_attr(location.attr)  # diagnostics carry locations without their class
    if isinstance(location, ir.FileLineColLoc):
        yield SourceLine(str(location.filename), int(location.start_line))
    elif isinstance(location, ir.NameLoc):
        yield from _source_lines(location.child_loc)
    elif isinstance(location, ir.CallSiteLoc):
        yield from _source_lines(location.callee)
        yield from _source_lines(location.caller)
    elif isinstance(location, ir.FusedLoc):
        for part in location.locations:
            yield from _source_lines(part)


def at_source_line(message: str, location: ir.Location) -> str:
    """Append the user's line to a message, where the location has one."""
    line = source_line(location)
    return message if line is None else f"{message}\n  at {line}"
