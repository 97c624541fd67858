"""The primitive of JAX that runs a program, closed under differentiation and vmap.

To JAX every reduction is a call of one primitive, `pylazy_run`, whose derivatives and batches are calls of it with the
text of a derived program. So each transformation is one rule, and they nest as JAX lets them. On the CPU a call is a
`jax.pure_callback`, which reads and writes JAX's own memory.

Imported only by `pylazy.jax_function`, as it needs JAX.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from pylazy.arrays.results import quotient, sum_to_shape
from pylazy.arrays.sources import Source, array_source
from pylazy.differentiation.program_derivatives import push_forward
from pylazy.differentiation.selections import select
from pylazy.execution.program_runs import run_on_arrays
from pylazy.execution.program_sizes import extents_of, rank_of_batch, result_shapes_of
from pylazy.execution.programs import find_by_text
from pylazy.reductions import REDUCTIONS, SELECTIONS, DerivedRequest, Order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.execution.job import Job
    from pylazy.execution.templates import Template
    from pylazy.execution.wanted_results import Wanted
    from pylazy.spreads import Divisor


def call(template: Template, *given: Any, is_single: bool) -> Any:
    """Call a reduction with symbolic variables; see `jax_function`."""
    read = _read(given)
    data = _Data.of(read)
    job = template.bind(data.stands)
    kinds = {wanted.kind.removeprefix("arg") for wanted in job.wanted}
    results = _select(template, read) if kinds <= SELECTIONS and job.reduced_extent else _run(job, data)
    return results[0] if is_single else results


def call_complex(template: Template, *given: Any, drop_inner: bool) -> Any:
    """Call a reduction to complex numbers: all real parts, then all imaginary parts, of which JAX makes them."""
    planar = call(template, *given, is_single=True)
    planar = planar.astype(jnp.promote_types(planar.dtype, jnp.float32))
    dim = planar.shape[-1] // 2
    found = jax.lax.complex(planar[..., :dim], planar[..., dim:])
    return found[..., 0] if drop_inner else found


def call_spread(mean: Template, sums: Template, divisor: Divisor, *given: Any) -> Any:
    """Call a variance or a standard deviation; see `pylazy.spreads.Spread`."""
    read = _read(given)
    data = _Data.of(read)
    first = mean.bind(data.stands)
    data = _Data.of([*read, jax.lax.stop_gradient(_run(first, data, rounded=False)[0])])
    second = sums.bind(data.stands)
    found = _run(second, data, rounded=False)[0]
    return divisor.finish(found, second.terms(found)).astype(_jax_dtype(first.storage))


def _read(given: Sequence[Any]) -> list[Any]:
    arrays_given = [_parts_in_turn(jnp.asarray(array)) for array in given]
    # A parameter may be a number; the template would make a new array of it, and we find ours by their identity.
    return [array.reshape(1) if array.ndim == 0 else array for array in arrays_given]


def _parts_in_turn(array: Any) -> Any:
    """See complex numbers as twice as many real ones."""
    if array.dtype.kind != "c":
        return array
    parts = jnp.stack([array.real, array.imag], axis=-1)
    return parts.reshape((*array.shape[:-1], -1) if array.ndim else (2,))


class _Data:
    """JAX's arrays, which may be tracers, and what stands for them where only shapes and dtypes are asked for.

    Attributes:
        stands: one for each array.
    """

    def __init__(self) -> None:
        self.stands: list[Any] = []
        self._given: list[Any] = []

    @staticmethod
    def of(given: Sequence[Any]) -> _Data:
        data = _Data()
        for array in given:
            data.stand_for(array)
        return data

    def stand_for(self, array: Any) -> Any:
        """Make what stands for an array."""
        stand = np.broadcast_to(np.zeros((), array.dtype), array.shape)
        self.stands.append(stand)
        self._given.append(array)
        return stand

    def inputs(self, job: Job) -> list[Any]:
        """Give the inputs of the program, of its dtype: JAX's arrays where their stand-ins are, and constants."""
        found = []
        for source in job.sources:
            places = [place for place, stand in enumerate(self.stands) if source.array is stand]
            found.append(self._given[places[0]] if places else jnp.asarray(source.array))
        return [array.astype(_jax_dtype(job.dtype)) for array in found]


