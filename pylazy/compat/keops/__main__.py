"""Run a program that imports pykeops, unchanged, on pylazy."""

from __future__ import annotations

import os
import runpy
import sys

USAGE = "usage: python -m pylazy.compat.keops (script.py | -m module) [arguments of the program]"


def main() -> None:
    """Run the program of the command line as `python` itself would: as `__main__`, with its own arguments.

    Exceptions and exit codes are the program's. Without a program, or with one that is not there, the exit code is 2.
    """
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"{USAGE}\n")
    elif len(arguments) > 1 and arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif not arguments or arguments[0].startswith("-"):
        _stop(USAGE)
    elif not os.path.exists(arguments[0]):
        _stop(f"there is no file {arguments[0]!r}\n{USAGE}")
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.realpath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


def _stop(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
