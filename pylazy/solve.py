"""Symmetric linear systems whose matrix is a formula, or whose product with a vector is one."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pylazy import arrays
from pylazy.execute import Wanted, flatten
from pylazy.expression import at_user_line, resolve, user_position
from pylazy.krylov import METHODS, ConvergenceWarning, first_not_finite, refined
from pylazy.lazy_formula import LazyFormula, read_index
from pylazy.operands import combine, symbolic
from pylazy.preconditioners import NAMED, checked
from pylazy.runtime.errors import AxisError, DtypeError, NonFiniteError, ShapeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.execute import Job
    from pylazy.krylov import Product
    from pylazy.stages import Reduction
    from pylazy.templates import Template

_LEAST_ITERATIONS = 100
_MOST_ITERATIONS = 10_000


@dataclass(frozen=True)
class Settings:
    """How to solve a system.

    Attributes:
        alpha: added to the diagonal; a number or a torch tensor of one.
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
    return float(value.detach() if arrays.is_tensor(value) else value)


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
        """The tensors that the map depends on and whose gradient is wanted."""

    def product(self, v: Any, parameters: Sequence[Any] | None = None) -> Any:
        """Apply the map, on these tensors in the place of its parameters if they are given."""


class System:
    """An operator with all that is needed to solve with it, for any right-hand side."""

    def __init__(self, operator: Operator, settings: Settings, precondition: Product | None) -> None:
        self.operator = operator
        self._settings = settings
        self._precondition = precondition

    def solve(self, b: Any) -> Any:
        """Solve without a word to autograd; a warning says where the tolerance is not met."""
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
        product = _in_dtype_of(b, self.operator.product)
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
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values.double()


def _like(b: Any, values: Any) -> Any:
    return values.astype(b.dtype) if isinstance(b, np.ndarray) else values.to(b.dtype)


def solve_system(system: System, b: Any) -> Any:
    """Solve a system, in a node of the graph of autograd where a tensor requires a gradient."""
    if not isinstance(b, np.ndarray) and sys.modules["torch"].is_grad_enabled():
        parameters = system.operator.parameters()
        if parameters or b.requires_grad:
            from pylazy.torch_solve import solve_differentiable

            return solve_differentiable(system, b, parameters)
    return system.solve(b)


class FormulaOperator:
    """The shifted product `alpha * v + sum of the formula, which is linear in v`."""

    def __init__(self, template: Template, data: Sequence[Any], place: int, alpha: Any) -> None:
        """Bind a formula to its data.

        Args:
            template: the sum, with the vector as one of its arguments.
            data: all arguments, some vector among them.
            place: of the vector among the arguments.
            alpha: a number, or a tensor of one.

        Raises:
            ShapeError: the operator is not square, or the arguments do not fit.
        """
        self._template = template
        self._data = list(data)
        self._place = place
        job = template.bind(data)
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
        self.kind = arrays.check_devices(job.sources)
        is_learnt = arrays.is_tensor(alpha) and alpha.requires_grad and self.kind == arrays.TORCH
        self._alpha = alpha if is_learnt else as_number(alpha)
        own = template.inputs_of(place)
        self._numbers = [
            number
            for number, source in enumerate(job.sources)
            if source.kind == arrays.TORCH and number not in own and source.array.requires_grad
        ]
        self._tensors = [job.sources[number].array for number in self._numbers] + ([alpha] if is_learnt else [])

    def parameters(self) -> tuple[Any, ...]:
        """The tensors of the formula, and alpha, that require a gradient; in the dtype of the formula."""
        dtype = getattr(sys.modules["torch"], self.dtype)
        return tuple(tensor.to(dtype) for tensor in self._tensors)

    def product(self, v: Any, parameters: Sequence[Any] | None = None) -> Any:
        """See `Operator`."""
        data = self._data
        data[self._place] = v
        job = self._template.bind(data)
        alpha = self._alpha
        if parameters is not None:
            _substitute(job, self._numbers, parameters)
            if len(parameters) > len(self._numbers):
                alpha = parameters[-1]
        result = job.run()[0]
        if isinstance(alpha, float) and alpha == 0.0:
            return result
        return result + alpha * v

    def prepare(self, b: Any) -> Any:
        """Give right-hand sides the kind, dtype and shape of the vectors."""
        if self.kind == arrays.NUMPY:
            return np.array(np.broadcast_to(b, self.shape), dtype=self.dtype)
        torch = sys.modules["torch"]
        return torch.as_tensor(b).to(getattr(torch, self.dtype)).expand(self.shape).contiguous()


def _substitute(job: Job, numbers: Sequence[int], tensors: Sequence[Any]) -> None:
    for number, tensor in zip(numbers, tensors, strict=False):
        old = job.sources[number]
        job.sources[number] = arrays.Source(
            arrays.TORCH, tensor, batch=old.batch, dtype=job.dtype, weak=old.weak, view=""
        )


