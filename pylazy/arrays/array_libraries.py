"""Whose an array is, who follows what is done with it, and the name of its dtype; no library is imported for that."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pylazy.dtypes import READABLE

NUMPY_DTYPES = {name: np.dtype(name) for name in READABLE if name != "bfloat16"}
NUMPY_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def is_tensor(value: Any) -> bool:
    """Whether this is a torch tensor; torch is not imported, as who has a tensor has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_traced(value: Any) -> bool:
    """Whether this is an array in a function of NumPy arrays that is differentiated; see `pylazy.differentiation`."""
    return hasattr(value, "__pylazy_imported__")


def torch_dtype_name(tensor: Any) -> str:
    """The name of a tensor's dtype as NumPy writes it."""
    torch = sys.modules["torch"]
    dtype = tensor.dtype
    if dtype is torch.float32:
        return "float32"
    return "float64" if dtype is torch.float64 else str(dtype).removeprefix("torch.")


def numpy_dtype_name(dtype: Any) -> str | None:
    """The name of a dtype of NumPy; None for those that no formula reads."""
    name = NUMPY_NAMES.get(dtype)
    # NumPy has no bfloat16: the one of the package ml_dtypes is known by its name.
    return "bfloat16" if name is None and dtype.name == "bfloat16" else name


def is_seen(tensor: Any) -> bool:
    """Whether autograd, forward mode or a transformation of torch.func follows what is done with a tensor."""
    torch = sys.modules["torch"]
    if (tensor.requires_grad and torch.is_grad_enabled()) or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return True
    forward_ad = torch.autograd.forward_ad
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def is_compiling() -> bool:
    """Whether torch.compile or torch.export reads this very code, to put what it does in a graph."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_dynamo_compiling()
