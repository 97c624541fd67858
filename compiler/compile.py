"""A traced formula -> a kernel image, or the text of each stage on its way there."""

import functools
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pylazy.compiler.codegen.llvm_text import module_to_llvm_text
from pylazy.compiler.codegen.native_image import FlatImage, flatten
from pylazy.compiler.codegen.native_object import emit_assembly, emit_object, llvm_version
from pylazy.compiler.codegen.ptx import emit_ptx
from pylazy.compiler.codegen.system_entries import WINDOWS_SUFFIX, add_system_entries
from pylazy.compiler.dialects.reduction import attribute, load_dialect, name_of
from pylazy.compiler.driver import run_passes
from pylazy.compiler.mlir import ir, mlir_root, new_context
from pylazy.compiler.passes.lower_math import lower_math
from pylazy.compiler.pipelines import CPU_PASSES, FORMULA_PASSES, KERNEL_PASSES, NVIDIA_PASSES
from pylazy.compiler.target import CpuTarget, NvidiaTarget, Target
from pylazy.runtime.errors import UnsupportedError
from pylazy.runtime.gpu_image import MAX_GPU_BUFFERS, GpuImage, GpuKernel
from pylazy.runtime.kernel import Buffer, KernelImage, Phase

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
        text = add_system_entries(module_to_llvm_text(module, target=cpu), target=cpu)
        return _kernel_image(module, flatten(emit_object(text, target=cpu)), cpu)


def stages_as_text(traced: Any, target: str) -> dict[str, str]:
    """Write every stage of a formula's way to machine code.

    Returns:
        Texts by stage: "formula", "kernel", "loops", "llvm" and "asm".
    """
    cpu = CpuTarget(target)
    with compilation():
        module = _clone(traced.module)
        texts = _upper_stages_as_text(module, cpu)
        split = CPU_PASSES.index(lower_math)
        run_passes(module, CPU_PASSES[:split], target=cpu)
        texts["loops"] = str(module)
        run_passes(module, CPU_PASSES[split:], target=cpu)
        texts["llvm"] = add_system_entries(module_to_llvm_text(module, target=cpu), target=cpu)
        texts["asm"] = emit_assembly(texts["llvm"], target=cpu)
    return texts


def _upper_stages_as_text(module: ir.Module, target: Target) -> dict[str, str]:
    """Bring a module to the level of kernels and write the two stages that all targets share."""
    run_passes(module, FORMULA_PASSES, target=target)
    texts = {"formula": str(module)}
    run_passes(module, KERNEL_PASSES, target=target)
    texts["kernel"] = str(module)
    return texts


def compile_ptx(traced: Any, arch: str) -> GpuImage:
    """Compile a traced formula for an NVIDIA GPU, as far as PTX.

    Args:
        traced: has a `module` of level 1; it is not changed.
        arch: such as "sm_90"; see `PTX_VERSIONS`.

    Raises:
        UnsupportedError: the formula needs what the target does not have, or more buffers than kernels take parameters;
            or the architecture is not known.
        CompileError: the module cannot be compiled.
    """
    with compilation():
        target = _nvidia_target(traced.module, arch)
        module = _clone(traced.module)
        run_passes(module, (*FORMULA_PASSES, *KERNEL_PASSES, *NVIDIA_PASSES), target=target)
        container = _gpu_module(module)
        buffers = _buffers(module)
        if len(buffers) > MAX_GPU_BUFFERS:
            raise UnsupportedError(
                f"the program has {len(buffers)} buffers: a kernel for {arch} takes at most {MAX_GPU_BUFFERS}"
            )
        return GpuImage(
            target=arch,
            text=emit_ptx(module_to_llvm_text(container, target=target), target=target),
            kernels=tuple(_gpu_kernels(container)),
            buffers=buffers,
            provenance={"mlir": mlir_root(), "llvm": llvm_version()},
        )


def _nvidia_target(module: Any, arch: str) -> NvidiaTarget:
    """Give the target in the math mode that a function of the module asks for."""
    modes = [attribute(function, "reduction.math_mode", "") for function in module.body.operations]
    return NvidiaTarget(arch, next(filter(None, modes), ""))


def ptx_as_text(traced: Any, arch: str) -> dict[str, str]:
    """Write every stage of a formula's way to PTX.

    Returns:
        Texts by stage: "formula", "kernel", "gpu", "llvm" and "ptx".
    """
    with compilation():
        target = _nvidia_target(traced.module, arch)
        module = _clone(traced.module)
        texts = _upper_stages_as_text(module, target)
        split = NVIDIA_PASSES.index(lower_math)
        run_passes(module, NVIDIA_PASSES[:split], target=target)
        texts["gpu"] = str(module)
        run_passes(module, NVIDIA_PASSES[split:], target=target)
        texts["llvm"] = module_to_llvm_text(_gpu_module(module), target=target)
        texts["ptx"] = emit_ptx(texts["llvm"], target=target)
    return texts


