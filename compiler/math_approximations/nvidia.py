"""Functions of f32 that NVIDIA's special function units compute; exponentials of f64 in few instructions.

Errors are those of the PTX ISA manual, relative ones: ex2.approx 2 ulp, sqrt.approx 2^-23, rsqrt.approx 2^-22.9,
lg2.approx 2^-22.6, and 2^-22 absolute from 1/2 to 2. Numbers below the normal ones count as 0 in ex2 only.
Exponentials of f64 are polynomials of degree 11 through the Chebyshev nodes of half an octave around 0 (error 2e-17),
with the exponent added to the bits of the result; results below the normal numbers are 0.
"""

from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = [
    "emit_div",
    "emit_exp",
    "emit_exp2",
    "emit_exp2_f64",
    "emit_exp_f64",
    "emit_log",
    "emit_log2",
    "emit_log10",
    "emit_rsqrt",
    "emit_sqrt",
]

_LOG2_E = 1.4426950408889634
_LOG_2 = 0.6931471805599453
_LOG10_2 = 0.3010299956639812
#: The logarithm of 2 in two parts; products of the first with exponents are exact.
_LOG_2_HIGH, _LOG_2_LOW = 0.6931471805592082, 7.371002565167799e-13
#: From the constant term up.
_EXP = (
    1.0, 1.0, 0.5000000000000019, 0.1666666666666668, 0.0416666666664881, 0.008333333333319601, 0.0013888888952314775,
    0.00019841269890047113, 2.4801485482328494e-05, 2.755724091857897e-06, 2.763263963904103e-07,
    2.5110037605963777e-08,
)  # fmt: skip
_EXP2 = (
    1.0, 0.6931471805599453, 0.24022650695910158, 0.055504108664821625, 0.009618129107587256, 0.001333355814640647,
    0.00015403530463724353, 1.5252733841556773e-05, 1.3215432535912375e-06, 1.0178057087733941e-07,
    7.074194297288521e-09, 4.4558179083360645e-10,
)  # fmt: skip
#: Results are normal numbers from the first argument on, and finite below the second.
_EXP_RANGE = (-708.3964185322641, 709.782712893384)
_EXP2_RANGE = (-1022.0, 1024.0)


def emit_exp2(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 2^x."""
    return m.call_intrinsic("llvm.nvvm.ex2.approx.ftz.f", [x])


def emit_exp(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x; rounding x log2(e), and log2(e), adds at most |x| * 2^-23.7 to the relative error."""
    return emit_exp2(m, m.mul(x, m.const(_LOG2_E)))


def emit_log2(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the logarithm to base 2."""
    return m.call_intrinsic("llvm.nvvm.lg2.approx.f", [x])


def emit_log(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the natural logarithm."""
    return m.mul(emit_log2(m, x), m.const(_LOG_2))


def emit_log10(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return the logarithm to base 10."""
    return m.mul(emit_log2(m, x), m.const(_LOG10_2))


def emit_rsqrt(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 1 / sqrt(x)."""
    return m.call_intrinsic("llvm.nvvm.rsqrt.approx.f", [x])


def emit_div(m: VectorMath, x: ir.Value, y: ir.Value) -> ir.Value:
    """Return x / y within 2 ulp for |y| from 2^-126 to 2^126; beyond, 0 for finite x, and NaN for infinite ones."""
    return m.call_intrinsic("llvm.nvvm.div.approx.f", [x, y])


def emit_sqrt(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return sqrt(x), without branches: half the instructions of a Laplacian kernel."""
    return m.call_intrinsic("llvm.nvvm.sqrt.approx.f", [x])


def emit_exp_f64(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x of f64."""
    shifted = m.muladd(x, m.const(_LOG2_E), m.const(m.rounding_magic))
    n = m.sub(shifted, m.const(m.rounding_magic))
    rest = m.muladd(n, m.const(-_LOG_2_LOW), m.muladd(n, m.const(-_LOG_2_HIGH), x))
    return _in_range(m, x, _with_exponent(m, m.polynomial(rest, _EXP), shifted), _EXP_RANGE)


def emit_exp2_f64(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 2^x of f64."""
    shifted = m.add(x, m.const(m.rounding_magic))
    rest = m.sub(x, m.sub(shifted, m.const(m.rounding_magic)))
    return _in_range(m, x, _with_exponent(m, m.polynomial(rest, _EXP2), shifted), _EXP2_RANGE)


def _with_exponent(m: VectorMath, result: ir.Value, shifted: ir.Value) -> ir.Value:
    """Multiply by 2^n, where n is in the low bits of n + `rounding_magic`."""
    exponent = m.integer("shli", m.to_bits(shifted), m.mantissa_bits)
    return m.from_bits(m.integer("addi", m.to_bits(result), exponent))


def _in_range(m: VectorMath, x: ir.Value, result: ir.Value, limits: tuple[float, float]) -> ir.Value:
    """Replace results that are no normal numbers; a NaN is in range, and stays, since its low bits are 0."""
    lowest, highest = limits
    result = m.select(m.compare("olt", x, m.const(lowest)), m.const(0.0), result)
    return m.select(m.compare("ogt", x, m.const(highest)), m.const(float("inf")), result)
