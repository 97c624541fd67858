"""The `pylazy` command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pylazy
from pylazy.runtime.errors import PylazyError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the name of the command; by default those of the process.

    Returns:
        0 when all went well, 1 when it failed; a command line that says nothing sensible ends the process with 2.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    from pylazy.demos.run import run_demo

    try:
        run_demo(options.output, quick=options.quick)
    except PylazyError as error:
        print(f"pylazy: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pylazy: interrupted", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pylazy", description=pylazy.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pylazy {pylazy.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="real work on real data, beside dense NumPy, with a picture",
        description="Quantise the colours of a photograph, classify handwritten digits, compare with dense NumPy.",
        allow_abbrev=False,
    )
    demo.add_argument(
        "--output", metavar="FOLDER", type=Path, default=Path(), help="where the picture goes (default: here)"
    )
    demo.add_argument("--quick", action="store_true", help="less data: a second or two")
    return parser


if __name__ == "__main__":
    sys.exit(main())
