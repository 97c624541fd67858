"""Replace every operation of the math dialect that has no instruction on the target."""

from collections.abc import Callable, Mapping

from pylazy.compiler.math_approximations import (
    error_function,
    exponential,
    hyperbolic,
    inverse_trigonometric,
    logarithm,
    nvidia,
    power,
    rounding,
    trigonometric,
)
from pylazy.compiler.math_approximations.constant_pool import ConstantPool
from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir
from pylazy.compiler.target import CpuTarget, NvidiaTarget
from pylazy.runtime.errors import UnsupportedError

__all__ = ["lower_math"]

Emitter = Callable[..., ir.Value]  # (VectorMath, one or two values) -> value


def _in_f64(emitter: Emitter) -> Emitter:
    """Compute a function of f32 in f64: within 1 ulp, and one algorithm serves both types."""

    def emit(m: VectorMath, *operands: ir.Value) -> ir.Value:
        wide = m.with_shape(bits=64, lanes=m.lanes)
        extended = [m.op("arith.extf", (operand,), wide.float_type) for operand in operands]
        return m.op("arith.truncf", (emitter(wide, *extended),), m.float_type)

    return emit


def _emit_muladd(m: VectorMath, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    return m.muladd(a, b, c)


_ANY_TYPE: Mapping[str, Emitter] = {
    "math.exp": exponential.emit_exp,
    "math.exp2": exponential.emit_exp2,
    "math.expm1": exponential.emit_expm1,
    "math.log": logarithm.emit_log,
    "math.log2": logarithm.emit_log2,
    "math.log1p": logarithm.emit_log1p,
    "math.rsqrt": power.emit_rsqrt,
    "math.sqrt": power.emit_sqrt,
    "math.cbrt": power.emit_cbrt,
    "math.powf": power.emit_pow,
    "math.sin": trigonometric.emit_sin,
    "math.cos": trigonometric.emit_cos,
    "math.tan": trigonometric.emit_tan,
    "math.asin": inverse_trigonometric.emit_asin,
    "math.acos": inverse_trigonometric.emit_acos,
    "math.atan": inverse_trigonometric.emit_atan,
    "math.atan2": inverse_trigonometric.emit_atan2,
    "math.tanh": hyperbolic.emit_tanh,
    "math.cosh": hyperbolic.emit_cosh,
    "math.sinh": hyperbolic.emit_sinh,
    "math.erfc": error_function.emit_erfc,
    "math.erf": error_function.emit_erf,
    "math.fma": _emit_muladd,
    "vector.fma": _emit_muladd,
    "math.floor": rounding.emit_floor,
    "math.ceil": rounding.emit_ceil,
    "math.trunc": rounding.emit_trunc,
    "math.round": rounding.emit_round,
    "math.roundeven": rounding.emit_roundeven,
}
_CPU: Mapping[int, Mapping[str, Emitter]] = {
    64: {**_ANY_TYPE, "math.log10": logarithm.emit_log10},
    32: {**_ANY_TYPE, "math.log10": _in_f64(logarithm.emit_log10)},
}
_NVIDIA: Mapping[int, Mapping[str, Emitter]] = {
    64: {**_CPU[64], "math.exp": nvidia.emit_exp_f64, "math.exp2": nvidia.emit_exp2_f64},
    32: {
        **_CPU[32],
        "math.exp": nvidia.emit_exp,
        "math.exp2": nvidia.emit_exp2,
        "math.rsqrt": nvidia.emit_rsqrt,
        "math.sqrt": nvidia.emit_sqrt,
    },
}
_NVIDIA_FAST: Mapping[int, Mapping[str, Emitter]] = {
    64: _NVIDIA[64],
    32: {
        **_NVIDIA[32],
        "math.log": nvidia.emit_log,
        "math.log2": nvidia.emit_log2,
        "math.log10": nvidia.emit_log10,
        "arith.divf": nvidia.emit_div,
    },
}
#: Math mode of an NVIDIA target -> its functions; the algorithms of CPUs are within 2 ulp on every machine.
_BY_MATH_MODE: Mapping[str, Mapping[int, Mapping[str, Emitter]]] = {
    "accurate": _CPU,
    "": _NVIDIA,
    "fast": _NVIDIA_FAST,
}
# Operations that LLVM turns into instructions on every target.
_KEPT = frozenset({"math.absf", "math.copysign", "math.absi", "math.isnan", "math.isinf", "math.isfinite"})
_KEPT_WITHOUT_AVX512 = frozenset({"math.sqrt"})
_KEPT_WITH_ROUNDING = frozenset({"math.floor", "math.ceil", "math.trunc", "math.roundeven"})
_KEPT_WITH_FMA = frozenset({"math.fma", "vector.fma"})
_LARGEST_INTEGER_POWER = 64


def lower_math(module: ir.Module, *, target: CpuTarget | NvidiaTarget) -> None:
    """Rewrite math operations, scalar or on vectors of one dimension, into arithmetic that the target has.

    Runs last among the passes that see math operations, since nothing after it knows an exponential from a
    polynomial; upstream's conversions to the llvm dialect follow and would turn what is left here into calls of a
    mathematical library, which kernels do not have. Results are within 2 ulp unless the emitter says otherwise.

    Raises:
        UnsupportedError: a math operation on this element type has no lowering for the target.
    """
    table = _BY_MATH_MODE[target.math_mode] if isinstance(target, NvidiaTarget) else _CPU
    kept = _KEPT
    if not target.has_avx512 and table[32]["math.sqrt"] is power.emit_sqrt:
        kept = kept | _KEPT_WITHOUT_AVX512
    if target.has_rounding:
        kept = kept | _KEPT_WITH_ROUNDING
    if target.has_fma:
        kept = kept | _KEPT_WITH_FMA
    pools: dict[ir.Operation, ConstantPool] = {}
    for op in _operations_to_lower(module, kept, table):
        function = _enclosing_function(op)
        pool = pools.get(function)
        if pool is None:
            pool = pools[function] = ConstantPool(function.regions[0].blocks[0])
        result = _emit(op, table=table, target=target, constants=pool)
        op.result.replace_all_uses_with(result)
        op.erase()
    for pool in pools.values():
        pool.close()


def _operations_to_lower(
    module: ir.Module, kept: frozenset[str], table: Mapping[int, Mapping[str, Emitter]]
) -> list[ir.Operation]:
    """List operations of the math dialect, and arithmetic for whose type the table has something else."""
    found: list[ir.Operation] = []
    arithmetic = {(name, bits) for bits, emitters in table.items() for name in emitters if name.startswith("arith.")}

    def look(op: ir.Operation) -> ir.WalkResult:
        name = op.name
        is_math = (name.startswith("math.") or name == "vector.fma") and name not in kept
        if is_math or (arithmetic and len(op.results) == 1 and (name, _width(op)) in arithmetic):
            found.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(look)
    return found


def _width(op: ir.Operation) -> int:
    element = op.results[0].type
    return int(element.width) if isinstance(element, ir.F32Type | ir.F64Type) else 0


def _enclosing_function(op: ir.Operation) -> ir.Operation:
    """Return the outermost operation below modules that holds an operation."""
    inner = op
    while (outer := inner.parent) is not None and outer.name not in {"builtin.module", "gpu.module"}:
        inner = outer.operation
    return inner


def _emit(
    op: ir.Operation,
    *,
    table: Mapping[int, Mapping[str, Emitter]],
    target: CpuTarget | NvidiaTarget,
    constants: ConstantPool,
) -> ir.Value:
    operands = list(op.operands)
    bits, lanes = _shape_of(op, target=target)
    m = VectorMath(
        bits=bits, lanes=lanes, target=target, constants=constants, ip=ir.InsertionPoint(op), loc=op.location
    )
    if op.name == "math.fpowi":
        return power.emit_integer_power(m, operands[0], _constant_exponent(op, target=target))
    emitter = table[bits].get(op.name)
    if emitter is None:
        raise UnsupportedError(f"{op.name} on {op.result.type} has no lowering for {target.name} ({op.location})")
    registers = _registers_needed(m)
    if registers > 1:
        return m.by_registers(emitter, operands, registers=registers)
    return emitter(m, *operands)


def _shape_of(op: ir.Operation, *, target: CpuTarget | NvidiaTarget) -> tuple[int, int | None]:
    """Return the bits of the elements and the number of lanes."""
    result_type = op.result.type
    lanes = None
    element = result_type
    if isinstance(result_type, ir.VectorType) and result_type.rank == 1 and not any(result_type.scalable_dims):
        lanes, element = result_type.shape[0], result_type.element_type
    if isinstance(element, ir.F32Type):
        return 32, lanes
    if isinstance(element, ir.F64Type):
        return 64, lanes
    raise UnsupportedError(
        f"{op.name} on {result_type} has no lowering for {target.name}: expected f32 or f64, scalar or in a vector of "
        f"one dimension ({op.location})"
    )


def _constant_exponent(op: ir.Operation, *, target: CpuTarget | NvidiaTarget) -> int:
    owner = op.operands[1].owner
    value = (
        owner.attributes["value"]
        if isinstance(owner, ir.OpView | ir.Operation) and owner.name == "arith.constant"
        else None
    )
    if isinstance(value, ir.DenseElementsAttr) and value.is_splat:
        value = value.get_splat_value()
    if not isinstance(value, ir.IntegerAttr) or abs(value.value) > _LARGEST_INTEGER_POWER:
        raise UnsupportedError(
            f"math.fpowi has a lowering for {target.name} only if its exponent is a constant of at most "
            f"{_LARGEST_INTEGER_POWER} ({op.location}); use math.powf"
        )
    return int(value.value)


def _registers_needed(m: VectorMath) -> int:
    """Return how many AVX-512 registers a vector fills: their instructions are named by the register's width."""
    if not m.target.has_avx512 or m.lanes is None:
        return 1
    registers = m.bits * m.lanes // 512
    is_power_of_two = registers > 0 and registers & (registers - 1) == 0
    return registers if is_power_of_two and registers * 512 == m.bits * m.lanes else 1
