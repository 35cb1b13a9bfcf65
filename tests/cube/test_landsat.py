"""Real Landsat scenes through item, reader and reason mask: reflectance, kelvin, and where the cloud is."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.warp import transform

from earthmap.catalog.items import scene_from_item
from earthmap.catalog.scene import Scene
from earthmap.cube import RasterioReader
from earthmap.grid.ownership import owner
from earthmap.grid.tiling import Grid, Tile, Zone
from earthmap.predict import Picture, SpectralPredictor, TileInput
from earthmap.sensors.masks import REASONS, Reason
from earthmap.sensors.quality import reason_mask
from earthmap.sensors.registry import SENSORS
from earthmap.tasks import make_query
from tests.cube.conftest import source

pytestmark = pytest.mark.real

CROP = "09_landsat_thermal/fullres_30m/LC08_L1TP_224077_20200518_20200518_01_RT_B3.tif"


@pytest.fixture(scope="module")
def amazon(real_data: Path) -> Scene:
    """A scene of level 2 with surface temperature, 99.94 % cloud, its pixels thinned to 600 m."""
    (path,) = (real_data / "stac" / "landsat-c2-l2").glob("*/*.json")
    return scene_from_item(json.loads(path.read_text()), base=str(path))


def test_numbers_are_reflectance_and_kelvin(amazon: Scene) -> None:
    assert {source.band for source in amazon.sources} >= {"blue", "red", "nir08", "swir16", "lwir11"}
    for source_of_band in amazon.sources:
        thermal = source_of_band.band == "lwir11"
        with rasterio.open(source_of_band.href) as file:
            stored, geobox = file.read(1), GeoBox(file.shape, file.transform, file.crs)
        values = RasterioReader().read(source_of_band, geobox)
        seen = stored != 0
        assert np.array_equal(np.isfinite(values), seen)
        scale, offset = (0.00341802, 149.0) if thermal else (2.75e-5, -0.2)
        np.testing.assert_allclose(values[seen], stored[seen] * scale + offset, atol=2e-4, rtol=1e-5)
        low, high = (149.9, 330.0) if thermal else (-0.25, 1.65)  # 293 is the least valid number of temperature
        assert low < np.nanmin(values) < np.nanmax(values) < high


def test_nothing_is_asked_of_cloud(amazon: Scene, real_data: Path) -> None:
    with rasterio.open(amazon.sources[0].href) as file:
        grid = Grid(resolution_m=600, picture_px=128, anchor_m=15)
        corner = file.transform @ (130, 130)
    geobox = GeoBox((128, 128), rasterio.Affine(600, 0, corner[0], 0, -600, corner[1]), "EPSG:32620")
    reader = RasterioReader()
    data = np.stack([reader.read(one, geobox) for one in amazon.sources])
    layers = {one.band: reader.read(one, geobox) for one in amazon.mask_sources}
    assert list(layers) == ["qa_pixel"]
    mask = reason_mask(data, layers, SENSORS[amazon.sensor])
    shares = np.bincount(mask.ravel(), minlength=len(REASONS)) / mask.size
    assert shares[[Reason.CLOUD, Reason.CIRRUS, Reason.SHADOW]].sum() > 0.97
    assert shares[Reason.CLEAR] < 0.03
    picture = Picture(
        sensor=amazon.sensor,
        observation="o",
        datetime=datetime.datetime(2020, 10, 31, tzinfo=datetime.UTC),
        bands=tuple(one.band for one in amazon.sources),
        data=data,
        mask=np.where(mask == Reason.NODATA, mask, np.uint8(Reason.CLOUD)),
    )
    tile = Tile(grid, Zone(20, False), 130, 4)
    queries = [make_query("Where is water?"), make_query("Where is water?", unseen=["nodata"])]
    ((hidden, looked),) = SpectralPredictor().predict([TileInput(tile=tile, pictures=(picture,))], queries)
    assert (hidden.status, hidden.reason) == ("skipped", "cloud")
    assert looked.status == "answered"
    assert looked.fraction is not None
    assert looked.fraction > 0.1, "a third of this cloud has the index of water: without its mask it would be a lake"


def test_no_scene_is_resampled_on_its_own_lattice(real_data: Path) -> None:
    # 25° S, in the northern code with negative northings, as the archive writes all of the south.
    with rasterio.open(real_data / CROP) as file:
        stored, affine, crs = file.read(1), file.transform, file.crs
    assert crs.to_epsg() == 32621
    assert affine.f < 0
    middle = affine @ (384, 384)
    (longitude,), (latitude,) = transform(crs, "EPSG:4326", [middle[0]], [middle[1]])
    grid = Grid(resolution_m=30, picture_px=224, anchor_m=SENSORS["landsat-c2-l2"].anchor_m)
    owners = owner(grid, [longitude], [latitude])
    tile = Tile(grid, Zone(int(owners.zone[0]), bool(owners.north[0])), int(owners.row[0]), int(owners.column[0]))
    assert tile.zone == Zone(21, False)
    values = RasterioReader().read(source(str(real_data / CROP)), tile.geobox)
    left = round((tile.geobox.affine.c - affine.c) / 30)
    top = round((affine.f + 10_000_000 - tile.geobox.affine.f) / 30)
    assert np.array_equal(values, stored[top : top + 224, left : left + 224].astype(np.float32))


def test_anchor_of_real_scenes(real_data: Path) -> None:
    grid = Grid(resolution_m=30, anchor_m=15)
    paths = [
        *(real_data / "17_stac_items/planetarycomputer.microsoft.com/landsat-c2-l2").glob("*.json"),
        real_data / "17_stac_items/odc-stac/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
    ]
    assert len(paths) == 4
    for path in paths:
        properties = json.loads(path.read_text())["properties"]
        _, _, left, _, _, top = properties["proj:transform"]
        south = top < 0
        east, north = grid.origin_m(Zone(properties["proj:epsg"] % 100, not south))
        assert (left - east) % 30 == 0
        assert (top + 10_000_000 * south - north) % 30 == 0
