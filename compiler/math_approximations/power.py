"""Powers and roots.

pow follows ISO C, annex F.10.4.4. Its logarithm and the product with the exponent are sums of two parts, so the error
that the exponential makes large starts near 2^-65, or 2^-35 for f32. cbrt: a polynomial (Remez, relative, on [1, 8))
and two steps of Halley; the last one starts from few enough bits for an exact square, as in FreeBSD's s_cbrt.c.
"""

from pylazy.compiler.math_approximations import avx512
from pylazy.compiler.math_approximations.exponential import emit_exp_of_sum
from pylazy.compiler.math_approximations.logarithm import emit_log_as_sum
from pylazy.compiler.math_approximations.rounding import emit_trunc
from pylazy.compiler.math_approximations.value_bounds import bounds_of
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_cbrt", "emit_integer_power", "emit_pow", "emit_rsqrt", "emit_sqrt"]

_CBRT = (0.6272959812730916, 0.44919213041130324, -0.08377441334855928, 0.009583712143105706, -0.00043209507870995036)
# The bits of 1 at 4/3 of themselves, less the part that centres the error.
_INVERSE_CBRT_BITS = 1419900000.0
_INVERSE_CBRT_SERIES = ((1 / 3, 2 / 9, 14 / 81), (1 / 3,))  # of (1 - e)^(-1/3), without its 1
# The estimate of an inverse root takes subnormal numbers for 0.
_NO_SMALL_VALUES = 2.0**-125
_LARGEST_EXPONENT_THAT_MATTERS = {32: 2.0**40, 64: 2.0**80}  # |log x| >= 2^-24, 2^-53 for x != 1


