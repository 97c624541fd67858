"""What the gradients of selected values ask of torch; see `pylazy.differentiation.selections`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pylazy.arrays.sources import array_source
from pylazy.differentiation.selections import select
from pylazy.pytorch.torch_reductions import as_tensors, run_as_constant, run_tensors

if TYPE_CHECKING:
    from pylazy.arrays.sources import Source
    from pylazy.execution.job import Job


def select_tensors(job: Job) -> tuple[torch.Tensor, ...]:
    """Run a selection of tensors; see `pylazy.differentiation.selections.select`."""
    return select(job, _Tensors())


class _Tensors:
    """Tensors; see `pylazy.differentiation.selections.Library`."""

    def arange(self, count: int, like: torch.Tensor) -> torch.Tensor:
        return torch.arange(count, device=like.device)

    def broadcast(self, array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return array.expand(shape)

    def take(self, array: torch.Tensor, positions: torch.Tensor, axis: int) -> torch.Tensor:
        return array.gather(axis, positions)

    def where_finite(self, values: torch.Tensor, then: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
        return torch.where(values.isfinite(), then, otherwise)

    def where_zero(self, counts: Any, then: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
        return torch.where(counts == 0, then, otherwise)

    def detached(self, array: torch.Tensor) -> torch.Tensor:
        return array.detach()

    def as_dtype(self, array: torch.Tensor, dtype: str) -> torch.Tensor:
        return array.to(getattr(torch, dtype))

    def inputs(self, job: Job) -> list[torch.Tensor]:
        return as_tensors(job)

    def source(self, array: torch.Tensor, *, batch: int, weak: bool) -> Source:
        return array_source(array, what="a gathered input", batch=batch, view="pairs", weak=weak)

    def run_as_constant(self, job: Job) -> tuple[torch.Tensor, ...]:
        return run_as_constant(job)

    def run(self, job: Job) -> torch.Tensor:
        found: torch.Tensor = run_tensors(job)[0]
        return found
