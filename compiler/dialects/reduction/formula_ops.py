"""Level 1 of the dialect: formulas, in ops of fixed arity on lazy values.

Most ops follow one of six signatures, so they are rows of `FORMULA_OPS` and their classes are made from the rows.
"""

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pylazy.compiler.dialects.reduction.dialect import (
    Reduction,
    attribute,
    is_lazy,
    join_axes,
    lazy_axes,
    lazy_dim,
    lazy_type,
    lazy_vector,
)
from pylazy.compiler.dialects.reduction.summation import NO_WISHES, fault_of_summation, summation_for
from pylazy.compiler.mlir import ext, ir


@dataclass(frozen=True)
class Signature:
    """How many operands an op takes, and which inner dimension its result has.

    `result` is "elementwise" (operands have dimension D or 1, the result D), "first" (as the first operand),
    "scalar" (any D gives 1), "pair" (as elementwise, then 1), "concat", "extract", "broadcast" (1 gives `size`),
    "contract", "soft_dtw" (1) or "soft_dtw_derivative" (the components of both series and of gamma). Attributes are
    integers, those of "contract" tuples of integers.
    """

    arity: int
    result: str
    attributes: tuple[str, ...] = ()


def _rows(names: str, signature: Signature) -> dict[str, Signature]:
    return dict.fromkeys(names.split(), signature)


FORMULA_OPS: Mapping[str, Signature] = {
    **_rows("neg abs exp log sqrt rsqrt square reciprocal sin cos tan asin acos atan", Signature(1, "elementwise")),
    **_rows("sinh cosh tanh exp2 log2 log1p expm1 cbrt erf erfc sigmoid softplus relu", Signature(1, "elementwise")),
    **_rows("step sign floor ceil trunc round xlogx sinxdivx isnan logical_not", Signature(1, "elementwise")),
    **_rows("powi", Signature(1, "elementwise", ("exponent",))),
    **_rows("add sub mul div pow atan2 minimum maximum hypot mod0", Signature(2, "elementwise")),
    **_rows("eq ne lt le gt ge logical_and logical_or", Signature(2, "elementwise")),
    **_rows("where ifelse clamp", Signature(3, "elementwise")),
    **_rows("inner_sum inner_prod inner_min inner_max inner_argmin inner_argmax", Signature(1, "scalar")),
    **_rows("sqnorm2 norm2", Signature(1, "scalar")),
    **_rows("normalize", Signature(1, "first")),
    **_rows("dot sqdist", Signature(2, "pair")),
    **_rows("concat", Signature(2, "concat")),
    **_rows("extract", Signature(1, "extract", ("start", "size"))),
    **_rows("broadcast one_hot", Signature(1, "broadcast", ("size",))),
    **_rows("contract", Signature(2, "contract", ("sizes", "left", "right", "kept"))),
    # Two series and gamma; then the derivative by all of these, and the Hessian times the vector of the last operand.
    **_rows("soft_dtw", Signature(3, "soft_dtw")),
    **_rows("soft_dtw_gradient", Signature(3, "soft_dtw_derivative")),
    **_rows("soft_dtw_hessian", Signature(4, "soft_dtw_derivative")),
}

#: The value of an attribute of a formula op.
Static = int | tuple[int, ...]

#: Reductions whose result is an index along the reduced axis.
INDEX_REDUCTIONS = frozenset({"argmin", "argmax", "argkmin", "argkmax"})
#: Reductions that give `k` results for each component.
K_REDUCTIONS = frozenset({"kmin", "argkmin", "kmax", "argkmax"})
REDUCTIONS = frozenset({"sum", "mean", "prod", "logsumexp", "softmax", "min", "max"}) | INDEX_REDUCTIONS | K_REDUCTIONS
#: Reductions of a scalar formula that may carry a vector of weights.
WEIGHTED_REDUCTIONS = frozenset({"logsumexp", "softmax"})


