"""Find a dense kernel by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def kernel_of(table: Mapping[str, Callable[..., Any]], name: str) -> Callable[..., Any]:
    """Look a kernel up.

    Raises:
        UnsupportedError: there is none of this name.
    """
    found = table.get(name)
    if found is None:
        raise UnsupportedError(at_user_line(f"kernel is {name!r}, expected one of {', '.join(table)}"))
    return found
