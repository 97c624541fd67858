"""The cost model: lanes, tile sizes, unrolling. Numbers only; no rewriting.

Sources of the constants: `benchmarks/` and the port model of docs/design/cpu-schedule.md (AMD Zen 4, AVX-512).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.dialects.reduction.summation import has_direct_sums, summation_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_elements import LOADS, inner_dim
from pylazy.compiler.nests.contraction import all_products, unrolled_products
from pylazy.compiler.nests.cpu_accumulators import accumulator_type, state_registers
from pylazy.compiler.nests.gpu_memory import VECTOR_BYTES, WORKGROUP_BYTES
from pylazy.compiler.nests.soft_dtw import table_numbers
from pylazy.compiler.target import CpuTarget, NvidiaTarget

#: Inner dimensions up to this are unrolled and kept in registers; longer ones become loops.
UNROLL_LIMIT = 16
#: Elements of a long inner dimension in one turn of its loop.
INNER_STEP = 8
#: Columns in the first level of a two-level sum: the error of a sum grows with this, not with N.
COLUMN_CHUNK = 1024

#: Operations in all copies of the body of one block, beyond which compiling takes too long.
_BODY_OPERATIONS = 2000
#: Cycles of the functions in all copies of the body of one block; more make code longer and not faster.
_BLOCK_FUNCTION_CYCLES = 60.0
#: Operations of one product of a contraction: two loads, a multiplication and an addition.
_PRODUCT_OPERATIONS = 4
#: Columns go in lanes for every row anew only if they have no more elements than this: longer ones cost more to take
#: apart.
COLUMN_LANE_DIM = 8
#: Where columns are few, registers hold two vectors of rows of no more elements than this.
_TWO_ROWS_DIM = 4
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

#: Cycles of one op on one vector, where it is not 1: long functions are weighed so that launches are cut sensibly.
_OP_CYCLES = {
    "math.exp": 9.0, "math.exp2": 9.0, "math.expm1": 15.0, "math.log": 12.0, "math.log2": 12.0, "math.log1p": 15.0,
    "math.powf": 40.0, "math.cbrt": 20.0, "math.sin": 15.0, "math.cos": 15.0, "math.tan": 30.0, "math.asin": 20.0,
    "math.acos": 20.0, "math.atan": 20.0, "math.atan2": 30.0, "math.sinh": 25.0, "math.cosh": 25.0, "math.tanh": 20.0,
    "math.erf": 30.0, "math.erfc": 30.0, "math.sqrt": 10.0, "math.rsqrt": 5.0, "arith.divf": 7.0,
}  # fmt: skip
_SELECTIONS = frozenset({"kmin", "kmax"})
_SUMS = frozenset({"sum", "mean", "prod"})


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
    lanes = target.lanes(_value_bits(body)) * (1 if registers == 32 else 2)
    lanes = _fewer_lanes(body, lanes)
    block = _block_of_few_columns(body, registers) if few_columns else _block(body, registers)
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
    return CpuSchedule(
        lanes=lanes,
        lane_axis=lane_axis,
        shared_rows=shared_rows,
        row_vectors=row_vectors,
        column_step=column_step,
        column_chunk=column_chunk,
        unroll_limit=UNROLL_LIMIT,
        inner_step=INNER_STEP,
        register_limit=_register_limit(registers),
        cost=max(0.1, _cycles(body) / lanes * (_USUAL_ROWS / shared_rows if shared_rows > 1 else 1.0)),
    )


def _register_limit(registers: int) -> int:
    """Give the most vectors of a state that is kept in registers."""
    return registers // 2 + 4


def _columns_are_shared(operation: Any, registers: int, lanes: int) -> bool:
    """Tell whether few rows go over transposed columns together: their states are small, as is a vector of columns.

    Where an axis has one row, short columns need no transposition.
    """
    body = operation.regions[0].blocks[0]
    accumulations = [op for op in body.operations if name_of(op) == "reduction.accumulate"]
    return (
        all(state_registers(op) <= _register_limit(registers) for op in accumulations)
        and not any(name_of(op) in _NOT_SHARED for op in body.operations)
        and not has_direct_sums(body)
        and lanes * _column_bytes(body) <= _MAX_PANEL_BYTES
        and (attribute(operation, "rows") != "" or _column_dim(body) > COLUMN_LANE_DIM)
        and not operation.operands  # the intervals of a table are short
    )


_NOT_SHARED = frozenset({"reduction.load_pair", "reduction.store_pair", "reduction.soft_dtw_rows"})


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
        if kinds & _SELECTIONS or (results > 2 and widest > 12):
            return 1, 4
        return (1, 2) if kinds <= _SUMS and widest <= 12 else (1, 6)
    if widest > UNROLL_LIMIT:
        return (1, 8) if results <= 2 or not kinds <= _SUMS else (1, 4)
    words = _value_bits(body) // 32
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
    kinds = {attribute(op, "kind") for op in body.operations if name_of(op) == "reduction.accumulate"}
    widest = max((inner_dim(value) for op in body.operations for value in op.results if _is_vector(value)), default=1)
    if row_vectors > 1 or kinds & _SELECTIONS or widest > _FEW_COLUMNS_DIM:
        return row_vectors, column_step
    if widest > UNROLL_LIMIT:
        return 2, 2
    if sum(_loaded_dims(body, 0)) > _TWO_ROWS_DIM:
        return 1, 2
    return 2, (1 if kinds <= _SUMS else 2)


def _most_copies(body: Any) -> int:
    """Choose the most copies of the body in one block: long functions overlap without others, and compile slowly."""
    cycles = sum(
        inner_dim(op.results[0]) * _OP_CYCLES.get(name_of(op), 1.0)
        for op in body.operations
        if name_of(op).startswith("math.") and inner_dim(op.results[0]) <= UNROLL_LIMIT
    )
    copies = _BODY_OPERATIONS // max(1, _operations(body))
    return min(copies, int(_BLOCK_FUNCTION_CYCLES // cycles)) if cycles else copies


def _at_most(bodies: int, row_vectors: int, column_step: int) -> tuple[int, int]:
    """Make a block smaller until it holds no more copies of the body than `bodies`."""
    column_step = max(1, min(column_step, bodies // row_vectors))
    return (row_vectors if row_vectors * column_step <= bodies else 1), column_step


def _operations(body: Any) -> int:
    """Count what one copy of the body is unrolled to."""
    widths = [inner_dim(value) for op in body.operations for value in op.results if _is_vector(value)]
    products = sum(unrolled_products(op) for op in body.operations if name_of(op) == "reduction.contract_rows")
    return sum(width if width <= UNROLL_LIMIT else INNER_STEP for width in widths) + _PRODUCT_OPERATIONS * products


def _column_dim(body: Any) -> int:
    """Give the largest inner dimension of what the body loads for a column."""
    loads = [op for op in body.operations if name_of(op) == "reduction.load" and len(op.operands) > 1]
    return max((inner_dim(op.results[0]) for op in loads if op.operands[1] == body.arguments[1]), default=1)


def _fewer_lanes(body: Any, lanes: int) -> int:
    """Halve the lanes until the tables of recursions fit the stack."""
    numbers = sum(table_numbers(op) for op in body.operations if name_of(op) == "reduction.soft_dtw_rows")
    while lanes > 1 and numbers * lanes * _value_bits(body) // 8 > _TABLE_BYTES:
        lanes //= 2
    return lanes


def _has_pairs_by_column(body: Any) -> bool:
    """Tell whether the body reads or writes a dense array in which neighbours are columns."""
    pairs = [op for op in body.operations if name_of(op) in {"reduction.load_pair", "reduction.store_pair"}]
    return any(op.operands[len(op.operands) - 1] == body.arguments[1] for op in pairs)


def _is_vector(value: ir.Value) -> bool:
    return isinstance(value.type, ir.VectorType)


def _value_bits(body: Any) -> int:
    for operation in body.operations:
        if name_of(operation) in {"reduction.accumulate", "reduction.store", "reduction.store_pair"}:
            return int(ir.VectorType(operation.operands[0].type).element_type.width)
    return 32


def _cycles(body: Any) -> float:
    """Estimate the cycles of one vector of pairs."""
    cycles = 0.0
    for operation in body.operations:
        if name_of(operation) in {*LOADS, "arith.constant", "reduction.yield"}:
            continue
        width = max((inner_dim(value) for value in operation.operands if _is_vector(value)), default=1)
        if name_of(operation) == "reduction.contract_rows":
            width = all_products(operation)
        if name_of(operation) == "reduction.soft_dtw_rows":
            width = _CELL_CYCLES * inner_dim(operation.operands[0]) * inner_dim(operation.operands[1])
        cycles += width * _OP_CYCLES.get(name_of(operation), 1.0)
        if attribute(operation, "kind") in _SELECTIONS:
            cycles += 4.0
        if attribute(operation, "kind") in {"logsumexp", "softmax"}:
            cycles += _OP_CYCLES["math.exp"]
    return cycles


#: Threads of a GPU block: four warps, so that several blocks fill a multiprocessor and overlap their barriers.
_BLOCK_THREADS = 128
#: Threads of a block whose lists are of rows in workgroup memory.
_LONG_ROW_THREADS = 64
#: Groups of threads that share long rows in workgroup memory and take columns in turn: a warp each.
_COLUMN_GROUPS = 4
#: Threads of a block, and rows of a thread, that go over the pairs of a table: a block has a tile of it, whose rows are
#: often few, and more than there are would be computed for nothing.
_RANGED_THREADS = 64
_RANGED_ROWS = 2
#: Loads of 16 bytes from each of them in one turn of a loop.
_LONG_INNER_LOADS = 4
#: Blocks that fit on a multiprocessor: with 65536 registers, 128 for each thread.
_BLOCKS_PER_PROCESSOR = 4
#: Workgroup memory of a block; four blocks share the 64 KiB (Turing) to 228 KiB (Hopper) of a multiprocessor.
_TILE_BYTES = 12 * 1024
_TILE_COLUMNS = 128
#: Registers, of 32 bits, that the rows of a thread and the columns of a block may take.
_ROW_REGISTERS = 56
_COLUMN_REGISTERS = 40
#: Registers for what all pairs of a block of rows and columns load and store.
_PAIR_REGISTERS = 32
#: Workgroup memory for long rows: those of 128 threads with 64 elements of float32.
_ROW_PANEL_BYTES = 33 * 1024
#: Registers of the elements of a long result that one sweep over the columns computes.
_RESULT_REGISTERS = 32
#: Registers of the sums of a long result that a thread keeps where lanes share their rows, and the fewest worth it.
_SHARED_REGISTERS = 64
_FEWEST_SHARED_REGISTERS = 32
#: What one turn of a loop over a long inner dimension reads of a column: one load from workgroup memory.
_INNER_BYTES = 16
#: Registers of the values of a list of a kmin or kmax, of which a thread can keep two.
_LISTED_REGISTERS = 10
_WARP_THREADS = 32
#: Workgroup memory for the tables of recursions, which have a number for each thread; the rest is for columns.
_TABLES_BYTES = 40 * 1024
_NO_INSTRUCTION = frozenset(
    {*LOADS, "arith.constant", "reduction.yield", "reduction.concat_rows", "vector.broadcast"}
    | {"vector.extract_strided_slice"}
)
#: Instructions of straight code for one block of rows times columns.
_BLOCK_INSTRUCTIONS = 704.0


@dataclass(frozen=True)
class NvidiaSchedule:
    """How a kernel op is cut for an NVIDIA GPU: see `reduction-map-to-gpu`."""

    block_threads: int
    column_groups: int
    blocks_per_processor: int
    rows_per_thread: int
    column_step: int
    tile_columns: int
    unroll_limit: int
    inner_step: int
    result_chunk: int
    shared_chunk: int
    row_panel_bytes: int


def nvidia_schedule(operation: Any, target: NvidiaTarget) -> NvidiaSchedule:
    """Choose the tile sizes of a `map` or `map_reduce` for an NVIDIA GPU."""
    del target  # the numbers fit the smallest of the architectures
    body = operation.regions[0].blocks[0]
    words = _value_bits(body) // 32
    threads, rows_per_thread, column_step = _BLOCK_THREADS, 1, 1
    groups, shared_chunk = 1, 0
    table_bytes = 4 * words * sum(table_numbers(op) for op in _recursions(body))
    if table_bytes:
        while threads > _WARP_THREADS and threads * table_bytes > _TABLES_BYTES:
            threads //= 2
    elif name_of(operation) == "reduction.map_reduce":
        if not len(operation.operands):  # the intervals of a table are short, and apart for each block of rows
            threads, groups = _threads(body, words)
            shared_chunk = _shared_chunk(body, words)
        rows_per_thread, column_step = _thread_block(body, words, threads // groups)
        if attribute(operation, "rows") == "":
            rows_per_thread = 1
        if len(operation.operands):
            threads, rows_per_thread = _RANGED_THREADS, min(rows_per_thread, _RANGED_ROWS)
    return NvidiaSchedule(
        block_threads=threads,
        column_groups=groups,
        blocks_per_processor=_BLOCKS_PER_PROCESSOR * _BLOCK_THREADS // threads,
        rows_per_thread=rows_per_thread,
        column_step=column_step,
        tile_columns=_tile_columns(body, WORKGROUP_BYTES - threads * table_bytes),
        unroll_limit=UNROLL_LIMIT,
        inner_step=_gpu_inner_step(body, words, threads // groups),
        result_chunk=_result_chunk(body),
        shared_chunk=shared_chunk,
        row_panel_bytes=0 if table_bytes else _ROW_PANEL_BYTES,
    )


def _recursions(body: Any) -> list[Any]:
    return [op for op in body.operations if name_of(op) == "reduction.soft_dtw_rows"]


def _long_row_bytes(body: Any, words: int) -> int:
    return 4 * words * sum(dim for dim in _loaded_dims(body, 0) if dim > UNROLL_LIMIT)


def _threads(body: Any, words: int) -> tuple[int, int]:
    """Choose the threads of a block, and the groups of them that take columns of the same rows in turn.

    Where rows are long, and those of a block fit in workgroup memory, a thread that holds several of them reads less of
    the columns; so fewer threads hold them. Lists stay with one thread.
    """
    accumulations = [op for op in body.operations if name_of(op) == "reduction.accumulate"]
    fits = 0 < _long_row_bytes(body, words) * (2 * _LONG_ROW_THREADS + 1) <= _ROW_PANEL_BYTES
    if not fits or sum(_widths(accumulations)) != 1 or has_direct_sums(body):
        return _BLOCK_THREADS, 1
    if {attribute(op, "kind") for op in accumulations} & _SELECTIONS:
        return _LONG_ROW_THREADS, 1
    return _BLOCK_THREADS, _COLUMN_GROUPS


def _gpu_inner_step(body: Any, words: int, threads: int) -> int:
    """Choose the elements of a turn of a loop over a long inner dimension; `threads` hold the rows of a block."""
    step = _INNER_BYTES // 4 // words
    if threads == _BLOCK_THREADS:
        return step
    # What a loop leaves over is straight code, whose loads take all registers.
    dims = [dim for dim in _loaded_dims(body, 0) if dim > UNROLL_LIMIT]
    steps = range(_LONG_INNER_LOADS * step, step, -step)
    return next((wide for wide in steps if all(dim >= 2 * wide and dim % wide < step for dim in dims)), step)


def _widths(accumulations: Sequence[Any]) -> list[int]:
    """Give the inner dimensions of what is accumulated."""
    return [inner_dim(operand) for op in accumulations for operand in op.operands if _is_vector(operand)]


def _shared_chunk(body: Any, words: int) -> int:
    """Choose the elements of a long sum that lanes share; 0 where all sums are short."""
    sums = [
        inner_dim(op.operands[0])
        for op in body.operations
        if name_of(op) == "reduction.accumulate" and attribute(op, "kind") == "sum" and not summation_of(op)
    ]
    return _SHARED_REGISTERS // words if max(sums, default=0) * words >= _FEWEST_SHARED_REGISTERS else 0


def _state_words(body: Any) -> int:
    """Give the registers that one number of a state takes."""
    accumulations = [op for op in body.operations if name_of(op) == "reduction.accumulate"]
    return max((int(accumulator_type(op).width) // 32 for op in accumulations), default=1)


def _result_chunk(body: Any) -> int:
    """Choose the elements of a long result for one sweep: fewer where rows take registers for their addresses."""
    return _RESULT_REGISTERS // _state_words(body) // (2 if _long_row_bytes(body, _value_bits(body) // 32) else 1)


def _thread_block(body: Any, words: int, threads: int) -> tuple[int, int]:
    """Choose the rows of a thread and the columns that it takes at once: as many pairs as its registers allow.

    `threads` hold the rows of a block.

    Rows share the loads of a column, columns share loop and address arithmetic (and, where inner dimensions are long,
    the loads of row elements from memory).
    """
    accumulations = [op for op in body.operations if name_of(op) == "reduction.accumulate"]
    kinds = {attribute(op, "kind") for op in accumulations}
    widths = _widths(accumulations)
    chunk = _result_chunk(body)
    state_words = _state_words(body)
    results = sum(min(width, chunk) for width in widths)
    row_dims, column_dims = _loaded_dims(body, 0), _loaded_dims(body, 1)
    widest = max(row_dims + column_dims + [1])
    # Two-level sums keep two states, compensated ones a correction; a long row takes two registers for its address.
    per_row = words * (sum(dim for dim in row_dims if dim <= UNROLL_LIMIT) + 3) + state_words * 2 * results
    per_row += 2 * sum(dim > UNROLL_LIMIT for dim in row_dims)
    per_column = words * (sum(dim for dim in column_dims if dim <= UNROLL_LIMIT) + 1)
    if kinds & _SELECTIONS:
        listed = words * max(attribute(op, "k", 1) for op in accumulations)
        rows, columns = (2, 8) if words == 1 and listed <= _LISTED_REGISTERS else (1, 8 // words)
    elif _shared_chunk(body, words):
        rows, columns = (1, 8) if words == 1 else (1, 2)
    elif max(widths, default=1) > chunk:
        rows, columns = 4, 4 // state_words
    elif threads < _BLOCK_THREADS:
        rows, columns = 4 // words, 8
    elif widest > UNROLL_LIMIT:
        rows, columns = (2, 8) if words == 1 else (1, 8)
    elif kinds <= {"sum", "mean", "prod"}:
        rows, columns = 4, 8
    elif kinds <= {"logsumexp", "softmax"}:
        rows, columns = (4, 8) if state_words == 1 else (1, 4)
    else:
        rows, columns = (4, 8) if words == 1 else (2, 4)
    pair_words = words * sum(dim for dim in _pair_dims(body) if dim <= UNROLL_LIMIT)
    while columns > 1 and rows * columns * pair_words > _PAIR_REGISTERS:
        columns //= 2
    while rows > 1 and rows * columns * pair_words > _PAIR_REGISTERS:
        rows //= 2
    instructions = _gpu_instructions(body, words)
    limit = _BLOCK_INSTRUCTIONS * (2 if threads < _BLOCK_THREADS else 1)
    long_bytes = _long_row_bytes(body, words)
    if long_bytes * threads < _ROW_PANEL_BYTES:
        while rows > 1 and long_bytes * (rows * threads + 1) > _ROW_PANEL_BYTES:
            rows //= 2
    while rows > 1 and (rows * per_row > _ROW_REGISTERS or rows * instructions > limit):
        rows //= 2
    while columns > 1 and (columns * per_column > _COLUMN_REGISTERS or columns * rows * instructions > limit):
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


def _pair_dims(body: Any) -> list[int]:
    """Give the inner dimensions of what the body loads or stores for each pair."""
    loaded = [inner_dim(op.results[0]) for op in body.operations if name_of(op) == "reduction.load_pair"]
    return loaded + [inner_dim(op.operands[0]) for op in body.operations if name_of(op) == "reduction.store_pair"]


def _gpu_instructions(body: Any, words: int) -> float:
    """Estimate the instructions of one pair; functions of float64 are polynomials, a long inner dimension is a loop."""
    total = 0.0
    for operation in body.operations:
        if name_of(operation) in _NO_INSTRUCTION:
            continue
        width = max((inner_dim(value) for value in operation.operands if _is_vector(value)), default=1)
        if name_of(operation) == "reduction.contract_rows":
            width = _PRODUCT_OPERATIONS * unrolled_products(operation)
        cost = _OP_CYCLES.get(name_of(operation), 20.0 if name_of(operation).startswith("math.") else 1.0)
        if words > 1 and cost > 1.0:
            cost *= 4.0
        long = width > UNROLL_LIMIT and name_of(operation) != "reduction.contract_rows"
        total += (_INNER_BYTES // 4 // words if long else width) * cost
    return total


def _tile_columns(body: Any, free_bytes: int) -> int:
    """Choose the columns of a tile: a power of two, as many as fit, at least 8 unless that is too much."""
    column_bytes = sum(_loaded_dims(body, 1)) * _value_bits(body) // 8
    columns = _TILE_COLUMNS
    padded_bytes = sum(-(-dim * _value_bits(body) // 8 // VECTOR_BYTES) * VECTOR_BYTES for dim in _loaded_dims(body, 1))
    while columns > 8 and columns * column_bytes > _TILE_BYTES:
        columns //= 2
    while columns > 1 and columns * padded_bytes > free_bytes:
        columns //= 2
    return columns
