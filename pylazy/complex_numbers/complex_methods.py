"""Methods of LazyTensor that lead to complex numbers, or take them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.methods.operands import combine, operand
from pylazy.methods.operators import Operators

if TYPE_CHECKING:
    from pylazy.complex_numbers.complex_lazy_tensor import ComplexLazyTensor


class ComplexMethods(Operators):
    """A real LazyTensor is its own real part and its own conjugate, as a real array is."""

    __slots__ = ()

    def real2complex(self) -> ComplexLazyTensor:
        """The same numbers, as complex ones."""
        from pylazy.complex_numbers.complex_lazy_tensor import complex_of

        return complex_of(self, None)

    def imag2complex(self) -> ComplexLazyTensor:
        """The numbers times the imaginary unit."""
        from pylazy.complex_numbers.complex_lazy_tensor import complex_of

        return complex_of(None, self)

    def exp1j(self) -> ComplexLazyTensor:
        """The point cos(x) + 1j sin(x) of the unit circle."""
        from pylazy.complex_numbers.complex_lazy_tensor import complex_of

        numbers: Any = self
        return complex_of(numbers.cos(), numbers.sin())

    @property
    def real(self) -> Any:
        """The real part, as a real LazyTensor."""
        return self

    @property
    def imag(self) -> Any:
        """The imaginary part, as a real LazyTensor: zeros where the numbers are real."""
        return (self == self) * 0  # noqa: PLR0124  zeros of this shape, also where x is NaN or negative

    def conj(self) -> Any:
        """The complex conjugate."""
        return self

    def angle(self) -> Any:
        """The angle of a complex number in radians, from -pi to pi: 0 or pi for a real one."""
        return combine("atan2", operand(self.__class__, 0), self)
