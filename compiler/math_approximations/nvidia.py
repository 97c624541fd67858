"""Functions of f32 that NVIDIA's special function units compute.

Errors are those of the PTX ISA manual: ex2.approx 2 ulp, rsqrt.approx 2^-22.9 relative, lg2.approx 2^-22 absolute near
1 and 2^-22.6 relative elsewhere. Numbers below the normal ones count as 0 in ex2 and are scaled up for lg2 and rsqrt.
"""

from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["emit_exp", "emit_exp2", "emit_log", "emit_log2", "emit_log10", "emit_rsqrt"]

_LOG2_E = 1.4426950408889634
_LOG_2 = 0.6931471805599453
_LOG10_2 = 0.3010299956639812


def emit_exp2(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return 2^x."""
    return m.call_intrinsic("llvm.nvvm.ex2.approx.ftz.f", [x])


def emit_exp(m: VectorMath, x: ir.Value) -> ir.Value:
    """Return e^x; the rounding of the argument adds |x| * 2^-24 to the relative error."""
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
