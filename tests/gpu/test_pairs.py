"""PTX of indices and dense arrays, run on the interpreter against the oracle."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_program import GpuProgram
from ptx_text import PtxError

from gpu_formulas import Variables, inputs_of, request_of, traced, traced_gradient
from pylazy import Vi, Vij, Vj, causal
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


@pytest.mark.parametrize("dim", [1, 20])
def test_gradients_of_a_dense_array_are_stored_pair_by_pair(dim: int) -> None:
    """In splits, which store different pairs; a block and more of both axes."""
    rows, columns = 300, 140
    random = np.random.default_rng(0)
    a, y, x = (random.standard_normal(shape) for shape in ((rows, columns, dim), (columns, dim), (rows, 1)))
    reduction = ((Vij(a) * Vj(y)).sum(-1) * Vi(x)).sum(axis=1, call=False)
    program = GpuProgram(traced_gradient(reduction, wrt=(0, 1)), processors=100)
    by_axis = {"ij": x[:, None] * y[None], "j": (a * x[:, None]).sum(0)}
    found = program.run([*inputs_of(reduction), np.ones((rows, 1))], rows=rows, columns=columns)
    assert program.splits > 1
    for entry, result in zip(request_of(reduction).inputs, found, strict=False):
        np.testing.assert_allclose(result, by_axis[entry.axis].reshape(result.shape), rtol=1e-11, atol=1e-11)


def test_pairs_alone_need_no_merge() -> None:
    rows, columns = 5, 9
    reduction = FORMULAS["pairs"](Variables(rows, columns, np.float32)).sum(axis=1, call=False)
    number = [entry.axis for entry in request_of(reduction).inputs].index("ij")
    program = GpuProgram(traced_gradient(reduction, wrt=(number,)))
    assert not any(kernel.merges for kernel in program.module.kernels)
    inputs = inputs_of(reduction)
    (found,) = program.run([*inputs, np.ones((rows, 1), np.float32)], rows=rows, columns=columns)
    (y,) = (array for array in inputs if len(array) == columns)
    np.testing.assert_array_equal(found.reshape(rows, columns), np.broadcast_to(y.T, (rows, columns)))


def test_a_missing_guard_of_a_store_is_found() -> None:
    def edit(text: str) -> str:
        guards = r"(?m)(^\s*setp\.ge\.s64\s+%p\d+, %rd\d+, %rd\d+;\n){2,}"  # the rows of a thread, one after the other
        found = re.search(guards, text)
        assert found
        return text.replace(found[0], re.sub(r"(%rd\d+), %rd\d+;", r"-1, \1;", found[0]))

    reduction = FORMULAS["pairs"](Variables(5, 9, np.float32)).sum(axis=1, call=False)
    number = [entry.axis for entry in request_of(reduction).inputs].index("ij")
    program = GpuProgram(traced_gradient(reduction, wrt=(number,)), edit=edit)
    with pytest.raises(PtxError, match="two threads write the same word"):
        program.run([*inputs_of(reduction), np.ones((5, 1), np.float32)], rows=5, columns=9)
