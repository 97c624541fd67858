"""LLVM IR text -> PTX, by LLVM's back end; and the check of PTX by NVIDIA's assembler, where that is installed."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pylazy.compiler.codegen.llvm_binding import binding, lock, parse_llvm
from pylazy.compiler.target import NvidiaTarget
from pylazy.runtime.errors import CompileError, UnsupportedError

#: Architecture -> the oldest PTX version that has it ("PTX ISA", table of target architectures): what is written in the
#: oldest version, the oldest driver reads.
PTX_VERSIONS: Mapping[str, int] = {
    "sm_75": 63,
    "sm_80": 70,
    "sm_86": 71,
    "sm_87": 74,
    "sm_89": 78,
    "sm_90": 78,
    "sm_100": 86,
    "sm_120": 87,
}


@functools.cache
def _target_machine(target: NvidiaTarget) -> Any:
    if target.arch not in PTX_VERSIONS:
        raise UnsupportedError(f"no PTX version is known for {target.arch}: expected one of {', '.join(PTX_VERSIONS)}")
    return (
        binding()
        .Target.from_triple(target.triple)
        .create_target_machine(cpu=target.cpu, features=f"+ptx{PTX_VERSIONS[target.arch]}", opt=3)
    )


def emit_ptx(llvm_text: str, *, target: NvidiaTarget) -> str:
    """Compile LLVM IR, as `module_to_llvm_text` checked it, to PTX.

    Raises:
        UnsupportedError: the architecture is not in `PTX_VERSIONS`.
        InternalError: LLVM refuses the text, which is a fault of the compiler.
    """
    with lock:
        return str(_target_machine(target).emit_assembly(optimized_module(llvm_text, target=target)))


def optimized_module(llvm_text: str, *, target: NvidiaTarget) -> Any:
    """Parse LLVM IR for a target and run LLVM's pipeline of level 3: it turns indices of loops into addresses."""
    machine = _target_machine(target)
    parsed = parse_llvm(llvm_text, triple=target.triple, machine=machine)
    # Vectors mean nothing on a GPU, and unrolled loops were chosen by the schedule.
    options = binding().create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = binding().create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed


# The assembler


@dataclass(frozen=True)
class KernelResources:
    """What a kernel takes, as NVIDIA's assembler reports it."""

    registers: int
    spilled_bytes: int
    stack_bytes: int
    shared_bytes: int


def find_ptxas() -> "Path | None":
    """Find NVIDIA's assembler: in the wheel nvidia-cuda-nvcc, otherwise on the search path."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        for path in sorted(Path(folder).glob("*/bin/ptxas*")):
            if os.access(path, os.X_OK):
                return path
    on_path = shutil.which("ptxas")
    return Path(on_path) if on_path else None


def assemble(ptx: str, *, arch: str, ptxas: Path) -> tuple[bytes, Mapping[str, KernelResources]]:
    """Assemble PTX to a cubin, and tell the resources of each kernel.

    Raises:
        CompileError: the assembler refuses the text.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernels.ptx", Path(folder) / "kernels.cubin"
        source.write_text(ptx, encoding="utf-8")
        command = [str(ptxas), "-v", f"-arch={arch}", str(source), "-o", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, a tool that we found
        if done.returncode:
            raise CompileError(f"ptxas refuses the PTX for {arch}: {done.stderr.strip()[:2000]}")
        return cubin.read_bytes(), parse_resources(done.stderr)


_REPORT = re.compile(
    r"Compiling entry function '(?P<name>[^']+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def parse_resources(report: str) -> Mapping[str, KernelResources]:
    """Read what `ptxas -v` writes."""
    resources = {}
    for found in _REPORT.finditer(report):
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        resources[found["name"]] = KernelResources(
            registers=int(found["registers"]),
            spilled_bytes=int(found["stores"]) + int(found["loads"]),
            stack_bytes=int(found["stack"]),
            shared_bytes=int(shared.group(1)) if shared else 0,
        )
    return resources
