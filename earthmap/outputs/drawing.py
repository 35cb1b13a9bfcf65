"""What page and preview draw alike: colours, dates to show, which picture lies behind, and one piece of ground."""

from __future__ import annotations

import datetime as dt
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.outputs.backdrop import METRES_PER_DEGREE, Backdrop, plane_around, pole_of
from earthmap.outputs.numbers import (
    Numbers,
    date_label,
    is_of_footprints,
    is_of_things,
    is_of_tiles,
    is_written,
    parse_time,
)

if TYPE_CHECKING:
    import geopandas
    import pandas
    from numpy.typing import NDArray

    Bounds = tuple[float, float, float, float]

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "water": "#1f78c8",
        "flood": "#0a5bd3",
        "flood, includes permanent water": "#6f9fd8",
        "vegetation": "#2e8b57",
        "bare": "#d8a03d",
        "built-up": "#a8565c",
        "snow": "#8fdcec",
        "burnt": "#5a3420",
    }
)
"""Fill of each target: told apart by lightness too, for readers who do not see all hues."""
CHANGE_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "flooding": "#1f78c8",
        "drying": "#d8a03d",
        "vegetation growth": "#2e8b57",
        "vegetation loss": "#b7c23a",
        "construction": "#a8565c",
        "demolition": "#7a6c9d",
        "building damage": "#4a3b63",
        "landslide": "#8a5a2b",
        "fire": "#e4572e",
        "snowfall": "#8fdcec",
        "snowmelt": "#4f8f9e",
    }
)
"""Fill of each kind of change: that of the land cover that comes, where there is one."""
DAMAGE_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "destroyed": "#c61a1a",
        "damaged": "#f08a24",
        "possibly damaged": "#f6d93b",
        "no visible damage": "#5fae57",
        "not analysed": "#8f9aa1",
    }
)
"""Fill of each grade of damage, the worst first: red, orange, yellow, green and grey, as on maps of Copernicus EMS."""
LOST = "#d1495b"
"""Outline and hatching of what was lost, whatever it was; gained ground has its target's own colour."""
OTHER = "#7a6c9d"
"""Fill of texts."""
PALETTE = ("#E69F00", "#56B4E9", "#F0E442", "#D55E00", "#009E73", "#CC79A7", "#0072B2")
"""Okabe and Ito's colours, which readers who do not see all hues can tell apart (jfly.uni-koeln.de/color);
the last is water's, nearly."""
DISC = 1 / 160
"""Radius at which a point is drawn, beside the height of the map."""
STRIP, HEAD = 0.25, 0.7
"""Half the width of a line, and the radius of what it ends in, beside that of a disc."""
INK, QUIET, UNSEEN, FAILED = "#1d2b33", "#5f6f78", "#414e56", "#b5402f"

