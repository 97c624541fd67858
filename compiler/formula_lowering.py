"""Table: formula op -> the upstream ops that compute it on inner vectors.

Values at singular points are fixed here: rsqrt(0) = 0, xlogx(0) = 0, sinxdivx(0) = 1, step(0) = 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from pylazy.compiler.kernel_builder import (
    add,
    compare,
    constant,
    div,
    emit,
    math_op,
    mul,
    neg,
    select,
    sub,
    truth,
)
from pylazy.compiler.mlir import ir


def _number(value: float, like: ir.Value) -> ir.Value:
    return constant(value, like.type)


def _math(name: str) -> Callable[..., ir.Value]:
    return lambda *operands: math_op(name, *operands)


def _comparison(predicate: str) -> Callable[[ir.Value, ir.Value], ir.Value]:
    return lambda a, b: truth(compare(predicate, a, b), a.type)


def _is_true(x: ir.Value) -> ir.Value:
    return compare("une", x, _number(0, x))


def _logical(name: str) -> Callable[[ir.Value, ir.Value], ir.Value]:
    def rule(a: ir.Value, b: ir.Value) -> ir.Value:
        return truth(emit(name, (_is_true(a), _is_true(b))), a.type)

    return rule


def _unless_zero(x: ir.Value, at_zero: float, otherwise: ir.Value) -> ir.Value:
    return select(compare("oeq", x, _number(0, x)), _number(at_zero, x), otherwise)


def _rsqrt(x: ir.Value) -> ir.Value:
    return _unless_zero(x, 0.0, math_op("rsqrt", x))


def _inner(kind: str, x: ir.Value) -> ir.Value:
    vector = ir.VectorType(x.type)
    return emit(
        "reduction.inner_reduce",
        (x,),
        ir.VectorType.get([1, *vector.shape[1:]], vector.element_type),
        kind=ir.StringAttr.get(kind),
    )


def _inner_sum(x: ir.Value) -> ir.Value:
    return _inner("add", x)


def _normalize(x: ir.Value) -> ir.Value:
    inverse = _rsqrt(_inner_sum(mul(x, x)))
    return mul(x, emit("vector.broadcast", (inverse,), x.type))


def _sqdist(x: ir.Value, y: ir.Value) -> ir.Value:
    difference = sub(x, y)
    return _inner_sum(mul(difference, difference))


def _sign(x: ir.Value) -> ir.Value:
    zero = _number(0, x)
    positive = select(compare("ogt", x, zero), _number(1, x), x)
    return select(compare("olt", x, zero), _number(-1, x), positive)


def _clamp(x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    bounded = select(compare("ogt", x, high), high, x)
    return select(compare("olt", x, low), low, bounded)


def _sigmoid(x: ir.Value) -> ir.Value:
    one = _number(1, x)
    return div(one, add(one, math_op("exp", neg(x))))


def _softplus(x: ir.Value) -> ir.Value:
    tail = math_op("log1p", math_op("exp", neg(math_op("absf", x))))
    return add(emit("arith.maximumf", (x, _number(0, x))), tail)


def _hypot(a: ir.Value, b: ir.Value) -> ir.Value:
    """Scale by the larger one, so that nothing overflows that need not."""
    a, b = math_op("absf", a), math_op("absf", b)
    large, small = emit("arith.maximumf", (a, b)), emit("arith.minimumf", (a, b))
    infinity = _number(float("inf"), a)
    ratio = div(small, large)
    scaled = mul(large, math_op("sqrt", add(_number(1, a), mul(ratio, ratio))))
    finite = _unless_zero(large, 0.0, scaled)
    return select(compare("oeq", large, infinity), infinity, finite)


def _mod0(x: ir.Value, m: ir.Value) -> ir.Value:
    return sub(x, mul(m, math_op("floor", div(x, m))))


def _powi(x: ir.Value, *, exponent: int) -> ir.Value:
    """Multiply by repeated squaring: at most 2 log2(n) products."""
    if exponent < 0:
        return div(_number(1, x), _powi(x, exponent=-exponent))
    result = None
    while exponent:
        if exponent & 1:
            result = x if result is None else mul(result, x)
        exponent >>= 1
        if exponent:
            x = mul(x, x)
    return result if result is not None else _number(1, x)


#: Beyond this, products of x may overflow or vanish where the power does not.
_MAX_HALF = 3.5


def _pow(x: ir.Value, y: ir.Value) -> ir.Value:
    """Turn powers of an integer and a half into products with a root, which is of x: of -inf it is NaN."""
    exponent = _constant_number(y)
    if exponent is None or abs(exponent) > _MAX_HALF or exponent % 1 != 0.5:
        return math_op("powf", x, y)
    root = math_op("sqrt" if exponent > 0 else "rsqrt", x)
    whole = int(exponent)
    return mul(_powi(x, exponent=whole), root) if whole else root


def _constant_number(value: ir.Value) -> "float | None":
    """Give the number that all components of a value are, None where the formula does not tell."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return None
    if owner.operation.name == "vector.broadcast":
        return _constant_number(owner.operation.operands[0])
    constant = owner.operation.attributes["value"] if owner.operation.name == "arith.constant" else None
    return float(constant.get_splat_value().value) if constant is not None and constant.is_splat else None


