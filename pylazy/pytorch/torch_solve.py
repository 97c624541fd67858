"""Solutions of linear systems as nodes of the graph of torch's autograd, by implicit differentiation.

Imported only where a tensor is seen by autograd or torch.func, so where torch is loaded already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylazy.linear_algebra.symmetric_systems import System


def solve_differentiable(system: System, b: torch.Tensor, parameters: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Solve a symmetric system, whose solution remembers how it was made."""
    return _Solve.apply(system, b, *parameters)  # type: ignore[no-any-return, no-untyped-call]


class _Solve(torch.autograd.Function):
    """The solution a of A(parameters) a = b, for a symmetric A.

    From A da + dA a = db: the cotangent of b is the solution l for the cotangent of a, and that of the parameters is
    that of -<l, A(parameters) a> for fixed l and a. Both are differentiable again.
    """

    @staticmethod
    def forward(system: System, b: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        solution: torch.Tensor = system.solve(b.detach(), [parameter.detach() for parameter in parameters])
        return solution

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.system, _, *parameters = inputs
        ctx.save_for_backward(output, *parameters)
        ctx.save_for_forward(output, *parameters)

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        solution, *parameters = ctx.saved_tensors
        adjoint = solve_differentiable(ctx.system, cotangent.contiguous(), tuple(parameters))
        needed = ctx.needs_input_grad[2:]
        if not any(needed):
            return (None, adjoint, *(None for _ in parameters))
        gradients = _transposed(_image(ctx.system, solution), parameters)(-adjoint)
        return (
            None,
            adjoint,
            *(gradient if needs else None for gradient, needs in zip(gradients, needed, strict=True)),
        )

    @staticmethod
    def jvp(ctx: Any, _: None, of_b: torch.Tensor | None, *tangents: torch.Tensor | None) -> torch.Tensor:
        # torch runs this without forward mode, which would lose the tangents of the levels below this one.
        with forward_ad._set_fwd_grad_enabled(True):
            solution, *parameters = [
                forward_ad.unpack_dual(tensor, level=0).primal  # type: ignore[no-untyped-call]
                for tensor in ctx.saved_tensors
            ]
            right = torch.zeros_like(solution) if of_b is None else of_b
            if any(tangent is not None for tangent in tangents):
                along = tuple(
                    torch.zeros_like(parameter) if tangent is None else tangent
                    for parameter, tangent in zip(parameters, tangents, strict=True)
                )
                right = right - _moved(_image(ctx.system, solution), parameters, along)
            return solve_differentiable(ctx.system, right.contiguous(), tuple(parameters))

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], system: System, b: torch.Tensor, *parameters: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """Make the dimension a batch dimension of the system."""
        _, b_dim, *dims = in_dims
        stacked = b.expand(info.batch_size, *b.shape) if b_dim is None else b.movedim(b_dim, 0)
        rank = b.dim() - (b_dim is not None)
        moved = [
            parameter
            if dim is None
            else _aligned(parameter.movedim(dim, 0), rank - 2 + system.operator.rank_of(number))
            for number, (parameter, dim) in enumerate(zip(parameters, dims, strict=True))
        ]
        return solve_differentiable(system, stacked.contiguous(), tuple(moved)), 0


def _aligned(stacked: torch.Tensor, rank: int) -> torch.Tensor:
    """Put a stack's first dimension before all others that an array of this rank has beside it."""
    return stacked.reshape(stacked.shape[0], *(1,) * (rank - stacked.dim() + 1), *stacked.shape[1:])


def _moved(
    image: Callable[..., torch.Tensor], parameters: Sequence[torch.Tensor], along: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Give the derivative of a function along tangents, as the transpose of its transpose.

    torch has no level of forward mode inside of another one that is no transformation of torch.func.
    """
    zeros = torch.zeros_like(image(*parameters))
    (moved,) = _transposed(_transposed(image, parameters), [zeros])(along)
    found: torch.Tensor = moved
    return found


def _transposed(function: Callable[..., Any], at: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """Give the function from cotangents to the gradients of arguments."""
    found: Any = torch.func.vjp(function, *at)
    pull_back: Callable[..., Any] = found[1]
    return pull_back


def _image(system: System, solution: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Give the product with a solution as a function of the parameters."""

    def image(*parameters: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = system.operator.product(solution, parameters)
        return found

    return image
