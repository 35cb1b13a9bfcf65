"""Placement by ground control points: radar images that have no affine transform, such as Sentinel-1 GRD.

Sentinel-1's points form a regular grid over lines and pixels (ESA, Sentinel-1 Product Specification S1-RS-MDA-52-7441,
geolocation grid), each at a height that belongs to its line. Without their heights the points are a smooth surface,
with them they jump by a kilometre from line to line. So a position is taken as

    position(line, pixel) = smooth(line, pixel) + height(line, pixel) × shift(line, pixel)

with a bicubic spline through the smooth part, heights interpolated linearly, and the shift of one metre of height
learned from the points themselves where their heights differ. All of it is in metres on the plane that touches the
ellipsoid in the middle of the image: neither the antimeridian nor a pole is a special place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earthmap.errors import ReadError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.crs import CRS

SEMI_MAJOR_M, ECCENTRICITY_2 = 6378137.0, 6.69437999014e-3
"""WGS 84."""

MIN_POINTS = 4
"""Lines, and points in a line: a cubic needs four, and fewer cannot be checked against each other."""

MAX_POINTS = 100_000
"""More than any product has (a Sentinel-1 strip of ten minutes has 10,000)."""

MAX_RESIDUAL_PX = 5.0
"""How far a control point may lie from where its neighbours put it, in pixels. Real ones: 0.01 (see the tests)."""

MIN_HEIGHT_SPREAD_M = 10.0
"""Heights that differ by less tell nothing of the shift, and matter by less than a pixel."""

HORIZON = 0.8
"""Cosine of the angle from the image's middle beyond which ground is not looked at (about 4,000 km)."""

NEWTON_STEPS = 8
"""Always as many: the result of a point must not depend on which others are asked with it."""

CONVERGED_PX = 1e-3
"""What the inverse may be off."""

