"""How a kernel op is cut for a CPU: lanes, row vectors, blocks and chunks of columns."""

from dataclasses import dataclass
from typing import Any

from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.dialects.reduction.summation import has_direct_sums
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import SELECTIONS, accumulations_in, state_registers
from pylazy.compiler.nests.body_values import LOADS, inner_dim
from pylazy.compiler.nests.contraction import all_products, unrolled_products
from pylazy.compiler.nests.soft_dtw import table_numbers
from pylazy.compiler.schedule.body_costs import (
    OP_CYCLES,
    PRODUCT_OPERATIONS,
    UNROLL_LIMIT,
    is_vector,
    loaded_dims,
    value_bits,
)
from pylazy.compiler.target import CpuTarget

#: Vectors of rows in lanes where exponentials are to overlap and registers are few; see `VectorMath.in_step`.
_VECTORS_OF_EXPONENTIALS = 8
#: What gains by it; other functions have shorter chains, or constants that fill the registers.
_OVERLAPPED = frozenset({"math.exp", "math.powf", "math.tanh"})
_OVERLAPPED_RESULTS = 4
#: Elements of a long inner dimension in one turn of its loop: with 16 registers half, of which LLVM spills fewer.
INNER_STEP = 8
#: With 16 registers, the most vectors of a state in registers: more would be spilled at every column.
_FEW_REGISTERS_LIMIT = 2
#: Columns in the first level of a two-level sum: the error of a sum grows with this, not with N.
COLUMN_CHUNK = 1024
#: Operations in all copies of the body of one block, beyond which compiling takes too long.
_BODY_OPERATIONS = 2000
#: Cycles of the functions in all copies of the body of one block; more make code longer and not faster.
_BLOCK_FUNCTION_CYCLES = 60.0
#: Columns go in lanes for every row anew only if they have no more elements than this: longer ones cost more to take
#: apart.
COLUMN_LANE_DIM = 8
#: Registers hold two vectors of rows, or of columns in lanes, of no more elements than this.
_SIDE_BY_SIDE_DIM = 4
#: Where columns are few, the rows of a tile have no more elements than this: they lie on the stack.
_FEW_COLUMNS_DIM = 256
#: The most rows that share the transposed columns of a chunk, where rows are few.
_SHARED_ROWS = 32
#: The rows that a tile of them usually has: a launch is cut as if all had as many.
_USUAL_ROWS = 8
#: The columns of such a chunk: they stay in the first cache, or at least, one vector of them, in the second.
_PANEL_BYTES = 16 * 1024
_MAX_PANEL_BYTES = 128 * 1024
#: Cycles of one cell of a soft-DTW: exponentials and a logarithm, each waiting for the one before.
_CELL_CYCLES = 100
#: Stack for the tables of recursions in a body, of the megabyte that a kernel may take.
_TABLE_BYTES = 700 * 1024
_SUMS = frozenset({"sum", "mean", "prod"})
_NOT_SHARED = frozenset({"reduction.load_pair", "reduction.store_pair", "reduction.soft_dtw_rows"})


@dataclass(frozen=True)
class CpuSchedule:
    """How a kernel op is cut for a CPU: see the attributes of the same names in `reduction-tile`."""

    lanes: int
    lane_axis: str
    shared_rows: int
    row_vectors: int
    column_step: int
    column_chunk: int
    unroll_limit: int
    inner_step: int
    register_limit: int
    cost: float


def cpu_schedule(operation: Any, target: CpuTarget, *, few_rows: bool, few_columns: bool) -> CpuSchedule:
    """Choose the tile sizes of a `map` or `map_reduce` for a CPU.

    Args:
        operation: the kernel op.
        target: the processor.
        few_rows: there are about as many rows as lanes, or fewer.
        few_columns: the same of columns.
    """
    body = operation.regions[0].blocks[0]
    registers = 32 if target.has_avx512 or target.level == "aarch64" else 16
    # With few registers, vectors of two: constants and columns are then loaded once for both.
    lanes = target.lanes(value_bits(body)) * (1 if registers == 32 else 2)
    lanes = _fewer_lanes(body, lanes)
    cycles = _cycles(body) / lanes
    block = _block_of_few_columns(body, registers) if few_columns else _block(body, registers)
    if target.has_few_registers and not few_rows and not few_columns and _overlaps_exponentials(operation):
        lanes, block = target.lanes(value_bits(body)) * _VECTORS_OF_EXPONENTIALS, (1, 2)
    row_vectors, column_step = _at_most(_most_copies(body), *block)
    lane_axis, shared_rows, column_chunk = "rows", 1, COLUMN_CHUNK
    if name_of(operation) == "reduction.map":
        row_vectors, column_step = 1, 1
    elif few_rows and _columns_are_shared(operation, registers, lanes):
        lane_axis, shared_rows = "columns", _SHARED_ROWS
        row_vectors, column_step = 1, min(4, column_step * row_vectors)
        column_chunk = _panel_columns(body, column_step * lanes)
    elif (
        (few_rows or _has_pairs_by_column(body))
        and _column_dim(body) <= COLUMN_LANE_DIM
        and not has_direct_sums(body)
        and not operation.operands  # the intervals of a table are short
    ):
        lane_axis, row_vectors, column_step = "columns", 1, min(4, column_step * row_vectors)
    elif few_columns:
        column_chunk = 0
    register_limit = _register_limit(registers)
    if registers < 32 and lane_axis == "rows" and not few_columns:
        register_limit = _FEW_REGISTERS_LIMIT
    # Two vectors as one of four or eight registers: LLVM then orders the code of all side by side.
    if registers < 32 and column_chunk == 0 and row_vectors == 2:
        lanes, row_vectors, register_limit = 2 * lanes, 1, register_limit // 2
    elif registers < 32 and lane_axis == "columns" and column_step == 2 and (wider := _narrow_function_sum(body)):
        lanes, column_step = wider * lanes, 1
    return CpuSchedule(
        lanes=lanes,
        lane_axis=lane_axis,
        shared_rows=shared_rows,
        row_vectors=row_vectors,
        column_step=column_step,
        column_chunk=column_chunk,
        unroll_limit=UNROLL_LIMIT,
        inner_step=INNER_STEP if registers == 32 else INNER_STEP // 2,
        register_limit=register_limit,
        cost=max(0.1, cycles * (_USUAL_ROWS / shared_rows if shared_rows > 1 else 1.0)),
    )


