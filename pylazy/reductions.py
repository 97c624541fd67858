"""The table of reductions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from pylazy.canonical_form import Entry, Input, Node, canonical_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Summation(NamedTuple):
    """How a reduction adds up.

    Attributes:
        accumulator: dtype of the running sums, "" for that of the arithmetic.
        scheme: "" for sums of blocks, "direct" for one running sum, "kahan" for a compensated one.
    """

    accumulator: str = ""
    scheme: str = ""

    def __str__(self) -> str:
        accumulator = f" accumulated in {self.accumulator}" if self.accumulator else ""
        return f"{accumulator} summed by {self.scheme}" if self.scheme else accumulator


DEFAULT_SUMMATION = Summation()


class ReductionKind(NamedTuple):
    """One row of the table.

    Attributes:
        name: the key of the row, and the `kind` of `reduction.reduce` at level 1 of the dialect.
        meaning: what the reduction computes, in one line.
        weight: "none", "optional" or "required": whether a second operand follows the formula.
        scalar: the formula must have inner dimension 1; the result has that of the weight if there is one.
        is_position: the result is a position along the reduced axis, int64; else a value of the formula's dtype.
        takes_k: the k best are kept; a row of the result is k rows of the formula's inner dimension.
        empty: the result over nothing, or None where there is none and asking is an error.
        differentiable: a gradient program exists for it.
        program: the kind that the kernel computes, where the result is made from that of another kind afterwards.
        dtype: of the result, where it is neither that of the formula nor an index.
        accumulates: its state is rounded again and again, so a wider accumulator makes it more accurate.
        schemes: the schemes of `Summation` that it has, where it adds up.
    """

    name: str
    meaning: str
    weight: str = "none"
    scalar: bool = False
    is_position: bool = False
    takes_k: bool = False
    empty: float | None = None
    differentiable: bool = False
    program: str = ""
    dtype: str = ""
    accumulates: bool = False
    schemes: tuple[str, ...] = ()

    def result_dtype(self, dtype: str) -> str:
        """The dtype of the result for a formula of this dtype."""
        return self.dtype or self.program_dtype(dtype)

    def program_dtype(self, dtype: str) -> str:
        """The dtype of what the kernel writes."""
        return "int64" if self.is_position else dtype


_INF = float("inf")
_NAN = float("nan")

REDUCTIONS: Mapping[str, ReductionKind] = MappingProxyType(
    {
        row.name: row
        for row in (
            ReductionKind(
                "sum", "sum of f", empty=0.0, differentiable=True, accumulates=True, schemes=("direct", "kahan")
            ),
            ReductionKind(
                "mean",
                "sum of f over the number of terms",
                empty=_NAN,
                program="sum",
                accumulates=True,
                schemes=("direct", "kahan"),
            ),
            ReductionKind("prod", "product of f", empty=1.0, differentiable=True, accumulates=True),
            ReductionKind(
                "logsumexp",
                "log of the sum of exp(f), or of exp(f) g",
                weight="optional",
                scalar=True,
                empty=-_INF,
                differentiable=True,
                accumulates=True,
                schemes=("direct",),
            ),
            ReductionKind(
                "softmax",
                "sum of exp(f) g over the sum of exp(f)",
                weight="required",
                scalar=True,
                empty=_NAN,
                differentiable=True,
                accumulates=True,
                schemes=("direct",),
            ),
            ReductionKind("min", "smallest f; NaN if any is NaN", empty=_INF),
            ReductionKind("max", "largest f; NaN if any is NaN", empty=-_INF),
            ReductionKind("argmin", "position of the first NaN, else of the first smallest f", is_position=True),
            ReductionKind("argmax", "position of the first NaN, else of the first largest f", is_position=True),
            ReductionKind("any", "whether any f is not 0; f is 0 or 1", empty=0, program="max", dtype="bool"),
            ReductionKind("all", "whether no f is 0; f is 0 or 1", empty=1, program="min", dtype="bool"),
            ReductionKind(
                "count",
                "how many f are not 0; f is 0 or 1",
                empty=0,
                program="sum",
                dtype="int64",
                accumulates=True,
                schemes=("direct", "kahan"),
            ),
            ReductionKind("kmin", "the k smallest f, ascending, NaN last", takes_k=True),
            ReductionKind("argkmin", "their positions, lowest first on ties", is_position=True, takes_k=True),
            ReductionKind("kmax", "the k largest f, descending, NaN last", takes_k=True),
            ReductionKind("argkmax", "their positions, lowest first on ties", is_position=True, takes_k=True),
        )
    }
)
"""Every reduction, each per component of the formula unless `scalar`."""

SELECTIONS = frozenset({"min", "max", "kmin", "kmax"})
"""Reductions whose results are values of the formula at some pairs."""

#: How GPUs compute functions of float32, the most accurate first: see "Functions on GPUs" of docs/semantics.md.
MATH_MODES = ("accurate", "", "fast")


class Output(NamedTuple):
    """One result of a program.

    Attributes:
        kind: a row of `REDUCTIONS`.
        axis: the axis that is reduced: "j" gives one row for each i, "i" one row for each j.
        operands: numbers of values: the formula, then the weight where the kind has one.
        k: how many are kept, 0 where the kind takes none.
        dim: elements of a row of the result; with k, element (rank, component) lies at rank * components + component.
        dtype: "float32", "float64" or "int64".
        summation: how it adds up.
        math_mode: one of `MATH_MODES`.
    """

    kind: str
    axis: str
    operands: tuple[int, ...]
    k: int
    dim: int
    dtype: str
    summation: Summation = DEFAULT_SUMMATION
    math_mode: str = ""

    def __str__(self) -> str:
        operands = " ".join(f"%{operand}" for operand in self.operands)
        k = f" k={self.k}" if self.k else ""
        math_mode = f" with {self.math_mode} functions" if self.math_mode else ""
        return f"{self.kind} over {self.axis} {operands}{k} -> {self.dtype}x{self.dim}{self.summation}{math_mode}"


@dataclass(frozen=True)
class ReductionRequest:
    """All that a program for some reductions over the same pairs depends on; no array, no extent, no batch size.

    Buffers of the program, in order: the inputs; one for each output; where it is ranged, a table of the tiles over the
    rows of the axis that is kept, "ranges_i" or "ranges_j".

    Attributes:
        dtype: "float32" or "float64": of every input, of every value and of the arithmetic.
        entries: the canonical form of the formula; with `dtype` and `outputs` it is the identity of the request.
        inputs: input buffers; a row of axis "i" for each i, of axis "j" for each j, of axis "" one row in all, of axis
            "ij" or "ji" a row for each pair, the second index fastest.
        nodes: the values of the formula, each after its operands; here are the user's lines, for messages.
        outputs: the results.
        ranged: whether the pairs are those that a table lists, not all.
    """

    dtype: str
    entries: tuple[Entry, ...]
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    ranged: bool = False

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The outputs, as any program's results."""
        return tuple(
            Result(
                _KEPT_AXIS[output.axis],
                output.dim,
                output.dtype,
                saved=output.kind in _SAVED,
                differentiable=REDUCTIONS[output.kind].differentiable,
            )
            for output in self.outputs
        )

    @cached_property
    def indices(self) -> str:
        """The axes whose indices are values of the formula."""
        return "".join(sorted({axis for entry in self.entries if entry[0] == "index" for axis in entry[1]}))

    @cached_property
    def math_mode(self) -> str:
        """How GPUs compute functions: as the most accurate of the outputs wants, since they share them."""
        return min((output.math_mode for output in self.outputs), key=MATH_MODES.index, default="")

    def canonical_text(self) -> str:
        """Write the identity of the request, the same in every process; names, lines and sizes are no part of it."""
        return request_text(self.dtype, self.entries, self.outputs, ranged=self.ranged)

    def digest(self) -> str:
        """Hash the canonical text (SHA-256, hexadecimal)."""
        return _sha256(self.canonical_text())


