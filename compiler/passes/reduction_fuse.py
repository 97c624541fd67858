"""Let reductions over the same pairs share one sweep."""

from typing import Any

from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.target import Target


def reduction_fuse(module: ir.Module, *, target: Target) -> None:
    """Merge each `map_reduce` into an earlier one over the same rows and columns.

    Runs after convert-reduction-to-map-reduce, which makes one op for each reduction, and before reduction-hoist, so
    that what two reductions share is hoisted once. An op that reads what a kernel between the two writes stays where
    it is. Afterwards `cse` merges what the bodies have in common. Two accumulations of one value that differ in what
    they give (the minimum, and its index) become one.
    """
    for function in module.body.operations:
        if name_of(function) == "func.func":
            _fuse_kernels(function)


def _fuse_kernels(function: Any) -> None:
    kernels: list[Any] = []
    for operation in list(function.regions[0].blocks[0].operations):
        if name_of(operation) != "reduction.map_reduce":
            kernels.append(operation)
            continue
        earlier = _fusable(kernels, operation)
        if earlier is None:
            kernels.append(operation)
        else:
            _append_body(earlier, operation)
            operation.operation.erase()
    for operation in kernels:
        if name_of(operation) == "reduction.map_reduce":
            _join_accumulations(operation.regions[0].blocks[0])


def _fusable(kernels: list[Any], operation: Any) -> "Any | None":
    """Find the last earlier kernel with the same axes that nothing written since keeps apart."""
    reads = _buffers(operation, {"reduction.load"})
    for kernel in reversed(kernels):
        if reads & _buffers(kernel, {"reduction.accumulate", "reduction.store", "reduction.store_pair"}):
            return None
        if name_of(kernel) == "reduction.map_reduce" and _axes(kernel) == _axes(operation):
            return kernel
    return None


def _axes(operation: Any) -> tuple[str, str]:
    return attribute(operation, "rows"), attribute(operation, "columns")


def _buffers(operation: Any, names: set[str]) -> set[ir.Value]:
    if not operation.regions:
        return set()
    found = set()
    for inner in operation.regions[0].blocks[0].operations:
        if name_of(inner) in names:
            found |= {value for value in inner.operands if isinstance(value.type, ir.MemRefType)}
    return found


def _append_body(kernel: Any, operation: Any) -> None:
    """Clone the body of `operation` before the terminator of `kernel`."""
    target, source = kernel.regions[0].blocks[0], operation.regions[0].blocks[0]
    values = dict(zip(source.arguments, target.arguments, strict=True))
    terminator = target.operations[len(target.operations) - 1]
    with ir.InsertionPoint(terminator):
        for inner in source.operations:
            if name_of(inner) == "reduction.yield":
                continue
            created = ir.Operation.create(
                name_of(inner),
                results=[value.type for value in inner.results],
                operands=[values.get(value, value) for value in inner.operands],
                attributes={key: inner.attributes[key] for key in inner.attributes},
                loc=inner.location,
            )
            values.update(zip(inner.results, created.results, strict=True))


def _join_accumulations(body: Any) -> None:
    """Join accumulations of one value, one kind and one k of which one gives values and the other indices."""
    seen: dict[Any, Any] = {}
    numbers = _value_numbers(body)
    for operation in list(body.operations):
        if name_of(operation) != "reduction.accumulate" or attribute(operation, "kind") not in _INDEXED:
            continue
        value = operation.operands[0]
        key = (numbers.get(value, value), attribute(operation, "kind"), attribute(operation, "k", 0))
        partner = seen.get(key)
        if partner is None or _segments(partner)[2:] == _segments(operation)[2:]:
            seen[key] = operation
            continue
        first, second = (partner, operation) if _segments(partner)[2] else (operation, partner)
        attributes = {name: operation.attributes[name] for name in operation.attributes}
        attributes["operandSegmentSizes"] = ir.DenseI32ArrayAttr.get([1, 0, 1, 1])
        with ir.InsertionPoint(operation), operation.location:
            ir.Operation.create(
                "reduction.accumulate",
                operands=[operation.operands[0], first.operands[1], second.operands[1]],
                attributes=attributes,
            )
        for old in (partner, operation):
            old.operation.erase()
        del seen[key]


_INDEXED = frozenset({"min", "max", "kmin", "kmax"})


def _segments(operation: Any) -> list[int]:
    return list(operation.attributes["operandSegmentSizes"])


def _value_numbers(body: Any) -> dict[ir.Value, int]:
    """Number the values of a body, equal computations alike: before `cse`, two bodies hold them twice."""
    numbers: dict[ir.Value, int] = {}
    known: dict[Any, int] = {}
    for operation in body.operations:
        attributes = tuple(sorted((name, str(operation.attributes[name])) for name in operation.attributes))
        operands = tuple(numbers.get(operand, operand) for operand in operation.operands)
        for position, result in enumerate(operation.results):
            key = (name_of(operation), attributes, str(result.type), operands, position)
            numbers[result] = known.setdefault(key, len(known))
    return numbers
