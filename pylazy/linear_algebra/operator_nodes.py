"""The parts of which linear operators are made: kernel matrices, identities, multiples, sums and products."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pylazy.arrays.array_libraries import is_seen, is_tensor, is_traced
from pylazy.arrays.sources import own_array, remembers, source_like
from pylazy.canonical_form import flatten
from pylazy.differentiation.array_spaces import library_beside
from pylazy.dtypes import promote
from pylazy.expression import Expression, replace_leaves
from pylazy.lazy_formula import new
from pylazy.linear_algebra.symmetric_systems import as_number
from pylazy.runtime.errors import ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylazy.lazy_tensor import LazyTensor


class Size(NamedTuple):
    """The sizes of an operator; rows and columns are None for an identity of any size."""

    batch: tuple[int, ...]
    rows: int | None
    columns: int | None


class Parameter(NamedTuple):
    """An array that an operator depends on, and the number of its dimensions beside those of a batch.

    A number that multiplies vectors has 2, as they do.
    """

    array: Any
    rank: int


class Node(Protocol):
    """One way to make an operator."""

    def size(self) -> Size:
        """Its sizes."""

    def dtype(self) -> str | None:
        """The name of its dtype, None for any."""

    def transposed(self) -> Node:
        """Its transpose."""

    def apply(self, v: Any) -> Any:
        """Its product with (*batch, N, E)."""

    def diagonal(self, count: int) -> Any:
        """The first entries of its diagonal, (*batch, count)."""

    def kernels(self) -> Iterator[LazyTensor]:
        """The formulas of its matrices."""

    def tensors(self) -> Iterator[Parameter]:
        """The tensors and traced arrays that it depends on and whose gradient is wanted, in order."""

    def on(self, tensors: Iterator[Any]) -> Node:
        """The same on other tensors, one for each of `tensors()`."""

    def text(self) -> str:
        """How it is written."""


@dataclass(frozen=True)
class Kernel:
    """The matrix of a formula."""

    formula: LazyTensor

    def size(self) -> Size:
        return Size(self.formula._batch, *self.formula._shape[-3:-1])

    def dtype(self) -> str | None:
        return self.formula.dtype

    def transposed(self) -> Node:
        return Kernel(self.formula.T)

    def apply(self, v: Any) -> Any:
        return self.formula @ v

    def diagonal(self, count: int) -> Any:
        return self.formula.diagonal()[..., :count, 0]

    def kernels(self) -> Iterator[LazyTensor]:
        yield self.formula

    def _wanted(self) -> list[Any]:
        sources = flatten((self.formula._expression,)).sources
        return [source for source in sources if remembers(source)]

    def tensors(self) -> Iterator[Parameter]:
        for source in self._wanted():
            yield Parameter(own_array(source), len(source.shape) - source.batch)

    def on(self, tensors: Iterator[Any]) -> Node:
        others = {source.identity: source_like(source, next(tensors)) for source in self._wanted()}

        def replaced(leaf: Expression) -> Expression:
            if leaf.op != "var" or leaf.source.identity not in others:
                return leaf
            source = others[leaf.source.identity]
            return Expression("var", (), leaf.attributes, leaf.axes, leaf.dim, leaf.dtype, source, leaf.position)

        x = self.formula
        expression = replace_leaves(x._expression, replaced)
        return Kernel(new(x._formula_class, expression, x._batch, x._rows, x._columns, x._backend))

    def text(self) -> str:
        return "K"


@dataclass(frozen=True)
class Identity:
    """The identity, of a size or of any."""

    n: int | None

    def size(self) -> Size:
        return Size((), self.n, self.n)

    def dtype(self) -> str | None:
        return None

    def transposed(self) -> Node:
        return self

    def apply(self, v: Any) -> Any:
        return v

    def diagonal(self, count: int) -> Any:
        return np.ones(count)

    def kernels(self) -> Iterator[LazyTensor]:
        return iter(())

    def tensors(self) -> Iterator[Parameter]:
        return iter(())

    def on(self, tensors: Iterator[Any]) -> Node:
        del tensors
        return self

    def text(self) -> str:
        return "I"


@dataclass(frozen=True)
class Multiple:
    """A number times an operator; the number may be a tensor or an array of one."""

    factor: Any
    node: Node

    def size(self) -> Size:
        return self.node.size()

    def dtype(self) -> str | None:
        return self.node.dtype()

    def transposed(self) -> Node:
        return Multiple(self.factor, self.node.transposed())

    def _times(self, values: Any) -> Any:
        # A number promotes nothing; a tensor that requires a gradient is one of the graph of autograd.
        if not self._is_wanted():
            return as_number(self.factor) * values
        if isinstance(values, np.ndarray):
            values = _beside(self.factor, values)
        return self.factor * values

    def apply(self, v: Any) -> Any:
        return self._times(self.node.apply(v))

    def diagonal(self, count: int) -> Any:
        return self._times(self.node.diagonal(count))

    def kernels(self) -> Iterator[LazyTensor]:
        return self.node.kernels()

    def _is_wanted(self) -> bool:
        if is_traced(self.factor):
            return True
        return is_tensor(self.factor) and is_seen(self.factor)

    def tensors(self) -> Iterator[Parameter]:
        if self._is_wanted():
            yield Parameter(self.factor, 2)
        yield from self.node.tensors()

    def on(self, tensors: Iterator[Any]) -> Node:
        factor = next(tensors) if self._is_wanted() else self.factor
        return Multiple(factor, self.node.on(tensors))

    def text(self) -> str:
        value = as_number(self.factor)
        inner = self.node.text()
        inner = f"({inner})" if isinstance(self.node, Sum) else inner
        return f"-{inner}" if value == -1 else f"{value:g} * {inner}"


@dataclass(frozen=True)
class Sum:
    """The sum of two operators."""

    first: Node
    second: Node

    def size(self) -> Size:
        a, b = self.first.size(), self.second.size()
        known = b if a.rows is None else a
        return Size(np.broadcast_shapes(a.batch, b.batch), known.rows, known.columns)

    def dtype(self) -> str | None:
        return promote(self.first.dtype(), self.second.dtype())

    def transposed(self) -> Node:
        return Sum(self.first.transposed(), self.second.transposed())

    def apply(self, v: Any) -> Any:
        return _plus(self.first.apply(v), self.second.apply(v))

    def diagonal(self, count: int) -> Any:
        return _plus(self.first.diagonal(count), self.second.diagonal(count))

    def kernels(self) -> Iterator[LazyTensor]:
        yield from self.first.kernels()
        yield from self.second.kernels()

    def tensors(self) -> Iterator[Parameter]:
        yield from self.first.tensors()
        yield from self.second.tensors()

    def on(self, tensors: Iterator[Any]) -> Node:
        return Sum(self.first.on(tensors), self.second.on(tensors))

    def text(self) -> str:
        second = self.second.text()
        return f"{self.first.text()} - {second[1:]}" if second[0] == "-" else f"{self.first.text()} + {second}"


@dataclass(frozen=True)
class Product:
    """The product of two operators."""

    first: Node
    second: Node

    def size(self) -> Size:
        a, b = self.first.size(), self.second.size()
        rows = b.rows if a.rows is None else a.rows
        columns = a.columns if b.columns is None else b.columns
        return Size(np.broadcast_shapes(a.batch, b.batch), rows, columns)

    def dtype(self) -> str | None:
        return promote(self.first.dtype(), self.second.dtype())

    def transposed(self) -> Node:
        return Product(self.second.transposed(), self.first.transposed())

    def apply(self, v: Any) -> Any:
        return self.first.apply(self.second.apply(v))

    def diagonal(self, count: int) -> Any:
        raise UnsupportedError(
            at_user_line(
                f"the {count} diagonal entries of a product of operators take all of its entries: use dense(), or "
                "another preconditioner than 'jacobi'"
            )
        )

    def kernels(self) -> Iterator[LazyTensor]:
        yield from self.first.kernels()
        yield from self.second.kernels()

    def tensors(self) -> Iterator[Parameter]:
        yield from self.first.tensors()
        yield from self.second.tensors()

    def on(self, tensors: Iterator[Any]) -> Node:
        return Product(self.first.on(tensors), self.second.on(tensors))

    def text(self) -> str:
        parts = (self.first, self.second)
        return " @ ".join(f"({part.text()})" if isinstance(part, Sum | Multiple) else part.text() for part in parts)


def _plus(a: Any, b: Any) -> Any:
    """Add arrays of both kinds, where those of NumPy stand for a diagonal or a vector that no other has met."""
    if isinstance(a, np.ndarray):
        a = _beside(b, a)
    elif isinstance(b, np.ndarray):
        b = _beside(a, b)
    return a + b


def _beside(other: Any, values: Any) -> Any:
    """Bring an array of NumPy to the kind and the place of another one."""
    if is_tensor(other):
        return sys.modules["torch"].as_tensor(values, device=other.device)
    return library_beside(other).asarray(values)


def added(first: Node, second: Node) -> Node:
    """Add two operators.

    Raises:
        ShapeError: their sizes differ, or one is an identity and the other not square.
    """
    a, b = first.size(), second.size()
    for name, one, other in (("rows", a.rows, b.rows), ("columns", a.columns, b.columns)):
        if one is not None and other is not None and one != other:
            raise ShapeError(at_user_line(f"operators with {one} and {other} {name} are added, expected equal sizes"))
    for this, that in ((a, b), (b, a)):
        if this.rows is None and that.rows != that.columns:
            raise ShapeError(
                at_user_line(f"an identity is added to {that.rows} rows and {that.columns} columns, expected a square")
            )
    _check_batches(a, b)
    return Sum(first, second)


def composed(first: Node, second: Node) -> Node:
    """Multiply two operators.

    Raises:
        ShapeError: the first has another number of columns than the second has rows.
    """
    a, b = first.size(), second.size()
    if a.columns is not None and b.rows is not None and a.columns != b.rows:
        raise ShapeError(
            at_user_line(
                f"an operator of {a.columns} columns is multiplied with one of {b.rows} rows, expected as many"
            )
        )
    _check_batches(a, b)
    return Product(first, second)


def _check_batches(a: Size, b: Size) -> None:
    try:
        np.broadcast_shapes(a.batch, b.batch)
    except ValueError:
        raise ShapeError(
            at_user_line(
                f"operators have batch shapes {a.batch} and {b.batch}, which do not broadcast: sizes must be equal or 1"
            )
        ) from None
