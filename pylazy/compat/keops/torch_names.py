"""Stands in for `pykeops.torch` and its modules."""

from typing import Any

import torch  # noqa: F401  as in pykeops, no torch means no pykeops.torch

from pylazy.compat.keops.front_end import OFFERED, STARRED, find_name

__all__ = list(STARRED)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used."""
    value = globals()[name] = find_name(name, __name__)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *OFFERED})
