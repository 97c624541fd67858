"""Kernels compiled ahead of time: made into one file, and called from it."""
