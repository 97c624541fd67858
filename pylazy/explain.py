"""The way of a formula to machine code as one page of HTML, which needs nothing but a browser."""

from __future__ import annotations

import difflib
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pylazy
from pylazy import trace
from pylazy.compiler.codegen.loop_counts import innermost_loops
from pylazy.compiler.compile import walk_as_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pylazy.compiler.codegen.loop_counts import LoopCounts
    from pylazy.compiler.compile import Step, Walk
    from pylazy.stages import Reduction

STAGES: Mapping[str, str] = {
    "formula": "Level 1 of the dialect: values that vary along i and j, and what is reduced.",
    "kernel": "Level 2: loops over rows and columns as one op, its body for one pair, its tile sizes.",
    "loops": "Loops of the CPU: row tiles, chunks and blocks of columns, vectors of rows.",
    "gpu": "Kernels of the GPU: blocks of threads, columns staged through workgroup memory.",
    "llvm": "The LLVM dialect, then LLVM IR; functions such as exp are polynomials by now.",
    "asm": "What the processor runs.",
    "ptx": "What the driver assembles for the GPU.",
}

REASONS: Mapping[str, str] = {
    "rows": "the axis whose rows run in parallel",
    "columns": "the axis that is reduced",
    "lanes": "rows in a vector: one register of AVX-512 or NEON, two or four of AVX2 or SSE2, which share constants",
    "lane_axis": "rows, unless these would leave many lanes idle",
    "shared_rows": "few rows that go over one transposed chunk of columns, while it is in the first cache",
    "row_vectors": "vectors of rows that share each load of a column, as many as registers hold",
    "column_step": "columns of a block: their chains of arithmetic overlap, as many as registers hold",
    "column_chunk": "columns of the first level of a two-level sum, whose error grows with this; 0: few columns",
    "unroll_limit": "inner dimensions up to this stay in registers, longer ones become loops",
    "inner_step": "elements of a long inner dimension in one turn of its loop",
    "register_limit": "elements of row values that may stay in registers",
    "cost": "estimated cycles for a pair, by which a launch is cut into tasks",
    "block_threads": "threads of a block: four warps, so that blocks overlap their barriers",
    "blocks_per_processor": "blocks that share a multiprocessor, which bounds the registers of a thread",
    "rows_per_thread": "rows that share each load of a column from workgroup memory, as many as registers hold",
    "tile_columns": "columns in workgroup memory at once",
    "result_chunk": "elements of a long result that one sweep computes",
    "row_panel_bytes": "workgroup memory for rows that are too long for registers",
}

_CONTEXT_LINES = 2
_MOST_DIFF_LINES = 4000  # a comparison takes time that grows with the square


class Explanation:
    """A page about one reduction; a notebook shows it.

    Attributes:
        target: what it was compiled for.
    """

    def __init__(self, page: str, target: str) -> None:
        self.target = target
        self._page = page

    def as_html(self) -> str:
        """The page."""
        return self._page

    def save(self, path: str | Path) -> None:
        """Write the page to a file (UTF-8)."""
        Path(path).write_text(self._page, encoding="utf-8")

    def _repr_html_(self) -> str:
        quoted = html.escape(self._page, quote=True)
        return f'<iframe srcdoc="{quoted}" style="width: 100%; height: 40em; border: 0"></iframe>'

    def __repr__(self) -> str:
        return f"<Explanation for {self.target}, {len(self._page):,} characters of HTML>"


def explain(reductions: Mapping[str, Reduction], target: str) -> Explanation:
    """Explain how reductions are compiled for a target.

    Args:
        reductions: by the names that the page calls them.
        target: a CPU level such as "x86-64-v3", of this machine or not; or "sm_90" and the like.

    Raises:
        UnsupportedError: a formula needs what the target does not have.
    """
    sections = "\n".join(_section(name, reduction, target) for name, reduction in reductions.items())
    title = html.escape(", ".join(reductions))
    return Explanation(_PAGE.format(title=title, target=target, version=pylazy.__version__, sections=sections), target)


def _section(name: str, reduction: Reduction, target: str) -> str:
    request = reduction.executable.reductions
    walk = walk_as_text(trace.trace(request, few_rows=reduction.few), target)
    loops = innermost_loops(walk.steps[-1].text)
    return "\n".join(
        (
            f'<section><h2>{html.escape(name)}</h2><p class="formula">{html.escape(repr(reduction))}</p>',
            "<h3>In short</h3>",
            _summary(walk, loops, target),
            "<h3>Schedule</h3>",
            *(_schedule(number, chosen) for number, chosen in enumerate(walk.schedules)),
            "<h3>Where the time goes</h3>",
            _times(walk.steps),
            "<h3>What each pass changes</h3>",
            *_stages(walk.steps),
            "</section>",
        )
    )


def _summary(walk: Walk, loops: Sequence[LoopCounts], target: str) -> str:
    seconds = sum(step.seconds for step in walk.steps)
    rows = [("compile time", f"{1e3 * seconds:.0f} ms in {len(walk.steps) - 1} steps")]
    for chosen in walk.schedules:
        if chosen["op"] == "reduction.map_reduce":
            rows += _loop_rows(chosen, loops, target)
            break
    return _table((), rows)


