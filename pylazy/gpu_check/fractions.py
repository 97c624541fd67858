"""The picture of how near each reduction comes to the bound of the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pylazy.bench.drawing import FAINT, INK, RULE, Box, Dot, Drawing, Line, Text
from pylazy.bench.roofline import OURS as OUR_COLOUR
from pylazy.bench.roofline import PEERS
from pylazy.gpu_check.timings import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 1100, 290, 780, 128, 40
_NOTE = """\
The bound is what the pipes of the GPU can start each cycle at its highest clock, over the instructions that our main
loop has for one pair (counted in machine code for sm_90). A contender of fewer instructions may pass it."""


def draw_fractions(rows: Sequence[Mapping[str, Any]], *, gpu: str, date: str) -> Drawing:
    """Draw the pairs a second of everybody as shares of the bound.

    Args:
        rows: of `pylazy.gpu_check.timings.time_reduction`, each with a bound.
        gpu: for the heading.
        date: for the heading.
    """
    bottom = _TOP + _ROW * len(rows)
    drawing = Drawing(_WIDTH, bottom + 120)
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    colours = dict(zip([name for name in names if name != OURS], PEERS, strict=False)) | {OURS: OUR_COLOUR}
    shares = [_share(row, name) for row in rows for name in row["contenders"]]
    most = max(1.0, *shares) * 1.03

    def at(share: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * share / most

    points = f", M = N = {rows[0]['rows']:,}" if rows else ""
    drawing.add(
        Text(24, 30, f"Pairs a second on a GPU, as a share of the bound{points}", 19, bold=True),
        Text(24, 56, f"{gpu}, {date}", 12.5, FAINT),
    )
    for place, name in enumerate(sorted(names, key=lambda name: name != OURS)):
        x = _LEFT + 8 + 150 * place
        drawing.add(Dot(x, 86, 6.5 if name == OURS else 5, colours[name]), Text(x + 13, 86, name, 12.5))
    for tick in range(int(most * 4) + 1):
        edge = at(tick / 4)
        drawing.add(Line([(edge, _TOP - 14), (edge, bottom)], INK if tick == 4 else RULE, 1.5 if tick == 4 else 1.0))
        drawing.add(Text(edge, bottom + 16, f"{tick * 25} %", 12, anchor="middle"))
    drawing.add(
        Text(_RIGHT + 110, 104, "1e9 pairs/s", 11, FAINT, anchor="end"),
        Text(_RIGHT + 190, 104, "of the bound", 11, FAINT, anchor="end"),
        Text(_RIGHT + 290, 104, "times best peer", 11, FAINT, anchor="end"),
    )
    for number, row in enumerate(rows):
        _draw_row(drawing, row, _TOP + _ROW * number + _ROW / 2 - 8, colours, at)
    drawing.add(*(Text(24, bottom + 56 + 17 * place, line, 11, FAINT) for place, line in enumerate(_NOTE.splitlines())))
    return drawing


def _share(row: Mapping[str, Any], name: str) -> float:
    return float(row["contenders"][name]["pairs_per_second"] / row["bound_pairs_per_second"])


def _draw_row(drawing: Drawing, row: Mapping[str, Any], y: float, colours: Mapping[str, str], at: Any) -> None:
    figures = row["contenders"]
    drawing.add(Text(_LEFT - 14, y, row["name"], 12.5, anchor="end"))
    if OURS in figures:
        rate = figures[OURS]["pairs_per_second"]
        drawing.add(Box(at(0), y - 9, at(_share(row, OURS)) - at(0), 18, colours[OURS]))
        others = [figure["pairs_per_second"] for name, figure in figures.items() if name != OURS]
        drawing.add(
            Text(_RIGHT + 110, y, f"{rate * 1e-9:,.3g}" if rate < 1e12 else f"{rate * 1e-9:,.0f}", 12, anchor="end"),
            Text(_RIGHT + 190, y, f"{_share(row, OURS):.0%}", 12, OUR_COLOUR, anchor="end", bold=True),
            Text(_RIGHT + 290, y, f"{rate / max(others):.1f}x" if others else "", 12, anchor="end"),
        )
    for name in figures:
        if name != OURS:
            drawing.add(Dot(at(_share(row, name)), y, 5, colours[name]))
