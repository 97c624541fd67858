"""Programs of a bundle: chosen for this machine, and put into memory when they are first needed.

Neither MLIR nor LLVM is imported here or below.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

from pylazy.expression import INPUT_PREFIXES, Input, at_user_line
from pylazy.programs import Executable, Selection, host_target
from pylazy.reductions import REDUCTIONS, Output, ReductionRequest
from pylazy.runtime.bundle import BundleFile, choose_code
from pylazy.runtime.errors import DeviceError, UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.launch import Program, is_runnable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.runtime.kernel import Buffer
    from pylazy.runtime.manifest import Function, Kernel

LEVEL_VARIABLE = "PYLAZY_CPU_LEVEL"


class BundledExecutable(Executable):
    """The programs of one function, put into memory when they are first needed; shared by all threads.

    Attributes:
        differentiable: the numbers of the arguments that have a gradient.
    """

    __slots__ = ("_file", "_function", "_own", "_selection", "differentiable")

    def __init__(self, file: BundleFile, function: Function) -> None:
        """Describe the function as the request that its programs were made from."""
        inputs = [
            Input(f"{INPUT_PREFIXES[argument.axis]}{number}", argument.axis, argument.dim)
            for number, argument in enumerate(function.arguments)
        ]
        outputs = [
            Output(
                REDUCTIONS[result.kind].program or result.kind,
                function.reduced,
                (number,),
                result.k,
                result.dim * (result.k or 1),
                result.dtype,
            )
            for number, result in enumerate(function.results)
        ]
        super().__init__(ReductionRequest(function.dtype, (), tuple(inputs), (), tuple(outputs), function.ranged))
        self._file = file
        self._function = function
        self._own: dict[tuple[str, str], Program] = {}
        self._selection: Selection | None = None
        if function.selection:
            chosen, pairs = function.selection
            places = tuple(argument.place for argument in pairs.arguments)
            self._selection = Selection(BundledExecutable(file, chosen), BundledExecutable(file, pairs), places)

        self.differentiable = self._differentiable()

    @property
    def selection(self) -> Selection:
        """What takes the place of the formula in gradients of min, max and the k best.

        Raises:
            UnsupportedError: the bundle has none.
        """
        if self._selection is None:
            self._refuse()
        return self._selection

    def _differentiable(self) -> frozenset[int]:
        own = {number for name in self._function.gradients for number in self._file.kernels[name].wrt}
        if self._selection is not None:
            pairs = cast("BundledExecutable", self._selection.pairs)
            own |= {self._selection.places[number] for number in pairs.differentiable}
        return frozenset(own)

    def load(self, few: str = "") -> Program:
        """Return the program of the function."""
        return self._program(self._file.kernels[self._function.kernel], few)

    def text(self) -> str:
        """Refuse: a name that another process could not read would be no name.

        Raises:
            UnsupportedError: always.
        """
        self._refuse()

    def derive(self, wrt: tuple[int, ...]) -> Executable:
        """Refuse, as `text`."""
        del wrt
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnsupportedError(
            at_user_line(
                f"{self._function.name} is a function of a bundle, whose formula is not here: it has first gradients, "
                "and no second ones, no forward mode, no torch.func and no torch.compile; build the formula instead"
            )
        )

    def gradient(self, wrt: tuple[int, ...], few: str = "") -> Program:
        """Return the program of the gradient with respect to some arguments, in one sweep if the bundle has that."""
        kernels = [self._file.kernels[name] for name in self._function.gradients]
        by_arguments = {kernel.wrt: kernel for kernel in kernels}
        if wrt in by_arguments:
            return self._program(by_arguments[wrt], few)
        usable = sorted(
            (kernel for kernel in kernels if set(kernel.wrt) <= set(wrt)), key=lambda kernel: -len(kernel.wrt)
        )
        left, steps = set(wrt), []
        for kernel in usable:
            if left.issuperset(kernel.wrt):
                left -= set(kernel.wrt)
                places = tuple(wrt.index(number) for number in kernel.wrt)
                steps.append(_Step(self._program(kernel, few), places))
        if left:
            name = self._function.arguments[min(left)].name
            raise UnsupportedError(f"the bundle has no gradient of {self._function.name} with respect to {name} alone")
        # It has one method of a program, the one that a launch uses.
        return cast("Program", _Sequence(steps, len(wrt)))

    def _program(self, kernel: Kernel, few: str) -> Program:
        # Threads may race to load it; setdefault lets one win.
        return self._own.get((kernel.id, few)) or self._own.setdefault((kernel.id, few), self._load(kernel, few))

    def _load(self, kernel: Kernel, few: str) -> Program:
        level = chosen_level()
        code = choose_code(kernel, level, few_rows=few)
        if code is None:
            targets = ", ".join(sorted({code.target for code in kernel.code})) or "no target"
            raise DeviceError(f"the bundle has {kernel.id} for {targets}, this processor is {level}: compile it for it")
        return Program.load(self._file.image(kernel, code))


class _Step(NamedTuple):
    """One program of a sequence.

    Attributes:
        program: the program.
        places: of its outputs among those of the sequence.
    """

    program: Program
    places: tuple[int, ...]


class _Arguments(NamedTuple):
    """What a launch asks of the image of a program."""

    arguments: tuple[Buffer, ...]


class _Sequence:
    """Programs of one input list, run one after another as if they were one program.

    Attributes:
        image: its buffers.
    """

    def __init__(self, steps: Sequence[_Step], outputs: int) -> None:
        self._steps = steps
        self._outputs = outputs
        lists = [step.program.image.arguments for step in steps]
        given = [buffer for buffer in lists[0] if buffer.role == "input"]
        written = dict(pair for step, found in zip(steps, lists, strict=True) for pair in _outputs_of(step, found))
        tables = {buffer.axis: buffer for found in lists for buffer in found if buffer.role == "table"}
        self._axes = sorted(tables)
        results = [written[place] for place in sorted(written)]
        self.image = _Arguments((*given, *results, *(tables[axis] for axis in self._axes)))

    def run(
        self,
        pointers: Sequence[int],
        m: int,
        n: int,
        batch_sizes: Sequence[int] = (),
        batch_strides: Sequence[Sequence[int]] = (),
    ) -> None:
        shared = len(pointers) - self._outputs - len(self._axes)
        first_table = len(pointers) - len(self._axes)
        for step in self._steps:
            axes = [buffer.axis for buffer in step.program.image.arguments if buffer.role == "table"]
            numbers = [
                *range(shared),
                *(shared + place for place in step.places),
                *(first_table + self._axes.index(axis) for axis in axes),
            ]
            strides = [batch_strides[number] for number in numbers] if batch_sizes else ()
            step.program.run([pointers[number] for number in numbers], m, n, batch_sizes, strides)


def _outputs_of(step: _Step, buffers: Sequence[Buffer]) -> list[tuple[int, Buffer]]:
    outputs = [buffer for buffer in buffers if buffer.role == "output"]
    return list(zip(step.places, outputs, strict=True))


def chosen_level() -> str:
    """The CPU level to use: that of this machine, or the lower one that PYLAZY_CPU_LEVEL names.

    Raises:
        DeviceError: the variable names no level, or one that this machine does not have.
    """
    wanted = os.environ.get(LEVEL_VARIABLE, "").strip()
    if not wanted:
        return host_target()
    if wanted not in CPU_LEVELS or not is_runnable(wanted):
        raise DeviceError(
            f"environment variable {LEVEL_VARIABLE} is {wanted!r}, and this processor is {host_target()}: expected "
            f"this level or a lower one of {', '.join(CPU_LEVELS)}"
        )
    return wanted
