"""Backdrops: what the sensor saw, as a picture in longitude and latitude behind the results."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.grid.tiling import UTM_NORTH_DEG, UTM_SOUTH_DEG
from earthmap.sensors.masks import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    Bytes = NDArray[np.uint8]
    Bounds = tuple[float, float, float, float]

ROUND_FROM_DEG = 60.0
"""A map that reaches a polar cap is drawn around the pole where all of it is nearer to the pole than this parallel."""

METRES_PER_DEGREE = 111_320.0
"""Of latitude, and of longitude at the equator, to half a percent: scale bars and picture sizes, never areas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """One observation as a picture in EPSG:4326, row 0 in the north."""

    title: str
    datetime: dt.datetime
    """When it was measured (UTC)."""
    sensor: str
    rgb: Bytes = field(repr=False, compare=False)
    """(y, x, 3)."""
    alpha: Bytes = field(repr=False, compare=False)
    """(y, x): 0 where there is no picture, else 255."""
    reasons: Bytes = field(repr=False, compare=False)
    """(y, x) codes of the reason mask (`earthmap.sensors.masks.Reason`); NODATA where there is no picture."""
    bounds: Bounds
    """West, south, east, north in degrees; east is above 180 where the picture crosses the antimeridian.

    Of a picture around a pole: left, bottom, right, top in its plane (`plane_around`).
    """


def plane_around(pole: float) -> str:
    """The CRS of a map around a pole (90 or -90): distances from it are true, Greenwich is below it in the north.

    Maps count in it by METRES_PER_DEGREE, so that all that is known of degrees of latitude holds.
    """
    return f"+proj=aeqd +lat_0={pole:g} +lon_0=0 +datum=WGS84 +units=m +no_defs +type=crs"


def pole_of(south: float, north: float) -> float | None:
    """The pole (90 or -90) that ground between two parallels is drawn around; None for a map in degrees."""
    if north > UTM_NORTH_DEG and south > ROUND_FROM_DEG:
        return 90.0
    return -90.0 if south < UTM_SOUTH_DEG and north < -ROUND_FROM_DEG else None


def warp_backdrop(
    rgb: Bytes, geobox: GeoBox, *, title: str, datetime: dt.datetime, sensor: str, max_px: int = 1600
) -> Backdrop:
    """A picture (y, x, 3) on its lattice as a Backdrop of at most `max_px` a side; everything in it is clear."""
    reasons = np.full(rgb.shape[:2], Reason.CLEAR, np.uint8)
    return mosaic_backdrop([(rgb, reasons, geobox)], title=title, datetime=datetime, sensor=sensor, max_px=max_px)


def mosaic_backdrop(
    pictures: Sequence[tuple[Bytes, Bytes, GeoBox]],
    *,
    title: str,
    datetime: dt.datetime,
    sensor: str,
    max_px: int = 1600,
    pole: float | None = None,
) -> Backdrop:
    """The pictures of one observation, in any zones, as one Backdrop; the first with data at a place is shown.

    Args:
        pictures: (y, x, 3) uint8, (y, x) codes of the reason mask, and its lattice, for each cell. At least one. Only
            nodata is not shown.
        title: What to call it.
        datetime: When it was measured (UTC).
        sensor: Id of the sensor's row.
        max_px: Most pixels a side.
        pole: 90 or -90 for a map around that pole (`pole_of`).
    """
    middle = 0.0 if pole else _degrees(pictures[0][2], 0.0)[0].mean()
    edges = [_around(geobox, pole) if pole else _degrees(geobox, float(middle)) for _, _, geobox in pictures]
    west, east = min(float(lon.min()) for lon, _ in edges), max(float(lon.max()) for lon, _ in edges)
    south, north = min(float(lat.min()) for _, lat in edges), max(float(lat.max()) for _, lat in edges)
    turn = 360.0 if west < -180.0 else 0.0
    west, east, middle = west + turn, east + turn, middle + turn
    squeeze = 1.0 if pole else max(0.02, math.cos(math.radians((south + north) / 2)))
    finest_m = min(abs(geobox.affine.a) for _, _, geobox in pictures) or 1.0
    step = max((east - west) * squeeze / max_px, (north - south) / max_px, finest_m / METRES_PER_DEGREE)
    height, width = max(1, math.ceil((north - south) / step)), max(1, math.ceil((east - west) * squeeze / step))
    canvas = np.zeros((height, width, 5), np.uint8)
    canvas[..., 4] = Reason.NODATA
    bounds = (west, north - height * step, west + width * step / squeeze, north)
    for (rgb, reasons, geobox), (lon, lat) in zip(pictures, edges, strict=True):
        layers = np.dstack([rgb, np.where(reasons == Reason.NODATA, 0, 255).astype(np.uint8), reasons])
        _paste(canvas, bounds, layers, geobox, (lon + turn, lat), pole)
    return _backdrop(canvas, bounds, title=title, datetime=datetime, sensor=sensor)


