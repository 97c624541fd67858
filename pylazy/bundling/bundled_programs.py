"""Programs of a bundle: chosen for this machine, and put into memory when they are first needed.

Neither MLIR nor LLVM is imported here or below.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn, cast

from pylazy.canonical_form import INPUT_PREFIXES, Input
from pylazy.execution.programs import Executable, GradientStep, Selection, host_target
from pylazy.reductions import REDUCTIONS, Output, ReductionRequest
from pylazy.runtime.bundle import choose_code, choose_gpu_code
from pylazy.runtime.errors import DeviceError, UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.launch import Program, is_runnable
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.runtime.bundle import BundleFile
    from pylazy.runtime.gpu_launch import GpuProgram
    from pylazy.runtime.manifest import Function, Kernel

LEVEL_VARIABLE = "PYLAZY_CPU_LEVEL"


class BundledExecutable(Executable):
    """The programs of one function or of a gradient of it, put into memory when they are first needed.

    Threads share it.

    Attributes:
        differentiable: the numbers of the arguments that have a gradient.
    """

    __slots__ = ("_file", "_function", "_gradients", "_kernel", "_selection", "differentiable")

    def __init__(self, file: BundleFile, function: Function, kernel: Kernel | None = None) -> None:
        """Describe the function as the request that its programs were made from.

        Args:
            file: the bundle.
            function: what it computes, or what it differentiates.
            kernel: that of a gradient; None for that of the function.
        """
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
        indices = tuple(("index", axis) for axis in function.indices)
        super().__init__(ReductionRequest(function.dtype, indices, tuple(inputs), (), tuple(outputs), function.ranged))
        self._file = file
        self._function = function
        self._kernel = kernel or file.kernels[function.kernel]
        self._gradients: dict[tuple[int, ...], BundledExecutable] = {}
        self._selection: Selection | None = None
        if kernel is None:
            gradients = [file.kernels[name] for name in function.gradients]
            self._gradients = {gradient.wrt: BundledExecutable(file, function, gradient) for gradient in gradients}
        if function.selection and kernel is None:
            chosen, pairs = function.selection
            places = tuple(argument.place for argument in pairs.arguments)
            self._selection = Selection(BundledExecutable(file, chosen), BundledExecutable(file, pairs), places)
        self.differentiable = self._differentiable()

    def selection(self) -> Selection:
        """Return what takes the place of the formula in gradients of min, max and the k best.

        Raises:
            UnsupportedError: the bundle has none.
        """
        if self._selection is None:
            self._refuse()
        return self._selection

    def _differentiable(self) -> frozenset[int]:
        own = {number for wrt in self._gradients for number in wrt}
        if self._selection is not None:
            pairs = cast("BundledExecutable", self._selection.pairs)
            own |= {self._selection.places[number] for number in pairs.differentiable}
        return frozenset(own)

    def load(self, few: str = "") -> Program:
        """Return the program for this processor.

        Raises:
            DeviceError: the bundle has none that it runs.
        """
        # Threads may race to load it; setdefault lets one win.
        return self._programs.get(few) or self._programs.setdefault(few, self._load(few))

    def _load(self, few: str) -> Program:
        level = chosen_level()
        code = choose_code(self._kernel, level, few_rows=few)
        if code is None:
            raise DeviceError(
                at_user_line(f"the bundle has {self._present()}, this processor is {level}: compile it for it")
            )
        return Program.load(self._file.image(self._kernel, code))

    def load_gpu(self, device: int) -> GpuProgram:
        """Return the program for a GPU of this machine.

        Raises:
            DeviceError: the bundle has none that the GPU runs, or there is no such GPU.
        """
        from pylazy.runtime.gpu_devices import properties
        from pylazy.runtime.gpu_launch import GpuProgram

        found = properties(device)
        code = choose_gpu_code(self._kernel, found.capability)
        if code is None:
            capability = ".".join(map(str, found.capability))
            raise DeviceError(
                at_user_line(
                    f"the bundle has {self._present()}, and GPU {device}, {found.name}, has compute capability "
                    f"{capability}: compile it for this GPU or an older one"
                )
            )
        program = self._gpu_programs.get(code.target)
        if program is None:
            made = GpuProgram(self._file.gpu_image(self._kernel, code))
            program = self._gpu_programs.setdefault(code.target, made)
        return program

    def _present(self) -> str:
        """Say for what the bundle has this kernel, and why it has no more."""
        name = self._kernel.id
        targets = ", ".join(sorted({code.target for code in self._kernel.code})) or "no target"
        absent = self._file.manifest.absent
        keys = [(target, f"{name} {target}") for target in self._file.manifest.targets]
        reasons = [f" (not for {target}: {absent[key]})" for target, key in keys if key in absent]
        return f"{name} for {targets}{''.join(reasons)}"

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

    def gradient_steps(self, wrt: tuple[int, ...]) -> Sequence[GradientStep]:
        """Return the program of these gradients, if the bundle has that; else several, which find them in turn.

        Raises:
            UnsupportedError: the bundle has not all of them.
        """
        if wrt in self._gradients:
            return (GradientStep(self._gradients[wrt], range(len(wrt))),)
        left, steps = set(wrt), []
        for numbers in sorted(self._gradients, key=lambda numbers: -len(numbers)):
            if left.issuperset(numbers):
                left -= set(numbers)
                steps.append(GradientStep(self._gradients[numbers], [wrt.index(number) for number in numbers]))
        if left:
            name = self._function.arguments[min(left)].name
            raise UnsupportedError(
                at_user_line(f"the bundle has no gradient of {self._function.name} with respect to {name} alone")
            )
        return steps


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
