"""The stages of a reduction, from formula to result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy import arrays
from pylazy.execute import flatten, prepare
from pylazy.expression import at_user_line
from pylazy.options import read_options
from pylazy.programs import host_target
from pylazy.runtime.errors import UnsupportedError
from pylazy.templates import Template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pylazy.execute import Job, Wanted
    from pylazy.expression import Expression
    from pylazy.programs import Executable, Extents

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

    def __init__(self, job: Job | None, template: Template | None, *, single: bool) -> None:
        self._job = job
        self._template = template
        self._single = single

    def __call__(self, *data: Any, out: Any = None) -> Any:
        """Run on the data as it is now.

        Args:
            *data: an array for each symbolic variable, in the order of their indices.
            out: array to write the result into, or a tuple of them where there are several results.

        Returns:
            An array, or a tuple of arrays, of the kind of the inputs.

        Raises:
            TypeError: too many or too few arrays.
            ShapeError: an array has another inner dimension, or sizes that do not fit those of others.
            DtypeError: an argument is no array, or not one of float32 or float64.
        """
        job = self._job
        if self._template is not None:
            job = self._template.bind(data)
        elif data:
            raise TypeError(
                at_user_line(
                    f"the reduction was called with {len(data)} arrays, expected none: its formula has no symbolic "
                    "variables, as Vi(0, 3) makes them"
                )
            )
        assert job is not None
        if self._single:
            return job.run(None if out is None else (out,))[0]
        return job.run(out)

    @property
    def shape(self) -> Any:
        """Shape of the result, or a tuple of shapes where there are several; None where a call decides on it."""
        if self._job is None:
            return None
        return self._job.shapes[0] if self._single else self._job.shapes

    def as_text(self, stage: str = "formula", *, target: str | None = None) -> str:
        """Write one stage of the road from formula to machine code; one of `STAGES`."""
        _check_stage(stage)
        if target is None and stage in _GPU_STAGES:
            target = _DEFAULT_GPU
        return self.lower(target).as_text(stage)

    def lower(self, target: str | None = None) -> Lowered:
        """Lower the formula for a target, by default this machine: a CPU level such as "x86-64-v3", or "sm_90"."""
        if target is None:
            target = host_target()
        return Lowered(self, target)

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
        if self._template is not None:
            kinds = ", ".join(wanted.kind for wanted in self._template.wanted)
            arguments = ", ".join(map(str, self._template.arguments))
            return f"<Reduction {kinds} over {self._template.reduced}, to be called with {arguments}>"
        assert self._job is not None
        kinds = ", ".join(wanted.kind for wanted in self._job.wanted)
        return f"<Reduction {kinds} over {self._job.reduced}, {self._job.dtype}, shape {self.shape}>"


def reduce_or_postpone(
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    *,
    reduced: str,
    extents: Extents,
    backend: str | None,
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
        options: keyword arguments as the user wrote them; see `read_options`.
        keepdim: keep the reduced axis in the shape of the results, with size 1.
        drop_inner: leave an inner dimension of 1 out of the shape of the results.

    Returns:
        An array, a tuple of arrays where there are several results, or a `Reduction`.
    """
    flat = flatten(expressions)
    for source in flat.sources:
        if source.kind == arrays.SYMBOL:
            return _postpone(
                Template(
                    expressions,
                    wanted,
                    reduced=reduced,
                    extents=extents,
                    flat=flat,
                    keepdim=keepdim,
                    drop_inner=drop_inner,
                    options=options if backend is None else {"backend": backend, **options},
                ),
                options,
            )
    job = prepare(
        expressions,
        wanted,
        reduced=reduced,
        extents=extents,
        keepdim=keepdim,
        drop_inner=drop_inner,
        flat=flat,
    )
    single = len(wanted) == 1
    if not options and backend is None:
        return job.run()[0] if single else job.run()
    read = read_options(options, dtype=job.dtype, backend=backend)
    reduction = Reduction(job, None, single=single)
    return reduction(out=read.out) if read.call else reduction


def _postpone(template: Template, options: Mapping[str, Any]) -> Reduction:
    # What depends on the dtype is checked when there is one.
    later = ("dtype_acc", "use_double_acc")
    read = read_options({name: value for name, value in options.items() if name not in later}, dtype=None)
    if read.out is not None:
        raise UnsupportedError(
            at_user_line("out is given for a formula with symbolic variables: give it when the Reduction is called")
        )
    return Reduction(None, template, single=len(template.wanted) == 1)


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
        request = self._reduction.executable.reductions
        if stage == "expression":
            return request.canonical_text()
        if self._texts is None:
            from pylazy import trace
            from pylazy.compiler.compile import ptx_as_text, stages_as_text

            write = ptx_as_text if self.target.startswith("sm_") else stages_as_text
            self._texts = write(trace.trace(request, few_rows=self._reduction.few), self.target)
        if stage not in self._texts:
            shown = ", ".join(("expression", *self._texts))
            raise UnsupportedError(
                at_user_line(f"target {self.target} has no stage {stage!r}, expected one of {shown}")
            )
        return self._texts[stage]

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


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise UnsupportedError(at_user_line(f"no stage is called {stage!r}, expected one of {', '.join(STAGES)}"))
