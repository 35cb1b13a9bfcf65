from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

from earthmap.cube import ArrayImage, MemoryReader, RasterioReader
from earthmap.cube.control import ControlGrid, ControlPoint, Plane, control_grid
from earthmap.cube.gather import gather, positions
from earthmap.cube.reader import read_image
from earthmap.cube.warp import Block
from earthmap.errors import ReadError
from tests.cube.conftest import source
from tests.cube.swaths import DrawnImage, Swath, target_around

SWATHS = {
    "ascending": Swath(lon=12.0, lat=47.0, heading=-12.0),
    "descending": Swath(lon=-72.0, lat=-10.0, heading=192.0),
    "on the equator": Swath(lon=30.0, lat=0.0, heading=-13.0),
    "on the antimeridian": Swath(lon=180.0, lat=-17.0, heading=-12.0),
    "high north": Swath(lon=16.0, lat=79.0, heading=-35.0, spacing_m=40.0, shape=(10_000, 10_000)),
    "over the pole": Swath(lon=0.0, lat=88.9, heading=70.0, spacing_m=40.0, shape=(10_000, 10_000), skew=0.0),
    "far south": Swath(lon=-60.0, lat=-75.0, heading=220.0, spacing_m=40.0, shape=(10_000, 10_000)),
}

PLACES = {"middle": (0.5, 0.5), "first corner": (0.02, 0.03), "last corner": (0.97, 0.98), "edge": (0.4, 0.995)}


def at(swath: Swath, share: tuple[float, float]) -> tuple[float, float]:
    lon, lat = swath.lonlat(*(np.float64(part * size) for part, size in zip(share, swath.shape, strict=True)))
    return float(lon), float(lat)


# ── the mapping ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SWATHS)
def test_the_inverse_is_the_drawn_one(name: str) -> None:
    swath = SWATHS[name]
    rows, columns = (np.linspace(0, size, 60) for size in swath.shape)
    row, column = np.meshgrid(rows, columns, indexing="ij")
    got = swath.grid().pixels(*swath.lonlat(row, column))
    assert np.abs(got[0] - column).max() < 0.02
    assert np.abs(got[1] - row).max() < 0.02


@given(
    lon=st.floats(-180, 180),
    lat=st.floats(-86, 86),
    heading=st.floats(0, 360),
    row=st.floats(0, 25_000),
    column=st.floats(0, 17_000),
)
def test_any_swath_is_inverted(lon: float, lat: float, heading: float, row: float, column: float) -> None:
    swath = Swath(lon=lon, lat=lat, heading=heading, skew=0.0 if abs(lat) > 75 else 0.05)
    place = swath.lonlat(np.array([row]), np.array([column]))
    (x,), (y,) = swath.grid().pixels(*place)
    assert abs(x - column) < 0.05
    assert abs(y - row) < 0.05


def test_ground_beyond_the_image_is_beyond_it() -> None:
    swath = SWATHS["ascending"]
    lon, lat = swath.lonlat(np.array([-300.0, 12_000.0, 25_200.0]), np.array([800.0, 17_500.0, -400.0]))
    column, row = swath.grid().pixels(lon, lat)
    assert row[0] < -250
    assert column[1] > 17_400
    assert row[2] > 25_150
    assert column[2] < -350


def test_the_other_side_of_the_earth_is_nowhere() -> None:
    swath = SWATHS["ascending"]
    got = swath.grid().pixels(np.array([-168.0, 100.0, 12.0]), np.array([-47.0, 0.0, np.nan]))
    assert np.isnan(got).all()


@pytest.mark.parametrize("lat", [-89.999, -30.0, 0.0, 60.0, 90.0])
def test_the_plane_keeps_short_distances(lat: float) -> None:
    from pyproj import Geod

    plane = Plane(170.0, lat)
    lons, lats, _ = Geod(ellps="WGS84").fwd(np.full(8, 170.0), np.full(8, lat), np.arange(8) * 45.0, np.full(8, 5e3))
    x, y = plane.project(np.asarray(lons), np.asarray(lats))
    np.testing.assert_allclose(np.hypot(x, y), 5e3, atol=0.02)


# ── heights ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_heights_by_line_do_not_swing_the_surface() -> None:
    swath = SWATHS["ascending"]
    heights = np.random.default_rng(7).uniform(0, 800, 13)
    grid = control_grid(swath.points(heights=heights), swath.shape, address="drawn")
    rows = np.linspace(0, swath.shape[0] - 1, 13)
    row = np.linspace(0.5, swath.shape[0] - 0.5, 400)
    column = np.full(400, 9_000.0)
    height = np.interp(row, rows + 0.5, heights)
    got = grid.pixels(*swath.lonlat(row, column + height / swath.spacing_m))
    # What is left after heights are taken apart, against 80 pixels of them.
    assert np.abs(got[0] - column).max() < 0.3
    assert np.abs(got[1] - row).max() < 0.3


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────


def refused(points: list[ControlPoint], shape: tuple[int, int] = (25_000, 17_000)) -> str:
    with pytest.raises(ReadError) as caught:
        control_grid(points, shape, address="scene.tif")
    assert caught.value.reason == "ground_control_points"
    return str(caught.value)


