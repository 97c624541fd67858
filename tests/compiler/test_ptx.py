"""PTX of many formulas, checked by NVIDIA's assembler: accepted, in registers, and as short as the schedule meant."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_formulas import (
    DIFFERENTIABLE,
    FEATURES,
    FORMULAS,
    GRADIENT_FEATURES,
    Variables,
    request_of,
    traced,
    traced_gradient,
)
from pylazy.compiler.codegen.ptx import PTX_VERSIONS, assemble, emit_ptx, find_ptxas, parse_resources
from pylazy.compiler.compile import compile_ptx, ptx_as_text
from pylazy.compiler.dialects.reduction.formula_ops import FORMULA_OPS
from pylazy.compiler.target import NvidiaTarget
from pylazy.runtime.errors import CompileError, InternalError, UnsupportedError
from pylazy.runtime.gpu_image import GpuImage

DTYPES = (np.float32, np.float64)
ROWS, COLUMNS = 7, 5
MOST_REGISTERS = 128


@pytest.fixture(scope="module")
def ptxas() -> Path:
    found = find_ptxas()
    if found is None:
        pytest.skip("ptxas is not installed: it is in the wheel nvidia-cuda-nvcc")
    return found


def check_kernels(module: GpuImage, ptxas: Path) -> None:
    """Assemble a module: nothing may be kept in local memory, which is where spilled and indexed registers go."""
    _, resources = assemble(module.text, arch=module.target, ptxas=ptxas)
    assert set(resources) == {kernel.name for kernel in module.kernels}
    for kernel in module.kernels:
        found = resources[kernel.name]
        assert (found.spilled_bytes, found.stack_bytes) == (0, 0)
        assert found.registers <= MOST_REGISTERS
        assert found.shared_bytes == kernel.workgroup_bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_kernels_stay_in_registers(name: str, dtype: Any, ptxas: Path) -> None:
    check_kernels(compile_ptx(traced(FORMULAS[name](Variables(ROWS, COLUMNS, dtype))), "sm_90"), ptxas)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_kernels_of_gradients_stay_in_registers(name: str, dtype: Any, ptxas: Path) -> None:
    reduction = FORMULAS[name](Variables(ROWS, COLUMNS, dtype))
    wrt = tuple(range(len(request_of(reduction).inputs)))
    check_kernels(compile_ptx(traced_gradient(reduction, wrt=wrt), "sm_90"), ptxas)


@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
@pytest.mark.parametrize("name", FEATURES)
def test_kernels_of_every_feature_stay_in_registers(name: str, arch: str, ptxas: Path) -> None:
    reduction = FEATURES[name](Variables(30, 40, np.float32))
    wrt = tuple(range(len(request_of(reduction).inputs)))
    check_kernels(compile_ptx(traced(reduction), arch), ptxas)
    if name in GRADIENT_FEATURES:
        check_kernels(compile_ptx(traced_gradient(reduction, wrt=wrt), arch), ptxas)


@pytest.mark.parametrize("arch", PTX_VERSIONS)
def test_every_architecture_is_accepted(arch: str, ptxas: Path) -> None:
    for name in ("gaussian_d3_e1", "logsumexp_weighted"):
        check_kernels(compile_ptx(traced(FORMULAS[name](Variables(ROWS, COLUMNS, np.float32))), arch), ptxas)


def test_corpus_is_accepted_for_every_architecture(ptxas: Path) -> None:
    """PTX of the lowest architecture is PTX of all: one compilation a formula, one assembly an architecture."""
    texts = [
        compile_ptx(traced(formula(Variables(ROWS, COLUMNS, dtype))), "sm_75").text
        for formula in FORMULAS.values()
        for dtype in DTYPES
    ]
    jobs = [(text, arch) for text in texts for arch in PTX_VERSIONS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        binaries = list(pool.map(lambda job: assemble(job[0], arch=job[1], ptxas=ptxas)[0], jobs))
    assert all(binary.startswith(b"\x7fELF") for binary in binaries)
    assert len(binaries) == len(FORMULAS) * len(DTYPES) * len(PTX_VERSIONS)


# Every operation

_BINARY = {"concat", "dot", "sqdist", "add", "sub", "mul", "div", "pow", "atan2", "minimum", "maximum"} | {
    "hypot",
    "mod0",
}
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or"}
_TERNARY = {"where", "ifelse", "clamp"}
_SPECIAL = {
    "powi": "{exponent = 5 : i64}",
    "extract": "{start = 1 : i64, size = 2 : i64}",
    "broadcast": "{size = 3 : i64}",
    "one_hot": "{size = 3 : i64}",
    "contract": "{sizes = [3, 3], left = [0], right = [1], kept = [1, 0]}",
}
_ON_CPU_ONLY = {"soft_dtw", "soft_dtw_gradient", "soft_dtw_hessian"}
_UNARY = set(FORMULA_OPS) - _BINARY - _COMPARISONS - _TERNARY - set(_SPECIAL) - _ON_CPU_ONLY
_GROUP = 6


def _groups() -> list[tuple[str, ...]]:
    names = [*sorted(_UNARY), *sorted(_BINARY), *sorted(_COMPARISONS | _TERNARY), *sorted(_SPECIAL)]
    return [tuple(names[k : k + _GROUP]) for k in range(0, len(names), _GROUP)]


def module_text(names: tuple[str, ...], element: str) -> str:
    """Write a level-1 module with one reduction that uses each of some operations on the pair's difference."""
    lazy = f'!reduction.lazy<"ij", vector<{{}}x{element}>>'
    three, one, tensor = lazy.format(3), lazy.format(1), f"tensor<?x3x{element}>"
    row = f'!reduction.lazy<"{{}}", vector<3x{element}>>'
    lines = [
        f'%x = "reduction.var"(%0) {{axis = "i"}} : ({tensor}) -> {row.format("i")}',
        f'%y = "reduction.var"(%1) {{axis = "j"}} : ({tensor}) -> {row.format("j")}',
        f'%d = "reduction.sub"(%x, %y) : ({row.format("i")}, {row.format("j")}) -> {three}',
        f'%s0 = "reduction.inner_sum"(%d) : ({three}) -> {one}',
    ]
    for k, name in enumerate(names):
        arity, rule = FORMULA_OPS[name].arity, FORMULA_OPS[name].result
        attributes = _SPECIAL.get(name, "")
        dim = {"concat": 6, "extract": 2, "scalar": 1, "pair": 1, "contract": 9}.get(rule, 3)
        operand, operand_type = ("%s0", one) if rule == "broadcast" else ("%d", three)
        operands, types = ", ".join([operand] * arity), ", ".join([operand_type] * arity)
        lines.append(f'%v{k} = "reduction.{name}"({operands}) {attributes} : ({types}) -> {lazy.format(dim)}')
        lines.append(f'%t{k} = "reduction.inner_sum"(%v{k}) : ({lazy.format(dim)}) -> {one}')
        lines.append(f'%s{k + 1} = "reduction.add"(%s{k}, %t{k}) : ({one}, {one}) -> {one}')
    result = f"tensor<?x1x{element}>"
    lines.append(f'%r = "reduction.reduce"(%s{len(names)}) {{axis = "j", kind = "sum"}} : ({one}) -> {result}')
    body = "\n  ".join(lines)
    return f"func.func @formula(%0: {tensor}, %1: {tensor}) -> {result} {{\n  {body}\n  return %r : {result}\n}}"


