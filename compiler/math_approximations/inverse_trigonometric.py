"""Arcsine, arccosine and arctangent.

Polynomials: Remez exchange in 50 digits, relative: (atan t - t) / t^3 in t^2 for t <= sqrt(2) - 1, in f32 for
t <= 1, and (asin s - s) / s^3 in s^2 for s <= 1/2. The square root with its rounding error follows FreeBSD's
e_asin.c; f32 does without that error.
"""

from pylazy.compiler.math_approximations.reduce_large_angle import PI_HALF
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_acos", "emit_asin", "emit_atan", "emit_atan2"]

_ATAN = (
    -0.3333333333333333,
    0.1999999999999854,
    -0.14285714285469175,
    0.1111111109187612,
    -0.0909090823935746,
    0.0769228420848133,
    -0.06666239931792553,
    0.05877085500929061,
    -0.0521847153421162,
    0.04502677770720289,
    -0.03343216695181058,
    0.015133676543652394,
)
_ASIN = (
    0.16666666666666663,
    0.07500000000001261,
    0.044642857140892965,
    0.03038194458746497,
    0.0223721531911381,
    0.01735291724569782,
    0.013962202939204282,
    0.011583350524967662,
    0.009496186304224618,
    0.00996840780946308,
    0.0007637597957664271,
    0.024762734024832124,
    -0.02620427830346558,
    0.033748072530756394,
)
_ATAN_F32 = (
    -0.333332990886,
    0.199985482788,
    -0.142642417056,
    0.109521861516,
    -0.0840345182441,
    0.0579576227517,
    -0.03117787638,
    0.01091462212,
    -0.00179362523439,
)
_ASIN_F32 = (0.166667524808, 0.0749529768824, 0.0454703702292, 0.0241795433459, 0.042166259868)
_PI_F32 = (3.1415927410125732, -8.742277657347586e-08)
_PI = (3.141592653589793, 1.2246467991473532e-16)
_PI_QUARTER = (0.7853981633974483, 3.061616997868383e-17)
_TAN_PI_EIGHTH = 0.41421356237309503


