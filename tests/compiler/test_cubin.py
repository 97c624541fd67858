"""Cubins by each of NVIDIA's assemblers, where they are installed."""

from pathlib import Path

import numpy as np
import pytest

from gpu_formulas import FORMULAS, Variables, traced
from pylazy.compiler.codegen import cubin
from pylazy.compiler.codegen.cubin import emit_cubin, find_assembler, find_nvjitlink, link, with_cubin
from pylazy.compiler.compile import compile_ptx
from pylazy.runtime.errors import CompileError, UnsupportedError
from pylazy.runtime.gpu_image import GpuImage

ELF = b"\x7fELF"


@pytest.fixture(scope="module")
def image() -> GpuImage:
    return compile_ptx(traced(FORMULAS["gaussian_d3_e1"](Variables(7, 5, np.float32))), "sm_80")


@pytest.fixture
def nvjitlink() -> Path:
    found = find_nvjitlink()
    if found is None:
        pytest.skip("nvJitLink is not installed: it is in nvidia-nvjitlink")
    return found


@pytest.mark.skipif(find_assembler() is None, reason="no assembler is installed: it is in nvidia-cuda-nvcc")
def test_an_image_gets_a_cubin_and_the_name_of_its_assembler(image: GpuImage) -> None:
    assembled = with_cubin(image)
    assert assembled.cubin.startswith(ELF)
    assert assembled.provenance["assembler"].split()[0] in {"ptxas", "nvJitLink"}
    assert GpuImage.from_bytes(assembled.to_bytes()) == assembled


@pytest.mark.skipif(find_assembler() is None, reason="no assembler is installed: it is in nvidia-cuda-nvcc")
def test_an_architecture_that_the_assembler_does_not_know_gets_none(image: GpuImage) -> None:
    with pytest.raises(CompileError):
        emit_cubin(image.text, arch="sm_999")
    text = image.text.replace(".target sm_80", ".target sm_999")
    unknown = GpuImage(target="sm_999", text=text, kernels=image.kernels, buffers=image.buffers)
    assert with_cubin(unknown) == unknown


def test_nvjitlink_assembles_the_same_kernels(image: GpuImage, nvjitlink: Path) -> None:
    found = link(image.text, arch="sm_86", library=nvjitlink)
    assert found.startswith(ELF)
    assert all(kernel.name.encode() in found for kernel in image.kernels)


def test_errors_of_nvjitlink_have_its_log(image: GpuImage, nvjitlink: Path) -> None:
    with pytest.raises(CompileError, match=r"nvJitLink refuses the PTX for sm_80: .*line \d+"):
        link(image.text.replace("ret;", "return;", 1), arch="sm_80", library=nvjitlink)
    with pytest.raises(CompileError, match="sm_999"):
        link(image.text, arch="sm_999", library=nvjitlink)


def test_without_an_assembler_images_stay_as_they_are(image: GpuImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubin, "find_assembler", lambda: None)
    assert with_cubin(image) is image
    with pytest.raises(UnsupportedError, match="nvidia-cuda-nvcc"):
        emit_cubin(image.text, arch="sm_80")
