"""Derivatives of functions of NumPy arrays that end in a reduction: grad, value_and_grad, vjp and jvp.

The functions have JAX's names and conventions. A function is called once, with its arguments as variables: see `Primal`
for what it may do with them. It ends in one reduction, which is not run but differentiated as a program, so a value
and all its gradients are found together, in as few sweeps over the pairs as they allow. A function may be a `Genred` or
a symbolic `Reduction`, as they are functions of arrays.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy import arrays
from pylazy.execute import launch
from pylazy.expression import at_user_line
from pylazy.primals import Postponed, Primal, Recorder
from pylazy.reductions import REDUCTIONS, Order
from pylazy.runtime.errors import DtypeError, ShapeError, UnsupportedError
from pylazy.stages import Reduction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylazy.execute import Job

_FLOATS = ("float16", "float32", "float64")


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Make the function that gives the gradient of f.

    For example::

        def energy(x, y):
            return (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1).sum()

        of_x = pylazy.grad(energy)(x, y)

    Args:
        f: a function of arrays that returns one number: a reduction with a result of one element, or the `sum()` or
            `mean()` of one, also times constants.
        argnums: the number of the argument that the gradient is of, or several of them.

    Returns:
        A function of the same arguments. It gives an array like the argument, or a tuple of them for several.

    Raises:
        ShapeError: f returns more than one element, when the function that is made is called, like the next two.
        DtypeError: an argument is no NumPy array of floats and no number.
        UnsupportedError: f does something whose derivative is not known.
    """

    def gradient(*args: Any, **options: Any) -> Any:
        traced = _trace_scalar(f, args, argnums, options)
        needs_results = any(result.saved for result in traced.job.executable.request.results)
        _, gradients = _pull_back_one(traced, with_results=needs_results)
        return gradients[0] if traced.is_single else gradients

    return gradient


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """Make the function that gives the value of f and its gradient, by one program.

    The value shares a sweep with the gradients along the axis that the reduction keeps, unless these read the value, as
    those of logsumexp and sumsoftmaxweight do.

    Args:
        f: as for `grad`.
        argnums: as for `grad`.

    Returns:
        A function of the same arguments that gives (value, gradient).
    """

    def value_and_gradient(*args: Any, **options: Any) -> Any:
        traced = _trace_scalar(f, args, argnums, options)
        value, gradients = _pull_back_one(traced, with_results=True)
        return value, gradients[0] if traced.is_single else gradients

    return value_and_gradient


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Give the value of f, and the function from a cotangent of it to the gradients.

    Args:
        f: a function of arrays that ends in a reduction, of any shape.
        *primals: all its arguments, each differentiated.

    Returns:
        The value, and a function of an array of its shape, which gives a tuple with a gradient for each primal. The
        data of the primals is read again there.

    Raises:
        DtypeError: an argument is no NumPy array of floats and no number.
        UnsupportedError: f does something whose derivative is not known.
    """
    traced = _trace(f, primals, tuple(range(len(primals))), {})
    raw = traced.job.compute(arrays.NUMPY)
    saved = [result for result, own in zip(raw, traced.job.executable.request.results, strict=True) if own.saved]
    value = traced.value(raw)

    def pull_back(cotangent: Any) -> tuple[Any, ...]:
        given = np.asarray(cotangent, dtype=traced.job.dtype)
        if given.shape != traced.result.shape:
            raise ShapeError(
                at_user_line(
                    f"the cotangent has shape {given.shape}, expected {traced.result.shape}, that of the value"
                )
            )
        return _gradients(traced, given, saved, with_results=False)[1]

    return value, pull_back


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Give the value of f and its derivative in the direction of the tangents, by one program in forward mode.

    Args:
        f: a function of arrays that ends in a reduction, of any shape.
        primals: all its arguments.
        tangents: for each of them an array of its shape.

    Returns:
        The value and its tangent, of the same shape.

    Raises:
        ShapeError: the tangents do not have the shapes of the primals.
        DtypeError: an argument is no NumPy array of floats and no number.
        UnsupportedError: f does something whose derivative is not known.
    """
    if len(primals) != len(tangents):
        raise ShapeError(
            at_user_line(f"jvp was given {len(primals)} primals and {len(tangents)} tangents, expected as many")
        )
    traced = _trace(f, primals, tuple(range(len(primals))), {})
    directions = []
    for number, (primal, tangent) in enumerate(zip(traced.arguments, tangents, strict=True)):
        direction = np.asarray(tangent, dtype=traced.job.dtype)
        if direction.shape != primal.shape:
            raise ShapeError(
                at_user_line(
                    f"tangent {number} has shape {direction.shape}, expected {primal.shape}, that of the primal"
                )
            )
        directions.append(direction)
    value, tangent = _push_forward(traced, directions)
    return traced.value((value,)), traced.value((tangent,))


