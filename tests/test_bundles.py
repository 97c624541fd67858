"""Bundles: what is compiled ahead gives what the live reduction gives, without the compiler."""

import inspect
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pylazy
from fuzz_bundles import FROZEN, FROZEN_1_1
from pylazy import LazyTensor, Pm, Vi, Vj
from pylazy.bundling.bundled_programs import LEVEL_VARIABLE, BundledExecutable
from pylazy.execution.programs import host_target
from pylazy.runtime import launch
from pylazy.runtime.bundle import BundleFile
from pylazy.runtime.errors import (
    BundleFormatError,
    DeviceError,
    DtypeError,
    ShapeError,
    UnsupportedError,
    UntrustedBundleError,
)

FROZEN_SHA256 = "c379221a1d732ed9e03139d220c5afdf1a78596de2cb15946c10d60794787f32"
FROZEN_1_1_SHA256 = "110b55339f7727c0c3d9335dfcfc9a84afd20e63c4114b73cb15a2e1dccd3da3"
TARGETS = tuple(dict.fromkeys(("x86-64", host_target())))
random = np.random.default_rng(0)


def rows(count: int, dim: int, dtype: Any = np.float32) -> Any:
    return random.random((count, dim)).astype(dtype)


X, Y, B, P = rows(7, 3), rows(5, 3), rows(5, 1), rows(1, 3)[0]


def kernel(x: Any, y: Any, width: float = 0.5) -> LazyTensor:
    return (-Vi(x).sqdist(Vj(y)) / width).exp()


def gaussian(x: Any, y: Any, b: Any, **options: Any) -> Any:
    return (kernel(x, y) * Vj(b)).sum(axis=1, **options)


def all_reductions() -> dict[str, tuple[Any, ...]]:
    """By name a function of arrays and options, then its arrays."""
    x64, y64 = rows(7, 3, np.float64), rows(5, 3, np.float64)
    return {
        "gaussian": (gaussian, X, Y, B),
        "double": (lambda x, y, **o: kernel(x, y).sum(axis=1, **o), x64, y64),
        "over_i": (lambda x, y, b, **o: (kernel(x, y) * Vj(b)).sum(axis=0, **o), X, Y, B),
        "average": (lambda x, y, **o: Vi(x).sqdist(Vj(y)).mean(axis=1, **o), X, Y),
        "lse": (lambda x, y, **o: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1, **o), X, Y),
        "weighted_lse": (
            lambda x, y, b, **o: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1, weight=Vj(b), **o),
            X,
            Y,
            rows(5, 3),
        ),
        "soft": (lambda x, y, b, **o: (-Vi(x).sqdist(Vj(y))).sumsoftmaxweight(Vj(b), axis=1, **o), X, Y, B),
        "nearest": (lambda x, y, **o: Vi(x).sqdist(Vj(y)).argmin(axis=1, **o), X, Y),
        "both": (lambda x, y, **o: Vi(x).sqdist(Vj(y)).min_argmin(axis=1, **o), X, Y),
        "two": (lambda x, y, **o: Vi(x).sqdist(Vj(y)).Kmin_argKmin(2, axis=1, **o), X, Y),
        "vectors": (lambda x, y, **o: (Vi(x) - Vj(y)).Kmin(2, axis=1, **o), X, Y),
        "kept": (lambda x, y, **o: kernel(x, y).sum(axis=1, keepdim=True, **o), X, Y),
        "scaled": (lambda x, p, y, **o: (Vi(x) * Pm(p) - Vj(y)).square().sum(-1).sum(axis=1, **o), X, P, Y),
        "product": (lambda x, y, b, **o: kernel(x, y).__matmul__(b, **o), X, Y, B[:, 0]),
        "wide_product": (lambda x, y, b, **o: kernel(x, y).__matmul__(b, **o), X, Y, rows(5, 3)),
    }


REDUCTIONS = all_reductions()


@pytest.fixture(scope="session")
def bundle() -> pylazy.Bundle:
    made = pylazy.Bundle()
    for name, (function, *arrays) in REDUCTIONS.items():
        made.add(function(*arrays, call=False), name=name, gradients=name in {"gaussian", "double", "lse", "average"})
    return made.compile(TARGETS)