def contracted_dim(dims: "list[int]", labels: "Mapping[str, Any]") -> "int | None":
    """Give the inner dimension of a contraction, None where the labels do not fit the operands or each other.

    Each label numbers an entry of `sizes`. It stands at most once in `left`, `right` and `kept` each, and in two of
    them at least: a label of one operand alone would be a sum of that operand, one of the result alone a broadcast.
    """
    sizes: tuple[int, ...]
    lists: list[tuple[int, ...]]
    sizes, *lists = (labels[name] for name in ("sizes", "left", "right", "kept"))
    if any(size < 1 for size in sizes):
        return None
    if any(len(set(found)) != len(found) or not set(found) <= set(range(len(sizes))) for found in lists):
        return None
    if any(sum(label in found for found in lists) < 2 for label in range(len(sizes))):
        return None
    first, second, kept = (math.prod(sizes[label] for label in found) for found in lists)
    return kept if [first, second] == dims else None


def result_dim(op_name: str, dims: "list[int]", **attributes: Any) -> "int | None":
    """Give the inner dimension of an op's result, None where the operands' dimensions do not fit together."""
    rule = FORMULA_OPS[op_name].result
    start, size = attributes.get("start", 0), attributes.get("size", 0)
    if rule == "contract":
        return contracted_dim(dims, attributes)
    if rule.startswith("soft_dtw"):
        total = sum(dims[:3])
        fits = dims[2] == 1 and all(dim == total for dim in dims[3:])
        return (1 if rule == "soft_dtw" else total) if fits else None
    if rule in {"elementwise", "pair"}:
        widest = max(dims)
        if any(dim not in {1, widest} for dim in dims):
            return None
        return 1 if rule == "pair" else widest
    if rule == "scalar":
        return 1
    if rule == "concat":
        return sum(dims)
    if rule == "extract":
        return size if start >= 0 and size >= 1 and start + size <= dims[0] else None
    if rule == "broadcast":
        return size if dims[0] == 1 and size >= 1 else None
    return dims[0]


def _static_attribute(value: Static) -> ir.Attribute:
    integer = ir.IntegerType.get_signless(64)
    if isinstance(value, int):
        return ir.IntegerAttr.get(integer, value)
    return ir.ArrayAttr.get([ir.IntegerAttr.get(integer, number) for number in value])


def emit_formula_op(op_name: str, *operands: ir.Value, **attributes: Static) -> ir.Value:
    """Build a formula op at the current insertion point; its type follows from its operands."""
    dims = [lazy_dim(operand) for operand in operands]
    dim = result_dim(op_name, dims, **attributes)
    if dim is None:
        raise ValueError(f"reduction.{op_name}: inner dimensions {dims} with {attributes} do not fit together")
    element = lazy_vector(operands[0]).element_type
    axes = join_axes([lazy_axes(operand) for operand in operands])
    operation = ir.Operation.create(
        f"reduction.{op_name}",
        results=[lazy_type(axes, ir.VectorType.get([dim], element))],
        operands=list(operands),
        attributes={name: _static_attribute(value) for name, value in attributes.items()},
    )
    return operation.results[0]


def emit_constant(value: float, element: ir.Type) -> ir.Value:
    """Build a formula constant of inner dimension 1."""
    operation = ir.Operation.create(
        "reduction.constant",
        results=[lazy_type("", ir.VectorType.get([1], element))],
        attributes={"value": ir.FloatAttr.get(element, value)},
    )
    return operation.results[0]


def emit_var(tensor: ir.Value, axis: str) -> ir.Value:
    """Build the lazy view of a tensor whose rows are indexed by `axis`; see `VarOp`."""
    tensor_type = ir.RankedTensorType(tensor.type)
    vector = ir.VectorType.get([tensor_type.shape[1]], tensor_type.element_type)
    operation = ir.Operation.create(
        "reduction.var",
        results=[lazy_type(join_axes([axis]), vector)],
        operands=[tensor],
        attributes={"axis": ir.StringAttr.get(axis)},
    )
    return operation.results[0]


def emit_index(axis: str, element: ir.Type) -> ir.Value:
    """Build the number of the row (`axis` "i") or of the column ("j") of a pair, counted from 0."""
    operation = ir.Operation.create(
        "reduction.index",
        results=[lazy_type(axis, ir.VectorType.get([1], element))],
        attributes={"axis": ir.StringAttr.get(axis)},
    )
    return operation.results[0]


def emit_tabulate(value: ir.Value, axis: str) -> ir.Value:
    """Build the tensor that has the value of every pair in a row of its own; `axis` as for `VarOp`: "ij" or "ji"."""
    vector = lazy_vector(value)
    operation = ir.Operation.create(
        "reduction.tabulate",
        results=[ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), lazy_dim(value)], vector.element_type)],
        operands=[value],
        attributes={"axis": ir.StringAttr.get(axis)},
    )
    return operation.results[0]