# Calling a function with variables ------------------------------------------------------------------------------------


class _Traced(NamedTuple):
    """A function on some arguments, as the reduction that it ends in.

    Attributes:
        result: what it returned.
        arguments: the arrays to differentiate, in the order in which gradients are given.
        inputs: for each of them the numbers of the inputs of the program that stand for it.
        is_single: whether one argument was asked for, not a tuple of them.
    """

    result: Postponed
    arguments: tuple[Any, ...]
    inputs: tuple[tuple[int, ...], ...]
    is_single: bool

    @property
    def job(self) -> Job:
        return self.result.job

    @property
    def wrt(self) -> tuple[int, ...]:
        """The numbers of all these inputs, ascending."""
        return tuple(sorted(number for numbers in self.inputs for number in numbers))

    def value(self, raw: tuple[Any, ...]) -> Any:
        """Make the value of the function, or a tangent of it, from the result of the reduction."""
        result = raw[self.result.number] * np.asarray(self.result.factor, dtype=self.job.dtype)
        if self.result.is_total:
            result = result.sum()
        return arrays.converted(np.asarray(result), self.job.storage)


def _trace_scalar(
    f: Callable[..., Any], args: Sequence[Any], argnums: int | Sequence[int], options: dict[str, Any]
) -> _Traced:
    traced = _trace(f, args, argnums, options)
    shape = traced.result.shape
    if math.prod(shape) != 1:
        raise ShapeError(
            at_user_line(
                f"the function to differentiate returned a reduction of shape {shape}, expected one element: return "
                "its sum() or mean(), or use pylazy.vjp"
            )
        )
    return traced


def _trace(
    f: Callable[..., Any], args: Sequence[Any], argnums: int | Sequence[int], options: dict[str, Any]
) -> _Traced:
    numbers = _read_argnums(argnums, len(args))
    recorder = Recorder()
    given = list(args)
    for number in numbers:
        given[number] = Primal(_read_argument(args[number], number), number, recorder)
    result = _read_result(f(*given, **options))
    kind = result.job.wanted[result.number].kind
    if len(result.job.wanted) > 1 or not (REDUCTIONS[kind].differentiable or kind == "mean"):
        known = ", ".join(name for name, row in REDUCTIONS.items() if row.differentiable)
        raise UnsupportedError(
            at_user_line(
                f"the function to differentiate ends in {' and '.join(wanted.kind for wanted in result.job.wanted)}, "
                f"which has no gradient program, expected mean or one of {known}: use tensors of torch"
            )
        )
    owners = [source.imported.owner if source.imported else None for source in result.job.sources]
    inputs = [
        tuple(k for k, owner in enumerate(owners) if isinstance(owner, Primal) and owner.argument == number)
        for number in numbers
    ]
    return _Traced(
        result, tuple(given[number].array for number in numbers), tuple(inputs), isinstance(argnums, int | np.integer)
    )


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


def _read_argument(value: Any, number: int) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = np.asarray(value, dtype=np.float64)
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.name not in _FLOATS:
        found = f"a NumPy array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise DtypeError(
            at_user_line(
                f"argument {number} is {found}, and a derivative of it is asked for: expected a NumPy array of "
                f"{', '.join(_FLOATS)} or a number. Tensors have torch's own autograd, arrays of JAX "
                "pylazy.jax_function"
            )
        )
    array = np.asarray(value)
    # DLPack hands over no array that is read-only or of another byte order.
    return array if array.flags.writeable and array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _read_result(result: Any) -> Postponed:
    if isinstance(result, Reduction) and not result.is_complex and result.job is not None and result.is_single:
        result = Postponed(result.job, 0)
    if not isinstance(result, Postponed):
        raise UnsupportedError(
            at_user_line(
                f"the function to differentiate returned {type(result).__name__}, expected the result of one reduction "
                "of its arguments"
            )
        )
    return result


