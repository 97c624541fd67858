"""The interpreter itself: arithmetic to the last bit, and every fault that it has to find."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from ptx_arithmetic import fma
from ptx_interpreter import launch
from ptx_memory import GlobalMemory
from ptx_text import PtxError, parse_ptx

Array = Any  # an ndarray
THREADS = 64


def kernel_text(body: str) -> str:
    """Write a kernel over buffers a and b, with 64 words of workgroup memory, from the lines of its body."""
    return f"""
.visible .entry k(
	.param .u64 .ptr .global .align 1 k_param_0,
	.param .u64 .ptr .global .align 1 k_param_1
)
.maxntid {THREADS}
{{
	.reg .pred %p<8>;
	.reg .b32 %r<16>;
	.reg .b64 %rd<16>;
	.shared .align 16 .b8 tile[{4 * THREADS}];
	ld.param.b64 %rd0, [k_param_0];
	ld.param.b64 %rd1, [k_param_1];
	mov.u32 %r0, %tid.x;
	mul.wide.u32 %rd2, %r0, 4;
	add.s64 %rd3, %rd0, %rd2;
	add.s64 %rd4, %rd1, %rd2;
	mov.b64 %rd5, tile;
	add.s64 %rd6, %rd5, %rd2;
	ld.global.nc.b32 %r1, [%rd3];
{body}
	ret;
}}
"""


def run(body: str, *, threads: int = THREADS) -> Array:
    """Run a kernel on a = 0, 1, 2...; give b."""
    a = np.arange(THREADS, dtype=np.uint32)
    memory = GlobalMemory({"a": a, "b": np.zeros_like(a)}, unwritten=frozenset({"b"}))
    launch(
        parse_ptx(kernel_text(body))["k"], grid=(1, 1, 1), threads=threads, arguments=memory.addresses(), memory=memory
    )
    return memory.arrays()["b"]


STORE = "\tst.shared.b32 [%rd6], %r1;\n"
BARRIER = "\tbar.sync 0;\n"
# Every thread reads what its neighbour wrote, in a ring.
NEIGHBOUR = "\txor.b32 %r2, %r0, 1;\n\tmul.wide.u32 %rd7, %r2, 4;\n\tadd.s64 %rd8, %rd5, %rd7;\n"
LOAD = NEIGHBOUR + "\tld.shared.b32 %r3, [%rd8];\n"
RESULT = "\tst.global.b32 [%rd4], %r3;\n"


def test_threads_exchange_through_workgroup_memory() -> None:
    np.testing.assert_array_equal(run(STORE + BARRIER + LOAD + RESULT), np.arange(THREADS) ^ 1)


def test_branches_part_threads_and_meet_again() -> None:
    body = """
	mov.b32 %r3, 0;
	mov.b32 %r4, 0;
$LOOP:
	add.s32 %r3, %r3, %r4;
	add.s32 %r4, %r4, 1;
	setp.le.s32 %p1, %r4, %r1;
	@%p1 bra $LOOP;
