"""Reductions on NVIDIA GPUs: of arrays that lie there, and of host arrays that are copied there."""
