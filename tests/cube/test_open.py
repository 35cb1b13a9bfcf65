from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401 - gives xarray its .rio

from earthmap.cube import CellPixels, CellRead, TileFailure, open_cube, write_cell
from earthmap.cube import open as cube_open
from earthmap.errors import GridError, JobError
from earthmap.grid.area import AreaOfInterest
from earthmap.grid.ownership import owned_ground
from earthmap.grid.tiling import Cell, Grid, Zone
from earthmap.sensors.masks import Reason
from earthmap.storage import Storage
from tests.cube.conftest import observation, scene, source

# rioxarray multiplies affine transforms in the way that affine 3 is about to retire.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

GRID = Grid(resolution_m=10.0, picture_px=128)
HERE = Cell(GRID, Zone(31, True), 1103, 99)
EAST = Cell(GRID, Zone(31, True), 1103, 101)
NORTH = Cell(GRID, Zone(31, True), 1104, 99)
SOUTH_ZONE = Cell(GRID, Zone(31, False), 1103, 99)


def day(number: int) -> datetime.datetime:
    return datetime.datetime(2024, 6, number, 10, 30, tzinfo=datetime.UTC)


def put(storage: Storage, cell: Cell, number: int, *, sensor: str = "sentinel-2-l2a", mark: str = "") -> CellPixels:
    bands = ("vv", "vh") if sensor.startswith("sentinel-1") else ("blue", "red")
    one = scene(f"{sensor}-{number}", *(source("a", band) for band in bands), sensor=sensor)
    name = f"{sensor}_202406{number:02d}T103000_0a1b2c3d"
    read = CellRead.of(cell, observation(one, name=name, time=day(number)))
    rng = np.random.default_rng([number, cell.row, cell.column, len(mark)])
    data = rng.normal(size=(2, cell.grid.cell_px, cell.grid.cell_px)).astype(np.float32)
    mask = rng.choice(np.array([0, 2], np.uint8), data.shape[1:])
    failures = (TileFailure(tile_id=cell.tiles()[0].id, reason="refused", message="later"),) if mark else ()
    pixels = CellPixels(bands=bands, data=data, mask=mask, failures=failures)
    write_cell(storage, read, pixels, path=read.path + mark)
    return pixels


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def core(pixels: CellPixels) -> np.ndarray:
    halo = GRID.halo_px
    return pixels.data[:, halo:-halo, halo:-halo]


def test_cells_lie_side_by_side_and_missing_ones_are_empty(storage: Storage) -> None:
    here, east, north, later = (
        put(storage, HERE, 1),
        put(storage, EAST, 1),
        put(storage, NORTH, 1),
        put(storage, HERE, 9),
    )
    cube = open_cube(storage)
    assert list(cube) == ["31N"]
    dataset, side = cube["31N"], GRID.cell_core_px
    assert dict(dataset.sizes) == {"time": 2, "y": 2 * side, "x": 3 * side}
    assert list(dataset.data_vars) == ["blue", "red", "mask"]
    assert dataset["blue"].dtype == np.float32
    assert dataset["mask"].dtype == np.uint8
    red = dataset["red"].values
    np.testing.assert_array_equal(red[0, side:, :side], core(here)[1])
    np.testing.assert_array_equal(red[0, side:, 2 * side :], core(east)[1])
    np.testing.assert_array_equal(red[0, :side, :side], core(north)[1])
    np.testing.assert_array_equal(red[1, side:, :side], core(later)[1])
    assert np.isnan(red[0, :, side : 2 * side]).all()
    assert np.isnan(red[1, :side]).all()
    assert (dataset["mask"].values[0, :, side : 2 * side] == Reason.NODATA).all()
    np.testing.assert_array_equal(dataset["mask"].values[0, side:, :side], here.mask[8:-8, 8:-8])


