"""What a CPU kernel writes for an accumulation: its results, and where its unfinished states lie."""

from dataclasses import dataclass
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import destinations
from pylazy.compiler.nests.cpu_accumulators import Accumulator
from pylazy.compiler.nests.cpu_memory import broadcast
from pylazy.compiler.nests.cpu_transposition import fill_rows, unpack_rows


@dataclass
class Partial:
    """Where the unfinished states of one accumulation are kept: numbers of buffers, or None."""

    values: "int | None"
    indices: "int | None"


def write_results(
    nest: Any, operation: Any, accumulator: Accumulator, carried: list[ir.Value], first_row: ir.Value
) -> None:
    """Finish an accumulation and write the rows of its results."""
    values, indices = destinations(operation)
    _write_values(nest, values, accumulator, carried, first_row)
    if indices is not None and accumulator.indices is not None:
        unpack_rows(
            accumulator.indices,
            nest.buffer_of(indices),
            first_row,
            nest.rows,
            slots=accumulator.results,
            convert=nest.whole_index,
        )


def _write_values(
    nest: Any, values: "ir.Value | None", accumulator: Accumulator, carried: list[ir.Value], first_row: ir.Value
) -> None:
    panel, count = accumulator.values, _count(nest, accumulator)
    if values is None or panel is None:
        accumulator.finish(carried, count, panel)
        return
    buffer, element = nest.buffer_of(values), ir.MemRefType(values.type).element_type
    if accumulator.results == 1 and panel.lanes > 1 and element == panel.element:
        fill_rows(panel, buffer, first_row, nest.rows, lambda place: accumulator.finish(carried, count, place))
        return
    accumulator.finish(carried, count, panel)
    convert = None if element == panel.element else lambda value: _narrowed(value, element)
    unpack_rows(panel, buffer, first_row, nest.rows, slots=accumulator.results, convert=convert)


def _narrowed(value: ir.Value, element: ir.Type) -> ir.Value:
    return kb.emit("arith.truncf", (value,), of_elements(value.type, element))


def of_elements(lanes: ir.Type, element: ir.Type) -> ir.Type:
    """Give the type of as many lanes, of other elements."""
    return ir.VectorType.get(lanes.shape, element) if isinstance(lanes, ir.VectorType) else element


def _count(nest: Any, accumulator: Accumulator) -> ir.Value:
    assert accumulator.values is not None
    scalar = kb.emit("arith.uitofp", (nest.columns,), accumulator.values.element)
    return broadcast(scalar, nest.shape.vector(accumulator.values.element))
