"""Turn a function into its vector-Jacobian product, or into its Jacobian-vector product."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pylazy.compiler.adjoints import Adjoint, pull_back
from pylazy.compiler.derivatives import (
    READS_RESULT,
    REDUCTION_DERIVATIVES,
    Application,
    ReductionApplication,
    reduction_cotangents,
    reduction_tangent,
    tangent,
)
from pylazy.compiler.diagnostics import at_source_line
from pylazy.compiler.dialects.reduction import attribute, lazy_dim, lazy_vector, name_of
from pylazy.compiler.dialects.reduction.formula_ops import (
    FORMULA_OPS,
    emit_constant,
    emit_formula_op,
    emit_reduce,
    emit_reduce_to_one_row,
    emit_tabulate,
    emit_var,
)
from pylazy.compiler.dialects.reduction.summation import summation_of
from pylazy.compiler.mlir import func, ir
from pylazy.compiler.target import Target
from pylazy.compiler.terms import Static, Term, fit
from pylazy.runtime.errors import CompileError, UnsupportedError

_WRT = "reduction.wrt"
_TANGENTS = "reduction.tangents"
_DERIVATIVES = "reduction.derivatives"
_WITH_RESULTS = "with_results"
_OTHER_AXIS = {"i": "j", "j": "i"}


def reduction_differentiate(module: ir.Module, *, target: Target) -> None:
    """Replace each function that asks for a derivative, by one of three attributes, by that derivative.

    `reduction.wrt` means reverse mode: `@f(arguments) -> results` becomes `@f(arguments, saved, cotangents) ->
    gradients`: `saved` are the results that the derivative reads (those of logsumexp and softmax), `cotangents` one
    tensor for each result, `gradients` one tensor for each argument that `reduction.wrt` numbers, in its order. The
    gradient has the rows of its argument; one row, summed over all pairs, for an argument with axis "".

    `reduction.tangents` means forward mode: it becomes `@f(arguments, saved, tangents) -> tangents of the results`,
    with one tangent, of the same type, for each argument that `reduction.tangents` numbers, in its order; those of all
    other arguments are 0.

    Each may also be an array of such arrays: then the derivative is differentiated again in the same mode, with respect
    to the arguments that the second array numbers, and so on.

    `reduction.derivatives` means several in any modes, the innermost first: an array of dictionaries as `{wrt = [0]}`
    and `{tangents = [0, 2]}`. With the entry `with_results` the results of the function stay, before their derivative:
    then no result is an argument, and reductions of both can share a sweep.

    New arguments carry `reduction.name` ("saved0", "cotangent0" with the number of the result, "tangent0" with that of
    the argument; a name that is taken gets one more number) and `reduction.axis`. A derivative is a function of the
    same kind, so it can be differentiated again, in either mode; its `saved` arguments are arguments like all others.

    Runs on formulas, where a derivative is a row of `derivatives.DERIVATIVES` and cse shares it with the forward
    values; after the first reduction-simplify, because distances have short derivatives. What only the forward results
    needed is removed. An argument that no op views needs the attribute `reduction.axis` to have a gradient (of zeros).

    Raises:
        UnsupportedError: a reduction without a derivative, or one of which a gradient is asked along two axes.
        CompileError: an attribute does not name arguments of the function, or there are several of them.
    """
    del target  # derivatives are the same on all machines
    for operation in list(module.body.operations):
        function = operation.operation
        if name_of(function) != "func.func":
            continue
        asked = [name for name in (_WRT, _TANGENTS, _DERIVATIVES) if name in function.attributes]
        if len(asked) > 1:
            message = f"a function has both {' and '.join(f'`{name}`' for name in asked)}, expected one"
            raise CompileError(at_source_line(message, function.location))
        for name in asked:
            for mode, numbers, with_results in _read_orders(function, name):
                _SWEEPS[mode](_Function(function, numbers, name, with_results=with_results)).run()
            del function.attributes[name]


def _read_orders(function: Any, attribute_name: str) -> "list[tuple[str, tuple[int, ...], bool]]":
    """Read each derivative, the innermost first: its mode, its argument numbers, and whether the results stay."""
    try:
        if attribute_name == _DERIVATIVES:
            return [_read_order(ir.DictAttr(order)) for order in function.attributes[attribute_name]]
        found = attribute(function, attribute_name)
        nested = [isinstance(element, ir.ArrayAttr) for element in found]
        if nested and all(nested):
            return [(attribute_name, tuple(number.value for number in numbers), False) for numbers in found]
        return [(attribute_name, tuple(int(number) for number in found), False)]
    except (AttributeError, TypeError, ValueError):
        written = function.attributes[attribute_name]
        message = f"`{attribute_name}` is {written}, expected {_EXPECTED[attribute_name]}"
        raise CompileError(at_source_line(message, function.location)) from None


def _read_order(order: ir.DictAttr) -> "tuple[str, tuple[int, ...], bool]":
    entries = {entry.name: entry.attr for entry in order}
    with_results = entries.pop(_WITH_RESULTS, None) is not None
    ((entry, numbers),) = entries.items()
    mode = f"reduction.{entry}"
    if mode not in _SWEEPS:
        raise ValueError(mode)
    return mode, tuple(int(number.value) for number in numbers), with_results


class _Formulas:
    """Terms as level-1 IR, built at the current insertion point."""

    def apply(self, name: str, operands: Sequence[ir.Value], attributes: Mapping[str, Static]) -> ir.Value:
        return emit_formula_op(name, *operands, **attributes)

    def number(self, number: float, like: ir.Value) -> ir.Value:
        return emit_constant(number, lazy_vector(like).element_type)

    def dim(self, value: ir.Value) -> int:
        return lazy_dim(value)


_FORMULAS = _Formulas()


def _term(value: ir.Value) -> Term:
    return Term(value, _FORMULAS)


class _Function:
    """One function on its way to its derivative: what is asked, and the arguments and results that change.

    Attributes:
        function: the `func.func`.
        block: its body.
        forward: the ops before the terminator.
        terminator: of the original function.
        numbers: the arguments that the attribute names.
        active: the values that depend on them.
        with_results: whether the results stay, before their derivative.
    """

    def __init__(
        self, function: Any, numbers: "tuple[int, ...]", attribute_name: str, *, with_results: bool = False
    ) -> None:
        self.function = function
        self.with_results = with_results
        self.block = function.regions[0].blocks[0]
        *self.forward, self.terminator = [op.operation for op in self.block.operations]
        count = len(self.block.arguments)
        for number in numbers:
            if not 0 <= number < count:
                raise self.refusal(f"`{attribute_name}` asks for argument {number}, but the function has {count}")
        self.numbers = numbers
        self.active = self._values_that_vary()
        #: How derivatives add up: as the results do, which are those of one reduction wherever this is said.
        self.summation = self._summation_of_results()
        self._old_attributes = self._argument_attributes()
        self._new_attributes: list[Any] = []
        self._names = {found["reduction.name"].value for found in self._old_attributes if "reduction.name" in found}

    def refusal(self, message: str) -> CompileError:
        """An error with the place of the function."""
        return CompileError(at_source_line(message, self.function.location))

    def _argument_attributes(self) -> "list[Any]":
        if "arg_attrs" in self.function.attributes:
            return [ir.DictAttr(found) for found in ir.ArrayAttr(self.function.attributes["arg_attrs"])]
        return [ir.DictAttr.get({})] * len(self.block.arguments)

    def _values_that_vary(self) -> "set[ir.Value]":
        varying = {self.block.arguments[number] for number in self.numbers}
        for operation in self.forward:
            if any(operand in varying for operand in operation.operands):
                varying.update(operation.results)
        return varying

    def _summation_of_results(self) -> "dict[str, ir.Attribute]":
        for result in self.terminator.operands:
            if name_of(result.owner) == "reduction.reduce":
                return summation_of(result.owner)
        return {}

    def argument_axes(self) -> "dict[int, list[tuple[str, Any]]]":
        """Give the axes of each argument, by its attribute and by its views, and where they are said."""
        axes: dict[int, list[tuple[str, Any]]] = {}
        for number, found in enumerate(self._old_attributes):
            if "reduction.axis" in found:
                axes[number] = [(found["reduction.axis"].value, self.function.location)]
        for operation in self.forward:
            tensor = operation.operands[0] if name_of(operation) == "reduction.var" else None
            if tensor is not None and isinstance(tensor.owner, ir.Block):
                found = axes.setdefault(ir.BlockArgument(tensor).arg_number, [])
                found.append((attribute(operation, "axis"), operation.location))
        return axes

    def add_argument(self, name: str, axis: "str | None", tensor_type: ir.Type, location: Any) -> ir.Value:
        """Add an argument; an axis of None leaves its rows unsaid."""
        unique, again = name, 1
        while unique in self._names:
            again += 1
            unique = f"{name}_{again}"
        self._names.add(unique)
        described = {"reduction.name": ir.StringAttr.get(unique)}
        if axis is not None:
            described["reduction.axis"] = ir.StringAttr.get(axis)
        self._new_attributes.append(ir.DictAttr.get(described))
        return self.block.add_argument(tensor_type, location)

    def add_saved_results(self) -> "dict[ir.Value, ir.Value]":
        """Add an argument for each result that a derivative reads and the function no longer computes."""
        saved: dict[ir.Value, ir.Value] = {}
        if self.with_results:
            return saved  # they are computed here
        for number, result in enumerate(self.terminator.operands):
            reduce_op = self.reduction_of(result)
            if attribute(reduce_op, "kind", "") in READS_RESULT:
                argument = self.add_argument(f"saved{number}", _kept_axis(reduce_op), result.type, reduce_op.location)
                saved.setdefault(result, argument)
        return saved

    def reduction_of(self, result: ir.Value) -> Any:
        """Give the op that makes a tensor: a reduction, which must have a derivative, or a table of pairs."""
        if name_of(result.owner) == "reduction.tabulate":
            return result.owner.operation
        if name_of(result.owner) != "reduction.reduce":
            raise self.refusal("a result of the function is no reduction, so it has no derivative here")
        reduce_op = result.owner.operation
        kind = attribute(reduce_op, "kind")
        if kind not in REDUCTION_DERIVATIVES:
            message = f"'reduction.reduce' of kind \"{kind}\" has no derivative"
            raise UnsupportedError(at_source_line(message, reduce_op.location))
        if kind != "sum" and _is_one_row(result):
            message = f'\'reduction.reduce\' of kind "{kind}" to one row has no derivative, only that of kind "sum" has'
            raise UnsupportedError(at_source_line(message, reduce_op.location))
        return reduce_op

    def finish(self, derivative: "list[ir.Value]") -> None:
        """Make this the results of the function, or what follows them, and remove what is not needed."""
        results = [*self.terminator.operands, *derivative] if self.with_results else derivative
        func.ReturnOp(results)
        self.terminator.erase()
        own = self.function.attributes
        types = [argument.type for argument in self.block.arguments]
        own["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, [value.type for value in results]))
        own["arg_attrs"] = ir.ArrayAttr.get([*self._old_attributes, *self._new_attributes])
        if "res_attrs" in own:
            del own["res_attrs"]
        _erase_dead(self.block)


def _is_one_row(tensor: ir.Value) -> bool:
    return not ir.RankedTensorType(tensor.type).is_dynamic_dim(0)


def _kept_axis(reduce_op: Any) -> str:
    """Name the axis of the rows of a result: "" where there is one row in all, that of a table for pairs."""
    if name_of(reduce_op) == "reduction.tabulate":
        return str(attribute(reduce_op, "axis"))
    return "" if _is_one_row(reduce_op.results[0]) else _OTHER_AXIS[attribute(reduce_op, "axis")]


def _application(operation: Any, name: str, active: "set[ir.Value]") -> Application:
    attributes = {key: attribute(operation, key) for key in FORMULA_OPS[name].attributes}
    operands = tuple(map(_term, operation.operands))
    varies = tuple(operand in active for operand in operation.operands)
    return Application(name, operands, _term(operation.results[0]), attributes, varies=varies)


@contextmanager
def _refusals_at(operation: Any) -> Iterator[None]:
    """Let what a row of the table refuses end at the line of its op."""
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(at_source_line(str(error), operation.location)) from None


def _reduction_application(operation: Any, saved: "dict[ir.Value, ir.Value]") -> ReductionApplication:
    kind, axis, kept = attribute(operation, "kind"), attribute(operation, "axis"), _kept_axis(operation)
    summation = summation_of(operation)

    def reduce(other_kind: str, formula: Term) -> Term:
        return _term(emit_var(emit_reduce(formula.value, kind=other_kind, axis=axis, summation=summation), kept))

    tensor = operation.results[0]
    result = _term(emit_var(saved.get(tensor, tensor), kept))
    return ReductionApplication(kind, tuple(map(_term, operation.operands)), result, {}, reduce)


class _ReverseSweep:
    """From the cotangents of the results to those of the arguments."""

    def __init__(self, function: _Function) -> None:
        self.function = function
        self.axes = self._one_axis_each()
        #: Of lazy values the sum so far; of tensors the tensors whose sum it is, each with the axis of its rows.
        self.of_lazy: dict[ir.Value, Adjoint] = {}
        self.of_tensor: dict[ir.Value, list[tuple[ir.Value, str]]] = {}
        self.of_argument: dict[int, Term] = {}
        self.saved = function.add_saved_results()

    def run(self) -> None:
        function = self.function
        for number, result in enumerate(function.terminator.operands):
            reduce_op = function.reduction_of(result)
            axis = _kept_axis(reduce_op)
            argument = function.add_argument(f"cotangent{number}", axis, result.type, reduce_op.location)
            self.of_tensor.setdefault(result, []).append((argument, axis))
        with ir.InsertionPoint(function.terminator):
            for operation in reversed(function.forward):
                if any(result in function.active for result in operation.results):
                    with operation.location:
                        self._pull_back(operation)
            with function.terminator.location:
                function.finish([self._gradient(number) for number in function.numbers])

    def _one_axis_each(self) -> dict[int, str]:
        axes: dict[int, str] = {}
        for number, found in self.function.argument_axes().items():
            for axis, location in found:
                if axes.setdefault(number, axis) != axis and number in self.function.numbers:
                    raise UnsupportedError(
                        at_source_line(
                            f'argument {number} is viewed on axis "{axis}" and on axis "{axes[number]}": '
                            "the gradient of an argument on two axes is not supported",
                            location,
                        )
                    )
        return axes

    def _pull_back(self, operation: Any) -> None:
        name = name_of(operation).removeprefix("reduction.")
        if name in FORMULA_OPS:
            adjoint = self.of_lazy.pop(operation.results[0], None)
            if adjoint is not None:
                op = _application(operation, name, self.function.active)
                with _refusals_at(operation):
                    found = pull_back(op, adjoint)
                self._add(op.operands, found)
        elif name == "var":
            self._pull_back_view(operation)
        elif name == "reduce":
            self._pull_back_reduction(operation)
        elif name == "tabulate":
            self._pull_back_table(operation)

    def _add(self, operands: "tuple[Term, ...]", found: "Sequence[Adjoint | None]") -> None:
        for operand, adjoint in zip(operands, found, strict=True):
            if adjoint is not None and operand.value in self.function.active:
                so_far = self.of_lazy.get(operand.value)
                self.of_lazy[operand.value] = adjoint if so_far is None else so_far + adjoint

    def _pull_back_view(self, operation: Any) -> None:
        adjoint = self.of_lazy.pop(operation.results[0], None)
        if adjoint is None:
            return
        ct = adjoint.cleaned()
        tensor, axis = operation.operands[0], attribute(operation, "axis")
        if isinstance(tensor.owner, ir.Block):
            number = ir.BlockArgument(tensor).arg_number
            so_far = self.of_argument.get(number)
            self.of_argument[number] = ct if so_far is None else so_far + ct
        else:
            total = _sum_over_pairs(ct, axis, self.function.summation)
            self.of_tensor.setdefault(tensor, []).append((total, axis))

    def _pull_back_reduction(self, operation: Any) -> None:
        tensor = operation.results[0]
        parts = self.of_tensor.pop(tensor, None)
        if parts is None:
            return
        self.function.reduction_of(tensor)
        if _is_one_row(tensor):
            self.of_tensor.setdefault(_summed_rows(operation), []).extend(parts)
            return
        first, *others = (_term(emit_var(part, axis)) for part, axis in parts)
        for other in others:
            first = first + other
        op = _reduction_application(operation, self.saved)
        found = reduction_cotangents(op, first)
        self._add(op.operands, [None if ct is None else Adjoint(ct) for ct in found])

    def _pull_back_table(self, operation: Any) -> None:
        """Every pair has a row of the table of its own, so its cotangent is that row."""
        for part, _ in self.of_tensor.pop(operation.results[0], ()):
            row = _term(emit_var(part, attribute(operation, "axis")))
            self._add((_term(operation.operands[0]),), (Adjoint(row),))

    def _gradient(self, number: int) -> ir.Value:
        tensor = self.function.block.arguments[number]
        if number not in self.axes:
            raise self.function.refusal(
                f"argument {number} is not used and has no attribute `reduction.axis`: its gradient has no known rows"
            )
        ct = self.of_argument.get(number)
        total = _zeros(tensor) if ct is None else ct
        return _sum_over_pairs(total, self.axes[number], self.function.summation)


def _summed_rows(reduce_op: Any) -> ir.Value:
    """Give the tensor whose rows a reduction to one row adds up: of another formula it sees rows, and no pairs."""
    view, axis = reduce_op.operands[0].owner, attribute(reduce_op, "axis")
    if name_of(view) == "reduction.var" and attribute(view.operation, "axis") == axis:
        tensor = view.operation.operands[0]
        if name_of(tensor.owner) == "reduction.reduce":
            return tensor
    message = "'reduction.reduce' to one row has no derivative unless it adds up the rows of another reduction"
    raise UnsupportedError(at_source_line(message, reduce_op.location))


class _ForwardSweep:
    """From the tangents of arguments to those of the results."""

    def __init__(self, function: _Function) -> None:
        self.function = function
        self.of_lazy: dict[ir.Value, Term] = {}
        self.of_tensor: dict[ir.Value, ir.Value] = {}
        self.saved = function.add_saved_results()

    def run(self) -> None:
        function = self.function
        axes = function.argument_axes()
        for number in function.numbers:
            tensor = function.block.arguments[number]
            axis = axes[number][0][0] if number in axes else None
            argument = function.add_argument(f"tangent{number}", axis, tensor.type, function.function.location)
            self.of_tensor[tensor] = argument
        with ir.InsertionPoint(function.terminator):
            for operation in function.forward:
                if any(result in function.active for result in operation.results):
                    with operation.location:
                        self._push_forward(operation)
            with function.terminator.location:
                function.finish([self._tangent(result) for result in function.terminator.operands])

    def _push_forward(self, operation: Any) -> None:
        name = name_of(operation).removeprefix("reduction.")
        result = operation.results[0]
        if name == "var":
            if operation.operands[0] in self.of_tensor:
                self.of_lazy[result] = _term(
                    emit_var(self.of_tensor[operation.operands[0]], attribute(operation, "axis"))
                )
            return
        tangents = tuple(self.of_lazy.get(operand) for operand in operation.operands)
        if all(t is None for t in tangents):
            return
        if name in FORMULA_OPS:
            with _refusals_at(operation):
                found = tangent(_application(operation, name, self.function.active), tangents)
            if found is not None:
                self.of_lazy[result] = found
        elif name == "reduce":
            self.function.reduction_of(result)
            found = reduction_tangent(_reduction_application(operation, self.saved), tangents)
            if found is not None:
                self.of_tensor[result] = _result_like(operation, found)
        elif name == "tabulate" and tangents[0] is not None:
            self.of_tensor[result] = _result_like(operation, tangents[0])

    def _tangent(self, result: ir.Value) -> ir.Value:
        found = self.of_tensor.get(result)
        return _result_like(result.owner.operation, _zeros(result)) if found is None else found


_NUMBERS = "an array of argument numbers, or of arrays of them"
_EXPECTED = {_WRT: _NUMBERS, _TANGENTS: _NUMBERS, _DERIVATIVES: "an array of dictionaries such as {wrt = [0]}"}
_SWEEPS: Mapping[str, type[_ReverseSweep] | type[_ForwardSweep]] = {_WRT: _ReverseSweep, _TANGENTS: _ForwardSweep}


def _zeros(tensor: ir.Value) -> Term:
    tensor_type = ir.RankedTensorType(tensor.type)
    return fit(_term(emit_constant(0.0, tensor_type.element_type)), tensor_type.shape[1])


def _result_like(reduce_op: Any, formula: Term) -> ir.Value:
    """Sum a formula over the axis of a reduction, into as many rows; or tabulate it as a table of pairs is."""
    if name_of(reduce_op) == "reduction.tabulate":
        return emit_tabulate(formula.value, attribute(reduce_op, "axis"))
    emit = emit_reduce_to_one_row if _is_one_row(reduce_op.results[0]) else emit_reduce
    return emit(formula.value, kind="sum", axis=attribute(reduce_op, "axis"), summation=summation_of(reduce_op))


def _sum_over_pairs(ct: Term, axis: str, summation: Mapping[str, ir.Attribute]) -> ir.Value:
    """Sum a cotangent over the pairs that read one row of a tensor; all pairs read a tensor with axis ""."""
    if len(axis) == 2:
        return emit_tabulate(ct.value, axis)
    if axis:
        return emit_reduce(ct.value, kind="sum", axis=_OTHER_AXIS[axis], summation=summation)
    rows = emit_var(emit_reduce(ct.value, kind="sum", axis="j", summation=summation), "i")
    return emit_reduce_to_one_row(rows, kind="sum", axis="i", summation=summation)


def _erase_dead(block: Any) -> None:
    for operation in reversed([op.operation for op in block.operations]):
        unused = not any(list(result.uses) for result in operation.results)
        if operation.name.startswith("reduction.") and unused:
            operation.erase()
