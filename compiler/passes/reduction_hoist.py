"""Compute once a column what does not depend on the row."""

from typing import Any

from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.kernel_builder import emit
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_values import LOADS, BodyAxes, inner_dim
from pylazy.compiler.schedule.body_costs import UNROLL_LIMIT
from pylazy.compiler.target import Target

_MOVES = frozenset({*LOADS, "arith.constant", "vector.broadcast", "vector.extract_strided_slice",
                    "reduction.concat_rows", "reduction.accumulate", "reduction.yield"})  # fmt: skip


def reduction_hoist(module: ir.Module, *, target: Target) -> None:
    """Move computations on columns alone into a `map` over the columns, which runs first and stores its results.

    Runs after reduction-fuse, so that the values that two reductions share are stored once, and before reduction-tile,
    since it changes what a pair costs. What depends on the row alone stays: the loop over columns is inside the rows,
    so it is computed once a row anyway; only long vectors, which do not fit registers, are stored in the same way.
    Stored values take memory in proportion to one axis, never to the pairs. Where rows are few, a column is used a few
    times only: to compute its values again costs less than to write and read them, so they stay.
    """
    for function in module.body.operations:
        if name_of(function) != "func.func":
            continue
        for operation in list(function.regions[0].blocks[0].operations):
            if name_of(operation) == "reduction.map_reduce":
                hoisting = _Hoisting(function, operation)
                if not _has_few_rows(function, operation):
                    hoisting.move_of_columns()
                hoisting.move_of_rows()


def _has_few_rows(function: Any, kernel: Any) -> bool:
    return attribute(kernel, "rows") in {*attribute(function, "reduction.few_rows", ""), ""}


class _Hoisting:
    """One `map_reduce` and the values to be taken out of it."""

    def __init__(self, function: Any, kernel: Any) -> None:
        self.function = function
        self.kernel = kernel
        self.body = kernel.regions[0].blocks[0]
        self.axes = BodyAxes(self.body)

    def move_of_columns(self) -> None:
        """Move what depends on columns alone."""
        self._store(self._frontier("c"), self.body.arguments[1], attribute(self.kernel, "columns"))

    def move_of_rows(self) -> None:
        """Move what depends on rows alone, where it is long."""
        self._store(self._frontier("r"), self.body.arguments[0], attribute(self.kernel, "rows"))

    def _frontier(self, axes: str) -> list[ir.Value]:
        """Find the values of these axes that are computed and then used by what has more axes, or by mere moves."""
        found = []
        for operation in self.body.operations:
            if name_of(operation) in _MOVES or self.axes.of_operation(operation) != axes:
                continue
            for value in operation.results:
                if axes == "r" and inner_dim(value) <= UNROLL_LIMIT:
                    continue
                if isinstance(ir.VectorType(value.type).element_type, ir.IntegerType):
                    continue  # a comparison: cheaper than the memory for its result
                if any(self._leaves(use.owner, axes) for use in value.uses):
                    found.append(value)
        return found

    def _leaves(self, user: Any, axes: str) -> bool:
        return self.axes.of_operation(user) != axes or name_of(user) in _MOVES

    def _store(self, values: list[ir.Value], index: ir.Value, axis: str) -> None:
        if not values:
            return
        buffers = [self._add_scratch(value, axis) for value in values]
        with self.kernel.location, ir.InsertionPoint(self.kernel):
            operation = ir.Operation.create("reduction.map", attributes={"rows": ir.StringAttr.get(axis)}, regions=1)
        block = operation.regions[0].blocks.append(ir.IndexType.get(), arg_locs=[self.kernel.location])
        clones: dict[ir.Value, ir.Value] = {index: block.arguments[0]}
        with ir.InsertionPoint(block):
            for value, buffer in zip(values, buffers, strict=True):
                with value.owner.location:
                    stored = self._clone(value, clones)
                    ir.Operation.create("reduction.store", operands=[stored, buffer, block.arguments[0]])
            with self.kernel.location:
                ir.Operation.create("reduction.yield")
        for value, buffer in zip(values, buffers, strict=True):
            with ir.InsertionPoint(value.owner), value.owner.location:
                loaded = emit("reduction.load", (buffer, index), value.type)
            value.replace_all_uses_with(loaded)
        self._erase_unused()

    def _add_scratch(self, value: ir.Value, axis: str) -> ir.Value:
        """Add a buffer to the kernel function's arguments."""
        vector = ir.VectorType(value.type)
        buffer = ir.MemRefType.get([ir.ShapedType.get_dynamic_size(), vector.shape[0]], vector.element_type)
        argument = self.function.regions[0].blocks[0].add_argument(buffer, value.owner.location)
        entries = list(self.function.attributes["arg_attrs"])
        text = ir.StringAttr.get
        described = {"name": text(f"hoisted{len(entries)}"), "role": text("scratch"), "axis": text(axis)}
        entries.append(ir.DictAttr.get({f"reduction.{key}": found for key, found in described.items()}))
        types = [argument.type for argument in self.function.regions[0].blocks[0].arguments]
        self.function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, []))
        self.function.attributes["arg_attrs"] = ir.ArrayAttr.get(entries)
        return argument

    def _clone(self, value: ir.Value, clones: dict[ir.Value, ir.Value]) -> ir.Value:
        stack = [value]
        while stack:
            top = stack[-1]
            owner = top.owner
            if top in clones or isinstance(owner, ir.Block) or owner.operation.parent != self.kernel.operation:
                clones.setdefault(top, top)
                stack.pop()
                continue
            missing = [operand for operand in owner.operands if operand not in clones]
            if missing:
                stack += missing
                continue
            created = ir.Operation.create(
                name_of(owner),
                results=[result.type for result in owner.results],
                operands=[clones[operand] for operand in owner.operands],
                attributes={key: owner.attributes[key] for key in owner.attributes},
                loc=owner.location,
            )
            clones.update(zip(owner.results, created.results, strict=True))
            stack.pop()
        return clones[value]

    def _erase_unused(self) -> None:
        for operation in reversed(list(self.body.operations)):
            if operation.results and not any(len(list(value.uses)) for value in operation.results):
                operation.operation.erase()
        self.axes = BodyAxes(self.body)
