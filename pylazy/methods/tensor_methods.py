"""Methods of LazyTensor that see the components of a vector as a tensor by rows."""

# ruff: noqa: N802, N803  these names are pykeops' own, and programs use them

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from pylazy.lazy_formula import read_index, unary
from pylazy.methods.operands import combine, operand
from pylazy.methods.vector_methods import VectorMethods
from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from pylazy.expression import Attributes


class TensorMethods(VectorMethods):
    """What a LazyTensor can do with matrices and tensors whose elements are its components, the last axis fastest."""

    __slots__ = ()

    def matvecmult(self, b: Any) -> Self:
        """Multiply a matrix with a vector: (..., n * p) and (..., p) give (..., n).

        Raises:
            ShapeError: the number of components of the matrix is no multiple of that of the vector.
        """
        matrix, vector = _pair(self, b)
        n, p = _matrix_shape("matvecmult", matrix.ndim, vector.ndim)
        return _contract("matvecmult", matrix, vector, sizes=(n, p), left=(0, 1), right=(1,), kept=(0,))

    def vecmatmult(self, A: Any) -> Self:
        """Multiply a vector with a matrix from the right: (..., n) and (..., n * p) give (..., p).

        Raises:
            ShapeError: the number of components of the matrix is no multiple of that of the vector.
        """
        vector, matrix = _pair(self, A)
        p, n = _matrix_shape("vecmatmult", matrix.ndim, vector.ndim)
        return _contract("vecmatmult", vector, matrix, sizes=(n, p), left=(0,), right=(0, 1), kept=(1,))

    def tensorprod(self, b: Any) -> Self:
        """Products of all components with all of `b`: (..., n) and (..., p) give (..., n * p), by rows."""
        first, second = _pair(self, b)
        sizes = (first.ndim, second.ndim)
        return _contract("tensorprod", first, second, sizes=sizes, left=(0,), right=(1,), kept=(0, 1))

    def keops_tensordot(self, other: Any, dimfa: Any, dimfb: Any, contfa: Any, contfb: Any, perm: Any = None) -> Self:
        """Sum products of two tensors over pairs of axes, as numpy.tensordot.

        Args:
            other: the second tensor.
            dimfa: shape of the first tensor, whose components are its elements by rows.
            dimfb: shape of the second.
            contfa: axes of the first to sum over.
            contfb: axes of the second to sum over, in the same order and of the same sizes.
            perm: where each axis of the result goes; without it the kept axes of the first come before those of the
                second.

        Returns:
            The kept axes, flattened by rows.

        Raises:
            ShapeError: the shapes do not fit the operands or each other, or an axis does not exist.
        """
        first, second = _pair(self, other)
        shapes = _integers(dimfa, "dimfa"), _integers(dimfb, "dimfb")
        summed = _integers(contfa, "contfa"), _integers(contfb, "contfb")
        _check_tensordot(shapes, summed)
        rank = len(shapes[0])
        labels = list(range(rank, rank + len(shapes[1])))
        for a, b in zip(*summed, strict=True):
            labels[b] = a
        # Labels are numbered without holes: those of the first, then the kept ones of the second.
        kept_right = [label for label in labels if label >= rank]
        numbers = {label: rank + position for position, label in enumerate(kept_right)}
        right = tuple(numbers.get(label, label) for label in labels)
        sizes = (*shapes[0], *(shapes[1][label - rank] for label in kept_right))
        kept = [label for label in range(rank) if label not in summed[0]] + list(numbers.values())
        return _contract(
            "keops_tensordot",
            first,
            second,
            sizes=sizes,
            left=tuple(range(rank)),
            right=right,
            kept=_permuted(kept, perm),
        )

    def keops_kron(self, other: Any, dimfself: Any, dimfother: Any) -> Self:
        """Kronecker product of two tensors of one rank, as numpy.kron, flattened by rows.

        Args:
            other: the second tensor.
            dimfself: shape (d0, d1, ...) of the first.
            dimfother: shape (e0, e1, ...) of the second.

        Returns:
            The elements of a tensor of shape (d0 * e0, d1 * e1, ...).
        """
        first, second = _integers(dimfself, "dimfself"), _integers(dimfother, "dimfother")
        if len(first) != len(second):
            raise ShapeError(
                at_user_line(f"keops_kron was given shapes {first} and {second}, expected two of one length")
            )
        rank = len(first)
        return self.keops_tensordot(other, first, second, (), (), (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)))

    def difference_matrix(self, other: Any) -> Self:
        """Differences of all components and all of `other`: (..., n) and (..., p) give (..., n * p), by rows."""
        first, second = _pair(self, other)
        one = operand(self.__class__, 1)
        return first.tensorprod(one.sumT(second.ndim)) - one.sumT(first.ndim).tensorprod(second)

    def weightedsqnorm(self, s: Any) -> Self:
        """Weighted squared norm: (..., D) gives (..., 1).

        Args:
            s: the weight: one number w for w * sum of x[k]**2; D numbers for the sum of w[k] * x[k]**2; or a matrix of
                D * D numbers by rows, for the sum of w[k, l] * x[k] * x[l].

        Raises:
            ShapeError: the weight has another number of components.
        """
        vector, weight = _pair(self, s)
        dim, size = vector.ndim, weight.ndim
        if size == 1:
            return weight * vector.sqnorm2()
        if size == dim:
            return weight.dot(vector.square())
        if size == dim * dim:
            return weight.matvecmult(vector).dot(vector)
        raise ShapeError(
            at_user_line(
                f"s has inner dimension {size}, expected 1, {dim} or {dim * dim} for a vector of dimension {dim}"
            )
        )

    def weightedsqdist(self, other: Any, s: Any) -> Self:
        """`(x - y).weightedsqnorm(s)`: (..., D) and (..., D) give (..., 1)."""
        first, second = _pair(self, other)
        return (first - second).weightedsqnorm(s)

    def one_hot(self, D: int) -> Self:
        """1 at the position that the value rounds to, else 0: (..., 1) gives (..., D).

        A position out of range, or NaN, gives the zero vector. The derivative is 0.

        Raises:
            ShapeError: there is more than one component, or D is less than 1.
        """
        return _sized("one_hot", self, D)

    def sumT(self, D: int) -> Self:
        """Repeat one component D times, which is the transpose of the sum of components: (..., 1) gives (..., D)."""
        return _sized("broadcast", self, D)

    def bspline(self, x: Any, k: int = 0) -> Self:
        """Values at x of the B-splines of degree k whose knots are the components: (..., K) gives (..., K - k - 1).

        By the recursion of Cox and de Boor (de Boor, A Practical Guide to Splines, 1978); splines live on half-open
        intervals, so that they are all 0 at the last knot. Differentiable in x and in the knots.

        Args:
            x: one component.
            k: the degree, at least 0; there must be k + 2 knots.

        Raises:
            ShapeError: x has more components, or there are too few knots.
        """
        knots, place = _pair(self, x)
        degree = read_index(k, "k, the degree of a spline,")
        count = knots.ndim
        if degree < 0 or count < degree + 2 or place.ndim != 1:
            raise ShapeError(
                at_user_line(
                    f"bspline of degree {degree} was given {count} knots and an x of inner dimension {place.ndim}, "
                    f"expected a degree of at least 0, {degree + 2} knots or more, and 1"
                )
            )

        def knot(first: int, last: int) -> Any:
            return knots.extract(first, last - first)

        splines: Self = (knot(0, count - 1) <= place).logical_and(place < knot(1, count))
        for p in range(1, degree + 1):
            # A spline without support is 0, so whatever it is multiplied with is of no matter as long as it is finite.
            width = knot(p, count) - knot(0, count - p)
            ratio = (place - knot(0, count - p)) / (width > 0).where(width, 1)
            rest = count - p - 1
            left = ratio.extract(0, rest) * splines.extract(0, rest)
            splines = left + (1 - ratio.extract(1, rest)) * splines.extract(1, rest)
        return splines