def reduced_dim(kind: str, dim: int, weight_dim: "int | None", k: int) -> int:
    """Give the number of elements in a row of a reduction's result."""
    if weight_dim is not None:
        return weight_dim
    return dim * k if kind in K_REDUCTIONS else dim


def emit_reduce(
    value: ir.Value,
    *,
    kind: str,
    axis: str,
    weight: "ir.Value | None" = None,
    k: int = 0,
    summation: Mapping[str, ir.Attribute] = NO_WISHES,
) -> ir.Value:
    """Build a reduction over `axis`; the result is a tensor with one row for each index of the other axis.

    `summation` are the attributes that say how to add up, see `summation`; a kind takes those it has.
    """
    rows = ir.ShapedType.get_dynamic_size()
    return _emit_reduce(value, rows, kind=kind, axis=axis, weight=weight, k=k, summation=summation)


def emit_reduce_to_one_row(
    value: ir.Value, *, kind: str, axis: str, summation: Mapping[str, ir.Attribute] = NO_WISHES
) -> ir.Value:
    """Build a reduction over `axis` of a value that varies with no other axis; the result is a tensor of one row."""
    return _emit_reduce(value, 1, kind=kind, axis=axis, weight=None, k=0, summation=summation)


def _emit_reduce(
    value: ir.Value,
    rows: int,
    *,
    kind: str,
    axis: str,
    weight: "ir.Value | None",
    k: int,
    summation: Mapping[str, ir.Attribute],
) -> ir.Value:
    index = kind in INDEX_REDUCTIONS
    element = ir.IntegerType.get_signless(64) if index else lazy_vector(value).element_type
    dim = reduced_dim(kind, lazy_dim(value), None if weight is None else lazy_dim(weight), k)
    attributes = {"kind": ir.StringAttr.get(kind), "axis": ir.StringAttr.get(axis)}
    if kind in K_REDUCTIONS:
        attributes["k"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), k)
    attributes.update(summation_for(kind, summation))
    operation = ir.Operation.create(
        "reduction.reduce",
        results=[ir.RankedTensorType.get([rows, dim], element)],
        operands=[value] if weight is None else [value, weight],
        attributes=attributes,
    )
    return operation.results[0]


