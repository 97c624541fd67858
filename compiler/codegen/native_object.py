"""LLVM IR text -> ELF object, by LLVM's code generator."""

import functools
from typing import Any

from pylazy.compiler.codegen.llvm_binding import binding, lock, parse_llvm
from pylazy.compiler.target import CpuTarget


def llvm_version() -> str:
    """Name the version of LLVM that generates code."""
    return ".".join(str(part) for part in binding().llvm_version_info)


_EMPTY_STATEMENT = "\t#APP\n\t#NO_APP\n"  # nothing stands there: see VectorMath.in_step


@functools.cache
def _target_machine(target: CpuTarget) -> Any:
    """Make a code generator; ELF on all systems, since images are flat and carry no trace of the object format."""
    return (
        binding()
        .Target.from_triple(target.triple)
        .create_target_machine(cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small")
    )


def emit_object(llvm_text: str, *, target: CpuTarget) -> bytes:
    """Compile LLVM IR to a relocatable ELF object.

    Raises:
        InternalError: LLVM refuses the text, which is a fault of the compiler.
    """
    with lock:
        machine = _target_machine(target)
        return bytes(machine.emit_object(parse_llvm(llvm_text, triple=target.triple, machine=machine)))


def emit_assembly(llvm_text: str, *, target: CpuTarget) -> str:
    """Compile LLVM IR to assembly text.

    Raises:
        InternalError: LLVM refuses the text, which is a fault of the compiler.
    """
    with lock:
        machine = _target_machine(target)
        text = str(machine.emit_assembly(parse_llvm(llvm_text, triple=target.triple, machine=machine)))
    return text.replace(_EMPTY_STATEMENT, "")