def _run(job: Job, data: _Data, *, rounded: bool = True) -> tuple[Any, ...]:
    """Run a job; where `rounded`, in the dtypes that users see, else in that of the arithmetic."""
    inputs = data.inputs(job)
    if not any(_has_derivative(wanted) for wanted in job.wanted):
        inputs = [jax.lax.stop_gradient(array) for array in inputs]
    results = run_p.bind(
        *inputs, program=job.executable.text(), batch_ranks=tuple(source.batch for source in job.sources)
    )
    return tuple(
        _finished(result, wanted, job, rounded=rounded).reshape(shape)
        for result, wanted, shape in zip(results, job.wanted, job.shapes, strict=True)
    )


def _has_derivative(wanted: Wanted) -> bool:
    """Whether the result varies with data."""
    return REDUCTIONS[wanted.kind].differentiable or wanted.kind == "mean"


def _jax_dtype(dtype: str) -> Any:
    return jax.dtypes.canonicalize_dtype(dtype)


def _finished(result: Any, wanted: Wanted, job: Job, *, rounded: bool) -> Any:
    """Make the result from that of another kind; see `ReductionKind.program`."""
    row = REDUCTIONS[wanted.kind]
    if wanted.kind == "mean":
        result = quotient(result, job.terms(result))
    elif row.program and not job.reduced_extent:
        result = jnp.full_like(result, row.empty or 0.0)
    return result.astype(_jax_dtype(row.result_dtype(job.storage if rounded else job.dtype)))


# Selections -----------------------------------------------------------------------------------------------------------


def _select(template: Template, read: Sequence[Any]) -> tuple[Any, ...]:
    """Run a selection: alone by its program, where it is differentiated by `pylazy.differentiation.selections`."""

    def selected(*given: Any) -> tuple[Any, ...]:
        data = _Data.of(given)
        return _run(template.bind(data.stands), data)

    def with_derivative(*given: Any) -> tuple[Any, ...]:
        data = _Data.of(given)
        job = template.bind(data.stands)
        return tuple(
            result.astype(_jax_dtype(REDUCTIONS[wanted.kind].result_dtype(job.storage)))
            for result, wanted in zip(select(job, _JaxArrays(data)), job.wanted, strict=True)
        )

    function: Any = jax.custom_jvp(selected)
    function.defjvp(lambda primals, tangents: jax.jvp(with_derivative, primals, tangents))
    results: tuple[Any, ...] = function(*read)
    return results


class _JaxArrays:
    """JAX's arrays; see `pylazy.differentiation.selections.Library`."""

    def __init__(self, data: _Data) -> None:
        self._data = data

    def arange(self, count: int, like: Any) -> Any:
        del like
        return jnp.arange(count)

    def broadcast(self, array: Any, shape: tuple[int, ...]) -> Any:
        return jnp.broadcast_to(array, shape)

    def take(self, array: Any, positions: Any, axis: int) -> Any:
        return jnp.take_along_axis(array, positions, axis)

    def where_finite(self, values: Any, then: Any, otherwise: Any) -> Any:
        return jnp.where(jnp.isfinite(values), then, otherwise)

    def where_zero(self, counts: Any, then: Any, otherwise: Any) -> Any:
        return jnp.where(counts == 0, then, otherwise)

    def detached(self, array: Any) -> Any:
        return jax.lax.stop_gradient(array)

    def as_dtype(self, array: Any, dtype: str) -> Any:
        return array.astype(_jax_dtype(dtype))

    def inputs(self, job: Job) -> list[Any]:
        return self._data.inputs(job)

    def source(self, array: Any, *, batch: int, weak: bool) -> Source:
        stand = self._data.stand_for(array)
        return array_source(stand, what="a gathered input", batch=batch, view="pairs", weak=weak)

    def run_as_constant(self, job: Job) -> tuple[Any, ...]:
        return tuple(jax.lax.stop_gradient(result) for result in _run(job, self._data))

    def run(self, job: Job) -> Any:
        return _run(job, self._data, rounded=False)[0]


# What the primitive computes ------------------------------------------------------------------------------------------

run_p = Primitive("pylazy_run")
run_p.multiple_results = True


def _compute(*inputs: Any, program: str, batch_ranks: tuple[int, ...]) -> list[Any]:
    results = run_on_arrays(find_by_text(program), inputs, batch_ranks)
    return [result.astype(_jax_dtype(str(result.dtype)), copy=False) for result in results]


