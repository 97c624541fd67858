"""Programs of requests: found in memory or on the disk, or compiled."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pylazy.execution.compiler_versions import compiler_versions
from pylazy.reductions import DerivedRequest, Order, ReductionRequest
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.reductions import Request
    from pylazy.runtime.gpu_image import GpuImage
    from pylazy.runtime.gpu_launch import GpuProgram
    from pylazy.runtime.kernel import KernelImage
    from pylazy.runtime.launch import Program


class Extents(NamedTuple):
    """The sizes of a formula: those of its batch, rows (axis "i") and columns (axis "j"); None where it has no axis."""

    batch: tuple[int, ...]
    rows: int | None
    columns: int | None


class Selection(NamedTuple):
    """What takes the place of a formula that is not here, in gradients of min, max and the k best.

    Attributes:
        chosen: gives the values and their positions.
        pairs: gives the formula on a list of pairs, as rows.
        places: for each input of `pairs` the number of the input whose rows are gathered; after them i and j.
    """

    chosen: Executable
    pairs: Executable
    places: tuple[int, ...]


class GradientStep(NamedTuple):
    """A program that finds some of the gradients that are wanted.

    Attributes:
        executable: the program.
        places: where its results stand among those that are wanted.
    """

    executable: Executable
    places: Sequence[int]


class Executable:
    """A request with its programs, compiled when they are first needed; shared by all threads.

    There is one program for ordinary sizes, and there may be others for few rows; see `few_rows`.

    Attributes:
        request: what the programs compute.
        result_dtypes: of the reductions, in order.
    """

    __slots__ = ("_derived", "_gpu_programs", "_programs", "_text", "request", "result_dtypes")

    def __init__(self, request: Request) -> None:
        self.request = request
        self._programs: dict[str, Program] = {}
        self._gpu_programs: dict[str, GpuProgram] = {}
        self._derived: dict[Order, Executable] = {}
        self._text: str | None = None
        self.result_dtypes = tuple([output.dtype for output in self.reductions.outputs])

    @property
    def reductions(self) -> ReductionRequest:
        """What the programs compute, or the reductions whose gradient they compute."""
        return self.request if isinstance(self.request, ReductionRequest) else self.request.root

    def selection(self) -> Selection | None:
        """Return what takes the place of the formula where that is not here, as in a bundle."""
        return None

    def load(self, few: str = "") -> Program:
        """Return the program, compiled or taken from the disk; threads that ask at once get one and the same."""
        program = self._programs.get(few)
        if program is None:
            program = self._programs[few] = _load(self.request, few)
        return program

    def load_gpu(self, device: int) -> GpuProgram:
        """Return the program for a GPU of this machine; otherwise as `load`.

        Raises:
            UnsupportedError: the formula needs what GPU programs do not have, or the GPU is too old.
            DeviceError: there is no such GPU.
        """
        target = gpu_target(device)
        program = self._gpu_programs.get(target)
        if program is None:
            program = self._gpu_programs[target] = _load_gpu(self.request, target)
        return program

    def derive(self, wrt: tuple[int, ...]) -> Executable:
        """Return the gradient with respect to the inputs of these numbers."""
        return self.derivative(Order("wrt", wrt))

    def derivative(self, order: Order) -> Executable:
        """Return a derivative: gradients or tangents, alone or with the results."""
        derived = self._derived.get(order)
        if derived is None:
            derived = self._derived.setdefault(order, Executable(DerivedRequest(self.request, order)))
        return derived

    def gradient_steps(self, wrt: tuple[int, ...]) -> Sequence[GradientStep]:
        """Return what finds the gradients with respect to the inputs of these numbers: one program for all of them."""
        return (GradientStep(self.derive(wrt), range(len(wrt))),)

    def text(self) -> str:
        """Name this executable, for `find_by_text` in any process."""
        if self._text is None:
            self._text = self.request.canonical_text()
            _BY_TEXT.setdefault(self._text, self)
            while len(_BY_TEXT) > _MAX_TEXTS:
                _BY_TEXT.pop(next(iter(_BY_TEXT)), None)
        return self._text


_MAX_TEXTS = 4096
_BY_TEXT: dict[str, Executable] = {}


def find_by_text(text: str) -> Executable:
    """Find the executable that `Executable.text` names; made anew from the text where this process has it not.

    Raises:
        UnsupportedError: this is no such name, or one of another pylazy.
    """
    executable = _BY_TEXT.get(text)
    if executable is None:
        from pylazy.pytorch.request_reader import read_request

        made = Executable(read_request(text))
        made.text()
        executable = _BY_TEXT.setdefault(text, made)
    return executable


# While torch.compile traces a function, this one is called, not traced: its result is a constant of the graph.
find_by_text._dynamo_marked_constant = True  # type: ignore[attr-defined]

_MANY_COLUMNS = 256
_MANY_BATCHES = 64
_VECTOR_BYTES = {"x86-64-v4": 64, "x86-64-v3": 64}  # elsewhere 32; see compiler.schedule


def few_rows(extents: Extents, dtype: str) -> str:
    """Name the axis ("i" or "j", else "") whose rows fill few vectors, and badly, against many on the other axis.

    Programs put rows in lanes; for such an axis another one, with columns in lanes, leaves no lane idle. A batch of
    many small problems takes the program for few columns, whose tiles of rows are small too.
    """
    rows, columns = extents.rows or 1, extents.columns or 1
    is_small = rows < _MANY_COLUMNS and columns < _MANY_COLUMNS
    if (is_small and not extents.batch) or (rows > _MANY_COLUMNS and columns > _MANY_COLUMNS):
        return ""
    lanes = _VECTOR_BYTES.get(host_target(), 32) // (4 if dtype == "float32" else 8)
    if is_small:
        return "j" if rows <= 2 * lanes and math.prod(extents.batch) >= _MANY_BATCHES else ""
    if columns >= _MANY_COLUMNS and _leave_lanes_idle(rows, lanes):
        return "i"
    return "j" if rows >= _MANY_COLUMNS and _leave_lanes_idle(columns, lanes) else ""


def _leave_lanes_idle(rows: int, lanes: int) -> bool:
    """Tell whether rows fill no more than three quarters of one vector, or of two."""
    return rows <= 2 * lanes and 4 * rows <= 3 * lanes * -(-rows // lanes)


@lru_cache(maxsize=1)
def host_target() -> str:
    """Name the best CPU level that this machine runs."""
    from pylazy.runtime import launch

    return launch.host_target()


@cache
def gpu_target(device: int) -> str:
    """Name the newest architecture that we compile for, as "sm_90", and a GPU of this machine runs.

    Raises:
        UnsupportedError: the GPU is older than all of them.
        DeviceError: there is no such GPU.
    """
    from pylazy.compiler.codegen.ptx import PTX_VERSIONS
    from pylazy.runtime.gpu_devices import properties

    found = properties(device)
    major, minor = found.capability
    known = {int(target.removeprefix("sm_")): target for target in PTX_VERSIONS}
    runnable = [number for number in known if number <= 10 * major + minor]
    if not runnable:
        raise UnsupportedError(
            f"GPU {device}, {found.name}, has compute capability {major}.{minor}: expected at least "
            f"{min(known) // 10}.{min(known) % 10}"
        )
    return known[max(runnable)]


def _load_gpu(request: Request, target: str) -> GpuProgram:
    """Take a GPU program from the disk, or compile it and leave it there."""
    from pylazy.compiler.codegen.cubin import find_assembler
    from pylazy.runtime import kernel_cache

    assembler = find_assembler()
    name = "no assembler" if assembler is None else assembler.name
    key = kernel_cache.key(request.canonical_text(), target, name, *compiler_versions())
    return kernel_cache.default_cache().gpu_program(key, lambda: _compile_gpu(request, target))


def _load(request: Request, few: str) -> Program:
    """Take a program from the disk, or compile it and leave it there."""
    from pylazy.runtime import kernel_cache

    target = host_target()
    key = kernel_cache.key(request.canonical_text(), few, target, *compiler_versions())
    return kernel_cache.default_cache().program(key, lambda: _compile(request, target, few))


def _compile(request: Request, target: str, few: str) -> KernelImage:
    """Compile a request for a CPU level such as "x86-64-v3"; the only road from here to the compiler."""
    from pylazy import trace
    from pylazy.compiler.compile import compile_cpu

    return compile_cpu(trace.trace(request, few_rows=few), target)


def _compile_gpu(request: Request, target: str) -> GpuImage:
    """Compile a request for an architecture such as "sm_90"."""
    from pylazy import trace
    from pylazy.compiler.codegen.cubin import with_cubin
    from pylazy.compiler.compile import compile_ptx

    return with_cubin(compile_ptx(trace.trace(request), target))
