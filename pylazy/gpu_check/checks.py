"""The table of what is checked on a GPU: formulas, reductions, dtypes, shapes.

A formula is written once, over `Functions`: those of LazyTensor make what is compiled, those of NumPy the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Formula = Callable[..., Any]
BOTH = ("float32", "float64")
NORMAL, INTEGERS, SPECIAL = "normal", "integers", "special"


@dataclass(frozen=True)
class Functions:
    """What formulas are written with, besides operators; values are vectors of components."""

    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    sqrt: Callable[[Any], Any]
    rsqrt: Callable[[Any], Any]
    sin: Callable[[Any], Any]
    cos: Callable[[Any], Any]
    tanh: Callable[[Any], Any]
    atan: Callable[[Any], Any]
    sigmoid: Callable[[Any], Any]
    total: Callable[[Any], Any]

    def sqdist(self, x: Any, y: Any) -> Any:
        """The squared distance, one component."""
        return self.total((x - y) ** 2)


LAZY = Functions(
    exp=lambda v: v.exp(),
    log=lambda v: v.log(),
    sqrt=lambda v: v.sqrt(),
    rsqrt=lambda v: v.rsqrt(),
    sin=lambda v: v.sin(),
    cos=lambda v: v.cos(),
    tanh=lambda v: v.tanh(),
    atan=lambda v: v.atan(),
    sigmoid=lambda v: v.sigmoid(),
    total=lambda v: v.sum(-1),
)
DENSE = Functions(
    exp=np.exp,
    log=np.log,
    sqrt=np.sqrt,
    rsqrt=lambda v: 1 / np.sqrt(v),
    sin=np.sin,
    cos=np.cos,
    tanh=np.tanh,
    atan=np.arctan,
    sigmoid=lambda v: 1 / (1 + np.exp(-v)),
    total=lambda v: v.sum(-1, keepdims=True),
)


@dataclass(frozen=True)
class Variable:
    """An array that a formula reads: its name, its axis ("i", "j" or "") and its components."""

    name: str
    axis: str
    dim: int


@dataclass(frozen=True)
class Check:
    """One reduction of one formula.

    Attributes:
        name: for the report, and of the function in a bundle with the dtype behind it.
        variables: in the order of a call.
        formula: of `Functions` and the variables.
        method: a row of `METHODS`.
        axis: the axis that is reduced.
        k: how many are kept.
        weight: a second formula, where the reduction has one.
        dtypes: of the arithmetic.
        data: what the variables hold: normal numbers, small integers (many ties, exact distances), or normal numbers
            with a NaN and infinities among them.
        gradients: check gradients too.
        quick: is part of the quick run.
    """

    name: str
    variables: tuple[Variable, ...]
    formula: Formula
    method: str = "sum"
    axis: str = "j"
    k: int = 0
    weight: Formula | None = None
    dtypes: tuple[str, ...] = BOTH
    data: str = NORMAL
    gradients: bool = False
    quick: bool = False


@dataclass(frozen=True)
class Method:
    """How a reduction is asked for.

    Attributes:
        kinds: the rows of `pylazy.reductions.REDUCTIONS` that it gives, in order.
        reduce: from the LazyTensor, the weight (or None), k and the axis to the result.
    """

    kinds: tuple[str, ...]
    reduce: Callable[[Any, Any, int, int], Any]


METHODS: Mapping[str, Method] = {
    "sum": Method(("sum",), lambda f, g, k, axis: f.sum(axis=axis)),
    "mean": Method(("mean",), lambda f, g, k, axis: f.mean(axis=axis)),
    "prod": Method(("prod",), lambda f, g, k, axis: f.prod(axis=axis)),
    "logsumexp": Method(("logsumexp",), lambda f, g, k, axis: f.logsumexp(axis, weight=g)),
    "softmax": Method(("softmax",), lambda f, g, k, axis: f.sumsoftmaxweight(g, axis=axis)),
    "min": Method(("min",), lambda f, g, k, axis: f.min(axis=axis)),
    "max": Method(("max",), lambda f, g, k, axis: f.max(axis=axis)),
    "argmin": Method(("argmin",), lambda f, g, k, axis: f.argmin(axis=axis)),
    "argmax": Method(("argmax",), lambda f, g, k, axis: f.argmax(axis=axis)),
    "min_argmin": Method(("min", "argmin"), lambda f, g, k, axis: f.min_argmin(axis=axis)),
    "max_argmax": Method(("max", "argmax"), lambda f, g, k, axis: f.max_argmax(axis=axis)),
    "any": Method(("any",), lambda f, g, k, axis: f.any(axis=axis)),
    "all": Method(("all",), lambda f, g, k, axis: f.all(axis=axis)),
    "count": Method(("count",), lambda f, g, k, axis: f.count(axis=axis)),
    "Kmin": Method(("kmin",), lambda f, g, k, axis: f.Kmin(k, axis=axis)),
    "argKmin": Method(("argkmin",), lambda f, g, k, axis: f.argKmin(k, axis=axis)),
    "Kmin_argKmin": Method(("kmin", "argkmin"), lambda f, g, k, axis: f.Kmin_argKmin(k, axis=axis)),
    "KMax": Method(("kmax",), lambda f, g, k, axis: f.KMax(k, axis=axis)),
    "argKmax": Method(("argkmax",), lambda f, g, k, axis: f.argKmax(k, axis=axis)),
    "KMax_argKmax": Method(("kmax", "argkmax"), lambda f, g, k, axis: f.KMax_argKmax(k, axis=axis)),
}


def _points(dim: int = 3, weights: int = 1) -> tuple[Variable, ...]:
    return (Variable("x", "i", dim), Variable("y", "j", dim), Variable("b", "j", weights))


_PAIR = _points()[:2]


def _gaussian(f: Functions, x: Any, y: Any, b: Any) -> Any:
    return f.exp(-f.sqdist(x, y)) * b


def _minus_distance(f: Functions, x: Any, y: Any, *_: Any) -> Any:
    return -f.sqdist(x, y)


def _distance(f: Functions, x: Any, y: Any) -> Any:
    return f.sqdist(x, y)


def _near(f: Functions, x: Any, y: Any) -> Any:
    return f.sqdist(x, y) < 2.5


def _positive_weight(f: Functions, x: Any, y: Any, b: Any) -> Any:
    return b**2 + 0.5


def _weight(f: Functions, x: Any, y: Any, b: Any) -> Any:
    return b


def _chosen(kind: str, method: str, *, k: int = 0, **more: Any) -> Check:
    return Check(kind, _PAIR, _distance, method, k=k, **more)


CHECKS = (
    # Sums, over inner dimensions of every schedule
    *(Check(f"gaussian_d{dim}_e1", _points(dim), _gaussian) for dim in (1, 2, 10, 64, 300)),
    Check("gaussian_d3_e1", _points(), _gaussian, gradients=True, quick=True),
    Check("gaussian_d3_e3", _points(3, 3), _gaussian, gradients=True),
    Check("gaussian_d3_e64", _points(3, 64), _gaussian),
    Check("gaussian_d64_e64", _points(64, 64), _gaussian, dtypes=("float32",)),
    Check("gaussian_over_i", (*_PAIR, Variable("b", "i", 2)), _gaussian, axis="i", gradients=True, quick=True),
    Check("laplacian", _points(), lambda f, x, y, b: f.exp(-f.sqrt(f.sqdist(x, y))) * b, gradients=True),
    Check("inverse_multiquadric", _points(), lambda f, x, y, b: f.rsqrt(1 + f.sqdist(x, y)) * b, gradients=True),
    Check(
        "with_parameter",
        (*_points(), Variable("p", "", 1)),
        lambda f, x, y, b, p: f.exp(-f.sqdist(x, y) * (0.5 + p * p)) * b,
        gradients=True,
    ),
    Check("dot_of_long", _points(700), lambda f, x, y, b: f.total(x * y) * b),
    Check(
        "functions",
        _points(),
        lambda f, x, y, b: f.tanh(f.sin(x) * f.cos(y)) + f.atan(x - y) * f.sigmoid(y) + f.log(1.5 + f.sqdist(x, y)) * b,
        gradients=True,
    ),
    # Every reduction
    Check("mean", _points(), _gaussian, "mean"),
    Check("prod", _points(), lambda f, x, y, b: 1 + 0.05 * f.sin(f.sqdist(x, y)) * b, "prod"),
    Check("logsumexp", _PAIR, _minus_distance, "logsumexp", gradients=True, quick=True),
    Check("logsumexp_weighted", _points(3, 2), _minus_distance, "logsumexp", weight=_positive_weight, gradients=True),
    Check("logsumexp_over_i", _PAIR, _minus_distance, "logsumexp", axis="i"),
    Check("logsumexp_special", _PAIR, _minus_distance, "logsumexp", data=SPECIAL),
    Check("softmax", _points(3, 3), _minus_distance, "softmax", weight=_weight, gradients=True),
    _chosen("min", "min"),
    _chosen("max", "max"),
    _chosen("min_special", "min", data=SPECIAL),
    _chosen("max_over_i", "max", axis="i"),
    _chosen("argmin", "argmin", quick=True),
    _chosen("argmax", "argmax"),
    _chosen("argmin_ties", "argmin", data=INTEGERS),
    _chosen("argmax_ties", "argmax", data=INTEGERS),
    _chosen("argmin_special", "argmin", data=SPECIAL),
    _chosen("min_argmin", "min_argmin"),
    _chosen("max_argmax", "max_argmax"),
    Check("any", _PAIR, _near, "any", data=INTEGERS),
    Check("all", _PAIR, _near, "all", data=INTEGERS),
    Check("count", _PAIR, _near, "count", data=INTEGERS),
    _chosen("kmin", "Kmin", k=5),
    _chosen("kmax", "KMax", k=3),
    _chosen("argkmin_10", "argKmin", k=10, quick=True),
    _chosen("argkmin_100", "argKmin", k=100, dtypes=("float32",)),
    _chosen("argkmin_ties", "argKmin", k=7, data=INTEGERS),
    _chosen("argkmin_over_i", "argKmin", k=4, axis="i"),
    _chosen("argkmax", "argKmax", k=4),
    _chosen("kmin_argkmin", "Kmin_argKmin", k=4),
    _chosen("kmax_argkmax", "KMax_argKmax", k=4),
)


@dataclass(frozen=True)
class Shape:
    """Sizes of one run: batch dimensions, rows, columns; with gradients only where `gradients`."""

    rows: int
    columns: int
    batch: tuple[int, ...] = ()
    gradients: bool = False

    def __str__(self) -> str:
        return " x ".join(map(str, (*self.batch, self.rows, self.columns)))


SHAPES = (
    Shape(1, 1, gradients=True),
    Shape(7, 5, gradients=True),
    Shape(0, 5),
    Shape(5, 0),
    Shape(129, 127, gradients=True),
    Shape(300, 1000),
    Shape(1025, 300),
    Shape(1, 5000),
    Shape(3, 20_001),
    Shape(5000, 1),
    Shape(50_000, 3001),
    Shape(17, 33, batch=(3,), gradients=True),
    Shape(130, 65, batch=(2, 2)),
)
QUICK_SHAPES = (Shape(7, 12, gradients=True), Shape(9, 150), Shape(0, 12))
HALF_DTYPES = ("float16", "bfloat16")
HALF_CHECKS = ("gaussian_d3_e1", "gaussian_over_i", "logsumexp", "min", "kmin")
"""Checks of float32 that are run on arrays of 16-bit floats too, where a library has them."""
RANGES_CHECKS = ("gaussian_d3_e1", "gaussian_over_i", "logsumexp", "argmin", "argkmin_10")
"""Checks that are run over ranges too."""
