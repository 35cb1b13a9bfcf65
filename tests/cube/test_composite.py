"""A composite is numpy's median of the best looks, whatever the blocks it is computed in."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from earthmap.catalog.observations import composite, narrow
from earthmap.catalog.scene import Observation
from earthmap.cube import CellGroup, CellPixels, CellRead, TileFailure, compose, open_cell, write_cell
from earthmap.cube.composite import BADNESS, best_looks, median
from earthmap.cube.plan import estimated_bytes
from earthmap.errors import GridError, JobError
from earthmap.grid.tiling import Cell
from earthmap.sensors.masks import Reason
from earthmap.storage import Storage
from tests.cube.conftest import TIME, observation, scene, source

DAY = datetime.timedelta(days=1)
VALUES = st.floats(-1, 10, width=32) | st.just(float("nan")) | st.just(-0.0)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(3), st.just(4)), elements=VALUES), st.data())
def test_the_median_is_numpys(values: np.ndarray, data: Any) -> None:
    chosen = data.draw(hnp.arrays(bool, values.shape))
    expected = np.full(values.shape[1:], np.nan, np.float32)
    for y, x in np.ndindex(*expected.shape):
        looks = values[:, y, x][chosen[:, y, x]]
        looks = looks[np.isfinite(looks)]
        if len(looks):
            expected[y, x] = np.median(looks)
    result = median(values, chosen)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    order = data.draw(st.permutations(range(len(values))))
    assert median(values[order], chosen[order]).tobytes() == result.tobytes()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(3), st.just(4)), elements=st.integers(0, 9)))
def test_the_least_bad_reason_makes_the_pixel(masks: np.ndarray) -> None:
    mask, looks, chosen = best_looks(masks)
    assert sorted(BADNESS) == sorted(Reason)
    for y, x in np.ndindex(*mask.shape):
        column = masks[:, y, x]
        best = min(column.tolist(), key=lambda code: BADNESS.index(Reason(code)))
        assert mask[y, x] == best
        assert looks[y, x] == (column == Reason.CLEAR).sum()
        assert (chosen[:, y, x] == ((column == best) & (column != Reason.NODATA))).all()


def members(count: int) -> list[Observation]:
    return [
        observation(
            scene(f"s{number}", source(f"/s{number}.tif", "red"), source(f"/s{number}.tif", "nir")),
            name=f"sentinel-2-l2a_202406{number + 1:02d}T103000_0a1b2c3d",
            time=TIME + number * DAY,
        )
        for number in range(count)
    ]


def groups(storage: Storage, read: CellRead, pixels: list[CellPixels]) -> list[CellGroup]:
    for part, own in zip(read.members, pixels, strict=True):
        write_cell(storage, part, own)
    return [open_cell(storage, part.path) for part in read.members]


def drawn(cell: Cell, seed: int, **more: Any) -> CellPixels:
    random = np.random.default_rng(seed)
    side = cell.grid.cell_px
    mask = random.choice([0, 0, 1, 2, 4, 9], (side, side)).astype(np.uint8)
    data = random.normal(0.2, 0.1, (2, side, side)).astype(np.float32)
    data[:, mask == Reason.NODATA] = np.nan
    return CellPixels(bands=("red", "nir"), data=data, mask=mask, **more)


def test_a_cell_in_blocks_is_the_cell_at_once(cell: Cell, tmp_path: Path) -> None:
    read = CellRead.of(cell, composite(members(4)))
    pixels = [drawn(cell, seed) for seed in range(4)]
    result = compose(read, groups(Storage(str(tmp_path)), read, pixels))
    mask, looks, chosen = best_looks(np.stack([own.mask for own in pixels]))
    np.testing.assert_array_equal(result.mask, mask)
    np.testing.assert_array_equal(result.looks, looks)
    for band in range(2):
        whole = median(np.stack([own.data[band] for own in pixels]), chosen)
        assert result.data[band].tobytes() == whole.tobytes()
    clear = np.stack([np.where(own.mask == 0, own.data[0], np.nan) for own in pixels])
    some = looks > 0
    np.testing.assert_array_equal(result.data[0][some], np.nanmedian(clear[:, some], axis=0))
    manifest = write_cell(Storage(str(tmp_path)), read, result)
    assert manifest.scenes == ("s0", "s1", "s2", "s3")
    assert (manifest.datetime, manifest.end) == (TIME, TIME + 3 * DAY)
    again = open_cell(Storage(str(tmp_path)), read.path)
    assert again.manifest == manifest
    np.testing.assert_array_equal(again.read_rows("looks", slice(0, 7)), looks[:7])


def test_a_tile_that_some_lack_is_a_look_less_and_one_that_may_yet_come_has_failed(cell: Cell, tmp_path: Path) -> None:
    tiles = cell.tiles()
    read = CellRead.of(cell, composite(members(2)))

    def lost(tile: int, reason: str) -> TileFailure:
        return TileFailure(tile_id=tiles[tile].id, reason=reason, message=reason)

    pixels = [
        drawn(cell, 0, failures=(lost(0, "damaged"), lost(1, "damaged"))),
        drawn(cell, 1, failures=(lost(1, "never_published"), lost(2, "refused"))),
    ]
    result = compose(read, groups(Storage(str(tmp_path)), read, pixels))
    assert [(failure.tile_id, failure.reason) for failure in result.failures] == [
        (tiles[1].id, "damaged"),
        (tiles[2].id, "refused"),
    ]
    halo = cell.grid.halo_px
    rows, columns = (slice(part.start + halo, part.stop + halo) for part in tiles[2].core_slices)
    assert (result.mask[rows, columns] == Reason.NODATA).all()
    assert np.isnan(result.data[:, rows, columns]).all()
    with pytest.raises(GridError, match="without observations"):
        compose(read, [])


def test_a_band_that_some_lack_comes_from_the_others(cell: Cell, tmp_path: Path) -> None:
    first, second = members(2)
    lacking = observation(scene("s0", source("/s0.tif", "red")), name=first.id, time=first.datetime)
    read = CellRead.of(cell, composite([lacking, second]))
    side = cell.grid.cell_px
    mask = np.zeros((side, side), np.uint8)
    one = CellPixels(bands=("red",), data=np.full((1, side, side), 0.2, np.float32), mask=mask)
    two = CellPixels(bands=("red", "nir"), data=np.full((2, side, side), 0.4, np.float32), mask=mask)
    result = compose(read, groups(Storage(str(tmp_path)), read, [one, two]))
    assert read.bands == ("red", "nir")
    assert np.unique(result.data[0]) == np.float32((np.float32(0.2) + np.float32(0.4)) / 2)
    assert np.unique(result.data[1]) == np.float32(0.4)


def test_a_composite_is_an_observation_of_its_own(cell: Cell) -> None:
    three = members(3)
    whole = composite(three)
    assert whole == composite(reversed(three))
    assert whole.id.startswith("sentinel-2-l2a_20240601T103000_")
    assert len({whole.id, *(composite(three[:n]).id for n in (1, 2)), three[0].id}) == 4
    assert whole.content_key() != composite(three[:2]).content_key()
    keys = {CellRead.of(cell, one).key for one in (whole, composite(three[:2]), three[0], composite(three[:1]))}
    assert len(keys) == 4
    read = CellRead.of(cell, whole)
    assert estimated_bytes(read) == 3 * estimated_bytes(CellRead.of(cell, three[0]))
    other = observation(scene("odd", source("/o.tif"), convention="gamma0"), name="x")
    with pytest.raises(JobError, match="one sensor and convention"):
        composite([*three, other])


def test_a_composite_is_narrowed_member_by_member() -> None:
    import shapely

    here, there = shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)
    parts = [
        observation(scene(name, source(f"/{name}.tif"), footprint=shapely.to_wkb(ground)), name=f"o{name}")
        for name, ground in (("a", here), ("b", there), ("c", here))
    ]
    own = narrow(composite(parts), shapely.box(0.2, 0.2, 0.4, 0.4))
    assert own is not None
    assert [member.scenes[0].id for member in own.members] == ["a", "c"]
    assert narrow(composite(parts), shapely.box(8, 8, 9, 9)) is None
