"""Simplified formulas have the values of the formulas that they replace; which rewrites exist is in lit_tests."""

from collections.abc import Sequence
from typing import Any

import formula_interpreter
import numpy as np
import pytest

from pylazy.compiler.dialects.reduction import lazy_dim
from pylazy.compiler.dialects.reduction.formula_ops import (
    FORMULA_OPS,
    emit_constant,
    emit_formula_op,
    emit_reduce,
    emit_var,
    result_dim,
)
from pylazy.compiler.driver import run_passes
from pylazy.compiler.mlir import func, ir
from pylazy.compiler.passes.reduction_simplify import reduction_simplify
from pylazy.compiler.target import CpuTarget

pytestmark = pytest.mark.usefixtures("context")

ROWS, COLUMNS = 3, 7
DIMS = (("i", 3), ("j", 3), ("j", 1), ("", 1))
CONSTANTS = (0.0, 1.0, -1.0, 2.0, 3.0, 0.25)
#: Where these meet a zero whose sign a rewrite has changed, they tell.
SEE_SIGN_OF_ZERO = {"reciprocal", "div", "atan2", "powi", "pow"}

Array = Any  # an ndarray


def random_formula(values: list[Any], generator: np.random.Generator, length: int, avoid: set[str]) -> Any:
    """Apply random ops, mostly to recent values, so that the rewrites meet each other."""
    names = sorted(set(FORMULA_OPS) - avoid)
    element = ir.F64Type.get()
    values = [*values, *(emit_constant(number, element) for number in CONSTANTS)]
    common = ["add", "sub", "mul", "neg", "square", "inner_sum", "concat", "extract"]
    for _ in range(length):
        name = str(generator.choice(common if generator.random() < 0.6 else names))
        signature = FORMULA_OPS[name]
        chosen = [values[-1 - min(int(generator.exponential(3.0)), len(values) - 1)] for _ in range(signature.arity)]
        dims = [lazy_dim(operand) for operand in chosen]
        start = int(generator.integers(0, dims[0]))
        offered: dict[str, Any] = {
            "exponent": int(generator.integers(-2, 4)),
            "start": start,
            "size": int(generator.integers(1, 4)),
        }
        if signature.result == "contract":
            offered = {"sizes": tuple(dims), "left": (0,), "right": (1,), "kept": (1, 0)}
        attributes = {key: offered[key] for key in signature.attributes}
        dim = result_dim(name, dims, **attributes)
        if dim is not None and dim <= 6:
            values.append(emit_formula_op(name, *chosen, **attributes))
    return values[-1]


def build(seed: int, length: int, avoid: set[str]) -> Any:
    module = ir.Module.create()
    dynamic, f64 = ir.ShapedType.get_dynamic_size(), ir.F64Type.get()
    types = [ir.RankedTensorType.get([dynamic, dim], f64) for _, dim in DIMS]
    with ir.InsertionPoint(module.body):
        function = func.FuncOp("formula", (types, []))
        block = function.add_entry_block()
        with ir.InsertionPoint(block):
            views = [emit_var(tensor, axis) for tensor, (axis, _) in zip(block.arguments, DIMS, strict=True)]
            formula = random_formula(views, np.random.default_rng(seed), length, avoid)
            result = emit_reduce(formula, kind="max", axis="j")
            func.ReturnOp([result])
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, [result.type]))
    module.operation.verify()
    return module


def evaluate(module: Any, arrays: Sequence[Array]) -> Array:
    return formula_interpreter.run_function(module.body.operations[0], arrays, rows=ROWS, columns=COLUMNS)[0]


def simplify(module: Any) -> None:
    run_passes(module, (reduction_simplify,), target=CpuTarget("x86-64"))


def arrays_of(draw: Any) -> list[Array]:
    return [draw(({"i": ROWS, "j": COLUMNS, "": 1}[axis], dim)) for axis, dim in DIMS]


@pytest.mark.parametrize("seed", range(60))
def test_values_of_random_formulas_are_kept(seed: int) -> None:
    generator = np.random.default_rng(1000 + seed)
    arrays = arrays_of(lambda shape: generator.uniform(0.25, 0.9, size=shape))
    module = build(seed, 25, set())
    before = evaluate(module, arrays)
    simplify(module)
    np.testing.assert_allclose(evaluate(module, arrays), before, rtol=1e-12)


@pytest.mark.parametrize("seed", range(60))
def test_nan_and_infinities_of_random_formulas_keep_their_places(seed: int) -> None:
    generator = np.random.default_rng(2000 + seed)
    special = np.array([0.0, 1.0, -2.0, 1e300, -1e300, 1e-300, np.inf, -np.inf, np.nan])
    arrays = arrays_of(lambda shape: generator.choice(special, size=shape))
    module = build(seed, 12, SEE_SIGN_OF_ZERO)
    before = evaluate(module, arrays)
    simplify(module)
    np.testing.assert_allclose(evaluate(module, arrays), before, rtol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_simplifying_twice_changes_nothing(seed: int) -> None:
    module = build(seed, 25, set())
    simplify(module)
    once = str(module)
    simplify(module)
    assert str(module) == once


def test_deep_formula_is_simplified_to_the_end() -> None:
    module = ir.Module.parse(
        """
        func.func @f(%x_rows: tensor<?x1xf32>, %y_rows: tensor<?x1xf32>) {
          %x = "reduction.var"(%x_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
          %y = "reduction.var"(%y_rows) {axis = "i"} : (tensor<?x1xf32>) -> !reduction.lazy<"i", vector<1xf32>>
          return
        }"""
    )
    block = module.body.operations[0].regions[0].blocks[0]
    x, y = (block.operations[k].results[0] for k in (0, 1))
    function_type = ir.FunctionType.get([argument.type for argument in block.arguments], [block.arguments[0].type])
    with ir.InsertionPoint(block.operations[2]):
        for _ in range(300):
            x = emit_formula_op("neg", emit_formula_op("mul", emit_formula_op("neg", x), y))
        func.ReturnOp([emit_reduce(x, kind="sum", axis="j")])
    block.operations[len(block.operations) - 1].operation.erase()
    module.body.operations[0].attributes["function_type"] = ir.TypeAttr.get(function_type)
    simplify(module)
    names = [op.operation.name for op in block.operations]
    assert names.count("reduction.mul") == 300
    assert "reduction.neg" not in names


@pytest.mark.parametrize("element", ["f32", "f64"])
def test_folded_sum_is_rounded_to_the_element_type(element: str) -> None:
    scalar = f'!reduction.lazy<"", vector<1x{element}>>'
    module = ir.Module.parse(
        f"""
        func.func @f() -> tensor<?x1x{element}> {{
          %a = "reduction.constant"() {{value = 0.1 : {element}}} : () -> {scalar}
          %b = "reduction.constant"() {{value = 0.2 : {element}}} : () -> {scalar}
          %c = "reduction.add"(%a, %b) : ({scalar}, {scalar}) -> {scalar}
          %r = "reduction.reduce"(%c) {{axis = "j", kind = "sum"}} : ({scalar}) -> tensor<?x1x{element}>
          return %r : tensor<?x1x{element}>
        }}"""
    )
    simplify(module)
    folded = module.body.operations[0].regions[0].blocks[0].operations[0].operation.attributes["value"].value
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    assert folded == float(dtype(0.1) + dtype(0.2))
