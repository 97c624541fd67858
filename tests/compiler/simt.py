"""Run GPU kernels on the CPU: the LLVM IR that becomes PTX, one thread of the system for each thread of a block."""

import ctypes
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import llvmlite.binding as llvmlite
import numpy as np

from pylazy.compiler.codegen.ptx import PtxKernel

Array = Any  # an ndarray
#: Bytes of NaN before and after every buffer: a read beyond its end shows in the result, a write is found at the end.
GUARD_BYTES = 4096
_TIMEOUT_SECONDS = 60

_INTRINSICS: Mapping[str, str] = {
    r"llvm\.nvvm\.read\.ptx\.sreg\.tid\.x": "simt_thread",
    r"llvm\.nvvm\.read\.ptx\.sreg\.ctaid\.x": "simt_block",
    r"llvm\.nvvm\.barrier\.cta\.sync\.aligned\.all|llvm\.nvvm\.barrier0": "simt_barrier",
    r"llvm\.nvvm\.ex2\.approx(?:\.ftz)?\.f(?:32)?": "llvm.exp2.f32",
    r"llvm\.nvvm\.lg2\.approx(?:\.ftz)?\.f(?:32)?": "llvm.log2.f32",
    r"llvm\.nvvm\.rsqrt\.approx(?:\.ftz)?\.f(?:32)?": "simt_rsqrt",
    r"llvm\.nvvm\.sqrt\.approx(?:\.ftz)?\.f(?:32)?": "llvm.sqrt.f32",
}
_PRELUDE = """
declare i32 @simt_thread()
declare i32 @simt_block()
declare void @simt_barrier(i32)
declare float @llvm.exp2.f32(float)
declare float @llvm.log2.f32(float)
define internal float @simt_rsqrt(float %x) {
  %root = call float @llvm.sqrt.f32(float %x)
  %result = fdiv float 1.0, %root
  ret float %result
}
"""


def host_text(llvm_text: str) -> str:
    """Rewrite LLVM IR for NVPTX so that the host runs it: one address space, calls for what only a GPU has."""
    text = re.sub(r" ?addrspace\(\d\)", "", llvm_text).replace("ptx_kernel ", "")
    for pattern, name in _INTRINSICS.items():
        text = re.sub(rf"^declare [^\n]*@(?:{pattern})\([^\n]*\n", "", text, flags=re.MULTILINE)
        text = re.sub(rf"@(?:{pattern})\(", f"@{name}(", text)
    for name in ("exp2", "log2"):
        text = re.sub(rf"^declare [^\n]*@llvm\.{name}\.f32\([^\n]*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(@\w+_workgroup = )internal ", r"\1", text, flags=re.MULTILINE)
    prelude = _PRELUDE if "@llvm.sqrt.f32(float)" in text else _PRELUDE + "declare float @llvm.sqrt.f32(float)\n"
    return text + prelude


class Simt:
    """The kernels of a module, compiled for the host."""

    def __init__(self, llvm_text: str) -> None:
        llvmlite.initialize_native_target()
        llvmlite.initialize_native_asmprinter()
        self._local = threading.local()
        self._barrier: threading.Barrier | None = None
        # The callbacks must outlive the engine.
        self._callbacks = {
            "simt_thread": ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: self._local.thread),
            "simt_block": ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: self._local.block),
            "simt_barrier": ctypes.CFUNCTYPE(None, ctypes.c_int32)(self._wait),
        }
        module = llvmlite.parse_assembly(host_text(llvm_text))
        module.verify()
        machine = llvmlite.Target.from_default_triple().create_target_machine(opt=1, jit=True)
        self._engine = llvmlite.create_mcjit_compiler(module, machine)
        for name, callback in self._callbacks.items():
            address = ctypes.cast(callback, ctypes.c_void_p).value
            self._engine.add_global_mapping(module.get_function(name), address)
        self._engine.finalize_object()

    def _wait(self, barrier: int) -> None:
        assert barrier == 0
        assert self._barrier is not None
        self._barrier.wait(_TIMEOUT_SECONDS)

    def launch(self, kernel: PtxKernel, buffers: Sequence[Array], *, rows: int, columns: int) -> None:
        """Run a kernel over guarded copies of the buffers, and copy them back.

        Blocks run one after the other; workgroup memory is NaN at the start of each.
        """
        guarded = [_Guarded(buffer) for buffer in buffers]
        entry = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(buffers), ctypes.c_int64, ctypes.c_int64)(
            self._engine.get_function_address(kernel.name)
        )
        arguments = [buffer.address for buffer in guarded]
        for block in range(-(-rows // kernel.rows_per_block)):
            if kernel.workgroup_bytes:
                tile = self._engine.get_global_value_address(f"{kernel.name}_workgroup")
                ctypes.memset(tile, 0xFF, kernel.workgroup_bytes)
            self._run_block(lambda: entry(*arguments, rows, columns), block, kernel.block_threads)
        for buffer, original in zip(guarded, buffers, strict=True):
            original[...] = buffer.checked()

    def _run_block(self, run: Any, block: int, threads: int) -> None:
        self._barrier = threading.Barrier(threads)

        def body(thread: int) -> None:
            self._local.thread, self._local.block = thread, block
            run()

        workers = [threading.Thread(target=body, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not self._barrier.broken


class _Guarded:
    """A copy of an array between guards."""

    def __init__(self, array: Array) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self.size = array.nbytes
        self.bytes = np.full(self.size + 2 * GUARD_BYTES, 0xFF, np.uint8)
        self.bytes[GUARD_BYTES : GUARD_BYTES + self.size] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.address = self.bytes.ctypes.data + GUARD_BYTES

    def checked(self) -> Array:
        """Give the array, if nothing was written beyond it."""
        assert (self.bytes[:GUARD_BYTES] == 0xFF).all(), "a kernel wrote before a buffer"
        assert (self.bytes[GUARD_BYTES + self.size :] == 0xFF).all(), "a kernel wrote after a buffer"
        return self.bytes[GUARD_BYTES : GUARD_BYTES + self.size].view(self.dtype).reshape(self.shape)
