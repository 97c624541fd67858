"""Traces: which calls led from the arguments of a function to its results, and how derivatives go along them.

Each derivative that is taken of a function has a trace of its own. Its arguments are `TracedArray`s, around values that
may be arrays of an outer trace: the rules of a trace are calls on values, which the outer ones see as any other. That
is the way to any order.

Complex numbers are differentiated as JAX does: a cotangent c of z and a tangent t of it stand for the real number
Re(c t), so the rules of functions with a complex derivative are those of real ones, and conjugate nothing.
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.differentiation.traced_array import TracedArray

_NUMBERS = itertools.count(1)
_MOST_PENDING = 50
"""How many calls may wait for each other's values; each costs frames of Python's stack."""


class Spec(NamedTuple):
    """What is known of an array before its values."""

    shape: tuple[int, ...]
    dtype: Any


def spec_of(value: Any) -> Spec:
    """Give the shape and the dtype of an array; a number of Python is its own dtype, which gives way."""
    if isinstance(value, int | float | complex):
        return Spec((), value)
    spec = getattr(value, "spec", None)
    return Spec(tuple(value.shape), value.dtype) if spec is None else spec


@dataclass(frozen=True)
class Operation:
    """A function of arrays with its derivatives, written on values.

    Attributes:
        name: for messages.
        compute: from operands and attributes to a tuple of results, where no operand is traced.
        vjp: from a call and the cotangents of its results, None for 0, to those of its operands.
        jvp: from a call and the tangents of its operands, None for 0, to those of its results.
        specs: from the specs of operands and the attributes to those of results, where these can be told before the
            values: then a call can wait until its values are read.
        waits: whether calls do so in any case, not only where their operands do.
    """

    name: str
    compute: Callable[..., tuple[Any, ...]]
    vjp: Callable[[Call, Sequence[Any]], Sequence[Any]]
    jvp: Callable[[Call, Sequence[Any]], Sequence[Any]]
    specs: Callable[..., tuple[Spec, ...]] | None = None
    waits: bool = False


class Call:
    """One call of an operation in a trace.

    Attributes:
        operation: what was called; None for an argument of the function.
        operands: arrays of this trace, and values.
        attributes: what else it was given.
        pending: how many calls wait for values before this one can be computed, with this one.
    """

    __slots__ = ("_results", "_specs", "_trace", "attributes", "operands", "operation", "pending")

    def __init__(
        self,
        trace: Trace,
        operation: Operation | None,
        operands: Sequence[Any],
        attributes: Mapping[str, Any],
        results: tuple[Any, ...] | None = None,
    ) -> None:
        self._trace = weakref.ref(trace)
        self.operation = operation
        self.operands = operands
        self.attributes = attributes
        self.pending = 0
        self._results = results
        self._specs: tuple[Spec, ...] | None = None

    @property
    def trace(self) -> Trace:
        """Whose call this is; it remembers its calls, so they do not hold it."""
        return alive(self._trace)

    def varies(self, number: int) -> bool:
        """Whether an operand is an array of this trace."""
        return getattr(self.operands[number], "trace", None) is self.trace

    def operand(self, number: int) -> Any:
        """The value of an operand."""
        return self.trace.value_of(self.operands[number])

    @property
    def values(self) -> list[Any]:
        """Those of all operands."""
        return [self.trace.value_of(operand) for operand in self.operands]

    @property
    def x(self) -> Any:
        """The value of the first operand."""
        return self.operand(0)

    @property
    def y(self) -> Any:
        """The value of the second operand."""
        return self.operand(1)

    @property
    def z(self) -> Any:
        """The value of the third operand."""
        return self.operand(2)

    @property
    def result(self) -> Any:
        """The value of the only result."""
        return self.results[0]

    @property
    def results(self) -> tuple[Any, ...]:
        """The values of all results, computed now if they have not been."""
        if self._results is None:
            assert self.operation is not None
            self.give_results(apply(self.operation, *self.values, **self.attributes))
            assert self._results is not None
        return self._results

    @property
    def is_pending(self) -> bool:
        """Whether the results have not been computed."""
        return self._results is None

    def give_results(self, results: Sequence[Any]) -> None:
        """Say what the results are, as where they were found beside something else."""
        self._results = tuple(results)
        self._specs = None
        self.pending = 0

    def specs(self) -> tuple[Spec, ...]:
        """Shapes and dtypes of the results, without computing them where that can be."""
        if self._specs is None:
            if self._results is not None:
                self._specs = tuple(map(spec_of, self._results))
            else:
                assert self.operation is not None
                assert self.operation.specs is not None
                self._specs = self.operation.specs(*map(spec_of, self.operands), **self.attributes)
        return self._specs

    def begin(self) -> None:
        """Compute the results, or let them wait."""
        operation = self.operation
        assert operation is not None
        waiting = [self.trace.pending_of(operand) for operand in self.operands]
        self.pending = 1 + max(waiting, default=0)
        if operation.specs is None or self.pending > _MOST_PENDING or not (operation.waits or any(waiting)):
            assert self.results


def alive(reference: weakref.ref[Trace]) -> Trace:
    """Give a trace that is not over.

    Raises:
        UnsupportedError: it is, so an array was kept after the function that it belongs to.
    """
    trace = reference()
    if trace is None:
        raise UnsupportedError(
            at_user_line(
                "an array of a function that was differentiated is used after that: return it from the function"
            )
        )
    return trace


class Trace:
    """What is common to both modes.

    Attributes:
        number: traces that begin later have larger ones.
        with_values: whether the values of the function are wanted beside its gradients: what waits for its values may
            then find them there.
    """

    def __init__(self) -> None:
        self.number = next(_NUMBERS)
        self.with_values = False

    def value_of(self, operand: Any) -> Any:
        """The value behind an array of this trace; others are values."""
        return operand.value if getattr(operand, "trace", None) is self else operand

    def pending_of(self, operand: Any) -> int:
        """How many calls must be made before the value of an operand is there."""
        call = operand.call if getattr(operand, "trace", None) is self else None
        return 0 if call is None else call.pending

    def apply(self, operation: Operation, operands: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[Any, ...]:
        """Call an operation, at least one operand of which is an array of this trace."""
        raise NotImplementedError


class ReverseTrace(Trace):
    """Remembers all calls, to pull cotangents back through them."""

    def __init__(self, make: Callable[..., TracedArray]) -> None:
        super().__init__()
        self._make = make
        self._calls: list[Call] = []

    def argument(self, value: Any) -> TracedArray:
        """Make an argument of the function."""
        return self._make(self, call=Call(self, None, (), {}, (value,)), number=0)

    def apply(self, operation: Operation, operands: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[Any, ...]:
        """See `Trace`."""
        call = Call(self, operation, tuple(operands), attributes)
        call.begin()
        self._calls.append(call)
        return tuple(self._make(self, call=call, number=number) for number in range(len(call.specs())))

    def pull_back(
        self, results: Sequence[Any], cotangents: Sequence[Any], arguments: Sequence[TracedArray]
    ) -> list[Any]:
        """Give the cotangents of arguments, None for 0.

        Args:
            results: of the function; those that are no arrays of this trace do not depend on the arguments.
            cotangents: values, one for each result.
            arguments: made by `argument`.
        """
        found: dict[tuple[Call, int], Any] = {}

        def add(array: Any, cotangent: Any) -> None:
            if cotangent is not None and getattr(array, "trace", None) is self:
                place = (array.call, array.number)
                found[place] = found[place] + cotangent if place in found else cotangent

        for result, cotangent in zip(results, cotangents, strict=True):
            add(result, cotangent)
        for call in reversed(self._calls):
            own = [found.pop((call, number), None) for number in range(len(call.specs()))]
            if any(cotangent is not None for cotangent in own):
                assert call.operation is not None
                for operand, cotangent in zip(call.operands, call.operation.vjp(call, own), strict=True):
                    add(operand, cotangent)
        return [found.get((argument.call, argument.number)) for argument in arguments]


class ForwardTrace(Trace):
    """Carries a tangent along with each value."""

    def __init__(self, make: Callable[..., TracedArray]) -> None:
        super().__init__()
        self._make = make

    def argument(self, value: Any, tangent: Any) -> TracedArray:
        """Make an argument of the function."""
        return self._make(self, call=Call(self, None, (), {}, (value,)), number=0, tangent=tangent)

    def apply(self, operation: Operation, operands: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[Any, ...]:
        """See `Trace`."""
        call = Call(self, operation, tuple(operands), attributes)
        tangents = operation.jvp(call, [self.tangent_of(operand) for operand in operands])
        made = []
        for number, (value, tangent) in enumerate(zip(call.results, tangents, strict=True)):
            is_constant = tangent is None
            done = Call(self, None, (), {}, call.results)
            made.append(value if is_constant else self._make(self, call=done, number=number, tangent=tangent))
        return tuple(made)

    def tangent_of(self, array: Any) -> Any:
        """The tangent of an array, None for 0."""
        return array.tangent if getattr(array, "trace", None) is self else None


def apply(operation: Operation, *operands: Any, **attributes: Any) -> tuple[Any, ...]:
    """Call an operation: in the innermost trace that an operand is an array of, or at once where there is none."""
    innermost: Trace | None = None
    for operand in operands:
        trace = getattr(operand, "trace", None)
        if isinstance(trace, Trace) and (innermost is None or trace.number > innermost.number):
            innermost = trace
    if innermost is None:
        return operation.compute(*operands, **attributes)
    return innermost.apply(operation, operands, attributes)


def untraced(value: Any) -> Any:
    """Strip an array of all traces: what is computed from it has no derivative."""
    while isinstance(getattr(value, "trace", None), Trace):
        value = value.value
    return value


# Kinds of operations --------------------------------------------------------------------------------------------------


def fit(cotangent: Any, spec: Spec) -> Any:
    """Sum a cotangent over what an operand was repeated along, in the dtype of the operand."""
    shape = tuple(np.shape(cotangent))
    if shape != spec.shape:
        extra = len(shape) - len(spec.shape)
        axes = tuple(
            axis for axis in range(len(shape)) if axis < extra or (spec.shape[axis - extra] == 1 and shape[axis] != 1)
        )
        cotangent = np.reshape(np.sum(cotangent, axis=axes), spec.shape)
    return in_dtype(cotangent, spec.dtype)


def in_dtype(cotangent: Any, dtype: Any) -> Any:
    """Convert a cotangent to the dtype of its operand: one of a real operand is the real part."""
    if cotangent.dtype.kind == "c" and np.dtype(dtype).kind != "c":
        cotangent = np.real(cotangent)
    return cotangent if cotangent.dtype == dtype else cotangent.astype(dtype)


def _joint_spec(*specs: Spec) -> tuple[Spec, ...]:
    return (
        Spec(np.broadcast_shapes(*(spec.shape for spec in specs)), np.result_type(*(spec.dtype for spec in specs))),
    )


def elementwise(
    name: str, function: Callable[..., Any], *partials: Callable[[Call, Any], Any] | None, can_wait: bool = False
) -> Operation:
    """A function of each element: a row of partial derivatives, None where there is no influence.

    A partial derivative maps a call and a term to their product. That is its own adjoint, so it serves both modes.
    """

    def vjp(call: Call, cotangents: Sequence[Any]) -> list[Any]:
        (ct,) = cotangents
        return [
            fit(partial(call, ct), spec_of(call.operands[number])) if partial and call.varies(number) else None
            for number, partial in enumerate(partials)
        ]

    def jvp(call: Call, tangents: Sequence[Any]) -> list[Any]:
        terms = [partial(call, t) for partial, t in zip(partials, tangents, strict=True) if partial and t is not None]
        if not terms:
            return [None]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        shape = np.shape(call.result)
        return [total if np.shape(total) == shape else np.broadcast_to(total, shape)]

    return Operation(name, lambda *xs: (function(*xs),), vjp, jvp, specs=_joint_spec if can_wait else None)


def linear(
    name: str,
    function: Callable[..., Any],
    adjoint: Callable[[Call, Any], Any],
    specs: Callable[..., tuple[Spec, ...]] | None = None,
) -> Operation:
    """A linear function of one array, which is its own differential.

    Args:
        name: for messages.
        function: from an operand and attributes to a result.
        adjoint: from a call and the cotangent of the result to that of the operand.
        specs: as for `Operation`.
    """
    made: list[Operation] = []

    def jvp(call: Call, tangents: Sequence[Any]) -> Sequence[Any]:
        return apply(made[0], tangents[0], **call.attributes)

    made.append(
        Operation(
            name,
            lambda x, **attributes: (function(x, **attributes),),
            lambda call, cotangents: [adjoint(call, cotangents[0])],
            jvp,
            specs,
        )
    )
    return made[0]