def request_text(dtype: str, entries: tuple[Entry, ...], outputs: tuple[Output, ...], *, ranged: bool) -> str:
    """Write the identity of a `ReductionRequest`; see there."""
    lines = [f"reduction request 1, {dtype}", *canonical_lines(entries), *map(str, outputs)]
    if ranged:
        lines.append("ranged")
    return "\n".join(lines) + "\n"


_SAVED = frozenset({"logsumexp", "softmax"})
"""Reductions whose derivative reads their result."""

_KEPT_AXIS = {"i": "j", "j": "i"}


class Result(NamedTuple):
    """A result of a program, or the gradient of an input.

    Attributes:
        axis: "i" or "j" where it has a row for each of these, "" where it is one row.
        dim: elements of a row.
        dtype: "float32", "float64" or "int64".
        saved: whether the derivative of the program reads it.
        differentiable: whether it has a derivative.
    """

    axis: str
    dim: int
    dtype: str
    saved: bool
    differentiable: bool


class Order(NamedTuple):
    """Which derivative of a program is wanted.

    Attributes:
        mode: "wrt" for gradients, "tangents" for tangents; what the compiler calls the attribute that asks for it.
        numbers: of inputs, ascending: those whose gradient is wanted, or those that have a tangent, not 0.
        with_results: compute the results beside their derivative, in the same sweeps where they can share one.
    """

    mode: str
    numbers: tuple[int, ...]
    with_results: bool = False

    def __str__(self) -> str:
        start = "results and " if self.with_results else ""
        kind = "gradient" if self.mode == "wrt" else "tangent"
        return f"{start}{kind} with respect to {' '.join(map(str, self.numbers))}"


