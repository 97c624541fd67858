"""What stands for an array in a function that is differentiated."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pylazy.arrays.imported_arrays import Imported, readable
from pylazy.differentiation.traces import Call, Spec, Trace, alive, untraced
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pylazy.execution.job import Job

_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "mod": np.remainder,
    "pow": np.power,
    "matmul": np.matmul,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute}
_METHODS: Mapping[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "var": np.var,
    "std": np.std,
    "min": np.min,
    "max": np.max,
    "argmin": np.argmin,
    "argmax": np.argmax,
    "ravel": np.ravel,
    "flatten": np.ravel,
    "swapaxes": np.swapaxes,
    "squeeze": np.squeeze,
    "dot": np.dot,
    "clip": np.clip,
    "cumsum": np.cumsum,
    "diagonal": np.diagonal,
    "trace": np.trace,
    "copy": np.copy,
    "repeat": np.repeat,
    "take": np.take,
    "any": np.any,
    "all": np.all,
    "conj": np.conjugate,
    "conjugate": np.conjugate,
}
"""Methods of arrays that are functions of NumPy."""


class Recorder:
    """Takes the place of an array library whose arrays are traced: reductions of them are recorded, not run.

    Attributes:
        library: the module that makes such arrays: NumPy, or that of arrays on a GPU.
    """

    __name__ = "pylazy.grad"

    def __init__(self, library: Any) -> None:
        self.library = library

    def record(self, job: Job) -> tuple[Any, ...]:
        """Give the results of a reduction, which remember how they were made; see `Job.run`."""
        from pylazy.differentiation.recorded_reductions import record

        return record(job)


_OF_NUMPY = Recorder(np)


class TracedArray:
    """An array that remembers how it was made, for formulas and for NumPy's functions.

    What would read its numbers in another way is refused, since a derivative would not see it.

    Attributes:
        call: what made it.
        number: among the results of the call.
        tangent: in forward mode.
    """

    __slots__ = ("__weakref__", "_trace", "call", "number", "tangent")

    __hash__ = object.__hash__

    def __init__(self, trace: Trace, *, call: Call, number: int, tangent: Any = None) -> None:
        self._trace = weakref.ref(trace)
        self.call = call
        self.number = number
        self.tangent = tangent

    @property
    def trace(self) -> Trace:
        """Which derivative it belongs to."""
        return alive(self._trace)

    @property
    def value(self) -> Any:
        """What this trace knows nothing of: an array, or one of an outer trace."""
        return self.call.results[self.number]

    @property
    def spec(self) -> Spec:
        """Shape and dtype, which may be known before the value."""
        return self.call.specs()[self.number]

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return self.spec.shape

    @property
    def dtype(self) -> Any:
        """As of an array."""
        return np.dtype(self.spec.dtype)

    @property
    def ndim(self) -> int:
        """As of an array."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """As of an array."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def T(self) -> Any:  # noqa: N802  as arrays name it
        """As of an array."""
        return np.transpose(self)

    @property
    def real(self) -> Any:
        """As of an array."""
        return np.real(self)

    @property
    def imag(self) -> Any:
        """As of an array."""
        return np.imag(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        from pylazy.differentiation.numpy_functions import take_item

        return take_item(self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        self._refuse("written to")

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        """As of an array."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order=order)  # type: ignore[call-overload]

    def transpose(self, *axes: Any) -> Any:
        """As of an array."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return np.transpose(self, order or None)

    def astype(self, dtype: Any, *, copy: bool = True) -> Any:
        """As of an array; a dtype that is no float gives an array without a derivative."""
        from pylazy.differentiation.numpy_functions import convert

        del copy
        return convert(self, dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        from pylazy.differentiation.numpy_functions import call_ufunc

        return call_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        from pylazy.differentiation.numpy_functions import call_function

        del types
        return call_function(function, args, options)

    def __pylazy_imported__(self) -> Imported:
        """Give what a formula reads, and who owns it; see `readable`."""
        found = untraced(self)
        if isinstance(found, np.ndarray | np.generic):
            return Imported(np.asarray(found), self, _OF_NUMPY)
        own: Imported = readable(found)
        return Imported(own.array, self, Recorder(own.namespace), own.device)

    def __bool__(self) -> bool:
        return bool(untraced(self))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse("read as an array")

    def __float__(self) -> float:
        self._refuse("read as a number")

    __int__ = __index__ = __complex__ = __float__

    def __getattr__(self, name: str) -> Any:
        function = _METHODS.get(name)
        if function is not None:
            return lambda *args, **options: function(self, *args, **options)
        if name.startswith("__"):  # protocols that are asked for
            raise AttributeError(name)
        return self._refuse(f"asked for {name}")

    def __repr__(self) -> str:
        return f"<array in a differentiated function, shape={self.shape}, dtype={self.dtype}>"

    def _refuse(self, found: str) -> NoReturn:
        raise UnsupportedError(
            at_user_line(
                f"an array of a function that is differentiated is {found}, where its derivative would be lost: make "
                "new arrays by formulas, and by the functions of NumPy that docs/semantics.md lists"
            )
        )


def _binary(ufunc: np.ufunc, *, reflected: bool) -> Any:
    def operator(self: TracedArray, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", ufunc) is None:
            return NotImplemented  # a formula takes the array as an operand
        return ufunc(other, self) if reflected else ufunc(self, other)

    return operator


def _unary(ufunc: np.ufunc) -> Any:
    def operator(self: TracedArray) -> Any:  # a ufunc itself would not be bound to an instance
        return ufunc(self)

    return operator


for _name, _ufunc in _BINARY.items():
    setattr(TracedArray, f"__{_name}__", _binary(_ufunc, reflected=False))
    if _name not in _COMPARISONS:
        setattr(TracedArray, f"__r{_name}__", _binary(_ufunc, reflected=True))
for _name, _ufunc in _UNARY.items():
    setattr(TracedArray, f"__{_name}__", _unary(_ufunc))
