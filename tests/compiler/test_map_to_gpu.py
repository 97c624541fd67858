"""GPU kernels, run thread by thread on the CPU, against the oracle."""

from typing import Any

import numpy as np
import pytest
from gpu_formulas import (
    FORMULAS,
    Variables,
    expected,
    inputs_of,
    request_of,
    traced,
    traced_gradient,
)
from simt import Simt

from pylazy.compiler.compile import compile_ptx, ptx_as_text
from pylazy.compiler.gpu_memory import STAGED_COLUMN_BYTES, column_layout
from reference import assert_close

DTYPES = (np.float32, np.float64)
TILE = 128
Array = Any  # an ndarray


class Program:
    """A formula compiled for a GPU, run on the CPU."""

    def __init__(self, formula: Any, *, edit: Any = None) -> None:
        self.ptx = compile_ptx(formula, "sm_90")
        text = ptx_as_text(formula, "sm_90")["llvm"]
        self.simt = Simt(text if edit is None else edit(text))

    def run(self, inputs: list[Array], *, rows: int, columns: int) -> list[Array]:
        """Give the outputs; whatever they hold before must not matter."""
        extents = {"i": rows, "j": columns, "": 1}
        arrays = list(inputs)
        rest = self.ptx.buffers[len(inputs) :]
        arrays += [np.full((extents[buffer.axis], buffer.dim), -7, dtype=buffer.dtype) for buffer in rest]
        for kernel in self.ptx.kernels:
            self.simt.launch(kernel, arrays, rows=extents[kernel.rows], columns=extents[kernel.columns])
        return [array for array, buffer in zip(arrays, self.ptx.buffers, strict=True) if buffer.role == "output"]


