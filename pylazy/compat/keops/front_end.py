"""What `pykeops.numpy` and `pykeops.torch` offer, each name imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "pylazy.complex_lazy_tensor": ("ComplexLazyTensor",),
    "pylazy.genred": ("Genred", "generic_argkmin", "generic_argmin", "generic_logsumexp", "generic_sum"),
    "pylazy.lazy_tensor": ("LazyTensor", "Pm", "Var", "Vi", "Vj"),
    "pylazy.solve": ("KernelSolve",),
}
HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

STARRED = (
    "Genred",
    "KernelSolve",
    "LazyTensor",
    "Pm",
    "Vi",
    "Vj",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
)
"""What `from pykeops.torch import *` gives, as in pykeops."""


def find_name(name: str, module: str) -> Any:
    """Find a name for a module of pykeops.

    Raises:
        AttributeError: it has no such name.
    """
    home = HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {module!r}, for which pylazy stands in, has no attribute {name!r}", name=name)
    return getattr(import_module(home), name)
