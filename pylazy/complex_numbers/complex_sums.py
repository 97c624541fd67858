"""Sums that are complex by one of their parts: products with complex vectors, weighted sums of exponentials."""

from __future__ import annotations

from typing import Any

import numpy as np

from pylazy.arrays.imported_arrays import readable
from pylazy.complex_numbers.complex_arrays import (
    complex_array,
    delivered,
    from_parts_in_turn,
    log_of_scaled,
    parts_of,
    with_parts_in_turn,
)
from pylazy.complex_numbers.complex_lazy_tensor import complex_of, planar_of, remember_parts, with_expression
from pylazy.complex_numbers.complex_reductions import run_now, without_out
from pylazy.execution.wanted_results import Wanted
from pylazy.lazy_tensor import LazyTensor, column_of
from pylazy.methods.operands import combine
from pylazy.methods.reduction_methods import ReductionMethods
from pylazy.stages import Reduction


def matrix_product(matrix: LazyTensor, v: Any, options: dict[str, Any]) -> Any:
    """`K @ v` for a complex array or list v."""
    if isinstance(v, list | tuple):
        v = np.array(v, dtype=np.complex128)
    if not matrix.is_complex and options.get("call", True) and v.ndim:
        rest, out = without_out(options)
        found = matrix.__matmul__(with_parts_in_turn(v), **rest)
        if not isinstance(found, Reduction):
            result = from_parts_in_turn(found)
            return delivered(result[..., 0] if v.ndim == 1 else result, out)
    re, im, conjugated = parts_of(v)
    parts = column_of(readable(re), matrix._columns), column_of(readable(im), matrix._columns)
    remember_parts(v, parts, conjugated=conjugated)
    column = complex_of(*parts)
    product = combine("mul", matrix, column.conj() if conjugated else column)
    return product._reduce("j", (Wanted("sum", (0,)),), options, drop_inner=v.ndim == 1)


def reduce_exponentials(
    kind: str, operands: tuple[Any, ...], where: str, *, keepdim: bool, options: dict[str, Any]
) -> Any:
    """Reduce to the log of the sum of exp(f) g, or to that sum over the one of exp(f), where f or g is complex.

    With f = a + ib, one real reduction finds the weighted means of exp(ib) g and of exp(ib) under the softmax of a,
    which is stable whatever a is.
    """
    f = operands[0]
    rest, out = run_now(kind, [x._planar if x.is_complex else x._expression for x in operands], options)
    g = operands[1] if len(operands) == 2 else LazyTensor(1)
    size = f.real if f.is_complex else f
    terms = f.imag.exp1j() * g if f.is_complex else g
    over = f.is_complex and kind == "softmax"  # its divisor is complex too
    weight: Any = terms.concat(f.imag.exp1j()) if over else terms
    # The terms are those of the formula and the weight together, also where one of them has no such axis.
    size = with_expression(size.concat(weight), LazyTensor, size._expression)
    axis = -2 if where == "j" else -3
    means = ReductionMethods.sumsoftmaxweight(size, planar_of(weight), axis, keepdim=keepdim, **rest)
    result = complex_array(means)
    if over:
        result = result[..., :-1] / result[..., -1:]
    if kind == "logsumexp":
        result = log_of_scaled(result, ReductionMethods.logsumexp(size, axis, keepdim=keepdim, **rest))
    return delivered(result, out)
