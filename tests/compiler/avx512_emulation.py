"""Run kernels for x86-64-v4 on a processor without AVX-512: each of its intrinsics becomes a function of portable IR.

Nothing else in a kernel's LLVM IR is bound to AVX-512: vectors of 512 bits are legal everywhere, LLVM cuts them. So a
kernel with its intrinsics defined, compiled for this processor, computes what an AVX-512 processor does, but for
reciprocal square roots of 14 bits, which Intel leaves open: ours are as wrong as they may be, in either direction.
Source of the definitions: Intel's Software Developer's Manual, volume 2.
"""

import dataclasses
import functools
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import math_harness
import numpy as np

from pylazy.compiler import compile as compile_module
from pylazy.compiler.codegen.native_object import emit_object
from pylazy.compiler.target import CpuTarget
from pylazy.runtime.kernel import KernelImage
from pylazy.runtime.launch import is_runnable

#: What runs the emulation; with the fused multiply-add of AVX2, which a library would have to replace before.
HOST = CpuTarget("x86-64-v3")
EMULATED = CpuTarget("x86-64-v4")

_DECLARATION = re.compile(
    r"^declare <(\d+) x (float|double|i1)> @llvm\.x86\.avx512\.((?:mask\.)?(\w+)\.p[sd]\.\d+)\((.*)\).*\n", re.MULTILINE
)
_CALL = re.compile(r"call <[^\n]*@llvm\.x86\.avx512\.(?:mask\.)?(\w+)\.[^\n]*")
_ALL_LANES = re.compile(r"i(?:8|16) -1(?:, i32 4)?\)$")  # and the current rounding mode
_IMMEDIATES = {"range": "i32 2, <", "getmant": "i32 11, <"}


def can_emulate() -> bool:
    """Tell whether this processor runs the emulation."""
    return is_runnable(HOST.level)


def emulate(text: str) -> str:
    """Define the AVX-512 intrinsics that LLVM IR text calls.

    Raises:
        AssertionError: a call has a mask or an immediate that the definitions do not know.
    """
    for call in _CALL.finditer(text):
        name, line = call.group(1), call.group(0)
        assert name in {"vpermi2var", "fpclass"} or _ALL_LANES.search(line), line
        assert _IMMEDIATES.get(name, "") in line, line
    definitions = []
    for lanes, element, full_name, name, parameters in _DECLARATION.findall(text):
        body = _Body("float" if ".ps." in full_name else "double", int(lanes))
        result = f"<{lanes} x {element}>"
        body.lines.append(f"ret {result} {_DEFINITIONS[name](body)}")
        types = [parameter.replace(" immarg", "") for parameter in re.split(r", (?=[<i])", parameters)]
        arguments = ", ".join(f"{kind} %{position}" for position, kind in enumerate(types))
        code = "\n  ".join(body.lines)
        definitions.append(f"define internal {result} @emulated.{full_name}({arguments}) {{\n  {code}\n}}\n")
        definitions += [line for line in body.declarations if line.split("(")[0] not in text]
    text = _DECLARATION.sub("", text).replace("@llvm.x86.avx512.", "@emulated.")
    return "\n".join([text, *dict.fromkeys(definitions)])


def compile_emulated(traced: Any) -> KernelImage:
    """Compile a traced formula for x86-64-v4, into an image that this processor runs."""

    def emit(text: str, *, target: CpuTarget) -> bytes:
        assert target == EMULATED
        return emit_object(emulate(text), target=HOST)

    with mock.patch.object(compile_module, "emit_object", emit):
        image = compile_module.compile_cpu(traced, EMULATED.level)
    return dataclasses.replace(image, target=HOST.level)


@functools.cache
def emulated_function(name: str, *, dtype: str, lanes: int) -> math_harness.Function:
    """Compile one operation of the math dialect, as `math_harness.compile_function` does."""
    source = math_harness.kernel_text(name, dtype=dtype, lanes=lanes)
    return _function(math_harness.to_llvm_text(source, target=EMULATED), dtype=dtype, lanes=lanes)