def _register_limit(registers: int) -> int:
    """Give the most vectors of a state that is kept in registers."""
    return registers // 2 + 4


def _columns_are_shared(operation: Any, registers: int, lanes: int) -> bool:
    """Tell whether few rows go over transposed columns together: their states are small, as is a vector of columns.

    Where an axis has one row, short columns need no transposition.
    """
    body = operation.regions[0].blocks[0]
    accumulations = accumulations_in(body)
    return (
        all(state_registers(op) <= _register_limit(registers) for op in accumulations)
        and not any(name_of(op) in _NOT_SHARED for op in body.operations)
        and not has_direct_sums(body)
        and lanes * _column_bytes(body) <= _MAX_PANEL_BYTES
        and (attribute(operation, "rows") != "" or _column_dim(body) > COLUMN_LANE_DIM)
        and not operation.operands  # the intervals of a table are short
    )


def _narrow_function_sum(body: Any) -> int:
    """Choose how much wider vectors become where a body sums one or two numbers, with functions, over short columns."""
    accumulations = accumulations_in(body)
    results = sum(inner_dim(op.operands[0]) for op in accumulations)
    is_narrow = (
        all(attribute(op, "kind") in _SUMS for op in accumulations)
        and 0 < results <= 2
        and _function_cycles(body) > 0
        and _column_dim(body) <= _SIDE_BY_SIDE_DIM
    )
    return 4 // results if is_narrow else 0


