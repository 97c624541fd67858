"""The `pylazy` command: what it writes, and what it exits with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylazy
from fuzz_bundles import FROZEN
from pylazy import cli
from pylazy.execution.programs import host_target
from pylazy.runtime import launch
from pylazy.runtime.kernel_cache import KernelCache

FORMULAS = """
[gaussian]
formula = "Exp(-SqDist(x, y) / s) * b"
variables = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)", "s = Pm(1)"]
gradients = false

[two_nearest]
formula = "SqDist(x, y)"
variables = ["y = Vj(3)", "x = Vi(3)"]
reduction = "ArgKMin"
k = 2

[soft]
formula = "-SqDist(x, y)"
variables = ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"]
reduction = "LogSumExpWeight"
weight = "b"
dtype = "float64"
axis = "i"
gradients = false
"""
X, Y = np.arange(21, dtype=np.float32).reshape(7, 3) / 21, np.arange(15, dtype=np.float32).reshape(5, 3) / 15
B = np.arange(5, dtype=np.float32).reshape(5, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with formulas and a bundle of them."""
    made = tmp_path_factory.mktemp("cli")
    (made / "f.toml").write_text(FORMULAS, encoding="utf-8")
    targets = [word for target in dict.fromkeys(("x86-64", host_target(), "sm_80")) for word in ("-t", target)]
    assert cli.main(["compile", str(made / "f.toml"), *targets, "-o", str(made / "k.plzb")]) == 0
    for name, array in (("x", X), ("y", Y), ("b", B)):
        np.save(made / f"{name}.npy", array)
    return made


def gaussian() -> Any:
    squared = ((X[:, None].astype(float) - Y) ** 2).sum(-1)
    return np.exp(-squared / 0.5) @ B


# compile --------------------------------------------------------------------------------------------------------------


def test_compiled_formulas_run(folder: Path) -> None:
    functions = pylazy.load_bundle(folder / "k.plzb")
    assert list(functions) == ["gaussian", "two_nearest", "soft"]
    np.testing.assert_allclose(functions.gaussian(X, Y, B, 0.5), gaussian(), rtol=1e-5)
    squared = ((X[:, None].astype(float) - Y) ** 2).sum(-1)
    np.testing.assert_array_equal(functions.two_nearest(Y, X), np.argsort(squared, axis=1, kind="stable")[:, :2])
    weights = np.arange(10.0).reshape(5, 2) + 1
    first = functions.soft(X.astype(float), Y.astype(float), weights)
    expected = np.log((np.exp(-squared)[:, :, None] * weights[None]).sum(0))
    np.testing.assert_allclose(first, expected)


