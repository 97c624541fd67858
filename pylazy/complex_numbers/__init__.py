"""Formulas of complex numbers: two real ones each."""
