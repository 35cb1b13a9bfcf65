"""Drawn files for the cube's tests: a ground whose value is known everywhere, in any CRS and on any grid."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.catalog.scene import BandSource, Observation, Scene
from earthmap.grid.tiling import Cell, Grid, Zone
from earthmap.sensors.calibration import Calibration

TIME = datetime.datetime(2024, 6, 1, 10, 30, tzinfo=datetime.UTC)


@pytest.fixture
def cell() -> Cell:
    """A small cell (464 pixels a side) in zone 31 N."""
    return Cell(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 1103, 99)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """`write(name, values, geobox, nodata=…, …)`: a tiled, compressed GeoTIFF; returns its path."""

    def write_file(name: str, values: np.ndarray, geobox: GeoBox, **profile: Any) -> str:
        path = tmp_path / name
        bands = values if values.ndim == 3 else values[None]
        overviews = profile.pop("overviews", ())
        profile = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", **profile}
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=len(bands),
            height=bands.shape[1],
            width=bands.shape[2],
            dtype=bands.dtype,
            crs=str(geobox.crs),
            transform=geobox.affine,
            **profile,
        ) as file:
            file.write(bands)
            if overviews:
                file.build_overviews(overviews, rasterio.enums.Resampling.average)
        return str(path)

    return write_file


def around(geobox: GeoBox, *, size: float, offset_px: float = 0.0, margin_px: int = 8) -> GeoBox:
    """Ground a little larger than `geobox` in its CRS, with pixels of `size` metres, moved by part of a pixel."""
    box = geobox.boundingbox
    side = int(np.ceil((box.right - box.left) / size)) + 2 * margin_px
    left, top = box.left - (margin_px - offset_px) * size, box.top + (margin_px - offset_px) * size
    return GeoBox((side, side), Affine(size, 0, left, 0, -size, top), geobox.crs)


def source(href: str, band: str = "red", *, index: int = 1, **calibration: Any) -> BandSource:
    """A band of a file."""
    return BandSource(band=band, href=href, index=index, calibration=Calibration(**calibration))


def scene(
    name: str, *sources: BandSource, mask: BandSource | None = None, footprint: bytes = b"", **more: Any
) -> Scene:
    """A scene of these sources."""
    sensor = more.pop("sensor", "sentinel-2-l2a")
    return Scene(
        id=name,
        collection="drawn",
        sensor=sensor,
        datetime=TIME,
        footprint=footprint,
        resolution_m=10.0,
        sources=sources,
        mask_sources=() if mask is None else (mask,),
        **more,
    )


def observation(*scenes: Scene, name: str = "sentinel-2-l2a_20240601T103000_0a1b2c3d", time: Any = TIME) -> Observation:
    """The observation of these scenes."""
    return Observation(id=name, sensor=scenes[0].sensor, datetime=time, scenes=scenes)
