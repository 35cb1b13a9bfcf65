"""The ground of one pass has no holes where its granules or slices meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.cube import ArrayImage, CellRead, MemoryReader, SourceGrid, read_cell, read_tile
from earthmap.grid.tiling import Cell
from earthmap.sensors.masks import Reason
from tests.cube.conftest import around, observation, scene, source

OVERLAP_PX, EDGE_PX = 60, 15


def halves(cell: Cell, *, value: float, rows: bool) -> dict[str, ArrayImage]:
    """Two images over the cell that overlap in its middle, each with an empty edge inside the overlap."""
    box: GeoBox = around(cell.geobox, size=10.0, margin_px=8)
    side = box.shape[0]
    middle, reach = side // 2, OVERLAP_PX // 2
    images = {}
    for name, start, stop in (("a", 0, middle + reach), ("b", middle - reach, side)):
        stored = np.full((1, stop - start, side), value, np.float32)
        empty = slice(-EDGE_PX, None) if name == "a" else slice(0, EDGE_PX)
        stored[:, empty] = 0.0
        moved = Affine.translation(0, start)
        if not rows:
            stored, moved = stored.transpose(0, 2, 1).copy(), Affine.translation(start, 0)
        grid = SourceGrid(transform=box.affine @ moved, shape=stored.shape[1:], crs=box.crs)
        images[f"/{name}.tif"] = ArrayImage(bands=stored, grid=grid)
    return images


@pytest.mark.parametrize(
    ("sensor", "band", "value", "expected", "rows"),
    [
        ("sentinel-2-l2a", "red", 1200.0, 0.12, False),  # granules side by side
        ("sentinel-2-l2a", "red", 1200.0, 0.12, True),
        ("sentinel-1-db", "vv", -10.0, 0.1, True),  # slices along the track, in linear power once read
    ],
)
def test_empty_edges_are_filled_from_the_neighbour(
    cell: Cell, sensor: str, band: str, value: float, expected: float, rows: bool
) -> None:
    scale = {"decibels": True} if sensor == "sentinel-1-db" else {"scale": 1e-4}
    images = halves(cell, value=value, rows=rows)
    scenes = [scene(name, source(f"/{name}.tif", band, nodata=0.0, **scale), sensor=sensor) for name in ("a", "b")]
    reader = MemoryReader(images=images)
    for order in (scenes, scenes[::-1]):
        read = CellRead.of(cell, observation(*order))
        with ThreadPoolExecutor(2) as pool:
            pixels = read_cell(reader, read, pool=pool)
        assert pixels.failures == ()
        assert not (pixels.mask == Reason.NODATA).any()
        np.testing.assert_allclose(pixels.data, expected, rtol=1e-5)
        for tile in cell.tiles():
            alone = read_tile(reader, read, tile)
            assert alone.data.tobytes() == pixels.data[(slice(None), *tile.picture_slices)].tobytes()
    lone = CellRead.of(cell, observation(scenes[0]))
    with ThreadPoolExecutor(2) as pool:
        assert (read_cell(reader, lone, pool=pool).mask == Reason.NODATA).any()
