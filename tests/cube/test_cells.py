from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds

from earthmap.catalog.scene import BandSource, Scene
from earthmap.cube import (
    ArrayImage,
    CellRead,
    MemoryReader,
    RasterioReader,
    Reader,
    SourceGrid,
    TileFailure,
    assemble,
    read_cell,
    read_tile,
)
from earthmap.errors import GridError, ReadError
from earthmap.grid.projection import to_lonlat
from earthmap.grid.tiling import Cell
from earthmap.sensors.masks import Reason
from tests.cube.conftest import around, observation, scene, source

if TYPE_CHECKING:
    from numpy.typing import NDArray

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def drawn_anew() -> None:
    """Each test draws the same, whatever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Counting:
    """A reader that notes what it is asked for."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.asked = reader, list[str]()

    def read(self, source: BandSource, geobox: GeoBox, *, frame: GeoBox | None = None) -> NDArray[np.float32]:
        self.asked.append(source.href)
        return self.reader.read(source, geobox, frame=frame)


def image(cell: Cell, values: np.ndarray, nodata: float | None = 0) -> ArrayImage:
    bands = values if values.ndim == 3 else values[None]
    box = cell.geobox
    return ArrayImage(bands=bands, grid=SourceGrid(shape=box.shape, transform=box.affine, crs=box.crs), nodata=nodata)


def drawn(cell: Cell) -> np.ndarray:
    return RNG.integers(1, 9999, cell.geobox.shape, np.uint16)


def core(tile_index: int, cell: Cell) -> tuple[slice, slice]:
    halo = cell.grid.halo_px
    rows, columns = cell.tiles()[tile_index].core_slices
    return slice(rows.start + halo, rows.stop + halo), slice(columns.start + halo, columns.stop + halo)


def test_bands_and_mask_of_one_scene(cell: Cell, pool: ThreadPoolExecutor) -> None:
    blue, red = drawn(cell), drawn(cell)
    scl = RNG.choice(np.array([4, 6, 9], np.uint8), cell.geobox.shape)
    reader = MemoryReader(images={"a": image(cell, np.stack([blue, red])), "scl": image(cell, scl)})
    mask = source("scl", "scl", categorical=True)
    one = scene("one", source("a", "blue"), source("a", "red", index=2, scale=1e-4), mask=mask)
    pixels = read_cell(reader, CellRead.of(cell, observation(one)), pool=pool)
    assert pixels.bands == ("blue", "red")
    assert pixels.failures == ()
    np.testing.assert_array_equal(pixels.data[0], blue)
    np.testing.assert_allclose(pixels.data[1], red * 1e-4, rtol=1e-6)
    np.testing.assert_array_equal(pixels.mask, np.where(scl == 9, Reason.CLOUD, Reason.CLEAR))


def test_a_pixel_comes_from_the_first_scene_that_has_it(cell: Cell, pool: ThreadPoolExecutor) -> None:
    first, second = np.stack([drawn(cell)] * 2), np.stack([drawn(cell)] * 2)
    first[:, :, 200:] = 0
    first[1, :100] = 0  # one band is missing there: the scene still has the pixel
    reader = MemoryReader(images={"a": image(cell, first), "b": image(cell, second)})
    scenes = [scene(name, source(name, "blue"), source(name, "red", index=2)) for name in ("a", "b")]
    pixels = read_cell(reader, CellRead.of(cell, observation(*scenes)), pool=pool)
    np.testing.assert_array_equal(pixels.data[:, :, 200:], second[:, :, 200:])
    np.testing.assert_array_equal(pixels.data[0, :, :200], first[0, :, :200])
    assert np.isnan(pixels.data[1, :100, :200]).all()
    assert not (pixels.mask == Reason.NODATA).any()


def test_what_is_not_needed_is_not_read(cell: Cell, pool: ThreadPoolExecutor) -> None:
    empty = image(cell, np.zeros(cell.geobox.shape, np.uint8))
    reader = Counting(
        MemoryReader(
            images={"no-scl": empty, "no": empty, "a": image(cell, drawn(cell)), "b": image(cell, drawn(cell))}
        )
    )
    scenes = [
        scene("none", source("no"), mask=source("no-scl", "scl", categorical=True)),
        scene("a", source("a")),
        scene("b", source("b")),
    ]
    read_cell(reader, CellRead.of(cell, observation(*scenes)), pool=pool)
    assert reader.asked == ["no-scl", "a"]  # no bands where the mask layer is empty, no scene below a full one


