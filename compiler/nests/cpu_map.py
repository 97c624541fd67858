"""The CPU kernel of a `map`: one value for each row, written to a buffer."""

from typing import Any

from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.body_values import Position, inner_dim
from pylazy.compiler.nests.cpu_memory import Panel, in_all_lanes
from pylazy.compiler.nests.cpu_nests import Nest
from pylazy.compiler.nests.cpu_transposition import unpack_rows
from pylazy.compiler.nests.integers import imul, number


class MapNest(Nest):
    """One value for each row, written to a buffer."""

    def allocate(self) -> None:
        """Allocate panels for the results too."""
        super().allocate()
        self.stores = [op for op in self.body_block.operations if name_of(op) == "reduction.store"]
        self.results = [
            self.shape.panel(inner_dim(op.operands[0]), ir.VectorType(op.operands[0].type).element_type)
            for op in self.stores
        ]

    def tile(self, tile: ir.Value) -> None:
        """Emit the rows of one tile."""
        first_row = imul(tile, number(self.rows_per_tile))
        self.pack(first_row)
        body = BodyElements(self.body_block, self.block, self.load_element)
        for operation, panel in zip(self.stores, self.results, strict=True):
            with operation.location:
                self._store(operation, panel, body, first_row)

    def _store(self, operation: Any, panel: Panel, body: BodyElements, first_row: ir.Value) -> None:
        value, dim = operation.operands[0], inner_dim(operation.operands[0])

        def write(at: Position) -> None:
            for row in range(self.row_vectors):
                panel.write(in_all_lanes(body.element(value, at, row, 0), panel.vector), at, row)

        body.over_elements(value, write)
        unpack_rows(panel, self.buffer_of(operation.operands[1]), first_row, self.rows, slots=dim)
