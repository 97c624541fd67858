"""Count the loops of the benchmark's reductions for x86-64-v4; run as a script, write `port_counts.json` anew."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import port_model
from cpu_formulas import Variables, request_of, traced

from pylazy import LazyTensor
from pylazy.compiler.compile import stages_as_text
from pylazy.reductions import gradient_request
from pylazy.trace import Traced, trace

RECORD = Path(__file__).with_name("port_counts.json")
LEVEL = "x86-64-v4"


@dataclass(frozen=True)
class Case:
    """A reduction whose cost is demanded.

    Attributes:
        formula: of the variables to the reduction that is timed.
        limit: cycles of one vector of pairs in the best loop that is known for a Zen 4 core (Gaussian D=3: 3
            differences, 3 multiply-adds, exponential, weight).
        percent: of that limit, what is demanded of ours.
        dtype: of the data.
        gradient: count the gradient in x instead.
        turns: of the loop over the inner dimension, where that is too long to be unrolled.
    """

    formula: Callable[[Variables], Any]
    limit: float
    percent: int
    dtype: Any = np.float32
    gradient: bool = False
    turns: int = 1


def _squared(v: Variables, dim: int) -> LazyTensor:
    return ((v.x(dim) - v.y(dim)) ** 2).sum(-1)


def _gaussian(v: Variables, dim: int = 3) -> Any:
    return ((-_squared(v, dim)).exp() * v.weights(1)).sum(axis=1, call=False)


CASES = {
    "Gaussian D=3 float32": Case(_gaussian, 10.0, 80),
    "Gaussian D=3 float64": Case(_gaussian, 12.0, 75, np.float64),
    "Gaussian D=64 float32": Case(lambda v: _gaussian(v, 64), 71.0, 80, turns=8),
    "logsumexp D=3 float32": Case(lambda v: (-_squared(v, 3)).logsumexp(axis=1, call=False), 9.0, 75),
    "10 nearest D=3 float32": Case(lambda v: _squared(v, 3).argKmin(10, axis=1, call=False), 3.6, 35),
    "10 nearest D=64 float32": Case(lambda v: _squared(v, 64).argKmin(10, axis=1, call=False), 64.6, 75, turns=8),
    "argmin D=16 float32": Case(lambda v: _squared(v, 16).argmin(axis=1, call=False), 18.0, 80),
    "Gaussian, gradient in x, D=3 float32": Case(_gaussian, 11.0, 70, gradient=True),
    "Laplacian D=3 float32": Case(
        lambda v: ((-_squared(v, 3).sqrt()).exp() * v.weights(1)).sum(axis=1, call=False), 13.0, 70
    ),
    "inverse multiquadric D=3 float32": Case(
        lambda v: ((1 + _squared(v, 3)).rsqrt() * v.weights(1)).sum(axis=1, call=False), 8.0, 70
    ),
}
"""The limits are the slots of pylazy/bench/cases.py."""


def trace_case(case: Case) -> Traced:
    """Trace the reduction of a case, or its gradient."""
    reduction = case.formula(Variables(5, 50, case.dtype))
    if case.gradient:
        return trace(gradient_request(request_of(reduction), (0,)))
    return traced(reduction)


def count(case: Case) -> port_model.Ports:
    """Count the slots of one vector of pairs."""
    stages = stages_as_text(trace_case(case), LEVEL)
    slots = port_model.count_column_loop(stages["asm"], inner_turns=case.turns)
    return slots * (1 / _vectors_of_pairs(stages["kernel"]))


def _vectors_of_pairs(kernel: str) -> int:
    """Read how many row vectors times columns one turn of the loop takes."""
    row_vectors, column_step = (
        max(int(value) for value in re.findall(rf"\b{name} = (\d+)", kernel)) for name in ("row_vectors", "column_step")
    )
    return row_vectors * column_step


def count_all() -> dict[str, dict[str, float]]:
    """Count all cases; `percent` is the limit over our bound."""
    counted = {}
    for name, case in CASES.items():
        slots = count(case)
        counted[name] = slots.as_dict() | {"percent": round(100 * case.limit / slots.bound, 1)}
    return counted


def main() -> None:
    """Write the record."""
    RECORD.write_text(json.dumps(count_all(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
