"""A launch: extents, splits, batches, scratch, and what it refuses."""

import gc
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machine_code import (
    COPY_IN,
    COPY_OUT,
    COUNT_VISITS,
    STORE_SCRATCH_ADDRESS,
    make_image,
    make_phase,
    make_product_sum,
)

from pylazy.runtime.errors import DeviceError, InternalError, UnsupportedError
from pylazy.runtime.kernel import CPU_LEVELS, Buffer
from pylazy.runtime.launch import Program, host_target, is_runnable
from pylazy.runtime.threads import set_num_threads

pytestmark = pytest.mark.usefixtures("keep_num_threads")

TINY = 1e-13  # float64 sums of at most 1e5 products, relative to the sum of their sizes


@pytest.fixture(scope="module")
def product_sum(product_sum_image):
    return Program.load(product_sum_image)


def run_product_sum(program, x, y):
    out = np.full(len(x), np.nan)
    program.run([x.ctypes.data, y.ctypes.data, out.ctypes.data], len(x), len(y))
    return out


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 5), (4, 8), (9, 1), (513, 3), (3, 30_000), (1, 8193)])
def test_sum_of_products_matches_numpy(product_sum, rows, columns):
    random = np.random.default_rng(rows * columns)
    x, y = random.standard_normal(rows), random.standard_normal(columns)
    error = np.abs(run_product_sum(product_sum, x, y) - x * y.sum())
    assert (error <= TINY * np.abs(x) * np.abs(y).sum()).all()


def test_no_columns_give_the_neutral_element(product_sum):
    assert run_product_sum(product_sum, np.ones(5), np.ones(0)).tolist() == [0.0] * 5


def test_no_rows_touch_nothing(product_sum):
    out = np.full(3, 7.0)
    product_sum.run([0, np.ones(4).ctypes.data, out.ctypes.data], 0, 4)
    assert out.tolist() == [7.0] * 3


def test_bits_do_not_depend_on_the_number_of_threads(product_sum):
    random = np.random.default_rng(0)
    x, y = random.standard_normal(5), random.standard_normal(100_000)
    assert product_sum.geometry(0, 5, 100_000).splits > 2
    results = []
    for threads in (1, 2, 3, 8):
        set_num_threads(threads)
        results.append(run_product_sum(product_sum, x, y).tobytes())
    assert len(set(results)) == 1


def test_few_rows_split_the_columns_and_many_do_not(product_sum):
    assert product_sum.geometry(0, 4, 1_000_000).splits == 62  # 64 tiles wanted, cuts at multiples of 1024
    assert product_sum.geometry(0, 4 * 32, 1_000_000).splits == 2
    assert product_sum.geometry(0, 4 * 64, 1_000_000).splits == 1
    assert product_sum.geometry(0, 4, 1_000_000, batch_count=64).splits == 1
    assert product_sum.geometry(0, 4, 8192).splits == 1


def test_costly_pairs_split_at_fewer_columns():
    cheap, costly = (Program.load(make_product_sum(cost=cost)) for cost in (0.01, 1000.0))
    assert cheap.geometry(0, 1, 10_000).splits == 2
    assert costly.geometry(0, 1, 10_000).splits == 10


def test_one_split_skips_the_merge(product_sum):
    assert product_sum.geometry(1, 5, 100).tiles == 0
    assert product_sum.geometry(1, 5, 100_000).tiles == 3


