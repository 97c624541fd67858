"""The contracts that decay without a check: names, docstrings, one test for each pass and op."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylazy.compiler.derivatives import DERIVATIVES
from pylazy.compiler.dialects.reduction import formula_ops, kernel_ops
from pylazy.compiler.dialects.reduction.dialect import Reduction
from pylazy.operations import OPERATIONS

ROOT = Path(__file__).parent.parent
PACKAGES = ("pylazy", "compiler", "runtime")
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "core", "base", "manager"}
PASSES = sorted(path for path in (ROOT / "compiler" / "passes").glob("*.py") if path.stem != "__init__")
OPS_FILE = ROOT / "lit_tests" / "dialects" / "reduction" / "ops.mlir"


def modules() -> Iterator[Path]:
    """Give the files of the packages, each once although links lead to some a second time."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != ROOT and ROOT in parent.parents):
                yield path


MODULES = sorted(set(modules()))


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def first_sentence(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def dialect_op_names() -> list[str]:
    classes = [found for module in (formula_ops, kernel_ops) for found in vars(module).values()]
    classes += formula_ops.FORMULA_CLASSES.values()
    own = {found for found in classes if isinstance(found, type) and issubclass(found, Reduction.Operation)}
    return sorted({found.OPERATION_NAME for found in own if found is not Reduction.Operation})


def test_modules_of_all_packages_are_checked() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_module_begins_with_a_sentence(path: Path) -> None:
    assert re.search(r"[.:`]$", first_sentence(path)), f"{path} has no docstring that begins with one sentence"


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_module_has_a_name_that_says_something(path: Path) -> None:
    assert not FORBIDDEN_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", PASSES, ids=ids(PASSES))
def test_pass_is_a_function_with_the_name_of_its_file(path: Path) -> None:
    function = getattr(importlib.import_module(f"pylazy.compiler.passes.{path.stem}"), path.stem)
    lines = (function.__doc__ or "").strip().split("\n")
    assert len(lines) > 1, "say what it does, why at this place, and what must hold before"


@pytest.mark.parametrize("path", PASSES, ids=ids(PASSES))
def test_pass_has_a_lit_test_with_its_name(path: Path) -> None:
    lit_file = ROOT / "lit_tests" / f"{path.stem}.mlir"
    assert lit_file.exists()
    text = lit_file.read_text(encoding="utf-8")
    assert path.stem.replace("_", "-") in text, "it does not run the pass"
    assert "CHECK-LABEL" in text, "it does not label its functions"


@pytest.mark.parametrize("op_name", dialect_op_names())
def test_op_of_the_dialect_is_read_and_written_in_a_lit_test(op_name: str) -> None:
    text = OPS_FILE.read_text(encoding="utf-8")
    assert re.search(rf'^ *(%\w+ = )?"{re.escape(op_name)}"\(', text, re.MULTILINE)
    assert re.search(rf'^// CHECK.*"{re.escape(op_name)}"\(', text, re.MULTILINE)


def test_every_diagnostic_of_the_dialect_is_expected_once() -> None:
    expected = (OPS_FILE.parent / "invalid.mlir").read_text(encoding="utf-8")
    folder = ROOT / "compiler" / "dialects" / "reduction"
    for path in (folder / "formula_ops.py", folder / "kernel_ops.py"):
        for pieces in diagnostics(path):
            pattern = r"[^}]*".join(re.escape(piece) for piece in pieces)
            assert re.search(rf"expected-error.*{pattern}", expected), f"{path.name} may say {pieces}, no test sees it"


def diagnostics(path: Path) -> Iterator[list[str]]:
    """Give the constant pieces of each message that a verifier may emit."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.Call) and getattr(function.func, "attr", getattr(function.func, "id", "")) in {
            "emit_error",
            "_refuse",
        }:
            yield from constant_pieces(function.args[-1])
        elif isinstance(function, ast.FunctionDef) and function.name == "_first_fault":
            for statement in ast.walk(function):
                if isinstance(statement, ast.Return) and statement.value is not None:
                    yield from constant_pieces(statement.value)


def constant_pieces(message: ast.expr) -> Iterator[list[str]]:
    """Give the pieces of a string or an f-string, nothing for an empty one or one that is only passed on."""
    if isinstance(message, ast.Constant) and message.value:
        yield [str(message.value)]
    elif isinstance(message, ast.JoinedStr):
        pieces = [str(part.value) for part in message.values if isinstance(part, ast.Constant)]
        if len("".join(pieces)) > len("'' op "):
            yield pieces


def test_every_operation_of_the_front_end_is_an_op_of_the_dialect() -> None:
    assert set(OPERATIONS) <= set(formula_ops.FORMULA_OPS)
    for name, operation in OPERATIONS.items():
        assert formula_ops.FORMULA_OPS[name].arity == operation.arity
        assert formula_ops.FORMULA_OPS[name].attributes == operation.attributes


def test_every_formula_op_has_a_derivative_that_is_compared_with_differences() -> None:
    assert set(DERIVATIVES) == set(formula_ops.FORMULA_OPS)
    text = (ROOT / "tests" / "compiler" / "test_differentiate.py").read_text(encoding="utf-8")
    assert '@pytest.mark.parametrize("op_name", sorted(DERIVATIVES))' in text


def test_readme_and_ci_run_the_same_tests() -> None:
    readme, ci = ROOT / "README.md", ROOT / ".ci" / "run"
    if not (readme.exists() and ci.exists()):
        pytest.skip("there is no README or no CI script yet")
    commands = re.findall(r"^\s*(?:\$ )?((?:python -m )?pytest\b.*)$", readme.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands, "the README does not say how to run the tests"
    assert any(command.strip() in ci.read_text(encoding="utf-8") for command in commands)
