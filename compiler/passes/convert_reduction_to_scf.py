"""Turn each kernel op into a function with loops over tiles, rows and columns, for a CPU."""

from typing import Any

from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.cpu_column_lanes import ColumnLaneNest
from pylazy.compiler.nests.cpu_column_panels import ColumnPanelNest
from pylazy.compiler.nests.cpu_few_columns import FewColumnNest
from pylazy.compiler.nests.cpu_map import MapNest
from pylazy.compiler.nests.cpu_merge import MergeNest
from pylazy.compiler.nests.cpu_ranges import RangedNest
from pylazy.compiler.nests.cpu_sweeps import ReduceNest
from pylazy.compiler.target import Target


def convert_reduction_to_scf(module: ir.Module, *, target: Target) -> None:
    """Outline every `map` and `map_reduce` into a function over tiles, in the order in which they have to run.

    Runs after reduction-vectorize, which fixed the lanes, and before lower-math. Each function has the signature of a
    kernel entry (pointers, extents, first tile, last tile) and says in attributes how the runtime has to launch it:
    the axes of its rows and columns, rows per tile, which table lists its tiles, and whether its columns may be split.
    A splittable kernel writes
    unfinished states to scratch when it is split; the function after it merges them. The buffers of the program are
    kept in the module's attribute `reduction.buffers`.
    """
    for kernel in list(module.body.operations):
        if name_of(kernel) == "func.func" and _is_kernel(kernel):
            _Program(module, kernel).convert()


def _is_kernel(function: Any) -> bool:
    return any(name_of(op) in _KERNEL_OPS for op in function.regions[0].blocks[0].operations)


_KERNEL_OPS = frozenset({"reduction.map", "reduction.map_reduce"})


def _reduce_nest(operation: Any) -> type[ReduceNest]:
    if len(operation.operands):
        return RangedNest
    if attribute(operation, "lane_axis", "rows") == "columns":
        return ColumnPanelNest if attribute(operation, "shared_rows", 1) > 1 else ColumnLaneNest
    return FewColumnNest if attribute(operation, "column_chunk") == 0 else ReduceNest


class _Program:
    """A kernel function on its way to one function for each phase."""

    def __init__(self, module: ir.Module, kernel: Any) -> None:
        self.module = module
        self.kernel = kernel
        self.name = ir.StringAttr(kernel.attributes["sym_name"]).value
        self.arguments = list(kernel.regions[0].blocks[0].arguments)
        self.buffers = [ir.DictAttr(entry) for entry in kernel.attributes["arg_attrs"]]
        self.extra: list[ir.Attribute] = []

    def convert(self) -> None:
        operations = [op for op in self.kernel.regions[0].blocks[0].operations if name_of(op) in _KERNEL_OPS]
        for position, operation in enumerate(operations):
            name = f"{self.name}_{position}"
            with operation.location, ir.InsertionPoint(self.kernel):
                if name_of(operation) == "reduction.map":
                    MapNest(self, operation, name).build()
                else:
                    nest = _reduce_nest(operation)(self, operation, name)
                    nest.build()
                    if nest.splittable:
                        MergeNest(self, operation, f"{name}_merge", nest.partials).build()
        described = [
            self._describe(entry, argument) for entry, argument in zip(self.buffers, self.arguments, strict=True)
        ]
        self.module.operation.attributes["reduction.buffers"] = ir.ArrayAttr.get([*described, *self.extra])
        self.kernel.operation.erase()

    def _describe(self, entry: ir.DictAttr, argument: ir.Value) -> ir.Attribute:
        buffer = ir.MemRefType(argument.type)
        return buffer_attribute(
            name=entry["reduction.name"].value,
            role=entry["reduction.role"].value,
            axis=entry["reduction.axis"].value,
            element=buffer.element_type,
            dim=buffer.shape[1],
        )

    def add_partial(self, *, name: str, axis: str, element: ir.Type, dim: int) -> int:
        """Add scratch for unfinished states; give its number among the buffers."""
        self.extra.append(
            buffer_attribute(name=name, role="scratch", axis=axis, element=element, dim=dim, per_split=True)
        )
        return len(self.arguments) + len(self.extra) - 1


def buffer_attribute(*, name: str, role: str, axis: str, element: ir.Type, dim: int, per_split: bool = False) -> Any:
    """Describe a buffer for the runtime."""
    text = ir.StringAttr.get
    return ir.DictAttr.get(
        {
            "name": text(name),
            "role": text(role),
            "axis": text(axis),
            "element": ir.TypeAttr.get(element),
            "dim": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim),
            "per_split": ir.BoolAttr.get(per_split),
        }
    )
