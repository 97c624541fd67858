"""The picture of the demo: before, after, accuracy, time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylazy.demos.digits import NEIGHBOURS
from pylazy.demos.timing import seconds_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pylazy.demos.colours import Quantised
    from pylazy.demos.digits import Classified
    from pylazy.demos.timing import Timing

_INK, _FAINT, _OURS, _THEIRS, _WRONG = "#22313f", "#8795a1", "#0f8b8d", "#c9d1d8", "#c8553d"
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_SHOWN_DIGITS = 6


def draw(path: Path, quantised: Quantised, classified: Classified) -> None:
    """Draw all results into a PNG file of 1800 by 1305 pixels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # a Figure of its own touches no window system and no global state

    with rc_context(_STYLE):
        figure = Figure(figsize=(12, 8.7), facecolor="white")
        grid = figure.add_gridspec(
            3, 1, height_ratios=(4.0, 0.25, 3.3), hspace=0.13, left=0.02, right=0.985, top=0.965, bottom=0.07
        )
        photographs = grid[0].subgridspec(1, 2, wspace=0.025)
        _draw_photograph(
            figure.add_subplot(photographs[0]), quantised.before, f"before: {quantised.colours_before:,} colours"
        )
        _draw_photograph(
            figure.add_subplot(photographs[1]),
            quantised.after,
            f"after {quantised.steps} steps of K-means: {len(quantised.palette)} colours, "
            f"{quantised.psnr_decibel:.1f} dB",
        )
        _draw_palette(figure.add_subplot(grid[1]), quantised)
        panels = grid[2].subgridspec(1, 3, width_ratios=(1.0, 1.1, 1.35), wspace=0.24)
        _draw_digits(figure, panels[0], classified)
        _draw_accuracy(figure.add_subplot(panels[1]), classified)
        _draw_times(figure.add_subplot(panels[2]), (quantised.timing, *classified.timings))
        figure.savefig(path, dpi=150)


def _draw_photograph(axes: Any, image: Any, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title)
    axes.set_axis_off()


def _draw_palette(axes: Any, quantised: Quantised) -> None:
    edges = np.concatenate([[0], np.cumsum(quantised.shares)])
    axes.bar(edges[:-1], 1, width=quantised.shares, align="edge", color=quantised.palette, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_axis_off()


def _draw_digits(figure: Any, place: Any, classified: Classified) -> None:
    wrong = np.flatnonzero(classified.by_neighbours != classified.labels)
    right = np.flatnonzero(classified.by_neighbours == classified.labels)
    shown = [*right[: _SHOWN_DIGITS - min(len(wrong), 2)], *wrong[:2]]
    cells = place.subgridspec(_SHOWN_DIGITS, NEIGHBOURS + 2, wspace=0.08, hspace=0.08, width_ratios=(1, 1.7, *(1,) * 5))
    for row, number in enumerate(shown):
        images = [classified.images[number], None, *classified.neighbours[number]]
        for column, image in enumerate(images):
            axes = figure.add_subplot(cells[row, column])
            axes.set_axis_off()
            if image is not None:
                axes.imshow(image, cmap="gray_r", vmin=0, vmax=16)
            else:
                is_wrong = classified.by_neighbours[number] != classified.labels[number]
                text = f"{classified.by_neighbours[number]}" + (
                    f" \u2260 {classified.labels[number]}" if is_wrong else ""
                )
                axes.text(0.5, 0.5, text, ha="center", va="center", weight="bold", color=_WRONG if is_wrong else _OURS)
            if row == 0 and column == 0:
                axes.set_title(f"unseen digit, verdict, {NEIGHBOURS} nearest", pad=6)


def _draw_accuracy(axes: Any, classified: Classified) -> None:
    axes.plot(classified.bandwidths, 100 * classified.leave_one_out, "-o", color=_FAINT, markersize=4, linewidth=1.5)
    best = classified.leave_one_out.argmax()
    axes.plot(classified.bandwidths[best], 100 * classified.leave_one_out[best], "o", color=_OURS, markersize=9)
    axes.set(xlabel="bandwidth of the Gaussian kernel", ylabel="leave-one-out accuracy, %")
    axes.set_title("kernel regression on the digits", pad=6)
    axes.grid(axis="y", color=_THEIRS, linewidth=0.6, alpha=0.7)
    text = (
        f"held-out accuracy\n"
        f"{100 * classified.kernel_accuracy:.1f} %  kernel regression\n"
        f"{100 * classified.neighbours_accuracy:.1f} %  {NEIGHBOURS} nearest neighbours"
    )
    axes.text(0.04, 0.06, text, transform=axes.transAxes, va="bottom", linespacing=1.5, color=_OURS, weight="bold")


def _draw_times(axes: Any, timings: Sequence[Timing]) -> None:
    fastest = min(timing.pylazy_seconds for timing in timings)
    longest = max(timing.numpy_seconds for timing in timings)
    for row, timing in enumerate(timings):
        for offset, seconds, colour in ((-0.17, timing.pylazy_seconds, _OURS), (0.17, timing.numpy_seconds, _THEIRS)):
            axes.barh(row + offset, seconds, height=0.3, color=colour)
            axes.text(seconds * 1.12, row + offset, seconds_text(seconds), va="center", fontsize=9)
        axes.text(fastest / 3.3, row - 0.42, timing.task, va="bottom", fontsize=9.5)
        axes.text(longest * 14, row, f"{timing.ratio:.0f}x", va="center", ha="right", weight="bold", color=_OURS)
    axes.set_xscale("log")
    axes.set(xlim=(fastest / 4, longest * 15), ylim=(len(timings) - 0.55, -0.75), yticks=[], xlabel="seconds")
    axes.spines["left"].set_visible(False)
    axes.set_title("time: pylazy (dark), dense NumPy (light)", pad=6)
