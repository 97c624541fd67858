"""Exponentials, logarithms and square roots with the instructions that AVX-512 has for them.

The instruction counts decide: on Zen 4 multiplications and comparisons (class A) leave one pipe a cycle, additions,
roundings and minima (class B) another, and table look-ups and integer operations (class E) take a free slot of either.
Polynomials are class A only, so a table that shortens one is a gain.

Special values are those of Intel's Software Developer's Manual: scalef(NaN, inf) = inf, scalef(NaN, -inf) = 0,
getexp(0) = -inf, getmant(inf) = 1, getmant of a negative number NaN (as asked for), rsqrt14(0) = inf. Of two
operands of which one is NaN, the maximum is the second.
"""

from collections.abc import Sequence

from pylazy.compiler.math_approximations.value_bounds import without_sign
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_exp", "emit_exp2", "emit_mantissa_and_exponent", "emit_rsqrt", "emit_sqrt"]

LOG2_E = 1.4426950408889634
_LOG2_E_F32 = (1.4426950216293335, 1.9259629911266175e-08)
_LOG_2_F64 = (0.6931471805599453, 2.3190468138462996e-17)
_LOG_2_F32 = (0.6931471824645996, -1.904654299957768e-09)

_CURRENT_ROUNDING = 4
_MANTISSA_3_4_TO_3_2 = 0b1011  # VGETMANT: in [0.75, 1.5), NaN for negative numbers
_ZERO_OR_INFINITY = 0b1110  # VFPCLASS: 0, -0 and inf
_SUBNORMAL = 0b100000  # VFPCLASS

# 2^r for |r| <= 1/2, c0 = 1; the other coefficients are fitted one after the other, each after the rounding of the
# one before, which gains 0.7 ulp over rounding a minimax polynomial.
_EXP2_F32 = (
    1.0,
    0.6931470036506653,
    0.24022246897220612,
    0.0555071085691452,
    0.009671291336417198,
    0.0013269521296024323,
)
# (2^r - 1) / r for |r| <= 1/64: minimax (linear programme), then the best of the neighbours in f32 for all 32 entries.
_EXP2_NEAR_0_F32 = (0.6931571960449219, 0.24022363126277924)
# (e^r - 1 - r) / r^2 for |r| <= log(2)/32, and for |r| <= log(2)/2, Remez, relative to e^r.
_EXP_NEAR_0_F64 = (
    0.499999999999996,
    0.16666666664409005,
    0.04166666669334375,
    0.0083334721968957,
    0.0013888593690592574,
)
_EXP_TAIL_F64 = (
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
)
_EXP_TAIL_F32 = (
    0.49999993447971147,
    0.1666652063554529,
    0.041668388034111735,
    0.008368716502502127,
    0.001381459802083656,
)


def _call(m: VectorMath, name: str, operands: Sequence[ir.Value], *, rounds: bool) -> ir.Value:
    """Call a masked intrinsic with all lanes on; `rounds`: its 512-bit form names a rounding mode."""
    assert m.lanes is not None
    register_bits = m.bits * m.lanes
    suffix = f"p{'s' if m.bits == 32 else 'd'}.{register_bits}"
    mask = m.immediate(-1, 16 if m.lanes == 16 else 8)
    extra = [m.immediate(_CURRENT_ROUNDING, 32)] if rounds and register_bits == 512 else []
    return m.call_intrinsic(f"llvm.x86.avx512.{name}.{suffix}", [*operands, operands[0], mask, *extra])


def _scalef(m: VectorMath, a: ir.Value, n: ir.Value) -> ir.Value:
    """Return a * 2**floor(n)."""
    return _call(m, "mask.scalef", [a, n], rounds=True)


def _round_to_fraction(m: VectorMath, a: ir.Value, fraction_bits: int) -> ir.Value:
    """Round to the next multiple of 2**-fraction_bits, ties to even."""
    return _call(m, "mask.rndscale", [a, m.immediate(fraction_bits << 4, 32)], rounds=True)