_T = TypeVar("_T", bound=TensorMethods)


def _pair(x: _T, y: Any) -> tuple[_T, _T]:
    return x, operand(x.__class__, y)


def _contract(
    name: str,
    first: _T,
    second: _T,
    *,
    sizes: tuple[int, ...],
    left: tuple[int, ...],
    right: tuple[int, ...],
    kept: tuple[int, ...],
) -> _T:
    for tensor, labels in ((first, left), (second, right)):
        shape = tuple(sizes[label] for label in labels)
        if math.prod(shape) != tensor.ndim:
            raise ShapeError(
                at_user_line(
                    f"{name} reads a vector of inner dimension {tensor.ndim} as a tensor of shape {shape}, expected "
                    f"{math.prod(shape)} components"
                )
            )
    attributes: Attributes = (("sizes", sizes), ("left", left), ("right", right), ("kept", kept))
    return combine("contract", first, second, attributes=attributes)


def _sized(op: str, x: _T, size: Any) -> _T:
    return unary(op, x, (("size", read_index(size, "D, the number of components,")),))


def _matrix_shape(name: str, size: int, known: int) -> tuple[int, int]:
    """Give the other side and the known side of a matrix."""
    if size % known:
        raise ShapeError(
            at_user_line(
                f"{name} was given a matrix of {size} components and a vector of {known}, expected a multiple "
                f"of {known}"
            )
        )
    return size // known, known


def _integers(values: Any, what: str) -> tuple[int, ...]:
    if hasattr(values, "__index__") and not getattr(values, "shape", ()):
        return (read_index(values, what),)
    return tuple(read_index(value, f"a number in {what}") for value in values)


def _check_tensordot(shapes: Sequence[tuple[int, ...]], summed: Sequence[tuple[int, ...]]) -> None:
    for shape, axes in zip(shapes, summed, strict=True):
        if any(size < 1 for size in shape):
            raise ShapeError(at_user_line(f"keops_tensordot was given the shape {shape}, expected sizes of at least 1"))
        if len(set(axes)) != len(axes) or any(not 0 <= axis < len(shape) for axis in axes):
            raise ShapeError(
                at_user_line(
                    f"keops_tensordot sums over the axes {axes} of a tensor of shape {shape}, expected different "
                    f"numbers from 0 to {len(shape) - 1}"
                )
            )
    sizes = [tuple(shape[axis] for axis in axes) for shape, axes in zip(shapes, summed, strict=True)]
    if sizes[0] != sizes[1]:
        raise ShapeError(
            at_user_line(f"keops_tensordot sums over axes of sizes {sizes[0]} and {sizes[1]}, expected equal ones")
        )


def _permuted(kept: list[int], perm: Any) -> tuple[int, ...]:
    if perm is None:
        return tuple(kept)
    places = _integers(perm, "perm")
    if sorted(places) != list(range(len(kept))):
        raise ShapeError(
            at_user_line(f"perm is {places}, expected each number from 0 to {len(kept) - 1} once, one for each axis")
        )
    result = [0] * len(kept)
    for label, place in zip(kept, places, strict=True):
        result[place] = label
    return tuple(result)
