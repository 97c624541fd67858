"""The pipelines: tuples of passes, read from left to right; a string is a pass of upstream MLIR."""

from collections.abc import Callable

from pylazy.compiler.passes.convert_math_to_intrinsics import convert_math_to_intrinsics
from pylazy.compiler.passes.convert_reduction_to_map_reduce import convert_reduction_to_map_reduce
from pylazy.compiler.passes.convert_reduction_to_scf import convert_reduction_to_scf
from pylazy.compiler.passes.lower_math import lower_math
from pylazy.compiler.passes.nvvm_keep_loops import nvvm_keep_loops
from pylazy.compiler.passes.reduction_differentiate import reduction_differentiate
from pylazy.compiler.passes.reduction_fold_scales import reduction_fold_scales
from pylazy.compiler.passes.reduction_fuse import reduction_fuse
from pylazy.compiler.passes.reduction_hoist import reduction_hoist
from pylazy.compiler.passes.reduction_map_to_gpu import reduction_map_to_gpu
from pylazy.compiler.passes.reduction_simplify import reduction_simplify
from pylazy.compiler.passes.reduction_tile import reduction_tile
from pylazy.compiler.passes.reduction_vectorize import reduction_vectorize

Pass = str | Callable[..., None]

# Differentiation leaves products with 1 and sums of one component behind, and reads forward values again.
FORMULA_PASSES: tuple[Pass, ...] = (
    "cse",
    reduction_simplify,
    reduction_differentiate,
    reduction_simplify,
    "cse",
    "canonicalize",
)
KERNEL_PASSES: tuple[Pass, ...] = (
    convert_reduction_to_map_reduce,
    reduction_fuse,
    "cse",
    reduction_hoist,
    reduction_tile,
)
LOWER_TO_LLVM: tuple[Pass, ...] = (
    "canonicalize",
    "cse",
    "convert-vector-to-llvm",
    "convert-scf-to-cf",
    "convert-to-llvm",
    "reconcile-unrealized-casts",
    "canonicalize",
    "cse",
)
CPU_PASSES: tuple[Pass, ...] = (
    reduction_vectorize,
    "cse",
    convert_reduction_to_scf,
    "canonicalize",
    "cse",
    lower_math,
    *LOWER_TO_LLVM,
)
# Math first: convert-gpu-to-nvvm would turn what is left of it into calls of a library.
LOWER_TO_NVVM: tuple[Pass, ...] = (
    "gpu.module(canonicalize,cse,loop-invariant-code-motion)",
    convert_math_to_intrinsics,
    "gpu.module(convert-math-to-llvm,convert-scf-to-cf)",
    "gpu.module(convert-gpu-to-nvvm{use-bare-ptr-memref-call-conv=true},convert-to-llvm,convert-nvvm-to-llvm)",
    "gpu.module(reconcile-unrealized-casts,canonicalize,cse)",
    nvvm_keep_loops,
)
NVIDIA_PASSES: tuple[Pass, ...] = (
    reduction_fold_scales,
    reduction_map_to_gpu,
    "canonicalize",
    "cse",
    lower_math,
    *LOWER_TO_NVVM,
)