_SEAM_DEG = 1e-7
"""What is nearer than a centimetre is one line, where parts meet on the antimeridian around a pole."""
_NEAR = dt.timedelta(hours=18)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How one answer is drawn."""

    fill: str
    line: str
    alpha: float
    """Of the fill, 0 to 1."""
    lost: bool = False
    """Hatched, with a dashed outline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is shown together: one question at one observation, or at several that are looked at together."""

    id: str
    """`earthmap.outputs.numbers.moment_id`."""
    query_key: str
    question: str
    label: str
    """Date, with the sensor and the question where there are several."""
    sensor: str
    start: dt.datetime | None
    end: dt.datetime | None
    is_pair: bool
    """There are a first and a last date."""


def look_of(answer: str, *, task: str, targets: Sequence[str] = ()) -> Look:
    """The look of an answer such as `water`, `water lost`, `yes` or `0.3210`."""
    name = targets[0] if task in ("presence", "fraction") and targets else answer
    for ending in (" gained", " lost"):
        name = name.removesuffix(ending)
    if is_of_footprints(task):
        fill = DAMAGE_COLOURS.get(answer, OTHER)
        return Look(fill=fill, line=_darker(fill), alpha=0.65)
    fill = COLOURS.get(name) or CHANGE_COLOURS.get(name) or _own_colour(name)
    if answer.endswith(" lost"):
        return Look(fill=LOST, line=LOST, alpha=0.22, lost=True)
    if answer in ("no", "no change"):
        return Look(fill="#ffffff", line=QUIET, alpha=0.0)
    if task == "presence" or is_of_tiles(task):  # squares let the ground show
        return Look(fill=fill, line=_darker(fill), alpha=0.22)
    if is_of_things(task):  # small: the outline is what is seen
        return Look(fill=fill, line=fill, alpha=0.25)
    alpha = 0.85 if answer.endswith(" gained") else 0.55
    return Look(fill=fill, line=_darker(fill), alpha=alpha)


def _own_colour(name: str) -> str:
    """Always the same colour for a name: one of PALETTE's but the last, in one of three shades."""
    if not name:
        return OTHER
    shade, colour = divmod(zlib.crc32(name.encode()) // 7, len(PALETTE) - 1)
    return _shaded(PALETTE[colour], (1.0, 0.72, 1.28)[shade % 3])


def legend_order(kind: tuple[str, str], targets: Mapping[str, Sequence[str]]) -> tuple[Any, ...]:
    """Where (query key, answer) stands in a legend: question by question, known targets first."""
    key, answer = kind
    keys, known = list(targets), [*COLOURS, *DAMAGE_COLOURS]
    target = answer.removesuffix(" lost").removesuffix(" gained")
    return (
        keys.index(key) if key in keys else len(keys),
        known.index(target) if target in known else len(known),
        answer.endswith("lost") or answer == "no",
        answer,
        key,
    )


def legend_name(answer: str, *, task: str, targets: Sequence[str]) -> str:
    """What a legend calls an answer; shares, and texts, are one line together."""
    wanted = " or ".join(targets) or "target"
    if task == "fraction":
        return f"{wanted}: share, darker is more"
    if is_written(task):
        return "texts: point at a tile"
    return {"yes": f"{wanted}: yes", "no": f"{wanted}: no"}.get(answer, answer)


def is_shared(task: str) -> bool:
    """Whether all answers to such a question are one line of a legend: shares and texts."""
    return task == "fraction" or is_written(task)


def _darker(colour: str) -> str:
    return _shaded(colour, 0.62)


def _shaded(colour: str, factor: float) -> str:
    parts = [int(colour[index : index + 2], 16) for index in (1, 3, 5)]
    return "#" + "".join(f"{min(255, round(part * factor)):02x}" for part in parts)


def list_moments(numbers: Sequence[Numbers]) -> list[Moment]:
    """Each question at each of its observations once, question by question, by time; labels are unique."""
    first: dict[str, Numbers] = {}
    for row in numbers:
        first.setdefault(row.moment, row)
    first.pop("", None)
    questions = list(dict.fromkeys(row.query_key for row in numbers))
    sensors = {row.sensor for row in first.values()}
    labels = {key: row.date + (f" · {row.sensor}" if len(sensors) > 1 else "") for key, row in first.items()}
    if len(questions) > 1:
        labels = {key: f"{first[key].text} · {label}" for key, label in labels.items()}
    taken = list(labels.values())
    for key, row in first.items():
        if taken.count(labels[key]) > 1:
            labels[key] += f" {row.start:%H:%M} UTC" if row.start and not row.is_of_several else f" ({row.observation})"
    moments = [
        Moment(
            id=key, query_key=row.query_key, question=row.text, label=labels[key], sensor=row.sensor, start=row.start,
            end=row.end, is_pair=row.is_of_several,
        )
        for key, row in first.items()
    ]  # fmt: skip
    epoch = dt.datetime.min.replace(tzinfo=dt.UTC)
    return sorted(moments, key=lambda m: (questions.index(m.query_key), m.start or epoch, m.end or epoch, m.id))


def first_shown(moments: Sequence[Moment]) -> Moment | None:
    """The last moment of the first question."""
    return [moment for moment in moments if moment.query_key == moments[0].query_key][-1] if moments else None


def moments_of(features: geopandas.GeoDataFrame, numbers: Sequence[Numbers]) -> list[str]:
    """The moment of each feature: that of its question and sensor whose times enclose it, the shortest of them.

    Features say when they were seen and not by which observation; "" where nothing fits.
    """
    start, end = _times(features["datetime_min"]), _times(features["datetime_max"])
    keys, sensors = features["query_key"].to_numpy(str), features["sensor"].astype(str).to_numpy(str)
    result = np.full(len(features), "", object)
    rows = [row for row in numbers if row.start and row.end]
    for row in sorted(rows, key=_length, reverse=True):  # the shortest is written last
        low, high = (np.datetime64(time.replace(tzinfo=None), "us") for time in (row.start, row.end) if time)
        result[(keys == row.query_key) & (sensors == row.sensor) & (start >= low) & (end <= high)] = row.moment
    return [str(name) for name in result]


def _length(row: Numbers) -> dt.timedelta:
    return row.end - row.start if row.start and row.end else dt.timedelta.max


def _times(column: pandas.Series) -> NDArray[np.datetime64]:
    plain = [parse_time(value) for value in column]
    return np.array([None if time is None else time.replace(tzinfo=None) for time in plain], "datetime64[us]")


def backdrops_of(moment: Moment, backdrops: Sequence[Backdrop]) -> tuple[Backdrop | None, Backdrop | None]:
    """The pictures to lay behind a moment: of its (first) date, and of its second one where it is a pair."""
    first = _nearest(moment.start, moment.sensor, backdrops)
    return first, _nearest(moment.end, moment.sensor, backdrops) if moment.is_pair else None


def _nearest(time: dt.datetime | None, sensor: str, backdrops: Sequence[Backdrop]) -> Backdrop | None:
    if time is None:
        return None
    near = [backdrop for backdrop in backdrops if abs(_utc(backdrop) - time) <= _NEAR]
    return min(near, key=lambda picture: (picture.sensor != sensor, abs(_utc(picture) - time)), default=None)


def _utc(backdrop: Backdrop) -> dt.datetime:
    return parse_time(backdrop.datetime) or dt.datetime.min.replace(tzinfo=dt.UTC)


def in_one_piece(
    features: geopandas.GeoDataFrame, coverage: geopandas.GeoDataFrame, backdrops: Sequence[Backdrop]
) -> tuple[NDArray[np.object_], NDArray[np.object_], list[Bounds], Bounds]:
    """Geometries and picture bounds on one continuous range of longitudes, and the bounds of all of it.

    What spans more than half a turn lies on both sides of the antimeridian: there the west is moved by 360°. Ground
    in a polar cap comes out in the plane around its pole, in units of a degree of latitude (`pole_in`).
    """
    drawn, tiles = np.asarray(features.geometry, object), np.asarray(coverage.geometry, object)
    edges = [backdrop.bounds for backdrop in backdrops]
    pole = pole_in(coverage)
    if pole is not None:
        drawn, tiles = _around_pole(drawn, pole), _around_pole(tiles, pole)
        frame = _frame_of(drawn, tiles, edges)
        return _as_areas(drawn, frame, 1.0), tiles, edges, frame
    frame = _frame_of(drawn, tiles, edges)
    if frame[2] - frame[0] > 180.0:
        drawn, tiles = _eastwards(drawn), _eastwards(tiles)
        frame = _frame_of(drawn, tiles, [(_east(w), s, _east(e), n) for w, s, e, n in edges])
    return _as_areas(drawn, frame, squeeze_at(frame)), tiles, [_beside(bounds, frame) for bounds in edges], frame


def _as_areas(shapes: NDArray[np.object_], frame: Bounds, squeeze: float) -> NDArray[np.object_]:
    """Points as discs, and lines as strips with a head where they end, that can be seen; areas as they are."""
    import shapely

    thin = shapely.get_dimensions(shapes) < 2
    if not thin.any():
        return shapes
    radius, result = DISC * max(frame[3] - frame[1], 1e-6), shapes.copy()
    placed = shapely.transform(shapes[thin], lambda xy: xy * (squeeze, 1.0))
    points = shapely.get_dimensions(placed) == 0
    round_ones = shapely.buffer(placed, np.where(points, radius, radius * STRIP), quad_segs=4)
    last = shapely.get_point(shapely.get_geometry(placed[~points], -1), -1)
    round_ones[~points] = shapely.union(round_ones[~points], shapely.buffer(last, radius * HEAD, quad_segs=4))
    result[thin] = shapely.transform(round_ones, lambda xy: xy / (squeeze, 1.0))
    return result


def pole_in(coverage: geopandas.GeoDataFrame) -> float | None:
    """The pole (90 or -90) that a map is drawn around; None for a map in degrees."""
    if not len(coverage):
        return None
    _, south, _, north = (float(edge) for edge in coverage.total_bounds)
    return pole_of(south, north)


def _around_pole(geometries: NDArray[np.object_], pole: float) -> NDArray[np.object_]:
    """Geometries in degrees in the plane around a pole; what was split at the antimeridian is whole again."""
    import shapely
    from pyproj import Transformer

    there = Transformer.from_crs("OGC:CRS84", plane_around(pole), always_xy=True)

    def to(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(there.transform(degrees[:, 0], degrees[:, 1])) / METRES_PER_DEGREE

    moved = shapely.make_valid(shapely.transform(shapely.segmentize(geometries, 1.0), to))
    whole: NDArray[np.object_] = shapely.set_precision(moved, _SEAM_DEG)
    return whole


def _beside(bounds: Bounds, frame: Bounds) -> Bounds:
    """`bounds` moved by whole turns to where `frame` is."""
    west, south, east, north = bounds
    east += 360.0 if east < west else 0.0
    turn = 360.0 * round((frame[0] + frame[2] - west - east) / 720.0)
    return west + turn, south, east + turn, north


def _east(longitude: float) -> float:
    return longitude + 360.0 if longitude < 0.0 else longitude


def _eastwards(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    import shapely

    west = shapely.bounds(geometries)[:, 0] < 0.0
    moved = geometries.copy()
    moved[west] = shapely.transform(geometries[west], lambda xy: xy + np.array([360.0, 0.0]))
    parts = [_halves(shape) if wide else shape for shape, wide in zip(moved, _wide(geometries), strict=True)]
    result = np.empty(len(parts), object)
    result[:] = parts
    return result


def _wide(geometries: NDArray[np.object_]) -> NDArray[np.bool_]:
    import shapely

    bounds = shapely.bounds(geometries)
    wide: NDArray[np.bool_] = bounds[:, 2] - bounds[:, 0] > 180.0
    return wide


def _halves(moved: Any) -> Any:
    """A geometry with parts on both sides, which was moved as a whole: the parts beyond 360° go back."""
    import shapely

    parts = [
        shapely.transform(part, lambda xy: xy - np.array([360.0, 0.0])) if part.bounds[0] >= 360.0 else part
        for part in shapely.get_parts(moved)
    ]
    return shapely.union_all(parts)


def _frame_of(drawn: NDArray[np.object_], tiles: NDArray[np.object_], edges: Sequence[Bounds]) -> Bounds:
    """The bounds of tiles and results, else of the pictures, else a degree around nothing."""
    import shapely

    ground = np.concatenate([drawn, tiles])
    if len(ground) and np.isfinite(shapely.total_bounds(ground)).all():
        west, south, east, north = (float(edge) for edge in shapely.total_bounds(ground))
        return west, south, east, north
    if edges:
        columns = list(zip(*edges, strict=True))
        return min(columns[0]), min(columns[1]), max(columns[2]), max(columns[3])
    return -0.5, -0.5, 0.5, 0.5


def squeeze_at(frame: Bounds, pole: float | None = None) -> float:
    """How long a degree of longitude is beside one of latitude in the middle of `frame`; 1 in a map around a pole."""
    return 1.0 if pole is not None else max(0.02, math.cos(math.radians((frame[1] + frame[3]) / 2)))


def scale_bar_m(width_m: float) -> float:
    """The largest of 1, 2, 5 × 10ⁿ metres that fills no more than a quarter of `width_m`."""
    most = max(width_m / 4, 1e-3)
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= most * (1 + 1e-9))


def width_m(frame: Bounds, squeeze: float) -> float:
    """Metres from west to east in the middle of `frame`."""
    return (frame[2] - frame[0]) * METRES_PER_DEGREE * squeeze


def degree_label(value: float, *, axis: str) -> str:
    """`3.5° E`, `16° S`: a longitude of any turn (axis `x`) or a latitude (axis `y`)."""
    value = (value + 180.0) % 360.0 - 180.0 if axis == "x" else value
    side = ("E" if value > 0 else "W") if axis == "x" else ("N" if value > 0 else "S")
    number = f"{abs(value):.4f}".rstrip("0").rstrip(".")
    return f"{number}°" if number in ("0", "180") else f"{number}° {side}"


def pole_label(pole: float) -> str:
    """What the axes of a map around a pole say."""
    return f"km from the {'north' if pole > 0 else 'south'} pole; Greenwich is {'below' if pole > 0 else 'above'} it"


def describe_time(feature_start: object, feature_end: object, *, pair: bool) -> str:
    """The date of a feature for a reader."""
    return date_label(parse_time(feature_start), parse_time(feature_end), pair=pair)
