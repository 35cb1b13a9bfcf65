"""strip.png: a quick look at every observation of an area, side by side in order of time."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.outputs.drawing import INK, QUIET

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = 6
PANEL_IN, CAPTION_IN, TITLE_IN, DPI = 2.2, 0.72, 0.5, 110


@dataclass(frozen=True, slots=True, kw_only=True)
class StripPanel:
    """One picture of a strip."""

    rgba: NDArray[np.uint8] = field(repr=False, compare=False)
    """(y, x, 4), alpha 0 where there is nothing to see; all of a strip have one shape."""
    outline: tuple[NDArray[np.float64], ...] = field(repr=False, compare=False)
    """Rings of the area, each (n, 2) columns and rows from the upper left corner."""
    title: str
    lines: tuple[str, ...] = ()
    """What stands beneath the picture."""


def render_strip(panels: Sequence[StripPanel], *, title: str) -> bytes:
    """The strip as PNG: `panels` from left to right and downwards, at most `COLUMNS` in a row.

    Where there is nothing to see the ground is hatched; the area's outline is drawn over every picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(1, min(COLUMNS, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    height, width = panels[0].rgba.shape[:2] if panels else (1, 1)
    tall = PANEL_IN * min(2.0, max(0.3, height / width))
    size = (max(4.0, columns * (PANEL_IN + 0.15) + 0.15), rows * (tall + CAPTION_IN) + TITLE_IN)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    figure.text(0.15 / size[0], 1 - 0.3 / size[1], title, fontsize=10, color=INK, weight="bold", va="center")
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left = 0.15 + column * (PANEL_IN + 0.15)
        bottom = size[1] - TITLE_IN - row * (tall + CAPTION_IN) - tall
        axes = figure.add_axes((left / size[0], bottom / size[1], PANEL_IN / size[0], tall / size[1]))
        _draw(axes, panel)
        _caption(figure, panel, (left / size[0], bottom / size[1]), line=0.15 / size[1])
    FigureCanvasAgg(figure)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _draw(axes: Any, panel: StripPanel) -> None:
    from matplotlib.patches import Rectangle

    height, width = panel.rgba.shape[:2]
    hatched = Rectangle((0, 0), width, height, facecolor="#f4f4f2", edgecolor="#c9c9c4", hatch="////", linewidth=0)
    axes.add_patch(hatched)
    axes.imshow(panel.rgba, extent=(0, width, height, 0), interpolation="nearest", zorder=2)
    for ring in panel.outline:
        axes.plot(ring[:, 0], ring[:, 1], color="white", linewidth=1.8, zorder=3)
        axes.plot(ring[:, 0], ring[:, 1], color="#d1495b", linewidth=0.9, zorder=4)
    axes.set_xlim(-0.02 * width, 1.02 * width)
    axes.set_ylim(1.02 * height, -0.02 * height)
    axes.set_aspect("equal")
    axes.axis("off")


def _caption(figure: Any, panel: StripPanel, corner: tuple[float, float], *, line: float) -> None:
    left, bottom = corner
    figure.text(left, bottom - 0.9 * line, panel.title, fontsize=7.5, color=INK, weight="bold", va="center")
    for number, text in enumerate(panel.lines, 1):
        figure.text(left, bottom - (0.9 + 0.95 * number) * line, text, fontsize=6.5, color=QUIET, va="center")
