"""Functions of a bundle: the programs of a reduction, compiled long ago, on the arrays of today.

Neither MLIR nor LLVM is imported here or below.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from pylazy import arrays
from pylazy.arrays import Source
from pylazy.dtypes import promote
from pylazy.execute import Job, Wanted, complete_extents, result_shapes
from pylazy.expression import Expression, Input, at_user_line, user_position
from pylazy.programs import Executable, Extents, host_target
from pylazy.reductions import REDUCTIONS, Output, ReductionRequest
from pylazy.runtime.bundle import BundleFile, choose_code
from pylazy.runtime.errors import BundleFormatError, DeviceError, DtypeError, ShapeError, UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.launch import Program, is_runnable

if TYPE_CHECKING:
    import inspect
    from collections.abc import Iterator, Sequence

    from pylazy.runtime.manifest import Argument, Function, Kernel

LEVEL_VARIABLE = "PYLAZY_CPU_LEVEL"
_MAX_PLANS = 64
_AXIS_SHAPES = {
    ("i", "lazy"): "(M, {}) or (*batch, M, 1, {})",
    ("j", "lazy"): "(N, {}) or (*batch, 1, N, {})",
    ("i", "rows"): "(M, {}) or (*batch, M, {})",
    ("j", "rows"): "(N, {}) or (*batch, N, {})",
    ("", "lazy"): "({},), (batch, {}) or (*batch, 1, 1, {})",
    ("", "rows"): "({},) or (*batch, {})",
}


class _Plan(NamedTuple):
    """What calls on arrays of the same classes, shapes and dtypes have in common.

    Attributes:
        extents: sizes.
        shapes: of the results.
        specs: of each input its kind, number of batch dimensions, dtype, and whether that gives way.
    """

    extents: Extents
    shapes: tuple[tuple[int, ...], ...]
    specs: tuple[tuple[str, int, str, bool], ...]


class LoadedBundle(Mapping[str, "BundledFunction"]):
    """The functions of a bundle by name, also as attributes. Code is put into memory at the first call that needs it.

    Attributes:
        file: the file with its manifest.
    """

    def __init__(self, file: BundleFile) -> None:
        """Take a file whose code may run."""
        self.file = file
        self._functions = {function.name: BundledFunction(file, function) for function in file.manifest.functions}

    def __getitem__(self, name: str) -> BundledFunction:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    def __getattr__(self, name: str) -> BundledFunction:
        functions = self.__dict__.get("_functions", {})
        if name in functions:
            return cast("BundledFunction", functions[name])
        raise AttributeError(f"the bundle has no function {name!r}, expected one of {', '.join(functions) or 'none'}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._functions})

    def __repr__(self) -> str:
        return f"<LoadedBundle of {', '.join(map(repr, self._functions.values()))}>"


class BundledFunction:
    """A reduction of a bundle; call it with the arrays of its variables.

    Attributes:
        function: what the manifest says of it.
    """

    def __init__(self, file: BundleFile, function: Function) -> None:
        """Check that this pylazy knows the reductions; nothing is put into memory.

        Raises:
            BundleFormatError: a reduction that this pylazy does not know.
        """
        for result in function.results:
            if result.kind not in REDUCTIONS:
                raise BundleFormatError(
                    f"bundle: function {function.name} has the reduction {result.kind!r}, which this pylazy does not "
                    "know: a newer one is needed"
                )
            if (result.dtype == "int64") != REDUCTIONS[result.kind].index:
                raise BundleFormatError(f"bundle: a result of {function.name} has dtype {result.dtype}")
        self.function = function
        self.__name__ = self.__qualname__ = function.name
        self.__doc__ = _documentation(function)
        self._executable = BundledExecutable(file, function)
        self._plans: dict[Any, _Plan] = {}
        self._order = [function.arguments.index(argument) for argument in _positional(function)]
        self._defaults = [
            arrays.number_source(float(argument.default)) if argument.default else None
            for argument in function.arguments
        ]
        self._gives_positions = all(result.dtype == "int64" for result in function.results)
        self._wanted = tuple(Wanted(result.kind, (number,), result.k) for number, result in enumerate(function.results))

    def __call__(self, *values: Any, out: Any = None, **named: Any) -> Any:
        """Run on arrays; see the function's own documentation, `help(f)`.

        Args:
            *values: the variables in order: NumPy arrays, tensors, or arrays with `__dlpack__` on the CPU.
            out: an array to write the result into, or a tuple of them where there are several results.
            **named: variables by name.

        Returns:
            An array, or a tuple of them, of the kind of the inputs; connected to torch's autograd where an input is.
        """
        function = self.function
        given = self._given(values, named)
        try:
            key = tuple(
                [value if value.__class__ is Source else (value.__class__, value.shape, value.dtype) for value in given]
            )
            plan = self._plans.get(key)
        except (AttributeError, TypeError):  # a number or a list is among them
            key, plan = None, None
        # Leaves say where the call is, for messages, and how long a row of a result is.
        position = user_position()
        leaves = [
            Expression("var", (), (), "ij", result.dim, function.dtype, None, position) for result in function.results
        ]
        if plan is None:
            sources, extents = self._bind(given)
            extents = complete_extents(self._wanted, function.reduced, extents)
            shapes = result_shapes(
                leaves,
                self._wanted,
                function.reduced,
                extents,
                keepdim=function.keepdim,
                drop_inner=function.drop_inner,
            )
            # Arrays of other libraries are imported anew each time.
            if key is not None and all(
                source is value or source.array is value for source, value in zip(sources, given, strict=True)
            ):
                if len(self._plans) >= _MAX_PLANS:
                    self._plans.clear()
                specs = tuple((source.kind, source.batch, source.dtype, source.weak) for source in sources)
                self._plans[key] = _Plan(extents, shapes, specs)
        else:
            extents, shapes, specs = plan
            sources = [
                value
                if value.__class__ is Source
                else Source(kind, value, batch=batch, dtype=dtype, weak=weak, view="")
                for value, (kind, batch, dtype, weak) in zip(given, specs, strict=True)
            ]
            for argument, source in zip(function.arguments, sources, strict=True):
                if source.kind == arrays.TORCH and source.array.is_sparse:  # which the plan does not say
                    _source(argument, source.array, function)
        job = Job(
            self._executable,
            sources,
            leaves,
            dtype=function.dtype,
            extents=extents,
            reduced=function.reduced,
            wanted=self._wanted,
            shapes=shapes,
        )
        if self._gives_positions and "torch" in sys.modules:  # they have no gradient
            with sys.modules["torch"].no_grad():
                return self._run(job, out)
        self._check_gradient(sources)
        return self._run(job, out)

    @property
    def __signature__(self) -> inspect.Signature:
        """Names and defaults, for `help` and editors."""
        from inspect import Parameter, Signature

        parameters = [
            Parameter(argument.name, Parameter.POSITIONAL_OR_KEYWORD) for argument in _positional(self.function)
        ]
        parameters += [
            Parameter(argument.name, Parameter.KEYWORD_ONLY, default=float(argument.default))
            for argument in self.function.arguments
            if argument.default
        ]
        return Signature([*parameters, Parameter("out", Parameter.KEYWORD_ONLY, default=None)])

    def __repr__(self) -> str:
        return f"<BundledFunction {self.__name__}{self.__signature__}>"

    def _run(self, job: Job, out: Any) -> Any:
        if len(self._wanted) == 1:
            return job.run(None if out is None else (out,))[0]
        return job.run(out)

    def _given(self, values: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        """Values in the order of the program's inputs; for a default its `Source`."""
        if not named and len(values) == len(self._order):
            given = list(self._defaults)
            for number, value in zip(self._order, values, strict=True):
                given[number] = value
            return given
        arguments = self.function.arguments
        ordered = [arguments[number].name for number in self._order]
        call = f"{self.__name__}{self.__signature__}"
        if len(values) > len(ordered):
            raise TypeError(at_user_line(f"{call} takes {len(ordered)} arrays, found {len(values)}"))
        found = dict(zip(ordered, values, strict=False))
        for name, value in named.items():
            if name in found or name not in {argument.name for argument in arguments}:
                fault = "twice" if name in found else "which it does not take"
                raise TypeError(at_user_line(f"{call} was given {name!r}, {fault}"))
            found[name] = value
        missing = [name for name in ordered if name not in found]
        if missing:
            raise TypeError(at_user_line(f"{call} was not given {missing[0]!r}"))
        return [found.get(argument.name, default) for argument, default in zip(arguments, self._defaults, strict=True)]

    def _bind(self, values: Sequence[Any]) -> tuple[list[Source], Extents]:
        sources: list[Source] = []
        batch: tuple[int, ...] = ()
        extents: dict[str, tuple[int, str]] = {}
        for argument, value in zip(self.function.arguments, values, strict=True):
            source, own_batch, rows = _source(argument, value, self.function)
            sources.append(source)
            if own_batch != batch:
                batch = _joint_batch(argument, batch, own_batch)
            if argument.axis:
                other, name = extents.setdefault(argument.axis, (rows, argument.name))
                if other != rows:
                    raise ShapeError(
                        at_user_line(f"{argument.name} has {rows} rows, {name} has {other}: they need equal numbers")
                    )
        rows_i, rows_j = extents.get("i", (None, ""))[0], extents.get("j", (None, ""))[0]
        return sources, Extents(batch, rows_i, rows_j)

    def _check_gradient(self, sources: Sequence[Source]) -> None:
        """Refuse now what would fail in a backward pass, perhaps in another file and hours later."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.is_grad_enabled():
            return
        available = self._executable.differentiable
        for number, (argument, source) in enumerate(zip(self.function.arguments, sources, strict=True)):
            needs = source.kind == arrays.TORCH and source.array.requires_grad
            if needs and number not in available:
                raise UnsupportedError(
                    at_user_line(
                        f"{argument.name} requires a gradient, and the bundle has none of {self.__name__} with respect "
                        "to it: call it under torch.no_grad(), or add it to the bundle with gradients=True"
                    )
                )


class BundledExecutable(Executable):
    """The programs of one function, put into memory when they are first needed; shared by all threads."""

    __slots__ = ("_file", "_function", "_own")

    def __init__(self, file: BundleFile, function: Function) -> None:
        """Describe the function as the request that its programs were made from."""
        prefix = {"i": "x", "j": "y", "": "p"}
        inputs = [
            Input(f"{prefix[argument.axis]}{number}", argument.axis, argument.dim)
            for number, argument in enumerate(function.arguments)
        ]
        outputs = [
            Output(
                "sum" if result.kind == "mean" else result.kind,
                function.reduced,
                (number,),
                result.k,
                result.dim * (result.k or 1),
                result.dtype,
            )
            for number, result in enumerate(function.results)
        ]
        super().__init__(ReductionRequest(function.dtype, (), tuple(inputs), (), tuple(outputs)))
        self._file = file
        self._function = function
        self._own: dict[tuple[str, str], Program] = {}

    @property
    def differentiable(self) -> frozenset[int]:
        """The numbers of the arguments that have a gradient."""
        return frozenset(number for name in self._function.gradients for number in self._file.kernels[name].wrt)

    def load(self, few: str = "") -> Program:
        """Return the program of the function."""
        return self._program(self._file.kernels[self._function.kernel], few)

    def text(self) -> str:
        """Refuse: a name that another process could not read would be no name.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            at_user_line(
                f"{self._function.name} is a function of a bundle, whose formula is not here: it has first gradients, "
                "and no second ones, no forward mode, no torch.func and no torch.compile; build the formula instead"
            )
        )

    def derive(self, wrt: tuple[int, ...]) -> Executable:
        """Refuse, as `text`."""
        del wrt
        self.text()
        raise AssertionError

    def gradient(self, wrt: tuple[int, ...], few: str = "") -> Program:
        """Return the program of the gradient with respect to some arguments, in one sweep if the bundle has that."""
        kernels = [self._file.kernels[name] for name in self._function.gradients]
        by_arguments = {kernel.wrt: kernel for kernel in kernels}
        if wrt in by_arguments:
            return self._program(by_arguments[wrt], few)
        missing = [number for number in wrt if (number,) not in by_arguments]
        if missing:
            name = self._function.arguments[missing[0]].name
            raise UnsupportedError(f"the bundle has no gradient of {self._function.name} with respect to {name} alone")
        parts = [self._program(by_arguments[number,], few) for number in wrt]
        # It has one method of a program, the one that a launch uses.
        return cast("Program", _Sequence(parts))

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