def test_one_point_in_the_wrong_place_is_found() -> None:
    points = SWATHS["ascending"].points()
    points[100] = replace(points[100], lat=points[100].lat + 0.01)
    assert "pixels from where the others put them" in refused(points)


def test_points_that_form_no_grid() -> None:
    points = SWATHS["ascending"].points()
    refused(points[:-1])
    refused([point for point in points if point.row == 0])
    refused([points[0], points[20], points[-21], points[-1]])
    refused([replace(points[0], lat=float("nan")), *points[1:]])
    refused([replace(points[0], lat=95.0), *points[1:]])


def test_a_surface_that_folds() -> None:
    points = SWATHS["ascending"].points()
    refused([replace(point, row=min(point.row, 24_999 - point.row) + point.row / 1e6) for point in points])
    refused([replace(point, lon=12.0, lat=47.0) for point in points])


# ── pixels ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SWATHS)
def test_ground_is_where_it_should_be(name: str, place: str, axis: int) -> None:
    swath = SWATHS[name]
    target = target_around(*at(swath, PLACES[place]), size=swath.spacing_m)
    got = read_image(DrawnImage(swath, swath.grid(), target, axis), source("a"), target)
    rows, columns = np.mgrid[:300, :300] + 0.5
    x, y = target.affine @ (columns, rows)
    column, row = swath.grid().pixels(*Transformer.from_crs(target.crs.epsg, 4326, always_xy=True).transform(x, y))
    edge = np.minimum.reduce([column, row, swath.shape[1] - column, swath.shape[0] - row])
    inside = edge > 0.5  # nearer to the edge there is nothing on the other side to interpolate with
    assert np.abs(got - (columns, rows)[axis])[inside].max() < 0.1
    assert inside.mean() > 0.2
    assert np.isnan(got[edge < -0.01]).all()


@pytest.mark.parametrize("size", [20.0, 25.0, 60.0, 100.0])
def test_coarser_targets_are_averages_in_place(size: float) -> None:
    swath = SWATHS["descending"]
    target = target_around(*at(swath, (0.5, 0.5)), side=64, size=size)
    got = read_image(DrawnImage(swath, swath.grid(), target, 0), source("a"), target)
    assert np.abs(got - (np.mgrid[:64, :64] + 0.5)[1]).max() < 0.1


def test_power_is_averaged_and_not_amplitude() -> None:
    swath = SWATHS["ascending"]
    shape = (600, 600)
    small = replace(swath, shape=shape)
    values = np.where(np.indices(shape).sum(0) % 2, 10, 30).astype(np.uint16)
    image = ArrayImage(bands=values[None], grid=small.grid())
    target = target_around(*at(small, (0.5, 0.5)), side=40, size=60.0)
    got = read_image(image, source("a", amplitude=True), target)
    assert abs(got.mean() - (100 + 900) / 2) < 1  # the square of the mean amplitude is 400
    np.testing.assert_allclose(got, 500, rtol=0.15)


@given(down=st.floats(20, 580), across=st.floats(20, 580), heading=st.sampled_from([-12.0, 192.0]))
def test_a_point_target_lands_within_a_tenth_of_a_pixel(down: float, across: float, heading: float) -> None:
    swath = Swath(lon=12.0, lat=47.0, heading=heading, shape=(600, 600))
    rows, columns = np.mgrid[:600, :600] + 0.5
    values = np.exp(-((rows - down) ** 2 + (columns - across) ** 2) / 8.0) * 1000
    (lon,), (lat,) = swath.lonlat(np.array([down]), np.array([across]))
    target = target_around(float(lon), float(lat), side=40)
    got = read_image(ArrayImage(bands=values[None], grid=swath.grid()), source("a"), target)
    want = ~target.affine @ Transformer.from_crs(4326, target.crs.epsg, always_xy=True).transform(lon, lat)
    share = np.nan_to_num(got) / np.nansum(got)
    there = (np.mgrid[:40, :40] + 0.5)[::-1]
    centre = [float((share * part).sum()) for part in there]
    assert np.hypot(centre[0] - want[0], centre[1] - want[1]) < 0.1


# ── promises ─────────────────────────────────────────────────────────────────────────────────────────────────


@given(top=st.integers(0, 250), left=st.integers(0, 250), size=st.sampled_from([10.0, 35.0]))
def test_a_part_has_the_bits_of_the_whole(top: int, left: int, size: float) -> None:
    swath = Swath(lon=12.0, lat=47.0, heading=-12.0, shape=(900, 900))
    values = np.random.default_rng(3).integers(0, 3000, (1, 900, 900), np.uint16)
    frame = target_around(12.0, 47.0, size=size)
    reader = MemoryReader(images={"a": ArrayImage(bands=values, grid=swath.grid())})
    read = source("a", amplitude=True, nodata=0)
    whole = reader.read(read, frame)
    part = frame[top : top + 50, left : left + 50]
    np.testing.assert_array_equal(reader.read(read, part, frame=frame), whole[top : top + 50, left : left + 50])


