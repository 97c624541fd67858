"""Linear systems with kernel matrices, and matrices that are applied but never stored."""
