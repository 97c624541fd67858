"""What besides a request decides on the code of its program, for the keys of the disk cache."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(__file__))
_FRONT_END_FILES = ("reductions.py", "trace.py")  # they make the IR that the compiler reads


@lru_cache(maxsize=1)
def compiler_versions() -> tuple[str, ...]:
    """Versions of pylazy, LLVM and MLIR, and a hash of the compiler's own source.

    A release changes its version, a checkout does not, so its text is read; from a ZIP file there is a version only.
    """
    import hashlib

    from pylazy import __version__

    source = hashlib.sha256()
    for path in compiler_sources():
        with open(path, "rb") as file:
            source.update(file.read())
    return (__version__, _installed_version("llvmlite"), _installed_version("torch-mlir"), source.hexdigest())


def compiler_sources() -> list[str]:
    """The files whose text decides on the code of a program, in a fixed order; pathlib takes 4 ms to import."""
    if not os.path.isdir(_PACKAGE_FOLDER):
        return []
    front_end = [os.path.join(_PACKAGE_FOLDER, name) for name in _FRONT_END_FILES]
    return [*front_end, *sorted(_source_files(os.path.join(_PACKAGE_FOLDER, "compiler")))]


def _source_files(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _source_files(entry.path)
            elif entry.name.endswith((".py", ".mlir")):
                yield entry.path


def _installed_version(package: str) -> str:
    """Give the name of a package's metadata folder, which holds its version; importlib.metadata takes 35 ms."""
    from importlib.machinery import PathFinder

    name = package.replace("-", "_")
    spec = PathFinder.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []  # torch_mlir has no __init__.py
    if not places:
        return f"no {package}"
    folders = os.listdir(os.path.dirname(places[0]))
    return " ".join(sorted(found for found in folders if found.startswith(f"{name}-") and found.endswith(".dist-info")))
