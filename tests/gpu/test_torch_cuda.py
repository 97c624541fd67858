"""CUDA tensors of a torch that has CUDA: on a GPU, or on the stand-in for CUDA's driver and runtime.

See "How this is tested" of docs/design/0016-gpu-launch.md. All is compared with dense float64 of the host.
"""

# ruff: noqa: E402  what stands in for a GPU comes before torch is asked for one
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from stand_in_torch import start_where_loaded

STAND_IN = start_where_loaded()
if not torch.cuda.is_available():
    pytest.skip("torch has no CUDA here, or no GPU", allow_module_level=True)

import pylazy
from pylazy import DeviceError, Genred, LazyTensor, Pm, Vi, Vj

CUDA = torch.device("cuda", 0)
OTHER = torch.device("cuda", 1)
two_devices = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has one GPU")
RNG = torch.Generator().manual_seed(3)
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 8e-2}


@pytest.fixture(autouse=True)
def _launches_are_right() -> Iterator[None]:
    yield
    torch.cuda.synchronize()
    if STAND_IN is not None:
        errors, STAND_IN.errors[:] = list(STAND_IN.errors), []
        assert not errors, errors


def rows(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device = CUDA) -> Any:
    return torch.randn(*shape, generator=RNG).to(device, dtype)


def host(x: Any) -> Any:
    """Give a float64 copy on the host."""
    return x.detach().cpu().double()


def distances(x: Any, y: Any) -> Any:
    return LazyTensor(x[..., :, None, :]).sqdist(LazyTensor(y[..., None, :, :]))


def dense(x: Any, y: Any) -> Any:
    return (host(x)[..., :, None, :] - host(y)[..., None, :, :]).square().sum(-1)


def check(found: Any, expected: Any, device: torch.device = CUDA, dtype: torch.dtype = torch.float32) -> None:
    assert (found.device, found.dtype) == (device, dtype)
    assert found.shape == expected.shape
    if dtype in TOLERANCES:
        tolerance = TOLERANCES[dtype]
        scale = 1.0 + float(expected.abs().max()) if expected.numel() else 1.0
        torch.testing.assert_close(host(found), expected.double(), rtol=tolerance, atol=tolerance * scale)
    else:
        assert torch.equal(found.cpu(), expected)


def gaussian(x: Any, y: Any, v: Any) -> Any:
    return (-distances(x, y)).exp() @ v


def dense_gaussian(x: Any, y: Any, v: Any) -> Any:
    return (-(x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)).exp() @ v


# Reductions -----------------------------------------------------------------------------------------------------------

REDUCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sum": (lambda k: k.sqrt().sum(axis=1), lambda d: d.sqrt().sum(1, True)),
    "over rows": (lambda k: k.sqrt().sum(axis=0), lambda d: d.sqrt().sum(0)[:, None]),
    "logsumexp": (lambda k: (-k).logsumexp(axis=1), lambda d: (-d).logsumexp(1, True)),
    "min": (lambda k: k.min(axis=1), lambda d: d.min(1, True).values),
    "argmin": (lambda k: k.argmin(axis=1), lambda d: d.argmin(1, True)),
    "Kmin": (lambda k: k.Kmin(3, axis=1), lambda d: d.topk(3, largest=False).values),
    "argKmin": (lambda k: k.argKmin(3, axis=1), lambda d: d.topk(3, largest=False).indices),
    "mean": (lambda k: k.mean(axis=1), lambda d: d.mean(1, True)),
    "var": (lambda k: k.var(axis=1), lambda d: d.var(1, unbiased=False, keepdim=True)),
    "any": (lambda k: (k > 9).any(axis=1), lambda d: (d > 9).any(1, True)),
}


