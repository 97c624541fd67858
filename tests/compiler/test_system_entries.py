"""Kernels called as Windows calls them: the caller's registers on Linux, the whole runtime under an emulator."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cpu_formulas import request_of

from pylazy import Vi, Vj
from pylazy.compiler.compile import compile_cpu
from pylazy.execution.programs import host_target
from pylazy.runtime.launch import is_runnable
from pylazy.trace import trace

ROOT = Path(__file__).parents[2]
COMPILER, WINDOWS_COMPILER = shutil.which("cc"), shutil.which("x86_64-w64-mingw32-g++-posix")
WINE = shutil.which("wine64", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/lib/wine")))  # Debian's place

# Calls a function as Windows does, with known numbers in the registers that are the caller's there, and reads them
# again: xmm6 to xmm15, then rdi, rsi, rbx, rbp, r12 to r15.
CALLER = r"""
#include <stdint.h>
typedef struct { double vectors[20]; int64_t integers[8]; } registers;
__asm__(
    ".globl call_as_windows\n"
    "call_as_windows:\n"  /* (rdi: registers, rsi: function, rdx: its four arguments) */
    "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  sub $72, %rsp\n"
    "  mov %rdi, 40(%rsp)\n  mov %rsi, %rax\n  mov %rdi, %r10\n  mov %rdx, %r11\n"
    "  movups (%r10), %xmm6\n  movups 16(%r10), %xmm7\n  movups 32(%r10), %xmm8\n  movups 48(%r10), %xmm9\n"
    "  movups 64(%r10), %xmm10\n  movups 80(%r10), %xmm11\n  movups 96(%r10), %xmm12\n  movups 112(%r10), %xmm13\n"
    "  movups 128(%r10), %xmm14\n  movups 144(%r10), %xmm15\n"
    "  mov 160(%r10), %rdi\n  mov 168(%r10), %rsi\n  mov 176(%r10), %rbx\n  mov 184(%r10), %rbp\n"
    "  mov 192(%r10), %r12\n  mov 200(%r10), %r13\n  mov 208(%r10), %r14\n  mov 216(%r10), %r15\n"
    "  mov (%r11), %rcx\n  mov 8(%r11), %rdx\n  mov 16(%r11), %r8\n  mov 24(%r11), %r9\n"
    "  call *%rax\n"
    "  mov 40(%rsp), %r10\n"
    "  movups %xmm6, (%r10)\n  movups %xmm7, 16(%r10)\n  movups %xmm8, 32(%r10)\n  movups %xmm9, 48(%r10)\n"
    "  movups %xmm10, 64(%r10)\n  movups %xmm11, 80(%r10)\n  movups %xmm12, 96(%r10)\n  movups %xmm13, 112(%r10)\n"
    "  movups %xmm14, 128(%r10)\n  movups %xmm15, 144(%r10)\n"
    "  mov %rdi, 160(%r10)\n  mov %rsi, 168(%r10)\n  mov %rbx, 176(%r10)\n  mov %rbp, 184(%r10)\n"
    "  mov %r12, 192(%r10)\n  mov %r13, 200(%r10)\n  mov %r14, 208(%r10)\n  mov %r15, 216(%r10)\n"
    "  add $72, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n  ret\n");
"""

# Runs the image in image.h on the runtime's DLL, on rows and columns that both count from 0.
WINDOWS_PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "pylazy_runtime.h"
#include "image.h"
int main(void) {
  static float x[M * 3], y[N * 3], out[M];
  for (int k = 0; k < M * 3; ++k) x[k] = (float)(k % 17) / 16;
  for (int k = 0; k < N * 3; ++k) y[k] = (float)(k % 13) / 8;
  void *pointers[] = {x, y, out};
  plz_program *program;
  if (plz_program_create(code, sizeof code, buffers, sizeof buffers / sizeof *buffers, phases,
                         sizeof phases / sizeof *phases, &program) ||
      plz_run(program, pointers, M, N, 0, NULL, NULL)) {
    puts(plz_last_error());
    return 1;
  }
  for (int k = 0; k < M; ++k) printf("%.9g\n", out[k]);
  plz_program_destroy(program);
  return 0;
}
"""


def gaussian(dim=3, rows=5, columns=7):
    x, y = np.zeros((rows, dim), np.float32), np.zeros((columns, dim), np.float32)
    return (-Vi(x).sqdist(Vj(y))).exp().sum(axis=1, call=False)


def image_of(reduction, target):
    return compile_cpu(trace(request_of(reduction)), target)


