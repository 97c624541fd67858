"""The cost model: lanes, tile sizes, unrolling. Numbers only; no rewriting.

Sources of the constants: `benchmarks/` and the port model of docs/design/cpu-schedule.md (AMD Zen 4, AVX-512).
"""

from dataclasses import dataclass
from typing import Any

from pylazy.compiler.body_elements import inner_dim
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.target import CpuTarget, Target

#: Inner dimensions up to this are unrolled and kept in registers; longer ones become loops.
UNROLL_LIMIT = 16
#: Elements of a long inner dimension in one turn of its loop.
INNER_STEP = 8
#: Columns in the first level of a two-level sum: the error of a sum grows with this, not with N.
COLUMN_CHUNK = 1024

#: Cycles of one op on one vector, where it is not 1: long functions are weighed so that launches are cut sensibly.
_OP_CYCLES = {
    "math.exp": 9.0, "math.log": 12.0, "math.powf": 40.0, "math.sin": 15.0, "math.cos": 15.0, "math.tanh": 20.0,
    "math.sqrt": 10.0, "math.rsqrt": 5.0, "arith.divf": 7.0,
}  # fmt: skip
_SELECTIONS = frozenset({"kmin", "kmax"})


@dataclass(frozen=True)
class CpuSchedule:
    """How a kernel op is cut for a CPU: see the attributes of the same names in `reduction-tile`."""

    lanes: int
    row_vectors: int
    column_step: int
    column_chunk: int
    unroll_limit: int
    inner_step: int
    register_limit: int
    cost: float


def cpu_schedule(operation: Any, target: CpuTarget) -> CpuSchedule:
    """Choose the tile sizes of a `map` or `map_reduce` for a CPU."""
    body = operation.regions[0].blocks[0]
    lanes = target.lanes(_value_bits(body))
    registers = 32 if target.has_avx512 or target.level == "aarch64" else 16
    row_vectors, column_step = _block(body, registers)
    if name_of(operation) == "reduction.map":
        row_vectors, column_step = 1, 1
    return CpuSchedule(
        lanes=lanes,
        row_vectors=row_vectors,
        column_step=column_step,
        column_chunk=COLUMN_CHUNK,
        unroll_limit=UNROLL_LIMIT,
        inner_step=INNER_STEP,
        register_limit=registers // 2 + 4,
        cost=max(0.1, _cycles(body) / lanes),
    )


def _block(body: Any, registers: int) -> tuple[int, int]:
    """Choose row vectors and columns of a block.

    Wide formulas share each load of a row element among eight columns; narrow sums share each load of a column among
    up to three row vectors, if all row elements and results stay in registers.
    """
    accumulations = [op for op in body.operations if name_of(op) == "reduction.accumulate"]
    kinds = {attribute(op, "kind") for op in accumulations}
    row_elements = sum(
        inner_dim(op.results[0])
        for op in body.operations
        if name_of(op) == "reduction.load" and len(op.operands) > 1 and op.operands[1] == body.arguments[0]
    )
    widest = max((inner_dim(value) for op in body.operations for value in op.results if _is_vector(value)), default=1)
    results = sum(inner_dim(operand) for op in accumulations for operand in op.operands if _is_vector(operand))
    if not kinds <= {"sum", "mean", "prod"}:
        return 1, 8
    if widest > 12:
        return (1, 8) if results <= 2 else (1, 4)
    free = registers - 10
    per_row = row_elements + results + 2
    row_vectors = max(1, min(3, free // per_row))
    return row_vectors, 1 if row_vectors > 2 else 2


def _is_vector(value: ir.Value) -> bool:
    return isinstance(value.type, ir.VectorType)


def _value_bits(body: Any) -> int:
    for operation in body.operations:
        if name_of(operation) in {"reduction.accumulate", "reduction.store"}:
            return int(ir.VectorType(operation.operands[0].type).element_type.width)
    return 32


def _cycles(body: Any) -> float:
    """Estimate the cycles of one vector of pairs."""
    cycles = 0.0
    for operation in body.operations:
        if name_of(operation) in {"reduction.load", "arith.constant", "reduction.yield"}:
            continue
        width = max((inner_dim(value) for value in operation.operands if _is_vector(value)), default=1)
        cycles += width * _OP_CYCLES.get(name_of(operation), 1.0)
        if attribute(operation, "kind") in _SELECTIONS:
            cycles += 4.0
        if attribute(operation, "kind") in {"logsumexp", "softmax"}:
            cycles += _OP_CYCLES["math.exp"]
    return cycles


def is_cpu(target: Target) -> bool:
    """Tell whether a target is a CPU."""
    return isinstance(target, CpuTarget)
