"""A picture with what was found drawn on it, as PNG: `earthmap ask --draw`.

Every pixel of the picture is a square of whole pixels of the drawing, so that an edge stands where it was found.
Colours are Okabe and Ito's, which readers who do not see all hues can tell apart (jfly.uni-koeln.de/color); land cover
has those of the maps. A label stands beside its thing where there is room.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from earthmap.outputs.drawing import COLOURS, INK, LOST, PALETTE, QUIET, scale_bar_m

if TYPE_CHECKING:
    from matplotlib.path import Path
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)))
"""Of lines: PALETTE holds the colours of labels in the order in which they come; from the eighth on lines are dashed,
then dotted."""

ONE_PX, TWO_PX = 896, 640
"""About how many pixels of the drawing a picture takes a side: alone, and beside another."""

MOST_NAMED, MOST_NUMBERED = 60, 300
"""Things that have their label beside them, and those that have their number; of more only the outline is drawn."""

MARGIN, GAP, LINE = 24, 16, 22
"""Pixels around the pictures, between them, and from line to line of text."""

MIN_WIDTH = 560
DPI = 100
_WIDE_EM = 0.6
"""Mean width of a letter beside its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchPicture:
    """What was asked about at one date."""

    rgb: NDArray[np.uint8] = field(repr=False, compare=False)
    """(y, x, 3)."""
    empty: NDArray[np.bool_] = field(repr=False, compare=False)
    """(y, x), True where nothing was measured: hatched on white."""
    hidden: NDArray[np.bool_] = field(repr=False, compare=False)
    """(y, x), True where the question's own rule lets nothing be seen, as under cloud: hatched on the picture."""
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One thing to draw, in pixels of the picture: columns to the right, rows downwards."""

    kind: str
    """`point`, `box`, `oriented_box`, `polygon` or `mask`."""
    geometry: BaseGeometry = field(repr=False)
    name: str = ""
    """What it is; things of one name have one colour."""
    text: str = ""
    """What stands beside it."""
    track: int | None = None
    """Marks of one track are joined in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What stands around the pictures."""

    question: str
    answer: str
    legend: Mapping[str, str] = field(default_factory=dict)
    """Text beside each name of the marks."""
    lines: tuple[str, ...] = ()
    """Where, when, by which sensor and by what it was answered."""
    metres_per_px: float | None = None
    core: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of what was answered of each picture, where that is not all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A drawing, and where in it the pictures' pixels are."""

    png: bytes = field(repr=False)
    corners: tuple[tuple[int, int], ...]
    """Left and top of each picture in pixels of the drawing."""
    scale: int
    """Pixels of the drawing along one pixel of a picture."""


def render_sketch(pictures: Sequence[SketchPicture], marks: Sequence[Mark], caption: Caption) -> Sketch:
    """The pictures side by side, the marks on the last of them; equal arguments give equal bytes.

    At most two pictures, of one shape.
    """
    from matplotlib import rc_context

    style: dict[Any, Any] = {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "text.parse_math": False,
        "text.usetex": False, "path.simplify": False,
    }  # fmt: skip
    with warnings.catch_warnings(), rc_context(style):
        warnings.simplefilter("ignore")  # a question may have letters that the font has not
        return _drawn(pictures, marks, caption)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """All in pixels of the drawing, from its upper left corner."""

    scale: int
    width: int
    height: int
    head: tuple[str, ...]
    answer: tuple[str, ...]
    corners: tuple[tuple[int, int], ...]
    foot: int
    """Top of what stands below the pictures."""
    legend: tuple[tuple[str, int, int], ...]
    """Name, left and row of each entry."""
    lines: tuple[str, ...]