def _extract(x: ir.Value, *, start: int, size: int) -> ir.Value:
    vector = ir.VectorType(x.type)
    integers = [
        ir.ArrayAttr.get([ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)]) for value in (start, size, 1)
    ]
    return emit(
        "vector.extract_strided_slice",
        (x,),
        ir.VectorType.get([size, *vector.shape[1:]], vector.element_type),
        offsets=integers[0],
        sizes=integers[1],
        strides=integers[2],
    )


def _broadcast(x: ir.Value, *, size: int) -> ir.Value:
    return emit("vector.broadcast", (x,), ir.VectorType.get([size], ir.VectorType(x.type).element_type))


def _one_hot(x: ir.Value, *, size: int) -> ir.Value:
    """1 at the position that x rounds to, 0 elsewhere: everywhere, if it rounds to none."""
    place = _broadcast(math_op("round", x), size=size)
    return truth(compare("oeq", place, emit("reduction.positions", (), place.type)), place.type)


def _contract(x: ir.Value, y: ir.Value, *, kept: Sequence[int], **labels: Sequence[int]) -> ir.Value:
    integer = ir.IntegerType.get_signless(64)
    lists = {**labels, "kept": kept}
    attributes = {
        name: ir.ArrayAttr.get([ir.IntegerAttr.get(integer, number) for number in found])
        for name, found in lists.items()
    }
    dim = math.prod(labels["sizes"][label] for label in kept)
    vector = ir.VectorType.get([dim], ir.VectorType(x.type).element_type)
    return emit("reduction.contract_rows", (x, y), vector, **attributes)


def _concat(x: ir.Value, y: ir.Value) -> ir.Value:
    first, second = ir.VectorType(x.type), ir.VectorType(y.type)
    joined = ir.VectorType.get([first.shape[0] + second.shape[0], *first.shape[1:]], first.element_type)
    return emit("reduction.concat_rows", (x, y), joined)


def _soft_dtw(order: int) -> Callable[..., ir.Value]:
    def rule(*operands: ir.Value) -> ir.Value:
        dims = [ir.VectorType(operand.type).shape[0] for operand in operands]
        result = ir.VectorType.get([sum(dims[:3]) if order else 1], ir.VectorType(operands[0].type).element_type)
        number = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), order)
        return emit("reduction.soft_dtw_rows", operands, result, order=number)

    return rule


FORMULA_LOWERING: Mapping[str, Callable[..., ir.Value]] = {
    "neg": neg,
    "abs": _math("absf"),
    "square": lambda x: mul(x, x),
    "reciprocal": lambda x: div(_number(1, x), x),
    "rsqrt": _rsqrt,
    **{
        name: _math(name)
        for name in [
            "exp",
            "log",
            "sqrt",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "exp2",
            "log2",
            "log1p",
            "expm1",
            "cbrt",
            "erf",
            "erfc",
            "floor",
            "ceil",
            "trunc",
            "round",
            "atan2",
        ]
    },
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "relu": lambda x: select(compare("olt", x, _number(0, x)), _number(0, x), x),
    "step": lambda x: select(compare("olt", x, _number(0, x)), _number(0, x), _number(1, x)),
    "sign": _sign,
    "xlogx": lambda x: _unless_zero(x, 0.0, mul(x, math_op("log", x))),
    "sinxdivx": lambda x: _unless_zero(x, 1.0, div(math_op("sin", x), x)),
    "isnan": lambda x: truth(compare("uno", x, x), x.type),
    "logical_not": lambda x: truth(compare("oeq", x, _number(0, x)), x.type),
    "logical_and": _logical("arith.andi"),
    "logical_or": _logical("arith.ori"),
    "powi": _powi,
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "pow": _pow,
    "minimum": lambda a, b: emit("arith.minimumf", (a, b)),
    "maximum": lambda a, b: emit("arith.maximumf", (a, b)),
    "hypot": _hypot,
    "mod0": _mod0,
    "eq": _comparison("oeq"),
    "ne": _comparison("une"),
    "lt": _comparison("olt"),
    "le": _comparison("ole"),
    "gt": _comparison("ogt"),
    "ge": _comparison("oge"),
    "where": lambda condition, a, b: select(_is_true(condition), a, b),
    "ifelse": lambda x, a, b: select(compare("oge", x, _number(0, x)), a, b),
    "clamp": _clamp,
    "inner_sum": _inner_sum,
    "inner_prod": lambda x: _inner("mul", x),
    "inner_min": lambda x: _inner("minimum", x),
    "inner_max": lambda x: _inner("maximum", x),
    "inner_argmin": lambda x: _inner("argmin", x),
    "inner_argmax": lambda x: _inner("argmax", x),
    "sqnorm2": lambda x: _inner_sum(mul(x, x)),
    "norm2": lambda x: math_op("sqrt", _inner_sum(mul(x, x))),
    "normalize": _normalize,
    "dot": lambda x, y: _inner_sum(mul(x, y)),
    "sqdist": _sqdist,
    "broadcast": _broadcast,
    "concat": _concat,
    "extract": _extract,
    "one_hot": _one_hot,
    "contract": _contract,
    "soft_dtw": _soft_dtw(0),
    "soft_dtw_gradient": _soft_dtw(1),
    "soft_dtw_hessian": _soft_dtw(2),
}
