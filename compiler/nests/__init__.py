"""Loop nests: how the body of a kernel becomes loops over rows, columns and elements, on a CPU and on a GPU."""