def call_text(text: str, *, dtype: str, lanes: int) -> Any:
    """Emulate the function `kernel` of LLVM IR text and call it once; give what it wrote."""
    return _function(text, dtype=dtype, lanes=lanes)(np.zeros(lanes, dtype))


def _function(text: str, *, dtype: str, lanes: int) -> math_harness.Function:
    emulated = emulate(text)
    with mock.patch.object(math_harness, "to_llvm_text", return_value=emulated):
        return math_harness.compile_function.__wrapped__("exp", dtype=dtype, level=HOST.level, lanes=lanes)


class _Body:
    """The lines of one function on vectors of floats, with names for the values."""

    def __init__(self, element: str, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        self.bits, self.mantissa_bits, self.bias = (32, 23, 127) if element == "float" else (64, 52, 1023)
        self.floats, self.integers = f"<{lanes} x {element}>", f"<{lanes} x i{self.bits}>"
        self.lines: list[str] = []
        self.declarations: list[str] = []
        self._count = 0

    def let(self, expression: str) -> str:
        self._count += 1
        self.lines.append(f"%v{self._count} = {expression}")
        return f"%v{self._count}"

    def number(self, value: float) -> str:
        return f"splat ({self.element} 0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X})"

    def whole(self, value: int) -> str:
        return f"splat (i{self.bits} {value})"

    def op(self, name: str, a: str, b: str) -> str:
        """Emit an operation on floats."""
        return self.let(f"{name} {self.floats} {a}, {b}")

    def bit_op(self, name: str, a: str, b: str) -> str:
        """Emit an operation on the bits of floats."""
        return self.let(f"{name} {self.integers} {a}, {b}")

    def to_bits(self, a: str) -> str:
        return self.let(f"bitcast {self.floats} {a} to {self.integers}")

    def from_bits(self, a: str) -> str:
        return self.let(f"bitcast {self.integers} {a} to {self.floats}")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.let(f"select <{self.lanes} x i1> {condition}, {self.floats} {a}, {self.floats} {b}")

    def compare(self, predicate: str, a: str, b: str) -> str:
        return self.op(f"fcmp {predicate}", a, b)

    def where(self, predicate: str, a: str, b: str, then: str, otherwise: str) -> str:
        return self.select(self.compare(predicate, a, b), then, otherwise)

    def magnitude(self, a: str) -> str:
        return self.from_bits(self.bit_op("and", self.to_bits(a), self.whole((1 << (self.bits - 1)) - 1)))

    def with_sign(self, a: str, sign: str) -> str:
        sign_bit = self.bit_op("and", self.to_bits(sign), self.whole(1 << (self.bits - 1)))
        return self.from_bits(self.bit_op("or", self.to_bits(self.magnitude(a)), sign_bit))

    def power_of_two(self, exponent: str) -> str:
        """Return two to the power of an integral float within the range of normal numbers."""
        whole = self.let(f"fptosi {self.floats} {exponent} to {self.integers}")
        biased = self.bit_op("add", whole, self.whole(self.bias))
        return self.from_bits(self.bit_op("shl", biased, self.whole(self.mantissa_bits)))

    def rounded(self, a: str) -> str:
        """Round to integral numbers, ties to even."""
        magic = self.number(1.5 * 2.0**self.mantissa_bits)
        near = self.op("fsub", self.op("fadd", a, magic), magic)
        limit = self.number(2.0 ** (self.mantissa_bits - 1))
        return self.where("olt", self.magnitude(a), limit, self.with_sign(near, a), a)

    def floor(self, a: str) -> str:
        near = self.rounded(a)
        return self.where("ogt", near, a, self.op("fsub", near, self.number(1.0)), near)


_INFINITY, _NAN = float("inf"), float("nan")


def _scalef(b: _Body) -> str:
    """Return a 2^floor(n) rounded once: three exact factors, the last of which may round (as musl's scalbn)."""
    a, n = "%0", "%1"
    largest, lowest_step = float(b.bias), float(b.bias - 1 - b.mantissa_bits - 1)
    limit = 3.0 * b.bias
    exponent = b.where("olt", n, b.number(limit), n, b.number(limit))
    exponent = b.floor(b.where("ogt", exponent, b.number(-limit), exponent, b.number(-limit)))
    result = a
    for last in (False, False, True):
        lowest = float(b.bias - 1) if last else lowest_step
        step = b.where("olt", exponent, b.number(largest), exponent, b.number(largest))
        step = b.where("ogt", step, b.number(-lowest), step, b.number(-lowest))
        if not last:
            # One step is enough for most exponents: then this one must not round before the last.
            is_small = b.compare("olt", b.magnitude(exponent), b.number(float(b.bias - 1)))
            step = b.select(is_small, b.number(0.0), step)
        result = b.op("fmul", result, b.power_of_two(step))
        exponent = b.op("fsub", exponent, step)
    infinity, zero = b.number(_INFINITY), b.number(0.0)
    to_infinity = b.where("uno", a, a, infinity, b.op("fmul", a, infinity))
    to_zero = b.where("uno", a, a, zero, b.op("fmul", a, zero))
    result = b.where("oeq", n, infinity, to_infinity, result)
    result = b.where("oeq", n, b.number(-_INFINITY), to_zero, result)
    return b.where("uno", n, n, n, result)


def _rndscale(b: _Body) -> str:
    """Round to a multiple of two to the power of minus the upper bits of the immediate."""
    fraction_bits = b.let("lshr i32 %1, 4")
    wide = b.let(f"zext i32 {fraction_bits} to i64") if b.bits == 64 else fraction_bits
    first = b.let(f"insertelement {b.integers} poison, i{b.bits} {wide}, i32 0")
    spread = f"shufflevector {b.integers} {first}, {b.integers} poison, <{b.lanes} x i32> zeroinitializer"
    fraction = b.let(f"sitofp {b.integers} {b.let(spread)} to {b.floats}")
    scaled = b.op("fmul", "%0", b.power_of_two(fraction))
    unscaled = b.op("fmul", b.rounded(scaled), b.power_of_two(b.op("fsub", b.number(0.0), fraction)))
    limit = b.number(2.0**b.mantissa_bits)
    return b.where("olt", b.magnitude("%0"), limit, unscaled, "%0")


def _range(b: _Body) -> str:
    """Return the operand of smaller magnitude, a number rather than a NaN, with the sign of the first."""
    smaller = b.where("ole", b.magnitude("%0"), b.magnitude("%1"), "%0", "%1")
    smaller = b.where("uno", "%1", "%1", "%0", smaller)
    return b.with_sign(smaller, "%0")


def _normalized_bits(b: _Body) -> tuple[str, str]:
    """Return the bits of the magnitude, times a power of two where it is not normal, and whether it is."""
    size = b.magnitude("%0")
    small = b.compare("olt", size, b.number(2.0 ** (1 - b.bias)))
    scaled = b.op("fmul", size, b.number(2.0 ** (b.mantissa_bits + 1)))
    return b.to_bits(b.select(small, scaled, size)), small


def _getexp(b: _Body) -> str:
    bits, small = _normalized_bits(b)
    field = b.bit_op("lshr", bits, b.whole(b.mantissa_bits))
    exponent = b.op("fsub", b.let(f"sitofp {b.integers} {field} to {b.floats}"), b.number(float(b.bias)))
    exponent = b.select(small, b.op("fsub", exponent, b.number(float(b.mantissa_bits + 1))), exponent)
    size = b.magnitude("%0")
    exponent = b.where("oeq", size, b.number(0.0), b.number(-_INFINITY), exponent)
    return b.where("olt", size, b.number(_INFINITY), exponent, b.op("fadd", size, size))


def _getmant(b: _Body) -> str:
    """Return the significand in [0.75, 1.5), NaN for negative numbers, 1 for infinity, 1 with its sign for 0."""
    bits, _ = _normalized_bits(b)
    field = b.bit_op("and", bits, b.whole((1 << b.mantissa_bits) - 1))
    mantissa = b.from_bits(b.bit_op("or", field, b.whole(b.bias << b.mantissa_bits)))
    half = b.op("fmul", mantissa, b.number(0.5))
    mantissa = b.where("oge", mantissa, b.number(1.5), half, mantissa)
    mantissa = b.where("olt", "%0", b.number(0.0), b.number(_NAN), mantissa)
    mantissa = b.where("oeq", "%0", b.number(_INFINITY), b.number(1.0), mantissa)
    mantissa = b.where("oeq", "%0", b.number(0.0), b.with_sign(b.number(1.0), "%0"), mantissa)
    return b.where("uno", "%0", "%0", "%0", mantissa)


def _rsqrt14(b: _Body) -> str:
    """Return 1 / sqrt(x), too large by 2^-14 in odd lanes and too small in even ones; 0 gives inf of its sign."""
    suffix = f"v{b.lanes}f{b.bits}"
    b.declarations.append(f"declare {b.floats} @llvm.sqrt.{suffix}({b.floats})")
    root = b.let(f"call {b.floats} @llvm.sqrt.{suffix}({b.floats} %0)")
    inverse = b.op("fdiv", b.number(1.0), root)
    error = 2.0**-14 - 2.0**-20
    factors = (b.number(1 + sign * error) for _ in range(b.lanes // 2) for sign in (-1, 1))
    rounded = b.op("fmul", inverse, f"<{', '.join(factor[7:-1] for factor in factors)}>")
    return b.where("oeq", "%0", b.number(0.0), b.with_sign(b.number(_INFINITY), "%0"), rounded)


def _fpclass(b: _Body) -> str:
    """Tell which numbers are of a class that the immediate names: of 0, -0, inf and subnormal ones."""
    bits = b.to_bits("%0")
    size = b.to_bits(b.magnitude("%0"))
    infinity = b.to_bits(b.number(_INFINITY))
    zero, smallest_normal = b.whole(0), b.whole(1 << b.mantissa_bits)
    below = b.bit_op("icmp ult", size, smallest_normal)
    subnormal = b.let(f"and <{b.lanes} x i1> {below}, {b.bit_op('icmp ne', size, zero)}")
    tests = {
        1: b.bit_op("icmp eq", bits, zero),
        2: b.bit_op("icmp eq", bits, b.whole(1 << (b.bits - 1))),
        3: b.bit_op("icmp eq", bits, infinity),
        5: subnormal,
    }
    result = "zeroinitializer"
    for position, test in tests.items():
        asked = b.let(f"icmp ne i32 {b.let(f'and i32 %1, {1 << position}')}, 0")
        found = b.let(f"select i1 {asked}, <{b.lanes} x i1> {test}, <{b.lanes} x i1> zeroinitializer")
        result = b.let(f"or <{b.lanes} x i1> {result}, {found}")
    return result


def _vpermi2var(b: _Body) -> str:
    """Return for each lane the entry of two registers that the low bits of an index name."""
    order = ", ".join(f"i32 {k}" for k in range(2 * b.lanes))
    joined = b.let(f"shufflevector {b.floats} %0, {b.floats} %2, <{2 * b.lanes} x i32> <{order}>")
    table = b.let(f"alloca <{2 * b.lanes} x {b.element}>, align 64")
    b.lines.append(f"store <{2 * b.lanes} x {b.element}> {joined}, ptr {table}, align 64")
    places = b.bit_op("and", "%1", b.whole(2 * b.lanes - 1))
    result = "poison"
    for lane in range(b.lanes):
        place = b.let(f"extractelement {b.integers} {places}, i32 {lane}")
        address = b.let(f"getelementptr {b.element}, ptr {table}, i{b.bits} {place}")
        entry = b.let(f"load {b.element}, ptr {address}")
        result = b.let(f"insertelement {b.floats} {result}, {b.element} {entry}, i32 {lane}")
    return result


_DEFINITIONS: Mapping[str, Callable[[_Body], str]] = {
    "scalef": _scalef,
    "rndscale": _rndscale,
    "range": _range,
    "getexp": _getexp,
    "getmant": _getmant,
    "rsqrt14": _rsqrt14,
    "fpclass": _fpclass,
    "vpermi2var": _vpermi2var,
}
