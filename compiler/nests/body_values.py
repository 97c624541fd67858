"""Values of a kernel body: their elements, their inner dimension, and the axes that they vary with."""

from typing import Any, NamedTuple

from pylazy.compiler.mlir import ir

#: Ops of the body whose elements the nest brings: from memory, or from its loops.
LOADS = frozenset({"reduction.load", "reduction.load_pair", "reduction.index_value"})


class Position(NamedTuple):
    """Which element of an inner vector: `base + offset`; `lowest` bounds it from below where `base` is an index.

    Loops over an inner dimension stop at seams, so all elements of a turn lie on one side. A position with `highest`
    may lie anywhere between the two bounds.
    """

    offset: int
    base: "ir.Value | None" = None
    lowest: int = 0
    highest: int | None = None

    def shifted(self, by: int) -> "Position":
        """Give the position `by` elements further."""
        highest = None if self.highest is None else self.highest + by
        return Position(self.offset + by, self.base, self.lowest + by, highest)

    def straddles(self, seam: int) -> bool:
        """Tell whether the element may lie on either side of a seam."""
        return self.highest is not None and self.lowest < seam <= self.highest


def element_of(value_type: ir.Type) -> ir.Type:
    """Give the type of one element: `vector<3x16xf32>` -> `vector<16xf32>`, `vector<3x1xf32>` -> `f32`."""
    vector = ir.VectorType(value_type)
    lanes = vector.shape[1:]
    if not lanes or lanes == [1]:
        return vector.element_type
    return ir.VectorType.get(lanes, vector.element_type)


def inner_dim(value: ir.Value) -> int:
    """Give the inner dimension of a body value."""
    return int(ir.VectorType(value.type).shape[0])


class BodyAxes:
    """What the values of a body vary with: "", "r" (row), "c" (column) or "rc"."""

    def __init__(self, body: Any) -> None:
        self._arguments = list(body.arguments)
        self._known: dict[ir.Value, str] = {}
        for operation in body.operations:  # operands come before results, so that no question goes deep
            for result in operation.results:
                self.of(result)

    def of(self, value: ir.Value) -> str:
        """Name the axes of one value."""
        found = self._known.get(value)
        if found is None:
            owner = value.owner
            if isinstance(owner, ir.Block):
                position = self._arguments.index(value) if value in self._arguments else -1
                found = "rc"[position] if position >= 0 else ""
            else:
                found = self.of_operation(owner)
            self._known[value] = found
        return found

    def of_operation(self, operation: Any) -> str:
        """Name the axes of all operands of an op together."""
        used = {self.of(operand) for operand in operation.operands}
        return "".join(axis for axis in "rc" if any(axis in some for some in used))
