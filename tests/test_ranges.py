"""Block-sparse ranges: every reduction over the pairs of some blocks, against the dense oracle on these pairs alone."""

# ruff: noqa: N806  a kernel matrix is called K

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest

from pylazy import (
    DtypeError,
    Genred,
    LazyTensor,
    ShapeError,
    UnsupportedError,
    Vi,
    Vj,
    get_num_threads,
    set_num_threads,
)
from pylazy.block_sparse import ranges
from pylazy.compiler.compile import compile_cpu
from pylazy.execution.cpu_launch import launch
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.kernel import CPU_LEVELS
from pylazy.runtime.launch import Program, is_runnable
from pylazy.trace import trace
from reference import assert_close, reduce_dense

Array = Any


class Layout(NamedTuple):
    """Blocks of an M by N matrix, and which of their products are kept."""

    rows: Array
    columns: Array
    keep: Array
    shape: tuple[int, int]

    def mask(self) -> Array:
        mask = np.zeros(self.shape, bool)
        for row, column in zip(*np.nonzero(self.keep), strict=True):
            mask[slice(*self.rows[row]), slice(*self.columns[column])] = True
        return mask

    def ranges(self, seed: int = 0) -> tuple[Array, ...]:
        """Blocks and intervals come in an arbitrary order, and some are empty."""
        random = np.random.default_rng(seed)
        return (
            *_half(self.rows, self.columns, self.keep, random),
            *_half(self.columns, self.rows, self.keep.T, random),
        )


def _half(rows: Array, columns: Array, keep: Array, random: Any) -> tuple[Array, Array, Array]:
    order = random.permutation(len(rows))
    listed = [random.permutation(np.flatnonzero(keep[block])) for block in order]
    spans = [np.vstack((columns[chosen], [[1, 1]])) for chosen in listed]  # an empty interval in each
    return rows[order], np.cumsum([len(found) for found in spans]), np.vstack([np.zeros((0, 2), int), *spans])


def cut(*edges: int) -> Array:
    return np.stack((edges[:-1], edges[1:]), axis=1)


_SPARSE = np.random.default_rng(5).random((6, 7)) < 0.5
_SPARSE[2] = False  # a block without columns
_SPARSE[:, 3] = False
SPARSE = Layout(
    np.delete(cut(0, 3, 40, 150, 199, 200, 270, 290), 1, axis=0),  # rows 3 to 39 and from 290 on are in no block
    np.delete(cut(1, 9, 1100, 1101, 1500, 1520, 2222, 2400, 2500), 4, axis=0),
    _SPARSE,
    (300, 2500),
)
_COVERING = np.random.default_rng(6).random((5, 6)) < 0.4
_COVERING[:, 1] = _COVERING[1] = True
COVERING = Layout(cut(0, 5, 100, 101, 250, 300), cut(0, 4, 20, 300, 301, 500, 700), _COVERING, (300, 700))
SMALL = Layout(cut(0, 2, 6, 7), cut(0, 3, 5), np.array([[1, 1], [0, 1], [1, 0]], bool), (7, 5))
ONE = Layout(cut(0, 1), cut(0, 1), np.ones((1, 1), bool), (1, 1))
FULL = Layout(cut(0, 150), cut(0, 90), np.ones((1, 1), bool), (150, 90))
NOTHING = Layout(np.zeros((0, 2), int), np.zeros((0, 2), int), np.zeros((0, 0), bool), (4, 3))
LAYOUTS = {"sparse": SPARSE, "covering": COVERING, "small": SMALL, "one": ONE, "full": FULL, "nothing": NOTHING}

K_BEST = 3
# By name: kinds of the oracle, and the reduction of a formula f with a weight g.
METHODS: dict[str, tuple[tuple[str, ...], Any]] = {
    **{
        kind: ((kind,), lambda f, g, kind=kind, **o: getattr(f, kind)(**o))
        for kind in ("sum", "mean", "var", "std", "prod", "min", "max", "argmin", "argmax", "any", "all", "count")
    },
    "logsumexp": (("logsumexp",), lambda f, g, **o: f.logsumexp(**o)),
    "logsumexp weighted": (("logsumexp",), lambda f, g, **o: f.logsumexp(weight=g, **o)),
    "softmax": (("softmax",), lambda f, g, **o: f.sumsoftmaxweight(g, **o)),
    "max_argmax": (("max", "argmax"), lambda f, g, **o: f.max_argmax(**o)),
    "Kmin_argKmin": (("kmin", "argkmin"), lambda f, g, **o: f.Kmin_argKmin(K_BEST, **o)),
    "argKmax": (("argkmax",), lambda f, g, **o: f.argKmax(K_BEST, **o)),
}
EMPTY = {"var": np.nan, "std": np.nan}


