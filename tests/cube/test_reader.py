from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

from earthmap.catalog.addresses import gdal_path
from earthmap.cube import ArrayImage, MemoryReader, RasterioReader, SourceGrid
from earthmap.errors import ReadError
from earthmap.grid.tiling import Cell
from tests.cube.conftest import around, source
from tests.servers import FileServer, file_server

Write = Callable[..., str]


def reason_of(href: str, cell: Cell, **more: object) -> str:
    with pytest.raises(ReadError) as caught:
        RasterioReader().read(source(href, **more), cell.geobox)  # type: ignore[arg-type]
    assert caught.value.address == href
    assert href in str(caught.value)
    return caught.value.reason


@pytest.fixture
def image(cell: Cell, write: Write) -> str:
    values = np.random.default_rng(5).integers(1, 9999, (480, 480), np.uint16)
    return write("good.tif", values, around(cell.geobox, size=10))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with file_server(tmp_path) as state:
        yield state


# ── what is wrong with a file ────────────────────────────────────────────────────────────────────────────────


def test_a_missing_file(cell: Cell, tmp_path: Path) -> None:
    assert reason_of(str(tmp_path / "none.tif"), cell) == "never_published"


@pytest.mark.parametrize("content", [b"", b"this is text", b"II*\0\x08\0\0\0"])
def test_a_file_that_is_no_image(content: bytes, cell: Cell, tmp_path: Path) -> None:
    path = tmp_path / "text.tif"
    path.write_bytes(content)
    assert reason_of(str(path), cell) == "damaged"


