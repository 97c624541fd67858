"""Every derivative against central differences in float64."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import formula_interpreter
import numpy as np
import pytest

from pylazy.compiler.derivatives import REDUCTION_VJP, VJP
from pylazy.compiler.dialects.reduction import lazy_dim
from pylazy.compiler.dialects.reduction.formula_ops import (
    FORMULA_OPS,
    INDEX_REDUCTIONS,
    REDUCTIONS,
    emit_constant,
    emit_formula_op,
    emit_reduce,
    emit_tabulate,
    emit_var,
)
from pylazy.compiler.driver import run_passes
from pylazy.compiler.mlir import func, ir
from pylazy.compiler.passes.reduction_differentiate import reduction_differentiate
from pylazy.compiler.pipelines import FORMULA_PASSES
from pylazy.compiler.target import CpuTarget
from pylazy.runtime.errors import CompileError, UnsupportedError

pytestmark = pytest.mark.usefixtures("context")

ROWS, COLUMNS = 5, 4
TARGET = CpuTarget("x86-64")
ONLY_DIFFERENTIATE = (reduction_differentiate,)
#: Error of a central difference with this step in float64: step**2 from the series, 1e-16 / step from rounding.
STEP = 1e-5
TOLERANCE = 1e-7

Array = Any  # an ndarray
Formula = Callable[..., Any]


def build(variables: Sequence[tuple[str, int]], formula: Formula, *, wrt: Sequence[int]) -> Any:
    """Make a module with one function; `formula` gets lazy variables and returns tensors."""
    module = ir.Module.create()
    dynamic, f64 = ir.ShapedType.get_dynamic_size(), ir.F64Type.get()
    types = [ir.RankedTensorType.get([dynamic, dim], f64) for _, dim in variables]
    with ir.InsertionPoint(module.body):
        function = func.FuncOp("formula", (types, []))
        block = function.add_entry_block()
        with ir.InsertionPoint(block):
            views = [emit_var(tensor, axis) for tensor, (axis, _) in zip(block.arguments, variables, strict=True)]
            results = formula(*views)
            results = results if isinstance(results, list) else [results]
            func.ReturnOp(results)
    function_type = ir.FunctionType.get(types, [value.type for value in results])
    function.attributes["function_type"] = ir.TypeAttr.get(function_type)
    function.attributes["reduction.wrt"] = ir.Attribute.parse(str(list(wrt)))
    function.attributes["arg_attrs"] = ir.ArrayAttr.get(
        [ir.DictAttr.get({"reduction.axis": ir.StringAttr.get(axis)}) for axis, _ in variables]
    )
    module.operation.verify()
    return module


def evaluate(module: Any, arrays: Sequence[Array]) -> list[Array]:
    return formula_interpreter.run_function(module.body.operations[0], arrays, rows=ROWS, columns=COLUMNS)


def rows_of(axis: str) -> int:
    return {"i": ROWS, "j": COLUMNS, "": 1, "ij": ROWS * COLUMNS, "ji": ROWS * COLUMNS}[axis]


def default_arrays(variables: Sequence[tuple[str, int]]) -> list[Array]:
    """Values well inside of the domain of every function: away from 0, poles, jumps and ties."""
    generator = np.random.default_rng(0)
    return [generator.uniform(0.25, 0.9, size=(rows_of(axis), dim)) for axis, dim in variables]


def check_gradients(
    variables: Sequence[tuple[str, int]],
    formula: Formula,
    *,
    passes: Any = FORMULA_PASSES,
    saves: bool = False,
    arrays: Sequence[Array] | None = None,
) -> None:
    """Compare the gradients with respect to all variables with central differences of a random functional."""
    arrays = default_arrays(variables) if arrays is None else list(arrays)
    forward = build(variables, formula, wrt=[])
    results = evaluate(forward, arrays)
    generator = np.random.default_rng(1)
    weights = [generator.normal(size=result.shape) for result in results]

    def functional(changed: Sequence[Array]) -> float:
        return sum(float((w * r).sum()) for w, r in zip(weights, evaluate(forward, changed), strict=True))

    backward = build(variables, formula, wrt=range(len(variables)))
    run_passes(backward, passes, target=TARGET)
    gradients = evaluate(backward, [*arrays, *(results if saves else []), *weights])
    assert len(gradients) == len(variables)
    for number, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        assert gradient.shape == array.shape
        differences = np.empty_like(array)
        for index in np.ndindex(*array.shape):
            values = []
            for step in (STEP, -STEP):
                changed = [some.copy() for some in arrays]
                changed[number][index] += step
                values.append(functional(changed))
            differences[index] = (values[0] - values[1]) / (2 * STEP)
        scale = max(1.0, float(np.abs(differences).max()))
        np.testing.assert_allclose(gradient, differences, rtol=0, atol=TOLERANCE * scale, err_msg=f"argument {number}")


def gaussian(x: Any, y: Any, b: Any) -> Any:
    kernel = emit_formula_op("exp", emit_formula_op("neg", emit_formula_op("sqdist", x, y)))
    return emit_formula_op("mul", kernel, b)


# Every row of the table

ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "powi": {"exponent": 3},
    "extract": {"start": 1, "size": 1},
    "broadcast": {"size": 3},
    "one_hot": {"size": 3},
    # A matrix (2, 3) times a tensor (3, 2, 2) along their axes of size 3 and one of size 2, transposed.
    "contract": {"sizes": (2, 3, 2), "left": (0, 1), "right": (1, 2, 0), "kept": (2, 0)},
}


def operand_dims(op_name: str) -> list[tuple[int, ...]]:
    """Inner dimensions to try: equal ones, and each operand broadcast."""
    arity, result = FORMULA_OPS[op_name].arity, FORMULA_OPS[op_name].result
    if result == "broadcast":
        return [(1,)]
    if result == "concat":
        return [(3, 2)]
    if result == "contract":
        return [(6, 12)]
    if result.startswith("soft_dtw"):
        return [(3, 2, 1, 6)[:arity]]
    broadcasts = [tuple(1 if k == narrow else 3 for k in range(arity)) for narrow in range(arity)] if arity > 1 else []
    return [(3,) * arity, *broadcasts]


def sum_of(op_name: str, **attributes: Any) -> Formula:
    """Sum over j of an op; a weighting of components tells cotangents of components apart."""

    def formula(*operands: Any) -> Any:
        return emit_reduce(emit_formula_op(op_name, *operands, **attributes), kind="sum", axis="j")

    return formula


@pytest.mark.parametrize("passes", [ONLY_DIFFERENTIATE, FORMULA_PASSES], ids=["alone", "pipeline"])
@pytest.mark.parametrize("op_name", sorted(VJP))
def test_derivative_matches_finite_differences(op_name: str, passes: Any) -> None:
    axes = ("i", "j", "", "i")
    for dims in operand_dims(op_name):
        variables = [(axes[k], dim) for k, dim in enumerate(dims)]
        if op_name == "soft_dtw_hessian":
            with pytest.raises(UnsupportedError, match=r"the third derivative of reduction\.soft_dtw"):
                run_passes(build(variables, sum_of(op_name), wrt=[0]), passes, target=TARGET)
            continue
        check_gradients(variables, sum_of(op_name, **ATTRIBUTES.get(op_name, {})), passes=passes)


@pytest.mark.parametrize("axis", ["ij", "ji"])
def test_derivatives_of_dense_arrays_and_of_tables_match_finite_differences(axis: str) -> None:
    variables = [("i", 3), ("j", 1), (axis, 3)]

    def table(*operands: Any) -> Any:
        return emit_tabulate(emit_formula_op("mul", gaussian(*operands[:2], operands[2]), operands[2]), axis)

    check_gradients(variables, table)
    check_gradients(variables, lambda x, y, a: emit_reduce(gaussian(x, y, a), kind="sum", axis="i"))


@pytest.mark.parametrize("exponent", [-2, -1, 0, 1, 2, 5])
def test_derivative_of_integer_power_matches_finite_differences(exponent: int) -> None:
    check_gradients([("j", 2)], sum_of("powi", exponent=exponent))


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.6), (0.9, 0.1)])
def test_derivative_of_clamp_matches_finite_differences(low: float, high: float) -> None:
    arrays = [default_arrays([("i", 3)])[0], np.full((COLUMNS, 1), low), np.full((1, 1), high)]
    check_gradients([("i", 3), ("j", 1), ("", 1)], sum_of("clamp"), arrays=arrays)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.4999, 0.5001, 3.0])
def test_derivative_of_sinxdivx_is_accurate_at_all_scales(scale: float) -> None:
    module = build([("j", 1)], sum_of("sinxdivx"), wrt=[0])
    run_passes(module, FORMULA_PASSES, target=TARGET)
    gradient = evaluate(module, [np.full((COLUMNS, 1), scale), np.ones((ROWS, 1))])[0] / ROWS
    series = sum((-1) ** n * 2 * n * scale ** (2 * n - 1) / math.factorial(2 * n + 1) for n in range(1, 30))
    np.testing.assert_allclose(gradient, np.full((COLUMNS, 1), series), rtol=1e-13)


def test_table_has_a_row_for_every_formula_op() -> None:
    assert set(VJP) == set(FORMULA_OPS)


# Singular points


def gradient_at(op_name: str, *columns: Sequence[float]) -> list[Array]:
    """Gradient of one op of one component at given values, for cotangent 1."""
    variables = [("j", 1)] * len(columns)
    module = build(variables, sum_of(op_name), wrt=range(len(columns)))
    run_passes(module, FORMULA_PASSES, target=TARGET)
    arrays = [np.array(values, dtype=float)[:, None] for values in columns]
    results = formula_interpreter.run_function(
        module.body.operations[0], [*arrays, np.ones((1, 1))], rows=1, columns=len(columns[0])
    )
    return [result[:, 0] for result in results]


@pytest.mark.parametrize(
    ("op_name", "at", "expected"),
    [
        ("sqrt", 0.0, 0.0),
        ("rsqrt", 0.0, 0.0),
        ("relu", 0.0, 1.0),
        ("relu", -1.0, 0.0),
        ("abs", 0.0, 0.0),
        ("sinxdivx", 0.0, 0.0),
        ("norm2", 0.0, 0.0),
        ("normalize", 0.0, 0.0),
        ("step", 0.0, 0.0),
        ("sign", 0.0, 0.0),
    ],
)
def test_derivative_at_singular_point(op_name: str, at: float, expected: float) -> None:
    assert gradient_at(op_name, [at])[0].tolist() == [expected]


def test_norm_of_a_zero_vector_has_gradient_zero() -> None:
    for op_name in ("norm2", "normalize"):
        module = build([("i", 3)], sum_of(op_name), wrt=[0])
        run_passes(module, FORMULA_PASSES, target=TARGET)
        cotangent = np.ones((ROWS, 1 if op_name == "norm2" else 3))
        assert not evaluate(module, [np.zeros((ROWS, 3)), cotangent])[0].any()


@pytest.mark.parametrize("op_name", ["minimum", "maximum"])
def test_tie_goes_to_the_first_operand(op_name: str) -> None:
    first, second = gradient_at(op_name, [2.0], [2.0])
    assert (first.tolist(), second.tolist()) == ([1.0], [0.0])


def test_clamp_passes_the_cotangent_on_the_closed_interval() -> None:
    x, low, high = gradient_at("clamp", [1.0, 2.0, 0.5, 3.0], [1.0] * 4, [2.0] * 4)
    assert x.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert low.tolist() == [0.0, 0.0, 1.0, 0.0]
    assert high.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_power_of_zero_has_finite_derivatives() -> None:
    base, exponent = gradient_at("pow", [0.0, 0.0], [2.0, 0.0])
    assert base.tolist() == [0.0, 0.0]
    assert exponent.tolist() == [0.0, 0.0]


def test_inner_minimum_gives_the_cotangent_to_the_first_of_equal_components() -> None:
    module = build([("i", 3)], sum_of("inner_min"), wrt=[0])
    run_passes(module, FORMULA_PASSES, target=TARGET)
    gradient = evaluate(module, [np.ones((ROWS, 3)), np.ones((ROWS, 1))])[0]
    assert gradient.tolist() == [[COLUMNS, 0.0, 0.0]] * ROWS


# Reductions

VARIABLES = [("i", 3), ("j", 3), ("j", 2), ("", 1)]


def weighted(kind: str, axis: str) -> Formula:
    def formula(x: Any, y: Any, b: Any, p: Any) -> Any:
        exponent = emit_formula_op("mul", emit_formula_op("neg", emit_formula_op("sqdist", x, y)), p)
        if kind in {"softmax", "logsumexp"}:
            return emit_reduce(exponent, kind=kind, axis=axis, weight=emit_formula_op("mul", b, p))
        return emit_reduce(emit_formula_op("mul", emit_formula_op("exp", exponent), b), kind=kind, axis=axis)

    return formula


@pytest.mark.parametrize("axis", ["i", "j"])
@pytest.mark.parametrize("kind", sorted(REDUCTION_VJP))
def test_gradient_of_reduction_matches_finite_differences(kind: str, axis: str) -> None:
    check_gradients(VARIABLES, weighted(kind, axis), saves=kind in {"logsumexp", "softmax"})


@pytest.mark.parametrize("axis", ["i", "j"])
def test_gradient_of_logsumexp_without_weight_matches_finite_differences(axis: str) -> None:
    def formula(x: Any, y: Any, p: Any) -> Any:
        distance = emit_formula_op("mul", emit_formula_op("sqdist", x, y), p)
        return emit_reduce(emit_formula_op("neg", distance), kind="logsumexp", axis=axis)

    check_gradients([("i", 3), ("j", 3), ("", 1)], formula, saves=True)


@pytest.mark.parametrize("axis", ["i", "j"])
@pytest.mark.parametrize("variable", ["i", "j", ""])
def test_formula_that_varies_with_one_axis_counts_every_pair(variable: str, axis: str) -> None:
    check_gradients([(variable, 2)], lambda x: emit_reduce(emit_formula_op("square", x), kind="sum", axis=axis))


def test_variable_without_influence_has_gradient_zero() -> None:
    variables = [("i", 2), ("j", 2), ("", 3), ("i", 3)]
    check_gradients(variables, lambda x, y, p, q: emit_reduce(emit_formula_op("step", x), kind="sum", axis="j"))


def test_several_results_add_their_gradients() -> None:
    def formula(x: Any, y: Any, b: Any) -> Any:
        shared = gaussian(x, y, b)
        return [emit_reduce(shared, kind="sum", axis="j"), emit_reduce(shared, kind="sum", axis="i")]

    check_gradients([("i", 3), ("j", 3), ("j", 2)], formula)


def test_result_of_one_reduction_may_be_read_by_the_next() -> None:
    def formula(x: Any, y: Any, b: Any) -> Any:
        density = emit_var(emit_reduce(gaussian(x, y, b), kind="sum", axis="j"), "i")
        return emit_reduce(emit_formula_op("mul", emit_formula_op("square", density), y), kind="sum", axis="i")

    check_gradients([("i", 3), ("j", 3), ("", 1)], formula)


def test_gradient_can_be_differentiated_again() -> None:
    variables = [("i", 3), ("j", 3), ("j", 2)]
    module = build(variables, lambda *some: emit_reduce(gaussian(*some), kind="sum", axis="j"), wrt=[0])
    run_passes(module, FORMULA_PASSES, target=TARGET)
    arrays = [*default_arrays(variables), np.random.default_rng(2).normal(size=(ROWS, 2))]
    function = module.body.operations[0]
    function.attributes["reduction.wrt"] = ir.Attribute.parse("[0, 1, 2, 3]")
    weight = np.random.default_rng(3).normal(size=(ROWS, 3))
    first = ir.Module.parse(str(module).replace("reduction.wrt", "some.wrt"))
    run_passes(module, FORMULA_PASSES, target=TARGET)
    gradients = evaluate(module, [*arrays, weight])
    for number, gradient in enumerate(gradients):
        direction = np.random.default_rng(4 + number).normal(size=gradient.shape)
        values = []
        for step in (STEP, -STEP):
            changed = list(arrays)
            changed[number] = changed[number] + step * direction
            values.append(float((evaluate(first, changed)[0] * weight).sum()))
        difference = (values[0] - values[1]) / (2 * STEP)
        np.testing.assert_allclose((gradient * direction).sum(), difference, rtol=1e-7)


def test_logsumexp_of_minus_infinity_has_gradient_zero() -> None:
    def formula(x: Any, y: Any) -> Any:
        return emit_reduce(emit_formula_op("add", x, y), kind="logsumexp", axis="j")

    module = build([("i", 1), ("j", 1)], formula, wrt=[0, 1])
    run_passes(module, FORMULA_PASSES, target=TARGET)
    x, y = np.zeros((ROWS, 1)), np.zeros((COLUMNS, 1))
    x[0], y[1] = -np.inf, -np.inf
    with np.errstate(divide="ignore"):
        saved = np.log(np.exp(x + y.T).sum(axis=1, keepdims=True))
    in_x, in_y = evaluate(module, [x, y, saved, np.ones((ROWS, 1))])
    assert in_x[:, 0].tolist() == [0.0, *[1.0] * (ROWS - 1)]
    share = (ROWS - 1) / (COLUMNS - 1)
    np.testing.assert_allclose(in_y[:, 0], [share, 0.0, *[share] * (COLUMNS - 2)])


# What is refused, and what is left behind


@pytest.mark.parametrize("kind", sorted(REDUCTIONS - set(REDUCTION_VJP)))
def test_reduction_without_derivative_is_refused_with_its_line(kind: str) -> None:
    def formula(x: Any) -> Any:
        k = 2 if kind.endswith(("kmin", "kmax")) else 0
        with ir.Location.name("argmin", ir.Location.file(__file__, 3, 1)):
            return emit_reduce(x, kind=kind, axis="j", k=k)

    module = build([("j", 2)], formula, wrt=[0])
    with pytest.raises(UnsupportedError, match=rf'"{kind}" has no derivative\n  at .*test_differentiate.py:3'):
        run_passes(module, FORMULA_PASSES, target=TARGET)
    assert set(INDEX_REDUCTIONS) <= REDUCTIONS - set(REDUCTION_VJP)


def test_argument_number_out_of_range_is_refused() -> None:
    module = build([("j", 2)], sum_of("exp"), wrt=[1])
    with pytest.raises(CompileError, match="asks for argument 1, but the function has 1"):
        run_passes(module, ONLY_DIFFERENTIATE, target=TARGET)


def test_derivative_ops_have_the_location_of_their_forward_op() -> None:
    def formula(x: Any) -> Any:
        with ir.Location.file("user.py", 42, 1):
            sine = emit_formula_op("sin", x)
        return emit_reduce(sine, kind="sum", axis="j")

    module = build([("j", 2)], formula, wrt=[0])
    run_passes(module, ONLY_DIFFERENTIATE, target=TARGET)
    operations = {op.operation.name: op.operation for op in module.body.operations[0].regions[0].blocks[0].operations}
    assert '"user.py":42:1' in str(operations["reduction.cos"].location)
    assert "reduction.sin" not in operations


def test_gradient_of_gaussian_shares_the_kernel_between_both_sides() -> None:
    variables = [("i", 3), ("j", 3), ("j", 1)]
    module = build(variables, lambda *some: emit_reduce(gaussian(*some), kind="sum", axis="j"), wrt=[0, 1, 2])
    run_passes(module, FORMULA_PASSES, target=TARGET)
    names = [op.operation.name for op in module.body.operations[0].regions[0].blocks[0].operations]
    assert names.count("reduction.exp") == 1
    assert names.count("reduction.sqdist") == 1


def test_constant_of_any_type_is_differentiated_in_that_type() -> None:
    def formula(x: Any) -> Any:
        return emit_reduce(emit_formula_op("mul", x, emit_constant(3.0, ir.F64Type.get())), kind="sum", axis="j")

    module = build([("j", 1)], formula, wrt=[0])
    run_passes(module, FORMULA_PASSES, target=TARGET)
    assert lazy_dim(module.body.operations[0].regions[0].blocks[0].operations[0].results[0]) == 1
    assert "f32" not in str(module)
