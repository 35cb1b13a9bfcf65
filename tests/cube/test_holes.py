"""The ground of one pass has no holes where its granules or slices meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from earthmap.cube import ArrayImage, CellPixels, CellRead, MemoryReader, SourceGrid, read_cell, read_tile
from earthmap.cube.failures import Cause, read_error
from earthmap.errors import ReadError
from earthmap.grid.tiling import Cell, Tile
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


def _strip(cell: Cell, rows: float, columns: float) -> tuple[ArrayImage, bytes]:
    """An image over the north-west of the cell, which ends after a share of its rows and columns; its footprint."""
    import shapely

    from earthmap.grid.projection import to_lonlat

    box: GeoBox = around(cell.geobox, size=10.0, margin_px=8)
    shape = round(box.shape[0] * rows), round(box.shape[1] * columns)
    part = GeoBox(shape, box.affine, box.crs)
    grid = SourceGrid(transform=box.affine, shape=shape, crs=box.crs)
    ground = to_lonlat(part.extent.geom, f"EPSG:{cell.zone.epsg}")
    return ArrayImage(bands=np.full((1, *shape), 1200.0, np.float32), grid=grid), shapely.to_wkb(ground)


@pytest.mark.parametrize(("reaches", "status"), [(0.6, "replaced"), (0.75, "failed")])
def test_the_edge_of_a_pass_is_no_loss(cell: Cell, reaches: float, status: str) -> None:
    """Of two scenes one is lost. Where the other shows all that both would, beyond lies ground of no scene, and nothing
    has failed; where the lost one reaches farther, ground is missing that was there."""
    image, footprint = _strip(cell, 0.6, 1.0)
    _, lost_footprint = _strip(cell, reaches, 0.45)
    scenes = [
        scene("a", source("/a.tif", nodata=0.0, scale=1e-4), footprint=lost_footprint),
        scene("b", source("/b.tif", nodata=0.0, scale=1e-4), footprint=footprint),
    ]
    images = {"/a.tif": read_error("/a.tif", Cause.DAMAGED, "cannot read /a.tif"), "/b.tif": image}
    read = CellRead.of(cell, observation(*scenes))
    reader = MemoryReader(images=images)
    with ThreadPoolExecutor(2) as pool:
        pixels = read_cell(reader, read, pool=pool)
    edge = [tile for tile in cell.tiles() if 0.0 < _share(pixels, tile) < 1.0 or tile.id in _failed(pixels)]
    assert edge
    west = {tile.id for tile in edge if tile.core_slices[1].start < 224}
    assert _failed(pixels) == (west if status == "failed" else set())
    assert west <= {failure.tile_id for failure in (*pixels.failures, *pixels.replaced)}
    for tile in edge:
        if tile.id in _failed(pixels):
            with pytest.raises(ReadError):
                read_tile(reader, read, tile)
        else:
            alone = read_tile(reader, read, tile)
            core = slice(tile.grid.halo_px, -tile.grid.halo_px)  # beside a failed tile its halo is lost
            np.testing.assert_array_equal(
                alone.data[:, core, core], pixels.data[(slice(None), *tile.picture_slices)][:, core, core]
            )
            assert (alone.replaced is not None) == (tile.id in west)


def _failed(pixels: CellPixels) -> set[str]:
    return {failure.tile_id for failure in pixels.failures}


def _share(pixels: CellPixels, tile: Tile) -> float:
    """Share of the tile's core that is not nodata."""
    halo = tile.grid.halo_px
    mask = pixels.mask[halo:-halo, halo:-halo][tile.core_slices]
    return float((mask != Reason.NODATA).mean())
