"""A reduction that is bound to its data: runs on the CPU or a GPU, any number of times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.arrays import source_devices
from pylazy.arrays.array_libraries import is_compiling
from pylazy.arrays.memory_layout import tensor_address
from pylazy.arrays.out_arrays import check_out
from pylazy.arrays.results import array_like, converted, empty_result, given_back, quotient, result_address
from pylazy.arrays.source_devices import check_devices, recorder_of
from pylazy.arrays.sources import DEVICE, DLPACK, NUMPY, OF_OTHER_LIBRARIES, TORCH, Located, Source
from pylazy.execution.cpu_launch import launch
from pylazy.execution.programs import Executable, Extents, few_rows
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import ShapeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.wanted_results import Wanted
    from pylazy.expression import Expression
    from pylazy.gpu.places import Place
    from pylazy.options import Backend
    from pylazy.runtime.gpu_launch import GpuProgram
    from pylazy.runtime.launch import Program

_MADE_FROM_OTHERS = frozenset(row.name for row in REDUCTIONS.values() if row.program)


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
        counts = self.ranges.kept_table(self.reduced, self.extents).terms_of_rows()
        is_kept = result.ndim - len(self.extents.batch) == 3  # with the reduced axis at size 1
        shape = (-1, 1, 1) if is_kept and self.reduced == "j" else (-1, 1)
        return array_like(result, counts.reshape(shape))

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
        kind = check_devices(self.sources)
        if kind in OF_OTHER_LIBRARIES:
            recorder = recorder_of(kind, self.sources)
            if recorder is not None:
                self._check_backend_of_recorded(kind)
                if out is not None:
                    raise UnsupportedError(
                        at_user_line("out is given in a function that is differentiated: use the result")
                    )
                recorded: tuple[Any, ...] = recorder.record(self)
                return recorded
        if out is not None:
            if len(out) != len(self.shapes):
                raise ShapeError(
                    at_user_line(f"out has {len(out)} arrays, expected {len(self.shapes)}, one for each result")
                )
            for array, shape, wanted in zip(out, self.shapes, self.wanted, strict=True):
                dtype = REDUCTIONS[wanted.kind].result_dtype(self.storage)
                check_out(array, kind=kind, shape=shape, dtype=dtype, sources=self.sources)
        results = self.compute(kind) if kind == NUMPY else self.unrounded(kind)
        if self.storage != self.dtype:
            results = self.rounded(results)
        if out is None:
            if kind == DLPACK:
                return tuple([given_back(result, self.sources) for result in results])
            return results
        for array, result in zip(out, results, strict=True):
            array[...] = result
        return tuple(out)

    def _check_backend_of_recorded(self, kind: str) -> None:
        """Refuse a function that is differentiated, and asks to run elsewhere than where its arrays lie."""
        if kind == DEVICE:
            source_devices.place_of(kind, self.sources, self.backend)
        elif self.backend is not None and self.backend.name == "GPU":
            raise UnsupportedError(
                at_user_line(
                    "backend is 'GPU' in a function of NumPy arrays that is differentiated, whose programs run on the "
                    "CPU: leave it out, or use arrays of CuPy or tensors of torch"
                )
            )

    def rounded(self, results: tuple[Any, ...]) -> tuple[Any, ...]:
        """Convert results from the dtype of the arithmetic to that of the formula."""
        return tuple(
            [
                converted(result, REDUCTIONS[wanted.kind].result_dtype(self.storage))
                for result, wanted in zip(results, self.wanted, strict=True)
            ]
        )

    def unrounded(self, kind: str) -> tuple[Any, ...]:
        """Compute the results in the dtype of the arithmetic; arrays of other libraries are NumPy's here.

        Args:
            kind: what `check_devices` says.
        """
        if kind == TORCH:
            if is_compiling() or not RUN_TENSORS:  # a graph cannot hold a list that grows while it is made
                from pylazy.pytorch.torch_reductions import run_tensors

                return run_tensors(self)
            return RUN_TENSORS[0](self)
        if recorder_of(kind, self.sources) is not None:
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
        if kind != NUMPY or self.backend is not None:
            place = source_devices.place_of(kind, self.sources, self.backend)
            if place is not None:
                return self._compute_on(place, tensors)
        dtypes = executable.result_dtypes
        results = [empty_result(kind, shape, dtype) for shape, dtype in zip(self.shapes, dtypes, strict=True)]
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
            program.run([*addresses, *map(result_address, results)], rows or 1, columns or 1)

    def _addresses(self, tensors: Mapping[int, Any] | None) -> list[int] | None:
        """Give the addresses of all inputs, if a launch needs no more of them."""
        dtype = self.dtype
        if tensors is None:
            addresses = [source.address(dtype) for source in self.sources]
        else:
            addresses = [
                tensor_address(tensors[number], dtype) if number in tensors else source.address(dtype)
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
            return quotient(result, self.terms(result))
        if kind == "any" and self.ranges is not None:
            result = result > 0  # the largest of no value is -inf
        return converted(result, REDUCTIONS[kind].dtype)

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


RUN_TENSORS: list[Callable[[Job], tuple[Any, ...]]] = []
"""What runs jobs on tensors, put here when it is imported: the import statement takes 1 microsecond even then."""