def _panel_columns(body: Any, block: int) -> int:
    """Choose the columns of a chunk that few rows share: a whole number of blocks."""
    blocks = min(COLUMN_CHUNK, _PANEL_BYTES // max(1, _column_bytes(body))) // block
    return max(1, blocks) * block


def _column_bytes(body: Any) -> int:
    """Count the bytes of one column in all buffers that the body loads columns from."""
    loads = [op for op in body.operations if name_of(op) == "reduction.load" and len(op.operands) > 1]
    buffers = {
        op.operands[0]: ir.MemRefType(op.operands[0].type) for op in loads if op.operands[1] == body.arguments[1]
    }
    return sum(buffer.shape[1] * max(1, buffer.element_type.width // 8) for buffer in buffers.values())


def _block(body: Any, registers: int) -> tuple[int, int]:
    """Choose row vectors and columns of a block: of the fastest, those that keep all in registers.

    Long inner dimensions share each load of a row element among eight columns. Narrow sums share each load of a column
    among three row vectors; between that and one row vector, whose columns are operands of AVX-512 instructions, there
    is nothing to gain. Other reductions look at a block of columns at once, the longer the better.
    """
    if any(name_of(op) == "reduction.soft_dtw_rows" for op in body.operations):
        return 1, 1
    accumulations = accumulations_in(body)
    kinds = {attribute(op, "kind") for op in accumulations}
    row_elements = sum(loaded_dims(body, 0))
    widest = _widest(body)
    results = sum(inner_dim(operand) for op in accumulations for operand in op.operands if is_vector(operand))
    if registers < 32:
        if widest > UNROLL_LIMIT and results <= 2 and not kinds & SELECTIONS:
            return 2, 2
        return (1, 2) if kinds <= _SUMS and results <= 2 else (1, 4)
    if widest > UNROLL_LIMIT:
        return (1, 8) if results <= 2 or not kinds <= _SUMS else (1, 4)
    words = value_bits(body) // 32
    if not kinds <= _SUMS:
        return (1, 8) if row_elements * words <= 8 else (1, 4)
    # Functions of float64 have more constants.
    if 3 * (row_elements + results + 2) <= registers - 8 - 2 * words:
        return 3, 1
    # Gradients keep the differences that enter their results.
    return (1, 2) if row_elements + 2 * results <= registers - 7 - 5 * words else (1, 1)


def _block_of_few_columns(body: Any, registers: int) -> tuple[int, int]:
    """Choose row vectors and columns of a block where columns are few: long blocks would stay empty.

    Two row vectors hide the time that each takes from its load to its store, if registers hold both, or none.
    """
    row_vectors, column_step = _block(body, registers)
    kinds = {attribute(op, "kind") for op in accumulations_in(body)}
    widest = _widest(body)
    if row_vectors > 1 or kinds & SELECTIONS or widest > _FEW_COLUMNS_DIM:
        return row_vectors, column_step
    if widest > UNROLL_LIMIT:
        return 2, 2
    if sum(loaded_dims(body, 0)) > _SIDE_BY_SIDE_DIM:
        return 1, 2
    return 2, (1 if kinds <= _SUMS else 2)


def _widest(body: Any) -> int:
    """Give the largest inner dimension of a value of the body."""
    return max((inner_dim(value) for op in body.operations for value in op.results if is_vector(value)), default=1)


def _overlaps_exponentials(operation: Any) -> bool:
    """Tell whether exponentials of many rows side by side are what takes the time: sums of short columns."""
    body = operation.regions[0].blocks[0]
    accumulations = accumulations_in(body)
    kinds = {attribute(op, "kind") for op in accumulations}
    results = sum(inner_dim(operand) for op in accumulations for operand in op.operands if is_vector(operand))
    return (
        any(name_of(op) in _OVERLAPPED for op in body.operations)
        and kinds <= _SUMS
        and _widest(body) <= UNROLL_LIMIT
        and results <= _OVERLAPPED_RESULTS
        and not any(name_of(op) in _NOT_SHARED for op in body.operations)
        and not operation.operands  # the intervals of a table are short
    )


def _most_copies(body: Any) -> int:
    """Choose the most copies of the body in one block: long functions overlap without others, and compile slowly."""
    cycles = _function_cycles(body)
    copies = _BODY_OPERATIONS // max(1, _operations(body))
    return min(copies, int(_BLOCK_FUNCTION_CYCLES // cycles)) if cycles else copies


def _function_cycles(body: Any) -> float:
    """Estimate the cycles that functions such as exp take, where they are not in loops of their own."""
    return sum(
        inner_dim(op.results[0]) * OP_CYCLES.get(name_of(op), 1.0)
        for op in body.operations
        if name_of(op).startswith("math.") and inner_dim(op.results[0]) <= UNROLL_LIMIT
    )


def _at_most(bodies: int, row_vectors: int, column_step: int) -> tuple[int, int]:
    """Make a block smaller until it holds no more copies of the body than `bodies`."""
    column_step = max(1, min(column_step, bodies // row_vectors))
    return (row_vectors if row_vectors * column_step <= bodies else 1), column_step


def _operations(body: Any) -> int:
    """Count what one copy of the body is unrolled to."""
    widths = [inner_dim(value) for op in body.operations for value in op.results if is_vector(value)]
    products = sum(unrolled_products(op) for op in body.operations if name_of(op) == "reduction.contract_rows")
    return sum(width if width <= UNROLL_LIMIT else INNER_STEP for width in widths) + PRODUCT_OPERATIONS * products


def _column_dim(body: Any) -> int:
    """Give the largest inner dimension of what the body loads for a column."""
    return max(loaded_dims(body, 1), default=1)


def _fewer_lanes(body: Any, lanes: int) -> int:
    """Halve the lanes until the tables of recursions fit the stack."""
    numbers = sum(table_numbers(op) for op in body.operations if name_of(op) == "reduction.soft_dtw_rows")
    while lanes > 1 and numbers * lanes * value_bits(body) // 8 > _TABLE_BYTES:
        lanes //= 2
    return lanes


def _has_pairs_by_column(body: Any) -> bool:
    """Tell whether the body reads or writes a dense array in which neighbours are columns."""
    pairs = [op for op in body.operations if name_of(op) in {"reduction.load_pair", "reduction.store_pair"}]
    return any(op.operands[len(op.operands) - 1] == body.arguments[1] for op in pairs)


def _cycles(body: Any) -> float:
    """Estimate the cycles of one vector of pairs."""
    cycles = 0.0
    for operation in body.operations:
        if name_of(operation) in {*LOADS, "arith.constant", "reduction.yield"}:
            continue
        width = max((inner_dim(value) for value in operation.operands if is_vector(value)), default=1)
        if name_of(operation) == "reduction.contract_rows":
            width = all_products(operation)
        if name_of(operation) == "reduction.soft_dtw_rows":
            width = _CELL_CYCLES * inner_dim(operation.operands[0]) * inner_dim(operation.operands[1])
        cycles += width * OP_CYCLES.get(name_of(operation), 1.0)
        if attribute(operation, "kind") in SELECTIONS:
            cycles += 4.0
        if attribute(operation, "kind") in {"logsumexp", "softmax"}:
            cycles += OP_CYCLES["math.exp"]
    return cycles
