"""Microseconds of a Gaussian product on 10 rows and 10 columns with torch's autograd, forward and backward."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from harness import read_arguments, save, time_calls

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 10


def _gaussian_product(package: str) -> Callable[[Any, Any, Any], Any]:
    if package == "torch":
        return lambda x, y, b: (-((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)).exp() @ b
    lazy = importlib.import_module("pylazy" if package == "pylazy" else "pykeops.torch").LazyTensor
    return lambda x, y, b: (-((lazy(x[:, None, :]) - lazy(y[None, :, :])) ** 2).sum(-1)).exp() @ b


def _tensors(*, requires_grad: bool) -> list[Any]:
    import torch

    torch.manual_seed(0)
    return [torch.rand(SIZE, dim, requires_grad=requires_grad) for dim in (3, 3, 1)]


def forward(package: str) -> Callable[[], Any]:
    """Build and reduce; nothing requires a gradient."""
    product, tensors = _gaussian_product(package), _tensors(requires_grad=False)
    return lambda: product(*tensors)


def forward_recorded(package: str) -> Callable[[], Any]:
    """Build and reduce, for a gradient that is not taken."""
    product, tensors = _gaussian_product(package), _tensors(requires_grad=True)
    return lambda: product(*tensors)


def forward_and_backward(package: str) -> Callable[[], Any]:
    """Build and reduce, then find all three gradients."""
    import torch

    product, tensors = _gaussian_product(package), _tensors(requires_grad=True)
    return lambda: torch.autograd.grad(product(*tensors).sum(), tensors)


def second_order(package: str) -> Callable[[], Any]:
    """Build, reduce, and find the gradient of the squared norm of a gradient."""
    import torch

    product, tensors = _gaussian_product(package), _tensors(requires_grad=True)

    def work() -> Any:
        (gradient,) = torch.autograd.grad(product(*tensors).sum(), tensors[:1], create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), tensors)

    return work


def vmap_of_gradient(package: str) -> Callable[[], Any]:
    """Map the gradient by torch.func over a batch of 2."""
    import torch

    product = _gaussian_product(package)
    batched = [torch.stack((tensor, tensor)) for tensor in _tensors(requires_grad=False)]
    find = torch.func.vmap(torch.func.grad(lambda *tensors: product(*tensors).sum(), (0, 1, 2)))
    return lambda: find(*batched)


ROWS = (forward, forward_recorded, forward_and_backward, second_order, vmap_of_gradient)


def main() -> None:
    """Time every row, the packages in turn."""
    arguments = read_arguments(__doc__)
    repeats, count = (5, 30) if arguments.quick else (25, 200)
    repeats = arguments.repeats or repeats
    names = {function.__name__: function.__name__.replace("_", " ") for function in ROWS}
    rows = [
        time_calls(name, f"torch_overhead:{function}", ("pylazy", "pykeops", "torch"), repeats=repeats, count=count)
        for function, name in names.items()
        if arguments.only in name
    ]
    save("torch_overhead", rows, arguments)


if __name__ == "__main__":
    main()
