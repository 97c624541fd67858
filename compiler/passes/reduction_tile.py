"""Give every kernel op its tile sizes."""

import dataclasses
from typing import Any

from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.schedule.cpu_schedule import CpuSchedule, cpu_schedule
from pylazy.compiler.schedule.gpu_schedule import NvidiaSchedule, nvidia_schedule
from pylazy.compiler.target import NvidiaTarget, Target


def reduction_tile(module: ir.Module, *, target: Target) -> None:
    """Attach the tile sizes that the schedule chose, as attributes that one can read and change.

    Runs after reduction-fuse, since fused reductions share their tiles, and before reduction-vectorize and
    reduction-map-to-gpu, which build what the attributes say. `lanes` rows make a vector, `row_vectors` vectors a row
    tile, `column_step` columns a block, `column_chunk` columns the first level of a sum, 0 all of them; on a GPU
    `rows_per_thread` rows stay in a thread, `block_threads` threads make a block, `tile_columns` columns a tile in
    workgroup memory (see reduction-map-to-gpu for the others). An op that has an attribute already keeps it. The
    function's attribute `reduction.few_rows` names axes with about as many rows as lanes, or fewer: reductions that
    keep them get `lane_axis = "columns"`, where up to `shared_rows` rows go over the same chunk, and reductions over
    them get small blocks and `column_chunk = 0`, unless a table lists their pairs.
    """
    for function in module.body.operations:
        if name_of(function) != "func.func":
            continue
        for operation in function.regions[0].blocks[0].operations:
            if name_of(operation) in {"reduction.map", "reduction.map_reduce"}:
                if isinstance(target, NvidiaTarget):
                    _attach(operation, nvidia_schedule(operation, target))
                else:
                    few = set(attribute(function, "reduction.few_rows", ""))
                    listed = len(operation.operands) > 0  # by a table, whose tiles are of rows
                    chosen = cpu_schedule(
                        operation,
                        target,
                        few_rows=attribute(operation, "rows") in {*few, ""} and not listed,
                        few_columns=attribute(operation, "columns", "") in few and not listed,
                    )
                    _attach(operation, chosen)


def _attach(operation: Any, chosen: CpuSchedule | NvidiaSchedule) -> None:
    for field in dataclasses.fields(chosen):
        if field.name in operation.attributes:
            continue
        operation.attributes[field.name] = _to_attribute(getattr(chosen, field.name))


def _to_attribute(value: float | str) -> ir.Attribute:
    if isinstance(value, str):
        return ir.StringAttr.get(value)
    if isinstance(value, int):
        return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)
    return ir.FloatAttr.get(ir.F64Type.get(), value)
