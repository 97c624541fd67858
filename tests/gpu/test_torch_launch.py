"""CUDA tensors: launches of torch's, with tensors of the host in their place on a driver that stands in for CUDA's."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stand_in import StandInDriver
from test_host_arrays import REDUCTIONS, check_same, distances, rows
from torch._subclasses.fake_tensor import FakeTensorMode

from pylazy import DeviceError, Vi, Vj
from pylazy.arrays import source_devices
from pylazy.arrays.sources import TORCH, Located
from pylazy.gpu.launches import Target
from pylazy.gpu.torch_place import TorchPlace

STREAM = 11


class HostTensors(TorchPlace):
    """A place of torch whose tensors lie on the host, and count as memory of a device."""

    def __init__(self, driver: StandInDriver) -> None:
        super().__init__(torch.device("cpu", 0))
        self._driver = driver

    def _registered(self, tensor: Any) -> Any:
        self._driver.register(tensor.detach().numpy() if tensor.is_contiguous() else tensor.detach().numpy().base)
        return tensor

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self._registered(super().empty(shape, dtype))

    def locate(self, source: Any, dtype: str, tensor: Any = None) -> Located:
        if tensor is None and source.kind == TORCH:
            tensor = source.array
        found = super().locate(source, dtype, tensor)
        self._driver.register(_whole_storage(found.keep))
        return found

    def launch(self, program: Any, inputs: Any, results: Any, *args: Any, **named: Any) -> None:
        for result in results:
            self._driver.register(_whole_storage(result))
        super().launch(program, inputs, results, *args, **named)

    def _target(self) -> Target:
        target = super()._target()

        def allocate(size: int) -> Located:
            found = target.allocate(size)
            self._driver.register(_whole_storage(found.keep))
            return found

        return target._replace(allocate=allocate)


def _whole_storage(tensor: Any) -> Any:
    storage = tensor.detach().untyped_storage()
    return torch.tensor([], dtype=torch.uint8).set_(storage).numpy()


@pytest.fixture
def cuda(driver: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInDriver]:
    """Let every reduction of tensors run where CUDA tensors run."""
    place = HostTensors(driver)
    stream = SimpleNamespace(cuda_stream=STREAM)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    monkeypatch.setattr(source_devices, "place_of", lambda kind, *_: place if kind == TORCH else None)
    driver.calls()
    yield driver
    launched(driver)


def launched(driver: StandInDriver) -> int:
    """Give the number of launches, and check that nothing else happened: no copy, no allocation, no waiting."""
    calls = [call for call in driver.calls() if not call.startswith(("cuModule", "cuDevicePrimary", "cuInit"))]
    assert all(call.startswith("cuLaunchKernel") and f"stream={STREAM}" in call for call in calls), calls
    return len(calls)


def tensors(*shapes: tuple[int, ...]) -> list[Any]:
    return [torch.from_numpy(rows(*shape)) for shape in shapes]


def on_cpu(monkeypatch: pytest.MonkeyPatch, compute: Any) -> Any:
    """Compute where tensors of the host run."""
    with monkeypatch.context() as patched:
        patched.setattr(source_devices, "place_of", lambda *_: None)
        return compute()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_tensors_are_reduced_where_they_lie(cuda: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    x, y, v = tensors((7,), (300,), (300, 2))
    found = REDUCTIONS[name](distances(x, y), v)
    assert launched(cuda)
    check_same(found, on_cpu(monkeypatch, lambda: REDUCTIONS[name](distances(x, y), v)))


def test_batches_and_numbers(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tensors((5, 3, 2, 1), (9, 3, 4))

    def compute() -> Any:
        return (distances(x, y) * 0.3 + [0.5]).sqrt().sum(axis=3)

    found = compute()
    assert launched(cuda)
    check_same(found, on_cpu(monkeypatch, compute))


def test_gradients_of_every_order(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, v = tensors((6,), (20,), (20, 2))

    def compute() -> Any:
        inputs = [tensor.clone().requires_grad_() for tensor in (x, y, v)]
        value = ((-distances(*inputs[:2])).exp() @ inputs[2]).square().sum()
        (first,) = torch.autograd.grad(value, inputs[0], create_graph=True)
        return (value, first, *torch.autograd.grad(first.sin().sum(), inputs))

    found = compute()
    assert launched(cuda)
    check_same(found, on_cpu(monkeypatch, compute))


def test_gradients_of_selected_values(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tensors((6,), (20,))

    def compute() -> Any:
        inputs = [tensor.clone().requires_grad_() for tensor in (x, y)]
        distances(*inputs).Kmin(2, axis=1).square().sum().backward()
        return tuple(tensor.grad for tensor in inputs)

    found = compute()
    assert launched(cuda)
    check_same(found, on_cpu(monkeypatch, compute))


def test_transforms_of_torch(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tensors((4, 3, 5), (8,))

    def compute() -> Any:
        def total(x: Any) -> Any:
            return (-distances(x, y)).logsumexp(axis=1).sum()

        return torch.func.vmap(torch.func.grad(total))(x)

    found = compute()
    assert launched(cuda)
    check_same(found, on_cpu(monkeypatch, compute))


def test_linear_systems(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, b = tensors((20,), (20, 1))

    def compute() -> Any:
        data = x.clone().requires_grad_()
        found = (-distances(data, data)).exp().solve(b, alpha=1.0)
        found.sum().backward()
        return found, data.grad

    found = compute()
    assert launched(cuda)
    for one, other in zip(found, on_cpu(monkeypatch, compute), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_shapes_of_fake_cuda_tensors() -> None:
    with FakeTensorMode():
        # None requires a gradient: a torch without CUDA cannot record operations of its tensors.
        x, y = torch.empty(7, 3, device="cuda"), torch.empty(5, 3, device="cuda")
        k = (-Vi(x).sqdist(Vj(y)) * 0.5).exp()
        value, positions = k.sum(axis=1), k.argmin(axis=1)
        assert (value.shape, value.device.type) == ((7, 1), "cuda")
        assert (positions.shape, positions.dtype, positions.device.type) == ((7, 1), torch.int64, "cuda")
        assert k.mean(axis=1).device.type == "cuda"


def test_devices_that_differ_are_named() -> None:
    with FakeTensorMode():
        x, y = torch.empty(7, 3, device="cuda:0"), torch.empty(5, 3)
        with pytest.raises(DeviceError, match="lie on the devices cpu and cuda:0, expected one"):
            Vi(x).sqdist(Vj(y)).sum(axis=1)
        with pytest.raises(DeviceError, match="lie on the devices cuda:0 and cuda:1, expected one"):
            Vi(x).sqdist(Vj(torch.empty(5, 3, device="cuda:1"))).sum(axis=1)
        with pytest.raises(DeviceError, match="lie on cuda:0, and the reduction is to run on the CPU"):
            Vi(x).sqdist(Vj(x)).sum(axis=1, backend="CPU")
        with pytest.raises(DeviceError, match="lie on cuda:0, and the reduction is to run on GPU 1"):
            Vi(x).sqdist(Vj(x)).sum(axis=1, device_id=1)
        with pytest.raises(DeviceError, match="lie on the devices cpu and cuda:0, expected one"):
            (Vi(x) - Vj(np.ones((5, 3), np.float32))).sum(axis=1)


def test_a_graph_of_torch_compile_takes_cuda_tensors() -> None:
    with FakeTensorMode():
        x = torch.empty(7, 3, device="cuda")
        found = torch.ops.pylazy.run.default([x, x], _program(), [0, 0])
        assert found[0].device.type == "cuda"


def _program() -> str:
    return Vi(torch.empty(7, 3)).sqdist(Vj(torch.empty(5, 3))).sum(axis=1, call=False).executable.text()
