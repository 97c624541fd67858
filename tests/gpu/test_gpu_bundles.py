"""Bundles on GPUs, on a driver that stands in for CUDA's."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_libraries import STREAM, StreamLibrary
from stand_in import StandInDriver, launches
from test_torch_launch import cuda, launched, on_cpu

import pylazy
from pylazy import DeviceError, Vi, Vj
from pylazy.execution.programs import host_target
from pylazy.runtime.bundle import BundleFile
from pylazy.runtime.gpu_devices import properties
from reference import assert_close

__all__ = ["cuda"]  # a fixture
random = np.random.default_rng(3)


def rows(count: int, dim: int) -> Any:
    return random.standard_normal((count, dim)).astype(np.float32)


X, Y, B = rows(7, 3), rows(40, 3), rows(40, 2)
COMPLEX_B = (rows(40, 1) + 1j * rows(40, 1)).astype(np.complex64)


@pytest.fixture(autouse=True)
def _devices_are_asked_again() -> Iterator[None]:
    yield
    properties.cache_clear()


def become(driver: StandInDriver, capability: tuple[int, int]) -> None:
    driver.configure(devices=2, capability=capability)
    properties.cache_clear()


def squared(x: Any, y: Any) -> Any:
    return Vi(x).sqdist(Vj(y))


LIVE: dict[str, tuple[Any, ...]] = {
    "gaussian": (lambda x, y, b, **o: ((-squared(x, y)).exp() * Vj(b)).sum(axis=1, **o), X, Y, B),
    "nearest": (lambda x, y, **o: squared(x, y).argKmin(3, axis=1, **o), X, Y),
    "least": (lambda x, y, **o: (squared(x, y) + 0.1 * pylazy.column_index()).min(axis=1, **o), X, Y),
    "lse": (lambda x, y, **o: (-squared(x, y)).logsumexp(axis=0, **o), X, Y),
    "waves": (lambda x, y, b, **o: (1j * squared(x, y) * Vj(b)).sum(axis=1, **o), X, Y, COMPLEX_B),
}


@pytest.fixture(scope="module")
def bundle() -> pylazy.Bundle:
    made = pylazy.Bundle()
    for name, (function, *arrays) in LIVE.items():
        made.add(function(*arrays, call=False), name=name, gradients=name in {"gaussian", "least"})
    return made.compile(["sm_90", host_target()])


@pytest.fixture(scope="module")
def loaded(bundle: pylazy.Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("bundles") / "k.plzb"
    bundle.save(path)
    found = pylazy.load_bundle(path)
    found.file_path = path
    return found


def close(found: Any, expected: Any) -> None:
    assert (type(found), found.dtype, found.shape) == (type(expected), expected.dtype, expected.shape)
    if isinstance(found, torch.Tensor):
        found, expected = found.numpy(), expected.numpy()
    if found.dtype.kind == "i":
        np.testing.assert_array_equal(found, expected)
    else:
        assert_close(found.view(np.float32), expected.view(np.float32), dtype=np.float32, columns=40, scale=50.0)


@pytest.mark.parametrize("name", LIVE)
def test_numpy_arrays_are_reduced_on_the_gpu(driver: StandInDriver, loaded: Any, name: str) -> None:
    function, *arrays = LIVE[name]
    found = loaded[name](*arrays, backend="GPU")
    assert launches(driver.calls())
    close(found, function(*arrays))


@pytest.mark.parametrize("name", ["gaussian", "least"])
@pytest.mark.parametrize("needed", [(0,), (0, 1)])
def test_gradients_run_on_the_gpu(driver: StandInDriver, loaded: Any, name: str, needed: tuple[int, ...]) -> None:
    gradients = []
    for options in ({"backend": "GPU"}, {}):
        tensors = [torch.from_numpy(array).clone() for array in LIVE[name][1:]]
        for number in needed:
            tensors[number].requires_grad_()
        value = loaded[name](*tensors, **options).square().sum()
        driver.calls()
        value.backward()
        assert bool(launches(driver.calls())) == bool(options)
        gradients.append([tensors[number].grad for number in needed])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "least", "nearest"])
def test_tensors_are_reduced_where_they_lie(
    cuda: StandInDriver, monkeypatch: pytest.MonkeyPatch, loaded: Any, name: str
) -> None:
    x, y, *others = (torch.from_numpy(array).clone() for array in LIVE[name][1:])

    def compute() -> tuple[Any, Any]:
        x.grad = None
        x.requires_grad_(name != "nearest")
        value = loaded[name](x, y, *others)
        if name != "nearest":
            value.square().sum().backward()
        return value.detach(), x.grad

    found = compute()
    assert launched(cuda)
    expected = on_cpu(monkeypatch, compute)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_arrays_of_other_libraries_stay_on_their_gpu(driver: StandInDriver, loaded: Any) -> None:
    library = StreamLibrary(driver)
    given = [library.array(array) for array in (X, Y, B)]
    for _ in range(2):
        found = loaded.gaussian(*given)
        calls = driver.calls()
        assert all(f"stream={STREAM}" in call for call in launches(calls))
        assert launches(calls)
        close(found.array, LIVE["gaussian"][0](X, Y, B))


def test_gpus_need_no_compiler(driver: StandInDriver, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith(("pylazy.compiler", "pylazy.trace", "llvmlite", "torch_mlir")):
            monkeypatch.setitem(sys.modules, name, None)  # an import of it fails, as on a machine that has none
    functions = pylazy.load_bundle(loaded.file_path)
    tensors = [torch.from_numpy(array).clone().requires_grad_() for array in (X, Y)]
    functions.least(*tensors, backend="GPU").sum().backward()
    assert launches(driver.calls())


def test_arrays_choose_where_they_are_reduced(driver: StandInDriver, loaded: Any) -> None:
    driver.calls()
    loaded.gaussian(X, Y, B)
    assert not driver.calls()
    loaded.gaussian(X, Y, B, backend="GPU", device_id=1)
    assert all("device=1" in call for call in launches(driver.calls()))
    with pytest.raises(DeviceError, match=r"on GPU 2, and this machine has 2(.|\n)*at .*test_gpu_bundles"):
        loaded.gaussian(X, Y, B, backend="GPU", device_id=2)


def test_ptx_of_the_oldest_gpu_serves_others(driver: StandInDriver, bundle: pylazy.Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "k.plzb")
    for capability, target in (((8, 6), "sm_75"), ((9, 0), "sm_90"), ((12, 0), "sm_90")):
        become(driver, capability)
        function = pylazy.load_bundle(tmp_path / "k.plzb").gaussian
        close(function(X, Y, B, backend="GPU"), LIVE["gaussian"][0](X, Y, B))
        assert function._executable.load_gpu(0).image.target == target


def test_gpu_that_the_bundle_has_nothing_for_is_named(
    driver: StandInDriver, bundle: pylazy.Bundle, tmp_path: Path
) -> None:
    bundle.save(tmp_path / "k.plzb")
    become(driver, (7, 0))
    function = pylazy.load_bundle(tmp_path / "k.plzb").gaussian
    with pytest.raises(DeviceError, match=r"gaussian for sm_75, sm_90, .*, and GPU 0, .* has compute capability 7\.0"):
        function(X, Y, B, backend="GPU")


def test_reading_a_bundle_opens_no_driver(driver: StandInDriver, bundle: pylazy.Bundle) -> None:
    driver.calls()
    file = BundleFile(bundle.to_bytes())
    for kernel in file.manifest.kernels:
        for code in kernel.code:
            if code.launch:
                file.gpu_image(kernel, code)
    assert not driver.calls()
