"""Launches that CUDA graphs capture, and what streams order, on a driver that stands in for CUDA's."""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stand_in import StandInDriver
from test_runtime import Run, check, gaussian, image

from gpu_formulas import inputs_of
from pylazy.runtime import gpu_devices
from pylazy.runtime.errors import DeviceError
from pylazy.runtime.gpu_image import GpuImage
from pylazy.runtime.gpu_launch import GpuProgram

__all__ = ["image"]  # a fixture
UNSUPPORTED, INVALIDATED, UNJOINED = 900, 901, 904
GLOBAL = 0
STREAM, SIDE = 41, 43


class Driver:
    """The functions for graphs of the driver, in the context of its first device."""

    def __init__(self, path: Any) -> None:
        self._library = ctypes.CDLL(str(path))
        self._context = ctypes.c_void_p()
        self._library.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), 0)

    def call(self, name: str, *arguments: Any) -> int:
        popped = ctypes.c_void_p()
        self._library.cuCtxPushCurrent_v2(self._context)
        try:
            return int(getattr(self._library, name)(*arguments))
        finally:
            self._library.cuCtxPopCurrent_v2(ctypes.byref(popped))

    def begin(self) -> None:
        assert self.call("cuStreamBeginCapture_v2", ctypes.c_void_p(STREAM), GLOBAL) == 0

    def end(self) -> tuple[int, ctypes.c_void_p]:
        graph = ctypes.c_void_p()
        return self.call("cuStreamEndCapture", ctypes.c_void_p(STREAM), ctypes.byref(graph)), graph

    def replay(self, graph: ctypes.c_void_p) -> None:
        made = ctypes.c_void_p()
        assert self.call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_ulonglong(0)) == 0
        assert self.call("cuGraphLaunch", made, ctypes.c_void_p(STREAM)) == 0


@pytest.fixture
def graphs(driver: StandInDriver) -> Iterator[Driver]:
    made = Driver(driver.path)
    yield made
    made.end()


@pytest.fixture
def late(driver: StandInDriver) -> Iterator[StandInDriver]:
    """The driver, running work as late as it may."""
    driver.run_late()
    yield driver
    driver.run_at_once()


def loaded(driver: StandInDriver, image: GpuImage) -> tuple[Run, Any]:
    reduction = gaussian()
    run = Run(driver, image, [array.copy() for array in inputs_of(reduction)])
    run.program.load(0)
    return run, reduction


def test_a_captured_launch_runs_when_its_graph_does(driver: StandInDriver, graphs: Driver, image: GpuImage) -> None:
    run, reduction = loaded(driver, image)
    graphs.begin()
    run.launch(stream=STREAM)
    status, graph = graphs.end()
    assert status == 0
    assert np.isnan(run.result).all()
    graphs.replay(graph)
    check(run.result, reduction)
    first = run.result.copy()
    run.arrays[-2][...] *= 2
    graphs.replay(graph)
    np.testing.assert_allclose(run.result, 2 * first, rtol=1e-6)


def test_a_module_is_loaded_while_a_stream_is_captured(driver: StandInDriver, graphs: Driver, image: GpuImage) -> None:
    program = GpuProgram(image)
    graphs.begin()
    program.load(0)
    with pytest.raises(DeviceError, match="not permitted when stream is capturing"):
        gpu_devices.synchronize(0, SIDE)  # the mode of the thread is the one from before
    assert graphs.end()[0] == INVALIDATED


def test_a_driver_that_loads_nothing_while_it_captures_is_explained(driver: StandInDriver, image: GpuImage) -> None:
    driver.fail("cuModuleLoadDataEx", UNSUPPORTED)
    with pytest.raises(DeviceError, match=r"not permitted when stream is capturing; .*: run the same call once before"):
        GpuProgram(image).load(0)


def test_waiting_and_allocating_end_a_capture(driver: StandInDriver, graphs: Driver) -> None:
    driver.configure(devices=2, pools=False)
    for call in (
        lambda: gpu_devices.synchronize(0, STREAM),
        lambda: gpu_devices.DeviceMemory(256, device=0, stream=0),
    ):
        graphs.begin()
        with pytest.raises(DeviceError, match="not permitted when stream is capturing"):
            call()
        assert graphs.end()[0] == INVALIDATED


def test_streams_that_a_capture_lets_wait_belong_to_it(driver: StandInDriver, graphs: Driver, image: GpuImage) -> None:
    run, reduction = loaded(driver, image)
    graphs.begin()
    gpu_devices.let_wait(SIDE, STREAM, device=0)
    run.launch(stream=SIDE)
    assert np.isnan(run.result).all()
    assert graphs.end()[0] == UNJOINED
    graphs.begin()
    gpu_devices.let_wait(SIDE, STREAM, device=0)
    run.launch(stream=SIDE)
    gpu_devices.let_wait(STREAM, SIDE, device=0)
    status, graph = graphs.end()
    assert status == 0
    graphs.replay(graph)
    check(run.result, reduction)


def test_what_is_not_waited_for_may_run_late(late: StandInDriver, image: GpuImage) -> None:
    run, reduction = loaded(late, image)
    run.launch(stream=STREAM)
    gpu_devices.synchronize(0, SIDE)
    assert np.isnan(run.result).all()
    gpu_devices.let_wait(SIDE, STREAM, device=0)
    gpu_devices.synchronize(0, SIDE)
    check(run.result, reduction)
