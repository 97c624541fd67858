"""Count what the inner loops of our kernels cost, in NVIDIA's machine code, and keep the counts in a budget.

A count is of issue slots for one pair of a row and a column, on the path that a warp usually takes; branches to rare
work are not followed. `PYTHONPATH=.:tests python tests/gpu/sass_budget.py` writes `issue_slots.json` anew; review the
difference before you commit it.
"""

import heapq
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pylazy.gpu_check.bound
from gpu_formulas import FORMULAS, Variables, gaussian, traced, traced_gradient
from pylazy.compiler.codegen.ptx import assemble, find_ptxas
from pylazy.compiler.compile import ptx_as_text

BUDGET_FILE = pylazy.gpu_check.bound.SLOTS_FILE
#: What a count may grow by before a test fails.
GROWTH = 1.03
#: Pipe -> its instructions; the rest are integers, comparisons, moves and branches.
_PIPES: Mapping[str, str] = {
    "mufu": r"MUFU|I2F|F2I|F2F|FRND|POPC|FLO",
    "fp64": r"DADD|DMUL|DFMA|DSETP|DMNMX",
    "fma": r"FFMA|FMUL|FADD",
    "lds": r"LDS",
    "local": r"LDL|STL",
    "other": r"",
}


class Case(NamedTuple):
    """A formula whose main loop has a budget.

    Attributes:
        formula: of `gpu_formulas`.
        dtype: of the computation.
        wrt: position of the input, for a gradient.
        inner_trips: turns of the loop over the inner dimension, if there is one.
        sweeps: how often the columns are gone through.
        bar: the most issue slots that were asked for; None where none were.
    """

    formula: Any
    dtype: Any = np.float32
    wrt: "int | None" = None
    inner_trips: int = 1
    sweeps: int = 1
    bar: "float | None" = None


def _nearest(v: Variables) -> Any:
    return v.x(3).sqdist(v.y(3)).argKmin(10, axis=1, call=False)


CASES: Mapping[str, Case] = {
    "gaussian_d3_e1": Case(gaussian(3, 1), bar=8.5),
    "gaussian_d3_e1_f64": Case(gaussian(3, 1), np.float64, bar=36),
    "gaussian_d3_e1_gradient_x": Case(gaussian(3, 1), wrt=0, bar=12.7),
    "gaussian_d64_e1": Case(gaussian(64, 1), inner_trips=4, bar=140),
    "gaussian_d3_e64": Case(gaussian(3, 64), bar=80),
    "laplacian": Case(FORMULAS["laplacian"]),
    "logsumexp": Case(FORMULAS["logsumexp"], bar=10.5),
    "logsumexp_f64": Case(FORMULAS["logsumexp"], np.float64),
    "min": Case(FORMULAS["min"]),
    "argmin": Case(FORMULAS["argmin"], bar=8),
    "argkmin_10": Case(_nearest, bar=8),
}


class Instruction(NamedTuple):
    """One instruction of machine code."""

    guard: str
    opcode: str
    operands: str


class Function(NamedTuple):
    """The machine code of a kernel, and where its labels stand."""

    instructions: list[Instruction]
    labels: dict[str, int]


def find_nvdisasm() -> "Path | None":
    """Find NVIDIA's disassembler: in the wheel nvidia-cuda-nvdisasm, otherwise on the search path."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        for path in sorted(Path(folder).glob("*/bin/nvdisasm*")):
            if os.access(path, os.X_OK):
                return path
    on_path = shutil.which("nvdisasm")
    return Path(on_path) if on_path else None


def disassemble(cubin: bytes, nvdisasm: Path) -> dict[str, Function]:
    """Read the machine code of each kernel of a cubin."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(cubin)
        command = [str(nvdisasm), "-c", "-novliw", str(path)]
        return parse_listing(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse_listing(listing: str) -> dict[str, Function]:
    """Read what nvdisasm writes."""
    functions: dict[str, Function] = {}
    current = Function([], {})
    for line in listing.splitlines():
        if section := re.match(r"\.text\.(\S+):", line):
            current = functions[section[1]] = Function([], {})
        elif label := re.match(r"(\.L\S+):", line):
            current.labels[label[1]] = len(current.instructions)
        elif code := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+)?\s*([A-Z][A-Z0-9_.]*)\s*(.*?);", line):
            current.instructions.append(Instruction(code[1] or "", code[2], code[3]))
    return functions


def _branch_target(function: Function, place: int) -> "int | None":
    instruction = function.instructions[place]
    target = re.search(r"`?\((\.L\S+?)\)", instruction.operands)
    return function.labels.get(target[1]) if instruction.opcode.startswith("BRA") and target else None


