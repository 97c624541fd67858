"""The error function and its complement.

Polynomials: Remez exchange in 50 digits (f32: 40), relative. f64: erf: (erf(x) / x - 2 / sqrt(pi)) / x^2 in x^2 for
|x| <= 1; erfc: (1 + 2 x) e^(x^2) erfc(x) for all x >= 0 in t = (x - 4) / (x + 4) (Shepherd and Laframboise 1981).
f32: erf(x) / x - 1 in x^2 for |x| <= 9/8; the fourth root of erfc(x) in x - 5/2 on [9/8, 4], weighted to the
absolute error of erfc, a root since it falls slowly; (x + 2) e^(x^2) erfc(x) with y = 1 / (x + 2) in t = y - 9/32 on
[0, 10.1], written as start + 2 y + p(t), of which 2 y is exact.
"""

from pylazy.compiler.math_approximations.exponential import emit_exp_in_factors, emit_exp_of_sum
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_erf", "emit_erfc"]

_ERF = (
    -0.37612638903183754,
    0.11283791670955123,
    -0.026866170645130395,
    0.005223977625428663,
    -0.0008548327022241369,
    0.00012055332914010143,
    -1.492564783376977e-05,
    1.646204970959449e-06,
    -1.6364687639771872e-07,
    1.4792712375272418e-08,
    -1.2165819120638954e-09,
    8.711514519234916e-11,
    -4.232044915680509e-12,
)
_ERFC = (
    1.2329951186255526,
    -0.1396211168405625,
    0.015379652102620026,
    0.06809705425469144,
    -0.10103906603632422,
    0.09373283499840031,
    -0.06633036581166646,
    0.03716751553656554,
    -0.016197734065747472,
    0.005031969986658229,
    -0.0007577732209289801,
    -0.00019925674034237343,
    0.00015062131354389019,
    -2.43990826228406e-05,
    -1.122077122170122e-05,
    5.709574331414591e-06,
    2.909418314471727e-07,
    -8.256023729378512e-07,
    7.888562473669932e-08,
    1.1097564961349938e-07,
    -2.1871949854643498e-08,
    -1.5479232377977647e-08,
    3.9529167384874316e-09,
    2.2284919824777634e-09,
    -5.384071983555084e-10,
    -2.835442270074394e-10,
    4.191281932870457e-11,
    2.164502255732573e-11,
)
_ERF_F32 = (
    0.128379160518,
    -0.376125895276,
    0.112831771696,
    -0.0268371073777,
    0.00515750319843,
    -0.000774854810293,
    7.02193995817e-05,
)
_FOURTH_ROOT_OF_ERFC_F32 = (
    0.142032624853,
    -0.190061286118,
    0.093634270569,
    -0.0123169281074,
    -0.00650177426304,
    0.00274063509085,
    9.30008490332e-05,
    -0.000179498150845,
)
_ERFC_F32_START = 0.5494102835655212
_ERFC_F32 = (
    -1.975521e-09,
    1.03424604206,
    4.65610369904,
    1.5873782892,
    -6.34591255196,
    -4.06694432073,
    14.4477257424,
    3.75820350694,
    -39.0932826223,
    10.4624102472,
    72.8560369889,
)
_TWO_OVER_ROOT_PI = (1.1283791670955126, 1.533545961316588e-17)


