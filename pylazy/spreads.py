"""Variances and standard deviations that have not run: two reductions, the second of which reads the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.arrays.out_arrays import check_out
from pylazy.arrays.results import converted, detached, given_back, quotient
from pylazy.arrays.source_devices import check_devices
from pylazy.arrays.sources import DLPACK, SYMBOL, Symbol
from pylazy.canonical_form import flatten
from pylazy.execution.wanted_results import Wanted
from pylazy.expression import Expression, apply, argument
from pylazy.options import ranges_of
from pylazy.runtime.errors import UnsupportedError
from pylazy.stages import Reduction, reduce_or_postpone
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pylazy.execution.job import Job
    from pylazy.execution.programs import Extents


class Divisor(NamedTuple):
    """What is made of the sums.

    Attributes:
        dim: inner dimension of the formula.
        ddof: the divisor is the number of terms less this.
        root: whether the square root is taken.
    """

    dim: int
    ddof: int
    root: bool

    def finish(self, sums: Any, count: Any) -> Any:
        """Make the result of the sums of squared differences and of differences, joined, over so many terms.

        With m the rounded mean, var = (sum (f - m)**2 - (sum (f - m))**2 / N) / (N - ddof), the corrected two-pass
        algorithm (Chan, Golub, LeVeque, Algorithms for Computing the Sample Variance, 1983). It is the variance
        whatever m is, so m needs no derivative.
        """
        squares, differences = sums[..., : self.dim], sums[..., self.dim :]
        scaled = quotient(differences * differences, count)
        result = quotient(squares - scaled, count - self.ddof)
        return result**0.5 if self.root else result


def summands(formula: Expression, mean: Expression) -> Expression:
    """Give what is summed: squared differences from a mean, and the differences."""
    difference = apply("sub", (formula, mean))
    return apply("concat", (apply("square", (difference,)), difference))


class Spread:
    """A variance or a standard deviation that has not run: call it, as a `Reduction`.

    Attributes:
        mean: a `Reduction` to the mean.
        sums: one of the sums, with the mean as a symbolic variable after all others.
        divisor: what is made of the sums.
    """

    __slots__ = ("divisor", "mean", "sums")

    def __init__(self, mean: Reduction, sums: Reduction, divisor: Divisor) -> None:
        self.mean = mean
        self.sums = sums
        self.divisor = divisor

    def __call__(self, *data: Any, out: Any = None, ranges: Any = None) -> Any:
        """Run on the data as it is now; see `Reduction`."""
        if ranges is not None and self.mean.job is not None:
            raise UnsupportedError(
                at_user_line("ranges are given to a reduction that has its data: give them when it is made")
            )
        read = ranges_of({}, ranges)
        first = self.mean.bound(data, read)
        mean = detached(first.unrounded(check_devices(first.sources))[0])
        sums = self.sums.bound((*data, mean), read)
        return run_sums(sums, self.divisor, storage=first.storage, out=out)

    def as_text(self, stage: str = "formula", *, target: str | None = None) -> str:
        """Write one stage of the sweep that reads the mean; see `Reduction.as_text`."""
        return self.sums.as_text(stage, target=target)

    def __repr__(self) -> str:
        name = "std" if self.divisor.root else "var"
        return f"<{name} with ddof={self.divisor.ddof}, whose mean is {self.mean!r}>"


def postponed_spread(
    formula: Expression,
    divisor: Divisor,
    *,
    reduced: str,
    extents: Extents,
    backend: str | None,
    ranges: tuple[Any, ...] | None,
    options: Mapping[str, Any],
    keepdim: bool,
) -> Spread:
    """Make a spread to be called later; arguments as for `reduce_or_postpone`."""
    positions = [source.position for source in flatten((formula,)).sources if source.kind == SYMBOL]
    symbol = Symbol(max(positions, default=-1) + 1)
    mean = argument(symbol, axis="i" if reduced == "j" else "j", dim=formula.dim)
    parts = []
    for expression, kind, kept in ((formula, "mean", False), (summands(formula, mean), "sum", keepdim)):
        parts.append(
            reduce_or_postpone(
                (expression,),
                (Wanted(kind, (0,)),),
                reduced=reduced,
                extents=extents,
                keepdim=kept,
                backend=backend,
                ranges=ranges,
                options={**options, "call": False},
            )
        )
    return Spread(parts[0], parts[1], divisor)


def run_sums(sums: Job, divisor: Divisor, *, storage: str, out: Any) -> Any:
    """Run the sums, and make the result of them.

    Args:
        sums: a job of `summands`.
        divisor: what is made of them.
        storage: dtype of the result.
        out: array to write the result into, or None.
    """
    kind = check_devices(sums.sources)
    if out is not None:
        shape = (*sums.shapes[0][:-1], divisor.dim)
        check_out(out, kind=kind, shape=shape, dtype=storage, sources=sums.sources)
    found = sums.unrounded(kind)[0]
    result = divisor.finish(found, sums.terms(found))
    if storage != sums.dtype:
        result = converted(result, storage)
    if out is None:
        return given_back(result, sums.sources) if kind == DLPACK else result
    out[...] = result
    return out