@pytest.fixture(scope="session")
def loaded(bundle: pylazy.Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("bundles") / "k.plzb"
    bundle.save(path)
    return pylazy.load_bundle(path)


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        return
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


# Results --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REDUCTIONS)
def test_result_has_the_bits_of_the_live_reduction(loaded: Any, name: str) -> None:
    function, *arrays = REDUCTIONS[name]
    same(loaded[name](*arrays), function(*arrays))


@pytest.mark.parametrize("name", ["gaussian", "lse", "nearest", "two", "over_i", "product"])
@pytest.mark.parametrize(("m", "n"), [(1, 300), (300, 2), (65, 1031), (0, 5), (1000, 1000)])
def test_other_sizes_need_no_other_bundle(loaded: Any, name: str, m: int, n: int) -> None:
    function, *shown = REDUCTIONS[name]
    arrays = [rows(m, 3), rows(n, 3), *([rows(n, 1).reshape((n, *shown[2].shape[1:]))] if len(shown) > 2 else [])]
    same(loaded[name](*arrays), function(*arrays))


def test_nothing_is_reduced_to_the_neutral_element(loaded: Any) -> None:
    same(loaded.gaussian(X, rows(0, 3), rows(0, 1)), gaussian(X, rows(0, 3), rows(0, 1)))
    same(loaded.lse(X, rows(0, 3)), np.full((7, 1), -np.inf, np.float32))


def test_batches_broadcast(loaded: Any) -> None:
    x, y = random.random((2, 1, 7, 1, 3)).astype(np.float32), random.random((4, 1, 5, 3)).astype(np.float32)
    live = (-LazyTensor(x).sqdist(LazyTensor(y))).logsumexp(axis=-2)
    same(loaded.lse(x, y), live)


def test_batches_of_a_product_are_those_of_its_vectors(loaded: Any) -> None:
    b = random.random((4, 5, 3)).astype(np.float32)
    same(loaded.wide_product(X, Y, b), kernel(X, Y) @ b)


def test_strided_arrays_are_read_in_place_or_copied(loaded: Any) -> None:
    wide = rows(14, 6)
    same(loaded.gaussian(wide[::2, ::2], Y, B), gaussian(wide[::2, ::2], Y, B))


def test_tensors_give_tensors(loaded: Any) -> None:
    arrays = [torch.from_numpy(array) for array in (X, Y, B)]
    found = loaded.gaussian(*arrays)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, gaussian(*arrays))


def test_arrays_of_other_libraries_come_by_dlpack(loaded: Any) -> None:
    class Foreign:
        def __dlpack__(self, **options: Any) -> Any:
            return X.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return X.__dlpack_device__()

    same(loaded.gaussian(Foreign(), Y, B), gaussian(X, Y, B))


def test_result_is_written_into_out(loaded: Any) -> None:
    out = np.zeros((7, 1), np.float32)
    assert loaded.gaussian(X, Y, B, out=out) is out
    same(out, gaussian(X, Y, B))


def test_numbers_of_the_formula_are_defaults(loaded: Any) -> None:
    same(loaded.gaussian(X, Y, B, p2=0.25), (kernel(X, Y, 0.25) * Vj(B)).sum(axis=1))


def test_float32_arrays_widen_to_a_float64_function(loaded: Any) -> None:
    same(loaded.double(X, Y), loaded.double(X.astype(np.float64), Y.astype(np.float64)))


