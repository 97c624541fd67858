"""`pylazy-opt` and the driver beneath it."""

import io
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pylazy.compiler.diagnostics import at_source_line, source_line
from pylazy.compiler.driver import run_passes
from pylazy.compiler.mlir import ir
from pylazy.compiler.opt import main, own_pass, own_pass_names, parse_pipeline
from pylazy.compiler.pipelines import FORMULA_PASSES
from pylazy.compiler.target import CpuTarget, NvidiaTarget
from pylazy.runtime.errors import CompileError, InternalError

LAZY = '!reduction.lazy<"i", vector<3xf32>>'
FORMULA = f"""func.func @f(%x: tensor<?x3xf32>) -> tensor<?x3xf32> {{
  %0 = "reduction.var"(%x) {{axis = "i"}} : (tensor<?x3xf32>) -> {LAZY}
  %1 = "reduction.neg"(%0) : ({LAZY}) -> {LAZY}
  %2 = "reduction.neg"(%1) : ({LAZY}) -> {LAZY}
  %3 = "reduction.reduce"(%2) {{axis = "j", kind = "sum"}} : ({LAZY}) -> tensor<?x3xf32>
  return %3 : tensor<?x3xf32>
}}
"""
BAD_WRT = FORMULA.replace("> {", "> attributes {reduction.wrt = [7]} {")
WRONG = FORMULA.replace('kind = "sum"', 'kind = "total"')


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str


def opt(*arguments: str, text: str = FORMULA) -> Outcome:
    stdout, stderr = io.StringIO(), io.StringIO()
    status = main(arguments, stdin=io.StringIO(text), stdout=stdout, stderr=stderr)
    return Outcome(status, stdout.getvalue(), stderr.getvalue())


# What it does


def test_own_and_upstream_passes_mix() -> None:
    outcome = opt("--pass-pipeline=builtin.module(reduction-simplify,func.func(cse,canonicalize))")
    assert outcome.status == 0, outcome.stderr
    assert "reduction.neg" not in outcome.stdout


def test_wrapper_of_the_pipeline_may_be_left_out() -> None:
    passes = "reduction-simplify,cse"
    assert opt(f"--pass-pipeline={passes}") == opt(f"--pass-pipeline=builtin.module({passes})")


def test_empty_pipeline_prints_the_module_and_what_is_printed_is_read_again() -> None:
    outcome = opt()
    assert opt(text=outcome.stdout) == outcome


def test_option_of_a_pass_is_its_target() -> None:
    text = "reduction-simplify{target=sm_90},reduction-simplify,cse"
    first, second, third = parse_pipeline(text, CpuTarget("aarch64"))
    assert (first.target, second.target, third.element) == (NvidiaTarget("sm_90"), CpuTarget("aarch64"), "cse")


def test_every_file_of_the_passes_is_a_pass() -> None:
    assert "reduction-simplify" in own_pass_names()
    for name in own_pass_names():
        assert own_pass(name).__name__ == name.replace("-", "_")


def test_named_pipeline_is_the_tuple_of_that_name() -> None:
    outcome = opt("--pipeline=formula", "--show-pipeline")
    names = [some if isinstance(some, str) else some.__name__.replace("_", "-") for some in FORMULA_PASSES]
    assert outcome.stdout == f"builtin.module({','.join(names)})\n"


def test_shown_pipeline_can_be_given_back() -> None:
    shown = opt("--pipeline=formula", "--show-pipeline").stdout.strip()
    assert opt(f"--pass-pipeline={shown}") == opt("--pipeline=formula")


def test_dumps_go_to_stderr() -> None:
    outcome = opt("--pass-pipeline=cse,reduction-simplify", "--print-ir-after-all")
    assert outcome.stderr.count("// -----// IR Dump After ") == 2
    assert "IR Dump After reduction-simplify" in outcome.stderr
    assert outcome.stdout == opt("--pass-pipeline=cse,reduction-simplify").stdout


def test_files_are_read_and_written(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mlir", tmp_path / "out.mlir"
    source.write_text(FORMULA)
    assert opt(str(source), "-o", str(target), text="") == Outcome(0, "", "")
    assert target.read_text() == opt().stdout


def test_split_input_is_processed_module_by_module() -> None:
    outcome = opt("--split-input-file", text=f"{FORMULA}// -----\n{FORMULA}")
    assert outcome.stdout.count("func.func @f") == 2
    assert outcome.stdout.count("// -----") == 1


def test_locations_are_printed_on_request() -> None:
    assert "loc(" in opt("--print-locations").stdout
    assert "loc(" not in opt().stdout


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "text", "expected"),
    [
        ((), WRONG, "<stdin>:5: error: 'reduction.reduce' op has kind \"total\""),
        ((), "func.func @f( {", "<stdin>:1: error: "),
        ((), "\x01", "<stdin>:1: error: "),
        (("--pass-pipeline=no-such-pass",), FORMULA, "'no-such-pass' does not refer to a registered pass"),
        (("--pass-pipeline=cse(",), FORMULA, "brackets of the pipeline do not match"),
        (("--pass-pipeline=cse)",), FORMULA, "brackets of the pipeline do not match"),
        (("--pass-pipeline=canonicalize{nonsense=1}",), FORMULA, "no such option nonsense"),
        (("--pass-pipeline=reduction-simplify{speed=1}",), FORMULA, "has option 'speed'"),
        (("--pass-pipeline=reduction-simplify{target=z80}",), FORMULA, "unknown processor level 'z80'"),
        (("--pass-pipeline=func.func(reduction-simplify)",), FORMULA, "no such pipeline element"),
        (("--target=z80",), FORMULA, "unknown processor level 'z80'"),
        (("/no/such/file.mlir",), FORMULA, "cannot read or write"),
        (("-o", "/no/such/folder/file.mlir"), FORMULA, "cannot read or write"),
        (("--pass-pipeline=reduction-differentiate",), BAD_WRT, "<stdin>:1: error: "),
        ((), '"reduction.var"() {axis = "i"} : () -> ()', "error: "),
        ((), '"reduction.accumulate"() {kind = "sum"} : () -> ()', "error: "),
        ((), '"reduction.map"() {rows = "i"} : () -> ()', "error: "),
    ],
)
def test_bad_input_gives_a_diagnostic(arguments: tuple[str, ...], text: str, expected: str) -> None:
    outcome = opt(*arguments, text=text)
    assert outcome.status == 1
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""


