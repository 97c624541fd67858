"""Linear systems whose operator is a sum that is written as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.formula_texts.formula_parser import parse_alias
from pylazy.genred import Genred
from pylazy.linear_algebra.solve import LinearSystem
from pylazy.linear_algebra.symmetric_systems import read_settings
from pylazy.options import ranges_of, read_backend
from pylazy.runtime.errors import AxisError, FormulaError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence


class KernelSolve:
    """A solver of (alpha * identity + A) a = b, to be called with arrays, where A a is the sum of a formula.

    Args:
        formula: as for `Genred`; linear in one variable, and symmetric.
        aliases: the variables, as for `Genred`.
        varinvalias: the name of the variable in which the formula is linear, or its place as "Var(2, 3, 1)".
        axis: 0 to sum over i, where the unknown is a variable of i; 1 to sum over j.
        **options: those of `Genred` after axis, and opt_arg, which is not used.

    Raises:
        FormulaError: a text cannot be read, or no variable has this name.
        AxisError: the unknown does not vary with the axis that is summed over.
    """

    def __init__(self, formula: str, aliases: Sequence[str], varinvalias: str, axis: int = 0, **options: Any) -> None:
        options.pop("opt_arg", None)
        self._sum = Genred(formula, aliases, "Sum", axis, **options)
        self.varinvalias = varinvalias
        self._options = options
        self._place = _place_of(varinvalias, self._sum)

    def __call__(
        self,
        *args: Any,
        backend: str = "auto",
        device_id: int = -1,
        alpha: Any = 1e-10,
        eps: float = 1e-6,
        ranges: Any = None,
        **settings: Any,
    ) -> Any:
        """Solve.

        Args:
            *args: an array for each variable, in the order of their positions, the right-hand side in the place of the
                unknown.
            backend: as for `LazyTensor.sum`.
            device_id: with it, the number of a GPU.
            alpha: added to the diagonal.
            eps: tolerance, as for `LazyTensor.solve`.
            ranges: blocks of pairs to reduce over.
            **settings: max_iterations, method, and as the preconditioner a function, as for `LazyTensor.solve`.

        Returns:
            An array of the shape of the right-hand side, with all batch dimensions.

        Raises:
            ShapeError: sizes do not fit, or the operator is not square.
            NonFiniteError: NaN or infinities come in or up.
        """
        system = LinearSystem(
            self._sum._reduction, self._place, read_settings({"alpha": alpha, "eps": eps, **settings})
        )
        return system(*args, ranges=ranges_of({}, ranges), backend=read_backend(backend, device_id))

    def __reduce__(self) -> tuple[Any, ...]:
        made = self._sum
        return _rebuild, (made.formula, made.aliases, self.varinvalias, made.axis, self._options)

    def __repr__(self) -> str:
        made = self._sum
        return f"KernelSolve({made.formula!r}, {list(made.aliases)!r}, {self.varinvalias!r}, axis={made.axis})"


def _rebuild(formula: str, aliases: Any, varinvalias: str, axis: int, options: dict[str, Any]) -> KernelSolve:
    return KernelSolve(formula, aliases, varinvalias, axis, **options)


def _place_of(name: str, made: Genred) -> int:
    arguments = made._template.arguments
    position = parse_alias(name, 0).position if name.startswith("Var(") else None
    for place, argument in enumerate(arguments):
        if argument.position == position or (position is None and argument.name == name):
            summed = "i" if made.axis == 0 else "j"
            if argument.axes != summed:
                raise AxisError(
                    at_user_line(f"the unknown is {argument}, expected a variable of {summed}, which is summed over")
                )
            return place
    raise FormulaError(
        at_user_line(f"no variable is called {name!r}, expected one of {', '.join(map(str, arguments))}")
    )
