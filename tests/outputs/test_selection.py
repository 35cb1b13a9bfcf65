"""What is drawn of results of any size: the largest, exactly the unseen ground, the whole frame, and a word of it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from earthmap.merge import PLACE, coverage_schema, feature_schema
from earthmap.merge.tables import placed_table
from earthmap.outputs import select_results, write_geoparquet
from earthmap.outputs import selection as module
from earthmap.outputs.drawing import in_one_piece

NOON = datetime.datetime(2024, 6, 1, 12, tzinfo=datetime.UTC)


def feature(shape: Any, area: float) -> dict[str, Any]:
    return dict.fromkeys(feature_schema().names) | {
        "geometry": shape, "query": "Where is water?", "query_key": "k", "task": "segment", "answer": "water",
        "probability": None, "fraction": None, "area_m2": area, "tile_ids": ["t"], "scenes": ["s"],
        "datetime_min": NOON, "datetime_max": NOON, "sensor": "sentinel-2-l2a", "predictor": "oracle", "notes": [],
    }  # fmt: skip


def tile(shape: Any, status: str, number: int) -> dict[str, Any]:
    return dict.fromkeys(coverage_schema().names) | {
        "geometry": shapely.multipolygons([shape]), "tile_id": f"t{number}", "query_key": "k", "observation": "one",
        "status": status, "stage": None, "reason": None if status == "answered" else "cloud", "message": None,
        "address": None, "seen_share": 1.0, "area_km2": 1.0, "seen_km2": 1.0, "datetime_min": NOON,
        "datetime_max": NOON, "sensor": "sentinel-2-l2a", "scenes": ["s"],
    }  # fmt: skip


def written(folder: Path, features: list[dict[str, Any]], coverage: list[dict[str, Any]]) -> tuple[Path, Path]:
    paths = folder / "features.parquet", folder / "coverage.parquet"
    for path, rows, schema in zip(paths, (features, coverage), (feature_schema(), coverage_schema()), strict=True):
        table: pa.Table = placed_table(rows, schema)
        assert table.schema.names[-1] == PLACE
        write_geoparquet(path, [table], schema)
    return paths


def squares(count: int, *, west: float = 10.0) -> list[Any]:
    """A block of touching squares of a hundredth of a degree."""
    side = int(np.ceil(count**0.5))
    return [shapely.box(west + x, y, west + x + 1, y + 1) for x, y in (divmod(i, side) for i in range(count))]


def small(shape: Any) -> Any:
    return shapely.transform(shape, lambda xy: xy / 100.0)


def test_of_many_footprints_the_worst_are_drawn_and_what_has_no_place_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_POLYGONS", 3)
    grades = ("no visible damage", "destroyed", "possibly damaged", "not analysed", "damaged", "no visible damage")
    shapes: list[Any] = [small(shape) for shape in squares(len(grades))]
    rows = [
        feature(shape, 100.0 - number) | {"task": "damage", "answer": grade}
        for number, (shape, grade) in enumerate(zip(shapes, grades, strict=True))
    ]
    rows[3] |= {"geometry": None, "area_m2": None, "reason": "no_geometry"}
    found = select_results(*written(tmp_path, rows, []))
    assert set(found.features["answer"]) == {"destroyed", "damaged", "possibly damaged"}
    assert found.notes[0].startswith("The map shows the worst damaged, or largest, 3 of 6 polygons")
    monkeypatch.setattr(module, "MAX_POLYGONS", 6)
    found = select_results(*written(tmp_path, rows, []))
    assert len(found.features) == 5
    assert found.notes == (
        "1 footprint outside the area, or without a place on the Earth, not drawn: features.parquet has all.",
    )


def test_a_small_result_is_drawn_whole(tmp_path: Path) -> None:
    shapes = [small(shape) for shape in squares(20)]
    features = [feature(shape, 5.0) for shape in shapes]
    coverage = [tile(shape, "failed" if i % 2 else "answered", i) for i, shape in enumerate(shapes)]
    selection = select_results(*written(tmp_path, features, coverage))
    assert selection.notes == ()
    assert len(selection.features) == 20
    drawn = [name for name in feature_schema().names[1:] if name != "embedding"]
    assert list(selection.features.columns) == [*drawn, "geometry"]
    unseen = selection.coverage[selection.coverage.status == "failed"]
    assert sorted(unseen.tile_id) == sorted(f"t{i}" for i in range(1, 20, 2))
    assert (unseen.reason == "cloud").all()
    np.testing.assert_allclose(selection.coverage.total_bounds, shapely.total_bounds(shapes))


def test_too_many_polygons_keep_the_largest_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POLYGONS", 100)
    features = [feature(small(shape), float(i)) for i, shape in enumerate(squares(105))]
    selection = select_results(*written(tmp_path, features, [tile(small(squares(1)[0]), "answered", 0)]))
    assert sorted(selection.features.area_m2) == list(range(5, 105))
    assert selection.notes[0].startswith("The map shows the largest 100 of 105 polygons (99.8 % of their area)")


def test_long_outlines_are_simplified_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VERTICES", 500)
    turn = np.linspace(0, 2 * np.pi, 5_000)
    around = shapely.Polygon(np.column_stack([0.2 * np.cos(turn) + 1, 0.2 * np.sin(turn) + 1]))
    coverage = [tile(shapely.box(0.8, 0.8, 1.2, 1.2), "answered", 0)]
    selection = select_results(*written(tmp_path, [feature(around, 1.0)], coverage))
    (drawn,) = selection.features.geometry
    assert shapely.get_num_coordinates(drawn) < 500
    assert drawn.hausdorff_distance(around) < 0.4 / 4000 * 1.01
    assert selection.notes == (module.SIMPLIFIED,)


def test_much_unseen_ground_is_drawn_in_blocks_that_cover_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_POLYGONS", 50)
    monkeypatch.setattr(module, "READ_ROWS", 70)
    shapes = [small(shape) for shape in squares(900)]
    status = ["answered" if i % 3 == 0 else "skipped" if i % 3 == 1 else "failed" for i in range(900)]
    coverage = [tile(shape, kind, i) for i, (shape, kind) in enumerate(zip(shapes, status, strict=True))]
    selection = select_results(*written(tmp_path, [], coverage))
    assert len(selection.features) == 0
    drawn = selection.coverage
    assert len(drawn) <= 50 + 2
    for kind in ("skipped", "failed"):
        expected = shapely.union_all([shape for shape, own in zip(shapes, status, strict=True) if own == kind])
        found = shapely.union_all(drawn[drawn.status == kind].geometry.to_numpy())
        assert shapely.symmetric_difference(found, expected).area < 1e-12
    assert "600 tile answers" in selection.notes[0]
    np.testing.assert_allclose(drawn.total_bounds, shapely.total_bounds(shapes))


def test_ground_on_both_sides_of_the_antimeridian_is_one_frame(tmp_path: Path) -> None:
    shapes = [shapely.box(179.5, 10, 180, 11), shapely.box(-180, 10, -179.7, 11)]
    coverage = [tile(shape, "answered", i) for i, shape in enumerate(shapes)]
    selection = select_results(*written(tmp_path, [], coverage))
    _, _, _, frame = in_one_piece(selection.features, selection.coverage, [])
    np.testing.assert_allclose(frame, (179.5, 10.0, 180.3, 11.0))


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    selection = select_results(*written(tmp_path, [], []))
    assert (len(selection.features), len(selection.coverage), selection.notes) == (0, 0, ())
    assert set(coverage_schema().names) == set(selection.coverage.columns)
