"""Formulas as texts: read, as KeOps writes them, and shown."""
