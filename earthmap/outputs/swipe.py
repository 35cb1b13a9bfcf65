"""Before and after: two pictures of the same ground with a divider to drag, and what changed drawn over them.

The divider is the browser's own slider laid over the pictures: mouse, touch and arrow keys move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.outputs.backdrop import Backdrop
from earthmap.outputs.drawing import Look, Moment, backdrops_of, squeeze_at
from earthmap.outputs.markup import escaped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bounds = tuple[float, float, float, float]

MAX_SWIPES = 3
"""Pairs of dates that are shown so."""

MAX_VERTICES = 20_000
"""Of what is drawn over one pair; outlines are simplified until they have no more."""

UNITS = 4000
"""Steps of the longer side in which outlines are drawn."""

MAX_WIDTH_PX, MAX_HEIGHT_PX = 860, 620


@dataclass(frozen=True, slots=True, kw_only=True)
class Swipe:
    """Two pictures to compare."""

    title: str
    before: int
    """Index of the backdrop."""
    after: int
    moment: str | None
    """What is drawn over them; None where no question compares the two."""


def find_swipes(moments: Sequence[Moment], backdrops: Sequence[Backdrop]) -> list[Swipe]:
    """The pairs of the change questions, each once; without any the first and last picture of one sensor."""
    order = {id(backdrop): index for index, backdrop in enumerate(backdrops)}
    found: dict[tuple[int, int], Swipe] = {}
    for moment in moments:
        before, after = backdrops_of(moment, backdrops)
        if moment.is_pair and before is not None and after is not None and before is not after:
            pair = (order[id(before)], order[id(after)])
            found.setdefault(pair, Swipe(title=moment.label, before=pair[0], after=pair[1], moment=moment.id))
    return list(found.values())[:MAX_SWIPES] or _first_and_last(backdrops, moments[0].sensor if moments else "")


def _first_and_last(backdrops: Sequence[Backdrop], preferred: str) -> list[Swipe]:
    sensors = [backdrop.sensor for backdrop in backdrops]
    for sensor in sorted(set(sensors), key=lambda name: (name != preferred, name)):
        own = sorted(
            (index for index, name in enumerate(sensors) if name == sensor), key=lambda i: backdrops[i].datetime
        )
        if len(own) > 1 and backdrops[own[0]].datetime.date() != backdrops[own[-1]].datetime.date():
            return [Swipe(title="First and last picture", before=own[0], after=own[-1], moment=None)]
    return []


def swipe_html(
    swipe: Swipe,
    backdrops: Sequence[Backdrop],
    edges: Sequence[Bounds],
    *,
    frame: Bounds,
    pole: float | None,
    shapes: Sequence[tuple[NDArray[np.object_], Look]] = (),
) -> str:
    """The two pictures as HTML; `data-picture` says which picture of the page an image shows.

    Args:
        swipe: which pictures.
        backdrops: all of the page.
        edges: where they lie (west, south, east, north).
        frame: the ground that is shown.
        pole: the pole that the map is drawn around, if it is.
        shapes: what is drawn over them, by look.
    """
    squeeze = squeeze_at(frame, pole)
    wide, high = max(1e-6, (frame[2] - frame[0]) * squeeze), max(1e-6, frame[3] - frame[1])
    dates = [f"{backdrops[index].datetime:%Y-%m-%d}" for index in (swipe.before, swipe.after)]
    before, after = (
        f'<img data-picture="{index}" style="{_placed(edges[index], frame)}" alt="{escaped(backdrops[index].title)}">'
        for index in (swipe.before, swipe.after)
    )
    label = f"Divider between {dates[0]} on the left and {dates[1]} on the right"
    drawn = _outlines(shapes, frame, squeeze) if len(shapes) else ""
    switch = (
        '<label class="quiet"><input type="checkbox" class="results" checked> what changed</label>' if drawn else ""
    )
    narrow = min(MAX_WIDTH_PX, MAX_HEIGHT_PX * wide / high)
    return (
        f'<figure class="swipe"><figcaption>{escaped(swipe.title)} {switch}</figcaption>'
        f'<div class="two" style="aspect-ratio:{wide / high:.5f};max-width:{narrow:.0f}px">{before}'
        f'<div class="cut">{after}</div>{drawn}'
        f'<span class="date left">{dates[0]}</span><span class="date right">{dates[1]}</span>'
        '<span class="divider"></span>'
        f'<input type="range" min="0" max="100" step="0.5" value="50" aria-label="{escaped(label)}"></div></figure>'
    )


def _placed(edges: Bounds, frame: Bounds) -> str:
    wide, high = frame[2] - frame[0] or 1.0, frame[3] - frame[1] or 1.0
    left, top = (edges[0] - frame[0]) / wide, (frame[3] - edges[3]) / high
    return (
        f"left:{100 * left:.4f}%;top:{100 * top:.4f}%;"
        f"width:{100 * (edges[2] - edges[0]) / wide:.4f}%;height:{100 * (edges[3] - edges[1]) / high:.4f}%"
    )


_DASHED = ' stroke-dasharray="5 3"'


def _outlines(shapes: Sequence[tuple[NDArray[np.object_], Look]], frame: Bounds, squeeze: float) -> str:
    """What was found as an SVG that fills the frame; whole numbers, for they are many."""
    scale = UNITS / max((frame[2] - frame[0]) * squeeze, frame[3] - frame[1], 1e-9)
    paths = "".join(
        f'<path d="{path}" fill="{look.fill}" fill-opacity="{0.12 if look.lost else 0.35}" stroke="{look.line}" '
        f'stroke-width="1.4" vector-effect="non-scaling-stroke" fill-rule="evenodd"'
        f"{_DASHED if look.lost else ''}/>"
        for geometries, look in shapes
        if (path := _path(_simplified(geometries, 1 / scale), frame, (scale * squeeze, scale)))
    )
    box = f"0 0 {(frame[2] - frame[0]) * squeeze * scale:.0f} {(frame[3] - frame[1]) * scale:.0f}"
    return f'<svg viewBox="{box}" preserveAspectRatio="none" aria-hidden="true">{paths}</svg>' if paths else ""


def _simplified(geometries: NDArray[np.object_], step: float) -> Any:
    kept = shapely.simplify(geometries, step)
    while shapely.get_num_coordinates(kept).sum() > MAX_VERTICES:
        step *= 2
        kept = shapely.simplify(geometries, step, preserve_topology=False)
    return kept


def _path(geometries: Any, frame: Bounds, scale: tuple[float, float]) -> str:
    rings = shapely.get_rings([part for part in shapely.get_parts(geometries) if part.geom_type == "Polygon"])
    parts = []
    for ring in rings:
        places = np.round((shapely.get_coordinates(ring) - (frame[0], frame[3])) * (scale[0], -scale[1])).astype(int)
        parts.append("M" + "L".join(f"{x} {y}" for x, y in places.tolist()[:-1]) + "Z")
    return "".join(parts)
