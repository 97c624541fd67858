"""The loop nest over listed pairs: a table says which rows make a tile, and over which intervals of columns they go."""

from typing import Any

from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import ir, scf
from pylazy.compiler.nests.accumulations import accumulations_in, attribute_segments, is_selection
from pylazy.compiler.nests.cpu_memory import address, load
from pylazy.compiler.nests.cpu_nests import Program
from pylazy.compiler.nests.cpu_sweeps import ReduceNest
from pylazy.compiler.nests.integers import for_range, i64, iadd, imul, isub, number

_HEADER_WORDS = 2
_TILE_WORDS = 4
#: Column numbers in 32-bit lanes count from 0.
_MAX_NARROW_COLUMNS = 2**30


class RangedNest(ReduceNest):
    """Rows of a tile in vectors; for each vector the intervals of the tile, each cut in chunks as whole rows are.

    The columns of a tile are never split, so there are no unfinished states. For the layout of a table see the role
    "table" in pylazy.runtime.kernel.
    """

    def __init__(self, program: Program, operation: Any, name: str) -> None:
        super().__init__(program, operation, name)
        self.splittable = False

    def launch_attributes(self) -> dict[str, ir.Attribute]:
        """Say which buffer is the table, and how many columns can be numbered."""
        accumulations = accumulations_in(self.body_block)
        numbered = any(attribute_segments(op)[3] or is_selection(op) for op in accumulations)
        limit = _MAX_NARROW_COLUMNS if numbered and self.index_type().width < 64 else 0
        return {
            "tile_table": ir.IntegerAttr.get(i64(), self.program.arguments.index(self.operation.operands[0])),
            "max_columns_per_split": ir.IntegerAttr.get(i64(), limit),
        }

    def tile(self, tile: ir.Value) -> None:
        """Emit the rows of one tile."""
        self.table = self.buffer_of(self.operation.operands[0])
        start = iadd(imul(tile, number(_TILE_WORDS)), number(_HEADER_WORDS))
        first_row, last_row, self.first_word, self.last_word = (self._word(start, offset) for offset in range(4))
        self.rows = last_row  # rows beyond it belong to other tiles
        self.first_column = number(0)
        if any(attribute(op, "kind") == "mean" for op in self.accumulations):
            self.columns = self._count_columns()
        for_range(first_row, last_row, self.rows_per_tile, self._sweep)

    def _word(self, position: ir.Value, offset: int = 0) -> ir.Value:
        return load(address(self.table, i64(), base=position, offset=offset), i64())

    def _count_columns(self) -> ir.Value:
        loop = scf.ForOp(self.first_word, self.last_word, number(2), [number(0)])
        with ir.InsertionPoint(loop.body):
            length = isub(self._word(loop.induction_variable, 1), self._word(loop.induction_variable))
            scf.YieldOp([iadd(loop.inner_iter_args[0], length)])
        return loop.results[0]

    def _sweep(self, first_row: ir.Value) -> None:
        body, carried = self._begin(first_row)
        loop = scf.ForOp(self.first_word, self.last_word, number(2), carried)
        with ir.InsertionPoint(loop.body), body.scope():
            first_column = self._word(loop.induction_variable)
            last_column = self._word(loop.induction_variable, 1)
            scf.YieldOp(self._chunks(body, list(loop.inner_iter_args), first_column, last_column))
        self._end(list(loop.results), first_row, number(0))
