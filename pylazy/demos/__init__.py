"""What `pylazy demo` runs: real work on real data, checked against dense NumPy."""