@pytest.mark.skipif(COMPILER is None or not is_runnable("x86-64"), reason="no C compiler for x86-64")
@pytest.mark.parametrize("dim", [3, 1000])
def test_windows_entry_keeps_what_belongs_to_its_caller(tmp_path, dim):
    (tmp_path / "caller.c").write_text(CALLER, encoding="utf-8")
    library = tmp_path / "caller.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", tmp_path / "caller.c", "-o", library], check=True)
    call = ctypes.CDLL(library).call_as_windows
    image = image_of(gaussian(dim), host_target())
    code = _executable(image.code)
    rng = np.random.default_rng(0)
    x, y, out = (rng.random(shape, np.float32) for shape in ((5, dim), (7, dim), (5, 1)))
    pointers = np.array([array.ctypes.data for array in (x, y, out)] + [0], np.int64)
    extents = np.array([5, 7, 7, 1], np.int64)
    arguments = np.array([pointers.ctypes.data, extents.ctypes.data, 0, 1], np.int64)
    registers = np.arange(28, dtype=np.int64) + (3 << 60)
    before = registers.copy()
    for phase in image.phases:
        if not phase.merges:
            call(
                ctypes.c_void_p(registers.ctypes.data),
                ctypes.c_void_p(ctypes.addressof(code) + phase.windows_entry),
                ctypes.c_void_p(arguments.ctypes.data),
            )
    np.testing.assert_array_equal(registers, before)
    dense = np.exp(-((x[:, None].astype(np.float64) - y) ** 2).sum(-1)).sum(1, keepdims=True)
    np.testing.assert_allclose(out, dense, rtol=1e-5, atol=1e-30)


def _executable(code):
    """Executable memory with this code, which lives as long as the object."""
    import mmap

    memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    return (ctypes.c_char * len(code)).from_buffer(memory)


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_frames_of_more_than_a_page_touch_their_pages_in_order(target):
    from pylazy.compiler.compile import stages_as_text

    assembly = stages_as_text(trace(request_of(gaussian(1000))), target)["asm"]
    step = "#4096" if target == "aarch64" else "$4096"
    assert f"sub\tsp, sp, {step[0]}1, lsl #12" in assembly or f"{step}, %rsp" in assembly


def test_code_for_arm_leaves_the_register_of_the_system_alone():
    from pylazy.compiler.compile import stages_as_text

    assembly = stages_as_text(trace(request_of(gaussian(40))), "aarch64")["asm"]
    names = {word.strip(",[]!") for line in assembly.splitlines() for word in line.split()}
    assert "x17" in names or "x19" in names
    assert not names & {"x18", "w18"}


def test_image_for_arm_has_one_entry_for_all_systems():
    assert {phase.windows_entry for phase in image_of(gaussian(), "aarch64").phases} == {-1}


@pytest.mark.skipif(WINDOWS_COMPILER is None or WINE is None, reason="no compiler for Windows, or no wine64")
def test_runtime_runs_kernels_on_windows(tmp_path):
    m, n = 77, 20_011
    image = image_of(gaussian(), "x86-64")
    (tmp_path / "image.h").write_text(_image_as_c(image, m, n), encoding="utf-8")
    (tmp_path / "main.c").write_text(WINDOWS_PROGRAM, encoding="utf-8")
    sources = [ROOT.joinpath("runtime", "src", path.name) for path in (ROOT / "runtime" / "src").glob("*.cpp")]
    include = f"-I{ROOT / 'runtime' / 'include'}"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-DPYLAZY_RUNTIME_BUILD", include]
    subprocess.run([WINDOWS_COMPILER, *flags, "-shared", *sources, "-o", tmp_path / "runtime.dll"], check=True)
    flags = ["-O2", "-static", include, f"-I{tmp_path}", "-L."]
    command = [WINDOWS_COMPILER, *flags, "main.c", "runtime.dll", "-o", "main.exe"]
    subprocess.run(command, check=True, cwd=tmp_path)
    done = subprocess.run([WINE, "main.exe"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    x = ((np.arange(m * 3) % 17) / 16).reshape(m, 3)
    y = ((np.arange(n * 3) % 13) / 8).reshape(n, 3)
    dense = np.exp(-((x[:, None] - y) ** 2).sum(-1)).sum(1)
    np.testing.assert_allclose([float(line) for line in done.stdout.split()], dense, rtol=1e-5)


def _image_as_c(image, m, n):
    roles = {"input": 0, "output": 1, "scratch": 2}
    axes = {"": 0, "i": 1, "j": 2}
    buffers = ",\n".join(
        f"{{{roles[b.role]}, {axes[b.axis]}, {b.row_bytes}, {int(b.per_split)}, 0}}" for b in image.buffers
    )
    phases = ",\n".join(
        f"{{{p.windows_entry}, {p.rows_per_tile}, {p.max_columns_per_split}, {p.cost}, {axes[p.rows]}, "
        f"{axes[p.columns]}, {int(p.splittable)}, {int(p.merges)}, {p.tile_table}, 0}}"
        for p in image.phases
    )
    code = ",".join(map(str, image.code))
    return (
        f"enum {{ M = {m}, N = {n} }};\nstatic const unsigned char code[] = {{{code}}};\n"
        f"static const plz_buffer buffers[] = {{{buffers}}};\nstatic const plz_phase phases[] = {{{phases}}};\n"
    )