"""
    n = np.arange(THREADS)
    np.testing.assert_array_equal(run(body + RESULT), n * (n + 1) // 2)


FAULTS = {
    "a race: a read of what another thread wrote": STORE + LOAD + RESULT,
    "a race: a write to what another thread read": STORE + BARRIER + LOAD + STORE + RESULT,
    "a race: two threads write": "\tst.shared.b32 [%rd5], %r1;\n",
    "a read of workgroup memory that nothing was written to": LOAD + RESULT,
    "an access outside of workgroup memory": "\tst.shared.b32 [%rd6+4], %r1;\n",
    "an access of 8 bytes to workgroup memory is not aligned": "\tst.shared.v2.b32 [%rd6], {%r1, %r1};\n",
    "an access 0 bytes after the end of b": "\tst.global.b32 [%rd4+4], %r1;\n",
    "an access 4 bytes before the first buffer": "\tld.global.b32 %r3, [%rd3+-4];\n" + RESULT,
    "an access of 4 bytes is not aligned": "\tst.global.b32 [%rd4+2], %r1;\n",
    "a read of global memory that nothing was written to": "\tld.global.b32 %r3, [%rd4];\n" + RESULT,
    "two threads write the same word of global memory": "\tst.global.b32 [%rd1], %r1;\n",
    "that this launch writes": "\tst.global.b32 [%rd4], %r1;\n\tld.global.nc.b32 %r3, [%rd4];\n" + RESULT,
    "ended, others wait for it": "\tsetp.eq.b32 %p1, %r0, 5;\n\t@%p1 ret;\n" + BARRIER,
    "wait at different barriers": f"\tsetp.eq.b32 %p1, %r0, 5;\n\t@%p1 bra $A;\n{BARRIER}\tret;\n$A:\n{BARRIER}",
    "a part of a warp": "\tsetp.eq.b32 %p1, %r0, 5;\n\t@%p1 shfl.sync.bfly.b32 %r3, %r1, 1, 31, -1;\n",
    "does not end": "$A:\n\tbra.uni $A;\n",
    "opcode prmt is not supported": "\tprmt.b32 %r3, %r1, %r1, 0;\n",
    "modifiers ['rz'] are not supported": "\tadd.rz.f32 %r3, %r1, %r1;\n",
    "is a register of 4 bytes": "\tadd.s64 %r3, %rd1, %rd2;\n",
}


@pytest.mark.parametrize("message", FAULTS)
def test_fault_is_found_and_names_its_line(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptx_interpreter._MOST_STEPS", 1000)
    with pytest.raises(PtxError) as caught:
        run(FAULTS[message])
    assert message in str(caught.value)
    assert "\n  at line" in str(caught.value)


def test_padding_of_a_vector_may_be_loaded_if_nobody_uses_it() -> None:
    loads = "\tld.shared.v2.b32 {%r3, %r4}, [%rd5];\n"
    only_first = "\tsetp.ne.b32 %p1, %r0, 0;\n\t@!%p1 st.shared.b32 [%rd5], %r1;\n" + BARRIER
    assert (run(only_first + loads + RESULT) == 0).all()
    with pytest.raises(PtxError, match="nothing was written to"):
        run(only_first + loads + "\tadd.s32 %r3, %r3, %r4;\n" + RESULT)


def test_votes_and_shuffles_see_the_whole_warp() -> None:
    vote = "\tsetp.eq.b32 %p1, %r1, 33;\n\tvote.sync.any.pred %p2, %p1, -1;\n\tselp.b32 %r3, 1, 0, %p2;\n"
    np.testing.assert_array_equal(run(vote + RESULT), np.arange(THREADS) // 32)
    shuffle = "\tshfl.sync.bfly.b32 %r3, %r1, 16, 31, -1;\n"
    np.testing.assert_array_equal(run(shuffle + RESULT), np.arange(THREADS) ^ 16)


def test_too_many_threads_are_refused() -> None:
    with pytest.raises(PtxError, match="65 threads, k takes at most 64"):
        run("", threads=THREADS + 1)


def test_unreadable_text_names_its_line() -> None:
    with pytest.raises(PtxError, match="not understood\n  at line"):
        parse_ptx(kernel_text("\t?;\n"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multiply_add_is_rounded_once(dtype: Any) -> None:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(3000).astype(dtype) for _ in range(2))
    for c in (random.standard_normal(3000).astype(dtype), -(a * b), (a * b) * dtype(2.0**30)):
        for x, y, z, found in zip(a, b, c, fma(a, b, c), strict=True):
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            error = abs(Fraction(float(found)) - exact)
            for neighbour in (np.nextafter(found, dtype(np.inf)), np.nextafter(found, dtype(-np.inf))):
                assert error <= abs(Fraction(float(neighbour)) - exact)
