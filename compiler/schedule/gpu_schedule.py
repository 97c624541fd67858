"""How a kernel op is cut for a GPU: threads of a block, rows of a thread, columns of a tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.dialects.reduction.summation import has_direct_sums, summation_of
from pylazy.compiler.nests.accumulations import SELECTIONS, accumulations_in, accumulator_type
from pylazy.compiler.nests.body_values import LOADS, inner_dim
from pylazy.compiler.nests.contraction import unrolled_products
from pylazy.compiler.nests.gpu_memory import VECTOR_BYTES, WORKGROUP_BYTES
from pylazy.compiler.nests.soft_dtw import table_numbers
from pylazy.compiler.schedule.body_costs import (
    OP_CYCLES,
    PRODUCT_OPERATIONS,
    UNROLL_LIMIT,
    is_vector,
    loaded_dims,
    value_bits,
)
from pylazy.compiler.target import NvidiaTarget

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
#: Instructions of straight code for one block of rows times columns.
_BLOCK_INSTRUCTIONS = 704.0
_NO_INSTRUCTION = frozenset(
    {*LOADS, "arith.constant", "reduction.yield", "reduction.concat_rows", "vector.broadcast"}
    | {"vector.extract_strided_slice"}
)


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
    words = value_bits(body) // 32
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
        inner_step=_inner_step(body, words, threads // groups),
        result_chunk=_result_chunk(body),
        shared_chunk=shared_chunk,
        row_panel_bytes=0 if table_bytes else _ROW_PANEL_BYTES,
    )


def _recursions(body: Any) -> list[Any]:
    return [op for op in body.operations if name_of(op) == "reduction.soft_dtw_rows"]


def _threads(body: Any, words: int) -> tuple[int, int]:
    """Choose the threads of a block, and the groups of them that take columns of the same rows in turn.

    Where rows are long, and those of a block fit in workgroup memory, a thread that holds several of them reads less of
    the columns; so fewer threads hold them. Lists stay with one thread.
    """
    accumulations = accumulations_in(body)
    fits = 0 < _long_row_bytes(body, words) * (2 * _LONG_ROW_THREADS + 1) <= _ROW_PANEL_BYTES
    if not fits or sum(_widths(accumulations)) != 1 or has_direct_sums(body):
        return _BLOCK_THREADS, 1
    if {attribute(op, "kind") for op in accumulations} & SELECTIONS:
        return _LONG_ROW_THREADS, 1
    return _BLOCK_THREADS, _COLUMN_GROUPS


def _inner_step(body: Any, words: int, threads: int) -> int:
    """Choose the elements of a turn of a loop over a long inner dimension; `threads` hold the rows of a block."""
    step = _INNER_BYTES // 4 // words
    if threads == _BLOCK_THREADS:
        return step
    # What a loop leaves over is straight code, whose loads take all registers.
    dims = [dim for dim in loaded_dims(body, 0) if dim > UNROLL_LIMIT]
    steps = range(_LONG_INNER_LOADS * step, step, -step)
    return next((wide for wide in steps if all(dim >= 2 * wide and dim % wide < step for dim in dims)), step)


def _thread_block(body: Any, words: int, threads: int) -> tuple[int, int]:
    """Choose the rows of a thread and the columns that it takes at once: as many pairs as its registers allow.

    `threads` hold the rows of a block.

    Rows share the loads of a column, columns share loop and address arithmetic (and, where inner dimensions are long,
    the loads of row elements from memory).
    """
    accumulations = accumulations_in(body)
    kinds = {attribute(op, "kind") for op in accumulations}
    widths = _widths(accumulations)
    chunk = _result_chunk(body)
    state_words = _state_words(body)
    results = sum(min(width, chunk) for width in widths)
    row_dims, column_dims = loaded_dims(body, 0), loaded_dims(body, 1)
    widest = max(row_dims + column_dims + [1])
    # Two-level sums keep two states, compensated ones a correction; a long row takes two registers for its address.
    per_row = words * (sum(dim for dim in row_dims if dim <= UNROLL_LIMIT) + 3) + state_words * 2 * results
    per_row += 2 * sum(dim > UNROLL_LIMIT for dim in row_dims)
    per_column = words * (sum(dim for dim in column_dims if dim <= UNROLL_LIMIT) + 1)
    if kinds & SELECTIONS:
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
    instructions = _instructions(body, words)
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


def _shared_chunk(body: Any, words: int) -> int:
    """Choose the elements of a long sum that lanes share; 0 where all sums are short."""
    sums = [
        inner_dim(op.operands[0])
        for op in accumulations_in(body)
        if attribute(op, "kind") == "sum" and not summation_of(op)
    ]
    return _SHARED_REGISTERS // words if max(sums, default=0) * words >= _FEWEST_SHARED_REGISTERS else 0


def _result_chunk(body: Any) -> int:
    """Choose the elements of a long result for one sweep: fewer where rows take registers for their addresses."""
    return _RESULT_REGISTERS // _state_words(body) // (2 if _long_row_bytes(body, value_bits(body) // 32) else 1)


def _tile_columns(body: Any, free_bytes: int) -> int:
    """Choose the columns of a tile: a power of two, as many as fit, at least 8 unless that is too much."""
    column_bytes = sum(loaded_dims(body, 1)) * value_bits(body) // 8
    columns = _TILE_COLUMNS
    padded_bytes = sum(-(-dim * value_bits(body) // 8 // VECTOR_BYTES) * VECTOR_BYTES for dim in loaded_dims(body, 1))
    while columns > 8 and columns * column_bytes > _TILE_BYTES:
        columns //= 2
    while columns > 1 and columns * padded_bytes > free_bytes:
        columns //= 2
    return columns


def _instructions(body: Any, words: int) -> float:
    """Estimate the instructions of one pair; functions of float64 are polynomials, a long inner dimension is a loop."""
    total = 0.0
    for operation in body.operations:
        if name_of(operation) in _NO_INSTRUCTION:
            continue
        width = max((inner_dim(value) for value in operation.operands if is_vector(value)), default=1)
        if name_of(operation) == "reduction.contract_rows":
            width = PRODUCT_OPERATIONS * unrolled_products(operation)
        cost = OP_CYCLES.get(name_of(operation), 20.0 if name_of(operation).startswith("math.") else 1.0)
        if words > 1 and cost > 1.0:
            cost *= 4.0
        long = width > UNROLL_LIMIT and name_of(operation) != "reduction.contract_rows"
        total += (_INNER_BYTES // 4 // words if long else width) * cost
    return total


def _long_row_bytes(body: Any, words: int) -> int:
    return 4 * words * sum(dim for dim in loaded_dims(body, 0) if dim > UNROLL_LIMIT)


def _widths(accumulations: Sequence[Any]) -> list[int]:
    """Give the inner dimensions of what is accumulated."""
    return [inner_dim(operand) for op in accumulations for operand in op.operands if is_vector(operand)]


def _state_words(body: Any) -> int:
    """Give the registers that one number of a state takes."""
    accumulations = accumulations_in(body)
    return max((int(accumulator_type(op).width) // 32 for op in accumulations), default=1)


def _pair_dims(body: Any) -> list[int]:
    """Give the inner dimensions of what the body loads or stores for each pair."""
    loaded = [inner_dim(op.results[0]) for op in body.operations if name_of(op) == "reduction.load_pair"]
    return loaded + [inner_dim(op.operands[0]) for op in body.operations if name_of(op) == "reduction.store_pair"]
