"""preview.png: the result as one still picture; a series as small multiples, a change beside its two dates."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.outputs.backdrop import METRES_PER_DEGREE, Backdrop, shrink
from earthmap.outputs.drawing import (
    COLOURS,
    DAMAGE_COLOURS,
    FAILED,
    INK,
    QUIET,
    UNSEEN,
    Look,
    Moment,
    backdrops_of,
    degree_label,
    in_one_piece,
    list_moments,
    look_of,
    moments_of,
    pole_in,
    pole_label,
    scale_bar_m,
    squeeze_at,
    width_m,
)
from earthmap.outputs.numbers import Numbers, format_known, is_written, moment_id, read_numbers, skipped_label
from earthmap.outputs.panels import SIDE_IN, WIDTH_IN, lay_out, letters, shorten, wrap
from earthmap.outputs.pictures import hidden

if TYPE_CHECKING:
    import geopandas
    from numpy.typing import NDArray

    Bounds = tuple[float, float, float, float]

MAX_PANELS = 8
DPI = 100
PANEL_PX = 1200
LEGEND_COLUMNS = 6
UNSEEN_HATCH = "\\\\\\"
HIDDEN_PX = 400
"""Longer side of the picture whose unseen pixels are hatched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    title: str
    note: str
    moment: str | None
    """Question and observation whose results are drawn; None for a picture alone."""
    picture: int | None
    """Index of the backdrop."""
    hidden: tuple[int, ...] = ()
    """Indices of the backdrops whose unseen pixels are hatched."""
    unseen: tuple[str, ...] = ()
    """Reasons that count as unseen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """All that panels draw from."""

    features: Any
    coverage: Any
    shapes: NDArray[np.object_]
    tiles: NDArray[np.object_]
    moments: NDArray[np.object_]
    """Observation of each feature."""
    looks: Sequence[Look]
    pictures: Sequence[Backdrop]
    edges: Sequence[Bounds]
    frame: Bounds
    pole: float | None
    """The pole that the map is drawn around, if it is."""
    skipped: str
    """What ground is called that is hatched."""

    @property
    def squeeze(self) -> float:
        """Length of a unit of x beside one of y."""
        return squeeze_at(self.frame, self.pole)


def render_preview(
    features: geopandas.GeoDataFrame,
    coverage: geopandas.GeoDataFrame,
    summary: Mapping[str, Any],
    *,
    backdrops: Sequence[Backdrop],
    title: str,
    notes: Sequence[str] = (),
) -> bytes:
    """A PNG file of at most 1200 × 900 pixels; equal arguments give equal bytes.

    One observation fills 1200 × 900 pixels. Several are small multiples, at most eight, the first, the last and those
    between at even steps, and the picture is as large as they need. A change alone is shown as before, after and change
    where both dates have a backdrop. `notes` say what is not drawn as it is.
    """
    from matplotlib import rc_context

    numbers = read_numbers(summary)
    ground = _ground(features, coverage, numbers, backdrops)
    panels = _panels(numbers, backdrops)
    style: dict[Any, Any] = {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10.0, "hatch.linewidth": 0.7,
        "text.parse_math": False, "text.color": INK, "axes.edgecolor": "#c9d1d4", "xtick.color": QUIET,
        "ytick.color": QUIET, "text.usetex": False, "svg.hashsalt": "earthmap",
    }  # fmt: skip
    with rc_context(style):
        return _png(_figure(ground, panels, title, notes))


def _png(figure: Any) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=DPI, metadata={"Software": None})
    return sink.getvalue()


def _ground(
    features: geopandas.GeoDataFrame,
    coverage: geopandas.GeoDataFrame,
    numbers: Sequence[Numbers],
    backdrops: Sequence[Backdrop],
) -> _Ground:
    shapes, tiles, edges, frame = in_one_piece(features, coverage, backdrops)
    targets = {row.query_key: row.targets for row in numbers}
    looks = [
        look_of(str(answer), task=str(task), targets=targets.get(key, ()))
        for answer, task, key in zip(features["answer"], features["task"], features["query_key"], strict=True)
    ]
    return _Ground(
        features=features,
        coverage=coverage,
        shapes=shapes,
        tiles=tiles,
        moments=np.array(moments_of(features, numbers), object),
        looks=looks,
        pictures=[shrink(backdrop, PANEL_PX) for backdrop in backdrops],
        edges=edges,
        frame=frame,
        pole=pole_in(coverage),
        skipped=skipped_label(numbers),
    )


# ── which panels ─────────────────────────────────────────────────────────────────────────────────────────────


def _panels(numbers: Sequence[Numbers], backdrops: Sequence[Backdrop]) -> list[_Panel]:
    moments = list_moments(numbers)
    if not moments:
        return [_Panel(title="", note="no observation", moment="", picture=0 if backdrops else None)]
    if len(moments) == 1 and numbers[0].is_pair:
        return _pair_panels(moments[0], numbers, backdrops)
    return [_panel(moment, numbers, backdrops) for moment in _chosen(moments)]


def _chosen(moments: Sequence[Moment]) -> list[Moment]:
    """At most MAX_PANELS, shared among the questions; of each the first, the last and those between."""
    if len(moments) <= MAX_PANELS:
        return list(moments)
    keys = list(dict.fromkeys(moment.query_key for moment in moments))[:MAX_PANELS]
    each = MAX_PANELS // len(keys)
    return [
        chosen
        for key in keys
        for chosen in _spread([moment for moment in moments if moment.query_key == key], max(1, each))
    ]


def _spread(moments: Sequence[Moment], most: int) -> list[Moment]:
    """The first, the last and those between at even steps."""
    index = sorted({round(step) for step in np.linspace(0, len(moments) - 1, min(most, len(moments)))})
    return [moments[step] for step in index]


def _panel(moment: Moment, numbers: Sequence[Numbers], backdrops: Sequence[Backdrop]) -> _Panel:
    first, second = backdrops_of(moment, backdrops)
    rows = [row for row in numbers if row.moment == moment.id]
    several = len({row.query_key for row in numbers}) > 1
    note = format_known(rows[0]) if rows else ""
    if several:
        note = f"{moment.label.removeprefix(moment.question + ' · ')}: {note}"
    return _Panel(
        title=moment.question if several else moment.label,
        note=note,
        moment=moment.id,
        picture=_index(second or first, backdrops),
        hidden=tuple(index for one in (first, second) if (index := _index(one, backdrops)) is not None),
        unseen=rows[0].unseen if rows else (),
    )


def _index(picture: Backdrop | None, backdrops: Sequence[Backdrop]) -> int | None:
    return next((index for index, backdrop in enumerate(backdrops) if backdrop is picture), None)


def _pair_panels(moment: Moment, numbers: Sequence[Numbers], backdrops: Sequence[Backdrop]) -> list[_Panel]:
    change = _panel(moment, numbers, backdrops)
    pictures = backdrops_of(moment, backdrops)
    if None in pictures:
        return [change]
    sides = [
        _Panel(title=f"{name}  {time:%Y-%m-%d}", note="", moment=None, picture=_index(picture, backdrops))
        for name, time, picture in zip(("before", "after"), (moment.start, moment.end), pictures, strict=True)
        if time is not None
    ]
    return [*sides, replace(change, title="change")]


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────


def _figure(ground: _Ground, panels: Sequence[_Panel], title: str, notes: Sequence[str]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    handles, labels = _handles(ground, panels)
    rows = -(-len(handles) // LEGEND_COLUMNS)
    page = lay_out([panel.note for panel in panels], ground.frame, ground.squeeze, legend_rows=rows)
    figure = Figure(figsize=(page.width_in, page.height_in), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left, fits = SIDE_IN / page.width_in, page.width_in / WIDTH_IN
    size = min(17.0, max(11.0, 17.0 * 84 * fits / max(1, len(title))))
    heading = shorten(title, int(84 * fits * 17.0 / size))
    figure.text(left, page.below(0.34), heading, fontsize=size, fontweight="bold", va="center")
    about = " · ".join(part for part in (_sensors(ground), *notes) if part)
    size, most = (8.5, 190) if notes else (10.5, 130)
    figure.text(left, page.below(0.65), shorten(about, int(most * fits)), fontsize=size, color=QUIET, va="center")
    for panel, place in zip(panels, page.places, strict=True):
        _draw_panel(figure.add_axes(place), ground, panel, alone=len(panels) == 1)
    if handles:
        figure.legend(
            handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.008), ncols=min(LEGEND_COLUMNS, len(handles)),
            frameon=False, fontsize=10, handlelength=1.6, handleheight=1.1,
        )  # fmt: skip
    return figure


def _sensors(ground: _Ground) -> str:
    return ", ".join(sorted({str(sensor) for sensor in ground.coverage["sensor"].dropna()}))


def _draw_panel(axes: Any, ground: _Ground, panel: _Panel, *, alone: bool) -> None:
    west, south, east, north = ground.frame
    margin = 0.02 * max(east - west, north - south, 1e-4)
    axes.set_xlim(west - margin, east + margin)
    axes.set_ylim(south - margin, north + margin)
    axes.set_aspect(1.0 / ground.squeeze)
    axes.set_facecolor("#eef1f0")
    if panel.picture is not None:
        _draw_picture(axes, ground.pictures[panel.picture], ground.edges[panel.picture])
    if panel.moment is not None:
        _draw_results(axes, ground, panel)
        _draw_hidden(axes, ground, panel)
        _draw_unseen(axes, ground, panel)
    size = 12 if alone else 10
    inches = axes.get_position().width * axes.get_figure().get_figwidth()
    note = wrap(panel.note, 110 if alone else letters(inches))
    fits = 90 if alone else int(inches * 10.8)  # characters of a bold title
    axes.set_title(
        shorten(panel.title, fits * 4 // 3),
        loc="left",
        fontsize=size * max(0.75, min(1.0, fits / max(1, len(panel.title)))),
        fontweight="bold",
        pad=5 + (10.2 if size == 10 else 12) * len(note) if panel.note else 5,
    )
    axes.text(
        0.0, 1.0, "\n".join(note), transform=axes.transAxes, fontsize=size - 1.5, color=QUIET, va="bottom",
        linespacing=1.1,
    )  # fmt: skip
    _draw_scale_bar(axes, ground.frame, ground.squeeze)
    if alone:
        _label_axes(axes, ground.pole)
    else:
        axes.set_xticks([])
        axes.set_yticks([])


def _label_axes(axes: Any, pole: float | None) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(_degrees(name) if pole is None else _kilometres))
    axes.tick_params(labelsize=9, length=3)
    if pole is not None:
        axes.set_xlabel(pole_label(pole), fontsize=9, color=QUIET)


def _kilometres(value: float, position: int) -> str:
    return f"{value * METRES_PER_DEGREE / 1000:.4g}"


def _degrees(axis: str) -> Callable[[float, int], str]:
    return lambda value, position: degree_label(value, axis=axis)


def _draw_picture(axes: Any, picture: Backdrop, edges: Bounds) -> None:
    west, south, east, north = edges
    limits = axes.get_xlim(), axes.get_ylim()
    aspect = axes.get_aspect()
    rgba = np.dstack([picture.rgb, picture.alpha])
    axes.imshow(rgba, extent=(west, east, south, north), origin="upper", interpolation="antialiased", zorder=1)
    axes.set_aspect(aspect)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _draw_results(axes: Any, ground: _Ground, panel: _Panel) -> None:
    """One collection for each look, the results of one observation in it."""
    mine = np.flatnonzero(ground.moments == panel.moment).tolist()
    tasks, shares = ground.features["task"].to_numpy(object), ground.features["fraction"].to_numpy(float)
    for look in dict.fromkeys(ground.looks[row] for row in mine):
        rows = [row for row in mine if ground.looks[row] == look]
        alphas = [
            0.08 + 0.72 * float(np.nan_to_num(shares[row])) if tasks[row] == "fraction" else look.alpha for row in rows
        ]
        _add(axes, ground.shapes[rows], fill=look.fill, line=look.line, alphas=alphas, hatch="///" if look.lost else "")


def _draw_hidden(axes: Any, ground: _Ground, panel: _Panel) -> None:
    """Hatching over what the pictures show but the question counts as unseen, as clouds."""
    limits = axes.get_xlim(), axes.get_ylim()
    for index in panel.hidden:
        picture = shrink(ground.pictures[index], HIDDEN_PX)
        mask = hidden(picture, panel.unseen)
        if mask.any():
            west, south, east, north = ground.edges[index]
            high, wide = mask.shape
            x = west + (np.arange(-1, wide + 1) + 0.5) * (east - west) / wide
            y = north - (np.arange(-1, high + 1) + 0.5) * (north - south) / high
            filled = axes.contourf(
                x, y, np.pad(mask, 1).astype(float), levels=[0.5, 1.5], colors=[(1.0, 1.0, 1.0, 0.35)],
                hatches=[UNSEEN_HATCH], zorder=3,
            )  # fmt: skip
            filled.set_edgecolor(UNSEEN)
            filled.set_linewidth(0.0)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _draw_unseen(axes: Any, ground: _Ground, panel: _Panel) -> None:
    status = ground.coverage["status"].to_numpy(object)
    keys = ground.coverage["query_key"].astype(str)
    names = ground.coverage["observation"].fillna("").astype(str)
    moments = np.array([moment_id(key, name) for key, name in zip(keys, names, strict=True)], object)
    # What no observation covers is unseen at every date of its question.
    own = (keys == (panel.moment or "").split(" ")[0]).to_numpy()
    here = (moments == panel.moment) | ((names == "").to_numpy() & own)
    for kind, colour, hatch in (("skipped", UNSEEN, UNSEEN_HATCH), ("failed", FAILED, "xxx")):
        rows = np.flatnonzero(here & (status == kind))
        if len(rows):
            _add(axes, ground.tiles[rows], fill="#ffffff", line=colour, alphas=[0.45] * len(rows), hatch=hatch)


def _add(
    axes: Any, shapes: NDArray[np.object_], *, fill: str, line: str, alphas: Sequence[float], hatch: str = ""
) -> None:
    from matplotlib.collections import PathCollection
    from matplotlib.colors import to_rgba

    paths = [_path(shape) for shape in shapes]
    kept = [(path, to_rgba(fill, alpha)) for path, alpha in zip(paths, alphas, strict=True) if path is not None]
    if kept:
        collection = PathCollection(
            [path for path, _ in kept], facecolors=[face for _, face in kept], edgecolors=line, linewidths=0.6,
            hatch=hatch or None, zorder=3,
        )  # fmt: skip
        axes.add_collection(collection, autolim=False)


def _path(shape: Any) -> Any:
    """All rings of a geometry as one path; holes stay open because they turn the other way."""
    import shapely
    from matplotlib.path import Path

    polygons = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon" and not part.is_empty]
    polygons = [shapely.orient_polygons(part) for part in polygons]
    rings = [np.asarray(ring.coords) for part in polygons for ring in (part.exterior, *part.interiors)]
    if not rings:
        return None
    return Path.make_compound_path(*[Path(ring, closed=True) for ring in rings])


def _draw_scale_bar(axes: Any, frame: Bounds, squeeze: float) -> None:
    metres = scale_bar_m(width_m(frame, squeeze))
    share = metres / width_m(frame, squeeze) * (frame[2] - frame[0]) / abs(np.diff(axes.get_xlim())[0])
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    left, low = 0.03, 0.035
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "boxstyle": "round,pad=0.35"}
    axes.text(
        left, low + 0.022, label, transform=axes.transAxes, fontsize=8.5, va="bottom", zorder=6, bbox=box
    )  # fmt: skip
    axes.plot(
        [left, left + share], [low, low], transform=axes.transAxes, color="white", linewidth=5, zorder=5,
        solid_capstyle="butt",
    )  # fmt: skip
    axes.plot(
        [left, left + share], [low, low], transform=axes.transAxes, color=INK, linewidth=2.2, zorder=6,
        solid_capstyle="butt",
    )  # fmt: skip


def _handles(ground: _Ground, panels: Sequence[_Panel]) -> tuple[list[Any], list[str]]:
    from matplotlib.patches import Patch

    found: dict[str, Any] = {}
    rows = zip(ground.features["task"], ground.features["answer"], ground.looks, strict=True)
    for task, answer, look in rows:
        label = "share: darker is more" if task == "fraction" else "texts" if is_written(task) else str(answer)
        if label not in found:
            hatch = "////" if look.lost else None
            found[label] = Patch(facecolor=(look.fill, look.alpha), edgecolor=look.line, hatch=hatch)
    known = [*COLOURS, *DAMAGE_COLOURS]
    order = sorted(found, key=lambda name: (known.index(name) if name in known else len(known), name))
    handles = [found[name] for name in order]
    labels = [shorten(name, 34) for name in order]
    status = set(ground.coverage["status"])
    if any(hidden(ground.pictures[index], panel.unseen).any() for panel in panels for index in panel.hidden):
        status.add("skipped")
    for kind, label, colour, hatch in (
        ("skipped", ground.skipped, UNSEEN, "\\\\\\\\"),
        ("failed", "failed", FAILED, "xxxx"),
    ):
        if kind in status:
            handles.append(Patch(facecolor="white", edgecolor=colour, hatch=hatch))
            labels.append(label)
    return handles, labels
