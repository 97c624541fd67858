"""Sine, cosine and tangent.

Polynomials: Remez exchange in 50 digits on |r| <= pi/4, relative to the function: (sin r - r) / r^3,
(cos r - 1 + r^2/2) / r^4 and, for f32, (tan r - r) / r^3, in r^2. The evaluation with a second part of r is that of
FreeBSD's k_sin.c and k_cos.c (Sun Microsystems 1993). Angles up to a bound are reduced with pi/2 in three parts;
larger ones, rare, under a branch.
"""

from pylazy.compiler.math_approximations.reduce_large_angle import PI_HALF, emit_reduce_large_angle
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_cos", "emit_sin", "emit_tan"]

_SIN_F32 = (-0.1666665463851814, 0.008332098507163445, -0.00019503629318147188)
_COS_F32 = (0.04166665461583358, -0.0013887651924911432, 2.4463501907077988e-05)
_TAN_F32 = (
    0.333333498929,
    0.133326584231,
    0.054060492199,
    0.0212791198446,
    0.0108440021416,
    7.88631866587e-05,
    0.00438167902497,
)
_SIN_F64 = (
    -0.16666666666666644,
    0.008333333333323667,
    -0.0001984126983014903,
    2.7557313653584147e-06,
    -2.5050734854289338e-08,
    1.5894727448356813e-10,
)
_COS_F64 = (
    0.04166666666666665,
    -0.0013888888888882842,
    2.4801587294630783e-05,
    -2.7557315739656446e-07,
    2.087589791001492e-09,
    -1.1367992111477274e-11,
)

_TWO_OVER_PI = 0.6366197723675814
_PI_HALF_F32 = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
# pi / 2 in parts of 24 bits: the products with an integer of 20 bits are exact in f64.
_PI_HALF_SHORT_F64 = (1.570796251296997, 7.549789415861596e-08)

_LARGE_ANGLE = {32: 32768.0, 64: 2.0**30}


