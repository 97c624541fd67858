"""Elementary functions written with additions, products and bit operations."""