@pytest.mark.parametrize("columns", [5, 300])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_lie_on_the_device_of_their_tensors(name: str, columns: int) -> None:
    lazy, reference = REDUCTIONS[name]
    x, y = rows(7, 3), rows(columns, 3)
    expected = reference(dense(x, y))
    found = lazy(distances(x, y))
    check(found, expected, dtype=torch.float32 if expected.is_floating_point() else expected.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x, y, v = (rows(count, dim, dtype=dtype) for count, dim in ((7, 2), (20, 2), (20, 2)))
    check(gaussian(x, y, v), dense_gaussian(host(x), host(y), host(v)), dtype=dtype)
    mixed = (-distances(x, y)).exp() @ v.float()
    assert mixed.dtype == torch.promote_types(dtype, torch.float32)


def test_strides_and_views() -> None:
    x, y = rows(3, 14).T[::2], rows(40, 6)[::2, ::2]
    v = rows(1, 2).expand(20, 2)
    check(gaussian(x, y, v), dense_gaussian(host(x), host(y), host(v)))
    shifted = rows(50)[1:22].reshape(7, 3)  # 4 bytes past what an allocator aligns
    check(gaussian(shifted, y, v), dense_gaussian(host(shifted), host(y), host(v)))


def test_conjugates_and_complex_numbers() -> None:
    x, y = rows(7, 3), rows(20, 3)
    b = torch.complex(rows(20, 1), rows(20, 1)).conj()
    found = ((1j * distances(x, y)).exp() * LazyTensor(b[None])).sum(axis=1)
    expected = (1j * dense(x, y)).exp() @ b.cpu().to(torch.complex128)
    assert found.device == CUDA
    torch.testing.assert_close(found.cpu().to(torch.complex128), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 20), (7, 0), (0, 0), (1, 1)])
def test_empty_and_single(shape: tuple[int, int]) -> None:
    x, y, v = rows(shape[0], 3), rows(shape[1], 3), rows(shape[1], 2)
    check(gaussian(x, y, v), dense_gaussian(host(x), host(y), host(v)))


def test_batches_numbers_and_lists() -> None:
    x, y = rows(2, 1, 5, 3), rows(4, 9, 3)
    found = (distances(x, y) * 0.3 + [0.5]).sqrt().sum(axis=3)
    check(found, (dense(x, y) * 0.3 + 0.5).sqrt().sum(3, True))
    many = list(np.linspace(0.5, 1.5, 20))
    wide = rows(6, 20)
    found = (Vi(wide) * many).sqdist(Vj(wide)).sum(axis=1)
    check(found, dense(wide * torch.tensor(many, dtype=torch.float32, device=CUDA), wide).sum(1, True))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tensors_without_dimensions_stand_first(device: str) -> None:
    scale = torch.tensor(0.5, device=device)
    x, y = rows(7, 3), rows(20, 3)
    check((Pm(scale) * Vi(x).sqdist(Vj(y))).sum(axis=1), (dense(x, y) * 0.5).sum(1, True))
    inputs = [tensor.clone().requires_grad_() for tensor in (scale, x)]
    (-(Pm(inputs[0]) * Vi(inputs[1]).sqdist(Vj(y)))).exp().sum(axis=1).square().sum().backward()
    dual = [host(tensor).requires_grad_() for tensor in (scale, x)]
    (-(dual[0] * (dual[1][:, None] - host(y)).square().sum(-1))).exp().sum(1).square().sum().backward()
    check(inputs[0].grad, dual[0].grad, device=inputs[0].device)
    check(inputs[1].grad, dual[1].grad)


def test_results_are_written_where_the_user_says() -> None:
    x, y = rows(7, 3), rows(20, 3)
    out = torch.empty(7, 1, device=CUDA)
    assert distances(x, y).sum(axis=1, out=out) is out
    check(out, dense(x, y).sum(1, True))
    with pytest.raises(DeviceError, match="out lies on the device cpu"):
        distances(x, y).sum(axis=1, out=torch.empty(7, 1))


# Ranges ---------------------------------------------------------------------------------------------------------------

KEPT = torch.zeros(6, 20, dtype=torch.bool)
KEPT[:3, :12] = KEPT[3:, 8:] = True