_BEYOND_PX = 1e9


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """One point of the geolocation grid, in GDAL's pixel coordinates: (0, 0) is the corner of the first pixel."""

    row: float
    column: float
    lon: float
    lat: float
    height_m: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlGrid:
    """Where the pixels of an image lie that is placed by control points: the second kind beside `SourceGrid`."""

    shape: tuple[int, int]
    """Rows, columns."""
    surface: Surface = field(repr=False, compare=False)

    @property
    def crs(self) -> CRS:
        """Geographic: what its positions are given in."""
        from odc.geo.crs import CRS

        return CRS("EPSG:4326")

    @property
    def spacing_m(self) -> float:
        """Side of a square as large as a pixel, in metres."""
        return self.surface.spacing_m

    def pixels(
        self, lon: NDArray[np.float64], lat: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(column, row) of places in degrees, corner-based as GDAL counts; NaN where the image has no answer."""
        return self.surface.pixels(lon, lat)


# ── the plane ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane that touches the ellipsoid at a place; x to the east, y to the north."""

    lon: float
    lat: float

    def project(
        self, lon: NDArray[np.float64], lat: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Metres east and north, at right angles to the plane; NaN beyond the horizon."""
        here, there = _geocentric(np.float64(self.lon), np.float64(self.lat)), _geocentric(lon, lat)
        east, north, up = self._axes()
        apart = [one - other for one, other in zip(there, here, strict=True)]
        near = sum(axis * part for axis, part in zip(up, there, strict=True)) > HORIZON * SEMI_MAJOR_M
        x, y = (sum(a * part for a, part in zip(axis, apart, strict=True)) for axis in (east, north))
        return np.where(near, x, np.nan), np.where(near, y, np.nan)

    def _axes(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        lon, lat = math.radians(self.lon), math.radians(self.lat)
        east = (-math.sin(lon), math.cos(lon), 0.0)
        north = (-math.sin(lat) * math.cos(lon), -math.sin(lat) * math.sin(lon), math.cos(lat))
        up = (math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat))
        return east, north, up


def _geocentric(lon: Any, lat: Any) -> tuple[Any, Any, Any]:
    """Earth-centred metres of places on the ellipsoid."""
    lam, phi = np.radians(lon), np.radians(lat)
    radius = SEMI_MAJOR_M / np.sqrt(1 - ECCENTRICITY_2 * np.sin(phi) ** 2)
    flat = radius * np.cos(phi)
    return flat * np.cos(lam), flat * np.sin(lam), radius * (1 - ECCENTRICITY_2) * np.sin(phi)


def _middle(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[float, float]:
    """The place in the middle of others, by the mean of their directions."""
    lam, phi = np.radians(lon), np.radians(lat)
    x, y, z = (np.cos(phi) * np.cos(lam)).mean(), (np.cos(phi) * np.sin(lam)).mean(), np.sin(phi).mean()
    return math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))


# ── the surface ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """From (row, column) to the plane and back."""

    plane: Plane
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    smooth: tuple[Any, Any]
    """Bicubic splines of x and y at height 0."""
    height: NDArray[np.float64]
    """(line, point) metres above the ellipsoid."""
    shift: tuple[Any, Any]
    """Coefficients of 1, row and column for x and y: metres on the ground for a metre of height."""
    start: NDArray[np.float64]
    """(2, 3) of 1, x and y: row and column to begin with."""
    residual_px: float
    """Largest distance of a control point from where the others of its line put it, in pixels."""

    @property
    def spacing_m(self) -> float:
        """Side of a square as large as the pixel in the middle."""
        middle = np.array([self.rows.mean()]), np.array([self.columns.mean()])
        _, (xr, xc, yr, yc) = self._local(*middle)
        return float(np.sqrt(np.abs(xr * yc - xc * yr))[0])

    def position(
        self, row: NDArray[np.float64], column: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(x, y) on the plane; beyond the points the surface goes on straight."""
        (x, y), _ = self._local(row, column)
        return x, y

    def pixels(
        self, lon: NDArray[np.float64], lat: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(column, row) by Newton's method; NaN where it does not converge."""
        x, y = self.plane.project(lon, lat)
        known = np.isfinite(x) & np.isfinite(y)
        x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
        row, column = (one[0] + one[1] * x + one[2] * y for one in self.start)
        step = np.full_like(x, np.inf)
        for _ in range(NEWTON_STEPS):
            (px, py), (xr, xc, yr, yc) = self._local(row, column)
            det = xr * yc - xc * yr
            det = np.where(np.abs(det) < 1e-12, np.nan, det)
            dx, dy = x - px, y - py
            down, across = (yc * dx - xc * dy) / det, (xr * dy - yr * dx) / det
            row = np.clip(np.nan_to_num(row + down, nan=_BEYOND_PX), -_BEYOND_PX, _BEYOND_PX)
            column = np.clip(np.nan_to_num(column + across, nan=_BEYOND_PX), -_BEYOND_PX, _BEYOND_PX)
            step = np.hypot(down, across)
        found = known & (step < CONVERGED_PX)
        return np.where(found, column, np.nan), np.where(found, row, np.nan)

    def _local(self, row: NDArray[np.float64], column: NDArray[np.float64]) -> tuple[Any, Any]:
        """Position and its derivatives (x by row, x by column, y by row, y by column)."""
        r = np.clip(row, self.rows[0], self.rows[-1])
        c = np.clip(column, self.columns[0], self.columns[-1])
        height, *slope = self._height(r, c)
        positions, derivatives = [], []
        for smooth, (a, b, d) in zip(self.smooth, self.shift, strict=True):
            shift = a + b * r + d * c
            down = smooth.ev(r, c, dx=1) + slope[0] * shift + height * b
            across = smooth.ev(r, c, dy=1) + slope[1] * shift + height * d
            positions.append(smooth.ev(r, c) + height * shift + down * (row - r) + across * (column - c))
            derivatives += [down, across]
        return positions, derivatives

    def _height(self, row: NDArray[np.float64], column: NDArray[np.float64]) -> tuple[Any, Any, Any]:
        """Height, linear between the points, and its slopes along rows and columns."""
        i = np.clip(np.searchsorted(self.rows, row, side="right") - 1, 0, len(self.rows) - 2)
        j = np.clip(np.searchsorted(self.columns, column, side="right") - 1, 0, len(self.columns) - 2)
        tall, wide = self.rows[i + 1] - self.rows[i], self.columns[j + 1] - self.columns[j]
        u, v = (row - self.rows[i]) / tall, (column - self.columns[j]) / wide
        a, b = self.height[i, j], self.height[i, j + 1]
        c, d = self.height[i + 1, j], self.height[i + 1, j + 1]
        upper, lower = a + (b - a) * v, c + (d - c) * v
        return upper + (lower - upper) * u, (lower - upper) / tall, ((b - a) * (1 - u) + (d - c) * u) / wide


def control_grid(points: Sequence[ControlPoint], shape: tuple[int, int], *, address: str) -> ControlGrid:
    """The grid of an image of `shape` (rows, columns) that `points` place.

    Raises:
        ReadError: `ground_control_points` where they form no regular grid of at least 4 × 4, or do not fit together.
    """
    if len(points) > MAX_POINTS or not all(_is_finite(point) for point in points):
        raise _refusal(address, f"{len(points)} control points, some of which are no places")
    rows = sorted({point.row for point in points})
    columns = sorted({point.column for point in points})
    by_place = {(point.row, point.column): point for point in points}
    if min(len(rows), len(columns)) < MIN_POINTS or len(by_place) != len(rows) * len(columns):
        raise _refusal(address, f"{len(points)} control points that are no grid of lines and pixels")
    ordered = [[by_place[row, column] for column in columns] for row in rows]
    lon, lat, height = (
        np.array([[getattr(point, name) for point in line] for line in ordered], np.float64)
        for name in ("lon", "lat", "height_m")
    )
    plane = Plane(*_middle(lon, lat))
    places = plane.project(lon, lat)
    if not all(np.isfinite(part).all() for part in places):
        raise _refusal(address, "control points on more than a third of the Earth")
    centred = _centred(np.array(rows), shape[0]), _centred(np.array(columns), shape[1])
    surface = _fit(centred, plane, places, height)
    if not surface.residual_px <= MAX_RESIDUAL_PX or _folds(surface):
        raise _refusal(address, f"control points up to {surface.residual_px:.3g} pixels from where the others put them")
    return ControlGrid(shape=shape, surface=surface)


def _is_finite(point: ControlPoint) -> bool:
    numbers = (point.row, point.column, point.lon, point.lat, point.height_m)
    return all(math.isfinite(number) for number in numbers) and abs(point.lat) <= 90 and abs(point.lon) <= 540


def _refusal(address: str, what: str) -> ReadError:
    return ReadError(
        f"{address} is placed by {what}",
        address=address,
        reason="ground_control_points",
        expected=f"a regular grid of at least {MIN_POINTS} × {MIN_POINTS} that agree within {MAX_RESIDUAL_PX:g} pixels",
        fix="use a geocoded or terrain-corrected product",
    )


def _centred(lines: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sentinel-1 numbers the middles of pixels: its points run from 0 to size − 1, and GDAL's corners from 0 to size.

    What is missing at the end is one pixel of the original product, however much the image was reduced since: half of
    it lies at either side.
    """
    missing = size - lines[-1]
    return lines + missing / 2 if lines[0] == 0 and 0 < missing <= 1 else lines


def _fit(
    lines: tuple[NDArray[np.float64], NDArray[np.float64]],
    plane: Plane,
    places: tuple[NDArray[np.float64], NDArray[np.float64]],
    height: NDArray[np.float64],
) -> Surface:
    from scipy.interpolate import RectBivariateSpline

    rows, columns = lines
    x, y = places
    shift = _shift_of_height(lines, (x, y), height)
    r, c = np.meshgrid(rows, columns, indexing="ij")
    flat = [part - height * (a + b * r + d * c) for part, (a, b, d) in zip((x, y), shift, strict=True)]
    splines = [RectBivariateSpline(rows, columns, part) for part in flat]
    terms = np.stack([np.ones(x.size), x.ravel(), y.ravel()], axis=1)
    start = np.linalg.lstsq(terms, np.stack([r.ravel(), c.ravel()], axis=1), rcond=None)[0].T.astype(np.float64)
    return Surface(
        plane=plane,
        rows=rows,
        columns=columns,
        smooth=(splines[0], splines[1]),
        height=height,
        shift=(shift[0], shift[1]),
        start=start,
        residual_px=_left_out(lines, flat),
    )


def _shift_of_height(
    lines: tuple[NDArray[np.float64], NDArray[np.float64]],
    position: tuple[NDArray[np.float64], NDArray[np.float64]],
    height: NDArray[np.float64],
) -> list[tuple[float, float, float]]:
    """For x and y the coefficients of 1, row and column in metres a metre: a least-squares fit beside a polynomial."""
    if float(np.ptp(height)) < MIN_HEIGHT_SPREAD_M:
        return [(0.0, 0.0, 0.0)] * 2
    rows, columns = lines
    r, c = np.meshgrid(rows / rows[-1], columns / columns[-1], indexing="ij")
    degree = min(5, len(rows) - 2, len(columns) - 2)
    terms = [r**i * c**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    terms += [height / 1000, height / 1000 * r, height / 1000 * c]
    columns_of_fit = np.stack([term.ravel() for term in terms], axis=1)
    found = []
    for part in position:
        a, b, d = np.linalg.lstsq(columns_of_fit, part.ravel(), rcond=None)[0][-3:] / 1000
        found.append((float(a), float(b / rows[-1]), float(d / columns[-1])))
    return found


def _left_out(lines: tuple[NDArray[np.float64], NDArray[np.float64]], flat: Sequence[NDArray[np.float64]]) -> float:
    """The largest error in pixels of predicting each inner point of a line by a cubic through the line's others."""
    from scipy.interpolate import CubicSpline

    _, columns = lines
    spacing = float(np.hypot(*(np.diff(part, axis=1) for part in flat)).mean() / np.diff(columns).mean())
    if spacing == 0:
        return math.inf
    worst = 0.0
    for index in range(1, len(columns) - 1):
        rest = np.delete(columns, index)
        off = [
            CubicSpline(rest, np.delete(part, index, axis=1), axis=1)(columns[index]) - part[:, index] for part in flat
        ]
        worst = max(worst, float(np.hypot(*off).max() / spacing))
    return worst


def _folds(surface: Surface) -> bool:
    """True where the surface turns over: two places for one pixel."""
    r, c = np.meshgrid(surface.rows, surface.columns, indexing="ij")
    _, (xr, xc, yr, yc) = surface._local(r, c)
    turn = np.sign(xr * yc - xc * yr)
    return bool((turn != turn.flat[0]).any() or turn.flat[0] == 0)
