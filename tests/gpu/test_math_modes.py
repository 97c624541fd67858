"""Functions on NVIDIA GPUs keep the bounds of their math mode, also with the errors that the hardware may make."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from gpu_program import GpuProgram
from ptx_arithmetic import COMPUTED

from gpu_formulas import inputs_of, request_of, traced
from pylazy import DtypeError, Genred, LazyTensor, UnsupportedError, Vi, Vj
from pylazy.pytorch.request_reader import read_request
from pylazy.reductions import gradient_request

Array = Any  # an ndarray
MODES: Mapping[str, "bool | None"] = {"accurate": False, "": None, "fast": True}

_erf = np.vectorize(math.erf, otypes=[np.longdouble])
_erfc = np.vectorize(math.erfc, otypes=[np.longdouble])
#: Method of LazyTensor -> the function in extended precision; erf and erfc are those of C, in double precision.
FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log1p": np.log1p,
    "sqrt": np.sqrt, "rsqrt": lambda x: np.where(x == 0, 0, 1 / np.sqrt(x)), "cbrt": np.cbrt, "sin": np.sin,
    "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh,
    "cosh": np.cosh, "tanh": np.tanh, "erf": _erf, "erfc": _erfc,
}  # fmt: skip
OF_TWO: Mapping[str, Callable[[Array, Array], Array]] = {"divide": np.divide, "power": np.power, "atan2": np.arctan2}
_LOGARITHMS = ("log", "log2")
_LIMIT_ULP = 2.0
_FAST_LOGARITHM_ULP = 4.0
_ROOT_ULP = 2.25


def samples(dtype: Any) -> Array:
    """Give random bit patterns, moderate numbers, numbers near 1, ends of ranges, and special values."""
    random = np.random.default_rng(11)
    info, unsigned = np.finfo(dtype), np.dtype(f"u{np.dtype(dtype).itemsize}")
    edge = 110.0 if dtype == np.float32 else 760.0
    special = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.max, -info.max]
    special += [info.smallest_subnormal, -info.smallest_subnormal, info.tiny / 3, edge, -edge, 88.7, -87.4, 127.9, -126]
    with np.errstate(all="ignore"):
        found = np.concatenate(
            [
                random.integers(0, np.iinfo(unsigned).max, 600, dtype=unsigned).view(dtype),
                random.uniform(-edge, edge, 500).astype(dtype),
                random.uniform(-2, 2, 300).astype(dtype),
                (1 + random.standard_normal(300) * 10.0 ** random.uniform(-6, -1, 300)).astype(dtype),
                np.array(special, dtype),
            ]
        )
    return np.where(np.isnan(found), dtype(np.nan), found)  # quiet ones


def results(dtype: Any, mode: str) -> tuple[Array, Array, dict[str, Array]]:
    """Run all functions on the samples, in one program."""
    x = samples(dtype)
    y = np.random.default_rng(3).permutation(x)
    a, b, one = Vi(x[:, None]), Vi(y[:, None]), Vj(np.ones((1, 1), dtype))
    values = [getattr(a, name)() for name in FUNCTIONS] + [a / b, a**b, a.atan2(b)]
    columns = values[0].concat(values[1])
    for value in values[2:]:
        columns = columns.concat(value)
    reduction = (columns * one).sum(axis=1, call=False, use_fast_math=MODES[mode])
    program = GpuProgram(traced(reduction))
    (found,) = program.run(inputs_of(reduction), rows=len(x), columns=1)
    return x, y, dict(zip([*FUNCTIONS, *OF_TWO], found.T, strict=True))


def _one_off(function: Callable[[Array], Array], bound: float) -> Callable[..., Any]:
    """Make an instruction whose relative error is nearly `bound`, up and down in turn."""

    def noisy(modifiers: tuple[str, ...]) -> Callable[..., Array]:
        def run(*operands: Array) -> Array:
            with np.errstate(all="ignore"):
                exact = function(*(np.asarray(operand, np.float64) for operand in operands))
                signs = 1.0 - 2.0 * (np.arange(exact.size).reshape(exact.shape) % 2)
                found = (exact * (1 + signs * bound)).astype(operands[0].dtype)
                beyond = np.abs(found - exact) > bound * np.abs(exact)
                found = np.where(beyond, np.nextafter(found, exact.astype(found.dtype)), found)
                if "ftz" in modifiers:
                    found = np.where(np.abs(found) < np.finfo(found.dtype).tiny, 0 * found, found)
            return found

        return run if "approx" in modifiers else _EXACT[function](modifiers)

    return noisy


_EXACT: dict[Any, Callable[..., Any]] = {}


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give approximate instructions the errors that the PTX ISA manual allows them."""
    for name, function, bound in (
        ("ex2", np.exp2, 2.0**-23),
        ("sqrt", np.sqrt, 2.0**-23),
        ("rsqrt", lambda x: 1 / np.sqrt(x), 2.0**-22.9),
        ("lg2", np.log2, 2.0**-22.6),
        ("div", np.divide, 2.0**-23),
    ):
        _EXACT[function] = COMPUTED[name]
        monkeypatch.setitem(COMPUTED, name, _one_off(function, bound))  # type: ignore[arg-type]


def errors_in_ulp(found: Array, exact: Array) -> Array:
    """Give distances in units of the last place of the exact value; inf where only one of the two is special."""
    dtype = found.dtype
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype)
        ulp = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1)).astype(dtype)).astype(np.longdouble)
        error = np.abs(found.astype(np.longdouble) - exact) / ulp
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    return np.where(same, 0.0, np.where(np.isfinite(error) & np.isfinite(rounded), error, np.inf))


