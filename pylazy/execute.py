"""Arrays in, arrays out: from expressions to a program, and from a program to its results."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy import arrays
from pylazy.dtypes import arithmetic_dtype, promote, result_dtype
from pylazy.expression import Expression, Flattened, at_user_line, is_compiling, joint_form
from pylazy.programs import Executable, Extents, few_rows, find_by_text
from pylazy.reductions import DEFAULT_SUMMATION, REDUCTIONS, Output, ReductionRequest, Summation, request_text
from pylazy.runtime.errors import ShapeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.arrays import Located, Source
    from pylazy.gpu.places import Place
    from pylazy.options import Backend
    from pylazy.ranges import Ranges, Table
    from pylazy.runtime.gpu_launch import GpuProgram
    from pylazy.runtime.launch import Program

_MAX_EXTENT = 2**63 - 1
_MAX_INDICES = {"float32": 2**24}  # beyond it, neighbouring indices are one number
_MAX_INPUTS = 200  # a kernel image has at most 256 buffers; beyond this, numbers become part of the formula


class Wanted(NamedTuple):
    """One result of a reduction, before its formula is canonical.

    Attributes:
        kind: a row of `REDUCTIONS`.
        operands: positions among the expressions of the job: the formula, then the weight where there is one.
        k: how many are kept, 0 where the kind takes none.
        summation: how it adds up, as the user wishes; see `_summation`.
        math_mode: how GPUs compute functions; see `Output`.
    """

    kind: str
    operands: tuple[int, ...]
    k: int = 0
    summation: Summation = DEFAULT_SUMMATION
    math_mode: str = ""


WANTED: Mapping[str, tuple[Wanted, ...]] = MappingProxyType({kind: (Wanted(kind, (0,)),) for kind in REDUCTIONS})
"""For each kind that takes no k that result alone, of a formula without a weight."""

_MADE_FROM_OTHERS = frozenset(row.name for row in REDUCTIONS.values() if row.program)
_MAX_EXECUTABLES = 4096
_MAX_PLANS = 64
_EXECUTABLES: dict[tuple[Any, ...], Executable] = {}


class Job:
    """A reduction with its data, ready to run any number of times.

    Attributes:
        executable: the program.
        sources: the data of its inputs, in order; read at each run.
        expressions: the formula, and the weight where there is one.
        dtype: "float32" or "float64": of the arithmetic.
        storage: dtype of results that are values of the formula; that of the arithmetic, or a 16-bit float.
        extents: sizes.
        reduced: the axis that is reduced, "i" or "j".
        wanted: the results.
        shapes: of the results, in order.
        ranges: the pairs that are reduced, or None for all.
        backend: where to run; None for where the arrays lie.
    """

    __slots__ = (
        "backend",
        "dtype",
        "executable",
        "expressions",
        "extents",
        "ranges",
        "reduced",
        "shapes",
        "sources",
        "storage",
        "wanted",
    )

    def __init__(
        self,
        executable: Executable,
        sources: list[Source],
        expressions: Sequence[Expression],
        *,
        dtype: str,
        extents: Extents,
        reduced: str,
        wanted: tuple[Wanted, ...],
        shapes: tuple[tuple[int, ...], ...],
        ranges: Ranges | None = None,
        storage: str | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.backend = backend
        self.executable = executable
        self.sources = sources
        self.expressions = expressions
        self.dtype = dtype
        self.storage = storage or dtype
        self.extents = extents
        self.reduced = reduced
        self.wanted = wanted
        self.shapes = shapes
        self.ranges = ranges

    @property
    def few(self) -> str:
        """The axis with few rows, if any; see `few_rows`."""
        return few_rows(self.extents, self.dtype) if self.ranges is None else ""

    def asking(self, wanted: tuple[Wanted, ...], executable: Executable, shapes: tuple[tuple[int, ...], ...]) -> Job:
        """Make the job that finds other results of the same formula on the same data."""
        return Job(
            executable,
            self.sources,
            self.expressions,
            dtype=self.dtype,
            extents=self.extents,
            reduced=self.reduced,
            wanted=wanted,
            shapes=shapes,
            ranges=self.ranges,
            backend=self.backend,
        )

    @property
    def reduced_extent(self) -> int:
        """The size of the axis that is reduced: without ranges, the number of terms of each result."""
        return (self.extents.columns if self.reduced == "j" else self.extents.rows) or 0

    def terms(self, result: Any) -> Any:
        """The number of terms of each element of a result: an integer, or with ranges an array that broadcasts."""
        if self.ranges is None:
            return self.reduced_extent
        counts = kept_table(self.ranges, self.reduced, self.extents).terms_of_rows()
        is_kept = result.ndim - len(self.extents.batch) == 3  # with the reduced axis at size 1
        shape = (-1, 1, 1) if is_kept and self.reduced == "j" else (-1, 1)
        return arrays.array_like(result, counts.reshape(shape))

    def check_tables(self, program: Program | GpuProgram) -> None:
        """Check that a gradient program may use both halves of ranges, where it does.

        Raises:
            ShapeError: the halves have different numbers of pairs.
        """
        if self.ranges is None:
            return
        axes = {buffer.axis for buffer in program.image.arguments if buffer.role == "table"}
        if axes - {"i" if self.reduced == "j" else "j"}:
            rows, columns = self.extents.rows or 0, self.extents.columns or 0
            self.ranges.check_transposes(rows, columns, self.expressions[0].position)

    def run(self, out: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """Compute the results.

        Args:
            out: arrays to write the results into, or None to make new ones.

        Returns:
            One array for each wanted result, of the kind of the inputs; tensors are connected to the graph of autograd
            if an input requires it.
        """
        kind = arrays.check_devices(self.sources)
        if kind == arrays.DLPACK:
            library = arrays.library_of(self.sources)
            if hasattr(library, "record"):  # a function is being differentiated; see pylazy.differentiation
                self._refuse_gpu()
                if out is not None:
                    raise UnsupportedError(
                        at_user_line("out is given in a function that is differentiated: use the result")
                    )
                recorded: tuple[Any, ...] = library.record(self)
                return recorded
        if out is not None:
            if len(out) != len(self.shapes):
                raise ShapeError(
                    at_user_line(f"out has {len(out)} arrays, expected {len(self.shapes)}, one for each result")
                )
            for array, shape, wanted in zip(out, self.shapes, self.wanted, strict=True):
                dtype = REDUCTIONS[wanted.kind].result_dtype(self.storage)
                arrays.check_out(array, kind=kind, shape=shape, dtype=dtype, sources=self.sources)
        results = self.compute(kind) if kind == arrays.NUMPY else self.unrounded(kind)
        if self.storage != self.dtype:
            results = self.rounded(results)
        if out is None:
            if kind == arrays.DLPACK:
                return tuple([arrays.given_back(result, self.sources) for result in results])
            return results
        for array, result in zip(out, results, strict=True):
            array[...] = result
        return tuple(out)

    def _refuse_gpu(self) -> None:
        """Refuse a function of NumPy arrays that is differentiated, and asks for a GPU."""
        if self.backend is not None and self.backend.name == "GPU":
            raise UnsupportedError(
                at_user_line(
                    "backend is 'GPU' in a function of NumPy arrays that is differentiated, whose programs run on the "
                    "CPU: leave it out, or use tensors of torch"
                )
            )

    def rounded(self, results: tuple[Any, ...]) -> tuple[Any, ...]:
        """Convert results from the dtype of the arithmetic to that of the formula."""
        return tuple(
            [
                arrays.converted(result, REDUCTIONS[wanted.kind].result_dtype(self.storage))
                for result, wanted in zip(results, self.wanted, strict=True)
            ]
        )

    def unrounded(self, kind: str) -> tuple[Any, ...]:
        """Compute the results in the dtype of the arithmetic; arrays of other libraries are NumPy's here.

        Args:
            kind: what `check_devices` says.
        """
        if kind == arrays.TORCH:
            if is_compiling() or not RUN_TENSORS:  # a graph cannot hold a list that grows while it is made
                from pylazy.pytorch.torch_reductions import run_tensors

                return run_tensors(self)
            return RUN_TENSORS[0](self)
        if kind == arrays.DLPACK and hasattr(arrays.library_of(self.sources), "record"):
            from pylazy.differentiation.recorded_reductions import record_unrounded

            return record_unrounded(self)
        return self.compute(kind)

    def compute(self, kind: str, tensors: Mapping[int, Any] | None = None) -> tuple[Any, ...]:
        """Compute the results without a word to autograd.

        Args:
            kind: make arrays ("numpy") or tensors ("torch").
            tensors: for numbers of inputs, tensors that take the place of the sources' own.
        """
        executable = self.executable
        if kind != arrays.NUMPY or self.backend is not None:
            place = arrays.place_of(kind, self.sources, self.backend)
            if place is not None:
                return self._compute_on(place, tensors)
        dtypes = executable.result_dtypes
        results = [arrays.empty_result(kind, shape, dtype) for shape, dtype in zip(self.shapes, dtypes, strict=True)]
        batch, rows, columns = self.extents
        if not (rows and columns) or 0 in batch:
            self.fill_empty(results)
        else:
            self.launch(executable.load(self.few), results, tensors)
        for number, wanted in enumerate(self.wanted):
            if wanted.kind in _MADE_FROM_OTHERS:
                results[number] = self.finish(results[number], wanted.kind)
        return tuple(results)

    def launch(self, program: Program, results: Sequence[Any], tensors: Mapping[int, Any] | None = None) -> None:
        """Run a program on the CPU, on the inputs and into results.

        Args:
            program: what to run.
            results: arrays with every batch dimension and contiguous elements; of the program of a derivative those
                come first that it reads.
            tensors: as for `compute`.
        """
        batch, rows, columns = self.extents
        addresses = None if batch or self.ranges is not None else self._addresses(tensors)
        if addresses is None:
            launch(program, self.locate(tensors), results, self.extents, self.ranges)
        else:
            program.run([*addresses, *map(arrays.result_address, results)], rows or 1, columns or 1)

    def _addresses(self, tensors: Mapping[int, Any] | None) -> list[int] | None:
        """Give the addresses of all inputs, if a launch needs no more of them."""
        dtype = self.dtype
        if tensors is None:
            addresses = [source.address(dtype) for source in self.sources]
        else:
            addresses = [
                arrays.tensor_address(tensors[number], dtype) if number in tensors else source.address(dtype)
                for number, source in enumerate(self.sources)
            ]
        return None if 0 in addresses else addresses

    def _compute_on(self, place: Place, tensors: Mapping[int, Any] | None) -> tuple[Any, ...]:
        """As `compute`, on a GPU."""
        batch, rows, columns = self.extents
        if rows and columns and 0 not in batch:
            dtypes = self.executable.result_dtypes
            made = [place.empty(shape, dtype) for shape, dtype in zip(self.shapes, dtypes, strict=True)]
            self.launch_on(place, self.executable, self.locate_on(place, tensors), made)
            results = [place.delivered(result) for result in made]
        else:
            results = self.full_on(place)
        return tuple([self.finish(result, wanted.kind) for result, wanted in zip(results, self.wanted, strict=True)])

    def full_on(self, place: Place) -> list[Any]:
        """Make the results over nothing, on a GPU."""
        outputs = self.executable.reductions.outputs
        return [
            place.full(shape, REDUCTIONS[wanted.kind].empty or 0.0, spec.dtype)
            for shape, spec, wanted in zip(self.shapes, outputs, self.wanted, strict=True)
        ]

    def launch_on(
        self, place: Place, executable: Executable, inputs: Sequence[Located], results: Sequence[Any]
    ) -> None:
        """Run a program on a GPU: that of the job, or of one of its derivatives."""
        program = place.load(executable)
        self.check_tables(program)
        indices = executable.reductions.indices
        place.launch(program, inputs, results, self.extents, self.ranges, indices=indices)

    def locate_on(self, place: Place, tensors: Mapping[int, Any] | None = None) -> list[Located]:
        """Find the data of every input for a GPU."""
        given = tensors or {}
        return [place.locate(source, self.dtype, given.get(number)) for number, source in enumerate(self.sources)]

    def finish(self, result: Any, kind: str) -> Any:
        """Make the result from that of another kind; see `ReductionKind.program`."""
        if kind not in _MADE_FROM_OTHERS:
            return result
        if kind == "mean":
            return arrays.quotient(result, self.terms(result))
        if kind == "any" and self.ranges is not None:
            result = result > 0  # the largest of no value is -inf
        return arrays.converted(result, REDUCTIONS[kind].dtype)

    def locate(self, tensors: Mapping[int, Any] | None = None) -> list[Located]:
        """Find the data of every input."""
        dtype = self.dtype
        if tensors is None:
            return [source.locate(dtype) for source in self.sources]
        return [
            source.locate_tensor(tensors[number], dtype) if number in tensors else source.locate(dtype)
            for number, source in enumerate(self.sources)
        ]

    def fill_empty(self, results: Sequence[Any]) -> None:
        """Write the results over nothing."""
        for result, wanted in zip(results, self.wanted, strict=True):
            neutral = REDUCTIONS[wanted.kind].empty
            if neutral is not None:
                result[...] = neutral


def launch(
    program: Program,
    inputs: Sequence[Located],
    results: Sequence[Any],
    extents: Extents,
    ranges: Ranges | None = None,
) -> None:
    """Run a program on inputs and into results, which have every batch dimension and contiguous elements.

    Args:
        program: what to run.
        inputs: its inputs.
        results: its outputs.
        extents: sizes.
        ranges: what a ranged program takes its tables from.
    """
    batch, rows, columns = extents
    pointers = [located.pointer for located in inputs]
    pointers += [arrays.result_address(result) for result in results]
    tables = []  # held while the program runs
    if ranges is not None:
        axes = [buffer.axis for buffer in program.image.arguments if buffer.role == "table"]
        tables = [ranges.table(axis, rows or 1, columns or 1).words for axis in axes]
        pointers += [arrays.numpy_address(table) for table in tables]
    if not batch:
        program.run(pointers, rows or 1, columns or 1, (), ())
        return
    strides: list[tuple[int, ...]] = []
    rank = len(batch)
    for located in inputs:
        # A size of 1 repeats along the batch, as does a dimension that the array does not have.
        own = located.batch_strides
        strides.append((0,) * (rank - len(own)) + own)
    for result in results:
        item = result.itemsize if hasattr(result, "itemsize") else result.element_size()
        count = math.prod(result.shape[rank:]) * item
        steps = []
        for size in reversed(batch):
            steps.append(count)
            count *= size
        strides.append(tuple(reversed(steps)))
    strides += [(0,) * rank] * len(tables)
    program.run(pointers, rows or 1, columns or 1, batch, tuple(strides))


def prepare(
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    *,
    reduced: str,
    extents: Extents,
    keepdim: bool = False,
    drop_inner: bool = False,
    flat: Flattened | None = None,
    ranges: Ranges | None = None,
    backend: Backend | None = None,
) -> Job:
    """Find or make the program of a reduction, and bind it to its data.

    Args:
        expressions: the formula, and the weight where there is one.
        wanted: the results.
        reduced: the axis to reduce, "i" or "j".
        extents: sizes of the formula and the weight together.
        keepdim: keep the reduced axis in the shape of the results, with size 1.
        drop_inner: leave an inner dimension of 1 out of the shape of the results.
        flat: the expressions in canonical form, where the caller has it already.
        ranges: the pairs to reduce, None for all.
        backend: where to run; None for where the arrays lie.

    Raises:
        ShapeError: nothing to take a position from, fewer terms than the k best, or more pairs than 64 bits count.
        UnsupportedError: a variable is symbolic.
    """
    form, inputs = (None, None) if flat is not None or is_compiling() else joint_form(expressions)
    key = (wanted, reduced, extents, keepdim, drop_inner, ranges is not None)
    plan: Plan | None = None
    try:
        plan = None if form is None else form.plans.get(key)
    except TypeError:
        form = None  # torch.export counts in symbols, which no table takes
    if plan is not None and inputs is not None:
        sources = list(inputs.values())
    else:
        flat = flatten(expressions) if flat is None else flat
        sources = flat.sources
        if arrays.SYMBOL in [source.kind for source in sources]:
            raise UnsupportedError(
                at_user_line(
                    "this operation on a formula with symbolic variables is not implemented yet: give it arrays"
                )
            )
        extents = complete_extents(wanted, reduced, extents)
        shapes = result_shapes(expressions, wanted, reduced, extents, keepdim=keepdim, drop_inner=drop_inner)
        plan = _make_plan(flat, expressions, wanted, reduced, extents, shapes, ranged=ranges is not None)
        if form is not None:
            if len(form.plans) >= _MAX_PLANS:
                form.plans.clear()
            form.plans[key] = plan
    if ranges is not None:
        check_terms(wanted, reduced, plan.extents, ranges)
    return Job(
        plan.executable,
        sources,
        expressions,
        dtype=plan.dtype,
        extents=plan.extents,
        reduced=reduced,
        wanted=wanted,
        shapes=plan.shapes,
        ranges=ranges,
        storage=plan.storage,
        backend=backend,
    )


RUN_TENSORS: list[Callable[[Job], tuple[Any, ...]]] = []
"""What runs jobs on tensors, put here when it is imported: the import statement takes 1 microsecond even then."""


class Plan(NamedTuple):
    """What a reduction has in common with those of all formulas of one form and of the same sizes.

    Attributes:
        executable: the programs.
        dtype: of the arithmetic.
        storage: of values of the formula.
        extents: sizes, complete.
        shapes: of the results.
    """

    executable: Executable
    dtype: str
    storage: str
    extents: Extents
    shapes: tuple[tuple[int, ...], ...]


def _make_plan(
    flat: Flattened,
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    extents: Extents,
    shapes: tuple[tuple[int, ...], ...],
    *,
    ranged: bool,
) -> Plan:
    storage = formula_dtype(expressions, flat.sources)
    dtype = arithmetic_dtype(storage)
    check_indices(flat, dtype, extents)
    executable = find_executable(flat, expressions, wanted, reduced, dtype, ranged=ranged)
    return Plan(executable, dtype, storage, extents, shapes)


def check_indices(flat: Flattened, dtype: str, extents: Extents) -> None:
    """Check that the indices in a formula are exact.

    Raises:
        ShapeError: they are not.
    """
    for axis in flat.indices:
        check_index(axis, (extents.rows if axis == "i" else extents.columns) or 0, dtype)


def check_index(axis: str, extent: int, dtype: str) -> None:
    """Check that the indices of one axis are exact in a dtype.

    Raises:
        ShapeError: they are not.
    """
    limit = _MAX_INDICES.get(dtype, _MAX_EXTENT)
    if extent > limit:
        what = "row" if axis == "i" else "column"
        raise ShapeError(
            at_user_line(
                f"{what}_index of {extent} {what}s in a formula of {dtype}, which counts exactly up to {limit}: "
                "give arrays of float64, or reduce a part at a time"
            )
        )


def flatten(expressions: Sequence[Expression]) -> Flattened:
    """Write formulas in canonical form, with no more inputs than a kernel takes where that can be had."""
    flat = Flattened(expressions)
    return Flattened(expressions, inline_numbers=True) if len(flat.sources) > _MAX_INPUTS else flat


def formula_dtype(expressions: Sequence[Expression], sources: Sequence[Source]) -> str:
    """The dtype of values of a formula: that of the arrays, or of numbers where there is nothing else."""
    dtype: str | None = None
    for expression in expressions:
        dtype = promote(dtype, expression.dtype)
    if dtype is None:
        for source in sources:
            dtype = promote(dtype, source.dtype if source.kind != arrays.NUMBER else None)
    return result_dtype(dtype)


def find_executable(
    flat: Flattened,
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    dtype: str,
    *,
    ranged: bool = False,
) -> Executable:
    """Find or make the program of a reduction, over all pairs or over those of ranges."""
    if is_compiling():
        outputs = request_outputs(flat.roots, expressions, wanted, reduced, dtype)
        return find_by_text(request_text(dtype, flat.entries, outputs, ranged=ranged))
    key = (flat.entries, flat.roots, wanted, reduced, dtype, ranged)
    executable = _EXECUTABLES.get(key)
    if executable is None:
        # Threads may race to make it; setdefault lets one win, and the kernel cache builds each program once.
        request = _request(flat, expressions, wanted, reduced, dtype, ranged=ranged)
        executable = _EXECUTABLES.setdefault(key, Executable(request))
        while len(_EXECUTABLES) > _MAX_EXECUTABLES:
            _EXECUTABLES.pop(next(iter(_EXECUTABLES)), None)
    return executable


def result_shapes(
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    extents: Extents,
    *,
    keepdim: bool,
    drop_inner: bool,
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the results, for extents that are complete."""
    count = extents.rows if reduced == "j" else extents.columns
    assert count is not None
    shapes = []
    for target in wanted:
        dim = expressions[target.operands[-1]].dim
        shape = [*extents.batch, count]
        if keepdim:
            shape.insert(len(extents.batch) + (1 if reduced == "j" else 0), 1)
        if target.k:
            shape.append(target.k)
            if dim > 1:
                shape.append(dim)
        elif not drop_inner:
            shape.append(dim)
        shapes.append(tuple(shape))
    return tuple(shapes)


