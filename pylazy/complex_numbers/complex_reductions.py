"""Reductions to complex numbers, whose kernels give real parts, then imaginary parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.arrays.sources import SYMBOL
from pylazy.canonical_form import flatten
from pylazy.complex_numbers.complex_arrays import complex_array, delivered
from pylazy.runtime.errors import UnsupportedError
from pylazy.stages import Reduction
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.expression import Expression


class ComplexReduction(Reduction):
    """A `Reduction` to complex numbers; its kernel gives real parts, then imaginary parts."""

    __slots__ = ("drop_inner",)

    is_complex = True

    def __init__(self, planar: Reduction, *, drop_inner: bool) -> None:
        super().__init__(planar._job, planar._template, single=planar._single)
        self.drop_inner = drop_inner

    def __call__(
        self, *data: Any, out: Any = None, ranges: Any = None, backend: str | None = None, device_id: int = -1
    ) -> Any:
        """Run on the data as it is now; see `Reduction`."""
        found = super().__call__(*data, ranges=ranges, backend=backend, device_id=device_id)
        return delivered(complex_array(found, drop_inner=self.drop_inner), out)

    def __repr__(self) -> str:
        return f"Complex{super().__repr__()}"

    @property
    def shape(self) -> Any:
        """Shape of the result; None where a call decides on it."""
        planar = super().shape
        if planar is None:
            return None
        return planar[:-1] if self.drop_inner else (*planar[:-1], planar[-1] // 2)


def without_out(options: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Part the options of a reduction from its `out`."""
    return {name: value for name, value in options.items() if name != "out"}, options.get("out")


def run_now(what: str, formulas: Sequence[Expression], options: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Check that a reduction of several steps is to run now, and take `out` from its options.

    Raises:
        UnsupportedError: it is to run later.
    """
    later = any(source.kind == SYMBOL for source in flatten(formulas).sources)
    if later or not options.get("call", True):
        raise UnsupportedError(
            at_user_line(
                f"{what} of complex numbers takes several reductions: call=False and symbolic variables are not there, "
                "pass arrays and let it run"
            )
        )
    return without_out(options)
