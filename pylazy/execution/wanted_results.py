"""What a reduction is asked for: kinds of results, their shapes, and the outputs of its program."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from pylazy.reductions import DEFAULT_SUMMATION, REDUCTIONS, Output, Summation
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pylazy.execution.programs import Extents
    from pylazy.expression import Expression


class Wanted(NamedTuple):
    """One result of a reduction, before its formula is canonical.

    Attributes:
        kind: a row of `REDUCTIONS`.
        operands: positions among the expressions of the job: the formula, then the weight where there is one.
        k: how many are kept, 0 where the kind takes none.
        summation: how it adds up, as the user wishes; see `_summation`.
        math_mode: how GPUs compute functions; see `Output`.
    """

    kind: str
    operands: tuple[int, ...]
    k: int = 0
    summation: Summation = DEFAULT_SUMMATION
    math_mode: str = ""


WANTED: Mapping[str, tuple[Wanted, ...]] = MappingProxyType({kind: (Wanted(kind, (0,)),) for kind in REDUCTIONS})
"""For each kind that takes no k that result alone, of a formula without a weight."""


def result_shapes(
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    extents: Extents,
    *,
    keepdim: bool,
    drop_inner: bool,
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the results, for extents that are complete."""
    count = extents.rows if reduced == "j" else extents.columns
    assert count is not None
    shapes = []
    for target in wanted:
        dim = expressions[target.operands[-1]].dim
        shape = [*extents.batch, count]
        if keepdim:
            shape.insert(len(extents.batch) + (1 if reduced == "j" else 0), 1)
        if target.k:
            shape.append(target.k)
            if dim > 1:
                shape.append(dim)
        elif not drop_inner:
            shape.append(dim)
        shapes.append(tuple(shape))
    return tuple(shapes)


def request_outputs(
    roots: Sequence[int], expressions: Sequence[Expression], wanted: tuple[Wanted, ...], reduced: str, dtype: str
) -> tuple[Output, ...]:
    """Give the outputs of a program, one for each wanted result, where the formulas are the values `roots`."""
    outputs = []
    for kind, operands, k, summation, math_mode in wanted:
        dim = expressions[operands[-1]].dim * (k or 1)
        row = REDUCTIONS[kind]
        numbers = tuple([roots[operand] for operand in operands])
        chosen = _summation(kind, summation, dtype)
        made = row.program_dtype(dtype)
        outputs.append(Output(row.program or kind, reduced, numbers, k, dim, made, chosen, math_mode))
    return tuple(outputs)


def _summation(kind: str, wish: Summation, dtype: str) -> Summation:
    """What a wish means for a kind: nothing where it adds nothing up, and equal programs have equal ones.

    Raises:
        UnsupportedError: the kind does not have this scheme.
    """
    row = REDUCTIONS[kind]
    if wish.scheme and row.schemes and wish.scheme not in row.schemes:
        raise UnsupportedError(
            at_user_line(
                f"sum_scheme is 'kahan_scheme' for {kind}, whose sums are scaled on the way, which is rounded too: "
                "use dtype_acc='float64'"
            )
        )
    accumulator = wish.accumulator if row.accumulates and wish.accumulator != dtype else ""
    return Summation(accumulator, wish.scheme if row.schemes else "")