def emit_sin(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the sine of any finite x within 2 ulp."""
    quadrant, r, r_low = _emit_reduce(m, x)
    sine = _emit_quarter_wave(m, quadrant, r, r_low)
    # sin(-0.0) is -0.0, and so are all angles too small for the first product.
    return m.select(m.compare("oeq", x, m.const(0.0)), x, sine)


def emit_cos(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the cosine of any finite x within 2 ulp."""
    quadrant, r, r_low = _emit_reduce(m, x)
    return _emit_quarter_wave(m, m.integer("addi", quadrant, 1), r, r_low)


def emit_tan(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the tangent of any finite x within 2 ulp."""
    if m.bits == 32:
        return _emit_tan_f32(m, x)
    quadrant, r, r_low = _emit_reduce(m, x)
    sine, sine_low = m.fast_two_sum(*_emit_sin_parts_f64(m, r, r_low))
    cosine, cosine_low = m.fast_two_sum(*_emit_cos_parts_f64(m, r, r_low))
    is_odd = m.compare_integers("ne", m.integer("andi", quadrant, 1), m.iconst(0))
    above, above_low = m.select(is_odd, cosine, sine), m.select(is_odd, cosine_low, sine_low)
    below, below_low = m.select(is_odd, sine, cosine), m.select(is_odd, sine_low, cosine_low)
    quotient = m.div(above, below)
    product, error = m.two_product(quotient, below)
    rest = m.add(m.sub(m.sub(above, product), error), m.sub(above_low, m.mul(quotient, below_low)))
    result = m.add(quotient, m.div(rest, below))
    result = m.select(is_odd, m.neg(result), result)
    is_tiny = m.compare("olt", m.abs(x), m.const(2.0**-27))
    return m.select(is_tiny, x, result)


def _emit_tan_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return tan r, or -1 / tan r in odd quadrants, with the change by the rounding error of r."""
    reduce_small = _emit_reduce_small_f32_in_parts if m.target.has_fma else _emit_reduce_small_f32_by_f64_in_parts
    quadrant, r, r_low = _emit_reduce_with(m, x, reduce_small(m, x))
    z = m.mul(r, r)
    change = m.mul(r_low, m.polynomial(z, (1.0, 1.0, 2 / 3)))  # the derivative of tan
    tangent = m.add(r, m.muladd(m.mul(z, r), m.polynomial(z, _TAN_F32), change))
    is_odd = m.compare_integers("ne", m.integer("andi", quadrant, 1), m.iconst(0))
    result = m.select(is_odd, m.div(m.const(-1.0), tangent), tangent)
    is_tiny = m.compare("olt", m.abs(x), m.const(2.0**-12))
    return m.select(is_tiny, x, result)


def _emit_quarter_wave(m: VectorMath, quadrant: ir.Value, r: ir.Value, r_low: ir.Value | None) -> ir.Value:
    """Return sin(r + quadrant * pi / 2)."""
    if r_low is None:
        sine, cosine = _emit_sin_f32(m, r), _emit_cos_f32(m, r)
    else:
        sine_high, sine_low = _emit_sin_parts_f64(m, r, r_low)
        cosine_high, cosine_low = _emit_cos_parts_f64(m, r, r_low)
        sine, cosine = m.add(sine_high, sine_low), m.add(cosine_high, cosine_low)
    is_odd = m.compare_integers("ne", m.integer("andi", quadrant, 1), m.iconst(0))
    value = m.select(is_odd, cosine, sine)
    sign = m.integer("shli", m.integer("andi", quadrant, 2), m.bits - 2)
    return m.flip_sign(value, sign)


def _emit_sin_f32(m: VectorMath, r: ir.Value) -> ir.Value:
    z = m.mul(r, r)
    return m.muladd(m.mul(z, r), m.polynomial(z, _SIN_F32), r)


def _emit_cos_f32(m: VectorMath, r: ir.Value) -> ir.Value:
    z = m.mul(r, r)
    tail = m.muladd(m.polynomial(z, _COS_F32), z, m.const(-0.5))
    return m.muladd(tail, z, m.const(1.0))


def _emit_sin_parts_f64(m: VectorMath, r: ir.Value, r_low: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return sin(r + r_low) as a sum; the second part is not below an ulp of the first."""
    z = m.mul(r, r)
    cube = m.mul(z, r)
    tail = m.polynomial(z, _SIN_F64[1:])
    correction = m.muladd(z, m.muladd(r_low, m.const(-0.5), m.mul(cube, tail)), r_low)
    return r, m.muladd(cube, m.const(_SIN_F64[0]), correction)


def _emit_cos_parts_f64(m: VectorMath, r: ir.Value, r_low: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return cos(r + r_low) as a sum."""
    z = m.mul(r, r)
    half = m.mul(z, m.const(0.5))
    one = m.const(1.0)
    high = m.sub(one, half)
    tail = m.mul(m.mul(z, z), m.polynomial(z, _COS_F64))
    low = m.add(m.sub(m.sub(one, high), half), m.sub(tail, m.mul(r, r_low)))
    return high, low


def _emit_reduce(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Return n as an integer (its low bits are right) and x - n * pi / 2 in one part for f32, two for f64."""
    if m.bits == 64:
        n, r, r_low = _emit_reduce_with(m, x, _emit_reduce_small_f64(m, x))
        return n, r, r_low
    small = _emit_reduce_small_f32(m, x) if m.target.has_fma else _emit_reduce_small_f32_in_f64(m, x)
    n, r = _emit_reduce_with(m, x, small)
    return n, r, None


def _emit_reduce_with(m: VectorMath, x: ir.Value, reduced: tuple[ir.Value, ...]) -> list[ir.Value]:
    """Replace a reduction, n and x - n * pi / 2 in one or two parts, where x is large."""
    is_large = m.compare("oge", m.abs(x), m.const(_LARGE_ANGLE[m.bits]))
    any_large = is_large
    if m.lanes is not None:
        kind = ir.Attribute.parse("#vector.kind<or>", m.loc.context)
        any_large = m.op("vector.reduction", (is_large,), m.bool_element_type, {"kind": kind})
    branch = m.region_op("scf.if", [any_large], [value.type for value in reduced], regions=2)
    then_ip = ir.InsertionPoint(branch.regions[0].blocks.append())
    replaced = _emit_replace_large(m, then_ip, x, is_large, reduced)
    for ip, values in ((then_ip, replaced), (ir.InsertionPoint(branch.regions[1].blocks.append()), reduced)):
        ir.Operation.create("scf.yield", operands=list(values), ip=ip, loc=m.loc)
    return list(branch.results)


def _emit_reduce_small_f32(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    n, n_integer = m.round_small_product(x, _TWO_OVER_PI)
    for part in _PI_HALF_F32:
        x = m.muladd(n, m.const(-part), x)
    return n_integer, x


def _emit_reduce_small_f32_in_parts(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    n, n_integer = m.round_small_product(x, _TWO_OVER_PI)
    first, second, third = (m.const(-part) for part in _PI_HALF_F32)
    high = m.muladd(n, first, x)
    product, product_low = m.two_product(n, second)
    r, r_low = m.two_sum(high, product)
    return n_integer, *m.fast_two_sum(r, m.muladd(n, third, m.add(r_low, product_low)))


def _emit_reduce_small_f32_in_f64(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    n, wide = _emit_reduce_small_in_f64(m, x)
    return n, m.op("arith.truncf", (wide,), m.float_type)


def _emit_reduce_small_f32_by_f64_in_parts(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    n, wide = _emit_reduce_small_in_f64(m, x)
    return n, *_emit_narrow_parts(m.with_shape(bits=64, lanes=m.lanes), wide, m.float_type)


def _emit_narrow_parts(w: VectorMath, wide: ir.Value, float_type: ir.Type) -> tuple[ir.Value, ir.Value]:
    """Return an f64 as a sum of two f32."""
    high = w.op("arith.truncf", (wide,), float_type)
    rest = w.sub(wide, w.op("arith.extf", (high,), w.float_type))
    return high, w.op("arith.truncf", (rest,), float_type)


def _emit_reduce_small_in_f64(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Reduce without fma: in f64 the products of n with short parts of pi / 2 are exact."""
    w = m.with_shape(bits=64, lanes=m.lanes)
    wide = m.op("arith.extf", (x,), w.float_type)
    n, n_integer = w.round_small_product(wide, _TWO_OVER_PI)
    for part in (*_PI_HALF_SHORT_F64, 5.390302858158119e-15):
        wide = w.muladd(n, w.const(-part), wide)
    narrow = m.op("arith.trunci", (n_integer,), m.integer_type)
    return narrow, wide


def _emit_reduce_small_f64(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    n, n_integer = m.round_small_product(x, _TWO_OVER_PI)
    product, error = m.two_product(n, m.const(PI_HALF[0]))
    rest = m.sub(m.sub(x, product), error)  # exact: a multiple of 2^-53 below 1
    product, error = m.two_product(n, m.const(PI_HALF[1]))
    r, r_low = m.two_sum(rest, m.neg(product))
    r_low = m.sub(r_low, m.muladd(n, m.const(PI_HALF[2]), error))
    high, low = m.fast_two_sum(r, r_low)
    return n_integer, high, low


def _emit_replace_large(
    m: VectorMath, ip: ir.InsertionPoint, x: ir.Value, is_large: ir.Value, reduced: tuple[ir.Value, ...]
) -> tuple[ir.Value, ...]:
    """Replace the reductions of the large lanes, lane by lane."""
    scalar = m.with_shape(bits=64, lanes=None, ip=ip)
    if m.lanes is None:
        return _emit_large_scalar(m, scalar, x, is_large, reduced)
    loop = scalar.region_op(
        "scf.for",
        [m.index(0), m.index(m.lanes), m.index(1), *reduced],
        [value.type for value in reduced],
        regions=1,
    )
    index_type = ir.IndexType.get(m.loc.context)
    types = [index_type, *(value.type for value in reduced)]
    block = loop.regions[0].blocks.append(*types, arg_locs=[m.loc] * len(types))
    body = m.with_shape(bits=64, lanes=None, ip=ir.InsertionPoint(block))
    lane, *state = block.arguments
    dynamic = {"static_position": ir.DenseI64ArrayAttr.get([-(2**63)], m.loc.context)}

    def extract(vector: ir.Value) -> ir.Value:
        return body.op("vector.extract", (vector, lane), ir.VectorType(vector.type).element_type, dynamic)

    values = _emit_large_scalar(m, body, extract(x), extract(is_large), tuple(extract(vector) for vector in state))
    inserted = [
        body.op("vector.insert", (value, vector, lane), vector.type, dynamic)
        for value, vector in zip(values, state, strict=True)
    ]
    ir.Operation.create("scf.yield", operands=inserted, ip=ir.InsertionPoint(block), loc=m.loc)
    return tuple(loop.results)


def _emit_large_scalar(
    m: VectorMath, scalar: VectorMath, x: ir.Value, is_large: ir.Value, reduced: tuple[ir.Value, ...]
) -> tuple[ir.Value, ...]:
    """Return the exact reduction of a large x, otherwise what is there."""
    if m.bits == 64:
        exact: tuple[ir.Value, ...] = emit_reduce_large_angle(scalar, x)
    else:
        single = scalar.with_shape(bits=32, lanes=None)
        wide = scalar.op("arith.extf", (x,), scalar.float_type)
        quadrant, r, r_low = emit_reduce_large_angle(scalar, wide)
        n = scalar.op("arith.trunci", (quadrant,), single.integer_type)
        parts = _emit_narrow_parts(scalar, scalar.add(r, r_low), single.float_type)
        exact = (n, *parts[: len(reduced) - 1])
    return tuple(scalar.select(is_large, new, old) for new, old in zip(exact, reduced, strict=True))
