"""The checked reductions as functions of arrays: compiled here, or taken from a bundle of prebuilt kernels."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import pylazy
from pylazy.gpu_check.checks import CHECKS, LAZY, METHODS, RANGES_CHECKS
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pylazy.bundling.bundled_functions import LoadedBundle
    from pylazy.gpu_check.checks import Check

_VARIABLES = {"i": pylazy.Vi, "j": pylazy.Vj, "": pylazy.Pm}
_AXES = {"i": 0, "j": 1}
_SOME_RANGES = ([[0, 1]], [1], [[0, 1]]) * 2
"""That there are ranges is part of a function, which they are is said by a call."""


class Functions(Protocol):
    """Finds the function of a check."""

    def __call__(self, check: Check, dtype: str, *, ranges: Any = None) -> Callable[..., Any]:
        """Give the function of the check's arrays, in float32 or float64, perhaps over ranges.

        Raises:
            UnsupportedError: there is none.
        """


def reduction_of(check: Check, backend: str = "auto", *, ranges: Any = None) -> Any:
    """Build the reduction of a check with symbolic variables, in the order of its variables."""
    arrays = [_VARIABLES[variable.axis](place, variable.dim) for place, variable in enumerate(check.variables)]
    value = check.formula(LAZY, *arrays)
    weight = None if check.weight is None else check.weight(LAZY, *arrays)
    if backend != "auto":
        value.backend = backend
    if ranges is not None:
        value.ranges = ranges
    return METHODS[check.method].reduce(value, weight, check.k, _AXES[check.axis])


def compiled_here(backend: str) -> Functions:
    """Give functions that the compiler makes when they are first called."""
    made = cache(reduction_of)

    def find(check: Check, dtype: str, *, ranges: Any = None) -> Callable[..., Any]:
        del dtype  # that of the arrays
        found: Callable[..., Any] = (
            made(check, backend) if ranges is None else reduction_of(check, backend, ranges=ranges)
        )
        return found

    return find


def prebuilt(bundle: LoadedBundle, backend: str) -> Functions:
    """Give the functions of a bundle that `make_bundle` made."""

    def find(check: Check, dtype: str, *, ranges: Any = None) -> Callable[..., Any]:
        name = function_name(check, dtype, ranged=ranges is not None)
        if name not in bundle:
            raise UnsupportedError(f"the bundle has no function {name}: make it with this version of pylazy")
        kernel = bundle.file.kernels[bundle[name].function.kernel]
        if not kernel.code:
            reasons = [why for what, why in bundle.file.manifest.absent.items() if what.startswith(f"{kernel.id} ")]
            raise UnsupportedError(reasons[0] if reasons else f"the bundle has no code of {name}")
        options: dict[str, Any] = {"backend": None if backend == "auto" else backend}
        if ranges is not None:
            options["ranges"] = ranges
        return partial(bundle[name], **options)

    return find


def function_name(check: Check, dtype: str, *, ranged: bool = False) -> str:
    """Name the function of a check in a bundle."""
    return f"{check.name}_{dtype}{'_ranged' if ranged else ''}"


def make_bundle(
    path: Path,
    *,
    targets: Sequence[str],
    checks: Sequence[Check] = CHECKS,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Compile checks for GPUs, none of which has to be here, into a bundle."""
    bundle = pylazy.Bundle()
    for check in checks:
        for dtype in check.dtypes:
            _add(bundle, check, dtype, gradients=check.gradients)
        if check.name in RANGES_CHECKS:
            _add(bundle, check, check.dtypes[0], gradients=False, ranges=_SOME_RANGES)
    bundle.compile(targets, progress=progress).save(path)


def _add(bundle: pylazy.Bundle, check: Check, dtype: str, *, gradients: bool, ranges: Any = None) -> None:
    bundle.add(
        reduction_of(check, ranges=ranges),
        name=function_name(check, dtype, ranged=ranges is not None),
        dtype=dtype,
        arguments=tuple(variable.name for variable in check.variables),
        gradients=gradients,
    )
