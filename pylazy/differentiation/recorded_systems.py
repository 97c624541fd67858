"""Solutions of linear systems of traced arrays, by implicit differentiation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.differentiation.array_spaces import library_beside
from pylazy.differentiation.gradients import jvp, vjp
from pylazy.differentiation.traces import Call, Operation, apply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.linear_algebra.symmetric_systems import System


def solve_recorded(system: System, b: Any, parameters: tuple[Any, ...]) -> Any:
    """Solve a symmetric system, whose solution remembers how it was made."""
    return apply(_SOLVE, b, *parameters, system=system)[0]


# The solution a of A(parameters) a = b: A da + dA a = db, and A is its own adjoint.


def _compute(b: Any, *parameters: Any, system: System) -> tuple[Any]:
    return (system.solve(library_beside(b).ascontiguousarray(b), parameters),)


def _vjp(call: Call, cotangents: Sequence[Any]) -> list[Any]:
    system: System = call.attributes["system"]
    _, *parameters = call.values
    adjoint = apply(_SOLVE, cotangents[0], *parameters, system=system)[0]
    if not any(map(call.varies, range(1, len(call.operands)))):
        return [adjoint, *(None for _ in parameters)]
    solution = call.result
    _, pull_back = vjp(lambda *live: system.operator.product(solution, live), *parameters)
    return [adjoint, *pull_back(-adjoint)]


def _jvp(call: Call, tangents: Sequence[Any]) -> list[Any]:
    system: System = call.attributes["system"]
    _, *parameters = call.values
    right, *moving = tangents
    solution = call.result
    if any(tangent is not None for tangent in moving):
        along = [
            library_beside(parameter).zeros(parameter.shape, parameter.dtype) if tangent is None else tangent
            for tangent, parameter in zip(moving, parameters, strict=True)
        ]
        _, moved = jvp(lambda *live: system.operator.product(solution, live), parameters, along)
        right = -moved if right is None else right - moved
    return list(apply(_SOLVE, right, *parameters, system=system))


_SOLVE = Operation("solve", _compute, _vjp, _jvp)
