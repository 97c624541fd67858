"""Level 2 of the dialect: kernels, as one region op for each loop nest over pairs of indices.

A body computes with upstream arith, math and vector ops on vectors whose first dimension is the inner dimension of the
formula; after `reduction-vectorize` a second dimension holds the lanes. The ops here say only what upstream cannot.
"""

from typing import Any

from pylazy.compiler.dialects.reduction.dialect import Reduction, attribute
from pylazy.compiler.dialects.reduction.formula_ops import contracted_dim
from pylazy.compiler.dialects.reduction.summation import fault_of_summation
from pylazy.compiler.mlir import ext, ir

#: How an accumulation combines pairs; `min` to `kmax` may give values, indices or both.
ACCUMULATIONS = frozenset({"sum", "mean", "prod", "logsumexp", "softmax", "min", "max", "kmin", "kmax"})
INNER_REDUCTIONS = frozenset({"add", "mul", "minimum", "maximum", "argmin", "argmax"})


def _refuse(op: Any, message: str) -> bool:
    op.operation.location.emit_error(f"'{op.operation.name}' op {message}")
    return False


def _has_index_arguments(op: Any, count: int) -> bool:
    types = [argument.type for argument in op.body.blocks[0].arguments]
    return len(types) == count and all(isinstance(some, ir.IndexType) for some in types)


class MapReduceOp(Reduction.Operation, name="map_reduce"):
    """One sweep over all pairs (row, column): `rows` is the parallel axis, `columns` the reduced one.

    With `rows = ""` there is one row: a reduction of what a kernel before it reduced already. With a `table` the sweep
    is over the pairs that the table lists; see the role "table" in pylazy.runtime.kernel.
    """

    rows: ir.StringAttr
    columns: ir.StringAttr
    body: ext.Region
    table: ext.Operand[Any] | None = None

    def verify_region_invariants(self) -> bool:
        """Check the axes and that the body is one block over two indices."""
        rows, columns = attribute(self.operation, "rows"), attribute(self.operation, "columns")
        if columns not in {"i", "j"} or rows not in {"i", "j", ""} - {columns}:
            return _refuse(
                self, f'has rows "{rows}" and columns "{columns}", expected two axes of "i", "j", or no rows'
            )
        if any(str(operand.type) != "memref<?x1xi64>" for operand in self.operation.operands):
            return _refuse(self, f"has a table of {self.operation.operands[0].type}, expected memref<?x1xi64>")
        if not _has_index_arguments(self, 2):
            return _refuse(self, "has a body that does not take two indices (row, column)")
        return True


class MapOp(Reduction.Operation, name="map"):
    """A computation for each index of one axis, stored for later kernels; `rows = ""` is a single computation."""

    rows: ir.StringAttr
    body: ext.Region

    def verify_region_invariants(self) -> bool:
        """Check the axis and that the body is one block over one index."""
        if attribute(self.operation, "rows") not in {"i", "j", ""}:
            return _refuse(self, f'has rows "{attribute(self.operation, "rows")}", expected "i", "j" or ""')
        if not _has_index_arguments(self, 1):
            return _refuse(self, "has a body that does not take one index")
        return True


class LoadOp(Reduction.Operation, name="load", traits=[ext.Pure]):
    """One row of a buffer; without an index, the only row. Inputs of a kernel are never written, hence no effect."""

    buffer: ext.Operand[Any]
    result: ext.Result[Any]
    index: ext.Operand[Any] | None = None

    def verify_invariants(self) -> bool:
        """Check that the vector has the row's length and element type."""
        buffer, vector = ir.MemRefType(self.operation.operands[0].type), ir.VectorType(self.result.type)
        if buffer.shape[1] != vector.shape[0] or buffer.element_type != vector.element_type:
            return _refuse(self, f"reads rows of {buffer} as {vector}")
        return True


