"""Methods of LazyTensor that reduce with logic, products, spreads and largest values."""

# ruff: noqa: N802, N803, N815  these names are pykeops' own, and programs use them

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.arrays.imported_arrays import readable
from pylazy.arrays.results import detached
from pylazy.arrays.source_devices import check_devices
from pylazy.arrays.sources import SYMBOL, array_source, number_source
from pylazy.canonical_form import flatten
from pylazy.dtypes import arithmetic_dtype
from pylazy.execution.prepare import prepare
from pylazy.execution.programs import Extents
from pylazy.execution.wanted_results import Wanted
from pylazy.expression import Expression, variable
from pylazy.lazy_formula import axis_of, new, outer_axis, read_index, unary
from pylazy.methods.operands import combine
from pylazy.methods.reduction_methods import ReductionMethods
from pylazy.options import ranges_of, read_options
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.options import Options

_EXACT_COUNTS = 2**24
"""Up to here, float32 sums of ones are exact."""


class StatisticMethods(ReductionMethods):
    """Reductions that pykeops does not have."""

    __slots__ = ()

    def prod(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Product over an axis; arguments and shapes as for `sum`."""
        return self._reduce_any("prod", axis, dim, keepdim=keepdim, options=options)

    def any(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Whether any value along an axis is not 0, as bool: (*batch, M, D) over j; a NaN is not 0.

        Over the components the answer is a value of the formula, 0 or 1. Arguments as for `sum`.
        """
        return self._reduce_truth("any", "inner_max", axis, dim, keepdim=keepdim, options=options)

    def all(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """Whether no value along an axis is 0, as bool; as `any`."""
        return self._reduce_truth("all", "inner_min", axis, dim, keepdim=keepdim, options=options)

    def count(self, axis: int | None = -1, dim: int | None = None, *, keepdim: bool = False, **options: Any) -> Any:
        """How many values along an axis are not 0, as int64; else as `any`."""
        return self._reduce_truth("count", "inner_sum", axis, dim, keepdim=keepdim, options=options)

    def var(
        self,
        axis: int | None = -1,
        dim: int | None = None,
        *,
        ddof: int = 0,
        keepdim: bool = False,
        **options: Any,
    ) -> Any:
        """Variance over an axis; accurate for means of any size, as it is found in two sweeps.

        Args:
            axis: as for `sum`; the result has the shape of a sum.
            dim: another name for `axis`.
            ddof: the divisor is the number of terms less this; 0 as in NumPy, 1 for what torch gives by default.
            keepdim: keep the reduced axis i or j in the shape, with size 1.
            **options: as for `sum`; with `call=False`, and for symbolic variables, the result is a `Spread`, which is
                called as a `Reduction` is.
        """
        where = axis_of(self, axis, dim)
        freedom = read_index(ddof, "ddof")
        if where == "inner":
            centred = self - unary("inner_sum", self) / self.ndim
            result = unary("sqnorm2", centred) / (self.ndim - freedom)
            read_options(options, dtype=result._expression.dtype)
            return result
        return self._spread(where, freedom, root=False, keepdim=keepdim, options=options)

    def std(
        self,
        axis: int | None = -1,
        dim: int | None = None,
        *,
        ddof: int = 0,
        keepdim: bool = False,
        **options: Any,
    ) -> Any:
        """Standard deviation: the square root of `var`, whose arguments it takes."""
        where = axis_of(self, axis, dim)
        if where == "inner":
            return unary("sqrt", StatisticMethods.var(self, axis, dim, ddof=ddof, **options))
        return self._spread(where, read_index(ddof, "ddof"), root=True, keepdim=keepdim, options=options)

    def KMax(
        self, K: int, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """The K largest values over i or j, descending, NaN last; shapes as for `Kmin`."""
        return self._reduce_k(("kmax",), K, axis, dim, options, keepdim=keepdim)

    def argKmax(
        self, K: int, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """Positions of the K largest values, the lowest first on ties; int64; else as `Kmin`."""
        return self._reduce_k(("argkmax",), K, axis, dim, options, keepdim=keepdim)

    def KMax_argKmax(
        self, K: int, axis: int | None = None, dim: int | None = None, *, keepdim: bool = False, **options: Any
    ) -> Any:
        """The K largest values and their positions, in one sweep; as `KMax`."""
        return self._reduce_k(("kmax", "argkmax"), K, axis, dim, options, keepdim=keepdim)

    Kmax = KMax
    Kmax_argKmax = KMax_argKmax
    KMax_reduction = KMax
    argKmax_reduction = argKmax
    KMax_argKmax_reduction = KMax_argKmax

    def prod_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`prod` over i or j."""
        return self._outer_only("prod", axis, dim, options)

    def mean_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`mean` over i or j."""
        return self._outer_only("mean", axis, dim, options)

    def any_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`any` over i or j."""
        return self._outer_only("any", axis, dim, options)

    def all_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`all` over i or j."""
        return self._outer_only("all", axis, dim, options)

    def count_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`count` over i or j."""
        return self._outer_only("count", axis, dim, options)

    def var_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`var` over i or j."""
        return self._outer_only("var", axis, dim, options)

    def std_reduction(self, axis: int | None = None, dim: int | None = None, **options: Any) -> Any:
        """`std` over i or j."""
        return self._outer_only("std", axis, dim, options)

    def _outer_only(self, name: str, axis: int | None, dim: int | None, options: dict[str, Any]) -> Any:
        outer_axis(self, axis, dim)
        return getattr(self, name)(axis, dim, **options)

    def _reduce_truth(
        self,
        kind: str,
        inner: str,
        axis: int | None,
        dim: int | None,
        *,
        keepdim: bool,
        options: dict[str, Any],
    ) -> Any:
        where = axis_of(self, axis, dim)
        truth = combine("ne", self, 0)
        if where == "inner":
            read_options(options, dtype=truth._expression.dtype)
            return unary(inner, truth)
        extent = (self._columns if where == "j" else self._rows) or 1
        if kind == "count" and extent > _EXACT_COUNTS and arithmetic_dtype(truth.dtype) == "float32":
            truth = combine("mul", truth, truth._float64_one())
        return truth._reduce(where, (Wanted(kind, (0,)),), options, keepdim=keepdim)

    def _float64_one(self) -> Any:
        """A 1 that makes the whole formula one of float64."""
        source = number_source(1.0)
        return new(self._formula_class, variable(source, axis="", dim=1, dtype="float64"), (), None, None, None)

    def _spread(self, where: str, ddof: int, *, root: bool, keepdim: bool, options: dict[str, Any]) -> Any:
        """Find the mean, then sum differences from it and their squares; see `pylazy.spreads`."""
        from pylazy.spreads import Divisor, postponed_spread, run_sums, summands

        formula = self._expression
        extents = Extents(self._batch, self._rows, self._columns)
        divisor = Divisor(formula.dim, ddof, root)
        is_symbolic = SYMBOL in [source.kind for source in flatten((formula,)).sources]
        read = read_options(options, dtype=None if is_symbolic else formula.dtype, backend=self._backend)
        if is_symbolic or not read.call:
            if read.out is not None:
                raise UnsupportedError(at_user_line("out is given to var or std, which is called later: give it then"))
            return postponed_spread(
                formula,
                divisor,
                reduced=where,
                extents=extents,
                keepdim=keepdim,
                backend=self._backend,
                ranges=self._ranges,
                options=options,
            )
        ranges = ranges_of(options, self._ranges)
        mean = _mean(formula, where, extents, ranges, read)
        sums = prepare(
            (summands(formula, mean),),
            (Wanted("sum", (0,), 0, read.summation, read.math_mode),),
            reduced=where,
            extents=extents,
            keepdim=keepdim,
            ranges=ranges,
            backend=read.backend,
        )
        return run_sums(sums, divisor, storage=sums.storage, out=read.out)


def _mean(formula: Expression, where: str, extents: Extents, ranges: Ranges | None, read: Options) -> Expression:
    """Find the mean as a variable of the axis that is kept."""
    wanted = (Wanted("mean", (0,), 0, read.summation, read.math_mode),)
    job = prepare((formula,), wanted, reduced=where, extents=extents, ranges=ranges, backend=read.backend)
    result = detached(job.unrounded(check_devices(job.sources))[0])
    source = array_source(readable(result), what="the mean", batch=len(extents.batch), view="mean")
    return variable(source, axis="i" if where == "j" else "j", dim=formula.dim, dtype=formula.dtype)
