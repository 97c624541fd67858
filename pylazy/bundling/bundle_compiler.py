"""Compile the parts of a bundle for every target, into the bytes of one file."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pylazy
from pylazy.bundling.bundle_parts import Part, gradient_id
from pylazy.reductions import gradient_request
from pylazy.runtime.bundle import write_bundle
from pylazy.runtime.errors import CompileError, UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.manifest import FORMAT, Code, Kernel, Manifest, check_buffers, features_of
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pylazy.reductions import Request

DEFAULT_TARGETS = CPU_LEVELS
_GPU = "sm_"
_HEADER = "c/kernels.h"


class _Task(NamedTuple):
    id: str
    of: str
    wrt: tuple[int, ...]
    part: Part
    request: Request


def _tasks(parts: Sequence[Part]) -> Iterator[_Task]:
    for part in parts:
        yield _Task(part.name, "", (), part, part.request)
        for wrt in part.wrt:
            yield _Task(gradient_id(part.name, wrt), part.name, wrt, part, gradient_request(part.request, wrt))
        yield from _tasks(part.selection)


def check_targets(targets: Sequence[str]) -> None:
    """Check the names of targets.

    Raises:
        UnsupportedError: there is no such target, or none at all.
    """
    from pylazy.compiler.codegen.ptx import PTX_VERSIONS

    known = (*CPU_LEVELS, *PTX_VERSIONS)
    for target in targets:
        if target not in known:
            raise UnsupportedError(at_user_line(f"target is {target!r}, expected one of {', '.join(known)}"))
    if not targets:
        raise UnsupportedError(at_user_line(f"no target is given, expected some of {', '.join(known)}"))


def compile_parts(
    parts: tuple[Part, ...], targets: tuple[str, ...], progress: Callable[[str, int, int], None] | None
) -> bytes:
    """Compile every kernel for every target, and write the file.

    Args:
        parts: the functions.
        targets: see `pylazy.Bundle.compile`.
        progress: see there.

    Raises:
        CompileError: a formula cannot be compiled.
        UnsupportedError: a formula needs what a CPU target does not have.
    """
    tasks = list(_tasks(parts))
    named = set(targets)
    targets = _with_floor(targets)
    total = sum(1 if target.startswith(_GPU) else len(task.part.few) for task in tasks for target in targets)
    done = 0
    entries: dict[str, bytes] = {}
    absent: dict[str, str] = {}
    kernels = []
    for task in tasks:
        formula, kernel = _write_ir(task, targets[0])
        texts = (f"ir/{task.id}.formula.mlir", f"ir/{task.id}.kernel.mlir")
        entries.update(zip(texts, (formula, kernel), strict=True))
        codes: list[Code] = []
        for target in targets:
            is_gpu = target.startswith(_GPU)
            for few in task.part.few[:1] if is_gpu else task.part.few:
                if progress is not None:
                    progress(f"{task.id} for {target}", done, total)
                done += 1
                if not is_gpu:
                    codes.append(_compile_cpu(task, target, few, entries, codes))
                    continue
                try:
                    codes.append(_compile_ptx(task, target, entries, absent, is_named=target in named))
                except UnsupportedError as error:
                    absent[f"{task.id} {target}"] = str(error).split("\n")[0]
        # The compiler may find that few rows need no program of their own.
        digest = task.request.digest()
        kernels.append(Kernel(task.id, task.of, task.wrt, digest, *texts, tuple(_without_repeats(codes))))
    if progress is not None:
        progress("", total, total)
    manifest = Manifest(
        format=FORMAT,
        requires=(),
        provenance=_provenance(has_gpu=any(target.startswith(_GPU) for target in targets)),
        targets=targets,
        absent=absent,
        functions=tuple(part.function() for part in parts),
        kernels=tuple(kernels),
        blobs=(),
    )
    header = _c_header(manifest)
    if header:
        manifest = manifest._replace(header=_HEADER)
        entries = {_HEADER: header.encode(), **entries}
    return write_bundle(manifest._replace(requires=features_of(manifest)), entries)


def _c_header(manifest: Manifest) -> str:
    """Write the header of the functions that C has; nothing where there is none, or no code for a CPU."""
    from pylazy.bundling.c_declarations import check_in_c, header_text

    functions = []
    for function in manifest.functions:
        try:
            check_in_c(function)
        except UnsupportedError:
            continue
        functions.append(function)
    if not functions or all(target.startswith(_GPU) for target in manifest.targets):
        return ""
    origin = "Functions with ranges, complex numbers or values for each pair are for Python alone."
    return header_text(manifest._replace(functions=tuple(functions)), "kernels", origin)


def _without_repeats(codes: Sequence[Code]) -> Iterator[Code]:
    """Leave out a variant for few rows that is the very program of many rows: that is what is taken without it."""
    general = {code.target: code.blob for code in codes if not code.few_rows}
    return (code for code in codes if not code.few_rows or code.blob != general[code.target])


def _write_ir(task: _Task, target: str) -> tuple[bytes, bytes]:
    """Write a kernel at both levels of the dialect: as traced, and as a loop nest for a target."""
    from pylazy.compiler.compile import compilation
    from pylazy.compiler.driver import run_passes
    from pylazy.compiler.pipelines import FORMULA_PASSES, KERNEL_PASSES
    from pylazy.compiler.target import target_from_name

    traced = _trace(task, "")
    formula = traced.as_text()
    with compilation():
        run_passes(traced.module, (*FORMULA_PASSES, *KERNEL_PASSES), target=target_from_name(target))
        return formula.encode(), str(traced.module).encode()


def _trace(task: _Task, few: str) -> Any:
    from pylazy import trace

    return trace.trace(task.request, few_rows=few)


def _compile_cpu(task: _Task, target: str, few: str, entries: dict[str, bytes], codes: Sequence[Code]) -> Code:
    from pylazy.compiler.compile import compile_cpu

    data = compile_cpu(_trace(task, few), target).to_bytes()
    for code in codes:
        if entries[code.blob] == data:
            return Code(target, few, code.blob, {})
    path = f"code/{task.id}/{target}{f'.few_{few}' if few else ''}.plzk"
    entries[path] = data
    return Code(target, few, path, {})


def _with_floor(targets: tuple[str, ...]) -> tuple[str, ...]:
    """Add the oldest architecture where there is any: drivers compile its PTX for every newer one."""
    from pylazy.compiler.codegen.ptx import PTX_VERSIONS

    floor = next(iter(PTX_VERSIONS))
    has_gpu = any(target.startswith(_GPU) for target in targets)
    return (*targets, floor) if has_gpu and floor not in targets else targets


def _compile_ptx(
    task: _Task, target: str, entries: dict[str, bytes], absent: dict[str, str], *, is_named: bool
) -> Code:
    """Compile for a GPU to PTX, and where it was asked for by name to a cubin; `absent` says why there is none."""
    from pylazy.compiler.codegen.cubin import emit_cubin
    from pylazy.compiler.compile import compile_ptx

    image = compile_ptx(_trace(task, ""), target)
    kernel = Kernel(task.id, task.of, task.wrt, "", "", "", ())
    path = f"code/{task.id}/{target}.ptx"
    check_buffers(task.part.function(), kernel, image.arguments, what=path)
    entries[path] = image.text.encode()
    launch = {
        "kernels": [kernel._asdict() for kernel in image.kernels],
        "buffers": [buffer._asdict() for buffer in image.buffers],
    }
    cubin = f"code/{task.id}/{target}.cubin"
    try:
        if is_named:
            entries[cubin] = emit_cubin(image.text, arch=target)
    except (CompileError, UnsupportedError) as error:
        absent[f"{task.id} {target} cubin"] = str(error).split("\n")[0]
    return Code(target, "", path, launch, cubin if cubin in entries else "")


@cache
def _provenance(*, has_gpu: bool) -> dict[str, str]:
    from pylazy.compiler.codegen.native_object import llvm_version
    from pylazy.compiler.mlir import mlir_root

    versions = {package: _version(package) for package in ("llvmlite", "torch-mlir")}
    made_by = {"pylazy": pylazy.__version__, **versions, "llvm": llvm_version(), "mlir": mlir_root()}
    if has_gpu:
        from pylazy.compiler.codegen.cubin import assembler_version

        made_by["assembler"] = assembler_version()
    return made_by


def _version(package: str) -> str:
    from importlib import metadata  # takes 30 ms, so only where something is compiled

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