class _Text:
    """A module given as text, where a traced formula is expected."""

    def __init__(self, text: str) -> None:
        from pylazy.compiler.compile import compilation
        from pylazy.compiler.mlir import ir

        with compilation():
            self.module = ir.Module.parse(text)


@pytest.mark.parametrize("element", ["f32", "f64"])
@pytest.mark.parametrize("names", _groups(), ids="-".join)
def test_every_operation_has_instructions(names: tuple[str, ...], element: str, ptxas: Path) -> None:
    """On the oldest architecture, which has the fewest."""
    module = compile_ptx(_Text(module_text(names, element)), "sm_75")
    _, resources = assemble(module.text, arch="sm_75", ptxas=ptxas)
    assert all(found.spilled_bytes == 0 and found.stack_bytes == 0 for found in resources.values())


# The inner loop


def innermost_loops(ptx: str) -> list[list[str]]:
    """Give the instructions of each loop that holds no other."""
    lines = [line.strip() for line in ptx.splitlines()]
    labels = {line[:-1]: k for k, line in enumerate(lines) if re.fullmatch(r"\$L\w+:", line)}
    spans = []
    for end, line in enumerate(lines):
        target = re.search(r"\bbra\S*\s+(\$L\w+);", line)
        if target and labels[target.group(1)] < end:
            spans.append((labels[target.group(1)], end))
    inner = [a for a in spans if not any(b != a and b[0] >= a[0] and b[1] <= a[1] for b in spans)]
    instruction = re.compile(r"(@!?%p\d+ )?[a-z][a-z0-9_.]+\s")
    return [[line for line in lines[start : end + 1] if instruction.match(line)] for start, end in inner]