def _backdrop(canvas: Bytes, bounds: Bounds, *, title: str, datetime: dt.datetime, sensor: str) -> Backdrop:
    """Red, green, blue, opacity and reason (y, x, 5) as a Backdrop."""
    alpha = np.where(canvas[..., 3] > 127, 255, 0).astype(np.uint8)
    return Backdrop(
        title=title,
        datetime=datetime,
        sensor=sensor,
        rgb=np.ascontiguousarray(canvas[..., :3]),
        alpha=alpha,
        reasons=np.where(alpha > 0, canvas[..., 4], Reason.NODATA).astype(np.uint8),
        bounds=bounds,
    )


def _degrees(geobox: GeoBox, middle: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes (within half a turn of `middle`, or continuous where it is 0) and latitudes along the outline."""
    lon, lat = _outline(geobox, "EPSG:4326")
    around = middle or float(lon[0])
    return around + (lon - around + 180.0) % 360.0 - 180.0, lat


def _around(geobox: GeoBox, pole: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y along the outline in the plane around a pole, by METRES_PER_DEGREE."""
    x, y = _outline(geobox, plane_around(pole))
    return x / METRES_PER_DEGREE, y / METRES_PER_DEGREE


def _outline(geobox: GeoBox, crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from pyproj import Transformer

    rows, columns = geobox.shape
    along = np.linspace(0.0, 1.0, 33)
    x = np.concatenate([along, along, np.zeros(33), np.ones(33)]) * columns
    y = np.concatenate([np.zeros(33), np.ones(33), along, along]) * rows
    affine = geobox.affine
    there = Transformer.from_crs(str(geobox.crs), crs, always_xy=True)
    x, y = there.transform(affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f)
    return np.asarray(x), np.asarray(y)


def _paste(
    canvas: Bytes,
    bounds: Bounds,
    layers: Bytes,
    geobox: GeoBox,
    outline: tuple[NDArray[np.float64], NDArray[np.float64]],
    pole: float | None,
) -> None:
    """Warp one picture into its part of the canvas, where that shows nothing yet."""
    from affine import Affine
    from rasterio.enums import Resampling
    from rasterio.warp import reproject

    height, width = canvas.shape[:2]
    west, south, east, north = bounds
    per_x, per_y = width / (east - west), height / (north - south)
    lon, lat = outline
    left, right = _span((lon.min() - west) * per_x, (lon.max() - west) * per_x, width)
    top, bottom = _span((north - lat.max()) * per_y, (north - lat.min()) * per_y, height)
    place = Affine(1 / per_x, 0.0, west + left / per_x, 0.0, -1 / per_y, north - top / per_y)
    place = Affine.scale(METRES_PER_DEGREE) @ place if pole else place
    coarser = METRES_PER_DEGREE / per_y > 1.5 * abs(geobox.affine.a)

    def warped(part: Bytes, how: Resampling, alpha: int | None) -> Bytes:
        into = np.zeros((part.shape[-1], bottom - top, right - left), np.uint8)
        reproject(
            np.ascontiguousarray(np.moveaxis(part, -1, 0)),
            into,
            src_transform=geobox.affine,
            src_crs=str(geobox.crs),
            dst_transform=place,
            dst_crs=plane_around(pole) if pole else "EPSG:4326",
            src_alpha=alpha,
            dst_alpha=alpha,
            resampling=how,
        )
        return np.moveaxis(into, 0, -1)

    rgba = warped(layers[..., :4], Resampling.average if coarser else Resampling.nearest, 4)
    reasons = warped(layers[..., 4:], Resampling.nearest, 0)
    part = canvas[top:bottom, left:right]
    fresh = (part[..., 3] <= 127) & (rgba[..., 3] > 0)
    part[fresh] = np.concatenate([rgba, reasons], axis=-1)[fresh]


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    first = min(max(0, math.floor(low)), size - 1)
    return first, min(size, max(first + 1, math.ceil(high)))


def shrink(backdrop: Backdrop, max_px: int) -> Backdrop:
    """The same picture with at most `max_px` a side, each new pixel the mean of those that it covers."""
    from PIL import Image

    height, width = backdrop.alpha.shape
    scale = max_px / max(height, width)
    if scale >= 1.0:
        return backdrop
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgba: Any = Image.fromarray(np.dstack([backdrop.rgb, backdrop.alpha])).resize(size, Image.Resampling.BOX)
    reasons: Any = Image.fromarray(backdrop.reasons).resize(size, Image.Resampling.NEAREST)
    canvas = np.dstack([np.asarray(rgba), np.asarray(reasons)])
    return _backdrop(canvas, backdrop.bounds, title=backdrop.title, datetime=backdrop.datetime, sensor=backdrop.sensor)
