"""The exponential functions.

Coefficients: minimax fits of (e^r - 1 - r) / r^2 by Remez exchange in 50 digits, weighted to the relative error of
e^r, on |r| <= log(2) / 2 (benchmarks/math_accuracy.py names the measured errors). The short series of float32: linear
programmes on the error in ulps, each coefficient rounded before the next is fitted. AVX-512: Intel's Software
Developer's Manual defines VSCALEF so that scalef(NaN, inf) = inf and scalef(NaN, -inf) = 0, made for exp.
"""

from dataclasses import dataclass

from pylazy.compiler.math_approximations import avx512
from pylazy.compiler.math_approximations.value_bounds import bounds_of, without_sign
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = [
    "emit_exp",
    "emit_exp2",
    "emit_exp_in_factors",
    "emit_exp_of_sum",
    "emit_expm1",
    "emit_expm1_as_sum",
    "emit_remainder_of_log_2",
]

LOG2_E = 1.4426950408889634
LOG_2 = 0.6931471805599453

# log(2) in two parts; the first is short enough for n * part to be exact for every exponent n.
LOG2_PARTS = {
    32: (0.693145751953125, 1.4286068203094173e-06),
    64: (0.6931471804855391, 7.440617110012397e-11),
}

_EXP_TAIL = {
    32: (0.49999993447971147, 0.1666652063554529, 0.041668388034111735, 0.008368716502502127, 0.001381459802083656),
    64: (
        0.500000000000001,
        0.16666666666666674,
        0.04166666666652199,
        0.008333333333322207,
        0.0013888888947820891,
        0.00019841269886591,
        2.4801487326012337e-05,
        2.7557242336680357e-06,
        2.763265575933203e-07,
        2.5110049895858716e-08,
    ),
}


# e^r in 5 multiply-adds, within 1.9 ulp: fewest instructions, one waiting for the other.
_EXP_F32 = (1.0, 0.999999463558197, 0.49999144673347473, 0.16668176651000977, 0.04189850389957428, 0.008262364193797112)


@dataclass(frozen=True)
class _Range:
    lowest: float  # below: the result is 0
    highest: float  # above: the result is inf


_EXP_RANGE = {32: _Range(-105.0, 90.0), 64: _Range(-747.0, 711.0)}
_EXP2_RANGE = {32: _Range(-151.0, 129.0), 64: _Range(-1077.0, 1025.0)}
_EXPM1_RANGE = {32: _Range(-20.0, 89.0), 64: _Range(-40.0, 710.0)}

# Where x is known to stay below, 2^(n + 64) is a normal number for all n: one more product makes 2^n of it, rounded
# once, in place of two powers of about half of n.
_NO_LARGE_VALUES = 40.0
_SCALED_UP = 64


