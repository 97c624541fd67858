"""Rounding to integers, and signs, where the target has no instruction for them."""

from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_ceil", "emit_copysign", "emit_floor", "emit_round", "emit_roundeven", "emit_trunc"]


def _emit_nearest_even(m: VectorMath, x: ir.Value) -> ir.Value:
    """Round |x| < 2^mantissa_bits to the next integer; loses the sign of zero."""
    magic = m.copysign(m.const(2.0**m.mantissa_bits), x)
    return m.sub(m.add(x, magic), magic)


def _keep_integral(m: VectorMath, x: ir.Value, rounded: ir.Value) -> ir.Value:
    """Return x where it is so large, infinite or NaN that it has no fraction, and give zeros the sign of x."""
    has_fraction = m.compare("olt", m.abs(x), m.const(2.0**m.mantissa_bits))
    return m.select(has_fraction, m.copysign(rounded, x), x)


def emit_roundeven(m: VectorMath, x: ir.Value) -> ir.Value:
    """Round to the next integer, ties to even."""
    if m.target.has_rounding:
        return m.op("math.roundeven", (x,), m.float_type)
    return _keep_integral(m, x, _emit_nearest_even(m, x))


def emit_floor(m: VectorMath, x: ir.Value) -> ir.Value:
    """Round down."""
    if m.target.has_rounding:
        return m.op("math.floor", (x,), m.float_type)
    nearest = _emit_nearest_even(m, x)
    lowered = m.select(m.compare("ogt", nearest, x), m.sub(nearest, m.const(1.0)), nearest)
    return _keep_integral(m, x, lowered)


def emit_ceil(m: VectorMath, x: ir.Value) -> ir.Value:
    """Round up."""
    if m.target.has_rounding:
        return m.op("math.ceil", (x,), m.float_type)
    nearest = _emit_nearest_even(m, x)
    raised = m.select(m.compare("olt", nearest, x), m.add(nearest, m.const(1.0)), nearest)
    return _keep_integral(m, x, raised)


def emit_trunc(m: VectorMath, x: ir.Value) -> ir.Value:
    """Round towards zero."""
    if m.target.has_rounding:
        return m.op("math.trunc", (x,), m.float_type)
    magnitude = m.abs(x)
    nearest = _emit_nearest_even(m, magnitude)
    lowered = m.select(m.compare("ogt", nearest, magnitude), m.sub(nearest, m.const(1.0)), nearest)
    return _keep_integral(m, x, lowered)


def emit_round(m: VectorMath, x: ir.Value) -> ir.Value:
    """Round to the next integer, ties away from zero: a sum with 1/2 itself could carry what is just below it."""
    below_half = 0.5 - 2.0 ** -(m.mantissa_bits + 2)
    return emit_trunc(m, m.add(x, m.copysign(m.const(below_half), x)))


def emit_copysign(m: VectorMath, magnitude: ir.Value, sign: ir.Value) -> ir.Value:
    """Return |magnitude| with the sign of the second."""
    return m.copysign(magnitude, sign)
