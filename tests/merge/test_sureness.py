"""How sure answers are of each pixel: of the shape that covers it, else of the whole answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from earthmap.grid import Cell, Grid, Zone
from earthmap.merge.sureness import cell_percent
from earthmap.tasks import UNSEEN, Answer, answer_columns
from earthmap.tasks.serialization import Instance

CELL = Cell(Grid(resolution_m=10.0, picture_px=128), Zone(31, True), 100, 20)
SIDE, HALO, CORE = 128, CELL.grid.halo_px, CELL.grid.core_px
CODES = np.zeros((CELL.grid.cell_core_px,) * 2, np.uint8)


def _row(place: int, **parts: Any) -> dict[str, Any]:
    answer = Answer(status="answered", legend={1: "water", 2: "snow"}, **parts)
    return {"tile_id": CELL.tiles()[place].id, **answer_columns(answer)}


def test_without_shapes_a_tile_has_the_probability_of_its_answer_and_unseen_pixels_none() -> None:
    codes = CODES.copy()
    codes[:5, :5] = UNSEEN
    percent = cell_percent(CELL, codes, [_row(0, probability=0.804), _row(5, probability=None)])
    assert percent is not None
    first = percent[CELL.tiles()[0].core_slices]
    assert set(np.unique(first)) == {80, UNSEEN}
    assert (first == UNSEEN).sum() == 25
    assert (percent == 80).sum() == CORE**2 - 25


def test_where_nothing_is_stated_there_is_no_raster() -> None:
    assert cell_percent(CELL, CODES, [_row(0, probability=None)]) is None
    failed = {**_row(0, probability=0.9), "status": "failed"}
    assert cell_percent(CELL, CODES, [failed]) is None
    assert cell_percent(CELL, np.full_like(CODES, UNSEEN), [_row(0, probability=0.9)]) is None


def _box(left: int, top: int, right: int, bottom: int, label: str) -> Instance:
    """In pixels of the core."""
    edges = [(HALO + edge) / SIDE for edge in (left, top, right, bottom)]
    west, south, east, north = edges
    return Instance(kind="polygon", geometry=shapely.box(west, south, east, north), label=label)


def test_a_shape_tells_of_its_own_class_and_of_overlapping_ones_the_surest() -> None:
    codes = CODES.copy()
    place = CELL.tiles()[6].core_slices
    codes[place][20:60, 20:60] = 1
    codes[place][80:100, 80:100] = 2
    shapes = (
        _box(20, 20, 60, 60, "water"),
        _box(20, 20, 60, 40, "water"),
        _box(70, 70, 110, 110, "snow"),
        _box(0, 0, 10, 10, "snow"),
    )
    row = _row(6, probability=0.5, instances=shapes, instance_scores=(0.7, 0.9, 0.3, 0.99))
    percent = cell_percent(CELL, codes, [row])
    assert percent is not None
    found = percent[place]
    assert set(np.unique(found[25:35, 25:55])) == {90}
    assert set(np.unique(found[45:55, 25:55])) == {70}
    assert set(np.unique(found[82:98, 82:98])) == {30}
    assert (found[2:8, 2:8] == 50).all()  # the map does not follow the shape there
    assert (found[65:78, 65:78] == 50).all()
