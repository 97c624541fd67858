"""PTX of every supported reduction, run on the interpreter against the oracle."""

import re
from typing import Any

import numpy as np
import pytest
from gpu_program import GpuProgram, launch_geometry
from ptx_text import PtxError

from gpu_formulas import FORMULAS, Variables, expected, inputs_of, request_of, traced, traced_gradient
from pylazy import Vi, Vj
from pylazy.compiler.nests.gpu_memory import STAGED_COLUMN_BYTES, column_layout
from pylazy.compiler.nests.gpu_shared_sums import BLOCK_COLUMNS
from reference import assert_close

DTYPES = (np.float32, np.float64)
Array = Any  # an ndarray


def check(program: GpuProgram, name: str, dtype: Any, rows: int, columns: int) -> None:
    """Compare one run with the oracle."""
    reduction = FORMULAS[name](Variables(rows, columns, dtype))
    found = program.run(inputs_of(reduction), rows=rows, columns=columns)
    for result, dense in zip(found, expected(reduction), strict=True):
        scale = 1.0 + np.abs(dense).max(initial=0, where=np.isfinite(dense))
        assert_close(result, dense, dtype=dtype, columns=columns, scale=scale)


def compiled(name: str, dtype: Any, **options: Any) -> GpuProgram:
    return GpuProgram(traced(FORMULAS[name](Variables(9, 9, dtype))), **options)


def ragged_sizes(program: GpuProgram) -> list[tuple[int, int]]:
    """Give rows and columns around the sizes of a block and a tile, each once."""
    block, tile = program.block_rows, program.tile_columns
    return [(1, 2 * tile + 3), (block - 1, 1), (block, tile - 1), (block + 1, tile), (2 * block + 3, tile + 1)]


# A kernel of each family; f64 is the same schedule with other numbers, and slow to interpret.
_RAGGED = ("gaussian_d3_e1", "gaussian_d3_e3", "laplacian", "logsumexp", "logsumexp_weighted", "softmax", "min", "max")
_RAGGED_SELECTIONS = ("argmin", "min_argmin", "kmin", "kmin_argkmin", "over_rows", "with_parameter", "with_number")


@pytest.mark.parametrize("name", _RAGGED + _RAGGED_SELECTIONS)
def test_ragged_sizes(name: str) -> None:
    program = compiled(name, np.float32)
    for rows, columns in ragged_sizes(program):
        check(program, name, np.float32, rows, max(columns, 5) if "k" in name or "arg" in name else columns)


@pytest.mark.parametrize("name", ["gaussian_d3_e1", "logsumexp", "argmin", "kmin"])
def test_ragged_sizes_of_float64(name: str) -> None:
    program = compiled(name, np.float64)
    check(program, name, np.float64, program.block_rows + 1, program.tile_columns + 7)
    check(program, name, np.float64, 1, 5)


