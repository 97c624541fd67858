"""PTX of reductions over block-sparse ranges, run on the interpreter against the oracle on these pairs alone."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_program import GpuProgram
from interpreted_front_end import on_interpreter
from ptx_text import PtxError
from stand_in import StandInDriver, launches

from gpu_formulas import inputs_of, traced
from pylazy import LazyTensor, Vi, Vij, Vj
from pylazy.block_sparse.ranges import GPU_INTERVAL_COLUMNS, GPU_TILE_ROWS, Ranges
from reference import assert_close, reduce_dense

Array = Any  # an ndarray
TILE = 128  # columns of a tile, and rows of a block


def half(spans: list[tuple[int, int]], intervals: list[list[tuple[int, int]]]) -> tuple[Array, Array, Array]:
    """Make the three arrays of one axis: blocks, ends, intervals."""
    counts = np.cumsum([len(listed) for listed in intervals])
    flat = [interval for listed in intervals for interval in listed]
    return np.array(spans).reshape(-1, 2), counts, np.array(flat, np.int64).reshape(-1, 2)


#: Blocks of 1 row, of a tile less one, one more, and more than two, with a gap; intervals of such lengths, and none.
ROWS = [(0, 1), (1, TILE), (TILE + 5, 2 * TILE + 6), (2 * TILE + 6, 4 * TILE + 12)]
COLUMNS = [
    [(3, 4), (7, 7 + TILE - 1), (300, 300 + 2 * TILE + 3)],
    [(0, TILE + 1)],
    [],
    [(5, 9), (9, 11), (400, 400 + TILE)],
]
SHAPE = (4 * TILE + 20, 5 * TILE)
RANGES = (*half(ROWS, COLUMNS), *half([], []))


def mask_of() -> Array:
    mask = np.zeros(SHAPE, bool)
    for (first, last), intervals in zip(ROWS, COLUMNS, strict=True):
        for low, high in intervals:
            mask[first:last, low:high] = True
    return mask


FORMULAS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sum": ("sum", lambda f, g, **o: (f * g).sum(axis=1, **o)),
    "min": ("min", lambda f, g, **o: (f * g).min(axis=1, **o)),
    "logsumexp": ("logsumexp", lambda f, g, **o: (f * g).logsumexp(axis=1, **o)),
}


def clouds(dtype: str = "float32") -> tuple[Array, Array, Array]:
    random = np.random.default_rng(3)
    return tuple(random.standard_normal(shape).astype(dtype) for shape in ((SHAPE[0], 2), (SHAPE[1], 2), (SHAPE[1], 1)))


def program_of(name: str, **options: Any) -> tuple[GpuProgram, list[Array], Array]:
    """Compile one of the formulas; give its program, its inputs, and its results by the oracle."""
    kind, reduce = FORMULAS[name]
    x, y, b = clouds()
    reduction = reduce(Vi(x).sqdist(Vj(y)), Vj(b), ranges=RANGES, call=False)
    dense = ((x[:, None].astype(float) - y[None]) ** 2).sum(-1, keepdims=True) * b[None]
    rows = []
    for row, kept in zip(dense, mask_of(), strict=True):
        rows.append(reduce_dense(kind, [row[None, kept]], axis="j"))
    return GpuProgram(traced(reduction), **options), inputs_of(reduction), np.concatenate(rows)


def check(program: GpuProgram, inputs: list[Array], wanted: Array, **options: Any) -> None:
    (found,) = program.run(inputs, rows=SHAPE[0], columns=SHAPE[1], ranges=RANGES, **options)
    scale = 1.0 + np.abs(wanted).max(where=np.isfinite(wanted), initial=0)
    assert_close(found, wanted, dtype=np.float32, columns=SHAPE[1], scale=scale)


@pytest.mark.parametrize("processors", [0, 100])
@pytest.mark.parametrize("name", FORMULAS)
def test_reduction_over_ragged_ranges_matches_oracle(name: str, processors: int) -> None:
    """In one split, and in several that share the intervals of a tile; some have none."""
    program, inputs, wanted = program_of(name, processors=processors)
    check(program, inputs, wanted, interval_columns=TILE)
    assert program.splits == (3 if processors else 1)


def test_tiles_of_any_size_give_the_same_bits() -> None:
    """A table made for another target is right, only slower."""
    program, inputs, _ = program_of("sum")
    options = {"rows": SHAPE[0], "columns": SHAPE[1], "ranges": RANGES}
    found = [program.run(inputs, tile_rows=rows, **options)[0] for rows in (GPU_TILE_ROWS, 30, 1000)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_block_takes_a_tile() -> None:
    program, _, _ = program_of("sum")
    kernel, merge = program.module.kernels
    assert (kernel.rows_per_block, merge.tile_table) == (GPU_TILE_ROWS, -1)
    assert program.module.buffers[kernel.tile_table].role == "table"


_SMALL = (
    *half([(0, 2), (2, 6), (6, 7)], [[(0, 5)], [(3, 5)], [(0, 3)]]),
    *half([(0, 3), (3, 5)], [[(0, 2), (6, 7)], [(0, 6)]]),
)
_SMALL_MASK = np.zeros((7, 5), bool)
_SMALL_MASK[:2], _SMALL_MASK[2:6, 3:], _SMALL_MASK[6, :3] = True, True, True

METHODS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    **{
        kind: ((kind,), lambda f, g, kind=kind, **o: getattr(f, kind)(**o)) for kind in ("mean", "var", "prod", "count")
    },
    **{kind: ((kind,), lambda f, g, kind=kind, **o: getattr(f, kind)(**o)) for kind in ("argmin", "any", "all")},
    "softmax": (("softmax",), lambda f, g, **o: f.sumsoftmaxweight(g, **o)),
    "max_argmax": (("max", "argmax"), lambda f, g, **o: f.max_argmax(**o)),
    "Kmin_argKmin": (("kmin", "argkmin"), lambda f, g, **o: f.Kmin_argKmin(2, **o)),
    "kahan": (("sum",), lambda f, g, **o: f.sum(sum_scheme="kahan_scheme", **o)),
    "wide": (("sum",), lambda f, g, **o: f.sum(dtype_acc="float64", **o)),
    "rows": (("sum",), lambda f, g, **o: (f * LazyTensor(np.ones((7, 1, 1), np.float32)).row_index()).sum(**o)),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_reduction_over_ranges_matches_oracle(name: str) -> None:
    kinds, method = METHODS[name]
    x, y, b = (array[: 7 if number == 0 else 5] for number, array in enumerate(clouds()))
    for axis in (1, 0):
        f, g = LazyTensor(x[:, None]).sqdist(LazyTensor(y[None])), LazyTensor(b[None]) * LazyTensor(x[:, None, :1])
        with on_interpreter():
            found = method(f, g, axis=axis, ranges=_SMALL)
        dense = ((x[:, None].astype(float) - y[None]) ** 2).sum(-1, keepdims=True)
        weight = b[None].astype(float) * x[:, None, :1]
        if name == "rows":
            dense = dense * np.arange(7.0)[:, None, None]
        mask = _SMALL_MASK if axis else _SMALL_MASK.T
        if not axis:
            dense, weight = dense.swapaxes(0, 1), weight.swapaxes(0, 1)
        k = 2 if name.startswith("K") else 0
        for kind, result in zip(kinds, found if len(kinds) > 1 else (found,), strict=True):
            for row, kept in enumerate(mask):
                columns = np.flatnonzero(kept)
                operands = [dense[row : row + 1, columns]]
                operands += [weight[row : row + 1, columns]] if name == "softmax" else []
                wanted = reduce_dense(kind, operands, axis="j", k=k)[0]
                wanted = columns[wanted] if "arg" in kind else wanted
                shape = np.shape(result[row])
                assert_close(
                    np.float64(result[row]), np.float64(wanted).reshape(shape), dtype="float32", columns=9, scale=9
                )


def test_gradients_over_ranges_match_dense_torch() -> None:
    torch = pytest.importorskip("torch")
    x, y = (
        torch.tensor(array[:count], requires_grad=True) for array, count in zip(clouds("float64"), (7, 5), strict=False)
    )
    a = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor(_SMALL_MASK)
    with on_interpreter():
        ours = ((-Vi(x).sqdist(Vj(y))).exp() * Vij(a)).sum(axis=1, ranges=_SMALL)
        found = torch.autograd.grad((ours**2).sum(), (x, y, a), create_graph=True)
        again = torch.autograd.grad(sum((one**2).sum() for one in found), (x, y, a))
    theirs = ((-((x[:, None] - y[None]) ** 2).sum(-1)).exp() * a * mask).sum(1, keepdim=True)
    torch.testing.assert_close(ours, theirs)
    dense = torch.autograd.grad((theirs**2).sum(), (x, y, a), create_graph=True)
    torch.testing.assert_close(found, dense)
    torch.testing.assert_close(again, torch.autograd.grad(sum((one**2).sum() for one in dense), (x, y, a)))


def test_tables_reach_the_launch(driver: StandInDriver) -> None:
    """Through the runtime, on a driver that stands in for CUDA's; the cut of the tiles is that of GPUs."""
    x, y, b = (array[:count].astype(float) for array, count in zip(clouds(), (7, 5, 5), strict=True))
    for axis in (0, 1):
        f = Vi(x).sqdist(Vj(y)) * Vj(b)
        found = f.sum(axis=axis, ranges=_SMALL, backend="GPU")
        np.testing.assert_allclose(found, f.sum(axis=axis, ranges=_SMALL), rtol=1e-12)
    assert len(launches(driver.calls())) >= 2


