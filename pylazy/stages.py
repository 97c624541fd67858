"""The stages of a reduction, from formula to result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pylazy.arrays.sources import SYMBOL
from pylazy.canonical_form import flatten
from pylazy.execution.prepare import formula_dtype, prepare
from pylazy.execution.programs import host_target
from pylazy.execution.templates import Template
from pylazy.options import ranges_of, read_backend, read_options
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.job import Job
    from pylazy.execution.programs import Executable, Extents
    from pylazy.execution.wanted_results import Wanted
    from pylazy.explain import Explanation
    from pylazy.expression import Expression
    from pylazy.options import Backend

STAGES = ("expression", "formula", "kernel", "loops", "gpu", "llvm", "asm", "ptx")
"""What `as_text` can show.

The expression is what kernels are found by, and needs no compiler. The formula and the kernel are the two levels of the
dialect; then come the loops of a CPU or the code of a GPU in MLIR, LLVM IR, and machine code as text.
"""

_GPU_STAGES = ("gpu", "ptx")
_DEFAULT_GPU = "sm_90"


class Reduction:
    """A reduction that has not run: call it, read it, or compile it ahead.

    Data that is stored in the formula is read at each call, so arrays may change between calls; their shapes may not.
    Data of symbolic variables is given at each call, and may have other sizes each time: the program is the same.
    """

    __slots__ = ("_job", "_single", "_template")

    is_complex: ClassVar[bool] = False

    def __init__(self, job: Job | None, template: Template | None, *, single: bool) -> None:
        self._job = job
        self._template = template
        self._single = single

    def __call__(
        self, *data: Any, out: Any = None, ranges: Any = None, backend: str | None = None, device_id: int = -1
    ) -> Any:
        """Run on the data as it is now.

        Args:
            *data: an array for each symbolic variable, in the order of their indices.
            out: array to write the result into, or a tuple of them where there are several results.
            ranges: for a formula with symbolic variables, the pairs to reduce; by default those that the reduction was
                made with.
            backend: for a formula with symbolic variables, where to run, as for `LazyTensor.sum`; by default where the
                reduction was made for.
            device_id: with it, the number of a GPU.

        Returns:
            An array, or a tuple of arrays, of the kind of the inputs.

        Raises:
            TypeError: too many or too few arrays.
            ShapeError: an array has another inner dimension, or sizes that do not fit those of others.
            DtypeError: an argument is no array, or of a dtype that no formula reads.
            UnsupportedError: ranges are given to a reduction that has its data.
        """
        if self._template is None and (ranges is not None or backend is not None):
            found, it = ("a backend is", "it") if ranges is None else ("ranges are", "them")
            raise UnsupportedError(
                at_user_line(f"{found} given to a reduction that has its data: give {it} when it is made")
            )
        chosen = None if backend is None else read_backend(backend, device_id)
        job = self.bound(data, None if ranges is None else ranges_of({}, ranges), chosen)
        if self._single:
            return job.run(None if out is None else (out,))[0]
        return job.run(out)

    def bound(self, data: Sequence[Any], ranges: Ranges | None = None, backend: Backend | None = None) -> Job:
        """Give the program with the data of a call; see `__call__`."""
        if self._template is not None:
            return self._template.bind(data, ranges, backend)
        if data:
            raise TypeError(
                at_user_line(
                    f"the reduction was called with {len(data)} arrays, expected none: its formula has no symbolic "
                    "variables, as Vi(0, 3) makes them"
                )
            )
        assert self._job is not None
        return self._job

    @property
    def job(self) -> Job | None:
        """The program with its data; None where a call brings the data."""
        return self._job

    @property
    def is_single(self) -> bool:
        """Whether the result is one array; else it is a tuple of them."""
        return self._single

    @property
    def shape(self) -> Any:
        """Shape of the result, or a tuple of shapes where there are several; None where a call decides on it."""
        if self._job is None:
            return None
        return self._job.shapes[0] if self._single else self._job.shapes

    def as_text(self, stage: str = "formula", *, target: str | None = None) -> str:
        """Write one stage of the road from formula to machine code; one of `STAGES`."""
        _check_stage(stage)
        return self.lower(_target_of(stage) if target is None else target).as_text(stage)

    def explain(self, target: str | None = None) -> Explanation:
        """Write a page about how the formula is compiled, by default for this machine: a notebook shows it.

        Args:
            target: a CPU level such as "x86-64-v4", of this machine or not, or a GPU such as "sm_90".

        Raises:
            UnsupportedError: the formula needs what the target does not have.
        """
        from pylazy.explain import explain

        return explain({"reduction": self}, target or host_target())

    def lower(self, target: str | None = None) -> Lowered:
        """Lower the formula for a target, by default this machine: a CPU level such as "x86-64-v3", or "sm_90"."""
        return Lowered(self, host_target() if target is None else target)

    @property
    def executable(self) -> Executable:
        """The programs; where a call decides on the dtype, those for float64."""
        if self._template is not None:
            return self._template.executable()
        assert self._job is not None
        return self._job.executable

    @property
    def few(self) -> str:
        """The axis with few rows, if that is known; see `few_rows`."""
        return "" if self._job is None else self._job.few

    def __repr__(self) -> str:
        from pylazy.formula_texts.formula_text import reduction_as_text

        facts = ", ".join(f"{name}={value}" for name, value in self._facts().items())
        return f"Reduction({reduction_as_text(*self._formula())}, {facts})"

    def _repr_latex_(self) -> str:
        """Write the reduction in LaTeX, for notebooks."""
        from pylazy.formula_texts.formula_text import reduction_as_latex

        return rf"$\displaystyle {reduction_as_latex(*self._formula())}$"

    def _repr_html_(self) -> str:
        """Write the reduction and what is known of it as a table, for notebooks."""
        from pylazy.formula_texts.formula_text import as_html, reduction_as_text

        return as_html("Reduction", reduction_as_text(*self._formula()), self._facts())

    def _formula(self) -> tuple[Sequence[Expression], tuple[Wanted, ...], str]:
        found = self._template or self._job
        assert found is not None
        return found.expressions, found.wanted, found.reduced

    def _facts(self) -> dict[str, str]:
        if self._template is not None:
            return {"arguments": f"({', '.join(map(str, self._template.arguments))})"}
        assert self._job is not None
        return {"shape": str(self.shape), "dtype": self._job.storage}


def reduce_or_postpone(
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    *,
    reduced: str,
    extents: Extents,
    backend: str | None,
    ranges: tuple[Any, ...] | None = None,
    options: Mapping[str, Any],
    keepdim: bool = False,
    drop_inner: bool = False,
) -> Any:
    """Reduce, unless the user asks for the `Reduction`, or variables are symbolic and leave no choice.

    Args:
        expressions: the formula, and the weight where there is one.
        wanted: the results.
        reduced: the axis to reduce, "i" or "j".
        extents: sizes of the formula and the weight together.
        backend: the one that the LazyTensor asks for, if any.
        ranges: those that the LazyTensor asks for, if any.
        options: keyword arguments as the user wrote them; see `read_options`.
        keepdim: keep the reduced axis in the shape of the results, with size 1.
        drop_inner: leave an inner dimension of 1 out of the shape of the results.

    Returns:
        An array, a tuple of arrays where there are several results, or a `Reduction`.
    """
    flat = None
    postponed = False
    if None in [expression.form for expression in expressions]:  # symbolic variables have no form
        flat = flatten(expressions)
        postponed = SYMBOL in [source.kind for source in flat.sources]
    chosen = ranges_of(options, ranges) if options or ranges is not None else None
    single = len(wanted) == 1
    read = None
    if options or backend is not None:
        dtype = None if postponed else formula_dtype(expressions, (flat or flatten(expressions)).sources)
        read = read_options(options, dtype=dtype, backend=backend)
        wanted = tuple([target._replace(summation=read.summation, math_mode=read.math_mode) for target in wanted])
    if flat is not None and postponed:
        if read is not None and read.out is not None:
            raise UnsupportedError(
                at_user_line("out is given for a formula with symbolic variables: give it when the Reduction is called")
            )
        return Reduction(
            None,
            Template(
                expressions,
                wanted,
                reduced=reduced,
                extents=extents,
                flat=flat,
                keepdim=keepdim,
                drop_inner=drop_inner,
                options=options if backend is None else {"backend": backend, **options},
                ranges=chosen,
                backend=None if read is None else read.backend,
            ),
            single=single,
        )
    job = prepare(
        expressions,
        wanted,
        reduced=reduced,
        extents=extents,
        keepdim=keepdim,
        drop_inner=drop_inner,
        flat=flat,
        ranges=chosen,
        backend=None if read is None else read.backend,
    )
    if read is None:
        return job.run()[0] if single else job.run()
    reduction = Reduction(job, None, single=single)
    return reduction(out=read.out) if read.call else reduction


class Lowered:
    """A reduction lowered for a target.

    Attributes:
        target: the name of the target.
    """

    __slots__ = ("_reduction", "_texts", "target")

    def __init__(self, reduction: Reduction, target: str) -> None:
        self.target = target
        self._reduction = reduction
        self._texts: Mapping[str, str] | None = None

    def as_text(self, stage: str = "llvm") -> str:
        """Write one of `STAGES` for this target."""
        _check_stage(stage)
        reduction = self._reduction
        if stage == "expression":
            return reduction.executable.reductions.canonical_text()
        if self._texts is None:
            self._texts = _all_texts(reduction.executable, reduction.few, self.target)
        return _picked(self._texts, stage, self.target)

    def compile(self) -> Compiled:
        """Compile for the target.

        Raises:
            UnsupportedError: the target is not a level of this machine's processor.
        """
        if self.target != host_target():
            raise UnsupportedError(
                at_user_line(
                    f"the target {self.target} is not this machine's, {host_target()}: it can only be read as text"
                )
            )
        return Compiled(self._reduction)


class Compiled:
    """A reduction whose program is loaded; calling it only runs."""

    __slots__ = ("_reduction",)

    def __init__(self, reduction: Reduction) -> None:
        reduction.executable.load(reduction.few)
        self._reduction = reduction

    def __call__(self, *data: Any, out: Any = None) -> Any:
        """Run on the data as it is now; see `Reduction`."""
        return self._reduction(*data, out=out)


def stage_as_text(executable: Executable, few: str, stage: str, target: str | None) -> str:
    """Write one of `STAGES` of a program, by default for this machine or, where it is one of GPUs, for "sm_90"."""
    _check_stage(stage)
    if stage == "expression":
        return executable.reductions.canonical_text()
    if target is None:
        target = _target_of(stage)
    return _picked(_all_texts(executable, few, target), stage, target)


def _target_of(stage: str) -> str:
    return _DEFAULT_GPU if stage in _GPU_STAGES else host_target()


def _all_texts(executable: Executable, few: str, target: str) -> Mapping[str, str]:
    from pylazy import trace
    from pylazy.compiler.compile import ptx_as_text, stages_as_text

    write = ptx_as_text if target.startswith("sm_") else stages_as_text
    return write(trace.trace(executable.reductions, few_rows=few), target)


def _picked(texts: Mapping[str, str], stage: str, target: str) -> str:
    if stage not in texts:
        shown = ", ".join(("expression", *texts))
        raise UnsupportedError(at_user_line(f"target {target} has no stage {stage!r}, expected one of {shown}"))
    return texts[stage]


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise UnsupportedError(at_user_line(f"no stage is called {stage!r}, expected one of {', '.join(STAGES)}"))
