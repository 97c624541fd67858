"""The GPU kernel of a `map`: one value for each row, written to a buffer."""

from typing import Any

from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.nests.body_elements import BodyElements
from pylazy.compiler.nests.gpu_nests import Nest


class MapNest(Nest):
    """One value for each row, written to a buffer."""

    def fill(self) -> None:
        """Build the values and their stores."""
        body = self.elements()
        for operation in self.body_block.operations:
            if name_of(operation) == "reduction.store":
                for row in range(self.rows_per_thread):
                    with operation.location:
                        self._store(operation, body, row)

    def _store(self, operation: Any, body: BodyElements, row: int) -> None:
        value, buffer = operation.operands[0], operation.operands[1]

        def write_all() -> None:
            with body.scope():
                body.over_elements(value, lambda at: self.store_row(buffer, row, at, body.element(value, at, row, 0)))

        self.guarded(row, write_all)
