"""Complex LazyTensors: every operation against dense NumPy arrays of complex128."""

# ruff: noqa: N806  a kernel matrix is called K

from __future__ import annotations

import copy
import math
import operator
import pickle

import numpy as np
import pytest

from pylazy import (
    ComplexLazyTensor,
    DtypeError,
    Genred,
    LazyTensor,
    Pm,
    Reduction,
    ShapeError,
    UnsupportedError,
    Vi,
    Vj,
)

torch = pytest.importorskip("torch")

M, N, D = 7, 5, 3
WIDER_THAN_A_TILE = 300
PRECISIONS = ["complex64", "complex128"]


def rounding(dtype):
    return np.finfo(dtype).eps


def assert_close(found, expected, *, dtype="complex128", scale=None, factor=32):
    """Compare up to rounding, relative to the largest number."""
    expected = np.asarray(expected)
    assert found.dtype == np.result_type(dtype, expected.dtype) if expected.dtype.kind == "c" else True
    assert found.shape == expected.shape
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0) if scale is None else scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=factor * rounding(dtype) * max(largest, 1e-30))


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(11)


def numbers(rng, *shape, dtype="complex128"):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


@pytest.fixture(name="x")
def make_x(rng):
    return numbers(rng, M, D)


@pytest.fixture(name="y")
def make_y(rng):
    return numbers(rng, N, D)


def evaluate(formulas):
    """Compute several formulas in rows alone, in one kernel, and take the results apart."""
    joined = LazyTensor.cat(formulas)
    result = joined.sum(axis=1)
    ends = np.cumsum([formula.ndim for formula in formulas])[:-1]
    return np.split(result, ends, axis=-1)


# Functions ------------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "neg": (operator.neg, operator.neg),
    "conj": (lambda z: z.conj(), np.conj),
    "exp": (lambda z: z.exp(), np.exp),
    "exp2": (lambda z: z.exp2(), np.exp2),
    "expm1": (lambda z: z.expm1(), np.expm1),
    "log": (lambda z: z.log(), np.log),
    "log2": (lambda z: z.log2(), np.log2),
    "log1p": (lambda z: z.log1p(), np.log1p),
    "sqrt": (lambda z: z.sqrt(), np.sqrt),
    "power 0.5": (lambda z: z**0.5, np.sqrt),
    "rsqrt": (lambda z: z.rsqrt(), lambda z: 1 / np.sqrt(z)),
    "square": (lambda z: z.square(), np.square),
    "reciprocal": (lambda z: z.reciprocal(), np.reciprocal),
    "power 0": (lambda z: z**0, lambda z: z**0),
    "power 2": (lambda z: z**2, lambda z: z**2),
    "power 7": (lambda z: z**7.0, lambda z: z**7),
    "power -3": (lambda z: z**-3, lambda z: z**-3),
    "power 2.5": (lambda z: z**2.5, lambda z: z**2.5),
    "power complex": (lambda z: z ** (1 - 2j), lambda z: z ** (1 - 2j)),
    "power of 2": (lambda z: 2**z, lambda z: 2**z),
    "power of itself": (lambda z: z**z, lambda z: z**z),
    "sin": (lambda z: z.sin(), np.sin),
    "cos": (lambda z: z.cos(), np.cos),
    "tan": (lambda z: z.tan(), np.tan),
    "asin": (lambda z: z.asin(), np.arcsin),
    "acos": (lambda z: z.acos(), np.arccos),
    "atan": (lambda z: z.atan(), np.arctan),
    "sinh": (lambda z: z.sinh(), np.sinh),
    "cosh": (lambda z: z.cosh(), np.cosh),
    "tanh": (lambda z: z.tanh(), np.tanh),
    "sinc": (lambda z: z.sinc(), np.sinc),
    "sign": (lambda z: z.sign(), lambda z: z / np.abs(z)),
}


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_functions_are_those_of_numpy(rng, dtype):
    z = numbers(rng, WIDER_THAN_A_TILE, 2, dtype=dtype)
    rows = Vi(z)
    found = evaluate([ours(rows) for ours, _ in FUNCTIONS.values()])
    exact = z.astype("complex128")
    for (name, (_, theirs)), result in zip(FUNCTIONS.items(), found, strict=True):
        assert result.dtype == dtype
        expected = theirs(exact)
        # Relative to each number: what is ill-conditioned has few digits to lose at points of size 1.
        error = np.abs(result - expected) / np.maximum(np.abs(expected), 0.1)
        assert error.max() < 300 * rounding(dtype), (name, error.max(), z.ravel()[error.argmax()])
