"""Evaluate level-1 modules with the oracle's operations: dense, in float64, without the compiler's lowerings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pylazy.compiler.dialects.reduction import attribute, lazy_dim, name_of
from pylazy.compiler.dialects.reduction.formula_ops import FORMULA_OPS
from pylazy.compiler.mlir import ir
from reference import OPERATIONS, reduce_dense

Array = Any  # an ndarray


def run_function(function: Any, arguments: Sequence[Array], *, rows: int, columns: int) -> list[Array]:
    """Evaluate a function of tensors.

    Args:
        function: a `func.func` of level-1 ops.
        arguments: one array (rows, dim) for each argument.
        rows: number of indices i.
        columns: number of indices j.

    Returns:
        One array (rows, dim) for each result.
    """
    block = function.regions[0].blocks[0]
    values = {
        value: np.asarray(array, dtype=np.float64) for value, array in zip(block.arguments, arguments, strict=True)
    }
    with np.errstate(all="ignore"):
        for op in block.operations:
            operation = op.operation
            operands = [values[operand] for operand in operation.operands]
            if operation.name == "func.return":
                return operands
            values[operation.results[0]] = _evaluate(operation, operands, rows, columns)
    raise AssertionError("the function does not return")


def _evaluate(operation: Any, operands: list[Array], rows: int, columns: int) -> Array:
    name = name_of(operation).removeprefix("reduction.")
    if name == "var":
        tensor = operands[0]
        views = {"i": (-1, 1), "j": (1, -1), "": (1, 1), "ij": (rows, columns), "ji": (columns, rows)}
        axis = attribute(operation, "axis")
        value = tensor[:1, None] if not axis else tensor.reshape(*views[axis], tensor.shape[1])
        return value.swapaxes(0, 1) if axis == "ji" else value
    if name == "index":
        count, view = (rows, (-1, 1, 1)) if attribute(operation, "axis") == "i" else (columns, (1, -1, 1))
        return np.arange(count, dtype=np.float64).reshape(view)
    if name == "constant":
        return np.full((1, 1, 1), attribute(operation, "value"))
    if name == "tabulate":
        value = np.broadcast_to(operands[0], (rows, columns, operands[0].shape[-1]))
        value = value if attribute(operation, "axis") == "ij" else value.swapaxes(0, 1)
        return value.reshape(-1, value.shape[-1])
    if name == "reduce":
        return _reduce(operation, operands, rows, columns)
    names = FORMULA_OPS[name].attributes
    result = np.asarray(OPERATIONS[name](*operands, **{key: attribute(operation, key) for key in names}))
    assert result.shape[2] == lazy_dim(operation.results[0])
    return result


def _reduce(operation: Any, operands: list[Array], rows: int, columns: int) -> Array:
    kind, axis = attribute(operation, "kind"), attribute(operation, "axis")
    if not ir.RankedTensorType(operation.results[0].type).is_dynamic_dim(0):
        rows, columns = (1, columns) if axis == "j" else (rows, 1)
    pairs = [np.broadcast_to(operand, (rows, columns, operand.shape[2])) for operand in operands]
    return reduce_dense(kind, pairs, axis=axis)
