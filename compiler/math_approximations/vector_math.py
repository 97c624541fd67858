"""Build arithmetic on one float type, scalar or vector, as MLIR operations."""

import struct
from collections.abc import Callable, Sequence

from pylazy.compiler.math_approximations.constant_pool import ConstantPool
from pylazy.compiler.mlir import ir
from pylazy.compiler.target import CpuTarget, NvidiaTarget

__all__ = ["VectorMath"]

_FLOAT_PREDICATES = {"oeq": 1, "ogt": 2, "oge": 3, "olt": 4, "ole": 5, "une": 13, "uno": 14}  # arith.cmpf
_INTEGER_PREDICATES = {"eq": 0, "ne": 1, "slt": 2, "sle": 3, "sgt": 4, "sge": 5}  # arith.cmpi


class VectorMath:
    """Arithmetic on `f32` or `f64`, scalar or in lanes, inserted at one place for one target.

    The methods emit raw operations: building an operation through the classes of the bindings costs three times as
    much, and a kernel has thousands of these.

    Attributes:
        bits: 32 or 64.
        lanes: elements of the vector, `None` for a scalar.
        target: what the operations will be compiled for.
    """

    def __init__(
        self,
        *,
        bits: int,
        lanes: int | None,
        target: CpuTarget | NvidiaTarget,
        constants: ConstantPool,
        ip: ir.InsertionPoint,
        loc: ir.Location,
    ) -> None:
        """Prepare the types."""
        self.bits = bits
        self.lanes = lanes
        self.target = target
        self._constants = constants
        self._ip = ip
        self.loc = loc
        self._float_element, self._integer_element = f"f{bits}", f"i{bits}"
        self.float_type = constants.type_of(self._float_element, lanes)
        self.integer_type = constants.type_of(self._integer_element, lanes)
        self.bool_type = constants.type_of("i1", lanes)

    @property
    def bool_element_type(self) -> ir.Type:
        """The type of one condition."""
        return self._constants.element_type("i1")

    def word_type(self, lanes: int) -> ir.Type:
        """Return a vector of integers of 16 bits."""
        return self._constants.type_of("i16", lanes)

    def with_shape(self, *, bits: int, lanes: int | None, ip: ir.InsertionPoint | None = None) -> "VectorMath":
        """Return the same arithmetic on another type, or at another place."""
        return VectorMath(
            bits=bits,
            lanes=lanes,
            target=self.target,
            constants=self._constants,
            ip=self._ip if ip is None else ip,
            loc=self.loc,
        )

    @property
    def has_fma(self) -> bool:
        """A multiply and an add with one rounding is an instruction."""
        return self.target.has_fma

    @property
    def has_avx512_vectors(self) -> bool:
        """The values fill an AVX-512 register of 128, 256 or 512 bits."""
        return self.target.has_avx512 and self.lanes is not None and self.bits * self.lanes in {128, 256, 512}

    @property
    def mantissa_bits(self) -> int:
        """Stored bits of the significand."""
        return 23 if self.bits == 32 else 52

    @property
    def exponent_bias(self) -> int:
        """The exponent field of 1.0."""
        return 127 if self.bits == 32 else 1023

    @property
    def rounding_magic(self) -> float:
        """1.5 times two to the mantissa bits: added to a small x, it leaves x, rounded, in the low bits."""
        return 1.5 * 2.0**self.mantissa_bits

    # ----- any operation ---------------------------------------------------------------------------------------------

    def op(
        self,
        name: str,
        operands: Sequence[ir.Value],
        result_type: ir.Type,
        attributes: dict[str, ir.Attribute] | None = None,
    ) -> ir.Value:
        """Emit an operation with one result."""
        created = ir.Operation.create(
            name,
            results=[result_type],
            operands=operands,
            attributes=attributes,
            ip=self._ip,
            loc=self.loc,
        )
        return created.result

    def region_op(
        self, name: str, operands: Sequence[ir.Value], result_types: Sequence[ir.Type], *, regions: int
    ) -> ir.Operation:
        """Emit an operation with empty regions."""
        return ir.Operation.create(
            name, results=result_types, operands=operands, regions=regions, ip=self._ip, loc=self.loc
        )

    def call_intrinsic(self, name: str, operands: Sequence[ir.Value], result_type: ir.Type | None = None) -> ir.Value:
        """Call an LLVM intrinsic by name; an unknown name ends the process later, so names come from tables only."""
        created = ir.Operation.create(
            "llvm.call_intrinsic",
            results=[self.float_type if result_type is None else result_type],
            operands=operands,
            attributes={
                "intrin": self._constants.name_attribute(name),
                "operandSegmentSizes": self._constants.sizes_attribute((len(operands), 0)),
                "op_bundle_sizes": self._constants.sizes_attribute(()),
            },
            ip=self._ip,
            loc=self.loc,
        )
        return created.result

    def by_registers(
        self, emitter: Callable[..., ir.Value], operands: Sequence[ir.Value], *, registers: int
    ) -> ir.Value:
        """Cut vectors in registers, emit for each, and join the results, for instructions named by their width.

        The shuffles are of the llvm dialect: folds of `vector.shuffle` make `ub.poison`, which needs a pass of its own.
        """
        assert self.lanes is not None
        lanes = self.lanes // registers
        part = self.with_shape(bits=self.bits, lanes=lanes)
        results = []
        for k in range(registers):
            first = range(k * lanes, (k + 1) * lanes)
            results.append(emitter(part, *(self._shuffle(v, v, part.float_type, first) for v in operands)))
        return self._join(results)

    @property
    def registers_in_step(self) -> int:
        """How many registers `in_step` keeps side by side; 0 where that does not pay."""
        if not isinstance(self.target, CpuTarget) or not self.target.has_few_registers:
            return 0
        registers = (self.lanes or 0) // self.target.lanes(self.bits)
        return registers if registers > 1 else 0

    def in_step(self, a: ir.Value) -> ir.Value:
        """Return a, for whose registers all work before comes before all work after.

        With few registers, LLVM orders instructions so as to finish one register of a vector after the other, and then
        each instruction waits for the one before. An empty assembler statement through which all registers pass keeps
        them side by side; what that spills costs less.
        """
        registers = self.registers_in_step
        lanes = (self.lanes or 0) // registers
        part = self.with_shape(bits=self.bits, lanes=lanes).float_type
        parts = [self._shuffle(a, a, part, range(k * lanes, (k + 1) * lanes)) for k in range(registers)]
        context = self.loc.context
        constraints = ",".join(["=x"] * registers + [str(k) for k in range(registers)])
        attributes = {
            "asm_string": ir.StringAttr.get("", context),
            "constraints": ir.StringAttr.get(constraints, context),
        }
        struct = ir.Type.parse(f"!llvm.struct<({', '.join([str(part)] * registers)})>", context)
        passed = self.op("llvm.inline_asm", parts, struct, attributes)
        at = [ir.DenseI64ArrayAttr.get([k], context) for k in range(registers)]
        return self._join([self.op("llvm.extractvalue", (passed,), part, {"position": k}) for k in at])

    def _join(self, parts: list[ir.Value]) -> ir.Value:
        """Return one vector of a power of two of equal vectors."""
        while len(parts) > 1:
            lanes = 2 * ir.VectorType(parts[0].type).shape[0]
            joined_type = self.with_shape(bits=self.bits, lanes=lanes).float_type
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [self._shuffle(a, b, joined_type, range(lanes)) for a, b in pairs]
        return parts[0]

    def _shuffle(self, a: ir.Value, b: ir.Value, result_type: ir.Type, lanes: Sequence[int]) -> ir.Value:
        mask = ir.DenseI32ArrayAttr.get(list(lanes), self.loc.context)
        return self.op("llvm.shufflevector", (a, b), result_type, {"mask": mask})

    # ----- constants -------------------------------------------------------------------------------------------------

    def const(self, value: float) -> ir.Value:
        """Return a float constant."""
        return self._constants.constant(self._float_element, self.lanes, float(value))

    def iconst(self, value: int) -> ir.Value:
        """Return an integer constant of the width of the float; given as signed or as bits."""
        half = 1 << (self.bits - 1)
        signed = ((value + half) & (2 * half - 1)) - half
        return self._constants.constant(self._integer_element, self.lanes, signed)

    def immediate(self, value: int, bits: int) -> ir.Value:
        """Return a scalar integer constant."""
        return self._constants.constant(f"i{bits}", None, value)

    def index(self, value: int) -> ir.Value:
        """Return a constant of type index."""
        return self._constants.constant("index", None, value)

    def table(self, values: Sequence[float]) -> ir.Value:
        """Return a constant vector of different values."""
        return self._constants.vector(self._float_element, values)

    # ----- floats ----------------------------------------------------------------------------------------------------

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a + b."""
        return self.op("arith.addf", (a, b), self.float_type)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a - b."""
        return self.op("arith.subf", (a, b), self.float_type)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a * b."""
        return self.op("arith.mulf", (a, b), self.float_type)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a / b."""
        return self.op("arith.divf", (a, b), self.float_type)

    def neg(self, a: ir.Value) -> ir.Value:
        """Return -a."""
        return self.op("arith.negf", (a,), self.float_type)

    def abs(self, a: ir.Value) -> ir.Value:
        """Return |a|."""
        return self.op("math.absf", (a,), self.float_type)

    def sqrt(self, a: ir.Value) -> ir.Value:
        """Return the square root, correctly rounded."""
        return self.op("math.sqrt", (a,), self.float_type)

    def copysign(self, magnitude: ir.Value, sign: ir.Value) -> ir.Value:
        """Return |magnitude| with the sign of `sign`."""
        return self.op("math.copysign", (magnitude, sign), self.float_type)

    def muladd(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a * b + c with one rounding where the target has the instruction, otherwise with two."""
        if self.has_fma:
            return self.op("math.fma", (a, b, c), self.float_type)
        return self.add(self.mul(a, b), c)

    def polynomial(self, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
        """Return c0 + x * (c1 + x * (c2 + ...))."""
        result = self.const(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = self.muladd(result, x, self.const(coefficient))
        return result

    def polynomial_by_pairs(self, x: ir.Value, x_squared: ir.Value, coefficients: Sequence[float]) -> ir.Value:
        """Return the polynomial with half the latency: pairs c0 + c1 * x side by side, then powers of x**2."""
        pairs = [
            self.muladd(self.const(pair[1]), x, self.const(pair[0])) if len(pair) == 2 else self.const(pair[0])
            for pair in (coefficients[k : k + 2] for k in range(0, len(coefficients), 2))
        ]
        result = pairs.pop()
        while pairs:
            result = self.muladd(result, x_squared, pairs.pop())
        return result

    def fast_two_sum(self, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return a + b as rounded sum and exact error, for |a| >= |b| (Dekker 1971)."""
        high = self.add(a, b)
        return high, self.sub(b, self.sub(high, a))

    def two_sum(self, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return a + b as rounded sum and exact error (Knuth)."""
        high = self.add(a, b)
        part = self.sub(high, a)
        return high, self.add(self.sub(a, self.sub(high, part)), self.sub(b, part))

    def two_product(self, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return a * b as rounded product and exact error (without fma: Dekker 1971, no overflow near the largest)."""
        high = self.mul(a, b)
        if self.has_fma:
            return high, self.op("math.fma", (a, b, self.neg(high)), self.float_type)
        a_high, a_low = self._split(a)
        b_high, b_low = (a_high, a_low) if a == b else self._split(b)
        error = self.sub(self.mul(a_high, b_high), high)
        error = self.add(self.add(error, self.mul(a_high, b_low)), self.mul(a_low, b_high))
        return high, self.add(error, self.mul(a_low, b_low))

    def remainder_of_product(self, c: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return c - a * b rounded once, where a * b is so near to c that c - (a * b, rounded) is exact."""
        if self.has_fma:
            return self.op("math.fma", (self.neg(a), b, c), self.float_type)
        product, error = self.two_product(a, b)
        return self.sub(self.sub(c, product), error)

    def _split(self, a: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return a as a sum of two values with half of the bits each (Veltkamp 1968)."""
        scaled = self.mul(a, self.const(4097.0 if self.bits == 32 else 134217729.0))
        high = self.sub(scaled, self.sub(scaled, a))
        return high, self.sub(a, high)

    # ----- comparisons -----------------------------------------------------------------------------------------------

    def compare(self, predicate: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a comparison of floats: "oeq", "ogt", "oge", "olt", "ole", "une" or "uno"."""
        attribute = self._constants.number_attribute(_FLOAT_PREDICATES[predicate])
        return self.op("arith.cmpf", (a, b), self.bool_type, {"predicate": attribute})

    def compare_integers(self, predicate: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a comparison of signed integers: "eq", "ne", "slt", "sle", "sgt" or "sge"."""
        attribute = self._constants.number_attribute(_INTEGER_PREDICATES[predicate])
        return self.op("arith.cmpi", (a, b), self.bool_type, {"predicate": attribute})

    def is_nan(self, a: ir.Value) -> ir.Value:
        """Return whether a is NaN."""
        return self.compare("uno", a, a)

    def select(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a where the condition holds, otherwise b."""
        return self.op("arith.select", (condition, a, b), a.type)

    def clamp(self, x: ir.Value, low: float, high: float) -> ir.Value:
        """Return x, held in an interval; NaN stays."""
        return self.at_most(self.at_least(x, low), high)

    def at_least(self, x: ir.Value, low: float) -> ir.Value:
        """Return the larger of x and a bound; NaN stays."""
        lower = self.const(low)
        return self.select(self.compare("olt", x, lower), lower, x)

    def at_most(self, x: ir.Value, high: float) -> ir.Value:
        """Return the smaller of x and a bound; NaN stays."""
        upper = self.const(high)
        return self.select(self.compare("ogt", x, upper), upper, x)

    def both(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return whether two conditions hold."""
        return self.op("arith.andi", (a, b), self.bool_type)

    def either(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return whether one of two conditions holds."""
        return self.op("arith.ori", (a, b), self.bool_type)

    # ----- bits ------------------------------------------------------------------------------------------------------

    def to_bits(self, a: ir.Value) -> ir.Value:
        """Return the bits of a float as an integer."""
        return self.op("arith.bitcast", (a,), self.integer_type)

    def from_bits(self, a: ir.Value) -> ir.Value:
        """Return the float that has these bits."""
        return self.op("arith.bitcast", (a,), self.float_type)

    def integer(self, name: str, a: ir.Value, b: ir.Value | int) -> ir.Value:
        """Emit an integer operation of arith: "addi", "subi", "andi", "ori", "xori", "shli", "shrsi", "shrui"."""
        return self.op(f"arith.{name}", (a, self.iconst(b) if isinstance(b, int) else b), a.type)

    def float_of_integer(self, a: ir.Value) -> ir.Value:
        """Convert a signed integer to the float next to it."""
        return self.op("arith.sitofp", (a,), self.float_type)

    def sign_bit(self, a: ir.Value) -> ir.Value:
        """Return the sign bit of a float in its place, all other bits 0."""
        return self.integer("andi", self.to_bits(a), 1 << (self.bits - 1))

    def flip_sign(self, a: ir.Value, sign_bit: ir.Value) -> ir.Value:
        """Return a, negated where the sign bit is set."""
        return self.from_bits(self.integer("xori", self.to_bits(a), sign_bit))

    def round_small(self, t: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Round |t| < 2**(mantissa_bits - 2) to the next integer.

        Returns:
            the integer as a float, and as an integer.
        """
        shifted = self.add(t, self.const(self.rounding_magic))
        return self.unshift(shifted)

    def round_small_product(self, x: ir.Value, factor: float) -> tuple[ir.Value, ir.Value]:
        """Round x * factor, as `round_small` does."""
        return self.unshift(self.muladd(x, self.const(factor), self.const(self.rounding_magic)))

    def unshift(self, shifted: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Take `rounding_magic` away from a value, as a float and as an integer."""
        magic = self.rounding_magic
        packed = struct.pack("<f", magic) if self.bits == 32 else struct.pack("<d", magic)
        rounded = self.sub(shifted, self.const(magic))
        return rounded, self.integer("subi", self.to_bits(shifted), int.from_bytes(packed, "little"))

    def power_of_two(self, n: ir.Value) -> ir.Value:
        """Return 2**n for an integer n within the range of normal numbers."""
        return self.from_bits(self.integer("shli", self.integer("addi", n, self.exponent_bias), self.mantissa_bits))

    def scale(self, a: ir.Value, n: ir.Value) -> ir.Value:
        """Return a * 2**n rounded once, for |a| near 1 and |n| below twice the largest exponent."""
        half = self.integer("shrsi", n, 1)
        rest = self.integer("subi", n, half)
        return self.mul(self.mul(a, self.power_of_two(half)), self.power_of_two(rest))

    def scale_by_biased(self, a: ir.Value, biased: ir.Value) -> ir.Value:
        """Return a * 2**n rounded once, for |a| near 1, where biased is n + `rounding_magic` + 2 * `exponent_bias`.

        2**n is the product of 2**(n // 2), whose bits are those of biased without the lowest, and of the rest.
        """
        bits = self.to_bits(biased)
        half = self.integer("shli", self.integer("shrui", bits, 1), self.mantissa_bits)
        rest = self.integer("subi", self.integer("shli", bits, self.mantissa_bits), half)
        return self.mul(self.mul(a, self.from_bits(half)), self.from_bits(rest))
