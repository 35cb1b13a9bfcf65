"""The interactive map of the report page, as bokeh models.

Text from outside enters only data columns, select options and legend values, which bokeh writes as text nodes.
"""

# mypy: disable-error-code="attr-defined"
# (bokeh re-exports its models in a way that mypy's strict mode does not follow)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.outputs.backdrop import METRES_PER_DEGREE, Backdrop
from earthmap.outputs.drawing import (
    FAILED,
    INK,
    QUIET,
    UNSEEN,
    Moment,
    backdrops_of,
    first_shown,
    in_one_piece,
    is_shared,
    legend_name,
    legend_order,
    list_moments,
    look_of,
    moments_of,
    pole_in,
    pole_label,
    squeeze_at,
)
from earthmap.outputs.hover import HOVER, said_of, why_not
from earthmap.outputs.numbers import Numbers, moment_id, skipped_label
from earthmap.outputs.pictures import encode_pictures, veil
from earthmap.outputs.selection import MAX_VERTICES, SIMPLIFIED, STEPS

if TYPE_CHECKING:
    import geopandas
    from numpy.typing import NDArray

    Bounds = tuple[float, float, float, float]
    Strings = Sequence[str]

PICTURE = "earthmap-picture:%d"
"""Stands in a model for a picture of the page, which the page's script puts in its place: each is in the page once."""
FRAME_WIDTH, MIN_HEIGHT, MAX_HEIGHT = 840, 380, 640

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_TICKS = """
    const turned = %s ? ((tick + 180) %% 360 + 360) %% 360 - 180 : tick;
    const number = String(Math.abs(parseFloat(turned.toFixed(4))));
    if (number === "0" || number === "180") return number + "°";
    return number + "° " + (turned > 0 ? "%s" : "%s");
"""
_KILOMETRES = f"return String(parseFloat((tick * {METRES_PER_DEGREE / 1000}).toPrecision(4)));"
_SWITCH = """
    const chosen = date ? moments[date.value] : moments[Object.keys(moments)[0]];
    if (chosen === undefined) return;
    const two = chosen.pictures.length === 2;
    if (sides) sides.visible = two;
    const shown = two && sides ? chosen.pictures[sides.active] : chosen.pictures[0];
    pictures.forEach((picture, index) => { picture.visible = index === shown; });
    const legend = figure.below.find((panel) => panel.name === "legend");
    if (legend) legend.items = lines.filter((line) => line.name === null || line.name === chosen.question);
    const name = shown === undefined ? "" : titles[shown];
    figure.title.text = name;
    filter.group = chosen.id;  // last: what is above lays the page out anew, and paints it as it was
"""


@dataclass(slots=True)
class WebMap:
    """The map's model, and what its reader must be told about it."""

    model: Any
    pictures: list[str]
    """`data:` addresses: the backdrops in their order, then hatchings."""
    notes: list[str] = field(default_factory=list)


