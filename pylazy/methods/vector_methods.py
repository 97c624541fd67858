"""Methods of LazyTensor that work on the vector of components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.lazy_formula import axis_of, read_index, unary
from pylazy.methods.elementwise_methods import ElementwiseMethods
from pylazy.methods.operands import combine, operand
from pylazy.runtime.errors import AxisError, ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self


class VectorMethods(ElementwiseMethods):
    """Norms, products and selections."""

    __slots__ = ()

    def dot(self, other: Any) -> Self:
        """Sum of the products of the components; also written x | y."""
        return combine("dot", self, other)

    vecdot = dot

    def sqnorm2(self) -> Self:
        """Sum of the squares of the components."""
        return unary("sqnorm2", self)

    def norm2(self) -> Self:
        """Euclidean norm; its derivative is taken as 0 at 0."""
        return unary("norm2", self)

    def norm(self, dim: int = -1) -> Self:
        """Euclidean norm over the components; `dim` can only be the last axis."""
        if axis_of(self, dim) != "inner":
            raise AxisError(at_user_line(f"dim is {dim}, expected -1: a norm is taken over the components"))
        return unary("norm2", self)

    def normalize(self) -> Self:
        """The unit vector x / norm2(x); the zero vector stays the zero vector."""
        return unary("normalize", self)

    def sqdist(self, other: Any) -> Self:
        """Sum of the squared differences of the components."""
        return combine("sqdist", self, other)

    def softdtw_sqdist(self, y: Any, gamma: Any) -> Self:
        """Soft dynamic time warping of two series, whose elements are the components; differentiable twice.

        Args:
            y: the other series, which may have another length.
            gamma: how soft the minimum over alignments is, above 0: a number, an array or a LazyTensor.

        Returns:
            A LazyTensor of inner dimension 1: the soft minimum, over all monotone alignments, of the sum of the squared
            differences (Cuturi and Blondel, Soft-DTW: a differentiable loss function for time-series, 2017).
        """
        return combine("soft_dtw", self, y, gamma)

    def __getitem__(self, key: Any) -> Self:
        """Take components, as by x[k], x[a:b] or x[..., k], or rows and columns, as by K[rows, columns].

        Rows and columns are slices, integers (which keep their axis, with size 1) or arrays of positions or of bools;
        their data is gathered at once, a view where it is a slice. With components after them, and `:` for each batch
        dimension before them, the indices are as many as the axes; without components, one less.

        Raises:
            AxisError: the indices are not as many as the axes, or one takes a part of a batch dimension.
            ShapeError: there is no such component, row or column.
        """
        if isinstance(key, tuple):
            rows, columns, key = self._read_indices(key)
            if not (_is_whole(rows) and _is_whole(columns)):
                from pylazy.linear_algebra.materialise import restrict

                self = restrict(self, rows, columns)  # noqa: PLW0642
            if _is_whole(key):
                return self
        if isinstance(key, slice):
            if key.step not in (None, 1):
                raise AxisError(at_user_line(f"a slice of components has step {key.step}, expected 1"))
            start, stop, _ = key.indices(self.ndim)
            return self.extract(start, stop - start)
        return self.elem(read_index(key, "a component"))

    def _read_indices(self, key: tuple[Any, ...]) -> tuple[Any, Any, Any]:
        """Read the indices of rows, columns and components from one for each axis."""
        rank = self.dim()
        parts = list(key)
        ellipses = [place for place, part in enumerate(parts) if part is Ellipsis]
        if len(ellipses) == 1:
            place = ellipses[0]
            parts[place : place + 1] = [slice(None)] * (rank + 1 - len(parts))
        elif len(parts) == rank - 1:
            parts.append(slice(None))
        if len(parts) != rank or not all(map(_is_whole, parts[: rank - 3])):
            raise AxisError(
                at_user_line(
                    f"this LazyTensor of {rank} axes was indexed with {_written(key)}, expected x[k], x[a:b] or "
                    f"x[..., k] for components, or {', '.join([':'] * (rank - 3) + ['rows', 'columns'])} and perhaps "
                    "components: batch dimensions are taken whole"
                )
            )
        return parts[-3], parts[-2], parts[-1]

    def __iter__(self) -> Iterator[Self]:
        return (self.elem(k) for k in range(self.ndim))

    def elem(self, i: int) -> Self:
        """Component `i`; negative numbers count from the end."""
        index, dim = read_index(i, "a component"), self.ndim
        if not -dim <= index < dim:
            raise ShapeError(
                at_user_line(f"component {index} of a vector of inner dimension {dim}, expected {-dim} to {dim - 1}")
            )
        return unary("extract", self, (("start", index % dim), ("size", 1)))

    def extract(self, i: int, d: int) -> Self:
        """Components `i` to `i + d - 1`."""
        start, size = read_index(i, "the first component"), read_index(d, "the number of components")
        return unary("extract", self, (("start", start), ("size", size)))

    def concat(self, other: Any) -> Self:
        """The components of self, then those of `other`."""
        return combine("concat", self, other)

    @classmethod
    def concatenate(cls, tensors: Sequence[Any], axis: int = -1) -> Self:
        """The components of several LazyTensors, one after the other."""
        operands = [operand(cls, tensor) for tensor in tensors]
        if not operands:
            raise ShapeError(at_user_line("no tensors to concatenate, expected at least one"))
        for tensor in operands:
            if axis_of(tensor, axis) != "inner":
                raise AxisError(at_user_line(f"axis is {axis}, expected -1: only components can be concatenated"))
        result = operands[0]
        for tensor in operands[1:]:
            result = combine("concat", result, tensor)
        return result

    @classmethod
    def cat(cls, tensors: Sequence[Any], dim: int = -1) -> Self:
        """`concatenate`, as torch names it."""
        return cls.concatenate(tensors, axis=dim)


def _is_whole(part: Any) -> bool:
    return isinstance(part, slice) and part == slice(None)


def _written(key: tuple[Any, ...]) -> str:
    return ", ".join("..." if part is Ellipsis else ":" if _is_whole(part) else str(part) for part in key)
