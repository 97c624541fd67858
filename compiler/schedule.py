"""The cost model: lanes, tile sizes, unrolling. Numbers only; no rewriting.

Sources of the constants: `benchmarks/` and the port model of docs/design/cpu-schedule.md (AMD Zen 4, AVX-512).
"""

from dataclasses import dataclass
from typing import Any

from pylazy.compiler.body_elements import inner_dim
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.target import CpuTarget, NvidiaTarget, Target

#: Inner dimensions up to this are unrolled and kept in registers; longer ones become loops.
UNROLL_LIMIT = 16
#: Elements of a long inner dimension in one turn of its loop.
INNER_STEP = 8
#: Columns in the first level of a two-level sum: the error of a sum grows with this, not with N.
COLUMN_CHUNK = 1024

#: Columns go in lanes only if they have no more elements than this: taking longer ones apart costs more.
COLUMN_LANE_DIM = 8

#: Cycles of one op on one vector, where it is not 1: long functions are weighed so that launches are cut sensibly.
_OP_CYCLES = {
    "math.exp": 9.0, "math.log": 12.0, "math.powf": 40.0, "math.sin": 15.0, "math.cos": 15.0, "math.tanh": 20.0,
    "math.sqrt": 10.0, "math.rsqrt": 5.0, "arith.divf": 7.0,
}  # fmt: skip
_SELECTIONS = frozenset({"kmin", "kmax"})
_SUMS = frozenset({"sum", "mean", "prod"})


@dataclass(frozen=True)
class CpuSchedule:
    """How a kernel op is cut for a CPU: see the attributes of the same names in `reduction-tile`."""

    lanes: int
    lane_axis: str
    row_vectors: int
    column_step: int
    column_chunk: int
    unroll_limit: int
    inner_step: int
    register_limit: int
    cost: float