def test_compile_reports_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "json.plzb"
    assert cli.main(["compile", str(folder / "f.toml"), "-t", "x86-64", "-o", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == {str(output): output.stat().st_size}
    assert pylazy.load_bundle(output, sha256=found["sha256"])


def test_compiling_twice_gives_the_same_file(folder: Path) -> None:
    for name in ("one.plzb", "two.plzb"):
        assert cli.main(["compile", str(folder / "f.toml"), "-t", "x86-64", "-o", str(folder / name)]) == 0
    assert (folder / "one.plzb").read_bytes() == (folder / "two.plzb").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no table"),
        ("[a", "is not TOML"),
        ("a = 1", "a is a value, expected a table [a]"),
        ("[a]\nvariables = []", "[a] has no formula"),
        ("[a]\nformula = 1", "formula = 1, expected a str"),
        ("[a]\nformula = 'x'\nvariables = ['x = Vi(3)']\ncolour = 1", "[a] has 'colour'"),
        ("[a]\nformula = 'x'\nvariables = ['x = Vi(3)']\naxis = 'k'", "axis = 'k', expected one of i, j"),
        ("[a]\nformula = 'x +'\nvariables = ['x = Vi(3)']", "[a]: "),
        ("[a]\nformula = '__import__(\"os\")'\nvariables = []", "[a]: "),
        ("['a b']\nformula = 'x'\nvariables = ['x = Vi(3)']", "expected an ASCII identifier"),
    ],
)
def test_faulty_formulas_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (tmp_path / "f.toml").write_text(text, encoding="utf-8")
    assert cli.main(["compile", str(tmp_path / "f.toml"), "-o", str(tmp_path / "k.plzb")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "k.plzb").exists()


def test_unknown_target_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", str(folder / "f.toml"), "-t", "pdp-11"]) == 1
    assert "target is 'pdp-11', expected one of" in capsys.readouterr().err


# inspect --------------------------------------------------------------------------------------------------------------


def test_inspect_maps_no_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("code was put into memory")

    monkeypatch.setattr(launch.Program, "__init__", refuse)
    bundle = folder / "k.plzb"
    bundle.chmod(0o666)  # looking needs no trust
    try:
        assert cli.main(["inspect", str(bundle), "--why", "--verify"]) == 0
    finally:
        bundle.chmod(0o644)
    text = capsys.readouterr().out
    assert "gaussian(x: (M, 3), y: (N, 3), b: (N, 1), s: (1,))" in text
    assert f"{host_target()}" in text
    assert "every hash, image and launch is as the manifest says" in text
    assert "\x1b" not in text


def test_inspect_writes_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(folder / "k.plzb"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [function["name"] for function in found["manifest"]["functions"]] == ["gaussian", "two_nearest", "soft"]
    assert found["bytes"] == (folder / "k.plzb").stat().st_size


def test_inspect_writes_ir_and_ptx(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(folder / "k.plzb"), "--ir"]) == 0
    text = capsys.readouterr().out
    assert '"reduction.sqdist"' in text
    assert '"reduction.map_reduce"' in text
    assert cli.main(["inspect", str(folder / "k.plzb"), "--asm", "sm_80"]) == 0
    assert ".target sm_80" in capsys.readouterr().out
    assert cli.main(["inspect", str(folder / "k.plzb"), "--asm", "aarch64"]) == 1
    assert "has no code of gaussian for aarch64" in capsys.readouterr().err


def test_damaged_bundle_exits_with_1(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.plzb").write_bytes((folder / "k.plzb").read_bytes()[:-1])
    for command in ("inspect", "run", "bench"):
        assert cli.main([command, str(tmp_path / "bad.plzb")]) == 1
        assert "pylazy: bundle: it does not end with" in capsys.readouterr().err
    assert cli.main(["inspect", str(tmp_path / "absent.plzb")]) == 1
    assert "absent.plzb" in capsys.readouterr().err


# run and bench --------------------------------------------------------------------------------------------------------


def test_run_writes_the_result(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = [word for name in "xyb" for word in ("--arg", f"{name}={folder / name}.npy")]
    output = tmp_path / "a.npy"
    command = ["run", str(folder / "k.plzb"), "gaussian", *arrays, "--arg", "s=0.5", "-o", str(output)]
    assert cli.main(command) == 0
    assert "shape [7, 1], dtype float32" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(output), gaussian(), rtol=1e-5)


def test_run_reads_ranges_from_an_archive(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "[blocks]\nformula = 'SqDist(x, y)'\nvariables = ['x = Vi(3)', 'y = Vj(3)']\nranges = true\n"
    (tmp_path / "f.toml").write_text(text, encoding="utf-8")
    bundle = str(tmp_path / "k.plzb")
    assert cli.main(["compile", str(tmp_path / "f.toml"), "-t", "x86-64", "-o", bundle]) == 0
    half = ([[0, 4], [4, 7]], [1, 2], [[0, 2], [2, 5]])
    np.savez(tmp_path / "ranges.npz", *map(np.array, (*half, half[2], half[1], half[0])))
    arrays = [word for name in "xy" for word in ("--arg", f"{name}={folder / name}.npy")]
    output = tmp_path / "a.npy"
    command = ["run", bundle, *arrays, "-o", str(output)]
    assert cli.main(command) == 1
    assert "was not given 'ranges'" in capsys.readouterr().err
    assert cli.main([*command, "--arg", f"ranges={tmp_path / 'ranges.npz'}"]) == 0
    squared = ((X[:, None].astype(float) - Y) ** 2).sum(-1)
    squared[:4, 2:], squared[4:, :2] = 0, 0
    np.testing.assert_allclose(np.load(output), squared.sum(1)[:, None], rtol=1e-5)


def test_run_refuses_what_it_cannot_use(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(folder / "k.plzb")
    np.save(tmp_path / "objects.npy", np.array([object()]), allow_pickle=True)
    for command, message in (
        (["run", bundle], "function '': the bundle has gaussian"),
        (["run", bundle, "gaussian"], "was not given 'x'"),
        (["run", bundle, "gaussian", "--arg", "x"], "expected NAME=FILE.npy"),
        (["run", bundle, "gaussian", "--arg", f"x={tmp_path / 'objects.npy'}"], "is no array of numbers"),
        (["run", bundle, "gaussian", "--sha256", "0" * 64], "expected 0000"),
    ):
        assert cli.main(command) == 1
        assert message in capsys.readouterr().err


def test_bench_times_every_level(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYLAZY_CPU_LEVEL", raising=False)
    assert cli.main(["bench", str(folder / "k.plzb"), "gaussian", "-m", "50", "-n", "60", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["measured"]
    assert [row["level"] for row in found] == list(dict.fromkeys((host_target(), "x86-64")))
    assert "PYLAZY_CPU_LEVEL" not in os.environ


# info, cache, opt -----------------------------------------------------------------------------------------------------


def test_info_is_a_block_for_an_issue(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("```text\n")
    assert text.endswith("```\n")
    assert str(Path.home()) not in text
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pylazy"] == pylazy.__version__
    assert host_target() in found["processor"]


def test_info_loads_neither_compiler_nor_torch() -> None:
    code = (
        "import sys\nfrom pylazy import cli\ncli.main(['info'])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'torch_mlir', 'llvmlite'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel cache with two entries and a file that is none."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("PYLAZY_CACHE_DIR", str(directory))
    monkeypatch.delenv("PYLAZY_CACHE", raising=False)
    file = pylazy.load_bundle(FROZEN, trust=True).file
    kernel = file.kernels["gaussian"]
    for letter in "ab":
        KernelCache(directory=directory).put(letter * 64, file.image(kernel, kernel.code[0]))
    (directory / "notes.txt").write_text("mine", encoding="utf-8")
    return directory


def test_cache_is_listed_and_verified(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "ls"]) == 0
    text = capsys.readouterr().out
    assert "2 kernels" in text
    assert "a" * 16 in text
    assert cli.main(["cache", "ls", "--json"]) == 0
    assert [row["target"] for row in json.loads(capsys.readouterr().out)["entries"]] == ["x86-64"] * 2
    assert cli.main(["cache", "verify"]) == 0
    (cache / ("a" * 64)).write_bytes(b"damaged")
    assert cli.main(["cache", "verify"]) == 1
    assert f"{'a' * 64} cannot be used" in capsys.readouterr().out


def test_cache_is_pruned_and_cleared(cache: Path) -> None:
    os.utime(cache / ("a" * 64), (0, 0))
    assert cli.main(["cache", "prune", "--days", "1"]) == 0
    assert sorted(path.name for path in cache.iterdir()) == ["b" * 64, "notes.txt"]
    assert cli.main(["cache", "clear"]) == 0
    assert [path.name for path in cache.iterdir()] == ["notes.txt"]


def test_cache_that_is_off_is_said_to_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYLAZY_CACHE", "0")
    assert cli.main(["cache", "ls"]) == 1
    assert "the kernel cache is off" in capsys.readouterr().err


def test_opt_is_pylazy_opt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["opt", "--help"]) == 0
    assert "usage: pylazy-opt" in capsys.readouterr().out
    (tmp_path / "a.mlir").write_text("module {\n}\n", encoding="utf-8")
    assert cli.main(["opt", "--pass-pipeline", "cse", str(tmp_path / "a.mlir")]) == 0
    assert "module" in capsys.readouterr().out
    assert cli.main(["opt", "--no-such-option"]) == 2


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "--asm"], ["bench", "k", "-m", "0"], ["cache", "x"]])
def test_command_line_that_says_nothing_sensible_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_importing_pylazy_loads_neither_typer_nor_rich() -> None:
    code = "import sys, pylazy; pylazy.Bundle; print([name for name in ('typer', 'rich') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
