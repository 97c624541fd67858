"""Tables of recursions on a GPU: each thread has its numbers in workgroup memory, side by side with its neighbours'."""

from collections.abc import Callable
from typing import Any

from pylazy.compiler.diagnostics import at_source_line
from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir, llvm
from pylazy.compiler.nests.body_values import inner_dim
from pylazy.compiler.nests.gpu_memory import WORKGROUP_BYTES, byte_address
from pylazy.compiler.nests.integers import element_bytes, imul, number
from pylazy.compiler.nests.soft_dtw import table_numbers
from pylazy.runtime.errors import UnsupportedError


class ThreadNumbers:
    """Numbers of one thread, `threads` numbers apart, so that the threads of a warp touch all banks of the memory."""

    def __init__(self, start: ir.Value, element: ir.Type, *, threads: int) -> None:
        self._start = start
        self._element = element
        self._step = threads * element_bytes(element)

    def _address(self, place: ir.Value, scale: int, offset: int) -> ir.Value:
        return byte_address(self._start, base=imul(place, number(scale * self._step)), offset=offset * self._step)

    def load(self, place: ir.Value, scale: int, offset: int) -> ir.Value:
        """Build the load of the number `place * scale + offset`."""
        address = self._address(place, scale, offset)
        return llvm.LoadOp(self._element, address, alignment=element_bytes(self._element)).result

    def store(self, value: ir.Value, place: ir.Value, scale: int, offset: int) -> None:
        """Build the store of the number `place * scale + offset`."""
        llvm.StoreOp(value, self._address(place, scale, offset), alignment=element_bytes(self._element))


class ThreadTables:
    """The tables of all recursions of a body.

    Args:
        body: of a kernel op.
        threads: of a block.
        taken: bytes of workgroup memory that serve other ends.
        name: of the target, for messages.

    Raises:
        UnsupportedError: they do not fit.
    """

    def __init__(self, body: Any, *, threads: int, taken: int, name: str) -> None:
        self._threads = threads
        self._places: dict[Any, int] = {}
        end = 0
        for operation in body.operations:
            if name_of(operation) == "reduction.soft_dtw_rows":
                self._places[operation] = end
                size = element_bytes(ir.VectorType(operation.results[0].type).element_type)
                end += table_numbers(operation) * threads * size
                if taken + end > WORKGROUP_BYTES:
                    _refuse(operation, threads=threads, size=size, taken=taken, name=name)
        self.bytes = end

    def place(self, start: ir.Value, thread: ir.Value) -> None:
        """Say where the tables begin, and which thread asks."""
        self._start, self._thread = start, thread

    def numbers_of(self, operation: Any) -> Callable[[int, ir.Type], ThreadNumbers]:
        """Give what places the tables of one recursion, one after the other."""
        end = self._places[operation]

        def allocate(count: int, element: ir.Type) -> ThreadNumbers:
            nonlocal end
            size = element_bytes(element)
            start = byte_address(self._start, base=imul(self._thread, number(size)), offset=end)
            end += count * self._threads * size
            return ThreadNumbers(start, element, threads=self._threads)

        return allocate


def _refuse(operation: Any, *, threads: int, size: int, taken: int, name: str) -> None:
    n, m = (inner_dim(operand) for operand in list(operation.operands)[:2])
    fitting = (WORKGROUP_BYTES - taken) // (threads * size)
    message = (
        f"reduction.soft_dtw of series of {n} and {m} elements needs a table of {table_numbers(operation)} numbers a "
        f"thread, and workgroup memory of {name} holds {fitting}: use shorter series, or a CPU"
    )
    raise UnsupportedError(at_source_line(message, operation.location))
