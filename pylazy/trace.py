"""Expressions -> a module of the `reduction` dialect, every op with the user's file and line."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pylazy.canonical_form import Node
from pylazy.compiler.compile import compilation
from pylazy.compiler.dialects.reduction.formula_ops import (
    emit_constant,
    emit_formula_op,
    emit_index,
    emit_reduce,
    emit_var,
)
from pylazy.compiler.dialects.reduction.summation import summation_attributes
from pylazy.compiler.mlir import func, ir
from pylazy.reductions import ReductionRequest

if TYPE_CHECKING:
    from pylazy.reductions import Order, Request
    from pylazy.user_positions import Location

FUNCTION_NAME = "formula"


@dataclass(frozen=True)
class Traced:
    """A formula as a module of the dialect's first level.

    Attributes:
        module: MLIR's module; the compiler changes a copy.
    """

    module: Any

    def as_text(self) -> str:
        """Write the module."""
        return str(self.module)


def trace(request: "Request", *, few_rows: str = "") -> Traced:
    """Build the module of a program: one function from tensors of inputs to tensors of results.

    Args:
        request: what to compute. Of a derivative it is the forward function, marked for `reduction-differentiate`.
        few_rows: the axes ("", "i", "j" or "ij") with so few rows that a vector is better filled with columns.
    """
    with compilation():
        if isinstance(request, ReductionRequest):
            return Traced(_build(request, orders=(), few_rows=few_rows))
        return Traced(_build(request.root, orders=request.orders, few_rows=few_rows))


def _build(request: ReductionRequest, *, orders: "tuple[Order, ...]", few_rows: str) -> ir.Module:
    element = ir.F32Type.get() if request.dtype == "float32" else ir.F64Type.get()
    dynamic = ir.ShapedType.get_dynamic_size()
    tensors = [ir.RankedTensorType.get([dynamic if entry.axis else 1, entry.dim], element) for entry in request.inputs]
    with ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            function = func.FuncOp(FUNCTION_NAME, (tensors, []))
        block = function.add_entry_block()
        with ir.InsertionPoint(block):
            values = _emit_nodes(request.nodes, list(block.arguments), request, element)
            results = []
            for output in request.outputs:
                formula, *weight = (values[operand] for operand in output.operands)
                with formula.owner.location:
                    results.append(
                        emit_reduce(
                            formula,
                            kind=output.kind,
                            axis=output.axis,
                            weight=weight[0] if weight else None,
                            k=output.k,
                            summation=summation_attributes(*output.summation),
                        )
                    )
            func.ReturnOp(results)
        types = ir.FunctionType.get(tensors, [result.type for result in results])
        function.attributes["function_type"] = ir.TypeAttr.get(types)
        function.attributes["arg_attrs"] = ir.ArrayAttr.get(
            [
                ir.DictAttr.get(
                    {
                        "reduction.name": ir.StringAttr.get(entry.name),
                        "reduction.axis": ir.StringAttr.get(entry.axis),
                    }
                )
                for entry in request.inputs
            ]
        )
        if request.ranged:
            function.attributes["reduction.ranged"] = ir.UnitAttr.get()
        if request.math_mode:
            function.attributes["reduction.math_mode"] = ir.StringAttr.get(request.math_mode)
        if few_rows:
            function.attributes["reduction.few_rows"] = ir.StringAttr.get(few_rows)
        if orders:
            function.attributes["reduction.derivatives"] = ir.ArrayAttr.get(
                [_order_attribute(order) for order in orders]
            )
    return module


def _order_attribute(order: "Order") -> ir.Attribute:
    integer = ir.IntegerType.get_signless(64)
    entries = {order.mode: ir.ArrayAttr.get([ir.IntegerAttr.get(integer, number) for number in order.numbers])}
    if order.with_results:
        entries["with_results"] = ir.UnitAttr.get()
    return ir.DictAttr.get(entries)


def _emit_nodes(
    nodes: tuple[Node, ...], arguments: list[ir.Value], request: ReductionRequest, element: ir.Type
) -> list[ir.Value]:
    values: list[ir.Value] = []
    for node in nodes:
        with _location(node.location):
            if node.op == "var":
                number = int(node.value or 0)
                values.append(emit_var(arguments[number], request.inputs[number].axis))
            elif node.op == "constant":
                values.append(emit_constant(float(node.value or 0), element))
            elif node.op == "index":
                values.append(emit_index(node.axes, element))
            else:
                operands = [values[operand] for operand in node.operands]
                values.append(emit_formula_op(node.op, *operands, **dict(node.attributes)))
    return values


def _location(found: "Location | None") -> ir.Location:
    if found is None:
        return ir.Location.unknown()
    place = ir.Location.file(found.filename, found.line, max(found.column, 1))
    return ir.Location.name(found.function, place) if found.function else place