class Step(NamedTuple):
    """One step of a formula's way to machine code.

    Attributes:
        name: the pass, or what LLVM does.
        stage: "formula", "kernel", "loops" (or "gpu"), "llvm", "asm" (or "ptx"): what the text is.
        seconds: how long it took.
        operations: ops of the module after a pass; 0 for text of LLVM.
        text: after the step.
    """

    name: str
    stage: str
    seconds: float
    operations: int
    text: str


class Walk(NamedTuple):
    """All steps of a formula's way to machine code, and how its kernels were cut on it.

    Attributes:
        steps: in the order in which they were taken.
        schedules: for each kernel op the attributes that `reduction-tile` gave it, and its rows and columns.
    """

    steps: tuple[Step, ...]
    schedules: tuple[Mapping[str, Any], ...]


def walk_as_text(traced: Any, target: str) -> Walk:
    """Write what every pass makes of a formula, from the traced module to assembly or PTX.

    Args:
        traced: has a `module` of level 1; it is not changed.
        target: a name of `CPU_LEVELS`, or such as "sm_90".

    Raises:
        UnsupportedError: the formula needs what the target does not have.
    """
    is_gpu = target.startswith("sm_")
    last_passes = NVIDIA_PASSES if is_gpu else CPU_PASSES
    split = last_passes.index(lower_math)
    stages = (
        ("formula", FORMULA_PASSES),
        ("kernel", KERNEL_PASSES),
        ("gpu" if is_gpu else "loops", last_passes[:split]),
        ("llvm", last_passes[split:]),
    )
    with compilation():
        chosen: Target = _nvidia_target(traced.module, target) if is_gpu else CpuTarget(target)
        module = _clone(traced.module)
        steps = [Step("trace", "formula", 0.0, _count_operations(module), str(module))]
        schedules: tuple[Mapping[str, Any], ...] = ()
        for stage, passes in stages:
            for some in passes:
                (taken,) = run_passes(module, (some,), target=chosen)
                steps.append(Step(taken.name, stage, taken.seconds, _count_operations(module), str(module)))
            if stage == "kernel":
                schedules = tuple(_schedules(module))
        start = time.perf_counter()
        container = _gpu_module(module) if is_gpu else module
        llvm = module_to_llvm_text(container, target=chosen)
        if isinstance(chosen, CpuTarget):
            llvm = add_system_entries(llvm, target=chosen)
        translated = time.perf_counter()
        text = emit_ptx(llvm, target=chosen) if isinstance(chosen, NvidiaTarget) else emit_assembly(llvm, target=chosen)
        finished = time.perf_counter()
    steps.append(Step("translate to LLVM IR", "llvm", translated - start, 0, llvm))
    steps.append(Step("LLVM", "ptx" if is_gpu else "asm", finished - translated, 0, text))
    return Walk(tuple(steps), schedules)


def _schedules(module: ir.Module) -> Iterator[Mapping[str, Any]]:
    for function in module.body.operations:
        for operation in function.regions[0].blocks[0].operations:
            if name_of(operation) in {"reduction.map", "reduction.map_reduce"}:
                chosen = {name: attribute(operation, name) for name in operation.attributes}
                yield {"op": name_of(operation), **chosen}


def _count_operations(module: Any) -> int:
    count = 0

    def visit(_: Any) -> Any:
        nonlocal count
        count += 1
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return count


def _gpu_module(module: ir.Module) -> Any:
    return next(op.operation for op in module.body.operations if name_of(op) == "gpu.module")


def _gpu_kernels(container: Any) -> Iterator[GpuKernel]:
    for function in container.regions[0].blocks[0].operations:
        if "reduction.launch" in function.attributes:
            launch = {entry.name: entry.attr.value for entry in ir.DictAttr(function.attributes["reduction.launch"])}
            yield GpuKernel(name=ir.StringAttr(function.attributes["sym_name"]).value, **launch)


def _clone(module: Any) -> ir.Module:
    return ir.Module.parse(module.operation.get_asm(enable_debug_info=True, print_generic_op_form=True))


def _kernel_image(module: Any, flat: FlatImage, target: CpuTarget) -> KernelImage:
    phases = []
    for function in module.body.operations:
        if "reduction.phase" not in function.attributes:
            continue
        name = ir.StringAttr(function.attributes["sym_name"]).value
        described = {entry.name: entry.attr.value for entry in ir.DictAttr(function.attributes["reduction.phase"])}
        windows_entry = flat.entries.get(f"{name}{WINDOWS_SUFFIX}", -1)
        phases.append(Phase(entry=flat.entries[name], name=name, windows_entry=windows_entry, **described))
    provenance = {"mlir": mlir_root(), "llvm": llvm_version()}
    return KernelImage(
        target=target.level, code=flat.code, buffers=_buffers(module), phases=tuple(phases), provenance=provenance
    )


def _buffers(module: Any) -> tuple[Buffer, ...]:
    return tuple(
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


_DTYPES = {"f32": "float32", "f64": "float64", "i64": "int64"}
