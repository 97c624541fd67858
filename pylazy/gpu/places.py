"""Where a reduction runs on a GPU, and who allocates there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pylazy.runtime.errors import DeviceError
from pylazy.runtime.gpu_devices import device_count, reason_for_no_device
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.arrays.sources import Located, Source
    from pylazy.block_sparse.ranges import Ranges
    from pylazy.execution.programs import Executable, Extents
    from pylazy.options import Backend
    from pylazy.runtime.gpu_launch import GpuProgram


class Place(Protocol):
    """A GPU, with a library that allocates memory for its reductions."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Allocate a result."""
        ...

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Any:
        """Make a result of equal elements."""
        ...

    def delivered(self, result: Any) -> Any:
        """Give a result of `empty` that was launched to its library."""
        ...

    def locate(self, source: Source, dtype: str, tensor: Any = None) -> Located:
        """Find the data of an input; `tensor` takes its place where it is given."""
        ...

    def load(self, executable: Executable) -> GpuProgram:
        """Find the program for the GPU, compiled or taken from the disk."""
        ...

    def launch(
        self,
        program: GpuProgram,
        inputs: Sequence[Located],
        results: Sequence[Any],
        extents: Extents,
        ranges: Ranges | None = None,
        *,
        indices: str = "",
    ) -> None:
        """Run a program.

        Args:
            program: of `load`.
            inputs: as they are located.
            results: its other arguments, made by `empty` or like such; they have every batch dimension.
            extents: sizes.
            ranges: what a ranged program takes its tables from.
            indices: the axes whose indices are values of the formula.
        """
        ...


def place_of_host_arrays(kind: str, backend: Backend) -> Place:
    """Choose the GPU for arrays that lie on the host.

    Raises:
        DeviceError: there is no GPU, or none of this number.
    """
    from pylazy.gpu.staging import HostArrays

    device = max(backend.device_id, 0)
    count = device_count()
    if device >= count:
        found = f"this machine has {count}" if count else f"this machine has none, {reason_for_no_device()}"
        raise DeviceError(at_user_line(f"the backend is {backend.name!r} on GPU {device}, and {found}: use 'auto'"))
    return HostArrays(kind, device)
