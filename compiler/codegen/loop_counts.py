"""What the innermost loops of assembly or PTX hold: instructions, registers, stack traffic."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LABEL = re.compile(r"(\.?\$?\w+):")
_JUMP = re.compile(r"(?:@%p\d+\s+bra(?:\.uni)?|bra(?:\.uni)?|j\w+|b(?:\.\w+)?|cb\w+|tbn?z)\s.*?([.$]\w+);?$")
_VECTOR_REGISTERS = re.compile(r"%([xyz]mm\d+)|\b([vqds]\d+)\b")
_X86_STACK = re.compile(r"\(%[re]?sp\)|\(%[re]?bp\)|\[sp[,\]]")
_PTX_REGISTER = re.compile(r"%[a-z]+\d+")


@dataclass(frozen=True)
class LoopCounts:
    """The innermost loop of a function, as text and in numbers.

    Attributes:
        function: the function it belongs to.
        instructions: from its label to the jump back.
        arithmetic: those that compute with floating point numbers.
        registers: different vector registers of a CPU, or different virtual registers of PTX.
        stack: instructions that read or write the stack.
    """

    function: str
    instructions: int
    arithmetic: int
    registers: int
    stack: int


def innermost_loops(text: str) -> tuple[LoopCounts, ...]:
    """Count the innermost loops of assembly (x86-64, AArch64) or PTX, in order of appearance."""
    return tuple(_counts(function, lines) for function, lines in _innermost(text))


def _innermost(text: str) -> Iterator[tuple[str, list[str]]]:
    function = ""
    lines: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        code = re.split(r"\s#|//", line, maxsplit=1)[0].strip()
        entry = re.match(r"\.?(?:visible )?\.entry (\w+)", code)
        label = _LABEL.fullmatch(code)
        if entry or (label and not label.group(1).startswith((".L", "$L"))):
            function, labels, lines = (entry or label).group(1), {}, []  # type: ignore[union-attr]
        elif label:
            labels[label.group(1)] = len(lines)
        elif code and (not code.startswith(".") and code not in "{}()"):
            lines.append(code)
            jump = _JUMP.match(code)
            start = labels.get(jump.group(1)) if jump else None
            if start is not None:
                yield function, lines[start:]
                # What encloses this loop is not innermost: its label is forgotten.
                labels = {name: place for name, place in labels.items() if place > start}


def _counts(function: str, lines: list[str]) -> LoopCounts:
    is_ptx = any(line.endswith(";") for line in lines)
    pattern = _PTX_REGISTER if is_ptx else _VECTOR_REGISTERS
    registers = {_register_name(found.group(0)) for line in lines for found in pattern.finditer(line)}
    return LoopCounts(
        function=function,
        instructions=len(lines),
        arithmetic=sum(_is_arithmetic(line) for line in lines),
        registers=len(registers),
        stack=sum(_X86_STACK.search(line) is not None for line in lines),
    )


def _register_name(text: str) -> str:
    """Name a register whatever width of it is used: %ymm3 and %xmm3 are one."""
    return re.sub(r"^%?[xyz]mm|^[vqds](?=\d)", "v", text)


def _is_arithmetic(line: str) -> bool:
    name = line.split()[1] if line.startswith("@") else line.split(maxsplit=1)[0]
    x86 = re.fullmatch(r"v?\w*(?:p[sd]|s[sd])", name) and not re.match(r"v?mov|vbroadcast", name)
    return (
        bool(x86)
        or name.startswith(("fm", "fadd", "fsub", "fdiv", "fsqrt", "fneg"))
        or ".f32" in name
        or (".f64" in name and not name.startswith(("ld", "st", "mov")))
    )