def check(name: str, mode: str, arguments: tuple[Array, ...], found: Array) -> None:
    """Compare with the bound that docs/semantics.md states."""
    info = np.finfo(found.dtype)
    with np.errstate(all="ignore"):
        exact = {**FUNCTIONS, **OF_TWO}[name](*(argument.astype(np.longdouble) for argument in arguments))
    error = errors_in_ulp(found, exact)
    limit = np.full(found.shape, _LIMIT_ULP)
    x = arguments[0].astype(np.float64)
    if name in {"erf", "erfc"} and found.dtype == np.float64:
        limit += 1.0
    if found.dtype == np.float32 and mode != "accurate" and name == "exp":
        with np.errstate(all="ignore"):
            limit += np.where(np.isfinite(x), np.abs(x), 0) * 2.0**-23.7 * 2.0**24
    if found.dtype == np.float32 and mode != "accurate" and name == "rsqrt":
        limit[:] = _ROOT_ULP
    if mode != "accurate" and name in {"exp", "exp2"}:
        error = np.where((np.abs(exact) < info.tiny * (1 + 1e-5)) & (found == 0), 0.0, error)
    if found.dtype == np.float32 and mode == "fast":
        if name in _LOGARITHMS:
            limit[:] = _FAST_LOGARITHM_ULP
            near = (x >= 0.5) & (x <= 2)
            with np.errstate(invalid="ignore"):
                error = np.where(near & (np.abs(found - exact) <= 2.0**-22), 0.0, error)
        if name == "divide":
            error = np.where((np.abs(arguments[1]) < 2.0**-126) | (np.abs(arguments[1]) > 2.0**126), 0.0, error)
    worst = int(np.argmax(error - limit))
    values = ", ".join(repr(float(argument[worst])) for argument in arguments)
    message = f"{name}({values}) = {found[worst]!r}, exact {exact[worst]!r}: {error[worst]:.3g} ulp"
    assert error[worst] <= limit[worst], message


def check_all(dtype: Any, mode: str) -> None:
    x, y, found = results(dtype, mode)
    for name, values in found.items():
        check(name, mode, (x,) if name in FUNCTIONS else (x, y), values)


@pytest.mark.parametrize("mode", MODES)
def test_functions_of_float32_keep_the_bound_of_their_mode(mode: str, hardware: None) -> None:
    check_all(np.float32, mode)


@pytest.mark.parametrize("mode", ["accurate", ""])
def test_functions_of_float64_are_within_two_ulp(mode: str) -> None:
    check_all(np.float64, mode)


# The road of the option


def gaussian(**options: Any) -> Any:
    x, y = Vi(np.ones((5, 3), np.float32)), Vj(np.zeros((4, 3), np.float32))
    return (-(x.sqdist(y) / (1 + x.norm2()))).exp().sum(axis=1, call=False, **options)


def test_each_mode_has_its_instructions() -> None:
    texts = {mode: GpuProgram(traced(gaussian(use_fast_math=MODES[mode]))).module.text for mode in MODES}
    assert "div.approx.f32" in texts["fast"]
    assert "div.rn.f32" not in texts["fast"]
    assert "div.rn.f32" in texts[""]
    assert "ex2.approx" in texts[""]
    assert "sqrt.approx" in texts[""]
    assert "approx" not in texts["accurate"]


def test_the_mode_is_part_of_the_request_and_of_its_gradient() -> None:
    plain, fast = gaussian(), gaussian(use_fast_math=True)
    assert request_of(plain).canonical_text() == request_of(gaussian(use_fast_math=None)).canonical_text()
    assert request_of(plain).canonical_text() != request_of(fast).canonical_text()
    for mode, option in MODES.items():
        request = gradient_request(request_of(gaussian(use_fast_math=option)), (0,))
        assert read_request(request.canonical_text()).root.math_mode == mode


def test_reductions_in_one_sweep_take_the_most_accurate_mode() -> None:
    from pylazy import evaluate

    x, y = Vi(np.ones((5, 3), np.float32)), Vj(np.zeros((4, 3), np.float32))
    distance = x.sqdist(y)
    wishes = [(-distance).exp().sum(axis=1, call=False, use_fast_math=wish) for wish in (True, None, False)]
    for count, mode in ((1, "fast"), (2, ""), (3, "accurate")):
        assert evaluate(*wishes[:count], call=False).executable.reductions.math_mode == mode


def test_genred_takes_the_option() -> None:
    for mode, option in MODES.items():
        made = Genred("Exp(-SqDist(x, y))", ["x = Vi(3)", "y = Vj(3)"], axis=1, use_fast_math=option)
        assert made._template.executable().reductions.math_mode == mode


def test_results_on_the_cpu_are_the_same_in_every_mode() -> None:
    found = [gaussian(use_fast_math=option)() for option in MODES.values()]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises((UnsupportedError, DtypeError), match="use_fast_math is 'yes', expected True, False or None"):
        gaussian(use_fast_math="yes")


def test_every_reduction_takes_the_option() -> None:
    x, y = Vi(np.ones((5, 3), np.float32)), Vj(np.zeros((9, 3), np.float32))
    distance: LazyTensor = x.sqdist(y)
    for kind in ("sum", "mean", "prod", "min", "argmin", "max_argmax", "logsumexp", "any"):
        reduction = getattr(distance, kind)(axis=1, call=False, use_fast_math=True)
        assert request_of(reduction).math_mode == "fast", kind
    assert request_of(distance.argKmin(2, axis=1, call=False, use_fast_math=True)).math_mode == "fast"
    assert request_of(distance.sumsoftmaxweight(y, axis=1, call=False, use_fast_math=True)).math_mode == "fast"
