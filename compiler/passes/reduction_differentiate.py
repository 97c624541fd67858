"""Turn a function into its vector-Jacobian product."""

from collections.abc import Mapping, Sequence
from typing import Any

from pylazy.compiler.derivatives import (
    READS_RESULT,
    REDUCTION_VJP,
    Application,
    Cotangents,
    ReductionApplication,
    Static,
    Term,
    cotangents,
    reduction_cotangents,
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
from pylazy.compiler.mlir import func, ir
from pylazy.compiler.target import Target
from pylazy.runtime.errors import CompileError, UnsupportedError

_WRT = "reduction.wrt"
_OTHER_AXIS = {"i": "j", "j": "i"}


def reduction_differentiate(module: ir.Module, *, target: Target) -> None:
    """Replace each function that carries `reduction.wrt` by its vector-Jacobian product, in reverse mode.

    `@f(arguments) -> results` becomes `@f(arguments, saved, cotangents) -> gradients`: `saved` are the results that
    the derivative reads (those of logsumexp and softmax), `cotangents` one tensor for each result, `gradients` one
    tensor for each argument that `reduction.wrt` numbers, in its order. The gradient has the rows of its argument; one
    row, summed over all pairs, for an argument with axis "". New arguments carry `reduction.name` ("saved0",
    "cotangent0"; the number is that of the result) and `reduction.axis`.

    Runs on formulas, where a derivative is a row of `derivatives.VJP` and cse shares it with the forward values; after
    the first reduction-simplify, because distances have short derivatives. What only the forward results needed is
    removed. An argument that no op views needs the attribute `reduction.axis` to have a gradient (of zeros).

    Raises:
        UnsupportedError: a reduction without a derivative, or one of which a gradient is asked along two axes.
        CompileError: `reduction.wrt` does not name arguments of the function.
    """
    del target  # derivatives are the same on all machines
    for function in list(module.body.operations):
        if name_of(function) == "func.func" and _WRT in function.operation.attributes:
            _Differentiation(function.operation).run()


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


class _Differentiation:
    """One function on its way to its vector-Jacobian product."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.block = function.regions[0].blocks[0]
        *self.forward, self.terminator = [op.operation for op in self.block.operations]
        self.wrt = self._read_wrt()
        self.axes = self._argument_axes()
        self.active = self._values_that_vary()
        #: Cotangents: of lazy values the sum so far, of tensors the tensors whose sum it is.
        self.of_lazy: dict[ir.Value, Term] = {}
        self.of_tensor: dict[ir.Value, list[ir.Value]] = {}
        self.of_argument: dict[int, Term] = {}
        self.saved: dict[ir.Value, ir.Value] = {}
        self.names: list[tuple[str, str]] = []

    def run(self) -> None:
        self._add_arguments()
        with ir.InsertionPoint(self.terminator):
            for operation in reversed(self.forward):
                with operation.location:
                    self._pull_back(operation)
            with self.terminator.location:
                gradients = [self._gradient(number) for number in self.wrt]
                func.ReturnOp(gradients)
        self.terminator.erase()
        self._update_signature(gradients)
        _erase_dead(self.block)

    # What is asked

    def _read_wrt(self) -> tuple[int, ...]:
        found = attribute(self.function, _WRT)
        arguments = self.block.arguments
        try:
            wrt = tuple(int(number) for number in found)
        except (TypeError, ValueError):
            raise self._refusal(f"`{_WRT}` is {found}, expected an array of argument numbers") from None
        for number in wrt:
            if not 0 <= number < len(arguments):
                raise self._refusal(f"`{_WRT}` asks for argument {number}, but the function has {len(arguments)}")
        return wrt

    def _refusal(self, message: str) -> CompileError:
        return CompileError(at_source_line(message, self.function.location))

    def _argument_axes(self) -> dict[int, str]:
        axes: dict[int, str] = {}
        attributes = self._argument_attributes()
        for number, found in enumerate(attributes):
            if "reduction.axis" in found:
                axes[number] = found["reduction.axis"].value
        for operation in self.forward:
            tensor = operation.operands[0] if name_of(operation) == "reduction.var" else None
            if tensor is not None and isinstance(tensor.owner, ir.Block):
                number, axis = ir.BlockArgument(tensor).arg_number, attribute(operation, "axis")
                if axes.setdefault(number, axis) != axis and number in self.wrt:
                    raise UnsupportedError(
                        at_source_line(
                            f'argument {number} is viewed on axis "{axis}" and on axis "{axes[number]}": '
                            "the gradient of an argument on two axes is not supported",
                            operation.location,
                        )
                    )
        return axes

    def _argument_attributes(self) -> "list[Any]":
        if "arg_attrs" in self.function.attributes:
            return [ir.DictAttr(found) for found in ir.ArrayAttr(self.function.attributes["arg_attrs"])]
        return [ir.DictAttr.get({})] * len(self.block.arguments)

    def _values_that_vary(self) -> "set[ir.Value]":
        """Give the values that depend on an argument whose gradient is wanted."""
        varying = {self.block.arguments[number] for number in self.wrt}
        for operation in self.forward:
            if any(operand in varying for operand in operation.operands):
                varying.update(operation.results)
        return varying

    # New arguments

    def _add_arguments(self) -> None:
        results = list(self.terminator.operands)
        for number, result in enumerate(results):
            reduce_op = self._reduction_of(result)
            if attribute(reduce_op, "kind") in READS_RESULT:
                saved = self._add_argument(f"saved{number}", result, reduce_op)
                self.saved.setdefault(result, saved)
        for number, result in enumerate(results):
            cotangent = self._add_argument(f"cotangent{number}", result, self._reduction_of(result))
            self.of_tensor.setdefault(result, []).append(cotangent)

    def _reduction_of(self, result: ir.Value) -> Any:
        if name_of(result.owner) == "reduction.tabulate":
            return result.owner.operation
        if name_of(result.owner) != "reduction.reduce":
            raise self._refusal("a result of the function is no reduction, so it has no derivative here")
        reduce_op = result.owner.operation
        if attribute(reduce_op, "kind") not in REDUCTION_VJP:
            raise _no_derivative(reduce_op)
        if not ir.RankedTensorType(result.type).is_dynamic_dim(0):
            raise UnsupportedError(
                at_source_line("'reduction.reduce' to one row has no derivative: it sees no pairs", reduce_op.location)
            )
        return reduce_op

    def _add_argument(self, name: str, result: ir.Value, reduce_op: Any) -> ir.Value:
        axis = attribute(reduce_op, "axis")
        self.names.append((name, _OTHER_AXIS.get(axis, axis)))
        return self.block.add_argument(result.type, reduce_op.location)

    def _update_signature(self, gradients: "list[ir.Value]") -> None:
        attributes = self._argument_attributes()[: len(self.block.arguments) - len(self.names)]
        for name, axis in self.names:
            attributes.append(
                ir.DictAttr.get({"reduction.axis": ir.StringAttr.get(axis), "reduction.name": ir.StringAttr.get(name)})
            )
        own = self.function.attributes
        types = [argument.type for argument in self.block.arguments]
        own["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, [value.type for value in gradients]))
        own["arg_attrs"] = ir.ArrayAttr.get(attributes)
        if "res_attrs" in own:
            del own["res_attrs"]
        del own[_WRT]

    # The reverse sweep

    def _pull_back(self, operation: Any) -> None:
        if not any(result in self.active for result in operation.results):
            return
        name = name_of(operation).removeprefix("reduction.")
        if name in FORMULA_OPS:
            self._pull_back_formula_op(operation, name)
        elif name == "var":
            self._pull_back_view(operation)
        elif name == "reduce":
            self._pull_back_reduction(operation)
        elif name == "tabulate":
            self._pull_back_table(operation)

    def _pull_back_formula_op(self, operation: Any, name: str) -> None:
        ct = self.of_lazy.pop(operation.results[0], None)
        if ct is None:
            return
        attributes = {key: attribute(operation, key) for key in FORMULA_OPS[name].attributes}
        operands = tuple(_term(operand) for operand in operation.operands)
        application = Application(operands, _term(operation.results[0]), attributes)
        try:
            found = cotangents(name, application, ct)
        except UnsupportedError as error:
            raise UnsupportedError(at_source_line(str(error), operation.location)) from None
        self._add(operands, found)

    def _add(self, operands: "tuple[Term, ...]", found: Cotangents) -> None:
        for operand, ct in zip(operands, found, strict=True):
            if ct is not None and operand.value in self.active:
                so_far = self.of_lazy.get(operand.value)
                self.of_lazy[operand.value] = ct if so_far is None else so_far + ct

    def _pull_back_view(self, operation: Any) -> None:
        ct = self.of_lazy.pop(operation.results[0], None)
        if ct is None:
            return
        tensor = operation.operands[0]
        if isinstance(tensor.owner, ir.Block):
            number = ir.BlockArgument(tensor).arg_number
            so_far = self.of_argument.get(number)
            self.of_argument[number] = ct if so_far is None else so_far + ct
        else:
            self.of_tensor.setdefault(tensor, []).append(_sum_over_pairs(ct, attribute(operation, "axis")))

    def _pull_back_reduction(self, operation: Any) -> None:
        tensor = operation.results[0]
        if tensor not in self.of_tensor:
            return
        self._reduction_of(tensor)
        kind, axis = attribute(operation, "kind"), attribute(operation, "axis")
        kept = _OTHER_AXIS[axis]

        def reduce(other_kind: str, formula: Term) -> Term:
            return _term(emit_var(emit_reduce(formula.value, kind=other_kind, axis=axis), kept))

        first, *others = (_term(emit_var(part, kept)) for part in self.of_tensor.pop(tensor))
        for other in others:
            first = first + other
        operands = tuple(_term(operand) for operand in operation.operands)
        result = _term(emit_var(self.saved.get(tensor, tensor), kept))
        application = ReductionApplication(operands, result, {}, reduce)
        self._add(operands, reduction_cotangents(kind, application, first))

    def _pull_back_table(self, operation: Any) -> None:
        """Every pair has a row of the table of its own, so its cotangent is that row."""
        for part in self.of_tensor.pop(operation.results[0], ()):
            self._add((_term(operation.operands[0]),), (_term(emit_var(part, attribute(operation, "axis"))),))

    def _gradient(self, number: int) -> ir.Value:
        tensor = self.block.arguments[number]
        if number not in self.axes:
            raise self._refusal(
                f"argument {number} is not used and has no attribute `reduction.axis`: its gradient has no known rows"
            )
        ct = self.of_argument.get(number)
        if ct is None:
            tensor_type = ir.RankedTensorType(tensor.type)
            zero = emit_constant(0.0, tensor_type.element_type)
            dim = tensor_type.shape[1]
            ct = _term(zero if dim == 1 else emit_formula_op("broadcast", zero, size=dim))
        return _sum_over_pairs(ct, self.axes[number])


def _no_derivative(reduce_op: Any) -> UnsupportedError:
    kind = attribute(reduce_op, "kind")
    return UnsupportedError(
        at_source_line(f"'reduction.reduce' of kind \"{kind}\" has no derivative", reduce_op.location)
    )


def _sum_over_pairs(ct: Term, axis: str) -> ir.Value:
    """Sum a cotangent over the pairs that read one row of a tensor; all pairs read a tensor with axis ""."""
    if len(axis) == 2:
        return emit_tabulate(ct.value, axis)
    if axis:
        return emit_reduce(ct.value, kind="sum", axis=_OTHER_AXIS[axis])
    rows = emit_var(emit_reduce(ct.value, kind="sum", axis="j"), "i")
    return emit_reduce_to_one_row(rows, kind="sum", axis="i")


def _erase_dead(block: Any) -> None:
    for operation in reversed([op.operation for op in block.operations]):
        unused = not any(list(result.uses) for result in operation.results)
        if operation.name.startswith("reduction.") and unused:
            operation.erase()
