"""Kernels for AVX-512 on any x86-64 processor: their intrinsics emulated, their results compared with the oracle."""

import functools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import avx512_emulation as emulation
import numpy as np
import numpy.typing as npt
import pytest
import test_cpu_targets as cpu
import test_lower_math as accuracy
from cpu_formulas import FORMULAS, LEAST_COLUMNS, SPECIAL, Variables, inputs_of, request_of, traced

from pylazy.reductions import gradient_request
from pylazy.runtime.launch import Program
from pylazy.trace import trace

pytestmark = pytest.mark.skipif(not emulation.can_emulate(), reason="AVX-512 is emulated with AVX2")

Array = npt.NDArray[Any]
DTYPES = ("float32", "float64")
LANES = {"float32": (16, 8, 4), "float64": (8, 4, 2)}
INFINITY, NAN = float("inf"), float("nan")


def dtype_of(name: str) -> Any:
    return np.dtype(name).type


# The emulation itself, against the tables of Intel's manual


def call_emulated(name: str, operands: list[float], *, immediate: int | None = None, dtype: str) -> float:
    """Call one intrinsic on the same number in every lane; give what is in the first."""
    lanes, element = LANES[dtype][0], "float" if dtype == "float32" else "double"
    vector, suffix = f"<{lanes} x {element}>", f"{name}.p{element[0].replace('f', 's')}.512"
    words = [struct.unpack("<Q", struct.pack("<d", dtype_of(dtype)(value)))[0] for value in operands]
    numbers = [f"splat ({element} 0x{word:016X})" for word in words]
    arguments = [f"{vector} {value}" for value in numbers]
    if immediate is not None:
        arguments.append(f"i32 {immediate}")
    arguments += [f"{vector} {numbers[0]}", f"i{lanes} -1"] + ([] if name == "rsqrt14" else ["i32 4"])
    types = ", ".join(vector if argument.startswith("<") else argument.split()[0] for argument in arguments)
    called = f"llvm.x86.avx512.{'' if name == 'rsqrt14' else 'mask.'}{suffix}"
    text = (
        f"define void @kernel(ptr %a, ptr %b, ptr %out, i64 %n) {{\n"
        f"  %r = call {vector} @{called}({', '.join(arguments)})\n"
        f"  store {vector} %r, ptr %out, align 4\n  ret void\n}}\n"
        f"declare {vector} @{called}({types})\n"
    )
    return float(emulation.call_text(text, dtype=dtype, lanes=lanes)[0])


TABLES = [
    ("scalef", [1.5, 3.9], None, 12.0),
    ("scalef", [1.5, -1.1], None, 0.375),
    ("scalef", [NAN, INFINITY], None, INFINITY),
    ("scalef", [NAN, -INFINITY], None, 0.0),
    ("scalef", [1.0, NAN], None, NAN),
    ("scalef", [0.0, INFINITY], None, NAN),
    ("scalef", [INFINITY, -INFINITY], None, NAN),
    ("scalef", [-1.0, INFINITY], None, -INFINITY),
    ("scalef", [1.0, 1e30], None, INFINITY),
    ("scalef", [1.0, -1e30], None, 0.0),
    ("rndscale", [2.5], 0, 2.0),
    ("rndscale", [0.40625], 4 << 4, 0.375),
    ("rndscale", [-0.3], 0, -0.0),
    ("rndscale", [-INFINITY], 4 << 4, -INFINITY),
    ("rndscale", [NAN], 0, NAN),
    ("range", [-3.0, 1.0], 2, -1.0),
    ("range", [0.5, 1.0], 2, 0.5),
    ("range", [INFINITY, 1.0], 2, 1.0),
    ("range", [NAN, 1.0], 2, 1.0),
    ("getexp", [0.0], None, -INFINITY),
    ("getexp", [-INFINITY], None, INFINITY),
    ("getexp", [-6.0], None, 2.0),
    ("getexp", [2.0**-140], None, -140.0),
    ("getexp", [NAN], None, NAN),
    ("getmant", [12.0], 11, 0.75),
    ("getmant", [11.0], 11, 1.375),
    ("getmant", [0.0], 11, 1.0),
    ("getmant", [INFINITY], 11, 1.0),
    ("getmant", [-INFINITY], 11, NAN),
    ("getmant", [-2.0], 11, NAN),
    ("getmant", [3 * 2.0**-148], 11, 0.75),
    ("rsqrt14", [0.0], None, INFINITY),
    ("rsqrt14", [-0.0], None, -INFINITY),
    ("rsqrt14", [INFINITY], None, 0.0),
    ("rsqrt14", [-1.0], None, NAN),
    ("rsqrt14", [NAN], None, NAN),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "operands", "immediate", "expected"), TABLES)
def test_emulated_instruction_agrees_with_manual(
    name: str, operands: list[float], immediate: int | None, expected: float, dtype: str
) -> None:
    result = call_emulated(name, operands, immediate=immediate, dtype=dtype)
    np.testing.assert_equal(result, expected)
    assert np.isnan(expected) or np.signbit(result) == np.signbit(expected)


