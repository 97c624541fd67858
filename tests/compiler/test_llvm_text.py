"""The hand-over of LLVM IR text: exact literals, and refusals in place of a crash."""

import re
import struct

import llvmlite.binding as llvmlite
import numpy as np
import pytest

from pylazy.compiler.codegen.llvm_text import module_to_llvm_text, rewrite_float_literals
from pylazy.compiler.mlir import ir, new_context
from pylazy.compiler.target import CpuTarget, NvidiaTarget
from pylazy.runtime.errors import CompileError

CPU = CpuTarget("x86-64-v3")
FUNCTION = "llvm.func @f(%a: f32) -> f32 {"
SPECIAL_BITS = {
    "f32": [0, 1 << 31, 1, 0x007FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FC00001, 0x3FB8AA3B],
    "f64": [0, 1 << 63, 1, (1 << 52) - 1, 0x7FEF << 48, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, (0x7FF8 << 48) | 1],
}


def _text_of(source: str, *, target: CpuTarget | NvidiaTarget = CPU) -> str:
    with new_context(), ir.Location.unknown():
        return module_to_llvm_text(ir.Module.parse(source), target=target)


@pytest.mark.parametrize(("dtype", "width"), [("f32", 32), ("f64", 64)])
def test_constants_keep_their_bits_through_the_text(dtype: str, width: int) -> None:
    generator = np.random.default_rng(0)
    shorts = [np.array(x, f"f{width // 8}").view(f"u{width // 8}") for x in (0.1, -2.5, 1e-5, 3.14, 1e30)]
    random = generator.integers(0, 2 ** (width - 1), 200, dtype=f"u{width // 8}")
    patterns = [*SPECIAL_BITS[dtype], *map(int, shorts), *map(int, random)]
    body = "\n".join(
        f"%c{k} = llvm.mlir.constant(0x{bits:0{width // 4}X} : {dtype}) : {dtype}\n"
        f"llvm.store volatile %c{k}, %p : {dtype}, !llvm.ptr"
        for k, bits in enumerate(patterns)
    )
    text = _text_of(f"llvm.func @k(%p: !llvm.ptr) {{ {body}\n llvm.return }}")
    literals = re.findall(r"store volatile \w+ (0x[0-9A-F]+), ptr", text)
    expected = []
    for bits in patterns:
        wide = bits
        if width == 32 and (bits >> 23) & 0xFF == 0xFF:
            wide = (bits >> 31 << 63) | (0x7FF << 52) | ((bits & 0x7FFFFF) << 29)
        elif width == 32:
            (value,) = struct.unpack("<f", struct.pack("<I", bits))
            (wide,) = struct.unpack("<Q", struct.pack("<d", value))
        expected.append(wide)
    assert [int(literal, 16) for literal in literals] == expected
    llvmlite.parse_assembly(text).verify()


def test_text_without_literals_is_unchanged() -> None:
    text = 'define void @f() {\n  ret void ; float 1.5\n}\n@s = constant [4 x i8] c"1.5\\00"'
    assert rewrite_float_literals(text) == text


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("func.func @f() { return }", "func.func"),
        (
            f"{FUNCTION} %0 = builtin.unrealized_conversion_cast %a : f32 to f32\n llvm.return %0 : f32 }}",
            "unrealized_conversion_cast",
        ),
        (
            f'{FUNCTION} %0 = llvm.call_intrinsic "llvm.no.such.thing"(%a) : (f32) -> f32\n llvm.return %0 : f32 }}',
            "llvm.no.such.thing",
        ),
        (
            "llvm.func @f(%a: f32) -> f32 { %0 = llvm.intr.exp(%a) : (f32) -> f32\nllvm.return %0 : f32 }",
            "llvm.exp.f32",
        ),
        (
            f"llvm.func @expf(f32) -> f32\n{FUNCTION} %0 = llvm.call @expf(%a) : (f32) -> f32\nllvm.return %0 : f32 }}",
            "expf",
        ),
    ],
)
def test_what_would_end_the_process_is_refused_by_name(source: str, named: str) -> None:
    with pytest.raises(CompileError, match=re.escape(named)):
        _text_of(source)


def test_an_intrinsic_of_another_target_is_refused() -> None:
    source = (
        'llvm.func @f(%a: f32) -> f32 { %0 = llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz.f"(%a) : (f32) -> f32\n'
        "llvm.return %0 : f32 }"
    )
    assert "ex2.approx" in _text_of(source, target=NvidiaTarget("sm_90"))
    with pytest.raises(CompileError, match="ex2"):
        _text_of(source)


def test_a_refusal_says_where_the_operation_stands() -> None:
    source = (
        'llvm.func @f(%a: f32) -> f32 { %0 = llvm.intr.exp(%a) : (f32) -> f32 loc("formula.py":3:7)\n'
        "llvm.return %0 : f32 }"
    )
    with pytest.raises(CompileError, match=r"formula\.py"):
        _text_of(source)