def _at_its_location(verify: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Let a verifier build types: MLIR also verifies where nobody has entered a context, as when it prints."""

    def verify_at_location(op: Any) -> bool:
        with op.operation.location:
            return verify(op)

    return verify_at_location


@_at_its_location
def _verify_formula_op(op: Any) -> bool:
    operation = op.operation
    op_name = operation.name.removeprefix("reduction.")
    operands = list(operation.operands)
    arity = FORMULA_OPS[op_name].arity
    if len(operands) != arity:
        operation.location.emit_error(f"'reduction.{op_name}' op has {len(operands)} operands, expected {arity}")
        return False
    result = operation.results[0]
    if not all(is_lazy(value.type) for value in [*operands, result]):
        operation.location.emit_error(f"'reduction.{op_name}' op takes and gives !reduction.lazy values")
        return False
    static = {name: attribute(operation, name) for name in FORMULA_OPS[op_name].attributes}
    for name, value in static.items():
        if not isinstance(value, tuple if FORMULA_OPS[op_name].result == "contract" else int):
            operation.location.emit_error(f"'reduction.{op_name}' op has no integer attribute `{name}`")
            return False
    dims = [lazy_dim(operand) for operand in operands]
    dim = result_dim(op_name, dims, **static)
    if dim is None:
        operation.location.emit_error(
            f"'reduction.{op_name}' op has operands of inner dimensions {dims}, which do not fit together"
        )
        return False
    element = lazy_vector(operands[0]).element_type
    expected = lazy_type(join_axes([lazy_axes(operand) for operand in operands]), ir.VectorType.get([dim], element))
    if result.type != expected:
        operation.location.emit_error(f"'reduction.{op_name}' op has result {result.type}, expected {expected}")
        return False
    if any(lazy_vector(operand).element_type != element for operand in operands):
        operation.location.emit_error(f"'reduction.{op_name}' op mixes element types")
        return False
    return True


def _make_class(op_name: str, signature: Signature) -> type:
    operands = ["value"] if signature.arity == 1 else [f"operand{k}" for k in range(signature.arity)]
    annotations: dict[str, Any] = dict.fromkeys(operands, ext.Operand[Any])
    kind = ir.ArrayAttr if signature.result == "contract" else ir.IntegerAttr
    annotations.update(dict.fromkeys(signature.attributes, kind))
    annotations["result"] = ext.Result[Any]
    class_name = "".join(part.capitalize() for part in op_name.split("_")) + "Op"
    body = {
        "__annotations__": annotations,
        "__doc__": f"`reduction.{op_name}`.",
        "__module__": __name__,
        "verify_invariants": _verify_formula_op,
    }
    return types.new_class(
        class_name,
        (Reduction.Operation,),
        {"name": op_name, "traits": [ext.Pure]},
        lambda namespace: namespace.update(body),
    )


FORMULA_CLASSES: Mapping[str, type] = {name: _make_class(name, signature) for name, signature in FORMULA_OPS.items()}


class VarOp(Reduction.Operation, name="var", traits=[ext.Pure]):
    """Rows of a tensor as a lazy value: `axis` says which index of the pair selects the row.

    With axis "ij" the tensor has a row for each pair: pair (i, j) reads row `i * N + j`, N the number of indices j;
    with axis "ji" row `j * M + i`, M the number of indices i.
    """

    tensor: ext.Operand[Any]
    axis: ir.StringAttr
    result: ext.Result[Any]

    @_at_its_location
    def verify_invariants(self) -> bool:
        """Check that the view has the axis, the dimension and the element type of the tensor's rows."""
        axis = attribute(self.operation, "axis")
        if axis not in {"i", "j", "", "ij", "ji"}:
            self.operation.location.emit_error(
                f'\'reduction.var\' op has axis "{axis}", expected "i", "j", "ij", "ji" or ""'
            )
            return False
        if (
            not isinstance(self.tensor.type, ir.RankedTensorType)
            or len(ir.RankedTensorType(self.tensor.type).shape) != 2
        ):
            self.operation.location.emit_error(f"'reduction.var' op views {self.tensor.type}, expected a rank-2 tensor")
            return False
        tensor_type = ir.RankedTensorType(self.tensor.type)
        if tensor_type.is_dynamic_dim(1):
            self.operation.location.emit_error(f"'reduction.var' op views {tensor_type}, expected a static row length")
            return False
        expected = lazy_type(join_axes([axis]), ir.VectorType.get([tensor_type.shape[1]], tensor_type.element_type))
        if self.result.type != expected:
            self.operation.location.emit_error(f"'reduction.var' op has result {self.result.type}, expected {expected}")
            return False
        return True


class ConstantOp(Reduction.Operation, name="constant", traits=[ext.Pure]):
    """A number."""

    value: ir.FloatAttr
    result: ext.Result[Any]

    @_at_its_location
    def verify_invariants(self) -> bool:
        """Check that the result is one element without axes, of the attribute's type."""
        value = self.operation.attributes.get("value", None)
        if not isinstance(value, ir.FloatAttr):
            self.operation.location.emit_error("'reduction.constant' op has no float attribute `value`")
            return False
        expected = lazy_type("", ir.VectorType.get([1], value.type))
        if self.result.type != expected:
            self.operation.location.emit_error(
                f"'reduction.constant' op has result {self.result.type}, expected {expected}"
            )
            return False
        return True


class IndexOp(Reduction.Operation, name="index", traits=[ext.Pure]):
    """The number of the row (axis "i") or of the column (axis "j") of a pair, counted from 0, as a float."""

    axis: ir.StringAttr
    result: ext.Result[Any]

    @_at_its_location
    def verify_invariants(self) -> bool:
        """Check the axis and that the result is one float that varies with it."""
        axis = attribute(self.operation, "axis")
        if axis not in {"i", "j"}:
            self.operation.location.emit_error(f'\'reduction.index\' op has axis "{axis}", expected "i" or "j"')
            return False
        result = self.result
        fits = is_lazy(result.type) and lazy_axes(result) == axis and lazy_dim(result) == 1
        if not fits or not isinstance(lazy_vector(result).element_type, ir.FloatType):
            self.operation.location.emit_error(
                f"'reduction.index' op has result {result.type}, expected one float that varies with its axis"
            )
            return False
        return True


class TabulateOp(Reduction.Operation, name="tabulate", traits=[ext.Pure]):
    """The value of every pair, in a tensor with a row for each: what `var` of the same axis views."""

    value: ext.Operand[Any]
    axis: ir.StringAttr
    result: ext.Result[Any]

    @_at_its_location
    def verify_invariants(self) -> bool:
        """Check the axis and the shape of the result."""
        axis, value = attribute(self.operation, "axis"), self.operation.operands[0]
        if axis not in {"ij", "ji"} or not is_lazy(value.type):
            found = f'axis "{axis}" and operand {value.type}'
            self.operation.location.emit_error(
                f'\'reduction.tabulate\' op has {found}, expected "ij" or "ji" and a formula'
            )
            return False
        rows = ir.ShapedType.get_dynamic_size()
        expected = ir.RankedTensorType.get([rows, lazy_dim(value)], lazy_vector(value).element_type)
        if self.result.type != expected:
            self.operation.location.emit_error(
                f"'reduction.tabulate' op has result {self.result.type}, expected {expected}"
            )
            return False
        return True


def weight_of(reduce_op: Any) -> "ir.Value | None":
    """Give the weight of a `reduce` op; the bindings' accessor wants segment sizes even for one optional operand."""
    operands = reduce_op.operation.operands
    return operands[1] if len(operands) > 1 else None


class ReduceOp(Reduction.Operation, name="reduce", traits=[ext.Pure]):
    """Reduce a formula over one axis: one row of results for each index of the other.

    A formula that varies with the reduced axis at most may have a result of type `tensor<1xDxT>`: one row in all. The
    attributes `accumulator` and `scheme` say how to add up; see `summation`.
    """

    value: ext.Operand[Any]
    kind: ir.StringAttr
    axis: ir.StringAttr
    result: ext.Result[Any]
    weight: ext.Operand[Any] | None = None

    @_at_its_location
    def verify_invariants(self) -> bool:
        """Check the kind, the axis, the weight, `k` and the shape of the result."""
        message = self._first_fault()
        if message:
            self.operation.location.emit_error(f"'reduction.reduce' op {message}")
        return not message

    def _first_fault(self) -> str:
        if len(self.operation.operands) not in {1, 2}:
            return f"has {len(self.operation.operands)} operands, expected a formula and perhaps a weight"
        value = self.operation.operands[0]
        kind, axis = attribute(self.operation, "kind"), attribute(self.operation, "axis")
        k = attribute(self.operation, "k", 0)
        if not all(is_lazy(operand.type) for operand in self.operation.operands):
            return "reduces something that is no !reduction.lazy value"
        if kind not in REDUCTIONS:
            return f'has kind "{kind}", expected one of {", ".join(sorted(REDUCTIONS))}'
        if axis not in {"i", "j"}:
            return f'has axis "{axis}", expected "i" or "j"'
        if not isinstance(k, int) or (kind in K_REDUCTIONS) != (k >= 1):
            return f'of kind "{kind}" has k = {k}'
        weight = weight_of(self)
        if weight is not None and kind not in WEIGHTED_REDUCTIONS:
            return f'of kind "{kind}" takes no weight'
        if kind == "softmax" and weight is None:
            return 'of kind "softmax" needs a weight'
        if kind in WEIGHTED_REDUCTIONS and lazy_dim(value) != 1:
            return f'of kind "{kind}" reduces inner dimension {lazy_dim(value)}, expected 1'
        fault = fault_of_summation(self.operation, lazy_vector(value).element_type)
        if fault:
            return fault
        if not isinstance(self.result.type, ir.RankedTensorType):
            return f"has result {self.result.type}, expected a tensor"
        result_type = ir.RankedTensorType(self.result.type)
        weight_dim = None if weight is None else lazy_dim(weight)
        dim = reduced_dim(kind, lazy_dim(value), weight_dim, k)
        element = ir.IntegerType.get_signless(64) if kind in INDEX_REDUCTIONS else lazy_vector(value).element_type
        if len(result_type.shape) != 2 or result_type.shape[1] != dim or result_type.element_type != element:
            return f"has result {result_type}, expected rows of {dim} x {element}"
        if not result_type.is_dynamic_dim(0):
            others = join_axes([lazy_axes(operand) for operand in self.operation.operands]).replace(axis, "")
            if result_type.shape[0] != 1 or others:
                return f"has result {result_type}, expected a row for each index of the other axis"
        return ""
