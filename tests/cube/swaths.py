"""Drawn swaths of a radar: (line, pixel) ↔ longitude and latitude by closed formulas, with the control points of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from odc.geo.geobox import GeoBox

from earthmap.cube.control import ControlGrid, ControlPoint, control_grid
from earthmap.cube.warp import Block

RADIUS_M = 6_371_000.0


def _turn(axis: int, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


@dataclass(frozen=True)
class Swath:
    """A strip along a great circle, pixels growing a little across it, skewed by the Earth's turn under the orbit."""

    lon: float
    lat: float
    heading: float
    """Degrees from north: −12 ascending, 192 descending."""
    shape: tuple[int, int] = (25_000, 17_000)
    spacing_m: float = 10.0
    bend: float = 0.02
    """How much larger the last pixel is than the first, as a share."""
    skew: float = 0.05
    """Degrees of longitude by which the Earth turns below a hundred kilometres of track."""

    @property
    def _matrix(self) -> np.ndarray:
        # along the track is x → y, across it z; the middle goes to (lon, lat), the track to the heading
        return _turn(2, self.lon) @ _turn(1, -self.lat) @ _turn(0, 90.0 - self.heading)

    def lonlat(self, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of corner-based pixel coordinates."""
        share = column / self.shape[1]
        across_px = self.shape[1] * (share + self.bend * share**2 / 2)
        along = (row - self.shape[0] / 2) * self.spacing_m / RADIUS_M
        across = -(across_px - self.shape[1] / 2) * self.spacing_m / RADIUS_M
        local = np.stack([np.cos(across) * np.cos(along), np.cos(across) * np.sin(along), np.sin(across)])
        x, y, z = np.tensordot(self._matrix, local, 1)
        lon = np.degrees(np.arctan2(y, x)) - self.skew * along * RADIUS_M / 1e5
        return (lon + 180) % 360 - 180, np.degrees(np.arctan2(z, np.hypot(x, y)))

    def points(self, lines: int = 13, each: int = 21, *, heights: np.ndarray | None = None) -> list[ControlPoint]:
        """As ESA writes them: from 0 to size − 1, the middles of pixels."""
        found = []
        for i, row in enumerate(np.linspace(0, self.shape[0] - 1, lines)):
            for column in np.linspace(0, self.shape[1] - 1, each):
                height = 0.0 if heights is None else float(heights[i])
                # a metre of height moves what is seen at this range to where a farther pixel would be
                lon, lat = self.lonlat(np.float64(row + 0.5), np.float64(column + 0.5 + height / self.spacing_m))
                found.append(ControlPoint(float(row), float(column), float(lon), float(lat), height))
        return found

    def grid(self) -> ControlGrid:
        return control_grid(self.points(), self.shape, address="drawn")


def target_around(lon: float, lat: float, *, side: int = 300, size: float = 10.0) -> GeoBox:
    """A square in metres around a place: its UTM zone, or a polar plane."""
    from affine import Affine
    from pyproj import Transformer

    zone = int((lon + 180) // 6) % 60 + 1
    code = (32600 if lat >= 0 else 32700) + zone if abs(lat) < 84 else (5041 if lat > 0 else 5042)
    x, y = Transformer.from_crs(4326, code, always_xy=True).transform(lon, lat)
    left, top = round(x / size) * size - side // 2 * size, round(y / size) * size + side // 2 * size
    return GeoBox((side, side), Affine(size, 0, left, 0, -size, top), f"EPSG:{code}")


@dataclass
class DrawnImage:
    """An image whose pixels are drawn when they are loaded, so that it may be as large as a real one."""

    swath: Swath
    grids: ControlGrid
    target: GeoBox
    axis: int
    """0: each pixel holds its column in `target`, 1: its row."""
    nodata: float | None = None

    def load(self, index: int, block: Block, level: int) -> np.ndarray:
        columns, rows = np.meshgrid(
            np.arange(block.left, block.right) + 0.5, np.arange(block.top, block.bottom) + 0.5
        )  # fmt: skip
        from odc.geo.crs import CRS

        lon, lat = self.swath.lonlat(rows, columns)
        x, y = CRS("EPSG:4326").transformer_to_crs(self.target.crs)(lon, lat)
        return np.asarray((~self.target.affine @ (x, y))[self.axis])

    def seen(self, index: int, block: Block, level: int) -> None:
        return None
