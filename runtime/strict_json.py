"""JSON without what parsers read in different ways: no key twice in an object, no NaN and no infinities."""

import json
from typing import Any


def parse_strict(text: str) -> Any:
    """Read a JSON text.

    Raises:
        ValueError: it is no JSON, has a key twice, or a constant that JSON does not have.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")