def ranges(device: str = "cpu", dtype: torch.dtype = torch.int32) -> tuple[Any, ...]:
    arrays = (
        [[0, 3], [3, 6]], [1, 2], [[0, 12], [8, 20]],
        [[0, 8], [8, 12], [12, 20]], [1, 2, 3], [[0, 3], [0, 6], [3, 6]],
    )  # fmt: skip
    return tuple(torch.tensor(array, dtype=dtype, device=device) for array in arrays)


def take_memory() -> list[Any]:
    """Take what torch has free for small tensors, and write it."""
    return [torch.full((size,), -1, dtype=torch.int64, device=CUDA) for size in (8, 64, 128, 256) for _ in range(40)]


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_ranges_of_the_host_and_of_the_device(where: str) -> None:
    x, y = rows(6, 3).requires_grad_(), rows(20, 3).requires_grad_()
    given = ranges(where)
    found = distances(x, y).sqrt().sum(axis=1, ranges=given)
    kept = torch.where(KEPT, dense(x, y).sqrt(), 0.0)
    check(found, kept.sum(1, True))
    found.square().sum().backward()
    a, b = host(x).requires_grad_(), host(y).requires_grad_()
    torch.where(KEPT, (a[:, None] - b).square().sum(-1).sqrt(), 0.0).sum(1).square().sum().backward()
    check(x.grad, a.grad)
    check(y.grad, b.grad)


def test_tables_of_ranges_outlive_what_other_streams_do_with_them() -> None:
    x, y = rows(6, 3), rows(20, 3)
    given = ranges()
    distances(x, y).sum(axis=1, ranges=given)  # copies the table on this stream
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(10_000_000) if STAND_IN is None else None
        found = distances(x, y).sum(axis=1, ranges=given)
    del given  # the table's memory may be used again, but not before the other stream is done with it
    taken = take_memory()
    torch.cuda.current_stream().synchronize()
    side.synchronize()
    check(found, torch.where(KEPT, dense(x, y), 0.0).sum(1, True))
    del taken


# Streams and devices --------------------------------------------------------------------------------------------------


def test_reductions_come_in_the_order_of_the_current_stream() -> None:
    x, y, v = rows(7, 3), rows(300, 3), rows(300, 2)
    expected = 4 * dense_gaussian(host(x) + 1, host(y), host(v))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        moved = x + 1
        found = 2 * gaussian(moved, y, v * 2)
        del moved
    torch.cuda.current_stream().wait_stream(side)
    check(found.clone(), expected)


def test_scratch_memory_is_not_shared_by_streams() -> None:
    columns = 700 if STAND_IN is not None else 100_000  # cut into splits, whose states are merged
    y, v = rows(columns, 3), rows(columns, 1)
    inputs = [rows(3, 3) for _ in range(3)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    found = []
    for x, stream in zip(inputs, (torch.cuda.current_stream(), side, torch.cuda.current_stream()), strict=True):
        with torch.cuda.stream(stream):
            found.append(gaussian(x, y, v))
    torch.cuda.synchronize()
    for x, result in zip(inputs, found, strict=True):
        check(result, dense_gaussian(host(x), host(y), host(v)))


def test_gradients_run_on_the_stream_of_their_reduction() -> None:
    x, y, v = rows(7, 3), rows(20, 3), rows(20, 2)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        leaf = x.clone().requires_grad_()
        loss = gaussian(leaf, y, v).square().sum()
    side.synchronize()
    loss.backward()
    torch.cuda.current_stream().wait_stream(side)
    dual = host(x).requires_grad_()
    dense_gaussian(dual, host(y), host(v)).square().sum().backward()
    check(leaf.grad, dual.grad)


def test_threads_have_streams_of_their_own() -> None:
    x, y, v = rows(7, 3), rows(20, 3), rows(20, 2)
    torch.cuda.synchronize()
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):
                found[number] = gaussian(x * number, y, v)
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        check(found[number], dense_gaussian(host(x) * number, host(y), host(v)))


