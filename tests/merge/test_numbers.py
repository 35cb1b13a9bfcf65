"""The numbers of a run: they balance, and say what was not seen."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from earthmap.errors import LedgerError
from earthmap.grid import AreaOfInterest, Cell, Grid, inside, owned_pixels, pixel_to_lonlat, touched
from earthmap.merge import counted_pixels, merge_cell, summarize
from earthmap.tasks import UNSEEN, Query, answer_schema, encode_mask, make_query
from tests.merge.maps import Merged, joined

GRID = Grid(resolution_m=30.0, picture_px=128)
NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)
WATER = make_query("Where is water?")


def answered(cell: Cell, tiles: int, query: Query, **columns: Any) -> pa.Table:
    """Rows that answer one query about the cell's tiles alike."""
    rows = [
        {
            "cell_id": cell.id, "tile_id": tile.id, "query": query.content_key(), "observation": "one",
            "datetime_min": NOON, "datetime_max": NOON, "sensor": "sentinel-2-l2a", "scenes": ["a"],
            "predictor": "oracle", "status": "answered", "seen_px": GRID.core_px**2, "legend": "{}", "notes": [],
            **{key: item[tile.core_slices] if isinstance(item, np.ndarray) else item for key, item in columns.items()},
        }
        for bit, tile in enumerate(cell.tiles())
        if tiles >> bit & 1
    ]  # fmt: skip
    for row in rows:
        if isinstance(row.get("mask"), np.ndarray):
            row["seen_px"] = int((row["mask"] != UNSEEN).sum())
            row["mask"], row["legend"] = encode_mask(row["mask"]), json.dumps({"1": "water"})
    return pa.Table.from_pylist(rows, schema=answer_schema())


def mapped(area: AreaOfInterest, query: Query, columns: Any) -> Merged:
    """The map of an area where `columns(cell)` are the answers."""
    merges = [
        merge_cell(
            cell, answered(cell, int(tiles), query, **columns(cell)), area=area, queries={query.content_key(): query},
            tiles=int(tiles), by_observation=False,
        )
        for cell, tiles in zip(*touched(area, GRID), strict=True)
    ]  # fmt: skip
    return joined(merges, area=area, queries={query.content_key(): query})


def layer_of(merged: Merged, area: AreaOfInterest, query: Query) -> dict[str, Any]:
    (layer,) = summarize(merged.sums, area=area, queries={query.content_key(): query})["queries"][0]["observations"]
    return dict(layer)


def test_a_lake_where_four_zones_meet_is_one() -> None:
    lake = shapely.Point(6.0, 0.0).buffer(0.05)
    area = AreaOfInterest.from_bbox(5.9, -0.1, 6.1, 0.1)

    def columns(cell: Cell) -> dict[str, Any]:
        side = cell.grid.cell_core_px
        rows, lines = np.mgrid[:side, :side]
        longitude, latitude = pixel_to_lonlat(cell.core_geobox, rows + 0.5, lines + 0.5)
        return {"mask": shapely.contains_xy(lake, longitude, latitude).astype(np.uint8)}

    merged = mapped(area, WATER, columns)
    assert len({cell.zone for cell in touched(area, GRID)[0]}) == 4
    (feature,) = merged.features.geometry
    assert feature.geom_type == "Polygon"
    assert feature.is_valid
    assert not feature.interiors  # the borders leave no gap
    assert feature.area == pytest.approx(lake.area, rel=0.01)


def test_water_everywhere_is_the_area_itself() -> None:
    """No gap and no overlap along any border, and the numbers of pixels and polygons agree."""
    area = AreaOfInterest.from_bbox(5.95, 59.95, 6.05, 60.02)
    side = GRID.cell_core_px
    merged = mapped(area, WATER, lambda cell: {"mask": np.ones((side, side), np.uint8)})
    (feature,) = merged.features.geometry
    assert shapely.symmetric_difference(feature, area.geometry).area < 1e-9 * area.geometry.area
    layer = layer_of(merged, area, WATER)
    assert layer["km2"]["water"] == pytest.approx(area.area_km2, rel=0.01)
    assert merged.features.area_m2[0] / 1e6 == pytest.approx(area.area_km2, rel=1e-6)


