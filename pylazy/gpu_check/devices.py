"""Where arrays live while they are checked: tensors of torch on its device, or host arrays that pylazy copies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = Any  # an ndarray
_HALF_BITS = "bfloat16"


class HostArrays:
    """NumPy arrays; kernels run where `backend` says, on copies."""

    name = "NumPy arrays on the host"
    has_gradients = False

    device = "cpu"

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def put(self, array: Array, dtype: str) -> Array | None:
        """Give an array of this dtype, or None where this library has none."""
        return None if dtype == _HALF_BITS else array.astype(dtype)

    def get(self, array: Any) -> Array:
        """Bring a result to the host."""
        return np.asarray(array)

    def milliseconds(self, work: Callable[[], Any]) -> float:
        """Time work by the clock, copies included."""
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) * 1e3


class TorchTensors:
    """Tensors on a device of torch; `backend` is for tensors of the CPU, whose kernels shall run elsewhere."""

    has_gradients = True

    def __init__(self, device: str, backend: str = "auto") -> None:
        import torch

        self._torch = torch
        self.device = device
        self.backend = backend
        self.name = f"torch {torch.__version__} tensors on {device}"

    def put(self, array: Array, dtype: str) -> Any:
        """Give a tensor of this dtype."""
        return self._torch.from_numpy(np.ascontiguousarray(array)).to(self.device, getattr(self._torch, dtype))

    def get(self, array: Any) -> Array:
        """Bring a result to the host, 16-bit floats as float32."""
        array = array.detach().cpu()
        return (array.float() if array.dtype is self._torch.bfloat16 else array).numpy()

    def gradients(self, function: Callable[..., Any], tensors: Sequence[Any], cotangent: Any) -> list[Any]:
        """Pull a cotangent back to every tensor."""
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        return list(self._torch.autograd.grad(function(*leaves), leaves, cotangent))

    def milliseconds(self, work: Callable[[], Any]) -> float:
        """Time work by events on the device's stream, or by the clock where the device is the CPU."""
        if self.device == "cpu":
            return HostArrays(self.backend).milliseconds(work)
        event: Any = self._torch.cuda.Event
        begin, end = event(enable_timing=True), event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))


Arrays = HostArrays | TorchTensors
