"""Results as arrays: made, converted, and given back to the library that the inputs are of."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.arrays.array_libraries import NUMPY_DTYPES, is_tensor, is_traced
from pylazy.arrays.imported_arrays import UNREADABLE, namespace_of, readable
from pylazy.arrays.memory_layout import numpy_address
from pylazy.arrays.result_memory import LEAST_BYTES, recycled
from pylazy.arrays.source_devices import library_of
from pylazy.arrays.sources import TORCH, Source

if TYPE_CHECKING:
    from collections.abc import Sequence


def given_back(result: Any, sources: Sequence[Source]) -> Any:
    """Hand a NumPy result over to the library whose arrays are among the sources, by its own rules for dtypes."""
    namespace = library_of(sources)
    if hasattr(namespace, "record"):  # it was computed there
        return result
    try:
        return namespace.from_dlpack(result)
    except UNREADABLE:
        return namespace.asarray(result)


def empty_result(kind: str, shape: tuple[int, ...], dtype: str) -> Any:
    """Allocate a result, its elements not set."""
    if kind != TORCH:
        made = np.empty(shape, NUMPY_DTYPES[dtype])
        return made if made.nbytes < LEAST_BYTES else recycled(made)
    torch = sys.modules["torch"]
    tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=host_device())
    if tensor.nbytes < LEAST_BYTES:
        return tensor
    return torch.from_numpy(recycled(np.empty(shape, NUMPY_DTYPES[dtype])))


@cache
def host_device() -> Any:
    """The CPU, as torch names it: `torch.set_default_device` means new data, and not results of what lies there."""
    return sys.modules["torch"].device("cpu")


def converted(result: Any, dtype: str) -> Any:
    """Give a result in another dtype; values out of its range become infinities."""
    if not is_tensor(result):
        # Whoever has an array of bfloat16 has imported the package that it comes from.
        target = sys.modules["ml_dtypes"].bfloat16 if dtype == "bfloat16" else dtype
        with np.errstate(over="ignore"):
            return result.astype(target, copy=False)
    return result.to(getattr(sys.modules["torch"], dtype))


def detached(result: Any) -> Any:
    """Give a result without what it remembers of how it was made."""
    if is_tensor(result):
        return result.detach()
    return readable(result).array if is_traced(result) else result


def array_like(result: Any, values: Any) -> Any:
    """Convert a NumPy array to the kind and dtype of a result."""
    if isinstance(result, np.ndarray):
        return values.astype(result.dtype)
    if is_traced(result):
        return readable(result).namespace.library.asarray(values.astype(result.dtype))
    if not is_tensor(result):
        return namespace_of(result).asarray(values.astype(result.dtype))
    return sys.modules["torch"].from_numpy(values).to(result)


def in_kind_of(result: Any, v: Any) -> Any:
    """Give a tensor or an array of another library as NumPy's where v is one, for callers that know no other."""
    if not isinstance(v, np.ndarray) or isinstance(result, np.ndarray) or is_traced(result):
        return result
    return result.detach().cpu().numpy() if is_tensor(result) else readable(result).array


def placed_beside(v: Any, sources: Sequence[Source]) -> Any:
    """Copy a NumPy array to the GPU where the tensors among the sources lie, for callers that know no other arrays."""
    if isinstance(v, np.ndarray):
        for source in sources:
            if source.kind == TORCH and source.array.is_cuda:
                return sys.modules["torch"].from_numpy(np.ascontiguousarray(v)).to(source.array.device)
    return v


def quotient(result: Any, count: Any) -> Any:
    """Divide by a number of terms, or an array of such like the result; there is no quotient by none or less."""
    if isinstance(count, int):
        return result / count if count > 0 else result * float("nan")
    count = count + 0.0
    count[count <= 0] = float("nan")
    return result / count


def sum_to_shape(gradient: Any, shape: tuple[int, ...], own_batch: int) -> Any:
    """Sum a gradient (*batch, rows, dim) over the batch dimensions that an array lacks or repeats along.

    Args:
        gradient: of every batch element; an array of any library. The rows of pairs are one dimension.
        shape: of the array, whose gradient is wanted.
        own_batch: the number of its batch dimensions.
    """
    missing = gradient.ndim - 2 - own_batch
    repeated = tuple(
        axis
        for axis in range(gradient.ndim - 2)
        if axis < missing or (shape[axis - missing] == 1 and gradient.shape[axis] != 1)
    )
    if repeated:
        gradient = gradient.sum(repeated)
    return gradient.reshape(shape)


def result_address(result: Any) -> int:
    """The address of the first element of an array that `empty_result` made."""
    return numpy_address(result) if isinstance(result, np.ndarray) else int(result.data_ptr())
