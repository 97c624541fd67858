"""PTX -> a cubin, by NVIDIA's assembler: `ptxas`, or the library nvJitLink; no GPU and no driver are needed."""

import ctypes
import functools
import importlib.util
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pylazy.compiler.codegen.ptx import assemble, find_ptxas
from pylazy.runtime.errors import CompileError, UnsupportedError
from pylazy.runtime.gpu_image import GpuImage

_PTX_INPUT = 2  # nvJitLink.h, NVJITLINK_INPUT_PTX


class Assembler(NamedTuple):
    """What makes cubins.

    Attributes:
        name: what it is and of which version; equal names make equal cubins.
        assemble: from PTX and an architecture to a cubin; raises `CompileError`.
    """

    name: str
    assemble: Callable[[str, str], bytes]


@functools.cache
def find_assembler() -> "Assembler | None":
    """Find `ptxas` (the wheel nvidia-cuda-nvcc, or on the search path), else nvJitLink (the wheel nvidia-nvjitlink)."""
    ptxas = find_ptxas()
    if ptxas is not None:
        return Assembler(_identity("ptxas", ptxas), lambda ptx, arch: assemble(ptx, arch=arch, ptxas=ptxas)[0])
    library = find_nvjitlink()
    if library is not None:
        return Assembler(_identity("nvJitLink", library), lambda ptx, arch: link(ptx, arch=arch, library=library))
    return None


def _identity(name: str, path: Path) -> str:
    status = path.stat()
    return f"{name} {status.st_size} {status.st_mtime_ns}"


@functools.cache
def assembler_version() -> str:
    """Name the assembler and its version, as it says them itself: the same wherever it is installed."""
    ptxas = find_ptxas()
    if ptxas is not None:
        command = [str(ptxas), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603, a tool that we found
        return f"ptxas {said.rpartition(', ')[2].split()[0]}" if ", " in said else "ptxas"
    library = find_nvjitlink()
    if library is None:
        return "none"
    major, minor = ctypes.c_uint(), ctypes.c_uint()
    _open(library).nvJitLinkVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"nvJitLink {major.value}.{minor.value}"


def emit_cubin(ptx: str, *, arch: str) -> bytes:
    """Assemble PTX for one architecture.

    Raises:
        UnsupportedError: there is no assembler.
        CompileError: it refuses the text, or does not know the architecture.
    """
    assembler = find_assembler()
    if assembler is None:
        raise UnsupportedError("no assembler for PTX is installed: it is in the package nvidia-cuda-nvcc")
    return assembler.assemble(ptx, arch)


def with_cubin(image: GpuImage) -> GpuImage:
    """Add a cubin to an image where an assembler takes it; where none does, the driver has a compiler of its own."""
    assembler = find_assembler()
    if assembler is None:
        return image
    try:
        cubin = assembler.assemble(image.text, image.target)
    except CompileError:  # an assembler that is older than the architecture
        return image
    return replace(image, cubin=cubin, provenance={**image.provenance, "assembler": assembler.name})


# nvJitLink


def find_nvjitlink() -> "Path | None":
    """Find the library of the wheel nvidia-nvjitlink."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        for pattern in ("*/lib/libnvJitLink.so.*", "*/bin/**/nvJitLink_*.dll"):
            for path in sorted(Path(folder).glob(pattern)):
                return path
    return None


@functools.cache
def _open(library: Path) -> Any:
    loaded = ctypes.CDLL(str(library))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    signatures: dict[str, tuple[Any, ...]] = {
        "Create": (ctypes.POINTER(pointer), ctypes.c_uint32, ctypes.POINTER(ctypes.c_char_p)),
        "AddData": (pointer, ctypes.c_int, ctypes.c_char_p, size, ctypes.c_char_p),
        "Complete": (pointer,),
        "GetLinkedCubinSize": (pointer, ctypes.POINTER(size)),
        "GetLinkedCubin": (pointer, ctypes.c_char_p),
        "GetErrorLogSize": (pointer, ctypes.POINTER(size)),
        "GetErrorLog": (pointer, ctypes.c_char_p),
        "Destroy": (ctypes.POINTER(pointer),),
    }
    for name, arguments in signatures.items():
        getattr(loaded, f"nvJitLink{name}").argtypes = arguments
    return loaded


def link(ptx: str, *, arch: str, library: Path) -> bytes:
    """Assemble PTX by nvJitLink.

    Raises:
        CompileError: it refuses the text, or does not know the architecture.
    """
    loaded = _open(library)
    handle = ctypes.c_void_p()
    options = (ctypes.c_char_p * 1)(f"-arch={arch}".encode())
    text = ptx.encode()
    if loaded.nvJitLinkCreate(ctypes.byref(handle), 1, options):
        raise CompileError(f"nvJitLink does not know {arch}")
    try:
        # The size counts the zero at the end.
        failed = loaded.nvJitLinkAddData(handle, _PTX_INPUT, text, len(text) + 1, b"kernels")
        if failed or loaded.nvJitLinkComplete(handle):
            log = _read(loaded.nvJitLinkGetErrorLogSize, loaded.nvJitLinkGetErrorLog, handle)
            message = log.rstrip(b"\0").decode(errors="replace").strip()
            raise CompileError(f"nvJitLink refuses the PTX for {arch}: {message[:2000]}")
        return _read(loaded.nvJitLinkGetLinkedCubinSize, loaded.nvJitLinkGetLinkedCubin, handle)
    finally:
        loaded.nvJitLinkDestroy(ctypes.byref(handle))


def _read(size_of: Callable[..., int], read: Callable[..., int], handle: Any) -> bytes:
    size = ctypes.c_size_t()
    size_of(handle, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    read(handle, content)
    return content.raw