class LoadPairOp(Reduction.Operation, name="load_pair", traits=[ext.Pure]):
    """The row of a pair: row `slow * F + fast` of a buffer with a row for each pair, F the extent of the fast index."""

    buffer: ext.Operand[Any]
    slow: ext.Operand[Any]
    fast: ext.Operand[Any]
    result: ext.Result[Any]

    def verify_invariants(self) -> bool:
        """Check that the vector has the row's length and element type."""
        buffer, vector = ir.MemRefType(self.operation.operands[0].type), ir.VectorType(self.result.type)
        if buffer.shape[1] != vector.shape[0] or buffer.element_type != vector.element_type:
            return _refuse(self, f"reads pairs of {buffer} as {vector}")
        return True


class IndexValueOp(Reduction.Operation, name="index_value", traits=[ext.Pure]):
    """A row or column index as a float."""

    index: ext.Operand[Any]
    result: ext.Result[Any]

    def verify_invariants(self) -> bool:
        """Check that the result is one float."""
        vector = ir.VectorType(self.result.type)
        if vector.shape[0] != 1 or not isinstance(vector.element_type, ir.FloatType):
            return _refuse(self, f"gives {vector}, expected one float")
        return True


class StoreOp(Reduction.Operation, name="store"):
    """Write one row of a buffer."""

    value: ext.Operand[Any]
    buffer: ext.Operand[Any]
    index: ext.Operand[Any]

    def verify_invariants(self) -> bool:
        """Check that the vector has the row's length and element type."""
        buffer, vector = ir.MemRefType(self.buffer.type), ir.VectorType(self.value.type)
        if buffer.shape[1] != vector.shape[0] or buffer.element_type != vector.element_type:
            return _refuse(self, f"writes {vector} into rows of {buffer}")
        return True


class StorePairOp(Reduction.Operation, name="store_pair"):
    """Write the row of a pair: row `slow * F + fast`, as `load_pair` reads it."""

    value: ext.Operand[Any]
    buffer: ext.Operand[Any]
    slow: ext.Operand[Any]
    fast: ext.Operand[Any]

    def verify_invariants(self) -> bool:
        """Check that the vector has the row's length and element type."""
        buffer, vector = ir.MemRefType(self.buffer.type), ir.VectorType(self.value.type)
        if buffer.shape[1] != vector.shape[0] or buffer.element_type != vector.element_type:
            return _refuse(self, f"writes {vector} into pairs of {buffer}")
        return True


class AccumulateOp(Reduction.Operation, name="accumulate"):
    """Combine the pair's value into the row's result: the only way out of a `map_reduce`.

    `values` and `indices` are the buffers that receive the finished results; `min`, `max`, `kmin` and `kmax` may have
    either or both, all others have `values`. `weight` belongs to `logsumexp` and `softmax`. The attributes
    `accumulator` and `scheme` are those of `reduce`.
    """

    value: ext.Operand[Any]
    kind: ir.StringAttr
    weight: ext.Operand[Any] | None = None
    values: ext.Operand[Any] | None = None
    indices: ext.Operand[Any] | None = None

    def verify_invariants(self) -> bool:
        """Check the kind and which buffers and weights it has."""
        kind = attribute(self.operation, "kind")
        if kind not in ACCUMULATIONS:
            return _refuse(self, f'has kind "{kind}", expected one of {", ".join(sorted(ACCUMULATIONS))}')
        if self.indices is not None and kind not in {"min", "max", "kmin", "kmax"}:
            return _refuse(self, f'of kind "{kind}" has no indices')
        if self.values is None and self.indices is None:
            return _refuse(self, "has no buffer for its result")
        if self.weight is not None and kind not in {"logsumexp", "softmax"}:
            return _refuse(self, f'of kind "{kind}" takes no weight')
        fault = fault_of_summation(self.operation, ir.VectorType(self.value.type).element_type)
        return not fault or _refuse(self, fault)


