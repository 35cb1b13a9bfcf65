"""Real files through the reader: what another program reads at the same place must be what we read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.warp import transform

from earthmap.cube import RasterioReader
from tests.cube.conftest import source

pytestmark = pytest.mark.real

FILES = {
    "sentinel-1 in degrees": "04_sen1floods11/S1/Spain_7370579_S1Hand_west.tif",
    "landsat, north code and negative northings": "08_landsat_naip_timeseries/landsat_pucallpa_west/2010.tif",
    "naip": "08_landsat_naip_timeseries/naip_nd_west/m_4709963_se_14_1_20120731.tif",
}


@pytest.mark.parametrize("name", FILES)
def test_values_are_those_of_the_file_at_the_same_place(name: str, real_data: Path) -> None:
    path = real_data / FILES[name]
    with rasterio.open(path) as file:
        size = file.res[0] * 111_195 if file.crs.is_geographic else file.res[0]
        middle = file.xy(file.height // 2, file.width // 2)
        (lon,), (lat,) = transform(file.crs, "EPSG:4326", [middle[0]], [middle[1]])
        zone = int((lon + 180) // 6) + 1
        crs = f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"
        (x,), (y,) = transform("EPSG:4326", crs, [lon], [lat])
        size = max(round(size), 1)
        corner = (round(x / size) - 64) * size, (round(y / size) + 64) * size
        target = GeoBox((128, 128), rasterio.Affine(size, 0, corner[0], 0, -size, corner[1]), crs)
        got = RasterioReader().read(source(str(path), index=1), target)
        rows, columns = np.mgrid[8:120:8, 8:120:8]
        xs, ys = target.affine @ (columns.ravel() + 0.5, rows.ravel() + 0.5)
        there = transform(crs, file.crs, list(xs), list(ys))
        whole = file.read(1).astype(np.float32)
        at = [file.index(east, north) for east, north in zip(*there, strict=True)]
    assert np.isfinite(got).mean() > 0.95
    for value, (row, column) in zip(got[rows.ravel(), columns.ravel()], at, strict=True):
        near = whole[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        if np.isfinite(value):
            assert np.nanmin(near) - 1e-3 <= value <= np.nanmax(near) + 1e-3
