"""`pylazy run`: call one function of a bundle on arrays from files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.commands.console import show_json, standard_output
from pylazy.runtime.errors import DtypeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pylazy.bundling.bundled_functions import BundledFunction, LoadedBundle


def run_bundle(
    bundle: LoadedBundle,
    *,
    name: str,
    arguments: Sequence[str],
    output: Path | None,
    as_json: bool,
) -> None:
    """Call a function.

    Args:
        bundle: the bundle.
        name: of the function; empty where the bundle has only one.
        arguments: "x=x.npy", "s=0.5" for a number, or "ranges=ranges.npz" with six arrays in their order.
        output: where the result goes, as .npy, or as .npz where there are several.
        as_json: report for programs.
    """
    function = choose_function(bundle, name)
    try:
        result = function(**_read_arguments(arguments))
    except TypeError as error:  # arguments that the function does not take
        raise UnsupportedError(str(error)) from None
    results = result if isinstance(result, tuple) else (result,)
    if output is not None:
        if len(results) == 1:
            np.save(output, result)
        else:
            np.savez(output, *results)
    described = [describe(array) for array in results]
    if as_json:
        show_json({"function": function.function.name, "results": described})
        return
    console = standard_output()
    for found in described:
        console.print(", ".join(f"{key} {value}" for key, value in found.items()))


def choose_function(bundle: LoadedBundle, name: str) -> BundledFunction:
    """Find a function by name, or the only one."""
    if not name and len(bundle) == 1:
        return next(iter(bundle.values()))
    if name not in bundle:
        raise UnsupportedError(f"function {name!r}: the bundle has {', '.join(bundle)}")
    return bundle[name]


def describe(array: Any) -> dict[str, Any]:
    """Say what a result is, without all of it; of complex numbers the sizes."""
    finite = array[np.isfinite(array)]
    if array.dtype.kind == "c":
        finite = abs(finite)
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "least": finite.min().item() if finite.size else None,
        "mean": float(finite.mean()) if finite.size else None,
        "largest": finite.max().item() if finite.size else None,
        "not_finite": int(array.size - finite.size),
    }


def _read_arguments(given: Sequence[str]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UnsupportedError(f"--arg {text}: expected NAME=FILE.npy or NAME=NUMBER")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = _load_array(value)
    return found


def _load_array(path: str) -> Any:
    """Read an array; the arrays of an archive, as those of ranges, as a tuple."""
    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else tuple(found.values())
    except ValueError as error:
        raise DtypeError(f"{path} is no array of numbers in NumPy's format: {error}") from None
