"""Time series in NetCDF 4 files as STAC items: each step of time of one sensor is one item.

What was measured is told from the file: its own metadata (`platform`, `name`, `title`) and the names of its variables,
else from the file's name. Numbers whose unit is not stated are told apart only where physics leaves no choice: power is
never negative, so negative backscatter is in decibels.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.catalog.assets import LAYERS
from earthmap.catalog.intervals import format_time
from earthmap.catalog.netcdf_files import (
    NetcdfError,
    NetcdfGrid,
    VariableStep,
    dataset_of,
    fill_of,
    grid_of,
    image_variables,
    number_attribute,
    open_netcdf,
    stored_type,
    text_attribute,
    times_of,
)
from earthmap.content import content_key
from earthmap.errors import CatalogError
from earthmap.sensors.bands import SAR_BANDS, THERMAL_BANDS, resolve_band, resolve_family
from earthmap.sensors.quality import QUALITY_LAYERS

if TYPE_CHECKING:
    import h5py

COLLECTION = "netcdf"
"""Collection of the items."""

MEDIA_TYPE = "application/netcdf"

_PLATFORMS = (
    (re.compile(r"(?:^|[^a-z0-9])(?:s2[ab]?|sentinel-?2[abc]?)(?![a-z0-9])", re.IGNORECASE), "sentinel-2"),
    (re.compile(r"(?:^|[^a-z0-9])(?:s1[ab]?|sentinel-?1[abc]?)(?![a-z0-9])", re.IGNORECASE), "sentinel-1"),
    (re.compile(r"(?:^|[^a-z0-9])(?:l8|lc0?8|landsat-?8)(?![a-z0-9])", re.IGNORECASE), "landsat-8"),
    (re.compile(r"(?:^|[^a-z0-9])(?:l9|lc0?9|landsat-?9)(?![a-z0-9])", re.IGNORECASE), "landsat-9"),
)
_LEVEL = re.compile(r"(?:^|[^a-z0-9])(l1c|l2a)(?![a-z0-9])", re.IGNORECASE)
FILLED_TEMPERATURE_K = 149.0
"""What the archive's fill, 0, becomes under the scale of Landsat's surface temperature (USGS LSDS-1619): no ground."""

_KELVIN_RANGE = (100.0, 400.0)
_SURFACE_TEMPERATURE = re.compile(r"^st[_-]?b\d+$", re.IGNORECASE)
_KEY_DIGITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """One variable of one file that is a band or a quality layer of a platform."""

    path: str
    variable: str
    platform: str | None
    level: str | None
    stamp: str
    grid: NetcdfGrid
    times: tuple[tuple[datetime.datetime, datetime.datetime], ...]
    band: dict[str, Any]
    """The record of STAC 1.1's `bands`."""


def netcdf_items(*paths: str | Path) -> list[dict[str, Any]]:
    """STAC 1.1 items of the time series in local NetCDF 4 files, in order of time.

    Variables of one platform, moment and ground make one item, whichever of the files they lie in: bands of different
    pixel sizes come in files of their own. The address of an asset names variable and step: `file.nc#B04@3`.

    Raises:
        CatalogError: for a file that is no NetCDF 4, or holds no band over time that is known here.
    """
    grouped: dict[tuple[str, datetime.datetime, tuple[float, ...]], list[tuple[_Series, int]]] = {}
    for path in sorted({str(Path(path).expanduser().resolve()) for path in paths}):
        for series in _read(path):
            bounds = tuple(round(bound, 4) for bound in _bounds(series.grid))
            for step, (start, _) in enumerate(series.times):
                grouped.setdefault((series.platform or "", start, bounds), []).append((series, step))
    return [_item(grouped[key]) for key in sorted(grouped, key=lambda key: (key[1], key[0], key[2]))]


# ── from a file ──────────────────────────────────────────────────────────────────────────────────────────────


def _read(path: str) -> list[_Series]:
    try:
        with open_netcdf(path) as file:
            found = list(_series(file, path))
    except NetcdfError as error:
        raise CatalogError(
            f"the time series {path} cannot be read: {error}",
            expected="NetCDF 4 with time, y and x coordinates and a grid mapping (CF conventions)",
        ) from error
    if not any(series.band["name"] not in QUALITY_LAYERS for series in found):
        raise CatalogError(
            f"{path} holds no band that is known here",
            expected="variables over time, y and x that are named after bands, such as B04 or VV",
        )
    return found


def _series(file: h5py.File, path: str) -> Iterator[_Series]:
    told = " ".join(text_attribute(file, name) or "" for name in ("platform", "name", "title"))
    stem = Path(path).stem
    status = Path(path).stat()
    for variable in image_variables(file):
        dataset = dataset_of(file, variable)
        platform = _platform(variable) or _platform(told) or _platform(stem)
        name = _band_name(variable, platform)
        if name is None:
            continue
        level = _LEVEL.search(f"{variable} {told} {stem}")
        yield _Series(
            path=path,
            variable=variable,
            platform=platform,
            level=level[1].upper() if level and platform == "sentinel-2" else None,
            stamp=f"{status.st_size}:{status.st_mtime_ns}",
            grid=grid_of(file, dataset),
            times=tuple(times_of(file, dataset)),
            band=_band(dataset, name=name, variable=variable, platform=platform),
        )


