"""The constants of one function, as MLIR operations."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from pylazy.compiler.mlir import ir

__all__ = ["ConstantPool"]


class ConstantPool:
    """The constants of one function, each made once, at the start of its first block."""

    def __init__(self, block: ir.Block) -> None:
        """Prepare to put constants at the start of a block."""
        self._context = block.owner.context
        self._loc = ir.Location.unknown(self._context)
        # "The start of the block" is a place before an operation, which may be one that is replaced and erased.
        start = ir.InsertionPoint.at_block_begin(block)
        truth = ir.BoolAttr.get(True, self._context)
        i1 = ir.IntegerType.get_signless(1, self._context)
        self._anchor = ir.Operation.create(
            "arith.constant", results=[i1], attributes={"value": truth}, ip=start, loc=self._loc
        )
        self._ip = ir.InsertionPoint(self._anchor)
        self._values: dict[tuple[Any, ...], ir.Value] = {}
        self._attributes: dict[tuple[Any, ...], ir.Attribute] = {}
        self._types: dict[tuple[str, int | None], ir.Type] = {}

    def close(self) -> None:
        """Remove what marks the place of the constants; no more of them can be made."""
        self._anchor.erase()

    def element_type(self, name: str) -> ir.Type:
        """Return a scalar type by its name: "f32", "i64", "index"."""
        return self.type_of(name, None)

    def type_of(self, element: str, lanes: int | None) -> ir.Type:
        """Return the type of `lanes` elements; `None` is a scalar."""
        key = (element, lanes)
        found = self._types.get(key)
        if found is None:
            if lanes is None:
                found = ir.Type.parse(element, self._context)
            else:
                found = ir.VectorType.get([lanes], self.type_of(element, None), loc=self._loc)
            self._types[key] = found
        return found

    def constant(self, element: str, lanes: int | None, value: float) -> ir.Value:
        """Return a value of an element type, repeated in `lanes` lanes; `None` is a scalar."""
        # -0.0 and 0.0 are one key of a dictionary, and two constants.
        key = (element, lanes, value, value == 0 and math.copysign(1.0, value) < 0)
        found = self._values.get(key)
        if found is None:
            element_type = self.element_type(element)
            attribute: ir.Attribute
            if isinstance(value, int):
                attribute = ir.IntegerAttr.get(element_type, value)
            else:
                attribute = ir.FloatAttr.get(element_type, value, self._loc)
            found = self._create(attribute, element, lanes)
            self._values[key] = found
        return found

    def vector(self, element: str, values: Sequence[float]) -> ir.Value:
        """Return a vector of different values."""
        key = (element, tuple(values))
        found = self._values.get(key)
        if found is None:
            vector_type = self.type_of(element, len(values))
            element_type = self.element_type(element)
            attributes = [ir.FloatAttr.get(element_type, value, self._loc) for value in values]
            found = self._insert(ir.DenseElementsAttr.get(attributes, vector_type), vector_type)
            self._values[key] = found
        return found

    def name_attribute(self, name: str) -> ir.Attribute:
        """Return a string attribute."""
        return self._attribute(("name", name), lambda: ir.StringAttr.get(name, self._context))

    def sizes_attribute(self, sizes: tuple[int, ...]) -> ir.Attribute:
        """Return an array of 32-bit integers."""
        return self._attribute(("sizes", sizes), lambda: ir.DenseI32ArrayAttr.get(list(sizes), self._context))

    def number_attribute(self, number: int) -> ir.Attribute:
        """Return a 64-bit integer attribute."""
        return self._attribute(("number", number), lambda: ir.IntegerAttr.get(self.element_type("i64"), number))

    def _attribute(self, key: tuple[Any, ...], make: Callable[[], ir.Attribute]) -> ir.Attribute:
        found = self._attributes.get(key)
        if found is None:
            found = self._attributes[key] = make()
        return found

    def _create(self, attribute: ir.Attribute, element: str, lanes: int | None) -> ir.Value:
        if lanes is None:
            return self._insert(attribute, self.element_type(element))
        vector_type = self.type_of(element, lanes)
        return self._insert(ir.DenseElementsAttr.get_splat(vector_type, attribute), vector_type)

    def _insert(self, attribute: ir.Attribute, result_type: ir.Type) -> ir.Value:
        op = ir.Operation.create(
            "arith.constant", results=[result_type], attributes={"value": attribute}, ip=self._ip, loc=self._loc
        )
        return op.result
