"""Compile one operation of the math dialect for a target, and run it on NumPy arrays."""

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvmlite
import numpy as np
import numpy.typing as npt

from pylazy.compiler.codegen.llvm_text import module_to_llvm_text
from pylazy.compiler.mlir import PassManager, ir, new_context
from pylazy.compiler.passes.lower_math import lower_math
from pylazy.compiler.target import CpuTarget, NvidiaTarget

UNARY = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "rsqrt",
    "sqrt",
    "cbrt",
    "erf",
    "erfc",
    "floor",
    "ceil",
    "trunc",
    "round",
    "roundeven",
]
BINARY = ("powf", "atan2", "copysign")

_TO_LLVM = (
    "builtin.module(canonicalize,cse,convert-vector-to-llvm,convert-scf-to-cf,convert-math-to-llvm,"
    "convert-arith-to-llvm,convert-index-to-llvm,convert-cf-to-llvm,convert-func-to-llvm,"
    "reconcile-unrealized-casts,canonicalize,cse)"
)


# What an operation may be applied to in place of x: the compiler sees where the numbers lie.
ARGUMENTS = {
    "-|x|": "%b0 = math.absf %v0 : {0}\n%a0 = arith.negf %b0 : {0}",
    "x * x": "%a0 = arith.mulf %v0, %v0 : {0}",
    "1 + x * x": "%b0 = arith.mulf %v0, %v0 : {0}\n%c0 = arith.constant {1}\n%a0 = arith.addf %b0, %c0 : {0}",
    "80 - x * x": (
        "%d0 = arith.mulf %v0, %v0 : {0}\n%b0 = arith.negf %d0 : {0}\n"
        "%c0 = arith.constant {2}\n%a0 = arith.addf %b0, %c0 : {0}"
    ),
}


def kernel_text(name: str, *, dtype: str, lanes: int | None, argument: str = "x") -> str:
    """Return a function that applies an operation `steps` times, each time to one vector."""
    element = {"float32": "f32", "float64": "f64"}[dtype]
    value = element if lanes is None else f"vector<{lanes}x{element}>"
    width = lanes or 1
    arity = 2 if name in BINARY else 1
    load = "llvm.load %{0} {{alignment = 4 : i64}} : !llvm.ptr -> {1}"
    operands = ", ".join(f"%v{k}" for k in range(arity)) if argument == "x" else "%a0"
    lines = [
        "func.func @kernel(%in0: !llvm.ptr, %in1: !llvm.ptr, %out: !llvm.ptr, %steps: index) {",
        f"%zero = arith.constant 0 : index\n%one = arith.constant 1 : index\n%width = arith.constant {width} : index",
        "scf.for %step = %zero to %steps step %one {",
        "%offset = arith.muli %step, %width : index\n%at = arith.index_cast %offset : index to i64",
    ]
    lines.extend(
        f"%p_{pointer} = llvm.getelementptr %{pointer}[%at] : (!llvm.ptr, i64) -> !llvm.ptr, {element}"
        for pointer in ("in0", "in1", "out")
    )
    lines.extend(f"%v{k} = " + load.format(f"p_in{k}", value) for k in range(arity))
    if argument != "x":
        numbers = [f"{n} : {element}" if lanes is None else f"dense<{n}> : {value}" for n in (1.0, 80.0)]
        lines.append(ARGUMENTS[argument].format(value, *numbers))
    lines.append(f"%r = math.{name} {operands} : {value}")
    lines.append(f"llvm.store %r, %p_out {{alignment = 4 : i64}} : {value}, !llvm.ptr")
    return "\n".join([*lines, "}", "return", "}"])


def to_llvm_text(text: str, *, target: CpuTarget | NvidiaTarget) -> str:
    """Lower a module with math operations to LLVM IR text."""
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(text)
        lower_math(module, target=target)
        module.operation.verify()
        PassManager.parse(_TO_LLVM).run(module.operation)
        return module_to_llvm_text(module, target=target)


@functools.cache
def _initialize() -> None:
    llvmlite.initialize_all_targets()
    llvmlite.initialize_all_asmprinters()


def target_machine(target: CpuTarget | NvidiaTarget, *, jit: bool = False) -> Any:
    """Make LLVM's machine of a target."""
    _initialize()
    return llvmlite.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, opt=3, jit=jit, reloc="pic", codemodel="jitdefault" if jit else "small"
    )


def to_object(text: str, *, target: CpuTarget) -> bytes:
    """Compile LLVM IR text."""
    machine = target_machine(target)
    module = llvmlite.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    return bytes(machine.emit_object(module))


def undefined_symbols(object_file: bytes) -> list[str]:
    """Read the undefined symbols of a 64-bit little-endian ELF file."""
    import struct

    section_offset = struct.unpack_from("<Q", object_file, 40)[0]
    entry_size, count = struct.unpack_from("<HH", object_file, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", object_file, section_offset + k * entry_size) for k in range(count)]
    names = []
    for section in sections:
        if section[1] != 2:  # SHT_SYMTAB
            continue
        strings = sections[section[6]][4]
        for at in range(section[4] + 24, section[4] + section[5], 24):
            name, _info, _other, index = struct.unpack_from("<IBBH", object_file, at)
            if index == 0:
                end = object_file.index(b"\0", strings + name)
                names.append(object_file[strings + name : end].decode())
    return names


Function = Callable[..., npt.NDArray[Any]]


@functools.cache
def compile_function(name: str, *, dtype: str, level: str, lanes: int | None, argument: str = "x") -> Function:
    """Compile an operation for a level of this machine's processor family.

    Returns:
        a function of one or two arrays.
    """
    target = CpuTarget(level)
    text = to_llvm_text(kernel_text(name, dtype=dtype, lanes=lanes, argument=argument), target=target)
    machine = target_machine(target, jit=True)
    module = llvmlite.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    engine = llvmlite.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    address = engine.get_function_address("kernel")
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    width = lanes or 1

    def run(*arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = arrays[0].size
        padded = -(-size // width) * width
        inputs = [np.zeros(padded, dtype) for _ in range(2)]
        for copy, array in zip(inputs, arrays, strict=False):
            copy[:size] = array
            copy[size:] = array[-1] if size else 0
        out = np.empty(padded, dtype)
        kernel(inputs[0].ctypes.data, inputs[1].ctypes.data, out.ctypes.data, padded // width)
        return out[:size]

    run.engine = engine  # type: ignore[attr-defined]  # keeps the code alive
    run.kernel = kernel  # type: ignore[attr-defined]  # for measurements
    return run


def levels_of_this_machine() -> list[str]:
    """Return the CPU levels whose code this machine runs."""
    machine = platform.machine()
    if machine == "aarch64":
        return ["aarch64"]
    if machine != "x86_64":
        return []
    features = llvmlite.get_host_cpu_features()
    levels = ["x86-64"]
    if features.get("avx2") and features.get("fma"):
        levels.append("x86-64-v3")
    if all(features.get(f"avx512{part}") for part in ("f", "dq", "bw", "vl")):
        levels.append("x86-64-v4")
    return levels
