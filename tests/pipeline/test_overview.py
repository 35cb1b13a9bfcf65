"""Coarse pictures: the ground that their tile says, and the means of what is alike."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthmap.grid import CELL_TILES, Cell, Grid, Zone
from earthmap.pipeline.overview import SCALES, coarse_cell, coarse_picture, coarse_tile, presence_query
from earthmap.predict import Picture
from earthmap.sensors.masks import Reason
from earthmap.tasks import make_query

_DATE = datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC)


def _whole(cell: Cell, data: np.ndarray, mask: np.ndarray | None = None) -> Picture:
    mask = np.zeros(data.shape[1:], np.uint8) if mask is None else mask
    return Picture(
        sensor="sentinel-2-l2a", observation="one", datetime=_DATE, bands=("a", "b")[: len(data)],
        data=data.astype(np.float32), mask=mask,
    )  # fmt: skip


@given(
    picture=st.sampled_from([448, 224, 128]), scale=st.sampled_from(SCALES), row=st.integers(-40, 900),
    column=st.integers(0, 40), zone=st.sampled_from([Zone(31, True), Zone(31, False), Zone(0, True)]),
    place=st.integers(0, CELL_TILES**2 - 1),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_a_coarse_pixel_lies_where_its_tile_says(
    picture: int, scale: int, row: int, column: int, zone: Zone, place: int
) -> None:
    """Pictures of the pixels' own eastings and northings: their mean is that of the coarse pixel."""
    cell = Cell(Grid(resolution_m=10.0, picture_px=picture), zone, row, column)
    geobox = cell.geobox
    x, y = (
        np.asarray(geobox.coordinates[name].values) - origin for name, origin in zip("xy", _corner(cell), strict=True)
    )
    data = np.stack(np.broadcast_arrays(x[None, :], y[:, None]))
    tile = cell.tiles()[place]
    coarse = coarse_tile(tile, scale)
    found = coarse_picture(coarse_cell(_whole(cell, data), scale), tile, scale)
    there = coarse.geobox
    xs, ys = (
        np.asarray(there.coordinates[name].values) - origin for name, origin in zip("xy", _corner(cell), strict=True)
    )
    core = slice(coarse.grid.halo_px, -coarse.grid.halo_px)
    np.testing.assert_allclose(
        found.data[0][core, core], np.broadcast_to(xs[core], (coarse.grid.core_px,) * 2), atol=0.05
    )
    np.testing.assert_allclose(
        found.data[1][core, core], np.broadcast_to(ys[core, None], (coarse.grid.core_px,) * 2), atol=0.05
    )
    shown = np.isfinite(found.data[0])
    np.testing.assert_allclose(np.where(shown, found.data[0] - xs, 0.0), 0.0, atol=0.05)
    assert (found.mask[~shown] == Reason.NODATA).all()
    assert tile.row // scale == coarse.row


def _corner(cell: Cell) -> tuple[float, float]:
    box = cell.geobox.boundingbox
    return box.left, box.bottom


def test_a_pixel_has_the_commonest_reason_and_the_mean_of_what_has_it() -> None:
    cell = Cell(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 1, 1)
    side, halo = cell.grid.cell_px, cell.grid.halo_px
    data, mask = np.ones((1, side, side)), np.zeros((side, side), np.uint8)
    at = slice(halo, halo + 2)
    data[0, at, at] = [[1.0, 9.0], [3.0, np.nan]]
    mask[at, at] = [[Reason.CLEAR, Reason.CLOUD], [Reason.CLEAR, Reason.CLOUD]]
    data[0, at, halo + 2 : halo + 4] = [[1.0, 8.0], [4.0, np.nan]]
    mask[at, halo + 2 : halo + 4] = [[Reason.CLEAR, Reason.CLOUD], [Reason.CLOUD, Reason.CLOUD]]
    found = coarse_picture(coarse_cell(_whole(cell, data, mask), 2), cell.tiles()[0], 2)
    assert found.mask[halo, halo : halo + 2].tolist() == [Reason.CLEAR, Reason.CLOUD]
    assert found.data[0, halo, halo : halo + 2].tolist() == [2.0, 6.0]


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("How many ships are there?", "Is there any ship?"),
        ("Is there any ship at the pier?", "Is there any ship at the pier?"),
    ],
)
def test_the_question_is_whether_there_is_any(text: str, asked: str) -> None:
    query = make_query(text, task=None if "How" in text else "presence", open_vocabulary=True)
    coarse = presence_query(query)
    assert (coarse.text, coarse.task, coarse.targets, coarse.unseen) == (asked, "presence", query.targets, query.unseen)
