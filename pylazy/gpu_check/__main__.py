"""`python -m pylazy.gpu_check`: check every reduction on an NVIDIA GPU, and time the usual ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pylazy.gpu_check.checks import CHECKS
from pylazy.gpu_check.functions import make_bundle
from pylazy.gpu_check.run import Request, run_check, show_progress
from pylazy.runtime.errors import DeviceError, PylazyError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_TARGETS = ("sm_80", "sm_90")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: by default those of the process.

    Returns:
        0 when every result is right, 1 when one is not, 2 without a GPU or for a command line that says nothing
        sensible.
    """
    parser = argparse.ArgumentParser(prog="pylazy gpu-check", description=__doc__.partition(": ")[2])
    _add_options(parser)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    chosen = vars(options)
    path, targets = chosen.pop("make_bundle"), chosen.pop("target")
    if path is not None:
        return _reported(lambda: _make_bundle(path, targets or DEFAULT_TARGETS, only=options.only))
    return check_gpu(Request(**chosen))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options: the fields of `Request`, and how to make a bundle instead."""
    parser.add_argument("--bundle", type=Path, help="take kernels from this file, where the compiler is not installed")
    parser.add_argument("--trust", action="store_true", help="take that file whoever may have written it")
    parser.add_argument("--quick", action="store_true", help="a few checks of small shapes, and two times")
    parser.add_argument("--only", default="", metavar="TEXT", help="only checks and times with this in their name")
    parser.add_argument("--points", type=_positive, default=200_000, metavar="COUNT", help="M = N of what is timed")
    parser.add_argument("--repeats", type=_positive, default=7, metavar="COUNT", help="runs of what is timed")
    parser.add_argument("--no-times", action="store_true", help="check only")
    parser.add_argument("--host-arrays", action="store_true", help="NumPy arrays, also where torch is installed")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("gpu-check"), metavar="STEM", help="name of the files"
    )
    parser.add_argument("--make-bundle", type=Path, metavar="FILE", help="compile all kernels into this file, and stop")
    parser.add_argument(
        "-t", "--target", action="append", help=f"of that bundle; default: {', '.join(DEFAULT_TARGETS)}"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _make_bundle(path: Path, targets: Sequence[str], *, only: str) -> bool:
    checks = [check for check in CHECKS if only.lower() in check.name.lower()]
    if not checks:
        raise UnsupportedError(f"--only {only}: no check has this in its name")

    def show(what: str, done: int, total: int) -> None:
        show_progress(f"{done} of {total}: {what}" if what else "")

    make_bundle(path, targets=targets, checks=checks, progress=show)
    sys.stdout.write(f"-> {path}, {path.stat().st_size:,} bytes, for {', '.join(targets)}\n")
    return True


def check_gpu(request: Request) -> int:
    """Run a request; returns what the command exits with."""
    return _reported(lambda: run_check(request))


def _reported(work: Callable[[], bool]) -> int:
    """Turn errors into messages."""
    try:
        return 0 if work() else 1
    except (PylazyError, OSError) as error:
        sys.stderr.write(f"pylazy: {str(error).split(chr(10) + '  at ')[0]}\n")
        return 2 if isinstance(error, DeviceError) else 1


if __name__ == "__main__":
    sys.exit(main())