def clouds(layout: Layout, batch: tuple[int, ...] = (), dtype: str = "float64") -> tuple[Array, Array]:
    random = np.random.default_rng(3)
    m, n = layout.shape
    x, y = random.standard_normal((*batch, m, 1, 2)), random.standard_normal((1, n, 2))
    if n > 2:
        y[0, n // 2] = y[0, 0]  # a tie
    return x.astype(dtype), y.astype(dtype)


def formula(x: Any, y: Any) -> tuple[Any, Any]:
    """A formula whose values are positive or 0, and a weight."""
    return ((x - y) ** 2).sum(-1), (x * y + 2.0).exp()


def dense(x: Array, y: Array) -> tuple[Array, Array]:
    wide_x, wide_y = x.astype(float), y.astype(float)
    return ((wide_x - wide_y) ** 2).sum(-1, keepdims=True), np.exp(wide_x * wide_y + 2.0)


def oracle(kind: str, operands: list[Array], mask: Array, *, axis: str, k: int = 0) -> Array:
    """Reduce every row by itself, over the columns that the mask leaves it."""
    outer = np.broadcast_shapes(*(operand.shape[:-1] for operand in operands))
    operands = [np.broadcast_to(operand, (*outer, operand.shape[-1])) for operand in operands]
    if axis == "i":
        operands, mask = [np.swapaxes(operand, -3, -2) for operand in operands], mask.T
    found = []
    for row, kept in enumerate(mask):
        columns = np.flatnonzero(kept)
        parts = [operand[..., row : row + 1, columns, :] for operand in operands]
        if not len(columns):
            empty = EMPTY[kind] if kind in EMPTY else REDUCTIONS[kind].empty
            found.append(np.full((*parts[-1].shape[:-3], 1, parts[-1].shape[-1]), empty))
            continue
        result = reduce_dense(kind, parts, axis="j", k=k)
        found.append(columns[result] if "arg" in kind else result)
    return np.concatenate(found, axis=-3 if k else -2)


def check(name: str, layout: Layout, axis: str, batch: tuple[int, ...] = (), dtype: str = "float64") -> None:
    kinds, method = METHODS[name]
    x, y = clouds(layout, batch, dtype)
    lazy, wide = formula(LazyTensor(x), LazyTensor(y)), list(dense(x, y))
    found = method(*lazy, axis=-2 if axis == "j" else -3, ranges=layout.ranges())
    operands = wide if name in ("logsumexp weighted", "softmax") else wide[:1]
    k = K_BEST if name.lower().find("argkm") >= 0 else 0
    for kind, result in zip(kinds, found if len(kinds) > 1 else (found,), strict=True):
        expected = oracle(kind, operands, layout.mask(), axis=axis, k=k)
        if k:
            expected = expected.squeeze(-1)
        terms = layout.shape[1 if axis == "j" else 0]
        assert_close(np.asarray(result, float), expected.astype(float), dtype=dtype, columns=terms)


def has_terms(name: str, layout: Layout, axis: str) -> bool:
    """Whether a selection is defined: every row has enough to select from."""
    least = layout.mask().sum(1 if axis == "j" else 0).min()
    return least >= (K_BEST if "Km" in name else 1) or not any("arg" in kind for kind in METHODS[name][0])


@pytest.mark.parametrize("axis", ["j", "i"])
@pytest.mark.parametrize("name", METHODS)
def test_reduction_over_ranges_matches_oracle_on_these_pairs(name: str, axis: str) -> None:
    checked = [layout for layout in LAYOUTS.values() if has_terms(name, layout, axis)]
    assert any(layout is COVERING for layout in checked)
    for layout in checked:
        check(name, layout, axis)


@pytest.mark.parametrize("name", ["sum", "logsumexp", "argmin", "mean"])
def test_ranges_serve_every_batch_element(name: str) -> None:
    for axis in "ij":
        check(name, COVERING, axis, batch=(2, 3))


@pytest.mark.parametrize("name", ["sum", "logsumexp weighted", "Kmin_argKmin"])
def test_float32_over_ranges_matches_oracle(name: str) -> None:
    for axis in "ij":
        check(name, COVERING, axis, dtype="float32")


def test_wide_formula_over_ranges_matches_oracle() -> None:
    random = np.random.default_rng(0)
    m, n = COVERING.shape
    x, y = random.standard_normal((m, 1, 40)), random.standard_normal((1, n, 40))
    found = (LazyTensor(x) * LazyTensor(y)).sum(axis=1, ranges=COVERING.ranges())
    expected = x[:, 0] * (COVERING.mask() @ y[0])
    assert_close(found, expected, dtype="float64", columns=n, scale=np.abs(x[:, 0]) * n)
    f, weight = (LazyTensor(x[..., :1]) * LazyTensor(y[..., :1])), LazyTensor(np.exp(y))
    lazy = f.logsumexp(axis=1, weight=weight, ranges=COVERING.ranges())
    operands = [x[..., :1] * y[..., :1], np.exp(y)]
    assert_close(lazy, oracle("logsumexp", operands, COVERING.mask(), axis="j"), dtype="float64", columns=n)


def test_product_with_an_array_takes_ranges() -> None:
    x, y = clouds(SPARSE)
    K = (-((LazyTensor(x) - LazyTensor(y)) ** 2).sum(-1)).exp()
    v = np.random.default_rng(1).standard_normal(SPARSE.shape[1])
    K.ranges = SPARSE.ranges()
    expected = (np.exp(-dense(x, y)[0][..., 0]) * SPARSE.mask()) @ v
    assert_close(K @ v, expected, dtype="float64", columns=len(v), scale=10.0)


def test_no_rows_and_no_columns_give_the_shapes_of_dense_reductions() -> None:
    for m, n in ((0, 3), (4, 0)):
        x, y = np.zeros((m, 1, 2)), np.zeros((1, n, 2))
        nothing = NOTHING.ranges()
        found = formula(LazyTensor(x), LazyTensor(y))[0].sum(axis=1, ranges=nothing)
        assert found.tolist() == [[0.0]] * m
    with pytest.raises(ShapeError, match=r"ranges_i of ranges has \[0, 2\] in row 0, expected .* <= 0"):
        formula(LazyTensor(np.zeros((0, 1, 2))), LazyTensor(np.zeros((1, 5, 2))))[0].sum(axis=1, ranges=SMALL_SORTED)


def test_results_have_the_same_bits_for_any_number_of_threads() -> None:
    before, x_and_y = get_num_threads(), clouds(SPARSE, (4,), "float32")
    results = set()
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            f, _ = formula(*map(LazyTensor, x_and_y))
            results.add((-f).logsumexp(axis=2, ranges=SPARSE.ranges()).tobytes())
    finally:
        set_num_threads(before)
    assert len(results) == 1


@pytest.mark.parametrize("level", CPU_LEVELS)
def test_every_level_of_processors_compiles_ranges_and_those_of_this_machine_run_them(level: str) -> None:
    x, y = clouds(COVERING, dtype="float32")
    f, _ = formula(LazyTensor(x), LazyTensor(y))
    for name in ("sum", "max_argmax"):
        job = METHODS[name][1](f, None, axis=1, ranges=COVERING.ranges(), call=False)._job
        image = compile_cpu(trace(job.executable.request), level)
        assert [buffer.name for buffer in image.arguments if buffer.role == "table"] == ["ranges_i"]
        if not is_runnable(level):
            continue
        results = [np.empty(shape, dtype) for shape, dtype in zip(job.shapes, ("float32", "int64"), strict=False)]
        launch(Program(image), job.locate(), results, job.extents, job.ranges)
        for kind, result in zip(METHODS[name][0], results, strict=True):
            expected = oracle(kind, [dense(x, y)[0]], COVERING.mask(), axis="j")
            assert_close(result, expected.astype(float), dtype="float32", columns=700)


def test_many_short_intervals_match_oracle() -> None:
    random = np.random.default_rng(2)
    keep = random.random((50, 400)) < 0.3
    layout = Layout(cut(*range(51)), cut(*range(401)), keep, keep.shape)
    check("sum", layout, "j")
    check("sum", layout, "i")


# Where ranges are said

SMALL_SORTED = (
    np.array([[0, 2], [2, 6], [6, 7]]),
    np.array([2, 3, 4]),
    np.array([[0, 3], [3, 5], [3, 5], [0, 3]]),
    np.array([[0, 3], [3, 5]]),
    np.array([2, 4]),
    np.array([[0, 2], [6, 7], [0, 2], [2, 6]]),
)


def small_sum(axis: str = "j") -> tuple[Any, Array]:
    x, y = clouds(SMALL)
    return formula(LazyTensor(x), LazyTensor(y))[0], oracle("sum", [dense(x, y)[0]], SMALL.mask(), axis=axis)


def test_attribute_is_inherited_by_formulas() -> None:
    f, expected = small_sum()
    f.ranges = SMALL_SORTED
    assert f.ranges is SMALL_SORTED
    for same in (f + 0, f * 1.0, LazyTensor(f), copy.copy(f), pickle.loads(pickle.dumps(f))):
        assert_close(same.sum(axis=1), expected, dtype="float64")
    full = formula(*map(LazyTensor, clouds(SMALL)))[0]
    assert_close((full * 0 + f).sum(axis=1), expected, dtype="float64")
    f.ranges = None
    assert not np.allclose(f.sum(axis=1), expected)


def test_transpose_exchanges_the_halves() -> None:
    f, expected = small_sum()
    f.ranges = SMALL_SORTED
    assert_close(f.T.sum(axis=0), expected, dtype="float64")
    assert_close(f.T.sum(axis=1), small_sum("i")[1], dtype="float64")


def test_argument_goes_before_the_attribute() -> None:
    f, expected = small_sum()
    f.ranges = NOTHING.ranges()
    assert_close(f.sum(axis=1, ranges=SMALL_SORTED), expected, dtype="float64")


def test_operands_agree_on_ranges() -> None:
    (f, _), (g, _) = small_sum(), small_sum()
    f.ranges, g.ranges = SMALL_SORTED, tuple(array.astype(np.int32) for array in SMALL_SORTED)
    assert (f + g).ranges is SMALL_SORTED
    g.ranges = NOTHING.ranges()
    with pytest.raises(ShapeError, match="add was given LazyTensors with different ranges, expected equal ones"):
        f + g


def test_formula_strings_take_ranges() -> None:
    x, y = (cloud.squeeze() for cloud in clouds(SMALL))
    genred = Genred("SqDist(x, y)", ["x = Vi(2)", "y = Vj(2)"], "Sum", axis=1)
    assert_close(genred(x, y, ranges=SMALL_SORTED), small_sum()[1], dtype="float64")
    assert_close(genred(x, y), small_sum()[0].sum(axis=1), dtype="float64")


def test_symbolic_reductions_take_ranges_when_made_and_when_called() -> None:
    x, y = (cloud.squeeze() for cloud in clouds(SMALL))
    f = ((Vi(0, 2) - Vj(1, 2)) ** 2).sum(-1)
    made = f.sum(axis=1, ranges=SMALL_SORTED)
    assert_close(made(x, y), small_sum()[1], dtype="float64")
    assert_close(f.sum(axis=1)(x, y, ranges=SMALL_SORTED), small_sum()[1], dtype="float64")
    assert_close(made(x, y, ranges=NOTHING.ranges()), np.zeros((7, 1)), dtype="float64")


def test_reduction_to_be_called_later_keeps_its_ranges() -> None:
    f, expected = small_sum()
    reduction = f.sum(axis=1, ranges=SMALL_SORTED, call=False)
    assert_close(reduction(), expected, dtype="float64")
    with pytest.raises(UnsupportedError, match="give them when it is made"):
        reduction(ranges=SMALL_SORTED)
    assert reduction.as_text("expression").endswith("ranged\n")
    assert '"table"' in reduction.as_text("kernel")


def test_keepdim_and_out_work_over_ranges() -> None:
    f, expected = small_sum()
    counts = SMALL.mask().sum(1)[:, None]
    assert_close(f.mean(axis=1, keepdim=True, ranges=SMALL_SORTED), (expected / counts)[:, None], dtype="float64")
    out = np.empty_like(expected)
    assert f.mean(axis=1, out=out, ranges=SMALL_SORTED) is out
    assert_close(out, expected / counts, dtype="float64")
    by_column = oracle("mean", [dense(*clouds(SMALL))[0]], SMALL.mask(), axis="i")
    assert_close(f.mean(axis=0, keepdim=True, ranges=SMALL_SORTED), by_column[None], dtype="float64")


@pytest.mark.parametrize("convert", [np.int16, np.uint8, np.uint64, np.int32, "list", "torch"])
def test_integers_of_any_width_are_taken(convert: Any) -> None:
    if convert == "torch":
        torch = pytest.importorskip("torch")
        given = tuple(torch.tensor(array, dtype=torch.int32) for array in SMALL_SORTED)
    elif convert == "list":
        given = tuple(array.tolist() for array in SMALL_SORTED)
    else:
        given = tuple(array.astype(convert) for array in SMALL_SORTED)
    f, expected = small_sum()
    assert_close(f.sum(axis=1, ranges=given), expected, dtype="float64")


def test_arrays_are_converted_once_and_seen_again_when_they_change() -> None:
    given = tuple(array.copy() for array in SMALL_SORTED)
    first = ranges.read_ranges(given)
    assert ranges.read_ranges(list(given)) is first
    f, expected = small_sum()
    assert_close(f.sum(axis=1, ranges=given), expected, dtype="float64")
    given[0][:], given[2][:] = 0, 0
    assert (f.sum(axis=1, ranges=given) == 0).all()
    key = tuple(map(id, given))
    assert key in ranges._known
    del given
    gc.collect()
    assert key not in ranges._known


def test_table_covers_every_row_once() -> None:
    table = ranges.Ranges(SPARSE.ranges()).table("i", *SPARSE.shape)
    tiles = table.words[2 : 2 + 4 * table.words[0]].reshape(-1, 4)
    covered = np.concatenate([np.arange(begin, end) for begin, end in tiles[:, :2]])
    assert covered.tolist() == list(range(SPARSE.shape[0]))
    assert table.pairs == SPARSE.mask().sum()
    assert table.terms_of_rows().tolist() == SPARSE.mask().sum(1).tolist()


# What is refused


def changed(position: int, value: Any) -> tuple[Any, ...]:
    return (*SMALL_SORTED[:position], value, *SMALL_SORTED[position + 1 :])


_BLOCKS, _ENDS, _SPANS = SMALL_SORTED[:3]
REFUSED = {
    "no tuple": (_BLOCKS, DtypeError, "ranges is of type ndarray, expected a tuple"),
    "too few": (SMALL_SORTED[:3], ShapeError, "ranges has 3 elements, expected 6, .ranges_i, slices_i"),
    "no array": (changed(4, None), DtypeError, "slices_j of ranges is of type NoneType, expected an array of integers"),
    "floats": (changed(2, _SPANS + 0.0), DtypeError, "redranges_j of ranges has dtype float64, expected integers"),
    "booleans": (changed(1, _ENDS > 0), DtypeError, "slices_i of ranges has dtype bool, expected integers"),
    "flat": (changed(0, _BLOCKS.ravel()), ShapeError, r"ranges_i of ranges has shape \(6,\), expected \(n, 2\)"),
    "batch": (changed(0, _BLOCKS[None]), ShapeError, r"ranges_i .* shape \(1, 3, 2\).* one tuple serves all batch"),
    "column": (changed(1, _ENDS[:, None]), ShapeError, r"slices_i of ranges has shape \(3, 1\), expected \(n,\)"),
    "few slices": (changed(1, _ENDS[:2]), ShapeError, "slices_i of ranges has 2 elements, and ranges_i has 3 blocks"),
    "falling": (changed(1, np.array([2, 1, 4])), ShapeError, "slices_i of ranges falls from 2 to 1 at block 1"),
    "negative": (changed(1, np.array([-1, 1, 4])), ShapeError, "slices_i of ranges falls from 0 to -1 at block 0"),
    "short": (changed(1, _ENDS - 1), ShapeError, "slices_i of ranges ends at 3, and redranges_j has 4 intervals"),
    "huge": (changed(1, np.array([2**63] * 3, np.uint64)), ShapeError, "slices_i of ranges has 9223372036854775808"),
}
UNFIT = {
    "rows beyond": (0, [[0, 2], [2, 6], [6, 8]], r"ranges_i of ranges has \[6, 8\] in row 2, .* <= 7, .* of axis i"),
    "columns beyond": (2, _SPANS + 1, r"redranges_j of ranges has \[4, 6\] in row 1, .* <= 5, the size of axis j"),
    "backwards": (2, _SPANS[:, ::-1], r"redranges_j of ranges has \[3, 0\] in row 0, expected 0 <= begin <= end"),
    "below": (2, _SPANS - 1, r"redranges_j of ranges has \[-1, 2\] in row 0"),
    "rows twice": (0, [[6, 7], [0, 3], [2, 6]], r"ranges_i .* blocks \[0, 3\] and \[2, 6\], which overlap"),
    "columns twice": (2, [[2, 5], [0, 3], [0, 1], [0, 1]], r"\[0, 3\] and \[2, 5\] for block 0, which overlap"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_ranges_are_refused_and_named(name: str) -> None:
    given, kind, message = REFUSED[name]
    f, _ = small_sum()
    with pytest.raises(kind, match=message) as caught:
        f.sum(axis=1, ranges=given)
    assert __file__ in str(caught.value)
    with pytest.raises(kind, match=message):
        f.ranges = given


@pytest.mark.parametrize("name", UNFIT)
def test_ranges_that_do_not_fit_are_refused_and_named(name: str) -> None:
    position, wrong, message = UNFIT[name]
    f, _ = small_sum()
    f.ranges = changed(position, np.asarray(wrong))
    with pytest.raises(ShapeError, match=message) as caught:
        f.sum(axis=1)
    assert __file__ in str(caught.value)


def test_position_of_nothing_is_refused() -> None:
    x, y = clouds(SPARSE)
    f, _ = formula(LazyTensor(x), LazyTensor(y))
    with pytest.raises(ShapeError, match="0 elements of axis j to row 3 of axis i: argmin needs at least 1"):
        f.argmin(axis=1, ranges=SPARSE.ranges())
    small = formula(*map(LazyTensor, clouds(SMALL)))[0]
    with pytest.raises(ShapeError, match="ranges leave 2 elements of axis j to row 2 of axis i: kmin needs at least 3"):
        small.Kmin(3, axis=1, ranges=SMALL_SORTED)


# Gradients


def masked(kind: str, f: Any, g: Any, mask: Any, axis: int) -> Any:
    """Reduce dense tensors over the pairs of a mask; the values of rows without any are left to other tests."""
    torch = pytest.importorskip("torch")
    low, high = (torch.tensor(float(sign + "inf"), dtype=f.dtype) for sign in "-+")
    if kind == "sum":
        return torch.where(mask, f, 0).sum(axis)
    if kind == "mean":
        return torch.where(mask, f, 0).sum(axis) / mask.sum(axis)
    if kind == "prod":
        return torch.where(mask, f, 1).prod(axis)
    if kind == "var":
        mean = torch.where(mask, f, 0).sum(axis, keepdim=True) / mask.sum(axis, keepdim=True)
        return torch.where(mask, (f - mean) ** 2, 0).sum(axis) / mask.sum(axis)
    if kind == "logsumexp":
        return torch.where(mask, f, low).logsumexp(axis)
    if kind == "softmax":
        return (torch.where(mask, f, low).softmax(axis) * g).sum(axis)
    if kind == "min":
        return torch.where(mask, f, high).amin(axis)
    return torch.where(mask, f, high).squeeze(-1).topk(K_BEST, dim=axis, largest=False)[0].movedim(axis, -1)


LAZY = {
    "sum": lambda f, g, **o: f.sum(**o),
    "mean": lambda f, g, **o: f.mean(**o),
    "prod": lambda f, g, **o: f.prod(**o),
    "var": lambda f, g, **o: f.var(**o),
    "logsumexp": lambda f, g, **o: f.logsumexp(**o),
    "softmax": lambda f, g, **o: f.sumsoftmaxweight(g, **o),
    "min": lambda f, g, **o: f.min(**o),
    "kmin": lambda f, g, **o: f.Kmin(K_BEST, **o),
}


def gradients_of(kind: str, layout: Layout, axis: str, batch: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """The gradients of a random functional of a result, lazily and densely."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    m, n = layout.shape
    shapes = ((*batch, m, 1, 2), (1, n, 2), (1, 1, 2))
    leaves = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, y, p = leaves
    rows, columns, lazy_p = (LazyTensor(leaf) for leaf in leaves)
    f, g = ((rows - columns) ** 2 * lazy_p).sum(-1), rows * columns
    lazy = LAZY[kind](f, g, axis=-2 if axis == "j" else -3, ranges=layout.ranges())
    dense_f, dense_g = ((x - y) ** 2 * p).sum(-1, keepdim=True), x * y
    mask = torch.tensor(layout.mask())[..., None]
    position = len(batch) + (1 if axis == "j" else 0)
    expected = masked(kind, dense_f, dense_g, mask, position)
    covered = mask.any(1 if axis == "j" else 0)
    weights = torch.rand(expected.shape, dtype=torch.float64)
    found = []
    for result in (lazy, expected):
        total = torch.where(covered, result, 0.0) if kind in ("min", "kmin") else result
        if kind != "prod":
            torch.testing.assert_close(total, torch.where(covered, expected, 0.0 if "min" in kind else expected))
        found.append(torch.autograd.grad((total * weights).sum(), leaves, allow_unused=True))
    return found[0], found[1]


@pytest.mark.parametrize("axis", ["j", "i"])
@pytest.mark.parametrize("kind", LAZY)
def test_gradient_over_ranges_matches_masked_torch(kind: str, axis: str) -> None:
    torch = pytest.importorskip("torch")
    # Products of hundreds of small factors have no digits left.
    for layout in (SMALL,) if kind == "prod" else (COVERING,):
        for found, expected in zip(*gradients_of(kind, layout, axis), strict=True):
            torch.testing.assert_close(found, torch.zeros_like(found) if expected is None else expected)


@pytest.mark.parametrize("kind", ["sum", "min"])
def test_gradient_of_rows_without_columns_is_zero(kind: str) -> None:
    torch = pytest.importorskip("torch")
    for found, expected in zip(*gradients_of(kind, SPARSE, "j"), strict=True):
        torch.testing.assert_close(found, expected)
    found, _ = gradients_of(kind, SPARSE, "j")
    assert (found[0][~SPARSE.mask().any(1)] == 0).all()


@pytest.mark.parametrize("kind", ["sum", "softmax", "min"])
def test_gradient_over_ranges_in_a_batch_matches_masked_torch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    for axis in "ij":
        for found, expected in zip(*gradients_of(kind, COVERING, axis, batch=(2,)), strict=True):
            torch.testing.assert_close(found, torch.zeros_like(found) if expected is None else expected)


def test_smallest_of_nothing_passes_no_gradient_on() -> None:
    torch = pytest.importorskip("torch")
    x = torch.rand(4, 1, 2, requires_grad=True)
    y = torch.rand(1, 3, 2)
    smallest = formula(LazyTensor(x), LazyTensor(y))[0].min(axis=1, ranges=NOTHING.ranges())
    assert smallest.isinf().all()
    smallest.sum().backward()
    assert (x.grad == 0).all()


def test_softmax_of_nothing_is_nan_with_and_without_gradient() -> None:
    torch = pytest.importorskip("torch")
    for needs in (False, True):
        x = torch.rand(4, 1, 2, requires_grad=needs)
        f, g = formula(LazyTensor(x), LazyTensor(torch.rand(1, 3, 2)))
        assert f.sumsoftmaxweight(g, axis=1, ranges=NOTHING.ranges()).isnan().all()


def test_gradient_refuses_halves_that_differ_where_it_needs_both() -> None:
    torch = pytest.importorskip("torch")
    x = torch.rand(7, 1, 2, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 5, 2, dtype=torch.float64)
    given = (*SMALL_SORTED[:3], *NOTHING.ranges()[3:])
    formula(LazyTensor(x), LazyTensor(y))[0].sum(axis=1, ranges=given).sum().backward()
    assert (x.grad != 0).any()
    total = formula(LazyTensor(x), LazyTensor(y.requires_grad_()))[0].sum(axis=1, ranges=given).sum()
    with pytest.raises(ShapeError, match=r"have 21 pairs, and ranges_j, .* have 0: this gradient") as caught:
        total.backward()
    assert __file__ in str(caught.value)
