"""The function of a GPU kernel: its parameters, its bounds, and what the runtime has to know to launch it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.gpu_memory import GLOBAL_SPACE, pointer_type

#: Rows, columns, columns of a split, splits: what every kernel takes after the pointers and their batch strides.
_EXTENTS = 4


def integer_attribute(value: int) -> ir.Attribute:
    """Build a 64-bit integer attribute."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


def create_function(
    name: str,
    written: Sequence[bool],
    *,
    threads: int,
    blocks_per_processor: int,
    launch: Mapping[str, ir.Attribute],
) -> Any:
    """Build a `gpu.func` without a body.

    Its parameters are a pointer for each buffer, for each buffer the bytes between elements of the batch, and extents.

    Args:
        name: of the kernel.
        written: of each buffer, whether the kernel writes it.
        threads: of a block.
        blocks_per_processor: as many are to fit on one.
        launch: the attribute `reduction.launch`.
    """
    unit, text = ir.UnitAttr.get(), ir.StringAttr.get
    buffers = [pointer_type(GLOBAL_SPACE)] * len(written)
    numbers = [ir.IntegerType.get_signless(64)] * (len(buffers) + _EXTENTS)
    buffer_attributes = [
        ir.DictAttr.get({"llvm.noalias": unit} if is_written else {"llvm.noalias": unit, "llvm.readonly": unit})
        for is_written in written
    ]
    return ir.Operation.create(
        "gpu.func",
        regions=1,
        attributes={
            "sym_name": text(name),
            "function_type": ir.TypeAttr.get(ir.FunctionType.get([*buffers, *numbers], [])),
            "gpu.kernel": unit,
            "arg_attrs": ir.ArrayAttr.get([*buffer_attributes, *[ir.DictAttr.get({})] * len(numbers)]),
            "nvvm.maxntid": ir.DenseI32ArrayAttr.get([threads]),
            # A bound on registers: left to itself, the assembler spills to reach an occupancy that it guesses.
            "nvvm.minctasm": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), blocks_per_processor),
            "reduction.launch": ir.DictAttr.get(launch),
        },
    )
