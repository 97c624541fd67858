"""Run passes over a module: verified, timed, and with errors that end at the user's line."""

import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pylazy.compiler.codegen.llvm_text import module_to_llvm_text
from pylazy.compiler.codegen.native_image import FlatImage, flatten
from pylazy.compiler.codegen.native_object import emit_assembly, emit_object, llvm_version
from pylazy.compiler.diagnostics import at_source_line
from pylazy.compiler.dialects.reduction import load_dialect
from pylazy.compiler.mlir import PassManager, ir, mlir_root, new_context
from pylazy.compiler.passes.lower_math import lower_math
from pylazy.compiler.pipelines import CPU_PASSES, FORMULA_PASSES, KERNEL_PASSES, Pass
from pylazy.compiler.target import CpuTarget, Target
from pylazy.runtime.errors import CompileError, InternalError, PylazyError
from pylazy.runtime.kernel import Buffer, KernelImage, Phase

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


# One context serves the process: loading the dialect costs milliseconds, and the kernel cache keeps compilations rare.
_compiling = threading.RLock()


@functools.cache
def _shared_context() -> Any:
    context = new_context()
    with context, ir.Location.unknown():
        load_dialect()
    return context


@contextmanager
def compilation() -> Iterator[None]:
    """Make the shared context current; one thread at a time."""
    with _compiling, _shared_context(), ir.Location.unknown():
        yield


def compile_cpu(traced: Any, target: str) -> KernelImage:
    """Compile a traced formula for a CPU level.

    Args:
        traced: has a `module` of level 1; it is not changed.
        target: a name of `CPU_LEVELS`.

    Raises:
        UnsupportedError: the formula needs what the target does not have.
        CompileError: the module cannot be compiled.
    """
    cpu = CpuTarget(target)
    with compilation():
        module = _clone(traced.module)
        run_passes(module, (*FORMULA_PASSES, *KERNEL_PASSES, *CPU_PASSES), target=cpu)
        text = module_to_llvm_text(module, target=cpu)
        return _kernel_image(module, flatten(emit_object(text, target=cpu)), cpu)


def stages_as_text(traced: Any, target: str) -> dict[str, str]:
    """Write every stage of a formula's way to machine code.

    Returns:
        Texts by stage: "formula", "kernel", "loops", "llvm" and "asm".
    """
    cpu = CpuTarget(target)
    texts = {}
    with compilation():
        module = _clone(traced.module)
        run_passes(module, FORMULA_PASSES, target=cpu)
        texts["formula"] = str(module)
        run_passes(module, KERNEL_PASSES, target=cpu)
        texts["kernel"] = str(module)
        split = CPU_PASSES.index(lower_math)
        run_passes(module, CPU_PASSES[:split], target=cpu)
        texts["loops"] = str(module)
        run_passes(module, CPU_PASSES[split:], target=cpu)
        texts["llvm"] = module_to_llvm_text(module, target=cpu)
        texts["asm"] = emit_assembly(texts["llvm"], target=cpu)
    return texts


def _clone(module: Any) -> ir.Module:
    return ir.Module.parse(module.operation.get_asm(enable_debug_info=True, print_generic_op_form=True))


def _kernel_image(module: Any, flat: FlatImage, target: CpuTarget) -> KernelImage:
    buffers = tuple(
        Buffer(
            name=entry["name"].value,
            role=entry["role"].value,
            axis=entry["axis"].value,
            dtype=_DTYPES[str(entry["element"].value)],
            dim=entry["dim"].value,
            per_split=entry["per_split"].value,
        )
        for entry in module.operation.attributes["reduction.buffers"]
    )
    phases = []
    for function in module.body.operations:
        if "reduction.phase" not in function.attributes:
            continue
        name = ir.StringAttr(function.attributes["sym_name"]).value
        described = {entry.name: entry.attr.value for entry in ir.DictAttr(function.attributes["reduction.phase"])}
        phases.append(Phase(entry=flat.entries[name], name=name, **described))
    provenance = {"mlir": mlir_root(), "llvm": llvm_version()}
    return KernelImage(
        target=target.level, code=flat.code, buffers=buffers, phases=tuple(phases), provenance=provenance
    )


_DTYPES = {"f32": "float32", "f64": "float64", "i64": "int64"}
