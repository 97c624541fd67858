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

from pylazy import arrays
from pylazy.execute import launch
from pylazy.expression import at_user_line
from pylazy.program_sizes import extents_of, rank_of_batch, result_over_nothing, result_shapes_of
from pylazy.programs import few_rows, find_by_text
from pylazy.reductions import REDUCTIONS, DerivedRequest, Order
from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.execute import Job, Wanted
    from pylazy.templates import Template

_SELECTIONS = frozenset({"min", "max", "kmin", "kmax"})


def call(template: Template, *given: Any, is_single: bool) -> Any:
    """Call a reduction with symbolic variables; see `jax_function`."""
    read = [jnp.asarray(array) for array in given]
    # A parameter may be a number; the template would make a new array of it, and we find ours by their identity.
    read = [array.reshape(1) if array.ndim == 0 else array for array in read]
    # Only shapes and dtypes are asked for, so that arrays may be tracers.
    stands = [np.broadcast_to(np.zeros((), array.dtype), array.shape) for array in read]
    job = template.bind(stands)
    if not any(_has_derivative(wanted) for wanted in job.wanted):
        read = [jax.lax.stop_gradient(array) for array in read]
    results = run_p.bind(
        *_inputs(job, stands, read),
        program=job.executable.text(),
        batch_ranks=tuple(source.batch for source in job.sources),
    )
    finished = tuple(
        _finished(result, wanted, job).reshape(shape)
        for result, wanted, shape in zip(results, job.wanted, job.shapes, strict=True)
    )
    return finished[0] if is_single else finished


def _has_derivative(wanted: Wanted) -> bool:
    """Whether the result varies with data; one of `_SELECTIONS` does, and is refused when it is differentiated."""
    return REDUCTIONS[wanted.kind].differentiable or wanted.kind == "mean" or wanted.kind in _SELECTIONS


def _inputs(job: Job, stands: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    """Give the inputs of the program, of its dtype: JAX's arrays where their stand-ins are, and constants."""
    found = []
    for source in job.sources:
        places = [place for place, stand in enumerate(stands) if source.array is stand]
        found.append(given[places[0]] if places else jnp.asarray(source.array))
    return [array.astype(_jax_dtype(job.dtype)) for array in found]


def _jax_dtype(dtype: str) -> Any:
    return jax.dtypes.canonicalize_dtype(dtype)


def _finished(result: Any, wanted: Wanted, job: Job) -> Any:
    """Make the result from that of another kind; see `ReductionKind.program`."""
    row = REDUCTIONS[wanted.kind]
    if wanted.kind == "mean":
        result = arrays.quotient(result, job.terms(result))
    elif row.program and not job.reduced_extent:
        result = jnp.full_like(result, row.empty or 0.0)
    return result.astype(_jax_dtype(row.result_dtype(job.storage)))


# What the primitive computes ------------------------------------------------------------------------------------------

run_p = Primitive("pylazy_run")
run_p.multiple_results = True


def _compute(*inputs: Any, program: str, batch_ranks: tuple[int, ...]) -> list[Any]:
    """Run a program on arrays that NumPy can see, as `torch_ops.run` does on tensors."""
    executable = find_by_text(program)
    request = executable.request
    extents = extents_of(request.inputs, inputs, batch_ranks)
    results = [
        np.empty(shape, result.dtype)
        for result, shape in zip(request.results, result_shapes_of(request, extents), strict=True)
    ]
    if extents.rows and extents.columns and 0 not in extents.batch:
        dtype = request.dtype
        seen = [np.asarray(array) for array in inputs]
        located = [
            arrays.Source(arrays.NUMPY, array, batch=rank, dtype=str(array.dtype), weak=False, view="").locate(dtype)
            for array, rank in zip(seen, batch_ranks, strict=True)
        ]
        launch(executable.load(few_rows(extents, dtype)), located, results, extents)
    else:
        for number, result in enumerate(results):
            result.fill(result_over_nothing(request, number))
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


def _push_forward(
    primals: Sequence[Any], tangents: Sequence[Any], *, program: str, batch_ranks: tuple[int, ...]
) -> tuple[list[Any], list[Any]]:
    executable = find_by_text(program)
    described = executable.request.results
    results = run_p.bind(*primals, program=program, batch_ranks=batch_ranks)
    if not all(result.differentiable for result in described):
        kinds = " and ".join(output.kind for output in executable.reductions.outputs)
        raise UnsupportedError(
            at_user_line(f"{kinds} has no derivative in JAX: use jax.lax.stop_gradient, or tensors of torch")
        )
    wrt = tuple(number for number, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero))
    saved = [(result, own) for result, own in zip(results, described, strict=True) if own.saved]
    derived = executable.derivative(Order("tangents", wrt))
    ranks = (*batch_ranks, *(rank_of_batch(*result) for result in saved), *(batch_ranks[number] for number in wrt))
    given = [tangents[number] for number in wrt]
    read = [result for result, _ in saved]
    return results, run_p.bind(*primals, *read, *given, program=derived.text(), batch_ranks=ranks)


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
        found[number] = arrays.sum_to_shape(result, inputs[number].aval.shape, batch_ranks[number])
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
