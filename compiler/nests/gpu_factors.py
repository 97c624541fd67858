"""Products without the factors that do not vary with the column: what is left is summed, and then multiplied."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_values import inner_dim

#: Numbers that leave a sum: with others, the sum might overflow or underflow where its terms did not.
_FACTORS = (2.0**-32, 2.0**32)


class Factored(NamedTuple):
    """A product whose sum over the columns is `outer` times the sum of the product of `inner`."""

    inner: tuple[ir.Value, ...]
    outer: tuple[ir.Value, ...]
    number: float


def product(factors: Sequence[ir.Value]) -> ir.Value:
    """Build the product of one or more numbers."""
    return functools.reduce(kb.mul, factors)


def split_product(value: ir.Value, axes: Callable[[ir.Value], str]) -> "Factored | None":
    """Take the factors that do not vary with the column out of a product; None if its numbers might overflow."""
    inner, outer, number = [], [], 1.0
    pending = [value]
    while pending:
        factor = pending.pop()
        owner, name = factor.owner, name_of(factor.owner)
        alone = factor is value or len(list(factor.uses)) == 1
        if name == "arith.mulf" and alone:
            pending += list(owner.operands)
        elif name == "arith.negf" and alone:
            number = -number
            pending += list(owner.operands)
        elif name == "vector.broadcast" and alone:
            pending += list(owner.operands)
        elif name == "arith.constant" and owner.attributes["value"].is_splat:
            number *= owner.attributes["value"].get_splat_value().value
        elif "c" not in axes(factor) and inner_dim(factor) == 1:
            outer.append(factor)
        else:
            inner.append(factor)
    if not inner or not _FACTORS[0] <= abs(number) <= _FACTORS[1]:
        return None
    # Numbers first: they are multiplied once for all elements of a vector.
    return Factored(tuple(sorted(inner, key=inner_dim)), tuple(outer), number)


def factor_product(value: ir.Value, axes: Callable[[ir.Value], str]) -> "Factored | None":
    """Split a product as `split_product` does; None where nothing is taken out."""
    found = split_product(value, axes)
    return found if found is not None and (found.outer or found.number != 1.0) else None
