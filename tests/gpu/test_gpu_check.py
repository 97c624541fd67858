"""The check of a GPU: its corpus is right on the CPU, and what is wrong is found."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stand_in import StandInDriver, launches

import pylazy
from pylazy import cli
from pylazy.execution.programs import host_target
from pylazy.gpu_check import bound, timings
from pylazy.gpu_check.__main__ import main
from pylazy.gpu_check.checks import CHECKS, METHODS, QUICK_SHAPES, Shape
from pylazy.gpu_check.devices import HostArrays, TorchTensors
from pylazy.gpu_check.fractions import draw_fractions
from pylazy.gpu_check.functions import compiled_here, make_bundle, prebuilt
from pylazy.gpu_check.judge import FAILED, RIGHT, UNSUPPORTED, WRONG, Run, judge, make_arrays, plan
from pylazy.gpu_check.oracle import gradient_rows
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import UnsupportedError
from pylazy.runtime.gpu_devices import GpuProperties

BY_NAME = {check.name: check for check in CHECKS}
H200 = GpuProperties("NVIDIA H200", 132, (9, 0), 1.98e9)
SMALL = Shape(7, 12, gradients=True)


def statuses(run: Run, functions: Any, arrays: Any = None) -> list[str]:
    return [verdict.status for verdict in judge(run, functions, arrays or TorchTensors("cpu"))]


def test_every_reduction_is_checked() -> None:
    assert {kind for check in CHECKS for kind in METHODS[check.method].kinds} == set(REDUCTIONS)
    assert len(BY_NAME) == len(CHECKS)


def test_quick_checks_are_right_on_the_cpu() -> None:
    checks = [replace(check, dtypes=check.dtypes[:1]) for check in CHECKS if check.quick]
    runs = plan(checks, QUICK_SHAPES, small=True)
    assert any(run.ranged for run in runs)
    assert any(run.dtype == "bfloat16" for run in runs)
    for run in runs:
        assert set(statuses(run, compiled_here("auto"))) == {RIGHT}, str(run)


@pytest.mark.parametrize("name", ["argmin_ties", "kmin_argkmin", "logsumexp_special", "count", "with_parameter"])
def test_check_is_right_on_host_arrays(name: str) -> None:
    run = Run(BY_NAME[name], "float64", Shape(9, 20, batch=(2,)))
    assert statuses(run, compiled_here("auto"), HostArrays("auto"))[0] == RIGHT


def tampered(change: Callable[[Any], Any]) -> Any:
    """Functions whose results are changed."""
    inner = compiled_here("auto")

    def find(check: Any, dtype: str, *, ranges: Any = None) -> Any:
        del ranges  # as if there were none
        function = inner(check, dtype)
        return lambda *arrays: change(function(*arrays))

    return find


def spoil_last(result: Any) -> Any:
    result = result.clone()
    result[-1, ..., 0] = result[-1, ..., 0] + 1
    return result


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gaussian_d3_e1", lambda a: a * (1 + 1e-4), "times what is allowed"),
        ("gaussian_d3_e1", spoil_last, "times what is allowed"),
        ("gaussian_d3_e1", lambda a: a * float("nan"), "infinities or NaN"),
        ("gaussian_d3_e1", lambda a: a[:-1], "shape (6, 1)"),
        ("argmin", lambda a: (a + 1) % 12, "times what is allowed"),
        ("argmin", lambda a: a + 12, "of 12 terms"),
        ("argmin_ties", lambda a: 11 - a, "differ from the oracle"),
        ("argkmin_10", lambda a: a[:, [0] * 10], "stands twice"),
    ],
)
def test_wrong_result_is_found(name: str, change: Any, message: str) -> None:
    verdict = next(judge(Run(BY_NAME[name], "float32", SMALL), tampered(change), TorchTensors("cpu")))
    assert verdict.status == WRONG
    assert message in verdict.message


@pytest.mark.parametrize(("dtype", "columns"), [("float32", 5000), ("float64", 20_001)])
def test_missing_column_is_found(dtype: str, columns: int) -> None:
    def without_last(check: Any, dtype: str, *, ranges: Any = None) -> Any:
        function = compiled_here("auto")(check, dtype, ranges=ranges)
        return lambda x, y, b: function(x, y[:-1], b[:-1])

    assert statuses(Run(BY_NAME["gaussian_d3_e1"], dtype, Shape(24, columns)), without_last) == [WRONG]


def test_wrong_gradient_is_found() -> None:
    scaled = tampered(lambda a: a + 0.01 * (a - a.detach()))  # changes nothing but the gradients
    found = {
        v.what: v.status for v in judge(Run(BY_NAME["gaussian_d3_e1"], "float32", SMALL), scaled, TorchTensors("cpu"))
    }
    assert found == {"sum": RIGHT, "gradient of x": WRONG, "gradient of y": WRONG, "gradient of b": WRONG}


def test_ranges_that_are_not_heeded_are_found() -> None:
    for name in ("gaussian_d3_e1", "argmin"):
        assert statuses(Run(BY_NAME[name], "float32", Shape(20, 150), ranged=True), tampered(lambda a: a)) == [WRONG]


def test_missing_refusal_and_errors_are_found() -> None:
    def no_error(*_: Any) -> Any:
        return None

    def broken(*_: Any) -> Any:
        raise RuntimeError("an illegal memory access\nmore")

    too_few = Run(BY_NAME["argkmin_10"], "float32", Shape(3, 5))
    assert statuses(too_few, compiled_here("auto")) == [RIGHT]
    assert statuses(too_few, lambda *_, **__: no_error) == [WRONG]
    (verdict,) = judge(Run(BY_NAME["argmin"], "float32", SMALL), lambda *_, **__: broken, TorchTensors("cpu"))
    assert (verdict.status, verdict.message) == (FAILED, "RuntimeError: an illegal memory access")


def test_oracle_differentiates_a_gaussian_product() -> None:
    check = BY_NAME["gaussian_d3_e1"]
    x, y, b = make_arrays(check, SMALL)
    e = np.linspace(1, 2, 7)[:, None]
    weights = np.exp(-((x[:, None] - y) ** 2).sum(-1)) * b.T * e
    expected = -2 * (x * weights.sum(1, keepdims=True) - weights @ y)
    found = gradient_rows(check, [x, y, b], e, variable=0, rows=[0, 3, 6])
    np.testing.assert_allclose(found, expected[[0, 3, 6]], rtol=1e-13)


# Bundles --------------------------------------------------------------------------------------------------------------


def test_prebuilt_kernels_are_checked_like_compiled_ones(tmp_path: Path) -> None:
    checks = [replace(BY_NAME[name], dtypes=("float32",)) for name in ("gaussian_d3_e1", "argkmin_10")]
    make_bundle(tmp_path / "k.plzb", targets=[host_target()], checks=checks)
    functions = prebuilt(pylazy.load_bundle(tmp_path / "k.plzb"), "auto")
    assert statuses(Run(checks[0], "float32", SMALL), functions) == [RIGHT] * 4
    assert statuses(Run(checks[1], "float32", SMALL), functions) == [RIGHT]
    assert statuses(Run(checks[0], "float32", Shape(20, 150), ranged=True), functions) == [RIGHT]
    assert statuses(Run(BY_NAME["min"], "float32", SMALL), functions) == [UNSUPPORTED]


def test_command_makes_a_bundle_for_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "k.plzb"
    assert cli.main(["gpu-check", "--make-bundle", str(path), "--only", "argmin_ties", "-t", "sm_80"]) == 0
    assert f"-> {path}" in capsys.readouterr().out
    assert list(pylazy.load_bundle(path)) == ["argmin_ties_float32", "argmin_ties_float64"]


# Times ----------------------------------------------------------------------------------------------------------------


def test_times_are_taken_beside_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    absent = ("pykeops", "triton")  # the one compiles for seconds, the other needs a GPU
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    rows = [
        timings.time_reduction(timed, compiled_here("auto"), TorchTensors("cpu"), H200, points=90, repeats=1)
        for timed in timings.TIMED
        if timed.slots in ("gaussian_d3_e1", "gaussian_d3_e1_gradient_x")
    ]
    for row in rows:
        assert not row["failures"]
        assert list(row["contenders"]) == ["pylazy", "PyTorch dense"]
        assert timings.is_right(row)
        assert row["bound_pairs_per_second"] > 1e12
    words = draw_fractions(rows, gpu="NVIDIA H200", date="2026-01-02").to_svg()
    for expected in ("NVIDIA H200", "2026-01-02", "of the bound", "PyTorch dense"):
        assert expected in words


def test_failure_of_a_peer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class CompilationError(Exception):
        """As of Triton, which is no RuntimeError."""

    def fail() -> Any:
        raise CompilationError("at 3:7\nmore")

    monkeypatch.setattr(timings, "_peers", lambda *_: {"Triton": fail, "none": lambda: None})
    row = timings.time_reduction(
        timings.TIMED[0], compiled_here("auto"), TorchTensors("cpu"), H200, points=20, repeats=1
    )
    assert row["failures"] == {"Triton": "CompilationError: at 3:7"}
    assert list(row["contenders"]) == ["pylazy"]


def test_pykeops_without_cuda_is_not_given_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(config=SimpleNamespace(gpu_available=False))
    monkeypatch.setitem(sys.modules, "pykeops", package)
    monkeypatch.setitem(sys.modules, "pykeops.torch", SimpleNamespace(LazyTensor=None))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "pykeops" else None)
    make = timings._peers(timings.TIMED[0], TorchTensors("cuda"), None)["pykeops"]
    with pytest.raises(UnsupportedError, match="pykeops finds no CUDA libraries"):
        make()


def test_time_without_a_right_result_is_wrong() -> None:
    row = {"dtype": "float32", "rows": 100, "contenders": {}}
    assert not timings.is_right(row)
    assert not timings.is_right(row | {"contenders": {"pylazy": {"relative_error": float("nan")}}})
    assert not timings.is_right(row | {"contenders": {"pylazy": {"relative_error": 0.1}}})


def test_bound_is_that_of_the_busiest_pipe() -> None:
    cycles = 132 * 1.98e9
    assert bound.pairs_per_second({"issue": 8.0, "mufu": 1.0, "fma": 7.0}, H200) == pytest.approx(16 * cycles)
    assert bound.pairs_per_second({"issue": 16.0, "mufu": 1.0}, H200) == pytest.approx(8 * cycles)
    assert bound.pairs_per_second({"issue": 32.0, "fp64": 32.0}, H200) == pytest.approx(2 * cycles)
    assert {timed.slots for timed in timings.TIMED if bound.slots_of(timed.slots) is None} == set()
    assert {timed.check for timed in timings.TIMED} <= set(BY_NAME)


# On a GPU -------------------------------------------------------------------------------------------------------------


def test_whole_check_runs_on_a_gpu(driver: StandInDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "found"
    command = ["--quick", "--points", "20", "--repeats", "1", "-o", str(output)]
    assert main(command) == 0
    assert launches(driver.calls())
    report = json.loads(output.with_suffix(".json").read_text())
    assert report["gpu"]["name"] == "stand-in 0"
    whats = Counter(verdict["what"] for verdict in report["verdicts"] if verdict["status"] == RIGHT)
    assert {"sum", "logsumexp", "argmin", "argkmin", "gradient of x", "gradient of y", "gradient of b"} <= set(whats)
    assert {verdict["status"] for verdict in report["verdicts"]} <= {RIGHT, UNSUPPORTED}
    (row, _) = report["times"]
    assert row["contenders"]["pylazy"]["relative_error"] < 1e-5
    assert row["bound_pairs_per_second"] == pytest.approx(4 * 1e9 * 128 / 8.375, rel=0.1)
    assert "stand-in 0, 4 multiprocessors, 1.00 GHz, sm_90" in output.with_suffix(".svg").read_text()
    text = capsys.readouterr().out
    assert "largest error: " in text
    assert "\x1b" not in text


def test_bundle_is_checked_on_a_gpu(driver: StandInDriver, tmp_path: Path) -> None:
    bundle, output = tmp_path / "k.plzb", tmp_path / "found"
    assert main(["--make-bundle", str(bundle), "--only", "gaussian_d3_e1", "-t", "sm_80"]) == 0
    command = ["--bundle", str(bundle), "--quick", "--only", "gaussian_d3_e1", "--no-times", "-o", str(output)]
    assert main(command) == 0
    assert launches(driver.calls())
    report = json.loads(output.with_suffix(".json").read_text())
    assert {"sum", "gradient of x", "gradient of b"} <= {verdict["what"] for verdict in report["verdicts"]}
    assert {verdict["status"] for verdict in report["verdicts"]} <= {RIGHT, UNSUPPORTED}


def test_host_arrays_are_checked_without_gradients(driver: StandInDriver, tmp_path: Path) -> None:
    output = tmp_path / "found"
    command = ["--quick", "--only", "gaussian_d3_e1", "--no-times", "--host-arrays", "-o", str(output)]
    assert main(command) == 0
    assert launches(driver.calls())
    report = json.loads(output.with_suffix(".json").read_text())
    assert report["arrays"] == HostArrays.name
    assert not output.with_suffix(".svg").exists()


def test_fault_of_the_driver_exits_with_1(
    driver: StandInDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver.fail("cuLaunchKernel", 700)
    command = ["--quick", "--only", "argmin", "--no-times", "-o", str(tmp_path / "found")]
    assert main(command) == 1
    assert "failed: argmin float32, 7 x 12, result: DeviceError" in capsys.readouterr().out


# The command ----------------------------------------------------------------------------------------------------------


def test_without_a_gpu_the_exit_code_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYLAZY_CUDA_DRIVER", "libno-such-driver.so")
    for command in (lambda: main([]), lambda: cli.main(["gpu-check"]), lambda: cli.main(["bench", "--gpu"])):
        assert command() == 2
        assert "no NVIDIA GPU: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--points", "0"], ["--no-such-option"], ["--repeats", "x"]])
def test_command_line_that_says_nothing_sensible_exits_with_2(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_without_a_compiler_a_bundle_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from pylazy.gpu_check import run

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name != "torch" else object())
    with pytest.raises(UnsupportedError, match=r"pylazy gpu-check --make-bundle"):
        run._functions(run.Request(host_arrays=True))


def test_command_loads_nothing_that_may_be_missing() -> None:
    code = (
        "import sys\nfrom pylazy.gpu_check.__main__ import main\nmain([])\n"
        "absent = {'torch', 'torch_mlir', 'mlir', 'llvmlite', 'pykeops', 'triton', 'matplotlib', 'typer', 'rich'}\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & absent))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYLAZY_CUDA_DRIVER": "libno-such-driver.so", "PATH": "/usr/bin"},
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "no NVIDIA GPU: there is no CUDA driver: libno-such-driver.so cannot be loaded" in done.stderr
