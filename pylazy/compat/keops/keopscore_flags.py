"""Stands in for `keopscore`: its flags may be set, and change nothing."""

from __future__ import annotations

auto_factorize = False
debug_ops = False
debug_ops_at_exec = False
verbose = True
cuda_block_size = 192