@two_devices
def test_the_second_device_is_used_from_the_first() -> None:
    x, y, v = (rows(*shape, device=OTHER).requires_grad_() for shape in ((7, 3), (20, 3), (20, 2)))
    found = gaussian(x, y, v)
    assert torch.cuda.current_device() == 0
    check(found, dense_gaussian(host(x), host(y), host(v)), OTHER)
    found.square().sum().backward()
    dual = [host(tensor).requires_grad_() for tensor in (x, y, v)]
    dense_gaussian(*dual).square().sum().backward()
    for tensor, expected in zip((x, y, v), dual, strict=True):
        check(tensor.grad, expected.grad, OTHER)
    nearest = distances(x, y).argKmin(2, axis=1)
    check(nearest, dense(x, y).topk(2, largest=False).indices, OTHER, torch.int64)
    listed = distances(x, y).sum(axis=1, ranges=None, backend="GPU", device_id=1)
    check(listed, dense(x, y).sum(1, True), OTHER)


@two_devices
def test_gradients_of_two_devices_run_together() -> None:
    y, v = rows(20, 3), rows(20, 2)
    x = [rows(7, 3, device=device).requires_grad_() for device in (CUDA, OTHER)]
    found = [gaussian(tensor, y.to(tensor.device), v.to(tensor.device)).square().sum() for tensor in x]
    (found[0] + found[1].to(CUDA)).backward()
    for tensor in x:
        dual = host(tensor).requires_grad_()
        dense_gaussian(dual, host(y), host(v)).square().sum().backward()
        check(tensor.grad, dual.grad, tensor.device)


@two_devices
def test_the_current_device_may_be_another_one() -> None:
    x, y, v = rows(7, 3).requires_grad_(), rows(20, 3), rows(20, 2)
    with torch.cuda.device(OTHER):
        found = gaussian(x, y, v)
        found.sum().backward()
    check(found.detach(), dense_gaussian(host(x), host(y), host(v)))
    assert x.grad.device == CUDA


def test_a_thread_that_has_not_used_cuda() -> None:
    x, y, v = rows(7, 3), rows(20, 3), rows(20, 2)
    torch.cuda.synchronize()
    found = []
    thread = threading.Thread(target=lambda: found.append(gaussian(x, y, v)))
    thread.start()
    thread.join()
    check(found[0], dense_gaussian(host(x), host(y), host(v)))


@two_devices
def test_devices_that_differ_are_refused() -> None:
    x, y = rows(7, 3), rows(20, 3, device=OTHER)
    with pytest.raises(DeviceError, match="lie on the devices cuda:0 and cuda:1, expected one"):
        distances(x, y).sum(axis=1)
    with pytest.raises(DeviceError, match="lie on cuda:0, and the reduction is to run on GPU 1"):
        distances(x, x).sum(axis=1, device_id=1)
    with pytest.raises((DeviceError, RuntimeError), match="cuda:0 and cuda:1"):
        torch.func.grad(lambda x: distances(x, y).sum(axis=1).sum())(x)


def test_the_host_and_the_device_do_not_mix() -> None:
    x, y = rows(7, 3), rows(20, 3)
    with pytest.raises(DeviceError, match="lie on the devices cpu and cuda:0, expected one"):
        distances(x, y.cpu()).sum(axis=1)
    with pytest.raises(DeviceError, match="lie on the devices cpu and cuda:0, expected one"):
        (Vi(x) - Vj(y.cpu().numpy())).sum(axis=1)
    with pytest.raises(DeviceError, match="lie on cuda:0, and the reduction is to run on the CPU"):
        distances(x, y).sum(axis=1, backend="CPU")


def test_tensors_of_the_host_run_on_the_gpu() -> None:
    x, y = rows(7, 3).cpu().requires_grad_(), rows(20, 3).cpu()
    found = (-distances(x, y)).exp().sum(axis=1, backend="GPU")
    check(found, (-dense(x, y)).exp().sum(1, True), torch.device("cpu"))
    found.sum().backward()
    dual = host(x).requires_grad_()
    (-(dual[:, None] - host(y)).square().sum(-1)).exp().sum().backward()
    check(x.grad, dual.grad, torch.device("cpu"))
    of_func = torch.func.grad(lambda x: (-distances(x, y)).exp().sum(axis=1, backend="GPU").sum())(x.detach())
    check(of_func, dual.grad, torch.device("cpu"))
    array = (-distances(x.detach().numpy(), y.numpy())).exp().sum(axis=1, backend="GPU")
    np.testing.assert_allclose(array, found.detach().numpy(), rtol=1e-6)


