"""The table of reductions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from pylazy.expression import Entry, Input, Node, canonical_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class ReductionKind:
    """One row of the table.

    Attributes:
        name: the key of the row, and the `kind` of `reduction.reduce` at level 1 of the dialect.
        meaning: what the reduction computes, in one line.
        weight: "none", "optional" or "required": whether a second operand follows the formula.
        scalar: the formula must have inner dimension 1; the result has that of the weight if there is one.
        index: the result is a position along the reduced axis, int64; else a value of the formula's dtype.
        takes_k: the k best are kept; a row of the result is k rows of the formula's inner dimension.
        empty: the result over nothing, or None where there is none and asking is an error.
        differentiable: a gradient program exists for it.
        program: the kind that the kernel computes, where the result is made from that of another kind afterwards.
        dtype: of the result, where it is neither that of the formula nor an index.
    """

    name: str
    meaning: str
    weight: str = "none"
    scalar: bool = False
    index: bool = False
    takes_k: bool = False
    empty: float | None = None
    differentiable: bool = False
    program: str = ""
    dtype: str = ""

    def result_dtype(self, dtype: str) -> str:
        """The dtype of the result for a formula of this dtype."""
        return self.dtype or self.program_dtype(dtype)

    def program_dtype(self, dtype: str) -> str:
        """The dtype of what the kernel writes."""
        return "int64" if self.index else dtype


_INF = float("inf")
_NAN = float("nan")

REDUCTIONS: Mapping[str, ReductionKind] = MappingProxyType(
    {
        row.name: row
        for row in (
            ReductionKind("sum", "sum of f", empty=0.0, differentiable=True),
            ReductionKind("mean", "sum of f over the number of terms", empty=_NAN, program="sum"),
            ReductionKind("prod", "product of f", empty=1.0, differentiable=True),
            ReductionKind(
                "logsumexp",
                "log of the sum of exp(f), or of exp(f) g",
                weight="optional",
                scalar=True,
                empty=-_INF,
                differentiable=True,
            ),
            ReductionKind(
                "softmax", "sum of exp(f) g over the sum of exp(f)", weight="required", scalar=True, empty=_NAN
            ),
            ReductionKind("min", "smallest f; NaN if any is NaN", empty=_INF),
            ReductionKind("max", "largest f; NaN if any is NaN", empty=-_INF),
            ReductionKind("argmin", "position of the first NaN, else of the first smallest f", index=True),
            ReductionKind("argmax", "position of the first NaN, else of the first largest f", index=True),
            ReductionKind("any", "whether any f is not 0; f is 0 or 1", empty=0, program="max", dtype="bool"),
            ReductionKind("all", "whether no f is 0; f is 0 or 1", empty=1, program="min", dtype="bool"),
            ReductionKind("count", "how many f are not 0; f is 0 or 1", empty=0, program="sum", dtype="int64"),
            ReductionKind("kmin", "the k smallest f, ascending, NaN last", takes_k=True),
            ReductionKind("argkmin", "their positions, lowest first on ties", index=True, takes_k=True),
            ReductionKind("kmax", "the k largest f, descending, NaN last", takes_k=True),
            ReductionKind("argkmax", "their positions, lowest first on ties", index=True, takes_k=True),
        )
    }
)
"""Every reduction, each per component of the formula unless `scalar`."""


@dataclass(frozen=True)
class Output:
    """One result of a program.

    Attributes:
        kind: a row of `REDUCTIONS`.
        axis: the axis that is reduced: "j" gives one row for each i, "i" one row for each j.
        operands: numbers of values: the formula, then the weight where the kind has one.
        k: how many are kept, 0 where the kind takes none.
        dim: elements of a row of the result; with k, element (rank, component) lies at rank * components + component.
        dtype: "float32", "float64" or "int64".
    """

    kind: str
    axis: str
    operands: tuple[int, ...]
    k: int
    dim: int
    dtype: str

    def __str__(self) -> str:
        operands = " ".join(f"%{operand}" for operand in self.operands)
        k = f" k={self.k}" if self.k else ""
        return f"{self.kind} over {self.axis} {operands}{k} -> {self.dtype}x{self.dim}"


@dataclass(frozen=True)
class ReductionRequest:
    """All that a program for some reductions over the same pairs depends on; no array, no extent, no batch size.

    Buffers of the program, in order: the inputs, then one for each output.

    Attributes:
        dtype: "float32" or "float64": of every input, of every value and of the arithmetic.
        entries: the canonical form of the formula; with `dtype` and `outputs` it is the identity of the request.
        inputs: input buffers; a row of axis "i" for each i, of axis "j" for each j, of axis "" one row in all, of axis
            "ij" or "ji" a row for each pair, the second index fastest.
        nodes: the values of the formula, each after its operands; here are the user's lines, for messages.
        outputs: the results.
    """

    dtype: str
    entries: tuple[Entry, ...]
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]

    def canonical_text(self) -> str:
        """Write the identity of the request, the same in every process; names, lines and sizes are no part of it."""
        return "\n".join(self._lines()) + "\n"

    def digest(self) -> str:
        """Hash the canonical text (SHA-256, hexadecimal)."""
        return hashlib.sha256(self.canonical_text().encode()).hexdigest()

    def _lines(self) -> Iterator[str]:
        yield f"reduction request 1, {self.dtype}"
        yield from canonical_lines(self.entries)
        yield from map(str, self.outputs)


@dataclass(frozen=True)
class GradientRequest:
    """A program that pulls a cotangent of one reduction back to some of its inputs.

    Buffers of the program, in order: the inputs of `forward`; the saved result of `forward` where `saves_result`
    (rows and elements as in its output); the cotangent (same layout); then one output for each number in `wrt`, with
    the rows and elements of that input. The gradient of an input of axis "" has one row, summed over all pairs.

    Attributes:
        forward: a request with exactly one output, of a differentiable kind.
        wrt: numbers of the inputs whose gradient is wanted, ascending.
    """

    forward: ReductionRequest
    wrt: tuple[int, ...]

    @property
    def saves_result(self) -> bool:
        """Whether the result of the forward program is an input here."""
        return self.forward.outputs[0].kind == "logsumexp"

    def canonical_text(self) -> str:
        """Write the identity of the request, the same in every process."""
        return f"{self.forward.canonical_text()}gradient with respect to {' '.join(map(str, self.wrt))}\n"

    def digest(self) -> str:
        """Hash the canonical text (SHA-256, hexadecimal)."""
        return hashlib.sha256(self.canonical_text().encode()).hexdigest()
