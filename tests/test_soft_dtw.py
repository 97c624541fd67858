"""Soft dynamic time warping of series, and its derivatives."""

# ruff: noqa: N806  K is the name of a kernel matrix

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pylazy import Genred, LazyTensor, Pm, ShapeError, UnsupportedError, Vi, Vj
from pylazy.compiler.compile import compilation, compile_cpu
from pylazy.compiler.dialects.reduction.formula_ops import emit_formula_op, emit_reduce, emit_var
from pylazy.compiler.mlir import func, ir
from pylazy.reductions import gradient_request
from pylazy.runtime.launch import Program, host_target
from pylazy.trace import trace
from reference import assert_close, evaluate_dense, reduce_dense, soft_dtw_by_torch, soft_dtw_gradient

Array = Any  # an ndarray

#: Rows, columns and the lengths of the series; short ones are straight code, long ones loops.
CASES = [(7, 5, 4, 6), (3, 300, 20, 17), (300, 3, 2, 5), (20, 19, 1, 1), (5, 4, 1, 7)]


def series(*shape: int, dtype: str = "float64") -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def distances(rows: int, columns: int, n: int, m: int, dtype: str = "float64", gamma: Any = 0.3) -> LazyTensor:
    return Vi(series(rows, n, dtype=dtype)).softdtw_sqdist(Vj(series(columns, m, dtype=dtype)), gamma)


@pytest.mark.parametrize(("axis", "dtype"), [("i", "float64"), ("j", "float32")])
def test_sums_of_soft_dtw_match_oracle(axis: str, dtype: str) -> None:
    for case in CASES:
        K = distances(*case, dtype=dtype)
        expected = reduce_dense("sum", [evaluate_dense(K)], axis=axis)
        terms = np.abs(evaluate_dense(K)).sum(1 if axis == "j" else 0).max() * sum(case[2:])
        assert_close(K.sum(axis=1 if axis == "j" else 0), expected, dtype=dtype, scale=terms)


def test_soft_dtw_is_a_value_of_a_formula_like_any_other() -> None:
    K = distances(6, 9, 5, 20)
    check = (-K).exp() * K.column_index() + distances(6, 9, 5, 20, gamma=2).sqrt()
    assert_close(check.sum(axis=1), evaluate_dense(check).sum(1), dtype="float64", columns=300)
    np.testing.assert_array_equal(K.argKmin(3, axis=1), np.argsort(evaluate_dense(K)[..., 0], axis=1)[:, :3])
    long = Vi(series(6, 40)) - 2 * Vi(series(6, 40))
    joined = long.concat(Vi(series(6, 2))).softdtw_sqdist(Vj(series(9, 30))[3:], 1)
    assert_close(joined.sum(axis=1), evaluate_dense(joined).sum(1), dtype="float64", columns=300)


def test_small_gamma_gives_dynamic_time_warping_and_overflows_nothing() -> None:
    x, y = 100 * series(4, 12), 100 * series(5, 9)
    hard = np.full((4, 5, 13, 10), np.inf)
    hard[:, :, 0, 0] = 0
    for i in range(12):
        for j in range(9):
            before = np.minimum(np.minimum(hard[..., i, j], hard[..., i, j + 1]), hard[..., i + 1, j])
            hard[..., i + 1, j + 1] = before + (x[:, None, i] - y[None, :, j]) ** 2
    for dtype in ("float32", "float64"):
        K = Vi(x.astype(dtype)).softdtw_sqdist(Vj(y.astype(dtype)), 1e-3)
        assert_close(K.sum(axis=1)[:, 0], hard[..., -1, -1].sum(1), dtype=dtype, columns=400)


def test_nan_and_infinity_in_a_series_are_seen() -> None:
    x = series(3, 6)
    x[1, 2], x[2, 3] = math.nan, math.inf
    found = Vi(x).softdtw_sqdist(Vj(series(1, 4)), 1.0).sum(axis=1)[:, 0]
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
    assert found[2] == math.inf


def test_gamma_may_vary_with_rows_and_batches_broadcast() -> None:
    K = LazyTensor(series(2, 4, 1, 5)).softdtw_sqdist(
        LazyTensor(series(1, 6, 3)), LazyTensor(series(4, 1, 1) ** 2 + 0.1)
    )
    assert_close(K.sum(axis=2), evaluate_dense(K).sum(2), dtype="float64", columns=100)


