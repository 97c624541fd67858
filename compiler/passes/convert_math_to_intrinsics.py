"""Turn the operations on numbers that a GPU has into calls of LLVM's intrinsics."""

from collections.abc import Mapping

from pylazy.compiler.mlir import ir
from pylazy.compiler.target import NvidiaTarget, Target

_INTRINSICS: Mapping[str, str] = {
    "math.sqrt": "sqrt",
    "math.absf": "fabs",
    "math.copysign": "copysign",
    "math.floor": "floor",
    "math.ceil": "ceil",
    "math.trunc": "trunc",
    "math.roundeven": "roundeven",
    "math.fma": "fma",
    "arith.minnumf": "minnum",
    "arith.maxnumf": "maxnum",
}


def convert_math_to_intrinsics(module: ir.Module, *, target: Target) -> None:
    """Replace scalar `math` operations, and minima that leave NaN out, by `llvm.call_intrinsic`.

    Runs after lower-math, which leaves operations that are instructions of the target, and before convert-gpu-to-nvvm,
    which would turn these into calls of NVIDIA's library, and refuses the `llvm.intr` operations that
    convert-math-to-llvm makes of them. Operations on vectors are left alone.
    """
    if not isinstance(target, NvidiaTarget):
        return
    found: list[ir.Operation] = []

    def look(op: ir.Operation) -> ir.WalkResult:
        if op.name in _INTRINSICS and isinstance(op.result.type, ir.F32Type | ir.F64Type):
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(look)
    for op in found:
        bits = op.result.type.width
        name = f"llvm.{_INTRINSICS[op.name]}.f{bits}"
        with op.location, ir.InsertionPoint(op):
            call = ir.Operation.create(
                "llvm.call_intrinsic",
                results=[op.result.type],
                operands=list(op.operands),
                attributes={
                    "intrin": ir.StringAttr.get(name),
                    "operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(op.operands), 0]),
                    "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
                },
            )
        op.result.replace_all_uses_with(call.result)
        op.erase()
