"""Ahead-of-time export: reductions are compiled for several machines into one file, and loaded without the compiler."""

from __future__ import annotations

import keyword
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

import pylazy
from pylazy import arrays
from pylazy.bundled_functions import BundledFunction, LoadedBundle
from pylazy.expression import at_user_line
from pylazy.reductions import REDUCTIONS, gradient_request
from pylazy.runtime.bundle import BundleFile, read_trusted_bundle, save_bundle, write_bundle
from pylazy.runtime.errors import UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.manifest import FORMAT, Argument, Code, Function, Kernel, Manifest, Result, check_buffers
from pylazy.stages import Reduction

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from pylazy.arrays import Source
    from pylazy.execute import Job
    from pylazy.genred import Genred
    from pylazy.reductions import ReductionRequest, Request

__all__ = ["DEFAULT_TARGETS", "Bundle", "BundledFunction", "LoadedBundle", "load_bundle"]

DEFAULT_TARGETS = CPU_LEVELS
_FEW_ROWS = ("", "i", "j")  # see pylazy.programs.few_rows
_GPU = "sm_"


def load_bundle(path: str | os.PathLike[str], *, trust: bool = False, sha256: str | None = None) -> LoadedBundle:
    """Load a bundle; its functions are called by name, as `bundle["gaussian"](x, y, b)` or `bundle.gaussian(x, y, b)`.

    Args:
        path: the file.
        trust: take the file whoever may have written it. A bundle is machine code, which no check makes safe: by
            default a file is refused that other users own or may write.
        sha256: the SHA-256 that the file must have, in hexadecimal; then it does not matter who may have written it.

    Raises:
        UntrustedBundleError: others may have written the file, or it has another hash.
        BundleFormatError: the file is damaged or breaks a rule of the format, which the message names.
        OSError: the file cannot be read.
    """
    return LoadedBundle(read_trusted_bundle(path, trust=trust, sha256=sha256))


