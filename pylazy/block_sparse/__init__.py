"""Reductions over some blocks of the pairs: ranges, and what makes them."""
