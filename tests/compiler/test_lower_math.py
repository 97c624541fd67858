"""Every math operation: accuracy against extended precision, special values, and no call of a library anywhere."""

import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import math_harness as harness

from pylazy.compiler.codegen.native_object import emit_object
from pylazy.compiler.mlir import ir, new_context
from pylazy.compiler.passes.lower_math import lower_math
from pylazy.compiler.target import CPU_LEVELS, CpuTarget, NvidiaTarget
from pylazy.runtime.errors import UnsupportedError

Array = npt.NDArray[Any]
LEVELS = harness.levels_of_this_machine()
DTYPES = ("float32", "float64")
INFINITY, NAN = float("inf"), float("nan")
LIMIT_ULP = 2.0
ROUNDINGS = ("floor", "ceil", "trunc", "round", "roundeven", "copysign")


def _reference_round(x: Array) -> Array:
    return np.copysign(np.where(np.abs(x) < 2.0**60, np.floor(np.abs(x) + np.longdouble(0.5)), np.abs(x)), x)


NUMPY_NAME: Mapping[str, Callable[..., Array]] = {
    "powf": np.power,
    "atan2": np.arctan2,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "roundeven": np.rint,
    "round": _reference_round,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
WITH_REFERENCE = [name for name in (*harness.UNARY, *harness.BINARY) if name not in {"erf", "erfc"}]


def _has_extended_precision() -> bool:
    return np.finfo(np.longdouble).nmant >= 63


def _inputs(dtype: str, count: int, seed: int) -> Array:
    """Return random bit patterns, numbers of moderate size, numbers near 1, the range of exp, and special values."""
    generator = np.random.default_rng(seed)
    info = np.finfo(dtype)
    unsigned = np.uint32 if dtype == "float32" else np.uint64
    edge = 110.0 if dtype == "float32" else 760.0
    special = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, INFINITY, -INFINITY, NAN, info.tiny, -info.tiny]
    special += [info.smallest_subnormal, -info.smallest_subnormal, info.max, -info.max, info.tiny * 0.3, 1.5, -1.5]
    return np.concatenate(
        [
            generator.integers(0, np.iinfo(unsigned).max, count, dtype=unsigned).view(dtype),
            generator.uniform(-edge, edge, count).astype(dtype),
            generator.uniform(-2, 2, count).astype(dtype),
            (1 + generator.standard_normal(count) * 10.0 ** generator.uniform(-6, -1, count)).astype(dtype),
            np.array(special, dtype),
        ]
    )


def _error_in_ulp(result: Array, exact: Array) -> Array:
    """Return the distance in units of the last place of the exact value; inf where one is special and not the other."""
    dtype = result.dtype
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype)
        ulp = np.maximum(
            np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1)).astype(dtype)), info.smallest_subnormal
        )
        error = np.abs(result.astype(exact.dtype) - exact) / ulp.astype(exact.dtype)
    same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    return np.where(np.isfinite(error), error, np.where(same, 0.0, np.inf))


def _worst(name: str, arguments: list[Array], result: Array, exact: Array) -> tuple[float, str]:
    error = _error_in_ulp(result, exact)
    at = int(np.argmax(error))
    values = ", ".join(repr(float(argument[at])) for argument in arguments)
    return float(
        error[at]
    ), f"{name}({values}) = {float(result[at])!r}, exact {exact[at]!r}: {float(error[at]):.3g} ulp"


@pytest.mark.skipif(not _has_extended_precision(), reason="longdouble of this machine is float64: no reference")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_result_is_within_two_ulp(name: str, dtype: str, level: str) -> None:
    lanes = CpuTarget(level).lanes(32 if dtype == "float32" else 64)
    arguments = [_inputs(dtype, 3000, seed) for seed in range(2 if name in harness.BINARY else 1)]
    if name in harness.BINARY:
        arguments[1] = np.random.default_rng(2).permutation(arguments[1])
    result = harness.compile_function(name, dtype=dtype, level=level, lanes=lanes)(*arguments)
    with np.errstate(all="ignore"):
        exact = NUMPY_NAME.get(name, getattr(np, name, None))(*(a.astype(np.longdouble) for a in arguments))
    error, message = _worst(name, arguments, result, exact)
    assert error <= (0.0 if name in ROUNDINGS else LIMIT_ULP), message