def loops(function: Function) -> list[tuple[int, int]]:
    """Give the first and the last instruction of each loop."""
    found = []
    for place in range(len(function.instructions)):
        target = _branch_target(function, place)
        if target is not None and target < place:
            found.append((target, place))
    return found


def _successors(function: Function, place: int) -> Iterator[int]:
    instruction, target = function.instructions[place], _branch_target(function, place)
    if target is not None:
        yield target
    leaves = instruction.opcode.startswith(("BRA", "EXIT"))
    conditional = instruction.guard or re.match(r"!?U?P\w+,", instruction.operands)
    if (not leaves or conditional) and place + 1 < len(function.instructions):
        yield place + 1


def shortest_turn(function: Function, loop: tuple[int, int]) -> list[int]:
    """Give the places of the instructions of the shortest turn of a loop: the one without rare work."""
    first, last = loop
    before: dict[int, int] = {}
    length = {first: 1}
    queue = [(1, first)]
    while queue:
        cost, place = heapq.heappop(queue)
        if place == last:
            break
        for following in _successors(function, place):
            if cost + 1 < length.get(following, 1 << 30):
                length[following] = cost + 1
                before[following] = place
                heapq.heappush(queue, (cost + 1, following))
    turn = [last]
    while turn[-1] != first:
        turn.append(before[turn[-1]])
    return turn[::-1]


def count(name: str, arch: str, tools: tuple[Path, Path]) -> dict[str, float]:
    """Count the main loop of a case.

    Returns:
        Instructions for one pair by pipe, their sum "issue", and registers and spilled bytes of the kernel.
    """
    case = CASES[name]
    reduction = case.formula(Variables(7, 50, case.dtype))
    formula = traced(reduction) if case.wrt is None else traced_gradient(reduction, wrt=(case.wrt,))
    texts = ptx_as_text(formula, arch)
    cubin, resources = assemble(texts["ptx"], arch=arch, ptxas=tools[0])
    (kernel,) = [kernel for kernel in resources if not kernel.endswith("_merge")]
    function = disassemble(cubin, tools[1])[kernel]
    ((columns, rows),) = re.findall(r"column_step = (\d+).*rows_per_thread = (\d+)", texts["kernel"])
    pairs = int(columns) * int(rows)
    counted = _main_turn(function, case)
    by_pipe = dict.fromkeys(_PIPES, 0.0)
    for place, times in counted.items():
        opcode = function.instructions[place].opcode
        by_pipe[next(pipe for pipe, pattern in _PIPES.items() if re.match(pattern, opcode))] += times
    found = resources[kernel]
    per_pair = {pipe: round(case.sweeps * number / pairs, 3) for pipe, number in by_pipe.items() if number}
    return {
        "issue": round(case.sweeps * sum(by_pipe.values()) / pairs, 3),
        **per_pair,
        "registers": found.registers,
        "spilled": found.spilled_bytes + found.stack_bytes,
    }


def _main_turn(function: Function, case: Case) -> dict[int, int]:
    """Give the places of one turn of the loop over blocks of columns, and how often each is passed."""
    spans = loops(function)
    if case.inner_trips == 1:
        # Loops over rare work lie in that over columns; barriers are in that over tiles.
        over_columns = [loop for loop in spans if not _has_barrier(function, loop)]
        return dict.fromkeys(max((shortest_turn(function, loop) for loop in over_columns), key=len), 1)
    innermost = [a for a in spans if not any(b != a and b[0] >= a[0] and b[1] <= a[1] for b in spans)]
    turns = {loop: shortest_turn(function, loop) for loop in innermost}
    longest = max(innermost, key=lambda loop: len(turns[loop]))
    around = min((a for a in spans if a[0] < longest[0] and longest[1] < a[1]), key=lambda a: a[1] - a[0])
    inside = set(turns[longest])
    return {place: case.inner_trips if place in inside else 1 for place in shortest_turn(function, around)}


def _has_barrier(function: Function, loop: tuple[int, int]) -> bool:
    return any(instruction.opcode.startswith("BAR") for instruction in function.instructions[loop[0] : loop[1] + 1])


def tools() -> "tuple[Path, Path] | None":
    """Find the assembler and the disassembler."""
    ptxas, nvdisasm = find_ptxas(), find_nvdisasm()
    return None if ptxas is None or nvdisasm is None else (ptxas, nvdisasm)


def main() -> None:
    """Write the budgets as they are now."""
    found = tools()
    assert found is not None, "install nvidia-cuda-nvcc and nvidia-cuda-nvdisasm"
    budgets = {name: {arch: count(name, arch, found) for arch in ARCHITECTURES} for name in CASES}
    BUDGET_FILE.write_text(json.dumps(budgets, indent=1) + "\n", encoding="utf-8")


ARCHITECTURES = ("sm_90",)

if __name__ == "__main__":
    main()
