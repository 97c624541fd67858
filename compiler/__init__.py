"""The compiler: from a formula in MLIR to a kernel image."""
