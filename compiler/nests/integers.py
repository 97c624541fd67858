"""Integers of a kernel, all of 64 bits: numbers of rows and columns, sizes in bytes, and loops over them."""

from collections.abc import Callable

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir, llvm, scf


def i64() -> ir.Type:
    """Give the type of all sizes and indices in a kernel."""
    return ir.IntegerType.get_signless(64)


def number(value: int) -> ir.Value:
    """Build a 64-bit integer."""
    return kb.constant(value, i64())


def iadd(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build an integer sum."""
    return kb.emit("arith.addi", (first, second))


def imul(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build an integer product."""
    return kb.emit("arith.muli", (first, second))


def isub(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build an integer difference."""
    return kb.emit("arith.subi", (first, second))


def imin(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build the smaller of two signed integers."""
    return kb.emit("arith.minsi", (first, second))


def element_bytes(element: ir.Type) -> int:
    """Give the size of a number or a pointer in memory."""
    scalar = kb.element_type(element)
    return 8 if isinstance(scalar, llvm.PointerType) else max(1, int(scalar.width) // 8)


def rounded_down(count: ir.Value, step: int) -> ir.Value:
    """Build the largest multiple of a step that is no larger than a number, which may be narrower."""
    return isub(count, kb.emit("arith.remui", (count, kb.constant(step, count.type))))


def for_range(low: ir.Value, high: ir.Value, step: int, body: Callable[[ir.Value], None]) -> None:
    """Build a loop that carries nothing."""
    loop = scf.ForOp(low, high, number(step), [])
    with ir.InsertionPoint(loop.body):
        body(loop.induction_variable)
        scf.YieldOp([])
