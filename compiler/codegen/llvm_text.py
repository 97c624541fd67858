"""Hand a module of the llvm dialect to llvmlite as LLVM IR text, with everything checked that would end the process."""

import re
import struct
from fractions import Fraction
from functools import lru_cache

from pylazy.compiler.mlir import ir, llvm
from pylazy.compiler.target import CpuTarget, NvidiaTarget
from pylazy.runtime.errors import CompileError

__all__ = ["module_to_llvm_text", "rewrite_float_literals"]

_TRANSLATABLE_PREFIXES = ("llvm.", "nvvm.")
_CONTAINERS = frozenset({"builtin.module", "gpu.module"})

_ANY_TYPE = r"\.[\w.]+"
_FLOAT_INTRINSICS = (
    "sqrt|fma|fmuladd|fabs|floor|ceil|trunc|round|roundeven|rint|nearbyint|copysign|minnum|maxnum|minimum|maximum"
    "|minimumnum|maximumnum|is\\.fpclass"
)
_INTEGER_INTRINSICS = (
    "smin|smax|umin|umax|abs|ctpop|ctlz|cttz|fshl|fshr|bswap|[su](?:add|sub|mul)\\.with\\.overflow|usub\\.sat"
)
_STRUCTURE_INTRINSICS = "vector\\.(?:reduce|insert|extract)|masked|lifetime|experimental\\.noalias\\.scope\\.decl"
_X86_INTRINSICS = (
    r"x86\.avx512\.mask\.(?:scalef|range|rndscale|reduce|getexp|getmant)\.p[sd]\.\d+"
    r"|x86\.avx512\.(?:rsqrt14|rcp14|fpclass)\.p[sd]\.\d+|x86\.avx512\.vpermi2var\.p[sd]\.\d+"
    r"|x86\.avx\.rsqrt\.ps\.256"
)
_COMMON = rf"(?:{_FLOAT_INTRINSICS}|{_INTEGER_INTRINSICS}|{_STRUCTURE_INTRINSICS}){_ANY_TYPE}|assume|prefetch\.p0"
_CPU_INTRINSIC = re.compile(rf"llvm\.(?:{_COMMON})")
_X86_INTRINSIC = re.compile(rf"llvm\.(?:{_COMMON}|{_X86_INTRINSICS})")
_NVIDIA_INTRINSIC = re.compile(rf"llvm\.(?:{_COMMON}|nvvm\.[\w.]+)")

_DECLARATION = re.compile(r"^declare [^\n]*?@\"?([\w.$]+)\"?\(", re.MULTILINE)


def module_to_llvm_text(module: ir.Module | ir.Operation, *, target: CpuTarget | NvidiaTarget) -> str:
    """Translate a module of the llvm dialect to LLVM IR text that llvmlite's LLVM parses and its back end lowers.

    MLIR's translation ends the process at an op that it does not know, LLVM's back ends at an intrinsic without a
    lowering, and both would turn a leftover math op into a call of a library. All three are refused here.

    Args:
        module: a `builtin.module` or `gpu.module` whose ops are all of the llvm and nvvm dialects.
        target: the target whose back end compiles the text.

    Returns:
        The text, without data layout and triple: the back end sets both.

    Raises:
        CompileError: an op is not lowered, an intrinsic has no lowering on the target, or a function is not defined.
    """
    operation = module.operation
    _refuse_untranslatable_ops(operation, target=target)
    text = rewrite_float_literals(llvm.translate_module_to_llvmir(operation))
    allowed = _allowed_intrinsics(target)
    for name in _DECLARATION.findall(text):
        if not allowed.fullmatch(name):
            place = _location_of_callee(operation, name)
            raise CompileError(f"no lowering of {name} on {target.name}{place}; lower-math should have replaced it")
    return text


def _allowed_intrinsics(target: CpuTarget | NvidiaTarget) -> re.Pattern[str]:
    if isinstance(target, NvidiaTarget):
        return _NVIDIA_INTRINSIC
    return _X86_INTRINSIC if target.triple.startswith("x86_64") else _CPU_INTRINSIC


def _refuse_untranslatable_ops(operation: ir.Operation, *, target: CpuTarget | NvidiaTarget) -> None:
    allowed = _allowed_intrinsics(target)
    faults: list[str] = []

    def check(op: ir.Operation) -> ir.WalkResult:
        name = op.name
        if name == "llvm.call_intrinsic":
            intrinsic = ir.StringAttr(op.attributes["intrin"]).value
            # An unknown name is a null function in the translation: a crash, so it must be caught before.
            if not allowed.fullmatch(intrinsic):
                faults.append(f"intrinsic {intrinsic} at {op.location}")
        elif not name.startswith(_TRANSLATABLE_PREFIXES) and name not in _CONTAINERS:
            faults.append(f"op {name} at {op.location}")
        return ir.WalkResult.ADVANCE

    operation.walk(check)
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CompileError(f"not lowered to LLVM for {target.name}: {', '.join(faults[:5])}{more}")


