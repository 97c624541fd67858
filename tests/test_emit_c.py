"""Kernels as C: built with the system's compiler, with the bits of the live reduction."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pylazy
from pylazy import Pm, Vi, Vj, cli
from pylazy.commands.emit_c import emit_c
from pylazy.execution.programs import host_target
from pylazy.runtime.bundle import BundleFile
from pylazy.runtime.errors import UnsupportedError
from pylazy.runtime.threads import get_num_threads, set_num_threads

ROOT = Path(__file__).parent.parent
WINE_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/lib/wine"))  # Debian puts wine64 there
COMPILER = os.environ.get("CC") or shutil.which("cc")
pytestmark = pytest.mark.skipif(not COMPILER or not shutil.which("ar"), reason="no C compiler")
SHARED_LIBRARY = f"libkernels.{'dylib' if sys.platform == 'darwin' else 'so'}"
random = np.random.default_rng(0)
OK, INVALID_ARGUMENT = 0, 1


class Tensor(ctypes.Structure):
    """`DLTensor` of DLPack."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def tensor(array: Any) -> Tensor:
    codes = {"i": 0, "u": 1, "f": 2}
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    strides = (ctypes.c_int64 * array.ndim)(*(step // array.itemsize for step in array.strides))
    return Tensor(
        array.ctypes.data, 1, 0, array.ndim, codes[array.dtype.kind], array.itemsize * 8, 1, shape, strides, 0
    )


def rows(count: int, dim: int, dtype: Any = np.float32) -> Any:
    return random.random((count, dim)).astype(dtype)


def symbolic() -> dict[str, Any]:
    width, b, x, y = Pm(0, 1), Vj(1, 1), Vi(2, 3), Vj(3, 3)
    squared = x.sqdist(y)
    x0, y1 = Vi(0, 3), Vj(1, 3)
    return {
        "gaussian": ((-squared / width).exp() * b).sum(axis=1),
        "lse": (-x0.sqdist(y1)).logsumexp(axis=1),
        "average": x0.sqdist(y1).mean(axis=1),
        "two": x0.sqdist(y1).Kmin_argKmin(2, axis=1),
        "nearest": x0.sqdist(y1).argmin(axis=1),
        "over_i": (x0 - y1).square().max(axis=0),
        "soft": (-x0.sqdist(y1)).sumsoftmaxweight(Vj(2, 1), axis=1),
    }


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("c")
    made = pylazy.Bundle()
    for name, reduction in symbolic().items():
        names = {"gaussian": ("width", "b", "x", "y"), "soft": ("x", "y", "b")}.get(name, ("x", "y"))
        made.add(reduction, name=name, dtype="float64" if name == "average" else "float32", arguments=names)
    made.compile(tuple(dict.fromkeys(("x86-64", host_target()))))
    emit_c(BundleFile(made.to_bytes()), folder / "k", ("header", "source"))
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    subprocess.run([str(COMPILER), *flags, "k.c", "-o", "k.so"], cwd=folder, check=True)
    found = ctypes.CDLL(str(folder / "k.so"))
    found.plz_last_error.restype = ctypes.c_char_p
    return found


def call(library: Any, name: str, inputs: Any, outputs: Any, m: int, n: int) -> int:
    size = getattr(library, f"plz_{name}_scratch_bytes")
    size.restype = ctypes.c_size_t
    size.argtypes = (ctypes.c_int64, ctypes.c_int64)
    count = size(m, n)
    scratch = ctypes.create_string_buffer(count) if count else None
    tensors = [tensor(array) for array in (*inputs, *outputs)]
    return int(getattr(library, f"plz_{name}")(*map(ctypes.byref, tensors), scratch, ctypes.c_size_t(count)))


def check(library: Any, name: str, reduction: Any, inputs: Any, m: int, n: int) -> None:
    expected = reduction(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    outputs = [np.zeros((len(array), array[0].size if len(array) else 1), array.dtype) for array in expected]
    assert call(library, name, inputs, outputs, m, n) == OK, library.plz_last_error()
    for found, live in zip(outputs, expected, strict=True):
        assert np.array_equal(found.ravel(), live.ravel())


@pytest.mark.parametrize("name", ["gaussian", "lse", "average", "two", "nearest", "over_i"])
@pytest.mark.parametrize(("m", "n"), [(7, 5), (65, 1031), (1, 5000), (2, 300_000), (5000, 3)])
def test_c_has_the_bits_of_the_live_reduction(library: Any, name: str, m: int, n: int) -> None:
    dtype = np.float64 if name == "average" else np.float32
    x, y = rows(m, 3, dtype), rows(n, 3, dtype)
    inputs = (np.array([0.5], dtype), rows(n, 1), x, y) if name == "gaussian" else (x, y)
    check(library, name, symbolic()[name], inputs, m, n)


def test_gradients_are_those_of_the_live_reduction(library: Any) -> None:
    inputs = (np.array([0.5], np.float32), rows(50, 1), rows(70, 3), rows(50, 3))
    tensors = [torch.tensor(array).requires_grad_() for array in inputs]
    result = symbolic()["gaussian"](*tensors)
    cotangent = rows(70, 1)
    result.backward(torch.from_numpy(cotangent))
    # The outputs stand in the order in which the formula uses the arguments.
    order = [2, 3, 0, 1]
    outputs = [np.zeros_like(inputs[number]) for number in order]
    assert call(library, "gaussian_gradient_x_y_width_b", (*inputs, cotangent), outputs, 70, 50) == OK
    for number, found in zip(order, outputs, strict=True):
        assert np.array_equal(found, tensors[number].grad)
    x, y = (torch.tensor(array).requires_grad_() for array in (inputs[2], inputs[3]))
    lse = symbolic()["lse"](x, y)
    lse.backward(torch.from_numpy(cotangent))
    found = np.zeros_like(inputs[2])
    given = (inputs[2], inputs[3], lse.detach().numpy(), cotangent)
    assert call(library, "lse_gradient_x", given, (found,), 70, 50) == OK
    np.testing.assert_allclose(found, x.grad, rtol=1e-5, atol=1e-7)
    x.grad = None
    soft = symbolic()["soft"](x, y, torch.from_numpy(inputs[1]))
    soft.backward(torch.from_numpy(cotangent))
    given = (inputs[2], inputs[3], inputs[1], soft.detach().numpy(), cotangent)
    assert call(library, "soft_gradient_x", given, (found,), 70, 50) == OK
    np.testing.assert_allclose(found, x.grad, rtol=1e-5, atol=1e-6)


def test_threads_of_the_runtime_do_not_change_the_bits(library: Any) -> None:
    before = get_num_threads()
    set_num_threads(3)
    try:
        inputs = (np.array([0.5], np.float32), rows(4000, 1), rows(300, 3), rows(4000, 3))
        check(library, "gaussian", symbolic()["gaussian"], inputs, 300, 4000)
    finally:
        set_num_threads(before)


def test_nothing_is_reduced_to_the_neutral_element(library: Any) -> None:
    out = np.ones((4, 1), np.float32)
    assert call(library, "lse", (rows(4, 3), rows(0, 3)), (out,), 4, 0) == OK
    assert np.all(out == -np.inf)
    assert call(library, "lse", (rows(0, 3), rows(4, 3)), (rows(0, 1),), 0, 4) == OK


def refusals() -> list[tuple[str, Any, Any, str]]:
    out, x, y = np.zeros((4, 1), np.float32), rows(4, 3), rows(5, 3)
    places = np.zeros((4, 1), np.int64)
    return [
        ("lse", (x, rows(5, 2)), (out,), "y has rows of 2 elements, expected 3"),
        ("lse", (x, y.astype(np.float64)), (out,), "y has type code 2 of 64 bits, expected 2 of 32"),
        ("lse", (x, y[:, None]), (out,), "y has 3 dimensions, expected 2"),
        ("lse", (x, np.zeros((5, 6), np.float32)[:, ::2]), (out,), "y is not contiguous"),
        ("lse", (x, y), (out[:3],), "result has 3 rows, the arrays before it 4"),
        ("nearest", (x, rows(0, 3)), (places,), "0 elements to choose from, expected at least 1"),
        ("two", (x, rows(1, 3)), (np.zeros((4, 2), np.float32), np.zeros((4, 2), np.int64)), "expected at least 2"),
    ]


@pytest.mark.parametrize(("name", "inputs", "outputs", "message"), refusals(), ids=lambda value: str(value)[:20])
def test_array_that_does_not_fit_is_refused(library: Any, name: str, inputs: Any, outputs: Any, message: str) -> None:
    assert call(library, name, inputs, outputs, 4, max(len(inputs[1]), 1)) == INVALID_ARGUMENT
    assert message in library.plz_last_error().decode()


def test_missing_array_and_scratch_are_refused(library: Any) -> None:
    x, y, out = tensor(rows(4, 3)), tensor(rows(100_000, 3)), tensor(np.zeros((4, 1), np.float32))
    assert library.plz_lse(None, ctypes.byref(y), ctypes.byref(out), None, ctypes.c_size_t(0)) == INVALID_ARGUMENT
    assert b"x is null" in library.plz_last_error()
    given = (ctypes.byref(x), ctypes.byref(y), ctypes.byref(out))
    assert library.plz_lse(*given, None, ctypes.c_size_t(0)) == INVALID_ARGUMENT
    assert b"0 bytes of scratch, expected" in library.plz_last_error()


# Programs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pylazy compile` makes for the C example."""
    folder = tmp_path_factory.mktemp("example")
    formulas = str(ROOT / "examples" / "c" / "gaussian.toml")
    targets = [word for target in dict.fromkeys(("x86-64", host_target())) for word in ("-t", target)]
    command = ["compile", formulas, *targets, "--emit", "header,static,shared", "-o", str(folder / "kernels.plzb")]
    assert cli.main(command) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "kernels.h",
        "kernelsConfig.cmake",
        "libkernels.a",
        SHARED_LIBRARY,
    ]
    return folder


@pytest.mark.parametrize("library", [["-L.", "-lkernels", "-Wl,-rpath,."], ["libkernels.a"]], ids=["shared", "static"])
def test_example_runs(example: Path, library: list[str]) -> None:
    source = str(ROOT / "examples" / "c" / "gaussian.c")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([str(COMPILER), *flags, source, "-I.", *library, "-lm", "-o", "run"], cwd=example, check=True)
    done = subprocess.run(["./run"], cwd=example, capture_output=True, text=True, check=True)
    assert "refused: plz_gaussian: y has rows of 2 elements, expected 3" in done.stdout


def test_header_is_cplusplus_too(example: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", "c++"]
    subprocess.run([compiler, *flags, str(example / "kernels.h")], check=True)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no CMake")
@pytest.mark.parametrize("target", ["kernels", "kernels_shared"])
def test_example_builds_with_cmake(example: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(example C)\nfind_package(kernels CONFIG REQUIRED)\n"
        f'add_executable(run "{ROOT}/examples/c/gaussian.c")\ntarget_link_libraries(run PRIVATE pylazy::{target} m)\n',
        encoding="utf-8",
    )
    build = tmp_path / "build"
    subprocess.run(["cmake", "-S", tmp_path, "-B", build, f"-Dkernels_DIR={example}"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)
    subprocess.run([build / "run"], check=True)


def test_code_of_aarch64_is_right_under_emulation(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
    if compiler is None or emulator is None:
        pytest.skip("no cross-compiler or emulator for aarch64")
    formulas = str(ROOT / "examples" / "c" / "gaussian.toml")
    command = ["compile", formulas, "-t", "aarch64", "--emit", "header,source", "-o", str(tmp_path / "kernels.plzb")]
    assert cli.main(command) == 0
    source = str(ROOT / "examples" / "c" / "gaussian.c")
    subprocess.run(
        [compiler, "-O2", "-static", source, "kernels.c", "-I.", "-lm", "-o", "run"], cwd=tmp_path, check=True
    )
    subprocess.run([emulator, str(tmp_path / "run")], check=True)


def test_older_processor_takes_the_lower_level(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-x86_64-static")
    if emulator is None or not host_target().startswith("x86-64"):
        pytest.skip("no emulator for x86-64")
    formulas = str(ROOT / "examples" / "c" / "gaussian.toml")
    targets = [word for target in ("x86-64", "x86-64-v3", "x86-64-v4") for word in ("-t", target)]
    command = ["compile", formulas, *targets, "--emit", "header,source", "-o", str(tmp_path / "kernels.plzb")]
    assert cli.main(command) == 0
    source = str(ROOT / "examples" / "c" / "gaussian.c")
    flags = ["-O2", "-static", source, "kernels.c", "-I.", "-lm", "-o", "run"]
    subprocess.run([str(COMPILER), *flags], cwd=tmp_path, check=True)
    for processor in ("Nehalem", "Haswell"):  # SSE4.2; AVX2
        subprocess.run([emulator, "-cpu", processor, str(tmp_path / "run")], check=True)


def test_code_is_right_on_windows_under_emulation(tmp_path: Path) -> None:
    compiler, emulator = shutil.which("x86_64-w64-mingw32-gcc"), shutil.which("wine64", path=WINE_PATH)
    if compiler is None or emulator is None:
        pytest.skip("no compiler for Windows, or no wine64")
    formulas = str(ROOT / "examples" / "c" / "gaussian.toml")
    command = ["compile", formulas, "-t", "x86-64", "-t", "x86-64-v3", "--emit", "header,source"]
    assert cli.main([*command, "-o", str(tmp_path / "kernels.plzb")]) == 0
    source = str(ROOT / "examples" / "c" / "gaussian.c")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run([compiler, *flags, source, "kernels.c", "-I.", "-o", "run.exe"], cwd=tmp_path, check=True)
    done = subprocess.run([emulator, "run.exe"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "refused: plz_gaussian: y has rows of 2 elements, expected 3" in done.stdout


def test_bundle_has_the_header_of_what_c_has(tmp_path: Path) -> None:
    made = pylazy.Bundle()
    x, y = Vi(0, 3), Vj(1, 3)
    made.add(x.sqdist(y).sum(axis=1), name="plain")
    made.add(x.sqdist(y).sum(axis=1), name="blocks", ranged=True, gradients=False)
    file = BundleFile(made.compile(["x86-64", "sm_75"]).to_bytes())
    text = file.text(file.manifest.header)
    assert "int32_t plz_plain(const DLTensor *x0, const DLTensor *y1, DLTensor *result" in text
    assert "plz_plain_gradient_x0_y1(" in text
    assert "plz_blocks" not in text
    (tmp_path / "kernels.h").write_text(text, encoding="utf-8")
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run([str(COMPILER), *flags, str(tmp_path / "kernels.h")], check=True)
    assert not BundleFile(made.compile(["sm_75"]).to_bytes()).manifest.header


# Refusals -------------------------------------------------------------------------------------------------------------


def test_c_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    reduction = Vi(0, 3).sqdist(Vj(1, 3)).sum(axis=1)
    made = pylazy.Bundle()
    made.add(reduction, name="last_error", gradients=False)
    file = BundleFile(made.compile(["x86-64"]).to_bytes())
    with pytest.raises(UnsupportedError, match="plz_last_error is a name of the C interface"):
        emit_c(file, tmp_path / "k", ("header",))
    made = pylazy.Bundle()
    made.add(reduction, name="k", gradients=False, arguments=("int", "y"))
    file = BundleFile(made.compile(["sm_80"]).to_bytes())
    with pytest.raises(UnsupportedError, match="argument int of k: C needs another name"):
        emit_c(file, tmp_path / "k", ("header",))
    with pytest.raises(UnsupportedError, match="expected a C identifier"):
        emit_c(file, tmp_path / "a-b", ("header",))
    waves = (Vi(rows(3, 2)) * Vj(rows(4, 2) * 1j)).sum(axis=1, call=False)
    for what, formula, ranged in (("ranges", reduction, True), ("complex numbers", waves, False)):
        made = pylazy.Bundle()
        made.add(formula, name="f", gradients=False, ranged=ranged)
        file = BundleFile(made.compile(["x86-64"]).to_bytes())
        with pytest.raises(UnsupportedError, match=f"f has {what}, which the C interface does not"):
            emit_c(file, tmp_path / "k", ("header",))
    assert not list(tmp_path.iterdir())
