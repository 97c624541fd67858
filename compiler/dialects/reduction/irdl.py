"""The dialect as an IRDL file for stock MLIR tools, written by `python -m pylazy.compiler.dialects.reduction.irdl`."""

from pathlib import Path

from pylazy.compiler.dialects.reduction import Reduction, load_dialect
from pylazy.compiler.mlir import ir, new_context

IRDL_FILE = Path(__file__).parent / "reduction.irdl.mlir"
_HEADER = "// Written by pylazy.compiler.dialects.reduction.irdl; for mlir-opt --irdl-file=.\n"


def irdl_text() -> str:
    """Write the dialect in IRDL: ops, operands, attributes and types; verifiers in Python are not part of it."""
    with new_context(), ir.Location.unknown():
        load_dialect()
        return f"{_HEADER}{Reduction._mlir_module}".rstrip("\n") + "\n"


if __name__ == "__main__":
    IRDL_FILE.write_text(irdl_text(), encoding="utf-8")
