"""What a function sees while it is differentiated: arguments that are only variables, and results that have not run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pylazy.expression import at_user_line
from pylazy.lazy_formula import LazyFormula
from pylazy.runtime.errors import ShapeError, UnsupportedError

if TYPE_CHECKING:
    from pylazy.execute import Job

_REFLECTED = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
_OTHER_OPERATORS = ("lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "float", "int", "bool", "iter")


class Recorder:
    """Takes the place of an array library whose arrays are primals: reductions of them are recorded, not run.

    `Job.run` hands a reduction over to the library of its arrays if that has `postpone`.
    """

    __name__ = "pylazy.grad"

    def postpone(self, job: Job) -> tuple[Postponed, ...]:
        """Give what stands for the results of a reduction."""
        return tuple(Postponed(job, number) for number in range(len(job.shapes)))

    def from_dlpack(self, array: Any) -> NoReturn:
        """Refuse an array that was computed on the way, whose derivative nobody knows.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            at_user_line(
                f"an array of shape {tuple(array.shape)} is found by more than one reduction, expected one sum, mean, "
                "prod, logsumexp, sumsoftmaxweight or K @ v in a function to differentiate: use tensors of torch"
            )
        )

    asarray = from_dlpack


class Primal:
    """An argument of a function that is differentiated: an array that only a formula can read.

    It has the shape and dtype of the array, can be reshaped, and indexed with None, `...` and `:`. Whatever would read
    its numbers outside a formula is refused, since a derivative would not see it.

    Attributes:
        array: the user's data, in the shape of this view.
        argument: number of the argument.
    """

    __slots__ = ("_recorder", "argument", "array")

    def __init__(self, array: Any, argument: int, recorder: Recorder) -> None:
        self.array = array
        self.argument = argument
        self._recorder = recorder

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return tuple(self.array.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions of the array."""
        return int(self.array.ndim)

    @property
    def size(self) -> int:
        """Number of elements of the array."""
        return int(self.array.size)

    @property
    def dtype(self) -> Any:
        """Of the array."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def reshape(self, *shape: Any) -> Primal:
        """The same argument in another shape."""
        return Primal(self.array.reshape(*shape), self.argument, self._recorder)

    def __getitem__(self, key: Any) -> Primal:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or part is Ellipsis or part == slice(None) for part in parts):
            self._refuse("indexed with more than None, ... and :")
        return Primal(self.array[key], self.argument, self._recorder)

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __array_namespace__(self, **_: Any) -> Recorder:
        return self._recorder

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse("read as an array")

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> NoReturn:
        self._refuse(f"an operand of numpy.{ufunc.__name__}")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # protocols that are asked for
            raise AttributeError(name)
        self._refuse(f"asked for {name}")

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<argument {self.argument} of a differentiated function, shape={self.shape}, dtype={self.dtype}>"

    def _refuse(self, found: str) -> NoReturn:
        raise UnsupportedError(
            at_user_line(
                f"argument {self.argument} of a function that is differentiated is {found} before it is in a formula, "
                "where its derivative would be lost: make it a variable first, by Vi, Vj, Pm or LazyTensor"
            )
        )


class Postponed:
    """A linear function of the result of a reduction that has not run: what a differentiated function may return.

    Attributes:
        job: the reduction.
        number: which of its results.
        factor: what the result is multiplied with.
        is_total: whether all elements are then added up.
    """

    __slots__ = ("factor", "is_total", "job", "number")

    __array_ufunc__ = None  # an array on the left of an operator then leaves the operation to us
    __hash__ = object.__hash__

    def __init__(self, job: Job, number: int, factor: Any = 1.0, *, is_total: bool = False) -> None:
        self.job = job
        self.number = number
        self.factor = factor
        self.is_total = is_total

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result; () of a sum of all its elements."""
        return () if self.is_total else self.job.shapes[self.number]

    def sum(self) -> Postponed:
        """The sum of all elements."""
        return Postponed(self.job, self.number, self.factor, is_total=True)

    def mean(self) -> Postponed:
        """The mean of all elements."""
        return self.sum() / math.prod(self.shape)

    def __mul__(self, other: Any) -> Postponed:
        if not isinstance(other, int | float | np.ndarray | np.generic):
            self._refuse(f"multiplied with {type(other).__name__}, not a number or a NumPy array,")
        if np.broadcast_shapes(np.shape(other), self.shape) != self.shape:
            raise ShapeError(
                at_user_line(
                    f"the result of a reduction, of shape {self.shape}, is multiplied with an array of shape "
                    f"{np.shape(other)}, expected one that broadcasts to it"
                )
            )
        return Postponed(self.job, self.number, self.factor * other, is_total=self.is_total)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Postponed:
        return self.__mul__(1.0 / other)

    def __neg__(self) -> Postponed:
        return self.__mul__(-1.0)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # protocols that are asked for
            raise AttributeError(name)
        self._refuse(f"asked for {name}")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse("read as an array")

    def __getitem__(self, key: Any) -> NoReturn:
        self._refuse("indexed")

    def __repr__(self) -> str:
        return f"<result of a reduction in a differentiated function, shape={self.shape}>"

    def _refuse(self, found: str) -> NoReturn:
        raise UnsupportedError(
            at_user_line(
                f"the result of a reduction is {found} in a function that is differentiated: return it as it is, its "
                "sum() or its mean(), or times constants; for other functions of it use pylazy.vjp, or tensors of torch"
            )
        )


def _refused(cls: type[Primal | Postponed], name: str) -> Any:
    def operator(self: Any, *others: Any) -> Any:
        if cls is Primal and others and isinstance(others[0], LazyFormula):
            return NotImplemented  # the formula takes the argument as an operand
        return self._refuse(f"an operand of {name}")

    return operator


for _class in (Primal, Postponed):
    for _name in (*_REFLECTED, *(f"r{name}" for name in _REFLECTED), *_OTHER_OPERATORS):
        if f"__{_name}__" not in vars(_class):
            setattr(_class, f"__{_name}__", _refused(_class, f"__{_name}__"))
