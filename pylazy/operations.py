"""The table of formula operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pylazy.runtime.errors import ShapeError

ShapeRule = Callable[[str, tuple[int, ...], Mapping[str, Any]], int]
"""From the operation's name, the inner dimensions of its operands and its attributes to its own inner dimension."""


class Operation(NamedTuple):
    """One row of the table.

    Attributes:
        name: the key of the row; `reduction.<name>` at level 1 of the dialect, and the name of the oracle in the tests.
        arity: number of operands, 0 for a leaf.
        shape: the rule that gives the inner dimension, or says why there is none.
        meaning: what the operation computes, in one line.
        attributes: names of the static integers, or tuples of integers, that are part of the formula.
    """

    name: str
    arity: int
    shape: ShapeRule
    meaning: str
    attributes: tuple[str, ...] = ()


def elementwise_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Broadcast the inner dimensions: all equal, or 1."""
    del attributes
    dim = max(dims)
    for operand in dims:
        if operand not in (dim, 1):
            found = ", ".join(map(str, dims))
            raise ShapeError(
                f"{name} was given inner dimensions {found}: they must be equal, or 1, which broadcasts; "
                "select or concatenate components to make them agree"
            )
    return dim


def inner_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Reduce the broadcast inner dimension to 1."""
    elementwise_dim(name, dims, attributes)
    return 1


def concatenated_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Add the inner dimensions."""
    del name, attributes
    return sum(dims)


def extracted_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Check that the extracted components exist, and count them."""
    start: int = attributes["start"]
    size: int = attributes["size"]
    if size < 1 or start < 0 or start + size > dims[0]:
        raise ShapeError(
            f"{name} asks for components {start} to {start + size - 1} ({size} of them) of a vector of inner dimension "
            f"{dims[0]}: the components are 0 to {dims[0] - 1}, and at least one must be taken"
        )
    return size


def broadcast_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Check that one component becomes at least one."""
    size: int = attributes["size"]
    if dims[0] != 1 or size < 1:
        raise ShapeError(
            f"{name} makes {size} components of {dims[0]}, expected at least one of a vector of inner dimension 1"
        )
    return size


def contracted_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Check that the operands have as many components as their labels say, and count those of the result."""
    sizes = attributes["sizes"]
    for operand, dim in zip(("left", "right"), dims, strict=True):
        shape = tuple(sizes[label] for label in attributes[operand])
        if math.prod(shape) != dim:
            raise ShapeError(
                f"{name} reads a vector of inner dimension {dim} as a tensor of shape {shape}, expected "
                f"{math.prod(shape)} components"
            )
    result: int = math.prod(sizes[label] for label in attributes["kept"])
    return result


