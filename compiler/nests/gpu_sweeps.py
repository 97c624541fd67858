"""The GPU kernel of a `map_reduce`: one or more sweeps over the columns of a split."""

import itertools
from collections.abc import Sequence
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import gpu, ir, llvm, scf
from pylazy.compiler.nests.accumulations import attribute_segments, is_selection
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.gpu_accumulators import GpuAccumulator, State
from pylazy.compiler.nests.gpu_columns import ColumnNest
from pylazy.compiler.nests.gpu_components import Components
from pylazy.compiler.nests.gpu_exponentials import Exponentials
from pylazy.compiler.nests.gpu_memory import byte_address, store_output, thread_index
from pylazy.compiler.nests.gpu_nests import Kernel
from pylazy.compiler.nests.gpu_pairs import PairStores
from pylazy.compiler.nests.gpu_shared_sums import shareable_factors
from pylazy.compiler.nests.gpu_shared_sweeps import sweep_shared_elements
from pylazy.compiler.nests.gpu_states import result_width
from pylazy.compiler.nests.integers import imul, number
from pylazy.runtime.errors import InternalError

#: Bytes of a slot of a state in workgroup memory, and the most slots of a row where groups of threads share rows.
_SLOT_BYTES = 8
_SLOTS_OF_A_GROUP = 3
#: State slots of accumulations that share one sweep over the columns.
_SLOTS_OF_A_SWEEP = 24