def _loop_rows(chosen: Mapping[str, Any], loops: Sequence[LoopCounts], target: str) -> Iterator[tuple[str, str]]:
    main = max(loops, key=lambda loop: loop.arithmetic, default=None)
    if main is None:
        return
    is_gpu = target.startswith("sm_")
    rows = chosen["rows_per_thread"] if is_gpu else chosen["lanes"] * chosen["row_vectors"]
    pairs = rows * chosen["column_step"]
    yield "main loop", f"{main.instructions} instructions, {main.arithmetic} of them arithmetic, for {pairs} pairs"
    what = "PTX instructions a pair, before the driver's assembler" if is_gpu else "instructions a pair"
    yield what, f"{main.instructions / pairs:.2f}, if one turn takes one block and inner dimensions are unrolled"
    yield ("virtual registers" if is_gpu else "vector registers"), str(main.registers)
    if not is_gpu:
        yield "of these instructions, with the stack", f"{main.stack} (rows of a tile, and what found no register)"


def _schedule(number: int, chosen: Mapping[str, Any]) -> str:
    rows = [(key, str(chosen[key]), reason) for key, reason in REASONS.items() if key in chosen]
    return f"<p>Kernel {number}: <code>{html.escape(chosen['op'])}</code></p>" + _table(("", "", "why"), rows)


def _times(steps: Sequence[Step]) -> str:
    longest = max(step.seconds for step in steps) or 1.0
    rows = []
    for step in steps:
        if step.seconds > 0:
            width = max(1, round(160 * step.seconds / longest))
            bar = f'<span class="bar" style="width: {width}px"></span> {1e3 * step.seconds:.2f} ms'
            count = f"{step.operations} ops" if step.operations else f"{step.text.count(chr(10))} lines"
            rows.append(f"<tr><td>{step.stage}</td><td><code>{html.escape(step.name)}</code></td><td>{bar}</td>")
            rows.append(f'<td class="number">{count}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _stages(steps: Sequence[Step]) -> Iterator[str]:
    before = ""
    for stage in dict.fromkeys(step.stage for step in steps):
        yield f"<h4>{stage}</h4><p>{STAGES[stage]}</p>"
        unchanged = []
        for step in steps:
            if step.stage != stage:
                continue
            if step.text == before:
                unchanged.append(step.name)
                continue
            yield _step(step, before)
            before = step.text
        if unchanged:
            yield f'<p class="quiet">changed nothing: {html.escape(", ".join(unchanged))}</p>'


def _step(step: Step, before: str) -> str:
    title = f"<code>{html.escape(step.name)}</code>"
    if not before or step.operations == 0:
        return f"<details open><summary>{title}</summary><pre>{html.escape(step.text)}</pre></details>"
    old, new = before.splitlines(), step.text.splitlines()
    if max(len(old), len(new)) > _MOST_DIFF_LINES:
        return f"<details><summary>{title}</summary><pre>{html.escape(step.text)}</pre></details>"
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    changed = sum(max(b - a, d - c) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal")
    rows = "".join(_difference(matcher, old, new))
    is_short = changed <= 40
    return (
        f"<details{' open' if is_short else ''}><summary>{title} <span class='quiet'>{changed} lines changed</span>"
        f"</summary><table class='diff'><tr><th>before</th><th>after</th></tr>{rows}</table></details>"
    )


def _difference(matcher: difflib.SequenceMatcher[str], old: list[str], new: list[str]) -> Iterator[str]:
    """Set the lines before and after side by side, leaving out what is equal except for some lines around changes."""
    last = 0
    for group in matcher.get_grouped_opcodes(_CONTEXT_LINES):
        skipped = group[0][1] - last
        if skipped > 0:
            yield f"<tr class='quiet'><td colspan='2'>{skipped} equal lines</td></tr>"
        for tag, first, first_end, second, second_end in group:
            for place in range(max(first_end - first, second_end - second)):
                left = old[first + place] if first + place < first_end else ""
                right = new[second + place] if second + place < second_end else ""
                names = ("", "") if tag == "equal" else (" class='removed'", " class='added'")
                yield (
                    f"<tr><td{names[0] if left else ''}>{html.escape(left)}</td>"
                    f"<td{names[1] if right else ''}>{html.escape(right)}</td></tr>"
                )
        last = group[-1][2]
    if len(old) > last:
        yield f"<tr class='quiet'><td colspan='2'>{len(old) - last} equal lines</td></tr>"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = f"<tr>{''.join(f'<th>{html.escape(heading)}</th>' for heading in headings)}</tr>" if any(headings) else ""
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>pylazy: {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1c1e21; background: #fff; margin: 2em auto; max-width: 1200px;
  padding: 0 1em; }}
h2 {{ border-bottom: 2px solid #2a6f97; margin-top: 2em; }}
h4 {{ margin-bottom: 0; }}
code, pre, .diff {{ font: 12.5px/1.45 ui-monospace, Menlo, Consolas, monospace; }}
.formula {{ font: 17px/1.5 ui-monospace, Menlo, Consolas, monospace; background: #f2f6f9; padding: 0.6em 1em;
  overflow-x: auto; }}
pre {{ background: #f7f7f8; padding: 0.8em; overflow-x: auto; max-height: 40em; }}
table {{ border-collapse: collapse; margin: 0.5em 0 1em; }}
td, th {{ padding: 2px 12px 2px 0; text-align: left; vertical-align: top; }}
.number {{ text-align: right; }}
.bar {{ display: inline-block; height: 0.75em; background: #2a6f97; }}
.diff {{ width: 100%; table-layout: fixed; background: #f7f7f8; }}
.diff td, .diff th {{ white-space: pre-wrap; overflow-wrap: anywhere; padding: 0 8px; width: 50%; }}
.removed {{ background: #fbdfdc; }}
.added {{ background: #d9f2dd; }}
.quiet {{ color: #767b82; }}
summary {{ cursor: pointer; padding: 3px 0; }}
</style></head><body>
<h1>{title}</h1>
<p>How pylazy {version} compiles {title} for <code>{target}</code>.</p>
{sections}
</body></html>
"""