def test_threads_share_a_function(bundle: pylazy.Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "k.plzb")
    function = pylazy.load_bundle(tmp_path / "k.plzb").gaussian
    expected, found = gaussian(X, Y, B), []
    threads = [threading.Thread(target=lambda: found.append(function(X, Y, B))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for result in found:
        same(result, expected)


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian", "double", "lse", "average"])
def test_gradients_are_those_of_the_live_reduction(loaded: Any, name: str) -> None:
    function, *arrays = REDUCTIONS[name]
    gradients = []
    for run in (loaded[name], function):
        tensors = [torch.from_numpy(array).clone().requires_grad_() for array in arrays]
        run(*tensors).square().sum().backward()
        gradients.append([tensor.grad for tensor in tensors])
    for found, expected in zip(*gradients, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_gradient_with_respect_to_some_arguments(loaded: Any, needed: tuple[int, ...]) -> None:
    gradients = []
    for run in (loaded.gaussian, gaussian):
        tensors = [torch.from_numpy(array).clone() for array in (X, Y, B)]
        for number in needed:
            tensors[number].requires_grad_()
        run(*tensors).square().sum().backward()
        gradients.append([tensors[number].grad for number in needed])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_gradient_in_batches(loaded: Any) -> None:
    gradients = []
    for run in (loaded.lse, lambda x, y: (-LazyTensor(x).sqdist(LazyTensor(y))).logsumexp(axis=-2)):
        x = torch.arange(42, dtype=torch.float32).reshape(2, 7, 1, 3).div(40).requires_grad_()
        y = torch.from_numpy(Y[None]).clone().requires_grad_()
        run(x, y).square().sum().backward()
        gradients.append((x.grad, y.grad))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_function_without_gradients_says_so_at_once(loaded: Any) -> None:
    x, y = torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)
    with pytest.raises(
        UnsupportedError, match=r"x0 requires a gradient, and the bundle has none of both(.|\n)*at .*test_"
    ):
        loaded.both(x, y)
    with torch.no_grad():
        loaded.both(x, y)
    assert loaded.nearest(x, y).dtype == torch.int64, "positions have no gradient"


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((X, Y), TypeError, "was not given 'y3'"),
        ((X, Y, B, B), TypeError, "takes 3 arrays, found 4"),
        ((X, Y[:, :2], B), ShapeError, r"y1 has shape \(5, 2\), expected array of shape \(N, 3\)"),
        ((X[0], Y, B), ShapeError, r"x0 has shape \(3,\)"),
        ((X, Y, B[:4]), ShapeError, "y3 has 4 rows, y1 has 5"),
        ((X.reshape(7, 3, 1), Y, B), ShapeError, "x0 has shape"),
        ((X.astype(np.float64), Y, B), DtypeError, "x0 has dtype float64, and gaussian was compiled for float32"),
        ((X.astype(np.int32), Y, B), DtypeError, "x0 has dtype int32"),
        ((X.tolist(), Y, B), DtypeError, "x0 is of type list"),
        ((np.zeros((2, 7, 1, 3), np.float32), np.zeros((3, 1, 5, 3), np.float32), B), ShapeError, "do not broadcast"),
        ((torch.zeros(7, 3, device="meta"), Y, B), DeviceError, "devices cpu and meta"),
    ],
)
def test_array_that_does_not_fit_is_refused_at_the_users_line(
    loaded: Any, arrays: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=rf"{message}(.|\n)*at .*test_bundles"):
        loaded.gaussian(*arrays)


def test_sparse_tensor_is_refused_also_after_a_dense_one(loaded: Any) -> None:
    x, y, b = (torch.from_numpy(array) for array in (X, Y, B))
    loaded.gaussian(x, y, b)
    with pytest.raises(DtypeError, match=r"x0 is a tensor of layout"):
        loaded.gaussian(x.to_sparse(), y, b)


def test_argument_of_no_name_is_refused(loaded: Any) -> None:
    with pytest.raises(TypeError, match="was given 'z', which it does not take"):
        loaded.gaussian(X, Y, B, z=1)
    with pytest.raises(TypeError, match="was given 'x0', twice"):
        loaded.gaussian(X, Y, B, x0=X)


def test_empty_argmin_and_large_k_are_refused(loaded: Any) -> None:
    with pytest.raises(ShapeError, match="which is empty"):
        loaded.nearest(X, rows(0, 3))
    with pytest.raises(ShapeError, match="K is 2, and axis j has 1 elements"):
        loaded.two(X, rows(1, 3))


