from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox

from earthmap.cube import ArrayImage, MemoryReader, RasterioReader, SourceGrid
from earthmap.cube.warp import Block, aligned_block, toward
from earthmap.grid.tiling import Cell, Grid, Zone
from tests.cube.conftest import around, source

CELL = Cell(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 1103, 99)


def centres(geobox: GeoBox) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[: geobox.shape[0], : geobox.shape[1]] + 0.5
    a = geobox.affine
    return a.a * columns + a.b * rows + a.c, a.d * columns + a.e * rows + a.f


def ramp(file: GeoBox, target: GeoBox, axis: int) -> np.ndarray:
    """Distance in target pixels along an axis of `target` from its corner, drawn at the pixel centres of `file`."""
    x, y = centres(file)
    if file.crs != target.crs:
        x, y = file.crs.transformer_to_crs(target.crs)(x, y)
    column, row = (x - target.affine.c) / target.affine.a, (y - target.affine.f) / target.affine.e
    return (column, row)[axis].astype(np.float32)


def expected(target: GeoBox, axis: int) -> np.ndarray:
    rows, columns = np.mgrid[: target.shape[0], : target.shape[1]] + 0.5
    return (columns, rows)[axis]


def bounds(geobox: GeoBox, crs: str) -> BoundingBox:
    x, y = geobox.crs.transformer_to_crs(CRS(crs))(*centres(geobox))
    return BoundingBox(x.min(), y.min(), x.max(), y.max(), crs)