def cpu_schedule(operation: Any, target: CpuTarget, *, few_rows: bool) -> CpuSchedule:
    """Choose the tile sizes of a `map` or `map_reduce` for a CPU; `few_rows`: fewer rows than lanes."""
    body = operation.regions[0].blocks[0]
    registers = 32 if target.has_avx512 or target.level == "aarch64" else 16
    # With few registers, vectors of two: constants and columns are then loaded once for both.
    lanes = target.lanes(_value_bits(body)) * (1 if registers == 32 else 2)
    row_vectors, column_step = _block(body, registers)
    lane_axis = "rows"
    if name_of(operation) == "reduction.map":
        row_vectors, column_step = 1, 1
    elif few_rows and _column_dim(body) <= COLUMN_LANE_DIM:
        lane_axis, row_vectors, column_step = "columns", 1, min(4, column_step * row_vectors)
    return CpuSchedule(
        lanes=lanes,
        lane_axis=lane_axis,
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
    if registers < 32:
        if kinds & _SELECTIONS or results > 2 and widest > 12:
            return 1, 4
        return (1, 2) if kinds <= _SUMS and widest <= 12 else (1, 6)
    if not kinds <= _SUMS:
        return 1, 8
    if widest > 12:
        return (1, 8) if results <= 2 else (1, 4)
    per_row = row_elements + results + 2
    row_vectors = max(1, min(3, (registers - 10) // per_row))
    return row_vectors, 1 if row_vectors > 2 else 2


def _column_dim(body: Any) -> int:
    """Give the largest inner dimension of what the body loads for a column."""
    loads = [op for op in body.operations if name_of(op) == "reduction.load" and len(op.operands) > 1]
    return max((inner_dim(op.results[0]) for op in loads if op.operands[1] == body.arguments[1]), default=1)


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


#: Threads of a GPU block: four warps, so that several blocks fill a multiprocessor and overlap their barriers.
_BLOCK_THREADS = 128
#: Blocks that fit on a multiprocessor: with 65536 registers, 128 for each thread.
_BLOCKS_PER_PROCESSOR = 4
#: Workgroup memory of a block; four blocks share the 64 KiB (Turing) to 228 KiB (Hopper) of a multiprocessor.
_TILE_BYTES = 12 * 1024
_TILE_COLUMNS = 128
#: Registers, of 32 bits, that the rows of a thread and the columns of a block may take.
_ROW_REGISTERS = 56
_COLUMN_REGISTERS = 40
#: Workgroup memory for long rows: those of 128 threads with 64 elements of float32.
_ROW_PANEL_BYTES = 33 * 1024
#: Registers of the elements of a long result that one sweep over the columns computes.
_RESULT_REGISTERS = 16
#: What one turn of a loop over a long inner dimension reads of a column: one load from workgroup memory.
_INNER_BYTES = 16
_NO_INSTRUCTION = frozenset(
    {"reduction.load", "arith.constant", "reduction.yield", "reduction.concat_rows", "vector.broadcast"}
    | {"vector.extract_strided_slice"}
)
#: Instructions of straight code for one block of rows times columns.
_BLOCK_INSTRUCTIONS = 704.0


@dataclass(frozen=True)
class NvidiaSchedule:
    """How a kernel op is cut for an NVIDIA GPU: see `reduction-map-to-gpu`."""

    block_threads: int
    blocks_per_processor: int
    rows_per_thread: int
    column_step: int
    tile_columns: int
    unroll_limit: int
    inner_step: int
    result_chunk: int
    row_panel_bytes: int


def nvidia_schedule(operation: Any, target: NvidiaTarget) -> NvidiaSchedule:
    """Choose the tile sizes of a `map` or `map_reduce` for an NVIDIA GPU."""
    del target  # the numbers fit the smallest of the architectures
    body = operation.regions[0].blocks[0]
    words = _value_bits(body) // 32
    rows_per_thread, column_step = 1, 1
    if name_of(operation) == "reduction.map_reduce":
        rows_per_thread, column_step = _thread_block(body, words)
        if attribute(operation, "rows") == "":
            rows_per_thread = 1
    return NvidiaSchedule(
        block_threads=_BLOCK_THREADS,
        blocks_per_processor=_BLOCKS_PER_PROCESSOR,
        rows_per_thread=rows_per_thread,
        column_step=column_step,
        tile_columns=_tile_columns(body),
        unroll_limit=UNROLL_LIMIT,
        inner_step=_INNER_BYTES // 4 // words,
        result_chunk=_RESULT_REGISTERS // words,
        row_panel_bytes=_ROW_PANEL_BYTES,
    )


def _thread_block(body: Any, words: int) -> tuple[int, int]:
    """Choose the rows of a thread and the columns that it takes at once: as many pairs as its registers allow.

    Rows share the loads of a column, columns share loop and address arithmetic (and, where inner dimensions are long,
    the loads of row elements from memory).
    """
    accumulations = [op for op in body.operations if name_of(op) == "reduction.accumulate"]
    kinds = {attribute(op, "kind") for op in accumulations}
    widths = [inner_dim(operand) for op in accumulations for operand in op.operands if _is_vector(operand)]
    chunk = _RESULT_REGISTERS // words
    results = sum(min(width, chunk) for width in widths)
    row_dims, column_dims = _loaded_dims(body, 0), _loaded_dims(body, 1)
    widest = max(row_dims + column_dims + [1])
    # Two-level sums keep two states; a long row takes the two registers of its address.
    per_row = words * (sum(dim for dim in row_dims if dim <= UNROLL_LIMIT) + 2 * results + 3)
    per_row += 2 * sum(dim > UNROLL_LIMIT for dim in row_dims)
    per_column = words * (sum(dim for dim in column_dims if dim <= UNROLL_LIMIT) + 1)
    if kinds & _SELECTIONS:
        rows, columns = 1, 4
    elif max(widths) > chunk:
        rows, columns = 4, 4 // words
    elif widest > UNROLL_LIMIT:
        rows, columns = (2, 8) if words == 1 else (1, 8)
    elif kinds <= {"sum", "mean", "prod"}:
        rows, columns = 4, 8
    elif kinds <= {"logsumexp", "softmax"}:
        rows, columns = (2, 8) if words == 1 else (1, 4)
    else:
        rows, columns = 2, 4
    instructions = _gpu_instructions(body, words)
    long_bytes = 4 * words * sum(dim for dim in row_dims if dim > UNROLL_LIMIT)
    if long_bytes * _BLOCK_THREADS < _ROW_PANEL_BYTES:
        while rows > 1 and long_bytes * (rows * _BLOCK_THREADS + 1) > _ROW_PANEL_BYTES:
            rows //= 2
    while rows > 1 and (rows * per_row > _ROW_REGISTERS or rows * instructions > _BLOCK_INSTRUCTIONS):
        rows //= 2
    while columns > 1 and (
        columns * per_column > _COLUMN_REGISTERS or columns * rows * instructions > _BLOCK_INSTRUCTIONS
    ):
        columns //= 2
    return rows, columns


def _loaded_dims(body: Any, argument: int) -> list[int]:
    """Give the inner dimensions of what the body loads by row (argument 0) or by column (1)."""
    return [
        inner_dim(op.results[0])
        for op in body.operations
        if name_of(op) == "reduction.load"
        and len(op.operands) > 1
        and list(body.arguments).index(op.operands[1]) == argument
    ]


def _gpu_instructions(body: Any, words: int) -> float:
    """Estimate the instructions of one pair; functions of float64 are polynomials, a long inner dimension is a loop."""
    total = 0.0
    for operation in body.operations:
        if name_of(operation) in _NO_INSTRUCTION:
            continue
        width = max((inner_dim(value) for value in operation.operands if _is_vector(value)), default=1)
        cost = _OP_CYCLES.get(name_of(operation), 20.0 if name_of(operation).startswith("math.") else 1.0)
        if words > 1 and cost > 1.0:
            cost *= 4.0
        total += (width if width <= UNROLL_LIMIT else _INNER_BYTES // 4 // words) * cost
    return total


def _tile_columns(body: Any) -> int:
    """Choose the columns of a tile: a power of two, as many as fit."""
    column_bytes = sum(_loaded_dims(body, 1)) * _value_bits(body) // 8
    columns = _TILE_COLUMNS
    while columns > 8 and columns * column_bytes > _TILE_BYTES:
        columns //= 2
    return columns


def is_cpu(target: Target) -> bool:
    """Tell whether a target is a CPU."""
    return isinstance(target, CpuTarget)