def soft_dtw_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Check that gamma is a number; the series have any lengths."""
    del attributes
    if dims[2] != 1:
        raise ShapeError(f"{name} was given a gamma of inner dimension {dims[2]}, expected 1")
    return 1


def soft_dtw_derivative_dim(name: str, dims: tuple[int, ...], attributes: Mapping[str, Any]) -> int:
    """Check that gamma is a number, and that a vector to multiply with has the components of x, y and gamma."""
    soft_dtw_dim(name, dims, attributes)
    total = sum(dims[:3])
    if any(dim != total for dim in dims[3:]):
        raise ShapeError(f"{name} was given a vector of inner dimension {dims[3]}, expected {total}")
    return total


def _table(*rows: Operation) -> Mapping[str, Operation]:
    return MappingProxyType({row.name: row for row in rows})


def _unary(name: str, meaning: str) -> Operation:
    return Operation(name, 1, elementwise_dim, meaning)


def _binary(name: str, meaning: str) -> Operation:
    return Operation(name, 2, elementwise_dim, meaning)


def _ternary(name: str, meaning: str) -> Operation:
    return Operation(name, 3, elementwise_dim, meaning)


def _inner(name: str, meaning: str, *, arity: int = 1) -> Operation:
    return Operation(name, arity, inner_dim, meaning)


OPERATIONS: Mapping[str, Operation] = _table(
    _unary("neg", "-x"),
    _unary("abs", "absolute value"),
    _unary("exp", "exponential"),
    _unary("log", "natural logarithm; log(0) = -inf"),
    _unary("sqrt", "square root; its derivative is taken as 0 at 0"),
    _unary("rsqrt", "1 / sqrt(x); rsqrt(0) = 0"),
    _unary("square", "x * x"),
    _unary("reciprocal", "1 / x"),
    _unary("sin", "sine of radians"),
    _unary("cos", "cosine of radians"),
    _unary("tan", "tangent of radians"),
    _unary("asin", "arc sine in radians"),
    _unary("acos", "arc cosine in radians"),
    _unary("atan", "arc tangent in radians"),
    _unary("sinh", "hyperbolic sine"),
    _unary("cosh", "hyperbolic cosine"),
    _unary("tanh", "hyperbolic tangent"),
    _unary("exp2", "2 ** x"),
    _unary("log2", "logarithm to base 2"),
    _unary("log1p", "log(1 + x)"),
    _unary("expm1", "exp(x) - 1"),
    _unary("cbrt", "real cube root"),
    _unary("erf", "error function"),
    _unary("erfc", "1 - erf(x)"),
    _unary("sigmoid", "1 / (1 + exp(-x))"),
    _unary("softplus", "log(1 + exp(x))"),
    _unary("relu", "x where x >= 0, else 0; its derivative is taken as 1 at 0"),
    _unary("step", "0 where x < 0, else 1"),
    _unary("sign", "-1, 0 or 1"),
    _unary("floor", "largest integer not above x"),
    _unary("ceil", "smallest integer not below x"),
    _unary("trunc", "integer part of x"),
    _unary("round", "nearest integer, halves away from zero"),
    _unary("xlogx", "x * log(x); 0 at 0"),
    _unary("sinxdivx", "sin(x) / x; 1 at 0"),
    _unary("isnan", "1 where x is NaN, else 0"),
    _unary("logical_not", "1 where x == 0, else 0"),
    Operation("powi", 1, elementwise_dim, "x to a static integer power; x ** 0 = 1", ("exponent",)),
    _binary("add", "x + y"),
    _binary("sub", "x - y"),
    _binary("mul", "x * y"),
    _binary("div", "x / y"),
    _binary("pow", "x ** y as in C"),
    _binary("atan2", "angle of the point (y, x) in radians, operands in this order"),
    _binary("minimum", "the smaller; NaN if either is NaN"),
    _binary("maximum", "the larger; NaN if either is NaN"),
    _binary("hypot", "sqrt(x * x + y * y) without overflow"),
    _binary("eq", "1 where x == y, else 0"),
    _binary("ne", "1 where x != y, else 0"),
    _binary("lt", "1 where x < y, else 0"),
    _binary("le", "1 where x <= y, else 0"),
    _binary("gt", "1 where x > y, else 0"),
    _binary("ge", "1 where x >= y, else 0"),
    _binary("logical_and", "1 where x and y are both nonzero, else 0"),
    _binary("logical_or", "1 where x or y is nonzero, else 0"),
    _binary("mod0", "x - m * floor(x / m)"),
    _ternary("where", "the second operand where the first is nonzero, else the third"),
    _ternary("ifelse", "the second operand where the first is >= 0, else the third"),
    _ternary("clamp", "x limited to [low, high]; NaN stays NaN"),
    _inner("inner_sum", "sum of the components"),
    _inner("inner_prod", "product of the components"),
    _inner("inner_min", "smallest component; NaN if any is NaN"),
    _inner("inner_max", "largest component; NaN if any is NaN"),
    _inner("inner_argmin", "position of the smallest component, of the first NaN if any, lowest on ties"),
    _inner("inner_argmax", "position of the largest component, of the first NaN if any, lowest on ties"),
    _inner("sqnorm2", "sum of the squares of the components"),
    _inner("norm2", "Euclidean norm; its derivative is taken as 0 at 0"),
    Operation("normalize", 1, elementwise_dim, "x / norm2(x); the zero vector stays the zero vector"),
    _inner("dot", "sum of the products of the components", arity=2),
    _inner("sqdist", "sum of the squared differences of the components", arity=2),
    Operation("concat", 2, concatenated_dim, "the components of x, then those of y"),
    Operation("extract", 1, extracted_dim, "components start to start + size - 1", ("start", "size")),
    Operation("broadcast", 1, broadcast_dim, "the one component, size times", ("size",)),
    Operation("one_hot", 1, broadcast_dim, "1 at the position that x rounds to, else 0, of size components", ("size",)),
    Operation(
        "contract",
        2,
        contracted_dim,
        "sum of products of two tensors by rows, whose axes have labels; summed over labels that are not kept",
        ("sizes", "left", "right", "kept"),
    ),
    Operation(
        "soft_dtw", 3, soft_dtw_dim, "soft dynamic time warping of x and y with squared distances, softened by z"
    ),
    Operation(
        "soft_dtw_gradient", 3, soft_dtw_derivative_dim, "derivative of soft_dtw by x, y and z, joined to one vector"
    ),
    Operation(
        "soft_dtw_hessian", 4, soft_dtw_derivative_dim, "second derivative of soft_dtw by x, y and z times a vector"
    ),
)
"""Every operation of a formula but its leaves; a row here and a method of LazyTensor make one visible."""
