"""Symmetric linear systems whose matrix is a formula, or whose product with a vector is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.arrays.array_libraries import is_traced
from pylazy.arrays.imported_arrays import is_array, readable
from pylazy.arrays.sources import SYMBOL, array_source
from pylazy.canonical_form import flatten
from pylazy.execution.wanted_results import Wanted
from pylazy.lazy_formula import LazyFormula
from pylazy.linear_algebra.preconditioners import checked
from pylazy.linear_algebra.symmetric_systems import (
    FormulaOperator,
    System,
    named_preconditioner,
    solve_system,
    split_options,
)
from pylazy.methods.operands import combine, symbolic
from pylazy.runtime.errors import AxisError, DtypeError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.block_sparse.ranges import Ranges
    from pylazy.linear_algebra.krylov import Product
    from pylazy.linear_algebra.symmetric_systems import Settings
    from pylazy.options import Backend
    from pylazy.stages import Reduction


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
        right: RightSide | None = None,
    ) -> None:
        self._reduction = reduction
        self._place = place
        self._settings = settings
        self._formula = formula
        self._right = right

    def __call__(self, *data: Any, ranges: Ranges | None = None, backend: Backend | None = None) -> Any:
        """Solve.

        Args:
            *data: an array for each symbolic variable, in the order of their positions.
            ranges: the pairs to sum over, where they are not those that the system was made with.
            backend: where to run, where it is not that of the system.

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
        alpha = self._settings.alpha
        operator = FormulaOperator(template, given, self._place, alpha, ranges=ranges, backend=backend)
        b = operator.prepare(given[self._place] if len(given) > self._place else None)
        system = System(operator, self._settings, self._preconditioner(b))
        result = operator.given_back(solve_system(system, b))
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


class RightSide(NamedTuple):
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


def linear_system(x: LazyFormula, b: Any, var: Any, settings: Settings, options: Mapping[str, Any]) -> LinearSystem:
    """Set a system up; see `LazyTensor.solve`."""
    if options.get("out") is not None:
        raise UnsupportedError(at_user_line("out is given to solve, which makes its result: copy it where you want it"))
    right = read_right_side(b)
    reduced = "j" if right.axis == "i" else "i"
    _check_sizes(x, right, b)
    positions = [source.position for source in flatten((x._expression,)).sources if source.kind == SYMBOL]
    if var is None:
        position = right.position
        if position is None:
            position = max(positions, default=-1) + 1
        elif position in positions:
            raise ShapeError(
                at_user_line(f"b is the symbolic variable {position}, which K has too: give the unknown as var")
            )
        unknown = symbolic(x._formula_class, position, right.dim, 1 if reduced == "j" else 0)
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


def read_right_side(b: Any) -> RightSide:
    """Read the right-hand side of a system: an array, a list or a LazyTensor.

    Raises:
        DtypeError: this is none of them.
        AxisError: a LazyTensor varies with both axes, or with none.
    """
    if isinstance(b, LazyFormula):
        return _read_lazy_right_side(b)
    if isinstance(b, list | tuple):
        b = np.asarray(b, dtype=np.float64)
    read = readable(b) if is_array(b) else None
    if read is None or read.ndim == 0:
        raise DtypeError(
            at_user_line(f"b is {type(b).__name__}, expected an array of shape (N,) or (*batch, N, E), or a LazyTensor")
        )
    is_vector = read.ndim == 1
    array_source(read, what="b", batch=max(read.ndim - 2, 0), view="")
    if not is_traced(b):
        b = read
    if is_vector:
        b = b.reshape(-1, 1)
    if b.shape[-1] < 1:
        raise ShapeError(at_user_line(f"b has shape {tuple(b.shape)}, expected at least one right-hand side"))
    return RightSide(lambda: b, "i", int(b.shape[-1]), drop_inner=is_vector)


def _read_lazy_right_side(b: LazyFormula) -> RightSide:
    leaf = b._expression
    if leaf.axes not in ("i", "j"):
        raise AxisError(
            at_user_line(
                f"b varies with the axes {leaf.axes or 'of none'!r}, expected rows, as Vi(b), or columns, Vj(b)"
            )
        )
    symbols = [source for source in flatten((leaf,)).sources if source.kind == SYMBOL]
    if leaf.op == "var" and symbols:
        return RightSide(None, leaf.axes, leaf.dim, position=symbols[0].position)
    if symbols:
        raise UnsupportedError(
            at_user_line("b is a formula of symbolic variables, expected one variable, as Vi(0, 3), or data")
        )
    axis = "j" if leaf.axes == "i" else "i"
    reduction = b._reduce(axis, (Wanted("sum", (0,)),), {"call": False})  # type: ignore[attr-defined]
    return RightSide(reduction, leaf.axes, leaf.dim)


def _check_sizes(x: LazyFormula, right: RightSide, b: Any) -> None:
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


def _read_unknown(var: Any, right: RightSide, reduced: str, positions: Sequence[int]) -> int:
    leaf = var._expression if isinstance(var, LazyFormula) else None
    if leaf is None or leaf.op != "var" or leaf.source.kind != SYMBOL:
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