def test_unknown_function_is_named_with_those_that_are_there(loaded: Any) -> None:
    with pytest.raises(AttributeError, match="no function 'gausian', expected one of gaussian"):
        _ = loaded.gausian


def test_bundle_refuses_what_it_cannot_keep() -> None:
    made = pylazy.Bundle()
    with pytest.raises(UnsupportedError, match="the bundle is empty"):
        made.compile()
    reduction = gaussian(X, Y, B, call=False)
    for name in ("a b", "class", "__init__", "é", ""):
        with pytest.raises(UnsupportedError, match="expected an ASCII identifier"):
            made.add(reduction, name=name)
    with pytest.raises(UnsupportedError, match="expected 3 identifiers, one for each array"):
        made.add(reduction, name="g", arguments=("x", "y"))
    made.add(reduction, name="g")
    with pytest.raises(UnsupportedError, match="has a function 'g' already"):
        made.add(reduction, name="g")
    with pytest.raises(UnsupportedError, match="is not compiled"):
        made.to_bytes()
    with pytest.raises(UnsupportedError, match="target is 'pdp-11', expected one of x86-64"):
        made.compile(["pdp-11"])


# Symbolic variables ---------------------------------------------------------------------------------------------------


def test_symbolic_variables_are_arguments_in_the_order_of_their_indices(tmp_path: Path) -> None:
    width, b, x, y = Pm(0, 1), Vj(1, 1), Vi(2, 3), Vj(3, 3)
    reduction = ((-x.sqdist(y) / width).exp() * b).sum(axis=1)
    made = pylazy.Bundle()
    made.add(reduction, name="g", arguments=("width", "b", "x", "y"), dtype="float32")
    made.compile(TARGETS).save(tmp_path / "k.plzb")
    function = pylazy.load_bundle(tmp_path / "k.plzb").g
    half = np.array([0.5], np.float32)
    assert str(inspect.signature(function)) == "(width, b, x, y, *, out=None, backend=None, device_id=-1)"
    same(function(half, B, X, Y), reduction(half, B, X, Y))
    same(function(0.5, B, X, Y), reduction(half, B, X, Y))
    gradients = []
    for run in (function, reduction):
        tensors = [torch.tensor(array).requires_grad_() for array in (half, B, X, Y)]
        run(*tensors).square().sum().backward()
        gradients.append([tensor.grad for tensor in tensors])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


# What is shown --------------------------------------------------------------------------------------------------------


def test_signature_and_documentation_name_the_arguments(tmp_path: Path) -> None:
    made = pylazy.Bundle()
    made.add(gaussian(X, Y, B, call=False), name="g", gradients=False, arguments=("x", "y", "b"))
    made.compile(["x86-64"]).save(tmp_path / "k.plzb")
    function = pylazy.load_bundle(tmp_path / "k.plzb").g
    assert str(inspect.signature(function)) == "(x, y, b, *, p2=0.5, out=None, backend=None, device_id=-1)"
    assert re.search(r"sum of f over j.*\n.*\n.*\n +x: array of shape \(M, 3\)", function.__doc__ or "")
    same(function(b=B, y=Y, x=X), function(X, Y, B))


def test_repr_lists_the_functions(loaded: Any) -> None:
    assert "gaussian(x0, y1, y3, *, p2=0.5, out=None, backend=None, device_id=-1)" in repr(loaded)
    assert {"gaussian", "nearest"} <= set(dir(loaded))
    assert list(loaded) == list(REDUCTIONS)


# The file -------------------------------------------------------------------------------------------------------------


def test_bundle_is_reproduced_byte_for_byte_in_another_process() -> None:
    code = (
        "import hashlib, numpy as np, pylazy; from pylazy import Vi, Vj;"
        "x = np.zeros((2, 3)); made = pylazy.Bundle();"
        "made.add((-Vi(x).sqdist(Vj(x))).exp().sum(axis=1, call=False), name='k');"
        "print(hashlib.sha256(made.compile(['x86-64', 'sm_80']).to_bytes()).hexdigest())"
    )
    hashes = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder).stdout
        for folder in ("/", str(Path(__file__).parent))
    }
    assert len(hashes) == 1


