"""CUDA tensors: launches of torch's, with tensors of the host in their place on a driver that stands in for CUDA's."""

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stand_in import StandInDriver
from test_host_arrays import REDUCTIONS, check_same, distances, rows
from torch._subclasses.fake_tensor import FakeTensorMode

from pylazy import DeviceError, Pm, Vi, Vj
from pylazy.arrays import source_devices
from pylazy.arrays.results import placed_beside
from pylazy.arrays.sources import TORCH, Located, Source
from pylazy.gpu import launches
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

    def _copied(self, words: Any) -> Located:
        found = super()._copied(words)
        self._driver.register(_whole_storage(found.keep))
        return found

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


def test_numbers_of_the_host_are_written_to_the_device(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = source_devices.place_of(TORCH, (), None)
    assert place is not None
    scale = torch.tensor(0.5)
    source = Source(TORCH, scale, batch=0, dtype="float32", weak=True, view="")
    for located in (place.locate(source, "float32"), place.locate(source, "float32", scale)):
        assert located.pointer != scale.data_ptr()
    x, y = tensors((6,), (20,))

    def compute() -> Any:
        inputs = [scale.clone().requires_grad_(), x.clone().requires_grad_()]
        (-(Pm(inputs[0]) * distances(inputs[1], y))).exp().sum(axis=1).square().sum().backward()
        return tuple(tensor.grad for tensor in inputs)

    found = compute()
    assert launched(cuda)
    check_same(found, on_cpu(monkeypatch, compute))


def test_numbers_of_the_host_may_stand_before_cuda_tensors() -> None:
    with FakeTensorMode():
        given = torch.tensor(0.5), torch.empty(7, 3, device="cuda")
        sources = [Source(TORCH, tensor, batch=0, dtype="float32", weak=False, view="") for tensor in given]
        assert isinstance(source_devices.place_of(TORCH, sources, None), TorchPlace)
        assert source_devices.place_of(TORCH, sources[:1], None) is None


def test_arrays_for_callers_that_know_no_tensors_are_copied_beside_them() -> None:
    v = np.ones(3, np.float32)
    with FakeTensorMode():
        sources = [
            Source(TORCH, torch.empty(7, 3, device=device), batch=0, dtype="float32", weak=False, view="")
            for device in ("cuda:1", "cpu")
        ]
        assert str(placed_beside(v, sources[:1]).device) == "cuda:1"
        assert placed_beside(v, sources[1:]) is v


RANGES = tuple(np.array(given) for given in ([[0, 7]], [1], [[0, 9]], [[0, 9]], [1], [[0, 7]]))


@pytest.mark.parametrize("is_capturing", [False, True])
def test_tables_are_kept_until_every_stream_and_graph_is_done_with_them(
    cuda: Any, monkeypatch: pytest.MonkeyPatch, is_capturing: bool
) -> None:
    used = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda table, stream: used.append((table, stream)))
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_capturing)
    monkeypatch.setattr(launches, "_read_by_graphs", {})
    x, y = tensors((7,), (20,))
    distances(x, y).sum(axis=1, ranges=RANGES)
    ((table, stream),) = used
    assert stream.cuda_stream == STREAM
    assert list(launches._read_by_graphs.values()) == ([table] if is_capturing else [])


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
        on_host = [torch.empty(array.shape, dtype=torch.int64) for array in RANGES]
        ranged = torch.ops.pylazy.run.default([x, x, *on_host], _program(ranges=RANGES), [0] * 8)
        assert ranged[0].device.type == "cuda"


def _program(**options: Any) -> str:
    return Vi(torch.empty(7, 3)).sqdist(Vj(torch.empty(9, 3))).sum(axis=1, call=False, **options).executable.text()
