"""Reductions whose data comes when they are called: from arrays in the order of the arguments to a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.arrays.array_libraries import is_compiling
from pylazy.arrays.imported_arrays import Imported, is_array, readable
from pylazy.arrays.sources import SYMBOL, TORCH, Source, array_source
from pylazy.dtypes import arithmetic_dtype, promote, result_dtype
from pylazy.execution.extent_checks import check_indices, check_terms, complete_extents
from pylazy.execution.job import Job
from pylazy.execution.prepare import find_executable, formula_dtype
from pylazy.execution.programs import Executable, Extents
from pylazy.execution.wanted_results import Wanted, result_shapes
from pylazy.options import read_options
from pylazy.runtime.errors import DtypeError, ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pylazy.block_sparse.ranges import Ranges
    from pylazy.canonical_form import Flattened
    from pylazy.expression import Expression
    from pylazy.options import Backend

_MAX_PLANS = 64
_CATEGORIES = {"i": "Vi", "j": "Vj", "": "Pm"}
_SHAPES = {"i": "(*batch, M, {})", "j": "(*batch, N, {})", "": "(*batch, {})"}


class Argument(NamedTuple):
    """One array that a call must give.

    Attributes:
        position: the one that the formula gives it; arguments come in the order of their positions.
        axes: "i", "j", "" for a parameter, or "ij" for rows that are columns too.
        dim: inner dimension.
        name: what the formula calls it, or "".
    """

    position: int
    axes: str
    dim: int
    name: str = ""

    def __str__(self) -> str:
        written = " and ".join(f"{_CATEGORIES[axis]}({self.position}, {self.dim})" for axis in self.axes or ("",))
        return f"{self.name} = {written}" if self.name else written


class Plan(NamedTuple):
    """What a call has in common with all calls on arrays of the same shapes and dtypes.

    Attributes:
        executable: the programs.
        dtype: of the arithmetic.
        storage: dtype of values of the formula.
        extents: sizes.
        shapes: of the results.
        specs: for each argument its kind of array, the number of its batch dimensions, its dtype, and whether that
            gives way to others.
    """

    executable: Executable
    dtype: str
    storage: str
    extents: Extents
    shapes: tuple[tuple[int, ...], ...]
    specs: tuple[tuple[str, int, str, bool], ...]


class Template:
    """A reduction with symbolic variables.

    Attributes:
        arguments: what a call must give, in order.
        expressions: the formula, and the weight where there is one.
        wanted: the results.
        reduced: the axis that is reduced, "i" or "j".
    """

    __slots__ = (
        "_backend",
        "_drop_inner",
        "_extents",
        "_flat",
        "_keepdim",
        "_options",
        "_plans",
        "_ranges",
        "_slots",
        "arguments",
        "expressions",
        "reduced",
        "wanted",
    )

    def __init__(
        self,
        expressions: Sequence[Expression],
        wanted: tuple[Wanted, ...],
        *,
        reduced: str,
        extents: Extents,
        flat: Flattened,
        keepdim: bool,
        drop_inner: bool,
        options: Mapping[str, Any],
        declared: Sequence[Argument] = (),
        ranges: Ranges | None = None,
        backend: Backend | None = None,
    ) -> None:
        """Make a template.

        Args:
            expressions: the formula, and the weight where there is one.
            wanted: the results.
            reduced: the axis to reduce, "i" or "j".
            extents: sizes of the data that is stored in the formula.
            flat: the expressions in canonical form.
            keepdim: keep the reduced axis in the shape of the results, with size 1.
            drop_inner: leave an inner dimension of 1 out of the shape of the results.
            options: as the user wrote them; checked again when the dtype is known.
            declared: arguments with names, which may be more than the formula uses.
            ranges: the pairs to reduce unless a call says otherwise, None for all.
            backend: where to run; None for where the arrays lie.

        Raises:
            ShapeError: two symbolic variables of one position contradict each other.
        """
        self.expressions = expressions
        self.wanted = wanted
        self.reduced = reduced
        self._extents = extents
        self._flat = flat
        self._keepdim = keepdim
        self._drop_inner = drop_inner
        self._options = options
        self._ranges = ranges
        self._backend = backend
        self._plans: dict[Any, Plan] = {}
        self.arguments = _merge(_arguments_of(flat), declared)
        places = {argument.position: place for place, argument in enumerate(self.arguments)}
        self._slots: list[Any] = [
            places[source.position] if source.kind == SYMBOL else source for source in flat.sources
        ]

    def bind(self, given: Sequence[Any], ranges: Ranges | None = None, backend: Backend | None = None) -> Job:
        """Join the formula with arrays.

        Args:
            given: the arrays, in the order of the arguments.
            ranges: the pairs to reduce, where they are not those of the template.
            backend: where to run, where it is not that of the template.

        Raises:
            TypeError: too many or too few arrays.
            ShapeError: an array has another inner dimension, or sizes that do not fit those of others.
            DtypeError: an argument is no array, or of a dtype that no formula reads.
        """
        ranges = self._ranges if ranges is None else ranges
        ranged = ranges is not None
        plan = None
        try:
            if not is_compiling():  # a graph that knows a plan is good for its sizes only
                plan = self._plans.get((ranged, *[(array.__class__, array.shape, array.dtype) for array in given]))
        except (AttributeError, TypeError):
            pass  # a number or a list is among them
        if plan is None:
            given, plan = self._read(given, ranged=ranged)
        if ranges is not None:
            check_terms(self.wanted, self.reduced, plan.extents, ranges)
        made = [
            Source(kind, array, batch, dtype, weak, "")
            if array.__class__ is np.ndarray
            else _source_of(array, kind, batch, dtype, weak)
            for array, (kind, batch, dtype, weak) in zip(given, plan.specs, strict=True)
        ]
        return Job(
            plan.executable,
            [made[slot] if slot.__class__ is int else slot for slot in self._slots],
            self.expressions,
            dtype=plan.dtype,
            extents=plan.extents,
            reduced=self.reduced,
            wanted=self.wanted,
            shapes=plan.shapes,
            ranges=ranges,
            storage=plan.storage,
            backend=self._backend if backend is None else backend,
        )

    def inputs_of(self, place: int) -> frozenset[int]:
        """The numbers of the inputs of the job that an argument stands behind."""
        return frozenset(number for number, slot in enumerate(self._slots) if slot.__class__ is int and slot == place)

    def executable(self) -> Executable:
        """The programs for stored data of some dtype, and for float64 where nothing but numbers is stored."""
        stored = [source for source in self._flat.sources if source.kind != SYMBOL]
        return self._executable(formula_dtype(self.expressions, stored), ranged=self._ranges is not None)

    def _executable(self, storage: str, *, ranged: bool) -> Executable:
        dtype = arithmetic_dtype(storage)
        return find_executable(self._flat, self.expressions, self.wanted, self.reduced, dtype, ranged=ranged)

    def _read(self, given: Sequence[Any], *, ranged: bool) -> tuple[list[Any], Plan]:
        """Check the arguments of a call, and remember what is found for the next."""
        if len(given) != len(self.arguments):
            expected = ", ".join(map(str, self.arguments))
            raise TypeError(
                at_user_line(
                    f"the reduction was called with {_counted(len(given), 'array')}, expected {len(self.arguments)}, "
                    f"for {expected}"
                )
            )
        read = [self._array(place, value) for place, value in enumerate(given)]
        specs = []
        sources = []
        for place, (argument, (array, weak)) in enumerate(zip(self.arguments, read, strict=True)):
            batch = array.ndim - (2 if argument.axes else 1)
            source = array_source(array, what=self._called(place), batch=batch, view="", weak=weak)
            sources.append(source)
            specs.append((source.kind, batch, source.dtype, weak))
        extents = complete_extents(self.wanted, self.reduced, self._join_extents(sources))
        dtype: str | None = None
        for expression in self.expressions:
            dtype = promote(dtype, expression.dtype)
        for source in sources:
            dtype = promote(dtype, None if source.weak else source.dtype)
        if dtype is None:
            stored = [slot for slot in self._slots if slot.__class__ is not int]
            storage = formula_dtype((), [*stored, *sources])
        else:
            storage = result_dtype(dtype)
        arithmetic = arithmetic_dtype(storage)
        check_indices(self._flat, arithmetic, extents)
        read_options(self._options, dtype=storage)
        shapes = result_shapes(
            self.expressions,
            self.wanted,
            self.reduced,
            extents,
            keepdim=self._keepdim,
            drop_inner=self._drop_inner,
        )
        plan = Plan(self._executable(storage, ranged=ranged), arithmetic, storage, extents, shapes, tuple(specs))
        found = [array for array, _ in read]
        if not any(weak or array.__class__ is Imported for array, weak in read) and not is_compiling():
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            key = (ranged, *[(array.__class__, array.shape, array.dtype) for array in found])
            self._plans[key] = plan
        return found, plan

    def _called(self, place: int) -> str:
        return f"argument {place}, {self.arguments[place]},"

    def _array(self, place: int, value: Any) -> tuple[Any, bool]:
        """Read one argument as an array of enough dimensions; numbers and lists give way in dtype."""
        argument = self.arguments[place]
        weak = False
        if is_array(value):
            value = readable(value)
        else:
            try:
                value = np.array(value, dtype=np.float64)
            except (TypeError, ValueError):
                raise DtypeError(
                    at_user_line(
                        f"{self._called(place)} is {type(value).__name__}, expected a NumPy array or a torch tensor, "
                        "or one with __dlpack__"
                    )
                ) from None
            weak = True
        if value.ndim == 0 and not argument.axes:
            value, weak = value.reshape(1), True
        shape = tuple(value.shape)
        expected = _SHAPES[argument.axes[:1]].format(argument.dim)
        if len(shape) < (2 if argument.axes else 1):
            raise ShapeError(
                at_user_line(
                    f"{self._called(place)} has shape {shape}, expected {expected}: reshape it, as by x.reshape(-1, 1)"
                )
            )
        if shape[-1] != argument.dim:
            raise ShapeError(
                at_user_line(
                    f"{self._called(place)} has inner dimension {shape[-1]} in its shape {shape}, expected {expected}"
                )
            )
        return value, weak

    def _join_extents(self, sources: Sequence[Source]) -> Extents:
        """Join the sizes of the arguments with those of the data that is stored in the formula."""
        stored = self._extents
        batch = stored.batch
        sizes = {"i": stored.rows, "j": stored.columns}
        places: dict[str, int] = {}
        for place, (argument, source) in enumerate(zip(self.arguments, sources, strict=True)):
            for axis in argument.axes:
                count = source.shape[-2]
                if sizes[axis] is None:
                    sizes[axis], places[axis] = count, place
                elif sizes[axis] != count:
                    other = (
                        self._called(places[axis]).rstrip(",") if axis in places else "the data stored in the formula"
                    )
                    raise ShapeError(
                        at_user_line(
                            f"{self._called(place)} has {_counted(count, 'row')} in its shape {source.shape}, and "
                            f"{other} has {sizes[axis]}: arrays of axis {axis} have one size"
                        )
                    )
            lead = source.shape[: source.batch]
            if lead and lead != batch:
                try:
                    batch = np.broadcast_shapes(batch, lead)
                except ValueError:
                    raise ShapeError(
                        at_user_line(
                            f"{self._called(place)} has batch shape {lead} in its shape {source.shape}, and the data "
                            f"before it has {batch}, which do not broadcast: sizes must be equal or 1"
                        )
                    ) from None
        return Extents(batch, sizes["i"], sizes["j"])


def _source_of(array: Any, kind: str, batch: int, dtype: str, weak: bool) -> Source:
    """Wrap an array as one of this class and dtype was wrapped before."""
    if array.__class__ is Imported:
        return array_source(array, what="an argument", batch=batch, view="", weak=weak)
    if kind == TORCH and array.is_sparse:
        array_source(array, what="an argument", batch=batch, view="")
    return Source(kind, array, batch=batch, dtype=dtype, weak=weak, view="")


def _arguments_of(flat: Flattened) -> tuple[Argument, ...]:
    found: dict[int, Argument] = {}
    variables = [entry for entry in flat.entries if entry[0] == "var"]
    for (_, _, axis, dim), source in zip(variables, flat.sources, strict=True):
        if source.kind != SYMBOL:
            continue
        position = source.position
        new = Argument(position, axis, dim)
        old = found.get(position, new)
        if old.dim != dim or bool(old.axes) != bool(axis):
            raise ShapeError(
                at_user_line(
                    f"variable {position} is {old} and {new} in one formula, expected one inner dimension, and either "
                    "rows and columns or parameters"
                )
            )
        axes = "".join(name for name in "ij" if name in old.axes + axis)
        found[position] = Argument(position, axes, dim)
    return tuple(found[position] for position in sorted(found))


def _merge(used: Iterable[Argument], declared: Iterable[Argument]) -> tuple[Argument, ...]:
    merged = {argument.position: argument for argument in declared}
    for argument in used:
        given = merged.setdefault(argument.position, argument)
        if (given.dim, given.axes) != (argument.dim, argument.axes):
            raise ShapeError(
                at_user_line(f"variable {argument.position} is {argument} in the formula, and declared as {given}")
            )
    return tuple(merged[position] for position in sorted(merged))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
