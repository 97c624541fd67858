"""A bundle as C: a header, one source file with every CPU kernel in it, libraries, a file for CMake.

Code of kernels is laid into the program's own text by the assembler, so nothing is mapped at run time. One source file
serves x86-64 and 64-bit Arm on Linux, macOS and Windows, for compilers that understand GCC's assembly: their macros
choose.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pylazy.bundling.c_declarations import c_kernels, c_name, embedded_text, header_text, parameters, prototype
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import CompileError, UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS, DTYPE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.runtime.bundle import BundleFile
    from pylazy.runtime.kernel import Buffer, KernelImage
    from pylazy.runtime.manifest import Function, Kernel

_MACROS = {"x86-64": "defined(__x86_64__)", "aarch64": "defined(__aarch64__)"}
_LEVELS = {"x86-64": 1, "x86-64-v3": 3, "x86-64-v4": 4, "aarch64": 1}
_AXES = {"": "PLZ_NONE", "i": "PLZ_I", "j": "PLZ_J"}
_ROLES = {"input": "PLZ_INPUT", "output": "PLZ_OUTPUT", "scratch": "PLZ_SCRATCH"}
_TYPE_CODES = {"int64": 0, "float32": 2, "float64": 2}
_MAX_PHASES = 64  # of loader.c
_BYTES_PER_LINE = 24


def emit_c(file: BundleFile, stem: Path, emit: Sequence[str]) -> list[Path]:
    """Write what is asked for, beside one another.

    Args:
        file: the bundle.
        stem: files are called after it: k.h, k.c, libk.a, libk.so (libk.dylib on macOS) and kConfig.cmake.
        emit: some of "header", "source", "static", "shared".

    Returns:
        The files.

    Raises:
        UnsupportedError: no code for a CPU, a name that C does not take, or no C compiler.
        CompileError: the C compiler refuses the source.
    """
    name = stem.name
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise UnsupportedError(f"C files are called after {name!r}, expected a C identifier: choose another --output")
    written = [stem.with_name(f"{name}.h")]
    written[0].write_text(header_text(file.manifest, name, f"Bundle: sha256 {file.sha256}."), encoding="utf-8")
    source = source_text(file, name)
    if "source" in emit:
        written.append(stem.with_name(f"{name}.c"))
        written[-1].write_text(source, encoding="utf-8")
    kinds = [kind for kind in ("static", "shared") if kind in emit]
    if kinds:
        written += _build_libraries(source, written[0], kinds)
    return written


def source_text(file: BundleFile, name: str) -> str:
    """Write the source: the loader, every image as bytes, and the functions of the header."""
    parts = [f'#include "{name}.h"\n', embedded_text("loader.c")]
    families = [
        family for family in _MACROS if any(_images(file, kernel, family) for _, kernel in c_kernels(file.manifest))
    ]
    if not families:
        raise UnsupportedError(
            f"the bundle has no code for a CPU, and the C interface runs on no GPU: expected some of "
            f"{', '.join(CPU_LEVELS)}"
        )
    for place, family in enumerate(families):
        parts.append(f"#{'el' if place else ''}if {_MACROS[family]}\n")
        alignment = 12 if family == "aarch64" else 6  # ADRP counts in pages; else the constants' own alignment
        for number, (function, kernel) in enumerate(c_kernels(file.manifest)):
            parts.append(_kernel_text(file, function, kernel, family, number, alignment))
    parts.append('#else\n#error "this file has no kernels for this processor and system"\n#endif\n')
    for number, (function, kernel) in enumerate(c_kernels(file.manifest)):
        parts.append(_definition(function, kernel, number))
    return "\n".join(parts)


def _images(file: BundleFile, kernel: Kernel, family: str) -> list[tuple[str, KernelImage]]:
    codes = [code for code in kernel.code if code.target.startswith(family)]
    return [(code.few_rows, file.image(kernel, code)) for code in codes]


def _definition(function: Function, kernel: Kernel, number: int) -> str:
    inputs, outputs = parameters(function, kernel)
    call, size = prototype(function, kernel)
    tensors = ", ".join([*inputs, *outputs])
    return (
        f"{call} {{\n  const DLTensor *const tensors[] = {{{tensors}}};\n"
        f"  return plz_call(&plz_kernel_{number}, tensors, scratch, scratch_bytes);\n}}\n\n"
        f"{size} {{ return plz_scratch_bytes(&plz_kernel_{number}, m, n); }}\n"
    )


def _kernel_text(file: BundleFile, function: Function, kernel: Kernel, family: str, number: int, alignment: int) -> str:
    found = _images(file, kernel, family)
    if not found:
        raise UnsupportedError(f"the bundle has no code of {kernel.id} for {family}, and has some of other kernels")
    names = [name for group in parameters(function, kernel) for name in group]
    text, rows = [], []
    for place, (few, image) in enumerate(found):
        if len(image.phases) > _MAX_PHASES:
            raise UnsupportedError(f"{kernel.id} has {len(image.phases)} phases, C takes at most {_MAX_PHASES}")
        label = f"plz_code_{number}_{place}"
        text += [
            _code_text(image.code, label, alignment),
            _buffers_text(image, label, names),
            _phases_text(image, label),
        ]
        rows.append(
            f"    {{{_LEVELS[image.target]}, {_AXES[few]}, {label}, {label}_buffers, {len(image.buffers)}, "
            f"{label}_phases, {len(image.phases)}}},"
        )
    results = [_result_text(function, kernel, place) for place in range(len(parameters(function, kernel)[1]))]
    images = "\n".join(rows)
    reduced = _AXES[function.reduced]
    own = f'"{c_name(function, kernel)}", {reduced}, plz_images_{number}, {len(found)}, plz_results_{number}'
    tables = (
        f"static const plz_image plz_images_{number}[] = {{\n{images}\n}};",
        f"static const plz_result plz_results_{number}[] = {{{', '.join(results)}}};",
        f"static const plz_kernel plz_kernel_{number} = {{{own}}};\n",
    )
    return "\n".join([*text, *tables])


def _result_text(function: Function, kernel: Kernel, place: int) -> str:
    if kernel.of:
        return "{1, 0.0, 0, 0}"
    result = function.results[place]
    neutral = REDUCTIONS[result.kind].empty
    return f"{{{int(neutral is not None)}, {_number(neutral or 0.0)}, {result.k}, {int(result.kind == 'mean')}}}"


def _number(value: float) -> str:
    if math.isnan(value):
        return '__builtin_nan("")'
    if math.isinf(value):
        return f"{'-' if value < 0 else ''}__builtin_inf()"
    return repr(value)


def _code_text(code: bytes, label: str, alignment: int) -> str:
    """Lay bytes into the text of the program; `%progbits` is understood by every assembler of ELF."""
    lines = [
        '__asm__(PLZ_TEXT_SECTION ".p2align ' + str(alignment) + '\\n" PLZ_SYMBOL("' + label + '") ":\\n"',
    ]
    for begin in range(0, len(code), _BYTES_PER_LINE):
        row = ",".join(map(str, code[begin : begin + _BYTES_PER_LINE]))
        lines.append(f'        ".byte {row}\\n"')
    return "\n".join([*lines, "        PLZ_END_SECTION);", f"extern const unsigned char {label}[] PLZ_HIDDEN;"])


def _buffers_text(image: KernelImage, label: str, names: Sequence[str]) -> str:
    given = iter(names)
    rows = [_buffer_text(buffer, next(given) if buffer.role != "scratch" else "scratch") for buffer in image.buffers]
    return f"static const plz_buffer {label}_buffers[] = {{\n" + "\n".join(rows) + "\n};"


def _buffer_text(buffer: Buffer, name: str) -> str:
    return (
        f'    {{"{name}", {_ROLES[buffer.role]}, {_AXES[buffer.axis]}, INT64_C({buffer.dim}), '
        f"{DTYPE_BYTES[buffer.dtype]}, {_TYPE_CODES[buffer.dtype]}, {int(buffer.per_split)}}},"
    )


def _phases_text(image: KernelImage, label: str) -> str:
    rows = [
        f"    {{PLZ_ENTRY(INT64_C({phase.entry}), INT64_C({phase.windows_entry})), INT64_C({phase.rows_per_tile}), "
        f"INT64_C({phase.max_columns_per_split}), {phase.cost!r}, {_AXES[phase.rows]}, {_AXES[phase.columns]}, "
        f"{int(phase.splittable)}, {int(phase.merges)}}},"
        for phase in image.phases
    ]
    return f"static const plz_phase {label}_phases[] = {{\n" + "\n".join(rows) + "\n};"


# The library ----------------------------------------------------------------------------------------------------------


def _build_libraries(source: str, header: Path, kinds: Sequence[str]) -> list[Path]:
    compiler, archiver = os.environ.get("CC") or shutil.which("cc"), os.environ.get("AR") or shutil.which("ar")
    if not compiler or (not archiver and "static" in kinds):
        raise UnsupportedError("no C compiler (cc, or CC) or archiver (ar, or AR) is there: use --emit header,source")
    name = header.stem
    libraries = {kind: header.with_name(f"lib{name}{_LIBRARY_SUFFIX[kind]}") for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        path, made = Path(folder) / f"{name}.c", Path(folder) / f"{name}.o"
        path.write_text(source, encoding="utf-8")
        include = f"-I{header.resolve().parent}"
        _call([compiler, "-std=c11", "-O2", "-fPIC", "-fno-lto", include, "-c", str(path), "-o", str(made)])
        for kind, library in libraries.items():
            library.unlink(missing_ok=True)
            if kind == "static":
                _call([str(archiver), "rcs", str(library.resolve()), str(made)])
            else:
                # Found by its own name wherever it lies.
                identity = "-install_name,@rpath/" if sys.platform == "darwin" else "-soname,"
                flags = ["-shared", f"-Wl,{identity}{library.name}"]
                _call([compiler, *flags, str(made), "-o", str(library.resolve())])
    config = header.with_name(f"{name}Config.cmake")
    text = _CMAKE.format(name=name)
    for kind, library in libraries.items():
        target = name if kind == "static" else f"{name}_shared"
        text += _CMAKE_TARGET.format(target=target, kind=kind.upper(), file=library.name)
    config.write_text(text, encoding="utf-8")
    return [*libraries.values(), config]


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, the user's own compiler
    if done.returncode:
        raise CompileError(f"{command[0]} fails: {done.stderr.strip()[:2000]}")


_LIBRARY_SUFFIX = {"static": ".a", "shared": ".dylib" if sys.platform == "darwin" else ".so"}
_CMAKE = """\
# find_package({name} CONFIG) gives the targets pylazy::{name} (the static library) and pylazy::{name}_shared, as built.
"""
_CMAKE_TARGET = """\
if(NOT TARGET pylazy::{target})
  add_library(pylazy::{target} {kind} IMPORTED)
  set_target_properties(
    pylazy::{target}
    PROPERTIES IMPORTED_LOCATION "${{CMAKE_CURRENT_LIST_DIR}}/{file}"
               INTERFACE_INCLUDE_DIRECTORIES "${{CMAKE_CURRENT_LIST_DIR}}")
endif()
"""
