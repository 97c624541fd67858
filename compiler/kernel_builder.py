"""Building blocks of kernel bodies: arithmetic on a scalar, a vector of lanes, or rows of lanes.

Everything here takes its type from its operands. Arithmetic may be contracted to fused multiply-adds and nothing more:
no re-association, no assumption about NaN or infinities.
"""

from collections.abc import Sequence
from typing import Any

from pylazy.compiler.mlir import arith, ir

_PREDICATES = {
    "oeq": 1,
    "ogt": 2,
    "oge": 3,
    "olt": 4,
    "ole": 5,
    "one": 6,
    "ord": 7,
    "ugt": 9,
    "ult": 11,
    "ule": 12,
    "une": 13,
    "uno": 14,
}
_INTEGER_PREDICATES = ("eq", "ne", "slt", "sle")


def element_type(value_type: ir.Type) -> ir.Type:
    """Give the scalar type under a vector type, or the scalar type itself."""
    return value_type.element_type if isinstance(value_type, ir.VectorType) else value_type


def constant(value: float, value_type: ir.Type) -> ir.Value:
    """Build a number, splat over a vector type."""
    scalar = element_type(value_type)
    if isinstance(scalar, ir.IntegerType | ir.IndexType):
        attribute = ir.IntegerAttr.get(scalar, int(value))
    else:
        attribute = ir.FloatAttr.get(scalar, float(value))
    if isinstance(value_type, ir.VectorType):
        attribute = ir.DenseElementsAttr.get_splat(value_type, attribute)
    return arith.constant(value_type, attribute)


def index(value: int) -> ir.Value:
    """Build an index constant."""
    return arith.constant(ir.IndexType.get(), ir.IntegerAttr.get(ir.IndexType.get(), value))


def emit(name: str, operands: Sequence[ir.Value], result: "ir.Type | None" = None, **attributes: Any) -> ir.Value:
    """Build an op with one result, of the first operand's type unless `result` is given."""
    operation = ir.Operation.create(
        name, results=[result if result is not None else operands[0].type], operands=operands, attributes=attributes
    )
    return operation.results[0]


def _contracted(name: str, first: ir.Value, second: ir.Value) -> ir.Value:
    return emit(name, (first, second), fastmath=ir.Attribute.parse("#arith.fastmath<contract>"))


def add(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build a sum."""
    return _contracted("arith.addf", first, second)


def sub(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build a difference."""
    return _contracted("arith.subf", first, second)


def mul(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build a product."""
    return _contracted("arith.mulf", first, second)


def div(first: ir.Value, second: ir.Value) -> ir.Value:
    """Build a quotient."""
    return emit("arith.divf", (first, second))


def neg(value: ir.Value) -> ir.Value:
    """Build a negation."""
    return emit("arith.negf", (value,))


def math_op(name: str, *operands: ir.Value) -> ir.Value:
    """Build an op of the math dialect."""
    return emit(f"math.{name}", operands)


def bool_type(value_type: ir.Type) -> ir.Type:
    """Give the type of a comparison of values of this type."""
    boolean = ir.IntegerType.get_signless(1)
    return ir.VectorType.get(value_type.shape, boolean) if isinstance(value_type, ir.VectorType) else boolean


def compare(predicate: str, first: ir.Value, second: ir.Value) -> ir.Value:
    """Build a floating-point comparison; predicates as in LLVM, such as "olt" (ordered and less)."""
    code = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), _PREDICATES[predicate])
    return emit("arith.cmpf", (first, second), bool_type(first.type), predicate=code)


def icompare(predicate: str, first: ir.Value, second: ir.Value) -> ir.Value:
    """Build an integer comparison: "eq", "ne", "slt" or "sle"."""
    code = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), _INTEGER_PREDICATES.index(predicate))
    return emit("arith.cmpi", (first, second), bool_type(first.type), predicate=code)


def select(condition: ir.Value, first: ir.Value, second: ir.Value) -> ir.Value:
    """Build `condition ? first : second`, lane by lane."""
    return emit("arith.select", (condition, first, second), first.type)


def truth(condition: ir.Value, value_type: ir.Type) -> ir.Value:
    """Turn a comparison into 1.0 or 0.0."""
    return emit("arith.uitofp", (condition,), value_type)
