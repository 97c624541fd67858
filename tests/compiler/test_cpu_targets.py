"""One corpus of formulas on every CPU level: compiled for all, run where this processor (or an emulator) can."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import aarch64_emulator
import numpy as np
import pytest
from cpu_formulas import (
    EXACT,
    EXPONENTIALS,
    FORMULAS,
    LEAST_COLUMNS,
    SELECTIONS,
    SPECIAL,
    SUMS,
    Variables,
    expected,
    inputs_of,
    traced,
)

from pylazy.compiler.compile import compilation, compile_cpu
from pylazy.compiler.dialects.reduction.formula_ops import (
    FORMULA_OPS,
    K_REDUCTIONS,
    REDUCTIONS,
    WEIGHTED_REDUCTIONS,
    emit_formula_op,
    emit_reduce,
    emit_var,
)
from pylazy.compiler.mlir import func, ir
from pylazy.compiler.target import CPU_LEVELS
from pylazy.runtime.kernel import KernelImage
from pylazy.runtime.launch import Program, is_runnable
from pylazy.trace import Traced
from reference import OPERATIONS, assert_close, reduce_dense

DTYPES = (np.float32, np.float64)
HERE = tuple(level for level in CPU_LEVELS if is_runnable(level))
#: float64 where it runs, and on one level that is emulated: what it changes is the number of lanes.
CASES = (*((np.float32, level) for level in CPU_LEVELS), *((np.float64, level) for level in (HERE[-1], "aarch64")))
GUARD_ROWS = 3
#: One of each family, where a test runs with many sizes or slowly.
FEW_FORMULAS = ("gaussian_d3", "gaussian_d64", "gaussian_d3_e64", "logsumexp_weights", "max_argmax", "kmin_3")
#: Sizes for programs for few columns: fewer rows than a tile, several tiles, none full; no column, and too many.
FEW_COLUMNS = ((1, 1), (3, 2), (97, 0), (97, 3), (131, 50))

Array = Any  # an ndarray


@functools.cache
def compiled(name: str, dtype: Any, level: str, few_rows: str = "") -> KernelImage:
    return compile_cpu(traced(FORMULAS[name](Variables(5, 50, dtype)), few_rows=few_rows), level)


@functools.cache
def program_of(name: str, dtype: Any, level: str, few_rows: str = "") -> Program:
    return Program(compiled(name, dtype, level, few_rows))


def run(program: Program, inputs: Sequence[Array], m: int, n: int) -> list[Array]:
    """Run a program on arrays; nothing before or after the outputs may change."""
    arrays, outputs = [*inputs], []
    for buffer in program.image.buffers:
        if buffer.role == "output":
            rows = {"i": m, "j": n, "": 1}[buffer.axis]
            guarded = np.full((rows + 2 * GUARD_ROWS, buffer.dim), 77, buffer.dtype)
            outputs.append(guarded)
            arrays.append(guarded[GUARD_ROWS:])
    program.run([array.ctypes.data for array in arrays], m, n)
    for guarded in outputs:
        assert (guarded[:GUARD_ROWS] == 77).all()
        assert (guarded[len(guarded) - GUARD_ROWS :] == 77).all()
    return [guarded[GUARD_ROWS : len(guarded) - GUARD_ROWS] for guarded in outputs]


def check(name: str, found: Sequence[Array], reduction: Any, *, dtype: Any, columns: int) -> None:
    for result, dense in zip(found, expected(reduction), strict=True):
        if name in EXACT:
            np.testing.assert_array_equal(result, dense)
        else:
            assert_close(result, dense, dtype=dtype, columns=columns)


def check_run(name: str, dtype: Any, level: str, m: int, n: int, few_rows: str = "") -> None:
    reduction = FORMULAS[name](Variables(m, n, dtype))
    found = run(program_of(name, dtype, level, few_rows), inputs_of(reduction), m, n)
    check(name, found, reduction, dtype=dtype, columns=n)


def reduced_first(name: str, rows: int, columns: int) -> tuple[int, int]:
    """Give the extents of i and j for rows and columns of the reduction."""
    return (columns, rows) if name.endswith("over_i") else (rows, columns)


def rows_per_tile(image: KernelImage) -> int:
    return max(phase.rows_per_tile for phase in image.phases)


def columns_that_are_split(program: Program, name: str, rows: int) -> int:
    """Find how many columns the runtime cuts in splits of which none is short, so that ties fall in several."""
    phase = next(k for k, phase in enumerate(program.image.phases) if phase.splittable)
    for columns in (1500, 3500, 7000, 12_000, 20_000):
        if program.geometry(phase, *reduced_first(name, rows, columns)).splits > 1:
            return columns
    raise AssertionError("no number of columns is split")


# Compiled for all


@pytest.mark.parametrize(("dtype", "level"), CASES)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula_compiles_for_every_level(name: str, dtype: Any, level: str) -> None:
    image = compiled(name, dtype, level)  # an undefined function or a relocation that is left would be an error
    assert image.target == level
    assert {"mlir", "llvm"} <= set(image.provenance)
    assert all(0 <= phase.entry < len(image.code) for phase in image.phases)
    assert [phase.merges for phase in image.phases].count(True) == [p.splittable for p in image.phases].count(True)
    assert KernelImage.from_bytes(image.to_bytes()) == image


@pytest.mark.parametrize("level", CPU_LEVELS)
@pytest.mark.parametrize("name", FEW_FORMULAS)
def test_formula_on_few_rows_compiles_for_every_level(name: str, level: str) -> None:
    reduction, merge = compiled(name, np.float32, level, "i").phases[-2:]
    assert merge.merges
    # Lists have a row for themselves. Where results are too long for registers, so that each row keeps many, and
    # columns too long for shuffles, rows stay in lanes.
    lanes = rows_per_tile(compiled("kmin_40", np.float32, level))
    assert reduction.rows_per_tile == {"kmin_3": 1, "gaussian_d3_e64": lanes}.get(name, 32)


# Run where it can be


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*SUMS, *EXPONENTIALS, *SELECTIONS])
def test_results_on_ragged_sizes_match_oracle(name: str, dtype: Any, level: str) -> None:
    tile = rows_per_tile(compiled(name, dtype, level))
    for rows in (1, tile - 1, tile + 1):
        for columns in (0, 1, 8, 9, 1027):
            if columns >= LEAST_COLUMNS.get(name, 0) and (rows == 1 or columns < 1000 or "1000" not in name):
                check_run(name, dtype, level, *reduced_first(name, rows, columns))


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*SUMS, *EXPONENTIALS, *SELECTIONS])
def test_results_of_splits_match_oracle(name: str, dtype: Any, level: str) -> None:
    columns = columns_that_are_split(program_of(name, dtype, level), name, rows=2)
    check_run(name, dtype, level, *reduced_first(name, 2, columns))


@pytest.mark.parametrize("level", HERE)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECIAL)
def test_nan_and_infinities_match_oracle(name: str, dtype: Any, level: str) -> None:
    program = program_of(name, dtype, level)
    for columns in (1, 5, 8, 9, 31, 1027, columns_that_are_split(program, name, rows=9)):
        if columns >= LEAST_COLUMNS.get(name, 0):
            check_run(name, dtype, level, 9, columns)


@pytest.mark.parametrize(("dtype", "level"), [case for case in CASES if case[1] in HERE])
@pytest.mark.parametrize("name", [name for name in FORMULAS if not name.endswith("over_i")])
def test_results_on_few_rows_match_oracle(name: str, dtype: Any, level: str) -> None:
    program = program_of(name, dtype, level, "i")
    split = columns_that_are_split(program, name, 1)
    for rows, columns in ((1, 1), (2, 7), (1, 33), (3, 64), (1, 1027), (1, split), (35, 70), (5, 1027), (2, split)):
        if columns >= LEAST_COLUMNS.get(name, 0):
            check_run(name, dtype, level, rows, columns, "i")


@pytest.mark.parametrize(("dtype", "level"), [case for case in CASES if case[1] in HERE])
@pytest.mark.parametrize("name", [name for name in FORMULAS if not name.endswith("over_i")])
def test_results_on_few_columns_match_oracle(name: str, dtype: Any, level: str) -> None:
    for rows, columns in FEW_COLUMNS:
        if columns >= LEAST_COLUMNS.get(name, 0):
            check_run(name, dtype, level, rows, columns, "j")


# Every operation and every kind of reduction, in modules made by hand

#: The last one is a vector that the second derivative of soft-DTW by the other three is multiplied with.
DIMS = (("i", 3), ("j", 3), ("j", 1), ("i", 7))
#: The contraction is the product of all components with all components, transposed.
ATTRIBUTES = {
    "exponent": 3, "start": 1, "size": 2, "sizes": (3, 3), "left": (0,), "right": (1,), "kept": (1, 0),
}  # fmt: skip
K = 2


def build(dtype: Any, emit_results: Callable[[list[ir.Value]], list[ir.Value]]) -> Traced:
    """Build a function of four variables, whose shapes are `DIMS`."""
    with compilation():
        element = ir.F32Type.get() if dtype is np.float32 else ir.F64Type.get()
        module = ir.Module.create()
        dynamic = ir.ShapedType.get_dynamic_size()
        types = [ir.RankedTensorType.get([dynamic, dim], element) for _, dim in DIMS]
        with ir.InsertionPoint(module.body):
            function = func.FuncOp("formula", (types, []))
        block = function.add_entry_block()
        with ir.InsertionPoint(block):
            views = [emit_var(tensor, axis) for tensor, (axis, _) in zip(block.arguments, DIMS, strict=True)]
            results = emit_results(views)
            func.ReturnOp(results)
        function_type = ir.FunctionType.get(types, [result.type for result in results])
        function.attributes["function_type"] = ir.TypeAttr.get(function_type)
        module.operation.verify()
    return Traced(module)


def emit_every_operation(views: list[ir.Value]) -> list[ir.Value]:
    """Build the sum over j of each formula operation."""
    formulas = [emit_formula_op(name, *operands_of(name, views), **attributes_of(name)) for name in OPERATIONS]
    return [emit_reduce(formula, kind="sum", axis="j") for formula in formulas]


def operands_of(name: str, views: Sequence[Any]) -> Sequence[Any]:
    """Choose as many operands as the op takes; what repeats a component is given one that is single."""
    return views[2:3] if FORMULA_OPS[name].result == "broadcast" else views[: FORMULA_OPS[name].arity]


def attributes_of(name: str) -> dict[str, Any]:
    return {key: ATTRIBUTES[key] for key in FORMULA_OPS[name].attributes}


def emit_every_reduction(views: list[ir.Value]) -> list[ir.Value]:
    """Build each reduction over each axis: of x - y, and of |x - y|^2 with the weights y where it takes weights."""
    difference, distance = emit_formula_op("sub", *views[:2]), emit_formula_op("sqdist", *views[:2])
    return [
        emit_reduce(
            distance if kind in WEIGHTED_REDUCTIONS else difference,
            kind=kind,
            axis=axis,
            weight=views[1] if kind in WEIGHTED_REDUCTIONS else None,
            k=K if kind in K_REDUCTIONS else 0,
        )
        for kind in sorted(REDUCTIONS)
        for axis in "ij"
    ]


@functools.cache
def compiled_operations(dtype: Any, level: str) -> KernelImage:
    return compile_cpu(build(dtype, emit_every_operation), level)


@functools.cache
def compiled_reductions(dtype: Any, level: str) -> KernelImage:
    return compile_cpu(build(dtype, emit_every_reduction), level)


def operands(dtype: Any, m: int, n: int) -> list[Array]:
    """Make numbers for which every operation is defined."""
    generator = np.random.default_rng(3)
    return [generator.uniform(0.25, 0.9, ({"i": m, "j": n}[axis], dim)).astype(dtype) for axis, dim in DIMS]


def dense_views(arrays: Sequence[Array]) -> list[Array]:
    views = zip((array.astype(np.float64) for array in arrays), DIMS, strict=True)
    return [array[:, None] if axis == "i" else array[None] for array, (axis, _) in views]


def check_operations(found: Sequence[Array], arrays: Sequence[Array], *, dtype: Any) -> None:
    dense, columns = dense_views(arrays), len(arrays[1])
    for name, result in zip(OPERATIONS, found, strict=True):
        value = OPERATIONS[name](*operands_of(name, dense), **attributes_of(name))
        terms = np.broadcast_to(value, (len(arrays[0]), columns, value.shape[-1]))
        assert_close(result, terms.sum(1), dtype=dtype, columns=columns, scale=float(columns))


def check_reductions(found: Sequence[Array], arrays: Sequence[Array], *, dtype: Any) -> None:
    x, y, *_ = dense_views(arrays)
    results = iter(found)
    for kind in sorted(REDUCTIONS):
        of = [((x - y) ** 2).sum(-1, keepdims=True), y] if kind in WEIGHTED_REDUCTIONS else [x - y]
        for axis in "ij":
            expected_rows = reduce_dense(kind, of, axis=axis, k=K if kind in K_REDUCTIONS else 0)
            result = next(results)
            expected_rows = expected_rows.reshape(result.shape)
            assert_close(result, expected_rows, dtype=dtype, columns=20, scale=10.0)


@pytest.mark.parametrize(("dtype", "level"), CASES)
def test_every_operation_compiles_for_every_level(dtype: Any, level: str) -> None:
    outputs = [buffer for buffer in compiled_operations(dtype, level).buffers if buffer.role == "output"]
    assert len(outputs) == len(OPERATIONS)


@pytest.mark.parametrize(("dtype", "level"), CASES)
def test_every_reduction_compiles_for_every_level(dtype: Any, level: str) -> None:
    phases = [(phase.rows, phase.columns, phase.merges) for phase in compiled_reductions(dtype, level).phases]
    # All reductions over one axis are fused.
    assert phases == [("j", "i", False), ("j", "i", True), ("i", "j", False), ("i", "j", True)]


@pytest.mark.parametrize(("dtype", "level"), [case for case in CASES if case[1] in HERE])
def test_every_operation_matches_oracle(dtype: Any, level: str) -> None:
    arrays = operands(dtype, 9, 13)
    check_operations(run(Program(compiled_operations(dtype, level)), arrays, 9, 13), arrays, dtype=dtype)


@pytest.mark.parametrize(("dtype", "level"), [case for case in CASES if case[1] in HERE])
def test_every_reduction_matches_oracle(dtype: Any, level: str) -> None:
    arrays = operands(dtype, 9, 13)
    check_reductions(run(Program(compiled_reductions(dtype, level)), arrays, 9, 13), arrays, dtype=dtype)


# aarch64, under an emulator


@pytest.fixture(scope="module")
def emulator() -> str:
    found = aarch64_emulator.find_emulator()
    if found is None:
        pytest.skip("qemu-aarch64-static is not installed")
    return found


def emulated(image: KernelImage, inputs: Sequence[Array], m: int, n: int, per_split: int, emulator: str) -> list[Array]:
    return aarch64_emulator.run(image, inputs, m=m, n=n, columns_per_split=per_split, emulator=emulator)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_results_on_an_emulated_aarch64_match_oracle(name: str, dtype: Any, emulator: str) -> None:
    m, n = reduced_first(name, 9, 101)
    for per_split in (101, 34):
        reduction = FORMULAS[name](Variables(m, n, dtype))
        found = emulated(compiled(name, dtype, "aarch64"), inputs_of(reduction), m, n, per_split, emulator)
        check(name, found, reduction, dtype=dtype, columns=101)


@pytest.mark.parametrize("name", FEW_FORMULAS)
def test_results_on_few_rows_and_columns_of_an_emulated_aarch64_match_oracle(name: str, emulator: str) -> None:
    reduction = FORMULAS[name](Variables(2, 101, np.float32))
    found = emulated(compiled(name, np.float32, "aarch64", "i"), inputs_of(reduction), 2, 101, 51, emulator)
    check(name, found, reduction, dtype=np.float32, columns=101)
    reduction = FORMULAS[name](Variables(101, 5, np.float32))
    found = emulated(compiled(name, np.float32, "aarch64", "j"), inputs_of(reduction), 101, 5, 5, emulator)
    check(name, found, reduction, dtype=np.float32, columns=5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_on_an_emulated_aarch64_matches_oracle(dtype: Any, emulator: str) -> None:
    arrays = operands(dtype, 9, 13)
    found = emulated(compiled_operations(dtype, "aarch64"), arrays, 9, 13, 13, emulator)
    check_operations(found, arrays, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_reduction_on_an_emulated_aarch64_matches_oracle(dtype: Any, emulator: str) -> None:
    arrays = operands(dtype, 9, 13)
    found = emulated(compiled_reductions(dtype, "aarch64"), arrays, 9, 13, 13, emulator)
    check_reductions(found, arrays, dtype=dtype)