class LinearSystem:
    """A linear system that has not been solved: call it.

    Data that is stored in the formula and in the right-hand side is read at each call; data of symbolic variables is
    given at each call, as for `Reduction`, the right-hand side in the place of the unknown.
    """

    def __init__(
        self,
        reduction: Reduction,
        place: int,
        settings: Settings,
        *,
        formula: LazyFormula | None = None,
        right: _RightSide | None = None,
    ) -> None:
        self._reduction = reduction
        self._place = place
        self._settings = settings
        self._formula = formula
        self._right = right

    def __call__(self, *data: Any) -> Any:
        """Solve.

        Args:
            *data: an array for each symbolic variable, in the order of their positions.

        Returns:
            An array of the shape of the right-hand side, with all batch dimensions.

        Raises:
            TypeError: too many or too few arrays.
            ShapeError: sizes do not fit, or the operator is not square.
            NonFiniteError: NaN or infinities come in or up.
        """
        template = self._reduction._template
        assert template is not None
        right = self._right
        given = list(data)
        if right is not None and right.read is not None:
            given.insert(self._place, right.read())
        operator = FormulaOperator(template, given, self._place, self._settings.alpha)
        b = operator.prepare(given[self._place] if len(given) > self._place else None)
        system = System(operator, self._settings, self._preconditioner(b))
        result = solve_system(system, b)
        return result[..., 0] if right is not None and right.drop_inner else result

    def as_text(self, stage: str = "formula", *, target: str | None = None) -> str:
        """Write one stage of the product that every iteration makes; see `Reduction.as_text`."""
        return self._reduction.as_text(stage, target=target)

    def __repr__(self) -> str:
        settings = self._settings
        return f"<LinearSystem {settings.method}, alpha={settings.alpha}, eps={settings.eps:g}, of {self._reduction!r}>"

    def _preconditioner(self, b: Any) -> Product | None:
        wanted = self._settings.preconditioner
        if wanted is None:
            return None
        if callable(wanted):
            return checked(wanted)
        if self._formula is None:
            raise UnsupportedError(
                at_user_line(
                    f"the preconditioner {wanted!r} needs the entries of a K whose data is stored, found symbolic "
                    "variables: give a function, from residuals to vectors of the same shape"
                )
            )
        return named_preconditioner(wanted, self._formula, self._settings, b)


def named_preconditioner(name: str, formula: LazyFormula, settings: Settings, like: Any) -> Product:
    """Make a preconditioner from the entries of a formula, apart from autograd."""
    options = {"alpha": as_number(settings.alpha), "like": like, "rank": settings.rank}
    if isinstance(like, np.ndarray):
        return NAMED[name](formula, **options)
    with sys.modules["torch"].no_grad():
        return NAMED[name](formula, **options)


class _RightSide(NamedTuple):
    """A right-hand side.

    Attributes:
        read: what gives its data now, None where a call does.
        axis: "i" or "j", which it varies with.
        dim: its components.
        position: of a symbolic one.
        drop_inner: whether the solution has no axis for the components.
    """

    read: Callable[[], Any] | None
    axis: str
    dim: int
    position: int | None = None
    drop_inner: bool = False


def solve(x: LazyFormula, b: Any, var: Any, *, call: bool, options: Mapping[str, Any]) -> Any:
    """Solve, or set a system up; see `LazyTensor.solve`."""
    own, rest = split_options(options)
    system = linear_system(x, b, var, own, rest)
    return system() if call and not needs_data(system) else system


