"""Reductions over all pairs of rows of large arrays, from array code, compiled, with no M-by-N array."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pylazy.block_sparse.masks import band, band_ranges, causal, causal_ranges, diagonal, diagonal_ranges
    from pylazy.bundling.bundled_functions import load_bundle
    from pylazy.bundling.bundles import Bundle
    from pylazy.complex_numbers.complex_lazy_tensor import ComplexLazyTensor
    from pylazy.differentiation.gradients import grad, jvp, value_and_grad, vjp
    from pylazy.fused_reductions import evaluate
    from pylazy.genred import Genred, generic_argkmin, generic_argmin, generic_logsumexp, generic_sum
    from pylazy.jax_functions import jax_function
    from pylazy.lazy_tensor import LazyTensor, Pm, Var, Vi, Vj
    from pylazy.linear_algebra.kernel_solve import KernelSolve
    from pylazy.linear_algebra.krylov import ConvergenceWarning
    from pylazy.linear_algebra.linear_operators import LinearOperator, aslinearoperator, identity
    from pylazy.pair_variables import Vij, column_index, row_index
    from pylazy.runtime.errors import (
        AxisError,
        BundleFormatError,
        CompileError,
        DeviceError,
        DtypeError,
        FormulaError,
        InternalError,
        NonFiniteError,
        PylazyError,
        ShapeError,
        UnsupportedError,
        UntrustedBundleError,
    )
    from pylazy.runtime.threads import get_num_threads, set_num_threads
    from pylazy.stages import Reduction

__version__ = "0.1.0"

__all__ = [
    "AxisError",
    "Bundle",
    "BundleFormatError",
    "CompileError",
    "ComplexLazyTensor",
    "ConvergenceWarning",
    "DeviceError",
    "DtypeError",
    "FormulaError",
    "Genred",
    "InternalError",
    "KernelSolve",
    "LazyTensor",
    "LinearOperator",
    "NonFiniteError",
    "Pm",
    "PylazyError",
    "Reduction",
    "ShapeError",
    "UnsupportedError",
    "UntrustedBundleError",
    "Var",
    "Vi",
    "Vij",
    "Vj",
    "aslinearoperator",
    "band",
    "band_ranges",
    "causal",
    "causal_ranges",
    "column_index",
    "diagonal",
    "diagonal_ranges",
    "evaluate",
    "generic_argkmin",
    "generic_argmin",
    "generic_logsumexp",
    "generic_sum",
    "get_num_threads",
    "grad",
    "identity",
    "jax_function",
    "jvp",
    "load_bundle",
    "row_index",
    "set_num_threads",
    "value_and_grad",
    "vjp",
]

_HOMES = {
    "pylazy.genred": ("Genred", "generic_argkmin", "generic_argmin", "generic_logsumexp", "generic_sum"),
    "pylazy.differentiation.gradients": ("grad", "jvp", "value_and_grad", "vjp"),
    "pylazy.bundling.bundled_functions": ("load_bundle",),
    "pylazy.bundling.bundles": ("Bundle",),
    "pylazy.complex_numbers.complex_lazy_tensor": ("ComplexLazyTensor",),
    "pylazy.fused_reductions": ("evaluate",),
    "pylazy.jax_functions": ("jax_function",),
    "pylazy.linear_algebra.kernel_solve": ("KernelSolve",),
    "pylazy.linear_algebra.krylov": ("ConvergenceWarning",),
    "pylazy.lazy_tensor": ("LazyTensor", "Pm", "Var", "Vi", "Vj"),
    "pylazy.linear_algebra.linear_operators": ("LinearOperator", "aslinearoperator", "identity"),
    "pylazy.block_sparse.masks": ("band", "band_ranges", "causal", "causal_ranges", "diagonal", "diagonal_ranges"),
    "pylazy.pair_variables": ("Vij", "column_index", "row_index"),
    "pylazy.stages": ("Reduction",),
    "pylazy.runtime.threads": ("get_num_threads", "set_num_threads"),
    "pylazy.runtime.errors": tuple(name for name in __all__ if name.endswith("Error")),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'pylazy' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
