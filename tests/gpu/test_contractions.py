"""PTX of products of tensors, run on the interpreter against the oracle."""

from typing import Any

import numpy as np
import pytest
from gpu_program import GpuProgram

from gpu_formulas import Variables, expected, inputs_of, traced
from reference import assert_close

CONTRACTIONS = {
    "matrix_vector": lambda v: v.x(6).matvecmult(v.y(3)),
    "long_matrix_vector": lambda v: v.x(60).matvecmult(v.y(20)),
    "vector_matrix": lambda v: v.y(5).vecmatmult(v.x(20)),
    "long_product": lambda v: v.x(5).tensorprod(v.y(7)),
    "permuted": lambda v: v.x(12).keops_tensordot(v.y(18), (2, 6), (6, 3), (1,), (0,), (1, 0)),
    "kronecker": lambda v: v.x(6).keops_kron(v.y(6), (2, 3), (3, 2)),
    "seams": lambda v: v.x(6).concat(v.y(5)).tensorprod(v.y(3).concat(v.x(2))),
    "one_hot": lambda v: (v.x(1) * 10 + v.y(1)).one_hot(20),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CONTRACTIONS)
def test_contraction_matches_oracle(name: str, dtype: Any) -> None:
    rows, columns = 9, 21
    reduction = CONTRACTIONS[name](Variables(rows, columns, dtype)).sum(axis=1, call=False)
    found = GpuProgram(traced(reduction)).run(inputs_of(reduction), rows=rows, columns=columns)
    for result, dense in zip(found, expected(reduction), strict=True):
        scale = 1.0 + np.abs(dense).max(initial=0, where=np.isfinite(dense))
        assert_close(result, dense, dtype=dtype, columns=columns, scale=scale)