def safe_label(text: str, limit: int = 42) -> str:
    """One short line for a canvas label; `$$` would be read as a formula there."""
    line = " ".join(text.replace("$$", "$ $").split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def build_map(
    features: geopandas.GeoDataFrame,
    coverage: geopandas.GeoDataFrame,
    numbers: Sequence[Numbers],
    *,
    backdrops: Sequence[Backdrop],
) -> WebMap:
    """Backdrops, results and unseen ground, with a legend, hover, and a choice of date."""
    from bokeh.models import GroupFilter

    moments = list_moments(numbers)
    drawn, tiles, edges, frame = in_one_piece(features, coverage, backdrops)
    figure = _figure(frame, pole_in(coverage))
    images = _add_pictures(figure, backdrops, edges)
    pictures = encode_pictures(backdrops)
    shown = first_shown(moments)
    chosen = GroupFilter(column_name="moment", group=shown.id if shown else "")
    notes: list[str] = []
    veils = _add_veils(figure, numbers, moments, backdrops, edges, pictures=pictures, chosen=chosen)
    items = _add_coverage(figure, coverage, tiles, chosen, veils, moments, numbers)
    items = _add_results(figure, features, drawn, numbers, chosen, frame, notes) + items
    lines = _add_legend(figure, items, shown.query_key if shown else None)
    _add_scale_bar(figure, squeeze_at(frame, pole_in(coverage)))
    notes += _picture_notes(moments, backdrops)
    return WebMap(_layout(figure, moments, backdrops, images, lines=lines, chosen=chosen), pictures, notes)


def _picture_notes(moments: Sequence[Moment], backdrops: Sequence[Backdrop]) -> list[str]:
    bare = sum(backdrops_of(moment, backdrops)[0] is None for moment in moments)
    if not moments or not bare:
        return []
    if bare == len(moments):
        return ["No picture of the ground is shown behind the results."]
    return [f"{bare} of {len(moments)} dates have no picture behind the results."]


def _figure(frame: Bounds, pole: float | None) -> Any:
    from bokeh.models import BoxZoomTool, CustomJSTickFormatter, PanTool, Range1d, ResetTool, SaveTool, WheelZoomTool
    from bokeh.plotting import figure

    west, south, east, north = frame
    squeeze = squeeze_at(frame, pole)
    wide, high = max((east - west) * squeeze, 1e-4) * 1.06, max(north - south, 1e-4) * 1.06
    height = round(min(MAX_HEIGHT, max(MIN_HEIGHT, FRAME_WIDTH * high / wide)))
    step = max(wide / FRAME_WIDTH, high / height)  # degrees of latitude to a pixel
    half_x, half_y = step * FRAME_WIDTH / squeeze / 2, step * height / 2
    x, y = (west + east) / 2, (south + north) / 2
    wheel = WheelZoomTool()
    plot: Any = figure(
        name="map",
        frame_width=FRAME_WIDTH,
        frame_height=height,
        x_range=Range1d(start=x - half_x, end=x + half_x),
        y_range=Range1d(start=y - half_y, end=y + half_y),
        tools=[PanTool(), wheel, BoxZoomTool(match_aspect=True), ResetTool(), SaveTool()],
        background_fill_color="#eef1f0",
        border_fill_color="#ffffff",
        outline_line_color="#c9d1d4",
        title=" ",
        output_backend="canvas",
    )
    plot.toolbar.active_scroll, plot.toolbar.logo = wheel, None
    plot.toolbar_location = "above"
    plot.grid.grid_line_color = None
    plot.title.text_font, plot.title.text_font_size = _FONT, "12px"
    plot.title.text_color, plot.title.text_font_style = QUIET, "normal"
    for axis, is_x, sides in ((plot.xaxis[0], "true", ("E", "W")), (plot.yaxis[0], "false", ("N", "S"))):
        axis.formatter = CustomJSTickFormatter(code=_TICKS % (is_x, *sides) if pole is None else _KILOMETRES)
        axis.ticker.desired_num_ticks = 5
        _quiet_axis(axis)
    if pole is not None:
        plot.xaxis[0].axis_label = pole_label(pole)
    return plot


def _quiet_axis(axis: Any) -> None:
    axis.axis_line_color = axis.major_tick_line_color = "#c9d1d4"
    axis.minor_tick_line_color = None
    axis.major_label_text_font, axis.major_label_text_color = _FONT, QUIET
    axis.axis_label_text_font, axis.axis_label_text_color = _FONT, QUIET
    axis.axis_label_text_font_style = "normal"


def _add_pictures(figure: Any, backdrops: Sequence[Backdrop], edges: Sequence[Bounds]) -> list[Any]:
    images = []
    for index, (west, south, east, north) in enumerate(edges):
        source = {"url": [PICTURE % index], "x": [west], "y": [north]}
        images.append(
            figure.image_url(
                url="url", x="x", y="y", w=east - west, h=north - south, anchor="top_left", source=source,
                visible=False, level="image",
            )
        )  # fmt: skip
    return images


def _add_veils(
    figure: Any,
    numbers: Sequence[Numbers],
    moments: Sequence[Moment],
    backdrops: Sequence[Backdrop],
    edges: Sequence[Bounds],
    *,
    pictures: list[str],
    chosen: Any,
) -> Any | None:
    """Hatching over what the pictures of each moment show but the question counts as unseen; None without any."""
    from bokeh.models import CDSView, ColumnDataSource

    rules = {row.query_key: row.unseen for row in numbers}
    order = {id(backdrop): index for index, backdrop in enumerate(backdrops)}
    known: dict[tuple[int, tuple[str, ...]], int | None] = {}
    rows: list[tuple[int, int, str]] = []
    for moment in moments:
        for index in dict.fromkeys(order[id(one)] for one in backdrops_of(moment, backdrops) if one is not None):
            key = (index, rules[moment.query_key])
            if key not in known:
                made = veil(backdrops[index], key[1])
                known[key] = None if made is None else len(pictures)
                pictures += [] if made is None else [made]
            number = known[key]
            rows += [] if number is None else [(index, number, moment.id)]
    if not rows:
        return None
    places = [edges[index] for index, _, _ in rows]
    data: dict[str, Any] = {
        "url": [PICTURE % number for _, number, _ in rows],
        "x": [west for west, _, _, _ in places],
        "y": [north for _, _, _, north in places],
        "w": [east - west for west, _, east, _ in places],
        "h": [north - south for _, south, _, north in places],
        "moment": [name for _, _, name in rows],
    }
    return figure.image_url(
        url="url", x="x", y="y", w="w", h="h", anchor="top_left", level="underlay", name="veils",
        source=ColumnDataSource(data), view=CDSView(filter=chosen),
    )  # fmt: skip


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────


def _rings(geometry: Any) -> list[list[Any]]:
    """Polygons of one geometry as lists of rings, the outer one first."""
    polygons = getattr(geometry, "geoms", [geometry])
    return [
        [np.round(np.asarray(ring.coords)[:-1], 6) for ring in (polygon.exterior, *polygon.interiors)]
        for polygon in polygons
        if polygon.geom_type == "Polygon" and not polygon.is_empty
    ]


def _columns(geometries: Sequence[Any]) -> dict[str, list[Any]]:
    rings = [_rings(geometry) for geometry in geometries]
    return {
        name: [[[ring[:, axis].tolist() for ring in polygon] for polygon in shape] for shape in rings]
        for axis, name in ((0, "xs"), (1, "ys"))
    }


def simplified(geometries: NDArray[np.object_], frame: Bounds) -> tuple[Any, list[str]]:
    """Outlines with no more vertices than a page can carry, and what its reader must be told."""
    import shapely

    kept, tolerance = geometries, (frame[3] - frame[1]) / STEPS
    while shapely.get_num_coordinates(kept).sum() > MAX_VERTICES and tolerance <= frame[3] - frame[1]:
        kept = shapely.simplify(geometries, tolerance, preserve_topology=True)
        tolerance *= 2
    return kept, [] if kept is geometries else [SIMPLIFIED]


def _add_results(
    figure: Any,
    features: geopandas.GeoDataFrame,
    drawn: NDArray[np.object_],
    numbers: Sequence[Numbers],
    chosen: Any,
    frame: Bounds,
    notes: list[str],
) -> list[Any]:
    """One renderer for each question and answer (shares and texts have one together); returns their legend items."""
    outlines, said = simplified(drawn, frame)
    notes += said
    names = np.array(moments_of(features, numbers), object)
    rows = features.drop(columns="geometry").reset_index(drop=True)
    targets = {row.query_key: row.targets for row in numbers}
    shared = [is_shared(task) for task in rows["task"]]
    kinds = np.where(shared, "", rows["answer"].astype(str))
    items, found = [], set(zip(rows["query_key"], kinds, strict=True))
    for key, answer in sorted(found, key=lambda kind: legend_order(kind, targets)):
        mine = np.flatnonzero((rows["query_key"] == key).to_numpy() & (kinds == answer))
        part = rows.iloc[mine]
        task = str(part["task"].iloc[0])
        data = {**_columns(outlines[mine]), **said_of(part), "moment": names[mine].tolist()}
        data["alpha"] = _alphas(part, task)
        renderer = _draw(figure, data, look_of(answer, task=task, targets=targets.get(key, ())), chosen)
        _hover(figure, renderer, HOVER)
        name = legend_name(answer, task=task, targets=targets.get(key, ()))
        items.append((safe_label(name), [renderer], key))
    return items


def _alphas(rows: Any, task: str) -> list[float]:
    if task == "fraction":
        return [round(0.08 + 0.72 * float(value), 3) if value == value else 0.0 for value in rows["fraction"]]
    return [look_of(str(answer), task=task).alpha for answer in rows["answer"]]


def _draw(figure: Any, data: dict[str, Any], look: Any, chosen: Any) -> Any:
    from bokeh.models import CDSView, ColumnDataSource

    hatch = {"hatch_pattern": "/", "hatch_color": look.line, "hatch_alpha": 0.8, "hatch_scale": 7.0}
    return figure.multi_polygons(
        xs="xs", ys="ys", source=ColumnDataSource(data), view=CDSView(filter=chosen),
        fill_color=look.fill, fill_alpha="alpha", line_color=look.line, line_width=1.0,
        line_alpha=0.9, line_dash="dashed" if look.lost else "solid", **(hatch if look.lost else {}),
    )  # fmt: skip


def _hover(figure: Any, renderer: Any, tooltips: Sequence[tuple[str, str]]) -> None:
    from bokeh.models import HoverTool

    tool = HoverTool(renderers=[renderer], tooltips=list(tooltips), point_policy="follow_mouse", visible=False)
    figure.add_tools(tool)


# ── coverage ─────────────────────────────────────────────────────────────────────────────────────────────────


def _add_coverage(
    figure: Any,
    coverage: geopandas.GeoDataFrame,
    tiles: NDArray[np.object_],
    chosen: Any,
    veils: Any | None,
    moments: Sequence[Moment],
    numbers: Sequence[Numbers],
) -> list[Any]:
    """Tiles that were skipped and tiles that failed, hatched; returns their legend items, `veils` with the skipped."""
    items = []
    asked = {row.query_key: row.text for row in numbers}
    kinds = (("skipped", skipped_label(numbers), UNSEEN, "\\"), ("failed", "failed", FAILED, "x"))
    for status, label, colour, pattern in kinds:
        mine = np.flatnonzero((coverage["status"] == status).to_numpy())
        others = [veils] if status == "skipped" and veils is not None else []
        if not len(mine) and not others:
            continue
        seen = coverage["observation"].fillna("").astype(str).to_numpy(object)
        keys = coverage["query_key"].astype(str).to_numpy(object)
        # What no observation covers at all is shown at every date of its question.
        every = {key: [moment.id for moment in moments if moment.query_key == key] or [""] for key in set(keys)}
        pairs = [
            (int(row), name)
            for row in mine
            for name in ([moment_id(keys[row], seen[row])] if seen[row] else every[keys[row]])
        ]
        # A shape of no place at each moment: a legend shows no symbol of what is nowhere.
        pairs += [(int(mine[0]) if len(mine) else 0, moment.id) for moment in moments]
        index = np.array([row for row, _ in pairs], np.int64)
        shapes = _columns(list(tiles[index]))
        for axis in ("xs", "ys"):
            shapes[axis][len(pairs) - len(moments) :] = [[[[np.nan] * 3]]] * len(moments)
        rows = coverage.iloc[index]
        data = {
            **shapes,
            "moment": [name for _, name in pairs],
            "tile": [str(tile) for tile in rows["tile_id"]],
            "query": [asked.get(key, "") for key in rows["query_key"]],
            "why": [why_not(row) for row in rows[["reason", "message"]].itertuples(index=False)],
            "status": [label] * len(index),
        }
        renderer = _draw_tiles(figure, data, colour, pattern, chosen)
        _hover(figure, renderer, (("tile", "@tile"), ("question", "@query"), (label, "@why")))
        items.append((label, [renderer, *others], None))
    return items


def _draw_tiles(figure: Any, data: dict[str, Any], colour: str, pattern: str, chosen: Any) -> Any:
    from bokeh.models import CDSView, ColumnDataSource

    return figure.multi_polygons(
        xs="xs", ys="ys", source=ColumnDataSource(data), view=CDSView(filter=chosen),
        fill_color="#ffffff", fill_alpha=0.5, line_color=colour, line_alpha=0.8, line_width=0.8,
        hatch_pattern=pattern, hatch_color=colour, hatch_alpha=0.75, hatch_scale=14.0, hatch_weight=1.0,
    )  # fmt: skip


# ── around the map ───────────────────────────────────────────────────────────────────────────────────────────


def _add_legend(figure: Any, items: Sequence[tuple[str, list[Any], str | None]], question: str | None) -> list[Any]:
    """The legend's lines, those of `question` shown; an item is label, renderers, question (None: of every one)."""
    from bokeh.core.properties import value
    from bokeh.models import Legend, LegendItem

    lines: list[Any] = [
        LegendItem(label=value(label), renderers=renderers, name=key) for label, renderers, key in items
    ]
    if not lines:
        return lines
    legend: Any = Legend(
        items=[line for line in lines if line.name in (None, question)],
        click_policy="hide",
        label_text_font=_FONT,
        label_text_font_size="12px",
        label_text_color=INK,
        border_line_color=None,
        background_fill_alpha=0.0,
        glyph_width=18,
        glyph_height=18,
        spacing=4,
        name="legend",
    )
    figure.add_layout(legend, "below")
    legend.orientation, legend.ncols, legend.location = "horizontal", min(4, len(items)), "top_left"
    return lines


def _add_scale_bar(figure: Any, squeeze: float) -> None:
    from bokeh.models import CustomJS, MetricLength, Range1d, ScaleBar

    per_degree = METRES_PER_DEGREE * squeeze
    shown = figure.x_range
    metres = Range1d(start=0.0, end=(shown.end - shown.start) * per_degree)
    follow = "metres.end = (shown.end - shown.start) * per_degree"
    shown.js_on_change("end", CustomJS(args={"metres": metres, "shown": shown, "per_degree": per_degree}, code=follow))
    bar = ScaleBar(
        range=metres, unit="m", location="bottom_left", orientation="horizontal", bar_length=0.16,
        dimensional=MetricLength(ticks=[1, 2, 5, 10, 20, 50, 100, 200, 500], include=["m", "km"]),
        background_fill_alpha=0.85, border_line_color=None, label_text_font=_FONT, label_text_font_size="11px",
        length_sizing="adaptive", padding=8,
    )  # fmt: skip
    figure.add_layout(bar)


def _layout(
    figure: Any,
    moments: Sequence[Moment],
    backdrops: Sequence[Backdrop],
    images: Sequence[Any],
    *,
    lines: Sequence[Any],
    chosen: Any,
) -> Any:
    from bokeh.layouts import column, row
    from bokeh.models import CustomJS, RadioButtonGroup, Select

    order = {id(backdrop): index for index, backdrop in enumerate(backdrops)}
    choices: dict[str, dict[str, Any]] = {
        moment.label: {
            "id": moment.id,
            "question": moment.query_key,
            "pictures": [order[id(picture)] for picture in backdrops_of(moment, backdrops) if picture is not None],
        }
        for moment in moments
    }
    titles = [safe_label(f"{backdrop.title}", 110) for backdrop in backdrops]
    shown = first_shown(moments)
    chosen_label = shown.label if shown else ""
    pictures = choices[chosen_label]["pictures"] if moments else list(range(len(images)))[:1]
    date = sides = None
    if len(moments) > 1:
        several = len({moment.query_key for moment in moments}) > 1
        title = "Question and date" if several else "Date"
        date = Select(
            name="date", title=title, options=list(choices), value=chosen_label, width=520 if several else 300
        )
    if any(len(choice["pictures"]) == 2 for choice in choices.values()):
        sides = RadioButtonGroup(name="sides", labels=["Picture before", "Picture after"], active=1)
        sides.visible, sides.margin = len(pictures) == 2, (24, 5, 5, 5)
    if pictures:
        first = pictures[-1]
        images[first].visible = True
        figure.title.text = titles[first]
    controls = [control for control in (date, sides) if control is not None]
    names = {"filter": chosen, "moments": choices, "pictures": list(images), "titles": titles, "figure": figure}
    names["lines"] = list(lines)
    switch = CustomJS(args={**names, "date": date, "sides": sides}, code=_SWITCH)
    if date is not None:
        date.js_on_change("value", switch)
    if sides is not None:
        sides.js_on_change("active", switch)
    return column(row(*controls), figure) if controls else figure
