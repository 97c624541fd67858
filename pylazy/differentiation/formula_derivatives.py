"""Derivatives of formulas, as formulas: the compiler's table of derivatives, applied to expressions."""

from __future__ import annotations

from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

from pylazy.canonical_form import Flattened
from pylazy.compiler.adjoints import Adjoint, pull_back
from pylazy.compiler.derivatives import DERIVATIVES, Application, tangent, total
from pylazy.compiler.terms import Term, extract, filled, fit, joined, where
from pylazy.expression import Expression, apply, constant
from pylazy.operations import OPERATIONS
from pylazy.runtime.errors import UnsupportedError
from pylazy.user_positions import at_user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pylazy.compiler.terms import Static


class _Expressions:
    """Terms as expressions."""

    def apply(self, name: str, operands: Sequence[Any], attributes: Mapping[str, Static]) -> Expression:
        return apply(name, tuple(operands), tuple((key, attributes[key]) for key in OPERATIONS[name].attributes))

    def number(self, number: float, like: Expression) -> Expression:
        del like  # a number takes the dtype of what it meets
        return constant(int(number) if number.is_integer() else number)

    def dim(self, value: Expression) -> int:
        return value.dim


_EXPRESSIONS = _Expressions()


def _term(node: Expression) -> Term:
    return Term(node, _EXPRESSIONS)


def grad(formula: Expression, variable: Expression, cotangent: Expression) -> Expression:
    """The cotangent of a variable, of its inner dimension.

    Args:
        formula: of inner dimension D.
        variable: a leaf, which need not occur in the formula.
        cotangent: of the formula: D components, or one for all.
    """
    return _Graph(formula, variable).pull_back(_term(cotangent)).value  # type: ignore[no-any-return]


def diff(formula: Expression, variable: Expression, direction: Expression) -> Expression:
    """The tangent of a formula, of its inner dimension.

    Args:
        formula: any.
        variable: a leaf of inner dimension D, which need not occur in the formula.
        direction: the tangent of the variable: D components, or one for all.
    """
    return _Graph(formula, variable).push_forward(_term(direction)).value  # type: ignore[no-any-return]


def grad_matrix(formula: Expression, variable: Expression) -> Expression:
    """The Jacobian by rows: component k * D + l is the derivative of component k in component l of the variable."""
    graph, dim = _Graph(formula, variable), formula.dim
    return joined([graph.pull_back(_unit(k, dim)) for k in range(dim)]).value  # type: ignore[no-any-return]


def trace(formula: Expression, variable: Expression) -> Expression:
    """The sum of the derivatives of each component in the same component of the variable; of one component in all."""
    return _Graph(formula, variable).trace().value  # type: ignore[no-any-return]


def laplacian(formula: Expression, variable: Expression) -> Expression:
    """The sum of the second derivatives of a formula of one component in each component of the variable."""
    return trace(grad(formula, variable, constant(1)), variable)


def find_nonlinear(formula: Expression, variable: Expression) -> Expression | None:
    """Give a part of a formula that is not linear in a variable, None if all is, by the operations it consists of."""
    return _Graph(formula, variable).find_nonlinear()


def with_variables(formula: Expression, variables: Sequence[Expression]) -> Expression:
    """Let a formula have these variables among its inputs, though its value does not depend on those that it lacks.

    A derivative loses variables, and a reduction of it still wants their sizes, dtypes and arguments. The compiler
    removes what is added here, as the condition is constant.
    """
    present = {_identity(node) for node in Flattened([formula]).representatives if node.op == "var"}
    for leaf in variables:
        if _identity(leaf) not in present:
            formula = where(_term(constant(1)), _term(formula), extract(_term(leaf), 0, 1)).value
    return formula


def arrays_of(formulas: Sequence[Expression]) -> list[Expression]:
    """Give the variables of formulas that stand for arrays, not for numbers, each once."""
    leaves = (node for node in Flattened(formulas).representatives if node.op == "var")
    return [leaf for leaf in leaves if leaf.source.number is None]


def _identity(leaf: Expression) -> tuple[Any, ...]:
    return leaf.source.identity, leaf.axes, leaf.attributes, leaf.dim


def is_same_variable(first: Expression, second: Expression) -> bool:
    """Tell whether two leaves are the same rows of the same data, or the same argument."""
    return _identity(first) == _identity(second)


def _unit(component: int, dim: int) -> Term:
    return _term(constant(component)).apply("one_hot", size=dim)


