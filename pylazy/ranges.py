"""Block-sparse ranges: six arrays of integers, checked, and the tables of tiles that kernels read.

`(ranges_i, slices_i, redranges_j, ranges_j, slices_j, redranges_i)` as in pykeops: the rows of block k, from
`ranges_i[k, 0]` up to `ranges_i[k, 1]`, are reduced over the columns of the intervals
`redranges_j[slices_i[k - 1]:slices_i[k]]`. The other three are the same for reductions over i.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pylazy import arrays
from pylazy.expression import at_user_line
from pylazy.runtime.errors import DtypeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pylazy.expression import Position

    Integers = NDArray[np.int64]

NAMES = ("ranges_i", "slices_i", "redranges_j", "ranges_j", "slices_j", "redranges_i")
_EXPECTED = f"({', '.join(NAMES)})"
_OTHER_AXIS = {"i": "j", "j": "i"}
_TILE_ROWS = 96
"""A multiple of most numbers of rows that kernels take at once, and small enough to share a launch among threads."""
_HEADER_WORDS, _TILE_WORDS = 2, 4
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


class Table(NamedTuple):
    """The pairs of one half, for given sizes, as kernels read them.

    Attributes:
        words: see the role "table" in pylazy.runtime.kernel.
        pairs: the number of pairs.
        lengths: rows of every run of rows that are reduced over the same columns; the runs follow one another.
        terms: columns of each of these runs.
    """

    words: Integers
    pairs: int
    lengths: Integers
    terms: Integers

    def terms_of_rows(self) -> Integers:
        """The number of columns of every row."""
        return np.repeat(self.terms, self.lengths)

    def fewest(self) -> tuple[int, int]:
        """The least number of columns of a row, and the first row that has it."""
        place = int(np.argmin(self.terms))
        return int(self.terms[place]), int(self.lengths[:place].sum())


class Ranges:
    """Six arrays, copied and checked for all that does not depend on the sizes of a formula.

    Attributes:
        halves: by the axis whose rows are kept.
    """

    __slots__ = ("_tables", "halves")

    def __init__(self, given: Sequence[Any]) -> None:
        """Copy and check; see `read_ranges`."""
        read = [_read(name, value) for name, value in zip(NAMES, given, strict=True)]
        self.halves = {"i": Half(NAMES[:3], "i", *read[:3]), "j": Half(NAMES[3:], "j", *read[3:])}
        for half in self.halves.values():
            _check_slices(half)
        self._tables: dict[tuple[str, int, int], Table] = {}

    def table(self, kept: str, rows: int, columns: int) -> Table:
        """The table for reductions that keep axis `kept` of a formula of these sizes; made once.

        Raises:
            ShapeError: a block or an interval is out of bounds, or two of them overlap.
        """
        key = (kept, rows, columns)
        table = self._tables.get(key)
        if table is None:
            sizes = (rows, columns) if kept == "i" else (columns, rows)
            while len(self._tables) >= _MAX_TABLES:
                self._tables.pop(next(iter(self._tables)), None)
            table = self._tables[key] = _make_table(self.halves[kept], *sizes)
        return table

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
        """Whether these six arrays have the elements that were copied."""
        return all(np.array_equal(mine, _as_numpy(value)) for mine, value in zip(self.arrays, given, strict=True))


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


def _as_numpy(value: Any) -> Any:
    """View an array, tensor or list as an array; None where it is none of them."""
    if isinstance(value, np.ndarray):
        return value
    if arrays.is_tensor(value):
        return value.detach().cpu().numpy()  # of a GPU, a copy, which is waited for; tables are made on the host
    if isinstance(value, list | tuple):
        try:
            return np.asarray(value)
        except ValueError:  # rows of different lengths
            return None
    return None


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


def _check_bounds(name: str, pairs: Integers, extent: int, axis: str) -> None:
    wrong = np.flatnonzero((pairs[:, 0] < 0) | (pairs[:, 1] < pairs[:, 0]) | (pairs[:, 1] > extent))
    if wrong.size:
        place = int(wrong[0])
        begin, end = pairs[place].tolist()
        raise ShapeError(
            at_user_line(
                f"{name} of ranges has [{begin}, {end}] in row {place}, expected 0 <= begin <= end <= {extent}, the "
                f"size of axis {axis}"
            )
        )


def _make_table(half: Half, count: int, length: int) -> Table:
    """Cut the rows into tiles, and bring the intervals of each block into order.

    Args:
        half: what to cut.
        count: the size of its axis.
        length: the size of the other axis.
    """
    _check_bounds(half.names[0], half.blocks, count, half.axis)
    _check_bounds(half.names[2], half.intervals, length, _OTHER_AXIS[half.axis])
    intervals, bounds = _ordered_intervals(half)
    widths = np.concatenate(([0], np.cumsum(intervals[:, 1] - intervals[:, 0])))
    block_terms = widths[bounds[1:]] - widths[bounds[:-1]]
    runs, owners = _runs(half, count)
    lengths = runs[:, 1] - runs[:, 0]
    # Rows in no block are those of a block without columns.
    terms = np.append(block_terms, 0)[owners]
    first = np.append(bounds[:-1], 0)[owners]
    last = np.append(bounds[1:], 0)[owners]
    pieces = -(-lengths // _TILE_ROWS)
    tiles = int(pieces.sum())
    run = np.repeat(np.arange(len(runs)), pieces)
    place = np.arange(tiles) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = runs[run, 0] + place * _TILE_ROWS
    words = np.empty(_HEADER_WORDS + _TILE_WORDS * tiles + 2 * len(intervals), np.int64)
    pairs = int((lengths * terms).sum())
    words[:_HEADER_WORDS] = tiles, pairs
    first_word = _HEADER_WORDS + _TILE_WORDS * tiles
    listed = words[_HEADER_WORDS:first_word].reshape(tiles, _TILE_WORDS)
    listed[:, 0] = begin
    listed[:, 1] = np.minimum(begin + _TILE_ROWS, runs[run, 1])
    listed[:, 2] = first_word + 2 * first[run]
    listed[:, 3] = first_word + 2 * last[run]
    words[first_word:] = intervals.ravel()
    return Table(words, pairs, lengths, terms)


def _ordered_intervals(half: Half) -> tuple[Integers, Integers]:
    """Sort the intervals of each block and join those that touch, so that elements come in ascending order.

    Returns:
        Intervals (q, 2), and (n + 1,) bounds: those of block k are from bounds[k] up to bounds[k + 1].
    """
    blocks = len(half.blocks)
    owner = np.repeat(np.arange(blocks), np.diff(half.ends, prepend=0))
    used = half.intervals[:, 1] > half.intervals[:, 0]
    owner, spans = owner[used], half.intervals[used]
    neighbours = owner[1:] == owner[:-1]
    if (neighbours & (spans[1:, 0] < spans[:-1, 0])).any():  # else they are sorted, as most are
        spans = spans[np.lexsort((spans[:, 0], owner))]  # within each block, so the owners stay
    gaps = spans[1:, 0] - spans[:-1, 1]
    overlaps = np.flatnonzero(neighbours & (gaps < 0))
    if overlaps.size:
        place = int(overlaps[0])
        raise ShapeError(
            at_user_line(
                f"{half.names[2]} of ranges has the intervals {spans[place].tolist()} and {spans[place + 1].tolist()} "
                f"for block {int(owner[place])}, which overlap: expected each element once in a block"
            )
        )
    begins = np.ones(len(spans), bool)
    begins[1:] = ~(neighbours & (gaps == 0))
    ends = np.append(begins[1:], True)[: len(spans)]
    joined = np.stack((spans[begins, 0], spans[ends, 1]), axis=1)
    return joined, np.searchsorted(owner[begins], np.arange(blocks + 1))


def _runs(half: Half, count: int) -> tuple[Integers, Integers]:
    """Cut an axis into its blocks and the gaps between them, in order.

    Returns:
        Runs (r, 2) of at least one row, and (r,) numbers of their blocks, n for a gap.
    """
    sizes = half.blocks[:, 1] - half.blocks[:, 0]
    used = np.flatnonzero(sizes > 0)
    used = used[np.argsort(half.blocks[used, 0], kind="stable")]
    blocks = half.blocks[used]
    clashes = np.flatnonzero(blocks[1:, 0] < blocks[:-1, 1])
    if clashes.size:
        place = int(clashes[0])
        raise ShapeError(
            at_user_line(
                f"{half.names[0]} of ranges has the blocks {blocks[place].tolist()} and {blocks[place + 1].tolist()}, "
                "which overlap: expected each row in one block at most"
            )
        )
    runs = np.empty((2 * len(blocks) + 1, 2), np.int64)
    owners = np.full(len(runs), len(half.blocks), np.int64)
    runs[1::2], owners[1::2] = blocks, used
    runs[0, 0], runs[-1, 1] = 0, count
    runs[2::2, 0], runs[:-1:2, 1] = blocks[:, 1], blocks[:, 0]
    wide = runs[:, 1] > runs[:, 0]
    return runs[wide], owners[wide]
