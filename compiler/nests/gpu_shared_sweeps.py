"""Sweeps of a GPU for long sums of which neighbouring lanes share the elements."""

from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.combiners import negation, rarely
from pylazy.compiler.mlir import ir, llvm, scf
from pylazy.compiler.nests.body_values import Position
from pylazy.compiler.nests.gpu_accumulators import State
from pylazy.compiler.nests.gpu_columns import ColumnNest
from pylazy.compiler.nests.gpu_factors import Factored
from pylazy.compiler.nests.gpu_memory import element_address, row_address, store_output, thread_index
from pylazy.compiler.nests.gpu_shared_sums import BLOCK_COLUMNS, SharedSums, shared_step, shuffled
from pylazy.compiler.nests.integers import element_bytes, iadd, imin, isub, number


def sweep_shared_elements(
    nest: ColumnNest, operation: Any, factored: Factored, low: int, high: int, *, most: int
) -> int:
    """Build sweeps for the elements of a long result from one seam to the next that lanes can share.

    Args:
        nest: where the sweeps are built.
        operation: the accumulation.
        factored: its value, as `shareable_factors` split it.
        low: the first element.
        high: the element behind the last one.
        most: elements of one sweep.

    Returns:
        The first element that is left.
    """
    element = ir.VectorType(operation.operands[0].type).element_type
    step = shared_step(element)
    while (chunk := min(most, (high - low) // step * step)) >= 2 * step:
        turns = (high - low) // chunk

        def sweep(first: Position, chunk: int = chunk) -> None:
            part = SharedSums(operation, factored, first=first, count=chunk, thread=thread_index())
            _sweep(nest, operation, part)

        if turns == 1:
            sweep(Position(low))
        else:
            loop = scf.ForOp(number(low), number(low + turns * chunk), number(chunk), [])
            with ir.InsertionPoint(loop.body), nest.body.scope():
                sweep(Position(0, loop.induction_variable, low))
                scf.YieldOp([])
        low += turns * chunk
    return low


def _sweep(nest: ColumnNest, operation: Any, part: SharedSums) -> None:
    """Build one pass over all columns for sums that lanes share; each block of columns is added to the result.

    The sums of a block fill the registers, so those of the blocks before it wait in global memory. There is one
    block where there are no columns.
    """
    nest.parts = [part]
    narrow = ir.IntegerType.get_signless(32)
    count = kb.emit("arith.trunci", (isub(nest.end_of_split, nest.first_of_split),), narrow)
    none, block = kb.constant(0, narrow), kb.constant(BLOCK_COLUMNS, narrow)
    loop = scf.ForOp(none, kb.emit("arith.maxsi", (count, kb.constant(1, narrow))), block, [])
    with ir.InsertionPoint(loop.body), nest.body.scope():
        first = loop.induction_variable
        neutral = part.start()
        nest.widths = [len(neutral)]
        sums = nest.over_tiles(neutral, first, imin(iadd(first, block), count))
        later = negation(kb.icompare("eq", first, none))
        for distance, mine in enumerate(part.scaled_rows(sums, nest.body)):
            # A shuffle, so that LLVM keeps the addresses of these rows from taking registers in the sweep.
            row = shuffled(nest.thread_rows[0], distance)
            _add_to_row(nest, operation, part, row, mine, later)
        scf.YieldOp([])


def _add_to_row(
    nest: ColumnNest, operation: Any, part: SharedSums, row: ir.Value, sums: State, later: ir.Value
) -> None:
    result, partial = operation.operands[1], nest.partials.get(operation, {}).get("values")
    kind = ir.MemRefType(result.type)

    def add() -> None:
        # Of whole addresses: LLVM turns a choice of parameters into one of their places in parameter memory.
        place = row_address(nest.pointers[result], row, kind.shape[1], kind.element_type)
        if partial is not None:
            unsplit = kb.icompare("eq", nest.splits, number(1))
            place = kb.select(unsplit, place, nest.place_of_state(partial, nest.split, row))
        places = [element_address(place, at, kind.element_type) for at in part.places]

        def load() -> tuple[ir.Value, ...]:
            size = element_bytes(kind.element_type)
            return tuple(llvm.LoadOp(kind.element_type, place, alignment=size).result for place in places)

        before = rarely(later, load, tuple(part.start()[: len(places)]))
        for place, old, new in zip(places, before, sums, strict=True):
            store_output(kb.add(old, new), place)

    nest.guarded_row(row, add)
