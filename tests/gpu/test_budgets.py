"""The inner loops of our kernels cost no more than their budgets, by NVIDIA's machine code."""

import json
from pathlib import Path

import pytest
from sass_budget import ARCHITECTURES, BUDGET_FILE, CASES, GROWTH, Function, count, loops, parse_listing, shortest_turn
from sass_budget import tools as find_tools

MOST_REGISTERS = 128


@pytest.fixture(scope="module")
def tools() -> tuple[Path, Path]:
    found = find_tools()
    if found is None:
        pytest.skip("ptxas and nvdisasm are not installed: they are in nvidia-cuda-nvcc and nvidia-cuda-nvdisasm")
    return found


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", CASES)
def test_main_loop_keeps_its_budget(name: str, arch: str, tools: tuple[Path, Path]) -> None:
    budget = json.loads(BUDGET_FILE.read_text(encoding="utf-8"))[name][arch]
    found = count(name, arch, tools)
    assert found["spilled"] == 0
    assert found["registers"] <= MOST_REGISTERS
    for what in ("issue", "fma", "fp64", "mufu", "lds", "registers"):
        assert found.get(what, 0) <= GROWTH * budget.get(what, 0), f"{what}: {found}, budget {budget}"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.bar is not None])
def test_budget_is_within_its_bar(name: str) -> None:
    budget = json.loads(BUDGET_FILE.read_text(encoding="utf-8"))[name]["sm_90"]
    assert budget["issue"] <= CASES[name].bar


LISTING = """
.text.k:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDS.128 R4, [R2] ;
        /*0020*/               @P0 BRA `(.L_x_2) ;
        /*0030*/                   FADD R5, R4, R3 ;
        /*0040*/                   MUFU.EX2 R5, R5 ;
.L_x_2:
        /*0050*/                   ISETP.GE.AND P1, PT, R0, R9, PT ;
        /*0060*/              @!P1 BRA `(.L_x_1) ;
        /*0070*/                   EXIT ;
"""


def test_rare_work_is_not_counted() -> None:
    function: Function = parse_listing(LISTING)["k"]
    ((first, last),) = loops(function)
    turn = shortest_turn(function, (first, last))
    assert [function.instructions[place].opcode for place in turn] == ["LDS.128", "BRA", "ISETP.GE.AND", "BRA"]