def test_ptx_is_kept_with_its_launch(tmp_path: Path) -> None:
    made = pylazy.Bundle()
    made.add(gaussian(X, Y, B, call=False), name="g")
    file = BundleFile(made.compile(["sm_80"]).to_bytes())
    for kernel in file.manifest.kernels:
        code, floor = kernel.code
        assert floor.target == "sm_75"
        phases, buffers = file.launch(kernel, code)
        text = file.text(code.blob)
        assert ".target sm_80" in text
        assert phases
        assert all(f".entry {phase['name']}(" in text for phase in phases)
        assert buffers[0].role == "input"
    (tmp_path / "k.plzb").write_bytes(file.data)
    with pytest.raises(DeviceError, match=f"the bundle has g for sm_75, sm_80, this processor is {host_target()}"):
        pylazy.load_bundle(tmp_path / "k.plzb").g(X, Y, B)


def test_ir_of_both_levels_is_kept(bundle: pylazy.Bundle) -> None:
    file = BundleFile(bundle.to_bytes())
    kernel = file.kernels["gaussian"]
    assert '"reduction.sqdist"' in file.text(kernel.formula)
    assert '"reduction.map_reduce"' in file.text(kernel.kernel)
    assert str(Path(__file__).parent) not in file.data.decode("latin-1"), "no path of the build machine"


