"""ELF objects become flat images: references resolved as the ABIs say, and refused where nothing could resolve them."""

import ctypes
import mmap
import struct

import pytest

from pylazy.compiler.codegen.native_image import FlatImage, flatten
from pylazy.compiler.codegen.native_object import emit_object
from pylazy.compiler.target import CPU_LEVELS, CpuTarget
from pylazy.runtime.errors import CompileError, InternalError
from pylazy.runtime.launch import is_runnable

CPU = CpuTarget("x86-64")
ARM = CpuTarget("aarch64")

# A table too large for immediate operands, read at a place that is not known when it is compiled.
TABLE = """
@table = internal constant [4 x double] [double 1.5, double 2.5, double 3.5, double 4.5]
define double @pick(i64 %k) {
  %p = getelementptr [4 x double], ptr @table, i64 0, i64 %k
  %v = load double, ptr %p
  ret double %v
}
define double @second() {
  %v = load double, ptr getelementptr ([4 x double], ptr @table, i64 0, i64 1)
  ret double %v
}
"""
CALL = """
define i64 @callee(i64 %x) noinline {
  %y = mul i64 %x, 3
  ret i64 %y
}
define i64 @caller(i64 %x) {
  %y = call i64 @callee(i64 %x)
  %z = add i64 %y, 1
  ret i64 %z
}
"""
UNDEFINED = """
declare float @expm1f(float)
define float @f(float %x) {
  %y = call float @expm1f(float %x)
  ret float %y
}
"""


def flat(text: str, target: CpuTarget) -> FlatImage:
    return flatten(emit_object(text, target=target))


def words(image: FlatImage, name: str, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}I", image.code, image.entries[name])


class Loaded:
    """An image in executable memory, behind some pages that are not it."""

    def __init__(self, image: FlatImage, *, pages_before: int) -> None:
        begin = pages_before * mmap.PAGESIZE
        self.memory = mmap.mmap(-1, begin + len(image.code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory[begin:] = image.code
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + begin
        self.entries = image.entries

    def call(self, name: str, result: type, *arguments: int) -> object:
        prototype = ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * len(arguments))
        return prototype(self.address + self.entries[name])(*arguments)


@pytest.mark.parametrize("target", [level for level in CPU_LEVELS if is_runnable(level)])
@pytest.mark.parametrize("pages_before", [0, 3])
def test_code_finds_its_constants_and_functions_wherever_it_lies(target: str, pages_before: int) -> None:
    table = Loaded(flat(TABLE, CpuTarget(target)), pages_before=pages_before)
    assert [table.call("pick", ctypes.c_double, k) for k in range(4)] == [1.5, 2.5, 3.5, 4.5]
    assert table.call("second", ctypes.c_double) == 2.5
    assert Loaded(flat(CALL, CpuTarget(target)), pages_before=pages_before).call("caller", ctypes.c_int64, 7) == 22


@pytest.mark.parametrize("target", [CPU, ARM])
def test_undefined_function_is_named(target: CpuTarget) -> None:
    with pytest.raises(CompileError, match="generated code calls `expm1f`"):
        flat(UNDEFINED, target)


@pytest.mark.parametrize("section", ["data", "bss"])
def test_writable_data_is_refused(section: str) -> None:
    value = {"data": "42", "bss": "0"}[section]
    text = f"@counter = global i64 {value}\ndefine i64 @f() {{\n%v = load i64, ptr @counter\nret i64 %v\n}}"
    with pytest.raises(InternalError, match=rf"writable data in \.{section}"):
        flat(text, CPU)


def test_absolute_address_is_refused() -> None:
    text = (
        "@table = internal constant [2 x ptr] [ptr @f, ptr null]\n"
        "define ptr @f(i64 %k) {\n%p = getelementptr ptr, ptr @table, i64 %k\n%v = load ptr, ptr %p\nret ptr %v\n}"
    )
    with pytest.raises(InternalError, match="relocation 1 to"):
        flat(text, CPU)


def test_other_machine_is_refused() -> None:
    elf = bytearray(emit_object(CALL, target=CPU))
    struct.pack_into("<H", elf, 18, 243)  # RISC-V
    with pytest.raises(InternalError, match="for machine 243"):
        flatten(bytes(elf))


def test_entries_are_the_functions_and_code_comes_first() -> None:
    image = flat(TABLE, CPU)
    assert set(image.entries) == {"pick", "second"}
    assert all(entry % 16 == 0 for entry in image.entries.values())
    assert image.code.index(struct.pack("<4d", 1.5, 2.5, 3.5, 4.5)) > max(image.entries.values())


# aarch64: the instructions, decoded as in the Arm Architecture Reference Manual, C6.2


def page_of_adrp(word: int, place: int) -> int:
    assert word & 0x9F000000 == 0x90000000, "no ADRP"
    pages = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
    return (place // 4096 + pages - (pages >> 20 << 21)) * 4096


def padded(text: str, functions: int) -> str:
    """Put code before a text, so that its functions and their constants lie on different pages."""
    body = "\n".join(f"store volatile i64 {k}, ptr %p" for k in range(functions))
    return f"define void @before(ptr %p) {{\n{body}\nret void\n}}\n{text}"


@pytest.mark.parametrize("before", [0, 600, 3000])
def test_arm_page_and_offset_give_the_address_of_the_table(before: int) -> None:
    image = flat(padded(TABLE, before), ARM)
    table = image.code.index(struct.pack("<4d", 1.5, 2.5, 3.5, 4.5))
    entry = image.entries["pick"]
    adrp, add = words(image, "pick", 2)
    assert add & 0xFFC00000 == 0x91000000, "no ADD"
    assert page_of_adrp(adrp, entry) + (add >> 10 & 0xFFF) == table
    # A load scales its offset by what it loads.
    entry = image.entries["second"]
    adrp, ldr = words(image, "second", 2)
    assert ldr & 0xFFC00000 == 0xFD400000, "no LDR of a double"
    assert page_of_adrp(adrp, entry) + 8 * (ldr >> 10 & 0xFFF) == table + 8


def test_arm_branch_reaches_its_function() -> None:
    image = flat(padded(CALL, 100).replace("noinline", "noinline optnone"), ARM)
    entry = image.entries["caller"]
    found = [
        entry + 4 * k + 4 * ((word & 0x3FFFFFF) - (word >> 25 & 1) * (1 << 26))
        for k, word in enumerate(words(image, "caller", 4))
        if word & 0x7C000000 == 0x14000000
    ]
    assert found == [image.entries["callee"]]


def test_image_is_the_same_for_the_same_text() -> None:
    assert flat(TABLE, ARM) == flat(TABLE, ARM)
