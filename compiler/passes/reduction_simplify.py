"""Rewrite formulas to cheaper ones of the same value."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pylazy.compiler.dialects.reduction import (
    attribute,
    join_axes,
    lazy_axes,
    lazy_dim,
    lazy_type,
    lazy_vector,
    name_of,
)
from pylazy.compiler.dialects.reduction.formula_ops import FORMULA_OPS, emit_constant, emit_formula_op
from pylazy.compiler.mlir import ir, rewrite
from pylazy.compiler.target import Target


def reduction_simplify(module: ir.Module, *, target: Target) -> None:
    """Apply the algebra of formulas until nothing changes.

    Runs first, on what the user wrote, because distances and squares that are recognised here differentiate to fewer
    ops; runs again after reduction-differentiate, which leaves products with 1 and needless broadcasts. Sharing is left
    to cse.

    NaN and infinities keep their places: there is no `x - x` to 0 and no `x * 0` to 0. Values keep their bits, with
    five exceptions: the sign of a zero (`x + 0` is `x`), `pow` with a small integer exponent becomes a product, `pow`
    with exponent 0.5 becomes `sqrt` (they differ at -inf), the order of addition inside one inner product, and the sum
    of equal components, which is a product.
    """
    del target  # algebra is the same on all machines
    patterns = rewrite.RewritePatternSet()
    for op_name, rewrites in _REWRITES.items():
        patterns.add(f"reduction.{op_name}", _first_that_applies(rewrites))
    config = rewrite.GreedyRewriteConfig()
    # No limit: ops built here are only visited in the next iteration, so a deep formula needs many; each shrinks it.
    config.max_iterations = -1
    rewrite.apply_patterns_and_fold_greedily(module, patterns.freeze(), config)
    _narrow_axes(module)


#: Gives the value that replaces the op's result, None where the rewrite does not apply.
Rewrite = Callable[[Any], "ir.Value | None"]


def _first_that_applies(rewrites: tuple[Rewrite, ...]) -> Callable[[Any, Any], bool]:
    def pattern(op: Any, rewriter: Any) -> bool:
        operation = op.operation
        with rewriter.ip, operation.location:
            for some in rewrites:
                replacement = some(operation)
                if replacement is not None:
                    rewriter.replace_op(operation, [replacement])  # the op is gone: nothing may touch it from here
                    return False
        return True

    return pattern


def _narrow_axes(module: ir.Module) -> None:
    """Give each value the axes of its operands: a rewrite that drops an operand may have taken an axis away."""

    def narrow(operation: Any) -> Any:
        if name_of(operation).removeprefix("reduction.") in FORMULA_OPS:
            result = operation.results[0]
            axes = join_axes([lazy_axes(operand) for operand in operation.operands])
            if axes != lazy_axes(result):
                result.set_type(lazy_type(axes, lazy_vector(result)))
        return ir.WalkResult.ADVANCE

    module.operation.walk(narrow, ir.WalkOrder.PRE_ORDER)


def _defined_by(value: ir.Value, op_name: str) -> Any:
    """Give the op that defines a value if it has this name, else None."""
    owner = value.owner
    return owner.operation if name_of(owner) == f"reduction.{op_name}" else None


def _number(value: ir.Value) -> "float | None":
    """Give the number of a constant, None for other values."""
    constant = _defined_by(value, "constant")
    return None if constant is None else float(attribute(constant, "value"))


def _constant_like(number: float, value: ir.Value) -> ir.Value:
    return emit_constant(number, lazy_vector(value).element_type)


def _widened(value: ir.Value, dim: int) -> ir.Value:
    return value if lazy_dim(value) == dim else emit_formula_op("broadcast", value, size=dim)


def _is_power_of_two(number: float) -> bool:
    return math.isfinite(number) and abs(math.frexp(number)[0]) == 0.5


def _is_normal(number: float, element: ir.Type) -> bool:
    """Tell whether a number is neither 0, nor too small, nor too large for the full precision of an element type."""
    smallest = -126 if isinstance(element, ir.F32Type) else -1022
    return smallest <= math.frexp(number)[1] - 1 <= -smallest if math.isfinite(number) and number else False


# Constants


_FOLDED: Mapping[str, Callable[..., float]] = {
    "neg": lambda x: -x,
    "abs": abs,
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1.0 / x,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "minimum": min,
    "maximum": max,
    "pow": math.pow,
}


def fold_constants(op: Any) -> "ir.Value | None":
    """Rewrite constant op constant -> constant, where all is finite."""
    numbers = [_number(operand) for operand in op.operands]
    if any(number is None or not math.isfinite(number) for number in numbers):
        return None
    try:
        folded = _FOLDED[op.name.removeprefix("reduction.")](*numbers)
    except (ArithmeticError, ValueError):  # a pole or an overflow: its infinity or NaN is the kernel's to make
        return None
    return _constant_like(folded, op.operands[0]) if math.isfinite(folded) else None


def move_constant_to_the_right(op: Any) -> "ir.Value | None":
    """Rewrite c + x -> x + c, c * x -> x * c."""
    left, right = op.operands
    if _number(left) is None or _number(right) is not None:
        return None
    return emit_formula_op(op.name.removeprefix("reduction."), right, left)


def drop_addition_of_zero(op: Any) -> "ir.Value | None":
    """Rewrite x + 0 -> x, x - 0 -> x."""
    return op.operands[0] if _number(op.operands[1]) == 0 else None


def turn_subtraction_from_zero_into_negation(op: Any) -> "ir.Value | None":
    """Rewrite 0 - x -> -x."""
    return emit_formula_op("neg", op.operands[1]) if _number(op.operands[0]) == 0 else None


def drop_multiplication_by_one(op: Any) -> "ir.Value | None":
    """Rewrite x * 1 -> x, x * -1 -> -x."""
    number = _number(op.operands[1])
    if number == -1:
        return emit_formula_op("neg", op.operands[0])
    return op.operands[0] if number == 1 else None


def turn_exact_division_into_multiplication(op: Any) -> "ir.Value | None":
    """Rewrite x / 2**n -> x * 2**-n; other divisors have no exact reciprocal."""
    number = _number(op.operands[1])
    if number is None or not _is_power_of_two(number):
        return None
    element = lazy_vector(op.operands[1]).element_type
    if not (_is_normal(number, element) and _is_normal(1 / number, element)):
        return None
    return emit_formula_op("mul", op.operands[0], _constant_like(1 / number, op.operands[1]))


def merge_multiplications_by_constants(op: Any) -> "ir.Value | None":
    """Rewrite (x * a) * b -> x * (a * b) if one is a power of two and both shrink or both grow: no bit changes."""
    outer, inner = _number(op.operands[1]), _defined_by(op.operands[0], "mul")
    if outer is None or inner is None:
        return None
    factor = _number(inner.operands[1])
    if factor is None or not (_is_power_of_two(outer) or _is_power_of_two(factor)):
        return None
    if (abs(outer) < 1) != (abs(factor) < 1) and 1 not in {abs(outer), abs(factor)}:
        return None
    if not _is_normal(outer * factor, lazy_vector(op.operands[1]).element_type):
        return None
    return emit_formula_op("mul", inner.operands[0], _constant_like(outer * factor, op.operands[1]))


# Negation


def drop_double_negation(op: Any) -> "ir.Value | None":
    """Rewrite -(-x) -> x."""
    negation = _defined_by(op.operands[0], "neg")
    return None if negation is None else negation.operands[0]


def swap_negated_difference(op: Any) -> "ir.Value | None":
    """Rewrite -(x - y) -> y - x."""
    difference = _defined_by(op.operands[0], "sub")
    return None if difference is None else emit_formula_op("sub", difference.operands[1], difference.operands[0])


def negate_constant_factor(op: Any) -> "ir.Value | None":
    """Rewrite -(x * c) -> x * -c."""
    product = _defined_by(op.operands[0], "mul")
    number = None if product is None else _number(product.operands[1])
    if number is None:
        return None
    return emit_formula_op("mul", product.operands[0], _constant_like(-number, product.operands[1]))


def pull_negation_out_of_product(op: Any) -> "ir.Value | None":
    """Rewrite (-x) * y -> -(x * y), the same for y and for quotients."""
    for k, operand in enumerate(op.operands):
        negation = _defined_by(operand, "neg")
        if negation is not None:
            operands = list(op.operands)
            operands[k] = negation.operands[0]
            return emit_formula_op("neg", emit_formula_op(op.name.removeprefix("reduction."), *operands))
    return None


def turn_addition_of_negation_into_subtraction(op: Any) -> "ir.Value | None":
    """Rewrite x + -y -> x - y, -x + y -> y - x."""
    left, right = op.operands
    if negation := _defined_by(right, "neg"):
        return emit_formula_op("sub", left, negation.operands[0])
    if negation := _defined_by(left, "neg"):
        return emit_formula_op("sub", right, negation.operands[0])
    return None


def turn_subtraction_of_negation_into_addition(op: Any) -> "ir.Value | None":
    """Rewrite x - -y -> x + y."""
    negation = _defined_by(op.operands[1], "neg")
    return None if negation is None else emit_formula_op("add", op.operands[0], negation.operands[0])


def drop_negation_under_even_function(op: Any) -> "ir.Value | None":
    """Rewrite square(-x) -> square(x), the same for abs and cos."""
    negation = _defined_by(op.operands[0], "neg")
    return None if negation is None else emit_formula_op(op.name.removeprefix("reduction."), negation.operands[0])


# Products, powers and distances


def turn_product_with_itself_into_square(op: Any) -> "ir.Value | None":
    """Rewrite x * x -> square(x)."""
    return emit_formula_op("square", op.operands[0]) if op.operands[0] == op.operands[1] else None


def turn_small_power_into_its_formula(op: Any) -> "ir.Value | None":
    """Rewrite powi 0, 1, 2, -1 -> 1, x, square(x), reciprocal(x)."""
    value = op.operands[0]
    exponent = attribute(op, "exponent")
    if exponent == 0:
        return _widened(_constant_like(1.0, value), lazy_dim(value))
    if exponent == 1:
        return value
    name = {2: "square", -1: "reciprocal"}.get(exponent)
    return None if name is None else emit_formula_op(name, value)


#: Above this a chain of products is less accurate than pow, and hardly cheaper.
_LARGEST_INTEGER_POWER = 32


def turn_power_with_constant_exponent_into_its_formula(op: Any) -> "ir.Value | None":
    """Rewrite x ** n -> powi(x), x ** 0.5 -> sqrt(x), x ** -0.5 -> 1 / sqrt(x); not rsqrt, which is 0 at 0."""
    value, exponent = op.operands[0], _number(op.operands[1])
    if exponent is None:
        return None
    if exponent == 0.5:
        return emit_formula_op("sqrt", value)
    if exponent == -0.5:
        return emit_formula_op("reciprocal", emit_formula_op("sqrt", value))
    if exponent.is_integer() and abs(exponent) <= _LARGEST_INTEGER_POWER:
        return emit_formula_op("powi", value, exponent=int(exponent))
    return None


def turn_sum_of_squares_into_norm(op: Any) -> "ir.Value | None":
    """Rewrite inner_sum(square(x)) -> sqnorm2(x)."""
    square = _defined_by(op.operands[0], "square")
    return None if square is None else emit_formula_op("sqnorm2", square.operands[0])


def turn_sum_of_broadcast_into_multiplication(op: Any) -> "ir.Value | None":
    """Rewrite inner_sum of D times x -> x * D."""
    wide = _defined_by(op.operands[0], "broadcast")
    if wide is None:
        return None
    value = wide.operands[0]
    return emit_formula_op("mul", value, _constant_like(float(attribute(wide, "size")), value))


def turn_sum_of_products_into_dot(op: Any) -> "ir.Value | None":
    """Rewrite inner_sum(x * y) -> dot(x, y), where x and y have one dimension."""
    product = _defined_by(op.operands[0], "mul")
    if product is None or lazy_dim(product.operands[0]) != lazy_dim(product.operands[1]):
        return None
    return emit_formula_op("dot", product.operands[0], product.operands[1])


def turn_norm_of_difference_into_distance(op: Any) -> "ir.Value | None":
    """Rewrite sqnorm2(x - y) -> sqdist(x, y)."""
    difference = _defined_by(op.operands[0], "sub")
    return None if difference is None else emit_formula_op("sqdist", *difference.operands)


def turn_dot_with_itself_into_norm(op: Any) -> "ir.Value | None":
    """Rewrite dot(x, x) -> sqnorm2(x)."""
    return emit_formula_op("sqnorm2", op.operands[0]) if op.operands[0] == op.operands[1] else None


def compute_inner_reduction_of_one_component(op: Any) -> "ir.Value | None":
    """Inner reductions of one component: the sum is x, sqnorm2 is square(x), dot is x * y..."""
    operands = list(op.operands)
    if any(lazy_dim(operand) != 1 for operand in operands):
        return None
    name = op.name.removeprefix("reduction.")
    if name in {"inner_sum", "inner_min", "inner_max"}:
        return operands[0]
    if name == "sqdist":
        return emit_formula_op("square", emit_formula_op("sub", *operands))
    return emit_formula_op({"sqnorm2": "square", "norm2": "abs", "dot": "mul"}[name], *operands)


# Structure


def choose_branch_of_constant_condition(op: Any) -> "ir.Value | None":
    """Rewrite where(1, x, y) -> x, where(0, x, y) -> y, the same for ifelse."""
    number = _number(op.operands[0])
    if number is None:
        return None
    holds = number >= 0 if op.name == "reduction.ifelse" else number != 0
    return _widened(op.operands[1 if holds else 2], lazy_dim(op.results[0]))


def drop_extract_of_everything(op: Any) -> "ir.Value | None":
    """Rewrite x[0:D] -> x."""
    return op.operands[0] if attribute(op, "size") == lazy_dim(op.operands[0]) else None


def look_through_concat(op: Any) -> "ir.Value | None":
    """Rewrite (x, y)[a:b] -> x[a:b], where the components lie in x; the same for y."""
    joined = _defined_by(op.operands[0], "concat")
    if joined is None:
        return None
    start, size = attribute(op, "start"), attribute(op, "size")
    first, second = joined.operands
    if start + size <= lazy_dim(first):
        return emit_formula_op("extract", first, start=start, size=size)
    if start >= lazy_dim(first):
        return emit_formula_op("extract", second, start=start - lazy_dim(first), size=size)
    return None


def merge_extracts(op: Any) -> "ir.Value | None":
    """Rewrite x[a:b][c:d] -> x[a+c:a+d]."""
    inner = _defined_by(op.operands[0], "extract")
    if inner is None:
        return None
    start = attribute(inner, "start") + attribute(op, "start")
    return emit_formula_op("extract", inner.operands[0], start=start, size=attribute(op, "size"))


def shrink_extracted_broadcast(op: Any) -> "ir.Value | None":
    """Rewrite components of a broadcast -> a smaller broadcast."""
    wide = _defined_by(op.operands[0], "broadcast")
    return None if wide is None else _widened(wide.operands[0], attribute(op, "size"))


def join_neighbouring_extracts(op: Any) -> "ir.Value | None":
    """Rewrite (x[a:b], x[b:c]) -> x[a:c]."""
    first, second = (_defined_by(operand, "extract") for operand in op.operands)
    if first is None or second is None or first.operands[0] != second.operands[0]:
        return None
    start, size = attribute(first, "start"), attribute(first, "size")
    if start + size != attribute(second, "start"):
        return None
    return emit_formula_op("extract", first.operands[0], start=start, size=size + attribute(second, "size"))


def drop_broadcast_to_one(op: Any) -> "ir.Value | None":
    """Rewrite a broadcast to one component -> its operand."""
    return op.operands[0] if attribute(op, "size") == 1 else None


def compute_before_broadcast(op: Any) -> "ir.Value | None":
    """Rewrite f(broadcast(x), y) -> f(x, y) where another operand is as wide, else broadcast(f(x, y))."""
    operands = list(op.operands)
    if not any(_defined_by(operand, "broadcast") for operand in operands):
        return None
    dim = max(lazy_dim(operand) for operand in operands)
    for k, operand in enumerate(operands):
        wide = _defined_by(operand, "broadcast")
        if wide is not None:
            operands[k] = wide.operands[0]
    name = op.name.removeprefix("reduction.")
    narrow = max(lazy_dim(operand) for operand in operands)
    if FORMULA_OPS[name].result == "pair" and narrow != dim:
        return None
    attributes = {key: attribute(op, key) for key in FORMULA_OPS[name].attributes}
    return _widened(emit_formula_op(name, *operands, **attributes), dim if FORMULA_OPS[name].result != "pair" else 1)


_FORMS: Mapping[str, tuple[Rewrite, ...]] = {
    "add": (
        move_constant_to_the_right,
        drop_addition_of_zero,
        turn_addition_of_negation_into_subtraction,
    ),
    "sub": (
        drop_addition_of_zero,
        turn_subtraction_from_zero_into_negation,
        turn_subtraction_of_negation_into_addition,
    ),
    "mul": (
        move_constant_to_the_right,
        drop_multiplication_by_one,
        merge_multiplications_by_constants,
        pull_negation_out_of_product,
        turn_product_with_itself_into_square,
    ),
    "div": (turn_exact_division_into_multiplication, pull_negation_out_of_product),
    "neg": (drop_double_negation, swap_negated_difference, negate_constant_factor),
    "abs": (drop_negation_under_even_function,),
    "square": (drop_negation_under_even_function,),
    "cos": (drop_negation_under_even_function,),
    "pow": (turn_power_with_constant_exponent_into_its_formula,),
    "powi": (turn_small_power_into_its_formula,),
    "inner_sum": (
        compute_inner_reduction_of_one_component,
        turn_sum_of_broadcast_into_multiplication,
        turn_sum_of_squares_into_norm,
        turn_sum_of_products_into_dot,
    ),
    "inner_min": (compute_inner_reduction_of_one_component,),
    "inner_max": (compute_inner_reduction_of_one_component,),
    "sqnorm2": (compute_inner_reduction_of_one_component, turn_norm_of_difference_into_distance),
    "norm2": (compute_inner_reduction_of_one_component,),
    "dot": (compute_inner_reduction_of_one_component, turn_dot_with_itself_into_norm),
    "sqdist": (compute_inner_reduction_of_one_component,),
    "where": (choose_branch_of_constant_condition,),
    "ifelse": (choose_branch_of_constant_condition,),
    "extract": (drop_extract_of_everything, look_through_concat, merge_extracts, shrink_extracted_broadcast),
    "concat": (join_neighbouring_extracts,),
    "broadcast": (drop_broadcast_to_one,),
}


def _rewrites_of(op_name: str) -> tuple[Rewrite, ...]:
    folds = (fold_constants,) if op_name in _FOLDED else ()
    broadcasts = (compute_before_broadcast,) if FORMULA_OPS[op_name].result in {"elementwise", "pair"} else ()
    return (*folds, *_FORMS.get(op_name, ()), *broadcasts)


_REWRITES: Mapping[str, tuple[Rewrite, ...]] = {
    op_name: _rewrites_of(op_name) for op_name in FORMULA_OPS if _rewrites_of(op_name)
}
