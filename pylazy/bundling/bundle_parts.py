"""What a bundle keeps of a reduction: programs to compile, and what a call of them takes and gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from pylazy.arrays.sources import NUMBER, array_source, complex_part
from pylazy.block_sparse.ranges import Ranges
from pylazy.canonical_form import flatten
from pylazy.complex_numbers.complex_reductions import ComplexReduction
from pylazy.execution.prepare import find_executable, prepare
from pylazy.execution.programs import Extents
from pylazy.execution.wanted_results import Wanted, result_shapes
from pylazy.expression import Expression, replace_leaves
from pylazy.genred import Genred
from pylazy.reductions import REDUCTIONS, SELECTIONS
from pylazy.runtime.errors import UnsupportedError
from pylazy.runtime.manifest import Argument, Function, Result
from pylazy.stages import Reduction
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pylazy.arrays.sources import Source
    from pylazy.execution.job import Job
    from pylazy.reductions import ReductionRequest

FEW_ROWS = ("", "i", "j")
"""See `pylazy.execution.programs.few_rows`."""


class Part(NamedTuple):
    """A function of a bundle before it is compiled.

    Attributes:
        name: of the function, and of its kernel.
        job: the reduction on arrays that say only which axes, dtype and inner dimension the arguments have.
        arguments: the inputs of the program, in its order.
        wrt: the gradients: numbers of inputs.
        few: the axes whose few rows have programs of their own.
        drop_inner: whether an inner dimension of 1 is left out of the shape of results.
        is_complex: whether results are complex.
        selection: see `pylazy.runtime.manifest.Function`.
    """

    name: str
    job: Job
    arguments: tuple[Argument, ...]
    wrt: tuple[tuple[int, ...], ...]
    few: tuple[str, ...]
    drop_inner: bool
    is_complex: bool = False
    selection: tuple[Part, ...] = ()

    @property
    def request(self) -> ReductionRequest:
        """What the program computes."""
        return self.job.executable.reductions

    def function(self) -> Function:
        """What the manifest says."""
        wanted = self.job.wanted
        results = tuple(
            Result(wanted.kind, output.dim // (output.k or 1), output.k, output.dtype)
            for wanted, output in zip(wanted, self.request.outputs, strict=True)
        )
        return Function(
            name=self.name,
            meaning=", ".join(_meaning(result, self.job.reduced) for result in results),
            dtype=self.job.dtype,
            reduced=self.job.reduced,
            keepdim=not wanted[0].k and _rank(self.job) == 3,
            drop_inner=self.drop_inner,
            arguments=self.arguments,
            results=results,
            kernel=self.name,
            gradients=tuple(gradient_id(self.name, wrt) for wrt in self.wrt),
            ranged=self.request.ranged,
            is_complex=self.is_complex,
            indices="".join(sorted(flatten(self.job.expressions).indices)),
            selection=tuple(part.function() for part in self.selection),
        )


def part_of(
    reduction: Reduction | Genred,
    *,
    name: str,
    gradients: bool,
    arguments: Sequence[str] | None,
    dtype: str | None,
    ranged: bool,
) -> Part:
    """Read a reduction; the arguments are those of `pylazy.Bundle.add`.

    Raises:
        UnsupportedError: this is no reduction that can be kept, or the names do not fit its arrays.
    """
    if not isinstance(reduction, Reduction | Genred):
        raise UnsupportedError(
            at_user_line(
                f"reduction is of type {type(reduction).__name__}, expected a Reduction, as methods of LazyTensor give "
                "with call=False, or a Genred"
            )
        )
    job, order, own_names = _job_of(reduction, dtype, ranged=ranged)
    groups = _grouped(job, order)
    read = _arguments(job, groups, arguments if arguments is not None else own_names)
    is_ranged = job.ranges is not None
    return Part(
        name,
        job,
        read,
        _wrt(job, groups) if gradients else (),
        FEW_ROWS[:1] if is_ranged else FEW_ROWS,
        drop_inner=_drops_inner(reduction, job),
        is_complex=isinstance(reduction, ComplexReduction),
        selection=_selection(name, job, read, groups) if gradients else (),
    )


def gradient_id(name: str, wrt: tuple[int, ...]) -> str:
    """Name the kernel of a gradient."""
    return f"{name}.gradient.{'_'.join(map(str, wrt))}"


def _meaning(result: Result, reduced: str) -> str:
    k = f", k = {result.k}" if result.k else ""
    return f"{REDUCTIONS[result.kind].meaning} over {reduced}{k}"


def _rank(job: Job) -> int:
    """Dimensions of the first result besides those of the batch and of k."""
    return len(job.shapes[0]) - len(job.extents.batch) - (1 if job.wanted[0].k else 0)


def _drops_inner(reduction: Reduction | Genred, job: Job) -> bool:
    if isinstance(reduction, ComplexReduction):
        return reduction.drop_inner
    return not job.wanted[0].k and _rank(job) == 1


# Jobs and their arguments ---------------------------------------------------------------------------------------------


def _job_of(
    reduction: Reduction | Genred, dtype: str | None, *, ranged: bool
) -> tuple[Job, list[int], Sequence[str] | None]:
    """A job with arrays of the right kind; its arrays (numbers of its inputs) in the order of a call; their names."""
    template = reduction._template
    if template is None:
        job = cast("Reduction", reduction)._job  # a Genred has a template
        assert job is not None
        if dtype not in (None, job.dtype):
            raise UnsupportedError(at_user_line(f"dtype is {dtype}, and the arrays of the reduction have {job.dtype}"))
        if ranged and job.ranges is None:
            raise UnsupportedError(
                at_user_line("ranged is True, and the reduction has its data and no ranges: give them when it is made")
            )
        return job, [number for number, source in enumerate(job.sources) if source.kind != NUMBER], None
    if dtype not in (None, "float32", "float64"):
        raise UnsupportedError(at_user_line(f"dtype is {dtype!r}, expected float32 or float64"))
    count = max(1, *(wanted.k for wanted in template.wanted))
    shapes = [(count, argument.dim) if argument.axes else (argument.dim,) for argument in template.arguments]
    given = [np.zeros(shape, dtype or "float64") for shape in shapes]
    job = template.bind(given, _all_pairs(count) if ranged or template._ranges is not None else None)
    order = []
    for argument, array in zip(template.arguments, given, strict=True):
        numbers = [number for number, source in enumerate(job.sources) if source.array is array]
        if len(numbers) != 1:
            uses = "no rows" if not numbers else "both rows and columns"
            raise UnsupportedError(at_user_line(f"argument {argument} is {uses} of the formula, expected one of both"))
        order += numbers
    names = [argument.name for argument in template.arguments]
    return job, order, names if all(names) else None


def _all_pairs(count: int) -> Ranges:
    half = ([[0, count]], [1], [[0, count]])
    return Ranges((*half, *half))


def _grouped(job: Job, order: Iterable[int]) -> list[tuple[int, ...]]:
    """Join the numbers of inputs that are the two parts of one complex array."""
    groups: list[list[int]] = []
    known: dict[tuple[int, str], list[int]] = {}
    for number in order:
        part = complex_part(job.sources[number])
        if part is None:
            groups.append([number])
            continue
        if part.conjugated:
            raise UnsupportedError(
                at_user_line("the reduction was made of a conjugated tensor: make it of x.resolve_conj()")
            )
        key = (id(part.owner), job.executable.request.inputs[number].axis)
        group = known.get(key, [])
        taken = [complex_part(job.sources[other]) for other in group]
        if not group or part.name in [found.name for found in taken if found is not None]:
            group = known[key] = []
            groups.append(group)
        group.append(number)
    return [tuple(group) for group in groups]


def _arguments(job: Job, groups: Sequence[tuple[int, ...]], names: Sequence[str] | None) -> tuple[Argument, ...]:
    """Describe the inputs of a program, in its order; `groups` are the arrays in the order of a call."""
    if names is not None and (len(names) != len(groups) or not all(name.isidentifier() for name in names)):
        raise UnsupportedError(
            at_user_line(f"arguments are {names}, expected {len(groups)} identifiers, one for each array")
        )
    inputs = job.executable.request.inputs
    place_of = {number: place for place, group in enumerate(groups) for number in group}
    found = []
    for number, (entry, source) in enumerate(zip(inputs, job.sources, strict=True)):
        default = ""
        if number in place_of:
            place = place_of[number]
            name = names[place] if names is not None else inputs[min(groups[place])].name
        elif source.kind == NUMBER:
            place, name, default = len(groups) + number, entry.name, repr(float(source.array))
        else:
            raise UnsupportedError(
                at_user_line("a formula with symbolic variables has arrays too: use one or the other")
            )
        part = complex_part(source)
        found.append(
            Argument(name, entry.axis, entry.dim, _layout(source), place, default, "" if part is None else part.name)
        )
    if len({(argument.name, argument.part) for argument in found}) != len(found):
        raise UnsupportedError(at_user_line(f"arguments are {names}: two have one name, or that of a number"))
    return tuple(found)


def _layout(source: Source) -> str:
    """Say how the batch dimensions of an array stand.

    K @ v and symbolic variables take (*batch, N, D), LazyTensors (*batch, 1, N, D); the `view` of a source tells.
    """
    return "rows" if source.kind != NUMBER and source.identity[1] in ("j", "") else "lazy"


# Gradients ------------------------------------------------------------------------------------------------------------


def _wrt(job: Job, groups: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Choose the gradients: all arrays in one sweep, and each alone."""
    if len(job.wanted) != 1 or not REDUCTIONS[job.executable.reductions.outputs[0].kind].differentiable:
        return ()
    together = tuple(sorted(number for group in groups for number in group))
    alone = (tuple(sorted(group)) for group in groups)
    return tuple(dict.fromkeys((together, *alone))) if together else ()


