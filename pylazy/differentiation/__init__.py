"""Derivatives of functions of arrays of NumPy and CuPy, to any order and in both modes."""