@pytest.mark.skipif(not _has_extended_precision(), reason="longdouble of this machine is float64: no reference")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("registers", [0, 1, 2, 8])
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        *(("exp", argument) for argument in ("x", "-|x|", "x * x", "80 - x * x")),
        *(("rsqrt", argument) for argument in ("x", "x * x", "1 + x * x")),
    ],
)
def test_what_is_known_of_an_argument_costs_no_accuracy(
    name: str, argument: str, registers: int, dtype: str, level: str
) -> None:
    lanes = registers * CpuTarget(level).lanes(32 if dtype == "float32" else 64) or None
    x = _inputs(dtype, 3000, 7)
    apply = harness.compile_function(name, dtype=dtype, level=level, lanes=lanes, argument=argument)
    with np.errstate(all="ignore"):
        square = x * x
        exact_argument = {
            "x": x, "-|x|": -np.abs(x), "x * x": square, "1 + x * x": 1 + square, "80 - x * x": 80 - square
        }[argument]  # fmt: skip
        exact = NUMPY_NAME.get(name, getattr(np, name, None))(exact_argument.astype(np.longdouble))
    error, message = _worst(name, [exact_argument], apply(x), exact)
    assert error <= LIMIT_ULP, message


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lanes", [None, 3])
@pytest.mark.parametrize("name", ["exp", "log", "sin", "powf"])
def test_every_number_of_lanes_has_a_lowering(name: str, lanes: int | None, dtype: str, level: str) -> None:
    x = np.linspace(0.1, 9.0, 41).astype(dtype)
    arguments = [x, x[::-1].copy()] if name == "powf" else [x]
    result = harness.compile_function(name, dtype=dtype, level=level, lanes=lanes)(*arguments)
    exact = NUMPY_NAME.get(name, getattr(np, name, None))(*(a.astype(np.longdouble) for a in arguments))
    error, message = _worst(name, arguments, result, exact)
    assert error <= 3.0, message


# Values of erf and erfc to 20 digits (mpmath 1.3).
ERF_VALUES = {
    1e-10: (1.128379167095512615e-10, 0.99999999988716208329),
    0.3: (0.32862675945912741619, 0.67137324054087258381),
    0.8125: (0.74946402558636206761, 0.25053597441363793239),
    0.95: (0.82089080727327792159, 0.17910919272672207841),
    1.5: (0.96610514647531072707, 0.033894853524689272933),
    -2.0: (-0.99532226501895273416, 1.9953222650189527342),
    5.0: (0.99999999999846254021, 1.5374597944280348502e-12),
    26.0: (1.0, 5.6631924088561428465e-296),
}


@pytest.mark.parametrize("level", LEVELS)
def test_error_functions_agree_with_tables(level: str) -> None:
    x = np.array(list(ERF_VALUES))
    for column, (name, limit) in enumerate((("erf", 2.0), ("erfc", 4.0))):
        result = harness.compile_function(name, dtype="float64", level=level, lanes=2)(x)
        exact = np.array([values[column] for values in ERF_VALUES.values()])
        error, message = _worst(name, [x], result, exact)
        assert error <= limit, message


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["erf", "erfc"])
def test_error_functions_of_f32_are_within_two_ulp(name: str, level: str) -> None:
    near = np.random.default_rng(1).uniform(-11, 11, 5000).astype(np.float32)
    x = np.concatenate([_inputs("float32", 3000, 0), near])
    result = harness.compile_function(name, dtype="float32", level=level, lanes=CpuTarget(level).lanes(32))(x)
    exact = np.array([getattr(math, name)(float(value)) for value in x])
    error, message = _worst(name, [x], result, exact)
    assert error <= LIMIT_ULP, message


@pytest.mark.parametrize("level", LEVELS)
def test_the_tangent_of_f32_is_right_near_its_zeros_and_poles(level: str) -> None:
    multiples = np.arange(1, 20000) * (np.pi / 2)
    x = multiples.astype(np.float32)
    x = np.concatenate([np.nextafter(x, np.float32(0)), x, -x, x * np.float32(1.7)])
    result = harness.compile_function("tan", dtype="float32", level=level, lanes=CpuTarget(level).lanes(32))(x)
    error, message = _worst("tan", [x], result, np.tan(x.astype(np.float64)))
    assert error <= LIMIT_ULP, message


