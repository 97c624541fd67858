"""Lines for the reader: with colour and progress on a terminal, plain otherwise."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pylazy.demos.timing import seconds_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from pylazy.demos.timing import Timing


class Report:
    """Writes what the demo finds.

    Args:
        console: where to write; without colour, progress or escape codes unless it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def title(self, text: str) -> None:
        """Begin a part."""
        self._console.print(f"\n[bold cyan]{text}[/]", highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Write one finding."""
        self._console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a line that changes while the block runs, on a terminal only; yields what sets its text."""
        if not self._console.is_terminal:
            yield lambda _text: None
            return
        with self._console.status(f"{text} ...") as status:
            yield lambda found: status.update(f"{text}: {found}")

    def timings(self, timings: Sequence[Timing]) -> None:
        """Write a table of times."""
        rows = [("", "pairs", "D", "pylazy", "dense NumPy", "times faster")]
        rows += [
            (
                timing.task,
                f"{timing.rows:,} x {timing.columns:,}",
                str(timing.dim),
                seconds_text(timing.pylazy_seconds),
                seconds_text(timing.numpy_seconds),
                f"{timing.ratio:.1f}",
            )
            for timing in timings
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            first, *rest = (
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            self.line("   ".join((first, *rest)))