def complete_extents(wanted: tuple[Wanted, ...], reduced: str, extents: Extents) -> Extents:
    """Count 1 for an axis that no data has, and check that there is enough to reduce.

    Raises:
        ShapeError: see `prepare`.
    """
    batch, rows, columns = extents
    if rows is None or columns is None:
        rows = 1 if rows is None else rows
        columns = 1 if columns is None else columns
        extents = Extents(batch, rows, columns)
    if rows > 1 and columns > 1 and math.prod(batch) * rows * columns > _MAX_EXTENT:
        raise ShapeError(
            at_user_line(
                f"{rows} rows, {columns} columns and a batch of {math.prod(batch)} make more pairs than 64-bit "
                f"integers count, expected at most {_MAX_EXTENT}: reduce a part at a time"
            )
        )
    axis, extent = ("j", columns) if reduced == "j" else ("i", rows)
    for kind, _, k, *_ in wanted:
        if k > extent:
            raise ShapeError(
                at_user_line(f"K is {k}, and axis {axis} has {extent} elements: {kind} needs a K of at most {extent}")
            )
        if not k and not extent and REDUCTIONS[kind].empty is None:
            raise ShapeError(
                at_user_line(
                    f"{kind} over axis {axis}, which is empty: no position exists, expected at least 1 element"
                )
            )
    return extents


