"""Turn formulas into kernels: one `map_reduce` for each reduction."""

from collections.abc import Callable, Mapping
from typing import Any

from pylazy.compiler.dialects.reduction import attribute, join_axes, lazy_dim, lazy_vector, name_of
from pylazy.compiler.dialects.reduction.formula_ops import FORMULA_OPS
from pylazy.compiler.dialects.reduction.summation import summation_of
from pylazy.compiler.formula_lowering import FORMULA_LOWERING
from pylazy.compiler.kernel_builder import constant, emit
from pylazy.compiler.mlir import func, ir
from pylazy.compiler.target import NvidiaTarget, Target
from pylazy.runtime.errors import CompileError

#: Reduction kind of level 1 -> accumulation of level 2, and which of its two buffers the result goes to.
_ACCUMULATION: Mapping[str, tuple[str, str]] = {
    "argmin": ("min", "indices"),
    "argmax": ("max", "indices"),
    "argkmin": ("kmin", "indices"),
    "argkmax": ("kmax", "indices"),
}


#: The ops of level 1 that go through the pairs.
_SWEEPS = frozenset({"reduction.reduce", "reduction.tabulate"})


def convert_reduction_to_map_reduce(module: ir.Module, *, target: Target) -> None:
    """Replace each level-1 function by a kernel function over buffers.

    Runs after the formula passes, because sharing and differentiation want one graph, and before all passes that
    think in loops. A function of tensors becomes a function of memrefs in destination-passing style: inputs, then
    results, then tables, then scratch (results that only feed later reductions). Each `reduce` becomes a `map_reduce`
    whose body holds the formula in upstream ops on inner vectors. A function with the attribute `reduction.ranged` gets
    a table for each axis whose rows it keeps, and each of its sweeps over pairs goes over those of a table. Functions
    without lazy values are left alone.
    """
    for function in list(module.body.operations):
        if name_of(function) == "func.func" and _has_formula(function):
            _Conversion(function, target).run()


def _has_formula(function: Any) -> bool:
    operations = function.regions[0].blocks[0].operations if function.regions[0].blocks else ()
    return any(name_of(operation) in _SWEEPS for operation in operations)


def _buffer_type(tensor: ir.Type) -> ir.Type:
    tensor_type = ir.RankedTensorType(tensor)
    return ir.MemRefType.get(tensor_type.shape, tensor_type.element_type)