def test_keyword_of_formulas_is_the_method() -> None:
    x, y, gamma = series(5, 3), series(4, 6), np.array([0.4])
    reduction = Genred("SoftDTW_SqDist(x, y, g)", ["x = Vi(3)", "y = Vj(6)", "g = Pm(1)"], "Sum", axis=1)
    expected = Vi(x).softdtw_sqdist(Vj(y), Pm(gamma)).sum(axis=1)
    np.testing.assert_array_equal(reduction(x, y, gamma), expected)


@pytest.mark.parametrize(("axis", "dtype"), [(0, torch.float32), (1, torch.float64)])
def test_gradients_by_both_series_and_gamma_match_torch(axis: int, dtype: torch.dtype) -> None:
    for rows, columns, n, m in CASES:
        x, y = (torch.tensor(series(*shape)) for shape in ((rows, n), (columns, m)))
        exact = [part.requires_grad_() for part in (x, y, torch.tensor([0.7], dtype=torch.float64))]
        rounded = [part.detach().to(dtype).requires_grad_() for part in exact]
        found = Vi(rounded[0]).softdtw_sqdist(Vj(rounded[1]), Pm(rounded[2])).sum(axis=axis)
        expected = soft_dtw_by_torch(exact[0][:, None], exact[1][None], exact[2]).sum(axis)
        weights = torch.randn(expected.shape, dtype=torch.float64)
        ours = torch.autograd.grad((found * weights).sum(), rounded)
        dense = torch.autograd.grad((expected * weights).sum(), exact)
        for one, other in zip(ours, dense, strict=True):
            tolerance = 1e-11 if dtype == torch.float64 else 1e-4
            torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance * (1 + float(other.abs().max())))


def hessian_program(n: int, m: int, element: ir.Type, *, wrt: str) -> Program:
    """Compile the derivative along u of the gradient of the sum over j: what a second derivative runs."""
    dims = {"i": n, "j": m, "": 1}
    with compilation():
        scalar = ir.F32Type.get() if element == "float32" else ir.F64Type.get()
        dynamic = ir.ShapedType.get_dynamic_size()
        types = [ir.RankedTensorType.get([dynamic if axis else 1, dim], scalar) for axis, dim in dims.items()]
        types.append(ir.RankedTensorType.get([dynamic, n + m + 1], scalar))
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            function = func.FuncOp("formula", (types, []))
        block = function.add_entry_block()
        with ir.InsertionPoint(block):
            x, y, gamma, along = (
                emit_var(tensor, axis) for tensor, axis in zip(block.arguments, (*dims, "i"), strict=True)
            )
            gradient = emit_formula_op("soft_dtw_gradient", x, y, gamma)
            result = emit_reduce(emit_formula_op("dot", gradient, along), kind="sum", axis="j")
            func.ReturnOp([result])
        function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, [result.type]))
        function.attributes["reduction.wrt"] = ir.Attribute.parse(wrt)
        return Program(compile_cpu(SimpleNamespace(module=module), host_target()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "n", "m"), [(7, 5, 3, 4), (33, 3, 20, 18)])
def test_second_derivatives_match_torch(rows: int, columns: int, n: int, m: int, dtype: str) -> None:
    x, y, gamma, along = series(rows, n), series(columns, m), np.array([[0.8]]), series(rows, n + m + 1)
    dense = soft_dtw_gradient(x[:, None], y[None], gamma[None], along[:, None])
    expected = [dense[..., :n].sum(1), dense[..., n : n + m].sum(0), dense[..., n + m :].sum((0, 1))[None]]
    given = [np.ascontiguousarray(part, dtype=dtype) for part in (x, y, gamma, along, np.ones((rows, 1)))]
    results = [np.full(part.shape, np.nan, dtype) for part in expected]
    program = hessian_program(n, m, dtype, wrt="[0, 1, 2]")
    program.run([part.ctypes.data for part in (*given, *results)], rows, columns)
    for found, exact in zip(results, expected, strict=True):
        scale = np.abs(dense).max() * rows * columns
        assert_close(found, exact, dtype=dtype, columns=n * m, scale=scale)


