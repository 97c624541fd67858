"""Derivatives of calls of a program, whatever library calls it: each is a call of a derived program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.arrays.results import sum_to_shape
from pylazy.execution.program_sizes import rank_of_batch
from pylazy.execution.programs import find_by_text
from pylazy.reductions import DerivedRequest, Order, ReductionRequest
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylazy.execution.programs import Executable
    from pylazy.reductions import Request, Result

    Run = Callable[[Sequence[Any], str, Sequence[int]], Sequence[Any]]
    """From inputs, the text of a program, and for each input the number of its batch dimensions, to results."""

RANGES = 6
"""The number of arrays of block-sparse ranges, which follow the other inputs of a ranged program."""


def pull_back(
    run: Run,
    executable: Executable,
    inputs: Sequence[Any],
    batch_ranks: Sequence[int],
    results: Sequence[Any],
    cotangents: Sequence[Any | None],
    wrt: tuple[int, ...],
) -> list[Any]:
    """Give the gradients of some inputs, in their shapes, as functions of everything that they depend on.

    Args:
        run: calls a program.
        executable: the program.
        inputs: what it was given.
        batch_ranks: of the inputs.
        results: those that the derivative reads, in order: (*batch, rows, dim).
        cotangents: one for each result, (*batch, rows, dim), or None for zero; not all of them None.
        wrt: numbers of inputs, ascending.
    """
    executable, given = _with_results(executable, cotangents, results)
    derived = executable.derive(wrt)
    own, ranges = without_ranges(executable, inputs)
    described = executable.request.results
    saved = [result for result in described if result.saved]
    ranks = [
        *batch_ranks[: len(own)],
        *map(rank_of_batch, (*results, *given), (*saved, *described)),
        *(0 for _ in ranges),
    ]
    found = run([*own, *results, *given, *ranges], derived.text(), ranks)
    return _in_shapes_of(inputs, batch_ranks, wrt, found, derived.request.results)


def evaluate_and_pull_back(
    run: Run,
    executable: Executable,
    inputs: Sequence[Any],
    batch_ranks: Sequence[int],
    cotangents: Sequence[Any],
    wrt: tuple[int, ...],
) -> tuple[list[Any], list[Any]]:
    """Give the results and the gradients of some inputs, by one program, where cotangents do not need the results.

    Args:
        run: calls a program.
        executable: the program.
        inputs: what it is given.
        batch_ranks: of the inputs.
        cotangents: one for each result, (*batch, rows, dim).
        wrt: numbers of inputs, ascending.
    """
    derived = executable.derivative(Order("wrt", wrt, with_results=True))
    own, ranges = without_ranges(executable, inputs)
    described = executable.request.results
    ranks = [*batch_ranks[: len(own)], *map(rank_of_batch, cotangents, described), *(0 for _ in ranges)]
    found = list(run([*own, *cotangents, *ranges], derived.text(), ranks))
    count = len(described)
    specs = derived.request.results[count:]
    return found[:count], _in_shapes_of(inputs, batch_ranks, wrt, found[count:], specs)


def push_forward(
    run: Run,
    executable: Executable,
    inputs: Sequence[Any],
    batch_ranks: Sequence[int],
    results: Sequence[Any],
    tangents: Sequence[Any | None],
) -> list[Any | None]:
    """Give the tangents of the results, as functions of everything that they depend on.

    Args:
        run: calls a program.
        executable: the program.
        inputs: what it was given.
        batch_ranks: of the inputs.
        results: all of them.
        tangents: one for each input, in its shape, or None for zero.
    """
    described = executable.request.results
    own, ranges = without_ranges(executable, inputs)
    wrt = tuple(number for number, tangent in enumerate(tangents[: len(own)]) if tangent is not None)
    if not wrt or not all(result.differentiable for result in described):
        return [None] * len(described)
    derived = executable.derivative(Order("tangents", wrt))
    saved = [tensor for tensor, result in zip(results, described, strict=True) if result.saved]
    given = [tangent for tangent in tangents[: len(own)] if tangent is not None]
    ranks = [
        *batch_ranks[: len(own)],
        *map(rank_of_batch, saved, (result for result in described if result.saved)),
        *(batch_ranks[number] for number in wrt),
        *(0 for _ in ranges),
    ]
    return list(run([*own, *saved, *given, *ranges], derived.text(), ranks))


def evaluate_and_push_forward(
    run: Run,
    executable: Executable,
    inputs: Sequence[Any],
    batch_ranks: Sequence[int],
    tangents: Sequence[Any | None],
) -> tuple[list[Any], list[Any]]:
    """Give the results and their tangents, by one program; not all tangents are None."""
    own, ranges = without_ranges(executable, inputs)
    wrt = tuple(number for number, tangent in enumerate(tangents[: len(own)]) if tangent is not None)
    derived = executable.derivative(Order("tangents", wrt, with_results=True))
    given = [tangents[number] for number in wrt]
    ranks = [*batch_ranks[: len(own)], *(batch_ranks[number] for number in wrt), *(0 for _ in ranges)]
    found = list(run([*own, *given, *ranges], derived.text(), ranks))
    count = len(executable.request.results)
    return found[:count], found[count:]


def without_ranges(executable: Executable, inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Part the inputs of a program from the arrays of its ranges, which all its derivatives take too."""
    count = len(inputs) - RANGES * executable.request.ranged
    return inputs[:count], inputs[count:]


def _in_shapes_of(
    inputs: Sequence[Any],
    batch_ranks: Sequence[int],
    wrt: tuple[int, ...],
    found: Sequence[Any],
    specs: Sequence[Result],
) -> list[Any]:
    gradients = []
    for number, gradient, spec in zip(wrt, found, specs, strict=True):
        rows = gradient
        if len(spec.axis) == 2:  # pairs, whose rows and columns are one dimension here
            *lead, count, others, dim = gradient.shape
            rows = gradient.reshape((*lead, count * others, dim))
        gradients.append(sum_to_shape(rows, tuple(inputs[number].shape), batch_ranks[number]))
    return gradients


def _with_results(
    executable: Executable, cotangents: Sequence[Any | None], results: Sequence[Any]
) -> tuple[Executable, list[Any]]:
    """Leave out the results that have no cotangent."""
    given = [cotangent for cotangent in cotangents if cotangent is not None]
    request = executable.request
    if len(given) == len(cotangents):
        return executable, given
    assert not results
    kept = tuple(number for number, cotangent in enumerate(cotangents) if cotangent is not None)
    return find_by_text(_with_some_results(request, kept).canonical_text()), given


def _with_some_results(request: Request, kept: tuple[int, ...]) -> Request:
    """Ask for the results of these numbers only; the inputs stay what they are."""
    if isinstance(request, ReductionRequest):
        raise UnsupportedError(at_user_line("a program of several reductions has no gradient of one of them alone"))
    order = request.order
    if order.mode == "wrt":
        return DerivedRequest(request.forward, Order("wrt", tuple(order.numbers[number] for number in kept)))
    return DerivedRequest(_with_some_results(request.forward, kept), order)
