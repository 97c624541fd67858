"""The GPU kernel over listed pairs: a table gives each block its rows, and the intervals of columns they go over."""

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute
from pylazy.compiler.mlir import gpu, ir, scf
from pylazy.compiler.nests.gpu_accumulators import State, index_type
from pylazy.compiler.nests.gpu_memory import block_index, byte_address, load_input
from pylazy.compiler.nests.gpu_sweeps import ReduceNest
from pylazy.compiler.nests.integers import iadd, imul, isub, number

_HEADER_WORDS = 2
_TILE_WORDS = 4
_WORD_BYTES = 8


class RangedNest(ReduceNest):
    """A block for each tile of a table: its rows, `rows_per_block` at a time, over the intervals of the tile.

    The bounds of rows and of columns are the same for all threads of a block, so these meet at every barrier. Several
    splits share the intervals of a tile. For the layout of a table see the role "table" in pylazy.runtime.kernel.
    """

    def tile_table(self) -> int:
        """Give the number of the table."""
        return self.arguments.index(self.operation.operands[0])

    def index_type(self) -> ir.Type:
        """Columns are numbered from the first of the axis: a split may have any."""
        return index_type()

    def relative_index(self) -> ir.Value:
        """Columns are numbered from the first of the axis."""
        return self.column

    def whole_index(self, relative: ir.Value) -> ir.Value:
        """Columns are numbered from the first of the axis."""
        return relative

    def emit_block(self) -> None:
        """Build the loop over the rows of the tile."""
        start = iadd(imul(block_index(), number(_TILE_WORDS)), number(_HEADER_WORDS))
        first_row, end_of_rows, self.first_word, self.end_of_words = (self._word(start, after) for after in range(4))
        self.split = block_index(gpu.Dimension.y)
        loop = scf.ForOp(first_row, end_of_rows, number(self.rows_per_block), [])
        with ir.InsertionPoint(loop.body):
            if self.panel.bytes:
                gpu.barrier()  # the rows before are read to the end
            self.place_rows(loop.induction_variable, end_of_rows)
            self.fill()
            scf.YieldOp([])

    def place_columns(self) -> None:
        """Build the bounds of the intervals of this split: an equal share of those of the tile, in order."""
        pairs = kb.emit("arith.divui", (isub(self.end_of_words, self.first_word), number(2)))
        bounds = [
            kb.emit("arith.divui", (imul(pairs, split), self.splits))
            for split in (self.split, iadd(self.split, number(1)))
        ]
        self.low_word, self.high_word = (iadd(self.first_word, imul(bound, number(2))) for bound in bounds)

    def over_columns(self, flat: State) -> State:
        """Build the loop over the intervals of the tile."""
        loop = scf.ForOp(self.low_word, self.high_word, number(2), flat)
        with ir.InsertionPoint(loop.body):
            place = loop.induction_variable
            scf.YieldOp(self.over_tiles(list(loop.inner_iter_args), self._word(place), self._word(place, 1)))
        return list(loop.results)

    def number_of_columns(self) -> ir.Value:
        """Build the number of columns in the intervals of the tile, where a mean asks for it."""
        if all(attribute(operation, "kind") != "mean" for operation in self.accumulations):
            return self.columns
        loop = scf.ForOp(self.first_word, self.end_of_words, number(2), [number(0)])
        with ir.InsertionPoint(loop.body):
            place = loop.induction_variable
            length = isub(self._word(place, 1), self._word(place))
            scf.YieldOp([iadd(loop.inner_iter_args[0], length)])
        return loop.results[0]

    def _word(self, place: ir.Value, after: int = 0) -> ir.Value:
        table = self.pointers[self.operation.operands[0]]
        address = byte_address(table, base=imul(place, number(_WORD_BYTES)), offset=after * _WORD_BYTES)
        return load_input(address, ir.IntegerType.get_signless(64))