SPECIAL_VALUES = [
    ("exp", (-INFINITY,), 0.0),
    ("exp", (INFINITY,), INFINITY),
    ("exp", (-1e30,), 0.0),
    ("exp", (1e30,), INFINITY),
    ("exp", (NAN,), NAN),
    ("log", (0.0,), -INFINITY),
    ("log", (-0.0,), -INFINITY),
    ("log", (-1.0,), NAN),
    ("log", (INFINITY,), INFINITY),
    ("rsqrt", (0.0,), INFINITY),
    ("rsqrt", (INFINITY,), 0.0),
    ("tanh", (-0.0,), -0.0),
    ("sin", (-0.0,), -0.0),
    ("sin", (INFINITY,), NAN),
    ("round", (-0.4,), -0.0),
    ("floor", (-0.0,), -0.0),
    ("expm1", (-0.0,), -0.0),
    ("log1p", (-1.0,), -INFINITY),
    ("log1p", (-0.0,), -0.0),
    ("log1p", (INFINITY,), INFINITY),
    ("log1p", (-2.0,), NAN),
    ("sinh", (-0.0,), -0.0),
    ("sinh", (-INFINITY,), -INFINITY),
    ("sinh", (NAN,), NAN),
    ("cosh", (-INFINITY,), INFINITY),
    ("cosh", (0.0,), 1.0),
    ("tan", (-0.0,), -0.0),
    ("tan", (INFINITY,), NAN),
    ("asin", (-0.0,), -0.0),
    ("asin", (1.5,), NAN),
    ("acos", (1.0,), 0.0),
    ("acos", (-INFINITY,), NAN),
    ("atan", (-0.0,), -0.0),
    ("cbrt", (-0.0,), -0.0),
    ("cbrt", (-INFINITY,), -INFINITY),
    ("cbrt", (-27.0,), -3.0),
    ("erf", (-INFINITY,), -1.0),
    ("erf", (-0.0,), -0.0),
    ("erf", (NAN,), NAN),
    ("erfc", (-INFINITY,), 2.0),
    ("erfc", (INFINITY,), 0.0),
    ("erfc", (-0.0,), 1.0),
    ("erfc", (NAN,), NAN),
    ("powf", (0.0, -3.0), INFINITY),
    ("powf", (-0.0, -3.0), -INFINITY),
    ("powf", (-0.0, 3.0), -0.0),
    ("powf", (NAN, 0.0), 1.0),
    ("powf", (1.0, NAN), 1.0),
    ("powf", (-1.0, INFINITY), 1.0),
    ("powf", (-8.0, 1.0 / 3.0), NAN),
    ("powf", (-INFINITY, 3.0), -INFINITY),
    ("powf", (-INFINITY, 0.5), INFINITY),
    ("powf", (0.5, -INFINITY), INFINITY),
    ("atan2", (0.0, -0.0), np.pi),
    ("atan2", (-0.0, 1.0), -0.0),
    ("atan2", (INFINITY, -INFINITY), 3 * np.pi / 4),
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "arguments", "expected"), SPECIAL_VALUES)
def test_special_value(name: str, arguments: tuple[float, ...], expected: float, dtype: str, level: str) -> None:
    lanes = CpuTarget(level).lanes(32 if dtype == "float32" else 64)
    function = harness.compile_function(name, dtype=dtype, level=level, lanes=lanes)
    result = function(*(np.array([argument], dtype) for argument in arguments))[0]
    exact = np.array(expected, dtype)[()]
    assert (np.isnan(result) and np.isnan(exact)) or (result == exact and np.signbit(result) == np.signbit(exact))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", CPU_LEVELS)
def test_objects_need_no_library(level: str, dtype: str) -> None:
    target = CpuTarget(level)
    full = target.lanes(32 if dtype == "float32" else 64)
    for name in (*harness.UNARY, *harness.BINARY):
        for lanes in (None, full):
            text = harness.to_llvm_text(harness.kernel_text(name, dtype=dtype, lanes=lanes), target=target)
            assert harness.undefined_symbols(emit_object(text, target=target)) == [], (name, lanes)


def test_nvptx_lowers_every_operation() -> None:
    # In a process of its own: LLVM's NVPTX back end ends the process at what it cannot lower.
    program = (
        "import math_harness as h\n"
        "import llvmlite.binding as b\n"
        "target = h.NvidiaTarget('sm_90')\n"
        "machine = h.target_machine(target)\n"
        "for name in (*h.UNARY, *h.BINARY):\n"
        "    for dtype in ('float32', 'float64'):\n"
        "        text = h.to_llvm_text(h.kernel_text(name, dtype=dtype, lanes=None), target=target)\n"
        "        module = b.parse_assembly(text)\n"
        "        module.triple = target.triple\n"
        "        module.data_layout = str(machine.target_data)\n"
        "        ptx = machine.emit_assembly(module)\n"
        "        assert '.extern' not in ptx and 'call' not in ptx, (name, dtype)\n"
        "print('lowered')\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    preamble = f"import sys; sys.path[:0] = {folders!r}\n"
    done = subprocess.run([sys.executable, "-c", preamble + program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "lowered", done.stderr[-2000:]


def test_a_constant_is_made_once_for_a_function() -> None:
    body = "\n".join(f"%{k} = math.exp %x : vector<8xf32>" for k in range(20))
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(f"func.func @f(%x: vector<8xf32>) {{ {body}\n return }}")
        lower_math(module, target=CpuTarget("x86-64-v3"))
        constants = [line for line in str(module).splitlines() if "arith.constant" in line]
    assert len(constants) == len({line.split("=")[1] for line in constants})


def test_lowering_two_hundred_operations_is_quick() -> None:
    body = "\n".join(f"%{k} = math.exp %x : vector<16xf32>" for k in range(200))
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(f"func.func @f(%x: vector<16xf32>) {{ {body}\n return }}")
        start = time.thread_time()
        lower_math(module, target=CpuTarget("x86-64-v4"))
        seconds = time.thread_time() - start
    assert seconds < 0.1  # about 0.015 on an idle machine


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        ("%r = math.exp %x : f16", "math.exp on f16"),
        ("%r = math.acosh %y : f32", "math.acosh on f32"),
        ("%n = arith.constant 65 : i32\n%r = math.fpowi %y, %n : f32, i32", "exponent"),
    ],
)
def test_an_operation_without_lowering_is_named(operation: str, named: str) -> None:
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(f"func.func @f(%x: f16, %y: f32) {{ {operation}\n return }}")
        for target in (CpuTarget("x86-64"), NvidiaTarget("sm_90")):
            with pytest.raises(UnsupportedError, match=named):
                lower_math(module, target=target)