# Running derivatives --------------------------------------------------------------------------------------------------


def _pull_back_one(traced: _Traced, *, with_results: bool) -> tuple[Any, tuple[Any, ...]]:
    """Give the value of a function of one element, or None, and its gradients."""
    one = np.ones(traced.result.shape, traced.job.dtype)
    value, gradients = _gradients(traced, one, (), with_results=with_results)
    return value if value is None else traced.value((value,)).reshape(traced.result.shape), gradients


def _gradients(
    traced: _Traced, cotangent: Any, saved: Sequence[Any], *, with_results: bool
) -> tuple[Any, tuple[Any, ...]]:
    """Run a gradient program for every batch element, then sum over batch dimensions that an input lacks.

    Args:
        traced: the function.
        cotangent: of its value.
        saved: the results that the program reads, where it does not compute them.
        with_results: whether it computes them.

    Returns:
        The result of the reduction, or None; for each argument its gradient.
    """
    job = traced.job
    inputs = job.executable.request.inputs
    batch, rows, columns = job.extents
    pairs = (rows or 0) * (columns or 0)
    extent = {"i": rows or 0, "j": columns or 0, "": 1, "ij": pairs, "ji": pairs}
    full = {
        number: np.zeros((*batch, extent[inputs[number].axis], inputs[number].dim), job.dtype) for number in traced.wrt
    }
    results = _empty_results(job) if with_results else []
    if not (rows and columns) or 0 in batch:
        job.fill_empty(results)
    elif full or with_results:
        weighted = np.broadcast_to(cotangent * traced.result.factor, job.shapes[0])
        if job.wanted[0].kind == "mean":
            weighted = arrays.quotient(weighted, job.terms(weighted))
        given = [np.ascontiguousarray(array, dtype=job.dtype) for array in (*saved, weighted)]
        program = job.executable.derivative(Order("wrt", traced.wrt, with_results)).load(job.few)
        job.check_tables(program)
        job.launch(program, [*given, *results, *full.values()])
    gradients = []
    for argument, numbers in zip(traced.arguments, traced.inputs, strict=True):
        total = np.zeros(argument.shape, job.dtype)
        for number in numbers:
            source = job.sources[number]
            own = arrays.sum_to_shape(full[number], source.shape, source.batch)
            total += own.reshape(argument.shape)
        gradients.append(arrays.converted(total, argument.dtype.name))
    return job.finish(results[0], job.wanted[0].kind) if results else None, tuple(gradients)


def _push_forward(traced: _Traced, directions: Sequence[Any]) -> tuple[Any, Any]:
    """Run a tangent program; gives the result of the reduction and its tangent."""
    job = traced.job
    value, tangent = (*_empty_results(job), *_empty_results(job))
    tangent[...] = 0.0
    batch, rows, columns = job.extents
    if not (rows and columns) or 0 in batch:
        job.fill_empty([value])
    else:
        given = {}
        for direction, numbers in zip(directions, traced.inputs, strict=True):
            for number in numbers:
                own = job.sources[number]
                seen = direction.reshape(own.shape)
                given[number] = arrays.Source(
                    arrays.NUMPY, seen, batch=own.batch, dtype=job.dtype, weak=False, view=""
                ).locate(job.dtype)
        program = job.executable.derivative(Order("tangents", traced.wrt, with_results=True)).load(job.few)
        located = [*job.locate(), *(given[number] for number in traced.wrt)]
        launch(program, located, [value, tangent], job.extents, job.ranges)
    kind = job.wanted[0].kind
    if kind == "mean":
        tangent = arrays.quotient(tangent, job.terms(tangent))
    return job.finish(value, kind), tangent


def _empty_results(job: Job) -> list[Any]:
    return [arrays.empty_result(arrays.NUMPY, shape, job.dtype) for shape in job.shapes]
