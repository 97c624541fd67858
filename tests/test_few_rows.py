"""Few rows against many columns, and few columns against many rows: other loop nests, the same results."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pylazy import LazyTensor, Pm, Vi, Vj, get_num_threads, set_num_threads
from pylazy.compiler.compile import compile_cpu, stages_as_text
from pylazy.execution import job, programs
from pylazy.execution.programs import Extents, few_rows
from pylazy.trace import trace

Array = np.ndarray[Any, Any]

# Columns: fewer than a vector, a whole number of blocks, odd, larger than a chunk, larger than a split.
COLUMNS = (256, 333, 4097, 30_000)


def clouds(rows: int, columns: int, dtype: str, dim: int = 3) -> tuple[Array, Array]:
    generator = np.random.default_rng(rows * 1000 + columns)
    x, y = generator.standard_normal((rows, dim)), generator.standard_normal((columns, dim))
    y[columns // 2] = y[0]  # a tie
    return x.astype(dtype), y.astype(dtype)


def distances(x: Array, y: Array) -> Array:
    return ((x[:, None].astype(np.float64) - y[None].astype(np.float64)) ** 2).sum(-1)


REDUCTIONS: dict[str, tuple[Callable[[LazyTensor], Any], Callable[[Array], Array]]] = {
    "sum": (lambda d: (-d).exp().sum(axis=1), lambda d: np.exp(-d).sum(1)),
    "logsumexp": (lambda d: (-d).logsumexp(axis=1), lambda d: np.log(np.exp(-d).sum(1))),
    "min": (lambda d: d.min(axis=1), lambda d: d.min(1)),
    "max": (lambda d: d.max(axis=1), lambda d: d.max(1)),
    "argmin": (lambda d: d.argmin(axis=1), lambda d: d.argmin(1)),
    "argmax": (lambda d: d.argmax(axis=1), lambda d: d.argmax(1)),
    "argKmin": (lambda d: d.argKmin(7, axis=1), lambda d: np.argsort(d, axis=1, kind="stable")[:, :7]),
    "Kmin": (lambda d: d.Kmin(7, axis=1), lambda d: np.sort(d, axis=1)[:, :7]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_one_to_four_rows_match_dense(name: str, dtype: str) -> None:
    lazy, dense = REDUCTIONS[name]
    for rows, columns in zip((1, 2, 3, 4), COLUMNS, strict=True):
        x, y = clouds(rows, columns, dtype)
        found, expected = lazy(((Vi(x) - Vj(y)) ** 2).sum(-1)), dense(distances(x, y))
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=2e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_few_columns_reduced_over_rows_match_dense(name: str) -> None:
    lazy, dense = REDUCTIONS[name]
    x, y = clouds(1, 1500, "float64")
    transposed = ((Vi(y) - Vj(x)) ** 2).sum(-1).T
    np.testing.assert_allclose(
        lazy(transposed).reshape(dense(distances(x, y)).shape), dense(distances(x, y)), rtol=1e-12
    )


def test_weights_and_vectors_on_one_row_match_dense() -> None:
    x, y = clouds(1, 777, "float64")
    b = np.random.default_rng(0).standard_normal((777, 5))
    kernel = np.exp(-distances(x, y))
    lazy = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
    np.testing.assert_allclose((lazy * Vj(b)).sum(axis=1), kernel @ b, rtol=1e-11, atol=1e-12)
    weighted = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).logsumexp(axis=1, weight=Vj(b**2))
    np.testing.assert_allclose(weighted, np.log(kernel @ b**2), rtol=1e-12)


@pytest.mark.parametrize("column", [0, 255, 500, 999])
def test_nan_on_one_row_propagates_and_its_first_index_wins(column: int) -> None:
    x, y = clouds(1, 1000, "float32")
    y[column, 1] = np.nan
    y[999, 0] = np.nan
    lazy = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    assert np.isnan(lazy.min(axis=1)).all()
    assert np.isnan((-lazy).exp().sum(axis=1)).all()
    assert np.isnan((-lazy).logsumexp(axis=1)).all()
    assert lazy.argmin(axis=1).item() == column
    assert lazy.argKmin(998, axis=1).max() < 1000


def test_lowest_index_wins_a_tie_between_lanes_and_between_splits() -> None:
    x, y = np.zeros((1, 1)), np.ones((100_000, 1))
    tied = [9, 16, 70_001, 99_998]  # the second stands in a lower lane than the first
    y[tied] = 0
    lazy = (Vi(x) - Vj(y)).abs()
    assert lazy.argmin(axis=1).item() == 9
    assert (-lazy).argmax(axis=1).item() == 9
    np.testing.assert_array_equal(lazy.argKmin(6, axis=1), [[*tied, 0, 1]])


def test_infinite_values_on_one_row() -> None:
    x, y = np.zeros((1, 1)), np.full((300, 1), np.inf)
    lazy = Vi(x) + Vj(y)
    assert lazy.argmin(axis=1).item() == 0
    assert (-lazy).logsumexp(axis=1).item() == -np.inf
    np.testing.assert_array_equal(lazy.argKmin(5, axis=1), [[0, 1, 2, 3, 4]])


def test_results_on_few_rows_have_the_same_bits_for_any_number_of_threads() -> None:
    x, y = clouds(2, 200_000, "float32")
    before = get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            results.append((-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp().sum(axis=1))
    finally:
        set_num_threads(before)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


def test_choice_of_the_few_depends_on_both_extents() -> None:
    assert few_rows(Extents((), 1, 10_000), "float32") == "i"
    assert few_rows(Extents((), 10_000, 1), "float32") == "j"
    assert few_rows(Extents((), 1, 10), "float32") == ""
    assert few_rows(Extents((), 10_000, 10_000), "float64") == ""
    assert few_rows(Extents((10, 100), 10, 20), "float64") == "j"
    assert few_rows(Extents((10, 100), 100, 100), "float32") == ""
    assert few_rows(Extents((3,), 10, 20), "float32") == ""


def test_rows_that_fill_vectors_are_not_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "host_target", lambda: "x86-64-v3")  # 16 lanes of float32
    few = [rows for rows in range(1, 60) if few_rows(Extents((), rows, 10_000), "float32")]
    assert few == [*range(1, 13), *range(17, 25)]


# Columns that all rows share


def sums(x: Array, y: Array) -> tuple[Array, Array]:
    """Give the sum and the logsumexp over the columns, from one sweep."""
    minus = -((Vi(x) - Vj(y)) ** 2).sum(-1)
    return minus.exp().sum(axis=1)[:, 0], minus.logsumexp(axis=1)[:, 0]


@pytest.mark.parametrize(("dim", "rows", "columns"), [
    (3, 2, 1023), (3, 7, 1025), (3, 12, 5003), (3, 17, 2049), (3, 24, 257),
    (8, 5, 1100), (9, 5, 1100), (13, 11, 777), (64, 3, 401), (64, 20, 300),
])  # fmt: skip
def test_any_number_of_few_rows_on_ragged_columns_matches_dense(dim: int, rows: int, columns: int) -> None:
    x, y = clouds(rows, columns, "float32", dim)
    d = distances(x / dim, y / dim)
    found, logarithm = sums((x / dim).astype("float32"), (y / dim).astype("float32"))
    np.testing.assert_allclose(found, np.exp(-d).sum(1), rtol=2e-6)
    np.testing.assert_allclose(logarithm, np.log(np.exp(-d).sum(1)), rtol=2e-6)


def test_values_of_a_column_alone_are_right_where_rows_are_few() -> None:
    x, y = clouds(6, 900, "float64")
    lazy = ((Vi(x) * 0.5 - (Vj(y) * 0.7).sin()) ** 2).sum(-1)
    dense = ((x[:, None] * 0.5 - np.sin(y * 0.7)[None]) ** 2).sum(-1)
    np.testing.assert_allclose((-lazy).exp().sum(axis=1)[:, 0], np.exp(-dense).sum(1), rtol=1e-12)
    one = Pm(x[0])  # no row at all
    np.testing.assert_allclose(
        ((one * 0.5 - (Vj(y) * 0.7).sin()) ** 2).sum(-1).sum(axis=1).item(), dense[0].sum(), rtol=1e-12
    )


@pytest.mark.parametrize("dim", [3, 12])
def test_many_small_problems_match_dense(dim: int) -> None:
    generator = np.random.default_rng(dim)
    x, y = generator.random((9, 8, 7, 1, dim)), generator.random((9, 1, 1, 11, dim))
    lazy = (-((LazyTensor(x) - LazyTensor(y)) ** 2).sum(-1)).exp()
    dense = np.exp(-((x - y) ** 2).sum(-1))
    np.testing.assert_allclose(lazy.sum(axis=3)[..., 0], dense.sum(3), rtol=1e-12)
    np.testing.assert_allclose(lazy.sum(axis=2)[..., 0], dense.sum(2), rtol=1e-12)


@pytest.mark.parametrize("dim", [3, 12])
def test_batches_of_few_rows_match_dense(dim: int) -> None:
    generator = np.random.default_rng(dim)
    x, y = generator.random((3, 5, 1, dim)), generator.random((3, 1, 1030, dim))
    lazy = (-((LazyTensor(x) - LazyTensor(y)) ** 2).sum(-1)).exp()
    dense = np.exp(-((x - y) ** 2).sum(-1))
    np.testing.assert_allclose(lazy.sum(axis=2)[..., 0], dense.sum(2), rtol=1e-12)
    np.testing.assert_array_equal(lazy.argmax(axis=2)[..., 0], dense.argmax(2))


def test_ranges_of_few_rows_match_dense() -> None:
    x, y = clouds(4, 600, "float64")
    lazy = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp()
    rows, slices = np.array([[0, 1], [1, 4]]), np.array([1, 3])
    columns = np.array([[17, 311], [0, 5], [300, 600]])
    lazy.ranges = (rows, slices, columns, columns[:1], np.array([1]), rows[:1])
    dense = np.exp(-distances(x, y))
    expected = [dense[0, 17:311].sum(), *(dense[1:, :5].sum(1) + dense[1:, 300:].sum(1))]
    np.testing.assert_allclose(lazy.sum(axis=1)[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("dim", "rows", "columns"), [(3, 5, 300_001), (3, 1, 300_001), (3, 2, 300_001), (20, 21, 30_011)]
)
def test_splits_of_shared_columns_give_the_same_bits_for_any_number_of_threads(
    dim: int, rows: int, columns: int
) -> None:
    x, y = clouds(rows, columns, "float32", dim)
    before = get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            set_num_threads(threads)
            results.append(np.stack(sums(x, y)))
    finally:
        set_num_threads(before)
    assert len({result.tobytes() for result in results}) == 1
    np.testing.assert_allclose(results[0][0], np.exp(-distances(x, y)).sum(1), rtol=1e-5, atol=1e-30)


def test_first_column_wins_a_tie_between_chunks_whichever_row_it_is() -> None:
    x, y = np.zeros((5, 1)), np.ones((50_000, 1))
    y[[1029, 1030, 49_999]] = 0
    lazy = (Vi(x) - Vj(y)).abs()
    np.testing.assert_array_equal(lazy.argmin(axis=1), np.full((5, 1), 1029))


# Few columns for many rows


@pytest.mark.parametrize("dim", [1, 3, 9, 20])
@pytest.mark.parametrize("columns", [1, 2, 3, 11, 19])
def test_short_columns_match_dense(dim: int, columns: int) -> None:
    x, y = clouds(columns, 301, "float32", dim)
    x, y = y / dim, x / dim  # 301 rows: whole tiles, and one that is not
    d = distances(x, y)
    found, logarithm = sums(x, y)
    np.testing.assert_allclose(found, np.exp(-d).sum(1), rtol=2e-6)
    np.testing.assert_allclose(logarithm, np.log(np.exp(-d).sum(1)), rtol=2e-6, atol=2e-6)
    lazy = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    np.testing.assert_array_equal(d[np.arange(301), lazy.argmin(axis=1)[:, 0]] <= d.min(1) * (1 + 1e-6), True)
    np.testing.assert_allclose((lazy * (Vi(x) - Vj(y))).sum(axis=1), _weighted(x, y, d), rtol=1e-4, atol=1e-5)


def _weighted(x: Array, y: Array, d: Array) -> Array:
    return (d[:, :, None] * (x[:, None].astype(np.float64) - y[None])).sum(1)


def test_formula_that_is_its_own_weight_is_right_where_columns_do_not_fill_a_vector() -> None:
    x, y = clouds(3, 701, "float64")
    lazy = ((Vi(x) - Vj(y)) ** 2).sum(-1)
    dense = ((x[:, None] - y[None]) ** 2).sum(-1)
    expected = np.log((dense * np.exp(dense)).sum(1))
    np.testing.assert_allclose(lazy.logsumexp(axis=1, weight=lazy)[:, 0], expected, rtol=1e-13)


#: Fewer rows than a tile; whole tiles and one that is not; more columns than this program is made for.
FEW_COLUMNS = ((5, 1), (64, 3), (301, 2), (33, 1500))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in REDUCTIONS if "K" not in name])
def test_program_for_few_columns_is_right_for_any_number_of_rows_and_columns(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "few_rows", lambda extents, dtype: "j")
    lazy, dense = REDUCTIONS[name]
    for rows, columns in FEW_COLUMNS:
        x, y = clouds(rows, columns, dtype)
        found, expected = lazy(((Vi(x) - Vj(y)) ** 2).sum(-1)), dense(distances(x, y))
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=2e-5 if dtype == "float32" else 1e-12)


def test_lists_of_few_columns_match_dense() -> None:
    x, y = clouds(301, 11, "float64")
    lazy, dense = ((Vi(x) - Vj(y)) ** 2).sum(-1), distances(x, y)
    for k in (1, 4):  # one number goes to its place at once
        np.testing.assert_array_equal(lazy.argKmin(k, axis=1), np.argsort(dense, axis=1, kind="stable")[:, :k])
        np.testing.assert_allclose(lazy.Kmin(k, axis=1), np.sort(dense, axis=1)[:, :k], rtol=1e-12)


@pytest.mark.parametrize("options", [{"sum_scheme": "kahan_scheme"}, {"dtype_acc": "float64"}, {}], ids=str)
def test_every_kind_of_sum_over_few_columns_writes_its_rows_and_no_others(options: dict[str, str]) -> None:
    x, y = clouds(270, 3, "float32")
    lazy, dense = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp(), np.exp(-distances(x, y))
    for kind in ("sum", "mean"):
        program = getattr(lazy, kind)(axis=1, call=False, **options).executable.load("j")
        for rows in (5, 257, 270):
            out = np.full((300, 1), 7, "float32")
            program.run([x.ctypes.data, y.ctypes.data, out.ctypes.data], rows, 3)
            np.testing.assert_allclose(out[:rows, 0], dense[:rows].sum(1), rtol=5e-6)  # a mean is divided later
            assert (out[rows:] == 7).all()


def test_few_columns_give_the_same_bits_for_any_number_of_threads() -> None:
    x, y = clouds(3, 50_001, "float32")
    before = get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            results.append(np.stack(sums(y, x)))
    finally:
        set_num_threads(before)
    assert len({result.tobytes() for result in results}) == 1


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_few_columns_are_one_chunk_and_nothing_is_merged(target: str) -> None:
    x, y = clouds(301, 3, "float32")
    reduction = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp().sum(axis=1, call=False)
    (phase,) = compile_cpu(trace(reduction.executable.request, few_rows="j"), target).phases
    assert not phase.splittable
    assert phase.rows_per_tile == {"x86-64": 16, "x86-64-v3": 32, "x86-64-v4": 48, "aarch64": 12}[target]


def test_rows_are_loaded_upwards() -> None:
    x, y = clouds(1, 5000, "float32")
    reduction = (-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp().sum(axis=1, call=False)
    llvm = stages_as_text(trace(reduction.executable.request, few_rows="i"), "x86-64-v3")["llvm"]
    assert "load <16 x float>" in llvm
    assert "load <96 x float>" not in llvm


@pytest.mark.parametrize(("few", "lanes"), [("i", 64), ("j", 32)])
def test_rows_of_several_elements_are_asked_for_ahead_and_single_numbers_are_not(few: str, lanes: int) -> None:
    x, y = clouds(301, 5000, "float32")
    b = np.ones((5000, 1), np.float32)
    reduction = ((-((Vi(x) - Vj(y)) ** 2).sum(-1)).exp() * Vj(b)).sum(axis=1, call=False)
    llvm = stages_as_text(trace(reduction.executable.request, few_rows=few), "x86-64-v3")["llvm"]
    cache_lines = lanes * 3 * 4 // 64
    assert llvm.count("i32 0, i32 3, i32 1)") == cache_lines  # for reading, into the first cache


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 7, 8])
def test_elements_of_a_short_row_are_found_in_loops_too(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "few_rows", lambda extents, dtype: "j")
    x, y = np.random.default_rng(dim).random((2, 70, dim))
    y = y[:3]
    long = Vj(np.ones((3, 20)))
    lazy = (Vi(x).concat(long) - Vj(y).concat(long)).abs().sum(-1)
    dense = np.abs(x[:, None] - y[None]).sum(-1)
    np.testing.assert_allclose(lazy.sum(axis=1)[:, 0], dense.sum(1), rtol=1e-12)
