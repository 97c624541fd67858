"""Reduce any finite angle modulo pi / 2 exactly, by the bits of 2 / pi (Payne and Hanek 1983)."""

import itertools

from pylazy.compiler.math_approximations.vector_math import VectorMath
from pylazy.compiler.mlir import ir

__all__ = ["PI_HALF", "emit_reduce_large_angle"]

# pi / 2 as a sum of doubles.
PI_HALF = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)

# floor(2 / pi * 2^1216), 64 bits each, most significant first.
_TWO_OVER_PI = (
    0x0000000000000000,
    0xA2F9836E4E441529,
    0xFC2757D1F534DDC0,
    0xDB6295993C439041,
    0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0,
    0x06492EEA09D1921C,
    0xFE1DEB1CB129A73E,
    0xE88235F52EBB4484,
    0xE99C7026B45F7E41,
    0x3991D639835339F4,
    0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F,
    0xEF2F118B5A0A6D1F,
    0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B,
    0x3D0739F78A5292EA,
    0x6BFB5FB11F8D5D08,
    0x56033046FC7B6BAB,
)
_WORDS_OF_WINDOW = 3
_EXPONENT_OF_FIRST_BIT = 62  # a mantissa (an integer) times 2^-62 starts its window at the first bit


def emit_reduce_large_angle(m: VectorMath, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return n mod 4 as an integer, and x - n * pi / 2 as a sum of two values in [-pi/4, pi/4].

    With x = a * 2^e and an integer a of 53 bits, x * 2 / pi modulo 4 needs only the 192 bits of 2 / pi whose products
    with a weigh between 2 and 2^-190; shorter products lose nothing that 2^-62, the nearest that a double comes to a
    multiple of pi / 2, does not leave.

    Args:
        m: arithmetic on scalar f64.
        x: |x| >= 2^-9; inf and NaN yield NaN.
    """
    wide = ir.IntegerType.get_signless(128, m.loc.context)
    bits = m.to_bits(x)
    exponent = m.integer("andi", m.integer("shrui", bits, 52), 0x7FF)
    mantissa = m.integer("ori", m.integer("andi", bits, (1 << 52) - 1), 1 << 52)
    start = m.integer("addi", exponent, _EXPONENT_OF_FIRST_BIT - 1075)
    words = _select_words(m, m.integer("shrui", start, 6))
    shift = m.integer("andi", start, 63)
    rest = m.integer("subi", m.iconst(63), shift)
    window = [
        m.integer("ori", m.integer("shli", a, shift), m.integer("shrui", m.integer("shrui", b, 1), rest))
        for a, b in itertools.pairwise(words)
    ]

    def widen(value: ir.Value) -> ir.Value:
        return m.op("arith.extui", (value,), wide)

    def wide_op(name: str, a: ir.Value, b: ir.Value | int) -> ir.Value:
        operand = m.immediate(b, 128) if isinstance(b, int) else b
        return m.op(f"arith.{name}", (a, operand), wide)

    factor = widen(mantissa)
    turns = wide_op("shli", widen(m.integer("muli", mantissa, window[0])), 64)
    turns = wide_op("addi", turns, wide_op("muli", factor, widen(window[1])))
    turns = wide_op("addi", turns, wide_op("shrui", wide_op("muli", factor, widen(window[2])), 64))

    def narrow(value: ir.Value) -> ir.Value:
        return m.op("arith.trunci", (value,), m.integer_type)

    # The two highest bits are whole quarter turns, the others a signed fraction of one.
    quadrant = narrow(wide_op("shrui", turns, 125))
    quadrant = m.integer("shrui", m.integer("addi", quadrant, 1), 1)
    fraction = wide_op("shli", turns, 2)
    chunk_mask = (1 << 43) - 1
    first = narrow(wide_op("shrsi", fraction, 86))
    second = m.integer("andi", narrow(wide_op("shrui", fraction, 43)), chunk_mask)
    third = m.integer("andi", narrow(fraction), chunk_mask)
    chunks = [
        m.mul(m.float_of_integer(chunk), m.const(2.0**power))
        for chunk, power in ((first, -42), (second, -85), (third, -128))
    ]
    high, low = m.fast_two_sum(chunks[0], chunks[1])
    high, low = m.fast_two_sum(high, m.add(low, chunks[2]))

    r, r_low = m.two_product(high, m.const(PI_HALF[0]))
    r_low = m.add(r_low, m.muladd(high, m.const(PI_HALF[1]), m.mul(low, m.const(PI_HALF[0]))))
    r, r_low = m.fast_two_sum(r, r_low)
    sign = m.sign_bit(x)
    is_negative = m.compare_integers("slt", bits, m.iconst(0))
    quadrant = m.select(is_negative, m.integer("subi", m.iconst(0), quadrant), quadrant)
    is_finite = m.compare("olt", m.abs(x), m.const(float("inf")))
    r = m.select(is_finite, m.flip_sign(r, sign), m.const(float("nan")))
    return quadrant, r, m.flip_sign(r_low, sign)


def _select_words(m: VectorMath, index: ir.Value) -> list[ir.Value]:
    """Return four words of the table from an index on, by halving the table: no memory, hence no relocation."""
    words = [m.iconst(word) for word in _TWO_OVER_PI]
    for step in (16, 8, 4, 2, 1):
        is_set = m.compare_integers("ne", m.integer("andi", index, step), m.iconst(0))
        # With the highest step set all lower ones are not, so its upper half is short.
        needed = min(len(words), _WORDS_OF_WINDOW + step)
        words = [
            m.select(is_set, words[k + step], words[k]) if k + step < len(words) else words[k] for k in range(needed)
        ]
    return words
