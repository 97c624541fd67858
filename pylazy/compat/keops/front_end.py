"""What `pykeops.numpy` and `pykeops.torch` offer: names of pylazy, each imported when it is first used."""

from __future__ import annotations

from typing import Any

import pylazy

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

OFFERED = (*STARRED, "ComplexLazyTensor", "Var")
"""What can be imported by name."""


def find_name(name: str, module: str) -> Any:
    """Find a name for a module of pykeops.

    Raises:
        AttributeError: it has no such name.
    """
    if name not in OFFERED:
        raise AttributeError(f"module {module!r}, for which pylazy stands in, has no attribute {name!r}", name=name)
    return getattr(pylazy, name)