class _Graph:
    """The distinct values of a formula, each after its operands, and which of them depend on a variable."""

    def __init__(self, formula: Expression, variable: Expression) -> None:
        flat = Flattened([formula])
        self.nodes = flat.representatives
        self.operands = [
            entry[1] if node.operands else () for entry, node in zip(flat.entries, self.nodes, strict=True)
        ]
        self.root = flat.roots[0]
        self.variable = variable
        leaves = (k for k, node in enumerate(self.nodes) if node.op == "var" and is_same_variable(node, variable))
        self.leaf = next(leaves, None)
        self.varies: list[bool] = []
        for number, operands in enumerate(self.operands):
            self.varies.append(number == self.leaf or any(self.varies[operand] for operand in operands))

    def _between(self, leaf: int, root: int) -> Iterator[int]:
        """Give the values on the way from the variable to a value."""
        return (number for number in range(leaf + 1, root + 1) if self.varies[number])

    def _application(self, number: int) -> Application:
        node = self.nodes[number]
        operands = tuple(_term(self.nodes[operand]) for operand in self.operands[number])
        varies = tuple(self.varies[operand] for operand in self.operands[number])
        return Application(node.op, operands, _term(node), dict(node.attributes), varies=varies)

    @contextmanager
    def _refusals_at(self, number: int) -> Iterator[None]:
        """Let what a row of the table refuses end at the line of its operation."""
        try:
            yield
        except UnsupportedError as error:
            raise UnsupportedError(at_user_line(str(error), self.nodes[number].position)) from None

    def pull_back(self, cotangent: Term) -> Term:
        """Give the cotangent of the variable."""
        found = {self.root: Adjoint(fit(cotangent, self.nodes[self.root].dim))}
        if self.leaf is not None:
            for number in reversed(list(self._between(self.leaf, self.root))):
                adjoint = found.pop(number, None)
                if adjoint is not None:
                    with self._refusals_at(number):
                        parts = pull_back(self._application(number), adjoint)
                    for operand, part in zip(self.operands[number], parts, strict=True):
                        if part is not None and self.varies[operand]:
                            found[operand] = found[operand] + part if operand in found else part
        if self.leaf is None or self.leaf not in found:
            return filled(0.0, cotangent, self.variable.dim)
        return found[self.leaf].cleaned()

    def push_forward(self, direction: Term, root: int | None = None) -> Term:
        """Give the tangent of a value, by default that of the formula."""
        root = self.root if root is None else root
        found: dict[int, Term | None] = {}
        if self.leaf is not None:
            found[self.leaf] = fit(direction, self.variable.dim)
            for number in self._between(self.leaf, root):
                tangents = tuple(found.get(operand) for operand in self.operands[number])
                with self._refusals_at(number):
                    found[number] = tangent(self._application(number), tangents)
        result = found.get(root)
        return filled(0.0, direction, self.nodes[root].dim) if result is None else result

    def trace(self) -> Term:
        """Give the trace of the Jacobian, whose one row is repeated for a formula of one component.

        Walks from the formula to the variable with weights w, whose contributions are trace(diag(w) Jacobian). Through
        an op on components they pass as cotangents do. At a value of one component, all rows of the Jacobian are equal,
        and the contribution is the derivative in the direction w. So there is one pass for each such value, not one for
        each component, which is what other functions of vectors take.
        """
        dim = self.variable.dim
        found: Term | None = None
        weights: dict[int, Term | None] = {self.root: _term(constant(1))}
        for number in range(self.root, -1, -1):
            weight = weights.pop(number, None)
            if weight is None or not self.varies[number]:
                continue
            node = self.nodes[number]
            if number == self.leaf:
                found = total(found, weight * dim if weight.dim == 1 else fit(weight, 1))
            elif node.dim == 1:
                found = total(found, self.push_forward(fit(weight, dim), number))
            elif node.op == "broadcast" or DERIVATIVES[node.op].partials is not None:
                for operand, passed in self._passed(number, weight):
                    weights[operand] = total(weights.get(operand), passed)
            else:
                found = reduce(total, self._diagonal(number, weight), found)
        return filled(0.0, _term(self.variable)) if found is None else found

    def _passed(self, number: int, weight: Term) -> Iterator[tuple[int, Term]]:
        """Pass a weight on to the operands of an op on components, or of a broadcast."""
        partials = DERIVATIVES[self.nodes[number].op].partials or (lambda _, t: t,)
        op = self._application(number)
        for operand, partial in zip(self.operands[number], partials, strict=True):
            if partial is not None and self.varies[operand]:
                yield operand, partial(op, weight)

    def _diagonal(self, number: int, weight: Term) -> Iterator[Term]:
        """Give the weighted elements of the diagonal one by one."""
        dim = self.variable.dim
        for k in range(dim):
            element = extract(self.push_forward(_unit(k, dim), number), k, 1)
            yield element * (weight if weight.dim == 1 else extract(weight, k, 1))

    def find_nonlinear(self) -> Expression | None:
        """Give the first value that is not linear in the variable, None if all are."""
        if self.leaf is None:
            return None
        for number in self._between(self.leaf, self.root):
            node = self.nodes[number]
            rule = _LINEAR.get(node.op)
            moving = [self.varies[operand] for operand in self.operands[number]]
            fixed_are_zero = all(
                moves or _is_zero(self.nodes[operand])
                for moves, operand in zip(moving, self.operands[number], strict=True)
            )
            if rule is None or not rule(moving, fixed_are_zero):
                return node
        return None


def _is_zero(node: Expression) -> bool:
    if node.op == "broadcast":
        return _is_zero(node.operands[0])
    return node.op == "constant" and node.source == 0


def _linear_in_one(moving: list[bool], fixed_are_zero: bool) -> bool:
    del fixed_are_zero
    return sum(moving) == 1


_LINEAR: Mapping[str, Callable[[list[bool], bool], bool]] = {
    **dict.fromkeys(
        ("neg", "add", "sub", "inner_sum", "concat", "extract", "broadcast"),
        lambda _, fixed_are_zero: fixed_are_zero,
    ),
    **dict.fromkeys(("mul", "dot", "contract"), _linear_in_one),
    "div": lambda moving, _: moving == [True, False],
}
"""Operations that are linear in the operands that depend on a variable, where the others do not, or are 0."""