def test_long_intervals_are_cut_for_gpus() -> None:
    half_of = half([(0, 1), (1, 3)], [[(5, 9)], [(0, 2 * GPU_INTERVAL_COLUMNS + 7), (9000, 9001)]])
    ranges = Ranges((*half_of, *half([], [])))
    words = ranges.gpu_table("i", 3, 10_000).words
    cut = GPU_INTERVAL_COLUMNS
    wanted = [[5, 9], [0, cut], [cut, 2 * cut], [2 * cut, 2 * cut + 7], [9000, 9001]]
    np.testing.assert_array_equal(words[2 + 4 * 2 :].reshape(-1, 2), wanted)
    np.testing.assert_array_equal(words[2:10].reshape(-1, 4), [[0, 1, 10, 12], [1, 3, 12, 20]])
    assert len(ranges.table("i", 3, 10_000).words) == 2 + 4 * 2 + 2 * 3


def test_a_table_is_placed_once_for_a_device() -> None:
    copies = []

    def place(words: Array) -> Array:
        copies.append(words)
        return words

    ranges = Ranges(_SMALL)
    options = {"rows": 7, "columns": 5, "place": place}
    words, tiles = ranges.placed("i", device="cuda:0", **options)
    assert tiles == words[0] == 3
    assert ranges.placed("i", device="cuda:0", **options)[0] is words
    ranges.placed("j", device="cuda:0", **options)
    ranges.placed("i", device="cuda:1", **options)
    assert len(copies) == 3


