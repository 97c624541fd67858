"""The stages of a reduction, from formula to result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.execute import host_target
from pylazy.expression import at_user_line
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pylazy.execute import Job

STAGES = ("expression", "formula", "kernel", "loops", "gpu", "llvm", "asm", "ptx")
"""What `as_text` can show.

The expression is what kernels are found by, and needs no compiler. The formula and the kernel are the two levels of the
dialect; then come the loops of a CPU or the code of a GPU in MLIR, LLVM IR, and machine code as text.
"""

_GPU_STAGES = ("gpu", "ptx")
_DEFAULT_GPU = "sm_90"


class Reduction:
    """A reduction that has not run: call it, read it, or compile it ahead.

    The data is read at each call, so arrays may change between calls; their shapes may not.
    """

    __slots__ = ("_job", "_single")

    def __init__(self, job: Job, *, single: bool) -> None:
        self._job = job
        self._single = single

    def __call__(self, *, out: Any = None) -> Any:
        """Run on the data as it is now.

        Args:
            out: array to write the result into, or a tuple of them where there are several results.

        Returns:
            An array, or a tuple of arrays, of the kind of the inputs.
        """
        if self._single:
            return self._job.run(None if out is None else (out,))[0]
        return self._job.run(out)

    @property
    def shape(self) -> Any:
        """Shape of the result, or a tuple of shapes where there are several."""
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

    def __repr__(self) -> str:
        kinds = ", ".join(wanted.kind for wanted in self._job.wanted)
        return f"<Reduction {kinds} over {self._job.reduced}, {self._job.dtype}, shape {self.shape}>"


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
        request = self._reduction._job.executable.request
        if stage == "expression":
            return request.canonical_text()
        if self._texts is None:
            from pylazy import trace
            from pylazy.compiler.compile import ptx_as_text, stages_as_text

            write = ptx_as_text if self.target.startswith("sm_") else stages_as_text
            self._texts = write(trace.trace(request, few_rows=self._reduction._job.few), self.target)
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
        reduction._job.executable.load(reduction._job.few)
        self._reduction = reduction

    def __call__(self, *, out: Any = None) -> Any:
        """Run on the data as it is now; see `Reduction`."""
        return self._reduction(out=out)


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise UnsupportedError(at_user_line(f"no stage is called {stage!r}, expected one of {', '.join(STAGES)}"))
