"""Turn each kernel op into a GPU kernel: rows to threads, columns to tiles in workgroup memory."""

import dataclasses
from typing import Any

from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import accumulations_of, accumulator_type, attribute_segments, partial_slots
from pylazy.compiler.nests.gpu_accumulators import index_type
from pylazy.compiler.nests.gpu_function import integer_attribute
from pylazy.compiler.nests.gpu_long_selection import is_long_selection
from pylazy.compiler.nests.gpu_map import MapNest
from pylazy.compiler.nests.gpu_merge import MergeNest
from pylazy.compiler.nests.gpu_nests import Kernel, Partials
from pylazy.compiler.nests.gpu_ranges import RangedNest
from pylazy.compiler.nests.gpu_states import is_ranged, is_splittable
from pylazy.compiler.nests.gpu_sweeps import ReduceNest
from pylazy.compiler.target import Target


def reduction_map_to_gpu(module: ir.Module, *, target: Target) -> None:
    """Outline every `map` and `map_reduce` into a `gpu.func`, in the order in which they have to run.

    Runs after reduction-tile, which chose the sizes, and before lower-math. A block has `block_threads` threads; a
    thread holds `rows_per_thread` rows in registers, `block_threads` apart, so that neighbours read neighbours. The
    columns pass through workgroup memory in tiles; rows that are too long for registers lie there, too, if they fit.
    A thread past the last row computes the last row and stores nothing, so that all threads meet at the barriers.
    Results of more than `result_chunk` elements are computed in sweeps over the columns, `result_chunk` elements in
    each; of sums of a number times a vector, four lanes compute `shared_chunk` elements of each other's rows together.
    Of `column_groups` groups of threads, each has the same rows and takes columns in turn; they meet at the end.

    The second dimension of the grid cuts the columns in splits, for launches with too few rows to fill the processor.
    With several splits, each leaves its unfinished states in scratch, and the kernel `..._merge` merges them in order.
    Direct sums and lists of more entries than registers hold have one split. With a table, a block takes one of its
    tiles, and a split a share of the intervals of it. Values of pairs are stored in the sweep, and not merged.
    Recursions have their tables in workgroup memory.

    A kernel takes the pointers of all buffers of the program, then, as i64, for each buffer the bytes from one element
    of the batch to the next, then rows, columns, columns of a split, and splits. The third dimension of the grid runs
    over the batch. Its attribute `reduction.launch` says how to launch it; the module's `reduction.buffers` describes
    the buffers.

    Raises:
        UnsupportedError: the tables of a recursion do not fit in workgroup memory.
    """
    for function in list(module.body.operations):
        if name_of(function) == "func.func" and _is_kernel(function):
            _Program(module, function, target).convert()


def _is_kernel(function: Any) -> bool:
    return any(
        name_of(op) in {"reduction.map", "reduction.map_reduce"} for op in function.regions[0].blocks[0].operations
    )


class _Program:
    """A kernel function on its way to a GPU module."""

    def __init__(self, module: ir.Module, function: Any, target: Target) -> None:
        self.module = module
        self.function = function
        self.target = target
        self.name = ir.StringAttr(function.attributes["sym_name"]).value
        self.arguments = list(function.regions[0].blocks[0].arguments)
        self.entries = [ir.DictAttr(entry) for entry in function.attributes["arg_attrs"]]

    def convert(self) -> None:
        self.module.operation.attributes["gpu.container_module"] = ir.UnitAttr.get()
        with self.function.location, ir.InsertionPoint(self.function):
            container = ir.Operation.create(
                "gpu.module", regions=1, attributes={"sym_name": ir.StringAttr.get(f"{self.name}_kernels")}
            )
        block = container.regions[0].blocks.append()
        operations = [op for op in self.function.regions[0].blocks[0].operations if name_of(op) != "func.return"]
        partials = [self._add_partials(operation, position) for position, operation in enumerate(operations)]
        for position, (operation, scratch) in enumerate(zip(operations, partials, strict=True)):
            name = f"{self.name}_{position}"
            with operation.location, ir.InsertionPoint(block):
                kernel = Kernel(self.arguments, operation, name, self.target, scratch)
                if name_of(operation) == "reduction.map":
                    MapNest(kernel).build()
                else:
                    nest = RangedNest if is_ranged(operation) else ReduceNest
                    nest(kernel).build()
                    if is_splittable(operation) and accumulations_of(operation):
                        MergeNest(dataclasses.replace(kernel, name=f"{name}_merge")).build()
        entries = zip(self.entries, self.arguments, strict=True)
        self.module.operation.attributes["reduction.buffers"] = ir.ArrayAttr.get(
            [_describe_buffer(entry, argument) for entry, argument in entries]
        )
        self.function.operation.erase()

    def _add_partials(self, operation: Any, position: int) -> Partials:
        """Add scratch for the unfinished states of each accumulation of an op, or for lists without a place."""
        if not is_splittable(operation):
            return self._add_lists(operation, position)
        found = {}
        for number, accumulation in enumerate(accumulations_of(operation)):
            types = (accumulator_type(accumulation), index_type())
            parts = zip(("values", "indices"), partial_slots(accumulation), types, strict=True)
            found[accumulation] = {
                part: self._add_scratch(f"{self.name}_{position}_{part}{number}", operation, kind, dim)
                for part, dim, kind in parts
                if dim
            }
        return found

    def _add_lists(self, operation: Any, position: int) -> Partials:
        """Add scratch for the values of long lists of which only the positions are results."""
        found = {}
        for number, accumulation in enumerate(accumulations_of(operation)):
            if is_long_selection(accumulation) and not attribute_segments(accumulation)[2]:
                name, (dim, _) = f"{self.name}_{position}_list{number}", partial_slots(accumulation)
                element = accumulator_type(accumulation)
                found[accumulation] = {"values": self._add_scratch(name, operation, element, dim, per_split=False)}
        return found

    def _add_scratch(
        self, name: str, operation: Any, element: ir.Type, dim: int, *, per_split: bool = True
    ) -> ir.Value:
        kind = ir.MemRefType.get([ir.ShapedType.get_dynamic_size(), dim], element)
        argument = self.function.regions[0].blocks[0].add_argument(kind, operation.location)
        text = ir.StringAttr.get
        described = {
            "reduction.name": text(name),
            "reduction.role": text("scratch"),
            "reduction.axis": operation.attributes["rows"],
        }
        if per_split:
            described["reduction.per_split"] = ir.BoolAttr.get(True)
        self.entries.append(ir.DictAttr.get(described))
        self.arguments.append(argument)
        return argument


def _describe_buffer(entry: ir.DictAttr, argument: ir.Value) -> ir.Attribute:
    buffer = ir.MemRefType(argument.type)
    return ir.DictAttr.get(
        {
            "name": entry["reduction.name"],
            "role": entry["reduction.role"],
            "axis": entry["reduction.axis"],
            "element": ir.TypeAttr.get(buffer.element_type),
            "dim": integer_attribute(buffer.shape[1]),
            "per_split": ir.BoolAttr.get("reduction.per_split" in entry),
        }
    )
