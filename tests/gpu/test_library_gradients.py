"""Derivatives of functions of arrays on a GPU, by a double of CuPy on a driver that stands in for CUDA's."""

from typing import Any

import numpy as np
import pytest
from device_libraries import STREAM, DeviceArray, ExchangeLibrary, StreamLibrary
from stand_in import StandInDriver

import pylazy
from pylazy import DeviceError, DtypeError, Vi, Vj
from test_nested_gradients import FUNCTIONS, B, X, Y

ALL = (0, 1, 2)


@pytest.fixture
def library(driver: StandInDriver) -> StreamLibrary:
    return StreamLibrary(driver)


def on_device(library: StreamLibrary) -> list[DeviceArray]:
    return [library.array(array) for array in (X, Y, B)]


def check_same(found: Any, expected: Any) -> None:
    """Compare results on the device with those of the host, which other tests compare with finite differences."""
    if isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            check_same(one, other)
        return
    assert isinstance(found, DeviceArray)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found.array, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_value_and_gradients_are_those_of_the_host(library: StreamLibrary, name: str) -> None:
    of = pylazy.value_and_grad(FUNCTIONS[name], ALL)
    check_same(of(*on_device(library)), of(X, Y, B))
    assert all(f"stream={STREAM}" in call for call in library.driver.calls() if call.startswith("cuLaunchKernel"))


@pytest.mark.parametrize("name", ["logsumexp", "min", "two reductions", "ranges", "dense", "a gradient", "operator"])
def test_tangents_are_those_of_the_host(library: StreamLibrary, name: str) -> None:
    tangents = [np.cos(array) for array in (X, Y, B)]
    moved = [library.array(tangent) for tangent in tangents]
    expected = pylazy.jvp(FUNCTIONS[name], (X, Y, B), tangents)
    check_same(pylazy.jvp(FUNCTIONS[name], on_device(library), moved), expected)


@pytest.mark.parametrize("name", ["softmax", "Kmin", "solve"])
def test_second_derivatives_are_those_of_the_host(library: StreamLibrary, name: str) -> None:
    def second(x: Any, y: Any, b: Any) -> Any:
        return pylazy.grad(lambda x: (pylazy.grad(FUNCTIONS[name], 1)(x, y, b) ** 2).sum())(x)

    check_same(second(*on_device(library)), second(X, Y, B))


def test_arrays_that_the_function_brings_along_stay_constant(library: StreamLibrary) -> None:
    x, y, b = on_device(library)

    def energy(x: Any, y: Any, b: Any) -> Any:
        return lambda x: ((-Vi(x).sqdist(Vj(y))).exp() @ b * x[:, :1]).sum()

    check_same(pylazy.grad(energy(x, y, b))(x), pylazy.grad(energy(X, Y, B))(X))


def test_numbers_are_put_beside_the_arrays(library: StreamLibrary) -> None:
    def scaled(x: Any, width: Any) -> Any:
        return (-Vi(x).sqdist(Vj(x)) / width).exp().sum(axis=1).sum()

    expected = pylazy.grad(scaled, (0, 1))(X, 0.7)
    check_same(pylazy.grad(scaled, (0, 1))(library.array(X), 0.7), expected)


def test_vjp_takes_cotangents_of_the_device_and_of_the_host(library: StreamLibrary) -> None:
    def product(x: Any, y: Any, b: Any) -> Any:
        return (-Vi(x).sqdist(Vj(y))).exp() @ b

    value, pull_back = pylazy.vjp(product, *on_device(library))
    expected_value, expected = pylazy.vjp(product, X, Y, B)
    check_same(value, expected_value)
    cotangent = np.sin(expected_value)
    check_same(pull_back(library.array(cotangent)), expected(cotangent))
    check_same(pull_back(cotangent), expected(cotangent))


NUMPY = {
    "elements": lambda x: (np.exp(x) * np.tanh(x) / (1 + x**2) - np.maximum(x, 0.3)).sum(),
    "powers": lambda x: (x**3 + 2.0**x + np.power(x, x)).mean(),
    "shapes": lambda x: (np.concatenate([x.T, np.moveaxis(x, 0, 1)], 1).reshape(-1)[::2] ** 2).sum(),
    "indices": lambda x: (x[[0, 2, 2]] * np.take_along_axis(x, np.argsort(x[:, :1] * 0, axis=1), 1)[:3]).sum(),
    "order": lambda x: (np.sort(x, 0)[1] * x.max(1)[:3] * np.cumsum(x, 0)[2]).sum() + np.roll(x, 1)[0, 1],
    "products": lambda x: np.trace(x.T @ x) + np.einsum("ab,ac->bc", x, x)[0, 1] + np.linalg.norm(x),
    "choices": lambda x: np.where(x > 0.5, np.sqrt(x), x * np.zeros_like(x)).sum() + np.clip(x, 0.1, 0.6).std(),
    "a constant": lambda x: np.ones_like(x).sum(),
}


@pytest.mark.parametrize("name", NUMPY)
def test_functions_of_numpy_run_in_the_library(library: StreamLibrary, name: str) -> None:
    x = library.array(X)
    check_same(pylazy.grad(NUMPY[name])(x), pylazy.grad(NUMPY[name])(X))
    check_same(pylazy.jvp(NUMPY[name], (x,), (x,)), tuple(map(np.asarray, pylazy.jvp(NUMPY[name], (X,), (X,)))))


def test_empty_axes(library: StreamLibrary) -> None:
    def energy(x: Any, y: Any) -> Any:
        return (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1).sum()

    check_same(pylazy.grad(energy, (0, 1))(library.array(X), library.array(Y[:0])), (0 * X, Y[:0]))


def test_other_devices_and_libraries_are_refused(library: StreamLibrary, driver: StandInDriver) -> None:
    x = library.array(X)
    with pytest.raises(DeviceError, match="lie on the devices cpu and cuda:0"):
        pylazy.grad(lambda x: Vi(x).sqdist(Vj(Y)).sum(axis=1).sum())(x)
    with pytest.raises(DeviceError, match="the arrays lie on cuda:0, and the reduction is to run on the CPU"):
        pylazy.grad(lambda x: Vi(x).sqdist(Vj(x)).sum(axis=1, backend="CPU").sum())(x)
    with pytest.raises(DtypeError, match="argument 0 is ExchangedArray, and a derivative of it is asked for"):
        pylazy.grad(lambda x: Vi(x).sqdist(Vj(x)).sum(axis=1).sum())(ExchangeLibrary(driver).array(X))
    with pytest.raises(DtypeError, match="argument 0 is an array of int64"):
        pylazy.grad(lambda x: x.sum())(library.array(np.arange(3)))
    with pytest.raises(DtypeError, match="argument 0 is an array of complex128"):
        pylazy.grad(lambda x: abs(x).sum())(library.array(1j * X))
