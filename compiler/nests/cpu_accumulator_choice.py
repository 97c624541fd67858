"""Which accumulator a CPU kernel has for an `accumulate` op: by its kind, and by the registers that its state takes."""

from typing import Any

from pylazy.compiler.combiners import COMPONENT_COMBINERS
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.accumulations import attribute_segments, is_selection, state_registers
from pylazy.compiler.nests.cpu_accumulators import Accumulator, Shape
from pylazy.compiler.nests.cpu_components import PanelComponents, RegisterComponents
from pylazy.compiler.nests.cpu_exponentials import PanelExponentials, RegisterExponentials
from pylazy.compiler.nests.cpu_selection import Selection


def make_accumulator(operation: Any, shape: Shape, index: ir.Type) -> Accumulator:
    """Choose the accumulator of an `accumulate` op; stack panels are allocated at once."""
    if is_selection(operation):
        return Selection(operation, shape, index)
    in_registers = state_registers(operation) * shape.row_vectors <= shape.register_limit
    if attribute(operation, "kind") in COMPONENT_COMBINERS:
        chosen = RegisterComponents if in_registers else PanelComponents
        return chosen(operation, shape, index, indexed=attribute_segments(operation)[3] == 1)
    return (RegisterExponentials if in_registers else PanelExponentials)(operation, shape)
