"""Reductions of formulas that are written as text."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from pylazy.canonical_form import flatten
from pylazy.execution.programs import Extents
from pylazy.execution.templates import Argument, Template
from pylazy.execution.wanted_results import Wanted
from pylazy.formula_texts.formula_parser import parse_alias, parse_formula, parse_reduction
from pylazy.formula_texts.reduction_texts import REDUCTION_OPS, TextReduction
from pylazy.lazy_formula import read_index
from pylazy.options import read_options
from pylazy.reductions import REDUCTIONS
from pylazy.runtime.errors import AxisError, DtypeError, FormulaError, ShapeError, UnsupportedError
from pylazy.stages import Reduction
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pylazy.lazy_tensor import LazyTensor


class Genred:
    """A reduction of a formula that is written as text, to be called with arrays.

    Args:
        formula: see `pylazy.formula_texts.formula_parser` for the grammar. It may be a reduction itself, as
            "Sum_Reduction(x, 0)", or a derivative of one; then it says what reduction_op, axis, opt_arg and formula2
            else do.
        aliases: the variables, as "x = Vi(3)" or "Vj(1, 3)": category, position among the arguments, by default the
            one in this list, and inner dimension. The formula may add others, as `Var(2, 3, 0)`.
        reduction_op: one of `REDUCTION_OPS`.
        axis: 0 to reduce over i, which gives a row for each j; 1 to reduce over j.
        dtype: accepted, and changes nothing: the arrays say what dtype they have.
        opt_arg: K, for the reductions that keep the K best.
        formula2: the weight, for LogSumExp and SumSoftMaxWeight.
        cuda_type: as `dtype`.
        dtype_acc: as for `LazyTensor.sum`, like the next four.
        use_double_acc: use float64 accumulators.
        sum_scheme: how sums are added up.
        enable_chunks: accepted, and changes nothing.
        rec_multVar_highdim: accepted, and changes nothing.
        use_fast_math: how GPUs compute functions, as for `LazyTensor.sum`.

    Raises:
        FormulaError: a text cannot be read; the message shows where.
        ShapeError: inner dimensions do not fit.
        AxisError: axis is neither 0 nor 1.
        UnsupportedError: the reduction or a function is not implemented, or does not take opt_arg or formula2.
    """

    def __init__(
        self,
        formula: str,
        aliases: Sequence[str],
        reduction_op: str = "Sum",
        axis: int = 0,
        dtype: str | None = None,
        opt_arg: int | None = None,
        formula2: str | None = None,
        cuda_type: str | None = None,
        dtype_acc: str | None = "auto",
        use_double_acc: bool = False,
        sum_scheme: str = "auto",
        enable_chunks: bool = True,
        rec_multVar_highdim: bool = False,  # noqa: N803
        use_fast_math: bool | None = None,
    ) -> None:
        del dtype, cuda_type, rec_multVar_highdim
        self.formula = formula
        self.aliases = _checked_aliases(aliases)
        self.reduction_op = reduction_op
        self.axis = axis
        self.opt_arg = opt_arg
        self.formula2 = formula2
        self._options = {
            "dtype_acc": dtype_acc or "auto",
            "use_double_acc": use_double_acc,
            "sum_scheme": sum_scheme,
            "enable_chunks": enable_chunks,
            "use_fast_math": use_fast_math,
        }
        self._template = _template(self, _read(self))
        self._reduction = Reduction(None, self._template, single=len(self._template.wanted) == 1)

    def __call__(
        self, *args: Any, backend: str = "auto", device_id: int = -1, ranges: Any = None, out: Any = None
    ) -> Any:
        """Reduce.

        Args:
            *args: an array for each variable, in the order of their positions, of shape (*batch, M, D) for Vi,
                (*batch, N, D) for Vj, (*batch, D) for Pm. Batch dimensions broadcast.
            backend: as for `LazyTensor.sum`, like the next two.
            device_id: with it, the number of a GPU.
            ranges: the pairs to reduce, as six arrays; see docs/semantics.md.
            out: array to write the result into, or a tuple of them where there are several results.

        Returns:
            (*batch, M, D) for a reduction over j, (*batch, N, D) over i; (*batch, M, K) with opt_arg and one component,
            else (*batch, M, K, D). A tuple for the reductions with two results.

        Raises:
            TypeError: too many or too few arrays.
            ShapeError: sizes do not fit; the message names the argument.
            DtypeError: an argument is no array, or of a dtype that no formula reads.
        """
        if backend == "auto" and device_id < 0:
            return self._reduction(*args, out=out, ranges=ranges)
        return self._reduction(*args, out=out, ranges=ranges, backend=backend, device_id=device_id)

    def as_text(self, stage: str = "formula", *, target: str | None = None) -> str:
        """Write one stage of the road from formula to machine code; see `Reduction.as_text`."""
        return self._reduction.as_text(stage, target=target)

    def __reduce__(self) -> tuple[Any, ...]:
        named = {"opt_arg": self.opt_arg, "formula2": self.formula2, **self._options}
        return _rebuild, (self.__class__, self.formula, self.aliases, self.reduction_op, self.axis, named)

    def __repr__(self) -> str:
        return f"Genred({self.formula!r}, {list(self.aliases)!r}, {self.reduction_op!r}, axis={self.axis})"


def generic_sum(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """Make the sum of a formula.

    Args:
        formula: as for `Genred`.
        output: the result, as "a = Vi(3)": Vi for a reduction over j, Vj for one over i, and its inner dimension.
        *aliases: the variables, as for `Genred`.
        **options: as for `Genred`.

    Raises:
        ShapeError: the formula has another inner dimension.
        FormulaError: a text cannot be read.
    """
    return _generic("Sum", formula, output, aliases, options)


def generic_logsumexp(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """Make the log of the sum of exponentials; arguments as for `generic_sum`, `formula2` for a weight."""
    return _generic("LogSumExp", formula, output, aliases, options)


def generic_argmin(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """Make the position of the smallest value; arguments as for `generic_sum`."""
    return _generic("ArgMin", formula, output, aliases, options)


def generic_argkmin(formula: str, output: str, *aliases: str, **options: Any) -> Genred:
    """Make the positions of the K smallest values; arguments as for `generic_sum`, the dimension of `output` is K."""
    return _generic("ArgKMin", formula, output, aliases, options)


def _generic(reduction_op: str, formula: str, output: str, aliases: tuple[str, ...], options: dict[str, Any]) -> Genred:
    result = parse_alias(output, 0)
    if not result.axes:
        raise AxisError(
            at_user_line(f"the output is {output!r}, expected rows or columns, as 'a = Vi(3)' or 'a = Vj(3)'")
        )
    if reduction_op == "ArgKMin":
        options = {**options, "opt_arg": result.dim}
    made = Genred(formula, aliases, reduction_op, axis=1 if result.axes == "i" else 0, **options)
    dim = made._template.expressions[-1].dim
    if reduction_op != "ArgKMin" and dim != result.dim:
        raise ShapeError(
            at_user_line(f"the output is {output!r}, and the formula has inner dimension {dim}, expected equal ones")
        )
    return made


def _rebuild(cls: type[Genred], formula: str, aliases: Any, reduction_op: str, axis: int, named: Any) -> Genred:
    return cls(formula, aliases, reduction_op, axis, **named)


def _checked_aliases(aliases: Any) -> tuple[str, ...]:
    if isinstance(aliases, str):
        raise DtypeError(at_user_line(f"aliases is the text {aliases!r}, expected a list of texts, as ['x = Vi(3)']"))
    found = tuple(aliases)
    for place, alias in enumerate(found):
        if not isinstance(alias, str):
            raise DtypeError(at_user_line(f"alias {place} is {alias!r}, expected a text as 'x = Vi(3)'"))
    return found


def _read(wish: Genred) -> list[LazyTensor]:
    """Read the texts; where the first is a reduction, the wish is what it says."""
    variables = {argument.name: argument for argument in _arguments(wish.aliases) if argument.name}
    found = parse_reduction(_checked_text(wish.formula, "formula"), variables)
    if isinstance(found, TextReduction):
        return _adopt(wish, found)
    row = REDUCTIONS[_kinds(wish.reduction_op)[0]]
    formulas = [found]
    if wish.formula2 is not None:
        if row.weight == "none":
            raise UnsupportedError(at_user_line(f"formula2 is given, and {wish.reduction_op} takes no weight"))
        formulas.append(parse_formula(_checked_text(wish.formula2, "formula2"), variables))
    elif row.weight == "required" or wish.reduction_op == "LogSumExpWeight":
        raise UnsupportedError(at_user_line(f"{wish.reduction_op} needs a weight: give formula2"))
    return formulas


def _adopt(wish: Genred, found: TextReduction) -> list[LazyTensor]:
    """Take over what a text says that is a reduction; other wishes may not contradict it."""
    given = (wish.reduction_op, wish.axis, wish.opt_arg, wish.formula2)
    for name, value, default, said in zip(
        ("reduction_op", "axis", "opt_arg", "formula2"),
        given,
        ("Sum", 0, None, None),
        (found.name, found.axis, found.k, None),
        strict=True,
    ):
        if value not in (default, said):
            raise UnsupportedError(
                at_user_line(f"{name} is {value!r}, and the formula is a reduction that says {said!r}: leave it out")
            )
    wish.reduction_op, wish.axis, wish.opt_arg = found.name, found.axis, found.k
    _kinds(found.name)
    return list(found.formulas)


def _template(wish: Genred, formulas: list[LazyTensor]) -> Template:
    arguments = _arguments(wish.aliases)
    kinds = _kinds(wish.reduction_op)
    row = REDUCTIONS[kinds[0]]
    expressions = tuple(formula._expression for formula in formulas)
    if row.scalar and expressions[0].dim != 1:
        raise ShapeError(
            at_user_line(
                f"{wish.reduction_op} of a formula of inner dimension {expressions[0].dim}, expected 1: reduce its "
                "components first, as by Sum(...)"
            )
        )
    operands = tuple(range(len(expressions)))
    k = _checked_k(wish, takes_k=row.takes_k)
    read = read_options(wish._options, dtype=None)
    template = Template(
        expressions,
        tuple(Wanted(kind, operands, k, read.summation, read.math_mode) for kind in kinds),
        reduced=_reduced(wish.axis),
        extents=Extents((), None, None),
        flat=flatten(expressions),
        keepdim=False,
        drop_inner=False,
        options=wish._options,
        declared=arguments,
    )
    for place, argument in enumerate(template.arguments):
        if argument.position != place:
            raise FormulaError(
                at_user_line(
                    f"no variable has position {place}, while {argument} has {argument.position}: positions count "
                    "from 0 without a gap"
                )
            )
    return template


def _arguments(aliases: Sequence[str]) -> list[Argument]:
    arguments: list[Argument] = []
    for place, alias in enumerate(aliases):
        argument = parse_alias(alias, place)
        for other in arguments:
            if other.position == argument.position:
                raise FormulaError(at_user_line(f"{other} and {argument} have one position, expected different ones"))
            if argument.name and other.name == argument.name:
                raise FormulaError(at_user_line(f"{other} and {argument} have one name, expected different ones"))
        arguments.append(argument)
    return arguments


def _kinds(reduction_op: str) -> tuple[str, ...]:
    kinds = REDUCTION_OPS.get(reduction_op)
    if kinds is None:
        names = ", ".join(REDUCTION_OPS)
        raise UnsupportedError(at_user_line(f"reduction_op is {reduction_op!r}, expected one of {names}"))
    return kinds


def _reduced(axis: Any) -> str:
    try:
        return ("i", "j")[(0, 1).index(operator.index(axis))]
    except (TypeError, ValueError):
        raise AxisError(at_user_line(f"axis is {axis!r}, expected 0 to reduce over i, or 1 over j")) from None


def _checked_text(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise DtypeError(at_user_line(f"{what} is of type {type(text).__name__}, expected a text"))
    return text


def _checked_k(wish: Genred, *, takes_k: bool) -> int:
    if not takes_k:
        if wish.opt_arg is not None:
            raise UnsupportedError(at_user_line(f"opt_arg is {wish.opt_arg}, and {wish.reduction_op} takes none"))
        return 0
    k = read_index(wish.opt_arg, f"opt_arg, the number of values that {wish.reduction_op} keeps,")
    if k < 1:
        raise ShapeError(at_user_line(f"opt_arg is {k}, expected at least 1"))
    return k