def test_a_default_device_does_not_move_what_is_on_the_host() -> None:
    x, y = rows(7, 3), rows(20, 3)
    expected = (dense(x, y) * 0.5).sum(1, True)
    for default in (CUDA, torch.device("cuda", torch.cuda.device_count() - 1)):
        with torch.device(default):
            check((distances(x, y) * 0.5).sum(axis=1), expected)
            check((distances(x.cpu(), y.cpu()) * 0.5).sum(axis=1), expected, torch.device("cpu"))
            found = torch.func.grad(lambda x: (distances(x, y) * [0.5]).mean(axis=1).sum())(x)
            check(found, host(x) - host(y).mean(0))


# Derivatives ----------------------------------------------------------------------------------------------------------


def test_gradients_of_every_order() -> None:
    def derivatives(product: Callable[..., Any], inputs: list[Any]) -> tuple[Any, ...]:
        value = product(*inputs).square().sum()
        (first,) = torch.autograd.grad(value, inputs[0], create_graph=True)
        return (first, *torch.autograd.grad(first.sin().sum(), inputs))

    x, y, v = rows(6, 3), rows(20, 3), rows(20, 2)
    found = derivatives(gaussian, [tensor.clone().requires_grad_() for tensor in (x, y, v)])
    expected = derivatives(dense_gaussian, [host(tensor).requires_grad_() for tensor in (x, y, v)])
    for one, other in zip(found, expected, strict=True):
        check(one.detach(), other.detach())


def test_gradients_of_selections_and_of_batches() -> None:
    x, y = rows(2, 5, 3).requires_grad_(), rows(9, 3).requires_grad_()
    distances(x, y).Kmin(2, axis=2).square().sum().backward()
    a, b = host(x).requires_grad_(), host(y).requires_grad_()
    (a[:, :, None] - b).square().sum(-1).topk(2, largest=False).values.square().sum().backward()
    check(x.grad, a.grad)
    check(y.grad, b.grad)


def test_gradients_arrive_in_the_dtype_of_their_tensor() -> None:
    x, y = rows(7, 3, dtype=torch.float64).requires_grad_(), rows(20, 3)
    (-distances(x, y)).exp().sum(axis=1).sum().backward()
    dual = host(x).requires_grad_()
    (-(dual[:, None] - host(y)).square().sum(-1)).exp().sum().backward()
    check(x.grad, dual.grad, dtype=torch.float64)


def test_transforms_of_torch() -> None:
    x, y = rows(3, 5, 2), rows(8, 2)

    def total(x: Any) -> Any:
        return (-distances(x, y)).logsumexp(axis=1).sum()

    def reference(x: Any) -> Any:
        return (-(x[:, None] - host(y)).square().sum(-1)).logsumexp(1).sum()

    check(torch.func.vmap(torch.func.grad(total))(x), torch.func.vmap(torch.func.grad(reference))(host(x)))
    tangent = rows(5, 2)
    _, found = torch.func.jvp(total, (x[0],), (tangent,))
    _, expected = torch.func.jvp(reference, (host(x[0]),), (host(tangent),))
    check(found, expected)
    check(torch.func.hessian(total)(x[0][:2]), torch.func.hessian(reference)(host(x[0][:2])))


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_transforms_of_torch_take_ranges(where: str) -> None:
    x, y = rows(6, 3), rows(20, 3)
    given = ranges(where)
    dual = host(x).requires_grad_()
    torch.where(KEPT, (dual[:, None] - host(y)).square().sum(-1), 0.0).sum(1).square().sum().backward()
    found = torch.func.grad(lambda x: distances(x, y).sum(axis=1, ranges=given).square().sum())(x)
    check(found, dual.grad)