def _selection(
    name: str, job: Job, arguments: tuple[Argument, ...], groups: Sequence[tuple[int, ...]]
) -> tuple[Part, ...]:
    """Give what the gradient of the smallest or largest values needs; see `pylazy.pytorch.torch_selection`."""
    if not groups or not any(wanted.kind in SELECTIONS for wanted in job.wanted):
        return ()
    first = job.wanted[0]
    kind = first.kind.removeprefix("arg")
    wanted = tuple(Wanted(found, first.operands, first.k) for found in (kind, f"arg{kind}"))
    shapes = result_shapes(job.expressions, wanted, job.reduced, job.extents, keepdim=False, drop_inner=False)
    flat = flatten(job.expressions)
    ranged = job.ranges is not None
    executable = find_executable(flat, job.expressions, wanted, job.reduced, job.dtype, ranged=ranged)
    few = FEW_ROWS[:1] if ranged else FEW_ROWS
    chosen = Part(f"{name}.selected", job.asking(wanted, executable, shapes), arguments, (), few, drop_inner=False)
    return chosen, _on_pairs(f"{name}.pairs", job, groups)


def _on_pairs(name: str, job: Job, groups: Sequence[tuple[int, ...]]) -> Part:
    """Give the formula on a list of pairs: its variables are rows, gathered at the pairs."""
    position = job.expressions[0].position
    inputs = job.executable.request.inputs
    numbers: dict[int, int] = {}  # from the id of a source to its argument
    leaves = {}
    for number, named in enumerate(flatten(job.expressions).sources):
        spec, source = inputs[number], job.sources[number]
        if spec.axis:
            source = _stand_in(spec.dim, job.dtype, weak=source.weak)
        numbers[id(source)] = number
        dtype = None if source.weak else source.dtype
        leaf = Expression("var", (), (), "i" if spec.axis else "", spec.dim, dtype, source, position)
        leaves[named.identity, spec.axis, spec.dim] = leaf
    indices = {axis: _stand_in(1, job.dtype, weak=True) for axis in "ij"}
    numbers |= {id(source): len(inputs) + place for place, source in enumerate(indices.values())}

    def on_pairs(leaf: Expression) -> Expression:
        if leaf.op == "index":
            return Expression("var", (), (), "i", 1, None, indices[leaf.axes], position)
        if leaf.op != "var":
            return leaf
        return leaves[leaf.source.identity, "ji" if leaf.attributes else leaf.axes, leaf.dim]

    formula = replace_leaves(job.expressions[0], on_pairs)
    made = prepare((formula,), (Wanted("sum", (0,)),), reduced="j", extents=Extents((), 1, 1))
    found = []
    for entry, source in zip(made.executable.request.inputs, made.sources, strict=True):
        default = repr(float(source.array)) if source.kind == NUMBER else ""
        found.append(Argument(entry.name, entry.axis, entry.dim, "rows", numbers[id(source)], default))
    places = {argument.place: number for number, argument in enumerate(found)}
    kept = [tuple(places[number] for number in group if number in places) for group in groups]
    return Part(
        name, made, tuple(found), _wrt(made, [group for group in kept if group]), FEW_ROWS[:1], drop_inner=False
    )


def _stand_in(dim: int, dtype: str, *, weak: bool) -> Source:
    return array_source(np.zeros((1, dim), dtype), what="a stand-in", batch=0, view="", weak=weak)
