"""LLVM IR text -> ELF object, by LLVM's code generator."""

import functools
import threading
from typing import Any

from pylazy.compiler.target import CpuTarget
from pylazy.runtime.errors import InternalError

_lock = threading.Lock()


@functools.cache
def _binding() -> Any:
    import llvmlite.binding

    llvmlite.binding.initialize_all_targets()
    llvmlite.binding.initialize_all_asmprinters()
    return llvmlite.binding


def llvm_version() -> str:
    """Name the version of LLVM that generates code."""
    return ".".join(str(part) for part in _binding().llvm_version_info)


@functools.cache
def _target_machine(target: CpuTarget) -> Any:
    """Make a code generator; ELF on all systems, since images are flat and carry no trace of the object format."""
    return (
        _binding()
        .Target.from_triple(target.triple)
        .create_target_machine(cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small")
    )


def _parse(llvm_text: str, target: CpuTarget) -> Any:
    machine = _target_machine(target)
    try:
        parsed = _binding().parse_assembly(llvm_text)
        parsed.triple = target.triple
        parsed.data_layout = str(machine.target_data)
        parsed.verify()
    except RuntimeError as error:
        raise InternalError(f"generated LLVM IR is not accepted: {error}") from error
    return parsed


def emit_object(llvm_text: str, *, target: CpuTarget) -> bytes:
    """Compile LLVM IR to a relocatable ELF object.

    Raises:
        InternalError: LLVM refuses the text, which is a fault of the compiler.
    """
    with _lock:
        return bytes(_target_machine(target).emit_object(_parse(llvm_text, target)))


def emit_assembly(llvm_text: str, *, target: CpuTarget) -> str:
    """Compile LLVM IR to assembly text.

    Raises:
        InternalError: LLVM refuses the text, which is a fault of the compiler.
    """
    with _lock:
        return str(_target_machine(target).emit_assembly(_parse(llvm_text, target)))