_SMALLER = {"dot_of_long": (2, 3), "gaussian_d300_e1": (3, 9), "gaussian_d64_e64": (3, 11), "logsumexp_d64_e20": (3, 9)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula(name: str, dtype: Any) -> None:
    check(compiled(name, dtype), name, dtype, *_SMALLER.get(name, (9, 21)))


@pytest.mark.parametrize("arch", ["sm_75", "sm_120"])
@pytest.mark.parametrize("name", ["gaussian_d3_e1", "min", "argmin", "logsumexp", "kmin"])
def test_other_architectures(name: str, arch: str) -> None:
    check(compiled(name, np.float32, arch=arch), name, np.float32, 9, 21)


_LONG = ("gaussian_d64_e1", "gaussian_d3_e64", "concatenated", "long_products", "min_argmin_d20", "logsumexp_d20")


@pytest.mark.parametrize("name", _LONG)
def test_long_inner_dimensions_in_ragged_tiles(name: str) -> None:
    program = compiled(name, np.float32)
    check(program, name, np.float32, program.block_rows + 1, program.tile_columns + 3)


def test_sums_that_lanes_share_are_added_up_in_blocks_of_columns() -> None:
    program = compiled("gaussian_d3_e64", np.float32)
    assert "shfl.sync.bfly" in program.module.text
    check(program, "gaussian_d3_e64", np.float32, 2, 2 * BLOCK_COLUMNS + 5)


def test_warps_that_share_rows_find_the_first_of_equal_columns() -> None:
    program = compiled("min_argmin_d20", np.float32)
    assert program.block_rows == 128
    x, y = np.ones((3, 20), np.float32), np.zeros((40, 20), np.float32)
    y[[9, 13, 37]] = 1.0  # of one warp, of another, of the rest of a tile
    least, first = program.run([x, y], rows=3, columns=40)
    np.testing.assert_array_equal(least, np.zeros((3, 1)))
    np.testing.assert_array_equal(first, np.full((3, 1), 9))


def test_an_entry_is_inserted_by_one_piece_of_code_for_each_row_and_loop() -> None:
    k = 10
    nearest = Variables(9, k, np.float32)
    text = GpuProgram(traced(nearest.x(3).sqdist(nearest.y(3)).argKmin(k, axis=1, call=False))).module.text
    # Two rows in the loop over blocks of columns and in that over the rest, and the merge; four choices an entry.
    assert text.count("selp") <= 5 * 4 * k + 40


# Splits

MANY_PROCESSORS = 100


@pytest.mark.parametrize("name", sorted({*_RAGGED, *_RAGGED_SELECTIONS, *_LONG} - {"concatenated"}))
def test_splits_are_merged(name: str) -> None:
    program = compiled(name, np.float32, processors=MANY_PROCESSORS)
    columns = 6 * program.tile_columns + 3
    check(program, name, np.float32, *((columns, 5) if name == "over_rows" else (5, columns)))
    assert program.splits == 4


@pytest.mark.parametrize("name", ["gaussian_d3_e3", "logsumexp", "min_argmin", "kmin_argkmin"])
def test_splits_of_float64_are_merged(name: str) -> None:
    program = compiled(name, np.float64, processors=MANY_PROCESSORS)
    check(program, name, np.float64, 3, 3 * program.tile_columns)
    assert program.splits == 2


def test_a_merge_goes_through_splits_four_at_a_time_and_one_by_one() -> None:
    for name in ("gaussian_d3_e1", "min_argmin"):
        program = compiled(name, np.float32, processors=MANY_PROCESSORS)
        check(program, name, np.float32, program.block_rows + 1, 11 * program.tile_columns)
        assert program.splits == 6


def test_splits_are_used_only_where_rows_are_few() -> None:
    image = compiled("gaussian_d3_e1", np.float32).module
    few, _ = launch_geometry(image, rows=10_000, columns=10_000, processors=132)
    assert few.grid[0] == 20
    assert 2 * 132 <= few.grid[0] * few.grid[1] <= 4 * 132
    assert few.splits * few.columns_per_split >= 10_000
    many, merge = launch_geometry(image, rows=1_000_000, columns=1_000_000, processors=132)
    assert many.splits == 1
    assert merge.grid[1] == 0


def test_numbers_of_columns_in_a_split_stay_below_32_bits() -> None:
    image = compiled("argmin", np.float32).module
    geometry, merge = launch_geometry(image, rows=10**7, columns=3 * 2**30, processors=132)
    assert geometry.columns_per_split == 2**30
    assert geometry.splits == 3
    assert merge.grid[1] == 1


# Batches


@pytest.mark.parametrize("processors", [0, MANY_PROCESSORS])
@pytest.mark.parametrize(
    "name", ["gaussian_d3_e1", "logsumexp", "min_argmin", "kmin", "dot_of_long", "gaussian_d64_e1"]
)
def test_elements_of_a_batch_are_blocks_along_z(name: str, processors: int) -> None:
    program = compiled(name, np.float32, processors=processors)
    rows, columns, batch = 3, 4 * program.tile_columns + 3, 3
    reduction = FORMULAS[name](Variables(rows, columns, np.float32))
    single = inputs_of(reduction)
    repeated, *others = single
    stacked = [np.stack([array * (1 - 0.5 * z) for z in range(batch)]) for array in others]
    found = program.run([repeated[None], *stacked], rows=rows, columns=columns, batch=batch)
    assert (program.splits > 1) == bool(processors)
    for z in range(batch):
        for source, array in zip(reduction._job.sources, [repeated, *(stack[z] for stack in stacked)], strict=True):
            source.array = np.ascontiguousarray(array).reshape(source.array.shape)
        for result, dense in zip(found, expected(reduction), strict=True):
            scale = 1.0 + np.abs(dense).max(initial=0, where=np.isfinite(dense))
            assert_close(result[z], dense, dtype=np.float32, columns=columns, scale=scale)


def test_a_batch_needs_fewer_splits() -> None:
    image = compiled("gaussian_d3_e1", np.float32).module
    one, _ = launch_geometry(image, rows=10_000, columns=100_000, processors=132)
    many, _ = launch_geometry(image, rows=10_000, columns=100_000, processors=132, batch=40)
    assert one.splits > many.splits == 1


# Gradients


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_gaussian_matches_its_formula(dtype: Any) -> None:
    rows, columns = 9, 133
    reduction = FORMULAS["gaussian_d3_e1"](Variables(rows, columns, dtype))
    program = GpuProgram(traced_gradient(reduction, wrt=(0, 1, 2)))
    cotangent = np.linspace(-1, 1, rows)[:, None].astype(dtype)
    inputs = inputs_of(reduction)
    by_dim = {array.shape: np.float64(array) for array in inputs}
    x, y, b = by_dim[rows, 3], by_dim[columns, 3], by_dim[columns, 1]
    found = program.run([*inputs, cotangent], rows=rows, columns=columns)
    difference = x[:, None] - y[None]
    kernel = np.exp(-(difference**2).sum(-1))
    by_pair = (-2 * kernel * cotangent * b.T)[..., None] * difference
    wanted = {(rows, 3): by_pair.sum(1), (columns, 3): -by_pair.sum(0), (columns, 1): kernel.T @ cotangent}
    for entry, result in zip(request_of(reduction).inputs, found, strict=True):
        dense = wanted[(rows if entry.axis == "i" else columns), entry.dim]
        assert_close(result, dense, dtype=dtype, columns=columns, scale=1.0 + np.abs(by_pair).sum(1).max())


@pytest.mark.parametrize("processors", [0, MANY_PROCESSORS])
def test_gradient_of_a_parameter_is_one_row(processors: int) -> None:
    rows, columns = 300, 13
    reduction = FORMULAS["with_number"](Variables(rows, columns, np.float64))
    entries = request_of(reduction).inputs
    number = next(position for position, entry in enumerate(entries) if entry.axis == "")
    program = GpuProgram(traced_gradient(reduction, wrt=(number,)), processors=processors)
    inputs = inputs_of(reduction)
    (found,) = program.run([*inputs, np.ones((rows, 1))], rows=rows, columns=columns)
    assert program.splits == (2 if processors else 1)
    by_axis = {(entry.axis, entry.dim): array for entry, array in zip(entries, inputs, strict=True)}
    distance = ((by_axis["i", 3][:, None] - by_axis["j", 3][None]) ** 2).sum(-1)
    wanted = ((-distance * np.exp(-0.7 * distance)) @ by_axis["j", 1]).sum().reshape(1, 1)
    assert_close(found, wanted, dtype=np.float64, columns=rows * columns, scale=30.0)


# Special values


def test_no_columns_give_the_neutral_element() -> None:
    for name, neutral in (("gaussian_d3_e1", 0.0), ("logsumexp", -np.inf), ("min", np.inf), ("max", -np.inf)):
        reduction = FORMULAS[name](Variables(4, 3, np.float32))
        inputs = [array if entry.axis == "i" else array[:0] for array, entry in _entries(reduction)]
        (result,) = GpuProgram(traced(reduction)).run(inputs, rows=4, columns=0)
        np.testing.assert_array_equal(result, np.full((4, 1), neutral, np.float32))


def _entries(reduction: Any) -> Any:
    return zip(inputs_of(reduction), request_of(reduction).inputs, strict=True)


_SPECIAL = {
    "infinities": {17: np.inf, 30: -np.inf},
    "one NaN": {17: np.nan},
    "NaN first and last": {0: np.nan, 39: np.nan},
    "NaN after infinity": {3: np.inf, 20: np.nan},
    "only NaN": dict.fromkeys(range(40), np.nan),
    "only infinity": dict.fromkeys(range(40), np.inf),
    "ties": dict.fromkeys(range(3, 40, 2), 0.25),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["min", "max", "argmin", "min_argmin", "kmin", "kmin_argkmin", "logsumexp"])
def test_special_values_follow_the_oracle(name: str, dtype: Any) -> None:
    program = compiled(name, dtype)
    for values in _SPECIAL.values():
        check_special(program, name, dtype, 40, values)


@pytest.mark.parametrize("name", ["min", "max", "argmin", "min_argmin", "kmin", "kmin_argkmin", "logsumexp"])
def test_special_values_in_several_splits_follow_the_oracle(name: str) -> None:
    program = compiled(name, np.float32, processors=MANY_PROCESSORS)
    spread = program.tile_columns // 8
    for values in _SPECIAL.values():
        everywhere = len(values) == 40
        if everywhere and "k" in name:
            continue  # the same in every split, and slow to interpret
        rows = range(40 * spread) if everywhere else [row * spread for row in values]
        numbers = list(values.values())
        placed = {row: numbers[0 if everywhere else k] for k, row in enumerate(rows)}
        check_special(program, name, np.float32, 40 * spread, placed)
        assert program.splits > 1


def check_special(program: GpuProgram, name: str, dtype: Any, columns: int, values: dict[int, float]) -> None:
    """Compare one run with the oracle where some columns hold special values."""
    reduction = FORMULAS[name](Variables(3, columns, dtype))
    for source, (array, entry) in zip(reduction._job.sources, _entries(reduction), strict=True):
        if entry.axis == "j":
            for row, value in values.items():
                array[row] = value
            source.array[...] = array.reshape(source.array.shape)
    found = program.run(inputs_of(reduction), rows=3, columns=columns)
    for result, dense in zip(found, expected(reduction), strict=True):
        assert_close(result, dense, dtype=dtype, columns=columns, scale=10.0)


def _exponential_of_sums(x: Array, y: Array) -> Any:
    return (Vi(x) + Vj(y)).exp().sum(axis=1, call=False)


def test_exponentials_of_float64_are_exact_to_two_units() -> None:
    ends = [-np.inf, -1e300, -746.0, -708.5, 709.7, 709.8, 1e300, np.inf, np.nan, 0.0, -0.0]
    x = np.concatenate([ends, np.linspace(-708.0, 709.0, 4001), np.linspace(-1.0, 1.0, 501)])[:, None]
    y = np.zeros((1, 1))
    (found,) = GpuProgram(traced(_exponential_of_sums(x, y))).run([x, y], rows=len(x), columns=1)
    with np.errstate(over="ignore"):
        wanted = np.exp(x)
    wanted[wanted < np.finfo(np.float64).tiny] = 0.0  # results below the normal numbers are 0
    np.testing.assert_allclose(found, wanted, rtol=2 * np.finfo(np.float64).eps)


def test_a_distance_of_zero_gives_exactly_one() -> None:
    """Both sides of a difference are scaled and rounded alike."""
    x = (1e4 * np.random.default_rng(3).standard_normal((40, 3))).astype(np.float32)
    distance = (Vi(x) - Vj(x)) ** 2
    reduction = (-distance.sum(-1)).exp().max(axis=1, call=False)
    assert "ex2.approx" in GpuProgram(traced(reduction)).module.text
    (found,) = GpuProgram(traced(reduction)).run(inputs_of(reduction), rows=40, columns=40)
    np.testing.assert_array_equal(found, np.ones((40, 1), np.float32))


# Planted faults: the interpreter is worth something only if it finds them


def _without_line(pattern: str, number: int) -> Any:
    def edit(text: str) -> str:
        lines = text.split("\n")
        del lines[[k for k, line in enumerate(lines) if pattern in line][number]]
        return "\n".join(lines)

    return edit


@pytest.mark.parametrize("name", ["gaussian_d64_e1", "min_argmin_d20"])
def test_a_missing_barrier_between_warps_that_share_rows_is_found(name: str) -> None:
    barriers = compiled(name, np.float32).module.text.count("bar.sync")
    for number in (barriers - 2, barriers - 1):
        program = compiled(name, np.float32, edit=_without_line("bar.sync", number))
        with pytest.raises(PtxError, match=r"a race|nothing was written to"):
            check(program, name, np.float32, 5, program.tile_columns)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ["gaussian_d3_e1", "logsumexp", "argmin"])
