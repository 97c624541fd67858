"""Block-sparse ranges: six arrays of integers, checked, and the tables of tiles that kernels read.

`(ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i)` as in pykeops: the rows of block k, from
`ranges_i[k, 0]` up to `ranges_i[k, 1]`, are reduced over the columns of the intervals
`redranges_j[slices_i[k - 1]:slices_i[k]]`. The other three are the same for reductions over i.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy.arrays.array_libraries import is_tensor
from pylazy.block_sparse.range_tables import Table, make_table
from pylazy.runtime.errors import DtypeError, ShapeError
from pylazy.user_positions import Position, at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pylazy.block_sparse.range_tables import Integers
    from pylazy.execution.programs import Extents

NAMES = ("ranges_i", "slices_i", "redranges_j", "ranges_j", "slices_j", "redranges_i")
_EXPECTED = f"({', '.join(NAMES)})"
CPU_TILE_ROWS = 96
"""A multiple of most numbers of rows that kernels take at once, and small enough to share a launch among threads."""
GPU_TILE_ROWS = 128
"""What a block of threads takes at once; kernels take tiles of any size."""
GPU_INTERVAL_COLUMNS = 2048
"""Longer intervals are cut, so that the blocks of a tile, where several share it, have equal shares."""
_NO_CUT = 2**62
_MAX_TABLES = 8


class Half(NamedTuple):
    """The three arrays of one axis.

    Attributes:
        names: what to call them.
        axis: the axis of the blocks, "i" or "j".
        blocks: (n, 2), first row of a block and the row after its last.
        ends: (n,), the number of intervals in this and all earlier blocks.
        intervals: (q, 2), first element of the other axis and the one after the last.
    """

    names: tuple[str, str, str]
    axis: str
    blocks: Integers
    ends: Integers
    intervals: Integers


class Ranges:
    """Six arrays, copied and checked for all that does not depend on the sizes of a formula.

    Attributes:
        halves: by the axis whose rows are kept.
    """

    __slots__ = ("_placed", "_tables", "_versions", "halves")

    def __init__(self, given: Sequence[Any]) -> None:
        """Copy and check; see `read_ranges`."""
        read = [_read(name, value) for name, value in zip(NAMES, given, strict=True)]
        self.halves = {"i": Half(NAMES[:3], "i", *read[:3]), "j": Half(NAMES[3:], "j", *read[3:])}
        for half in self.halves.values():
            _check_slices(half)
        self._tables: dict[tuple[str, int, int, int, int], Table] = {}
        self._versions = tuple(_version_of(value) for value in given)
        self._placed: dict[tuple[str, int, int, str], tuple[Any, int]] = {}

    def table(
        self,
        kept: str,
        rows: int,
        columns: int,
        *,
        tile_rows: int = CPU_TILE_ROWS,
        interval_columns: int = _NO_CUT,
    ) -> Table:
        """The table for reductions that keep axis `kept` of a formula of these sizes; made once.

        Args:
            kept: "i" or "j".
            rows: of the formula.
            columns: of the formula.
            tile_rows: the most rows of a tile.
            interval_columns: the most columns of an interval.

        Raises:
            ShapeError: a block or an interval is out of bounds, or two of them overlap.
        """
        key = (kept, rows, columns, tile_rows, interval_columns)
        table = self._tables.get(key)
        if table is None:
            sizes = (rows, columns) if kept == "i" else (columns, rows)
            while len(self._tables) >= _MAX_TABLES:
                self._tables.pop(next(iter(self._tables)), None)
            table = self._tables[key] = make_table(
                self.halves[kept], *sizes, tile_rows=tile_rows, interval_columns=interval_columns
            )
        return table

    def kept_table(self, reduced: str, extents: Extents) -> Table:
        """The table of a reduction over axis `reduced`; see `table`."""
        return self.table("i" if reduced == "j" else "j", extents.rows or 0, extents.columns or 0)

    def gpu_table(self, kept: str, rows: int, columns: int) -> Table:
        """The table for kernels of a GPU; see `table`."""
        cut = {"tile_rows": GPU_TILE_ROWS, "interval_columns": GPU_INTERVAL_COLUMNS}
        return self.table(kept, rows, columns, **cut)

    def placed(
        self, kept: str, rows: int, columns: int, *, device: str, place: Callable[[Integers], Any]
    ) -> tuple[Any, int]:
        """The words of the table for kernels of a GPU, on a device, and the number of its tiles; copied there once.

        Args:
            kept: "i" or "j".
            rows: of the formula.
            columns: of the formula.
            device: its name.
            place: copies words to the device.

        Raises:
            ShapeError: a block or an interval is out of bounds, or two of them overlap.
        """
        key = (kept, rows, columns, device)
        found = self._placed.get(key)
        if found is None:
            words = self.gpu_table(kept, rows, columns).words
            while len(self._placed) >= _MAX_TABLES:
                self._placed.pop(next(iter(self._placed)), None)
            found = self._placed[key] = place(words), int(words[0])
        return found

    def check_transposes(self, rows: int, columns: int, position: Position) -> None:
        """Refuse halves that cannot be each other's transpose, as gradients take them to be.

        Args:
            rows: of the formula.
            columns: of the formula.
            position: of the formula, for the message.

        Raises:
            ShapeError: they have different numbers of pairs.
        """
        pairs = [self.table(axis, rows, columns).pairs for axis in "ij"]
        if pairs[0] != pairs[1]:
            raise ShapeError(
                at_user_line(
                    f"{', '.join(NAMES[:3])} of ranges have {pairs[0]} pairs, and {', '.join(NAMES[3:])} have "
                    f"{pairs[1]}: this gradient needs both, expected the same pairs with their axes exchanged",
                    position,
                )
            )

    def equals(self, other: Ranges) -> bool:
        """Whether all six arrays are equal."""
        return all(
            np.array_equal(mine, theirs)
            for axis in "ij"
            for mine, theirs in zip(self.halves[axis][2:], other.halves[axis][2:], strict=True)
        )

    @property
    def arrays(self) -> tuple[Integers, ...]:
        """The six arrays, as they were given."""
        return (*self.halves["i"][2:], *self.halves["j"][2:])

    def holds(self, given: Sequence[Any]) -> bool:
        """Whether these six arrays, which are those that were given, have the elements that were copied."""
        return all(
            np.array_equal(mine, _as_numpy(value)) if version is None else _version_of(value) == version
            for mine, value, version in zip(self.arrays, given, self._versions, strict=True)
        )


_known: dict[tuple[int, ...], tuple[tuple[Any, ...], Ranges]] = {}
_lock = threading.Lock()


def read_ranges(given: Any) -> Ranges:
    """Check a 6-tuple of ranges; arrays that are met again, with the same elements, are not converted again.

    Args:
        given: `(ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i)`: NumPy arrays, tensors or lists of
            integers of any width, of shapes (n, 2), (n,), (q, 2), (m, 2), (m,), (r, 2).

    Raises:
        DtypeError: this is no tuple, or one of its elements is no array of integers.
        ShapeError: an array has another shape, or slices that do not count the intervals.
        DeviceError: a tensor is not on the CPU.
    """
    if not isinstance(given, tuple | list):
        raise DtypeError(at_user_line(f"ranges is of type {type(given).__name__}, expected a tuple {_EXPECTED}"))
    if len(given) != len(NAMES):
        raise ShapeError(at_user_line(f"ranges has {len(given)} elements, expected {len(NAMES)}, {_EXPECTED}"))
    key = tuple(map(id, given))
    known = _known.get(key)
    if known is not None:
        owners, ranges = known
        if all(owner() is value for owner, value in zip(owners, given, strict=True)) and ranges.holds(given):
            return ranges
    made = Ranges(given)
    _remember(key, given, made)
    return made


def same_ranges(first: Any, second: Any) -> bool:
    """Whether two tuples of ranges are equal."""
    if first is second or all(a is b for a, b in zip(first, second, strict=True)):
        return True
    return read_ranges(first).equals(read_ranges(second))


def _remember(key: tuple[int, ...], given: Sequence[Any], made: Ranges) -> None:
    """Keep what was made for as long as all six arrays live."""

    def forget(_: Any) -> None:
        _known.pop(key, None)

    try:
        owners = tuple(weakref.ref(value, forget) for value in given)
    except TypeError:  # a list, which may change unseen at any place
        return
    with _lock:
        _known[key] = owners, made


def _read(name: str, value: Any) -> Integers:
    array = _as_numpy(value)
    if array is None:
        raise DtypeError(
            at_user_line(f"{name} of ranges is of type {type(value).__name__}, expected an array of integers")
        )
    wide = 1 if name.startswith("slices") else 2
    expected = "(n,)" if wide == 1 else "(n, 2)"
    if not array.size:
        return np.empty((0,) if wide == 1 else (0, 2), np.int64)
    if array.dtype.kind not in "iu":
        raise DtypeError(
            at_user_line(f"{name} of ranges has dtype {array.dtype}, expected integers: convert it to int64")
        )
    if array.ndim != wide or (wide == 2 and array.shape[1] != 2):
        raise ShapeError(
            at_user_line(
                f"{name} of ranges has shape {array.shape}, expected {expected}: one tuple serves all batch elements"
            )
        )
    if array.dtype == np.uint64 and int(array.max()) > np.iinfo(np.int64).max:
        raise ShapeError(at_user_line(f"{name} of ranges has {int(array.max())}, expected numbers below 2**63"))
    return np.array(array, dtype=np.int64, order="C", copy=True, subok=False)


def _version_of(value: Any) -> int | None:
    """Count the changes of a tensor on a GPU, to compare no elements, which would wait for it; None for others."""
    if not is_tensor(value) or value.is_cpu or value.is_inference():
        return None
    return int(value._version)


def _as_numpy(value: Any) -> Any:
    """View an array, tensor or list as an array; None where it is none of them."""
    if isinstance(value, np.ndarray):
        return value
    if is_tensor(value):
        return _tensor_as_numpy(value)
    if isinstance(value, list | tuple):
        try:
            return np.asarray(value)
        except ValueError:  # rows of different lengths
            return None
    return None


def _tensor_as_numpy(value: Any) -> Any:
    """View a tensor as an array; one of a GPU is copied, which is waited for: tables are made on the host."""
    torch = sys.modules["torch"]
    if torch.compiler.is_dynamo_compiling() or not torch._C._are_functorch_transforms_active():
        return value.detach().cpu().numpy()
    with torch._C._DisableFuncTorch():  # a transform wraps all that is computed inside of it
        return value.detach().cpu().numpy()


def _check_slices(half: Half) -> None:
    blocks_name, slices_name, intervals_name = half.names
    if len(half.ends) != len(half.blocks):
        raise ShapeError(
            at_user_line(
                f"{slices_name} of ranges has {len(half.ends)} elements, and {blocks_name} has {len(half.blocks)} "
                "blocks, expected one for each block"
            )
        )
    steps = np.diff(half.ends, prepend=0)
    falls = np.flatnonzero(steps < 0)
    if falls.size:
        place = int(falls[0])
        before = int(half.ends[place - 1]) if place else 0
        raise ShapeError(
            at_user_line(
                f"{slices_name} of ranges falls from {before} to {int(half.ends[place])} at block {place}, expected "
                f"the number of intervals of {intervals_name} up to each block, which never falls"
            )
        )
    last = int(half.ends[-1]) if len(half.ends) else 0
    if last != len(half.intervals):
        raise ShapeError(
            at_user_line(
                f"{slices_name} of ranges ends at {last}, and {intervals_name} has {len(half.intervals)} intervals: "
                "expected the last slice to end at the last interval"
            )
        )
