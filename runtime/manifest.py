"""The manifest of a bundle: its records, and the rules that hold between them.

The fields of MANIFEST.json are the attributes of these records; `pylazy.runtime.manifest_reader` reads them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pylazy.runtime.archive import require
from pylazy.runtime.kernel import DTYPE_BYTES, MAX_ROW_BYTES, Buffer

FORMAT = (1, 1)
MANIFEST = "MANIFEST.json"
FEATURES = ("complex", "cubin", "header", "pairs", "ranges", "selection")
"""What a reader of version 1.0 does not know; a bundle names those that it uses."""

ARGUMENT_AXES = ("", "i", "j", "ij", "ji")
LAYOUTS = ("lazy", "rows")
PARTS = ("", "real", "imag")
SAVING_KINDS = ("logsumexp", "softmax")
"""Reductions whose gradient reads the result."""

_MAX_ARGUMENTS = 256
_TABLES = (("i",), ("j",), ("i", "j"))


class Argument(NamedTuple):
    """What a function takes.

    Attributes:
        name: for calls by keyword and for messages.
        axis: "i" for rows, "j" for columns, "" for a parameter; "ij" for a value for each pair, an array
            (*batch, M, N, D), and "ji" for (*batch, N, M, D).
        dim: elements of a row.
        layout: how more than two dimensions are read: "lazy" is (*batch, M, 1, D), "rows" is (*batch, M, D).
        place: where it stands in a call.
        default: a number as text, for a parameter that need not be given; else empty.
        part: "real" or "imag" of a complex array, both of which have its name and place; "" for a real one.
    """

    name: str
    axis: str
    dim: int
    layout: str
    place: int
    default: str
    part: str = ""


class Result(NamedTuple):
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


class Code(NamedTuple):
    """A kernel for one target.

    Attributes:
        target: a CPU level, or "sm_80" and the like.
        few_rows: the axis ("", "i" or "j") whose rows are so few that columns take their place in vectors.
        blob: the entry with the code: a kernel image, or PTX as text.
        launch: of PTX its kernels in order and its buffers, see `pylazy.runtime.gpu_image`; of an image empty.
        cubin: the entry with the PTX assembled for the target, or "" where there is none.
    """

    target: str
    few_rows: str
    blob: str
    launch: Mapping[str, Any]
    cubin: str = ""


class Kernel(NamedTuple):
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


class Function(NamedTuple):
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
        ranged: whether a call brings the pairs to reduce.
        is_complex: whether results are complex: the first half of the components is the real parts.
        indices: the axes ("", "i", "j" or "ij") whose indices are values of the formula.
        selection: for gradients of min, max and the k best: a function that gives values and positions, then one that
            gives the formula on a list of pairs; else empty. The arguments of the second have as place the number of
            the argument that is gathered; after them come the indices i and j.
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
    ranged: bool = False
    is_complex: bool = False
    indices: str = ""
    selection: "tuple[Function, ...]" = ()


class Blob(NamedTuple):
    """One entry of the archive."""

    path: str
    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """What MANIFEST.json says.

    Attributes:
        format: major and minor version: a reader takes files of its own major version.
        requires: those of `FEATURES` that it uses.
        provenance: versions and flags of what made the bundle.
        targets: all targets, in the order in which they were asked for.
        absent: "kernel target": why there is no code.
        functions: by name.
        kernels: a gradient stands after its kernel.
        blobs: every other entry.
        header: the entry with the C header of the functions that C has; "" where there is none.
    """

    format: tuple[int, ...]
    requires: tuple[str, ...]
    provenance: Mapping[str, str]
    targets: tuple[str, ...]
    absent: Mapping[str, str]
    functions: tuple[Function, ...]
    kernels: tuple[Kernel, ...]
    blobs: tuple[Blob, ...]
    header: str = ""

    @property
    def all_functions(self) -> tuple[Function, ...]:
        """The functions, each followed by those of its selection."""
        return tuple(found for function in self.functions for found in (function, *function.selection))


def features_of(manifest: Manifest) -> tuple[str, ...]:
    """What of `FEATURES` a bundle uses."""
    functions = manifest.all_functions
    used = {
        "complex": any(function.is_complex or any(a.part for a in function.arguments) for function in functions),
        "cubin": any(code.cubin for kernel in manifest.kernels for code in kernel.code),
        "header": bool(manifest.header),
        "pairs": any(len(argument.axis) == 2 for function in functions for argument in function.arguments),
        "ranges": any(function.ranged for function in functions),
        "selection": any(function.selection for function in functions),
    }
    return tuple(name for name in FEATURES if used[name])


def to_json(value: Any) -> Any:
    """Turn records into objects, lists and plain values, mappings sorted by their keys.

    A field that version 1.0 did not have is written where it says something.
    """
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        defaults: Mapping[str, Any] = getattr(value, "_field_defaults", {})
        return {
            name: to_json(item)
            for name, item in zip(getattr(value, "_fields", ()), value, strict=True)
            if name not in defaults or item != defaults[name]
        }
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
    own = described[: len(expected)]
    require(own == expected, f"{what} has other buffers than {kernel.id}: {own}, expected {expected}")
    tables = tuple(axis for _, axis, _, _ in described[len(expected) :])
    allowed = ((),) if not function.ranged else _TABLES if kernel.of else ((_kept(function),),)
    is_plain = all(buffer == ("table", buffer[1], "int64", 1) for buffer in described[len(expected) :])
    require(is_plain and tables in allowed, f"{what} has tables {tables} of {kernel.id}, expected one of {allowed}")


def _kept(function: Function) -> str:
    return {"i": "j", "j": "i"}[function.reduced]


def expected_buffers(function: Function, kernel: Kernel) -> list[tuple[str, str, str, int]]:
    """Role, axis, dtype and dimension of each array that the caller of a kernel brings, in order, before tables."""
    inputs = [
        ("input", "ij" if len(argument.axis) == 2 else argument.axis, function.dtype, argument.dim)
        for argument in function.arguments
    ]
    results = [(_kept(function), result.dtype, result.dim * (result.k or 1)) for result in function.results]
    if not kernel.of:
        return [*inputs, *(("output", *result) for result in results)]
    cotangents = 2 if function.results[0].kind in SAVING_KINDS else 1  # the saved result, then the cotangent
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
    if manifest.header:
        yield manifest.header
    for kernel in manifest.kernels:
        yield kernel.formula
        yield kernel.kernel
        for code in kernel.code:
            yield code.blob
            if code.cubin:
                yield code.cubin


def check_links(manifest: Manifest, kernels: Mapping[str, Kernel]) -> None:
    """Check what records say of one another.

    Raises:
        BundleFormatError: a link leads nowhere, or to where it may not.
    """
    require(len(kernels) == len(manifest.kernels), "two kernels have one id")
    functions = manifest.all_functions
    names = [function.name for function in functions]
    require(len(set(names)) == len(names), "two functions have one name")
    before: set[str] = set()
    for kernel in manifest.kernels:
        require(not kernel.of or kernel.of in before, f"kernel {kernel.id} is of {kernel.of}, not a kernel before it")
        require(not kernel.of or not kernels[kernel.of].of, f"kernel {kernel.id} is a gradient of a gradient")
        require(list(kernel.wrt) == sorted(set(kernel.wrt)), f"wrt of kernel {kernel.id} does not ascend")
        variants = {(code.target, code.few_rows) for code in kernel.code}
        require(len(variants) == len(kernel.code), f"kernel {kernel.id} has two codes for one target")
        strays = {code.target for code in kernel.code} - set(manifest.targets)
        require(not strays, f"kernel {kernel.id} has code for {sorted(strays)}, no targets of this bundle")
        before.add(kernel.id)
    owners = [function.kernel for function in functions]
    require(len(set(owners)) == len(owners), "two functions have one kernel")
    for function in functions:
        _check_function(function, kernels)
    for function in manifest.functions:
        _check_selection(function)
    owned = {*owners, *(gradient for function in functions for gradient in function.gradients)}
    require(owned == set(kernels), "a kernel belongs to no function")
    hidden = set(features_of(manifest)) - set(manifest.requires)
    require(not hidden, f"it uses {', '.join(sorted(hidden))}, which requires does not name")


def _check_function(function: Function, kernels: Mapping[str, Kernel]) -> None:
    what = f"function {function.name}"
    own = kernels.get(function.kernel)
    require(own is not None and not own.of, f"{what} has kernel {function.kernel}, which is not there or a gradient")
    require(len(function.results) >= 1, f"{what} has no result")
    _check_arguments(function.arguments, what=what)
    count = len(function.arguments)
    require(count + len(function.results) <= _MAX_ARGUMENTS, f"{what} has too many arguments")
    for result in function.results:
        # A number of elements that 64 bits count, so that no size computed from it wraps.
        most = MAX_ROW_BYTES // DTYPE_BYTES[result.dtype]
        require(result.dim * (result.k or 1) <= most, f"{what} has a result of more than {most} elements a row")
        is_split = result.dim % 2 == 0 and not result.k and result.dtype != "int64"
        require(is_split or not function.is_complex, f"{what} is complex, and a result has no two halves")
    require(len(function.results) == 1 or not function.is_complex, f"{what} is complex, and has several results")
    require(len(set(function.gradients)) == len(function.gradients), f"{what} has a gradient twice")
    for name in function.gradients:
        gradient = kernels.get(name)
        require(gradient is not None and gradient.of == function.kernel, f"{what} has no gradient {name}")
        assert gradient is not None
        require(len(function.results) == 1, f"{what} has a gradient, and {len(function.results)} results")
        numbered = all(number < count for number in gradient.wrt) and len(gradient.wrt) > 0
        require(numbered, f"wrt of kernel {name} is {gradient.wrt}, for {count} arguments")


def _check_arguments(arguments: Sequence[Argument], *, what: str) -> None:
    """Check that each name and place is that of one argument; both parts of a complex one share all but the part."""
    by_name: dict[str, list[Argument]] = {}
    for argument in arguments:
        by_name.setdefault(argument.name, []).append(argument)
    for name, found in by_name.items():
        whole = {(argument.axis, argument.dim, argument.layout, argument.place) for argument in found}
        parts = [argument.part for argument in found]
        is_one = len(found) == 1 or (len(whole) == 1 and sorted(parts) == ["imag", "real"])
        require(is_one, f"{what} has two arguments of one name, {name}")
        require(not any(parts) or not any(argument.default for argument in found), f"{what} has a default of {name}")
    places = {found[0].place for found in by_name.values()}
    require(len(places) == len(by_name), f"{what} has two arguments in one place")


def _check_selection(function: Function) -> None:
    if not function.selection:
        return
    what = f"function {function.name}"
    require(len(function.selection) == 2, f"the selection of {what} has {len(function.selection)} functions, not 2")
    chosen, pairs = function.selection
    own = (function.arguments, function.dtype, function.reduced, function.ranged)
    require(
        (chosen.arguments, chosen.dtype, chosen.reduced, chosen.ranged) == own,
        f"the selection of {what} is not of its arguments",
    )
    kinds = [result.kind for result in chosen.results]
    kept = {(result.dim, result.k) for result in (*chosen.results, *function.results)}
    given = {result.kind.removeprefix("arg") for result in function.results}
    is_pair = len(kinds) == 2 and kinds[1] == f"arg{kinds[0]}" and given == {kinds[0]} and len(kept) == 1
    require(is_pair, f"the selection of {what} gives {', '.join(kinds)}, expected its values and their positions")
    is_sum = [(result.kind, result.k) for result in pairs.results] == [("sum", 0)]
    fits = is_sum and pairs.results[0].dim == function.results[0].dim and pairs.dtype == function.dtype
    plain = pairs.reduced == "j" and not (pairs.ranged or pairs.selection or chosen.selection or pairs.is_complex)
    require(fits and plain and not chosen.is_complex, f"the selection of {what} does not give its formula on pairs")
    for argument in pairs.arguments:
        _check_gathered(argument, function, what=f"argument {argument.name} of {pairs.name}")


def _check_gathered(argument: Argument, function: Function, *, what: str) -> None:
    """Check that an argument of the formula on pairs has a row for each pair, of what the function has there."""
    number = argument.place
    require(number < len(function.arguments) + 2, f"{what} is of argument {number}, which is not there")
    source = function.arguments[number] if number < len(function.arguments) else None
    axis, dim = (source.axis, source.dim) if source else ("i", 1)
    expected = ("i" if axis else "", dim)
    require((argument.axis, argument.dim) == expected, f"{what} is {argument.axis}, {argument.dim}, not {expected}")
