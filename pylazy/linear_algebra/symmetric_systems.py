"""Symmetric systems: how they are to be solved, what they are solved with, and the operator of a formula."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pylazy.arrays.array_libraries import is_seen, is_tensor, is_traced
from pylazy.arrays.imported_arrays import Imported, readable
from pylazy.arrays.results import converted, detached, given_back, host_device, in_kind_of
from pylazy.arrays.source_devices import check_devices
from pylazy.arrays.sources import DEVICE, DLPACK, NUMPY, TORCH, own_array, remembers, source_like
from pylazy.differentiation.array_spaces import is_device_array, library_beside
from pylazy.expression import Expression, replace_leaves
from pylazy.lazy_formula import new, read_index
from pylazy.linear_algebra.krylov import METHODS, ConvergenceWarning, first_not_finite, refined
from pylazy.linear_algebra.preconditioners import NAMED
from pylazy.runtime.errors import DtypeError, NonFiniteError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line, resolve, user_position

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.arrays.sources import Source
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.job import Job
    from pylazy.execution.templates import Template
    from pylazy.lazy_formula import LazyFormula
    from pylazy.linear_algebra.krylov import Product
    from pylazy.options import Backend

_LEAST_ITERATIONS = 100
_MOST_ITERATIONS = 10_000


@dataclass(frozen=True)
class Settings:
    """How to solve a system.

    Attributes:
        alpha: added to the diagonal; a number, or a torch tensor or a traced array of one.
        eps: tolerance on the root mean square of the residual of each right-hand side, in the unit of the right-hand
            sides.
        max_iterations: None for ten times the number of rows, at least 100 and at most 10,000.
        method: a row of `METHODS`.
        preconditioner: None, a row of `NAMED`, or a function from residuals (*batch, N, E) to as many vectors.
        rank: of the preconditioner "nystrom".
    """

    alpha: Any = 1e-10
    eps: float = 1e-6
    max_iterations: int | None = None
    method: str = "cg"
    preconditioner: str | Callable[[Any], Any] | None = None
    rank: int | None = None


def as_number(value: Any) -> float:
    """The value of a number, or of an array or tensor of one."""
    if is_traced(value):
        value = readable(value).array
    return float(value.detach() if is_tensor(value) else value)


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Check what can be checked without data.

    Raises:
        DtypeError: a number is none.
        ShapeError: a number is out of its range.
        UnsupportedError: there is no such method or preconditioner.
    """
    settings = Settings(**given)
    for name, low in (("alpha", -math.inf), ("eps", 0.0)):
        value = getattr(settings, name)
        try:
            number = as_number(value)
        except (TypeError, ValueError, RuntimeError):
            raise DtypeError(at_user_line(f"{name} is {type(value).__name__}, expected a number")) from None
        if not (math.isfinite(number) and number >= low):
            expected = "a finite number" if low < 0 else "a finite number of at least 0"
            raise ShapeError(at_user_line(f"{name} is {number}, expected {expected}"))
    if settings.max_iterations is not None and read_index(settings.max_iterations, "max_iterations") < 0:
        raise ShapeError(at_user_line(f"max_iterations is {settings.max_iterations}, expected at least 0"))
    if settings.method not in METHODS:
        raise UnsupportedError(
            at_user_line(f"method is {settings.method!r}, expected one of {', '.join(map(repr, METHODS))}")
        )
    if not (settings.preconditioner is None or callable(settings.preconditioner) or settings.preconditioner in NAMED):
        raise UnsupportedError(
            at_user_line(
                f"preconditioner is {settings.preconditioner!r}, expected None, a function, or one of "
                f"{', '.join(map(repr, NAMED))}"
            )
        )
    return settings


class Operator(Protocol):
    """A square linear map of vectors, which are arrays of shape (*batch, N, E)."""

    def parameters(self) -> tuple[Any, ...]:
        """The tensors and traced arrays that the map depends on and whose gradient is wanted."""

    def rank_of(self, number: int) -> int:
        """The number of dimensions of a parameter beside those of a batch; 2 where it multiplies vectors."""

    def product(self, v: Any, parameters: Sequence[Any] | None = None) -> Any:
        """Apply the map, on these tensors in the place of its parameters if they are given."""


