"""Operations of torch on CUDA tensors of a stand-in, computed on the host.

All of torch is that of a GPU, its allocator, streams, threads of autograd and graphs, but for what an operation
computes: that is done by torch's own CPU operation on the same memory, when the stream comes to it.
"""

import ctypes
import itertools
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stand_in import StandInDriver
from stand_in_libraries import DRIVER, RUNTIME
from torch.utils import _pytree as pytree

#: What launches no kernel, or is made of other operations: it stays that of CUDA.
_KEPT = (
    "empty", "empty_strided", "as_strided", "view", "_reshape_alias", "resize_", "set_", "record_stream", "is_pinned",
    "_pin_memory", "_local_scalar_dense", "unfold", "view_as_real", "view_as_complex", "is_set_to",
    "_efficientzerotensor",
)  # fmt: skip
_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_STARTED: list[Any] = []


def start_where_loaded(devices: int = 2) -> StandInDriver | None:
    """Compute operations of CUDA tensors on the host, where this torch has loaded the stand-in as its driver.

    Returns:
        The driver; None where torch has no CUDA, or that of a real GPU.
    """
    if torch.version.cuda is None:
        return None
    try:
        loaded = ctypes.CDLL(DRIVER)
    except OSError:
        return None
    if not hasattr(loaded, "stand_in_log"):
        return None
    if not _STARTED:
        driver = StandInDriver(Path(DRIVER))
        driver.configure(devices=devices)
        driver.run_late()
        driver.hide_memory()
        _STARTED.extend((driver, _replace_operations(_Computer(driver))))
    return _STARTED[0]


def _replace_operations(computer: "_Computer") -> Any:
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in torch._C._dispatch_get_registrations_for_dispatch_key("CUDA"):
            namespace, _, rest = name.partition("::")
            packet, _, overload = rest.partition(".")
            if namespace == "aten" and packet not in _KEPT:
                op = getattr(getattr(torch.ops.aten, packet), overload or "default")
                library.impl(rest, computer.implementation(op), "CUDA", allow_override=True)
        library.impl("copy_", computer.copy, "CUDA", allow_override=True)
    return library