def test_bounds_hold_what_was_not_seen() -> None:
    area = AreaOfInterest.from_bbox(3.0, 45.0, 3.1, 45.1)
    side = GRID.cell_core_px
    codes = np.tile(np.array([0, 1, UNSEEN, 0], np.uint8), (side, side // 4))
    layer = layer_of(mapped(area, WATER, lambda cell: {"mask": codes}), area, WATER)
    low, high = layer["bounds_km2"]["water"]
    assert layer["seen_km2"] == pytest.approx(0.75 * layer["area_km2"], rel=0.01)
    assert low == layer["km2"]["water"] == pytest.approx(layer["area_km2"] / 4, rel=0.01)
    assert high - low == pytest.approx(layer["area_km2"] - layer["seen_km2"], abs=1e-3)
    assert layer["share_of_seen"]["water"] == pytest.approx(1 / 3, abs=0.01)


def test_presence_is_tiles_and_never_an_extent() -> None:
    query = make_query("Is there water?")
    area = AreaOfInterest.from_bbox(3.0, 45.0, 3.1, 45.1)
    merged = mapped(area, query, lambda cell: {"value": "yes", "probability": 0.75})
    layer = layer_of(merged, area, query)
    tiles = len(merged.coverage)
    assert layer["yes_tiles"] == layer["answered_tiles"] == layer["planned"] == tiles
    assert "km2" not in layer
    assert merged.features.tile_ids.map(len).tolist() == [1] * tiles
    assert merged.features.probability.tolist() == [0.75] * tiles
    union = shapely.union_all(merged.features.geometry.to_numpy())
    assert shapely.symmetric_difference(union, area.geometry).area < 1e-6 * area.geometry.area


@pytest.mark.parametrize(
    ("task", "value", "numbers"),
    [
        ("classify", "water", {"tiles_by_answer": {"water": 1}}),
        ("label", "snow; water", {"tiles_by_answer": {"snow": 1, "water": 1}}),
        ("label", "", {"tiles_by_answer": {}}),
        ("caption", "A lake; its shore is bare.", {}),
    ],
)
def test_answers_in_words_are_counted_in_tiles_and_never_an_extent(
    task: str, value: str, numbers: dict[str, dict[str, int]]
) -> None:
    query = make_query("What is it?", task=task, open_vocabulary=True)
    area = AreaOfInterest.from_bbox(3.0, 45.0, 3.1, 45.1)
    merged = mapped(area, query, lambda cell: {"value": value, "probability": 0.75})
    layer = layer_of(merged, area, query)
    tiles = len(merged.coverage)
    expected = {name: dict.fromkeys(counted, tiles) for name, counted in numbers.items()}
    assert {name: layer[name] for name in layer if "answer" in name and name != "answered"} == {
        "answered_tiles": tiles,
        **expected,
    }
    assert "km2" not in layer
    assert "mean_fraction" not in layer
    assert merged.features.answer.tolist() == [value] * tiles


def test_nothing_to_look_at_is_in_the_coverage() -> None:
    area = AreaOfInterest.from_bbox(3.0, 45.0, 3.05, 45.05)
    nothing = {
        "status": "skipped", "reason": "no_scene", "observation": "", "datetime_min": None, "datetime_max": None,
        "sensor": None, "scenes": [], "predictor": None, "seen_px": 0, "mask": None,
    }  # fmt: skip
    merged = mapped(area, WATER, lambda cell: nothing)
    summary = summarize(merged.sums, area=area, queries={WATER.content_key(): WATER})
    assert len(merged.features) == 0
    assert summary["skipped"] == {"no_scene": summary["planned"]}
    assert summary["seen_km2"] == 0
    assert merged.features_bytes
    assert merged.coverage.reason.unique().tolist() == ["no_scene"]


def test_a_row_that_is_no_status_is_a_defect() -> None:
    area = AreaOfInterest.from_bbox(3.0, 45.0, 3.05, 45.05)
    merged = mapped(area, WATER, lambda cell: {"status": "lost", "mask": None})
    with pytest.raises(LedgerError, match="answered, skipped or failed"):
        summarize(merged.sums, area=area, queries={WATER.content_key(): WATER})


@pytest.mark.parametrize(
    "bounds", [(5.95, 59.95, 6.05, 60.02), (3.0, 45.0, 3.4, 45.3), (-0.05, -0.05, 0.3, 0.3), (100.0, 83.9, 101.0, 84.1)]
)
def test_pixels_that_need_no_looking_at_are_counted_alike(bounds: tuple[float, float, float, float]) -> None:
    """Inside an area and a zone, across a zone's border, the equator and the border of a cap."""
    area = AreaOfInterest.from_bbox(*bounds)
    cells = touched(area, GRID)[0]
    counted = [counted_pixels(cell, area) for cell in cells]
    for cell, found in zip(cells, counted, strict=True):
        np.testing.assert_array_equal(found, owned_pixels(cell) & inside(area.geometry, cell.core_geobox))
    assert any(found.any() for found in counted)
