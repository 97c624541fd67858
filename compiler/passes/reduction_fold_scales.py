"""Fold the factors of an exponent into the vectors whose distance it is."""

import math
from collections.abc import Callable
from typing import Any

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.dialects.reduction import attribute, name_of
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_values import BodyAxes
from pylazy.compiler.target import NvidiaTarget, Target

_LOG2_E = 1.4426950408889634


def reduction_fold_scales(module: ir.Module, *, target: Target) -> None:
    """Turn exp(-c |x - y|^2) into exp2(-|s x - s y|^2) with s = sqrt(c log2(e)), for x of a row and y of a column.

    For f32 on GPUs, whose exponential is one of base 2: a product less for each pair; not in the accurate mode. Runs
    after reduction-hoist, which would store the scaled columns in memory; reduction-map-to-gpu scales them when it
    stages them. The result is that of x and y with every coordinate changed by at most half a unit in its last place,
    which is what a coordinate that was itself rounded is known to; a distance of 0 stays 0. Other uses of the
    difference are divided by s.

    In IR: `%d = subf %x, %y`, `%e = exp (negf (inner_reduce (mulf %d, %d)))` with loads `%x` and `%y`.
    """
    if not isinstance(target, NvidiaTarget) or target.math_mode == "accurate":
        return
    for function in module.body.operations:
        if name_of(function) != "func.func":
            continue
        for kernel in function.regions[0].blocks[0].operations:
            if name_of(kernel) == "reduction.map_reduce":
                _fold(kernel.regions[0].blocks[0])


def _fold(body: Any) -> None:
    for operation in list(body.operations):
        if name_of(operation) == "math.exp":
            found = _match(operation, BodyAxes(body).of)
            if found is not None:
                _rewrite(operation, *found)


def _match(exponential: Any, axes: Callable[[ir.Value], str]) -> "tuple[Any, Any, float] | None":
    """Find the difference, the sum of its squares, and the factor of the exponent."""
    value, factor = exponential.operands[0], 1.0
    if not isinstance(ir.VectorType(value.type).element_type, ir.F32Type):
        return None
    while name_of(value.owner) in {"arith.negf", "arith.mulf"}:
        if len(list(value.uses)) != 1:
            return None
        if name_of(value.owner) == "arith.negf":
            value, factor = value.owner.operands[0], -factor
            continue
        numbers = [operand for operand in value.owner.operands if _number(operand) is not None]
        others = [operand for operand in value.owner.operands if _number(operand) is None]
        if len(numbers) != 1 or len(others) != 1:
            return None
        value, factor = others[0], factor * (_number(numbers[0]) or 0.0)
    total = value.owner
    if name_of(total) != "reduction.inner_reduce" or attribute(total, "kind") != "add" or len(list(value.uses)) != 1:
        return None
    square = total.operands[0].owner
    if name_of(square) != "arith.mulf" or square.operands[0] != square.operands[1]:
        return None
    if len(list(square.results[0].uses)) != 1:
        return None
    difference = square.operands[0].owner
    if name_of(difference) != "arith.subf" or {axes(operand) for operand in difference.operands} != {"r", "c"}:
        return None
    if any(name_of(operand.owner) != "reduction.load" for operand in difference.operands):
        return None
    if not (math.isfinite(factor) and factor < 0 and _others_are_factors_of_sums(difference, square)):
        return None
    return difference, total, factor


def _number(value: ir.Value) -> "float | None":
    owner = value.owner
    if name_of(owner) != "arith.constant" or not owner.attributes["value"].is_splat:
        return None
    return float(owner.attributes["value"].get_splat_value().value)


def _others_are_factors_of_sums(difference: Any, square: Any) -> bool:
    """Tell whether each use but the square is a product that only a sum takes: there a number costs nothing."""
    pending = [use.owner for use in difference.results[0].uses if use.owner != square]
    while pending:
        user = pending.pop()
        if name_of(user) in {"arith.mulf", "arith.negf"}:
            users = [use.owner for use in user.results[0].uses]
            if len(users) != 1:
                return False
            pending += users
        elif name_of(user) != "reduction.accumulate" or attribute(user, "kind") not in {"sum", "mean"}:
            return False
    return True


def _scaled_load(load: Any, scale: float) -> ir.Value:
    """Build a load whose elements are multiplied on their way: in registers for a row, in its tile for a column."""
    number = ir.FloatAttr.get(ir.F64Type.get(), scale)
    attributes = {"reduction.scale": number}
    return kb.emit("reduction.load", list(load.operands), load.results[0].type, **attributes)


def _rewrite(exponential: Any, difference: Any, total: Any, factor: float) -> None:
    scale = math.sqrt(-factor * _LOG2_E)
    square = total.operands[0].owner
    others = [use for use in difference.results[0].uses if use.owner != square]
    with difference.location, ir.InsertionPoint(difference):
        kind = difference.results[0].type
        first, second = (_scaled_load(operand.owner, scale) for operand in difference.operands)
        scaled = kb.sub(first, second)
        if others:
            unscaled = kb.mul(scaled, kb.constant(1 / scale, kind))
    for operand in range(2):
        square.operands[operand] = scaled
    with exponential.location, ir.InsertionPoint(exponential):
        result = kb.math_op("exp2", kb.neg(total.results[0]))
    if others:
        difference.results[0].replace_all_uses_with(unscaled)
    old = exponential.operands[0].owner
    exponential.results[0].replace_all_uses_with(result)
    exponential.operation.erase()
    while old.operation != total.operation and not any(len(list(value.uses)) for value in old.results):
        remaining = [
            operand.owner for operand in old.operands if name_of(operand.owner) in {"arith.negf", "arith.mulf"}
        ]
        old.operation.erase()
        if not remaining:
            break
        old = remaining[0]
    loads = [operand.owner for operand in difference.operands]
    difference.operation.erase()
    for load in loads:
        if not list(load.results[0].uses):
            load.operation.erase()
