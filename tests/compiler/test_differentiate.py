"""Every derivative against central differences in float64."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import formula_interpreter
import numpy as np
import pytest

from pylazy.compiler.compile import compile_cpu, compile_ptx
from pylazy.compiler.derivatives import DERIVATIVES, READS_RESULT, REDUCTION_DERIVATIVES
from pylazy.compiler.dialects.reduction import attribute, lazy_dim
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
from pylazy.trace import Traced

pytestmark = pytest.mark.usefixtures("context")

ROWS, COLUMNS = 5, 4
TARGET = CpuTarget("x86-64")
ONLY_DIFFERENTIATE = (reduction_differentiate,)
#: Error of a central difference with this step in float64: step**2 from the series, 1e-16 / step from rounding.
STEP = 1e-5
TOLERANCE = 1e-7

Array = Any  # an ndarray
Formula = Callable[..., Any]


def build(variables: Sequence[tuple[str, int]], formula: Formula, *, wrt: Sequence[int] = ()) -> Any:
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
    if wrt:
        function.attributes["reduction.wrt"] = ir.Attribute.parse(str(list(wrt)))
    function.attributes["arg_attrs"] = ir.ArrayAttr.get(
        [ir.DictAttr.get({"reduction.axis": ir.StringAttr.get(axis)}) for axis, _ in variables]
    )
    module.operation.verify()
    return module


def evaluate(module: Any, arrays: Sequence[Array], *, rows: int = ROWS, columns: int = COLUMNS) -> list[Array]:
    return formula_interpreter.run_function(module.body.operations[0], arrays, rows=rows, columns=columns)


def differentiated(module: Any, mode: str, *, passes: Any = FORMULA_PASSES) -> Any:
    """Give the vjp or the jvp with respect to all arguments as a module of its own."""
    changed = ir.Module.parse(str(module))
    function = changed.body.operations[0]
    numbers = list(range(len(function.type.inputs)))
    function.attributes[{"vjp": "reduction.wrt", "jvp": "reduction.tangents"}[mode]] = ir.Attribute.parse(str(numbers))
    run_passes(changed, passes, target=TARGET)
    changed.operation.verify()
    return changed


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


def random_like(arrays: Sequence[Array], seed: int) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=array.shape) for array in arrays]


def inner(first: Sequence[Array], second: Sequence[Array]) -> float:
    return sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))


def saved_results(module: Any, results: Sequence[Array]) -> list[Array]:
    """Give the results that the derivatives of a module read."""
    *_, terminator = module.body.operations[0].regions[0].blocks[0].operations
    kinds = [attribute(result.owner.operation, "kind", "") for result in terminator.operands]
    return [result for result, kind in zip(results, kinds, strict=True) if kind in READS_RESULT]


def check_both_modes(module: Any, arrays: Sequence[Array], *, passes: Any = FORMULA_PASSES) -> None:
    """Compare the tangents with a central difference, and the cotangents with the tangents: one is the other's adjoint.

    Any module will do: one that is a derivative already has its saved results among its arguments.
    """
    results = evaluate(module, arrays)
    tangents, weights = random_like(arrays, 1), random_like(results, 2)
    ends = [evaluate(module, [a + step * t for a, t in zip(arrays, tangents, strict=True)]) for step in (STEP, -STEP)]
    differences = [(end - start) / (2 * STEP) for end, start in zip(*ends, strict=True)]
    saved = saved_results(module, results)

    found = evaluate(differentiated(module, "jvp", passes=passes), [*arrays, *saved, *tangents])
    for tangent, difference in zip(found, differences, strict=True):
        scale = max(1.0, float(np.abs(difference).max()))
        np.testing.assert_allclose(tangent, difference, rtol=0, atol=TOLERANCE * scale)

    gradients = evaluate(differentiated(module, "vjp", passes=passes), [*arrays, *saved, *weights])
    assert [gradient.shape for gradient in gradients] == [array.shape for array in arrays]
    scale = sum(float(np.abs(g * t).sum()) for g, t in zip(gradients, tangents, strict=True))
    np.testing.assert_allclose(inner(gradients, tangents), inner(weights, found), rtol=0, atol=1e-11 * max(1.0, scale))


def check_second_order(module: Any, arrays: Sequence[Array]) -> None:
    """Check both modes on both first derivatives: vjp of vjp, jvp of vjp, vjp of jvp, jvp of jvp."""
    saved = saved_results(module, evaluate(module, arrays))
    given = {"vjp": random_like(evaluate(module, arrays), 3), "jvp": random_like(arrays, 4)}
    for mode, more in given.items():
        check_both_modes(differentiated(module, mode), [*arrays, *saved, *more])


def gaussian(x: Any, y: Any, b: Any) -> Any:
    kernel = emit_formula_op("exp", emit_formula_op("neg", emit_formula_op("sqdist", x, y)))
    return emit_formula_op("mul", kernel, b)


# Every row of the table

#: All but the one that has a derivative in one operand only.
DIFFERENTIABLE = sorted(set(DERIVATIVES) - {"soft_dtw_hessian"})

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


def cases_of(op_name: str) -> list[tuple[list[tuple[str, int]], Formula]]:
    """Give sums of an op of variables on all axes, with all inner dimensions to try."""
    axes = ("i", "j", "", "i")
    formula = sum_of(op_name, **ATTRIBUTES.get(op_name, {}))
    return [([(axes[k], dim) for k, dim in enumerate(dims)], formula) for dims in operand_dims(op_name)]


@pytest.mark.parametrize("passes", [ONLY_DIFFERENTIATE, FORMULA_PASSES], ids=["alone", "pipeline"])
@pytest.mark.parametrize("op_name", sorted(DERIVATIVES))
def test_derivative_matches_finite_differences(op_name: str, passes: Any) -> None:
    for variables, formula in cases_of(op_name):
        if op_name not in DIFFERENTIABLE:
            with pytest.raises(UnsupportedError, match=r"the third derivative of reduction\.soft_dtw"):
                run_passes(build(variables, formula, wrt=[0]), passes, target=TARGET)
            continue
        check_gradients(variables, formula, passes=passes)


@pytest.mark.parametrize("passes", [ONLY_DIFFERENTIATE, FORMULA_PASSES], ids=["alone", "pipeline"])
@pytest.mark.parametrize("op_name", DIFFERENTIABLE)
def test_tangent_matches_finite_differences(op_name: str, passes: Any) -> None:
    for variables, formula in cases_of(op_name):
        check_both_modes(build(variables, formula), default_arrays(variables), passes=passes)


@pytest.mark.parametrize("op_name", sorted(set(DIFFERENTIABLE) - {"soft_dtw_gradient"}))
def test_second_derivatives_match_finite_differences(op_name: str) -> None:
    for variables, formula in cases_of(op_name):
        module, arrays = build(variables, formula), default_arrays(variables)
        if op_name == "soft_dtw":
            check_both_modes(differentiated(module, "vjp"), [*arrays, *random_like(evaluate(module, arrays), 3)])
            check_both_modes(differentiated(module, "jvp"), [*arrays, *random_like(arrays, 4)])
        else:
            check_second_order(module, arrays)


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
def test_hessian_of_soft_dtw_has_a_derivative_in_its_vector_alone(mode: str) -> None:
    ((variables, formula),) = cases_of("soft_dtw_hessian")
    arrays = default_arrays(variables)
    attribute_name = {"vjp": "reduction.wrt", "jvp": "reduction.tangents"}[mode]
    linear, refused = build(variables, formula), build(variables, formula)
    for module, numbers in ((linear, "[3]"), (refused, "[0, 3]")):
        module.body.operations[0].attributes[attribute_name] = ir.Attribute.parse(numbers)
    run_passes(linear, FORMULA_PASSES, target=TARGET)
    forward = build(variables, formula)
    given = random_like(evaluate(forward, arrays) if mode == "vjp" else arrays[3:], 1)
    (found,) = evaluate(linear, [*arrays, *given])
    if mode == "jvp":
        np.testing.assert_allclose(found, evaluate(forward, [*arrays[:3], *given])[0], rtol=1e-12)
    else:
        (along,) = random_like(arrays[3:], 2)
        (other,) = evaluate(forward, [*arrays[:3], along])
        np.testing.assert_allclose(inner([found], [along]), inner(given, [other]), rtol=1e-12)
    with pytest.raises(UnsupportedError, match=r"the third derivative of reduction\.soft_dtw"):
        run_passes(refused, FORMULA_PASSES, target=TARGET)


@pytest.mark.parametrize("axis", ["ij", "ji"])
def test_derivatives_of_dense_arrays_and_of_tables_match_finite_differences(axis: str) -> None:
    variables = [("i", 3), ("j", 1), (axis, 3)]

    def table(*operands: Any) -> Any:
        return emit_tabulate(emit_formula_op("mul", gaussian(*operands[:2], operands[2]), operands[2]), axis)

    for formula in (table, lambda x, y, a: emit_reduce(gaussian(x, y, a), kind="sum", axis="i")):
        check_gradients(variables, formula)
        module = build(variables, formula)
        check_both_modes(module, default_arrays(variables))
        check_second_order(module, default_arrays(variables))


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
    assert set(DERIVATIVES) == set(FORMULA_OPS)


# Singular points


def gradient_at(op_name: str, *columns: Sequence[float]) -> list[Array]:
    """Gradient of one op of one component at given values, for cotangent 1."""
    variables = [("j", 1)] * len(columns)
    module = build(variables, sum_of(op_name), wrt=range(len(columns)))
    run_passes(module, FORMULA_PASSES, target=TARGET)
    arrays = [np.array(values, dtype=float)[:, None] for values in columns]
    results = evaluate(module, [*arrays, np.ones((1, 1))], rows=1, columns=len(columns[0]))
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


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
@pytest.mark.parametrize(
    ("op_name", "at", "expected"),
    [
        ("sqrt", [0.0], 0.0),
        ("rsqrt", [0.0], 0.0),
        ("relu", [0.0], 0.0),
        ("abs", [0.0], 0.0),
        ("sinxdivx", [0.0], -1 / 3),
        ("asin", [1.0], 0.0),
        ("acos", [-1.0], 0.0),
        ("norm2", [0.0], 0.0),
        ("normalize", [0.0], 0.0),
        ("step", [0.0], 0.0),
        ("hypot", [0.0, 0.0], 0.0),
        ("atan2", [0.0, 0.0], 0.0),
        ("pow", [0.0, 2.0], 2.0),
        ("pow", [0.0, 0.0], 0.0),
        ("pow", [0.0, 3.0], 0.0),
        ("clamp", [0.0, 0.0, 1.0], 0.0),
        ("maximum", [0.0, 0.0], 0.0),
    ],
)
def test_second_derivative_at_singular_point(op_name: str, at: Sequence[float], expected: float, mode: str) -> None:
    gradient = differentiated(build([("j", 1)] * len(at), sum_of(op_name)), "vjp")
    again = differentiated(gradient, mode)
    point = [*(np.full((1, 1), value) for value in at), np.ones((1, 1))]
    unit = [np.ones((1, 1)), *(np.zeros((1, 1)) for _ in at[1:])]  # in the direction of x, of the derivative in x
    more = unit if mode == "vjp" else [*unit, np.zeros((1, 1))]
    found = evaluate(again, [*point, *more], rows=1, columns=1)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], expected, rtol=1e-14)


def test_mixed_second_derivative_of_power_holds_at_exponent_zero() -> None:
    again = differentiated(differentiated(build([("j", 1)] * 2, sum_of("pow")), "vjp"), "vjp")
    given = [np.full((1, 1), value) for value in (4.0, 0.0, 1.0, 1.0, 0.0)]
    found = evaluate(again, given, rows=1, columns=1)
    assert [value.item() for value in found[:2]] == [0.0, 0.25]


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
@pytest.mark.parametrize("kind", sorted(REDUCTION_DERIVATIVES))
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


@pytest.mark.parametrize("axis", ["i", "j"])
@pytest.mark.parametrize("kind", sorted(REDUCTION_DERIVATIVES))
def test_second_derivatives_of_reduction_match_finite_differences(kind: str, axis: str) -> None:
    module = build(VARIABLES, weighted(kind, axis))
    check_both_modes(module, default_arrays(VARIABLES))
    check_second_order(module, default_arrays(VARIABLES))


@pytest.mark.parametrize("kind", ["prod", "softmax"])
def test_derivatives_of_derivatives_compile_for_both_targets(kind: str) -> None:
    module = differentiated(differentiated(build(VARIABLES, weighted(kind, "j")), "jvp"), "vjp")
    traced = Traced(module)
    roles = [(buffer.role, buffer.axis) for buffer in compile_cpu(traced, "x86-64").buffers]
    gradients = [axis for role, axis in roles if role == "output"]
    assert gradients == [axis for role, axis in roles if role == "input"][: len(gradients)]
    assert compile_ptx(traced, "sm_80").kernels


def test_third_derivatives_match_finite_differences() -> None:
    variables = [("i", 2), ("j", 2), ("", 1)]
    module = build(variables, lambda *some: emit_reduce(gaussian(*some), kind="sum", axis="j"))
    arrays = default_arrays(variables)
    for modes in itertools.product(["vjp", "jvp"], repeat=2):
        derivative, given = module, arrays
        for mode in modes:
            more = random_like(given if mode == "jvp" else evaluate(derivative, given), 5)
            derivative, given = differentiated(derivative, mode), [*given, *more]
        check_both_modes(derivative, given)


def test_second_derivatives_of_several_results_and_reductions_of_reductions_match_finite_differences() -> None:
    def formula(x: Any, y: Any, p: Any) -> Any:
        kernel = gaussian(x, y, p)
        density = emit_var(emit_reduce(kernel, kind="sum", axis="j"), "i")
        scaled = emit_formula_op("mul", emit_formula_op("square", density), y)
        return [emit_reduce(scaled, kind="logsumexp", axis="i"), emit_reduce(kernel, kind="prod", axis="j")]

    variables = [("i", 1), ("j", 1), ("", 1)]
    check_second_order(build(variables, formula), default_arrays(variables))


def test_second_derivative_goes_through_the_saved_result() -> None:
    """The saved result depends on the arguments: its own cotangent is pulled back by the first derivative."""
    variables = [("i", 2), ("j", 2)]
    module = build(variables, lambda x, y: emit_reduce(emit_formula_op("sqdist", x, y), kind="logsumexp", axis="j"))
    gradient = differentiated(module, "vjp")
    again = differentiated(gradient, "vjp")
    arrays = default_arrays(variables)
    cotangent = random_like(evaluate(module, arrays), 6)
    weights = random_like(arrays, 7)

    def weighted_gradient(changed: Sequence[Array]) -> float:
        return inner(weights, evaluate(gradient, [*changed, *evaluate(module, changed), *cotangent]))

    saved = evaluate(module, arrays)
    in_x, in_y, in_saved, _ = evaluate(again, [*arrays, *saved, *cotangent, *weights])
    through = evaluate(gradient, [*arrays, *saved, in_saved])
    direction = random_like(arrays, 8)
    ends = [weighted_gradient([a + step * d for a, d in zip(arrays, direction, strict=True)]) for step in (STEP, -STEP)]
    found = inner([in_x + through[0], in_y + through[1]], direction)
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * STEP), rtol=1e-7)


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_second_derivatives_of_products_are_exact_where_factors_are_zero(zeros: int) -> None:
    factors = np.array([2.0, 3.0, 5.0, 7.0])
    factors[:zeros] = 0.0
    others = [[np.prod(np.delete(factors, [a, b])) if a != b else 0.0 for a in range(4)] for b in range(4)]
    over_columns = build([("j", 1)], lambda x: emit_reduce(x, kind="prod", axis="j"))
    inside = build([("i", 4)], sum_of("inner_prod"))
    for module, array, repeated in ((over_columns, factors[:, None], ROWS), (inside, factors[None], COLUMNS)):
        rows = ROWS if array.shape[1] == 1 else 1
        again = differentiated(differentiated(module, "vjp"), "jvp")
        for k in range(4):
            unit = np.eye(4)[k].reshape(array.shape)
            given = [array, np.ones((rows, 1)), unit, np.zeros((rows, 1))]
            found = evaluate(again, given, rows=rows)
            np.testing.assert_allclose(found[0].ravel(), np.multiply(others[k], repeated), rtol=1e-14)


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


@pytest.mark.parametrize("kind", sorted(REDUCTIONS - set(REDUCTION_DERIVATIVES)))
def test_reduction_without_derivative_is_refused_with_its_line(kind: str) -> None:
    def formula(x: Any) -> Any:
        k = 2 if kind.endswith(("kmin", "kmax")) else 0
        with ir.Location.name("argmin", ir.Location.file(__file__, 3, 1)):
            return emit_reduce(x, kind=kind, axis="j", k=k)

    module = build([("j", 2)], formula, wrt=[0])
    with pytest.raises(UnsupportedError, match=rf'"{kind}" has no derivative\n  at .*test_differentiate.py:3'):
        run_passes(module, FORMULA_PASSES, target=TARGET)
    assert set(INDEX_REDUCTIONS) <= REDUCTIONS - set(REDUCTION_DERIVATIVES)


def test_reduction_without_derivative_is_refused_in_forward_mode_though_only_a_step() -> None:
    def formula(x: Any) -> Any:
        smallest = emit_var(emit_reduce(x, kind="min", axis="j"), "i")
        return emit_reduce(emit_formula_op("square", smallest), kind="sum", axis="j")

    with pytest.raises(UnsupportedError, match='"min" has no derivative'):
        differentiated(build([("j", 2)], formula), "jvp")


def test_tangent_of_an_argument_on_two_axes_is_that_of_both_views() -> None:
    text = """
    func.func @formula(%x_rows: tensor<?x1xf64>) -> tensor<?x1xf64> {
      %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf64>) -> !reduction.lazy<"i", vector<1xf64>>
      %y = "reduction.var"(%x_rows) {axis = "j"} : (tensor<?x1xf64>) -> !reduction.lazy<"j", vector<1xf64>>
      %d = "reduction.sqdist"(%x, %y) : (!reduction.lazy<"i", vector<1xf64>>, !reduction.lazy<"j", vector<1xf64>>)
        -> !reduction.lazy<"ij", vector<1xf64>>
      %r = "reduction.reduce"(%d) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf64>>)
        -> tensor<?x1xf64>
      return %r : tensor<?x1xf64>
    }"""
    generator = np.random.default_rng(0)
    x, t = generator.normal(size=(2, COLUMNS, 1))
    module = differentiated(ir.Module.parse(text), "jvp")
    found = evaluate(module, [x, t], rows=COLUMNS, columns=COLUMNS)[0]
    expected = (2 * (x - x.T) * (t - t.T)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_names_of_new_arguments_stay_distinct() -> None:
    again = differentiated(differentiated(build([("j", 2)], sum_of("exp")), "vjp"), "vjp")
    attributes = ir.ArrayAttr(again.body.operations[0].attributes["arg_attrs"])
    names = [entry["reduction.name"].value for entry in attributes if "reduction.name" in entry]
    assert names == ["cotangent0", "cotangent0_2"]


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