def test_long_series_take_fewer_lanes_where_the_stack_asks_for_it() -> None:
    for n, lanes in ((5, 16), (100, 16), (200, 4)):
        x = torch.zeros(2, n, requires_grad=True)
        reduction = Vi(x).softdtw_sqdist(Vj(torch.zeros(3, n)), 1.0).sum(axis=1, call=False)
        request = reduction._job.executable.request
        image = compile_cpu(trace(gradient_request(request, (0,))), "x86-64-v4")
        assert {phase.rows_per_tile for phase in image.phases if phase.splittable} == {lanes}
    reduction()


def test_series_whose_tables_do_not_fit_the_stack_are_refused() -> None:
    x = torch.zeros(2, 600, requires_grad=True)
    found = Vi(x).softdtw_sqdist(Vj(torch.zeros(3, 600)), 1.0).sum(axis=1)
    with pytest.raises(UnsupportedError, match="bytes of stack"):
        found.sum().backward()


def soft_dtw_sum(x: Any, y: Any, gamma: Any) -> Any:
    return Vi(x).softdtw_sqdist(Vj(y), Pm(gamma)).sum(axis=1)


def test_derivatives_match_finite_differences_in_all_modes() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 3), (4, 2))]
    inputs.append(torch.tensor([0.7], dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(soft_dtw_sum, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(soft_dtw_sum, inputs, check_fwd_over_rev=True)


def test_hessian_by_torch_func_matches_dense_torch() -> None:
    x, y, gamma = torch.randn(2, 3), torch.randn(4, 3), torch.tensor([0.6])
    x, y, gamma = x.double(), y.double(), gamma.double()
    found = torch.func.hessian(lambda x: soft_dtw_sum(x, y, gamma).sum())(x)
    expected = torch.func.hessian(lambda x: soft_dtw_by_torch(x[:, None], y[None], gamma).sum())(x)
    torch.testing.assert_close(found, expected)


def test_vmap_is_soft_dtw_of_each_element() -> None:
    x, y, gamma = torch.randn(3, 5, 4), torch.randn(3, 6, 4), torch.tensor([0.6])
    expected = torch.stack([soft_dtw_sum(*parts, gamma) for parts in zip(x, y, strict=True)])
    torch.testing.assert_close(torch.vmap(soft_dtw_sum, in_dims=(0, 0, None))(x, y, gamma), expected)


def test_derivatives_are_formulas_too() -> None:
    x, y = Vi(series(5, 3)), Vj(series(4, 6))
    K = x.softdtw_sqdist(y, 0.4)
    for formula in (K.grad(x, 1), K.diff(y, y), K.grad(x, 1).diff(x, x), (K * K).grad(y, 1).grad(x, y)):
        dense = evaluate_dense(formula)
        scale = 100 * np.abs(dense).max()  # second derivatives are small differences of large terms
        assert_close(formula.sum(axis=1), dense.sum(1), dtype="float64", columns=300, scale=scale)


def test_third_derivative_is_refused_at_the_line_of_the_user() -> None:
    x, y = Vi(series(5, 3)), Vj(series(4, 3))
    with pytest.raises(UnsupportedError, match=r"the third derivative of reduction\.soft_dtw") as raised:
        x.softdtw_sqdist(y, 0.4).grad(x, 1).grad(x, y).grad(x, y)
    assert "test_soft_dtw.py" in str(raised.value)
    tensor = torch.randn(5, 3, requires_grad=True)
    found = Vi(tensor).softdtw_sqdist(Vj(torch.randn(4, 3)), 0.4).sum(axis=1)
    for _ in range(2):
        (found,) = torch.autograd.grad(found.sum(), tensor, create_graph=True)
    with pytest.raises(UnsupportedError, match=r"the third derivative of reduction\.soft_dtw"):
        torch.autograd.grad(found.sum(), tensor)


def test_what_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ShapeError, match="soft_dtw was given a gamma of inner dimension 3"):
        distances(3, 4, 2, 2, gamma=[1.0, 2.0, 3.0])
    reduction = distances(3, 4, 120, 120).sum(axis=1, call=False)
    with pytest.raises(UnsupportedError, match=r"soft_dtw of series of 120 and 120 elements.*sm_90") as raised:
        reduction.as_text("ptx")
    assert "test_soft_dtw.py" in str(raised.value)