class InnerReduceOp(Reduction.Operation, name="inner_reduce", traits=[ext.Pure]):
    """Reduce the inner dimension of a vector to 1."""

    value: ext.Operand[Any]
    kind: ir.StringAttr
    result: ext.Result[Any]

    def verify_invariants(self) -> bool:
        """Check the kind and that only the first dimension shrinks."""
        kind = attribute(self.operation, "kind")
        if kind not in INNER_REDUCTIONS:
            return _refuse(self, f'has kind "{kind}", expected one of {", ".join(sorted(INNER_REDUCTIONS))}')
        value, result = ir.VectorType(self.value.type), ir.VectorType(self.result.type)
        if result.shape != [1, *value.shape[1:]] or result.element_type != value.element_type:
            return _refuse(self, f"reduces {value} to {result}")
        return True


class ConcatOp(Reduction.Operation, name="concat_rows", traits=[ext.Pure]):
    """Join two vectors along the inner dimension."""

    first: ext.Operand[Any]
    second: ext.Operand[Any]
    result: ext.Result[Any]

    def verify_invariants(self) -> bool:
        """Check that the first dimensions add up."""
        first, second, result = (ir.VectorType(value.type) for value in (self.first, self.second, self.result))
        if result.shape != [first.shape[0] + second.shape[0], *first.shape[1:]] or first.shape[1:] != second.shape[1:]:
            return _refuse(self, f"joins {first} and {second} to {result}")
        return True


class ContractOp(Reduction.Operation, name="contract_rows", traits=[ext.Pure]):
    """Sum products of two tensors by rows: the `contract` of level 1, with the same labels."""

    first: ext.Operand[Any]
    second: ext.Operand[Any]
    sizes: ir.ArrayAttr
    left: ir.ArrayAttr
    right: ir.ArrayAttr
    kept: ir.ArrayAttr
    result: ext.Result[Any]

    def verify_invariants(self) -> bool:
        """Check that the labels give the dimensions of the vectors."""
        types = [ir.VectorType(value.type) for value in (*self.operation.operands, self.operation.results[0])]
        names = ("sizes", "left", "right", "kept")
        labels = {name: attribute(self.operation, name) for name in names}
        complete = all(isinstance(found, tuple) for found in labels.values())
        dim = contracted_dim([vector.shape[0] for vector in types[:2]], labels) if complete else None
        if dim is None or types[2].shape != [dim, *types[0].shape[1:]]:
            return _refuse(self, f"contracts {types[0]} and {types[1]} to {types[2]}, which its labels do not say")
        return True


class SoftDtwOp(Reduction.Operation, name="soft_dtw_rows", traits=[ext.Pure]):
    """Soft dynamic time warping of two series: its value (order 0), or its derivative by x, y and gamma (order 1).

    With a vector `along` (order 2) the derivative of that derivative along it: the Hessian times the vector.
    """

    x: ext.Operand[Any]
    y: ext.Operand[Any]
    gamma: ext.Operand[Any]
    order: ir.IntegerAttr
    result: ext.Result[Any]
    along: ext.Operand[Any] | None = None

    def verify_invariants(self) -> bool:
        """Check that the vectors have the dimensions that the order asks for."""
        order = attribute(self.operation, "order")
        values = [*self.operation.operands, self.operation.results[0]]
        dims = [ir.VectorType(value.type).shape[0] for value in values]
        total = sum(dims[:3])
        expected = {0: [1], 1: [total], 2: [total, total]}.get(order)
        if expected is None or dims[2] != 1 or dims[3:] != expected:
            return _refuse(self, f"of order {order} has operands and result of dimensions {dims}")
        return True


class PositionsOp(Reduction.Operation, name="positions", traits=[ext.Pure]):
    """The vector 0, 1, 2..."""

    result: ext.Result[Any]

    def verify_invariants(self) -> bool:
        """Check that the numbers are floats, as those that they are compared with."""
        if not isinstance(ir.VectorType(self.result.type).element_type, ir.FloatType):
            return _refuse(self, f"counts in {self.result.type}, expected floats")
        return True


class YieldOp(Reduction.Operation, name="yield", traits=[ir.IsTerminatorTrait]):
    """The end of a body."""
