"""Runs the table of checks, and judges every result by the oracle."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.gpu_check.checks import HALF_CHECKS, HALF_DTYPES, INTEGERS, METHODS, RANGES_CHECKS, SPECIAL, Shape
from pylazy.gpu_check.oracle import evaluate, gradient_rows, reduce_values, size_of_terms
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import PylazyError, ShapeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pylazy.gpu_check.checks import Check, Variable
    from pylazy.gpu_check.devices import Arrays
    from pylazy.gpu_check.functions import Functions

Array = Any  # an ndarray

RIGHT, WRONG, FAILED, UNSUPPORTED = "right", "wrong", "failed", "unsupported"
_MOST_ROWS = 24
_MOST_ORACLE_NUMBERS = 20_000_000
_GRADIENT_ROWS = 4
_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_RANGES_SHAPE, _SMALL_RANGES_SHAPE = Shape(300, 500), Shape(20, 150)


@dataclass(frozen=True)
class Run:
    """One function on one set of arrays.

    Attributes:
        check: the reduction.
        dtype: of the arrays.
        shape: the sizes.
        ranged: over ranges.
    """

    check: Check
    dtype: str
    shape: Shape
    ranged: bool = False

    def __str__(self) -> str:
        return f"{self.check.name} {self.dtype} {self.shape}{' ranges' if self.ranged else ''}"


@dataclass(frozen=True)
class Verdict:
    """What one result of a run is.

    Attributes:
        check: its name.
        dtype: of the arrays.
        shape: the sizes, as text.
        what: "sum", "gradient of x" and the like.
        status: `RIGHT`, `WRONG`, `FAILED` (an error was raised) or `UNSUPPORTED`.
        share: the error as a share of what is allowed; 0 for what has to be exact.
        message: of what is not right.
    """

    check: str
    dtype: str
    shape: str
    what: str
    status: str
    share: float = 0.0
    message: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan(checks: Sequence[Check], shapes: Sequence[Shape], *, small: bool = False) -> list[Run]:
    """List all runs: every shape, then 16-bit floats and ranges, of which a small plan has small ones."""
    runs = [Run(check, dtype, shape) for check in checks for dtype in check.dtypes for shape in shapes]
    filled = [shape for shape in shapes if not shape.batch and shape.rows * shape.columns][:3]
    runs += [
        Run(check, dtype, shape)
        for check in checks
        if check.name in HALF_CHECKS
        for dtype in HALF_DTYPES
        for shape in filled[: 1 if small else None]
        if shape.columns >= check.k
    ]
    ranged = _SMALL_RANGES_SHAPE if small else _RANGES_SHAPE
    return runs + [Run(check, check.dtypes[0], ranged, True) for check in checks if check.name in RANGES_CHECKS]


def judge(run: Run, functions: Functions, arrays: Arrays) -> Iterator[Verdict]:
    """Run a function and judge its results, and its gradients where the run has some."""
    try:
        yield from _judged(run, functions, arrays)
    except UnsupportedError as error:
        yield _verdict(run, "result", UNSUPPORTED, message=_first_line(error))
    except (PylazyError, RuntimeError, ValueError, MemoryError, TypeError) as error:
        yield _verdict(run, "result", FAILED, message=f"{type(error).__name__}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


def _verdict(run: Run, what: str, status: str, *, share: float = 0.0, message: str = "") -> Verdict:
    shape = f"{run.shape}{', ranges' if run.ranged else ''}"
    return Verdict(run.check.name, run.dtype, shape, what, status, share, message)


def _judged(run: Run, functions: Functions, arrays: Arrays) -> Iterator[Verdict]:
    check, kinds = run.check, METHODS[run.check.method].kinds
    host = make_arrays(check, run.shape)
    placed = [arrays.put(array, run.dtype) for array in host]
    if any(array is None for array in placed):
        yield _verdict(run, "result", UNSUPPORTED, message=f"{arrays.name}: no {run.dtype}")
        return
    host = [arrays.get(array).astype(np.float64) for array in placed]
    mask, ranges = _ranges(run.shape) if run.ranged else (None, None)
    function = functions(check, "float32" if run.dtype in HALF_DTYPES else run.dtype, ranges=ranges)
    if (fault := _expected_refusal(run, kinds)) is not None:
        yield _refused(run, function, placed, fault)
        return
    results = function(*placed)
    found = [arrays.get(result) for result in (results if isinstance(results, tuple) else (results,))]
    yield from _judge_values(run, host, found, mask)
    if check.gradients and run.shape.gradients and run.dtype in check.dtypes and not run.ranged:
        if arrays.has_gradients:
            yield from _judge_gradients(run, function, arrays, placed, host)
        else:
            yield _verdict(run, "gradients", UNSUPPORTED, message="gradients are checked through torch")


# Data -----------------------------------------------------------------------------------------------------------------


def make_arrays(check: Check, shape: Shape) -> list[Array]:
    """Make the arrays of a check, the same each time."""
    random = np.random.default_rng(7)
    return [_make(check.data, variable, shape, random) for variable in check.variables]


def _make(data: str, variable: Variable, shape: Shape, random: np.random.Generator) -> Array:
    rows = {"i": (shape.rows,), "j": (shape.columns,), "": ()}[variable.axis]
    full = (*(shape.batch if variable.axis else ()), *rows, variable.dim)
    if data == INTEGERS:
        return random.integers(-2, 3, full).astype(np.float64)
    array = random.standard_normal(full) / math.sqrt(variable.dim if variable.name in "xy" else 1)
    if data == SPECIAL and rows and variable.name == "y":
        array[..., 2::31, 0] = np.inf
        if rows[0] > 50:
            array[..., rows[0] // 2, 1] = np.nan
    return array


def _ranges(shape: Shape) -> tuple[Array, tuple[Array, ...]]:
    """Blocks of a chequered board, one empty: which pairs are in, and the six arrays."""
    from pylazy.clusters import from_matrix

    def cut(size: int, blocks: int) -> Array:
        edges = np.linspace(0, size, blocks + 1).astype(np.int64)
        return np.stack([edges[:-1], edges[1:]], axis=1)

    rows, columns = cut(shape.rows, 7), cut(shape.columns, 9)
    keep = (np.arange(7)[:, None] + np.arange(9)) % 3 > 0
    mask = np.zeros((shape.rows, shape.columns), bool)
    for i, (first, last) in enumerate(rows):
        for j, (start, end) in enumerate(columns):
            mask[first:last, start:end] = keep[i, j]
    return mask, from_matrix(rows, columns, keep)


# Results --------------------------------------------------------------------------------------------------------------


def _expected_refusal(run: Run, kinds: Sequence[str]) -> str | None:
    """Say why there is no result: fewer terms than are asked for."""
    terms = run.shape.columns if run.check.axis == "j" else run.shape.rows
    least = max(run.check.k, *(int(REDUCTIONS[kind].is_position) for kind in kinds))
    return f"{terms} terms, {least} are asked for" if terms < least else None


def _refused(run: Run, function: Callable[..., Any], placed: Sequence[Any], fault: str) -> Verdict:
    try:
        function(*placed)
    except ShapeError:
        return _verdict(run, "refusal", RIGHT)
    return _verdict(run, "refusal", WRONG, message=f"{fault}, and no ShapeError was raised")


def _judge_values(run: Run, host: Sequence[Array], found: Sequence[Array], mask: Array | None) -> Iterator[Verdict]:
    check, kinds = run.check, METHODS[run.check.method].kinds
    kept, terms = (run.shape.rows, run.shape.columns) if check.axis == "j" else (run.shape.columns, run.shape.rows)
    rows = _some_rows(kept, terms, max(variable.dim for variable in check.variables))
    keeps = "i" if check.axis == "j" else "j"
    part = [
        array[..., rows, :] if variable.axis == keeps else array
        for variable, array in zip(check.variables, host, strict=True)
    ]
    f = evaluate(check, check.formula, part)
    g = None if check.weight is None else evaluate(check, check.weight, part)
    if mask is not None:
        yield from _judge_ranges(run, found, f, (mask if check.axis == "j" else mask.T)[rows], rows)
        return
    for kind, array in zip(kinds, found, strict=True):
        expected = reduce_values(kind, f, g, check.k)
        shape = (*run.shape.batch, kept)
        if array.shape[: len(shape)] != shape:
            yield _verdict(run, kind, WRONG, message=f"shape {array.shape}, expected {shape} first")
            continue
        result = array.reshape(*shape, math.prod(array.shape[len(shape) :]))[..., rows, :]
        yield _compare(run, kind, f, result, expected, size_of_terms(kind, f if g is None else f * 0 + g, expected))


def _judge_ranges(run: Run, found: Sequence[Array], f: Array, mask: Array, rows: Array) -> Iterator[Verdict]:
    """Judge rows one by one, each on the terms that it has."""
    (kind,) = METHODS[run.check.method].kinds
    worst = _verdict(run, kind, RIGHT)
    result = found[0].reshape(found[0].shape[0], -1)[rows]
    for row, values in enumerate(f):
        terms = np.flatnonzero(mask[row])
        within = values[None, terms]
        expected = reduce_values(kind, within, None, run.check.k)
        mine = result[row][None, None]
        if REDUCTIONS[kind].is_position:
            if not np.isin(mine, terms).all():
                yield _verdict(run, kind, WRONG, message=f"row {rows[row]} has positions out of its ranges")
                return
            mine = np.searchsorted(terms, mine)
        verdict = _compare(run, kind, within[None], mine, expected[None], size_of_terms(kind, within, expected)[None])
        worst = max(worst, verdict, key=lambda found: (found.status != RIGHT, found.share))
    yield worst


def _some_rows(kept: int, terms: int, dim: int) -> Array:
    """Choose the rows that the oracle computes: the first, the last, and some between."""
    count = max(1, min(_MOST_ROWS, _MOST_ORACLE_NUMBERS // max(terms * dim, 1)))
    return np.unique(np.linspace(0, kept - 1, min(count, kept)).astype(np.int64)) if kept else np.arange(0)


def _compare(run: Run, kind: str, f: Array, result: Array, expected: Array, size: Array) -> Verdict:
    row = REDUCTIONS[kind]
    if row.is_position and run.check.data not in (INTEGERS, SPECIAL):
        return _compare_positions(run, kind, f, result, expected)
    if row.is_position or row.dtype:
        wrong = np.count_nonzero(result != expected)
        message = f"{wrong} of {expected.size} differ from the oracle, which must be met exactly" if wrong else ""
        return _verdict(run, kind, WRONG if wrong else RIGHT, message=message)
    many = _roundings_of_products if kind == "prod" else _roundings_of_sums
    return _compare_numbers(run, kind, result, expected, size, roundings=many(f.shape[-2]))


def _compare_positions(run: Run, kind: str, f: Array, result: Array, expected: Array) -> Verdict:
    """Judge positions by the values that they stand for: nearly equal ones may be exchanged by rounding."""
    terms, k = f.shape[-2], max(run.check.k, 1)
    if result.size and (result.min() < 0 or result.max() >= terms):
        return _verdict(run, kind, WRONG, message=f"positions {result.min()} to {result.max()}, of {terms} terms")
    if k > 1 and (np.diff(np.sort(result, axis=-1), axis=-1) == 0).any():
        return _verdict(run, kind, WRONG, message="a position stands twice in a row")
    values, best = (
        np.take_along_axis(f[..., 0], positions.astype(np.int64), axis=-1) for positions in (result, expected)
    )
    return _compare_numbers(run, kind, values, best, np.maximum(np.abs(best), 1.0), roundings=_roundings_of_sums(1))


def _roundings_of_sums(terms: int) -> float:
    """Errors of the terms, which compensate each other in part, and of adding them in blocks (Higham, 4.2)."""
    return 20 + math.sqrt(terms)


def _roundings_of_products(terms: int) -> float:
    """Errors of what each term may change by ten roundings: products, and sums that cancel."""
    return 10 * (2 + math.sqrt(terms))


def _compare_numbers(run: Run, what: str, result: Array, expected: Array, size: Array, *, roundings: float) -> Verdict:
    finite = np.isfinite(expected)
    if result.shape != expected.shape:
        return _verdict(run, what, WRONG, message=f"shape {result.shape}, expected {expected.shape}")
    special, expected_special = (np.where(np.isfinite(array), 0.0, array) for array in (result, expected))
    if not np.array_equal(special, expected_special, equal_nan=True):
        return _verdict(run, what, WRONG, message="infinities or NaN are not where the oracle has them")
    epsilon = _EPSILON[run.dtype]
    arithmetic = _EPSILON["float32"] if run.dtype in HALF_DTYPES else epsilon
    allowed = arithmetic * roundings * size + epsilon * np.abs(np.where(finite, expected, 0))
    error = np.abs(np.where(finite, result, 0.0) - np.where(finite, expected, 0.0)) / np.maximum(allowed, 1e-300)
    share = float(error.max(initial=0.0))
    wrong = share > 1
    message = f"the error is {share:.3g} times what is allowed" if wrong else ""
    return _verdict(run, what, WRONG if wrong else RIGHT, share=share, message=message)


# Gradients ------------------------------------------------------------------------------------------------------------


def _judge_gradients(
    run: Run, function: Callable[..., Any], arrays: Any, placed: Sequence[Any], host: Sequence[Array]
) -> Iterator[Verdict]:
    cotangent = np.random.default_rng(11).standard_normal(arrays.get(function(*placed)).shape)
    tensor = arrays.put(cotangent, run.dtype)
    found = arrays.gradients(function, placed, tensor)
    rounded = arrays.get(tensor).astype(np.float64)
    roundings = _roundings_of_products(max(run.shape.rows, run.shape.columns))
    for number, (variable, gradient) in enumerate(zip(run.check.variables, found, strict=True)):
        result = np.atleast_2d(arrays.get(gradient).astype(np.float64))
        rows = np.unique(np.linspace(0, result.shape[-2] - 1, _GRADIENT_ROWS).astype(np.int64))
        expected = gradient_rows(run.check, host, rounded, variable=number, rows=rows.tolist())
        size = np.maximum(np.abs(expected).max(initial=0.0), 1.0)
        what = f"gradient of {variable.name}"
        yield _compare_numbers(
            run, what, result[..., rows, :], expected, np.full(expected.shape, size), roundings=roundings
        )
