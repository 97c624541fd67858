"""A driver that stands in for CUDA's, for tests that launch."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in import VARIABLE, StandInDriver, build, in_use

from pylazy.runtime.gpu_devices import device_count


@pytest.fixture(scope="session")
def stand_in_driver(tmp_path_factory: pytest.TempPathFactory) -> StandInDriver:
    """The stand-in, compiled; one for a process."""
    if VARIABLE not in os.environ and device_count():
        pytest.skip("this process has a driver of real GPUs: pylazy.gpu_check runs there")
    path = build(Path(tmp_path_factory.mktemp("stand_in")))
    if path is None:
        pytest.skip("no C compiler: the stand-in for the CUDA driver cannot be built")
    return StandInDriver(path)


@pytest.fixture
def driver(stand_in_driver: StandInDriver) -> Iterator[StandInDriver]:
    """The stand-in in use, with two devices; errors in launches fail the test."""
    with in_use(stand_in_driver):
        yield stand_in_driver
        assert not stand_in_driver.errors, stand_in_driver.errors
