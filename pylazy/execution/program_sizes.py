"""Calls of a program on arrays of any library: their sizes, and results over nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pylazy.execution.programs import Extents
from pylazy.lazy_formula import broadcast_batches
from pylazy.reductions import REDUCTIONS, DerivedRequest
from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.canonical_form import Input
    from pylazy.reductions import Request, Result


def extents_of(specs: Sequence[Input], inputs: Sequence[Any], batch_ranks: Sequence[int]) -> Extents:
    """Read the sizes off the inputs, which may come from a graph that was traced with others.

    Args:
        specs: the inputs of the program.
        inputs: arrays, or anything with a shape.
        batch_ranks: for each of them the number of its leading batch dimensions.

    Raises:
        ShapeError: they do not fit the program, or each other.
    """
    if not len(specs) == len(inputs) == len(batch_ranks):
        raise ShapeError(at_user_line(f"a program was given {len(inputs)} tensors, expected {len(specs)}"))
    batch: tuple[int, ...] = ()
    rows: dict[str, int] = {}
    for spec, tensor, rank in zip(specs, inputs, batch_ranks, strict=True):
        shape = tuple(tensor.shape)
        if shape[:rank] != batch:
            batch = broadcast_batches("the program", batch, shape[:rank])
        if len(spec.axis) == 2:
            _read_pairs(spec, shape, rank, rows)
            continue
        count = math.prod(shape[rank:]) if not spec.axis else math.prod(shape[rank:-1])
        if count != (rows.setdefault(spec.axis, count) if spec.axis else spec.dim):
            expected = f"{rows[spec.axis]} rows" if spec.axis else f"{spec.dim} elements"
            raise ShapeError(at_user_line(f"{spec.name} of a program has shape {shape}, expected {expected}"))
        if spec.axis and shape[-1] != spec.dim:
            raise ShapeError(at_user_line(f"{spec.name} of a program has shape {shape}, expected rows of {spec.dim}"))
    return Extents(batch, rows.get("i", 1), rows.get("j", 1))


def _read_pairs(spec: Input, shape: tuple[int, ...], rank: int, rows: dict[str, int]) -> None:
    """Read both sizes off an array with a row for each pair."""
    own = shape[rank:]
    sizes = tuple(rows.setdefault(axis, count) for axis, count in zip(spec.axis, own, strict=False))
    if len(sizes) < 2 or (own != (*sizes, spec.dim) and (own != sizes or spec.dim != 1)):
        expected = f"{' by '.join(map(str, sizes))} rows of {spec.dim}"
        raise ShapeError(at_user_line(f"{spec.name} of a program has shape {shape}, expected {expected}"))


def rank_of_batch(result: Any, spec: Result) -> int:
    """Count the batch dimensions of a result of a program."""
    return int(result.ndim) - max(len(spec.axis), 1) - 1


def result_shapes_of(request: Request, extents: Extents) -> list[tuple[int, ...]]:
    """Give the shapes of the results: (*batch, rows, dim), with one row for axis "", (*batch, M, N, dim) for pairs."""
    sizes = {"i": extents.rows or 0, "j": extents.columns or 0}
    return [
        (*extents.batch, *(tuple(sizes[axis] for axis in result.axis) or (1,)), result.dim)
        for result in request.results
    ]


def result_over_nothing(request: Request, number: int) -> float:
    """Give the value of a result over no pair; positions are refused before."""
    if isinstance(request, DerivedRequest):
        kept = len(request.forward.results) if request.order.with_results else 0
        return result_over_nothing(request.forward, number) if number < kept else 0.0
    return REDUCTIONS[request.outputs[number].kind].empty or 0.0