def emit_rsqrt(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 1 / sqrt(x) within 2 ulp."""
    if m.has_avx512_vectors:
        return avx512.emit_rsqrt(m, x)
    registers = _estimate_registers(m)
    if registers and bounds_of(x).low >= _NO_SMALL_VALUES:
        return m.by_registers(_emit_rsqrt_by_estimate, [x], registers=registers)
    return m.div(m.const(1.0), m.sqrt(x))


def _estimate_registers(m: VectorMath) -> int:
    """Return how many registers a vector fills of those for which AVX has an estimate, or 0."""
    registers = (m.lanes or 0) // 8
    whole = registers * 8 == m.lanes and registers & (registers - 1) == 0
    return registers if m.bits == 32 and whole and m.target.name == "x86-64-v3" else 0


def _emit_rsqrt_by_estimate(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 1 / sqrt(x) from 11 bits and e = 1 - x y^2 by y (1 + e / 2 + 3 e^2 / 8), for x that is not subnormal.

    Where x is inf, y is right already and e is NaN: what replaces it does not change y.
    """
    y = m.call_intrinsic("llvm.x86.avx.rsqrt.ps.256", [x])
    error = m.muladd(m.neg(m.mul(x, y)), y, m.const(1.0))
    known = m.select(m.compare("ogt", error, m.const(-(2.0**-10))), error, m.const(-(2.0**-10)))
    return m.muladd(m.mul(y, known), m.muladd(known, m.const(0.375), m.const(0.5)), y)


def emit_sqrt(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return sqrt(x): within 1 ulp with AVX-512, whose instruction for it blocks the pipes, otherwise rounded."""
    if m.has_avx512_vectors:
        return avx512.emit_sqrt(m, x)
    return m.sqrt(x)


def emit_pow(m: VectorMath, x: ir.Value, y: ir.Value) -> ir.Value:
    """Return x to the power y within 2 ulp."""
    limit = _LARGEST_EXPONENT_THAT_MATTERS[m.bits]
    bounded = m.clamp(y, -limit, limit)
    log_high, log_low = emit_log_as_sum(m, m.abs(x))
    high, low = m.two_product(bounded, log_high)
    result = emit_exp_of_sum(m, high, m.muladd(bounded, log_low, low))
    return _emit_special_powers(m, x, y, result)


def _emit_special_powers(m: VectorMath, x: ir.Value, y: ir.Value, result: ir.Value) -> ir.Value:
    """Replace the power of the magnitude where that is not a positive number, or has another sign."""
    zero, one, infinity = m.const(0.0), m.const(1.0), m.const(float("inf"))
    magnitude, lowest = m.abs(x), bounds_of(x).low
    is_falling = m.compare("olt", y, zero)
    is_infinite = m.compare("oeq", magnitude, infinity)
    result = m.select(is_infinite, m.select(is_falling, zero, infinity), result)
    if lowest <= 0:
        result = m.select(m.compare("oeq", magnitude, zero), m.select(is_falling, infinity, zero), result)
        is_fraction = m.compare("une", emit_trunc(m, y), y)
        half = m.mul(y, m.const(0.5))
        is_half_fraction = m.compare("une", emit_trunc(m, half), half)
        odd_sign = m.select(is_fraction, m.iconst(0), m.select(is_half_fraction, m.sign_bit(x), m.iconst(0)))
        result = m.flip_sign(result, odd_sign)
        if lowest < 0:
            is_negative = m.both(m.compare("olt", x, zero), m.compare("olt", magnitude, infinity))
            result = m.select(m.both(is_negative, is_fraction), m.const(float("nan")), result)
    result = m.select(m.compare("uno", x, y), m.add(x, y), result)
    return m.select(m.either(m.compare("oeq", y, zero), m.compare("oeq", x, one)), one, result)


def emit_integer_power(m: VectorMath, x: ir.Value, exponent: int) -> ir.Value:
    """Return x to a constant integer power by repeated squaring."""
    result = None
    square = x
    remaining = abs(exponent)
    while remaining:
        if remaining & 1:
            result = square if result is None else m.mul(result, square)
        remaining >>= 1
        if remaining:
            square = m.mul(square, square)
    if result is None:
        return m.const(1.0)
    return m.div(m.const(1.0), result) if exponent < 0 else result


def _emit_cbrt_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return c = x y^2, corrected by (x - c^3) y^2 / 3, for y near x^(-1/3)."""
    magnitude = m.abs(x)
    is_small = m.compare("olt", magnitude, m.const(1.0))
    # Nothing is below the normal numbers, and the cube of a result that was rounded up does not overflow.
    scaled = m.mul(magnitude, m.select(is_small, m.const(2.0**24), m.const(2.0**-3)))
    # A third of the exponent, and with it nearly a third of the logarithm: y to 4 %, 1e-5, 2e-10 of itself.
    third = m.mul(m.float_of_integer(m.to_bits(scaled)), m.const(-1.0 / 3.0))
    y = m.from_bits(m.op("arith.fptosi", (m.add(third, m.const(_INVERSE_CBRT_BITS)),), m.integer_type))
    for series in _INVERSE_CBRT_SERIES:
        error = m.sub(m.const(1.0), m.mul(m.mul(scaled, y), m.mul(y, y)))
        y = m.muladd(m.mul(y, error), m.polynomial(error, series), y)
    square = m.mul(y, y)
    root = m.mul(scaled, square)
    root_squared, root_squared_low = m.two_product(root, root)
    rest = m.muladd(m.neg(root_squared_low), root, m.remainder_of_product(scaled, root_squared, root))
    root = m.muladd(rest, m.mul(square, m.const(1.0 / 3.0)), root)
    result = m.copysign(m.mul(root, m.select(is_small, m.const(2.0**-8), m.const(2.0))), x)
    is_regular = m.both(m.compare("ogt", magnitude, m.const(0.0)), m.compare("olt", magnitude, m.const(float("inf"))))
    return m.select(is_regular, result, m.add(x, x))


def emit_cbrt(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the cube root within 2 ulp."""
    if m.bits == 32:
        return _emit_cbrt_f32(m, x)
    magnitude = m.abs(x)
    is_small = m.compare("olt", magnitude, m.const(2.0**-1000))
    scaled = m.select(is_small, m.mul(magnitude, m.const(2.0**90)), magnitude)
    bits = m.to_bits(scaled)
    # exponent = 3 q + {0, 1, 2}; the division by 3 in floats, where the exponent is a small number.
    exponent = m.integer("subi", m.integer("shrui", bits, 52), 1023)
    shifted = m.from_bits(m.integer("addi", exponent, 0x4338000000000000))
    exponent_float = m.sub(shifted, m.const(m.rounding_magic))
    _, q = m.round_small(m.mul(m.sub(exponent_float, m.const(1.0)), m.const(1.0 / 3.0)))
    rest = m.integer("subi", exponent, m.integer("addi", m.integer("addi", q, q), q))
    mantissa = m.integer("ori", m.integer("andi", bits, (1 << 52) - 1), 1023 << 52)
    y = m.from_bits(m.integer("addi", mantissa, m.integer("shli", rest, 52)))
    root = m.polynomial(y, _CBRT)
    for _ in range(2):
        root = m.from_bits(m.integer("andi", m.integer("addi", m.to_bits(root), 1 << 31), -(1 << 32)))
        ratio = m.div(y, m.mul(root, root))
        step = m.div(m.sub(ratio, root), m.add(m.add(root, root), ratio))
        root = m.muladd(root, step, root)
    result = m.mul(root, m.power_of_two(q))
    result = m.select(is_small, m.mul(result, m.const(2.0**-30)), result)
    result = m.copysign(result, x)
    is_regular = m.both(m.compare("ogt", magnitude, m.const(0.0)), m.compare("olt", magnitude, m.const(float("inf"))))
    return m.select(is_regular, result, m.add(x, x))
