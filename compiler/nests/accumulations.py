"""What an `accumulate` op says: the type and the size of its state, how it sums, and where its results go."""

from typing import Any

from pylazy.compiler.combiners import BLOCKED_KINDS, COMPONENT_COMBINERS
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_values import inner_dim

#: Kinds whose state is a sorted list.
SELECTIONS = frozenset({"kmin", "kmax"})
#: After the sums of an exponential state: the sum of weights 1, the shift.
_EXPONENTIAL_EXTRAS = 2


def accumulations_in(body: Any) -> list[Any]:
    """Give the accumulations of a body; where there are none, it stores values of pairs."""
    return [op for op in body.operations if name_of(op) == "reduction.accumulate"]


def accumulations_of(operation: Any) -> list[Any]:
    """Give the accumulations of a `map_reduce`."""
    return accumulations_in(operation.regions[0].blocks[0])


def attribute_segments(operation: Any) -> list[int]:
    """Give how many values, weights, value buffers and index buffers an `accumulate` op has."""
    return list(operation.attributes["operandSegmentSizes"])


def destinations(operation: Any) -> "tuple[ir.Value | None, ir.Value | None]":
    """Give the buffers for the values and the indices of an `accumulate` op."""
    segments = attribute_segments(operation)
    rest = list(operation.operands)[segments[0] + segments[1] :]
    values = rest[0] if segments[2] else None
    return values, rest[segments[2]] if segments[3] else None


def is_selection(operation: Any) -> bool:
    """Tell whether the state is a sorted list."""
    return attribute(operation, "kind") in SELECTIONS


def is_blocked(operation: Any) -> bool:
    """Tell whether chunks of columns have a state of their own."""
    return attribute(operation, "kind") in BLOCKED_KINDS and not attribute(operation, "scheme", "")


def is_compensated(operation: Any) -> bool:
    """Tell whether a sum keeps the errors of its additions."""
    return bool(attribute(operation, "scheme", "") == "kahan")


def accumulator_type(operation: Any) -> ir.Type:
    """Give the type of the state of an `accumulate` op."""
    return attribute(operation, "accumulator", ir.VectorType(operation.operands[0].type).element_type)


def _words(operation: Any) -> int:
    """Count the registers that a state takes where a value takes one."""
    value = ir.VectorType(operation.operands[0].type).element_type
    return max(1, int(accumulator_type(operation).width) // int(value.width))


def state_registers(operation: Any) -> float:
    """Count the registers that the state of an `accumulate` op takes for a row vector; lists take no number of them."""
    kind, segments = attribute(operation, "kind"), attribute_segments(operation)
    if kind in COMPONENT_COMBINERS:
        slots = 2 if segments[3] == 1 or is_compensated(operation) else 1
        return inner_dim(operation.operands[0]) * slots * _words(operation)
    if kind in {"logsumexp", "softmax"}:
        return ((inner_dim(operation.operands[1]) if segments[1] else 1) + 2) * _words(operation)
    return float("inf")


def partial_slots(operation: Any) -> tuple[int, int]:
    """Give the numbers, and the indices among them, that an unfinished state of a row needs."""
    dim, kind = inner_dim(operation.operands[0]), attribute(operation, "kind")
    segments = attribute_segments(operation)
    if kind in COMPONENT_COMBINERS:
        return dim * (2 if is_compensated(operation) else 1), dim * segments[3]
    if kind in SELECTIONS:
        return dim * attribute(operation, "k"), dim * attribute(operation, "k")
    return (inner_dim(operation.operands[1]) if segments[1] else 1) + _EXPONENTIAL_EXTRAS, 0