def check(name: str, dtype: Any, sizes: list[tuple[int, int]]) -> None:
    """Compile a formula once and compare it with the oracle at several sizes."""
    formula = FORMULAS[name]
    program = Program(traced(formula(Variables(9, 9, dtype))))
    for rows, columns in sizes:
        reduction = formula(Variables(rows, columns, dtype))
        found = program.run(inputs_of(reduction), rows=rows, columns=columns)
        for result, dense in zip(found, expected(reduction), strict=True):
            assert_close(result, dense, dtype=dtype, columns=columns, scale=1.0 + np.abs(dense).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gaussian_d3_e1", "logsumexp", "logsumexp_weighted"])
def test_ragged_sizes(name: str, dtype: Any) -> None:
    block = 512  # the most rows that a block takes
    check(name, dtype, [(1, 1), (7, TILE - 1), (block + 1, TILE), (5, TILE + 1), (block, 3)])


_SMALL = sorted(set(FORMULAS) - {"gaussian_d64_e64", "gaussian_d3_e64", "logsumexp_d64_e20"})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", _SMALL)
def test_every_formula(name: str, dtype: Any) -> None:
    check(name, dtype, [(9, 21)])


@pytest.mark.parametrize("name", ["gaussian_d64_e64", "logsumexp_d64_e20"])
def test_long_results_take_several_sweeps(name: str) -> None:
    check(name, np.float32, [(3, 11)])


def test_gradient_of_gaussian_matches_its_formula() -> None:
    rows, columns = 9, 13
    reduction = FORMULAS["gaussian_d3_e1"](Variables(rows, columns, np.float64))
    program = Program(traced_gradient(reduction, wrt=(0, 1, 2)))
    cotangent = np.linspace(-1, 1, rows)[:, None]
    inputs = inputs_of(reduction)
    by_dim = {array.shape: array for array in inputs}
    x, y, b = by_dim[rows, 3], by_dim[columns, 3], by_dim[columns, 1]
    found = program.run([*inputs, cotangent], rows=rows, columns=columns)
    difference = x[:, None] - y[None]
    kernel = np.exp(-(difference**2).sum(-1))
    by_pair = (-2 * kernel * cotangent * b.T)[..., None] * difference
    wanted = {(rows, 3): by_pair.sum(1), (columns, 3): -by_pair.sum(0), (columns, 1): kernel.T @ cotangent}
    for entry, result in zip(request_of(reduction).inputs, found, strict=True):
        dense = wanted[(rows if entry.axis == "i" else columns), entry.dim]
        assert_close(result, dense, dtype=np.float64, columns=columns, scale=1.0)


def test_gradient_of_a_parameter_is_one_row() -> None:
    rows, columns = 9, 13
    reduction = FORMULAS["with_number"](Variables(rows, columns, np.float64))
    entries = request_of(reduction).inputs
    number = next(position for position, entry in enumerate(entries) if entry.axis == "")
    program = Program(traced_gradient(reduction, wrt=(number,)))
    inputs = inputs_of(reduction)
    (found,) = program.run([*inputs, np.ones((rows, 1))], rows=rows, columns=columns)
    by_axis = {(entry.axis, entry.dim): array for entry, array in zip(entries, inputs, strict=True)}
    distance = ((by_axis["i", 3][:, None] - by_axis["j", 3][None]) ** 2).sum(-1)
    wanted = ((-distance * np.exp(-0.7 * distance)) @ by_axis["j", 1]).sum().reshape(1, 1)
    assert_close(found, wanted, dtype=np.float64, columns=rows * columns, scale=1.0)


def test_no_columns_give_the_neutral_element() -> None:
    for name, neutral in (("gaussian_d3_e1", 0.0), ("logsumexp", -np.inf), ("min", np.inf)):
        reduction = FORMULAS[name](Variables(4, 3, np.float32))
        inputs = [array if entry.axis == "i" else array[:0] for array, entry in _entries(reduction)]
        (result,) = Program(traced(reduction)).run(inputs, rows=4, columns=0)
        np.testing.assert_array_equal(result, np.full((4, 1), neutral, np.float32))


def _entries(reduction: Any) -> Any:
    return zip(inputs_of(reduction), request_of(reduction).inputs, strict=True)


def test_nan_and_infinity_follow_the_oracle() -> None:
    for name in ("min", "argmin", "max", "logsumexp", "kmin"):
        variables = Variables(3, 40, np.float32)
        reduction = FORMULAS[name](variables)
        inputs = inputs_of(reduction)
        for (array, entry), row, value in zip(
            [(a, e) for a, e in _entries(reduction) if e.axis == "j"] * 2, (17, 30), (np.inf, np.nan), strict=False
        ):
            assert entry.axis == "j"
            array[row] = value
        (result,) = Program(traced(reduction)).run(inputs, rows=3, columns=40)
        for source, array in zip(reduction._job.sources, inputs, strict=True):
            source.array[...] = array.reshape(source.array.shape)
        (dense,) = expected(reduction)
        assert_close(result, dense, dtype=np.float32, columns=40, scale=10.0)


def _without_barrier(number: int) -> Any:
    def edit(text: str) -> str:
        lines = text.split("\n")
        barriers = [k for k, line in enumerate(lines) if "call void @llvm.nvvm.barrier" in line]
        del lines[barriers[number]]
        return "\n".join(lines)

    return edit


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_barrier_shows(number: int) -> None:
    """The emulation is worth something only if it finds this."""
    rows, columns = 5, 5 * TILE
    reduction = FORMULAS["gaussian_d3_e1"](Variables(rows, columns, np.float32))
    program = Program(traced(reduction), edit=_without_barrier(number))
    (result,) = program.run(inputs_of(reduction), rows=rows, columns=columns)
    (dense,) = expected(reduction)
    assert not np.abs(result - dense).max() < 1e-4


def test_columns_are_packed_with_wide_rows_first_and_aligned() -> None:
    offsets, total = column_layout([("b", 1, 4), ("y", 64, 4), ("z", 3, 4)])
    assert offsets == {"y": 0, "z": 256, "b": 268}
    assert total == 272


def test_what_exceeds_a_column_stays_in_global_memory() -> None:
    offsets, total = column_layout([("long", STAGED_COLUMN_BYTES // 4, 4), ("b", 1, 4)])
    assert offsets == {"b": 0}
    assert total == 16
