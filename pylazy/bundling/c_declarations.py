"""The C interface of a bundle: which functions it has, what they are called and take, and the header."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from pylazy.runtime.errors import UnsupportedError
from pylazy.runtime.manifest import SAVING_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylazy.runtime.manifest import Function, Kernel, Manifest

_RESERVED = frozenset({"last_error", "error_text"})
_NO_PARAMETER = frozenset(
    (
        "auto", "bool", "break", "case", "catch", "char", "class", "const", "continue", "default", "delete", "do",
        "double", "else", "enum", "extern", "float", "for", "friend", "goto", "if", "inline", "int", "long",
        "namespace", "new", "operator", "private", "public", "register", "restrict", "return", "short", "signed",
        "sizeof", "static", "struct", "switch", "template", "this", "throw", "try", "typedef", "typename", "union",
        "unsigned", "using", "virtual", "void", "volatile", "while",
        "scratch", "scratch_bytes", "cotangent", "result", "tensors", "m", "n",
    )
)  # fmt: skip


def header_text(manifest: Manifest, name: str, origin: str) -> str:
    """Write the header of some functions: one C function for each of their kernels.

    Args:
        manifest: what the functions are, and what made them.
        name: of the header.
        origin: a sentence that says where the kernels come from.

    Raises:
        UnsupportedError: a function has what C does not, or a name that it does not take.
    """
    guard = f"PLZ_{name.upper()}_H"
    made_by = ", ".join(f"{what} {text}" for what, text in manifest.provenance.items())
    lines = [
        f"/* Kernels of {name}, compiled ahead of time: {made_by}.",
        " *",
        " * Every function runs on the calling thread, may be called from several threads at once, allocates nothing,",
        " * and reports failure as a status, with a message for the thread. Arrays are contiguous, on the CPU; a last",
        f" * dimension of size 1 may be left out. {origin}",
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        embedded_text("dltensor.h"),
        "#ifndef PLZ_STATUS",
        "#define PLZ_STATUS",
        "enum { PLZ_OK = 0, PLZ_INVALID_ARGUMENT = 1, PLZ_UNSUPPORTED = 4 };",
        "#endif",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* The message of the last failure in this thread; empty before the first. */",
        "const char *plz_last_error(void);",
    ]
    for function, kernel in c_kernels(manifest):
        lines += ["", *_declaration(function, kernel)]
    return "\n".join([*lines, "", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""])


def c_kernels(manifest: Manifest) -> Iterator[tuple[Function, Kernel]]:
    """Give the functions with their kernels and gradients, in the order of the header.

    Raises:
        UnsupportedError: a function has what C does not, or a name that it does not take.
    """
    kernels = {kernel.id: kernel for kernel in manifest.kernels}
    for function in manifest.functions:
        check_in_c(function)
        yield function, kernels[function.kernel]
        for gradient in function.gradients:
            yield function, kernels[gradient]


def check_in_c(function: Function) -> None:
    """Refuse what the C interface does not have.

    Raises:
        UnsupportedError: the function has it.
    """
    if function.name in _RESERVED:
        raise UnsupportedError(f"plz_{function.name} is a name of the C interface: choose another for the function")
    lacks = {
        "ranges": function.ranged,
        "complex numbers": function.is_complex or any(argument.part for argument in function.arguments),
        "arrays with a value for each pair": any(len(argument.axis) == 2 for argument in function.arguments),
    }
    for what, is_used in lacks.items():
        if is_used:
            raise UnsupportedError(
                f"{function.name} has {what}, which the C interface does not: leave it out of the formulas for C, or "
                "load the bundle from Python"
            )
    for argument in function.arguments:
        if argument.name in _NO_PARAMETER:
            raise UnsupportedError(f"argument {argument.name} of {function.name}: C needs another name")


def c_name(function: Function, kernel: Kernel) -> str:
    """Name the C function of a kernel."""
    if not kernel.of:
        return f"plz_{function.name}"
    return f"plz_{function.name}_gradient_{'_'.join(function.arguments[number].name for number in kernel.wrt)}"


def parameters(function: Function, kernel: Kernel) -> tuple[list[str], list[str]]:
    """Names of inputs and of outputs, in the order of the buffers."""
    inputs = [argument.name for argument in function.arguments]
    results = ["result"] if len(function.results) == 1 else [f"result{k}" for k in range(len(function.results))]
    if not kernel.of:
        return inputs, results
    saved = results if function.results[0].kind in SAVING_KINDS else []
    return [*inputs, *saved, "cotangent"], [f"gradient_{function.arguments[number].name}" for number in kernel.wrt]


def prototype(function: Function, kernel: Kernel) -> tuple[str, str]:
    """Write the head of the function of a kernel, and of the one that counts its scratch memory."""
    inputs, outputs = parameters(function, kernel)
    # The arguments of the function in the order of a call; then what a gradient takes besides.
    given = [argument.name for argument in sorted(function.arguments, key=lambda found: found.place)]
    ordered = [*given, *inputs[len(given) :]]
    tensors = ", ".join([f"const DLTensor *{name}" for name in ordered] + [f"DLTensor *{name}" for name in outputs])
    name = c_name(function, kernel)
    return (
        f"int32_t {name}({tensors}, void *scratch, size_t scratch_bytes)",
        f"size_t {name}_scratch_bytes(int64_t m, int64_t n)",
    )


def _declaration(function: Function, kernel: Kernel) -> list[str]:
    rows = {"i": "(M, {})", "j": "(N, {})", "": "({})"}
    described = [f"{argument.name} {rows[argument.axis].format(argument.dim)}" for argument in function.arguments]
    kept = "N" if function.reduced == "i" else "M"
    results = [f"({kept}, {result.dim * (result.k or 1)}) {result.dtype}" for result in function.results]
    what = f"{function.meaning}; {function.dtype}"
    if kernel.of:
        names = " and ".join(function.arguments[number].name for number in kernel.wrt)
        what = f"the gradient of plz_{function.name} with respect to {names}, of their shapes"
    call, size = prototype(function, kernel)
    return [
        f"/* {what}.",
        f" * {', '.join(described)}; result {', '.join(results)}.",
        " * scratch: as many bytes as the function below says for M and N, at any address; null for 0 bytes. */",
        f"{call};",
        f"{size};",
    ]


def embedded_text(name: str) -> str:
    """Read a file of C that comes with the runtime."""
    return (resources.files("pylazy.runtime") / "embed" / name).read_text(encoding="utf-8")
