"""Entries of kernels for callers of every operating system, so that one image serves them all.

Linux and macOS pass arguments by the System V convention of AMD64, Windows by its own: an image for x86-64 holds a
second entry for each kernel, which takes arguments as Windows gives them, keeps the registers that belong to its
caller there, and calls the first. Windows hands out the stack page by page, in order: frames of more than a page touch
each of their pages (sources: "x64 ABI conventions" and "x64 stack usage" of Microsoft's documentation; LLVM Language
Reference, "win64cc" and "probe-stack"). On 64-bit Arm all three pass arguments alike, and x18, which macOS and Windows
keep for themselves, is reserved.
"""

import re

from pylazy.compiler.target import CpuTarget

_DEFINITION = re.compile(r"^define void @(\w+)\(ptr %0, ptr %1, i64 %2, i64 %3\) \{$", re.MULTILINE)
_PROBED = r'define void @\1(ptr %0, ptr %1, i64 %2, i64 %3) "probe-stack"="inline-asm" {'
_WINDOWS_ENTRY = """
define win64cc void @{name}{suffix}(ptr %0, ptr %1, i64 %2, i64 %3) {{
  call void @{name}(ptr %0, ptr %1, i64 %2, i64 %3)
  ret void
}}
"""
WINDOWS_SUFFIX = "_windows"


def add_system_entries(llvm_text: str, *, target: CpuTarget) -> str:
    """Make the kernels in LLVM IR text callable on all systems; on x86-64 by a second entry, `<name>_windows`."""
    text = _DEFINITION.sub(_PROBED, llvm_text)
    if not target.level.startswith("x86-64"):
        return text
    names = _DEFINITION.findall(llvm_text)
    return text + "".join(_WINDOWS_ENTRY.format(name=name, suffix=WINDOWS_SUFFIX) for name in names)