def _shapes(*inputs: Any, program: str, batch_ranks: tuple[int, ...]) -> list[Any]:
    request = find_by_text(program).request
    shapes = result_shapes_of(request, extents_of(request.inputs, inputs, batch_ranks))
    return [ShapedArray(shape, _jax_dtype(result.dtype)) for shape, result in zip(shapes, request.results, strict=True)]


def _call_back(*inputs: Any, **call: Any) -> Any:
    shapes = [jax.ShapeDtypeStruct(found.shape, found.dtype) for found in _shapes(*inputs, **call)]
    return jax.pure_callback(partial(_compute, **call), shapes, *inputs)


def _compute_now(*inputs: Any, **call: Any) -> list[Any]:
    return [jnp.asarray(result) for result in _compute(*inputs, **call)]


# Its derivatives ------------------------------------------------------------------------------------------------------


def _bind(inputs: Sequence[Any], program: str, batch_ranks: Sequence[int]) -> Any:
    return run_p.bind(*inputs, program=program, batch_ranks=tuple(batch_ranks))


def _push_forward(
    primals: Sequence[Any], tangents: Sequence[Any], *, program: str, batch_ranks: tuple[int, ...]
) -> tuple[list[Any], list[Any]]:
    executable = find_by_text(program)
    results = _bind(primals, program, batch_ranks)
    given = [None if isinstance(tangent, ad.Zero) else tangent for tangent in tangents]
    found = push_forward(_bind, executable, primals, batch_ranks, results, given)
    return results, [
        ad.Zero.from_primal_value(result) if tangent is None else tangent
        for result, tangent in zip(results, found, strict=True)
    ]


def _transpose(cotangents: Sequence[Any], *inputs: Any, program: str, batch_ranks: tuple[int, ...]) -> list[Any]:
    """Transpose a program that is linear in its last inputs: of tangents, or of gradients in the cotangents."""
    request = find_by_text(program).request
    linear = [number for number, given in enumerate(inputs) if ad.is_undefined_primal(given)]
    assert isinstance(request, DerivedRequest), "JAX transposes linear functions only"
    first = len(request.inputs) - _count_given(request)
    assert linear[0] >= first, "JAX transposes with respect to linear inputs only"
    given = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    if request.order.mode == "tangents":
        wrt = tuple(request.order.numbers[number - first] for number in linear)
        transposed = DerivedRequest(request.forward, Order("wrt", wrt))
        picked = range(len(wrt))
    else:
        transposed = DerivedRequest(request.forward, Order("tangents", request.order.numbers))
        picked = [number - first for number in linear]  # type: ignore[assignment]
    results = run_p.bind(
        *inputs[:first],
        *given,
        program=transposed.canonical_text(),
        batch_ranks=(*batch_ranks[:first], *map(rank_of_batch, given, request.results)),
    )
    found: list[Any] = [None] * len(inputs)
    for number, place in zip(linear, picked, strict=True):
        result = results[place]
        if len(transposed.results[place].axis) == 2:  # pairs, whose rows and columns are one dimension here
            result = result.reshape(*result.shape[:-3], -1, result.shape[-1])
        found[number] = sum_to_shape(result, inputs[number].aval.shape, batch_ranks[number])
    return found


def _count_given(request: DerivedRequest) -> int:
    """Count the inputs that a derivative is linear in."""
    return len(request.forward.results) if request.order.mode == "wrt" else len(request.order.numbers)


def _batch(
    inputs: Sequence[Any], dims: Sequence[Any], *, program: str, batch_ranks: tuple[int, ...]
) -> tuple[list[Any], list[int]]:
    """Move the dimension of vmap to the batch dimensions of the kernel; none is looped over."""
    longest = max(batch_ranks)
    moved, ranks = [], []
    for array, rank, dim in zip(inputs, batch_ranks, dims, strict=True):
        if dim is None:
            moved.append(array)
            ranks.append(rank)
        else:
            first = jnp.moveaxis(array, dim, 0)
            moved.append(first.reshape(first.shape[0], *(1,) * (longest - rank), *first.shape[1:]))
            ranks.append(longest + 1)
    results = run_p.bind(*moved, program=program, batch_ranks=tuple(ranks))
    return results, [0] * len(results)


run_p.def_impl(_compute_now)
run_p.def_abstract_eval(_shapes)
mlir.register_lowering(run_p, mlir.lower_fun(_call_back, multiple_results=True))
ad.primitive_jvps[run_p] = _push_forward
ad.primitive_transposes[run_p] = _transpose
batching.primitive_batchers[run_p] = _batch
