"""How a `reduce` or an `accumulate` adds up: its attributes `accumulator` and `scheme`, both optional.

`accumulator` is the type of running sums where that is not the type of what is added up: f64 for values of f32.
`scheme` is "direct" for one running sum, "kahan" for a compensated one; without it, blocks of columns have sums of
their own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pylazy.compiler.dialects.reduction.dialect import attribute
from pylazy.compiler.mlir import ir

#: Kinds, of reductions and of accumulations, that have an accumulator, each with its schemes.
_SCHEMES: Mapping[str, frozenset[str]] = {
    "sum": frozenset({"direct", "kahan"}),
    "mean": frozenset({"direct", "kahan"}),
    "prod": frozenset(),
    "logsumexp": frozenset({"direct"}),
    "softmax": frozenset({"direct"}),
}
_NAMES = ("accumulator", "scheme")

NO_WISHES: Mapping[str, ir.Attribute] = MappingProxyType({})
"""The attributes of a reduction that adds up in its own type, by blocks."""


def summation_attributes(accumulator: str, scheme: str) -> dict[str, ir.Attribute]:
    """Build the attributes for the names of a dtype and of a scheme, where they are not ""."""
    attributes: dict[str, ir.Attribute] = {}
    if accumulator:
        element = ir.F64Type.get() if accumulator == "float64" else ir.F32Type.get()
        attributes["accumulator"] = ir.TypeAttr.get(element)
    if scheme:
        attributes["scheme"] = ir.StringAttr.get(scheme)
    return attributes


def summation_of(operation: Any) -> dict[str, ir.Attribute]:
    """Give the attributes of an op that say how it adds up."""
    return {name: operation.attributes[name] for name in _NAMES if name in operation.attributes}


def summation_for(kind: str, wishes: Mapping[str, ir.Attribute]) -> dict[str, ir.Attribute]:
    """Choose those of some attributes that a kind has: a gradient's reductions may be of other kinds than its own."""
    schemes = _SCHEMES.get(kind)
    if schemes is None:
        return {}
    return {name: found for name, found in wishes.items() if name != "scheme" or found.value in schemes}


def has_direct_sums(body: Any) -> bool:
    """Tell whether a body has a sum with one running sum a row, whose columns go neither in splits nor in lanes."""
    return any(attribute(operation, "scheme", "") == "direct" for operation in body.operations)


def fault_of_summation(operation: Any, element: ir.Type) -> str:
    """Say what is wrong with the attributes of an op that adds up values of a type, or ""."""
    kind, scheme = attribute(operation, "kind"), attribute(operation, "scheme", "")
    accumulator = attribute(operation, "accumulator")
    if accumulator is not None:
        if kind not in _SCHEMES:
            return f'of kind "{kind}" takes no accumulator'
        if not (isinstance(accumulator, ir.F64Type) and isinstance(element, ir.F32Type)):
            return f"adds up {element} in {accumulator}, expected f32 in f64"
    if scheme and scheme not in _SCHEMES.get(kind, ()):
        return f'of kind "{kind}" has no scheme "{scheme}"'
    return ""
