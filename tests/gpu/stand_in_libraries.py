"""Libraries of CUDA that stand in for those that a CUDA build of torch links, for a machine without a GPU.

The driver and the runtime work on memory of the host. All other libraries have the functions that torch asks for, each
of which ends the process with its name.
"""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).parent
DRIVER, RUNTIME = "libcuda.so.1", "libcudart.so.13"
_SOURCES = {DRIVER: ("stand_in_driver.c", "stand_in_streams.c"), RUNTIME: ("stand_in_runtime.c",)}
_OF_CUDA = re.compile(r"lib(cu|nv|nccl)")
#: Libraries by the first letters of functions that are linked without a version.
_BY_PREFIX = {"cuFile": "libcufile.so.0", "nccl": "libnccl.so.2", "cusparseLt": "libcusparseLt.so.0", "cu": DRIVER}
_MISSING = """
#include <stdio.h>
#include <stdlib.h>
static void missing(const char *name) { fprintf(stderr, "%s has no stand-in\\n", name); abort(); }
#define MISSING(name) __attribute__((visibility("default"))) void name(void) { missing(#name); }
"""


def build(torch_libraries: Path, folder: Path) -> None:
    """Write every library of CUDA that torch links.

    Args:
        torch_libraries: the folder "lib" of an installed torch.
        folder: where to write; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libraries = sorted(torch_libraries.glob("*.so*"))
    needed = {name for library in libraries for name in _needed(library) if _OF_CUDA.match(name)}
    functions = _functions_by_library(libraries)
    for name in [DRIVER, *sorted(needed - {DRIVER})]:
        _compile(folder, name, functions[name])


def _needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "-dW", str(library)))


def _functions_by_library(libraries: list[Path]) -> dict[str, dict[str, str]]:
    """Give the functions that libraries ask others for: by library, each with its version."""
    asked = {symbol for library in libraries for symbol in _symbols(library, "--undefined-only")}
    own = {symbol.split("@")[0] for library in libraries for symbol in _symbols(library, "--defined-only")}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for symbol in asked:
        name, _, version = symbol.partition("@")
        library = version if version.startswith("lib") else _library_of(name)
        if library and name not in own:
            found[library][name] = version
    return found


def _symbols(library: Path, which: str) -> list[str]:
    dynamic = [] if library.suffix == ".o" else ["-D"]
    return [line.split()[-1] for line in _output("nm", *dynamic, which, str(library)).splitlines()]


def _library_of(name: str) -> str:
    if name.startswith("nvshmem"):
        return "libnvshmem_host.so.3"
    return next((library for prefix, library in _BY_PREFIX.items() if re.match(prefix + "[A-Z]", name)), "")


def _compile(folder: Path, name: str, functions: dict[str, str]) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
    objects = []
    for source in _SOURCES.get(name, ()):
        objects.append(folder / f"{source}.o")
        _output(compiler, "-c", "-fPIC", "-O1", "-w", "-o", str(objects[-1]), str(FOLDER / source))
    present = {symbol for made in objects for symbol in _symbols(made, "--defined-only")}
    generated, versions = folder / f"{name}.c", folder / f"{name}.versions"
    generated.write_text(_MISSING + "".join(f"MISSING({function})\n" for function in sorted({*functions} - present)))
    versions.write_text(f"{max(functions.values(), default='') or name} {{ global: *; }};\n")
    options = ["-shared", "-fPIC", "-w", "-pthread", f"-Wl,-soname,{name}", f"-Wl,--version-script={versions}"]
    linked = [folder / DRIVER] if name == RUNTIME else []
    _output(compiler, *options, "-o", str(folder / name), str(generated), *map(str, [*objects, *linked]))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
