"""Saturated numbers are told in the reason mask, whatever they are resampled with."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.catalog import Wanted, image_catalog, scene_from_item
from earthmap.cube import CellRead, RasterioReader, read_cell, read_tile
from earthmap.grid.tiling import Cell
from earthmap.sensors.calibration import Calibration
from earthmap.sensors.masks import Reason
from earthmap.sensors.quality import reason_mask
from earthmap.sensors.registry import SENSORS
from tests.catalog.image_files import LANDSAT, NORTH_M, WEST_M, write_landsat, write_raster, write_safe
from tests.cube.conftest import around, observation, scene, source

Write = Callable[..., str]
S2 = {"scale": 1e-4, "offset": -0.1, "nodata": 0.0, "saturated": 65_535.0}


@given(st.lists(st.sampled_from([0, 1, 1_000, 65_534, 65_535]), min_size=1, max_size=20))
def test_only_the_stated_number_is_saturated(stored: list[int]) -> None:
    numbers = np.array(stored, np.uint16)
    values = Calibration(scale=1e-4, offset=-0.1, nodata=0.0, saturated=65_535.0).apply(numbers)
    plain = Calibration(scale=1e-4, offset=-0.1, nodata=0.0).apply(numbers)
    assert np.array_equal(np.isposinf(values), numbers == 65_535)
    assert np.array_equal(values[numbers != 65_535], plain[numbers != 65_535], equal_nan=True)


def test_what_a_saturated_pixel_is_given() -> None:
    assert Calibration(scale=1e-4, offset=-0.1, saturated=65_535.0).ceiling == pytest.approx(6.4535)
    assert Calibration(amplitude=True, saturated=65_535.0).ceiling == pytest.approx(65_535.0**2)


def test_cloud_goes_before_saturation() -> None:
    data = np.full((2, 1, 4), 0.1, np.float32)
    data[1] = np.inf
    scl = np.array([[4, 9, 7, 0]], np.float32)
    mask = reason_mask(data, {"scl": scl}, SENSORS["sentinel-2-l2a"])
    assert mask.tolist() == [[Reason.SATURATED, Reason.CLOUD, Reason.SATURATED, Reason.NODATA]]


@pytest.mark.parametrize(
    ("size", "offset_px"),
    [(10.0, 0.0), (10.0, 0.37), (2.5, 0.0), (5.0, 0.25)],
    ids=["aligned", "shifted", "finer", "half"],
)
def test_every_pixel_that_a_saturated_one_reaches(size: float, offset_px: float, cell: Cell, write: Write) -> None:
    """The others hold what they would without it, and tile by tile is the whole cell."""
    box = around(cell.geobox, size=size, offset_px=offset_px)
    stored = np.random.default_rng(1).integers(1_000, 4_000, box.shape, np.uint16)
    middle = box.shape[0] // 2
    bright = stored.copy()
    bright[middle : middle + 8, middle : middle + 8] = 65_535
    plain, pixels = (
        CellRead.of(cell, observation(scene("a", source(write(name, values, box), **S2))))
        for name, values in (("plain.tif", stored), ("bright.tif", bright))
    )
    with ThreadPoolExecutor(1) as pool:
        want, got = (read_cell(RasterioReader(), read, pool=pool) for read in (plain, pixels))
    told = got.mask == Reason.SATURATED
    side = 8 * size / 10
    assert side**2 <= told.sum() <= (side + 3) ** 2
    assert not (want.mask == Reason.SATURATED).any()
    np.testing.assert_array_equal(got.data[0][~told], want.data[0][~told])
    assert (got.data[0][told] == np.float32(Calibration(**S2).ceiling)).all()
    for tile in cell.tiles():
        alone = read_tile(RasterioReader(), pixels, tile)
        assert alone.mask.tobytes() == got.mask[tile.picture_slices].tobytes()
        assert alone.data.tobytes() == got.data[(slice(None), *tile.picture_slices)].tobytes()


def _scene_of(path: Path):  # type: ignore[no-untyped-def]
    (found,) = image_catalog([str(path)]).items(Wanted())
    return scene_from_item(found.item, base=found.base)


_SPECIAL = (
    "<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>"
    "</Special_Values><Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>"
    "<SPECIAL_VALUE_INDEX>60000</SPECIAL_VALUE_INDEX></Special_Values>"
)


@pytest.mark.parametrize(("special", "saturated"), [("", 65_535.0), (_SPECIAL, 60_000.0)])
def test_a_sentinel_2_product_says_which_number_it_is(special: str, saturated: float, tmp_path: Path) -> None:
    root = write_safe(tmp_path, suffix=".tif")
    metadata = root / "MTD_MSIL2A.xml"
    metadata.write_text(
        metadata.read_text().replace("<QUANTIFICATION_VALUES_LIST>", f"{special}<QUANTIFICATION_VALUES_LIST>")
    )
    read = _scene_of(root)
    assert {one.calibration.saturated for one in read.sources} == {saturated}
    assert {one.calibration.nodata for one in read.sources} == {0.0}


def test_pictures_have_no_such_number(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "m_4112345_ne_18_060_20240504.tif", np.full((4, 40, 40), 255, np.uint8))
    read = _scene_of(path)
    assert {one.calibration.saturated for one in read.sources} == {None}


def test_landsats_bits_of_saturation(tmp_path: Path) -> None:
    folder = write_landsat(tmp_path / "in")
    bits = np.zeros((1, 80, 80), np.uint16)
    bits[:, 20:30, 20:30] = 1 << 3  # band 4
    bits[:, 40:45, 40:45] = 1 << 11  # hidden by terrain
    write_raster(folder / f"{LANDSAT}_QA_RADSAT.TIF", bits, step=30, corner=(WEST_M + 15, NORTH_M - 15))
    read = _scene_of(folder)
    assert [one.band for one in read.mask_sources] == ["qa_pixel", "qa_radsat"]
    from affine import Affine
    from odc.geo.geobox import GeoBox

    box = GeoBox((80, 80), Affine(30, 0, WEST_M + 15, 0, -30, NORTH_M - 15), "EPSG:32631")
    layers = {one.band: RasterioReader().read(one, box) for one in read.mask_sources}
    data = np.stack([RasterioReader().read(one, box) for one in read.sources])
    mask = reason_mask(data, layers, SENSORS["landsat-c2-l2"])
    assert (mask[20:30, 20:30] == Reason.SATURATED).all()
    assert (mask[40:45, 40:45] == Reason.LAYOVER).all()
    assert (mask == Reason.CLEAR).sum() == 80 * 80 - 100 - 25