class System:
    """An operator with all that is needed to solve with it, for any right-hand side."""

    def __init__(self, operator: Operator, settings: Settings, precondition: Product | None) -> None:
        self.operator = operator
        self._settings = settings
        self._precondition = precondition

    def solve(self, b: Any, parameters: Sequence[Any] | None = None) -> Any:
        """Solve without a word to autograd; a warning says where the tolerance is not met.

        Args:
            b: right-hand sides.
            parameters: arrays in the place of the operator's own, see `Operator`.
        """
        place = first_not_finite(b)
        if place is not None:
            raise NonFiniteError(
                at_user_line(f"b is {float(b[place])} at index {place}, expected finite numbers in right-hand sides")
            )
        settings = self._settings
        most = settings.max_iterations
        if most is None:
            most = min(max(10 * b.shape[-2], _LEAST_ITERATIONS), _MOST_ITERATIONS)
        # Only products are rounded to the dtype of the formula: they cost N times what the rest does.
        product = _in_dtype_of(b, lambda v: self.operator.product(v, parameters))
        precondition = None if self._precondition is None else _in_dtype_of(b, self._precondition)
        with np.errstate(all="ignore"):  # what is not finite is an error, which names the place
            found = refined(
                METHODS[settings.method],
                product,
                _in_double(b),
                eps=float(settings.eps),
                max_iterations=most,
                precondition=precondition,
            )
        if not found.converged:
            remedy = "raise max_iterations, alpha or eps, or give a preconditioner"
            if found.is_indefinite:
                remedy = "the operator is not positive definite: use method='minres', or raise alpha"
            _warn(
                f"{settings.method} stopped after {found.iterations} iterations with a residual of root mean square "
                f"{found.residual:.3g}, above eps = {settings.eps:g}: {remedy}",
                residual=found.residual,
                iterations=found.iterations,
            )
        return _like(b, found.solution)


def _in_dtype_of(b: Any, product: Product) -> Product:
    return lambda v: _in_double(product(_like(b, v)))


def _in_double(values: Any) -> Any:
    # Products of arrays of another library are its own.
    if is_tensor(values):
        return values.double()
    return values.astype(np.float64, copy=False) if is_device_array(values) else np.asarray(values, dtype=np.float64)


def _like(b: Any, values: Any) -> Any:
    return values.to(b.dtype) if is_tensor(b) else values.astype(b.dtype)


def solve_system(system: System, b: Any) -> Any:
    """Solve a system, by a call that is remembered where a gradient may be asked for."""
    parameters = system.operator.parameters()
    if any(map(is_traced, (b, *parameters))):
        from pylazy.differentiation.recorded_systems import solve_recorded

        return solve_recorded(system, b, parameters)
    if is_tensor(b) and any(map(is_seen, (b, *parameters))):
        from pylazy.pytorch.torch_solve import solve_differentiable

        return solve_differentiable(system, b, parameters)
    return system.solve(b)


class FormulaOperator:
    """The shifted product `alpha * v + sum of the formula, which is linear in v`."""

    def __init__(
        self,
        template: Template,
        data: Sequence[Any],
        place: int,
        alpha: Any,
        *,
        ranges: Ranges | None = None,
        backend: Backend | None = None,
    ) -> None:
        """Bind a formula to its data.

        Args:
            template: the sum, with the vector as one of its arguments.
            data: all arguments, some vector among them.
            place: of the vector among the arguments.
            alpha: a number, or a tensor of one.
            ranges: the pairs to sum over, where they are not those of the template.
            backend: where to run, where it is not that of the template.

        Raises:
            ShapeError: the operator is not square, or the arguments do not fit.
            UnsupportedError: the arrays lie on a GPU, and are of neither torch nor CuPy.
        """
        self._template = template
        self._ranges = ranges
        self._backend = backend
        # Traced arrays are parameters, which each product is given anew; the operator may outlive their trace.
        self._data = [detached(array) if is_traced(array) else array for array in data]
        self._place = place
        job = template.bind(data, ranges, backend)
        extents = job.extents
        if extents.rows != extents.columns:
            raise ShapeError(
                at_user_line(
                    f"the operator has {extents.rows} rows and {extents.columns} columns, expected a square one"
                )
            )
        dim = template.arguments[place].dim
        if job.shapes[0][-1] != dim:
            raise ShapeError(
                at_user_line(
                    f"the operator maps vectors of {dim} components to {job.shapes[0][-1]}, expected as many: "
                    "K is of one component, or of those of b"
                )
            )
        self.dtype = job.dtype
        self.shape = job.shapes[0]
        self._sources = job.sources
        is_learnt = is_traced(alpha) or (is_tensor(alpha) and is_seen(alpha))
        is_learnt_tensor = is_learnt and not is_traced(alpha)
        self.kind = TORCH if is_learnt_tensor else check_devices(job.sources)
        check_solvable(job.sources)
        self._alpha = alpha if is_learnt else as_number(alpha)
        own = template.inputs_of(place)
        self._numbers = [number for number, source in enumerate(job.sources) if number not in own and remembers(source)]
        wanted = [job.sources[number] for number in self._numbers]
        self._tensors = [*map(own_array, wanted), *([alpha] if is_learnt else [])]
        self._ranks = [*(len(source.shape) - source.batch for source in wanted), 2]

    def parameters(self) -> tuple[Any, ...]:
        """The arrays of the formula, and alpha, whose gradient may be asked for; in the dtype of the formula."""
        return tuple(converted(tensor, self.dtype) for tensor in self._tensors)

    def rank_of(self, number: int) -> int:
        """See `Operator`."""
        return self._ranks[number]

    def product(self, v: Any, parameters: Sequence[Any] | None = None) -> Any:
        """See `Operator`."""
        data = self._data
        data[self._place] = v
        job = self._template.bind(data, self._ranges, self._backend)
        alpha = self._alpha
        if parameters is not None:
            _substitute(job, self._numbers, parameters)
            if len(parameters) > len(self._numbers):
                alpha = parameters[-1]
        result = job.run()[0]
        if self.kind == DLPACK:
            result = in_kind_of(result, v)
        if isinstance(alpha, float) and alpha == 0.0:
            return result
        return result + alpha * v

    def prepare(self, b: Any) -> Any:
        """Give right-hand sides the kind, dtype and shape of the vectors."""
        if is_traced(b):
            return np.broadcast_to(b.astype(self.dtype), self.shape)
        if b.__class__ is Imported:
            b = b.array
        if self.kind == DEVICE:
            return library_beside(b).ascontiguousarray(np.broadcast_to(b.astype(self.dtype), self.shape))
        if self.kind in (NUMPY, DLPACK):
            return np.array(np.broadcast_to(np.asarray(b), self.shape), dtype=self.dtype)
        torch = sys.modules["torch"]
        b = b if is_tensor(b) else torch.as_tensor(b, device=host_device())
        return b.to(getattr(torch, self.dtype)).expand(self.shape).contiguous()

    def given_back(self, solution: Any) -> Any:
        """Hand a solution over to the library whose arrays are among the data, if that is neither NumPy nor torch."""
        return given_back(solution, self._sources) if self.kind == DLPACK else solution


