"""The picture of pairs a second over the work of a pair, under what the machine allows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pylazy.bench.drawing import FAINT, INK, RULE, Dot, Drawing, Line, Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

OURS = "#0f8b8d"
PEERS = ("#c8553d", "#e09f3e", "#5f6caf", "#8a5a83", "#7a8b3c", "#a0a7ad")
_WIDTH, _HEIGHT = 1180, 712
_LEFT, _RIGHT, _TOP, _BOTTOM = 86, 700, 100, 596
_TABLE = 742


@dataclass(frozen=True)
class LogScale:
    """A logarithmic axis: from values to pixels."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        """Where a value stands."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> Iterator[tuple[float, bool]]:
        """Values for marks, and whether a mark has a label."""
        for exponent in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for digit in range(1, 10):
                value = digit * 10.0**exponent
                if self.low <= value <= self.high:
                    yield value, digit in (1, 2, 5)


def draw_roofline(
    rows: Sequence[Mapping[str, Any]],
    *,
    peaks: Mapping[str, float],
    machine: str,
    date: str,
) -> Drawing:
    """Draw cases under the roof.

    Args:
        rows: of `pylazy.bench.cpu_reductions.time_case`, each with the figures of a contender at least, and with
            "slots", the work of a pair in multiply-adds.
        peaks: dtype -> multiply-adds a second of one core.
        machine: for the heading.
        date: for the heading.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    colours = dict(zip([name for name in names if name != "pylazy"], PEERS, strict=False)) | {"pylazy": OURS}
    rates = [found["gpairs_per_core_second"] for row in rows for found in row["contenders"].values()]
    work = [row["slots"] for row in rows]
    low, high = min(work) / 1.35, max(work) * 1.35
    roof = max(peaks.values()) * 1e-9 / low
    x = LogScale(low, high, _LEFT, _RIGHT)
    y = LogScale(min(*rates, min(peaks.values()) * 1e-9 / high) / 1.5, roof * 1.25, _BOTTOM, _TOP)

    drawing = Drawing(_WIDTH, _HEIGHT)
    drawing.add(
        Text(_LEFT, 30, "Pairs a second on one core, under what the processor allows", 19, bold=True),
        Text(_LEFT, 56, f"{machine}, {date}", 12.5, FAINT),
    )
    _draw_axes(drawing, x, y)
    for number, (dtype, peak) in enumerate(sorted(peaks.items())):
        giga = peak * 1e-9
        drawing.add(Line([(x(low), y(giga / low)), (x(high), y(giga / high))], INK, 2.0, dashed=number > 0))
        words = f"{dtype}: {giga:.0f} G multiply-adds/s"
        slope = math.degrees(math.atan2(y(giga / high) - y(giga / low), x(high) - x(low)))
        place = _middle_of_widest_gap([low, *work, high])
        drawing.add(Text(x(place) + 4, y(giga / place) - 12, words, 11.5, anchor="middle", angle=-slope))
    _draw_cases(drawing, rows, names, colours, peaks, x, y)
    _draw_table(drawing, rows, names, colours, peaks)
    drawing.add(*(Text(_LEFT, 656 + 17 * place, line, 11, FAINT) for place, line in enumerate(_NOTE.splitlines())))
    return drawing


_NOTE = """\
The roof is the rate of multiply-adds that a matrix product of NumPy reached here, over those that fit into the time of
a pair in the best AVX-512 loop known for a Zen 4 core: a bound, out of reach for processors without such instructions.
One thread each, medians of processor time."""


def _middle_of_widest_gap(values: Sequence[float]) -> float:
    """Find where words hide nothing, on a logarithmic axis."""
    ordered = sorted(values)
    low, high = max(pairwise(ordered), key=lambda pair: pair[1] / pair[0])
    return math.sqrt(low * high)


def _number(value: float) -> str:
    return f"{value:g}" if value < 1000 else f"{value:,.0f}"


def _draw_axes(drawing: Drawing, x: LogScale, y: LogScale) -> None:
    for value, labelled in y.ticks():
        if labelled:
            drawing.add(Line([(_LEFT, y(value)), (_RIGHT, y(value))], RULE))
            drawing.add(Text(_LEFT - 10, y(value), _number(value), 12, anchor="end"))
    for value, labelled in x.ticks():
        drawing.add(Line([(x(value), _BOTTOM), (x(value), _BOTTOM + (7 if labelled else 4))], FAINT))
        if labelled:
            drawing.add(Text(x(value), _BOTTOM + 18, _number(value), 12, anchor="middle"))
    drawing.add(
        Line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], FAINT),
        Text(_LEFT - 62, (_TOP + _BOTTOM) / 2, "1e9 pairs a second, one core", 12.5, anchor="middle", angle=90),
        Text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, "work of a pair, in multiply-adds", 12.5, anchor="middle"),
    )


def _draw_cases(
    drawing: Drawing,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    colours: Mapping[str, str],
    peaks: Mapping[str, float],
    x: LogScale,
    y: LogScale,
) -> None:
    badge = {}
    last = -math.inf
    for row in sorted(rows, key=lambda row: row["slots"]):
        last = max(x(row["slots"]), last + 17)
        badge[row["name"]] = last
    for number, row in enumerate(rows, start=1):
        at = x(row["slots"])
        top = y(peaks[row["dtype"]] * 1e-9 / row["slots"])
        figures = row["contenders"]
        lowest = max(y(found["gpairs_per_core_second"]) for found in figures.values())
        drawing.add(Line([(at, top), (at, lowest)], "#cfd6db"))
        highest = min(y(max(peaks.values()) * 1e-9 / row["slots"]), top)
        drawing.add(Line([(badge[row["name"]], highest - 22), (at, top)], "#cfd6db"))
        drawing.add(Dot(badge[row["name"]], highest - 24, 8.5, INK))
        drawing.add(Text(badge[row["name"]], highest - 24, str(number), 10.5, "#ffffff", anchor="middle", bold=True))
        for name in sorted(names, key=lambda name: name == "pylazy"):
            if name in figures:
                radius = 6.5 if name == "pylazy" else 4.5
                drawing.add(Dot(at, y(figures[name]["gpairs_per_core_second"]), radius, colours[name]))


def _draw_table(
    drawing: Drawing,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    colours: Mapping[str, str],
    peaks: Mapping[str, float],
) -> None:
    for place, name in enumerate(sorted(names, key=lambda name: name != "pylazy")):
        at = (_TABLE + 8 + 136 * (place % 3), 94 + 22 * (place // 3))
        drawing.add(Dot(*at, 6.5 if name == "pylazy" else 4.5, colours[name]))
        drawing.add(Text(at[0] + 13, at[1], name, 12.5, bold=name == "pylazy"))
    peers = [name for name in names if name != "pylazy"]
    heading = 106 + 22 * (1 + (len(names) - 1) // 3)
    ends = {"rate": _TABLE + 280, "share": _TABLE + 328, "times": _TABLE + 422}
    drawing.add(
        Text(ends["rate"], heading, "Gpair/s", 11, FAINT, anchor="end"),
        Text(ends["share"], heading, "of roof", 11, FAINT, anchor="end"),
        Text(ends["times"], heading, "times best peer", 11, FAINT, anchor="end"),
    )
    for number, row in enumerate(rows, start=1):
        line = heading + 26 * number
        figures = row["contenders"]
        drawing.add(Dot(_TABLE + 8, line, 8.5, INK))
        drawing.add(Text(_TABLE + 8, line, str(number), 10.5, "#ffffff", anchor="middle", bold=True))
        drawing.add(Text(_TABLE + 23, line, row["name"], 11.5))
        if "pylazy" not in figures:
            continue
        rate = figures["pylazy"]["gpairs_per_core_second"]
        bound = peaks[row["dtype"]] * 1e-9 / row["slots"]
        times = [rate / figures[name]["gpairs_per_core_second"] for name in peers if name in figures]
        drawing.add(
            Text(ends["rate"], line, f"{rate:.2f}", 11.5, OURS, anchor="end", bold=True),
            Text(ends["share"], line, f"{rate / bound:.0%}", 11.5, anchor="end"),
            Text(ends["times"], line, f"{min(times):.1f}x" if times else "", 11.5, anchor="end"),
        )
