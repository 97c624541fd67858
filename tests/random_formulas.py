"""Random formulas, each made of a seed; run with a seed, this module checks that one and prints it."""

from __future__ import annotations

import argparse
import random
import sys

import numpy as np

from pylazy import LazyTensor, Pm, Vi, Vj
from reference import evaluate_dense, reduce_dense, tolerance

KINDS = ("sum", "mean", "var", "max", "min", "logsumexp", "argmin", "argKmin")
REPLAY = "PYTHONPATH=tests python tests/random_formulas.py"

# Functions that keep values of moderate size moderate, and change by about as much as their argument does: the error
# of a deep formula then stays near that of its operations, and a comparison needs no condition number.
SMOOTH = (LazyTensor.sin, LazyTensor.cos, LazyTensor.tanh, lambda x: (-x.square()).exp(), lambda x: -x)
KINKED = (LazyTensor.abs, LazyTensor.relu, lambda x: x.clamp(-1, 0.75), lambda x: (x.square() + 1).log())
POSITIVE = (
    lambda x: (x.square() + 1).sqrt(),
    lambda x: (x.square() + 1).rsqrt(),
    lambda x: 1 / (x.square() + 2),
    lambda x: (x.square() + 1) ** 0.75,
    lambda x: 2 ** x.sin(),
)
BINARY = (
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    LazyTensor.minimum,
    LazyTensor.maximum,
    lambda x, y: x / (y.square() + 1),
)
VECTORS = (
    lambda x: x.sum(-1) / x.ndim,
    lambda x: x.max(),
    lambda x: x.min(),
    lambda x: x.norm2() / x.ndim,
    lambda x: x.sqnorm2() / x.ndim,
    lambda x: x[x.ndim - 1],
    lambda x: x[: (x.ndim + 1) // 2],
    lambda x: x.prod(),
    lambda x: x.var(),
    lambda x: x[0].sin().sumT(3),
)
TENSORS = (
    lambda x, y: x.tensorprod(y),
    lambda x, y: x.tensorprod(y).matvecmult(y) / y.ndim,
    lambda x, y: x.vecmatmult(x.tensorprod(y)) / x.ndim,
    lambda x, y: x.keops_kron(y, (1, x.ndim), (y.ndim, 1)),
    lambda x, y: x.keops_tensordot(y, (x.ndim, 1), (1, y.ndim), (1,), (0,), (1, 0)),
    lambda x, y: x.difference_matrix(y),
)


def random_formula(choose: random.Random) -> LazyTensor:
    """A formula of two to five operations, each on the last value or on rows, columns, parameters and numbers.

    One in eight has no columns, one in eight no rows, one in thirty neither.
    """
    rng = np.random.default_rng(choose.getrandbits(32))
    rows, columns, dim = choose.randint(1, 9), choose.randint(1, 40), choose.choice([1, 2, 3, 5])
    dtype = choose.choice([np.float32, np.float64])
    batch = choose.choice([(), (), (2,), (3, 1)])

    def array(*shape):
        return rng.uniform(-1, 1, shape).astype(dtype)

    of_rows = [LazyTensor(array(*batch, rows, 1, dim)) + 0.0, Vi(np.asfortranarray(array(rows, dim)))]
    of_columns = [LazyTensor(array(1, columns, dim)) * 1, Vj(array(columns, 2 * dim)[:, ::2])]
    of_neither = [Pm(array(dim)), LazyTensor(choose.uniform(-1, 1))]
    axes = choose.choices(["ij", "i", "j", ""], weights=[22, 4, 4, 1])[0]
    pool = [*(of_rows if "i" in axes else ()), *(of_columns if "j" in axes else ()), *of_neither]
    last = _combine(LazyTensor.__sub__, pool[0], pool[len(pool) // 2])
    for _ in range(choose.randint(2, 5)):
        other = choose.choice(pool)
        match choose.randint(0, 6):
            case 0 | 1 | 2:
                made = choose.choice((*SMOOTH, *KINKED, *POSITIVE))(last)
            case 3:
                made = _combine(choose.choice(BINARY), *choose.sample([last, other], 2))
            case 4 if last.ndim > 1:
                made = choose.choice(VECTORS)(last)
            case 5 if last.ndim * other.ndim <= 30:
                made = choose.choice(TENSORS)(*choose.sample([last, other], 2))
            case _:
                made = (
                    last.concat(other) if last.ndim + other.ndim <= 8 else _combine(LazyTensor.sqdist, last, other) / 8
                )
        pool.append(last)
        last = made
    return last


def check_random_formula(seed: int) -> None:
    """Reduce the formula of a seed, and compare with the oracle."""
    choose = random.Random(seed)
    formula = random_formula(choose)
    axis, kind = choose.choice(["i", "j"]), choose.choice(KINDS)
    if kind == "logsumexp" and formula.ndim > 1:
        formula = formula.sum(-1)
    dense = np.broadcast_to(evaluate_dense(formula), formula._shape)
    number = formula.nbatchdims + (axis == "j")
    terms = dense.shape[number]
    # Some operations on values near 1, each of which may round, and is seen through functions of slope about 2.
    error = tolerance(formula.dtype or np.float64, terms, operations=500)
    if kind == "argmin":
        positions = formula.argmin(axis=number)
        _check_positions(dense, positions[..., None], number, error)
    elif kind == "argKmin":
        k = min(2, terms)
        positions = formula.argKmin(k, axis=number)
        positions = positions[..., None] if formula.ndim == 1 else positions
        _check_positions(dense, np.moveaxis(positions, -2, -1), number, error)
    else:
        found = getattr(formula, kind)(axis=number)
        expected = reduce_dense(kind, [dense], axis=axis)
        assert found.dtype == (formula.dtype or np.float64)
        assert found.shape == expected.shape
        scale = np.abs(dense).sum(number) if kind == "sum" else 1.0
        assert np.all(np.abs(found - expected) <= error * np.maximum(np.maximum(np.abs(expected), scale), 1.0))


def _check_positions(dense, positions, number, error):
    """The values at the positions are the smallest, as far as rounding lets one tell; positions are (..., D, k)."""
    along = np.moveaxis(dense, number, -1)
    chosen = np.take_along_axis(along, positions, axis=-1)
    smallest = np.sort(along, axis=-1)[..., : positions.shape[-1]]
    assert np.all(np.abs(chosen - smallest) <= 2 * error * 8)
    ordered = np.sort(positions, axis=-1)
    assert np.all(ordered[..., 1:] != ordered[..., :-1])


def _combine(operation, x, y):
    dim = min(x.ndim, y.ndim)
    if x.ndim != y.ndim and dim != 1:
        x, y = x[:dim], y[:dim]
    return operation(x, y)


def main() -> None:
    """Check the formulas of the seeds on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("seeds", type=int, nargs="+")
    for seed in parser.parse_args().seeds:
        formula = random_formula(random.Random(seed))
        text = formula.sum(axis=formula.nbatchdims, call=False).as_text("expression")
        sys.stdout.write(f"seed {seed}: {formula}\n{text}")
        check_random_formula(seed)


if __name__ == "__main__":
    main()
