"""Real imagery with real footprints becomes rows whose answers say what the footprints say."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from earthmap.catalog import find_scenes, image_catalog, narrow, observe
from earthmap.cube import (
    CellGroup,
    CellPixels,
    CellRead,
    RasterioReader,
    open_cell,
    read_cell,
    stored_groups,
    write_cell,
)
from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, cells_touching, owned_ground
from earthmap.sensors.masks import Reason
from earthmap.sensors.views import make_view
from earthmap.storage import Storage
from earthmap.tasks.serialization import parse
from earthmap.training import Row, parse_table
from earthmap.training.data import DataSpec
from earthmap.training.data_rows import DataRows
from tests.cube.conftest import observation, scene, source
from tests.training.data_sets import prepared

pytestmark = pytest.mark.slow


def _cube(image: Path, folder: Path, *, resolution_m: float, bands: tuple[str, ...] = ()) -> Storage:
    """An image as a cube of small tiles."""
    scenes = find_scenes(image_catalog([str(image)], datetime="2011-05-24", bands=bands), None, sensor=None).scenes
    storage, grid = Storage(folder), Grid(resolution_m=resolution_m, picture_px=128)
    (seen,) = observe(scenes)
    area = AreaOfInterest.normalize(shapely.union_all([shapely.from_wkb(scene.footprint) for scene in scenes]))
    with ThreadPoolExecutor(1) as pool:
        for cell in cells_touching(area, grid):
            own = narrow(seen, owned_ground(cell))
            if own is not None:
                read = CellRead.of(cell, own)
                write_cell(storage, read, read_cell(RasterioReader(), read, pool=pool))
    return storage


def _rows(folder: Path) -> list[Row]:
    table = parse_table(
        "stages: [{name: a, modalities: optical, rates: {decoder: 0.1}, steps: 1, tokens: 100000}]", source="t"
    )
    return DataRows(folder=folder, seed=1, questions=32, held_out_share=0.0).rows(table, 0)


def test_footprints_in_degrees_on_an_aerial_image(real_data: Path, tmp_path: Path) -> None:
    top = real_data / "13_joplin_tornado_pre_post"
    _cube(top / "chips/pre/0.tif", tmp_path / "store", resolution_m=0.6)
    labels = top / "building_footprints.geojson"
    spec = DataSpec(path=str(tmp_path / "store"), labels=str(labels), label="building")
    found = prepared(spec, out=tmp_path / "out")
    assert found.faults == {}
    assert found.notes == {"labels reprojected": 327}
    assert found.places > 50
    rows = _rows(found.folder)
    assert {row.pictures.shape for row in rows} == {(1, 3, 128, 128)}
    for row in rows:
        assert row.names[0].startswith("rgb-8bit, 2011-05-24")
        assert row.shares is not None
        told = {one.answer for one in row.asked if one.task == "presence"}
        assert told <= {"yes" if np.nansum(row.shares) > 0 else "no"}
        counted = {len(parse(one.answer).instances) for one in row.asked if one.task in ("detect", "count")}
        assert len(counted) <= 1
        assert all(not parse(one.answer).rejected for one in row.asked if one.spatial)
    # As much ground is built up in the pictures as the footprints cover, both as shares of their rectangle.
    frame = geopandas.read_file(labels).to_crs(32615)
    wanted = frame.area.sum() / shapely.box(*frame.total_bounds).area
    unique = {row.id.split("/")[0]: row for row in rows}.values()
    share = float(np.nanmean([np.nanmean(row.shares) for row in unique if row.shares is not None]))
    assert share == pytest.approx(wanted, abs=0.04)


def test_footprints_on_a_panchromatic_image(real_data: Path, tmp_path: Path) -> None:
    top = real_data / "07_footprints_roads"
    _cube(top / "sample_geotiff.tif", tmp_path / "store", resolution_m=0.5, bands=("pan",))
    spec = f"{tmp_path / 'store'},labels={top / 'geotiff_labels.geojson'},label=building"
    found = prepared(DataSpec.parse(spec), out=tmp_path / "out")
    assert (found.faults, found.notes) == ({}, {})
    assert {"detect", "segment", "vqa", "label"} <= set(found.counts["category"])
    assert all(row.names[0].startswith("pan-11bit") for row in _rows(found.folder))


def test_a_land_use_map_says_what_its_raster_says(real_data: Path, tmp_path: Path) -> None:
    top = real_data / "10_eolearn_s2_patch"
    west, south, east, north = geopandas.read_file(top / "TestEOPatch/bbox.geojson").total_bounds
    scenes, codes = np.load(top / "REFERENCE_SCENES.npy"), np.load(top / "TestEOPatch/mask_timeless/LULC.npy")[..., 0]
    bands = ("blue", "green", "red", "nir")
    numbers = (1, 2, 3, 7)  # of Sentinel Hub's BANDS-S2-L1C

    def sampled(raster: np.ndarray, cell: Cell | Tile) -> np.ndarray:
        """The raster at each pixel of a cell or tile; −1 outside."""
        box = cell.geobox.extent.boundingbox
        rows = (north - np.linspace(box.top, box.bottom, 2 * cell.geobox.shape[0] + 1)[1::2]) / (north - south)
        columns = (np.linspace(box.left, box.right, 2 * cell.geobox.shape[1] + 1)[1::2] - west) / (east - west)
        place = np.floor(rows * raster.shape[0]).astype(int), np.floor(columns * raster.shape[1]).astype(int)
        inside = [(one >= 0) & (one < size) for one, size in zip(place, raster.shape, strict=True)]
        values = raster[np.ix_(*(np.clip(one, 0, size - 1) for one, size in zip(place, raster.shape, strict=True)))]
        return np.where(np.outer(*inside), values, -1)

    area = AreaOfInterest.from_geometry(shapely.box(west, south, east, north), "EPSG:32633")
    time = datetime.datetime(2018, 1, 1, tzinfo=datetime.UTC)
    one = scene("one", *(source("a", band) for band in bands), sensor="sentinel-2-l1c")
    for cell in cells_touching(area, Grid(resolution_m=10.0, picture_px=128)):
        read = CellRead.of(cell, observation(one, name="sentinel-2-l1c_20180101T000000_0a1b2c3d", time=time))
        data = np.stack([sampled(scenes[2, ..., number], cell) for number in numbers]).astype(np.float32)
        mask = np.where(data[0] < 0, Reason.NODATA, Reason.CLEAR).astype(np.uint8)
        data[:, mask == Reason.NODATA] = np.nan
        write_cell(Storage(tmp_path / "store"), read, CellPixels(bands=read.bands, data=data, mask=mask))
    labels = top / "TestEOPatch/vector_timeless/LULC.gpkg"
    found = prepared(DataSpec.parse(f"{tmp_path / 'store'},labels={labels},column=LULC_NAME"), out=tmp_path / "out")
    frame = geopandas.read_file(labels)
    assert found.faults == {"label": int((frame["LULC_NAME"] == "").sum())}
    assert not {"detect", "ground"} & set(found.counts["category"])  # parcels are ground
    known = {row["LULC_NAME"]: row["LULC_ID"] for _, row in frame.iterrows() if row["LULC_NAME"]}
    compared = 0
    for row in {row.id.split("/")[0]: row for row in _rows(found.folder)}.values():
        tile = next(tile for tile in _tiles(tmp_path / "store") if _shows(tile, row))
        truth = sampled(codes.astype(int), tile[1])
        assert row.shares is not None
        blocks = row.shares[0].reshape(4, 4, -1)
        for down, right in np.ndindex(4, 4):
            part = truth[down * 32 : down * 32 + 32, right * 32 : right * 32 + 32]
            if (part >= 0).all() and not np.isnan(blocks[down, right]).any():
                wanted = [(part == known[name]).mean() for name in row.classes]
                assert blocks[down, right] == pytest.approx(wanted, abs=0.06)
                compared += 1
    assert compared >= 4  # of 100 × 101 pixels, in whole blocks of 32


def _tiles(store: Path) -> Iterator[tuple[CellGroup, Tile]]:
    storage = Storage(store)
    for _, path in stored_groups(storage):
        group = open_cell(storage, path)
        yield from ((group, tile) for tile in group.manifest.cell.tiles())


def _shows(place: tuple[CellGroup, Tile], row: Row) -> bool:
    picture = place[0].picture(place[1])
    shown = np.moveaxis(make_view("rgb", picture.bands, picture.data, picture.mask), -1, 0)
    return bool((shown == row.pictures[0]).all())
