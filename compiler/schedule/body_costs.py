"""What both schedules ask of the body of a kernel op: what it loads, how wide it is, and what its ops cost."""

from typing import Any

from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_values import inner_dim

#: Inner dimensions up to this are unrolled and kept in registers; longer ones become loops.
UNROLL_LIMIT = 16
#: Operations of one product of a contraction: two loads, a multiplication and an addition.
PRODUCT_OPERATIONS = 4
#: Cycles of one op on one vector, where it is not 1: long functions are weighed so that launches are cut sensibly.
OP_CYCLES = {
    "math.exp": 9.0, "math.exp2": 9.0, "math.expm1": 15.0, "math.log": 12.0, "math.log2": 12.0, "math.log1p": 15.0,
    "math.powf": 40.0, "math.cbrt": 20.0, "math.sin": 15.0, "math.cos": 15.0, "math.tan": 30.0, "math.asin": 20.0,
    "math.acos": 20.0, "math.atan": 20.0, "math.atan2": 30.0, "math.sinh": 25.0, "math.cosh": 25.0, "math.tanh": 20.0,
    "math.erf": 30.0, "math.erfc": 30.0, "math.sqrt": 10.0, "math.rsqrt": 5.0, "arith.divf": 7.0,
}  # fmt: skip


def is_vector(value: ir.Value) -> bool:
    """Tell whether a value is a number or a vector of a pair, and no buffer or index."""
    return isinstance(value.type, ir.VectorType)


def value_bits(body: Any) -> int:
    """Give the width of the numbers that the body ends in."""
    for operation in body.operations:
        if name_of(operation) in {"reduction.accumulate", "reduction.store", "reduction.store_pair"}:
            return int(ir.VectorType(operation.operands[0].type).element_type.width)
    return 32


def loaded_dims(body: Any, argument: int) -> list[int]:
    """Give the inner dimensions of what the body loads by row (argument 0) or by column (1)."""
    return [
        inner_dim(op.results[0])
        for op in body.operations
        if name_of(op) == "reduction.load"
        and len(op.operands) > 1
        and list(body.arguments).index(op.operands[1]) == argument
    ]