def per_pair(name: str, *, counted: str = "ex2.approx") -> tuple[float, int]:
    """Give the instructions of the main loop for one pair, and the pairs of one turn."""
    ptx = compile_ptx(traced(FORMULAS[name](Variables(ROWS, COLUMNS, np.float32))), "sm_90").text
    main = max(innermost_loops(ptx), key=len)
    pairs = sum(counted in line for line in main)
    return len(main) / pairs, pairs


def test_gaussian_takes_ten_instructions_for_a_pair() -> None:
    """Three differences, three products, the scaling of the exponent, the exponential, the sum; the rest is shared."""
    instructions, pairs = per_pair("gaussian_d3_e1")
    assert instructions <= 9.7
    assert pairs >= 16


def test_laplacian_has_no_branch_for_its_root() -> None:
    assert per_pair("laplacian")[0] <= 12.5


def test_loads_of_a_column_are_joined() -> None:
    ptx = compile_ptx(traced(FORMULAS["gaussian_d3_e1"](Variables(ROWS, COLUMNS, np.float32))), "sm_90").text
    main = max(innermost_loops(ptx), key=len)
    loads = [line for line in main if line.startswith("ld.")]
    assert loads
    assert all(line.startswith("ld.shared.v4") for line in loads)


def test_loops_are_left_as_the_schedule_made_them() -> None:
    ptx = compile_ptx(traced(FORMULAS["gaussian_d64_e1"](Variables(ROWS, COLUMNS, np.float32))), "sm_90").text
    assert ptx.count('.pragma "nounroll"') >= 4


# Refusals


def test_unknown_architecture_is_refused() -> None:
    reduction = FORMULAS["gaussian_d3_e1"](Variables(ROWS, COLUMNS, np.float32))
    with pytest.raises(UnsupportedError, match="sm_61: expected one of sm_75"):
        compile_ptx(traced(reduction), "sm_61")


def test_faulty_llvm_text_is_an_internal_error() -> None:
    with pytest.raises(InternalError, match="not accepted"):
        emit_ptx("define void @f() {", target=NvidiaTarget("sm_90"))


def test_what_ptxas_refuses_is_a_compile_error(ptxas: Path) -> None:
    with pytest.raises(CompileError, match="ptxas refuses the PTX for sm_90"):
        assemble(".version 7.8\n.target sm_90\nnonsense", arch="sm_90", ptxas=ptxas)


def test_resources_are_read_from_the_report() -> None:
    report = (
        "ptxas info    : Compiling entry function 'k' for 'sm_90'\nptxas info    : Function properties for k\n"
        "    8 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads\n"
        "ptxas info    : Used 64 registers, used 1 barriers, 8 bytes cumulative stack size, 9728 bytes smem\n"
    )
    found = parse_resources(report)["k"]
    assert (found.registers, found.spilled_bytes, found.stack_bytes, found.shared_bytes) == (64, 36, 8, 9728)


def test_stages_are_the_road_from_formula_to_ptx() -> None:
    texts = ptx_as_text(traced(FORMULAS["gaussian_d3_e1"](Variables(ROWS, COLUMNS, np.float32))), "sm_80")
    assert list(texts) == ["formula", "kernel", "gpu", "llvm", "ptx"]
    assert "gpu.func @formula_0" in texts["gpu"]
    assert ".target sm_80" in texts["ptx"]
