"""The files of lit_tests/, run in this process: milliseconds a file, where lit starts processes."""

import io
import re
import shlex
from pathlib import Path

import pytest
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options
from filecheck.parser import Parser

from pylazy.compiler.opt import main as pylazy_opt

FOLDER = Path(__file__).parent.parent / "lit_tests"
FILES = sorted(FOLDER.rglob("*.mlir"))


def run_lines(path: Path) -> list[str]:
    """Give the commands of a file; a backslash at the end of a line continues it."""
    lines = re.findall(r"^//\s*RUN:\s*(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return "\n".join(lines).replace("\\\n", " ").split("\n")


def run_command(command: str, path: Path) -> None:
    """Run `[not] pylazy-opt ... [2>&1] [| filecheck ...]` and fail as lit would."""
    first, *rest = (shlex.split(part.replace("%s", str(path))) for part in re.split(r"\s\|\s", command))
    fails = first[0] == "not"
    tool, *arguments = first[fails:]
    assert tool == "pylazy-opt"
    merged = "2>&1" in arguments
    stdout, stderr = io.StringIO(), io.StringIO()
    arguments = [argument for argument in arguments if argument != "2>&1"]
    status = pylazy_opt(arguments, stdin=io.StringIO(), stdout=stdout, stderr=stdout if merged else stderr)
    assert (status != 0) == fails, f"{command}: exit code {status}\n{stderr.getvalue()}"
    for check in rest:
        assert check[0] == "filecheck"
        options = parse_argv_options(check)
        report = io.StringIO()
        text = FInput.canonicalize_line_ends(stdout.getvalue())
        matcher = Matcher(options, FInput("-", text), Parser.from_opts(options))
        matcher.stderr = report
        assert matcher.run() == 0, f"{command}\n{report.getvalue()}\n{stdout.getvalue()}"


def test_there_are_files() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(FOLDER)) for path in FILES])
def test_lit(path: Path) -> None:
    commands = run_lines(path)
    assert commands[0], f"{path} has no RUN line"
    for command in commands:
        run_command(command, path)