def check_terms(wanted: tuple[Wanted, ...], reduced: str, extents: Extents, ranges: Ranges) -> None:
    """Check that ranges fit the sizes of a formula, and leave each row enough to select from.

    Raises:
        ShapeError: they are out of bounds or overlap, or a row has fewer terms than the k best, or no position.
    """
    table = kept_table(ranges, reduced, extents)
    least = max((some.k or int(REDUCTIONS[some.kind].empty is None) for some in wanted), default=0)
    if not least or not len(table.terms):
        return
    terms, row = table.fewest()
    if terms < least:
        kind = wanted[0].kind
        kept = "i" if reduced == "j" else "j"
        raise ShapeError(
            at_user_line(
                f"ranges leave {terms} elements of axis {reduced} to row {row} of axis {kept}: {kind} needs at least "
                f"{least} for every row"
            )
        )


def kept_table(ranges: Ranges, reduced: str, extents: Extents) -> Table:
    """The table of a reduction."""
    return ranges.table("i" if reduced == "j" else "j", extents.rows or 0, extents.columns or 0)


def _request(
    flat: Flattened,
    expressions: Sequence[Expression],
    wanted: tuple[Wanted, ...],
    reduced: str,
    dtype: str,
    *,
    ranged: bool,
) -> ReductionRequest:
    outputs = request_outputs(flat.roots, expressions, wanted, reduced, dtype)
    return ReductionRequest(dtype, flat.entries, flat.inputs(), flat.nodes(), outputs, ranged)


