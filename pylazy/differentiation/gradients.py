"""Derivatives of functions of arrays, of NumPy or on a GPU of CuPy: grad, value_and_grad, vjp and jvp.

The functions have JAX's names and conventions, also for complex numbers: the gradient of a real function of x + iy is
its derivative by x minus i times that by y, the conjugate of the direction in which it grows most, and vjp conjugates
nothing. A function is called once, with its arguments traced: see `TracedArray`
for what it may do with them. Derivatives may be taken of functions that take derivatives, in both modes and to any
order. A function may be a `Genred` or a symbolic `Reduction`, as they are functions of arrays.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.differentiation.array_spaces import is_device_array, library_beside
from pylazy.differentiation.traced_array import TracedArray
from pylazy.differentiation.traces import ForwardTrace, ReverseTrace, Spec, fit, spec_of, untraced
from pylazy.runtime.errors import DtypeError, ShapeError, UnsupportedError
from pylazy.stages import Reduction
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FLOATS = ("float16", "float32", "float64")
_DTYPES = (*_FLOATS, "complex64", "complex128")


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Make the function that gives the gradient of f.

    For example::

        def energy(x, y):
            return (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1).sum()

        of_x = pylazy.grad(energy)(x, y)

    Args:
        f: a function of arrays that returns one real number.
        argnums: the number of the argument that the gradient is of, or several of them.

    Returns:
        A function of the same arguments. It gives an array like the argument, or a tuple of them for several.

    Raises:
        ShapeError: f returns more than one element, when the function that is made is called, like the next two.
        DtypeError: f returns a complex number, or an argument is no number, and no array of floats or complex numbers
            of NumPy or CuPy.
        UnsupportedError: f does something whose derivative is not known.
    """

    def gradient(*args: Any, **options: Any) -> Any:
        traced = _trace_number(f, args, argnums, options)
        return traced.in_form_of(argnums, traced.gradients_of_number())

    return gradient


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Make the function that gives the value of f and its gradient.

    Where f ends in a reduction, or in the sum or mean of one, or in these times constants, one program finds both. The
    value then shares a sweep with the gradients along the axis that the reduction keeps, unless these read the value,
    as those of logsumexp and sumsoftmaxweight do.

    Args:
        f: as for `grad`.
        argnums: as for `grad`.

    Returns:
        A function of the same arguments that gives (value, gradient).
    """

    def value_and_gradient(*args: Any, **options: Any) -> Any:
        traced = _trace_number(f, args, argnums, options)
        traced.trace.with_values = True
        gradients = traced.gradients_of_number()
        return traced.trace.value_of(traced.results[0]), traced.in_form_of(argnums, gradients)

    return value_and_gradient


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Give the value of f, and the function from a cotangent of it to the gradients.

    Args:
        f: a function of arrays that returns an array of any shape, or a tuple of them.
        *primals: all its arguments, each differentiated.

    Returns:
        The value, and a function of an array of its shape, or a tuple of them, which gives a tuple with a gradient for
        each primal. The data of the primals is read again there.

    Raises:
        DtypeError: an argument is no number, and no array of floats or complex numbers of NumPy or CuPy.
        UnsupportedError: f does something whose derivative is not known.
    """
    traced = _trace(f, primals, tuple(range(len(primals))), {})

    def pull_back(cotangent: Any) -> tuple[Any, ...]:
        given = (cotangent,) if traced.is_single else tuple(cotangent)
        if len(given) != len(traced.results):
            raise ShapeError(
                at_user_line(f"{len(given)} cotangents were given, expected {len(traced.results)}, one for each value")
            )
        return traced.gradients([_like(ct, of, "the cotangent") for ct, of in zip(given, traced.results, strict=True)])

    values = tuple(traced.trace.value_of(result) for result in traced.results)
    return values[0] if traced.is_single else values, pull_back


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Give the value of f and its derivative in the direction of the tangents, in forward mode.

    Args:
        f: a function of arrays that returns an array of any shape, or a tuple of them.
        primals: all its arguments.
        tangents: for each of them an array of its shape.

    Returns:
        The value and its tangent, of the same shape; two tuples for a tuple.

    Raises:
        ShapeError: the tangents do not have the shapes of the primals.
        DtypeError: an argument is no number, and no array of floats or complex numbers of NumPy or CuPy.
        UnsupportedError: f does something whose derivative is not known.
    """
    if len(primals) != len(tangents):
        raise ShapeError(
            at_user_line(f"jvp was given {len(primals)} primals and {len(tangents)} tangents, expected as many")
        )
    trace = ForwardTrace(TracedArray)
    arguments = []
    given = _read_arguments(primals, range(len(primals)))
    for number, (value, tangent) in enumerate(zip(given, tangents, strict=True)):
        arguments.append(trace.argument(value, _like(tangent, value, f"tangent {number}", "the primal")))
    results, is_single = _read_results(f(*arguments))
    values = tuple(trace.value_of(result) for result in results)
    found = tuple(
        _tangent_of(value, tangent) for value, tangent in zip(values, map(trace.tangent_of, results), strict=True)
    )
    return (values[0], found[0]) if is_single else (values, found)


def _tangent_of(value: Any, found: Any) -> Any:
    """Give the tangent of a result, which may be zero, and real though the result is complex."""
    spec = spec_of(value)
    if found is None:
        return library_beside(value).zeros(spec.shape, spec.dtype)
    return found if found.dtype == spec.dtype else found.astype(spec.dtype)


# Calling a function with traced arrays --------------------------------------------------------------------------------


class _Traced(NamedTuple):
    """A function on some arguments.

    Attributes:
        trace: how its results were made.
        arguments: those to differentiate, in the order in which gradients are given.
        results: what it returned.
        is_single: whether that was one array, no tuple.
    """

    trace: ReverseTrace
    arguments: tuple[TracedArray, ...]
    results: tuple[Any, ...]
    is_single: bool

    def gradients(self, cotangents: Sequence[Any]) -> tuple[Any, ...]:
        """Give the gradient of each argument, in its shape and dtype."""
        found = self.trace.pull_back(self.results, cotangents, self.arguments)
        return tuple(
            self.library.zeros(argument.shape, argument.dtype) if gradient is None else _fitted(gradient, argument.spec)
            for gradient, argument in zip(found, self.arguments, strict=True)
        )

    def gradients_of_number(self) -> tuple[Any, ...]:
        """Give the gradients of the only result, of one element."""
        spec = spec_of(self.results[0])
        return self.gradients([self.library.ones(spec.shape, spec.dtype)])

    @property
    def library(self) -> Any:
        """What makes arrays beside the arguments."""
        return library_beside(self.arguments[0]) if self.arguments else np

    @staticmethod
    def in_form_of(argnums: int | Sequence[int], gradients: tuple[Any, ...]) -> Any:
        """One gradient, or a tuple for several argnums."""
        return gradients[0] if isinstance(argnums, int | np.integer) else gradients


def _fitted(gradient: Any, spec: Spec) -> Any:
    fitted = fit(gradient, spec)
    return np.asarray(fitted) if isinstance(fitted, np.generic) else fitted


def _trace_number(
    f: Callable[..., Any], args: Sequence[Any], argnums: int | Sequence[int], options: dict[str, Any]
) -> _Traced:
    traced = _trace(f, args, _read_argnums(argnums, len(args)), options)
    if not traced.is_single:
        raise ShapeError(
            at_user_line(
                f"the function to differentiate returned {len(traced.results)} results, expected one number: return "
                "one of them, or use pylazy.vjp"
            )
        )
    shape = spec_of(traced.results[0]).shape
    if math.prod(shape) != 1:
        raise ShapeError(
            at_user_line(
                f"the function to differentiate returned an array of shape {shape}, expected one element: return "
                "its sum() or mean(), or use pylazy.vjp"
            )
        )
    dtype = np.dtype(spec_of(traced.results[0]).dtype)
    if dtype.kind == "c":
        raise DtypeError(
            at_user_line(
                f"the function to differentiate returned {dtype}, expected a real number: return its real, its imag or "
                "its abs(), or use pylazy.vjp"
            )
        )
    return traced


def _trace(f: Callable[..., Any], args: Sequence[Any], numbers: Sequence[int], options: dict[str, Any]) -> _Traced:
    trace = ReverseTrace(TracedArray)
    given = list(args)
    for number, value in zip(numbers, _read_arguments([args[number] for number in numbers], numbers), strict=True):
        given[number] = trace.argument(value)
    results, is_single = _read_results(f(*given, **options))
    return _Traced(trace, tuple(given[number] for number in numbers), results, is_single)


def _read_argnums(argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    given = (argnums,) if isinstance(argnums, int | np.integer) else tuple(argnums)
    numbers = []
    for number in map(operator.index, given):
        if not -count <= number < count:
            raise ShapeError(at_user_line(f"argnums asks for argument {number} of a function that got {count}"))
        numbers.append(number % count)
    if len(set(numbers)) != len(numbers):
        raise ShapeError(at_user_line(f"argnums is {given}, expected each argument once"))
    return tuple(numbers)


def _read_arguments(values: Sequence[Any], numbers: Sequence[int]) -> list[Any]:
    """Read the arguments of these numbers; beside arrays on a GPU, numbers are put there."""
    library = next((library_beside(value) for value in values if is_device_array(untraced(value))), np)
    return [_read_argument(value, number, library) for value, number in zip(values, numbers, strict=True)]


def _read_argument(value: Any, number: int, library: Any) -> Any:
    if isinstance(value, int | float | complex) and not isinstance(value, bool):
        return library.asarray(value, dtype=np.complex128 if isinstance(value, complex) else np.float64)
    is_known = isinstance(value, np.ndarray | np.generic | TracedArray) or is_device_array(value)
    dtypes = _FLOATS if is_device_array(value) else _DTYPES
    if not is_known or value.dtype.name not in dtypes:
        found = f"an array of {value.dtype}" if is_known else type(value).__name__
        raise DtypeError(
            at_user_line(
                f"argument {number} is {found}, and a derivative of it is asked for: expected an array of NumPy or "
                f"CuPy, of {', '.join(dtypes)}, or a number. Tensors have torch's own autograd, arrays of JAX "
                "pylazy.jax_function"
            )
        )
    if isinstance(value, TracedArray) or is_device_array(value):
        return value
    array = np.asarray(value)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _read_results(found: Any) -> tuple[tuple[Any, ...], bool]:
    """Give all results, and whether they are one."""
    if isinstance(found, Reduction) and found.job is not None:
        found = found()
    is_single = not isinstance(found, tuple | list)
    results = (found,) if is_single else tuple(found)
    for result in results:
        is_known = isinstance(result, TracedArray | np.ndarray | np.generic | int | float | complex)
        is_known = is_known or is_device_array(result)
        if not is_known or isinstance(result, bool):
            raise UnsupportedError(
                at_user_line(
                    f"the function to differentiate returned {type(result).__name__}, expected an array, a number, or "
                    "a tuple of them"
                )
            )
    return tuple(np.asarray(result) if _is_number(result) else result for result in results), is_single


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex)


def _like(given: Any, of: Any, what: str, owner: str = "the value") -> Any:
    """Read a cotangent or a tangent: an array of the shape and dtype of another."""
    spec = spec_of(of)
    if np.dtype(spec.dtype).kind != "c" and np.iscomplexobj(given):
        raise DtypeError(at_user_line(f"{what} is complex, expected real numbers, as {owner} is of {spec.dtype}"))
    read = given if isinstance(given, TracedArray) else library_beside(of).asarray(given, dtype=spec.dtype)
    if read.shape != spec.shape:
        raise ShapeError(at_user_line(f"{what} has shape {read.shape}, expected {spec.shape}, that of {owner}"))
    return read if read.dtype == spec.dtype else read.astype(spec.dtype)