class Bundle:
    """Reductions to compile ahead of time.

    For example::

        bundle = pylazy.Bundle()
        bundle.add((K * Vj(b)).sum(axis=1, call=False), name="gaussian", arguments=("x", "y", "b"))
        bundle.compile(targets=["x86-64", "x86-64-v3", "aarch64", "sm_80"])
        bundle.save("k.plzb")
    """

    def __init__(self) -> None:
        """Make an empty bundle."""
        self._parts: dict[str, _Part] = {}
        self._data: bytes | None = None

    def add(
        self,
        reduction: Reduction | Genred,
        *,
        name: str,
        gradients: bool = True,
        arguments: Sequence[str] | None = None,
        dtype: str | None = None,
    ) -> None:
        """Add a reduction; its arrays say only which axes, dtype and inner dimension the arguments have.

        Args:
            reduction: what a method of `LazyTensor` gives with `call=False`, or with symbolic variables; or a `Genred`.
            name: of the function, a Python identifier.
            gradients: compile gradients too, where the reduction has them, with respect to every array.
            arguments: names of the arrays, in the order in which the formula first uses them, of symbolic variables in
                the order of their indices; by default x0, y1, p2 and so on, by axis and place. Numbers get such names
                in any case, and the bundle keeps their values.
            dtype: "float32" or "float64" for symbolic variables, by default float64; else that of the arrays, where
                16-bit floats count as float32: the function reads them, and gives float32.

        Raises:
            UnsupportedError: the name is taken or no identifier, or the names do not fit the arrays.
        """
        job, order, own_names = _job_of(reduction, dtype)
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__") or not name.isascii():
            raise UnsupportedError(at_user_line(f"name is {name!r}, expected an ASCII identifier of Python"))
        if name in self._parts:
            raise UnsupportedError(at_user_line(f"the bundle has a function {name!r} already: choose another name"))
        self._parts[name] = _Part(
            name,
            job,
            _arguments(job, order, arguments if arguments is not None else own_names),
            _wrt(job) if gradients else (),
        )
        self._data = None

    def compile(
        self,
        targets: Sequence[str] = DEFAULT_TARGETS,
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Bundle:
        """Compile everything for some targets; needs none of these machines.

        Args:
            targets: CPU levels ("x86-64", "x86-64-v3", "x86-64-v4", "aarch64") and GPUs ("sm_80"), as PTX.
            progress: called with a kernel and target, the number of compilations done, and of all.

        Returns:
            This bundle.

        Raises:
            UnsupportedError: there is nothing to compile, or no such target.
            CompileError: a formula cannot be compiled.
        """
        if not self._parts:
            raise UnsupportedError(at_user_line("the bundle is empty, expected at least one reduction: use add"))
        _check_targets(targets)
        self._data = _compile(tuple(self._parts.values()), tuple(dict.fromkeys(targets)), progress)
        return self

    def to_bytes(self) -> bytes:
        """The file: the same bytes for the same formulas, targets and versions.

        Raises:
            UnsupportedError: nothing is compiled yet.
        """
        if self._data is None:
            raise UnsupportedError(at_user_line("the bundle is not compiled, expected compile(targets=...) before"))
        return self._data

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the file, which other users may read and not change.

        Returns:
            Its SHA-256, for `load_bundle(path, sha256=...)`.
        """
        data = self.to_bytes()
        save_bundle(path, data)
        return BundleFile(data).sha256

    def reductions(self) -> dict[str, Reduction]:
        """The reductions by the names of their functions, on arrays of the kinds that they were added with."""
        from pylazy.stages import Reduction

        return {name: Reduction(part.job, None, single=len(part.job.wanted) == 1) for name, part in self._parts.items()}

    def __repr__(self) -> str:
        state = f"{len(self._data)} bytes" if self._data is not None else "not compiled"
        return f"<Bundle of {', '.join(self._parts) or 'nothing'}, {state}>"


class _Part(NamedTuple):
    name: str
    job: Job
    arguments: tuple[Argument, ...]
    wrt: tuple[tuple[int, ...], ...]

    @property
    def request(self) -> ReductionRequest:
        return self.job.executable.reductions

    def function(self) -> Function:
        batch = len(self.job.extents.batch)
        wanted = self.job.wanted
        results = tuple(
            Result(wanted.kind, output.dim // (output.k or 1), output.k, output.dtype)
            for wanted, output in zip(wanted, self.request.outputs, strict=True)
        )
        rank = len(self.job.shapes[0]) - batch - (1 if wanted[0].k else 0)
        return Function(
            name=self.name,
            meaning=", ".join(_meaning(result, self.job.reduced) for result in results),
            dtype=self.job.dtype,
            reduced=self.job.reduced,
            keepdim=not wanted[0].k and rank == 3,
            drop_inner=not wanted[0].k and rank == 1,
            arguments=self.arguments,
            results=results,
            kernel=self.name,
            gradients=tuple(_gradient_id(self.name, wrt) for wrt in self.wrt),
        )


def _meaning(result: Result, reduced: str) -> str:
    k = f", k = {result.k}" if result.k else ""
    return f"{REDUCTIONS[result.kind].meaning} over {reduced}{k}"


def _gradient_id(name: str, wrt: tuple[int, ...]) -> str:
    return f"{name}.gradient.{'_'.join(map(str, wrt))}"


def _job_of(reduction: Reduction | Genred, dtype: str | None) -> tuple[Job, list[int], Sequence[str] | None]:
    """A job with arrays of the right kind; its arrays (numbers of its inputs) in the order of a call; their names."""
    if isinstance(reduction, Reduction) and reduction.is_complex:
        raise UnsupportedError(
            at_user_line("the reduction has complex numbers, and bundles none: add reductions of z.real and z.imag")
        )
    template = reduction._template
    job = None if template is not None else cast("Reduction", reduction)._job  # a Genred has a template
    if (job.ranges if template is None and job is not None else template and template._ranges) is not None:
        raise UnsupportedError(at_user_line("a bundle takes no reduction with ranges: add it without them"))
    if template is None:
        assert job is not None
        if dtype not in (None, job.dtype):
            raise UnsupportedError(at_user_line(f"dtype is {dtype}, and the arrays of the reduction have {job.dtype}"))
        return job, [number for number, source in enumerate(job.sources) if source.kind != arrays.NUMBER], None
    if dtype not in (None, "float32", "float64"):
        raise UnsupportedError(at_user_line(f"dtype is {dtype!r}, expected float32 or float64"))
    count = max(1, *(wanted.k for wanted in template.wanted))
    shapes = [(count, argument.dim) if argument.axes else (argument.dim,) for argument in template.arguments]
    given = [np.zeros(shape, dtype or "float64") for shape in shapes]
    job = template.bind(given)
    order = []
    for argument, array in zip(template.arguments, given, strict=True):
        numbers = [number for number, source in enumerate(job.sources) if source.array is array]
        if len(numbers) != 1:
            uses = "no rows" if not numbers else "both rows and columns"
            raise UnsupportedError(at_user_line(f"argument {argument} is {uses} of the formula, expected one of both"))
        order += numbers
    names = [argument.name for argument in template.arguments]
    return job, order, names if all(names) else None


def _arguments(job: Job, order: Sequence[int], names: Sequence[str] | None) -> tuple[Argument, ...]:
    """Describe the inputs of a program, in its order; `order` are the arrays in the order of a call."""
    if names is not None and (len(names) != len(order) or not all(name.isidentifier() for name in names)):
        raise UnsupportedError(
            at_user_line(f"arguments are {names}, expected {len(order)} identifiers, one for each array")
        )
    found = []
    places = [*order, *(number for number in range(len(job.sources)) if number not in order)]
    for number, (entry, source) in enumerate(zip(job.executable.request.inputs, job.sources, strict=True)):
        place = places.index(number)
        name = names[place] if names is not None and place < len(names) else entry.name
        is_array = number in order
        default = "" if is_array else repr(float(source.array))
        if not is_array and source.kind != arrays.NUMBER:
            raise UnsupportedError(
                at_user_line("a formula with symbolic variables has arrays too: use one or the other")
            )
        if len(entry.axis) == 2:
            raise UnsupportedError(
                at_user_line(f"{name} is an array with a value for each pair, as Vij makes them: a bundle takes none")
            )
        found.append(Argument(name, entry.axis, entry.dim, _layout(source), place, default))
    if len({argument.name for argument in found}) != len(found):
        raise UnsupportedError(at_user_line(f"arguments are {names}: two have one name, or that of a number"))
    return tuple(found)


def _layout(source: Source) -> str:
    """Say how the batch dimensions of an array stand.

    K @ v and symbolic variables take (*batch, N, D), LazyTensors (*batch, 1, N, D); the `view` of a source tells.
    """
    return "rows" if source.kind != arrays.NUMBER and source.identity[1] in ("j", "") else "lazy"


def _wrt(job: Job) -> tuple[tuple[int, ...], ...]:
    """Choose the gradients: all arrays in one sweep, and each alone."""
    if len(job.wanted) != 1 or not REDUCTIONS[job.executable.reductions.outputs[0].kind].differentiable:
        return ()
    numbers = [number for number, source in enumerate(job.sources) if source.kind != arrays.NUMBER]
    together = [tuple(numbers)] if len(numbers) > 1 else []
    return (*together, *((number,) for number in numbers))


# Compiling ------------------------------------------------------------------------------------------------------------


class _Task(NamedTuple):
    id: str
    of: str
    wrt: tuple[int, ...]
    part: _Part
    request: Request


def _tasks(parts: Sequence[_Part]) -> Iterator[_Task]:
    for part in parts:
        yield _Task(part.name, "", (), part, part.request)
        for wrt in part.wrt:
            yield _Task(_gradient_id(part.name, wrt), part.name, wrt, part, gradient_request(part.request, wrt))


def _check_targets(targets: Sequence[str]) -> None:
    from pylazy.compiler.codegen.ptx import PTX_VERSIONS

    known = (*CPU_LEVELS, *PTX_VERSIONS)
    for target in targets:
        if target not in known:
            raise UnsupportedError(at_user_line(f"target is {target!r}, expected one of {', '.join(known)}"))
    if not targets:
        raise UnsupportedError(at_user_line(f"no target is given, expected some of {', '.join(known)}"))


def _compile(
    parts: tuple[_Part, ...], targets: tuple[str, ...], progress: Callable[[str, int, int], None] | None
) -> bytes:
    tasks = list(_tasks(parts))
    total = sum(len(_FEW_ROWS) if not target.startswith(_GPU) else 1 for target in targets) * len(tasks)
    done = 0
    entries: dict[str, bytes] = {}
    absent: dict[str, str] = {}
    kernels = []
    for task in tasks:
        formula, kernel = _write_ir(task, targets[0])
        texts = (f"ir/{task.id}.formula.mlir", f"ir/{task.id}.kernel.mlir")
        entries.update(zip(texts, (formula, kernel), strict=True))
        codes: list[Code] = []
        for target in targets:
            for few in _FEW_ROWS if not target.startswith(_GPU) else _FEW_ROWS[:1]:
                if progress is not None:
                    progress(f"{task.id} for {target}", done, total)
                done += 1
                compile_one = _compile_ptx if target.startswith(_GPU) else _compile_cpu
                try:
                    codes.append(compile_one(task, target, few, entries, codes))
                except UnsupportedError as error:
                    if not target.startswith(_GPU):
                        raise
                    absent[f"{task.id} {target}"] = str(error).split("\n")[0]
        # The compiler may find that few rows need no program of their own.
        digest = task.request.digest()
        kernels.append(Kernel(task.id, task.of, task.wrt, digest, *texts, tuple(_without_repeats(codes))))
    if progress is not None:
        progress("", total, total)
    manifest = Manifest(
        format=FORMAT,
        requires=(),
        provenance=_provenance(),
        targets=targets,
        absent=absent,
        functions=tuple(part.function() for part in parts),
        kernels=tuple(kernels),
        blobs=(),
    )
    return write_bundle(manifest, entries)


def _without_repeats(codes: Sequence[Code]) -> Iterator[Code]:
    """Leave out a variant for few rows that is the very program of many rows: that is what is taken without it."""
    general = {code.target: code.blob for code in codes if not code.few_rows}
    return (code for code in codes if not code.few_rows or code.blob != general[code.target])


def _write_ir(task: _Task, target: str) -> tuple[bytes, bytes]:
    """Write a kernel at both levels of the dialect: as traced, and as a loop nest for a target."""
    from pylazy.compiler.compile import compilation
    from pylazy.compiler.driver import run_passes
    from pylazy.compiler.pipelines import FORMULA_PASSES, KERNEL_PASSES
    from pylazy.compiler.target import target_from_name

    traced = _trace(task, "")
    formula = traced.as_text()
    with compilation():
        run_passes(traced.module, (*FORMULA_PASSES, *KERNEL_PASSES), target=target_from_name(target))
        return formula.encode(), str(traced.module).encode()


def _trace(task: _Task, few: str) -> Any:
    from pylazy import trace

    return trace.trace(task.request, few_rows=few)


def _compile_cpu(task: _Task, target: str, few: str, entries: dict[str, bytes], codes: Sequence[Code]) -> Code:
    from pylazy.compiler.compile import compile_cpu

    data = compile_cpu(_trace(task, few), target).to_bytes()
    for code in codes:
        if entries[code.blob] == data:
            return Code(target, few, code.blob, {})
    path = f"code/{task.id}/{target}{f'.few_{few}' if few else ''}.plzk"
    entries[path] = data
    return Code(target, few, path, {})


def _compile_ptx(task: _Task, target: str, few: str, entries: dict[str, bytes], codes: Sequence[Code]) -> Code:
    del codes
    from pylazy.compiler.compile import compile_ptx

    module = compile_ptx(_trace(task, few), target)
    kernel = Kernel(task.id, task.of, task.wrt, "", "", "", ())
    path = f"code/{task.id}/{target}.ptx"
    called = [buffer for buffer in module.buffers if buffer.role != "scratch"]
    check_buffers(task.part.function(), kernel, called, what=path)
    entries[path] = module.text.encode()
    launch = {
        "kernels": [asdict(kernel) for kernel in module.kernels],
        "buffers": [asdict(buffer) for buffer in module.buffers],
    }
    return Code(target, few, path, launch)


@cache
def _provenance() -> dict[str, str]:
    from pylazy.compiler.codegen.native_object import llvm_version
    from pylazy.compiler.mlir import mlir_root

    versions = {package: _version(package) for package in ("llvmlite", "torch-mlir")}
    return {"pylazy": pylazy.__version__, **versions, "llvm": llvm_version(), "mlir": mlir_root()}


def _version(package: str) -> str:
    from importlib import metadata  # takes 30 ms, so only where something is compiled

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
