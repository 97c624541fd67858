"""The IRDL file of the dialect, read by a stock MLIR tool."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from pylazy.compiler.dialects.reduction.irdl import IRDL_FILE, irdl_text
from pylazy.compiler.mlir import mlir_root

LEVEL_1 = """module {
  func.func @gaussian(%arg0: tensor<?x3xf32>, %arg1: tensor<?x3xf32>) -> tensor<?x1xf32> {
    %0 = "reduction.var"(%arg0) {axis = "i"} : (tensor<?x3xf32>) -> !reduction.lazy<"i", vector<3xf32>>
    %1 = "reduction.var"(%arg1) {axis = "j"} : (tensor<?x3xf32>) -> !reduction.lazy<"j", vector<3xf32>>
    %2 = "reduction.sqdist"(%0, %1) : (!reduction.lazy<"i", vector<3xf32>>, !reduction.lazy<"j", vector<3xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
    %3 = "reduction.neg"(%2) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
    %4 = "reduction.exp"(%3) : (!reduction.lazy<"ij", vector<1xf32>>) -> !reduction.lazy<"ij", vector<1xf32>>
    %5 = "reduction.reduce"(%4) {axis = "j", kind = "sum"} : (!reduction.lazy<"ij", vector<1xf32>>) -> tensor<?x1xf32>
    return %5 : tensor<?x1xf32>
  }
}
"""  # noqa: E501


def stock_tool() -> Path:
    spec = importlib.util.find_spec(mlir_root())
    assert spec is not None
    for folder in spec.submodule_search_locations or ():
        tool = Path(folder) / "_mlir_libs" / "torch-mlir-opt"
        if tool.exists():
            return tool
    pytest.skip("these bindings come without an opt tool")


def run(text: str) -> "subprocess.CompletedProcess[str]":
    command = [str(stock_tool()), f"--irdl-file={IRDL_FILE}"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_file_is_current() -> None:
    assert IRDL_FILE.read_text(encoding="utf-8") == irdl_text(), (
        "run `python -m pylazy.compiler.dialects.reduction.irdl`"
    )


def test_stock_tool_reads_and_writes_a_formula() -> None:
    result = run(LEVEL_1)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == LEVEL_1.strip()


def test_stock_tool_refuses_an_unknown_op() -> None:
    result = run(LEVEL_1.replace("reduction.neg", "reduction.negate"))
    assert result.returncode != 0
    assert "reduction.negate" in result.stderr
