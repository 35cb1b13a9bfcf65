"""Drawn tiles on disk: scenes that a catalogue lists, whose pixels are the pictures and whose labels are the truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from earthmap.catalog.items import scene_from_item
from earthmap.errors import CatalogError
from earthmap.synthetic import Tiles, draw_tiles, measure, plan_tiles, write_tiles
from earthmap.synthetic.sensors import S2_OFFSET, S2_SCALE


@pytest.fixture(scope="module")
def tiles() -> Tiles:
    return draw_tiles(plan_tiles([3, 19, 27], side_px=128, dates=2))


@pytest.fixture(scope="module")
def written(tiles: Tiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiles(tiles, tmp_path_factory.mktemp("tiles"), sensors=("sentinel-2", "sentinel-1", "rgb"))


def test_what_is_on_disk_is_what_was_drawn(tiles: Tiles, written: Path) -> None:
    paths = sorted(written.parent.glob("drawn-sentinel-2-l2a/*/*.json"))
    assert len(paths) == 6
    pictures = measure(tiles, "sentinel-2-l2a")
    for path in paths:
        item = json.loads(path.read_text())
        scene = scene_from_item(item, base=str(path))
        tile = [3, 19, 27].index(item["properties"]["earthmap:seed"])
        date = int(scene.datetime.month > 5)
        with rasterio.open(path.parent / "labels.tif") as file:
            np.testing.assert_array_equal(file.read(1), tiles.cover[tile, date].numpy())
        with rasterio.open(path.parent / "B08.tif") as file:
            stored = file.read(1)
        drawn = pictures.data[tile, date, pictures.bands.index("nir")].numpy()
        np.testing.assert_array_equal(stored == 0, np.isnan(drawn))
        seen = stored > 0
        np.testing.assert_allclose(stored[seen] * S2_SCALE + S2_OFFSET, drawn[seen], atol=S2_SCALE)


def test_the_same_tiles_give_the_same_bytes(tiles: Tiles, written: Path, tmp_path: Path) -> None:
    again = write_tiles(tiles, tmp_path, sensors=("sentinel-2", "sentinel-1", "rgb"))
    files = sorted(path for path in written.parent.rglob("*") if path.is_file())
    for path in files:
        assert path.read_bytes() == (again.parent / path.relative_to(written.parent)).read_bytes()


def test_sensors_that_are_not_written_are_refused(tiles: Tiles, tmp_path: Path) -> None:
    with pytest.raises(CatalogError):
        write_tiles(tiles, tmp_path, sensors=("thermal",))
    with pytest.raises(CatalogError):
        write_tiles(tiles, tmp_path, sensors=())