def _layout(pictures: Sequence[SketchPicture], caption: Caption) -> _Layout:
    rows, columns = pictures[0].rgb.shape[:2]
    scale = max(1, (ONE_PX if len(pictures) == 1 else TWO_PX) // max(rows, columns))
    inner = len(pictures) * columns * scale + (len(pictures) - 1) * GAP
    width = max(inner, MIN_WIDTH) + 2 * MARGIN
    head = tuple(_wrapped(caption.question, width, 17, most=3))
    answer = tuple(_wrapped(caption.answer, width, 15, most=4))
    top = MARGIN + LINE * (len(head) + len(answer) + 1) + 8
    corners = tuple((MARGIN + number * (columns * scale + GAP), top) for number in range(len(pictures)))
    foot = top + rows * scale + 12
    legend, count = _flow(caption.legend, width)
    lines = tuple(part for line in caption.lines for part in _wrapped(line, width, 12, most=3))
    bar = 1 if caption.metres_per_px else 0
    height = foot + LINE * (count + bar) + 18 * len(lines) + MARGIN
    return _Layout(
        scale=scale, width=width, height=height, head=head, answer=answer, corners=corners, foot=foot, legend=legend,
        lines=lines,
    )  # fmt: skip


def _wrapped(text: str, width: int, size: int, *, most: int) -> list[str]:
    letters = max(10, int((width - 2 * MARGIN) / (size * _WIDE_EM)))
    return textwrap.wrap(text, letters, max_lines=most, placeholder=" …", break_long_words=True) or [""]


def _flow(legend: Mapping[str, str], width: int) -> tuple[tuple[tuple[str, int, int], ...], int]:
    """Where each entry of the legend goes, and how many rows they take."""
    places, left, row = [], MARGIN, 0
    for name, text in legend.items():
        wide = 34 + int(len(text) * 13 * _WIDE_EM)
        if left > MARGIN and left + wide > width - MARGIN:
            left, row = MARGIN, row + 1
        places.append((name, left, row))
        left += wide + 12
    return tuple(places), row + 1 if places else 0


def _drawn(pictures: Sequence[SketchPicture], marks: Sequence[Mark], caption: Caption) -> Sketch:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = _layout(pictures, caption)
    figure = Figure(figsize=(layout.width / DPI, layout.height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.axis("off")
    looks = _looks(marks)
    for picture, corner in zip(pictures, layout.corners, strict=True):
        _draw_picture(axes, picture, corner, layout, caption)
    _draw_marks(axes, marks, looks, layout, pictures[-1].rgb.shape[:2])
    _draw_text(axes, layout, caption, looks)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=DPI, metadata={"Software": None})
    return Sketch(png=sink.getvalue(), corners=layout.corners, scale=layout.scale)


# ── looks ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Look:
    colour: str
    style: Any = "-"


def _looks(marks: Sequence[Mark]) -> dict[str, _Look]:
    """The look of each name (of each track, where things are tracked), in the order in which they come."""
    looks: dict[str, _Look] = {}
    free = 0
    for mark in marks:
        key = _key(mark)
        if key in looks:
            continue
        plain = key.removesuffix(" gained")
        if key.endswith(" lost"):
            looks[key] = _Look(LOST, STYLES[1])
        elif plain in COLOURS:
            looks[key] = _Look(COLOURS[plain])
        else:
            looks[key] = _Look(PALETTE[free % len(PALETTE)], STYLES[free // len(PALETTE) % len(STYLES)])
            free += 1
    return looks


def _key(mark: Mark) -> str:
    return mark.name if mark.track is None else f"{mark.name} #{mark.track}"


# ── the picture ──────────────────────────────────────────────────────────────────────────────────────────────


def _enlarged(picture: SketchPicture, scale: int) -> NDArray[np.uint8]:
    """(y, x, 3) with each pixel a square, and with its hatching."""

    def grown(array: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(np.repeat(array, scale, axis=0), scale, axis=1)

    rgb, empty = grown(picture.rgb).copy(), grown(picture.empty)
    rows, columns = np.indices(empty.shape)
    stripe = (rows + columns) % 10 < 2
    rgb[empty] = (244, 244, 242)
    rgb[empty & stripe] = (170, 170, 165)
    over = grown(picture.hidden) & ~empty & stripe
    rgb[over] = (rgb[over] * 0.35 + 255 * 0.65).astype(np.uint8)
    rgb[grown(picture.hidden) & ~empty & ((rows + columns) % 10 == 2)] //= 3
    return rgb


def _draw_picture(
    axes: Any, picture: SketchPicture, corner: tuple[int, int], layout: _Layout, caption: Caption
) -> None:
    left, top = corner
    pixels = _enlarged(picture, layout.scale)
    height, width = pixels.shape[:2]
    axes.imshow(
        pixels, extent=(left, left + width, top + height, top), interpolation="nearest", zorder=1, aspect="auto"
    )
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.text(left, top - 6, picture.title, fontsize=_points(12), color=QUIET, va="bottom", zorder=2)
    if caption.core:
        west, north, east, south = (edge * layout.scale for edge in caption.core)
        frame = np.array([(west, north), (east, north), (east, south), (west, south), (west, north)]) + corner
        axes.plot(frame[:, 0], frame[:, 1], color="white", linewidth=_points(1), dashes=(4, 4), zorder=2)


def _points(pixels: float) -> float:
    return pixels * 72 / DPI


# ── marks ────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw_marks(
    axes: Any, marks: Sequence[Mark], looks: Mapping[str, _Look], layout: _Layout, shape: tuple[int, int]
) -> None:
    corner = np.array(layout.corners[-1], float)
    placed = [shapely.transform(mark.geometry, lambda xy: xy * layout.scale + corner) for mark in marks]
    height, width = shape[0] * layout.scale, shape[1] * layout.scale
    frame = (corner[0], corner[1], corner[0] + width, corner[1] + height)
    for mark, geometry in zip(marks, placed, strict=True):
        _draw_one(axes, mark, geometry, looks[_key(mark)], frame)
    _draw_tracks(axes, marks, placed, looks)
    _draw_labels(axes, marks, placed, looks, frame)


def _draw_one(axes: Any, mark: Mark, geometry: BaseGeometry, look: _Look, frame: tuple[float, ...]) -> None:
    from matplotlib.patches import PathPatch, Rectangle

    inside = Rectangle((frame[0], frame[1]), frame[2] - frame[0], frame[3] - frame[1], transform=axes.transData)
    if mark.kind == "point":
        x, y = shapely.get_coordinates(geometry)[0]
        for size, thick, colour in ((19, 5, "white"), (15, 2, look.colour)):
            axes.plot(x, y, "+", markersize=_points(size), markeredgewidth=_points(thick), color=colour, zorder=5)
        return
    path = _path(geometry)
    alpha = {"mask": 0.42, "polygon": 0.18}.get(mark.kind, 0.0)
    if alpha:
        axes.add_patch(PathPatch(path, facecolor=look.colour, alpha=alpha, linewidth=0, zorder=3, clip_path=inside))
    wide = 1.2 if mark.kind == "mask" else 2.0
    for width, colour, style in ((wide + 2, "white", "-"), (wide, look.colour, look.style)):
        if mark.kind == "mask" and colour == "white":
            continue  # around many small parts white would hide the ground
        axes.add_patch(
            PathPatch(
                path,
                fill=False,
                edgecolor=colour,
                linewidth=_points(width),
                linestyle=style,
                joinstyle="miter",
                zorder=4,
                snap=False,
                clip_path=inside,
            )
        )


def _path(geometry: BaseGeometry) -> Path:
    """Polygons with their holes as one path."""
    from matplotlib.path import Path

    rings = [ring for part in shapely.get_parts(geometry) for ring in (part.exterior, *part.interiors)]
    return Path.make_compound_path(*(Path(shapely.get_coordinates(ring), closed=True) for ring in rings))


def _draw_tracks(axes: Any, marks: Sequence[Mark], placed: Sequence[BaseGeometry], looks: Mapping[str, _Look]) -> None:
    ways: dict[str, list[tuple[float, float]]] = {}
    for mark, geometry in zip(marks, placed, strict=True):
        if mark.track is not None:
            ways.setdefault(_key(mark), []).append((geometry.centroid.x, geometry.centroid.y))
    for key, way in ways.items():
        x, y = zip(*way, strict=True)
        axes.plot(x, y, color="white", linewidth=_points(4), zorder=4)
        axes.plot(x, y, color=looks[key].colour, linewidth=_points(2), marker="o", markersize=_points(5), zorder=5)


def _draw_labels(
    axes: Any,
    marks: Sequence[Mark],
    placed: Sequence[BaseGeometry],
    looks: Mapping[str, _Look],
    frame: tuple[float, ...],
) -> None:
    """What stands beside the things: their text, of many their number, of very many nothing."""
    last = {_key(mark): number for number, mark in enumerate(marks) if mark.track is not None}
    named = [
        number
        for number, mark in enumerate(marks)
        if mark.kind != "mask" and mark.text and last.get(_key(mark), number) == number
    ]
    if not named or len(named) > MOST_NUMBERED:
        return
    texts = [marks[number].text if len(named) <= MOST_NAMED else str(number + 1) for number in named]
    size = 13 if len(named) <= 20 else 11
    boxes = np.array([_box(geometry) for geometry in placed])
    places = place_labels([_extent(axes, text, size) for text in texts], boxes[named], boxes, frame)
    for number, text, (x, y) in zip(named, texts, places, strict=True):
        colour = looks[_key(marks[number])].colour
        axes.text(
            x + 3, y + 2, text, fontsize=_points(size), va="top", ha="left", zorder=7, color=_readable(colour),
            bbox={"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "white", "linewidth": 0.6},
        )  # fmt: skip


def _box(geometry: BaseGeometry) -> tuple[float, float, float, float]:
    west, north, east, south = geometry.bounds
    wide = 8.0 if geometry.geom_type == "Point" else 2.0
    return west - wide, north - wide, east + wide, south + wide


def _extent(axes: Any, text: str, size: int) -> tuple[float, float]:
    """Width and height of a label in pixels."""
    from matplotlib.font_manager import FontProperties

    renderer = axes.figure.canvas.get_renderer()
    wide, tall, _ = renderer.get_text_width_height_descent(text, FontProperties(size=_points(size)), ismath=False)
    return wide + 8.0, tall + 6.0


def _readable(colour: str) -> str:
    red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "white"


def place_labels(
    sizes: Sequence[tuple[float, float]],
    own: NDArray[np.float64],
    others: NDArray[np.float64],
    frame: tuple[float, ...],
) -> list[tuple[float, float]]:
    """Left and top of each label: beside its thing, over as little of all things and earlier labels as can be.

    Args:
        sizes: Width and height of each label.
        own: (n, 4) left, top, right, bottom of the thing of each.
        others: (m, 4) the same of all things.
        frame: The same of what a label must not leave.
    """
    taken = np.empty((0, 4))
    places = []
    for (wide, tall), (west, north, east, south) in zip(sizes, own, strict=True):
        corners = np.array(
            [
                (west, north - tall), (west, south), (east - wide, north - tall), (east - wide, south),
                (east, north), (west - wide, north), (east, south - tall), (west - wide, south - tall),
                (west + 2, north + 2),
            ]
        )  # fmt: skip
        low = np.array(frame[:2])
        high = np.maximum(np.array(frame[2:]) - np.array([wide, tall]), low)
        corners = np.clip(corners, low, high)
        boxes = np.hstack([corners, corners + np.array([wide, tall])])
        cost = _overlap(boxes, others) + 3.0 * _overlap(boxes, taken) + 1e-3 * np.arange(len(boxes))
        best = int(cost.argmin())
        taken = np.vstack([taken, boxes[best]])
        places.append((float(corners[best, 0]), float(corners[best, 1])))
    return places


def _overlap(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) pixels of each of `boxes` (n, 4) under all of `others` (m, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=-1).sum(axis=-1)
    return shared


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw_text(axes: Any, layout: _Layout, caption: Caption, looks: Mapping[str, _Look]) -> None:
    top = MARGIN
    for lines, size, weight, colour in ((layout.head, 17, "bold", INK), (layout.answer, 15, "normal", INK)):
        for line in lines:
            axes.text(MARGIN, top, line, fontsize=_points(size), weight=weight, color=colour, va="top")
            top += LINE
    top = layout.foot
    for name, left, row in layout.legend:
        _draw_entry(axes, caption.legend[name], _look_named(looks, name), (left, top + row * LINE))
    top += LINE * (1 + layout.legend[-1][2]) if layout.legend else 0
    if caption.metres_per_px:
        _draw_bar(axes, caption.metres_per_px / layout.scale, (MARGIN, top))
        top += LINE
    for line in layout.lines:
        axes.text(MARGIN, top, line, fontsize=_points(12), color=QUIET, va="top")
        top += 18


def _look_named(looks: Mapping[str, _Look], name: str) -> _Look:
    return looks.get(name) or _Look(QUIET)


def _draw_entry(axes: Any, text: str, look: _Look, corner: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    left, top = corner
    axes.add_patch(Rectangle((left, top + 2), 22, 12, facecolor=look.colour, alpha=0.45, linewidth=0))
    axes.add_patch(
        Rectangle(
            (left, top + 2), 22, 12, fill=False, edgecolor=look.colour, linewidth=_points(2), linestyle=look.style
        )
    )
    axes.text(left + 30, top, text, fontsize=_points(13), color=INK, va="top")


def _draw_bar(axes: Any, metres_per_px: float, corner: tuple[int, int]) -> None:
    left, top = corner
    metres = scale_bar_m(ONE_PX * metres_per_px)
    length = metres / metres_per_px
    axes.plot([left, left + length], [top + 8, top + 8], color=INK, linewidth=_points(3), solid_capstyle="butt")
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    axes.text(left + length + 8, top, text, fontsize=_points(12), color=INK, va="top")
