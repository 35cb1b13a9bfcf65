from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401 - gives xarray its .odc
import pytest
import rioxarray  # noqa: F401 - gives xarray its .rio
import xarray

from earthmap.cube import (
    CellPixels,
    CellRead,
    TileFailure,
    find_cell,
    open_cell,
    verify_cell,
    write_cell,
)
from earthmap.cube.store import MANIFEST
from earthmap.errors import GridError, StorageError
from earthmap.grid.tiling import Cell, Grid, Zone
from earthmap.sensors.masks import Reason
from earthmap.storage import Storage
from tests.cube.conftest import TIME, observation, scene, source
from tests.servers import s3_server

# rioxarray multiplies affine transforms in the way that affine 3 is about to retire.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "folder":
        yield Storage(tmp_path / "store")
    else:
        monkeypatch, server = request.getfixturevalue("monkeypatch"), request.getfixturevalue("s3")
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield Storage(f"{server.address}/{tmp_path.name}")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def read(cell: Cell) -> CellRead:
    return CellRead.of(cell, observation(scene("one", source("a", "blue"), source("a", "red", index=2))))


def drawn(read: CellRead, failures: tuple[TileFailure, ...] = ()) -> CellPixels:
    rng = np.random.default_rng(7)
    side = read.cell.grid.cell_px
    data = rng.normal(0.2, 0.1, (len(read.bands), side, side)).astype(np.float32)
    mask = rng.choice(np.array([0, 2, 4], np.uint8), (side, side))
    data[:, :40], mask[:40] = np.nan, Reason.NODATA
    return CellPixels(bands=read.bands, data=data, mask=mask, failures=failures)


def test_what_is_written_is_read(storage: Storage, read: CellRead) -> None:
    failure = TileFailure(tile_id=read.cell.tiles()[3].id, reason="damaged", message="bad", address="a")
    pixels = drawn(read, (failure,))
    assert find_cell(storage, read.path) is None
    written = write_cell(storage, read, pixels)
    group = open_cell(storage, read.path)
    assert group.manifest == written == find_cell(storage, read.path) == verify_cell(storage, read.path)
    data, mask = group.read()
    np.testing.assert_array_equal(data, pixels.data)
    np.testing.assert_array_equal(mask, pixels.mask)
    manifest = group.manifest
    assert (manifest.cell, manifest.observation, manifest.datetime) == (read.cell, read.observation.id, TIME)
    assert (manifest.bands, manifest.scenes, manifest.key) == (("blue", "red"), ("one",), read.key)
    assert manifest.failures == (failure,)
    assert sum(manifest.reasons.values()) == read.cell.grid.cell_core_px**2
    assert manifest.seen_share == 1 - (40 - 8) / 448
    assert manifest.size_bytes > 100_000


def test_a_picture_is_the_tiles_part(storage: Storage, read: CellRead) -> None:
    pixels = drawn(read)
    write_cell(storage, read, pixels)
    group = open_cell(storage, read.path)
    for tile in read.cell.tiles():
        picture = group.picture(tile)
        assert (picture.sensor, picture.bands, picture.observation) == (
            "sentinel-2-l2a",
            ("blue", "red"),
            read.observation.id,
        )
        np.testing.assert_array_equal(picture.data, pixels.data[(slice(None), *tile.picture_slices)])
        np.testing.assert_array_equal(picture.mask, pixels.mask[tile.picture_slices])
    with pytest.raises(GridError):
        group.picture(Cell(read.cell.grid, read.cell.zone, 0, 0).tiles()[0])


def test_a_second_writer_loses_quietly(storage: Storage, read: CellRead) -> None:
    first = write_cell(storage, read, drawn(read))
    other = CellPixels(bands=read.bands, data=drawn(read).data * 2, mask=drawn(read).mask)
    assert write_cell(storage, read, other) == first
    verify_cell(storage, read.path)


def test_a_crash_before_the_manifest_leaves_nothing_that_counts(storage: Storage, read: CellRead) -> None:
    write_cell(storage, read, drawn(read))
    manifest = storage.read(f"{read.path}/{MANIFEST}")
    storage.delete(f"{read.path}/{MANIFEST}")
    storage.write(f"{read.path}/data/c/0/0/0", b"half a shard")
    assert find_cell(storage, read.path) is None
    with pytest.raises(StorageError, match="no whole group"):
        open_cell(storage, read.path)
    write_cell(storage, read, drawn(read))
    assert storage.read(f"{read.path}/{MANIFEST}") == manifest  # the same bytes again
    verify_cell(storage, read.path)


def test_damage_is_named(storage: Storage, read: CellRead) -> None:
    write_cell(storage, read, drawn(read))
    storage.write(f"{read.path}/data/c/1/0/0", b"rot")
    storage.delete(f"{read.path}/mask/c/0/0")
    with pytest.raises(StorageError, match=r"data/c/1/0/0 \(changed\), mask/c/0/0 \(missing\)"):
        verify_cell(storage, read.path)
    with pytest.raises(StorageError):
        open_cell(storage, read.path).read()


