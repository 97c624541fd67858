"""The cost model: lanes, tile sizes, unrolling. Numbers only; no rewriting.

Sources of the constants: `benchmarks/` and the port model of docs/design/0005-cpu-schedule.md (AMD Zen 4, AVX-512).
"""