def test_lower_level_is_taken_where_the_environment_says(
    bundle: pylazy.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.save(tmp_path / "k.plzb")
    monkeypatch.setenv(LEVEL_VARIABLE, TARGETS[0])
    function = pylazy.load_bundle(tmp_path / "k.plzb").gaussian
    np.testing.assert_allclose(function(X, Y, B), gaussian(X, Y, B), rtol=1e-5)
    assert function._executable.load().image.target == TARGETS[0]
    monkeypatch.setenv(LEVEL_VARIABLE, "aarch64" if TARGETS[0] != "aarch64" else "x86-64")
    with pytest.raises(DeviceError, match=LEVEL_VARIABLE):
        pylazy.load_bundle(tmp_path / "k.plzb").gaussian(X, Y, B)


def test_loading_puts_no_code_into_memory(
    bundle: pylazy.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.save(tmp_path / "k.plzb")

    def refuse(*_: object) -> None:
        raise AssertionError("code was put into memory")

    monkeypatch.setattr(launch.Program, "__init__", refuse)
    assert len(pylazy.load_bundle(tmp_path / "k.plzb")) == len(REDUCTIONS)


def test_damaged_file_is_refused(bundle: pylazy.Bundle, tmp_path: Path) -> None:
    data = bytearray(bundle.to_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "k.plzb"
    path.write_bytes(data)
    path.chmod(0o644)
    with pytest.raises(BundleFormatError, match=r"bundle: entry .* is damaged"):
        pylazy.load_bundle(path)


def test_untrusted_file_is_refused(bundle: pylazy.Bundle, tmp_path: Path) -> None:
    path = tmp_path / "k.plzb"
    digest = bundle.save(path)
    path.chmod(0o666)
    with pytest.raises(UntrustedBundleError, match="pass trust=True"):
        pylazy.load_bundle(path)
    assert "gaussian" in pylazy.load_bundle(path, trust=True)
    assert "gaussian" in pylazy.load_bundle(path, sha256=digest)


# Without the compiler -------------------------------------------------------------------------------------------------

WITHOUT_COMPILER = """
import sys
for name in ("mlir", "torch_mlir", "llvmlite"):
    sys.modules[name] = None  # an import of it fails, as on a machine that has none
import numpy as np
import pylazy
path, digest = sys.argv[1:]
functions = pylazy.load_bundle(path, sha256=digest)
x = np.arange(21, dtype=np.float32).reshape(7, 3) / 21
y = np.arange(15, dtype=np.float32).reshape(5, 3) / 15
b = np.arange(5, dtype=np.float32).reshape(5, 1)
a = functions.gaussian(x, y, b)
dense = np.exp(-((x[:, None].astype(float) - y) ** 2).sum(-1) / 0.5) @ b
np.testing.assert_allclose(a, dense, rtol=1e-5)
loaded = [name for name in sys.modules if name.startswith(("pylazy.compiler", "llvmlite.", "torch.", "rich", "typer"))]
assert not loaded, loaded
nearest = functions.two_nearest(x, y)
assert np.array_equal(nearest, np.argsort(((x[:, None] - y) ** 2).sum(-1), axis=1, kind="stable")[:, :2])
import torch
tensors = [torch.from_numpy(array).double().float().requires_grad_() for array in (x, y, b)]
functions.gaussian(*tensors).sum().backward()
dense = torch.exp(-((tensors[0][:, None] - tensors[1]) ** 2).sum(-1) / 0.5) @ tensors[2]
for found, expected in zip([t.grad for t in tensors], torch.autograd.grad(dense.sum(), tensors)):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
assert not [name for name in sys.modules if name.startswith(("pylazy.compiler", "llvmlite."))]
print("ran")
"""


def test_frozen_bundle_of_version_0_1_runs_without_mlir_and_llvm() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, str(FROZEN), FROZEN_SHA256],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "ran\n"


NEWER_KINDS = """
import sys
for name in ("mlir", "torch_mlir", "llvmlite"):
    sys.modules[name] = None
import numpy as np
import torch
import pylazy
functions = pylazy.load_bundle(sys.argv[1], sha256=sys.argv[2])
x = torch.arange(21, dtype=torch.float32).reshape(7, 3).div(21).requires_grad_()
y = torch.arange(15, dtype=torch.float32).reshape(5, 3).div(15)
squared = (x[:, None] - y).square().sum(-1)
b = torch.complex(y[:, :1], y[:, 1:2])
close = torch.testing.assert_close
close(functions.gaussian(x.detach(), y, y[:, :1]), (-squared / 0.5).exp().detach() @ y[:, :1])
(found,) = torch.autograd.grad(functions.least(x, y).sum(), x)
(expected,) = torch.autograd.grad(squared.min(1).values.sum(), x, retain_graph=True)
close(found, expected)
half = ([[0, 4], [4, 7]], [1, 2], [[0, 2], [2, 5]])
other = ([[0, 2], [2, 5]], [1, 2], [[0, 4], [4, 7]])
mask = torch.zeros(7, 5)
mask[:4, :2] = mask[4:, 2:] = 1
found = functions.blocks(x, y, ranges=tuple(map(np.array, half + other)))
close(found[:, 0], (squared * mask).sum(1))
close(torch.autograd.grad(found.sum(), x), torch.autograd.grad((squared * mask).sum(), x, retain_graph=True))
close(functions.waves(x.detach(), y, b), 1j * squared.detach().to(b.dtype) @ b)
close(functions.costs(squared.detach())[:, 0], squared.detach().max(1).values)
print("ran")
"""


def test_frozen_bundle_of_format_1_1_runs_without_mlir_and_llvm() -> None:
    command = [sys.executable, "-c", NEWER_KINDS, str(FROZEN_1_1), FROZEN_1_1_SHA256]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "ran\n"


def test_new_bundle_runs_without_mlir_and_llvm(tmp_path: Path) -> None:
    made = pylazy.Bundle()
    made.add(gaussian(X, Y, B, call=False), name="gaussian", arguments=("x", "y", "b"))
    made.add(Vi(X).sqdist(Vj(Y)).argKmin(2, axis=1, call=False), name="two_nearest")
    digest = made.compile(TARGETS).save(tmp_path / "k.plzb")
    subprocess.run([sys.executable, "-c", WITHOUT_COMPILER, str(tmp_path / "k.plzb"), digest], check=True)


def test_composed_gradient_runs_one_program_for_each_argument(loaded: Any) -> None:
    executable = loaded.gaussian._executable
    assert isinstance(executable, BundledExecutable)
    assert executable.differentiable == {0, 1, 3}
    with pytest.raises(UnsupportedError, match="no gradient of gaussian with respect to p2 alone"):
        executable.gradient_steps((0, 2))
