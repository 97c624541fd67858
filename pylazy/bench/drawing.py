"""Drawings of lines, dots and words, written as SVG by ourselves and as PNG by matplotlib."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from pylazy.runtime.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INK, FAINT, RULE = "#22313f", "#6b7a86", "#e3e8ec"
_DOTS_PER_PIXEL = 2
_POINTS_PER_INCH, _PIXELS_PER_INCH = 72, 100
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}


@dataclass(frozen=True)
class Line:
    """A line through points, in pixels from the upper left corner."""

    points: Sequence[tuple[float, float]]
    colour: str = INK
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Box:
    """A filled rectangle, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class Dot:
    """A filled circle with an edge."""

    x: float
    y: float
    radius: float
    colour: str
    edge: str = "#ffffff"


@dataclass(frozen=True)
class Text:
    """One line of words on its middle line; `angle` turns it to the left, in degrees."""

    x: float
    y: float
    words: str
    size: float = 13.0
    colour: str = INK
    anchor: str = "start"
    bold: bool = False
    angle: float = 0.0


@dataclass
class Drawing:
    """A picture of some shapes; what is added later covers what was before.

    Attributes:
        width: pixels.
        height: pixels.
        shapes: in order.
    """

    width: int
    height: int
    shapes: list[Line | Box | Dot | Text] = field(default_factory=list)

    def add(self, *shapes: Line | Box | Dot | Text) -> None:
        """Add shapes."""
        self.shapes += shapes

    def to_svg(self) -> str:
        """Write the picture as SVG, with nothing that it would have to load."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="DejaVu Sans, Verdana, sans-serif">\n'
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>\n'
        )
        return head + "".join(f"{_svg(shape)}\n" for shape in self.shapes) + "</svg>\n"

    def save_svg(self, path: Path) -> None:
        """Write the picture as SVG."""
        path.write_text(self.to_svg(), encoding="utf-8")

    def save_png(self, path: Path) -> None:
        """Write the picture as PNG, with two dots for a pixel each way.

        Raises:
            UnsupportedError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure  # a Figure of its own touches no window system and no global state
        except ImportError:
            raise UnsupportedError(
                f"no PNG is written to {path}: that needs matplotlib, which is not installed; the SVG needs nothing"
            ) from None
        figure = Figure(figsize=(self.width / _PIXELS_PER_INCH, self.height / _PIXELS_PER_INCH), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        for order, shape in enumerate(self.shapes):
            _plot(axes, shape, order)
        figure.savefig(path, dpi=_DOTS_PER_PIXEL * _PIXELS_PER_INCH)


def _svg(shape: Line | Box | Dot | Text) -> str:
    if isinstance(shape, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        dash = ' stroke-dasharray="6 5"' if shape.dashed else ""
        return f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="{shape.width}"{dash}/>'
    if isinstance(shape, Box):
        return (
            f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}" '
            f'fill="{shape.colour}"/>'
        )
    if isinstance(shape, Dot):
        return (
            f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius}" fill="{shape.colour}" '
            f'stroke="{shape.edge}"/>'
        )
    weight = ' font-weight="bold"' if shape.bold else ""
    turn = f' transform="rotate({-shape.angle} {shape.x:.1f} {shape.y:.1f})"' if shape.angle else ""
    return (
        f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size}" fill="{shape.colour}" '
        f'text-anchor="{shape.anchor}" dominant-baseline="central"{weight}{turn}>{escape(shape.words)}</text>'
    )


def _plot(axes: Any, shape: Line | Box | Dot | Text, order: int) -> None:
    from matplotlib.patches import Circle, Rectangle

    points_per_pixel = _POINTS_PER_INCH / _PIXELS_PER_INCH
    if isinstance(shape, Line):
        x, y = zip(*shape.points, strict=True)
        width = shape.width * points_per_pixel
        dashes = (0, (6 / shape.width, 5 / shape.width)) if shape.dashed else "solid"
        axes.plot(x, y, color=shape.colour, linewidth=width, linestyle=dashes, zorder=order)
    elif isinstance(shape, Box):
        place = (shape.x, shape.y)
        axes.add_patch(Rectangle(place, shape.width, shape.height, color=shape.colour, linewidth=0, zorder=order))
    elif isinstance(shape, Dot):
        edge = {"edgecolor": shape.edge, "linewidth": points_per_pixel}
        axes.add_patch(Circle((shape.x, shape.y), shape.radius, facecolor=shape.colour, zorder=order, **edge))
    else:
        axes.text(
            shape.x,
            shape.y,
            shape.words.replace("$", r"\$"),
            fontsize=shape.size * points_per_pixel,
            color=shape.colour,
            ha=_ANCHORS[shape.anchor],
            va="center_baseline" if not shape.angle else "center",
            weight="bold" if shape.bold else "normal",
            rotation=shape.angle,
            rotation_mode="anchor",
            zorder=order,
        )
