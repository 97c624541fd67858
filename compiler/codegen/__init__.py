"""From the llvm dialect to machine code and PTX."""
