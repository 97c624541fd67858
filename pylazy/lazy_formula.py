"""The state of a LazyTensor, and how operations make new ones."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from pylazy.dtypes import result_dtype
from pylazy.execution.programs import Extents
from pylazy.expression import apply
from pylazy.options import ranges_of, read_options
from pylazy.runtime.errors import AxisError, DtypeError, ShapeError
from pylazy.user_positions import at_user_line, user_position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from pylazy.expression import Attributes, Expression


class LazyFormula:
    """An expression with the sizes of its data; the groups of methods of LazyTensor add what can be done with it."""

    __slots__ = ("__weakref__", "_backend", "_batch", "_columns", "_expression", "_ranges", "_rows")

    is_complex: ClassVar[bool] = False
    """Whether the entries are complex numbers; see `ComplexLazyTensor`."""

    _expression: Expression
    _batch: tuple[int, ...]
    _rows: int | None
    _columns: int | None
    _backend: str | None
    _ranges: tuple[Any, ...] | None

    # For type checkers; when a program runs, `__init_subclass__` sets the first, and the second where it is needed.
    if TYPE_CHECKING:

        @property
        def _formula_class(self) -> type[Self]:
            """The class of formulas that are made of this one; see `__init_subclass__`."""

        def __init__(self, x: Any, axis: int | None = None) -> None: ...

    else:
        _formula_class = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Let the `__init__` of a user's subclass, with any arguments, decide what a formula of this class is.

        Operations do not call it, so what they make of such a formula is of the class before it.
        """
        super().__init_subclass__(**options)
        found: Any = cls
        has_own_init = found.__init__ is not LazyFormula.__init__
        if has_own_init:
            # Only now: if there always were one, it would cost every LazyTensor 0.2 microseconds.
            LazyFormula.__init__ = _read_data  # type: ignore[assignment,method-assign]
        if has_own_init and found.__new__ in (found._formula_class.__new__, _unfilled):
            found.__new__ = _unfilled
        else:
            found._formula_class = cls

    def _fill(self, formula: Any) -> None:
        """Become the same formula as another LazyTensor.

        Raises:
            DtypeError: it is complex, and this is not.
        """
        if formula.is_complex:
            name = type(self).__name__
            raise DtypeError(
                at_user_line(f"{name} is given complex data, expected real data: derive it from ComplexLazyTensor")
            )
        self._expression = formula._expression
        self._batch, self._rows, self._columns = formula._batch, formula._rows, formula._columns
        self._backend, self._ranges = formula._backend, formula._ranges

    @property
    def _axes(self) -> str:
        return self._expression.axes

    @property
    def _shape(self) -> tuple[int, ...]:
        rows = 1 if self._rows is None else self._rows
        columns = 1 if self._columns is None else self._columns
        return (*self._batch, rows, columns, self.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, M, N, D), without D where it is 1; an axis that the formula does not have counts 1."""
        return self._shape if self.ndim > 1 else self._shape[:-1]

    @property
    def ndim(self) -> int:
        """The inner dimension D, as in pykeops; the number of axes is `dim()`."""
        return self._expression.dim

    @property
    def nbatchdims(self) -> int:
        """The number of batch dimensions."""
        return len(self._batch)

    @property
    def dtype(self) -> str | None:
        """The dtype of its values, as "float32"; None for numbers alone, which take the dtype of what they meet."""
        dtype = self._expression.dtype
        return None if dtype is None else result_dtype(dtype)

    def dim(self) -> int:
        """The number of axes of the full shape (*batch, M, N, D)."""
        return len(self._batch) + 3

    @property
    def backend(self) -> str | None:
        """Where reductions of this formula run unless they are told otherwise; None for "auto"."""
        return self._backend

    @backend.setter
    def backend(self, backend: str | None) -> None:
        read_options({}, dtype=None, backend=backend)
        self._backend = backend

    @property
    def ranges(self) -> tuple[Any, ...] | None:
        """The pairs that reductions of this formula go over unless they are told otherwise, a 6-tuple; None for all.

        Formulas inherit them from their operands; `T` exchanges their halves. See docs/semantics.md.
        """
        return self._ranges

    @ranges.setter
    def ranges(self, ranges: Any) -> None:
        self._ranges = None if ranges_of({}, ranges) is None else tuple(ranges)

    def __repr__(self) -> str:
        from pylazy.formula_texts.formula_text import formula_as_text

        written = formula_as_text(self._expression)
        return f"{type(self).__name__}({written}, shape={self.shape}, {self.dtype or 'any dtype'})"

    def _repr_latex_(self) -> str:
        """Write the formula in LaTeX, for notebooks."""
        from pylazy.formula_texts.formula_text import formula_as_latex

        return rf"$\displaystyle {formula_as_latex(self._expression)}$"

    def _repr_html_(self) -> str:
        """Write the formula and what is known of it as a table, for notebooks."""
        from pylazy.formula_texts.formula_text import as_html, bytes_as_text, formula_as_text

        facts = {
            "shape": str(self.shape),
            "dtype": self.dtype or "that of the arrays it meets",
            "as an array": bytes_as_text(self._shape, self.dtype),
        }
        return as_html(type(self).__name__, formula_as_text(self._expression), facts)

    def __bool__(self) -> bool:
        raise TypeError(
            at_user_line(
                "a LazyTensor is a formula and has no truth value: reduce it first, "
                "or use a.where(b, c), a.minimum(b), a.logical_and(b)"
            )
        )

    @classmethod
    def _real_class(cls) -> type[Self]:
        """The class that arrays and numbers are read as where they meet a LazyTensor of this one."""
        found: Any = cls
        read: type[Self] = found._formula_class
        return read

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self._expression, self._batch, self._rows, self._columns, self._backend, self._ranges)
        return _rebuild, (self.__class__, *state), getattr(self, "__dict__", None)


_T = TypeVar("_T", bound=LazyFormula)


def _read_data(formula: LazyFormula, x: Any, axis: int | None = None) -> None:
    """Read the data, as the `__init__` that those of subclasses call; `__new__` of LazyTensor has filled its own."""
    if formula.__class__ is not formula._formula_class:
        formula._fill(formula._formula_class(x, axis))


def _unfilled(cls: type[_T], *_: Any, **__: Any) -> _T:
    """Make a formula that its `__init__` fills."""
    return object.__new__(cls)


def new(
    cls: type[_T],
    expression: Expression,
    batch: tuple[int, ...],
    rows: int | None,
    columns: int | None,
    backend: str | None,
    ranges: tuple[Any, ...] | None = None,
) -> _T:
    """Make a LazyTensor of this class; the sizes are those of the data, None for an axis that no data has."""
    made = object.__new__(cls)
    made._expression = expression
    made._batch = batch
    made._rows = rows
    made._columns = columns
    made._backend = backend
    made._ranges = ranges
    return made


def _rebuild(cls: type[_T], *state: Any) -> _T:
    """Make what was pickled or copied, of any subclass, without its `__init__`."""
    made = object.__new__(cls)
    made._fill(new(cls, *state))
    return made


def unary(op: str, x: _T, attributes: Attributes = ()) -> _T:
    """Apply an operation to one LazyTensor.

    Raises:
        DtypeError: a method was called unbound, as in `LazyTensor.exp(x)`, with something else.
    """
    if not isinstance(x, LazyFormula):
        refuse_unbound(op, x)
    if x.is_complex:
        return apply_complex(op, (x,), attributes)
    expression = apply(op, (x._expression,), attributes, user_position(3))  # this and the method are known frames
    return new(x._formula_class, expression, x._batch, x._rows, x._columns, x._backend, x._ranges)


def apply_complex(op: str, operands: tuple[_T, ...], attributes: Attributes = ()) -> _T:
    """Apply an operation to LazyTensors of which at least one is complex.

    Raises:
        UnsupportedError: the operation has no meaning for complex numbers.
    """
    from pylazy.complex_numbers import complex_lazy_tensor

    made: _T = complex_lazy_tensor.apply_rule(op, operands, attributes)
    return made


def refuse_unbound(op: str, x: object) -> NoReturn:
    """Refuse what a method was called with as its self."""
    raise DtypeError(at_user_line(f"{op} was given {type(x).__name__}, expected a LazyTensor: wrap it first"))


def apply_to(op: str, operands: Sequence[_T], attributes: Attributes = ()) -> _T:
    """Apply an operation to several LazyTensors, the first of which decides on the class of the result.

    Raises:
        ShapeError: sizes or inner dimensions do not fit.
    """
    expressions = tuple([operand._expression for operand in operands])
    expression = apply(op, expressions, attributes, user_position(3))  # this, and its callers
    batch, rows, columns = _joint_sizes(op, operands)
    backend = ranges = None
    for operand in operands:
        if operand._backend is not None:
            backend = operand._backend
        if operand._ranges is not None:
            ranges = operand._ranges
    if ranges is not None:
        ranges = joint_ranges(op, operands)
    return new(operands[0]._formula_class, expression, batch, rows, columns, backend, ranges)


def joint_ranges(op: str, operands: Sequence[LazyFormula]) -> tuple[Any, ...] | None:
    """The ranges of several LazyTensors together.

    Raises:
        ShapeError: two of them have different ranges.
    """
    found: tuple[Any, ...] | None = None
    for operand in operands:
        ranges = operand._ranges
        if ranges is None or ranges is found:
            continue
        if found is None:
            found = ranges
            continue
        from pylazy.block_sparse.ranges import same_ranges

        if not same_ranges(found, ranges):
            raise ShapeError(at_user_line(f"{op} was given LazyTensors with different ranges, expected equal ones"))
    return found


def joint_extents(op: str, operands: Sequence[LazyFormula]) -> Extents:
    """The sizes of several LazyTensors together.

    Raises:
        ShapeError: they have different numbers of rows or columns, or batches that do not broadcast.
    """
    return Extents(*_joint_sizes(op, operands))


def _joint_sizes(op: str, operands: Sequence[LazyFormula]) -> tuple[tuple[int, ...], int | None, int | None]:
    first = operands[0]
    batch, rows, columns = first._batch, first._rows, first._columns
    for operand in operands[1:]:
        if operand._rows is not None and operand._rows != rows:
            if rows is not None:
                _refuse_extents(op, "M", "i", rows, operand._rows)
            rows = operand._rows
        if operand._columns is not None and operand._columns != columns:
            if columns is not None:
                _refuse_extents(op, "N", "j", columns, operand._columns)
            columns = operand._columns
        if operand._batch != batch:
            batch = broadcast_batches(op, batch, operand._batch)
    return batch, rows, columns


def broadcast_batches(op: str, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Broadcast two batch shapes.

    Raises:
        ShapeError: they do not broadcast.
    """
    long, short = (first, second) if len(first) >= len(second) else (second, first)
    joined = list(long)
    for axis, size in enumerate(short, start=len(long) - len(short)):
        if size == joined[axis] or size == 1:
            continue
        if joined[axis] != 1:
            raise ShapeError(
                at_user_line(
                    f"{op} was given batch shapes {first} and {second}, which do not broadcast: "
                    "from the last dimension on, sizes must be equal or 1"
                )
            )
        joined[axis] = size
    return tuple(joined)


