"""How reductions over an inner dimension go through its elements, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass

from pylazy.compiler import kernel_builder as kb
from pylazy.compiler.mlir import ir
from pylazy.compiler.nests.body_values import Position


@dataclass(frozen=True)
class Fold:
    """How an inner reduction goes through its elements; a state is a tuple of element values."""

    neutral: Callable[[ir.Type], tuple[ir.Value, ...]]
    first: Callable[[ir.Value], tuple[ir.Value, ...]]
    step: Callable[[tuple[ir.Value, ...], ir.Value, Position], tuple[ir.Value, ...]]
    finish: Callable[[tuple[ir.Value, ...]], ir.Value]


def _simple_fold(neutral: float, combine: Callable[[ir.Value, ir.Value], ir.Value]) -> Fold:
    return Fold(
        neutral=lambda element: (kb.constant(neutral, element),),
        first=lambda value: (value,),
        step=lambda state, value, _: (combine(state[0], value),),
        finish=lambda state: state[0],
    )


def _index_fold(predicate: str, neutral: float) -> Fold:
    """Keep the best element and its number; the first NaN wins over everything and stays."""

    def step(state: tuple[ir.Value, ...], value: ir.Value, at: Position) -> tuple[ir.Value, ...]:
        best, number = state
        appears = kb.emit(
            "arith.andi", (kb.compare("uno", value, value), kb.compare("ord", best, best)), kb.bool_type(value.type)
        )
        better = kb.emit("arith.ori", (kb.compare(predicate, value, best), appears))
        return kb.select(better, value, best), kb.select(better, position_number(at, value.type), number)

    return Fold(
        neutral=lambda element: (kb.constant(neutral, element), kb.constant(0, element)),
        first=lambda value: (value, kb.constant(0, value.type)),
        step=step,
        finish=lambda state: state[1],
    )


def position_number(at: Position, element: ir.Type) -> ir.Value:
    """Build the number of an element, as an element."""
    if at.base is None:
        return kb.constant(at.offset, element)
    whole = kb.emit("arith.addi", (at.base, kb.constant(at.offset, at.base.type)))
    number = kb.emit("arith.sitofp", (whole,), kb.element_type(element))
    return kb.emit("vector.broadcast", (number,), element) if isinstance(element, ir.VectorType) else number


_INFINITY = float("inf")
INNER_FOLDS = {
    "add": _simple_fold(0.0, kb.add),
    "mul": _simple_fold(1.0, kb.mul),
    "minimum": _simple_fold(_INFINITY, lambda a, b: kb.emit("arith.minimumf", (a, b))),
    "maximum": _simple_fold(-_INFINITY, lambda a, b: kb.emit("arith.maximumf", (a, b))),
    "argmin": _index_fold("olt", _INFINITY),
    "argmax": _index_fold("ogt", -_INFINITY),
}