class ReduceNest(ColumnNest):
    """Short results share a sweep, a long one has a sweep for each of its chunks."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.chunk = attribute(self.operation, "result_chunk", 16)
        self.shared_chunk = attribute(self.operation, "shared_chunk", 0)
        self.pair_stores = [op for op in self.body_block.operations if name_of(op) == "reduction.store_pair"]
        if self.column_groups > 1:
            exchanged = _SLOTS_OF_A_GROUP * self.rows_per_thread * self.threads * _SLOT_BYTES
            self.workgroup_bytes = max(self.workgroup_bytes, exchanged)

    def fill(self) -> None:
        """Build the sweeps: accumulations of short results share one, a long result has one for each of its chunks."""
        self.body = self.elements()
        self.place_columns()
        self._prepare_rows()
        shared: list[tuple[Any, GpuAccumulator]] = []
        slots = 0
        for operation in self.accumulations:
            with operation.location:
                dim = result_width(operation)
                if is_selection(operation):
                    for component in range(inner_dim(operation.operands[0])):
                        self._sweep([(operation, self.make_selection(operation, Position(component)))])
                elif dim > self.chunk or (self.shared_chunk and shareable_factors(operation, self.body)):
                    self._sweep_by_chunks(operation, dim)
                else:
                    if shared and slots + dim > _SLOTS_OF_A_SWEEP:
                        self._sweep(shared)
                        shared, slots = [], 0
                    shared.append((operation, self.make_accumulator(operation, [Position(k) for k in range(dim)])))
                    slots += dim
        shared += [(operation, PairStores(operation, self)) for operation in self.pair_stores]
        if shared:
            self._sweep(shared)

    def _prepare_rows(self) -> None:
        """Emit, before all loops, what depends on the row or on nothing, unless it is long."""
        for operation in self.body_block.operations:
            for value in operation.results:
                if not isinstance(value.type, ir.VectorType) or "c" in self.body.axes(value):
                    continue
                if inner_dim(value) <= self.block.unroll_limit and name_of(operation) != "arith.constant":
                    for row in range(self.rows_per_thread if "r" in self.body.axes(value) else 1):
                        for component in range(inner_dim(value)):
                            self.body.element(value, Position(component), row, 0)

    def _sweep_by_chunks(self, operation: Any, dim: int) -> None:
        """Build sweeps for a long result: a loop over whole chunks, straight code for what remains."""
        factored = shareable_factors(operation, self.body) if self.shared_chunk else None
        weighted = attribute_segments(operation)[1] == 1
        seams = {seam for seam in self.body.boundaries(operation.operands[int(weighted)]) if 0 < seam < dim}
        for low, high in itertools.pairwise([0, *sorted(seams), dim]):
            rest = low
            if factored is not None:
                rest = sweep_shared_elements(self, operation, factored, low, high, most=self.shared_chunk)
            turns = (high - rest) // self.chunk
            looped = rest + turns * self.chunk if turns > 1 else rest
            if turns > 1:
                loop = scf.ForOp(number(rest), number(looped), number(self.chunk), [])
                with ir.InsertionPoint(loop.body), self.body.scope():
                    places = [Position(k, loop.induction_variable, rest + k) for k in range(self.chunk)]
                    self._sweep([(operation, self.make_accumulator(operation, places))])
                    scf.YieldOp([])
            for first in range(looped, high, self.chunk):
                places = [Position(k) for k in range(first, min(first + self.chunk, high))]
                self._sweep([(operation, self.make_accumulator(operation, places))])

    def _sweep(self, parts: Sequence[tuple[Any, GpuAccumulator]]) -> None:
        """Build one pass over all columns, tile by tile, and the stores of what it found."""
        self.parts = [accumulator for _, accumulator in parts]
        states = [accumulator.start() for accumulator in self.parts]
        self.widths = [len(state) for state in states]
        flat = self.over_columns([slot for state in states for slot in state])
        self._end(parts, self._join_groups([part for _, part in parts], flat) if self.column_groups > 1 else flat)

    def _join_groups(self, parts: Sequence[GpuAccumulator], flat: State) -> State:
        """Build the states of all columns of a tile from those of the groups of threads, in workgroup memory."""
        gpu.barrier()
        mine = byte_address(self.tile_start, base=imul(thread_index(), number(_SLOT_BYTES)))
        for slot, value in enumerate(flat):
            store_output(value, byte_address(mine, offset=slot * self.threads * _SLOT_BYTES))
        gpu.barrier()
        lane = kb.emit("arith.remui", (thread_index(), number(self.row_threads)))
        first = byte_address(self.tile_start, base=imul(lane, number(_SLOT_BYTES)))
        groups = [
            [
                llvm.LoadOp(
                    value.type, byte_address(first, offset=(slot * self.threads + k * self.row_threads) * _SLOT_BYTES)
                ).result
                for slot, value in enumerate(flat)
            ]
            for k in range(self.column_groups)
        ]
        joining = [part for part in parts if isinstance(part, Components | Exponentials)]
        if len(joining) < len(parts):
            raise InternalError("the schedule gave the rows of a list to several threads")
        joined = groups[0]
        for other in groups[1:]:
            pairs = list(zip(joining, self.split_state(joined), self.split_state(other), strict=True))
            joined = [slot for part, (_, a), (_, b) in pairs for slot in part.join(a, b)]
        return joined

    def _end(self, parts: Sequence[tuple[Any, GpuAccumulator]], flat: State) -> None:
        """Build the stores of the results, or, if there are several splits, of the unfinished states."""
        states = list(zip(parts, self.split_state(flat), strict=True))
        if not self.splittable:
            for (operation, part), (_, state) in states:
                self.store_results(operation, part.results(state, self.number_of_columns()))
            return
        branch = scf.IfOp(kb.icompare("eq", self.splits, number(1)), has_else=True)
        with ir.InsertionPoint(branch.then_block):
            for (operation, part), (_, state) in states:
                self.store_results(operation, part.results(state, self.number_of_columns()))
            scf.YieldOp([])
        with ir.InsertionPoint(branch.else_block):
            for (operation, part), (_, state) in states:
                self.save_states(operation, part.save(state))
            scf.YieldOp([])

    def number_of_columns(self) -> ir.Value:
        """Build the number of terms of each result."""
        return self.columns
