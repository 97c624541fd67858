"""Methods of LazyTensor that differentiate a formula in one of its variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pylazy.expression import constant
from pylazy.lazy_formula import LazyFormula, joint_extents, new, refuse_unbound, unary
from pylazy.methods.operands import operand
from pylazy.runtime.errors import DtypeError, ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from typing_extensions import Self

    from pylazy.expression import Expression


class DerivativeMethods(LazyFormula):
    """Derivatives of a LazyTensor f of inner dimension E in a variable v of inner dimension D, as LazyTensors.

    v is a variable of the formula: what `Vi`, `Vj`, `Pm` or `LazyTensor` made of the same array, or a symbolic variable
    of the same position. A v that the formula does not have gives zeros.
    """

    __slots__ = ()

    def grad(self, v: Any, e: Any = None) -> Self:
        """The vector-Jacobian product e . df/dv: (..., D).

        Args:
            v: a variable.
            e: E components, or one for all; 1 by default, where E is 1.

        Raises:
            DtypeError: v is no variable.
            ShapeError: e has another inner dimension, or is missing.
        """
        from pylazy.differentiation.formula_derivatives import grad

        _check("grad", self, v)
        if e is None and self.ndim != 1:
            raise ShapeError(
                at_user_line(
                    f"grad has no e, expected one, as f has inner dimension {self.ndim}: for all derivatives of all "
                    "components use grad_matrix"
                )
            )
        cotangent = _direction("grad", self, "e", 1 if e is None else e, self.ndim)
        return _derived("grad", self, (v, cotangent), grad(self._expression, v._expression, cotangent._expression))

    def diff(self, v: Any, u: Any) -> Self:
        """The Jacobian-vector product df/dv . u, the derivative in the direction u: (..., E).

        Args:
            v: a variable.
            u: D components, or one for all.

        Raises:
            DtypeError: v is no variable.
            ShapeError: u has another inner dimension.
        """
        from pylazy.differentiation.formula_derivatives import diff

        _check("diff", self, v)
        direction = _direction("diff", self, "u", u, v.ndim)
        return _derived("diff", self, (v, direction), diff(self._expression, v._expression, direction._expression))

    def grad_matrix(self, v: Any) -> Self:
        """The Jacobian by rows: (..., E * D), where component k * D + l is the derivative of f_k in v_l.

        Raises:
            DtypeError: v is no variable.
        """
        from pylazy.differentiation.formula_derivatives import grad_matrix

        _check("grad_matrix", self, v)
        return _derived("grad_matrix", self, (v,), grad_matrix(self._expression, v._expression))

    def divergence(self, v: Any) -> Self:
        """The sum of the derivatives of f_k in v_k: (..., 1).

        Raises:
            DtypeError: v is no variable.
            ShapeError: f and v have different inner dimensions.
        """
        from pylazy.differentiation.formula_derivatives import trace

        _check("divergence", self, v)
        if self.ndim != v.ndim:
            raise ShapeError(
                at_user_line(f"divergence of a formula of inner dimension {self.ndim} in a v of {v.ndim}: expected one")
            )
        return _derived("divergence", self, (v,), trace(self._expression, v._expression))

    def laplacian(self, v: Any) -> Self:
        """The sum of the second derivatives of f in each v_k: (..., 1).

        Raises:
            DtypeError: v is no variable.
            ShapeError: f has more than one component.
        """
        from pylazy.differentiation.formula_derivatives import laplacian

        _check("laplacian", self, v)
        if self.ndim != 1:
            raise ShapeError(
                at_user_line(
                    f"laplacian of a formula of inner dimension {self.ndim}, expected 1: take its components by elem"
                )
            )
        return _derived("laplacian", self, (v,), laplacian(self._expression, v._expression))

    def trace_operator(self, v: Any) -> Self:
        """The trace of f as a linear function of v: (..., 1); v is an input of the result no more.

        A formula of one component stands for D equal ones, so that the trace is the sum of its coefficients.

        Raises:
            DtypeError: v is no variable.
            ShapeError: the inner dimension of f is neither 1 nor that of v.
            UnsupportedError: f is not linear in v, or not by linear operations alone.
        """
        from pylazy.differentiation.formula_derivatives import trace

        _check_linear("trace_operator", self, v)
        if self.ndim not in (1, v.ndim):
            raise ShapeError(
                at_user_line(
                    f"trace_operator of a formula of inner dimension {self.ndim} in a v of {v.ndim}: "
                    "expected equal ones, or 1 for the formula"
                )
            )
        return _derived("trace_operator", self, (), trace(self._expression, v._expression), without=v._expression)

    def adjoint_operator(self, v: Any, u: Any) -> Self:
        """The adjoint of f as a linear function of v, applied to u: (..., D); v is an input of the result no more.

        Args:
            v: a variable.
            u: E components, or one for all.

        Raises:
            DtypeError: v is no variable.
            ShapeError: u has another inner dimension.
            UnsupportedError: f is not linear in v, or not by linear operations alone.
        """
        from pylazy.differentiation.formula_derivatives import grad

        _check_linear("adjoint_operator", self, v)
        cotangent = _direction("adjoint_operator", self, "u", u, self.ndim)
        result = grad(self._expression, v._expression, cotangent._expression)
        return _derived("adjoint_operator", self, (cotangent,), result, without=v._expression)

    def sum_linear_operator(self, v: Any) -> Self:
        """The sum of all coefficients of f as a linear function of v: (..., 1); v is an input of the result no more.

        Raises:
            DtypeError: v is no variable.
            UnsupportedError: f is not linear in v, or not by linear operations alone.
        """
        from pylazy.differentiation.formula_derivatives import diff

        _check_linear("sum_linear_operator", self, v)
        result = diff(self._expression, v._expression, constant(1))
        made = _derived("sum_linear_operator", self, (), result, without=v._expression)
        return unary("inner_sum", made)

    def factorize(self, g: Any) -> Self:
        """The formula itself: equal parts of a formula are computed once in any case.

        Args:
            g: the part of the formula that pykeops would compute once.
        """
        operand(self.__class__, g)
        return self

    def auto_factorize(self) -> Self:
        """The formula itself: equal parts of a formula are computed once in any case."""
        return self


_T = TypeVar("_T", bound=LazyFormula)


def _check(method: str, f: LazyFormula, v: Any) -> None:
    """Refuse an unbound call on something else, and a v that is no variable."""
    if not isinstance(f, LazyFormula):
        refuse_unbound(method, f)
    if isinstance(v, LazyFormula) and v._expression.op == "var":
        return
    found = f"the formula {v._expression.op}(...)" if isinstance(v, LazyFormula) else type(v).__name__
    raise DtypeError(
        at_user_line(
            f"v of {method} is {found}, expected a variable: what Vi, Vj or Pm made, before any operation on it"
        )
    )


def _check_linear(method: str, f: LazyFormula, v: Any) -> None:
    from pylazy.differentiation.formula_derivatives import find_nonlinear

    _check(method, f, v)
    found = find_nonlinear(f._expression, v._expression)
    if found is not None:
        raise UnsupportedError(
            at_user_line(
                f"{method} was given a formula that is not linear in v, as it applies {found.op}, expected sums, "
                "products and quotients with what does not depend on v: differentiate it first, as by diff"
            )
        )


def _direction(method: str, f: LazyFormula, name: str, value: Any, dim: int) -> LazyFormula:
    read = operand(f.__class__, value)
    if read.ndim not in (1, dim):
        raise ShapeError(
            at_user_line(f"{name} of {method} has inner dimension {read.ndim}, expected {dim}, or 1 for all components")
        )
    return read


def _derived(
    method: str,
    f: _T,
    others: tuple[LazyFormula, ...],
    expression: Expression,
    *,
    without: Expression | None = None,
) -> _T:
    """Make a LazyTensor of a derivative: with all variables of the formula but one, and its sizes."""
    from pylazy.differentiation.formula_derivatives import arrays_of, is_same_variable, with_variables

    operands: tuple[LazyFormula, ...] = (f, *others)
    leaves = arrays_of([given._expression for given in operands])
    kept = [leaf for leaf in leaves if without is None or not is_same_variable(leaf, without)]
    batch, rows, columns = joint_extents(method, operands)
    return new(f._formula_class, with_variables(expression, kept), batch, rows, columns, f.backend)
