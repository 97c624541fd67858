"""Solutions of linear systems as nodes of the graph of torch's autograd, by implicit differentiation.

Imported only where a tensor requires a gradient, so where torch is loaded already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
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
    def forward(ctx: Any, system: System, b: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        solution: torch.Tensor = system.solve(b.detach())
        ctx.system = system
        ctx.save_for_backward(solution, *parameters)
        return solution

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        system: System = ctx.system
        solution, *parameters = ctx.saved_tensors
        adjoint = solve_differentiable(system, cotangent.contiguous(), tuple(parameters))
        needed = ctx.needs_input_grad[2:]
        if not any(needed):
            return (None, adjoint, *(None for _ in parameters))
        goes_on = torch.is_grad_enabled()
        with torch.enable_grad():
            # New tensors: the product's own dependence on them is wanted, without that of the solution.
            live = [tensor.view_as(tensor) if goes_on else tensor.detach().requires_grad_() for tensor in parameters]
            image = system.operator.product(solution, live)
            gradients = torch.autograd.grad(image, live, -adjoint, create_graph=goes_on, allow_unused=True)
        return (
            None,
            adjoint,
            *(gradient if needs else None for gradient, needs in zip(gradients, needed, strict=True)),
        )
