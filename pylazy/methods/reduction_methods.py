"""Methods of LazyTensor that reduce over an axis."""

# ruff: noqa: N802, N803, N815  these names are pykeops' own, and programs use them

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from pylazy.execution.programs import Extents
from pylazy.execution.wanted_results import WANTED, Wanted
from pylazy.lazy_formula import LazyFormula, axis_of, joint_extents, joint_ranges, outer_axis, read_index, unary
from pylazy.methods.operands import combine, operand
from pylazy.methods.operators import Operators
from pylazy.options import read_options
from pylazy.runtime.errors import ShapeError, UnsupportedError
from pylazy.stages import reduce_or_postpone
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReductionMethods(Operators):
    """Reductions over i and j give arrays, over the components a LazyTensor."""

    __slots__ = ()

    def sum(
        self,
        axis: int | None = -1,
        dim: int | None = None,
        weight: Any = None,
        *,
        keepdim: bool = False,
        **options: Any,
    ) -> Any:
        """Sum over an axis.

        Args:
            axis: -1 for the components, which gives a LazyTensor; nbatchdims + 0 (or -3) to sum over i, which gives an
                array of shape (*batch, N, D); nbatchdims + 1 (or -2) to sum over j, which gives one of (*batch, M, D).
            dim: another name for `axis`.
            weight: what to multiply with before the sum.
            keepdim: keep the reduced axis i or j in the shape, with size 1.
            **options: call, out, ranges, backend, device_id, dtype_acc, use_double_acc, sum_scheme, enable_chunks,
                use_fast_math; see docs/semantics.md.

        Raises:
            AxisError: the LazyTensor has no such axis, or it cannot be reduced.
        """
        if weight is not None:
            self = combine("mul", self, weight)  # noqa: PLW0642
        return self._reduce_any("sum", axis, dim, keepdim=keepdim, options=options)

    def mean(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Mean over an axis; arguments as for `sum`."""
        if axis_of(self, axis, dim) == "inner":
            return unary("inner_sum", self) / self.ndim
        return self._reduce_any("mean", axis, dim, keepdim=keepdim, options=options)

    def min(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Smallest value over an axis, NaN if there is one; arguments as for `sum`."""
        return self._reduce_any("min", axis, dim, keepdim=keepdim, options=options)

    def max(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Largest value over an axis, NaN if there is one; arguments as for `sum`."""
        return self._reduce_any("max", axis, dim, keepdim=keepdim, options=options)

    def argmin(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Position of the smallest value over an axis, the lowest on ties, of the first NaN if any; int64.

        Over the components the position is a value of the formula. Arguments as for `sum`.
        """
        return self._reduce_any("argmin", axis, dim, keepdim=keepdim, options=options)

    def argmax(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Position of the largest value; as `argmin`."""
        return self._reduce_any("argmax", axis, dim, keepdim=keepdim, options=options)

    def min_argmin(
        self, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Smallest value over i or j and its position, in one sweep."""
        wanted = (Wanted("min", (0,)), Wanted("argmin", (0,)))
        return self._reduce(outer_axis(self, axis, dim), wanted, options, keepdim=keepdim)

    def max_argmax(
        self, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Largest value over i or j and its position, in one sweep."""
        wanted = (Wanted("max", (0,)), Wanted("argmax", (0,)))
        return self._reduce(outer_axis(self, axis, dim), wanted, options, keepdim=keepdim)

    def logsumexp(
        self,
        axis: int | None = None,
        dim: int | None = None,
        weight: Any = None,
        *,
        other: Any = None,
        keepdim: bool = False,
        **options: Any,
    ) -> Any:
        """Log of the sum of exp(f), or of exp(f) g for a weight g, over i or j.

        Args:
            axis: nbatchdims + 0 (or -3) for i, nbatchdims + 1 (or -2) for j.
            dim: another name for `axis`.
            weight: g, of any inner dimension E; the result then has E components.
            other: another name for `weight`.
            keepdim: keep the reduced axis in the shape, with size 1.
            **options: as for `sum`.

        Raises:
            ShapeError: f has more than one component.
        """
        weight = other if weight is None else weight
        operands = (self,) if weight is None else (self, operand(self.__class__, weight))
        return _reduce_scalar("logsumexp", operands, axis, dim, keepdim=keepdim, options=options)

    def sumsoftmaxweight(
        self, weight: Any, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Sum of exp(f) g over the sum of exp(f), over i or j; arguments as for `logsumexp`.

        A list or tuple of LazyTensors as the weight gives a tuple of results, found in one sweep.
        """
        if isinstance(weight, list | tuple) and weight and all(isinstance(part, LazyFormula) for part in weight):
            return self._several_softmax(weight, axis, dim, keepdim=keepdim, options=options)
        return _reduce_scalar(
            "softmax", (self, operand(self.__class__, weight)), axis, dim, keepdim=keepdim, options=options
        )

    def _several_softmax(
        self, weights: Sequence[Any], axis: int | None, dim: int | None, *, keepdim: bool, options: dict[str, Any]
    ) -> Any:
        if options.get("out") is not None or not options.get("call", True):
            raise UnsupportedError(
                at_user_line("out and call=False are not there for several weights: concatenate the weights")
            )
        joined = weights[0]
        for weight in weights[1:]:
            joined = combine("concat", joined, weight)
        result = ReductionMethods.sumsoftmaxweight(self, joined, axis, dim, keepdim=keepdim, **options)
        ends = list(itertools.accumulate(weight.ndim for weight in weights))
        return tuple(result[..., first:last] for first, last in zip([0, *ends], ends, strict=False))

    def Kmin(
        self, K: int, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """The K smallest values over i or j, ascending, NaN last.

        Returns:
            (*batch, M, K) for a formula with one component, else (*batch, M, K, D), for a reduction over j.

        Raises:
            ShapeError: there are fewer than K values.
        """
        return self._reduce_k(("kmin",), K, axis, dim, options, keepdim=keepdim)

    def argKmin(
        self, K: int, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Positions of the K smallest values, the lowest first on ties; int64; else as `Kmin`."""
        return self._reduce_k(("argkmin",), K, axis, dim, options, keepdim=keepdim)

    def Kmin_argKmin(
        self, K: int, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """The K smallest values and their positions, in one sweep; as `Kmin`."""
        return self._reduce_k(("kmin", "argkmin"), K, axis, dim, options, keepdim=keepdim)

    def sum_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`sum` over i or j."""
        return self._reduce(outer_axis(self, axis, dim), WANTED["sum"], options)

    def min_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`min` over i or j."""
        return self._reduce(outer_axis(self, axis, dim), WANTED["min"], options)

    def max_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`max` over i or j."""
        return self._reduce(outer_axis(self, axis, dim), WANTED["max"], options)

    def argmin_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`argmin` over i or j."""
        return self._reduce(outer_axis(self, axis, dim), WANTED["argmin"], options)

    def argmax_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`argmax` over i or j."""
        return self._reduce(outer_axis(self, axis, dim), WANTED["argmax"], options)

    min_argmin_reduction = min_argmin
    max_argmax_reduction = max_argmax
    logsumexp_reduction = logsumexp
    sumsoftmaxweight_reduction = sumsoftmaxweight
    Kmin_reduction = Kmin
    argKmin_reduction = argKmin
    Kmin_argKmin_reduction = Kmin_argKmin

    def _reduce_any(
        self, kind: str, axis: int | None, dim: int | None, *, keepdim: bool, options: dict[str, Any]
    ) -> Any:
        where = axis_of(self, axis, dim)
        if where == "inner":
            if options:
                read_options(options, dtype=self._expression.dtype)
            return unary(f"inner_{kind}", self)
        return self._reduce(where, WANTED[kind], options, keepdim=keepdim)

    def _reduce_k(
        self,
        kinds: tuple[str, ...],
        count: Any,
        axis: int | None,
        dim: int | None,
        options: dict[str, Any],
        *,
        keepdim: bool,
    ) -> Any:
        where = outer_axis(self, axis, dim)
        k = read_index(count, "K, the number of values to keep,")
        if k < 1:
            raise ShapeError(at_user_line(f"K is {k}, expected at least 1"))
        return self._reduce(where, tuple(Wanted(kind, (0,), k) for kind in kinds), options, keepdim=keepdim)

    def _reduce(
        self,
        axis: str,
        wanted: tuple[Wanted, ...],
        options: dict[str, Any],
        *,
        keepdim: bool = False,
        drop_inner: bool = False,
    ) -> Any:
        return reduce_or_postpone(
            (self._expression,),
            wanted,
            reduced=axis,
            extents=Extents(self._batch, self._rows, self._columns),
            keepdim=keepdim,
            drop_inner=drop_inner,
            backend=self._backend,
            ranges=self._ranges,
            options=options,
        )


def _reduce_scalar(
    kind: str, operands: tuple[LazyFormula, ...], axis: Any, dim: Any, *, keepdim: bool, options: dict[str, Any]
) -> Any:
    formula = operands[0]
    where = outer_axis(formula, axis, dim)
    if formula.ndim != 1:
        raise ShapeError(
            at_user_line(
                f"{kind} of a formula of inner dimension {formula.ndim}, expected 1: "
                "reduce its components first, as by x.sum(-1)"
            )
        )
    if any(operand.is_complex for operand in operands):
        from pylazy.complex_numbers.complex_sums import reduce_exponentials

        return reduce_exponentials(kind, operands, where, keepdim=keepdim, options=options)
    return reduce_or_postpone(
        tuple(operand._expression for operand in operands),
        (Wanted(kind, tuple(range(len(operands)))),),
        reduced=where,
        extents=joint_extents(kind, operands),
        keepdim=keepdim,
        backend=formula._backend,
        ranges=joint_ranges(kind, operands),
        options=options,
    )
