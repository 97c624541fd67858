"""Bundles of reductions over ranges, of complex numbers, of values for each pair, and of selected values."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pylazy
from fuzz_bundles import FROZEN
from pylazy import LazyTensor, Vi, Vij, Vj, cli
from pylazy.compiler.codegen import cubin
from pylazy.compiler.codegen.cubin import find_assembler
from pylazy.execution.programs import host_target
from pylazy.runtime.bundle import BundleFile, choose_gpu_code
from pylazy.runtime.errors import DeviceError, DtypeError, ShapeError, UnsupportedError

random = np.random.default_rng(5)


def rows(*shape: int, dtype: Any = np.float64) -> Any:
    return random.standard_normal(shape).astype(dtype)


def blocks(rows_of: int, columns: int) -> tuple[Any, ...]:
    """Two blocks of rows with some of the columns each, and the transpose; the last row is in none."""
    half, third = rows_of // 2, columns // 3
    first = ([[0, half], [half, rows_of - 1]], [1, 2], [[0, 2 * third], [third, columns]])
    cuts = [[0, third], [third, 2 * third], [2 * third, columns]]
    second = (cuts, [1, 3, 4], [[0, half], [0, half], [half, rows_of - 1], [half, rows_of - 1]])
    return tuple(np.array(part) for part in (*first, *second))


RANGES = blocks(9, 7)
COMPLEX_X = rows(9, 2) + 1j * rows(9, 2)
COMPLEX_B = rows(7, 1) + 1j * rows(7, 1)
X, Y, B = rows(9, 2), rows(7, 2), rows(7, 3)
COST = rows(9, 7)


def kernel(x: Any, y: Any) -> LazyTensor:
    return (-Vi(x).sqdist(Vj(y))).exp()


def nearest_with_index(x: Any, y: Any, **options: Any) -> Any:
    formula = Vi(x).sqdist(Vj(y))
    return (formula + 0.01 * formula.row_index() - 0.02 * formula.column_index()).min(axis=1, **options)


def spread_of_both(x: Any, y: Any, **options: Any) -> Any:
    return (Vi(x) - Vj(y)).square().KMax_argKmax(2, axis=0, **options)


LIVE: dict[str, tuple[Any, ...]] = {
    "ranged": (lambda x, y, b, **o: (kernel(x, y) * Vj(b)).sum(axis=1, **o), X, Y, B),
    "ranged_mean": (lambda x, y, **o: (-Vi(x).sqdist(Vj(y))).mean(axis=0, **o), X, Y),
    "ranged_min": (lambda x, y, **o: Vi(x).sqdist(Vj(y)).min(axis=1, **o), X, Y),
    "waves": (lambda x, y, b, **o: ((1j * Vi(x).sqdist(Vj(y))).exp() * Vj(b)).sum(axis=1, **o), X, Y, COMPLEX_B),
    "of_complex": (lambda x, y, **o: (Vi(x) * Vj(y)).mean(axis=0, **o), COMPLEX_X, Y),
    "complex_product": (lambda x, y, b, **o: kernel(x, y).__matmul__(b, **o), X, Y, COMPLEX_B[:, 0]),
    "sizes": (lambda x, y, **o: abs(Vi(x) - Vj(y)).sum(axis=1, **o), COMPLEX_X, Y),
    "costs": (lambda x, y, c, **o: (kernel(x, y) * Vij(c)).sum(axis=1, **o), X, Y, COST),
    "transposed": (lambda x, c, **o: (Vi(x).square() * Vij(c).T).sum(axis=1, **o), X, rows(7, 9)),
    "least": (nearest_with_index, X, Y),
    "two_largest": (spread_of_both, X, Y),
    "soft": (lambda x, y, b, **o: (-Vi(x).sqdist(Vj(y))).sumsoftmaxweight(Vj(b), axis=1, **o), X, Y, B),
    "product_of_all": (lambda x, y, **o: Vi(x).sqdist(Vj(y)).prod(axis=1, **o), X, Y),
    "cost_max": (lambda c, **o: Vij(c).max(axis=1, **o), COST),
}
WITHOUT_GRADIENTS = ("ranged_mean", "sizes", "cost_max")
NAMES = {
    "waves": ("x", "y", "b"),
    "of_complex": ("z", "y"),
    "complex_product": ("x", "y", "v"),
    "costs": ("x", "y", "c"),
}


def options_of(name: str) -> dict[str, Any]:
    return {"ranges": RANGES} if name.startswith("ranged") else {}


def run_live(name: str, *arrays: Any) -> Any:
    return LIVE[name][0](*arrays, **options_of(name))


@pytest.fixture(scope="module")
def bundle() -> pylazy.Bundle:
    made = pylazy.Bundle()
    for name, (function, *arrays) in LIVE.items():
        reduction = function(*arrays, call=False, **options_of(name))
        made.add(reduction, name=name, arguments=NAMES.get(name), gradients=name not in WITHOUT_GRADIENTS)
    return made.compile([host_target()])


@pytest.fixture(scope="module")
def loaded(bundle: pylazy.Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("bundles") / "k.plzb"
    bundle.save(path)
    return pylazy.load_bundle(path)


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        return
    assert (type(found), found.dtype, found.shape) == (type(expected), expected.dtype, expected.shape)
    assert np.array_equal(found, expected, equal_nan=found.dtype.kind in "fc")


@pytest.mark.parametrize("name", LIVE)
def test_result_has_the_bits_of_the_live_reduction(loaded: Any, name: str) -> None:
    arrays = LIVE[name][1:]
    same(loaded[name](*arrays, **options_of(name)), run_live(name, *arrays))


def flat(result: Any) -> torch.Tensor:
    """The differentiable results in one vector of reals, with different weights."""
    parts = [part for part in (result if isinstance(result, tuple) else (result,)) if part.dtype != torch.int64]
    reals = [torch.view_as_real(part) if part.is_complex() else part for part in parts]
    return torch.cat([part.where(part.isfinite(), torch.zeros_like(part)).reshape(-1) for part in reals])


@pytest.mark.parametrize("name", [name for name in LIVE if name not in WITHOUT_GRADIENTS])
def test_gradients_are_those_of_the_live_reduction(loaded: Any, name: str) -> None:
    arrays = LIVE[name][1:]
    gradients = []
    for run in (lambda *given: loaded[name](*given, **options_of(name)), lambda *given: run_live(name, *given)):
        tensors = [torch.from_numpy(array).clone().requires_grad_() for array in arrays]
        values = flat(run(*tensors))
        (values * torch.linspace(1, 2, len(values), dtype=values.dtype)).sum().backward()
        gradients.append([tensor.grad for tensor in tensors])
    for found, expected in zip(*gradients, strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["waves", "complex_product", "ranged", "two_largest", "least"])
@pytest.mark.parametrize("needed", [0, 1])
def test_gradient_with_respect_to_one_argument(loaded: Any, name: str, needed: int) -> None:
    gradients = []
    for run in (lambda *given: loaded[name](*given, **options_of(name)), lambda *given: run_live(name, *given)):
        tensors = [torch.from_numpy(array).clone() for array in LIVE[name][1:]]
        tensors[needed].requires_grad_()
        flat(run(*tensors)).square().sum().backward()
        gradients.append(tensors[needed].grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("needed", [(0, 2), (1, 2)])
def test_gradient_with_respect_to_two_of_three_arguments_over_ranges(loaded: Any, needed: tuple[int, ...]) -> None:
    gradients = []
    for run in (lambda *given: loaded.ranged(*given, ranges=RANGES), lambda *given: run_live("ranged", *given)):
        tensors = [torch.from_numpy(array).clone() for array in (X, Y, B)]
        for number in needed:
            tensors[number].requires_grad_()
        run(*tensors).square().sum().backward()
        gradients.append([tensors[number].grad for number in needed])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("m", "n"), [(1, 300), (300, 7), (311, 100), (0, 5)])
def test_other_sizes_need_no_other_bundle(loaded: Any, m: int, n: int) -> None:
    x, y, b = rows(m, 2), rows(n, 2), rows(n, 1) + 1j * rows(n, 1)
    same(loaded.waves(x, y, b), run_live("waves", x, y, b))
    same(loaded.costs(x, y, cost := rows(m, n)), run_live("costs", x, y, cost))
    same(loaded.two_largest(x, y) if m > 1 else (), run_live("two_largest", x, y) if m > 1 else ())
    if m > 2:
        other = blocks(m, n)
        b = rows(n, 3)
        live = (kernel(x, y) * Vj(b)).sum(axis=1, ranges=other)
        same(loaded.ranged(x, y, b, ranges=other), live)


def test_batches_broadcast(loaded: Any) -> None:
    x, y = rows(2, 1, 9, 1, 2), rows(4, 1, 7, 2)
    formula = LazyTensor(x).sqdist(LazyTensor(y))
    live = (formula + 0.01 * formula.row_index() - 0.02 * formula.column_index()).min(axis=3)
    same(loaded.least(x, y), live)
    costs = rows(3, 9, 7, 1)
    same(loaded.cost_max(costs), Vij(costs).max(axis=2))


def test_gradient_of_selected_values_in_batches(loaded: Any) -> None:
    gradients = []
    for bundled in (True, False):
        x, y = (torch.linspace(-1, 1, count).reshape(shape).double().requires_grad_() for count, shape in SHAPES)
        if bundled:
            result = loaded.two_largest(x, y)[0]
        else:
            result = (LazyTensor(x) - LazyTensor(y)).square().KMax_argKmax(2, axis=1)[0]
        result.square().sum().backward()
        gradients.append((x.grad, y.grad))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


SHAPES = [(54, (3, 9, 1, 2)), (42, (3, 1, 7, 2))]


def test_results_are_written_into_out(loaded: Any) -> None:
    out = np.zeros((9, 1), np.complex128)
    assert loaded.waves(X, Y, COMPLEX_B, out=out) is out
    same(out, run_live("waves", X, Y, COMPLEX_B))


def test_complex_tensors_may_be_conjugated(loaded: Any) -> None:
    b = torch.from_numpy(COMPLEX_B)
    found = loaded.waves(torch.from_numpy(X), torch.from_numpy(Y), b.conj())
    same(found.numpy(), run_live("waves", X, Y, COMPLEX_B.conj()))


def test_arguments_of_complex_numbers_and_ranges_are_described(loaded: Any) -> None:
    assert str(inspect.signature(loaded.of_complex)) == "(z, y, *, out=None, backend=None, device_id=-1)"
    assert "z: complex array of shape (M, 2)" in loaded.of_complex.__doc__
    assert "complex, float64" in loaded.of_complex.__doc__
    assert str(inspect.signature(loaded.ranged)) == "(x0, y1, y2, *, ranges, out=None, backend=None, device_id=-1)"
    assert "c: array of shape (M, N) or (*batch, M, N, 1)" in loaded.costs.__doc__


def test_symbolic_variables_and_formulas_as_text_take_ranges_at_the_call(tmp_path: Path) -> None:
    x, y, b = Vi(0, 2), Vj(1, 2), Vj(2, 3)
    symbolic = ((-x.sqdist(y)).exp() * b).sum(axis=1)
    text = pylazy.Genred("Exp(-SqDist(x, y)) * b", ["x = Vi(2)", "y = Vj(2)", "b = Vj(3)"], axis=1)
    made = pylazy.Bundle()
    made.add(symbolic, name="symbolic", ranged=True, gradients=False)
    made.add(text, name="text", ranged=True, gradients=False)
    made.compile([host_target()]).save(tmp_path / "k.plzb")
    functions = pylazy.load_bundle(tmp_path / "k.plzb")
    for function in functions.values():
        same(function(X, Y, B, ranges=RANGES), run_live("ranged", X, Y, B))


# Refusals -------------------------------------------------------------------------------------------------------------


def test_call_that_does_not_fit_is_refused_at_the_users_line(loaded: Any) -> None:
    here = r"(.|\n)*at .*test_bundle_kinds"
    with pytest.raises(TypeError, match=f"was not given 'ranges'{here}"):
        loaded.ranged(X, Y, B)
    with pytest.raises(UnsupportedError, match=f"costs was compiled for all pairs{here}"):
        loaded.costs(X, Y, COST, ranges=RANGES)
    with pytest.raises(ShapeError, match=rf"ranges_i of ranges has \[4, 8\] in row 1{here}"):
        loaded.ranged(X[:5], Y, B, ranges=RANGES)
    with pytest.raises(DtypeError, match=f"z is of dtype float64, expected a complex array{here}"):
        loaded.of_complex(X, Y)
    with pytest.raises(DtypeError, match=f"y has dtype complex128{here}"):
        loaded.of_complex(COMPLEX_X, Y + 0j)
    with pytest.raises(ShapeError, match=f"c has 6 columns, y has 7{here}"):
        loaded.costs(X, Y, COST[:, :6])
    with pytest.raises(ShapeError, match=rf"c has shape \(9,\), expected array of shape \(M, N\){here}"):
        loaded.costs(X, Y, COST[:, 0])


def test_reduction_that_is_none_is_refused() -> None:
    made = pylazy.Bundle()
    with pytest.raises(UnsupportedError, match="reduction is of type ndarray, expected a Reduction"):
        made.add(kernel(X, Y).sum(axis=1), name="f")
    with pytest.raises(UnsupportedError, match="ranged is True, and the reduction has its data and no ranges"):
        made.add(kernel(X, Y).sum(axis=1, call=False), name="f", ranged=True)
    with pytest.raises(UnsupportedError, match="an argument is called 'ranges'"):
        made.add(kernel(X, Y).sum(axis=1, call=False), name="f", arguments=("x", "ranges"))
    conjugated = torch.from_numpy(COMPLEX_X).conj()
    with pytest.raises(UnsupportedError, match=r"made of a conjugated tensor: make it of x\.resolve_conj"):
        made.add((Vi(conjugated) * Vj(torch.from_numpy(Y))).sum(axis=1, call=False), name="f")


def test_counts_and_indices_beyond_float32_are_refused(tmp_path: Path) -> None:
    x, y = rows(2, 1, dtype=np.float32), rows(3, 1, dtype=np.float32)
    made = pylazy.Bundle()
    made.add((Vi(x) - Vj(y)).count(axis=1, call=False), name="count")
    made.add((Vi(x) * pylazy.column_index() + Vj(y)).sum(axis=1, call=False), name="index", gradients=False)
    made.compile([host_target()]).save(tmp_path / "k.plzb")
    functions = pylazy.load_bundle(tmp_path / "k.plzb")
    same(functions.count(x, y), (Vi(x) - Vj(y)).count(axis=1))
    many = np.broadcast_to(np.float32(1), (2**24 + 1, 1))
    with pytest.raises(ShapeError, match="count counts 16777217 values in float32"):
        functions.count(x, many)
    with pytest.raises(ShapeError, match="column_index of 16777217 columns"):
        functions.index(x, many)


def test_second_gradients_and_transforms_are_refused(loaded: Any) -> None:
    x, y = torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)
    (gradient,) = torch.autograd.grad(loaded.product_of_all(x, y).sum(), x)
    assert gradient.shape == x.shape
    with pytest.raises(UnsupportedError, match="first gradients, and no second ones"):
        torch.func.grad(lambda x: loaded.least(x, y).sum())(torch.from_numpy(X))


# The file -------------------------------------------------------------------------------------------------------------


def test_bundle_names_the_features_that_an_older_reader_lacks(bundle: pylazy.Bundle) -> None:
    manifest = BundleFile(bundle.to_bytes()).manifest
    assert manifest.requires == ("complex", "header", "pairs", "ranges", "selection")
    assert manifest.format == (1, 1)
    selected = next(function for function in manifest.functions if function.name == "least").selection
    assert [function.name for function in selected] == ["least.selected", "least.pairs"]


WITHOUT_COMPILER = """
import sys
for name in ("mlir", "torch_mlir", "llvmlite"):
    sys.modules[name] = None  # an import of it fails, as on a machine that has none
