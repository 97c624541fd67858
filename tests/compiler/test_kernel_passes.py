"""Kernel passes change how results are computed, never what they are; which rewrites they make is in lit_tests."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cpu_formulas import EXACT, FORMULAS, Variables, expected, inputs_of, traced

from pylazy.compiler import compile as compile_module
from pylazy.compiler.compile import compilation, compile_cpu
from pylazy.compiler.dialects.reduction import name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.passes.reduction_fuse import reduction_fuse
from pylazy.compiler.passes.reduction_hoist import reduction_hoist
from pylazy.runtime.kernel import KernelImage
from pylazy.runtime.launch import Program, host_target
from pylazy.trace import Traced
from reference import assert_close

Array = Any  # an ndarray

#: Tile sizes that no schedule would choose, but that mean something.
TILINGS: Mapping[str, Mapping[str, int]] = {
    "one_lane": {"lanes": 1, "row_vectors": 1, "column_step": 1},
    "many_rows": {"lanes": 4, "row_vectors": 3, "column_step": 2},
    "odd_blocks": {"lanes": 4, "row_vectors": 1, "column_step": 3, "column_chunk": 7},
    "chunk_of_one_column": {"lanes": 4, "row_vectors": 2, "column_step": 4, "column_chunk": 1},
    "state_in_panels": {"lanes": 4, "row_vectors": 2, "column_step": 2, "register_limit": 0},
    "nothing_unrolled": {"lanes": 4, "row_vectors": 1, "column_step": 2, "unroll_limit": 1, "inner_step": 1},
    "few_columns": {"lanes": 4, "row_vectors": 2, "column_step": 2, "column_chunk": 0},
    "few_columns_in_one_lane": {"lanes": 1, "row_vectors": 2, "column_step": 2, "column_chunk": 0},
    "few_columns_in_panels": {"lanes": 4, "row_vectors": 1, "column_step": 2, "column_chunk": 0, "register_limit": 0},
    "long_turns": {"lanes": 4, "row_vectors": 2, "column_step": 1, "unroll_limit": 2, "inner_step": 5},
}
NAMES = ("gaussian_d3_e3", "concatenated", "logsumexp_weights", "max_argmax", "kmin_3", "special_min_argmin")


def run(image: KernelImage, inputs: list[Array], m: int, n: int) -> list[Array]:
    outputs = [
        np.empty(({"i": m, "j": n, "": 1}[buffer.axis], buffer.dim), buffer.dtype)
        for buffer in image.buffers
        if buffer.role == "output"
    ]
    Program(image).run([array.ctypes.data for array in (*inputs, *outputs)], m, n)
    return outputs


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_tile_sizes(name: str, tiling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def set_tile_sizes(module: ir.Module, *, target: Any) -> None:
        integer = ir.IntegerType.get_signless(64)
        for operation in module.body.operations[0].regions[0].blocks[0].operations:
            if name_of(operation) in {"reduction.map", "reduction.map_reduce"}:
                for key, value in TILINGS[tiling].items():
                    operation.attributes[key] = ir.IntegerAttr.get(integer, value)

    *before, tile = compile_module.KERNEL_PASSES
    monkeypatch.setattr(compile_module, "KERNEL_PASSES", (*before, set_tile_sizes, tile))
    reduction = FORMULAS[name](Variables(9, 37, np.float64))
    image = compile_cpu(traced(reduction), host_target())
    sizes = TILINGS[tiling]
    assert image.phases[0].rows_per_tile == sizes["lanes"] * sizes["row_vectors"]
    for result, dense in zip(run(image, inputs_of(reduction), 9, 37), expected(reduction), strict=True):
        if name in EXACT:
            np.testing.assert_array_equal(result, dense)
        else:
            assert_close(result, dense, dtype=np.float64, columns=37)


# |y|^2 and exp(y) are hoisted; two sums over j share them, a third reduces over i and reads one of the sums.
SHARED = """
!i3 = !reduction.lazy<"i", vector<3xf64>>
!i1 = !reduction.lazy<"i", vector<1xf64>>
!j3 = !reduction.lazy<"j", vector<3xf64>>
!j1 = !reduction.lazy<"j", vector<1xf64>>
!ij1 = !reduction.lazy<"ij", vector<1xf64>>
!ij3 = !reduction.lazy<"ij", vector<3xf64>>
!rows3 = tensor<?x3xf64>
!rows1 = tensor<?x1xf64>
func.func @formula(%x_rows: !rows3, %y_rows: !rows3) -> (!rows1, !rows3, !rows1) {
  %x = "reduction.var"(%x_rows) {axis = "i"} : (!rows3) -> !i3
  %y = "reduction.var"(%y_rows) {axis = "j"} : (!rows3) -> !j3
  %n = "reduction.sqnorm2"(%y) : (!j3) -> !j1
  %e = "reduction.exp"(%y) : (!j3) -> !j3
  %p = "reduction.dot"(%x, %e) : (!i3, !j3) -> !ij1
  %a = "reduction.mul"(%p, %n) : (!ij1, !j1) -> !ij1
  %r0 = "reduction.reduce"(%a) {axis = "j", kind = "sum"} : (!ij1) -> !rows1
  %b = "reduction.mul"(%x, %n) : (!i3, !j1) -> !ij3
  %r1 = "reduction.reduce"(%b) {axis = "j", kind = "sum"} : (!ij3) -> !rows3
  %s = "reduction.var"(%r0) {axis = "i"} : (!rows1) -> !i1
  %c = "reduction.mul"(%s, %n) : (!i1, !j1) -> !ij1
  %r2 = "reduction.reduce"(%c) {axis = "i", kind = "sum"} : (!ij1) -> !rows1
  return %r0, %r1, %r2 : !rows1, !rows3, !rows1
}
"""


def parsed(text: str) -> Traced:
    with compilation():
        return Traced(ir.Module.parse(text))


@pytest.mark.parametrize("left_out", [None, reduction_fuse, reduction_hoist])
def test_results_do_not_depend_on_fusing_and_hoisting(left_out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = tuple(some for some in compile_module.KERNEL_PASSES if some is not left_out)
    monkeypatch.setattr(compile_module, "KERNEL_PASSES", passes)
    image = compile_cpu(parsed(SHARED), host_target())
    generator = np.random.default_rng(5)
    x, y = generator.standard_normal((9, 3)), generator.standard_normal((11, 3))
    norms = (y * y).sum(1)
    first = ((x @ np.exp(y).T) * norms).sum(1, keepdims=True)
    for result, dense in zip(
        run(image, [x, y], 9, 11), [first, x * norms.sum(), norms[:, None] * first.sum()], strict=True
    ):
        assert_close(result, dense, dtype=np.float64, columns=11)


def test_fusing_and_hoisting_save_sweeps() -> None:
    phases = [
        (phase.rows, phase.columns) for phase in compile_cpu(parsed(SHARED), host_target()).phases if not phase.merges
    ]
    sweeps = [phase for phase in phases if phase[1]]
    assert sweeps == [("i", "j"), ("j", "i")]
    assert set(phases) - set(sweeps) == {("j", "")}


def test_result_that_is_returned_twice_is_written_twice() -> None:
    image = compile_cpu(
        parsed("""
        !i2 = !reduction.lazy<"i", vector<2xf64>>
        !rows2 = tensor<?x2xf64>
        func.func @formula(%x_rows: !rows2) -> (!rows2, !rows2) {
          %x = "reduction.var"(%x_rows) {axis = "i"} : (!rows2) -> !i2
          %r = "reduction.reduce"(%x) {axis = "j", kind = "sum"} : (!i2) -> !rows2
          return %r, %r : !rows2, !rows2
        }"""),
        host_target(),
    )
    x = np.arange(10.0).reshape(5, 2)
    for result in run(image, [x], 5, 3):
        np.testing.assert_array_equal(result, 3 * x)