class _Computer:
    """Gives work of the host to streams."""

    def __init__(self, driver: StandInDriver) -> None:
        self._driver = driver
        self._work: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count(1)
        self._copy_of_cuda = torch.library.get_kernel("aten::copy_", "CUDA")
        self._function = _HOST_FUNCTION(self._run)
        self._submit = ctypes.CDLL(RUNTIME).cudaLaunchHostFunc
        self._submit.argtypes = (ctypes.c_void_p, _HOST_FUNCTION, ctypes.c_void_p)

    def _run(self, number: int) -> None:
        try:
            with torch.no_grad(), torch._C._DisableFuncTorch():
                self._work[number]()  # kept: a graph may run it again
        except Exception as error:  # noqa: BLE001  it may not pass through C
            traceback.print_exc()
            self._driver.errors.append(error)

    def _give(self, device: torch.device, work: Callable[[], None]) -> None:
        number = next(self._numbers)
        self._work[number] = work
        with torch.cuda.device(device):
            status = self._submit(torch.cuda.current_stream().cuda_stream, self._function, number)
        if status:
            raise torch.AcceleratorError(f"CUDA error {status} of the stand-in")

    def _on_host(self, leaf: Any) -> Any:
        """See the memory of a tensor as one of the host; it is not kept from being used again."""
        if not _is_on_gpu(leaf):
            return torch.device("cpu") if isinstance(leaf, torch.device) else leaf
        if leaf.numel() == 0:
            return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="cpu")
        span = 1 + sum((size - 1) * stride for size, stride in zip(leaf.shape, leaf.stride(), strict=True))
        address = self._driver.contents(leaf.data_ptr())
        memory = (ctypes.c_ubyte * (span * leaf.element_size())).from_address(address)
        found = torch.frombuffer(memory, dtype=leaf.dtype).as_strided(leaf.shape, leaf.stride())
        found = found.conj() if leaf.is_conj() else found
        return found._neg_view() if leaf.is_neg() else found

    def implementation(self, op: Any) -> Callable[..., Any]:
        """Make what an operation does for CUDA tensors."""
        return partial(self._compute, _Signature.of(op))

    def _compute(self, signature: "_Signature", *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(signature.names, args, strict=False)) | kwargs
        device = next(leaf.device for leaf in pytree.tree_leaves(given) if _is_on_gpu(leaf))
        run = signature.run_for(given)
        on_meta, on_host = (pytree.tree_map(place, (args, kwargs)) for place in (_on_meta, self._on_host))
        try:
            described = run(*on_meta[0], **on_meta[1])
        except NotImplementedError:  # what it gives depends on values
            torch.cuda.synchronize(device)
            found = run(*on_host[0], **on_host[1])
            return pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, found)
        if signature.returned:
            targets = [given[name] for name in signature.returned]
            _resize(targets, described)
            on_host = pytree.tree_map(self._on_host, (args, kwargs))
            self._give(device, lambda: run(*on_host[0], **on_host[1]))
            return targets[0] if len(targets) == 1 else tuple(targets)
        results = pytree.tree_map(lambda leaf: _like(leaf, device), described)
        hosted = [self._on_host(leaf) for leaf in pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]

        def work() -> None:
            found = pytree.tree_leaves(run(*on_host[0], **on_host[1]))
            for one, other in zip(hosted, [leaf for leaf in found if isinstance(leaf, torch.Tensor)], strict=True):
                one.copy_(other)

        self._give(device, work)
        return results

    def copy(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        """Copy between tensors; what CUDA copies without a kernel is copied by its own functions."""
        is_lazy = any(tensor.is_conj() or tensor.is_neg() for tensor in (target, source))
        if is_lazy and target.device != source.device:
            return self.copy(target, source.resolve_conj().resolve_neg(), non_blocking)
        is_plain = target.dtype == source.dtype and target.is_contiguous() and source.is_contiguous() and not is_lazy
        if target.device == source.device and not is_plain:
            to, of = self._on_host(target), self._on_host(source.expand_as(target))
            self._give(target.device, lambda: to.copy_(of))
            return target
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
        return self._copy_of_cuda.call_boxed(keys, target, source, non_blocking)


class _Signature(NamedTuple):
    """What an operation takes and gives.

    Attributes:
        op: the overload.
        names: of its arguments.
        tensors: those of them that are tensors.
        returned: those that are written and given back; empty where the results are new.
    """

    op: Any
    names: tuple[str, ...]
    tensors: frozenset[str]
    returned: tuple[str, ...]

    @staticmethod
    def of(op: Any) -> "_Signature":
        arguments, returns = op._schema.arguments, op._schema.returns
        aliases = {frozenset(one.alias_info.before_set): one.name for one in arguments if one.alias_info is not None}
        return _Signature(
            op,
            tuple(argument.name for argument in arguments),
            frozenset(argument.name for argument in arguments if isinstance(argument.type, torch.TensorType)),
            tuple(aliases[frozenset(one.alias_info.before_set)] for one in returns if one.alias_info is not None),
        )

    def run_for(self, given: dict[str, Any]) -> Any:
        """Give the overload, or all of them where a tensor of one was a number, and arrives as such."""
        is_number = any(isinstance(given.get(name), int | float | complex) for name in self.tensors)
        return self.op.overloadpacket if is_number else self.op


def _is_on_gpu(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_cuda


def _on_meta(leaf: Any) -> Any:
    if _is_on_gpu(leaf):
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")
    return torch.device("meta") if isinstance(leaf, torch.device) else leaf


def _like(leaf: Any, device: torch.device) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=device)


def _resize(targets: list[Any], shapes: Any) -> None:
    found = [shapes] if isinstance(shapes, torch.Tensor) else list(shapes)
    for target, shape in zip(targets, found, strict=True):
        if isinstance(target, torch.Tensor) and target.shape != shape.shape:
            target.resize_(shape.shape)