def test_a_truncated_file(image: str, cell: Cell, tmp_path: Path) -> None:
    data = Path(image).read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(data[: len(data) // 2])
    assert reason_of(str(path), cell) == "damaged"


def test_a_damaged_block(image: str, cell: Cell) -> None:
    data = bytearray(Path(image).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    Path(image).write_bytes(bytes(data))
    assert reason_of(image, cell) == "damaged"


def _plain(path: Path, gcps: list[GroundControlPoint]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8") as file:
            file.write(np.ones((1, 64, 64), np.uint8))
            if gcps:
                file.gcps = (gcps, rasterio.crs.CRS.from_epsg(4326))
    return str(path)


def test_a_file_that_does_not_say_where_it_lies(cell: Cell, tmp_path: Path) -> None:
    assert reason_of(_plain(tmp_path / "nowhere.tif", []), cell) == "no_georeference"


def test_a_file_placed_by_control_points(cell: Cell, tmp_path: Path) -> None:
    points = [
        GroundControlPoint(0, 0, 2.0, 45.0),
        GroundControlPoint(0, 64, 2.1, 45.0),
        GroundControlPoint(64, 0, 2.0, 44.9),
    ]
    assert reason_of(_plain(tmp_path / "swath.tif", points), cell) == "ground_control_points"


def test_a_band_that_is_not_there(image: str, cell: Cell) -> None:
    assert reason_of(image, cell, index=4) == "unsupported"


def test_complex_numbers(cell: Cell, write: Write) -> None:
    href = write("slc.tif", np.ones((480, 480), np.complex64), around(cell.geobox, size=10))
    assert reason_of(href, cell) == "unsupported"


def test_more_pixels_than_the_budget(cell: Cell, write: Write) -> None:
    href = write("fine.tif", np.ones((960, 960), np.uint8), around(cell.geobox, size=5))
    with pytest.raises(ReadError) as caught:
        RasterioReader(max_pixels=1000).read(source(href), cell.geobox)
    assert caught.value.reason == "too_large"


def test_a_block_that_would_fill_memory(cell: Cell, tmp_path: Path) -> None:
    path, side = tmp_path / "bomb.tif", 20_000
    options = {"tiled": False, "blockysize": side, "sparse_ok": True, "compress": "deflate"}
    box = cell.geobox
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="float32",
        crs=str(box.crs), transform=box.affine, **options,
    ):  # fmt: skip
        pass
    assert path.stat().st_size < 100_000
    assert reason_of(str(path), cell) == "too_large"


@pytest.mark.parametrize("href", ["ftp://host/a.tif", "/vsicurl/http://127.0.0.1/a.tif", "gs://bucket/a.tif"])
def test_addresses_of_other_kinds(href: str, cell: Cell) -> None:
    assert reason_of(href, cell) == "forbidden_address"


def test_a_virtual_file_fetches_nothing(cell: Cell, tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "trap.tif").write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>/vsicurl/{server.address}/secret.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert reason_of(str(tmp_path / "trap.tif"), cell) == "damaged"
    assert server.requests == []


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_pixels_over_http(image: str, cell: Cell, server: FileServer) -> None:
    reader = RasterioReader()
    near = reader.read(source(image), cell.geobox)
    far = reader.read(source(f"{server.address}/good.tif"), cell.geobox)
    np.testing.assert_array_equal(near, far)
    assert {request.split()[1] for request in server.requests} == {"/good.tif"}  # no search for sidecar files


@pytest.mark.parametrize(
    ("fault", "reason"), [("missing", "never_published"), ("busy", "refused"), ("html", "credentials")]
)
def test_what_a_server_answers(
    fault: str, reason: str, image: str, cell: Cell, server: FileServer, tmp_path: Path
) -> None:
    name = f"{fault}.tif"
    (tmp_path / name).write_bytes(Path(image).read_bytes())
    server.faults[f"/{name}"] = fault
    assert reason_of(f"{server.address}/{name}", cell) == reason


def test_a_server_that_is_not_there(cell: Cell) -> None:
    assert reason_of("http://127.0.0.1:1/a.tif", cell) == "unavailable"


def test_addresses_are_signed_when_read_and_never_shown(image: str, cell: Cell, server: FileServer) -> None:
    reader = RasterioReader(sign=lambda href, renew=False: f"{href}?token=secret")
    assert np.isfinite(reader.read(source(f"{server.address}/good.tif"), cell.geobox)).all()
    with pytest.raises(ReadError) as caught:
        reader.read(source(f"{server.address}/none.tif"), cell.geobox)
    assert "secret" not in str(caught.value) + caught.value.address


def test_gdals_names_of_addresses() -> None:
    assert gdal_path("s3://bucket/a/b.tif") == "/vsis3/bucket/a/b.tif"
    assert gdal_path("https://host/a.tif?x=1") == "/vsicurl/https://host/a.tif?x=1"
    assert gdal_path("file:///a/b.tif") == "/a/b.tif"


# ── what a file says itself ──────────────────────────────────────────────────────────────────────────────────


def test_the_files_own_nodata_counts_where_the_item_is_silent(cell: Cell, write: Write) -> None:
    values = np.full((480, 480), 5, np.int16)
    values[100:200] = -9999
    href = write("dem.tif", values, around(cell.geobox, size=10), nodata=-9999)
    got = RasterioReader().read(source(href), cell.geobox)
    np.testing.assert_array_equal(np.isnan(got), (values == -9999)[8:-8, 8:-8])


def test_an_alpha_band_hides_pixels(cell: Cell, write: Write) -> None:
    values = np.full((4, 480, 480), 200, np.uint8)
    values[3, :240] = 0
    values[3, 240:] = 255
    href = write("rgba.tif", values, around(cell.geobox, size=10), photometric="RGB", alpha="yes")
    got = RasterioReader().read(source(href), cell.geobox)
    np.testing.assert_array_equal(np.isnan(got), (values[3] == 0)[8:-8, 8:-8])


def test_a_file_that_is_replaced_is_read_again(cell: Cell, write: Write) -> None:
    reader, box = RasterioReader(), around(cell.geobox, size=10)
    first = reader.read(source(write("a.tif", np.full((480, 480), 1, np.uint8), box)), cell.geobox)
    second = reader.read(source(write("a.tif", np.full((480, 480), 2, np.uint16), box)), cell.geobox)
    assert (first.max(), second.max()) == (1, 2)


# ── promises ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_threads_share_a_reader(image: str, cell: Cell) -> None:
    reader = RasterioReader()
    want = reader.read(source(image), cell.geobox)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: reader.read(source(image), cell.geobox), range(32)):
            np.testing.assert_array_equal(got, want)


def test_readers_cross_processes() -> None:
    reader = RasterioReader(max_pixels=7)
    assert pickle.loads(pickle.dumps(reader)) == reader


def test_the_twin_reads_the_same(image: str, cell: Cell) -> None:
    with rasterio.open(image) as file:
        box = around(cell.geobox, size=10)
        memory = ArrayImage(bands=file.read(), grid=SourceGrid(shape=file.shape, transform=box.affine, crs=box.crs))
    reader = MemoryReader(images={image: memory, "bad": ReadError("no", address="bad", reason="damaged")})
    np.testing.assert_array_equal(
        reader.read(source(image), cell.geobox), RasterioReader().read(source(image), cell.geobox)
    )
    for href, reason in (("bad", "damaged"), ("none", "never_published")):
        with pytest.raises(ReadError) as caught:
            reader.read(source(href), cell.geobox)
        assert caught.value.reason == reason


@pytest.mark.parametrize("side", [1501, 1499, 1504])
def test_overviews_lie_where_the_image_does_however_their_sizes_were_rounded(tmp_path: Path, side: int) -> None:
    """GDAL's COG driver rounds sizes of overviews down, others up: a coarse ramp is right at the far edge."""
    from odc.geo.geobox import GeoBox
    from rasterio.shutil import copy

    ramp = np.add.outer(np.zeros(side), np.arange(side, dtype=np.float64)).astype(np.float32)
    transform = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    profile = {"driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": "float32"}
    with rasterio.open(tmp_path / "plain.tif", "w", crs="EPSG:32631", transform=transform, **profile) as file:
        file.write(ramp, 1)
    copy(tmp_path / "plain.tif", tmp_path / "cog.tif", driver="COG", blocksize=128, overview_resampling="average")
    with rasterio.open(tmp_path / "cog.tif") as file:
        assert file.overviews(1)
    cells = GeoBox((side // 16, side // 16), transform @ Affine.scale(16), "EPSG:32631")
    values = RasterioReader().read(source(str(tmp_path / "cog.tif"), "red"), cells)
    expected = np.arange(side // 16) * 16 + 7.5
    np.testing.assert_allclose(values[3, 1:-1], expected[1:-1], atol=0.6)