def test_a_part_is_read_as_zarr_reads_it(storage: Storage, read: CellRead) -> None:
    """Tiles and rows, though another pipeline may decode them; and what the process has set for zarr stays."""
    import zarr

    write_cell(storage, read, drawn(read))
    plain = zarr.open_group(storage.zarr(read.path, read_only=True), mode="r")
    data, mask = np.asarray(plain["data"][...]), np.asarray(plain["mask"][...])
    group, before = open_cell(storage, read.path), copy.deepcopy(zarr.config.config)
    tiles = read.cell.tiles()

    def same(number: int) -> bool:
        tile, rows = tiles[number % len(tiles)], slice(number, number + 7)
        picture = group.read_picture(tile)
        return (
            np.array_equal(picture.data, data[(slice(None), *tile.picture_slices)], equal_nan=True)
            and np.array_equal(picture.mask, mask[tile.picture_slices])
            and np.array_equal(group.read_rows("data", rows, band="red"), data[1, rows], equal_nan=True)
            and np.array_equal(group.read_rows("mask", rows), mask[rows])
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(len(tiles))))
    assert zarr.config.config == before


def test_whatever_becomes_of_the_bytes_it_is_an_error_that_says_so_or_other_pixels(
    tmp_path: Path, read: CellRead
) -> None:
    storage, draw = Storage(tmp_path), np.random.default_rng(11)
    write_cell(storage, read, drawn(read))
    path = tmp_path / read.path / "data" / "c" / "1" / "0" / "0"
    whole = path.read_bytes()
    told = 0
    for number in range(60):
        damaged = bytearray(whole)
        if number % 3 == 0:
            damaged = damaged[: int(draw.integers(0, len(whole)))]
        else:  # anywhere, or in the index at the end
            first = 0 if number % 3 == 1 else len(whole) - 260
            for place in draw.integers(first, len(whole), 20):
                damaged[place] = draw.integers(0, 256)
        path.write_bytes(damaged)
        try:
            data, _ = open_cell(storage, read.path).read()
        except StorageError:
            told += 1
        else:
            assert data.shape[0] == 2
            assert not np.array_equal(data, drawn(read).data, equal_nan=True)
    assert told >= 40
    path.unlink()
    data, _ = open_cell(storage, read.path).read()
    assert np.isnan(data[1]).all(), "an object that is not there is fill, as the format says; the manifest knows better"
    with pytest.raises(StorageError):
        verify_cell(storage, read.path)


def test_a_damaged_manifest_says_so(storage: Storage, read: CellRead) -> None:
    storage.write(f"{read.path}/{MANIFEST}", b"{}")
    with pytest.raises(StorageError, match="manifest"):
        find_cell(storage, read.path)


def test_pixels_of_another_shape_are_refused(tmp_path: Path, read: CellRead) -> None:
    pixels = CellPixels(bands=("blue",), data=np.zeros((1, 8, 8), np.float32), mask=np.zeros((8, 8), np.uint8))
    with pytest.raises(GridError, match="shape"):
        write_cell(Storage(tmp_path), read, pixels)


def test_writing_gives_the_same_bytes_everywhere(tmp_path: Path, read: CellRead) -> None:
    one, two = Storage(tmp_path / "one"), Storage(tmp_path / "two")
    write_cell(one, read, drawn(read))
    write_cell(two, read, drawn(read))
    assert one.list() == two.list()
    assert all(one.read(path) == two.read(path) for path in one.list())


@pytest.mark.parametrize("picture_px", [128, 224, 448])
def test_one_object_a_band(picture_px: int, tmp_path: Path) -> None:
    cell = Cell(Grid(resolution_m=10.0, picture_px=picture_px), Zone(31, False), -3, 5)
    read = CellRead.of(cell, observation(scene("one", source("a", "blue"))))
    storage = Storage(tmp_path)
    write_cell(storage, read, drawn(read))
    objects = [path.removeprefix(f"{read.path}/") for path in storage.list()]
    assert [path for path in objects if path.startswith(("data/c", "mask/c"))] == ["data/c/0/0/0", "mask/c/0/0"]


def test_other_programs_place_it(tmp_path: Path, read: CellRead) -> None:
    storage, geobox = Storage(tmp_path), read.cell.geobox
    pixels = drawn(read)
    write_cell(storage, read, pixels)
    with xarray.open_zarr(storage.locate(read.path)) as dataset:
        assert dataset.rio.crs.to_epsg() == read.cell.zone.epsg
        assert dataset["data"].rio.transform().almost_equals(geobox.affine)
        assert dataset["mask"].rio.crs.to_epsg() == read.cell.zone.epsg
        assert dataset["data"].odc.geobox.crs == geobox.crs
        assert list(dataset["band"].values) == ["blue", "red"]
        np.testing.assert_array_equal(dataset["data"].sel(band="red").values, pixels.data[1])
        assert dataset.attrs["proj:code"] == f"EPSG:{read.cell.zone.epsg}"
        assert dataset.attrs["spatial:transform"] == list(geobox.affine)[:6]
        assert [convention["name"] for convention in dataset.attrs["zarr_conventions"]] == ["proj", "spatial"]


def test_a_group_can_be_moved(tmp_path: Path, read: CellRead) -> None:
    write_cell(Storage(tmp_path / "a"), read, drawn(read))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    verify_cell(Storage(tmp_path / "b"), read.path)
    manifest = json.loads((tmp_path / "b" / read.path / MANIFEST).read_text())
    assert str(tmp_path) not in json.dumps(manifest)