def test_it_is_placed(storage: Storage) -> None:
    put(storage, HERE, 1), put(storage, EAST, 1)
    dataset = open_cube(storage)["31N"]
    assert dataset.rio.crs.to_epsg() == 32631
    assert dataset["red"].rio.transform().almost_equals(HERE.core_geobox.affine)
    assert dataset.odc.geobox.affine.almost_equals(HERE.core_geobox.affine)
    assert dataset["red"].odc.geobox.crs == "EPSG:32631"
    assert (np.diff(dataset["x"].values) == 10).all()
    assert (np.diff(dataset["y"].values) == -10).all()


def test_every_zone_has_its_own(storage: Storage) -> None:
    north, south = put(storage, HERE, 1), put(storage, SOUTH_ZONE, 1)
    cube = open_cube(storage)
    assert sorted(cube) == ["31N", "31S"]
    np.testing.assert_array_equal(cube["31N"]["blue"].values[0], core(north)[0])
    np.testing.assert_array_equal(cube["31S"]["blue"].values[0], core(south)[0])


def test_a_small_window_reads_its_cells_only(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for cell in (HERE, EAST, NORTH):
        put(storage, cell, 1), put(storage, cell, 2)
    opened = []
    real = cube_open._read_block

    def counting(storage: Storage, path: str, band: int | None, halo: int) -> np.ndarray:
        opened.append((path.split("/")[1], band))
        return real(storage, path, band, halo)

    monkeypatch.setattr(cube_open, "_read_block", counting)
    dataset = open_cube(storage)["31N"]
    assert opened == []
    dataset["red"].isel(time=1, y=slice(500, 520), x=slice(10, 30)).compute()
    assert opened == [(HERE.id, 1)]


def test_what_is_asked_for(storage: Storage) -> None:
    put(storage, HERE, 1), put(storage, EAST, 1), put(storage, HERE, 9), put(storage, HERE, 5, sensor="sentinel-1-rtc")
    radar = open_cube(storage, sensor="sentinel-1-rtc")["31N"]
    assert list(radar.data_vars) == ["vv", "vh", "mask"]
    assert radar.sizes["time"] == 1
    june = open_cube(storage, dates="2024-06-04/2024-06-30", sensor="sentinel-2-l2a")["31N"]
    assert june["time"].values.tolist() == [np.datetime64("2024-06-09T10:30", "ns").astype(int)]
    ground = AreaOfInterest.from_geometry(owned_ground(EAST).buffer(-0.001))
    assert open_cube(storage, area=ground)["31N"].odc.geobox.affine.almost_equals(EAST.core_geobox.affine)
    assert open_cube(storage, dates="2023") == {}
    with pytest.raises(JobError):
        open_cube(storage, dates="yesterday")


def test_sensors_share_a_time_axis(storage: Storage) -> None:
    put(storage, HERE, 1), put(storage, HERE, 5, sensor="sentinel-1-rtc")
    dataset = open_cube(storage)["31N"]
    assert list(dataset.data_vars) == ["blue", "red", "vv", "vh", "mask"]
    assert np.isnan(dataset["vv"].values[0]).all()
    assert np.isfinite(dataset["vv"].values[1]).all()
    assert [name.split("_")[0] for name in dataset["observation"].values] == ["sentinel-2-l2a", "sentinel-1-rtc"]


def test_a_whole_read_stands_before_one_with_failures(storage: Storage) -> None:
    put(storage, HERE, 1, mark="~x1")
    second = put(storage, HERE, 1, mark="~x12")
    np.testing.assert_array_equal(open_cube(storage)["31N"]["blue"].values[0], core(second)[0])
    whole = put(storage, HERE, 1)
    np.testing.assert_array_equal(open_cube(storage)["31N"]["blue"].values[0], core(whole)[0])


def test_several_lattices_are_refused(storage: Storage) -> None:
    put(storage, HERE, 1), put(storage, Cell(Grid(resolution_m=20.0, picture_px=128), Zone(31, True), 5, 5), 1)
    with pytest.raises(GridError, match="several lattices"):
        open_cube(storage)


def test_nothing_is_an_empty_cube(storage: Storage) -> None:
    assert open_cube(storage) == {}
