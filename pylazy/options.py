"""The options of a reduction: the keyword arguments that say how to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.expression import at_user_line
from pylazy.runtime.errors import DeviceError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pylazy.ranges import Ranges

_CPU_BACKENDS = ("auto", "CPU")
_GPU_BACKENDS = ("GPU", *(f"GPU_{n}D{memory}" for n in (1, 2) for memory in ("", "_device", "_host")))


class Options(NamedTuple):
    """The keyword arguments of a reduction that say how to run it.

    Attributes:
        call: run now; else return the `Reduction`.
        out: where to write the result.
    """

    call: bool = True
    out: Any = None


_DEFAULT_OPTIONS = Options()


def read_options(given: Mapping[str, Any], *, dtype: str | None, backend: str | None = None) -> Options:
    """Check the options of a reduction.

    Args:
        given: keyword arguments as the user wrote them.
        dtype: of the formula, None for numbers alone.
        backend: the one that the LazyTensor asks for, if any.

    Raises:
        TypeError: no option has this name.
        UnsupportedError: the option would change the result, and is not implemented.
    """
    if not given and backend is None:
        return _DEFAULT_OPTIONS
    unknown = given.keys() - _OPTION_NAMES
    if unknown:
        names = ", ".join(sorted(_OPTION_NAMES))
        raise TypeError(at_user_line(f"a reduction takes no argument {min(unknown)!r}, expected one of {names}"))
    _check_backend(given.get("backend") or backend or "auto")
    _check_accumulator(given, dtype)
    _check_summation(given.get("sum_scheme", "auto"))
    return Options(call=bool(given.get("call", True)), out=given.get("out"))


def ranges_of(given: Mapping[str, Any], own: Any) -> Ranges | None:
    """Read the ranges of a reduction: those among its options, else those of its LazyTensor, `own`."""
    chosen = given.get("ranges")
    if chosen is None:
        chosen = own
    if chosen is None:
        return None
    from pylazy.ranges import read_ranges

    return read_ranges(chosen)


_OPTION_NAMES = frozenset(
    (
        "call",
        "out",
        "backend",
        "device_id",
        "dtype_acc",
        "use_double_acc",
        "sum_scheme",
        "enable_chunks",
        "use_fast_math",
        "ranges",
    )
)


def _check_backend(backend: object) -> None:
    if backend in _CPU_BACKENDS:
        return
    if backend in _GPU_BACKENDS:
        raise UnsupportedError(
            at_user_line(f"backend is {backend!r}, and launch on GPUs is not there yet: use 'auto' or 'CPU'")
        )
    names = ", ".join((*_CPU_BACKENDS, *_GPU_BACKENDS))
    raise DeviceError(at_user_line(f"backend is {backend!r}, expected one of {names}"))


def _check_accumulator(given: Mapping[str, Any], dtype: str | None) -> None:
    own = dtype or "float64"
    wanted = given.get("dtype_acc", "auto")
    if given.get("use_double_acc"):
        if wanted not in ("auto", "float64"):
            raise UnsupportedError(
                at_user_line(f"use_double_acc asks for float64 and dtype_acc for {wanted}: give one")
            )
        wanted = "float64"
    if wanted not in ("auto", own):
        raise UnsupportedError(
            at_user_line(
                f"dtype_acc (or use_double_acc) asks for {wanted} accumulators in a formula of dtype {own}, which is "
                "not implemented yet: convert the inputs to get wider sums"
            )
        )


def _check_summation(scheme: object) -> None:
    if scheme not in ("auto", "block_sum", "direct_sum"):
        raise UnsupportedError(
            at_user_line(
                f"sum_scheme is {scheme!r}, which is not implemented yet: expected auto, block_sum or direct_sum"
            )
        )
