"""Footprints as features: each once, as it was given, whatever became of its tile."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
import shapely

from earthmap.merge import GivenFootprints, Layer, Sums, feature_schema, graded_rows, placed_table, ungraded_rows
from earthmap.merge.gradings import OUTSIDE, WHY
from earthmap.tasks import make_query
from earthmap.tasks.answer import Grading, gradings_text
from earthmap.tasks.damage import NOT_ANALYSED

QUERY = make_query("Which buildings are damaged?", task="damage", open_vocabulary=True)
LAYER = Layer(QUERY.content_key(), "optical-uncalibrated", "")
NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)
SHAPES = [shapely.box(8 + n / 1000, 50, 8.0005 + n / 1000, 50.0005) for n in range(4)]


def _given(tiles: list[str | None], geometries: list[Any] | None = None) -> GivenFootprints:
    shapes = np.empty(len(tiles), object)
    shapes[:] = geometries or SHAPES[: len(tiles)]
    texts = [np.array([f"{name}{n}" for n in range(len(tiles))], object) for name in ("id", "{}")]
    return GivenFootprints(
        numbers=np.arange(len(tiles)),
        tiles=np.array(tiles, object),
        ids=texts[0],
        geometries=shapes,
        properties=texts[1],
        notes=np.array(["", "odd", *[""] * (len(tiles) - 2)], object)[: len(tiles)],
    )


def _row(tile: str, status: str, *gradings: Grading, **more: Any) -> dict[str, Any]:
    return {
        "tile_id": tile, "status": status, "gradings": gradings_text(gradings) if gradings else None, "reason": None,
        "message": None, "datetime_min": NOON, "datetime_max": NOON, "scenes": ["s"], "predictor": "vlm",
        "notes": ["n"], **more,
    }  # fmt: skip


def test_each_has_the_grading_of_its_own_place_in_its_tile() -> None:
    given = _given(["b", "a", "b", "a"])
    words = ("intact", "minor damage", "major damage", "destroyed")
    own = [Grading(value=word, probability=0.5, notes=("g",)) for word in words]
    found = list(
        graded_rows(given, [_row("a", "answered", own[0], own[3]), _row("b", "answered", own[1], own[2])], LAYER, QUERY)
    )
    assert {row["id"]: row["answer"] for row in found} == {
        "id1": "no visible damage",
        "id3": "destroyed",
        "id0": "possibly damaged",
        "id2": "damaged",
    }
    assert found[0]["notes"] == ["n", "g", "odd"]
    assert [row["tile_ids"] for row in found] == [["a"], ["a"], ["b"], ["b"]]
    table = placed_table(found, feature_schema())
    assert sorted(table["footprint"].to_pylist()) == [1, 2, 3, 4]
    assert set(table["geometry"].to_pylist()) == {shapely.to_wkb(shape) for shape in SHAPES}


def test_a_tile_that_was_not_answered_is_the_reason_of_all_of_its_footprints() -> None:
    rows = [
        _row("a", "failed", reason="damaged", message="broken file"),
        _row("b", "skipped", reason="cloud", scenes=[]),
    ]
    rows[1] |= {"datetime_min": None, "datetime_max": None}
    found = list(graded_rows(_given(["a", "a", "b"]), rows, LAYER, QUERY))
    assert [row["reason"] for row in found] == ["damaged", "damaged", "cloud"]
    assert {row["answer"] for row in found} == {NOT_ANALYSED}
    assert found[0]["message"] == "broken file"
    assert found[2]["datetime_min"] is None


def test_a_grading_too_few_is_a_defect_and_no_footprint_is_left_out() -> None:
    with pytest.raises(ValueError, match="zip"):
        list(graded_rows(_given(["a", "a"]), [_row("a", "answered", Grading(value="intact"))], LAYER, QUERY))


@pytest.mark.parametrize("reason", list(WHY))
def test_what_no_tile_asks_about_comes_out_too(reason: str) -> None:
    shapes = [None, shapely.Polygon(), shapely.box(0, 95, 1, 99), shapely.Point(8, 50)]
    found = list(ungraded_rows(_given([None] * 4, shapes), QUERY, LAYER.query, reason))
    assert [row["footprint"] for row in found] == [1, 2, 3, 4]
    assert {row["reason"] for row in found} == {reason}
    assert [row["area_m2"] for row in found] == [None] * 4
    table = placed_table(found, feature_schema())
    assert table["geometry"].to_pylist()[0] is None
    assert table["place"].null_count == 0


def test_sums_count_each_footprint_once() -> None:
    sums, parts = Sums(), [Sums(), Sums()]
    rows = list(ungraded_rows(_given([None] * 4), QUERY, LAYER.query, OUTSIDE))
    parts[0].grade(LAYER, rows, task="damage")
    parts[1].grade(LAYER, [{"answer": "destroyed", "reason": None}] * 3, task="damage")
    for part in parts:
        sums.update(Sums.from_json(part.to_json()))
    assert sums.over_layers(LAYER.query, task="damage").found == {"not analysed outside": 4, "destroyed": 3}
