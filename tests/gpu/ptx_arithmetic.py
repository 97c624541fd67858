"""What PTX instructions compute, on one array element for each thread ("PTX ISA" manual, chapter 9).

Fused multiply-adds are exact: rounded once. Approximations are computed in float64 and rounded.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = Any  # an ndarray, or a NumPy scalar for an immediate
Function = Callable[..., Array]
_SMALLEST_NORMAL = np.float32(2.0**-126)
#: Splits a float64 in halves of 26 bits (Dekker 1971, "A floating-point technique for extending the precision").
_SPLITTER = 134217729.0


def flush(x: Array) -> Array:
    """Turn numbers below the normal ones into zeros (`.ftz`)."""
    return np.where(np.abs(x) < _SMALLEST_NORMAL, np.copysign(np.float32(0), x), x)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Give a + b, and its rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _odd_sum(a: Array, b: Array) -> Array:
    """Give a + b rounded to odd, which may be rounded again to fewer bits (Boldo and Melquiond 2008)."""
    total, error = _two_sum(a, b)
    bits = np.asarray(total).view(np.int64)
    inexact = (error != 0) & np.isfinite(total) & ((bits & 1) == 0)
    towards_zero = (error < 0) == (total < 0)
    return np.where(inexact, np.where(towards_zero, bits | 1, bits - 1), bits).view(np.float64)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    def halves(x: Array) -> tuple[Array, Array]:
        scaled = _SPLITTER * x
        high = scaled - (scaled - x)
        return high, x - high

    product = a * b
    (ah, al), (bh, bl) = halves(a), halves(b)
    return product, ((ah * bh - product) + ah * bl + al * bh) + al * bl


def fma(a: Array, b: Array, c: Array) -> Array:
    """Give a * b + c with one rounding."""
    if a.dtype == np.float32:
        return _odd_sum(a.astype(np.float64) * b, np.asarray(c, np.float64)).astype(np.float32)
    product, low = _two_product(a, b)
    sum_low, rest_low = _two_sum(c, low)
    high, rest = _two_sum(product, sum_low)
    exact = high + _odd_sum(rest_low, rest)
    return np.where(np.isfinite(exact), exact, product + c)


def _wide(a: Array, b: Array) -> Array:
    """Multiply 32-bit numbers to 64 bits."""
    double = np.int64 if a.dtype.kind == "i" else np.uint64
    return np.asarray(a, double) * np.asarray(b, double)


def _high(a: Array, b: Array) -> Array:
    """Give the upper half of a product."""
    if a.dtype.itemsize <= 4:
        return (_wide(a, b) >> a.dtype.itemsize * 8).astype(a.dtype)
    a, b = np.broadcast_arrays(a, b)
    exact = [int(x) * int(y) >> 64 for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)]
    return np.array([value & (2**64 - 1) for value in exact], np.uint64).view(a.dtype)


def _clamped(a: Array, count: Array) -> tuple[Array, Array]:
    bits = a.dtype.itemsize * 8
    return np.minimum(count, bits - 1).astype(a.dtype), np.asarray(count) >= bits


def _shift_left(a: Array, count: Array) -> Array:
    by, all_out = _clamped(a, count)
    return np.where(all_out, a.dtype.type(0), a << by)


def _shift_right(a: Array, count: Array) -> Array:
    by, all_out = _clamped(a, count)
    return a >> by if a.dtype.kind == "i" else np.where(all_out, a.dtype.type(0), a >> by)


def _extract_bits(a: Array, start: Array, length: Array) -> Array:
    """Give some bits of a number, extended by their sign if it is signed; all of them must exist."""
    bits = a.dtype.itemsize * 8
    start, length = int(np.max(start)), int(np.max(length))
    assert 0 < length <= bits - start
    whole = a.dtype.type(bits - length - start)
    return (a << whole) >> a.dtype.type(bits - length)


def _funnel(a: Array, b: Array, count: Array) -> Array:
    """Give the upper half of b:a shifted left."""
    by = np.asarray(count & 31, np.uint64)
    both = (np.asarray(b, np.uint64) << np.uint64(32)) | a
    return ((both << by) >> np.uint64(32)).astype(np.uint32)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, a.dtype.type(1), b)
    size = np.abs(a) // np.abs(safe)
    return np.where((a < 0) != (safe < 0), -size, size) if a.dtype.kind == "i" else size


def _division(modifiers: tuple[str, ...]) -> Function:
    """`div.approx` multiplies by a reciprocal, which is 0 for numbers beyond 2^126 (PTX ISA manual, div)."""
    if "approx" not in modifiers:
        return _divide
    return lambda a, b: np.where((np.abs(b) > 2.0**126) & np.isfinite(b), a * np.copysign(0 * b, b), a / b)


def _exponential(modifiers: tuple[str, ...]) -> Function:
    """`ex2.approx`; with `ftz`, results below the normal numbers are 0."""
    function = _in_double(np.exp2)
    if "ftz" not in modifiers:
        return function

    def flushed(x: Array) -> Array:
        found = function(x)
        return np.where(found < np.finfo(x.dtype).tiny, x.dtype.type(0), found)

    return flushed


def _in_double(function: Function) -> Function:
    return lambda x: function(np.asarray(x, np.float64)).astype(x.dtype)


def _toward_nan(plain: Function, propagating: Function) -> Callable[[tuple[str, ...]], Function]:
    return lambda modifiers: propagating if "NaN" in modifiers or modifiers[-1][0] != "f" else plain


def _always(function: Function) -> Callable[[tuple[str, ...]], Function]:
    return lambda _: function


def _multiplication(modifiers: tuple[str, ...]) -> Function:
    return {"wide": _wide, "hi": _high}.get(modifiers[0], np.multiply)


def _multiply_add(modifiers: tuple[str, ...]) -> Function:
    product = _multiplication(modifiers)
    return lambda a, b, c: product(a, b) + c


#: Opcode -> its function, which may depend on the modifiers; operands and result have the type of the instruction.
COMPUTED: Mapping[str, Callable[[tuple[str, ...]], Function]] = {
    "add": _always(np.add),
    "sub": _always(np.subtract),
    "mul": _multiplication,
    "mad": _multiply_add,
    "fma": _always(fma),
    "div": _division,
    "rem": _always(np.fmod),
    "min": _toward_nan(np.fmin, np.minimum),
    "max": _toward_nan(np.fmax, np.maximum),
    "abs": _always(np.abs),
    "neg": _always(np.negative),
    "and": _always(np.bitwise_and),
    "or": _always(np.bitwise_or),
    "xor": _always(np.bitwise_xor),
    "not": _always(np.invert),
    "copysign": _always(lambda sign, size: np.copysign(size, sign)),
    "bfe": _always(_extract_bits),
    "shl": _always(_shift_left),
    "shr": _always(_shift_right),
    "shf": _always(_funnel),
    "rcp": _always(lambda x: (1 / np.asarray(x, np.float64)).astype(x.dtype)),
    "sqrt": _always(np.sqrt),
    "rsqrt": _always(_in_double(lambda x: 1 / np.sqrt(x))),
    "ex2": _exponential,
    "lg2": _always(_in_double(np.log2)),
}
#: What each modifier of a computed instruction may be; anything else is refused.
KNOWN_MODIFIERS = frozenset({"rn", "lo", "hi", "wide", "ftz", "approx", "NaN", "l", "wrap", "pred"})

_EQUALITY = {"eq": np.equal, "ne": np.not_equal}
_ORDER = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
_UNSIGNED_ORDER = {"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}
_BASE_COMPARISONS: Mapping[str, Function] = {**_EQUALITY, **_ORDER, **_UNSIGNED_ORDER}


def _unordered(a: Array, b: Array) -> Array:
    return np.isnan(a) | np.isnan(b)


def comparison(name: str, *, floating: bool) -> Function:
    """Give the function of `setp`: "lt" is false and "ltu" true where an operand is NaN."""
    if not floating:
        return _BASE_COMPARISONS[name]
    if name in {"nan", "num"}:
        return _unordered if name == "nan" else lambda a, b: ~_unordered(a, b)
    if len(name) == 3:
        return lambda a, b: _BASE_COMPARISONS[name[:2]](a, b) | _unordered(a, b)
    return lambda a, b: _BASE_COMPARISONS[name](a, b) & ~_unordered(a, b)


_ROUNDINGS: Mapping[str, Function] = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def conversion(modifiers: tuple[str, ...], target: Any, source: Any) -> Function:
    """Give the function of `cvt`: to integers with saturation, NaN to 0."""
    rounding = next((_ROUNDINGS[name] for name in modifiers if name in _ROUNDINGS), None)
    if target.kind == "f":
        return lambda x: (x if rounding is None else rounding(x)).astype(target)
    if source.kind != "f":
        return lambda x: x.astype(target)
    assert rounding is not None
    limits = np.iinfo(target)

    def to_integer(x: Array) -> Array:
        rounded = rounding(np.asarray(x, np.float64))
        inside = (rounded > float(limits.min)) & (rounded < float(limits.max))
        edge = np.where(rounded > 0, limits.max, limits.min).astype(target)
        return np.where(
            np.isnan(x), target.type(0), np.where(inside, np.where(inside, rounded, 0).astype(target), edge)
        )

    return to_integer
