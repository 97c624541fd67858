"""Turn each kernel op into a GPU kernel: rows to threads, columns to tiles in workgroup memory."""

from typing import Any

from pylazy.compiler.diagnostics import at_source_line
from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.gpu_accumulators import index_type, partial_slots
from pylazy.compiler.nests.gpu_nests import MapNest, MergeNest, Partials, ReduceNest, integer_attribute
from pylazy.compiler.target import Target
from pylazy.runtime.errors import UnsupportedError


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

    A kernel takes the pointers of all buffers of the program, then, as i64, for each buffer the bytes from one element
    of the batch to the next, then rows, columns, columns of a split, and splits. The third dimension of the grid runs
    over the batch. Its attribute `reduction.launch` says how to launch it; the module's `reduction.buffers` describes
    the buffers.

    Raises:
        UnsupportedError: an accumulation whose state does not fit in registers, or a sweep over the pairs of a table.
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
                if name_of(operation) == "reduction.map":
                    MapNest(self.arguments, operation, name, self.target).build()
                else:
                    self._refuse_table(operation)
                    ReduceNest(self.arguments, operation, name, self.target, scratch).build()
                    MergeNest(self.arguments, operation, f"{name}_merge", self.target, scratch).build()
        entries = zip(self.entries, self.arguments, strict=True)
        self.module.operation.attributes["reduction.buffers"] = ir.ArrayAttr.get(
            [_describe_buffer(entry, argument) for entry, argument in entries]
        )
        self.function.operation.erase()

    def _refuse_table(self, operation: Any) -> None:
        if len(operation.operands):
            raise UnsupportedError(
                at_source_line(
                    f"ranges are not there on {self.target.name}: reduce without ranges, or for a CPU",
                    operation.location,
                )
            )

    def _add_partials(self, operation: Any, position: int) -> Partials:
        """Add scratch for the unfinished states of each accumulation of an op."""
        accumulations = [
            op for op in operation.regions[0].blocks[0].operations if name_of(op) == "reduction.accumulate"
        ]
        found = {}
        for number, accumulation in enumerate(accumulations):
            element = ir.VectorType(accumulation.operands[0].type).element_type
            parts = zip(("values", "indices"), partial_slots(accumulation), (element, index_type()), strict=True)
            found[accumulation] = {
                part: self._add_scratch(f"{self.name}_{position}_{part}{number}", operation, kind, dim)
                for part, dim, kind in parts
                if dim
            }
        return found

    def _add_scratch(self, name: str, operation: Any, element: ir.Type, dim: int) -> ir.Value:
        kind = ir.MemRefType.get([ir.ShapedType.get_dynamic_size(), dim], element)
        argument = self.function.regions[0].blocks[0].add_argument(kind, operation.location)
        text = ir.StringAttr.get
        described = {
            "reduction.name": text(name),
            "reduction.role": text("scratch"),
            "reduction.axis": operation.attributes["rows"],
            "reduction.per_split": ir.BoolAttr.get(True),
        }
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