@dataclass(frozen=True)
class DerivedRequest:
    """A program that pulls cotangents of a program's results back to some of its inputs, or pushes tangents forward.

    Such a program has inputs and results as any other, so `forward` may be one: that is the way to any order. Where the
    reductions are ranged, tables follow the results: "ranges_i", "ranges_j" or both in this order, as they are needed.

    Attributes:
        forward: a request all of whose results are differentiable.
        order: which derivative.
    """

    forward: ReductionRequest | DerivedRequest
    order: Order

    @property
    def dtype(self) -> str:
        """The dtype of every input and result."""
        return self.forward.dtype

    @property
    def ranged(self) -> bool:
        """Whether the reductions are over ranges."""
        return self.forward.ranged

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The input buffers.

        In order: those of `forward`; its results that are `saved`, unless the program computes them; then a cotangent
        for each result, laid out as it is, or a tangent for each number of the order, laid out as that input.
        """
        inputs, results = self.forward.inputs, self.forward.results
        saved = [
            Input(f"saved{number}", result.axis, result.dim)
            for number, result in enumerate(results)
            if result.saved and not self.order.with_results
        ]
        if self.order.mode == "wrt":
            given = [Input(f"cotangent{number}", result.axis, result.dim) for number, result in enumerate(results)]
        else:
            tangent_of = [(number, inputs[number]) for number in self.order.numbers]
            given = [Input(f"tangent{number}", spec.axis, spec.dim) for number, spec in tangent_of]
        return (*inputs, *saved, *given)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The results of `forward` if asked for; then the gradients, or a tangent for each of these results.

        A gradient is laid out as its input; of axis "" it is one row, summed over all pairs.
        """
        kept = self.forward.results if self.order.with_results else ()
        specs: Sequence[Input | Result] = self.forward.results
        if self.order.mode == "wrt":
            specs = [self.forward.inputs[number] for number in self.order.numbers]
        derived = [Result(spec.axis, spec.dim, self.dtype, saved=False, differentiable=True) for spec in specs]
        return (*kept, *derived)

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """The derivatives that lead here from the reductions, the innermost first."""
        forward = self.forward
        return (self.order,) if isinstance(forward, ReductionRequest) else (*forward.orders, self.order)

    @cached_property
    def root(self) -> ReductionRequest:
        """The reductions that derivatives are taken of."""
        return self.forward if isinstance(self.forward, ReductionRequest) else self.forward.root

    def canonical_text(self) -> str:
        """Write the identity of the request, the same in every process."""
        return f"{self.forward.canonical_text()}{self.order}\n"

    def digest(self) -> str:
        """Hash the canonical text (SHA-256, hexadecimal)."""
        return _sha256(self.canonical_text())


Request = ReductionRequest | DerivedRequest


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def gradient_request(forward: Request, wrt: tuple[int, ...]) -> DerivedRequest:
    """Ask for the gradients of a program with respect to the inputs of these numbers, ascending."""
    return DerivedRequest(forward, Order("wrt", wrt))
