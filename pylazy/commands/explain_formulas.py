"""`pylazy explain`: a page about how the formulas of a file are compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylazy.commands.console import show_json, standard_output
from pylazy.commands.formulas import read_formulas
from pylazy.execution.programs import host_target

if TYPE_CHECKING:
    from pathlib import Path


def explain_formulas(path: Path, *, target: str, output: Path, as_json: bool) -> None:
    """Explain every formula of a file.

    Args:
        path: the TOML file.
        target: a CPU level or a GPU; by default this machine.
        output: the page.
        as_json: report for programs.
    """
    from pylazy.explain import explain

    page = explain(read_formulas(path).reductions(), target or host_target())
    page.save(output)
    if as_json:
        show_json({"file": str(output), "bytes": output.stat().st_size, "target": page.target})
        return
    standard_output().print(f"{output}  {output.stat().st_size:,} bytes, for {page.target}")