@pytest.mark.parametrize(("exponent", "dtype"), [(-140.0, "float32"), (-1060.0, "float64"), (-1074.0, "float64")])
def test_emulated_scaling_rounds_subnormal_results_once(exponent: float, dtype: str) -> None:
    mantissa = float(dtype_of(dtype)(1.9999998))
    exact = np.ldexp(np.longdouble(mantissa), int(exponent)).astype(dtype)
    assert call_emulated("scalef", [mantissa, exponent], dtype=dtype) == exact


def test_emulation_refuses_what_it_does_not_define() -> None:
    call = "%r = call <8 x double> @llvm.x86.avx512.rsqrt14.pd.512(<8 x double> %x, <8 x double> %x, i8 3)"
    with pytest.raises(AssertionError, match="i8 3"):
        emulation.emulate(call)


# Functions


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="longdouble of this machine is float64: no reference")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", accuracy.WITH_REFERENCE)
def test_function_is_within_two_ulp(name: str, dtype: str) -> None:
    arguments = [accuracy._inputs(dtype, 2000, seed) for seed in range(2 if name in accuracy.harness.BINARY else 1)]
    if len(arguments) == 2:
        arguments[1] = np.random.default_rng(2).permutation(arguments[1])
    with np.errstate(all="ignore"):
        reference = accuracy.NUMPY_NAME.get(name, getattr(np, name, None))
        exact = reference(*(a.astype(np.longdouble) for a in arguments))
    uses_registers = name in {"exp", "exp2", "log", "log2", "rsqrt", "sqrt"}
    for lanes in LANES[dtype][: 3 if uses_registers else 1]:
        result = emulation.emulated_function(name, dtype=dtype, lanes=lanes)(*arguments)
        error, message = accuracy._worst(name, arguments, result, exact)
        assert error <= (0.0 if name in accuracy.ROUNDINGS else accuracy.LIMIT_ULP), message


ROOTS = [
    ("sqrt", (0.0,), 0.0),
    ("sqrt", (-0.0,), -0.0),
    ("sqrt", (INFINITY,), INFINITY),
    ("sqrt", (-INFINITY,), NAN),
    ("sqrt", (-1.0,), NAN),
    ("sqrt", (NAN,), NAN),
    ("rsqrt", (-0.0,), -INFINITY),
    ("rsqrt", (-INFINITY,), NAN),
    ("rsqrt", (-1.0,), NAN),
    ("rsqrt", (NAN,), NAN),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "arguments", "expected"), accuracy.SPECIAL_VALUES + ROOTS)
def test_special_value(name: str, arguments: tuple[float, ...], expected: float, dtype: str) -> None:
    function = emulation.emulated_function(name, dtype=dtype, lanes=LANES[dtype][0])
    result = function(*(np.array([argument], dtype) for argument in arguments))[0]
    exact = np.array(expected, dtype)[()]
    assert (np.isnan(result) and np.isnan(exact)) or (result == exact and np.signbit(result) == np.signbit(exact))


@pytest.mark.parametrize("dtype", DTYPES)
def test_roots_of_squares_are_exact(dtype: str) -> None:
    largest = 2 ** (12 if dtype == "float32" else 26)
    numbers = np.unique(np.geomspace(1, largest - 1, 3000).astype(np.int64)).astype(dtype)
    for scale in (1.0, 2.0**-60, 2.0**50):
        found = emulation.emulated_function("sqrt", dtype=dtype, lanes=LANES[dtype][0])(
            (numbers * dtype_of(dtype)(scale)) ** 2
        )
        np.testing.assert_array_equal(found, numbers * dtype_of(dtype)(scale))


@pytest.mark.parametrize("name", ["sqrt", "rsqrt"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_roots_of_subnormal_numbers_are_within_two_ulp(dtype: str, name: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal * np.arange(1, 4000, 7).astype(dtype)
    result = emulation.emulated_function(name, dtype=dtype, lanes=LANES[dtype][0])(tiny)
    exact = np.sqrt(tiny.astype(np.longdouble)) ** (1 if name == "sqrt" else -1)
    error, message = accuracy._worst(name, [tiny], result, exact)
    assert error <= accuracy.LIMIT_ULP, message


# Whole kernels


@functools.cache
def program_of(name: str, dtype: str, few_rows: str = "") -> Program:
    reduction = FORMULAS[name](Variables(5, 50, dtype_of(dtype)))
    return Program(emulation.compile_emulated(traced(reduction, few_rows=few_rows)))


def check_run(name: str, dtype: str, m: int, n: int, few_rows: str = "") -> None:
    scalar = dtype_of(dtype)
    reduction = FORMULAS[name](Variables(m, n, scalar))
    found = cpu.run(program_of(name, dtype, few_rows), inputs_of(reduction), m, n)
    cpu.check(name, found, reduction, dtype=scalar, columns=n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in SPECIAL])
def test_results_on_ragged_sizes_match_oracle(name: str, dtype: str) -> None:
    program = program_of(name, dtype)
    tile = cpu.rows_per_tile(program.image)
    for rows, columns in ((1, 1), (tile - 1, 9), (tile + 1, 0), (tile + 1, 50), (3, 1027)):
        if columns >= LEAST_COLUMNS.get(name, 0) and (columns < 1000 or "1000" not in name):
            check_run(name, dtype, *cpu.reduced_first(name, rows, columns))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECIAL)
def test_nan_and_infinities_match_oracle(name: str, dtype: str) -> None:
    program = program_of(name, dtype)
    for columns in (1, 5, 8, 9, 31, 1027, cpu.columns_that_are_split(program, name, rows=9)):
        if columns >= LEAST_COLUMNS.get(name, 0):
            check_run(name, dtype, 9, columns)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 9, 1027])
