"""Arrays in, arrays out: from expressions to a program, and from a program to its results."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy import arrays
from pylazy.expression import Expression, Flattened, at_user_line, promote
from pylazy.programs import Executable, Extents, few_rows
from pylazy.reductions import REDUCTIONS, Output, ReductionRequest
from pylazy.runtime.errors import ShapeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pylazy.arrays import Located, Source
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
    """

    kind: str
    operands: tuple[int, ...]
    k: int = 0


_MAX_EXECUTABLES = 4096
_EXECUTABLES: dict[tuple[Any, ...], Executable] = {}


class Job:
    """A reduction with its data, ready to run any number of times.

    Attributes:
        executable: the program.
        sources: the data of its inputs, in order; read at each run.
        expressions: the formula, and the weight where there is one.
        dtype: "float32" or "float64": of the formula.
        extents: sizes.
        few: the axis with few rows, if any; see `few_rows`.
        reduced: the axis that is reduced, "i" or "j".
        wanted: the results.
        shapes: of the results, in order.
    """

    __slots__ = ("dtype", "executable", "expressions", "extents", "few", "reduced", "shapes", "sources", "wanted")

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
    ) -> None:
        self.executable = executable
        self.sources = sources
        self.expressions = expressions
        self.dtype = dtype
        self.extents = extents
        self.few = few_rows(extents, dtype)
        self.reduced = reduced
        self.wanted = wanted
        self.shapes = shapes

    @property
    def reduced_extent(self) -> int:
        """The number of terms of each result."""
        return (self.extents.columns if self.reduced == "j" else self.extents.rows) or 0

    def run(self, out: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """Compute the results.

        Args:
            out: arrays to write the results into, or None to make new ones.

        Returns:
            One array for each wanted result, of the kind of the inputs; tensors are connected to the graph of autograd
            if an input requires it.
        """
        kind = arrays.check_devices(self.sources)
        if out is not None:
            if len(out) != len(self.shapes):
                raise ShapeError(
                    at_user_line(f"out has {len(out)} arrays, expected {len(self.shapes)}, one for each result")
                )
            for array, shape, wanted in zip(out, self.shapes, self.wanted, strict=True):
                dtype = REDUCTIONS[wanted.kind].result_dtype(self.dtype)
                arrays.check_out(array, kind=kind, shape=shape, dtype=dtype, sources=self.sources)
        if kind == arrays.TORCH and sys.modules["torch"].is_grad_enabled():
            for source in self.sources:
                if source.kind == arrays.TORCH and source.array.requires_grad:
                    from pylazy.torch_ops import run_differentiable

                    results = run_differentiable(self)
                    break
            else:
                results = self.compute(kind)
        else:
            results = self.compute(kind)
        if out is None:
            return results
        for array, result in zip(out, results, strict=True):
            array[...] = result
        return tuple(out)

    def compute(self, kind: str, tensors: Mapping[int, Any] | None = None) -> tuple[Any, ...]:
        """Compute the results without a word to autograd.

        Args:
            kind: make arrays ("numpy") or tensors ("torch").
            tensors: for numbers of inputs, tensors that take the place of the sources' own.
        """
        executable = self.executable
        outputs = executable.request.outputs
        results = [
            arrays.empty_result(kind, shape, spec.dtype) for shape, spec in zip(self.shapes, outputs, strict=True)
        ]
        batch, rows, columns = self.extents
        if not (rows and columns) or 0 in batch:
            self._fill_empty(results)
        else:
            located = self.locate(tensors)
            launch(executable.load(self.few), located, results, self.extents)
        return tuple([self._finish(result, wanted.kind) for result, wanted in zip(results, self.wanted, strict=True)])

    def _finish(self, result: Any, kind: str) -> Any:
        """Make the result from that of another kind; see `ReductionKind.program`."""
        if not REDUCTIONS[kind].program:
            return result
        if kind == "mean":
            result[...] /= self.reduced_extent or math.nan
            return result
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

    def _fill_empty(self, results: Sequence[Any]) -> None:
        for result, wanted in zip(results, self.wanted, strict=True):
            neutral = REDUCTIONS[wanted.kind].empty
            if neutral is not None:
                result[...] = neutral


def launch(program: Program, inputs: Sequence[Located], results: Sequence[Any], extents: Extents) -> None:
    """Run a program on inputs and into results, which have every batch dimension and contiguous elements."""
    batch, rows, columns = extents
    pointers = [located.pointer for located in inputs]
    pointers += [arrays.result_address(result) for result in results]
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

    Raises:
        ShapeError: nothing to take a position from, fewer terms than the k best, or more pairs than 64 bits count.
        UnsupportedError: a variable is symbolic.
    """
    if flat is None:
        flat = flatten(expressions)
        if any(source.kind == arrays.SYMBOL for source in flat.sources):
            raise UnsupportedError(
                at_user_line(
                    "this operation on a formula with symbolic variables is not implemented yet: give it arrays"
                )
            )
    extents = complete_extents(wanted, reduced, extents)
    dtype = formula_dtype(expressions, flat.sources)
    check_indices(flat, dtype, extents)
    return Job(
        find_executable(flat, expressions, wanted, reduced, dtype),
        flat.sources,
        expressions,
        dtype=dtype,
        extents=extents,
        reduced=reduced,
        wanted=wanted,
        shapes=result_shapes(expressions, wanted, reduced, extents, keepdim=keepdim, drop_inner=drop_inner),
    )


def check_indices(flat: Flattened, dtype: str, extents: Extents) -> None:
    """Check that the indices in a formula are exact.

    Raises:
        ShapeError: they are not.
    """
    limit = _MAX_INDICES.get(dtype, _MAX_EXTENT)
    for axis, what, extent in (("i", "row", extents.rows), ("j", "column", extents.columns)):
        if (extent or 0) > limit and ("index", axis) in flat.entries:
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
    """The dtype of the arithmetic: that of the arrays, or of numbers where there is nothing else."""
    dtype: str | None = None
    for expression in expressions:
        dtype = promote(dtype, expression.dtype)
    if dtype is None:
        for source in sources:
            dtype = promote(dtype, source.dtype if source.kind != arrays.NUMBER else None)
    return dtype or "float64"


def find_executable(
    flat: Flattened, expressions: Sequence[Expression], wanted: tuple[Wanted, ...], reduced: str, dtype: str
) -> Executable:
    """Find or make the program of a reduction."""
    key = (flat.entries, flat.roots, wanted, reduced, dtype)
    executable = _EXECUTABLES.get(key)
    if executable is None:
        # Threads may race to make it; setdefault lets one win, and the kernel cache builds each program once.
        executable = _EXECUTABLES.setdefault(key, Executable(_request(flat, expressions, wanted, reduced, dtype)))
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
    rows = 1 if rows is None else rows
    columns = 1 if columns is None else columns
    _check_extents(wanted, reduced, batch, rows, columns)
    return Extents(batch, rows, columns)


def _check_extents(wanted: tuple[Wanted, ...], reduced: str, batch: tuple[int, ...], rows: int, columns: int) -> None:
    if rows > 1 and columns > 1 and math.prod(batch) * rows * columns > _MAX_EXTENT:
        raise ShapeError(
            at_user_line(
                f"{rows} rows, {columns} columns and a batch of {math.prod(batch)} make more pairs than 64-bit "
                f"integers count, expected at most {_MAX_EXTENT}: reduce a part at a time"
            )
        )
    axis, extent = ("j", columns) if reduced == "j" else ("i", rows)
    for kind, _, k in wanted:
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


def _request(
    flat: Flattened, expressions: Sequence[Expression], wanted: tuple[Wanted, ...], reduced: str, dtype: str
) -> ReductionRequest:
    outputs = []
    for kind, operands, k in wanted:
        dim = expressions[operands[-1]].dim * (k or 1)
        row = REDUCTIONS[kind]
        numbers = tuple(flat.roots[operand] for operand in operands)
        outputs.append(Output(row.program or kind, reduced, numbers, k, dim, row.program_dtype(dtype)))
    return ReductionRequest(dtype, flat.entries, flat.inputs(), flat.nodes(), tuple(outputs))