@pytest.mark.parametrize("arguments", [("--nonsense",), ("--pipeline=nonsense",), ("a", "b")])
def test_bad_arguments_give_usage(arguments: tuple[str, ...]) -> None:
    outcome = opt(*arguments)
    assert outcome.status == 2
    assert "usage: pylazy-opt" in outcome.stderr


def test_help_lists_the_passes() -> None:
    outcome = opt("--help")
    assert outcome.status == 0
    assert "reduction-differentiate" in outcome.stdout


def test_diagnostic_in_a_later_chunk_has_the_line_of_the_file() -> None:
    outcome = opt("--split-input-file", text=f"{FORMULA}// -----\n{WRONG}")
    assert f"<stdin>:{FORMULA.count(chr(10)) + 1 + 5}: error: " in outcome.stderr
    assert outcome.stdout.count("func.func") == 1


@pytest.mark.parametrize("place", ["// expected-error@+1 {{op has kind}}", "// expected-error@below {{op has kind}}"])
def test_expected_diagnostic_is_accepted(place: str) -> None:
    outcome = opt("--verify-diagnostics", text=WRONG.replace("  %3", f"  {place}\n  %3"))
    assert outcome == Outcome(0, "", "")


def test_expected_diagnostic_that_does_not_come_is_reported() -> None:
    outcome = opt("--verify-diagnostics", text=f"// expected-error {{{{something}}}}\n{FORMULA}")
    assert outcome.status == 1
    assert "<stdin>:1: error: expected error was not produced: something" in outcome.stderr


def test_diagnostic_that_is_not_expected_is_reported() -> None:
    outcome = opt("--verify-diagnostics", text=WRONG)
    assert outcome.status == 1
    assert "<stdin>:5: error: unexpected error: 'reduction.reduce' op has kind" in outcome.stderr


# The driver


@pytest.fixture
def module(context: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return ir.Module.parse(FORMULA)


def break_the_kind(module: Any, *, target: Any) -> None:
    operations = module.body.operations[0].regions[0].blocks[0].operations
    operations[3].operation.attributes["kind"] = ir.StringAttr.get("total")


def fail_to_look_up(module: Any, *, target: Any) -> None:
    {}["key"]


def test_passes_are_timed_and_watched(module: Any) -> None:
    seen: list[str] = []
    times = run_passes(module, FORMULA_PASSES, target=CpuTarget("x86-64"), after_each=lambda name, _: seen.append(name))
    assert [time.name for time in times] == seen
    assert len(seen) == len(FORMULA_PASSES)
    assert all(time.seconds >= 0 for time in times)


def test_pass_that_leaves_an_invalid_module_is_our_fault(module: Any, tmp_path: Path) -> None:
    with pytest.raises(InternalError, match=r'pass break-the-kind failed.*bug of pylazy.*kind "total"') as caught:
        run_passes(module, (break_the_kind,), target=CpuTarget("x86-64"))
    (dump,) = tmp_path.glob("*.mlir")
    assert str(dump) in str(caught.value)
    assert 'kind = "total"' in dump.read_text()


def test_exception_in_a_pass_is_our_fault(module: Any) -> None:
    with pytest.raises(InternalError, match=r"pass fail-to-look-up failed.*KeyError: 'key'"):
        run_passes(module, (fail_to_look_up,), target=CpuTarget("x86-64"))


def test_unknown_upstream_pass_is_named(module: Any) -> None:
    with pytest.raises(CompileError, match="no-such-pass"):
        run_passes(module, ("no-such-pass",), target=CpuTarget("x86-64"))


# Locations


def test_innermost_place_of_a_location_is_found(context: None) -> None:
    inner = ir.Location.name("kernel", ir.Location.file("inner.py", 3, 4))
    call = ir.Location.callsite(inner, [ir.Location.file("outer.py", 5, 6)])
    fused = ir.Location.fused([ir.Location.unknown(), call, ir.Location.file("other.py", 7, 8)])
    for location in (inner, call, fused):
        assert source_line(location) == ("inner.py", 3)
    assert source_line(ir.Location.unknown()) is None


def test_message_ends_with_the_source_line(context: None) -> None:
    message = at_source_line("wrong", ir.Location.file(__file__, 1, 1))
    assert message == f'wrong\n  at {__file__}:1: """`pylazy-opt` and the driver beneath it."""'
    assert at_source_line("wrong", ir.Location.file("gone.py", 1, 1)) == "wrong\n  at gone.py:1"
    assert at_source_line("wrong", ir.Location.unknown()) == "wrong"
