"""Run passes over a module: verified, timed, and with errors that end at the user's line."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pylazy.compiler.diagnostics import at_source_line
from pylazy.compiler.mlir import PassManager, ir
from pylazy.compiler.pipelines import Pass
from pylazy.compiler.target import Target
from pylazy.runtime.errors import CompileError, InternalError, PylazyError

#: What a faulty pass may raise; errors of pylazy and the interpreter's own (memory, interrupt) are passed on.
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class PassTime(NamedTuple):
    """How long a pass took, the verifier after it included."""

    name: str
    seconds: float


def pass_name(some: Pass) -> str:
    """Name a pass as it is written in a pipeline: `reduction-simplify`."""
    return some if isinstance(some, str) else some.__name__.replace("_", "-")


def run_passes(
    module: ir.Module,
    passes: Iterable[Pass],
    *,
    target: Target,
    after_each: Callable[[str, ir.Module], None] | None = None,
) -> tuple[PassTime, ...]:
    """Run passes over a module, in place, and verify it after each.

    Args:
        module: what to work on; it is not verified before the first pass.
        passes: functions `(module, *, target)`, and elements of upstream pipelines such as `"gpu.module(cse)"`.
        target: what the passes compile for.
        after_each: called with the name of a pass and the module after each pass.

    Raises:
        UnsupportedError: the formula needs what the target or a pass does not have.
        CompileError: an upstream pass refused the module; the message ends at the user's line.
        InternalError: a pass of pylazy failed or left an invalid module; the message names the file with the IR.
    """
    times = []
    with module.context, ir.Location.unknown():
        for some in passes:
            name = pass_name(some)
            begin = time.perf_counter()
            if isinstance(some, str):
                _run_upstream(module, some)
            else:
                _run_own(module, some, name, target)
            times.append(PassTime(name, time.perf_counter() - begin))
            if after_each is not None:
                after_each(name, module)
    return tuple(times)


def _run_upstream(module: ir.Module, element: str) -> None:
    try:
        manager = PassManager.parse(f"builtin.module({element})")
    except ValueError as error:
        raise CompileError(f"upstream MLIR has no such pipeline element: {str(error).strip()}") from None
    try:
        manager.run(module.operation)
    except ir.MLIRError as error:
        raise CompileError(diagnostics_text(f"pass {element} failed", error)) from None


def _run_own(module: ir.Module, some: Callable[..., None], name: str, target: Target) -> None:
    try:
        some(module, target=target)
    except PylazyError:
        raise
    except (*_FAULTS, ir.MLIRError) as error:
        raise InternalError(f"{_fault(name, module)}: {type(error).__name__}: {error}") from error
    try:
        module.operation.verify()
    except ir.MLIRError as error:
        raise InternalError(diagnostics_text(f"{_fault(name, module)}: invalid module", error)) from None


def diagnostics_text(message: str, error: Any) -> str:
    """Write what MLIR complained about after a message, each complaint ending at its source line.

    Args:
        message: what went wrong as a whole.
        error: an `ir.MLIRError`.
    """
    complaints = [at_source_line(found.message, found.location) for found in error.error_diagnostics]
    return f"{message}: " + "\n".join(complaints or [str(error)])


def _fault(name: str, module: ir.Module) -> str:
    """Write the module to a file, and say whose fault it is."""
    handle, path = tempfile.mkstemp(prefix="pylazy-", suffix=".mlir")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        module.operation.print(file=file, enable_debug_info=True, print_generic_op_form=True)
    return f"pass {name} failed, which is a bug of pylazy (the IR was written to {path})"