def emit_remainder_of_log_2(
    m: VectorMath, high: ir.Value, low: ir.Value | None = None
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return the integer n nearest to high / log(2), and high + low - n * log(2) as a sum of two values."""
    n, n_integer = m.round_small_product(high, LOG2_E)
    return n_integer, *_emit_remainder(m, n, high, low)


def _emit_remainder(m: VectorMath, n: ir.Value, high: ir.Value, low: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    first, second = LOG2_PARTS[m.bits]
    high = m.muladd(n, m.const(-first), high)
    low = m.mul(n, m.const(-second)) if low is None else m.muladd(n, m.const(-second), low)
    r = m.add(high, low)
    return r, m.sub(low, m.sub(r, high))


def _emit_exp_tail(m: VectorMath, r: ir.Value) -> ir.Value:
    """Return e^r - 1 - r."""
    return m.mul(m.mul(r, r), m.polynomial(r, _EXP_TAIL[m.bits]))


def emit_exp(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x within 2 ulp; results below the normal numbers are rounded as they must be."""
    if m.has_avx512_vectors:
        return avx512.emit_exp(m, x)
    y, sign = without_sign(x)
    known = bounds_of(x)
    has_large_values = known.high > _NO_LARGE_VALUES
    inside = y
    if has_large_values or known.low < _EXP_RANGE[m.bits].lowest:
        inside = _hold(m, y, sign, _EXP_RANGE[m.bits], has_large_values=has_large_values)
    bias = m.exponent_bias + (m.exponent_bias if has_large_values else _SCALED_UP)
    magic = m.const(m.rounding_magic + bias)
    shifted = m.muladd(inside, m.const(sign * LOG2_E), magic)
    n = m.sub(shifted, magic)
    first, second = LOG2_PARTS[m.bits]
    r = m.muladd(n, m.const(-second), m.muladd(n, m.const(-first), inside if sign > 0 else m.neg(inside)))
    power = _emit_exp_near_0(m, r)
    if has_large_values:
        return m.scale_by_biased(power, shifted)
    scaled_up = m.from_bits(m.integer("shli", m.to_bits(shifted), m.mantissa_bits))
    return m.mul(m.mul(power, scaled_up), m.const(2.0**-_SCALED_UP))


def _hold(m: VectorMath, y: ir.Value, sign: float, within: _Range, *, has_large_values: bool) -> ir.Value:
    """Return y, held where sign * y is in a range: there the result is a number, 0 or inf. NaN stays."""
    lowest, highest = sign * within.lowest, sign * within.highest
    if has_large_values:
        return m.clamp(y, min(lowest, highest), max(lowest, highest))
    return m.at_least(y, lowest) if sign > 0 else m.at_most(y, lowest)


def _emit_exp_near_0(m: VectorMath, r: ir.Value) -> ir.Value:
    """Return e^r for |r| <= log(2) / 2."""
    if not m.registers_in_step:
        return _emit_series(m, r)
    return m.in_step(_emit_series(m, m.in_step(r)))


def _emit_series(m: VectorMath, r: ir.Value) -> ir.Value:
    if m.bits == 32 and m.registers_in_step:
        return m.polynomial(r, _EXP_F32)
    tail = m.polynomial_by_pairs(r, m.mul(r, r), _EXP_TAIL[m.bits])
    return m.muladd(m.muladd(tail, r, m.const(1.0)), r, m.const(1.0))


def emit_exp_of_sum(m: VectorMath, high: ir.Value, low: ir.Value) -> ir.Value:
    """Return e^(high + low), for a low part below an ulp of the high part."""
    clamped = m.clamp(high, _EXP_RANGE[m.bits].lowest, _EXP_RANGE[m.bits].highest)
    low = m.select(m.compare("oeq", clamped, high), low, m.const(0.0))
    magic = m.const(m.rounding_magic + 2 * m.exponent_bias)
    shifted = m.muladd(clamped, m.const(LOG2_E), magic)
    r, r_low = _emit_remainder(m, m.sub(shifted, magic), clamped, low)
    rest = m.add(r, m.add(r_low, _emit_exp_tail(m, r)))
    return m.scale_by_biased(m.add(m.const(1.0), rest), shifted)


def emit_exp_in_factors(m: VectorMath, high: ir.Value, low: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return an integer n and f in [-0.3, 0.42] with e^(high + low) = 2^n (1 + f), where that is a number or 0."""
    n, r, r_low = emit_remainder_of_log_2(m, high, low)
    return n, m.add(r, m.add(r_low, _emit_exp_tail(m, r)))


def emit_exp2(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 2^x within 2 ulp."""
    if m.has_avx512_vectors:
        return avx512.emit_exp2(m, x)
    x = m.clamp(x, _EXP2_RANGE[m.bits].lowest, _EXP2_RANGE[m.bits].highest)
    n, n_integer = m.round_small(x)
    fraction = m.sub(x, n)
    r = m.mul(fraction, m.const(LOG_2))
    result = m.add(m.const(1.0), m.add(r, _emit_exp_tail(m, r)))
    return m.scale(result, n_integer)


def emit_expm1(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x - 1 within 2 ulp, for small x too."""
    high, low = emit_expm1_as_sum(m, x)
    # x itself where it is tiny: keeps -0.0 and numbers below the normal ones.
    is_tiny = m.compare("olt", m.abs(x), m.const(2.0 ** -(m.mantissa_bits + 2)))
    return m.select(is_tiny, x, m.add(high, low))


def emit_expm1_as_sum(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return e^x - 1 as a sum; the second part, below an ulp of the first, is NaN where the first is infinite."""
    clamped = m.clamp(x, _EXPM1_RANGE[m.bits].lowest, _EXPM1_RANGE[m.bits].highest)
    n_integer, r, r_low = emit_remainder_of_log_2(m, clamped)
    tail = m.add(r_low, _emit_exp_tail(m, r))
    # 2^n * (1 + r + tail) - 1, in halves so that 2^n itself cannot overflow.
    half_power = m.power_of_two(m.integer("subi", n_integer, 1))
    base, error = m.two_sum(m.sub(half_power, m.const(0.5)), m.mul(half_power, r))
    high, low = m.fast_two_sum(base, m.add(error, m.mul(half_power, tail)))
    return m.add(high, high), m.add(low, low)
