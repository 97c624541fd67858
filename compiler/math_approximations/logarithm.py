"""The logarithms.

Polynomials: Remez exchange in 50 digits, and interpolation at Chebyshev's points for the sum of two parts in f32.
f32: (log(1+f) - f + f^2/2) / f^3, relative to log(1+f), on [sqrt(1/2) - 1, sqrt(2) - 1], or on [-1/4, 1/2] where
AVX-512 extracts the mantissa. f64: with s = f / (2 + f), z = s^2 (the reduction of FreeBSD's e_log.c, Sun Microsystems
1993), (log((1+s)/(1-s)) - 2 s) / (s z) on z <= 0.0401. The sums in two parts for base 2 and 10 follow FreeBSD's
e_log2.c and e_log10.c.
"""

from dataclasses import dataclass

from pylazy.compiler.math_approximations import avx512
from pylazy.compiler.math_approximations.exponential import LOG2_PARTS
from pylazy.compiler.math_approximations.value_bounds import bounds_of
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_log", "emit_log1p", "emit_log2", "emit_log10", "emit_log_as_sum"]

_LOG_F32 = (
    0.33333316715970174,
    -0.2500081057371097,
    0.20002287155064286,
    -0.16624548501525643,
    0.14181168907043357,
    -0.13128788753403178,
    0.12881825502963007,
    -0.07859738428961695,
)
_LOG_F32_WIDE = (
    0.3333333708140032,
    -0.25000165972243177,
    0.19999844416725712,
    -0.16655565694275218,
    0.14270530068724,
    -0.1271478540339283,
    0.1173586454493309,
    -0.09252539907596136,
    0.03880667653013602,
)
_LOG_F64 = (
    0.6666666666666663,
    0.40000000000043456,
    0.28571428557696416,
    0.22222224187350142,
    0.1818166812334227,
    0.15391138711413627,
    0.13171926934024894,
    0.13860433087297694,
)
_ROOT_HALF_BITS = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}
# (log((1+s)/(1-s)) - 2 s - 2/3 s z) / (s z^2): the same series without its first term, to add that one in two parts.
_LOG_FROM_SECOND = {
    32: (0.3999999990477857, 0.28571531948315376, 0.22204747794796284, 0.19120843759340317),
    64: (
        0.39999999999999997,
        0.2857142857143291,
        0.22222222220354115,
        0.18181818546150016,
        0.15384577449636125,
        0.13335583928547973,
        0.1168858099632724,
        0.11883175399056918,
    ),
}
_REST_OF_TWO_THIRDS = {32: -1.9868214925130207e-08, 64: 3.700743415417188e-17}


@dataclass(frozen=True)
class _Base:
    """The factors that turn a natural logarithm and an exponent of two into another base.

    `of_e` and `of_2` are log_b(e) and log_b(2) in two parts, the first short enough for exact products.
    """

    of_e: tuple[float, float]
    of_2: tuple[float, float]


_BASE_2 = {
    32: _Base(of_e=(1.44269502162933349609375, 1.9259629911266175e-08), of_2=(1.0, 0.0)),
    64: _Base(of_e=(1.4426950407214463, 1.6751713164886512e-10), of_2=(1.0, 0.0)),
}
_BASE_10_F64 = _Base(
    of_e=(0.4342944818781689, 2.5082946711645275e-11), of_2=(0.30102999566361177, 3.694239077158931e-13)
)


