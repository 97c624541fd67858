"""Variables that belong to pairs: dense arrays with a value for each, and the numbers of their rows and columns."""

# ruff: noqa: N802  the name Vij stands beside pykeops' own Vi and Vj

from __future__ import annotations

from typing import Any

from pylazy.arrays.imported_arrays import is_array, readable
from pylazy.arrays.sources import array_source
from pylazy.expression import index, variable
from pylazy.lazy_formula import new
from pylazy.lazy_tensor import LazyTensor
from pylazy.methods.operands import checked_dim, is_complex
from pylazy.runtime.errors import AxisError, DtypeError
from pylazy.user_positions import at_user_line


def Vij(a: Any) -> LazyTensor:
    """A variable with a value for each pair, which is stored: a cost, a mask or a matrix that is there already.

    Args:
        a: an array of shape (M, N), (M, N, D) or (*batch, M, N, D). Each run reads all of it; an array that is not
            contiguous after its batch dimensions is copied at each run.

    Raises:
        AxisError: the array has fewer than two dimensions.
        DtypeError: this is no array, or a complex one, or its elements are of a dtype that formulas do not read.
    """
    if not is_array(a):
        raise DtypeError(at_user_line(f"Vij was given {type(a).__name__}, expected an array of shape (M, N)"))
    a = readable(a)
    if is_complex(a):
        raise DtypeError(
            at_user_line("Vij was given a complex array, expected a real one: use Vij(a.real) + 1j * Vij(a.imag)")
        )
    shape = tuple(a.shape)
    if len(shape) < 2:
        raise AxisError(
            at_user_line(f"Vij was given an array of shape {shape}, expected (M, N), (M, N, D) or (*batch, M, N, D)")
        )
    batch = shape[:-3]
    rows, columns = shape[len(batch) : len(batch) + 2]
    dim = shape[-1] if len(shape) > 2 else 1
    source = array_source(a, what=f"the array of shape {shape}", batch=len(batch), view="ij")
    leaf = variable(source, axis="ij", dim=checked_dim(dim), dtype=source.dtype)
    return new(LazyTensor, leaf, batch, rows, columns, None)


def row_index() -> LazyTensor:
    """The number of the row i of each pair, counted from 0; the rows are those of what it meets.

    It has the dtype of what it meets, and no derivative. Reductions in float32 take up to 2**24 rows.
    """
    return new(LazyTensor, index("i"), (), None, None, None)


def column_index() -> LazyTensor:
    """The number of the column j of each pair, counted from 0; as `row_index`."""
    return new(LazyTensor, index("j"), (), None, None, None)
