"""The pages that are written from tables are current."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_page_of_operations_is_current():
    written = runpy.run_path(str(DOCS / "write_operations.py"))
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    assert page == written["operations_page"](), "run `python docs/write_operations.py`"


def test_page_of_the_gradient_program_is_current():
    written = runpy.run_path(str(DOCS / "write_gradient_program.py"))
    page = (DOCS / "gradient-program.md").read_text(encoding="utf-8")
    assert page == written["gradient_page"](), "run `python docs/write_gradient_program.py`"