class _Conversion:
    """One function on its way from tensors to buffers."""

    def __init__(self, function: Any, target: Target) -> None:
        self.function = function
        self.target = target
        self.block = function.regions[0].blocks[0]
        self.results = self._distinct_results()
        self.reductions = [op for op in self.block.operations if name_of(op) in _SWEEPS]
        self.buffers: dict[ir.Value, ir.Value] = {}
        self.tables: dict[str, ir.Value] = {}

    def run(self) -> None:
        inputs = list(self.block.arguments)
        scratch = [op.results[0] for op in self.reductions if op.results[0] not in self.results]
        values = [*inputs, *self.results, *scratch]
        types = [_buffer_type(value.type) for value in values]
        first_table = len(inputs) + len(self.results)
        tables = self._table_axes()
        types[first_table:first_table] = [ir.Type.parse("memref<?x1xi64>")] * len(tables)
        with self.function.location, ir.InsertionPoint(self.function):
            kernel = func.FuncOp(
                ir.StringAttr(self.function.attributes["sym_name"]).value,
                (types, []),
            )
            if "reduction.few_rows" in self.function.attributes:
                kernel.attributes["reduction.few_rows"] = self.function.attributes["reduction.few_rows"]
            kernel.attributes["arg_attrs"] = self._describe(inputs, tables, scratch)
            block = kernel.add_entry_block()
        arguments = list(block.arguments)
        self.tables = dict(zip(tables, arguments[first_table:], strict=False))
        del arguments[first_table : first_table + len(tables)]
        self.buffers = dict(zip(values, arguments, strict=True))
        with ir.InsertionPoint(block):
            for reduce_op in self.reductions:
                self._convert(reduce_op)
            with self.function.location:
                func.ReturnOp([])
        self.function.operation.erase()

    def _distinct_results(self) -> list[ir.Value]:
        """Give every result a reduction of its own: `cse` may have found two of them equal."""
        terminator = self.block.operations[len(self.block.operations) - 1]
        results: list[ir.Value] = []
        for value in terminator.operands:
            if value in results:
                with ir.InsertionPoint(terminator):
                    results.append(value.owner.clone().results[0])
            else:
                results.append(value)
        return results

    def _table_axes(self) -> list[str]:
        """Name the axes whose rows need a table."""
        if "reduction.ranged" not in self.function.attributes:
            return []
        return sorted({self._sweep_axes(reduce_op)[0] for reduce_op in self.reductions} - {""})

    def _describe(self, inputs: list[Any], tables: list[str], scratch: list[Any]) -> ir.Attribute:
        """Build the argument attributes: name, role and axis of every buffer."""
        axes: dict[ir.Value, str] = {}
        for operation in self.block.operations:
            if name_of(operation) == "reduction.var":
                axes.setdefault(operation.operands[0], join_axes([attribute(operation, "axis")]))
        for reduce_op in self.reductions:
            axes[reduce_op.results[0]] = _row_axis(reduce_op)
        given = self.function.attributes.get("arg_attrs", None)
        rows = []
        for position, value in enumerate(inputs):
            found = given[position] if given is not None else None
            name = found["reduction.name"] if found is not None and "reduction.name" in found else None
            axis = axes.get(value, "")
            if value not in axes and found is not None and "reduction.axis" in found:
                axis = join_axes([found["reduction.axis"].value])
            rows.append(_argument(name.value if name is not None else f"input{position}", "input", axis))
        rows += [_argument(f"output{k}", "output", axes[value]) for k, value in enumerate(self.results)]
        rows += [_argument(f"ranges_{axis}", "table", axis) for axis in tables]
        rows += [_argument(f"scratch{k}", "scratch", axes[value]) for k, value in enumerate(scratch)]
        return ir.ArrayAttr.get(rows)

    def _convert(self, reduce_op: Any) -> None:
        is_table = name_of(reduce_op) == "reduction.tabulate"
        rows, columns = self._sweep_axes(reduce_op)
        with reduce_op.location:
            operation = ir.Operation.create(
                "reduction.map_reduce",
                operands=[self.tables[rows]] if rows in self.tables else [],
                attributes={"rows": ir.StringAttr.get(rows), "columns": ir.StringAttr.get(columns)},
                regions=1,
            )
            block = operation.regions[0].blocks.append(ir.IndexType.get(), ir.IndexType.get())
        indices = {rows: block.arguments[0], columns: block.arguments[1]}
        lowered: dict[ir.Value, ir.Value] = {}
        with ir.InsertionPoint(block):
            operands = [self._lower(value, indices, lowered) for value in reduce_op.operands]
            with reduce_op.location:
                if is_table:
                    buffer = self.buffers[reduce_op.results[0]]
                    places = [indices[axis] for axis in attribute(reduce_op, "axis")]
                    ir.Operation.create("reduction.store_pair", operands=[*operands, buffer, *places])
                else:
                    self._accumulate(reduce_op, operands)
                ir.Operation.create("reduction.yield")

    def _sweep_axes(self, reduce_op: Any) -> tuple[str, str]:
        """Name the axis of the rows and that of the columns of a sweep.

        The rows of a table are its slow axis; on a GPU its fast one, so that neighbouring threads store side by side.
        """
        axis = attribute(reduce_op, "axis")
        if name_of(reduce_op) == "reduction.tabulate":
            slow, fast = axis
            return (fast, slow) if isinstance(self.target, NvidiaTarget) else (slow, fast)
        return _row_axis(reduce_op), axis

    def _accumulate(self, reduce_op: Any, operands: list[ir.Value]) -> None:
        kind = attribute(reduce_op, "kind")
        accumulation, destination = _ACCUMULATION.get(kind, (kind, "values"))
        buffer = self.buffers[reduce_op.results[0]]
        attributes = {
            "kind": ir.StringAttr.get(accumulation),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get(
                [1, len(operands) - 1, int(destination == "values"), int(destination == "indices")]
            ),
        }
        if "k" in reduce_op.attributes:
            attributes["k"] = reduce_op.attributes["k"]
        attributes.update(summation_of(reduce_op))
        ir.Operation.create("reduction.accumulate", operands=[*operands, buffer], attributes=attributes)

    def _lower(self, value: ir.Value, indices: Mapping[str, ir.Value], lowered: dict[ir.Value, ir.Value]) -> ir.Value:
        """Emit what computes a lazy value, operands first; iterative, since formulas may be thousands of ops deep."""
        stack = [value]
        while stack:
            top = stack[-1]
            if top in lowered:
                stack.pop()
                continue
            operation = top.owner
            missing = (
                [] if name_of(operation) == "reduction.var" else [v for v in operation.operands if v not in lowered]
            )
            if missing:
                stack += missing
                continue
            with operation.location:
                lowered[top] = self._lower_op(operation, indices, [lowered.get(v, v) for v in operation.operands])
            stack.pop()
        return lowered[value]

    def _lower_op(self, operation: Any, indices: Mapping[str, ir.Value], operands: list[ir.Value]) -> ir.Value:
        op_name = name_of(operation).removeprefix("reduction.")
        result_type = lazy_vector(operation.results[0])
        if op_name == "var":
            axis = attribute(operation, "axis")
            if len(axis) == 2:
                slow, fast = axis
                return emit(
                    "reduction.load_pair", [self.buffers[operands[0]], indices[slow], indices[fast]], result_type
                )
            return emit("reduction.load", [self.buffers[operands[0]], *([indices[axis]] if axis else [])], result_type)
        if op_name == "index":
            return emit("reduction.index_value", [indices[attribute(operation, "axis")]], result_type)
        if op_name == "constant":
            return constant(attribute(operation, "value"), result_type)
        rule: Callable[..., ir.Value] | None = FORMULA_LOWERING.get(op_name)
        if rule is None:
            raise CompileError(f"reduction.{op_name} has no lowering to a kernel: add a row to formula_lowering.py")
        attributes = {name: attribute(operation, name) for name in FORMULA_OPS[op_name].attributes}
        if FORMULA_OPS[op_name].result == "elementwise":
            operands = [_widen(operand, lazy_dim(operation.results[0])) for operand in operands]
        elif op_name in {"dot", "sqdist"}:
            width = max(lazy_dim(operand) for operand in operation.operands)
            operands = [_widen(operand, width) for operand in operands]
        return rule(*operands, **attributes)


def _row_axis(reduce_op: Any) -> str:
    """Name the axis that a reduction keeps; "" where its result is a single row."""
    if name_of(reduce_op) == "reduction.tabulate":
        return "ij"
    result_type = ir.RankedTensorType(reduce_op.results[0].type)
    if not result_type.is_dynamic_dim(0):
        return ""
    return "j" if attribute(reduce_op, "axis") == "i" else "i"


def _argument(name: str, role: str, axis: str) -> ir.Attribute:
    text = ir.StringAttr.get
    return ir.DictAttr.get({"reduction.name": text(name), "reduction.role": text(role), "reduction.axis": text(axis)})


def _widen(value: ir.Value, dim: int) -> ir.Value:
    """Repeat a vector of one element `dim` times."""
    vector = ir.VectorType(value.type)
    if vector.shape[0] == dim:
        return value
    return emit("vector.broadcast", (value,), ir.VectorType.get([dim], vector.element_type))