def _refuse_extents(op: str, size: str, axis: str, first: int, second: int) -> None:
    raise ShapeError(
        at_user_line(
            f"{op} was given {size} = {first} and {size} = {second} along axis {axis}: arrays of one axis have one "
            "size; if one of them varies along the other axis, say so by its shape, or by Vi and Vj"
        )
    )


def read_index(value: Any, what: str) -> int:
    """Read an integer argument, which a message calls `what`.

    Raises:
        DtypeError: this is no integer.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise DtypeError(
            at_user_line(f"{what} is {value!r} of type {type(value).__name__}, expected an integer")
        ) from None


def axis_of(x: LazyFormula, axis: Any, dim: Any = None) -> str:
    """Say which axis a number means: "inner", "i" or "j".

    Raises:
        AxisError: the LazyTensor has no such axis, or it is a batch dimension.
    """
    given = axis if dim is None else dim
    if given == -1 and given is not True:
        return "inner"
    rank = len(x._batch)
    expected = f"{rank} (or -3) for i, {rank + 1} (or -2) for j, or -1 for the components"
    try:
        number = operator.index(given)
    except TypeError:
        raise AxisError(at_user_line(f"axis is {given!r}, expected {expected}")) from None
    position = number + rank + 3 if number < 0 else number
    if position == rank + 1:
        return "j"
    if position == rank:
        return "i"
    if position == rank + 2:
        return "inner"
    reason = "a batch dimension, which cannot be reduced" if 0 <= position < rank else "no axis of this LazyTensor"
    raise AxisError(at_user_line(f"axis is {number}, {reason}: its shape is {x._shape}, expected {expected}"))


def outer_axis(x: LazyFormula, axis: Any, dim: Any) -> str:
    """As `axis_of`, for reductions that need "i" or "j"."""
    where = axis_of(x, axis, dim)
    if where == "inner":
        rank = len(x._batch)
        raise AxisError(
            at_user_line(f"axis is -1, the components, expected {rank} (or -3) for i or {rank + 1} (or -2) for j here")
        )
    return where
