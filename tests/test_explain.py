"""The page about a formula's way to machine code."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pylazy import UnsupportedError, Vi, Vj, cli
from pylazy.compiler.codegen.loop_counts import innermost_loops
from pylazy.compiler.compile import walk_as_text
from pylazy.explain import REASONS
from pylazy.trace import trace

FORMULAS = """
[gaussian]
formula = "Exp(-SqDist(x, y)) * b"
variables = ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"]
[neighbours]
formula = "SqDist(x, y)"
variables = ["x = Vi(2)", "y = Vj(2)"]
reduction = "ArgKMin"
k = 3
"""

VOID = {"meta", "br", "link"}


@pytest.fixture(name="gaussian", scope="module")
def make_gaussian():
    x = np.ones((5, 3), np.float32)
    return (-Vi(x).sqdist(Vj(x))).exp().sum(axis=1, call=False)


class Balance(HTMLParser):
    """Checks that every element is closed where it was opened."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.attributes = []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("target", ["x86-64-v3", "aarch64", "sm_90"])
def test_page_shows_every_pass_and_needs_nothing_else(gaussian, target):
    page = gaussian.explain(target).as_html()
    for step in walk_as_text(trace(gaussian.executable.request), target).steps:
        assert f"<code>{step.name}</code>" in page
    parsed = Balance()
    parsed.feed(page)
    assert parsed.open == []
    assert not [name for name, _ in parsed.attributes if name in {"src", "href"}]
    assert "reduction.map_reduce" in page
    assert ("fma.rn" if target == "sm_90" else "reduction.sqdist") in page


def test_page_marks_what_a_pass_changed(gaussian):
    page = gaussian.explain("x86-64").as_html()
    kernel = page[page.index("<h4>kernel</h4>") : page.index("<h4>loops</h4>")]
    tile = kernel[kernel.index("<code>reduction-tile</code>") :]
    assert re.search(r"class='added'>[^<]*column_chunk = 1024", tile)
    assert not re.search(r"class='removed'>[^<]*column_chunk", tile)
    assert "changed nothing: " in page


def test_walk_gives_each_kernel_with_its_schedule(gaussian):
    walk = walk_as_text(trace(gaussian.executable.request), "x86-64-v4")
    (chosen,) = walk.schedules
    assert (chosen["op"], chosen["rows"], chosen["lanes"]) == ("reduction.map_reduce", "i", 16)
    assert set(chosen) - {"op"} <= set(REASONS)
    assert [step.stage for step in walk.steps if step.operations == 0] == ["llvm", "asm"]


def test_loops_are_counted_from_assembly():
    text = """
f:
\tmovl $1, %eax
.LBB0_1:
\tincl %eax
.LBB0_2:
\tvmulps (%rsp), %ymm1, %ymm2  # 32-byte reload
\tvaddps %xmm2, %xmm3, %xmm3
\tjne .LBB0_2
\tjne .LBB0_1
\tretq
"""
    (loop,) = innermost_loops(text)
    assert (loop.function, loop.instructions, loop.arithmetic, loop.registers, loop.stack) == ("f", 3, 2, 3, 1)


def test_command_writes_the_page_of_a_file(tmp_path, capsys):
    (tmp_path / "f.toml").write_text(FORMULAS, encoding="utf-8")
    output = tmp_path / "report.html"
    assert cli.main(["explain", str(tmp_path / "f.toml"), "-t", "x86-64-v4", "-o", str(output)]) == 0
    assert "for x86-64-v4" in capsys.readouterr().out
    page = output.read_text(encoding="utf-8")
    assert "<h2>gaussian</h2>" in page
    assert "<h2>neighbours</h2>" in page


def test_notebook_shows_the_page_in_a_frame(gaussian, tmp_path):
    page = gaussian.explain("x86-64")
    assert page._repr_html_().startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.as_html()


def test_unknown_target_is_refused(gaussian):
    with pytest.raises(UnsupportedError, match="sm_12345"):
        gaussian.explain("sm_12345")