def _emit_erf_near_0(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return erf(x) for |x| <= 1 as a sum; the second part is up to a third of the first."""
    z = m.mul(x, x)
    first, second = _TWO_OVER_ROOT_PI
    high, low = m.two_product(x, m.const(first))
    return high, m.muladd(m.mul(z, x), m.polynomial(z, _ERF), m.muladd(x, m.const(second), low))


def _emit_erfc_of_positive(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return erfc(x) for x >= 0.8."""
    x = m.clamp(x, 0.0, 28.0)
    high, low = m.two_product(x, x)
    gauss = emit_exp_of_sum(m, m.neg(high), m.neg(low))
    denominator = m.add(x, m.const(4.0))
    t = m.div(m.sub(x, m.const(4.0)), denominator)
    factor = m.polynomial(t, _ERFC)
    return m.mul(gauss, m.div(factor, m.muladd(x, m.const(2.0), m.const(1.0))))


def _emit_erf_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    magnitude = m.abs(x)
    root = m.polynomial(m.sub(m.at_most(magnitude, 4.0), m.const(2.5)), _FOURTH_ROOT_OF_ERFC_F32)
    square = m.mul(root, root)
    large = m.copysign(m.muladd(m.neg(square), square, m.const(1.0)), x)
    near = m.muladd(x, m.polynomial(m.mul(x, x), _ERF_F32), x)
    return m.select(m.compare("olt", magnitude, m.const(1.125)), near, large)


def _emit_erfc_f32(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^(-x^2) times a polynomial in y = 1 / (|x| + 2), divided by |x| + 2; or 2 less that.

    All but the product with e^(-x^2) is computed in two parts.
    """
    one, two = m.const(1.0), m.const(2.0)
    magnitude = m.at_most(m.abs(x), 10.1)  # beyond: 0
    denominator = m.add(magnitude, two)
    denominator_low = m.sub(magnitude, m.sub(denominator, two))
    y = m.div(one, denominator)
    error = m.muladd(m.neg(y), denominator_low, m.remainder_of_product(one, y, denominator))  # of y, relative
    double = m.add(y, y)
    numerator, numerator_low = m.fast_two_sum(m.const(_ERFC_F32_START), double)
    t = m.muladd(y, error, m.sub(y, m.const(0.28125)))
    # By pairs: the processor has few such long chains in flight. The first terms are the ones that must be accurate.
    first, second, *others = _ERFC_F32
    slope = m.muladd(m.polynomial_by_pairs(t, m.mul(t, t), others), t, m.const(second))
    rest = m.muladd(double, error, m.muladd(slope, t, m.const(first)))
    numerator, rest_low = m.fast_two_sum(numerator, rest)
    numerator_low = m.add(numerator_low, rest_low)
    quotient, quotient_low = m.two_product(numerator, y)
    quotient_low = m.muladd(numerator_low, y, m.muladd(quotient, error, quotient_low))
    high, low = m.two_product(magnitude, magnitude)
    power, gauss_minus_1 = emit_exp_in_factors(m, m.neg(high), m.neg(low))
    change = m.muladd(quotient_low, gauss_minus_1, quotient_low)
    tail = m.add(quotient, m.muladd(quotient, gauss_minus_1, change))
    # 2^power in two steps, of which only the second rounds.
    tail = m.mul(m.mul(tail, m.power_of_two(m.integer("addi", power, 64))), m.const(2.0**-64))
    return m.select(m.compare("olt", x, m.const(0.0)), m.sub(two, tail), tail)


def emit_erf(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the error function within 2 ulp."""
    if m.bits == 32:
        return _emit_erf_f32(m, x)
    magnitude = m.abs(x)
    large = m.copysign(m.sub(m.const(1.0), _emit_erfc_of_positive(m, magnitude)), x)
    near = m.add(*_emit_erf_near_0(m, x))
    result = m.select(m.compare("olt", magnitude, m.const(1.0)), near, large)
    return m.select(m.compare("oeq", x, m.const(0.0)), x, result)


def emit_erfc(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 1 - erf(x) within 2 ulp (f32 without fma: 2.1); for f64 and x > 0.8 within 4."""
    if m.bits == 32:
        return _emit_erfc_f32(m, x)
    tail = _emit_erfc_of_positive(m, m.abs(x))
    two_sided = m.select(m.compare("olt", x, m.const(0.0)), m.sub(m.const(2.0), tail), tail)
    high, low = _emit_erf_near_0(m, x)
    difference, error = m.two_sum(m.const(1.0), m.neg(high))
    near = m.add(difference, m.sub(error, low))
    return m.select(m.compare("olt", m.abs(x), m.const(0.8)), near, two_sided)
