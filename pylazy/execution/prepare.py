"""From expressions to a job: find or make the program of a reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.arrays.array_libraries import is_compiling
from pylazy.arrays.sources import NUMBER, SYMBOL, Source
from pylazy.canonical_form import Flattened, flatten
from pylazy.dtypes import arithmetic_dtype, promote, result_dtype
from pylazy.execution.extent_checks import check_indices, check_terms, complete_extents
from pylazy.execution.job import Job
from pylazy.execution.programs import Executable, Extents, find_by_text
from pylazy.execution.wanted_results import Wanted, request_outputs, result_shapes
from pylazy.expression import Expression, joint_form
from pylazy.reductions import ReductionRequest, request_text
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.block_sparse.ranges import Ranges
    from pylazy.options import Backend

_MAX_EXECUTABLES = 4096
_MAX_PLANS = 64
_EXECUTABLES: dict[tuple[Any, ...], Executable] = {}


class Plan(NamedTuple):
    """What a reduction has in common with those of all formulas of one form and of the same sizes.

    Attributes:
        executable: the programs.
        dtype: of the arithmetic.
        storage: of values of the formula.
        extents: sizes, complete.
        shapes: of the results.
    """

    executable: Executable
    dtype: str
    storage: str
    extents: Extents
    shapes: tuple[tuple[int, ...], ...]


def prepare(
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    *,
    reduced: str,
    extents: Extents,
    keepdim: bool = False,
    drop_inner: bool = False,
    flat: Flattened | None = None,
    ranges: Ranges | None = None,
    backend: Backend | None = None,
) -> Job:
    """Find or make the program of a reduction, and bind it to its data.

    Args:
        expressions: the formula, and the weight where there is one.
        wanted: the results.
        reduced: the axis to reduce, "i" or "j".
        extents: sizes of the formula and the weight together.
        keepdim: keep the reduced axis in the shape of the results, with size 1.
        drop_inner: leave an inner dimension of 1 out of the shape of the results.
        flat: the expressions in canonical form, where the caller has it already.
        ranges: the pairs to reduce, None for all.
        backend: where to run; None for where the arrays lie.

    Raises:
        ShapeError: nothing to take a position from, fewer terms than the k best, or more pairs than 64 bits count.
        UnsupportedError: a variable is symbolic.
    """
    form, inputs = (None, None) if flat is not None or is_compiling() else joint_form(expressions)
    key = (wanted, reduced, extents, keepdim, drop_inner, ranges is not None)
    plan: Plan | None = None
    try:
        plan = None if form is None else form.plans.get(key)
    except TypeError:
        form = None  # torch.export counts in symbols, which no table takes
    if plan is not None and inputs is not None:
        sources = list(inputs.values())
    else:
        flat = flatten(expressions) if flat is None else flat
        sources = flat.sources
        if SYMBOL in [source.kind for source in sources]:
            raise UnsupportedError(
                at_user_line(
                    "this operation on a formula with symbolic variables is not implemented yet: give it arrays"
                )
            )
        extents = complete_extents(wanted, reduced, extents)
        shapes = result_shapes(expressions, wanted, reduced, extents, keepdim=keepdim, drop_inner=drop_inner)
        plan = _make_plan(flat, expressions, wanted, reduced, extents, shapes, ranged=ranges is not None)
        if form is not None:
            if len(form.plans) >= _MAX_PLANS:
                form.plans.clear()
            form.plans[key] = plan
    if ranges is not None:
        check_terms(wanted, reduced, plan.extents, ranges)
    return Job(
        plan.executable,
        sources,
        expressions,
        dtype=plan.dtype,
        extents=plan.extents,
        reduced=reduced,
        wanted=wanted,
        shapes=plan.shapes,
        ranges=ranges,
        storage=plan.storage,
        backend=backend,
    )


def _make_plan(
    flat: Flattened,
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    extents: Extents,
    shapes: tuple[tuple[int, ...], ...],
    *,
    ranged: bool,
) -> Plan:
    storage = formula_dtype(expressions, flat.sources)
    dtype = arithmetic_dtype(storage)
    check_indices(flat, dtype, extents)
    executable = find_executable(flat, expressions, wanted, reduced, dtype, ranged=ranged)
    return Plan(executable, dtype, storage, extents, shapes)


def formula_dtype(expressions: Sequence[Expression], sources: Sequence[Source]) -> str:
    """The dtype of values of a formula: that of the arrays, or of numbers where there is nothing else."""
    dtype: str | None = None
    for expression in expressions:
        dtype = promote(dtype, expression.dtype)
    if dtype is None:
        for source in sources:
            dtype = promote(dtype, source.dtype if source.kind != NUMBER else None)
    return result_dtype(dtype)


def find_executable(
    flat: Flattened,
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    dtype: str,
    *,
    ranged: bool = False,
) -> Executable:
    """Find or make the program of a reduction, over all pairs or over those of ranges."""
    if is_compiling():
        outputs = request_outputs(flat.roots, expressions, wanted, reduced, dtype)
        return find_by_text(request_text(dtype, flat.entries, outputs, ranged=ranged))
    key = (flat.entries, flat.roots, wanted, reduced, dtype, ranged)
    executable = _EXECUTABLES.get(key)
    if executable is None:
        # Threads may race to make it; setdefault lets one win, and the kernel cache builds each program once.
        request = _request(flat, expressions, wanted, reduced, dtype, ranged=ranged)
        executable = _EXECUTABLES.setdefault(key, Executable(request))
        while len(_EXECUTABLES) > _MAX_EXECUTABLES:
            _EXECUTABLES.pop(next(iter(_EXECUTABLES)), None)
    return executable


def _request(
    flat: Flattened,
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    dtype: str,
    *,
    ranged: bool,
) -> ReductionRequest:
    outputs = request_outputs(flat.roots, expressions, wanted, reduced, dtype)
    return ReductionRequest(dtype, flat.entries, flat.inputs(), flat.nodes(), outputs, ranged)