def _location_of_callee(operation: ir.Operation, name: str) -> str:
    """Say where the first op stands that becomes a call of `name`, if one is found."""
    stem = name.removeprefix("llvm.").split(".")[0]
    found: list[str] = []

    def look(op: ir.Operation) -> ir.WalkResult:
        is_intrinsic = op.name == f"llvm.intr.{stem}"
        is_call = op.name == "llvm.call" and "callee" in op.attributes and f"@{name}" == str(op.attributes["callee"])
        if is_intrinsic or is_call:
            found.append(f" (op {op.name} at {op.location})")
            return ir.WalkResult.INTERRUPT
        return ir.WalkResult.ADVANCE

    operation.walk(look)
    return found[0] if found else ""


# ----- float literals ------------------------------------------------------------------------------------------------
# The MLIR bindings print floats as LLVM 23 and later do (f0x3FB8AA3B, short inexact decimals, +inf, +qnan), which
# LLVM 22 rejects. Every LLVM takes the hexadecimal form of the LLVM Language Reference, "Simple Constants".

_FORMATS = {"half": (5, 10), "bfloat": (8, 7), "float": (8, 23), "double": (11, 52)}  # exponent bits, mantissa bits
_TOKEN = re.compile(
    r'"[^"]*"|;[^\n]*|[%@!][-\w$.]+|\b(half|bfloat|float|double)\b'
    r"|(?<![\w.$%@])([+-]?(?:\d+\.\d*(?:e[+-]?\d+)?|inf|qnan|s?nan\(0x[0-9A-Fa-f]+\))|f0x[0-9A-Fa-f]+)(?![\w.])"
)


def rewrite_float_literals(text: str) -> str:
    """Write every floating-point literal of LLVM IR text in hexadecimal, with its exact bits."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if "float" in line or "double" in line or "half" in line:
            lines[number] = _rewrite_line(line)
    return "\n".join(lines)


def _rewrite_line(line: str) -> str:
    dtype = ""

    def rewrite(match: re.Match[str]) -> str:
        nonlocal dtype
        if match.group(1):
            dtype = match.group(1)
        elif match.group(2) and dtype:
            return _hexadecimal_literal(match.group(2), dtype)
        return match.group(0)

    return _TOKEN.sub(rewrite, line)


@lru_cache(maxsize=4096)
def _hexadecimal_literal(literal: str, dtype: str) -> str:
    bits = _literal_bits(literal, dtype)
    if dtype == "half":
        return f"0xH{bits:04X}"
    if dtype == "bfloat":
        return f"0xR{bits:04X}"
    if dtype == "double":
        return f"0x{bits:016X}"
    return f"0x{_float_bits_as_double_bits(bits):016X}"


def _float_bits_as_double_bits(bits: int) -> int:
    """Widen: LLVM writes a float as the double of the same value; NaN payloads keep their leading bits."""
    sign, exponent, mantissa = bits >> 31, (bits >> 23) & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:
        return (sign << 63) | (0x7FF << 52) | (mantissa << 29)
    (value,) = struct.unpack("<f", struct.pack("<I", bits))
    (wide,) = struct.unpack("<Q", struct.pack("<d", value))
    return int(wide)


def _literal_bits(literal: str, dtype: str) -> int:
    exponent_bits, mantissa_bits = _FORMATS[dtype]
    sign = 1 if literal[0] == "-" else 0
    body = literal.lstrip("+-")
    if body.startswith("f0x"):
        return int(body[3:], 16)
    infinity = ((1 << exponent_bits) - 1) << mantissa_bits
    quiet = 1 << (mantissa_bits - 1)
    if body == "inf":
        bits = infinity
    elif body == "qnan":
        bits = infinity | quiet
    elif body.startswith("nan("):
        bits = infinity | quiet | int(body[4:-1], 16)
    elif body.startswith("snan("):
        bits = infinity | int(body[5:-1], 16)
    else:
        bits = _round_to_format(Fraction(body), exponent_bits, mantissa_bits)
    return bits | (sign << (exponent_bits + mantissa_bits))


def _round_to_format(value: Fraction, exponent_bits: int, mantissa_bits: int) -> int:
    """Return the bits of the float nearest to a value >= 0, ties to even."""
    if value == 0:
        return 0
    bias = (1 << (exponent_bits - 1)) - 1
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if Fraction(2) ** exponent > value:
        exponent -= 1
    exponent = max(exponent, 1 - bias)
    significand = round(value / Fraction(2) ** (exponent - mantissa_bits))
    if significand >> (mantissa_bits + 1):
        significand >>= 1
        exponent += 1
    if exponent > bias:
        return ((1 << exponent_bits) - 1) << mantissa_bits
    if significand >> mantissa_bits:
        return significand + ((exponent + bias - 1) << mantissa_bits)
    return significand
