"""clusters.png: which tiles are of one kind, on a map, and what each kind looks like."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.outputs.drawing import INK, PALETTE, QUIET

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN = 12
"""Clusters in the legend; what comes after them is on the map alone."""

_GOLDEN = 0.61803398875  # each next hue lies in the largest gap that those before leave
_MAP_IN, _LINE_IN, _DPI = 6.4, 0.92, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLine:
    """One cluster in the legend."""

    code: int
    text: str
    """How large it is."""
    rgba: NDArray[np.uint8] = field(repr=False, compare=False)
    """(y, x, 4) of its most typical tile."""


def cluster_colours(count: int) -> dict[int, tuple[int, int, int]]:
    """Red, green, blue of the codes 1 to `count`; the first have PALETTE's colours."""
    colours = {}
    for code in range(1, count + 1):
        if code <= len(PALETTE):
            red, green, blue = (int(PALETTE[code - 1][at : at + 2], 16) for at in (1, 3, 5))
        else:
            light = (0.45, 0.62, 0.78)[code % 3]
            parts = colorsys.hls_to_rgb(code * _GOLDEN % 1.0, light, 0.6)
            red, green, blue = (round(255 * part) for part in parts)
        colours[code] = (red, green, blue)
    return colours


def render_clusters(
    shapes: NDArray[np.object_],
    codes: NDArray[np.integer],
    lines: Sequence[ClusterLine],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> bytes:
    """The map as PNG; equal input gives equal bytes.

    Args:
        shapes: the tiles' ground in EPSG:4326.
        codes: the cluster of each, from 1 on.
        lines: the legend, the largest first.
        title: what is mapped.
        notes: what readers must be told, a line each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = lines[:SHOWN]
    columns = 1 if len(shown) <= 6 else 2
    tall = max(4.2, -(-len(shown) // columns) * _LINE_IN + 0.2)
    below = 0.35 + 0.2 * len(notes)
    size = (_MAP_IN + 0.3 + 2.5 * columns, tall + 0.5 + below)
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white")
    figure.text(0.15 / size[0], 1 - 0.27 / size[1], title, fontsize=11, color=INK, weight="bold", va="center")
    area = (0.75 / size[0], (below + 0.25) / size[1], (_MAP_IN - 0.85) / size[0], (tall - 0.3) / size[1])
    _draw_map(figure.add_axes(area), shapes, codes, cluster_colours(max(int(codes.max()), len(lines))))
    for number, line in enumerate(shown):
        down, across = number // columns, number % columns
        left, top = _MAP_IN + 0.1 + 2.5 * across, size[1] - 0.5 - down * _LINE_IN
        _draw_line(figure, line, (left, top), size)
    if len(lines) > SHOWN:
        text = f"and {len(lines) - SHOWN} smaller ones"
        figure.text((_MAP_IN + 0.1) / size[0], (below - 0.05) / size[1], text, fontsize=7.5, color=QUIET)
    for number, note in enumerate(notes):
        figure.text(0.15 / size[0], (below - 0.3 - 0.2 * number) / size[1], note, fontsize=7.5, color=QUIET)
    FigureCanvasAgg(figure)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _draw_map(
    axes: Any, shapes: NDArray[np.object_], codes: NDArray[np.integer], colours: dict[int, tuple[int, int, int]]
) -> None:
    from matplotlib.collections import PolyCollection

    parts, row = shapely.get_parts(shapes, return_index=True)
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_exterior_ring(parts)]
    low, high = min(ring[:, 0].min() for ring in rings), max(ring[:, 0].max() for ring in rings)
    if high - low > 180.0:  # on both sides of the antimeridian: one map all the same
        rings = [ring + np.array([360.0, 0.0]) if ring[:, 0].max() < 0.0 else ring for ring in rings]
    fills = [tuple(part / 255 for part in colours[code]) for code in codes[row].tolist()]
    axes.add_collection(PolyCollection(rings, facecolors=fills, edgecolors="white", linewidths=0.15))
    axes.autoscale_view()
    middle = np.concatenate(rings)[:, 1].mean()
    axes.set_aspect(1.0 / max(np.cos(np.radians(middle)), 0.05), adjustable="datalim")
    axes.set_facecolor("#f4f4f2")
    axes.tick_params(labelsize=7, colors=QUIET)
    axes.ticklabel_format(useOffset=False)
    for side in axes.spines.values():
        side.set_color("#c9c9c4")


def _draw_line(figure: Any, line: ClusterLine, corner: tuple[float, float], size: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    left, top = corner
    colour = tuple(part / 255 for part in cluster_colours(line.code)[line.code])
    high = _LINE_IN - 0.12
    box = Rectangle(
        (left / size[0], (top - high) / size[1]), 0.14 / size[0], high / size[1], color=colour,
        transform=figure.transFigure,
    )  # fmt: skip
    figure.add_artist(box)
    axes = figure.add_axes(((left + 0.2) / size[0], (top - high) / size[1], high / size[0], high / size[1]))
    axes.imshow(line.rgba, interpolation="nearest")
    axes.axis("off")
    x = (left + 0.3 + high) / size[0]
    figure.text(x, (top - 0.2) / size[1], str(line.code), fontsize=9, color=INK, weight="bold", va="center")
    figure.text(x, (top - 0.36) / size[1], line.text, fontsize=7, color=QUIET, va="top", linespacing=1.3)