def test_a_missing_barrier_is_found(name: str, number: int) -> None:
    program = compiled(name, np.float32, edit=_without_line("bar.sync", number))
    with pytest.raises(PtxError, match=r"a race|nothing was written to"):
        check(program, name, np.float32, 5, 2 * program.tile_columns)


def test_a_missing_clamp_of_the_rows_is_found() -> None:
    def edit(text: str) -> str:
        return re.sub(r"min\.s64(\s+%rd\d+, %rd\d+), %rd\d+;", r"mov.b64\1;", text, count=4)

    program = compiled("gaussian_d3_e1", np.float32, edit=edit)
    with pytest.raises(PtxError, match="bytes after the end of x0"):
        check(program, "gaussian_d3_e1", np.float32, program.block_rows - 1, 5)


def test_a_wrong_clamp_of_the_rows_is_found() -> None:
    program = compiled("gaussian_d3_e1", np.float32, edit=lambda text: text.replace("min.s64", "max.s64", 1))
    with pytest.raises(AssertionError, match="above the tolerance"):
        check(program, "gaussian_d3_e1", np.float32, program.block_rows - 1, 5)


def test_a_missing_guard_of_the_stores_is_found() -> None:
    def edit(text: str) -> str:
        lines = text.split("\n")
        store = next(k for k, line in enumerate(lines) if "st.global" in line)
        guard = max(k for k in range(store) if "@%p" in lines[k])
        return "\n".join(lines[:guard] + lines[guard + 1 :])

    program = compiled("gaussian_d3_e1", np.float32, edit=edit)
    with pytest.raises(PtxError, match="after the end of output0"):
        check(program, "gaussian_d3_e1", np.float32, 3, 5)


def test_a_wrong_tail_is_found() -> None:
    """One column more than there are."""
    program = compiled("gaussian_d3_e1", np.float32, edit=lambda text: text.replace("min.s64", "max.s64"))
    with pytest.raises(PtxError):
        check(program, "gaussian_d3_e1", np.float32, program.block_rows, program.tile_columns + 1)


# The layout of a tile


def test_columns_are_packed_with_wide_rows_first_and_aligned() -> None:
    offsets, total = column_layout([("b", 1, 4), ("y", 64, 4), ("z", 3, 4)])
    assert offsets == {"y": 0, "z": 256, "b": 268}
    assert total == 272


def test_what_exceeds_a_column_stays_in_global_memory() -> None:
    offsets, total = column_layout([("long", STAGED_COLUMN_BYTES // 4, 4), ("b", 1, 4)])
    assert offsets == {"b": 0}
    assert total == 16