def _bound(m: VectorMath, r: ir.Value) -> ir.Value:
    """Return r where it is below 2, otherwise something below 2.

    The reduced argument of a huge finite number is noise of any size, that of an infinity NaN; bounded noise is all
    that scalef needs to make 0 or inf of it. The highest bit of the exponent is 0 in numbers below 2 only.
    """
    return m.from_bits(m.integer("andi", m.to_bits(r), ~(1 << (m.bits - 2))))


def _look_up(m: VectorMath, index: ir.Value, table: Sequence[float]) -> ir.Value:
    """Return table[low bits of the index] from two registers."""
    assert m.lanes is not None
    suffix = f"p{'s' if m.bits == 32 else 'd'}.{m.bits * m.lanes}"
    first, second = m.table(table[: m.lanes]), m.table(table[m.lanes :])
    return m.call_intrinsic(f"llvm.x86.avx512.vpermi2var.{suffix}", [first, index, second])


def emit_exp(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x; the table needs registers of 512 bits."""
    if m.lanes is not None and m.bits * m.lanes == 512:
        return _emit_exp_by_table_f32(m, x) if m.bits == 32 else _emit_exp_by_table_f64(m, x)
    return emit_exp_by_polynomial(m, x)


def _table_of_powers(entries: int) -> list[float]:
    return [2.0 ** (k / entries) for k in range(entries)]


def _table_index(m: VectorMath, n: ir.Value, entries_bits: int) -> ir.Value:
    """Return the fraction bits of n, a multiple of 2**-entries_bits, as the low bits of an integer."""
    return m.to_bits(m.add(n, m.const(1.5 * 2.0 ** (m.mantissa_bits - entries_bits))))


def _emit_exp_by_table_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    x, sign = without_sign(x)
    n = _round_to_fraction(m, m.mul(x, m.const(sign * LOG2_E)), 5)
    first, second = _LOG2_E_F32
    r = m.muladd(x, m.const(sign * second), m.muladd(x, m.const(sign * first), m.neg(n)))
    r = _bound(m, r)
    power = _look_up(m, _table_index(m, n, 5), _table_of_powers(32))
    small = m.mul(r, m.polynomial(r, _EXP2_NEAR_0_F32))
    return _scalef(m, m.muladd(power, small, power), n)


def _emit_exp_by_table_f64(m: VectorMath, x: ir.Value) -> ir.Value:
    y, sign = without_sign(x)
    n = _round_to_fraction(m, m.mul(y, m.const(sign * LOG2_E)), 4)
    first, second = _LOG_2_F64
    r = _bound(m, m.muladd(n, m.const(-second), m.muladd(n, m.const(-first), x)))
    power = _look_up(m, _table_index(m, n, 4), _table_of_powers(16))
    small = m.muladd(m.mul(r, r), m.polynomial(r, _EXP_NEAR_0_F64), r)
    return _scalef(m, m.muladd(power, small, power), n)


def emit_exp_by_polynomial(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x without a table, for any register width."""
    n = _round_to_fraction(m, m.mul(x, m.const(LOG2_E)), 0)
    first, second = _LOG_2_F32 if m.bits == 32 else _LOG_2_F64
    r = _bound(m, m.muladd(n, m.const(-second), m.muladd(n, m.const(-first), x)))
    tail = m.polynomial(r, _EXP_TAIL_F32 if m.bits == 32 else _EXP_TAIL_F64)
    result = m.muladd(m.muladd(tail, r, m.const(1.0)), r, m.const(1.0))
    return _scalef(m, result, n)


def emit_exp2(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 2^x: x minus its rounding is exact, and 0 for huge x, so nothing needs a bound."""
    n = _round_to_fraction(m, x, 0)
    fraction = m.sub(x, n)
    if m.bits == 32:
        return _scalef(m, m.polynomial(fraction, _EXP2_F32), n)
    r = m.mul(fraction, m.const(_LOG_2_F64[0]))
    result = m.muladd(m.muladd(m.polynomial(r, _EXP_TAIL_F64), r, m.const(1.0)), r, m.const(1.0))
    return _scalef(m, result, n)


def emit_mantissa_and_exponent(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return a in [0.75, 1.5) and k with x = a * 2**k; a is NaN for negative x, k is -inf for 0 and inf for inf."""
    mantissa = _call(m, "mask.getmant", [x, m.immediate(_MANTISSA_3_4_TO_3_2, 32)], rounds=True)
    exponent = _call_one(m, "mask.getexp", x)
    raised = m.add(exponent, m.const(1.0))
    return mantissa, m.select(m.compare("olt", mantissa, m.const(1.0)), raised, exponent)


def _call_one(m: VectorMath, name: str, x: ir.Value) -> ir.Value:
    return _call(m, name, [x], rounds=True)


def _halve(m: VectorMath, y: ir.Value) -> ir.Value:
    """Return y / 2 for a normal number, 0 for 0, and something finite for an infinity.

    One is subtracted from the exponent, in words of 16 bits that stop at 0.
    """
    assert m.lanes is not None
    words = m.bits * m.lanes // 16
    word_type = m.word_type(words)
    one = m.iconst(1 << m.mantissa_bits)
    halved = m.call_intrinsic(
        f"llvm.usub.sat.v{words}i16",
        [m.op("llvm.bitcast", (y,), word_type), m.op("llvm.bitcast", (one,), word_type)],
        word_type,
    )
    return m.op("llvm.bitcast", (halved,), m.float_type)


def emit_rsqrt(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 1 / sqrt(x) by Newton's method from 14 bits: one step for f32, two for f64.

    Where x is 0 or inf, y is right already and its error NaN: a small bound replaces that, which does not change y.
    """
    y = _call(m, "rsqrt14", [x], rounds=False)
    for bound in (-(2.0**-12),) if m.bits == 32 else (-(2.0**-12), -(2.0**-24)):
        error = m.muladd(m.neg(m.mul(x, y)), y, m.const(1.0))
        known = m.select(m.compare("ogt", error, m.const(bound)), error, m.const(bound))
        y = m.muladd(_halve(m, y), known, y)
    return y


def emit_sqrt(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the square root by Goldschmidt's method; roots that a float can hold are exact.

    f32: sqrt(x) = s + s (1/2 - s h) with s near sqrt(x) and h near 1 / (2 sqrt(x)), whose last rounding is the only
    one that matters.
    """
    assert m.lanes is not None
    y = _call(m, "rsqrt14", [x], rounds=False)
    root, half_inverse = m.mul(x, y), _halve(m, y)
    rest = m.muladd(m.neg(root), half_inverse, m.const(0.5))
    root = m.muladd(root, rest, root)
    if m.bits == 32:
        return m.select(_is_class(m, x, _ZERO_OR_INFINITY), x, root)
    half_inverse = m.muladd(half_inverse, rest, half_inverse)
    error = m.muladd(m.neg(root), root, x)
    root = m.muladd(error, half_inverse, root)
    return _emit_root_of_special(m, x, root)


def _is_class(m: VectorMath, x: ir.Value, classes: int) -> ir.Value:
    """Return whether x is of one of the classes of VFPCLASS; NaN and negative numbers need no test for a root."""
    assert m.lanes is not None
    suffix = f"p{'s' if m.bits == 32 else 'd'}.{m.bits * m.lanes}"
    return m.call_intrinsic(f"llvm.x86.avx512.fpclass.{suffix}", [x, m.immediate(classes, 32)], m.bool_type)


def _emit_root_of_special(m: VectorMath, x: ir.Value, root: ir.Value) -> ir.Value:
    """Take the slow instruction where a number is 0, infinite, or so small that errors of its root underflow."""
    special = _is_class(m, x, _ZERO_OR_INFINITY | _SUBNORMAL)
    kind = ir.Attribute.parse("#vector.kind<or>", m.loc.context)
    any_special = m.op("vector.reduction", (special,), m.bool_element_type, {"kind": kind})
    branch = m.region_op("scf.if", [any_special], [m.float_type], regions=2)
    slow = ir.InsertionPoint(branch.regions[0].blocks.append())
    exact = m.with_shape(bits=m.bits, lanes=m.lanes, ip=slow).sqrt(x)
    for ip, value in ((slow, exact), (ir.InsertionPoint(branch.regions[1].blocks.append()), root)):
        ir.Operation.create("scf.yield", operands=[value], ip=ip, loc=m.loc)
    return branch.results[0]
