"""PTX text -> kernels: their parameters, registers, workgroup variables and instructions."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class PtxError(Exception):
    """A fault of a kernel; the message ends at a line of the PTX text."""


class Register(NamedTuple):
    """A virtual register."""

    name: str


class Immediate(NamedTuple):
    """A number, as the bits that stand in the text."""

    bits: int


class Symbol(NamedTuple):
    """A parameter, a variable, a label or a special register."""

    name: str


class Address(NamedTuple):
    """`[base + offset]`."""

    base: "Register | Symbol"
    offset: int


class Pack(NamedTuple):
    """`{a, b, ...}`."""

    parts: "tuple[Operand, ...]"


Operand = Register | Immediate | Symbol | Address | Pack


@dataclass(frozen=True)
class Instruction:
    """One instruction: `@guard opcode.modifiers operands`."""

    line: int
    text: str
    guard: str
    negated: bool
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]

    @property
    def kind(self) -> str:
        """The type that the instruction computes in, such as "f32"."""
        return self.modifiers[-1]


class Variable(NamedTuple):
    """Bytes in workgroup memory."""

    size: int
    alignment: int


@dataclass
class Kernel:
    """One entry of a module."""

    name: str
    max_threads: int = 0
    parameters: list[str] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)


TYPE_BYTES: Mapping[str, int] = {f"{kind}{bits}": bits // 8 for kind in "bus" for bits in (8, 16, 32, 64)} | {
    "f32": 4,
    "f64": 8,
}
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(")
_VARIABLE = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%\w+)(?:<(\d+)>)?$")
_INSTRUCTION = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)(?:\s+(.*))?$")
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\d+))?\s*\]$")
_INTEGER = re.compile(r"-?(?:0x[0-9a-fA-F]+|\d+)$")


def parse_ptx(text: str) -> dict[str, Kernel]:
    """Read the kernels of a module.

    Raises:
        PtxError: a line is not understood.
    """
    kernels: dict[str, Kernel] = {}
    module_variables: dict[str, Variable] = {}
    kernel: Kernel | None = None
    depth = 0
    for line, statement in _statements(text):
        if (entry := _ENTRY.search(statement)) is not None:
            kernel = kernels[entry[1]] = Kernel(entry[1], variables=dict(module_variables))
        elif statement in "{}":
            depth += 1 if statement == "{" else -1
            if depth == 0:
                kernel = None
        elif kernel is None:
            if (variable := _VARIABLE.search(statement)) is not None:
                module_variables[variable[3]] = _variable(variable)
            elif not statement.startswith((".version", ".target", ".address_size")):
                raise PtxError(f"outside of kernels stands {statement!r}\n  at line {line}")
        elif depth == 0:
            if (parameter := re.search(r"\.param.*?([\w$]+),?$", statement)) is not None:
                kernel.parameters.append(parameter[1])
            elif statement.startswith(".maxntid"):
                kernel.max_threads = int(statement.split()[1].rstrip(","))
        else:
            _add_statement(kernel, line, statement)
    return kernels


def _statements(text: str) -> Iterator[tuple[int, str]]:
    for line, whole in enumerate(text.splitlines(), 1):
        code = whole.split("//")[0].strip()
        while (label := re.match(r"([\w$]+:)\s*", code)) is not None:
            yield line, label[1]
            code = code[label.end() :]
        # A block in one line, such as "{ .reg .b32 t; mov.b64 {t, %r1}, %rd1; }", is opened and closed by itself.
        inner = code[1:-1] if code.startswith("{") and code.endswith("}") and ";" in code else code
        yield from ((line, part.strip()) for part in inner.split(";") if part.strip())


def _variable(found: "re.Match[str]") -> Variable:
    return Variable(TYPE_BYTES[found[2]] * int(found[4] or 1), int(found[1] or 1))


def _add_statement(kernel: Kernel, line: int, statement: str) -> None:
    if statement.endswith(":"):
        kernel.labels[statement[:-1]] = len(kernel.instructions)
    elif (registers := _REGISTERS.match(statement)) is not None:
        kind, name, count = registers.groups()
        names = [name] if count is None else [f"{name}{k}" for k in range(int(count))]
        kernel.registers.update(dict.fromkeys(names, kind))
    elif (variable := _VARIABLE.match(statement)) is not None:
        kernel.variables[variable[3]] = _variable(variable)
    elif statement.startswith(".pragma"):
        return
    elif (found := _INSTRUCTION.match(statement)) is not None:
        negated, guard, name, operands = found.groups()
        opcode, *modifiers = name.replace("::", ".").split(".")
        kernel.instructions.append(
            Instruction(
                line,
                statement,
                guard or "",
                bool(negated),
                opcode,
                tuple(modifiers),
                tuple(_operand(part, line) for part in _split(operands or "")),
            )
        )
    else:
        raise PtxError(f"{statement!r} is not understood\n  at line {line}")


def _split(operands: str) -> list[str]:
    """Split at the commas outside of brackets; `a|b` are two operands."""
    return [part.strip() for part in re.split(r",(?![^{\[]*[}\]])|\|", operands) if part.strip()]


def _operand(text: str, line: int) -> Operand:
    if text.startswith("{"):
        return Pack(tuple(_operand(part, line) for part in _split(text[1:-1])))
    if (address := _ADDRESS.match(text)) is not None:
        base = Register(address[1]) if address[1].startswith("%") else Symbol(address[1])
        return Address(base, int(address[2] or 0))
    if re.match(r"%(tid|ntid|ctaid|nctaid|laneid)\b", text):
        return Symbol(text)
    if text.startswith("%"):
        return Register(text)
    if re.match(r"0[fFdD][0-9a-fA-F]+$", text):
        return Immediate(int("0x" + text[2:], 0))
    if _INTEGER.match(text):
        return Immediate(int(text, 0))
    if re.match(r"[\w$.]+$", text):
        return Symbol(text)
    raise PtxError(f"operand {text!r} is not understood\n  at line {line}")
