"""Forms: what formulas that differ in their data only have in common."""

from __future__ import annotations

from typing import Any

Inputs = dict[Any, Any]
"""The data of a formula in the order of its inputs: the data slot of each variable, by its identity, axis and size."""

MAX_INPUTS = 32
"""A formula of more inputs has no form: each of its nodes would list them all."""

_MAX_FORMS = 1 << 14


class Form:
    """What stands for all formulas that are equal but for their data and the user's lines; compared by identity.

    A formula that is built again, at the next call or on other arrays, meets the forms of the first time, and with them
    what was worked out then. Two objects may stand for equal formulas, if the table has been emptied in between: then
    it is worked out again.

    Attributes:
        axes: the axes that the value varies with.
        dim: inner dimension.
        dtype: as of an `Expression`.
        plans: what is known of the reductions of such formulas; see `pylazy.execution.prepare`.
    """

    __slots__ = ("axes", "dim", "dtype", "plans")

    def __init__(self, axes: str, dim: int, dtype: str | None) -> None:
        self.axes = axes
        self.dim = dim
        self.dtype = dtype
        self.plans: dict[Any, Any] = {}


FORMS: dict[Any, Form] = {}
"""The form of a leaf, by what it is, and of an operation, by its name, its attributes and the forms of its operands."""


def remember(key: Any, axes: str, dim: int, dtype: str | None) -> Form:
    """Make a form and put it into the table; if another thread was faster, give that one."""
    if len(FORMS) >= _MAX_FORMS:
        FORMS.clear()
    return FORMS.setdefault(key, Form(axes, dim, dtype))


def join_inputs(op: str, attributes: Any, operands: Any) -> tuple[Any, Inputs | None]:
    """Find the key of the form of an operation on several operands, and its inputs; None for both if it has no form.

    Where operands have inputs in common, the key says which: x - y and x - x are two forms.
    """
    inputs: Inputs | None = operands[0].inputs
    key = [op, attributes, operands[0].form]
    for operand in operands[1:]:
        own: Inputs | None = operand.inputs
        if inputs is None or own is None:
            return None, None
        is_apart = inputs.keys().isdisjoint(own)
        inputs = inputs | own
        key.append(operand.form)
        if not is_apart:
            numbers = {identity: number for number, identity in enumerate(inputs)}
            key.append(tuple([numbers[identity] for identity in own]))
    if inputs is None or len(inputs) > MAX_INPUTS:
        return None, None
    return tuple(key), inputs
