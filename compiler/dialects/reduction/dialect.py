"""The `reduction` dialect and its one type."""

from typing import Any

from pylazy.compiler.mlir import ext, ir

# IRDL cannot give a type parameter a shape, so verifiers read it through the accessors below.


class Reduction(ext.Dialect, name="reduction"):
    """Formulas over pairs (i, j), and the kernels that reduce them."""


class LazyType(Reduction.Type, name="lazy"):
    """The value of a formula: the axes it varies with and its inner vector, `!reduction.lazy<"ij", vector<3xf32>>`."""

    axes: ir.StringAttr
    vector: Any


def lazy_type(axes: str, vector: ir.Type) -> ir.Type:
    """Build `!reduction.lazy<axes, vector>`."""
    return LazyType.get(ir.StringAttr.get(axes), ir.TypeAttr.get(vector))


def is_lazy(value_type: ir.Type) -> bool:
    """Tell whether a type is a well-formed `!reduction.lazy`: known axes, and a vector of one static dimension."""
    if not isinstance(value_type, LazyType):
        return False
    axes, vector = (parameter.maybe_downcast() for parameter in value_type.params)
    if not isinstance(axes, ir.StringAttr) or axes.value not in {"", "i", "j", "ij"}:
        return False
    if not isinstance(vector, ir.TypeAttr) or not isinstance(vector.value, ir.VectorType):
        return False
    return vector.value.rank == 1 and vector.value.has_static_shape


def lazy_axes(value: ir.Value) -> str:
    """Name the axes that a lazy value varies with: "", "i", "j" or "ij"."""
    return str(ir.StringAttr(LazyType(value.type).params[0]).value)


def lazy_vector(value: ir.Value) -> ir.VectorType:
    """Give the inner vector type of a lazy value."""
    return ir.VectorType(ir.TypeAttr(LazyType(value.type).params[1]).value)


def lazy_dim(value: ir.Value) -> int:
    """Give the inner dimension of a lazy value."""
    return int(lazy_vector(value).shape[0])


def join_axes(axes: "list[str] | tuple[str, ...]") -> str:
    """Give the axes that a value computed from values with these axes varies with."""
    return "".join(axis for axis in "ij" if any(axis in some for some in axes))


def attribute(operation: Any, name: str, default: Any = None) -> Any:
    """Read an attribute of an op as a Python value; `default` where the op lacks it."""
    attributes = operation.attributes
    if name not in attributes:
        return default
    found = attributes[name]
    if isinstance(found, ir.ArrayAttr):
        return tuple(getattr(element, "value", element) for element in found)
    return getattr(found, "value", found)


def name_of(operation: Any) -> str:
    """Give the name of an op, or "" for a block (the owner of a block argument)."""
    return "" if isinstance(operation, ir.Block) else str(operation.operation.name)
