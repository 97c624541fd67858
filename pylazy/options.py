"""The options of a reduction: the keyword arguments that say how to run it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from pylazy.dtypes import arithmetic_dtype
from pylazy.reductions import DEFAULT_SUMMATION, Summation
from pylazy.runtime.errors import DeviceError, DtypeError, UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pylazy.block_sparse.ranges import Ranges

_CPU_BACKENDS = ("auto", "CPU")
_GPU_BACKENDS = ("GPU", *(f"GPU_{n}D{memory}" for n in (1, 2) for memory in ("", "_device", "_host")))


class Backend(NamedTuple):
    """Where a reduction is to run.

    Attributes:
        name: "auto" for where the arrays lie, "CPU", or "GPU".
        device_id: number of a GPU; -1 for that of the arrays, and the first one for arrays of the host.
    """

    name: str
    device_id: int


class Options(NamedTuple):
    """The keyword arguments of a reduction that say how to run it.

    Attributes:
        call: run now; else return the `Reduction`.
        out: where to write the result.
        summation: how to add up.
        backend: where to run; None for where the arrays lie.
        math_mode: how GPUs compute functions, one of `MATH_MODES`.
    """

    call: bool = True
    out: Any = None
    summation: Summation = DEFAULT_SUMMATION
    backend: Backend | None = None
    math_mode: str = ""


_DEFAULT_OPTIONS = Options()


def read_options(given: Mapping[str, Any], *, dtype: str | None, backend: str | None = None) -> Options:
    """Check the options of a reduction.

    Args:
        given: keyword arguments as the user wrote them.
        dtype: of the formula, None where it is not known yet.
        backend: the one that the LazyTensor asks for, if any.

    Raises:
        TypeError: no option has this name.
        DtypeError: dtype_acc is no dtype of accumulators, or narrower than the arithmetic.
        DeviceError: there is no such backend, or device_id is no number of a device.
        UnsupportedError: the option would change the result, and is not implemented; or two contradict each other.
    """
    if not given and backend is None:
        return _DEFAULT_OPTIONS
    unknown = given.keys() - _OPTION_NAMES
    if unknown:
        names = ", ".join(sorted(_OPTION_NAMES))
        raise TypeError(at_user_line(f"a reduction takes no argument {min(unknown)!r}, expected one of {names}"))
    chosen = read_backend(given.get("backend") or backend or "auto", given.get("device_id"))
    summation = Summation(_accumulator(given, dtype), _scheme(given.get("sum_scheme", "auto")))
    return Options(
        bool(given.get("call", True)), given.get("out"), summation, chosen, _math_mode(given.get("use_fast_math"))
    )


def ranges_of(given: Mapping[str, Any], own: Any) -> Ranges | None:
    """Read the ranges of a reduction: those among its options, else those of its LazyTensor, `own`."""
    chosen = given.get("ranges")
    if chosen is None:
        chosen = own
    if chosen is None:
        return None
    from pylazy.block_sparse.ranges import read_ranges

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


def read_backend(backend: object, device_id: object = None) -> Backend | None:
    """Read where to run; None for where the arrays lie.

    Raises:
        DeviceError: there is no such backend, or device_id is no number of a device.
    """
    number = -1 if device_id is None else _device_number(device_id)
    if backend == "auto" and number < 0:
        return None
    if backend in _CPU_BACKENDS:
        return Backend(str(backend), number)
    if backend in _GPU_BACKENDS:
        return Backend("GPU", number)
    names = ", ".join((*_CPU_BACKENDS, *_GPU_BACKENDS))
    raise DeviceError(at_user_line(f"backend is {backend!r}, expected one of {names}"))


def _device_number(device_id: object) -> int:
    try:
        return operator.index(device_id)  # type: ignore[arg-type]
    except TypeError:
        raise DeviceError(at_user_line(f"device_id is {device_id!r}, expected the number of a GPU, or -1")) from None


_MATH_MODES = {None: "", False: "accurate", True: "fast"}


def _math_mode(wanted: object) -> str:
    if wanted is not None and not isinstance(wanted, bool):
        raise UnsupportedError(at_user_line(f"use_fast_math is {wanted!r}, expected True, False or None"))
    return _MATH_MODES[wanted]


_ACCUMULATORS = {"auto": "", "float32": "float32", "float64": "float64"}
_SCHEMES = {"auto": "", "block_sum": "", "direct_sum": "direct", "kahan_scheme": "kahan"}


def _accumulator(given: Mapping[str, Any], dtype: str | None) -> str:
    wanted = given.get("dtype_acc") or "auto"
    if not isinstance(wanted, str) or wanted not in _ACCUMULATORS:
        raise DtypeError(at_user_line(f"dtype_acc is {wanted!r}, expected one of {', '.join(_ACCUMULATORS)}"))
    if given.get("use_double_acc"):
        if wanted == "float32":
            raise UnsupportedError(
                at_user_line(f"use_double_acc asks for float64 and dtype_acc for {wanted}: give one of them")
            )
        wanted = "float64"
    if wanted == "float32" and dtype is not None and arithmetic_dtype(dtype) == "float64":
        raise DtypeError(
            at_user_line("dtype_acc is 'float32' for a formula of float64, expected a dtype that is not narrower")
        )
    return _ACCUMULATORS[wanted]


def _scheme(wanted: object) -> str:
    if not isinstance(wanted, str) or wanted not in _SCHEMES:
        raise UnsupportedError(at_user_line(f"sum_scheme is {wanted!r}, expected one of {', '.join(_SCHEMES)}"))
    return _SCHEMES[wanted]