def request_outputs(
    roots: Sequence[int], expressions: Sequence[Expression], wanted: tuple[Wanted, ...], reduced: str, dtype: str
) -> tuple[Output, ...]:
    """Give the outputs of a program, one for each wanted result, where the formulas are the values `roots`."""
    outputs = []
    for kind, operands, k, summation, math_mode in wanted:
        dim = expressions[operands[-1]].dim * (k or 1)
        row = REDUCTIONS[kind]
        numbers = tuple([roots[operand] for operand in operands])
        chosen = _summation(kind, summation, dtype)
        made = row.program_dtype(dtype)
        outputs.append(Output(row.program or kind, reduced, numbers, k, dim, made, chosen, math_mode))
    return tuple(outputs)


def _summation(kind: str, wish: Summation, dtype: str) -> Summation:
    """What a wish means for a kind: nothing where it adds nothing up, and equal programs have equal ones.

    Raises:
        UnsupportedError: the kind does not have this scheme.
    """
    row = REDUCTIONS[kind]
    if wish.scheme and row.schemes and wish.scheme not in row.schemes:
        raise UnsupportedError(
            at_user_line(
                f"sum_scheme is 'kahan_scheme' for {kind}, whose sums are scaled on the way, which is rounded too: "
                "use dtype_acc='float64'"
            )
        )
    accumulator = wish.accumulator if row.accumulates and wish.accumulator != dtype else ""
    return Summation(accumulator, wish.scheme if row.schemes else "")
