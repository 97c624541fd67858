"""Arrays of other libraries on a GPU, by doubles of CuPy and JAX on a driver that stands in for CUDA's."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_libraries import STREAM, DeviceArray, ExchangedArray, ExchangeLibrary, StreamLibrary
from stand_in import StandInDriver, launches
from test_host_arrays import check_same, rows

from pylazy import (
    DeviceError,
    DtypeError,
    Genred,
    KernelSolve,
    LazyTensor,
    NonFiniteError,
    UnsupportedError,
    Vi,
    Vij,
    Vj,
    evaluate,
    identity,
)
from pylazy.gpu import dlpack
from pylazy.gpu import launches as gpu_launches

Array = Any  # an ndarray
X, Y, V = rows(7), rows(300), rows(300, 2)

REDUCTIONS = {
    "product": lambda x, y, v: (-Vi(x).sqdist(Vj(y))).exp() @ v,
    "logsumexp": lambda x, y, _: (-Vi(x).sqdist(Vj(y))).logsumexp(axis=1),
    "argmin": lambda x, y, _: Vi(x).sqdist(Vj(y)).argmin(axis=1),
    "Kmin_argKmin": lambda x, y, _: Vi(x).sqdist(Vj(y)).Kmin_argKmin(3, axis=1),
    "numbers": lambda x, y, _: (((Vi(x) - Vj(y)) * [0.5, 1.0, 2.0]).norm2() * 0.7).sum(axis=0),
    "mean": lambda x, y, _: Vi(x).sqdist(Vj(y)).mean(axis=1),
    "any": lambda x, y, _: (Vi(x).sqdist(Vj(y)) - 1).relu().any(axis=1),
    "genred": lambda x, y, _: Genred("SqDist(x, y)", ["x = Vi(3)", "y = Vj(3)"], "Max", axis=1)(x, y),
}


@pytest.fixture
def library(driver: StandInDriver) -> StreamLibrary:
    return StreamLibrary(driver)


def unwrapped(found: Any) -> Any:
    """Give the data of results, and check that they are of the library."""
    if isinstance(found, tuple):
        return tuple(map(unwrapped, found))
    assert isinstance(found, DeviceArray | ExchangedArray)
    return found.array


@pytest.mark.parametrize("name", REDUCTIONS)
def test_arrays_with_a_stream_stay_in_their_library(library: StreamLibrary, name: str) -> None:
    reduce = REDUCTIONS[name]
    given = [library.array(array) for array in (X, Y, V)]
    reduce(*given)
    library.driver.calls()
    found = reduce(*given)
    calls = library.driver.calls()
    assert calls
    assert all(call.startswith("cuLaunchKernel") and f"stream={STREAM}" in call for call in calls)
    check_same(unwrapped(found), reduce(X, Y, V))


def test_long_lists_are_copied(library: StreamLibrary, driver: StandInDriver) -> None:
    x, numbers = rows(5, 20), [0.1 * k for k in range(20)]
    expected = (Vi(x) * numbers).sum(-1).sum(axis=1)
    check_same(unwrapped((Vi(library.array(x)) * numbers).sum(-1).sum(axis=1)), expected)
    exchanged = ExchangeLibrary(driver).array(x)
    check_same(unwrapped((Vi(exchanged) * numbers).sum(-1).sum(axis=1)), expected)


def test_batches_and_views(library: StreamLibrary) -> None:
    x, y = rows(5, 3, 2, 1), rows(2 * 9, 3, 4)[:, ::2]
    device = library.array(np.repeat(y, 2, axis=1))[:, ::2]

    def reduce(x: Any, y: Any) -> Any:
        return LazyTensor(x[..., :, None, :]).sqdist(LazyTensor(y[..., None, :, :])).min(axis=3)

    check_same(unwrapped(reduce(library.array(x), device)), reduce(x, y))


def test_other_dtypes_are_converted_by_the_library(library: StreamLibrary) -> None:
    x, y = X.astype(np.float16), (10 * Y).astype(np.int32)
    found = REDUCTIONS["argmin"](library.array(x), library.array(y), None)
    np.testing.assert_array_equal(unwrapped(found), REDUCTIONS["argmin"](x, y, None))


def test_several_reductions_and_stored_pairs(library: StreamLibrary) -> None:
    pairs = rows(7, 5)

    def reduce(a: Any) -> Any:
        k = Vij(a)
        return evaluate(k.sum(axis=1, call=False), k.max(axis=1, call=False))

    check_same(unwrapped(reduce(library.array(pairs))), reduce(pairs))


def test_entries_and_spreads(library: StreamLibrary) -> None:
    x, y = library.array(X), library.array(Y)
    check_same(unwrapped(Vi(x).sqdist(Vj(y)).dense()), Vi(X).sqdist(Vj(Y)).dense())
    check_same(unwrapped(Vi(x).sqdist(Vj(y)).var(axis=1)), Vi(X).sqdist(Vj(Y)).var(axis=1))


SYSTEMS = {
    "cg": lambda k, b: k.solve(b, alpha=0.3, eps=1e-9),
    "a vector": lambda k, b: k.solve(b[:, 0], alpha=0.3, eps=1e-9),
    "minres": lambda k, b: k.solve(b, alpha=0.3, eps=1e-9, method="minres"),
    "jacobi": lambda k, b: k.solve(b, alpha=0.3, eps=1e-9, preconditioner="jacobi"),
    "nystrom": lambda k, b: k.solve(b, alpha=0.3, eps=1e-9, preconditioner="nystrom", rank=5),
    "operators": lambda k, b: (k + 0.5 * identity() + 2 * k).solve(b, eps=1e-9, preconditioner="jacobi"),
}
SOLVER = KernelSolve("Exp(-SqDist(x, y)) * b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(2)"], "b", axis=1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_are_solved_where_their_arrays_lie(library: StreamLibrary, name: str) -> None:
    x, b = rows(13).astype(np.float64), rows(13, 2).astype(np.float64)

    def solve(x: Any, b: Any) -> Any:
        return SYSTEMS[name]((-Vi(x).sqdist(Vj(x))).exp(), b)

    found = unwrapped(solve(library.array(x), library.array(b)))
    np.testing.assert_allclose(found, solve(x, b), rtol=1e-6, atol=1e-8)


def test_kernel_solve_stays_in_its_library(library: StreamLibrary) -> None:
    x, b = rows(13).astype(np.float64), rows(13, 2).astype(np.float64)
    found = SOLVER(*map(library.array, (x, x, b)), alpha=0.3, eps=1e-9)
    np.testing.assert_allclose(unwrapped(found), SOLVER(x, x, b, alpha=0.3, eps=1e-9), rtol=1e-6, atol=1e-8)


def test_systems_of_what_cannot_be_computed_with_are_refused(library: StreamLibrary, driver: StandInDriver) -> None:
    x, nan = library.array(X), library.array(np.full((7, 1), np.nan, np.float32))
    with pytest.raises(NonFiniteError, match=r"b is nan at index \(0, 0\)"):
        (-Vi(x).sqdist(Vj(x))).exp().solve(nan, alpha=1.0)
    exchanged = ExchangeLibrary(driver).array(X)
    with pytest.raises(UnsupportedError, match="a linear system with arrays of type ExchangedArray on a GPU"):
        (-Vi(exchanged).sqdist(Vj(exchanged))).exp().solve(exchanged, alpha=1.0)


def test_the_stream_of_an_array_is_waited_for(library: StreamLibrary) -> None:
    library.produced_on = 99
    REDUCTIONS["argmin"](library.array(X), library.array(Y), None)
    calls = [call for call in library.driver.calls() if call.startswith(("cuEventRecord", "cuStreamWait", "cuLaunch"))]
    assert calls[:2] == ["cuEventRecord stream=99", f"cuStreamWaitEvent stream={STREAM}"]
    assert calls[-1].startswith("cuLaunchKernel")


def test_every_stream_has_tables_of_its_own_and_graphs_keep_them(
    library: StreamLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, kept = [], {}
    monkeypatch.setattr(library, "asarray", lambda words: copied.append(library.array(words)) or copied[-1])
    monkeypatch.setattr(gpu_launches, "_read_by_graphs", kept)
    given = tuple(np.array(array) for array in ([[0, 7]], [1], [[0, 300]], [[0, 300]], [1], [[0, 7]]))
    x, y = library.array(X), library.array(Y)
    for pointer, is_capturing, tables in ((STREAM, False, 1), (STREAM, False, 1), (STREAM + 2, True, 2)):
        library.stream = SimpleNamespace(ptr=pointer, is_capturing=lambda is_capturing=is_capturing: is_capturing)
        found = Vi(x).sqdist(Vj(y)).sum(axis=1, ranges=given)
        check_same(unwrapped(found), Vi(X).sqdist(Vj(Y)).sum(axis=1))
        assert len(copied) == tables
    assert list(kept.values()) == copied[1:]


def test_the_device_of_the_arrays_is_the_one(library: StreamLibrary) -> None:
    x, y = library.array(X, device=1), library.array(Y, device=1)
    with pytest.raises(DeviceError, match="the arrays lie on cuda:1, and the reduction is to run on GPU 0"):
        Vi(x).sqdist(Vj(y)).sum(axis=1, device_id=0)
    with pytest.raises(DeviceError, match="lie on the devices cuda:0 and cuda:1, expected one"):
        Vi(x).sqdist(Vj(library.array(Y))).sum(axis=1)
    with pytest.raises(DeviceError, match="lie on the devices cpu and cuda:1, expected one"):
        Vi(x).sqdist(Vj(Y)).sum(axis=1)


def test_out_and_nameless_libraries_are_refused(library: StreamLibrary, driver: StandInDriver) -> None:
    x = library.array(X)
    with pytest.raises(UnsupportedError, match="cannot be written in place"):
        Vi(x).sqdist(Vj(x)).sum(axis=1, out=library.array(X))

    class Nameless:
        shape, ndim, dtype = (7, 3), 2, np.dtype(np.float32)
        __dlpack__ = None

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    with pytest.raises(DtypeError, match="lies on GPU 0 and names no library that makes arrays"):
        Vi(Nameless())


def test_empty_axes(library: StreamLibrary) -> None:
    found = Vi(library.array(X)).sqdist(Vj(library.array(Y[:0]))).logsumexp(axis=1)
    np.testing.assert_array_equal(unwrapped(found), np.full((7, 1), -np.inf))


@pytest.mark.parametrize("name", ["product", "argmin", "numbers", "mean", "any"])
def test_arrays_that_only_speak_dlpack(driver: StandInDriver, name: str) -> None:
    library = ExchangeLibrary(driver)
    before = driver.allocated()
    given = [library.array(array) for array in (X, Y, V)]
    found = REDUCTIONS[name](*given)
    calls = driver.calls()
    assert launches(calls)
    assert calls[-1].startswith("cuMemFree") or any("cuStreamSynchronize" in call for call in calls)
    check_same(unwrapped(found), REDUCTIONS[name](X, Y, V))
    assert library.given >= 2
    assert driver.allocated() == before
    assert not dlpack._HELD


def test_a_capsule_that_nobody_takes_is_freed(driver: StandInDriver) -> None:
    from pylazy.runtime.gpu_devices import DeviceMemory

    before = driver.allocated()
    buffer = dlpack.DeviceBuffer(DeviceMemory(64, device=0, stream=0), (4, 4), "float32")
    capsule = buffer.__dlpack__()
    del buffer
    assert driver.allocated() == before + 1
    del capsule
    assert driver.allocated() == before
