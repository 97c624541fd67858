"""Keep loops as loops in the code that follows."""

from typing import Any

from pylazy.compiler.mlir import ir
from pylazy.compiler.target import Target


def nvvm_keep_loops(module: ir.Module, *, target: Target) -> None:
    """Mark every backward branch so that neither LLVM nor NVIDIA's assembler unrolls its loop.

    Runs last, on the llvm dialect, where a branch can carry the mark. The schedule has unrolled what pays and has
    counted the registers for it; unrolled again, a loop over a long inner dimension spills. A branch is backward if it
    goes to its own or an earlier block, which is how convert-scf-to-cf lays loops out.
    """
    del target  # the schedule has spoken for all of them

    def look(op: ir.Operation) -> ir.WalkResult:
        if op.name == "llvm.func" and op.regions[0].blocks:
            _mark(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(look)


def _mark(function: Any) -> None:
    keep = ir.Attribute.parse("#llvm.loop_annotation<unroll = <disable = true>>")
    seen: list[ir.Block] = []
    for block in function.regions[0].blocks:
        seen.append(block)
        terminator = block.operations[len(block.operations) - 1].operation
        if terminator.name in {"llvm.br", "llvm.cond_br"} and any(target in seen for target in terminator.successors):
            terminator.attributes["loop_annotation"] = keep
