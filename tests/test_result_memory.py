"""Memory of large results: used again, and never by two arrays at once."""

import gc
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pylazy import Vi, Vj
from pylazy.arrays import result_memory
from pylazy.arrays.result_memory import LEAST_BYTES, MOST_BYTES, recycled
from pylazy.arrays.results import empty_result

COUNT = LEAST_BYTES // 4


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    gc.collect()
    result_memory._free.clear()
    yield
    result_memory._free.clear()


def new(count: int = COUNT) -> Any:
    return empty_result("numpy", (count, 1), "float32")


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_of_a_dropped_result_is_used_again() -> None:
    result = new()
    first = address(result)
    del result
    assert address(new()) == first


def test_results_that_live_lie_apart() -> None:
    results = [new() for _ in range(4)]
    for k, result in enumerate(results):
        result[[0, -1]] = k
    del results[1]
    results += [new(), new()]
    places = sorted(address(result) for result in results)
    assert all(b - a >= LEAST_BYTES for a, b in pairwise(places))
    assert [result[0, 0] for result in results[:3]] == [0, 2, 3]


@pytest.mark.parametrize("refer", [
    lambda result: result[5:9, 0],
    lambda result: result.reshape(2, -1).T[3:],
    memoryview,
    lambda result: result.view(np.uint8),
    np.from_dlpack,
    np.ctypeslib.as_ctypes,
])  # fmt: skip
def test_whatever_refers_to_a_result_keeps_its_memory(refer: Any) -> None:
    result = new()
    first, reference = address(result), refer(result)
    del result
    gc.collect()
    assert address(new()) != first
    del reference
    gc.collect()
    assert address(new()) == first


def test_tensor_keeps_the_memory_of_its_result() -> None:
    torch = pytest.importorskip("torch")
    tensor = empty_result("torch", (COUNT, 1), "float32")
    assert tensor.dtype == torch.float32
    first, part = tensor.data_ptr(), tensor[3:, 0]
    del tensor
    assert address(new()) != first
    del part
    assert empty_result("torch", (COUNT, 1), "float32").data_ptr() == first


def test_small_and_huge_results_are_ordinary_arrays() -> None:
    assert new(COUNT - 1).flags.owndata
    assert new(MOST_BYTES // 4 + 1).flags.owndata
    assert not result_memory._free


def test_memory_of_another_size_is_given_back_to_the_system() -> None:
    result = new()
    del result
    other = new(COUNT + 64)
    assert other.shape == (COUNT + 64, 1)
    assert not result_memory._free
    del other
    assert [block.nbytes for block in result_memory._free] == [4 * (COUNT + 64)]


def test_one_block_is_kept_at_most() -> None:
    results = [new() for _ in range(3)]
    results.clear()
    assert len(result_memory._free) == 1


def test_dtype_and_shape_are_those_of_a_new_array() -> None:
    for dtype in ("float32", "float64", "int64"):
        made = np.empty((2, LEAST_BYTES // 16), dtype)
        for result in (recycled(made), recycled(made.copy())):
            assert (result.shape, result.dtype) == (made.shape, made.dtype)
            assert result.flags.c_contiguous
            assert result.flags.writeable


def test_threads_never_share_a_result() -> None:
    faults = []

    def work(number: int) -> None:
        for turn in range(200):
            result = new()
            result[:: COUNT // 4] = 1000 * number + turn
            if not (result[:: COUNT // 4] == 1000 * number + turn).all():
                faults.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_reduction_of_many_rows_is_right_in_memory_that_was_used_before() -> None:
    x = np.linspace(0, 1, COUNT, dtype=np.float32)[:, None]
    places = set()
    for shift in (1.0, 2.0, 3.0):
        result = (Vi(x) + Vj(np.full((1, 1), shift, np.float32))).sum(axis=1)
        places.add(address(result))
        np.testing.assert_array_equal(result, x + np.float32(shift))
        del result
    assert len(places) == 1
