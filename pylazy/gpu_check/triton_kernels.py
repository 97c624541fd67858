"""Hand-written Triton kernels of the timed formulas, as a careful user would write them; a peer, nothing more.

Coordinates are scaled outside by the square root of log2(e), so that each exponential is one exp2; sums are kept in
blocks and reduced once. Up to four components are read one by one, longer vectors go through `tl.dot`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from collections.abc import Callable

FORMULAS = ("gaussian", "laplacian", "logsumexp", "argmin", "gradient")
"""What is written; K nearest neighbours are not."""

GAUSSIAN, LAPLACIAN, LOGSUMEXP, ARGMIN, GRADIENT = map(tl.constexpr, range(5))
_CODES = {name: code for code, name in enumerate(FORMULAS)}
_LOG2_E = math.log2(math.e)
_MOST_DIRECT = 4


@triton.jit
def _direct(
    x,
    y,
    b,
    e,
    out,
    rows,
    columns,
    FORMULA: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """Reduce a formula of three coordinates, one row of the result for each of BLOCK_I."""
    i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    is_row = i < rows
    x0 = tl.load(x + i * DIM, mask=is_row, other=0.0)[:, None]
    x1 = tl.load(x + i * DIM + 1, mask=is_row, other=0.0)[:, None]
    x2 = tl.load(x + i * DIM + 2, mask=is_row, other=0.0)[:, None]
    kind = x0.dtype
    total = tl.zeros([BLOCK_I, BLOCK_J], kind)
    total1 = tl.zeros([BLOCK_I, BLOCK_J], kind)
    total2 = tl.zeros([BLOCK_I, BLOCK_J], kind)
    largest = tl.full([BLOCK_I], float("-inf"), kind)
    scaled = tl.zeros([BLOCK_I], kind)
    least = tl.full([BLOCK_I, BLOCK_J], float("inf"), kind)
    place = tl.zeros([BLOCK_I, BLOCK_J], tl.int32)
    for start in range(0, columns, BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        is_column = j < columns
        d0 = x0 - tl.load(y + j * DIM, mask=is_column, other=float("inf"))[None, :]
        d1 = x1 - tl.load(y + j * DIM + 1, mask=is_column, other=0.0)[None, :]
        d2 = x2 - tl.load(y + j * DIM + 2, mask=is_column, other=0.0)[None, :]
        squared = d0 * d0 + d1 * d1 + d2 * d2
        if FORMULA == ARGMIN:
            is_less = squared < least
            least = tl.where(is_less, squared, least)
            place = tl.where(is_less, j[None, :], place)
        elif FORMULA == LOGSUMEXP:
            above = tl.maximum(largest, tl.max(-squared, 1))
            scaled = scaled * tl.exp2(largest - above) + tl.sum(tl.exp2(-squared - above[:, None]), 1)
            largest = above
        else:
            weight = tl.load(b + j, mask=is_column, other=0.0)[None, :]
            if FORMULA == LAPLACIAN:
                value = tl.exp2(-tl.sqrt(squared)) * weight
            else:
                value = tl.exp2(-squared) * weight
            if FORMULA == GRADIENT:
                total += tl.where(value == 0, 0.0, value * d0)
                total1 += value * d1
                total2 += value * d2
            else:
                total += value
    if FORMULA == ARGMIN:
        best = tl.min(least, 1)
        first = tl.min(tl.where(least == best[:, None], place, 2147483647), 1)
        tl.store(out + i, first, mask=is_row)
    elif FORMULA == LOGSUMEXP:
        tl.store(out + i, (largest + tl.log2(scaled)) * 0.6931471805599453, mask=is_row)
    elif FORMULA == GRADIENT:
        scale = tl.load(e + i, mask=is_row, other=0.0)
        tl.store(out + i * 3, tl.sum(total, 1) * scale, mask=is_row)
        tl.store(out + i * 3 + 1, tl.sum(total1, 1) * scale, mask=is_row)
        tl.store(out + i * 3 + 2, tl.sum(total2, 1) * scale, mask=is_row)
    else:
        tl.store(out + i, tl.sum(total, 1), mask=is_row)


@triton.jit
def _by_products(
    x, y, b, out, rows, columns, DIM: tl.constexpr, WEIGHTS: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr
):
    """Sum exp2(-|x - y|^2) b, with |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, and both products on tensor cores."""
    i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    is_row = i < rows
    component = tl.arange(0, DIM)
    x_block = tl.load(x + i[:, None] * DIM + component[None, :], mask=is_row[:, None], other=0.0)
    x_squared = tl.sum(x_block * x_block, 1)
    total = tl.zeros([BLOCK_I, WEIGHTS], tl.float32)
    for start in range(0, columns, BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        is_column = j < columns
        y_block = tl.load(y + j[:, None] * DIM + component[None, :], mask=is_column[:, None], other=0.0)
        product = tl.dot(x_block, tl.trans(y_block), input_precision="tf32x3")
        squared = x_squared[:, None] + tl.sum(y_block * y_block, 1)[None, :] - 2.0 * product
        value = tl.exp2(-tl.maximum(squared, 0.0))
        weights = tl.arange(0, WEIGHTS)
        weight = tl.load(b + j[:, None] * WEIGHTS + weights[None, :], mask=is_column[:, None], other=0.0)
        if WEIGHTS == 1:
            total += tl.sum(value * tl.trans(weight), 1)[:, None]
        else:
            total += tl.dot(value, weight, input_precision="tf32x3")
    column = tl.arange(0, WEIGHTS)
    tl.store(out + i[:, None] * WEIGHTS + column[None, :], total, mask=is_row[:, None])


def make_work(formula: str, x: Any, y: Any, b: Any, e: Any) -> Callable[[], Any] | None:
    """Make the work of a formula, on tensors x (M, D), y (N, D), b (N, E), e (M, 1).

    Returns:
        None where there is no kernel for it.
    """
    dim, weights = x.shape[1], b.shape[1]
    if formula not in FORMULAS or (dim != 3 and formula != "gaussian"):
        return None
    if dim != 3 or weights != 1:
        return _products(x, y, b) if x.dtype == torch.float32 else None
    # exp(-|d|) is exp2(-|log2(e) d|), exp(-|d|^2) is exp2(-|sqrt(log2(e)) d|^2)
    scale = {"laplacian": _LOG2_E, "argmin": 1.0}.get(formula, math.sqrt(_LOG2_E))
    scaled_x, scaled_y = x * scale, y * scale
    # The gradient sums differences that are scaled too.
    factor = e * (-2.0 / scale) if formula == "gradient" else e
    width = 3 if formula == "gradient" else 1
    out = torch.empty((len(x), width), dtype=torch.int32 if formula == "argmin" else x.dtype, device=x.device)
    fits = x.dtype == torch.float32 and formula != "gradient"  # in registers
    block_i, block_j = (64, 64) if fits else (64, 32)

    def work() -> Any:
        grid = (triton.cdiv(len(x), block_i),)
        _direct[grid](
            scaled_x, scaled_y, b, factor, out, len(x), len(y), _CODES[formula], 3, block_i, block_j, num_warps=4
        )
        return out

    return work


def _products(x: Any, y: Any, b: Any) -> Callable[[], Any]:
    """Make a Gaussian product whose distances, and weights if there are several, are matrix products."""
    dim = max(16, triton.next_power_of_2(x.shape[1]))
    scale = math.sqrt(_LOG2_E)
    padded_x, padded_y = (
        torch.nn.functional.pad(array * scale, (0, dim - array.shape[1])).contiguous() for array in (x, y)
    )
    weights = b.shape[1] if b.shape[1] == 1 else max(16, triton.next_power_of_2(b.shape[1]))
    padded_b = torch.nn.functional.pad(b, (0, weights - b.shape[1])).contiguous()
    out = torch.empty((len(x), weights), dtype=x.dtype, device=x.device)
    block_i, block_j = (128, 64)

    def work() -> Any:
        grid = (triton.cdiv(len(x), block_i),)
        _by_products[grid](
            padded_x, padded_y, padded_b, out, len(x), len(y), dim, weights, block_i, block_j, num_warps=8
        )
        return out[:, : b.shape[1]]

    return work
