"""LLVM IR text -> PTX, by LLVM's back end; and the check of PTX by NVIDIA's assembler, where that is installed."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pylazy.compiler.target import NvidiaTarget
from pylazy.runtime.errors import CompileError, InternalError, UnsupportedError

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

_lock = threading.Lock()


@dataclass(frozen=True)
class PtxKernel:
    """One kernel of a PTX module, and how to launch it.

    Its parameters are the pointers of all buffers of the program; then, as int64, for each buffer the bytes from one
    element of the batch to the next, 0 to repeat it; then, as int64, rows, columns, columns of a split, and splits.
    Blocks along x are rows, along y splits, along z elements of a batch. Blocks have `block_threads` threads along x;
    workgroup memory is static.

    Attributes:
        name: of the entry.
        rows: "i", "j" or "": the extent that is cut into blocks.
        columns: "i", "j" or "": the extent that is reduced; "" for a map.
        rows_per_block: rows of one block.
        tile_columns: columns that pass through workgroup memory at once: splits are multiples of them.
        block_threads: threads of one block.
        blocks_per_processor: blocks that fit on a multiprocessor at once.
        splittable: whether the columns may be cut into splits; the next kernel then merges them.
        merges: whether this kernel merges the splits of the one before; not launched when there is one split.
        workgroup_bytes: static workgroup memory of a block, for information.
    """

    name: str
    rows: str
    columns: str
    rows_per_block: int
    tile_columns: int
    block_threads: int
    blocks_per_processor: int
    splittable: bool
    merges: bool
    workgroup_bytes: int


@dataclass(frozen=True)
class PtxModule:
    """The kernels of a program, in the order in which they have to run, over one list of buffers."""

    arch: str
    text: str
    kernels: tuple[PtxKernel, ...]
    buffers: tuple[Any, ...]


@dataclass(frozen=True)
class Geometry:
    """One launch: blocks along x and y (rows and splits), and how the columns are cut."""

    grid: tuple[int, int]
    columns_per_split: int
    splits: int


#: Fewer tiles than this are not worth a split of their own: its state has to be written, read and merged.
_LEAST_TILES_OF_A_SPLIT = 2
#: Splits that a merge kernel goes through; a grid could have 65535.
_MOST_SPLITS = 1024
#: Column numbers inside of a split are 32-bit integers.
_MOST_COLUMNS_OF_A_SPLIT = 1 << 30


def launch_geometry(
    kernels: Sequence[PtxKernel], extents: Mapping[str, int], *, processors: int, batch: int = 1
) -> tuple[Geometry, ...]:
    """Choose how the kernels of a program are launched, in their order: as many splits as fill the processors.

    Args:
        kernels: of a `PtxModule`.
        extents: rows of each axis: "i", "j", and 1 for "".
        processors: multiprocessors of the device.
        batch: elements of the batch that a launch covers, the blocks along z.

    Returns:
        One geometry for each kernel; its grid is empty where nothing is to be launched. Scratch with `per_split` has
        room for the states of the most splits of any kernel, and none is needed if that is one.
    """
    chosen: list[Geometry] = []
    for kernel in kernels:
        rows, columns = extents[kernel.rows], extents[kernel.columns] if kernel.columns else 0
        row_blocks = -(-rows // kernel.rows_per_block)
        if kernel.merges:
            before = chosen[-1]
            grid = (row_blocks, 1 if before.splits > 1 and row_blocks else 0)
            chosen.append(Geometry(grid, before.columns_per_split, before.splits))
        else:
            per_split = max(columns, 1)
            if kernel.splittable:
                wanted = min(processors * kernel.blocks_per_processor // max(row_blocks * batch, 1), _MOST_SPLITS)
                tiles = -(-columns // kernel.tile_columns)
                share = max(-(-tiles // max(wanted, 1)), _LEAST_TILES_OF_A_SPLIT)
                per_split = min(share * kernel.tile_columns, max(columns, 1), _MOST_COLUMNS_OF_A_SPLIT)
            splits = max(-(-columns // per_split), 1)
            chosen.append(Geometry((row_blocks, splits), per_split, splits))
    return tuple(chosen)


@functools.cache
def _binding() -> Any:
    import llvmlite.binding

    llvmlite.binding.initialize_all_targets()
    llvmlite.binding.initialize_all_asmprinters()
    return llvmlite.binding


@functools.cache
def _target_machine(target: NvidiaTarget) -> Any:
    if target.arch not in PTX_VERSIONS:
        raise UnsupportedError(f"no PTX version is known for {target.arch}: expected one of {', '.join(PTX_VERSIONS)}")
    return (
        _binding()
        .Target.from_triple(target.triple)
        .create_target_machine(cpu=target.cpu, features=f"+ptx{PTX_VERSIONS[target.arch]}", opt=3)
    )


def emit_ptx(llvm_text: str, *, target: NvidiaTarget) -> str:
    """Compile LLVM IR, as `module_to_llvm_text` checked it, to PTX.

    Raises:
        UnsupportedError: the architecture is not in `PTX_VERSIONS`.
        InternalError: LLVM refuses the text, which is a fault of the compiler.
    """
    with _lock:
        return str(_target_machine(target).emit_assembly(optimized_module(llvm_text, target=target)))


def optimized_module(llvm_text: str, *, target: NvidiaTarget) -> Any:
    """Parse LLVM IR for a target and run LLVM's pipeline of level 3: it turns indices of loops into addresses."""
    binding = _binding()
    machine = _target_machine(target)
    try:
        parsed = binding.parse_assembly(llvm_text)
        parsed.triple = target.triple
        parsed.data_layout = str(machine.target_data)
        parsed.verify()
    except RuntimeError as error:
        raise InternalError(f"generated LLVM IR is not accepted: {error}") from error
    # Vectors mean nothing on a GPU, and unrolled loops were chosen by the schedule.
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = binding.create_pass_builder(machine, options)
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
