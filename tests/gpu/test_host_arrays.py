"""Reductions of host arrays with backend="GPU", on a driver that stands in for CUDA's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stand_in import StandInDriver, launches

from pylazy import DeviceError, Genred, KernelSolve, LazyTensor, Vi, Vj, evaluate
from reference import assert_close

Array = Any  # an ndarray
RNG = np.random.default_rng(5)


def rows(count: int, dim: int = 3, *batch: int) -> Array:
    return RNG.standard_normal((*batch, count, dim)).astype(np.float32)


def distances(x: Any, y: Any) -> Any:
    return LazyTensor(x[..., :, None, :]).sqdist(LazyTensor(y[..., None, :, :]))


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "product": lambda k, v, **o: (-k).exp().__matmul__(v, **o),
    "logsumexp": lambda k, _, **o: (-k).logsumexp(axis=k.dim() - 2, **o),
    "argmin": lambda k, _, **o: k.argmin(axis=k.dim() - 2, **o),
    "Kmin_argKmin": lambda k, _, **o: k.Kmin_argKmin(3, axis=k.dim() - 2, **o),
    "over rows": lambda k, _, **o: k.sqrt().sum(axis=k.dim() - 3, **o),
    "mean": lambda k, _, **o: k.mean(axis=k.dim() - 2, **o),
    "any": lambda k, _, **o: (k - 1).relu().any(axis=k.dim() - 2, **o),
    "var": lambda k, _, **o: k.var(axis=k.dim() - 2, **o),
}


def check_same(found: Any, expected: Any) -> None:
    """Compare results of a GPU with those of the CPU, which other tests compare with the oracle."""
    if isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            check_same(one, other)
        return
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    if isinstance(found, torch.Tensor):
        found, expected = found.detach().numpy(), expected.detach().numpy()
    if found.dtype.kind in "ib":
        np.testing.assert_array_equal(found, expected)
    else:
        scale = 1.0 + np.abs(expected).max(initial=0)
        assert_close(found, expected, dtype=np.float32, columns=300, scale=scale)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_numpy_arrays_are_reduced_on_the_gpu(driver: StandInDriver, name: str) -> None:
    x, y, v = rows(7), rows(300), rows(300, 2)
    found = REDUCTIONS[name](distances(x, y), v, backend="GPU")
    assert launches(driver.calls())
    assert driver.allocated() == 0
    check_same(found, REDUCTIONS[name](distances(x, y), v))


@pytest.mark.parametrize("name", ["product", "argmin", "mean"])
def test_batches_broadcast_on_the_gpu(driver: StandInDriver, name: str) -> None:
    x, y, v = rows(5, 3, 2, 1), rows(9, 3, 4)[::-1], rows(9, 2)
    found = REDUCTIONS[name](distances(x, y), v, backend="GPU")
    assert launches(driver.calls())
    check_same(found, REDUCTIONS[name](distances(x, y), v))


def test_device_id_chooses_the_gpu(driver: StandInDriver) -> None:
    x, y = rows(4), rows(5)
    distances(x, y).sum(axis=1, backend="GPU", device_id=1)
    assert all("device=1" in call for call in launches(driver.calls()))
    with pytest.raises(DeviceError, match="the backend is 'GPU' on GPU 2, and this machine has 2"):
        distances(x, y).sum(axis=1, backend="GPU", device_id=2)
    driver.configure(devices=0)
    with pytest.raises(DeviceError, match="on GPU 0, and this machine has none, counting GPUs failed"):
        distances(x, y).sum(axis=1, backend="GPU")


def test_auto_leaves_host_arrays_on_the_cpu(driver: StandInDriver) -> None:
    driver.calls()
    distances(rows(4), rows(5)).sum(axis=1, backend="auto")
    distances(rows(4), rows(5)).sum(axis=1, device_id=1)
    assert driver.calls() == []


def test_a_formula_remembers_its_backend(driver: StandInDriver) -> None:
    k = distances(rows(4), rows(5))
    k.backend = "GPU"
    (-k).exp().sum(axis=1)
    assert launches(driver.calls())


def test_genred_takes_a_backend_for_a_call(driver: StandInDriver) -> None:
    reduce = Genred("Exp(-SqDist(x, y))", ["x = Vi(3)", "y = Vj(3)"], axis=1)
    x, y = rows(4), rows(5)
    found = reduce(x, y, backend="GPU", device_id=1)
    assert all("device=1" in call for call in launches(driver.calls()))
    check_same(found, reduce(x, y))
    assert not driver.calls()


def test_several_reductions_share_a_launch(driver: StandInDriver) -> None:
    k = distances(rows(4), rows(50))
    options = {"axis": 1, "call": False, "backend": "GPU"}
    found = evaluate((-k).exp().sum(**options), k.min(**options))
    assert launches(driver.calls())
    check_same(found, ((-k).exp().sum(axis=1), k.min(axis=1)))


def test_results_are_written_into_out(driver: StandInDriver) -> None:
    k = distances(rows(4), rows(5))
    out = np.empty((4, 1), np.float32)
    assert k.sum(axis=1, backend="GPU", out=out) is out
    assert launches(driver.calls())
    check_same(out, k.sum(axis=1))


def test_what_does_not_fit_is_computed_in_blocks_of_rows(driver: StandInDriver) -> None:
    x, y, v = rows(1000), rows(20), rows(20, 1)
    driver.set_free_bytes(8192)
    found = (-distances(x, y)).exp().__matmul__(v, backend="GPU")
    calls = driver.calls()
    assert len([call for call in launches(calls) if "merge" not in call]) > 2
    copies = [call for call in calls if call.startswith("cuMemcpyHtoDAsync")]
    assert sum(f" {y.nbytes} " in call for call in copies) == 1
    check_same(found, (-distances(x, y)).exp() @ v)


def test_a_batch_that_does_not_fit_is_computed_one_by_one(driver: StandInDriver) -> None:
    x, y = rows(100, 3, 9), rows(20)
    driver.set_free_bytes(8192)
    found = distances(x, y).min(axis=2, backend="GPU")
    assert len([call for call in launches(driver.calls()) if "merge" not in call]) == 9
    check_same(found, distances(x, y).min(axis=2))


def test_what_cannot_be_cut_is_refused_with_sizes(driver: StandInDriver) -> None:
    driver.set_free_bytes(8192)
    with pytest.raises(DeviceError, match=r"GPU 0 has 6553 bytes for a reduction that needs more than \d+ at once"):
        distances(rows(4), rows(5000)).sum(axis=1, backend="GPU")


def test_gradients_of_tensors_run_on_the_gpu(driver: StandInDriver) -> None:
    x, y, v = (torch.from_numpy(array) for array in (rows(7), rows(30), rows(30, 2)))

    def gradients(**options: Any) -> list[Any]:
        inputs = [tensor.clone().requires_grad_() for tensor in (x, y, v)]
        value = (-distances(*inputs[:2])).exp().__matmul__(inputs[2], **options)
        driver.calls()
        value.square().sum().backward()
        return [value, *(tensor.grad for tensor in inputs)]

    found = gradients(backend="GPU")
    assert launches(driver.calls())
    check_same(tuple(found), tuple(gradients()))


def test_empty_axes_launch_nothing(driver: StandInDriver) -> None:
    driver.calls()
    found = distances(rows(3), rows(0)).sum(axis=1, backend="GPU")
    assert not launches(driver.calls())
    np.testing.assert_array_equal(found, np.zeros((3, 1)))


def test_linear_systems_multiply_on_the_gpu(driver: StandInDriver) -> None:
    x, b = rows(20), rows(20, 1)
    solve = KernelSolve("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], "b", axis=1)
    found = solve(x, x, b, backend="GPU", alpha=1.0)
    assert launches(driver.calls())
    np.testing.assert_allclose(found, solve(x, x, b, alpha=1.0), rtol=1e-4, atol=1e-5)
    k = (-distances(x, x)).exp()
    np.testing.assert_allclose(k.solve(b, alpha=1.0, backend="GPU"), found, rtol=1e-4, atol=1e-5)
    assert launches(driver.calls())


def test_numbers_and_parameters_are_copied(driver: StandInDriver) -> None:
    x, y = rows(5), rows(6)
    k = (Vi(x) - Vj(y)).square().sum(-1) * 0.37 + [1.5]
    check_same(k.sum(axis=1, backend="GPU"), k.sum(axis=1))
    assert launches(driver.calls())