# Planted faults


def test_a_wrong_end_of_an_interval_is_found() -> None:
    """One column more than an interval has: its end is the second word of a pair."""

    def edit(text: str) -> str:
        changed, count = re.subn(r"(ld\.global\.nc\.b64\s+(%rd\d+), \[%rd\d+\+8\];)", r"\1\nadd.s64 \2, \2, 1;", text)
        assert count == 1
        return changed

    program, inputs, wanted = program_of("sum", edit=edit)
    with pytest.raises((PtxError, AssertionError)):
        check(program, inputs, wanted)


def _edited(pattern: str, replacement: str, number: int) -> Callable[[str], str]:
    def edit(text: str) -> str:
        parts = text.split(pattern)
        assert len(parts) > number + 1
        return pattern.join(parts[: number + 1]) + replacement + pattern.join(parts[number + 1 :])

    return edit


def test_a_wrong_end_of_the_tiles_of_an_interval_is_found() -> None:
    """The last tile of an interval goes on beyond its end."""
    program, inputs, wanted = program_of("sum", edit=lambda text: text.replace("min.s64", "max.s64"))
    with pytest.raises((PtxError, AssertionError)):
        check(program, inputs, wanted)


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_barrier_is_found(number: int) -> None:
    program, inputs, wanted = program_of("sum", edit=_edited("bar.sync", "//", number))
    with pytest.raises(PtxError, match=r"a race|nothing was written to"):
        check(program, inputs, wanted)


def test_a_split_of_wrong_intervals_is_found() -> None:
    """A split that begins with its number in place of its share of the intervals."""

    def edit(text: str) -> str:
        changed, count = re.subn(r"div\.u(32|64)", r"add.u\1", text)
        assert count
        return changed

    program, inputs, wanted = program_of("sum", edit=edit, processors=100)
    with pytest.raises((PtxError, AssertionError)):
        check(program, inputs, wanted, interval_columns=TILE)
