"""The passes: one a file, where file, function and lit test have the name of the pass."""
