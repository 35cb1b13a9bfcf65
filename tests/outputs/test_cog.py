"""Class rasters as other programs read them: on their ground, whole, and with what their codes mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray

from earthmap.grid import Cell, Grid, Zone
from earthmap.outputs import class_cog, percent_cog
from earthmap.outputs.cog import PERCENT_BAND
from earthmap.tasks import UNSEEN

GRID = Grid(resolution_m=10.0, picture_px=224)
SIDE = GRID.cell_core_px
LEGEND = {1: "water", 2: "water gained"}
CELLS = [Cell(GRID, Zone(31, True), 640, 60), Cell(GRID, Zone(31, True), 638, 62)]


def codes(cell: Cell) -> np.ndarray:
    """A gradient of codes that differs by cell, with some ground unseen."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    drawn = ((rows // 50 + columns // 70 + cell.column) % 3).astype(np.uint8)
    drawn[:40, :40] = UNSEEN
    return drawn


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "classes.tif"
    class_cog(CELLS, map(codes, CELLS), legend=LEGEND, path=path)
    return path


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rioxarray multiplies transforms the old way
def test_pixels_lie_where_their_cells_do(written: Path) -> None:
    with rioxarray.open_rasterio(written) as raster:
        assert raster.rio.crs.to_epsg() == 32631
        assert raster.rio.nodata == UNSEEN
        for cell in CELLS:
            west, south, east, north = cell.core_geobox.boundingbox
            part = raster.rio.clip_box(west, south, east - 1, north - 1).squeeze().values
            np.testing.assert_array_equal(part[-SIDE:, :SIDE], codes(cell))
        assert raster.shape == (1, 3 * SIDE, 3 * SIDE)
        assert (raster.values == UNSEEN).sum() == 7 * SIDE**2 + 2 * 40**2  # ground without a cell is not "none"


def test_it_is_a_valid_cog_with_nearest_overviews(written: Path) -> None:
    with rasterio.open(written) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.overviews(1)[:2] == [2, 4]
        small = source.read(1, out_shape=(source.height // 4, source.width // 4))
    assert set(np.unique(small)) <= {0, 1, 2, UNSEEN}  # no average of codes
    cogeo = pytest.importorskip("rio_cogeo.cogeo", reason="rio-cogeo is not installed: its check is left out")
    valid, faults, warnings = cogeo.cog_validate(written)
    assert valid, faults
    assert not warnings


def test_codes_have_names_and_colours(written: Path) -> None:
    with rasterio.open(written) as source:
        assert source.tags(1)["class_1"] == "water"
        assert source.tags(1)["class_2"] == "water gained"
        colours = source.colormap(1)
        assert colours[1] != colours[2]
        assert colours[1][3] == 255


def test_ground_without_a_cell_takes_no_space(tmp_path: Path) -> None:
    far = [CELLS[0], Cell(GRID, Zone(31, True), 600, 100)]
    path = tmp_path / "sparse.tif"
    class_cog(far, map(codes, far), legend=LEGEND, path=path)
    with rasterio.open(path) as source:
        assert source.height * source.width > 900_000_000
    assert path.stat().st_size < 3_000_000


def test_equal_input_gives_equal_bytes(written: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tif"
    class_cog(CELLS, map(codes, CELLS), legend=LEGEND, path=again)
    assert again.read_bytes() == written.read_bytes()


def test_how_sure_answers_are_is_a_band_of_percent_that_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "probabilities.tif"
    percent = [np.where(codes(cell) == UNSEEN, UNSEEN, 40 + 10 * codes(cell)).astype(np.uint8) for cell in CELLS]
    percent_cog(CELLS, iter(percent), path=path)
    with rasterio.open(path) as source:
        assert (source.nodata, source.dtypes, source.units) == (UNSEEN, ("uint8",), ("%",))
        assert source.descriptions == (PERCENT_BAND,)
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(source.read(1)[:SIDE, :SIDE], percent[0])
        assert source.read(1, masked=True).max() == 60
