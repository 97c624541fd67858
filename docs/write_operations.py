"""Write `operations.md` from the tables of operations, reductions, derivatives and keywords."""

from __future__ import annotations

import itertools
import operator
from pathlib import Path
from typing import TYPE_CHECKING

from pylazy import operations
from pylazy.compiler.derivatives import DERIVATIVES, FLAT, REDUCTION_DERIVATIVES, Derivative
from pylazy.formula_texts.formula_keywords import FORMULA, INTEGER, KEYWORDS, Keyword
from pylazy.lazy_tensor import LazyTensor, Vi
from pylazy.reductions import REDUCTIONS, ReductionKind
from pylazy.runtime.errors import PylazyError

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent / "operations.md"

_HEAD = """\
# Operations and reductions

Written from the program's tables by `python docs/write_operations.py`; a test keeps it current. What holds at singular
points, for NaN and for shapes is in [semantics.md](semantics.md).

Operations take and give values of the dtype of the formula, comparisons 0 and 1 of it. D is the number of components.
A derivative is there as a vector-Jacobian product (`f.grad`) and as a Jacobian-vector product (`f.diff`), both made of
these operations again, so that derivatives of all orders are there.
"""

_COMPONENTS = {
    operations.elementwise_dim: ("D to D", "D or 1 each, to D"),
    operations.inner_dim: ("D to 1", "D or 1 each, to 1"),
    operations.concatenated_dim: ("", "D and E, to D + E"),
    operations.extracted_dim: ("D to size", ""),
    operations.broadcast_dim: ("1 to size", ""),
    operations.contracted_dim: ("", "those of two tensors, to those of the kept axes"),
    operations.soft_dtw_dim: ("", "D, E and 1, to 1"),
    operations.soft_dtw_derivative_dim: ("", "D, E and 1, to D + E + 1"),
}
#: What is not there to any order.
_ORDERS = {"soft_dtw": "two orders", "soft_dtw_gradient": "one order", "soft_dtw_hessian": "in the last operand only"}
_SIGNS = {
    operator.add: "x + y",
    operator.sub: "x - y",
    operator.mul: "x * y",
    operator.truediv: "x / y",
    operator.eq: "x == y",
    operator.ne: "x != y",
    operator.lt: "x < y",
    operator.le: "x <= y",
    operator.gt: "x > y",
    operator.ge: "x >= y",
    "__neg__": "-x",
    "__pow__": "x ** n",
}
_FROM_THE_FRONT = ("first", "second", "third")


def operations_page() -> str:
    """The text of the page."""
    return "\n".join([_HEAD, "## Operations\n", *_operation_rows(), "\n## Reductions\n", *_reduction_rows()]) + "\n"


def _operation_rows() -> Iterator[str]:
    written = _keywords_by_operation()
    yield _row("operation", "meaning", "components", "in array code", "in texts", "derivative")
    yield _row(*["---"] * 6)
    for row in operations.OPERATIONS.values():
        keywords = written.get(row.name, [])
        methods = list(dict.fromkeys(map(_method, keywords)))
        own = row.name.removeprefix("inner_")
        if not methods and hasattr(LazyTensor, own):
            methods = [f"`{own}`"]
        name = f"`{row.name}`" + (f" ({', '.join(row.attributes)})" if row.attributes else "")
        yield _row(
            name,
            row.meaning,
            _COMPONENTS[row.shape][row.arity > 1],
            ", ".join(method for method in methods if method),
            ", ".join(f"`{keyword.name}`" for keyword in keywords),
            _ORDERS.get(row.name) or _derivative(DERIVATIVES[row.name]),
        )


def _derivative(row: Derivative) -> str:
    if row is FLAT:
        return "0"
    partials = row.partials or ()
    without = [_FROM_THE_FRONT[k] for k, partial in enumerate(partials) if partial is None]
    return f"all orders; 0 in the {' and '.join(without)} operand" if without else "all orders"


def _keywords_by_operation() -> dict[str, list[Keyword]]:
    """Find the keywords that stand for one operation each, by calling them on variables."""
    found: dict[str, list[Keyword]] = {}
    for keyword in KEYWORDS.values():
        operation = next(
            filter(None, (_called(keyword, dim, n) for dim, n in itertools.product((1, 4), (3, 1, 0)))), None
        )
        if operation is not None:
            found.setdefault(operation, []).append(keyword)
    return found


def _called(keyword: Keyword, dim: int, number: int) -> str | None:
    """Name the operation that a keyword is for variables of a dimension and an integer, None if it is not just one."""
    builder = keyword.builder()
    kinds = [parameter.kind for parameter in keyword.parameters() if not parameter.optional]
    if keyword.name.endswith("_Reduction") or not set(kinds) <= {FORMULA, INTEGER}:
        return None
    try:
        made = builder(*(Vi(k, dim) if kind == FORMULA else number for k, kind in enumerate(kinds)))
    except (PylazyError, TypeError):
        return None  # it wants other dimensions, or an integer where a formula is
    root = made._expression
    return root.op if root.operands and all(operand.op == "var" for operand in root.operands) else None


def _method(keyword: Keyword) -> str:
    sign = _SIGNS.get(keyword.build)
    if sign is not None:
        return f"`{sign}`"
    return f"`{keyword.build}`" if isinstance(keyword.build, str) else ""


def _reduction_rows() -> Iterator[str]:
    yield _row("reduction", "meaning", "weight", "dtype of the result", "over nothing", "derivative")
    yield _row(*["---"] * 6)
    for row in REDUCTIONS.values():
        dtype = row.dtype or ("int64" if row.is_position else "of the formula")
        empty = "an error" if row.empty is None else str(bool(row.empty) if row.dtype == "bool" else row.empty)
        yield _row(f"`{row.name}`", row.meaning, row.weight, dtype, empty, _reduction_derivative(row))


def _reduction_derivative(row: ReductionKind) -> str:
    if row.name in REDUCTION_DERIVATIVES:
        return "all orders"
    return "none" if row.is_position or row.dtype else "that of the formula where it was selected"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(operations_page(), encoding="utf-8")
