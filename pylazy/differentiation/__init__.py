"""Derivatives of functions of NumPy arrays, to any order and in both modes."""
