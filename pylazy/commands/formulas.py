"""Formulas in a TOML file, of which nothing is ever executed.

Each table is a function::

    [gaussian]
    formula = "Exp(-SqDist(x, y) / s) * b"                          # see pylazy.formula_texts.formula_parser
    variables = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)", "s = Pm(1)"]  # in the order of a call
    reduction = "Sum"                                               # the default; see pylazy.genred
    axis = "j"                                                      # the default: the axis that is reduced
    dtype = "float32"                                               # the default
    gradients = true                                                # the default
    ranges = false                                                  # the default: whether calls bring the pairs

`k` says how many are kept by KMin and its like, `weight` is a second formula for LogSumExp and SumSoftMaxWeight.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pylazy.bundling.bundles import Bundle
from pylazy.formula_texts.reduction_texts import REDUCTION_OPS
from pylazy.genred import Genred
from pylazy.runtime.errors import PylazyError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 4 << 20
_TYPES: dict[str, tuple[type, Any]] = {
    "formula": (str, None),
    "variables": (list, None),
    "reduction": (str, "Sum"),
    "axis": (str, "j"),
    "dtype": (str, "float32"),
    "gradients": (bool, True),
    "ranges": (bool, False),
    "k": (int, 0),
    "weight": (str, ""),
}


class FormulaFileError(PylazyError, ValueError):
    """A file of formulas that cannot be read."""


def read_formulas(path: Path) -> Bundle:
    """Read a file into a bundle that is not compiled yet.

    Raises:
        FormulaFileError: the file is no TOML, or a table or a value in it is wrong; the message names it.
    """
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise FormulaFileError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    try:
        tables = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise FormulaFileError(f"{path} is not TOML: {error}") from None
    if not tables:
        raise FormulaFileError(f"{path} has no table, expected one for each function, as [gaussian]")
    bundle = Bundle()
    for name, table in tables.items():
        _add(bundle, name, table, path)
    return bundle


def _add(bundle: Bundle, name: str, table: object, path: Path) -> None:
    what = f"{path}: [{name}]"
    if not isinstance(table, dict):
        raise FormulaFileError(f"{path}: {name} is a value, expected a table [{name}] with a formula")
    unknown = sorted(table.keys() - _TYPES.keys())
    if unknown:
        raise FormulaFileError(f"{what} has {unknown[0]!r}, expected {', '.join(_TYPES)}")
    found: dict[str, Any] = {}
    for key, (kind, default) in _TYPES.items():
        value = table.get(key, default)
        if value is None:
            raise FormulaFileError(f"{what} has no {key}")
        if type(value) is not kind:
            raise FormulaFileError(f"{what} has {key} = {value!r}, expected a {kind.__name__}")
        found[key] = value
    for key, choices in (("axis", ("i", "j")), ("dtype", ("float32", "float64")), ("reduction", tuple(REDUCTION_OPS))):
        if found[key] not in choices:
            raise FormulaFileError(f"{what} has {key} = {found[key]!r}, expected one of {', '.join(choices)}")
    try:
        reduction = Genred(
            found["formula"],
            found["variables"],
            reduction_op=found["reduction"],
            axis="ij".index(found["axis"]),
            opt_arg=found["k"] or None,
            formula2=found["weight"] or None,
        )
        bundle.add(reduction, name=name, gradients=found["gradients"], dtype=found["dtype"], ranged=found["ranges"])
    except PylazyError as error:
        # The last line names a line of Python, which is ours and not the user's.
        raise FormulaFileError(f"{what}: {str(error).rpartition(chr(10) + '  at ')[0] or error}") from None
