"""Cotangents on their way back through a formula, which count only where the branch that they come from is taken.

The cotangent of a branch is 0 where the other one is taken, and stays it as long as it meets no infinite derivative:
0 * inf is NaN. So a cotangent remembers where it counts, and is made 0 elsewhere once more before it meets others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pylazy.compiler.derivatives import Application, cotangents
from pylazy.compiler.terms import Term, ge, inner_max, logical_and, logical_not, logical_or, where


@dataclass(frozen=True, eq=False)
class Adjoint:
    """The cotangent of a value.

    Attributes:
        term: the cotangent, where it counts.
        counts: 0 where it is 0, of the components of the term or of one; None where it counts everywhere.
        is_clean: whether the term is 0 there itself.
    """

    term: Term
    counts: Term | None = None
    is_clean: bool = True

    def cleaned(self) -> Term:
        """Give the cotangent everywhere."""
        return self.term if self.counts is None or self.is_clean else where(self.counts, self.term, 0.0)

    def __add__(self, other: "Adjoint") -> "Adjoint":
        if self.counts is None or other.counts is None:
            return Adjoint(self.cleaned() + other.cleaned())
        if self.counts.value == other.counts.value:
            return Adjoint(self.term + other.term, self.counts, self.is_clean and other.is_clean)
        return Adjoint(self.cleaned() + other.cleaned(), logical_or(self.counts, other.counts))


def pull_back(op: Application, adjoint: Adjoint) -> tuple[Adjoint | None, ...]:
    """Give the cotangents of the operands of a formula op, each with the inner dimension of its operand.

    Args:
        op: the op.
        adjoint: of its result.
    """
    counts = adjoint.counts
    found = cotangents(op, adjoint.term, counts=None if adjoint.is_clean and op.name in _KEEPS_ZEROS else counts)
    taken = _TAKEN[op.name](op) if op.name in _TAKEN else None
    adjoints: list[Adjoint | None] = []
    for number, (ct, operand) in enumerate(zip(found, op.operands, strict=True)):
        if ct is None:
            adjoints.append(None)
            continue
        own = counts
        if taken is not None:
            branch = taken[number - 1]
            own = branch if counts is None else logical_and(counts, branch)
        if own is not None and own.dim not in (1, operand.dim):
            own = inner_max(own)  # where any component counts
        adjoints.append(Adjoint(ct, own, adjoint.is_clean and (counts is None or op.name in _KEEPS_ZEROS)))
    return tuple(adjoints)


def _branches(condition: Term) -> tuple[Term, Term]:
    return condition, logical_not(condition)


_TAKEN: Mapping[str, Callable[[Application], tuple[Term, Term]]] = {
    "where": lambda op: _branches(op.x),
    "ifelse": lambda op: _branches(ge(op.x, 0.0)),
}
"""Ops with branches: where the second operand is taken, and where the third."""

_KEEPS_ZEROS = frozenset({*_TAKEN, "neg", "add", "sub", "inner_sum", "concat", "extract", "broadcast"})
"""Ops whose derivatives have no infinite factor, so that a cotangent that is 0 stays it."""