def test_parameters_are_fitted() -> None:
    x, y = rows(7, 3), rows(9, 3)
    scale = torch.nn.Parameter(torch.tensor([0.5], device=CUDA))
    optimizer = torch.optim.Adam([scale], lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = ((-Pm(scale) * Vi(x).sqdist(Vj(y))).exp().sum(axis=1) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


def test_functions_without_a_graph_are_refused_or_answered() -> None:
    x, y = rows(7, 3), rows(9, 3)
    with pytest.raises(pylazy.PylazyError):
        pylazy.grad(lambda x: (-distances(x, y)).exp().sum(axis=1).sum())(x)


def test_linear_systems() -> None:
    x, b = rows(12, 2), rows(12, 1)
    data = x.clone().requires_grad_()
    found = (-distances(data, data)).exp().solve(b, alpha=1.0)
    found.square().sum().backward()
    dual = host(x).requires_grad_()
    matrix = (-(dual[:, None] - dual).square().sum(-1)).exp() + torch.eye(12, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, host(b))
    expected.square().sum().backward()
    assert found.device == CUDA
    torch.testing.assert_close(host(found), expected.detach(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(host(data.grad), dual.grad, rtol=1e-3, atol=1e-3)


def test_operators() -> None:
    x, y = rows(7, 3), rows(5, 3)
    unit = torch.eye(7, dtype=torch.float64)
    kernel, other = (-dense(x, x)).exp(), (-dense(x, y)).exp()
    shifted = (-distances(x, x)).exp() + 2 * pylazy.identity()
    check(shifted.dense(), kernel + 2 * unit)
    check(shifted.diagonal(), (kernel + 2 * unit).diagonal())
    rectangular = (-distances(x, y)).exp()
    check((rectangular @ rectangular.T).dense(), other @ other.T)
    ones = np.ones((7, 1), np.float32)
    for found, expected in (
        (shifted.matvec(ones), (kernel + 2 * unit).sum(1, True)),
        (rectangular.rmatvec(ones), other.sum(0)[:, None]),
        ((1j * rectangular).rmatvec(ones), -1j * other.sum(0)[:, None]),
    ):
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_checkpoints_and_hooks() -> None:
    from torch.utils.checkpoint import checkpoint

    x, y, v = rows(7, 3).requires_grad_(), rows(20, 3), rows(20, 2)
    checkpoint(gaussian, x, y, v, use_reentrant=False).square().sum().backward()
    saved = x.grad
    x.grad = None
    with torch.autograd.graph.save_on_cpu():
        gaussian(x, y, v).square().sum().backward()
    check(x.grad, host(saved))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_is_waited_for_by_what_decides_nothing() -> None:
    x, y, v = rows(7, 3).requires_grad_(), rows(20, 3), rows(20, 2)

    def run() -> None:
        gaussian(x, y, v).sum().backward()
        (distances(x, y) * 0.7 + [0.1]).logsumexp(axis=1)
        (Pm(torch.tensor(0.5)) * Vi(x).sqdist(Vj(y))).sum(axis=1)
        distances(x, y).Kmin(2, axis=1).sum().backward()
        distances(x, y).mean(axis=1)
        distances(x, y).var(axis=1)

    run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_inference_and_deterministic_modes(where: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with torch.inference_mode():
            x, y = rows(6, 3), rows(20, 3)
            found = distances(x, y).sum(axis=1, ranges=ranges(where))
            check(found, torch.where(KEPT, dense(x, y), 0.0).sum(1, True))
            check(distances(x, y).sum(axis=1), dense(x, y).sum(1, True))
    finally:
        torch.use_deterministic_algorithms(False)


def test_scaled_gradients_of_mixed_precision() -> None:
    x, y, v = torch.nn.Parameter(rows(7, 3)), rows(20, 3), rows(20, 2)
    before, optimizer, scaler = x.detach().clone(), torch.optim.SGD([x], lr=0.1), torch.amp.GradScaler("cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = gaussian(x, y, v).square().sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    dual = host(before).requires_grad_()
    dense_gaussian(dual, host(y), host(v)).square().sum().backward()
    torch.testing.assert_close(host(x), host(before) - 0.1 * dual.grad, rtol=2e-2, atol=2e-2)


def test_autocast_has_its_say() -> None:
    x, y, v = rows(7, 3), rows(20, 3), rows(20, 2)
    with torch.autocast("cuda", dtype=torch.float16):
        check(gaussian(x, y, v), dense_gaussian(host(x), host(y), host(v)))


# Compiled, exported, captured -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # as of the backend's own first try
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "cudagraphs"])
def test_compiled_functions(backend: str) -> None:
    compiled = torch.compile(gaussian, fullgraph=True, backend=backend)
    x, y, v = rows(7, 3).requires_grad_(), rows(20, 3), rows(20, 2)
    found = compiled(x, y, v)
    check(found, dense_gaussian(host(x), host(y), host(v)))
    found.square().sum().backward()
    dual = host(x).requires_grad_()
    dense_gaussian(dual, host(y), host(v)).square().sum().backward()
    check(x.grad, dual.grad)


def test_the_op_passes_the_checks_of_torch() -> None:
    x, y, v = (rows(*shape).requires_grad_() for shape in ((7, 3), (9, 3), (9, 2)))
    program = ((-Vi(x).sqdist(Vj(y))).exp() * Vj(v)).sum(axis=1, call=False).executable.text()
    torch.library.opcheck(torch.ops.pylazy.run.default, ([x, y, v], program, [0, 0, 0]))


def test_exported_programs() -> None:
    class Product(torch.nn.Module):
        def forward(self, x: Any, y: Any, v: Any) -> Any:
            return gaussian(x, y, v)

    inputs = rows(7, 3), rows(9, 3), rows(9, 2)
    exported = torch.export.export(Product(), inputs)
    assert any("pylazy.run" in str(node.target) for node in exported.graph.nodes)
    check(exported.module()(*inputs), dense_gaussian(*map(host, inputs)))


def captured(function: Callable[[], Any]) -> tuple[Any, Any]:
    """Run a function for its kernels to be loaded, then capture it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


def test_graphs_are_replayed_on_other_contents() -> None:
    x, y, v = rows(7, 3), rows(300, 3), rows(300, 2)
    graph, found = captured(lambda: ((-distances(x, y) * 0.5 + [0.1]).exp() @ v, distances(x, y).argmin(axis=1)))
    for _ in range(2):
        x.copy_(rows(7, 3))
        v.mul_(2)
        graph.replay()
        check(found[0], (-dense(x, y) * 0.5 + 0.1).exp() @ host(v))
        check(found[1], dense(x, y).argmin(1, True), dtype=torch.int64)


def test_graphs_hold_gradients() -> None:
    x, y, v = rows(7, 3).requires_grad_(), rows(20, 3), rows(20, 2)

    def step() -> Any:
        x.grad = None
        loss = gaussian(x, y, v).square().sum()
        loss.backward()
        return loss.detach(), x.grad

    graph, (loss, gradient) = captured(step)
    with torch.no_grad():
        x.copy_(rows(7, 3))
    graph.replay()
    dual = host(x).requires_grad_()
    expected = dense_gaussian(dual, host(y), host(v)).square().sum()
    expected.backward()
    check(loss, expected.detach())
    check(gradient, dual.grad)


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream")  # as of every graphed function
def test_functions_become_graphs() -> None:
    x, y, v = rows(7, 3), rows(20, 3), rows(20, 2)
    graphed = torch.cuda.make_graphed_callables(gaussian, (x.clone().requires_grad_(), y, v.clone().requires_grad_()))
    inputs = [rows(7, 3).requires_grad_(), y, rows(20, 2).requires_grad_()]
    found = graphed(*inputs)
    found.square().sum().backward()
    dual = [host(tensor).requires_grad_() for tensor in inputs]
    expected = dense_gaussian(*dual)
    expected.square().sum().backward()
    check(found.detach(), expected.detach())
    check(inputs[0].grad, dual[0].grad)
    check(inputs[2].grad, dual[2].grad)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_graphs_hold_the_tables_of_ranges(where: str) -> None:
    x, y = rows(6, 3), rows(20, 3)
    given = [ranges(where)]
    distances(x, y).sum(axis=1, ranges=given[0])
    graph, found = captured(lambda: distances(x, y).sum(axis=1, ranges=given[0]))
    given.clear()
    taken = take_memory()
    x.copy_(rows(6, 3))
    graph.replay()
    check(found, torch.where(KEPT, dense(x, y), 0.0).sum(1, True))
    del taken


def test_a_first_call_is_captured_where_the_driver_can() -> None:
    x, y = rows(7, 3), rows(20, 3)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            found = (distances(x, y).cos() / 7).tanh().sum(axis=1)
    except (DeviceError, RuntimeError) as error:
        first = error.__context__ if isinstance(error.__context__, DeviceError) else error
        assert "run the same call once before" in str(first)
        return
    graph.replay()
    check(found, (dense(x, y).cos() / 7).tanh().sum(1, True))


@pytest.mark.skipif(STAND_IN is None, reason="a GPU keeps no list of what it was asked")
def test_calls_wait_for_nothing_and_take_memory_from_torch() -> None:
    assert STAND_IN is not None
    x, y, v = (tensor.requires_grad_() for tensor in (rows(7, 3), rows(300, 3), rows(300, 2)))

    def step() -> None:
        gaussian(x, y, v).square().sum().backward()

    step()
    torch.cuda.synchronize()
    STAND_IN.calls()
    step()
    calls = STAND_IN.calls()
    launched = [call for call in calls if call.startswith("cuLaunchKernel")]
    assert launched
    assert calls == launched


# The rest of the package ----------------------------------------------------------------------------------------------


def test_reductions_of_texts() -> None:
    x, y, v = rows(7, 3), rows(20, 3), rows(20, 2)
    aliases = ["x = Vi(3)", "y = Vj(3)", "v = Vj(2)"]
    expected = dense_gaussian(host(x), host(y), host(v))
    check(Genred("Exp(-SqDist(x, y)) * v", aliases, axis=1)(x, y, v), expected)
    from pylazy.compat.keops.torch_names import Genred as KeopsGenred
    from pylazy.compat.keops.torch_names import LazyTensor as KeopsTensor

    check(KeopsGenred("Exp(-SqDist(x, y)) * v", aliases, axis=1)(x, y, v, backend="GPU"), expected)
    check((-KeopsTensor(x[:, None]).sqdist(KeopsTensor(y[None]))).exp() @ v, expected)


def test_bundles(tmp_path: Any) -> None:
    x, y, v = rows(7, 3), rows(20, 3), rows(20, 2)
    major, minor = torch.cuda.get_device_capability(CUDA)
    made = pylazy.Bundle()
    reduction = ((-Vi(x).sqdist(Vj(y))).exp() * Vj(v)).sum(axis=1, call=False)
    made.add(reduction, name="product", gradients=True)
    made.compile([f"sm_{major}{minor}"]).save(tmp_path / "k.plzb")
    loaded = pylazy.load_bundle(tmp_path / "k.plzb")
    leaf = x.clone().requires_grad_()
    found = loaded["product"](leaf, y, v)
    check(found.detach(), dense_gaussian(host(x), host(y), host(v)))
    found.square().sum().backward()
    dual = host(x).requires_grad_()
    dense_gaussian(dual, host(y), host(v)).square().sum().backward()
    check(leaf.grad, dual.grad)
    with pytest.raises(pylazy.PylazyError):
        loaded["product"](x.cpu(), y.cpu(), v.cpu())


def test_the_check_of_a_gpu_runs(tmp_path: Any) -> None:
    from pylazy.gpu_check.__main__ import main

    command = ["--quick", "--only", "gaussian_d3_e1", "--no-times", "-o", str(tmp_path / "found")]
    assert main(command) == 0
