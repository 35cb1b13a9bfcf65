"""Vectors on the ground: each on its tile's square, in the same bytes whatever row or cell comes first."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from earthmap.grid import AreaOfInterest, Cell, Grid, Tile, owned_ground, touched
from earthmap.merge import merge_cell, summarize
from earthmap.predict.vectors import vector_answer
from earthmap.tasks import Answer, answer_columns, answer_schema, make_query
from tests.merge.maps import joined

GRID = Grid(resolution_m=10, picture_px=128)
AREA = AreaOfInterest.from_bbox(5.93, 45.70, 6.07, 45.78)  # on both sides of a zone's border
EMBED = make_query("Embed this area.")
KEY = EMBED.content_key()
DAY = dt.datetime(2024, 5, 4, tzinfo=dt.UTC)


def answer_of(tile: Tile) -> Answer:
    if tile.column % 5 == 0:
        return Answer(status="skipped", reason="cloud", message="no pixel of the core could be seen")
    vector = np.random.default_rng(abs(tile.row * 1000 + tile.column)).normal(size=12)
    return vector_answer(vector, np.ones((112, 112), bool))


def rows_of(cell: Cell, tiles: int, *, sensor: str = "sentinel-2-l2a") -> list[dict[str, Any]]:
    about = {
        "cell_id": cell.id, "query": KEY, "observation": f"{sensor}_1", "datetime_min": DAY, "datetime_max": DAY,
        "sensor": sensor, "scenes": ["scene"], "predictor": "vlm",
    }  # fmt: skip
    mine = [tile for bit, tile in enumerate(cell.tiles()) if tiles >> bit & 1]
    return [{**about, "tile_id": tile.id, **answer_columns(answer_of(tile))} for tile in mine]


def merged(seed: int) -> Any:
    dice = np.random.default_rng(seed)
    merges = []
    cells, bits = touched(AREA, GRID)
    for place in dice.permutation(len(cells)):
        cell, tiles = cells[place], int(bits[place])
        rows = [row for sensor in ("sentinel-1-db", "sentinel-2-l2a") for row in rows_of(cell, tiles, sensor=sensor)]
        mixed = [rows[number] for number in dice.permutation(len(rows))]
        table = pa.Table.from_pylist(mixed, schema=answer_schema())
        merges.append(
            merge_cell(cell, table, area=AREA, queries={KEY: EMBED}, tiles=tiles, by_observation=False)
        )  # fmt: skip
    return joined(merges, area=AREA, queries={KEY: EMBED})


@pytest.fixture(scope="module")
def whole() -> Any:
    return merged(0)


def test_each_vector_stands_on_its_tiles_own_ground(whole: Any) -> None:
    features = whole.features
    zones = set()
    for row in features.to_dict("records"):
        tile = Tile.parse(row["tile_ids"][0])
        zones.add(tile.zone.id)
        expected = answer_of(tile).embedding
        np.testing.assert_array_equal(np.array(row["embedding"], np.float32), expected)
        assert (row["observation"], row["task"]) == (f"{row['sensor']}_1", "embed")
        assert owned_ground(tile).buffer(1e-9).covers(row["geometry"])
    assert zones == {"31N", "32N"}
    names = [(ids[0], sensor) for ids, sensor in zip(features["tile_ids"], features["sensor"], strict=True)]
    assert len(names) == len(set(names))
    skipped = whole.coverage[whole.coverage["status"] == "skipped"]
    assert len(features) + len(skipped) == len(whole.coverage)
    assert set(skipped["reason"]) == {"cloud"}


def test_no_order_changes_a_byte(whole: Any) -> None:
    assert merged(1).features_bytes == merged(2).features_bytes == whole.features_bytes


def test_the_summary_counts_tiles(whole: Any) -> None:
    found = summarize(whole.sums, area=AREA, queries={KEY: EMBED})["queries"][0]
    assert [entry["sensor"] for entry in found["observations"]] == ["sentinel-1-db", "sentinel-2-l2a"]
    for entry in found["observations"]:
        assert entry["answered_tiles"] == entry["answered"] == len(whole.features) // 2