def test_a_band_that_a_scene_lacks_is_nan(cell: Cell, pool: ThreadPoolExecutor) -> None:
    half = drawn(cell)
    half[:, 232:] = 0
    reader = MemoryReader(images={"a": image(cell, half), "b": image(cell, np.stack([drawn(cell)] * 2))})
    scenes = [scene("a", source("a", "blue")), scene("b", source("b", "blue"), source("b", "red", index=2))]
    pixels = read_cell(reader, CellRead.of(cell, observation(*scenes)), pool=pool)
    assert np.isnan(pixels.data[1, :, :232]).all()
    assert np.isfinite(pixels.data[:, :, 232:]).all()


# ── failures stay where they are ─────────────────────────────────────────────────────────────────────────────


def _damage(path: str, row_px: int, column_px: int) -> None:
    """Overwrite the bytes of the block that holds a pixel."""
    with rasterio.open(path) as file:
        rows, columns = file.block_shapes[0]
        where = int(file.get_tag_item(f"BLOCK_OFFSET_{column_px // columns}_{row_px // rows}", "TIFF", bidx=1))
        size = int(file.get_tag_item(f"BLOCK_SIZE_{column_px // columns}_{row_px // rows}", "TIFF", bidx=1))
    data = bytearray(Path(path).read_bytes())
    data[where : where + size] = b"\x55" * size
    Path(path).write_bytes(bytes(data))


def test_a_damaged_block_costs_the_tiles_that_see_it(
    cell: Cell, pool: ThreadPoolExecutor, write: Callable[..., str]
) -> None:
    values = drawn(cell)
    href = write("a.tif", values, cell.geobox, blockxsize=16, blockysize=16)
    _damage(href, 232 + 50, 232 + 50)  # inside the core of row 2, column 2, away from every halo
    read = CellRead.of(cell, observation(scene("a", source(href))))
    pixels = read_cell(RasterioReader(), read, pool=pool)
    hit = cell.tiles()[10]
    assert [(f.tile_id, f.stage, f.reason, f.address) for f in pixels.failures] == [(hit.id, "read", "damaged", href)]
    assert pixels.failures[0].lasting
    assert np.isnan(pixels.data[0][core(10, cell)]).all()
    assert (pixels.mask[core(10, cell)] == Reason.NODATA).all()
    good = np.ones(cell.geobox.shape, bool)
    good[core(10, cell)] = False
    np.testing.assert_array_equal(pixels.data[0][good], values[good])


@pytest.mark.parametrize("reason", ["never_published", "refused"])
def test_a_file_that_is_gone_costs_every_tile_and_is_asked_once(
    reason: str, cell: Cell, pool: ThreadPoolExecutor
) -> None:
    error = ReadError("gone", address="gone", reason=reason)
    reader = Counting(MemoryReader(images={"gone": error, "a": image(cell, drawn(cell))}))
    read = CellRead.of(cell, observation(scene("a", source("a", "blue"), source("gone", "red"))))
    pixels = read_cell(reader, read, pool=pool)
    assert [f.tile_id for f in pixels.failures] == [tile.id for tile in cell.tiles()]
    assert reader.asked.count("gone") == 1
    assert pixels.failures[0].lasting == (reason == "never_published")
    halo = cell.grid.halo_px
    assert np.isnan(pixels.data[:, halo:-halo, halo:-halo]).all()


def test_a_failure_counts_only_where_the_scene_was_needed(cell: Cell, pool: ThreadPoolExecutor) -> None:
    first = drawn(cell)
    first[:232] = 0  # the north half is for the second scene, which shows only the west
    west = cell.tiles()[0].core_geobox.extent.geom.union(cell.tiles()[5].core_geobox.extent.geom).envelope.buffer(-1)
    footprint = shapely.to_wkb(to_lonlat(west, f"EPSG:{cell.zone.epsg}"))
    gone = ReadError("gone", address="gone", reason="never_published")
    reader = MemoryReader(images={"a": image(cell, first), "gone": gone})
    scenes = [scene("a", source("a")), scene("gone", source("gone"), footprint=footprint)]
    pixels = read_cell(reader, CellRead.of(cell, observation(*scenes)), pool=pool)
    assert {f.tile_id for f in pixels.failures} == {cell.tiles()[i].id for i in (0, 1, 4, 5)}
    assert np.isfinite(pixels.data[0, 232 + 16 :]).all()