def _other_zone(target: GeoBox) -> GeoBox:
    box = bounds(target, "EPSG:32632")
    shape = (int((box.top - box.bottom) / 10) + 20, int((box.right - box.left) / 10) + 20)
    return GeoBox(shape, Affine(10, 0, box.left // 10 * 10 - 100, 0, -10, box.top // 10 * 10 + 100), "EPSG:32632")


def _degrees(target: GeoBox) -> GeoBox:
    box = bounds(target, "EPSG:4326")
    size = 9e-5
    shape = (int((box.top - box.bottom) / size) + 20, int((box.right - box.left) / size) + 20)
    return GeoBox(shape, Affine(size, 0, box.left - 10 * size, 0, -size, box.top + 10 * size), "EPSG:4326")


GRIDS: dict[str, Callable[[GeoBox], GeoBox]] = {
    "aligned": lambda box: around(box, size=10),
    "shifted by part of a pixel": lambda box: around(box, size=10, offset_px=0.37),
    "file twice as fine": lambda box: around(box, size=5),
    "file twice as fine, shifted": lambda box: around(box, size=5, offset_px=0.5),
    "file three times as fine, shifted": lambda box: around(box, size=10 / 3, offset_px=0.25),
    "file 1.5 times as fine": lambda box: around(box, size=10 / 1.5),
    "file twice as coarse": lambda box: around(box, size=20),
    "file six times as coarse": lambda box: around(box, size=60),
    "other zone": _other_zone,
    "degrees": _degrees,
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", GRIDS)
def test_ground_is_where_it_should_be(name: str, axis: int, write: Callable[..., str]) -> None:
    target = CELL.geobox
    file = GRIDS[name](target)
    href = write("ramp.tif", ramp(file, target, axis), file)
    got = RasterioReader().read(source(href), target)
    assert got.dtype == np.float32
    assert np.abs(got - expected(target, axis)).max() < 0.05


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("factor", [2, 4, 5])
def test_overviews_do_not_move_the_ground(factor: int, axis: int, write: Callable[..., str]) -> None:
    target = CELL.geobox
    file = around(target, size=10 / factor, offset_px=0.5)
    href = write("ramp.tif", ramp(file, target, axis), file, overviews=[2, 4])
    got = RasterioReader().read(source(href), target)
    assert np.abs(got - expected(target, axis)).max() < 0.05


def test_north_and_south_codes_of_a_zone_are_a_shift(write: Callable[..., str]) -> None:
    target = Cell(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 1, 99).geobox
    values = np.random.default_rng(1).integers(1, 9999, target.shape, np.uint16)
    south = GeoBox(target.shape, Affine.translation(0, 1e7) @ target.affine, "EPSG:32731")
    got = RasterioReader().read(source(write("south.tif", values, south)), target)
    np.testing.assert_array_equal(got, values)
    grid = SourceGrid(shape=target.shape, transform=south.affine, crs=south.crs)
    assert aligned_block(toward(grid, target), target) == Block(0, 0, *target.shape)


def test_pixels_of_the_same_lattice_are_copied(write: Callable[..., str]) -> None:
    target = CELL.geobox
    file = around(target, size=10, margin_px=5)
    values = np.random.default_rng(2).integers(0, 9999, file.shape, np.uint16)
    got = RasterioReader().read(source(write("a.tif", values, file), scale=1e-4, offset=-0.1, nodata=0), target)
    inner = values[5:-5, 5:-5]
    np.testing.assert_array_equal(np.isnan(got), inner == 0)
    np.testing.assert_array_equal(
        got[inner > 0], (inner.astype(np.float32) * np.float32(1e-4) - np.float32(0.1))[inner > 0]
    )


@pytest.mark.parametrize("size", [5.0, 10.0, 20.0])
def test_nothing_beyond_the_footprint_and_nothing_lost_within(size: float, write: Callable[..., str]) -> None:
    target = CELL.geobox
    whole = around(target, size=size, offset_px=0.3, margin_px=0)
    side = whole.shape[0] // 2
    file = GeoBox((side, side), whole.affine @ Affine.translation(side // 2, side // 2), whole.crs)
    got = RasterioReader().read(source(write("a.tif", np.full(file.shape, 7, np.uint8), file)), target)
    x, y = centres(target)
    box = file.boundingbox
    inside = (x > box.left) & (x < box.right) & (y > box.bottom) & (y < box.top)
    edge = np.minimum.reduce([np.abs(x - box.left), np.abs(x - box.right), np.abs(y - box.top), np.abs(y - box.bottom)])
    clear = edge > 0.1 * size  # where the centre lies on the edge either answer is right
    corner = (np.minimum(np.abs(x - box.left), np.abs(x - box.right)) < 10) & (
        np.minimum(np.abs(y - box.top), np.abs(y - box.bottom)) < 10
    )
    np.testing.assert_array_equal(np.isfinite(got)[clear & ~corner], inside[clear & ~corner])
    assert np.all(got[np.isfinite(got)] == 7)


@pytest.mark.parametrize("size", [5.0, 10.0, 20.0])
def test_nodata_bleeds_nowhere(size: float, write: Callable[..., str]) -> None:
    target = CELL.geobox
    file = around(target, size=size, offset_px=0.4)
    values = np.full(file.shape, 1000, np.uint16)
    rows, columns = np.mgrid[: file.shape[0], : file.shape[1]]
    hole = (rows // 16 + columns // 16) % 2 == 0
    values[hole] = 0
    got = RasterioReader().read(source(write("a.tif", values, file), nodata=0), target)
    assert np.all(got[np.isfinite(got)] == 1000)
    assert abs(np.isfinite(got).mean() - 0.5) < 0.02


def test_classes_are_never_mixed(write: Callable[..., str]) -> None:
    target = CELL.geobox
    file = around(target, size=20, offset_px=0.2)
    values = np.random.default_rng(3).choice(np.array([1, 4, 11], np.uint8), file.shape)
    got = RasterioReader().read(
        source(write("scl.tif", values, file, overviews=[2]), categorical=True, nodata=0), target
    )
    assert set(np.unique(got)) <= {1.0, 4.0, 11.0}
    x, y = centres(target)
    column, row = ~file.affine @ (x, y)
    near = values[np.floor(row).astype(int), np.floor(column).astype(int)]
    assert (got == near).mean() > 0.999


def test_classes_are_read_from_full_resolution(write: Callable[..., str]) -> None:
    target = CELL.geobox
    file = around(target, size=5)
    values = np.random.default_rng(4).choice(np.array([2, 8], np.uint8), file.shape)
    got = RasterioReader().read(source(write("scl.tif", values, file, overviews=[2]), categorical=True), target)
    assert set(np.unique(got)) == {2.0, 8.0}


def test_decibels_are_averaged_as_power(write: Callable[..., str]) -> None:
    target = CELL.geobox
    file = around(target, size=5, margin_px=8)
    values = np.where(np.indices(file.shape).sum(0) % 2, np.float32(0), np.float32(-20))
    got = RasterioReader().read(source(write("vv.tif", values, file, overviews=[2]), decibels=True), target)
    np.testing.assert_allclose(got, (1 + 0.01) / 2, rtol=1e-5)


def test_a_file_elsewhere_gives_nothing(write: Callable[..., str]) -> None:
    file = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 1_000_000), CELL.geobox.crs)
    href = write("far.tif", np.ones((64, 64), np.uint8), file)
    assert np.isnan(RasterioReader().read(source(href), CELL.geobox)).all()
    degrees = GeoBox((64, 64), Affine(0.001, 0, 170, 0, -0.001, -40), "EPSG:4326")
    href = write("farther.tif", np.ones((64, 64), np.uint8), degrees)
    assert np.isnan(RasterioReader().read(source(href), CELL.geobox)).all()


def test_degrees_on_the_other_side_of_the_antimeridian() -> None:
    cell = Cell(Grid(resolution_m=100.0, picture_px=128), Zone(1, True), 40, 3)
    target = cell.geobox
    box = bounds(target, "EPSG:4326")
    centre_x, centre_y = (box.left + box.right) / 2, (box.bottom + box.top) / 2
    grid = SourceGrid(
        shape=(100, 100),
        transform=Affine(1e-3, 0, centre_x + 360 - 0.05, 0, -1e-3, centre_y + 0.05),
        crs=CRS("EPSG:4326"),
    )
    from earthmap.cube.warp import needed_block

    assert needed_block(grid, target, scale=1.0).within(grid.shape) == Block(0, 0, 100, 100)


@given(down=st.integers(-500, 500), right=st.integers(-500, 500))
def test_copies_are_whole_pixel_shifts(down: int, right: int) -> None:
    target = CELL.geobox
    values = np.arange(464 * 464, dtype=np.float64).reshape(1, 464, 464)
    grid = SourceGrid(shape=(464, 464), transform=target.affine @ Affine.translation(right, down), crs=target.crs)
    got = MemoryReader(images={"a": ArrayImage(bands=values, grid=grid)}).read(source("a"), target)
    want = np.full((464, 464), np.nan, np.float32)
    to = (slice(max(down, 0), max(464 + min(down, 0), 0)), slice(max(right, 0), max(464 + min(right, 0), 0)))
    of = (slice(max(-down, 0), max(464 - max(down, 0), 0)), slice(max(-right, 0), max(464 - max(right, 0), 0)))
    want[to] = values[0][of]
    np.testing.assert_array_equal(got, want)
