"""The `reduction` dialect: formulas (level 1) and kernels (level 2)."""

from pylazy.compiler.dialects.reduction import formula_ops, kernel_ops
from pylazy.compiler.dialects.reduction.dialect import (
    LazyType,
    Reduction,
    attribute,
    is_lazy,
    join_axes,
    lazy_axes,
    lazy_dim,
    lazy_type,
    lazy_vector,
    name_of,
)
from pylazy.compiler.mlir import dialect_load_lock, find_dialects_in

__all__ = [
    "LazyType",
    "Reduction",
    "attribute",
    "formula_ops",
    "is_lazy",
    "join_axes",
    "kernel_ops",
    "lazy_axes",
    "lazy_dim",
    "lazy_type",
    "lazy_vector",
    "load_dialect",
    "name_of",
]


def load_dialect() -> None:
    """Register the dialect in the current context; safe from several threads, each with its own context."""
    find_dialects_in("pylazy.compiler.dialects")
    with dialect_load_lock:
        Reduction.load()
