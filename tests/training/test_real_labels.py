"""Real imagery with real footprints becomes rows whose answers say what the footprints say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from earthmap.catalog import find_scenes, image_catalog, narrow, observe
from earthmap.cube import CellRead, RasterioReader, read_cell, write_cell
from earthmap.grid import AreaOfInterest, Grid, cells_touching, owned_ground
from earthmap.storage import Storage
from earthmap.tasks.serialization import parse
from earthmap.training import Row, parse_table
from earthmap.training.data import DataSpec
from earthmap.training.data_rows import DataRows
from tests.training.data_sets import prepared

pytestmark = pytest.mark.slow


def _cube(image: Path, folder: Path, *, resolution_m: float, bands: tuple[str, ...] = ()) -> Storage:
    """An image as a cube of small tiles."""
    scenes = find_scenes(image_catalog([str(image)], datetime="2011-05-24", bands=bands), None, sensor=None).scenes
    storage, grid = Storage(folder), Grid(resolution_m=resolution_m, picture_px=128)
    (observation,) = observe(scenes)
    area = AreaOfInterest.normalize(shapely.union_all([shapely.from_wkb(scene.footprint) for scene in scenes]))
    with ThreadPoolExecutor(1) as pool:
        for cell in cells_touching(area, grid):
            own = narrow(observation, owned_ground(cell))
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
