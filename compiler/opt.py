"""`pylazy-opt`: run passes and pipelines on MLIR text."""

import argparse
import contextlib
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TextIO

from pylazy.compiler import passes, pipelines
from pylazy.compiler.diagnostics import SourceLine, source_line
from pylazy.compiler.dialects.reduction import load_dialect
from pylazy.compiler.driver import pass_name, run_passes
from pylazy.compiler.mlir import ir, new_context
from pylazy.compiler.pipelines import Pass
from pylazy.compiler.target import Target, target_from_name
from pylazy.runtime.errors import PylazyError


class UsageError(PylazyError, ValueError):
    """A command line that asks for something that does not exist."""


@dataclass(frozen=True)
class Step:
    """One element of a pipeline, and what it compiles for."""

    element: Pass
    target: Target


class Diagnostic(NamedTuple):
    """One complaint; without a place it concerns the whole input."""

    place: "SourceLine | None"
    message: str

    def text(self, path: str) -> str:
        """Write `file:line: error: message`."""
        if self.place is None:
            return f"{path}: error: {self.message}"
        return f"{self.place.filename}:{self.place.line}: error: {self.message}"


def main(
    argv: "Sequence[str] | None" = None,
    *,
    stdin: "TextIO | None" = None,
    stdout: "TextIO | None" = None,
    stderr: "TextIO | None" = None,
) -> int:
    """Run the tool.

    Args:
        argv: arguments without the name of the program; by default those of the process.
        stdin: where to read if no file is named; by default that of the process.
        stdout: where to write the module; by default that of the process.
        stderr: where to write diagnostics and dumps; by default that of the process.

    Returns:
        0 if all went well, 1 after a diagnostic, 2 for arguments that cannot be read.
    """
    stdin, stdout, stderr = stdin or sys.stdin, stdout or sys.stdout, stderr or sys.stderr
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has written why
        return int(stop.code or 0)
    try:
        return _run(options, stdin, stdout, stderr)
    except UsageError as error:
        print(f"pylazy-opt: error: {error}", file=stderr)
    except (OSError, UnicodeDecodeError) as error:
        print(f"pylazy-opt: error: cannot read or write: {error}", file=stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pylazy-opt",
        description="Run passes on MLIR text.",
        epilog="passes of pylazy, beside all of upstream:\n  " + "\n  ".join(own_pass_names()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", default="-", help="MLIR text; - is standard input")
    parser.add_argument("-o", dest="output", default="-", help="file to write; - is standard output")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--pass-pipeline", default="", help="passes, as in 'reduction-simplify,cse'")
    chosen.add_argument("--pipeline", choices=sorted(named_pipelines()), help="a pipeline of pylazy")
    parser.add_argument("--target", default="x86-64-v3", help="what passes without an option of their own compile for")
    parser.add_argument("--show-pipeline", action="store_true", help="print the pipeline, read nothing")
    parser.add_argument("--print-ir-after-all", action="store_true", help="print the module after each pass")
    parser.add_argument("--print-locations", action="store_true", help="print the location of each op")
    parser.add_argument("--split-input-file", action="store_true", help="the input is modules separated by // -----")
    parser.add_argument("--verify-diagnostics", action="store_true", help="compare with expected-error comments")
    return parser


# Pipelines


def own_pass_names() -> tuple[str, ...]:
    """Name the passes of pylazy, which are the files of the folder `passes`."""
    return tuple(sorted(found.name.replace("_", "-") for found in pkgutil.iter_modules(passes.__path__)))


def own_pass(name: str) -> Callable[..., None]:
    """Give the pass of this name."""
    function_name = name.replace("-", "_")
    module = importlib.import_module(f"{passes.__name__}.{function_name}")
    function: Callable[..., None] = getattr(module, function_name)
    return function


def named_pipelines() -> Mapping[str, tuple[Pass, ...]]:
    """Give the tuples of `pipelines.py` by name: `FORMULA_PASSES` is "formula"."""
    return {
        name.removesuffix("_PASSES").lower(): value
        for name, value in vars(pipelines).items()
        if name.endswith("_PASSES")
    }


def split_elements(text: str) -> list[str]:
    """Split a pipeline at the commas outside of all brackets.

    Raises:
        UsageError: the brackets do not match.
    """
    elements, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "({") - (character in ")}")
        if depth < 0:
            break
        if character == "," and depth == 0:
            elements.append(text[start:position].strip())
            start = position + 1
    if depth != 0:
        raise UsageError(f"the brackets of the pipeline do not match: {text}")
    elements.append(text[start:].strip())
    return [element for element in elements if element]


def parse_pipeline(text: str, default_target: Target) -> tuple[Step, ...]:
    """Read a pipeline: names of own passes with an optional `{target=...}`, and elements of upstream pipelines.

    Raises:
        UsageError: brackets that do not match, or an option that own passes do not have.
    """
    wrapped = re.fullmatch(r"\s*builtin\.module\((.*)\)\s*", text, re.DOTALL)
    own = own_pass_names()
    steps = []
    for element in split_elements(wrapped.group(1) if wrapped else text):
        name, _, options = element.partition("{")
        if name.strip() not in own:
            steps.append(Step(element, default_target))
            continue
        steps.append(Step(own_pass(name.strip()), _target_option(element, options.removesuffix("}"), default_target)))
    return tuple(steps)


def _target_option(element: str, options: str, default: Target) -> Target:
    target = default
    for option in options.split():
        key, _, value = option.partition("=")
        if key != "target":
            raise UsageError(f"{element} has option {key!r}: passes of pylazy have the option target only")
        target = _target(value)
    return target


def _target(name: str) -> Target:
    try:
        return target_from_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _steps(options: argparse.Namespace) -> tuple[Step, ...]:
    target = _target(options.target)
    if options.pipeline:
        return tuple(Step(element, target) for element in named_pipelines()[options.pipeline])
    return parse_pipeline(options.pass_pipeline, target)


# Running


def _run(options: argparse.Namespace, stdin: TextIO, stdout: TextIO, stderr: TextIO) -> int:
    steps = _steps(options)
    if options.show_pipeline:
        print(f"builtin.module({','.join(pass_name(step.element) for step in steps)})", file=stdout)
        return 0
    text = stdin.read() if options.file == "-" else _read(options.file)
    path = "<stdin>" if options.file == "-" else options.file
    failed, written = False, []
    for chunk in _chunks(text, split=options.split_input_file):
        module_text, diagnostics = _process(chunk, path, steps, options, stderr)
        if options.verify_diagnostics:
            diagnostics = list(_surprises(chunk, path, diagnostics))
        elif not diagnostics:
            written.append(module_text)
        for diagnostic in diagnostics:
            print(diagnostic.text(path), file=stderr)
        failed = failed or bool(diagnostics)
    result = "// -----\n".join(written)
    if options.output == "-":
        stdout.write(result)
    elif not failed:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(result)
    return int(failed)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _chunks(text: str, *, split: bool) -> Iterator[str]:
    """Cut at the separators; empty lines in front keep the numbers of the lines."""
    start = 0
    if split:
        for separator in re.finditer(r"^// -----.*\n", text, re.MULTILINE):
            yield "\n" * text.count("\n", 0, start) + text[start : separator.start()]
            start = separator.end()
    yield "\n" * text.count("\n", 0, start) + text[start:]


def _process(
    text: str, path: str, steps: tuple[Step, ...], options: argparse.Namespace, stderr: TextIO
) -> tuple[str, list[Diagnostic]]:
    """Parse a module and run the pipeline; give its text, or what went wrong."""

    def dump(name: str, module: ir.Module) -> None:
        print(f"// -----// IR Dump After {name} //----- //\n{module}", file=stderr)

    with new_context(), ir.Location.unknown():
        load_dialect()
        try:
            module = ir.Module.parse(text)
            for step in steps:
                after_each = dump if options.print_ir_after_all else None
                run_passes(module, (step.element,), target=step.target, after_each=after_each)
            return module.operation.get_asm(enable_debug_info=options.print_locations).rstrip("\n") + "\n", []
        except ir.MLIRError as error:
            return "", [
                Diagnostic(_named(source_line(found.location), path), found.message)
                for found in error.error_diagnostics
            ]
        except PylazyError as error:
            return "", [_diagnostic_of(error, path)]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # A verifier of the dialect met an op of a shape it did not think of.
            return "", [Diagnostic(None, f"malformed op: {type(error).__name__}: {error}")]


def _named(place: "SourceLine | None", path: str) -> "SourceLine | None":
    """Give a place in the input, which MLIR calls "-", the name of the input."""
    return place._replace(filename=path) if place is not None and place.filename == "-" else place


def _diagnostic_of(error: PylazyError, path: str) -> Diagnostic:
    """Take the place from the last line of an error, where `diagnostics.at_source_line` has put it."""
    message, _, last = str(error).rpartition("\n  at ")
    place = re.match(r"(.*?):(\d+)(?:: |$)", last)
    if not message or place is None:
        return Diagnostic(None, str(error))
    return Diagnostic(_named(SourceLine(place.group(1), int(place.group(2))), path), message)


_EXPECTATION = re.compile(r"expected-error\s*(?:@([+-]\d+|above|below))?\s*\{\{(.*?)\}\}")


def _surprises(text: str, path: str, diagnostics: list[Diagnostic]) -> Iterator[Diagnostic]:
    """Give the expected errors that did not come, and those that came unexpected."""
    left = list(diagnostics)
    for number, line in enumerate(text.split("\n"), start=1):
        for found in _EXPECTATION.finditer(line):
            offset = {None: 0, "above": -1, "below": 1}.get(found.group(1))
            place = SourceLine(path, number + (int(found.group(1)) if offset is None else offset))
            hit = next((some for some in left if some.place == place and found.group(2) in some.message), None)
            if hit is None:
                yield Diagnostic(place, f"expected error was not produced: {found.group(2)}")
            else:
                left.remove(hit)
    for diagnostic in left:
        yield Diagnostic(diagnostic.place, f"unexpected error: {diagnostic.message}")


if __name__ == "__main__":
    sys.exit(main())