def test_logsumexp_of_negated_values_takes_nan_and_infinities(columns: int, dtype: str) -> None:
    v = Variables(9, columns, dtype_of(dtype))
    reduction = (-v.special()).logsumexp(axis=1, call=False)
    program = Program(emulation.compile_emulated(traced(reduction)))
    found = cpu.run(program, inputs_of(reduction), 9, columns)
    cpu.check("special_logsumexp", found, reduction, dtype=dtype_of(dtype), columns=columns)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", cpu.FEW_FORMULAS)
def test_results_of_splits_match_oracle(name: str, dtype: str) -> None:
    columns = cpu.columns_that_are_split(program_of(name, dtype), name, rows=2)
    check_run(name, dtype, 2, columns)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", cpu.FEW_FORMULAS)
def test_results_on_few_rows_match_oracle(name: str, dtype: str) -> None:
    for rows, columns in ((1, 1), (2, 7), (1, 33), (3, 64), (1, 1027), (35, 70), (2, 1027)):
        if columns >= LEAST_COLUMNS.get(name, 0):
            check_run(name, dtype, rows, columns, "i")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", cpu.FEW_FORMULAS)
def test_results_on_few_columns_match_oracle(name: str, dtype: str) -> None:
    for rows, columns in cpu.FEW_COLUMNS:
        if columns >= LEAST_COLUMNS.get(name, 0):
            check_run(name, dtype, rows, columns, "j")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_matches_oracle(dtype: str) -> None:
    scalar = dtype_of(dtype)
    arrays = cpu.operands(scalar, 9, 13)
    program = Program(emulation.compile_emulated(cpu.build(scalar, cpu.emit_every_operation)))
    cpu.check_operations(cpu.run(program, arrays, 9, 13), arrays, dtype=scalar)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_reduction_matches_oracle(dtype: str) -> None:
    scalar = dtype_of(dtype)
    arrays = cpu.operands(scalar, 9, 13)
    program = Program(emulation.compile_emulated(cpu.build(scalar, cpu.emit_every_reduction)))
    cpu.check_reductions(cpu.run(program, arrays, 9, 13), arrays, dtype=scalar)


# Gradients of sum_j f(|x - y|^2) b in x: sum_j 2 c b f'(|x - y|^2) (x - y), for the cotangent c

GRADIENTS: Mapping[str, tuple[Callable[[Any], Any], Callable[[Array], Array]]] = {
    "gaussian": (lambda d: (-d).exp(), lambda d: -np.exp(-d)),
    "laplacian": (lambda d: (-d.sqrt()).exp(), lambda d: -np.exp(-np.sqrt(d)) / (2 * np.sqrt(d))),
    "multiquadric": (lambda d: (1 + d).rsqrt(), lambda d: -((1 + d) ** -1.5) / 2),
    "logarithm": (lambda d: (1 + d).log(), lambda d: 1 / (1 + d)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [3, 8, 40])
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_matches_dense_formula(name: str, dim: int, dtype: str) -> None:
    rows, columns = 37, 50
    formula, derivative = GRADIENTS[name]
    v = Variables(rows, columns, dtype_of(dtype))
    reduction = (formula(v.x(dim).sqdist(v.y(dim))) * v.weights(1)).sum(axis=1, call=False)
    traced_gradient = trace(gradient_request(request_of(reduction), (0,)))
    cotangent = np.linspace(0.5, 1.5, rows)[:, None].astype(dtype)
    x, y, b = inputs_of(reduction)
    (found,) = cpu.run(Program(emulation.compile_emulated(traced_gradient)), [x, y, b, cotangent], rows, columns)
    difference = x.astype(np.float64)[:, None] - y.astype(np.float64)
    slopes = 2 * cotangent * b[:, 0] * derivative(np.square(difference).sum(-1))
    exact = (slopes[:, :, None] * difference).sum(1)
    cpu.assert_close(found, exact, dtype=dtype_of(dtype), columns=columns, scale=float(np.abs(exact).max()))
