"""The same reductions densely in NumPy and float64, for some of the rows of a result; gradients by complex steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.gpu_check.checks import DENSE, METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.gpu_check.checks import Check, Formula

Array = Any  # an ndarray

STEP = 1e-30
"""Of a complex step: f'(x) is the imaginary part of f(x + i h) over h, and nothing cancels (Squire and Trapp, 1998)."""


def evaluate(check: Check, formula: Formula, arrays: Sequence[Array]) -> Array:
    """All values of a formula, of shape (*batch, rows kept, terms, components): the axis that is kept comes first.

    Args:
        check: says how the arrays lie.
        formula: its formula or its weight.
        arrays: of shapes (*batch, rows, components), (*batch, components) for parameters; float64 or complex.
    """
    expand: Mapping[str, Callable[[Array], Array]] = {
        "i": lambda a: a[..., :, None, :],
        "j": lambda a: a[..., None, :, :],
        "": lambda a: a[..., None, None, :],
    }
    laid_out = [expand[variable.axis](array) for variable, array in zip(check.variables, arrays, strict=True)]
    shape = np.broadcast_shapes(*(array.shape[:-1] for array in laid_out))
    with np.errstate(all="ignore"):
        value = np.asarray(formula(DENSE, *laid_out))
    value = np.broadcast_to(value, (*shape, value.shape[-1]))
    return value if check.axis == "j" else np.swapaxes(value, -3, -2)


def reduce_values(kind: str, f: Array, g: Array | None, k: int) -> Array:
    """Reduce values along their terms; the result is (*batch, rows, components), those of k in the place of one."""
    with np.errstate(all="ignore"):
        return _REDUCE[kind](f, g, k)


def _shifted(f: Array) -> tuple[Array, Array]:
    """Exponentials of f less its largest value, and that value."""
    largest = np.max(f.real, axis=-2, keepdims=True, initial=-np.inf)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    return np.exp(f - largest), largest[..., 0, :]


def _logsumexp(f: Array, g: Array | None, k: int) -> Array:
    del k
    scaled, largest = _shifted(f)
    return np.log((scaled if g is None else scaled * g).sum(-2)) + largest


def _softmax(f: Array, g: Array | None, k: int) -> Array:
    del k
    scaled, _ = _shifted(f)
    return (scaled * g).sum(-2) / scaled.sum(-2)


def _order(f: Array, k: int) -> Array:
    """Positions of the k smallest by size and then by position, NaN last."""
    return np.argsort(f.real, axis=-2, kind="stable")[..., :k, :]


def _best(f: Array, k: int, sign: int) -> Array:
    found = np.take_along_axis(f, _order(sign * f, k), axis=-2)
    return found.reshape(*found.shape[:-2], found.shape[-2] * found.shape[-1])


def _positions(f: Array, k: int, sign: int) -> Array:
    found = _order(sign * f, k)
    return found.reshape(*found.shape[:-2], found.shape[-2] * found.shape[-1])


_REDUCE: Mapping[str, Callable[[Array, Array | None, int], Array]] = {
    "sum": lambda f, g, k: f.sum(-2),
    "mean": lambda f, g, k: f.sum(-2) / f.shape[-2],
    "prod": lambda f, g, k: f.prod(-2),
    "logsumexp": _logsumexp,
    "softmax": _softmax,
    "min": lambda f, g, k: np.min(f, axis=-2, initial=np.inf),
    "max": lambda f, g, k: np.max(f, axis=-2, initial=-np.inf),
    "argmin": lambda f, g, k: np.argmin(f, axis=-2),
    "argmax": lambda f, g, k: np.argmax(f, axis=-2),
    "any": lambda f, g, k: (f != 0).any(-2),
    "all": lambda f, g, k: (f != 0).all(-2),
    "count": lambda f, g, k: (f != 0).sum(-2),
    "kmin": lambda f, g, k: _best(f, k, 1),
    "argkmin": lambda f, g, k: _positions(f, k, 1),
    "kmax": lambda f, g, k: _best(f, k, -1),
    "argkmax": lambda f, g, k: _positions(f, k, -1),
}
"""A row for each of `pylazy.reductions.REDUCTIONS`; ties go to the lowest position, as NumPy's own rule is."""


def size_of_terms(kind: str, f: Array, result: Array) -> Array:
    """What rounding errors of a result are measured by.

    That is the sum of the sizes of its terms, those below the average counted as average, since they may have cancelled
    themselves; where nothing is added up, the largest term or the result.
    """
    sizes = np.abs(np.where(np.isfinite(f), f, 0))
    typical = sizes.mean() if sizes.size else 1.0
    if kind in ("sum", "mean"):
        return np.maximum(sizes, typical).sum(-2) / (max(f.shape[-2], 1) if kind == "mean" else 1)
    largest = sizes.max(axis=(-2, -1), initial=1.0)[..., None]
    return np.maximum(np.abs(np.where(np.isfinite(result), result, 0)), largest)


def gradient_rows(
    check: Check, arrays: Sequence[Array], cotangent: Array, *, variable: int, rows: Sequence[int]
) -> Array:
    """Some rows of the gradient of the sum of cotangent times result, with respect to one array.

    Args:
        check: a reduction whose result is one array.
        arrays: float64, of shapes (*batch, rows, components); of a parameter (components,).
        cotangent: of the shape of the result.
        variable: position of the array.
        rows: the rows that are wanted; of a parameter [0].

    Returns:
        Shape (*batch, len(rows), components).
    """
    array = np.atleast_2d(arrays[variable])
    found = np.zeros((*array.shape[:-2], len(rows), array.shape[-1]))
    (kind,) = METHODS[check.method].kinds
    for index in np.ndindex(found.shape):
        *element, place, component = index
        stepped = array.astype(complex)
        changed_element = (*element, rows[place], component)
        stepped[changed_element] += 1j * STEP
        changed = [*arrays]
        changed[variable] = stepped.reshape(arrays[variable].shape)
        f = evaluate(check, check.formula, changed)
        g = None if check.weight is None else evaluate(check, check.weight, changed)
        found[index] = (reduce_values(kind, f, g, check.k) * cotangent).sum().imag / STEP
    return found
