"""LLVM by its binding: loaded when it is first used, for all targets, by one thread at a time."""

import functools
import threading
from typing import Any

from pylazy.runtime.errors import InternalError

lock = threading.Lock()
"""Held by whoever generates code: code generators are shared, and serve one thread."""


@functools.cache
def binding() -> Any:
    """The module of the binding, with all its targets."""
    import llvmlite.binding

    llvmlite.binding.initialize_all_targets()
    llvmlite.binding.initialize_all_asmprinters()
    return llvmlite.binding


def parse_llvm(llvm_text: str, *, triple: str, machine: Any) -> Any:
    """Parse LLVM IR for the target of a code generator, and verify it.

    Raises:
        InternalError: LLVM refuses the text, which is a fault of the compiler.
    """
    try:
        parsed = binding().parse_assembly(llvm_text)
        parsed.triple = triple
        parsed.data_layout = str(machine.target_data)
        parsed.verify()
    except RuntimeError as error:
        raise InternalError(f"generated LLVM IR is not accepted: {error}") from error
    return parsed