def test_a_mask_that_cannot_be_read_is_a_failure_too(cell: Cell, pool: ThreadPoolExecutor) -> None:
    reader = MemoryReader(images={"a": image(cell, drawn(cell))})
    read = CellRead.of(cell, observation(scene("a", source("a"), mask=source("scl", "scl", categorical=True))))
    pixels = read_cell(reader, read, pool=pool)
    assert len(pixels.failures) == 16
    assert {f.address for f in pixels.failures} == {"scl"}


# ── tile by tile ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [10.0, 20.0, 5.0])
def test_tiles_read_one_by_one_make_the_same_cell(
    size: float, cell: Cell, pool: ThreadPoolExecutor, write: Callable[..., str]
) -> None:
    box = around(cell.geobox, size=size, offset_px=0.0 if size == 10 else 0.25)
    href = write("a.tif", RNG.integers(1, 9999, box.shape, np.uint16), box)
    read = CellRead.of(cell, observation(scene("a", source(href))))
    reader = RasterioReader()
    whole = read_cell(reader, read, pool=pool)
    parts = assemble(read, [read_tile(reader, read, tile) for tile in reversed(cell.tiles())])
    np.testing.assert_array_equal(parts.mask, whole.mask)
    np.testing.assert_allclose(parts.data, whole.data, rtol=1e-5)


def test_a_tile_that_was_lost_is_nodata_and_its_neighbours_are_whole(cell: Cell) -> None:
    values = drawn(cell)
    read = CellRead.of(cell, observation(scene("a", source("a"))))
    reader = MemoryReader(images={"a": image(cell, values)})
    lost = cell.tiles()[6]
    failure = TileFailure(tile_id=lost.id, reason="crashed", message="died")
    tiles = [read_tile(reader, read, tile) for tile in cell.tiles() if tile != lost]
    pixels = assemble(read, tiles, [failure])
    assert pixels.failures == (failure,)
    assert np.isnan(pixels.data[0][core(6, cell)]).all()
    np.testing.assert_array_equal(pixels.data[0][core(7, cell)], values[core(7, cell)])
    with pytest.raises(GridError, match=lost.id):
        assemble(read, tiles)


def test_a_tile_raises_what_is_wrong_with_it(cell: Cell) -> None:
    read = CellRead.of(cell, observation(scene("a", source("a"))))
    with pytest.raises(ReadError):
        read_tile(MemoryReader(images={}), read, cell.tiles()[0])


def test_the_order_of_scenes_is_part_of_the_pixels(cell: Cell, pool: ThreadPoolExecutor) -> None:
    one, two = drawn(cell), drawn(cell)
    reader = MemoryReader(images={"a": image(cell, one), "b": image(cell, two)})
    scenes = (scene("a", source("a")), scene("b", source("b")))
    read = CellRead.of(cell, observation(*scenes))
    turned = dataclasses.replace(read, observation=observation(*reversed(scenes)))
    np.testing.assert_array_equal(read_cell(reader, read, pool=pool).data[0], one)
    np.testing.assert_array_equal(read_cell(reader, turned, pool=pool).data[0], two)


_FILES = {
    "its own lattice": (10.0, None),
    "half a pixel off": (10.0, 0.3),
    "finer": (3.7, 0.0),
    "coarser": (23.0, 0.0),
    "another zone": (10.0, "EPSG:32632"),
    "Web Mercator": (14.0, "EPSG:3857"),
    "an aerial mosaic": (4.0, "EPSG:3035"),
}