@given(
    rows=st.integers(0, 1000),
    columns=st.integers(0, 2**40),
    batch=st.integers(0, 100),
    limit=st.sampled_from([0, 1, 1000, 1024, 5000, 2**30]),
)
def test_splits_cover_the_columns_and_obey_the_limit(programs_by_limit, rows, columns, batch, limit):
    geometry = programs_by_limit[limit].geometry(0, rows, columns, batch)
    assert (geometry.rows, geometry.columns) == (rows, columns)
    covered = geometry.splits * geometry.columns_per_split
    assert covered >= columns
    assert geometry.splits == 1 or covered - geometry.columns_per_split < columns
    assert limit == 0 or geometry.columns_per_split <= limit
    assert geometry.tiles == -(-rows // 4) * geometry.splits
    assert geometry.splits == 1 or limit in range(1, 1024) or geometry.columns_per_split % 1024 == 0


@pytest.fixture(scope="module")
def programs_by_limit():
    return {limit: Program.load(make_product_sum(limit=limit)) for limit in (0, 1, 1000, 1024, 5000, 2**30)}


def test_limited_kernel_sums_all_columns():
    program = Program.load(make_product_sum(limit=10))
    y = np.random.default_rng(1).standard_normal(1234)
    np.testing.assert_allclose(run_product_sum(program, np.ones(300), y), y.sum(), rtol=1e-10)


def test_unsplittable_kernel_refuses_more_columns_than_it_takes():
    program = Program.load(make_product_sum(limit=100, splittable=False))
    assert run_product_sum(program, np.ones(2), np.ones(100)).tolist() == [100.0, 100.0]
    with pytest.raises(UnsupportedError, match="phase 0 reduces 101 columns: this kernel takes at most 100"):
        run_product_sum(program, np.ones(2), np.ones(101))


@pytest.mark.parametrize("columns", [6, 20_000])
def test_batch_elements_are_broadcast_and_strided(product_sum, columns):
    random = np.random.default_rng(2)
    x = random.standard_normal((3, 1, 2, 5))  # the second dimension is broadcast
    y = np.asfortranarray(random.standard_normal((1, 4, 2)))[..., None] * np.ones(columns)
    out = np.full((3, 4, 2, 5), np.nan)
    shape = (3, 4, 2)
    strides = [
        [0 if size == 1 else stride for size, stride in zip(array.shape[:-1], array.strides[:-1], strict=True)]
        for array in (x, y, out)
    ]
    product_sum.run([x.ctypes.data, y.ctypes.data, out.ctypes.data], 5, columns, shape, strides)
    np.testing.assert_allclose(out, x * y.sum(-1)[..., None], rtol=1e-10)


def test_empty_batch_touches_nothing(product_sum):
    out = np.full(3, 7.0)
    product_sum.run([0, 0, out.ctypes.data], 3, 4, (2, 0), [[8, 8]] * 3)
    assert out.tolist() == [7.0] * 3


def test_many_small_batch_elements_are_all_computed(product_sum):
    x, y = np.random.default_rng(3).standard_normal((2, 4000, 6))
    out = np.full((4000, 6), np.nan)
    product_sum.run([x.ctypes.data, y.ctypes.data, out.ctypes.data], 6, 6, (4000,), [[48]] * 3)
    np.testing.assert_allclose(out, x * y.sum(-1, keepdims=True), rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def listed_visits():
    """Counts the visits of each row; a table says how many tiles, of one row each, there are."""
    buffers = (Buffer("visits", "output", "i", "int64", 1), Buffer("ranges_i", "table", "i", "int64", 1))
    return Program.load(make_image([(make_phase("visit", tile_table=1, cost=1e6), COUNT_VISITS)], buffers))


@pytest.mark.parametrize(("tiles", "pairs"), [(0, 0), (1, 1), (5, 10), (100, 1), (100, 10**12)])
def test_table_says_how_many_tiles_there_are(listed_visits, tiles, pairs):
    table = np.array([tiles, pairs])
    visits = np.zeros((3, 100), np.int64)
    listed_visits.run([visits.ctypes.data, table.ctypes.data], 100, 1, (3,), [[800], [0]])
    assert (visits == (np.arange(100) < tiles)).all()
    assert listed_visits.geometry(0, 100, 1).tiles == 0


def test_impossible_tables_are_refused(listed_visits):
    visits, table = np.zeros(4, np.int64), np.array([-1, 0])
    with pytest.raises(InternalError, match="a table has -1 tiles"):
        listed_visits.run([visits.ctypes.data, table.ctypes.data], 4, 1)
    with pytest.raises(InternalError, match="buffer 1 is null"):
        listed_visits.run([visits.ctypes.data, 0], 4, 1)
    table[0] = 2**60
    with pytest.raises(InternalError, match="a table has 1152921504606846976 tiles, for 8 batches"):
        listed_visits.run([visits.ctypes.data, table.ctypes.data], 4, 1, (8,), [[0], [0]])


def copy_through_scratch_image(scratch_dim):
    buffers = (
        Buffer("source", "input", "i", "int64", 1),
        Buffer("target", "output", "i", "int64", 1),
        Buffer("kept", "scratch", "i", "int64", scratch_dim),
    )
    return make_image([(make_phase("in"), COPY_IN), (make_phase("out"), COPY_OUT)], buffers)


def test_scratch_keeps_each_batch_element_between_phases():
    # 100 MB of (untouched) scratch for each element: more than fit at once, so they run in groups.
    program = Program.load(copy_through_scratch_image(12_500_000))
    source = np.arange(7, dtype=np.int64) + 100
    target = np.zeros(7, np.int64)
    program.run([source.ctypes.data, target.ctypes.data], 1, 1, (7,), [[8], [8]])
    assert target.tolist() == source.tolist()


def test_scratch_is_aligned_to_cache_lines():
    buffers = (Buffer("address", "output", "i", "int64", 1), Buffer("kept", "scratch", "", "int8", 1))
    program = Program.load(make_image([(make_phase("store"), STORE_SCRATCH_ADDRESS)], buffers))
    addresses = np.zeros(50, np.int64)
    program.run([addresses.ctypes.data], 1, 1, (50,), [[8]])
    assert len(set(addresses.tolist())) == 50
    assert (addresses % 64 == 0).all()


@pytest.mark.parametrize("rows", [1 << 10, 1 << 40])
def test_too_much_scratch_is_a_memory_error(rows):
    program = Program.load(copy_through_scratch_image(1 << 37))
    word = np.zeros(1, np.int64).ctypes.data
    with pytest.raises(MemoryError, match="scratch"):
        program.run([word, word], rows, 1)


def test_wrong_number_of_pointers_is_refused(product_sum):
    word = np.zeros(1).ctypes.data
    with pytest.raises(InternalError, match="does not fit"):
        product_sum.run([word, word], 1, 1)


def test_wrong_number_of_batch_strides_is_refused(product_sum):
    word = np.zeros(1).ctypes.data
    with pytest.raises(InternalError, match="does not fit"):
        product_sum.run([word] * 3, 1, 1, (1,), [[0], [0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": -1}, "M = -1"),
        ({"n": -1}, "N = -1"),
        ({"pointers": [0, 8, 8]}, "buffer 0 is null, with 1 rows"),
        ({"batch_sizes": (-2,), "batch_strides": [[0]] * 3}, "batch dimension 0 has size -2"),
        ({"batch_sizes": (1,) * 65, "batch_strides": [[0] * 65] * 3}, "65 batch dimensions"),
        ({"batch_sizes": (2**40, 2**40), "batch_strides": [[0, 0]] * 3}, "more than 2\\^63 batch elements"),
        ({"m": 2**62, "batch_sizes": (8,), "batch_strides": [[0]] * 3}, "more than 2\\^61 tiles"),
    ],
)
def test_extents_that_cannot_be_are_refused(product_sum, change, message):
    launch = {"pointers": [8, 8, 8], "m": 1, "n": 1, **change}
    with pytest.raises(InternalError, match=message):
        product_sum.run(**launch)


def test_image_for_another_processor_is_refused(product_sum_image):
    target = next(level for level in reversed(CPU_LEVELS) if not is_runnable(level))
    with pytest.raises(DeviceError, match=f"image is for {target}, this processor is {host_target()}"):
        Program.load(replace(product_sum_image, target=target))


def test_levels_below_the_hosts_are_runnable(monkeypatch):
    monkeypatch.setattr("pylazy.runtime.launch.host_target", lambda: "x86-64-v3")
    assert is_runnable("x86-64")
    assert is_runnable("x86-64-v3")
    assert not is_runnable("x86-64-v4")
    assert not is_runnable("aarch64")
    assert not is_runnable("sm_90")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads the processor's flags from Linux")
def test_host_level_agrees_with_the_system():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if "avx512vl" in flags and "avx512bw" in flags:
        expected = "x86-64-v4"
    elif "avx2" in flags and "fma" in flags:
        expected = "x86-64-v3"
    else:
        expected = "aarch64" if "asimd" in flags else "x86-64"
    assert host_target() == expected


def anonymous_code_mappings():
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {tuple(fields[:2]) for fields in map(str.split, lines) if len(fields) == 5 and "x" in fields[1]}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the mappings of this process from Linux")
def test_code_is_never_writable_and_is_freed_with_its_program(product_sum_image):
    gc.collect()
    before = anonymous_code_mappings()
    programs = [Program.load(product_sum_image) for _ in range(3)]
    added = anonymous_code_mappings() - before
    assert added
    assert {permissions for _, permissions in added} == {"r-xp"}
    del programs
    gc.collect()
    assert anonymous_code_mappings() == before
