"""Ground areas of many polygons at once, on the WGS 84 ellipsoid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEMI_MINOR_M = 6_356_752.314245179
_ECCENTRICITY = 0.0818191908426215
"""Of WGS 84 (EPSG:7030)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


def _below(latitude_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area in m² between the equator and a parallel for one radian of longitude (Snyder 1987, eq. 3-12)."""
    sine = np.sin(np.radians(latitude_deg))
    e = _ECCENTRICITY
    return 0.5 * _SEMI_MINOR_M**2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)


def areas_m2(polygons: NDArray[np.object_]) -> NDArray[np.float64]:
    """The area of each (Multi)Polygon in EPSG:4326, x = longitude, edges straight in degrees; no longer than a degree.

    Green's theorem with four Gauss points on every edge, over all vertices of all polygons at once.
    """
    parts, whole = shapely.get_parts(polygons, return_index=True)
    lines, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(lines, return_index=True)
    if not len(xy):
        return np.zeros(len(polygons))
    start, end = xy[:-1], xy[1:]
    inner = ring[:-1] == ring[1:]
    middle, half = (start[:, 1] + end[:, 1]) / 2, (end[:, 1] - start[:, 1]) / 2
    mean = sum(w * _below(middle + half * node) for node, w in zip(_NODES, _WEIGHTS, strict=True)) / 2
    swept = np.radians(end[:, 0] - start[:, 0]) * mean * inner
    rings = np.abs(np.bincount(ring[:-1], weights=swept, minlength=len(lines)))
    hole = np.diff(part, prepend=-1) == 0  # the first ring of a polygon is its shell
    sums = np.bincount(whole[part], weights=np.where(hole, -rings, rings), minlength=len(polygons))
    return sums.astype(np.float64)