def emit_atan(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the arctangent within 2 ulp."""
    if m.bits == 32:
        return _emit_atan_f32(m, x)
    return m.copysign(_emit_atan_of_quotient(m, m.abs(x), m.const(1.0)), x)


def _emit_atan_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return atan(t) for t = |x|, or pi/2 + atan(t) for t = -1 / |x| where that is the smaller one."""
    magnitude = m.abs(x)
    is_steep = m.compare("ogt", magnitude, m.const(1.0))
    t = m.select(is_steep, m.div(m.const(-1.0), magnitude), magnitude)
    base, rest = (m.select(is_steep, m.const(part / 2), m.const(0.0)) for part in _PI_F32)
    return m.copysign(_emit_angle_f32(m, base, rest, t), x)


def _emit_angle_f32(m: VectorMath, base: ir.Value, rest: ir.Value, t: ir.Value) -> ir.Value:
    """Return base + rest + atan(t) for |t| <= 1."""
    z = m.mul(t, t)
    tail = m.muladd(m.mul(z, t), m.polynomial(z, _ATAN_F32), rest)
    return m.add(base, m.add(t, tail))


def emit_atan2(m: VectorMath, y: ir.Value, x: ir.Value) -> ir.Value:
    """Return the angle of the point (x, y) within 2 ulp, with the special values of ISO C, annex F.10.1.4."""
    if m.bits == 32:
        return _emit_atan2_f32(m, y, x)
    zero, one, infinity = m.const(0.0), m.const(1.0), m.const(float("inf"))
    above, beside = m.abs(y), m.abs(x)
    # Equal infinities are like ones; equal zeros lie at angle 0.
    both_infinite = m.both(m.compare("oeq", above, infinity), m.compare("oeq", beside, infinity))
    both_zero = m.both(m.compare("oeq", above, zero), m.compare("oeq", beside, zero))
    above = m.select(both_infinite, one, above)
    beside = m.select(m.either(both_infinite, both_zero), one, beside)
    # Products and sums in the quotient neither overflow nor lose bits near the ends of the range.
    is_huge = m.either(m.compare("ogt", above, m.const(2.0**1000)), m.compare("ogt", beside, m.const(2.0**1000)))
    factor = m.select(is_huge, m.const(2.0**-60), one)
    is_small = m.both(m.compare("olt", above, m.const(2.0**-900)), m.compare("olt", beside, m.const(2.0**-900)))
    factor = m.select(is_small, m.const(2.0**120), factor)
    above, beside = m.mul(above, factor), m.mul(beside, factor)
    angle = _emit_atan_of_quotient(m, above, beside)
    is_left = m.compare_integers("slt", m.to_bits(x), m.iconst(0))
    # pi - angle; by parts, as the angle itself may be rounded away.
    reflected = m.sub(m.const(_PI[0]), m.sub(angle, m.const(_PI[1])))
    result = m.copysign(m.select(is_left, reflected, angle), y)
    return m.select(m.compare("uno", x, y), m.add(x, y), result)


def _emit_atan2_f32(m: VectorMath, y: ir.Value, x: ir.Value) -> ir.Value:
    """Return 0, pi / 2 or pi, plus or minus the arctangent of the smaller coordinate by the larger one."""
    zero, above, beside, left = m.const(0.0), m.abs(y), m.abs(x), m.sign_bit(x)
    is_steep = m.compare("ogt", above, beside)
    smaller, larger = m.select(is_steep, beside, above), m.select(is_steep, above, beside)
    # Equal infinities are like ones; equal zeros lie at angle 0.
    of_equal = m.select(m.compare("oeq", larger, zero), zero, m.const(1.0))
    t = m.select(m.compare("oeq", smaller, larger), of_equal, m.div(smaller, larger))
    t = m.flip_sign(m.select(is_steep, m.neg(t), t), left)
    is_left = m.compare_integers("slt", m.to_bits(x), m.iconst(0))
    base, rest = (m.select(is_steep, m.const(part / 2), m.select(is_left, m.const(part), zero)) for part in _PI_F32)
    return m.copysign(_emit_angle_f32(m, base, rest, t), y)


def _emit_atan_of_quotient(m: VectorMath, above: ir.Value, below: ir.Value) -> ir.Value:
    """Return atan(above / below) for values >= 0, with one division and t in [1 - sqrt(2), sqrt(2) - 1]."""
    is_middle = m.compare("ogt", above, m.mul(below, m.const(_TAN_PI_EIGHTH)))
    is_steep = m.compare("ogt", m.mul(above, m.const(_TAN_PI_EIGHTH)), below)
    numerator = m.select(is_steep, m.neg(below), m.select(is_middle, m.sub(above, below), above))
    denominator = m.select(is_steep, above, m.select(is_middle, m.add(above, below), below))
    t = m.div(numerator, denominator)
    z = m.mul(t, t)
    tail = m.mul(m.mul(z, t), m.polynomial(z, _ATAN))
    zero = m.const(0.0)
    base = m.select(is_steep, m.const(PI_HALF[0]), m.select(is_middle, m.const(_PI_QUARTER[0]), zero))
    rest = m.select(is_steep, m.const(PI_HALF[1]), m.select(is_middle, m.const(_PI_QUARTER[1]), zero))
    return m.add(base, m.add(t, m.add(tail, rest)))


def _emit_asin_tail(m: VectorMath, square: ir.Value, s: ir.Value) -> ir.Value:
    """Return asin(s) - s."""
    return m.mul(m.mul(square, s), m.polynomial(square, _ASIN))


def _emit_half_angle(m: VectorMath, magnitude: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return z = (1 - |x|) / 2, its root, and the rounding error of the root."""
    z = m.mul(m.sub(m.const(1.0), magnitude), m.const(0.5))
    root = m.sqrt(z)
    product, error = m.two_product(root, root)
    rest = m.sub(m.sub(z, product), error)
    is_zero = m.compare("oeq", root, m.const(0.0))
    return z, root, m.div(rest, m.select(is_zero, m.const(1.0), m.add(root, root)))


def _emit_folded_asin_f32(m: VectorMath, magnitude: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return whether |x| < 1/2, s = |x| there and sqrt((1 - |x|) / 2) elsewhere, and asin(s) - s."""
    is_small = m.compare("olt", magnitude, m.const(0.5))
    folded = m.muladd(magnitude, m.const(-0.5), m.const(0.5))
    z = m.select(is_small, m.mul(magnitude, magnitude), folded)
    s = m.select(is_small, magnitude, m.sqrt(folded))
    return is_small, s, m.mul(m.mul(z, s), m.polynomial(z, _ASIN_F32))


def _emit_asin_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return asin(s), or pi/2 - 2 asin(s)."""
    is_small, s, tail = _emit_folded_asin_f32(m, m.abs(x))
    minus_two = m.const(-2.0)
    folded, rest = m.fast_two_sum(m.const(_PI_F32[0] / 2), m.mul(s, minus_two))
    folded = m.add(folded, m.add(rest, m.muladd(tail, minus_two, m.const(_PI_F32[1] / 2))))
    return m.copysign(m.select(is_small, m.add(s, tail), folded), x)


def _emit_acos_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return pi/2 -+ asin(s) for |x| < 1/2, 2 asin(s) for larger x, and pi - 2 asin(s) for smaller ones."""
    is_small, s, tail = _emit_folded_asin_f32(m, m.abs(x))
    sign = m.sign_bit(x)
    angle = m.add(s, tail)
    small = m.sub(m.const(_PI_F32[0] / 2), m.flip_sign(angle, sign))
    is_left = m.compare("olt", x, m.const(0.0))
    double = m.add(angle, angle)
    large = m.select(is_left, m.sub(m.const(_PI_F32[0]), double), double)
    return m.select(is_small, small, large)


def emit_asin(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the arcsine within 2 ulp; NaN beyond 1."""
    if m.bits == 32:
        return _emit_asin_f32(m, x)
    magnitude = m.abs(x)
    small = m.add(magnitude, _emit_asin_tail(m, m.mul(x, x), magnitude))
    z, root, error = _emit_half_angle(m, magnitude)
    half = m.add(error, _emit_asin_tail(m, z, root))
    double = m.const(2.0)
    large, rest = m.fast_two_sum(m.const(PI_HALF[0]), m.mul(m.neg(double), root))
    large = m.add(large, m.add(rest, m.sub(m.const(PI_HALF[1]), m.mul(double, half))))
    return m.copysign(m.select(m.compare("olt", magnitude, m.const(0.5)), small, large), x)


def emit_acos(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the arccosine within 2 ulp; NaN beyond 1."""
    if m.bits == 32:
        return _emit_acos_f32(m, x)
    magnitude = m.abs(x)
    tail = _emit_asin_tail(m, m.mul(x, x), x)
    middle, rest = m.fast_two_sum(m.const(PI_HALF[0]), m.neg(x))
    middle = m.add(middle, m.add(rest, m.sub(m.const(PI_HALF[1]), tail)))
    z, root, error = _emit_half_angle(m, magnitude)
    double = m.const(2.0)
    angle = m.mul(double, root)
    angle_rest = m.mul(double, m.add(error, _emit_asin_tail(m, z, root)))
    reflected, reflected_rest = m.fast_two_sum(m.const(_PI[0]), m.neg(angle))
    reflected = m.add(reflected, m.add(reflected_rest, m.sub(m.const(_PI[1]), angle_rest)))
    outer = m.select(m.compare("olt", x, m.const(0.0)), reflected, m.add(angle, angle_rest))
    return m.select(m.compare("olt", magnitude, m.const(0.5)), middle, outer)