class _Sequence:
    """Programs of one input list and one output each, run one after another as if they were one program."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs

    def run(
        self,
        pointers: Sequence[int],
        m: int,
        n: int,
        batch_sizes: Sequence[int] = (),
        batch_strides: Sequence[Sequence[int]] = (),
    ) -> None:
        shared = len(pointers) - len(self._programs)
        for number, program in enumerate(self._programs, start=shared):
            strides = [*batch_strides[:shared], *batch_strides[number : number + 1]]
            program.run([*pointers[:shared], pointers[number]], m, n, batch_sizes, strides)


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


def _positional(function: Function) -> list[Argument]:
    """The arguments without a default, in the order of a call."""
    return sorted((argument for argument in function.arguments if not argument.default), key=lambda found: found.place)


def _documentation(function: Function) -> str:
    lines = [f"{function.meaning}, {function.dtype}, compiled ahead of time.", "", "Args:"]
    lines += [f"    {argument.name}: {_expected_shape(argument)}." for argument in _positional(function)]
    numbers = [argument for argument in function.arguments if argument.default]
    lines += [f"    {argument.name}: a number, by default {argument.default}." for argument in numbers]
    return "\n".join([*lines, "    out: array for the result, or tuple of arrays."])


def _expected_shape(argument: Argument) -> str:
    shape = _AXIS_SHAPES[argument.axis, argument.layout].replace("{}", str(argument.dim))
    return f"array of shape {shape}"


def _source(argument: Argument, value: Any, function: Function) -> tuple[Source, tuple[int, ...], int]:
    """Wrap what was given for an argument; say its batch shape and number of rows."""
    if isinstance(value, Source):
        return value, (), 1
    if not argument.axis and isinstance(value, int | float | np.floating | np.integer) and argument.dim == 1:
        return arrays.number_source(float(value)), (), 1
    weak = isinstance(value, list | tuple) and not argument.axis  # its dtype gives way, as in a live formula
    if weak:
        value = np.array(value, dtype=np.float64)
    elif not arrays.is_array(value):
        raise DtypeError(
            at_user_line(
                f"{argument.name} is of type {type(value).__name__}, expected a NumPy array, a torch tensor or another "
                f"array with __dlpack__: {_expected_shape(argument)}"
            )
        )
    value = arrays.readable(value)
    weak = weak or not value.ndim
    shape = tuple(value.shape)
    batch, rows = _read_shape(argument, shape)
    source = arrays.array_source(value, what=argument.name, batch=len(batch), view="", weak=weak)
    if not weak and promote("float32", source.dtype) == "float64" != function.dtype:
        raise DtypeError(
            at_user_line(
                f"{argument.name} has dtype {source.dtype}, and {function.name} was compiled for float32: convert it, "
                "or add a reduction of float64 arrays to the bundle"
            )
        )
    return source, batch, rows


def _read_shape(argument: Argument, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Say the batch shape and the number of rows of an array, or refuse it."""
    rank, dim = len(shape), argument.dim
    if argument.axis:
        if rank == 1 and dim == 1:
            return (), shape[0]
        if rank == 2 and shape[1] == dim:
            return (), shape[0]
        if rank >= 3 and shape[-1] == dim:
            if argument.layout == "rows":
                return shape[:-2], shape[-2]
            rows, other = (shape[-3], shape[-2]) if argument.axis == "i" else (shape[-2], shape[-3])
            if other == 1:
                return shape[:-3], rows
    elif rank == 0 and dim == 1:
        return (), 1
    elif rank >= 1 and shape[-1] == dim:
        if argument.layout == "rows":
            return shape[:-1], 1
        if rank <= 2:
            return (shape[:-1] if shape[0] != 1 else ()) if rank == 2 else (), 1
        if shape[-2] == shape[-3] == 1:
            return shape[:-3], 1
    raise ShapeError(at_user_line(f"{argument.name} has shape {shape}, expected {_expected_shape(argument)}"))


def _joint_batch(argument: Argument, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(first, second)
    except ValueError:
        raise ShapeError(
            at_user_line(
                f"{argument.name} has batch shape {second}, the arrays before it {first}, which do not broadcast: from "
                "the last dimension on, sizes must be equal or 1"
            )
        ) from None
