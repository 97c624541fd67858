"""Launches by the runtime library, against a driver that stands in for CUDA's."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from stand_in import StandInDriver, launches

from gpu_formulas import FORMULAS, Variables, expected, inputs_of, traced
from pylazy.compiler.compile import compile_ptx
from pylazy.runtime import gpu_devices
from pylazy.runtime.errors import CompileError, DeviceError
from pylazy.runtime.gpu_image import GpuImage
from pylazy.runtime.gpu_launch import GpuProgram, GpuSizes
from reference import assert_close

Array = Any  # an ndarray
ROWS, COLUMNS = 5, 300
PROCESSORS = 4


@pytest.fixture(scope="module")
def image() -> GpuImage:
    return compile_ptx(traced(gaussian()), "sm_80")


def gaussian() -> Any:
    return FORMULAS["gaussian_d3_e1"](Variables(ROWS, COLUMNS, np.float32))


class Run:
    """A program on arrays that count as memory of a device."""

    def __init__(
        self,
        driver: StandInDriver,
        image: GpuImage,
        inputs: list[Array],
        *,
        device: int = 0,
        batch: tuple[int, ...] = (),
    ) -> None:
        self.program = GpuProgram(image)
        self.device = device
        self.result = np.full((*batch, ROWS, 1), np.nan, np.float32)
        self.arrays = [*inputs, self.result]
        strides = [_batch_strides(array, batch) for array in self.arrays]
        self.sizes = GpuSizes(ROWS, COLUMNS, processors=PROCESSORS, batch_sizes=batch, batch_strides=strides)
        self.scratch = np.full(self.program.scratch_bytes(self.sizes), 0xFF, np.uint8)
        for array in (*self.arrays, self.scratch):
            driver.register(array, device)

    def launch(self, stream: int = 0) -> Array:
        addresses = [array.ctypes.data for array in self.arrays]
        scratch = self.scratch.ctypes.data if self.scratch.size else 0
        self.program.launch(self.device, stream, addresses, scratch, self.sizes)
        return self.result


def _batch_strides(array: Array, batch: tuple[int, ...]) -> tuple[int, ...]:
    own = array.strides[: array.ndim - 2]
    return tuple(0 if size == 1 else stride for size, stride in zip(array.shape, own, strict=False)) or (0,) * len(
        batch
    )


def check(result: Array, reduction: Any) -> None:
    (dense,) = expected(reduction)
    assert_close(result, dense, dtype=np.float32, columns=COLUMNS, scale=1.0 + np.abs(dense).max())


def test_a_launch_computes_and_does_nothing_else(driver: StandInDriver, image: GpuImage) -> None:
    reduction = gaussian()
    run = Run(driver, image, inputs_of(reduction))
    run.program.load(0)
    driver.calls()
    check(run.launch(stream=7), reduction)
    calls = driver.calls()
    assert [call.split()[1] for call in calls] == [kernel.name for kernel in image.kernels]
    assert all(call.startswith("cuLaunchKernel") and "stream=7" in call for call in calls)


def test_a_module_is_loaded_once_for_each_device(driver: StandInDriver, image: GpuImage) -> None:
    runs = [Run(driver, image, inputs_of(gaussian()), device=device) for device in (0, 1)]
    runs[1].program = runs[0].program
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda run: run.program.load(run.device), runs * 8))
    assert len([call for call in driver.calls() if call.startswith("cuModuleLoadDataEx")]) == 2
    for device, run in enumerate(runs):
        check(run.launch(), gaussian())
        assert all(f"device={device}" in call for call in launches(driver.calls()))


def test_a_cubin_that_the_device_does_not_run_gives_way_to_ptx(driver: StandInDriver, image: GpuImage) -> None:
    assembled = GpuImage(image.target, image.text, image.kernels, image.buffers, b"\x7fELF of another device")
    check(Run(driver, assembled, inputs_of(gaussian())).launch(), gaussian())
    loads = [call for call in driver.calls() if call.startswith("cuModuleLoadDataEx")]
    assert loads == ["cuModuleLoadDataEx device=0 cubin", "cuModuleLoadDataEx device=0 ptx"]


def test_equal_steps_along_a_batch_are_one_launch(driver: StandInDriver, image: GpuImage) -> None:
    x, *others = inputs_of(gaussian())
    batch = (2, 3)
    inputs = [np.stack([array * k for k in range(1, 7)]).reshape(*batch, *array.shape) for array in (x, *others)]
    run = Run(driver, image, inputs, batch=batch)
    found = run.launch()
    calls = launches(driver.calls())
    assert [call.split()[1] for call in calls] == [kernel.name for kernel in image.kernels]
    assert all(",6 threads" in call for call in calls)
    for place in np.ndindex(batch):
        single = Run(driver, image, [array[place].copy() for array in inputs])
        np.testing.assert_allclose(found[place], single.launch(), rtol=1e-5)


def test_other_batches_are_a_launch_for_each_element_of_the_shorter_dimension(
    driver: StandInDriver, image: GpuImage
) -> None:
    x, y, b = (np.ascontiguousarray(array) for array in inputs_of(gaussian()))
    inputs = [np.stack([x, 2 * x])[:, None], np.stack([y, y / 2, y / 3])[None], b[None, None]]
    found = Run(driver, image, inputs, batch=(2, 3)).launch()
    calls = launches(driver.calls())
    assert sum("merge" not in call for call in calls) == 2
    assert all(",3 threads" in call for call in calls)
    for i, j in np.ndindex(2, 3):
        single = Run(driver, image, [inputs[0][i, 0].copy(), inputs[1][0, j].copy(), b])
        np.testing.assert_allclose(found[i, j], single.launch(), rtol=1e-5)


def test_errors_of_the_driver_name_what_failed(driver: StandInDriver, image: GpuImage) -> None:
    run = Run(driver, image, inputs_of(gaussian()))
    driver.fail("cuLaunchKernel", 700)
    with pytest.raises(
        DeviceError, match=r"launching a kernel failed with CUDA_ERROR_OF_THE_STAND_IN \(700\): what the"
    ):
        run.launch()
    with pytest.raises(DeviceError, match="there is no GPU 5: this machine has 2"):
        run.program.load(5)
    with pytest.raises(MemoryError, match=r"allocating memory of a GPU failed with CUDA_ERROR_OUT_OF_MEMORY"):
        gpu_devices.DeviceMemory(1 << 40, device=0, stream=0)


def test_errors_of_the_drivers_compiler_come_with_its_log(driver: StandInDriver, image: GpuImage) -> None:
    program = GpuProgram(image)
    driver.fail("cuModuleLoadDataEx", 218, "ptxas application ptx input, line 7; fatal: no such opcode")
    with pytest.raises(CompileError, match=r"CUDA_ERROR_INVALID_PTX \(218\).*on GPU 1 .* says: ptxas .* line 7; fatal"):
        program.load(1)
    program.load(1)


def test_devices_are_described(driver: StandInDriver) -> None:
    assert gpu_devices.device_count() == 2
    assert gpu_devices.properties(1).name == "stand-in 1"
    assert gpu_devices.free_memory(0) == 1 << 34
    driver.configure(devices=0)
    assert gpu_devices.device_count() == 0
    assert "counting GPUs failed" in gpu_devices.reason_for_no_device()


@pytest.mark.parametrize("pools", [True, False])
def test_memory_is_filled_read_and_given_back(driver: StandInDriver, pools: bool) -> None:
    driver.configure(devices=2, pools=pools)
    host = np.arange(7.0)
    found = np.zeros_like(host)
    before = driver.allocated()
    memory = gpu_devices.DeviceMemory(host.nbytes, device=1, stream=3)
    assert driver.allocated() == before + 1
    memory.fill(host.ctypes.data, host.nbytes)
    memory.read(found.ctypes.data, host.nbytes)
    assert not found.any()
    gpu_devices.synchronize(1, 3)
    np.testing.assert_array_equal(found, host)
    del memory
    assert driver.allocated() == before


def test_a_stream_waits_for_another(driver: StandInDriver) -> None:
    driver.calls()
    gpu_devices.let_wait(5, 9, device=0)
    assert driver.calls()[-2:] == ["cuEventRecord stream=9", "cuStreamWaitEvent stream=5"]


def test_an_image_is_read_back(image: GpuImage) -> None:
    assert GpuImage.from_bytes(image.to_bytes()) == image


def test_the_stand_in_for_pykeops_and_the_report_count_gpus(driver: StandInDriver) -> None:
    from pylazy.commands.show_info import collect_info
    from pylazy.compat.keops import gpu_count, pykeops_config

    assert gpu_count.get_gpu_number() == 2
    assert pykeops_config.gpu_available is True
    assert collect_info()["gpu"].startswith("stand-in 0 (compute capability 9.0, 4 processors), stand-in 1")
    driver.configure(devices=0)
    assert gpu_count.get_gpu_number() == 0
    assert pykeops_config.gpu_available is False
    assert collect_info()["gpu"].startswith("none: counting GPUs failed")
