"""The loops of the benchmark's reductions for AVX-512 stay within a demanded share of what the pipes allow."""

import json
from functools import cache

import port_counts
import port_model
import pytest
from port_counts import CASES
from port_model import Ports

CHANGE_THAT_MATTERS = 1.02


@cache
def counted(name: str) -> Ports:
    return port_counts.count(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_loop_reaches_its_share_of_the_limit(name: str) -> None:
    slots, case = counted(name), CASES[name]
    assert 100 * case.limit / slots.bound >= case.percent, slots
    assert slots.bound >= 0.9 * case.limit, f"less than the work itself: the wrong loop was counted ({slots})"


@pytest.mark.parametrize("name", CASES)
def test_loop_leaves_the_stack_alone(name: str) -> None:
    slots = counted(name)
    assert (slots.spills, slots.reloads) == (0, 0)


@pytest.mark.parametrize("name", CASES)
def test_loop_is_as_short_as_recorded(name: str) -> None:
    recorded = json.loads(port_counts.RECORD.read_text(encoding="utf-8"))
    assert counted(name).bound <= CHANGE_THAT_MATTERS * recorded[name]["bound"], "if meant, run port_counts.py"


# The model


@pytest.mark.parametrize(
    ("instruction", "slots"),
    [
        ("vfmadd231ps\t%zmm1, %zmm2, %zmm3", Ports(multiply=1)),
        ("vcmpltps\t%zmm1, %zmm2, %k1", Ports(multiply=1)),
        ("vsubps\t(%rdi,%rax,4){1to16}, %zmm1, %zmm2", Ports(add=1)),
        ("vbroadcastss\t(%rdi,%rax,4), %zmm2", Ports(add=1)),
        ("vscalefps\t%zmm1, %zmm2, %zmm3", Ports(add=2)),
        ("vpandd\t%zmm1, %zmm2, %zmm3", Ports(either=1)),
        ("vpermi2pd\t%zmm1, %zmm2, %zmm3", Ports(either=1)),
        ("vpsubusw\t%zmm1, %zmm2, %zmm3", Ports(either=1)),
        ("vxorps\t%zmm1, %zmm2, %zmm3", Ports(either=1)),
        ("vpxor\t%zmm1, %zmm1, %zmm1", Ports()),
        ("vmovaps\t%zmm1, %zmm2", Ports()),
        ("vmovaps\t%zmm1, %zmm2 {%k1}", Ports(either=1)),
        ("vmovups\t(%rdi), %zmm1", Ports()),
        ("vmovups\t%zmm1, 64(%rsp)", Ports(spills=1)),
        ("vmovups\t64(%rsp), %zmm1", Ports(reloads=1)),
        ("vaddps\t128(%rsp), %zmm1, %zmm1", Ports(add=1, reloads=1)),
        ("vaddps\t128(%rsp,%rax), %zmm1, %zmm1", Ports(add=1)),
        ("vsqrtps\t%zmm1, %zmm2", Ports(blocked=10)),
        ("kortestw\t%k0, %k0", Ports(either=1)),
        ("addq\t$1, %rax", Ports()),
        ("vmulss\t%xmm1, %xmm2, %xmm3", Ports()),
    ],
)
def test_instruction_takes_its_slots(instruction: str, slots: Ports) -> None:
    assert port_model.ports_of(instruction) == slots


def test_instruction_without_a_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="vpdpbusd"):
        port_model.ports_of("vpdpbusd\t%zmm1, %zmm2, %zmm3")


def test_bound_is_that_of_the_busiest_pipe() -> None:
    assert Ports(multiply=3, add=2).bound == 3
    assert Ports(multiply=3, add=3, either=2).bound == 4
    assert Ports(multiply=3, blocked=10).bound == 13
    assert Ports(multiply=3, spills=2).bound == 4


PRODUCT = "\tvmulps\t%zmm1, %zmm2, %zmm3\n"
RARELY = f"""f:
.LBB0_1:
{PRODUCT}\tkortestw\t%k0, %k0
\tjne\t.LBB0_3
.LBB0_2:
\taddq\t$1, %rax
\tjl\t.LBB0_1
\tretq
.LBB0_3:
{PRODUCT * 9}\tjmp\t.LBB0_2
"""
NESTED = f"""f:
.LBB0_1:
\tvaddps\t%zmm1, %zmm2, %zmm3
\tcmpq\t%rcx, %rbx
\tjge\t.LBB0_3
.LBB0_2:
{PRODUCT * 2}\taddq\t$8, %rbx
\tjl\t.LBB0_2
.LBB0_3:
\taddq\t$1, %rax
\tjl\t.LBB0_1
\tretq
"""


def test_path_that_is_rarely_gone_is_not_counted() -> None:
    assert port_model.count_column_loop(RARELY) == Ports(multiply=1, either=1)


def test_loop_over_inner_dimension_counts_as_often_as_it_turns() -> None:
    assert port_model.count_column_loop(NESTED, inner_turns=8) == Ports(multiply=16, add=1)