@pytest.mark.parametrize("holes", [False, True], ids=["whole", "with holes"])
@pytest.mark.parametrize("kind", sorted(_FILES))
def test_tile_by_tile_is_the_whole_cell_bit_for_bit(
    cell: Cell, pool: ThreadPoolExecutor, kind: str, holes: bool
) -> None:
    """What GDAL approximates along a line depends on its ends: a tile must be warped as a part of its cell."""
    size, crs = _FILES[kind]
    ground = cell.geobox
    if isinstance(crs, str):
        bounds = transform_bounds(f"EPSG:{cell.zone.epsg}", crs, *cell.geobox.boundingbox.bbox)
        ground = GeoBox.from_bbox(bounds, crs=crs, resolution=size)
    box = around(ground, size=size, offset_px=crs if isinstance(crs, float) else 0.0)
    values = RNG.integers(1, 9999, box.shape, np.uint16)
    if holes:
        empty = RNG.random((box.shape[0] // 40 + 1, box.shape[1] // 40 + 1)) < 0.2
        values[np.kron(empty, np.ones((40, 40), np.bool_))[: box.shape[0], : box.shape[1]]] = 0
    grid = SourceGrid(shape=box.shape, transform=box.affine, crs=box.crs)
    reader = MemoryReader(images={"a": ArrayImage(bands=values[None], grid=grid, nodata=0)})
    read = CellRead.of(cell, observation(scene("a", source("a"))))
    whole = read_cell(reader, read, pool=pool)
    tiles = assemble(read, [read_tile(reader, read, tile) for tile in cell.tiles()])
    assert np.isfinite(whole.data).mean() > 0.7
    np.testing.assert_array_equal(tiles.data, whole.data)
    np.testing.assert_array_equal(tiles.mask, whole.mask)


def test_a_frame_that_does_not_hold_the_tile_is_refused(cell: Cell) -> None:
    reader = MemoryReader(images={"a": image(cell, drawn(cell))})
    tile = cell.tiles()[0]
    with pytest.raises(GridError, match="no part of its frame"):
        reader.read(source("a"), cell.geobox, frame=tile.geobox)


# ── what stands in for a scene that is lost ──────────────────────────────────────────────────────────────────


Images = dict[str, ArrayImage | ReadError]


def _lost(reason: str) -> ReadError:
    return ReadError("lost", address="lost", reason=reason)


@pytest.mark.parametrize("reason", ["damaged", "never_published", "unsupported", "too_large"])
def test_another_scene_of_the_pass_fills_what_one_has_lost(cell: Cell, pool: ThreadPoolExecutor, reason: str) -> None:
    values = drawn(cell)
    reader = MemoryReader(images={"lost": _lost(reason), "b": image(cell, values)})
    read = CellRead.of(cell, observation(scene("a", source("lost")), scene("b", source("b"))))
    pixels = read_cell(reader, read, pool=pool)
    assert pixels.failures == ()
    assert {(lost.reason, lost.address) for lost in pixels.replaced} == {(reason, "lost")}
    assert len(pixels.replaced) == 16
    np.testing.assert_array_equal(pixels.data[0], values)


@pytest.mark.parametrize("reason", ["refused", "unavailable", "denied", "unknown"])
def test_what_may_pass_is_a_failure_whoever_shows_the_ground(
    cell: Cell, pool: ThreadPoolExecutor, reason: str
) -> None:  # fmt: skip
    """Or the pixels of a cell would depend on the weather of the network."""
    reader = MemoryReader(images={"lost": _lost(reason), "b": image(cell, drawn(cell))})
    read = CellRead.of(cell, observation(scene("a", source("lost")), scene("b", source("b"))))
    pixels = read_cell(reader, read, pool=pool)
    assert len(pixels.failures) == 16
    assert pixels.replaced == ()


def test_a_lost_band_takes_the_whole_scene_out_of_its_tile(
    cell: Cell, pool: ThreadPoolExecutor, write: Callable[..., str]
) -> None:
    """A pixel comes from one scene: never the red of one and the blue of another."""
    blue, red, other = drawn(cell), drawn(cell), np.stack([drawn(cell)] * 2)
    href = write("red.tif", red, cell.geobox, blockxsize=16, blockysize=16)
    _damage(href, 232 + 50, 232 + 50)  # inside the core of row 2, column 2, away from every halo
    names = {name: write(f"{name}.tif", values, cell.geobox) for name, values in (("blue", blue), ("other", other))}
    first = scene("a", source(names["blue"], "blue"), source(href, "red"))
    second = scene("b", source(names["other"], "blue"), source(names["other"], "red", index=2))
    pixels = read_cell(RasterioReader(), CellRead.of(cell, observation(first, second)), pool=pool)
    assert pixels.failures == ()
    assert [lost.tile_id for lost in pixels.replaced] == [cell.tiles()[10].id]
    inside = np.zeros(cell.geobox.shape, np.bool_)
    inside[core(10, cell)] = True
    np.testing.assert_array_equal(pixels.data[:, inside], other[:, inside])
    np.testing.assert_array_equal(pixels.data[:, ~inside], np.stack([blue, red])[:, ~inside])


def _with_copy(cell: Cell, *scenes: Scene, copy: Scene) -> CellRead:
    return CellRead.of(cell, dataclasses.replace(observation(*scenes), copies=(copy,)))


def test_an_older_copy_is_read_only_where_the_newest_is_lost(cell: Cell, pool: ThreadPoolExecutor) -> None:
    half, old = drawn(cell), drawn(cell)
    half[:232] = 0
    images: Images = {"lost": _lost("damaged"), "half": image(cell, half), "old": image(cell, old)}
    reader = Counting(MemoryReader(images=images))
    scenes = (scene("new", source("lost")), scene("half", source("half")))
    pixels = read_cell(reader, _with_copy(cell, *scenes, copy=scene("old", source("old"))), pool=pool)
    assert pixels.failures == ()
    np.testing.assert_array_equal(pixels.data[0, 232:], half[232:])  # a newer scene of the pass goes before the copy
    np.testing.assert_array_equal(pixels.data[0, :232], old[:232])
    whole = Counting(MemoryReader(images={**images, "lost": image(cell, drawn(cell))}))
    read_cell(whole, _with_copy(cell, *scenes, copy=scene("old", source("old"))), pool=pool)
    assert "old" not in whole.asked


def test_copies_do_not_fill_what_no_scene_shows(cell: Cell, pool: ThreadPoolExecutor) -> None:
    """A hole at the edge of a pass is no failure, and an older copy is not asked about it."""
    half = drawn(cell)
    half[:232] = 0
    reader = Counting(MemoryReader(images={"half": image(cell, half), "old": image(cell, drawn(cell))}))
    read = _with_copy(cell, scene("half", source("half")), copy=scene("old", source("old")))
    pixels = read_cell(reader, read, pool=pool)
    assert reader.asked == ["half"]
    assert np.isnan(pixels.data[0, :232]).all()


def test_a_copy_that_is_lost_too_leaves_the_failure_of_the_newest(cell: Cell, pool: ThreadPoolExecutor) -> None:
    images: Images = {"lost": _lost("damaged"), "old": ReadError("no", address="old", reason="never_published")}
    read = _with_copy(cell, scene("new", source("lost")), copy=scene("old", source("old")))
    pixels = read_cell(MemoryReader(images=images), read, pool=pool)
    assert {failure.reason for failure in pixels.failures} == {"damaged"}
    assert len(pixels.failures) == 16


def test_copies_are_in_no_key(cell: Cell) -> None:
    """That a catalogue lists an older version as well changes no address."""
    one = scene("new", source("a"))
    assert CellRead.of(cell, observation(one)).key == _with_copy(cell, one, copy=scene("old", source("b"))).key


@pytest.mark.parametrize("with_copy", [False, True])
def test_tile_by_tile_the_same_stands_in(cell: Cell, pool: ThreadPoolExecutor, with_copy: bool) -> None:
    half, old = drawn(cell), drawn(cell)
    half[:, :232] = 0
    reader = MemoryReader(
        images={"lost": _lost("damaged"), "half": image(cell, half), "old": image(cell, old)}
    )  # fmt: skip
    scenes = (scene("new", source("lost")), scene("half", source("half")))
    read = CellRead.of(cell, observation(*scenes))
    if with_copy:
        read = _with_copy(cell, *scenes, copy=scene("old", source("old")))
    whole = read_cell(reader, read, pool=pool)
    done, failures = [], []
    for tile in cell.tiles():
        try:
            done.append(read_tile(reader, read, tile))
        except ReadError as error:
            failures.append(TileFailure.of(tile, error))
    parts = assemble(read, done, failures)
    assert parts.failures == whole.failures
    assert parts.replaced == whole.replaced
    halo = cell.grid.halo_px
    inner = (slice(None), slice(halo, -halo), slice(halo, -halo))
    np.testing.assert_array_equal(parts.data[inner], whole.data[inner])
