"""PTX of indices and dense arrays, run on the interpreter against the oracle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_program import GpuProgram

from gpu_formulas import Variables, inputs_of, traced, traced_gradient
from pylazy import UnsupportedError, Vij, causal
from pylazy.compiler.compile import compile_ptx
from reference import assert_close, evaluate_dense, reduce_dense

Array = Any  # an ndarray


def pairs(v: Variables, dim: int) -> Any:
    """Make a dense array of all pairs."""
    return Vij(np.random.default_rng(3).standard_normal((v.rows, v.columns, dim)).astype(v.dtype))


FORMULAS: dict[str, Callable[[Variables], Any]] = {
    "causal": lambda v: v.x(2).sqdist(v.y(2)) * causal(),
    "hoisted_index": lambda v: v.x(2).sqdist(v.y(2)) * (v.y(1).column_index() + 1).sqrt(),
    "pairs": lambda v: pairs(v, 1) * v.y(1),
    "long_pairs": lambda v: pairs(v, 20) * v.x(20),
    "transposed": lambda v: pairs(v, 3).T * v.x(1).T,
}


@pytest.mark.parametrize("axis", ["i", "j"])
@pytest.mark.parametrize("name", FORMULAS)
def test_formula_with_pairs_matches_oracle(name: str, axis: str) -> None:
    formula = FORMULAS[name](Variables(9, 150, np.float32))
    rows, columns = formula._shape[-3:-1]
    reduction = formula.sum(axis=1 if axis == "j" else 0, call=False)
    (found,) = GpuProgram(traced(reduction), processors=4).run(inputs_of(reduction), rows=rows, columns=columns)
    dense = evaluate_dense(formula)
    scale = np.abs(dense).max() * 12
    assert_close(found, reduce_dense("sum", [dense], axis=axis), dtype=np.float32, columns=150, scale=scale)


def test_gradient_of_a_dense_array_is_refused_by_name() -> None:
    reduction = FORMULAS["pairs"](Variables(9, 15, np.float32)).sum(axis=1, call=False)
    with pytest.raises(UnsupportedError, match=r"reduction\.tabulate is not implemented for the target sm_90"):
        compile_ptx(traced_gradient(reduction, wrt=(0,)), "sm_90")