def _emit_mantissa_and_exponent(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return a in [sqrt(1/2), sqrt(2)) and k as a float with x = a * 2**k, for positive finite x."""
    smallest_normal = 2.0 ** (1 - m.exponent_bias)
    may_be_small = bounds_of(x).low < smallest_normal
    shift = m.mantissa_bits + 1
    if may_be_small:
        is_small = m.compare("olt", x, m.const(smallest_normal))
        x = m.select(is_small, m.mul(x, m.const(2.0**shift)), x)
    root_half = _ROOT_HALF_BITS[m.bits]
    above = m.integer("subi", m.to_bits(x), root_half)
    k = m.integer("shrsi", above, m.mantissa_bits)
    if may_be_small:
        k = m.select(is_small, m.integer("subi", k, shift), k)
    mantissa = m.integer("addi", m.integer("andi", above, (1 << m.mantissa_bits) - 1), root_half)
    return m.from_bits(mantissa), _float_of_exponent(m, k)


def _float_of_exponent(m: VectorMath, k: ir.Value) -> ir.Value:
    """Convert a small integer: for f64 by its bits, since only AVX-512 has the instruction for lanes of 64 bits."""
    if m.bits == 32 or m.lanes is None:
        return m.float_of_integer(k)
    magic_bits = 0x4338000000000000
    return m.sub(m.from_bits(m.integer("addi", k, magic_bits)), m.const(m.rounding_magic))


def _emit_special_values(m: VectorMath, x: ir.Value, result: ir.Value) -> ir.Value:
    """Return -inf for 0, inf for inf, NaN for NaN and negative numbers, otherwise the result."""
    lowest = bounds_of(x).low
    result = m.select(m.compare("olt", x, m.const(float("inf"))), result, x)
    if lowest <= 0:
        result = m.select(m.compare("oeq", x, m.const(0.0)), m.const(-float("inf")), result)
    if lowest < 0:
        result = m.select(m.compare("olt", x, m.const(0.0)), m.const(float("nan")), result)
    return result


def _emit_log1p_parts_f32(m: VectorMath, f: ir.Value, coefficients: tuple[float, ...]) -> tuple[ir.Value, ir.Value]:
    """Return f^2 and t with log(1 + f) = f + f^2 t."""
    return m.mul(f, f), m.muladd(m.polynomial(f, coefficients), f, m.const(-0.5))


def emit_log(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the natural logarithm within 2 ulp."""
    if m.has_avx512_vectors:
        a, k = avx512.emit_mantissa_and_exponent(m, x)
        # The parts of log(2) are both positive: inf in k stays inf.
        return _emit_log_f32(m, a, k, _LOG_F32_WIDE) if m.bits == 32 else _emit_log_f64(m, a, k)
    a, k = _emit_mantissa_and_exponent(m, x)
    result = _emit_log_f32(m, a, k, _LOG_F32) if m.bits == 32 else _emit_log_f64(m, a, k)
    return _emit_special_values(m, x, result)


def _emit_log_f32(m: VectorMath, a: ir.Value, k: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    return _emit_log_of_parts_f32(m, m.sub(a, m.const(1.0)), k, coefficients)


def _emit_log_of_parts_f32(m: VectorMath, f: ir.Value, k: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    """Return k log(2) + log(1 + f)."""
    square, t = _emit_log1p_parts_f32(m, f, coefficients)
    first, second = LOG2_PARTS[32]
    return m.muladd(k, m.const(first), m.muladd(square, t, m.muladd(k, m.const(second), f)))


def _emit_log1p_parts_f64(m: VectorMath, f: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return h = f^2 / 2 and s (h + z R) with log(1 + f) = f - (h - s (h + z R))."""
    half_square = m.mul(m.mul(f, f), m.const(0.5))
    s = m.div(f, m.add(f, m.const(2.0)))
    z = m.mul(s, s)
    return half_square, m.mul(s, m.muladd(z, m.polynomial(z, _LOG_F64), half_square))


def _emit_log_f64(m: VectorMath, a: ir.Value, k: ir.Value, correction: ir.Value | None = None) -> ir.Value:
    f = m.sub(a, m.const(1.0))
    half_square, rest = _emit_log1p_parts_f64(m, f)
    first, second = LOG2_PARTS[64]
    rest = m.muladd(k, m.const(second), rest)
    if correction is not None:
        rest = m.add(rest, correction)
    return m.muladd(k, m.const(first), m.sub(f, m.sub(half_square, rest)))


def emit_log2(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the logarithm to base 2 within 2 ulp, exact for powers of two."""
    if m.has_avx512_vectors and m.bits == 32:
        a, k = avx512.emit_mantissa_and_exponent(m, x)
        return _emit_log2_f32(m, a, k, _LOG_F32_WIDE)
    a, k = _emit_mantissa_and_exponent(m, x)
    if m.bits == 32:
        return _emit_special_values(m, x, _emit_log2_f32(m, a, k, _LOG_F32))
    return _emit_special_values(m, x, _emit_log_to_base_f64(m, a, k, _BASE_2[64]))


def _emit_log2_f32(m: VectorMath, a: ir.Value, k: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    f = m.sub(a, m.const(1.0))
    square, t = _emit_log1p_parts_f32(m, f, coefficients)
    first, second = _BASE_2[32].of_e
    high, low = m.two_product(f, m.const(first))
    low = m.muladd(f, m.const(second), low)
    low = m.muladd(m.mul(square, t), m.const(first), low)
    return m.add(k, m.add(high, low))


def _emit_log_to_base_f64(m: VectorMath, a: ir.Value, k: ir.Value, base: _Base) -> ir.Value:
    f = m.sub(a, m.const(1.0))
    half_square, rest = _emit_log1p_parts_f64(m, f)
    # The upper half of the bits of log(1 + f), so that its product with the short constant is exact.
    high = m.sub(f, half_square)
    high = m.from_bits(m.integer("andi", m.to_bits(high), 0xFFFFFFFF00000000))
    low = m.add(m.sub(m.sub(f, high), half_square), rest)
    e_first, e_second = base.of_e
    two_first, two_second = base.of_2
    product = m.mul(high, m.const(e_first))
    small = m.muladd(m.add(low, high), m.const(e_second), m.mul(low, m.const(e_first)))
    exponent = k if two_first == 1.0 else m.mul(k, m.const(two_first))
    if two_second != 0.0:
        small = m.muladd(k, m.const(two_second), small)
    total = m.add(exponent, product)
    return m.add(total, m.add(small, m.add(m.sub(exponent, total), product)))


def emit_log10(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the logarithm to base 10 within 2 ulp, for f64."""
    a, k = _emit_mantissa_and_exponent(m, x)
    return _emit_special_values(m, x, _emit_log_to_base_f64(m, a, k, _BASE_10_F64))


def emit_log1p(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return log(1 + x) within 2 ulp, also where x is small."""
    if m.bits == 32:
        return _emit_log1p_f32(m, x)
    u, error = m.two_sum(m.const(1.0), x)
    a, k = _emit_mantissa_and_exponent(m, u)
    # The rounding error of 1 + x is of use only while u is of moderate size; there 1 / u is what it counts.
    is_moderate = m.compare("olt", u, m.const(2.0**60))
    correction = m.select(is_moderate, m.div(error, u), m.const(0.0))
    result = _emit_special_values(m, u, _emit_log_f64(m, a, k, correction))
    is_tiny = m.compare("olt", m.abs(x), m.const(2.0**-54))
    return m.select(is_tiny, x, result)


def _emit_log1p_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return log(2^k) + log(1 + f), where the rounding error of 1 + x, divided by 2^k, goes into f."""
    one, minus_one = m.const(1.0), m.const(-1.0)
    u, error = m.two_sum(one, x)
    exponent = m.integer("andi", m.integer("subi", m.to_bits(u), _ROOT_HALF_BITS[32]), -(1 << m.mantissa_bits))
    a = m.from_bits(m.integer("subi", m.to_bits(u), exponent))
    inverse_power = m.from_bits(m.integer("subi", m.to_bits(m.const(2.0)), exponent))  # 2^(1-k): 0 for k = 128
    f = m.muladd(m.mul(error, m.const(0.5)), inverse_power, m.sub(a, one))
    k = m.float_of_integer(m.integer("shrsi", exponent, m.mantissa_bits))
    result = _emit_log_of_parts_f32(m, f, k, _LOG_F32)
    result = m.select(m.compare("ogt", x, minus_one), result, m.const(float("nan")))
    result = m.select(m.compare("oeq", x, minus_one), m.const(-float("inf")), result)
    # Where the square of x does not count, and for inf.
    is_own = m.either(m.compare("olt", m.abs(x), m.const(2.0**-25)), m.compare("oeq", x, m.const(float("inf"))))
    return m.select(is_own, x, result)


def emit_log_as_sum(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return the natural logarithm of a positive finite number as a sum of two parts.

    The relative error is near 2^-65 for f64 and 2^-35 for f32.
    """
    a, k = _emit_mantissa_and_exponent(m, x)
    one = m.const(1.0)
    f = m.sub(a, one)
    sum_high, sum_low = m.fast_two_sum(one, a)  # a < 2: its exponent is not above that of 1
    inverse = m.div(one, sum_high)
    s = m.mul(f, inverse)
    remainder = m.sub(m.remainder_of_product(f, s, sum_high), m.mul(s, sum_low))
    s_low = m.mul(remainder, inverse)
    z, z_low = m.two_product(s, s)
    z_low = m.muladd(m.add(s, s), s_low, z_low)
    # log(1 + f) = 2 s + s z (2/3 + z Q)
    u, u_low = m.fast_two_sum(m.const(2.0 / 3.0), m.mul(z, m.polynomial(z, _LOG_FROM_SECOND[m.bits])))
    u_low = m.add(u_low, m.const(_REST_OF_TWO_THIRDS[m.bits]))
    w, w_low = m.two_product(z, u)
    w_low = m.add(w_low, m.muladd(z, u_low, m.mul(z_low, u)))
    v, v_low = m.two_product(s, w)
    v_low = m.add(v_low, m.muladd(s, w_low, m.mul(s_low, w)))
    high, low = m.fast_two_sum(m.add(s, s), v)
    low = m.add(low, m.add(m.add(s_low, s_low), v_low))
    first, second = LOG2_PARTS[m.bits]
    total, error = m.fast_two_sum(m.mul(k, m.const(first)), high)  # 0, or larger than |high| <= log(2) / 2
    return total, m.add(error, m.muladd(k, m.const(second), low))
