"""The manifest of a bundle: its records, and the rules that hold between them.

The fields of MANIFEST.json are the attributes of these records; `pylazy.runtime.manifest_reader` reads them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pylazy.runtime.archive import require
from pylazy.runtime.kernel import DTYPE_BYTES, MAX_ROW_BYTES, Buffer

FORMAT = (1, 0)
MANIFEST = "MANIFEST.json"
LAYOUTS = ("lazy", "rows")
SAVING_KIND = "logsumexp"


@dataclass(frozen=True)
class Argument:
    """What a function takes.

    Attributes:
        name: for calls by keyword and for messages.
        axis: "i" for rows, "j" for columns, "" for a parameter.
        dim: elements of a row.
        layout: how more than two dimensions are read: "lazy" is (*batch, M, 1, D), "rows" is (*batch, M, D).
        place: where it stands in a call.
        default: a number as text, for a parameter that need not be given; else empty.
    """

    name: str
    axis: str
    dim: int
    layout: str
    place: int
    default: str


@dataclass(frozen=True)
class Result:
    """What a function gives.

    Attributes:
        kind: the reduction, such as "sum".
        dim: components.
        k: how many are kept, 0 where the kind takes none.
        dtype: "float32", "float64" or "int64".
    """

    kind: str
    dim: int
    k: int
    dtype: str


@dataclass(frozen=True)
class Code:
    """A kernel for one target.

    Attributes:
        target: a CPU level, or "sm_80" and the like.
        few_rows: the axis ("", "i" or "j") whose rows are so few that columns take their place in vectors.
        blob: the entry with the code: a kernel image, or PTX as text.
        launch: of PTX its kernels in order and its buffers, see `pylazy.runtime.gpu_image`; of an image empty.
    """

    target: str
    few_rows: str
    blob: str
    launch: Mapping[str, Any]


@dataclass(frozen=True)
class Kernel:
    """One program: a function itself, or its gradient.

    Attributes:
        id: its name in this bundle.
        of: of a gradient the kernel that it differentiates, which stands before it; else empty.
        wrt: of a gradient the numbers of the arguments, ascending.
        digest: SHA-256 of the canonical form of the formula.
        formula: the entry with level 1 of the dialect, as text.
        kernel: the entry with level 2, for the first target.
        code: for each target.
    """

    id: str
    of: str
    wrt: tuple[int, ...]
    digest: str
    formula: str
    kernel: str
    code: tuple[Code, ...]


@dataclass(frozen=True)
class Function:
    """What a user calls.

    Attributes:
        name: a Python and C identifier.
        meaning: the reduction in words.
        dtype: "float32" or "float64": of the arithmetic and of every argument.
        reduced: the axis that is reduced, "i" or "j".
        keepdim: the reduced axis stays in the shape of results, with size 1.
        drop_inner: an inner dimension of 1 is left out of the shape of results.
        arguments: in the order of the input buffers.
        results: in the order of the output buffers.
        kernel: the program.
        gradients: programs of gradients.
    """

    name: str
    meaning: str
    dtype: str
    reduced: str
    keepdim: bool
    drop_inner: bool
    arguments: tuple[Argument, ...]
    results: tuple[Result, ...]
    kernel: str
    gradients: tuple[str, ...]


@dataclass(frozen=True)
class Blob:
    """One entry of the archive."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What MANIFEST.json says.

    Attributes:
        format: major and minor version: a reader takes files of its own major version.
        requires: features that a reader must know; this version defines none.
        provenance: versions and flags of what made the bundle.
        targets: all targets, in the order in which they were asked for.
        absent: "kernel target": why there is no code.
        functions: by name.
        kernels: a gradient stands after its kernel.
        blobs: every other entry.
    """

    format: tuple[int, ...]
    requires: tuple[str, ...]
    provenance: Mapping[str, str]
    targets: tuple[str, ...]
    absent: Mapping[str, str]
    functions: tuple[Function, ...]
    kernels: tuple[Kernel, ...]
    blobs: tuple[Blob, ...]


def to_json(value: Any) -> Any:
    """Turn records into objects, lists and plain values, mappings sorted by their keys."""
    if is_dataclass(value):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(value[key]) for key in sorted(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def check_buffers(function: Function, kernel: Kernel, found: Sequence[Buffer], *, what: str) -> None:
    """Compare the arrays that code reads and writes with those that its callers bring.

    Raises:
        BundleFormatError: they differ, so the code would read or write past their ends.
    """
    expected = expected_buffers(function, kernel)
    described = [(buffer.role, buffer.axis, buffer.dtype, buffer.dim) for buffer in found]
    require(described == expected, f"{what} has other buffers than {kernel.id}: {described}, expected {expected}")


def expected_buffers(function: Function, kernel: Kernel) -> list[tuple[str, str, str, int]]:
    """Role, axis, dtype and dimension of each array that the caller of a kernel brings, in order."""
    inputs = [("input", argument.axis, function.dtype, argument.dim) for argument in function.arguments]
    kept = {"i": "j", "j": "i"}[function.reduced]
    results = [(kept, result.dtype, result.dim * (result.k or 1)) for result in function.results]
    if not kernel.of:
        return [*inputs, *(("output", *result) for result in results)]
    cotangents = 2 if function.results[0].kind == SAVING_KIND else 1  # the saved result, then the cotangent
    gradients = [("output", *inputs[number][1:]) for number in kernel.wrt]
    return [*inputs, *([("input", *results[0])] * cotangents), *gradients]


def check_blobs(manifest: Manifest, entries: Mapping[str, memoryview]) -> None:
    """Compare the entries of an archive with what the manifest says of them.

    Raises:
        BundleFormatError: an entry differs, is missing, or is not needed.
    """
    paths = [blob.path for blob in manifest.blobs]
    require(paths == list(entries), "the blobs of the manifest are not the entries of the archive, in their order")
    for blob in manifest.blobs:
        content = entries[blob.path]
        require(len(content) == blob.bytes, f"entry {blob.path} has {len(content)} bytes, expected {blob.bytes}")
        digest = hashlib.sha256(content).hexdigest()
        require(digest == blob.sha256, f"entry {blob.path} has another SHA-256 than the manifest says")
    used, present = set(_blobs_of(manifest)), set(paths)
    require(used <= present, f"entry {min(used - present, default='')[:100]!r} is missing")
    require(present <= used, f"nothing refers to entry {min(present - used, default='')}")


def _blobs_of(manifest: Manifest) -> Iterator[str]:
    for kernel in manifest.kernels:
        yield kernel.formula
        yield kernel.kernel
        for code in kernel.code:
            yield code.blob


def check_links(manifest: Manifest, kernels: Mapping[str, Kernel]) -> None:
    """Check what records say of one another.

    Raises:
        BundleFormatError: a link leads nowhere, or to where it may not.
    """
    require(len(kernels) == len(manifest.kernels), "two kernels have one id")
    names = [function.name for function in manifest.functions]
    require(len(set(names)) == len(names), "two functions have one name")
    before: set[str] = set()
    for kernel in manifest.kernels:
        require(not kernel.of or kernel.of in before, f"kernel {kernel.id} is of {kernel.of}, not a kernel before it")
        require(not kernel.of or not kernels[kernel.of].of, f"kernel {kernel.id} is a gradient of a gradient")
        require(list(kernel.wrt) == sorted(set(kernel.wrt)), f"wrt of kernel {kernel.id} does not ascend")
        variants = {(code.target, code.few_rows) for code in kernel.code}
        require(len(variants) == len(kernel.code), f"kernel {kernel.id} has two codes for one target")
        strays = {target for target, _ in variants} - set(manifest.targets)
        require(not strays, f"kernel {kernel.id} has code for {sorted(strays)}, no targets of this bundle")
        before.add(kernel.id)
    owners = [function.kernel for function in manifest.functions]
    require(len(set(owners)) == len(owners), "two functions have one kernel")
    for function in manifest.functions:
        _check_function(function, kernels)
    owned = {*owners, *(gradient for function in manifest.functions for gradient in function.gradients)}
    require(owned == set(kernels), "a kernel belongs to no function")


def _check_function(function: Function, kernels: Mapping[str, Kernel]) -> None:
    what = f"function {function.name}"
    own = kernels.get(function.kernel)
    require(own is not None and not own.of, f"{what} has kernel {function.kernel}, which is not there or a gradient")
    require(len(function.results) >= 1, f"{what} has no result")
    names = [argument.name for argument in function.arguments]
    require(len(set(names)) == len(names), f"{what} has two arguments of one name")
    require(len({argument.place for argument in function.arguments}) == len(names), f"{what} has two in one place")
    require(len(names) + len(function.results) <= 256, f"{what} has too many arguments")
    for result in function.results:
        # A number of elements that 64 bits count, so that no size computed from it wraps.
        most = MAX_ROW_BYTES // DTYPE_BYTES[result.dtype]
        require(result.dim * (result.k or 1) <= most, f"{what} has a result of more than {most} elements a row")
    require(len(set(function.gradients)) == len(function.gradients), f"{what} has a gradient twice")
    for name in function.gradients:
        gradient = kernels.get(name)
        require(gradient is not None and gradient.of == function.kernel, f"{what} has no gradient {name}")
        assert gradient is not None
        require(len(function.results) == 1, f"{what} has a gradient, and {len(function.results)} results")
        numbered = all(number < len(names) for number in gradient.wrt) and len(gradient.wrt) > 0
        require(numbered, f"wrt of kernel {name} is {gradient.wrt}, for {len(names)} arguments")
