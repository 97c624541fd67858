"""The hyperbolic functions.

f64: made of e^x - 1. f32, Remez exchange, relative: (tanh x - x) / x^3 in x^2 for x^2 <= 0.4, (sinh r - r) / r^3 and
(cosh r - 1 - r^2 / 2) / r^4 in r^2 for |r| <= log(2) / 2.
"""

from dataclasses import dataclass

from pylazy.compiler.math_approximations.exponential import emit_exp, emit_expm1_as_sum, emit_remainder_of_log_2
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_cosh", "emit_sinh", "emit_tanh"]

_TANH_F32 = (
    -0.33333287880734735,
    0.1333138314829758,
    -0.05372399140990807,
    0.020565965971743764,
    -0.005607696899528428,
)
_SINH_F32 = (0.16666666755, 0.00833328879455, 0.000199050755119)
_COSH_F32 = (0.0416664587319, 0.00139354886301)


def emit_tanh(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the hyperbolic tangent within 2 ulp."""
    magnitude = m.abs(x)
    one, two = m.const(1.0), m.const(2.0)
    if m.bits == 64:
        t, t_low = emit_expm1_as_sum(m, m.mul(two, m.clamp(magnitude, 0.0, 22.0)))
        sum_high, sum_low = m.two_sum(t, two)
        quotient = m.div(t, sum_high)
        # The change of t / (t + 2) with the low parts of t and of the sum; 1 - quotient is 2 / (t + 2).
        rest = m.sub(one, quotient)
        change = m.sub(m.mul(t_low, rest), m.mul(quotient, sum_low))
        result = m.muladd(m.mul(rest, m.const(0.5)), change, quotient)
        is_tiny = m.compare("olt", magnitude, m.const(2.0**-54))
        return m.select(is_tiny, x, m.copysign(result, x))
    e = emit_exp(m, m.mul(two, m.at_most(magnitude, 10.0)))
    large = m.sub(one, m.div(two, m.add(e, one)))
    z = m.mul(x, x)
    small = m.muladd(m.mul(z, magnitude), m.polynomial(z, _TANH_F32), magnitude)
    return m.copysign(m.select(m.compare("olt", magnitude, m.const(0.6)), small, large), x)


def emit_sinh(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the hyperbolic sine within 2 ulp."""
    magnitude = m.abs(x)
    if m.bits == 32:
        terms = _emit_addition_terms_f32(m, magnitude)
        sinh_of_power, rest = terms.sinh_of_power, m.mul(terms.cosh_of_power, terms.sinh)
        result = m.add(sinh_of_power, m.muladd(sinh_of_power, terms.cosh_minus_1, rest))
        result = m.copysign(m.mul(result, m.const(4.0)), x)
        return m.select(m.compare("olt", magnitude, m.const(2.0**-12)), x, result)
    one, half = m.const(1.0), m.const(0.5)
    t, t_low = emit_expm1_as_sum(m, magnitude)
    quotient = m.div(t, m.add(t, one))
    rest = m.sub(one, quotient)  # 1 / (t + 1), whose square is the derivative of t / (t + 1)
    small = m.mul(half, m.add(t, m.add(quotient, m.muladd(t_low, m.mul(rest, rest), t_low))))
    result = m.select(m.compare("olt", magnitude, m.const(40.0)), small, _emit_half_exp(m, magnitude))
    is_tiny = m.compare("olt", magnitude, m.const(2.0**-54))
    return m.select(is_tiny, x, m.copysign(result, x))


def emit_cosh(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the hyperbolic cosine within 2 ulp."""
    magnitude = m.abs(x)
    if m.bits == 32:
        terms = _emit_addition_terms_f32(m, magnitude)
        cosh_of_power, rest = terms.cosh_of_power, m.mul(terms.sinh_of_power, terms.sinh)
        result = m.add(cosh_of_power, m.muladd(cosh_of_power, terms.cosh_minus_1, rest))
        return m.mul(result, m.const(4.0))
    half = m.const(0.5)
    e = m.mul(half, emit_exp(m, magnitude))
    small = m.add(e, m.div(m.const(0.25), e))
    return m.select(m.compare("olt", magnitude, m.const(40.0)), small, _emit_half_exp(m, magnitude))


@dataclass(frozen=True)
class _AdditionTerms:
    """With x = n log(2) + r: the functions of n log(2), divided by 4 so that they cannot overflow, and those of r."""

    sinh_of_power: ir.Value
    cosh_of_power: ir.Value
    sinh: ir.Value
    cosh_minus_1: ir.Value


def _emit_addition_terms_f32(m: VectorMath, x: ir.Value) -> _AdditionTerms:
    """Return the terms of the addition theorems of sinh and cosh, which cancel nowhere, for x >= 0."""
    x = m.at_most(x, 89.8)  # beyond: inf
    n, r, r_low = emit_remainder_of_log_2(m, x)
    eighth = m.exponent_bias - 3 << m.mantissa_bits
    shifted = m.integer("shli", n, m.mantissa_bits)
    power = m.from_bits(m.integer("addi", shifted, eighth))
    inverse = m.from_bits(m.integer("subi", m.iconst(eighth), shifted))
    inverse = m.select(m.compare("olt", x, m.const(40.0)), inverse, m.const(0.0))  # too small to count, or to exist
    z = m.mul(r, r)
    sinh = m.add(r, m.muladd(m.mul(z, r), m.polynomial(z, _SINH_F32), r_low))
    cosh_minus_1 = m.mul(z, m.muladd(z, m.polynomial(z, _COSH_F32), m.const(0.5)))
    return _AdditionTerms(
        sinh_of_power=m.sub(power, inverse), cosh_of_power=m.add(power, inverse), sinh=sinh, cosh_minus_1=cosh_minus_1
    )


def _emit_half_exp(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x / 2, also where only e^x overflows: the shift of x is exact for x > 40 and undone by a product."""
    # e^(x - 64 log 2) 2^63, with 64 log 2 in two parts; the second enters as a factor.
    x = m.clamp(x, 0.0, 720.0)  # beyond: inf without a detour over inf - inf
    shift, rest = 44.36141955581843, 1.807058596034021e-11
    e = emit_exp(m, m.sub(x, m.const(shift)))
    e = m.muladd(e, m.const(-rest), e)
    return m.mul(e, m.const(2.0**63))