def split_options(options: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Tell what is meant for the solver from what is meant for its reductions."""
    names = {field.name for field in fields(Settings)}
    own = {name: value for name, value in options.items() if name in names}
    return read_settings(own), {name: value for name, value in options.items() if name not in names}


def linear_system(x: LazyFormula, b: Any, var: Any, settings: Settings, options: Mapping[str, Any]) -> LinearSystem:
    """Set a system up; see `LazyTensor.solve`."""
    if options.get("out") is not None:
        raise UnsupportedError(at_user_line("out is given to solve, which makes its result: copy it where you want it"))
    right = _read_right_side(b)
    reduced = "j" if right.axis == "i" else "i"
    _check_sizes(x, right, b)
    positions = [source.position for source in flatten((x._expression,)).sources if source.kind == arrays.SYMBOL]
    if var is None:
        position = right.position
        if position is None:
            position = max(positions, default=-1) + 1
        elif position in positions:
            raise ShapeError(
                at_user_line(f"b is the symbolic variable {position}, which K has too: give the unknown as var")
            )
        unknown = symbolic(x.__class__, position, right.dim, 1 if reduced == "j" else 0)
        product = combine("mul", x, unknown)
    else:
        position = _read_unknown(var, right, reduced, positions)
        product = x
    reduction = product._reduce(reduced, (Wanted("sum", (0,)),), {**options, "call": False})  # type: ignore[attr-defined]
    place = [argument.position for argument in reduction._template.arguments].index(position)
    entries = x if var is None and not positions else None
    return LinearSystem(reduction, place, settings, formula=entries, right=right)


def needs_data(system: LinearSystem) -> bool:
    """Whether a call must give arrays."""
    template = system._reduction._template
    assert template is not None
    given = system._right is not None and system._right.read is not None
    return len(template.arguments) > (1 if given else 0)


def _read_right_side(b: Any) -> _RightSide:
    if isinstance(b, LazyFormula):
        return _read_lazy_right_side(b)
    if isinstance(b, list | tuple):
        b = np.asarray(b, dtype=np.float64)
    if not (isinstance(b, np.ndarray) or arrays.is_tensor(b)) or b.ndim == 0:
        raise DtypeError(
            at_user_line(f"b is {type(b).__name__}, expected an array of shape (N,) or (*batch, N, E), or a LazyTensor")
        )
    is_vector = b.ndim == 1
    arrays.array_source(b, what="b", batch=max(b.ndim - 2, 0), view="")
    if is_vector:
        b = b[:, None]
    if b.shape[-1] < 1:
        raise ShapeError(at_user_line(f"b has shape {tuple(b.shape)}, expected at least one right-hand side"))
    return _RightSide(lambda: b, "i", int(b.shape[-1]), drop_inner=is_vector)


def _read_lazy_right_side(b: LazyFormula) -> _RightSide:
    leaf = b._expression
    if leaf.axes not in ("i", "j"):
        raise AxisError(
            at_user_line(
                f"b varies with the axes {leaf.axes or 'of none'!r}, expected rows, as Vi(b), or columns, Vj(b)"
            )
        )
    symbols = [source for source in flatten((leaf,)).sources if source.kind == arrays.SYMBOL]
    if leaf.op == "var" and symbols:
        return _RightSide(None, leaf.axes, leaf.dim, position=symbols[0].position)
    if symbols:
        raise UnsupportedError(
            at_user_line("b is a formula of symbolic variables, expected one variable, as Vi(0, 3), or data")
        )
    axis = "j" if leaf.axes == "i" else "i"
    reduction = b._reduce(axis, (Wanted("sum", (0,)),), {"call": False})  # type: ignore[attr-defined]
    return _RightSide(reduction, leaf.axes, leaf.dim)


def _check_sizes(x: LazyFormula, right: _RightSide, b: Any) -> None:
    rows, columns = x._rows, x._columns
    if rows is not None and columns is not None and rows != columns:
        raise ShapeError(at_user_line(f"K has {rows} rows and {columns} columns, expected a square one"))
    size = columns if rows is None else rows
    if right.read is None or size is None:
        return
    if isinstance(b, LazyFormula):
        found: Any = b._rows if right.axis == "i" else b._columns
    else:
        found = np.shape(b)[0 if right.drop_inner else -2]
    if found != size:
        shape = b._shape if isinstance(b, LazyFormula) else np.shape(b)
        raise ShapeError(
            at_user_line(f"b has {found} rows in its shape {tuple(shape)}, and K has {size}: expected equal sizes")
        )


def _read_unknown(var: Any, right: _RightSide, reduced: str, positions: Sequence[int]) -> int:
    leaf = var._expression if isinstance(var, LazyFormula) else None
    if leaf is None or leaf.op != "var" or leaf.source.kind != arrays.SYMBOL:
        raise DtypeError(
            at_user_line(
                "var is no symbolic variable, expected the unknown of a formula that is linear in it, as Vj(0, 3)"
            )
        )
    if leaf.axes != reduced:
        raise AxisError(
            at_user_line(
                f"var varies with the axes {leaf.axes!r}, expected {reduced!r}, the axis that is summed over, as b "
                f"varies with {right.axis!r}"
            )
        )
    position: int = leaf.source.position
    if leaf.dim != right.dim:
        raise ShapeError(at_user_line(f"var has {leaf.dim} components and b has {right.dim}, expected as many"))
    if position not in positions:
        raise ShapeError(at_user_line(f"var is the symbolic variable {position}, which the formula does not have"))
    if right.position not in (None, position):
        raise ShapeError(
            at_user_line(f"b is the symbolic variable {right.position}, expected {position}, the one of var")
        )
    return position


def _warn(message: str, *, residual: float, iterations: int) -> None:
    place = resolve(user_position())
    warnings.warn_explicit(
        ConvergenceWarning(message, residual=residual, iterations=iterations), None, place.filename, place.line
    )
