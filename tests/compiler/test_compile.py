"""From a traced formula to a kernel image: the same bytes each time, from any thread, and errors that say where."""

import inspect
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cpu_formulas import FORMULAS, Variables, traced

from pylazy import Vi, Vj
from pylazy.compiler import compile as compile_module
from pylazy.compiler.compile import compile_cpu, stages_as_text
from pylazy.compiler.target import CPU_LEVELS
from pylazy.runtime.errors import CompileError, InternalError, UnsupportedError

NAMES = ("gaussian_d3", "logsumexp_weights", "kmin_3", "max_argmax")


def image_bytes(name: str, level: str = "x86-64-v3") -> bytes:
    return compile_cpu(traced(FORMULAS[name](Variables(4, 50, np.float32))), level).to_bytes()


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_same_formula_gives_the_same_bytes(level: str) -> None:
    assert image_bytes("logsumexp_weights", level) == image_bytes("logsumexp_weights", level)


def test_bytes_do_not_depend_on_what_was_compiled_before() -> None:
    program = "import sys; from test_compile import image_bytes; sys.stdout.buffer.write(image_bytes('gaussian_d3'))"
    image_bytes("kmin_3")
    alone = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment())
    assert alone.stdout == image_bytes("gaussian_d3")


def test_threads_that_compile_at_once_get_what_one_thread_gets() -> None:
    alone = [image_bytes(name) for name in NAMES]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            assert list(pool.map(image_bytes, NAMES)) == alone


def test_compiling_leaves_the_traced_formula_as_it_was() -> None:
    formula = traced(FORMULAS["gaussian_d3"](Variables(4, 5, np.float32)))
    before = formula.as_text()
    compile_cpu(formula, "x86-64")
    stages_as_text(formula, "aarch64")
    assert formula.as_text() == before


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_exponentials_are_kept_in_step_where_registers_are_few(level: str) -> None:
    texts = stages_as_text(traced(FORMULAS["gaussian_d3"](Variables(5, 50, np.float32))), level)
    assert ('asm ""' in texts["llvm"]) == (level == "x86-64-v3")
    assert "APP" not in texts["asm"]


def test_unknown_level_names_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'x86-64-v9': expected one of x86-64, x86-64-v3, x86-64-v4, aarch64"):
        image_bytes("gaussian_d3", "x86-64-v9")


# Errors


def too_long_a_row() -> Any:
    x, y = np.ones((3, 200_000), np.float32), np.ones((4, 200_000), np.float32)
    return Vi(x).sqdist(Vj(y)).sum(axis=1, call=False)


def test_unsupported_formula_ends_at_the_line_of_the_user() -> None:
    lines, first = inspect.getsourcelines(too_long_a_row)
    line = first + next(k for k, text in enumerate(lines) if "sqdist" in text)
    with pytest.raises(UnsupportedError) as caught:
        compile_cpu(traced(too_long_a_row()), "x86-64-v3")
    assert f"{__file__}:{line}" in str(caught.value).splitlines()[-1]


def test_failing_upstream_pass_ends_at_the_line_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "CPU_PASSES", ("convert-scf-to-cf{no-such-option}",))
    with pytest.raises(CompileError, match="upstream MLIR has no such pipeline element"):
        image_bytes("gaussian_d3")


def test_failing_pass_is_called_a_bug_and_leaves_the_ir_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduction_broken(module: Any, *, target: Any) -> None:
        raise KeyError("lanes")

    monkeypatch.setattr(compile_module, "KERNEL_PASSES", (*compile_module.KERNEL_PASSES, reduction_broken))
    with pytest.raises(InternalError, match=r"pass reduction-broken failed, which is a bug of pylazy \(the IR was"):
        image_bytes("gaussian_d3")


def test_op_that_is_left_over_is_refused_and_not_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = tuple(some for some in compile_module.CPU_PASSES if "reconcile" not in str(some))[:3]
    monkeypatch.setattr(compile_module, "CPU_PASSES", passes)
    with pytest.raises(CompileError, match="not lowered to LLVM for x86-64-v3"):
        image_bytes("gaussian_d3")


# Hostile but legal: a fault of LLVM or MLIR would end the process, so each runs in one of its own


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


HOSTILE = {
    "a formula of 4500 operations": """
        f = Vi(array(3, 1)) - Vj(array(4, 1))
        for k in range(1500):
            f = (f * 0.5).abs() + 1
        f.sum(axis=1)
    """,
    "a formula that uses each value twice": """
        for dim in (1, 40):
            f = Vi(array(3, dim)) - Vj(array(4, dim))
            for k in range(60):
                f = f * f
            f.sum(axis=1)
            f.min_argmin(axis=1)
    """,
    "fifty variables": """
        f = sum((Vi(array(3, 2)) - Vj(array(4, 2))) ** 2 for _ in range(25))
        f.sum(axis=1)
    """,
    "long rows and long results": """
        k = (-Vi(array(3, 1000)).sqdist(Vj(array(4, 1000)))).exp()
        (k * Vj(array(4, 64))).sum(axis=1)
        k.logsumexp(axis=1, weight=Vj(abs(array(4, 64))))
    """,
    "three hundred neighbours": "Vi(array(3, 2)).sqdist(Vj(array(400, 2))).Kmin_argKmin(300, axis=1)",
    "extents of zero and one": """
        for m in (0, 1):
            for n in (0, 1):
                d = Vi(array(m, 3)).sqdist(Vj(array(n, 3)))
                for axis in (0, 1):
                    d.sum(axis), d.logsumexp(axis), d.min(axis)
    """,
    "numbers at the ends of their range": """
        x, y = Vi(array(3, 1) * 1e38), Vj(array(4, 1) * 1e-38)
        ((x * x).exp() / y).log().sum(axis=1)
        (x ** 1000 + y ** -1000).argmin(axis=1)
        ((x + y) / 0 * 0).Kmin_argKmin(4, axis=1)
    """,
    "a result of a thousand components": "(Vi(array(3, 1000)) * Vj(array(4, 1000))).min_argmin(axis=1)",
}
PRELUDE = """
import numpy as np
from pylazy import Vi, Vj
from pylazy.runtime.errors import PylazyError
random = np.random.default_rng(0)
def array(rows, dim):
    return random.standard_normal((rows, dim)).astype(np.float32)
np.seterr(all="ignore")
try:
{program}
except PylazyError as error:
    print("refused:", error)
print("survived")
"""


@pytest.mark.parametrize("what", HOSTILE)
def test_process_survives(what: str) -> None:
    program = PRELUDE.replace("{program}", textwrap.indent(textwrap.dedent(HOSTILE[what]).strip(), "    "))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, env=environment()
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout.splitlines() == ["survived"]
