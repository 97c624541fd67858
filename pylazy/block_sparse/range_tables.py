"""Tables of tiles that kernels over block-sparse ranges read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pylazy.runtime.errors import ShapeError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pylazy.block_sparse.ranges import Half

    Integers = NDArray[np.int64]

_OTHER_AXIS = {"i": "j", "j": "i"}
_HEADER_WORDS, _TILE_WORDS = 2, 4


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


def make_table(half: Half, count: int, length: int, *, tile_rows: int, interval_columns: int) -> Table:
    """Cut the rows into tiles, and bring the intervals of each block into order.

    Args:
        half: what to cut.
        count: the size of its axis.
        length: the size of the other axis.
        tile_rows: the most rows of a tile.
        interval_columns: the most columns of an interval.
    """
    _check_bounds(half.names[0], half.blocks, count, half.axis)
    _check_bounds(half.names[2], half.intervals, length, _OTHER_AXIS[half.axis])
    intervals, bounds = _cut_intervals(*_ordered_intervals(half), interval_columns)
    widths = np.concatenate(([0], np.cumsum(intervals[:, 1] - intervals[:, 0])))
    block_terms = widths[bounds[1:]] - widths[bounds[:-1]]
    runs, owners = _runs(half, count)
    lengths = runs[:, 1] - runs[:, 0]
    # Rows in no block are those of a block without columns.
    terms = np.append(block_terms, 0)[owners]
    first = np.append(bounds[:-1], 0)[owners]
    last = np.append(bounds[1:], 0)[owners]
    pieces = -(-lengths // tile_rows)
    tiles = int(pieces.sum())
    run = np.repeat(np.arange(len(runs)), pieces)
    place = np.arange(tiles) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = runs[run, 0] + place * tile_rows
    words = np.empty(_HEADER_WORDS + _TILE_WORDS * tiles + 2 * len(intervals), np.int64)
    pairs = int((lengths * terms).sum())
    words[:_HEADER_WORDS] = tiles, pairs
    first_word = _HEADER_WORDS + _TILE_WORDS * tiles
    listed = words[_HEADER_WORDS:first_word].reshape(tiles, _TILE_WORDS)
    listed[:, 0] = begin
    listed[:, 1] = np.minimum(begin + tile_rows, runs[run, 1])
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


def _cut_intervals(intervals: Integers, bounds: Integers, most: int) -> tuple[Integers, Integers]:
    """Cut intervals into pieces of at most so many columns; see `_ordered_intervals`."""
    pieces = -(-(intervals[:, 1] - intervals[:, 0]) // most)
    if (pieces == 1).all():
        return intervals, bounds
    ends = np.concatenate(([0], np.cumsum(pieces)))
    owner = np.repeat(np.arange(len(intervals)), pieces)
    begin = intervals[owner, 0] + (np.arange(ends[-1]) - ends[owner]) * most
    return np.stack((begin, np.minimum(begin + most, intervals[owner, 1])), axis=1), ends[bounds]


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
