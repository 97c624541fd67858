"""The error function and its complement, for f64.

Polynomials: Remez exchange in 50 digits, relative. erf: (erf(x) / x - 2 / sqrt(pi)) / x^2 in x^2 for |x| <= 1. erfc:
(1 + 2 x) e^(x^2) erfc(x) for all x >= 0 in t = (x - 4) / (x + 4) (Shepherd and Laframboise 1981).
"""

from pylazy.compiler.math_approximations.exponential import emit_exp_of_sum
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


def emit_erf(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the error function within 2 ulp."""
    magnitude = m.abs(x)
    large = m.copysign(m.sub(m.const(1.0), _emit_erfc_of_positive(m, magnitude)), x)
    near = m.add(*_emit_erf_near_0(m, x))
    result = m.select(m.compare("olt", magnitude, m.const(1.0)), near, large)
    return m.select(m.compare("oeq", x, m.const(0.0)), x, result)


def emit_erfc(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 1 - erf(x) within 4 ulp; within 2 for x < 0.8."""
    tail = _emit_erfc_of_positive(m, m.abs(x))
    two_sided = m.select(m.compare("olt", x, m.const(0.0)), m.sub(m.const(2.0), tail), tail)
    high, low = _emit_erf_near_0(m, x)
    difference, error = m.two_sum(m.const(1.0), m.neg(high))
    near = m.add(difference, m.sub(error, low))
    return m.select(m.compare("olt", m.abs(x), m.const(0.8)), near, two_sided)