def check_solvable(sources: Sequence[Source]) -> None:
    """Check that a solver can compute with vectors that lie where the data of an operator does.

    Raises:
        UnsupportedError: that is on a GPU, in a library that NumPy's functions do not give way to.
    """
    for source in sources:
        array = source.array
        if source.kind == DEVICE and not is_device_array(array):
            raise UnsupportedError(
                at_user_line(
                    f"a linear system with arrays of type {type(array).__name__} on a GPU is not there: use tensors of "
                    "torch, arrays of CuPy, or arrays of the host"
                )
            )


def _substitute(job: Job, numbers: Sequence[int], tensors: Sequence[Any]) -> None:
    for number, tensor in zip(numbers, tensors, strict=False):
        job.sources[number] = source_like(job.sources[number], tensor)


def named_preconditioner(name: str, formula: LazyFormula, settings: Settings, like: Any) -> Product:
    """Make a preconditioner from the entries of a formula, apart from autograd."""
    if is_traced(like):
        like = readable(like).array
    if is_tensor(like) and sys.modules["torch"]._C._are_functorch_transforms_active():
        raise UnsupportedError(
            at_user_line(f"the preconditioner {name!r} is not there in transformations of torch.func: give a function")
        )
    formula = _without_traces(formula)
    options = {"alpha": as_number(settings.alpha), "like": like, "rank": settings.rank}
    if not is_tensor(like):
        return NAMED[name](formula, **options)
    with sys.modules["torch"].no_grad():
        return NAMED[name](formula, **options)


def _without_traces(x: LazyFormula) -> LazyFormula:
    """Give a formula on the values of its traced arrays: a preconditioner has no derivative."""

    def untraced(leaf: Expression) -> Expression:
        if leaf.op != "var" or leaf.source.imported is None:
            return leaf
        source = source_like(leaf.source, leaf.source.array)
        return Expression("var", (), leaf.attributes, leaf.axes, leaf.dim, leaf.dtype, source, leaf.position)

    expression = replace_leaves(x._expression, untraced)
    return new(x._formula_class, expression, x._batch, x._rows, x._columns, x._backend, x._ranges)


def split_options(options: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Tell what is meant for the solver from what is meant for its reductions."""
    names = {field.name for field in fields(Settings)}
    own = {name: value for name, value in options.items() if name in names}
    return read_settings(own), {name: value for name, value in options.items() if name not in names}


def _warn(message: str, *, residual: float, iterations: int) -> None:
    place = resolve(user_position())
    warnings.warn_explicit(
        ConvergenceWarning(message, residual=residual, iterations=iterations), None, place.filename, place.line
    )