def test_pieces_have_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    swath = Swath(lon=12.0, lat=47.0, heading=-12.0, shape=(900, 900))
    values = np.random.default_rng(3).integers(0, 3000, (1, 900, 900), np.uint16)
    frame = target_around(12.0, 47.0)
    image = ArrayImage(bands=values, grid=swath.grid())
    whole = read_image(image, source("a", nodata=0), frame)
    pieces = read_image(image, source("a", nodata=0), frame, max_pixels=9_000)
    np.testing.assert_array_equal(whole, pieces)
    with pytest.raises(ReadError) as caught:
        read_image(image, source("a"), frame, max_pixels=3)
    assert caught.value.reason == "too_large"


@dataclass
class Even:
    """An image of one value that remembers the largest block that was asked for."""

    grids: ControlGrid
    nodata: float | None = None
    largest: int = 0

    def load(self, index: int, block: Block, level: int) -> np.ndarray:
        self.largest = max(self.largest, block.size)
        return np.full(block.shape, 3, np.uint16)

    def seen(self, index: int, block: Block, level: int) -> None:
        return None


def test_a_coarse_look_at_a_whole_scene_stays_in_memory() -> None:
    swath = SWATHS["ascending"]
    image = Even(swath.grid())
    got = read_image(image, source("a", amplitude=True), target_around(12.0, 47.0, side=300, size=100.0))
    assert image.largest <= 2**22
    assert np.all(got == 9)


def test_nodata_neither_bleeds_nor_grows() -> None:
    swath = Swath(lon=12.0, lat=47.0, heading=-12.0, shape=(600, 600))
    rows, columns = np.mgrid[:600, :600]
    values = np.where((rows // 16 + columns // 16) % 2, 1000, 0).astype(np.uint16)
    target = target_around(12.0, 47.0)
    got = read_image(ArrayImage(bands=values[None], grid=swath.grid()), source("a", nodata=0), target)
    np.testing.assert_allclose(got[np.isfinite(got)], 1000, rtol=1e-6)
    assert abs(np.isfinite(got).mean() - 0.5) < 0.03


def test_nodes_are_close_enough() -> None:
    swath = SWATHS["high north"]
    target = target_around(*at(swath, (0.5, 0.5)), side=480, size=40.0)
    part = Block(0, 0, 480, 480)
    rows, columns = np.mgrid[:480, :480] + 0.5
    x, y = target.affine @ (columns, rows)
    exact = swath.grid().pixels(*Transformer.from_crs(target.crs.epsg, 4326, always_xy=True).transform(x, y))
    nodes = positions(swath.grid(), target, part)
    for axis, want in enumerate(exact):
        inside = Block(
            int(exact[1].min()) - 3, int(exact[0].min()) - 3, int(exact[1].max()) + 3, int(exact[0].max()) + 3
        )
        ramp = np.meshgrid(
            *(np.arange(a, b) + 0.5 for a, b in ((inside.left, inside.right), (inside.top, inside.bottom)))
        )
        got = gather(ramp[axis].astype(np.float32), inside, nodes, part, scale=1.0)
        assert np.abs(got - want).max() < 5e-3


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


def write_swath(path: Path, swath: Swath, values: np.ndarray) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        height, width = values.shape
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=1, dtype=values.dtype, tiled=True
        ) as file:  # fmt: skip
            file.write(values, 1)
            points = [GroundControlPoint(p.row, p.column, p.lon, p.lat, p.height_m) for p in swath.points()]
            file.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
            file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    return str(path)


def test_a_file_is_placed_by_its_points(tmp_path: Path) -> None:
    swath = Swath(lon=12.0, lat=47.0, heading=192.0, shape=(900, 900))
    values = np.random.default_rng(4).integers(1, 3000, (900, 900), np.uint16)
    href = write_swath(tmp_path / "vv.tiff", swath, values)
    target = target_around(12.0, 47.0)
    read = source(href, amplitude=True)
    memory = read_image(ArrayImage(bands=values[None], grid=swath.grid()), read, target)
    np.testing.assert_array_equal(RasterioReader().read(read, target), memory)


def test_a_real_swath(real_data: Path) -> None:
    path = next((real_data / "05_sentinel1_grd").rglob("iw-vv.tiff"))
    target = target_around(76.3, 9.95, side=400, size=100.0)  # Kochi: sea in the west, land in the east
    got = RasterioReader().read(source(str(path), amplitude=True, nodata=0), target)
    assert np.isfinite(got).mean() > 0.9
    sea, land = got[150:250, 20:120], got[150:250, 300:380]
    assert np.nanmedian(land) > 3 * np.nanmedian(sea)
    with rasterio.open(path) as file:
        points = file.gcps[0]
        grid = control_grid([ControlPoint(p.row, p.col, p.x, p.y, p.z) for p in points], file.shape, address="")
    assert grid.surface.residual_px < 0.01
    column, row = grid.pixels(np.array([p.x for p in points]), np.array([p.y for p in points]))
    # Through every point, but for half a pixel of the original (a fortieth of this one).
    assert np.abs(column - [p.col + 0.025 for p in points]).max() < 0.02
    assert np.abs(row - [p.row + 0.025 for p in points]).max() < 0.02