import numpy as np
import torch
import pylazy
path, digest = sys.argv[1:]
functions = pylazy.load_bundle(path, sha256=digest)
x, y = torch.randn(9, 2, dtype=torch.float64, requires_grad=True), torch.randn(7, 2, dtype=torch.float64)
b = torch.randn(7, 1, dtype=torch.complex128, requires_grad=True)
functions.waves(x, y, b).abs().sum().backward()
value, position = functions.two_largest(x, y)
value.sum().backward()
pairs = (x[:, None] - y).square().topk(2, dim=0).values.sum()
functions.costs(x, y, torch.randn(9, 7, dtype=torch.float64)).sum().backward()
assert not [name for name in sys.modules if name.startswith(("pylazy.compiler", "llvmlite.", "pylazy.trace"))]
assert torch.allclose(value.sum(), pairs)
print("ran")
"""


def test_new_kinds_run_without_mlir_and_llvm(bundle: pylazy.Bundle, tmp_path: Path) -> None:
    digest = bundle.save(tmp_path / "k.plzb")
    command = [sys.executable, "-c", WITHOUT_COMPILER, str(tmp_path / "k.plzb"), digest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert re.fullmatch("ran\n", done.stdout)


def test_bench_times_every_kind(bundle: pylazy.Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle.save(tmp_path / "k.plzb")
    assert cli.main(["bench", str(tmp_path / "k.plzb"), "-m", "12", "-n", "20", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert {found["function"] for found in measured} == set(LIVE)
    assert min(found["milliseconds"] for found in measured) > 0


# GPUs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def for_gpus() -> BundleFile:
    made = pylazy.Bundle()
    made.add((kernel(X, Y) * Vj(B)).sum(axis=1, call=False), name="g", gradients=False)
    return BundleFile(made.compile(["sm_90"]).to_bytes())


def test_named_gpus_have_cubins_and_all_others_ptx(for_gpus: BundleFile) -> None:
    (kernel_,) = for_gpus.manifest.kernels
    assert [code.target for code in kernel_.code] == ["sm_90", "sm_75"]
    assert [bool(code.cubin) for code in kernel_.code] == [find_assembler() is not None, False]
    for code in kernel_.code:
        image = for_gpus.gpu_image(kernel_, code)
        assert f".target {code.target}" in image.text
        assert [buffer.role for buffer in image.arguments] == ["input"] * 3 + ["output"]
        assert image.cubin[:4] == (b"\x7fELF" if code.cubin else b"")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), None), ((7, 5), "sm_75"), ((8, 9), "sm_75"), ((9, 0), "sm_90"), ((10, 0), "sm_90"), ((12, 0), "sm_90")],
)
def test_code_for_the_newest_gpu_that_is_not_too_new_is_chosen(
    for_gpus: BundleFile, capability: tuple[int, int], expected: str | None
) -> None:
    code = choose_gpu_code(for_gpus.manifest.kernels[0], capability)
    assert (code.target if code else None) == expected


def test_manifest_says_why_there_is_no_cubin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubin, "find_assembler", lambda: None)
    made = pylazy.Bundle()
    made.add((kernel(X, Y) * Vj(B)).sum(axis=1, call=False), name="g", gradients=False)
    made.add((kernel(X, Y) * Vj(B)).sum(axis=1, call=False, ranges=RANGES), name="r", gradients=False)
    manifest = BundleFile(made.compile(["sm_90", "x86-64"]).to_bytes()).manifest
    assert "no assembler for PTX is installed" in manifest.absent["g sm_90 cubin"]
    assert "cubin" not in manifest.requires


def test_gpu_code_of_the_first_format_is_not_launched() -> None:
    file = BundleFile(FROZEN.read_bytes())
    kernel_ = file.kernels["gaussian"]
    code = choose_gpu_code(kernel_, (8, 0))
    assert code is not None
    with pytest.raises(DeviceError, match=r"the bundle is of format 1\.0, whose code for GPUs takes other parameters"):
        file.gpu_image(kernel_, code)
