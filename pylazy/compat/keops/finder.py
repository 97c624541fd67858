"""Let Python find the files of this folder under the names of pykeops' modules."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_ROOTS = ("pykeops", "keopscore")
_BY_BACKEND = {
    "": "{}_names.py",
    ".cluster": "cluster_names.py",
    ".generic": "empty_package.py",
    ".generic.generic_ops": "{}_names.py",
    ".generic.generic_red": "{}_names.py",
    ".lazytensor": "empty_package.py",
    ".lazytensor.LazyTensor": "{}_names.py",
    ".operations": "{}_names.py",
    ".utils": "{}_kernels.py",
}
STAND_INS: Mapping[str, str] = {
    "keopscore": "keopscore_flags.py",
    "pykeops": "pykeops_root.py",
    "pykeops.config": "pykeops_config.py",
    "pykeops.common": "empty_package.py",
    "pykeops.common.gpu_utils": "gpu_count.py",
    **{
        f"pykeops.{backend}{module}": file.format(backend)
        for backend in ("numpy", "torch")
        for module, file in _BY_BACKEND.items()
    },
}
"""From a module of pykeops to the file of this folder that stands in for it."""


class StandInFinder(MetaPathFinder):
    """Finds the modules of `STAND_INS`, whether or not pykeops is installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give the file that stands in for a module.

        Raises:
            ModuleNotFoundError: this is another module of pykeops or keopscore, of which pylazy has nothing.
        """
        del path, target
        file = STAND_INS.get(fullname)
        if file is not None:
            return _spec(fullname, Path(__file__).with_name(file))
        if fullname.partition(".")[0] in _ROOTS:
            raise ModuleNotFoundError(
                f"no module named {fullname!r}: pylazy stands in for pykeops, and has nothing for this part of it; "
                "what it has is listed in pylazy.compat.keops.finder.STAND_INS",
                name=fullname,
            )
        return None


def install() -> None:
    """Put the finder before all others; once is enough.

    Raises:
        ImportError: pykeops itself has been imported, so that a program would use both.
    """
    for name in _ROOTS:
        module = sys.modules.get(name)
        if module is not None and not _stands_in(module):
            where = getattr(module, "__file__", None) or "an unknown place"
            raise ImportError(
                f"{name} is already imported, from {where}: import pylazy.compat.keops before anything that imports "
                "pykeops",
                name=name,
            )
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, StandInFinder())


def _stands_in(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).parent == Path(__file__).parent


def _spec(name: str, file: Path) -> ModuleSpec | None:
    is_package = name in _ROOTS or any(other.startswith(f"{name}.") for other in STAND_INS)
    spec = spec_from_file_location(name, file, submodule_search_locations=[] if is_package else None)
    if spec is not None and spec.submodule_search_locations:
        spec.submodule_search_locations.clear()  # the files of this folder are no modules of pykeops
    return spec
