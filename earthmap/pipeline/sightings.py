"""What a catalogue holds of an area: one sighting for each observation, from items and coarse overviews alone."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.catalog import (
    CatalogSource,
    JoinedCatalog,
    Observation,
    find_scenes,
    image_catalog,
    narrow,
    observe,
    open_catalog,
    stated_clear,
)
from earthmap.cube import Glance, RasterioReader, Reader, glance, is_classified
from earthmap.errors import ReadError, SensorError
from earthmap.grid import AreaOfInterest
from earthmap.grid.lonlat import middle_longitude
from earthmap.outputs import StripPanel
from earthmap.sensors import SENSORS, Reason, default_view, get_view, make_view

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

LOOK_PX = 192
"""Longer side of the area in the pixels that are looked at."""

FARTHEST_DEG = 140.0
"""From the middle of an azimuthal picture, at the Earth's centre; the point opposite would be a circle."""

LEAST_LOOK_PX = 16
"""An observation that fills fewer of those pixels shows nothing: it is listed, and not looked at."""

MAX_LOOKED_AT = 200
"""Observations whose overviews are read; of the rest the stated cloud is given."""

MAX_PANELS = 24
"""Pictures of a strip."""

THREADS = 8
"""Observations that are looked at together: nearly all of the time is waiting for the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One observation of an area."""

    observation: str
    sensor: str
    datetime: dt.datetime
    """When its first scene over the area was measured (UTC)."""
    end: dt.datetime
    """When its last was: days later for a vintage."""
    solar_time: str
    """Local solar time, `HH:MM`: UTC and four minutes for each degree of longitude."""
    cover: float
    """Share of the area that its scenes' footprints cover."""
    cloud: float | None
    """Share of what it shows of the area that is cloud or cirrus; None where nothing is known."""
    cloud_measured: bool
    """True where quality layers were counted, false where the catalogue's figure for whole scenes is given."""
    orbit_direction: str | None
    relative_orbit: int | None
    off_nadir_deg: float | None
    sun_elevation_deg: float | None
    platform: str | None
    scenes: tuple[str, ...]
    collections: tuple[str, ...]
    problem: str | None = None
    """Why it could not be looked at."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        plain = dataclasses.asdict(self)
        return {key: value.isoformat() if isinstance(value, dt.datetime) else value for key, value in plain.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """What there is of an area."""

    rows: tuple[Sighting, ...]
    """In order of time."""
    refused: tuple[tuple[str, str], ...]
    """Items of the catalogue that were not understood: id and why."""
    panels: tuple[StripPanel, ...] = field(default=(), repr=False)
    """Pictures of those that show most of the area, in order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The area in few pixels of equal area, whatever its latitude and on which side of the antimeridian it lies."""

    geobox: GeoBox
    inside: NDArray[np.bool_]
    outline: tuple[NDArray[np.float64], ...]


def find_sightings(
    request: Mapping[str, Any],
    *,
    pictures: bool = False,
    reader: Reader | None = None,
    say: Callable[[str], None] | None = None,
) -> Sightings:
    """`list_sightings` for what a job or the command line says.

    Args:
        request: `area`, `catalog`, `images`, `bands`, `datetime`, `collections` and `sensor`, as in a job.
        pictures: draw the first view of each as well.
        reader: reads overviews; None for the files themselves.
        say: hears of long scans of images.

    Raises:
        AreaError: for an area that is not ground on the Earth.
        CatalogError: as `list_sightings`, and for images that are not there.
    """
    sources: list[CatalogSource] = []
    area = request["area"]
    if request["catalog"] is not None:
        sources.append(open_catalog(request["catalog"], say=say))
    if request["images"]:
        bands = request["bands"]
        names = [part.strip() for part in bands.split(",")] if isinstance(bands, str) else bands
        images = image_catalog(request["images"], datetime=request["datetime"], bands=names, say=say)
        area = images.footprint if area is None else area
        sources.append(images)
    search = {name: request[name] or None for name in ("datetime", "collections", "sensor")}
    return list_sightings(
        sources[0] if len(sources) == 1 else JoinedCatalog(sources),
        AreaOfInterest.normalize(area),
        reader=reader or RasterioReader(),
        search=search,
        pictures=pictures,
    )


def list_sightings(
    source: CatalogSource,
    area: AreaOfInterest,
    *,
    reader: Reader,
    search: Mapping[str, Any],
    pictures: bool = False,
) -> Sightings:
    """Every observation of `area` in order of time, with how much of it each shows.

    Args:
        source: where to look.
        area: what is asked about.
        reader: reads overviews.
        search: `datetime`, `collections`, `sensor` of `find_scenes`.
        pictures: draw the first view of each as well.

    Raises:
        CatalogError: when the catalogue cannot be read or holds nothing for the area and time.
    """
    found = find_scenes(source, area.geometry, **search)
    narrowed = (narrow(observation, area.geometry) for observation in observe(found.scenes))
    observations = sorted((one for one in narrowed if one), key=lambda one: (one.datetime, one.id))
    most = sorted(observations, key=lambda one: -stated_clear(one, area.geometry))
    frame = _frame(area)
    shown = frame.inside.sum() / LEAST_LOOK_PX
    looked_at = {one.id for one in most[:MAX_LOOKED_AT] if _cover(one, area.geometry) * shown >= 1.0}
    look = partial(_look, reader=reader, area=area, frame=frame, pictures=pictures)
    with ThreadPoolExecutor(THREADS) as pool:
        looks = list(pool.map(lambda one: look(one, wanted=one.id in looked_at), observations))
    rows = tuple(row for row, _ in looks)
    return Sightings(
        rows=rows,
        refused=tuple((item.id, item.why) for item in found.refused),
        panels=_panels(looks, frame) if pictures else (),
    )


def _look(
    observation: Observation, *, reader: Reader, area: AreaOfInterest, frame: _Frame, pictures: bool, wanted: bool
) -> tuple[Sighting, NDArray[np.uint8] | None]:
    """The sighting, and its picture (y, x, 4) where one is asked for."""
    row = _stated(observation, area)
    bands = _bands(observation) if pictures else ()
    measured = is_classified(observation) and not SENSORS[observation.sensor].is_sar
    if not wanted or not (bands or measured):
        return row, None
    try:
        seen = glance(reader, observation, frame.geobox, bands=bands)
    except ReadError as error:
        return dataclasses.replace(row, problem=str(error)), None
    if measured:
        row = dataclasses.replace(row, cloud=_cloud(seen, frame), cloud_measured=True)
    return row, _picture(observation, seen) if bands else None


def _stated(observation: Observation, area: AreaOfInterest) -> Sighting:
    """What items alone say."""
    first = min(observation.scenes, key=lambda scene: scene.datetime)
    known = all(scene.cloud_cover is not None for scene in observation.scenes)
    cover = _cover(observation, area.geometry)
    clear = stated_clear(observation, area.geometry)
    shown = stated_clear(_cloudless(observation), area.geometry)
    return Sighting(
        observation=observation.id,
        sensor=observation.sensor,
        datetime=observation.datetime,
        end=max(scene.datetime for scene in observation.scenes).astimezone(dt.UTC),
        solar_time=_solar_time(observation.datetime, area),
        cover=cover,
        cloud=min(1.0, max(0.0, 1.0 - clear / shown)) if known and shown else None,
        cloud_measured=False,
        orbit_direction=first.orbit_direction,
        relative_orbit=first.relative_orbit,
        off_nadir_deg=_mean([scene.off_nadir_deg for scene in observation.scenes]),
        sun_elevation_deg=_mean([scene.sun_elevation_deg for scene in observation.scenes]),
        platform=first.platform,
        scenes=tuple(scene.id for scene in observation.scenes),
        collections=tuple(sorted({scene.collection for scene in observation.scenes})),
    )


def _cloudless(observation: Observation) -> Observation:
    scenes = tuple(dataclasses.replace(scene, cloud_cover=0.0) for scene in observation.scenes)
    return dataclasses.replace(observation, scenes=scenes)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None


def _cover(observation: Observation, geometry: Any) -> float:
    """Share of `geometry` under any footprint, on a cylinder of equal area."""
    import shapely

    def flat(shape: Any) -> Any:
        return shapely.transform(shape, lambda xy: np.column_stack([xy[:, 0], np.sin(np.radians(xy[:, 1])) * 57.3]))

    ground = shapely.union_all([shapely.from_wkb(scene.footprint) for scene in observation.scenes])
    whole, shown = flat(geometry).area, flat(shapely.intersection(ground, geometry)).area
    return round(min(1.0, shown / whole), 4) if whole else 0.0


def _solar_time(time: dt.datetime, area: AreaOfInterest) -> str:
    solar = time.astimezone(dt.UTC) + dt.timedelta(hours=middle_longitude(area.geometry) / 15.0)
    return f"{solar:%H:%M}"


# ── overviews ────────────────────────────────────────────────────────────────────────────────────────────────


def _frame(area: AreaOfInterest) -> _Frame:
    """The area in Lambert's azimuthal projection around its middle, in square pixels of equal area; what reaches to
    the other side of the Earth, which has no place there, on a cylinder of equal area."""
    import shapely
    from affine import Affine
    from odc.geo.crs import CRS
    from odc.geo.geobox import GeoBox

    west, south, east, north = shapely.bounds(area.geometry)
    step = max(east - west, north - south, 1e-6) / 200
    ground = shapely.segmentize(area.geometry, step)
    longitude, latitude = middle_longitude(area.geometry), (south + north) / 2
    crs = CRS(f"+proj=laea +lat_0={latitude:.4f} +lon_0={longitude:.4f} +units=m")
    if _farthest_deg(ground, longitude, latitude) > FARTHEST_DEG:
        crs = CRS(f"+proj=cea +lon_0={longitude:.4f} +units=m")
    forward = CRS("EPSG:4326").transformer_to_crs(crs)
    flat = shapely.union_all(
        [
            shapely.transform(part, lambda xy: np.column_stack(forward(xy[:, 0], xy[:, 1])))
            for part in shapely.get_parts(ground)
        ]
    )
    left, bottom, right, top = shapely.bounds(flat)
    size = max(right - left, top - bottom, 1.0) / LOOK_PX
    shape = (max(1, round((top - bottom) / size + 0.5)), max(1, round((right - left) / size + 0.5)))
    geobox = GeoBox(shape, Affine(size, 0, left, 0, -size, top), crs)
    y, x = np.meshgrid(np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5, indexing="ij")
    shapely.prepare(flat)
    inside = shapely.contains_xy(flat, left + x * size, top - y * size)
    rings = [ring for part in shapely.get_parts(flat) for ring in (part.exterior, *part.interiors)]
    outline = tuple((shapely.get_coordinates(ring) - (left, top)) / (size, -size) for ring in rings)
    return _Frame(geobox=geobox, inside=inside if inside.any() else np.ones(shape, np.bool_), outline=outline)


def _farthest_deg(geometry: Any, longitude: float, latitude: float) -> float:
    """Angle at the Earth's centre between a point and the farthest vertex."""
    import shapely

    x, y = np.radians(shapely.get_coordinates(geometry)).T
    middle = np.radians(latitude)
    cosine = np.sin(y) * np.sin(middle) + np.cos(y) * np.cos(middle) * np.cos(x - np.radians(longitude))
    return float(np.degrees(np.arccos(np.clip(cosine.min(), -1.0, 1.0))))


