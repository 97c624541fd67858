"""Functions of a bundle: the programs of a reduction, compiled long ago, on the arrays of today.

Neither MLIR nor LLVM is imported here or below.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pylazy.arrays.sources import TORCH, Source, array_source, number_source
from pylazy.bundling.bundled_arguments import bind, expected_shape, positional, split_complex
from pylazy.bundling.bundled_programs import BundledExecutable
from pylazy.execution.extent_checks import check_index, check_terms, complete_extents
from pylazy.execution.job import Job
from pylazy.execution.wanted_results import Wanted, result_shapes
from pylazy.expression import Expression
from pylazy.options import read_backend
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.bundle import BundleFile, read_trusted_bundle
from pylazy.runtime.errors import BundleFormatError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line, user_position

if TYPE_CHECKING:
    import inspect
    import os
    from collections.abc import Iterator, Sequence

    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.programs import Extents
    from pylazy.runtime.manifest import Function

_MAX_PLANS = 64
_EXACT_COUNTS = 2**24
"""Up to here, float32 sums of ones are exact."""


def load_bundle(
    path: str | os.PathLike[str],
    *,
    trust: bool = False,
    sha256: str | None = None,
    public_key: str | os.PathLike[str] | None = None,
) -> LoadedBundle:
    """Load a bundle; its functions are called by name, as `bundle["gaussian"](x, y, b)` or `bundle.gaussian(x, y, b)`.

    Args:
        path: the file.
        trust: take the file whoever may have written it. A bundle is machine code, which no check makes safe: by
            default a file is refused that other users own or may write, unless one of the keys in the files that
            PYLAZY_TRUSTED_KEYS names has signed it.
        sha256: the SHA-256 that the file must have, in hexadecimal; then it does not matter who may have written it.
        public_key: a file with an Ed25519 public key in PEM, whose owner must have signed the bundle, as `pylazy sign`
            does: the signature lies beside it, with ".sig" after its name.

    Raises:
        UntrustedBundleError: others may have written the file, it has another hash, or it lacks the signature.
        BundleFormatError: the file is damaged or breaks a rule of the format, which the message names.
        UnsupportedError: the key cannot be used, or the package cryptography, which checks it, is not installed.
        OSError: a file cannot be read.
    """
    return LoadedBundle(read_trusted_bundle(path, trust=trust, sha256=sha256, public_key=public_key))


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
        for result in (result for found in (function, *function.selection) for result in found.results):
            if result.kind not in REDUCTIONS:
                raise BundleFormatError(
                    f"bundle: function {function.name} has the reduction {result.kind!r}, which this pylazy does not "
                    "know: a newer one is needed"
                )
            if (result.dtype == "int64") != REDUCTIONS[result.kind].is_position:
                raise BundleFormatError(f"bundle: a result of {function.name} has dtype {result.dtype}")
        self.function = function
        self.__name__ = self.__qualname__ = function.name
        self._executable = BundledExecutable(file, function)
        self._plans: dict[Any, _Plan] = {}
        names = [argument.name for argument in positional(function)]
        self._order = [
            [number for number, argument in enumerate(function.arguments) if argument.name == name] for name in names
        ]
        self._names = names
        self._parts = [(number, argument) for number, argument in enumerate(function.arguments) if argument.part]
        self._defaults = [
            number_source(float(argument.default)) if argument.default else None for argument in function.arguments
        ]
        self._gives_positions = all(result.dtype == "int64" for result in function.results)
        self._counts = function.dtype == "float32" and any(result.kind == "count" for result in function.results)
        self._wanted = tuple(Wanted(result.kind, (number,), result.k) for number, result in enumerate(function.results))

    def __call__(
        self,
        *values: Any,
        out: Any = None,
        ranges: Any = None,
        backend: str | None = None,
        device_id: int = -1,
        **named: Any,
    ) -> Any:
        """Run on arrays, where they lie; see the function's own documentation, `help(f)`.

        Args:
            *values: the variables in order: NumPy arrays, tensors, or arrays with `__dlpack__`.
            out: an array to write the result into, or a tuple of them where there are several results.
            ranges: the pairs to reduce, six arrays as docs/semantics.md describes them, for a function that was
                compiled with ranges.
            backend: where to run instead, as for `LazyTensor.sum`: "GPU" for arrays of the host.
            device_id: with it, the number of a GPU.
            **named: variables by name.

        Returns:
            An array, or a tuple of them, of the kind of the inputs; connected to torch's autograd where an input is.
        """
        function = self.function
        given = self._given(values, named)
        for number, argument in self._parts:
            given[number] = split_complex(argument, given[number])
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
            sources, extents = bind(function, given)
            extents = complete_extents(self._wanted, function.reduced, extents)
            self._check_indices(extents)
            shapes = result_shapes(
                leaves,
                self._wanted,
                function.reduced,
                extents,
                keepdim=function.keepdim,
                drop_inner=function.drop_inner and not function.is_complex,
            )
            # Arrays of other libraries are imported anew each time.
            if key is not None and all(
                source is value or (source.imported is None and source.array is value)
                for source, value in zip(sources, given, strict=True)
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
            for number, source in enumerate(sources):
                if source.kind == TORCH and source.array.is_sparse:  # which the plan does not say
                    array_source(source.array, what=function.arguments[number].name, batch=source.batch, view="")
        job = Job(
            self._executable,
            sources,
            leaves,
            dtype=function.dtype,
            extents=extents,
            reduced=function.reduced,
            wanted=self._wanted,
            shapes=shapes,
            ranges=self._read_ranges(ranges, extents) if function.ranged or ranges is not None else None,
            backend=None if backend is None else read_backend(backend, device_id),
        )
        if self._gives_positions and "torch" in sys.modules:  # they have no gradient
            with sys.modules["torch"].no_grad():
                return self._run(job, out)
        self._check_gradient(sources)
        return self._run(job, out)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """What it computes and takes, for `help`."""
        return _documentation(self.function)

    @property
    def __signature__(self) -> inspect.Signature:
        """Names and defaults, for `help` and editors."""
        from inspect import Parameter, Signature

        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in self._names]
        parameters += [
            Parameter(argument.name, Parameter.KEYWORD_ONLY, default=float(argument.default))
            for argument in self.function.arguments
            if argument.default
        ]
        if self.function.ranged:
            parameters.append(Parameter("ranges", Parameter.KEYWORD_ONLY))
        options = {"out": None, "backend": None, "device_id": -1}
        parameters += [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in options.items()]
        return Signature(parameters)

    def __repr__(self) -> str:
        return f"<BundledFunction {self.__name__}{self.__signature__}>"

    def _run(self, job: Job, out: Any) -> Any:
        if self.function.is_complex:
            from pylazy.complex_numbers.complex_arrays import complex_array, delivered

            return delivered(complex_array(job.run()[0], drop_inner=self.function.drop_inner), out)
        if len(self._wanted) == 1:
            return job.run(None if out is None else (out,))[0]
        return job.run(out)

    def _given(self, values: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        """Values in the order of the program's inputs; for a default its `Source`."""
        given = list(self._defaults)
        if not named and len(values) == len(self._order):
            for numbers, value in zip(self._order, values, strict=True):
                for number in numbers:
                    given[number] = value
            return given
        arguments = self.function.arguments
        call = f"{self.__name__}{self.__signature__}"
        if len(values) > len(self._names):
            raise TypeError(at_user_line(f"{call} takes {len(self._names)} arrays, found {len(values)}"))
        found = dict(zip(self._names, values, strict=False))
        for name, value in named.items():
            if name in found or name not in {argument.name for argument in arguments}:
                fault = "twice" if name in found else "which it does not take"
                raise TypeError(at_user_line(f"{call} was given {name!r}, {fault}"))
            found[name] = value
        missing = [name for name in self._names if name not in found]
        if missing:
            raise TypeError(at_user_line(f"{call} was not given {missing[0]!r}"))
        return [found.get(argument.name, default) for argument, default in zip(arguments, self._defaults, strict=True)]

    def _read_ranges(self, given: Any, extents: Extents) -> Ranges:
        """Read the ranges of a call, and check that they fit it.

        Raises:
            TypeError: the function needs ranges, and there are none.
            UnsupportedError: the function takes no ranges.
        """
        from pylazy.block_sparse.ranges import read_ranges

        function = self.function
        if not function.ranged:
            raise UnsupportedError(
                at_user_line(
                    f"ranges are given, and {function.name} was compiled for all pairs: add a reduction with ranges to "
                    "the bundle"
                )
            )
        if given is None:
            raise TypeError(
                at_user_line(f"{self.__name__}{self.__signature__} was not given 'ranges', the pairs to reduce")
            )
        ranges = read_ranges(given)
        check_terms(self._wanted, function.reduced, extents, ranges)
        return ranges

    def _check_indices(self, extents: Extents) -> None:
        """Check that indices and counts are exact in the dtype of the arithmetic.

        Raises:
            ShapeError: they are not.
        """
        function = self.function
        sizes = {"i": extents.rows or 0, "j": extents.columns or 0}
        for axis in function.indices:
            check_index(axis, sizes[axis], function.dtype)
        terms = sizes[function.reduced]
        if self._counts and terms > _EXACT_COUNTS:
            raise ShapeError(
                at_user_line(
                    f"{function.name} counts {terms} values in float32, which counts exactly up to {_EXACT_COUNTS}: "
                    "add a reduction of float64 arrays to the bundle"
                )
            )

    def _check_gradient(self, sources: Sequence[Source]) -> None:
        """Refuse now what would fail in a backward pass, perhaps in another file and hours later."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.is_grad_enabled():
            return
        for number, (argument, source) in enumerate(zip(self.function.arguments, sources, strict=True)):
            if source.kind != TORCH or not source.array.requires_grad:
                continue
            if number not in self._executable.differentiable:
                raise UnsupportedError(
                    at_user_line(
                        f"{argument.name} requires a gradient, and the bundle has none of {self.__name__} with respect "
                        "to it: call it under torch.no_grad(), or add it to the bundle with gradients=True"
                    )
                )


def _documentation(function: Function) -> str:
    complex_ = "complex, " * function.is_complex
    lines = [f"{function.meaning}, {complex_}{function.dtype}, compiled ahead of time.", "", "Args:"]
    lines += [f"    {argument.name}: {expected_shape(argument)}." for argument in positional(function)]
    numbers = [argument for argument in function.arguments if argument.default]
    lines += [f"    {argument.name}: a number, by default {argument.default}." for argument in numbers]
    lines += ["    ranges: the pairs to reduce, six arrays of integers."] * function.ranged
    lines += ["    out: array for the result, or tuple of arrays."]
    lines += ["    backend: where to run, by default where the arrays lie; `device_id` is the number of a GPU."]
    return "\n".join(lines)