def _platform(text: str) -> str | None:
    spaced = text.replace("_", " ")
    return next((platform for pattern, platform in _PLATFORMS if pattern.search(spaced)), None)


def _band_name(variable: str, platform: str | None) -> str | None:
    """A canonical band or the kind of a quality layer; None for any other variable."""
    kind = variable.lower().replace("-", "_")
    if kind in QUALITY_LAYERS or kind in LAYERS:
        return kind
    return resolve_band(kind, family=resolve_family(platform))


def _band(dataset: h5py.Dataset, *, name: str, variable: str, platform: str | None) -> dict[str, Any]:
    scale, offset = number_attribute(dataset, "scale_factor"), number_attribute(dataset, "add_offset")
    if offset is None and scale is not None and platform != "sentinel-2":
        offset = (
            0.0  # a packed variable says all (CF 8.1); Sentinel-2's offset is left out by those who copy its numbers
        )
    unit = text_attribute(dataset, "units") or _unit(dataset, name=name, variable=variable)
    filled = unit == "K" and _SURFACE_TEMPERATURE.match(variable) and scale in (None, 1.0)
    band: dict[str, Any] = {"name": name, "description": variable, "data_type": stored_type(dataset).name}
    stated = {
        "nodata": FILLED_TEMPERATURE_K if filled else fill_of(dataset),
        "raster:scale": scale,
        "raster:offset": offset,
        "unit": unit,
        "sar:polarizations": [name.upper()] if name in SAR_BANDS else None,
    }
    return band | {key: value for key, value in stated.items() if value is not None}


def _unit(dataset: h5py.Dataset, *, name: str, variable: str) -> str | None:
    """The unit where the numbers of the first step leave no choice; None where they do."""
    stored = np.asarray(dataset[0]).view(stored_type(dataset)).astype(np.float64)
    seen = stored[np.isfinite(stored) & (stored != fill_of(dataset))]
    scale, offset = number_attribute(dataset, "scale_factor"), number_attribute(dataset, "add_offset")
    values = seen * (1.0 if scale is None else scale) + (offset or 0.0)
    if name in SAR_BANDS and bool((values < 0).any()):
        return "dB"
    inside = bool(values.size) and _KELVIN_RANGE[0] <= values.min() and values.max() <= _KELVIN_RANGE[1]
    return "K" if name in THERMAL_BANDS and _SURFACE_TEMPERATURE.match(variable) and inside else None


# ── to an item ───────────────────────────────────────────────────────────────────────────────────────────────


def _bounds(grid: NetcdfGrid) -> tuple[float, float, float, float]:
    rows, columns = grid.shape
    corners = [grid.transform @ corner for corner in ((0, 0), (columns, rows))]
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _footprint(grid: NetcdfGrid) -> list[list[float]]:
    """The ring of the grid in longitude and latitude, anticlockwise."""
    from pyproj import Transformer

    west, south, east, north = _bounds(grid)
    share = np.linspace(0, 1, 5)[:-1]
    x = np.concatenate([west + (east - west) * share, 0 * share + east, east - (east - west) * share, 0 * share + west])
    y = np.concatenate(
        [0 * share + south, south + (north - south) * share, 0 * share + north, north - (north - south) * share]
    )
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    ring = [[round(float(a), 7), round(float(b), 7)] for a, b in zip(lon, lat, strict=True)]
    return [*ring, ring[0]]


def _item(parts: Sequence[tuple[_Series, int]]) -> dict[str, Any]:
    first, step = parts[0]
    start, end = first.times[step]
    ring = _footprint(first.grid)
    key = content_key(sorted({(series.path, series.stamp) for series, _ in parts}))[:_KEY_DIGITS]
    when = {"datetime": format_time(start)} if start == end else {
        "datetime": None, "start_datetime": format_time(start), "end_datetime": format_time(end)
    }  # fmt: skip
    properties = {
        **when,
        "platform": first.platform,
        "processing:level": first.level,
        "proj:code": first.grid.crs if first.grid.crs.startswith("EPSG:") else None,
    }
    lons, lats = [place[0] for place in ring], [place[1] for place in ring]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": f"{Path(first.path).stem}_{start:%Y%m%dT%H%M%S}_{key}",
        "collection": COLLECTION,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "properties": {name: value for name, value in properties.items() if value is not None or name == "datetime"},
        "links": [],
        "assets": _assets(parts),
    }


def _assets(parts: Sequence[tuple[_Series, int]]) -> dict[str, Any]:
    """By variable; a variable that two files hold is taken from the first, with the finer pixels."""
    assets: dict[str, Any] = {}
    for series, step in sorted(parts, key=lambda part: abs(part[0].grid.transform.a)):
        grid = series.grid
        place = {"proj:code": grid.crs} if grid.crs.startswith("EPSG:") else {"proj:wkt2": grid.crs}
        assets.setdefault(
            series.band["name"],
            {
                "href": VariableStep(series.path, series.variable, step).address,
                "type": MEDIA_TYPE,
                "roles": ["data"],
                "proj:shape": list(grid.shape),
                "proj:transform": [float(value) for value in tuple(grid.transform)[:6]],
                "bands": [series.band],
                **place,
            },
        )
    return assets
