"""Give the body values of kernels their lanes."""

from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_values import LOADS
from pylazy.compiler.target import Target


def reduction_vectorize(module: ir.Module, *, target: Target) -> None:
    """Turn values that vary with the row into `vector<DxLxT>`, one row a lane; all others become `vector<Dx1xT>`.

    Runs after reduction-tile, which chose the number of lanes L, and before convert-reduction-to-scf. Where a value of
    all lanes meets one of a single lane, a `vector.broadcast` says so: what stands before it is computed once for all
    lanes. Kernel ops of one lane are left alone.
    """
    for function in module.body.operations:
        if name_of(function) != "func.func":
            continue
        for operation in list(function.regions[0].blocks[0].operations):
            if name_of(operation) in {"reduction.map", "reduction.map_reduce"}:
                lanes = attribute(operation, "lanes", 1)
                if lanes > 1:
                    _Vectorization(operation, lanes).run()


class _Vectorization:
    """One body, rebuilt op by op."""

    def __init__(self, operation: Any, lanes: int) -> None:
        self.operation = operation
        self.lanes = lanes
        self.values: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        old = self.operation.regions[0].blocks[0]
        arguments = [argument.type for argument in old.arguments]
        with self.operation.location, ir.InsertionPoint(self.operation):
            new = ir.Operation.create(
                name_of(self.operation),
                operands=list(self.operation.operands),
                attributes={key: self.operation.attributes[key] for key in self.operation.attributes},
                regions=1,
            )
        block = new.regions[0].blocks.append(*arguments, arg_locs=[self.operation.location] * len(arguments))
        self.values.update(zip(old.arguments, block.arguments, strict=True))
        self.lane_index = block.arguments[1 if attribute(self.operation, "lane_axis", "rows") == "columns" else 0]
        with ir.InsertionPoint(block):
            for operation in old.operations:
                with operation.location:
                    self._rebuild(operation)
        self.operation.operation.erase()

    def _operand(self, value: ir.Value) -> ir.Value:
        """Give the new value; constants that an earlier pass moved out of the body come back into it."""
        if value not in self.values:
            owner = value.owner
            if name_of(owner) != "arith.constant":
                return value
            self._rebuild(owner)
        return self.values[value]

    def _rebuild(self, operation: Any) -> None:
        name = name_of(operation)
        operands = [self._operand(value) for value in operation.operands]
        attributes = {key: operation.attributes[key] for key in operation.attributes}
        if name == "arith.constant":
            result = _with_lanes(operation.results[0].type, 1)
            attributes["value"] = _reshape(operation.attributes["value"], result)
            types = [result]
        elif name in LOADS:
            varies = self.lane_index in operands
            types = [_with_lanes(operation.results[0].type, self.lanes if varies else 1)]
        else:
            vectors = [value for value in operands if isinstance(value.type, ir.VectorType)]
            lanes = max((ir.VectorType(value.type).shape[1] for value in vectors), default=1)
            if name not in {"reduction.accumulate", "reduction.store", "reduction.store_pair"}:
                operands = [self._widen(value, lanes) for value in operands]
            types = [_with_lanes(value.type, lanes) for value in operation.results]
        created = ir.Operation.create(name, results=types, operands=operands, attributes=attributes)
        self.values.update(zip(operation.results, created.results, strict=True))

    def _widen(self, value: ir.Value, lanes: int) -> ir.Value:
        vector = ir.VectorType(value.type)
        if vector.shape[1] == lanes:
            return value
        return kb.emit("vector.broadcast", (value,), ir.VectorType.get([vector.shape[0], lanes], vector.element_type))


def _with_lanes(value_type: ir.Type, lanes: int) -> ir.Type:
    vector = ir.VectorType(value_type)
    return ir.VectorType.get([vector.shape[0], lanes], vector.element_type)


def _reshape(dense: ir.Attribute, result: ir.Type) -> ir.Attribute:
    element = ir.VectorType(result).element_type
    if dense.is_splat:
        return ir.DenseElementsAttr.get_splat(result, ir.FloatAttr.get(element, dense.get_splat_value().value))
    numbers = [ir.FloatAttr.get(element, dense[position]) for position in range(len(dense))]
    return ir.DenseElementsAttr.get(numbers, result)
