"""PTX of sums in wider accumulators, compensated or direct, run on the interpreter."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_program import GpuProgram

from gpu_formulas import expected, inputs_of, traced
from pylazy import Vi, Vj
from reference import assert_close

Array = Any  # an ndarray
MANY_PROCESSORS = 100
HUGE = 2.0**25  # ones that are added to it in float32, one by one, are lost


def weights(columns: int) -> Array:
    """One huge number among ones, in float32."""
    y = np.ones((columns, 1), np.float32)
    y[columns // 3] = HUGE
    return y


def sums(columns: int, **options: Any) -> tuple[Any, float]:
    """Make the sum of x_i y_j over j, for x 1 and 2, and the true sum of the y."""
    reduction = (Vi(np.array([[1.0], [2.0]], np.float32)) * Vj(weights(columns))).sum(axis=1, call=False, **options)
    return reduction, HUGE + columns - 1


EXACT: dict[str, dict[str, str]] = {
    "wide": {"dtype_acc": "float64"},
    "kahan": {"sum_scheme": "kahan_scheme"},
    "wide kahan": {"dtype_acc": "float64", "sum_scheme": "kahan_scheme"},
    "wide direct": {"dtype_acc": "float64", "sum_scheme": "direct_sum"},
}


@pytest.mark.parametrize("processors", [0, MANY_PROCESSORS])
@pytest.mark.parametrize("name", EXACT)
def test_sum_is_rounded_once(name: str, processors: int) -> None:
    columns = 4 * 128 + 3
    reduction, total = sums(columns, **EXACT[name])
    program = GpuProgram(traced(reduction), processors=processors)
    (found,) = program.run(inputs_of(reduction), rows=2, columns=columns)
    np.testing.assert_array_equal(found[:, 0], np.float32([total, 2 * total]))
    assert program.splits == (3 if processors and "direct" not in name else 1)


def test_sum_in_blocks_of_float32_loses_them() -> None:
    columns = 4 * 128 + 3
    reduction, total = sums(columns)
    (found,) = GpuProgram(traced(reduction)).run(inputs_of(reduction), rows=2, columns=columns)
    assert found[0, 0] != np.float32(total)


def test_direct_sum_is_what_its_name_says() -> None:
    y = np.random.default_rng(0).standard_normal((300, 1)).astype(np.float32)
    reduction = (Vi(np.ones((3, 1), np.float32)) * Vj(y)).sum(axis=1, call=False, sum_scheme="direct_sum")
    program = GpuProgram(traced(reduction), processors=MANY_PROCESSORS)
    (found,) = program.run(inputs_of(reduction), rows=3, columns=300)
    np.testing.assert_array_equal(found, np.full((3, 1), np.add.accumulate(y[:, 0])[-1]))


REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "long": lambda f, g: (g * f).sum(axis=1, call=False, sum_scheme="kahan_scheme"),
    "prod": lambda f, g: (1 + f / 64).prod(axis=1, call=False, dtype_acc="float64"),
    "logsumexp": lambda f, g: f.logsumexp(axis=1, call=False, dtype_acc="float64"),
    "weighted": lambda f, g: f.logsumexp(axis=1, weight=g.exp(), call=False, dtype_acc="float64"),
    "softmax": lambda f, g: f.sumsoftmaxweight(g, axis=1, call=False, dtype_acc="float64"),
    "direct": lambda f, g: f.sumsoftmaxweight(g, axis=1, call=False, sum_scheme="direct_sum"),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction_with_an_accumulator_matches_oracle(name: str) -> None:
    random = np.random.default_rng(1)
    columns = 2 * 128 + 3
    x, y, g = (random.standard_normal(shape).astype(np.float32) for shape in ((5, 2), (columns, 2), (columns, 20)))
    reduction = REDUCTIONS[name]((Vi(x) * Vj(y)).sum(-1), Vj(g))
    program = GpuProgram(traced(reduction), processors=MANY_PROCESSORS)
    (found,) = program.run(inputs_of(reduction), rows=5, columns=columns)
    assert program.splits > 1 or name == "direct"
    (dense,) = expected(reduction)
    scale = np.abs(dense).max() + (np.abs(g).sum() / 20 if name == "long" else 1.0)
    assert_close(found, dense, dtype=np.float32, columns=columns if name == "direct" else 1, scale=8 * scale)


# Planted faults


def edited_merge(pattern: str, replacement: str) -> Callable[[str], str]:
    """Change all matches in the kernel that merges splits."""

    def edit(text: str) -> str:
        start = text.index(".entry formula_0_merge")
        changed, count = re.subn(pattern, replacement, text[start:])
        assert count
        return text[:start] + changed

    return edit


@pytest.mark.parametrize(("pattern", "replacement"), [(r"sub\.rn\.f32", "add.rn.f32"), (r"add\.rn\.f32", "mul.rn.f32")])
def test_a_wrong_merge_of_compensated_sums_is_found(pattern: str, replacement: str) -> None:
    columns = 4 * 128 + 3
    reduction, total = sums(columns, sum_scheme="kahan_scheme")
    program = GpuProgram(traced(reduction), processors=MANY_PROCESSORS, edit=edited_merge(pattern, replacement))
    (found,) = program.run(inputs_of(reduction), rows=2, columns=columns)
    assert found[0, 0] != np.float32(total)
