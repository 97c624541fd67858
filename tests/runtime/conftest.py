"""Kernel images to launch."""

from collections.abc import Callable, Iterator

import pytest
from machine_code import COUNT_VISITS, RECORD_THREAD, make_image, make_phase, make_product_sum

from pylazy.runtime.kernel import Buffer, KernelImage
from pylazy.runtime.threads import get_num_threads, set_num_threads


@pytest.fixture(scope="session")
def product_sum_image() -> KernelImage:
    return make_product_sum()


@pytest.fixture(scope="session")
def count_visits_image() -> KernelImage:
    # An estimate high enough that even a few rows run in parallel.
    buffers = (Buffer("visits", "output", "i", "int64", 1),)
    return make_image([(make_phase("visit", rows_per_tile=3, cost=1e6), COUNT_VISITS)], buffers)


@pytest.fixture(scope="session")
def record_thread_image() -> Callable[[float], KernelImage]:
    """By estimated cost: what decides whether other threads are asked."""

    def make(cost: float) -> KernelImage:
        return make_image([(make_phase("record", cost=cost), RECORD_THREAD)], (Buffer("t", "output", "i", "int64", 1),))

    return make


@pytest.fixture
def keep_num_threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)