def _cloud(seen: Glance, frame: _Frame) -> float | None:
    codes = seen.mask[frame.inside]
    shown = codes != Reason.NODATA
    if not shown.any():
        return None
    return round(float(np.isin(codes[shown], [Reason.CLOUD, Reason.CIRRUS]).mean()), 4)


def _bands(observation: Observation) -> tuple[str, ...]:
    """The bands of the sensor's first view that the observation has; none where it has no view."""
    have = {source.band for scene in observation.scenes for source in scene.sources}
    try:
        return tuple(dict.fromkeys(get_view(default_view(observation.sensor, sorted(have))).bands))
    except SensorError:
        return ()


def _picture(observation: Observation, seen: Glance) -> NDArray[np.uint8]:
    rgb = make_view(default_view(observation.sensor, seen.bands), seen.bands, seen.data, seen.mask)
    if SENSORS[observation.sensor].is_sar:
        rgb = np.repeat(rgb[..., :1], 3, axis=-1)  # people read radar in grey
    return np.dstack([rgb, np.where(seen.mask == Reason.NODATA, 0, 255).astype(np.uint8)])


def _panels(looks: Sequence[tuple[Sighting, NDArray[np.uint8] | None]], frame: _Frame) -> tuple[StripPanel, ...]:
    """The pictures that show most of the area, in order of time."""
    empty = np.zeros((*frame.geobox.shape, 4), np.uint8)
    most = sorted(range(len(looks)), key=lambda n: -looks[n][0].cover * (1.0 - (looks[n][0].cloud or 0.0)))
    return tuple(
        StripPanel(
            rgba=picture if (picture := looks[n][1]) is not None else empty,
            outline=frame.outline,
            title=f"{looks[n][0].datetime:%Y-%m-%d %H:%M} UTC",
            lines=_lines(looks[n][0]),
        )
        for n in sorted(most[:MAX_PANELS])
    )


def _lines(row: Sighting) -> tuple[str, ...]:
    cloud = "cloud not known"
    if row.cloud is not None:
        cloud = f"cloud {row.cloud:.0%}" + ("" if row.cloud_measured else " (stated)")
    if SENSORS[row.sensor].is_sar:
        cloud = row.orbit_direction or "radar"
    problem = ("could not be read",) if row.problem else ()
    return (row.sensor, f"cover {row.cover:.0%}, {cloud}", *problem)
